/*
 * conn/conn.c - one connection: two sides with one life.
 *
 * Each half ends alone.  These rules end what does not end by itself:
 *
 *   stop     If a sink has lost its reader, its half breaks and its source is
 *            stopped.  The other half continues, so its last bytes arrive.
 *   reset    If a side was reset, the other side gets what was received before,
 *            and is then reset, if it can carry a reset.  The rule has a limit
 *            without progress: is_delivered().
 *   linger   A TCP peer may continue to send after its reader closed.  A close
 *            with unread input becomes a reset, and destroys the last bytes on
 *            their way to the peer.  So relay reads and drops the input until
 *            the peer closes, at most LINGER without progress.
 *   stuck    If stdin is at its end and stdout has no reader, our parent is
 *            dead: the ssh of a ProxyCommand, for example.  If the target then
 *            does not read the rest, the connection ends after stuck_limit()
 *            without progress.
 *   lost     If stdout has no reader for bytes that the target sent, and stdin
 *            is open, the connection ends.  Here another program would die of
 *            SIGPIPE.
 *
 * settle() applies them, once a turn.
 *
 * Only active connections are polled and stepped: see base/poll.c.  An event of
 * poll or a change by the mux makes a connection active.  A connection that
 * waits for a time stays active.
 *
 * Moving a chunk takes 50 us, and a keystroke would wait while many connections
 * move one.  So connections with small pieces are served before those with
 * whole chunks ("bulk").  While there are small ones, each turn serves one bulk
 * connection, and one more for every BESIDE active ones, because the poll of
 * many costs more.  Bulk connections take turns.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/os.h"
#include "base/poll.h"
#include "mux/mux.h"
#include "net/dial.h"
#include "net/endpoint.h"
#include "spawn.h"
#include "conn/fdpair.h"
#include "conn/half.h"
#include "conn/side.h"
#include "conn/socks.h"
#include "relay.h"
#include "conn/conn.h"

/* How much is moved in one turn. */
#define TURN 32 /* chunks of all bulk connections together, about */
#define BULK (BUF_CHUNK / 2)
#define BESIDE 16
#define STREAM_READS 4 /* reads of one chunk each, into one stream */

/* Limits, in us.  A limit of a rule starts again with each progress. */
#define LINGER 2000000          /* of linger, and mostly of reset */
#define FEW_LINGER 250000       /* of reset: few bytes, or a command, which gets no reset */
#define LOST_LINGER 500000      /* of reset: the link is dead */
#define STUCK_LINGER 1000000    /* of stuck */
#define STUCK_FAR 2000000       /* the same, if the far side reports progress */
#define UNSENT_CHECK 5000       /* between two checks for progress, after a reset */
#define DOWN_CHECK 1000000      /* the same, or FLUSH_EVERY, while the link has no channel */
#define STALL_CHECK 100000      /* the same, for the other rules */
#define UNREAD_CHECK 1000000    /* between two polls while bytes stay unread */
#define FLUSH_EVERY 100000      /* between two writes by flush() */
#define HANDSHAKE_TIME 60000000 /* in which a client of -D must send its request */

/*
 * If the system cannot count what a TCP peer has not received, slow progress is
 * not seen, and limits are UNSEEN times as long: limit_of_progress.
 */
#define UNSEEN 2

/*
 * FEW bytes fit into the first window that TCP sends (RFC 3390: 4380).  If a
 * connection carried no more, all of them were sent before the reset.
 * Most systems send a lost packet again after 200 ms, within FEW_LINGER.
 */
#define FEW 4096

#define FLUSHES 50 /* tries of flush() without progress; the peer ends earlier */

enum conn_state { CONN_HANDSHAKING, CONN_CONNECTING, CONN_OPEN, CONN_CLOSED };

struct conn {
	struct watch watch; /* the first member: see conn_of */
	unsigned long id;
	enum conn_state state;
	struct side a, b;
	struct half ab, ba;
	struct dial_target *target; /* NULL: b is a stream */
	struct dial *dial;          /* connecting to target */
	struct child *child;        /* the command that is side b */
	struct socks *socks;        /* until the reply of -D is sent */
	int status;                 /* its part in the exit status */
	int64_t began_at;

	/* what this turn, or the next one, has to do */
	bool bulk;   /* the last read returned at least BULK bytes */
	bool served; /* stepped in this turn, because of an event */
	bool dirty;  /* the mux has changed a stream since the last step */

