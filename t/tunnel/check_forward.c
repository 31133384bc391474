/* check_forward.c - -L, -R, -D and -W: how they are parsed, kept and logged. */
#include "t/all.h"
#include "t/check.h"

static struct forward f;
static char why[512];

static bool
parse_into(char kind, const char *text, size_t size)
{
	free(f.from_text);
	free(f.to_text);
	why[0] = '\0';
	return forward_parse(&f, kind, text, why, size);
}

static bool
parse(char kind, const char *text)
{
	return parse_into(kind, text, sizeof(why));
}

static const char *
name(const struct endpoint *ep)
{
	static char text[2][ENDPOINT_NAME];
	static int i;

	i = !i;
	return endpoint_name(ep, text[i], sizeof(text[i]));
}

/* SOURCE and TARGET as text, and as endpoints. */
static const struct {
	const char *text, *from_text, *to_text, *from, *to;
} both[] = {
	{ "8888:localhost:8888", "8888", "localhost:8888", "localhost:8888", "localhost:8888" },
	{ "8888:node:80", "8888", "node:80", "localhost:8888", "node:80" },
	{ "0:node:80", "0", "node:80", "localhost:0", "node:80" },
	{ "8888:10.0.0.5:80", "8888", "10.0.0.5:80", "localhost:8888", "10.0.0.5:80" },
	{ "8888:[::1]:80", "8888", "[::1]:80", "localhost:8888", "[::1]:80" },
	{ "8888:[fe80::1%eth0]:80", "8888", "[fe80::1%eth0]:80", "localhost:8888", "[fe80::1%eth0]:80" },
	{ "127.0.0.1:8888:node:80", "127.0.0.1:8888", "node:80", "127.0.0.1:8888", "node:80" },
	{ "localhost:8888:node:80", "localhost:8888", "node:80", "localhost:8888", "node:80" },
	{ "*:8888:node:80", "*:8888", "node:80", "*:8888", "node:80" },
	{ "[::1]:8888:node:80", "[::1]:8888", "node:80", "[::1]:8888", "node:80" },
	{ "[::1]:8888:[::2]:80", "[::1]:8888", "[::2]:80", "[::1]:8888", "[::2]:80" },
	{ "*:8888:[::2]:80", "*:8888", "[::2]:80", "*:8888", "[::2]:80" },
	{ "8888:/run/app.sock", "8888", "/run/app.sock", "localhost:8888", "/run/app.sock" },
	{ "8888:./app.sock", "8888", "./app.sock", "localhost:8888", "./app.sock" },
	{ "8888:/a:b:c/d:e", "8888", "/a:b:c/d:e", "localhost:8888", "/a:b:c/d:e" },
	{ "*:8888:/run/app.sock", "*:8888", "/run/app.sock", "*:8888", "/run/app.sock" },
	{ "*:8888:/a:b", "*:8888", "/a:b", "*:8888", "/a:b" },
	{ "[::1]:8888:/run/app.sock", "[::1]:8888", "/run/app.sock", "[::1]:8888", "/run/app.sock" },
	{ "127.0.0.1:8888:./a", "127.0.0.1:8888", "./a", "127.0.0.1:8888", "./a" },
	{ "/run/a.sock:node:80", "/run/a.sock", "node:80", "/run/a.sock", "node:80" },
	{ "./a.sock:[::1]:80", "./a.sock", "[::1]:80", "./a.sock", "[::1]:80" },
	{ "/run/a.sock:/run/b.sock", "/run/a.sock", "/run/b.sock", "/run/a.sock", "/run/b.sock" },
	{ "/a:/b:c:d", "/a", "/b:c:d", "/a", "/b:c:d" },
	{ "/a b:/c d", "/a b", "/c d", "/a b", "/c d" },
	{ "[a/b:node:80", "[a/b", "node:80", "[a/b", "node:80" },
	{ "http:node:https", "http", "node:https", "localhost:80", "node:443" },
};
#define BOTH ((int)(sizeof(both) / sizeof(both[0])))

