/*
 * simulate.c - random schedules of a link with several channels, in virtual time
 *
 *	simulate [SCHEDULES [FIRST]]
 *
 * Channels have a delay, a rate and a bounded queue.  They stall, lose all that
 * is in flight at any byte, and end on one side before the other one.  Slots are
 * added, closed, lost and continued.  Each byte and each end of each stream is
 * checked on both sides.  FIRST is the seed of the first schedule.
 */
#include <stdio.h>
#include <stdlib.h>

#include "mux/greeting.h"
#include "mux/mux.h"
#include "t/mux/pull.h"
#include "t/mux/wire.h"

#define SECOND 1000000
#define NEVER WIRE_NEVER
#ifdef __SANITIZE_ADDRESS__
#define SCHEDULES 500
#else
#define SCHEDULES 10000
#endif

static struct mux *near, *far;
static int64_t now = 1000 * (int64_t)SECOND;
static unsigned long seed;

#define CHECK(cond, ...)                                          \
	do {                                                      \
		if (!(cond)) {                                    \
			printf("seed %lu, line %d: ", seed, __LINE__); \
			printf(__VA_ARGS__);                      \
			printf("\n");                             \
			exit(1);                                  \
		}                                                 \
	} while (0)

static struct mux *
end_of(int i)
{
	return i == 0 ? near : far;
}

static struct mux_stats
stats(const struct mux *m)
{
	struct mux_stats s;

	mux_stats(m, &s);
	return s;
}

static size_t
held(struct stream *s)
{
	return stream_rx(s)->used;
}

static bool
is_reset(const struct stream *s)
{
	return stream_code(s) != MUX_END;
}

/* Nothing more can be sent on ${s}. */
static bool
sends_no_more(const struct stream *s)
{
	return stream_eof_sent(s) || stream_is_closed(s) || is_reset(s);
}

