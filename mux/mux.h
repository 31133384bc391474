/*
 * mux/mux.h - many streams over byte channels: doc/PROTOCOL describes the wire.
 *
 * A mux is one side of a link.  It uses no descriptor, no system call and no
 * clock: its caller reads and writes the channels, and gives it the time.
 *
 * A link has slots.  Each slot is a stream of whole frames in both directions,
 * and one channel at a time carries it.  A link starts with slot 0.  If both
 * sides keep a session, the near side can add more slots.
 *
 *   free --mux_add_slot--> starting --magic--> greeting --SESSION--> up
 *     ^                       ^----- mux_attach ----- down <--lost--'|
 *     '----------------------------- closing <----- mux_close_slot --'
 *
 * If a channel is lost while other slots are up, they send the lost bytes
 * again.  Then its slot is free.  If all channels are lost, the streams wait
 * until another channel continues a slot.
 *
 * The owner of a stream appends the bytes to send to stream_tx(), and takes
 * received bytes from stream_rx().  The memory of a stream stays until its
 * owner calls stream_release, even if the mux is dead or freed.
 *
 * Times are microseconds of one clock, sizes are bytes.  Nothing blocks.
 */
#ifndef MUX_MUX_H
#define MUX_MUX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

#define MUX_STREAMS 16384             /* open at once, at most */
#define MUX_MEMORY (64 * 1024 * 1024) /* the usual ${memory} of mux_new */
#define MUX_WINDOW_FIRST (256 * 1024) /* of a new stream, at most */
#define MUX_WINDOW_LEAST 4096
#define MUX_WINDOW_MOST (32 * 1024 * 1024)
#define MUX_BANNER 65536 /* bytes that are skipped before the peer's magic */
#define MUX_PULL 16384   /* the least ${most} of mux_output */
#define MUX_SESSION 16   /* bytes of a session's id */
#define MUX_SLOTS 8

/* The start of a script that may come before the near magic: PROTOCOL 1. */
#define MUX_SCRIPT "V='relay "

struct mux;
struct stream;

enum mux_role { MUX_NEAR, MUX_FAR };
enum mux_state { MUX_STARTING, MUX_GREETING, MUX_UP, MUX_DOWN, MUX_DEAD };

enum mux_slot_state {
	MUX_SLOT_FREE,
	MUX_SLOT_STARTING,
	MUX_SLOT_GREETING,
	MUX_SLOT_UP,
	MUX_SLOT_CLOSING, /* it becomes free; keep its channel, if there is one */
	MUX_SLOT_DOWN     /* its channel is lost; another one can continue it */
};

/* Codes of CLOSE and BYE: PROTOCOL 4. */
enum mux_code {
	MUX_END,
	MUX_RESET,
	MUX_REFUSED,
	MUX_NO_FILE,
	MUX_NO_PERMISSION,
	MUX_UNUSABLE,
	MUX_COMMAND,
	MUX_TIMEOUT,
	MUX_NO_ROUTE,
	MUX_NO_NAME,
	MUX_NO_ROOM,
	MUX_FORBIDDEN,
	MUX_PROTOCOL,
	MUX_VERSION,
	MUX_GONE /* never sent: SESSION of kind 3 was read */
};

struct mux_stats {
	uint32_t streams;        /* open on the wire */
	uint64_t reserved;       /* memory for what was received or may still come */
	uint64_t sent, received; /* link bytes, on all slots */
	uint64_t cwnd;           /* bytes that may be in flight, on all slots */
	int64_t rtt_us;          /* the smallest of all slots; 0: not measured yet */
};

struct mux_slot_stats {
	uint64_t sent, received; /* link bytes since the slot was free */
	uint64_t cwnd, in_flight;
	int64_t rtt_us; /* 0: not measured yet */
};

/* ---- the link: life ---- */

/*
 * mux_new(role, memory, host, now):
 * Return a mux that starts, or NULL if the memory runs out.  All its streams
 * together hold at most ${memory} received bytes.  HELLO carries ${host}, the
 * name of this host.
 */
