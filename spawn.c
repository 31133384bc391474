/*
 * spawn.c - child processes.
 *
 * A command is a child with a pipe as its stdin (a socket if it carries a link)
 * and a pipe as its stdout.  Its terminal and process group are those of relay,
 * so that ssh can ask for a password; SPAWN_ALONE differs.  Another pipe,
 * close-on-exec, carries the errno value of a failed exec.  If exec succeeds,
 * that pipe closes without data.
 *
 * The owner may release a child in any state.  A child is freed when it has
 * ended and was released.  A child that still runs gets SIGTERM after
 * GRACE_TERM, and SIGKILL GRACE_KILL later.  Signals go to the child alone,
 * because its process group is that of relay.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "base/poll.h"
#include "base/signals.h"
#include "relay.h"
#include "spawn.h"

#define GRACE_TERM 500000        /* us */
#define GRACE_KILL 2000000       /* us */
#define WIRE_SOCKET (256 * 1024) /* bytes; the default of the BSDs is 8 KiB */
#define REPORT_TRIES 100
#define NEVER INT64_MAX

struct child {
	struct children *kids;
	struct child *next;
	pid_t pid;
	int fds[3]; /* to its stdin, from its stdout and stderr; -1: none */
	int report; /* reads the errno value of exec; -1: closed */
	int slot;
	int err;         /* errno value of exec; 0: it has not failed */
	int wait_status; /* of waitpid, if ended */
	bool ended, released;
	bool failed;      /* ended by itself, and not with status 0 */
	bool signalled;   /* relay has sent a signal */
	bool captured;    /* the reader of its stderr reports a failure */
	int64_t deadline; /* of the next signal */
	char name[32];    /* "": a child of spawn_call, which is not logged */
};

/* ---- pipes ---- */

/* The pipes of a command.  As in pipe(2), [0] reads and [1] writes. */
enum { TO_STDIN, FROM_STDOUT, FROM_STDERR, REPORT, PIPES };

/* Only our end is non-blocking: programs expect a blocking stdin and stdout. */
static int
set_up(int fd[2], int ours)
{
	return fcntl(fd[!ours], F_SETFD, FD_CLOEXEC) == -1 ? -1 : os_setup(fd[ours]);
}

static int
make_pipe(int fd[2], int ours)
{
	return pipe(fd) == -1 ? -1 : set_up(fd, ours);
}

/*
 * A socket transfers up to 32 KiB at a time, a pipe one page.  A socket also
 * wakes its writer less often: only when most of its space is free again.
 */
static int
make_sockets(int fd[2], int ours)
{
	int size = WIRE_SOCKET;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == -1)
		return -1;
	setsockopt(fd[ours], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	return set_up(fd, ours);
}

static int
make_pipes(int pipes[PIPES][2], unsigned flags)
{
	if ((flags & SPAWN_WIRE) != 0 && make_sockets(pipes[TO_STDIN], 1) == -1)
		return -1;
	if ((flags & (SPAWN_WIRE | SPAWN_ALONE)) == 0 && make_pipe(pipes[TO_STDIN], 1) == -1)
		return -1;
	if (make_pipe(pipes[FROM_STDOUT], 0) == -1 || make_pipe(pipes[REPORT], 0) == -1)
		return -1;
	return (flags & SPAWN_CAPTURE) != 0 ? make_pipe(pipes[FROM_STDERR], 0) : 0;
}

/* In relay: close the ends of the child, and add it to ${kids}. */
static struct child *
keep_child(struct children *kids, struct child *c, int pipes[PIPES][2])
{
	os_close(&pipes[TO_STDIN][0]);
	os_close(&pipes[FROM_STDOUT][1]);
	os_close(&pipes[FROM_STDERR][1]);
	os_close(&pipes[REPORT][1]);
	if (pipes[TO_STDIN][1] != -1)
		os_pipe_size(pipes[TO_STDIN][1], OS_PIPE);
	if (c->name[0] != '\0') /* the output of spawn_call is short */
		os_pipe_size(pipes[FROM_STDOUT][0], OS_PIPE);
	c->fds[STDIN_FILENO] = pipes[TO_STDIN][1];
	c->fds[STDOUT_FILENO] = pipes[FROM_STDOUT][0];
	c->fds[STDERR_FILENO] = pipes[FROM_STDERR][0];
	c->report = pipes[REPORT][0];
	c->kids = kids;
	c->next = kids->first;
	kids->first = c;
	return c;
}

