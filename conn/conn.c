/*
 * conn/conn.c - one connection: two sides with one life.
 *
 * A half that is shut leaves the other one alone, for as long as it likes.  A half whose sink lost its reader stops its source, and
 * the other half goes on: its last bytes still arrive.  A reset of one side ends both.  What was received before the reset is
 * delivered first; then the other side is reset, if it can carry a reset.
 *
 * Three rules have a time limit without progress:
 *
 *   reset    what was received before a reset has not been delivered yet
 *   linger   all was delivered to a TCP peer that goes on sending to no reader: a close would become a reset and destroy the last
 *            bytes on their way
 *   stuck    stdin at its end and stdout without a reader mean that our parent is dead (the ssh of a ProxyCommand), and the target
 *            does not read what is left
 *
 * Only active connections are polled and stepped (poll.c).  What happens to a connection is an event of poll, a change that the mux
 * reports, or a time; a connection that waits for a time stays active.
 *
 * Moving a chunk takes 50 us, and a keystroke would wait while many connections move one.  So connections with small pieces are served
 * before those with whole chunks (bulk).  While there are small ones, few bulk ones are served in a turn: one, and one more for each
 * BESIDE that are polled, because of what poll costs.  They take turns.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/poll.h"
#include "mux/mux.h"
#include "net/dial.h"
#include "net/endpoint.h"
#include "net/sock.h"
#include "spawn.h"
#include "conn/fdpair.h"
#include "conn/half.h"
#include "conn/side.h"
#include "conn/socks.h"
#include "relay.h"
#include "conn/conn.h"

#define TURN 32 /* chunks that bulk moves in one turn, about, so that others need not wait */
#define BULK (BUF_CHUNK / 2)
#define BESIDE 16
#define STREAM_READS 4 /* of a chunk each, for a stream in one turn */
#define LINGER 2000
#define COMMAND_LINGER 250 /* a command cannot be told of a reset */
#define LOST_LINGER 500 /* the link is lost */
#define STUCK_LINGER 1000    /* our parent is dead */
#define STUCK_FAR 2000       /* the same, where the far side reports what moves */
#define UNSENT_CHECK 5   /* ms between two looks at what TCP has not delivered, before a reset */
#define STALL_CHECK 100 /* the same, at what moves at all */
#define FLUSH_EVERY 100      /* ms between two tries to write */
#define FLUSHES 50           /* tries without progress: the near side has given up by then */
#define HANDSHAKE_TIME 60000 /* for a client of -D to send its request */

enum conn_state { CONN_HANDSHAKING, CONN_CONNECTING, CONN_OPEN, CONN_CLOSED };

struct conn {
	struct watch watch; /* the first member */
	unsigned long id;
	enum conn_state state;
	struct side a, b;
	struct half ab, ba;
	struct dial_target *target; /* NULL: b is a stream */
	struct dial *dial;          /* connecting */
	struct child *child;        /* the command that is side b */
	struct socks *socks;        /* handshaking; connecting, until the client was answered */
	bool bulk;                  /* it moved so much when it moved last */
	bool served;                /* in this turn */
	bool dirty;                 /* the mux has changed its stream since its last step */
	bool loss_logged;           /* that a sink has not taken everything */
	int status;                 /* its part in relay's exit status */
	int64_t began_at;
	int64_t handshake_until;
	int64_t stalled_at; /* a time limit counts from here; 0: none does */
	uint64_t progress;  /* at that time */
	int64_t flush_at;   /* the next try to deliver to a slow reader */
	int flushes;        /* tries without progress */
	uint64_t unsent;    /* at the last try */
	bool may_stall;     /* a rule with a time limit applies in this turn */
	char from[SOCK_NAME];
};

/* ---- names and reports ---- */

static const char *
to_name(const struct conn *c, char *dst)
{
	const char *text;

	if (c->target != NULL)
		return endpoint_name(&c->target->to, dst, ENDPOINT_NAME);
	text = c->b.stream != NULL ? stream_target(c->b.stream) : "";
	snprintf(dst, ENDPOINT_NAME, "%.300s", *text == '\0' || *text == '=' ? "its target" : text);
	return dst;
}

