/* check_log.c - messages, and the line below them */
#define _XOPEN_SOURCE 700 /* posix_openpt */
#include <sys/stat.h>
#include <sys/wait.h>
#include <limits.h>

#include "t/all.h"
#include "t/check.h"
#include "t/terminal.h"

START_TEST(a_message_is_one_line_that_begins_with_the_name)
{
	capture();
	log_say(LOG_ERROR, "cannot %s %d", "do", 7);
	log_say(LOG_ERROR, "%s", "");
	ck_assert_str_eq(captured(), "relay: cannot do 7\nrelay: \n");
}
END_TEST

START_TEST(output_is_not_changed_and_a_message_begins_a_line)
{
	capture();
	ck_assert_uint_eq(log_output("\033a\001\n", 4), 4);
	log_say(LOG_ERROR, "one");
	ck_assert_uint_eq(log_output("part", 4), 4);
	log_say(LOG_INFO, "not shown");
	ck_assert_uint_eq(log_output("", 0), 0);
	log_say(LOG_ERROR, "two");
	log_say(LOG_ERROR, "three");
	ck_assert_str_eq(captured(), "\033a\001\nrelay: one\npart\nrelay: two\nrelay: three\n");
}
END_TEST

START_TEST(output_waits_for_its_reader)
{
	static char much[100000];
	int fd[2];
	size_t n, sum = 0;

	ck_assert_int_eq(pipe(fd), 0);
	ck_assert_int_eq(dup2(fd[1], 2), 2);
	ck_assert_int_eq(log_descriptor(), 2);
	while ((n = log_output(much, sizeof(much))) > 0)
		sum += n;
	ck_assert_uint_gt(sum, 4000);
	ck_assert_int_gt(read(fd[0], much, sizeof(much)), 0);
	ck_assert_uint_gt(log_output(much, sizeof(much)), 0);
	signal(SIGPIPE, SIG_IGN);
	close(fd[0]);
	errno = 77;
	ck_assert_uint_gt(log_output(much, sizeof(much)), 0); /* it is lost */
	ck_assert_int_eq(errno, 77);
}
END_TEST

/* A piece ends between characters, unless it is only a part of one. */
START_TEST(output_is_cut_between_characters)
{
	static char much[PIPE_BUF + 10];
	size_t n = PIPE_BUF, at;

	capture();
	memset(much, 'x', sizeof(much));
	for (at = 0; at < 4; at++) {
		memcpy(much + n - at, "\360\237\230\200", 4);
		ck_assert_uint_eq(log_output(much, sizeof(much)), n - at);
		ck_assert_uint_eq(log_output(much, n), n - at);
		memset(much + n - at, 'x', 4);
	}
	memset(much, 0x80, sizeof(much));
	ck_assert_uint_eq(log_output(much, sizeof(much)), n);
	ck_assert_uint_eq(log_output("\360\237\230", 3), 3);
	ck_assert_uint_eq(log_output("a\360\237", 3), 1);
	ck_assert_uint_eq(log_output("a\360\237\230\200", 5), 5);
	ck_assert_uint_eq(log_output("a\303\237", 3), 3);
	ck_assert_uint_eq(log_output("\377", 1), 1);
}
END_TEST

START_TEST(a_level_includes_the_graver_ones)
{
	static const char *const seen[] = { "relay: e\n", "relay: e\nrelay: n\n",
		"relay: e\nrelay: n\nrelay: i\n" };

	capture();
	log_show((enum log_level)_i);
	log_say(LOG_ERROR, "e");
	log_say(LOG_NOTICE, "n");
	log_say(LOG_INFO, "i");
	ck_assert_str_eq(captured(), seen[_i]);
}
END_TEST

START_TEST(by_default_notices_are_shown_and_infos_are_not)
{
	capture();
	log_say(LOG_NOTICE, "n");
	log_say(LOG_INFO, "i");
	ck_assert_str_eq(captured(), "relay: n\n");
}
END_TEST

START_TEST(no_control_character_reaches_the_terminal)
{
	char one[2] = { (char)_i, '\0' };
	const char *s;

	capture();
	log_say(LOG_ERROR, "%s", one);
	s = captured();
	ck_assert_uint_eq(strlen(s), strlen("relay: ?\n"));
	ck_assert_int_eq(s[7], _i < ' ' || (_i >= 0x7f && _i < 0xa0) ? '?' : (char)_i);
}
END_TEST