struct mux *mux_new(enum mux_role role, uint32_t memory, const char *host, int64_t now);

/*
 * Before the first mux_output:
 *
 * mux_limit_streams(m, n): Allow ${n} open streams instead of MUX_STREAMS.
 *
 * mux_wait_peer_first(m):
 * On each channel, send nothing until the peer's magic was read.
 *
 * mux_keep(m, seconds, id):
 * Near: request a session; the arguments are ignored.  Far: keep a session for
 * ${seconds} without a channel.  ${id} is its id, MUX_SESSION bytes.
 */
void mux_limit_streams(struct mux *m, uint32_t n);
void mux_wait_peer_first(struct mux *m);
void mux_keep(struct mux *m, uint32_t seconds, const unsigned char *id);

/*
 * mux_keeps(m):
 * Return how many seconds both sides keep a session without a channel.  0:
 * there is no session, or the link was never up.
 */
uint32_t mux_keeps(const struct mux *m);

/*
 * mux_attach(m, slot, skip_magic, now):
 * A channel starts or continues ${slot}.  The near side calls this only for a
 * slot that is down.  ${skip_magic}: our magic was already sent on it.
 *
 * mux_down_slot(m):
 * Near, in the state MUX_DOWN: return the slot for mux_attach.
 *
 * mux_claimed_slot(m, session), mux_accept_slot(m, session, skip_magic, now):
 * Far: return the slot for a new channel whose greeting has ${session}.  -1:
 * the id is not that of our session, or the generation is not higher than the
 * last one of the slot.  mux_accept_slot also lets the channel continue the
 * slot.  The caller closes the earlier channel of the slot, and feeds the
 * greeting.
 */
struct session;
void mux_attach(struct mux *m, unsigned slot, bool skip_magic, int64_t now);
int mux_down_slot(const struct mux *m);
int mux_claimed_slot(const struct mux *m, const struct session *session);
int mux_accept_slot(struct mux *m, const struct session *session, bool skip_magic, int64_t now);

/*
 * mux_slots(m):
 * Return how many slots both sides allow: 1 if there is no session.
 *
 * mux_add_slot(m, now):
 * Near, in the state MUX_UP: start a free slot on another channel.  Return its
 * number, or -1 if no slot is free.  Before the call, the caller closes the
 * earlier channel of each free slot.
 *
 * mux_close_slot(m, slot):
 * Near: send no more DATA on ${slot}, and request the same from the peer.
 * When both sides have acknowledged all DATA, the slot is lost and becomes
 * free, and the caller closes its channel.  While no other slot is up, the
 * slot stays in use.
 *
 * mux_slot_state(m, slot):
 * MUX_SLOT_FREE also for a number that is out of range.
 */
unsigned mux_slots(const struct mux *m);
int mux_add_slot(struct mux *m, int64_t now);
void mux_close_slot(struct mux *m, unsigned slot);
enum mux_slot_state mux_slot_state(const struct mux *m, unsigned slot);

/*
 * mux_free(m):
 * Reset all streams and free ${m}.  Streams that have an owner stay readable
 * until stream_release.  NULL is harmless.
 */
void mux_free(struct mux *m);

/* ---- the link: bytes and time ---- */

/*
 * mux_feed(m, slot, p, n, now):
 * Take ${n} bytes that were read from the channel of ${slot}.  All are taken.
 */
void mux_feed(struct mux *m, unsigned slot, const void *p, size_t n, int64_t now);

/*
 * mux_output(m, slot, p, most, now), mux_wrote(m, slot, n):
 * Return how many bytes are to be written to the channel of ${slot} now, and
 * point ${*p} to them.  If earlier ones were all written, these are new frames
 * of ${most} bytes at most; ${most} is at least MUX_PULL.  mux_wrote: the
 * channel has taken the first ${n} of these bytes.
 *
 * mux_has_output(m, slot):
 * Would mux_output return more than 0?
 */
