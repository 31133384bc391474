/* check_half.c - one direction, between descriptors and streams */
#include "conn/half.h"
#include "t/link.h"
#include "t/net.h"

/* What the source and the sink are. */
enum { FDS, FDS_TCP, SINK, SINK_TCP, SOURCE, KINDS };

static struct side src, dst;
static struct half h;
static int from, to;        /* the test's ends: bytes go in at ${from} and come out at ${to} */
static struct stream *peer; /* the test's end of a stream */
static char junk[BUF_CHUNK];
static int fds; /* open at the beginning */

static bool
is_tcp(int kind)
{
	return kind == FDS_TCP || kind == SINK_TCP;
}

static bool
to_stream(int kind)
{
	return kind == SINK || kind == SINK_TCP;
}

static void
cross(void)
{
	while (link_cross(pollset_clock()))
		;
}

/* A stream whose near end is returned; ${peer} is its far end. */
static struct side
stream_side(void)
{
	struct stream *s;

	link_up(MUX_STREAMS, pollset_clock());
	s = mux_open(link_near, "x:1");
	cross();
	peer = mux_accept(link_far);
	ck_assert_ptr_nonnull(peer);
	stream_accept(peer);
	cross();
	return side_of_stream(s);
}

static struct side
socket_side(int *ours, bool tcp)
{
	int s[2];

	tcp ? tcp_pair(s) : socks(s);
	*ours = s[1];
	return side_of_socket(s[0], tcp);
}

static void
join(int kind)
{
	signal(SIGPIPE, SIG_IGN);
	fds = fds_open();
	src = kind == SOURCE ? stream_side() : socket_side(&from, is_tcp(kind));
	dst = to_stream(kind) ? stream_side() : socket_side(&to, false);
	half_init(&h, &src, &dst, NULL);
}

/* One step, as conn.c does it. */
static void
step(void)
{
	cross();
	half_update(&h);
	if (half_wants_read(&h))
		half_read(&h, 1);
	half_write(&h, true);
	cross();
	half_update(&h);
}

/* Write to the source; return how many bytes it took. */
static size_t
put(const void *p, size_t n)
{
	ssize_t w;

	if (src.stream == NULL) {
		w = write(from, p, n);
		return w > 0 ? (size_t)w : 0;
	}
	if (stream_room(peer) < n)
		n = stream_room(peer);
	ck_assert(buf_put(stream_tx(peer), p, n));
	stream_push(peer);
	cross();
	return n;
}

/* Take what came out of the sink; return how many bytes. */
static size_t
take(void *p, size_t size)
{
	ssize_t r;
	size_t n;

	if (dst.stream == NULL) {
		r = read(to, p, size);
		return r > 0 ? (size_t)r : 0;
	}
	n = buf_take(stream_rx(peer), p, size);
	if (n > 0)
		stream_consumed(peer, n);
	return n;
}

static size_t
take_all(void)
{
	char room[65536];
	size_t all = 0, n;

	while ((n = take(room, sizeof(room))) > 0)
		all += n;
	return all;
}

static void
end_source(void)
{
	if (src.stream == NULL) {
		shutdown(from, SHUT_WR);
	} else {
		stream_shutdown(peer);
		cross();
	}
}

static bool
sink_ended(void)
{
	char c;

	return dst.stream == NULL ? read(to, &c, 1) == 0 : stream_eof_read(peer);
}

/* The sink takes nothing more. */
static void
fill_sink(void)
{
	if (dst.stream == NULL)
		while (write(dst.fds.out, junk, sizeof(junk)) > 0)
			;
	else
		link_held = true;
}

static void
empty_sink(void)
{
	link_held = false;
	if (dst.stream == NULL)
		ck_assert_uint_gt(drained(to), 0);
}

/* The half, its sides and the link hold nothing more. */
static void
finish(void)
{
	link_held = false;
	half_break(&h, 0);
	side_close(&src, false, MUX_RESET, "");
	side_close(&dst, false, MUX_RESET, "");
	close(from > 0 ? from : -1);
	close(to > 0 ? to : -1);
	if (peer != NULL) {
		stream_release(peer);
		cross();
		ck_assert_uint_eq(link_streams(), 0);
		ck_assert_uint_eq(link_reserved(), 0);
		link_free();
	}
	buf_trim();
	ck_assert_int_eq(fds_open(), fds);
}

