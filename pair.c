/*
 * pair.c - two sides joined: two halves with one life.
 *
 *   dials  --target reached-->  joined  --both halves finished-->  over (freed by the sweep at the end of the turn)
 *      \---------------------------\--> over
 *
 * Side a came to us (a connection, or stdin and stdout), side b is where we went.  A half that is shut leaves the other one
 * alone, for as long as it likes.  A half whose reader went away stops taking from its source, and the other half goes on: what
 * was said last still arrives.  A TCP connection that was reset ends both, at once, and leaves as a reset where the other side
 * knows one.
 *
 * One case has a time limit: stdin at its end and stdout without a reader mean that whoever started relay is dead (the ssh of a
 * ProxyCommand, the sshd of a remote command).  What is left then must move within LINGER, or a target that does not read would
 * keep the process for ever.
 *
 * In each turn only active pairs are polled and stepped (poll.c): whatever happens to a pair comes from poll, or from a time that
 * it waits for, and a pair that waits for a time stays active.
 *
 * A chunk takes 50 us, and a turn in which each of many pairs moves one makes a keystroke wait.  So those that talk come before those
 * that move whole chunks (bulk), and as long as anybody talks few of these get a turn: one, and one more for each BESIDE that are
 * polled, for what poll costs.  They take it by turns.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "relay.h"

#define TURN 32 /* chunks that bulk moves in one turn, about: a busy connection must not keep the others waiting */
#define LINGER 1000
#define BULK (BUF_CHUNK / 2)
#define BESIDE 16

enum pair_state { PAIR_DIALS, PAIR_JOINED, PAIR_OVER };

struct pair {
	struct watch watch; /* the first member */
	unsigned long id;
	struct dial_target *target;
	struct dial *dial;
	struct child *child; /* the command that is side b */
	struct end a, b;
	struct half ab, ba;
	enum pair_state state;
	bool bulk;   /* it moved so much at once when it moved last */
	bool served; /* in this turn */
	int status;  /* what it means for relay's exit */
	int64_t began;
	int64_t moved_at; /* LINGER counts from here; 0: it does not */
	uint64_t moved;
	char from[SOCK_NAME];
};

static const char *
to_name(const struct pair *p, char *dst)
{
	return endpoint_name(&p->target->to, dst, ENDPOINT_NAME);
}

bool
pair_new(struct pairs *tab, const struct end *a, const char *from, struct dial_target *target, int64_t now)
{
	struct pair *p = calloc(1, sizeof(*p));
	char to[ENDPOINT_NAME];

	if (p == NULL)
		return false;
	p->dial = dial_start(target, now);
	if (p->dial == NULL) {
		free(p);
		return false;
	}
	p->a = *a;
	end_none(&p->b);
	half_init(&p->ab, &p->a, &p->b);
	half_init(&p->ba, &p->b, &p->a);
	p->target = target;
	p->began = now;
	p->id = ++tab->last_id;
	snprintf(p->from, sizeof(p->from), "%s", from);
	watch_add(&tab->watches, &p->watch, now);
	tab->n++;
	log_say(LOG_INFO, "[%lu] opened %s -> %s", p->id, p->from, to_name(p, to));
	return true;
}

static void
let_go(struct pair *p, bool reset_a, bool reset_b, int64_t now)
{
	p->state = PAIR_OVER;
	half_break(&p->ab, 0, false);
	half_break(&p->ba, 0, false);
	end_close(&p->a, reset_a);
	end_close(&p->b, reset_b);
	dial_free(p->dial, now);
	p->dial = NULL;
	if (p->child != NULL)
		spawn_release(p->child, now);
	p->child = NULL;
}

/* The life of the pair is cut short. */
static void
cut(struct pair *p, int status, int64_t now)
{
	p->status = status;
	let_go(p, true, true, now);
}

static void
join(struct pair *p, int64_t now)
{
	if (p->target->to.kind == ENDPOINT_STDIO && end_stdio(&p->b) == -1) {
		log_say(LOG_ERROR, "cannot use stdin and stdout: %s", strerror(errno));
		cut(p, STATUS_SYSTEM, now);
		return;
	}
	p->child = dial_take_child(p->dial);
	p->a.keeps_stderr = p->child != NULL; /* its end is still to be told */
	if (p->child != NULL)
		end_pipes(&p->b, spawn_take_in(p->child), spawn_take_out(p->child));
	else if (p->target->to.kind != ENDPOINT_STDIO)
		end_socket(&p->b, dial_take(p->dial), p->target->to.kind == ENDPOINT_TCP);
	dial_free(p->dial, now);
	p->dial = NULL;
	p->state = PAIR_JOINED;
}

