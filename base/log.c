/*
 * base/log.c - messages, on stderr or in a file.
 *
 * A message is one line: the time if it goes to a file, "relay: ", and a text.
 * One write(2) writes up to PIPE_BUF bytes of it, so that lines of several
 * processes do not mix.  On a terminal the remedy of an error has a line of its
 * own.  A live line stays below all messages.  Paths and names may come from
 * other users: no text controls the terminal.
 *
 * Nothing waits longer than WAIT_MS for a reader of stderr.  stderr may share a
 * non-blocking pipe with stdout, so a full pipe is not an error.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "base/os.h"
#include "base/poll.h"
#include "base/log.h"

#ifndef PIPE_BUF /* POSIX: undefined if it differs from file to file */
#define PIPE_BUF _POSIX_PIPE_BUF
#endif

#define WAIT_MS 100
#define FAILED_MOST 8  /* writes in spite of POLLOUT, for a line */
#define LINE_SIZE 6144 /* a path of UNIXPATH_MAX and the text around it */
#define LAST_SIZE 512
#define STAMP_SIZE 80  /* six numbers of any size */
#define PATH_SIZE 4608 /* UNIXPATH_MAX and more */
#define LIVE_SIZE 2048
#define FAILURES 8           /* that are counted at the same time */
#define COUNTED_FOR 60000000 /* us: then a failure is written again */

#define ERASE "\r\033[K"
#define RED "\033[31m"
#define BOLD "\033[1;36m"
#define NORMAL "\033[0m"
#define INDENT "\n    "

static enum log_level shown = LOG_NOTICE;
static char live[LIVE_SIZE]; /* the line below the messages; "": none */
static bool drawn;           /* it is the last line of the terminal */
static bool in_line;         /* log_output has written a line without its end */
static bool stuck;           /* the reader did not read for WAIT_MS */

/* Where messages go: stderr, or the file of log_to_file. */
static int log_fd = STDERR_FILENO;
static const char *file_path; /* NULL: stderr */
static long file_most;        /* bytes; 0: no limit */

static struct {
	char text[LAST_SIZE];
	int64_t at; /* us */
} last;

static struct failure {
	char text[LAST_SIZE];
	enum log_level level;
	int64_t at;     /* us: when it was written */
	unsigned times; /* since then */
} failures[FAILURES];

void
log_show(enum log_level level)
{
	shown = level;
}

bool
log_shows(enum log_level level)
{
	return level <= shown;
}

/* ---- a file ---- */

/*
 * O_NONBLOCK: a FIFO without a reader is an error, and a full one does not
 * block.  A file of another user is refused: its owner could read the messages.
 * Another user can give a second name to any file of this user.
 */
int
log_to_file(const char *path, long most)
{
	int fd = open(path,
	    O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0600);
	struct stat st;

	if (fd == -1 || fstat(fd, &st) == -1) {
		os_close(&fd);
		return -1;
	}
	if (!S_ISCHR(st.st_mode) && (st.st_uid != geteuid() || st.st_nlink > 1)) {
		close(fd);
		errno = EEXIST;
		return -1;
	}
	if (log_fd != STDERR_FILENO)
		close(log_fd);
	log_fd = fd;
	file_path = path;
	file_most = most;
	return 0;
}

const char *
log_file(void)
{
	return file_path;
}

/*
 * If the file has no room for ${n} bytes, begin a new one.  Return false if
 * that fails: the line is dropped.
 */
static bool
make_room(size_t n)
{
	char old[PATH_SIZE];
	struct stat st;

	if (file_most == 0 || fstat(log_fd, &st) == -1 || st.st_size + (off_t)n <= (off_t)file_most)
		return true;
	snprintf(old, sizeof(old), "%s.old", file_path);
	/* ENOENT: renamed before, when the new file could not be opened. */
	if (rename(file_path, old) == -1 && errno != ENOENT)
		return false;
	return log_to_file(file_path, file_most) == 0;
}

