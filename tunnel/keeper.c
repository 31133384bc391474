/* tunnel/keeper.c - the far side of a session outlives its channel. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "base/poll.h"
#include "base/signals.h"
#include "base/tree.h"
#include "mux/greeting.h"
#include "mux/mux.h"
#include "conn/fdpair.h"
#include "relay.h"
#include "tunnel/keeper.h"

#define PARENT "/tmp"
#define PREFIX "relay-"
#define DIR_SIZE (sizeof(PARENT "/" PREFIX) + 2 * TREE_ID)
#define ANSWER 255    /* bytes, at most */
#define PLACE_MOST 60 /* s, from the directory to its socket */

/* In us. */
#define JOIN_MOST 15000000 /* for the near greeting, and for a busy keeper */
#define PAUSE 20000        /* before a keeper that was busy is tried again */

struct keeper {
	unsigned char id[MUX_SESSION];
	uint32_t seconds;
	char dir[DIR_SIZE];
	bool placed;  /* dir was made */
	int fd, slot; /* receives claims */
	struct {
		int fd, slot; /* to the process that waits; -1: none */
		int err;      /* stderr of its channel; -1: none, or in use */
	} waiter[MUX_SLOTS];  /* of each slot of the mux */
	unsigned stderr_slot; /* stderr is that of its channel */
};

/* ---- the place of a session ---- */

/* The socket in ${dir}. */
static struct sockaddr_un
address_of(const char *dir)
{
	struct sockaddr_un sa;

	memset(&sa, 0, sizeof(sa));
	sa.sun_family = AF_UNIX;
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/s", dir);
	return sa;
}

static int
new_socket(void)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

	if (fd != -1 && os_setup(fd) == -1)
		os_close(&fd);
	return fd;
}

/* If ${dir} was removed, another user can have made a link of its name. */
static void
remove_place(const char *dir)
{
	int fd = -1;

	if (os_own_dir(dir))
		fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd == -1)
		return;
	unlinkat(fd, "s", 0);
	close(fd);
	rmdir(dir);
}

static bool
make_place(struct keeper *k)
{
	struct sockaddr_un sa;

	k->fd = new_socket();
	if (k->fd == -1 || !os_random(k->id, sizeof(k->id)))
		return false;
	k->placed = tree_make(k->dir, sizeof(k->dir), PARENT "/" PREFIX, k->id);
	sa = address_of(k->dir);
	return k->placed && bind(k->fd, (struct sockaddr *)&sa, sizeof(sa)) == 0;
}

/* ---- the process that waits ---- */

/*
 * Return the status that the keeper sends.  -1: the keeper has ended without
 * it, or the channel ${out} has lost its reader first.  ${out} -1: no channel.
 */
static int
wait_for_status(int fd, int out)
{
	/* macOS does not watch a descriptor without events. */
	struct pollfd p[2] = { { .fd = fd, .events = POLLIN }, { .fd = out, .events = POLLHUP } };
	unsigned char status;
	ssize_t n = -1;

	while (n == -1) {
		if (poll(p, 2, -1) > 0 && p[0].revents == 0)
			return -1;
		if (p[0].revents != 0)
			n = read(fd, &status, 1);
		if (n == -1 && errno != EINTR && errno != EAGAIN)
			break;
	}
	return n == 1 ? status : -1;
}

/*
 * The first process.  It closes the channel, so that the keeper alone decides
 * when the channel ends.
 */
static void
be_waiter(int fd, pid_t keeper)
{
	int status, wstatus;

	signals_child();
	os_null(STDIN_FILENO);
	os_null(STDOUT_FILENO);
	os_null(STDERR_FILENO);
	status = wait_for_status(fd, -1);
	if (status == -1 && waitpid(keeper, &wstatus, 0) == keeper)
		status =
		    WIFEXITED(wstatus) ? WEXITSTATUS(wstatus) : STATUS_SIGNAL + WTERMSIG(wstatus);
	_exit(status == -1 ? STATUS_LINK : status);
}

/* ---- the first process ---- */

