/* check_buf.c - queues of bytes */
#include "t/all.h"
#include "t/check.h"

static unsigned char in[5 * BUF_CHUNK], out[5 * BUF_CHUNK];
static struct buf b;

static FILE *
source(size_t n)
{
	FILE *f = tmpfile();
	size_t i;

	for (i = 0; i < sizeof(in); i++)
		in[i] = (unsigned char)(i * 31 ^ i >> 8 ^ i >> 16);
	ck_assert_uint_eq(fwrite(in, 1, n, f), n);
	ck_assert_int_eq(fflush(f), 0);
	rewind(f);
	lseek(fileno(f), 0, SEEK_SET);
	return f;
}

static void
fill_all(int fd, size_t n)
{
	ssize_t r;

	while (b.used < n) {
		r = buf_fill(&b, fd, BUF_CHUNK);
		ck_assert_int_gt(r, 0);
		ck_assert_int_le(r, BUF_CHUNK);
	}
	ck_assert_uint_eq(b.used, n);
}

/* Drain in pieces of at most ${max}, and compare with what was put in. */
static void
drain_all(size_t n, size_t max)
{
	FILE *f = tmpfile();
	size_t moved = 0;
	ssize_t w;

	while (moved < n) {
		w = buf_drain(&b, fileno(f), max);
		ck_assert_int_gt(w, 0);
		ck_assert_uint_le((size_t)w, max);
		moved += (size_t)w;
		ck_assert_uint_eq(b.used, n - moved);
	}
	ck_assert_int_eq(buf_drain(&b, fileno(f), max), 0);
	ck_assert_int_eq(lseek(fileno(f), 0, SEEK_END), (off_t)n);
	ck_assert_int_eq(pread(fileno(f), out, n, 0), (ssize_t)n);
	ck_assert_mem_eq(in, out, n);
	ck_assert_ptr_null(b.head);
	ck_assert_ptr_null(b.tail);
	fclose(f);
}

static const size_t sizes[] = { 0, 1, 2, 4095, BUF_CHUNK - 1, BUF_CHUNK, BUF_CHUNK + 1,
	2 * BUF_CHUNK - 1, 2 * BUF_CHUNK, 2 * BUF_CHUNK + 1, 200000, 5 * BUF_CHUNK };

START_TEST(every_size_comes_out_as_it_went_in)
{
	FILE *f = source(sizes[_i]);

	fill_all(fileno(f), sizes[_i]);
	ck_assert_int_eq(buf_fill(&b, fileno(f), BUF_CHUNK), 0);
	ck_assert_uint_eq(b.used, sizes[_i]);
	drain_all(sizes[_i], SIZE_MAX);
}
END_TEST

/* Many chunks in one call, also after a chunk that is partly full. */
START_TEST(wide_calls_move_whole_rows_of_chunks)
{
	static const size_t pieces[] = { 1, BUF_CHUNK, BUF_CHUNK + 1, 200001, SIZE_MAX };
	size_t n = sizes[_i], got = 0, want, k;
	size_t max;
	FILE *f;

	for (k = 0; k < sizeof(pieces) / sizeof(pieces[0]); k++)
		for (max = BUF_CHUNK; max < 7 * BUF_CHUNK; max += BUF_CHUNK / 2) {
			if (n > 5000 && pieces[k] == 1)
				continue;
			f = source(n);
			want = max < BUF_WIDE * BUF_CHUNK ? max : BUF_WIDE * BUF_CHUNK;
			ck_assert_int_eq(
			    buf_fill(&b, fileno(f), max), (ssize_t)(n < want ? n : want));
			for (got = b.used; got < n; got = b.used)
				ck_assert_int_gt(buf_fill(&b, fileno(f), max), 0);
			ck_assert_int_eq(buf_fill(&b, fileno(f), max), 0);
			ck_assert_int_eq(buf_fill(&b, -1, max), -1);
			ck_assert_int_eq(errno, EBADF);
			drain_all(n, pieces[k]);
			fclose(f);
		}
	give_back();
}
END_TEST

/* Partial drains end at all kinds of offsets in a chunk. */
START_TEST(pieces_come_out_in_order)
{
	static const size_t pieces[] = { 1, 7, 1023, 4096, BUF_CHUNK / 2, BUF_CHUNK - 1, BUF_CHUNK,
		BUF_CHUNK + 1, 3 * BUF_CHUNK };
	size_t n = pieces[_i] == 1 ? BUF_CHUNK + 3 : 3 * BUF_CHUNK + 5;
	FILE *f = source(n);

	fill_all(fileno(f), n);
	drain_all(n, pieces[_i]);
}
END_TEST

