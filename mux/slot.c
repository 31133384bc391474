/* mux/slot.c - one slot of a link: a stream of frames over one channel. */
#include <string.h>

#include "mux/slot.h"

#define ACK_DELAY 5000
#define ACK_EVERY_MOST 262144
#define ACK_EVERY_TIME 250 /* us between two ACKs, at least */
#define ACKS_IN_CWND 8     /* at least */
#define PING_AFTER 15000000
#define SLEPT_AFTER 20000000 /* no tick for so long: this host slept */
#define FULL_SPAN 100000     /* between two times when cwnd or the channel is full, at most */
#define WOKE_WAIT 15000000   /* for a byte of the peer, after this host slept */

void
slot_attach(struct slot *s, bool far, bool skip_magic, int64_t now)
{
	if (s->state == MUX_SLOT_FREE) {
		s->ack_every = s->ack_every_sent = SLOT_ACK_EVERY;
		cc_init(&s->cc, now);
	}
	s->state = MUX_SLOT_STARTING;
	s->joins = true;
	s->skip_magic = skip_magic;
	s->due_hello = true;
	s->due_ping = s->due_drain = s->drains = false;
	s->lost_sent = s->lost_read = s->tail_sent = s->tail_read = false;
	s->carrier = NULL;
	s->lost_on = NULL;
	s->start_next = s->start_end;
	s->unacked_at = s->pinged_at = s->full_at = 0;
	s->read_acked = s->read;
	s->alive_at = s->ticked_at = s->read_at = s->asked_at = now;
	greeting_start(&s->greeting, far);
}

void
slot_free(struct slot *s)
{
	unsigned number = s->number;
	uint32_t generation = s->generation;

	retain_start(&s->retain, 0);
	greeting_free(&s->greeting);
	memset(s, 0, sizeof(*s));
	s->number = number;
	s->generation = generation;
}

/* ---- sending ---- */

uint64_t
slot_flight(const struct slot *s)
{
	return s->cc.sent - s->cc.acked;
}

bool
slot_waits(const struct slot *s)
{
	return s->cc.acked < s->asked;
}

void
slot_full(struct slot *s, int64_t now)
{
	if (slot_limited_at(s, now) == INT64_MAX)
		s->limited_at = now;
	s->full_at = now;
}

void
slot_sent(struct slot *s, size_t n, bool asks, int64_t now)
{
	if (n == 0)
		return;
	if (asks && !slot_waits(s))
		s->asked_at = now;
	cc_sent(&s->cc, n, now);
	if (asks)
		s->asked = s->cc.sent;
	if (slot_flight(s) >= s->cc.cwnd - s->cc.cwnd / 4)
		slot_full(s, now);
}

int64_t
slot_limited_at(const struct slot *s, int64_t now)
{
	return s->full_at != 0 && now - s->full_at < FULL_SPAN + 2 * s->cc.rtt ? s->limited_at
									       : INT64_MAX;
}

bool
slot_ack_is_due(const struct slot *s, int64_t now)
{
	return s->due_ack || s->read - s->read_acked >= s->ack_every ||
	       (s->unacked_at != 0 && now - s->unacked_at >= ACK_DELAY);
}

size_t
slot_put_ack(struct slot *s, unsigned char *dst, int64_t now)
{
	unsigned char *body = frame_put_head(dst, FRAME_ACK, 0, 12);

	frame_put(body, s->read, 8);
	frame_put(body + 8, (uint64_t)(now - s->read_at), 4);
	s->read_acked = s->read;
	s->unacked_at = 0;
	s->due_ack = false;
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
	uint32_t every = SLOT_ACK_EVERY;

	while (every < ACK_EVERY_MOST && every * 2 <= c->cwnd / (uint64_t)acks)
		every *= 2;
	return every;
}

size_t
slot_put_ack_every(struct slot *s, unsigned char *dst)
{
	uint32_t every = ack_every_for(&s->cc);

	if (every == s->ack_every_sent)
		return 0;
	s->ack_every_sent = every;
	return frame_put_number(dst, FRAME_ACK_EVERY, 0, every, 4);
}

/* ---- time ---- */

void
slot_ping(struct slot *s, int64_t now)
{
	s->pinged_at = now;
	s->due_ping = true;
}

void
slot_woke(struct slot *s, int64_t now)
{
	if (s->state != MUX_SLOT_UP)
		return;
	s->alive_at = now - (SLOT_DEAD_AFTER - WOKE_WAIT);
	s->asked_at = now;
	slot_ping(s, now);
}

bool
slot_tick(struct slot *s, int64_t now)
{
	int64_t gap = now - (s->ticked_at > s->alive_at ? s->ticked_at : s->alive_at);

	s->ticked_at = now;
	/* Before the magic, a person may be typing a password. */
	if (s->state != MUX_SLOT_UP && s->state != MUX_SLOT_GREETING)
		return true;
	if (gap > SLEPT_AFTER)
		slot_woke(s, now);
	if (now - s->alive_at >= SLOT_DEAD_AFTER)
		return false;
	if (s->state == MUX_SLOT_UP && now - s->alive_at >= PING_AFTER &&
	    now - s->pinged_at >= PING_AFTER)
		slot_ping(s, now);
	return true;
}

int64_t
slot_deadline(const struct slot *s, int64_t now)
{
	int64_t next;

	if (s->state == MUX_SLOT_GREETING)
		return s->alive_at + SLOT_DEAD_AFTER;
	if (s->state != MUX_SLOT_UP)
		return INT64_MAX;
	next = (s->pinged_at > s->alive_at ? s->pinged_at : s->alive_at) + PING_AFTER;
	if (s->alive_at + SLOT_DEAD_AFTER < next)
		next = s->alive_at + SLOT_DEAD_AFTER;
	if (s->unacked_at != 0 && !slot_ack_is_due(s, now) && s->unacked_at + ACK_DELAY < next)
		next = s->unacked_at + ACK_DELAY;
	if (now < s->room_at && s->room_at < next)
		next = s->room_at;
	return next;
}
