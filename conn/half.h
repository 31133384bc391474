/*
 * conn/half.h - one direction of a connection: bytes from a source side, at rest, and on to a sink side.
 *
 *   open  --EOF or reset of the source-->  drain  --nothing left-->  shut
 *     \-------------------------------------\--> broken
 *
 * open: reads while there is room, writes while there are bytes.  drain: writes what is left.  shut: the end was passed on.  broken:
 * the sink failed, or the connection was cut; nothing is passed on any more.
 */
#ifndef CONN_HALF_H
#define CONN_HALF_H

#include "base/buf.h"
#include "conn/side.h"

#define HALF_HOLDS (BUF_WIDE * BUF_CHUNK) /* no more is read while so much is held */

enum half_state { HALF_OPEN, HALF_DRAIN, HALF_SHUT, HALF_BROKEN };

struct half {
	struct side *src, *dst; /* borrowed */
	struct buf *buf;        /* the queue of the stream if one side is one, else own */
	struct buf own;
	uint64_t moved; /* bytes written onward */
	enum half_state state;
	int err;        /* broken: why */
	bool by_sink;   /* broken: the sink failed */
	bool sink_lost; /* broken by the sink, and the source was stopped */
	bool lost;      /* broken: bytes of the source were not delivered */
	bool bulk;      /* the last read returned so much that splicing is worth it */
	bool wide;      /* the last read filled its room, so that the next one gets more */
};

/*
 * half_init(h, src, dst): an open half.  If a side is a stream, its queue is where bytes rest.
 * half_update(h): take over what the mux has changed in a stream of ${h}: bytes sent, EOF, STOP, a reset.
 * half_wants_read(h), half_wants_write(h): would half_read or half_write do something, if the descriptor is ready?
 * half_read(h, chunks): one read of at most ${chunks} chunks; return how many bytes came.  EOF makes it drain.  A read error makes
 * it drain too, and marks the source as reset.  A broken half reads and drops.
 * half_write(h, ready): write what the sink takes; ${ready}: poll reported that it takes something.
 * half_end(h, explicit): if ${h} has drained, pass the end on: at once if ${explicit}, else the close of the sink does.  A sink that
 * cannot be ended is marked as reset.
 * half_break(h, err, by_sink): drop what is held; harmless when finished.
 * half_is_local_failure(err): a failure of this host, which only this side can report.
 * half_advice(err): what to add to strerror(${err}) in a message: cause and remedy, or "".
 */
void half_init(struct half *h, struct side *src, struct side *dst);
void half_update(struct half *h);
bool half_wants_read(const struct half *h);
bool half_wants_write(const struct half *h);
bool half_finished(const struct half *h);
size_t half_read(struct half *h, int chunks);
void half_write(struct half *h, bool ready);
void half_end(struct half *h, bool explicit);
void half_break(struct half *h, int err, bool by_sink);
bool half_is_local_failure(int err);
const char *half_advice(int err);

#endif
