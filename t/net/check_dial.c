/* check_dial.c - from an endpoint to connected descriptors. */
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/resource.h>

#include "t/net.h"

static struct children kids;
static struct dial_target t;
static struct pollset ps;
static struct dial *d;
static char why[512];
static int turns;

static void
start_at(int64_t now, const char *to, int each_ms, int wait_ms)
{
	t.kids = &kids;
	t.each_us = each_ms * 1000;
	t.wait_us = wait_ms * 1000;
	ck_assert_msg(endpoint_parse(&t.to, to, false, why, sizeof(why)), "%s", why);
	d = dial_start(&t, now);
	ck_assert_ptr_nonnull(d);
}

static void
start(const char *to, int each_ms, int wait_ms)
{
	start_at(pollset_clock(), to, each_ms, wait_ms);
}

static void
start_port(uint16_t port, const char *host, int each_ms, int wait_ms)
{
	char text[300];

	snprintf(text, sizeof(text), "%s:%u", host, (unsigned)port);
	start(text, each_ms, wait_ms);
}

static enum dial_state
turn(void)
{
	pollset_begin(&ps);
	spawn_turn(&kids, &ps);
	dial_want(d, &ps);
	pollset_until(&ps, ps.now + 500000);
	ck_assert_int_eq(pollset_wait(&ps), 0);
	spawn_reap(&kids);
	turns++;
	return dial_step(d, &ps);
}

static enum dial_state
run(void)
{
	enum dial_state s;

	UNTIL((s = turn()) != DIAL_BUSY, (void)0);
	return s;
}

#define FAILS(status, part)                                   \
	do {                                                  \
		ck_assert_int_eq(run(), DIAL_FAILED);         \
		ck_assert_int_eq(dial_status(d), status);     \
		HAS(dial_explain(d, why, sizeof(why)), part); \
		HAS_NOT(why, "\n");                           \
		ck_assert_int_eq(dial_take(d), -1);           \
	} while (0)

/* ---- TCP ---- */

START_TEST(a_listening_port_is_reached)
{
	uint16_t port = 0;
	int l = tcp_listener(_i == 1 ? AF_INET6 : AF_INET, &port), fd, on = 0;
	socklen_t len = sizeof(on);

	start_port(port, _i == 0 ? "127.0.0.1" : _i == 1 ? "[::1]" : "localhost", 2000, 0);
	ck_assert_int_eq(run(), DIAL_DONE);
	ck_assert_ptr_null(dial_take_child(d));
	fd = dial_take(d);
	ck_assert(nonblocking(fd) && cloexec(fd));
	ck_assert_int_eq(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &len), 0);
	ck_assert_int_ne(on, 0); /* small messages are sent at once */
	ck_assert_int_eq(dial_take(d), -1);
	dial_free(d, ps.now);
	ck_assert_int_ne(fcntl(fd, F_GETFD), -1);
	ck_assert_int_ne(accept(l, NULL, NULL), -1);
}
END_TEST

START_TEST(the_second_address_is_tried_when_the_first_refuses_or_is_silent)
{
	uint16_t port = _i ? silent_port() : 0;
	int l = tcp_listener(AF_INET6, &port);

	start_port(port, "localhost", 200, 0);
	ck_assert_int_eq(run(), DIAL_DONE);
	ck_assert_int_ne(accept(l, NULL, NULL), -1);
}
END_TEST

/* connect(2) to the broadcast address fails before it sends a packet. */
START_TEST(an_address_that_fails_at_once_leads_to_the_next)
{
	uint16_t port = 0;
	int l = tcp_listener(AF_INET, &port);

	t.cache.n = 2;
	t.cache.len[0] = loopback(AF_INET, port, &t.cache.addr[0]);
	((struct sockaddr_in *)(void *)&t.cache.addr[0])->sin_addr.s_addr = INADDR_BROADCAST;
	t.cache.len[1] = loopback(AF_INET, port, &t.cache.addr[1]);
	start_port(port, "Localhost", 2000, 0);
	ck_assert_int_eq(run(), DIAL_DONE);
	ck_assert_int_eq(t.cache.n, 2); /* the name was not looked up again */
	ck_assert_int_ne(accept(l, NULL, NULL), -1);
}
END_TEST

