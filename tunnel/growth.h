/*
 * tunnel/growth.h - decides how many channels carry a link.
 *
 * An ssh session carries 2 MiB per round trip at most, so bulk on a long line
 * needs several.
 *
 *   steady --bulk is limited for 2 s--> starting --> checking --> steady
 *
 * A try doubles the number of channels.  An eighth channel after seven would
 * add 14 % at most, too little to be measured.  The new channels are kept if
 * the rate increases by 20 % within 2 s and 20 round trips.  If it does not, or
 * if no channel came up, the next try is 10 minutes later.  After a minute
 * without limited bulk, one channel remains.
 *
 * No function reads a clock or makes a system call.  Times are microseconds.
 */
#ifndef TUNNEL_GROWTH_H
#define TUNNEL_GROWTH_H

#include <stdbool.h>
#include <stdint.h>

#define GROWTH_MARKS 9

enum growth_state { GROWTH_STEADY, GROWTH_STARTING, GROWTH_CHECKING };

/* All zeros at first. */
struct growth {
	enum growth_state state;
	unsigned up;          /* channels, in the last step */
	unsigned before;      /* channels before this try */
	unsigned after;       /* GROWTH_CHECKING: channels of this try */
	uint64_t rate_before; /* bytes per second */
	int64_t fast_at;      /* GROWTH_CHECKING: the rate is compared after this time */
	int64_t check_at;     /* GROWTH_CHECKING: its end */
	int64_t pause_until;  /* no try before this time */
	int64_t lone_until;   /* no start without a channel before this time */
	int64_t needed_at;    /* when bulk was limited last */
	int64_t limited_at;   /* bulk is limited since then, with short pauses; 0: it is not */
	struct {
		int64_t at;
		uint64_t bytes;
	} mark[GROWTH_MARKS]; /* the newest one first; at 0: none */
};

struct growth_facts {
	unsigned up, starting; /* channels */
	unsigned most;         /* channels, at most */
	uint64_t bytes;        /* sent and received on all channels */
	int64_t rtt_us;        /* 0: not known */
	int64_t limited_at;    /* see mux_limited_at */
};

/*
 * growth_step(g, f, now): return how many channels the link should have.
 * growth_deadline(g): when growth_step is due at the latest.
 * growth_reset(g): the link starts again, with one channel.  Its line can be
 * another one, so the last failure does not count.
 */
unsigned growth_step(struct growth *g, const struct growth_facts *f, int64_t now);
int64_t growth_deadline(const struct growth *g);
void growth_reset(struct growth *g);

#endif