static const char *
side_name(const struct conn *c, const struct side *e, char *dst)
{
	if (e == &c->b)
		return to_name(c, dst);
	snprintf(dst, ENDPOINT_NAME, "%s", c->from);
	return dst;
}

static bool
has_stdio(const struct conn *c)
{
	return c->a.fds.stdio || c->b.fds.stdio;
}

/* The far side has reset the stream: log its reason.  Resets of connections are logged if there is only one connection. */
static void
report_close(const struct conn *c, const struct stream *s)
{
	const char *peer = mux_peer(stream_mux(s)), *reason = stream_reason(s);

	if (mux_role(stream_mux(s)) != MUX_NEAR || mux_state(stream_mux(s)) == MUX_DEAD)
		return;
	if (stream_code(s) != MUX_RESET && *reason != '\0')
		log_say(LOG_ERROR, "%s: %s", peer, reason);
	else if (stream_code(s) == MUX_RESET && has_stdio(c))
		log_say(LOG_ERROR, "%s: the connection broke: %s", peer,
		    *reason != '\0' ? reason : "it was reset");
}

static void
report_reset(const struct conn *c, const struct side *e, const struct side *other)
{
	char one[ENDPOINT_NAME], two[ENDPOINT_NAME];

	if (e->stream != NULL) {
		report_close(c, e->stream);
		return;
	}
	log_say(has_stdio(c) || half_is_local_failure(e->err) ? LOG_ERROR : LOG_INFO,
	    "[%lu] %s broke: %s%s; %s %s", c->id, side_name(c, e, one), strerror(e->err),
	    half_advice(e->err), side_name(c, other, two),
	    side_resets(other) ? "was reset too" : "was closed, it is not TCP and knows no reset");
}

static void
report_closed(const struct conn *c, int64_t now)
{
	char to[ENDPOINT_NAME];

	log_say(LOG_INFO,
	    "[%lu] closed %s -> %s: %" PRIu64 " bytes there, %" PRIu64 " back, %.3f s", c->id,
	    c->from, to_name(c, to), c->ab.moved, c->ba.moved, (double)(now - c->began_at) / 1000);
}

/* ---- begin ---- */

static struct conn *
add(struct conns *tab, const struct side *a, const char *from, int64_t now)
{
	struct conn *c = calloc(1, sizeof(*c));

	if (c == NULL)
		return NULL;
	c->a = *a;
	side_none(&c->b);
	c->began_at = now;
	c->id = ++tab->last_id;
	snprintf(c->from, sizeof(c->from), "%s", from);
	watch_add(&tab->watches, &c->watch, now);
	tab->n++;
	return c;
}

/* Both sides are known: bytes may rest in the halves. */
static void
connect_halves(struct conn *c)
{
	char to[ENDPOINT_NAME];

	half_init(&c->ab, &c->a, &c->b);
	half_init(&c->ba, &c->b, &c->a);
	if (c->a.stream != NULL)
		stream_set_owner(c->a.stream, c);
	if (c->b.stream != NULL)
		stream_set_owner(c->b.stream, c);
	c->dirty = true; /* its stream may hold bytes already */
	log_say(LOG_INFO, "[%lu] opened %s -> %s", c->id, c->from, to_name(c, to));
}

bool
conn_dial(struct conns *tab, const struct side *a, const char *from, struct dial_target *target,
    int64_t now)
{
	struct dial *d = dial_start(target, now);
	struct conn *c;

	if (d == NULL)
		return false;
	c = add(tab, a, from, now);
	if (c == NULL) {
		dial_free(d, now);
		return false;
	}
	c->dial = d;
	c->target = target;
	c->state = CONN_CONNECTING;
	connect_halves(c);
	return true;
}

bool
conn_join(
    struct conns *tab, const struct side *a, const char *from, const struct side *b, int64_t now)
{
	struct conn *c = add(tab, a, from, now);

	if (c == NULL)
		return false;
	c->b = *b;
	c->state = CONN_OPEN;
	connect_halves(c);
	return true;
}

