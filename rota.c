/*
 * rota.c - who is polled in which turn.
 *
 * poll() looks at every descriptor that it is given: 0.1 us each where it does not wait, three times that where it does, and three
 * times either once there are so many that the CPU's cache does not hold them. Ten thousand idle connections in each turn would cost
 * whoever has something to say 10 ms and more. So each connection has a seat, and is
 *
 *   awake   it had an event lately, or waits for a time: polled in every turn
 *   quiet   polled when its turn comes
 *
 * and each turn is one of
 *
 *   all     nobody had an event lately, or only FEW are quiet: everybody is polled, in one call that waits
 *   look    one is due: those awake, and LOOK quiet ones from the head of their queue; the call does not wait
 *   else    those awake; the call waits for WAIT, and the looks that become due meanwhile come one right behind the other
 *
 * A look is due LOOK_EVERY after the one before, or SHARE times what that one's turn took if this is longer. So looking costs a
 * small part of the time, however many are quiet: of each millisecond 50 us with a thousand of them, 200 us with ten thousand, and
 * on a machine that has too much to do at most a third. What a quiet one has to say is seen within WAIT, and LOOK_EVERY (or SHARE
 * turns) for each LOOK that are quiet: 9 ms with a thousand of them, 45 ms with ten thousand, and that only while others are busy.
 * How many one look takes is fixed, since more after a long turn would make the next turn longer yet.
 *
 * Lately is LATELY and the time of a look at everybody. A call that waits for all costs about as much as those looks do, so whoever
 * speaks again just too late makes relay do twice what was needed, and no more.
 */
#include "relay.h"

#define FEW 8           /* quiet ones that cost less than a second kind of turn */
#define LATELY 10       /* ms */
#define LOOK_EVERY 1000 /* us */
#define LOOK 256
#define SHARE 3
#define WAIT 5 /* ms: a shorter one would set the hardware's timer anew in each turn, which costs 5 us */

static void
append(struct rota_list *list, struct seat *s)
{
	s->prev = list->last;
	s->next = NULL;
	if (list->last == NULL)
		list->first = s;
	else
		list->last->next = s;
	list->last = s;
	list->n++;
}

static void
unlink_seat(struct rota_list *list, struct seat *s)
{
	if (s->prev == NULL)
		list->first = s->next;
	else
		s->prev->next = s->next;
	if (s->next == NULL)
		list->last = s->prev;
	else
		s->next->prev = s->prev;
	list->n--;
}

static void
wake(struct rota *r, struct seat *s)
{
	unlink_seat(&r->quiet, s);
	append(&r->awake, s);
	s->quiet = false;
}

static int64_t
lately(const struct rota *r)
{
	return LATELY + (int64_t)(r->quiet.n / LOOK) * LOOK_EVERY / 1000;
}

void
rota_add(struct rota *r, struct seat *s, int64_t now)
{
	s->quiet = false;
	append(&r->awake, s);
	rota_active(r, s, now);
}

void
rota_remove(struct rota *r, struct seat *s)
{
	unlink_seat(s->quiet ? &r->quiet : &r->awake, s);
}

void
rota_active(struct rota *r, struct seat *s, int64_t now)
{
	if (s->quiet)
		wake(r, s);
	s->active_at = r->active_at = now;
}

void
rota_wake_all(struct rota *r)
{
	while (r->quiet.first != NULL)
		wake(r, r->quiet.first);
}

/* The turn of the last look is over: if it took long, the next one is due later. */
static void
count_look(struct rota *r, int64_t now_us)
{
	int64_t cost = r->looked_at == 0 ? 0 : SHARE * (now_us - r->looked_at);

	r->looked_at = 0;
	if (cost > LOOK_EVERY)
		r->look_at += cost - LOOK_EVERY;
}

void
rota_turn(struct rota *r, struct pollset *ps)
{
	int n;

	count_look(r, ps->now_us);
	if (r->quiet.n <= FEW || ps->now - r->active_at >= lately(r)) {
		rota_wake_all(r);
		return;
	}
	if (ps->now_us < r->look_at) {
		pollset_until(ps, ps->now + WAIT);
		return;
	}
	for (n = 0; n < LOOK && r->quiet.first != NULL; n++)
		wake(r, r->quiet.first);
	if (r->look_at < ps->now_us - WAIT * 1000)
		r->look_at = ps->now_us - WAIT * 1000;
	r->look_at += LOOK_EVERY;
	r->looked_at = ps->now_us;
	pollset_until(ps, ps->now);
}

void
rota_back(struct rota *r, struct seat *s)
{
	unlink_seat(&r->awake, s);
	append(&r->awake, s);
}

bool
rota_rest(struct rota *r, struct seat *s, int64_t now)
{
	if (now - s->active_at < lately(r))
		return false;
	unlink_seat(&r->awake, s);
	append(&r->quiet, s);
	s->quiet = true;
	return true;
}

struct seat *
rota_next(const struct rota *r, const struct seat *s)
{
	if (s == NULL)
		return r->awake.first != NULL ? r->awake.first : r->quiet.first;
	return s->next != NULL || s->quiet ? s->next : r->quiet.first;
}
