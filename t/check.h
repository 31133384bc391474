/*
 * check.h - helpers of all unit tests
 *
 * Check runs each test in a process of its own, so a test may change any state
 * of its process.
 */
#ifndef T_CHECK_H
#define T_CHECK_H
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/*
 * Check writes the place of each assertion that holds into a file, to report
 * the last one before a crash.  Millions of them took most of the time, so each
 * line is written a hundred times at most.
 */
static inline void
mark(const char *file, int line)
{
	static unsigned char times[4096];
	unsigned char *n = &times[line % 4096];

	if (*n < 100) {
		++*n;
		_mark_point(file, line);
	}
}
#define _mark_point(file, line) mark(file, line)

/* A whole program: TESTS("name") { tcase_add_test(tc, a_rule); ... } */
#define TESTS(name)                                                                 \
	static void add_tests(TCase *tc);                                           \
	int main(void)                                                              \
	{                                                                           \
		Suite *suite = suite_create(name);                                  \
		TCase *tc = tcase_create(name);                                     \
		SRunner *runner = srunner_create(suite);                            \
		int failed;                                                         \
		/* nohup and a shell's & ignore them, and relay would keep that. */ \
		signal(SIGINT, SIG_DFL);                                            \
		signal(SIGQUIT, SIG_DFL);                                           \
		signal(SIGHUP, SIG_DFL);                                            \
		suite_add_tcase(suite, tc);                                         \
		tcase_set_timeout(tc, 15);                                          \
		add_tests(tc);                                                      \
		srunner_run_all(runner, CK_ENV);                                    \
		failed = srunner_ntests_failed(runner);                             \
		srunner_free(runner);                                               \
		return failed != 0;                                                 \
	}                                                                           \
	static void add_tests(TCase *tc)

#define MS(t) \
	(clock_gettime(CLOCK_MONOTONIC, &(t)), (int64_t)(t).tv_sec * 1000 + (t).tv_nsec / 1000000)
static inline int64_t
ms(void)
{
	struct timespec t;
	return MS(t);
}

/* Do ${work} until ${cond} holds, for 5 s at most. */
#define UNTIL(cond, work)                                                          \
	do {                                                                       \
		int64_t until_ = ms() + 5000;                                      \
		while (!(cond)) {                                                  \
			ck_assert_msg(ms() < until_, "not within 5 s: %s", #cond); \
			work;                                                      \
		}                                                                  \
	} while (0)
#define WAIT_FOR(cond) UNTIL(cond, poll(NULL, 0, 1))
#define HAS(text, part) \
	ck_assert_msg(strstr(text, part) != NULL, "\"%s\" is not in: %s", part, text)
#define HAS_NOT(text, part) \
	ck_assert_msg(strstr(text, part) == NULL, "\"%s\" is in: %s", part, text)

static inline bool
nonblocking(int fd)
{
	return (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0;
}

static inline bool
cloexec(int fd)
{
	return (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0;
}

/* A missing command is ENOENT only if each directory of PATH can be searched. */
static inline void
set_path(void)
{
	setenv("PATH", "/bin", 1);
}

static inline int
fds_open(void)
{
	int fd, n = 0;
	for (fd = 0; fd < 512; fd++)
		n += fcntl(fd, F_GETFD) != -1;
	return n;
}

/* Close all descriptors that a test has opened. */
static inline void
give_back(void)
{
	int fd;
	for (fd = 40; fd < 65536; fd++)
		close(fd);
}

static inline void
socks(int fd[2]) /* a non-blocking socket pair */
{
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	ck_assert(
	    fcntl(fd[0], F_SETFL, O_NONBLOCK) != -1 && fcntl(fd[1], F_SETFL, O_NONBLOCK) != -1);
}

/* capture(), captured(): Make stderr a file.  Return what it holds. */
static inline void
capture(void)
{
	ck_assert_int_eq(dup2(fileno(tmpfile()), 2), 2);
}

static inline const char *
captured(void)
{
	static char s[9999];
	long n = pread(2, s, 9998, 0);
	s[n > 0 ? n : 0] = 0;
	return s;
}
#endif