static int64_t
earliest(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* ---- streams ---- */

#define FLOWS 12

struct look {
	size_t rx, tx, room;
	uint16_t code;
	bool eof_read, eof_sent, stopped, closed;
};

struct side {
	struct stream *s;
	uint64_t plan, put, got, stop_at;
	uint64_t sent; /* DATA bytes, when it was released */
	int64_t put_at, read_at, put_gap, read_gap, close_at;
	uint32_t put_most, read_most;
	bool stuck, ended, eof, stopped, closed, released;
	bool broke;       /* reset by the other side before both EOFs */
	bool reported;    /* the CLOSE after both EOFs had a code */
	bool dirty;       /* mux_next_dirty has returned it since its last step */
	struct look seen; /* at the end of its last step */
};

struct flow {
	struct side side[2]; /* near, far */
	int64_t open_at;
	bool open, taken, refused, disturbed, stuck;
};

static struct flow flow[FLOWS];
static uint32_t flows;
static uint32_t memory[2];

static unsigned char
pattern(const struct flow *f, int from, uint64_t at)
{
	return (unsigned char)(at * 31 ^ at >> 8 ^ (uint64_t)(f - flow) * 7 ^ (uint64_t)from * 101);
}

static void
put_some(struct flow *f, int i)
{
	struct side *a = &f->side[i];
	unsigned char x[32768];
	size_t n, k;

	if (stream_is_stopped(a->s)) {
		buf_clear(stream_tx(a->s));
		a->ended = true;
	}
	if (a->ended || sends_no_more(a->s) || now < a->put_at)
		return;
	if (a->put < a->plan && stream_room(a->s) > 0) {
		n = 1 + upto(a->put_most - 1);
		if (n > a->plan - a->put)
			n = (size_t)(a->plan - a->put);
		for (k = 0; k < n; k++)
			x[k] = pattern(f, i, a->put + k);
		CHECK(buf_put(stream_tx(a->s), x, n), "no memory");
		a->put += n;
		a->put_at = now + a->put_gap;
	}
	if (a->put == a->plan) {
		a->ended = true;
		stream_shutdown(a->s);
	}
	stream_push(a->s);
}

/* ${a} has nothing more to read. */
static bool
reads_no_more(struct side *a)
{
	return a->stopped || a->eof || a->closed ||
	       (is_reset(a->s) && !stream_eof_read(a->s) && held(a->s) == 0);
}

static void
read_some(struct flow *f, int i)
{
	struct side *a = &f->side[i];
	unsigned char x[65536];
	size_t n, k;

	if (!reads_no_more(a) && a->got >= a->stop_at) {
		a->stopped = true;
		stream_stop(a->s);
	}
	if (a->stuck || reads_no_more(a) || now < a->read_at)
		return;
	n = buf_take(stream_rx(a->s), x, 1 + upto(a->read_most - 1));
	for (k = 0; k < n; k++)
		CHECK(x[k] == pattern(f, 1 - i, a->got + k), "flow %d to %d: byte %lu is wrong",
		    (int)(f - flow), i, (unsigned long)(a->got + k));
	a->got += n;
	CHECK(a->got <= f->side[1 - i].put, "flow %d: bytes that were not put", (int)(f - flow));
	if (n > 0) {
		stream_consumed(a->s, n);
		a->read_at = now + a->read_gap;
	}
	a->eof = stream_eof_read(a->s) && held(a->s) == 0;
}

static struct look
look_at(struct stream *s)
{
	struct look x = { held(s), stream_tx(s)->used, stream_room(s), stream_code(s), stream_eof_read(s),
		stream_eof_sent(s), stream_is_stopped(s), stream_is_closed(s) };

	return x;
}

static void
take_dirty(void)
{
	struct stream *s;
	int i;

	for (i = 0; i < 2; i++)
		while ((s = mux_next_dirty(end_of(i))) != NULL) {
			CHECK(stream_owner(s) != NULL &&
				  ((struct flow *)stream_owner(s))->side[i].s == s,
			    "a dirty stream has no owner");
			((struct flow *)stream_owner(s))->side[i].dirty = true;
		}
}

/* An owner that looks only at dirty streams must not miss a change. */
static void
check_dirty(const struct flow *f, const struct side *a)
{
	struct look x = look_at(a->s), y = a->seen;

	CHECK(a->dirty || (x.rx == y.rx && x.tx == y.tx && x.room == y.room && x.code == y.code &&
			      x.eof_read == y.eof_read && x.eof_sent == y.eof_sent &&
			      x.stopped == y.stopped && x.closed == y.closed),
	    "flow %d: the mux has changed it without making it dirty", (int)(f - flow));
}

/* Record the end of ${a} that its mux has read. */
static void
check_reset(struct flow *f, struct side *a)
{
	if (!is_reset(a->s) || a->closed || a->broke || a->reported)
		return;
	CHECK(stream_is_closed(a->s), "flow %d: a code without a CLOSE", (int)(f - flow));
	if (stream_eof_read(a->s) && stream_eof_sent(a->s)) {
		a->reported = true;
		return;
	}
	a->broke = true;
	if (stream_code(a->s) == MUX_NO_ROOM)
		f->refused = true;
}

static void
act(struct flow *f, int i)
{
	struct side *a = &f->side[i];

	if (a->s == NULL || a->released)
		return;
	check_dirty(f, a);
	if (now >= a->close_at && !a->closed) {
		a->closed = true;
		stream_reset(a->s, (uint16_t)(1 + upto(10)), "enough");
	}
	put_some(f, i);
	read_some(f, i);
	check_reset(f, a);
	if (a->closed || (reads_no_more(a) && sends_no_more(a->s))) {
		a->released = true;
		a->sent = stream_sent(a->s);
		stream_release(a->s);
		a->s = NULL;
		return;
	}
	a->seen = look_at(a->s);
	a->dirty = false;
}

static void
open_and_take(void)
{
	char name[16];
	struct stream *s;
	uint32_t i;

	for (i = 0; i < flows; i++) {
		if (flow[i].open || now < flow[i].open_at)
			continue;
		snprintf(name, sizeof(name), "/%u", (unsigned)i);
		flow[i].side[0].s = mux_open(near, name);
		flow[i].open = flow[i].side[0].s != NULL;
		if (flow[i].open)
			stream_set_owner(flow[i].side[0].s, &flow[i]);
		flow[i].side[0].dirty = true;
	}
	while ((s = mux_accept(far)) != NULL) {
		i = (uint32_t)atoi(stream_target(s) + 1);
		CHECK(stream_target(s)[0] == '/' && i < flows && !flow[i].taken,
		    "a target that was not sent: %s", stream_target(s));
		flow[i].taken = true;
		stream_set_owner(s, &flow[i]);
		flow[i].side[1].s = s;
		flow[i].side[1].dirty = true;
		if (!one_in(3)) /* OPENED may be sent late, or never where the other side closed */
			stream_accept(s);
	}
}

static bool
all_done(bool with_stuck)
{
	uint32_t i;

	for (i = 0; i < flows; i++)
		if ((with_stuck || !flow[i].stuck) &&
		    (!flow[i].side[0].released || (flow[i].taken && !flow[i].side[1].released)))
			return false;
	return true;
}

static void
draw_side(struct side *a, bool stuck)
{
	static const uint32_t sizes[] = { 0, 1, 100, 1000, 3000, 10000, 30000, 100000 };
	static const uint32_t mosts[] = { 1, 100, 4000, 32768, 32768 };

	memset(a, 0, sizeof(*a));
	a->plan = upto(sizes[upto(7)]);
	a->put_most = mosts[1 + upto(3)];
	a->read_most = mosts[upto(4)];
	a->put_gap = one_in(3) ? upto(20000) : 0;
	a->read_gap = one_in(3) ? upto(20000) : 0;
	a->close_at = WIRE_NEVER;
	a->stop_at = one_in(12) ? upto(20000) : UINT64_MAX;
	a->stuck = stuck;
	if (one_in(12))
		a->close_at = now + upto(SECOND);
}

/* Check a flow that has ended. */
static void
check_flow(const struct flow *f)
{
	const struct side *a, *b;
	int i, n = (int)(f - flow);

	for (i = 0; i < 2; i++) {
		a = &f->side[i];
		b = &f->side[1 - i];
		CHECK(!a->broke || !b->closed || !f->taken || a->closed || a->stopped || a->stuck ||
			  a->got == b->sent,
		    "flow %d, side %d: %lu of %lu bytes that were sent before a reset", n, i,
		    (unsigned long)a->got, (unsigned long)b->sent);
		if (f->disturbed || f->refused || f->stuck) {
			CHECK(f->disturbed || f->stuck || !a->broke || f->refused,
			    "flow %d: a reset without a cause", n);
			continue;
		}
		CHECK(!a->broke, "flow %d, side %d: a reset without a cause", n, i);
		CHECK(!a->reported || b->stopped, "flow %d, side %d: a loss without a cause", n, i);
		if (a->stopped) {
			CHECK(b->put <= b->plan, "flow %d", n);
			continue;
		}
		CHECK(a->eof, "flow %d, side %d: the end was not reached", n, i);
		CHECK(a->got == b->plan, "flow %d, side %d: %lu of %lu bytes", n, i,
		    (unsigned long)a->got, (unsigned long)b->plan);
	}
}

static void
release_all(void)
{
	uint32_t k;
	int i;

	for (k = 0; k < flows; k++)
		for (i = 0; i < 2; i++)
			if (flow[k].side[i].s != NULL) {
				stream_release(flow[k].side[i].s);
				flow[k].side[i].s = NULL;
			}
}

/* ---- channels ---- */

#define CHANNELS 24
#define GREETING 1024
#define LOGIN_MOST (20 * (int64_t)SECOND) /* a channel that has not started is given up */

/* Where ${dir} is 0 for bytes of the near side and 1 for those of the far side. */
struct channel {
	bool used;
	bool open[2]; /* the near and the far end */
	bool claims;  /* the far end still reads the greeting */
	bool cut;
	unsigned slot;
	int64_t since, cut_at;
	int64_t notice_at[2];   /* when an end finds that the channel has ended */
	int64_t stalls_until[2];
	size_t swallowed[2];
	struct wire line[2];
	struct greeting greeting;
	unsigned char bytes[GREETING]; /* of the greeting */
	size_t have;
};

static struct channel channel[CHANNELS];
static bool session, calm; /* calm: the last losses are over */
static int64_t attach_at, add_at, close_at, lose_at;
static unsigned long losses, adds, closes, refusals, joins, steps_all;
static int wanted;
static uint32_t grain; /* the caller of the muxes looks at them late by this, at most */

static const unsigned char session_id[MUX_SESSION] = "0123456789abcde";
static struct session accepted[16]; /* claims that were accepted once */
static unsigned accepts;

static void
free_channel(struct channel *c)
{
	wire_free(&c->line[0]);
	wire_free(&c->line[1]);
	greeting_free(&c->greeting);
	c->used = false;
}

static void
draw_line(struct wire *w)
{
	static const double rates[] = { 0, 0.05, 0.625, 6.25, 62.5 };

	w->rate = rates[one_in(8) ? upto(4) : 2 + upto(2)];
	w->delay = one_in(4) ? 0 : upto(50000);
	w->room = MUX_PULL + upto(one_in(2) ? 8192 : 2000000);
}

static struct channel *
connect_channel(unsigned slot)
{
	struct channel *c = channel;

	while (c < channel + CHANNELS && c->used)
		c++;
	CHECK(c < channel + CHANNELS, "too many channels");
	memset(c, 0, sizeof(*c));
	c->used = c->open[0] = c->open[1] = true;
	c->claims = accepts > 0 || slot > 0 || mux_state(far) != MUX_STARTING;
	c->slot = slot;
	c->since = now;
	c->notice_at[0] = c->notice_at[1] = c->cut_at = NEVER;
	draw_line(&c->line[0]);
	draw_line(&c->line[1]);
	greeting_start(&c->greeting, true);
	return c;
}

/* The end ${i} closes: the other one finds that later, or never. */
static void
close_end(struct channel *c, int i)
{
	if (!c->open[i])
		return;
	c->open[i] = false;
	if (c->open[1 - i] && c->notice_at[1 - i] == NEVER && !c->cut)
		c->notice_at[1 - i] = now + c->line[i].delay + upto(one_in(2) ? 0 : SECOND);
}

static bool
is_free(int i, unsigned slot)
{
	enum mux_slot_state state = mux_slot_state(end_of(i), slot);

	return state == MUX_SLOT_FREE || state == MUX_SLOT_DOWN;
}

static void feed_end(struct channel *c, int i, const unsigned char *p, size_t n);

/* The far process has read the greeting: the session takes the channel or not. */
static void
claim(struct channel *c)
{
	const struct session *s = &c->greeting.session;
	struct channel *o;
	int slot = c->greeting.state == GREETING_DONE ? mux_claimed_slot(far, s) : -1;

	if (slot == -1) {
		refusals++;
		close_end(c, 1);
		return;
	}
	CHECK((unsigned)slot == c->slot, "a claim of another slot");
	for (o = channel; o < channel + CHANNELS; o++)
		if (o != c && o->used && o->open[1] && !o->claims && o->slot == c->slot) {
			if (one_in(2)) /* otherwise, the far side has not found the loss */
				mux_lost(far, o->slot, MUX_RESET, "replaced");
			close_end(o, 1);
		}
	CHECK(mux_accept_slot(far, s, false, now) == slot, "a claim was refused");
	c->claims = false;
	joins++;
	accepted[accepts++ % 16] = *s;
	feed_end(c, 1, c->bytes, c->have);
}

static void
feed_end(struct channel *c, int i, const unsigned char *p, size_t n)
{
	size_t used;

	if (!c->open[i])
		return;
	if (i == 1 && c->claims) {
		used = greeting_feed(&c->greeting, p, n);
		CHECK(c->have + used <= sizeof(c->bytes), "a long greeting");
		memcpy(c->bytes + c->have, p, used);
		c->have += used;
		if (c->greeting.state == GREETING_DONE || c->greeting.state == GREETING_FAILED)
			claim(c);
		if (!c->claims)
			feed_end(c, i, p + used, n - used);
		return;
	}
	mux_feed(end_of(i), c->slot, p, n, now);
	if (is_free(i, c->slot))
		close_end(c, i);
}

/* Deliver what has arrived of the bytes of the end ${i}; at most ${most}. */
static void
deliver(struct channel *c, int i, size_t most)
{
	const unsigned char *p;
	size_t n;
	int turns;

	for (turns = 0; turns < 64 && most > 0 && (n = wire_take(&c->line[i], &p, now)) > 0;
	     turns++) {
		if (one_in(8))
			n = 1 + upto((uint32_t)n - 1);
		n = n < most ? n : most;
		most -= n;
		feed_end(c, 1 - i, p, n);
		wire_drop(&c->line[i], n, now);
	}
}

/* All that is in flight is lost, from any byte on, each way alone. */
static void
cut_channel(struct channel *c)
{
	struct packet *k;
	size_t n;
	int i;

	losses++;
	for (i = 0; i < 2; i++) {
		for (k = c->line[i].packet + c->line[i].first;
		     k < c->line[i].packet + c->line[i].last; k++)
			k->at = now;
		n = c->line[i].to - c->line[i].from;
		if (n > 0 && one_in(2))
			deliver(c, i, upto((uint32_t)n));
	}
	c->cut = true;
	for (i = 0; i < 2; i++)
		c->notice_at[i] = one_in(4) ? NEVER : now + upto(one_in(2) ? 0 : 2 * SECOND);
}

static void
send_out(struct channel *c, int i)
{
	static unsigned char x[65536];
	size_t n, room;

	if (!c->open[i] || (i == 1 && c->claims))
		return;
	while (mux_has_output(end_of(i), c->slot)) {
		room = c->cut ? c->line[i].room - c->swallowed[i] : wire_room(&c->line[i], now);
		if (room < MUX_PULL)
			break;
		room = MUX_PULL + upto((uint32_t)(room < sizeof(x) ? room : sizeof(x)) - MUX_PULL);
		n = pull_slot(end_of(i), c->slot, x, room, now);
		CHECK(n <= room, "%lu bytes in a room of %lu", (unsigned long)n,
		    (unsigned long)room);
		if (n == 0)
			break;
		if (c->cut || !c->open[1 - i])
			c->swallowed[i] += n;
		else
			wire_put(&c->line[i], x, n, now);
	}
}

static void
step_channel(struct channel *c)
{
	int i;

	if (now >= c->cut_at && !c->cut) {
		c->cut_at = NEVER;
		cut_channel(c);
	}
	for (i = 0; i < 2; i++) {
		if (!c->cut && now >= c->stalls_until[i])
			deliver(c, i, SIZE_MAX);
		if (one_in(200))
			c->line[i].delay = upto(50000);
		if (!calm && session && one_in(2000))
			c->stalls_until[i] = now + upto(one_in(2) ? SECOND : 8 * SECOND);
	}
	for (i = 0; i < 2; i++)
		if (now >= c->notice_at[i] && c->open[i]) {
			c->notice_at[i] = NEVER;
			if (i == 0 || !c->claims)
				mux_lost(end_of(i), c->slot, MUX_RESET, "cut");
			close_end(c, i);
		}
	if (c->open[0] && now - c->since >= LOGIN_MOST &&
	    (mux_slot_state(near, c->slot) == MUX_SLOT_STARTING ||
		mux_slot_state(near, c->slot) == MUX_SLOT_GREETING)) {
		mux_lost(near, c->slot, MUX_TIMEOUT, "no answer");
		close_end(c, 0);
	}
	if (c->open[0] && is_free(0, c->slot))
		close_end(c, 0);
	if (c->open[1] && !c->claims && is_free(1, c->slot))
		close_end(c, 1);
	if (c->cut && c->claims)
		c->open[1] = false;
	if (!c->open[0] && !c->open[1])
		free_channel(c);
}

/* ---- the session ---- */

static int
ups(int i)
{
	unsigned k;
	int n = 0;

	for (k = 0; k < MUX_SLOTS; k++)
		n += mux_slot_state(end_of(i), k) == MUX_SLOT_UP;
	return n;
}

static struct channel *
random_channel(void)
{
	struct channel *c;
	int n = 0, k;

	for (c = channel; c < channel + CHANNELS; c++)
		n += c->used && !c->cut && c->open[0];
	if (n == 0)
		return NULL;
	k = (int)upto((uint32_t)n - 1);
	for (c = channel;; c++)
		if (c->used && !c->cut && c->open[0] && k-- == 0)
			return c;
}

static void
add_slot(void)
{
	struct channel *c;
	int slot;

	add_at = now + upto(one_in(2) ? 50000 : SECOND);
	if (mux_state(near) != MUX_UP || ups(0) >= wanted)
		return;
	for (c = channel; c < channel + CHANNELS; c++)
		if (c->used && c->open[0] && is_free(0, c->slot))
			close_end(c, 0);
	slot = mux_add_slot(near, now);
	if (slot == -1)
		return;
	adds++;
	connect_channel((unsigned)slot);
}

static void
step_session(void)
{
	struct channel *c;
	int slot;

	if (!session)
		return;
	if (now >= lose_at && mux_keeps(near) != 0 && mux_keeps(far) != 0) {
		c = random_channel();
		if (c != NULL)
			cut_channel(c);
		lose_at = now + upto(one_in(3) ? 3 * SECOND : 100000);
	} else if (now >= lose_at) {
		lose_at = now + 50000;
	}
	if (now >= attach_at && mux_state(near) == MUX_DOWN) {
		attach_at = NEVER;
		slot = mux_down_slot(near);
		CHECK(slot >= 0, "no slot can be continued");
		mux_attach(near, (unsigned)slot, false, now);
		connect_channel((unsigned)slot);
	}
	if (now >= add_at)
		add_slot();
	if (now >= close_at) {
		close_at = now + upto(2 * SECOND);
		if (mux_keeps(near) != 0 && mux_slots(near) > 1) {
			closes++;
			mux_close_slot(near, upto(MUX_SLOTS - 1));
		}
	}
	if (accepts > 0 && one_in(50))
		CHECK(mux_claimed_slot(far, &accepted[upto(accepts < 16 ? accepts - 1 : 15)]) == -1,
		    "an old claim is accepted");
}

static void
be_calm(void)
{
	calm = true;
	lose_at = close_at = NEVER;
}

/* ---- one schedule ---- */

static void
draw(void)
{
	static const uint32_t memories[] = { 65536, 300000, 1 << 20, 4 << 20, MUX_MEMORY };
	struct flow *f;
	uint32_t i, most, least; /* few steps, each of which may be late */
	int k;

	dice_state = seed * 1000003;
	flows = one_in(6) ? 1 + upto(FLOWS - 1) : 1 + upto(4);
	memory[1] = memories[upto(4)];
	memory[0] = memories[upto(4)];
	near = mux_new(MUX_NEAR, memory[0], "laptop", now);
	far = mux_new(MUX_FAR, memory[1], "node", now);
	most = 1 + upto(7);
	mux_limit_streams(far, most);
	mux_limit_streams(near, 16);
	accepts = 0;
	session = !one_in(8);
	calm = false;
	grain = one_in(4) ? 0 : 3000;
	if (session) {
		mux_keep(near, 0, NULL);
		mux_keep(far, 3600, session_id);
	}
	wanted = session ? 1 + (int)upto(one_in(3) ? 7 : 3) : 1;
	attach_at = lose_at = close_at = NEVER;
	add_at = wanted > 1 ? now + upto(200000) : NEVER;
	if (session && !one_in(4))
		lose_at = now + upto(SECOND);
	if (session && one_in(2))
		close_at = now + upto(SECOND);
	for (i = 0; i < flows; i++) {
		f = &flow[i];
		memset(f, 0, sizeof(*f));
		f->open_at = now + (one_in(2) ? upto(SECOND) : 0);
		f->stuck = i == 0 && most > 1 && one_in(3);
		draw_side(&f->side[0], false);
		draw_side(&f->side[1], f->stuck);
		for (k = 0; k < 2; k++) {
			least = (uint32_t)f->side[1 - k].plan / 30;
			if (f->side[k].read_most < least)
				f->side[k].read_most = least;
			if (f->side[1 - k].put_most < least)
				f->side[1 - k].put_most = least;
			if (f->side[k].stuck)
				f->side[k].stop_at = UINT64_MAX;
			if (f->side[k].close_at != NEVER)
				f->disturbed = true;
		}
	}
	connect_channel(0)->claims = false;
}

static void
check_now(void)
{
	uint64_t sum;
	uint32_t k;
	int i;

	for (i = 0; i < 2; i++) {
		CHECK(
		    mux_state(end_of(i)) != MUX_DEAD, "mux %d is dead: %s", i, mux_why(end_of(i)));
		for (sum = 0, k = 0; k < flows; k++)
			sum += flow[k].side[i].s != NULL ? held(flow[k].side[i].s) : 0;
		CHECK(stats(end_of(i)).reserved >= sum, "mux %d reserves less than it holds", i);
		CHECK(stats(end_of(i)).reserved <= memory[i], "mux %d: reserved %lu of %lu", i,
		    (unsigned long)stats(end_of(i)).reserved, (unsigned long)memory[i]);
	}
}

static int64_t
next_of_flow(const struct flow *f)
{
	const struct side *a;
	int64_t next = NEVER;
	int i;

	if (!f->open)
		return f->open_at > now ? f->open_at : NEVER;
	for (i = 0; i < 2; i++) {
		a = &f->side[i];
		if (a->s == NULL)
			continue;
		if (!a->closed)
			next = earliest(next, a->close_at);
		if (!a->ended && (a->put == a->plan || stream_room(a->s) > 0) &&
		    !sends_no_more(a->s))
			next = earliest(next, a->put_at);
		if (!a->stuck && !a->stopped && held(a->s) > 0)
			next = earliest(next, a->read_at);
	}
	return next;
}

static int64_t
next_of_channel(struct channel *c)
{
	int64_t next = earliest(c->cut ? NEVER : c->cut_at, NEVER), at;
	int i;

	for (i = 0; i < 2; i++) {
		if (c->open[i])
			next = earliest(next, c->notice_at[i]);
		at = c->cut ? NEVER : wire_next(&c->line[i]);
		if (at != NEVER && at < c->stalls_until[i])
			at = c->stalls_until[i];
		next = earliest(next, at);
		if (c->open[i] && !c->cut && !(i == 1 && c->claims) &&
		    mux_has_output(end_of(i), c->slot))
			next = earliest(next, wire_room_at(&c->line[i], MUX_PULL, now));
	}
	if (c->open[0] && (mux_slot_state(near, c->slot) == MUX_SLOT_STARTING ||
			      mux_slot_state(near, c->slot) == MUX_SLOT_GREETING))
		next = earliest(next, c->since + LOGIN_MOST);
	return next;
}

static int64_t
next_event(void)
{
	int64_t next = earliest(earliest(attach_at, add_at), earliest(lose_at, close_at));
	uint32_t k;
	int i;

	for (i = 0; i < 2; i++)
		if (mux_deadline(end_of(i)) > now)
			next = earliest(next, mux_deadline(end_of(i)));
	for (i = 0; i < CHANNELS; i++)
		if (channel[i].used)
			next = earliest(next, next_of_channel(&channel[i]));
	for (k = 0; k < flows; k++)
		next = earliest(next, next_of_flow(&flow[k]));
	return next;
}

static const char *
describe(void)
{
	static char text[8192];
	size_t n = 0;
	uint32_t k;
	int i;

	for (i = 0; i < 2; i++) {
		n += (size_t)snprintf(text + n, sizeof(text) - n,
		    "\n mux %d: state %d, %u streams, deadline %+ld, slots", i,
		    (int)mux_state(end_of(i)), stats(end_of(i)).streams,
		    (long)(mux_deadline(end_of(i)) - now));
		for (k = 0; k < MUX_SLOTS; k++)
			n += (size_t)snprintf(text + n, sizeof(text) - n, " %d%s",
			    (int)mux_slot_state(end_of(i), k),
			    mux_has_output(end_of(i), k) ? "+" : "");
	}
	for (i = 0; i < CHANNELS; i++)
		if (channel[i].used)
			n += (size_t)snprintf(text + n, sizeof(text) - n,
			    "\n channel of %u: open %d %d claims %d cut %d, wires %+ld %+ld",
			    channel[i].slot, channel[i].open[0], channel[i].open[1],
			    channel[i].claims, channel[i].cut,
			    (long)(wire_next(&channel[i].line[0]) - now),
			    (long)(wire_next(&channel[i].line[1]) - now));
	for (k = 0; k < flows && n < 7000; k++)
		for (i = 0; i < 2; i++)
			if (!flow[k].side[i].released)
				n += (size_t)snprintf(text + n, sizeof(text) - n,
				    "\n flow %u.%d put %lu of %lu got %lu stuck %d", (unsigned)k, i,
				    (unsigned long)flow[k].side[i].put,
				    (unsigned long)flow[k].side[i].plan,
				    (unsigned long)flow[k].side[i].got, flow[k].side[i].stuck);
	return text;
}

/* A slot that drains goes on while no other one is up.  DOWN: it will change. */
static enum mux_slot_state
slot_at_rest(int i, unsigned slot)
{
	enum mux_slot_state state = mux_slot_state(end_of(i), slot);

	if (state == MUX_SLOT_CLOSING && ups(i) == 0)
		return MUX_SLOT_UP;
	return state == MUX_SLOT_FREE || state == MUX_SLOT_UP ? state : MUX_SLOT_DOWN;
}

/* Do both sides agree about all slots, and has no channel anything to say? */
static bool
is_quiet(void)
{
	unsigned k;
	int i;

	if (stats(near).streams + stats(far).streams > 0)
		return false;
	for (k = 0; k < MUX_SLOTS; k++)
		if (slot_at_rest(0, k) != slot_at_rest(1, k) ||
		    slot_at_rest(0, k) == MUX_SLOT_DOWN)
			return false;
	for (i = 0; i < CHANNELS; i++)
		if (channel[i].used && next_of_channel(&channel[i]) != NEVER)
			return false;
	return true;
}

static void
unstick(void)
{
	uint32_t k;
	int i;

	for (k = 0; k < flows; k++)
		for (i = 0; i < 2; i++)
			if (flow[k].stuck)
				flow[k].side[i].close_at = now;
}

static void
step(void)
{
	uint32_t k;
	int i;

	for (i = 0; i < 2; i++)
		mux_tick(end_of(i), now);
	step_session();
	for (i = 0; i < CHANNELS; i++)
		if (channel[i].used)
			step_channel(&channel[i]);
	open_and_take();
	take_dirty();
	for (k = 0; k < flows; k++) {
		act(&flow[k], 0);
		act(&flow[k], 1);
	}
	check_now();
	for (i = 0; i < CHANNELS; i++)
		if (channel[i].used) {
			send_out(&channel[i], 0);
			send_out(&channel[i], 1);
		}
	check_now();
	if (mux_state(near) == MUX_DOWN && attach_at == NEVER)
		attach_at = now + upto(one_in(2) ? 0 : SECOND);
}

static void
finish(void)
{
	uint32_t k;
	int i;

	for (k = 0; k < flows; k++)
		check_flow(&flow[k]);
	for (i = 0; i < 2; i++)
		CHECK(stats(end_of(i)).reserved == 0, "mux %d: %lu bytes stay reserved", i,
		    (unsigned long)stats(end_of(i)).reserved);
}

static void
leave(void)
{
	struct stream *t;
	uint32_t k;
	int i;

	for (i = 0; i < 2; i++) {
		if (one_in(2))
			mux_bye(end_of(i), MUX_RESET, "cut");
		else
			mux_end(end_of(i), MUX_RESET, "cut");
		take_dirty();
		for (k = 0; k < flows; k++) {
			t = flow[k].side[i].s;
			CHECK(t == NULL || (stream_is_closed(t) && sends_no_more(t)),
			    "a stream outlives its link");
			if (t != NULL)
				check_dirty(&flow[k], &flow[k].side[i]);
		}
	}
	release_all();
	for (i = 0; i < 2; i++) {
		while (mux_accept(end_of(i)) != NULL)
			;
		CHECK(stats(end_of(i)).reserved == 0, "mux %d: %lu bytes stay reserved at the end",
		    i, (unsigned long)stats(end_of(i)).reserved);
		mux_free(end_of(i));
	}
	for (i = 0; i < CHANNELS; i++)
		if (channel[i].used)
			free_channel(&channel[i]);
}

static void
schedule(void)
{
	int64_t until, calm_at, cut_at, next;
	unsigned long steps = 0;
	bool unstuck = false;

	draw();
	calm_at = now + upto(one_in(32) ? 60 * SECOND : 3 * SECOND);
	cut_at = one_in(8) ? now + upto(4 * SECOND) : NEVER;
	until = now + 7200 * (int64_t)SECOND;
	while (!all_done(true) || !is_quiet()) {
		next = next_event();
		CHECK(next != NEVER && now < until && ++steps < 1000000, "it stalls after %lu steps: %s",
		    steps, describe());
		if (next > now)
			now = next + upto(grain);
		if (now >= cut_at) {
			leave();
			return;
		}
		if (now >= calm_at)
			be_calm();
		if (calm && all_done(true))
			add_at = NEVER;
		step();
		if (!unstuck && all_done(false)) {
			unstuck = true;
			unstick();
		}
	}
	steps_all += steps;
	finish();
	leave();
}

int
main(int argc, char **argv)
{
	unsigned long many = argc > 1 ? strtoul(argv[1], NULL, 10) : SCHEDULES;
	unsigned long first = argc > 2 ? strtoul(argv[2], NULL, 10) : 1;

	for (seed = first; seed < first + many; seed++)
		schedule();
	buf_trim();
	printf("simulate: %lu schedules, %lu steps: %lu channels lost, %lu slots added, %lu closed, "
	       "%lu claims accepted, %lu refused\n",
	    many, steps_all, losses, adds, closes, joins, refusals);
	return 0;
}
