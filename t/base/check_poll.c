/*
 * check_poll.c - the poll set; active and idle watches with a simulated clock
 */
#include "t/all.h"
#include "t/check.h"

static struct pollset ps;

/* ---- the poll set of one turn ---- */

START_TEST(a_set_of_zeros_works_and_minus_one_has_no_slot)
{
	pollset_begin(&ps);
	ck_assert_int_eq(pollset_add(&ps, -1, POLLIN), -1);
	ck_assert_uint_eq(ps.n, 0);
	ck_assert_int_eq(pollset_ready(&ps, -1), 0);
	ck_assert_int_eq(pollset_ready(&ps, 0), 0);
	ck_assert_int_eq(pollset_ready(&ps, 1000), 0);
	pollset_until(&ps, 0);
	ck_assert_int_eq(pollset_wait(&ps), 0);
}
END_TEST

START_TEST(each_slot_has_the_events_of_its_descriptor)
{
	int s[2], p[2], a, b, c;

	socks(s);
	ck_assert_int_eq(pipe(p), 0);
	pollset_begin(&ps);
	a = pollset_add(&ps, s[0], POLLIN);
	b = pollset_add(&ps, s[1], POLLIN | POLLOUT);
	c = pollset_add(&ps, p[0], POLLIN);
	ck_assert(a != b && b != c && a != c);
	ck_assert_int_eq(write(s[1], "x", 1), 1);
	ck_assert_int_eq(pollset_wait(&ps), 0);
	ck_assert_int_eq(pollset_ready(&ps, a), POLLIN);
	ck_assert_int_eq(pollset_ready(&ps, b), POLLOUT);
	ck_assert_int_eq(pollset_ready(&ps, c), 0);
	pollset_begin(&ps);
	ck_assert_int_eq(pollset_ready(&ps, a), 0);
}
END_TEST

START_TEST(a_hang_up_is_reported_without_events)
{
	int s[2], p[2], a, b;

	socks(s);
	ck_assert_int_eq(pipe(p), 0);
	close(s[1]);
	close(p[0]);
	pollset_begin(&ps);
	a = pollset_add(&ps, s[0], 0);
	b = pollset_add(&ps, p[1], 0);
	ck_assert_int_eq(pollset_wait(&ps), 0);
	ck_assert(pollset_ready(&ps, a) & POLLHUP);
	ck_assert(pollset_ready(&ps, b) & POLLERR);
}
END_TEST

START_TEST(a_thousand_descriptors_keep_their_slots)
{
	int s[2], slot[1000], i;

	socks(s);
	pollset_begin(&ps);
	for (i = 0; i < 1000; i++)
		slot[i] = pollset_add(&ps, s[i % 2], i % 2 ? POLLOUT : POLLIN);
	ck_assert_int_eq(pollset_wait(&ps), 0);
	for (i = 0; i < 1000; i++) {
		ck_assert_int_eq(slot[i], i);
		ck_assert_int_eq(pollset_ready(&ps, i), i % 2 ? POLLOUT : 0);
	}
}
END_TEST

START_TEST(the_first_deadline_counts_and_poll_does_not_wake_before_it)
{
	int64_t began;
	int i;

	for (i = 0; i < 20; i++) {
		pollset_begin(&ps);
		began = ps.now;
		pollset_until(&ps, began + 5000000);
		pollset_until(&ps, began + 7900);
		pollset_until(&ps, INT64_MAX);
		ck_assert_int_eq(pollset_wait(&ps), 0);
		ck_assert_int_ge(ps.now, began + 7900);
		ck_assert_int_lt(ps.now, began + 4000000);
	}
}
END_TEST

START_TEST(a_deadline_of_the_past_does_not_wait)
{
	int64_t began = ms();

	pollset_begin(&ps);
	pollset_until(&ps, ps.now - 100000000);
	ck_assert_int_eq(pollset_wait(&ps), 0);
	pollset_begin(&ps);
	pollset_until(&ps, INT64_MIN);
	ck_assert_int_eq(pollset_wait(&ps), 0);
	ck_assert_int_lt(ms() - began, 2000);
}
END_TEST