START_TEST(a_refusal_is_explained)
{
	start_port(free_port(), "localhost", 2000, 0);
	FAILS(STATUS_CONNECT, "Connection refused");
	HAS(why, "cannot connect to localhost:");
	HAS(why, "no process listens on that port");
	HAS(why, "-w");
}
END_TEST

START_TEST(an_address_is_given_up_after_its_time)
{
	int64_t began = ms();

	start_port(silent_port(), "127.0.0.1", 1000, 0);
	FAILS(STATUS_CONNECT, "no answer within 1 s");
	HAS(why, "-t");
	ck_assert_int_ge(ms() - began, 990);
	ck_assert_int_lt(ms() - began, 3000);
}
END_TEST

/*
 * connect(2) to a free port may pick that port for its own end, and is then
 * connected to itself (RFC 9293 3.5).
 */
START_TEST(a_dial_is_never_connected_to_itself)
{
	uint16_t port = (uint16_t)(free_port() & ~1U); /* Linux picks even ports first */
	int i;

	for (i = 0; i < 40000; i++) {
		start_port(port, "127.0.0.1", 1000, 0);
		while (turn() == DIAL_BUSY)
			;
		ck_assert_int_eq(dial_step(d, &ps), DIAL_FAILED);
		dial_free(d, ps.now);
	}
}
END_TEST

/* ---- Unix ---- */

START_TEST(a_socket_path_is_reached)
{
	int l = unix_listener("there", SOCK_STREAM, 4), fd;

	start("./there", 2000, 0);
	ck_assert_int_eq(run(), DIAL_DONE);
	fd = dial_take(d);
	ck_assert(nonblocking(fd) && cloexec(fd));
	ck_assert_int_ne(accept(l, NULL, NULL), -1);
	unlink("there");
}
END_TEST

START_TEST(a_missing_path_is_explained)
{
	start("./missing", 2000, 0);
	FAILS(STATUS_CONNECT, "cannot connect to ./missing: No such file or directory");
	HAS(why, "-w");
}
END_TEST

START_TEST(a_dead_socket_is_explained)
{
	char host[256];

	close(unix_listener("dead", SOCK_STREAM, 1));
	gethostname(host, sizeof(host));
	start("./dead", 2000, 0);
	FAILS(STATUS_CONNECT, "no process on this host (");
	HAS(why, host);
	HAS(why, ") is listening");
	unlink("dead");
}
END_TEST

START_TEST(another_kind_of_file_is_explained)
{
	close(open("file", O_CREAT | O_WRONLY, 0600));
	if (_i)
		ck_assert_int_eq(symlink("file", "link"), 0);
	start(_i ? "./link" : "./file", 2000, 0);
	FAILS(STATUS_CONNECT, "not a socket");
	unlink("file");
	unlink("link");
}
END_TEST

/* -w does not retry after an error that stays. */
START_TEST(a_permanent_error_fails_at_once_in_spite_of_w)
{
	static const char *const paths[] = { "./dgram", "./plain/below", "./loop" };
	int64_t began = ms();

	if (_i == 0)
		unix_listener("dgram", SOCK_DGRAM, 0);
	else if (_i == 1)
		close(open("plain", O_CREAT | O_WRONLY, 0600));
	else
		ck_assert_int_eq(symlink("loop", "loop"), 0);
	start(paths[_i], 4000, 4000);
	FAILS(STATUS_CONNECT, "cannot connect to");
	ck_assert_int_lt(ms() - began, 2000);
	unlink("dgram");
	unlink("plain");
	unlink("loop");
}
END_TEST

