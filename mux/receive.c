/*
 * mux/receive.c - the bytes that a link reads.
 *
 * All bytes are taken at once, because each window has memory reserved.  So a
 * stuck stream stops no other.  All windows together stay within the memory that
 * our HELLO names: the more streams are open, the smaller is a new window.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mux/internal.h"

#define LIMITED_LASTS 1000000
#define TARGET_LONG 512 /* a longer target has a limit: see TARGET_FEW */
#define TARGET_FEW 1024 /* streams; targets have no memory reserved */

/* ---- frames ---- */

static struct stream *
find(const struct mux *m, uint32_t id)
{
	return (id & 1) != 0 && id / 2 < m->size ? m->table[id / 2] : NULL;
}

/* Use the peer's limits.  Return false if the link has ended. */
static bool
take_limits(struct mux *m)
{
	if (m->theirs.streams == 0 || m->theirs.streams > MUX_STREAMS ||
	    m->theirs.memory < MUX_WINDOW_LEAST) {
		mux_breach(m, "a HELLO with limits that are not valid");
		return false;
	}
	m->size = m->role == MUX_NEAR ? m->theirs.streams : m->ours.streams;
	m->table = calloc(m->size, sizeof(struct stream *));
	if (m->table != NULL)
		return true;
	m->size = 0;
	mux_bye(m, MUX_NO_ROOM, "no memory for the streams");
	return false;
}

/* Is the peer a relay that can be the other side of a link? */
static bool
is_other_side(struct mux *m)
{
	char why[sizeof(m->why)];

	if (m->theirs.version < GREETING_LEAST || m->theirs.version > GREETING_NEWEST) {
		snprintf(why, sizeof(why),
		    "relay on %s has version %u of the link protocol, here it is version %d: "
		    "install the same relay on both hosts",
		    m->theirs.host, (unsigned)m->theirs.version, GREETING_NEWEST);
		mux_bye(m, MUX_VERSION, why);
		return false;
	}
	if (m->theirs.role != m->role)
		return true;
	mux_lost(m, 0, MUX_PROTOCOL,
	    m->role == MUX_NEAR ? "the command sends back its input, or is a near side: "
				  "the command must end with relay -m -"
				: "both sides are far sides (relay -m -): one of them must be "
				  "relay -m FROM -- COMMAND");
	return false;
}

/*
 * Our greeting can still be due.  It is the first output, also before BYE.  A
 * slot without it can become free when it is lost: tail.c.
 */
static void
set_up(struct mux *m, struct slot *s)
{
	s->state = MUX_SLOT_UP;
	if (s->due_hello)
		mux_greet(m, s);
}

/* The peer's first greeting. */
static void
come_up(struct mux *m, struct slot *s)
{
	const struct session *theirs = &s->greeting.session;

	m->theirs = s->greeting.hello;
	s->read = s->greeting.length;
	if (!is_other_side(m) || !take_limits(m))
		return;
	set_up(m, s);
	s->unacked_at = m->now;
	m->keeps = m->session.kind == SESSION_NEW && theirs->kind == SESSION_NEW;
	if (m->keeps && theirs->slots > 1)
		m->slots = theirs->slots < MUX_SLOTS ? theirs->slots : MUX_SLOTS;
	if (m->keeps && m->role == MUX_NEAR) {
		memcpy(m->session.id, theirs->id, FRAME_SESSION_ID);
		m->session.keep = theirs->keep;
	}
}

/*
 * The channel of ${s} does not lead to the session.  While other slots are up,
 * the session goes on there.
 */
static void
fail_join(struct mux *m, struct slot *s, uint16_t code, const char *why)
{
	if (mux_state(m) == MUX_UP)
		tail_lose(m, s, code, why);
	else
		mux_end(m, code, why);
}

/* The peer's greeting on a channel that continues the link. */
static void
continue_link(struct mux *m, struct slot *s)
{
	const struct session *theirs = &s->greeting.session;

	if (theirs->kind != SESSION_JOIN || theirs->slot != s->number) {
		fail_join(m, s, MUX_GONE, "the far side has ended meanwhile");
		return;
	}
	if (theirs->count < s->retain.acked || theirs->count > s->retain.next) {
		mux_breach(m, "a SESSION with a count of bytes that are not kept");
		return;
	}
	if (m->role == MUX_FAR)
		s->generation = theirs->generation;
	cc_restart(&s->cc, theirs->count, mux_rtt(m), m->now);
	retain_rewind(&s->retain, theirs->count);
	set_up(m, s);
}

