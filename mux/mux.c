/*
 * mux/mux.c - one link: the bytes of the channel, the order in which streams
 * send, and time.
 *
 * Reading: all bytes are taken at once, because each window has memory
 * reserved.  So a stuck stream stops no other.  All windows together stay
 * within the memory that our HELLO names: the more streams are open, the
 * smaller is a new window.
 *
 * Sending: first frames of the link and control frames.  Then the streams take
 * turns by bytes (deficit round robin), new flows before old ones, as in
 * fq_codel (RFC 8290).  The first piece of a quiet stream may exceed the bytes
 * in flight that cc.c allows, because it is small and a person waits for it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mux/internal.h"

#define ROOM_WAIT 10000 /* until the next try to get memory for output */
#define ACK_DELAY 5000
#define ACK_EVERY_LEAST 1024
#define ACK_EVERY_MOST 262144
#define ACK_EVERY_TIME 250 /* us between two ACKs, at least */
#define ACKS_IN_CWND 8     /* at least */
#define PING_AFTER 15000000
#define DEAD_AFTER 45000000
#define SLEPT_AFTER 20000000 /* no tick for so long: this host slept */
#define WOKE_WAIT 15000000   /* for a byte of the peer after that */
#define QUIET_SPAN 10000     /* quiet: less than a slice in this time */
#define KEYSTROKE 512        /* bytes of a quiet stream that never wait */
#define WINDOW_TOP INT32_MAX
#define TARGET_LONG 512                          /* a longer target has a limit: see TARGET_FEW */
#define TARGET_FEW 1024                          /* streams; targets have no memory reserved */
#define START_SIZE (FRAME_MAGIC + GREETING_OURS) /* of our greeting, at most */

/* ---- the end of the link ---- */

static void
free_queue(struct queue *q)
{
	struct stream *s;

	while ((s = queue_pop(q)) != NULL)
		stream_free_if_done(s);
}

static void
die(struct mux *m, uint16_t code, const char *why)
{
	uint32_t i;

	m->state = MUX_DEAD;
	m->code = code;
	if (why != m->why)
		snprintf(m->why, sizeof(m->why), "%s", why);
	for (i = 0; i < m->size; i++)
		if (m->table[i] != NULL)
			stream_lose(m->table[i]);
	free_queue(&m->control);
	free_queue(&m->new_flows);
	free_queue(&m->old_flows);
}

void
mux_end(struct mux *m, uint16_t code, const char *why)
{
	if (m->state != MUX_DEAD)
		die(m, code, why);
	m->due_bye = false;
	m->start_next = m->start_end;
	retain_start(&m->retain, 0);
}

/*
 * On a channel that continues a link, the peer may read what follows our
 * greeting as the rest of an earlier frame.  So no BYE is sent before the state
 * is up.
 */
void
mux_bye(struct mux *m, uint16_t code, const char *why)
{
	if (m->state == MUX_DEAD)
		return;
	if (m->state == MUX_DOWN || (m->joins && m->state != MUX_UP)) {
		mux_end(m, code, why);
		return;
	}
	m->due_bye = !m->due_hello;
	die(m, code, why);
}

void
mux_lost(struct mux *m, uint16_t code, const char *why)
{
	if (!m->keeps || m->state == MUX_DEAD) {
		mux_end(m, code, why);
		return;
	}
	if (m->state == MUX_DOWN)
		return;
	m->state = MUX_DOWN;
	m->code = code;
	snprintf(m->why, sizeof(m->why), "%s", why);
}

static void
breach(struct mux *m, const char *what)
{
	char why[sizeof(m->why)];

	snprintf(why, sizeof(why), "the other side broke the protocol: %.500s", what);
	mux_bye(m, MUX_PROTOCOL, why);
}

/* ---- streams ---- */

struct stream *
mux_open(struct mux *m, const char *target)
{
	uint32_t i, at, window = stream_first_window(m->ours.memory, m->n);
	struct stream *s;

	if (m->state != MUX_UP || m->n >= m->size || strlen(target) > FRAME_TARGET ||
	    m->rx_reserved + window > m->ours.memory)
		return NULL;
	for (i = 0; m->table[at = (m->next_id + i) % m->size] != NULL; i++)
		;
	s = stream_new(m, at * 2 + 1, target, strlen(target));
	if (s == NULL)
		return NULL;
	m->next_id = at + 1;
	s->tx_window = stream_first_window(m->theirs.memory, m->n - 1);
	s->rx_window = s->window = window;
	m->rx_reserved += window;
	s->due_open = true;
	queue_append(&m->control, &s->control);
	return s;
}

