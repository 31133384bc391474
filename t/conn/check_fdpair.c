/* check_fdpair.c - the descriptors of one side */
#include <netinet/tcp.h>
#include <sys/resource.h>

#include "conn/fdpair.h"
#include "t/net.h"

static struct pollset ps;
static struct fdpair e;

/* One poll that does not wait. */
static void
look(bool reads, bool writes)
{
	pollset_begin(&ps);
	fdpair_want(&e, &ps, reads, writes);
	pollset_until(&ps, ps.now);
	ck_assert_int_eq(pollset_wait(&ps), 0);
}

static bool
ends(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char c;

	return poll(&p, 1, 5000) == 1 && read(fd, &c, 1) == 0;
}

/* ---- a socket ---- */

START_TEST(a_socket_is_both_directions)
{
	int s[2];

	_i ? tcp_pair(s) : socks(s);
	fdpair_socket(&e, s[0], _i);
	ck_assert(e.in == s[0] && e.out == s[0] && e.single && e.out_socket && !e.stdio);
	ck_assert_int_eq(e.tcp, _i);
	look(true, true);
	ck_assert(!fdpair_readable(&e, &ps) && fdpair_writable(&e, &ps));
	ck_assert_int_eq(fdpair_failed(&e, &ps), 0);
	ck_assert_int_eq(write(s[1], "x", 1), 1);
	UNTIL(fdpair_readable(&e, &ps), look(true, false));
	look(false, true);
	ck_assert(!fdpair_readable(&e, &ps) && fdpair_writable(&e, &ps));
}
END_TEST

START_TEST(the_end_of_out_is_a_half_close)
{
	char c;
	int s[2];

	_i ? tcp_pair(s) : socks(s);
	fdpair_socket(&e, s[0], _i);
	fdpair_shut_out(&e);
	fdpair_shut_out(&e);
	ck_assert_int_eq(e.out, -1);
	ck_assert_int_eq(e.in, s[0]);
	ck_assert(ends(s[1]));
	ck_assert_int_eq(write(s[1], "x", 1), 1);
	UNTIL(fdpair_readable(&e, &ps), look(true, false));
	ck_assert(!fdpair_writable(&e, &ps));
	ck_assert_int_eq(read(e.in, &c, 1), 1);
	ck_assert_int_eq(fdpair_failed(&e, &ps), 0);
	fdpair_shut_in(&e);
	fdpair_shut_in(&e);
	ck_assert_int_eq(e.in, -1);
	ck_assert_int_eq(fcntl(s[0], F_GETFD), -1);
	fdpair_close(&e, false);
}
END_TEST

START_TEST(the_end_of_in_leaves_out)
{
	int s[2];
	char c;

	_i ? tcp_pair(s) : socks(s);
	fdpair_socket(&e, s[0], _i);
	fdpair_shut_in(&e);
	ck_assert(e.in == -1 && e.out == s[0]);
	ck_assert_int_eq(write(e.out, "x", 1), 1);
	WAIT_FOR(read(s[1], &c, 1) == 1);
	if (!_i) { /* a write by a Unix peer gets EPIPE */
		ck_assert_int_eq(write(s[1], "x", 1), -1);
		ck_assert_int_eq(errno, EPIPE);
	}
	look(false, true);
	ck_assert(fdpair_writable(&e, &ps));
	fdpair_shut_out(&e);
	ck_assert_int_eq(fcntl(s[0], F_GETFD), -1);
}
END_TEST

START_TEST(unread_bytes_of_a_unix_peer_do_not_cause_a_reset)
{
	char unread[10000] = "not read";
	int s[2];

	socks(s);
	fdpair_socket(&e, s[0], false);
	ck_assert_int_eq(write(s[1], unread, sizeof(unread)), sizeof(unread));
	fdpair_shut_in(&e);
	fdpair_close(&e, false);
	ck_assert(ends(s[1]));
}
END_TEST

