/*
 * link.c - many streams over one carrier, as PROTOCOL says.
 *
 * The link is bytes in (link_feed), bytes out (link_pull) and time (link_tick); it knows no descriptor, so that two of them can be
 * run back to back in one process.  A stream is two halves whose other side is the link.
 *
 *   starts --magic--> greets --HELLO--> up --> dead
 *
 * Reading: whatever comes is taken at once, since every window that was given has a place to stand; so one stuck stream never
 * stops another.  All windows together are kept within the memory that HELLO promised: the more streams, the smaller they begin.
 *
 * Sending: link frames and control frames first; then streams in turn, by bytes (deficit round robin), the quiet ones before the
 * busy ones.  A quiet stream's first piece may go beyond the bytes in flight that pace.c allows: it is small, and it is what
 * somebody waits for.
 *
 * A stream leaves the table when CLOSE has crossed; its struct lives until its user has released it and no list holds it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "relay.h"

#define VERSION 1
#define ACK_DELAY 5000
#define STRIDE_LEAST 1024
#define STRIDE_MOST 262144
#define STRIDE_TIME 250 /* us */
#define STRIDES 8       /* in a window */
#define PING_AFTER 15000000
#define DEAD_AFTER 45000000
#define ASLEEP 20000000  /* no tick for so long: this host slept */
#define AWAKE 15000000   /* for the line to show that it lives still */
#define QUIET_SPAN 10000 /* a stream that sent less than a slice in this time is quiet */
#define KEYSTROKE 512    /* bytes of a quiet stream that are never held back */
#define WINDOW_TOP INT32_MAX
#define OUT_ALL (16 * 1024 * 1024) /* what all streams together may have read from the local side */
#define OUT_ONE (128 * 1024)
#define TARGET_LONG 512 /* a target of more bytes is taken only while few streams are open: windows alone are promised */
#define TARGET_FEW 1024
#define MIDDLE "reLAylink"

/* ---- lists ---- */

static void
append_control(struct link *l, struct stream *s)
{
	if (s->in_control)
		return;
	s->in_control = 1;
	s->next_control = NULL;
	if (l->control.last == NULL)
		l->control.first = s;
	else
		l->control.last->next_control = s;
	l->control.last = s;
}

static struct stream *
pop_control(struct link *l)
{
	struct stream *s = l->control.first;

	l->control.first = s->next_control;
	if (l->control.first == NULL)
		l->control.last = NULL;
	s->in_control = 0;
	return s;
}

static void
append_flow(struct link_list *list, struct stream *s)
{
	s->in_flow = 1;
	s->next_flow = NULL;
	if (list->last == NULL)
		list->first = s;
	else
		list->last->next_flow = s;
	list->last = s;
}

static struct stream *
pop_flow(struct link_list *list)
{
	struct stream *s = list->first;

	list->first = s->next_flow;
	if (list->first == NULL)
		list->last = NULL;
	s->in_flow = 0;
	return s;
}

/* Something has happened to ${s} that its user did not do. */
static void
touch(struct link *l, struct stream *s)
{
	if (s->user == NULL || s->in_touched)
		return;
	s->in_touched = 1;
	s->next_touched = NULL;
	if (l->touched.last == NULL)
		l->touched.first = s;
	else
		l->touched.last->next_touched = s;
	l->touched.last = s;
}

struct stream *
link_touched(struct link *l)
{
	struct stream *s = l->touched.first;

	if (s == NULL)
		return NULL;
	l->touched.first = s->next_touched;
	if (l->touched.first == NULL)
		l->touched.last = NULL;
	s->in_touched = 0;
	return s;
}

/* ${s} has no user any more who would look at it. The list is short: its user has just taken the others from it. */
static void
leave_touched(struct link *l, struct stream *s)
{
	struct stream *before = l->touched.first;

	if (!s->in_touched)
		return;
	s->in_touched = 0;
	if (before == s) {
		l->touched.first = s->next_touched;
		before = NULL;
	} else {
		while (before->next_touched != s)
			before = before->next_touched;
		before->next_touched = s->next_touched;
	}
	if (l->touched.last == s)
		l->touched.last = before;
}

/* ---- the end of a stream, the end of the link ---- */

static void
free_if_done(struct stream *s)
{
	if (!s->sent_close || !s->got_close || s->user != NULL || s->in_control || s->in_flow || s->in_news)
		return;
	buf_clear(&s->in.buf);
	buf_clear(&s->out.buf);
	free(s->words);
	free(s);
}

/* What the peer may still send, and what we would have let it send anew, it will not. */
static void
forget_promise(struct link *l, struct stream *s)
{
	l->promised -= s->recv_window + s->consumed;
	s->recv_window = s->consumed = 0;
}

static void
drop_in(struct link *l, struct stream *s, int err, bool by_sink)
{
	l->promised -= s->in.buf.used;
	half_break(&s->in, err, by_sink);
	buf_clear(&s->in.buf);
}