static void
fail_start(struct mux *m, struct slot *s)
{
	const struct greeting *g = &s->greeting;

	if (g->by_peer) {
		fail_join(m, s, g->code, g->why);
		m->ended_by_peer = m->dead;
	} else if (g->lost || mux_state(m) == MUX_UP) {
		mux_lost(m, s->number, g->code, g->why);
	} else {
		mux_breach(m, g->why);
	}
}

static size_t
feed_greeting(struct mux *m, struct slot *s, const unsigned char *p, size_t n)
{
	size_t used = greeting_feed(&s->greeting, p, n);
	enum greeting_state state = s->greeting.state;

	if (state == GREETING_FAILED)
		fail_start(m, s);
	else if (state == GREETING_DONE && s->joins)
		continue_link(m, s);
	else if (state == GREETING_DONE)
		come_up(m, s);
	else if (state != GREETING_MAGIC)
		s->state = MUX_SLOT_GREETING;
	return used;
}

static void
refuse(struct stream *s, const char *why)
{
	stream_reset(s, MUX_NO_ROOM, why);
	stream_release(s);
}

static const char *
on_open(struct mux *m, const struct slot *s)
{
	const struct frame *f = &s->frame;
	uint32_t send = (uint32_t)frame_get(s->body, 4), recv = (uint32_t)frame_get(s->body + 4, 4);
	struct stream *t;

	if (m->role == MUX_NEAR || (f->stream & 1) == 0 || f->stream / 2 >= m->size ||
	    find(m, f->stream) != NULL || send > MUX_WINDOW_FIRST || recv > WINDOW_TOP)
		return "an OPEN that is not allowed";
	t = stream_new(m, f->stream, (uint8_t)s->number, (const char *)s->body + 8, f->length - 8);
	if (t == NULL) {
		mux_bye(m, MUX_NO_ROOM, "no memory for a stream");
		return NULL;
	}
	stream_set_windows(t, recv, send);
	if (m->rx_reserved > m->ours.memory)
		refuse(t, "no memory for the window of another stream");
	else if (f->length - 8 > TARGET_LONG && m->n > TARGET_FEW)
		refuse(t, "too many streams are open for so long a target");
	else
		queue_append(&m->accept, &t->accept);
	return NULL;
}

static void
on_bye(struct mux *m, struct slot *s)
{
	s->body[s->frame.length] = '\0'; /* BYE is shorter than OPEN */
	m->ended_by_peer = true;
	mux_end(m, (uint16_t)frame_get(s->body, 2), (const char *)s->body + 2);
}

static const char *
on_limited(struct mux *m, const struct slot *s)
{
	if (m->role == MUX_FAR)
		return "a LIMITED from the near side";
	m->peer_limited_at = m->now - (int64_t)frame_get(s->body, 4) * 1000;
	m->peer_limited_until = m->now + LIMITED_LASTS;
	return NULL;
}

/*
 * A slot that was lost ignores ACK.  A new channel repeats the bytes that the
 * last one lost.  An ACK among them can be older than the count in the SESSION
 * of the peer.
 */
static const char *
on_ack(struct mux *m, struct slot *s)
{
	uint64_t count = frame_get(s->body, 8);
	int64_t delay = (int64_t)frame_get(s->body + 8, 4);
	struct slot *other;

	if (s->state != MUX_SLOT_UP || (s->joins && count < s->cc.acked))
		return NULL;
	if ((m->keeps && count < s->retain.acked) || count > s->retain.next ||
	    !cc_acked(&s->cc, count, delay, m->now))
		return "an ACK of bytes that were not sent";
	if (m->keeps)
		retain_acked(&s->retain, count);
	/* The channels may share a line, so all measure its round trip together. */
	if (cc_decreased(&s->cc))
		for (other = m->slot; other < m->slot + m->started; other++)
			if (other != s && other->state == MUX_SLOT_UP)
				cc_follow(&other->cc, &s->cc);
	return NULL;
}

static void
on_ack_every(struct slot *s)
{
	uint32_t every = (uint32_t)frame_get(s->body, 4);

	s->ack_every = every < SLOT_ACK_EVERY ? SLOT_ACK_EVERY : every;
}

/*
 * The head and the fixed part of the body were read.  Return NULL, or a text
 * that names how the peer broke the protocol.
 */
