/*
 * tunnel/keeper.h - the far side of a session outlives its channel.
 *
 * The first far process of a session forks.  The child is the far side from
 * then on: the keeper.  Each process that the near side starts, the first one
 * included, only waits until the keeper has done with its channel:
 *
 *   first process   keeper_start: fork; the child inherits the channel
 *   later process   keeper_join: read the near greeting, find the keeper, and
 *                   send it the greeting and the descriptors of the channel
 *
 * The keeper receives at a datagram socket in a directory of mode 0700 below
 * /tmp: $XDG_RUNTIME_DIR disappears at logout, which a lost line can cause.
 * Half of the session's id is the name of the directory, the other half is
 * never visible there.
 *
 * Times are microseconds.  Only keeper_join and the waiting process block.
 */
#ifndef TUNNEL_KEEPER_H
#define TUNNEL_KEEPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KEEPER_MOST (100 * 24 * 3600) /* seconds, at most */
#define KEEPER_GREETING 1024          /* bytes of a near greeting, at most */

struct keeper;
struct pollset;

/* A channel that another process hands over. */
struct keeper_claim {
	int in, out, err; /* of the channel */
	int waiter;       /* to the process that waits */
	unsigned char greeting[KEEPER_GREETING];
	size_t n; /* bytes of it */
};

/*
 * keeper_start(seconds):
 * Fork.  The child returns the keeper of a new session, which lives ${seconds}
 * without a channel, or less if RELAY_KEEP says so.  The parent waits, and exits
 * with the status of the child.  NULL, without a child: ${seconds} or
 * RELAY_KEEP is 0, or a keeper cannot exist here, which was logged.
 *
 * keeper_join():
 * Pass stdin, stdout and stderr to the keeper that the near side names, wait
 * until it has done with them, and return an exit status.
 */
struct keeper *keeper_start(int64_t seconds);
int keeper_join(void);

/*
 * keeper_id(k), keeper_seconds(k): The id of the session, MUX_SESSION bytes, and
 * how long it lives without a channel.
 */
const unsigned char *keeper_id(const struct keeper *k);
uint32_t keeper_seconds(const struct keeper *k);

/*
 * keeper_want(k, ps), keeper_take(k, ps, c):
 * Watch for a claim, and for the end of the waiting process.  Return true if ${c}
 * was read; its descriptors belong to the caller.
 * keeper_lost(k, ps): Has the waiting process ended?
 */
void keeper_want(struct keeper *k, struct pollset *ps);
bool keeper_take(struct keeper *k, const struct pollset *ps, struct keeper_claim *c);
bool keeper_lost(struct keeper *k, const struct pollset *ps);

/*
 * keeper_accept(k, c), keeper_refuse(c):
 * Use the stderr of ${c}, and let its process wait.  Or close all its
 * descriptors.
 */
void keeper_accept(struct keeper *k, struct keeper_claim *c);
void keeper_refuse(struct keeper_claim *c);

/*
 * keeper_release(k):
 * The channel is closed: let the waiting process exit, and close stderr.
 * keeper_free(k): Remove the socket and the directory.  NULL is harmless.
 */
void keeper_release(struct keeper *k);
void keeper_free(struct keeper *k);

#endif
