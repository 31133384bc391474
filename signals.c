/*
 * signals.c - signals as a descriptor.
 *
 * A handler does one thing: it writes the signal's number into a pipe of our own, which the loop polls and drains like any other
 * descriptor.  Both ends are non-blocking: when the pipe is full, a signal is lost, but then the loop is about to read thousands.
 * SIGPIPE is ignored: a reader that went away is an errno here.  A stop signal that was ignored when relay began (nohup) stays
 * ignored.  What a command inherits is what relay inherited.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "relay.h"

static const int stops[] = { SIGTERM, SIGINT, SIGHUP };
static int pipe_in = -1, pipe_out = -1;
static struct sigaction old_pipe;

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

static int catch (int sig)
{
	struct sigaction sa;

	memset(&sa, 0, sizeof(sa));
	sa.sa_handler = handler;
	sigemptyset(&sa.sa_mask);
	/* No SA_RESTART: a write to a terminal that was stopped has to give way to SIGTERM. */
	return sigaction(sig, &sa, NULL);
}

int
signals_open(void)
{
	struct sigaction sa;
	int fd[2];
	size_t i;

	if (pipe(fd) == -1)
		return -1;
	pipe_in = fd[0];
	pipe_out = fd[1];
	if (os_setup(pipe_in) == -1 || os_setup(pipe_out) == -1)
		return -1;
	for (i = 0; i < sizeof(stops) / sizeof(stops[0]); i++) {
		if (sigaction(stops[i], NULL, &sa) == -1)
			return -1;
		if (sa.sa_handler != SIG_IGN && catch (stops[i]) == -1)
			return -1;
	}
	if (catch (SIGCHLD) == -1 || catch (SIGUSR1) == -1)
		return -1;
	memset(&sa, 0, sizeof(sa));
	sa.sa_handler = SIG_IGN;
	sigemptyset(&sa.sa_mask);
	if (sigaction(SIGPIPE, &sa, &old_pipe) == -1)
		return -1;
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
signals_block(sigset_t *old)
{
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, old);
}

void
signals_restore(const sigset_t *old)
{
	sigprocmask(SIG_SETMASK, old, NULL);
}

void
signals_child(const sigset_t *old)
{
	struct sigaction sa;
	size_t i;

	memset(&sa, 0, sizeof(sa));
	sa.sa_handler = SIG_DFL;
	sigemptyset(&sa.sa_mask);
	for (i = 0; i < sizeof(stops) / sizeof(stops[0]); i++) {
		struct sigaction now;

		if (sigaction(stops[i], NULL, &now) == 0 && now.sa_handler == handler)
			sigaction(stops[i], &sa, NULL);
	}
	sigaction(SIGCHLD, &sa, NULL);
	sigaction(SIGUSR1, &sa, NULL);
	sigaction(SIGPIPE, &old_pipe, NULL);
	signals_restore(old);
}