size_t mux_output(struct mux *m, unsigned slot, const unsigned char **p, size_t most, int64_t now);
void mux_wrote(struct mux *m, unsigned slot, size_t n);
bool mux_has_output(const struct mux *m, unsigned slot);

/*
 * mux_tick(m, now):
 * Send PING if it is due, and detect silent channels.
 *
 * mux_deadline(m):
 * Return when mux_tick or mux_output must be called next.  INT64_MAX: there is
 * no such time.
 *
 * mux_woke(m, now):
 * This host has slept, which its clock may not show.  Send PING at once.  A
 * channel without a byte for 15 s is lost.
 */
void mux_tick(struct mux *m, int64_t now);
int64_t mux_deadline(const struct mux *m);
void mux_woke(struct mux *m, int64_t now);

/*
 * mux_lost(m, slot, code, why):
 * The channel of ${slot} has ended.  Without a session, the link has ended.
 *
 * mux_end(m, code, why), mux_bye(m, code, why):
 * The link has ended, and its session too: reset all streams.  mux_bye: BYE is
 * the last output of each slot.  ${why} is not from mux_why.
 */
void mux_lost(struct mux *m, unsigned slot, uint16_t code, const char *why);
void mux_end(struct mux *m, uint16_t code, const char *why);
void mux_bye(struct mux *m, uint16_t code, const char *why);

/* ---- the link: facts ---- */

/*
 * mux_code(m), mux_why(m), mux_ended_by_peer(m):
 * Why the link has ended or the last channel was lost: a code, a text, and
 * whether both are from a BYE of the peer.
 */
enum mux_role mux_role(const struct mux *m);
enum mux_state mux_state(const struct mux *m);
uint16_t mux_code(const struct mux *m);
const char *mux_why(const struct mux *m);
bool mux_ended_by_peer(const struct mux *m);

/*
 * mux_peer(m), mux_name_peer(m, name):
 * Return the peer's host name: from HELLO, or "" before HELLO was read.
 * mux_name_peer replaces it by ${name}.
 */
const char *mux_peer(const struct mux *m);
void mux_name_peer(struct mux *m, const char *name);

/*
 * mux_banner(m, slot, n):
 * Return what was read before the peer's magic on ${slot}, ${*n} bytes and a
 * NUL, or NULL if that was nothing.  It belongs to ${m}; the caller may change
 * the bytes.
 */
char *mux_banner(struct mux *m, unsigned slot, size_t *n);

/*
 * mux_stats(m, s), mux_slot_stats(m, slot, s):
 * Fill ${s}.  reserved is 0 when no stream is open and all are released.
 *
 * mux_limited_at(m):
 * Since when has bulk of one of the sides waited on all slots, for ACKs or for
 * the channel?  INT64_MAX: no bulk waits.
 */
void mux_stats(const struct mux *m, struct mux_stats *s);
void mux_slot_stats(const struct mux *m, unsigned slot, struct mux_slot_stats *s);
int64_t mux_limited_at(const struct mux *m);

/* ---- streams: life ---- */

/*
 * mux_open(m, target):
 * Near: return a new stream to ${target}, which belongs to the caller.  NULL:
 * the link is not up, too many streams are open, or there is no memory.
 *
 * mux_accept(m):
 * Far: return the next stream that the peer has opened, or NULL.  It belongs to
 * the caller.
 *
 * stream_accept(s), stream_is_opened(s):
 * Far: the target is connected; send OPENED.  Was OPENED sent or read?
 */
struct stream *mux_open(struct mux *m, const char *target);
struct stream *mux_accept(struct mux *m);
void stream_accept(struct stream *s);
bool stream_is_opened(const struct stream *s);

/*
 * stream_set_owner(s, owner), stream_owner(s):
 * ${owner} is a pointer of the caller.
 *
 * mux_next_dirty(m):
 * Return a stream that has changed since it was last returned, or NULL.
 * Frames of the peer and mux_output change a stream.  A stream without an
 * owner is never returned.  This also frees released streams, so a caller that
 * sets owners calls it in each turn until it returns NULL.
 */
