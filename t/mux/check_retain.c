/* check_retain.c - bytes that were sent and are not acknowledged */
#include "t/check.h"
#include <sys/resource.h>

#include "mux/retain.h"

#define PIECE (256 * 1024)
#define LEAST 16384

static struct retain r;

static unsigned char
pattern(uint64_t at)
{
	return (unsigned char)(at * 31 ^ at >> 8);
}

/* Add ${n} bytes, at most ${most} at once. */
static void
add(size_t n, size_t most)
{
	unsigned char *p;
	size_t room, i;

	while (n > 0) {
		p = retain_room(&r, LEAST, &room);
		ck_assert_ptr_nonnull(p);
		ck_assert_uint_ge(room, LEAST);
		ck_assert_uint_le(room, PIECE);
		room = room > most ? most : room;
		room = room > n ? n : room;
		for (i = 0; i < room; i++)
			p[i] = pattern(r.end + i);
		retain_add(&r, room);
		n -= room;
	}
}

/* Write ${n} bytes, at most ${most} at once, and compare each. */
static void
take(size_t n, size_t most)
{
	const unsigned char *p;
	size_t k, i;

	while (n > 0) {
		p = retain_next(&r, &k);
		ck_assert_ptr_nonnull(p);
		ck_assert_uint_gt(k, 0);
		k = k > most ? most : k;
		k = k > n ? n : k;
		for (i = 0; i < k; i++)
			ck_assert(p[i] == pattern(r.next + i));
		retain_wrote(&r, k);
		n -= k;
	}
}

static void
is_written(void)
{
	size_t n = 1;

	ck_assert_ptr_null(retain_next(&r, &n));
	ck_assert_uint_eq(n, 0);
}

START_TEST(zeros_are_an_empty_retain)
{
	is_written();
	retain_acked(&r, 0);
	retain_rewind(&r, 0);
	is_written();
}
END_TEST

START_TEST(bytes_leave_in_order_however_they_are_cut)
{
	static const size_t most[] = { 1000, LEAST, PIECE, 4 * PIECE };

	retain_start(&r, 60);
	add(3 * PIECE + 17, most[_i]);
	take(3 * PIECE + 17, most[3 - _i]);
	is_written();
	ck_assert_uint_eq(r.next, 60 + 3 * PIECE + 17);
}
END_TEST

START_TEST(every_byte_that_is_kept_can_be_written_again)
{
	uint64_t at;

	retain_start(&r, 44);
	add(3 * PIECE, 5000);
	take(3 * PIECE, PIECE);
	for (at = r.acked; at <= r.end; at += 4999) {
		retain_rewind(&r, at);
		take((size_t)(r.end - at), PIECE);
		retain_acked(&r, at);
	}
	retain_rewind(&r, r.end);
	is_written();
}
END_TEST

START_TEST(an_ack_within_a_piece_frees_only_those_before_it)
{
	const struct piece *first;

	add(2 * PIECE + 100, PIECE);
	take(2 * PIECE + 100, PIECE);
	first = r.first;
	retain_acked(&r, PIECE + 1);
	ck_assert_ptr_ne(r.first, first);
	ck_assert_ptr_ne(r.first, r.last);
	retain_rewind(&r, PIECE + 1);
	take(PIECE + 99, 7);
	retain_acked(&r, r.end);
	ck_assert_ptr_null(r.first);
	ck_assert_ptr_null(r.last);
	add(10, 10);
	take(10, 10);
}
END_TEST

/* Room that was given and not used is no byte. */
START_TEST(room_that_stays_unused)
{
	size_t room;

	add(PIECE - 1, PIECE);
	ck_assert_ptr_nonnull(retain_room(&r, LEAST, &room));
	retain_add(&r, 0);
	take(PIECE - 1, PIECE);
	is_written();
	retain_acked(&r, PIECE - 1);
	add(5, 5);
	take(5, 5);
	retain_rewind(&r, PIECE - 1);
	take(5, 1);
}
END_TEST

START_TEST(what_is_not_acknowledged_is_kept)
{
	add(PIECE + 7, PIECE);
	ck_assert_uint_eq(r.end - r.acked, PIECE + 7);
	take(PIECE + 7, PIECE);
	ck_assert_uint_eq(r.end - r.acked, PIECE + 7);
	retain_acked(&r, 3);
	ck_assert_uint_eq(r.end - r.acked, PIECE + 4);
}
END_TEST

START_TEST(a_new_start_forgets_all)
{
	add(5 * PIECE, PIECE);
	take(PIECE, PIECE);
	retain_start(&r, 1000);
	is_written();
	ck_assert_uint_eq(r.acked, 1000);
	ck_assert_ptr_null(r.first);
	ck_assert_ptr_null(r.spare);
	add(PIECE, 999);
	take(PIECE, PIECE);
}
END_TEST

static long
page_faults(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return u.ru_minflt;
}

/* While bytes are in flight, a new piece would cost a fault for each page. */
START_TEST(pieces_are_used_again)
{
	unsigned char *p;
	long before = 0;
	size_t room, n;
	int i;

	for (i = 0; i < 60 * 6; i++) {
		p = retain_room(&r, PIECE, &room);
		ck_assert_uint_eq(room, PIECE);
		memset(p, 0, room);
		retain_add(&r, room);
		while (retain_next(&r, &n) != NULL)
			retain_wrote(&r, n);
		if (i % 6 == 5)
			retain_acked(&r, r.end - PIECE);
		if (i == 60)
			before = page_faults();
	}
	ck_assert_int_lt(page_faults() - before, 1000);
	retain_start(&r, 0);
}
END_TEST

START_TEST(positions_may_be_above_2_32)
{
	int i;

	retain_start(&r, UINT64_C(0xffffffff) - 1000);
	for (i = 0; i < 2000; i++) {
		add(LEAST, LEAST);
		take(LEAST, LEAST);
		retain_acked(&r, r.end - 1);
	}
}
END_TEST

static void
teardown(void)
{
	retain_start(&r, 0);
}

TESTS("retain")
{
	tcase_add_checked_fixture(tc, NULL, teardown);
	tcase_add_test(tc, zeros_are_an_empty_retain);
	tcase_add_loop_test(tc, bytes_leave_in_order_however_they_are_cut, 0, 4);
	tcase_add_test(tc, every_byte_that_is_kept_can_be_written_again);
	tcase_add_test(tc, an_ack_within_a_piece_frees_only_those_before_it);
	tcase_add_test(tc, room_that_stays_unused);
	tcase_add_test(tc, what_is_not_acknowledged_is_kept);
	tcase_add_test(tc, a_new_start_forgets_all);
	tcase_add_test(tc, pieces_are_used_again);
	tcase_add_test(tc, positions_may_be_above_2_32);
}
