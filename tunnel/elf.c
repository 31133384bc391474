/* tunnel/elf.c - does a program need a dynamic loader? */
#include <stdint.h>
#include <string.h>

#include "tunnel/elf.h"

#define ELF_64 2
#define ELF_BIG 2
#define PT_INTERP 3

/* Where the fields of the ELF header are. */
static const struct layout {
	size_t header; /* the size of the ELF header */
	size_t e_phoff, phoff_size, e_phentsize, e_phnum;
} narrow = { 52, 28, 4, 42, 44 }, wide = { 64, 32, 8, 54, 56 };

/* The caller has checked that ${size} bytes are there. */
static uint64_t
number(const unsigned char *p, size_t size, bool big)
{
	uint64_t n = 0;
	size_t i;

	for (i = 0; i < size; i++)
		n = n << 8 | p[big ? i : size - 1 - i];
	return n;
}

bool
elf_needs_loader(const unsigned char *p, size_t n)
{
	const struct layout *at = n > 4 && p[4] == ELF_64 ? &wide : &narrow;
	uint64_t entry, size, left;
	bool big;

	if (n < at->header || memcmp(p, "\177ELF", 4) != 0)
		return false;
	big = p[5] == ELF_BIG;
	entry = number(p + at->e_phoff, at->phoff_size, big);
	size = number(p + at->e_phentsize, 2, big);
	left = number(p + at->e_phnum, 2, big);
	for (; left > 0 && entry <= n && n - entry >= 4; left--, entry += size)
		if (number(p + entry, 4, big) == PT_INTERP)
			return true;
	return false;
}
