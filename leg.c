/*
 * leg.c - a local side and a stream: what pair.c is for two local sides.
 *
 *   near, -L   joined --> over                        far, a target       dials --> joined --> over
 *   near, -D   greets --> knocks --> joined --> over
 *   near, -R   asks --> over                          far, "=listen ..."  listens --> over
 *              waits --> dials --> joined --> over    far, "=accept ..."  waits --> joined --> over
 *   near, -w   probes --> over
 *
 * For -R the near side opens a stream that asks the far side to listen, and WAITING more that wait there for a connection each: so one
 * that comes is on its way at once, though the far side can open nothing. Whoever connects while none waits stays in the backlog.
 *
 * Bytes that come from the side go into the stream's out half, and what the stream's in half holds is written to it; what was
 * written becomes credit. A reset of the side resets the stream, and the other way round; a reader that went away stops the other
 * side's writer. The leg ends when both halves are finished; the stream goes on by itself to its end.
 *
 * A leg is polled and stepped while it is active (poll.c), and when the link has done something to its stream; those that listen, ask
 * or dial, in every turn.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "relay.h"

#define ROUNDS 4
#define WAITING 8
#define ACCEPTS 64      /* of one listener in one turn */
#define FULL_PAUSE 1000 /* of a listener when the system has no descriptor left */
#define LISTEN "=listen "
#define ACCEPT "=accept "

enum phase { LEG_JOINED, LEG_DIALS, LEG_GREETS, LEG_KNOCKS, LEG_ASKS, LEG_WAITS, LEG_LISTENS, LEG_PROBES };

/* Far: where the near side asked us to listen. */
struct post {
	struct listener tab[SOCK_ADDRS];
	int slots[SOCK_ADDRS];
	int n;
	size_t waiting; /* legs for what comes */
	char *text;
};

struct leg {
	struct watch watch; /* the first member */
	struct end a;
	struct stream *s; /* LEG_GREETS: none yet */
	enum phase phase;
	struct dial *dial;          /* LEG_DIALS */
	struct dial_target *target; /* far: its own copy, while it dials */
	struct forward *forward;    /* near: what it serves; NULL: -m, -L, -D */
	struct socks *socks;        /* LEG_GREETS, LEG_KNOCKS */
	struct post *post;          /* LEG_LISTENS: its own; far, LEG_WAITS: whose connections it waits for */
	bool over;
	bool touched; /* by the link, since its last step */
	uint8_t status;
};

/* ---- life ---- */

static struct leg *
add_leg(struct legs *tab, int64_t now)
{
	struct leg *g = calloc(1, sizeof(*g));

	if (g == NULL)
		return NULL;
	end_none(&g->a);
	watch_add(&tab->watches, &g->watch, now);
	tab->n++;
	return g;
}

static bool
is_aside(enum phase phase)
{
	return phase >= LEG_ASKS;
}

static void
set_phase(struct legs *tab, struct leg *g, enum phase phase)
{
	tab->aside -= is_aside(g->phase);
	tab->aside += is_aside(phase);
	if (g->forward != NULL)
		g->forward->waiting += (phase == LEG_WAITS) - (g->phase == LEG_WAITS);
	g->phase = phase;
}

static void
take_stream(struct leg *g, struct stream *s)
{
	g->s = s;
	s->user = g;
	s->out.src = &g->a;
	s->in.dst = &g->a;
}

/* A leg with a new stream to ${target}; NULL: none can be had. */
static struct leg *
open_leg(struct legs *tab, const char *target, int64_t now)
{
	struct leg *g = add_leg(tab, now);
	struct stream *s;

	if (g == NULL)
		return NULL;
	s = link_open(tab->link, target, g);
	if (s == NULL) {
		g->over = true;
		return NULL;
	}
	take_stream(g, s);
	return g;
}

bool
leg_new(struct legs *tab, const struct end *a, const char *target, int64_t now)
{
	struct leg *g = open_leg(tab, target, now);

	if (g == NULL)
		return false;
	g->a = *a;
	return true;
}

static void
free_post(struct post *p)
{
	while (p->n > 0)
		sock_unlisten(&p->tab[--p->n]);
	free(p->text);
	free(p);
}

