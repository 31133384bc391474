/*
 * mux/stream.c - the life of one stream.
 *
 * Each direction ends alone: tx with our EOF, rx with the EOF of the peer.
 * When both were exchanged and the owner has taken what rx holds, CLOSE with
 * code 0 is sent.  Any other CLOSE is a reset, or reports a loss.  A reset by
 * the peer does not clear rx, because these bytes were received before the
 * reset.
 *
 * If the link has several slots, DATA may be read before the DATA in front of
 * it.  EOF and CLOSE take effect when all DATA before them was read.
 *
 * A stream leaves the table when CLOSE was sent and read.  With several slots,
 * frames of the stream may still be on their way then.  So the stream stays
 * until the far side has sent FREE, and the near side has read it.  The memory
 * of a stream is freed when its owner has released it and no queue has it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mux/internal.h"

#define TX_ALL (16 * 1024 * 1024) /* of the tx queues of all streams, about */
#define TX_ONE (128 * 1024)       /* of one tx queue, about */
#define EARLIES 4096              /* pieces in all early lists: each is looked at */

/* ---- life ---- */

uint32_t
stream_first_window(uint32_t memory, uint32_t n)
{
	uint32_t most = memory / 16 / (n + 1), w = MUX_WINDOW_LEAST;

	while (w * 2 <= most && w < MUX_WINDOW_FIRST)
		w *= 2;
	return w;
}

struct stream *
stream_new(struct mux *m, uint32_t id, uint8_t home, const char *target, size_t length)
{
	struct stream *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return NULL;
	s->target = strndup(target, length);
	if (s->target == NULL) {
		free(s);
		return NULL;
	}
	s->mux = m;
	s->control.item = s->flow.item = s->accept.item = s->dirty.item = s;
	s->id = id;
	s->home = home;
	s->credit_at = m->now;
	s->rx_final = UINT64_MAX;
	m->table[id / 2] = s;
	m->n++;
	m->structs++;
	return s;
}

void
stream_set_windows(struct stream *s, uint32_t tx, uint32_t rx)
{
	s->tx_window = tx;
	s->rx_window = s->window = rx;
	s->mux->rx_reserved += rx;
}