bool
conn_socks(struct conns *tab, const struct side *a, const char *from, int64_t now)
{
	struct socks *s = calloc(1, sizeof(*s));
	struct conn *c;

	if (s == NULL)
		return false;
	c = add(tab, a, from, now);
	if (c == NULL) {
		free(s);
		return false;
	}
	c->socks = s;
	c->state = CONN_HANDSHAKING;
	c->handshake_until = now + HANDSHAKE_TIME;
	return true;
}

/* ---- end ---- */

static void
let_go(struct conn *c, bool reset_a, bool reset_b, uint16_t code, const char *words, int64_t now)
{
	report_closed(c, now);
	c->state = CONN_CLOSED;
	dial_free(c->dial, now);
	c->dial = NULL;
	if (c->ab.buf != NULL) {
		half_break(&c->ab, 0, false);
		half_break(&c->ba, 0, false);
	}
	side_close(&c->a, reset_a, code, words);
	side_close(&c->b, reset_b, code, words);
	if (c->child != NULL)
		spawn_release(c->child, now);
	c->child = NULL;
	free(c->socks);
	c->socks = NULL;
}

/* End the connection before its time. */
static void
cut(struct conn *c, int status, uint16_t code, const char *words, int64_t now)
{
	c->status = status;
	let_go(c, true, true, code, words, now);
}

/* ---- handshaking ---- */

static void
refuse_client(struct conn *c, uint16_t code, int64_t now)
{
	socks_answer(c->socks, &c->a.fds, code);
	let_go(c, false, false, MUX_END, "", now);
}

static void
open_stream(struct conns *tab, struct conn *c, int64_t now)
{
	struct stream *s = mux_open(tab->mux, c->socks->target);

	if (s == NULL) {
		log_say(LOG_NOTICE, "refused a client of -D: the link carries no more connections");
		refuse_client(c, MUX_NO_ROOM, now);
		return;
	}
	c->b = side_of_stream(s);
	c->state = CONN_CONNECTING;
	connect_halves(c);
}

static void
step_handshake(struct conns *tab, struct conn *c, const struct pollset *ps)
{
	int err;

	if (!side_readable(&c->a, ps)) {
		err = side_failed(&c->a, ps);
		if (err != 0 || ps->now >= c->handshake_until)
			let_go(c, err != 0, false, MUX_RESET, "", ps->now);
		return;
	}
	err = socks_read(c->socks, &c->a.fds);
	if (err != 0) {
		if (half_is_local_failure(err) || err == EAGAIN)
			log_say(
			    LOG_ERROR, "the handshake of a client of -D failed: %s", strerror(err));
		let_go(c, err > 0, false, MUX_RESET, "", ps->now);
	} else if (c->socks->state == SOCKS_WRONG) {
		log_say(LOG_INFO, "refused a client of -D: %s", c->socks->why);
		refuse_client(c, c->socks->code, ps->now);
	} else if (c->socks->state == SOCKS_WANTS) {
		open_stream(tab, c, ps->now);
	}
}

/* ---- connecting ---- */

/* A client of -D waits for the far side to reach its target. */
static void
step_request(struct conn *c, const struct pollset *ps)
{
	struct stream *s = c->b.stream;

	if (stream_is_closed(s)) {
		report_close(c, s);
		refuse_client(c, stream_code(s), ps->now);
	} else if (side_failed(&c->a, ps) != 0 ||
		   (stream_is_opened(s) && !socks_answer(c->socks, &c->a.fds, MUX_END))) {
		cut(c, STATUS_BROKEN, MUX_RESET, "", ps->now);
	} else if (stream_is_opened(s)) {
		free(c->socks);
		c->socks = NULL;
		c->state = CONN_OPEN;
	}
}

/*
 * Has side a ended before the target was reached?  Return EPIPE if it closed,
 * another errno value if it was reset, else 0.  A client that closed, but sent
 * something before, is served.
 */
static int
client_failed(struct conn *c, const struct pollset *ps)
{
	struct stream *s = c->a.stream;
	int err;

	if (s != NULL && stream_is_closed(s) && stream_code(s) != MUX_END)
		return mux_errno_of(stream_code(s));
	if (s != NULL)
		return stream_is_closed(s) && stream_rx(s)->used == 0 ? EPIPE : 0;
	err = side_failed(&c->a, ps);
	return err == EPIPE && c->a.fds.single && fdpair_has_unread(&c->a.fds) ? 0 : err;
}

