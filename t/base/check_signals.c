/* check_signals.c - signals as a descriptor */
#include <pthread.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "t/all.h"
#include "t/check.h"

static bool
readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) == 1;
}

static void
set(int sig, void (*how)(int))
{
	struct sigaction sa;

	memset(&sa, 0, sizeof(sa));
	sa.sa_handler = how;
	ck_assert_int_eq(sigaction(sig, &sa, NULL), 0);
}

static bool
is_set(int sig, void (*how)(int))
{
	struct sigaction sa;

	return sigaction(sig, NULL, &sa) == 0 && sa.sa_handler == how;
}

START_TEST(each_caught_signal_is_read_from_the_descriptor)
{
	static const int caught[] = { SIGTERM, SIGINT, SIGHUP, SIGCHLD, SIGUSR1 };
	int fd = signals_open();

	ck_assert(nonblocking(fd) && cloexec(fd));
	ck_assert_int_eq(signals_take(), 0);
	ck_assert(!readable(fd));
	raise(caught[_i]);
	ck_assert(readable(fd));
	ck_assert_int_eq(signals_take(), caught[_i]);
	ck_assert_int_eq(signals_take(), 0);
	ck_assert(!readable(fd));
}
END_TEST

START_TEST(signals_keep_their_order)
{
	signals_open();
	raise(SIGCHLD);
	raise(SIGTERM);
	raise(SIGCHLD);
	ck_assert_int_eq(signals_take(), SIGCHLD);
	ck_assert_int_eq(signals_take(), SIGTERM);
	ck_assert_int_eq(signals_take(), SIGCHLD);
}
END_TEST

START_TEST(the_handler_keeps_errno_and_does_not_block_when_the_pipe_is_full)
{
	int i, n = 0;

	signals_open();
	errno = ERANGE;
	for (i = 0; i < 70000; i++)
		raise(SIGUSR1);
	ck_assert_int_eq(errno, ERANGE);
	while (signals_take() == SIGUSR1)
		n++;
	ck_assert_int_ge(n, 1000);
}
END_TEST

START_TEST(a_write_without_a_reader_is_an_errno)
{
	int p[2];

	signals_open();
	ck_assert_int_eq(pipe(p), 0);
	close(p[0]);
	ck_assert_int_eq(write(p[1], "x", 1), -1);
	ck_assert_int_eq(errno, EPIPE);
}
END_TEST

START_TEST(a_file_at_its_size_limit_is_an_errno)
{
	struct rlimit most = { 100, 100 };
	int fd = fileno(tmpfile()), status;
	char room[200] = "";

	set(SIGXFSZ, SIG_DFL);
	signals_open();
	if (fork() == 0) { /* Check writes files too */
		if (setrlimit(RLIMIT_FSIZE, &most) == -1 || write(fd, room, sizeof(room)) != 100)
			_exit(1);
		_exit(write(fd, room, 1) == -1 && errno == EFBIG ? 0 : 2);
	}
	ck_assert_int_ne(wait(&status), -1);
	ck_assert_int_eq(status, 0);
}
END_TEST

/* As under nohup. */
START_TEST(a_stop_signal_that_was_ignored_stays_ignored)
{
	set(SIGHUP, SIG_IGN);
	set(SIGINT, SIG_IGN);
	signals_open();
	raise(SIGHUP);
	raise(SIGINT);
	ck_assert_int_eq(signals_take(), 0);
	raise(SIGTERM);
	ck_assert_int_eq(signals_take(), SIGTERM);
}
END_TEST

/* If SIGCHLD is ignored, the system removes children before waitpid(2). */
START_TEST(SIGCHLD_is_caught_even_if_it_was_ignored)
{
	set(SIGCHLD, SIG_IGN);
	signals_open();
	raise(SIGCHLD);
	ck_assert_int_eq(signals_take(), SIGCHLD);
}
END_TEST

/* A blocked write(2) returns EINTR. */
START_TEST(a_caught_signal_interrupts)
{
	char c;
	int p[2];

	signals_open();
	ck_assert_int_eq(pipe(p), 0);
	if (fork() == 0) {
		for (;;) {
			poll(NULL, 0, 20);
			kill(getppid(), SIGTERM);
		}
	}
	ck_assert_int_eq(read(p[0], &c, 1), -1);
	ck_assert_int_eq(errno, EINTR);
}
END_TEST

static void
raise_at_fork(void)
{
	raise(SIGTERM);
	ck_assert_int_eq(signals_take(), 0);
}