/* Leave the post; the one whose own it is takes it down, and who waits there finds it gone. */
static void
close_post(struct legs *tab, struct leg *g)
{
	struct post *post = g->post;
	struct watch *w;
	struct leg *other;

	g->post = NULL;
	if (post == NULL)
		return;
	if (g->phase == LEG_WAITS) {
		post->waiting--;
		return;
	}
	for (w = watch_next(&tab->watches, NULL); w != NULL; w = watch_next(&tab->watches, w)) {
		other = (struct leg *)w;
		if (other->post == post)
			other->post = NULL;
	}
	watch_wake_all(&tab->watches);
	free_post(post);
}

static void
end_leg(struct legs *tab, struct leg *g, bool reset, int64_t now)
{
	g->over = true;
	end_close(&g->a, reset);
	close_post(tab, g);
	set_phase(tab, g, LEG_JOINED);
	dial_free(g->dial, now);
	free(g->target);
	free(g->socks);
	g->dial = NULL;
	g->target = NULL;
	g->socks = NULL;
	if (g->s != NULL) {
		half_break(&g->s->out, 0, false);
		g->s->out.src = g->s->in.dst = NULL;
		link_release(tab->link, g->s);
	}
	g->s = NULL;
}

static void
refuse_leg(struct legs *tab, struct leg *g, uint16_t code, const char *words, int64_t now)
{
	link_close(tab->link, g->s, code, words);
	end_leg(tab, g, true, now);
}

/* ---- far: reaching the target ---- */

static void
refuse(struct legs *tab, struct stream *s, uint16_t code, const char *words)
{
	log_say(LOG_INFO, "refused a stream: %s", words);
	link_close(tab->link, s, code, words);
	link_release(tab->link, s);
}

/* Where does ${s} want to go? NULL and refused: nowhere that it may. */
static struct dial_target *
find_target(struct legs *tab, struct stream *s)
{
	struct dial_target *t = malloc(sizeof(*t));
	char why[FRAME_WORDS], own[ENDPOINT_NAME];

	if (t == NULL) {
		refuse(tab, s, LINK_NO_ROOM, "out of memory");
		return NULL;
	}
	*t = *tab->target;
	if (tab->fixed && s->words[0] != '\0' && strcmp(s->words, endpoint_name(&t->to, own, sizeof(own))) != 0) {
		snprintf(why, sizeof(why), "this end connects to %.300s and to nothing else", own);
		refuse(tab, s, LINK_FORBIDDEN, why);
	} else if (!tab->fixed && !endpoint_parse(&t->to, s->words, false, why, sizeof(why))) {
		refuse(tab, s, LINK_UNUSABLE, why);
	} else if (t->to.kind != ENDPOINT_TCP && t->to.kind != ENDPOINT_UNIX) {
		refuse(tab, s, LINK_UNUSABLE, "a stream's target is a port or a socket path");
	} else {
		return t;
	}
	free(t);
	return NULL;
}

static void
dial_target(struct legs *tab, struct leg *g, struct dial_target *t, int64_t now)
{
	set_phase(tab, g, LEG_DIALS);
	g->dial = dial_start(t, now);
	if (g->dial != NULL)
		return;
	if (tab->link->role == LINK_NEAR)
		log_say(LOG_ERROR, "no memory for a connection from %s", tab->link->theirs.host);
	refuse_leg(tab, g, LINK_NO_ROOM, "out of memory", now);
}

static void
accept_target(struct legs *tab, struct stream *s, int64_t now)
{
	struct dial_target *t = find_target(tab, s);
	struct leg *g;

	if (t == NULL)
		return;
	g = add_leg(tab, now);
	if (g == NULL) {
		free(t);
		refuse(tab, s, LINK_NO_ROOM, "out of memory");
		return;
	}
	take_stream(g, s);
	g->target = t;
	dial_target(tab, g, t, now);
}

/* ---- far: listening for the near side ---- */

