/*
 * tunnel/channels.h - the channels of a link: a transport for each slot of the
 * mux.
 *
 * The tunnel starts the first channel.  On the near side, this file starts and
 * closes further channels (growth.h).  They use the login of the first one
 * (master.h).  If a further channel fails, this is logged with -v, and the link
 * continues.
 *
 * No function waits.  Times are microseconds of pollset_clock.
 */
#ifndef TUNNEL_CHANNELS_H
#define TUNNEL_CHANNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct channels;
struct children;
struct hops;
struct mux;
struct pollset;
struct transport;

/*
 * channels_new(self, join_options, kids, most): a set without channels; see
 * tunnel.h.  All pointers are borrowed.  With ${most} 0 or 1, no ssh is a
 * master.  NULL: no memory.
 *
 * channels_ask(c, hops, now): the first channel leads through ${hops}: test if
 * its ssh can be a master.  False: not known yet; call this again in each turn.
 * channels_stop(c, now): do not wait for this any more.
 * channels_hops(c, hops): see master_first.
 *
 * channels_begin(c, m, slot): the next channel is the first one, in ${slot} of
 * ${m}.
 * channels_set(c, slot, t): ${t} is the channel of ${slot}, and belongs to
 * ${c}.  NULL ${t}: it has no memory, and the slot is lost.
 * channels_first_slot(c): the slot of the first channel.
 * channels_first(c): its transport, or NULL.
 * channels_has(c, slot): Has ${slot} a channel?
 * channels_lost(c): a slot whose channel has ended or is not needed any more.
 * -1: none.
 * channels_drop(c, slot, now): close the channel of ${slot}, if it has one.
 *
 * channels_grow(c, far_path, ps): near, the link is up: start or close further
 * channels if that is due.  ${far_path} is the path of the far relay.
 *
 * channels_want, channels_step, channels_flush: call this function of each
 * transport, and the first two of the master.  Then they let time pass for the
 * mux.
 * channels_drained(c): each transport is drained.
 * channels_closed(c): the far side has closed each channel that was up.
 * channels_moved_at(c): the latest transport_moved_at.
 * channels_readable(c, slot, ps): see transport_readable.
 * channels_describe(c, nth, dst, size): write the figures of channel ${nth}
 * into ${dst}: "round trip ...".  Only channels that are up are counted, from
 * 0.  False: fewer channels are up.
 *
 * channels_free(c, now): NULL is harmless.
 */
struct channels *channels_new(
    const char *self, const char *join_options, struct children *kids, unsigned most);
bool channels_ask(struct channels *c, const struct hops *hops, int64_t now);
void channels_stop(struct channels *c, int64_t now);
const struct hops *channels_hops(struct channels *c, const struct hops *hops);
void channels_begin(struct channels *c, struct mux *m, unsigned slot);
void channels_set(struct channels *c, unsigned slot, struct transport *t);
unsigned channels_first_slot(const struct channels *c);
struct transport *channels_first(const struct channels *c);
bool channels_has(const struct channels *c, unsigned slot);
int channels_lost(const struct channels *c);
void channels_drop(struct channels *c, unsigned slot, int64_t now);
void channels_grow(struct channels *c, const char *far_path, struct pollset *ps);
void channels_want(struct channels *c, struct pollset *ps);
void channels_step(struct channels *c, const struct pollset *ps);
void channels_flush(struct channels *c, int64_t now);
bool channels_drained(const struct channels *c);
bool channels_closed(const struct channels *c);
int64_t channels_moved_at(const struct channels *c);
bool channels_readable(const struct channels *c, unsigned slot, const struct pollset *ps);
bool channels_describe(const struct channels *c, unsigned nth, char *dst, size_t size);
void channels_free(struct channels *c, int64_t now);

#endif
