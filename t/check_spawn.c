/* check_spawn.c - child processes. */
#include <sys/resource.h>
#include <sys/wait.h>

#include "t/all.h"
#include "t/check.h"

static struct children kids;
static struct pollset ps;
static int status; /* of all turns */

/* One turn, as in the loop of relay. */
static void
turn(struct child *starting)
{
	int s;

	pollset_begin(&ps);
	s = spawn_turn(&kids, &ps);
	if (s != STATUS_OK)
		status = s;
	pollset_until(&ps, ps.now + 2000);
	if (starting != NULL)
		spawn_want(starting, &ps);
	ck_assert_int_eq(pollset_wait(&ps), 0);
	if (starting != NULL)
		spawn_step(starting, &ps);
	spawn_reap(&kids);
}

static struct child *
start(const char *script, const char *arg)
{
	char *argv[] = { (char *)"/bin/sh", (char *)"-c", (char *)script, (char *)arg, NULL };
	struct child *c = spawn_start(&kids, argv[0], argv, 0);

	ck_assert_ptr_nonnull(c);
	UNTIL(spawn_step(c, &ps) != SPAWN_STARTING, turn(c));
	return c;
}

/* Return all that ${script} writes to stdout. */
static const char *
output_of(const char *script)
{
	static char s[4096];
	struct child *c = start(script, NULL);
	int fd = spawn_take(c, STDOUT_FILENO);
	size_t n = 0;
	ssize_t r;

	UNTIL((r = read(fd, s + n, sizeof(s) - 1 - n)) == 0, {
		if (r > 0)
			n += (size_t)r;
		else
			poll(NULL, 0, 1);
	});
	s[n] = '\0';
	return s;
}

/* Wait until no child is left. */
static void
finish(void)
{
	UNTIL(kids.first == NULL, turn(NULL));
}

static void
set(int sig, void (*how)(int))
{
	struct sigaction sa;

	memset(&sa, 0, sizeof(sa));
	sa.sa_handler = how;
	sigaction(sig, &sa, NULL);
}

START_TEST(every_exit_status_is_logged_and_only_0_is_a_success)
{
	char code[16], line[64];
	int64_t began;
	int i;

	log_show(LOG_INFO);
	for (i = 0; i < 256; i++) {
		snprintf(code, sizeof(code), "%d", i);
		snprintf(line, sizeof(line), "relay: sh exited with status %d\n", i);
		capture();
		status = STATUS_OK;
		began = ms();
		spawn_release(start("exit $0", code), pollset_clock());
		finish();
		ck_assert_str_eq(captured(), line);
		ck_assert_int_eq(status, i == 0 ? STATUS_OK : STATUS_COMMAND);
		ck_assert_int_lt(ms() - began, 900);
	}
}
END_TEST

START_TEST(a_success_is_logged_only_with_v_and_a_failure_always)
{
	capture();
	spawn_release(start("exit 0", NULL), pollset_clock());
	finish();
	ck_assert_str_eq(captured(), "");
	log_show(LOG_ERROR);
	spawn_release(start("exit 9", NULL), pollset_clock());
	finish();
	HAS(captured(), "status 9");
}
END_TEST

START_TEST(an_end_by_a_signal_is_logged)
{
	static const int sigs[] = { SIGHUP, SIGINT, SIGQUIT, SIGABRT, SIGKILL, SIGSEGV, SIGPIPE,
		SIGALRM, SIGTERM, SIGUSR1 };
	static const struct rlimit none;
	char sig[8], line[64];

	setrlimit(RLIMIT_CORE, &none);
	snprintf(sig, sizeof(sig), "%d", sigs[_i]);
	snprintf(line, sizeof(line), "relay: sh was ended by signal %d (", sigs[_i]);
	capture();
	start("kill -$0 $$", sig);
	/* It ends before its release, so relay did not cause the end. */
	WAIT_FOR((spawn_reap(&kids), *captured() != '\0'));
	HAS(captured(), line);
	spawn_release(kids.first, pollset_clock());
	finish();
	ck_assert_int_eq(status, STATUS_COMMAND);
}
END_TEST