	/* rules with a limit: is_stalled */
	bool may_stall;     /* such a rule applies in this turn */
	int64_t stalled_at; /* of the last progress; 0: no such rule applies */
	uint64_t progress;  /* at stalled_at */

	/* a peer that waits for delivery: flush */
	int64_t flush_at; /* of the next try */
	int flushes;      /* tries without progress */
	uint64_t unsent;  /* at the last try */

	bool loss_logged; /* that a sink closed with bytes on their way to it */
	char from[];      /* the name of side a */
};

static struct conn *
conn_of(struct watch *w)
{
	return (struct conn *)w;
}

/* ---- sides ---- */

/* When to call fdpair_failed even without an event; INT64_MAX: never. */
static int64_t
side_check_at(const struct side *e)
{
	return e->err == 0 && e->fds.out != -1 ? e->fds.check_at : INT64_MAX;
}

/* Read no more.  TCP cannot stop the peer: its input is read and dropped. */
static void
side_stop(struct side *e)
{
	if (e->stream != NULL)
		stream_stop(e->stream);
	else if (!e->fds.tcp)
		fdpair_shut_in(&e->fds);
}

/* As os_unsent, but 0 for all but TCP. */
static uint64_t
side_unsent(const struct side *e)
{
	int fd = e->fds.out != -1 ? e->fds.out : e->fds.in;

	return e->stream == NULL && e->fds.tcp && fd != -1 ? os_unsent(fd) : 0;
}

/*
 * Return a number that changes when the peer of ${e} has received more, if the
 * mux or the system reports that.
 */
static uint64_t
side_progress(const struct side *e)
{
	return e->stream != NULL ? stream_progress(e->stream) : 0 - side_unsent(e);
}

/* CLOSE of a stream reports whether all was delivered.  Has it come? */
static bool
side_is_done(const struct side *e)
{
	return e->stream == NULL || stream_is_closed(e->stream);
}

/* ---- names and log lines ---- */

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
	return e == &c->b ? to_name(c, dst) : c->from;
}

static bool
has_stdio(const struct conn *c)
{
	return c->a.fds.stdio || c->b.fds.stdio;
}

/*
 * The far side has closed the stream with a reason.  A reset without a reason
 * is logged only with stdio, where it ends the process.
 */
static void
log_far_reason(const struct conn *c, const struct stream *s)
{
	const char *peer = mux_peer(stream_mux(s)), *reason = stream_reason(s);

	if (mux_role(stream_mux(s)) != MUX_NEAR || mux_state(stream_mux(s)) == MUX_DEAD)
		return;
	if (stream_code(s) != MUX_RESET && *reason != '\0')
		log_failure(LOG_ERROR, "%s: %s", peer, reason);
	else if (stream_code(s) == MUX_RESET && has_stdio(c))
		log_say(LOG_ERROR, "%s: the connection broke: %s", peer,
		    *reason != '\0' ? reason : "it was reset");
}

static void
log_reset(const struct conn *c, const struct half *h)
{
	const struct side *e = h->src, *other = h->dst;
	char one[ENDPOINT_NAME], two[ENDPOINT_NAME];

	if (e->stream != NULL) {
		log_far_reason(c, e->stream);
		return;
	}
	log_say(has_stdio(c) || half_is_local_failure(e->err) ? LOG_ERROR : LOG_INFO,
	    "[%lu] %s broke: %s%s; %s %s", c->id, side_name(c, e, one), strerror(e->err),
	    half_advice(e->err), side_name(c, other, two),
	    other->stream != NULL || other->fds.tcp ? "was reset too"
						    : "was closed: only TCP carries a reset");
}

static void
log_closed(const struct conn *c, int64_t now)
{
	char to[ENDPOINT_NAME];

	if (!log_shows(LOG_INFO))
		return;
	log_say(LOG_INFO,
	    "[%lu] closed %s -> %s: %" PRIu64 " bytes there, %" PRIu64 " back, %.3f s", c->id,
	    c->from, to_name(c, to), c->ab.moved, c->ba.moved,
	    (double)(now - c->began_at) / 1000000);
}

/* ---- end ---- */

/* ${reset_a}, ${reset_b}: close the side as a reset, if it can carry one. */
static void
close_conn(
    struct conn *c, bool reset_a, bool reset_b, uint16_t code, const char *words, int64_t now)
{
	log_closed(c, now);
	c->state = CONN_CLOSED;
	dial_free(c->dial, now);
	if (c->ab.buf != NULL) {
		half_break(&c->ab, 0);
		half_break(&c->ba, 0);
	}
	side_close(&c->a, reset_a, code, words);
	side_close(&c->b, reset_b, code, words);
	if (c->child != NULL)
		spawn_release(c->child, now);
	free(c->socks);
}