START_TEST(a_close_sends_EOF_or_a_reset)
{
	bool tcp = _i & 1, rst = _i & 2;
	int s[2];
	char c = 0;

	tcp ? tcp_pair(s) : socks(s);
	fdpair_socket(&e, s[0], tcp);
	if (_i & 4)
		fdpair_shut_out(&e); /* the same after a half-close */
	if (_i & 8)
		fdpair_shut_in(&e);
	fdpair_close(&e, rst);
	fdpair_close(&e, rst);
	ck_assert(e.in == -1 && e.out == -1);
	ck_assert_int_eq(fcntl(s[0], F_GETFD), -1);
	if (tcp && rst && (_i & 12) != 12) {
		WAIT_FOR(read(s[1], &c, 1) != -1 || errno != EAGAIN);
		if (_i & 4) /* the FIN came first; the reset is behind it */
			WAIT_FOR(send(s[1], &c, 1, MSG_NOSIGNAL) == -1);
		else
			ck_assert_int_eq(errno, ECONNRESET);
	} else {
		ck_assert(ends(s[1]));
	}
}
END_TEST

START_TEST(a_reset_is_a_failure_and_a_half_close_is_not)
{
	int s[2];

	tcp_pair(s);
	fdpair_socket(&e, s[0], true);
	shutdown(s[1], SHUT_WR);
	UNTIL(fdpair_readable(&e, &ps), look(true, false));
	ck_assert_int_eq(fdpair_failed(&e, &ps), 0);
	ck_assert(!e.hup);
	reset(s[1]);
	UNTIL(fdpair_failed(&e, &ps) != 0, look(false, false));
	ck_assert(e.hup);
}
END_TEST

/* Nothing is read from it or written to it. */
START_TEST(an_idle_socket_reports_its_reset)
{
	int s[2];

	tcp_pair(s);
	fdpair_socket(&e, s[0], true);
	reset(s[1]);
	do
		look(false, false);
	while (pollset_ready(&ps, e.out_slot) == 0);
	ck_assert_int_eq(fdpair_failed(&e, &ps), ECONNRESET);
}
END_TEST

/* macOS reports a received EOF as POLLHUP. */
START_TEST(an_EOF_that_is_a_hang_up_hides_no_reset)
{
	int s[2];

	_i ? tcp_pair(s) : socks(s);
	fdpair_socket(&e, s[0], _i);
	shutdown(s[1], SHUT_WR);
	look(true, false);
	ps.fds[e.out_slot].revents = POLLIN | POLLHUP;
	ck_assert_int_eq(fdpair_failed(&e, &ps), 0);
	look(false, false);
	ck_assert_uint_eq(ps.n, 0);
	ck_assert_int_eq(fdpair_failed(&e, &ps), 0);
	ck_assert_int_ge(e.check_at, ps.now);
	reset(s[1]);
	UNTIL(fdpair_failed(&e, &ps) != 0, ps.now = e.check_at);
	ck_assert(e.check_at == INT64_MAX);
}
END_TEST

START_TEST(a_unix_peer_that_closed_is_EPIPE_and_is_not_watched_again)
{
	int s[2];

	socks(s);
	fdpair_socket(&e, s[0], false);
	close(s[1]);
	look(false, false);
	ck_assert_int_eq(fdpair_failed(&e, &ps), EPIPE);
	look(false, false);
	ck_assert_uint_eq(ps.n, 0);
	look(true, false);
	ck_assert(fdpair_readable(&e, &ps));
}
END_TEST

/* ---- pipes ---- */

START_TEST(pipes_are_two_descriptors)
{
	int in[2], out[2];
	char c;

	ck_assert(pipe(in) == 0 && pipe(out) == 0);
	fdpair_pipes(&e, in[0], out[1]);
	ck_assert(e.in == in[0] && e.out == out[1] && !e.single && !e.tcp && !e.out_socket);
	look(true, true);
	ck_assert(!fdpair_readable(&e, &ps) && fdpair_writable(&e, &ps));
	ck_assert_int_eq(write(in[1], "x", 1), 1);
	look(true, false);
	ck_assert(fdpair_readable(&e, &ps) && !fdpair_writable(&e, &ps));
	fdpair_shut_out(&e);
	close(in[1]);
	ck_assert_int_eq(read(out[0], &c, 1), 0);
	look(true, false);
	ck_assert(fdpair_readable(&e, &ps));
	ck_assert_int_eq(fdpair_failed(&e, &ps), 0);
	fdpair_shut_in(&e);
	ck_assert(fcntl(in[0], F_GETFD) == -1 && fcntl(out[1], F_GETFD) == -1);
}
END_TEST