START_TEST(a_new_half_has_nothing_to_write)
{
	join(_i);
	ck_assert_int_eq(half_wants_read(&h), _i != SOURCE);
	ck_assert(!half_wants_write(&h) && !half_finished(&h));
	step(); /* nothing there: no state changes */
	half_end(&h, true);
	ck_assert_int_eq(h.state, HALF_OPEN);
	ck_assert(src.err == 0 && dst.err == 0);
	finish();
}
END_TEST

START_TEST(bytes_move_and_are_counted)
{
	char got[8] = "";

	join(_i);
	ck_assert_uint_eq(put("hello", 5), 5);
	UNTIL(take(got, sizeof(got)) == 5, step());
	ck_assert_mem_eq(got, "hello", 5);
	ck_assert_uint_eq(h.moved, 5);
	ck_assert(!half_wants_write(&h));
	finish();
}
END_TEST

START_TEST(the_end_waits_for_bytes_that_are_held)
{
	join(_i);
	fill_sink();
	ck_assert_uint_eq(put("last", 4), 4);
	end_source();
	UNTIL(h.state != HALF_OPEN, step());
	ck_assert_int_eq(h.state, HALF_DRAIN);
	ck_assert_uint_eq(h.moved, 0);
	ck_assert(!half_wants_read(&h));
	ck_assert_int_eq(half_wants_write(&h), !to_stream(_i));
	half_end(&h, true);
	ck_assert_int_eq(h.state, HALF_DRAIN);
	empty_sink();
	step();
	ck_assert_int_eq(h.state, HALF_DRAIN);
	half_end(&h, true);
	cross();
	half_end(&h, true);
	ck_assert_int_eq(h.state, HALF_SHUT);
	ck_assert(half_finished(&h) && !half_wants_read(&h) && !half_wants_write(&h));
	ck_assert_uint_eq(take(junk, 5), 4);
	ck_assert_mem_eq(junk, "last", 4);
	ck_assert(sink_ended());
	if (_i != SOURCE)
		ck_assert_int_eq(
		    src.fds.in, src.fds.out); /* one socket: the other direction lives */
	finish();
}
END_TEST

START_TEST(a_sink_that_cannot_be_ended_is_marked_as_reset)
{
	int null = open("/dev/null", O_RDWR);

	join(_i);
	end_source();
	UNTIL(h.state != HALF_OPEN, step());
	ck_assert_int_eq(dup2(null, dst.fds.out), dst.fds.out); /* shutdown returns ENOTSOCK */
	half_end(&h, true);
	ck_assert_int_eq(dst.err, ENOTSOCK);
	ck_assert(half_is_local_failure(ENOMEM) && !half_is_local_failure(ECONNRESET));
	finish();
}
END_TEST

START_TEST(an_end_that_is_not_explicit_leaves_the_sink_open)
{
	char c;

	join(_i);
	end_source();
	UNTIL(h.state != HALF_OPEN, step());
	half_end(&h, false);
	ck_assert_int_eq(h.state, HALF_SHUT);
	ck_assert_int_ne(dst.fds.out, -1);
	ck_assert_int_eq(read(to, &c, 1), -1);
	ck_assert_int_eq(errno, EAGAIN);
	half_break(&h, EIO);
	ck_assert_int_eq(h.state, HALF_SHUT);
	finish();
}
END_TEST

START_TEST(a_pipe_at_its_end_is_closed_at_once)
{
	int p[2], q[2];

	join(_i);
	ck_assert(pipe(p) == 0 && pipe(q) == 0);
	fdpair_close(&src.fds, false);
	fdpair_pipes(&src.fds, p[0], q[1]);
	close(p[1]);
	half_read(&h, 1);
	ck_assert_int_eq(h.state, HALF_DRAIN);
	ck_assert_int_eq(src.fds.in, -1);
	ck_assert_int_eq(fcntl(p[0], F_GETFD), -1);
	close(q[0]);
	finish();
}
END_TEST

/*
 * How many bytes a half may hold: in memory, in a pipe, in a stream's queues.
 */
static size_t
bound_of(int kind, bool bulk)
{
	if (kind == SOURCE)
		return MUX_WINDOW_MOST;
	if (to_stream(kind))
		return MUX_WINDOW_FIRST;
	return bulk ? BUF_PIPE + HALF_HOLDS : HALF_HOLDS;
}

