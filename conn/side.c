/*
 * conn/side.c - one side of a connection: descriptors, or a stream of a link.
 */
#include <string.h>

#include "base/os.h"
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

int64_t
side_check_at(const struct side *e)
{
	return e->err == 0 && e->fds.out != -1 ? e->fds.check_at : INT64_MAX;
}

void
side_stop(struct side *e)
{
	if (e->stream != NULL)
		stream_stop(e->stream);
	else if (!e->fds.tcp)
		fdpair_shut_in(&e->fds);
}

uint64_t
side_unsent(const struct side *e)
{
	int fd = e->fds.out != -1 ? e->fds.out : e->fds.in;

	return e->stream == NULL && e->fds.tcp && fd != -1 ? os_unsent(fd) : 0;
}

bool
side_is_done(const struct side *e)
{
	return e->stream == NULL || stream_is_closed(e->stream);
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
