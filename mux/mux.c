/*
 * mux/mux.c - one link: its life, the order in which streams send, and time.
 *
 * Sending: first frames of the link and control frames.  Then the streams take
 * turns by bytes (deficit round robin), new flows before old ones, as in
 * fq_codel (RFC 8290).  The first piece of a quiet stream may exceed the bytes
 * in flight that cc.c allows, because it is small and a person waits for it.
 *
 * mux_output is called for each channel that can take bytes.  So bulk uses the
 * slots that have room, and a channel that stalls gets at most cwnd.  The
 * first piece of a quiet stream waits for the slot with the fewest bytes in
 * flight.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mux/internal.h"

#define ROOM_WAIT 10000                        /* until the next try to get memory for output */
#define RETAINED (16 * 1024 * 1024)            /* bytes of all slots: see put_least */
#define RETAINED_BULK (RETAINED - 1024 * 1024) /* then no DATA of busy streams */
#define RETAINED_MOST (RETAINED + 1024 * 1024)
#define SILENT_MOST 5000000              /* of a slot while others answer */
#define SILENT_LATE 1000000              /* a later tick: this process stood still */
#define LIMITED_AFTER 1000000            /* bulk that waits so long is reported */
#define LIMITED_EACH 500000              /* and again, while it waits */
#define QUIET_SPAN 10000                 /* quiet: less than a slice in this time */
#define KEYSTROKE 512                    /* bytes of a quiet stream that never wait */
#define ENDS (2 * FRAME_HEAD + FRAME_AT) /* FINAL and EOF */

/* ---- slots ---- */

bool
mux_takes_data(const struct mux *m, const struct slot *s)
{
	const struct slot *other;

	if (s->state != MUX_SLOT_UP || !s->drains)
		return s->state == MUX_SLOT_UP;
	for (other = m->slot; other < m->slot + m->started; other++)
		if (other->state == MUX_SLOT_UP && !other->drains)
			return false;
	return true;
}

/* Of the slots that can send now, has ${s} the fewest bytes in flight? */
static bool
is_best(const struct mux *m, const struct slot *s)
{
	const struct slot *other;

	if (!mux_takes_data(m, s))
		return false;
	for (other = m->slot; other < m->slot + m->started; other++)
		if (mux_takes_data(m, other) && other->retain.next == other->retain.end &&
		    slot_flight(other) < slot_flight(s))
			return false;
	return true;
}

int64_t
mux_rtt(const struct mux *m)
{
	const struct slot *s;
	int64_t rtt = 0;

	for (s = m->slot; s < m->slot + m->started; s++)
		if (s->cc.rtt > 0 && (rtt == 0 || s->cc.rtt < rtt))
			rtt = s->cc.rtt;
	return rtt;
}

/*
 * Since when does cwnd limit bulk on all slots?  INT64_MAX: a slot has room.
 */
static int64_t
limited_at(const struct mux *m)
{
	const struct slot *s;
	int64_t at = 0, one;

	for (s = m->slot; s < m->slot + m->started; s++) {
		one = mux_takes_data(m, s) ? slot_limited_at(s, m->now) : 0;
		at = one > at ? one : at;
	}
	return at == 0 ? INT64_MAX : at;
}

/* When is LIMITED due?  The near side adds slots, so the far side reports. */
static int64_t
limited_due_at(const struct mux *m)
{
	int64_t at = m->role == MUX_FAR && m->slots > 1 ? limited_at(m) : INT64_MAX;

	if (at == INT64_MAX)
		return INT64_MAX;
	at += LIMITED_AFTER;
	return at > m->limited_sent_at + LIMITED_EACH ? at : m->limited_sent_at + LIMITED_EACH;
}

/* How many bytes are retained?  ${all}: also by slots that are not up. */
static uint64_t
retained(const struct mux *m, bool all)
{
	const struct slot *s;
	uint64_t n = 0;

	for (s = m->slot; s < m->slot + m->started; s++)
		if (all || s->state == MUX_SLOT_UP)
			n += s->retain.end - s->retain.acked;
	return n;
}