START_TEST(a_pipe_without_a_reader_is_EPIPE_while_idle)
{
	int in[2], out[2];

	ck_assert(pipe(in) == 0 && pipe(out) == 0);
	fdpair_pipes(&e, in[0], out[1]);
	look(false, false);
	ck_assert_int_eq(fdpair_failed(&e, &ps), 0);
	close(out[0]);
	look(false, false);
	ck_assert_int_eq(fdpair_failed(&e, &ps), EPIPE);
}
END_TEST

/* poll would report its end in every turn. */
START_TEST(an_unread_pipe_at_its_end_does_not_wake)
{
	int in[2], out[2];

	ck_assert(pipe(in) == 0 && pipe(out) == 0);
	fdpair_pipes(&e, in[0], out[1]);
	close(in[1]);
	look(false, false);
	ck_assert(!fdpair_readable(&e, &ps));
	ck_assert_int_eq(pollset_ready(&ps, e.in_slot) | pollset_ready(&ps, e.out_slot), 0);
}
END_TEST

/* ---- stdin and stdout: 0 and 1 of this forked process ---- */

static int in_peer, out_peer, in_copy, out_copy;

/*
 * ${kind} 0: pipes, 1: one Unix socket, 2: one TCP socket, 3: two sockets.
 * ${in_copy} and ${out_copy} share the open files.
 */
static void
take_stdio(int kind)
{
	int in[2], out[2];

	if (kind == 0) {
		ck_assert(pipe(in) == 0 && pipe(out) == 0);
		out[0] ^= out[1], out[1] ^= out[0], out[0] ^= out[1];
	} else {
		kind == 2 ? tcp_pair(in) : socks(in);
		if (kind == 3)
			socks(out);
		else
			out[0] = in[0], out[1] = in[1];
	}
	in_copy = in[0], in_peer = in[1], out_copy = out[0], out_peer = out[1];
	fcntl(in_copy, F_SETFL, 0);
	fcntl(out_copy, F_SETFL, 0);
	ck_assert(dup2(in[0], 0) == 0 && dup2(out[0], 1) == 1);
	ck_assert_int_eq(fdpair_stdio(&e), 0);
}

START_TEST(stdio_is_moved_and_its_kind_is_found)
{
	struct stat null, st;

	take_stdio(_i);
	ck_assert(e.stdio && e.in > 2 && e.out > 2);
	ck_assert(cloexec(e.in) && cloexec(e.out) && nonblocking(e.in) && nonblocking(e.out));
	ck_assert(!e.in_blocks && !e.out_blocks);
	ck_assert_int_eq(e.single, _i == 1 || _i == 2);
	ck_assert_int_eq(e.in == e.out, _i == 1 || _i == 2);
	ck_assert_int_eq(e.tcp, _i == 2);
	ck_assert_int_eq(e.out_socket, _i != 0);
	ck_assert_int_eq(stat("/dev/null", &null), 0);
	ck_assert(fstat(0, &st) == 0 && st.st_rdev == null.st_rdev && S_ISCHR(st.st_mode));
	ck_assert(fstat(1, &st) == 0 && st.st_rdev == null.st_rdev && S_ISCHR(st.st_mode));
}
END_TEST

START_TEST(inherited_flags_are_restored)
{
	int how = _i / 4;

	take_stdio(_i % 4);
	ck_assert(nonblocking(in_copy) && nonblocking(out_copy));
	if (how == 1)
		fdpair_shut_in(&e);
	if (how == 2)
		fdpair_shut_out(&e);
	if (how == 3) {
		fdpair_shut_out(&e);
		fdpair_shut_in(&e);
	}
	fdpair_close(&e, how == 1);
	ck_assert(!nonblocking(in_copy) && !nonblocking(out_copy));
	ck_assert(e.in == -1 && e.out == -1);
}
END_TEST

