/*
 * leg.c - a local side and a stream: what pair.c is for two local sides.
 *
 *   near: joined --> over          far: dials --> joined --> over
 *
 * Bytes that come from the side go into the stream's out half, and what the stream's in half holds is written to it; what was
 * written becomes credit. A reset of the side resets the stream, and the other way round; a reader that went away stops the other
 * side's writer. The leg ends when both halves are finished; the stream goes on by itself to its end.
 *
 * A leg is asked and stepped when it is its turn (rota.c), and when the link has done something to its stream.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "relay.h"

#define ROUNDS 4

struct leg {
	struct seat seat; /* in the rota; the first member */
	struct end a;
	struct stream *s;
	struct dial *dial;          /* far: until the target is reached */
	struct dial_target *target; /* far: its own copy, while it dials */
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
	rota_add(&tab->rota, &g->seat, now);
	tab->n++;
	return g;
}

static void
take_stream(struct leg *g, struct stream *s)
{
	g->s = s;
	s->user = g;
	s->out.src = &g->a;
	s->in.dst = &g->a;
}

bool
leg_new(struct legs *tab, const struct end *a, const char *target, int64_t now)
{
	struct leg *g = add_leg(tab, now);
	struct stream *s;

	if (g == NULL)
		return false;
	s = link_open(tab->link, target, g);
	if (s == NULL) {
		g->over = true;
		return false;
	}
	take_stream(g, s);
	g->a = *a;
	return true;
}