/* Listen where the stream asks to; NULL, and ${why} and ${code} tell. */
static struct post *
new_post(const struct legs *tab, const char *text, uint16_t *code, char *why, size_t size)
{
	struct post *p = calloc(1, sizeof(*p));
	struct endpoint ep;
	int i;

	*code = LINK_NO_ROOM;
	snprintf(why, size, "out of memory");
	if (p == NULL)
		return NULL;
	p->text = malloc(strlen(text) + 1);
	if (p->text == NULL)
		goto fail;
	strcpy(p->text, text);
	*code = LINK_UNUSABLE;
	if (!endpoint_parse(&ep, p->text, true, why, size))
		goto fail;
	snprintf(why, size, "it is not asked for \"-\"");
	if (ep.kind == ENDPOINT_STDIO)
		goto fail;
	log_divert(why, size);
	p->n = sock_listen(&ep, p->tab);
	log_divert(NULL, 0);
	if (p->n == -1)
		goto fail;
	for (i = 0; i < p->n; i++)
		p->tab[i].guarded = p->tab[i].guarded && !tab->anybody;
	return p;

fail:
	free_post(p);
	return NULL;
}

/* What it is bound to, a line each, and an empty one. */
static bool
say_bound(struct legs *tab, struct leg *g)
{
	struct buf *out = &g->s->out.buf;
	const char *name;
	bool fits = true;
	int i;

	for (i = 0; i < g->post->n; i++) {
		name = sock_bound(&g->post->tab[i]);
		fits = fits && buf_put(out, name, strlen(name)) && buf_put(out, "\n", 1);
	}
	fits = fits && buf_put(out, "\n", 1);
	link_opened(tab->link, g->s);
	link_ready(tab->link, g->s);
	return fits;
}

static void
accept_listen(struct legs *tab, struct stream *s, int64_t now)
{
	char why[FRAME_WORDS];
	struct post *post;
	struct leg *g;
	uint16_t code;

	if (tab->fixed) {
		refuse(tab, s, LINK_FORBIDDEN, "this end connects to one target and listens nowhere");
		return;
	}
	post = new_post(tab, s->words + strlen(LISTEN), &code, why, sizeof(why));
	if (post == NULL) {
		refuse(tab, s, code, why);
		return;
	}
	g = add_leg(tab, now);
	if (g == NULL) {
		free_post(post);
		refuse(tab, s, LINK_NO_ROOM, "out of memory");
		return;
	}
	take_stream(g, s);
	g->post = post;
	set_phase(tab, g, LEG_LISTENS);
	if (!say_bound(tab, g))
		refuse_leg(tab, g, LINK_NO_ROOM, "out of memory", now);
}

static struct leg *
find_listening(const struct legs *tab, const char *id)
{
	struct watch *w;
	struct leg *g;
	char own[16];

	for (w = watch_next(&tab->watches, NULL); w != NULL; w = watch_next(&tab->watches, w)) {
		g = (struct leg *)w;
		if (g->over || g->phase != LEG_LISTENS)
			continue;
		snprintf(own, sizeof(own), "%lu", (unsigned long)g->s->id);
		if (strcmp(own, id) == 0)
			return g;
	}
	return NULL;
}

static void
accept_accept(struct legs *tab, struct stream *s, int64_t now)
{
	struct leg *by = find_listening(tab, s->words + strlen(ACCEPT)), *g;

	if (by == NULL) {
		refuse(tab, s, LINK_UNUSABLE, "nothing listens for it");
		return;
	}
	g = add_leg(tab, now);
	if (g == NULL) {
		refuse(tab, s, LINK_NO_ROOM, "out of memory");
		return;
	}
	take_stream(g, s);
	g->post = by->post;
	g->post->waiting++;
	set_phase(tab, g, LEG_WAITS);
}

void
leg_accept(struct legs *tab, int64_t now)
{
	struct stream *s;

	while ((s = link_next(tab->link)) != NULL) {
		if (strncmp(s->words, LISTEN, strlen(LISTEN)) == 0)
			accept_listen(tab, s, now);
		else if (strncmp(s->words, ACCEPT, strlen(ACCEPT)) == 0)
			accept_accept(tab, s, now);
		else
			accept_target(tab, s, now);
	}
}

/* Poll for connections as long as somebody waits for them. */
static void
want_listening(struct leg *g, struct pollset *ps)
{
	int i;

	for (i = 0; i < g->post->n; i++) {
		g->post->slots[i] = -1;
		if (g->post->waiting > 0 && g->post->tab[i].resume <= ps->now)
			g->post->slots[i] = pollset_add(ps, g->post->tab[i].fd, POLLIN);
		else if (g->post->waiting > 0)
			pollset_until(ps, g->post->tab[i].resume);
	}
}

