/* check_cc.c - congestion control on a simulated line */
#include "mux/cc.h"
#include "mux/frame.h"
#include "mux/mux.h"
#include "mux/queue.h"
#include "t/check.h"

#include "mux/cc.h"
#include "t/mux/wire.h"

#define SECOND 1000000
#define SEGS (1 << 18)
#define ACK_BYTES 1024
#define ACK_DELAY 5000
#define PACKET 32768

static struct cc p;
static int64_t now = SECOND, trip, last_at, jitter;
static double rate; /* bytes per microsecond */
static struct {
	int64_t at;
	uint64_t end;
} seg[SEGS], ack[SEGS];
static int64_t ack_delay[SEGS];
static unsigned seg_first, seg_last, ack_first, ack_last;
static uint64_t got, acked, last_end;
static int64_t unacked_at, got_at, last_ack_at;
static int64_t waits[1 << 20];
static size_t waits_n;
static double free_exact;
static uint64_t holds;    /* bytes that the channel takes; 0: no limit */
static bool small_pieces; /* a quiet stream sends beside bulk */
/*
 * Bytes that are sent at once are one packet, as with ssh.  It arrives when its
 * last byte does.
 */
static bool packs;
static int64_t packed_at;
static size_t packed;

static void
line_is(double mbit, int64_t us)
{
	rate = mbit / 8;
	trip = us;
}

static void
start(double mbit, int64_t us)
{
	line_is(mbit, us);
	cc_init(&p, now);
}

static void
send_all(void)
{
	size_t n, k;

	while ((n = cc_room(&p, now)) > 0) {
		if (holds > 0 && p.sent - p.acked >= holds)
			return;
		ck_assert_uint_lt(seg_last - seg_first, SEGS - 100);
		n = n < cc_slice(&p) ? n : cc_slice(&p);
		cc_sent(&p, n, now);
		for (; n > 0; n -= k) {
			k = n < 1400 ? n : 1400;
			if (free_exact < (double)now)
				free_exact = (double)now;
			free_exact += (double)k / rate;
			packed = packs && packed_at == now && packed + k <= PACKET ? packed + k : k;
			packed_at = now;
			if (packed > k && seg_last > seg_first)
				seg_last--;
			seg[seg_last % SEGS].at =
			    (int64_t)free_exact + trip / 2 + (jitter ? upto((uint32_t)jitter) : 0);
			if (seg[seg_last % SEGS].at < last_at)
				seg[seg_last % SEGS].at = last_at;
			last_at = seg[seg_last % SEGS].at;
			last_end += k;
			seg[seg_last % SEGS].end = last_end;
			seg_last++;
		}
	}
}

static void
give_ack(void)
{
	ack[ack_last % SEGS].at = now + trip / 2 > last_ack_at ? now + trip / 2 : last_ack_at;
	last_ack_at = ack[ack_last % SEGS].at;
	ack[ack_last % SEGS].end = got;
	ack_delay[ack_last++ % SEGS] = now - got_at;
	acked = got;
	unacked_at = 0;
}

/*
 * A sender that always has bytes, for ${span}.  Return its share of the line.
 */
static double
run(int64_t span)
{
	int64_t end = now + span, next, sample = now;
	uint64_t from = got;

	waits_n = 0;
	while (now < end) {
		while (seg_first < seg_last && seg[seg_first % SEGS].at <= now) {
			got = seg[seg_first++ % SEGS].end;
			got_at = now;
			if (unacked_at == 0)
				unacked_at = now;
			if (got - acked >= ACK_BYTES)
				give_ack();
		}
		if (unacked_at != 0 && now - unacked_at >= ACK_DELAY)
			give_ack();
		while (ack_first < ack_last && ack[ack_first % SEGS].at <= now) {
			ck_assert(cc_acked(
			    &p, ack[ack_first % SEGS].end, ack_delay[ack_first % SEGS], now));
			ack_first++;
			send_all();
		}
		send_all();
		if (small_pieces)
			cc_sent_small(&p, now);
		for (; sample <= now; sample += 500)
			waits[waits_n++] =
			    free_exact > (double)now ? (int64_t)(free_exact - (double)now) : 0;
		next = end;
		if (seg_first < seg_last && seg[seg_first % SEGS].at < next)
			next = seg[seg_first % SEGS].at;
		if (ack_first < ack_last && ack[ack_first % SEGS].at < next)
			next = ack[ack_first % SEGS].at;
		if (unacked_at != 0 && unacked_at + ACK_DELAY < next)
			next = unacked_at + ACK_DELAY;
		if (cc_next(&p, now) < next)
			next = cc_next(&p, now);
		now = next > now ? next : now + 1;
	}
	return (double)(got - from) / ((double)span * rate);
}

