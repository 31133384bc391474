/*
 * cli/daemon.h - the background process of -f, the pid file of -P, the log of
 * -E.
 *
 * With -f, daemon_fork() forks at the start of relay, so that all commands are
 * children of the process that stays.  Until daemon_detach(), the parent waits,
 * and the child keeps the terminal, where ssh can ask for a password.
 *
 * The pid file is locked until the process ends, by kill -9 too.  A file without
 * a lock can be overwritten.
 */
#ifndef CLI_DAEMON_H
#define CLI_DAEMON_H

#include <stdbool.h>

/* Zeros: neither -f nor -P. */
struct daemon {
	int ready_fd;         /* the pipe to the parent; 0: no parent waits */
	const char *pid_path; /* borrowed; NULL: no pid file */
	int pid_fd;           /* the locked pid file; 0: not written yet */
};

/*
 * daemon_open_log(path):
 * Write messages to ${path} from now on.  False: the error was logged.
 */
bool daemon_open_log(const char *path);

/*
 * daemon_fork(d):
 * Fork.  Return true in the child.  The parent exits with STATUS_OK once the
 * child has called daemon_detach, or with the exit status of the child if the
 * child ends before.  Return false with errno set if pipe(2) or fork(2) fails.
 */
bool daemon_fork(struct daemon *d);

/*
 * daemon_write_pid(d):
 * Write the process ID to the pid file and lock the file.  A file that exists
 * must be a regular file of this user without a second name.  False: the error
 * was logged.
 */
bool daemon_write_pid(struct daemon *d);

/*
 * daemon_detach(d):
 * Start a session without a terminal, replace stdin and stderr by /dev/null,
 * and let the parent exit.  If stderr is a regular file, it stays.  Otherwise,
 * without -E, messages go to a file in the directory of cli/cache.h.  Logs
 * there are removed if their process has ended and they are a week old.  If the
 * parent was killed, send SIGTERM to this process.  Without -f, do nothing.
 */
void daemon_detach(struct daemon *d);

/*
 * daemon_remove_pid(d):
 * At exit: remove the pid file, unless its name is another file now.  A failure
 * is logged.
 */
void daemon_remove_pid(struct daemon *d);

#endif
