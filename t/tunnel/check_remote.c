/* check_remote.c - -R: the far side listens. */
#include <netdb.h>
#include <sys/wait.h>

#include "t/tunnel/sides.h"

#define WAITING 8 /* streams of a listener */

static struct forward f;

/* Ask for a listener at ${from} there, whose connections go to ${to} here. */
static void
ask(struct forward *forward, const char *from, const char *to)
{
	char text[2 * UNIXPATH_MAX];

	snprintf(text, sizeof(text), "%s:%s", from, to);
	ck_assert_msg(forward_parse(forward, FORWARD_FAR, text, why, sizeof(why)), "%s", why);
	forward->to.each_us = 2000000;
	forward->to.kids = &kids;
	remote_ask(near_remotes, link_near, forward);
	ck_assert_int_eq(forward->state, FORWARD_ASKED);
	ck_assert_int_eq(forward->state, FORWARD_ASKED);
}

static void
listen_there(const char *from, const char *to)
{
	ask(&f, from, to);
	TURN_UNTIL(f.state != FORWARD_ASKED);
}

static uint16_t
port_of(const char *bound)
{
	const char *colon = strchr(bound, ':');

	ck_assert_msg(colon != NULL, "%s", bound);
	return (uint16_t)atoi(colon + 1);
}

static uint16_t
port_there(void)
{
	return port_of(f.bound);
}

/*
 * ${n} listeners have all their streams waiting, and all connections were taken
 * up.
 */
static bool
all_wait(uint32_t n)
{
	struct mux_stats a, b;

	mux_stats(link_near, &a);
	mux_stats(link_far, &b);
	return a.streams == n * (1 + WAITING) + near_conns.n && b.streams == n * (1 + WAITING) + far_conns.n;
}

/* ---- both sides ---- */

START_TEST(a_listener_there_is_ready_and_streams_wait)
{
	char want[64];

	begin();
	listen_there("127.0.0.1:0", "127.0.0.1:1");
	ck_assert_int_eq(f.state, FORWARD_READY);
	snprintf(want, sizeof(want), "127.0.0.1:%u\n\n", (unsigned)port_there());
	ck_assert_str_eq(f.bound, want);
	TURN_UNTIL(all_wait(1));
	run();
	ck_assert(all_wait(1));
	ck_assert_uint_eq(near_conns.n, 0);
	lose_link();
	ck_assert_int_eq(f.state, FORWARD_REFUSED);
}
END_TEST

START_TEST(both_loopbacks_are_reported_once)
{
	begin();
	listen_there("0", "127.0.0.1:1");
	ck_assert_int_eq(f.state, FORWARD_READY);
	ck_assert(strncmp(f.bound, "localhost:", 10) == 0);
	ck_assert_ptr_eq(strchr(f.bound, '\n'), f.bound + strlen(f.bound) - 2);
	lose_link();
}
END_TEST

/* 0: one at a time, 1: more at once than streams wait. */
START_TEST(connections_there_are_served_here)
{
	enum { MANY = 3 * WAITING + 1 };
	uint16_t port = 0;
	int l = tcp_listener(AF_INET, &port), there[MANY], here[MANY], i, n = _i == 0 ? 1 : MANY, round;
	char c;

	begin();
	listen_there("127.0.0.1:0", port_text(port));
	for (round = 0; round < 3; round++) {
		for (i = 0; i < n; i++) {
			there[i] = tcp_connect(AF_INET, port_there());
			c = (char)i;
			ck_assert_int_eq(write(there[i], &c, 1), 1);
		}
		for (i = 0; i < n; i++)
			here[i] = taken(l);
		TURN_UNTIL(all_wait(1));
		ck_assert_uint_eq(near_conns.n, (size_t)n);
		for (i = 0; i < n; i++) {
			TURN_UNTIL(read(here[i], &c, 1) == 1);
			ck_assert_int_ge(c, 0);
			ck_assert_int_lt(c, n);
			ck_assert_int_ne(there[(int)c], -1);
			talk(there[(int)c], here[i]);
			there[(int)c] = -1;
		}
		TURN_UNTIL(near_conns.n == 0 && far_conns.n == 0 && all_wait(1));
	}
	lose_link();
}
END_TEST