static bool
is_full(const struct mux *m)
{
	return retained(m, true) >= RETAINED;
}

static unsigned
count(const struct mux *m, enum mux_slot_state state)
{
	const struct slot *s;
	unsigned n = 0;

	for (s = m->slot; s < m->slot + m->started; s++)
		n += s->state == state;
	return n;
}

/*
 * May busy streams send on ${s} now?  Each slot retains its share at most, so
 * that no slot waits for the ACKs of another one.
 */
static bool
has_room(const struct mux *m, const struct slot *s)
{
	return cc_room(&s->cc, m->now) > 0 && retained(m, true) < RETAINED_BULK &&
	       (s->retain.end - s->retain.acked) * count(m, MUX_SLOT_UP) < RETAINED_BULK;
}

/* ---- the end of the link ---- */

static void
free_queue(struct queue *q)
{
	struct stream *s;

	while ((s = queue_pop(q)) != NULL)
		stream_free_if_done(s);
}

static void
free_flows(struct queue *flows)
{
	free_queue(&flows[0]);
	free_queue(&flows[1]);
}

static void
drop_output(struct slot *s)
{
	s->due_bye = false;
	s->start_next = s->start_end;
	retain_start(&s->retain, 0);
}

/*
 * On a channel that continues a link, the peer may read what follows our
 * greeting as the rest of an earlier frame.  So no BYE is sent before the state
 * is up.
 */
static bool
can_send_bye(const struct slot *s)
{
	return s->state == MUX_SLOT_UP ||
	       (!s->joins && s->state != MUX_SLOT_DOWN && s->start_end > 0);
}

static void
end(struct mux *m, uint16_t code, const char *why, bool bye)
{
	struct slot *s;
	uint32_t i;

	for (s = m->slot; s < m->slot + m->started; s++) {
		if (bye && can_send_bye(s))
			s->due_bye = true;
		else
			drop_output(s);
	}
	if (m->dead)
		return;
	m->dead = true;
	m->code = code;
	snprintf(m->why, sizeof(m->why), "%s", why);
	for (i = 0; i < m->size; i++)
		if (m->table[i] != NULL)
			stream_lose(m->table[i]);
	free_flows(m->flows);
	for (s = m->slot; s < m->slot + m->started; s++) {
		free_queue(&s->control);
		free_flows(s->flows);
	}
}

void
mux_end(struct mux *m, uint16_t code, const char *why)
{
	end(m, code, why, false);
}

void
mux_bye(struct mux *m, uint16_t code, const char *why)
{
	if (!m->dead)
		end(m, code, why, true);
}

void
mux_lost(struct mux *m, unsigned slot, uint16_t code, const char *why)
{
	struct slot *s = &m->slot[slot];

	if (m->dead)
		drop_output(s);
	else if (m->keeps)
		tail_lose(m, s, code, why);
	else
		mux_end(m, code, why);
}

void
mux_breach(struct mux *m, const char *what)
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
	uint8_t k;

	if (mux_state(m) != MUX_UP || m->n >= m->size || strlen(target) > FRAME_TARGET ||
	    m->rx_reserved + window > m->ours.memory)
		return NULL;
	for (i = 0; m->table[at = (m->next_id + i) % m->size] != NULL; i++)
		;
	for (k = 0; !is_best(m, &m->slot[k]); k++)
		;
	s = stream_new(m, at * 2 + 1, k, target, strlen(target));
	if (s == NULL)
		return NULL;
	stream_set_windows(s, stream_first_window(m->theirs.memory, m->n - 1), window);
	m->next_id = at + 1;
	s->due_open = true;
	stream_need_control(s);
	return s;
}

struct stream *
mux_accept(struct mux *m)
{
	struct stream *s;

	while ((s = queue_pop(&m->accept)) != NULL) {
		if (!stream_is_reset(s))
			return s;
		stream_release(s); /* it was closed before it could be accepted */
	}
	return NULL;
}

