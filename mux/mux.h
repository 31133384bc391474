/*
 * mux/mux.h - many streams over one byte channel, as PROTOCOL says.
 *
 * The mux is bytes in (mux_feed), bytes out (mux_pull) and time (mux_tick).  It uses no descriptor, no system call and no clock,
 * so that two of them can be run back to back in one process.  All times are microseconds of one clock; sizes are bytes.
 *
 *   starting --magic--> greeting --HELLO--> up --> dead
 *
 * A stream has two queues.  Its owner appends to stream_tx() what is to be sent and takes from stream_rx() what was received.
 * Both structs are opaque.  A stream's memory stays until its owner calls stream_release, even if the mux is dead or freed.
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
#define MUX_WINDOW_MOST (16 * 1024 * 1024)
#define MUX_BANNER 65536 /* bytes skipped before the far magic */
#define MUX_PULL 16384   /* the least room for mux_pull */
#define MUX_SCRIPT \
	"V='relay " /* a script that comes in the place of the near magic starts so: PROTOCOL, section 1 */

struct mux;
struct stream;

enum mux_role { MUX_NEAR, MUX_FAR };
enum mux_state { MUX_STARTING, MUX_GREETING, MUX_UP, MUX_DEAD };

/* Codes of CLOSE and BYE: PROTOCOL, section 4. */
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
	MUX_VERSION
};

struct mux_stats {
	uint32_t streams; /* open on the wire */
	uint64_t
	    reserved; /* memory for what peers may send or have sent; 0 when no stream is open and all are released */
	uint64_t sent, received; /* link bytes */
	uint64_t cwnd;           /* bytes that may be in flight */
	int64_t rtt_us;          /* of the line, 0: not measured yet */
};

/* ---- the link ---- */

/*
 * mux_new(role, memory, host, now): a mux that starts.  It receives at most ${memory} bytes at a time for all streams together.
 * ${host} is this host's name, sent in HELLO.  NULL: no memory.
 * mux_limit_streams(m, n): allow ${n} open streams instead of MUX_STREAMS; before the first mux_pull.
 * mux_wait_peer_first(m): send nothing before the far magic was read; before the first mux_pull.
 * mux_free(m): all streams are reset.  Those that have an owner stay readable until stream_release.  NULL is harmless.
 */
struct mux *mux_new(enum mux_role role, uint32_t memory, const char *host, int64_t now);
void mux_limit_streams(struct mux *m, uint32_t n);
void mux_wait_peer_first(struct mux *m);
void mux_free(struct mux *m);

/*
 * mux_feed(m, p, n, now): ${n} bytes were read from the channel.  All are taken.
 * mux_pull(m, dst, room, now): write frames that are to be sent now into ${dst}, whose size ${room} is at least MUX_PULL; return
 * how many bytes.
 * mux_has_output(m): would mux_pull return something?
 * mux_tick(m, now): let time pass.  mux_deadline(m): the latest time for the next mux_tick; INT64_MAX: none.
 * mux_woke(m, now): this host slept, which its clock may not show: send PING, and wait less long for an answer.
 * mux_lost(m, code, why): the channel has ended; all streams are reset.
 * mux_bye(m, code, why): end the link; one more mux_pull returns BYE.
 */
void mux_feed(struct mux *m, const void *p, size_t n, int64_t now);
size_t mux_pull(struct mux *m, unsigned char *dst, size_t room, int64_t now);
bool mux_has_output(const struct mux *m);
void mux_tick(struct mux *m, int64_t now);
int64_t mux_deadline(const struct mux *m);
void mux_woke(struct mux *m, int64_t now);
void mux_lost(struct mux *m, uint16_t code, const char *why);
void mux_bye(struct mux *m, uint16_t code, const char *why);

/*
 * mux_code(m), mux_why(m): of a dead mux: the cause.  mux_ended_by_peer(m): it was in a BYE of the peer.
 * mux_peer(m): the peer's host name from HELLO, "" before; mux_name_peer(m, name): use ${name} instead.
 * mux_banner(m, n): what came before the far magic, ${*n} bytes and a NUL; the caller may change them.  NULL: nothing came.
 * mux_stats(m, s): fill ${s}.
 */
