/* pull.h - the output of a mux as bytes in a buffer of the test */
#ifndef T_MUX_PULL_H
#define T_MUX_PULL_H
#include <string.h>

#include "mux/mux.h"

/* Move what ${m} sends now on ${slot} into ${dst}, ${room} bytes at most. */
static inline size_t
pull_slot(struct mux *m, unsigned slot, unsigned char *dst, size_t room, int64_t now)
{
	const unsigned char *p;
	size_t n = mux_output(m, slot, &p, room, now);

	if (n > room)
		n = room;
	if (n > 0)
		memcpy(dst, p, n);
	mux_wrote(m, slot, n);
	return n;
}

static inline size_t
pull_into(struct mux *m, unsigned char *dst, size_t room, int64_t now)
{
	return pull_slot(m, 0, dst, room, now);
}

#endif