static void
leave_table(struct link *l, struct stream *s)
{
	if (!s->sent_close || !s->got_close)
		return;
	if (l->table[s->id / 2] == s) {
		l->table[s->id / 2] = NULL;
		l->n--;
		if (l->data == s)
			l->data = NULL;
	}
}

static void
set_words(struct stream *s, const char *words, size_t n)
{
	free(s->words);
	s->words = malloc(n + 1);
	if (s->words == NULL)
		return;
	memcpy(s->words, words, n);
	s->words[n] = '\0';
}

static void
break_stream(struct link *l, struct stream *s, uint16_t code)
{
	if (l->data == s) {
		l->promised -= l->left; /* the rest of the frame that is being read */
		l->data = NULL;
	}
	forget_promise(l, s);
	drop_in(l, s, link_errno(code), false);
	half_break(&s->out, link_errno(code), false);
	if (s->code == LINK_END)
		s->code = code;
	touch(l, s);
}

static void
die(struct link *l, uint16_t code, const char *why)
{
	struct stream *s;
	uint32_t i;

	l->state = LINK_DEAD;
	l->code = code;
	snprintf(l->why, sizeof(l->why), "%s", why);
	for (i = 0; i < l->size; i++) {
		s = l->table[i];
		if (s == NULL)
			continue;
		break_stream(l, s, LINK_RESET);
		s->sent_close = s->got_close = 1;
		leave_table(l, s);
		free_if_done(s);
	}
	while (l->control.first != NULL)
		free_if_done(pop_control(l));
	while (l->fresh.first != NULL)
		free_if_done(pop_flow(&l->fresh));
	while (l->busy.first != NULL)
		free_if_done(pop_flow(&l->busy));
}

void
link_bye(struct link *l, uint16_t code, const char *why)
{
	if (l->state == LINK_DEAD)
		return;
	l->due_bye = !l->due_hello;
	die(l, code, why);
}

void
link_lost(struct link *l, uint16_t code, const char *why)
{
	if (l->state != LINK_DEAD)
		die(l, code, why);
	l->due_bye = false;
}

static void
breach(struct link *l, const char *what)
{
	char why[128];

	snprintf(why, sizeof(why), "the other side broke the protocol: %s", what);
	link_bye(l, LINK_PROTOCOL, why);
}

/* Both directions have ended by themselves, and what came was delivered: say that we are through. */
static void
close_if_ended(struct link *l, struct stream *s)
{
	bool delivered = half_finished(&s->in) || (s->in.state == HALF_DRAIN && s->in.buf.used == 0);

	if (!s->sent_eof || !s->got_eof || !delivered || s->sent_close || s->due_close)
		return;
	s->due_close = 1;
	append_control(l, s);
}

/* ---- windows ---- */

/* The window of a new stream, where ${n} are open and ${memory} is what the receiver promised for all. */
static uint32_t
first_window(uint32_t memory, uint32_t n)
{
	uint32_t most = memory / 16 / (n + 1), w = LINK_WINDOW_LEAST;

	while (w * 2 <= most && w < LINK_WINDOW_FIRST)
		w *= 2;
	return w;
}

/* The credit to give for what was consumed: more where the window is too small for the line, less where memory runs short. */
static uint32_t
credit(struct link *l, struct stream *s)
{
	uint32_t give = s->consumed, more, share = l->ours.memory / 2 / (l->n + 1);
	uint64_t left = l->ours.memory / 2 > l->promised ? l->ours.memory / 2 - l->promised : 0; /* half is for first windows */

	l->promised -= give;
	if (left < l->ours.memory / 8) {
		if (s->window > share && s->window > 2 * LINK_WINDOW_LEAST && give > 1) {
			s->window -= give / 2;
			give -= give / 2;
		}
	} else if (s->in.buf.used < s->window / 4 && l->now - s->credit_at < 2 * l->pace.trip) {
		/* A quarter was read in two round trips, by somebody who keeps up: the window holds the line back. */
		more = s->window;
		if (more > left / 4)
			more = (uint32_t)(left / 4);
		if (more > LINK_WINDOW_MOST - s->window)
			more = LINK_WINDOW_MOST - s->window;
		s->window += more;
		give += more;
	}
	s->consumed = 0;
	s->credit_at = l->now;
	s->recv_window += give;
	l->promised += give;
	return give;
}

void
link_consumed(struct link *l, struct stream *s, size_t n)
{
	/* It stays promised, for it will be given back as credit. */
	if (s->got_eof || s->got_close || s->sent_close || s->due_close) {
		l->promised -= n;
		close_if_ended(l, s);
		return;
	}
	s->consumed += (uint32_t)n;
	if (s->consumed >= s->window / 4) {
		s->due_credit = 1;
		append_control(l, s);
	}
}

/* ---- life of a stream, local side ---- */