/*
 * A direction that has ended is not reset: its last bytes may be on their way.
 * ${stuck}: those of stdin are not delivered.
 */
static void
end_conn(struct conn *c, bool stuck, const char *words, int64_t now)
{
	close_conn(c, c->ba.state != HALF_SHUT || (stuck && c->b.fds.stdio),
	    c->ab.state != HALF_SHUT || (stuck && c->a.fds.stdio), MUX_RESET, words, now);
}

/* The connection has failed. */
static void
cut(struct conn *c, int status, uint16_t code, const char *words, int64_t now)
{
	c->status = status;
	close_conn(c, true, true, code, words, now);
}

/* ---- begin ---- */

static struct conn *
add(struct conns *tab, const struct side *a, const char *from, int64_t now)
{
	size_t size = strlen(from) + 1;
	struct conn *c = calloc(1, sizeof(*c) + size);

	if (c == NULL)
		return NULL;
	c->a = *a;
	side_none(&c->b);
	c->began_at = now;
	c->id = ++tab->last_id;
	memcpy(c->from, from, size);
	watch_add(&tab->watches, &c->watch, now);
	tab->n++;
	return c;
}

/* Both sides exist, or their kind is decided: the halves can hold bytes. */
static void
connect_halves(struct conn *c)
{
	char to[ENDPOINT_NAME];

	half_init(&c->ab, &c->a, &c->b, &c->ba);
	half_init(&c->ba, &c->b, &c->a, &c->ab);
	if (c->a.stream != NULL)
		stream_set_owner(c->a.stream, c);
	if (c->b.stream != NULL)
		stream_set_owner(c->b.stream, c);
	c->dirty = true;         /* a stream may have received bytes before it had an owner */
	if (log_shows(LOG_INFO)) /* names take a tenth of the time of a short connection */
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
	return true;
}

/* ---- handshaking ---- */

/* A failure of this host.  The client only sees its connection close. */
static void
log_handshake_failure(int err)
{
	if (half_is_local_failure(err) || err == EAGAIN)
		log_say(LOG_ERROR, "the handshake of a client of -D failed: %s", strerror(err));
}

/* Reply to the request.  Return false if the client did not take the reply. */
static bool
reply(const struct conn *c, uint16_t code)
{
	int err = socks_answer(c->socks, &c->a.fds, code);

	log_handshake_failure(err);
	return err == 0;
}

static void
refuse_client(struct conn *c, uint16_t code, int64_t now)
{
	reply(c, code);
	close_conn(c, false, false, MUX_END, "", now);
}

static void
open_stream(struct conns *tab, struct conn *c, int64_t now)
{
	struct stream *s = mux_open(tab->mux, c->socks->target);

	if (s == NULL) {
		log_say(LOG_NOTICE,
		    "refused a client of -D: no memory, or too many connections (%zu are open); "
		    "close some",
		    tab->n);
		refuse_client(c, MUX_NO_ROOM, now);
		return;
	}
	c->b = side_of_stream(s);
	c->state = CONN_CONNECTING;
	connect_halves(c);
}

/* While the link is down, clients of -D wait. */
static bool
link_carries(const struct conns *tab)
{
	return tab->mux != NULL && mux_state(tab->mux) == MUX_UP;
}

static void
step_handshake(struct conns *tab, struct conn *c, const struct pollset *ps)
{
	int err;

	if (!fdpair_readable(&c->a.fds, ps) || !link_carries(tab)) {
		err = fdpair_failed(&c->a.fds, ps);
		if (err != 0 || ps->now >= c->began_at + HANDSHAKE_TIME)
			close_conn(c, err != 0, false, MUX_RESET, "", ps->now);
		return;
	}
	err = socks_read(c->socks, &c->a.fds);
	if (err != 0) {
		log_handshake_failure(err);
		close_conn(c, err > 0, false, MUX_RESET, "", ps->now);
	} else if (c->socks->state == SOCKS_REFUSED) {
		log_say(LOG_INFO, "refused a client of -D: %s", c->socks->why);
		refuse_client(c, c->socks->code, ps->now);
	} else if (c->socks->state == SOCKS_COMPLETE) {
		open_stream(tab, c, ps->now);
	}
}

