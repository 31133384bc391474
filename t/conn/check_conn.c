/* check_pair.c - two ends, two halves, one life; needs every room but relay.o */
#include <sys/wait.h>

#include "net.h"

static struct pairs tab;
static struct children kids;
static struct dial_target t;
static struct pollset ps;
static int status = -1; /* of the pair that ended last */
static int turns;
static int near, far;   /* our ends: the client's and the server's */
static char junk[65536];
static int64_t ahead;   /* of the real clock: the pairs only know the pollset's */

static bool blind; /* poll fails, with a signal or without */

static size_t
idle_pairs(void)
{
	return tab.watches.idle.n;
}

/* As relay's loop: one turn of at most ${most} ms. */
static void
turn(int most)
{
	size_t n = tab.n, i;
	int s;

	pollset_begin(&ps);
	ps.now += ahead;
	spawn_turn(&kids, &ps);
	pair_want(&tab, &ps);
	pollset_until(&ps, ps.now + most);
	ck_assert_int_eq(pollset_wait(&ps), 0);
	if (blind) {
		for (i = 0; i < ps.n; i++)
			ps.fds[i].revents = 0;
	}
	ps.now += ahead;
	spawn_reap(&kids);
	pair_step(&tab, &ps);
	s = pair_sweep(&tab, &ps);
	if (tab.n < n)
		status = s;
	turns++;
}

#define RUN_UNTIL(cond) UNTIL(cond, turn(5))

static void
target_port(uint16_t port)
{
	t.to.kind = ENDPOINT_TCP;
	strcpy(t.to.host, "127.0.0.1");
	t.to.port = port;
}

static void
target_path(const char *path)
{
	t.to.kind = ENDPOINT_UNIX;
	t.to.path = path;
}

static void
common(void)
{
	signal(SIGPIPE, SIG_IGN);
	signal(SIGTERM, SIG_DFL);
	capture();
	log_show(LOG_INFO);
	t.kids = &kids;
	t.each_ms = 3000;
}

static int
listen_target(bool tcp)
{
	uint16_t port = 0;
	int l;

	if (tcp) {
		l = tcp_listener(AF_INET, &port);
		target_port(port);
		return l;
	}
	unlink("target");
	l = unix_listener("target", SOCK_STREAM, 64);
	target_path("./target");
	return l;
}

static struct end
client(bool tcp)
{
	struct end a;
	int s[2];

	tcp ? tcp_pair(s) : socks(s);
	near = s[1];
	end_socket(&a, s[0], tcp);
	return a;
}

/* Bit 0: the client is TCP; bit 1: the target is TCP. */
static void
join(int kinds)
{
	int l;
	struct end a;

	common();
	l = listen_target(kinds & 2);
	a = client(kinds & 1);
	ck_assert(pair_new(&tab, &a, "me", &t, pollset_clock()));
	RUN_UNTIL((far = accept(l, NULL, NULL)) != -1);
	fcntl(far, F_SETFL, O_NONBLOCK);
	close(l);
	turn(5);
}

static bool
arrives(int fd, const char *text)
{
	char got[64];
	ssize_t n = read(fd, got, sizeof(got));

	ck_assert_msg(n != 0 && (n > 0 || errno == EAGAIN), "wanted %s, got %s", text, n == 0 ? "the end" : strerror(errno));
	return n == (ssize_t)strlen(text) && memcmp(got, text, strlen(text)) == 0;
}

static void
pass(int from, int to, const char *text)
{
	ck_assert_int_eq(write(from, text, strlen(text)), (ssize_t)strlen(text));
	RUN_UNTIL(arrives(to, text));
}

static bool
ended(int fd)
{
	char c;

	return read(fd, &c, 1) == 0;
}

static int
error_of(int fd)
{
	char c;

	errno = 0;
	return read(fd, &c, 1) == -1 && errno != EAGAIN ? errno : 0;
}

static bool
closed(int fd)
{
	int e = error_of(fd);

	return e != 0 || ended(fd);
}

/* ---- one life ---- */

START_TEST(bytes_pass_both_ways)
{
	join(_i);
	pass(near, far, "request");
	pass(far, near, "answer");
	pass(near, far, "x");
	ck_assert_uint_eq(tab.n, 1);
}
END_TEST

