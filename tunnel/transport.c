/*
 * tunnel/transport.c - a channel of a link: a command's stdin and stdout, or
 * relay's own.
 *
 * Until the far relay runs, bootstrap provides the bytes to send.  Bytes that
 * are read go to bootstrap and to the mux.
 *
 * The end of the channel's input ends the channel.  If the channel has no
 * reader, only writing ends at first: the peer's last output (a BYE, an error
 * message) may still be unread.  The channel ends at the end of this output, or
 * after LAST_OUTPUT.
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
#include "tunnel/hops.h"
#include "relay.h"
#include "tunnel/transport.h"

#define LAST_OUTPUT 500000 /* us */
#define HOLD 2000000       /* us from a line of stderr to its log */
#define STDERR_SIZE 4096
#define STDERR_PIPE (64 * 1024) /* bytes that can be left after its writer ended */
#define READ_SIZE (4 * FRAME_DATA_MAX)
#define WRITE_SIZE (4 * FRAME_DATA_MAX)
#define WIRE_PIPE (1024 * 1024) /* mux/cc bounds how much of it is filled */

/* Reads of stderr in one turn.  The far side may print without end, and faster
 * than a terminal displays it. */
#define STDERR_READS 4

/* PROTOCOL, section 1: a terminal changes the bytes of this channel. */
#define TERMINAL_TOKEN "reLAylink\n"

enum transport_state {
	TRANSPORT_DIALING,  /* the command is being started */
	TRANSPORT_OPEN,     /* bytes pass both ways */
	TRANSPORT_DRAINING, /* no reader: only reading goes on, until give_up_at */
	TRANSPORT_CLOSED
};

struct transport {
	enum transport_state state;
	struct mux *mux;
	unsigned slot; /* of the mux */
	struct fdpair wire;
	struct child *child; /* near: the command; spawn.c logs its end */
	struct dial *dial;   /* TRANSPORT_DIALING */
	int64_t give_up_at;  /* TRANSPORT_DRAINING */
	int64_t moved_at;    /* the last byte was read or written; 0: none was */

	/* Write nothing until poll reports the channel writable.  An earlier
	 * write would wake its reader for each small piece. */
	bool full;

	struct bootstrap *bootstrap; /* near: starts the far end; NULL: the command does */
	const struct hops *hops;     /* with bootstrap: those of the command */
	int stderr_fd, stderr_slot;  /* with bootstrap: of the command; -1: none */
	bool quiet;
	char line[512]; /* a line that is being read */
	size_t line_have;
	char last_line[512]; /* the last complete one */
	int64_t held_until;  /* then the last line is logged; 0: it was logged */

	unsigned char in[READ_SIZE];
};

static struct transport *
new_transport(struct mux *m, unsigned slot)
{
	struct transport *t = calloc(1, sizeof(*t));

	if (t == NULL)
		return NULL;
	fdpair_none(&t->wire);
	t->stderr_fd = t->stderr_slot = -1;
	t->mux = m;
	t->slot = slot;
	return t;
}

/* The descriptors of the channel are open. */
static void
begin(struct transport *t)
{
	t->state = TRANSPORT_OPEN;
	/* Larger pipes wake ssh and relay less often.  They are rarely full. */
	os_pipe_size(t->wire.in, WIRE_PIPE);
	os_pipe_size(t->wire.out, WIRE_PIPE);
}

struct transport *
transport_near(struct mux *m, unsigned slot, struct dial_target *target,
    struct bootstrap *bootstrap, const struct hops *hops, bool quiet, int64_t now)
{
	struct transport *t = new_transport(m, slot);

	if (t == NULL)
		return NULL;
	t->bootstrap = bootstrap;
	t->hops = hops;
	t->quiet = quiet;
	/*
	 * Other commands get a pipe as stdin: Linux cannot open a socket as
	 * /dev/stdin, and bash reads .bashrc if its stdin is a socket.
	 */
	target->how = strcmp(spawn_name(target->to.argv[0]), "ssh") == 0 ? SPAWN_WIRE : 0;
	if (bootstrap != NULL)
		target->how |= SPAWN_CAPTURE | SPAWN_QUIET;
	t->dial = dial_start(target, now);
	if (t->dial != NULL)
		return t;
	transport_free(t, now);
	return NULL;
}