static struct stream *
new_stream(struct link *l, uint32_t id, const char *target, size_t length)
{
	struct stream *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return NULL;
	set_words(s, target, length);
	if (s->words == NULL) {
		free(s);
		return NULL;
	}
	half_init(&s->out, NULL, NULL);
	half_init(&s->in, NULL, NULL);
	s->id = id;
	s->credit_at = l->now;
	l->table[id / 2] = s;
	l->n++;
	return s;
}

struct stream *
link_open(struct link *l, const char *target, void *user)
{
	struct stream *s;
	uint32_t i, at, window = first_window(l->ours.memory, l->n);

	if (l->state != LINK_UP || l->n >= l->size || strlen(target) > FRAME_TARGET || l->promised + window > l->ours.memory)
		return NULL;
	for (i = 0; l->table[at = (l->next_id + i) % l->size] != NULL; i++)
		;
	s = new_stream(l, at * 2 + 1, target, strlen(target));
	if (s == NULL)
		return NULL;
	l->next_id = at + 1;
	s->user = user;
	s->send_window = first_window(l->theirs.memory, l->n - 1);
	s->recv_window = s->window = window;
	l->promised += s->recv_window;
	s->due_open = 1;
	append_control(l, s);
	return s;
}

struct stream *
link_next(struct link *l)
{
	struct stream *s;

	while ((s = l->news.first) != NULL) {
		s->in_news = 0;
		l->news.first = s->next_new;
		if (l->news.first == NULL)
			l->news.last = NULL;
		if (!s->got_close && !s->due_close && !s->sent_close)
			return s;
		free_if_done(s); /* it was closed before anybody took it up */
	}
	return NULL;
}

void
link_opened(struct link *l, struct stream *s)
{
	s->due_opened = 1;
	append_control(l, s);
}

void
link_close(struct link *l, struct stream *s, uint16_t code, const char *words)
{
	if (s->sent_close || s->due_close)
		return;
	break_stream(l, s, code);
	if (!s->due_open)
		set_words(s, words, strlen(words) > FRAME_WORDS ? FRAME_WORDS : strlen(words));
	s->due_close = 1;
	append_control(l, s);
}

void
link_stop(struct link *l, struct stream *s)
{
	drop_in(l, s, EPIPE, true);
	if (s->stopped || s->got_eof || s->sent_close)
		return;
	s->stopped = 1;
	s->due_stop = 1;
	append_control(l, s);
}

void
link_release(struct link *l, struct stream *s)
{
	close_if_ended(l, s);
	/* One that said all and only stopped reading waits for the answer to its STOP; a reset would cost the peer what it holds. */
	if (!s->sent_close && !s->due_close && !(s->sent_eof && s->stopped))
		link_close(l, s, LINK_RESET, "");
	l->promised -= s->in.buf.used;
	buf_clear(&s->in.buf);
	leave_touched(l, s);
	s->user = NULL;
	free_if_done(s);
}

/* ---- sending ---- */

static bool
eof_is_due(const struct stream *s)
{
	return !s->sent_eof && !s->sent_close && s->out.buf.used == 0 &&
	       (s->out.state == HALF_DRAIN || (s->out.state == HALF_BROKEN && s->out.by_sink));
}

static bool
can_send(const struct stream *s)
{
	if (s->sent_close || s->due_close)
		return false;
	return (s->send_window > 0 && half_wants_write(&s->out)) || eof_is_due(s);
}

bool
link_takes(const struct link *l, const struct stream *s)
{
	size_t one = OUT_ALL / (l->n + 1);

	if (one > OUT_ONE)
		one = OUT_ONE;
	return l->state == LINK_UP && s->out.buf.used < s->send_window && s->out.buf.used < one;
}

void
link_ready(struct link *l, struct stream *s)
{
	uint64_t slice = pace_slice(&l->pace);
	uint64_t faded = (uint64_t)(l->now - s->sent_at) * slice / QUIET_SPAN;

	if (s->in_flow || !can_send(s))
		return;
	s->burst = s->burst > faded ? s->burst - (uint32_t)faded : 0;
	s->sent_at = l->now;
	s->deficit = (int32_t)slice;
	append_flow(s->burst < slice ? &l->fresh : &l->busy, s);
}

/* Put the head of a frame of ours; returns where its body goes. */
static unsigned char *
put_head(unsigned char *dst, unsigned type, uint32_t stream, size_t length)
{
	struct frame f = { .type = type, .length = (uint32_t)length, .stream = stream };

	frame_encode(dst, &f);
	return dst + FRAME_HEAD;
}

static size_t
put_bare(unsigned char *dst, unsigned type, uint32_t stream)
{
	put_head(dst, type, stream, 0);
	return FRAME_HEAD;
}

static size_t
put_words(unsigned char *dst, unsigned type, uint32_t stream, uint16_t code, const char *words)
{
	size_t n = words == NULL ? 0 : strnlen(words, FRAME_WORDS);
	unsigned char *body;

	body = put_head(dst, type, stream, 2 + n);
	frame_put(body, code, 2);
	if (n > 0)
		memcpy(body + 2, words, n);
	return FRAME_HEAD + 2 + n;
}

