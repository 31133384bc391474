/* fuzz_far.c - the far side of a link under whatever a near side may send */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	fuzz_run(LINK_FAR, p, n);
	return 0;
}
