/*
 * tunnel/transport.c - the channel of a link: a command's stdin and stdout, or our own.
 *
 * Bytes from the wire go into the link as they come; the link is asked for bytes only when the wire has taken all that it gave
 * before, so that what is to be sent next is chosen as late as can be. Before there is a far relay, it is bootstrap.c that is asked, and
 * that reads along. The end of the wire ends the link. A reader of it that went away ends only the writing at first, for what it
 * said last (a BYE, the words of a shell) may still be there to be read; the link ends with that, or LAST_WORDS later.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "base/poll.h"
#include "mux/frame.h"
#include "mux/mux.h"
#include "net/dial.h"
#include "net/endpoint.h"
#include "spawn.h"
#include "conn/fdpair.h"
#include "tunnel/bootstrap.h"
#include "relay.h"
#include "tunnel/transport.h"

#define LAST_WORDS 500
#define STDERR_SIZE 4096
#define STDERR_PIPE (64 * 1024) /* what a pipe may hold when its writer has ended */
#define STDERR_READS \
	4 /* in one turn: the far side may print faster than a terminal shows it, and for ever */
#define READ_SIZE (4 * FRAME_DATA_MAX)
#define WIRE_PIPE (1024 * 1024) /* pace.c, not the pipe, is to bound what is on its way */

static bool
get_buffers(struct transport *t)
{
	t->in = malloc(READ_SIZE);
	t->out = malloc(TRANSPORT_OUT);
	return t->in != NULL && t->out != NULL;
}

static void
init(struct transport *t, struct mux *m)
{
	memset(t, 0, sizeof(*t));
	fdpair_none(&t->wire);
	t->stderr_fd = t->stderr_slot = -1;
	t->mux = m;
}

/* The wider its pipes, the fewer wake-ups for ssh and us: not that all would be filled. */
static void
widen(const struct transport *t)
{
	os_pipe_size(t->wire.in, WIRE_PIPE);
	os_pipe_size(t->wire.out, WIRE_PIPE);
}

/* Others get a pipe: Linux opens no socket as /dev/stdin, and bash takes one for rshd, and reads .bashrc. */
static bool
is_ssh(const struct endpoint *command)
{
	char name[ENDPOINT_NAME];

	return strcmp(endpoint_name(command, name, sizeof(name)), "ssh") == 0;
}

bool
transport_near(struct transport *t, struct mux *m, struct dial_target *target,
    struct bootstrap *bootstrap, int64_t now)
{
	init(t, m);
	t->bootstrap = bootstrap;
	if (!get_buffers(t))
		return false;
	target->how =
	    (is_ssh(&target->to) ? SPAWN_WIRE : 0U) | (bootstrap != NULL ? SPAWN_CAPTURE : 0U);
	t->dial = dial_start(target, now);
	return t->dial != NULL;
}

/* A terminal as stdout that passes bytes as they are is no more than a pipe: srun -u gives its tasks one. */
static bool
changes_bytes(int fd)
{
	struct termios term;

	return tcgetattr(fd, &term) == 0 && (term.c_oflag & OPOST) != 0;
}

int
transport_far(struct transport *t, struct mux *m)
{
	init(t, m);
	if (isatty(STDIN_FILENO) || changes_bytes(STDOUT_FILENO)) {
		log_say(LOG_ERROR, "a link cannot go through a terminal: relay -m - is run by "
				   "relay -m FROM -- COMMAND, without ssh -t");
		return -1;
	}
	if (fdpair_stdio(&t->wire) == -1 || !get_buffers(t)) {
		log_say(LOG_ERROR, "cannot use stdin and stdout: %s", fdpair_explain(errno));
		return -1;
	}
	t->wire.keeps_stderr = true;
	widen(t);
	/* Whatever is printed by mistake is for people. */
	return dup2(STDERR_FILENO, STDOUT_FILENO) == -1 ? -1 : 0;
}

static bool
is_open(const struct transport *t)
{
	return t->dial == NULL && !t->ended;
}

/* ---- what the command prints on stderr ---- */

/* The first ${n} bytes of line are a line, or a piece of a long one. */
static void
log_line(struct transport *t, size_t n)
{
	memcpy(t->last_line, t->line, n);
	t->last_line[n] = '\0';
	t->line_have -= n;
	memmove(t->line, t->line + n, t->line_have);
	log_quote(t->quiet ? LOG_INFO : LOG_ERROR, t->last_line);
}

static bool
is_continued(char c)
{
	return ((unsigned char)c & 0xc0) == 0x80;
}

/*
 * A line longer than the buffer is logged in pieces.  No character of UTF-8 is
 * divided: log.c would replace its bytes by '?'.
 */
static void
log_piece(struct transport *t, char next)
{
	size_t n = t->line_have, least = n - 4;

	if (is_continued(next))
		while (n > least && is_continued(t->line[--n]))
			;
	log_line(t, n == least ? t->line_have : n);
}

static void
take_line(struct transport *t, const char *p, ssize_t n)
{
	ssize_t i;

	for (i = 0; i < n; i++) {
		if (p[i] != '\n') {
			if (t->line_have == sizeof(t->line) - 1)
				log_piece(t, p[i]);
			t->line[t->line_have++] = p[i] == '\0' ? '?' : p[i];
			continue;
		}
		while (t->line_have > 0 && t->line[t->line_have - 1] == '\r')
			t->line_have--;
		if (t->line_have > 0)
			log_line(t, t->line_have);
	}
}

