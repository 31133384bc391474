/*
 * xnu.c - a preloaded library: poll and connect behave as those of macOS (XNU).
 *
 *   cc -shared -fPIC -o xnu.so xnu.c -ldl
 *   LD_PRELOAD=./xnu.so ./relay ...
 *
 * XNU makes events of kqueue(2) of the events that poll is asked for:
 *
 *   - POLLIN or POLLHUP asks for input, POLLOUT asks for room.  A descriptor
 *     with neither is not watched, not even for errors.
 *   - A received EOF is POLLHUP, even while bytes are unread.
 *   - POLLERR does not exist.  A reset, and a pipe without a reader, are
 *     POLLHUP.
 *   - POLLOUT is not reported beside POLLHUP.
 *   - Each event happens once in a call.  If POLLHUP is asked for and POLLIN is
 *     not, bytes that arrive end the watch, and this call does not report a
 *     later EOF.
 *
 * Only programs named relay, or relay-... as the copies on far hosts, are
 * affected, not the commands that they run.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define INPUT (POLLIN | POLLHUP)
#define ENDED (POLLRDHUP | POLLHUP | POLLERR)

typedef int poll_call(struct pollfd *p, nfds_t n, int timeout);
typedef int connect_call(int fd, const struct sockaddr *sa, socklen_t len);

static int
is_relay(void)
{
	const char *name = program_invocation_short_name;

	return strncmp(name, "relay", 5) == 0 && (name[5] == '\0' || name[5] == '-');
}

static long long
clock_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

/* What the real poll has to watch for. */
static struct pollfd
question(const struct pollfd *p)
{
	struct pollfd q = { .fd = p->fd, .events = p->events & POLLOUT };

	if ((p->events & INPUT) != 0)
		q.events |= POLLIN | POLLRDHUP;
	if (q.events == 0)
		q.fd = -1;
	return q;
}

/* The events that XNU reports.  An event that happened is not watched again. */
static short
answer(const struct pollfd *p, struct pollfd *q)
{
	short r = q->revents;

	if ((r & POLLNVAL) != 0)
		return POLLNVAL;
	if ((r & ENDED) != 0)
		return POLLHUP | (p->events & POLLIN);
	if ((r & POLLIN) != 0 && (p->events & POLLIN) == 0) {
		q->events &= POLLOUT;
		if (q->events == 0)
			q->fd = -1;
	}
	return r & p->events & (POLLIN | POLLOUT);
}

static int
wait_for_one(poll_call *real, struct pollfd *p, struct pollfd *q, nfds_t n, int timeout)
{
	long long end = clock_ms() + timeout;
	int r, found = 0;
	nfds_t i;

	for (;;) {
		r = real(q, n, timeout);
		if (r <= 0)
			return r;
		for (i = 0; i < n; i++) {
			p[i].revents = q[i].revents == 0 ? 0 : answer(&p[i], &q[i]);
			found += p[i].revents != 0;
		}
		if (found > 0)
			return found;
		if (timeout > 0)
			timeout = end > clock_ms() ? (int)(end - clock_ms()) : 0;
	}
}

int
poll(struct pollfd *p, nfds_t n, int timeout)
{
	poll_call *real = (poll_call *)dlsym(RTLD_NEXT, "poll");
	struct pollfd *q;
	int r, saved;
	nfds_t i;

	if (!is_relay() || n == 0)
		return real(p, n, timeout);
	q = malloc(n * sizeof(*q));
	if (q == NULL) {
		errno = EAGAIN;
		return -1;
	}
	for (i = 0; i < n; i++) {
		q[i] = question(&p[i]);
		p[i].revents = 0;
	}
	r = wait_for_one(real, p, q, n, timeout);
	saved = errno;
	free(q);
	errno = saved;
	return r;
}

/* A Unix socket whose backlog is full refuses a connect. */
int
connect(int fd, const struct sockaddr *sa, socklen_t len)
{
	connect_call *real = (connect_call *)dlsym(RTLD_NEXT, "connect");
	int r = real(fd, sa, len);

	if (r == -1 && errno == EAGAIN && sa->sa_family == AF_UNIX && is_relay())
		errno = ECONNREFUSED;
	return r;
}