/* ---- connecting ---- */

/* The far side connects to the target of a client of -D. */
static void
step_request(struct conn *c, const struct pollset *ps)
{
	struct stream *s = c->b.stream;

	if (stream_is_closed(s) && !stream_is_opened(s)) {
		log_far_reason(c, s);
		refuse_client(c, stream_code(s), ps->now);
	} else if (fdpair_failed(&c->a.fds, ps) != 0 ||
		   (stream_is_opened(s) && !reply(c, MUX_END))) {
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
	err = fdpair_failed(&c->a.fds, ps);
	return err == EPIPE && c->a.fds.single && fdpair_has_unread(&c->a.fds) ? 0 : err;
}

static bool
is_far_stream(const struct side *e)
{
	return e->stream != NULL && mux_role(stream_mux(e->stream)) == MUX_FAR;
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
	c->a.fds.keeps_stderr = c->child != NULL; /* to log the exit of the command */
	if (c->child != NULL)
		fdpair_pipes(&c->b.fds, spawn_take(c->child, STDOUT_FILENO),
		    spawn_take(c->child, STDIN_FILENO));
	else if (kind != ENDPOINT_STDIO)
		fdpair_socket(&c->b.fds, dial_take(c->dial), kind == ENDPOINT_TCP);
	dial_free(c->dial, now);
	c->dial = NULL;
	if (is_far_stream(&c->a))
		stream_accept(c->a.stream);
	c->state = CONN_OPEN;
}

static void
dial_failed(struct conn *c, int64_t now)
{
	int err = dial_errno(c->dial);
	char why[ENDPOINT_NAME + 512];

	dial_explain(c->dial, why, sizeof(why));
	/* The near side logs what the far side writes into CLOSE. */
	if (is_far_stream(&c->a))
		log_say(LOG_INFO, "%s", why);
	else
		log_failure(LOG_ERROR, "%s", why);
	cut(c, dial_status(c->dial), err == 0 ? MUX_NO_NAME : mux_code_of(err), why, now);
}

static void
step_dial(struct conn *c, const struct pollset *ps)
{
	int err = client_failed(c, ps);
	char to[ENDPOINT_NAME];

	if (err != 0) {
		if (err != EPIPE)
			dial_reset(c->dial);
		if (c->a.fds.stdio)
			log_say(LOG_ERROR, "[%lu] stdio broke before %s was reached: %s", c->id,
			    to_name(c, to), strerror(err));
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

/*
 * What was read is written at once, because a poll in between only costs time.
 * Return how many bytes were read.
 */
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

/* Does the stream ${s}, or NULL, wait for another channel of its link? */
static bool
waits_for_link(const struct stream *s)
{
	enum mux_state state = s == NULL ? MUX_UP : mux_state(stream_mux(s));

	return state != MUX_UP && state != MUX_DEAD && !stream_is_closed(s);
}

static bool
is_down(const struct conn *c)
{
	return waits_for_link(c->a.stream) || waits_for_link(c->b.stream);
}

/*
 * The peer of a stream has stopped reading, and ${in} holds bytes that the peer
 * sent.  The peer waits for their delivery, perhaps with a limit (stuck).
 */
static bool
is_flushing(const struct conn *c, const struct half *in)
{
	return in->src->stream != NULL && half_wants_write(in) && in->back->state == HALF_BROKEN &&
	       c->flushes < FLUSHES;
}

static bool
flushes(const struct conn *c)
{
	return is_flushing(c, &c->ab) || is_flushing(c, &c->ba);
}

/*
 * If is_flushing, write what the peer waits for, every FLUSH_EVERY, or every
 * DOWN_CHECK while the link has no channel.  poll reports that the sink is
 * writable only when much of the socket's buffer is free, and a slow reader
 * frees less at a time.  Bytes that the peer of a TCP sink has not acknowledged
 * are not delivered yet.  If their number changes, a CREDIT frame reports the
 * progress.
 */
static void
flush(struct conn *c, struct half *in, int64_t now)
{
	uint64_t unsent;
	bool down;

	if (!is_flushing(c, in) || now < c->flush_at)
		return;
	down = is_down(c);
	c->flush_at = now + (down ? DOWN_CHECK : FLUSH_EVERY);
	c->flushes += !down; /* an outage uses up no tries */
	half_write(in, !in->dst->fds.out_blocks);
	unsent = side_unsent(in->dst);
	if (unsent == c->unsent)
		return;
	c->flushes = 0;
	c->unsent = unsent;
	stream_show_progress(in->src->stream);
}

/*
 * ${fresh}: the target was reached in this turn, and the client was not polled.
 * Read from the client without a poll: it has usually sent something.
 */
static void
move(struct conn *c, const struct pollset *ps, bool fresh, int chunks)
{
	size_t there, back;

	half_update(&c->ab);
	half_update(&c->ba);
	there = pump(&c->ab,
	    fresh ? c->a.stream == NULL && !c->a.fds.in_blocks : fdpair_readable(&c->a.fds, ps),
	    fdpair_writable(&c->b.fds, ps), chunks);
	back = pump(&c->ba, fdpair_readable(&c->b.fds, ps), fdpair_writable(&c->a.fds, ps), chunks);
	if (there > 0 || back > 0)
		c->bulk = there >= BULK || back >= BULK;
	flush(c, &c->ab, ps->now);
	flush(c, &c->ba, ps->now);
}

/* ---- open: rules ---- */

/*
 * Has nothing moved for ${limit}, although the link is up?  A rule that has a
 * limit calls this once in each turn in which it applies.
 */
static bool
is_stalled(struct conn *c, int64_t limit, int64_t now)
{
	uint64_t progress = c->ab.moved + c->ba.moved + side_progress(&c->a) + side_progress(&c->b);

	c->may_stall = true;
	if (c->stalled_at == 0 || c->progress != progress || is_down(c)) {
		c->stalled_at = now;
		c->progress = progress;
	}
	return now >= c->stalled_at + limit;
}

static int64_t
limit_of_progress(const struct conn *c, int64_t limit)
{
	bool seen =
	    side_unsent(&c->a) != OS_UNSENT_UNKNOWN && side_unsent(&c->b) != OS_UNSENT_UNKNOWN;

	return seen ? limit : UNSEEN * limit;
}

/*
 * Find out whether the source of ${from} was reset.  Its last bytes are read
 * before its failure counts.
 */
static void
check_source(struct half *from, const struct pollset *ps)
{
	struct half *to = from->back;
	struct side *e = from->src;
	const struct stream *s = e->stream;
	int err;

	if (e->err != 0)
		return;
	if (s != NULL) {
		/* After both ends, a code only reports a loss: log_delivery. */
		if (stream_is_closed(s) && stream_code(s) != MUX_END &&
		    !(stream_eof_read(s) && stream_eof_sent(s)))
			e->err = mux_errno_of(stream_code(s));
		return;
	}
	/*
	 * A write to TCP failed: it was reset.  EPIPE elsewhere: only the
	 * reader is gone.
	 */
	if (to->state == HALF_BROKEN && (e->fds.tcp || to->err != EPIPE)) {
		e->err = to->err;
		return;
	}
	if (e->fds.single && from->state == HALF_OPEN && half_wants_read(from) &&
	    fdpair_readable(&e->fds, ps))
		return;
	err = fdpair_failed(&e->fds, ps);
	if (err == EPIPE && !e->fds.tcp)
		half_break(to, EPIPE);
	else
		e->err = err;
}

/*
 * The source of ${h} was reset.  Has the sink got everything that was sent
 * before, or is the limit over?  What TCP has not sent yet is not delivered.
 */
static bool
is_delivered(struct conn *c, const struct half *h, int64_t now)
{
	bool reads = h->state == HALF_OPEN && h->src->fds.in != -1;
	bool writes = h->state != HALF_BROKEN && h->buf->used > 0;
	uint64_t unsent = h->moved > 0 ? side_unsent(h->dst) : 0;
	bool few = !reads && !writes && unsent == OS_UNSENT_UNKNOWN && h->moved <= FEW;
	const struct stream *s = h->src->stream;

	if (h->dst->err != 0 || (!reads && !writes && unsent == 0))
		return true;
	if (few || c->child != NULL)
		return is_stalled(c, FEW_LINGER, now);
	return is_stalled(
	    c, s != NULL && mux_state(stream_mux(s)) == MUX_DEAD ? LOST_LINGER : LINGER, now);
}

/* Rule "reset".  Return false if no side was reset. */
static bool
end_by_reset(struct conn *c, int64_t now)
{
	struct half *h = c->a.err != 0 ? &c->ab : &c->ba;
	const struct stream *s = h->src->stream;
	int err = h->src->err;

	if (err == 0)
		return false;
	half_break(h->back, err);
	if (h->dst->stream == NULL && !h->dst->fds.tcp)
		fdpair_shut_in(&h->dst->fds);
	if (!is_delivered(c, h, now))
		return true;
	log_reset(c, h);
	if (s != NULL && !stream_is_opened(s) && stream_code(s) != MUX_RESET)
		cut(c, STATUS_CONNECT, MUX_RESET, strerror(err), now);
	else
		cut(c, STATUS_BROKEN, MUX_RESET, strerror(err), now);
	return true;
}

/* Rule "stop", for the half ${h}. */
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
		    "[%lu] %s closed before it had read everything", c->id,
		    side_name(c, h->dst, name));
	}
}