START_TEST(flags_that_were_nonblocking_already_stay_so)
{
	int p[2], q[2];

	ck_assert(pipe(p) == 0 && pipe(q) == 0);
	fcntl(p[0], F_SETFL, O_NONBLOCK);
	ck_assert(dup2(p[0], 0) == 0 && dup2(q[1], 1) == 1);
	ck_assert_int_eq(fdpair_stdio(&e), 0);
	fdpair_close(&e, false);
	ck_assert(nonblocking(p[0]) && !nonblocking(q[1]));
}
END_TEST

/* ${_i} 0: a file, 1: /dev/null, 2: another device. */
START_TEST(files_and_devices_stay_blocking)
{
	int in = _i == 0 ? fileno(tmpfile()) : open(_i == 1 ? "/dev/null" : "/dev/zero", O_RDWR),
	    out = dup(in);

	ck_assert(dup2(in, 0) == 0 && dup2(out, 1) == 1);
	ck_assert_int_eq(fdpair_stdio(&e), 0);
	ck_assert_int_eq(e.in_blocks, _i == 2);
	ck_assert_int_eq(e.out_blocks, _i == 2);
	ck_assert(!nonblocking(in) && !nonblocking(out));
	look(true, true);
	ck_assert(fdpair_readable(&e, &ps) && fdpair_writable(&e, &ps));
	fdpair_close(&e, false);
	ck_assert(!nonblocking(in));
}
END_TEST

START_TEST(a_socket_of_another_type_than_stream_is_refused)
{
	int s[2], p[2];

	if (socketpair(AF_UNIX, _i / 2 ? SOCK_DGRAM : SOCK_SEQPACKET, 0, s) == -1)
		return;
	ck_assert_int_eq(pipe(p), 0);
	ck_assert(dup2(p[0], 0) == 0 && dup2(p[1], 1) == 1);
	ck_assert_int_eq(dup2(s[0], _i % 2), _i % 2);
	ck_assert_int_eq(fdpair_stdio(&e), -1);
	ck_assert_int_eq(errno, EPROTOTYPE);
	HAS(fdpair_explain(EPROTOTYPE), "SOCK_STREAM");
	ck_assert_str_eq(fdpair_explain(EBADF), strerror(EBADF));
	ck_assert(!nonblocking(s[0]) && !nonblocking(p[0]) && !nonblocking(p[1]));
}
END_TEST

/* sshd passes on the end of stdout only when stderr is closed too. */
START_TEST(the_end_of_stdout_ends_a_stderr_that_is_a_pipe_or_a_socket)
{
	int err[2];

	ck_assert_int_eq(_i % 2 ? socketpair(AF_UNIX, SOCK_STREAM, 0, err) : pipe(err), 0);
	ck_assert_int_eq(dup2(err[1], 2), 2);
	close(err[1]);
	take_stdio(_i / 2);
	close(out_copy); /* the only other copy */
	fdpair_shut_out(&e);
	ck_assert(ends(out_peer));
	ck_assert(ends(err[0]));
	ck_assert_int_ne(fcntl(2, F_GETFD), -1);
}
END_TEST

START_TEST(the_end_of_stdout_leaves_a_stderr_that_is_a_file)
{
	FILE *f = tmpfile();
	struct stat a, b;

	ck_assert_int_eq(dup2(fileno(f), 2), 2);
	take_stdio(0);
	fdpair_shut_out(&e);
	ck_assert(fstat(2, &a) == 0 && fstat(fileno(f), &b) == 0 && a.st_ino == b.st_ino &&
		  a.st_dev == b.st_dev);
}
END_TEST

START_TEST(a_closed_stdin_or_stdout_is_an_error)
{
	close(_i);
	ck_assert_int_eq(fdpair_stdio(&e), -1);
	ck_assert_int_eq(errno, EBADF);
}
END_TEST