/* Small and large pieces use chunks and, if the system can, a pipe. */
START_TEST(a_slow_sink_stops_the_reading_and_all_bytes_arrive)
{
	int kind = _i / 2, idle;
	size_t piece = _i % 2 ? sizeof(junk) : 100, sent = 0, got = 0, n;

	join(kind);
	for (idle = 0; idle<50; idle = n> 0 ? 0 : idle + 1) {
		n = put(junk, piece);
		sent += n;
		cross();
		half_update(&h);
		n += half_wants_read(&h) ? half_read(&h, 1) : 0;
		half_write(&h, false);
		ck_assert_uint_le(h.buf->used, bound_of(kind, _i % 2));
		ck_assert_int_eq(h.state, HALF_OPEN);
	}
	ck_assert(!half_wants_read(&h));
	UNTIL(got == sent, {
		got += take_all();
		step();
	});
	ck_assert_uint_eq(h.moved, sent);
	ck_assert(!half_wants_write(&h));
	ck_assert_int_eq(half_wants_read(&h), kind != SOURCE);
	finish();
}
END_TEST

START_TEST(a_sink_that_closes_breaks_the_half_and_its_queue_is_lost)
{
	join(_i);
	ck_assert_uint_eq(put("x", 1), 1);
	if (to_stream(_i)) {
		WAIT_FOR(half_read(&h, 1) == 1); /* in the queue, not sent */
		stream_stop(peer);
		link_cross_one(link_far, link_near, pollset_clock());
		half_update(&h);
	} else {
		close(to);
		to = 0;
		step();
	}
	ck_assert_int_eq(h.state, HALF_BROKEN);
	ck_assert(h.lost && half_finished(&h) && !half_wants_write(&h));
	ck_assert_int_eq(h.err, EPIPE);
	ck_assert_uint_eq(h.buf->used, 0);
	ck_assert_uint_eq(h.moved, 0);
	half_end(&h, true);
	ck_assert_int_eq(h.state, HALF_BROKEN);
	finish();
}
END_TEST

START_TEST(a_sink_stream_that_is_reset_breaks_the_half_with_its_cause)
{
	join(_i);
	stream_reset(peer, MUX_TIMEOUT, "too slow");
	cross();
	half_update(&h);
	ck_assert(h.state == HALF_BROKEN && !h.lost);
	ck_assert_int_eq(h.err, ETIMEDOUT);
	finish();
}
END_TEST

START_TEST(a_break_with_nothing_held_loses_nothing)
{
	join(_i);
	half_break(&h, EPIPE);
	ck_assert(h.state == HALF_BROKEN && !h.lost && h.err == EPIPE);
	half_break(&h, EIO);
	ck_assert(h.err == EPIPE);
	finish();
}
END_TEST

START_TEST(a_broken_half_reads_and_drops_until_the_source_ends)
{
	join(_i);
	half_break(&h, EPIPE);
	ck_assert(half_wants_read(&h));
	ck_assert_uint_eq(half_read(&h, 1), 0);
	ck_assert(!h.lost && src.fds.in != -1);
	ck_assert_uint_eq(put("dropped", 7), 7);
	UNTIL(h.lost, ck_assert_uint_eq(half_read(&h, 1), 0));
	ck_assert_uint_eq(h.buf->used, 0);
	ck_assert(half_wants_read(&h) && !half_wants_write(&h));
	end_source();
	UNTIL(src.fds.in == -1, half_read(&h, 1));
	ck_assert(!half_wants_read(&h));
	ck_assert_int_ne(src.fds.out, -1);
	cross();
	ck_assert_uint_eq(take_all(), 0);
	finish();
}
END_TEST

/* More bytes than all windows allow without CREDIT. */
START_TEST(a_broken_half_drops_what_a_stream_sends_and_reserves_nothing_for_it)
{
	join(SOURCE);
	ck_assert_uint_eq(put(junk, 1000), 1000);
	half_break(&h, EPIPE);
	ck_assert_uint_eq(h.buf->used, 0);
	UNTIL(put(junk, sizeof(junk)) == 0, step());
	ck_assert_uint_eq(h.buf->used, 0);
	ck_assert_uint_eq(h.moved, 0);
	finish();
}
END_TEST

