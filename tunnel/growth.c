/* tunnel/growth.c - decides how many channels carry a link. */
#include <string.h>

#include "tunnel/growth.h"

/* In us. */
#define RTT_LEAST 5000
#define LIMITED_FOR 2000000
#define GAP 1500000         /* a far side needs 1 s to report that bulk is limited again */
#define FAST_AFTER 1000000  /* the rate is that of the last second */
#define CHECK_AFTER 2000000 /* and CHECK_TRIPS round trips: cwnd of a new channel grows */
#define CHECK_TRIPS 20
#define MARK_EACH 250000
#define MARK_MOST 1000000 /* a longer interval contains a pause */
#define PAUSE 600000000
#define IDLE 60000000

/* Bytes per second from mark ${i} to the newest one; 0: not known. */
static uint64_t
rate(const struct growth *g, unsigned i)
{
	int64_t us = g->mark[0].at - g->mark[i].at;

	if (g->mark[i].at == 0 || us <= 0)
		return 0;
	return (g->mark[0].bytes - g->mark[i].bytes) * 1000000 / (uint64_t)us;
}

static void
mark(struct growth *g, const struct growth_facts *f, int64_t now)
{
	int64_t us = now - g->mark[0].at;

	if (us < MARK_EACH)
		return;
	if (us > MARK_MOST)
		memset(g->mark, 0, sizeof(g->mark));
	memmove(&g->mark[1], &g->mark[0], sizeof(g->mark) - sizeof(g->mark[0]));
	g->mark[0].at = now;
	g->mark[0].bytes = f->bytes;
}

/* An interruption shorter than GAP is ignored: a host may be busy. */
static void
watch_limit(struct growth *g, const struct growth_facts *f, int64_t now)
{
	if (f->limited_at != INT64_MAX) {
		if (g->limited_at == 0)
			g->limited_at = f->limited_at;
		if (f->up < g->up) /* a lost channel is not replaced at once */
			g->limited_at = now;
		g->needed_at = now;
	} else if (now - g->needed_at >= GAP) {
		g->limited_at = 0;
	}
	if (g->needed_at == 0)
		g->needed_at = now;
	g->up = f->up;
}

static unsigned
start(struct growth *g, const struct growth_facts *f)
{
	unsigned wanted = f->up * 2 < f->most ? f->up * 2 : f->most;

	g->state = GROWTH_STARTING;
	g->before = f->up;
	g->rate_before = rate(g, GROWTH_MARKS - 1);
	if (rate(g, GROWTH_MARKS / 2) > g->rate_before) /* the bulk has become faster */
		g->rate_before = rate(g, GROWTH_MARKS / 2);
	return wanted;
}

static unsigned
steady(struct growth *g, const struct growth_facts *f, int64_t now)
{
	unsigned n = f->up + f->starting;

	if (f->up > 1 && now - g->needed_at >= IDLE)
		return 1 + f->starting;
	if (n == 0 && now >= g->lone_until) { /* only channels that drain are left */
		g->lone_until = now + PAUSE;
		return 1;
	}
	if (f->limited_at == INT64_MAX || now - g->limited_at < LIMITED_FOR ||
	    now < g->pause_until || f->rtt_us < RTT_LEAST || f->up == 0 || f->up >= f->most ||
	    rate(g, GROWTH_MARKS - 1) == 0)
		return n;
	return start(g, f);
}

static unsigned
give_up(struct growth *g, const struct growth_facts *f, int64_t now)
{
	g->state = GROWTH_STEADY;
	g->pause_until = now + PAUSE;
	return f->up < g->before ? f->up : g->before;
}

static unsigned
starting(struct growth *g, const struct growth_facts *f, int64_t now)
{
	if (f->starting > 0)
		return f->up + f->starting;
	if (f->up <= g->before)
		return give_up(g, f, now);
	g->state = GROWTH_CHECKING;
	g->after = f->up;
	g->fast_at = now + FAST_AFTER;
	g->check_at = now + CHECK_AFTER + CHECK_TRIPS * f->rtt_us;
	return f->up;
}

static bool
is_faster(const struct growth *g, int64_t now)
{
	return now >= g->fast_at && rate(g, GROWTH_MARKS / 2) >= g->rate_before / 5 * 6;
}

/*
 * If the bulk has ended, or if a channel was lost, the check has no result, and
 * the channels stay.
 */
static unsigned
checking(struct growth *g, const struct growth_facts *f, int64_t now)
{
	bool flows = rate(g, GROWTH_MARKS / 2) >= g->rate_before / 2;
	bool valid = (g->limited_at != 0 || flows) && f->up >= g->after;

	if (valid && !is_faster(g, now))
		return now < g->check_at ? f->up : give_up(g, f, now);
	g->state = GROWTH_STEADY;
	return f->up;
}

unsigned
growth_step(struct growth *g, const struct growth_facts *f, int64_t now)
{
	mark(g, f, now);
	watch_limit(g, f, now);
	if (g->state == GROWTH_STARTING)
		return starting(g, f, now);
	if (g->state == GROWTH_CHECKING)
		return checking(g, f, now);
	return steady(g, f, now);
}

int64_t
growth_deadline(const struct growth *g)
{
	if (g->state == GROWTH_CHECKING)
		return g->check_at;
	return g->up > 1 ? g->needed_at + IDLE : INT64_MAX;
}

void
growth_reset(struct growth *g)
{
	memset(g, 0, sizeof(*g));
}
