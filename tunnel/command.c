/* tunnel/command.c - far: starts and watches the COMMAND of a tunnel. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/os.h"
#include "base/poll.h"
#include "mux/frame.h"
#include "mux/mux.h"
#include "spawn.h"
#include "relay.h"
#include "tunnel/command.h"
#include "tunnel/dir.h"
#include "tunnel/record.h"
#include "tunnel/serve.h"

#define PIECE_MOST 16384 /* bytes of a read, and of a record of output */
#define READS 16         /* in a turn, at most */
#define PIECE_ROOM 32    /* that body, and two heads */
#define ORPHANS 256      /* processes outside the group, at most */

/* What a byte of a word becomes, at most: "@/" becomes a path. */
#define WORD_GROWTH (DIR_SIZE / 2)

/* In us. */
#define GRACE_KILL 10000000 /* from SIGTERM to SIGKILL */
#define GRACE_LEFT 2000000  /* from SIGKILL to the report of processes that are left */
#define LOOK_PAUSE 50000    /* between two searches for processes that are left */
#define TOGETHER 1000000    /* signals within it are one stop */

/* A login shell runs this line; sh, csh and fish read it in the same way. */
#define LOGIN_LINE "exec /bin/sh -c 'eval \"unset RELAY_COMMAND; exec $RELAY_COMMAND\"'"

enum state { COMMAND_NONE, COMMAND_WORDS, COMMAND_RUNS, COMMAND_ENDING, COMMAND_OVER };

struct command {
	struct children *kids;
	enum state state;
	struct stream *stream; /* NULL: not opened yet, or ended */
	struct dir dir;        /* made in command_open */

	struct record record; /* that is being read */
	char words[COMMAND_WORDS_MOST];
	size_t words_n; /* bytes of them: a NUL after each word */

	struct child *child; /* also the process group */
	bool group_ended;
	bool unlisted;     /* os_children has failed */
	int out, slot;     /* the output is read from it; -1: it has ended */
	struct buf output; /* not sent yet, COMMAND_OUTPUT_MOST at most */
	uint64_t dropped;  /* bytes of output that were lost before */

	int64_t interrupted_at; /* by RECORD_STOP or a signal; 0: not yet */
	int64_t kill_at, look_at;
	int64_t give_up_at;     /* not 0: SIGKILL was sent */
	pid_t orphans[ORPHANS]; /* that have received SIGTERM */
	int n_orphans;

	int status;    /* COMMAND_OVER: as a shell reports it */
	char end[256]; /* the text of RECORD_END; "": it was sent */
};

/* ---- records ---- */

/* Without memory, reset the stream, which stops COMMAND. */
static void
put_record(struct command *c, enum record_type type, const void *p, size_t n)
{
	if (!record_put(c->stream, type, p, n)) {
		serve_refuse(c->stream, MUX_NO_ROOM, "out of memory");
		return;
	}
	stream_push(c->stream);
}

bool
command_is_line(const char *word)
{
	return strpbrk(word, " \t\n") != NULL;
}

bool
command_resolve(const struct command *c, const char *text, char *dst, size_t size)
{
	return dir_resolve(c == NULL ? NULL : &c->dir, text, dst, size);
}

/* ---- start ---- */

/*
 * Write ${word} in quotes of sh, and a blank, to ${dst}, and return their end.
 * At the start of ${word} and after "=", replace "@/" by ${dir}.
 */
static char *
put_word(char *dst, const char *word, const char *dir)
{
	size_t mark = strlen(DIR_MARK);
	bool begins = true;

	*dst++ = '\'';
	for (; *word != '\0'; word++) {
		if (begins && strncmp(word, DIR_MARK, mark) == 0) {
			dst = stpcpy(stpcpy(dst, dir), "/");
			word += mark - 1;
		} else if (*word == '\'') {
			dst = stpcpy(dst, "'\\''");
		} else {
			*dst++ = *word;
		}
		begins = *word == '=';
	}
	return stpcpy(dst, "' ");
}

