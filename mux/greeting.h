/*
 * mux/greeting.h - reads the greeting of the peer: PROTOCOL 1 to 3.
 *
 *   magic --magic--> hello --HELLO--> session --SESSION--> done
 *                      \-- HELLO of version 1 ---------------^
 *
 * A peer of version 1 sends no SESSION.  The state becomes failed after any
 * fault, or if BYE comes instead of HELLO or SESSION.  No function blocks.
 */
#ifndef MUX_GREETING_H
#define MUX_GREETING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mux/frame.h"

#define GREETING_LEAST 1 /* versions of the protocol that this relay supports */
#define GREETING_NEWEST 2
#define GREETING_OURS (2 * FRAME_HEAD + FRAME_HELLO_FIXED + 255 + FRAME_SESSION_SIZE)
#define GREETING_SIZE (FRAME_HEAD + 2 + FRAME_WORDS + 1) /* of one frame and a NUL, at most */

enum greeting_state {
	GREETING_MAGIC,
	GREETING_HELLO,
	GREETING_SESSION,
	GREETING_DONE,
	GREETING_FAILED
};

struct greeting {
	enum greeting_state state;
	bool far; /* this side is the far one */
	/* GREETING_FAILED */
	bool by_peer;  /* BYE was read */
	bool lost;     /* the peer cannot read a BYE: the channel is not a link */
	uint16_t code; /* of BYE, or MUX_PROTOCOL */

	size_t matched; /* bytes of the magic */
	char *banner;   /* what came before the magic, and a NUL */
	size_t banner_have;
	struct frame head;      /* of frame */
	size_t frame_have;      /* bytes of frame */
	size_t length;          /* of all frames so far */
	struct session session; /* zeros for a peer of version 1 */
	struct hello hello;
	unsigned char frame[GREETING_SIZE]; /* the one that is being read */
	char why[FRAME_WORDS + 128];        /* GREETING_FAILED */
};

/*
 * greeting_start(g, far):
 * Expect the greeting of a new channel.  ${g} is zeros, or was used before.
 */
void greeting_start(struct greeting *g, bool far);

/*
 * greeting_feed(g, p, n):
 * Take bytes of the channel until the greeting is complete or has failed.
 * Return how many of the ${n} bytes were taken.
 */
size_t greeting_feed(struct greeting *g, const unsigned char *p, size_t n);

/*
 * greeting_put(dst, h, s):
 * Write the frames of our own greeting into ${dst}, which has GREETING_OURS
 * bytes: HELLO of ${h} with our versions, and SESSION.  Return their length.
 */
size_t greeting_put(unsigned char *dst, const struct hello *h, const struct session *s);

/* greeting_free(g): Free the banner. */
void greeting_free(struct greeting *g);

#endif