START_TEST(a_half_close_passes_and_the_answer_comes_back)
{
	bool from_target = _i & 4;
	int one, two;

	join(_i & 3);
	one = from_target ? far : near;
	two = from_target ? near : far;
	pass(one, two, "last words");
	shutdown(one, SHUT_WR);
	RUN_UNTIL(ended(two));
	pass(two, one, "answer");
	pass(two, one, "and more");
	shutdown(two, SHUT_WR);
	RUN_UNTIL(tab.n == 0);
	WAIT_FOR(ended(one));
	ck_assert_int_eq(status, STATUS_OK);
}
END_TEST

/* Half-closed, or not: no time limit, and no busy loop. */
START_TEST(an_idle_pair_sleeps)
{
	join(_i & 3);
	if (_i & 4) {
		shutdown(near, SHUT_WR);
		RUN_UNTIL(ended(far));
	}
	turns = 0;
	UNTIL(turns == 3, { int64_t began = ms(); turn(50); ck_assert_int_ge(ms() - began, 45); });
	pass(far, near, "still here");
}
END_TEST

START_TEST(megabytes_pass_both_ways_at_once_whole_and_in_order)
{
	static unsigned char out[2][3000000];
	size_t size = sizeof(out[0]), sent[2] = { 0, 0 }, got[2] = { 0, 0 }, i, left;
	unsigned char block[20000];
	int fd[2], k;
	ssize_t n;

	join(_i);
	fd[0] = near;
	fd[1] = far;
	UNTIL(got[0] == size && got[1] == size, {
		for (k = 0; k < 2; k++) {
			for (i = 0; i < sizeof(block); i++)
				block[i] = (unsigned char)((sent[k] + i) * 7 + (size_t)k + ((sent[k] + i) >> 10));
			left = size - sent[k];
			n = left > 0 ? write(fd[k], block, left < sizeof(block) ? left : sizeof(block)) : 0;
			sent[k] += n > 0 ? (size_t)n : 0;
			n = read(fd[!k], out[k] + got[k], size - got[k]);
			got[k] += n > 0 ? (size_t)n : 0;
		}
		turn(0);
	});
	for (k = 0; k < 2; k++)
		for (i = 0; i < size; i++)
			if (out[k][i] != (unsigned char)(i * 7 + (size_t)k + (i >> 10)))
				ck_abort_msg("way %d differs at %zu", k, i);
	shutdown(near, SHUT_WR);
	shutdown(far, SHUT_WR);
	RUN_UNTIL(tab.n == 0);
	ck_assert_int_eq(status, STATUS_OK);
	HAS(captured(), "3000000 bytes there, 3000000 back");
}
END_TEST

/* A reader that does not read stops the writer, and costs a bounded amount. */
START_TEST(a_slow_reader_stops_the_writer_and_not_the_other_way)
{
	size_t sent = 0, got = 0;
	ssize_t n;
	int idle;

	join(_i);
	for (idle = 0; idle < 20; turn(1)) {
		n = write(near, junk, sizeof(junk));
		idle = n > 0 ? 0 : idle + 1;
		sent += n > 0 ? (size_t)n : 0;
		ck_assert_uint_lt(sent, 64 * 1024 * 1024);
	}
	turns = 0;
	turn(50);
	turn(50);
	ck_assert_int_le(turns, 2);
	pass(far, near, "the other way is free");
	shutdown(near, SHUT_WR);
	UNTIL(got == sent, { while ((n = read(far, junk, sizeof(junk))) > 0) got += (size_t)n; turn(1); });
	RUN_UNTIL(ended(far));
}
END_TEST

/* ---- resets ---- */

/* _i & 4: the target resets */
START_TEST(a_reset_leaves_as_a_reset_where_it_can)
{
	bool from_target = _i & 4, other_tcp;
	int one, two;

	join(_i & 3);
	one = from_target ? far : near;
	two = from_target ? near : far;
	other_tcp = from_target ? _i & 1 : _i & 2;
	if (!(from_target ? _i & 2 : _i & 1))
		return; /* knows no reset */
	reset(one);
	RUN_UNTIL(tab.n == 0);
	ck_assert_int_eq(status, STATUS_BROKEN);
	if (other_tcp)
		WAIT_FOR(error_of(two) == ECONNRESET);
	else
		WAIT_FOR(ended(two));
	HAS(captured(), "Connection reset by peer");
	HAS(captured(), other_tcp ? "was reset too" : "knows no reset");
}
END_TEST

START_TEST(a_reset_behind_a_half_close_is_passed_on)
{
	join(3);
	shutdown(near, SHUT_WR);
	RUN_UNTIL(ended(far));
	reset(near);
	RUN_UNTIL(tab.n == 0);
	ck_assert_int_eq(status, STATUS_BROKEN);
	WAIT_FOR(send(far, "x", 1, 0) == -1);
}
END_TEST

