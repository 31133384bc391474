/*
 * conn/conn.h - one connection: two sides with one life.
 *
 *   handshaking --request--> connecting --target reached--> open --> closed
 *
 * Side a came to this process: an accepted socket, stdin and stdout, or a
 * stream that the peer opened.  Side b is the target: a socket, a command, or a
 * stream.
 *
 * handshaking: a client of -D sends its request.  connecting: the target is
 * being dialled, or the far side is doing that.  open: bytes move until both
 * halves have ended.  closed: conn_sweep frees the connection.
 *
 * No function here blocks.
 */
#ifndef CONN_CONN_H
#define CONN_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/poll.h"
#include "net/dial.h"
#include "conn/side.h"

/* All connections of this process.  Zeros: none. */
struct conns {
	struct watches watches;
	struct mux *mux; /* carries requests of -D; NULL: they wait for a link */
	size_t n;
	size_t max;    /* accept no more while so many are open; 0: no limit */
	size_t served; /* connections that had an event in the last turn */
	bool behind;   /* a change by the mux was left for the next turn */
	bool gave_up;  /* a connection ended by the rule "stuck": see conn.c */
	unsigned long last_id;
	uint64_t there, back; /* bytes of the connections that were freed */
};

/*
 * conn_dial(tab, a, from, target, now):
 * Add a connection of the side ${a}, named ${from} in log lines, and start to
 * connect it to ${target}.  dial_drop_target(${target}) is called when the
 * connection is freed.
 *
 * conn_join(tab, a, from, b, now):
 * Add a connection that is open at once, of the sides ${a} and ${b}.
 *
 * conn_socks(tab, a, from, now):
 * Add a connection of ${a}, a client of -D.  Its request is sent to
 * ${tab}->mux.
 *
 * On success the connection owns its sides.  All three return false if the
 * memory runs out; then the caller keeps the sides and the target.
 */
bool conn_dial(struct conns *tab, const struct side *a, const char *from,
    struct dial_target *target, int64_t now);
bool conn_join(
    struct conns *tab, const struct side *a, const char *from, const struct side *b, int64_t now);
bool conn_socks(struct conns *tab, const struct side *a, const char *from, int64_t now);

/*
 * conn_take_dirty(tab, m, now):
 * Let conn_step serve each connection whose stream ${m} has changed.
 */
void conn_take_dirty(struct conns *tab, struct mux *m, int64_t now);

/*
 * conn_want(tab, ps):
 * Add to ${ps} the descriptors and times that the active connections wait for.
 */
void conn_want(struct conns *tab, struct pollset *ps);

/*
 * conn_step(tab, ps):
 * After pollset_wait: move bytes, apply the rules, and close the connections
 * that have ended.
 */
void conn_step(struct conns *tab, const struct pollset *ps);

/*
 * conn_sweep(tab, ps):
 * At the end of a turn: free the closed connections.  Return the status of the
 * last one that failed, or STATUS_OK.
 */
int conn_sweep(struct conns *tab, const struct pollset *ps);

/* conn_stop(tab, status, now): Close all connections, each with ${status}. */
void conn_stop(struct conns *tab, int status, int64_t now);

/*
 * conn_bytes(tab, there, back):
 * Count the bytes that all connections, also those that were freed, have moved
 * from side a to side b, and back.
 */
void conn_bytes(const struct conns *tab, uint64_t *there, uint64_t *back);

/* conn_table(tab, now): Log one line for each connection. */
void conn_table(const struct conns *tab, int64_t now);

#endif
