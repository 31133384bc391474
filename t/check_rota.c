/* check_rota.c - who is polled in which turn, over a clock of its own; needs rota.o pollset.o os.o */
#include "net.h"

#define MOST 10000

static struct rota r;
static struct pollset ps;
static struct guest {
	struct seat seat;
	int64_t seen, worst; /* when it was polled last, the longest time between */
	bool timed;          /* waits for a time */
	int fd[2];           /* its sockets, 0: none */
	int peer[2];
	int heard;           /* how often poll had something for it */
} guest[MOST];
static int n;

static void
seat(int count)
{
	ps.now = ps.now == 0 ? 1000000 : ps.now;
	for (; count > 0; count--, n++) {
		rota_add(&r, &guest[n].seat, ps.now);
		guest[n].seen = ps.now;
	}
}

/* What poll would have had for it. */
static bool
listen_to(struct guest *g)
{
	bool any = false;
	char c;
	int i;

	for (i = 0; i < 2; i++)
		while (g->fd[i] > 0 && read(g->fd[i], &c, 1) == 1)
			any = true;
	g->heard += any;
	return any;
}

/* A turn: who is awake is polled, and rests where it can. Returns how many were polled. */
static size_t
turn(void)
{
	struct seat *s, *next;
	struct guest *g;
	size_t polled;

	ps.deadline = INT64_MAX;
	ps.now_us = ps.now * 1000;
	rota_hear();
	rota_turn(&r, &ps);
	polled = r.awake.n;
	for (s = r.awake.first; s != NULL; s = next) {
		next = s->next;
		g = (struct guest *)s;
		if (ps.now - g->seen > g->worst)
			g->worst = ps.now - g->seen;
		g->seen = ps.now;
		if (listen_to(g))
			rota_active(&r, s, ps.now);
		if (!g->timed)
			rota_rest(&r, s, ps.now, g->fd[0] > 0 ? g->fd[0] : -1, g->fd[1] > 0 ? g->fd[1] : -1);
	}
	ck_assert_uint_eq(r.awake.n + r.quiet.n + r.calling.n, (size_t)n);
	return polled;
}

/* All have been quiet for long. */
static void
settle(int count)
{
	seat(count);
	turn();
	ps.now += 1000;
	turn();
	ck_assert_uint_eq(r.awake.n, 0);
	ck_assert_uint_eq(r.quiet.n, (size_t)count);
}

static int64_t
worst(void)
{
	int64_t most = 0;
	int i;

	for (i = 0; i < n; i++) {
		if (guest[i].worst > most)
			most = guest[i].worst;
		if (ps.now - guest[i].seen > most)
			most = ps.now - guest[i].seen;
	}
	return most;
}

static void
forget_worst(void)
{
	int i;

	for (i = 0; i < n; i++) {
		guest[i].seen = ps.now;
		guest[i].worst = 0;
	}
}

START_TEST(nobody_active_all_are_polled_without_a_limit)
{
	int i;

	settle(_i == 0 ? 5 : 5000);
	for (i = 0; i < 10; i++) {
		ck_assert_uint_eq(turn(), (size_t)n);
		ck_assert_int_eq(ps.deadline, INT64_MAX);
		ps.now += i;
	}
}
END_TEST

START_TEST(a_few_are_polled_in_every_turn)
{
	int i;

	settle(9);
	for (i = 0; i < 1000; i++) {
		rota_active(&r, &guest[i / 100 % 9].seat, ps.now);
		ck_assert_uint_eq(turn(), 9);
		ck_assert_int_eq(ps.deadline, INT64_MAX);
		ps.now += i % 5;
	}
}
END_TEST

/* One that is busy is polled in each turn, nearly always alone. */
START_TEST(a_busy_one_is_polled_alone)
{
	size_t polled = 0;
	int i;

	settle(5000);
	turn();
	for (i = 0; i < 10000; i++) { /* ten turns a millisecond */
		ps.now += i % 10 == 0;
		rota_active(&r, &guest[7].seat, ps.now);
		polled += turn();
		ck_assert_int_eq(guest[7].seen, ps.now);
		ck_assert_int_le(ps.deadline, ps.now + 5);
	}
	ck_assert_uint_le(polled, 10000 + 1010 * 256);
}
END_TEST