static size_t
put_hello(struct link *l, unsigned char *dst)
{
	size_t n = frame_encode_hello(dst + FRAME_HEAD, &l->ours);

	put_head(dst, FRAME_HELLO, 0, n);
	return FRAME_HEAD + n;
}

static size_t
put_ack(struct link *l, unsigned char *dst)
{
	unsigned char *body = put_head(dst, FRAME_ACK, 0, 12);

	frame_put(body, l->read, 8);
	frame_put(body + 8, (uint64_t)(l->now - l->read_at), 4);
	l->read_acked = l->read;
	l->unacked_at = 0;
	l->due_ack = false;
	return FRAME_HEAD + 12;
}

/*
 * Each ACK costs both hosts, and whatever lies between, as much as a chunk of DATA does: on a fast line the peer is to send no more
 * than we need.  pace.c measures trips by them, so that they must not wait for long.
 */
static uint32_t
stride_for(const struct pace *p)
{
	int64_t trips = p->trip < STRIDE_TIME * STRIDES ? STRIDES : p->trip / STRIDE_TIME;
	uint32_t stride = STRIDE_LEAST;

	while (stride < STRIDE_MOST && stride * 2 <= p->window / (uint64_t)trips)
		stride *= 2;
	return stride;
}

static size_t
put_stride(struct link *l, unsigned char *dst)
{
	uint32_t stride = stride_for(&l->pace);

	if (stride == l->told)
		return 0;
	frame_put(put_head(dst, FRAME_STRIDE, 0, 4), stride, 4);
	l->told = stride;
	return FRAME_HEAD + 4;
}

static size_t
put_open(struct stream *s, unsigned char *dst)
{
	size_t n = strlen(s->words);
	unsigned char *body = put_head(dst, FRAME_OPEN, s->id, 8 + n);

	frame_put(body, s->send_window, 4);
	frame_put(body + 4, s->recv_window, 4);
	memcpy(body + 8, s->words, n);
	s->due_open = 0;
	return FRAME_HEAD + 8 + n;
}

static size_t
put_close(struct link *l, struct stream *s, unsigned char *dst)
{
	size_t n = put_words(dst, FRAME_CLOSE, s->id, s->code, s->code == LINK_END || s->got_close ? NULL : s->words);

	s->due_close = 0;
	s->sent_close = 1;
	leave_table(l, s);
	return n;
}

/* All control frames of one stream; at most LINK_PULL / 2 bytes. */
static size_t
put_control(struct link *l, struct stream *s, unsigned char *dst)
{
	size_t n = 0;
	uint32_t give;

	if (s->due_open)
		n += put_open(s, dst);
	if (s->due_opened && !s->sent_close && !s->due_close)
		n += put_bare(dst + n, FRAME_OPENED, s->id);
	if (s->due_stop && !s->got_eof && !s->sent_close && !s->due_close)
		n += put_bare(dst + n, FRAME_STOP, s->id);
	if (s->due_credit && !s->got_eof && !s->stopped && !s->sent_close && !s->due_close && s->consumed > 0) {
		give = credit(l, s);
		frame_put(put_head(dst + n, FRAME_CREDIT, s->id, 4), give, 4);
		n += FRAME_HEAD + 4;
	}
	if (s->due_close)
		n += put_close(l, s, dst + n);
	s->due_opened = s->due_stop = s->due_credit = 0;
	return n;
}

static size_t
put_data(struct link *l, struct stream *s, unsigned char *dst, size_t room)
{
	size_t n = s->out.buf.used, slice = pace_slice(&l->pace);

	if (n > s->send_window)
		n = s->send_window;
	if (n > slice)
		n = slice;
	if (n > room - FRAME_HEAD)
		n = room - FRAME_HEAD;
	put_head(dst, FRAME_DATA, s->id, n);
	buf_take(&s->out.buf, dst + FRAME_HEAD, n);
	s->send_window -= (uint32_t)n;
	s->out.moved += n;
	s->burst += (uint32_t)(n + FRAME_HEAD);
	if (s->burst > 2 * slice)
		s->burst = (uint32_t)(2 * slice); /* it will be quiet again soon after it has become so */
	s->deficit -= (int32_t)(n + FRAME_HEAD);
	return FRAME_HEAD + n;
}

static size_t
put_eof(struct link *l, struct stream *s, unsigned char *dst)
{
	put_bare(dst, FRAME_EOF, s->id);
	s->sent_eof = 1;
	if (s->out.state == HALF_DRAIN)
		s->out.state = HALF_SHUT;
	close_if_ended(l, s);
	return FRAME_HEAD;
}

