/*
 * tunnel/remote.c - -R: the far side listens, and its connections come here.
 *
 *   near   asking --addresses, and an empty line--> standing        per -R, and WAITING streams for it:
 *          waiting --OPENED--> a connection of conn.c, whose target is dialled
 *   far    looking up its name --> listening, as long as its stream is open     and the streams that wait there:
 *          waiting --accept--> a connection of conn.c
 */
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/poll.h"
#include "mux/mux.h"
#include "net/endpoint.h"
#include "net/addr.h"
#include "net/listen.h"
#include "net/lookup.h"
#include "conn/conn.h"
#include "conn/fdpair.h"
#include "conn/side.h"
#include "tunnel/forward.h"
#include "tunnel/remote.h"

#define WAITING 8
#define ACCEPTS 64      /* of one listener in one turn */
#define FULL_PAUSE 1000 /* of a listener when the system has no descriptor left */
#define LOOKUP_PAUSE 20 /* of a look-up while too many others are under way */

/* Near: what one -R has asked for, and the streams that wait for it. */
struct remote_ask {
	struct remote_ask *next;
	struct forward *forward;
	struct stream *stream;
	struct stream *waiting[WAITING]; /* NULL: free */
};

/* Far: where the near side asked us to listen. */
struct remote_listener {
	struct remote_listener *next;
	struct stream *stream;
	struct endpoint at;
	char *text;            /* what the endpoint borrows from */
	bool listens;          /* false: its name is being looked up */
	struct lookup *lookup; /* NULL: not yet started */
	int64_t give_up_at;    /* the look-up */
	struct listener tab[ADDR_MAX];
	int slots[ADDR_MAX];
	int n;
};

/* Far: a stream that waits for a connection. */
struct remote_waiter {
	struct remote_waiter *next;
	struct stream *stream;
	struct remote_listener *by; /* NULL: it is gone */
};

/* ---- near ---- */

static bool
cannot_ask(const struct mux *m, struct forward *f)
{
	log_say(LOG_ERROR, "cannot ask %s for %s: no memory, or the link carries no more",
	    mux_peer(m), f->from_text);
	f->state = FORWARD_REFUSED;
	return false;
}

bool
remote_ask(struct remotes *tab, struct mux *m, struct forward *f)
{
	char target[sizeof(REMOTE_LISTEN) + UNIXPATH_MAX];
	struct remote_ask *ask = calloc(1, sizeof(*ask));

	if (ask == NULL)
		return cannot_ask(m, f);
	snprintf(target, sizeof(target), REMOTE_LISTEN "%s", f->from_text);
	ask->stream = mux_open(m, target);
	if (ask->stream == NULL) {
		free(ask);
		return cannot_ask(m, f);
	}
	ask->forward = f;
	f->state = FORWARD_ASKS;
	f->bound[0] = '\0';
	ask->next = tab->asks;
	tab->asks = ask;
	return true;
}

/* The addresses come, a line each, and an empty line behind them.  Return false if they do not fit. */
static bool
read_bound(struct remote_ask *ask)
{
	struct forward *f = ask->forward;
	size_t have = strlen(f->bound), n, i;

	n = buf_take(stream_rx(ask->stream), f->bound + have, sizeof(f->bound) - 1 - have);
	f->bound[have + n] = '\0';
	for (i = have; i < have + n; i++)
		if (f->bound[i] == '\0')
			f->bound[i] = '?';
	if (n > 0)
		stream_consumed(ask->stream, n);
	if (f->state == FORWARD_ASKS && strstr(f->bound, "\n\n") != NULL) {
		log_plain(f->bound, have + n, '\n');
		f->state = FORWARD_STANDS;
	}
	return have + n < sizeof(f->bound) - 1;
}

/* A connection has come there, and there is room for it here. */
static bool
may_dial(const struct remotes *tab, const struct stream *s)
{
	return stream_is_opened(s) && (tab->conns->max == 0 || tab->conns->n < tab->conns->max);
}