struct stream *
mux_next_dirty(struct mux *m)
{
	struct stream *s;

	while ((s = queue_pop(&m->dirty)) != NULL && s->owner == NULL)
		stream_free_if_done(s);
	return s;
}

static size_t
largest_slice(const struct mux *m)
{
	const struct slot *s;
	size_t slice = 0, one;

	for (s = m->slot; s < m->slot + m->started; s++) {
		one = cc_slice(&s->cc);
		slice = one > slice ? one : slice;
	}
	return slice;
}

void
stream_push(struct stream *s)
{
	struct mux *m = s->mux;
	uint64_t slice, faded;

	if (stream_eof_is_due(s))
		stream_need_control(s);
	if (s->flow.queued || !stream_can_send_data(s))
		return;
	slice = largest_slice(m);
	faded = (uint64_t)(m->now - s->sent_at) * slice / QUIET_SPAN;
	s->burst = s->burst > faded ? s->burst - (uint32_t)faded : 0;
	s->sent_at = m->now;
	s->deficit = (int32_t)slice;
	queue_append(&stream_flows(s)[s->burst < slice ? 0 : 1], &s->flow);
}

/* ---- sending ---- */

/*
 * The first stream of ${flows} sends DATA, and EOF if it is due.  ${fresh}: the
 * flows are new.
 */
static size_t
put_stream(
    struct mux *m, struct slot *s, struct queue *flows, bool fresh, unsigned char *dst, size_t room)
{
	struct stream *t = queue_first(flows);
	bool small = fresh && t->tx.used <= KEYSTROKE;
	size_t n = stream_put_data(t, s, dst, room);

	if (small)
		cc_sent_small(&s->cc, m->now);
	if (stream_eof_is_due(t) && t->home == s->number && room - n >= ENDS)
		n += stream_put_eof(t, dst + n);
	stream_mark_dirty(t);
	if (!stream_can_send_data(t)) {
		queue_pop(flows);
		stream_push(t);
		stream_free_if_done(t);
	}
	return n;
}

/*
 * Return the flows that send next on ${s}: those of this slot, those of the
 * link, or NULL.
 */
static struct queue *
next_flows(struct mux *m, struct slot *s)
{
	if (!mux_takes_data(m, s))
		return NULL;
	if (s->flows[0].first != NULL)
		return &s->flows[0];
	if (m->flows[0].first != NULL && is_best(m, s))
		return &m->flows[0];
	if (m->flows[1].first == NULL)
		return s->flows[1].first != NULL ? &s->flows[1] : NULL;
	if (s->flows[1].first == NULL)
		return &m->flows[1];
	return s->turn++ % 2 == 0 ? &m->flows[1] : &s->flows[1];
}

/*
 * Write what the next stream may send on ${s}.  Return 0 if no stream has
 * anything to send, or if no more bytes may be in flight.
 */
static size_t
put_turn(struct mux *m, struct slot *s, unsigned char *dst, size_t room)
{
	struct queue *flows;
	struct stream *t;
	bool fresh;

	for (;;) {
		flows = next_flows(m, s);
		if (flows == NULL)
			return 0;
		fresh = flows == &s->flows[0] || flows == &m->flows[0];
		t = queue_first(flows);
		if (!stream_can_send_data(t)) {
			queue_pop(flows);
			stream_push(t); /* EOF may be due */
			stream_free_if_done(t);
		} else if (t->deficit <= 0 ||
			   (fresh && t->tx.used > KEYSTROKE && cc_is_over(&s->cc))) {
			if (t->deficit <= 0)
				t->deficit += (int32_t)cc_slice(&s->cc);
			queue_pop(flows);
			queue_append(&stream_flows(t)[1], &t->flow);
		} else if (!fresh && !has_room(m, s)) {
			return 0;
		} else {
			return put_stream(m, s, flows, fresh, dst, room);
		}
	}
}

