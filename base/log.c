/*
 * base/log.c - messages and the status line, on stderr or in a file.
 *
 * A message is one line: the time if it goes to a file, "relay: ", and a text.
 * Up to PIPE_BUF bytes of it are written by one write(2), so that lines of
 * several processes do not mix.
 * A status stays on the last line of a terminal until the next message.
 *
 * Paths and names may come from other users.  Each control character, of ASCII
 * or from U+0080 to U+009F, is replaced by '?', so that no text controls the
 * terminal.
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
#include <time.h>
#include <unistd.h>

#include "base/log.h"

#ifndef PIPE_BUF /* POSIX: undefined if it differs from file to file */
#define PIPE_BUF _POSIX_PIPE_BUF
#endif

#define WAIT_MS 100
#define LINE_SIZE 6144 /* a path of UNIXPATH_MAX and the text around it */
#define LAST_SIZE 512
#define STAMP_SIZE 80  /* six numbers of any size */
#define PATH_SIZE 4608 /* UNIXPATH_MAX and more */

static enum log_level shown = LOG_NOTICE;
static bool status_shown;
static bool in_line; /* log_output has written a line without its end */

/* Where messages go: stderr, or the file of log_to_file. */
static int log_fd = STDERR_FILENO;
static const char *file_path; /* NULL: stderr */
static off_t file_most;       /* 0: no limit */

static struct {
	char text[LAST_SIZE];
	time_t at; /* by CLOCK_MONOTONIC */
} last;

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
 */
static int
open_file(const char *path)
{
	int fd = open(path,
	    O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0600);
	struct stat st;
	int saved = EEXIST;

	if (fd == -1)
		return -1;
	if (fstat(fd, &st) == -1)
		saved = errno;
	else if (S_ISCHR(st.st_mode) || st.st_uid == geteuid())
		return fd;
	close(fd);
	errno = saved;
	return -1;
}

int
log_to_file(const char *path, long most)
{
	int fd = open_file(path);

	if (fd == -1)
		return -1;
	if (log_fd != STDERR_FILENO)
		close(log_fd);
	log_fd = fd;
	file_path = path;
	file_most = (off_t)most;
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
	int fd;

	if (file_most == 0 || fstat(log_fd, &st) == -1 || st.st_size + (off_t)n <= file_most)
		return true;
	snprintf(old, sizeof(old), "%s.old", file_path);
	/* ENOENT: renamed before, when the new file could not be opened. */
	if (rename(file_path, old) == -1 && errno != ENOENT)
		return false;
	fd = open_file(file_path);
	if (fd == -1)
		return false;
	close(log_fd);
	log_fd = fd;
	return true;
}

/* In a file, a line begins with the time: write it and return its length. */
static size_t
write_stamp(char line[STAMP_SIZE])
{
	time_t now = time(NULL);
	struct tm *utc = file_path == NULL ? NULL : gmtime(&now);
	int n = 0;

	/* strftime would add time zones to a static relay. */
	if (utc != NULL)
		n = snprintf(line, STAMP_SIZE, "%04d-%02d-%02dT%02d:%02d:%02dZ ",
		    utc->tm_year + 1900, utc->tm_mon + 1, utc->tm_mday, utc->tm_hour, utc->tm_min,
		    utc->tm_sec);
	return n > 0 && n < STAMP_SIZE ? (size_t)n : 0;
}

/* ---- lines ---- */

/*
 * After POLLOUT, a write of PIPE_BUF bytes to a pipe does not block.  If the
 * reader has not read for WAIT_MS, lines are dropped without a wait until the
 * reader continues.
 */
static void
write_line(const char *p, size_t n)
{
	static bool stuck;
	struct pollfd pfd = { .fd = log_fd, .events = POLLOUT };
	ssize_t w;

	while (n > 0) {
		stuck = poll(&pfd, 1, stuck ? 0 : WAIT_MS) == 0;
		if (stuck)
			return;
		w = write(log_fd, p, n < PIPE_BUF ? n : PIPE_BUF);
		if (w > 0) {
			p += w;
			n -= (size_t)w;
		} else if (w == 0 || (errno != EINTR && errno != EAGAIN && errno != EWOULDBLOCK)) {
			return;
		}
	}
}

static void
end_line(void)
{
	if (in_line)
		write_line("\n", 1);
	in_line = false;
}

/*
 * Return the length of the UTF-8 character (RFC 3629) at the start of the ${n}
 * bytes ${p}.  Return 0 for a control character, and for bytes that are not
 * UTF-8.
 */
