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
 * signals_block(old), signals_restore(old):
 * Before a fork, block all signals and store the old mask in ${old}.  After it,
 * set the old mask again.
 */
void signals_block(sigset_t *old);
void signals_restore(const sigset_t *old);

/*
 * signals_child():
 * In a child, after the fork: set all actions and the mask to what relay
 * inherited.
 */
void signals_child(void);

#endif
