/*
 * cli/control.h - the control socket of a relay, which -O uses: see cli/ask.h.
 *
 * Each relay that listens has a Unix socket in the directory of cli/cache.h.  A
 * client sends one line in one write, and reads until EOF:
 *
 *   status   The answer is a report: lines of a key and a value.
 *   login    The same.  If the last login was refused, relay starts another.
 *   exit     The answer is "stopping".  EOF follows when the process ends.
 *
 * Only processes of the same user and of root are served, at most four at a
 * time.  A client has one second to send its line and to read the report.
 */
#ifndef CLI_CONTROL_H
#define CLI_CONTROL_H

#include <stdbool.h>

struct conns;
struct control;
struct listeners;
struct options;
struct pollset;
struct tunnel;

#define CONTROL_FILES 5 /* descriptors: the listener and four clients */
#define CONTROL_REPORT 16384
#define CONTROL_LEAVING "stopping\n" /* the answer to exit */

/* The sources of a report.  All pointers are borrowed. */
struct control_view {
	const struct options *options;
	const struct listeners *listeners;
	const struct conns *conns;
	struct tunnel *tunnel; /* NULL: no link */
	const bool *ready;     /* the addresses were printed */
};

/*
 * control_open(view):
 * Listen on the control socket of this process.  Return NULL if that fails; the
 * reason is logged with -v.  It is logged without -v if another user has made
 * the directory in /tmp.  The other functions accept NULL.
 */
struct control *control_open(const struct control_view *view);

/*
 * control_want(c, ps), control_step(c, ps):
 * Once a turn, before and after the poll.  control_step returns true if a client
 * has sent exit.  Neither blocks.
 */
void control_want(struct control *c, struct pollset *ps);
bool control_step(struct control *c, const struct pollset *ps);

/*
 * control_close(c):
 * At exit: remove the socket file.  The sockets of the clients stay open: a
 * client gets EOF when the process has ended.
 */
void control_close(struct control *c);

#endif
