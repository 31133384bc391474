/*
 * pollset.c - one array of descriptors and one deadline per turn of the loop.
 *
 * Each turn begins empty: whoever waits for something adds it (pollset_add, pollset_until), pollset_wait waits once for the first
 * of all that, and pollset_ready answers for the slots that were handed out.  Nothing is kept from one turn to the next but the
 * memory.  A descriptor with no events is watched for its end alone: poll always reports POLLERR and POLLHUP.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>

#include "relay.h"

#define RETRY_MS 100 /* after a turn that could not watch all */

int64_t
pollset_clock_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t
pollset_clock(void)
{
	return pollset_clock_us() / 1000;
}

static void
read_clock(struct pollset *ps)
{
	ps->now_us = pollset_clock_us();
	ps->now = ps->now_us / 1000;
}

void
pollset_begin(struct pollset *ps)
{
	ps->n = 0;
	ps->deadline = INT64_MAX;
	read_clock(ps);
}

void
pollset_free(struct pollset *ps)
{
	free(ps->fds);
	ps->fds = NULL;
	ps->n = ps->size = 0;
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
			pollset_until(ps, ps->now + RETRY_MS);
			return -1;
		}
		ps->fds = more;
		ps->size = size;
	}
	ps->fds[ps->n] = (struct pollfd){ .fd = fd, .events = events };
	return (int)ps->n++;
}

void
pollset_until(struct pollset *ps, int64_t when)
{
	if (when < ps->deadline)
		ps->deadline = when;
}

/* Rounded up by nothing: both clocks count whole milliseconds, so a deadline is never missed by waking too early. */
static int
timeout(const struct pollset *ps)
{
	if (ps->deadline == INT64_MAX)
		return -1;
	if (ps->deadline <= ps->now)
		return 0;
	return ps->deadline - ps->now > INT_MAX ? INT_MAX : (int)(ps->deadline - ps->now);
}

int
pollset_wait(struct pollset *ps)
{
	size_t i;
	int n;

	n = poll(ps->fds, (nfds_t)ps->n, timeout(ps));
	ps->blind = n == -1;
	if (n == -1) {
		for (i = 0; i < ps->n; i++)
			ps->fds[i].revents = 0;
		/* ENOMEM and EAGAIN pass (POSIX poll): the next turn asks again, and must not be a busy one. */
		if (errno == ENOMEM || errno == EAGAIN)
			poll(NULL, 0, RETRY_MS);
		else if (errno != EINTR)
			return -1;
	}
	read_clock(ps);
	return 0;
}

short
pollset_ready(const struct pollset *ps, int slot)
{
	return slot < 0 || (size_t)slot >= ps->n ? (short)0 : ps->fds[slot].revents;
}
