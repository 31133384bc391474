/*
 * tunnel/serve.h - the far side: what the streams that the near side opens are joined to.
 */
#ifndef TUNNEL_SERVE_H
#define TUNNEL_SERVE_H

#include "conn/conn.h"
#include "relay.h"
#include "tunnel/remote.h"

struct serve {
	struct conns *conns;
	struct remotes *remotes;
	const struct dial_target *target; /* of streams that name no other; its time limits hold for all */
	bool only_target;                 /* a stream that names another one is refused */
};

/* serve_streams(tab, m, now): take up all streams that the peer of ${m} has opened. */
void serve_streams(struct serve *tab, struct mux *m, int64_t now);

#endif