static void
read_stderr(struct transport *t, int reads)
{
	char room[STDERR_SIZE];
	ssize_t n;
	int i;

	for (i = 0; i < reads && t->stderr_fd != -1; i++) {
		n = read(t->stderr_fd, room, sizeof(room));
		if (n > 0)
			take_line(t, room, n);
		else if (n == 0 || (errno != EINTR && errno != EAGAIN))
			os_close(&t->stderr_fd);
		else if (errno == EAGAIN)
			return;
	}
	if (t->stderr_fd == -1 && t->line_have > 0)
		take_line(t, "\n", 1);
}

void
transport_read_stderr(struct transport *t)
{
	read_stderr(t, STDERR_PIPE / STDERR_SIZE + 1);
}

/* ---- the wire ---- */

void
transport_want(struct transport *t, struct pollset *ps)
{
	int64_t deadline = mux_deadline(t->mux);
	bool output =
	    mux_has_output(t->mux) || (t->bootstrap != NULL && bootstrap_has_output(t->bootstrap));

	t->stderr_slot = pollset_add(ps, t->stderr_fd, POLLIN);
	if (t->dial != NULL) {
		dial_want(t->dial, ps);
		return;
	}
	if (t->ended)
		return;
	fdpair_want(&t->wire, ps, mux_state(t->mux) != MUX_DEAD,
	    t->wire.out != -1 && (t->out_start < t->out_end || output));
	if (t->unread_at != 0)
		pollset_until(ps, t->unread_at + LAST_WORDS);
	if (deadline != INT64_MAX)
		pollset_until(ps, (deadline + 999) / 1000);
}

/* The command is not to be seen as running before its exec has worked. */
static void
step_dial(struct transport *t, const struct pollset *ps)
{
	char why[ENDPOINT_NAME + 512];

	switch (dial_step(t->dial, ps)) {
	case DIAL_BUSY:
		return;
	case DIAL_DONE:
		t->child = dial_take_child(t->dial);
		fdpair_pipes(&t->wire, spawn_take_in(t->child), spawn_take_out(t->child));
		widen(t);
		t->stderr_fd = spawn_take_stderr(t->child);
		break;
	case DIAL_FAILED:
		mux_lost(t->mux,
		    dial_status(t->dial) == STATUS_NOTFOUND ? MUX_NO_FILE : MUX_COMMAND,
		    dial_explain(t->dial, why, sizeof(why)));
		t->ended = true;
		break;
	}
	dial_free(t->dial, ps->now);
	t->dial = NULL;
}

/* The link skips what is for bootstrap.c, and bootstrap.c all that it did not ask for. */
static void
feed(struct transport *t, size_t n, int64_t now_us)
{
	if (t->bootstrap != NULL && mux_state(t->mux) == MUX_STARTING) {
		bootstrap_feed(t->bootstrap, t->in, n);
		if (bootstrap_state(t->bootstrap) == BOOTSTRAP_FAILED) {
			mux_lost(t->mux, MUX_COMMAND, bootstrap_why(t->bootstrap));
			return;
		}
	}
	mux_feed(t->mux, t->in, n, now_us);
}

static void
read_wire(struct transport *t, int64_t now_us)
{
	ssize_t n = read(t->wire.in, t->in, READ_SIZE);

	if (n > 0)
		feed(t, (size_t)n, now_us);
	else if (n == 0)
		mux_lost(t->mux, MUX_END, "the other side has ended");
	else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
		mux_lost(t->mux, MUX_RESET, strerror(errno));
}

/* Nobody reads what we write. */
static void
stop_writing(struct transport *t, int64_t now)
{
	fdpair_shut_out(&t->wire);
	t->out_start = t->out_end = 0;
	if (t->unread_at == 0)
		t->unread_at = now;
}

void
transport_step(struct transport *t, const struct pollset *ps)
{
	if (pollset_ready(ps, t->stderr_slot) != 0)
		read_stderr(t, STDERR_READS);
	if (t->dial != NULL)
		step_dial(t, ps);
	if (!is_open(t))
		return;
	if (fdpair_readable(&t->wire, ps))
		read_wire(t, ps->now_us);
	if (fdpair_writable(&t->wire, ps))
		t->full = false;
	if (fdpair_failed(&t->wire, ps) != 0)
		stop_writing(t, ps->now);
	if (t->unread_at != 0 && ps->now >= t->unread_at + LAST_WORDS)
		mux_lost(t->mux, MUX_END, "the other side reads no more");
	mux_tick(t->mux, ps->now_us);
}

static size_t
pull(struct transport *t, int64_t now_us)
{
	if (t->bootstrap != NULL && bootstrap_has_output(t->bootstrap))
		return bootstrap_pull(t->bootstrap, t->out, TRANSPORT_OUT);
	return mux_pull(t->mux, t->out, TRANSPORT_OUT, now_us);
}

void
transport_flush(struct transport *t, int64_t now_us)
{
	ssize_t n;

	while (is_open(t) && t->wire.out != -1 && !t->full) {
		if (t->out_start == t->out_end) {
			t->out_start = 0;
			t->out_end = pull(t, now_us);
			if (t->out_end == 0)
				return;
		}
		n = write(t->wire.out, t->out + t->out_start, t->out_end - t->out_start);
		if (n > 0) {
			t->out_start += (size_t)n;
		} else if (errno == EAGAIN || errno == EWOULDBLOCK) {
			t->full = true;
		} else if (errno != EINTR) {
			stop_writing(t, now_us / 1000);
		}
	}
}

void
transport_close(struct transport *t, int64_t now)
{
	if (!t->ended)
		fdpair_close(&t->wire, false);
	t->ended = true;
	dial_free(t->dial, now);
	t->dial = NULL;
	if (t->child != NULL)
		spawn_release(t->child, now);
	t->child = NULL;
	os_close(&t->stderr_fd);
	free(t->in);
	free(t->out);
	t->in = t->out = NULL;
}