struct stream *
mux_accept(struct mux *m)
{
	struct stream *s;

	while ((s = queue_pop(&m->accept)) != NULL) {
		if (!s->close_read && !s->due_close && !s->close_sent)
			return s;
		stream_release(s); /* it was closed before it could be accepted */
	}
	return NULL;
}

struct stream *
mux_next_dirty(struct mux *m)
{
	struct stream *s;

	do
		s = queue_pop(&m->dirty);
	while (s != NULL && s->owner == NULL);
	return s;
}

void
mux_schedule(struct mux *m, struct stream *s)
{
	uint64_t slice = cc_slice(&m->cc);
	uint64_t faded = (uint64_t)(m->now - s->sent_at) * slice / QUIET_SPAN;

	if (s->flow.queued || !stream_can_send(s))
		return;
	s->burst = s->burst > faded ? s->burst - (uint32_t)faded : 0;
	s->sent_at = m->now;
	s->deficit = (int32_t)slice;
	queue_append(s->burst < slice ? &m->new_flows : &m->old_flows, &s->flow);
}

/* ---- sending ---- */

unsigned char *
mux_put_head(unsigned char *dst, unsigned type, uint32_t stream, size_t length)
{
	struct frame f = { .type = type, .length = (uint32_t)length, .stream = stream };

	frame_encode(dst, &f);
	return dst + FRAME_HEAD;
}

size_t
mux_put_bare(unsigned char *dst, unsigned type, uint32_t stream)
{
	mux_put_head(dst, type, stream, 0);
	return FRAME_HEAD;
}

size_t
mux_put_words(unsigned char *dst, unsigned type, uint32_t stream, uint16_t code, const char *words)
{
	size_t n = words == NULL ? 0 : strnlen(words, FRAME_WORDS);
	unsigned char *body;

	body = mux_put_head(dst, type, stream, 2 + n);
	frame_put(body, code, 2);
	if (n > 0)
		memcpy(body + 2, words, n);
	return FRAME_HEAD + 2 + n;
}

static size_t
put_ack(struct mux *m, unsigned char *dst)
{
	unsigned char *body = mux_put_head(dst, FRAME_ACK, 0, 12);

	frame_put(body, m->read, 8);
	frame_put(body + 8, (uint64_t)(m->now - m->read_at), 4);
	m->read_acked = m->read;
	m->unacked_at = 0;
	m->due_ack = false;
	return FRAME_HEAD + 12;
}

/*
 * An ACK costs both hosts and the line as much as a chunk of DATA, so a fast
 * line should have few.  But cc.c measures round trips with them, so each cwnd
 * of bytes should cause several.
 */
static uint32_t
ack_every_for(const struct cc *c)
{
	int64_t acks =
	    c->rtt < ACK_EVERY_TIME * ACKS_IN_CWND ? ACKS_IN_CWND : c->rtt / ACK_EVERY_TIME;
	uint32_t every = ACK_EVERY_LEAST;

	while (every < ACK_EVERY_MOST && every * 2 <= c->cwnd / (uint64_t)acks)
		every *= 2;
	return every;
}

static size_t
put_ack_every(struct mux *m, unsigned char *dst)
{
	uint32_t every = ack_every_for(&m->cc);

	if (every == m->ack_every_sent)
		return 0;
	frame_put(mux_put_head(dst, FRAME_ACK_EVERY, 0, 4), every, 4);
	m->ack_every_sent = every;
	return FRAME_HEAD + 4;
}

/* ${s}, the first one in ${flows}, sends DATA, EOF, or both. */
static size_t
put_stream(struct mux *m, struct queue *flows, struct stream *s, unsigned char *dst, size_t room)
{
	size_t n = 0;

	if (stream_can_send_data(s))
		n = stream_put_data(s, dst, room);
	if (n > 0 && n <= FRAME_HEAD + KEYSTROKE && flows == &m->new_flows)
		cc_sent_small(&m->cc, m->now);
	if (stream_eof_is_due(s) && room - n >= FRAME_HEAD)
		n += stream_put_eof(s, dst + n);
	stream_mark_dirty(s);
	if (!stream_can_send(s)) {
		queue_pop(flows);
		stream_free_if_done(s);
	}
	return n;
}