static bool
hello_is_due(const struct mux *m, const struct slot *s)
{
	return s->due_hello && s->state != MUX_SLOT_DOWN && !m->dead &&
	       !(m->wait_peer_first && s->state == MUX_SLOT_STARTING);
}

/*
 * On the first channel of a link, the frames of our greeting count as link
 * bytes.  On all others, they do not.
 */
void
mux_greet(struct mux *m, struct slot *s)
{
	struct session session = m->session;
	unsigned char *dst = s->start;
	size_t n;

	session.slot = (uint8_t)s->number;
	session.slots = session.kind == SESSION_NONE ? 0 : MUX_SLOTS;
	if (s->joins) {
		session.kind = SESSION_JOIN;
		session.generation = s->generation;
		session.count = s->read;
	}
	if (!s->skip_magic) {
		memcpy(dst, frame_magic, FRAME_MAGIC);
		dst += FRAME_MAGIC;
	}
	n = greeting_put(dst, &m->ours, &session);
	s->due_hello = false;
	s->start_next = 0;
	s->start_end = (size_t)(dst - s->start) + n;
	if (s->joins)
		return;
	cc_sent(&s->cc, n, m->now);
	retain_start(&s->retain, n);
}

/*
 * If no more bytes may be retained, only BYE, ACK, LOST, DRAIN and TAIL are
 * sent.  Without ACKs, two sides that wait for each other's ACKs would wait
 * for ever.  The bytes in TAIL were retained before.
 */
static size_t
put_least(struct mux *m, struct slot *s, unsigned char *dst)
{
	size_t acks = 0, n;

	if (slot_ack_is_due(s, m->now))
		acks = slot_put_ack(s, dst, m->now);
	n = acks + tail_put_link(m, s, dst + acks);
	slot_sent(s, n, n > acks, m->now);
	return n;
}

/* Frames that ignore the limit of bytes in flight. */
static size_t
put_urgent(struct mux *m, struct slot *s, unsigned char *dst, size_t room)
{
	size_t least = put_least(m, s, dst), n = least;
	struct stream *t;
	uint64_t waited;

	if (s->due_ping)
		n += frame_put_bare(dst + n, FRAME_PING, 0);
	s->due_ping = false;
	n += slot_put_ack_every(s, dst + n);
	if (limited_due_at(m) <= m->now) {
		waited = (uint64_t)(m->now - limited_at(m)) / 1000;
		n += frame_put_number(dst + n, FRAME_LIMITED, 0, waited, 4);
		m->limited_sent_at = m->now;
	}
	while (s->control.first != NULL && room - n >= MUX_PULL / 2) {
		t = queue_pop(&s->control);
		n += stream_put_control(t, dst + n);
		stream_free_if_done(t);
	}
	slot_sent(s, n - least, true, m->now);
	return n;
}

/* TAIL of other slots.  Their streams wait for it. */
static size_t
put_tails(struct mux *m, struct slot *s, unsigned char *dst, size_t room)
{
	size_t n = 0, one;

	while (room - n > FRAME_HEAD + CC_SLICE_LEAST && tail_has_piece(m, s) &&
	       cc_room(&s->cc, m->now) > 0) {
		one = tail_put(m, s, dst + n, room - n);
		slot_sent(s, one, true, m->now);
		n += one;
	}
	return n;
}

static size_t
put_turns(struct mux *m, struct slot *s, unsigned char *dst, size_t room)
{
	size_t n = 0, turn = 1;

	while (turn > 0 && s->control.first == NULL && room - n > FRAME_HEAD + CC_SLICE_LEAST) {
		turn = put_turn(m, s, dst + n, room - n);
		slot_sent(s, turn, true, m->now);
		n += turn;
	}
	return n;
}

