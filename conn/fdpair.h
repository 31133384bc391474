/*
 * conn/fdpair.h - the descriptors of one side of a connection.
 *
 * A side is one socket for both directions, or two descriptors: the pipes of a command, or stdin and stdout.  The descriptor of a
 * direction that has ended is -1.
 */
#ifndef CONN_FDPAIR_H
#define CONN_FDPAIR_H

#include <stdbool.h>

struct pollset;

struct fdpair {
	int in, out;                /* -1: that direction is over; the same number: one socket */
	int in_slot, out_slot;      /* of this turn's pollset */
	int in_flags, out_flags;    /* inherited: file status flags to give back; -1: none */
	bool single;                /* one socket is both directions */
	bool out_socket;            /* out is ended by shutdown */
	bool tcp;                   /* can carry a reset */
	bool stdio;                 /* stdin and stdout */
	bool keeps_stderr;          /* the end of stdout does not end stderr */
	bool in_blocks, out_blocks; /* a terminal, a file: to be used only after poll said so */
	bool in_splices,
	    out_splices; /* bulk to or from it is moved faster unseen (os_splice) than read and written */
	bool wants_in; /* poll was asked for in */
	bool
	    hup; /* a single socket, or in, has hung up: nothing more to learn from watching it idle */
};

/*
 * fdpair_none(e): an end without descriptors.
 * fdpair_socket(e, fd, tcp), fdpair_pipes(e, in, out): make ${e} of descriptors that are its own from now on.
 * fdpair_stdio(e): make ${e} of stdin and stdout, which become /dev/null.  EPROTOTYPE: one is a socket that keeps messages apart.
 * fdpair_explain(err): the cause of a failure of fdpair_stdio, and a remedy where it has one.
 * fdpair_want(e, ps, reads, writes): watch ${e} for the failure of its outgoing direction, and for what is wanted.
 * fdpair_unwatch(e): it is not watched in this turn.
 * fdpair_readable(e, ps), fdpair_writable(e, ps): what poll said.
 * fdpair_input_ends(e): the last writer of in has closed it; what can be read still is the rest.
 * fdpair_failed(e, ps): an errno value if whoever reads what is written to ${e} is gone (EPIPE: it closed), or ${e} was reset; else 0.
 * fdpair_has_unread(e): the single socket ${e} has sent bytes that were not read.
 * fdpair_shut_out(e), fdpair_shut_in(e): end one direction; twice is harmless.  The end of stdout also ends stderr if that is a pipe or
 * a socket, unless ${e} keeps it.  fdpair_shut_out: -1: the system could not tell the peer of the end.
 * fdpair_close(e, reset): end both; where ${e} can carry it, as a reset.
 */
void fdpair_none(struct fdpair *e);
void fdpair_socket(struct fdpair *e, int fd, bool tcp);
void fdpair_pipes(struct fdpair *e, int in, int out);
int fdpair_stdio(struct fdpair *e);
const char *fdpair_explain(int err);
void fdpair_want(struct fdpair *e, struct pollset *ps, bool reads, bool writes);
void fdpair_unwatch(struct fdpair *e);
bool fdpair_readable(const struct fdpair *e, const struct pollset *ps);
bool fdpair_writable(const struct fdpair *e, const struct pollset *ps);
bool fdpair_has_unread(const struct fdpair *e);
bool fdpair_input_ends(const struct fdpair *e);
int fdpair_failed(struct fdpair *e, const struct pollset *ps);
int fdpair_shut_out(struct fdpair *e);
void fdpair_shut_in(struct fdpair *e);
void fdpair_close(struct fdpair *e, bool reset);

#endif
