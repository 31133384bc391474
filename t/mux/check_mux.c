/* check_link.c - two links back to back, over a wire in memory and a clock of its own; needs link.o pace.o frame.o half.o buf.o end.o */
#include "check.h"
#include "wire.h"

#define SECOND 1000000
#define MAGIC "\0\362reLAylink\r\n\n\376"

static struct link near, far;
static int64_t now = 1000 * (int64_t)SECOND;
static int user_; /* somebody who has a stream */
#define USER ((void *)&user_)

/* ---- by hand: frames as bytes ---- */

static unsigned char wire[1 << 20];
static size_t wired;

static void
put(const void *p, size_t n)
{
	ck_assert_uint_le(wired + n, sizeof(wire));
	memcpy(wire + wired, p, n);
	wired += n;
}

static void
put_frame(unsigned type, uint32_t stream, const void *body, size_t n)
{
	struct frame f = { .type = type, .length = (uint32_t)n, .stream = stream };
	unsigned char head[FRAME_HEAD];

	frame_encode(head, &f);
	put(head, sizeof(head));
	put(body, n);
}

static void
put_hello(unsigned version, unsigned role, uint32_t memory, uint32_t streams)
{
	struct hello h = { .version = (uint8_t)version, .role = (uint8_t)role, .memory = memory, .streams = streams, .host = "peer" };
	unsigned char body[FRAME_HELLO_FIXED + 255];

	put_frame(FRAME_HELLO, 0, body, frame_encode_hello(body, &h));
}

static void
put_number(unsigned type, uint32_t stream, uint64_t n, int bytes)
{
	unsigned char body[16] = { 0 };

	frame_put(body, n, bytes);
	put_frame(type, stream, body, (size_t)bytes);
}

static void
put_ack(uint64_t count, uint32_t delay)
{
	unsigned char body[12];

	frame_put(body, count, 8);
	frame_put(body + 8, delay, 4);
	put_frame(FRAME_ACK, 0, body, 12);
}

static void
put_open(uint32_t id, uint32_t send, uint32_t recv, const char *target)
{
	unsigned char body[8 + 8192];

	frame_put(body, send, 4);
	frame_put(body + 4, recv, 4);
	memcpy(body + 8, target, strlen(target));
	put_frame(FRAME_OPEN, id, body, 8 + strlen(target));
}

static void
put_close(uint32_t id, uint16_t code)
{
	put_number(FRAME_CLOSE, id, code, 2);
}

static void
put_data(uint32_t id, size_t n)
{
	static const unsigned char zeros[FRAME_DATA_MAX + 1];

	put_frame(FRAME_DATA, id, zeros, n);
}

static void
feed(struct link *l)
{
	link_feed(l, wire, wired, now);
	wired = 0;
}

/* All that ${l} sends now; the first frame of ${type} in it, or NULL. */
static unsigned char sent[4 << 20];
static size_t sent_n;

static size_t
pull(struct link *l)
{
	size_t n;

	sent_n = 0;
	while (sent_n + 65536 <= sizeof(sent) && (n = link_pull(l, sent + sent_n, LINK_PULL, now)) > 0) {
		ck_assert_uint_le(n, LINK_PULL);
		sent_n += n;
	}
	return sent_n;
}

static const unsigned char *
find_frame(unsigned type, uint32_t stream)
{
	struct frame f;
	size_t at = sent_n >= FRAME_MAGIC && memcmp(sent, frame_magic, FRAME_MAGIC) == 0 ? FRAME_MAGIC : 0;

	for (; at + FRAME_HEAD <= sent_n; at += FRAME_HEAD + f.length) {
		ck_assert_ptr_null(frame_decode(&f, sent + at));
		if (f.type == type && f.stream == stream)
			return sent + at;
	}
	ck_assert_uint_eq(at, sent_n);
	return NULL;
}

static void
greet(struct link *l, enum link_role role)
{
	link_init(l, role, LINK_MEMORY, "here", now);
	put(frame_magic, FRAME_MAGIC);
	put_hello(1, role == LINK_NEAR, LINK_MEMORY, LINK_STREAMS);
	feed(l);
	ck_assert_int_eq(l->state, LINK_UP);
	pull(l);
	ck_assert_ptr_nonnull(find_frame(FRAME_HELLO, 0));
}

static void
broken(struct link *l)
{
	const unsigned char *bye;

	ck_assert_msg(l->state == LINK_DEAD, "the link goes on");
	ck_assert_uint_eq(l->code, LINK_PROTOCOL);
	ck_assert(!l->by_peer);
	ck_assert_uint_gt(strlen(l->why), 10);
	ck_assert(link_has_output(l));
	pull(l);
	bye = find_frame(FRAME_BYE, 0);
	ck_assert_ptr_nonnull(bye);
	ck_assert_uint_eq(frame_get(bye + 8, 2), 12);
	ck_assert(!link_has_output(l));
	ck_assert_uint_eq(pull(l), 0);
	link_free(l);
}

static void
breaks(struct link *l)
{
	feed(l);
	broken(l);
}

static void
lives(struct link *l)
{
	feed(l);
	ck_assert_msg(l->state == LINK_UP, "the link is dead: %s", l->why);
}

/* promised, as its contract says; a stream that is no longer in the table may still hold bytes: ${extra}. */
static uint64_t
promises(const struct link *l, uint64_t extra)
{
	uint64_t sum = extra;
	uint32_t i;

	for (i = 0; i < l->size; i++)
		if (l->table[i] != NULL)
			sum += l->table[i]->recv_window + l->table[i]->in.buf.used;
	return sum + (l->data != NULL && l->frame.type == FRAME_DATA ? l->left : 0);
}

static uint64_t
consumed(const struct link *l) /* and not given back yet: promised, or not, as link.c likes */
{
	uint64_t sum = 0;
	uint32_t i;

	for (i = 0; i < l->size; i++)
		if (l->table[i] != NULL)
			sum += l->table[i]->consumed;
	return sum;
}

static void
keeps_promises(const struct link *l)
{
	ck_assert(l->promised == promises(l, 0) || l->promised == promises(l, consumed(l)));
	ck_assert_uint_le(l->promised, l->ours.memory);
}

/* ---- by hand: two links ---- */

static void
cross(void) /* whatever they want to say, at once */
{
	size_t n;

	do {
		n = pull(&near);
		link_feed(&far, sent, sent_n, now);
		n += pull(&far);
		link_feed(&near, sent, sent_n, now);
	} while (n > 0);
}

static void
both(uint32_t memory)
{
	link_init(&near, LINK_NEAR, memory, "laptop", now);
	link_init(&far, LINK_FAR, memory, "node", now);
	cross();
	ck_assert_int_eq(near.state, LINK_UP);
	ck_assert_int_eq(far.state, LINK_UP);
	ck_assert_str_eq(near.theirs.host, "node");
	ck_assert_str_eq(far.theirs.host, "laptop");
}

static struct stream *
open_both(struct stream **there)
{
	struct stream *s = link_open(&near, "/a.soc", USER);

	ck_assert_ptr_nonnull(s);
	cross();
	*there = link_next(&far);
	ck_assert_ptr_nonnull(*there);
	ck_assert_str_eq((*there)->words, "/a.soc");
	(*there)->user = USER;
	link_opened(&far, *there);
	cross();
	ck_assert(s->opened);
	return s;
}

static void
say(struct link *l, struct stream *s, size_t n)
{
	static unsigned char zeros[65536];
	size_t k;

	for (; n > 0; n -= k) {
		k = n < sizeof(zeros) ? n : sizeof(zeros);
		ck_assert(buf_put(&s->out.buf, zeros, k));
	}
	link_ready(l, s);
}

static void
hear(struct link *l, struct stream *s, size_t n)
{
	unsigned char x[4096];
	size_t k;

	for (; n > 0; n -= k) {
		k = buf_take(&s->in.buf, x, n < sizeof(x) ? n : sizeof(x));
		ck_assert_uint_gt(k, 0);
		link_consumed(l, s, k);
	}
}

static void
finish(struct link *l, struct stream *s) { s->out.state = HALF_DRAIN; link_ready(l, s); }

static void
over(void)
{
	keeps_promises(&near);
	keeps_promises(&far);
	link_free(&near);
	link_free(&far);
	buf_trim();
}

/* ---- random schedules ---- */

#define FLOWS 24

struct side {
	struct stream *s;
	uint64_t plan, put, got, stop_at;
	int64_t put_at, read_at, put_gap, read_gap, close_at;
	uint32_t put_most, read_most;
	int code;
	bool stuck, ended, eof, stopped, closed, released, broke;
	bool touched; /* link_touched has told of it since its last step */
	struct look {
		size_t in, out;
		enum half_state in_state, out_state;
		uint32_t window;
		bool closed, sent_eof;
	} seen;       /* at the end of its last step */
};

struct flow {
	struct side side[2]; /* near, far */
	int64_t open_at;
	bool open, taken, refused, disturbed, stuck;
};

static struct flow flow[FLOWS];
static uint32_t flows;
static struct wire line[2]; /* from near, from far */
static unsigned long seed;
#define CHECK(cond, ...) do { if (!(cond)) { fprintf(stderr, "RELAY_SEED=%lu: ", seed); ck_abort_msg(__VA_ARGS__); } } while (0)

static struct link *end_of(int i) { return i == 0 ? &near : &far; }

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

	if (a->ended || half_finished(&a->s->out) || now < a->put_at)
		return;
	if (a->put < a->plan && link_takes(end_of(i), a->s)) {
		n = 1 + upto(a->put_most - 1);
		if (n > a->plan - a->put)
			n = (size_t)(a->plan - a->put);
		for (k = 0; k < n; k++)
			x[k] = pattern(f, i, a->put + k);
		CHECK(buf_put(&a->s->out.buf, x, n), "no memory");
		a->put += n;
		a->put_at = now + a->put_gap;
	}
	if (a->put == a->plan) {
		a->ended = true;
		a->s->out.state = HALF_DRAIN;
	}
	link_ready(end_of(i), a->s);
}

static void
read_some(struct flow *f, int i)
{
	struct side *a = &f->side[i];
	unsigned char x[65536];
	size_t n, k;

	if (!a->stopped && a->got >= a->stop_at && !half_finished(&a->s->in)) {
		a->stopped = true;
		link_stop(end_of(i), a->s);
	}
	if (a->stuck || half_finished(&a->s->in) || now < a->read_at)
		return;
	n = buf_take(&a->s->in.buf, x, 1 + upto(a->read_most - 1));
	for (k = 0; k < n; k++)
		CHECK(x[k] == pattern(f, 1 - i, a->got + k), "flow %d to %d: byte %lu is wrong", (int)(f - flow), i, (unsigned long)(a->got + k));
	a->got += n;
	CHECK(a->got <= f->side[1 - i].put, "flow %d: bytes that were not put", (int)(f - flow));
	if (n > 0) {
		link_consumed(end_of(i), a->s, n);
		a->read_at = now + a->read_gap;
	}
	if (a->s->in.state == HALF_DRAIN && a->s->in.buf.used == 0) {
		a->s->in.state = HALF_SHUT;
		a->eof = true;
	}
}

static struct look
look_at(const struct stream *s)
{
	struct look now_ = { s->in.buf.used, s->out.buf.used, s->in.state, s->out.state, s->send_window, s->got_close, s->sent_eof };

	return now_;
}

static void
take_touched(void)
{
	struct stream *s;
	int i;

	for (i = 0; i < 2; i++)
		while ((s = link_touched(end_of(i))) != NULL) {
			CHECK(s->user != NULL && ((struct flow *)s->user)->side[i].s == s, "a stream is touched that nobody has");
			((struct flow *)s->user)->side[i].touched = true;
		}
}

