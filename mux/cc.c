/*
 * mux/cc.c - congestion control: how many link bytes may be in flight.
 *
 * Between two relays are pipes, ssh's channel window and socket buffers.  A
 * sender that fills them makes every keystroke wait behind megabytes.  So the
 * bytes in flight are kept near what the line itself holds, plus a short
 * queue, so that the line never idles.  That queue is half a round trip,
 * within QUEUE_MIN and QUEUE_MAX.  On a short line, QUEUE_MIN is too little:
 * the processes in between should find more than one packet when they wake
 * up.  There the queue is QUEUE_BULK while no small pieces are sent.
 *
 * ACKs clock the sender: the rate is always cwnd / RTT, so it carries no
 * information.  A round trip that exceeds the smallest one has one of two
 * causes: our own queue, or a line that has become longer, has jitter or
 * carries other traffic.  A smaller cwnd distinguishes them: it shortens our
 * queue, and not the round trip of the line.
 *
 * cwnd changes once a round.  A round begins when all that was sent under
 * another cwnd is acknowledged.  Its result is the smallest round trip of the
 * next few samples.  It ends with one of these:
 *
 *   increase     The round trip is that of the line: there may be more room.
 *                The step doubles with each increase in sequence, until cwnd
 *                doubles.  A cwnd that did not limit the sender stays.
 *   decrease     The round trip exceeds that of the line and the queue.  cwnd
 *                shrinks by what removes the excess, by half at most.
 *   probe_rtt    Every PROBE_EVERY rounds, a cwnd slightly below what the line
 *                holds, to measure the round trip without our queue.  While
 *                increases double cwnd, after PROBE_FIRST rounds without an
 *                increase.
 *   check_probe  The round after a decrease or a probe.  If the round trip
 *                fell with cwnd, there was a queue.  If not, the line itself
 *                has become longer.  The right cwnd is computed from that.
 *
 * Several channels can share a line.  If one of them alone sends less, the
 * queue of the others stays, and looks like a longer line.  So all decrease at
 * the same time, in proportion (cc_follow), and each checks its own round
 * trip.
 *
 * On a long line, sends are paced at 1.5 cwnd per round trip.  ssh makes one
 * packet of the bytes that it reads at once, and delivers only whole packets.
 * A whole cwnd at once would lengthen the round trip by its transmission time,
 * like a queue, although the line idles between two bursts.
 *
 * Times are microseconds.
 */
#include <string.h>

#include "mux/cc.h"

#define CWND_INITIAL 32768
#define CWND_MIN 4096
#define CWND_MAX (64 * 1024 * 1024)
#define RTT_MAX 60000000
#define QUEUE_MAX 2000
#define QUEUE_BULK 2000
#define QUEUE_MIN 250
#define SMALL_SPAN 250000 /* more small pieces are expected for so long */
#define STEP_MIN 4096     /* a smaller change of cwnd does not show in the RTT */
#define ROUND_MIN 10000
#define SAMPLES_MIN 4    /* in a round */
#define PROBE_EVERY 24   /* rounds */
#define PROBE_FIRST 3    /* the same, while each increase doubles cwnd */
#define PROBE_DEPTH 2000 /* a probe lowers the RTT by an eighth, or by this */
#define DOUBLING 4       /* increases in sequence until cwnd doubles */
#define SLICES 16        /* in a cwnd, at least */
#define SLICE_TIME 2000  /* a slice takes no longer on the line */
#define LONG_RTT 5000    /* pacing needs more than the milliseconds of poll(2) */
#define CATCH_UP 2000    /* after a late wakeup, send for so much lost time */

/* How long our own queue may be. */
static int64_t
queue_limit(const struct cc *c)
{
	int64_t us = c->rtt / 2, least = c->bulk_only ? QUEUE_BULK : QUEUE_MIN;

	return us > QUEUE_MAX ? QUEUE_MAX : us < least ? least : us;
}

/* cwnd grows with each ACK: to enlarge it at once would cause a burst. */
static void
set_cwnd(struct cc *c, uint64_t bytes)
{
	bytes = bytes < CWND_MIN ? CWND_MIN : bytes > CWND_MAX ? CWND_MAX : bytes;
	if (bytes != c->cwnd_goal)
		c->round_rtt = 0;
	c->cwnd_goal = bytes;
	if (c->cwnd > bytes || c->cwnd == 0)
		c->cwnd = bytes;
	c->round_start = c->sent;
	c->samples = 0;
	c->most = c->sent - c->acked;
}

/* In this round, did cwnd limit the sender? */
static bool
is_used(const struct cc *c)
{
	return c->most > c->cwnd - c->cwnd / 4;
}

/*
 * The channel can be full before cwnd is.  A smaller cwnd shortens our queue
 * only if it is less than what is in flight.
 */
