/*
 * spawn.c - commands and the end of children.
 *
 * A command is a child with a pipe at its stdin (a socket, where it is the ssh of a link) and one at its stdout; stderr, the terminal and
 * the process group stay those of relay, so that ssh can ask for a password.  A third pipe, close-on-exec, tells whether exec worked:
 * an errno value, or its end.
 *
 *   starting -> runs -> ended -> forgotten       released: by its owner, at any time
 *           \-> failed (exec)
 *
 * A child is forgotten when it has ended and was released, in whichever order.  Released while it runs, it has lost its stdin and
 * stdout, which ends most programs; after GRACE_TERM it gets SIGTERM, after GRACE_KILL more SIGKILL.  Only the child itself is
 * signalled, never a group: relay's own is the terminal's.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
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

#define GRACE_TERM 500
#define GRACE_KILL 2000
#define WIRE_SOCKET (256 * 1024) /* BSD gives 8 KiB of itself */
#define REPORT_TRIES 100
#define NEVER INT64_MAX

struct child {
	struct child *next;
	struct children *kids;
	pid_t pid;
	enum spawn_state state;
	int in, out, ear; /* until they are taken; -1 */
	int report;       /* read end of the pipe that tells of exec; -1: told */
	int slot;
	int err;         /* why exec failed */
	int wait_status; /* ended: of waitpid */
	bool ended, released;
	bool failed;      /* ended, and not by relay's doing */
	bool asked;       /* relay has sent it a signal */
	bool heard;       /* whoever reads its stderr tells of its end */
	int64_t deadline; /* of the next signal */
	char name[32];    /* "": a helper of relay's own, of which nothing is told */
};

/* Only our end, ${fd[ours]}, is non-blocking: the child's is what programs expect. */
static int
set_up(int fd[2], int ours)
{
	if (fcntl(fd[!ours], F_SETFD, FD_CLOEXEC) != -1 && os_setup(fd[ours]) != -1)
		return 0;
	os_close(&fd[0]);
	os_close(&fd[1]);
	return -1;
}

static int
make_pipe(int fd[2], int ours)
{
	return pipe(fd) == -1 ? -1 : set_up(fd, ours);
}

/* A socket takes pieces of 32 KiB where a pipe takes pages, and wakes its writer only when most of it is free again. */
static int
make_sockets(int fd[2], int ours)
{
	int size = WIRE_SOCKET;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == -1)
		return -1;
	setsockopt(fd[ours], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	return set_up(fd, ours);
}

static struct child *
new_child(const char *name)
{
	struct child *c = calloc(1, sizeof(*c));

	if (c == NULL)
		return NULL;
	c->in = c->out = c->ear = c->report = c->slot = -1;
	c->deadline = NEVER;
	snprintf(c->name, sizeof(c->name), "%s", name);
	return c;
}

static void
add_child(struct children *kids, struct child *c)
{
	c->kids = kids;
	c->next = kids->first;
	kids->first = c;
}

/* In the child: become ${argv}, or write the reason into ${report}. */
static void
become(char *const argv[], int in, int out, int err, int report)
{
	int e;

	if (dup2(in, STDIN_FILENO) != -1 && dup2(out, STDOUT_FILENO) != -1 &&
	    (err == -1 || dup2(err, STDERR_FILENO) != -1)) {
		os_restore_files();
		execvp(argv[0], argv);
	}
	e = errno;
	while (write(report, &e, sizeof(e)) == -1 && errno == EINTR)
		;
	_exit(e == ENOENT ? STATUS_NOTFOUND : STATUS_NOEXEC);
}

const char *
spawn_name(char *const argv[])
{
	const char *slash = strrchr(argv[0], '/');

	return slash != NULL && slash[1] != '\0' ? slash + 1 : argv[0];
}

struct child *
spawn_start(struct children *kids, char *const argv[], unsigned how)
{
	int to[2] = { -1, -1 }, from[2] = { -1, -1 }, err[2] = { -1, -1 }, report[2] = { -1, -1 },
	    saved;
	bool heard = (how & SPAWN_HEARD) != 0;
	pid_t self = getpid();
	struct child *c;
	sigset_t old;

	c = new_child(spawn_name(argv));
	if (c == NULL)
		return NULL;
	if (((how & SPAWN_WIRE) != 0 ? make_sockets(to, 1) : make_pipe(to, 1)) == -1 ||
	    make_pipe(from, 0) == -1 || make_pipe(report, 0) == -1 ||
	    (heard && make_pipe(err, 0) == -1))
		goto fail;
	/* No handler of ours may run in the child and write to the pipe that both share. */
	signals_block(&old);
	c->pid = fork();
	if (c->pid == 0) {
		signals_child();
		os_follow(self);
		become(argv, to[0], from[1], err[1], report[1]);
	}
	saved = errno;
	signals_restore(&old);
	errno = saved;
	if (c->pid == -1)
		goto fail;
	close(to[0]);
	close(from[1]);
	close(report[1]);
	os_close(&err[1]);
	os_pipe_size(to[1], OS_PIPE);
	os_pipe_size(from[0], OS_PIPE);
	c->out = to[1];
	c->in = from[0];
	c->ear = err[0];
	c->report = report[0];
	c->heard = heard;
	c->state = SPAWN_STARTING;
	add_child(kids, c);
	return c;

fail:
	saved = errno;
	os_close(&to[0]);
	os_close(&to[1]);
	os_close(&from[0]);
	os_close(&from[1]);
	os_close(&err[0]);
	os_close(&err[1]);
	os_close(&report[0]);
	os_close(&report[1]);
	free(c);
	errno = saved;
	return NULL;
}

