/*
 * base/status.h - what relay is doing now, as one line of a terminal.
 *
 * The line has a sign, a name, an action, a bar and a time.  It is cut to the
 * width of the terminal, which is read for each line.  The signs are ASCII
 * unless the locale has UTF-8.
 *
 * Where log_on_terminal is false, the functions do nothing.
 */
#ifndef BASE_STATUS_H
#define BASE_STATUS_H

#include <stddef.h>
#include <stdint.h>

struct step {
	const char *name; /* a host, or hosts */
	const char *what; /* the action */
	int64_t began_at;
	int64_t ends_at;  /* not 0: the seconds until then are shown */
	size_t done, all; /* bytes; all 0: no bar */
};

/*
 * status_draw(s, now):
 * Show ${s} below all messages.  Return the time of the next draw; INT64_MAX:
 * never.  A draw for each write of a copy would fill the terminal's queue, and
 * messages would be lost.
 *
 * status_done(s, now):
 * Write ${s} above that line, with a tick and the time that it took.
 *
 * status_clear():
 * Show no status.
 */
int64_t status_draw(const struct step *s, int64_t now);
void status_done(const struct step *s, int64_t now);
void status_clear(void);

#endif