START_TEST(a_stop_cuts_all_short)
{
	join(_i);
	ck_assert_int_eq(write(near, "x", 1), 1);
	pair_stop(&tab, STATUS_SIGNAL + SIGTERM, pollset_clock());
	ck_assert_int_eq(pair_sweep(&tab, &ps), STATUS_SIGNAL + SIGTERM);
	ck_assert_uint_eq(tab.n, 0);
	if (_i & 1)
		WAIT_FOR(error_of(near) == ECONNRESET);
	else
		WAIT_FOR(closed(near));
	if (_i & 2)
		WAIT_FOR(error_of(far) == ECONNRESET);
	else
		WAIT_FOR(closed(far));
}
END_TEST

/* ---- a reader that goes away ---- */

/* A Unix client that closed: even while nothing is written to it, a Unix target learns that nobody listens. */
START_TEST(a_unix_client_that_is_gone_is_noticed_at_once)
{
	join(_i * 2);
	close(near);
	RUN_UNTIL(ended(far));
	if (_i == 0)
		RUN_UNTIL(send(far, "x", 1, 0) == -1);
	close(far);
	RUN_UNTIL(tab.n == 0);
}
END_TEST

/* A target that reads no more and still speaks: a Unix client learns the one and gets the other. */
START_TEST(a_target_that_reads_no_more_stops_a_unix_client_and_is_heard)
{
	join(0);
	shutdown(far, SHUT_RD);
	RUN_UNTIL(send(near, "x", 1, 0) == -1);
	ck_assert_int_eq(errno, EPIPE);
	pass(far, near, "answer");
	shutdown(far, SHUT_WR);
	RUN_UNTIL(tab.n == 0);
	WAIT_FOR(ended(near));
	ck_assert_int_eq(status, STATUS_BROKEN);
}
END_TEST

/* A TCP client cannot learn it: it may speak on, but not for ever once all is said to it. */
START_TEST(a_tcp_client_that_speaks_to_nobody_is_borne_for_a_while)
{
	int i;

	join(1);
	shutdown(far, SHUT_RD);
	for (i = 0; i < 5; i++) {
		ck_assert_int_eq(write(near, "x", 1), 1);
		turn(5);
	}
	pass(far, near, "answer");
	shutdown(far, SHUT_WR);
	RUN_UNTIL(ended(near));
	for (i = 0; i < 5; i++) {
		ck_assert_int_eq(write(near, "x", 1), 1);
		turn(5);
	}
	ck_assert_uint_eq(tab.n, 1);
	if (_i == 0)
		close(near);
	else
		ahead = 1200;
	RUN_UNTIL(tab.n == 0);
}
END_TEST

START_TEST(what_was_said_last_arrives_from_a_client_that_closed)
{
	size_t sent = 0, got = 0;
	ssize_t n;

	join(_i);
	while ((n = write(near, junk, sizeof(junk))) > 0)
		sent += (size_t)n;
	close(near);
	UNTIL(got == sent, { turn(1); while ((n = read(far, junk, sizeof(junk))) > 0) got += (size_t)n; });
	RUN_UNTIL(ended(far));
}
END_TEST

/* It spoke and closed while its target was still being dialled. */
START_TEST(a_client_that_speaks_and_closes_before_the_target_is_reached_is_heard)
{
	struct end a;
	int l, i;

	common();
	if (_i & 4) { /* the target comes late */
		t.wait_ms = 4000;
		target_path("./target");
		unlink("target");
	} else {
		l = listen_target(_i & 2);
	}
	a = client(_i & 1);
	ck_assert(pair_new(&tab, &a, "me", &t, pollset_clock()));
	ck_assert_int_eq(write(near, "hello", 5), 5);
	close(near);
	if (_i & 4) {
		for (i = 0; i < 3; i++)
			turn(5);
		ck_assert_msg(tab.n == 1, "given up before the target came");
		l = listen_target(false);
	}
	UNTIL((far = accept(l, NULL, NULL)) != -1, {
		turn(5);
		ck_assert_msg(tab.n == 1, "given up before the target was reached");
	});
	fcntl(far, F_SETFL, O_NONBLOCK);
	RUN_UNTIL(arrives(far, "hello"));
	RUN_UNTIL(ended(far));
}
END_TEST

