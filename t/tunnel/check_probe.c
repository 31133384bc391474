/* check_probe.c - target probes.  t/test_probe.py tests relay -n. */
#include "t/tunnel/sides.h"

static struct forward f;

static void
probe(const char *to)
{
	char text[128];

	snprintf(text, sizeof(text), "1:%s", to);
	ck_assert(forward_parse(&f, FORWARD_NEAR, text, why, sizeof(why)));
	probe_target(&probes, link_near, &f, false);
	ck_assert_int_eq(f.state, FORWARD_ASKED);
}

/* 1: the target sends first */
START_TEST(a_probe_connects_to_its_target_and_closes)
{
	uint16_t port = 0;
	int l = tcp_listener(AF_INET, &port), fd;

	begin();
	probe(port_text(port));
	fd = taken(l);
	if (_i == 1)
		put(fd, "220 hello\r\n");
	ends(fd);
	run();
	ck_assert_int_eq(os_error(fd), 0); /* no reset follows the EOF */
	close(fd);
	TURN_UNTIL(f.state == FORWARD_READY);
	finish();
	ck_assert_str_eq(captured(), "");
}
END_TEST

START_TEST(a_probe_without_a_target_is_refused)
{
	begin();
	probe("./missing");
	TURN_UNTIL(f.state != FORWARD_ASKED);
	ck_assert_int_eq(f.state, FORWARD_REFUSED);
	HAS(captured(), "relay: node: cannot connect to ./missing");
	finish();
}
END_TEST

START_TEST(a_probe_waits_as_long_as_the_far_side_waits)
{
	int l, fd;

	begin();
	rule.wait_us = 10000000;
	probe("./soon");
	run();
	ck_assert_int_eq(f.state, FORWARD_ASKED);
	l = unix_listener("soon", SOCK_STREAM, 4);
	fd = taken(l);
	ends(fd);
	close(fd);
	close(l);
	unlink("soon");
	TURN_UNTIL(f.state == FORWARD_READY);
	finish();
}
END_TEST

/* 1: the far side is connecting */
START_TEST(a_probe_is_refused_when_the_link_is_lost)
{
	begin();
	rule.wait_us = 60000000;
	probe("./missing");
	if (_i == 1)
		TURN_UNTIL(far_conns.n == 1);
	lose_link();
	ck_assert_int_eq(f.state, FORWARD_REFUSED);
	ck_assert_str_eq(captured(), ""); /* tunnel.c logs the loss of the link */
}
END_TEST

START_TEST(a_probe_is_refused_if_no_stream_can_be_opened)
{
	begin();
	ck_assert(forward_parse(&f, FORWARD_NEAR, "1:x:1", why, sizeof(why)));
	mux_lost(link_near, 0, MUX_RESET, "");
	probe_target(&probes, link_near, &f, false);
	ck_assert_int_eq(f.state, FORWARD_REFUSED);
	HAS(captured(), "cannot test x:1 on node: ");
	lose_link();
}
END_TEST

static void
check(struct forward *forward, const char *text)
{
	ck_assert(forward_parse(forward, FORWARD_NEAR, text, why, sizeof(why)));
	probe_check(&probes, link_near, forward);
	ck_assert_int_eq(forward->state, FORWARD_DOWN);
}

START_TEST(a_check_logs_each_target_that_is_unused)
{
	static struct forward of[3];
	int l = unix_listener("used", SOCK_STREAM, 4);

	begin();
	check(&of[0], "1:./none");
	check(&of[1], "1:./used");
	check(&of[2], "1:./nowhere");
	finish();
	ck_assert_int_eq(accept(l, NULL, NULL), -1);
	ck_assert_str_eq(captured(),
	    "relay: node: no process listens on ./none yet; connections work when one does\n"
	    "relay: node: no process listens on ./nowhere yet; connections work when one does\n");
	unlink("used");
}
END_TEST

/* 0: the far side connects, 1: the link is lost, 2: no stream can be opened */
START_TEST(a_check_without_an_answer_logs_nothing)
{
	struct stream *s;

	begin();
	if (_i == 2)
		mux_lost(link_near, 0, MUX_RESET, "");
	check(&f, "1:./none");
	if (_i == 0) {
		cross();
		s = mux_accept(link_far);
		ck_assert_ptr_nonnull(s);
		stream_accept(s);
		TURN_UNTIL(probes.first == NULL);
		stream_release(s);
		finish();
	} else {
		lose_link();
	}
	ck_assert_str_eq(captured(), "");
}
END_TEST

TESTS("probe")
{
	tcase_add_unchecked_fixture(tc, enter_dir, leave_dir);
	tcase_add_loop_test(tc, a_probe_connects_to_its_target_and_closes, 0, 2);
	tcase_add_test(tc, a_probe_without_a_target_is_refused);
	tcase_add_test(tc, a_probe_waits_as_long_as_the_far_side_waits);
	tcase_add_loop_test(tc, a_probe_is_refused_when_the_link_is_lost, 0, 2);
	tcase_add_test(tc, a_probe_is_refused_if_no_stream_can_be_opened);
	tcase_add_test(tc, a_check_logs_each_target_that_is_unused);
	tcase_add_loop_test(tc, a_check_without_an_answer_logs_nothing, 0, 3);
}