static void
empty(int l)
{
	int fd;

	while ((fd = accept(l, NULL, NULL)) != -1)
		close(fd);
}

START_TEST(a_full_backlog_is_waited_for)
{
	int l = unix_listener("full", SOCK_STREAM, 0), fd, i;

	do
		fd = os_socket(AF_UNIX);
	while (unixpath_connect(fd, "full") == 0);
	start("./full", _i ? 150 : 3000, 0);
	if (_i) {
		FAILS(STATUS_CONNECT, "backlog is full");
		ck_assert_int_le(turns, 150);
	} else {
		for (i = 0; i < 3; i++)
			ck_assert_int_eq(turn(), DIAL_BUSY);
		empty(l);
		ck_assert_int_eq(run(), DIAL_DONE);
	}
	unlink("full");
}
END_TEST

/* ---- waiting for the target to appear ---- */

START_TEST(a_path_that_appears_is_reached)
{
	int i;

	if (_i)
		close(unix_listener("late", SOCK_STREAM, 1)); /* a dead one at first */
	start("./late", 2000, 4000);
	for (i = 0; i < 3; i++)
		ck_assert_int_eq(turn(), DIAL_BUSY);
	unlink("late");
	unix_listener("late", SOCK_STREAM, 1);
	ck_assert_int_eq(run(), DIAL_DONE);
	unlink("late");
}
END_TEST

START_TEST(a_port_that_appears_is_reached)
{
	uint16_t port = free_port();
	int i;

	start_port(port, "localhost", 2000, 4000);
	for (i = 0; i < 6; i++)
		ck_assert_int_eq(turn(), DIAL_BUSY);
	tcp_listener(AF_INET6, &port);
	ck_assert_int_eq(run(), DIAL_DONE);
}
END_TEST

/*
 * Do one turn at the time ${now}; ${*until} is the time until which the dial
 * then waits.
 */
static enum dial_state
turn_at(int64_t now, int64_t *until)
{
	enum dial_state s;

	ps.now = now;
	s = dial_step(d, &ps);
	ps.deadline = INT64_MAX;
	dial_want(d, &ps);
	*until = ps.deadline;
	return s;
}

/*
 * Each attempt shows by the pause after it.  The attempt at the end of -w is
 * the last.
 */
START_TEST(pauses_double_from_20_ms_to_500_and_hold)
{
	static const int pauses[] = { 20, 40, 80, 160, 320, 500, 500, 500 };
	int64_t now = 1000000, until;
	size_t i;

	start_at(now, "./never", 2000, 2120);
	for (i = 0; i < sizeof(pauses) / sizeof(pauses[0]); i++) {
		ck_assert_int_eq(turn_at(now, &until), DIAL_BUSY);
		ck_assert_int_eq(until - now, pauses[i] * 1000);
		now = until;
		ck_assert_int_eq(turn_at(now - 1, &until), DIAL_BUSY);
		ck_assert_int_eq(until, now);
	}
	ck_assert_int_eq(now, 1000000 + 2120000);
	ck_assert_int_eq(turn_at(now, &until), DIAL_FAILED);
	HAS(dial_explain(d, why, sizeof(why)), "No such file");
}
END_TEST

START_TEST(waiting_ends_and_is_not_busy)
{
	int64_t began = ms();

	start("./never", 2000, 300);
	FAILS(STATUS_CONNECT, "No such file");
	ck_assert_int_ge(ms() - began, 290);
	ck_assert_int_lt(ms() - began, 2500);
	ck_assert_int_le(turns, 12);
}
END_TEST

/* ---- commands ---- */