/* What the stream whose turn it is may send; 0: nobody has anything, or nothing more may be in flight. */
static size_t
put_turn(struct link *l, unsigned char *dst, size_t room)
{
	struct link_list *list;
	struct stream *s;
	size_t n;

	for (;;) {
		list = l->fresh.first != NULL ? &l->fresh : &l->busy;
		s = list->first;
		if (s == NULL)
			return 0;
		if (!can_send(s)) {
			pop_flow(list);
			free_if_done(s);
			continue;
		}
		if (s->deficit <= 0) {
			s->deficit += (int32_t)pace_slice(&l->pace);
			append_flow(&l->busy, pop_flow(list));
			continue;
		}
		if (list == &l->busy && pace_room(&l->pace, l->now) == 0)
			return 0;
		if (list == &l->fresh && s->out.buf.used > KEYSTROKE && pace_over(&l->pace)) {
			append_flow(&l->busy, pop_flow(list));
			continue;
		}
		n = 0;
		if (s->send_window > 0 && half_wants_write(&s->out))
			n = put_data(l, s, dst, room);
		if (n > 0 && n <= FRAME_HEAD + KEYSTROKE && list == &l->fresh)
			pace_talked(&l->pace, l->now);
		if (eof_is_due(s) && room - n >= FRAME_HEAD)
			n += put_eof(l, s, dst + n);
		touch(l, s);
		if (!can_send(s)) {
			pop_flow(list);
			free_if_done(s);
		}
		return n;
	}
}

static bool
ack_is_due(const struct link *l)
{
	return l->due_ack || l->read - l->read_acked >= l->stride ||
	       (l->unacked_at != 0 && l->now - l->unacked_at >= ACK_DELAY);
}

static bool
hello_is_due(const struct link *l)
{
	return l->due_hello && !(l->patient && l->state == LINK_STARTS);
}

static size_t
put_bye(struct link *l, unsigned char *dst)
{
	l->due_bye = false;
	return put_words(dst, FRAME_BYE, 0, l->code, l->why);
}

static size_t
put_start(struct link *l, unsigned char *dst)
{
	size_t n;

	memcpy(dst, frame_magic, FRAME_MAGIC);
	n = put_hello(l, dst + FRAME_MAGIC);
	pace_sent(&l->pace, n, l->now);
	l->due_hello = false;
	return FRAME_MAGIC + n;
}

/* Frames that wait for nothing. */
static size_t
put_urgent(struct link *l, unsigned char *dst, size_t room)
{
	struct stream *s;
	size_t n = 0;

	if (ack_is_due(l))
		n += put_ack(l, dst);
	if (l->due_ping)
		n += put_bare(dst + n, FRAME_PING, 0);
	l->due_ping = false;
	n += put_stride(l, dst + n);
	while (l->control.first != NULL && room - n >= LINK_PULL / 2) {
		s = pop_control(l);
		n += put_control(l, s, dst + n);
		free_if_done(s);
	}
	if (n > 0)
		pace_sent(&l->pace, n, l->now);
	return n;
}

size_t
link_pull(struct link *l, unsigned char *dst, size_t room, int64_t now)
{
	size_t n = 0, turn = 1;

	l->now = now;
	if (l->state == LINK_DEAD)
		return l->due_bye ? put_bye(l, dst) : 0;
	if (hello_is_due(l))
		n = put_start(l, dst);
	if (l->state != LINK_UP)
		return n;
	n += put_urgent(l, dst + n, room - n);
	while (turn > 0 && l->control.first == NULL && room - n > FRAME_HEAD + PACE_SLICE_LEAST) {
		turn = put_turn(l, dst + n, room - n);
		if (turn > 0)
			pace_sent(&l->pace, turn, now);
		n += turn;
	}
	return n;
}

bool
link_has_output(const struct link *l)
{
	if (l->state == LINK_DEAD)
		return l->due_bye;
	if (hello_is_due(l))
		return true;
	return l->state == LINK_UP && (ack_is_due(l) || l->due_ping || l->control.first != NULL || l->fresh.first != NULL ||
					  (l->busy.first != NULL && pace_room(&l->pace, l->now) > 0));
}

/* ---- reading: frames ---- */

static struct stream *
find(const struct link *l, uint32_t id)
{
	return (id & 1) != 0 && id / 2 < l->size ? l->table[id / 2] : NULL;
}

static void
on_hello(struct link *l, const struct frame *f)
{
	char why[sizeof(l->why)];

	frame_decode_hello(&l->theirs, l->body, f->length);
	if (l->theirs.version != VERSION) {
		snprintf(why, sizeof(why),
		    "the relay on %s speaks version %u of the link, this one version %d: use the same on both", l->theirs.host,
		    (unsigned)l->theirs.version, VERSION);
		link_bye(l, LINK_VERSION, why);
		return;
	}
	if (l->theirs.role == l->role) {
		link_lost(l, LINK_PROTOCOL,
		    l->role == LINK_NEAR
			? "the command gives back what it is sent, or is a near end itself: its end is relay -m -"
			: "the other side is a far end itself: one of them is relay -m FROM -- COMMAND");
		return;
	}
	if (l->theirs.streams == 0 || l->theirs.streams > LINK_STREAMS || l->theirs.memory < LINK_WINDOW_LEAST) {
		breach(l, "a HELLO that allows no work");
		return;
	}
	l->size = l->role == LINK_NEAR ? l->theirs.streams : l->ours.streams;
	l->table = calloc(l->size, sizeof(struct stream *));
	if (l->table == NULL) {
		l->size = 0;
		link_bye(l, LINK_NO_ROOM, "no memory for the streams");
		return;
	}
	l->state = LINK_UP;
}