struct child *
spawn_call(struct children *kids, void (*run)(const void *arg, int fd), const void *arg)
{
	struct child *c = new_child("");
	int from[2], saved;
	sigset_t old;

	if (c == NULL)
		return NULL;
	if (make_pipe(from, 0) == -1)
		goto fail;
	signals_block(&old);
	c->pid = fork();
	if (c->pid == 0) {
		signals_child();
		/* Our connections must not stay open in the child after we closed them. */
		if (dup2(from[1], STDIN_FILENO) != -1) {
			os_close_from(STDERR_FILENO + 1);
			run(arg, STDIN_FILENO);
		}
		_exit(STATUS_SYSTEM);
	}
	saved = errno;
	signals_restore(&old);
	close(from[1]);
	if (c->pid == -1) {
		close(from[0]);
		errno = saved;
		goto fail;
	}
	c->in = from[0];
	c->state = SPAWN_RUNS;
	add_child(kids, c);
	return c;

fail:
	saved = errno;
	free(c);
	errno = saved;
	return NULL;
}

int
spawn_take_in(struct child *c)
{
	int fd = c->in;

	c->in = -1;
	return fd;
}

int
spawn_take_out(struct child *c)
{
	int fd = c->out;

	c->out = -1;
	return fd;
}

int
spawn_take_ear(struct child *c)
{
	int fd = c->ear;

	c->ear = -1;
	return fd;
}

void
spawn_want(struct child *c, struct pollset *ps)
{
	c->slot = pollset_add(ps, c->report, POLLIN);
}

/* Has exec been told of? */
static void
read_report(struct child *c)
{
	ssize_t n;

	if (c->state != SPAWN_STARTING || c->report == -1)
		return;
	n = read(c->report, &c->err, sizeof(c->err));
	if (n == -1 && (errno == EINTR || errno == EAGAIN))
		return;
	c->state = n == 0 ? SPAWN_RUNS : SPAWN_FAILED;
	os_close(&c->report);
}

enum spawn_state
spawn_step(struct child *c, const struct pollset *ps)
{
	if (pollset_ready(ps, c->slot) != 0)
		read_report(c);
	return c->state;
}

int
spawn_exit(const struct child *c)
{
	if (!c->ended)
		return -1;
	return WIFSIGNALED(c->wait_status) ? STATUS_SIGNAL + WTERMSIG(c->wait_status)
					   : WEXITSTATUS(c->wait_status);
}

int
spawn_errno(const struct child *c)
{
	return c->err;
}

void
spawn_release(struct child *c, int64_t now)
{
	os_close(&c->in);
	os_close(&c->out);
	os_close(&c->ear);
	os_close(&c->report);
	c->released = true;
	c->deadline = c->name[0] == '\0' ? now : now + GRACE_TERM;
	c->kids->due = 0;
}

/* Did it end in a way that relay itself brought about? */
static bool
was_ended(const struct child *c)
{
	return c->asked || c->state == SPAWN_FAILED ||
	       (c->released && WIFSIGNALED(c->wait_status) && WTERMSIG(c->wait_status) == SIGPIPE);
}

static void
tell_end(const struct child *c)
{
	enum log_level level = c->failed ? LOG_ERROR : LOG_INFO;

	if (WIFSIGNALED(c->wait_status))
		log_say(level, "%s was ended by signal %d (%s)", c->name, WTERMSIG(c->wait_status),
		    strsignal(WTERMSIG(c->wait_status)));
	else
		log_say(level, "%s exited with status %d", c->name, WEXITSTATUS(c->wait_status));
}

static void
end_child(struct child *c, int status)
{
	int tries = REPORT_TRIES;

	/* The child that wrote it has ended, so it is there or never will be: an EAGAIN now is no answer. */
	while (c->state == SPAWN_STARTING && tries-- > 0)
		read_report(c);
	c->ended = true;
	c->wait_status = status;
	c->kids->due = 0;
	if (c->name[0] == '\0' || c->state == SPAWN_FAILED)
		return; /* a helper of ours; told by whoever started it */
	c->failed = status != 0 && !c->heard && !was_ended(c);
	tell_end(c);
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
		if (c != NULL) /* else a child from before relay's own exec */
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
	kill(c->pid, c->asked ? SIGKILL : SIGTERM);
	c->deadline = c->asked ? NEVER : now + GRACE_KILL;
	c->asked = true;
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