/* Beside busy ones, whatever a turn takes: the bound that rota.c states. */
START_TEST(a_quiet_one_is_seen_within_a_bound)
{
	static const int count[] = { 20, 300, 1000, 5000, MOST }, takes[] = { 0, 1, 3, 5 };
	int many = count[_i / 4], long_turn = takes[_i % 4], i;
	int64_t until;

	settle(many);
	turn();
	forget_worst();
	until = ps.now + 2000;
	for (i = 0; ps.now < until; i++) {
		ps.now += long_turn > 0 ? long_turn : i % 20 == 0;
		rota_active(&r, &guest[i & 1].seat, ps.now);
		turn();
	}
	ck_assert_int_le(worst(), 5 + (many / 256 + 2) * (long_turn > 0 ? 3 * long_turn : 1));
}
END_TEST

/* The busy one says something every 4 ms: relay sleeps in between, and still looks at all. */
START_TEST(looks_that_were_missed_while_it_waited_are_made_good)
{
	int i, turns = 0;

	settle(1000);
	turn();
	forget_worst();
	for (i = 0; i < 100; i++) {
		rota_active(&r, &guest[0].seat, ps.now);
		do {
			turn();
			turns++;
		} while (ps.deadline <= ps.now);
		ck_assert_int_ge(ps.deadline, ps.now + 5);
		ps.now += 4;
	}
	ck_assert_int_le(worst(), 9);
	ck_assert_int_le(turns, 100 * 6);
}
END_TEST

START_TEST(a_long_turn_makes_the_next_one_no_longer)
{
	settle(MOST);
	turn();
	rota_active(&r, &guest[0].seat, ps.now);
	turn();
	ps.now += 20;
	rota_active(&r, &guest[0].seat, ps.now);
	ck_assert_uint_le(turn(), 1 + 256);
}
END_TEST

/* A machine that has so much to do that each look takes 4 ms: most turns have none. */
START_TEST(slow_looks_are_rare)
{
	int i, looks = 0;

	settle(MOST);
	turn();
	for (i = 0; i < 1000; i++) {
		rota_active(&r, &guest[0].seat, ps.now);
		ps.now += turn() > 100 ? (looks++, 4) : i % 3 == 0;
	}
	ck_assert_int_le(looks, 200);
	ck_assert_int_ge(looks, 20);
}
END_TEST

START_TEST(all_come_to_rest_when_nobody_speaks_any_more)
{
	int64_t began;
	int i;

	settle(1000);
	for (i = 0; i < 50; i++, ps.now++) {
		rota_active(&r, &guest[i].seat, ps.now);
		turn();
	}
	began = ps.now;
	for (i = 0; ps.deadline != INT64_MAX; i++) {
		ck_assert_int_lt(i, 50);
		ps.now = ps.deadline;
		turn();
	}
	ck_assert_int_le(ps.now - began, 25);
	ck_assert_uint_eq(r.awake.n, 0);
}
END_TEST

START_TEST(who_waits_for_a_time_stays_awake_and_keeps_nobody_busy)
{
	settle(100);
	guest[50].timed = true;
	rota_active(&r, &guest[50].seat, ps.now);
	ps.now += 1000;
	turn();
	ck_assert_int_eq(ps.deadline, INT64_MAX);
	ck_assert_uint_eq(r.awake.n, 1);
	ck_assert(!guest[50].seat.rests);
}
END_TEST

START_TEST(those_awake_take_turns)
{
	int i;

	seat(3);
	for (i = 0; i < 6; i++) {
		ck_assert_ptr_eq(r.awake.first, &guest[i % 3].seat);
		rota_back(&r, r.awake.first);
		ck_assert_ptr_eq(r.awake.last, &guest[i % 3].seat);
	}
	ck_assert_uint_eq(r.awake.n, 3);
}
END_TEST