START_TEST(a_missing_command_is_ENOENT_and_not_logged)
{
	char *argv[] = { (char *)(_i ? "/no/such/command" : "no-such-command"), NULL };
	struct child *c;

	set_path();
	c = spawn_start(&kids, argv[0], argv, 0);
	capture();
	ck_assert_ptr_nonnull(c);
	UNTIL(spawn_step(c, &ps) != SPAWN_STARTING, {
		pollset_begin(&ps);
		spawn_want(c, &ps);
		pollset_wait(&ps);
	});
	ck_assert_int_eq(spawn_step(c, &ps), SPAWN_FAILED);
	ck_assert_int_eq(spawn_errno(c), ENOENT);
	spawn_release(c, pollset_clock());
	finish();
	ck_assert_int_eq(status, STATUS_OK);
	ck_assert_str_eq(captured(), "");
}
END_TEST

/* Its SIGCHLD may be handled in the same turn, before the report is read. */
START_TEST(a_missing_command_that_is_reaped_first_is_not_logged)
{
	char *argv[] = { (char *)"no-such-command", NULL };
	struct child *c = spawn_start(&kids, argv[0], argv, 0);
	siginfo_t info;

	capture();
	ck_assert_int_eq(waitid(P_ALL, 0, &info, WEXITED | WNOWAIT), 0);
	spawn_reap(&kids);
	UNTIL(spawn_step(c, &ps) != SPAWN_STARTING, {
		pollset_begin(&ps);
		spawn_want(c, &ps);
		pollset_wait(&ps);
	});
	spawn_release(c, pollset_clock());
	finish();
	ck_assert_int_eq(status, STATUS_OK);
	ck_assert_str_eq(captured(), "");
}
END_TEST

START_TEST(a_file_that_cannot_be_executed_is_EACCES)
{
	char *argv[] = { (char *)(_i ? "/etc/passwd" : "/tmp"), NULL };
	struct child *c = spawn_start(&kids, argv[0], argv, 0);

	UNTIL(spawn_step(c, &ps) != SPAWN_STARTING, turn(c));
	ck_assert_int_eq(spawn_step(c, &ps), SPAWN_FAILED);
	ck_assert_int_eq(spawn_errno(c), EACCES);
}
END_TEST

START_TEST(stdin_and_stdout_can_be_taken_once)
{
	struct child *c = start("read line; echo \"<$line>\"", NULL);
	int in = spawn_take(c, STDOUT_FILENO), out = spawn_take(c, STDIN_FILENO);
	char got[32];
	ssize_t n;

	ck_assert(in > 2 && out > 2 && in != out);
	ck_assert(nonblocking(in) && nonblocking(out) && cloexec(in) && cloexec(out));
	ck_assert(spawn_take(c, STDOUT_FILENO) == -1 && spawn_take(c, STDIN_FILENO) == -1);
	ck_assert_int_eq(write(out, "hello\n", 6), 6);
	WAIT_FOR((n = read(in, got, sizeof(got))) > 0);
	ck_assert_int_eq(n, 8);
	ck_assert_mem_eq(got, "<hello>\n", 8);
	spawn_release(c, pollset_clock());
	finish();
	ck_assert_int_ne(fcntl(in, F_GETFD), -1); /* a taken descriptor is not closed */
}
END_TEST

START_TEST(the_stdin_and_stdout_of_a_child_are_blocking)
{
	/* Linux shows the flags in octal; 4000 is O_NONBLOCK. */
	ck_assert_str_eq(
	    output_of("cat /proc/$$/fdinfo/[01] 2>/dev/null | grep -c 'flags:.*[4567]...$'"),
	    "0\n");
}
END_TEST

START_TEST(a_release_closes_the_descriptors_that_were_not_taken)
{
	int before = fds_open(), i;

	for (i = 0; i < 5; i++) {
		spawn_release(start("cat", NULL), pollset_clock());
		finish();
		ck_assert_int_eq(fds_open(), before);
	}
}
END_TEST

/* ---- how a child is ended; the test sets the time of the pollset ---- */

static int
turn_at(int64_t now)
{
	pollset_begin(&ps);
	ps.now = now;
	return spawn_turn(&kids, &ps);
}

