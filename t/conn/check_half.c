/* check_half.c - one direction; needs half.o end.o buf.o poll.o os.o */
#include "net.h"

static struct end src, dst;
static struct half h;
static int from, to; /* our ends: what is written to ${from} shall come out of ${to} */
static char junk[BUF_CHUNK];

static void
join(bool tcp)
{
	int a[2], b[2];

	tcp ? tcp_pair(a) : socks(a);
	socks(b);
	end_socket(&src, a[0], tcp);
	end_socket(&dst, b[0], false);
	from = a[1];
	to = b[1];
	half_init(&h, &src, &dst);
	signal(SIGPIPE, SIG_IGN);
}

/* Nobody reads ${to}: fill what lies before it. */
static void
fill_dst(void)
{
	while (write(dst.out, junk, sizeof(junk)) > 0)
		;
}

START_TEST(a_new_half_reads_and_has_nothing_to_write)
{
	join(false);
	ck_assert(half_wants_read(&h) && !half_wants_write(&h) && !half_finished(&h));
	ck_assert_int_eq(h.state, HALF_OPEN);
	ck_assert_uint_eq(half_read(&h, 1), 0); /* nothing there: no state changes */
	half_write(&h, true);
	half_shut(&h, true);
	ck_assert_int_eq(h.state, HALF_OPEN);
}
END_TEST

START_TEST(bytes_move_and_are_counted)
{
	char got[8];

	join(_i);
	ck_assert_int_eq(write(from, "hello", 5), 5);
	UNTIL(h.buf.used == 5, half_read(&h, 1));
	ck_assert(half_wants_write(&h));
	half_write(&h, false);
	ck_assert_uint_eq(h.moved, 5);
	ck_assert(!half_wants_write(&h));
	ck_assert_int_eq(read(to, got, sizeof(got)), 5);
	ck_assert_mem_eq(got, "hello", 5);
}
END_TEST

START_TEST(the_end_waits_for_bytes_that_are_held)
{
	char c;

	join(_i);
	fill_dst();
	ck_assert_int_eq(write(from, "last", 4), 4);
	shutdown(from, SHUT_WR);
	UNTIL(h.state != HALF_OPEN, half_read(&h, 1));
	ck_assert_int_eq(h.state, HALF_DRAIN);
	ck_assert(!half_wants_read(&h) && half_wants_write(&h));
	half_write(&h, false);
	half_shut(&h, true);
	ck_assert_int_eq(h.state, HALF_DRAIN);
	ck_assert_uint_gt(drained(to), 0);
	half_write(&h, true);
	ck_assert_int_eq(h.state, HALF_DRAIN);
	half_shut(&h, true);
	ck_assert_int_eq(h.state, HALF_SHUT);
	ck_assert(half_finished(&h) && !half_wants_read(&h) && !half_wants_write(&h));
	ck_assert_int_eq(read(to, junk, 5), 4);
	ck_assert_mem_eq(junk, "last", 4);
	ck_assert_int_eq(read(to, &c, 1), 0);
	ck_assert_int_eq(src.in, src.out); /* one socket: the other direction lives */
}
END_TEST

START_TEST(an_end_that_cannot_be_told_breaks)
{
	int null = open("/dev/null", O_RDWR);

	join(false);
	shutdown(from, SHUT_WR);
	UNTIL(h.state != HALF_OPEN, half_read(&h, 1));
	ck_assert_int_eq(dup2(null, dst.out), dst.out); /* shutdown says ENOTSOCK */
	half_shut(&h, true);
	ck_assert_int_eq(h.state, HALF_BROKEN);
	ck_assert(h.by_sink && h.err == ENOTSOCK && !h.lost);
	ck_assert(half_is_ours(ENOMEM) && !half_is_ours(ECONNRESET));
}
END_TEST

START_TEST(a_shut_that_is_not_explicit_leaves_the_sink_open)
{
	char c;

	join(false);
	shutdown(from, SHUT_WR);
	half_read(&h, 1);
	half_shut(&h, false);
	ck_assert_int_eq(h.state, HALF_SHUT);
	ck_assert_int_ne(dst.out, -1);
	ck_assert_int_eq(read(to, &c, 1), -1);
	ck_assert_int_eq(errno, EAGAIN);
	half_break(&h, EIO, true);
	ck_assert_int_eq(h.state, HALF_SHUT);
}
END_TEST

START_TEST(a_pipe_at_its_end_is_closed_at_once)
{
	int p[2], q[2];

	ck_assert(pipe(p) == 0 && pipe(q) == 0);
	end_pipes(&src, p[0], q[1]);
	end_pipes(&dst, dup(q[0]), dup(q[1]));
	half_init(&h, &src, &dst);
	close(p[1]);
	half_read(&h, 1);
	ck_assert_int_eq(h.state, HALF_DRAIN);
	ck_assert_int_eq(src.in, -1);
	ck_assert_int_eq(fcntl(p[0], F_GETFD), -1);
}
END_TEST