/* The timeout of poll(2) is an int: a later deadline must not overflow it. */
START_TEST(a_far_deadline_waits_for_descriptors)
{
	int64_t began;
	int p[2];

	ck_assert_int_eq(pipe(p), 0);
	pollset_begin(&ps);
	began = ms();
	pollset_until(&ps, ps.now + (INT64_C(1) << 40));
	pollset_add(&ps, p[0], POLLIN);
	if (fork() == 0) {
		poll(NULL, 0, 50);
		_exit(write(p[1], "x", 1) != 1);
	}
	ck_assert_int_eq(pollset_wait(&ps), 0);
	ck_assert_int_eq(pollset_ready(&ps, 0), POLLIN);
	ck_assert_int_ge(ms() - began, 40);
}
END_TEST

static void
nothing(int sig)
{
	(void)sig;
}

START_TEST(a_signal_ends_the_wait_without_events)
{
	struct sigaction sa;
	int p[2];

	memset(&sa, 0, sizeof(sa));
	sa.sa_handler = nothing;
	sigaction(SIGUSR1, &sa, NULL);
	ck_assert_int_eq(pipe(p), 0);
	pollset_begin(&ps);
	pollset_add(&ps, p[0], POLLIN);
	if (fork() == 0)
		for (;;) {
			poll(NULL, 0, 20);
			kill(getppid(), SIGUSR1);
		}
	ck_assert_int_eq(pollset_wait(&ps), 0);
	ck_assert_int_eq(pollset_ready(&ps, 0), 0);
	pollset_begin(&ps);
	pollset_add(&ps, p[1], POLLOUT);
	ck_assert_int_eq(pollset_wait(&ps), 0);
}
END_TEST

START_TEST(a_closed_descriptor_is_reported_and_the_others_are_polled)
{
	int p[2];

	ck_assert_int_eq(pipe(p), 0);
	close(p[0]);
	pollset_begin(&ps);
	pollset_add(&ps, p[0], POLLIN);
	pollset_add(&ps, p[1], POLLOUT);
	ck_assert_int_eq(pollset_wait(&ps), 0);
	ck_assert_int_eq(pollset_ready(&ps, 0), POLLNVAL);
}
END_TEST

START_TEST(the_clock_does_not_go_back)
{
	int64_t a = pollset_clock(), b;
	int i;

	for (i = 0; i < 10000; i++, a = b) {
		b = pollset_clock();
		ck_assert_int_ge(b, a);
	}
	ck_assert_int_le(llabs(ms() - a / 1000), 1000);
}
END_TEST

/* ---- active and idle watches ---- */

#define MOST 10000

static struct watches ws;
static struct item {
	struct watch watch;
	int64_t seen, worst; /* time of its last poll; longest time between two */
	bool timed;          /* waits for a time */
} item[MOST];
static int n;

static void
add(int count)
{
	ps.now = ps.now == 0 ? 1000000 : ps.now;
	for (; count > 0; count--, n++) {
		watch_add(&ws, &item[n].watch, ps.now);
		item[n].seen = ps.now;
	}
}

/* Poll the active ones without an event; return how many were polled. */
static size_t
turn(void)
{
	struct watch *w, *next;
	struct item *it;
	size_t polled;

	ps.deadline = INT64_MAX;
	watch_turn(&ws, &ps);
	polled = ws.active.n;
	for (w = ws.active.first; w != NULL; w = next) {
		next = w->next;
		it = (struct item *)w;
		if (ps.now - it->seen > it->worst)
			it->worst = ps.now - it->seen;
		it->seen = ps.now;
		if (!it->timed)
			watch_to_idle(&ws, w, ps.now);
	}
	ck_assert_uint_eq(ws.active.n + ws.idle.n, (size_t)n);
	return polled;
}

/* Add ${count} watches that had no event for a long time. */
static void
settle(int count)
{
	add(count);
	turn();
	ps.now += 1000000;
	turn();
	ck_assert_uint_eq(ws.active.n, 0);
	ck_assert_uint_eq(ws.idle.n, (size_t)count);
}