START_TEST(utf8_stays_except_its_control_characters)
{
	static const struct {
		const char *text, *shown;
	} rows[] = { { "\303\237 \342\200\231 \360\237\230\200 \302\240",
			 "\303\237 \342\200\231 \360\237\230\200 \302\240" },
		{ "\302\233[31m", "\302?[31m" }, { "\303\302\233", "\303\302?" },
		{ "\340\200\233", "\340??" }, { "\300\233", "\300?" },
		{ "\360\200\200\233", "\360???" }, { "\342\200", "\342?" },
		{ "\342\200\033[m", "\342??[m" }, { "\370\210\200", "\370??" },
		{ "caf\351", "caf\351" } };
	char shown[64];

	capture();
	log_say(LOG_ERROR, "%s", rows[_i].text);
	snprintf(shown, sizeof(shown), "relay: %s\n", rows[_i].shown);
	ck_assert_str_eq(captured(), shown);
}
END_TEST

START_TEST(a_long_line_is_cut_and_still_ends)
{
	static char text[20000];
	size_t n = 6100 + (size_t)_i;
	const char *s;

	memset(text, 'x', n);
	capture();
	log_say(LOG_ERROR, "%s", text);
	log_say(LOG_ERROR, "next");
	s = captured();
	ck_assert_ptr_nonnull(strchr(s, '\n'));
	ck_assert_str_eq(strchr(s, '\n'), "\nrelay: next\n");
	ck_assert_uint_ge(strspn(s + 7, "x"), 4096);
	ck_assert_uint_eq(strspn(s + 7, "x") + 7, (size_t)(strchr(s, '\n') - s));
}
END_TEST

START_TEST(the_longest_path_is_shown_whole)
{
	static char path[4096];

	memset(path, 'p', sizeof(path) - 1);
	capture();
	log_say(LOG_ERROR, "cannot listen on %s: %s", path, "it is in use");
	HAS(captured(), path);
	HAS(captured(), ": it is in use\n");
}
END_TEST

START_TEST(errno_is_kept_even_if_the_write_fails)
{
	errno = ERANGE;
	log_say(LOG_INFO, "hidden");
	ck_assert_int_eq(errno, ERANGE);
	capture();
	log_say(LOG_ERROR, "shown");
	ck_assert_int_eq(errno, ERANGE);
	close(2);
	log_say(LOG_ERROR, "nowhere");
	ck_assert_int_eq(errno, ERANGE);
}
END_TEST

/* Only the line is lost. */
START_TEST(stderr_without_a_reader_is_harmless)
{
	int p[2];

	signal(SIGPIPE, SIG_IGN);
	ck_assert_int_eq(pipe(p), 0);
	ck_assert_int_eq(dup2(p[1], 2), 2);
	close(p[0]);
	log_say(LOG_ERROR, "lost");
}
END_TEST