static void
take_target(struct conn *c, int64_t now)
{
	enum endpoint_kind kind = c->target->to.kind;

	if (kind == ENDPOINT_STDIO && fdpair_stdio(&c->b.fds) == -1) {
		log_say(LOG_ERROR, "cannot use stdin and stdout: %s", fdpair_explain(errno));
		cut(c, STATUS_SYSTEM, MUX_UNUSABLE, strerror(errno), now);
		return;
	}
	c->child = dial_take_child(c->dial);
	c->a.fds.keeps_stderr =
	    c->child != NULL; /* the exit of the command is still to be logged */
	if (c->child != NULL)
		fdpair_pipes(&c->b.fds, spawn_take_in(c->child), spawn_take_out(c->child));
	else if (kind != ENDPOINT_STDIO)
		fdpair_socket(&c->b.fds, dial_take(c->dial), kind == ENDPOINT_TCP);
	dial_free(c->dial, now);
	c->dial = NULL;
	if (c->a.stream != NULL && mux_role(stream_mux(c->a.stream)) == MUX_FAR)
		stream_accept(c->a.stream);
	c->state = CONN_OPEN;
}

static uint16_t
dial_code(const struct dial *d)
{
	int err = dial_errno(d);

	return err == 0 ? MUX_NO_NAME : mux_code_of(err);
}

static void
dial_failed(struct conn *c, int64_t now)
{
	bool far = c->a.stream != NULL && mux_role(stream_mux(c->a.stream)) == MUX_FAR;
	char why[ENDPOINT_NAME + 512];

	dial_explain(c->dial, why, sizeof(why));
	log_say(far ? LOG_INFO : LOG_ERROR, "%s", why);
	cut(c, dial_status(c->dial), dial_code(c->dial), why, now);
}

static void
step_dial(struct conn *c, const struct pollset *ps)
{
	int err = client_failed(c, ps);

	if (err != 0) {
		if (err != EPIPE)
			dial_reset(c->dial);
		cut(c, STATUS_BROKEN, MUX_RESET, "", ps->now);
		return;
	}
	switch (dial_step(c->dial, ps)) {
	case DIAL_BUSY:
		break;
	case DIAL_DONE:
		take_target(c, ps->now);
		break;
	case DIAL_FAILED:
		dial_failed(c, ps->now);
		break;
	}
}

/* ---- open: bytes ---- */

/* Write behind the read at once: a poll between them would only cost time.  Return how much was read. */
static size_t
pump(struct half *h, bool readable, bool writable, int chunks)
{
	size_t n, all = 0;
	int reads = h->dst->stream != NULL ? STREAM_READS : 1;

	half_write(h, writable);
	while (readable && reads-- > 0 && half_wants_read(h)) {
		n = half_read(h, chunks);
		all += n;
		readable = n >= BUF_CHUNK && !h->src->fds.in_blocks;
	}
	if (all > 0)
		half_write(h, false);
	return all;
}

/* ---- open: decisions ---- */

/* Changes whenever a byte moves on, here or, as far as it is known, behind side ${e}. */
static uint64_t
side_progress(const struct side *e)
{
	return e->stream != NULL ? stream_progress(e->stream) : 0 - side_unsent(e);
}

/* Has nothing moved for ${limit}?  Each rule that has a limit asks once a turn while it applies. */
static bool
is_stalled(struct conn *c, int64_t limit, int64_t now)
{
	uint64_t progress = c->ab.moved + c->ba.moved + side_progress(&c->a) + side_progress(&c->b);

	c->may_stall = true;
	if (c->stalled_at == 0 || c->progress != progress) {
		c->stalled_at = now;
		c->progress = progress;
	}
	return now >= c->stalled_at + limit;
}

/*
 * Was the stream reset before both directions had ended?  A code that comes
 * later only reports a loss: check_delivery.
 */
static bool
is_reset(const struct stream *s)
{
	bool ended = stream_eof_read(s) && stream_eof_sent(s);

	return stream_is_closed(s) && stream_code(s) != MUX_END && !ended;
}