static void
step_waiting(struct remotes *tab, struct remote_ask *ask, struct stream **at, int64_t now)
{
	struct mux *m = stream_mux(ask->stream);
	struct side a;
	char target[32];

	if (*at == NULL) {
		snprintf(target, sizeof(target), REMOTE_ACCEPT "%lu",
		    (unsigned long)stream_id(ask->stream));
		*at = mux_open(m, target); /* NULL: tried again in the next turn */
		return;
	}
	if (stream_is_closed(*at)) {
		stream_release(*at);
		*at = NULL;
		return;
	}
	if (!may_dial(tab, *at))
		return;
	a = side_of_stream(*at);
	if (!conn_dial(tab->conns, &a, mux_peer(m), &ask->forward->to, now)) {
		log_say(LOG_ERROR, "no memory for a connection from %s", mux_peer(m));
		stream_reset(*at, MUX_NO_ROOM, "out of memory");
		stream_release(*at);
	}
	*at = NULL;
}

static void
report_refused(const struct remote_ask *ask)
{
	const struct mux *m = stream_mux(ask->stream);
	const char *reason = stream_reason(ask->stream);

	if (mux_state(m) != MUX_DEAD && stream_code(ask->stream) != MUX_RESET && *reason != '\0')
		log_say(LOG_ERROR, "%s: %s", mux_peer(m), reason);
}

/* Return false if the far side does not listen, or no more. */
static bool
step_ask(struct remotes *tab, struct remote_ask *ask, int64_t now)
{
	int i;

	if (stream_is_closed(ask->stream)) {
		report_refused(ask);
		return false;
	}
	if (!read_bound(ask) || stream_eof_read(ask->stream))
		return false;
	for (i = 0; i < WAITING && ask->forward->state == FORWARD_STANDS; i++)
		step_waiting(tab, ask, &ask->waiting[i], now);
	return true;
}

static void
free_ask(struct remote_ask *ask)
{
	int i;

	ask->forward->state = FORWARD_REFUSED;
	for (i = 0; i < WAITING; i++)
		if (ask->waiting[i] != NULL)
			stream_release(ask->waiting[i]);
	stream_release(ask->stream);
	free(ask);
}

/* ---- far ---- */

static void
free_listener(struct remotes *tab, struct remote_listener *l, int64_t now)
{
	struct remote_waiter *w;

	for (w = tab->waiters; w != NULL; w = w->next)
		if (w->by == l)
			w->by = NULL;
	lookup_free(l->lookup, now);
	while (l->n > 0)
		listener_close(&l->tab[--l->n], 0);
	free(l->text);
	free(l);
}

static void
refuse(struct stream *s, uint16_t code, const char *why)
{
	log_say(LOG_INFO, "refused a stream: %s", why);
	stream_reset(s, code, why);
}

/* What the text asks for; NULL: it cannot be, and ${code} and ${why} are filled. */
static struct remote_listener *
new_listener(const char *text, uint16_t *code, char *why, size_t size)
{
	struct remote_listener *l = calloc(1, sizeof(*l));

	*code = MUX_NO_ROOM;
	snprintf(why, size, "out of memory");
	if (l == NULL)
		return NULL;
	l->text = malloc(strlen(text) + 1);
	if (l->text == NULL)
		goto fail;
	strcpy(l->text, text);
	*code = MUX_UNUSABLE;
	if (!endpoint_parse(&l->at, l->text, true, why, size))
		goto fail;
	snprintf(why, size, "it is not asked for \"-\"");
	if (l->at.kind != ENDPOINT_STDIO)
		return l;

fail:
	free(l->text);
	free(l);
	return NULL;
}

/* Send the addresses that it is bound to, a line each, and an empty line. */
static void
send_bound(const struct remote_listener *l)
{
	struct buf *tx = stream_tx(l->stream);
	const char *name;
	bool fits = true;
	int i;

	for (i = 0; i < l->n; i++) {
		name = listener_name(&l->tab[i]);
		fits = fits && buf_put(tx, name, strlen(name)) && buf_put(tx, "\n", 1);
	}
	fits = fits && buf_put(tx, "\n", 1);
	if (!fits) {
		refuse(l->stream, MUX_NO_ROOM, "out of memory");
		return;
	}
	stream_accept(l->stream);
	stream_push(l->stream);
}

