/* check_pollset.c - one poll a turn; needs pollset.o */
#include "check.h"

static struct pollset ps;

START_TEST(zeros_may_begin_and_minus_one_has_no_slot)
{
	pollset_begin(&ps);
	ck_assert_int_eq(pollset_add(&ps, -1, POLLIN), -1);
	ck_assert_uint_eq(ps.n, 0);
	ck_assert_int_eq(pollset_ready(&ps, -1), 0);
	ck_assert_int_eq(pollset_ready(&ps, 0), 0);
	ck_assert_int_eq(pollset_ready(&ps, 1000), 0);
	pollset_until(&ps, 0);
	ck_assert_int_eq(pollset_wait(&ps), 0);
	pollset_free(&ps);
	pollset_free(&ps);
}
END_TEST

START_TEST(each_slot_answers_for_its_own_descriptor)
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

START_TEST(no_events_still_tell_of_the_end)
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

START_TEST(the_first_deadline_counts_and_is_never_missed_by_waking_early)
{
	int64_t began;
	int i;

	for (i = 0; i < 20; i++) {
		pollset_begin(&ps);
		began = ps.now;
		pollset_until(&ps, began + 5000);
		pollset_until(&ps, began + 7);
		pollset_until(&ps, INT64_MAX);
		ck_assert_int_eq(pollset_wait(&ps), 0);
		ck_assert_int_ge(ps.now, began + 7);
		ck_assert_int_lt(ps.now, began + 4000);
	}
}
END_TEST

START_TEST(a_deadline_of_the_past_does_not_wait)
{
	int64_t began = ms();

	pollset_begin(&ps);
	pollset_until(&ps, ps.now - 100000);
	ck_assert_int_eq(pollset_wait(&ps), 0);
	pollset_begin(&ps);
	pollset_until(&ps, INT64_MIN);
	ck_assert_int_eq(pollset_wait(&ps), 0);
	ck_assert_int_lt(ms() - began, 2000);
}
END_TEST

/* A time that is too far for poll's int must not become a busy or a broken wait. */
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

START_TEST(a_signal_ends_the_wait_which_has_seen_nothing)
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
	ck_assert(ps.blind);
	pollset_begin(&ps);
	ck_assert(ps.blind);
	pollset_add(&ps, p[1], POLLOUT);
	ck_assert_int_eq(pollset_wait(&ps), 0);
	ck_assert(!ps.blind);
}
END_TEST

START_TEST(a_closed_descriptor_is_told_and_does_not_end_the_wait_for_all)
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
	ck_assert_int_le(llabs(ms() - a), 1000);
}
END_TEST

TESTS("pollset")
{
	tcase_add_test(tc, zeros_may_begin_and_minus_one_has_no_slot);
	tcase_add_test(tc, each_slot_answers_for_its_own_descriptor);
	tcase_add_test(tc, no_events_still_tell_of_the_end);
	tcase_add_test(tc, a_thousand_descriptors_keep_their_slots);
	tcase_add_test(tc, the_first_deadline_counts_and_is_never_missed_by_waking_early);
	tcase_add_test(tc, a_deadline_of_the_past_does_not_wait);
	tcase_add_test(tc, a_far_deadline_waits_for_descriptors);
	tcase_add_test(tc, a_signal_ends_the_wait_which_has_seen_nothing);
	tcase_add_test(tc, a_closed_descriptor_is_told_and_does_not_end_the_wait_for_all);
	tcase_add_test(tc, the_clock_does_not_go_back);
}
