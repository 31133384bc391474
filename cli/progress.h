/*
 * cli/progress.h - what a tunnel is doing, on a terminal.
 *
 * While a tunnel starts, reconnects or waits for its targets, the last line of
 * the terminal shows it.  A step that succeeded leaves a line with the time it
 * took.  The line is cut to the width of the terminal.  Its signs are ASCII
 * unless the locale has UTF-8.  Without a terminal nothing is written.
 *
 * ssh asks for passwords on the same terminal, at any time during a login, and
 * relay cannot detect that.  So nothing is drawn during a login that may ask.
 */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct options;
struct pollset;
struct tunnel;

enum progress_phase {
	PROGRESS_NONE, /* the link is up, or has ended: nothing to show */
	PROGRESS_LOGIN,
	PROGRESS_START, /* the far shell has answered */
	PROGRESS_COPY,
	PROGRESS_WAIT, /* for the targets (-w or COMMAND) */
	PROGRESS_DOWN  /* until the next login */
};

struct progress {
	const struct options *options;
	const struct tunnel *tunnel; /* NULL: show nothing */
	const bool *ready;           /* the targets answer */
	enum progress_phase phase;
	int64_t began_at; /* of the phase */
	int64_t draw_at;  /* of the next picture */
};

/*
 * progress_show(p, ps):
 * Show the state of the tunnel, and add the time of the next change to ${ps}.
 * Call it once a turn, and before a message about the new state.
 */
void progress_show(struct progress *p, struct pollset *ps);

#endif