/* A command that stops reading, answers and exits, as a server does that refuses a long request. */
START_TEST(an_answer_arrives_whole_after_the_target_stopped_reading)
{
	char *argv[] = { (char *)"sh", (char *)"-c",
		(char *)"head -c 1 >/dev/null; exec 0<&-; head -c 3000000 /dev/zero", NULL };
	struct end a;
	size_t got = 0;
	ssize_t n;

	common();
	endpoint_command(&t.to, argv);
	a = client(_i);
	ck_assert(pair_new(&tab, &a, "me", &t, pollset_clock()));
	for (turns = 0; turns < 100; turn(1)) /* it writes what it can, of us more comes than it takes, and we read nothing */
		n = write(near, junk, sizeof(junk));
	UNTIL((n = read(near, junk, sizeof(junk))) == 0 || (n == -1 && errno != EAGAIN),
	    { if (n > 0) got += (size_t)n; turn(1); });
	ck_assert_uint_eq(got, 3000000);
}
END_TEST

/* ---- dialling ---- */

START_TEST(a_failed_dial_resets_a_TCP_client_and_closes_a_unix_one)
{
	struct end a;

	common();
	target_path("./nobody");
	a = client(_i);
	ck_assert(pair_new(&tab, &a, "me", &t, pollset_clock()));
	RUN_UNTIL(tab.n == 0);
	ck_assert_int_eq(status, STATUS_CONNECT);
	if (_i)
		WAIT_FOR(error_of(near) == ECONNRESET);
	else
		WAIT_FOR(ended(near));
	HAS(captured(), "cannot connect to ./nobody: No such file");
}
END_TEST

START_TEST(a_client_that_is_reset_while_dialling_ends_the_dial)
{
	struct end a;

	common();
	t.wait_ms = 4000;
	target_path("./nobody");
	a = client(true);
	ck_assert(pair_new(&tab, &a, "me", &t, pollset_clock()));
	turn(1);
	reset(near);
	RUN_UNTIL(tab.n == 0);
	ck_assert_int_eq(status, STATUS_BROKEN);
}
END_TEST

START_TEST(a_command_is_a_target)
{
	char *argv[] = { (char *)"cat", NULL };
	struct end a;

	common();
	endpoint_command(&t.to, argv);
	a = client(_i);
	ck_assert(pair_new(&tab, &a, "me", &t, pollset_clock()));
	pass(near, near, "echo");
	shutdown(near, SHUT_WR);
	RUN_UNTIL(tab.n == 0);
	WAIT_FOR(ended(near));
	ck_assert_int_eq(status, STATUS_OK);
	RUN_UNTIL(kids.first == NULL);
	HAS_NOT(captured(), "signal");
}
END_TEST

START_TEST(a_command_that_is_missing_is_told_once)
{
	char *argv[] = { (char *)"no-such-command", NULL };
	struct end a;

	common();
	endpoint_command(&t.to, argv);
	a = client(true);
	ck_assert(pair_new(&tab, &a, "me", &t, pollset_clock()));
	RUN_UNTIL(tab.n == 0);
	ck_assert_int_eq(status, STATUS_NOTFOUND);
	RUN_UNTIL(kids.first == NULL);
	HAS(captured(), "cannot execute no-such-command: No such file");
	HAS_NOT(captured(), "exited with");
}
END_TEST

/* ---- stdin and stdout ---- */

static int in, out; /* our ends of them */

/* With ${kind} 0 pipes, 1 one socket; the target is Unix, or TCP with ${tcp}. */
static void
join_stdio(int kind, bool tcp)
{
	struct end a;
	int p[2], q[2], l;

	common();
	l = listen_target(tcp);
	if (kind == 0) {
		ck_assert(pipe(p) == 0 && pipe(q) == 0);
		ck_assert(dup2(p[0], 0) == 0 && dup2(q[1], 1) == 1);
		close(p[0]);
		close(q[1]);
		in = p[1];
		out = q[0];
		fcntl(in, F_SETFL, O_NONBLOCK);
		fcntl(out, F_SETFL, O_NONBLOCK);
	} else {
		socks(p);
		ck_assert(dup2(p[0], 0) == 0 && dup2(p[0], 1) == 1);
		close(p[0]);
		in = p[1];
		out = dup(in);
	}
	ck_assert_int_eq(end_stdio(&a), 0);
	ck_assert(pair_new(&tab, &a, "stdio", &t, pollset_clock()));
	RUN_UNTIL((far = accept(l, NULL, NULL)) != -1);
	fcntl(far, F_SETFL, O_NONBLOCK);
	turn(5);
}

