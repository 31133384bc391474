/*
 * mux/internal.h - the structs of a link, for mux.c and stream.c only.
 *
 * mux.c reads and writes the bytes of the channel, decides which stream sends
 * next, and lets time pass.  stream.c has the life of one stream: its windows,
 * the frames that it sends, and what the frames of the peer change.
 */
#ifndef MUX_INTERNAL_H
#define MUX_INTERNAL_H

#include "mux/cc.h"
#include "mux/frame.h"
#include "mux/greeting.h"
#include "mux/mux.h"
#include "mux/queue.h"
#include "mux/retain.h"

struct stream {
	struct mux *mux;
	void *owner;
	struct buf tx, rx;
	struct queue_node control, flow, accept, dirty;
	char *target;      /* of OPEN; NULL: freed */
	char *reason;      /* of CLOSE; NULL: none */
	int64_t sent_at;   /* when it was queued as a flow last; start of burst */
	int64_t credit_at; /* of the last CREDIT */
	uint64_t sent;     /* DATA bytes */
	uint64_t progress; /* see stream_progress */
	uint32_t id;
	uint32_t tx_window;  /* DATA bytes that may be sent */
	uint32_t rx_window;  /* DATA bytes that the peer may still send */
	uint32_t window;     /* CREDIT raises rx_window up to this */
	uint32_t consumed;   /* taken from rx, not yet in a CREDIT */
	uint32_t burst;      /* bytes sent lately; few: the stream is quiet */
	int32_t deficit;     /* of deficit round robin */
	uint16_t code;       /* see stream_code */
	uint16_t close_code; /* of the CLOSE to send */
	bool released;
	bool opened;   /* OPENED was read */
	bool shutdown; /* EOF follows what tx holds */
	bool discards; /* DATA that is read is dropped */
	bool lost;     /* bytes of the peer were dropped */
	bool eof_sent, eof_read, stop_sent, stop_read, close_sent, close_read;
	bool due_open, due_opened, due_credit, due_stop, due_close; /* frames to send */
};

struct mux {
	enum mux_role role;
	enum mux_state state;
	struct hello ours, theirs;
	struct session session; /* what our next SESSION carries */
	bool keeps;             /* the link outlives its channel */
	bool joins;             /* this channel continues the link */
	bool skip_magic;        /* another process has sent it on this channel */
	int64_t now;
	struct stream **table;  /* by id / 2 */
	uint32_t size;          /* of the table */
	uint32_t n;             /* streams in it */
	uint32_t next_id;       /* near: where the search for a free id starts */
	uint32_t structs;       /* streams that are not freed yet */
	bool freed;             /* mux_free was called; the last stream frees the mux */
	struct queue control;   /* streams with control frames to send */
	struct queue new_flows; /* quiet streams with DATA or EOF to send */
	struct queue old_flows; /* busy streams with DATA or EOF to send */
	struct queue accept;    /* opened by the peer, not yet accepted */
	struct queue dirty;     /* changed: see mux_next_dirty */
	struct cc cc;
	uint64_t rx_reserved; /* all rx_window, consumed and rx, and the rest of a DATA frame */

	struct greeting greeting;     /* of the peer, on this channel */
	unsigned char *start;         /* our own greeting, while it is written */
	size_t start_next, start_end; /* bytes of it */
	struct retain retain;         /* all later bytes that we send */

	/* reading */
	unsigned char head[FRAME_HEAD];
	size_t head_have;
	struct frame frame;  /* the one whose body is being read */
	struct stream *data; /* of a DATA frame; NULL: its body is dropped */
	size_t left;         /* of the body */
	unsigned char body[FRAME_BODY];

	/* time and acknowledgements */
	uint64_t read, read_acked; /* link bytes */
	uint32_t ack_every;        /* link bytes read before an ACK is due */
	uint32_t ack_every_sent;   /* in our last ACK_EVERY */
	int64_t unacked_at;        /* of the first byte without an ACK; 0: none */
	int64_t read_at;           /* of the last byte */
	int64_t alive_at;          /* of the last byte, or set by mux_woke */
	int64_t ticked_at, pinged_at;
	int64_t room_at; /* next try to get memory for output; 0: none */
	bool due_hello, due_ack, due_ping, due_bye;
	bool wait_peer_first;

	uint16_t code; /* down or dead: why */
	char why[FRAME_WORDS + 128];
	bool ended_by_peer; /* BYE was read */
};

/* ---- stream.c, for mux.c ---- */

/*
 * stream_new(m, id, target, length):
 * Add a stream to the table and return it.  NULL: out of memory.
 */
struct stream *stream_new(struct mux *m, uint32_t id, const char *target, size_t length);

/*
 * stream_first_window(memory, n):
 * Return the window of a new stream while ${n} are open.  The receiver has
 * ${memory} for all of them.
 */
uint32_t stream_first_window(uint32_t memory, uint32_t n);

/*
 * stream_free_if_done(s):
 * Free ${s} if it is closed, released and in no queue.
 */
void stream_free_if_done(struct stream *s);

/* stream_lose(s): The link is dead: reset ${s}. */
void stream_lose(struct stream *s);

/*
 * stream_can_send_data(s), stream_eof_is_due(s), stream_can_send(s):
 * May ${s} send DATA now?  EOF?  One of them?
 */
bool stream_can_send_data(const struct stream *s);
bool stream_eof_is_due(const struct stream *s);
bool stream_can_send(const struct stream *s);

/*
 * stream_put_control(s, dst), stream_put_data(s, dst, room), stream_put_eof:
 * Write frames of ${s} into ${dst}; return how many bytes.  Control frames take
 * at most MUX_PULL / 2 bytes.
 */
size_t stream_put_control(struct stream *s, unsigned char *dst);
size_t stream_put_data(struct stream *s, unsigned char *dst, size_t room);
size_t stream_put_eof(struct stream *s, unsigned char *dst);

/*
 * stream_start_data(s, length), stream_take_data(s, p, n):
 * The head of a DATA frame was read, or ${n} bytes of its body.
 * stream_on_frame(s, f): The whole body of another frame was read.
 * Return NULL, or a text that names how the peer broke the protocol.
 */
const char *stream_start_data(struct stream *s, uint32_t length);
void stream_take_data(struct stream *s, const unsigned char *p, size_t n);
const char *stream_on_frame(struct stream *s, const struct frame *f);

/* stream_mark_dirty(s): mux_next_dirty returns ${s}, if it has an owner. */
void stream_mark_dirty(struct stream *s);

/* ---- mux.c, for stream.c ---- */

/*
 * mux_put_head(dst, type, stream, length):
 * Write the head of a frame into ${dst}; return where its body begins.
 */
unsigned char *mux_put_head(unsigned char *dst, unsigned type, uint32_t stream, size_t length);

/*
 * mux_put_bare(dst, type, stream), mux_put_words(dst, type, stream, code,
 * words):
 * Write a frame without a body, or with a code and a text; return its length.
 */
size_t mux_put_bare(unsigned char *dst, unsigned type, uint32_t stream);
size_t mux_put_words(
    unsigned char *dst, unsigned type, uint32_t stream, uint16_t code, const char *words);

/* mux_schedule(m, s): If ${s} can send DATA or EOF, queue it as a flow. */
void mux_schedule(struct mux *m, struct stream *s);

#endif