/*
 * Rule "lost".  If stdin is at its end, or its writer is gone, the rule does
 * not apply: the last bytes of stdin are delivered first.
 */
static bool
output_is_lost(const struct half *out)
{
	return out->dst->fds.stdio && out->state == HALF_BROKEN && out->lost &&
	       out->back->state == HALF_OPEN && !fdpair_input_ends(&out->dst->fds);
}

/*
 * The limit of the rule "stuck".  If all bytes of stdin were written, but the
 * peer may not have received them, the limit is that of linger.
 */
static int64_t
stuck_limit(const struct conn *c, const struct half *in)
{
	if (in->dst->stream != NULL)
		return STUCK_FAR;
	if (in->state != HALF_SHUT)
		return limit_of_progress(c, STUCK_LINGER);
	return in->moved > FEW ? limit_of_progress(c, LINGER) : STUCK_LINGER;
}

/* Rule "stuck". */
static bool
is_stuck(struct conn *c, int64_t now)
{
	struct half *in = c->a.fds.stdio ? &c->ab : &c->ba;
	bool ended = in->state == HALF_DRAIN ||
		     (in->state == HALF_SHUT && !side_is_done(in->dst)) || in->src->fds.hup;

	if (!in->src->fds.stdio || in->back->state != HALF_BROKEN || !ended)
		return false;
	half_write(in, true); /* without poll, as in flush() */
	return is_stalled(c, stuck_limit(c, in), now);
}