/* Small and large pieces, so that chunks and the kernel's pipe both are used where they can be. */
START_TEST(a_full_reader_stops_the_reading_and_everything_comes_at_last)
{
	size_t piece = _i % 2 ? sizeof(junk) : 100, sent = 0, got = 0, bound = _i % 2 ? BUF_PIPE + HALF_HOLDS : HALF_HOLDS;
	bool tcp = _i / 2;
	ssize_t n;
	int idle;

	join(tcp);
	for (idle = 0; idle < 50;) {
		n = write(from, junk, piece);
		if (n > 0)
			sent += (size_t)n;
		if (half_wants_read(&h))
			n = half_read(&h, 1) > 0 ? 1 : n;
		half_write(&h, false);
		ck_assert_uint_le(h.buf.used, bound);
		ck_assert_int_eq(h.state, HALF_OPEN);
		idle = n > 0 ? 0 : idle + 1;
	}
	ck_assert(!half_wants_read(&h) && half_wants_write(&h));
	UNTIL(got == sent, {
		got += drained(to);
		half_write(&h, true);
		if (half_wants_read(&h))
			half_read(&h, 1);
	});
	ck_assert_uint_eq(h.moved, sent);
	ck_assert(half_wants_read(&h) && !half_wants_write(&h));
}
END_TEST

START_TEST(a_sink_that_is_gone_breaks_it_and_what_was_held_is_lost)
{
	join(false);
	close(to);
	ck_assert_int_eq(write(from, "x", 1), 1);
	ck_assert_uint_eq(half_read(&h, 1), 1);
	half_write(&h, false);
	ck_assert_int_eq(h.state, HALF_BROKEN);
	ck_assert(h.by_sink && h.lost && half_finished(&h) && !half_wants_write(&h));
	ck_assert_int_eq(h.err, EPIPE);
	ck_assert_uint_eq(h.buf.used, 0);
	ck_assert_uint_eq(h.moved, 0);
	half_shut(&h, true);
	ck_assert_int_eq(h.state, HALF_BROKEN);
}
END_TEST

START_TEST(a_break_with_nothing_held_loses_nothing)
{
	join(false);
	half_break(&h, EPIPE, true);
	ck_assert(h.state == HALF_BROKEN && !h.lost && h.by_sink && h.err == EPIPE);
	half_break(&h, EIO, false);
	ck_assert(h.by_sink && h.err == EPIPE);
}
END_TEST

START_TEST(a_broken_half_swallows_until_the_source_ends)
{
	join(true);
	half_break(&h, EPIPE, true);
	ck_assert(half_wants_read(&h));
	ck_assert_uint_eq(half_read(&h, 1), 0);
	ck_assert(!h.lost && src.in != -1);
	ck_assert_int_eq(write(from, "swallowed", 9), 9);
	UNTIL(h.lost, ck_assert_uint_eq(half_read(&h, 1), 0));
	ck_assert_uint_eq(h.buf.used, 0);
	ck_assert(half_wants_read(&h) && !half_wants_write(&h));
	shutdown(from, SHUT_WR);
	UNTIL(src.in == -1, half_read(&h, 1));
	ck_assert(!half_wants_read(&h));
	ck_assert_int_ne(src.out, -1);
}
END_TEST

START_TEST(a_half_broken_by_its_source_reads_no_more)
{
	join(false);
	half_break(&h, ECONNRESET, false);
	ck_assert(!half_wants_read(&h) && !h.by_sink);
}
END_TEST

START_TEST(a_reset_source_breaks_it)
{
	struct pollfd p = { .events = POLLIN };

	join(true);
	reset(from);
	p.fd = src.in;
	ck_assert_int_eq(poll(&p, 1, 5000), 1);
	h.bulk = _i;
	src.in_splices = _i;
	half_read(&h, 1);
	ck_assert_int_eq(h.state, HALF_BROKEN);
	ck_assert(!h.by_sink);
	ck_assert_int_eq(h.err, ECONNRESET);
}
END_TEST