void
stream_free_if_done(struct stream *s)
{
	struct mux *m = s->mux;

	if (!s->gone || !s->released || s->control.queued || s->flow.queued || s->accept.queued ||
	    s->dirty.queued)
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

void
stream_need_control(struct stream *s)
{
	queue_append(&s->mux->slot[s->home].control, &s->control);
}

static void
leave_table(struct stream *s)
{
	struct mux *m = s->mux;

	if (!s->close_sent || !s->close_read)
		return;
	if (m->slots > 1 && !s->free_seen && !m->dead) {
		s->due_free = m->role == MUX_FAR;
		if (s->due_free)
			stream_need_control(s);
		return;
	}
	s->gone = true;
	m->table[s->id / 2] = NULL;
	m->n--;
}

void
stream_mark_dirty(struct stream *s)
{
	if (s->owner != NULL && !s->mux->freed)
		queue_append(&s->mux->dirty, &s->dirty);
}

/* Has this side sent CLOSE, or will it? */
static bool
closes(const struct stream *s)
{
	return s->close_sent || s->due_close;
}

/* The peer may send nothing more: free what its window and CREDIT reserve. */
static void
forget_window(struct stream *s)
{
	if (!s->eof_read)
		s->mux->rx_reserved -= s->rx_window + s->consumed;
	s->rx_window = s->consumed = 0;
}

static void
drop_early(struct stream *s)
{
	while (s->early.first != NULL) {
		s->mux->rx_reserved -= s->early.first->have;
		early_pop(&s->early, &s->mux->earlies);
		s->lost = true;
	}
}

/* Drop the rest of each frame with DATA of ${s} that is being read. */
static void
drop_rest(struct stream *s)
{
	struct mux *m = s->mux;
	struct slot *slot;

	for (slot = m->slot; slot < m->slot + m->started; slot++) {
		if (slot->data != s)
			continue;
		m->rx_reserved -= slot->left;
		s->rx_count += slot->left;
		s->lost = true;
		slot->data = NULL;
		slot->early = NULL;
	}
}

static void
drop_rx(struct stream *s)
{
	s->mux->rx_reserved -= s->rx.used;
	s->lost = s->lost || s->rx.used > 0;
	buf_clear(&s->rx);
	drop_early(s);
	drop_rest(s);
}

/* Send CLOSE if both directions have ended and rx was taken or dropped. */
static void
close_if_ended(struct stream *s)
{
	if (!s->eof_sent || !s->eof_read || s->rx.used > 0 || closes(s))
		return;
	s->close_code = s->lost ? MUX_RESET : MUX_END;
	s->due_close = true;
	stream_need_control(s);
}

static void
set_code(struct stream *s, uint16_t code)
{
	if (s->code == MUX_END)
		s->code = code == MUX_END ? MUX_RESET : code;
}

static void
on_eof(struct stream *s)
{
	forget_window(s);
	s->eof_read = true;
	close_if_ended(s);
}

static void
on_close(struct stream *s)
{
	bool ended = s->eof_read && s->eof_sent;

	forget_window(s);
	s->close_read = true;
	/*
	 * A code before both EOFs is a reset, even 0.  After them, it reports a
	 * loss.
	 */
	if (s->code_seen != MUX_END || !ended)
		set_code(s, s->code_seen);
	if (ended) {
		close_if_ended(s);
	} else if (!closes(s)) {
		s->close_code = s->code;
		s->due_close = true;
		stream_need_control(s);
	}
	leave_table(s);
}

/* If all DATA was read, EOF and CLOSE take effect. */
static void
take_ends(struct stream *s)
{
	if (s->rx_count != s->rx_final)
		return;
	stream_mark_dirty(s);
	if (s->eof_seen && !s->eof_read && !closes(s))
		on_eof(s);
	if (s->close_seen && !s->close_read)
		on_close(s);
}

void
stream_lose(struct stream *s)
{
	forget_window(s);
	drop_rest(s);
	drop_early(s);
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

/* Targets have no memory reserved, and the peer may never send CLOSE. */
static void
drop_target(struct stream *s)
{
	if (s->due_open)
		return;
	free(s->target);
	s->target = NULL;
}

void
stream_reset(struct stream *s, uint16_t code, const char *words)
{
	if (closes(s))
		return;
	forget_window(s);
	drop_rx(s);
	buf_clear(&s->tx);
	s->discards = true;
	set_code(s, code);
	s->close_code = code;
	if (!s->close_seen) {
		free(s->reason);
		s->reason = strndup(words, FRAME_WORDS);
	}
	drop_target(s);
	s->due_close = true;
	stream_need_control(s);
	take_ends(s);
}

void
stream_release(struct stream *s)
{
	/*
	 * After EOF and STOP, there is no reset: the peer would pass it on, and
	 * it could destroy the last bytes that we sent.
	 */
	if (!(s->eof_sent && (s->stop_sent || s->eof_read)))
		stream_reset(s, MUX_RESET, "");
	stream_discard(s);
	s->owner = NULL;
	s->released = true;
	drop_target(s);
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
	if (s->window / 2 < left && s->rx.used < s->window / 4 &&
	    m->now - s->credit_at < 2 * mux_rtt(m)) {
		/*
		 * A quarter of the window was used within two round trips, and
		 * the owner keeps up: the window limits the rate.  It may
		 * be twice what is then free: an idle window does not shrink.
		 */
		more = s->window;
		if (more > left / 4)
			more = (uint32_t)(left / 4);
		if (more > MUX_WINDOW_MOST - s->window)
			more = MUX_WINDOW_MOST - s->window;
		s->window += more;
		give += more;
	} else if (left < memory / 8 && s->window > share && s->window > 2 * MUX_WINDOW_LEAST &&
		   give > 1) {
		s->window -= give / 2;
		give -= give / 2;
	}
	s->credit_at = m->now;
	s->rx_window += give;
	m->rx_reserved += give;
	return give;
}

void
stream_consumed(struct stream *s, size_t n)
{
	if (closes(s)) {
		s->mux->rx_reserved -= n;
		return;
	}
	/* Reserved until the CREDIT frame is sent, except after EOF. */
	s->consumed += (uint32_t)n;
	if (s->eof_read)
		s->mux->rx_reserved -= n;
	close_if_ended(s);
	/*
	 * A peer that has sent EOF or STOP waits for its last bytes.  CREDIT
	 * shows their progress, and CLOSE that all have moved.
	 */
	if (s->close_read ||
	    (s->consumed < s->window / 4 && !((s->eof_read || s->stop_read) && s->rx.used > 0)))
		return;
	s->due_credit = true;
	stream_need_control(s);
}

void
stream_show_progress(struct stream *s)
{
	if (s->close_read || closes(s) || s->stop_sent)
		return;
	if (s->consumed == 0) { /* CREDIT of 0 does not exist */
		s->consumed = 1;
		if (!s->eof_read)
			s->mux->rx_reserved++;
	}
	s->due_credit = true;
	stream_need_control(s);
}

/* ---- for the owner ---- */

void
stream_accept(struct stream *s)
{
	if (s->close_sent)
		return;
	s->due_opened = true;
	stream_need_control(s);
}

size_t
stream_room(const struct stream *s)
{
	size_t most = TX_ALL / (s->mux->n + 1);

	if (most > TX_ONE)
		most = TX_ONE;
	if (most > s->tx_window)
		most = s->tx_window;
	return !s->mux->dead && !s->close_read && s->tx.used < most ? most - s->tx.used : 0;
}

void
stream_shutdown(struct stream *s)
{
	s->shutdown = true;
	stream_push(s);
}

void
stream_discard(struct stream *s)
{
	drop_rx(s);
	s->discards = true;
	take_ends(s);
	close_if_ended(s);
}

void
stream_stop(struct stream *s)
{
	stream_discard(s);
	if (s->stop_sent || s->eof_read || closes(s))
		return;
	s->stop_sent = s->due_stop = true;
	stream_need_control(s);
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
	return s->close_read || closes(s);
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

/* Before OPENED, DATA uses the home slot, so that it does not overtake OPEN. */
struct queue *
stream_flows(struct stream *s)
{
	struct mux *m = s->mux;

	if (m->slots > 1 && s->opened)
		return m->flows;
	return m->slot[s->home].flows;
}

void
stream_move(struct mux *m, struct slot *from, struct slot *to)
{
	struct stream *s;
	uint32_t i;

	for (i = 0; i < m->size; i++)
		if (m->table[i] != NULL && m->table[i]->home == from->number)
			m->table[i]->home = (uint8_t)to->number;
	while ((s = queue_pop(&from->control)) != NULL)
		queue_append(&to->control, &s->control);
	for (i = 0; i < 2; i++)
		while ((s = queue_pop(&from->flows[i])) != NULL)
			queue_append(&to->flows[i], &s->flow);
}

bool
stream_can_send_data(const struct stream *s)
{
	return s->tx_window > 0 && s->tx.used > 0 && !s->stop_read && !s->eof_sent && !closes(s);
}

bool
stream_eof_is_due(const struct stream *s)
{
	return !s->eof_sent && !closes(s) && (s->stop_read || (s->shutdown && s->tx.used == 0));
}

static size_t
put_open(struct stream *s, unsigned char *dst)
{
	size_t n = strlen(s->target);
	unsigned char *body = frame_put_head(dst, FRAME_OPEN, s->id, 8 + n);

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
	return frame_put_number(dst, FRAME_CREDIT, s->id, give, 4);
}

/* DATA on other slots may arrive after EOF or CLOSE.  One FINAL is sent. */
static size_t
put_final(struct stream *s, unsigned char *dst)
{
	if (!s->scattered || s->eof_sent)
		return 0;
	return frame_put_number(dst, FRAME_FINAL, s->id, s->sent, 8);
}

static size_t
put_close(struct stream *s, unsigned char *dst)
{
	bool delivered = s->code_seen == MUX_END && s->eof_sent && s->eof_read;
	const char *words = s->close_seen ? NULL : s->reason; /* otherwise, of the peer */
	size_t n = put_final(s, dst);

	if (s->lost && words == NULL && (!s->close_seen || delivered))
		words = "not everything was delivered";
	n += frame_put_words(
	    dst + n, FRAME_CLOSE, s->id, s->close_code, s->close_code == MUX_END ? NULL : words);
	s->due_close = false;
	s->close_sent = true;
	leave_table(s);
	return n;
}

static size_t
put_free(struct stream *s, unsigned char *dst)
{
	s->due_free = false;
	s->free_seen = true;
	leave_table(s);
	return frame_put_bare(dst, FRAME_FREE, s->id);
}

size_t
stream_put_control(struct stream *s, unsigned char *dst)
{
	bool open = !closes(s);
	size_t n = 0;

	if (s->due_open)
		n += put_open(s, dst);
	if (s->due_opened && open) {
		n += frame_put_bare(dst + n, FRAME_OPENED, s->id);
		s->opened = true;
	}
	if (s->due_stop && open && !s->eof_read)
		n += frame_put_bare(dst + n, FRAME_STOP, s->id);
	if (s->due_credit && open && !s->stop_sent && s->consumed > 0)
		n += put_credit(s, dst + n);
	if (stream_eof_is_due(s))
		n += stream_put_eof(s, dst + n);
	if (s->due_close)
		n += put_close(s, dst + n);
	if (s->due_free)
		n += put_free(s, dst + n);
	s->due_opened = s->due_stop = s->due_credit = false;
	return n;
}

size_t
stream_put_data(struct stream *s, const struct slot *slot, unsigned char *dst, size_t room)
{
	size_t n = s->tx.used, slice = cc_slice(&slot->cc), head = FRAME_HEAD;
	unsigned char *body;

	s->scattered = s->scattered || slot->number != s->home;
	if (s->scattered)
		head += FRAME_AT;
	if (n > s->tx_window)
		n = s->tx_window;
	if (n > slice)
		n = slice;
	if (n > room - head)
		n = room - head;
	body = frame_put_head(
	    dst, s->scattered ? FRAME_DATA_AT : FRAME_DATA, s->id, head - FRAME_HEAD + n);
	if (s->scattered)
		frame_put(body, s->sent, FRAME_AT);
	buf_take(&s->tx, dst + head, n);
	s->tx_window -= (uint32_t)n;
	s->sent += n;
	s->progress++;
	s->burst += (uint32_t)(head + n);
	if (s->burst > 2 * slice)
		s->burst = (uint32_t)(2 * slice); /* so that it can be quiet soon */
	s->deficit -= (int32_t)(head + n);
	return head + n;
}

size_t
stream_put_eof(struct stream *s, unsigned char *dst)
{
	size_t n = put_final(s, dst);

	n += frame_put_bare(dst + n, FRAME_EOF, s->id);
	s->eof_sent = true;
	stream_mark_dirty(s);
	close_if_ended(s);
	return n;
}

/* ---- DATA read ---- */

/* ${n} bytes are dropped as they are read. */
static void
skip(struct stream *s, size_t n)
{
	s->rx_count += n;
	s->lost = true;
	take_ends(s);
	stream_free_if_done(s);
}

/* Was one of the ${n} bytes from ${at} read before, or is it being read? */
static bool
overlaps(const struct stream *s, uint64_t at, size_t n)
{
	const struct mux *m = s->mux;
	const struct slot *slot;

	if (at < s->rx_next)
		return true;
	for (slot = m->slot; slot < m->slot + m->started; slot++)
		if (slot->data == s && slot->early == NULL && at < s->rx_next + slot->left)
			return true;
	return early_overlaps(&s->early, at, n);
}

/* The bytes of this frame are kept until those in front of them were read. */
static void
keep_early(struct stream *s, struct slot *slot, uint64_t at)
{
	struct mux *m = s->mux;

	if (m->earlies < EARLIES)
		slot->early = early_add(&s->early, at, slot->left, &m->earlies);
	if (slot->early == NULL)
		stream_reset(s, MUX_NO_ROOM, "out of memory");
}

/* DATA that has overtaken OPENED waits for it. */
static bool
delivers(const struct stream *s)
{
	return s->mux->role == MUX_FAR || s->opened;
}

/* Does DATA from ${at} break a rule? */
static const char *
check_data(const struct stream *s, const struct slot *slot, uint64_t at)
{
	uint64_t limit = s->rx_begun + s->rx_window;

	if (closes(s))
		return NULL; /* the peer has not read our CLOSE yet */
	if (slot->left > s->rx_window || at > limit || slot->left > limit - at)
		return "DATA beyond the window";
	return !s->discards && s->mux->slots > 1 && overlaps(s, at, slot->left)
		   ? "DATA that was read before"
		   : NULL;
}

const char *
stream_start_data(struct stream *s, struct slot *slot)
{
	bool plain = slot->frame.type == FRAME_DATA;
	uint64_t at = plain ? s->rx_plain : frame_get(slot->body, FRAME_AT);
	size_t n = slot->left;
	const char *wrong;

	if (plain ? s->rx_final != UINT64_MAX : at > s->rx_final || n > s->rx_final - at)
		return "DATA for a stream that is not open";
	wrong = check_data(s, slot, at);
	if (wrong != NULL)
		return wrong;
	if (plain)
		s->rx_plain += n;
	s->rx_begun += n;
	if (closes(s)) {
		skip(s, n);
		return NULL;
	}
	s->rx_window -= (uint32_t)n;
	if (s->discards) {
		s->mux->rx_reserved -= n;
		skip(s, n);
		return NULL;
	}
	slot->data = s;
	if (at != s->rx_next || (!plain && !delivers(s)))
		keep_early(s, slot, at);
	return NULL;
}

/* Move early bytes to rx, up to the next gap. */
static void
advance(struct stream *s)
{
	struct mux *m = s->mux;
	struct slot *slot;
	struct early *e;
	size_t had;

	while (delivers(s) && (e = s->early.first) != NULL && e->at == s->rx_next) {
		stream_mark_dirty(s);
		had = s->rx.used;
		if (!buf_put(&s->rx, e->bytes, e->have)) {
			m->rx_reserved += s->rx.used - had; /* these are counted in e, too */
			stream_reset(s, MUX_NO_ROOM, "out of memory");
			return;
		}
		s->rx_next += e->have;
		for (slot = m->slot; slot < m->slot + m->started; slot++)
			if (slot->early == e)
				slot->early = NULL;
		early_pop(&s->early, &m->earlies);
	}
}

void
stream_take_data(struct stream *s, struct slot *slot, const unsigned char *p, size_t n)
{
	struct early *e = slot->early;
	size_t had = s->rx.used;

	s->rx_count += n;
	if (e != NULL) {
		memcpy(e->bytes + e->have, p, n);
		e->have += n;
		return;
	}
	stream_mark_dirty(s);
	s->rx_next += n;
	if (buf_put(&s->rx, p, n))
		return;
	/* slot->left does not count this piece any more. */
	s->mux->rx_reserved -= n - (s->rx.used - had);
	stream_reset(s, MUX_NO_ROOM, "out of memory");
}

void
stream_end_data(struct stream *s, struct slot *slot)
{
	slot->data = NULL;
	slot->early = NULL;
	if (s->early.first != NULL)
		advance(s);
	take_ends(s);
	stream_free_if_done(s);
}

/* ---- other frames read ---- */

static const char *
on_credit(struct stream *s, uint64_t n)
{
	if (n == 0 || n > WINDOW_TOP || s->tx_window > WINDOW_TOP - n)
		return "a CREDIT of 0, or beyond the largest window";
	s->tx_window += (uint32_t)n;
	return NULL;
}

static const char *
on_opened(struct stream *s)
{
	if (s->mux->role == MUX_FAR || s->opened)
		return "an OPENED that is not allowed";
	s->opened = true;
	advance(s);
	return NULL;
}

static const char *
on_free(struct stream *s)
{
	if (s->mux->role == MUX_FAR || !s->close_sent || !s->close_seen || s->free_seen)
		return "a FREE that is not allowed";
	s->free_seen = true;
	leave_table(s);
	return NULL;
}

/* FINAL, EOF and CLOSE are read even after our own CLOSE. */
static const char *
on_end(struct stream *s, const struct slot *slot)
{
	const unsigned char *body = slot->body;

	if (slot->frame.type == FRAME_FINAL && s->rx_final != UINT64_MAX)
		return "a second FINAL, or one after EOF";
	if (slot->frame.type == FRAME_EOF && s->eof_seen)
		return "a second EOF";
	if (slot->frame.type == FRAME_FINAL)
		s->rx_final = frame_get(body, 8);
	else if (s->rx_final == UINT64_MAX)
		s->rx_final = s->rx_plain;
	if (slot->frame.type == FRAME_EOF)
		s->eof_seen = true;
	if (slot->frame.type == FRAME_CLOSE) {
		s->close_seen = true;
		s->code_seen = (uint16_t)frame_get(body, 2);
		free(s->reason);
		s->reason = s->code_seen == MUX_END
				? NULL
				: strndup((const char *)body + 2, slot->frame.length - 2);
	}
	if (s->rx_begun > s->rx_final || early_end(&s->early) > s->rx_final)
		return "an end before the last DATA";
	take_ends(s);
	return NULL;
}

static const char *
take_frame(struct stream *s, const struct slot *slot)
{
	const char *wrong = NULL;

	if (slot->frame.type == FRAME_FREE)
		return on_free(s);
	if (s->close_seen)
		return "a frame after CLOSE";
	if (slot->frame.type == FRAME_FINAL || slot->frame.type == FRAME_EOF ||
	    slot->frame.type == FRAME_CLOSE)
		return on_end(s, slot);
	if (closes(s))
		return NULL; /* the peer has not read our CLOSE yet */
	if (slot->frame.type == FRAME_OPENED)
		wrong = on_opened(s);
	else if (slot->frame.type == FRAME_CREDIT)
		wrong = on_credit(s, frame_get(slot->body, 4));
	else
		s->stop_read = true;
	stream_push(s);
	return wrong;
}

const char *
stream_on_frame(struct stream *s, struct slot *slot)
{
	const char *wrong;

	stream_mark_dirty(s);
	s->progress++;
	wrong = take_frame(s, slot);
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
