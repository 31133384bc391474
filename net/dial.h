/*
 * net/dial.h - from an endpoint to connected descriptors, without blocking.
 *
 * A dial connects to one endpoint, or starts a command.  Several dials can
 * share a target, which keeps the addresses of its name.
 */
#ifndef NET_DIAL_H
#define NET_DIAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/addr.h"
#include "net/endpoint.h"

struct child;
struct children;
struct dial;
struct lookup;
struct pollset;

enum dial_state { DIAL_BUSY, DIAL_DONE, DIAL_FAILED };

struct dial_target {
	struct endpoint to;
	int64_t each_us;       /* time limit of a look-up, and of each address */
	int64_t wait_us;       /* -w: time for new attempts; 0: one attempt */
	bool no_wait;          /* -w does not apply to this target */
	struct children *kids; /* the owner of commands and look-ups */
	unsigned how;          /* flags of spawn_start, for a command */
	size_t users;          /* references; 0: dial_drop_target does not free it */

	/* of dial.c; all zeros at first */
	struct addr_list cache; /* the addresses of the name */
	struct lookup *lookup;  /* under way: other dials may join it */
};

/*
 * dial_start(target, now):
 * Start to connect to ${target}, which must outlive the dial.  Return NULL if
 * there is no memory.  Any other failure is reported by dial_step.
 */
struct dial *dial_start(struct dial_target *target, int64_t now);

/*
 * dial_want(d, ps), dial_step(d, ps):
 * Add to ${ps} what ${d} waits for, and after the poll do the next step.
 * dial_step may also be called before the first poll.  DIAL_DONE and
 * DIAL_FAILED are final.
 */
void dial_want(struct dial *d, struct pollset *ps);
enum dial_state dial_step(struct dial *d, const struct pollset *ps);

/*
 * dial_take(d), dial_take_child(d):
 * After DIAL_DONE: dial_take returns the connected socket, or -1, and
 * dial_take_child the command, or NULL.  The result belongs to the caller.
 */
int dial_take(struct dial *d);
struct child *dial_take_child(struct dial *d);

/*
 * After DIAL_FAILED:
 *
 * dial_status(d) returns the exit status of relay for this failure.
 * dial_errno(d) returns the errno value, or 0 if the name was not resolved.
 * dial_explain(d, dst, size) writes one line with cause and remedy to ${dst},
 * and returns ${dst}.
 */
int dial_status(const struct dial *d);
int dial_errno(const struct dial *d);
const char *dial_explain(const struct dial *d, char *dst, size_t size);

/*
 * dial_free(d, now):
 * Free ${d} in any state.  Close the socket and release the command, unless
 * they were taken.  If ${d} is NULL, do nothing.
 *
 * dial_reset(d):
 * Before dial_free: reset the TCP connection of ${d}, unless it was taken.
 */
void dial_free(struct dial *d, int64_t now);
void dial_reset(struct dial *d);

/*
 * dial_confine(target, dst, size):
 * With os_confine, restrict this process and its children to what dials of
 * ${target} need.  ${target} must not be a command.  Write what the system
 * enforces to ${dst}, and return ${dst}.
 */
const char *dial_confine(const struct dial_target *target, char *dst, size_t size);

/*
 * dial_drop_target(target):
 * Give up a reference to ${target}; the last one frees it.  If ${target} is
 * NULL, do nothing.
 */
void dial_drop_target(struct dial_target *target);

#endif