/* While the limit of connections here is reached, the next one waits there. */
START_TEST(a_connection_there_waits_for_room_here)
{
	uint16_t port = 0;
	int l = tcp_listener(AF_INET, &port), one, two, a, b;

	begin();
	near_conns.max = 1;
	listen_there("127.0.0.1:0", port_text(port));
	one = tcp_connect(AF_INET, port_there());
	a = taken(l);
	two = tcp_connect(AF_INET, port_there());
	run();
	ck_assert_int_eq(accept(l, NULL, NULL), -1);
	talk(one, a);
	b = taken(l);
	talk(two, b);
	lose_link();
}
END_TEST

START_TEST(a_connection_whose_target_here_is_missing_is_reset_there)
{
	int fd;

	begin();
	listen_there("127.0.0.1:0", "./missing");
	fd = tcp_connect(AF_INET, port_there());
	is_reset(fd);
	close(fd);
	HAS(captured(), "./missing: No such file");
	HAS_NOT(captured(), "node: ");
	TURN_UNTIL(all_wait(1));
	ck_assert_int_eq(f.state, FORWARD_READY);
	lose_link();
}
END_TEST

/* It is asked for twice.  0: in use, 1: no such directory, 2: not an address of
 * this host */
START_TEST(a_listener_that_cannot_be_is_refused_and_reported_once)
{
	uint16_t port = 0;
	int l = tcp_listener(AF_INET, &port);

	begin();
	listen_there(_i == 0 ? port_text(port) : _i == 1 ? "/nowhere/x.sock" : "203.0.113.1:80", "127.0.0.1:1");
	ck_assert_int_eq(f.state, FORWARD_REFUSED);
	remote_ask(near_remotes, link_near, &f);
	TURN_UNTIL(f.state == FORWARD_REFUSED);
	HAS(captured(), "relay: node: cannot listen on ");
	ck_assert_ptr_null(strstr(strchr(captured(), '\n') + 1, "\n"));
	close(l);
	fds--;
	finish();
}
END_TEST

static bool
resolver_knows(const char *name)
{
	struct addrinfo *list;

	if (getaddrinfo(name, NULL, NULL, &list) != 0) {
		printf("skipped: the resolver does not know %s\n", name);
		return false;
	}
	freeaddrinfo(list);
	return true;
}

/* "Localhost" is not the name that relay knows, so a child looks it up. */
START_TEST(a_listener_there_may_have_a_name)
{
	if (!resolver_knows("Localhost"))
		return;
	begin();
	listen_there("Localhost:0", "127.0.0.1:1");
	ck_assert_int_eq(f.state, FORWARD_READY);
	TURN_UNTIL(all_wait(1));
	TURN_UNTIL(kids.first == NULL);
	lose_link();
}
END_TEST

/* A label of 64 letters is not sent to a name server. */
START_TEST(a_listener_of_an_unknown_name_is_refused_and_reported)
{
	begin();
	listen_there("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx:0", "127.0.0.1:1");
	ck_assert_int_eq(f.state, FORWARD_REFUSED);
	HAS(captured(), "relay: node: cannot listen on xxx");
	TURN_UNTIL(kids.first == NULL);
	finish();
}
END_TEST

/* During the look-up, the stream or the link ends, and so does the child.
 * 0: by a reset, 1: by EOF, 2: the link */
START_TEST(a_look_up_ends_with_its_stream)
{
	struct stream *s;

	begin();
	signal(SIGTERM, SIG_DFL); /* Check's handler would end the test with the child */
	s = open_stream(REMOTE_LISTEN "Localhost:0");
	cross();
	pollset_begin(&ps);
	serve_streams(serve, link_far, ps.now);
	remote_step(far_remotes, &ps);
	ck_assert_ptr_nonnull(kids.first);
	if (_i == 2) {
		link_held = true;
		link_cut();
	} else if (_i == 1) {
		stream_shutdown(s);
	} else {
		stream_reset(s, MUX_RESET, "");
	}
	cross();
	remote_step(far_remotes, &ps);
	stream_release(s);
	TURN_UNTIL(kids.first == NULL);
	if (_i < 2)
		finish();
	else
		nothing_is_left();
}
END_TEST

