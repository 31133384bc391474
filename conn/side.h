/*
 * conn/side.h - one side of a connection: descriptors, or a stream of a link.
 *
 * Only side.c, half.c and conn.c depend on which of the two a side is.  No
 * function here blocks.
 */
#ifndef CONN_SIDE_H
#define CONN_SIDE_H

#include <stdbool.h>
#include <stdint.h>

#include "conn/fdpair.h"
#include "mux/mux.h"

struct side {
	struct fdpair fds;     /* fdpair_none if this side is a stream */
	struct stream *stream; /* NULL: this side is fds */
	int err;               /* this side was reset: an errno value; or 0 */
};

/* side_none(e): Make ${e} a side that is neither descriptors nor a stream. */
void side_none(struct side *e);

/*
 * side_of_socket(fd, tcp), side_of_stream(s):
 * Return a side that owns the non-blocking socket ${fd} or ${s} from now on.
 */
struct side side_of_socket(int fd, bool tcp);
struct side side_of_stream(struct stream *s);

/*
 * side_close(e, reset, code, words):
 * Close ${e}, as a reset if ${reset} is true and the side can carry one.  A
 * stream sends ${code} and ${words} in CLOSE then.
 */
void side_close(struct side *e, bool reset, uint16_t code, const char *words);

#endif