/* What was received before the reset is written onward. */
START_TEST(a_reset_source_drains_and_is_marked)
{
	static const struct {
		int kind;
		bool bulk;
	} cases[] = { { FDS_TCP, false }, { FDS_TCP, true }, { SINK_TCP, false },
		{ SOURCE, false } };
	int kind = cases[_i].kind;
	char got[8] = "";

	join(kind);
	ck_assert_uint_eq(put("before", 6), 6);
	WAIT_FOR(kind == SOURCE || half_read(&h, 1) == 6);
	if (kind == SOURCE) {
		stream_reset(peer, MUX_RESET, "");
	} else {
		reset(from);
		from = 0;
		h.bulk = src.fds.in_splices = cases[_i].bulk;
	}
	UNTIL(src.err != 0, {
		cross();
		half_update(&h);
		if (half_wants_read(&h))
			half_read(&h, 1);
	});
	ck_assert_int_eq(src.err, ECONNRESET);
	ck_assert_int_eq(h.state, HALF_DRAIN);
	half_write(&h, true);
	cross();
	ck_assert_uint_eq(take(got, sizeof(got)), 6);
	ck_assert_mem_eq(got, "before", 6);
	finish();
}
END_TEST

START_TEST(a_source_that_fills_a_chunk_is_read_in_more_chunks_up_to_the_limit)
{
	FILE *f = tmpfile();
	int i;

	for (i = 0; i < 12; i++)
		ck_assert_uint_eq(fwrite(junk, 1, sizeof(junk), f), sizeof(junk));
	fwrite(junk, 1, 100, f);
	rewind(f);
	side_none(&src);
	side_none(&dst);
	src.fds.in = fileno(f);
	half_init(&h, &src, &dst, NULL);
	ck_assert_uint_eq(half_read(&h, BUF_WIDE), BUF_CHUNK);
	ck_assert_uint_eq(
	    half_read(&h, BUF_WIDE), HALF_HOLDS - BUF_CHUNK); /* as much as there is room for */
	ck_assert(!half_wants_read(&h));
	buf_clear(h.buf);
	ck_assert_uint_eq(half_read(&h, 1), BUF_CHUNK); /* other connections wait */
	ck_assert_uint_eq(half_read(&h, 2), 2 * BUF_CHUNK);
	buf_clear(h.buf);
	ck_assert_uint_eq(half_read(&h, BUF_WIDE), 4 * BUF_CHUNK);
	buf_clear(h.buf);
	ck_assert_uint_eq(half_read(&h, BUF_WIDE), BUF_CHUNK + 100);
	buf_clear(h.buf);
	ck_assert_uint_eq(half_read(&h, BUF_WIDE), 0);
	ck_assert_int_eq(h.state, HALF_DRAIN);
}
END_TEST

/* A terminal may block during a larger write. */
START_TEST(a_blocking_sink_is_written_only_when_ready_and_little)
{
	join(_i);
	dst.fds.out_blocks = true;
	ck_assert_uint_eq(put(junk, 5000), 5000);
	half_update(&h);
	if (_i != SOURCE)
		WAIT_FOR(half_read(&h, 1) == 5000);
	half_write(&h, false);
	ck_assert_uint_eq(h.moved, 0);
	half_write(&h, true);
	ck_assert_uint_gt(h.moved, 0);
	ck_assert_uint_le(h.moved, 1024);
	finish();
}
END_TEST

/* The memory of all streams is limited, so each of many has a short queue. */
START_TEST(among_many_streams_a_read_is_no_larger_than_the_queue)
{
	size_t most;
	int i;

	join(SINK);
	for (i = 0; i < 1000; i++)
		ck_assert_ptr_nonnull(mux_open(link_near, "x:1"));
	most = stream_room(dst.stream);
	ck_assert_uint_lt(most, BUF_CHUNK / 2);
	ck_assert_uint_gt(put(junk, sizeof(junk)), most);
	UNTIL(!half_wants_read(&h), {
		half_read(&h, BUF_WIDE);
		ck_assert_uint_lt(h.buf->used, 2 * most);
	});
}
END_TEST

static void
interrupt(int sig)
{
	(void)sig;
}

/* A terminal can be stopped after poll has reported it as writable. */
START_TEST(a_signal_ends_a_write_that_blocks)
{
	const struct sigaction act = { .sa_handler = interrupt };
	int p[2];

	join(FDS);
	ck_assert_int_eq(pipe(p), 0);
	fcntl(p[1], F_SETFL, O_NONBLOCK);
	while (write(p[1], junk, sizeof(junk)) > 0 || write(p[1], junk, 1) > 0)
		;
	fcntl(p[1], F_SETFL, 0);
	dst.fds.out = p[1];
	dst.fds.out_blocks = true;
	ck_assert_uint_eq(put(junk, 5000), 5000);
	WAIT_FOR(half_read(&h, 1) == 5000);
	ck_assert_int_eq(sigaction(SIGALRM, &act, NULL), 0);
	alarm(1);
	half_write(&h, true);
	ck_assert_int_eq(h.state, HALF_OPEN);
	ck_assert_uint_eq(h.buf->used, 5000);
}
END_TEST

