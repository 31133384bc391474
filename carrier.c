/*
 * carrier.c - the wire of a link: a command's stdin and stdout, or our own.
 *
 * Bytes from the wire go into the link as they come; the link is asked for bytes only when the wire has taken all that it gave
 * before, so that what is to be sent next is chosen as late as can be. Before there is a far relay, it is boot.c that is asked, and
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

#include "relay.h"

#define LAST_WORDS 500
#define EAR_READS 4 /* in one turn: a far side may talk faster than people's terminal takes it, and for ever */
#define READ_SIZE (4 * FRAME_DATA_MAX)
#define WIRE_PIPE (1024 * 1024) /* pace.c, not the pipe, is to bound what is on its way */

static bool
get_buffers(struct carrier *c)
{
	c->in = malloc(READ_SIZE);
	c->out = malloc(CARRIER_OUT);
	return c->in != NULL && c->out != NULL;
}

static void
init(struct carrier *c, struct link *link)
{
	memset(c, 0, sizeof(*c));
	end_none(&c->wire);
	c->ear = c->ear_slot = -1;
	c->link = link;
}

/* The wider its pipes, the fewer wake-ups for ssh and us: not that all would be filled. */
static void
widen(const struct carrier *c)
{
	os_pipe_size(c->wire.in, WIRE_PIPE);
	os_pipe_size(c->wire.out, WIRE_PIPE);
}

/* Others get a pipe: Linux opens no socket as /dev/stdin, and bash takes one for rshd, and reads .bashrc. */
static bool
is_ssh(const struct endpoint *command)
{
	char name[ENDPOINT_NAME];

	return strcmp(endpoint_name(command, name, sizeof(name)), "ssh") == 0;
}

bool
carrier_near(struct carrier *c, struct link *link, struct dial_target *target, struct boot *boot, int64_t now)
{
	init(c, link);
	c->boot = boot;
	if (!get_buffers(c))
		return false;
	target->how = (is_ssh(&target->to) ? SPAWN_WIRE : 0U) | (boot != NULL ? SPAWN_HEARD : 0U);
	c->dial = dial_start(target, now);
	return c->dial != NULL;
}

/* A terminal as stdout that passes bytes as they are is no more than a pipe: srun -u gives its tasks one. */
static bool
changes_bytes(int fd)
{
	struct termios t;

	return tcgetattr(fd, &t) == 0 && (t.c_oflag & OPOST) != 0;
}

int
carrier_far(struct carrier *c, struct link *link)
{
	init(c, link);
	if (isatty(STDIN_FILENO) || changes_bytes(STDOUT_FILENO)) {
		log_say(LOG_ERROR,
		    "a link cannot go through a terminal: relay -m - is run by relay -m FROM -- COMMAND, without ssh -t");
		return -1;
	}
	if (end_stdio(&c->wire) == -1 || !get_buffers(c)) {
		log_say(LOG_ERROR, "cannot use stdin and stdout: %s", strerror(errno));
		return -1;
	}
	c->wire.keeps_stderr = true;
	widen(c);
	/* Whatever is printed by mistake is for people. */
	return dup2(STDERR_FILENO, STDOUT_FILENO) == -1 ? -1 : 0;
}

static bool
is_open(const struct carrier *c)
{
	return c->dial == NULL && !c->ended;
}

/* ---- what the command says on stderr ---- */

static void
take_said(struct carrier *c, const char *p, ssize_t n)
{
	ssize_t i;

	for (i = 0; i < n; i++) {
		if (p[i] != '\n' && c->said_have < sizeof(c->said) - 1) {
			c->said[c->said_have++] = p[i];
			continue;
		}
		while (c->said_have > 0 && c->said[c->said_have - 1] == '\r')
			c->said_have--;
		c->said[c->said_have] = '\0';
		if (c->said_have > 0) {
			log_quote(c->hushed ? LOG_INFO : LOG_ERROR, c->said);
			memcpy(c->last_said, c->said, c->said_have + 1);
		}
		c->said_have = 0;
	}
}

void
carrier_hear(struct carrier *c)
{
	char room[1024];
	ssize_t n;
	int i;

	for (i = 0; i < EAR_READS && c->ear != -1; i++) {
		n = read(c->ear, room, sizeof(room));
		if (n > 0)
			take_said(c, room, n);
		else if (n == 0 || (errno != EINTR && errno != EAGAIN))
			os_close(&c->ear);
		else if (errno == EAGAIN)
			return;
	}
	if (c->ear == -1 && c->said_have > 0)
		take_said(c, "\n", 1);
}

/* ---- the wire ---- */

