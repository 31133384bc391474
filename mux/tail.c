/*
 * mux/tail.c - the end of a slot.
 *
 * If a channel is lost while other slots are up, each side sends LOST on one
 * of them.  LOST has the number of link bytes that this side has read on the
 * lost slot.  The peer sends the bytes after these as TAIL.  They continue the
 * frame that was read in part.  So each frame is read once, and the frames of
 * a slot stay in order.
 *
 *   near   LOST ->            TAIL ... TAIL of 0 bytes ->
 *   far         <- LOST, TAIL ...                       <- TAIL of 0 bytes
 *
 * Before the near side has read LOST, it has sent no TAIL.  So another channel
 * can still continue the lost slot.  The far side ends its TAIL last.  So when
 * the slot is free on the near side, it is free on the far side too.
 *
 * All TAIL of a slot is sent on one other slot, its carrier, and arrives in
 * order.  If the carrier is lost too, its own TAIL is sent first.  Then the
 * slot that has sent it is the new carrier.  After TAIL, the carrier is the
 * home of the streams of the lost slot.
 */
#include <stdio.h>
#include <string.h>

#include "mux/internal.h"

static bool
is_lost(const struct slot *x)
{
	return x->state == MUX_SLOT_DOWN;
}

void
tail_forget(struct mux *m, const struct slot *s)
{
	struct slot *x;

	for (x = m->slot; x < m->slot + m->started; x++)
		if (x->tail == s)
			x->tail = NULL;
}

static void
retire(struct mux *m, struct slot *x)
{
	tail_forget(m, x);
	m->sent_before += x->cc.sent;
	m->read_before += x->read;
	slot_free(x);
}

static void
retire_if_done(struct mux *m, struct slot *x)
{
	if (x->tail_sent && x->tail_read)
		retire(m, x);
}

/* Streams that may send on any slot do not wait for TAIL of ${s}. */
static void
release_flows(struct slot *s)
{
	struct queue all;
	struct stream *t;
	int i;

	for (i = 0; i < 2; i++) {
		all = s->flows[i];
		s->flows[i] = (struct queue){ NULL, NULL };
		while ((t = queue_pop(&all)) != NULL)
			queue_append(&stream_flows(t)[i], &t->flow);
	}
}

/*
 * If LOST of another slot was sent on ${s}, the peer may not have read it:
 * send it again.
 */
static void
repeat_lost(struct mux *m, const struct slot *s)
{
	struct slot *x;

	for (x = m->slot; x < m->slot + m->started; x++)
		if (x->lost_on == s)
			x->lost_on = NULL;
}

/* Our greeting was not sent, so the peer does not have this slot. */
static bool
is_unknown(const struct mux *m, const struct slot *s)
{
	return m->role == MUX_NEAR && s->state != MUX_SLOT_DOWN && s->start_end == 0 && !s->feeding;
}

void
tail_lose(struct mux *m, struct slot *s, uint16_t code, const char *why)
{
	if (s->state == MUX_SLOT_DOWN || s->state == MUX_SLOT_FREE)
		return;
	m->code = code;
	snprintf(m->why, sizeof(m->why), "%s", why);
	s->start_next = s->start_end;
	if (is_unknown(m, s)) {
		retire(m, s);
		return;
	}
	s->state = MUX_SLOT_DOWN;
	repeat_lost(m, s);
	release_flows(s);
}

/* ---- a slot that is drained ---- */

/* Does ${s} drain, and was all DATA on it acknowledged? */
static bool
is_drained(const struct mux *m, const struct slot *s)
{
	return s->drains && s->state == MUX_SLOT_UP && !mux_takes_data(m, s) &&
	       s->retain.acked >= s->data_end;
}

void
tail_check(struct mux *m)
{
	struct slot *s;

	if (m->role == MUX_NEAR || m->dead)
		return;
	for (s = m->slot; s < m->slot + m->started; s++)
		if (is_drained(m, s))
			tail_lose(m, s, MUX_END, "the near side has closed this channel");
}

/* ---- frames to send ---- */

static bool
lost_is_due(const struct slot *x)
{
	return is_lost(x) && x->lost_on == NULL;
}

static bool
drain_is_due(const struct mux *m, const struct slot *x)
{
	return x->due_drain && is_drained(m, x);
}

bool
tail_is_due(const struct mux *m, const struct slot *s)
{
	const struct slot *x;

	for (x = m->slot; x < m->slot + m->started; x++)
		if (x != s && (lost_is_due(x) || drain_is_due(m, x)))
			return true;
	return false;
}

static size_t
put_lost(struct slot *x, const struct slot *s, unsigned char *dst)
{
	unsigned char *body = frame_put_head(dst, FRAME_LOST, x->number, 12);

	frame_put(body, x->generation, 4);
	frame_put(body + 4, x->read, 8);
	x->lost_sent = true;
	x->lost_on = s;
	return FRAME_HEAD + 12;
}

size_t
tail_put_link(struct mux *m, const struct slot *s, unsigned char *dst)
{
	struct slot *x;
	size_t n = 0;

	for (x = m->slot; x < m->slot + m->started; x++) {
		if (x == s)
			continue;
		if (lost_is_due(x)) {
			n += put_lost(x, s, dst + n);
		} else if (drain_is_due(m, x)) {
			n += frame_put_number(dst + n, FRAME_DRAIN, x->number, x->generation, 4);
			x->due_drain = false;
		}
	}
	return n;
}

/*
 * May ${s} send TAIL of ${x}?  It follows LOST of both sides.  The far side ends
 * its TAIL last.
 */