static int
compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return x < y ? -1 : x > y;
}

static double
wait99(void) /* ms; one packet in a hundred waited longer in the last run */
{
	qsort(waits, waits_n, sizeof(waits[0]), compare);
	return (double)waits[waits_n * 99 / 100] / 1000;
}

static const struct {
	double mbit;
	int64_t trip;
} lines[] = { { 5, 1000 }, { 50, 1000 }, { 500, 1000 }, { 5, 20000 }, { 50, 20000 }, { 500, 20000 },
	{ 5, 50000 }, { 50, 50000 }, { 500, 50000 }, { 5, 100000 }, { 50, 100000 },
	{ 500, 100000 } };

START_TEST(bulk_gets_the_line)
{
	double share;

	start(lines[_i].mbit, lines[_i].trip);
	run(4 * SECOND);
	share = run(10 * SECOND);
	ck_assert_msg(share >= 0.9, "%g Mbit/s, %ld ms: %.3f of the line", rate * 8,
	    (long)trip / 1000, share);
}
END_TEST

START_TEST(a_packet_beside_bulk_waits_less_than_10_ms)
{
	start(lines[_i].mbit, lines[_i].trip);
	run(4 * SECOND);
	run(10 * SECOND);
	ck_assert_msg(
	    wait99() < 10, "%g Mbit/s, %ld ms: p99 %.1f ms", rate * 8, (long)trip / 1000, wait99());
}
END_TEST

/* While cwnd doubles, the channel is full before cwnd is. */
START_TEST(a_full_channel_does_not_lengthen_the_line)
{
	static const int64_t trips[] = { 20000, 50000, 100000 };

	start(2000000 * 8 / (double)trips[_i % 3], trips[_i % 3]);
	holds = 2000000 + (uint64_t)_i / 3 * 400000;
	run(4 * SECOND);
	run(10 * SECOND);
	ck_assert_msg(p.rtt < trip + 4000, "%ld us", (long)p.rtt);
	ck_assert_msg(wait99() < 10, "p99 %.1f ms", wait99());
}
END_TEST

/* cwnd grows, so the last round trip is that of a smaller cwnd. */
START_TEST(a_decrease_of_another_channel_does_not_lengthen_the_line)
{
	const struct cc other = { .cwnd_before = 10, .cwnd = 9 };

	start(800, 20000);
	while (p.cwnd < 3000000)
		run(1000);
	cc_follow(&p, &other);
	run(SECOND / 5);
	ck_assert_msg(p.rtt < 24000, "%ld us", (long)p.rtt);
}
END_TEST

START_TEST(a_packet_beside_bulk_waits_less_than_1_ms_on_a_short_and_fast_line)
{
	double share;

	small_pieces = true;
	start(2000, 500);
	run(SECOND);
	share = run(5 * SECOND);
	ck_assert_msg(share >= 0.9, "%.3f of the line", share);
	ck_assert_msg(wait99() < 1, "p99 %.1f ms", wait99());
}
END_TEST

START_TEST(a_short_line_holds_more_while_no_small_pieces_are_sent)
{
	start(2000, 500);
	run(2 * SECOND);
	ck_assert_uint_ge(p.cwnd, 2 * 500 * 250);
	ck_assert_msg(wait99() > 1 && wait99() < 4, "p99 %.1f ms", wait99());
	small_pieces = true;
	run(SECOND / 4);
	run(SECOND);
	ck_assert_msg(wait99() < 1, "p99 %.1f ms from a fourth of a second on", wait99());
	small_pieces = false;
	run(2 * SECOND);
	ck_assert_uint_ge(p.cwnd, 2 * 500 * 250);
}
END_TEST