/* The line for the login shell.  NULL: no memory. */
static char *
make_line(struct command *c)
{
	static char login_line[] = LOGIN_LINE;
	char *line, *end, *word;
	bool fits;

	if (strlen(c->words) + 1 == c->words_n && command_is_line(c->words))
		return c->words;
	line = end = malloc(c->words_n * WORD_GROWTH);
	if (line == NULL)
		return NULL;
	for (word = c->words; word < c->words + c->words_n; word += strlen(word) + 1)
		end = put_word(end, word, c->dir.path);
	fits = setenv("RELAY_COMMAND", line, 1) == 0;
	free(line);
	return fits ? login_line : NULL;
}

/* A hop such as sudo can lead to an account that permits no login. */
static const char *
login_shell(void)
{
	const char *shell = getenv("SHELL");

	if (shell == NULL || *shell != '/' || access(shell, X_OK) == -1 ||
	    strstr(shell, "/nologin") != NULL || strstr(shell, "/false") != NULL)
		return "/bin/sh";
	return shell;
}

/* Return false with errno set. */
static bool
start_shell(struct command *c)
{
	static char dash_c[] = "-c";
	const char *shell = login_shell();
	char name[256], *argv[4] = { name, dash_c, make_line(c), NULL };
	int saved;

	snprintf(name, sizeof(name), "-%s", strrchr(shell, '/') + 1);
	if (argv[2] != NULL && setenv("RELAY_DIR", c->dir.path, 1) == 0)
		c->child = spawn_start(c->kids, shell, argv, SPAWN_ALONE);
	saved = errno;
	unsetenv("RELAY_COMMAND");
	errno = saved;
	return c->child != NULL;
}

static void
cannot_start(struct command *c, int err)
{
	snprintf(c->end, sizeof(c->end), "cannot be started by %.128s: %s", login_shell(),
	    strerror(err));
	c->status = err == ENOENT ? STATUS_NOTFOUND : STATUS_NOEXEC;
	c->state = COMMAND_OVER;
}

static void
start(struct command *c)
{
	if (c->words_n == 0) {
		cannot_start(c, EINVAL);
		return;
	}
	os_adopt();
	if (!start_shell(c)) {
		cannot_start(c, errno);
		return;
	}
	c->out = spawn_take(c->child, STDOUT_FILENO);
	c->state = COMMAND_RUNS;
}

/* ---- stop ---- */

void
command_stop(struct command *c, int64_t now)
{
	if (c == NULL)
		return;
	if (c->state == COMMAND_NONE || c->state == COMMAND_WORDS)
		c->state = COMMAND_OVER;
	if (c->state != COMMAND_RUNS)
		return;
	c->state = COMMAND_ENDING;
	c->kill_at = now + GRACE_KILL;
	c->look_at = now;
	/* Before setsid, the child has no group of its own. */
	if (kill(-spawn_pid(c->child), SIGTERM) == -1 && spawn_exit(c->child) == -1)
		kill(spawn_pid(c->child), SIGTERM);
}

static void
interrupt(struct command *c, int64_t now)
{
	command_stop(c, now);
	if (c->interrupted_at != 0 && c->state == COMMAND_ENDING && c->kill_at > now)
		c->kill_at = c->look_at = now;
	c->interrupted_at = now;
}

void
command_signal(struct command *c, int64_t now)
{
	if (c != NULL && (c->interrupted_at == 0 || now >= c->interrupted_at + TOGETHER))
		interrupt(c, now);
}

/* Test for the process group; kill it after kill_at.  False: it has ended. */
static bool
signal_group(struct command *c)
{
	bool runs = spawn_exit(c->child) == -1;
	pid_t group = spawn_pid(c->child);
	int sig = c->give_up_at != 0 ? SIGKILL : 0;

	/* The id of an ended group can be reused: do not signal it again. */
	if (!c->group_ended && kill(-group, sig) == -1 && errno == ESRCH)
		c->group_ended = !runs;
	if (sig != 0 && runs)
		kill(group, sig);
	return runs || !c->group_ended;
}

static bool
has_signalled(const struct command *c, pid_t pid)
{
	int i;

	for (i = 0; i < c->n_orphans; i++)
		if (c->orphans[i] == pid)
			return true;
	return false;
}

/*
 * Signal processes that have left the group and have become children of relay.
 * While COMMAND runs, signal none: it may stop its processes itself.  Return
 * false if COMMAND has ended and no process is left.
 */