static bool
carries(const struct mux *m, const struct slot *s, const struct slot *x)
{
	if (!is_lost(x) || !x->lost_sent || !x->lost_read || x->tail_sent ||
	    (x->carrier != s && (x->carrier != NULL || !mux_takes_data(m, s))))
		return false;
	return x->retain.next < x->retain.end || m->role == MUX_NEAR || x->tail_read;
}

/* Return the first slot whose TAIL ${s} may send, or m->slots. */
static unsigned
next_tail(const struct mux *m, const struct slot *s)
{
	unsigned i;

	for (i = 0; i < m->slots && !carries(m, s, &m->slot[i]); i++)
		;
	return i;
}

bool
tail_has_piece(const struct mux *m, const struct slot *s)
{
	return next_tail(m, s) < m->slots;
}

/* The TAIL of ${x} has ended on ${s}: its streams now use ${s}. */
static void
end_tail(struct mux *m, struct slot *x, struct slot *s)
{
	struct slot *other;

	x->tail_sent = true;
	stream_move(m, x, s);
	for (other = m->slot; other < m->slot + m->started; other++)
		if (other->carrier == x)
			other->carrier = s;
	retire_if_done(m, x);
}

size_t
tail_put(struct mux *m, struct slot *s, unsigned char *dst, size_t room)
{
	struct slot *x = &m->slot[next_tail(m, s)];
	const unsigned char *p;
	unsigned char *body;
	size_t n, most = cc_slice(&s->cc);

	if (most > room - FRAME_HEAD - FRAME_TAIL_AT)
		most = room - FRAME_HEAD - FRAME_TAIL_AT;
	x->carrier = s;
	p = retain_next(&x->retain, &n);
	n = n < most ? n : most;
	body = frame_put_head(dst, FRAME_TAIL, x->number, FRAME_TAIL_AT + n);
	frame_put(body, x->generation, 4);
	frame_put(body + 4, x->retain.next, 8);
	if (n > 0) {
		memcpy(body + FRAME_TAIL_AT, p, n);
		retain_wrote(&x->retain, n);
		/* Until the near side has read LOST, another channel may need them. */
		if (m->role == MUX_NEAR || x->tail_read)
			retain_acked(&x->retain, x->retain.next);
	} else {
		end_tail(m, x, s);
	}
	return FRAME_HEAD + FRAME_TAIL_AT + n;
}

/* ---- frames read ---- */

const char *
tail_on_lost(struct mux *m, const struct slot *s)
{
	uint32_t number = s->frame.stream, generation = (uint32_t)frame_get(s->body, 4);
	uint64_t count = frame_get(s->body + 4, 8);
	struct slot *x;

	if (number >= m->slots)
		return "LOST of a slot that is not allowed";
	x = &m->slot[number];
	if (generation < x->generation ||
	    (x->state == MUX_SLOT_FREE && generation == x->generation))
		return NULL; /* a newer channel has replaced it */
	if (generation > x->generation) {
		/* The near side has lost a channel before its greeting was read. */
		if (m->role == MUX_NEAR)
			return "a generation that was not used";
		if (x->feeding)
			return "LOST of the slot that carries it";
		mux_attach(m, number, false, m->now);
		x->due_hello = false;
		x->generation = generation;
	}
	if (x->lost_read)
		return NULL; /* it was sent again */
	if (x->feeding || is_unknown(m, x) || count < x->retain.acked || count > x->retain.next)
		return "a LOST that is not possible";
	tail_lose(m, x, MUX_RESET, "the other side has lost this channel");
	x->lost_read = true;
	retain_rewind(&x->retain, count);
	return NULL;
}

const char *
tail_on_drain(struct mux *m, const struct slot *s)
{
	uint32_t number = s->frame.stream;
	struct slot *x;

	if (number >= m->slots || number == s->number || m->role == MUX_NEAR)
		return "a DRAIN that is not allowed";
	x = &m->slot[number];
	if (x->state == MUX_SLOT_UP && frame_get(s->body, 4) == x->generation)
		x->drains = true;
	return NULL;
}

/* Is the body of a TAIL on ${s} read next?  A lost slot can be within one. */
static bool
is_in_tail(const struct slot *s)
{
	return s->frame.type == FRAME_TAIL && s->fixed == 0 && s->left > 0;
}

/* A TAIL on ${s} for ${x} would carry itself: a byte would be passed on for ever. */
static bool
is_cycle(const struct slot *s, const struct slot *x)
{
	for (; is_in_tail(x) && x->tail != NULL; x = x->tail)
		if (x->tail == s)
			return true;
	return false;
}

const char *
tail_start(struct mux *m, struct slot *s)
{
	uint32_t number = s->frame.stream, generation = (uint32_t)frame_get(s->body, 4);
	struct slot *x;

	if (number >= m->slots || generation > m->slot[number].generation)
		return "TAIL of a slot that is not in use";
	x = &m->slot[number];
	if (x->state == MUX_SLOT_FREE || generation < x->generation)
		return NULL; /* a newer channel has replaced it */
	if (!is_lost(x) || !x->lost_sent || x->tail_read || x->feeding || is_cycle(s, x) ||
	    frame_get(s->body + 4, 8) != x->read)
		return "a TAIL that is not possible";
	if (s->left > 0) {
		s->tail = x;
		return NULL;
	}
	if (x->head_have > 0 || x->left > 0)
		return "a TAIL that ends in a frame";
	x->tail_read = true;
	retire_if_done(m, x);
	return NULL;
}
