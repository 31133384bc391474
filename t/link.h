/* link.h - two muxes that are joined in memory */
#ifndef T_LINK_H
#define T_LINK_H
#include "mux/mux.h"
#include "t/check.h"
#include "t/mux/pull.h"

static struct mux *link_near, *link_far;
static bool link_held; /* link_cross moves nothing */

static inline size_t
link_cross_one(struct mux *from, struct mux *to, int64_t now)
{
	static unsigned char wire[1 << 17];
	size_t n = pull_into(from, wire, sizeof(wire), now);

	mux_feed(to, 0, wire, n, now);
	return n;
}

/* Move what both sides can send now.  Return false if that was nothing. */
static inline bool
link_cross(int64_t now)
{
	if (link_held || link_near == NULL)
		return false;
	mux_tick(link_near, now);
	mux_tick(link_far, now);
	return link_cross_one(link_near, link_far, now) + link_cross_one(link_far, link_near, now) >
	       0;
}

static inline void
link_start(uint32_t streams, int64_t now)
{
	link_held = false;
	link_near = mux_new(MUX_NEAR, MUX_MEMORY, "laptop", now);
	link_far = mux_new(MUX_FAR, MUX_MEMORY, "node", now);
	mux_limit_streams(link_near, streams);
	mux_limit_streams(link_far, streams);
}

static inline void
link_up(uint32_t streams, int64_t now)
{
	link_start(streams, now);
	while (link_cross(now))
		;
	ck_assert_int_eq(mux_state(link_near), MUX_UP);
	ck_assert_int_eq(mux_state(link_far), MUX_UP);
}

/* The channel ends for both sides. */
static inline void
link_cut(void)
{
	mux_lost(link_near, 0, MUX_RESET, "the line is cut");
	mux_lost(link_far, 0, MUX_RESET, "the line is cut");
}

static inline void
link_free(void)
{
	mux_free(link_near);
	mux_free(link_far);
	link_near = link_far = NULL;
}

static inline uint32_t
link_streams(void)
{
	struct mux_stats a, b;

	mux_stats(link_near, &a);
	mux_stats(link_far, &b);
	return a.streams + b.streams;
}

static inline uint64_t
link_reserved(void)
{
	struct mux_stats a, b;

	mux_stats(link_near, &a);
	mux_stats(link_far, &b);
	return a.reserved + b.reserved;
}

#endif