START_TEST(every_seat_can_be_left_and_all_are_told)
{
	static const int order[] = { 0, 19, 7, 8, 1, 18, 10 };
	struct seat *s;
	int i, told = 0;

	settle(20);
	for (i = 5; i < 15; i++)
		rota_active(&r, &guest[i].seat, ps.now);
	for (i = 0; i < 7; i++)
		rota_remove(&r, &guest[order[i]].seat);
	for (s = rota_next(&r, NULL); s != NULL; s = rota_next(&r, s))
		told++;
	ck_assert_int_eq(told, 13);
	ck_assert_uint_eq(r.awake.n, 7);
	rota_wake_all(&r);
	ck_assert_uint_eq(r.awake.n, 13);
	ck_assert_ptr_null(r.quiet.first);
	for (s = rota_next(&r, NULL); s != NULL; s = rota_next(&r, NULL))
		rota_remove(&r, s);
	ck_assert_ptr_null(r.awake.last);
}
END_TEST

/* ---- those that call ---- */

#define CROWD 100

/* CROWD guests with sockets, each other one with two, at rest. False: this system has no calls. */
static bool
settle_callers(void)
{
	int i, k, s[2];

	for (i = 0; i < CROWD; i++)
		for (k = 0; k <= i % 2; k++) {
			socks(s);
			fcntl(s[0], F_SETFL, O_NONBLOCK);
			guest[i].fd[k] = s[0];
			guest[i].peer[k] = s[1];
		}
	settle(CROWD);
	ps.now += 1000;
	turn();
	return os_call(guest[0].fd[0]);
}

static bool
calls(int fd)
{
	return (fcntl(fd, F_GETFL) & ~O_NONBLOCK & ~O_ACCMODE) != 0;
}

START_TEST(whoever_calls_is_polled_only_when_it_called)
{
	int i;

	if (!settle_callers())
		return;
	ck_assert_uint_eq(r.calling.n, CROWD);
	for (i = 0; i < CROWD; i++)
		ck_assert(calls(guest[i].fd[0]) && (i % 2 == 0 || calls(guest[i].fd[1])));
	for (i = 0; i < 50; i++, ps.now++)
		ck_assert_uint_eq(turn(), 0);
	ck_assert_int_eq(ps.deadline, INT64_MAX);
	for (i = 0; i < CROWD; i += 3) {
		ck_assert_int_eq(write(guest[i].peer[i % 2], "x", 1), 1);
		ck_assert_uint_le(turn(), 2 + 9); /* those that spoke lately, and a few quiet ones */
		ck_assert_int_eq(guest[i].heard, 1);
		ck_assert(!calls(guest[i].fd[0]) && (i % 2 == 0 || !calls(guest[i].fd[1])));
		ps.now += 11;
	}
	for (i = 0; i < 10; i++, ps.now += 20)
		turn();
	ck_assert_uint_ge(r.calling.n, CROWD - 8);
	for (i = 0; i < CROWD; i++)
		ck_assert_int_eq(guest[i].heard, i % 3 == 0);
}
END_TEST

/* What happens between the last poll and the first call, and right after it. */
START_TEST(nothing_is_lost_on_the_way_to_rest)
{
	int i, k;

	if (!settle_callers())
		return;
	for (k = 1; k <= 60; k++) {
		for (i = 0; i < CROWD; i++)
			ck_assert_int_eq(write(guest[i].peer[0], "x", 1), 1);
		turn();
		for (i = 0; i < CROWD; i++)
			ck_assert_int_eq(guest[i].heard, k);
		ps.now += k;
		turn();
		ps.now += k;
		turn();
	}
}
END_TEST