static size_t
put_frames(struct mux *m, struct slot *s, unsigned char *dst, size_t most)
{
	size_t n, turns;

	n = is_full(m) ? put_least(m, s, dst) : put_urgent(m, s, dst, most);
	n += put_tails(m, s, dst + n, most - n);
	if (is_full(m))
		return n;
	turns = put_turns(m, s, dst + n, most - n);
	if (turns > 0)
		s->data_end = s->retain.end + n + turns;
	return n + turns;
}

static void
produce(struct mux *m, struct slot *s, size_t most)
{
	size_t room, n;
	unsigned char *dst;

	if (s->state == MUX_SLOT_UP && retained(m, false) >= RETAINED_MOST)
		mux_breach(m, "it acknowledges nothing");
	if (m->dead ? !s->due_bye : s->state != MUX_SLOT_UP)
		return;
	dst = retain_room(&s->retain, MUX_PULL, &room);
	s->room_at = dst != NULL ? 0 : m->now + ROOM_WAIT;
	if (dst == NULL)
		return;
	if (m->dead) {
		s->due_bye = false;
		n = frame_put_words(dst, FRAME_BYE, 0, m->code, m->why);
	} else {
		n = put_frames(m, s, dst, most < room ? most : room);
	}
	retain_add(&s->retain, n);
}

size_t
mux_output(struct mux *m, unsigned slot, const unsigned char **p, size_t most, int64_t now)
{
	struct slot *s = &m->slot[slot];
	size_t n;

	m->now = now;
	if (hello_is_due(m, s))
		mux_greet(m, s);
	*p = s->start + s->start_next;
	if (s->start_next < s->start_end)
		return s->start_end - s->start_next;
	if (s->state != MUX_SLOT_UP && !m->dead)
		return 0;
	if (s->retain.next == s->retain.end)
		produce(m, s, most);
	*p = retain_next(&s->retain, &n);
	return n;
}

void
mux_wrote(struct mux *m, unsigned slot, size_t n)
{
	struct slot *s = &m->slot[slot];

	if (s->start_next < s->start_end) {
		s->start_next += n;
		return;
	}
	retain_wrote(&s->retain, n);
	/* The buffers of a channel can be full before cwnd is. */
	if (s->retain.next < s->retain.end)
		slot_full(s, m->now);
	if (!m->keeps)
		retain_acked(&s->retain, s->retain.next);
}

/* Has ${s}, which is up, new frames to send? */
static bool
has_frames(const struct mux *m, const struct slot *s)
{
	if (slot_ack_is_due(s, m->now) || tail_is_due(m, s) ||
	    (tail_has_piece(m, s) && cc_room(&s->cc, m->now) > 0))
		return true;
	if (is_full(m))
		return false;
	if (s->due_ping || limited_due_at(m) <= m->now || s->control.first != NULL)
		return true;
	if (!mux_takes_data(m, s))
		return false;
	if (s->flows[0].first != NULL || (m->flows[0].first != NULL && is_best(m, s)))
		return true;
	return (s->flows[1].first != NULL || m->flows[1].first != NULL) && has_room(m, s);
}

bool
mux_has_output(const struct mux *m, unsigned slot)
{
	const struct slot *s = &m->slot[slot];

	if (hello_is_due(m, s) || s->start_next < s->start_end)
		return true;
	if (s->retain.next == s->retain.end && m->now < s->room_at)
		return false;
	if (m->dead)
		return s->due_bye || s->retain.next < s->retain.end;
	if (s->state != MUX_SLOT_UP)
		return false;
	return s->retain.next < s->retain.end || has_frames(m, s);
}

/* ---- time ---- */

void
mux_woke(struct mux *m, int64_t now)
{
	struct slot *s;

	for (s = m->slot; s < m->slot + m->started; s++)
		slot_woke(s, now);
}

/* When is ${s} silent for too long?  INT64_MAX: no ACK is expected. */
static int64_t
silent_at(const struct slot *s)
{
	int64_t from = s->alive_at > s->asked_at ? s->alive_at : s->asked_at;

	if (s->state != MUX_SLOT_UP || !slot_waits(s))
		return INT64_MAX;
	return from + SILENT_MOST;
}

