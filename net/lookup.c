/*
 * lookup.c - from a name to addresses, in a child process: getaddrinfo() would block the loop.
 *
 * The child writes its answer to a pipe and exits.  One look-up can have several users, and it ends with the last of them.
 */
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"
#include "base/poll.h"
#include "net/endpoint.h"
#include "net/sock.h"
#include "spawn.h"
#include "relay.h"
#include "net/lookup.h"

#define LOOKUPS 64 /* at a time: each is a process */

/* What the child writes: less than PIPE_BUF, so all at once. */
struct answer {
	int gai;
	struct sock_addrs addrs;
};

struct lookup {
	struct child *child; /* NULL: the answer is there */
	int fd, slot;
	size_t users;
	size_t got; /* bytes of the answer */
	struct answer answer;
};

static int lookups; /* under way */

static void
resolve_in_child(const void *arg, int fd)
{
	struct answer a;
	const char *p = (const char *)&a;
	size_t n = sizeof(a);
	ssize_t w;

	memset(&a, 0, sizeof(a));
	a.gai = sock_resolve(arg, &a.addrs);
	while (n > 0) {
		w = write(fd, p, n);
		if (w == -1 && errno != EINTR)
			_exit(STATUS_SYSTEM);
		if (w > 0) {
			p += w;
			n -= (size_t)w;
		}
	}
	_exit(STATUS_OK);
}

struct lookup *
lookup_start(struct children *kids, const struct endpoint *ep)
{
	struct lookup *l;
	int saved;

	if (lookups == LOOKUPS) {
		errno = EBUSY;
		return NULL;
	}
	l = calloc(1, sizeof(*l));
	if (l == NULL)
		return NULL;
	l->child = spawn_call(kids, resolve_in_child, ep);
	if (l->child == NULL) {
		saved = errno;
		free(l);
		errno = saved;
		return NULL;
	}
	l->fd = spawn_take_in(l->child);
	l->slot = -1;
	l->users = 1;
	lookups++;
	return l;
}

struct lookup *
lookup_join(struct lookup *l)
{
	l->users++;
	return l;
}

/* Once a turn, however many users there are. */
static void
want_answer(struct lookup *l, struct pollset *ps)
{
	if (l->slot == -1 || (size_t)l->slot >= ps->n || ps->fds[l->slot].fd != l->fd)
		l->slot = pollset_add(ps, l->fd, POLLIN);
}

void
lookup_want(struct lookup *l, struct pollset *ps)
{
	if (l->child != NULL)
		want_answer(l, ps);
	else
		pollset_until(ps, ps->now); /* read by another user */
}

static void
end_child(struct lookup *l, int64_t now)
{
	if (l->child == NULL)
		return;
	os_close(&l->fd);
	spawn_release(l->child, now);
	l->child = NULL;
	lookups--;
}

bool
lookup_step(struct lookup *l, const struct pollset *ps)
{
	int slot = l->slot;
	ssize_t n;

	l->slot = -1;
	if (l->child == NULL)
		return true;
	if (pollset_ready(ps, slot) == 0)
		return false;
	n = read(l->fd, (char *)&l->answer + l->got, sizeof(l->answer) - l->got);
	if (n == -1 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n > 0)
		l->got += (size_t)n;
	if (n > 0 && l->got < sizeof(l->answer))
		return false;
	if (l->got < sizeof(l->answer))
		l->answer.gai = EAI_FAIL; /* the child died */
	end_child(l, ps->now);
	return true;
}

int
lookup_answer(const struct lookup *l, struct sock_addrs *out)
{
	*out = l->answer.addrs;
	return l->answer.gai;
}

void
lookup_free(struct lookup *l, int64_t now)
{
	if (l == NULL || --l->users > 0)
		return;
	end_child(l, now);
	free(l);
}
