/*
 * conn/half.h - one direction of a connection: from a source side to a sink
 * side.
 *
 *   open --EOF or reset of the source--> drain --queue is empty--> shut
 *     \----------------------------------->\--> broken
 *
 * open:   Read while the queue has room, write while it holds bytes.
 * drain:  Write the rest of the queue.
 * shut:   EOF was passed on to the sink.
 * broken: The sink has failed, or the connection was closed.  Nothing more is
 *         written.
 *
 * No function here blocks, except half_write to a terminal that poll reported
 * as writable.
 */
#ifndef CONN_HALF_H
#define CONN_HALF_H

#include "base/buf.h"
#include "conn/side.h"

#define HALF_HOLDS (BUF_WIDE * BUF_CHUNK) /* bytes of memory that a half fills */

enum half_state { HALF_OPEN, HALF_DRAIN, HALF_SHUT, HALF_BROKEN };

/* Only half.c writes the members, except sink_lost. */
struct half {
	struct side *src, *dst; /* of the connection */
	struct half *back;      /* its other direction */
	struct buf *buf;        /* the queue of the stream if a side is one, else own */
	struct buf own;
	uint64_t moved; /* bytes written onward */
	enum half_state state;
	int err;        /* broken: the cause, an errno value */
	bool sink_lost; /* broken, and the source was stopped: conn.c */
	bool lost;      /* broken: bytes of the source were dropped */
	bool bulk;      /* the last read was large; the next may be larger */
};

/*
 * half_init(h, src, dst, back):
 * Make ${h} an open half from ${src} to ${dst}.  ${back} is the other half of
 * the connection.
 */
void half_init(struct half *h, struct side *src, struct side *dst, struct half *back);

/*
 * half_update(h):
 * Update ${h} after the mux has changed its stream: bytes sent, EOF, STOP or a
 * reset.  Call it once a turn, before the other functions.
 */
void half_update(struct half *h);

/*
 * half_wants_read(h), half_wants_write(h):
 * Can half_read or half_write do anything if the descriptor is ready?  Always
 * false for a side that is a stream.
 */
bool half_wants_read(const struct half *h);
bool half_wants_write(const struct half *h);

/* half_finished(h): Is ${h} shut or broken? */
bool half_finished(const struct half *h);

/*
 * half_read(h, chunks):
 * Read once, at most ${chunks} chunks of memory or BUF_PIPE bytes of a pipe.
 * Return how many bytes were read into the queue.  At EOF or after an error,
 * ${h} drains; after an error, the source is marked as reset too.  A broken
 * half drops what it reads and returns 0.
 */
size_t half_read(struct half *h, int chunks);

/*
 * half_write(h, ready):
 * Write what the sink takes of the queue.  ${ready}: poll reported that it is
 * writable.  A sink that may block is written to only then.
 */
void half_write(struct half *h, bool ready);

/*
 * half_end(h, explicit):
 * If ${h} drains and its queue is empty, it becomes shut.  ${explicit}: send
 * EOF to the sink now.  If not, the close of the sink, which must follow, sends
 * it.  If the system cannot send EOF, the sink is marked as reset.
 */
void half_end(struct half *h, bool explicit);

/*
 * half_break(h, err):
 * Drop the queue and make ${h} broken, with the cause ${err}.  If ${h} is
 * finished already, do nothing.
 */
void half_break(struct half *h, int err);

/* half_is_local_failure(err): Is ${err} one of this host, which no peer has? */
bool half_is_local_failure(int err);

/* half_advice(err): Return what a message adds to strerror(${err}), or "". */
const char *half_advice(int err);

#endif
