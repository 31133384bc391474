/*
 * base/signals.c - signals as a descriptor.
 *
 * The handler only writes the number of the signal into a pipe, which the loop
 * polls.  Both ends are non-blocking.  A signal is lost only if thousands of
 * unread signals fill the pipe.
 *
 * SIGPIPE and SIGXFSZ are ignored, so write(2) fails with EPIPE or EFBIG.  The
 * others stay ignored if they were at the start (nohup).  The loop needs SIGCHLD
 * and SIGTERM, so no signal stays blocked.
 */
#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "base/os.h"
#include "base/signals.h"

static const int signals[] = { SIGTERM, SIGINT, SIGHUP, SIGCHLD, SIGUSR1, SIGPIPE, SIGXFSZ };
#define COUNT (sizeof(signals) / sizeof(signals[0]))
#define STOP 3  /* the first ones stop relay, unless they are ignored already */
#define CATCH 5 /* the first ones are caught, the others are ignored */

static struct sigaction found[COUNT]; /* at the start of relay */
static sigset_t found_blocked;
static int pipe_in = -1, pipe_out = -1;

static void
handler(int sig)
{
	unsigned char c = (unsigned char)sig;
	int saved = errno;
	ssize_t n;

	n = write(pipe_out, &c, 1);
	(void)n;
	errno = saved;
}

/* No SA_RESTART: SIGTERM must interrupt a write to a stopped terminal. */
static int
set(int sig, void (*to)(int))
{
	struct sigaction sa = { .sa_handler = to };

	sigemptyset(&sa.sa_mask);
	return sigaction(sig, &sa, NULL);
}

int
signals_open(void)
{
	sigset_t none;
	int fd[2];
	size_t i;

	if (pipe(fd) == -1)
		return -1;
	pipe_in = fd[0];
	pipe_out = fd[1];
	if (os_setup(pipe_in) == -1 || os_setup(pipe_out) == -1)
		return -1;
	for (i = 0; i < COUNT; i++) {
		if (sigaction(signals[i], NULL, &found[i]) == -1)
			return -1;
		if (i < STOP && found[i].sa_handler == SIG_IGN)
			continue;
		if (set(signals[i], i < CATCH ? handler : SIG_IGN) == -1)
			return -1;
	}
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, &found_blocked);
	return pipe_in;
}

int
signals_take(void)
{
	unsigned char c;
	ssize_t n;

	do
		n = read(pipe_in, &c, 1);
	while (n == -1 && errno == EINTR);
	return n == 1 ? c : 0;
}

void
signals_child(void)
{
	size_t i;

	for (i = 0; i < COUNT; i++)
		sigaction(signals[i], &found[i], NULL);
	sigprocmask(SIG_SETMASK, &found_blocked, NULL);
}

/* In the child, the handler would write to the pipe that both processes share. */
pid_t
signals_fork(void)
{
	sigset_t all, old;
	pid_t pid;
	int saved;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &old);
	pid = fork();
	if (pid == 0) {
		signals_child();
		return 0;
	}
	saved = errno;
	sigprocmask(SIG_SETMASK, &old, NULL);
	errno = saved;
	return pid;
}
