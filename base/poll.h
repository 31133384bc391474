/*
 * base/poll.h - the poll set of one turn, active and idle watches.
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
	int64_t now;    /* the clock, read once a turn */
	int64_t now_us; /* the same in microseconds */
	int64_t deadline;
};

/*
 * pollset_clock(), pollset_clock_us(): milliseconds and microseconds of
 * CLOCK_MONOTONIC.
 * pollset_begin(ps): make ${ps}, which may be all zeros, empty for a new turn.
 * pollset_add(ps, fd, events): watch ${fd} in this turn; return its slot, or -1
 * if ${fd} is -1 or there is no memory (then the turn ends soon).
 * pollset_until(ps, when): wait no longer than until ${when}.
 * pollset_wait(ps): wait; -1: poll failed, and would fail again.
 * pollset_ready(ps, slot): the events of a slot; 0 for -1.
 */
int64_t pollset_clock(void);
int64_t pollset_clock_us(void);
void pollset_begin(struct pollset *ps);
int pollset_add(struct pollset *ps, int fd, short events);
void pollset_until(struct pollset *ps, int64_t when);
int pollset_wait(struct pollset *ps);
short pollset_ready(const struct pollset *ps, int slot);
void pollset_free(struct pollset *ps);

/* The first member of whatever is polled. */
struct watch {
	struct watch *prev, *next;
	int64_t event_at; /* its last event */
	bool idle;
};

struct watch_list {
	struct watch *first, *last;
	size_t n;
};

struct watches {
	struct watch_list active;
	struct watch_list idle; /* the first one was not polled for longest */
	int64_t event_at;       /* the last event of any watch */
	int64_t slice_due_us;   /* when some idle watches are to be polled */
	int64_t slice_began_us; /* when this turn's slice began; 0: it has none */
};

/*
 * A struct watches of zeros is empty.
 * watch_add(ws, w, now): add ${w}, active.
 * watch_remove(ws, w): remove ${w}.
 * watch_turn(ws, ps): make those active that this turn polls, and limit the
 * wait of ${ps}.
 * watch_event(ws, w, now): ${w} had an event, and is active.
 * watch_to_back(ws, w): make ${w}, active, the last active one.
 * watch_to_idle(ws, w, now): make ${w}, active, idle unless it had an event
 * recently; return true if it did become idle.  ${w} must not wait for a time.
 * watch_wake_all(ws): make all active.
 * watch_next(ws, w): the watch after ${w}, or the first one if ${w} is NULL:
 * the active ones, then the idle ones; NULL: there are no more.
 */
void watch_add(struct watches *ws, struct watch *w, int64_t now);
void watch_remove(struct watches *ws, struct watch *w);
void watch_turn(struct watches *ws, struct pollset *ps);
void watch_event(struct watches *ws, struct watch *w, int64_t now);
void watch_to_back(struct watches *ws, struct watch *w);
bool watch_to_idle(struct watches *ws, struct watch *w, int64_t now);
void watch_wake_all(struct watches *ws);
struct watch *watch_next(const struct watches *ws, const struct watch *w);

#endif