/* Reads and writes in turn move both offsets through the chunks. */
START_TEST(filling_continues_after_a_partial_drain)
{
	static const size_t steps[] = { 1, 1000, 30000, BUF_CHUNK - 1, BUF_CHUNK };
	FILE *sink = tmpfile();
	size_t put = 0, held;
	int p[2];

	ck_assert_int_eq(pipe(p), 0);
	fclose(source(0));
	while (put + steps[_i] <= sizeof(in) && put < 200 * steps[_i]) {
		ck_assert_int_eq(write(p[1], in + put, steps[_i]), (ssize_t)steps[_i]);
		put += steps[_i];
		for (held = b.used; b.used < held + steps[_i];)
			ck_assert_int_gt(buf_fill(&b, p[0], BUF_CHUNK), 0);
		ck_assert_int_gt(buf_drain(&b, fileno(sink), steps[_i] / 2 + 1), 0);
	}
	while (b.used > 0)
		ck_assert_int_gt(buf_drain(&b, fileno(sink), SIZE_MAX), 0);
	ck_assert_int_eq(pread(fileno(sink), out, sizeof(out), 0), (ssize_t)put);
	ck_assert_mem_eq(in, out, put);
}
END_TEST

START_TEST(one_fill_is_one_read_of_at_most_the_limit)
{
	FILE *f = source(3 * BUF_CHUNK);

	ck_assert_int_eq(buf_fill(&b, fileno(f), 5000), 5000);
	ck_assert_int_eq(buf_fill(&b, fileno(f), 5000), 5000);
	ck_assert_int_eq(lseek(fileno(f), 0, SEEK_CUR), 10000);
	fill_all(fileno(f), 3 * BUF_CHUNK);
	drain_all(3 * BUF_CHUNK, SIZE_MAX);
}
END_TEST

/*
 * A pipe in packet mode drops what a read has no room for.  A socket of this
 * type does the same, and is in POSIX.
 */
START_TEST(every_read_has_room_for_a_packet)
{
	static const size_t packets[] = { 1, 511, 4095, 4096 };
	size_t size = packets[_i], put;
	int s[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, s) == -1)
		return;
	fclose(source(0));
	for (put = 0; put + size <= 3 * BUF_CHUNK; put += size) {
		ck_assert_int_eq(write(s[1], in + put, size), (ssize_t)size);
		ck_assert_int_eq(buf_fill(&b, s[0], BUF_CHUNK), (ssize_t)size);
	}
	drain_all(put, SIZE_MAX);
}
END_TEST

START_TEST(nothing_to_read_is_EAGAIN_and_holds_no_memory)
{
	int s[2];

	socks(s);
	ck_assert_int_eq(buf_fill(&b, s[0], BUF_CHUNK), -1);
	ck_assert_int_eq(errno, EAGAIN);
	ck_assert_uint_eq(b.used, 0);
	ck_assert_ptr_null(b.head);
}
END_TEST

START_TEST(a_full_sink_is_EAGAIN_and_loses_nothing)
{
	FILE *f = source(BUF_CHUNK);
	char junk[4096] = { 0 };
	int s[2];

	socks(s);
	while (write(s[0], junk, sizeof(junk)) > 0)
		;
	fill_all(fileno(f), BUF_CHUNK);
	ck_assert_int_eq(buf_drain(&b, s[0], SIZE_MAX), -1);
	ck_assert_int_eq(errno, EAGAIN);
	drain_all(BUF_CHUNK, SIZE_MAX);
}
END_TEST

START_TEST(errors_are_those_of_read_and_write)
{
	FILE *f = source(10);
	int p[2];

	signal(SIGPIPE, SIG_IGN);
	ck_assert_int_eq(buf_fill(&b, -1, BUF_CHUNK), -1);
	ck_assert_int_eq(errno, EBADF);
	ck_assert_ptr_null(b.head);
	fill_all(fileno(f), 10);
	ck_assert_int_eq(pipe(p), 0);
	close(p[0]);
	ck_assert_int_eq(buf_drain(&b, p[1], SIZE_MAX), -1);
	ck_assert_int_eq(errno, EPIPE);
	ck_assert_uint_eq(b.used, 10);
}
END_TEST

/*
 * "An empty buffer holds none": also when a look for more bytes took a chunk
 * for nothing while others were held.
 */
START_TEST(an_empty_buffer_holds_no_memory_after_a_read_of_nothing)
{
	FILE *f = source(BUF_CHUNK);

	fill_all(fileno(f), BUF_CHUNK);
	ck_assert_int_eq(buf_fill(&b, fileno(f), BUF_CHUNK), 0);
	ck_assert_int_eq(buf_fill(&b, -1, BUF_CHUNK), -1);
	drain_all(BUF_CHUNK, SIZE_MAX);
}
END_TEST