START_TEST(source_and_target_are_separated)
{
	static const char kinds[] = { FORWARD_NEAR, FORWARD_FAR };
	char text[100];
	int i;

	for (i = 0; i < 2; i++) {
		snprintf(text, sizeof(text), "%s", both[_i].text);
		ck_assert_msg(parse(kinds[i], text), "%s: %s", text, why);
		memset(text, '#', sizeof(text)); /* nothing is borrowed */
		ck_assert_int_eq(f.kind, kinds[i]);
		ck_assert_str_eq(f.from_text, both[_i].from_text);
		ck_assert_str_eq(f.to_text, both[_i].to_text);
		ck_assert_str_eq(name(&f.from), both[_i].from);
		ck_assert_str_eq(name(&f.to.to), both[_i].to);
		ck_assert_int_eq(f.state, FORWARD_DOWN);
		ck_assert_str_eq(why, "");
	}
}
END_TEST

/* What is wrong, and a part of the message. */
static const struct {
	char kind;
	const char *text, *part;
} wrong[] = {
	{ 'L', "", "expected SOURCE:TARGET" },
	{ 'L', "8888", "expected SOURCE:TARGET" },
	{ 'L', "8888:", "expected SOURCE:TARGET" },
	{ 'L', ":", "expected SOURCE:TARGET" },
	{ 'L', "8888:8080", "TO lacks a host: write -L 8888:localhost:8080" },
	{ 'L', "127.0.0.1:8888:8080", "write -L 127.0.0.1:8888:localhost:8080" },
	{ 'R', "*:8888:8080", "write -R *:8888:localhost:8080" },
	{ 'L', "[::1]:8888:8080", "write -L [::1]:8888:localhost:8080" },
	{ 'L', "8888:node", "expected SOURCE:TARGET" },
	{ 'L', "/a", "expected SOURCE:TARGET" },
	{ 'L', "[::1]:8888", "expected SOURCE:TARGET" },
	{ 'L', "[::1:8888:node:80", "expected SOURCE:TARGET" },
	{ 'L', "8888:[::1]", "expected SOURCE:TARGET" },
	{ 'L', "8888:[::1]80", "expected SOURCE:TARGET" },
	{ 'L', "-:node:80", "expected SOURCE:TARGET" },
	{ 'L', "/a:-", "expected SOURCE:TARGET" },
	{ 'L', "8888:-:80:", "not a port" },
	{ 'L', "8888:node:", "\"\" is not a port" },
	{ 'L', "8888:node:0", "port 0" },
	{ 'L', "8888:node:65536", "not a port" },
	{ 'L', "99999:node:80", "not a port" },
	{ 'L', "8888:*:80", "can only be listened on" },
	{ 'L', "8888::80", "has no host" },
	{ 'L', ":8888:node:80", "*:8888 is every address" },
	{ 'L', ":node:80", "expected SOURCE:TARGET" },
	{ 'L', "8888:::1:80", "not a port" },
	{ 'L', "1:2:3:4:5", "needs brackets" },
	{ 'L', "node:8888:/a/", "names a directory" },
	{ 'L', "/a/:node:80", "names a directory" },
	{ 'L', "nosuch:node:80", "neither a port" },
	{ 'L', "/a:node", "neither a port" },
	{ 'L', "/a:", "expected SOURCE:TARGET" },
	{ 'R', "8888", "-R 8888:/home/me/app.sock" },
	{ 'R', "8888:node:0", "port 0" },
	{ 'D', "", "empty" },
	{ 'D', "-", "as in -D 1080" },
	{ 'D', ":1080", "has no host" },
	{ 'D', "1080:", "not a port" },
	{ 'D', "::1:1080", "needs brackets" },
	{ 'D', "/a/", "names a directory" },
	{ 'W', "", "empty" },
	{ 'W', "-", "as in -W node:22" },
	{ 'W', "node", "neither a port" },
	{ 'W', "node:", "not a port" },
	{ 'W', "node:0", "port 0" },
	{ 'W', "*:22", "can only be listened on" },
	{ 'W', "::1:22", "needs brackets" },
};
#define WRONG ((int)(sizeof(wrong) / sizeof(wrong[0])))

