/*
 * mux/internal.h - the structs of a link, for mux.c, receive.c, stream.c and
 * tail.c only.
 *
 * mux.c writes the frames of each slot, decides which stream sends next, and
 * lets time pass.  receive.c reads frames.  stream.c has the life of one stream:
 * its windows, the frames that it sends, and what the frames of the peer change.
 * tail.c ends slots: what a lost channel has not delivered travels on other
 * slots.
 */
#ifndef MUX_INTERNAL_H
#define MUX_INTERNAL_H

#include "mux/early.h"
#include "mux/frame.h"
#include "mux/mux.h"
#include "mux/queue.h"
#include "mux/slot.h"

#define WINDOW_TOP INT32_MAX /* of what a side may send on a stream */

struct stream {
	struct mux *mux;
	uint32_t id;
	uint8_t home; /* slot of all frames except DATA_AT */
	bool released;
	bool opened;               /* OPENED was sent or read */
	bool shutdown;             /* EOF follows what tx holds */
	bool discards;             /* DATA that is read is dropped */
	bool lost;                 /* bytes of the peer were dropped */
	bool scattered;            /* DATA was sent on more than one slot */
	bool eof_seen, close_seen; /* read, but DATA before them may be missing */
	bool eof_sent, eof_read, stop_sent, stop_read, close_sent, close_read;
	bool free_seen; /* FREE was sent or read */
	bool gone;      /* not in the table any more */
	bool due_open, due_opened, due_credit, due_stop, due_close, due_free; /* frames to send */
	uint16_t code;                                                        /* see stream_code */
	uint16_t close_code; /* of the CLOSE to send */
	uint16_t code_seen;  /* of the CLOSE that was read */
	uint32_t tx_window;  /* DATA bytes that may be sent */
	uint32_t rx_window;  /* DATA bytes that the peer may still send */
	uint32_t window;     /* CREDIT raises rx_window up to this */
	uint32_t consumed;   /* taken from rx, not yet in a CREDIT */
	uint32_t burst;      /* bytes sent lately; few: the stream is quiet */
	int32_t deficit;     /* of deficit round robin */
	char *target;        /* of OPEN; NULL: freed */
	char *reason;        /* of CLOSE; NULL: none */
	void *owner;
	uint64_t rx_begun; /* bytes of all DATA whose reading has begun */
	uint64_t rx_count; /* bytes of DATA that were read, kept or dropped */
	uint64_t rx_plain; /* the part of rx_begun in DATA, without DATA_AT */
	uint64_t rx_next;  /* offset of the next byte for rx */
	uint64_t rx_final; /* of FINAL; UINT64_MAX: not read */
	struct buf tx, rx;
	struct early_list early; /* DATA that came before the DATA in front of it */
	struct queue_node control, flow, accept, dirty;
	uint64_t sent;     /* DATA bytes */
	uint64_t progress; /* see stream_progress */
	int64_t sent_at;   /* when it was queued as a flow last; start of burst */
	int64_t credit_at; /* of the last CREDIT */
};

/* The fields that are used most are first, as in struct slot. */
struct mux {
	enum mux_role role;
	bool dead;             /* the link has ended */
	bool keeps;            /* the link outlives its channels */
	bool freed;            /* mux_free was called; the last stream frees the mux */
	unsigned slots;        /* that both sides allow */
	unsigned started;      /* from this one on, no slot was ever used */
	uint32_t size;         /* of the table */
	uint32_t n;            /* streams in it */
	uint32_t structs;      /* streams that are not freed yet */
	struct stream **table; /* by id / 2 */
	int64_t now;
	uint64_t
	    rx_reserved; /* all rx_window, consumed, rx and early, and the rest of DATA frames */
	struct queue flows[2]; /* new and old: quiet and busy streams with DATA to send */
	uint32_t earlies;      /* pieces in all early lists */
	struct queue dirty;    /* changed: see mux_next_dirty */
	struct queue accept;   /* opened by the peer, not yet accepted */
	uint32_t next_id;      /* near: where the search for a free id starts */
	uint64_t sent_before, read_before;           /* on slots that are free again */
	int64_t limited_sent_at;                     /* far: of our last LIMITED */
	int64_t peer_limited_at, peer_limited_until; /* near: of the last LIMITED read */
	bool wait_peer_first;
	bool ended_by_peer; /* BYE was read */
	uint16_t code;      /* down or dead: why */
	char why[FRAME_WORDS + 128];
	struct session session; /* the constant part of each SESSION that we send */
	struct hello ours, theirs;
	struct slot slot[MUX_SLOTS];
};

/* ---- stream.c ---- */

/*
 * stream_new(m, id, home, target, length):
 * Add a stream to the table and return it.  NULL: out of memory.
 *
 * stream_set_windows(s, tx, rx):
 * Set the windows of a new stream.
 *
 * stream_first_window(memory, n):
 * Return the window of a new stream while ${n} are open.  The receiver has
 * ${memory} for all of them.
 *
 * stream_lose(s):
 * The link is dead: reset ${s}.
 *
 * stream_free_if_done(s):
 * Free ${s} if it is closed, released and in no queue.
 */