/* Listen; ${addrs} are those of a TCP end.  A failure resets the stream. */
static void
open_listener(const struct remotes *tab, struct remote_listener *l, const struct addr_list *addrs)
{
	char why[512] = "";
	int i, n;

	/* Never wait for another process here: the loop serves other streams. */
	n = l->at.kind == ENDPOINT_TCP
		? listener_open_at(&l->at, addrs, l->tab, why, sizeof(why))
		: listener_open(&l->at, 0, l->tab, why, sizeof(why));
	if (n == -1) {
		refuse(l->stream, MUX_UNUSABLE, why);
		return;
	}
	l->n = n;
	l->listens = true;
	for (i = 0; i < n; i++)
		l->tab[i].check_uid = l->tab[i].check_uid && !tab->any_uid;
	send_bound(l);
}

void
remote_listen(struct remotes *tab, struct stream *s, int64_t now)
{
	struct addr_list addrs = { .n = 0 };
	struct remote_listener *l;
	char why[512];
	uint16_t code;

	l = new_listener(stream_target(s) + strlen(REMOTE_LISTEN), &code, why, sizeof(why));
	if (l == NULL) {
		refuse(s, code, why);
		stream_release(s);
		return;
	}
	l->stream = s;
	l->give_up_at = now + tab->lookup_ms;
	l->next = tab->listeners;
	tab->listeners = l;
	if (l->at.kind != ENDPOINT_TCP || addr_numeric(&l->at, &addrs))
		open_listener(tab, l, &addrs);
}

static void
refuse_name(const struct remote_listener *l, const char *cause)
{
	char name[ENDPOINT_NAME], why[512];

	endpoint_name(&l->at, name, sizeof(name));
	snprintf(why, sizeof(why), "cannot listen on %s: %s", name, cause);
	refuse(l->stream, MUX_UNUSABLE, why);
}

static void
step_lookup(const struct remotes *tab, struct remote_listener *l, const struct pollset *ps)
{
	struct addr_list addrs;
	int e = EAI_AGAIN;

	if (l->lookup == NULL) {
		l->lookup = lookup_start(tab->kids, &l->at);
		if (l->lookup == NULL && errno != EBUSY) {
			refuse_name(l, strerror(errno));
			return;
		}
	}
	if (l->lookup != NULL && lookup_step(l->lookup, ps))
		e = lookup_answer(l->lookup, &addrs);
	else if (ps->now < l->give_up_at)
		return;
	lookup_free(l->lookup, ps->now);
	l->lookup = NULL;
	if (e == 0)
		open_listener(tab, l, &addrs);
	else
		refuse_name(l, gai_strerror(e));
}

static struct remote_listener *
find_listener(const struct remotes *tab, const struct stream *s, const char *id)
{
	struct remote_listener *l;
	char own[16];

	for (l = tab->listeners; l != NULL; l = l->next) {
		if (!l->listens)
			continue;
		snprintf(own, sizeof(own), "%lu", (unsigned long)stream_id(l->stream));
		if (stream_mux(l->stream) == stream_mux(s) && strcmp(own, id) == 0)
			return l;
	}
	return NULL;
}

void
remote_wait(struct remotes *tab, struct stream *s)
{
	struct remote_listener *by =
	    find_listener(tab, s, stream_target(s) + strlen(REMOTE_ACCEPT));
	struct remote_waiter *w;

	if (by == NULL) {
		refuse(s, MUX_UNUSABLE, "nothing listens for it");
		stream_release(s);
		return;
	}
	w = calloc(1, sizeof(*w));
	if (w == NULL) {
		refuse(s, MUX_NO_ROOM, "out of memory");
		stream_release(s);
		return;
	}
	w->stream = s;
	w->by = by;
	w->next = tab->waiters;
	tab->waiters = w;
}

/* The place of a stream that waits for ${l}, or NULL. */
static struct remote_waiter **
find_waiter(struct remotes *tab, const struct remote_listener *l)
{
	struct remote_waiter **at;

	for (at = &tab->waiters; *at != NULL; at = &(*at)->next)
		if ((*at)->by == l && !stream_is_closed((*at)->stream))
			return at;
	return NULL;
}

/* Take a waiting stream and join it to the accepted socket ${fd}. */
static void
join(
    struct remotes *tab, struct remote_waiter **at, int fd, bool tcp, const char *name, int64_t now)
{
	struct remote_waiter *w = *at;
	struct side a, b = side_of_stream(w->stream);
	struct fdpair fds;