static void
end_leg(struct legs *tab, struct leg *g, bool reset, int64_t now)
{
	g->over = true;
	end_close(&g->a, reset);
	dial_free(g->dial, now);
	free(g->target);
	g->dial = NULL;
	g->target = NULL;
	if (g->s != NULL) {
		half_break(&g->s->out, 0, false);
		g->s->out.src = g->s->in.dst = NULL;
		link_release(tab->link, g->s);
	}
	g->s = NULL;
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

void
leg_accept(struct legs *tab, int64_t now)
{
	struct dial_target *t;
	struct stream *s;
	struct leg *g;

	while ((s = link_next(tab->link)) != NULL) {
		t = find_target(tab, s);
		if (t == NULL)
			continue;
		g = add_leg(tab, now);
		if (g == NULL) {
			free(t);
			refuse(tab, s, LINK_NO_ROOM, "out of memory");
			continue;
		}
		take_stream(g, s);
		g->target = t;
		g->dial = dial_start(t, now);
		if (g->dial == NULL) {
			link_close(tab->link, s, LINK_NO_ROOM, "out of memory");
			end_leg(tab, g, true, now);
		}
	}
}

static uint16_t
dial_code(const struct dial *d)
{
	int err = dial_errno(d);

	return err == 0 ? LINK_NO_NAME : link_code(err);
}

static void
step_dial(struct legs *tab, struct leg *g, const struct pollset *ps)
{
	char why[ENDPOINT_NAME + 512];

	switch (dial_step(g->dial, ps)) {
	case DIAL_BUSY:
		return;
	case DIAL_DONE:
		end_socket(&g->a, dial_take(g->dial), g->target->to.kind == ENDPOINT_TCP);
		link_opened(tab->link, g->s);
		break;
	case DIAL_FAILED:
		log_say(LOG_INFO, "%s", dial_explain(g->dial, why, sizeof(why)));
		link_close(tab->link, g->s, dial_code(g->dial), why);
		end_leg(tab, g, true, ps->now);
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
	if (g->dial != NULL)
		dial_want(g->dial, ps);
	else
		end_want(&g->a, ps, wants_read(tab, g), half_wants_write(&g->s->in));
}

static void
pump_out(struct legs *tab, struct leg *g, bool readable)
{
	size_t n;
	int i;

	for (i = 0; i < ROUNDS && readable && wants_read(tab, g); i++) {
		n = half_read(&g->s->out);
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

/* The peer has reset the stream, or the link is gone. */
static void
on_reset(struct legs *tab, struct leg *g, int64_t now)
{
	struct stream *s = g->s;

	if (tab->link->role == LINK_NEAR && tab->link->state != LINK_DEAD && s->words != NULL && s->words[0] != '\0' &&
	    s->code != LINK_RESET)
		log_say(LOG_ERROR, "%s: %s", tab->link->theirs.host, s->words);
	g->status = s->opened || s->code == LINK_RESET ? STATUS_BROKEN : STATUS_CONNECT;
	end_leg(tab, g, true, now);
}

/* The local side was reset. */
static void
reset_stream(struct legs *tab, struct leg *g, int err, int64_t now)
{
	g->status = STATUS_BROKEN;
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
	}
	if (s->out.state == HALF_BROKEN && !g->a.tcp)
		end_shut_in(&g->a); /* the other side has stopped reading */
	half_shut(&s->in, true);
	link_ready(tab->link, s);
	if (half_finished(&s->in) && (s->sent_eof || s->got_close))
		end_leg(tab, g, false, ps->now);
}

static void
step(struct legs *tab, struct leg *g, const struct pollset *ps)
{
	bool fresh = g->dial != NULL;

	if (g->over)
		return;
	if (g->s->got_close && g->s->code != LINK_END) {
		on_reset(tab, g, ps->now);
		return;
	}
	if (g->dial != NULL)
		step_dial(tab, g, ps);
	if (g->over || g->dial != NULL)
		return;
	pump_in(tab, g, fresh || end_writable(&g->a, ps));
	pump_out(tab, g, end_readable(&g->a, ps));
	settle(tab, g, ps);
}

/* ---- all legs ---- */

static bool
has_event(const struct leg *g, const struct pollset *ps)
{
	return (pollset_ready(ps, g->a.in_slot) | pollset_ready(ps, g->a.out_slot)) != 0;
}

/* Wake those to whose streams the link has done something. */
static void
take_touched(struct legs *tab, int64_t now)
{
	struct stream *s;
	struct leg *g;

	while ((s = link_touched(tab->link)) != NULL) {
		g = s->user;
		if (g->seat.quiet)
			end_unwatch(&g->a);
		g->touched = true;
		rota_active(&tab->rota, &g->seat, now);
	}
}

void
leg_want(struct legs *tab, struct pollset *ps)
{
	struct seat *s;

	take_touched(tab, ps->now);
	rota_turn(&tab->rota, ps);
	for (s = tab->rota.awake.first; s != NULL; s = s->next)
		want(tab, (struct leg *)s, ps);
}

void
leg_step(struct legs *tab, const struct pollset *ps)
{
	struct seat *s;
	struct leg *g;

	take_touched(tab, ps->now);
	for (s = tab->rota.awake.first; s != NULL; s = s->next) {
		g = (struct leg *)s;
		if (has_event(g, ps))
			rota_active(&tab->rota, s, ps->now);
		else if (!g->touched && g->dial == NULL)
			continue;
		g->touched = false;
		step(tab, g, ps);
	}
}

int
leg_sweep(struct legs *tab, int64_t now)
{
	struct seat *s, *next;
	int status = STATUS_OK;
	struct leg *g;

	for (s = tab->rota.awake.first; s != NULL; s = next) {
		next = s->next;
		g = (struct leg *)s;
		if (!g->over) {
			if (g->dial == NULL)
				rota_rest(&tab->rota, s, now);
			continue;
		}
		if (g->status != STATUS_OK)
			status = g->status;
		rota_remove(&tab->rota, s);
		tab->n--;
		free(g);
	}
	return status;
}

void
leg_table(const struct legs *tab)
{
	const struct seat *s;
	const struct leg *g;

	log_say(LOG_ERROR, "link to %s: %zu open stream%s, round trip %lld us", tab->link->theirs.host, tab->n,
	    tab->n == 1 ? "" : "s", (long long)tab->link->pace.trip);
	for (s = rota_next(&tab->rota, NULL); s != NULL; s = rota_next(&tab->rota, s)) {
		g = (const struct leg *)s;
		if (!g->over)
			log_say(LOG_ERROR, "[%lu]%s %llu bytes out, %llu in", (unsigned long)g->s->id,
			    g->dial != NULL ? " (connecting)" : "", (unsigned long long)g->s->out.moved,
			    (unsigned long long)g->s->in.moved);
	}
}