START_TEST(a_command_is_started)
{
	char *argv[] = { (char *)"cat", NULL };
	struct child *c;

	t.kids = &kids;
	t.each_us = 1000000;
	endpoint_command(&t.to, argv);
	d = dial_start(&t, pollset_clock());
	ck_assert_int_eq(run(), DIAL_DONE);
	ck_assert_int_eq(dial_take(d), -1);
	c = dial_take_child(d);
	ck_assert_ptr_nonnull(c);
	ck_assert_ptr_null(dial_take_child(d));
	dial_free(d, ps.now);
	ck_assert(spawn_take(c, STDOUT_FILENO) != -1 && spawn_take(c, STDIN_FILENO) != -1);
}
END_TEST

START_TEST(a_command_that_cannot_be_executed_is_explained)
{
	static const struct {
		const char *word;
		int status;
		const char *why;
	} table[] = { { "no-such-command", STATUS_NOTFOUND,
			  "cannot execute no-such-command: No such file" },
		{ "/no/such/thing", STATUS_NOTFOUND, "cannot execute thing: No such file" },
		{ "/etc/passwd", STATUS_NOEXEC, "cannot execute passwd: Permission denied" },
		{ "/tmp", STATUS_NOEXEC, "cannot execute tmp: Permission denied" } };
	char *argv[] = { (char *)table[_i].word, NULL };

	set_path();
	t.kids = &kids;
	t.each_us = 1000000;
	t.wait_us = 3000000; /* -w does not apply to commands */
	endpoint_command(&t.to, argv);
	d = dial_start(&t, pollset_clock());
	FAILS(table[_i].status, table[_i].why);
	ck_assert_ptr_null(strstr(why, "-w"));
	dial_free(d, ps.now);
	UNTIL(kids.first == NULL, {
		pollset_begin(&ps);
		spawn_turn(&kids, &ps);
		spawn_reap(&kids);
	});
}
END_TEST

/* ---- no descriptor is free ---- */

static int last_fd;

static void
use_up(void)
{
	struct rlimit r = { 64, 64 };
	int fd;

	capture();
	setrlimit(RLIMIT_NOFILE, &r);
	while ((fd = dup(0)) != -1)
		last_fd = fd;
}

/* 0: TCP, 1: Unix, 2: command, 3: a name */
static void
start_kind(int kind, int each_ms, uint16_t port)
{
	static char *argv[] = { (char *)"true", NULL };

	if (kind == 0)
		start_port(port, "127.0.0.1", each_ms, 0);
	else if (kind == 1)
		start("./fds", each_ms, 0);
	else if (kind == 3)
		start_port(port, "Localhost", each_ms, 0);
	if (kind != 2)
		return;
	t.kids = &kids;
	t.each_us = each_ms * 1000;
	endpoint_command(&t.to, argv);
	d = dial_start(&t, pollset_clock());
}

START_TEST(without_descriptors_it_fails_with_STATUS_SYSTEM)
{
	uint16_t port = 0;

	tcp_listener(AF_INET, &port);
	unix_listener("fds", SOCK_STREAM, 4);
	use_up();
	start_kind(_i, 250, port);
	FAILS(STATUS_SYSTEM, "ulimit -n");
	ck_assert_int_le(turns, 8);
	unlink("fds");
	give_back();
}
END_TEST

START_TEST(descriptors_that_become_free_are_used)
{
	uint16_t port = 0;
	int i;

	tcp_listener(AF_INET, &port);
	unix_listener("fds", SOCK_STREAM, 4);
	use_up();
	start_kind(_i, 3000, port);
	ck_assert_int_eq(turn(), DIAL_BUSY);
	for (i = 0; i < 6; i++)
		close(last_fd - i);
	ck_assert_int_eq(run(), DIAL_DONE);
	unlink("fds");
}
END_TEST

/* ---- names ---- */

/*
 * relay itself resolves "localhost" only: for "Localhost" a child reads the
 * list of hosts.
 */
