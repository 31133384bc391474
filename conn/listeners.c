/*
 * conn/listeners.c - the listening sockets of this side.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/poll.h"
#include "net/endpoint.h"
#include "net/listen.h"
#include "conn/conn.h"
#include "conn/listeners.h"

#define ACCEPTS 64         /* connections of one listener in one turn */
#define FULL_PAUSE 1000000 /* us, after accept has failed */

bool
listeners_take(struct listeners *ls, struct listener *tab, int n, bool any_uid, const void *use)
{
	void *more = NULL;
	int i;

	if (ls->n + n <= LISTENERS_MAX)
		more = realloc(ls->tab, (size_t)(ls->n + n) * sizeof(ls->tab[0]));
	if (more == NULL) {
		for (i = 0; i < n; i++)
			listener_close(&tab[i], 0);
		return false;
	}
	ls->tab = more;
	for (i = 0; i < n; i++, ls->n++) {
		ls->tab[ls->n].l = tab[i];
		ls->tab[ls->n].l.check_uid = tab[i].check_uid && !any_uid;
		ls->tab[ls->n].use = use;
		ls->tab[ls->n].slot = -1;
	}
	return true;
}

bool
listeners_add(struct listeners *ls, const struct endpoint *from, bool any_uid, const void *use)
{
	struct listener tab[ADDR_MAX];
	char why[LISTENER_WHY];
	int n = listener_open(from, NULL, LISTENER_START, tab, why, sizeof(why));

	if (n != -1 && listeners_take(ls, tab, n, any_uid, use))
		return true;
	if (n != -1)
		snprintf(why, sizeof(why),
		    "cannot listen on more than %d addresses, or no memory is left", LISTENERS_MAX);
	log_say(LOG_ERROR, "%s", why);
	return false;
}

void
listeners_close(struct listeners *ls)
{
	while (ls->n > 0)
		listener_close(&ls->tab[--ls->n].l, LISTENER_STOP);
	free(ls->tab);
	ls->tab = NULL;
}

const char *
listeners_next_name(const struct listeners *ls, int *at)
{
	const char *name = *at < ls->n ? listener_name(&ls->tab[*at].l) : NULL;

	while (*at < ls->n && strcmp(listener_name(&ls->tab[*at].l), name) == 0)
		++*at;
	return name;
}

void
listeners_retry(struct listeners *ls)
{
	ls->resume_at = 0;
}

/* Nothing is accepted now.  ${err} is the cause, as from accept. */
static void
log_full(struct listeners *ls, int err)
{
	if (ls->full_logged)
		return;
	ls->full_logged = true;
	if (err == EMFILE || err == ENFILE)
		log_say(LOG_NOTICE,
		    "out of descriptors with %zu connections: new connections wait; raise ulimit "
		    "-n, or set a limit with -c",
		    ls->conns->n);
	else
		log_say(LOG_NOTICE, "cannot accept: %s; new connections wait", strerror(err));
}

static bool
is_full(struct listeners *ls)
{
	if (ls->conns->max == 0 || ls->conns->n < ls->conns->max)
		return false;
	if (ls->log_full)
		log_full(ls, EMFILE);
	return true;
}

void
listeners_want(struct listeners *ls, struct pollset *ps, bool accepts)
{
	int i;

	ls->next = ls->accepted = 0;
	for (i = 0; i < ls->n; i++)
		ls->tab[i].slot = -1;
	if (ls->n == 0 || !accepts || is_full(ls))
		return;
	if (ls->resume_at > ps->now) {
		pollset_until(ps, ls->resume_at);
		return;
	}
	for (i = 0; i < ls->n; i++)
		ls->tab[i].slot = pollset_add(ps, ls->tab[i].l.fd, POLLIN);
}

bool
listeners_ready(const struct listeners *ls, const struct pollset *ps)
{
	int i;

	for (i = 0; i < ls->n; i++)
		if (pollset_ready(ps, ls->tab[i].slot) != 0)
			return true;
	return false;
}

static bool
accept_from(struct listeners *ls, int at, struct accepted *c, int64_t now)
{
	const struct listener *l = &ls->tab[at].l;
	int fd;

	do {
		if (ls->accepted++ == ACCEPTS || is_full(ls))
			return false;
		fd = listener_accept(l, c->name);
	} while (fd == -1 && errno == EACCES);
	if (fd == -1) {
		if (errno != EAGAIN && errno != EWOULDBLOCK) {
			ls->resume_at = now + FULL_PAUSE;
			log_full(ls, errno);
		}
		return false;
	}
	if (ls->conns->n <= ls->conns->max / 2)
		ls->full_logged = false;
	c->side = side_of_socket(fd, l->file.path == NULL);
	c->use = ls->tab[at].use;
	return true;
}

bool
listeners_accept(struct listeners *ls, const struct pollset *ps, struct accepted *c)
{
	for (; ls->next < ls->n; ls->next++, ls->accepted = 0)
		if (pollset_ready(ps, ls->tab[ls->next].slot) != 0 &&
		    accept_from(ls, ls->next, c, ps->now))
			return true;
	return false;
}
