/*
 * net/lookup.h - from a name to addresses, without blocking the loop.
 */
#ifndef NET_LOOKUP_H
#define NET_LOOKUP_H

#include <stdbool.h>
#include <stdint.h>

struct children;
struct endpoint;
struct lookup;
struct pollset;
struct sock_addrs;

/*
 * lookup_start(kids, ep): look up the name of the TCP end ${ep}, in a child that belongs to ${kids}.
 * NULL: no memory, process or descriptor, or EBUSY: as many look-ups as may be are under way.
 * lookup_join(l): add a user of ${l}, and return it.
 * lookup_want(l, ps), lookup_step(l, ps): wait for the answer, without a deadline; true: it is there.
 * lookup_answer(l, out): then: 0 with the addresses in ${out}, or an EAI_ code.
 * lookup_free(l, now): remove a user; the last one frees ${l} and ends its child.  NULL is harmless.
 */
struct lookup *lookup_start(struct children *kids, const struct endpoint *ep);
struct lookup *lookup_join(struct lookup *l);
void lookup_want(struct lookup *l, struct pollset *ps);
bool lookup_step(struct lookup *l, const struct pollset *ps);
int lookup_answer(const struct lookup *l, struct sock_addrs *out);
void lookup_free(struct lookup *l, int64_t now);

#endif
