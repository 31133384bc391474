/* check_elf.c - which programs need a loader, and damaged files */
#include "t/check.h"
#include "tunnel/elf.h"

#define PT_LOAD 1
#define PT_INTERP 3
#define ENTRY 56 /* bytes of a program header of 64 bits, at least */

static unsigned char file[64 + 4 * ENTRY];

static void
put(size_t at, size_t size, uint64_t n, bool big)
{
	size_t i;

	for (i = 0; i < size; i++)
		file[at + (big ? size - 1 - i : i)] = (unsigned char)(n >> 8 * i);
}

/* A program with ${n} program headers of the types in ${types}. */
static void
make(bool wide, bool big, const int *types, int n)
{
	size_t header = wide ? 64 : 52;
	int i;

	memset(file, 0, sizeof(file));
	memcpy(file, "\177ELF", 4);
	file[4] = wide ? 2 : 1;
	file[5] = big ? 2 : 1;
	put(wide ? 32 : 28, wide ? 8 : 4, header, big);
	put(wide ? 54 : 42, 2, ENTRY, big);
	put(wide ? 56 : 44, 2, (uint64_t)n, big);
	for (i = 0; i < n; i++)
		put(header + (size_t)i * ENTRY, 4, (uint64_t)types[i], big);
}

/*
 * Give the function a copy that ends where memory ends, so that AddressSanitizer
 * and valgrind see each byte that is read behind it.
 */
static bool
needs_loader(size_t n)
{
	unsigned char *copy = malloc(n + (n == 0));
	bool needs;

	memcpy(copy, file, n);
	needs = elf_needs_loader(copy, n);
	free(copy);
	return needs;
}

static const int dynamic[] = { 6, PT_INTERP, PT_LOAD }, fixed[] = { PT_LOAD, 2, 4 };

START_TEST(pt_interp_is_found)
{
	make(_i & 1, _i & 2, dynamic, 3);
	ck_assert(needs_loader(sizeof(file)));
	make(_i & 1, _i & 2, fixed, 3);
	ck_assert(!needs_loader(sizeof(file)));
}
END_TEST

START_TEST(file_cut_at_each_byte)
{
	size_t n, needed = ((_i & 1) ? 64 : 52) + ENTRY + 4;

	make(_i & 1, _i & 2, dynamic, 3);
	for (n = 0; n <= sizeof(file); n++)
		ck_assert_int_eq(needs_loader(n), n >= needed);
}
END_TEST

START_TEST(each_byte_of_the_header_with_any_value)
{
	size_t at;
	int value;

	for (at = 0; at < 64; at++)
		for (value = 0; value < 256; value++) {
			make(_i & 1, _i & 2, dynamic, 3);
			file[at] = (unsigned char)value;
			needs_loader(sizeof(file));
		}
}
END_TEST

/* e_phoff near its maximum must not wrap; e_phentsize may be 0. */
START_TEST(wrong_numbers_end)
{
	static const uint64_t offsets[] = { 0, 63, sizeof(file) - 4, sizeof(file) - 3,
		sizeof(file), 0xffffffffU, UINT64_MAX - 3, UINT64_MAX };
	size_t i;

	for (i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
		make(_i & 1, _i & 2, fixed, 3);
		put((_i & 1) ? 32 : 28, (_i & 1) ? 8 : 4, offsets[i], _i & 2);
		put((_i & 1) ? 56 : 44, 2, 65535, _i & 2);
		ck_assert(!needs_loader(sizeof(file)));
		put((_i & 1) ? 54 : 42, 2, 0, _i & 2);
		ck_assert(!needs_loader(sizeof(file)));
	}
}
END_TEST

START_TEST(other_formats_need_no_loader)
{
	static const char *const texts[] = { "", "#!/bin/sh\n", "\177ELF", "\177ELF\2", "\177ELF\2\1",
		"\177ELF\3\1", "\177ELF\2\3", "\xcf\xfa\xed\xfe" };
	size_t i;

	for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		memset(file, PT_INTERP, sizeof(file));
		memcpy(file, texts[i], strlen(texts[i]));
		ck_assert(!needs_loader(strlen(texts[i])));
	}
}
END_TEST

TESTS("elf")
{
	tcase_add_loop_test(tc, pt_interp_is_found, 0, 4);
	tcase_add_loop_test(tc, file_cut_at_each_byte, 0, 4);
	tcase_add_loop_test(tc, each_byte_of_the_header_with_any_value, 0, 4);
	tcase_add_loop_test(tc, wrong_numbers_end, 0, 4);
	tcase_add_test(tc, other_formats_need_no_loader);
}