static uint32_t
limit_seconds(int64_t seconds)
{
	const char *text = getenv("RELAY_KEEP");
	char *end;
	long most;

	if (text == NULL || *text == '\0')
		return (uint32_t)seconds;
	most = strtol(text, &end, 10);
	if (*end == '\0' && most >= 0)
		return (uint32_t)(seconds < most ? seconds : most);
	log_say(LOG_NOTICE,
	    "connections end with the line: RELAY_KEEP=%.20s on the last hop must be a number of "
	    "seconds",
	    text);
	return 0;
}

static struct keeper *
new_keeper(uint32_t seconds)
{
	struct keeper *k = calloc(1, sizeof(*k));
	int i;

	if (k == NULL)
		return NULL;
	k->seconds = seconds;
	k->fd = k->slot = -1;
	for (i = 0; i < MUX_SLOTS; i++)
		k->waiter[i].fd = k->waiter[i].slot = k->waiter[i].err = -1;
	return k;
}

/* Fork.  The parent does not return.  False: no child, with errno set. */
static bool
divide(struct keeper *k)
{
	int fd[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == -1)
		return false;
	k->waiter[0].fd = fd[1];
	pid = os_setup(fd[1]) == -1 ? -1 : fork();
	if (pid > 0) {
		close(fd[1]);
		be_waiter(fd[0], pid);
	}
	os_close(&fd[0]);
	if (pid == 0)
		setsid();
	return pid == 0;
}

struct keeper *
keeper_start(int64_t seconds)
{
	uint32_t keeps = limit_seconds(seconds);
	struct keeper *k;

	if (keeps == 0)
		return NULL;
	k = new_keeper(keeps);
	if (k != NULL && make_place(k) && divide(k))
		return k;
	log_say(LOG_NOTICE, "connections end with the line: the last hop cannot keep a session: %s",
	    strerror(errno));
	keeper_free(k);
	return NULL;
}

void
keeper_keep(const struct keeper *k, struct mux *m)
{
	mux_keep(m, k->seconds, k->id);
}

/* ---- claims ---- */

void
keeper_want(struct keeper *k, struct pollset *ps)
{
	int i;

	k->slot = pollset_add(ps, k->fd, POLLIN);
	for (i = 0; i < MUX_SLOTS; i++)
		k->waiter[i].slot = pollset_add(ps, k->waiter[i].fd, POLLIN);
}

bool
keeper_lost(struct keeper *k, unsigned slot, const struct pollset *ps)
{
	return k->waiter[slot].fd != -1 && pollset_ready(ps, k->waiter[slot].slot) != 0;
}

static bool
read_question(struct keeper_claim *c)
{
	const char *text = (const char *)c->greeting;
	bool ends = strncmp(text, KEEPER_END, strlen(KEEPER_END)) == 0;

	c->end_after = ends ? strtol(text + strlen(KEEPER_END), NULL, 10) : -1;
	return ends || strncmp(text, KEEPER_LIST, strlen(KEEPER_LIST)) == 0;
}

bool
keeper_take(struct keeper *k, const struct pollset *ps, struct keeper_claim *c)
{
	int i, n = KEEPER_FDS;
	ssize_t got;

	if (pollset_ready(ps, k->slot) == 0)
		return false;
	got = os_recv_fds(k->fd, c->greeting, KEEPER_GREETING, c->fd, &n);
	c->n = got > 0 ? (size_t)got : 0;
	c->greeting[c->n] = '\0';
	c->is_question = n == 1 && read_question(c);
	if (c->is_question)
		return true;
	if (got >= 0 && n == KEEPER_FDS && os_setup(c->fd[STDIN_FILENO]) != -1 &&
	    os_setup(c->fd[STDOUT_FILENO]) != -1 && os_setup(c->fd[KEEPER_WAITER]) != -1)
		return true;
	for (i = 0; i < n; i++)
		close(c->fd[i]);
	return false;
}

/* Messages go to the channel of ${slot} from now on. */
static void
use_stderr(struct keeper *k, unsigned slot)
{
	k->stderr_slot = slot;
	dup2(k->waiter[slot].err, STDERR_FILENO);
	dup2(k->waiter[slot].err, STDOUT_FILENO); /* as in transport.c: for stray output */
	os_close(&k->waiter[slot].err);
}

