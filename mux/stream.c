/*
 * mux/stream.c - the life of one stream.
 *
 * Each direction ends alone: tx with our EOF, rx with the EOF of the peer.
 * When both were exchanged and the owner has taken what rx holds, CLOSE with
 * code 0 is sent.  Any other CLOSE is a reset, or reports a loss.  A reset that
 * was read leaves rx as it is, because its bytes were received before the
 * reset.
 *
 * A stream leaves the table when CLOSE was sent and read.  Its memory is freed
 * when its owner has released it and no queue holds it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mux/internal.h"

#define WINDOW_TOP INT32_MAX
#define TX_ALL (16 * 1024 * 1024) /* of the tx queues of all streams, about */
#define TX_ONE (128 * 1024)       /* of one tx queue, about */

/* ---- life ---- */

uint32_t
stream_first_window(uint32_t memory, uint32_t n)
{
	uint32_t most = memory / 16 / (n + 1), w = MUX_WINDOW_LEAST;

	while (w * 2 <= most && w < MUX_WINDOW_FIRST)
		w *= 2;
	return w;
}

/* Return a copy of ${n} bytes and a NUL, or NULL if the memory runs out. */
static char *
copy_text(const char *text, size_t n)
{
	char *copy = malloc(n + 1);

	if (copy == NULL)
		return NULL;
	memcpy(copy, text, n);
	copy[n] = '\0';
	return copy;
}

struct stream *
stream_new(struct mux *m, uint32_t id, const char *target, size_t length)
{
	struct stream *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return NULL;
	s->target = copy_text(target, length);
	if (s->target == NULL) {
		free(s);
		return NULL;
	}
	s->mux = m;
	s->control.item = s->flow.item = s->accept.item = s->dirty.item = s;
	s->id = id;
	s->credit_at = m->now;
	m->table[id / 2] = s;
	m->n++;
	m->structs++;
	return s;
}

void
stream_free_if_done(struct stream *s)
{
	struct mux *m = s->mux;

	if (!s->close_sent || !s->close_read || !s->released || s->control.queued ||
	    s->flow.queued || s->accept.queued)
		return;
	buf_clear(&s->rx);
	buf_clear(&s->tx);
	free(s->target);
	free(s->reason);
	free(s);
	m->structs--;
	if (m->freed && m->structs == 0)
		free(m);
}

static void
leave_table(struct stream *s)
{
	struct mux *m = s->mux;

	if (!s->close_sent || !s->close_read || m->table == NULL || m->table[s->id / 2] != s)
		return;
	m->table[s->id / 2] = NULL;
	m->n--;
}

void
stream_mark_dirty(struct stream *s)
{
	if (s->owner != NULL)
		queue_append(&s->mux->dirty, &s->dirty);
}

static void
need_control(struct stream *s)
{
	queue_append(&s->mux->control, &s->control);
}

/* The peer may send nothing more: free what its window and CREDIT reserve. */
static void
forget_window(struct stream *s)
{
	if (!s->eof_read)
		s->mux->rx_reserved -= s->rx_window + s->consumed;
	s->rx_window = s->consumed = 0;
}

/* Drop what rx holds, and the rest of a DATA frame that is being read. */
static void
drop_rx(struct stream *s)
{
	struct mux *m = s->mux;

	m->rx_reserved -= s->rx.used;
	s->lost = s->lost || s->rx.used > 0;
	buf_clear(&s->rx);
	if (m->data != s)
		return;
	m->rx_reserved -= m->left;
	m->data = NULL;
	s->lost = true;
}

/* Send CLOSE if both directions have ended and rx was taken or dropped. */
static void
close_if_ended(struct stream *s)
{
	if (!s->eof_sent || !s->eof_read || s->rx.used > 0 || s->close_sent || s->due_close)
		return;
	s->close_code = s->lost ? MUX_RESET : MUX_END;
	s->due_close = true;
	need_control(s);
}

static void
set_code(struct stream *s, uint16_t code)
{
	if (s->code == MUX_END)
		s->code = code == MUX_END ? MUX_RESET : code;
}

void
stream_lose(struct stream *s)
{
	forget_window(s);
	if (s->mux->data == s) {
		s->mux->rx_reserved -= s->mux->left;
		s->mux->data = NULL;
	}
	if (!s->close_read) {
		set_code(s, MUX_RESET);
		free(s->reason); /* of a CLOSE that will not be sent */
		s->reason = NULL;
	}
	s->close_sent = s->close_read = true;
	s->due_close = false;
	stream_mark_dirty(s);
	leave_table(s);
	stream_free_if_done(s);
}