static void
fit_cwnd(struct cc *c)
{
	if (c->most < c->cwnd && c->most >= c->cwnd / 4 && c->most >= CWND_MIN)
		c->cwnd = c->most;
}

/* ${bytes} in flight gave the round trip ${made}.  Return those for ${rtt}. */
static uint64_t
cwnd_for(uint64_t bytes, int64_t made, int64_t rtt)
{
	return bytes * (uint64_t)rtt / (uint64_t)made;
}

void
cc_init(struct cc *c, int64_t now)
{
	memset(c, 0, sizeof(*c));
	c->small_at = now - SMALL_SPAN;
	c->increases = DOUBLING;
	set_cwnd(c, CWND_INITIAL);
}

void
cc_restart(struct cc *c, uint64_t acked, int64_t rtt, int64_t now)
{
	uint64_t sent = c->sent;

	cc_init(c, now);
	c->rtt = rtt;
	c->sent = c->round_start = sent;
	c->acked = acked;
}

void
cc_sent_small(struct cc *c, int64_t now)
{
	c->small_at = now;
}

/* ${n} bytes are sent: compute when more may be sent. */
static void
pace(struct cc *c, size_t n, int64_t now)
{
	if (c->rtt < LONG_RTT)
		return;
	if (c->next_send_at < now - CATCH_UP)
		c->next_send_at = now - CATCH_UP;
	c->next_send_at += (int64_t)(n * (uint64_t)c->rtt * 2 / c->cwnd / 3);
}

void
cc_sent(struct cc *c, size_t n, int64_t now)
{
	size_t last = (c->first + c->marks) % CC_MARKS;

	c->sent += n;
	pace(c, n, now);
	if (c->sent - c->acked > c->most)
		c->most = c->sent - c->acked;
	if (c->marks == CC_MARKS) {
		/* A sample that is too long harms less than a short one. */
		c->mark[(last + CC_MARKS - 1) % CC_MARKS].end = c->sent;
		return;
	}
	c->mark[last].end = c->sent;
	c->mark[last].at = now;
	c->marks++;
}

static void
increase(struct cc *c)
{
	uint64_t step = cwnd_for(c->cwnd, c->round_rtt, queue_limit(c));

	if (step > c->cwnd / 4)
		step = c->cwnd / 4;
	if (step < c->cwnd / 16)
		step = c->cwnd / 16;
	step <<= c->increases;
	if (c->increases < DOUBLING)
		c->increases++;
	else
		c->rounds = 0;
	set_cwnd(c, c->cwnd + (step < c->cwnd ? step : c->cwnd));
}

static void
decrease(struct cc *c, int64_t rtt)
{
	uint64_t bytes, least;

	fit_cwnd(c);
	bytes = cwnd_for(c->cwnd, c->round_rtt, rtt);
	c->cwnd_before = c->cwnd;
	c->rtt_before = c->round_rtt;
	least = cwnd_for(c->cwnd, c->round_rtt, 2 * c->rtt_var);
	if (least < STEP_MIN)
		least = STEP_MIN;
	if (bytes + least > c->cwnd)
		bytes = least < c->cwnd ? c->cwnd - least : 0;
	set_cwnd(c, bytes < c->cwnd / 2 ? c->cwnd / 2 : bytes);
	c->decreased = true;
}

bool
cc_decreased(struct cc *c)
{
	bool decreased = c->decreased;

	c->decreased = false;
	return decreased;
}

/* The round trip with the present cwnd may not be measured yet: no check then. */
void
cc_follow(struct cc *c, const struct cc *other)
{
	if (c->cwnd_before != 0 || c->sent == c->acked)
		return;
	if (c->round_rtt != 0) {
		fit_cwnd(c);
		c->cwnd_before = c->cwnd;
		c->rtt_before = c->round_rtt;
	}
	set_cwnd(c, cwnd_for(c->cwnd, (int64_t)other->cwnd_before, (int64_t)other->cwnd));
	c->rounds = 0;
}

static void
check_probe(struct cc *c)
{
	/* If our queue was the cause of the excess. */
	int64_t expected = c->rtt_before * (int64_t)c->cwnd / (int64_t)c->cwnd_before;

	c->rtt_fell = c->round_rtt + queue_limit(c) / 2 < c->rtt;
	if (c->round_rtt > (c->rtt_before + expected) / 2 || c->round_rtt < c->rtt)
		c->rtt = c->round_rtt;
	if (c->rtt_before > c->rtt + queue_limit(c)) {
		c->increases = 0;
		c->cwnd_before = cwnd_for(c->cwnd_before, c->rtt_before, c->rtt + queue_limit(c));
	}
	set_cwnd(c, c->cwnd_before);
	c->cwnd_before = 0;
}