/* ---- starting ---- */

static struct child *
new_child(const char *name, int pipes[PIPES][2])
{
	struct child *c = calloc(1, sizeof(*c));

	if (c == NULL)
		return NULL;
	memset(pipes, -1, PIPES * sizeof(pipes[0]));
	c->slot = -1;
	c->deadline = NEVER;
	snprintf(c->name, sizeof(c->name), "%s", name);
	return c;
}

/* Undo new_child and make_pipes, and keep errno.  Return NULL. */
static struct child *
give_up(struct child *c, int pipes[PIPES][2])
{
	int i, saved = errno;

	for (i = 0; i < PIPES; i++) {
		os_close(&pipes[i][0]);
		os_close(&pipes[i][1]);
	}
	free(c);
	errno = saved;
	return NULL;
}

/* In the child: put the pipes in place of stdin, stdout and stderr. */
static bool
take_pipes(int pipes[PIPES][2], unsigned flags)
{
	bool alone = (flags & SPAWN_ALONE) != 0;
	int err = alone ? pipes[FROM_STDOUT][1] : pipes[FROM_STDERR][1];

	if ((alone ? os_null(STDIN_FILENO) : dup2(pipes[TO_STDIN][0], STDIN_FILENO)) == -1)
		return false;
	return dup2(pipes[FROM_STDOUT][1], STDOUT_FILENO) != -1 &&
	       (err == -1 || dup2(err, STDERR_FILENO) != -1);
}

/* In the child: execute ${path}, or report the errno value and exit. */
static void
exec_command(const char *path, char *const argv[], int pipes[PIPES][2], unsigned flags)
{
	int e;

	if (take_pipes(pipes, flags)) {
		os_restore_files();
		execvp(path, argv);
	}
	e = errno;
	while (write(pipes[REPORT][1], &e, sizeof(e)) == -1 && errno == EINTR)
		;
	_exit(e == ENOENT ? STATUS_NOTFOUND : STATUS_NOEXEC);
}

const char *
spawn_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash != NULL && slash[1] != '\0' ? slash + 1 : path;
}

struct child *
spawn_start(struct children *kids, const char *path, char *const argv[], unsigned flags)
{
	int pipes[PIPES][2];
	struct child *c = new_child(spawn_name(path), pipes);
	const struct sigaction ignore = { .sa_handler = SIG_IGN };
	pid_t self = getpid();

	if (c == NULL)
		return NULL;
	if (make_pipes(pipes, flags) == -1 || (c->pid = signals_fork()) == -1)
		return give_up(c, pipes);
	if (c->pid == 0) {
		os_follow(self);
		if ((flags & SPAWN_QUIET) != 0) {
			sigaction(SIGINT, &ignore, NULL);
			sigaction(SIGQUIT, &ignore, NULL);
			sigaction(SIGHUP, &ignore, NULL);
		}
		if ((flags & SPAWN_ALONE) != 0)
			setsid();
		exec_command(path, argv, pipes, flags);
	}
	c->captured = (flags & (SPAWN_CAPTURE | SPAWN_ALONE)) != 0;
	return keep_child(kids, c, pipes);
}

struct child *
spawn_call(struct children *kids, void (*run)(const void *arg, int fd), const void *arg)
{
	int pipes[PIPES][2], *from = pipes[FROM_STDOUT];
	struct child *c = new_child("", pipes);

	if (c == NULL)
		return NULL;
	if (make_pipe(from, 0) == -1 || (c->pid = signals_fork()) == -1)
		return give_up(c, pipes);
	if (c->pid == 0) {
		/* Connections that relay closes must not stay open here. */
		if (dup2(from[1], STDIN_FILENO) != -1) {
			os_close_from(STDERR_FILENO + 1);
			run(arg, STDIN_FILENO);
		}
		_exit(STATUS_SYSTEM);
	}
	return keep_child(kids, c, pipes);
}

int
spawn_take(struct child *c, int fd)
{
	int ours = c->fds[fd];

	c->fds[fd] = -1;
	return ours;
}

/* ---- running and ending ---- */

void
spawn_want(struct child *c, struct pollset *ps)
{
	c->slot = pollset_add(ps, c->report, POLLIN);
}

static void
read_report(struct child *c)
{
	ssize_t n;

	n = read(c->report, &c->err, sizeof(c->err));
	if (n == -1 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n == -1)
		c->err = errno;
	os_close(&c->report);
}