START_TEST(a_name_is_looked_up_and_the_answer_kept)
{
	struct addrinfo *list;
	uint16_t port = 0;
	int before, round;

	if (getaddrinfo("Localhost", NULL, NULL, &list) != 0)
		return;
	freeaddrinfo(list);
	tcp_listener(AF_INET, &port);
	before = fds_open();
	for (round = 0; round < 2; round++) {
		start_port(port, "Localhost", 4000, 0);
		ck_assert_int_eq(run(), DIAL_DONE);
		ck_assert_int_gt(t.cache.n, 0);
		dial_free(d, ps.now);
		UNTIL(kids.first == NULL, {
			pollset_begin(&ps);
			spawn_turn(&kids, &ps);
			spawn_reap(&kids);
		});
		ck_assert_int_eq(fds_open(), before);
	}
}
END_TEST

/*
 * Two dials that begin at once have one child.  The other dial goes on, if one
 * is freed during the look-up (0) or was the first to read the answer (1).
 */
START_TEST(dials_of_one_target_share_a_look_up)
{
	struct addrinfo *list;
	uint16_t port = 0;
	struct dial *first;
	int before;

	if (getaddrinfo("Localhost", NULL, NULL, &list) != 0)
		return;
	freeaddrinfo(list);
	tcp_listener(AF_INET, &port);
	before = fds_open();
	start_port(port, "Localhost", 4000, 0);
	first = d;
	start_port(port, "Localhost", 4000, 0);
	ck_assert_ptr_nonnull(kids.first);
	ck_assert_int_eq(fds_open(), before + 1);
	if (_i == 0) {
		dial_free(first, pollset_clock());
		ck_assert_int_eq(run(), DIAL_DONE);
	} else {
		ck_assert_int_eq(run(), DIAL_DONE);
		dial_free(d, ps.now);
		d = first;
		ck_assert_int_eq(run(), DIAL_DONE);
		dial_free(first, ps.now);
	}
	ck_assert_int_gt(t.cache.n, 0);
	ck_assert_ptr_null(t.lookup);
	if (_i == 0)
		dial_free(d, ps.now);
	UNTIL(kids.first == NULL, {
		pollset_begin(&ps);
		spawn_turn(&kids, &ps);
		spawn_reap(&kids);
	});
	ck_assert_int_eq(fds_open(), before);
}
END_TEST

START_TEST(a_name_is_looked_up_again_if_its_kept_addresses_fail)
{
	struct addrinfo *list;
	uint16_t port = 0;

	if (getaddrinfo("Localhost", NULL, NULL, &list) != 0)
		return;
	freeaddrinfo(list);
	tcp_listener(AF_INET, &port);
	t.cache.n = 1;
	t.cache.len[0] = loopback(AF_INET, free_port(), &t.cache.addr[0]);
	start_port(port, "Localhost", 4000, 0);
	ck_assert_int_eq(run(), DIAL_DONE);
}
END_TEST

/* A label of 64 letters is not valid, so no name server is needed. */
START_TEST(a_name_without_an_address_is_explained)
{
	start("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx:80", 4000, 0);
	FAILS(STATUS_CONNECT, "the name cannot be resolved");
	HAS(why, "xxx:80");
}
END_TEST

START_TEST(a_look_up_is_given_up_after_its_time)
{
	start("Localhost:80", 0, 0);
	pollset_begin(&ps);
	ck_assert_int_eq(dial_step(d, &ps), DIAL_FAILED);
	HAS(dial_explain(d, why, sizeof(why)), "cannot be resolved");
	ck_assert_int_eq(dial_status(d), STATUS_CONNECT);
}
END_TEST

/* ---- other cases ---- */

START_TEST(stdio_needs_no_connection)
{
	start("-", 1000, 0);
	ck_assert_int_eq(run(), DIAL_DONE);
	ck_assert_int_eq(dial_take(d), -1);
	ck_assert_ptr_null(dial_take_child(d));
}
END_TEST

/*
 * 0: connecting, 1: pausing, 2: resolving, 3: starting, 4: done and not taken,
 * 5: failed
 */
