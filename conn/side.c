/*
 * conn/side.c - one side of a connection: descriptors, or a stream of a link.
 */
#include <string.h>

#include "mux/mux.h"
#include "conn/fdpair.h"
#include "conn/side.h"

void
side_none(struct side *e)
{
	memset(e, 0, sizeof(*e));
	fdpair_none(&e->fds);
}

struct side
side_of_socket(int fd, bool tcp)
{
	struct side e;

	side_none(&e);
	fdpair_socket(&e.fds, fd, tcp);
	return e;
}

struct side
side_of_stream(struct stream *s)
{
	struct side e;

	side_none(&e);
	e.stream = s;
	return e;
}

void
side_close(struct side *e, bool reset, uint16_t code, const char *words)
{
	if (e->stream == NULL) {
		fdpair_close(&e->fds, reset);
		return;
	}
	if (reset)
		stream_reset(e->stream, code, words);
	stream_release(e->stream);
	e->stream = NULL;
}
