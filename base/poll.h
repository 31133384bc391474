/*
 * base/poll.h - the poll set of one turn; active and idle watches.
 *
 * Each turn of the loop starts with an empty poll set.  Code that waits adds
 * its descriptors and deadlines.  After the poll, the same code reads the
 * results.  poll.c describes which watches a turn polls.
 */
#ifndef BASE_POLL_H
#define BASE_POLL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pollfd;

struct pollset {
	struct pollfd *fds;
	size_t n, size;
	int64_t now;      /* the clock, read once in a turn */
	int64_t deadline; /* of this turn; INT64_MAX: none */
};

/* pollset_clock(): Return the time of CLOCK_MONOTONIC in microseconds. */
int64_t pollset_clock(void);

/* pollset_begin(ps): Make ${ps}, which may be zeros, empty for a new turn. */
void pollset_begin(struct pollset *ps);

/*
 * pollset_add(ps, fd, events):
 * Watch ${fd} in this turn for ${events} of poll(2); 0: for POLLERR and POLLHUP
 * alone.  macOS reports a received EOF as POLLHUP too.  Return its slot, which
 * is valid in this turn, or -1 if ${fd} is -1.  If there is no memory, return
 * -1 and limit the wait of this turn to 100 ms.
 */
int pollset_add(struct pollset *ps, int fd, short events);

/* pollset_until(ps, when): Wait no longer than until ${when}. */
void pollset_until(struct pollset *ps, int64_t when);

/*
 * pollset_wait(ps):
 * Wait for the first event, signal or deadline.  No other function here blocks.
 * Return -1 with errno set if poll(2) failed and would fail again.
 */
int pollset_wait(struct pollset *ps);

/* pollset_ready(ps, slot): Return the events of ${slot}; slot -1 has none. */
short pollset_ready(const struct pollset *ps, int slot);

/* The first member of a struct that is polled, such as struct conn. */
struct watch {
	struct watch *prev, *next;
	int64_t event_at; /* of its last event */
	bool idle;
};

struct watch_list {
	struct watch *first, *last;
	size_t n;
};

/* Zeros: no watches. */
struct watches {
	struct watch_list active;
	struct watch_list idle; /* in the order of the last poll, oldest first */
	int64_t event_at;       /* of the last event of any watch */
	int64_t slice_due_at;   /* time of the next slice */
	int64_t slice_began_at; /* start of this turn's slice; 0: it has none */
};

/*
 * watch_add(ws, w, now), watch_remove(ws, w):
 * Add ${w} as an active watch; remove it.  ${w} must be valid between the two.
 */
void watch_add(struct watches *ws, struct watch *w, int64_t now);
void watch_remove(struct watches *ws, struct watch *w);

/*
 * watch_turn(ws, ps):
 * Choose the idle watches that this turn polls, make them active, and limit the
 * wait of ${ps}.
 */
void watch_turn(struct watches *ws, struct pollset *ps);

/* watch_event(ws, w, now): ${w} has an event: make it active. */
void watch_event(struct watches *ws, struct watch *w, int64_t now);

/* watch_to_back(ws, w): Make the active watch ${w} the last active one. */
void watch_to_back(struct watches *ws, struct watch *w);

/*
 * watch_to_idle(ws, w, now):
 * Make the active watch ${w} idle, unless it had an event recently.  Return
 * true if it is idle now.  ${w} must not have a deadline.
 */
bool watch_to_idle(struct watches *ws, struct watch *w, int64_t now);

/* watch_wake_all(ws): Make all watches active. */
void watch_wake_all(struct watches *ws);

/*
 * watch_next(ws, w):
 * Return the watch after ${w}, or the first one if ${w} is NULL.  All active
 * ones come before the idle ones.  NULL: ${w} was the last one.
 */
struct watch *watch_next(const struct watches *ws, const struct watch *w);

#endif
