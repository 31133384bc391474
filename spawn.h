/*
 * spawn.h - child processes.
 */
#ifndef SPAWN_H
#define SPAWN_H

#include <stdint.h>

struct child;
struct pollset;

struct children {
	struct child *first;
	int64_t due; /* before this time spawn_turn has nothing to do */
};

enum { SPAWN_HEARD = 1, SPAWN_WIRE = 2 };
enum spawn_state { SPAWN_STARTING, SPAWN_RUNS, SPAWN_FAILED };

/*
 * spawn_start(kids, argv, how): fork and execute ${argv}, with a pipe at its stdin and one at its stdout.  SPAWN_HEARD: also at its
 * stderr, and whoever reads that tells of its end; else relay's own stays.  SPAWN_WIRE: much will go through its stdin, which is a
 * socket.  The child belongs to ${kids}.  NULL: no process or descriptor could be had, errno tells.
 * spawn_name(argv): what a message calls the command ${argv}: the last part of its path.
 * spawn_call(kids, run, arg): fork, and call run(arg, fd) in the child, for work that blocks; what it writes to ${fd} can be read
 * from spawn_take_in, and it ends by _exit.  Nothing is told of such a child, and a release ends it at once.
 * spawn_take_in(c), spawn_take_out(c), spawn_take_ear(c): the descriptor that reads what ${c} writes, the one that it reads,
 * and, heard, the one that reads its stderr; the caller's now.
 * spawn_want(c, ps), spawn_step(c, ps): wait until it is known whether exec worked.
 * spawn_errno(c): SPAWN_FAILED: why.
 * spawn_exit(c): the status with which it ended, 128 + N for signal N; -1: it runs.
 * spawn_release(c, now): the owner is done with ${c} and has closed its descriptors: it is given a grace to end, then signals.
 */
const char *spawn_name(char *const argv[]);
struct child *spawn_start(struct children *kids, char *const argv[], unsigned how);
struct child *spawn_call(
    struct children *kids, void (*run)(const void *arg, int fd), const void *arg);
int spawn_take_in(struct child *c);
int spawn_take_out(struct child *c);
int spawn_take_ear(struct child *c);
void spawn_want(struct child *c, struct pollset *ps);
enum spawn_state spawn_step(struct child *c, const struct pollset *ps);
int spawn_errno(const struct child *c);
int spawn_exit(const struct child *c);
void spawn_release(struct child *c, int64_t now);

/*
 * spawn_reap(kids): collect every child that has ended, and tell of the commands that failed.
 * spawn_hurry(kids, now): relay is to stop: what was released gets its signal now.
 * spawn_turn(kids, ps): send the signals that are due, set the next deadline, and forget children that ended and were released.
 * Return STATUS_COMMAND if a command among those failed by itself, else STATUS_OK.
 */
void spawn_reap(struct children *kids);
void spawn_hurry(struct children *kids, int64_t now);
int spawn_turn(struct children *kids, struct pollset *ps);

#endif