static void
on_open(struct link *l, const struct frame *f)
{
	uint32_t send = (uint32_t)frame_get(l->body, 4), recv = (uint32_t)frame_get(l->body + 4, 4);
	struct stream *s;

	if (l->role == LINK_NEAR || (f->stream & 1) == 0 || f->stream / 2 >= l->size || find(l, f->stream) != NULL ||
	    send > LINK_WINDOW_FIRST || recv > WINDOW_TOP) {
		breach(l, "an OPEN that is not allowed");
		return;
	}
	s = new_stream(l, f->stream, (const char *)l->body + 8, f->length - 8);
	if (s == NULL) {
		link_bye(l, LINK_NO_ROOM, "no memory for a stream");
		return;
	}
	s->send_window = recv;
	s->recv_window = s->window = send;
	l->promised += send;
	if (l->promised > l->ours.memory) {
		link_close(l, s, LINK_NO_ROOM, "no room for another stream's window");
		return;
	}
	if (f->length - 8 > TARGET_LONG && l->n > TARGET_FEW) {
		link_close(l, s, LINK_NO_ROOM, "no room for so long a target beside so many streams");
		return;
	}
	s->in_news = 1;
	s->next_new = NULL;
	if (l->news.last == NULL)
		l->news.first = s;
	else
		l->news.last->next_new = s;
	l->news.last = s;
}

static void
on_eof(struct link *l, struct stream *s)
{
	s->got_eof = 1;
	forget_promise(l, s);
	if (s->in.state == HALF_OPEN)
		s->in.state = HALF_DRAIN;
	close_if_ended(l, s);
}

static void
on_close(struct link *l, struct stream *s, const struct frame *f)
{
	uint16_t code = (uint16_t)frame_get(l->body, 2);
	bool ours = s->sent_close || s->due_close;

	s->got_close = 1;
	if (s->user == NULL && code != LINK_END)
		l->late = code;
	if (!ours && !s->due_open)
		set_words(s, (const char *)l->body + 2, f->length - 2);
	/* An end that both directions did not come to is a reset, whatever its sender calls it. */
	if (code == LINK_END && s->got_eof && s->sent_eof) {
		close_if_ended(l, s); /* else once all is delivered */
	} else {
		break_stream(l, s, code == LINK_END ? LINK_RESET : code);
		if (!ours) {
			s->due_close = 1;
			append_control(l, s);
		}
	}
	leave_table(l, s);
	free_if_done(s);
}

static void
on_credit(struct link *l, struct stream *s)
{
	uint32_t n = (uint32_t)frame_get(l->body, 4);

	if (n == 0 || n > WINDOW_TOP || s->send_window > WINDOW_TOP - n) {
		breach(l, "a CREDIT beyond all windows");
		return;
	}
	s->send_window += n;
	link_ready(l, s);
}

static void
on_bye(struct link *l, const struct frame *f)
{
	char why[FRAME_WORDS + 1];

	memcpy(why, l->body + 2, f->length - 2);
	why[f->length - 2] = '\0';
	l->by_peer = true;
	link_lost(l, (uint16_t)frame_get(l->body, 2), why);
}

static void
on_link_frame(struct link *l, const struct frame *f)
{
	uint32_t stride;

	switch (f->type) {
	case FRAME_HELLO:
		on_hello(l, f);
		break;
	case FRAME_ACK:
		if (!pace_acked(&l->pace, frame_get(l->body, 8), (int64_t)frame_get(l->body + 8, 4), l->now))
			breach(l, "an ACK of bytes that were not sent");
		break;
	case FRAME_PING:
		l->due_ack = true;
		break;
	case FRAME_STRIDE:
		stride = (uint32_t)frame_get(l->body, 4);
		l->stride = stride < STRIDE_LEAST ? STRIDE_LEAST : stride;
		break;
	case FRAME_BYE:
		on_bye(l, f);
		break;
	}
}

static void
on_stream_frame(struct link *l, struct stream *s, const struct frame *f)
{
	touch(l, s);
	if (f->type == FRAME_CLOSE) {
		on_close(l, s, f);
		return;
	}
	if (f->type == FRAME_EOF && s->got_eof) {
		breach(l, "a second EOF");
		return;
	}
	if (s->sent_close || s->due_close)
		return; /* it was on its way when we closed */
	switch (f->type) {
	case FRAME_OPENED:
		if (l->role == LINK_FAR || s->opened) {
			breach(l, "an OPENED that is not allowed"); /* after which the stream may be gone */
			return;
		}
		s->opened = 1;
		break;
	case FRAME_EOF:
		on_eof(l, s);
		break;
	case FRAME_STOP:
		half_break(&s->out, EPIPE, true);
		link_ready(l, s);
		break;
	case FRAME_CREDIT:
		on_credit(l, s);
		break;
	}
}

