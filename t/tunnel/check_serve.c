/* check_serve.c - what the far side does with the streams of the near side. */
#include <netdb.h>

#include "t/tunnel/sides.h"

/*
 * Send both ways between a stream and a socket of its target, and end both
 * cleanly.
 */
static void
talk_stream(struct stream *s, int fd)
{
	put_stream(s, "ping");
	comes(fd, "ping");
	put(fd, "pong");
	comes_by(s, "pong");
	stream_shutdown(s);
	ends(fd);
	put(fd, "late");
	comes_by(s, "late");
	close(fd);
	TURN_UNTIL(stream_is_closed(s));
	ck_assert_int_eq(stream_code(s), MUX_END);
	stream_release(s);
}

/* The near side may send DATA before it reads OPENED.  1: a Unix target */
START_TEST(a_stream_reaches_its_target)
{
	uint16_t port = 0;
	int l = _i ? unix_listener("there", SOCK_STREAM, 4) : tcp_listener(AF_INET, &port), fd;
	struct stream *s;

	begin();
	s = open_stream(_i ? "./there" : port_text(port));
	put_stream(s, "early");
	fd = taken(l);
	comes(fd, "early");
	TURN_UNTIL(stream_is_opened(s));
	ck_assert_uint_eq(far_conns.n, 1);
	talk_stream(s, fd);
	finish();
}
END_TEST

/* One call takes up all streams. */
START_TEST(many_streams_are_taken_up_at_once)
{
	enum { MANY = 40 };
	struct stream *s[MANY];
	uint16_t port = 0;
	int l = tcp_listener(AF_INET, &port), i;

	begin();
	for (i = 0; i < MANY; i++)
		s[i] = open_stream(i % 2 ? port_text(port) : "nonsense");
	cross();
	pollset_begin(&ps);
	serve_streams(serve, link_far, ps.now);
	ck_assert_uint_eq(far_conns.n, MANY / 2);
	for (i = 0; i < MANY; i++) {
		TURN_UNTIL(stream_is_opened(s[i]) || stream_is_closed(s[i]));
		ck_assert_int_eq(stream_is_opened(s[i]), i % 2);
		stream_release(s[i]);
	}
	close(l);
	fds--;
	finish();
}
END_TEST

static const struct {
	const char *target, *reason;
	uint16_t code;
} unreached[] = {
	{ "./missing", "No such file or directory", MUX_NO_FILE },
	{ "127.0.0.1:%", "Connection refused", MUX_REFUSED },
	{ "", "an end is empty", MUX_UNUSABLE },
	{ "-", "a stream's target is a port or a socket path", MUX_UNUSABLE },
	{ "nonsense", "neither a port", MUX_UNUSABLE },
	{ "@/s", "no directory @/", MUX_UNUSABLE },
	{ "=listen @/s", "no directory @/", MUX_UNUSABLE },
	{ "=accept 1", "no listener has this number", MUX_UNUSABLE },
	{ "=accept ", "no listener has this number", MUX_UNUSABLE },
	{ "=listen -", "cannot be listened on", MUX_UNUSABLE },
	{ "=listen nonsense", "neither a port", MUX_UNUSABLE },
	{ "=listen ", "empty", MUX_UNUSABLE },
	{ "=listen /dev/null/x", "/dev/null/x", MUX_UNUSABLE },
	{ "=other", "neither a port", MUX_UNUSABLE },
};

START_TEST(a_stream_that_reaches_nothing_is_reset_with_the_reason)
{
	const char *text = unreached[_i].target;
	struct stream *s;

	begin();
	s = open_stream(strchr(text, '%') != NULL ? port_text(free_port()) : text);
	TURN_UNTIL(stream_is_closed(s));
	ck_assert_int_eq(stream_code(s), unreached[_i].code);
	HAS(stream_reason(s), unreached[_i].reason);
	ck_assert(!stream_is_opened(s));
	stream_release(s);
	ck_assert_str_eq(captured(), ""); /* the near side reports it */
	finish();
}
END_TEST

static const struct {
	const char *target;
	bool is_port, unused;
} checked[] = {
	{ SERVE_CHECK "./missing", false, true },
	{ SERVE_CHECK "./dead", false, true },
	{ SERVE_CHECK "./live", false, false },
	{ SERVE_CHECK "localhost:%u", true, true },
	{ SERVE_CHECK "127.0.0.1:%u", true, true },
	{ SERVE_CHECK "[::1]:%u", true, true },
	{ SERVE_CHECK "192.0.2.1:%u", true, false },
	{ SERVE_CHECK "Localhost:%u", true, false },
	{ SERVE_CHECK "nonsense", false, false },
	{ SERVE_CHECK "-", false, false },
	{ SERVE_CHECK, false, false },
};