/* 1: the client does not wait */
START_TEST(a_socket_file_there_goes_with_its_listener)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX, .sun_path = "app.sock" };
	int fd;

	begin();
	listen_there("./app.sock", "./missing");
	ck_assert_int_eq(f.state, FORWARD_READY);
	ck_assert_str_eq(f.bound, "./app.sock\n\n");
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	if (_i == 0)
		ends(fd);
	close(fd);
	lose_link();
	ck_assert_int_eq(access("app.sock", F_OK), -1);
}
END_TEST

/*
 * Another process holds the lock of the path.  The loop serves other streams
 * meanwhile.
 */
START_TEST(a_taken_lock_there_is_reported_at_once)
{
	int64_t began;
	int lock;

	begin();
	lock = lock_elsewhere(".app.sock.relay-lock");
	began = ms();
	listen_there("./app.sock", "./missing");
	ck_assert_int_eq(f.state, FORWARD_REFUSED);
	ck_assert_int_lt(ms() - began, 1000);
	HAS(captured(), "relay: node: cannot listen on ./app.sock: ");
	HAS(captured(), ".app.sock.relay-lock");
	close(lock);
	unlink(".app.sock.relay-lock");
	finish();
}
END_TEST

START_TEST(a_socket_file_there_goes_at_once_in_spite_of_a_taken_lock)
{
	int64_t began;
	int lock;

	begin();
	listen_there("./app.sock", "./missing");
	ck_assert_int_eq(f.state, FORWARD_READY);
	lock = lock_elsewhere(".app.sock.relay-lock");
	began = ms();
	fds++; /* the lock's pipe */
	lose_link();
	ck_assert_int_lt(ms() - began, 500);
	ck_assert_int_eq(access("app.sock", F_OK), -1);
	close(lock);
	unlink(".app.sock.relay-lock");
}
END_TEST

START_TEST(the_longest_path_there_is_reported_whole)
{
	char path[UNIXPATH_MAX], dir[110];
	size_t n = (size_t)snprintf(path, sizeof(path), "%s", own_dir);
	int i;

	memset(dir, 'd', sizeof(dir));
	dir[0] = '/';
	for (i = 0; i < 20; i++) {
		n += (size_t)snprintf(path + n, sizeof(path) - n, "%.100s", dir);
		ck_assert_int_eq(mkdir(path, 0700), 0);
	}
	snprintf(path + n, sizeof(path) - n, "/app.sock");
	begin();
	listen_there(path, "./missing");
	ck_assert_int_eq(f.state, FORWARD_READY);
	ck_assert_uint_eq(strlen(f.bound), strlen(path) + 2);
	lose_link();
	ck_assert_int_eq(access(path, F_OK), -1);
}
END_TEST

/* The connections of each one go to its own target. */
START_TEST(two_listeners_keep_apart)
{
	static struct forward other;
	uint16_t port[2] = { 0, 0 }, there[2];
	int l[2] = { tcp_listener(AF_INET, &port[0]), tcp_listener(AF_INET, &port[1]) }, i, a, b;

	begin();
	listen_there("127.0.0.1:0", port_text(port[0]));
	there[0] = port_there();
	ask(&other, "127.0.0.1:0", port_text(port[1]));
	TURN_UNTIL(all_wait(2));
	there[1] = port_of(other.bound);
	for (i = 0; i < 4; i++) {
		a = tcp_connect(AF_INET, there[i % 2]);
		b = taken(l[i % 2]);
		ck_assert_int_eq(accept(l[!(i % 2)], NULL, NULL), -1);
		talk(a, b);
	}
	lose_link();
	ck_assert_int_eq(other.state, FORWARD_REFUSED);
}
END_TEST

/*
 * The far side allows so few streams that all are used.  When some end, streams
 * wait again.
 */
START_TEST(a_listener_recovers_from_a_want_of_streams)
{
	enum { FEW = 6 };
	uint16_t port = 0;
	int l = tcp_listener(AF_INET, &port), there[FEW - 1], here[FEW - 1], i, round;

	begin();
	link_free();
	link_up(FEW, pollset_clock());
	listen_there("127.0.0.1:0", port_text(port));
	for (round = 0; round < 3; round++) {
		for (i = 0; i < FEW - 1; i++) {
			there[i] = tcp_connect(AF_INET, port_there());
			here[i] = taken(l);
		}
		for (i = 0; i < FEW - 1; i++)
			talk(there[i], here[i]);
	}
	lose_link();
}
END_TEST