/* The body of a frame, other than DATA, is whole. */
static void
on_frame(struct link *l, const struct frame *f)
{
	struct stream *s;

	if (f->type >= FRAME_SKIPPED)
		return;
	if (f->stream == 0) {
		on_link_frame(l, f);
		return;
	}
	if (f->type == FRAME_OPEN) {
		on_open(l, f);
		return;
	}
	s = find(l, f->stream);
	if (s == NULL)
		breach(l, "a frame for a stream that is not open");
	else
		on_stream_frame(l, s, f);
}

/* ---- reading: bytes ---- */

static void
start_data(struct link *l, const struct frame *f)
{
	struct stream *s = find(l, f->stream);

	l->data = NULL;
	if (s == NULL || s->got_eof || s->got_close) {
		breach(l, "DATA for a stream that is not open");
		return;
	}
	if (s->sent_close || s->due_close)
		return;
	if (f->length > s->recv_window) {
		breach(l, "DATA beyond the window");
		return;
	}
	s->recv_window -= f->length;
	if (s->in.state == HALF_OPEN)
		l->data = s;
	else
		l->promised -= f->length; /* nobody reads it any more */
}

static void
start_frame(struct link *l)
{
	const char *wrong = frame_decode(&l->frame, l->head);

	l->head_have = 0;
	if (wrong != NULL) {
		breach(l, wrong);
		return;
	}
	if ((l->state == LINK_GREETS) != (l->frame.type == FRAME_HELLO) && l->frame.type != FRAME_BYE) {
		breach(l, l->state == LINK_GREETS ? "another frame before HELLO" : "a second HELLO");
		return;
	}
	/* An ACK wants no ACK, or two idle sides would never come to rest. */
	if (l->frame.type != FRAME_ACK && l->unacked_at == 0)
		l->unacked_at = l->now;
	l->left = l->frame.length;
	if (l->frame.type == FRAME_DATA)
		start_data(l, &l->frame);
	else if (l->left == 0)
		on_frame(l, &l->frame);
}

/* A piece of DATA; the stream may have been given up since its frame began. */
static void
take_data(struct link *l, const unsigned char *p, size_t n)
{
	struct stream *s = l->data;
	size_t had;

	if (s == NULL)
		return;
	touch(l, s);
	had = s->in.buf.used;
	if (s->in.state != HALF_OPEN) {
		l->promised -= n;
		return;
	}
	if (!buf_put(&s->in.buf, p, n)) {
		l->promised -= n - (s->in.buf.used - had);
		link_close(l, s, LINK_NO_ROOM, "out of memory");
	}
}

static size_t
take_body(struct link *l, const unsigned char *p, size_t n)
{
	if (n > l->left)
		n = l->left;
	l->left -= n;
	if (l->frame.type == FRAME_DATA)
		take_data(l, p, n);
	else if (l->frame.type < FRAME_SKIPPED)
		memcpy(l->body + (l->frame.length - l->left - n), p, n);
	if (l->left > 0)
		return n;
	l->data = NULL;
	if (l->frame.type != FRAME_DATA)
		on_frame(l, &l->frame);
	return n;
}

static size_t
feed_frames(struct link *l, const unsigned char *p, size_t n)
{
	size_t used;

	if (l->left > 0) {
		used = take_body(l, p, n);
	} else {
		used = FRAME_HEAD - l->head_have < n ? FRAME_HEAD - l->head_have : n;
		memcpy(l->head + l->head_have, p, used);
		l->head_have += used;
		if (l->head_have == FRAME_HEAD)
			start_frame(l);
	}
	l->read += used;
	return used;
}

/* Does ${p} begin with ${words}, as far as it goes? */
static bool
begins(const char *words, const char *p, size_t n)
{
	return memcmp(words, p, n < strlen(words) ? n : strlen(words)) == 0;
}

static void
add_noise(struct link *l, char c)
{
	if (l->noise == NULL)
		l->noise = malloc(LINK_NOISE + 1);
	if (l->noise == NULL || l->noise_have == LINK_NOISE) {
		link_lost(l, LINK_PROTOCOL, "64 KiB came before any sign of a relay there");
		return;
	}
	l->noise[l->noise_have++] = c;
	l->noise[l->noise_have] = '\0';
	if (l->noise_have >= strlen(MIDDLE) && memcmp(l->noise + l->noise_have - strlen(MIDDLE), MIDDLE, strlen(MIDDLE)) == 0)
		link_lost(l, LINK_PROTOCOL, "the line changes bytes: is there an ssh -t, or another terminal, on the way?");
	/* A forced command may start relay where the near side expects a shell, whose words then come before its magic. */
	else if (l->role == LINK_FAR && !begins(BOOT_BEGIN, l->noise, l->noise_have))
		link_lost(l, LINK_PROTOCOL, "what comes in is no link: relay -m - is run by relay -m FROM -- COMMAND");
}

