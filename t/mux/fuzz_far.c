/*
 * fuzz_far.c - the far side of a link reads what a hostile near side may send
 */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	fuzz_run(MUX_FAR, p, n);
	return 0;
}