static struct leg *
find_waiting(const struct legs *tab, const struct post *post)
{
	struct watch *w;
	struct leg *g;

	for (w = watch_next(&tab->watches, NULL); w != NULL; w = watch_next(&tab->watches, w)) {
		g = (struct leg *)w;
		if (!g->over && g->phase == LEG_WAITS && g->post == post)
			return g;
	}
	return NULL;
}

static void
take_connections(struct legs *tab, struct leg *by, struct listener *l, int64_t now)
{
	char name[SOCK_NAME];
	struct leg *g;
	int fd, i;

	for (i = 0; i < ACCEPTS && (g = find_waiting(tab, by->post)) != NULL; i++) {
		fd = sock_accept(l, name);
		if (fd == -1 && errno == EACCES)
			continue;
		if (fd == -1) {
			if (errno != EAGAIN && errno != EWOULDBLOCK)
				l->resume = now + FULL_PAUSE;
			return;
		}
		end_socket(&g->a, fd, l->path == NULL);
		close_post(tab, g);
		set_phase(tab, g, LEG_JOINED);
		watch_event(&tab->watches, &g->watch, now);
		link_opened(tab->link, g->s);
	}
}

static void
step_listening(struct legs *tab, struct leg *g, const struct pollset *ps)
{
	struct post *post = g->post;
	int i;

	for (i = 0; i < post->n; i++)
		if (pollset_ready(ps, post->slots[i]) != 0)
			take_connections(tab, g, &post->tab[i], ps->now);
	if (g->s->got_eof)
		end_leg(tab, g, true, ps->now);
}

/* ---- near: listening there ---- */

static bool
open_waiting(struct legs *tab, struct forward *f, int64_t now)
{
	char target[32];
	struct leg *g;

	snprintf(target, sizeof(target), ACCEPT "%lu", (unsigned long)f->stream);
	g = open_leg(tab, target, now);
	if (g == NULL)
		return false;
	g->forward = f;
	set_phase(tab, g, LEG_WAITS);
	return true;
}

static bool
cannot_ask(const struct legs *tab, struct forward *f)
{
	log_say(LOG_ERROR, "cannot ask %s for %s: no memory, or the link carries no more", tab->link->theirs.host,
	    f->kind == FORWARD_FAR ? f->from_text : f->to_text);
	f->state = FORWARD_REFUSED;
	return false;
}

bool
leg_remote(struct legs *tab, struct forward *f, int64_t now)
{
	char target[sizeof(LISTEN) + SOCK_PATH_MAX];
	struct leg *g;

	snprintf(target, sizeof(target), LISTEN "%s", f->from_text);
	g = open_leg(tab, target, now);
	if (g == NULL)
		return cannot_ask(tab, f);
	g->forward = f;
	f->state = FORWARD_ASKS;
	f->stream = g->s->id;
	f->bound[0] = '\0';
	set_phase(tab, g, LEG_ASKS);
	return true;
}

/* The addresses come, and behind them an empty line. Where no stream could be had for one that waits, it is tried again. */
static void
step_asking(struct legs *tab, struct leg *g, int64_t now)
{
	struct forward *f = g->forward;
	size_t have = strlen(f->bound), n, i;

	n = buf_take(&g->s->in.buf, f->bound + have, sizeof(f->bound) - 1 - have);
	f->bound[have + n] = '\0';
	for (i = have; i < have + n; i++)
		if (f->bound[i] == '\0')
			f->bound[i] = '?';
	if (n > 0)
		link_consumed(tab->link, g->s, n);
	if (f->state == FORWARD_ASKS && strstr(f->bound, "\n\n") != NULL) {
		log_plain(f->bound, have + n, '\n');
		f->state = FORWARD_STANDS;
	}
	while (f->state == FORWARD_STANDS && f->waiting < WAITING && open_waiting(tab, f, now))
		;
	if (g->s->got_eof || have + n == sizeof(f->bound) - 1) {
		f->state = FORWARD_REFUSED;
		end_leg(tab, g, true, now);
	}
}

