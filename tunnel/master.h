/*
 * tunnel/master.h - one login carries several channels: ssh's ControlMaster.
 *
 * The ssh of the first channel is the master.  Its socket is in a directory
 * of its own (dir.h).  The ssh of each further channel uses the login of the
 * master; without a master it fails, and does not log in.
 *
 * If the user's configuration of ssh has a ControlPath, the first ssh runs
 * unchanged, and further channels use that path.  ssh -G prints the
 * configuration; it is run only if ssh -V reports OpenSSH.
 *
 *   asking --no ControlPath--> ours
 *      |-------ControlPath---> theirs
 *      '-------no answer-----> none
 *
 * No function waits.  Times are microseconds of pollset_clock.
 */
#ifndef TUNNEL_MASTER_H
#define TUNNEL_MASTER_H

#include <stdbool.h>
#include <stdint.h>

struct children;
struct hops;
struct master;
struct pollset;

/*
 * master_new(hops, kids, now):
 * Run the first ssh of ${hops} with -V and then with -G.  Both pointers are
 * borrowed.  NULL: the first hop is not reached by ssh, a hop is a command, or
 * no memory or process is left.
 *
 * master_want(m, ps), master_step(m, ps): once a turn, before and after poll.
 * master_is_known(m): the answer was read, or the time is over.
 * master_is_usable(m): there can be further channels.
 * master_stop(m, now): do not wait for an answer any more.
 * master_free(m, now): remove the socket and its directory.
 *
 * master_first(m, hops):
 * Return the hops for the next start of the first channel: ${hops}, or a
 * changed copy.  ${m} owns the copy; it is valid until the next call.
 *
 * master_further(m):
 * Return the hops of a further channel.  NULL: no ssh is a master.
 *
 * ${m} can be NULL: then it is known that no ssh is a master.
 */
struct master *master_new(const struct hops *hops, struct children *kids, int64_t now);
void master_want(struct master *m, struct pollset *ps);
void master_step(struct master *m, const struct pollset *ps);
bool master_is_known(const struct master *m);
bool master_is_usable(const struct master *m);
const struct hops *master_first(struct master *m, const struct hops *hops);
const struct hops *master_further(struct master *m);
void master_stop(struct master *m, int64_t now);
void master_free(struct master *m, int64_t now);

#endif
