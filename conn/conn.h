/*
 * conn/conn.h - one connection: two sides with one life.
 *
 *   handshaking --request--> connecting --target reached--> open --both halves finished--> closed
 *
 * Side a came to us: an accepted socket, stdin and stdout, or a stream that the peer opened.  Side b is the target: a socket, a command,
 * or a stream.  handshaking: a client of -D sends its request.  connecting: the target is dialled, or the far side reports whether it
 * has reached it.  The sweep at the end of each turn frees connections that are closed.
 *
 * Each side is owned by its connection from the call that passes it on, unless that call returns false.
 */
#ifndef CONN_CONN_H
#define CONN_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/poll.h"
#include "net/dial.h"
#include "conn/side.h"

struct conns {
	struct watches watches;
	struct mux *mux; /* where requests of -D go; NULL: the link is down, and they wait */
	size_t n;
	size_t served; /* how many connections poll had events for in the last turn */
	bool behind;   /* a connection that the mux has changed was left for the next turn */
	bool
	    gave_up; /* a connection ended although its target had not taken everything: our parent is dead */
	unsigned long last_id;
};

/*
 * conn_dial(tab, a, from, target, now): connect ${a}, called ${from}, to ${target}.  A target whose users are counted loses one when
 * the connection ends; another one must outlive the connection.  False: no memory; nothing has changed.
 * conn_join(tab, a, from, b, now): the same where the target ${b} is there: it is open at once.
 * conn_socks(tab, a, from, now): a client of -D.
 */
bool conn_dial(struct conns *tab, const struct side *a, const char *from,
    struct dial_target *target, int64_t now);
bool conn_join(
    struct conns *tab, const struct side *a, const char *from, const struct side *b, int64_t now);
bool conn_socks(struct conns *tab, const struct side *a, const char *from, int64_t now);

/*
 * conn_take_dirty(tab, m): the connections whose streams ${m} has changed are active.
 * conn_want(tab, ps), conn_step(tab, ps): tell poll what the active connections wait for; move what can be moved, and decide.
 * conn_stop(tab, status, now): cut all.
 * conn_sweep(tab, ps): free those that are closed; return the exit status of the last one that failed, or STATUS_OK.
 * conn_table(tab, now): log a line for each.
 */
void conn_take_dirty(struct conns *tab, struct mux *m, int64_t now);
void conn_want(struct conns *tab, struct pollset *ps);
void conn_step(struct conns *tab, const struct pollset *ps);
void conn_stop(struct conns *tab, int status, int64_t now);
int conn_sweep(struct conns *tab, const struct pollset *ps);
void conn_table(const struct conns *tab, int64_t now);

#endif
