/*
 * tunnel/transport.h - the channel of a link: a command's stdin and stdout, or our own.
 */
#ifndef TUNNEL_TRANSPORT_H
#define TUNNEL_TRANSPORT_H

#include "base/poll.h"
#include "mux/frame.h"
#include "mux/mux.h"
#include "net/dial.h"
#include "conn/fdpair.h"
#include "tunnel/bootstrap.h"

#define TRANSPORT_OUT (4 * FRAME_DATA_MAX)

struct transport {
	struct mux *mux;
	struct fdpair wire;
	struct child *child; /* near: the command; spawn.c logs its end */
	struct dial *dial;   /* near: until the command runs */
	bool ended;          /* the wire is closed */
	int64_t unread_at;   /* since then the wire has no reader; 0: it has one */
	unsigned char *in, *out;
	size_t out_start, out_end;
	bool
	    full; /* the wire takes nothing until poll reports it: each small piece would wake its reader up */
	struct bootstrap *bootstrap;    /* near: what starts the far end; NULL: the command does */
	int stderr_fd, stderr_slot;     /* with a bootstrap: the command's stderr; -1 */
	bool quiet;                     /* what it prints is for -v only */
	char line[512], last_line[512]; /* a line that is being read, the last whole one */
	size_t line_have;
};

/*
 * transport_near(t, m, target, bootstrap, now): run the command ${target} as the channel of ${m}, whose far end ${bootstrap} starts if
 * it is not NULL.  False: no memory or descriptors.
 * transport_far(t, m): the channel is stdin and stdout.  -1: they cannot be used; it was logged.
 * transport_want(t, ps), transport_step(t, ps): read what came.
 * transport_flush(t, now_us): write what the mux has to send, as much as the channel takes.
 * transport_read_stderr(t): read what the command printed on its stderr, as much as a pipe holds
 * at most.
 * transport_close(t, now): after the last flush.
 */
bool transport_near(struct transport *t, struct mux *m, struct dial_target *target,
    struct bootstrap *bootstrap, int64_t now);
int transport_far(struct transport *t, struct mux *m);
void transport_want(struct transport *t, struct pollset *ps);
void transport_step(struct transport *t, const struct pollset *ps);
void transport_flush(struct transport *t, int64_t now_us);
void transport_read_stderr(struct transport *t);
void transport_close(struct transport *t, int64_t now);

#endif
