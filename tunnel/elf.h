/*
 * tunnel/elf.h - does a program need a dynamic loader?
 *
 * The layout is that of the System V ABI, chapters "ELF Header" and "Program
 * Header".  The bytes may come from a machine of any type.
 */
#ifndef TUNNEL_ELF_H
#define TUNNEL_ELF_H

#include <stdbool.h>
#include <stddef.h>

/*
 * elf_needs_loader(p, n):
 * Return true if the ${n} bytes at ${p} are an ELF program that names a
 * loader (PT_INTERP).  Return false for a static program, for one that was cut,
 * and for any other format.
 */
bool elf_needs_loader(const unsigned char *p, size_t n);

#endif