enum spawn_state
spawn_step(struct child *c, const struct pollset *ps)
{
	if (c->report != -1 && pollset_ready(ps, c->slot) != 0)
		read_report(c);
	if (c->report != -1)
		return SPAWN_STARTING;
	return c->err == 0 ? SPAWN_RUNS : SPAWN_FAILED;
}

int
spawn_exit(const struct child *c)
{
	if (!c->ended)
		return -1;
	return WIFSIGNALED(c->wait_status) ? STATUS_SIGNAL + WTERMSIG(c->wait_status)
					   : WEXITSTATUS(c->wait_status);
}

pid_t
spawn_pid(const struct child *c)
{
	return c->pid;
}

bool
spawn_owns(const struct children *kids, pid_t pid)
{
	const struct child *c;

	for (c = kids->first; c != NULL; c = c->next)
		if (c->pid == pid)
			return true;
	return false;
}

int
spawn_errno(const struct child *c)
{
	return c->err;
}

void
spawn_release(struct child *c, int64_t now)
{
	os_close(&c->fds[0]);
	os_close(&c->fds[1]);
	os_close(&c->fds[2]);
	os_close(&c->report);
	c->released = true;
	c->deadline = c->name[0] == '\0' ? now : now + GRACE_TERM;
	c->kids->due = 0;
}

/*
 * Return true if relay caused the end of ${c}.  After the release of ${c},
 * SIGPIPE comes from a pipe that relay closed.
 */
static bool
ended_by_relay(const struct child *c)
{
	return c->signalled || c->err != 0 ||
	       (c->released && WIFSIGNALED(c->wait_status) && WTERMSIG(c->wait_status) == SIGPIPE);
}

void
spawn_describe(const struct child *c, char *dst, size_t size)
{
	int sig = WIFSIGNALED(c->wait_status) ? WTERMSIG(c->wait_status) : 0;

	if (sig != 0)
		snprintf(dst, size, "was ended by signal %d (%s)", sig, strsignal(sig));
	else
		snprintf(dst, size, "exited with status %d", WEXITSTATUS(c->wait_status));
}

static void
log_end(const struct child *c)
{
	char text[128];

	spawn_describe(c, text, sizeof(text));
	if (c->failed)
		log_failure(LOG_ERROR, "%s %s", c->name, text);
	else
		log_say(LOG_INFO, "%s %s", c->name, text);
}

static void
end_child(struct child *c, int status)
{
	int tries = REPORT_TRIES;

	/*
	 * The child has ended, so the pipe holds its report or is at EOF.
	 * After an error, read again: only the report shows if exec failed.
	 */
	while (c->report != -1 && tries-- > 0)
		read_report(c);
	c->ended = true;
	c->wait_status = status;
	c->kids->due = 0;
	if (c->name[0] == '\0' || c->err != 0)
		return; /* the owner reports that exec failed */
	c->failed = status != 0 && !c->captured && !ended_by_relay(c);
	log_end(c);
}

void
spawn_reap(struct children *kids)
{
	struct child *c;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0 || (pid == -1 && errno == EINTR)) {
		for (c = kids->first; c != NULL && c->pid != pid; c = c->next)
			;
		if (c != NULL) /* NULL: started before relay was executed */
			end_child(c, status);
	}
}

void
spawn_hurry(struct children *kids, int64_t now)
{
	struct child *c;

	for (c = kids->first; c != NULL; c = c->next)
		if (c->released && c->deadline > now)
			c->deadline = now;
	kids->due = 0;
}

static void
signal_due(struct child *c, int64_t now)
{
	if (c->deadline > now)
		return;
	kill(c->pid, c->signalled ? SIGKILL : SIGTERM);
	c->deadline = c->signalled ? NEVER : now + GRACE_KILL;
	c->signalled = true;
}

int
spawn_turn(struct children *kids, struct pollset *ps)
{
	struct child **at = &kids->first, *c;
	int status = STATUS_OK;

	if (kids->due > ps->now) {
		pollset_until(ps, kids->due);
		return STATUS_OK;
	}
	kids->due = NEVER;
	while ((c = *at) != NULL) {
		if (c->ended && c->released) {
			if (c->failed)
				status = STATUS_COMMAND;
			*at = c->next;
			free(c);
			continue;
		}
		if (!c->ended) {
			signal_due(c, ps->now);
			if (c->deadline < kids->due)
				kids->due = c->deadline;
		}
		at = &c->next;
	}
	pollset_until(ps, kids->due);
	return status;
}
