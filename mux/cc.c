/*
 * cc.c - how many bytes may be in flight.
 *
 * Between two relays lie pipes, ssh's window and socket buffers, and a sender that fills them all makes every keystroke wait behind
 * megabytes. So the bytes in flight (sent, not yet acknowledged) are kept near what the line itself holds, and a queue's worth
 * more, so that it never runs dry: half the trip's, but no more than QUEUE_MOST. On a line so short that this is little, the
 * processes between need more of it than the line does, to find each more than one packet when it is woken: QUEUE_CALM, as long
 * as nobody talks beside the bulk.
 *
 * Acknowledgements clock the sender: window / trip is the rate, always, and so a rate tells nothing: a trip that is longer than
 * the least one is either a queue of ours, or a line that is longer (or trembles, or is filled by others). What tells them apart: a
 * queue of ours becomes shorter when the window does, by as much; and the line's trip does not.
 *
 *   look   the window stays as it is until all that was sent under another one is acknowledged; then the smallest trip of the next
 *          few is what this window makes of the line. Each look ends with one of the following.
 *   grow   the trip is the line's own: there may be more room. The window becomes a little larger, and by twice as much each time
 *          that it goes on so, up to doubling. A window that was not used does not grow.
 *   lower  the trip is longer than the line's and that queue: the window becomes what makes it so long, or half.
 *   dip    one look in DIP, a little less than what the line holds: is the trip still the line's own?
 *          While the window has never been too large, three looks that did not make it grow are enough.
 *   judge  the look after a lower or a dip. If the trip has become shorter as the window did, there was a queue; if not, it is the
 *          line's. Either way it is known now what the window should have been.
 *
 * On a long line the window is spread over the trip: nothing is sent faster than at 1.5 windows a trip. For ssh makes one packet of
 * what it finds, and none of it arrives before all has: a window sent at once makes a trip longer by the time that it takes to
 * send, as a queue would, though the line lies idle between two windows.
 *
 * Times are microseconds.
 */
#include <string.h>

#include "mux/cc.h"

#define WINDOW_FIRST 32768
#define WINDOW_LEAST 4096
#define WINDOW_MOST (64 * 1024 * 1024)
#define TRIP_MOST 60000000
#define QUEUE_MOST 2000
#define QUEUE_CALM 2000
#define QUEUE_LEAST 250
#define TALK 250000  /* so long after the last word nobody talks any more */
#define NOTICED 4096 /* less than these bytes are not seen in a trip */
#define LOOK 10000   /* lasts at least so long, and a fourth of the trip */
#define SAMPLES 4    /* and so many trips */
#define DIP 24
#define DIP_YOUNG 3
#define DIP_TRIP 2000
#define DOUBLING 4      /* growths until the window is doubled */
#define SLICES 16       /* in a window, at least, */
#define SLICE_TIME 2000 /* and one takes no longer than this */
#define LONG 5000       /* the trip of a long line: the milliseconds of poll(2) are a small part of it */
#define LATE 2000       /* who wakes up late may make up for so much of it */

/* How long a queue of ours may be. */
static int64_t
queue(const struct cc *p)
{
	int64_t us = p->trip / 2, least = p->calm ? QUEUE_CALM : QUEUE_LEAST;

	return us > QUEUE_MOST ? QUEUE_MOST : us < least ? least : us;
}

/* The window becomes ${bytes}: at once if that is less, else by what is acknowledged, so that no burst is sent. */
static void
move(struct cc *p, uint64_t bytes)
{
	bytes = bytes < WINDOW_LEAST ? WINDOW_LEAST : bytes > WINDOW_MOST ? WINDOW_MOST : bytes;
	p->goal = bytes;
	if (p->window > bytes || p->window == 0)
		p->window = bytes;
	p->settled = p->sent;
	p->samples = 0;
	p->used = false;
}

/* The window that would make a trip of ${trip}, where ${bytes} made one of ${made}. */
static uint64_t
window_for(uint64_t bytes, int64_t made, int64_t trip)
{
	return bytes * (uint64_t)trip / (uint64_t)made;
}

void
cc_init(struct cc *p, int64_t now)
{
	memset(p, 0, sizeof(*p));
	p->talked_at = now - TALK;
	p->growth = DOUBLING;
	move(p, WINDOW_FIRST);
}

void
cc_sent_small(struct cc *p, int64_t now)
{
	p->talked_at = now;
}

/* ${n} bytes more: when may the next ones follow? */
static void
spread(struct cc *p, size_t n, int64_t now)
{
	if (p->trip < LONG)
		return;
	if (p->next_at < now - LATE)
		p->next_at = now - LATE;
	p->next_at += (int64_t)(n * (uint64_t)p->trip * 2 / p->window / 3);
}

void
cc_sent(struct cc *p, size_t n, int64_t now)
{
	size_t last = (p->first + p->marks) % CC_MARKS;

	p->sent += n;
	spread(p, n, now);
	if (p->sent - p->acked > p->window - p->window / 4)
		p->used = true;
	if (p->marks == CC_MARKS) {
		p->mark[(last + CC_MARKS - 1) % CC_MARKS].end = p->sent; /* rather too long a trip than too short a one */
		return;
	}
	p->mark[last].end = p->sent;
	p->mark[last].at = now;
	p->marks++;
}