static bool
signal_orphans(struct command *c)
{
	bool left = spawn_exit(c->child) == -1;
	pid_t pids[ORPHANS];
	int n = left ? 0 : os_children(pids, ORPHANS), i;

	if (n == -1 && !c->unlisted) {
		c->unlisted = true;
		log_say(LOG_ERROR, "cannot list the processes that COMMAND may have left: %s",
		    strerror(errno));
	}
	for (i = 0; i < n; i++) {
		if (spawn_owns(c->kids, pids[i]))
			continue;
		left = true;
		if (c->give_up_at != 0) {
			kill(pids[i], SIGKILL);
		} else if (!has_signalled(c, pids[i]) && c->n_orphans < ORPHANS) {
			kill(pids[i], SIGTERM);
			c->orphans[c->n_orphans++] = pids[i];
		}
	}
	return left;
}

static void
be_over(struct command *c, int64_t now)
{
	c->status = spawn_exit(c->child);
	if (spawn_errno(c->child) != 0)
		cannot_start(c, spawn_errno(c->child));
	else if (c->status == -1)
		snprintf(c->end, sizeof(c->end), "does not end");
	else
		spawn_describe(c->child, c->end, sizeof(c->end));
	log_say(LOG_INFO, "COMMAND %s", c->end);
	c->state = COMMAND_OVER;
	spawn_release(c->child, now);
	c->child = NULL;
}

static void
step_ending(struct command *c, int64_t now)
{
	bool left;

	if (now < c->look_at)
		return;
	if (now >= c->kill_at && c->give_up_at == 0)
		c->give_up_at = now + GRACE_LEFT;
	left = signal_group(c);
	left = signal_orphans(c) || left;
	c->look_at = now + LOOK_PAUSE;
	if (left && (c->give_up_at == 0 || now < c->give_up_at))
		return;
	if (left)
		log_say(LOG_ERROR, "a process of COMMAND does not end after SIGKILL");
	be_over(c, now);
}

/* ---- output ---- */

/*
 * Keep the newest bytes, from the start of a character.  ${n} is at most
 * PIECE_MOST.
 */
static void
keep_output(struct command *c, const char *p, size_t n)
{
	char oldest[PIECE_MOST];
	size_t had = c->output.used;

	if (!buf_put(&c->output, p, n))
		c->dropped += n - (c->output.used - had);
	if (c->output.used <= COMMAND_OUTPUT_MOST)
		return;
	n = buf_take(&c->output, oldest, c->output.used - COMMAND_OUTPUT_MOST);
	c->dropped += n + buf_take(&c->output, oldest, log_missing(oldest, n));
}

/*
 * When COMMAND is over, its last output waits in the pipe for room, so that none
 * is dropped.
 */
static bool
may_read(const struct command *c)
{
	return c->state != COMMAND_OVER || c->output.used + PIECE_MOST <= COMMAND_OUTPUT_MOST;
}

static void
read_output(struct command *c)
{
	char piece[PIECE_MOST];
	ssize_t n = 1;
	int i;

	for (i = 0; i < READS && n > 0 && c->out != -1 && may_read(c); i++) {
		n = read(c->out, piece, sizeof(piece));
		if (n > 0)
			keep_output(c, piece, (size_t)n);
		else if (n == 0 ||
			 (errno != EINTR && (errno != EAGAIN || c->state == COMMAND_OVER)))
			os_close(&c->out);
	}
}

/* Move a piece of output to the stream.  False: not possible now. */
static bool
send_piece(struct command *c)
{
	unsigned char piece[PIECE_MOST];
	size_t room = stream_room(c->stream), n;

	if (c->output.used == 0 || stream_is_reset(c->stream) || room <= PIECE_ROOM)
		return false;
	if (c->dropped > 0) {
		frame_put(piece, c->dropped, RECORD_DROPPED_SIZE);
		put_record(c, RECORD_DROPPED, piece, RECORD_DROPPED_SIZE);
		c->dropped = 0;
	}
	room -= PIECE_ROOM;
	n = buf_take(&c->output, piece, room < sizeof(piece) ? room : sizeof(piece));
	put_record(c, RECORD_OUTPUT, piece, n);
	return true;
}

static void
send_end(struct command *c)
{
	unsigned char body[sizeof(c->end) + 1];
	size_t n = strlen(c->end);

	body[0] = (unsigned char)c->status;
	memcpy(body + 1, c->end, n);
	c->end[0] = '\0';
	put_record(c, RECORD_END, body, n + 1);
	if (!stream_is_reset(c->stream))
		stream_shutdown(c->stream);
}

