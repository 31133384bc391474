/* check_lookup.c - names to addresses, beside the loop; needs lookup.o sock.o spawn.o endpoint.o signals.o pollset.o os.o log.o */
#include <netdb.h>

#include "t/net.h"

#define UNKNOWN "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx:80" /* 64 letters: no name server is asked */
#define MOST 64

static struct children kids;
static struct endpoint ep;
static struct pollset ps;
static struct sock_addrs addrs;
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
	pollset_until(&ps, ps.now + 500);
	ck_assert_int_eq(pollset_wait(&ps), 0);
	spawn_reap(&kids);
	return lookup_step(l, &ps);
}

/* No child is left. */
static void
all_ended(void)
{
	UNTIL(kids.first == NULL, { pollset_begin(&ps); spawn_turn(&kids, &ps); spawn_reap(&kids); poll(NULL, 0, 1); });
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

/* It is polled once a turn, and each user gets the answer; the last one ends it. */
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

START_TEST(so_many_are_under_way_and_no_more)
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
	tcase_add_test(tc, so_many_are_under_way_and_no_more);
}