static int64_t
worst(void)
{
	int64_t most = 0;
	int i;

	for (i = 0; i < n; i++) {
		if (item[i].worst > most)
			most = item[i].worst;
		if (ps.now - item[i].seen > most)
			most = ps.now - item[i].seen;
	}
	return most;
}

static void
forget_worst(void)
{
	int i;

	for (i = 0; i < n; i++) {
		item[i].seen = ps.now;
		item[i].worst = 0;
	}
}

START_TEST(all_are_polled_without_a_limit_when_all_are_idle)
{
	int i;

	settle(_i == 0 ? 5 : 5000);
	for (i = 0; i < 10; i++) {
		ck_assert_uint_eq(turn(), (size_t)n);
		ck_assert_int_eq(ps.deadline, INT64_MAX);
		ps.now += i * 1000;
	}
}
END_TEST

START_TEST(a_few_idle_ones_are_polled_in_every_turn)
{
	int i;

	settle(9);
	for (i = 0; i < 1000; i++) {
		watch_event(&ws, &item[i / 100 % 9].watch, ps.now);
		ck_assert_uint_eq(turn(), 9);
		ck_assert_int_eq(ps.deadline, INT64_MAX);
		ps.now += i % 5 * 1000;
	}
}
END_TEST

START_TEST(an_active_one_is_mostly_polled_alone)
{
	size_t polled = 0;
	int i;

	settle(5000);
	turn();
	for (i = 0; i < 10000; i++) { /* ten turns a millisecond */
		ps.now += 100;
		watch_event(&ws, &item[7].watch, ps.now);
		polled += turn();
		ck_assert_int_eq(item[7].seen, ps.now);
		ck_assert_int_le(ps.deadline, ps.now + 5000);
	}
	ck_assert_uint_le(polled, 10000 + 1010 * 256);
}
END_TEST

/* The bound in poll.c, beside active ones, for turns of any length. */
START_TEST(an_idle_one_is_polled_within_a_bound)
{
	static const int count[] = { 20, 300, 1000, 5000, MOST }, takes[] = { 50, 1000, 3000, 5000 };
	int many = count[_i / 4], long_turn = takes[_i % 4], i;
	int64_t until;

	settle(many);
	turn();
	forget_worst();
	until = ps.now + 2000000;
	for (i = 0; ps.now < until; i++) {
		ps.now += long_turn;
		watch_event(&ws, &item[i & 1].watch, ps.now);
		turn();
	}
	ck_assert_int_le(worst(), 5000 + (many / 256 + 2) * (long_turn > 50 ? 3 * long_turn : 1000));
}
END_TEST

/* The active one has an event every 4 ms, and poll waits in between. */
START_TEST(slices_that_became_due_while_poll_waited_follow_at_once)
{
	int i, turns = 0;

	settle(1000);
	turn();
	forget_worst();
	for (i = 0; i < 100; i++) {
		watch_event(&ws, &item[0].watch, ps.now);
		do {
			turn();
			turns++;
		} while (ps.deadline <= ps.now);
		ck_assert_int_ge(ps.deadline, ps.now + 5000);
		ps.now += 4000;
	}
	ck_assert_int_le(worst(), 9000);
	ck_assert_int_le(turns, 100 * 6);
}
END_TEST

START_TEST(a_slice_does_not_grow_after_a_long_turn)
{
	settle(MOST);
	turn();
	watch_event(&ws, &item[0].watch, ps.now);
	turn();
	ps.now += 20000;
	watch_event(&ws, &item[0].watch, ps.now);
	ck_assert_uint_le(turn(), 1 + 256);
}
END_TEST

/* On a busy machine a slice takes 4 ms: most turns have no slice. */
START_TEST(slow_slices_are_rare)
{
	int i, slices = 0;

	settle(MOST);
	turn();
	for (i = 0; i < 1000; i++) {
		watch_event(&ws, &item[0].watch, ps.now);
		ps.now += turn() > 100 ? (slices++, 4000) : 333;
	}
	ck_assert_int_le(slices, 200);
	ck_assert_int_ge(slices, 20);
}
END_TEST

