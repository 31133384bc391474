/*
 * conn/fdpair.h - the descriptors of one side of a connection.
 *
 * A side is one socket for both directions, or two descriptors: the pipes of a
 * command, or stdin and stdout.  The descriptor of a direction that has ended
 * is -1.  No function here blocks.  SIGPIPE must be ignored.
 */
#ifndef CONN_FDPAIR_H
#define CONN_FDPAIR_H

#include <stdbool.h>
#include <stdint.h>

struct pollset;

struct fdpair {
	int in, out;                /* the same number: one socket */
	int in_slot, out_slot;      /* in the pollset of this turn; -1: none */
	int in_flags, out_flags;    /* inherited status flags to restore; -1: none */
	bool single;                /* one socket carries both directions */
	bool out_socket;            /* EOF is sent by shutdown(2), not by close(2) */
	bool tcp;                   /* can carry a reset */
	bool stdio;                 /* stdin and stdout */
	bool keeps_stderr;          /* fdpair_shut_out of stdout leaves stderr open */
	bool in_blocks, out_blocks; /* a terminal or a device: may block */
	bool in_splices;            /* bulk from in is faster with os_splice */
	bool out_splices;           /* bulk to out is faster with os_splice */
	bool wants_in;              /* poll was asked for input in this turn */
	bool hup;                   /* hung up: if idle, it is not watched again */
	int64_t check_at;           /* next fdpair_failed without an event; INT64_MAX: none */
};

/* fdpair_none(e): Make ${e} a side without descriptors: it has no event. */
void fdpair_none(struct fdpair *e);

/*
 * fdpair_socket(e, fd, tcp), fdpair_pipes(e, in, out):
 * Make ${e} of one socket, or of two pipes.  It owns the descriptors, which are
 * non-blocking, from now on.
 */
void fdpair_socket(struct fdpair *e, int fd, bool tcp);
void fdpair_pipes(struct fdpair *e, int in, int out);

/*
 * fdpair_stdio(e):
 * Make ${e} of stdin and stdout, and put /dev/null in their place.  Return 0,
 * or -1 with errno set.  EPROTOTYPE: one of them is a socket of type
 * SOCK_SEQPACKET or SOCK_DGRAM.
 */
int fdpair_stdio(struct fdpair *e);

/* fdpair_explain(err): Return the text of an error of fdpair_stdio. */
const char *fdpair_explain(int err);

/*
 * fdpair_want(e, ps, reads, writes):
 * Watch ${e} in this turn: for a failure of its outgoing direction always, for
 * input if ${reads}, for room if ${writes}.
 */
void fdpair_want(struct fdpair *e, struct pollset *ps, bool reads, bool writes);

/* fdpair_unwatch(e): ${e} is not watched in this turn. */
void fdpair_unwatch(struct fdpair *e);

/*
 * fdpair_has_event(e, ps), fdpair_readable(e, ps), fdpair_writable(e, ps):
 * Has poll reported anything, or that read(2) or write(2) will not block?  An
 * error counts.
 */
bool fdpair_has_event(const struct fdpair *e, const struct pollset *ps);
bool fdpair_readable(const struct fdpair *e, const struct pollset *ps);
bool fdpair_writable(const struct fdpair *e, const struct pollset *ps);

/*
 * fdpair_failed(e, ps):
 * Return 0 without a failure.  A received EOF is not a failure.  EPIPE:
 * bytes that are written to ${e} have no reader any more.  Another errno value:
 * ${e} was reset.
 */
int fdpair_failed(struct fdpair *e, const struct pollset *ps);

/* fdpair_has_unread(e): Can bytes be read from ${e}, which is one socket? */
bool fdpair_has_unread(const struct fdpair *e);

/*
 * fdpair_input_ends(e):
 * Has the last writer closed the incoming direction?  Bytes may be unread.
 */
bool fdpair_input_ends(const struct fdpair *e);

/*
 * fdpair_shut_out(e):
 * End the outgoing direction: send EOF.  For stdout, close stderr too if it is
 * a pipe or a socket, unless keeps_stderr is set.  Return 0, or -1 with errno
 * set if the system could not send EOF.  A second call does nothing.
 */
int fdpair_shut_out(struct fdpair *e);

/*
 * fdpair_shut_in(e):
 * End the incoming direction.  A writer of a pipe or a Unix socket gets EPIPE;
 * a TCP peer gets nothing.  A second call does nothing.
 */
void fdpair_shut_in(struct fdpair *e);

/*
 * fdpair_close(e, reset):
 * End both directions, by a reset if ${reset} is true and ${e} can carry one.
 * Inherited descriptors get their status flags back.
 */
void fdpair_close(struct fdpair *e, bool reset);

#endif