static void
grow(struct cc *p)
{
	uint64_t step = window_for(p->window, p->least, queue(p));

	if (step > p->window / 4)
		step = p->window / 4;
	if (step < p->window / 16)
		step = p->window / 16;
	step <<= p->growth;
	if (p->growth < DOUBLING)
		p->growth++;
	else
		p->looks = 0;
	move(p, p->window + (step < p->window ? step : p->window));
}

static void
lower(struct cc *p, int64_t trip)
{
	uint64_t bytes = window_for(p->window, p->least, trip), least;

	p->before = p->window;
	p->before_trip = p->least;
	least = window_for(p->window, p->least, 2 * p->tremble);
	if (least < NOTICED)
		least = NOTICED;
	if (bytes + least > p->window)
		bytes = least < p->window ? p->window - least : 0;
	move(p, bytes < p->window / 2 ? p->window / 2 : bytes);
	p->hoped = p->least * (int64_t)p->window / (int64_t)p->before;
}

static void
judge(struct cc *p)
{
	p->shorter = p->least + queue(p) / 2 < p->trip;

	if (p->least > (p->before_trip + p->hoped) / 2 || p->least < p->trip)
		p->trip = p->least;
	if (p->before_trip > p->trip + queue(p)) {
		p->growth = 0;
		p->before = window_for(p->before, p->before_trip, p->trip + queue(p));
	}
	move(p, p->before);
	p->before = 0;
}

static void
decide(struct cc *p, int64_t now)
{
	p->calm = now - p->talked_at >= TALK;
	p->tremble += ((p->sum / p->samples - p->least) - p->tremble) / 8;
	p->least += p->tremble < p->sum / p->samples - p->least ? p->tremble : p->sum / p->samples - p->least;
	if (p->before != 0) {
		judge(p);
		return;
	}
	if (p->least < p->trip)
		p->trip -= (p->trip - p->least) / 4;
	if (p->least > p->trip + queue(p) + queue(p) / 2 + p->tremble) {
		lower(p, p->trip + queue(p));
	} else if ((++p->looks >= (p->growth < DOUBLING ? DIP : DIP_YOUNG) || p->shorter) && p->used) {
		p->looks = 0;
		lower(p, p->trip - (p->shorter ? p->trip / 4 : p->trip / 8 < DIP_TRIP ? p->trip / 8 : DIP_TRIP));
		p->shorter = false;
	} else if (p->used && p->least < p->trip + queue(p) / 2) {
		grow(p);
	} else {
		move(p, p->window);
	}
}

static void
take_trip(struct cc *p, int64_t trip, int64_t now)
{
	trip = trip < 1 ? 1 : trip > TRIP_MOST ? TRIP_MOST : trip;
	p->trip_last = trip;
	if (p->trip == 0)
		p->trip = trip;
	if (p->window < p->goal || p->acked <= p->settled)
		return;
	if (p->samples++ == 0) {
		p->least = trip;
		p->look_at = now;
		p->sum = 0;
	}
	p->sum += trip;
	if (trip < p->least)
		p->least = trip;
	if (p->samples >= SAMPLES && now - p->look_at >= LOOK &&
	    now - p->look_at >= (p->growth < DOUBLING ? p->least : p->least / 4))
		decide(p, now);
}

bool
cc_acked(struct cc *p, uint64_t count, int64_t delay, int64_t now)
{
	uint64_t fresh = count - p->acked;

	if (count < p->acked || count > p->sent)
		return false;
	p->acked = count;
	if (p->window < p->goal) {
		p->window = p->goal - p->window < fresh ? p->goal : p->window + fresh;
		p->settled = p->sent;
	}
	while (p->marks > 0 && p->mark[p->first].end < count) {
		p->first = (p->first + 1) % CC_MARKS;
		p->marks--;
	}
	if (p->marks > 0 && fresh > 0)
		take_trip(p, now - p->mark[p->first].at - delay, now);
	return true;
}

size_t
cc_room(const struct cc *p, int64_t now)
{
	uint64_t flight = p->sent - p->acked;

	if (flight > 0 && now < p->next_at)
		return 0;
	return flight < p->window ? (size_t)(p->window - flight) : 0;
}

int64_t
cc_next(const struct cc *p, int64_t now)
{
	return p->sent - p->acked < p->window && now < p->next_at ? p->next_at : INT64_MAX;
}

bool
cc_is_over(const struct cc *p)
{
	return p->sent - p->acked >= p->window + p->window / 8 + 2048;
}

size_t
cc_slice(const struct cc *p)
{
	uint64_t slice = p->trip < SLICE_TIME * SLICES ? p->window / SLICES : window_for(p->window, p->trip, SLICE_TIME);

	if (slice < CC_SLICE_LEAST)
		return CC_SLICE_LEAST;
	return slice > CC_SLICE_MOST ? CC_SLICE_MOST : (size_t)slice;
}
