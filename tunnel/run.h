/*
 * tunnel/run.h - near: the COMMAND that a tunnel runs on its last hop.
 *
 * The words are sent on a stream to the far side: command.h.  The output is
 * written to stderr or to the log, unchanged.
 *
 *   idle --run_start--> alive --its end was read--> ended
 *                        `--refused, or lost-----> refused
 *
 * No function waits.
 */
#ifndef TUNNEL_RUN_H
#define TUNNEL_RUN_H

#include <stdbool.h>
#include <stddef.h>

struct mux;
struct pollset;
struct run;

enum run_life { RUN_IDLE, RUN_ALIVE, RUN_ENDED, RUN_REFUSED };

/*
 * run_new(words): a COMMAND of ${words}, which are borrowed and end with NULL.
 * NULL: no memory.
 * run_start(r, m): start it on the far side of ${m}.  False: no stream can be
 * opened, or no memory is left.
 * run_stop(r): ask for SIGTERM.  A second call asks for SIGKILL.
 * run_want(r, ps), run_step(r): once a turn, before and after poll.
 * run_life(r): its state.  RUN_ENDED: all output was written.  NULL ${r}:
 * RUN_IDLE.
 * run_name(r): the name of COMMAND in messages.
 * run_reason(r): RUN_ENDED: how COMMAND ended; this text follows the name.
 * RUN_REFUSED: why it was refused or lost.
 */
struct run *run_new(char *const *words);
bool run_start(struct run *r, struct mux *m);
void run_stop(struct run *r);
void run_want(const struct run *r, struct pollset *ps);
void run_step(struct run *r);
enum run_life run_life(const struct run *r);
const char *run_name(const struct run *r);
const char *run_reason(const struct run *r);

#endif
