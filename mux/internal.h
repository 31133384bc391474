/*
 * mux/internal.h - the structs of a link, for mux.c and stream.c only.
 *
 * mux.c reads and writes the bytes of the channel, decides which stream sends next and keeps the time.  stream.c holds the life of one
 * stream: its windows, the frames that it has to send, and what the frames of the peer change.
 */
#ifndef MUX_INTERNAL_H
#define MUX_INTERNAL_H

#include "mux/cc.h"
#include "mux/frame.h"
#include "mux/mux.h"
#include "mux/queue.h"

struct stream {
	struct mux *mux;
	void *owner;
	struct buf tx, rx;
	struct queue_node control, flow, accept, dirty;
	char *target;      /* of OPEN */
	char *reason;      /* of CLOSE, NULL: none */
	int64_t sent_at;   /* when it joined the flows last; its burst counts from then */
	int64_t credit_at; /* of the last CREDIT */
	uint64_t sent;     /* DATA bytes */
	uint64_t progress; /* changes when the peer shows that the stream moves */
	uint32_t id;
	uint32_t tx_window; /* DATA bytes that may be sent */
	uint32_t rx_window; /* DATA bytes that the peer may still send */
	uint32_t window;    /* what rx_window is filled up to */
	uint32_t consumed;  /* taken from rx, not yet in a CREDIT */
	uint32_t burst;     /* bytes sent lately: a stream with few is quiet */
	int32_t deficit;    /* of deficit round robin */
	uint16_t code; /* of a reset that was sent, or of a CLOSE that was read; MUX_END: neither */
	uint16_t close_code; /* of the CLOSE to send */
	bool released;
	bool opened;   /* OPENED was read */
	bool shutdown; /* EOF follows what tx holds */
	bool discards; /* what comes for rx is dropped */
	bool lost;     /* something was dropped so */
	bool eof_sent, eof_read, stop_sent, stop_read, close_sent, close_read;
	bool due_open, due_opened, due_credit, due_stop, due_close; /* frames to send */
};

struct mux {
	enum mux_role role;
	enum mux_state state;
	struct hello ours, theirs;
	int64_t now;
	struct stream **table;  /* by id / 2 */
	uint32_t size;          /* of the table */
	uint32_t n;             /* streams in it */
	uint32_t next_id;       /* near: where the search for a free id starts */
	uint32_t structs;       /* streams whose memory is not freed yet */
	bool freed;             /* mux_free was called; the last stream frees the mux */
	struct queue control;   /* streams with control frames to send */
	struct queue new_flows; /* streams with DATA or EOF to send, quiet before */
	struct queue old_flows; /* the same, busy before */
	struct queue accept;    /* opened by the peer, not yet accepted */
	struct queue dirty;
	struct cc cc;
	uint64_t
	    rx_reserved; /* the sum of all rx_window, consumed and rx, and the rest of the DATA frame being read */

	/* reading */
	unsigned char head[FRAME_HEAD];
	size_t head_have;
	struct frame frame;  /* whose body is being read */
	struct stream *data; /* of a DATA frame; NULL: its body is dropped */
	size_t left;         /* of the body */
	unsigned char body[FRAME_BODY];
	size_t matched; /* bytes of the magic */
	char *banner;   /* what came before the magic */
	size_t banner_have;

	/* time and acknowledgements */
	uint64_t read, read_acked; /* link bytes */
	uint32_t ack_every;        /* link bytes read without an ACK, as the peer asked for */
	uint32_t ack_every_sent;   /* what the peer was asked for */
	int64_t unacked_at;        /* the first byte that needs an ACK; 0: none does */
	int64_t read_at;           /* the last byte */
	int64_t alive_at;          /* the last sign of life */
	int64_t ticked_at, pinged_at;
	bool due_hello, due_ack, due_ping, due_bye;
	bool wait_peer_first;

	uint16_t code; /* dead: why */
	char why[FRAME_WORDS + 128];
	bool ended_by_peer; /* BYE was read */
};

/* ---- stream.c, for mux.c ---- */

/* Add a stream to the table; NULL: no memory. */
struct stream *stream_new(struct mux *m, uint32_t id, const char *target, size_t length);
/* The window of a new stream, where ${n} are open and the receiver has ${memory} for all. */
uint32_t stream_first_window(uint32_t memory, uint32_t n);
/* Free ${s} if it is closed, released and in no queue. */
void stream_free_if_done(struct stream *s);
/* The link is dead: reset ${s}. */
void stream_lose(struct stream *s);
/* Has ${s} DATA or EOF to send, and may it? */
bool stream_can_send_data(const struct stream *s);
bool stream_eof_is_due(const struct stream *s);
bool stream_can_send(const struct stream *s);
/* Write the frames that ${s} has to send; put_control writes at most MUX_PULL / 2 bytes.  Return how many bytes. */
size_t stream_put_control(struct stream *s, unsigned char *dst);
size_t stream_put_data(struct stream *s, unsigned char *dst, size_t room);
size_t stream_put_eof(struct stream *s, unsigned char *dst);
/* What a frame of the peer changes.  Return NULL, or a text that names what the peer did wrong. */
const char *stream_start_data(struct stream *s, uint32_t length);
void stream_take_data(struct stream *s, const unsigned char *p, size_t n);
const char *stream_on_frame(struct stream *s, const struct frame *f);
/* The owner of ${s} has to look at it. */
void stream_mark_dirty(struct stream *s);

/* ---- mux.c, for stream.c ---- */

/* Write a head into ${dst}; return where its body goes.  Write a frame without a body, or one of a code and words; return its length. */
unsigned char *mux_put_head(unsigned char *dst, unsigned type, uint32_t stream, size_t length);
size_t mux_put_bare(unsigned char *dst, unsigned type, uint32_t stream);
size_t mux_put_words(
    unsigned char *dst, unsigned type, uint32_t stream, uint16_t code, const char *words);
/* ${s} has DATA or EOF to send: let it wait for its turn. */
void mux_schedule(struct mux *m, struct stream *s);

#endif