START_TEST(who_fills_a_chunk_is_read_wide_and_never_beyond_what_it_may_hold)
{
	FILE *f = tmpfile();
	int i;

	for (i = 0; i < 12; i++)
		ck_assert_uint_eq(fwrite(junk, 1, sizeof(junk), f), sizeof(junk));
	fwrite(junk, 1, 100, f);
	rewind(f);
	end_none(&src);
	end_none(&dst);
	src.in = fileno(f);
	half_init(&h, &src, &dst);
	ck_assert_uint_eq(half_read(&h, BUF_WIDE), BUF_CHUNK);
	ck_assert_uint_eq(half_read(&h, BUF_WIDE), HALF_HOLDS - BUF_CHUNK); /* what there is room for */
	ck_assert(!half_wants_read(&h));
	buf_clear(&h.buf);
	ck_assert_uint_eq(half_read(&h, 1), BUF_CHUNK); /* others wait */
	ck_assert_uint_eq(half_read(&h, 2), 2 * BUF_CHUNK);
	buf_clear(&h.buf);
	ck_assert_uint_eq(half_read(&h, BUF_WIDE), 4 * BUF_CHUNK);
	buf_clear(&h.buf);
	ck_assert_uint_eq(half_read(&h, BUF_WIDE), BUF_CHUNK + 100);
	buf_clear(&h.buf);
	ck_assert_uint_eq(half_read(&h, BUF_WIDE), 0);
	ck_assert_int_eq(h.state, HALF_DRAIN);
}
END_TEST

/* A terminal may block in the middle of more: only when poll said so, and little. */
START_TEST(a_blocking_sink_is_written_only_when_ready_and_little)
{
	join(false);
	dst.out_blocks = true;
	ck_assert_int_eq(write(from, junk, 5000), 5000);
	ck_assert_uint_eq(half_read(&h, 1), 5000);
	half_write(&h, false);
	ck_assert_uint_eq(h.moved, 0);
	half_write(&h, true);
	ck_assert_uint_gt(h.moved, 0);
	ck_assert_uint_le(h.moved, 1024);
}
END_TEST

/* Bulk may go by the kernel's pipe and back to messages: the order stays. */
START_TEST(order_is_kept_between_messages_and_bulk)
{
	static const size_t pieces[] = { 1, 65536, 65536, 65536, 7, 100000, 1, 65536, 65536, 3, 65536, 40000, 40000, 1 };
	size_t i, j, sent = 0, got = 0, total = 0;
	unsigned char block[7000], out[16384];
	struct end real;
	ssize_t n;
	int p[2];

	join(false);
	ck_assert_int_eq(pipe(p), 0);
	fcntl(p[0], F_SETFL, O_NONBLOCK);
	real = src;
	end_pipes(&src, p[0], real.out);
	fcntl(p[1], F_SETFL, O_NONBLOCK);
	dst.out_splices = false;
	for (i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++)
		total += pieces[i];
	for (i = 0; got < total;) {
		while (i < sizeof(pieces) / sizeof(pieces[0]) && sent < total) {
			size_t part = 0, end = 0, k;

			for (k = 0; k <= i; k++)
				end += pieces[k];
			part = end - sent < sizeof(block) ? end - sent : sizeof(block);
			for (j = 0; j < part; j++)
				block[j] = (unsigned char)((sent + j) % 251);
			n = write(p[1], block, part);
			if (n <= 0)
				break;
			sent += (size_t)n;
			if (sent == end) {
				i++;
				break;
			}
		}
		if (half_wants_read(&h))
			half_read(&h, 1);
		half_write(&h, false);
		ck_assert_int_eq(h.state, HALF_OPEN);
		n = read(to, out, sizeof(out));
		for (j = 0; n > 0 && j < (size_t)n; j++, got++)
			if (out[j] != got % 251)
				ck_abort_msg("differs at %zu", got);
	}
	ck_assert_uint_eq(h.moved, total);
}
END_TEST

TESTS("half")
{
	tcase_add_test(tc, who_fills_a_chunk_is_read_wide_and_never_beyond_what_it_may_hold);
	tcase_add_test(tc, a_new_half_reads_and_has_nothing_to_write);
	tcase_add_loop_test(tc, bytes_move_and_are_counted, 0, 2);
	tcase_add_loop_test(tc, the_end_waits_for_bytes_that_are_held, 0, 2);
	tcase_add_test(tc, an_end_that_cannot_be_told_breaks);
	tcase_add_test(tc, a_shut_that_is_not_explicit_leaves_the_sink_open);
	tcase_add_test(tc, a_pipe_at_its_end_is_closed_at_once);
	tcase_add_loop_test(tc, a_full_reader_stops_the_reading_and_everything_comes_at_last, 0, 4);
	tcase_add_test(tc, a_sink_that_is_gone_breaks_it_and_what_was_held_is_lost);
	tcase_add_test(tc, a_break_with_nothing_held_loses_nothing);
	tcase_add_test(tc, a_broken_half_swallows_until_the_source_ends);
	tcase_add_test(tc, a_half_broken_by_its_source_reads_no_more);
	tcase_add_loop_test(tc, a_reset_source_breaks_it, 0, 2);
	tcase_add_test(tc, a_blocking_sink_is_written_only_when_ready_and_little);
	tcase_add_test(tc, order_is_kept_between_messages_and_bulk);
}