/* srun -u gives its tasks a terminal as stdout that passes bytes unchanged. */
static bool
changes_bytes(int fd)
{
	struct termios term;

	return tcgetattr(fd, &term) == 0 && (term.c_oflag & OPOST) != 0;
}

struct transport *
transport_far(struct mux *m)
{
	struct transport *t;
	ssize_t n;

	if (isatty(STDIN_FILENO) || changes_bytes(STDOUT_FILENO)) {
		/* The near side reads the token and logs the cause too. */
		n = write(STDOUT_FILENO, TERMINAL_TOKEN, strlen(TERMINAL_TOKEN));
		(void)n;
		log_say(LOG_ERROR, "a link cannot go through a terminal: relay -m - is run by "
				   "relay -m FROM -- COMMAND, without ssh -t");
		return NULL;
	}
	t = new_transport(m, 0);
	/* A stray line on stdout would corrupt the frames. */
	if (t == NULL || fdpair_stdio(&t->wire) == -1 || dup2(STDERR_FILENO, STDOUT_FILENO) == -1) {
		log_say(LOG_ERROR, "cannot use stdin and stdout: %s", fdpair_explain(errno));
		transport_free(t, 0);
		return NULL;
	}
	t->wire.keeps_stderr = true;
	begin(t);
	return t;
}

struct transport *
transport_fds(struct mux *m, unsigned slot, int in, int out)
{
	struct transport *t = new_transport(m, slot);

	if (t == NULL) {
		close(in);
		close(out);
		return NULL;
	}
	fdpair_pipes(&t->wire, in, out);
	begin(t);
	return t;
}

static bool
has_output(const struct transport *t)
{
	return mux_has_output(t->mux, t->slot) ||
	       (t->bootstrap != NULL && bootstrap_has_output(t->bootstrap));
}

bool
transport_drained(const struct transport *t)
{
	return t->state != TRANSPORT_OPEN || !has_output(t);
}

bool
transport_is_closed(const struct transport *t)
{
	return t->state == TRANSPORT_CLOSED;
}

int64_t
transport_moved_at(const struct transport *t)
{
	return t->moved_at;
}

bool
transport_readable(const struct transport *t, const struct pollset *ps)
{
	return t->state != TRANSPORT_CLOSED && fdpair_readable(&t->wire, ps);
}

int
transport_exit_status(const struct transport *t)
{
	return t->child == NULL ? TRANSPORT_NEVER_RAN : spawn_exit(t->child);
}

size_t
transport_unsent(const struct transport *t)
{
	uint64_t n = os_unsent(t->wire.out);

	return n == OS_UNSENT_UNKNOWN ? 0 : (size_t)n;
}

/* ---- the command's stderr ---- */

static void
log_held(struct transport *t)
{
	if (t->held_until != 0)
		log_quote(t->quiet ? LOG_INFO : LOG_ERROR, t->last_line, 0);
	t->held_until = 0;
}

bool
transport_drop_line(struct transport *t)
{
	bool held = t->held_until != 0;

	t->held_until = 0;
	return held;
}

void
transport_set_quiet(struct transport *t, bool quiet)
{
	log_held(t);
	t->quiet = quiet;
}

static bool
begins(const char *line, const char *start)
{
	return strncmp(line, start, strlen(start)) == 0;
}

/* Can ${line} be of the relay that -J runs? */
static bool
is_of_relay(const char *line)
{
	return begins(line, LOG_PREFIX);
}

/*
 * Does ${line} report the end of a login, or of a ProxyCommand, whose cause is
 * last_line?
 */
static bool
repeats_last_line(const struct transport *t, const char *line)
{
	bool refused = hops_is_refusal(t->last_line);

	if (hops_is_proxy_end(line))
		return refused || is_of_relay(t->last_line) ||
		       strcmp(t->last_line, "stdio forwarding failed") == 0;
	return refused &&
	       (begins(line, "Disconnected from ") || begins(line, "Connection closed by "));
}

