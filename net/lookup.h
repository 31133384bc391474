/*
 * net/lookup.h - from a name to addresses, without blocking.
 *
 * A look-up runs in a child process.  It can have several users.
 */
#ifndef NET_LOOKUP_H
#define NET_LOOKUP_H

#include <stdbool.h>
#include <stdint.h>

struct addr_list;
struct children;
struct endpoint;
struct lookup;
struct pollset;

/*
 * lookup_start(kids, ep):
 * Look up the name of the TCP endpoint ${ep} in a child process, which belongs
 * to ${kids}.  Return NULL with errno set if the system has no process,
 * descriptor or memory left.  EBUSY: 64 look-ups are under way already.
 */
struct lookup *lookup_start(struct children *kids, const struct endpoint *ep);

/*
 * lookup_join(l):
 * Add a user to ${l}, and return ${l}.  Each user calls lookup_free.
 */
struct lookup *lookup_join(struct lookup *l);

/*
 * lookup_want(l, ps), lookup_step(l, ps):
 * Add to ${ps} what ${l} waits for, and read the answer after the poll.
 * lookup_step returns true if the answer is complete.  There is no time limit.
 */
void lookup_want(struct lookup *l, struct pollset *ps);
bool lookup_step(struct lookup *l, const struct pollset *ps);

/*
 * lookup_answer(l, out):
 * After lookup_step has returned true: return 0 with the addresses in ${out},
 * or an EAI_ code of getaddrinfo(3).
 */
int lookup_answer(const struct lookup *l, struct addr_list *out);

/*
 * lookup_free(l, now):
 * Remove a user of ${l}.  The last one frees it and ends its child process.  If
 * ${l} is NULL, do nothing.
 */
void lookup_free(struct lookup *l, int64_t now);

#endif
