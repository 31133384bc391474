/* tunnel/remote.c - -R: listeners on the far side, targets on the near side. */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/poll.h"
#include "mux/frame.h"
#include "mux/mux.h"
#include "net/dial.h"
#include "net/endpoint.h"
#include "net/addr.h"
#include "net/listen.h"
#include "net/lookup.h"
#include "conn/conn.h"
#include "conn/listeners.h"
#include "conn/side.h"
#include "tunnel/command.h"
#include "tunnel/forward.h"
#include "tunnel/serve.h"
#include "tunnel/remote.h"

#define WAITING 8          /* waiting streams of one -R */
#define LOOKUP_PAUSE 20000 /* us until a queued look-up is tried again */

struct remotes {
	struct conns *conns;
	const struct dial_target *rule;
	bool any_uid; /* far */
	struct remote_ask *asks;
	struct remote_listener *listeners;
};

/* Near: a -R, and the streams that wait for its connections. */
struct remote_ask {
	struct remote_ask *next;
	struct forward *forward; /* its state is that of the -R */
	struct stream *stream;
	struct stream *waiting[WAITING]; /* NULL: free */
};

/* Far: a listener that the near side asked for. */
struct remote_listener {
	struct remote_listener *next;
	struct stream *stream;
	struct remote_waiter *waiters;
	struct endpoint at;
	char text[FRAME_TARGET + 1]; /* the endpoint borrows from it */
	struct listeners open;       /* n is 0 until its name was looked up */
	struct lookup *lookup;       /* NULL: too many are under way, or n is not 0 */
	int64_t give_up_at;          /* n is 0: the end of the look-up */
};

/* Far: a stream that waits for a connection of a listener. */
struct remote_waiter {
	struct remote_waiter *next;
	struct stream *stream;
};

struct remotes *
remote_new(struct conns *conns, const struct dial_target *rule, bool any_uid)
{
	struct remotes *tab = calloc(1, sizeof(*tab));

	if (tab == NULL)
		return NULL;
	tab->conns = conns;
	tab->rule = rule;
	tab->any_uid = any_uid;
	return tab;
}

/* ---- near ---- */

void
remote_ask(struct remotes *tab, struct mux *m, struct forward *f)
{
	char target[sizeof(REMOTE_LISTEN) + UNIXPATH_MAX];
	struct remote_ask *ask = calloc(1, sizeof(*ask));

	snprintf(target, sizeof(target), REMOTE_LISTEN "%s", f->from_text);
	if (ask != NULL)
		ask->stream = mux_open(m, target);
	if (ask == NULL || ask->stream == NULL) {
		log_say(LOG_ERROR, "cannot ask %s for %s: no memory, or the link carries no more",
		    mux_peer(m), f->from_text);
		f->state = FORWARD_REFUSED;
		free(ask);
		return;
	}
	ask->forward = f;
	f->state = FORWARD_ASKED;
	f->bound[0] = '\0';
	ask->next = tab->asks;
	tab->asks = ask;
}

/* Read the bound addresses, which end with an empty line.  Return false if they
 * do not fit, or if bytes follow. */
static bool
read_bound(struct remote_ask *ask)
{
	struct forward *f = ask->forward;
	size_t have = strlen(f->bound), n, i;
	char *end;

	n = buf_take(stream_rx(ask->stream), f->bound + have, sizeof(f->bound) - 1 - have);
	f->bound[have + n] = '\0';
	for (i = have; i < have + n; i++)
		if (f->bound[i] == '\0')
			f->bound[i] = '?';
	if (n > 0)
		stream_consumed(ask->stream, n);
	if (n > 0 && f->state == FORWARD_READY)
		return false; /* the empty line was the last one */
	end = strstr(f->bound, "\n\n");
	if (f->state == FORWARD_ASKED && end != NULL) {
		end[2] = '\0';
		log_plain(f->bound, '\n');
		f->state = FORWARD_READY;
	}
	return have + n < sizeof(f->bound) - 1;
}

/* Return true if ${s} has a far connection, and this side has room for it. */
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
		*at = mux_open(m, target); /* NULL: retried in the next turn */
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

