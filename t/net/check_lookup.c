/* check_lookup.c - from a name to addresses, without blocking. */
#include <netdb.h>

#include "t/net.h"

/* A label of 64 letters is not valid, so no name server is needed. */
#define UNKNOWN "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx:80"
#define MOST 64

static struct children kids;
static struct endpoint ep;
static struct pollset ps;
static struct addr_list addrs;
static char why[512];

static struct lookup *
start(const char *text)
{
	ck_assert(endpoint_parse(&ep, text, false, why, sizeof(why)));
	return lookup_start(&kids, &ep);
}

static bool
turn(struct lookup *l)
{
	pollset_begin(&ps);
	spawn_turn(&kids, &ps);
	lookup_want(l, &ps);
	pollset_until(&ps, ps.now + 500000);
	ck_assert_int_eq(pollset_wait(&ps), 0);
	spawn_reap(&kids);
	return lookup_step(l, &ps);
}

/* Wait until no child is left. */
static void
all_ended(void)
{
	UNTIL(kids.first == NULL, {
		pollset_begin(&ps);
		spawn_turn(&kids, &ps);
		spawn_reap(&kids);
		poll(NULL, 0, 1);
	});
}

START_TEST(an_address_comes_with_its_port)
{
	const struct sockaddr_in *in = (const void *)&addrs.addr[0];
	int before = fds_open();
	struct lookup *l = start("127.0.0.1:80");

	ck_assert(!lookup_step(l, &ps));
	UNTIL(turn(l), (void)0);
	ck_assert(lookup_step(l, &ps));
	ck_assert_int_eq(lookup_answer(l, &addrs), 0);
	ck_assert_int_eq(addrs.n, 1);
	ck_assert_int_eq(ntohs(in->sin_port), 80);
	ck_assert_uint_eq(ntohl(in->sin_addr.s_addr), INADDR_LOOPBACK);
	lookup_free(l, ps.now);
	lookup_free(NULL, ps.now);
	all_ended();
	ck_assert_int_eq(fds_open(), before);
}
END_TEST

START_TEST(an_unknown_name_has_its_code)
{
	struct lookup *l = start(UNKNOWN);

	UNTIL(turn(l), (void)0);
	ck_assert_int_ne(lookup_answer(l, &addrs), 0);
	lookup_free(l, ps.now);
	all_ended();
}
END_TEST

/*
 * It is polled once a turn, and each user gets the answer.  The last user ends
 * it.
 */
START_TEST(users_share_it)
{
	struct lookup *l = start("127.0.0.1:80");

	ck_assert_ptr_eq(lookup_join(l), l);
	pollset_begin(&ps);
	lookup_want(l, &ps);
	lookup_want(l, &ps);
	ck_assert_uint_eq(ps.n, 1);
	UNTIL(turn(l), (void)0);
	lookup_free(l, ps.now);
	pollset_begin(&ps);
	lookup_want(l, &ps);
	ck_assert_int_le(ps.deadline, ps.now);
	ck_assert(lookup_step(l, &ps));
	ck_assert_int_eq(lookup_answer(l, &addrs), 0);
	lookup_free(l, ps.now);
	all_ended();
}
END_TEST

START_TEST(the_number_of_look_ups_is_limited)
{
	struct lookup *l[MOST];
	int before = fds_open(), i;

	signal(SIGTERM, SIG_DFL);
	for (i = 0; i < MOST; i++)
		ck_assert_ptr_nonnull(l[i] = start("127.0.0.1:80"));
	ck_assert_ptr_null(start("127.0.0.1:80"));
	ck_assert_int_eq(errno, EBUSY);
	UNTIL(turn(l[0]), (void)0);
	ck_assert_ptr_nonnull(l[1] = (lookup_free(l[1], ps.now), start("127.0.0.1:80")));
	for (i = 0; i < MOST; i++)
		lookup_free(l[i], ps.now);
	all_ended();
	ck_assert_int_eq(fds_open(), before);
}
END_TEST

TESTS("lookup")
{
	tcase_add_test(tc, an_address_comes_with_its_port);
	tcase_add_test(tc, an_unknown_name_has_its_code);
	tcase_add_test(tc, users_share_it);
	tcase_add_test(tc, the_number_of_look_ups_is_limited);
}