/* Whoever steps only what was touched must not miss anything. */
static void
check_touched(const struct flow *f, const struct side *a)
{
	struct look x = look_at(a->s), y = a->seen;

	CHECK(a->touched || (x.in == y.in && x.out == y.out && x.in_state == y.in_state && x.out_state == y.out_state &&
	                     x.window == y.window && x.closed == y.closed && x.sent_eof == y.sent_eof),
	    "flow %d: the link has changed it and does not say so", (int)(f - flow));
}

static void
act(struct flow *f, int i)
{
	struct side *a = &f->side[i];

	if (a->s == NULL || a->released)
		return;
	check_touched(f, a);
	if (now >= a->close_at && !a->closed) {
		a->closed = true;
		link_close(end_of(i), a->s, (uint16_t)(1 + upto(10)), "enough");
		CHECK(half_finished(&a->s->out), "a closed stream goes on");
		half_break(&a->s->out, ECONNRESET, true);
		if (!half_finished(&a->s->in)) /* both sides had ended already, and only what is held was left to read */
			a->s->in.state = HALF_SHUT;
	}
	put_some(f, i);
	read_some(f, i);
	if (a->s->in.state == HALF_BROKEN && !a->stopped && !a->closed) {
		a->broke = true;
		a->code = a->s->code;
		CHECK(a->s->code != LINK_END, "broken without a code");
		if (a->s->code == LINK_NO_ROOM)
			f->refused = true;
	}
	if (half_finished(&a->s->in) && half_finished(&a->s->out)) {
		a->released = true;
		link_release(end_of(i), a->s);
		a->s = NULL;
		return;
	}
	a->seen = look_at(a->s);
	a->touched = false;
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
		flow[i].side[0].s = link_open(&near, name, &flow[i]);
		flow[i].open = flow[i].side[0].s != NULL;
		flow[i].side[0].touched = true;
	}
	while ((s = link_next(&far)) != NULL) {
		i = (uint32_t)atoi(s->words + 1);
		CHECK(s->words[0] == '/' && i < flows && !flow[i].taken, "a target that nobody named: %s", s->words);
		flow[i].taken = true;
		s->user = &flow[i];
		flow[i].side[1].s = s;
		flow[i].side[1].touched = true;
		if (!one_in(3)) /* OPENED may come late or, where the other side closed, never */
			link_opened(&far, s);
	}
}

static uint64_t
elsewhere(int i) /* held by streams that have left the table */
{
	uint64_t sum = 0;
	struct stream *s;
	uint32_t k;

	for (k = 0; k < flows; k++)
		if ((s = flow[k].side[i].s) != NULL && end_of(i)->table[s->id / 2] != s)
			sum += s->in.buf.used + s->recv_window;
	return sum;
}