START_TEST(all_become_idle_when_no_more_events_come)
{
	int64_t began;
	int i;

	settle(1000);
	for (i = 0; i < 50; i++, ps.now += 1000) {
		watch_event(&ws, &item[i].watch, ps.now);
		turn();
	}
	began = ps.now;
	for (i = 0; ps.deadline != INT64_MAX; i++) {
		ck_assert_int_lt(i, 50);
		ps.now = ps.deadline;
		turn();
	}
	ck_assert_int_le(ps.now - began, 25000);
	ck_assert_uint_eq(ws.active.n, 0);
}
END_TEST

START_TEST(a_watch_with_a_time_stays_active_and_does_not_limit_the_wait)
{
	settle(100);
	item[50].timed = true;
	watch_event(&ws, &item[50].watch, ps.now);
	ps.now += 1000000;
	turn();
	ck_assert_int_eq(ps.deadline, INT64_MAX);
	ck_assert_uint_eq(ws.active.n, 1);
	ck_assert(!item[50].watch.idle);
}
END_TEST

START_TEST(active_ones_can_take_turns)
{
	int i;

	add(3);
	for (i = 0; i < 6; i++) {
		ck_assert_ptr_eq(ws.active.first, &item[i % 3].watch);
		watch_to_back(&ws, ws.active.first);
		ck_assert_ptr_eq(ws.active.last, &item[i % 3].watch);
	}
	ck_assert_uint_eq(ws.active.n, 3);
}
END_TEST

START_TEST(every_watch_can_be_removed_and_all_are_visited)
{
	static const int order[] = { 0, 19, 7, 8, 1, 18, 10 };
	struct watch *w;
	int i, visited = 0;

	settle(20);
	for (i = 5; i < 15; i++)
		watch_event(&ws, &item[i].watch, ps.now);
	for (i = 0; i < 7; i++)
		watch_remove(&ws, &item[order[i]].watch);
	for (w = watch_next(&ws, NULL); w != NULL; w = watch_next(&ws, w))
		visited++;
	ck_assert_int_eq(visited, 13);
	ck_assert_uint_eq(ws.active.n, 7);
	watch_wake_all(&ws);
	ck_assert_uint_eq(ws.active.n, 13);
	ck_assert_ptr_null(ws.idle.first);
	for (w = watch_next(&ws, NULL); w != NULL; w = watch_next(&ws, NULL))
		watch_remove(&ws, w);
	ck_assert_ptr_null(ws.active.last);
}
END_TEST

TESTS("poll")
{
	tcase_add_test(tc, a_set_of_zeros_works_and_minus_one_has_no_slot);
	tcase_add_test(tc, each_slot_has_the_events_of_its_descriptor);
	tcase_add_test(tc, a_hang_up_is_reported_without_events);
	tcase_add_test(tc, a_thousand_descriptors_keep_their_slots);
	tcase_add_test(tc, the_first_deadline_counts_and_poll_does_not_wake_before_it);
	tcase_add_test(tc, a_deadline_of_the_past_does_not_wait);
	tcase_add_test(tc, a_far_deadline_waits_for_descriptors);
	tcase_add_test(tc, a_signal_ends_the_wait_without_events);
	tcase_add_test(tc, a_closed_descriptor_is_reported_and_the_others_are_polled);
	tcase_add_test(tc, the_clock_does_not_go_back);
	tcase_add_loop_test(tc, all_are_polled_without_a_limit_when_all_are_idle, 0, 2);
	tcase_add_test(tc, a_few_idle_ones_are_polled_in_every_turn);
	tcase_add_test(tc, an_active_one_is_mostly_polled_alone);
	tcase_add_loop_test(tc, an_idle_one_is_polled_within_a_bound, 0, 20);
	tcase_add_test(tc, slices_that_became_due_while_poll_waited_follow_at_once);
	tcase_add_test(tc, a_slice_does_not_grow_after_a_long_turn);
	tcase_add_test(tc, slow_slices_are_rare);
	tcase_add_test(tc, all_become_idle_when_no_more_events_come);
	tcase_add_test(tc, a_watch_with_a_time_stays_active_and_does_not_limit_the_wait);
	tcase_add_test(tc, active_ones_can_take_turns);
	tcase_add_test(tc, every_watch_can_be_removed_and_all_are_visited);
}
