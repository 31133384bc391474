/*
 * tunnel/remote.h - -R: the far side listens, and its connections come here.
 *
 * The near side opens a stream that asks the far side to listen, and some more streams that wait there for a connection each.  So a
 * connection is on its way at once, although the far side opens no stream.  Connections that find no stream waiting stay in the
 * listener's backlog.
 */
#ifndef TUNNEL_REMOTE_H
#define TUNNEL_REMOTE_H

#include "base/poll.h"
#include "mux/mux.h"
#include "spawn.h"
#include "conn/conn.h"
#include "tunnel/forward.h"

#define REMOTE_LISTEN "=listen "
#define REMOTE_ACCEPT "=accept "

struct remote_ask;
struct remote_listener;
struct remote_waiter;

struct remotes {
	struct conns *conns;
	bool any_uid;  /* far: processes of other users may connect, too */
	struct children *kids; /* far: what looks names up */
	int lookup_ms;         /* far: how long a look-up may take */
	struct remote_ask *asks;
	struct remote_listener *listeners;
	struct remote_waiter *waiters;
};

/*
 * remote_ask(tab, m, f): near: ask the far side of ${m} to listen for ${f}, and serve what comes; ${f}->state reports what becomes
 * of it.  False: no stream could be opened; it was logged.
 * remote_listen(tab, s, now): far: listen where the target of ${s} says.  remote_wait(tab, s): far: ${s} waits for a connection.
 * remote_want(tab, ps), remote_step(tab, ps): once a turn.
 */
bool remote_ask(struct remotes *tab, struct mux *m, struct forward *f);
void remote_listen(struct remotes *tab, struct stream *s, int64_t now);
void remote_wait(struct remotes *tab, struct stream *s);
void remote_want(struct remotes *tab, struct pollset *ps);
void remote_step(struct remotes *tab, const struct pollset *ps);

#endif