void
keeper_accept(struct keeper *k, unsigned slot, struct keeper_claim *c, bool is_first)
{
	k->waiter[slot].fd = c->fd[KEEPER_WAITER];
	k->waiter[slot].slot = -1;
	k->waiter[slot].err = c->fd[STDERR_FILENO];
	if (is_first)
		use_stderr(k, slot);
}

void
keeper_refuse(struct keeper_claim *c)
{
	int i;

	for (i = 0; i < KEEPER_FDS; i++)
		close(c->fd[i]);
}

void
keeper_release(struct keeper *k, unsigned slot, int status)
{
	const unsigned char byte = (unsigned char)status;
	ssize_t n;

	if (k->waiter[slot].fd == -1)
		return;
	n = write(k->waiter[slot].fd, &byte, 1);
	(void)n; /* the waiting process may have ended */
	os_close(&k->waiter[slot].fd);
	os_close(&k->waiter[slot].err);
	if (slot != k->stderr_slot)
		return;
	for (slot = 0; slot < MUX_SLOTS; slot++)
		if (k->waiter[slot].err != -1) {
			use_stderr(k, slot);
			return;
		}
	os_null(STDOUT_FILENO);
	os_null(STDERR_FILENO);
}

void
keeper_free(struct keeper *k)
{
	int i;

	if (k == NULL)
		return;
	os_close(&k->fd); /* remove_place needs a descriptor */
	if (k->placed)
		remove_place(k->dir);
	for (i = 0; i < MUX_SLOTS; i++) {
		os_close(&k->waiter[i].fd);
		os_close(&k->waiter[i].err);
	}
	free(k);
}

/* ---- a later process ---- */

/* Wait until ${fd} can be read, or for a signal.  False: the time is over. */
static bool
wait_readable(int fd, int64_t until)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int64_t left = until - pollset_clock();

	return left > 0 && poll(&p, 1, (int)(left / 1000 + 1)) != 0;
}

/* Read the near greeting into ${c} and ${g}.  False: it joins no session. */
static bool
read_greeting(int fd, struct keeper_claim *c, struct greeting *g, int64_t until)
{
	ssize_t n;

	greeting_start(g, true);
	c->n = 0;
	while (g->state != GREETING_DONE && g->state != GREETING_FAILED) {
		n = read(fd, c->greeting + c->n, KEEPER_GREETING - c->n);
		if (n == -1 && (errno == EINTR || errno == EAGAIN) && wait_readable(fd, until))
			continue;
		if (n <= 0)
			return false;
		greeting_feed(g, c->greeting + c->n, (size_t)n);
		c->n += (size_t)n;
	}
	return g->state == GREETING_DONE && g->session.kind == SESSION_JOIN && g->banner_have == 0;
}

/* Return a socket to the keeper in ${dir}, or -1 with errno set. */
static int
connect_to(const char *dir)
{
	struct sockaddr_un sa = address_of(dir);
	int fd = new_socket();

	if (fd != -1 && connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == -1)
		os_close(&fd);
	/* Its keeper can end, and then another user can take the name. */
	if (fd != -1 && !os_own_dir(dir)) {
		os_close(&fd);
		errno = EACCES;
	}
	return fd;
}

/*
 * Send ${c} to the keeper in ${dir}.  On failure return false with errno set.
 * poll cannot wait for room in the keeper's queue, and systems differ in the
 * error of a full one.
 */
static bool
send_claim(const char *dir, const struct keeper_claim *c, int64_t until)
{
	int fd = connect_to(dir);
	ssize_t n;

	if (fd == -1)
		return false;
	while ((n = os_send_fds(fd, c->greeting, c->n, c->fd, KEEPER_FDS)) == -1 &&
	       (errno == EAGAIN || errno == ENOBUFS) && pollset_clock() < until)
		poll(NULL, 0, PAUSE / 1000);
	os_close(&fd);
	return n != -1;
}

/* Write the far greeting for a session that does not exist. */
static void
answer_gone(int fd)
{
	struct hello h = { .role = MUX_FAR, .memory = MUX_MEMORY, .streams = MUX_STREAMS };
	struct session s = { .kind = SESSION_GONE };
	unsigned char out[GREETING_OURS];
	ssize_t n;

	gethostname(h.host, sizeof(h.host) - 1);
	n = write(fd, out, greeting_put(out, &h, &s));
	(void)n; /* if this fails, the near side reads the end of the channel */
}