/*
 * Was a byte read on another slot while ${s} was silent?  The other slots that
 * are silent too send PING, to cause an answer.
 */
static bool
others_answer(struct mux *m, const struct slot *s)
{
	struct slot *other;
	bool answer = false;

	for (other = m->slot; other < m->slot + m->started; other++) {
		if (other == s || other->state != MUX_SLOT_UP)
			continue;
		if (other->alive_at > s->alive_at && other->alive_at > s->asked_at)
			answer = true;
		else if (m->now - other->pinged_at >= SILENT_MOST)
			slot_ping(other, m->now);
	}
	return answer;
}

/*
 * After this process has stood still, one slot is read before the others.  So
 * its silence is counted again from this tick.
 */
static bool
is_silent(struct mux *m, struct slot *s)
{
	if (m->now < silent_at(s))
		return false;
	if (m->now - silent_at(s) < SILENT_LATE)
		return others_answer(m, s);
	s->asked_at = m->now;
	return false;
}

static void
tick_slot(struct mux *m, struct slot *s)
{
	if (!slot_tick(s, m->now))
		mux_lost(
		    m, s->number, MUX_TIMEOUT, "nothing was received from the other side for 45 s");
	else if (m->slots > 1 && is_silent(m, s))
		mux_lost(m, s->number, MUX_TIMEOUT, "this channel is silent, and others are not");
}

void
mux_tick(struct mux *m, int64_t now)
{
	struct slot *s;

	m->now = now;
	for (s = m->slot; s < m->slot + m->started && !m->dead; s++)
		tick_slot(m, s);
	tail_check(m);
}

int64_t
mux_deadline(const struct mux *m)
{
	int64_t next = INT64_MAX, at;
	const struct slot *s;

	for (s = m->slot; s < m->slot + m->started && !m->dead; s++) {
		at = slot_deadline(s, m->now);
		next = at < next ? at : next;
		if (s->state != MUX_SLOT_UP)
			continue;
		at = m->slots > 1 ? silent_at(s) : INT64_MAX;
		next = at > m->now && at < next ? at : next;
		at = cc_next(&s->cc, m->now);
		if (m->flows[1].first != NULL || s->flows[1].first != NULL || tail_has_piece(m, s))
			next = at < next ? at : next;
	}
	if (mux_state(m) != MUX_UP)
		return next;
	at = m->role == MUX_FAR ? limited_due_at(m) : m->peer_limited_until;
	return at > m->now && at < next ? at : next;
}

/* ---- life and facts ---- */