/* Rule "linger": ${h} drops what the peer sends, and the peer has got EOF. */
static bool
lingers(struct conn *c, const struct half *h, int64_t now)
{
	const struct fdpair *fds = &h->src->fds;
	bool longer = h->lost && h->back->moved > FEW;

	if (h->state != HALF_BROKEN || !fds->tcp || fds->in == -1 || h->back->state != HALF_SHUT)
		return false;
	return !is_stalled(c, longer ? limit_of_progress(c, LINGER) : LINGER, now);
}

static bool
is_over(struct conn *c, int64_t now)
{
	return half_finished(&c->ab) && half_finished(&c->ba) && side_is_done(&c->a) &&
	       side_is_done(&c->b) && !lingers(c, &c->ab, now) && !lingers(c, &c->ba, now);
}

/*
 * The stream has ended in both directions.  If the far side has closed it with
 * a code, some bytes were not delivered.
 */
static void
log_delivery(struct conn *c)
{
	const struct stream *s = c->b.stream;

	if (s == NULL || !stream_is_closed(s) || stream_code(s) == MUX_END)
		return;
	c->status = STATUS_BROKEN;
	if (!c->loss_logged)
		log_far_reason(c, s);
}

/*
 * Both directions have ended, and only the CLOSE of a stream is awaited.  Until
 * it comes, poll would examine the descriptors, so they are closed now.
 */
static void
close_descriptors(struct conn *c)
{
	if (c->ab.state != HALF_SHUT || c->ba.state != HALF_SHUT)
		return;
	fdpair_close(&c->a.fds, false);
	fdpair_close(&c->b.fds, false);
}

/* Apply the rules, which depend on both halves. */
static void
settle(struct conns *tab, struct conn *c, int64_t now)
{
	bool stuck;

	if (end_by_reset(c, now))
		return;
	half_end(&c->ab, c->ba.state != HALF_SHUT);
	half_end(&c->ba, c->ab.state != HALF_SHUT);
	if (end_by_reset(c, now)) /* half_end may find a side that was reset */
		return;
	stop_source(c, &c->ab);
	stop_source(c, &c->ba);
	stuck = is_stuck(c, now);
	if (!stuck && !is_over(c, now) && !output_is_lost(&c->ab) && !output_is_lost(&c->ba)) {
		close_descriptors(c);
		return;
	}
	tab->gave_up = tab->gave_up || stuck;
	log_delivery(c);
	end_conn(c, stuck, "", now);
}