/* Send ${c} to the keeper, and wait for keeper_release.  Return the status. */
static int
hand_over(struct keeper_claim *c, const struct greeting *g, int64_t until)
{
	char dir[DIR_SIZE];
	int pair[2], status;

	tree_name(dir, sizeof(dir), PARENT "/" PREFIX, g->session.id);
	if (!os_own_dir(dir)) {
		answer_gone(c->fd[STDOUT_FILENO]);
		return STATUS_OK;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0) {
		c->fd[KEEPER_WAITER] = pair[1];
		if (send_claim(dir, c, until)) {
			close(pair[1]);
			status = wait_for_status(pair[0], c->fd[STDOUT_FILENO]);
			return status == -1 ? STATUS_LINK : status;
		}
	}
	if (errno == ECONNREFUSED || errno == ENOENT) {
		remove_place(dir); /* its keeper was killed */
		answer_gone(c->fd[STDOUT_FILENO]);
		return STATUS_OK;
	}
	log_say(LOG_ERROR, "cannot pass this channel to the keeper of the session: %s",
	    strerror(errno));
	return STATUS_SYSTEM;
}

int
keeper_join(void)
{
	static struct greeting g;
	static struct keeper_claim c;
	int64_t until = pollset_clock() + JOIN_MOST;
	struct fdpair fds;
	int status = STATUS_LINK;

	if (fdpair_stdio(&fds) == -1 || write(fds.out, frame_magic, FRAME_MAGIC) != FRAME_MAGIC) {
		log_say(LOG_ERROR, "cannot use stdin and stdout: %s", strerror(errno));
		return STATUS_LINK;
	}
	if (read_greeting(fds.in, &c, &g, until)) {
		c.fd[STDIN_FILENO] = fds.in;
		c.fd[STDOUT_FILENO] = fds.out;
		c.fd[STDERR_FILENO] = STDERR_FILENO;
		status = hand_over(&c, &g, until);
	}
	greeting_free(&g);
	fdpair_close(&fds, false);
	return status;
}

/* ---- questions ---- */

static void
write_line(int fd, const char *name, const char *text)
{
	char line[ANSWER + 2 * TREE_ID + 3];
	int n = snprintf(line, sizeof(line), "%s %.*s\n", name, ANSWER, text);
	ssize_t w = write(fd, line, (size_t)n);

	(void)w; /* the reader may have ended */
}

void
keeper_answer(const struct keeper *k, struct keeper_claim *c, const char *text)
{
	write_line(c->fd[0], k->dir + strlen(PARENT "/" PREFIX), text);
	close(c->fd[0]);
}

/* Ask the keeper of the session ${name}, or remove what it has left. */
static void
ask(const char *name, int out, const char *question)
{
	char dir[DIR_SIZE], age[32];
	struct sockaddr_un sa;
	struct stat st;
	long seconds;
	int fd;

	snprintf(dir, sizeof(dir), PARENT "/" PREFIX "%.*s", 2 * TREE_ID, name);
	sa = address_of(dir);
	if (!os_own_dir(dir) || stat(dir, &st) == -1)
		return;
	seconds = (long)(time(NULL) - st.st_mtime);
	if (lstat(sa.sun_path, &st) == 0 && !S_ISSOCK(st.st_mode))
		return;
	fd = connect_to(dir);
	if (fd == -1 && (errno == ECONNREFUSED || errno == ENOENT)) {
		/* A keeper makes its directory a moment before its socket. */
		if (errno == ECONNREFUSED || seconds > PLACE_MOST)
			remove_place(dir);
		return;
	}
	if (fd != -1)
		os_send_fds(fd, question, strlen(question), &out, 1);
	os_close(&fd);
	snprintf(age, sizeof(age), "%ld", seconds);
	write_line(out, name, age);
}

void
keeper_ask_all(int fd, const char *question)
{
	const struct dirent *entry;
	DIR *parent = opendir(PARENT);

	if (parent == NULL)
		return;
	while ((entry = readdir(parent)) != NULL)
		if (tree_is_name(entry->d_name, PREFIX))
			ask(entry->d_name + strlen(PREFIX), fd, question);
	closedir(parent);
}