/* There is room for ${_i} descriptors. */
START_TEST(an_error_leaves_a_stderr_for_its_message)
{
	struct rlimit limit;
	int p[2], err[2], i;
	char c;

	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = 64; /* valgrind lets no process change rlim_max */
	ck_assert(pipe(p) == 0 && pipe(err) == 0);
	ck_assert(dup2(p[0], 0) == 0 && dup2(p[1], 1) == 1 && dup2(err[1], 2) == 2);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	while (dup(p[0]) != -1)
		;
	for (i = 0; i < _i; i++)
		close(63 - i);
	ck_assert_int_eq(fdpair_stdio(&e), -1);
	ck_assert_int_eq(errno, EMFILE);
	ck_assert_int_eq(write(2, "x", 1), 1);
	fcntl(err[0], F_SETFL, O_NONBLOCK);
	ck_assert_int_eq(read(err[0], &c, 1), 1);
	close(p[0]); /* LeakSanitizer opens some at exit */
	close(p[1]);
}
END_TEST

/* The parent is dead: its ends of both pipes are closed. */
START_TEST(the_death_of_the_parent_is_seen_although_bytes_are_unread)
{
	take_stdio(0);
	ck_assert_int_eq(write(in_peer, "x", 1), 1);
	close(in_peer);
	close(out_peer);
	look(false, false);
	ck_assert_int_eq(fdpair_failed(&e, &ps), EPIPE);
	fdpair_shut_out(&e);
	look(false, false);
	ck_assert_int_eq(fdpair_failed(&e, &ps), 0);
	ck_assert(e.hup);
	look(false, false);
	ck_assert_uint_eq(ps.n, 0);
}
END_TEST

TESTS("fdpair")
{
	signal(SIGPIPE, SIG_IGN);
	tcase_add_loop_test(tc, a_socket_is_both_directions, 0, 2);
	tcase_add_loop_test(tc, the_end_of_out_is_a_half_close, 0, 2);
	tcase_add_loop_test(tc, the_end_of_in_leaves_out, 0, 2);
	tcase_add_test(tc, unread_bytes_of_a_unix_peer_do_not_cause_a_reset);
	tcase_add_loop_test(tc, a_close_sends_EOF_or_a_reset, 0, 16);
	tcase_add_test(tc, a_reset_is_a_failure_and_a_half_close_is_not);
	tcase_add_test(tc, an_idle_socket_reports_its_reset);
	tcase_add_loop_test(tc, an_EOF_that_is_a_hang_up_hides_no_reset, 0, 2);
	tcase_add_test(tc, a_unix_peer_that_closed_is_EPIPE_and_is_not_watched_again);
	tcase_add_test(tc, pipes_are_two_descriptors);
	tcase_add_test(tc, a_pipe_without_a_reader_is_EPIPE_while_idle);
	tcase_add_test(tc, an_unread_pipe_at_its_end_does_not_wake);
	tcase_add_loop_test(tc, stdio_is_moved_and_its_kind_is_found, 0, 4);
	tcase_add_loop_test(tc, inherited_flags_are_restored, 0, 16);
	tcase_add_test(tc, flags_that_were_nonblocking_already_stay_so);
	tcase_add_loop_test(tc, files_and_devices_stay_blocking, 0, 3);
	tcase_add_loop_test(tc, a_socket_of_another_type_than_stream_is_refused, 0, 4);
	tcase_add_loop_test(tc, the_end_of_stdout_ends_a_stderr_that_is_a_pipe_or_a_socket, 0, 4);
	tcase_add_test(tc, the_end_of_stdout_leaves_a_stderr_that_is_a_file);
	tcase_add_loop_test(tc, a_closed_stdin_or_stdout_is_an_error, 0, 2);
	tcase_add_loop_test(tc, an_error_leaves_a_stderr_for_its_message, 0, 3);
	tcase_add_test(tc, the_death_of_the_parent_is_seen_although_bytes_are_unread);
}