/*
 * Write what the next stream may send.  Return 0 if no stream has anything to
 * send, or if no more bytes may be in flight.
 */
static size_t
put_turn(struct mux *m, unsigned char *dst, size_t room)
{
	struct queue *flows;
	struct stream *s;

	for (;;) {
		flows = m->new_flows.first != NULL ? &m->new_flows : &m->old_flows;
		s = queue_first(flows);
		if (s == NULL)
			return 0;
		if (!stream_can_send(s)) {
			queue_pop(flows);
			stream_free_if_done(s);
		} else if (s->deficit <= 0) {
			s->deficit += (int32_t)cc_slice(&m->cc);
			queue_pop(flows);
			queue_append(&m->old_flows, &s->flow);
		} else if (flows == &m->old_flows && cc_room(&m->cc, m->now) == 0) {
			return 0;
		} else if (flows == &m->new_flows && s->tx.used > KEYSTROKE && cc_is_over(&m->cc)) {
			queue_pop(flows);
			queue_append(&m->old_flows, &s->flow);
		} else {
			return put_stream(m, flows, s, dst, room);
		}
	}
}

static bool
ack_is_due(const struct mux *m)
{
	return m->due_ack || m->read - m->read_acked >= m->ack_every ||
	       (m->unacked_at != 0 && m->now - m->unacked_at >= ACK_DELAY);
}

static bool
hello_is_due(const struct mux *m)
{
	return m->due_hello && m->state != MUX_DOWN && m->state != MUX_DEAD &&
	       !(m->wait_peer_first && m->state == MUX_STARTING);
}

/*
 * Our greeting.  On the first channel, its frames count as link bytes.  On a
 * channel that continues a link, they do not.
 */
static void
put_start(struct mux *m)
{
	unsigned char *dst = m->start;
	size_t n;

	if (!m->skip_magic) {
		memcpy(dst, frame_magic, FRAME_MAGIC);
		dst += FRAME_MAGIC;
	}
	m->session.count = m->read;
	n = greeting_put(dst, &m->ours, &m->session);
	m->due_hello = false;
	m->start_next = 0;
	m->start_end = (size_t)(dst - m->start) + n;
	if (m->joins)
		return;
	cc_sent(&m->cc, n, m->now);
	retain_start(&m->retain, n);
}

/* Frames that ignore the limit of bytes in flight. */
static size_t
put_urgent(struct mux *m, unsigned char *dst, size_t room)
{
	struct stream *s;
	size_t n = 0;

	if (ack_is_due(m))
		n += put_ack(m, dst);
	if (m->due_ping)
		n += mux_put_bare(dst + n, FRAME_PING, 0);
	m->due_ping = false;
	n += put_ack_every(m, dst + n);
	while (m->control.first != NULL && room - n >= MUX_PULL / 2) {
		s = queue_pop(&m->control);
		n += stream_put_control(s, dst + n);
		stream_free_if_done(s);
	}
	if (n > 0)
		cc_sent(&m->cc, n, m->now);
	return n;
}

/* Frames of ${most} bytes at most, into ${dst}.  Return how many bytes. */
static size_t
put_frames(struct mux *m, unsigned char *dst, size_t most)
{
	size_t n = put_urgent(m, dst, most), turn = 1;

	while (turn > 0 && m->control.first == NULL && most - n > FRAME_HEAD + CC_SLICE_LEAST) {
		turn = put_turn(m, dst + n, most - n);
		if (turn > 0)
			cc_sent(&m->cc, turn, m->now);
		n += turn;
	}
	return n;
}

/*
 * While no more bytes can be retained, only ACKs are sent.  Without them, two
 * sides that wait for each other's ACKs would wait for ever.
 */
