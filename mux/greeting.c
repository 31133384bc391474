/* mux/greeting.c - reads the greeting of the peer: PROTOCOL 1 to 3. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mux/greeting.h"
#include "mux/mux.h"

#define MIDDLE "reLAylink"

void
greeting_start(struct greeting *g, bool far)
{
	free(g->banner);
	memset(g, 0, sizeof(*g));
	g->far = far;
}

void
greeting_free(struct greeting *g)
{
	free(g->banner);
	g->banner = NULL;
	g->banner_have = 0;
}

static void
fail(struct greeting *g, uint16_t code, const char *why)
{
	g->state = GREETING_FAILED;
	g->code = code;
	snprintf(g->why, sizeof(g->why), "%s", why);
}

/* This channel does not lead to a relay, so no BYE is sent. */
static void
fail_channel(struct greeting *g, const char *why)
{
	g->lost = true;
	fail(g, MUX_PROTOCOL, why);
}

/* ---- before the magic ---- */

/* The banner is shown, so the changed magic is removed from its end. */
static void
cut_magic(struct greeting *g)
{
	g->banner_have -= strlen(MIDDLE);
	while (g->banner_have > 0 && memchr(frame_magic, g->banner[g->banner_have - 1], 2) != NULL)
		g->banner_have--;
	g->banner[g->banner_have] = '\0';
}

static bool
ends_with_middle(const struct greeting *g)
{
	size_t n = strlen(MIDDLE);

	return g->banner_have >= n && memcmp(g->banner + g->banner_have - n, MIDDLE, n) == 0;
}

static void
add_banner(struct greeting *g, char c)
{
	size_t n;

	if (g->banner == NULL)
		g->banner = malloc(MUX_BANNER + 1);
	if (g->banner == NULL) {
		fail_channel(g, "no memory for the output that comes before the link");
		return;
	}
	if (g->banner_have == MUX_BANNER) {
		fail_channel(g,
		    "64 KiB of other output came before relay started there: what does its "
		    "login shell print?");
		return;
	}
	g->banner[g->banner_have++] = c;
	g->banner[g->banner_have] = '\0';
	if (ends_with_middle(g)) {
		cut_magic(g);
		fail_channel(g, "the line changes bytes: is there an ssh -t, or another terminal, "
				"on the way?");
		return;
	}
	/*
	 * If a forced command starts relay in place of a shell, the script for
	 * that shell comes before the near magic.
	 */
	n = g->banner_have < strlen(MUX_SCRIPT) ? g->banner_have : strlen(MUX_SCRIPT);
	if (g->far && memcmp(g->banner, MUX_SCRIPT, n) != 0)
		fail_channel(g, "stdin does not carry a link: start relay -m - by relay -m FROM -- "
				"COMMAND");
}

/*
 * ${c} is a byte of the magic or of the banner.  After a mismatch, only ${c}
 * itself can start the magic: bytes 1 to 14 of the magic differ from byte 0.
 */
static void
take_magic(struct greeting *g, unsigned char c)
{
	size_t i, n = g->matched;

	if (c == frame_magic[n]) {
		g->matched++;
		if (g->matched == FRAME_MAGIC)
			g->state = GREETING_HELLO;
		return;
	}
	g->matched = 0;
	for (i = 0; i < n && g->state == GREETING_MAGIC; i++)
		add_banner(g, (char)frame_magic[i]);
	if (g->state != GREETING_MAGIC)
		return;
	if (c == frame_magic[0])
		g->matched = 1;
	else
		add_banner(g, (char)c);
}

/* ---- the frames ---- */

static void
take_frame(struct greeting *g)
{
	unsigned char *body = g->frame + FRAME_HEAD;
	const struct frame *f = &g->head;

	g->length += FRAME_HEAD + f->length;
	g->frame_have = 0;
	if (f->type == FRAME_BYE) {
		body[f->length] = '\0';
		g->by_peer = true;
		fail(g, (uint16_t)frame_get(body, 2), (const char *)body + 2);
	} else if (f->type == FRAME_HELLO) {
		frame_decode_hello(&g->hello, body, f->length);
		g->state = g->hello.newest > 1 ? GREETING_SESSION : GREETING_DONE;
	} else {
		frame_decode_session(&g->session, body);
		g->state = GREETING_DONE;
	}
}

static void
take_head(struct greeting *g)
{
	const char *wrong = frame_decode(&g->head, g->frame);
	unsigned type = g->state == GREETING_HELLO ? FRAME_HELLO : FRAME_SESSION;

	if (wrong == NULL && g->head.type != type && g->head.type != FRAME_BYE)
		wrong = type == FRAME_HELLO ? "another frame before HELLO"
					    : "another frame before SESSION";
	if (wrong != NULL)
		fail(g, MUX_PROTOCOL, wrong);
}

/* Take bytes of one frame, which has a body.  Return how many. */
static size_t
feed_frame(struct greeting *g, const unsigned char *p, size_t n)
{
	bool body = g->frame_have >= FRAME_HEAD;
	size_t left = FRAME_HEAD + (body ? g->head.length : 0) - g->frame_have;

	if (n > left)
		n = left;
	memcpy(g->frame + g->frame_have, p, n);
	g->frame_have += n;
	if (n < left)
		return n;
	if (body)
		take_frame(g);
	else
		take_head(g);
	return n;
}

size_t
greeting_feed(struct greeting *g, const unsigned char *p, size_t n)
{
	size_t used = 0;

	while (used < n && g->state != GREETING_DONE && g->state != GREETING_FAILED) {
		if (g->state == GREETING_MAGIC)
			take_magic(g, p[used++]);
		else
			used += feed_frame(g, p + used, n - used);
	}
	return used;
}

size_t
greeting_put(unsigned char *dst, const struct hello *h, const struct session *s)
{
	struct hello ours = *h;
	unsigned char *at;
	size_t n;

	ours.version = GREETING_LEAST;
	ours.newest = GREETING_NEWEST;
	n = frame_encode_hello(dst + FRAME_HEAD, &ours);
	at = frame_put_head(dst, FRAME_HELLO, 0, n) + n;
	at = frame_put_head(at, FRAME_SESSION, 0, FRAME_SESSION_SIZE);
	frame_encode_session(at, s);
	return (size_t)(at - dst) + FRAME_SESSION_SIZE;
}
