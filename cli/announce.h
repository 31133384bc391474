/*
 * cli/announce.h - the addresses and routes that are reported when relay is
 * ready.
 */
#ifndef CLI_ANNOUNCE_H
#define CLI_ANNOUNCE_H

struct listeners;
struct options;

/*
 * announce_addresses(ls, o):
 * Print the address of each listener, here and on the far side (-R), one per
 * line.  localhost:PORT is printed once for both loopback addresses.  Then
 * replace stdout by /dev/null, so that its reader gets EOF.  May block until
 * the reader takes the lines.  A failure is logged.
 */
void announce_addresses(const struct listeners *ls, const struct options *o);

/*
 * announce_routes(ls, o):
 * Log a line for each forward of a tunnel: where it listens, through which hops
 * it leads, and to which target.
 */
void announce_routes(const struct listeners *ls, const struct options *o);

#endif