static size_t
plain_character(const unsigned char *p, size_t n)
{
	size_t length = p[0] < 0x80 ? 1 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4, i;

	if (length == 1)
		return p[0] >= ' ' && p[0] != 0x7f;
	if (p[0] < 0xc2 || p[0] > 0xf4 || length > n)
		return 0;
	for (i = 1; i < length; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	/*
	 * U+0080 to U+009F are control characters: U+009B acts as ESC [.  The
	 * other bytes rejected here are overlong forms.
	 */
	if ((p[0] == 0xc2 || p[0] == 0xe0) && p[1] < 0xa0)
		return 0;
	return p[0] == 0xf0 && p[1] < 0x90 ? 0 : length;
}

void
log_plain(char *text, size_t n, char but)
{
	unsigned char *p = (unsigned char *)text;
	size_t i = 0, length;

	while (i < n) {
		length = plain_character(p + i, n - i);
		if (length == 0 && p[i] < 0xa0 && text[i] != but)
			text[i] = '?';
		i += length == 0 ? 1 : length;
	}
}

static time_t
clock_seconds(void)
{
	struct timespec ts;

	return clock_gettime(CLOCK_MONOTONIC, &ts) == 0 ? ts.tv_sec : 0;
}

static void
remember(const char *text)
{
	snprintf(last.text, sizeof(last.text), "%s", text);
	last.at = clock_seconds();
}

const char *
log_last(long *seconds)
{
	*seconds = (long)(clock_seconds() - last.at);
	return last.text;
}

/*
 * Write the line of ${n} bytes, ${stamp} of which are its time.  Erase the
 * status first.
 */
static void
write_message(enum log_level level, char *line, size_t stamp, size_t n)
{
	static const char erase[] = "\r\033[K";

	log_plain(line, n, ' ');
	line[n] = '\0';
	if (level <= LOG_NOTICE)
		remember(line + stamp);
	line[n++] = '\n';
	if (status_shown)
		write_line(erase, sizeof(erase) - 1);
	status_shown = false;
	end_line();
	if (make_room(n))
		write_line(line, n);
}

void
log_say(enum log_level level, const char *fmt, ...)
{
	static const char begin[] = LOG_PREFIX;
	char line[LINE_SIZE];
	size_t stamp, head, n;
	int saved = errno;
	va_list ap;
	int len;

	if (level > shown)
		return;
	stamp = write_stamp(line);
	head = stamp + sizeof(begin) - 1;
	memcpy(line + stamp, begin, sizeof(begin) - 1);
	va_start(ap, fmt);
	len = vsnprintf(line + head, sizeof(line) - head - 1, fmt, ap);
	va_end(ap);
	n = len < 0 ? head : head + (size_t)len;
	if (n > sizeof(line) - 2)
		n = sizeof(line) - 2;
	write_message(level, line, stamp, n);
	errno = saved;
}

void
log_quote(enum log_level level, const char *text)
{
	char line[LINE_SIZE];
	int saved = errno;
	size_t stamp;

	if (level > shown)
		return;
	stamp = write_stamp(line);
	snprintf(line + stamp, sizeof(line) - stamp - 1, "%s", text);
	write_message(level, line, stamp, strlen(line));
	errno = saved;
}

void
log_status(const char *text)
{
	const char *term = getenv("TERM"), *no_color = getenv("NO_COLOR");
	bool plain = no_color != NULL && *no_color != '\0';
	char line[256], shown_text[201];
	int saved = errno, n;

	if (shown < LOG_NOTICE)
		return;
	if (!isatty(log_fd) || term == NULL || strcmp(term, "dumb") == 0) {
		log_say(LOG_NOTICE, "%s", text);
	} else {
		end_line();
		snprintf(shown_text, sizeof(shown_text), "%s", text);
		log_plain(shown_text, strlen(shown_text), ' ');
		n = snprintf(line, sizeof(line), "\r\033[K%s%s%s", plain ? "" : "\033[2m",
		    shown_text, plain ? "" : "\033[0m");
		write_line(line, (size_t)n);
		status_shown = true;
	}
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
	static const char erase[] = "\r\033[K";
	struct pollfd pfd = { .fd = log_fd, .events = POLLOUT };
	int saved = errno;
	ssize_t w;

	if (n > PIPE_BUF)
		n = PIPE_BUF;
	if (n == 0 || poll(&pfd, 1, 0) != 1) {
		errno = saved;
		return 0;
	}
	if (status_shown)
		write_line(erase, sizeof(erase) - 1);
	status_shown = false;
	w = make_room(n) ? write(log_fd, p, n) : (ssize_t)n;
	if (w == -1)
		w = errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK ? 0 : (ssize_t)n;
	if (w > 0)
		in_line = p[w - 1] != '\n';
	errno = saved;
	return (size_t)w;
}
