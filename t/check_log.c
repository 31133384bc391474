/* check_log.c - words for people; needs log.o */
#include "check.h"

START_TEST(a_message_is_one_line_with_the_name_in_front)
{
	capture();
	log_say(LOG_ERROR, "cannot %s %d", "do", 7);
	log_say(LOG_ERROR, "%s", "");
	ck_assert_str_eq(captured(), "relay: cannot do 7\nrelay: \n");
}
END_TEST

START_TEST(a_level_shows_itself_and_what_is_graver)
{
	static const char *const seen[] = { "relay: e\n", "relay: e\nrelay: n\n", "relay: e\nrelay: n\nrelay: i\n" };

	capture();
	log_show((enum log_level)_i);
	log_say(LOG_ERROR, "e");
	log_say(LOG_NOTICE, "n");
	log_say(LOG_INFO, "i");
	ck_assert_str_eq(captured(), seen[_i]);
}
END_TEST

START_TEST(without_a_word_notices_are_shown_and_infos_are_not)
{
	capture();
	log_say(LOG_NOTICE, "n");
	log_say(LOG_INFO, "i");
	ck_assert_str_eq(captured(), "relay: n\n");
}
END_TEST

START_TEST(no_control_character_steers_the_terminal)
{
	char one[2] = { (char)_i, '\0' };
	const char *s;

	capture();
	log_say(LOG_ERROR, "%s", one);
	s = captured();
	ck_assert_uint_eq(strlen(s), strlen("relay: ?\n"));
	ck_assert_int_eq(s[7], _i < ' ' || _i == 0x7f ? '?' : (char)_i);
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

START_TEST(a_path_of_the_greatest_length_is_shown_whole)
{
	static char path[4096];

	memset(path, 'p', sizeof(path) - 1);
	capture();
	log_say(LOG_ERROR, "cannot listen on %s: %s", path, "it is in use");
	HAS(captured(), path);
	HAS(captured(), ": it is in use\n");
}
END_TEST

START_TEST(errno_is_kept_shown_or_not_and_when_writing_fails)
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

/* A reader that went away: nothing but a lost line. */
START_TEST(stderr_without_a_reader_is_harmless)
{
	int p[2];

	signal(SIGPIPE, SIG_IGN);
	ck_assert_int_eq(pipe(p), 0);
	ck_assert_int_eq(dup2(p[1], 2), 2);
	close(p[0]);
	log_say(LOG_ERROR, "nobody");
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

/* 0: a non-blocking pipe, 1: an ordinary one, 2: an ordinary socket.  Nothing blocks the loop. */
START_TEST(a_full_stderr_does_not_block_for_ever)
{
	int p[2], err = dup(2);
	int64_t began = ms();

	signal(SIGALRM, SIG_DFL);
	ck_assert_int_eq(_i == 2 ? socketpair(AF_UNIX, SOCK_STREAM, 0, p) : pipe(p), 0);
	fill(p[1], _i > 0);
	ck_assert_int_eq(dup2(p[1], 2), 2);
	alarm(3);
	log_say(LOG_ERROR, "who reads this?");
	alarm(0);
	dup2(err, 2);
	ck_assert_int_lt(ms() - began, 2000);
}
END_TEST

/* Full, and emptied while it is waited for: the line is not lost. */
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

TESTS("log")
{
	tcase_add_test(tc, a_message_is_one_line_with_the_name_in_front);
	tcase_add_loop_test(tc, a_level_shows_itself_and_what_is_graver, 0, 3);
	tcase_add_test(tc, without_a_word_notices_are_shown_and_infos_are_not);
	tcase_add_loop_test(tc, no_control_character_steers_the_terminal, 1, 128);
	tcase_add_loop_test(tc, a_long_line_is_cut_and_still_ends, 0, 60);
	tcase_add_test(tc, a_path_of_the_greatest_length_is_shown_whole);
	tcase_add_test(tc, errno_is_kept_shown_or_not_and_when_writing_fails);
	tcase_add_test(tc, stderr_without_a_reader_is_harmless);
	tcase_add_loop_test(tc, a_full_stderr_does_not_block_for_ever, 0, 3);
	tcase_add_test(tc, a_slow_reader_of_stderr_gets_the_line);
}