/* Return false if the far side does not listen, or its answer is too long. */
static bool
step_ask(struct remotes *tab, struct remote_ask *ask, int64_t now)
{
	int i;

	if (stream_is_closed(ask->stream)) {
		serve_log_refusal(ask->stream, LOG_ERROR, ask->forward->from_text);
		return false;
	}
	if (!read_bound(ask) || stream_eof_read(ask->stream))
		return false;
	for (i = 0; i < WAITING && ask->forward->state == FORWARD_READY; i++)
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

/* Release streams that the near side closed, or all if ${l} ends. */
static void
drop_waiters(struct remote_listener *l, bool ends)
{
	struct remote_waiter **at = &l->waiters, *w;

	while ((w = *at) != NULL) {
		if (!ends && !stream_is_closed(w->stream)) {
			at = &w->next;
			continue;
		}
		*at = w->next;
		stream_release(w->stream);
		free(w);
	}
}

static void
free_listener(struct remote_listener *l, int64_t now)
{
	drop_waiters(l, true);
	stream_release(l->stream);
	lookup_free(l->lookup, now);
	while (l->open.n > 0) /* without the wait of listeners_close */
		listener_close(&l->open.tab[--l->open.n].l, 0);
	listeners_close(&l->open);
	free(l);
}

/* A listener for the end that ${s} names, not yet open.  NULL: ${s} was refused. */
static struct remote_listener *
new_listener(struct stream *s, const struct command *command)
{
	const char *text = stream_target(s) + strlen(REMOTE_LISTEN);
	struct remote_listener *l = calloc(1, sizeof(*l));
	char why[512];

	if (l == NULL) {
		serve_refuse(s, MUX_NO_ROOM, "out of memory");
		return NULL;
	}
	l->stream = s;
	if (!command_resolve(command, text, l->text, sizeof(l->text)))
		serve_refuse(s, MUX_UNUSABLE, COMMAND_UNRESOLVED);
	else if (!endpoint_parse(&l->at, l->text, true, why, sizeof(why)))
		serve_refuse(s, MUX_UNUSABLE, why);
	else if (l->at.kind == ENDPOINT_STDIO)
		serve_refuse(s, MUX_UNUSABLE, "\"-\" cannot be listened on");
	else
		return l;
	free(l);
	return NULL;
}

static void
send_bound(const struct remote_listener *l)
{
	struct buf *tx = stream_tx(l->stream);
	const char *name;
	bool fits = true;
	int at = 0;

	while ((name = listeners_next_name(&l->open, &at)) != NULL)
		fits = fits && buf_put(tx, name, strlen(name)) && buf_put(tx, "\n", 1);
	fits = fits && buf_put(tx, "\n", 1);
	if (!fits) {
		serve_refuse(l->stream, MUX_NO_ROOM, "out of memory");
		return;
	}
	stream_accept(l->stream);
	stream_push(l->stream);
}

/* Listen; ${addrs} are those of a TCP end.  A failure resets the stream. */
static void
open_listener(const struct remotes *tab, struct remote_listener *l, const struct addr_list *addrs)
{
	struct listener open[ADDR_MAX];
	char why[512] = "";
	int n;

	/* Do not wait for another process: the loop serves other streams. */
	n = listener_open(&l->at, addrs, 0, open, why, sizeof(why));
	if (n == -1) {
		serve_refuse(l->stream, MUX_UNUSABLE, why);
		return;
	}
	l->open.conns = tab->conns;
	if (!listeners_take(&l->open, open, n, tab->any_uid, NULL)) {
		serve_refuse(l->stream, MUX_NO_ROOM, "out of memory");
		return;
	}
	send_bound(l);
}

bool
remote_listen(struct remotes *tab, struct stream *s, const struct command *command, int64_t now)
{
	struct addr_list addrs = { .n = 0 };
	struct remote_listener *l = new_listener(s, command);

	if (l == NULL)
		return false;
	l->give_up_at = now + tab->rule->each_us;
	l->next = tab->listeners;
	tab->listeners = l;
	if (l->at.kind == ENDPOINT_UNIX || addr_numeric(&l->at, &addrs))
		open_listener(tab, l, &addrs);
	return true;
}

static void
refuse_name(const struct remote_listener *l, const char *cause)
{
	char name[ENDPOINT_NAME], why[512];

	endpoint_name(&l->at, name, sizeof(name));
	snprintf(why, sizeof(why), "cannot listen on %s: %s", name, cause);
	serve_refuse(l->stream, MUX_UNUSABLE, why);
}

static bool
has_ended(const struct stream *s)
{
	return stream_eof_read(s) || stream_is_reset(s);
}

static void
step_lookup(const struct remotes *tab, struct remote_listener *l, const struct pollset *ps)
{
	struct addr_list addrs;
	int e;

	if (l->lookup == NULL) {
		l->lookup = lookup_start(tab->rule->kids, &l->at);
		if (l->lookup == NULL && errno != EBUSY)
			refuse_name(l, strerror(errno));
	} else if (lookup_step(l->lookup, ps)) {
		e = lookup_answer(l->lookup, &addrs);
		lookup_free(l->lookup, ps->now);
		l->lookup = NULL;
		if (e == 0)
			open_listener(tab, l, &addrs);
		else
			refuse_name(l, gai_strerror(e));
	}
	if (l->open.n == 0 && ps->now >= l->give_up_at && !has_ended(l->stream))
		refuse_name(l, gai_strerror(EAI_AGAIN));
}

static struct remote_listener *
find_listener(const struct remotes *tab, const struct stream *s, const char *id)
{
	struct remote_listener *l;
	char own[16];

	for (l = tab->listeners; l != NULL; l = l->next) {
		snprintf(own, sizeof(own), "%lu", (unsigned long)stream_id(l->stream));
		if (l->open.n > 0 && stream_mux(l->stream) == stream_mux(s) && strcmp(own, id) == 0)
			return l;
	}
	return NULL;
}

bool
remote_wait(struct remotes *tab, struct stream *s)
{
	struct remote_listener *l = find_listener(tab, s, stream_target(s) + strlen(REMOTE_ACCEPT));
	struct remote_waiter *w;

	if (l == NULL)
		return serve_refuse(s, MUX_UNUSABLE, "no listener has this number");
	w = calloc(1, sizeof(*w));
	if (w == NULL)
		return serve_refuse(s, MUX_NO_ROOM, "out of memory");
	w->stream = s;
	w->next = l->waiters;
	l->waiters = w;
	return true;
}

/* Join an accepted connection to a stream that waits for ${l}. */
static void
join(struct remotes *tab, struct remote_listener *l, struct accepted *c, int64_t now)
{
	struct remote_waiter *w = l->waiters;
	struct side b = side_of_stream(w->stream);

	l->waiters = w->next;
	free(w);
	stream_accept(b.stream);
	if (conn_join(tab->conns, &c->side, c->name, &b, now))
		return;
	log_say(LOG_ERROR, "no memory for %s", c->name);
	side_close(&c->side, true, MUX_RESET, "");
	side_close(&b, true, MUX_NO_ROOM, "out of memory");
}

static void
want_listener(struct remote_listener *l, struct pollset *ps)
{
	if (l->open.n > 0) {
		/* Without a waiting stream, connections stay in the backlog. */
		listeners_want(&l->open, ps, l->waiters != NULL);
	} else if (l->lookup != NULL) {
		lookup_want(l->lookup, ps);
		pollset_until(ps, l->give_up_at);
	} else {
		pollset_until(ps, ps->now + LOOKUP_PAUSE);
	}
}

static void
accept_connections(struct remotes *tab, struct remote_listener *l, const struct pollset *ps)
{
	struct accepted c;

	drop_waiters(l, false);
	while (l->waiters != NULL && listeners_accept(&l->open, ps, &c))
		join(tab, l, &c, ps->now);
}

/* Return false if the stream of ${l} has ended. */
static bool
step_listener(struct remotes *tab, struct remote_listener *l, const struct pollset *ps)
{
	if (has_ended(l->stream))
		return false;
	if (l->open.n > 0)
		accept_connections(tab, l, ps);
	else
		step_lookup(tab, l, ps);
	return !has_ended(l->stream);
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
		free_listener(l, ps->now);
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
		want_listener(l, ps);
	for (ask = tab->asks; ask != NULL; ask = ask->next)
		for (i = 0; i < WAITING; i++)
			if (ask->waiting[i] != NULL && may_dial(tab, ask->waiting[i]))
				pollset_until(ps, ps->now); /* now it has room */
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
}
