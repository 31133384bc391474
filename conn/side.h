/*
 * conn/side.h - one side of a connection: descriptors, or a stream of a link.
 *
 * This file and half.c are the only ones that know which of the two a side is.
 */
#ifndef CONN_SIDE_H
#define CONN_SIDE_H

#include <stdint.h>

#include "conn/fdpair.h"
#include "mux/mux.h"

struct side {
	struct fdpair fds;     /* all -1 if this side is a stream */
	struct stream *stream; /* NULL: this side is fds */
	int err; /* an errno value: this side was reset, and nothing can be written to it; 0: it was not */
};

/*
 * side_none(e): neither descriptors nor a stream.
 * side_of_fds(fds), side_of_stream(s): a side that owns ${fds} or ${s} from now on.
 */
void side_none(struct side *e);
struct side side_of_fds(const struct fdpair *fds);
struct side side_of_stream(struct stream *s);

/*
 * side_want(e, ps, reads, writes): watch it for a failure, and for what is wanted.  side_unwatch(e): not in this turn.
 * side_readable(e, ps), side_writable(e, ps): what poll reported; a stream is neither.
 * side_has_event(e, ps): poll reported anything.
 * side_failed(e, ps): an errno value if poll reported a failure: EPIPE: what is written to it has no reader any more; else it was
 * reset.  0: none, or a stream.
 */
void side_want(struct side *e, struct pollset *ps, bool reads, bool writes);
void side_unwatch(struct side *e);
bool side_readable(const struct side *e, const struct pollset *ps);
bool side_writable(const struct side *e, const struct pollset *ps);
bool side_has_event(const struct side *e, const struct pollset *ps);
int side_failed(struct side *e, const struct pollset *ps);

/*
 * side_resets(e): can its peer be sent a reset?
 * side_stop(e): its input is not needed any more; the peer learns of it where it can be told.  A TCP peer cannot; its input has to be
 * read and dropped.
 * side_unsent(e): how many bytes written to it the peer's system has not acknowledged yet; 0 where that is not known.
 * side_is_done(e): nothing can come from the peer any more that says whether all was delivered.
 * side_close(e, reset, code, words): end both directions.  ${reset}: as a reset where the side can carry one; a stream sends ${code}
 * and ${words} in CLOSE.
 */
bool side_resets(const struct side *e);
void side_stop(struct side *e);
uint64_t side_unsent(const struct side *e);
bool side_is_done(const struct side *e);
void side_close(struct side *e, bool reset, uint16_t code, const char *words);

#endif