void
stream_reset(struct stream *s, uint16_t code, const char *words)
{
	size_t n = strlen(words);

	if (s->close_sent || s->due_close)
		return;
	forget_window(s);
	drop_rx(s);
	buf_clear(&s->tx);
	s->discards = true;
	set_code(s, code);
	s->close_code = code;
	free(s->reason);
	s->reason = copy_text(words, n > FRAME_WORDS ? FRAME_WORDS : n);
	if (!s->due_open) {
		free(s->target);
		s->target = NULL;
	}
	s->due_close = true;
	need_control(s);
}

void
stream_release(struct stream *s)
{
	/*
	 * After EOF and STOP, only the peer's EOF is missing.  The peer would
	 * pass on a reset, which can destroy the last bytes that we sent.
	 */
	if (!(s->eof_sent && (s->stop_sent || s->eof_read)))
		stream_reset(s, MUX_RESET, "");
	s->discards = true;
	drop_rx(s);
	close_if_ended(s);
	queue_remove(&s->mux->dirty, &s->dirty);
	s->owner = NULL;
	s->released = true;
	/*
	 * Targets have no memory reserved, and the peer may never send CLOSE.
	 */
	if (!s->due_open) {
		free(s->target);
		s->target = NULL;
	}
	stream_free_if_done(s);
}

/* ---- windows ---- */

/*
 * Return the credit for what was consumed.  It is more if the window is too
 * small for the line, and less if memory is short.
 */
static uint32_t
take_credit(struct stream *s)
{
	struct mux *m = s->mux;
	uint32_t give = s->consumed, more, memory = m->ours.memory, share = memory / 2 / (m->n + 1);
	uint64_t left;

	m->rx_reserved -= give;
	/* Half of the memory is for first windows. */
	left = memory / 2 > m->rx_reserved ? memory / 2 - m->rx_reserved : 0;
	if (left < memory / 8) {
		if (s->window > share && s->window > 2 * MUX_WINDOW_LEAST && give > 1) {
			s->window -= give / 2;
			give -= give / 2;
		}
	} else if (s->rx.used < s->window / 4 && m->now - s->credit_at < 2 * m->cc.rtt) {
		/*
		 * A quarter of the window was used within two round trips, and
		 * the owner keeps up: the window limits the rate.
		 */
		more = s->window;
		if (more > left / 4)
			more = (uint32_t)(left / 4);
		if (more > MUX_WINDOW_MOST - s->window)
			more = MUX_WINDOW_MOST - s->window;
		s->window += more;
		give += more;
	}
	s->consumed = 0;
	s->credit_at = m->now;
	s->rx_window += give;
	m->rx_reserved += give;
	return give;
}

void
stream_consumed(struct stream *s, size_t n)
{
	if (s->close_sent || s->due_close || (s->close_read && !s->eof_read)) {
		s->mux->rx_reserved -= n;
		return;
	}
	/* Reserved until the CREDIT frame is sent, except after EOF. */
	s->consumed += (uint32_t)n;
	if (s->eof_read)
		s->mux->rx_reserved -= n;
	close_if_ended(s);
	/*
	 * A sender that has ended, or stopped reading, needs to see that its
	 * last bytes move: CREDIT shows that.  CLOSE shows that all have moved.
	 */
	if (s->close_read ||
	    (s->consumed < s->window / 4 && !((s->eof_read || s->stop_read) && s->rx.used > 0)))
		return;
	s->due_credit = true;
	need_control(s);
}

void
stream_show_progress(struct stream *s)
{
	if (s->close_read || s->close_sent || s->due_close || s->stop_sent)
		return;
	if (s->consumed == 0) { /* CREDIT of 0 does not exist */
		s->consumed = 1;
		if (!s->eof_read)
			s->mux->rx_reserved++;
	}
	s->due_credit = true;
	need_control(s);
}

/* ---- for the owner ---- */

void
stream_accept(struct stream *s)
{
	if (s->close_sent)
		return;
	s->due_opened = true;
	need_control(s);
}

void
stream_push(struct stream *s)
{
	mux_schedule(s->mux, s);
}

size_t
stream_room(const struct stream *s)
{
	size_t most = TX_ALL / (s->mux->n + 1);

	if (most > TX_ONE)
		most = TX_ONE;
	if (most > s->tx_window)
		most = s->tx_window;
	return s->mux->state != MUX_DEAD && !s->close_read && s->tx.used < most ? most - s->tx.used
										: 0;
}

void
stream_shutdown(struct stream *s)
{
	s->shutdown = true;
	mux_schedule(s->mux, s);
}

void
stream_discard(struct stream *s)
{
	drop_rx(s);
	s->discards = true;
	close_if_ended(s);
}

void
stream_stop(struct stream *s)
{
	stream_discard(s);
	if (s->stop_sent || s->eof_read || s->close_sent || s->due_close)
		return;
	s->stop_sent = s->due_stop = true;
	need_control(s);
}

struct mux *
stream_mux(const struct stream *s)
{
	return s->mux;
}