START_TEST(stdio_is_joined_and_half_closed_both_ways)
{
	join_stdio(_i / 2, _i % 2);
	pass(in, far, "request");
	pass(far, out, "answer");
	if (_i / 2)
		shutdown(in, SHUT_WR);
	close(in);
	RUN_UNTIL(ended(far));
	pass(far, out, "still");
	close(far);
	RUN_UNTIL(tab.n == 0);
	ck_assert(ended(out));
	ck_assert_int_eq(status, STATUS_OK);
}
END_TEST

static size_t
fill_target(size_t most)
{
	size_t sent = 0;
	int idle = 0;
	ssize_t n;

	while (sent < most && idle < 20) {
		n = write(in, junk, most - sent < sizeof(junk) ? most - sent : sizeof(junk));
		idle = n > 0 ? 0 : idle + 1;
		sent += n > 0 ? (size_t)n : 0;
		turn(1);
	}
	return sent;
}

/* Whoever started relay is dead and the target does not read: over within LINGER.  _i & 2: more is there than a half holds. */
START_TEST(stuck_stdio_ends_within_a_second_or_so)
{
	int64_t began;
	bool socket = _i & 1;

	join_stdio(socket, _i & 4);
	fill_target(_i & 6 ? SIZE_MAX : 400000);
	close(in);
	close(out);
	began = ms();
	for (turns = 0; turns < 10;)
		turn(5);
	ck_assert_uint_eq(tab.n, 1);
	if (_i > 0)
		ahead = 800;
	turn(0);
	ck_assert_uint_eq(tab.n, 1);
	if (_i == 0) /* it is the pair that wakes poll */
		UNTIL(tab.n == 0, turn(4000));
	UNTIL(tab.n == 0, { ahead += 1100; turn(0); });
	ck_assert_int_lt(ms() - began, 2500);
	ck_assert_int_lt(turns, 60);
	ck_assert_int_eq(status, STATUS_BROKEN);
}
END_TEST

/* As long as what was said last moves on, it is not cut. */
START_TEST(what_was_said_last_moves_on_without_a_limit)
{
	size_t sent, got = 0, most = _i ? 65536 : SIZE_MAX, step, taken; /* 1: less than makes poll call the socket writable */
	ssize_t n;

	join_stdio(0, false);
	sent = fill_target(600000);
	close(in);
	close(out);
	for (step = 0; step < 8; step++) { /* five times LINGER */
		for (taken = 0; taken < most && (n = read(far, junk, sizeof(junk))) > 0; taken += (size_t)n)
			got += (size_t)n;
		for (turns = 0; turns < 5;)
			turn(2);
		ahead += 600;
		turn(2);
	}
	UNTIL(got == sent, { while ((n = read(far, junk, sizeof(junk))) > 0) got += (size_t)n; turn(1); });
	RUN_UNTIL(tab.n == 0);
}
END_TEST

START_TEST(words_for_nobody_end_it)
{
	join_stdio(_i, false);
	if (_i == 0)
		close(out);
	else
		close(in), close(out);
	turn(5);
	ck_assert_int_eq(write(far, "x", 1) == 1 || errno == EPIPE, 1);
	close(far);
	if (_i == 0)
		close(in);
	RUN_UNTIL(tab.n == 0);
	ck_assert_int_eq(status, STATUS_BROKEN);
}
END_TEST

START_TEST(a_dead_starter_ends_it_when_the_target_answers_the_half_close)
{
	join_stdio(_i, true);
	close(out);
	close(in);
	RUN_UNTIL(ended(far));
	close(far);
	RUN_UNTIL(tab.n == 0);
	ck_assert_int_eq(status, STATUS_BROKEN);
}
END_TEST

/* ---- many ---- */

START_TEST(many_pairs_live_and_end_alone_and_leave_nothing)
{
	int n[50], f[50], l, i, before;
	struct end a;

	common();
	l = listen_target(true);
	before = fds_open();
	for (i = 0; i < 50; i++) {
		a = client(true);
		n[i] = near;
		ck_assert(pair_new(&tab, &a, "me", &t, pollset_clock()));
		RUN_UNTIL((f[i] = accept(l, NULL, NULL)) != -1);
		fcntl(f[i], F_SETFL, O_NONBLOCK);
	}
	ck_assert_uint_eq(tab.n, 50);
	reset(n[7]);
	RUN_UNTIL(tab.n == 49);
	close(f[7]);
	for (i = 0; i < 50; i++)
		if (i != 7)
			pass(n[i], f[i], "alive");
	for (i = 49; i >= 0; i--)
		if (i != 7) {
			close(n[i]);
			close(f[i]);
		}
	RUN_UNTIL(tab.n == 0);
	ck_assert_ptr_null(watch_next(&tab.watches, NULL));
	buf_trim();
	ck_assert_int_eq(fds_open(), before);
}
END_TEST