START_TEST(who_is_woken_calls_no_more)
{
	int i;

	if (!settle_callers())
		return;
	rota_active(&r, &guest[1].seat, ps.now);
	ck_assert(!calls(guest[1].fd[0]) && !calls(guest[1].fd[1]));
	rota_remove(&r, &guest[3].seat);
	ck_assert(!calls(guest[3].fd[0]) && !calls(guest[3].fd[1]));
	n--;
	guest[3].seat.rests = true;         /* it is gone, and its memory something else's; */
	ck_assert(os_call(guest[3].fd[0])); /* and its number */
	ck_assert_int_eq(write(guest[3].peer[0], "x", 1), 1);
	rota_hear();
	ck_assert_uint_eq(r.awake.n, 1);
	os_hush(guest[3].fd[0]);
	rota_wake_all(&r);
	for (i = 0; i < CROWD; i++)
		ck_assert(!calls(guest[i].fd[0]));
	ck_assert_uint_eq(r.awake.n, CROWD - 1);
}
END_TEST

START_TEST(all_are_woken_where_calls_were_lost)
{
	if (!settle_callers())
		return;
	raise(SIGIO);
	rota_hear();
	ck_assert_uint_eq(r.awake.n, CROWD);
}
END_TEST

START_TEST(whom_the_system_does_not_let_call_is_looked_at)
{
	int i;

	if (!settle_callers())
		return;
	rota_wake_all(&r);
	for (i = 0; i < 20; i++) {
		guest[i].seat.active_at = 0;
		guest[i].fd[i % 2] = 9999;
	}
	for (i = 0; i < 5; i++, ps.now += 20)
		turn();
	ck_assert_uint_eq(r.calling.n, CROWD - 20);
	ck_assert_uint_eq(r.quiet.n, 20);
	ck_assert_uint_eq(turn(), 20);
	ck_assert_int_eq(ps.deadline, INT64_MAX);
	for (i = 0; i < 20; i += 2)
		ck_assert(!calls(guest[i + 1].fd[0]));
}
END_TEST

/* It was told to call by one socket, and has another one now. */
START_TEST(another_socket_has_to_be_looked_at_first)
{
	int i, was = 0;

	if (!settle_callers())
		return;
	rota_wake_all(&r);
	for (i = 0; i < CROWD; i++)
		guest[i].seat.active_at = 0;
	turn();
	ck_assert_uint_eq(r.quiet.n, CROWD);
	was = guest[0].fd[0];
	guest[0].fd[0] = guest[2].fd[0];
	guest[2].fd[0] = was;
	turn();
	ck_assert_uint_eq(r.quiet.n, 2);
	ck_assert(!calls(guest[0].fd[0]) && !calls(guest[2].fd[0]));
	turn();
	ck_assert_uint_eq(r.quiet.n, 2); /* so few are polled in each turn */
}
END_TEST

TESTS("rota")
{
	tcase_add_loop_test(tc, nobody_active_all_are_polled_without_a_limit, 0, 2);
	tcase_add_test(tc, a_few_are_polled_in_every_turn);
	tcase_add_test(tc, a_busy_one_is_polled_alone);
	tcase_add_loop_test(tc, a_quiet_one_is_seen_within_a_bound, 0, 20);
	tcase_add_test(tc, looks_that_were_missed_while_it_waited_are_made_good);
	tcase_add_test(tc, a_long_turn_makes_the_next_one_no_longer);
	tcase_add_test(tc, slow_looks_are_rare);
	tcase_add_test(tc, all_come_to_rest_when_nobody_speaks_any_more);
	tcase_add_test(tc, who_waits_for_a_time_stays_awake_and_keeps_nobody_busy);
	tcase_add_test(tc, those_awake_take_turns);
	tcase_add_test(tc, whoever_calls_is_polled_only_when_it_called);
	tcase_add_test(tc, nothing_is_lost_on_the_way_to_rest);
	tcase_add_test(tc, who_is_woken_calls_no_more);
	tcase_add_test(tc, all_are_woken_where_calls_were_lost);
	tcase_add_test(tc, whom_the_system_does_not_let_call_is_looked_at);
	tcase_add_test(tc, another_socket_has_to_be_looked_at_first);
	tcase_add_test(tc, every_seat_can_be_left_and_all_are_told);
}