uint32_t
stream_id(const struct stream *s)
{
	return s->id;
}

const char *
stream_target(const struct stream *s)
{
	return s->target != NULL ? s->target : "";
}

void
stream_set_owner(struct stream *s, void *owner)
{
	s->owner = owner;
}

void *
stream_owner(const struct stream *s)
{
	return s->owner;
}

struct buf *
stream_tx(struct stream *s)
{
	return &s->tx;
}

struct buf *
stream_rx(struct stream *s)
{
	return &s->rx;
}

uint64_t
stream_sent(const struct stream *s)
{
	return s->sent;
}

uint64_t
stream_progress(const struct stream *s)
{
	return s->progress;
}

bool
stream_is_opened(const struct stream *s)
{
	return s->opened;
}

bool
stream_is_stopped(const struct stream *s)
{
	return s->stop_read;
}

bool
stream_is_closed(const struct stream *s)
{
	return s->close_read;
}

bool
stream_is_reset(const struct stream *s)
{
	return s->close_read || s->due_close || s->close_sent;
}

bool
stream_eof_sent(const struct stream *s)
{
	return s->eof_sent;
}

bool
stream_eof_read(const struct stream *s)
{
	return s->eof_read;
}

uint16_t
stream_code(const struct stream *s)
{
	return s->code;
}

const char *
stream_reason(const struct stream *s)
{
	return s->close_read && s->reason != NULL ? s->reason : "";
}

/* ---- frames to send ---- */

bool
stream_can_send_data(const struct stream *s)
{
	return s->tx_window > 0 && s->tx.used > 0 && !s->stop_read && !s->eof_sent &&
	       !s->close_sent && !s->due_close;
}

bool
stream_eof_is_due(const struct stream *s)
{
	return !s->eof_sent && !s->close_sent && !s->due_close &&
	       (s->stop_read || (s->shutdown && s->tx.used == 0));
}

bool
stream_can_send(const struct stream *s)
{
	return stream_can_send_data(s) || stream_eof_is_due(s);
}

static size_t
put_open(struct stream *s, unsigned char *dst)
{
	size_t n = strlen(s->target);
	unsigned char *body = mux_put_head(dst, FRAME_OPEN, s->id, 8 + n);

	frame_put(body, s->tx_window, 4);
	frame_put(body + 4, s->rx_window, 4);
	memcpy(body + 8, s->target, n);
	s->due_open = false;
	return FRAME_HEAD + 8 + n;
}

static size_t
put_credit(struct stream *s, unsigned char *dst)
{
	uint32_t give = s->eof_read ? s->consumed : take_credit(s);

	s->consumed = 0;
	frame_put(mux_put_head(dst, FRAME_CREDIT, s->id, 4), give, 4);
	return FRAME_HEAD + 4;
}

static size_t
put_close(struct stream *s, unsigned char *dst)
{
	const char *words = s->reason;
	size_t n;

	if (s->close_read)
		words = NULL;
	else if (s->lost && words == NULL)
		words = "not everything was delivered";
	n = mux_put_words(
	    dst, FRAME_CLOSE, s->id, s->close_code, s->close_code == MUX_END ? NULL : words);
	s->due_close = false;
	s->close_sent = true;
	leave_table(s);
	return n;
}

size_t
stream_put_control(struct stream *s, unsigned char *dst)
{
	bool open = !s->close_sent && !s->due_close;
	size_t n = 0;

	if (s->due_open)
		n += put_open(s, dst);
	if (s->due_opened && open)
		n += mux_put_bare(dst + n, FRAME_OPENED, s->id);
	if (s->due_stop && open && !s->eof_read)
		n += mux_put_bare(dst + n, FRAME_STOP, s->id);
	if (s->due_credit && open && !s->stop_sent && s->consumed > 0)
		n += put_credit(s, dst + n);
	if (s->due_close)
		n += put_close(s, dst + n);
	s->due_opened = s->due_stop = s->due_credit = false;
	return n;
}

size_t
stream_put_data(struct stream *s, unsigned char *dst, size_t room)
{
	size_t n = s->tx.used, slice = cc_slice(&s->mux->cc);

	if (n > s->tx_window)
		n = s->tx_window;
	if (n > slice)
		n = slice;
	if (n > room - FRAME_HEAD)
		n = room - FRAME_HEAD;
	mux_put_head(dst, FRAME_DATA, s->id, n);
	buf_take(&s->tx, dst + FRAME_HEAD, n);
	s->tx_window -= (uint32_t)n;
	s->sent += n;
	s->progress++;
	s->burst += (uint32_t)(n + FRAME_HEAD);
	if (s->burst > 2 * slice)
		s->burst = (uint32_t)(2 * slice); /* or it would not be quiet for long */
	s->deficit -= (int32_t)(n + FRAME_HEAD);
	return FRAME_HEAD + n;
}

