/*
 * rota.c - who is polled in which turn.
 *
 * poll() looks at every descriptor that it is given: 0.1 us each where it does not wait, three times that where it does, and three
 * times either once there are so many that the CPU's cache does not hold them. Ten thousand idle connections in each turn would cost
 * whoever has something to say 10 ms and more. So each connection has a seat, and is
 *
 *   awake    it had an event lately, or waits for a time: polled in every turn
 *   quiet    polled when its turn comes
 *   calling  not polled: the system calls us when something happens (os_call)
 *
 * and each turn is one of
 *
 *   all     nobody had an event lately, or only FEW are quiet: all quiet ones are polled, in one poll, which waits unless some
 *           of them will call from now on
 *   look    one is due: those awake, and LOOK quiet ones from the head of their queue; the poll does not wait
 *   else    those awake; the poll waits for WAIT, and the looks that become due meanwhile come one right behind the other
 *
 * Who is looked at and can call does so from then on: it is told to before it is polled, so that nothing can happen in between, and
 * if poll has nothing for it, it is polled no more until it called. So on a system that has calls nearly all soon sit there and
 * cost nothing. A call is a hint and no more: it wakes, and poll tells what there is. Where calls got lost, all are woken.
 *
 * Those that cannot call stay quiet. A look is due LOOK_EVERY after the one before, or SHARE times what that one's turn took if this
 * is longer. So looking costs a small part of the time, however many are quiet: of each millisecond 50 us with a thousand of them,
 * 200 us with ten thousand, and on a machine that has too much to do at most a third. What a quiet one has to say is seen within
 * WAIT, and LOOK_EVERY (or SHARE turns) for each LOOK that are quiet: 9 ms with a thousand of them, 45 ms with ten thousand, and that
 * only while others are busy. How many one look takes is fixed, since more after a long turn would make the next turn longer yet.
 *
 * Lately is LATELY and the time of a look at everybody. A poll that waits for all costs about as much as those looks do, so whoever
 * speaks again just too late makes relay do twice what was needed, and no more.
 */
#include <stdlib.h>
#include <string.h>

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

/* ---- calls ---- */

/* Who sits behind a descriptor that calls. */
struct caller {
	struct rota *rota;
	struct seat *seat;
};

static struct caller *callers; /* by descriptor */
static int callers_n;

static bool
make_room(int fd)
{
	int n = callers_n == 0 ? 64 : callers_n;
	struct caller *more;

	while (n <= fd)
		n *= 2;
	if (n == callers_n)
		return true;
	more = realloc(callers, (size_t)n * sizeof(*more));
	if (more == NULL)
		return false;
	memset(more + callers_n, 0, (size_t)(n - callers_n) * sizeof(*more));
	callers = more;
	callers_n = n;
	return true;
}

static void
hush(struct seat *s)
{
	int i;

	for (i = 0; i < 2; i++) {
		if (s->fd[i] == -1 || s->fd[i] >= callers_n || callers[s->fd[i]].seat != s)
			continue;
		callers[s->fd[i]].seat = NULL;
		os_hush(s->fd[i]);
	}
	s->calls = false;
}

/* What has happened by now is no call: ${s}, awake, is polled once more. */
static void
let_call(struct rota *r, struct seat *s)
{
	int i;

	s->calls = s->fd[0] != -1;
	for (i = 0; i < 2 && s->calls; i++) {
		if (s->fd[i] == -1)
			continue;
		s->calls = make_room(s->fd[i]) && os_call(s->fd[i]);
		if (s->calls)
			callers[s->fd[i]] = (struct caller){ .rota = r, .seat = s };
	}
	if (!s->calls)
		hush(s);
}

static void
wake(struct rota *r, struct seat *s)
{
	struct rota_list *from = s->calls ? &r->calling : &r->quiet;

	if (s->calls)
		hush(s);
	if (!s->rests)
		return;
	unlink_seat(from, s);
	append(&r->awake, s);
	s->rests = false;
}

static void
wake_caller(int fd)
{
	if (fd < callers_n && callers[fd].seat != NULL)
		wake(callers[fd].rota, callers[fd].seat);
}

static void
wake_callers(void)
{
	int fd;

	for (fd = 0; fd < callers_n; fd++)
		wake_caller(fd);
}

void
rota_hear(void)
{
	int fd;

	while ((fd = os_called()) != -1)
		if (fd == OS_CALLS_LOST)
			wake_callers();
		else
			wake_caller(fd);
}

/* ---- turns ---- */

static int64_t
lately(const struct rota *r)
{
	return LATELY + (int64_t)(r->quiet.n / LOOK) * LOOK_EVERY / 1000;
}

void
rota_add(struct rota *r, struct seat *s, int64_t now)
{
	s->rests = s->calls = false;
	append(&r->awake, s);
	rota_active(r, s, now);
}

void
rota_remove(struct rota *r, struct seat *s)
{
	wake(r, s);
	unlink_seat(&r->awake, s);
}

void
rota_active(struct rota *r, struct seat *s, int64_t now)
{
	wake(r, s);
	s->active_at = r->active_at = now;
}

void
rota_wake_all(struct rota *r)
{
	while (r->quiet.first != NULL)
		wake(r, r->quiet.first);
	while (r->calling.first != NULL)
		wake(r, r->calling.first);
}

/* Wake ${most} quiet ones to be polled in this turn. Returns true if some of them will call from then on. */
static bool
look(struct rota *r, size_t most)
{
	bool few = r->quiet.n <= FEW, some = false;
	struct seat *s;

	for (; most > 0 && (s = r->quiet.first) != NULL; most--) {
		wake(r, s);
		if (!few)
			let_call(r, s);
		some = some || s->calls;
	}
	return some;
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
	count_look(r, ps->now_us);
	if (r->quiet.n <= FEW || ps->now - r->active_at >= lately(r)) {
		if (look(r, SIZE_MAX))
			pollset_until(ps, ps->now); /* and then wait for those alone that cannot call */
		return;
	}
	if (ps->now_us < r->look_at) {
		pollset_until(ps, ps->now + WAIT);
		return;
	}
	look(r, LOOK);
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
rota_rest(struct rota *r, struct seat *s, int64_t now, int fd, int other)
{
	if (now - s->active_at < lately(r))
		return false;
	if (s->calls && (s->fd[0] != fd || s->fd[1] != other))
		hush(s);
	s->fd[0] = fd;
	s->fd[1] = other;
	unlink_seat(&r->awake, s);
	append(s->calls ? &r->calling : &r->quiet, s);
	s->rests = true;
	return true;
}

struct seat *
rota_next(const struct rota *r, const struct seat *s)
{
	if (s != NULL && (s->next != NULL || (s->rests && s->calls)))
		return s->next;
	if (s == NULL && r->awake.first != NULL)
		return r->awake.first;
	if ((s == NULL || !s->rests) && r->quiet.first != NULL)
		return r->quiet.first;
	return r->calling.first;
}