static const char *
on_frame(struct mux *m, struct slot *s)
{
	struct stream *t = find(m, s->frame.stream);

	s->data = NULL;
	s->early = NULL;
	s->tail = NULL;
	if (s->frame.type >= FRAME_SKIPPED)
		return NULL;
	switch (s->frame.type) {
	case FRAME_OPEN:
		return on_open(m, s);
	case FRAME_DATA:
	case FRAME_DATA_AT:
		return t == NULL ? "DATA for a stream that is not open" : stream_start_data(t, s);
	case FRAME_ACK:
		return on_ack(m, s);
	case FRAME_PING:
		s->due_ack = true;
		return NULL;
	case FRAME_BYE:
		on_bye(m, s);
		return NULL;
	case FRAME_ACK_EVERY:
		on_ack_every(s);
		return NULL;
	case FRAME_LOST:
		return tail_on_lost(m, s);
	case FRAME_TAIL:
		return tail_start(m, s);
	case FRAME_DRAIN:
		return tail_on_drain(m, s);
	case FRAME_LIMITED:
		return on_limited(m, s);
	default:
		return t == NULL ? "a frame for a stream that is not open" : stream_on_frame(t, s);
	}
}

/* ---- bytes ---- */

static void
end_fixed(struct mux *m, struct slot *s)
{
	const char *wrong = on_frame(m, s);

	if (wrong != NULL)
		mux_breach(m, wrong);
}

/* With one slot, the frames for several slots are of unknown type. */
static const char *
check_frame(const struct mux *m, const struct frame *f)
{
	if (f->type == FRAME_HELLO || f->type == FRAME_SESSION)
		return "a second HELLO or SESSION";
	if (f->type >= FRAME_DATA_AT && f->type < FRAME_SKIPPED && m->slots == 1)
		return "a frame of unknown type";
	return NULL;
}

static void
start_frame(struct mux *m, struct slot *s)
{
	const char *wrong = frame_decode(&s->frame, s->head);

	s->head_have = 0;
	if (wrong == NULL)
		wrong = check_frame(m, &s->frame);
	if (wrong != NULL) {
		mux_breach(m, wrong);
		return;
	}
	/* If an ACK needed an ACK, two idle sides would send ACKs for ever. */
	if (s->frame.type != FRAME_ACK && s->unacked_at == 0)
		s->unacked_at = m->now;
	s->left = s->frame.length;
	s->fixed = frame_fixed(&s->frame);
	if (s->fixed == 0)
		end_fixed(m, s);
}

static size_t
gather(struct mux *m, struct slot *s, const unsigned char *p, size_t n)
{
	if (n > s->fixed)
		n = s->fixed;
	memcpy(s->body + (s->frame.length - s->left), p, n);
	s->fixed -= n;
	s->left -= n;
	if (s->fixed == 0)
		end_fixed(m, s);
	return n;
}

static void feed_tail(struct mux *m, struct slot *s, const unsigned char *p, size_t n);

/* Pass on bytes of DATA, DATA_AT or TAIL; skip those of an unknown type. */
static size_t
pass_on(struct mux *m, struct slot *s, const unsigned char *p, size_t n)
{
	if (n > s->left)
		n = s->left;
	s->left -= n;
	if (s->data != NULL)
		stream_take_data(s->data, s, p, n);
	else if (s->tail != NULL)
		feed_tail(m, s->tail, p, n);
	if (s->left == 0 && s->data != NULL)
		stream_end_data(s->data, s);
	return n;
}

static size_t
feed_frames(struct mux *m, struct slot *s, const unsigned char *p, size_t n)
{
	size_t used;

	if (s->fixed > 0) {
		used = gather(m, s, p, n);
	} else if (s->left > 0) {
		used = pass_on(m, s, p, n);
	} else {
		used = FRAME_HEAD - s->head_have < n ? FRAME_HEAD - s->head_have : n;
		memcpy(s->head + s->head_have, p, used);
		s->head_have += used;
		if (s->head_have == FRAME_HEAD)
			start_frame(m, s);
	}
	s->read += used;
	return used;
}

/* ${n} bytes continue the frames of ${s}, whose channel was lost. */
static void
feed_tail(struct mux *m, struct slot *s, const unsigned char *p, size_t n)
{
	const unsigned char *end = p + n;

	s->feeding = true;
	while (p < end && !m->dead)
		p += feed_frames(m, s, p, (size_t)(end - p));
	s->feeding = false;
}

void
mux_feed(struct mux *m, unsigned slot, const void *p, size_t n, int64_t now)
{
	const unsigned char *at = p, *end = at + n;
	struct slot *s = &m->slot[slot];

	if (s->state == MUX_SLOT_FREE)
		return;
	m->now = now;
	if (n > 0) {
		s->alive_at = s->read_at = now;
		s->pinged_at = 0;
	}
	s->feeding = true;
	while (at < end && !m->dead && s->state != MUX_SLOT_DOWN) {
		if (s->state == MUX_SLOT_UP)
			at += feed_frames(m, s, at, (size_t)(end - at));
		else
			at += feed_greeting(m, s, at, (size_t)(end - at));
	}
	s->feeding = false;
	tail_check(m);
}