static void
produce(struct mux *m, size_t most)
{
	size_t room, n = 0;
	unsigned char *dst;

	if (m->state == MUX_UP && retain_is_over(&m->retain))
		breach(m, "it acknowledges nothing");
	if (m->state == MUX_DEAD ? !m->due_bye : m->state != MUX_UP)
		return;
	dst = retain_room(&m->retain, MUX_PULL, &room);
	m->room_at = dst != NULL ? 0 : m->now + ROOM_WAIT;
	if (dst == NULL)
		return;
	if (m->state == MUX_DEAD) {
		m->due_bye = false;
		n = mux_put_words(dst, FRAME_BYE, 0, m->code, m->why);
	} else if (!retain_is_full(&m->retain)) {
		n = put_frames(m, dst, most < room ? most : room);
	} else if (ack_is_due(m)) {
		n = put_ack(m, dst);
		cc_sent(&m->cc, n, m->now);
	}
	retain_add(&m->retain, n);
}

size_t
mux_output(struct mux *m, const unsigned char **p, size_t most, int64_t now)
{
	size_t n;

	m->now = now;
	if (hello_is_due(m))
		put_start(m);
	*p = m->start + m->start_next;
	if (m->start_next < m->start_end)
		return m->start_end - m->start_next;
	if (m->state != MUX_UP && m->state != MUX_DEAD)
		return 0;
	*p = retain_next(&m->retain, &n);
	if (n > 0)
		return n;
	produce(m, most);
	*p = retain_next(&m->retain, &n);
	return n;
}

void
mux_wrote(struct mux *m, size_t n)
{
	if (m->start_next < m->start_end) {
		m->start_next += n;
		return;
	}
	retain_wrote(&m->retain, n);
	if (!m->keeps)
		retain_acked(&m->retain, m->retain.next);
}

bool
mux_has_output(const struct mux *m)
{
	if (hello_is_due(m) || m->start_next < m->start_end)
		return true;
	if (m->retain.next == m->retain.end && m->now < m->room_at)
		return false;
	if (m->state == MUX_DEAD)
		return m->due_bye || m->retain.next < m->retain.end;
	if (m->state != MUX_UP)
		return false;
	if (m->retain.next < m->retain.end || ack_is_due(m))
		return true;
	return !retain_is_full(&m->retain) &&
	       (m->due_ping || m->control.first != NULL || m->new_flows.first != NULL ||
		   (m->old_flows.first != NULL && cc_room(&m->cc, m->now) > 0));
}

/* ---- reading: frames ---- */

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
		breach(m, "a HELLO with limits that are not valid");
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
	mux_lost(m, MUX_PROTOCOL,
	    m->role == MUX_NEAR ? "the command sends back its input, or is a near side: "
				  "the command must end with relay -m -"
				: "both sides are far sides (relay -m -): one of them must be "
				  "relay -m FROM -- COMMAND");
	return false;
}

/* The peer's first greeting. */
static void
come_up(struct mux *m)
{
	const struct session *theirs = &m->greeting.session;

	m->theirs = m->greeting.hello;
	m->read = m->greeting.length;
	if (!is_other_side(m) || !take_limits(m))
		return;
	m->state = MUX_UP;
	m->unacked_at = m->now;
	m->keeps = m->session.kind == SESSION_NEW && theirs->kind == SESSION_NEW;
	if (m->keeps && m->role == MUX_NEAR) {
		memcpy(m->session.id, theirs->id, FRAME_SESSION_ID);
		m->session.keep = theirs->keep;
	}
}

/* The peer's greeting on a channel that continues the link. */
static void
continue_link(struct mux *m)
{
	const struct session *theirs = &m->greeting.session;

	if (theirs->kind != SESSION_JOIN) {
		mux_end(m, MUX_GONE, "the far side has ended meanwhile");
		return;
	}
	if (theirs->count < m->retain.acked || theirs->count > m->retain.next) {
		breach(m, "a SESSION with a count of bytes that are not kept");
		return;
	}
	if (m->role == MUX_FAR)
		m->session.generation = theirs->generation;
	cc_restart(&m->cc, theirs->count, m->now);
	retain_rewind(&m->retain, theirs->count);
	retain_acked(&m->retain, theirs->count);
	m->state = MUX_UP;
}

static void
fail_start(struct mux *m)
{
	const struct greeting *g = &m->greeting;

	m->ended_by_peer = g->by_peer;
	if (g->by_peer)
		mux_end(m, g->code, g->why);
	else if (g->lost)
		mux_lost(m, g->code, g->why);
	else
		breach(m, g->why);
}