/* With -v, the relay that -J runs logs more after the cause in last_line. */
static bool
follows_cause(const struct transport *t, const char *line)
{
	return t->hops->config.jumps > 0 && is_of_relay(line) && is_of_relay(t->last_line) &&
	       hops_is_cause(t->hops, t->last_line) && !hops_is_cause(t->hops, line);
}

/* Log the first ${n} bytes of line: a line, or a piece of a long one. */
static void
log_line(struct transport *t, size_t n)
{
	char line[sizeof(t->line)];

	memcpy(line, t->line, n);
	line[n] = '\0';
	t->line_have -= n;
	memmove(t->line, t->line + n, t->line_have);
	if (repeats_last_line(t, line)) {
		log_quote(LOG_INFO, line, 0);
		return;
	}
	log_held(t);
	if (!follows_cause(t, line))
		memcpy(t->last_line, line, n + 1);
	if (hops_is_cause(t->hops, line))
		t->held_until = pollset_clock() + HOLD;
	else
		log_quote(t->quiet ? LOG_INFO : LOG_ERROR, line, 0);
}

static void
end_line(struct transport *t)
{
	while (t->line_have > 0 && t->line[t->line_have - 1] == '\r')
		t->line_have--;
	if (t->line_have > 0)
		log_line(t, t->line_have);
}

static void
take_output(struct transport *t, const char *p, ssize_t n)
{
	ssize_t i;

	for (i = 0; i < n; i++) {
		if (p[i] == '\n') {
			end_line(t);
			continue;
		}
		/* Of a longer line, log a piece.  The log replaces a part of a character. */
		if (t->line_have == sizeof(t->line) - 1)
			log_line(t, log_whole(t->line, t->line_have));
		t->line[t->line_have++] = p[i] == '\0' ? '?' : p[i];
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
			take_output(t, room, n);
		else if (n == 0 || (errno != EINTR && errno != EAGAIN))
			os_close(&t->stderr_fd);
		else if (errno == EAGAIN)
			return;
	}
	if (t->stderr_fd == -1)
		end_line(t);
}

const char *
transport_last_line(struct transport *t)
{
	read_stderr(t, STDERR_PIPE / STDERR_SIZE + 1);
	return t->last_line;
}

/* ---- the channel ---- */

/*
 * Is this channel still read?  After BYE the mux ignores the bytes, and the end
 * of the channel is the peer's answer.
 */
static bool
is_used(const struct transport *t)
{
	enum mux_slot_state state = mux_slot_state(t->mux, t->slot);

	return state != MUX_SLOT_FREE && state != MUX_SLOT_DOWN;
}

void
transport_want(struct transport *t, struct pollset *ps)
{
	t->stderr_slot = pollset_add(ps, t->stderr_fd, POLLIN);
	if (t->held_until != 0)
		pollset_until(ps, t->held_until);
	switch (t->state) {
	case TRANSPORT_DIALING:
		dial_want(t->dial, ps);
		return;
	case TRANSPORT_OPEN:
		break;
	case TRANSPORT_DRAINING:
		pollset_until(ps, t->give_up_at);
		break;
	case TRANSPORT_CLOSED:
		return;
	}
	fdpair_want(&t->wire, ps, is_used(t), t->state == TRANSPORT_OPEN && has_output(t));
}

/* The channel has ended. */
static void
lose(struct transport *t, uint16_t code, const char *why)
{
	t->state = TRANSPORT_CLOSED;
	mux_lost(t->mux, t->slot, code, why);
}

static void
step_dial(struct transport *t, const struct pollset *ps)
{
	enum dial_state state = dial_step(t->dial, ps);
	char why[ENDPOINT_NAME + 512];

	if (state == DIAL_BUSY)
		return;
	if (state == DIAL_DONE) {
		t->child = dial_take_child(t->dial);
		fdpair_pipes(&t->wire, spawn_take(t->child, STDOUT_FILENO),
		    spawn_take(t->child, STDIN_FILENO));
		t->stderr_fd = spawn_take(t->child, STDERR_FILENO);
		begin(t);
	} else {
		lose(t, dial_status(t->dial) == STATUS_SYSTEM ? MUX_NO_ROOM : MUX_COMMAND,
		    dial_explain(t->dial, why, sizeof(why)));
	}
	dial_free(t->dial, ps->now);
	t->dial = NULL;
}

