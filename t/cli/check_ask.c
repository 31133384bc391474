/* check_ask.c - the reports of -O, and the directory of control sockets */
#include <sys/stat.h>

#include "t/all.h"
#include "t/check.h"

static const char report[] = "pid         77\n"
			     "state       up\n"
			     "hops        login -> node\n"
			     "listens     127.0.0.1:8888\n"
			     "listens     [::1]:8888\n"
			     "listens     /tmp/a b.sock\n"
			     "listens     localhost:9999\n"
			     "listens     10.0.0.5:7777\n"
			     "event       3 s ago: relay: pid         1\n";

START_TEST(a_field_is_found_by_key_and_number)
{
	static const struct {
		const char *key;
		int nth;
		const char *value; /* NULL: none */
	} rows[] = { { "pid", 0, "77" }, { "pid", 1, NULL }, { "hops", 0, "login -> node" },
		{ "listens", 1, "[::1]:8888" }, { "listens", 2, "/tmp/a b.sock" },
		{ "listens", 5, NULL }, { "event", 0, "3 s ago: relay: pid         1" },
		{ "p", 0, NULL }, { "relay:", 0, NULL }, { "", 0, NULL } };
	char value[64] = "x";

	ck_assert_int_eq(ask_field(report, rows[_i].key, rows[_i].nth, value, sizeof(value)),
	    rows[_i].value != NULL);
	ck_assert_str_eq(value, rows[_i].value != NULL ? rows[_i].value : "");
}
END_TEST

START_TEST(a_damaged_report_is_harmless)
{
	static const char *const texts[] = { "", "\n", "\n\n\n", "pid", "pid\n", "pid ", "pid \n",
		"pid x" };
	char value[2];

	ask_field(texts[_i], "pid", 0, value, sizeof(value));
	ck_assert_uint_le(strlen(value), 1);
	ck_assert(!ask_is_named(texts[_i], "77"));
}
END_TEST

START_TEST(a_relay_has_these_names)
{
	static const struct {
		const char *name;
		bool is;
	} rows[] = { { "77", false }, { "8888", true }, { "127.0.0.1:8888", true },
		{ "[::1]:8888", true }, { "localhost:8888", true }, { "*:8888", true },
		{ "localhost:9999", true }, { "127.0.0.1:9999", true }, { "[::1]:9999", true },
		{ "0.0.0.0:8888", false }, { "127.0.0.2:9999", false },
		{ "/tmp/a b.sock", true }, { "", false }, { "7", false }, { "888", false },
		{ "88880", false }, { "127.0.0.2:8888", false }, { "localhost:77", false },
		{ "10.0.0.5:7777", true }, { "7777", true }, { "localhost:7777", false },
		{ "*:7777", false }, { ":8888", false }, { "up", false }, { "/tmp/a", false }, { "/", false } };

	ck_assert_int_eq(ask_is_named(report, rows[_i].name), rows[_i].is);
}
END_TEST

START_TEST(a_file_name_has_host_and_pid)
{
	char host[65] = "", path[CACHE_PATH], name[256];

	gethostname(host, sizeof(host) - 1);
	cache_file("/d", 77, "sock", path);
	snprintf(name, sizeof(name), "/d/%s.77.sock", host);
	ck_assert_str_eq(path, name);
	ck_assert_int_eq(cache_pid(path + 3, "sock"), 77);
	ck_assert_int_eq(cache_pid(path + 3, "log"), 0);
}
END_TEST

START_TEST(other_file_names_are_left_out)
{
	static const char *const ends[] = { "", ".", ".sock", "..sock", ".0.sock", ".-7.sock",
		".+7.sock", ". 7.sock", ".7", ".7.", ".7.sock2", ".7x.sock", "x.7.sock" };
	char host[65] = "", name[256];

	gethostname(host, sizeof(host) - 1);
	snprintf(name, sizeof(name), "%s%s", host, ends[_i]);
	ck_assert_int_eq(cache_pid(name, "sock"), 0);
	ck_assert_int_eq(cache_pid(ends[_i], "sock"), 0);
}
END_TEST

START_TEST(a_long_directory_is_refused)
{
	char dir[CACHE_PATH], path[CACHE_PATH], why[CACHE_PATH];

	memset(dir, 'd', sizeof(dir) - 1);
	dir[0] = '/';
	dir[sizeof(dir) - 1] = '\0';
	setenv("XDG_CACHE_HOME", dir, 1);
	ck_assert(!cache_dir(0, true, path, why));
}
END_TEST

START_TEST(a_directory_is_made_with_its_parent)
{
	char base[] = "/tmp/relay-cache-XXXXXX", cache[64], dir[CACHE_PATH], why[CACHE_PATH];
	struct stat st;

	ck_assert_ptr_nonnull(mkdtemp(base));
	snprintf(cache, sizeof(cache), "%s/a", base);
	setenv("XDG_CACHE_HOME", cache, 1);
	umask(0);
	ck_assert(!cache_dir(0, false, dir, why));
	ck_assert(cache_dir(0, true, dir, why));
	ck_assert(cache_dir(0, true, dir, why));
	ck_assert_int_eq(stat(dir, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0700);
	ck_assert_int_eq(chmod(dir, 0701), 0);
	ck_assert(!cache_dir(0, true, dir, why));
	rmdir(dir);
	rmdir(cache);
	rmdir(base);
}
END_TEST

START_TEST(relative_directories_are_ignored)
{
	char dir[CACHE_PATH], why[CACHE_PATH];

	setenv("XDG_CACHE_HOME", "cache", 1);
	unsetenv("HOME");
	ck_assert(!cache_dir(0, true, dir, why));
	setenv("HOME", "home", 1);
	ck_assert(!cache_dir(0, true, dir, why));
}
END_TEST

TESTS("ask")
{
	tcase_add_loop_test(tc, a_field_is_found_by_key_and_number, 0, 10);
	tcase_add_loop_test(tc, a_damaged_report_is_harmless, 0, 8);
	tcase_add_loop_test(tc, a_relay_has_these_names, 0, 26);
	tcase_add_test(tc, a_file_name_has_host_and_pid);
	tcase_add_loop_test(tc, other_file_names_are_left_out, 0, 13);
	tcase_add_test(tc, a_long_directory_is_refused);
	tcase_add_test(tc, a_directory_is_made_with_its_parent);
	tcase_add_test(tc, relative_directories_are_ignored);
}
