/*
 * spawn.h - child processes.
 */
#ifndef SPAWN_H
#define SPAWN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct child;
struct pollset;

/* NULL at first. */
struct children {
	struct child *first;
	int64_t due; /* spawn_turn has nothing to do before this time */
};

/*
 * Flags of spawn_start.  Without SPAWN_CAPTURE and SPAWN_ALONE, the child has
 * the stderr of relay.
 *
 *   SPAWN_CAPTURE  stderr is a pipe.  The caller reads it, and reports a
 *                  failure of the child.
 *   SPAWN_WIRE     stdin is a socket: faster than a pipe for much data.
 *   SPAWN_QUIET    The child ignores SIGINT, SIGQUIT and SIGHUP.  A terminal
 *                  sends them to relay and to the child, but relay sends its
 *                  last bytes through the child.
 *   SPAWN_ALONE    stdin is /dev/null, and stdout and stderr are one pipe.  The
 *                  child has a session and process group of its own.  The
 *                  caller reports its end.
 */
enum { SPAWN_CAPTURE = 1, SPAWN_WIRE = 2, SPAWN_QUIET = 4, SPAWN_ALONE = 8 };

enum spawn_state { SPAWN_STARTING, SPAWN_RUNS, SPAWN_FAILED };

/* spawn_name(path): Return the last part of ${path}, for messages. */
const char *spawn_name(const char *path);

/*
 * spawn_start(kids, path, argv, flags):
 * Start the program ${path} with pipes as its stdin and stdout.  Without a
 * slash, ${path} is searched in PATH.  The child belongs to ${kids}; after
 * spawn_release, spawn_turn frees it.  Return NULL with errno set if the system
 * has no process, descriptor or memory left.
 */
struct child *spawn_start(
    struct children *kids, const char *path, char *const argv[], unsigned flags);

/*
 * spawn_call(kids, run, arg):
 * Fork, and run ${run}(${arg}, fd) in the child, for work that blocks.  ${run}
 * writes its result to fd, and ends with _exit.  The caller reads the result
 * from its stdout.  The child has only the descriptors fd, stdout and
 * stderr.  Its end is not logged, and spawn_release ends it without a delay.
 * Return as spawn_start.
 */
struct child *spawn_call(
    struct children *kids, void (*run)(const void *arg, int fd), const void *arg);

/*
 * spawn_take(c, fd):
 * Return the non-blocking descriptor at the other end of the descriptor ${fd}
 * of ${c}: STDIN_FILENO, STDOUT_FILENO or STDERR_FILENO.  It belongs to the
 * caller from now on.  -1: ${c} has no pipe there, or it was taken before.
 */
int spawn_take(struct child *c, int fd);

/*
 * spawn_want(c, ps), spawn_step(c, ps):
 * While ${c} is SPAWN_STARTING, add to ${ps} what it waits for.  After the
 * poll, return its state.  SPAWN_RUNS: exec succeeded.  The child may have
 * ended already.
 */
void spawn_want(struct child *c, struct pollset *ps);
enum spawn_state spawn_step(struct child *c, const struct pollset *ps);

/* spawn_errno(c): Return the errno value of exec; 0: it has not failed. */
int spawn_errno(const struct child *c);

/*
 * spawn_exit(c):
 * Return the exit status of ${c}, 128 + N if signal N ended it, or -1 if it has
 * not ended.
 */
int spawn_exit(const struct child *c);

/* spawn_describe(c, dst, size): Write how ${c} has ended to ${dst}. */
void spawn_describe(const struct child *c, char *dst, size_t size);

/*
 * spawn_pid(c), spawn_owns(kids, pid):
 * The process ID of ${c}; is ${pid} a child in ${kids}?
 */
pid_t spawn_pid(const struct child *c);
bool spawn_owns(const struct children *kids, pid_t pid);

/*
 * spawn_release(c, now):
 * Give ${c} back; the caller must not use it any more.  Descriptors that were
 * not taken are closed, which ends most programs.  A child that still runs gets
 * SIGTERM after 0.5 s, and SIGKILL 2 s later.
 */
void spawn_release(struct child *c, int64_t now);

/*
 * spawn_reap(kids):
 * Collect the status of all children that have ended.  Log each command that
 * failed by itself, and with -v each one that ended.
 */
void spawn_reap(struct children *kids);

/*
 * spawn_hurry(kids, now):
 * relay is about to exit: in the next spawn_turn, each released child gets its
 * next signal, SIGTERM or SIGKILL.
 */
void spawn_hurry(struct children *kids, int64_t now);

/*
 * spawn_turn(kids, ps):
 * Once a turn, before the poll: send the signals that are due, limit the wait
 * of ${ps} to the next one, and free children that ended and were released.
 * Return STATUS_COMMAND if one of these commands failed by itself, else
 * STATUS_OK.
 */
int spawn_turn(struct children *kids, struct pollset *ps);

#endif