/*
 * ${from} comes from side ${e}, ${to} leads to it: has the side failed?  Its last bytes are read before its failure counts, and a write
 * error of TCP means that reading will come to an end.
 */
static void
check_side(struct side *e, struct half *from, struct half *to, const struct pollset *ps)
{
	int err;

	if (e->err != 0)
		return;
	if (e->stream != NULL) {
		e->err = is_reset(e->stream) ? mux_errno_of(stream_code(e->stream)) : 0;
		return;
	}
	if (to->state == HALF_BROKEN && to->by_sink && (e->fds.tcp || to->err != EPIPE)) {
		e->err = to->err;
		return;
	}
	if (e->fds.single && from->state == HALF_OPEN && half_wants_read(from) &&
	    side_readable(e, ps))
		return;
	err = side_failed(e, ps);
	if (err == EPIPE && !e->fds.tcp)
		half_break(to, EPIPE, true);
	else
		e->err = err;
}

/* How long what came before the reset of ${e} may stand still. */
static int64_t
reset_limit(const struct conn *c, const struct side *e)
{
	if (c->child != NULL)
		return COMMAND_LINGER;
	return e->stream != NULL && mux_state(stream_mux(e->stream)) == MUX_DEAD ? LOST_LINGER : LINGER;
}

/* Side ${e} was reset.  ${from} is delivered to ${other} first, down to what TCP there has not sent yet. */
static bool
is_delivered(struct conn *c, const struct side *e, const struct half *from,
    const struct side *other, int64_t now)
{
	bool reads = from->state == HALF_OPEN && e->fds.in != -1;
	bool writes = from->state != HALF_BROKEN && from->buf->used > 0;

	if (other->err != 0 || (!reads && !writes && side_unsent(other) == 0))
		return true;
	return is_stalled(c, reset_limit(c, e), now);
}

/* One side was reset: deliver what it sent before, then reset the other one.  Return false if neither was. */
static bool
end_by_reset(struct conn *c, int64_t now)
{
	struct side *e = c->a.err != 0 ? &c->a : &c->b, *other = e == &c->a ? &c->b : &c->a;
	struct half *from = e == &c->a ? &c->ab : &c->ba, *to = e == &c->a ? &c->ba : &c->ab;
	const struct stream *s = e->stream;

	if (e->err == 0)
		return false;
	half_break(to, e->err, true);
	if (other->stream == NULL && !other->fds.tcp)
		fdpair_shut_in(&other->fds);
	if (!is_delivered(c, e, from, other, now))
		return true;
	report_reset(c, e, other);
	cut(c,
	    s != NULL && !stream_is_opened(s) && stream_code(s) != MUX_RESET ? STATUS_CONNECT
									     : STATUS_BROKEN,
	    MUX_RESET, strerror(e->err), now);
	return true;
}

/* The sink of ${h} lost its reader: stop the source, where it can be told. */
static void
stop_source(struct conn *c, struct half *h)
{
	char name[ENDPOINT_NAME];

	if (h->state != HALF_BROKEN || h->sink_lost)
		return;
	h->sink_lost = true;
	if (h->dst->stream == NULL)
		fdpair_shut_out(&h->dst->fds);
	side_stop(h->src);
	if (h->dst->fds.stdio) {
		c->status = STATUS_BROKEN;
	} else if (h->lost && c->child == NULL) {
		c->status = STATUS_BROKEN;
		c->loss_logged = true;
		log_say(c->a.fds.stdio ? LOG_ERROR : LOG_INFO,
		    "[%lu] %s closed before it had taken everything", c->id,
		    side_name(c, h->dst, name));
	}
}

/*
 * What stdout did not take has no reader any more, and stdin goes on.  Another program would die of SIGPIPE now.  If stdin is at its
 * end, or its writer is gone, its last bytes are delivered first.
 */
static bool
output_is_lost(const struct half *out, const struct half *in)
{
	return out->dst->fds.stdio && out->state == HALF_BROKEN && out->lost &&
	       in->state == HALF_OPEN && !fdpair_input_ends(&in->src->fds);
}

