/*
 * mux/early.h - bytes of a stream that were read before the bytes in front of
 * them.
 *
 * Slots deliver at different times, so DATA can overtake earlier DATA of its
 * stream.  A list keeps pieces of DATA in the order of their offsets.  If DATA
 * follows a piece without a gap, it is added there, or makes a piece with twice
 * the room.  So small pieces stay few, and none moves in memory.
 */
#ifndef MUX_EARLY_H
#define MUX_EARLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EARLY_MERGED 65536 /* room for several DATA frames, at most */

struct early {
	struct early *next;
	uint64_t at;             /* offset of its first byte */
	size_t size, have, room; /* bytes in all, read already, and allocated */
	unsigned char bytes[];
};

/* A list of zeros is empty. */
struct early_list {
	struct early *first, *last;
};

/*
 * early_end(list): Return the offset after the last byte of ${list}, or 0.
 *
 * early_overlaps(list, at, n):
 * Does ${list} have any of the ${n} bytes from the offset ${at}?
 */
uint64_t early_end(const struct early_list *list);
bool early_overlaps(const struct early_list *list, uint64_t at, size_t n);

/*
 * early_add(list, at, n, pieces):
 * Add room for ${n} bytes from ${at}, which overlap no other piece, and return
 * the piece.  The caller writes them to bytes + have, and increases have.  If
 * the piece is new, ${*pieces} is increased.  NULL: out of memory.
 */
struct early *early_add(struct early_list *list, uint64_t at, size_t n, uint32_t *pieces);

/* early_pop(list, pieces): Free the first piece. */
void early_pop(struct early_list *list, uint32_t *pieces);

#endif
