/*
 * base/poll.c - the poll set of one turn; active and idle watches.
 *
 * poll(2) takes 0.1 us per descriptor if it does not wait, 0.3 us if it does.
 * Both times triple if the descriptors do not fit the CPU's cache.  With ten
 * thousand idle connections in every poll, each turn would take 10 ms or more.
 * Each connection therefore is a watch.  An active watch had an event recently,
 * or has a deadline.  The others are idle.  Each turn is one of
 *
 *   all      no watch had an event recently, or at most FEW are idle: all
 *            watches, and poll waits
 *   slice    a slice is due: the active watches, and the SLICE idle ones that
 *            were not polled for the longest time; poll does not wait
 *   active   the active watches; poll waits for at most WAIT
 *
 * A slice is due SLICE_EVERY after the one before.  Slices that become due
 * while poll waits follow each other without a wait.  If the turn of a slice
 * took long, the next slice is due SHARE times as long after the start of that
 * turn, so that slices take at most a third of the time.
 *
 * While other watches are active, the events of idle watches wait for a slice:
 * at most WAIT, plus SLICE_EVERY per SLICE idle watches.  This is 9 ms with
 * 1,000 idle watches, and 45 ms with 10,000.
 *
 * "Recently" means within RECENT plus the time of the slices that cover all
 * idle watches.  A turn of all costs about as much as those slices.  So if the
 * events of a watch are just too far apart to be recent, the cost at most
 * doubles.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>

#include "base/poll.h"

#define RETRY 100000 /* us, after a turn that could not watch all */

#define FEW 8            /* idle watches that every turn polls */
#define RECENT 10000     /* us */
#define SLICE 256        /* watches */
#define SLICE_EVERY 1000 /* us */
#define SHARE 3
#define WAIT 5000 /* us; a shorter wait sets a hardware timer each turn: 5 us */

/* ---- the poll set of one turn ---- */

int64_t
pollset_clock(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

void
pollset_begin(struct pollset *ps)
{
	ps->n = 0;
	ps->deadline = INT64_MAX;
	ps->now = pollset_clock();
}

int
pollset_add(struct pollset *ps, int fd, short events)
{
	struct pollfd *more;
	size_t size;

	if (fd == -1)
		return -1;
	if (ps->n == ps->size) {
		size = ps->size == 0 ? 64 : ps->size * 2;
		more = realloc(ps->fds, size * sizeof(*more));
		if (more == NULL) {
			pollset_until(ps, ps->now + RETRY);
			return -1;
		}
		ps->fds = more;
		ps->size = size;
	}
	/* macOS does not watch a descriptor without events. */
	if (events == 0)
		events = POLLHUP;
	ps->fds[ps->n] = (struct pollfd){ .fd = fd, .events = events };
	return (int)ps->n++;
}

void
pollset_until(struct pollset *ps, int64_t when)
{
	if (when < ps->deadline)
		ps->deadline = when;
}

/* In ms, rounded up: poll must not return before the deadline. */
static int
timeout(const struct pollset *ps)
{
	int64_t ms;

	if (ps->deadline == INT64_MAX)
		return -1;
	if (ps->deadline <= ps->now)
		return 0;
	ms = (ps->deadline - ps->now - 1) / 1000 + 1;
	return ms > INT_MAX ? INT_MAX : (int)ms;
}

int
pollset_wait(struct pollset *ps)
{
	size_t i;
	int n;

	n = poll(ps->fds, (nfds_t)ps->n, timeout(ps));
	if (n == -1) {
		for (i = 0; i < ps->n; i++)
			ps->fds[i].revents = 0;
		/*
		 * These errors are temporary (POSIX).  Without a pause, the
		 * loop would use all CPU time.
		 */
		if (errno == ENOMEM || errno == EAGAIN)
			poll(NULL, 0, RETRY / 1000);
		else if (errno != EINTR)
			return -1;
	}
	ps->now = pollset_clock();
	return 0;
}

short
pollset_ready(const struct pollset *ps, int slot)
{
	return slot < 0 || (size_t)slot >= ps->n ? (short)0 : ps->fds[slot].revents;
}

/* ---- active and idle watches ---- */

static void
append(struct watch_list *list, struct watch *w)
{
	w->prev = list->last;
	w->next = NULL;
	if (list->last == NULL)
		list->first = w;
	else
		list->last->next = w;
	list->last = w;
	list->n++;
}

static void
take_out(struct watch_list *list, struct watch *w)
{
	if (w->prev == NULL)
		list->first = w->next;
	else
		w->prev->next = w->next;
	if (w->next == NULL)
		list->last = w->prev;
	else
		w->next->prev = w->prev;
	list->n--;
}

static void
wake(struct watches *ws, struct watch *w)
{
	if (!w->idle)
		return;
	take_out(&ws->idle, w);
	append(&ws->active, w);
	w->idle = false;
}

static int64_t
recent(const struct watches *ws)
{
	return RECENT + (int64_t)(ws->idle.n / SLICE) * SLICE_EVERY;
}

void
watch_add(struct watches *ws, struct watch *w, int64_t now)
{
	w->idle = false;
	append(&ws->active, w);
	watch_event(ws, w, now);
}

void
watch_remove(struct watches *ws, struct watch *w)
{
	take_out(w->idle ? &ws->idle : &ws->active, w);
}

void
watch_event(struct watches *ws, struct watch *w, int64_t now)
{
	wake(ws, w);
	w->event_at = ws->event_at = now;
}

void
watch_wake_all(struct watches *ws)
{
	while (ws->idle.first != NULL)
		wake(ws, ws->idle.first);
}

/* If the turn of a slice took long, the next slice is due later. */
static void
end_slice(struct watches *ws, int64_t now)
{
	int64_t pause = ws->slice_began_at == 0 ? 0 : SHARE * (now - ws->slice_began_at);

	ws->slice_began_at = 0;
	if (pause > SLICE_EVERY)
		ws->slice_due_at += pause - SLICE_EVERY;
}

/* Slices that were due more than WAIT ago are skipped. */
static void
begin_slice(struct watches *ws, int64_t now)
{
	int i;

	for (i = 0; i < SLICE && ws->idle.first != NULL; i++)
		wake(ws, ws->idle.first);
	if (ws->slice_due_at < now - WAIT)
		ws->slice_due_at = now - WAIT;
	ws->slice_due_at += SLICE_EVERY;
	ws->slice_began_at = now;
}

void
watch_turn(struct watches *ws, struct pollset *ps)
{
	end_slice(ws, ps->now);
	if (ws->idle.n <= FEW || ps->now - ws->event_at >= recent(ws)) {
		watch_wake_all(ws);
		return;
	}
	if (ps->now < ws->slice_due_at) {
		pollset_until(ps, ps->now + WAIT);
		return;
	}
	begin_slice(ws, ps->now);
	pollset_until(ps, ps->now);
}

void
watch_to_back(struct watches *ws, struct watch *w)
{
	take_out(&ws->active, w);
	append(&ws->active, w);
}

bool
watch_to_idle(struct watches *ws, struct watch *w, int64_t now)
{
	if (now - w->event_at < recent(ws))
		return false;
	take_out(&ws->active, w);
	append(&ws->idle, w);
	w->idle = true;
	return true;
}

struct watch *
watch_next(const struct watches *ws, const struct watch *w)
{
	if (w != NULL && w->next != NULL)
		return w->next;
	if (w == NULL && ws->active.first != NULL)
		return ws->active.first;
	return w != NULL && w->idle ? NULL : ws->idle.first;
}