START_TEST(an_empty_buffer_drains_0)
{
	ck_assert_int_eq(buf_drain(&b, -1, SIZE_MAX), 0);
}
END_TEST

START_TEST(clear_drops_everything_and_the_buffer_can_be_used)
{
	FILE *f = source(3 * BUF_CHUNK + 1);

	buf_clear(&b);
	fill_all(fileno(f), 3 * BUF_CHUNK + 1);
	buf_clear(&b);
	ck_assert_uint_eq(b.used, 0);
	ck_assert_ptr_null(b.head);
	ck_assert_ptr_null(b.tail);
	lseek(fileno(f), 0, SEEK_SET);
	fill_all(fileno(f), 3 * BUF_CHUNK + 1);
	drain_all(3 * BUF_CHUNK + 1, SIZE_MAX);
}
END_TEST

/* Chunks are kept for all buffers, and may be freed at any time. */
START_TEST(kept_chunks_are_clean_and_trim_is_harmless)
{
	size_t n = sizes[_i];
	int round;

	for (round = 0; round < 3; round++) {
		FILE *f = source(n);

		fill_all(fileno(f), n);
		drain_all(n, 50000);
		fclose(f);
		if (round == 1)
			buf_trim();
	}
	buf_trim();
	buf_trim();
}
END_TEST

/* Bytes can rest in a pipe only if the system has os_splice. */
static bool
can_splice(int fd)
{
	ssize_t n = buf_splice(&b, fd);

	ck_assert(n == -1 ? b.pipe == NULL && b.used == 0 : b.pipe != NULL && b.used == (size_t)n);
	return n > 0;
}

START_TEST(spliced_bytes_come_out_as_they_went_in)
{
	size_t n = sizes[_i];
	FILE *f = source(n);
	ssize_t r = 1;

	if (n == 0 || !can_splice(fileno(f)))
		return;
	while (b.used < n && r > 0)
		r = buf_splice(&b, fileno(f));
	ck_assert_int_gt(r, 0);
	drain_all(n, 50000);
	ck_assert_ptr_null(b.pipe);
	ck_assert_int_eq(buf_splice(&b, fileno(f)), 0);
	ck_assert_ptr_null(b.pipe);
}
END_TEST

START_TEST(a_splice_of_nothing_holds_no_pipe)
{
	int p[2], before = fds_open();

	ck_assert_int_eq(pipe(p), 0);
	fcntl(p[0], F_SETFL, O_NONBLOCK);
	ck_assert_int_eq(buf_splice(&b, p[0]), -1);
	ck_assert_ptr_null(b.pipe);
	buf_trim();
	ck_assert_int_eq(fds_open(), before + 2);
}
END_TEST

START_TEST(a_full_pipe_is_EAGAIN_and_takes_again_after_a_drain)
{
	char junk[4096] = { 0 };
	ssize_t n;
	FILE *sink = tmpfile();
	int p[2], i;

	ck_assert_int_eq(pipe(p), 0);
	fcntl(p[0], F_SETFL, O_NONBLOCK);
	ck_assert_int_eq(write(p[1], junk, 1), 1);
	if (!can_splice(p[0]))
		return;
	for (i = 0; i < 100000 && !b.full; i++) {
		ck_assert_int_eq(write(p[1], junk, 4096), 4096);
		n = buf_splice(&b, p[0]);
		ck_assert(n > 0 || (n == -1 && errno == EAGAIN));
	}
	ck_assert(b.full);
	ck_assert_uint_le(b.used, BUF_PIPE);
	ck_assert_int_gt(buf_drain(&b, fileno(sink), SIZE_MAX), 0);
	ck_assert(!b.full);
	buf_clear(&b);
}
END_TEST

/* A file that is opened for appending takes no spliced bytes. */
START_TEST(a_sink_that_refuses_splices_gets_every_byte)
{
	size_t n = 3 * BUF_CHUNK + 7, moved = 0;
	FILE *f = source(n), *sink = tmpfile();
	ssize_t r;

	if (!can_splice(fileno(f)))
		return;
	while (b.used < n)
		ck_assert_int_gt(buf_splice(&b, fileno(f)), 0);
	ck_assert_int_eq(fcntl(fileno(sink), F_SETFL, O_APPEND), 0);
	ck_assert_int_eq(buf_drain(&b, fileno(sink), SIZE_MAX), -1);
	ck_assert_int_eq(errno, EAGAIN);
	ck_assert_uint_eq(b.used, n);
	ck_assert_ptr_null(b.pipe);
	while (moved < n && (r = buf_drain(&b, fileno(sink), SIZE_MAX)) > 0)
		moved += (size_t)r;
	ck_assert_int_eq(pread(fileno(sink), out, n, 0), (ssize_t)n);
	ck_assert_mem_eq(in, out, n);
}
END_TEST