/* Near: a connection has come there, and there is room for it here. */
static bool
is_to_be_dialed(const struct legs *tab, const struct leg *g)
{
	return tab->link->role == LINK_NEAR && g->s->opened && (tab->most == 0 || tab->n - tab->aside < tab->most);
}

/* Near: a connection has come there, and another one may: step_asking sees to it. */
static void
step_waiting(struct legs *tab, struct leg *g, int64_t now)
{
	if (is_to_be_dialed(tab, g))
		dial_target(tab, g, &g->forward->to, now);
	else if (tab->link->role == LINK_FAR && g->post == NULL)
		refuse_leg(tab, g, LINK_RESET, "", now);
}

/* ---- near: is the target there? ---- */

bool
leg_probe(struct legs *tab, struct forward *f, int64_t now)
{
	struct leg *g = open_leg(tab, f->to_text, now);

	if (g == NULL)
		return cannot_ask(tab, f);
	g->forward = f;
	f->state = FORWARD_ASKS;
	set_phase(tab, g, LEG_PROBES);
	return true;
}

static void
step_probing(struct legs *tab, struct leg *g, int64_t now)
{
	if (g->s->opened && g->s->out.state == HALF_OPEN) {
		g->forward->state = FORWARD_STANDS;
		/* Say nothing, and want to hear nothing: a clean end for whoever answers. */
		g->s->out.state = HALF_DRAIN;
		link_ready(tab->link, g->s);
		link_stop(tab->link, g->s);
	}
	if (g->s->sent_eof)
		end_leg(tab, g, false, now);
}

/* ---- near: SOCKS ---- */

bool
leg_socks(struct legs *tab, const struct end *a, int64_t now)
{
	struct leg *g = add_leg(tab, now);

	if (g == NULL)
		return false;
	g->socks = calloc(1, sizeof(*g->socks));
	if (g->socks == NULL) {
		g->over = true;
		return false;
	}
	g->a = *a;
	set_phase(tab, g, LEG_GREETS);
	return true;
}

/*
 * It is short, and the client waits for it: the socket takes it whole.  False: it did not, whatever the cause, and what comes behind
 * half an answer would be misread.
 */
static bool
answer(struct leg *g, const unsigned char *p, size_t n)
{
	ssize_t w = 0;

	if (n > 0)
		do
			w = write(g->a.out, p, n);
		while (w == -1 && errno == EINTR);
	if (w == (ssize_t)n)
		return true;
	if (w != -1 || (errno != EPIPE && errno != ECONNRESET))
		log_say(
		    LOG_ERROR, "a client of -D could not be answered: %s", w == -1 ? strerror(errno) : "its socket is full");
	return false;
}

static bool
answer_request(struct leg *g, uint16_t code)
{
	unsigned char room[SOCKS_REPLY];

	return answer(g, room, socks_reply(g->socks, code, room));
}

static void
open_request(struct legs *tab, struct leg *g, int64_t now)
{
	struct stream *s = link_open(tab->link, g->socks->target, g);

	if (s == NULL) {
		log_say(LOG_NOTICE, "refused a client of -D: the link carries no more connections");
		answer_request(g, LINK_NO_ROOM);
		end_leg(tab, g, false, now);
		return;
	}
	take_stream(g, s);
	set_phase(tab, g, LEG_KNOCKS);
}

static void
step_greeting(struct legs *tab, struct leg *g, const struct pollset *ps)
{
	unsigned char room[SOCKS_REPLY], in[512];
	size_t needs = socks_needs(g->socks), n;
	ssize_t r;

	if (!end_readable(&g->a, ps))
		return;
	r = read(g->a.in, in, needs < sizeof(in) ? needs : sizeof(in));
	if (r == -1 && (errno == EAGAIN || errno == EINTR))
		return;
	if (r == -1 && half_is_ours(errno))
		log_say(LOG_ERROR, "a client of -D could not be heard: %s", strerror(errno));
	if (r <= 0) {
		end_leg(tab, g, r == -1, ps->now);
		return;
	}
	socks_feed(g->socks, in, (size_t)r, room, &n);
	if (!answer(g, room, n))
		end_leg(tab, g, true, ps->now);
	else if (g->socks->state == SOCKS_WRONG) {
		log_say(LOG_INFO, "refused a client of -D: %s", g->socks->why);
		answer_request(g, g->socks->code);
		end_leg(tab, g, false, ps->now);
	} else if (g->socks->state == SOCKS_WANTS) {
		open_request(tab, g, ps->now);
	}
}

