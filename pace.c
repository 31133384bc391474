/*
 * pace.c - how many bytes may be in flight.
 *
 * Between two relays lie pipes, ssh's window and socket buffers, and a sender that fills them all makes every keystroke wait behind
 * megabytes. So the bytes in flight (sent, not yet acknowledged) are kept near what the line itself holds: its delivery rate times
 * its smallest round trip, plus QUEUE's worth so that it never runs dry (the model of BBR, draft-cardwell-ccwg-bbr, without its
 * pacing: acknowledgements come often enough to clock the sender).
 *
 *   rate   bytes acknowledged in a span of at least SPAN; the most of the last SPANS of them. A span in which the sender had
 *          nothing to send says little: it counts only if it was faster.
 *   trip   the smallest round trip; forgotten after TRIP_AGE, and measured anew while little is in flight.
 *   start  the window doubles every round trip until the rate grows no more, or the trip tells of a queue.
 *   probe  one span in PROBE the window is larger by a fourth, to find a rate that has become higher, then smaller.
 *
 * Times are microseconds.
 */
#include <string.h>

#include "relay.h"

#define WINDOW_FIRST 32768
#define WINDOW_LEAST 4096
#define WINDOW_MOST (64 * 1024 * 1024)
#define QUEUE 2000
#define SPAN 20000
#define PROBE 8
#define TRIP_AGE 10000000
#define STALLS 3 /* spans without growth that end the start */

void
pace_init(struct pace *p, int64_t now)
{
	memset(p, 0, sizeof(*p));
	p->starting = true;
	p->window = WINDOW_FIRST;
	p->span_at = now;
}

static void
remember(struct pace *p, int64_t now)
{
	size_t last = (p->first + p->marks) % PACE_MARKS;

	if (p->marks == PACE_MARKS)
		return; /* the round trip is known well enough without this one */
	p->mark[last].end = p->sent;
	p->mark[last].at = now;
	p->marks++;
}

void
pace_sent(struct pace *p, size_t n, int64_t now)
{
	if (p->sent == p->acked) {
		/* After a rest: what was not sent then says nothing of the line. */
		p->span_at = now;
		p->span_acked = p->acked;
	}
	p->sent += n;
	remember(p, now);
}

void
pace_idle(struct pace *p)
{
	if (p->sent - p->acked < p->window)
		p->idle = true;
}

static void
take_trip(struct pace *p, int64_t trip, int64_t now)
{
	if (trip < 1)
		trip = 1;
	p->trip_last = trip;
	if (p->trip == 0 || trip <= p->trip) {
		p->trip = trip;
		p->trip_at = now;
	}
	if (p->remeasures && (p->trip_anew == 0 || trip < p->trip_anew))
		p->trip_anew = trip;
}

/* While little is in flight, the trip is measured without the queue that we make ourselves. */
static void
measure_anew(struct pace *p, int64_t now)
{
	if (p->remeasures && p->trip_anew != 0) {
		p->trip = p->trip_anew;
		p->trip_at = now;
	}
	p->remeasures = !p->remeasures && now - p->trip_at > TRIP_AGE;
	p->trip_anew = 0;
}

static uint64_t
best_rate(const struct pace *p)
{
	uint64_t most = 0;
	size_t i;

	for (i = 0; i < PACE_SPANS; i++)
		if (p->rate[i] > most)
			most = p->rate[i];
	return most;
}

static void
look_at_start(struct pace *p, uint64_t rate)
{
	if (p->trip_last > p->trip + p->trip / 4 + 2 * QUEUE) {
		p->starting = false;
		return;
	}
	if (rate > p->full_rate + p->full_rate / 4) {
		p->full_rate = rate;
		p->stalls = 0;
	} else if (!p->idle && ++p->stalls >= STALLS) {
		p->starting = false;
	}
}

static void
set_window(struct pace *p)
{
	uint64_t rate = best_rate(p), bytes;
	int64_t span = p->trip + QUEUE;

	bytes = rate * (uint64_t)span / 1000000;
	if (p->remeasures)
		bytes /= 2;
	else if (p->turn == 0)
		bytes += bytes / 4;
	else if (p->turn == 1)
		bytes -= bytes / 4;
	if (bytes < WINDOW_LEAST)
		bytes = WINDOW_LEAST;
	p->window = bytes > WINDOW_MOST ? WINDOW_MOST : bytes;
}

static void
end_span(struct pace *p, int64_t now)
{
	uint64_t rate = (p->acked - p->span_acked) * 1000000 / (uint64_t)(now - p->span_at);

	if (p->starting)
		look_at_start(p, rate);
	if (!p->idle || rate > best_rate(p)) {
		p->rate[p->spans++ % PACE_SPANS] = rate;
		p->turn = (p->turn + 1) % PROBE;
	}
	p->span_at = now;
	p->span_acked = p->acked;
	p->idle = false;
	measure_anew(p, now);
}

bool
pace_acked(struct pace *p, uint64_t count, int64_t delay, int64_t now)
{
	int64_t at = -1, span;
	uint64_t fresh, flight = p->sent - p->acked;

	if (count < p->acked || count > p->sent)
		return false;
	while (p->marks > 0 && p->mark[p->first].end <= count) {
		at = p->mark[p->first].at;
		p->first = (p->first + 1) % PACE_MARKS;
		p->marks--;
	}
	fresh = count - p->acked;
	p->acked = count;
	if (at != -1)
		take_trip(p, now - at - delay, now);
	if (p->starting && flight * 2 > p->window && p->window < WINDOW_MOST)
		p->window += fresh; /* only what was used says that more may be (RFC 7661) */
	span = p->trip > SPAN ? p->trip : SPAN;
	if (now - p->span_at >= span)
		end_span(p, now);
	if (!p->starting)
		set_window(p);
	return true;
}

size_t
pace_room(const struct pace *p)
{
	uint64_t flight = p->sent - p->acked;

	return flight < p->window ? (size_t)(p->window - flight) : 0;
}

size_t
pace_slice(const struct pace *p)
{
	uint64_t slice = p->window / 8;

	if (slice < PACE_SLICE_LEAST)
		return PACE_SLICE_LEAST;
	return slice > PACE_SLICE_MOST ? PACE_SLICE_MOST : (size_t)slice;
}