START_TEST(a_released_child_gets_SIGTERM_and_later_SIGKILL)
{
	int in;
	char c;
	struct child *k = start(
	    "trap 'echo -n T' TERM; echo -n R; while :; do read x </dev/null; sleep 0.02; done",
	    NULL);

	in = spawn_take(k, STDOUT_FILENO);
	WAIT_FOR(read(in, &c, 1) == 1 && c == 'R');
	spawn_release(k, 1000000);
	turn_at(1499999);
	ck_assert_int_eq(ps.deadline, 1500000);
	poll(NULL, 0, 50); /* no signal may come in this time */
	ck_assert_int_eq(read(in, &c, 1), -1);
	turn_at(1500000);
	WAIT_FOR(read(in, &c, 1) == 1);
	ck_assert_int_eq(c, 'T');
	turn_at(3499999);
	ck_assert_int_eq(ps.deadline, 3500000);
	spawn_reap(&kids);
	ck_assert_ptr_nonnull(kids.first);
	capture();
	turn_at(3500000);
	UNTIL(kids.first == NULL, {
		spawn_reap(&kids);
		ck_assert_int_eq(turn_at(3500000), STATUS_OK);
	});
	ck_assert_str_eq(captured(), ""); /* relay caused it */
}
END_TEST

START_TEST(a_child_that_ignores_SIGTERM_is_killed)
{
	char c;
	struct child *k = start("trap '' TERM; echo R; exec sleep 100", NULL);
	int in = spawn_take(k, STDOUT_FILENO);

	WAIT_FOR(read(in, &c, 1) == 1);
	spawn_release(k, 0);
	turn_at(500000);
	ck_assert_int_eq(ps.deadline, 2500000);
	turn_at(2500000);
	ck_assert_int_eq(ps.deadline, INT64_MAX);
	WAIT_FOR(read(in, &c, 1) == 0);
	UNTIL(kids.first == NULL, {
		spawn_reap(&kids);
		turn_at(2500000);
	});
}
END_TEST

START_TEST(hurry_signals_only_released_children)
{
	struct child *b = start("exec sleep 100", NULL), *a = start("exec sleep 100", NULL);
	struct pollfd p = { .events = POLLIN };

	spawn_release(a, 1000000);
	spawn_hurry(&kids, 1001000);
	turn_at(1001000);
	UNTIL(kids.first == b, {
		spawn_reap(&kids);
		turn_at(1001000);
	});
	turn_at(1001000);
	ck_assert_ptr_eq(kids.first, b);
	ck_assert_int_eq(ps.deadline, INT64_MAX);
	p.fd = spawn_take(b, STDOUT_FILENO);
	ck_assert_int_eq(poll(&p, 1, 50), 0); /* it runs: its stdout has no end */
}
END_TEST

/* relay has closed its stdout, so SIGPIPE is not its failure. */
START_TEST(SIGPIPE_after_the_release_is_not_a_failure)
{
	capture();
	spawn_release(start("while :; do echo yes; done", NULL), pollset_clock());
	finish();
	ck_assert_str_eq(captured(), "");
	ck_assert_int_eq(status, STATUS_OK);
}
END_TEST

/* ---- what a child inherits ---- */

START_TEST(a_child_inherits_only_descriptors_0_to_2)
{
	struct child *other;
	int fd;

	for (fd = 3; fd < 256; fd++)
		if (fcntl(fd, F_GETFD) != -1)
			fcntl(fd, F_SETFD, FD_CLOEXEC); /* of Check */
	other = start("cat", NULL); /* the next child must not keep its pipes open */
	ck_assert_ptr_nonnull(other);
	ck_assert_str_eq(output_of("i=3; while [ $i -lt 100 ]; do [ -e /dev/fd/$i ] && echo $i; "
				   "i=$((i + 1)); done; echo end"),
	    "end\n");
}
END_TEST

START_TEST(a_child_has_the_signals_that_relay_found)
{
	set(SIGPIPE, _i ? SIG_IGN : SIG_DFL);
	set(SIGTERM, SIG_DFL);
	ck_assert_int_ne(signals_open(), -1);
	ck_assert_str_eq(output_of("kill -PIPE $$; echo alive"), _i ? "alive\n" : "");
	ck_assert_str_eq(output_of("kill -TERM $$; echo alive"), "");
	ck_assert_int_eq(
	    signals_take() == SIGTERM, 0); /* relay did not receive the signal of the child */
}
END_TEST