/* ---- quiet ones beside busy ones ---- */

#define CROWD 300

static int crowd_near[CROWD], crowd_far[CROWD];

/* CROWD pairs that have been quiet for long, and the pair of near and far. */
static void
join_crowd(int kinds)
{
	int one, i, l;
	struct end a;

	os_raise_files();
	join(kinds);
	one = near;
	l = listen_target(kinds & 2);
	for (i = 0; i < CROWD; i++) {
		a = client(kinds & 1);
		crowd_near[i] = near;
		ck_assert(pair_new(&tab, &a, "me", &t, pollset_clock()));
		RUN_UNTIL((crowd_far[i] = accept(l, NULL, NULL)) != -1);
		fcntl(crowd_far[i], F_SETFL, O_NONBLOCK);
	}
	close(l);
	near = one;
	UNTIL(idle_pairs() == CROWD + 1, turn(5));
	pass(near, far, "awake"); /* near and far are what speaks */
	ck_assert_uint_eq(idle_pairs(), CROWD);
}

/* One turn with a round trip of near and far in it: there is no turn in which nobody has something to say. */
static void
busy_turn(void)
{
	char c;

	ck_assert_int_eq(write(near, "x", 1), 1);
	turn(5);
	if (read(far, &c, 1) == 1)
		ck_assert_int_eq(write(far, "y", 1), 1);
	while (read(near, junk, sizeof(junk)) > 0)
		;
}

#define BUSY_UNTIL(cond) UNTIL(cond, busy_turn())

START_TEST(a_quiet_pair_is_served_beside_a_busy_one)
{
	int64_t began, worst = 0;
	int i, k;

	join_crowd(_i);
	for (i = 0; i < CROWD; i += 7) {
		k = i * 31 % CROWD;
		began = ms();
		ck_assert_int_eq(write(crowd_near[k], "key", 3), 3);
		BUSY_UNTIL(arrives(crowd_far[k], "key"));
		ck_assert_int_eq(write(crowd_far[k], "echo", 4), 4);
		BUSY_UNTIL(arrives(crowd_near[k], "echo"));
		if (ms() - began > worst)
			worst = ms() - began;
		turns = 0;
		BUSY_UNTIL(turns == 40);
	}
	ck_assert_int_le(worst, 200); /* mostly 3; the machine may have more to do */
	ck_assert_uint_ge(idle_pairs(), CROWD / 2);
}
END_TEST

/* Many of them have something to say in the same moment. */
START_TEST(a_keystroke_waits_for_one_bulk_transfer_at_most)
{
	enum { BULKS = 4 };
	int bulk_near[BULKS], bulk_far[BULKS], i, turned;
	size_t moved[BULKS] = { 0 }, n;

	for (i = 0; i < BULKS; i++) {
		join(0);
		bulk_near[i] = near;
		bulk_far[i] = far;
	}
	join(0);
	for (turned = -1; turned < 3 * BULKS; turned++) {
		for (i = 0; i < BULKS; i++)
			while (write(bulk_near[i], junk, sizeof(junk)) > 0)
				;
		ck_assert_int_eq(write(near, "key", 3), 3);
		turn(5);
		ck_assert(arrives(far, "key"));
		for (n = 0, i = 0; i < BULKS; i++) {
			if (drained(bulk_far[i]) == 0 || turned == -1)
				continue; /* nobody knows of their bulk before the first chunk */
			moved[i]++;
			n++;
		}
		ck_assert_uint_le(n, 1);
	}
	for (i = 0; i < BULKS; i++)
		ck_assert_uint_eq(moved[i], 3);
}
END_TEST

START_TEST(a_crowd_speaks_up_at_once_beside_a_busy_one)
{
	int i;

	join_crowd(_i);
	for (i = 0; i < CROWD; i++)
		ck_assert_int_eq(write(crowd_far[i], "all", 3), 3);
	for (i = 0; i < CROWD; i++)
		BUSY_UNTIL(arrives(crowd_near[i], "all"));
	UNTIL(idle_pairs() == CROWD + 1, turn(5));
	for (i = 0; i < CROWD; i++)
		pass(crowd_near[i], crowd_far[i], "again");
}
END_TEST

