/*
 * net/lookup.c - from a name to addresses, in a child process.
 *
 * getaddrinfo(3) blocks until a name server answers.  So a child calls it,
 * writes the answer to a pipe and exits.
 */
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"
#include "base/poll.h"
#include "net/addr.h"
#include "net/endpoint.h"
#include "spawn.h"
#include "relay.h"
#include "net/lookup.h"

#define LOOKUPS_MAX 64 /* at once; each is a process */

/* What the child writes. */
struct answer {
	int gai;
	struct addr_list addrs;
};

struct lookup {
	struct child *child; /* NULL: the answer is complete */
	int fd, slot;
	size_t users;
	size_t got; /* bytes of the answer that were read */
	struct answer answer;
};

static int lookups; /* under way */

static void
resolve_in_child(const void *arg, int fd)
{
	struct answer a;

	memset(&a, 0, sizeof(a));
	a.gai = addr_resolve(arg, &a.addrs);
	/* A blocking pipe takes all of it, because no signal has a handler. */
	while (write(fd, &a, sizeof(a)) == -1 && errno == EINTR)
		;
	_exit(STATUS_OK);
}

struct lookup *
lookup_start(struct children *kids, const struct endpoint *ep)
{
	struct lookup *l;
	int saved;

	if (lookups == LOOKUPS_MAX) {
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
	l->fd = spawn_take(l->child, STDOUT_FILENO);
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

void
lookup_want(struct lookup *l, struct pollset *ps)
{
	if (l->child == NULL) /* another user has read the answer */
		pollset_until(ps, ps->now);
	/* Several users call this in one turn; the pipe is added once. */
	else if (l->slot == -1 || (size_t)l->slot >= ps->n || ps->fds[l->slot].fd != l->fd)
		l->slot = pollset_add(ps, l->fd, POLLIN);
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
		l->answer.gai = EAI_FAIL; /* the child was killed */
	end_child(l, ps->now);
	return true;
}

int
lookup_answer(const struct lookup *l, struct addr_list *out)
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
