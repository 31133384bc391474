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
 *   trip   the smallest round trip, and how much more the others are (tremble) though no queue is there; measured anew, with little in flight, when it is TRIP_AGE old, or when even the smallest of a
 *          span, LONGER times running, is more than our own bytes can explain.
 *   start  the window doubles every round trip until the rate grows no more; then the queue that it made is let go, and the trip
 *          measured.
 *   probe  one span in PROBE the window is a little larger, to find a rate that has become higher: while it finds one it goes on,
 *          by twice as much each span. The span after a probe lets the queue go.
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
#define LONGER 3 /* spans that show a longer line */
#define PROBE_QUEUE 4000
#define GROWTH_MOST 6
#define TRIPS 8      /* that make a measurement */
#define REST 1000000 /* between two measurements of the trip */

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
	if (p->trip_span == 0 || trip < p->trip_span)
		p->trip_span = trip;
	if (!p->measures || !p->drained)
		return;
	if (p->trip_anew == 0 || trip < p->trip_anew)
		p->trip_anew = trip;
	p->trip_sum += trip;
	p->trips++;
}

static void
begin_measuring(struct pace *p)
{
	p->measures = true;
	p->drained = false;
	p->longer = 0;
}

/* The window is least now: what is sent once the queue has gone shows the trip without it, and how much it trembles. */
static void
measure_anew(struct pace *p, int64_t now)
{
	if (!p->drained && p->sent - p->acked <= WINDOW_LEAST) {
		p->drained = true;
		p->drained_end = p->sent;
		p->measured_at = now;
		p->trip_anew = p->trip_sum = p->trips = 0;
		return;
	}
	if (!p->drained || p->acked <= p->drained_end || p->trips == 0)
		return;
	if (p->trips < TRIPS && now - p->measured_at < 2 * p->trip + SPAN)
		return;
	p->trip = p->trip_anew;
	p->tremble = p->trip_sum / p->trips - p->trip;
	p->trip_at = p->measured_at = now;
	p->measures = false;
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
	bool queue = p->trip_last > p->trip + p->trip / 4 + 2 * QUEUE;

	if (rate > p->full_rate + p->full_rate / 4) {
		p->full_rate = rate;
		p->stalls = 0;
	} else if (!p->idle) {
		p->stalls++;
	}
	if (p->stalls < STALLS && !(queue && p->stalls > 0))
		return;
	p->starting = false;
	begin_measuring(p);
}

/*
 * In flight is at most the window: a trip that is longer than the line takes to carry that is not of our making, unless the line
 * has become slower. Which of both only a new measurement can tell.
 */
static void
look_at_trip(struct pace *p, int64_t now)
{
	uint64_t rate = best_rate(p);
	int64_t ours = rate == 0 ? INT64_MAX : (int64_t)(p->window * 1000000 / rate) + p->tremble + 2 * QUEUE;

	p->longer = !p->idle && p->trip_span > ours && p->trip_span > p->trip ? p->longer + 1 : 0;
	p->trip_span = 0;
	if ((p->longer >= LONGER && now - p->measured_at > REST + 20 * p->trip) || now - p->trip_at > TRIP_AGE)
		begin_measuring(p);
}

/* How much the window is moved by a probe: what makes a queue that is hardly felt, and twice as much each time that it pays. */
static uint64_t
step(const struct pace *p, uint64_t rate, uint64_t bytes)
{
	uint64_t little = (rate * PROBE_QUEUE / 1000000) << p->growth;

	return little > bytes / 4 ? bytes / 4 : little;
}

/* ${fresh} bytes have left the line: the window never grows faster, or it would send a burst. */
static void
set_window(struct pace *p, uint64_t fresh)
{
	uint64_t rate = best_rate(p), bytes;

	bytes = rate * (uint64_t)(p->trip + p->tremble + QUEUE) / 1000000;
	if (p->measures)
		bytes = 0;
	else if (p->turn == 0)
		bytes += step(p, rate, bytes);
	else if (p->turn == 1)
		bytes -= step(p, rate, bytes);
	if (bytes > p->window + fresh)
		bytes = p->window + fresh;
	if (bytes > WINDOW_MOST)
		bytes = WINDOW_MOST;
	p->window = bytes < WINDOW_LEAST ? WINDOW_LEAST : bytes;
}

static void
end_span(struct pace *p, int64_t now)
{
	uint64_t rate = (p->acked - p->span_acked) * 1000000 / (uint64_t)(now - p->span_at), best = best_rate(p);

	if (p->starting)
		look_at_start(p, rate);
	if (!p->measures && (!p->idle || rate > best)) {
		if (p->turn == 0 && rate > best + best / 32) {
			p->growth += p->growth < GROWTH_MOST;
		} else {
			p->growth = 0;
			p->turn = (p->turn + 1) % PROBE;
		}
		p->rate[p->spans++ % PACE_SPANS] = rate;
	}
	if (!p->measures && !p->starting)
		look_at_trip(p, now);
	p->span_at = now;
	p->span_acked = p->acked;
	p->idle = false;
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
	if (p->measures)
		measure_anew(p, now);
	if (p->starting && flight * 2 > p->window && p->window < WINDOW_MOST)
		p->window += fresh; /* only what was used says that more may be (RFC 7661) */
	span = p->trip > SPAN ? p->trip : SPAN;
	if (now - p->span_at >= span)
		end_span(p, now);
	if (!p->starting)
		set_window(p, fresh);
	return true;
}

size_t
pace_room(const struct pace *p)
{
	uint64_t flight = p->sent - p->acked;

	return flight < p->window ? (size_t)(p->window - flight) : 0;
}

bool
pace_over(const struct pace *p)
{
	return p->sent - p->acked >= p->window + p->window / 8 + 2048;
}

size_t
pace_slice(const struct pace *p)
{
	uint64_t slice = p->window / 8;

	if (slice < PACE_SLICE_LEAST)
		return PACE_SLICE_LEAST;
	return slice > PACE_SLICE_MOST ? PACE_SLICE_MOST : (size_t)slice;
}