struct mux *
mux_new(enum mux_role role, uint32_t memory, const char *host, int64_t now)
{
	struct mux *m = calloc(1, sizeof(*m));

	if (m == NULL)
		return NULL;
	m->slots = m->started = 1;
	slot_attach(&m->slot[0], role == MUX_FAR, false, now);
	m->slot[0].joins = false;
	m->role = role;
	m->ours.role = (uint8_t)role;
	m->ours.memory = memory;
	m->ours.streams = MUX_STREAMS;
	snprintf(m->ours.host, sizeof(m->ours.host), "%s", host);
	m->now = now;
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

unsigned
mux_slots(const struct mux *m)
{
	return m->slots;
}

enum mux_slot_state
mux_slot_state(const struct mux *m, unsigned slot)
{
	const struct slot *s;

	if (slot >= MUX_SLOTS)
		return MUX_SLOT_FREE;
	s = &m->slot[slot];
	if (s->state == MUX_SLOT_UP)
		return s->drains ? MUX_SLOT_CLOSING : MUX_SLOT_UP;
	/* The far side may have read TAIL, so no channel can continue the slot. */
	if (s->state == MUX_SLOT_DOWN && m->role == MUX_NEAR && s->lost_read)
		return MUX_SLOT_CLOSING;
	return s->state;
}

void
mux_attach(struct mux *m, unsigned slot, bool skip_magic, int64_t now)
{
	struct slot *s = &m->slot[slot];

	m->now = now;
	s->number = slot;
	if (slot >= m->started)
		m->started = slot + 1;
	if (m->role == MUX_NEAR)
		s->generation++;
	slot_attach(s, m->role == MUX_FAR, skip_magic, now);
	tail_forget(m, s);
}

int
mux_down_slot(const struct mux *m)
{
	unsigned i;

	for (i = 0; i < m->slots; i++)
		if (mux_slot_state(m, i) == MUX_SLOT_DOWN)
			return (int)i;
	return -1;
}

int
mux_add_slot(struct mux *m, int64_t now)
{
	unsigned i;

	if (m->role != MUX_NEAR || mux_state(m) != MUX_UP)
		return -1;
	for (i = 0; i < m->slots && m->slot[i].state != MUX_SLOT_FREE; i++)
		;
	if (i == m->slots)
		return -1;
	mux_attach(m, i, false, now);
	return (int)i;
}

int
mux_claimed_slot(const struct mux *m, const struct session *session)
{
	if (!m->keeps || m->dead || session->kind != SESSION_JOIN || session->slot >= m->slots ||
	    session->generation <= m->slot[session->slot].generation ||
	    memcmp(session->id, m->session.id, FRAME_SESSION_ID) != 0)
		return -1;
	return session->slot;
}

int
mux_accept_slot(struct mux *m, const struct session *session, bool skip_magic, int64_t now)
{
	int slot = mux_claimed_slot(m, session);

	if (slot != -1)
		mux_attach(m, (unsigned)slot, skip_magic, now);
	return slot;
}

void
mux_close_slot(struct mux *m, unsigned slot)
{
	struct slot *s = &m->slot[slot];

	if (s->state == MUX_SLOT_UP)
		s->drains = s->due_drain = true;
	else
		tail_lose(m, s, MUX_END, "closed");
}

void
mux_free(struct mux *m)
{
	struct slot *s;

	if (m == NULL)
		return;
	mux_end(m, MUX_END, "");
	while (mux_accept(m) != NULL)
		; /* all are closed, so mux_accept releases them */
	while (mux_next_dirty(m) != NULL)
		;
	for (s = m->slot; s < m->slot + m->started; s++)
		slot_free(s);
	free(m->table);
	m->table = NULL;
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
	if (m->dead)
		return MUX_DEAD;
	if (count(m, MUX_SLOT_UP) > 0)
		return MUX_UP;
	if (count(m, MUX_SLOT_GREETING) > 0)
		return MUX_GREETING;
	return count(m, MUX_SLOT_STARTING) > 0 ? MUX_STARTING : MUX_DOWN;
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
mux_banner(struct mux *m, unsigned slot, size_t *n)
{
	*n = m->slot[slot].greeting.banner_have;
	return m->slot[slot].greeting.banner;
}

void
mux_slot_stats(const struct mux *m, unsigned slot, struct mux_slot_stats *stats)
{
	const struct slot *s = &m->slot[slot];

	*stats =
	    (struct mux_slot_stats){ s->cc.sent, s->read, s->cc.cwnd, slot_flight(s), s->cc.rtt };
}

void
mux_stats(const struct mux *m, struct mux_stats *s)
{
	const struct slot *slot;

	*s = (struct mux_stats){ m->n, m->rx_reserved, m->sent_before, m->read_before, 0,
		mux_rtt(m) };
	for (slot = m->slot; slot < m->slot + m->started; slot++) {
		s->sent += slot->cc.sent;
		s->received += slot->read;
		s->cwnd += slot->cc.cwnd;
	}
}

int64_t
mux_limited_at(const struct mux *m)
{
	int64_t at = limited_at(m);

	return m->now < m->peer_limited_until && m->peer_limited_at < at ? m->peer_limited_at : at;
}
