/*
 * tunnel/keeper.h - the far side of a session outlives its channel.
 *
 * The first far process of a session forks.  The child is the keeper: it is the
 * far side from then on.  The near side starts a process for each channel,
 * which waits until the keeper has closed the channel.
 *
 *   first process   keeper_start: fork; the child inherits the channel
 *   later process   keeper_join: read the near greeting, find the keeper, and
 *                   send it the greeting and the descriptors of the channel
 *
 * The keeper has a datagram socket in a directory of mode 0700 below /tmp (for
 * the reason, see dir.h).  Its name contains half of the session's id.  The
 * other half, 64 random bits, is enough, because only processes of this user
 * can reach the socket.
 *
 * Times are microseconds.  Only keeper_join and the waiting process block.
 */
#ifndef TUNNEL_KEEPER_H
#define TUNNEL_KEEPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mux/mux.h"

#define KEEPER_MOST (100 * 24 * 3600) /* seconds, at most */
#define KEEPER_GREETING 1024          /* bytes of a near greeting, at most */
#define KEEPER_WAITER 3               /* a descriptor after stdin to stderr */
#define KEEPER_FDS 4

struct keeper;
struct pollset;

/* A channel that another process hands over, or a question of that process. */
struct keeper_claim {
	bool is_question;
	int fd[KEEPER_FDS]; /* of the channel, and to the process that waits */
	unsigned char greeting[KEEPER_GREETING + 1]; /* or the question; and a NUL */
	size_t n;                                    /* bytes of it */
	int64_t end_after; /* question: end a session without a channel for these s; -1: none */
};

/*
 * keeper_start(seconds):
 * Fork, and return the keeper of a new session in the child.  The session lasts
 * ${seconds} without a channel.  If RELAY_KEEP is less, it is used instead.
 * The parent waits until the keeper releases the channel or ends, and exits.
 * Return NULL, without a child, if the limit is 0, or after an error, which was
 * logged.
 *
 * keeper_join():
 * Pass stdin, stdout and stderr to the keeper of the session that the near side
 * names.  Wait until the keeper releases them, and return an exit status.
 */
struct keeper *keeper_start(int64_t seconds);
int keeper_join(void);

/* keeper_keep(k, m): give ${m} the id and the limit of the session: mux_keep. */
void keeper_keep(const struct keeper *k, struct mux *m);

/*
 * keeper_want(k, ps): add the events for the next two functions to ${ps}.
 * keeper_take(k, ps, c): return true if a claim was read into ${c}.  Its
 * descriptors belong to the caller.
 * keeper_lost(k, slot, ps): has the process that waits for ${slot} ended?
 *
 * keeper_accept(k, slot, c, is_first): ${c} is the channel of ${slot}: keep its
 * process waiting.  If ${is_first}, use its stderr.  The caller still owns
 * stdin and stdout of ${c}.
 * keeper_refuse(c): close all descriptors of ${c}.
 * keeper_answer(k, c, text): write the answer ${text} to ${c}, and close it.
 *
 * keeper_release(k, slot, status): the channel of ${slot} is closed.  Make the
 * waiting process exit with ${status}.  If its stderr is used, use that of
 * another channel, or /dev/null.  If no process waits, do nothing.
 *
 * keeper_free(k): remove the socket and the directory.  NULL is harmless.
 */
void keeper_want(struct keeper *k, struct pollset *ps);
bool keeper_take(struct keeper *k, const struct pollset *ps, struct keeper_claim *c);
bool keeper_lost(struct keeper *k, unsigned slot, const struct pollset *ps);
void keeper_accept(struct keeper *k, unsigned slot, struct keeper_claim *c, bool is_first);
void keeper_refuse(struct keeper_claim *c);
void keeper_answer(const struct keeper *k, struct keeper_claim *c, const char *text);
void keeper_release(struct keeper *k, unsigned slot, int status);
void keeper_free(struct keeper *k);

/*
 * keeper_ask_all(fd, question):
 * Find the sessions of this user on this host, and write a line to ${fd} for
 * each: its name and its age in seconds.  Send ${question} to each keeper.  A
 * keeper writes a line, its name and its answer, and closes its copy of ${fd}.
 * Keepers of other versions may write none.  The files of killed keepers are
 * removed.  Does not block if ${fd} does not.
 */
#define KEEPER_LIST "list"
#define KEEPER_END "end " /* and seconds */
void keeper_ask_all(int fd, const char *question);

#endif