static void
send_output(struct command *c)
{
	if (c->stream == NULL)
		return;
	while (send_piece(c))
		;
	if (c->state == COMMAND_OVER && c->out == -1 && c->output.used == 0 && c->end[0] != '\0' &&
	    !stream_is_reset(c->stream))
		send_end(c);
}

/* ---- the stream ---- */

static void
add_to_words(struct command *c, const char *p, size_t n)
{
	if (c->words_n + n > COMMAND_WORDS_MOST) {
		serve_refuse(c->stream, MUX_UNUSABLE, "the words of COMMAND are too long");
		return;
	}
	memcpy(c->words + c->words_n, p, n);
	c->words_n += n;
}

static void
end_record(struct command *c, int64_t now)
{
	switch (record_type(&c->record)) {
	case RECORD_WORD:
		if (c->state == COMMAND_WORDS)
			add_to_words(c, "", 1);
		break;
	case RECORD_RUN:
		if (c->state == COMMAND_WORDS)
			start(c);
		break;
	case RECORD_STOP:
		interrupt(c, now);
		break;
	}
}

/* Read a part of one record.  False: no byte was there. */
static bool
read_record(struct command *c, int64_t now)
{
	char body[1024];
	size_t n = sizeof(body);
	bool more = record_read(&c->record, c->stream, body, &n);

	if (n > 0 && record_type(&c->record) == RECORD_WORD && c->state == COMMAND_WORDS)
		add_to_words(c, body, n);
	if (record_ends(&c->record))
		end_record(c, now);
	return more;
}

static void
step_stream(struct command *c, int64_t now)
{
	if (c->stream == NULL)
		return;
	while (!stream_is_reset(c->stream) && read_record(c, now))
		;
	if (!stream_is_reset(c->stream) && !stream_eof_read(c->stream))
		return;
	stream_release(c->stream);
	c->stream = NULL;
	command_stop(c, now);
}

bool
command_open(struct command *c, struct stream *s)
{
	char why[128];

	if (c == NULL)
		return serve_refuse(
		    s, MUX_FORBIDDEN, "this relay runs no command: it was started without -r");
	if (c->state != COMMAND_NONE)
		return serve_refuse(s, MUX_FORBIDDEN, "this relay runs one command");
	if (!dir_make(&c->dir)) {
		snprintf(why, sizeof(why), "cannot make a directory in /tmp: %s", strerror(errno));
		return serve_refuse(s, MUX_UNUSABLE, why);
	}
	c->stream = s;
	c->state = COMMAND_WORDS;
	stream_accept(s);
	return true;
}

/* ---- life ---- */

struct command *
command_new(struct children *kids)
{
	struct command *c = calloc(1, sizeof(*c));

	if (c == NULL)
		return NULL;
	c->kids = kids;
	c->dir.fd = c->out = c->slot = -1;
	return c;
}

void
command_want(struct command *c, struct pollset *ps)
{
	if (c == NULL)
		return;
	c->slot = pollset_add(ps, may_read(c) ? c->out : -1, POLLIN);
	if (c->state == COMMAND_ENDING)
		pollset_until(ps, c->look_at);
	if (c->state == COMMAND_OVER && c->out != -1 && may_read(c))
		pollset_until(ps, ps->now); /* to the end of what it has written */
	if (c->stream != NULL && c->output.used > 0 && stream_room(c->stream) > PIECE_ROOM)
		pollset_until(ps, ps->now);
	if (c->child != NULL)
		spawn_want(c->child, ps);
}

void
command_step(struct command *c, const struct pollset *ps)
{
	if (c == NULL)
		return;
	step_stream(c, ps->now);
	if (c->child != NULL)
		spawn_step(c->child, ps);
	if (c->state == COMMAND_RUNS && spawn_exit(c->child) != -1)
		command_stop(c, ps->now);
	if (c->state == COMMAND_ENDING)
		step_ending(c, ps->now);
	if (pollset_ready(ps, c->slot) != 0 || c->state == COMMAND_OVER)
		read_output(c);
	send_output(c);
}

void
command_free(struct command *c)
{
	if (c == NULL)
		return;
	dir_remove(&c->dir);
	os_close(&c->out);
	buf_clear(&c->output);
	free(c);
}