/* Dropped bytes must not come out of a pipe that is used again. */
START_TEST(cleared_pipes_are_not_used_again)
{
	FILE *f = source(BUF_CHUNK), *g = source(10);
	int before = fds_open(), i;

	for (i = 0; i < 20; i++) {
		lseek(fileno(f), 0, SEEK_SET);
		if (!can_splice(fileno(f)))
			return;
		buf_clear(&b);
		ck_assert_ptr_null(b.pipe);
		ck_assert_uint_eq(b.used, 0);
		lseek(fileno(g), 0, SEEK_SET);
		ck_assert(can_splice(fileno(g)));
		drain_all(b.used, SIZE_MAX);
	}
	buf_trim();
	ck_assert_int_eq(fds_open(), before);
}
END_TEST

/* Linux limits all pipes of a user together. */
START_TEST(the_number_of_pipes_is_limited)
{
	enum { MOST = 16 };
	struct buf many[MOST] = { { 0 } };
	FILE *f = source(100);
	int i;

	if (os_splice(-1, -1, 1) == -1 && errno == ENOSYS)
		return;
	for (i = 0; i < MOST; i++) {
		rewind(f);
		ck_assert_int_eq(buf_splice(&many[i], fileno(f)), 100);
	}
	ck_assert_int_eq(buf_splice(&b, fileno(f)), -1);
	ck_assert_int_eq(errno, EMFILE);
	ck_assert_ptr_null(b.pipe);
	buf_clear(&many[0]);
	rewind(f);
	ck_assert_int_eq(buf_splice(&b, fileno(f)), 100);
	for (i = 1; i < MOST; i++)
		buf_clear(&many[i]);
	give_back();
}
END_TEST

START_TEST(without_descriptors_splicing_fails_and_filling_works)
{
	FILE *f = source(100);
	int fd;

	while ((fd = dup(0)) != -1)
		;
	ck_assert_int_eq(buf_splice(&b, fileno(f)), -1);
	ck_assert_int_ne(errno, EAGAIN);
	ck_assert_ptr_null(b.pipe);
	ck_assert_int_eq(buf_fill(&b, fileno(f), BUF_CHUNK), 100);
	give_back();
}
END_TEST

TESTS("buf")
{
	tcase_add_loop_test(
	    tc, spliced_bytes_come_out_as_they_went_in, 0, sizeof(sizes) / sizeof(sizes[0]));
	tcase_add_test(tc, a_splice_of_nothing_holds_no_pipe);
	tcase_add_test(tc, a_full_pipe_is_EAGAIN_and_takes_again_after_a_drain);
	tcase_add_test(tc, a_sink_that_refuses_splices_gets_every_byte);
	tcase_add_test(tc, cleared_pipes_are_not_used_again);
	tcase_add_test(tc, the_number_of_pipes_is_limited);
	tcase_add_test(tc, without_descriptors_splicing_fails_and_filling_works);
	tcase_add_loop_test(
	    tc, every_size_comes_out_as_it_went_in, 0, sizeof(sizes) / sizeof(sizes[0]));
	tcase_add_loop_test(
	    tc, wide_calls_move_whole_rows_of_chunks, 0, sizeof(sizes) / sizeof(sizes[0]));
	tcase_add_loop_test(tc, pieces_come_out_in_order, 0, 9);
	tcase_add_loop_test(tc, filling_continues_after_a_partial_drain, 0, 5);
	tcase_add_test(tc, one_fill_is_one_read_of_at_most_the_limit);
	tcase_add_loop_test(tc, every_read_has_room_for_a_packet, 0, 4);
	tcase_add_test(tc, nothing_to_read_is_EAGAIN_and_holds_no_memory);
	tcase_add_test(tc, a_full_sink_is_EAGAIN_and_loses_nothing);
	tcase_add_test(tc, errors_are_those_of_read_and_write);
	tcase_add_test(tc, an_empty_buffer_holds_no_memory_after_a_read_of_nothing);
	tcase_add_test(tc, an_empty_buffer_drains_0);
	tcase_add_test(tc, clear_drops_everything_and_the_buffer_can_be_used);
	tcase_add_loop_test(
	    tc, kept_chunks_are_clean_and_trim_is_harmless, 0, sizeof(sizes) / sizeof(sizes[0]));
}
