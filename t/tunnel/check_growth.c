/* check_growth.c - how many channels a link gets. */
#include "t/all.h"
#include "t/check.h"
#include "tunnel/growth.h"

#define SECOND 1000000

static struct growth g;
static struct growth_facts f;
static int64_t now;
static unsigned rate; /* bytes in a millisecond */

/* One turn each 10 ms until ${seconds} have passed, or another number is wanted. */
static unsigned
run(unsigned seconds)
{
	int64_t until = now + (int64_t)seconds * SECOND;
	unsigned wanted = f.up;

	while (now < until && (wanted = growth_step(&g, &f, now)) == f.up) {
		now += 10000;
		f.bytes += rate * 10;
	}
	return wanted;
}

static void
bulk(void)
{
	memset(&g, 0, sizeof(g));
	now = 100 * SECOND;
	f = (struct growth_facts){ .up = 1, .most = 8, .rtt_us = 20000, .limited_at = now };
	rate = 1000;
}

/* The channels that were tried are up, and the rate is ${after}. */
static void
come_up(unsigned n, unsigned after)
{
	f.starting = n - f.up;
	ck_assert_uint_eq(growth_step(&g, &f, now), n);
	now += SECOND / 2;
	f.bytes += rate * 500;
	f.starting = 0;
	f.up = n;
	f.limited_at = now;
	rate = after;
}

START_TEST(doubles_while_it_helps)
{
	bulk();
	ck_assert_uint_eq(run(10), 2);
	ck_assert_int_ge(now, 102 * SECOND);
	ck_assert_int_le(now, 103 * SECOND);
	come_up(2, 2000);
	ck_assert_uint_eq(run(10), 4);
	come_up(4, 3000);
	ck_assert_uint_eq(run(10), 8);
	come_up(8, 4000);
	ck_assert_uint_eq(run(100), 8);
	f.limited_at = INT64_MAX; /* the bulk has ended */
	rate = 0;
	ck_assert_uint_eq(run(59), 8);
	ck_assert_uint_eq(run(2), 1);
}
END_TEST

START_TEST(gives_up_without_gain)
{
	bulk();
	ck_assert_uint_eq(run(10), 2);
	come_up(2, 1100);
	ck_assert_uint_eq(run(10), 1);
	f.up = 1;
	ck_assert_uint_eq(run(595), 1);
	ck_assert_uint_eq(run(10), 2);
}
END_TEST

/* With more channels, none is full, but the bulk is not faster. */
START_TEST(gives_up_without_gain_although_nothing_waits)
{
	bulk();
	ck_assert_uint_eq(run(10), 2);
	come_up(2, 900);
	f.limited_at = INT64_MAX;
	ck_assert_uint_eq(run(10), 1);
}
END_TEST

START_TEST(gives_up_if_none_comes_up)
{
	bulk();
	ck_assert_uint_eq(run(10), 2);
	ck_assert_uint_eq(run(500), 1);
	ck_assert_uint_eq(run(200), 2);
	growth_reset(&g);
	ck_assert_uint_eq(run(10), 2);
	ck_assert_uint_eq(run(10), 1);
	growth_reset(&g); /* the line was lost: the next one can be another */
	ck_assert_uint_eq(run(10), 2);
}
END_TEST

/* Only some of them came up: sshd has a limit. */
START_TEST(keeps_those_that_came_up)
{
	bulk();
	f.up = 2;
	ck_assert_uint_eq(run(10), 4);
	come_up(3, 2000);
	ck_assert_uint_eq(run(10), 6);
}
END_TEST

START_TEST(waits_for_a_need)
{
	bulk();
	f.rtt_us = 4000; /* a short line */
	ck_assert_uint_eq(run(60), 1);
	f.rtt_us = 20000;
	f.limited_at = INT64_MAX;
	ck_assert_uint_eq(run(60), 1);
	f.limited_at = now;
	f.most = 1;
	ck_assert_uint_eq(run(60), 1);
	f.most = 3;
	f.up = 2;
	ck_assert_uint_eq(run(60), 3);
}
END_TEST

