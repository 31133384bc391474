/*
 * base/log.c - messages and the status line, on stderr.
 *
 * A message is one line that begins with "relay: ".  Up to PIPE_BUF bytes of it
 * are written by one write(2), so that lines of several processes do not mix.
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
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

#ifndef PIPE_BUF /* it differs from pipe to pipe */
#define PIPE_BUF _POSIX_PIPE_BUF
#endif

#define WAIT_MS 100
#define LINE_SIZE 6144 /* a path of UNIXPATH_MAX and the text around it */

static enum log_level shown = LOG_NOTICE;
static bool status_shown;

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

/*
 * After POLLOUT, a write of PIPE_BUF bytes to a pipe does not block.  If the
 * reader has not read for WAIT_MS, lines are dropped without a wait until the
 * reader continues.
 */
static void
write_line(const char *p, size_t n)
{
	static bool stuck;
	struct pollfd pfd = { .fd = STDERR_FILENO, .events = POLLOUT };
	ssize_t w;

	while (n > 0) {
		stuck = poll(&pfd, 1, stuck ? 0 : WAIT_MS) == 0;
		if (stuck)
			return;
		w = write(STDERR_FILENO, p, n < PIPE_BUF ? n : PIPE_BUF);
		if (w > 0) {
			p += w;
			n -= (size_t)w;
		} else if (w == 0 || (errno != EINTR && errno != EAGAIN && errno != EWOULDBLOCK)) {
			return;
		}
	}
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

/* Erase the status, then write the line. */
static void
write_message(char *line, size_t n)
{
	static const char erase[] = "\r\033[K";

	log_plain(line, n, ' ');
	line[n++] = '\n';
	if (status_shown)
		write_line(erase, sizeof(erase) - 1);
	status_shown = false;
	write_line(line, n);
}

void
log_say(enum log_level level, const char *fmt, ...)
{
	static const char begin[] = LOG_PREFIX;
	char line[LINE_SIZE];
	size_t head = sizeof(begin) - 1, n;
	int saved = errno;
	va_list ap;
	int len;

	if (level > shown)
		return;
	memcpy(line, begin, head);
	va_start(ap, fmt);
	len = vsnprintf(line + head, sizeof(line) - head - 1, fmt, ap);
	va_end(ap);
	n = len < 0 ? head : head + (size_t)len;
	if (n > sizeof(line) - 2)
		n = sizeof(line) - 2;
	write_message(line, n);
	errno = saved;
}

void
log_quote(enum log_level level, const char *text)
{
	char line[LINE_SIZE];
	int saved = errno;

	if (level > shown)
		return;
	snprintf(line, sizeof(line) - 1, "%s", text);
	write_message(line, strlen(line));
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
	if (!isatty(STDERR_FILENO) || term == NULL || strcmp(term, "dumb") == 0) {
		log_say(LOG_NOTICE, "%s", text);
	} else {
		snprintf(shown_text, sizeof(shown_text), "%s", text);
		log_plain(shown_text, strlen(shown_text), ' ');
		n = snprintf(line, sizeof(line), "\r\033[K%s%s%s", plain ? "" : "\033[2m",
		    shown_text, plain ? "" : "\033[0m");
		write_line(line, (size_t)n);
		status_shown = true;
	}
	errno = saved;
}