void stream_set_owner(struct stream *s, void *owner);
void *stream_owner(const struct stream *s);
struct stream *mux_next_dirty(struct mux *m);

/*
 * stream_reset(s, code, words):
 * Drop both queues and send CLOSE with ${code}, which is not MUX_END, and
 * ${words}, of which 512 bytes are sent at most.
 *
 * stream_release(s):
 * The caller uses ${s} no more.  A stream that has not sent EOF, or still
 * receives without STOP, is reset.
 */
void stream_reset(struct stream *s, uint16_t code, const char *words);
void stream_release(struct stream *s);

/* ---- streams: sending ---- */

/*
 * stream_tx(s), stream_room(s), stream_push(s):
 * The owner appends to the queue and then calls stream_push.  stream_room
 * returns how many bytes more it should append now.  A longer queue only costs
 * memory.
 *
 * stream_sent(s): Return how many bytes of DATA were sent.
 */
struct buf *stream_tx(struct stream *s);
size_t stream_room(const struct stream *s);
void stream_push(struct stream *s);
uint64_t stream_sent(const struct stream *s);

/*
 * stream_shutdown(s), stream_eof_sent(s):
 * Send EOF when the queue is empty.  Was it sent?
 *
 * stream_is_stopped(s):
 * Was STOP read?  Then no more DATA is sent, and the mux sends EOF itself.
 * The owner clears stream_tx().
 */
void stream_shutdown(struct stream *s);
bool stream_eof_sent(const struct stream *s);
bool stream_is_stopped(const struct stream *s);

/* ---- streams: receiving ---- */

/*
 * stream_rx(s), stream_consumed(s, n):
 * The owner takes bytes from the queue, writes them onward, and then calls
 * stream_consumed for ${n} bytes.  CREDIT for them is sent later.
 *
 * stream_show_progress(s):
 * More of the consumed bytes have reached the target.  Send CREDIT for at
 * least one byte, to show progress to the peer.
 *
 * stream_eof_read(s):
 * Was EOF read?  Then no byte follows those in the queue.
 *
 * stream_discard(s), stream_stop(s):
 * Drop the queue and all that is received later.  stream_stop also sends STOP.
 */
struct buf *stream_rx(struct stream *s);
void stream_consumed(struct stream *s, size_t n);
void stream_show_progress(struct stream *s);
bool stream_eof_read(const struct stream *s);
void stream_discard(struct stream *s);
void stream_stop(struct stream *s);

/* ---- streams: facts ---- */

/*
 * stream_mux(s), stream_id(s), stream_target(s):
 * The mux of ${s}, its id on the wire, and its target.  After stream_reset,
 * the target can be "".
 */
struct mux *stream_mux(const struct stream *s);
uint32_t stream_id(const struct stream *s);
const char *stream_target(const struct stream *s);

/*
 * stream_is_closed(s), stream_is_reset(s):
 * Was CLOSE read, or is the link dead?  stream_is_reset: also true if this
 * side has sent CLOSE or will send it.
 */
bool stream_is_closed(const struct stream *s);
bool stream_is_reset(const struct stream *s);

/*
 * stream_code(s), stream_reason(s):
 * The code of the reset that was sent or read.  If the peer's CLOSE reports a
 * loss after both EOFs: the code of that CLOSE.  Otherwise MUX_END.  The
 * reason is the text of the peer's CLOSE, or "".  After a reset by the peer,
 * stream_rx() keeps the bytes that were received before.
 *
 * stream_progress(s):
 * Return a count that changes when DATA of ${s} is sent, or a frame other than
 * DATA is read.
 */
uint16_t stream_code(const struct stream *s);
const char *stream_reason(const struct stream *s);
uint64_t stream_progress(const struct stream *s);

/*
 * mux_code_of(err), mux_errno_of(code):
 * Convert an errno value to a code of CLOSE, and back.
 */
uint16_t mux_code_of(int err);
int mux_errno_of(uint16_t code);

#endif
