/* fuzz_near.c - the near side of a link under whatever a far side may send */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	fuzz_run(LINK_NEAR, p, n);
	return 0;
}