size_t
stream_put_eof(struct stream *s, unsigned char *dst)
{
	mux_put_bare(dst, FRAME_EOF, s->id);
	s->eof_sent = true;
	close_if_ended(s);
	return FRAME_HEAD;
}

/* ---- frames read ---- */

const char *
stream_start_data(struct stream *s, uint32_t length)
{
	struct mux *m = s->mux;

	if (s->eof_read || s->close_read)
		return "DATA for a stream that is not open";
	if (s->close_sent || s->due_close)
		return NULL; /* the peer has not read our CLOSE yet */
	if (length > s->rx_window)
		return "DATA beyond the window";
	s->rx_window -= length;
	if (s->discards) {
		m->rx_reserved -= length;
		s->lost = true;
	} else {
		m->data = s;
	}
	return NULL;
}

void
stream_take_data(struct stream *s, const unsigned char *p, size_t n)
{
	size_t had = s->rx.used;

	stream_mark_dirty(s);
	if (buf_put(&s->rx, p, n))
		return;
	/* m->left does not count this piece any more. */
	s->mux->rx_reserved -= n - (s->rx.used - had);
	stream_reset(s, MUX_NO_ROOM, "out of memory");
}

static void
on_eof(struct stream *s)
{
	forget_window(s);
	s->eof_read = true;
	close_if_ended(s);
}

static void
on_close(struct stream *s, const struct frame *f)
{
	const unsigned char *body = s->mux->body;
	uint16_t code = (uint16_t)frame_get(body, 2);
	bool ended = s->eof_read && s->eof_sent;

	forget_window(s);
	s->close_read = true;
	free(s->reason);
	s->reason = code == MUX_END ? NULL : copy_text((const char *)body + 2, f->length - 2);
	/*
	 * A code before both EOFs is a reset, even 0.  After them, it reports a
	 * loss.
	 */
	if (code != MUX_END || !ended)
		set_code(s, code);
	if (ended) {
		close_if_ended(s);
	} else if (!s->close_sent && !s->due_close) {
		s->close_code = s->code;
		s->due_close = true;
		need_control(s);
	}
	leave_table(s);
}

static const char *
on_credit(struct stream *s)
{
	uint32_t n = (uint32_t)frame_get(s->mux->body, 4);

	if (n == 0 || n > WINDOW_TOP || s->tx_window > WINDOW_TOP - n)
		return "a CREDIT of 0, or beyond the largest window";
	s->tx_window += n;
	mux_schedule(s->mux, s);
	return NULL;
}

static const char *
on_open_stream(struct stream *s, const struct frame *f)
{
	switch (f->type) {
	case FRAME_OPENED:
		if (s->mux->role == MUX_FAR || s->opened)
			return "an OPENED that is not allowed";
		s->opened = true;
		break;
	case FRAME_EOF:
		on_eof(s);
		break;
	case FRAME_STOP:
		s->stop_read = true;
		mux_schedule(s->mux, s);
		break;
	case FRAME_CREDIT:
		return on_credit(s);
	}
	return NULL;
}

const char *
stream_on_frame(struct stream *s, const struct frame *f)
{
	const char *wrong = NULL;

	stream_mark_dirty(s);
	s->progress++;
	if (s->close_read)
		wrong = "a frame after CLOSE";
	else if (f->type == FRAME_CLOSE)
		on_close(s, f);
	else if (f->type == FRAME_EOF && s->eof_read)
		wrong = "a second EOF";
	else if (!s->close_sent && !s->due_close) /* else the peer has not read CLOSE yet */
		wrong = on_open_stream(s, f);
	stream_free_if_done(s);
	return wrong;
}

/* ---- codes ---- */

static const struct {
	uint16_t code;
	int err;
} codes[] = { { MUX_RESET, ECONNRESET }, { MUX_REFUSED, ECONNREFUSED }, { MUX_NO_FILE, ENOENT },
	{ MUX_NO_PERMISSION, EACCES }, { MUX_NO_PERMISSION, EPERM }, { MUX_TIMEOUT, ETIMEDOUT },
	{ MUX_NO_ROUTE, EHOSTUNREACH }, { MUX_NO_ROUTE, ENETUNREACH }, { MUX_NO_ROOM, EMFILE },
	{ MUX_NO_ROOM, ENFILE }, { MUX_NO_ROOM, ENOMEM }, { MUX_NO_ROOM, ENOBUFS } };

uint16_t
mux_code_of(int err)
{
	size_t i;

	for (i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
		if (codes[i].err == err)
			return codes[i].code;
	return MUX_UNUSABLE;
}

int
mux_errno_of(uint16_t code)
{
	size_t i;

	for (i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
		if (codes[i].code == code)
			return codes[i].err;
	return ECONNRESET;
}