static bool
lingers(struct conn *c, const struct half *broken, const struct half *shut, int64_t now)
{
	const struct side *e = broken->src;

	if (broken->state != HALF_BROKEN || !e->fds.tcp || e->fds.in == -1 ||
	    shut->state != HALF_SHUT)
		return false;
	return !is_stalled(c, LINGER, now);
}

static bool
is_stuck(struct conn *c, int64_t now)
{
	struct half *in = c->a.fds.stdio ? &c->ab : &c->ba, *out = c->a.fds.stdio ? &c->ba : &c->ab;
	bool ended = in->state == HALF_DRAIN ||
		     (in->state == HALF_SHUT && !side_is_done(in->dst)) || in->src->fds.hup;

	if (!in->src->fds.stdio || out->state != HALF_BROKEN || !ended)
		return false;
	/* poll reports a socket as writable only when much of its room is free; a slow reader makes less. */
	half_write(in, true);
	return is_stalled(c, in->dst->stream != NULL ? STUCK_FAR : STUCK_LINGER, now);
}

static bool
is_over(struct conn *c, int64_t now)
{
	return half_finished(&c->ab) && half_finished(&c->ba) && side_is_done(&c->a) &&
	       side_is_done(&c->b) && !lingers(c, &c->ab, &c->ba, now) &&
	       !lingers(c, &c->ba, &c->ab, now);
}

/* The far side has closed the stream after both directions ended: did it deliver everything? */
static void
check_delivery(struct conn *c)
{
	const struct stream *s = c->b.stream;

	if (s == NULL || !stream_is_closed(s) || stream_code(s) == MUX_END)
		return;
	c->status = STATUS_BROKEN;
	if (!c->loss_logged)
		report_close(c, s);
}

/* The one place that looks at both halves and decides. */
static void
settle(struct conns *tab, struct conn *c, int64_t now)
{
	bool stuck;

	if (end_by_reset(c, now))
		return;
	half_end(&c->ab, c->ba.state != HALF_SHUT);
	half_end(&c->ba, c->ab.state != HALF_SHUT);
	if (end_by_reset(c, now)) /* an end could not be passed on */
		return;
	stop_source(c, &c->ab);
	stop_source(c, &c->ba);
	stuck = is_stuck(c, now);
	if (!stuck && !is_over(c, now) && !output_is_lost(&c->ab, &c->ba) &&
	    !output_is_lost(&c->ba, &c->ab))
		return;
	tab->gave_up = tab->gave_up || stuck;
	check_delivery(c);
	/* A direction that came to its end is never reset: its last bytes may still be on their way. */
	let_go(
	    c, c->ba.state == HALF_BROKEN, c->ab.state == HALF_BROKEN || stuck, MUX_RESET, "", now);
}

/*
 * The peer of a stream has stopped reading and waits for ${in} to be delivered, perhaps with a time limit.  poll reports a socket as
 * writable only when much of its room is free; a slow reader makes less, so that the write is tried without poll.
 */
static bool
is_flushing(const struct conn *c, const struct half *in, const struct half *out)
{
	return in->src->stream != NULL && half_wants_write(in) && out->state == HALF_BROKEN &&
	       c->flushes < FLUSHES;
}

/* Deliver what such a peer waits for.  What TCP there has not acknowledged is not delivered; where it moves, the peer is told. */
static void
flush(struct conn *c, struct half *in, const struct half *out, int64_t now)
{
	uint64_t unsent;

	if (!is_flushing(c, in, out) || now < c->flush_at)
		return;
	c->flush_at = now + FLUSH_EVERY;
	c->flushes++;
	half_write(in, true);
	unsent = side_unsent(in->dst);
	if (unsent == c->unsent)
		return;
	c->flushes = 0;
	c->unsent = unsent;
	stream_show_progress(in->src->stream);
}

