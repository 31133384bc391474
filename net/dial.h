/*
 * net/dial.h - from an end to connected descriptors, without blocking the loop.
 */
#ifndef NET_DIAL_H
#define NET_DIAL_H

#include <stddef.h>
#include <stdint.h>

#include "net/endpoint.h"
#include "net/sock.h"

struct child;
struct children;
struct dial;
struct lookup;
struct pollset;

enum dial_state { DIAL_BUSY, DIAL_DONE, DIAL_FAILED };

struct dial_target {
	struct endpoint to;
	int each_ms;             /* for one address */
	int wait_ms;             /* how long to keep trying until the target is there; 0: once */
	struct children *kids;   /* what commands and name look-ups are children of */
	unsigned how;            /* of a command; see spawn_start */
	struct sock_addrs cache; /* what the name server said, n = 0 at first: dial.c's own */
	size_t users;            /* references; 0: not counted, and not freed by dial_drop_target */
	struct lookup *lookup;   /* that dials may join, NULL at first: dial.c's own */
};

/*
 * dial_start(target, now): start to connect to ${target}, which must outlive the dial, or to run it if it is a command.  NULL: no
 * memory.
 * dial_want(d, ps), dial_step(d, ps): ask poll for what ${d} waits for, then go on; dial_step is also right before any poll.
 * dial_take(d), dial_take_child(d): DIAL_DONE: the connected descriptor, or the command (else NULL); the caller's now.
 * dial_status(d): DIAL_FAILED: what it means for relay's exit.
 * dial_errno(d): DIAL_FAILED: the errno value; 0: the name is not known.
 * dial_explain(d, dst, size): DIAL_FAILED: a sentence with cause and remedy into ${dst}, which is returned.
 * dial_drop_target(target): give up a reference; the last one frees it.  NULL is harmless.
 * dial_reset(d): reset a TCP connection that is being made or was not taken; before dial_free.
 * dial_free(d, now): NULL is harmless; what was not taken is closed and released.
 */
struct dial *dial_start(struct dial_target *target, int64_t now);
void dial_want(struct dial *d, struct pollset *ps);
enum dial_state dial_step(struct dial *d, const struct pollset *ps);
int dial_take(struct dial *d);
struct child *dial_take_child(struct dial *d);
int dial_status(const struct dial *d);
int dial_errno(const struct dial *d);
const char *dial_explain(const struct dial *d, char *dst, size_t size);
void dial_reset(struct dial *d);
void dial_free(struct dial *d, int64_t now);
void dial_drop_target(struct dial_target *target);

#endif