/* A bulk that ends during the check neither proves nor refutes a gain. */
START_TEST(bulk_that_ends)
{
	bulk();
	ck_assert_uint_eq(run(10), 2);
	come_up(2, 0);
	f.limited_at = INT64_MAX;
	ck_assert_uint_eq(run(50), 2);
	ck_assert_uint_eq(run(12), 1);
	f.up = 1;
	f.limited_at = now;
	rate = 1000;
	ck_assert_uint_eq(run(10), 2);
}
END_TEST

/* The far side needs a second to report that bulk is limited again. */
START_TEST(short_pauses)
{
	unsigned i;

	bulk();
	ck_assert_uint_eq(run(1), 1);
	f.limited_at = INT64_MAX;
	ck_assert_uint_eq(run(1), 1);
	f.limited_at = now;
	ck_assert_uint_eq(run(1), 2);
	bulk();
	for (i = 0; i < 10; i++) {
		f.limited_at = now;
		ck_assert_uint_eq(run(1), 1);
		f.limited_at = INT64_MAX;
		ck_assert_uint_eq(run(2), 1);
	}
}
END_TEST

/* Nor does one in which a channel is lost. */
START_TEST(channel_that_is_lost_in_a_check)
{
	bulk();
	ck_assert_uint_eq(run(10), 2);
	come_up(2, 2000);
	ck_assert_uint_eq(run(10), 4);
	come_up(4, 2000);
	ck_assert_uint_eq(run(1), 4);
	f.up = 3;
	f.limited_at = now;
	ck_assert_uint_eq(run(10), 6);
}
END_TEST

/* A channel that is lost is not replaced at once. */
START_TEST(lost_channel)
{
	bulk();
	ck_assert_uint_eq(run(10), 2);
	come_up(2, 2000);
	f.most = 2;
	ck_assert_uint_eq(run(10), 2);
	f.up = 1;
	f.limited_at = now;
	ck_assert_uint_eq(run(1), 1);
	ck_assert_uint_eq(run(3), 2);
}
END_TEST

/* A channel is lost when no other one has come up: none replaces it. */
START_TEST(channel_that_is_lost_in_a_start)
{
	bulk();
	f.up = 2;
	ck_assert_uint_eq(run(10), 4);
	f.starting = 2;
	ck_assert_uint_eq(growth_step(&g, &f, now), 4);
	f.starting = 0;
	f.up = 1;
	ck_assert_uint_eq(growth_step(&g, &f, now), 1);
}
END_TEST

/* The last channel is lost while others drain: one start, then a pause. */
START_TEST(start_without_a_channel)
{
	bulk();
	f.up = 0;
	f.starting = 1;
	ck_assert_uint_eq(growth_step(&g, &f, now), 1);
	f.starting = 0;
	ck_assert_uint_eq(growth_step(&g, &f, now), 1);
	ck_assert_uint_eq(run(599), 0);
	ck_assert_uint_eq(run(2), 1);
}
END_TEST

/* It does not replace a channel that is up. */
START_TEST(start_beside_a_channel)
{
	bulk();
	f.limited_at = INT64_MAX;
	f.starting = 1;
	ck_assert_uint_eq(growth_step(&g, &f, now), 2);
	f.up = 3;
	now += 61 * SECOND;
	ck_assert_uint_eq(growth_step(&g, &f, now), 2);
}
END_TEST

TESTS("growth")
{
	tcase_add_test(tc, doubles_while_it_helps);
	tcase_add_test(tc, gives_up_without_gain);
	tcase_add_test(tc, gives_up_without_gain_although_nothing_waits);
	tcase_add_test(tc, gives_up_if_none_comes_up);
	tcase_add_test(tc, keeps_those_that_came_up);
	tcase_add_test(tc, waits_for_a_need);
	tcase_add_test(tc, bulk_that_ends);
	tcase_add_test(tc, channel_that_is_lost_in_a_check);
	tcase_add_test(tc, short_pauses);
	tcase_add_test(tc, lost_channel);
	tcase_add_test(tc, channel_that_is_lost_in_a_start);
	tcase_add_test(tc, start_without_a_channel);
	tcase_add_test(tc, start_beside_a_channel);
}
