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
 *
 * lookup_join(l):
 * Add a user to ${l}, and return ${l}.
 *
 * lookup_free(l, now):
 * Each user calls this; the last one frees ${l} and ends its child process.  If
 * ${l} is NULL, do nothing.
 */
struct lookup *lookup_start(struct children *kids, const struct endpoint *ep);
struct lookup *lookup_join(struct lookup *l);
void lookup_free(struct lookup *l, int64_t now);

/*
 * lookup_want(l, ps), lookup_step(l, ps):
 * Add to ${ps} what ${l} waits for, and read the answer after the poll.
 * lookup_step returns true if the answer is complete.  There is no time limit.
 *
 * lookup_answer(l, out):
 * After that: return 0 with the addresses in ${out}, or an EAI_ code of
 * getaddrinfo(3).
 */
void lookup_want(struct lookup *l, struct pollset *ps);
bool lookup_step(struct lookup *l, const struct pollset *ps);
int lookup_answer(const struct lookup *l, struct addr_list *out);

#endif
