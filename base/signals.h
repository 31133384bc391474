/*
 * base/signals.h - signals as a descriptor.
 */
#ifndef BASE_SIGNALS_H
#define BASE_SIGNALS_H

#include <signal.h>

/*
 * signals_open(): catch SIGTERM, SIGINT, SIGHUP, SIGCHLD and SIGUSR1, ignore SIGPIPE and SIGXFSZ, block none; return the descriptor to poll.
 * signals_take(): the next signal that came, 0 if there is none.
 * signals_block(old), signals_restore(old): around a fork.
 * signals_child(): in the child: everything as relay found it at its start.
 */
int signals_open(void);
int signals_take(void);
void signals_block(sigset_t *old);
void signals_restore(const sigset_t *old);
void signals_child(void);

#endif