void
carrier_want(struct carrier *c, struct pollset *ps)
{
	int64_t deadline = link_deadline(c->link);
	bool output = link_has_output(c->link) || (c->boot != NULL && boot_has_output(c->boot));

	c->ear_slot = pollset_add(ps, c->ear, POLLIN);
	if (c->dial != NULL) {
		dial_want(c->dial, ps);
		return;
	}
	if (c->ended)
		return;
	end_want(&c->wire, ps, c->link->state != LINK_DEAD, c->wire.out != -1 && (c->out_start < c->out_end || output));
	if (c->unread_at != 0)
		pollset_until(ps, c->unread_at + LAST_WORDS);
	if (deadline != INT64_MAX)
		pollset_until(ps, (deadline + 999) / 1000);
}

/* The command is not to be seen as running before its exec has worked. */
static void
step_dial(struct carrier *c, const struct pollset *ps)
{
	char why[ENDPOINT_NAME + 512];

	switch (dial_step(c->dial, ps)) {
	case DIAL_BUSY:
		return;
	case DIAL_DONE:
		c->child = dial_take_child(c->dial);
		end_pipes(&c->wire, spawn_take_in(c->child), spawn_take_out(c->child));
		widen(c);
		c->ear = spawn_take_ear(c->child);
		break;
	case DIAL_FAILED:
		link_lost(c->link, dial_status(c->dial) == STATUS_NOTFOUND ? LINK_NO_FILE : LINK_COMMAND,
		    dial_explain(c->dial, why, sizeof(why)));
		c->ended = true;
		break;
	}
	dial_free(c->dial, ps->now);
	c->dial = NULL;
}

/* The link skips what is for boot.c, and boot.c all that it did not ask for. */
static void
feed(struct carrier *c, size_t n, int64_t now_us)
{
	if (c->boot != NULL && c->link->state == LINK_STARTS) {
		boot_feed(c->boot, c->in, n);
		if (c->boot->state == BOOT_FAILED) {
			link_lost(c->link, LINK_COMMAND, c->boot->why);
			return;
		}
	}
	link_feed(c->link, c->in, n, now_us);
}

static void
read_wire(struct carrier *c, int64_t now_us)
{
	ssize_t n = read(c->wire.in, c->in, READ_SIZE);

	if (n > 0)
		feed(c, (size_t)n, now_us);
	else if (n == 0)
		link_lost(c->link, LINK_END, "the other side has ended");
	else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
		link_lost(c->link, LINK_RESET, strerror(errno));
}

/* Nobody reads what we write. */
static void
stop_writing(struct carrier *c, int64_t now)
{
	end_shut_out(&c->wire);
	c->out_start = c->out_end = 0;
	if (c->unread_at == 0)
		c->unread_at = now;
}

void
carrier_step(struct carrier *c, const struct pollset *ps)
{
	if (pollset_ready(ps, c->ear_slot) != 0)
		carrier_hear(c);
	if (c->dial != NULL)
		step_dial(c, ps);
	if (!is_open(c))
		return;
	if (end_readable(&c->wire, ps))
		read_wire(c, ps->now_us);
	if (end_writable(&c->wire, ps))
		c->full = false;
	if (end_failed(&c->wire, ps) != 0)
		stop_writing(c, ps->now);
	if (c->unread_at != 0 && ps->now >= c->unread_at + LAST_WORDS)
		link_lost(c->link, LINK_END, "the other side reads no more");
	link_tick(c->link, ps->now_us);
}

static size_t
pull(struct carrier *c, int64_t now_us)
{
	if (c->boot != NULL && boot_has_output(c->boot))
		return boot_pull(c->boot, c->out, CARRIER_OUT);
	return link_pull(c->link, c->out, CARRIER_OUT, now_us);
}

void
carrier_flush(struct carrier *c, int64_t now_us)
{
	ssize_t n;

	while (is_open(c) && c->wire.out != -1 && !c->full) {
		if (c->out_start == c->out_end) {
			c->out_start = 0;
			c->out_end = pull(c, now_us);
			if (c->out_end == 0)
				return;
		}
		n = write(c->wire.out, c->out + c->out_start, c->out_end - c->out_start);
		if (n > 0) {
			c->out_start += (size_t)n;
		} else if (errno == EAGAIN || errno == EWOULDBLOCK) {
			c->full = true;
		} else if (errno != EINTR) {
			stop_writing(c, now_us / 1000);
		}
	}
}

void
carrier_close(struct carrier *c, int64_t now)
{
	if (!c->ended)
		end_close(&c->wire, false);
	c->ended = true;
	dial_free(c->dial, now);
	c->dial = NULL;
	if (c->child != NULL)
		spawn_release(c->child, now);
	c->child = NULL;
	os_close(&c->ear);
	free(c->in);
	free(c->out);
	c->in = c->out = NULL;
}
