/*
 * tunnel/tunnel.h - the life of a link, on either side.
 */
#ifndef TUNNEL_TUNNEL_H
#define TUNNEL_TUNNEL_H

#include "base/poll.h"
#include "mux/mux.h"
#include "net/dial.h"
#include "conn/conn.h"
#include "tunnel/bootstrap.h"
#include "tunnel/hops.h"
#include "tunnel/probe.h"
#include "tunnel/remote.h"
#include "tunnel/serve.h"
#include "tunnel/transport.h"

enum tunnel_state { TUNNEL_OVER, TUNNEL_STARTING, TUNNEL_UP, TUNNEL_BACKOFF };

struct tunnel {
	enum tunnel_state state;
	enum mux_role role;
	struct mux *mux;
	struct transport transport;
	struct conns *conns; /* borrowed */
	struct remotes remotes;
	struct serve serve;
	struct probes probes;
	struct dial_target *command; /* near: what carries the link */
	const struct hops *hops;     /* near: it leads through these; NULL: it is the user's own */
	const char *self, *far_path, *far_options; /* with hops: for bootstrap.c */
	struct bootstrap *bootstrap; /* with hops: from the first start to the end of the process */
	bool one_shot;               /* ends with its one connection */
	bool probing;                /* -n: probe.c reports its failures from ${loss}, and it never reconnects */
	bool finished;               /* it has ended so */
	bool stopped, wanted;
	unsigned connects; /* how often it was up */
	unsigned retries;  /* starts since then */
	int uploads_logged;
	bool silence_logged;
	int64_t started_at, here_at, up_at, explain_at, magic_at, again_at;
	int64_t
	    clock_offset; /* the time of day minus the clock that stands still while the host sleeps */
	int64_t report_at; /* a loss is logged at this time; 0: none */
	char loss[1024];   /* why the link was lost, or could not be made */
	int status;        /* TUNNEL_OVER: relay's exit status */
};

/*
 * tunnel_start(t, role, now): begin, with command, hops, conns and serve as they are; return an exit status.
 * tunnel_want(t, ps): tell poll what it waits for; end and start what is due.
 * tunnel_step(t, ps): read; return true if the link came up in this turn.
 * tunnel_serve(t, ps): take up new streams, and wake connections whose streams have changed; before conn_step.
 * tunnel_flush(t, status, ps): write, after conn_step; ${status} is what conn_sweep returned.
 * tunnel_want_up(t): a connection waits for a tunnel in backoff.
 * tunnel_stop(t, status): end with ${status}.
 * tunnel_name(t): what the user calls the far side.
 * tunnel_table(t, now): log its state.
 */
int tunnel_start(struct tunnel *t, enum mux_role role, int64_t now);
void tunnel_want(struct tunnel *t, struct pollset *ps);
bool tunnel_step(struct tunnel *t, const struct pollset *ps);
void tunnel_serve(struct tunnel *t, const struct pollset *ps);
void tunnel_flush(struct tunnel *t, int status);
void tunnel_want_up(struct tunnel *t);
void tunnel_stop(struct tunnel *t, int status);
const char *tunnel_name(const struct tunnel *t);
void tunnel_table(const struct tunnel *t, int64_t now);

#endif
