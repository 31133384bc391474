/*
 * mux/cc.h - congestion control: how many link bytes may be in flight.
 *
 * In flight are the bytes that were sent and not acknowledged.  All times are microseconds of one clock.  The members of struct cc
 * belong to cc.c.
 */
#ifndef MUX_CC_H
#define MUX_CC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CC_MARKS 256 /* sendings whose round trip is measured at a time */
#define CC_SLICE_LEAST 1024
#define CC_SLICE_MOST 65536

struct cc {
	uint64_t sent, acked;  /* link bytes */
	uint64_t window;       /* that may be in flight */
	uint64_t goal;         /* what the window becomes */
	int64_t trip;          /* of the line itself, 0: not known */
	int64_t trip_last;     /* the last one */
	uint64_t settled;      /* what was sent up to here was sent under another window */
	int64_t look_at;       /* this look: its first trip, the smallest one, how many there were */
	int64_t least, sum, tremble;
	unsigned samples;
	bool used;             /* the window was, in this look */
	bool shorter;          /* the last dip has shown a shorter line */
	bool calm;             /* nobody talks beside bulk */
	int64_t talked_at;     /* somebody did */
	unsigned looks;        /* since the last dip */
	unsigned growth;       /* growths, one after the other */
	uint64_t before;       /* 0, or the window before it was lowered; its trip, and the one that was hoped for */
	int64_t before_trip, hoped;
	int64_t next_at;       /* nothing is sent before, so that the window is spread over a long trip */
	struct {
		uint64_t end;
		int64_t at;
	} mark[CC_MARKS];
	size_t first, marks;
};

/*
 * cc_init(c, now): nothing was sent yet.
 * cc_sent(c, n, now): ${n} link bytes more were sent.  cc_sent_small(c, now): among them a small piece of a quiet stream.
 * cc_acked(c, count, delay, now): the peer has read ${count} bytes in all, and waited ${delay} before it sent this ACK.  False:
 * the count is impossible.
 * cc_room(c, now): how many bytes may be sent now.  cc_next(c, now): when more may be sent although nothing is acknowledged;
 * INT64_MAX: now, or only after an ACK.  cc_is_over(c): so much is in flight that small pieces have to wait as well.
 * cc_slice(c): how many bytes one stream should send at once.
 */
void cc_init(struct cc *c, int64_t now);
void cc_sent(struct cc *c, size_t n, int64_t now);
void cc_sent_small(struct cc *c, int64_t now);
bool cc_acked(struct cc *c, uint64_t count, int64_t delay, int64_t now);
size_t cc_room(const struct cc *c, int64_t now);
int64_t cc_next(const struct cc *c, int64_t now);
bool cc_is_over(const struct cc *c);
size_t cc_slice(const struct cc *c);

#endif