static void
move(struct conns *tab, struct conn *c, const struct pollset *ps, bool fresh, int chunks)
{
	size_t there, back;

	half_update(&c->ab);
	half_update(&c->ba);
	/* A client has mostly sent something by the time that its target is reached. */
	there = pump(&c->ab,
	    fresh ? c->a.stream == NULL && !c->a.fds.in_blocks : side_readable(&c->a, ps),
	    side_writable(&c->b, ps), chunks);
	back = pump(&c->ba, side_readable(&c->b, ps), side_writable(&c->a, ps), chunks);
	if (there > 0 || back > 0)
		c->bulk = there >= BULK || back >= BULK;
	flush(c, &c->ab, &c->ba, ps->now);
	flush(c, &c->ba, &c->ab, ps->now);
	check_side(&c->a, &c->ab, &c->ba, ps);
	check_side(&c->b, &c->ba, &c->ab, ps);
	c->may_stall = false;
	settle(tab, c, ps->now);
	if (!c->may_stall)
		c->stalled_at = 0;
}

static void
step(struct conns *tab, struct conn *c, const struct pollset *ps, int chunks)
{
	enum conn_state before = c->state;

	c->dirty = false;
	if (c->state == CONN_HANDSHAKING)
		step_handshake(tab, c, ps);
	else if (c->state == CONN_CONNECTING && c->dial != NULL)
		step_dial(c, ps);
	else if (c->state == CONN_CONNECTING)
		step_request(c, ps);
	if (c->state == CONN_OPEN)
		move(tab, c, ps, before != CONN_OPEN, chunks);
	if (c->state != before)
		watch_event(&tab->watches, &c->watch, ps->now);
}

/* ---- all connections ---- */

void
conn_take_dirty(struct conns *tab, struct mux *m, int64_t now)
{
	struct stream *s;
	struct conn *c;

	while ((s = mux_next_dirty(m)) != NULL) {
		c = stream_owner(s);
		c->dirty = true;
		watch_event(&tab->watches, &c->watch, now);
	}
}

static bool
has_failed(const struct conn *c)
{
	return c->a.err != 0 || c->b.err != 0;
}

static void
want(const struct conns *tab, struct conn *c, struct pollset *ps)
{
	switch (c->state) {
	case CONN_HANDSHAKING:
		side_want(&c->a, ps, tab->mux != NULL, false);
		pollset_until(ps, c->handshake_until);
		break;
	case CONN_CONNECTING:
		side_want(&c->a, ps, false, false);
		if (c->dial != NULL)
			dial_want(c->dial, ps);
		break;
	case CONN_OPEN:
		if (is_flushing(c, &c->ab, &c->ba) || is_flushing(c, &c->ba, &c->ab))
			pollset_until(ps, c->flush_at);
		side_want(&c->a, ps, half_wants_read(&c->ab), half_wants_write(&c->ba));
		side_want(&c->b, ps, half_wants_read(&c->ba), half_wants_write(&c->ab));
		if (c->stalled_at != 0)
			pollset_until(ps, ps->now + (has_failed(c) ? UNSENT_CHECK : STALL_CHECK));
		break;
	case CONN_CLOSED:
		pollset_until(ps, ps->now); /* the sweep frees it */
		break;
	}
}

void
conn_want(struct conns *tab, struct pollset *ps)
{
	struct watch *w;

	watch_turn(&tab->watches, ps);
	if (tab->behind)
		pollset_until(ps, ps->now);
	for (w = tab->watches.active.first; w != NULL; w = w->next)
		want(tab, (struct conn *)w, ps);
}

static bool
has_event(const struct conn *c, const struct pollset *ps)
{
	return side_has_event(&c->a, ps) || side_has_event(&c->b, ps);
}

/* Does it wait for more than an event of its own descriptors or its stream? */
static bool
waits_for_time(const struct conn *c)
{
	return c->state == CONN_HANDSHAKING || c->dial != NULL || c->stalled_at != 0 ||
	       (c->state == CONN_OPEN &&
		   (is_flushing(c, &c->ab, &c->ba) || is_flushing(c, &c->ba, &c->ab)));
}

static int
chunks_beside(size_t served)
{
	if (served <= TURN / BUF_WIDE)
		return BUF_WIDE;
	return served >= TURN ? 1 : TURN / (int)served;
}

/* Step ${c}, if there is a reason to.  Return whether the reason was an event of poll or a change of its stream. */
static bool
serve(struct conns *tab, struct conn *c, const struct pollset *ps, int chunks)
{
	bool event = has_event(c, ps) || c->dirty;

	if (c->state == CONN_CLOSED || (!event && !waits_for_time(c)))
		return false;
	if (event)
		watch_event(&tab->watches, &c->watch, ps->now);
	step(tab, c, ps, chunks);
	c->served = event;
	return event;
}

