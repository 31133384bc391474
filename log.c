/*
 * log.c - words for people, on stderr.
 *
 * A message is one line, begun with "relay: ", written by one write(2) so that lines of several processes do not mix.  Paths and
 * names may come from strangers: control characters are shown as '?', so that none of them steers the reader's terminal.  errno is
 * left as it was, and nothing waits for a reader of stderr longer than WAIT_MS: stderr may share a non-blocking pipe with stdout.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "relay.h"

#define WAIT_MS 100
#define LINE_SIZE 6144 /* a path of SOCK_PATH_MAX and what is said of it */

static enum log_level shown = LOG_NOTICE;

void
log_show(enum log_level level)
{
	shown = level;
}

/*
 * POLLOUT promises a pipe's writer PIPE_BUF bytes without blocking.  A reader that did not read for WAIT_MS is not waited for again
 * until it reads: its lines are dropped.
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

void
log_say(enum log_level level, const char *fmt, ...)
{
	char line[LINE_SIZE] = "relay: ";
	size_t head = strlen(line), n, i;
	int saved = errno;
	va_list ap;
	int len;

	if (level > shown)
		return;
	va_start(ap, fmt);
	len = vsnprintf(line + head, sizeof(line) - head - 1, fmt, ap);
	va_end(ap);
	n = len < 0 ? head : head + (size_t)len;
	if (n > sizeof(line) - 2)
		n = sizeof(line) - 2;
	for (i = head; i < n; i++)
		if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
			line[i] = '?';
	line[n++] = '\n';
	write_line(line, n);
	errno = saved;
}