START_TEST(a_listener_is_refused_where_no_stream_can_be_opened)
{
	begin();
	ck_assert(forward_parse(&f, FORWARD_FAR, "1:x:1", why, sizeof(why)));
	mux_lost(link_near, 0, MUX_RESET, "");
	remote_ask(near_remotes, link_near, &f);
	ck_assert_int_eq(f.state, FORWARD_REFUSED);
	HAS(captured(), "cannot ask node for 1");
	lose_link();
}
END_TEST

/* Another user, where we are root; with any_uid (-a) it may connect. */
START_TEST(another_user_of_the_far_host_may_not_connect)
{
	uint16_t port = 0;
	int l = tcp_listener(AF_INET, &port), fd;
	pid_t pid;

	if (geteuid() != 0 || !has_peer_uid()) {
		printf("skipped: needs root, and what POSIX lacks\n");
		return;
	}
	any_uid = _i == 1;
	begin();
	listen_there("127.0.0.1:0", port_text(port));
	pid = fork();
	if (pid == 0) {
		if (setuid(65534) == -1)
			_exit(1);
		fd = tcp_connect(AF_INET, port_there());
		pause();
		_exit(fd);
	}
	if (_i == 1) {
		close(taken(l));
	} else {
		TURN_UNTIL(*captured() != '\0');
		run();
		ck_assert_int_eq(accept(l, NULL, NULL), -1);
		ck_assert_uint_eq(near_conns.n, 0);
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	lose_link();
}
END_TEST

/* ---- the far side; the test is the near one ---- */

/* A listener there, and its addresses into f.bound. */
static struct stream *
listen_by_hand(const char *from)
{
	char text[64];
	struct stream *s;

	snprintf(text, sizeof(text), REMOTE_LISTEN "%s", from);
	s = open_stream(text);
	TURN_UNTIL(stream_is_opened(s) && stream_rx(s)->used > 2);
	f.bound[buf_take(stream_rx(s), f.bound, sizeof(f.bound) - 1)] = '\0';
	stream_consumed(s, strlen(f.bound));
	HAS(f.bound, "\n\n");
	return s;
}

static struct stream *
wait_by_hand(const struct stream *listener)
{
	char text[64];

	snprintf(text, sizeof(text), REMOTE_ACCEPT "%lu", (unsigned long)stream_id(listener));
	return open_stream(text);
}

/*
 * 0: by a reset of its stream, 1: by EOF.  Its waiting streams end too; its
 * connections do not.
 */
START_TEST(a_listener_ends_with_its_stream)
{
	struct stream *s, *other, *waiting[3];
	int fd, i;

	begin();
	s = listen_by_hand("127.0.0.1:0");
	fd = -1;
	waiting[0] = wait_by_hand(s);
	fd = tcp_connect(AF_INET, port_there());
	TURN_UNTIL(stream_is_opened(waiting[0]));
	waiting[1] = wait_by_hand(s);
	other = listen_by_hand("127.0.0.1:0");
	waiting[2] = wait_by_hand(other);
	run();
	if (_i == 0)
		stream_reset(s, MUX_RESET, "");
	else
		stream_shutdown(s);
	TURN_UNTIL(stream_is_closed(waiting[1]));
	run();
	ck_assert(!stream_is_closed(waiting[0]) && !stream_is_closed(waiting[2]) && !stream_is_closed(other));
	put_stream(waiting[0], "on");
	comes(fd, "on");
	close(fd);
	for (i = 0; i < 3; i++)
		stream_release(waiting[i]);
	stream_release(s);
	stream_release(other);
	finish();
}
END_TEST

/*
 * Without a waiting stream, a connection stays in the backlog.  A released
 * stream takes none.
 */
START_TEST(a_connection_waits_for_a_stream)
{
	struct stream *s, *given_up, *taker;
	int fd;

	begin();
	s = listen_by_hand("127.0.0.1:0");
	given_up = wait_by_hand(s);
	cross();
	stream_release(given_up);
	fd = tcp_connect(AF_INET, port_there());
	put(fd, "early");
	run();
	ck_assert_uint_eq(far_conns.n, 0);
	taker = wait_by_hand(s);
	comes_by(taker, "early");
	ck_assert(stream_is_opened(taker));
	close(fd);
	stream_release(taker);
	stream_release(s);
	finish();
}
END_TEST

/* ---- the near side; the test is a hostile far side ---- */

static struct stream *
ask_a_stranger(void)
{
	struct stream *s;

	ask(&f, "8888", "node:80");
	cross();
	s = mux_accept(link_far);
	ck_assert_str_eq(stream_target(s), REMOTE_LISTEN "8888");
	stream_accept(s);
	return s;
}

static void
near_turn(void)
{
	cross();
	pollset_begin(&ps);
	step_near();
	cross();
}

static void
answer(struct stream *s, const char *text)
{
	put_stream(s, text);
	near_turn();
}

/* Take up the waiting streams; return how many. */
static int
count_waiting(struct stream *waiting[WAITING])
{
	int n = 0;

	while (n < WAITING && (waiting[n] = mux_accept(link_far)) != NULL)
		n++;
	return n;
}

static void
leave_stranger(struct stream *s, struct stream *waiting[], int n)
{
	while (n > 0)
		stream_release(waiting[--n]);
	stream_release(s);
	near_turn();
	near_turn();
	ck_assert_int_eq(f.state, FORWARD_REFUSED);
	while ((s = mux_accept(link_far)) != NULL)
		stream_release(s);
	near_turn();
	finish();
}

START_TEST(addresses_without_end_are_refused)
{
	struct stream *s;
	int i;

	begin();
	s = ask_a_stranger();
	for (i = 0; i < 6000 && f.state == FORWARD_ASKED; i++)
		answer(s, _i == 0 ? "x" : "a line\n");
	ck_assert_int_eq(f.state, FORWARD_REFUSED);
	ck_assert_uint_lt(strlen(f.bound), sizeof(f.bound));
	leave_stranger(s, NULL, 0);
}
END_TEST

/* A terminal or a program reads them on stdout. */
START_TEST(addresses_have_no_control_characters)
{
	struct stream *s;
	const char *p;

	begin();
	s = ask_a_stranger();
	answer(s, "\033]0;you\007:80\n[::1]:80\r\n\n");
	ck_assert_int_eq(f.state, FORWARD_READY);
	for (p = f.bound; *p != '\0'; p++)
		ck_assert_msg(*p >= ' ' || *p == '\n', "%d in the addresses", *p);
	HAS(f.bound, "[::1]:80");
	leave_stranger(s, NULL, 0);
}
END_TEST

/*
 * Streams wait after the empty line.  They end with the listener: 0: by EOF, 1:
 * by a reset with a reason, 2: by one without
 */
START_TEST(addresses_come_in_pieces_and_a_listener_may_end)
{
	struct stream *s, *waiting[WAITING];
	int n;

	begin();
	s = ask_a_stranger();
	answer(s, "127.0.0.1:80\n");
	ck_assert_int_eq(f.state, FORWARD_ASKED);
	answer(s, "[::1]:80");
	answer(s, "\n");
	ck_assert_int_eq(f.state, FORWARD_ASKED);
	ck_assert_int_eq(count_waiting(waiting), 0);
	answer(s, "\n");
	ck_assert_int_eq(f.state, FORWARD_READY);
	ck_assert_str_eq(f.bound, "127.0.0.1:80\n[::1]:80\n\n");
	n = count_waiting(waiting);
	ck_assert_int_eq(n, WAITING);
	if (_i == 0)
		stream_shutdown(s);
	else
		stream_reset(s, _i == 1 ? MUX_NO_ROOM : MUX_RESET, "no room");
	near_turn();
	ck_assert_int_eq(f.state, FORWARD_REFUSED);
	while (n > 0)
		ck_assert(stream_is_closed(waiting[--n]));
	if (_i == 1)
		ck_assert_str_eq(captured(), "relay: node: no room\n");
	else
		ck_assert_str_eq(captured(), "");
	leave_stranger(s, waiting, WAITING);
}
END_TEST

/* A stream that waited and was refused is replaced. */
START_TEST(a_stream_that_is_refused_there_is_replaced)
{
	struct stream *s, *waiting[WAITING], *again[WAITING];
	int i;

	begin();
	s = ask_a_stranger();
	answer(s, "127.0.0.1:80\n\n");
	ck_assert_int_eq(count_waiting(waiting), WAITING);
	for (i = 0; i < WAITING; i++) {
		stream_reset(waiting[i], MUX_UNUSABLE, "");
		stream_release(waiting[i]);
	}
	near_turn();
	near_turn();
	ck_assert_int_eq(count_waiting(again), WAITING);
	leave_stranger(s, again, WAITING);
}
END_TEST

/* ---- the link is lost ---- */

START_TEST(a_listener_that_is_asked_for_is_refused_when_the_link_is_lost)
{
	begin();
	ask(&f, "127.0.0.1:0", "127.0.0.1:1");
	lose_link();
	ck_assert_int_eq(f.state, FORWARD_REFUSED);
	ck_assert_str_eq(captured(), ""); /* the tunnel reports its own end */
}
END_TEST

/* A client is connected there, and here the target is dialled. */
START_TEST(the_link_may_be_lost_while_the_near_side_dials)
{
	uint16_t port = kept_silent_port();
	int fd;

	begin();
	listen_there("127.0.0.1:0", port_text(port));
	fd = tcp_connect(AF_INET, port_there());
	TURN_UNTIL(near_conns.n == 1 && far_conns.n == 1 && all_wait(1));
	fds++;
	lose_link();
	is_reset(fd);
	close(fd);
}
END_TEST

/* After any number of turns from the start of a -R, with connections coming. */
START_TEST(the_link_may_be_lost_at_any_turn)
{
	uint16_t port = 0, there;
	int l = tcp_listener(AF_INET, &port), fd = -1, b, i;
	char from[32];

	begin();
	there = free_port();
	snprintf(from, sizeof(from), "127.0.0.1:%u", (unsigned)there);
	ask(&f, from, port_text(port));
	for (i = 0; i < _i; i++) {
		turn();
		if (fd == -1 && f.state == FORWARD_READY)
			fd = tcp_connect(AF_INET, there);
		if ((b = accept(l, NULL, NULL)) != -1)
			close(b);
	}
	if (fd != -1)
		close(fd);
	lose_link();
}
END_TEST

TESTS("remote")
{
	tcase_set_timeout(tc, 30);
	tcase_add_unchecked_fixture(tc, enter_dir, leave_dir);
	tcase_add_test(tc, a_listener_there_is_ready_and_streams_wait);
	tcase_add_test(tc, both_loopbacks_are_reported_once);
	tcase_add_loop_test(tc, connections_there_are_served_here, 0, 2);
	tcase_add_test(tc, a_connection_there_waits_for_room_here);
	tcase_add_test(tc, a_connection_whose_target_here_is_missing_is_reset_there);
	tcase_add_loop_test(tc, a_listener_that_cannot_be_is_refused_and_reported_once, 0, 3);
	tcase_add_test(tc, a_listener_there_may_have_a_name);
	tcase_add_test(tc, a_listener_of_an_unknown_name_is_refused_and_reported);
	tcase_add_loop_test(tc, a_look_up_ends_with_its_stream, 0, 3);
	tcase_add_loop_test(tc, a_socket_file_there_goes_with_its_listener, 0, 2);
	tcase_add_test(tc, a_taken_lock_there_is_reported_at_once);
	tcase_add_test(tc, a_socket_file_there_goes_at_once_in_spite_of_a_taken_lock);
	tcase_add_test(tc, the_longest_path_there_is_reported_whole);
	tcase_add_test(tc, two_listeners_keep_apart);
	tcase_add_test(tc, a_listener_recovers_from_a_want_of_streams);
	tcase_add_test(tc, a_listener_is_refused_where_no_stream_can_be_opened);
	tcase_add_loop_test(tc, another_user_of_the_far_host_may_not_connect, 0, 2);
	tcase_add_loop_test(tc, a_listener_ends_with_its_stream, 0, 2);
	tcase_add_test(tc, a_connection_waits_for_a_stream);
	tcase_add_loop_test(tc, addresses_without_end_are_refused, 0, 2);
	tcase_add_test(tc, addresses_have_no_control_characters);
	tcase_add_loop_test(tc, addresses_come_in_pieces_and_a_listener_may_end, 0, 3);
	tcase_add_test(tc, a_stream_that_is_refused_there_is_replaced);
	tcase_add_test(tc, a_listener_that_is_asked_for_is_refused_when_the_link_is_lost);
	tcase_add_test(tc, the_link_may_be_lost_while_the_near_side_dials);
	tcase_add_loop_test(tc, the_link_may_be_lost_at_any_turn, 0, 40);
}