START_TEST(no_signal_is_caught_during_a_fork)
{
	sigset_t old, now;

	signals_open();
	signal(SIGCHLD, SIG_DFL); /* the child may end first */
	sigemptyset(&old);
	sigaddset(&old, SIGUSR2);
	sigprocmask(SIG_SETMASK, &old, NULL);
	ck_assert_int_eq(pthread_atfork(raise_at_fork, NULL, NULL), 0);
	if (signals_fork() == 0)
		_exit(0);
	ck_assert_int_eq(signals_take(), SIGTERM);
	sigprocmask(SIG_SETMASK, NULL, &now);
	ck_assert(sigismember(&now, SIGUSR2));
	ck_assert(!sigismember(&now, SIGTERM));
}
END_TEST

/* Run ${look} in a child. */
static int
in_child(int (*look)(void))
{
	int status;
	pid_t pid = signals_fork();

	if (pid == 0)
		_exit(look());
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int
all_default(void)
{
	static const int sigs[] = { SIGTERM, SIGINT, SIGHUP, SIGCHLD, SIGUSR1, SIGPIPE, SIGXFSZ };
	sigset_t now;
	size_t i;

	sigprocmask(SIG_SETMASK, NULL, &now);
	for (i = 0; i < sizeof(sigs) / sizeof(sigs[0]); i++)
		if (!is_set(sigs[i], SIG_DFL) || sigismember(&now, sigs[i]))
			return sigs[i];
	return 0;
}

START_TEST(a_child_has_defaults_where_relay_found_defaults)
{
	set(SIGPIPE, SIG_DFL);
	set(SIGTERM, SIG_DFL); /* Check catches these two itself */
	set(SIGINT, SIG_DFL);
	signals_open();
	ck_assert_int_eq(in_child(all_default), 0);
}
END_TEST

static const int inherited[] = { SIGTERM, SIGINT, SIGHUP, SIGPIPE, SIGUSR1, SIGCHLD, SIGXFSZ };
static int which;

static int
still_ignored(void)
{
	return is_set(inherited[which], SIG_IGN) ? 0 : 1;
}

START_TEST(a_child_ignores_what_relay_found_ignored)
{
	which = _i;
	set(inherited[_i], SIG_IGN);
	signals_open();
	ck_assert_msg(
	    in_child(still_ignored) == 0, "signal %d is not ignored any more", inherited[_i]);
}
END_TEST

static int
still_blocked(void)
{
	sigset_t now;

	sigprocmask(SIG_SETMASK, NULL, &now);
	return sigismember(&now, SIGCHLD) && sigismember(&now, SIGUSR2) &&
		       !sigismember(&now, SIGHUP)
		   ? 0
		   : 1;
}

START_TEST(a_signal_that_was_blocked_is_caught_and_a_child_has_it_blocked)
{
	sigset_t blocked;

	sigemptyset(&blocked);
	sigaddset(&blocked, SIGCHLD);
	sigaddset(&blocked, SIGUSR2);
	sigprocmask(SIG_SETMASK, &blocked, NULL);
	signals_open();
	raise(SIGCHLD);
	ck_assert_int_eq(signals_take(), SIGCHLD);
	ck_assert_int_eq(in_child(still_blocked), 0);
}
END_TEST

START_TEST(no_free_descriptor_is_an_error)
{
	int fd;

	while ((fd = dup(0)) != -1)
		;
	ck_assert_int_eq(signals_open(), -1);
	ck_assert_int_eq(errno, EMFILE);
	give_back();
}
END_TEST

TESTS("signals")
{
	tcase_add_loop_test(tc, each_caught_signal_is_read_from_the_descriptor, 0, 5);
	tcase_add_test(tc, signals_keep_their_order);
	tcase_add_test(tc, the_handler_keeps_errno_and_does_not_block_when_the_pipe_is_full);
	tcase_add_test(tc, a_write_without_a_reader_is_an_errno);
	tcase_add_test(tc, a_file_at_its_size_limit_is_an_errno);
	tcase_add_test(tc, a_stop_signal_that_was_ignored_stays_ignored);
	tcase_add_test(tc, SIGCHLD_is_caught_even_if_it_was_ignored);
	tcase_add_test(tc, a_caught_signal_interrupts);
	tcase_add_test(tc, no_signal_is_caught_during_a_fork);
	tcase_add_test(tc, a_child_has_defaults_where_relay_found_defaults);
	tcase_add_loop_test(tc, a_child_ignores_what_relay_found_ignored, 0, 7);
	tcase_add_test(tc, a_signal_that_was_blocked_is_caught_and_a_child_has_it_blocked);
	tcase_add_test(tc, no_free_descriptor_is_an_error);
}
