/* check_early.c - pieces of a stream that were read too early */
#include "t/check.h"

#include "mux/early.h"

static struct early_list list;
static uint32_t pieces;

static void
add(uint64_t at, size_t n)
{
	struct early *e = early_add(&list, at, n, &pieces);
	size_t i;

	ck_assert_ptr_nonnull(e);
	ck_assert_uint_le(e->have + n, e->room);
	for (i = 0; i < n; i++)
		e->bytes[e->have++] = (unsigned char)(at + i);
}

static void
drop(void)
{
	while (list.first != NULL)
		early_pop(&list, &pieces);
	ck_assert_uint_eq(pieces, 0);
	ck_assert_uint_eq(early_end(&list), 0);
}

START_TEST(pieces_are_kept_in_order)
{
	static const uint64_t orders[6][3] = { { 10, 30, 50 }, { 10, 50, 30 }, { 30, 10, 50 },
		{ 30, 50, 10 }, { 50, 10, 30 }, { 50, 30, 10 } };
	uint64_t at = 0;
	struct early *e;
	int i;

	for (i = 0; i < 3; i++)
		add(orders[_i][i], 5);
	ck_assert_uint_eq(pieces, 3);
	ck_assert_uint_eq(early_end(&list), 55);
	for (e = list.first; e != NULL; e = e->next) {
		ck_assert_uint_gt(e->at, at);
		at = e->at;
		ck_assert_ptr_eq(e->next == NULL ? e : list.last, list.last);
		ck_assert_uint_eq(e->have, 5);
		ck_assert_uint_eq(e->bytes[4], at + 4);
	}
	drop();
}
END_TEST

START_TEST(pieces_without_gaps_stay_few)
{
	size_t all = 0;
	struct early *e;
	uint64_t at;
	unsigned i;

	for (at = 7; at < 7 + 4 * EARLY_MERGED; at++)
		add(at, 1);
	ck_assert_uint_le(pieces, 17 + 4);
	for (at = 7, e = list.first; e != NULL; e = e->next) {
		ck_assert_uint_eq(e->at, at);
		ck_assert_uint_eq(e->have, e->size);
		ck_assert_uint_le(e->room, EARLY_MERGED);
		for (i = 0; i < e->size; i++)
			ck_assert_uint_eq(e->bytes[i], (unsigned char)at++);
		all += e->room;
	}
	ck_assert_uint_eq(at, 7 + 4 * EARLY_MERGED);
	ck_assert_uint_le(all, 5 * EARLY_MERGED);
	drop();
}
END_TEST

/* Bytes of a piece that is still being read come first. */
START_TEST(an_incomplete_piece_is_not_extended)
{
	ck_assert_ptr_nonnull(early_add(&list, 10, 5, &pieces));
	add(15, 5);
	ck_assert_uint_eq(pieces, 2);
	drop();
}
END_TEST

START_TEST(every_overlap_is_found)
{
	uint64_t at;
	size_t n;

	add(10, 5);
	add(20, 5);
	for (at = 0; at < 30; at++)
		for (n = 1; n < 30; n++)
			ck_assert_int_eq(early_overlaps(&list, at, n),
			    (at < 15 && at + n > 10) || (at < 25 && at + n > 20));
	drop();
}
END_TEST

TESTS("early")
{
	tcase_add_loop_test(tc, pieces_are_kept_in_order, 0, 6);
	tcase_add_test(tc, pieces_without_gaps_stay_few);
	tcase_add_test(tc, an_incomplete_piece_is_not_extended);
	tcase_add_test(tc, every_overlap_is_found);
}