static size_t
feed_greeting(struct mux *m, const unsigned char *p, size_t n)
{
	size_t used = greeting_feed(&m->greeting, p, n);

	switch (m->greeting.state) {
	case GREETING_MAGIC:
		break;
	case GREETING_HELLO:
	case GREETING_SESSION:
		m->state = MUX_GREETING;
		break;
	case GREETING_FAILED:
		fail_start(m);
		break;
	case GREETING_DONE:
		if (m->joins)
			continue_link(m);
		else
			come_up(m);
		break;
	}
	return used;
}

static void
refuse(struct stream *s, const char *why)
{
	stream_reset(s, MUX_NO_ROOM, why);
	stream_release(s);
}

static void
on_open(struct mux *m, const struct frame *f)
{
	uint32_t send = (uint32_t)frame_get(m->body, 4), recv = (uint32_t)frame_get(m->body + 4, 4);
	struct stream *s;

	if (m->role == MUX_NEAR || (f->stream & 1) == 0 || f->stream / 2 >= m->size ||
	    find(m, f->stream) != NULL || send > MUX_WINDOW_FIRST || recv > WINDOW_TOP) {
		breach(m, "an OPEN that is not allowed");
		return;
	}
	s = stream_new(m, f->stream, (const char *)m->body + 8, f->length - 8);
	if (s == NULL) {
		mux_bye(m, MUX_NO_ROOM, "no memory for a stream");
		return;
	}
	s->tx_window = recv;
	s->rx_window = s->window = send;
	m->rx_reserved += send;
	if (m->rx_reserved > m->ours.memory) {
		refuse(s, "no memory for the window of another stream");
	} else if (f->length - 8 > TARGET_LONG && m->n > TARGET_FEW) {
		refuse(s, "too many streams are open for so long a target");
	} else {
		queue_append(&m->accept, &s->accept);
	}
}

static void
on_bye(struct mux *m, const struct frame *f)
{
	char why[FRAME_WORDS + 1];

	memcpy(why, m->body + 2, f->length - 2);
	why[f->length - 2] = '\0';
	m->ended_by_peer = true;
	mux_end(m, (uint16_t)frame_get(m->body, 2), why);
}

/*
 * A new channel repeats the bytes that the last one lost.  An ACK among them
 * can be older than the count in the SESSION of the peer.
 */
static void
on_ack(struct mux *m)
{
	uint64_t count = frame_get(m->body, 8);

	if (m->joins && count < m->cc.acked)
		return;
	if ((m->keeps && count < m->retain.acked) || count > m->retain.next ||
	    !cc_acked(&m->cc, count, (int64_t)frame_get(m->body + 8, 4), m->now))
		breach(m, "an ACK of bytes that were not sent");
	else if (m->keeps)
		retain_acked(&m->retain, count);
}

static void
on_link_frame(struct mux *m, const struct frame *f)
{
	uint32_t every;

	switch (f->type) {
	case FRAME_ACK:
		on_ack(m);
		break;
	case FRAME_PING:
		m->due_ack = true;
		break;
	case FRAME_ACK_EVERY:
		every = (uint32_t)frame_get(m->body, 4);
		m->ack_every = every < ACK_EVERY_LEAST ? ACK_EVERY_LEAST : every;
		break;
	case FRAME_BYE:
		on_bye(m, f);
		break;
	}
}

/* The whole body of a frame other than DATA was read. */
static void
on_frame(struct mux *m, const struct frame *f)
{
	const char *wrong;
	struct stream *s;

	if (f->type >= FRAME_SKIPPED)
		return;
	if (f->stream == 0) {
		on_link_frame(m, f);
		return;
	}
	if (f->type == FRAME_OPEN) {
		on_open(m, f);
		return;
	}
	s = find(m, f->stream);
	wrong = s == NULL ? "a frame for a stream that is not open" : stream_on_frame(s, f);
	if (wrong != NULL)
		breach(m, wrong);
}

/* ---- reading: bytes ---- */

