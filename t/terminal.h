/*
 * terminal.h - a terminal in place of stderr
 *
 * Define _XOPEN_SOURCE 700, for posix_openpt, before the first header.
 */
#ifndef T_TERMINAL_H
#define T_TERMINAL_H
#include "t/check.h"

/* From now on stderr is a terminal.  Return its other side. */
static inline int
terminal(void)
{
	int fd = posix_openpt(O_RDWR | O_NOCTTY), tty;

	ck_assert(fd != -1 && grantpt(fd) == 0 && unlockpt(fd) == 0);
	tty = open(ptsname(fd), O_RDWR | O_NOCTTY);
	ck_assert_int_ne(tty, -1);
	ck_assert_int_eq(dup2(tty, 2), 2);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	setenv("TERM", "xterm", 1);
	unsetenv("NO_COLOR");
	return fd;
}

static inline const char *
shown_on(int fd)
{
	static char text[4096];
	ssize_t n = 0, r;

	while ((r = read(fd, text + n, sizeof(text) - 1 - (size_t)n)) > 0)
		n += r;
	text[n] = '\0';
	return text;
}

#endif