/* ---- one turn ---- */

static void
want(struct pair *p, struct pollset *ps)
{
	if (p->state == PAIR_DIALS) {
		end_want(&p->a, ps, false, false);
		dial_want(p->dial, ps);
		return;
	}
	end_want(&p->a, ps, half_wants_read(&p->ab), half_wants_write(&p->ba));
	end_want(&p->b, ps, half_wants_read(&p->ba), half_wants_write(&p->ab));
	if (p->moved_at != 0)
		pollset_until(ps, p->moved_at + LINGER);
}

/* Returns true if the target was reached in this turn. */
static bool
step_dial(struct pair *p, const struct pollset *ps)
{
	char why[ENDPOINT_NAME + 512];
	int err = end_failed(&p->a, ps);

	/* A client that has closed, but said something before, is served. */
	if (err != 0 && !(err == EPIPE && p->a.single && end_has_unread(&p->a))) {
		cut(p, STATUS_BROKEN, ps->now);
		return false;
	}
	switch (dial_step(p->dial, ps)) {
	case DIAL_BUSY:
		return false;
	case DIAL_DONE:
		join(p, ps->now);
		return true;
	case DIAL_FAILED:
		log_say(LOG_ERROR, "%s", dial_explain(p->dial, why, sizeof(why)));
		cut(p, dial_status(p->dial), ps->now);
		break;
	}
	return false;
}

/* Move what can be moved, the write right behind the read: a poll between them would only cost time.  How much was read. */
static size_t
pump(struct half *h, bool readable, bool writable, int chunks)
{
	size_t n;

	if (writable)
		half_write(h, true);
	if (!readable || !half_wants_read(h))
		return 0;
	n = half_read(h, chunks);
	half_write(h, false);
	return n;
}

static bool
is_reset(const struct half *h)
{
	const struct end *at = h->by_sink ? h->dst : h->src;

	if (h->state != HALF_BROKEN)
		return false;
	/* Writing to a TCP socket that the peer has closed gives EPIPE where reading would have given ECONNRESET. */
	return !h->by_sink || at->tcp || h->err != EPIPE;
}

static const char *
side_name(const struct pair *p, const struct end *e, char *dst)
{
	if (e == &p->b)
		return to_name(p, dst);
	snprintf(dst, ENDPOINT_NAME, "%s", p->from);
	return dst;
}

static void
tell_reset(const struct pair *p, const struct half *h)
{
	struct end *at = h->by_sink ? h->dst : h->src, *other = h->by_sink ? h->src : h->dst;
	char one[ENDPOINT_NAME], two[ENDPOINT_NAME];

	log_say(p->a.stdio || p->b.stdio || half_is_ours(h->err) ? LOG_ERROR : LOG_INFO, "[%lu] %s broke: %s; %s %s", p->id,
	    side_name(p, at, one), strerror(h->err), side_name(p, other, two),
	    other->tcp ? "was reset too" : "was closed, it is not TCP and knows no reset");
}

/* Nobody is behind stdin and stdout any more, and what was said last does not move. */
static bool
is_stuck(struct pair *p, int64_t now)
{
	struct half *said = p->a.stdio ? &p->ab : &p->ba, *heard = p->a.stdio ? &p->ba : &p->ab;

	if (!said->src->stdio || heard->state != HALF_BROKEN || (said->state != HALF_DRAIN && !said->src->hup))
		return false;
	/* poll calls a socket writable only when much of its room is free; a slow reader makes less, and is seen by trying. */
	if (p->moved_at != 0 && now >= p->moved_at + LINGER)
		half_write(said, true);
	if (p->moved_at == 0 || said->moved != p->moved) {
		p->moved = said->moved;
		p->moved_at = now;
	}
	return now >= p->moved_at + LINGER;
}

/* The reader of ${h} is gone: its source learns of it where it can. */
static void
lose_reader(struct pair *p, struct half *h)
{
	char name[ENDPOINT_NAME];

	if (h->state != HALF_BROKEN || h->dst->out == -1)
		return;
	end_shut_out(h->dst);
	if (!h->src->tcp)
		end_shut_in(h->src);
	if (h->dst->stdio) {
		p->status = STATUS_BROKEN;
	} else if (h->lost && p->child == NULL) {
		p->status = STATUS_BROKEN;
		log_say(p->a.stdio ? LOG_ERROR : LOG_INFO, "[%lu] %s closed before it had taken everything", p->id,
		    side_name(p, h->dst, name));
	}
}