static void
step_knocking(struct legs *tab, struct leg *g, const struct pollset *ps)
{
	bool gone = g->s->opened ? !answer_request(g, LINK_END) : end_failed(&g->a, ps) != 0;

	if (gone) {
		refuse_leg(tab, g, LINK_RESET, "", ps->now);
	} else if (g->s->opened) {
		free(g->socks);
		g->socks = NULL;
		set_phase(tab, g, LEG_JOINED);
	}
}

/* ---- dialing ---- */

static uint16_t
dial_code(const struct dial *d)
{
	int err = dial_errno(d);

	return err == 0 ? LINK_NO_NAME : link_code(err);
}

static void
step_dial(struct legs *tab, struct leg *g, const struct pollset *ps)
{
	const struct endpoint *to = g->target != NULL ? &g->target->to : &g->forward->to.to;
	char why[ENDPOINT_NAME + 512];

	switch (dial_step(g->dial, ps)) {
	case DIAL_BUSY:
		return;
	case DIAL_DONE:
		end_socket(&g->a, dial_take(g->dial), to->kind == ENDPOINT_TCP);
		if (tab->link->role == LINK_FAR)
			link_opened(tab->link, g->s);
		set_phase(tab, g, LEG_JOINED);
		break;
	case DIAL_FAILED:
		dial_explain(g->dial, why, sizeof(why));
		log_say(tab->link->role == LINK_FAR ? LOG_INFO : LOG_ERROR, "%s", why);
		refuse_leg(tab, g, dial_code(g->dial), why, ps->now);
		return;
	}
	dial_free(g->dial, ps->now);
	free(g->target);
	g->dial = NULL;
	g->target = NULL;
}

/* ---- one turn ---- */

static bool
wants_read(const struct legs *tab, const struct leg *g)
{
	const struct half *out = &g->s->out;

	return half_wants_read(out) && (out->state == HALF_BROKEN || link_takes(tab->link, g->s));
}

static void
want(struct legs *tab, struct leg *g, struct pollset *ps)
{
	switch (g->phase) {
	case LEG_JOINED:
		end_want(&g->a, ps, wants_read(tab, g), half_wants_write(&g->s->in));
		break;
	case LEG_DIALS:
		dial_want(g->dial, ps);
		break;
	case LEG_GREETS:
	case LEG_KNOCKS:
		end_want(&g->a, ps, g->phase == LEG_GREETS && tab->link->state == LINK_UP, false);
		break;
	case LEG_LISTENS:
		want_listening(g, ps);
		break;
	case LEG_WAITS:
		if (is_to_be_dialed(tab, g))
			pollset_until(ps, ps->now); /* one has just ended */
		break;
	case LEG_ASKS:
	case LEG_PROBES:
		break;
	}
}

static void
pump_out(struct legs *tab, struct leg *g, bool readable)
{
	size_t n;
	int i;

	for (i = 0; i < ROUNDS && readable && wants_read(tab, g); i++) {
		n = half_read(&g->s->out, 1);
		readable = n == BUF_CHUNK && !g->a.in_blocks;
	}
}

static void
pump_in(struct legs *tab, struct leg *g, bool writable)
{
	uint64_t had = g->s->in.moved;

	if (half_wants_write(&g->s->in))
		half_write(&g->s->in, writable);
	if (g->s->in.moved != had)
		link_consumed(tab->link, g->s, (size_t)(g->s->in.moved - had));
}

/* What the far side said of a stream's end. A reset is a connection's own affair, unless it is the only one. */
static void
tell_close(const struct legs *tab, const struct leg *g)
{
	const char *words = g->s->words != NULL ? g->s->words : "";

	if (tab->link->role != LINK_NEAR || tab->link->state == LINK_DEAD)
		return;
	if (g->s->code == LINK_RESET && g->a.stdio)
		log_say(
		    LOG_ERROR, "%s: the connection broke: %s", tab->link->theirs.host, *words != '\0' ? words : "it was reset");
	else if (g->s->code != LINK_RESET && *words != '\0')
		log_say(LOG_ERROR, "%s: %s", tab->link->theirs.host, words);
}

