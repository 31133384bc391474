/* check_endpoint.c - the ends that the command line names. */
#include "t/all.h"
#include "t/check.h"

static char why[512];

static const struct {
	const char *text;
	bool listens;
	enum endpoint_kind kind;
	const char *host; /* or path */
	uint16_t port;
	const char *name;
} right[] = {
	{ "8888", true, ENDPOINT_TCP, "localhost", 8888, "localhost:8888" },
	{ "8888", false, ENDPOINT_TCP, "localhost", 8888, "localhost:8888" },
	{ "0", true, ENDPOINT_TCP, "localhost", 0, "localhost:0" },
	{ "1", false, ENDPOINT_TCP, "localhost", 1, "localhost:1" },
	{ "65535", true, ENDPOINT_TCP, "localhost", 65535, "localhost:65535" },
	{ "00080", true, ENDPOINT_TCP, "localhost", 80, "localhost:80" },
	{ "http", true, ENDPOINT_TCP, "localhost", 80, "localhost:80" },
	{ "node:http", false, ENDPOINT_TCP, "node", 80, "node:80" },
	{ "localhost:8888", true, ENDPOINT_TCP, "localhost", 8888, "localhost:8888" },
	{ "10.0.0.5:80", false, ENDPOINT_TCP, "10.0.0.5", 80, "10.0.0.5:80" },
	{ "[::1]:80", true, ENDPOINT_TCP, "::1", 80, "[::1]:80" },
	{ "[fe80::1%eth0]:80", false, ENDPOINT_TCP, "fe80::1%eth0", 80, "[fe80::1%eth0]:80" },
	{ "[::]:0", true, ENDPOINT_TCP, "::", 0, "[::]:0" },
	{ "*:80", true, ENDPOINT_TCP, "*", 80, "*:80" },
	{ "/tmp/x.sock", true, ENDPOINT_UNIX, "/tmp/x.sock", 0, "/tmp/x.sock" },
	{ "./8888", false, ENDPOINT_UNIX, "./8888", 0, "./8888" },
	{ "a/b:80", false, ENDPOINT_UNIX, "a/b:80", 0, "a/b:80" },
	{ "/x y", false, ENDPOINT_UNIX, "/x y", 0, "/x y" },
	{ "./-", false, ENDPOINT_UNIX, "./-", 0, "./-" },
	{ "-", true, ENDPOINT_STDIO, "", 0, "stdio" },
	{ "-", false, ENDPOINT_STDIO, "", 0, "stdio" },
};

START_TEST(a_right_text_is_read_and_named)
{
	struct endpoint ep;
	char name[ENDPOINT_NAME];

	ck_assert_msg(endpoint_parse(&ep, right[_i].text, right[_i].listens, why, sizeof(why)),
	    "%s: %s", right[_i].text, why);
	ck_assert_int_eq(ep.kind, right[_i].kind);
	ck_assert_str_eq(ep.kind == ENDPOINT_UNIX ? ep.path : ep.host, right[_i].host);
	ck_assert_uint_eq(ep.port, right[_i].port);
	ck_assert_ptr_eq(endpoint_name(&ep, name, sizeof(name)), name);
	ck_assert_str_eq(name, right[_i].name);
}
END_TEST

/* A wrong text, a part of the error, and the example in it. */
static const struct {
	const char *text;
	bool listens;
	const char *wrong, *shown;
} wrong[] = {
	{ "", true, "empty", "localhost:8888" },
	{ "65536", true, "65535", "localhost:8888" },
	{ "70000", false, "not a port", "localhost:8888" },
	{ "99999999999999999999", true, "not a port", "localhost:8888" },
	{ "localhost:4294967376", false, "not a port", "localhost:8888" },
	{ "0", false, "port 0", "localhost:8888" },
	{ "localhost:0", false, "port 0", "localhost:8888" },
	{ "localhost:", true, "not a port", "localhost:8888" },
	{ "localhost: 80", true, "not a port", "localhost:8888" },
	{ "localhost:-80", true, "not a port", "localhost:8888" },
	{ "localhost:+80", true, "not a port", "localhost:8888" },
	{ "localhost:0x50", true, "not a port", "localhost:8888" },
	{ "localhost:80x", true, "not a port", "localhost:8888" },
	{ "localhost:no-such-service", false, "no-such-service", "localhost:8888" },
	{ "app.sock", true, "neither a port", "./app.sock" },
	{ "localhost", false, "neither a port", "./localhost" },
	{ "*", true, "neither a port", "./*" },
	{ "--", true, "neither a port", "./--" },
	{ ":8888", true, "no host", "localhost:8888" },
	{ ":8888", true, "no host", "*:8888" },
	{ ":8888", false, "no host", "localhost:8888" },
	{ "*:80", false, "can only be listened on", "localhost:8888" },
	{ "::1:80", true, "brackets", "[::1]:8888" },
	{ "::1", true, "brackets", "[::1]:8888" },
	{ "[::1]", true, "brackets", "[::1]:8888" },
	{ "[::1:80", true, "brackets", "[::1]:8888" },
	{ "[]:80", true, "brackets", "[::1]:8888" },
	{ "[::1]80:80", true, "brackets", "[::1]:8888" },
	{ "a:b:80", false, "brackets", "[::1]:8888" },
	{ "/", true, "directory", "/app.sock" },
	{ "/tmp/", true, "directory", "/tmp/app.sock" },
};