/* Nothing is connected to, and no name is looked up. */
START_TEST(an_unused_target_is_found_without_a_connection)
{
	uint16_t port = 0;
	int l = unix_listener("live", SOCK_STREAM, 4), bound = tcp_bound(AF_INET, &port);
	bool found = checked[_i].unused && (!checked[_i].is_port || os_port_is_unused(port));
	char text[64];
	struct stream *s;

	close(unix_listener("dead", SOCK_STREAM, 4));
	begin();
	snprintf(text, sizeof(text), "%s", checked[_i].target);
	if (checked[_i].is_port)
		snprintf(strchr(text, '%'), 8, "%u", (unsigned)port);
	s = open_stream(text);
	TURN_UNTIL(stream_is_closed(s));
	ck_assert_int_eq(stream_code(s), found ? MUX_REFUSED : MUX_RESET);
	ck_assert_ptr_null(kids.first);
	ck_assert_int_eq(accept(l, NULL, NULL), -1);
	stream_release(s);
	ck_assert_str_eq(captured(), "");
	finish();
	close(bound);
	unlink("live");
	unlink("dead");
}
END_TEST

/*
 * 0: no name, 1: its own, 2: another, 3: to listen, 4: to wait for a
 * connection, 5: the state of a target
 */
START_TEST(a_far_side_with_a_target_of_its_own_reaches_no_other)
{
	uint16_t port = 0;
	int l = tcp_listener(AF_INET, &port), fd;
	const char *const text[] = { "", port_text(port), "localhost:1", "=listen 0", "=accept 1",
		SERVE_CHECK "./missing" };
	struct stream *s;

	only_target = true;
	begin();
	ck_assert(endpoint_parse(&rule.to, port_text(port), false, why, sizeof(why)));
	s = open_stream(text[_i]);
	if (_i < 2) {
		fd = taken(l);
		talk_stream(s, fd);
	} else {
		TURN_UNTIL(stream_is_closed(s));
		ck_assert_int_eq(stream_code(s), MUX_FORBIDDEN);
		HAS(stream_reason(s), _i == 3 ? "does not listen" : "connects only to");
		stream_release(s);
	}
	finish();
}
END_TEST

/*
 * The far side looks a name up for the first stream, and again a minute later.
 * "Localhost" is not the name that relay knows, so a child looks it up.
 */
START_TEST(the_addresses_of_a_name_are_kept_for_a_minute)
{
	static const int64_t later[] = { 0, 59000000, 60000000 };
	uint16_t port = 0;
	int l = tcp_listener(AF_INET, &port), fd, i;
	struct addrinfo *list;
	struct stream *s;
	int64_t began;

	if (getaddrinfo("Localhost", NULL, NULL, &list) != 0) {
		printf("skipped: the resolver does not know Localhost\n");
		return;
	}
	freeaddrinfo(list);
	begin();
	turn();
	began = ps.now;
	snprintf(why, sizeof(why), "Localhost:%u", (unsigned)port);
	for (i = 0; i < 3; i++) {
		s = open_stream(why);
		cross();
		serve_streams(serve, link_far, began + later[i]);
		ck_assert_int_eq(kids.first != NULL, i != 1);
		fd = taken(l);
		talk_stream(s, fd);
		TURN_UNTIL(kids.first == NULL);
	}
	close(l);
	fds--;
	finish();
}
END_TEST

/*
 * 0: the near side closes the stream, 1: the link is lost; the far side dials.
 */
START_TEST(a_stream_that_is_given_up_ends_its_dial)
{
	struct stream *s;

	begin();
	rule.wait_us = 60000000;
	s = open_stream("./missing");
	TURN_UNTIL(far_conns.n == 1);
	if (_i == 0) {
		stream_release(s);
		finish();
	} else {
		lose_link();
		stream_release(s);
	}
}
END_TEST

/* 1: the far side has a target of its own */
START_TEST(an_echo_sends_back_what_it_reads)
{
	struct stream *s;

	only_target = _i == 1;
	begin();
	s = open_stream(SERVE_ECHO);
	if (_i == 0) {
		put_stream(s, "ping");
		comes_by(s, "ping");
		put_stream(s, "last");
		stream_shutdown(s);
		comes_by(s, "last");
	}
	TURN_UNTIL(stream_is_closed(s));
	ck_assert_int_eq(stream_code(s), _i == 0 ? MUX_END : MUX_FORBIDDEN);
	stream_release(s);
	finish();
}
END_TEST

START_TEST(an_echo_ends_with_its_stream)
{
	struct stream *s;

	begin();
	s = open_stream(SERVE_ECHO);
	put_stream(s, "ping");
	TURN_UNTIL(far_conns.n == 1);
	lose_link();
	stream_release(s);
}
END_TEST

TESTS("serve")
{
	tcase_add_unchecked_fixture(tc, enter_dir, leave_dir);
	tcase_add_loop_test(tc, a_stream_reaches_its_target, 0, 2);
	tcase_add_test(tc, many_streams_are_taken_up_at_once);
	tcase_add_test(tc, the_addresses_of_a_name_are_kept_for_a_minute);
	tcase_add_loop_test(tc, a_stream_that_reaches_nothing_is_reset_with_the_reason, 0,
	    (int)(sizeof(unreached) / sizeof(unreached[0])));
	tcase_add_loop_test(tc, a_far_side_with_a_target_of_its_own_reaches_no_other, 0, 6);
	tcase_add_loop_test(tc, an_unused_target_is_found_without_a_connection, 0,
	    (int)(sizeof(checked) / sizeof(checked[0])));
	tcase_add_loop_test(tc, a_stream_that_is_given_up_ends_its_dial, 0, 2);
	tcase_add_loop_test(tc, an_echo_sends_back_what_it_reads, 0, 2);
	tcase_add_test(tc, an_echo_ends_with_its_stream);
}