START_TEST(a_line_that_makes_packets_is_used)
{
	double share;

	packs = true;
	start(lines[_i].mbit, lines[_i].trip);
	run(4 * SECOND);
	share = run(10 * SECOND);
	ck_assert_msg(share >= 0.9, "%g Mbit/s, %ld ms: %.3f of the line", rate * 8,
	    (long)trip / 1000, share);
}
END_TEST

START_TEST(the_start_takes_at_most_a_second_or_30_round_trips)
{
	double share;

	start(lines[_i].mbit, lines[_i].trip);
	run(SECOND > 30 * trip ? SECOND : 30 * trip);
	share = run(SECOND);
	ck_assert_msg(share >= 0.85, "%g Mbit/s, %ld ms: %.3f of the line", rate * 8,
	    (long)trip / 1000, share);
}
END_TEST

START_TEST(a_faster_line_is_found)
{
	double share;

	start(5, 20000);
	run(5 * SECOND);
	line_is(50, 20000);
	run(10 * SECOND);
	share = run(2 * SECOND);
	ck_assert_msg(share >= 0.9, "%.3f", share);
}
END_TEST

START_TEST(a_slower_line_is_found)
{
	double share;

	start(50, 20000);
	run(5 * SECOND);
	line_is(5, 20000);
	run(2 * SECOND);
	share = run(5 * SECOND);
	ck_assert_msg(share >= 0.9, "%.3f", share);
	ck_assert_msg(wait99() < 15, "p99 %.1f ms", wait99());
}
END_TEST

START_TEST(a_longer_line_is_found)
{
	static const int64_t to[] = { 30000, 60000, 200000 };
	double share;

	start(50, 20000);
	run(5 * SECOND);
	line_is(50, to[_i]);
	run(3 * SECOND);
	share = run(5 * SECOND);
	ck_assert_msg(share >= 0.7, "from 20 to %ld ms: %.3f of the line 3 s later",
	    (long)to[_i] / 1000, share);
	run(10 * SECOND);
	share = run(5 * SECOND);
	ck_assert_msg(share >= 0.9, "from 20 to %ld ms: %.3f of the line 18 s later",
	    (long)to[_i] / 1000, share);
}
END_TEST

START_TEST(a_shorter_line_is_found)
{
	double share;

	start(50, 60000);
	run(5 * SECOND);
	line_is(50, 20000);
	run(3 * SECOND);
	share = run(5 * SECOND);
	ck_assert_msg(share >= 0.9, "%.3f", share);
	ck_assert_int_le(p.rtt, 25000);
	ck_assert_msg(wait99() < 10, "p99 %.1f ms", wait99());
}
END_TEST

START_TEST(a_line_with_jitter_is_used)
{
	double share;

	dice_state = 1;
	jitter = 20000;
	start(50, 20000);
	run(5 * SECOND);
	share = run(20 * SECOND);
	ck_assert_msg(share >= 0.7, "%.3f", share);
}
END_TEST

START_TEST(the_round_trip_does_not_creep_up)
{
	start(50, lines[_i].trip);
	run(120 * SECOND);
	ck_assert_msg(
	    p.rtt <= trip + 3000, "%ld ms has become %ld", (long)trip / 1000, (long)p.rtt / 1000);
	run(5 * SECOND);
	ck_assert_msg(
	    p.rtt <= trip + 3000, "%ld ms has become %ld", (long)trip / 1000, (long)p.rtt / 1000);
}
END_TEST

START_TEST(a_window_that_is_not_used_does_not_grow)
{
	uint64_t count = 0;
	int i;

	start(5, 20000);
	for (i = 0; i < 100000; i++) { /* 1,000 bytes every 20 ms, acknowledged before the next */
		cc_sent(&p, 1000, now);
		now += 20000;
		count += 1000;
		ck_assert(cc_acked(&p, count, 0, now));
	}
	ck_assert_msg(p.cwnd <= 65536, "%lu", (unsigned long)p.cwnd);
}
END_TEST