START_TEST(a_child_has_the_mask_that_relay_found)
{
	sigset_t mask;

	ck_assert_str_eq(output_of("kill -USR2 $$; echo alive"), "");
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR2);
	sigprocmask(SIG_SETMASK, &mask, NULL);
	ck_assert_int_ne(signals_open(), -1);
	ck_assert_str_eq(output_of("kill -USR2 $$; echo alive"), "alive\n");
	sigprocmask(SIG_SETMASK, NULL, &mask);
	ck_assert(!sigismember(&mask, SIGUSR2) &&
		  !sigismember(&mask, SIGTERM)); /* relay has its mask from before the fork */
}
END_TEST

START_TEST(a_child_has_relays_stderr_and_process_group)
{
	char want[32];

	snprintf(want, sizeof(want), "%ld\n", (long)getpgrp());
	ck_assert_str_eq(output_of("ps -o pgid= -p $$ | tr -d ' '"), want);
	capture();
	output_of("echo text >&2");
	ck_assert_str_eq(captured(), "text\n");
}
END_TEST

START_TEST(a_command_gets_the_limit_of_descriptors_back)
{
	struct rlimit r;

	getrlimit(RLIMIT_NOFILE, &r);
	r.rlim_cur = 77;
	setrlimit(RLIMIT_NOFILE, &r);
	os_raise_files();
	ck_assert_str_eq(output_of("ulimit -n"), "77\n");
}
END_TEST

/* ---- functions in a child ---- */

static void
helper(const void *arg, int fd)
{
	int i, n = 0;

	for (i = 3; i < 256; i++)
		n += fcntl(i, F_GETFD) != -1;
	if (n == 0 && write(fd, arg, 3) == 3)
		_exit(7);
	_exit(write(fd, "fds", 3) != 3);
}

START_TEST(a_call_runs_in_a_child_without_descriptors_and_is_not_logged)
{
	struct child *c;
	char got[4] = "";
	int fd;

	capture();
	log_show(LOG_INFO);
	c = spawn_call(&kids, helper, "abc");
	ck_assert_ptr_nonnull(c);
	fd = spawn_take(c, STDOUT_FILENO);
	ck_assert(nonblocking(fd) && cloexec(fd));
	WAIT_FOR(read(fd, got, 3) == 3);
	ck_assert_str_eq(got, "abc");
	WAIT_FOR(read(fd, got, 1) == 0);
	spawn_reap(&kids);
	spawn_release(c, pollset_clock());
	finish();
	ck_assert_int_eq(status, STATUS_OK);
	ck_assert_str_eq(captured(), "");
}
END_TEST

static void
sleeper(const void *arg, int fd)
{
	(void)arg;
	(void)fd;
	for (;;)
		pause();
}

START_TEST(a_released_call_is_ended_at_once)
{
	struct child *c;

	set(SIGTERM, SIG_DFL);
	signals_open();
	c = spawn_call(&kids, sleeper, NULL);
	spawn_release(c, 500);
	turn_at(500000);
	UNTIL(kids.first == NULL, {
		spawn_reap(&kids);
		turn_at(500000);
	});
}
END_TEST

/* ---- failures of the system ---- */

START_TEST(without_descriptors_it_fails_and_leaks_none)
{
	char *argv[] = { (char *)"true", NULL };
	int fd, last[8] = { 0 }, n = 0, i, j;

	while ((fd = dup(0)) != -1)
		last[n++ % 8] = fd;
	for (i = 0; i < 6; i++) {
		ck_assert_ptr_null(spawn_start(&kids, argv[0], argv, 0));
		ck_assert_int_eq(errno, EMFILE);
		if (i < 2)
			ck_assert_ptr_null(spawn_call(&kids, helper, NULL));
		ck_assert_ptr_null(kids.first);
		close(last[(n - 1 - i) & 7]); /* i + 1 descriptors are free: one more each time */
		for (j = 0; (fd = dup(0)) != -1; j++)
			last[(n - 1 - j) & 7] = fd;
		ck_assert_int_eq(j, i + 1);
		for (j = 0; j <= i; j++)
			close(last[(n - 1 - j) & 7]);
	}
	ck_assert_ptr_nonnull(spawn_start(&kids, argv[0], argv, 0));
}
END_TEST

