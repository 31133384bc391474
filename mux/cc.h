/*
 * mux/cc.h - congestion control: how many link bytes may be in flight.
 *
 * In flight are the bytes that were sent and not acknowledged.  All times are
 * microseconds of one clock.  Other files read only sent, acked, cwnd and rtt.
 */
#ifndef MUX_CC_H
#define MUX_CC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CC_MARKS 256 /* sends whose round trip is measured at the same time */
#define CC_SLICE_LEAST 1024
#define CC_SLICE_MOST 65536

struct cc {
	uint64_t sent, acked; /* link bytes */
	uint64_t cwnd;        /* bytes that may be in flight */
	uint64_t cwnd_goal;   /* cwnd grows to this with each ACK */
	int64_t rtt;          /* of the line without our queue; 0: not known */
	int64_t rtt_var;      /* mean excess of samples over the smallest one */
	uint64_t round_start; /* bytes up to here were sent under another cwnd */
	int64_t round_at;     /* of the first sample of this round */
	int64_t round_rtt;    /* the smallest sample of this round */
	int64_t sample_sum;   /* of this round */
	unsigned samples;     /* in this round */
	uint64_t most;        /* bytes in flight in this round, at most */
	bool rtt_fell;        /* the last probe found a shorter line */
	bool bulk_only;       /* no small piece was sent lately */
	int64_t small_at;     /* of the last small piece */
	unsigned rounds;      /* since the last probe, or since cwnd doubled */
	unsigned increases;   /* in sequence, DOUBLING at most */
	uint64_t cwnd_before; /* before decrease(); 0: no probe is being checked */
	int64_t rtt_before;   /* the round trip with that cwnd */
	bool decreased;       /* since cc_decreased was called */
	int64_t next_send_at; /* pacing: nothing is sent earlier */
	struct {
		uint64_t end; /* value of sent */
		int64_t at;
	} mark[CC_MARKS]; /* ring of sends that are not acknowledged */
	size_t first, marks;
};

/* cc_init(c, now): Nothing was sent yet. */
void cc_init(struct cc *c, int64_t now);

/*
 * cc_restart(c, acked, rtt, now):
 * Another channel continues after the ${acked} bytes that the peer has read.
 * The other bytes in flight are sent again; they give no sample.  ${rtt} is of
 * earlier channels: bytes that are sent again would lengthen the first sample.
 */
void cc_restart(struct cc *c, uint64_t acked, int64_t rtt, int64_t now);

/* cc_sent(c, n, now): ${n} more link bytes were sent. */
void cc_sent(struct cc *c, size_t n, int64_t now);

/*
 * cc_sent_small(c, now):
 * A small piece of a quiet stream was among them.  For a while, bulk keeps its
 * queue short.
 */
void cc_sent_small(struct cc *c, int64_t now);

/*
 * cc_acked(c, count, delay, now):
 * An ACK was read: the peer has read ${count} bytes since the start, and has
 * waited ${delay} before it sent the ACK.  Return false if that count is not
 * possible.
 */
bool cc_acked(struct cc *c, uint64_t count, int64_t delay, int64_t now);

/*
 * cc_decreased(c), cc_follow(c, other):
 * Has cwnd decreased since the last call?  cc_follow: cwnd of ${other} has
 * just decreased, so decrease that of ${c} in proportion.
 */
bool cc_decreased(struct cc *c);
void cc_follow(struct cc *c, const struct cc *other);

/* cc_room(c, now): Return how many bytes may be sent now. */
size_t cc_room(const struct cc *c, int64_t now);

/*
 * cc_next(c, now):
 * Return the time at which more may be sent without another ACK.  INT64_MAX:
 * now, or only after an ACK.
 */
int64_t cc_next(const struct cc *c, int64_t now);

/* cc_is_over(c): Are too many bytes in flight even for small pieces? */
bool cc_is_over(const struct cc *c);

/* cc_slice(c): Return how many bytes one stream should send at once. */
size_t cc_slice(const struct cc *c);

#endif