/* Bulk goes through a pipe, messages through memory. */
START_TEST(order_is_kept_between_messages_and_bulk)
{
	static const size_t pieces[] = { 1, 65536, 65536, 65536, 7, 100000, 1, 65536, 65536, 3,
		65536, 40000, 40000, 1 };
	size_t i = 0, j, end = pieces[0], sent = 0, got = 0, total = 0, n, part;
	unsigned char block[7000], out[16384];
	struct fdpair real;
	int p[2];

	join(_i);
	if (_i == FDS) {
		ck_assert_int_eq(pipe(p), 0);
		fcntl(p[0], F_SETFL, O_NONBLOCK);
		fcntl(p[1], F_SETFL, O_NONBLOCK);
		real = src.fds;
		fdpair_pipes(&src.fds, p[0], real.out);
		close(from);
		from = p[1];
	}
	for (j = 0; j < sizeof(pieces) / sizeof(pieces[0]); j++)
		total += pieces[j];
	UNTIL(got == total, {
		while (sent < total) {
			part = end - sent < sizeof(block) ? end - sent : sizeof(block);
			for (j = 0; j < part; j++)
				block[j] = (unsigned char)((sent + j) % 251);
			n = put(block, part);
			sent += n;
			if (sent == end && sent < total)
				end += pieces[++i];
			if (n == 0 || sent + pieces[i] == end)
				break;
		}
		step();
		ck_assert_int_eq(h.state, HALF_OPEN);
		n = take(out, sizeof(out));
		for (j = 0; j < n; j++, got++)
			if (out[j] != got % 251)
				ck_abort_msg("differs at %zu", got);
	});
	ck_assert_uint_eq(h.moved, total);
	finish();
}
END_TEST

TESTS("half")
{
	tcase_add_loop_test(tc, a_new_half_has_nothing_to_write, 0, KINDS);
	tcase_add_loop_test(tc, bytes_move_and_are_counted, 0, KINDS);
	tcase_add_loop_test(tc, the_end_waits_for_bytes_that_are_held, 0, KINDS);
	tcase_add_test(tc, a_sink_that_cannot_be_ended_is_marked_as_reset);
	tcase_add_loop_test(tc, a_sink_that_cannot_be_ended_is_marked_as_reset, SOURCE, SOURCE + 1);
	tcase_add_test(tc, an_end_that_is_not_explicit_leaves_the_sink_open);
	tcase_add_loop_test(
	    tc, an_end_that_is_not_explicit_leaves_the_sink_open, SOURCE, SOURCE + 1);
	tcase_add_loop_test(tc, a_pipe_at_its_end_is_closed_at_once, 0, SOURCE);
	tcase_add_loop_test(tc, a_slow_sink_stops_the_reading_and_all_bytes_arrive, 0, 2 * KINDS);
	tcase_add_loop_test(tc, a_sink_that_closes_breaks_the_half_and_its_queue_is_lost, 0, KINDS);
	tcase_add_loop_test(
	    tc, a_sink_stream_that_is_reset_breaks_the_half_with_its_cause, SINK, SINK_TCP + 1);
	tcase_add_loop_test(tc, a_break_with_nothing_held_loses_nothing, 0, KINDS);
	tcase_add_loop_test(tc, a_broken_half_reads_and_drops_until_the_source_ends, 0, SOURCE);
	tcase_add_test(tc, a_broken_half_drops_what_a_stream_sends_and_reserves_nothing_for_it);
	tcase_add_loop_test(tc, a_reset_source_drains_and_is_marked, 0, 4);
	tcase_add_test(tc, a_source_that_fills_a_chunk_is_read_in_more_chunks_up_to_the_limit);
	tcase_add_loop_test(tc, a_blocking_sink_is_written_only_when_ready_and_little, FDS, SINK);
	tcase_add_loop_test(
	    tc, a_blocking_sink_is_written_only_when_ready_and_little, SOURCE, SOURCE + 1);
	tcase_add_test(tc, among_many_streams_a_read_is_no_larger_than_the_queue);
	tcase_add_test(tc, a_signal_ends_a_write_that_blocks);
	tcase_add_loop_test(tc, order_is_kept_between_messages_and_bulk, 0, KINDS);
}
