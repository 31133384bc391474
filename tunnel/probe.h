/*
 * tunnel/probe.h - is the target of a forward there?  For -w and -n.
 */
#ifndef TUNNEL_PROBE_H
#define TUNNEL_PROBE_H

#include "mux/mux.h"
#include "tunnel/forward.h"

struct probe;

struct probes {
	struct probe *first;
};

/*
 * probe_target(tab, m, f): near: connect to the target of ${f} and close at once; ${f}->state reports the result.  Nothing is
 * sent to the target.  False: no stream could be opened; it was logged.
 * probe_step(tab): once a turn.
 */
bool probe_target(struct probes *tab, struct mux *m, struct forward *f);
void probe_step(struct probes *tab);

#endif