static void
fill(int fd, bool block)
{
	char junk[4096] = { 0 };

	ck_assert_int_eq(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	while (write(fd, junk, sizeof(junk)) > 0)
		;
	while (write(fd, junk, 1) > 0)
		;
	if (block)
		ck_assert_int_eq(fcntl(fd, F_SETFL, 0), 0);
}

static void
ignore(int sig)
{
	(void)sig;
}

static void
signal_soon(void)
{
	struct sigaction caught = { .sa_handler = ignore };

	sigaction(SIGUSR1, &caught, NULL);
	if (fork() != 0)
		return;
	poll(NULL, 0, 30);
	kill(getppid(), SIGUSR1);
	_exit(0);
}

/*
 * ${_i} 0: a non-blocking pipe, 1: a blocking pipe, 2: a blocking socket, 3: a
 * blocking pipe, and a signal during the wait.
 */
START_TEST(a_full_stderr_does_not_block_for_ever)
{
	int p[2], err = dup(2);
	int64_t began = ms();

	signal(SIGALRM, SIG_DFL);
	ck_assert_int_eq(_i == 2 ? socketpair(AF_UNIX, SOCK_STREAM, 0, p) : pipe(p), 0);
	fill(p[1], _i > 0);
	ck_assert_int_eq(dup2(p[1], 2), 2);
	alarm(3);
	if (_i == 3)
		signal_soon();
	log_say(LOG_ERROR, "not read");
	alarm(0);
	dup2(err, 2);
	ck_assert_int_lt(ms() - began, 2000);
}
END_TEST

/* The pipe is full, and emptied during the wait. */
START_TEST(a_slow_reader_of_stderr_gets_the_line)
{
	char got[4096];
	ssize_t n, total = 0;
	int p[2], tail = 0;

	ck_assert_int_eq(pipe(p), 0);
	fill(p[1], false);
	if (fork() == 0) {
		dup2(p[1], 2);
		close(p[0]);
		close(p[1]);
		log_show(LOG_ERROR);
		log_say(LOG_ERROR, "late");
		_exit(0);
	}
	close(p[1]);
	while ((n = read(p[0], got, sizeof(got))) > 0) {
		total += n;
		tail = got[n - 1];
	}
	ck_assert_int_gt(total, 4096);
	ck_assert_int_eq(tail, '\n');
}
END_TEST

/* One signal interrupts the wait.  Then the reader reads. */
START_TEST(a_signal_does_not_drop_the_line)
{
	struct sigaction caught = { .sa_handler = ignore };
	char got[4096];
	int p[2], tail = 0, status;
	ssize_t n;
	pid_t pid;

	sigaction(SIGUSR1, &caught, NULL);
	ck_assert_int_eq(pipe(p), 0);
	fill(p[1], false);
	pid = fork();
	if (pid == 0) {
		close(p[1]);
		poll(NULL, 0, 20);
		kill(getppid(), SIGUSR1);
		poll(NULL, 0, 20);
		while ((n = read(p[0], got, sizeof(got))) > 0)
			tail = got[n - 1];
		_exit(tail);
	}
	ck_assert_int_eq(dup2(p[1], 2), 2);
	close(p[1]);
	log_say(LOG_ERROR, "late");
	close(2);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(WEXITSTATUS(status), '\n');
}
END_TEST

START_TEST(a_quote_is_the_line_of_another_program)
{
	static char text[20000];

	capture();
	errno = ERANGE;
	log_quote(LOG_ERROR, "ssh: \033[31mno\r\x7f", 0);
	log_quote(LOG_INFO, "hidden", 0);
	log_quote(LOG_NOTICE, "", 0);
	ck_assert_int_eq(errno, ERANGE);
	ck_assert_str_eq(captured(), "ssh: ?[31mno??\n\n");
	memset(text, 'x', sizeof(text) - 1);
	log_quote(LOG_ERROR, text, 0);
	log_quote(LOG_ERROR, "next", 0);
	ck_assert_str_eq(
	    strchr(captured(), 'x') + strspn(strchr(captured(), 'x'), "x"), "\nnext\n");
}
END_TEST

/* ---- a terminal ---- */

#define ERASED "\r\033[K"

START_TEST(a_live_line_stays_below_the_messages)
{
	int fd = terminal();

	errno = ERANGE;
	log_live("one");
	ck_assert_int_eq(errno, ERANGE);
	ck_assert_str_eq(shown_on(fd), "one");
	log_live("one");
	ck_assert_str_eq(shown_on(fd), "");
	log_live("two");
	ck_assert_str_eq(shown_on(fd), ERASED "two");
	log_say(LOG_INFO, "hidden");
	ck_assert_str_eq(shown_on(fd), "");
	log_say(LOG_NOTICE, "text");
	ck_assert_str_eq(shown_on(fd), ERASED "relay: text\r\ntwo");
	log_quote(LOG_ERROR, "text", 0);
	ck_assert_str_eq(shown_on(fd), ERASED "text\r\ntwo");
	log_above("done");
	ck_assert_str_eq(shown_on(fd), ERASED "done\r\ntwo");
	log_live("");
	ck_assert_str_eq(shown_on(fd), ERASED);
	log_say(LOG_NOTICE, "more");
	ck_assert_str_eq(shown_on(fd), "relay: more\r\n");
}
END_TEST

START_TEST(a_live_line_waits_for_the_end_of_the_output)
{
	int fd = terminal();

	log_live("one");
	shown_on(fd);
	ck_assert_uint_eq(log_output("a\nb", 3), 3);
	ck_assert_str_eq(shown_on(fd), ERASED "a\r\nb");
	log_live("two");
	ck_assert_str_eq(shown_on(fd), "");
	ck_assert_uint_eq(log_output("c\n", 2), 2);
	ck_assert_str_eq(shown_on(fd), "c\r\ntwo");
	log_output("d", 1);
	log_say(LOG_NOTICE, "e");
	ck_assert_str_eq(shown_on(fd), ERASED "d\r\nrelay: e\r\ntwo");
	log_output("d", 1);
	log_live("");
	ck_assert_str_eq(shown_on(fd), ERASED "d");
}
END_TEST

/*
 * The terminal is not read.  ${_i} 0: output, 1: messages.  With POLLOUT, it has
 * room for less than a write.
 */
START_TEST(a_terminal_that_is_not_read_does_not_block)
{
	struct pollfd pfd = { .fd = 2, .events = POLLOUT };
	static char much[4000];

	terminal();
	signal(SIGALRM, SIG_DFL);
	memset(much, 'x', sizeof(much) - 1);
	alarm(3);
	while (poll(&pfd, 1, 100) == 1)
		if (_i == 0)
			log_output(much, sizeof(much) - 1);
		else
			log_say(LOG_ERROR, "%s", much);
	alarm(0);
	ck_assert_int_eq(fcntl(2, F_GETFL) & O_NONBLOCK, 0);
}
END_TEST

/* What is drawn on: ${_i} 0: a terminal, 1: a file, 2: a dumb terminal, 3: a
 * terminal of unknown type, 4: a terminal with -q, 5: with -v. */
START_TEST(only_a_terminal_is_drawn_on)
{
	int fd = terminal();

	if (_i == 1)
		capture();
	else if (_i == 2)
		setenv("TERM", "dumb", 1);
	else if (_i == 3)
		unsetenv("TERM");
	else if (_i >= 4)
		log_show(_i == 4 ? LOG_ERROR : LOG_INFO);
	ck_assert_int_eq(log_on_terminal(), _i == 0);
	ck_assert_int_eq(log_in_colour(), _i == 0);
	log_say(LOG_ERROR, "cause; remedy");
	log_quote(LOG_NOTICE, "http://here -> there", 11);
	if (_i == 0)
		ck_assert_str_eq(shown_on(fd), "\033[31mrelay: cause\033[0m\r\n    remedy\r\n"
					       "\033[1;36mhttp://here\033[0m -> there\r\n");
	else if (_i == 1)
		ck_assert_str_eq(captured(), "relay: cause; remedy\nhttp://here -> there\n");
	else if (_i == 4)
		ck_assert_str_eq(shown_on(fd), "relay: cause; remedy\r\n");
	else
		ck_assert_str_eq(
		    shown_on(fd), "relay: cause; remedy\r\nhttp://here -> there\r\n");
}
END_TEST

START_TEST(without_colour_the_remedy_still_has_a_line)
{
	int fd = terminal();

	setenv("NO_COLOR", _i == 0 ? "1" : "", 1);
	ck_assert_int_eq(log_in_colour(), _i == 1);
	log_say(LOG_ERROR, "one; two; three");
	ck_assert_str_eq(shown_on(fd),
	    _i == 0 ? "relay: one; two\r\n    three\r\n"
		    : "\033[31mrelay: one; two\033[0m\r\n    three\r\n");
	log_say(LOG_NOTICE, "one; two");
	log_say(LOG_TABLE, "one; two");
	ck_assert_str_eq(shown_on(fd), "relay: one; two\r\nrelay: one; two\r\n");
}
END_TEST

/* ---- failures ---- */

START_TEST(a_repeated_failure_is_counted)
{
	int i;

	capture();
	for (i = 0; i < 4; i++) {
		log_failure(LOG_ERROR, "%s", "a; do this");
		log_failure(LOG_ERROR, "%s", "b");
	}
	ck_assert_str_eq(captured(), "relay: a; do this\nrelay: b\n");
	log_say(LOG_NOTICE, "c");
	ck_assert_str_eq(captured(),
	    "relay: a; do this\nrelay: b\n"
	    "relay: a; do this (repeated 3 times)\nrelay: b (repeated 3 times)\nrelay: c\n");
	log_counts();
	log_failure(LOG_ERROR, "b");
	log_counts();
	HAS(captured(), "c\nrelay: b (repeated 1 time)\n");
}
END_TEST

START_TEST(the_count_of_a_forgotten_failure_is_written)
{
	char text[16];
	int i;

	capture();
	log_failure(LOG_ERROR, "first");
	log_failure(LOG_ERROR, "first");
	for (i = 0; i < 8; i++) {
		snprintf(text, sizeof(text), "%d", i);
		log_failure(LOG_ERROR, "%s", text);
	}
	HAS(captured(), "relay: first (repeated 1 time)\n");
	log_failure(LOG_ERROR, "first");
	HAS(captured(), "relay: 7\nrelay: first\n");
}
END_TEST

START_TEST(each_failure_is_written_with_v)
{
	capture();
	log_show(LOG_INFO);
	log_failure(LOG_ERROR, "a");
	log_failure(LOG_ERROR, "a");
	log_counts();
	ck_assert_str_eq(captured(), "relay: a\nrelay: a\n");
}
END_TEST

/* Read the file ${path} into ${dst}. */
static const char *
text_of(const char *path, char dst[4096])
{
	FILE *f = fopen(path, "r");
	size_t n;

	ck_assert_ptr_nonnull(f);
	n = fread(dst, 1, 4095, f);
	dst[n] = '\0';
	fclose(f);
	return dst;
}

START_TEST(a_full_log_is_renamed_once)
{
	char path[] = "/tmp/relay-log-XXXXXX", old[64], text[4096];
	int i;

	close(mkstemp(path));
	snprintf(old, sizeof(old), "%s.old", path);
	capture();
	ck_assert_int_eq(log_to_file(path, 200), 0);
	ck_assert_str_eq(log_file(), path);
	for (i = 1; i <= 20; i++)
		log_say(LOG_ERROR, "message %d", i);
	ck_assert_uint_le(strlen(text_of(old, text)), 200);
	ck_assert_ptr_nonnull(strstr(text_of(path, text), "Z relay: message 20\n"));
	ck_assert_uint_le(strlen(text), 200);
	/* It does not grow if it cannot be renamed. */
	unlink(old);
	ck_assert_int_eq(mkdir(old, 0700), 0);
	for (i = 21; i <= 40; i++)
		log_say(LOG_ERROR, "message %d", i);
	ck_assert_uint_le(strlen(text_of(path, text)), 200);
	rmdir(old);
	log_say(LOG_ERROR, "at last");
	ck_assert_ptr_nonnull(strstr(text_of(path, text), "at last"));
	ck_assert_str_eq(captured(), "");
	unlink(path);
	unlink(old);
}
END_TEST

START_TEST(the_last_message_is_kept)
{
	long age;

	capture();
	log_show(LOG_INFO);
	ck_assert_str_eq(log_last(&age), "");
	log_say(LOG_NOTICE, "the link has ended\033");
	log_say(LOG_INFO, "a detail");
	ck_assert_str_eq(log_last(&age), "relay: the link has ended?");
	ck_assert_int_le(age, 1);
}
END_TEST

TESTS("log")
{
	tcase_add_test(tc, a_full_log_is_renamed_once);
	tcase_add_test(tc, the_last_message_is_kept);
	tcase_add_test(tc, a_live_line_stays_below_the_messages);
	tcase_add_test(tc, a_live_line_waits_for_the_end_of_the_output);
	tcase_add_loop_test(tc, a_terminal_that_is_not_read_does_not_block, 0, 2);
	tcase_add_loop_test(tc, only_a_terminal_is_drawn_on, 0, 6);
	tcase_add_loop_test(tc, without_colour_the_remedy_still_has_a_line, 0, 2);
	tcase_add_test(tc, a_repeated_failure_is_counted);
	tcase_add_test(tc, the_count_of_a_forgotten_failure_is_written);
	tcase_add_test(tc, each_failure_is_written_with_v);
	tcase_add_test(tc, a_quote_is_the_line_of_another_program);
	tcase_add_test(tc, a_message_is_one_line_that_begins_with_the_name);
	tcase_add_test(tc, output_is_not_changed_and_a_message_begins_a_line);
	tcase_add_test(tc, output_waits_for_its_reader);
	tcase_add_test(tc, output_is_cut_between_characters);
	tcase_add_loop_test(tc, a_level_includes_the_graver_ones, 0, 3);
	tcase_add_test(tc, by_default_notices_are_shown_and_infos_are_not);
	tcase_add_loop_test(tc, no_control_character_reaches_the_terminal, 1, 256);
	tcase_add_loop_test(tc, utf8_stays_except_its_control_characters, 0, 10);
	tcase_add_loop_test(tc, a_long_line_is_cut_and_still_ends, 0, 60);
	tcase_add_test(tc, the_longest_path_is_shown_whole);
	tcase_add_test(tc, errno_is_kept_even_if_the_write_fails);
	tcase_add_test(tc, stderr_without_a_reader_is_harmless);
	tcase_add_loop_test(tc, a_full_stderr_does_not_block_for_ever, 0, 4);
	tcase_add_test(tc, a_slow_reader_of_stderr_gets_the_line);
	tcase_add_test(tc, a_signal_does_not_drop_the_line);
}