START_TEST(a_wrong_forward_is_reported_with_an_example)
{
	size_t size;
	char whole[sizeof(why)];

	ck_assert_msg(!parse(wrong[_i].kind, wrong[_i].text), "-%c %s: %s %s", wrong[_i].kind, wrong[_i].text, f.from_text, f.to_text);
	HAS(why, wrong[_i].part);
	HAS_NOT(why, "\n");
	ck_assert(strstr(why, "8888") != NULL || strstr(why, "1080") != NULL || strstr(why, ":22") != NULL ||
		  strstr(why, "app.sock") != NULL || strstr(why, "./") != NULL);
	strcpy(whole, why);
	for (size = 1; size < 30; size++) {
		memset(why, '#', sizeof(why));
		ck_assert(!parse_into(wrong[_i].kind, wrong[_i].text, size));
		ck_assert_uint_eq(strlen(why), size - 1);
		ck_assert_mem_eq(why, whole, size - 1);
	}
}
END_TEST

START_TEST(the_message_names_the_option)
{
	char kind = "LRDW"[_i];

	ck_assert(!parse(kind, _i < 2 ? "8888" : "-"));
	ck_assert_int_eq(why[0], '-');
	ck_assert_int_eq(why[1], kind);
}
END_TEST

START_TEST(a_proxy_listens)
{
	static const char *const text[][2] = { { "1080", "localhost:1080" }, { "*:1080", "*:1080" }, { "0", "localhost:0" },
		{ "[::1]:1080", "[::1]:1080" }, { "127.0.0.1:1080", "127.0.0.1:1080" }, { "./proxy.sock", "./proxy.sock" },
		{ "socks", "localhost:1080" } };

	ck_assert_msg(parse(FORWARD_SOCKS, text[_i][0]), "%s", why);
	ck_assert_int_eq(f.kind, FORWARD_SOCKS);
	ck_assert_str_eq(f.from_text, text[_i][0]);
	ck_assert_str_eq(name(&f.from), text[_i][1]);
}
END_TEST

START_TEST(stdio_goes_to_a_target)
{
	static const char *const text[][2] = { { "node:22", "node:22" }, { "22", "localhost:22" }, { "[::1]:22", "[::1]:22" },
		{ "/run/ssh.sock", "/run/ssh.sock" }, { "node:ssh", "node:22" } };

	ck_assert_msg(parse(FORWARD_STDIO, text[_i][0]), "%s", why);
	ck_assert_int_eq(f.kind, FORWARD_STDIO);
	ck_assert_int_eq(f.from.kind, ENDPOINT_STDIO);
	ck_assert_str_eq(f.to_text, text[_i][0]);
	ck_assert_str_eq(name(&f.to.to), text[_i][1]);
}
END_TEST

/* ---- how they are logged ---- */

static const struct {
	char kind;
	const char *text, *bound, *part;
} logged[] = {
	{ 'L', "8888:node:80", "127.0.0.1:8888", "http://localhost:8888 -> a -> b:node:80\n" },
	{ 'L', "8888:/home/me/x.sock", "[::1]:8888", "http://localhost:8888 -> a -> b:/home/me/x.sock\n" },
	{ 'L', "*:8888:node:80", "0.0.0.0:8888", "http://0.0.0.0:8888 -> a -> b:node:80\n" },
	{ 'L', "*:8888:node:80", "[::]:8888", "http://[::]:8888 -> a -> b:node:80\n" },
	{ 'L', "10.0.0.5:8888:node:80", "10.0.0.5:8888", "http://10.0.0.5:8888 -> a -> b:node:80\n" },
	{ 'L', "./x:node:80", "./x", "./x -> a -> b:node:80\n" },
	{ 'L', "./x:node:80", "./x:8", "./x:8 -> a -> b:node:80\n" },
	{ 'D', "1080", "127.0.0.1:1080", "socks5h://localhost:1080 -> a -> b\n" },
	{ 'D', "*:1080", "0.0.0.0:1080", "socks5h://0.0.0.0:1080 -> a -> b\n" },
	{ 'D', "./x", "./x", "./x -> a -> b\n" },
	{ 'R', "8888:node:80", "127.0.0.1:8888", "a -> b:127.0.0.1:8888 -> here:node:80\n" },
	{ 'R', "/x:./y", "/x", "a -> b:/x -> here:./y\n" },
	{ 'W', "node:22", "-", "" },
};
#define LOGGED ((int)(sizeof(logged) / sizeof(logged[0])))