START_TEST(what_a_failed_poll_has_missed_is_seen_later)
{
	int i;

	join_crowd(_i);
	watch_wake_all(&tab.watches);
	blind = true;
	turn(0); /* all become idle */
	for (i = 0; i < CROWD; i += 50)
		ck_assert_int_eq(write(crowd_far[i], "all", 3), 3);
	turn(0);
	ps.now += 1000;
	turn(0);
	blind = false;
	for (i = 0; i < CROWD; i += 50)
		UNTIL(arrives(crowd_near[i], "all"), turn(5));
}
END_TEST

START_TEST(the_end_of_a_quiet_pair_is_seen_beside_a_busy_one)
{
	int i;

	join_crowd(_i);
	shutdown(crowd_near[3], SHUT_WR);
	BUSY_UNTIL(ended(crowd_far[3]));
	ck_assert_uint_eq(tab.n, CROWD + 1);
	close(crowd_far[3]);
	BUSY_UNTIL(tab.n == CROWD);
	if (_i == 3) {
		reset(crowd_far[200]);
		BUSY_UNTIL(tab.n == CROWD - 1);
		WAIT_FOR(error_of(crowd_near[200]) == ECONNRESET);
	}
	for (i = 210; i < CROWD; i++) {
		close(crowd_near[i]);
		close(crowd_far[i]);
	}
	BUSY_UNTIL(tab.n <= CROWD - (CROWD - 210));
	pair_stop(&tab, STATUS_OK, pollset_clock());
	pair_sweep(&tab, &ps);
	ck_assert_uint_eq(tab.n, 0);
	ck_assert_ptr_null(watch_next(&tab.watches, NULL));
}
END_TEST

START_TEST(a_stuck_reader_beside_a_busy_one_goes_on_when_it_reads)
{
	size_t sent = 0, got = 0;
	int idle;
	ssize_t n;

	join_crowd(_i);
	for (idle = 0; idle < 20; busy_turn()) {
		n = write(crowd_near[9], junk, sizeof(junk));
		idle = n > 0 ? 0 : idle + 1;
		sent += n > 0 ? (size_t)n : 0;
	}
	BUSY_UNTIL(idle_pairs() == CROWD); /* stuck is quiet too */
	UNTIL(got == sent, { while ((n = read(crowd_far[9], junk, sizeof(junk))) > 0) got += (size_t)n; busy_turn(); });
	pass(crowd_near[9], crowd_far[9], "on");
}
END_TEST

START_TEST(times_are_kept_beside_a_busy_one)
{
	int64_t began;
	struct end a;

	join_crowd(1);
	/* a dial that keeps trying */
	t.wait_ms = 1000;
	target_path("./nobody");
	a = client(true);
	began = ms();
	ck_assert(pair_new(&tab, &a, "me", &t, pollset_clock()));
	near = crowd_near[0];
	far = crowd_far[0];
	BUSY_UNTIL(ms() - began > 100 && tab.n == CROWD + 2 && idle_pairs() == CROWD); /* it is not among them */
	BUSY_UNTIL(tab.n == CROWD + 1);
	ck_assert_int_ge(ms() - began, 990);
	ck_assert_int_eq(status, STATUS_CONNECT);
	/* LINGER: the client of a target that stopped reading and said all speaks to nobody, until its time is over */
	began = ms();
	shutdown(crowd_far[5], SHUT_RD);
	ck_assert_int_eq(write(crowd_near[5], "x", 1), 1);
	shutdown(crowd_far[5], SHUT_WR);
	BUSY_UNTIL(tab.n == CROWD);
	ck_assert_int_ge(ms() - began, 990);
}
END_TEST

START_TEST(a_quiet_crowd_sleeps)
{
	int64_t began;

	join_crowd(_i);
	UNTIL(ps.now - tab.watches.event_at > 100, turn(5));
	ck_assert_uint_eq(idle_pairs(), CROWD + 1);
	turns = 0;
	UNTIL(turns == 3, { began = ms(); turn(50); ck_assert_int_ge(ms() - began, 45); });
	pair_table(&tab, pollset_clock());
	HAS(captured(), "[1] ");
	pass(crowd_near[CROWD - 1], crowd_far[CROWD - 1], "still here");
}
END_TEST

START_TEST(people_are_told_of_all_pairs_quiet_ones_too)
{
	static char text[100000];
	char line[32];
	int i;

	join_crowd(0);
	capture();
	pair_table(&tab, pollset_clock());
	text[pread(2, text, sizeof(text) - 1, 0)] = '\0';
	for (i = 1; i <= CROWD + 1; i++) {
		snprintf(line, sizeof(line), "[%d] me -> ./target", i);
		HAS(text, line);
	}
	HAS(text, "301 open connections");
}
END_TEST

