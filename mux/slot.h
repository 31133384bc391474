/*
 * mux/slot.h - one slot of a link: a stream of frames over one channel at a
 * time.
 *
 * A slot has both greetings, the retained bytes, the frame that is being read,
 * acknowledgements, and times.  mux.c reads and writes the frames of streams.
 * tail.c ends a slot whose channel was lost.
 *
 * Times are microseconds.  No function blocks.
 */
#ifndef MUX_SLOT_H
#define MUX_SLOT_H

#include "mux/cc.h"
#include "mux/frame.h"
#include "mux/greeting.h"
#include "mux/mux.h"
#include "mux/queue.h"
#include "mux/retain.h"

#define SLOT_DEAD_AFTER 45000000 /* us without a byte */
#define SLOT_ACK_EVERY 1024      /* bytes without an ACK, at least */
#define SLOT_START (FRAME_MAGIC + GREETING_OURS)

/* The large fields are last: small offsets make shorter instructions. */
struct slot {
	unsigned number;
	uint32_t generation;       /* of its last channel; it stays when the slot is free */
	enum mux_slot_state state; /* each except CLOSING */
	bool joins;                /* its channel continues the link */
	bool skip_magic;           /* another process has sent it on this channel */
	bool feeding;              /* its frames are being read */
	bool due_hello, due_ack, due_ping, due_bye, due_drain;

	/* the end of the slot: tail.c */
	bool drains;                /* no new DATA is sent here */
	bool lost_sent, lost_read;  /* LOST of this generation */
	bool tail_sent, tail_read;  /* up to the empty TAIL */
	const struct slot *lost_on; /* where LOST was sent; NULL: it is to be sent */
	struct slot *carrier;       /* sends our TAIL; NULL: not chosen yet */

	struct retain retain;         /* the bytes that we send after our greeting */
	size_t start_next, start_end; /* bytes of start; start_end is 0 before the first one */

	/* reading */
	size_t head_have;
	struct frame frame;  /* the one whose body is being read */
	struct stream *data; /* of DATA or DATA_AT; NULL: its bytes are dropped */
	struct early *early; /* its bytes are added here; NULL: to rx of the stream */
	struct slot *tail;   /* of TAIL; NULL: its bytes are dropped */
	size_t fixed;        /* bytes of the body that are still to be gathered */
	size_t left;         /* of the body */

	/* time and acknowledgements */
	uint64_t read, read_acked; /* link bytes */
	uint32_t ack_every;        /* link bytes read before an ACK is due */
	uint32_t ack_every_sent;   /* in our last ACK_EVERY */
	int64_t unacked_at;        /* of the first byte without an ACK; 0: none */
	int64_t read_at;           /* of the last byte */
	int64_t alive_at;          /* of the last byte, or set by slot_woke */
	int64_t asked_at;          /* of the first frame that needs an ACK */
	uint64_t asked;            /* cc.sent after the last frame that needs an ACK */
	int64_t full_at;           /* when cwnd or the channel was full last; 0: never */
	int64_t limited_at;        /* the first full_at of the present sequence */
	uint64_t data_end;         /* position after the last DATA */
	int64_t ticked_at, pinged_at;
	int64_t room_at; /* next try to get memory for output; 0: none */

	struct queue control;  /* streams with control frames to send */
	struct queue flows[2]; /* new and old, of streams that send only here */
	unsigned turn;         /* odd: its own old flows before those of the link */
	unsigned char head[FRAME_HEAD];
	struct cc cc;
	struct greeting greeting;        /* of the peer, on this channel */
	unsigned char start[SLOT_START]; /* our own greeting, while it is written */
	unsigned char body[FRAME_FIXED];
};

/*
 * slot_attach(s, far, skip_magic, now):
 * A channel starts ${s}, which is free, or continues it.
 *
 * slot_free(s):
 * Make ${s} a free slot: only its number and generation stay.
 */
void slot_attach(struct slot *s, bool far, bool skip_magic, int64_t now);
void slot_free(struct slot *s);

/* slot_flight(s): Return how many bytes were sent and not acknowledged. */
uint64_t slot_flight(const struct slot *s);

/*
 * slot_sent(s, n, asks, now):
 * ${n} bytes of frames are sent.  ${asks}: one of them is not ACK, so they
 * need an ACK.
 *
 * slot_waits(s): Is an ACK expected?
 *
 * slot_full(s, now): The channel takes no more bytes.
 *
 * slot_limited_at(s, now):
 * Since when does cwnd or the channel limit bulk, which fills one of them again
 * and again?  INT64_MAX: none does.
 */
void slot_sent(struct slot *s, size_t n, bool asks, int64_t now);
bool slot_waits(const struct slot *s);
void slot_full(struct slot *s, int64_t now);
int64_t slot_limited_at(const struct slot *s, int64_t now);

/*
 * slot_ack_is_due(s, now), slot_put_ack(s, dst, now), slot_put_ack_every(s,
 * dst):
 * Write a frame into ${dst} and return its length.  ACK_EVERY is written only
 * if it has changed.
 */
bool slot_ack_is_due(const struct slot *s, int64_t now);
size_t slot_put_ack(struct slot *s, unsigned char *dst, int64_t now);
size_t slot_put_ack_every(struct slot *s, unsigned char *dst);

/*
 * slot_tick(s, now), slot_woke(s, now):
 * As mux_tick and mux_woke.  slot_tick returns false if the channel is lost.
 *
 * slot_ping(s, now): Send PING.
 *
 * slot_deadline(s, now):
 * As mux_deadline, but only for ACK, PING, 45 s of silence, and lack of
 * memory.
 */
bool slot_tick(struct slot *s, int64_t now);
void slot_woke(struct slot *s, int64_t now);
void slot_ping(struct slot *s, int64_t now);
int64_t slot_deadline(const struct slot *s, int64_t now);

#endif