/* The mux and bootstrap both read all bytes before the magic.  The mux skips
 * the answers to bootstrap, and bootstrap skips everything else. */
static void
feed(struct transport *t, size_t n, int64_t now)
{
	t->moved_at = now;
	if (t->bootstrap != NULL && mux_slot_state(t->mux, t->slot) == MUX_SLOT_STARTING) {
		bootstrap_feed(t->bootstrap, t->in, n);
		if (bootstrap_facts(t->bootstrap)->state == BOOTSTRAP_FAILED) {
			lose(t, MUX_COMMAND, bootstrap_facts(t->bootstrap)->why);
			return;
		}
	}
	mux_feed(t->mux, t->slot, t->in, n, now);
}

static void
read_wire(struct transport *t, int64_t now)
{
	ssize_t n = read(t->wire.in, t->in, READ_SIZE);

	if (n > 0)
		feed(t, (size_t)n, now);
	else if (n == 0)
		lose(t, MUX_END, "its channel was closed");
	else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
		lose(t, MUX_RESET, strerror(errno));
}

static void
start_draining(struct transport *t, int64_t now)
{
	fdpair_shut_out(&t->wire);
	if (t->state != TRANSPORT_OPEN) /* the last read may have ended it */
		return;
	t->state = TRANSPORT_DRAINING;
	t->give_up_at = now + LAST_OUTPUT;
}

static void
step_wire(struct transport *t, const struct pollset *ps)
{
	if (fdpair_readable(&t->wire, ps))
		read_wire(t, ps->now);
	if (fdpair_writable(&t->wire, ps))
		t->full = false;
	if (fdpair_failed(&t->wire, ps) != 0)
		start_draining(t, ps->now);
	if (t->state == TRANSPORT_DRAINING && ps->now >= t->give_up_at)
		lose(t, MUX_END, "its channel is not read any more");
}

void
transport_step(struct transport *t, const struct pollset *ps)
{
	if (pollset_ready(ps, t->stderr_slot) != 0)
		read_stderr(t, STDERR_READS);
	if (t->held_until != 0 && ps->now >= t->held_until)
		log_held(t);
	if (t->state == TRANSPORT_DIALING)
		step_dial(t, ps);
	if (t->state == TRANSPORT_OPEN || t->state == TRANSPORT_DRAINING)
		step_wire(t, ps);
}

/* Write once.  Return false if nothing is left to write, or no room. */
static bool
write_wire(struct transport *t, int64_t now)
{
	bool script = t->bootstrap != NULL && bootstrap_has_output(t->bootstrap);
	const unsigned char *p;
	size_t size = script ? bootstrap_output(t->bootstrap, &p)
			     : mux_output(t->mux, t->slot, &p, WRITE_SIZE, now);
	ssize_t n = size > 0 ? write(t->wire.out, p, size) : 0;

	if (n == -1 && errno == EINTR)
		return true;
	t->full = n == -1 && (errno == EAGAIN || errno == EWOULDBLOCK);
	if (n == -1 && !t->full)
		start_draining(t, now);
	if (n <= 0)
		return false;
	t->moved_at = now;
	if (script)
		bootstrap_wrote(t->bootstrap, (size_t)n);
	else
		mux_wrote(t->mux, t->slot, (size_t)n);
	return true;
}

void
transport_flush(struct transport *t, int64_t now)
{
	while (t->state == TRANSPORT_OPEN && !t->full && write_wire(t, now))
		;
}

void
transport_shut(struct transport *t)
{
	fdpair_close(&t->wire, false);
	t->state = TRANSPORT_CLOSED;
}

void
transport_free(struct transport *t, int64_t now)
{
	if (t == NULL)
		return;
	log_held(t);
	fdpair_close(&t->wire, false);
	dial_free(t->dial, now);
	if (t->child != NULL)
		spawn_release(t->child, now);
	os_close(&t->stderr_fd);
	free(t);
}