/* If the line goes to a file, write the time.  Return its length, or 0. */
static size_t
write_stamp(char line[STAMP_SIZE])
{
	time_t now = time(NULL);
	struct tm *utc = file_path == NULL ? NULL : gmtime(&now);

	if (utc == NULL)
		return 0;
	/* strftime would link the code for time zones into a static relay. */
	return (size_t)snprintf(line, STAMP_SIZE, "%04d-%02d-%02dT%02d:%02d:%02dZ ",
	    utc->tm_year + 1900, utc->tm_mon + 1, utc->tm_mday, utc->tm_hour, utc->tm_min,
	    utc->tm_sec);
}

/* ---- lines ---- */

/*
 * Write up to PIPE_BUF bytes, as write(2).  A terminal may block after POLLOUT,
 * and other processes share its flags: write through another description.
 */
static ssize_t
write_some(const char *p, size_t n)
{
	const char *name = ttyname(log_fd);
	int tty = name == NULL ? -1 : open(name, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	ssize_t w = write(tty != -1 ? tty : log_fd, p, n < PIPE_BUF ? n : PIPE_BUF);
	int saved = errno;

	os_close(&tty);
	errno = saved;
	return w;
}

/*
 * After POLLOUT, a write of PIPE_BUF bytes to a pipe does not block.  If the
 * reader does not read for WAIT_MS, the line is dropped.  Later lines are
 * dropped at once until the reader reads again.  One signal does not end the
 * wait; a second one does.
 */
static void
write_line(const char *p)
{
	struct pollfd pfd = { .fd = log_fd, .events = POLLOUT };
	size_t n = strlen(p);
	int r, failed = 0;
	ssize_t w;

	while (n > 0) {
		r = poll(&pfd, 1, stuck ? 0 : WAIT_MS);
		if (r == -1 && errno == EINTR)
			r = poll(&pfd, 1, stuck ? 0 : WAIT_MS);
		stuck = r != 1;
		if (stuck)
			return;
		w = write_some(p, n);
		if (w > 0) {
			p += w;
			n -= (size_t)w;
		} else if (w == 0 || ++failed == FAILED_MOST ||
			   (errno != EINTR && errno != EAGAIN && errno != EWOULDBLOCK)) {
			return;
		}
	}
}

bool
log_continues(char c)
{
	return ((unsigned char)c & 0xc0) == 0x80;
}

size_t
log_missing(const char *p, size_t n)
{
	size_t later = 0, length;
	unsigned char first;

	while (later < n && later < 3 && log_continues(p[n - later - 1]))
		later++;
	if (later == n)
		return 0;
	first = (unsigned char)p[n - later - 1];
	length = first < 0xc0 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
	return length > later + 1 ? length - later - 1 : 0;
}

size_t
log_whole(const char *p, size_t n)
{
	size_t whole = n;

	if (log_missing(p, n) > 0)
		while (log_continues(p[--whole]))
			;
	return whole > 0 ? whole : n;
}

/*
 * Return the length of the UTF-8 character (RFC 3629) at ${p}.  Return 0 for a
 * control character, and for bytes that are not UTF-8.
 */
static size_t
plain_character(const unsigned char *p)
{
	size_t length = p[0] < 0x80 ? 1 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4, i;

	if (length == 1)
		return p[0] >= ' ' && p[0] != 0x7f;
	if (p[0] < 0xc2 || p[0] > 0xf4)
		return 0;
	for (i = 1; i < length; i++)
		if (!log_continues((char)p[i]))
			return 0;
	/*
	 * U+0080 to U+009F are control characters: U+009B acts as ESC [.
	 * Overlong forms are not UTF-8.
	 */
	if ((p[0] == 0xc2 || p[0] == 0xe0) && p[1] < 0xa0)
		return 0;
	return p[0] == 0xf0 && p[1] < 0x90 ? 0 : length;
}

void
log_plain(char *text, char but)
{
	unsigned char *p = (unsigned char *)text;
	size_t length;

	while (*p != '\0') {
		length = plain_character(p);
		if (length == 0 && *p < 0xa0 && *p != (unsigned char)but)
			*p = '?';
		p += length == 0 ? 1 : length;
	}
}

const char *
log_last(long *seconds)
{
	*seconds = (long)((pollset_clock() - last.at) / 1000000);
	return last.text;
}

/* ---- a terminal ---- */

bool
log_on_terminal(void)
{
	const char *term = getenv("TERM");

	return shown == LOG_NOTICE && file_path == NULL && term != NULL && *term != '\0' &&
	       strcmp(term, "dumb") != 0 && isatty(STDERR_FILENO);
}

bool
log_in_colour(void)
{
	const char *no_color = getenv("NO_COLOR");

	return (no_color == NULL || *no_color == '\0') && log_on_terminal();
}

/* In the background, the last line of the terminal is the shell's prompt. */
static bool
is_foreground(void)
{
	pid_t group = tcgetpgrp(STDERR_FILENO);

	return group == -1 || group == getpgrp();
}

/* Without echo, the last line probably is a prompt for a password. */
static bool
shows_prompt(void)
{
	struct termios term;

	return log_on_terminal() && tcgetattr(STDERR_FILENO, &term) == 0 &&
	       (term.c_lflag & ECHO) == 0;
}

static void
erase(void)
{
	if (!drawn)
		return;
	if (is_foreground() && log_on_terminal())
		write_line(ERASE);
	else
		live[0] = '\0';
	drawn = false;
}

static void
draw(void)
{
	if (live[0] == '\0' || in_line)
		return;
	write_line(live);
	drawn = true;
}

static void
begin_line(void)
{
	if (drawn)
		erase();
	else if (in_line)
		write_line("\n");
	else if (shows_prompt())
		write_line("\r\n");
	in_line = false;
}

bool
log_live(const char *text)
{
	int saved = errno;

	if (strcmp(text, live) != 0) {
		erase();
		snprintf(live, sizeof(live), "%s", is_foreground() ? text : "");
		draw();
	}
	errno = saved;
	return live[0] != '\0';
}

void
log_above(const char *line)
{
	int saved = errno;

	begin_line();
	write_line(line);
	write_line("\n");
	draw();
	errno = saved;
}

/* The remedy of an error follows the last "; ".  Return its offset, or ${n}. */
static size_t
find_remedy(const char *line, size_t n)
{
	size_t i;

	for (i = n; i > 2; i--)
		if (line[i - 2] == ';' && line[i - 1] == ' ')
			return i;
	return n;
}

/*
 * Copy the line of ${n} bytes for a terminal: the first ${lit} bytes in
 * ${colour}, and the remedy on a line of its own.
 */
static void
decorate(char *dst, size_t size, const char *line, size_t n, size_t lit, const char *colour)
{
	bool coloured = log_in_colour();
	size_t remedy = strcmp(colour, RED) == 0 ? find_remedy(line, n) : n;
	size_t cut = remedy < n ? remedy - 2 : n; /* before "; " */

	if (lit > cut)
		lit = cut;
	snprintf(dst, size, "%s%.*s%s%.*s%s%s\n", coloured ? colour : "", (int)lit, line,
	    coloured ? NORMAL : "", (int)(cut - lit), line + lit, remedy < n ? INDENT : "",
	    line + remedy);
}

/* ---- messages ---- */

/*
 * Write ${prefix} and ${text}.  On a terminal, the first ${lit} bytes have the
 * colour ${colour}.
 */
static void
write_message(
    enum log_level level, const char *prefix, const char *text, size_t lit, const char *colour)
{
	char line[LINE_SIZE], decorated[LINE_SIZE + 64];
	size_t stamp = write_stamp(line), n;
	const char *out = line;

	/* One byte stays for the newline. */
	snprintf(line + stamp, sizeof(line) - stamp - 1, "%s%s", prefix, text);
	log_plain(line, ' ');
	n = strlen(line);
	if (level == LOG_ERROR || level == LOG_NOTICE) {
		snprintf(last.text, sizeof(last.text), "%.*s", LAST_SIZE - 1, line + stamp);
		last.at = pollset_clock();
	}
	if (lit > 0 && log_on_terminal()) {
		decorate(decorated, sizeof(decorated), line, n, lit, colour);
		out = decorated;
	} else {
		strcpy(line + n, "\n");
	}
	begin_line();
	if (make_room(strlen(out)))
		write_line(out);
	draw();
}

static void
say(enum log_level level, const char *text)
{
	write_message(level, LOG_PREFIX, text, level == LOG_ERROR ? LINE_SIZE : 0, RED);
}

void
log_say(enum log_level level, const char *fmt, ...)
{
	char text[LINE_SIZE];
	int saved = errno;
	va_list ap;

	if (level > shown)
		return;
	log_counts();
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	say(level, text);
	errno = saved;
}

void
log_quote(enum log_level level, const char *text, size_t lit)
{
	int saved = errno;

	if (level <= shown)
		write_message(level, "", text, lit, BOLD);
	errno = saved;
}

/* ---- failures of connections ---- */

/* If the failure was repeated since it was written, write how often. */
static void
write_count(struct failure *f)
{
	char text[LINE_SIZE];

	if (f->times == 0)
		return;
	snprintf(text, sizeof(text), "%s (repeated %u time%s)", f->text, f->times,
	    f->times == 1 ? "" : "s");
	f->times = 0;
	say(f->level, text);
}

void
log_counts(void)
{
	int saved = errno, i;

	for (i = 0; i < FAILURES; i++)
		write_count(&failures[i]);
	errno = saved;
}

/* Return the failure with this text, or the one to replace. */
static struct failure *
find_failure(const char *text)
{
	struct failure *oldest = &failures[0];
	int i;

	for (i = 0; i < FAILURES; i++) {
		if (strcmp(failures[i].text, text) == 0)
			return &failures[i];
		if (failures[i].at < oldest->at)
			oldest = &failures[i];
	}
	write_count(oldest);
	oldest->text[0] = '\0';
	return oldest;
}

static void
count_failure(enum log_level level, const char *text)
{
	struct failure *f = find_failure(text);
	int64_t now = pollset_clock();

	if (f->text[0] != '\0' && now - f->at < COUNTED_FOR) {
		f->times++;
		return;
	}
	if (f->times > 0) {
		f->times++;
		write_count(f);
	} else {
		say(level, text);
	}
	f->level = level;
	snprintf(f->text, sizeof(f->text), "%.*s", (int)sizeof(f->text) - 1, text);
	f->at = now;
}

void
log_failure(enum log_level level, const char *fmt, ...)
{
	char text[LINE_SIZE];
	int saved = errno;
	va_list ap;

	if (level > shown)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (shown > LOG_NOTICE || strlen(text) >= LAST_SIZE)
		say(level, text);
	else
		count_failure(level, text);
	errno = saved;
}

int
log_descriptor(void)
{
	return log_fd;
}

size_t
log_output(const char *p, size_t n)
{
	struct pollfd pfd = { .fd = log_fd, .events = POLLOUT };
	int saved = errno;
	ssize_t w;

	n = log_whole(p, n < PIPE_BUF ? n : PIPE_BUF);
	if (n == 0 || poll(&pfd, 1, 0) != 1) {
		errno = saved;
		return 0;
	}
	erase();
	w = make_room(n) ? write_some(p, n) : (ssize_t)n;
	if (w == -1)
		w = errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK ? 0 : (ssize_t)n;
	if (w > 0) {
		in_line = p[w - 1] != '\n';
		stuck = false;
	}
	draw();
	errno = saved;
	return (size_t)w;
}
