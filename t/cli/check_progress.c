/* check_progress.c - what a tunnel is doing, as one line of a terminal */
#define _XOPEN_SOURCE 700 /* posix_openpt */
#include "t/all.h"
#include "t/check.h"
#include "t/terminal.h"

#include "cli/progress.c"

#define S ((int64_t)1000000)

/* A terminal without colours and a width of its own: COLUMNS is used. */
static int
columns_of(const char *columns)
{
	int fd = terminal();

	setenv("NO_COLOR", "1", 1);
	setenv("LC_ALL", "C", 1);
	setenv("COLUMNS", columns, 1);
	return fd;
}

/* What ${s} shows at ${now}, without the sequence that erases. */
static const char *
drawn(int fd, const struct step *s, int64_t now)
{
	const char *text;

	draw(s, false, now);
	text = shown_on(fd);
	return strncmp(text, "\r\033[K", 4) == 0 ? text + 4 : text;
}

START_TEST(each_frame_has_another_sign)
{
	struct step s = { .name = "node", .what = "starting relay", .began_at = S };
	int fd = columns_of("");

	ck_assert_int_eq(draw(&s, false, S), S + S / 10);
	ck_assert_str_eq(shown_on(fd), "- node  starting relay");
	ck_assert_str_eq(drawn(fd, &s, S + S / 10), "\\ node  starting relay");
	ck_assert_str_eq(drawn(fd, &s, S + S / 10 * 2), "| node  starting relay");
	ck_assert_str_eq(drawn(fd, &s, S * 2 + S / 10 * 8), "| node  starting relay  1 s");
	ck_assert_str_eq(drawn(fd, &s, S * 100), "| node  starting relay  99 s");
	log_live("");
	ck_assert_str_eq(shown_on(fd), "\r\033[K");
}
END_TEST

START_TEST(a_pause_counts_down)
{
	struct step s = { .name = "node", .what = "reconnecting in", .ends_at = 10 * S };
	int fd = columns_of("");

	ck_assert_int_eq(draw(&s, false, 2 * S), 3 * S);
	ck_assert_str_eq(shown_on(fd), ". node  reconnecting in  8 s");
	ck_assert_str_eq(drawn(fd, &s, 9 * S + 1), ". node  reconnecting in  1 s");
	ck_assert_str_eq(drawn(fd, &s, 20 * S), ". node  reconnecting in");
}
END_TEST

START_TEST(a_step_that_is_done_has_a_tick_and_its_time)
{
	static const struct {
		int64_t now;
		const char *time;
	} rows[] = { { S, "0.0 s" }, { 4 * S + S / 2, "3.5 s" }, { 11 * S - 1, "9.9 s" },
		{ 11 * S, "10 s" }, { 0, "0.0 s" } };
	struct step s = { .name = "node", .what = "relay copied", .began_at = S, .all = 1025 };
	int fd = columns_of("");
	char line[80];

	draw(&s, true, rows[_i].now);
	snprintf(line, sizeof(line), "+ node  relay copied  2 KiB  %s\r\n", rows[_i].time);
	ck_assert_str_eq(shown_on(fd), line);
}
END_TEST

START_TEST(the_bar_shows_how_much_is_done)
{
	struct step s = { .name = "n", .what = "w", .began_at = 0, .all = 100 * 1024 };
	int fd = columns_of("");

	ck_assert_str_eq(drawn(fd, &s, 0), "| n  w  ------------------------  0/100 KiB");
	s.done = 50 * 1024;
	ck_assert_str_eq(drawn(fd, &s, 4 * S / 10), "| n  w  ############------------  50/100 KiB");
	s.done = s.all;
	ck_assert_str_eq(drawn(fd, &s, 8 * S / 10), "| n  w  ########################  100/100 KiB");
}
END_TEST

/* The numbers and the start of the name are shown at each width. */
START_TEST(no_line_is_as_wide_as_the_terminal)
{
	struct step s = { .name = "a-host.with.a-long.name.example.org",
		.what = "copying relay",
		.done = 1024,
		.all = 4096 };
	const char *text, *p;
	char columns[8];
	int fd, n = 0;

	snprintf(columns, sizeof(columns), "%d", _i);
	fd = columns_of(columns);
	if (_i % 2 == 0)
		setenv("LC_ALL", "C.UTF-8", 1);
	text = drawn(fd, &s, 0);
	for (p = text; *p != '\0'; p++)
		n += ((unsigned char)*p & 0xc0) != 0x80;
	ck_assert_int_lt(n, _i);
	if (_i >= 20)
		HAS(text, " a");
	if (_i >= 36)
		HAS(text, "copying relay");
	if (_i >= 12)
		HAS(text, "  1/4 KiB");
	else
		ck_assert_ptr_null(strstr(text, "KiB"));
	ck_assert_int_eq(strstr(text, _i % 2 == 0 ? "\342\224\201" : "#") != NULL, _i >= 69);
}
END_TEST