START_TEST(people_are_told_of_every_pair)
{
	join(3);
	pass(near, far, "12345");
	HAS(captured(), "[1] opened me -> 127.0.0.1:");
	pair_table(&tab, pollset_clock());
	HAS(captured(), "1 open connection\n");
	HAS(captured(), "[1] me -> 127.0.0.1:");
	HAS(captured(), ": 5 bytes there, 0 back, 0 s old\n");
	close(near);
	close(far);
	RUN_UNTIL(tab.n == 0);
	HAS(captured(), "[1] closed me -> 127.0.0.1:");
	pair_table(&tab, pollset_clock());
	HAS(captured(), "0 open connections\n");
	HAS_NOT(captured(), "broke");
}
END_TEST

TESTS("pair")
{
	tcase_add_unchecked_fixture(tc, enter_dir, leave_dir);
	tcase_add_loop_test(tc, bytes_pass_both_ways, 0, 4);
	tcase_add_loop_test(tc, a_half_close_passes_and_the_answer_comes_back, 0, 8);
	tcase_add_loop_test(tc, an_idle_pair_sleeps, 0, 8);
	tcase_add_loop_test(tc, megabytes_pass_both_ways_at_once_whole_and_in_order, 0, 4);
	tcase_add_loop_test(tc, a_slow_reader_stops_the_writer_and_not_the_other_way, 0, 4);
	tcase_add_loop_test(tc, a_reset_leaves_as_a_reset_where_it_can, 0, 8);
	tcase_add_test(tc, a_reset_behind_a_half_close_is_passed_on);
	tcase_add_loop_test(tc, a_stop_cuts_all_short, 0, 4);
	tcase_add_loop_test(tc, a_unix_client_that_is_gone_is_noticed_at_once, 0, 2);
	tcase_add_test(tc, a_target_that_reads_no_more_stops_a_unix_client_and_is_heard);
	tcase_add_loop_test(tc, a_tcp_client_that_speaks_to_nobody_is_borne_for_a_while, 0, 2);
	tcase_add_loop_test(tc, what_was_said_last_arrives_from_a_client_that_closed, 0, 4);
	tcase_add_loop_test(tc, a_client_that_speaks_and_closes_before_the_target_is_reached_is_heard, 0, 6);
	tcase_add_loop_test(tc, an_answer_arrives_whole_after_the_target_stopped_reading, 0, 2);
	tcase_add_loop_test(tc, a_failed_dial_resets_a_TCP_client_and_closes_a_unix_one, 0, 2);
	tcase_add_test(tc, a_client_that_is_reset_while_dialling_ends_the_dial);
	tcase_add_loop_test(tc, a_command_is_a_target, 0, 2);
	tcase_add_test(tc, a_command_that_is_missing_is_told_once);
	tcase_add_loop_test(tc, stdio_is_joined_and_half_closed_both_ways, 0, 4);
	tcase_add_loop_test(tc, stuck_stdio_ends_within_a_second_or_so, 0, 6);
	tcase_add_loop_test(tc, what_was_said_last_moves_on_without_a_limit, 0, 2);
	tcase_add_loop_test(tc, words_for_nobody_end_it, 0, 2);
	tcase_add_loop_test(tc, a_dead_starter_ends_it_when_the_target_answers_the_half_close, 0, 2);
	tcase_add_test(tc, many_pairs_live_and_end_alone_and_leave_nothing);
	tcase_add_loop_test(tc, a_quiet_pair_is_served_beside_a_busy_one, 0, 4);
	tcase_add_test(tc, a_keystroke_waits_for_one_bulk_transfer_at_most);
	tcase_add_loop_test(tc, a_crowd_speaks_up_at_once_beside_a_busy_one, 0, 4);
	tcase_add_loop_test(tc, the_end_of_a_quiet_pair_is_seen_beside_a_busy_one, 0, 4);
	tcase_add_loop_test(tc, what_a_failed_poll_has_missed_is_seen_later, 0, 4);
	tcase_add_loop_test(tc, a_stuck_reader_beside_a_busy_one_goes_on_when_it_reads, 0, 4);
	tcase_add_test(tc, times_are_kept_beside_a_busy_one);
	tcase_add_loop_test(tc, a_quiet_crowd_sleeps, 0, 4);
	tcase_add_test(tc, people_are_told_of_all_pairs_quiet_ones_too);
	tcase_add_test(tc, people_are_told_of_every_pair);
}