static void
start_data(struct mux *m)
{
	struct stream *s = find(m, m->frame.stream);
	const char *wrong;

	m->data = NULL;
	wrong = s == NULL ? "DATA for a stream that is not open"
			  : stream_start_data(s, m->frame.length);
	if (wrong != NULL)
		breach(m, wrong);
}

static void
start_frame(struct mux *m)
{
	const char *wrong = frame_decode(&m->frame, m->head);

	m->head_have = 0;
	if (wrong != NULL) {
		breach(m, wrong);
		return;
	}
	if (m->frame.type == FRAME_HELLO || m->frame.type == FRAME_SESSION) {
		breach(m, "a second HELLO or SESSION");
		return;
	}
	/*
	 * An ACK needs no ACK, or two idle sides would send ACKs without end.
	 */
	if (m->frame.type != FRAME_ACK && m->unacked_at == 0)
		m->unacked_at = m->now;
	m->left = m->frame.length;
	if (m->frame.type == FRAME_DATA)
		start_data(m);
	else if (m->left == 0)
		on_frame(m, &m->frame);
}

static size_t
take_body(struct mux *m, const unsigned char *p, size_t n)
{
	if (n > m->left)
		n = m->left;
	m->left -= n;
	if (m->data != NULL)
		stream_take_data(m->data, p, n);
	else if (m->frame.type != FRAME_DATA && m->frame.type < FRAME_SKIPPED)
		memcpy(m->body + (m->frame.length - m->left - n), p, n);
	if (m->left > 0)
		return n;
	m->data = NULL;
	if (m->frame.type != FRAME_DATA)
		on_frame(m, &m->frame);
	return n;
}

static size_t
feed_frames(struct mux *m, const unsigned char *p, size_t n)
{
	size_t used;

	if (m->left > 0) {
		used = take_body(m, p, n);
	} else {
		used = FRAME_HEAD - m->head_have < n ? FRAME_HEAD - m->head_have : n;
		memcpy(m->head + m->head_have, p, used);
		m->head_have += used;
		if (m->head_have == FRAME_HEAD)
			start_frame(m);
	}
	m->read += used;
	return used;
}

void
mux_feed(struct mux *m, const void *p, size_t n, int64_t now)
{
	const unsigned char *at = p, *end = at + n;

	m->now = now;
	if (n > 0) {
		m->alive_at = m->read_at = now;
		m->pinged_at = 0;
	}
	while (at < end && m->state != MUX_DEAD && m->state != MUX_DOWN) {
		if (m->state == MUX_UP)
			at += feed_frames(m, at, (size_t)(end - at));
		else
			at += feed_greeting(m, at, (size_t)(end - at));
	}
}

/* ---- time ---- */

void
mux_woke(struct mux *m, int64_t now)
{
	if (m->state != MUX_UP)
		return;
	m->alive_at = now - (DEAD_AFTER - WOKE_WAIT);
	m->pinged_at = now;
	m->due_ping = true;
}

void
mux_tick(struct mux *m, int64_t now)
{
	int64_t gap = now - (m->ticked_at > m->alive_at ? m->ticked_at : m->alive_at);

	m->now = now;
	m->ticked_at = now;
	/* Before the magic, a person may be typing a password. */
	if (m->state != MUX_UP && m->state != MUX_GREETING)
		return;
	if (gap > SLEPT_AFTER)
		mux_woke(m, now);
	if (now - m->alive_at >= DEAD_AFTER) {
		mux_lost(m, MUX_TIMEOUT, "nothing was received from the other side for 45 s");
	} else if (m->state == MUX_UP && now - m->alive_at >= PING_AFTER &&
		   now - m->pinged_at >= PING_AFTER) {
		m->due_ping = true;
		m->pinged_at = now;
	}
}

int64_t
mux_deadline(const struct mux *m)
{
	int64_t next;

	if (m->state == MUX_GREETING)
		return m->alive_at + DEAD_AFTER;
	if (m->state != MUX_UP)
		return INT64_MAX;
	next = (m->pinged_at > m->alive_at ? m->pinged_at : m->alive_at) + PING_AFTER;
	if (m->alive_at + DEAD_AFTER < next)
		next = m->alive_at + DEAD_AFTER;
	if (m->unacked_at != 0 && !ack_is_due(m) && m->unacked_at + ACK_DELAY < next)
		next = m->unacked_at + ACK_DELAY;
	if (m->old_flows.first != NULL && cc_next(&m->cc, m->now) < next)
		next = cc_next(&m->cc, m->now);
	if (m->now < m->room_at && m->room_at < next)
		next = m->room_at;
	return next;
}

