/*
 * conn/listeners.h - the listening sockets of this side.
 *
 * As long as conns->max connections are open, new ones wait in the backlog of
 * the system.  So they do for a second after accept(2) has failed, because it
 * would fail again at once.
 */
#ifndef CONN_LISTENERS_H
#define CONN_LISTENERS_H

#include <stdbool.h>
#include <stdint.h>

#include "net/listen.h"
#include "conn/side.h"

#define LISTENERS_MAX 64

struct conns;
struct endpoint;
struct pollset;

/* Empty if all but conns and log_full are zeros. */
struct listeners {
	struct {
		struct listener l;
		int slot;        /* of this turn's pollset; -1: not polled */
		const void *use; /* of listeners_add */
	} * tab;
	int n;                     /* LISTENERS_MAX at most */
	const struct conns *conns; /* those that are open, and their limit */
	bool log_full;             /* log that the limit is reached */
	bool full_logged;          /* logged why they wait, until half of them have ended */
	int64_t resume_at;         /* no accept before this time; 0: no limit */
	int next;                  /* this turn: the listener to accept from */
	int accepted;              /* this turn: its connections */
};

/* A connection that was accepted. */
struct accepted {
	struct side side;
	const void *use;
	char name[ADDR_NAME]; /* of the peer, for messages */
};

/*
 * listeners_add(ls, from, any_uid, use):
 * Listen on ${from}, which must outlive ${ls}, as listener_open does.  ${use}
 * is returned with each connection.  If ${any_uid}, accept connections of
 * processes of other users too.  Return false if it fails; the error was
 * logged, and no listener of ${from} is left.
 */
bool listeners_add(
    struct listeners *ls, const struct endpoint *from, bool any_uid, const void *use);

/*
 * listeners_take(ls, tab, n, any_uid, use):
 * The same for ${n} listeners that are open, and belong to ${ls} from now on.
 * If it fails, nothing is logged, and they are closed.
 */
bool listeners_take(
    struct listeners *ls, struct listener *tab, int n, bool any_uid, const void *use);

/* listeners_close(ls): Close all listeners and remove their socket files. */
void listeners_close(struct listeners *ls);

/*
 * listeners_next_name(ls, at):
 * Return the name of the listener ${*at}, and advance ${*at} to the next one
 * with another name.  NULL: no listener is left.
 */
const char *listeners_next_name(const struct listeners *ls, int *at);

/* listeners_retry(ls): Descriptors were closed: accept again at once. */
void listeners_retry(struct listeners *ls);

/*
 * listeners_want(ls, ps, accepts):
 * Before the poll of each turn: watch the listeners, if ${accepts} and if there
 * is room for a connection.
 */
void listeners_want(struct listeners *ls, struct pollset *ps, bool accepts);

/* listeners_ready(ls, ps): Has poll reported that a connection waits? */
bool listeners_ready(const struct listeners *ls, const struct pollset *ps);

/*
 * listeners_accept(ls, ps, c):
 * Accept the next connection into ${c}, whose side belongs to the caller.
 * Return false if there is none, or if there were enough in this turn.  Never
 * blocks.
 */
bool listeners_accept(struct listeners *ls, const struct pollset *ps, struct accepted *c);

#endif