START_TEST(a_child_that_relay_did_not_start_is_reaped)
{
	pid_t pid;

	spawn_reap(&kids);
	pid = fork();
	if (pid == 0)
		_exit(3);
	UNTIL(kill(pid, 0) == -1, spawn_reap(&kids));
	pollset_begin(&ps);
	ck_assert_int_eq(spawn_turn(&kids, &ps), STATUS_OK);
	ck_assert_int_eq(ps.deadline, INT64_MAX);
}
END_TEST

START_TEST(a_wire_takes_much_at_once_and_passes_its_end)
{
	static char much[100000];
	char *argv[] = { (char *)"/bin/sh", (char *)"-c", (char *)"wc -c", NULL }, got[32] = "";
	struct child *c = spawn_start(&kids, argv[0], argv, SPAWN_WIRE);
	int in, out;

	ck_assert_ptr_nonnull(c);
	UNTIL(spawn_step(c, &ps) != SPAWN_STARTING, turn(c));
	in = spawn_take(c, STDOUT_FILENO);
	out = spawn_take(c, STDIN_FILENO);
	ck_assert_int_eq(write(out, much, sizeof(much)), sizeof(much));
	close(out);
	WAIT_FOR(read(in, got, sizeof(got)) > 0);
	ck_assert_int_eq(atoi(got), sizeof(much));
	spawn_release(c, pollset_clock());
	finish();
}
END_TEST

/* stdin is /dev/null, one pipe has both outputs, and the session is its own. */
START_TEST(a_child_alone)
{
	char *argv[] = { (char *)"-name", (char *)"-c", (char *)"cat; echo $0 $$; echo err >&2; exec sleep 100", NULL };
	struct child *c = spawn_start(&kids, "/bin/sh", argv, SPAWN_ALONE);
	char got[64] = "", expected[64];
	size_t n = 0;
	ssize_t r;
	int in;

	ck_assert_ptr_nonnull(c);
	ck_assert_int_eq(spawn_take(c, STDIN_FILENO), -1);
	ck_assert_int_eq(spawn_take(c, STDERR_FILENO), -1);
	in = spawn_take(c, STDOUT_FILENO);
	snprintf(expected, sizeof(expected), "-name %d\nerr\n", (int)spawn_pid(c));
	UNTIL(n == strlen(expected), if ((r = read(in, got + n, sizeof(got) - 1 - n)) > 0) n += (size_t)r);
	ck_assert_str_eq(got, expected);
	ck_assert_int_eq(getsid(spawn_pid(c)), spawn_pid(c));
	ck_assert(spawn_owns(&kids, spawn_pid(c)) && !spawn_owns(&kids, getpid()));
	capture();
	ck_assert_int_eq(kill(-spawn_pid(c), SIGKILL), 0);
	WAIT_FOR((spawn_reap(&kids), spawn_exit(c) != -1));
	ck_assert_int_eq(spawn_exit(c), 128 + 9);
	ck_assert_str_eq(captured(), ""); /* its owner reports it */
	spawn_release(c, pollset_clock());
	close(in);
	finish();
	ck_assert_int_eq(status, STATUS_OK);
}
END_TEST

/* ---- a captured stderr ---- */

static struct child *
start_captured(const char *script, int *err_fd)
{
	char *argv[] = { (char *)"/bin/sh", (char *)"-c", (char *)script, NULL };
	struct child *c = spawn_start(&kids, argv[0], argv, SPAWN_CAPTURE);

	ck_assert_ptr_nonnull(c);
	*err_fd = spawn_take(c, STDERR_FILENO);
	ck_assert_int_eq(spawn_take(c, STDERR_FILENO), -1);
	UNTIL(spawn_step(c, &ps) != SPAWN_STARTING, turn(c));
	return c;
}