/* ---- life and facts ---- */

struct mux *
mux_new(enum mux_role role, uint32_t memory, const char *host, int64_t now)
{
	struct mux *m = calloc(1, sizeof(*m));

	if (m == NULL)
		return NULL;
	m->start = malloc(START_SIZE);
	if (m->start == NULL) {
		free(m);
		return NULL;
	}
	greeting_start(&m->greeting, role == MUX_FAR);
	m->role = role;
	m->ours.role = (uint8_t)role;
	m->ours.memory = memory;
	m->ours.streams = MUX_STREAMS;
	snprintf(m->ours.host, sizeof(m->ours.host), "%s", host);
	m->ack_every = m->ack_every_sent = ACK_EVERY_LEAST;
	m->due_hello = true;
	m->now = m->alive_at = m->ticked_at = m->read_at = now;
	cc_init(&m->cc, now);
	return m;
}

void
mux_limit_streams(struct mux *m, uint32_t n)
{
	m->ours.streams = n;
}

void
mux_wait_peer_first(struct mux *m)
{
	m->wait_peer_first = true;
}

void
mux_keep(struct mux *m, uint32_t seconds, const unsigned char *id)
{
	m->session.kind = SESSION_NEW;
	if (m->role == MUX_NEAR)
		return;
	m->session.keep = seconds;
	memcpy(m->session.id, id, FRAME_SESSION_ID);
}

uint32_t
mux_keeps(const struct mux *m)
{
	return m->keeps ? m->session.keep : 0;
}

bool
mux_accepts(const struct mux *m, const struct session *session)
{
	return m->keeps && m->state != MUX_DEAD && session->kind == SESSION_JOIN &&
	       session->generation > m->session.generation &&
	       memcmp(session->id, m->session.id, FRAME_SESSION_ID) == 0;
}

void
mux_attach(struct mux *m, bool skip_magic, int64_t now)
{
	m->state = MUX_STARTING;
	m->joins = true;
	m->skip_magic = skip_magic;
	m->session.kind = SESSION_JOIN;
	if (m->role == MUX_NEAR)
		m->session.generation++;
	m->due_hello = true;
	m->due_ping = false;
	m->start_next = m->start_end;
	m->unacked_at = m->pinged_at = 0;
	m->read_acked = m->read;
	m->now = m->alive_at = m->ticked_at = m->read_at = now;
	greeting_start(&m->greeting, m->role == MUX_FAR);
}

void
mux_free(struct mux *m)
{
	if (m == NULL)
		return;
	mux_end(m, MUX_END, "");
	while (mux_accept(m) != NULL)
		; /* all are closed, so mux_accept releases them */
	greeting_free(&m->greeting);
	free(m->table);
	free(m->start);
	m->table = NULL;
	m->start = NULL;
	m->size = 0;
	m->freed = true;
	if (m->structs == 0)
		free(m);
}

enum mux_role
mux_role(const struct mux *m)
{
	return m->role;
}

enum mux_state
mux_state(const struct mux *m)
{
	return m->state;
}

uint16_t
mux_code(const struct mux *m)
{
	return m->code;
}

const char *
mux_why(const struct mux *m)
{
	return m->why;
}

bool
mux_ended_by_peer(const struct mux *m)
{
	return m->ended_by_peer;
}

const char *
mux_peer(const struct mux *m)
{
	return m->theirs.host;
}

void
mux_name_peer(struct mux *m, const char *name)
{
	snprintf(m->theirs.host, sizeof(m->theirs.host), "%s", name);
}

char *
mux_banner(struct mux *m, size_t *n)
{
	*n = m->greeting.banner_have;
	return m->greeting.banner;
}

void
mux_stats(const struct mux *m, struct mux_stats *s)
{
	s->streams = m->n;
	s->reserved = m->rx_reserved;
	s->sent = m->cc.sent;
	s->received = m->read;
	s->cwnd = m->cc.cwnd;
	s->rtt_us = m->cc.rtt;
}
