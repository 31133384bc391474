/*
 * tunnel/serve.h - the far side: what the streams that the near side opens are joined to.
 */
#ifndef TUNNEL_SERVE_H
#define TUNNEL_SERVE_H

#include "net/dial.h"
#include "conn/conn.h"
#include "tunnel/remote.h"

#define SERVE_NAMES 16
#define SERVE_ECHO "=echo"

/* A target with a host name that streams share, so that the name is looked up once. */
struct serve_name {
	struct dial_target *target; /* NULL: none */
	int64_t stale_at;           /* from then on the name is looked up again */
};

struct serve {
	struct conns *conns;
	struct remotes *remotes;
	struct dial_target
	    *target;      /* of streams that name no other; its time limits hold for all */
	bool only_target; /* a stream that names another one is refused */
	struct serve_name names[SERVE_NAMES]; /* the one used last is the first */
};

/* serve_streams(tab, m, now): take up all streams that the peer of ${m} has opened. */
void serve_streams(struct serve *tab, struct mux *m, int64_t now);

#endif