START_TEST(a_dial_can_be_freed_in_any_state)
{
	static char *argv[] = { (char *)"cat", NULL };
	uint16_t port = _i == 0 ? silent_port() : free_port();
	int before;

	if (_i == 4)
		tcp_listener(AF_INET, &port);
	signal(SIGTERM, SIG_DFL); /* the handler of Check would end this test with the child */
	before = fds_open();
	if (_i == 3) {
		t.kids = &kids;
		endpoint_command(&t.to, argv);
		d = dial_start(&t, pollset_clock());
	} else {
		start_port(port, _i == 2 ? "Localhost" : "127.0.0.1", 3000, _i == 1 ? 3000 : 0);
	}
	if (_i == 1)
		turn();
	if (_i >= 4)
		run();
	dial_free(d, pollset_clock());
	dial_free(NULL, 0);
	UNTIL(kids.first == NULL, {
		pollset_begin(&ps);
		spawn_turn(&kids, &ps);
		spawn_reap(&kids);
		poll(NULL, 0, 1);
	});
	ck_assert_int_eq(fds_open(), before);
}
END_TEST

START_TEST(an_explanation_fits_its_buffer)
{
	size_t n;

	start("./missing", 1000, 0);
	run();
	for (n = 1; n < 60; n++) {
		memset(why, '#', sizeof(why));
		ck_assert_ptr_eq(dial_explain(d, why, n), why);
		ck_assert_int_eq(why[n], '#');
		ck_assert(memchr(why, '\0', n) != NULL);
	}
}
END_TEST

TESTS("dial")
{
	tcase_add_unchecked_fixture(tc, enter_dir, leave_dir);
	tcase_add_loop_test(tc, a_listening_port_is_reached, 0, 3);
	tcase_add_loop_test(
	    tc, the_second_address_is_tried_when_the_first_refuses_or_is_silent, 0, 2);
	tcase_add_test(tc, an_address_that_fails_at_once_leads_to_the_next);
	tcase_add_test(tc, a_refusal_is_explained);
	tcase_add_test(tc, an_address_is_given_up_after_its_time);
	tcase_add_test(tc, a_dial_is_never_connected_to_itself);
	tcase_add_test(tc, a_socket_path_is_reached);
	tcase_add_test(tc, a_missing_path_is_explained);
	tcase_add_test(tc, a_dead_socket_is_explained);
	tcase_add_loop_test(tc, another_kind_of_file_is_explained, 0, 2);
	tcase_add_loop_test(tc, a_permanent_error_fails_at_once_in_spite_of_w, 0, 3);
	tcase_add_loop_test(tc, a_full_backlog_is_waited_for, 0, 2);
	tcase_add_loop_test(tc, a_path_that_appears_is_reached, 0, 2);
	tcase_add_test(tc, a_port_that_appears_is_reached);
	tcase_add_test(tc, pauses_double_from_20_ms_to_500_and_hold);
	tcase_add_test(tc, waiting_ends_and_is_not_busy);
	tcase_add_test(tc, a_command_is_started);
	tcase_add_loop_test(tc, a_command_that_cannot_be_executed_is_explained, 0, 4);
	tcase_add_loop_test(tc, without_descriptors_it_fails_with_STATUS_SYSTEM, 0, 4);
	tcase_add_loop_test(tc, descriptors_that_become_free_are_used, 0, 4);
	tcase_add_test(tc, a_name_is_looked_up_and_the_answer_kept);
	tcase_add_loop_test(tc, dials_of_one_target_share_a_look_up, 0, 2);
	tcase_add_test(tc, a_name_is_looked_up_again_if_its_kept_addresses_fail);
	tcase_add_test(tc, a_name_without_an_address_is_explained);
	tcase_add_test(tc, a_look_up_is_given_up_after_its_time);
	tcase_add_test(tc, stdio_needs_no_connection);
	tcase_add_loop_test(tc, a_dial_can_be_freed_in_any_state, 0, 6);
	tcase_add_test(tc, an_explanation_fits_its_buffer);
}