START_TEST(a_forward_is_logged_in_one_line)
{
	ck_assert_msg(parse(logged[_i].kind, logged[_i].text), "%s", why);
	capture();
	forward_log(&f, logged[_i].bound, "a -> b");
	ck_assert_str_eq(captured(), logged[_i].part);
	log_show(LOG_ERROR);
	forward_log(&f, logged[_i].bound, "a -> b");
	ck_assert_str_eq(captured(), logged[_i].part);
}
END_TEST

/*
 * What -R asked for, the addresses there, and what it asks for the next time.
 */
static const struct {
	const char *text, *bound, *next;
} kept[] = {
	{ "0:/a", "127.0.0.1:4711\n[::1]:4711\n\n", "localhost:4711" },
	{ "localhost:0:/a", "[::1]:4711\n\n", "localhost:4711" },
	{ "127.0.0.1:0:/a", "127.0.0.1:65535\n\n", "127.0.0.1:65535" },
	{ "[::1]:0:/a", "[::1]:1\n\n", "[::1]:1" },
	{ "*:0:/a", "[::]:4711\n0.0.0.0:4711\n\n", "*:4711" },
	{ "8888:/a", "127.0.0.1:4711\n\n", "8888" },
	{ "/there:/a", "/there\n\n", "/there" },
	{ "/there:0:/a", "/there:0\n\n", "/there" },
	/* No relay sends these. */
	{ "0:/a", "\n", "0" },
	{ "0:/a", "127.0.0.1:47", "0" },
	{ "0:/a", "127.0.0.1:4711\n", "0" },
	{ "0:/a", "127.0.0.1\n127.0.0.1:4711\n\n", "0" },
	{ "0:/a", "127.0.0.1:\n127.0.0.1:4711\n\n", "0" },
	{ "0:/a", "127.0.0.1:65536\n\n", "0" },
	{ "0:/a", "127.0.0.1:-1\n\n", "0" },
};
#define KEPT ((int)(sizeof(kept) / sizeof(kept[0])))

START_TEST(a_port_that_was_picked_is_kept)
{
	ck_assert_msg(parse(FORWARD_FAR, kept[_i].text), "%s", why);
	snprintf(f.bound, sizeof(f.bound), "%s", kept[_i].bound);
	forward_keep_port(&f);
	ck_assert_str_eq(f.from_text, kept[_i].next);
	forward_keep_port(&f);
	ck_assert_str_eq(f.from_text, kept[_i].next);
}
END_TEST

START_TEST(the_longest_paths_are_logged)
{
	static char text[2 * UNIXPATH_MAX], path[UNIXPATH_MAX];

	memset(path, 'p', sizeof(path) - 1);
	path[0] = '/';
	snprintf(text, sizeof(text), "%s:/q", path);
	ck_assert(parse(FORWARD_NEAR, text));
	capture();
	forward_log(&f, path, "a");
	HAS(captured(), path);
	HAS(captured(), "p -> a:/q\n");
}
END_TEST

TESTS("forward")
{
	tcase_add_loop_test(tc, source_and_target_are_separated, 0, BOTH);
	tcase_add_loop_test(tc, a_wrong_forward_is_reported_with_an_example, 0, WRONG);
	tcase_add_loop_test(tc, the_message_names_the_option, 0, 4);
	tcase_add_loop_test(tc, a_proxy_listens, 0, 7);
	tcase_add_loop_test(tc, stdio_goes_to_a_target, 0, 5);
	tcase_add_loop_test(tc, a_forward_is_logged_in_one_line, 0, LOGGED);
	tcase_add_loop_test(tc, a_port_that_was_picked_is_kept, 0, KEPT);
	tcase_add_test(tc, the_longest_paths_are_logged);
}