static void
step_open(struct conns *tab, struct conn *c, const struct pollset *ps, bool fresh, int chunks)
{
	move(c, ps, fresh, chunks);
	check_source(&c->ab, ps);
	check_source(&c->ba, ps);
	c->may_stall = false;
	settle(tab, c, ps->now);
	if (!c->may_stall)
		c->stalled_at = 0;
}

/* ---- a turn of one connection ---- */

static bool
waits_for_time(const struct conn *c)
{
	return c->state == CONN_HANDSHAKING || c->dial != NULL || c->stalled_at != 0 ||
	       side_check_at(&c->a) != INT64_MAX || side_check_at(&c->b) != INT64_MAX ||
	       (c->state == CONN_OPEN && flushes(c));
}

/*
 * While bytes are unread, a poll of macOS does not report a hang-up that comes
 * during its wait.  The next poll does.
 */
static bool
has_unread(const struct half *h)
{
	return h->src->stream == NULL && h->state == HALF_OPEN && !half_wants_read(h);
}

/* Time until the rules of ${c} that have a limit are applied again. */
static int64_t
stall_check(const struct conn *c)
{
	if (is_down(c))
		return DOWN_CHECK;
	return c->a.err != 0 || c->b.err != 0 ? UNSENT_CHECK : STALL_CHECK;
}

/* poll would report a reset in each turn until the other side has all bytes. */
static void
want_side(struct side *e, struct pollset *ps, bool reads, bool writes)
{
	if (e->err != 0 && !reads)
		fdpair_unwatch(&e->fds);
	else
		fdpair_want(&e->fds, ps, reads, writes);
}

static void
want(const struct conns *tab, struct conn *c, struct pollset *ps)
{
	pollset_until(ps, side_check_at(&c->a));
	pollset_until(ps, side_check_at(&c->b));
	switch (c->state) {
	case CONN_HANDSHAKING:
		fdpair_want(&c->a.fds, ps, link_carries(tab), false);
		pollset_until(ps, c->began_at + HANDSHAKE_TIME);
		break;
	case CONN_CONNECTING:
		fdpair_want(&c->a.fds, ps, false, false);
		if (c->dial != NULL)
			dial_want(c->dial, ps);
		break;
	case CONN_OPEN:
		if (flushes(c))
			pollset_until(ps, c->flush_at);
		if (has_unread(&c->ab) || has_unread(&c->ba))
			pollset_until(ps, ps->now + UNREAD_CHECK);
		want_side(&c->a, ps, half_wants_read(&c->ab), half_wants_write(&c->ba));
		want_side(&c->b, ps, half_wants_read(&c->ba), half_wants_write(&c->ab));
		if (c->stalled_at != 0)
			pollset_until(ps, ps->now + stall_check(c));
		break;
	case CONN_CLOSED:
		pollset_until(ps, ps->now); /* conn_sweep frees it */
		break;
	}
}

static bool
has_event(const struct conn *c, const struct pollset *ps)
{
	return c->dirty || fdpair_has_event(&c->a.fds, ps) || fdpair_has_event(&c->b.fds, ps);
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
		step_open(tab, c, ps, before != CONN_OPEN, chunks);
	if (c->state != before)
		watch_event(&tab->watches, &c->watch, ps->now);
}

/* Step ${c} if it has an event or waits for a time.  Return: has it an event? */
static bool
serve(struct conns *tab, struct conn *c, const struct pollset *ps, int chunks)
{
	bool event = has_event(c, ps);

	if (c->state == CONN_CLOSED || (!event && !waits_for_time(c)))
		return false;
	if (event)
		watch_event(&tab->watches, &c->watch, ps->now);
	step(tab, c, ps, chunks);
	c->served = event;
	tab->served += event;
	return event;
}