enum mux_role mux_role(const struct mux *m);
enum mux_state mux_state(const struct mux *m);
uint16_t mux_code(const struct mux *m);
const char *mux_why(const struct mux *m);
bool mux_ended_by_peer(const struct mux *m);
const char *mux_peer(const struct mux *m);
void mux_name_peer(struct mux *m, const char *name);
char *mux_banner(struct mux *m, size_t *n);
void mux_stats(const struct mux *m, struct mux_stats *s);

/* ---- streams ---- */

/*
 * mux_open(m, target): near: a new stream to ${target}.  NULL: the link is not up, too many streams are open, or no memory.
 * mux_accept(m): far: the next stream that the peer has opened, or NULL.  The caller owns it.
 * mux_next_dirty(m): the next stream that has an owner and that the peer or mux_pull has changed since it was returned last.
 * stream_set_owner(s, owner), stream_owner(s): what mux_next_dirty is asked for; NULL: the stream is never returned by it.
 */
struct stream *mux_open(struct mux *m, const char *target);
struct stream *mux_accept(struct mux *m);
struct stream *mux_next_dirty(struct mux *m);
void stream_set_owner(struct stream *s, void *owner);
void *stream_owner(const struct stream *s);

/*
 * stream_mux(s): the mux that it belongs to.  stream_id(s): its id on the wire.  stream_target(s): as in OPEN, "" after
 * stream_reset.
 * stream_accept(s): far: the target is reached; send OPENED.  stream_is_opened(s): near: OPENED was read.
 */
struct mux *stream_mux(const struct stream *s);
uint32_t stream_id(const struct stream *s);
const char *stream_target(const struct stream *s);
void stream_accept(struct stream *s);
bool stream_is_opened(const struct stream *s);

/*
 * Sending.  stream_tx(s): the queue; its owner appends and then calls stream_push(s).
 * stream_room(s): how many more bytes the queue should be given now; they would be sent soon.
 * stream_sent(s): DATA bytes that were sent.
 * stream_shutdown(s): send EOF after what the queue holds.  stream_eof_sent(s): it was sent.
 * stream_is_stopped(s): the peer reads no more: STOP was read.  No more DATA is sent, and EOF is sent by itself.  What the queue
 * holds is its owner's to clear.
 */
struct buf *stream_tx(struct stream *s);
void stream_push(struct stream *s);
size_t stream_room(const struct stream *s);
uint64_t stream_sent(const struct stream *s);
void stream_shutdown(struct stream *s);
bool stream_eof_sent(const struct stream *s);
bool stream_is_stopped(const struct stream *s);

/*
 * Receiving.  stream_rx(s): the queue; its owner takes bytes and then calls stream_consumed(s, n), which becomes CREDIT.
 * stream_show_progress(s): what was taken moves on, somewhere behind the owner; the peer learns of it by CREDIT.
 * stream_eof_read(s): EOF was read; nothing comes behind what the queue holds.
 * stream_discard(s): drop what the queue holds and what still comes.  stream_stop(s): the same, and send STOP.
 */
struct buf *stream_rx(struct stream *s);
void stream_consumed(struct stream *s, size_t n);
void stream_show_progress(struct stream *s);
bool stream_eof_read(const struct stream *s);
void stream_discard(struct stream *s);
void stream_stop(struct stream *s);

/*
 * The end.  stream_reset(s, code, words): drop both queues and send CLOSE with ${code} (not MUX_END) and ${words}.
 * stream_is_closed(s): CLOSE was read, or the link is dead.  stream_is_reset(s): the same, or stream_reset was called.
 * stream_code(s): the code of a CLOSE, sent or read, that reset the stream; or of one that was read after both EOFs and reports that
 * bytes were lost.  MUX_END: neither.  What was received before stays in stream_rx().
 * stream_reason(s): the words of a CLOSE that was read, or "".
 * stream_progress(s): a count that changes whenever the peer shows that the stream moves: bytes sent, credit, frames read.
 * stream_release(s): its owner needs it no more.  A stream that has not ended is reset.
 */
void stream_reset(struct stream *s, uint16_t code, const char *words);
bool stream_is_closed(const struct stream *s);
bool stream_is_reset(const struct stream *s);
uint16_t stream_code(const struct stream *s);
const char *stream_reason(const struct stream *s);
uint64_t stream_progress(const struct stream *s);
void stream_release(struct stream *s);

/* mux_code_of(err), mux_errno_of(code): codes of CLOSE from and to errno values. */
uint16_t mux_code_of(int err);
int mux_errno_of(uint16_t code);

#endif