START_TEST(a_pause_leaves_the_window_as_it_was)
{
	double share;

	start(50, 20000);
	run(5 * SECOND);
	while (seg_first < seg_last || ack_first < ack_last ||
	       unacked_at != 0) { /* all that was sent arrives */
		now += 100;
		for (; seg_first < seg_last && seg[seg_first % SEGS].at <= now; seg_first++)
			got = seg[seg_first % SEGS].end, got_at = now;
		if (got > acked)
			give_ack();
		for (; ack_first < ack_last && ack[ack_first % SEGS].at <= now; ack_first++)
			ck_assert(cc_acked(
			    &p, ack[ack_first % SEGS].end, ack_delay[ack_first % SEGS], now));
		unacked_at = 0;
	}
	now += 60 * (int64_t)SECOND;
	run(SECOND / 5);
	share = run(2 * SECOND);
	ck_assert_msg(share >= 0.9, "%.3f", share);
}
END_TEST

START_TEST(wrong_acks_are_refused)
{
	start(50, 20000);
	cc_sent(&p, 1000, now);
	ck_assert(!cc_acked(&p, 1001, 0, now));
	ck_assert(cc_acked(&p, 500, 0, now + 10));
	ck_assert(!cc_acked(&p, 499, 0, now + 20));
	ck_assert(cc_acked(&p, 500, 0, now + 20));
	ck_assert(cc_acked(&p, 1000, 0, now + 30));
	ck_assert(!cc_acked(&p, UINT64_MAX, 0, now + 40));
}
END_TEST

/*
 * The window stays within its limits for any delay that a peer reports, and any
 * step of the clock.
 */
START_TEST(any_delay_leaves_a_valid_window)
{
	int i;

	dice_state = 7;
	start(50, 20000);
	for (i = 0; i < 100000; i++) {
		if (cc_room(&p, now) > 0)
			cc_sent(&p,
			    1 + upto((
				    uint32_t)(cc_room(&p, now) < 30000 ? cc_room(&p, now) : 30000)),
			    now);
		now += one_in(1000) ? 4000 * (int64_t)SECOND : upto(30000);
		ck_assert(cc_acked(&p, p.acked + upto((uint32_t)(p.sent - p.acked)),
		    one_in(3) ? dice() : upto(1000), now));
		ck_assert_uint_ge(p.cwnd, 4096);
		ck_assert_uint_le(p.cwnd, 128 * 1024 * 1024);
		ck_assert_uint_ge(cc_slice(&p), CC_SLICE_LEAST);
		ck_assert_uint_le(cc_slice(&p), CC_SLICE_MOST);
	}
}
END_TEST

TESTS("cc")
{
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, bulk_gets_the_line, 0, 12);
	tcase_add_loop_test(tc, a_packet_beside_bulk_waits_less_than_10_ms, 0, 12);
	tcase_add_loop_test(tc, a_full_channel_does_not_lengthen_the_line, 0, 24);
	tcase_add_test(tc, a_decrease_of_another_channel_does_not_lengthen_the_line);
	tcase_add_test(tc, a_packet_beside_bulk_waits_less_than_1_ms_on_a_short_and_fast_line);
	tcase_add_test(tc, a_short_line_holds_more_while_no_small_pieces_are_sent);
	tcase_add_loop_test(tc, a_line_that_makes_packets_is_used, 3, 12); /* those from 20 ms on */
	tcase_add_loop_test(tc, the_start_takes_at_most_a_second_or_30_round_trips, 0, 12);
	tcase_add_test(tc, a_faster_line_is_found);
	tcase_add_test(tc, a_slower_line_is_found);
	tcase_add_loop_test(tc, a_longer_line_is_found, 0, 3);
	tcase_add_test(tc, a_shorter_line_is_found);
	tcase_add_test(tc, a_line_with_jitter_is_used);
	tcase_add_loop_test(tc, the_round_trip_does_not_creep_up, 3, 12);
	tcase_add_test(tc, a_window_that_is_not_used_does_not_grow);
	tcase_add_test(tc, a_pause_leaves_the_window_as_it_was);
	tcase_add_test(tc, wrong_acks_are_refused);
	tcase_add_test(tc, any_delay_leaves_a_valid_window);
}