	*at = w->next;
	free(w);
	fdpair_socket(&fds, fd, tcp);
	a = side_of_fds(&fds);
	stream_accept(b.stream);
	if (conn_join(tab->conns, &a, name, &b, now))
		return;
	log_say(LOG_ERROR, "no memory for %s", name);
	side_close(&a, true, MUX_RESET, "");
	side_close(&b, true, MUX_NO_ROOM, "out of memory");
}

static void
accept_some(struct remotes *tab, struct remote_listener *by, struct listener *l, int64_t now)
{
	struct remote_waiter **at;
	char name[ADDR_NAME];
	int fd, i;

	for (i = 0; i < ACCEPTS && (at = find_waiter(tab, by)) != NULL; i++) {
		fd = listener_accept(l, name);
		if (fd == -1 && errno == EACCES)
			continue;
		if (fd == -1) {
			if (errno != EAGAIN && errno != EWOULDBLOCK)
				l->resume = now + FULL_PAUSE;
			return;
		}
		join(tab, at, fd, l->file.path == NULL, name, now);
	}
}

/* Poll for connections as long as a stream waits for them. */
static void
want_listener(struct remotes *tab, struct remote_listener *l, struct pollset *ps)
{
	bool awaited = find_waiter(tab, l) != NULL;
	int i;

	if (!l->listens) {
		if (l->lookup != NULL)
			lookup_want(l->lookup, ps);
		pollset_until(ps, l->lookup != NULL ? l->give_up_at : ps->now + LOOKUP_PAUSE);
	}
	for (i = 0; i < l->n; i++) {
		l->slots[i] = -1;
		if (awaited && l->tab[i].resume <= ps->now)
			l->slots[i] = pollset_add(ps, l->tab[i].fd, POLLIN);
		else if (awaited)
			pollset_until(ps, l->tab[i].resume);
	}
}

/* Return false if its stream has ended. */
static bool
step_listener(struct remotes *tab, struct remote_listener *l, const struct pollset *ps)
{
	int i;

	if (!l->listens && !stream_eof_read(l->stream) && !stream_is_reset(l->stream))
		step_lookup(tab, l, ps);
	for (i = 0; i < l->n; i++)
		if (pollset_ready(ps, l->slots[i]) != 0)
			accept_some(tab, l, &l->tab[i], ps->now);
	return !stream_eof_read(l->stream) && !stream_is_reset(l->stream);
}

static void
step_listeners(struct remotes *tab, const struct pollset *ps)
{
	struct remote_listener **at = &tab->listeners, *l;

	while ((l = *at) != NULL) {
		if (step_listener(tab, l, ps)) {
			at = &l->next;
			continue;
		}
		*at = l->next;
		stream_release(l->stream);
		free_listener(tab, l, ps->now);
	}
}

/* A stream that waits is closed by the near side, or when its listener is gone. */
static void
step_waiters(struct remotes *tab)
{
	struct remote_waiter **at = &tab->waiters, *w;

	while ((w = *at) != NULL) {
		if (w->by != NULL && !stream_is_closed(w->stream)) {
			at = &w->next;
			continue;
		}
		*at = w->next;
		stream_release(w->stream);
		free(w);
	}
}

/* ---- once a turn ---- */

void
remote_want(struct remotes *tab, struct pollset *ps)
{
	struct remote_listener *l;
	struct remote_ask *ask;
	int i;

	for (l = tab->listeners; l != NULL; l = l->next)
		want_listener(tab, l, ps);
	for (ask = tab->asks; ask != NULL; ask = ask->next)
		for (i = 0; i < WAITING; i++)
			if (ask->waiting[i] != NULL && may_dial(tab, ask->waiting[i]))
				pollset_until(ps, ps->now); /* a connection has just ended */
}

void
remote_step(struct remotes *tab, const struct pollset *ps)
{
	struct remote_ask **at = &tab->asks, *ask;

	while ((ask = *at) != NULL) {
		if (step_ask(tab, ask, ps->now)) {
			at = &ask->next;
			continue;
		}
		*at = ask->next;
		free_ask(ask);
	}
	step_listeners(tab, ps);
	step_waiters(tab);
}