/* A bulk connection that was served in this turn is the last in the next. */
static void
settle_watch(struct conns *tab, struct conn *c, const struct pollset *ps)
{
	if (c->served && c->bulk)
		watch_to_back(&tab->watches, &c->watch);
	else if (!waits_for_time(c) && !c->dirty &&
		 watch_to_idle(&tab->watches, &c->watch, ps->now)) {
		/* A later turn without a poll of it would find old events. */
		fdpair_unwatch(&c->a.fds);
		fdpair_unwatch(&c->b.fds);
	}
	c->served = false;
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

void
conn_want(struct conns *tab, struct pollset *ps)
{
	struct watch *w;

	watch_turn(&tab->watches, ps);
	if (tab->behind)
		pollset_until(ps, ps->now);
	for (w = tab->watches.active.first; w != NULL; w = w->next)
		want(tab, conn_of(w), ps);
}

/* How many chunks a bulk connection may move, if ${served} are served. */
static int
chunks_beside(size_t served)
{
	if (served <= TURN / BUF_WIDE)
		return BUF_WIDE;
	return served >= TURN ? 1 : TURN / (int)served;
}

static size_t
serve_small(struct conns *tab, const struct pollset *ps)
{
	struct watch *w;
	size_t small = 0;

	for (w = tab->watches.active.first; w != NULL; w = w->next) {
		if (conn_of(w)->bulk)
			continue;
		small++;
		serve(tab, conn_of(w), ps, 1);
	}
	return small;
}

/*
 * Serve at most ${most} bulk connections.  For the others, poll reports an
 * event again, but the mux reports a change once: it is kept in tab->behind.
 */
static void
serve_bulk(struct conns *tab, const struct pollset *ps, size_t most, int chunks)
{
	struct watch *w;
	struct conn *c;
	size_t n = 0;

	for (w = tab->watches.active.first; w != NULL; w = w->next) {
		c = conn_of(w);
		if (!c->bulk || c->served)
			continue;
		if (n < most) {
			n += serve(tab, c, ps, chunks);
		} else if (has_event(c, ps)) {
			watch_event(&tab->watches, &c->watch, ps->now);
			tab->behind = tab->behind || c->dirty;
		}
	}
}

void
conn_step(struct conns *tab, const struct pollset *ps)
{
	int chunks = chunks_beside(tab->served);

	tab->served = 0;
	tab->behind = false;
	if (serve_small(tab, ps) > 0)
		serve_bulk(tab, ps, 1 + tab->watches.active.n / BESIDE, 1);
	else
		serve_bulk(tab, ps, SIZE_MAX, chunks);
}

int
conn_sweep(struct conns *tab, const struct pollset *ps)
{
	struct watch *w, *next;
	int status = STATUS_OK;
	struct conn *c;

	for (w = tab->watches.active.first; w != NULL; w = next) {
		next = w->next;
		c = conn_of(w);
		if (c->state != CONN_CLOSED) {
			settle_watch(tab, c, ps);
			continue;
		}
		if (c->status != STATUS_OK)
			status = c->status;
		tab->there += c->ab.moved;
		tab->back += c->ba.moved;
		dial_drop_target(c->target);
		watch_remove(&tab->watches, w);
		tab->n--;
		free(c);
	}
	return status;
}

void
conn_stop(struct conns *tab, int status, int64_t now)
{
	struct watch *w;
	struct conn *c;

	watch_wake_all(&tab->watches); /* conn_sweep frees active ones only */
	for (w = tab->watches.active.first; w != NULL; w = w->next) {
		c = conn_of(w);
		if (c->state == CONN_CLOSED)
			continue;
		c->status = status;
		end_conn(c, false, "stopped", now);
	}
}

void
conn_bytes(const struct conns *tab, uint64_t *there, uint64_t *back)
{
	struct watch *w;
	const struct conn *c;

	*there = tab->there;
	*back = tab->back;
	for (w = watch_next(&tab->watches, NULL); w != NULL; w = watch_next(&tab->watches, w)) {
		c = conn_of(w);
		*there += c->ab.moved;
		*back += c->ba.moved;
	}
}

void
conn_table(const struct conns *tab, int64_t now)
{
	struct watch *w;
	const struct conn *c;
	char to[ENDPOINT_NAME];

	log_say(LOG_TABLE, "%zu open connection%s", tab->n, tab->n == 1 ? "" : "s");
	for (w = watch_next(&tab->watches, NULL); w != NULL; w = watch_next(&tab->watches, w)) {
		c = conn_of(w);
		log_say(LOG_TABLE,
		    "[%lu] %s -> %s%s: %" PRIu64 " bytes there, %" PRIu64 " back, %" PRId64
		    " s old",
		    c->id, c->from, to_name(c, to), c->state == CONN_OPEN ? "" : " (connecting)",
		    c->ab.moved, c->ba.moved, (now - c->began_at) / 1000000);
	}
}