/* Nobody will ever read what was said to stdout: any other program would now die of SIGPIPE. */
static bool
speaks_to_nobody(const struct half *h)
{
	return h->dst->stdio && h->state == HALF_BROKEN && h->lost;
}

/*
 * All is said, but the source of ${broken} goes on speaking to nobody. TCP would answer a close now with a reset, which overtakes
 * the last bytes of ${shut} and destroys them: let it speak for a while.
 */
static bool
lingers(struct pair *p, const struct half *broken, const struct half *shut, int64_t now)
{
	if (broken->state != HALF_BROKEN || !broken->src->tcp || broken->src->in == -1 || shut->state != HALF_SHUT)
		return false;
	if (p->moved_at == 0)
		p->moved_at = now;
	return now < p->moved_at + LINGER;
}

static bool
cut_if_reset(struct pair *p, int64_t now)
{
	const struct half *broken = is_reset(&p->ab) ? &p->ab : is_reset(&p->ba) ? &p->ba : NULL;

	if (broken == NULL)
		return false;
	tell_reset(p, broken);
	cut(p, STATUS_BROKEN, now);
	return true;
}

/* The one place that looks at both halves and decides. */
static void
settle(struct pair *p, int64_t now)
{
	bool over;

	if (cut_if_reset(p, now))
		return;
	half_shut(&p->ab, p->ba.state != HALF_SHUT);
	half_shut(&p->ba, p->ab.state != HALF_SHUT);
	if (cut_if_reset(p, now)) /* an end that could not be told */
		return;
	lose_reader(p, &p->ab);
	lose_reader(p, &p->ba);
	over = half_finished(&p->ab) && half_finished(&p->ba) && !lingers(p, &p->ab, &p->ba, now) &&
	       !lingers(p, &p->ba, &p->ab, now);
	/* A direction that came to its end is never reset: its last bytes may still be on their way. */
	if (over || speaks_to_nobody(&p->ab) || speaks_to_nobody(&p->ba) || is_stuck(p, now))
		let_go(p, p->ba.state == HALF_BROKEN, p->ab.state == HALF_BROKEN, now);
}

/* ${to} leads to the side ${e}, ${from} comes from it: has that side failed? */
static void
check_side(struct end *e, struct half *from, struct half *to, const struct pollset *ps)
{
	int err;

	/* What it said last is still being read; its error or its end comes behind that. */
	if (e->single && from->state == HALF_OPEN && half_wants_read(from) && end_readable(e, ps))
		return;
	err = end_failed(e, ps);
	if (err != 0)
		half_break(to, err, true);
}

/* Has poll something for ${p}? */
static bool
has_event(const struct pair *p, const struct pollset *ps)
{
	return (pollset_ready(ps, p->a.in_slot) | pollset_ready(ps, p->a.out_slot) | pollset_ready(ps, p->b.in_slot) |
		   pollset_ready(ps, p->b.out_slot)) != 0;
}

static bool
waits_for_a_time(const struct pair *p)
{
	return p->state == PAIR_DIALS || p->moved_at != 0;
}

static void
step(struct pair *p, const struct pollset *ps, int chunks)
{
	size_t there, back;
	bool fresh = false;

	if (p->state == PAIR_DIALS)
		fresh = step_dial(p, ps);
	if (p->state != PAIR_JOINED)
		return;
	/* A client has mostly spoken by the time that its target is reached. */
	there = pump(&p->ab, fresh ? !p->a.in_blocks : end_readable(&p->a, ps), end_writable(&p->b, ps), chunks);
	back = pump(&p->ba, end_readable(&p->b, ps), end_writable(&p->a, ps), chunks);
	if (there > 0 || back > 0)
		p->bulk = there >= BULK || back >= BULK;
	check_side(&p->a, &p->ab, &p->ba, ps);
	check_side(&p->b, &p->ba, &p->ab, ps);
	settle(p, ps->now);
}

/* ---- all pairs ---- */

void
pair_want(struct pairs *tab, struct pollset *ps)
{
	struct watch *w;

	watch_turn(&tab->watches, ps);
	for (w = tab->watches.active.first; w != NULL; w = w->next)
		want((struct pair *)w, ps);
}

