/* tunnel/elf.c - does a program need a dynamic loader? */
#include <stdint.h>
#include <string.h>

#include "tunnel/elf.h"

#define PT_INTERP 3

enum elf_class { ELF_32 = 1, ELF_64 = 2 };
enum elf_order { LITTLE = 1, BIG = 2 };

/* Where the fields of the ELF header are. */
struct layout {
	size_t header; /* the size of the ELF header */
	size_t e_phoff, phoff_size, e_phentsize, e_phnum;
};

static const struct layout layouts[] = {
	[ELF_32] = { 52, 28, 4, 42, 44 }, [ELF_64] = { 64, 32, 8, 54, 56 }
};

/* The caller has checked that ${size} bytes are there. */
static uint64_t
number(const unsigned char *p, size_t size, unsigned order)
{
	uint64_t n = 0;
	size_t i;

	for (i = 0; i < size; i++)
		n = n << 8 | p[order == BIG ? i : size - 1 - i];
	return n;
}

/* Return NULL if the file is not ELF, or its header is not complete. */
static const struct layout *
find_layout(const unsigned char *p, size_t n)
{
	const struct layout *at;

	if (n < 6 || memcmp(p, "\177ELF", 4) != 0)
		return NULL;
	if ((p[4] != ELF_32 && p[4] != ELF_64) || (p[5] != LITTLE && p[5] != BIG))
		return NULL;
	at = &layouts[p[4]];
	return n < at->header ? NULL : at;
}

bool
elf_needs_loader(const unsigned char *p, size_t n)
{
	const struct layout *at = find_layout(p, n);
	uint64_t entry, size, left;

	if (at == NULL)
		return false;
	entry = number(p + at->e_phoff, at->phoff_size, p[5]);
	size = number(p + at->e_phentsize, 2, p[5]);
	left = number(p + at->e_phnum, 2, p[5]);
	for (; left > 0 && entry <= n && n - entry >= 4; left--, entry += size)
		if (number(p + entry, 4, p[5]) == PT_INTERP)
			return true;
	return false;
}
