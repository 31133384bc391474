/*
 * tunnel/forward.h - one -L, -R, -D or -W of a tunnel.
 *
 *   -L SOURCE:TARGET   A listener here.  Each of its connections is a stream to
 *                      TARGET.
 *   -R SOURCE:TARGET   A listener on the far side.  Each of its connections
 *                      takes a waiting stream (see remote.h).  The near side
 *                      joins that stream to TARGET.
 *   -D SOURCE          A listener here for SOCKS.  Each of its connections is a
 *                      stream to the target of its request.
 *   -W TARGET          stdin and stdout are one stream to TARGET.
 *
 * Only the near side opens streams.  So the far side can reach only the targets
 * of -R on this host.
 */
#ifndef TUNNEL_FORWARD_H
#define TUNNEL_FORWARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/dial.h"
#include "net/endpoint.h"
#include "net/unixpath.h"

enum forward_kind {
	FORWARD_NEAR = 'L',
	FORWARD_FAR = 'R',
	FORWARD_SOCKS = 'D',
	FORWARD_STDIO = 'W'
};

enum forward_state {
	FORWARD_DOWN,    /* the far side was not asked yet */
	FORWARD_ASKED,   /* to listen (-R), or to connect to the target (-w, -n) */
	FORWARD_READY,   /* it listens, or has reached the target */
	FORWARD_REFUSED, /* it was refused, or has ended */
	FORWARD_RETRY    /* -R: refused after a reconnect; asked again at retry_at */
};

struct forward {
	char kind;
	char *from_text, *to_text; /* SOURCE and TARGET as the user wrote them; owned */
	struct endpoint from;      /* of -L and -D: here, of -R: there */
	struct dial_target to;     /* of -R: here */
	enum forward_state state;
	int64_t retry_at; /* FORWARD_RETRY */

	/* -R, FORWARD_READY: the addresses, a line each, and an empty line. */
	char bound[UNIXPATH_MAX + 8];
};

/*
 * forward_parse(f, kind, text, why, size): read ${text}, the argument of the
 * option ${kind}.  On failure write a line into ${why} and return false.
 * forward_keep_port(f): if ${f} requested port 0 on the far side, request from
 * now on the port in ${f}->bound, so that a reconnect does not change it.
 * forward_log(f, bound, path): log the route of ${f}: its listener, which is the
 * first line of ${bound}, the hops ${path}, its target.
 */
bool forward_parse(struct forward *f, char kind, const char *text, char *why, size_t size);
void forward_keep_port(struct forward *f);
void forward_log(const struct forward *f, const char *bound, const char *path);

#endif
