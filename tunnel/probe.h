/*
 * tunnel/probe.h - tests of a tunnel that carry no connection.
 *
 * A target probe (-w, -n) opens a stream to the target of a forward and closes
 * it at once.  A check makes no connection: a server that accepts only one
 * would lose it.
 *
 * A probe run (-n) makes a tunnel over the first hop, then over the first two
 * hops, and so on to the last hop.  Over each tunnel all byte values are sent
 * to the far relay and back.  Over the last one, the sessions of this user on
 * that host are listed, and the targets and listeners of all forwards tested.
 *
 * The run writes its report to stdout, one line for each result:
 *
 *   ok    login: reached in 240 ms
 *   note  login: its shells print 8 bytes first, which are skipped: welcome
 *   FAIL  node: cannot reach node: ...
 *
 * Nothing here blocks.  Times are microseconds of pollset_clock().
 */
#ifndef TUNNEL_PROBE_H
#define TUNNEL_PROBE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/poll.h"
#include "mux/mux.h"
#include "tunnel/forward.h"
#include "tunnel/hops.h"

struct probe;
struct probe_run;
struct tunnel;

/* Target probes that have not ended. */
struct probes {
	struct probe *first;
};

/*
 * probe_target(tab, m, f, quiet):
 * Near side.  Connect to the target of ${f} over ${m}, send nothing, and
 * close.  ${f} must stay until the result is in ${f}->state: FORWARD_ASKED
 * becomes FORWARD_READY or FORWARD_REFUSED.  A refusal is logged, at LOG_INFO
 * if ${quiet}.  If no stream can be opened, log that and set FORWARD_REFUSED.
 *
 * probe_check(tab, m, f):
 * Near side.  Ask the far side for the state of the target of ${f}, which must
 * outlive the probe.  If no process listens there, probe_step logs that.  If
 * this is not known, nothing is logged.
 *
 * probe_step(tab):
 * Take the results of all target probes in ${tab}.  Call it once a turn, and
 * once more between the end of the mux and mux_free.
 */
void probe_target(struct probes *tab, struct mux *m, struct forward *f, bool quiet);
void probe_check(struct probes *tab, struct mux *m, struct forward *f);
void probe_step(struct probes *tab);

/*
 * probe_run_new(t, all, forwards, n, end_after):
 * Prepare a run over ${all} with ${n} forwards.  Sessions on the last hop that
 * have had no channel for ${end_after} seconds are ended; -1: none is ended.
 * All pointers are borrowed until exit.  ${t} is a tunnel that was never
 * started.  From now on, only the run starts and stops ${t}.  NULL: no memory.
 *
 * probe_run_next(p, now):
 * Call it to begin, and each time that the tunnel is over.  If the tunnel
 * failed, report the cause.  If the run goes on, start the next tunnel.  Return
 * false if no tunnel was started: the status of ${t} is then the exit status of
 * relay.
 *
 * probe_run_up(p, now): the tunnel has come up.
 * probe_run_want(p, ps): once a turn, before tunnel_want.  Report new results,
 * and stop the tunnel after the last one.
 * probe_run_stop(p): stop the tunnel, and start no other one.
 */
struct probe_run *probe_run_new(
    struct tunnel *t, const struct hops *all, struct forward *forwards, int n, int64_t end_after);
bool probe_run_next(struct probe_run *p, int64_t now);
void probe_run_up(struct probe_run *p, int64_t now);
void probe_run_want(struct probe_run *p, struct pollset *ps);
void probe_run_stop(struct probe_run *p);

#endif
