/*
 * tunnel/forward.h - what a tunnel carries.
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

enum forward_state { FORWARD_DOWN, FORWARD_ASKS, FORWARD_STANDS, FORWARD_REFUSED };

struct forward {
	char kind;
	char *from_text, *to_text;
	struct endpoint from;  /* of -L and -D: here, of -R: there */
	struct dial_target to; /* of -R: here */
	enum forward_state
	    state; /* of -R: does it listen there?  of -L with -w: was its target reached? */
	char bound[UNIXPATH_MAX +
		   8]; /* -R, FORWARD_STANDS: the addresses there, a line each, and an empty one */
	int64_t again_at; /* -R, refused after the link came back: asked again then */
};

/*
 * forward_parse(f, kind, text, why, size): read ${text} as what ${kind} takes; false with one line in ${why}, as endpoint_parse.
 * forward_keep_port(f): the port that the system there picked, told in ${f}->bound, is the one to ask for from now on.
 * forward_tell(f, bound, hops): say where it begins, ${bound}, and how it goes on through ${hops}.
 */
bool forward_parse(struct forward *f, char kind, const char *text, char *why, size_t size);
void forward_keep_port(struct forward *f);
void forward_tell(const struct forward *f, const char *bound, const char *hops);

#endif