START_TEST(a_character_of_utf8_is_one_column)
{
	struct step s = { .name = "\303\244\303\266\303\274\303\237 n\303\266de", .what = "up" };
	int fd = columns_of("14");

	setenv("LC_ALL", "de_DE.utf8", 1);
	ck_assert_str_eq(drawn(fd, &s, 0),
	    "\342\240\213 \303\244\303\266\303\274\303\237 n\342\200\246  up");
}
END_TEST

START_TEST(a_name_cannot_control_the_terminal)
{
	struct step s = { .name = "a\033]0;b\007", .what = "c\nd" };
	int fd = columns_of("");

	ck_assert_str_eq(drawn(fd, &s, 0), "| a?]0;b?  c?d");
}
END_TEST

START_TEST(utf8_is_used_if_the_locale_has_it)
{
	static const struct {
		const char *all, *ctype, *lang, *term;
		bool utf8;
	} rows[] = {
		{ "C", "C.UTF-8", "C.UTF-8", "xterm", false },
		{ "", "UTF-8", "C", "xterm", true },
		{ "", "", "de_DE.utf8@euro", "xterm", true },
		{ "en_US.ISO-8859-1", "", "", "xterm", false },
		{ "C.UTF-8", "", "", "linux", false },
		{ "", "", "", "xterm", false },
	};
	struct step s = { .name = "n", .what = "w" };
	int fd = columns_of("");

	setenv("LC_ALL", rows[_i].all, 1);
	setenv("LC_CTYPE", rows[_i].ctype, 1);
	setenv("LANG", rows[_i].lang, 1);
	setenv("TERM", rows[_i].term, 1);
	ck_assert_str_eq(drawn(fd, &s, 0), rows[_i].utf8 ? "\342\240\213 n  w" : "| n  w");
}
END_TEST

START_TEST(colours_end_in_the_line)
{
	struct step s = { .name = "n", .what = "w", .all = 1024 };
	int fd = columns_of("21");

	unsetenv("NO_COLOR");
	ck_assert_str_eq(
	    drawn(fd, &s, 0), "\033[36m|\033[0m n  w\033[2m  0/1 KiB\033[0m");
	draw(&s, true, 0);
	ck_assert_ptr_nonnull(strstr(shown_on(fd), "\033[32m+\033[0m n  w\033[2m  1 KiB"));
}
END_TEST

/* ${_i} 0: a file, 1: -q, 2: -v, 3: a dumb terminal. */
START_TEST(elsewhere_nothing_is_drawn)
{
	struct step s = { .name = "n", .what = "w" };
	int fd = columns_of("");

	if (_i == 0)
		capture();
	else if (_i == 3)
		setenv("TERM", "dumb", 1);
	else
		log_show(_i == 1 ? LOG_ERROR : LOG_INFO);
	ck_assert_int_eq(draw(&s, false, 0), INT64_MAX);
	draw(&s, true, 0);
	log_live("");
	ck_assert_str_eq(_i == 0 ? captured() : shown_on(fd), "");
}
END_TEST

TESTS("progress")
{
	tcase_add_test(tc, each_frame_has_another_sign);
	tcase_add_test(tc, a_pause_counts_down);
	tcase_add_loop_test(tc, a_step_that_is_done_has_a_tick_and_its_time, 0, 5);
	tcase_add_test(tc, the_bar_shows_how_much_is_done);
	tcase_add_loop_test(tc, no_line_is_as_wide_as_the_terminal, 4, 120);
	tcase_add_test(tc, a_character_of_utf8_is_one_column);
	tcase_add_test(tc, a_name_cannot_control_the_terminal);
	tcase_add_loop_test(tc, utf8_is_used_if_the_locale_has_it, 0, 6);
	tcase_add_test(tc, colours_end_in_the_line);
	tcase_add_loop_test(tc, elsewhere_nothing_is_drawn, 0, 4);
}