/* The peer has reset the stream, or the link is gone. */
static void
on_reset(struct legs *tab, struct leg *g, int64_t now)
{
	struct stream *s = g->s;

	tell_close(tab, g);
	g->status = s->opened || s->code == LINK_RESET ? STATUS_BROKEN : STATUS_CONNECT;
	if (g->phase == LEG_ASKS || g->phase == LEG_PROBES)
		g->forward->state = FORWARD_REFUSED;
	if (g->phase == LEG_KNOCKS)
		answer_request(g, s->code);
	end_leg(tab, g, g->phase != LEG_KNOCKS, now);
}

/* The local side was reset. */
static void
reset_stream(struct legs *tab, struct leg *g, int err, int64_t now)
{
	g->status = STATUS_BROKEN;
	if (g->a.stdio || half_is_ours(err))
		log_say(LOG_ERROR, "a connection broke on this side of the link: %s", strerror(err));
	link_close(tab->link, g->s, LINK_RESET, strerror(err));
	end_leg(tab, g, true, now);
}

static int
side_error(struct leg *g, const struct pollset *ps)
{
	struct half *out = &g->s->out, *in = &g->s->in;
	int err;

	if (out->state == HALF_BROKEN && !out->by_sink)
		return out->err;
	if (in->state == HALF_BROKEN && (g->a.tcp || in->err != EPIPE))
		return in->err;
	if (g->a.single && out->state == HALF_OPEN && half_wants_read(out) && end_readable(&g->a, ps))
		return 0; /* what it said last is still being read */
	err = end_failed(&g->a, ps);
	if (err == EPIPE && !g->a.tcp) {
		half_break(in, EPIPE, true);
		return 0;
	}
	return err;
}

static void
settle(struct legs *tab, struct leg *g, const struct pollset *ps)
{
	struct stream *s = g->s;
	bool in_lost;
	int err;

	if (s->got_close && s->code != LINK_END) {
		on_reset(tab, g, ps->now);
		return;
	}
	err = side_error(g, ps);
	if (err != 0) {
		reset_stream(tab, g, err, ps->now);
		return;
	}
	in_lost = s->in.state == HALF_BROKEN;
	if (in_lost) {
		link_stop(tab->link, s);
		end_shut_out(&g->a);
		if (g->a.stdio)
			g->status = STATUS_BROKEN;
	}
	if (s->out.state == HALF_BROKEN && !g->a.tcp)
		end_shut_in(&g->a); /* the other side has stopped reading */
	half_shut(&s->in, true);
	if (s->in.state == HALF_BROKEN && !in_lost) {
		reset_stream(tab, g, s->in.err, ps->now); /* the end could not be told */
		return;
	}
	link_ready(tab->link, s);
	if (half_finished(&s->in) && (s->sent_eof || s->got_close))
		end_leg(tab, g, false, ps->now);
}

static void
step_joined(struct legs *tab, struct leg *g, const struct pollset *ps, bool fresh)
{
	pump_in(tab, g, fresh || end_writable(&g->a, ps));
	pump_out(tab, g, end_readable(&g->a, ps));
	settle(tab, g, ps);
}

/* What it takes to be joined. */
static void
step_alone(struct legs *tab, struct leg *g, const struct pollset *ps)
{
	switch (g->phase) {
	case LEG_GREETS:
	case LEG_JOINED:
		break;
	case LEG_DIALS:
		step_dial(tab, g, ps);
		break;
	case LEG_KNOCKS:
		step_knocking(tab, g, ps);
		break;
	case LEG_ASKS:
		step_asking(tab, g, ps->now);
		break;
	case LEG_WAITS:
		step_waiting(tab, g, ps->now);
		break;
	case LEG_LISTENS:
		step_listening(tab, g, ps);
		break;
	case LEG_PROBES:
		step_probing(tab, g, ps->now);
		break;
	}
}