struct stream *stream_new(
    struct mux *m, uint32_t id, uint8_t home, const char *target, size_t length);
void stream_set_windows(struct stream *s, uint32_t tx, uint32_t rx);
uint32_t stream_first_window(uint32_t memory, uint32_t n);
void stream_lose(struct stream *s);
void stream_free_if_done(struct stream *s);

/*
 * stream_flows(s):
 * Return the queues for ${s}: those of the link, or those of its home slot if
 * it may send only there.
 *
 * stream_move(m, from, to):
 * ${to} becomes the home of the streams whose home was ${from}.
 *
 * stream_need_control(s):
 * Queue ${s}, which has control frames to send.
 *
 * stream_mark_dirty(s):
 * mux_next_dirty returns ${s}, if it has an owner.
 */
struct queue *stream_flows(struct stream *s);
void stream_move(struct mux *m, struct slot *from, struct slot *to);
void stream_need_control(struct stream *s);
void stream_mark_dirty(struct stream *s);

/*
 * stream_can_send_data(s), stream_eof_is_due(s):
 * May ${s} send DATA now?  EOF?
 *
 * stream_put_control(s, dst), stream_put_data(s, slot, dst, room),
 * stream_put_eof(s, dst):
 * Write frames of ${s} into ${dst}; return how many bytes.  Control frames take
 * at most MUX_PULL / 2 bytes.  They and EOF are sent on the home slot.
 */
bool stream_can_send_data(const struct stream *s);
bool stream_eof_is_due(const struct stream *s);
size_t stream_put_control(struct stream *s, unsigned char *dst);
size_t stream_put_data(struct stream *s, const struct slot *slot, unsigned char *dst, size_t room);
size_t stream_put_eof(struct stream *s, unsigned char *dst);

/*
 * stream_start_data(s, slot), stream_take_data(s, slot, p, n),
 * stream_end_data(s, slot):
 * The head and the offset of DATA or DATA_AT were read on ${slot}; ${n} of its
 * bytes; its last byte.
 *
 * stream_on_frame(s, slot): The whole body of another frame was read.
 *
 * Return NULL, or a text that names how the peer broke the protocol.
 */
const char *stream_start_data(struct stream *s, struct slot *slot);
void stream_take_data(struct stream *s, struct slot *slot, const unsigned char *p, size_t n);
void stream_end_data(struct stream *s, struct slot *slot);
const char *stream_on_frame(struct stream *s, struct slot *slot);

/* ---- tail.c ---- */

/*
 * tail_lose(m, s, code, why):
 * The channel of ${s} is lost, and the session continues.
 *
 * tail_check(m):
 * Far: end the slots that are drained.
 *
 * tail_forget(m, s):
 * Drop the rest of each TAIL of ${s} that is being read.
 */
void tail_lose(struct mux *m, struct slot *s, uint16_t code, const char *why);
void tail_check(struct mux *m);
void tail_forget(struct mux *m, const struct slot *s);

/*
 * tail_is_due(m, s), tail_put_link(m, s, dst):
 * Must ${s} send LOST or DRAIN of other slots?  Write them into ${dst}.
 *
 * tail_has_piece(m, s), tail_put(m, s, dst, room):
 * Must ${s} send TAIL of another slot?  If so, write one frame into ${dst}.
 */
bool tail_is_due(const struct mux *m, const struct slot *s);
size_t tail_put_link(struct mux *m, const struct slot *s, unsigned char *dst);
bool tail_has_piece(const struct mux *m, const struct slot *s);
size_t tail_put(struct mux *m, struct slot *s, unsigned char *dst, size_t room);

/*
 * tail_on_lost(m, s), tail_on_drain(m, s), tail_start(m, s):
 * LOST, DRAIN, or the fixed part of TAIL was read on ${s}.  Return NULL, or a
 * text that names how the peer broke the protocol.
 */
const char *tail_on_lost(struct mux *m, const struct slot *s);
const char *tail_on_drain(struct mux *m, const struct slot *s);
const char *tail_start(struct mux *m, struct slot *s);

/* ---- mux.c ---- */

/*
 * mux_breach(m, what):
 * End the link: in ${what}, the peer broke the protocol.
 *
 * mux_greet(m, s):
 * Write our greeting into start of ${s}, to be sent.
 *
 * mux_takes_data(m, s):
 * May DATA be sent on ${s}?  A slot that drains is used only if no other slot
 * is up.
 *
 * mux_rtt(m):
 * Return the smallest round trip of all slots; 0: none is known.
 */
void mux_breach(struct mux *m, const char *what);
void mux_greet(struct mux *m, struct slot *s);
bool mux_takes_data(const struct mux *m, const struct slot *s);
int64_t mux_rtt(const struct mux *m);

#endif