/* poll reports an event again, but the mux reports a change once. */
static void
leave_for_next_turn(struct conns *tab, struct conn *c, int64_t now)
{
	watch_event(&tab->watches, &c->watch, now);
	tab->behind = tab->behind || c->dirty;
}

void
conn_step(struct conns *tab, const struct pollset *ps)
{
	size_t small = 0, bulk = 0, most;
	int chunks = chunks_beside(tab->served);
	struct watch *w;
	struct conn *c;

	tab->served = 0;
	tab->behind = false;
	for (w = tab->watches.active.first; w != NULL; w = w->next) {
		c = (struct conn *)w;
		if (c->bulk)
			continue;
		small++;
		tab->served += serve(tab, c, ps, 1);
	}
	most = small == 0 ? SIZE_MAX : 1 + tab->watches.active.n / BESIDE;
	chunks = small == 0 ? chunks : 1;
	for (w = tab->watches.active.first; w != NULL; w = w->next) {
		c = (struct conn *)w;
		if (!c->bulk || c->served)
			continue;
		if (bulk < most)
			bulk += serve(tab, c, ps, chunks);
		else if (has_event(c, ps) || c->dirty)
			leave_for_next_turn(tab, c, ps->now);
	}
	tab->served += bulk;
}

/* A direction that came to its end is not reset: the system delivers its last bytes. */
static void
stop(struct conn *c, int status, int64_t now)
{
	c->status = status;
	let_go(c, c->ba.state != HALF_SHUT, c->ab.state != HALF_SHUT, MUX_RESET, "stopped", now);
}

void
conn_stop(struct conns *tab, int status, int64_t now)
{
	struct watch *w;
	struct conn *c;

	watch_wake_all(&tab->watches); /* conn_sweep looks at active connections only */
	for (w = tab->watches.active.first; w != NULL; w = w->next) {
		c = (struct conn *)w;
		if (c->state != CONN_CLOSED)
			stop(c, status, now);
	}
}

/* A bulk connection that was served is the last one of the next turn. */
static void
settle_watch(struct conns *tab, struct conn *c, const struct pollset *ps)
{
	if (c->served && c->bulk)
		watch_to_back(&tab->watches, &c->watch);
	else if (!waits_for_time(c) && !c->dirty &&
		 watch_to_idle(&tab->watches, &c->watch, ps->now)) {
		/* An idle connection may be stepped in a turn that has not polled it. */
		side_unwatch(&c->a);
		side_unwatch(&c->b);
	}
	c->served = false;
}

int
conn_sweep(struct conns *tab, const struct pollset *ps)
{
	struct watch *w, *next;
	int status = STATUS_OK;
	struct conn *c;

	for (w = tab->watches.active.first; w != NULL; w = next) {
		next = w->next;
		c = (struct conn *)w;
		if (c->state != CONN_CLOSED) {
			settle_watch(tab, c, ps);
			continue;
		}
		if (c->status != STATUS_OK)
			status = c->status;
		dial_drop_target(c->target);
		watch_remove(&tab->watches, w);
		tab->n--;
		free(c);
	}
	return status;
}

void
conn_table(const struct conns *tab, int64_t now)
{
	const struct watch *w;
	const struct conn *c;
	char to[ENDPOINT_NAME];

	log_say(LOG_ERROR, "%zu open connection%s", tab->n, tab->n == 1 ? "" : "s");
	for (w = watch_next(&tab->watches, NULL); w != NULL; w = watch_next(&tab->watches, w)) {
		c = (const struct conn *)w;
		log_say(LOG_ERROR,
		    "[%lu] %s -> %s%s: %" PRIu64 " bytes there, %" PRIu64 " back, %" PRId64
		    " s old",
		    c->id, c->from, to_name(c, to), c->state == CONN_OPEN ? "" : " (connecting)",
		    c->ab.moved, c->ba.moved, (now - c->began_at) / 1000);
	}
}