static void
check_now(void)
{
	int i;

	for (i = 0; i < 2; i++) {
		CHECK(end_of(i)->state == LINK_UP || end_of(i)->state < LINK_UP, "link %d is dead: %s", i, end_of(i)->why);
		CHECK(end_of(i)->promised == promises(end_of(i), elsewhere(i)) ||
		      end_of(i)->promised == promises(end_of(i), elsewhere(i) + consumed(end_of(i))), "link %d: promised %lu, but holds %lu", i,
		    (unsigned long)end_of(i)->promised, (unsigned long)promises(end_of(i), elsewhere(i)));
		CHECK(end_of(i)->promised <= end_of(i)->ours.memory, "link %d: promised %lu of %lu", i,
		    (unsigned long)end_of(i)->promised, (unsigned long)end_of(i)->ours.memory);
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

static int64_t
earliest(int64_t a, int64_t b) { return a < b ? a : b; }

static int64_t
next_event(void)
{
	int64_t next = WIRE_NEVER;
	struct side *a;
	uint32_t k;
	int i;

	for (i = 0; i < 2; i++) {
		if (link_deadline(end_of(i)) > now) /* see a_deadline_is_never_past */
			next = earliest(next, link_deadline(end_of(i)));
		next = earliest(next, wire_next(&line[i]));
		if (link_has_output(end_of(i)))
			next = earliest(next, wire_room_at(&line[i], LINK_PULL, now));
	}
	for (k = 0; k < flows; k++) {
		if (!flow[k].open)
			next = flow[k].open_at > now ? earliest(next, flow[k].open_at) : next;
		for (i = 0; i < 2; i++) {
			a = &flow[k].side[i];
			if (a->s == NULL)
				continue;
			if (!a->closed)
				next = earliest(next, a->close_at);
			if (!a->ended && (a->put == a->plan || link_takes(end_of(i), a->s)) && !half_finished(&a->s->out))
				next = earliest(next, a->put_at);
			if (!a->stuck && a->s->in.buf.used > 0)
				next = earliest(next, a->read_at);
		}
	}
	return next;
}

static void
deliver(int i)
{
	const unsigned char *p;
	size_t n;
	int turns;

	for (turns = 0; turns < 64 && (n = wire_take(&line[i], &p, now)) > 0; turns++) {
		if (one_in(8))
			n = 1 + upto((uint32_t)n - 1);
		link_feed(end_of(1 - i), p, n, now);
		wire_drop(&line[i], n, now);
	}
}

static void
send_out(int i)
{
	static unsigned char x[65536];
	size_t n, room;

	while (link_has_output(end_of(i)) && wire_room(&line[i], now) >= LINK_PULL) {
		room = LINK_PULL + upto((uint32_t)(wire_room(&line[i], now) < sizeof(x) ? wire_room(&line[i], now) : sizeof(x)) - LINK_PULL);
		n = link_pull(end_of(i), x, room, now);
		CHECK(n <= room, "%lu bytes in a room of %lu", (unsigned long)n, (unsigned long)room);
		if (n == 0)
			break;
		wire_put(&line[i], x, n, now);
	}
}

static void
draw_side(struct side *a, bool stuck)
{
	static const uint32_t sizes[] = { 0, 1, 100, 3000, 30000, 30000, 150000, 400000 };
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

static void
draw(void)
{
	static const uint32_t memories[] = { 65536, 300000, 1 << 20, 4 << 20, LINK_MEMORY };
	static const double rates[] = { 0, 0.05, 0.625, 6.25, 62.5 };
	uint32_t memory = memories[upto(4)], i;
	int k;

	dice_state = seed * 1000003;
	flows = one_in(4) ? 1 + upto(FLOWS - 1) : 1 + upto(5);
	memory = memories[upto(4)];
	link_init(&near, LINK_NEAR, memories[upto(4)], "laptop", now);
	link_init(&far, LINK_FAR, memory, "node", now);
	far.ours.streams = 1 + upto(7);
	near.ours.streams = 16;
	for (i = 0; i < flows; i++) {
		memset(&flow[i], 0, sizeof(flow[i]));
		flow[i].open_at = now + (one_in(2) ? upto(SECOND) : 0);
		flow[i].stuck = i == 0 && far.ours.streams > 1 && one_in(3);
		draw_side(&flow[i].side[0], false);
		draw_side(&flow[i].side[1], flow[i].stuck);
		if (flow[i].stuck && one_in(2)) {
			flow[i].side[0].stuck = true;
			flow[i].side[1].stuck = false;
		}
		for (k = 0; k < 2; k++) {
			if (flow[i].side[1 - k].plan > 3000 && flow[i].side[k].read_most < 4000)
				flow[i].side[k].read_most = 4000;
			if (flow[i].side[k].stuck)
				flow[i].side[k].stop_at = UINT64_MAX;
			if (flow[i].side[k].close_at != WIRE_NEVER)
				flow[i].disturbed = true;
		}
	}
	for (k = 0; k < 2; k++) {
		wire_free(&line[k]);
		line[k].rate = rates[upto(4)];
		line[k].delay = one_in(4) ? 0 : upto(50000);
		line[k].room = LINK_PULL + upto(one_in(2) ? 8192 : 2000000);
	}
}

/* What a flow that has come to its end must have done. */
static void
check_flow(const struct flow *f)
{
	const struct side *a, *b;
	int i, n = (int)(f - flow);

	for (i = 0; i < 2; i++) {
		a = &f->side[i];
		b = &f->side[1 - i];
		if (f->disturbed || f->refused || f->stuck) {
			CHECK(f->disturbed || f->stuck || !a->broke || f->refused, "flow %d was reset by nobody", n);
			continue;
		}
		CHECK(!a->broke, "flow %d, side %d: broken by nobody, with code %d", n, i, a->code);
		if (a->stopped) {
			CHECK(b->put <= b->plan, "flow %d", n);
			continue;
		}
		CHECK(a->eof, "flow %d, side %d: never saw the end", n, i);
		CHECK(a->got == b->plan, "flow %d, side %d: %lu of %lu bytes", n, i, (unsigned long)a->got, (unsigned long)b->plan);
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
				link_release(end_of(i), flow[k].side[i].s);
				flow[k].side[i].s = NULL;
			}
}

/* The carrier goes in the midst of it: every stream is a reset, and nothing stays. */
static void
cut(void)
{
	struct stream *s;
	uint32_t k;
	int i;

	for (i = 0; i < 2; i++) {
		if (one_in(2))
			link_lost(end_of(i), LINK_RESET, "cut");
		else
			link_bye(end_of(i), LINK_RESET, "cut");
		take_touched();
		for (k = 0; k < flows; k++) {
			s = flow[k].side[i].s;
			CHECK(s == NULL || half_finished(&s->out), "a stream outlives its link");
			CHECK(s == NULL || s->in.state == HALF_DRAIN || half_finished(&s->in), "a stream outlives its link");
			if (s != NULL)
				check_touched(&flow[k], &flow[k].side[i]);
		}
	}
	release_all();
	link_free(&near);
	link_free(&far);
}

static const char *
tell(void)
{
	static char text[4096];
	size_t n = 0;
	uint32_t k;
	int i;

	for (i = 0; i < 2; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "link %d: n %u deadline %+ld wire %+ld output %d;", i, end_of(i)->n,
		    (long)(link_deadline(end_of(i)) - now), (long)(wire_next(&line[i]) - now), link_has_output(end_of(i)));
	for (k = 0; k < flows && n < 3800; k++)
		for (i = 0; i < 2; i++)
			if (!flow[k].side[i].released)
				n += (size_t)snprintf(text + n, sizeof(text) - n, " %u.%d put %lu of %lu got %lu", (unsigned)k, i,
				    (unsigned long)flow[k].side[i].put, (unsigned long)flow[k].side[i].plan, (unsigned long)flow[k].side[i].got);
	return text;
}

static void
schedule(void)
{
	int64_t until, next, cut_at;
	uint32_t steps = 0, k;
	bool unstuck = false;
	int i;

	draw();
	cut_at = one_in(8) ? now + upto(2 * SECOND) : WIRE_NEVER;
	until = now + 3600 * (int64_t)SECOND;
	while (!all_done(true) || wire_next(&line[0]) != WIRE_NEVER || wire_next(&line[1]) != WIRE_NEVER || link_has_output(&near) ||
	       link_has_output(&far)) {
		next = next_event();
		CHECK(next != WIRE_NEVER && now < until && ++steps < 1000000, "it stalls, after %u steps, %s", (unsigned)steps, tell());
		if (next > now)
			now = next;
		if (now >= cut_at) {
			cut();
			return;
		}
		for (i = 0; i < 2; i++) {
			link_tick(end_of(i), now);
			deliver(i);
			if (one_in(64))
				line[i].delay = upto(50000);
		}
		open_and_take();
		take_touched();
		for (k = 0; k < flows; k++) {
			act(&flow[k], 0);
			act(&flow[k], 1);
		}
		check_now();
		send_out(0);
		send_out(1);
		check_now();
		if (!unstuck && all_done(false)) {
			unstuck = true;
			for (k = 0; k < flows; k++)
				for (i = 0; i < 2; i++)
					if (flow[k].stuck)
						flow[k].side[i].close_at = now;
		}
	}
	for (k = 0; k < flows; k++)
		check_flow(&flow[k]);
	CHECK(near.n == 0 && far.n == 0, "ids are not free at the end: %u, %u", near.n, far.n);
	CHECK(near.promised == 0 && far.promised == 0, "promises are left at the end");
	link_free(&near);
	link_free(&far);
}

#define PARTS 20

static unsigned long
number(const char *name, unsigned long otherwise)
{
	const char *text = getenv(name);

	return text == NULL ? otherwise : strtoul(text, NULL, 10);
}

/* RELAY_SEED=N runs one, RELAY_SEEDS=N so many. */
START_TEST(random_schedules)
{
	unsigned long many = number("RELAY_SEEDS", 2000), one = number("RELAY_SEED", 0), i;

	for (i = (unsigned long)_i; i < many; i += PARTS) {
		seed = i + 1;
		if (one != 0 && seed != one)
			continue;
		schedule();
	}
	if (one > many && _i == 0) {
		seed = one;
		schedule();
	}
	wire_free(&line[0]);
	wire_free(&line[1]);
	buf_trim();
}
END_TEST

/* ---- the start ---- */

START_TEST(noise_before_the_magic_is_skipped_and_kept)
{
	static const size_t sizes[] = { 0, 1, 2, 15, 16, 17, 1000, 4096, 65535, LINK_NOISE };
	static char noise[LINK_NOISE];
	size_t i, k, n = sizes[_i];

	for (i = 0; i < n; i++)
		noise[i] = (char)(' ' + i * 7 % 94);
	link_init(&near, LINK_NEAR, LINK_MEMORY, "laptop", now);
	put(noise, n);
	put(frame_magic, FRAME_MAGIC);
	put_hello(1, 1, LINK_MEMORY, 10);
	for (i = 0; i < wired; i += k) {
		k = 1 + i % 977;
		link_feed(&near, wire + i, k < wired - i ? k : wired - i, now);
	}
	wired = 0;
	ck_assert_int_eq(near.state, LINK_UP);
	ck_assert_uint_eq(near.noise_have, n);
	if (n > 0)
		ck_assert_mem_eq(near.noise, noise, n);
	link_free(&near);
}
END_TEST

START_TEST(too_much_noise_ends_the_start)
{
	static char noise[LINK_NOISE + 1];

	memset(noise, 'x', sizeof(noise));
	link_init(&near, LINK_NEAR, LINK_MEMORY, "laptop", now);
	put(noise, sizeof(noise));
	feed(&near);
	ck_assert_int_eq(near.state, LINK_DEAD);
	ck_assert_uint_le(near.noise_have, LINK_NOISE);
	HAS(near.why, "64 KiB");
	link_free(&near);
}
END_TEST

/* The magic begun again and again, and its parts, are noise until it is whole. */
START_TEST(a_magic_behind_its_own_beginning_is_found)
{
	int i;

	for (i = 1; i < 2; i++) {
		link_init(&near, LINK_NEAR, LINK_MEMORY, "laptop", now);
		put("\0\0\0", 3);
		put(frame_magic, 2);
		put(frame_magic, 1);
		put(frame_magic, 5);
		put(frame_magic, FRAME_MAGIC);
		put_hello(1, 1, LINK_MEMORY, 10);
		feed(&near);
		ck_assert_int_eq(near.state, LINK_UP);
		ck_assert_uint_eq(near.noise_have, 3 + 2 + 1 + 5);
		link_free(&near);
	}
}
END_TEST

START_TEST(a_line_that_changes_bytes_is_named)
{
	static const struct { const char *bytes; size_t n; } lines[] = {
		{ "^@\362reLAylink\r\n\n\376^@", 18 },         /* a terminal that shows control characters */
		{ "\0\362reLAylink\n\n\376\0", 15 },           /* CR is dropped */
		{ "\0\362reLAylink\r\n\r\n\376\0", 17 },       /* LF becomes CR LF */
		{ "\0\362reLAylink\r\r\n\r\n\376\0", 18 },
		{ "\0\362reLAylink\n\n\n\376\0", 16 },         /* ICRNL */
		{ "\0\162reLAylink\r\n\n\176\0", 16 },         /* seven bits */
		{ "\362reLAylink\r\n\n\376", 14 },             /* NUL is dropped */
		{ "Welcome!\r\n\0\303\262reLAylink\r\n\n", 24 }, /* Latin-1 becomes UTF-8 */
		{ "\0\362reLAylink\r\n\n\303\276\0", 17 },     /* the same, seen late */
		{ "reLAylink", 9 } };

	link_init(&near, LINK_NEAR, LINK_MEMORY, "laptop", now);
	put(lines[_i].bytes, lines[_i].n);
	put("\1\0\0\44", 4);
	feed(&near);
	ck_assert_int_eq(near.state, LINK_DEAD);
	HAS(near.why, "changes bytes");
	link_free(&near);
}
END_TEST

START_TEST(a_command_that_echoes_is_told_so)
{
	link_init(&near, LINK_NEAR, LINK_MEMORY, "laptop", now);
	pull(&near);
	link_feed(&near, sent, sent_n, now);
	ck_assert_int_eq(near.state, LINK_DEAD);
	HAS(near.why, "gives back");
	link_free(&near);
}
END_TEST

START_TEST(two_far_ends_are_told_so)
{
	link_init(&far, LINK_FAR, LINK_MEMORY, "node", now);
	put(frame_magic, FRAME_MAGIC);
	put_hello(1, 1, LINK_MEMORY, 10);
	feed(&far);
	ck_assert_int_eq(far.state, LINK_DEAD);
	HAS(far.why, "far end itself");
	link_free(&far);
}
END_TEST

START_TEST(a_far_side_takes_no_noise)
{
	link_init(&far, LINK_FAR, LINK_MEMORY, "node", now);
	put("GET / HTTP/1.0\r\n", 16);
	feed(&far);
	ck_assert_int_eq(far.state, LINK_DEAD);
	HAS(far.why, "no link");
	link_free(&far);
}
END_TEST

/* A near side whose far end is being made says nothing before that is there. */
START_TEST(a_patient_side_waits_for_the_magic)
{
	size_t i;

	link_init(&near, LINK_NEAR, LINK_MEMORY, "laptop", now);
	near.patient = true;
	put("relay:: at /x\n", 14);
	put(frame_magic, FRAME_MAGIC);
	for (i = 0; i < wired; i++) {
		ck_assert(!link_has_output(&near));
		ck_assert_uint_eq(pull(&near), 0);
		link_feed(&near, wire + i, 1, now);
	}
	wired = 0;
	ck_assert(link_has_output(&near));
	ck_assert_uint_gt(pull(&near), FRAME_MAGIC);
	ck_assert_mem_eq(sent, frame_magic, FRAME_MAGIC);
	put_hello(1, 1, LINK_MEMORY, 10);
	feed(&near);
	ck_assert_int_eq(near.state, LINK_UP);
	link_free(&near);
}
END_TEST

START_TEST(a_patient_side_that_never_spoke_says_no_farewell)
{
	link_init(&near, LINK_NEAR, LINK_MEMORY, "laptop", now);
	near.patient = true;
	put("noise\n", 6);
	feed(&near);
	link_bye(&near, LINK_END, "stopped");
	ck_assert(!link_has_output(&near));
	ck_assert_uint_eq(pull(&near), 0);
	link_free(&near);
}
END_TEST

/* What boot.c sends comes to a far end that was there without it: it is no noise that ends the link, cut at every byte. */
START_TEST(a_far_side_skips_a_line_for_a_shell)
{
	static const char words[] = "V='relay 0.1';o='-m -';say(){ printf 'relay%s %s\\n' :: \"$*\";};exit 1\n";
	static unsigned char text[sizeof(words) + 400];
	size_t n, cut;

	put(words, sizeof(words) - 1);
	put(frame_magic, FRAME_MAGIC);
	put_hello(1, 0, LINK_MEMORY, 10);
	memcpy(text, wire, n = wired);
	wired = 0;
	for (cut = 0; cut <= n; cut++) {
		link_init(&far, LINK_FAR, LINK_MEMORY, "node", now);
		ck_assert_uint_gt(pull(&far), FRAME_MAGIC); /* it does not wait */
		link_feed(&far, text, cut, now);
		ck_assert_int_eq(far.state, cut < sizeof(words) - 1 + FRAME_MAGIC ? LINK_STARTS : cut < n ? LINK_GREETS : LINK_UP);
		link_feed(&far, text + cut, n - cut, now);
		ck_assert_int_eq(far.state, LINK_UP);
		link_free(&far);
	}
}
END_TEST

START_TEST(a_far_side_skips_no_other_line)
{
	static const char words[] = "V='relay ";
	char text[sizeof(words)];

	memcpy(text, words, sizeof(words));
	text[_i] = '?';
	link_init(&far, LINK_FAR, LINK_MEMORY, "node", now);
	link_feed(&far, text, (size_t)_i, now);
	ck_assert_int_eq(far.state, LINK_STARTS);
	link_feed(&far, text + _i, 1, now);
	ck_assert_int_eq(far.state, LINK_DEAD);
	HAS(far.why, "no link");
	link_free(&far);
}
END_TEST

START_TEST(a_far_side_skips_no_line_without_end)
{
	static char text[LINK_NOISE + 1];

	memset(text, 'x', sizeof(text));
	memcpy(text, "V='relay ", 9);
	link_init(&far, LINK_FAR, LINK_MEMORY, "node", now);
	link_feed(&far, text, LINK_NOISE, now);
	ck_assert_int_eq(far.state, LINK_STARTS);
	link_feed(&far, text, 1, now);
	ck_assert_int_eq(far.state, LINK_DEAD);
	link_free(&far);
}
END_TEST

START_TEST(another_version_is_refused_by_name_and_BYE_13)
{
	const unsigned char *bye;

	link_init(&near, LINK_NEAR, LINK_MEMORY, "laptop", now);
	pull(&near);
	put(frame_magic, FRAME_MAGIC);
	put_hello(7, 1, LINK_MEMORY, 10);
	feed(&near);
	ck_assert_int_eq(near.state, LINK_DEAD);
	ck_assert_uint_eq(near.code, LINK_VERSION);
	HAS(near.why, "peer");
	HAS(near.why, "version 7");
	HAS(near.why, "version 1");
	pull(&near);
	ck_assert_ptr_nonnull(bye = find_frame(FRAME_BYE, 0));
	ck_assert_uint_eq(frame_get(bye + 8, 2), 13);
	link_free(&near);
}
END_TEST

START_TEST(a_hello_that_allows_no_work_breaks_the_link)
{
	static const uint32_t bad[][2] = { { LINK_MEMORY, 0 }, { LINK_MEMORY, LINK_STREAMS + 1 }, { 0, 10 }, { 4095, 10 }, { LINK_MEMORY, UINT32_MAX } };

	link_init(&near, LINK_NEAR, LINK_MEMORY, "laptop", now);
	pull(&near);
	put(frame_magic, FRAME_MAGIC);
	put_hello(1, 1, bad[_i][0], bad[_i][1]);
	breaks(&near);
}
END_TEST

START_TEST(the_far_bye_ends_the_link_with_its_words)
{
	greet(&near, LINK_NEAR);
	put_frame(FRAME_BYE, 0, "\0\12no room", 9);
	feed(&near);
	ck_assert_int_eq(near.state, LINK_DEAD);
	ck_assert(near.by_peer);
	ck_assert_uint_eq(near.code, LINK_NO_ROOM);
	ck_assert_str_eq(near.why, "no room");
	ck_assert(!link_has_output(&near));
	link_free(&near);
}
END_TEST

START_TEST(nothing_but_the_hello_goes_out_before_the_far_hello)
{
	link_init(&near, LINK_NEAR, LINK_MEMORY, "laptop", now);
	ck_assert(link_has_output(&near));
	pull(&near);
	ck_assert_mem_eq(sent, frame_magic, FRAME_MAGIC);
	ck_assert_ptr_eq(find_frame(FRAME_HELLO, 0), sent + FRAME_MAGIC);
	ck_assert_uint_eq(sent_n, FRAME_MAGIC + FRAME_HEAD + FRAME_HELLO_FIXED + 6);
	ck_assert(!link_has_output(&near));
	ck_assert_ptr_null(link_open(&near, "/x", USER));
	link_free(&near);
}
END_TEST

/* ---- what breaks the link: PROTOCOL section 8 ---- */

static struct stream *taken; /* the far side's stream 1, or the near side's */

static void
far_with_stream(void)
{
	greet(&far, LINK_FAR);
	put_open(1, 1000, 1000, "/t");
	lives(&far);
	ck_assert_ptr_nonnull(taken = link_next(&far));
	taken->user = USER;
}

static void
near_with_stream(void)
{
	greet(&near, LINK_NEAR);
	ck_assert_ptr_nonnull(taken = link_open(&near, "/t", USER));
	pull(&near);
	ck_assert_uint_eq(taken->id, 1);
	ck_assert_ptr_nonnull(find_frame(FRAME_OPEN, 1));
}

static void
breaks_and_free(struct link *l)
{
	feed(l);
	ck_assert_msg(l->state == LINK_DEAD, "the link goes on");
	ck_assert(half_finished(&taken->in) && half_finished(&taken->out));
	ck_assert_int_eq(taken->in.err, ECONNRESET);
	link_release(l, taken);
	broken(l);
}

#define RULE(name, side, frames) START_TEST(name) { side##_with_stream(); frames; breaks_and_free(&side); } END_TEST

RULE(a_type_below_128_that_is_unknown, far, put_frame(12, 0, "", 0))
RULE(type_0, near, put_frame(0, 0, "", 0))
RULE(a_length_beyond_the_limit, far, put_frame(FRAME_DATA, 1, sent, 65537))
RULE(a_skipped_type_beyond_the_limit, far, put_frame(200, 0, sent, 8193))
RULE(a_stream_in_a_frame_of_the_link, near, put_frame(FRAME_PING, 1, "", 0))
RULE(no_stream_in_a_frame_of_one, near, put_frame(FRAME_EOF, 0, "", 0))
RULE(a_second_hello, near, put_hello(1, 1, LINK_MEMORY, 10))
RULE(a_second_hello_at_far, far, put_hello(1, 0, LINK_MEMORY, 10))
RULE(an_open_from_the_far_side, near, put_open(3, 4096, 4096, "/x"))
RULE(an_open_of_an_even_id, far, put_open(2, 4096, 4096, "/x"))
RULE(an_open_beyond_the_limit, far, put_open(2 * LINK_STREAMS + 1, 4096, 4096, "/x"))
RULE(an_open_far_beyond_the_limit, far, put_open(UINT32_MAX, 4096, 4096, "/x"))
RULE(an_open_of_one_that_is_open, far, put_open(1, 4096, 4096, "/x"))
RULE(an_open_that_takes_more_than_allowed, far, put_open(3, 262145, 4096, "/x"))
RULE(an_open_that_gives_more_than_2_31, far, put_open(3, 4096, 0x80000000, "/x"))
RULE(data_for_no_stream, far, put_data(3, 1))
RULE(eof_for_no_stream, far, put_frame(FRAME_EOF, 3, "", 0))
RULE(stop_for_no_stream, near, put_frame(FRAME_STOP, 3, "", 0))
RULE(close_for_no_stream, near, put_close(3, 1))
RULE(credit_for_no_stream, near, put_number(FRAME_CREDIT, 3, 1, 4))
RULE(opened_for_no_stream, near, put_frame(FRAME_OPENED, 3, "", 0))
RULE(a_frame_for_an_even_stream, near, put_frame(FRAME_EOF, 2, "", 0))
RULE(a_frame_for_a_stream_beyond_all, near, put_frame(FRAME_EOF, UINT32_MAX, "", 0))
RULE(data_beyond_the_window, far, put_data(1, 1001))
RULE(data_beyond_the_window_in_two, far, put_data(1, 1000); put_data(1, 1))
RULE(empty_data, far, put_data(1, 0))
RULE(data_after_eof, far, put_frame(FRAME_EOF, 1, "", 0); put_data(1, 1))
RULE(a_second_eof, far, put_frame(FRAME_EOF, 1, "", 0); put_frame(FRAME_EOF, 1, "", 0))
RULE(opened_twice, near, put_frame(FRAME_OPENED, 1, "", 0); put_frame(FRAME_OPENED, 1, "", 0))
RULE(opened_from_the_near_side, far, put_frame(FRAME_OPENED, 1, "", 0))
RULE(a_credit_of_0, far, put_number(FRAME_CREDIT, 1, 0, 4))
RULE(a_credit_of_2_31, far, put_number(FRAME_CREDIT, 1, 0x80000000, 4))
RULE(credits_beyond_2_31, far, put_number(FRAME_CREDIT, 1, 0x7fffffff - 1000, 4); put_number(FRAME_CREDIT, 1, 1, 4))
RULE(an_ack_of_more_than_was_sent, near, put_ack(1000000, 0))
RULE(an_ack_of_less_than_was_acked, near, put_ack(near.pace.sent, 0); put_ack(near.pace.sent - 1, 0))
RULE(an_ack_of_all_there_is, near, put_ack(UINT64_MAX, UINT32_MAX))

/* The breach frees the stream: nothing may touch it then. */
START_TEST(a_breach_by_a_stream_that_nobody_has)
{
	near_with_stream();
	put_frame(FRAME_OPENED, 1, "", 0);
	lives(&near);
	link_stop(&near, taken);
	taken->out.state = HALF_DRAIN;
	link_ready(&near, taken);
	pull(&near);
	link_release(&near, taken);
	if (_i == 0)
		put_frame(FRAME_OPENED, 1, "", 0);
	else if (_i == 1)
		put_number(FRAME_CREDIT, 1, 0, 4);
	else if (_i == 2)
		put_data(1, 65536), put_data(1, 65536), put_data(1, 65536), put_data(1, 65536), put_data(1, 1);
	else
		put_open(1, 1, 1, "");
	breaks(&near);
}
END_TEST

START_TEST(credits_up_to_2_31_less_1_are_taken)
{
	far_with_stream();
	put_number(FRAME_CREDIT, 1, 0x7fffffff - 1000, 4);
	lives(&far);
	ck_assert_uint_eq(taken->send_window, 0x7fffffff);
	link_release(&far, taken);
	link_free(&far);
}
END_TEST

START_TEST(another_frame_before_hello_breaks_the_link)
{
	link_init(&far, LINK_FAR, LINK_MEMORY, "node", now);
	pull(&far);
	put(frame_magic, FRAME_MAGIC);
	put_open(1, 4096, 4096, "/x");
	breaks(&far);
}
END_TEST

START_TEST(types_from_128_are_skipped)
{
	int i;

	far_with_stream();
	for (i = 128; i < 256; i++)
		put_frame((unsigned)i, (uint32_t)i % 3, sent, (size_t)i * 30);
	put_frame(255, 0xffffffff, sent, 8192);
	put_data(1, 7);
	lives(&far);
	ck_assert_uint_eq(taken->in.buf.used, 7);
	link_release(&far, taken);
	link_free(&far);
}
END_TEST

START_TEST(more_opens_than_promised_break_the_link)
{
	uint32_t i;

	greet(&far, LINK_FAR);
	for (i = 0; i < LINK_STREAMS; i++) {
		put_open(2 * i + 1, 4096, 4096, "");
		if (wired > 500000 || i == LINK_STREAMS - 1)
			lives(&far);
	}
	ck_assert_uint_eq(far.n, LINK_STREAMS);
	ck_assert_uint_le(far.promised, LINK_MEMORY);
	put_open(2 * LINK_STREAMS + 1, 4096, 4096, "");
	breaks(&far);
}
END_TEST

/* A stream whose window does not fit is refused alone, and the sum stays. */
START_TEST(opens_beyond_the_memory_are_refused_one_by_one)
{
	uint32_t i;

	greet(&far, LINK_FAR);
	for (i = 0; i < 300; i++)
		put_open(2 * i + 1, LINK_WINDOW_FIRST, 4096, "/x");
	lives(&far);
	pull(&far);
	ck_assert_uint_le(far.promised, LINK_MEMORY);
	ck_assert_ptr_null(find_frame(FRAME_CLOSE, 511));
	ck_assert_ptr_nonnull(find_frame(FRAME_CLOSE, 513));
	ck_assert_uint_eq(frame_get(find_frame(FRAME_CLOSE, 513) + 8, 2), LINK_NO_ROOM);
	link_free(&far);
}
END_TEST

/* What targets take is not promised: so long ones are taken only beside few others. */
START_TEST(long_targets_beside_many_are_refused_one_by_one)
{
	static char name[FRAME_TARGET + 1];
	uint32_t i;

	memset(name, '/', FRAME_TARGET);
	greet(&far, LINK_FAR);
	for (i = 0; i < 1025; i++) {
		put_open(2 * i + 1, 0, 4096, name);
		feed(&far);
	}
	name[512] = '\0';
	put_open(2 * i + 1, 0, 4096, name);
	lives(&far);
	pull(&far);
	ck_assert_ptr_null(find_frame(FRAME_CLOSE, 2 * 1023 + 1));
	ck_assert_ptr_nonnull(find_frame(FRAME_CLOSE, 2 * 1024 + 1));
	ck_assert_uint_eq(frame_get(find_frame(FRAME_CLOSE, 2 * 1024 + 1) + 8, 2), LINK_NO_ROOM);
	ck_assert_ptr_null(find_frame(FRAME_CLOSE, 2 * 1025 + 1));
	link_free(&far);
}
END_TEST

/* OPEN and CLOSE by turns, a million times: ids come free, nothing is held, and what is closed is given to nobody. */
START_TEST(a_million_opens_and_closes_hold_nothing)
{
	struct stream *s;
	int i, k;

	greet(&far, LINK_FAR);
	for (i = 0; i < 1000; i++) {
		for (k = 0; k < 1000; k++) {
			put_open((uint32_t)(2 * k + 1), 4096, 4096, "/target");
			put_close((uint32_t)(2 * k + 1), 1);
		}
		lives(&far);
		while ((s = link_next(&far)) != NULL) {
			ck_assert_msg(strcmp(s->words, "/target") == 0, "a closed stream's target has become \"%s\"", s->words);
			link_release(&far, s);
		}
		pull(&far);
		ck_assert_uint_eq(far.n, 0);
		ck_assert_uint_eq(far.promised, 0);
	}
	link_free(&far);
}
END_TEST

START_TEST(a_stream_that_was_closed_before_it_was_taken_is_given_to_nobody)
{
	greet(&far, LINK_FAR);
	put_open(1, 4096, 4096, "/target");
	put_close(1, 1);
	lives(&far);
	ck_assert_ptr_null(link_next(&far));
	pull(&far);
	ck_assert_ptr_nonnull(find_frame(FRAME_CLOSE, 1));
	link_free(&far);
}
END_TEST

START_TEST(a_target_longer_than_the_wire_takes_is_refused_here)
{
	static char target[FRAME_TARGET + 2];
	struct stream *s;

	greet(&near, LINK_NEAR);
	memset(target, 'x', FRAME_TARGET + 1);
	ck_assert_ptr_null(link_open(&near, target, USER));
	target[FRAME_TARGET] = '\0';
	ck_assert_ptr_nonnull(s = link_open(&near, target, USER));
	pull(&near);
	ck_assert_ptr_nonnull(find_frame(FRAME_OPEN, s->id));
	link_release(&near, s);
	link_free(&near);
}
END_TEST

START_TEST(no_more_streams_than_the_far_side_allows)
{
	struct stream *s[11];
	int i;

	link_init(&near, LINK_NEAR, LINK_MEMORY, "laptop", now);
	put(frame_magic, FRAME_MAGIC);
	put_hello(1, 1, LINK_MEMORY, 10);
	feed(&near);
	for (i = 0; i < 11; i++) {
		s[i] = link_open(&near, "/x", USER);
		ck_assert_int_eq(s[i] != NULL, i < 10);
	}
	for (i = 0; i < 10; i++) {
		ck_assert_uint_eq(s[i]->id & 1, 1);
		ck_assert_uint_lt(s[i]->id, 20);
		link_release(&near, s[i]);
	}
	pull(&near);
	ck_assert_ptr_null(link_open(&near, "/x", USER)); /* ids are free when CLOSE has crossed */
	put_close(7, 1);
	lives(&near);
	ck_assert_ptr_nonnull(s[0] = link_open(&near, "/x", USER));
	ck_assert_uint_eq(s[0]->id, 7);
	link_release(&near, s[0]);
	link_free(&near);
}
END_TEST

/* Everything that comes between our CLOSE and the other one is dropped, and costs nothing. */
START_TEST(what_was_on_its_way_when_we_closed_is_dropped)
{
	far_with_stream();
	link_close(&far, taken, LINK_REFUSED, "nobody listens");
	pull(&far);
	ck_assert_ptr_nonnull(find_frame(FRAME_CLOSE, 1));
	ck_assert_mem_eq(find_frame(FRAME_CLOSE, 1) + 8, "\0\2nobody listens", 16);
	put_data(1, 1000);
	put_number(FRAME_CREDIT, 1, 5, 4);
	put_frame(FRAME_STOP, 1, "", 0);
	put_frame(FRAME_EOF, 1, "", 0);
	put_close(1, 1);
	lives(&far);
	ck_assert_uint_eq(far.n, 0);
	ck_assert_uint_eq(far.promised, 0);
	link_release(&far, taken);
	put_data(1, 1);
	breaks(&far);
}
END_TEST

START_TEST(promises_are_kept_whenever_a_stream_is_closed_in_the_middle_of_data)
{
	struct link *l = &far;
	size_t at;

	for (at = 0; at <= 8 + 600; at += 19) {
		far_with_stream();
		put_data(1, 600);
		link_feed(l, wire, at, now);
		if (_i == 0)
			link_close(l, taken, LINK_RESET, "");
		else if (_i == 1)
			link_stop(l, taken);
		else if (_i == 2)
			link_stop(l, taken), link_close(l, taken, LINK_RESET, "");
		else
			link_release(l, taken);
		link_feed(l, wire + at, wired - at, now);
		wired = 0;
		pull(l);
		keeps_promises(l);
		put_close(1, 1);
		lives(l);
		ck_assert_msg(l->promised == 0, "closed after %d bytes: %ld are promised to nobody", (int)at, (long)l->promised);
		if (_i != 3)
			link_release(l, taken);
		link_free(l);
	}
}
END_TEST

/* ---- streams ---- */

START_TEST(data_follows_open_at_once)
{
	struct stream *s, *t;

	both(LINK_MEMORY);
	s = link_open(&near, "/a.soc", USER);
	say(&near, s, 5);
	finish(&near, s);
	pull(&near);
	link_feed(&far, sent, sent_n, now);
	ck_assert_ptr_nonnull(t = link_next(&far));
	t->user = USER;
	ck_assert_uint_eq(t->in.buf.used, 5);
	ck_assert_int_eq(t->in.state, HALF_DRAIN);
	link_release(&far, t);
	cross();
	ck_assert_int_eq(s->in.state, HALF_BROKEN);
	link_release(&near, s);
	over();
}
END_TEST

START_TEST(a_refusal_comes_back_with_its_reason)
{
	static const int errs[] = { ECONNREFUSED, ENOENT, EACCES, ETIMEDOUT, EHOSTUNREACH, EMFILE };
	struct stream *s, *t;

	both(LINK_MEMORY);
	s = link_open(&near, "/a.soc", USER);
	cross();
	t = link_next(&far);
	t->user = USER;
	link_close(&far, t, link_code(errs[_i]), "because");
	link_release(&far, t);
	cross();
	ck_assert_int_eq(s->in.state, HALF_BROKEN);
	ck_assert_int_eq(s->out.state, HALF_BROKEN);
	ck_assert_int_eq(s->in.err, errs[_i]);
	ck_assert_uint_eq(s->code, link_code(errs[_i]));
	ck_assert_str_eq(s->words, "because");
	link_release(&near, s);
	over();
}
END_TEST

START_TEST(every_end_passes_alone)
{
	struct stream *t, *s;

	both(LINK_MEMORY);
	s = open_both(&t);
	say(&near, s, 10);
	finish(&near, s);
	cross();
	ck_assert_int_eq(s->out.state, HALF_SHUT);
	ck_assert_int_eq(t->in.state, HALF_DRAIN);
	ck_assert_uint_eq(t->in.buf.used, 10);
	say(&far, t, 20);
	cross();
	ck_assert_uint_eq(s->in.buf.used, 20);
	ck_assert_int_eq(s->in.state, HALF_OPEN);
	finish(&far, t);
	cross();
	ck_assert_int_eq(s->in.state, HALF_DRAIN);
	ck_assert_uint_eq(s->in.buf.used, 20);
	hear(&near, s, 20);
	cross();
	ck_assert_uint_eq(near.n, 1); /* CLOSE says that all was delivered: not yet */
	hear(&far, t, 10);
	cross();
	ck_assert_uint_eq(near.n, 0);
	ck_assert_uint_eq(far.n, 0);
	ck_assert_uint_eq(s->code, LINK_END);
	link_release(&near, s);
	link_release(&far, t);
	over();
}
END_TEST

START_TEST(stop_is_answered_by_eof_and_the_other_way_goes_on)
{
	struct stream *t, *s;

	both(LINK_MEMORY);
	s = open_both(&t);
	say(&far, t, 3000000);
	cross();
	link_stop(&near, s);
	link_stop(&near, s);
	cross();
	ck_assert_int_eq(t->out.state, HALF_BROKEN);
	ck_assert(t->out.by_sink);
	ck_assert_int_eq(t->out.err, EPIPE);
	ck_assert_uint_eq(t->out.buf.used, 0);
	ck_assert_uint_eq(near.promised, 0);
	say(&near, s, 100);
	cross();
	ck_assert_uint_eq(t->in.buf.used, 100);
	hear(&far, t, 100);
	finish(&near, s);
	cross();
	ck_assert_uint_eq(near.n, 0);
	link_release(&near, s);
	link_release(&far, t);
	over();
}
END_TEST

START_TEST(who_stops_reading_and_is_done_resets_nobody)
{
	struct stream *t, *s;

	both(LINK_MEMORY);
	s = open_both(&t);
	link_stop(&near, s);
	say(&near, s, 100);
	finish(&near, s);
	pull(&near);
	link_release(&near, s); /* before the answer to STOP has come */
	link_feed(&far, sent, sent_n, now);
	cross();
	ck_assert_int_eq(t->in.state, HALF_DRAIN);
	ck_assert_uint_eq(t->in.buf.used, 100);
	hear(&far, t, 100);
	cross();
	ck_assert_uint_eq(near.n, 0);
	link_release(&far, t);
	over();
}
END_TEST

START_TEST(a_reset_passes_both_ways_at_once)
{
	struct stream *t, *s;

	both(LINK_MEMORY);
	s = open_both(&t);
	say(&near, s, 3000000);
	say(&far, t, 3000000);
	cross();
	link_close(_i ? &far : &near, _i ? t : s, LINK_RESET, "");
	link_close(_i ? &far : &near, _i ? t : s, LINK_RESET, "again");
	cross();
	ck_assert(half_finished(&s->in) && half_finished(&s->out) && half_finished(&t->in) && half_finished(&t->out));
	ck_assert_int_eq(s->in.err, ECONNRESET);
	ck_assert_int_eq(t->in.err, ECONNRESET);
	ck_assert_uint_eq(s->in.buf.used + s->out.buf.used + t->in.buf.used + t->out.buf.used, 0);
	ck_assert_uint_eq(near.n + far.n, 0);
	link_release(&near, s);
	link_release(&far, t);
	over();
}
END_TEST

START_TEST(ids_are_used_again_and_never_while_they_are_held)
{
	struct stream *t[8], *s[8];
	int i, round;

	link_init(&near, LINK_NEAR, LINK_MEMORY, "laptop", now);
	link_init(&far, LINK_FAR, LINK_MEMORY, "node", now);
	far.ours.streams = 8;
	cross();
	for (round = 0; round < 5000; round++) {
		for (i = round % 3; i < 8; i++) {
			s[i] = open_both(&t[i]);
			ck_assert_uint_eq(s[i]->id, t[i]->id);
			say(&near, s[i], 10);
		}
		for (i = round % 3; i < 8; i++) {
			ck_assert_uint_eq(t[i]->in.buf.used, i == 7 ? 0 : 10);
			if (i % 2 == 0)
				link_release(&near, s[i]);
			link_release(&far, t[i]);
			if (i % 2 != 0)
				link_release(&near, s[i]);
		}
		cross();
		ck_assert_uint_eq(near.n + far.n, 0);
	}
	over();
}
END_TEST

START_TEST(the_end_of_the_carrier_is_a_reset_of_every_stream)
{
	struct stream *t, *s;

	both(LINK_MEMORY);
	s = open_both(&t);
	say(&near, s, 100);
	cross();
	link_lost(&near, LINK_RESET, "gone");
	ck_assert_int_eq(near.state, LINK_DEAD);
	ck_assert_str_eq(near.why, "gone");
	ck_assert_int_eq(s->in.state, HALF_BROKEN);
	ck_assert_int_eq(s->out.state, HALF_BROKEN);
	ck_assert_int_eq(s->in.err, ECONNRESET);
	ck_assert(!link_has_output(&near));
	ck_assert_ptr_null(link_open(&near, "/x", USER));
	link_stop(&near, s);
	link_ready(&near, s);
	link_close(&near, s, LINK_RESET, "");
	link_release(&near, s);
	link_free(&near);
	link_bye(&far, LINK_END, "that is all");
	ck_assert(link_has_output(&far));
	pull(&far);
	ck_assert_ptr_nonnull(find_frame(FRAME_BYE, 0));
	ck_assert(half_finished(&t->in));
	link_release(&far, t);
	link_free(&far);
}
END_TEST

/* ---- windows and turns ---- */

/* Bulk over a line of ${rate} bytes per us and ${trip}, for ${span}; returns bytes that were read there. */
static uint64_t
bulk(struct stream *s, struct stream *t, int64_t trip, double rate, int64_t span)
{
	int64_t end = now + span, next;
	uint64_t all = 0;
	size_t n;
	int i;

	for (i = 0; i < 2; i++) {
		wire_free(&line[i]);
		line[i].delay = trip / 2;
		line[i].rate = rate;
		line[i].room = 4 << 20;
	}
	while (now < end) {
		next = end;
		for (i = 0; i < 2; i++) {
			link_tick(end_of(i), now);
			deliver(i);
			send_out(i);
			if (link_deadline(end_of(i)) > now)
				next = earliest(next, link_deadline(end_of(i)));
		}
		all += n = t->in.buf.used;
		hear(&far, t, n);
		while (s->out.state == HALF_OPEN && link_takes(&near, s)) {
			say(&near, s, 32768);
			send_out(0);
		}
		send_out(1);
		next = earliest(next, earliest(wire_next(&line[0]), wire_next(&line[1])));
		now = next > now ? next : now;
		ck_assert_uint_le(far.promised, far.ours.memory);
	}
	while (wire_next(&line[0]) != WIRE_NEVER || wire_next(&line[1]) != WIRE_NEVER) {
		now = earliest(wire_next(&line[0]), wire_next(&line[1]));
		for (i = 0; i < 2; i++) {
			link_tick(end_of(i), now);
			deliver(i);
			send_out(i);
		}
		all += n = t->in.buf.used;
		hear(&far, t, n);
	}
	wire_free(&line[0]);
	wire_free(&line[1]);
	return all;
}

START_TEST(windows_grow_with_need)
{
	struct stream *t, *s;
	uint64_t n;

	both(LINK_MEMORY);
	s = open_both(&t);
	ck_assert_uint_eq(t->window, LINK_WINDOW_FIRST);
	near.pace.trip = far.pace.trip = 0; /* the start was on no line at all */
	n = bulk(s, t, 100000, 62.5, 10 * SECOND);
	ck_assert_uint_ge(t->window, 100000 * 62.5);
	ck_assert_uint_le(t->window, LINK_WINDOW_MOST);
	ck_assert_msg(n > 62.5 * 10 * SECOND * 0.75, "%.2f of the line", (double)n / (62.5 * 10 * SECOND));
	link_release(&near, s);
	link_release(&far, t);
	cross();
	over();
}
END_TEST

START_TEST(windows_do_not_grow_on_a_slow_line)
{
	struct stream *t, *s;

	both(LINK_MEMORY);
	s = open_both(&t);
	bulk(s, t, 20000, 0.625, 20 * SECOND);
	ck_assert_uint_le(t->window, 2 * LINK_WINDOW_FIRST);
	link_release(&near, s);
	link_release(&far, t);
	cross();
	over();
}
END_TEST

START_TEST(windows_stop_at_the_bound_and_new_streams_still_come)
{
	struct stream *t[40], *s[40];
	int i;

	both(4 << 20);
	for (i = 0; i < 8; i++) {
		s[i] = open_both(&t[i]);
		bulk(s[i], t[i], 100000, 62.5, 2 * SECOND);
		keeps_promises(&far);
	}
	for (; i < 40; i++)
		s[i] = open_both(&t[i]);
	for (i = 0; i < 40; i++) {
		ck_assert_msg(s[i]->in.state == HALF_OPEN, "stream %d was refused with code %d", i, s[i]->code);
		ck_assert_uint_gt(t[i]->window, 0);
		link_release(&near, s[i]);
		link_release(&far, t[i]);
	}
	cross();
	over();
}
END_TEST

START_TEST(nobody_stands_behind_a_reader_that_never_reads)
{
	struct stream *t, *s, *stuck, *u;

	both(LINK_MEMORY);
	stuck = open_both(&u);
	say(&near, stuck, 3000000);
	cross();
	ck_assert_uint_eq(u->in.buf.used, LINK_WINDOW_FIRST);
	ck_assert(!link_has_output(&near));
	s = open_both(&t);
	ck_assert_uint_gt(bulk(s, t, 10000, 12.5, 5 * SECOND), 5 * SECOND * 12.5 * 0.8);
	link_release(&near, s);
	link_release(&far, t);
	link_release(&near, stuck);
	link_release(&far, u);
	cross();
	over();
}
END_TEST

/* How many bytes of ${other} stand before the first byte of ${s} in what is sent now. */
static size_t
before(const struct stream *s)
{
	struct frame f;
	size_t at, n = 0;

	pull(&near);
	for (at = 0; at < sent_n; at += FRAME_HEAD + f.length) {
		frame_decode(&f, sent + at);
		if (f.type == FRAME_DATA && f.stream == s->id)
			return n;
		n += FRAME_HEAD + f.length;
	}
	return SIZE_MAX;
}

START_TEST(a_quiet_stream_is_sent_before_busy_ones)
{
	struct stream *t[4], *s[4];
	int i;

	both(LINK_MEMORY);
	for (i = 0; i < 4; i++)
		s[i] = open_both(&t[i]);
	for (i = 0; i < 3; i++)
		say(&near, s[i], 1000000);
	pull(&near); /* as much as may be in flight */
	ck_assert_uint_gt(s[0]->out.buf.used, 0);
	now += 20000;
	link_tick(&near, now);
	ck_assert_int_lt(near.pace.talked_at, now - 100000); /* bulk is no talk */
	say(&near, s[3], 1);
	ck_assert(link_has_output(&near));
	ck_assert_uint_le(before(s[3]), 20); /* an ACK */
	ck_assert_int_eq(near.pace.talked_at, now);
	link_lost(&near, LINK_END, "");
	link_lost(&far, LINK_END, "");
	for (i = 0; i < 4; i++) {
		link_release(&near, s[i]);
		link_release(&far, t[i]);
	}
	over();
}
END_TEST

START_TEST(a_stream_is_quiet_again_a_second_after_its_bulk)
{
	struct stream *t[2], *s[2];

	both(LINK_MEMORY);
	s[0] = open_both(&t[0]);
	s[1] = open_both(&t[1]);
	bulk(s[1], t[1], 20000, 12.5, 10 * SECOND);
	while (s[1]->out.buf.used > 0) {
		cross();
		hear(&far, t[1], t[1]->in.buf.used);
		now += 1000;
	}
	now += SECOND;
	cross();
	say(&near, s[0], 4000000);
	pull(&near);
	ck_assert_uint_gt(s[0]->out.buf.used, 0);
	now += 1000;
	say(&near, s[1], 1);
	ck_assert_uint_le(before(s[1]), 20);
	link_lost(&near, LINK_END, "");
	link_lost(&far, LINK_END, "");
	link_release(&near, s[0]);
	link_release(&near, s[1]);
	link_release(&far, t[0]);
	link_release(&far, t[1]);
	over();
}
END_TEST

START_TEST(busy_streams_share_by_bytes)
{
	struct stream *t[4], *s[4];
	uint64_t least = UINT64_MAX, most = 0;
	int i, round;

	both(LINK_MEMORY);
	for (i = 0; i < 4; i++)
		s[i] = open_both(&t[i]);
	for (round = 0; round < 4000; round++) {
		for (i = 0; i < 4; i++)
			while (link_takes(&near, s[i]))
				say(&near, s[i], i == 0 ? 100 : 32768);
		pull(&near);
		link_feed(&far, sent, sent_n, now);
		for (i = 0; i < 4; i++)
			hear(&far, t[i], t[i]->in.buf.used);
		now += 500;
		link_tick(&far, now);
		pull(&far);
		link_feed(&near, sent, sent_n, now);
	}
	for (i = 0; i < 4; i++) {
		least = s[i]->out.moved < least ? s[i]->out.moved : least;
		most = s[i]->out.moved > most ? s[i]->out.moved : most;
		link_release(&near, s[i]);
		link_release(&far, t[i]);
	}
	ck_assert_msg(least * 10 >= most * 9, "%lu and %lu", (unsigned long)least, (unsigned long)most);
	cross();
	over();
}
END_TEST

/* A reader that takes a byte at a time is not answered byte by byte. */
START_TEST(credit_comes_in_lumps)
{
	struct stream *t, *s;
	size_t i, credits = 0;

	both(LINK_MEMORY);
	s = open_both(&t);
	say(&near, s, 2 * LINK_WINDOW_FIRST);
	cross();
	for (i = 0; i < LINK_WINDOW_FIRST; i++) {
		hear(&far, t, 1);
		pull(&far);
		credits += find_frame(FRAME_CREDIT, s->id) != NULL;
		link_feed(&near, sent, sent_n, now);
		pull(&near);
		link_feed(&far, sent, sent_n, now);
		now += 10;
	}
	ck_assert_msg(credits <= 32, "%lu credits for a window of bytes read one by one", (unsigned long)credits);
	link_release(&near, s);
	link_release(&far, t);
	cross();
	over();
}
END_TEST

/* A reader that is slow needs no more, however long the line. */
START_TEST(a_slow_readers_window_does_not_grow)
{
	struct stream *t, *s;
	int64_t end;

	both(LINK_MEMORY);
	s = open_both(&t);
	bulk(s, t, 100000, 0.625, SECOND); /* both know the trip */
	line[0].delay = line[1].delay = 50000;
	line[0].room = line[1].room = 4 << 20;
	for (end = now + 60 * SECOND; now < end; now += 10000) {
		while (s->out.state == HALF_OPEN && link_takes(&near, s))
			say(&near, s, 32768);
		hear(&far, t, t->in.buf.used < 4000 ? t->in.buf.used : 4000); /* 400 kB a second, of a line that has no limit */
		link_tick(&near, now);
		link_tick(&far, now);
		deliver(0);
		deliver(1);
		send_out(0);
		send_out(1);
	}
	ck_assert_msg(t->window <= 2 * LINK_WINDOW_FIRST, "it is %lu", (unsigned long)t->window);
	link_lost(&near, LINK_END, "");
	link_lost(&far, LINK_END, "");
	link_release(&near, s);
	link_release(&far, t);
	wire_free(&line[0]);
	wire_free(&line[1]);
	over();
}
END_TEST

/* ---- life ---- */

/* Both links until ${end}: how many bytes crossed. */
static size_t
idle(int64_t end)
{
	size_t all = 0;
	int64_t next;

	for (;;) {
		next = earliest(link_deadline(&near), link_deadline(&far));
		if (next > end)
			break;
		now = next > now ? next : now;
		link_tick(&near, now);
		link_tick(&far, now);
		all += pull(&near);
		link_feed(&far, sent, sent_n, now);
		all += pull(&far);
		link_feed(&near, sent, sent_n, now);
		ck_assert_uint_lt(all, 1000000);
	}
	now = end;
	return all;
}

START_TEST(idle_links_come_to_rest)
{
	struct stream *t, *s;

	both(LINK_MEMORY);
	s = open_both(&t);
	ck_assert_uint_gt(bulk(s, t, 1000, 12.5, SECOND), 0);
	cross();
	hear(&far, t, t->in.buf.used);
	while (s->out.buf.used > 0) {
		cross();
		hear(&far, t, t->in.buf.used);
		now += 1000;
	}
	idle(now + 2 * SECOND);
	ck_assert_uint_eq(idle(now + 12 * SECOND), 0);
	/* and then a PING and its ACK every 15 s, from both */
	ck_assert_uint_le(idle(now + 3600 * (int64_t)SECOND), 3600 / 15 * 2 * (8 + 20));
	ck_assert_int_eq(near.state, LINK_UP);
	ck_assert_int_eq(far.state, LINK_UP);
	link_release(&near, s);
	link_release(&far, t);
	cross();
	over();
}
END_TEST

START_TEST(ping_at_15_s_dead_at_45)
{
	greet(&near, LINK_NEAR);
	now += 30000;
	link_tick(&near, now);
	pull(&near);
	now += 15 * SECOND - 30000 - 1;
	link_tick(&near, now);
	ck_assert(!link_has_output(&near));
	ck_assert_int_eq(link_deadline(&near), now + 1);
	now++;
	link_tick(&near, now);
	ck_assert(link_has_output(&near));
	ck_assert_int_gt(link_deadline(&near), now);
	ck_assert_uint_eq(pull(&near), FRAME_HEAD);
	ck_assert_ptr_nonnull(find_frame(FRAME_PING, 0));
	now += 15 * SECOND;
	link_tick(&near, now);
	ck_assert_uint_eq(pull(&near), FRAME_HEAD);
	now += 15 * SECOND - 1;
	link_tick(&near, now);
	ck_assert_int_eq(near.state, LINK_UP);
	now++;
	link_tick(&near, now);
	ck_assert_int_eq(near.state, LINK_DEAD);
	ck_assert_uint_eq(near.code, LINK_TIMEOUT);
	HAS(near.why, "45 s");
	link_free(&near);
}
END_TEST

START_TEST(a_ping_is_answered_at_once)
{
	greet(&far, LINK_FAR);
	now += 30000;
	link_tick(&far, now);
	pull(&far);
	put_frame(FRAME_PING, 0, "", 0);
	lives(&far);
	ck_assert(link_has_output(&far));
	pull(&far);
	ck_assert_ptr_nonnull(find_frame(FRAME_ACK, 0));
	ck_assert_uint_eq(frame_get(find_frame(FRAME_ACK, 0) + 8, 8), far.read);
	link_free(&far);
}
END_TEST

START_TEST(an_ack_comes_after_5_ms_or_1024_bytes)
{
	far_with_stream();
	now += 30000;
	link_tick(&far, now);
	pull(&far);
	put_data(1, 10);
	lives(&far);
	ck_assert(!link_has_output(&far));
	now += 2000;
	put_data(1, 10);
	lives(&far);
	ck_assert_int_eq(link_deadline(&far), now + 3000);
	now += 2999;
	link_tick(&far, now);
	ck_assert(!link_has_output(&far));
	now++;
	link_tick(&far, now);
	pull(&far);
	ck_assert_ptr_nonnull(find_frame(FRAME_ACK, 0));
	ck_assert_uint_eq(frame_get(find_frame(FRAME_ACK, 0) + 16, 4), 3000);
	put_frame(200, 0, sent, 1016);
	lives(&far);
	ck_assert(link_has_output(&far));
	link_release(&far, taken);
	link_free(&far);
}
END_TEST

START_TEST(acks_come_as_often_as_the_peer_wants_and_no_more)
{
	static const uint32_t wanted[] = { 0, 1, 1023, 1024, 5000, 65536 };
	uint32_t stride, n;
	size_t i;

	far_with_stream();
	for (i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		now += 30000;
		link_tick(&far, now);
		pull(&far);
		ck_assert(!link_has_output(&far)); /* nor would it spin for a stride of 0 */
		stride = wanted[i] < 1024 ? 1024 : wanted[i];
		put_number(FRAME_STRIDE, 0, wanted[i], 4);
		for (n = FRAME_HEAD + 4; n + 16 < stride; n += 16) {
			put_frame(200, 0, sent, 8);
			lives(&far);
			ck_assert(!link_has_output(&far));
		}
		put_frame(200, 0, sent, 8);
		lives(&far);
		ck_assert_int_eq(link_has_output(&far), true);
	}
	link_release(&far, taken);
	link_free(&far);
}
END_TEST

/* The larger the window of a short line, the fewer ACKs are asked for; those of a long line stay many. */
START_TEST(strides_follow_the_bytes_in_flight)
{
	static const struct {
		uint64_t window;
		int64_t trip;
		uint32_t stride;
	} t[] = { { 32768, 0, 4096 }, { 4096, 100, 1024 }, { 1 << 20, 500, 131072 }, { 1 << 20, 4000, 65536 },
		{ 1 << 20, 100000, 2048 }, { 64 << 20, 100, 262144 }, { 65536, 1000000, 1024 } };
	const unsigned char *f;
	size_t i;

	far_with_stream();
	pull(&far);
	for (i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		far.pace.window = t[i].window;
		far.pace.trip = t[i].trip;
		pull(&far);
		f = find_frame(FRAME_STRIDE, 0);
		if (i > 0) /* the first one was told at the start */
			ck_assert_ptr_nonnull(f);
		ck_assert_uint_eq(i > 0 ? frame_get(f + FRAME_HEAD, 4) : far.told, t[i].stride);
		pull(&far);
		ck_assert_ptr_null(find_frame(FRAME_STRIDE, 0));
	}
	link_release(&far, taken);
	link_free(&far);
}
END_TEST

START_TEST(no_pings_on_a_busy_line)
{
	int i;

	far_with_stream();
	for (i = 0; i < 600; i++) {
		now += 14 * SECOND;
		link_tick(&far, now);
		put_frame(FRAME_STOP, 1, "", 0);
		lives(&far);
		pull(&far);
		ck_assert_ptr_null(find_frame(FRAME_PING, 0));
	}
	link_release(&far, taken);
	link_free(&far);
}
END_TEST

START_TEST(a_sleep_of_an_hour_is_no_death)
{
	both(LINK_MEMORY);
	idle(now + 100 * SECOND);
	now += 3600 * (int64_t)SECOND;
	if (_i == 0)
		link_tick(&near, now);
	ck_assert_int_eq(near.state, LINK_UP);
	ck_assert_int_eq(far.state, LINK_UP);
	idle(now + 100 * SECOND);
	ck_assert_int_eq(near.state, LINK_UP);
	ck_assert_int_eq(far.state, LINK_UP);
	over();
}
END_TEST

/* Who shows the magic and says no more is given up; who does not show it may be asking for a password. */
START_TEST(a_greeting_is_not_waited_for_longer_than_45_s)
{
	link_init(&near, _i == 0 ? LINK_NEAR : LINK_FAR, LINK_MEMORY, "here", now);
	link_tick(&near, now += 1000 * (int64_t)SECOND);
	ck_assert_int_eq(near.state, LINK_STARTS);
	ck_assert(link_deadline(&near) == INT64_MAX);
	put(frame_magic, FRAME_MAGIC);
	feed(&near);
	ck_assert_int_eq(link_deadline(&near), now + 45 * SECOND);
	pull(&near);
	link_tick(&near, now += 45 * SECOND - 1);
	ck_assert_int_eq(near.state, LINK_GREETS);
	ck_assert_uint_eq(pull(&near), 0);
	link_tick(&near, now += 1);
	ck_assert_int_eq(near.state, LINK_DEAD);
	ck_assert_uint_eq(near.code, LINK_TIMEOUT);
	HAS(near.why, "45 s");
}
END_TEST

/* A dead line is noticed 45 s after the last byte, or 15 s after the end of a sleep, whatever came before. */
START_TEST(a_dead_line_is_noticed_after)
{
	int64_t start;
	int i;

	greet(&near, LINK_NEAR);
	switch (_i) {
	case 0: /* a sleep, then bytes, then silence */
	case 1: /* the same, where bytes are seen before the time */
		now += 3600 * (int64_t)SECOND;
		if (_i == 0)
			link_tick(&near, now);
		put_frame(FRAME_PING, 0, "", 0);
		lives(&near);
		break;
	case 2: /* an hour of bytes in which no deadline came */
		for (i = 0; i < 3600; i++) {
			now += SECOND;
			put_frame(FRAME_PING, 0, "", 0);
			lives(&near);
			pull(&near);
		}
		break;
	case 3: /* a sleep, then silence */
		now += 3600 * (int64_t)SECOND;
		break;
	}
	start = now;
	for (i = 0; near.state == LINK_UP && i < 1000; i++) {
		link_tick(&near, now);
		pull(&near);
		if (near.state == LINK_UP && link_deadline(&near) > now)
			now = link_deadline(&near);
	}
	ck_assert_int_eq(near.state, LINK_DEAD);
	ck_assert_int_le(now - start, (_i == 3 ? 16 : 46) * SECOND);
	ck_assert_int_ge(now - start, (_i == 3 ? 14 : 29) * SECOND);
	link_free(&near);
}
END_TEST

/* A sleep that the clock does not show is told: the line is asked at once, and lives on if it answers. */
START_TEST(a_sleep_that_is_told)
{
	greet(&near, LINK_NEAR);
	pull(&near);
	now += SECOND;
	link_woke(&near, now);
	pull(&near);
	ck_assert_ptr_nonnull(find_frame(FRAME_PING, 0));
	ck_assert_int_le(link_deadline(&near), now + 15 * SECOND);
	if (_i == 0) {
		now += 10 * SECOND;
		put_frame(FRAME_PING, 0, "", 0);
		lives(&near);
	}
	now += 16 * SECOND;
	link_tick(&near, now);
	ck_assert_int_eq(near.state, _i == 0 ? LINK_UP : LINK_DEAD);
	link_free(&near);
}
END_TEST

/* A carrier that takes nothing must not make the loop spin. */
START_TEST(a_deadline_is_never_past)
{
	far_with_stream();
	put_data(1, 10);
	lives(&far);
	now += 5000;
	link_tick(&far, now);
	ck_assert(link_has_output(&far));
	ck_assert_int_gt(link_deadline(&far), now);
	now += SECOND;
	put_data(1, 10);
	lives(&far);
	link_tick(&far, now);
	ck_assert_int_gt(link_deadline(&far), now);
	link_release(&far, taken);
	link_free(&far);
}
END_TEST

/* ---- the wire cut and spoiled ---- */

static unsigned char record[2][1 << 16];
static size_t recorded[2];

static void
exchange(void) /* and record */
{
	size_t n;

	do {
		n = pull(&near);
		ck_assert_uint_le(recorded[0] + sent_n, sizeof(record[0]));
		memcpy(record[0] + recorded[0], sent, sent_n);
		recorded[0] += sent_n;
		link_feed(&far, sent, sent_n, now);
		n += pull(&far);
		memcpy(record[1] + recorded[1], sent, sent_n);
		recorded[1] += sent_n;
		link_feed(&near, sent, sent_n, now);
	} while (n > 0);
}

static struct stream *mine[3], *peers[3];
static int peers_n;

static void
take_all(void)
{
	struct stream *t;

	while ((t = link_next(&far)) != NULL) {
		if (peers_n == 3) {
			link_release(&far, t);
			continue;
		}
		t->user = USER;
		peers[peers_n++] = t;
		link_opened(&far, t);
	}
}

static void
small(enum link_role role)
{
	link_init(role == LINK_NEAR ? &near : &far, role, 1 << 20, "host", now);
	(role == LINK_NEAR ? &near : &far)->ours.streams = 16;
	memset(mine, 0, sizeof(mine));
	memset(peers, 0, sizeof(peers));
	peers_n = 0;
}

/* The near user's part of the session; what the far side says is fed between. */
static void
near_part(int step)
{
	int i;

	switch (step) {
	case 0:
		for (i = 0; i < 3; i++)
			if ((mine[i] = link_open(&near, "/target", USER)) != NULL)
				say(&near, mine[i], 100);
		break;
	case 1:
		if (mine[0] != NULL)
			finish(&near, mine[0]);
		if (mine[1] != NULL)
			link_stop(&near, mine[1]);
		break;
	case 2:
		if (mine[2] != NULL)
			link_close(&near, mine[2], LINK_RESET, "bored");
		break;
	}
}

static void
far_part(int step)
{
	int i;

	take_all();
	for (i = 0; i < peers_n; i++) {
		if (step == 0 && peers[i]->out.state == HALF_OPEN)
			say(&far, peers[i], 150);
		if (step == 1 && i == 0 && peers[i]->in.buf.used > 0)
			hear(&far, peers[i], peers[i]->in.buf.used);
		if (step == 2 && peers[i]->out.state == HALF_OPEN)
			finish(&far, peers[i]);
	}
}

static void
release_mine(struct link *l, struct stream **s)
{
	int i;

	for (i = 0; i < 3; i++)
		if (s[i] != NULL)
			link_release(l, s[i]);
	link_free(l);
}

static void
record_session(void)
{
	int step;

	recorded[0] = recorded[1] = 0;
	small(LINK_NEAR);
	small(LINK_FAR);
	exchange();
	for (step = 0; step < 3; step++) {
		near_part(step);
		exchange();
		far_part(step);
		exchange();
	}
	link_bye(&far, LINK_END, "end");
	exchange();
	release_mine(&near, mine);
	release_mine(&far, peers);
	ck_assert_uint_gt(recorded[0], 450);
	ck_assert_uint_gt(recorded[1], 450);
}

/* One side alone, fed from a record cut at ${at}, in pieces of ${piece}. */
static void
replay(enum link_role role, const unsigned char *p, size_t n, size_t at, size_t piece)
{
	struct link *l = role == LINK_NEAR ? &near : &far;
	size_t i, k;

	small(role);
	pull(l);
	for (i = 0; i < n; i += k) {
		k = i < at ? at - i : n - i;
		if (k > piece)
			k = piece;
		link_feed(l, p + i, k, now);
		if (role == LINK_FAR)
			far_part(i < n / 2 ? 0 : 2);
		else if (l->state == LINK_UP && mine[0] == NULL)
			near_part(0);
		else if (i + k >= n / 2 && mine[0] != NULL)
			near_part(1);
		pull(l);
		ck_assert_uint_le(l->promised, l->ours.memory);
	}
}

START_TEST(a_session_is_the_same_cut_at_every_byte)
{
	size_t at, whole;

	record_session();
	for (at = 0; at <= recorded[0]; at++) {
		replay(LINK_FAR, record[0], recorded[0], at, SIZE_MAX);
		ck_assert_msg(far.state == LINK_UP || far.by_peer || far.state == LINK_DEAD, "cut at %lu", (unsigned long)at);
		ck_assert_msg(far.state == LINK_UP, "cut at %lu: %s", (unsigned long)at, far.why);
		whole = far.read;
		ck_assert_uint_eq(whole + FRAME_MAGIC, recorded[0]);
		release_mine(&far, peers);
	}
	replay(LINK_FAR, record[0], recorded[0], 0, 1);
	ck_assert_int_eq(far.state, LINK_UP);
	release_mine(&far, peers);
}
END_TEST

START_TEST(the_carrier_may_end_at_every_byte)
{
	size_t at;

	record_session();
	for (at = 0; at <= recorded[_i]; at++) {
		replay(_i == 0 ? LINK_FAR : LINK_NEAR, record[_i], at, SIZE_MAX, 61);
		link_lost(_i == 0 ? &far : &near, LINK_RESET, "cut");
		if (_i == 0)
			release_mine(&far, peers);
		else
			release_mine(&near, mine);
	}
}
END_TEST

START_TEST(every_byte_may_be_spoiled)
{
	static const unsigned char how[] = { 0x01, 0x80, 0xff, 0x10, 0x02, 0x20 };
	size_t at, k;

	record_session();
	for (at = 0; at < recorded[_i]; at++)
		for (k = 0; k < sizeof(how); k++) {
			record[_i][at] ^= how[k];
			replay(_i == 0 ? LINK_FAR : LINK_NEAR, record[_i], recorded[_i], 0, 997);
			record[_i][at] ^= how[k];
			if (_i == 0)
				release_mine(&far, peers);
			else
				release_mine(&near, mine);
		}
}
END_TEST

START_TEST(a_megabyte_of_anything_is_a_dead_link)
{
	struct link *l = _i % 2 == 0 ? &near : &far;
	size_t i;
	int round;

	for (round = 0; round < 20; round++) {
		dice_state = (uint64_t)(round * 77 + _i);
		for (i = 0; i < sizeof(wire); i++)
			wire[i] = (unsigned char)dice();
		wired = 0;
		small(_i % 2 == 0 ? LINK_NEAR : LINK_FAR);
		if (_i >= 2) { /* behind a right start */
			put(frame_magic, FRAME_MAGIC);
			put_hello(1, _i % 2 == 0, 1 << 20, 16);
			wired = 0;
		}
		link_feed(l, wire, sizeof(wire), now);
		ck_assert_int_eq(l->state, LINK_DEAD);
		ck_assert_uint_le(l->noise_have, LINK_NOISE);
		ck_assert_uint_eq(l->n, 0);
		pull(l);
		link_free(l);
	}
}
END_TEST

/* Frames with right heads and wild contents; the link may live or die, but holds no more than it promised. */
START_TEST(well_formed_nonsense_holds_no_more_than_was_promised)
{
	static unsigned char body[65536];
	struct link *l = _i % 2 == 0 ? &near : &far;
	unsigned type;
	size_t n;
	int i, k;

	for (i = 0; i < 3000; i++) {
		dice_state = (uint64_t)(i * 2 + _i);
		small(_i % 2 == 0 ? LINK_NEAR : LINK_FAR);
		put(frame_magic, FRAME_MAGIC);
		put_hello(1, _i % 2 == 0, 1 << 20, 16);
		feed(l);
		if (_i % 2 == 0)
			near_part(0);
		pull(l);
		for (k = 0; k < 40 && l->state == LINK_UP; k++) {
			type = 2 + upto(8);
			n = type == FRAME_OPEN ? 8 + upto(20) : type == FRAME_DATA ? 1 + upto(one_in(4) ? 65535 : 300) :
			    type == FRAME_CLOSE || type == FRAME_BYE ? 2 + upto(20) : type == FRAME_CREDIT ? 4 :
			    type == FRAME_ACK ? 12 : 0;
			memset(body, 0, 16);
			frame_put(body, upto(one_in(3) ? 300000 : 9000), 4);
			frame_put(body + 4, upto(300000), 4);
			if (type == FRAME_CREDIT && one_in(2))
				frame_put(body, dice(), 4);
			put_frame(type, type < FRAME_ACK || type > FRAME_PING ? upto(3) * 2 + 1 : 0, body, n);
			feed(l);
			ck_assert_uint_le(l->promised, l->ours.memory);
			if (_i % 2 != 0)
				far_part((int)upto(2));
			pull(l);
		}
		release_mine(l, _i % 2 == 0 ? mine : peers);
	}
}
END_TEST

#define R(name) tcase_add_test(tc, name)

static void
add_rules(TCase *tc)
{
	tcase_add_loop_test(tc, noise_before_the_magic_is_skipped_and_kept, 0, 10);
	R(too_much_noise_ends_the_start);
	R(a_magic_behind_its_own_beginning_is_found);
	tcase_add_loop_test(tc, a_line_that_changes_bytes_is_named, 0, 10);
	R(a_command_that_echoes_is_told_so);
	R(two_far_ends_are_told_so);
	R(a_far_side_takes_no_noise);
	R(a_patient_side_waits_for_the_magic);
	R(a_patient_side_that_never_spoke_says_no_farewell);
	R(a_far_side_skips_a_line_for_a_shell);
	tcase_add_loop_test(tc, a_far_side_skips_no_other_line, 0, 9);
	R(a_far_side_skips_no_line_without_end);
	R(another_version_is_refused_by_name_and_BYE_13);
	tcase_add_loop_test(tc, a_hello_that_allows_no_work_breaks_the_link, 0, 5);
	R(the_far_bye_ends_the_link_with_its_words);
	R(nothing_but_the_hello_goes_out_before_the_far_hello);
	R(a_type_below_128_that_is_unknown);
	R(type_0);
	R(a_length_beyond_the_limit);
	R(a_skipped_type_beyond_the_limit);
	R(a_stream_in_a_frame_of_the_link);
	R(no_stream_in_a_frame_of_one);
	R(a_second_hello);
	R(a_second_hello_at_far);
	R(an_open_from_the_far_side);
	R(an_open_of_an_even_id);
	R(an_open_beyond_the_limit);
	R(an_open_far_beyond_the_limit);
	R(an_open_of_one_that_is_open);
	R(an_open_that_takes_more_than_allowed);
	R(an_open_that_gives_more_than_2_31);
	R(data_for_no_stream);
	R(eof_for_no_stream);
	R(stop_for_no_stream);
	R(close_for_no_stream);
	R(credit_for_no_stream);
	R(opened_for_no_stream);
	R(a_frame_for_an_even_stream);
	R(a_frame_for_a_stream_beyond_all);
	R(data_beyond_the_window);
	R(data_beyond_the_window_in_two);
	R(empty_data);
	R(data_after_eof);
	R(a_second_eof);
	R(opened_twice);
	R(opened_from_the_near_side);
	R(a_credit_of_0);
	R(a_credit_of_2_31);
	R(credits_beyond_2_31);
	R(an_ack_of_more_than_was_sent);
	R(an_ack_of_less_than_was_acked);
	R(an_ack_of_all_there_is);
	tcase_add_loop_test(tc, a_breach_by_a_stream_that_nobody_has, 0, 4);
	R(credits_up_to_2_31_less_1_are_taken);
	R(another_frame_before_hello_breaks_the_link);
	R(types_from_128_are_skipped);
	R(more_opens_than_promised_break_the_link);
	R(opens_beyond_the_memory_are_refused_one_by_one);
	R(long_targets_beside_many_are_refused_one_by_one);
	R(a_million_opens_and_closes_hold_nothing);
	R(a_stream_that_was_closed_before_it_was_taken_is_given_to_nobody);
	R(a_target_longer_than_the_wire_takes_is_refused_here);
	R(no_more_streams_than_the_far_side_allows);
	R(what_was_on_its_way_when_we_closed_is_dropped);
	tcase_add_loop_test(tc, promises_are_kept_whenever_a_stream_is_closed_in_the_middle_of_data, 0, 4);
	R(data_follows_open_at_once);
	tcase_add_loop_test(tc, a_refusal_comes_back_with_its_reason, 0, 6);
	R(every_end_passes_alone);
	R(stop_is_answered_by_eof_and_the_other_way_goes_on);
	R(who_stops_reading_and_is_done_resets_nobody);
	tcase_add_loop_test(tc, a_reset_passes_both_ways_at_once, 0, 2);
	R(ids_are_used_again_and_never_while_they_are_held);
	R(the_end_of_the_carrier_is_a_reset_of_every_stream);
	R(windows_grow_with_need);
	R(windows_do_not_grow_on_a_slow_line);
	R(windows_stop_at_the_bound_and_new_streams_still_come);
	R(nobody_stands_behind_a_reader_that_never_reads);
	R(a_quiet_stream_is_sent_before_busy_ones);
	R(a_stream_is_quiet_again_a_second_after_its_bulk);
	R(busy_streams_share_by_bytes);
	R(credit_comes_in_lumps);
	R(a_slow_readers_window_does_not_grow);
	R(idle_links_come_to_rest);
	R(ping_at_15_s_dead_at_45);
	tcase_add_loop_test(tc, a_greeting_is_not_waited_for_longer_than_45_s, 0, 2);
	R(a_ping_is_answered_at_once);
	R(an_ack_comes_after_5_ms_or_1024_bytes);
	R(acks_come_as_often_as_the_peer_wants_and_no_more);
	R(strides_follow_the_bytes_in_flight);
	R(no_pings_on_a_busy_line);
	tcase_add_loop_test(tc, a_sleep_of_an_hour_is_no_death, 0, 2);
	tcase_add_loop_test(tc, a_sleep_that_is_told, 0, 2);
	tcase_add_loop_test(tc, a_dead_line_is_noticed_after, 0, 4);
	R(a_deadline_is_never_past);
	R(a_session_is_the_same_cut_at_every_byte);
	tcase_add_loop_test(tc, the_carrier_may_end_at_every_byte, 0, 2);
	tcase_add_loop_test(tc, every_byte_may_be_spoiled, 0, 2);
	tcase_add_loop_test(tc, a_megabyte_of_anything_is_a_dead_link, 0, 4);
	tcase_add_loop_test(tc, well_formed_nonsense_holds_no_more_than_was_promised, 0, 2);
}

TESTS("link")
{
	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, random_schedules, 0, PARTS);
	add_rules(tc);
}
