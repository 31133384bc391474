/*
 * base/signals.h - signals as a descriptor.
 */
#ifndef BASE_SIGNALS_H
#define BASE_SIGNALS_H

#include <signal.h>

/*
 * signals_open():
 * Catch SIGTERM, SIGINT, SIGHUP, SIGCHLD and SIGUSR1, ignore SIGPIPE and
 * SIGXFSZ, and block no signal.  If SIGTERM, SIGINT or SIGHUP is ignored
 * already, it stays ignored.  Return the descriptor to poll for input, or -1
 * with errno set.
 */
int signals_open(void);

/* signals_take(): Return the next signal that was caught; 0: none. */
int signals_take(void);

/*
 * signals_child():
 * Set all actions and the mask to what relay inherited.
 *
 * signals_fork():
 * fork(2) with all signals blocked, and signals_child in the child.
 */
void signals_child(void);
pid_t signals_fork(void);

#endif