static void
step(struct legs *tab, struct leg *g, const struct pollset *ps)
{
	bool fresh = g->phase != LEG_JOINED;

	if (g->over)
		return;
	if (g->s == NULL) {
		step_greeting(tab, g, ps);
		return;
	}
	if (g->s->got_close && g->s->code != LINK_END) {
		on_reset(tab, g, ps->now);
		return;
	}
	step_alone(tab, g, ps);
	if (g->s != NULL && g->phase == LEG_JOINED)
		step_joined(tab, g, ps, fresh);
}

/* ---- all legs ---- */

static bool
has_event(const struct leg *g, const struct pollset *ps)
{
	return (pollset_ready(ps, g->a.in_slot) | pollset_ready(ps, g->a.out_slot)) != 0;
}

/* Must it be looked at in every turn, for a time or for more than its own descriptors? */
static bool
is_restless(const struct leg *g)
{
	return g->phase == LEG_DIALS || g->phase == LEG_LISTENS || g->phase == LEG_ASKS ||
	       (g->phase == LEG_WAITS && (g->forward == NULL ? g->post == NULL : g->s->opened));
}

/* Wake those to whose streams the link has done something. */
static void
take_touched(struct legs *tab, int64_t now)
{
	struct stream *s;
	struct leg *g;

	while ((s = link_touched(tab->link)) != NULL) {
		g = s->user;
		g->touched = true;
		watch_event(&tab->watches, &g->watch, now);
	}
}

void
leg_want(struct legs *tab, struct pollset *ps)
{
	struct watch *w;

	take_touched(tab, ps->now);
	watch_turn(&tab->watches, ps);
	for (w = tab->watches.active.first; w != NULL; w = w->next)
		want(tab, (struct leg *)w, ps);
}

void
leg_step(struct legs *tab, const struct pollset *ps)
{
	struct watch *w;
	struct leg *g;

	take_touched(tab, ps->now);
	for (w = tab->watches.active.first; w != NULL; w = w->next) {
		g = (struct leg *)w;
		if (has_event(g, ps))
			watch_event(&tab->watches, w, ps->now);
		else if (!g->touched && !is_restless(g))
			continue;
		g->touched = false;
		step(tab, g, ps);
	}
}

int
leg_sweep(struct legs *tab, const struct pollset *ps)
{
	struct watch *w, *next;
	int status = STATUS_OK;
	struct leg *g;

	for (w = tab->watches.active.first; w != NULL; w = next) {
		next = w->next;
		g = (struct leg *)w;
		if (!g->over) {
			if (!is_restless(g) && watch_to_idle(&tab->watches, &g->watch, ps->now))
				end_unwatch(&g->a); /* it may be woken and stepped in a turn that has not polled it */
			continue;
		}
		if (g->status != STATUS_OK)
			status = g->status;
		watch_remove(&tab->watches, w);
		tab->n--;
		free(g);
	}
	return status;
}

/* Where the bytes of ${g} go, as far as this side knows. */
static const char *
to_name(const struct legs *tab, const struct leg *g, char *dst, size_t size)
{
	if (g->forward != NULL)
		return g->forward->to_text;
	if (g->s->words != NULL && g->s->words[0] != '\0' && g->s->words[0] != '=')
		return g->s->words;
	return tab->fixed ? endpoint_name(&tab->target->to, dst, size) : "its target";
}

void
leg_table(const struct legs *tab)
{
	char name[ENDPOINT_NAME];
	const struct watch *w;
	const struct leg *g;

	log_say(LOG_ERROR, "link to %s: %zu open stream%s", tab->link->theirs.host, tab->n - tab->aside,
	    tab->n - tab->aside == 1 ? "" : "s");
	for (w = watch_next(&tab->watches, NULL); w != NULL; w = watch_next(&tab->watches, w)) {
		g = (const struct leg *)w;
		if (g->over || g->s == NULL || is_aside(g->phase))
			continue;
		log_say(LOG_ERROR, "[%lu] -> %s%s: %llu bytes out, %llu in", (unsigned long)g->s->id,
		    to_name(tab, g, name, sizeof(name)), g->phase == LEG_JOINED ? "" : " (connecting)",
		    (unsigned long long)g->s->out.moved, (unsigned long long)g->s->in.moved);
	}
}