START_TEST(a_captured_stderr_goes_to_its_reader_alone)
{
	char got[32];
	ssize_t n;
	int err_fd;

	capture();
	spawn_release(start_captured("echo text >&2; echo >&1; exit 3", &err_fd), pollset_clock());
	WAIT_FOR((n = read(err_fd, got, sizeof(got))) > 0);
	ck_assert_int_eq(n, 5);
	ck_assert_mem_eq(got, "text\n", 5);
	WAIT_FOR(read(err_fd, got, sizeof(got)) == 0); /* no other process has it open */
	finish();
	ck_assert_str_eq(captured(), "");
	ck_assert_int_eq(status, STATUS_OK); /* the reader reports the failure */
}
END_TEST

/* 0: a status, 1: a signal */
START_TEST(the_end_of_a_captured_child_is_logged_with_v)
{
	struct child *c;
	int err_fd;

	log_show(LOG_INFO);
	capture();
	c = start_captured(_i == 0 ? "exit 3" : "kill -9 $$", &err_fd);
	WAIT_FOR((spawn_reap(&kids), spawn_exit(c) != -1));
	ck_assert_int_eq(spawn_exit(c), _i == 0 ? 3 : 128 + 9);
	HAS(captured(), _i == 0 ? "sh exited with status 3" : "sh was ended by signal 9");
	spawn_release(c, pollset_clock());
	finish();
	ck_assert_int_eq(status, STATUS_OK);
}
END_TEST

START_TEST(a_running_child_has_no_status)
{
	struct child *c = start("read line; exit 7", NULL);

	spawn_reap(&kids);
	ck_assert_int_eq(spawn_exit(c), -1);
	close(spawn_take(c, STDIN_FILENO));
	WAIT_FOR((spawn_reap(&kids), spawn_exit(c) != -1));
	ck_assert_int_eq(spawn_exit(c), 7);
	spawn_release(c, pollset_clock());
	finish();
}
END_TEST

TESTS("spawn")
{
	tcase_add_test(tc, a_wire_takes_much_at_once_and_passes_its_end);
	tcase_add_test(tc, a_child_alone);
	tcase_add_test(tc, a_captured_stderr_goes_to_its_reader_alone);
	tcase_add_loop_test(tc, the_end_of_a_captured_child_is_logged_with_v, 0, 2);
	tcase_add_test(tc, a_running_child_has_no_status);
	tcase_add_test(tc, every_exit_status_is_logged_and_only_0_is_a_success);
	tcase_add_test(tc, a_success_is_logged_only_with_v_and_a_failure_always);
	tcase_add_loop_test(tc, an_end_by_a_signal_is_logged, 0, 10);
	tcase_add_loop_test(tc, a_missing_command_is_ENOENT_and_not_logged, 0, 2);
	tcase_add_test(tc, a_missing_command_that_is_reaped_first_is_not_logged);
	tcase_add_loop_test(tc, a_file_that_cannot_be_executed_is_EACCES, 0, 2);
	tcase_add_test(tc, stdin_and_stdout_can_be_taken_once);
	tcase_add_test(tc, the_stdin_and_stdout_of_a_child_are_blocking);
	tcase_add_test(tc, a_release_closes_the_descriptors_that_were_not_taken);
	tcase_add_test(tc, a_released_child_gets_SIGTERM_and_later_SIGKILL);
	tcase_add_test(tc, a_child_that_ignores_SIGTERM_is_killed);
	tcase_add_test(tc, hurry_signals_only_released_children);
	tcase_add_test(tc, SIGPIPE_after_the_release_is_not_a_failure);
	tcase_add_test(tc, a_child_inherits_only_descriptors_0_to_2);
	tcase_add_loop_test(tc, a_child_has_the_signals_that_relay_found, 0, 2);
	tcase_add_test(tc, a_child_has_the_mask_that_relay_found);
	tcase_add_test(tc, a_child_has_relays_stderr_and_process_group);
	tcase_add_test(tc, a_command_gets_the_limit_of_descriptors_back);
	tcase_add_test(tc, a_call_runs_in_a_child_without_descriptors_and_is_not_logged);
	tcase_add_test(tc, a_released_call_is_ended_at_once);
	tcase_add_test(tc, without_descriptors_it_fails_and_leaks_none);
	tcase_add_test(tc, a_child_that_relay_did_not_start_is_reaped);
}