START_TEST(a_wrong_text_is_refused_with_a_right_one)
{
	struct endpoint ep;

	ck_assert_msg(!endpoint_parse(&ep, wrong[_i].text, wrong[_i].listens, why, sizeof(why)),
	    "taken: %s", wrong[_i].text);
	HAS(why, wrong[_i].wrong);
	HAS(why, wrong[_i].shown);
	HAS(why, wrong[_i].text);
	HAS_NOT(why, "\n");
}
END_TEST

/* relay cannot connect to *:8888. */
START_TEST(the_example_for_a_target_has_no_star)
{
	struct endpoint ep;

	ck_assert(!endpoint_parse(&ep, ":8888", false, why, sizeof(why)));
	HAS_NOT(why, "*:");
}
END_TEST

START_TEST(a_host_that_does_not_fit_is_refused)
{
	char text[400];
	struct endpoint ep;
	size_t n;

	for (n = 1; n < 300; n++) {
		memset(text, 'h', n);
		strcpy(text + n, ":80");
		ck_assert_int_eq(
		    endpoint_parse(&ep, text, false, why, sizeof(why)), n < ENDPOINT_HOST);
		if (n < ENDPOINT_HOST)
			ck_assert_uint_eq(strlen(ep.host), n);
		else
			HAS(why, "253");
	}
}
END_TEST

START_TEST(a_path_has_less_than_UNIXPATH_MAX_bytes)
{
	static char text[UNIXPATH_MAX + 2];
	struct endpoint ep;

	memset(text, 'p', UNIXPATH_MAX);
	text[0] = '/';
	ck_assert(!endpoint_parse(&ep, text, true, why, sizeof(why)));
	HAS(why, "4095");
	text[UNIXPATH_MAX - 1] = '\0';
	ck_assert(endpoint_parse(&ep, text, true, why, sizeof(why)));
	ck_assert_ptr_eq(ep.path, text);
}
END_TEST

START_TEST(an_error_fits_its_buffer)
{
	char small[16 + 1];
	struct endpoint ep;
	size_t i;

	for (i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		memset(small, '#', sizeof(small));
		ck_assert(!endpoint_parse(&ep, wrong[i].text, wrong[i].listens, small, 16));
		ck_assert_int_eq(small[16], '#');
		ck_assert(memchr(small, '\0', 16) != NULL);
	}
}
END_TEST

START_TEST(a_longer_name_is_cut)
{
	static char text[1000], name[ENDPOINT_NAME + 1];
	struct endpoint ep;

	memset(text, 'p', sizeof(text) - 1);
	text[0] = '/';
	name[ENDPOINT_NAME] = '#';
	ck_assert(endpoint_parse(&ep, text, true, why, sizeof(why)));
	ck_assert_uint_eq(strlen(endpoint_name(&ep, name, ENDPOINT_NAME)), ENDPOINT_NAME - 1);
	ck_assert_int_eq(name[ENDPOINT_NAME], '#');
}
END_TEST

START_TEST(a_command_is_named_without_its_directory)
{
	static const char *const table[][2] = { { "ssh", "ssh" }, { "/usr/bin/ssh", "ssh" },
		{ "./x", "x" }, { "/", "/" }, { "d/", "d/" } };
	char name[ENDPOINT_NAME], word[32];
	char *argv[2] = { word, NULL };
	struct endpoint ep;
	size_t i;

	for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		strcpy(word, table[i][0]);
		endpoint_command(&ep, argv);
		ck_assert_int_eq(ep.kind, ENDPOINT_COMMAND);
		ck_assert_ptr_eq(ep.argv, argv);
		ck_assert_str_eq(endpoint_name(&ep, name, sizeof(name)), table[i][1]);
	}
}
END_TEST

TESTS("endpoint")
{
	tcase_add_loop_test(
	    tc, a_right_text_is_read_and_named, 0, sizeof(right) / sizeof(right[0]));
	tcase_add_loop_test(
	    tc, a_wrong_text_is_refused_with_a_right_one, 0, sizeof(wrong) / sizeof(wrong[0]));
	tcase_add_test(tc, the_example_for_a_target_has_no_star);
	tcase_add_test(tc, a_host_that_does_not_fit_is_refused);
	tcase_add_test(tc, a_path_has_less_than_UNIXPATH_MAX_bytes);
	tcase_add_test(tc, an_error_fits_its_buffer);
	tcase_add_test(tc, a_longer_name_is_cut);
	tcase_add_test(tc, a_command_is_named_without_its_directory);
}
