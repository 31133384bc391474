/*
 * fuzz_near.c - the near side of a link reads what a hostile far side may send
 */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	fuzz_run(MUX_NEAR, p, n);
	return 0;
}