/* A probe that follows the discovery of a shorter line is deeper. */
static void
probe_rtt(struct cc *c)
{
	int64_t depth = c->rtt / 8 < PROBE_DEPTH ? c->rtt / 8 : PROBE_DEPTH;

	if (c->rtt_fell)
		depth = c->rtt / 4;
	c->rounds = 0;
	c->rtt_fell = false;
	decrease(c, c->rtt - depth);
}

static bool
probe_is_due(const struct cc *c)
{
	unsigned every = c->increases < DOUBLING ? PROBE_EVERY : PROBE_FIRST;

	return is_used(c) && (c->rounds >= every || c->rtt_fell);
}

/*
 * With jitter, the smallest of a few samples is random: use the mean as well.
 */
static void
smooth_rtt(struct cc *c)
{
	int64_t excess = c->sample_sum / c->samples - c->round_rtt;

	c->rtt_var += (excess - c->rtt_var) / 8;
	c->round_rtt += c->rtt_var < excess ? c->rtt_var : excess;
}

static void
end_round(struct cc *c, int64_t now)
{
	int64_t limit;

	c->bulk_only = now - c->small_at >= SMALL_SPAN;
	smooth_rtt(c);
	if (c->cwnd_before != 0) {
		check_probe(c);
		return;
	}
	if (c->round_rtt < c->rtt)
		c->rtt -= (c->rtt - c->round_rtt) / 4;
	limit = queue_limit(c);
	if (c->round_rtt > c->rtt + limit + limit / 2 + c->rtt_var && c->most >= c->cwnd / 4) {
		decrease(c, c->rtt + limit);
		return;
	}
	c->rounds++;
	if (probe_is_due(c))
		probe_rtt(c);
	else if (is_used(c) && c->round_rtt < c->rtt + limit / 2)
		increase(c);
	else
		set_cwnd(c, c->cwnd);
}

/* While each increase doubles cwnd, a quarter of a round trip is enough. */
static bool
round_is_over(const struct cc *c, int64_t now)
{
	int64_t span = c->increases < DOUBLING ? c->round_rtt : c->round_rtt / 4;

	if (span < ROUND_MIN)
		span = ROUND_MIN;
	return c->samples >= SAMPLES_MIN && now - c->round_at >= span;
}

static void
sample_rtt(struct cc *c, int64_t rtt, int64_t now)
{
	rtt = rtt < 1 ? 1 : rtt > RTT_MAX ? RTT_MAX : rtt;
	if (c->rtt == 0)
		c->rtt = rtt;
	if (c->cwnd < c->cwnd_goal || c->acked <= c->round_start)
		return;
	if (c->samples++ == 0) {
		c->round_rtt = rtt;
		c->round_at = now;
		c->sample_sum = 0;
	}
	c->sample_sum += rtt;
	if (rtt < c->round_rtt)
		c->round_rtt = rtt;
	if (round_is_over(c, now))
		end_round(c, now);
}

bool
cc_acked(struct cc *c, uint64_t count, int64_t delay, int64_t now)
{
	uint64_t n = count - c->acked;

	if (count < c->acked || count > c->sent)
		return false;
	c->acked = count;
	if (c->cwnd < c->cwnd_goal) {
		c->cwnd = c->cwnd_goal - c->cwnd < n ? c->cwnd_goal : c->cwnd + n;
		c->round_start = c->sent;
		c->most = c->sent - c->acked;
	}
	while (c->marks > 0 && c->mark[c->first].end < count) {
		c->first = (c->first + 1) % CC_MARKS;
		c->marks--;
	}
	if (c->marks > 0 && n > 0)
		sample_rtt(c, now - c->mark[c->first].at - delay, now);
	return true;
}

size_t
cc_room(const struct cc *c, int64_t now)
{
	uint64_t flight = c->sent - c->acked;

	if (flight > 0 && now < c->next_send_at)
		return 0;
	return flight < c->cwnd ? (size_t)(c->cwnd - flight) : 0;
}

int64_t
cc_next(const struct cc *c, int64_t now)
{
	return c->sent - c->acked < c->cwnd && now < c->next_send_at ? c->next_send_at : INT64_MAX;
}

bool
cc_is_over(const struct cc *c)
{
	return c->sent - c->acked >= c->cwnd + c->cwnd / 8 + 2048;
}

size_t
cc_slice(const struct cc *c)
{
	uint64_t slice = c->cwnd / SLICES;

	if (c->rtt >= SLICE_TIME * SLICES)
		slice = cwnd_for(c->cwnd, c->rtt, SLICE_TIME);
	if (slice < CC_SLICE_LEAST)
		return CC_SLICE_LEAST;
	return slice > CC_SLICE_MOST ? CC_SLICE_MOST : (size_t)slice;
}