/* One byte of what may be the magic. Only its first byte can begin it anew. */
static void
feed_magic(struct link *l, unsigned char c)
{
	size_t i, n = l->matched;

	if (c == frame_magic[n]) {
		l->matched++;
		if (l->matched == FRAME_MAGIC)
			l->state = LINK_GREETS;
		return;
	}
	l->matched = 0;
	for (i = 0; i < n && l->state == LINK_STARTS; i++)
		add_noise(l, (char)frame_magic[i]);
	if (l->state != LINK_STARTS)
		return;
	if (c == frame_magic[0])
		l->matched = 1;
	else
		add_noise(l, (char)c);
}

void
link_feed(struct link *l, const void *p, size_t n, int64_t now)
{
	const unsigned char *at = p, *end = at + n;

	l->now = now;
	if (n > 0) {
		l->heard = l->read_at = now;
		l->pinged = 0;
	}
	while (at < end && l->state != LINK_DEAD) {
		if (l->state == LINK_STARTS)
			feed_magic(l, *at++);
		else
			at += feed_frames(l, at, (size_t)(end - at));
	}
}

/* ---- time ---- */

void
link_woke(struct link *l, int64_t now)
{
	if (l->state != LINK_UP)
		return;
	l->heard = now - (DEAD_AFTER - AWAKE);
	l->pinged = now;
	l->due_ping = true;
}

void
link_tick(struct link *l, int64_t now)
{
	int64_t gap = now - (l->ticked > l->heard ? l->ticked : l->heard);

	l->now = now;
	l->ticked = now;
	/* Before the magic somebody may be typing a password. */
	if (l->state != LINK_UP && l->state != LINK_GREETS)
		return;
	if (gap > ASLEEP)
		link_woke(l, now);
	if (now - l->heard >= DEAD_AFTER) {
		link_lost(l, LINK_TIMEOUT, "nothing was heard from the other side for 45 s");
	} else if (l->state == LINK_UP && now - l->heard >= PING_AFTER && now - l->pinged >= PING_AFTER) {
		l->due_ping = true;
		l->pinged = now;
	}
}

int64_t
link_deadline(const struct link *l)
{
	int64_t next;

	if (l->state == LINK_GREETS)
		return l->heard + DEAD_AFTER;
	if (l->state != LINK_UP)
		return INT64_MAX;
	next = (l->pinged > l->heard ? l->pinged : l->heard) + PING_AFTER;
	if (l->heard + DEAD_AFTER < next)
		next = l->heard + DEAD_AFTER;
	if (l->unacked_at != 0 && !ack_is_due(l) && l->unacked_at + ACK_DELAY < next)
		next = l->unacked_at + ACK_DELAY;
	if (l->busy.first != NULL && pace_next(&l->pace, l->now) < next)
		next = pace_next(&l->pace, l->now);
	return next;
}

/* ---- codes ---- */

static const struct {
	uint16_t code;
	int err;
} codes[] = { { LINK_RESET, ECONNRESET }, { LINK_REFUSED, ECONNREFUSED }, { LINK_NO_FILE, ENOENT },
	{ LINK_NO_PERMISSION, EACCES }, { LINK_NO_PERMISSION, EPERM }, { LINK_TIMEOUT, ETIMEDOUT },
	{ LINK_NO_ROUTE, EHOSTUNREACH }, { LINK_NO_ROUTE, ENETUNREACH }, { LINK_NO_ROOM, EMFILE }, { LINK_NO_ROOM, ENFILE },
	{ LINK_NO_ROOM, ENOMEM }, { LINK_NO_ROOM, ENOBUFS } };

uint16_t
link_code(int err)
{
	size_t i;

	for (i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
		if (codes[i].err == err)
			return codes[i].code;
	return LINK_UNUSABLE;
}

int
link_errno(uint16_t code)
{
	size_t i;

	for (i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
		if (codes[i].code == code)
			return codes[i].err;
	return ECONNRESET;
}

/* ---- the whole ---- */

void
link_init(struct link *l, enum link_role role, uint32_t memory, const char *host, int64_t now)
{
	memset(l, 0, sizeof(*l));
	l->role = role;
	l->ours.version = VERSION;
	l->ours.role = (uint8_t)role;
	l->ours.memory = memory;
	l->ours.streams = LINK_STREAMS;
	snprintf(l->ours.host, sizeof(l->ours.host), "%s", host);
	l->stride = l->told = STRIDE_LEAST;
	l->due_hello = true;
	l->now = l->heard = l->ticked = l->read_at = now;
	pace_init(&l->pace, now);
}

void
link_free(struct link *l)
{
	link_lost(l, LINK_END, "");
	while (link_next(l) != NULL)
		; /* all are closed now */
	free(l->table);
	free(l->noise);
	l->table = NULL;
	l->noise = NULL;
	l->size = 0;
}