static int
chunks_beside(size_t busy)
{
	if (busy <= TURN / BUF_WIDE)
		return BUF_WIDE;
	return busy >= TURN ? 1 : TURN / (int)busy;
}

/* Step ${p}, if there is a reason to: was it one of its descriptors? */
static bool
serve(struct pairs *tab, struct pair *p, const struct pollset *ps, int chunks)
{
	enum pair_state before = p->state;
	bool event = has_event(p, ps);

	if (!event && !waits_for_a_time(p))
		return false;
	if (event)
		watch_event(&tab->watches, &p->watch, ps->now);
	step(p, ps, chunks);
	if (p->state != before)
		watch_event(&tab->watches, &p->watch, ps->now);
	p->served = event;
	return event;
}

void
pair_step(struct pairs *tab, const struct pollset *ps)
{
	size_t talkers = 0, bulks = 0, most;
	int chunks = chunks_beside(tab->busy);
	struct watch *w;
	struct pair *p;

	tab->busy = 0;
	for (w = tab->watches.active.first; w != NULL; w = w->next) {
		p = (struct pair *)w;
		if (p->bulk)
			continue;
		talkers++;
		tab->busy += serve(tab, p, ps, 1);
	}
	most = talkers == 0 ? SIZE_MAX : 1 + tab->watches.active.n / BESIDE;
	chunks = talkers == 0 ? chunks : 1;
	for (w = tab->watches.active.first; w != NULL; w = w->next) {
		p = (struct pair *)w;
		if (!p->bulk || p->served)
			continue;
		if (bulks < most)
			bulks += serve(tab, p, ps, chunks);
		else if (has_event(p, ps))
			watch_event(&tab->watches, w, ps->now);
	}
	tab->busy += bulks;
}

void
pair_stop(struct pairs *tab, int status, int64_t now)
{
	struct watch *w;
	struct pair *p;

	watch_wake_all(&tab->watches); /* pair_sweep looks at active pairs only */
	for (w = tab->watches.active.first; w != NULL; w = w->next) {
		p = (struct pair *)w;
		if (p->state != PAIR_OVER)
			cut(p, status, now);
	}
}

static void
tell_closed(const struct pair *p, int64_t now)
{
	char to[ENDPOINT_NAME];

	log_say(LOG_INFO, "[%lu] closed %s -> %s: %" PRIu64 " bytes there, %" PRIu64 " back, %.3f s", p->id, p->from,
	    to_name(p, to), p->ab.moved, p->ba.moved, (double)(now - p->began) / 1000);
}

/* Bulk that had its turn is the last one of the next turn. */
static void
settle_watch(struct pairs *tab, struct pair *p, const struct pollset *ps)
{
	if (p->served && p->bulk)
		watch_to_back(&tab->watches, &p->watch);
	else if (!waits_for_a_time(p))
		watch_to_idle(&tab->watches, &p->watch, ps->now);
	p->served = false;
}

int
pair_sweep(struct pairs *tab, const struct pollset *ps)
{
	struct watch *w, *next;
	int status = STATUS_OK;
	struct pair *p;

	for (w = tab->watches.active.first; w != NULL; w = next) {
		next = w->next;
		p = (struct pair *)w;
		if (p->state != PAIR_OVER) {
			settle_watch(tab, p, ps);
			continue;
		}
		tell_closed(p, ps->now);
		if (p->status != STATUS_OK)
			status = p->status;
		watch_remove(&tab->watches, w);
		tab->n--;
		free(p);
	}
	return status;
}

void
pair_table(const struct pairs *tab, int64_t now)
{
	const struct watch *w;
	const struct pair *p;
	char to[ENDPOINT_NAME];

	log_say(LOG_ERROR, "%zu open connection%s", tab->n, tab->n == 1 ? "" : "s");
	for (w = watch_next(&tab->watches, NULL); w != NULL; w = watch_next(&tab->watches, w)) {
		p = (const struct pair *)w;
		log_say(LOG_ERROR, "[%lu] %s -> %s%s: %" PRIu64 " bytes there, %" PRIu64 " back, %" PRId64 " s old", p->id,
		    p->from, to_name(p, to), p->state == PAIR_DIALS ? " (connecting)" : "", p->ab.moved, p->ba.moved,
		    (now - p->began) / 1000);
	}
}
