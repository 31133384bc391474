/*
 * check_mux.c - two muxes back to back, or one that reads frames made by hand
 *
 * Only functions of mux/mux.h are used, and those of mux/frame.h to make and to
 * read frames.  Time is a number that the tests move.
 */
#include "t/check.h"
#include <limits.h>
#include <sys/resource.h>

#include "mux/frame.h"
#include "mux/mux.h"
#include "t/mux/frames.h"
#include "t/mux/pull.h"
#include "t/mux/wire.h"

#define SECOND 1000000

static struct mux *near, *far;
static int64_t now = 1000 * (int64_t)SECOND;
static int owner; /* of the streams of a test */

/* ---- accessors ---- */

static struct mux_stats
stats(const struct mux *m)
{
	struct mux_stats s;

	mux_stats(m, &s);
	return s;
}

static uint32_t
streams(const struct mux *m)
{
	return stats(m).streams;
}

static uint64_t
reserved(const struct mux *m)
{
	return stats(m).reserved;
}

static size_t
banner_length(struct mux *m)
{
	size_t n;

	mux_banner(m, 0, &n);
	return n;
}

static size_t
held(struct stream *s)
{
	return stream_rx(s)->used;
}

static size_t
waiting(struct stream *s)
{
	return stream_tx(s)->used;
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

/*
 * The end of a test: all streams of ${*m} that were accepted are released.  No
 * memory is reserved when no stream is open, nor when the link is lost.
 */
static void
done(struct mux **m)
{
	struct stream *s;

	while ((s = mux_accept(*m)) != NULL)
		stream_release(s);
	if (streams(*m) == 0)
		ck_assert_uint_eq(reserved(*m), 0);
	mux_end(*m, MUX_END, "");
	ck_assert_uint_eq(streams(*m), 0);
	ck_assert_uint_eq(reserved(*m), 0);
	mux_free(*m);
	*m = NULL;
	buf_trim();
}

static void
feed(struct mux *m)
{
	mux_feed(m, 0, wire, wired, now);
	wired = 0;
}

/* ---- frames that a mux sends ---- */

static unsigned char sent[4 << 20]; /* by the last pull */
static size_t sent_n;

static size_t
pull(struct mux *m)
{
	size_t n;

	sent_n = 0;
	while (
	    sent_n + 65536 <= sizeof(sent) && (n = pull_into(m, sent + sent_n, MUX_PULL, now)) > 0) {
		ck_assert_uint_le(n, MUX_PULL);
		sent_n += n;
	}
	return sent_n;
}

/*
 * The next frame of the last pull after ${*at}; false: none.  ${*at} becomes
 * the offset of its end.
 */
static bool
next_frame(size_t *at, struct frame *f)
{
	if (*at == 0 && sent_n >= FRAME_MAGIC && memcmp(sent, frame_magic, FRAME_MAGIC) == 0)
		*at = FRAME_MAGIC;
	if (*at == sent_n)
		return false;
	ck_assert_uint_le(*at + FRAME_HEAD, sent_n);
	ck_assert_ptr_null(frame_decode(f, sent + *at));
	*at += FRAME_HEAD + f->length;
	return true;
}

/* The first frame of ${type} in the last pull, or NULL. */
static const unsigned char *
find_frame(unsigned type, uint32_t stream)
{
	struct frame f;
	size_t at = 0;

	while (next_frame(&at, &f))
		if (f.type == type && f.stream == stream)
			return sent + at - FRAME_HEAD - f.length;
	return NULL;
}

/* The last pull had a CLOSE of ${stream} with ${code} and ${words}. */
static void
sent_close(uint32_t stream, uint16_t code, const char *words)
{
	const unsigned char *frame = find_frame(FRAME_CLOSE, stream);
	struct frame f;

	ck_assert_msg(frame != NULL, "no CLOSE was sent");
	frame_decode(&f, frame);
	ck_assert_uint_eq(frame_get(frame + FRAME_HEAD, 2), code);
	ck_assert_uint_eq(f.length - 2, strlen(words));
	ck_assert_mem_eq(frame + FRAME_HEAD + 2, words, strlen(words));
}

/* ---- one mux ---- */

static void
greet(struct mux **m, enum mux_role role)
{
	*m = mux_new(role, MUX_MEMORY, "here", now);
	put(frame_magic, FRAME_MAGIC);
	put_hello(1, role == MUX_NEAR, MUX_MEMORY, MUX_STREAMS);
	feed(*m);
	ck_assert_int_eq(mux_state(*m), MUX_UP);
	pull(*m);
	ck_assert_ptr_nonnull(find_frame(FRAME_HELLO, 0));
}

static void
broken(struct mux **m)
{
	const unsigned char *bye;

	ck_assert_msg(mux_state(*m) == MUX_DEAD, "the link is still up");
	ck_assert_uint_eq(mux_code(*m), MUX_PROTOCOL);
	ck_assert(!mux_ended_by_peer(*m));
	ck_assert_uint_gt(strlen(mux_why(*m)), 10);
	ck_assert(mux_has_output(*m, 0));
	pull(*m);
	bye = find_frame(FRAME_BYE, 0);
	ck_assert_ptr_nonnull(bye);
	ck_assert_uint_eq(frame_get(bye + 8, 2), 12);
	ck_assert(!mux_has_output(*m, 0));
	ck_assert_uint_eq(pull(*m), 0);
	done(m);
}

static void
breaks(struct mux **m)
{
	feed(*m);
	broken(m);
}

static void
lives(struct mux *m)
{
	feed(m);
	ck_assert_msg(mux_state(m) == MUX_UP, "the link is dead: %s", mux_why(m));
}

static struct stream *
open_stream(const char *target, void *owner_)
{
	struct stream *s = mux_open(near, target);

	if (s != NULL)
		stream_set_owner(s, owner_);
	return s;
}

/* ---- two muxes ---- */

/* Both send and read all that they can, in no time. */
static void
cross(void)
{
	size_t n;

	do {
		n = pull(near);
		mux_feed(far, 0, sent, sent_n, now);
		n += pull(far);
		mux_feed(near, 0, sent, sent_n, now);
	} while (n > 0);
}

static void
both(uint32_t memory)
{
	near = mux_new(MUX_NEAR, memory, "laptop", now);
	far = mux_new(MUX_FAR, memory, "node", now);
	cross();
	ck_assert_int_eq(mux_state(near), MUX_UP);
	ck_assert_int_eq(mux_state(far), MUX_UP);
	ck_assert_str_eq(mux_peer(near), "node");
	ck_assert_str_eq(mux_peer(far), "laptop");
}

static struct stream *
open_both(struct stream **there)
{
	struct stream *s = open_stream("/a.soc", &owner);

	ck_assert_ptr_nonnull(s);
	cross();
	*there = mux_accept(far);
	ck_assert_ptr_nonnull(*there);
	ck_assert_str_eq(stream_target(*there), "/a.soc");
	stream_set_owner(*there, &owner);
	stream_accept(*there);
	cross();
	ck_assert(stream_is_opened(s));
	return s;
}

static void
send_bytes(struct stream *s, size_t n)
{
	static unsigned char zeros[65536];
	size_t k;

	for (; n > 0; n -= k) {
		k = n < sizeof(zeros) ? n : sizeof(zeros);
		ck_assert(buf_put(stream_tx(s), zeros, k));
	}
	stream_push(s);
}

static void
take_bytes(struct stream *s, size_t n)
{
	unsigned char x[4096];
	size_t k;

	for (; n > 0; n -= k) {
		k = buf_take(stream_rx(s), x, n < sizeof(x) ? n : sizeof(x));
		ck_assert_uint_gt(k, 0);
		stream_consumed(s, k);
	}
}

static void
over(void)
{
	done(&near);
	done(&far);
}

/* ---- a simulated line ---- */

static struct wire line[2]; /* from near, from far */
static const unsigned char session_id[MUX_SESSION] = "0123456789abcde";

static struct mux *
end_of(int i)
{
	return i == 0 ? near : far;
}

static int64_t
earliest(int64_t a, int64_t b)
{
	return a < b ? a : b;
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
		mux_feed(end_of(1 - i), 0, p, n, now);
		wire_drop(&line[i], n, now);
	}
}

/*
 * The ACK_EVERY frames in what near sends: one that repeats the last would be
 * useless.
 */
static uint32_t ack_every_frames, last_ack_every;

static void
watch_ack_every(const unsigned char *p, size_t n)
{
	const unsigned char *end = p + n;
	struct frame f;

	if (n >= FRAME_MAGIC && memcmp(p, frame_magic, FRAME_MAGIC) == 0)
		p += FRAME_MAGIC;
	for (; p < end; p += FRAME_HEAD + f.length) {
		ck_assert_ptr_null(frame_decode(&f, p));
		if (f.type != FRAME_ACK_EVERY)
			continue;
		ck_assert_msg(ack_every_frames == 0 ||
				  frame_get(p + FRAME_HEAD, 4) != last_ack_every,
		    "an ACK_EVERY is repeated");
		last_ack_every = (uint32_t)frame_get(p + FRAME_HEAD, 4);
		ack_every_frames++;
	}
}

static void
send_out(int i)
{
	static unsigned char x[65536];
	size_t n, room;

	while (mux_has_output(end_of(i), 0) && wire_room(&line[i], now) >= MUX_PULL) {
		room = MUX_PULL + upto((uint32_t)(wire_room(&line[i], now) < sizeof(x)
						      ? wire_room(&line[i], now)
						      : sizeof(x)) -
				       MUX_PULL);
		n = pull_into(end_of(i), x, room, now);
		ck_assert_uint_le(n, room);
		if (n == 0)
			break;
		if (i == 0)
			watch_ack_every(x, n);
		wire_put(&line[i], x, n, now);
	}
}

/* ---- sessions, one side ---- */

#define GREETED (FRAME_HEAD + FRAME_HELLO_FIXED + 4 + FRAME_HEAD + FRAME_SESSION_SIZE)

static const struct session new_session = { .kind = SESSION_NEW, .keep = 60 };

/* A side with a session, which was greeted and has sent its greeting. */
static struct mux *
with_session(enum mux_role role)
{
	struct mux *m = mux_new(role, MUX_MEMORY, "here", now);

	mux_keep(m, 60, session_id);
	put_greeting(role == MUX_NEAR, new_session);
	lives(m);
	pull(m);
	ck_assert_uint_eq(mux_keeps(m), 60);
	return m;
}

static void
join_with(struct mux *m, unsigned kind, uint64_t count)
{
	struct session s = { .kind = (uint8_t)kind, .count = count, .generation = 1 };

	mux_lost(m, 0, MUX_RESET, "cut");
	ck_assert_int_eq(mux_state(m), MUX_DOWN);
	ck_assert(!mux_has_output(m, 0));
	mux_attach(m, 0, false, now);
	pull(m);
	memcpy(s.id, session_id, sizeof(s.id));
	put_greeting(mux_role(m) == MUX_NEAR, s);
	feed(m);
}

/* The SESSION of the last pull. */
static struct session
sent_session(void)
{
	const unsigned char *frame = find_frame(FRAME_SESSION, 0);
	struct session s;

	ck_assert_ptr_nonnull(frame);
	frame_decode_session(&s, frame + FRAME_HEAD);
	return s;
}

/* The session of ${*m} has ended: nothing is sent, and nothing is kept. */
static void
gone(struct mux **m, uint16_t code)
{
	ck_assert_int_eq(mux_state(*m), MUX_DEAD);
	ck_assert_uint_eq(mux_code(*m), code);
	ck_assert(!mux_has_output(*m, 0));
	ck_assert_uint_eq(pull(*m), 0);
	done(m);
}

START_TEST(a_session_needs_kind_1_on_both_sides)
{
	enum mux_role role = _i < 256 ? MUX_NEAR : MUX_FAR;
	struct session s = { .kind = (uint8_t)(_i % 256), .keep = UINT32_MAX };
	struct mux *m = mux_new(role, MUX_MEMORY, "here", now);

	mux_keep(m, 60, session_id);
	put_greeting(role == MUX_NEAR, s);
	lives(m);
	if (s.kind == SESSION_NEW)
		ck_assert_uint_eq(mux_keeps(m), role == MUX_NEAR ? UINT32_MAX : 60);
	else
		ck_assert_uint_eq(mux_keeps(m), 0);
	mux_lost(m, 0, MUX_RESET, "cut");
	ck_assert_int_eq(mux_state(m), s.kind == SESSION_NEW ? MUX_DOWN : MUX_DEAD);
	done(&m);
}
END_TEST

START_TEST(a_side_that_asks_for_no_session_keeps_none)
{
	struct mux *m = mux_new(_i == 0 ? MUX_NEAR : MUX_FAR, MUX_MEMORY, "here", now);

	put_greeting(_i == 0, new_session);
	lives(m);
	pull(m);
	ck_assert_uint_eq(sent_session().kind, SESSION_NONE);
	ck_assert_uint_eq(mux_keeps(m), 0);
	mux_lost(m, 0, MUX_RESET, "cut");
	gone(&m, MUX_RESET);
}
END_TEST

START_TEST(a_peer_of_version_1_has_no_session)
{
	struct mux *m = mux_new(_i == 0 ? MUX_NEAR : MUX_FAR, MUX_MEMORY, "here", now);

	mux_keep(m, 60, session_id);
	put(frame_magic, FRAME_MAGIC);
	put_hello(1, _i == 0, MUX_MEMORY, MUX_STREAMS);
	put_frame(FRAME_PING, 0, "", 0);
	lives(m);
	ck_assert_uint_eq(mux_keeps(m), 0);
	mux_lost(m, 0, MUX_RESET, "cut");
	gone(&m, MUX_RESET);
}
END_TEST

START_TEST(a_session_after_the_greeting_breaks_the_link)
{
	struct mux *m = with_session(_i == 0 ? MUX_NEAR : MUX_FAR);
	unsigned char body[FRAME_SESSION_SIZE];

	frame_encode_session(body, &new_session);
	put_frame(FRAME_SESSION, 0, body, sizeof(body));
	breaks(&m);
}
END_TEST

#define ACKED (GREETED + 5)

START_TEST(a_join_continues_at_each_byte_that_is_kept)
{
	unsigned char before[256];
	uint64_t start, count;
	struct stream *s;
	size_t first;

	for (count = 0; count < 30; count++) {
		near = with_session(MUX_NEAR);
		start = stats(near).sent;
		s = open_stream("/a", &owner);
		first = pull(near);
		memcpy(before, sent, first);
		put_ack(start, 0);
		lives(near);
		join_with(near, SESSION_JOIN, start + count);
		if (count > first) {
			stream_release(s);
			gone(&near, MUX_PROTOCOL);
			continue;
		}
		ck_assert_int_eq(mux_state(near), MUX_UP);
		ck_assert_uint_ge(pull(near), first - count);
		ck_assert_mem_eq(sent, before + count, first - count);
		stream_release(s);
		done(&near);
	}
}
END_TEST

START_TEST(a_join_with_a_count_out_of_range_ends_the_session)
{
	static const uint64_t counts[] = { 0, ACKED - 1, 100000, INT64_MAX, UINT64_MAX };
	struct mux *m = with_session(_i < 5 ? MUX_NEAR : MUX_FAR);

	now += 10000;
	put_frame(FRAME_PING, 0, "", 0);
	lives(m);
	ck_assert_uint_gt(pull(m), 10);
	put_ack(ACKED, 0);
	lives(m);
	join_with(m, SESSION_JOIN, counts[_i % 5]);
	gone(&m, MUX_PROTOCOL);
}
END_TEST

/* Bytes before it were never kept: a join from there would send other memory. */
START_TEST(an_ack_within_the_greeting_breaks_a_session)
{
	struct mux *m = with_session(_i == 0 ? MUX_NEAR : MUX_FAR);

	now += 10000;
	put_frame(FRAME_PING, 0, NULL, 0);
	lives(m);
	ck_assert_uint_gt(pull(m), 10);
	put_ack(10, 0);
	breaks(&m);
}
END_TEST

START_TEST(another_answer_than_a_join_ends_the_session)
{
	static const unsigned kinds[] = { SESSION_NONE, SESSION_NEW, SESSION_GONE, 4, 255 };
	struct stream *s;

	near = with_session(MUX_NEAR);
	s = open_stream("/a", &owner);
	join_with(near, kinds[_i], GREETED);
	ck_assert(stream_is_closed(s));
	stream_release(s);
	gone(&near, MUX_GONE);
}
END_TEST

START_TEST(only_a_newer_generation_of_the_same_id_is_accepted)
{
	struct session s = { .kind = SESSION_JOIN };
	unsigned i;

	far = with_session(MUX_FAR);
	memcpy(s.id, session_id, sizeof(s.id));
	for (i = 0; i < 256; i++) {
		s.generation = 1;
		s.kind = (uint8_t)i;
		ck_assert(mux_claimed_slot(far, &s) == (i == SESSION_JOIN ? 0 : -1));
	}
	s.kind = SESSION_JOIN;
	for (i = 0; i < MUX_SESSION * 8; i++) {
		s.id[i / 8] ^= (unsigned char)(1 << i % 8);
		ck_assert(mux_claimed_slot(far, &s) == -1);
		s.id[i / 8] ^= (unsigned char)(1 << i % 8);
	}
	ck_assert_int_eq(mux_claimed_slot(far, &s), 0);
	join_with(far, SESSION_JOIN, GREETED);
	ck_assert_int_eq(mux_state(far), MUX_UP);
	ck_assert(mux_claimed_slot(far, &s) == -1);
	s.generation = 0;
	ck_assert(mux_claimed_slot(far, &s) == -1);
	s.generation = 2;
	ck_assert_int_eq(mux_claimed_slot(far, &s), 0);
	mux_bye(far, MUX_END, "");
	ck_assert(mux_claimed_slot(far, &s) == -1);
	done(&far);
}
END_TEST

START_TEST(a_mux_without_a_session_accepts_no_join)
{
	struct session s = { .kind = SESSION_JOIN, .generation = 1 };

	greet(&far, MUX_FAR);
	ck_assert(mux_claimed_slot(far, &s) == -1);
	done(&far);
}
END_TEST

START_TEST(the_near_side_alone_counts_generations)
{
	struct session s = new_session;
	uint32_t i;

	near = mux_new(MUX_NEAR, MUX_MEMORY, "here", now);
	mux_keep(near, 0, NULL);
	s.generation = UINT32_MAX;
	put_greeting(1, s);
	lives(near);
	pull(near);
	for (i = 1; i < 10; i++) {
		mux_lost(near, 0, MUX_RESET, "cut");
		mux_attach(near, 0, false, now);
		pull(near);
		ck_assert_uint_eq(sent_session().generation, i);
		ck_assert_uint_eq(sent_session().kind, SESSION_JOIN);
		s.kind = SESSION_JOIN;
		s.count = GREETED;
		put_greeting(1, s);
		if (i % 2 == 0)
			lives(near);
		wired = 0;
	}
	done(&near);
}
END_TEST

/* ---- sessions, both sides ---- */

static void
both_keep(void)
{
	near = mux_new(MUX_NEAR, MUX_MEMORY, "laptop", now);
	far = mux_new(MUX_FAR, MUX_MEMORY, "node", now);
	mux_keep(near, 0, NULL);
	mux_keep(far, 3600, session_id);
	cross();
	ck_assert_uint_eq(mux_keeps(near), 3600);
}

/*
 * The near side is stopped while its greeting is on its way.  The far side may
 * be in the middle of a frame: any byte after the greeting would go into it.
 */
START_TEST(nothing_follows_the_greeting_of_a_join_that_is_stopped)
{
	struct stream *s, *t;

	both_keep();
	s = open_both(&t);
	send_bytes(s, 5000);
	pull(near);
	mux_feed(far, 0, sent, 1000, now);
	ck_assert_uint_gt(held(t), 0);
	send_bytes(s, 5000);
	mux_lost(near, 0, MUX_RESET, "cut");
	mux_lost(far, 0, MUX_RESET, "cut");
	mux_attach(near, 0, false, now);
	mux_attach(far, 0, false, now);
	pull(near);
	mux_feed(far, 0, sent, sent_n, now);
	ck_assert_int_eq(mux_state(far), MUX_UP);
	take_bytes(t, held(t));
	if (_i == 0)
		mux_bye(near, MUX_RESET, "stopped by a signal");
	else
		mux_end(near, MUX_RESET, "stopped by a signal");
	ck_assert_uint_eq(pull(near), 0);
	mux_feed(far, 0, sent, sent_n, now);
	ck_assert_uint_eq(held(t), 0);
	ck_assert_int_eq(mux_state(far), MUX_UP);
	stream_release(s);
	stream_release(t);
	done(&near);
	done(&far);
}
END_TEST

/*
 * Open a stream and let the far side refuse it with many words, which are
 * retained: no ACK is sent to it.
 */
static void
refuse_one(uint32_t id)
{
	static char text[FRAME_WORDS + 1];
	struct stream *s;

	memset(text, 'w', FRAME_WORDS);
	put_open(id, 0, 0, "/a");
	lives(far);
	s = mux_accept(far);
	ck_assert_ptr_nonnull(s);
	stream_reset(s, MUX_REFUSED, text);
	stream_release(s);
	put_close(id, MUX_END);
}

static void
fill(void)
{
	far = with_session(MUX_FAR);
	while (stats(far).sent < 16 << 20) {
		refuse_one(1);
		pull(far);
		lives(far);
	}
	now += 10000;
	pull(far);
}

START_TEST(a_side_that_retains_its_most_sends_only_acks)
{
	uint64_t before;
	int i;

	fill();
	ck_assert(!mux_has_output(far, 0));
	before = stats(far).sent;
	refuse_one(3);
	pull(far);
	ck_assert_ptr_null(find_frame(FRAME_CLOSE, 3));
	for (i = 0; i < 10; i++) {
		put_frame(FRAME_PING, 0, "", 0);
		lives(far);
		ck_assert(mux_has_output(far, 0));
		ck_assert_uint_eq(pull(far), FRAME_HEAD + 12);
		ck_assert(!mux_has_output(far, 0));
	}
	now += 20 * (int64_t)SECOND; /* a PING is due, and waits too */
	mux_tick(far, now);
	ck_assert_uint_eq(pull(far), 0);
	ck_assert(!mux_has_output(far, 0));
	ck_assert_int_gt(mux_deadline(far), now);
	put_ack(before, 0);
	lives(far);
	pull(far);
	ck_assert_ptr_nonnull(find_frame(FRAME_CLOSE, 3));
	done(&far);
}
END_TEST

START_TEST(a_full_side_can_end_the_link)
{
	fill();
	if (_i == 0)
		mux_bye(far, MUX_END, "done");
	else
		put_ack(UINT64_MAX, 0);
	feed(far);
	pull(far);
	ck_assert_ptr_nonnull(find_frame(FRAME_BYE, 0));
	done(&far);
}
END_TEST

/* A peer that acknowledges nothing costs no memory without end. */
START_TEST(a_peer_that_never_acknowledges_has_a_limit)
{
	uint64_t most;
	int i;

	fill();
	most = stats(far).sent + (2 << 20);
	for (i = 0; i < 1000000 && mux_state(far) == MUX_UP; i++) {
		put_frame(FRAME_PING, 0, "", 0);
		feed(far);
		if (mux_state(far) == MUX_UP)
			pull(far);
		ck_assert_uint_le(stats(far).sent, most);
	}
	ck_assert_int_eq(mux_state(far), MUX_DEAD);
	ck_assert_uint_eq(mux_code(far), MUX_PROTOCOL);
	ck_assert_ptr_nonnull(find_frame(FRAME_BYE, 0));
	done(&far);
}
END_TEST

static long
memory_used(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return u.ru_maxrss / 1024;
}

START_TEST(a_thousand_cuts_hold_no_memory)
{
	struct stream *s, *t;
	long before = 0;
	int i;

	both_keep();
	s = open_both(&t);
	for (i = 0; i < 1000; i++) {
		send_bytes(s, 100000);
		send_bytes(t, 100000);
		pull(near);
		mux_feed(far, 0, sent, sent_n / 2, now);
		pull(far);
		mux_feed(near, 0, sent, sent_n / 3, now);
		mux_lost(near, 0, MUX_RESET, "cut");
		mux_lost(far, 0, MUX_RESET, "cut");
		mux_attach(near, 0, false, now);
		mux_attach(far, 0, i % 2 == 0, now);
		if (i % 2 == 0)
			mux_feed(near, 0, frame_magic, FRAME_MAGIC, now);
		do {
			now += 10000;
			cross();
			take_bytes(s, held(s));
			take_bytes(t, held(t));
		} while (waiting(s) > 0 || waiting(t) > 0 || mux_has_output(near, 0) ||
			 mux_has_output(far, 0));
		ck_assert_int_eq(mux_state(near), MUX_UP);
		if (i == 100)
			before = memory_used();
	}
#ifdef __SANITIZE_ADDRESS__ /* it keeps freed memory */
	before = LONG_MAX - 4;
#endif
	ck_assert_int_le(memory_used(), before + 4);
	stream_release(s);
	stream_release(t);
	cross();
	done(&near);
	done(&far);
}
END_TEST

/* ---- the start ---- */

START_TEST(a_banner_before_the_magic_is_skipped_and_kept)
{
	static const size_t sizes[] = { 0, 1, 2, 15, 16, 17, 1000, 4096, 65535, MUX_BANNER };
	static char noise[MUX_BANNER];
	size_t i, k, n = sizes[_i];

	for (i = 0; i < n; i++)
		noise[i] = (char)(' ' + i * 7 % 94);
	near = mux_new(MUX_NEAR, MUX_MEMORY, "laptop", now);
	put(noise, n);
	put(frame_magic, FRAME_MAGIC);
	put_hello(1, 1, MUX_MEMORY, 10);
	for (i = 0; i < wired; i += k) {
		k = 1 + i % 977;
		mux_feed(near, 0, wire + i, k < wired - i ? k : wired - i, now);
	}
	wired = 0;
	ck_assert_int_eq(mux_state(near), MUX_UP);
	ck_assert_uint_eq(banner_length(near), n);
	if (n > 0)
		ck_assert_mem_eq(mux_banner(near, 0, &k), noise, n);
	done(&near);
}
END_TEST

START_TEST(a_banner_of_more_than_64_KiB_ends_the_start)
{
	static char noise[MUX_BANNER + 1];

	memset(noise, 'x', sizeof(noise));
	near = mux_new(MUX_NEAR, MUX_MEMORY, "laptop", now);
	put(noise, sizeof(noise));
	feed(near);
	ck_assert_int_eq(mux_state(near), MUX_DEAD);
	ck_assert_uint_le(banner_length(near), MUX_BANNER);
	HAS(mux_why(near), "64 KiB");
	done(&near);
}
END_TEST

/* Parts of the magic belong to the banner until it is whole. */
START_TEST(a_magic_behind_its_own_beginning_is_found)
{
	near = mux_new(MUX_NEAR, MUX_MEMORY, "laptop", now);
	put("\0\0\0", 3);
	put(frame_magic, 2);
	put(frame_magic, 1);
	put(frame_magic, 5);
	put(frame_magic, FRAME_MAGIC);
	put_hello(1, 1, MUX_MEMORY, 10);
	feed(near);
	ck_assert_int_eq(mux_state(near), MUX_UP);
	ck_assert_uint_eq(banner_length(near), 3 + 2 + 1 + 5);
	done(&near);
}
END_TEST

START_TEST(a_line_that_changes_bytes_is_reported)
{
	static const struct {
		const char *bytes;
		size_t n;
	} lines[] = { { "^@\362reLAylink\r\n\n\376^@",
			  18 },                      /* a terminal that shows control characters */
		{ "\0\362reLAylink\n\n\376\0", 15 }, /* CR is dropped */
		{ "\0\362reLAylink\r\n\r\n\376\0", 17 }, /* LF becomes CR LF */
		{ "\0\362reLAylink\r\r\n\r\n\376\0", 18 },
		{ "\0\362reLAylink\n\n\n\376\0", 16 },           /* ICRNL */
		{ "\0\162reLAylink\r\n\n\176\0", 16 },           /* seven bits */
		{ "\362reLAylink\r\n\n\376", 14 },               /* NUL is dropped */
		{ "Welcome!\r\n\0\303\262reLAylink\r\n\n", 24 }, /* Latin-1 becomes UTF-8 */
		{ "\0\362reLAylink\r\n\n\303\276\0", 17 },       /* the same, seen late */
		{ "reLAylink", 9 } };

	near = mux_new(MUX_NEAR, MUX_MEMORY, "laptop", now);
	put(lines[_i].bytes, lines[_i].n);
	put("\1\0\0\44", 4);
	feed(near);
	ck_assert_int_eq(mux_state(near), MUX_DEAD);
	HAS(mux_why(near), "changes bytes");
	done(&near);
}
END_TEST

START_TEST(a_command_that_echoes_is_reported)
{
	near = mux_new(MUX_NEAR, MUX_MEMORY, "laptop", now);
	pull(near);
	mux_feed(near, 0, sent, sent_n, now);
	ck_assert_int_eq(mux_state(near), MUX_DEAD);
	HAS(mux_why(near), "sends back its input");
	done(&near);
}
END_TEST

START_TEST(two_far_ends_are_reported)
{
	far = mux_new(MUX_FAR, MUX_MEMORY, "node", now);
	put(frame_magic, FRAME_MAGIC);
	put_hello(1, 1, MUX_MEMORY, 10);
	feed(far);
	ck_assert_int_eq(mux_state(far), MUX_DEAD);
	HAS(mux_why(far), "both sides are far sides");
	done(&far);
}
END_TEST

START_TEST(a_far_side_refuses_a_banner)
{
	far = mux_new(MUX_FAR, MUX_MEMORY, "node", now);
	put("GET / HTTP/1.0\r\n", 16);
	feed(far);
	ck_assert_int_eq(mux_state(far), MUX_DEAD);
	HAS(mux_why(far), "stdin does not carry a link");
	done(&far);
}
END_TEST

/*
 * As long as a script makes the far end, magic and HELLO would be input of that
 * script.
 */
START_TEST(a_side_that_waits_for_its_peer_sends_nothing_before_the_magic)
{
	size_t i;

	near = mux_new(MUX_NEAR, MUX_MEMORY, "laptop", now);
	mux_wait_peer_first(near);
	put("relay:: at /x\n", 14);
	put(frame_magic, FRAME_MAGIC);
	for (i = 0; i < wired; i++) {
		ck_assert(!mux_has_output(near, 0));
		ck_assert_uint_eq(pull(near), 0);
		mux_feed(near, 0, wire + i, 1, now);
	}
	wired = 0;
	ck_assert(mux_has_output(near, 0));
	ck_assert_uint_gt(pull(near), FRAME_MAGIC);
	ck_assert_mem_eq(sent, frame_magic, FRAME_MAGIC);
	put_hello(1, 1, MUX_MEMORY, 10);
	feed(near);
	ck_assert_int_eq(mux_state(near), MUX_UP);
	done(&near);
}
END_TEST

START_TEST(a_side_that_has_sent_nothing_sends_no_BYE)
{
	near = mux_new(MUX_NEAR, MUX_MEMORY, "laptop", now);
	mux_wait_peer_first(near);
	put("noise\n", 6);
	feed(near);
	mux_bye(near, MUX_END, "stopped");
	ck_assert(!mux_has_output(near, 0));
	ck_assert_uint_eq(pull(near), 0);
	done(&near);
}
END_TEST

/*
 * A far end that a forced command starts reads the script that was meant for a
 * shell.  It is cut at every byte.
 */
START_TEST(a_far_side_skips_a_script_for_a_shell)
{
	static const char words[] =
	    "V='relay 0.1';o='-m -';say(){ printf 'relay%s %s\\n' :: \"$*\";};exit 1\n";
	static unsigned char text[sizeof(words) + 400];
	size_t n, cut;

	put(words, sizeof(words) - 1);
	put(frame_magic, FRAME_MAGIC);
	put_hello(1, 0, MUX_MEMORY, 10);
	memcpy(text, wire, n = wired);
	wired = 0;
	for (cut = 0; cut <= n; cut++) {
		far = mux_new(MUX_FAR, MUX_MEMORY, "node", now);
		ck_assert_uint_gt(pull(far), FRAME_MAGIC); /* it does not wait */
		mux_feed(far, 0, text, cut, now);
		ck_assert_int_eq(mux_state(far), cut < sizeof(words) - 1 + FRAME_MAGIC
						     ? MUX_STARTING
						 : cut < n ? MUX_GREETING
							   : MUX_UP);
		mux_feed(far, 0, text + cut, n - cut, now);
		ck_assert_int_eq(mux_state(far), MUX_UP);
		done(&far);
	}
}
END_TEST

START_TEST(a_far_side_skips_no_other_text)
{
	static const char words[] = "V='relay ";
	char text[sizeof(words)];

	memcpy(text, words, sizeof(words));
	text[_i] = '?';
	far = mux_new(MUX_FAR, MUX_MEMORY, "node", now);
	mux_feed(far, 0, text, (size_t)_i, now);
	ck_assert_int_eq(mux_state(far), MUX_STARTING);
	mux_feed(far, 0, text + _i, 1, now);
	ck_assert_int_eq(mux_state(far), MUX_DEAD);
	HAS(mux_why(far), "stdin does not carry a link");
	done(&far);
}
END_TEST

START_TEST(a_far_side_skips_no_script_of_more_than_64_KiB)
{
	static char text[MUX_BANNER + 1];

	memset(text, 'x', sizeof(text));
	memcpy(text, "V='relay ", 9);
	far = mux_new(MUX_FAR, MUX_MEMORY, "node", now);
	mux_feed(far, 0, text, MUX_BANNER, now);
	ck_assert_int_eq(mux_state(far), MUX_STARTING);
	mux_feed(far, 0, text, 1, now);
	ck_assert_int_eq(mux_state(far), MUX_DEAD);
	done(&far);
}
END_TEST

START_TEST(another_version_is_refused_by_name_and_BYE_13)
{
	const unsigned char *bye;

	near = mux_new(MUX_NEAR, MUX_MEMORY, "laptop", now);
	pull(near);
	put(frame_magic, FRAME_MAGIC);
	put_hello(7, 1, MUX_MEMORY, 10);
	feed(near);
	ck_assert_int_eq(mux_state(near), MUX_DEAD);
	ck_assert_uint_eq(mux_code(near), MUX_VERSION);
	HAS(mux_why(near), "peer");
	HAS(mux_why(near), "version 7");
	HAS(mux_why(near), "version 2");
	pull(near);
	ck_assert_ptr_nonnull(bye = find_frame(FRAME_BYE, 0));
	ck_assert_uint_eq(frame_get(bye + 8, 2), 13);
	done(&near);
}
END_TEST

START_TEST(a_hello_that_allows_no_work_breaks_the_link)
{
	static const uint32_t bad[][2] = { { MUX_MEMORY, 0 }, { MUX_MEMORY, MUX_STREAMS + 1 },
		{ 0, 10 }, { 4095, 10 }, { MUX_MEMORY, UINT32_MAX } };

	near = mux_new(MUX_NEAR, MUX_MEMORY, "laptop", now);
	pull(near);
	put(frame_magic, FRAME_MAGIC);
	put_hello(1, 1, bad[_i][0], bad[_i][1]);
	breaks(&near);
}
END_TEST

START_TEST(a_BYE_ends_the_link_with_its_words)
{
	greet(&near, MUX_NEAR);
	put_frame(FRAME_BYE, 0, "\0\12no room", 9);
	feed(near);
	ck_assert_int_eq(mux_state(near), MUX_DEAD);
	ck_assert(mux_ended_by_peer(near));
	ck_assert_uint_eq(mux_code(near), MUX_NO_ROOM);
	ck_assert_str_eq(mux_why(near), "no room");
	ck_assert(!mux_has_output(near, 0));
	done(&near);
}
END_TEST

START_TEST(only_the_hello_is_sent_before_the_far_hello)
{
	near = mux_new(MUX_NEAR, MUX_MEMORY, "laptop", now);
	ck_assert(mux_has_output(near, 0));
	pull(near);
	ck_assert_mem_eq(sent, frame_magic, FRAME_MAGIC);
	ck_assert_ptr_eq(find_frame(FRAME_HELLO, 0), sent + FRAME_MAGIC);
	ck_assert_uint_eq(sent_n, FRAME_MAGIC + FRAME_HEAD + FRAME_HELLO_FIXED + 6 + FRAME_HEAD +
				      FRAME_SESSION_SIZE);
	ck_assert(!mux_has_output(near, 0));
	ck_assert_ptr_null(open_stream("/x", &owner));
	done(&near);
}
END_TEST

/* ---- what breaks the link: PROTOCOL section 9 ---- */

static struct stream *taken; /* the far side's stream 1, or the near side's */

static void
far_with_stream(void)
{
	greet(&far, MUX_FAR);
	put_open(1, 1000, 1000, "/t");
	lives(far);
	ck_assert_ptr_nonnull(taken = mux_accept(far));
	stream_set_owner(taken, &owner);
}

static void
near_with_stream(void)
{
	greet(&near, MUX_NEAR);
	ck_assert_ptr_nonnull(taken = open_stream("/t", &owner));
	pull(near);
	ck_assert_uint_eq(stream_id(taken), 1);
	ck_assert_ptr_nonnull(find_frame(FRAME_OPEN, 1));
}

static void
breaks_and_free(struct mux **m)
{
	feed(*m);
	ck_assert_msg(mux_state(*m) == MUX_DEAD, "the link is still up");
	ck_assert(stream_is_closed(taken));
	ck_assert_int_eq(mux_errno_of(stream_code(taken)), ECONNRESET);
	stream_release(taken);
	broken(m);
}

#define RULE(name, side, frames)        \
	START_TEST(name)                \
	{                               \
		side##_with_stream();   \
		frames;                 \
		breaks_and_free(&side); \
	}                               \
	END_TEST

RULE(an_unknown_type_below_128, far, put_frame(13, 0, "", 0))
RULE(the_last_unknown_type_below_128, near, put_frame(127, 0, "", 0))
RULE(an_ack_every_of_a_wrong_length, far, put_number(FRAME_ACK_EVERY, 0, 4096, 3))
RULE(type_0, near, put_frame(0, 0, "", 0))
RULE(a_length_beyond_the_limit, far, put_frame(FRAME_DATA, 1, sent, 65537))
RULE(a_skipped_type_beyond_the_limit, far, put_frame(200, 0, sent, 8193))
RULE(a_stream_in_a_frame_of_the_link, near, put_frame(FRAME_PING, 1, "", 0))
RULE(no_stream_in_a_frame_of_one, near, put_frame(FRAME_EOF, 0, "", 0))
RULE(a_second_hello, near, put_hello(1, 1, MUX_MEMORY, 10))
RULE(a_second_hello_at_far, far, put_hello(1, 0, MUX_MEMORY, 10))
RULE(an_open_from_the_far_side, near, put_open(3, 4096, 4096, "/x"))
RULE(an_open_of_an_even_id, far, put_open(2, 4096, 4096, "/x"))
RULE(an_open_beyond_the_limit, far, put_open(2 * MUX_STREAMS + 1, 4096, 4096, "/x"))
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
RULE(credits_beyond_2_31, far, put_number(FRAME_CREDIT, 1, 0x7fffffff - 1000, 4);
     put_number(FRAME_CREDIT, 1, 1, 4))
RULE(an_ack_of_more_than_was_sent, near, put_ack(1000000, 0))
RULE(an_ack_of_less_than_was_acked, near, put_ack(stats(near).sent, 0);
     put_ack(stats(near).sent - 1, 0))
RULE(an_ack_of_all_there_is, near, put_ack(UINT64_MAX, UINT32_MAX))

/* The breach frees the stream: it must not be used then. */
START_TEST(a_breach_by_a_released_stream)
{
	near_with_stream();
	put_frame(FRAME_OPENED, 1, "", 0);
	lives(near);
	stream_stop(taken);
	stream_shutdown(taken);
	stream_push(taken);
	pull(near);
	stream_release(taken);
	if (_i == 0)
		put_frame(FRAME_OPENED, 1, "", 0);
	else if (_i == 1)
		put_number(FRAME_CREDIT, 1, 0, 4);
	else if (_i == 2)
		put_data(1, 65536), put_data(1, 65536), put_data(1, 65536), put_data(1, 65536),
		    put_data(1, 1);
	else
		put_open(1, 1, 1, "");
	breaks(&near);
}
END_TEST

START_TEST(credits_up_to_2_31_less_1_are_taken)
{
	far_with_stream();
	put_number(FRAME_CREDIT, 1, 0x7fffffff - 1000, 4);
	lives(far);
	ck_assert_uint_gt(stream_room(taken), 1000);
	stream_release(taken);
	done(&far);
}
END_TEST

START_TEST(another_frame_before_hello_breaks_the_link)
{
	far = mux_new(MUX_FAR, MUX_MEMORY, "node", now);
	pull(far);
	put(frame_magic, FRAME_MAGIC);
	put_open(1, 4096, 4096, "/x");
	breaks(&far);
}
END_TEST

START_TEST(types_from_129_are_skipped)
{
	int i;

	far_with_stream();
	for (i = 129; i < 256; i++)
		put_frame((unsigned)i, (uint32_t)i % 3, sent, (size_t)i * 30);
	put_frame(255, 0xffffffff, sent, 8192);
	put_data(1, 7);
	lives(far);
	ck_assert_uint_eq(held(taken), 7);
	stream_release(taken);
	done(&far);
}
END_TEST

START_TEST(more_opens_than_hello_allows_break_the_link)
{
	uint32_t i;

	greet(&far, MUX_FAR);
	for (i = 0; i < MUX_STREAMS; i++) {
		put_open(2 * i + 1, 4096, 4096, "");
		if (wired > 500000 || i == MUX_STREAMS - 1)
			lives(far);
	}
	ck_assert_uint_eq(streams(far), MUX_STREAMS);
	ck_assert_uint_le(reserved(far), MUX_MEMORY);
	put_open(2 * MUX_STREAMS + 1, 4096, 4096, "");
	breaks(&far);
}
END_TEST

/* Only a stream whose window exceeds the memory is refused. */
START_TEST(an_open_beyond_the_memory_is_refused_alone)
{
	uint32_t i;

	greet(&far, MUX_FAR);
	for (i = 0; i < 300; i++)
		put_open(2 * i + 1, MUX_WINDOW_FIRST, 4096, "/x");
	lives(far);
	pull(far);
	ck_assert_uint_le(reserved(far), MUX_MEMORY);
	ck_assert_ptr_null(find_frame(FRAME_CLOSE, 511));
	ck_assert_ptr_nonnull(find_frame(FRAME_CLOSE, 513));
	ck_assert_uint_eq(frame_get(find_frame(FRAME_CLOSE, 513) + 8, 2), MUX_NO_ROOM);
	done(&far);
}
END_TEST

/*
 * No memory is reserved for targets: long ones are accepted only while few
 * streams are open.
 */
START_TEST(a_long_target_beside_many_streams_is_refused_alone)
{
	static char name[FRAME_TARGET + 1];
	uint32_t i;

	memset(name, '/', FRAME_TARGET);
	greet(&far, MUX_FAR);
	for (i = 0; i < 1025; i++) {
		put_open(2 * i + 1, 0, 4096, name);
		feed(far);
	}
	name[512] = '\0';
	put_open(2 * i + 1, 0, 4096, name);
	lives(far);
	pull(far);
	ck_assert_ptr_null(find_frame(FRAME_CLOSE, 2 * 1023 + 1));
	ck_assert_ptr_nonnull(find_frame(FRAME_CLOSE, 2 * 1024 + 1));
	ck_assert_uint_eq(frame_get(find_frame(FRAME_CLOSE, 2 * 1024 + 1) + 8, 2), MUX_NO_ROOM);
	ck_assert_ptr_null(find_frame(FRAME_CLOSE, 2 * 1025 + 1));
	done(&far);
}
END_TEST

/*
 * OPEN and CLOSE in turn, a million times: ids become free, and no closed
 * stream is accepted.
 */
START_TEST(a_million_opens_and_closes_hold_nothing)
{
	struct stream *s;
	int i, k;

	greet(&far, MUX_FAR);
	for (i = 0; i < 1000; i++) {
		for (k = 0; k < 1000; k++) {
			put_open((uint32_t)(2 * k + 1), 4096, 4096, "/target");
			put_close((uint32_t)(2 * k + 1), 1);
		}
		lives(far);
		while ((s = mux_accept(far)) != NULL) {
			ck_assert_msg(strcmp(stream_target(s), "/target") == 0,
			    "a closed stream's target has become \"%s\"", stream_target(s));
			stream_release(s);
		}
		pull(far);
		ck_assert_uint_eq(streams(far), 0);
		ck_assert_uint_eq(reserved(far), 0);
	}
	done(&far);
}
END_TEST

START_TEST(a_stream_that_was_closed_before_it_was_accepted_is_not_accepted)
{
	greet(&far, MUX_FAR);
	put_open(1, 4096, 4096, "/target");
	put_close(1, 1);
	lives(far);
	ck_assert_ptr_null(mux_accept(far));
	pull(far);
	ck_assert_ptr_nonnull(find_frame(FRAME_CLOSE, 1));
	done(&far);
}
END_TEST

START_TEST(a_target_that_is_too_long_for_OPEN_is_refused)
{
	static char target[FRAME_TARGET + 2];
	struct stream *s;

	greet(&near, MUX_NEAR);
	memset(target, 'x', FRAME_TARGET + 1);
	ck_assert_ptr_null(open_stream(target, &owner));
	target[FRAME_TARGET] = '\0';
	ck_assert_ptr_nonnull(s = open_stream(target, &owner));
	pull(near);
	ck_assert_ptr_nonnull(find_frame(FRAME_OPEN, stream_id(s)));
	stream_release(s);
	done(&near);
}
END_TEST

START_TEST(no_more_streams_than_the_far_side_allows)
{
	struct stream *s[11];
	int i;

	near = mux_new(MUX_NEAR, MUX_MEMORY, "laptop", now);
	put(frame_magic, FRAME_MAGIC);
	put_hello(1, 1, MUX_MEMORY, 10);
	feed(near);
	for (i = 0; i < 11; i++) {
		s[i] = open_stream("/x", &owner);
		ck_assert_int_eq(s[i] != NULL, i < 10);
	}
	for (i = 0; i < 10; i++) {
		ck_assert_uint_eq(stream_id(s[i]) & 1, 1);
		ck_assert_uint_lt(stream_id(s[i]), 20);
		stream_release(s[i]);
	}
	pull(near);
	ck_assert_ptr_null(open_stream("/x", &owner)); /* ids are free when CLOSE has crossed */
	put_close(7, 1);
	lives(near);
	ck_assert_ptr_nonnull(s[0] = open_stream("/x", &owner));
	ck_assert_uint_eq(stream_id(s[0]), 7);
	stream_release(s[0]);
	done(&near);
}
END_TEST

/*
 * DATA that is read between our CLOSE and that of the peer is dropped, and
 * reserves no memory.
 */
START_TEST(what_was_on_its_way_when_CLOSE_was_sent_is_dropped)
{
	far_with_stream();
	stream_reset(taken, MUX_REFUSED, "connection refused");
	pull(far);
	ck_assert_ptr_nonnull(find_frame(FRAME_CLOSE, 1));
	ck_assert_mem_eq(find_frame(FRAME_CLOSE, 1) + 8, "\0\2connection refused", 20);
	put_data(1, 1000);
	put_number(FRAME_CREDIT, 1, 5, 4);
	put_frame(FRAME_STOP, 1, "", 0);
	put_frame(FRAME_EOF, 1, "", 0);
	put_close(1, 1);
	lives(far);
	ck_assert_uint_eq(streams(far), 0);
	ck_assert_uint_eq(reserved(far), 0);
	stream_release(taken);
	put_data(1, 1);
	breaks(&far);
}
END_TEST

START_TEST(memory_is_free_when_a_stream_is_closed_in_the_middle_of_data)
{
	size_t at;

	for (at = 0; at <= 8 + 600; at += 19) {
		far_with_stream();
		put_data(1, 600);
		mux_feed(far, 0, wire, at, now);
		if (_i == 0)
			stream_reset(taken, MUX_RESET, "");
		else if (_i == 1)
			stream_stop(taken);
		else if (_i == 2)
			stream_stop(taken), stream_reset(taken, MUX_RESET, "");
		else if (_i == 3)
			stream_release(taken);
		else
			stream_discard(taken);
		mux_feed(far, 0, wire + at, wired - at, now);
		wired = 0;
		pull(far);
		ck_assert_uint_le(reserved(far), 1000);
		put_close(1, 1);
		lives(far);
		ck_assert_msg(reserved(far) == 0, "closed after %d bytes: %ld stay reserved",
		    (int)at, (long)reserved(far));
		if (_i != 3)
			stream_release(taken);
		done(&far);
	}
}
END_TEST

/* ---- streams ---- */

START_TEST(data_follows_open_at_once)
{
	struct stream *s, *t;

	both(MUX_MEMORY);
	s = open_stream("/a.soc", &owner);
	send_bytes(s, 5);
	stream_shutdown(s);
	pull(near);
	mux_feed(far, 0, sent, sent_n, now);
	ck_assert_ptr_nonnull(t = mux_accept(far));
	stream_set_owner(t, &owner);
	ck_assert_uint_eq(held(t), 5);
	ck_assert(stream_eof_read(t));
	stream_release(t);
	cross();
	ck_assert(is_reset(s));
	stream_release(s);
	over();
}
END_TEST

START_TEST(a_refusal_carries_code_and_words)
{
	static const int errs[] = { ECONNREFUSED, ENOENT, EACCES, ETIMEDOUT, EHOSTUNREACH, EMFILE };
	struct stream *s, *t;

	both(MUX_MEMORY);
	s = open_stream("/a.soc", &owner);
	cross();
	t = mux_accept(far);
	stream_set_owner(t, &owner);
	stream_reset(t, mux_code_of(errs[_i]), "because");
	stream_release(t);
	cross();
	ck_assert(is_reset(s));
	ck_assert(stream_is_closed(s));
	ck_assert_int_eq(mux_errno_of(stream_code(s)), errs[_i]);
	ck_assert_uint_eq(stream_code(s), mux_code_of(errs[_i]));
	ck_assert_str_eq(stream_reason(s), "because");
	stream_release(s);
	over();
}
END_TEST

START_TEST(each_direction_ends_alone)
{
	struct stream *t, *s;

	both(MUX_MEMORY);
	s = open_both(&t);
	send_bytes(s, 10);
	stream_shutdown(s);
	cross();
	ck_assert(stream_eof_sent(s));
	ck_assert(stream_eof_read(t));
	ck_assert_uint_eq(held(t), 10);
	send_bytes(t, 20);
	cross();
	ck_assert_uint_eq(held(s), 20);
	ck_assert(!stream_eof_read(s));
	stream_shutdown(t);
	cross();
	ck_assert(stream_eof_read(s));
	ck_assert_uint_eq(held(s), 20);
	take_bytes(s, 20);
	cross();
	ck_assert_uint_eq(streams(near), 1); /* CLOSE is sent when all was delivered: not yet */
	take_bytes(t, 10);
	cross();
	ck_assert_uint_eq(streams(near), 0);
	ck_assert_uint_eq(streams(far), 0);
	ck_assert_uint_eq(stream_code(s), MUX_END);
	stream_release(s);
	stream_release(t);
	over();
}
END_TEST

START_TEST(stop_is_answered_by_eof_and_the_other_direction_continues)
{
	struct stream *t, *s;

	both(MUX_MEMORY);
	s = open_both(&t);
	send_bytes(t, 3000000);
	cross();
	stream_stop(s);
	stream_stop(s);
	cross();
	ck_assert(stream_is_stopped(t));
	ck_assert(stream_eof_sent(t));
	ck_assert(stream_eof_read(s));
	ck_assert(!is_reset(t));
	ck_assert_uint_eq(reserved(near), 0);
	send_bytes(s, 100);
	cross();
	ck_assert_uint_eq(held(t), 100);
	take_bytes(t, 100);
	stream_shutdown(s);
	cross();
	ck_assert_uint_eq(streams(near), 0);
	stream_release(s);
	stream_release(t);
	over();
}
END_TEST

START_TEST(a_side_that_sent_stop_and_eof_may_be_released_without_a_reset)
{
	struct stream *t, *s;

	both(MUX_MEMORY);
	s = open_both(&t);
	stream_stop(s);
	send_bytes(s, 100);
	stream_shutdown(s);
	pull(near);
	stream_release(s); /* before the answer to STOP has come */
	mux_feed(far, 0, sent, sent_n, now);
	cross();
	ck_assert(stream_eof_read(t));
	ck_assert_uint_eq(held(t), 100);
	take_bytes(t, 100);
	cross();
	ck_assert_uint_eq(streams(near), 0);
	stream_release(t);
	over();
}
END_TEST

START_TEST(a_reset_passes_both_ways_at_once)
{
	struct stream *t, *s;

	both(MUX_MEMORY);
	s = open_both(&t);
	send_bytes(s, 3000000);
	send_bytes(t, 3000000);
	cross();
	stream_reset(_i ? t : s, MUX_RESET, "");
	stream_reset(_i ? t : s, MUX_RESET, "again");
	cross();
	ck_assert(
	    stream_is_closed(s) && sends_no_more(s) && stream_is_closed(t) && sends_no_more(t));
	ck_assert_int_eq(mux_errno_of(stream_code(s)), ECONNRESET);
	ck_assert_int_eq(mux_errno_of(stream_code(t)), ECONNRESET);
	ck_assert_uint_eq(held(_i ? t : s) + waiting(_i ? t : s), 0);
	ck_assert_uint_eq(held(_i ? s : t), MUX_WINDOW_FIRST); /* what was received before */
	ck_assert_uint_eq(streams(near) + streams(far), 0);
	stream_release(s);
	stream_release(t);
	over();
}
END_TEST

START_TEST(ids_are_used_again_and_never_while_they_are_held)
{
	struct stream *t[8], *s[8];
	int i, round;

	near = mux_new(MUX_NEAR, MUX_MEMORY, "laptop", now);
	far = mux_new(MUX_FAR, MUX_MEMORY, "node", now);
	mux_limit_streams(far, 8);
	cross();
	for (round = 0; round < 5000; round++) {
		for (i = round % 3; i < 8; i++) {
			s[i] = open_both(&t[i]);
			ck_assert_uint_eq(stream_id(s[i]), stream_id(t[i]));
			send_bytes(s[i], 10);
		}
		for (i = round % 3; i < 8; i++) {
			ck_assert_uint_eq(held(t[i]), i == 7 ? 0 : 10);
			if (i % 2 == 0)
				stream_release(s[i]);
			stream_release(t[i]);
			if (i % 2 != 0)
				stream_release(s[i]);
		}
		cross();
		ck_assert_uint_eq(streams(near) + streams(far), 0);
	}
	over();
}
END_TEST

START_TEST(the_end_of_the_channel_resets_every_stream)
{
	struct stream *t, *s;

	both(MUX_MEMORY);
	s = open_both(&t);
	send_bytes(s, 100);
	cross();
	mux_lost(near, 0, MUX_RESET, "gone");
	ck_assert_int_eq(mux_state(near), MUX_DEAD);
	ck_assert_str_eq(mux_why(near), "gone");
	ck_assert(is_reset(s));
	ck_assert(is_reset(s));
	ck_assert_int_eq(mux_errno_of(stream_code(s)), ECONNRESET);
	ck_assert(!mux_has_output(near, 0));
	ck_assert_ptr_null(open_stream("/x", &owner));
	stream_stop(s);
	stream_push(s);
	stream_reset(s, MUX_RESET, "");
	stream_release(s);
	done(&near);
	mux_bye(far, MUX_END, "that is all");
	ck_assert(mux_has_output(far, 0));
	pull(far);
	ck_assert_ptr_nonnull(find_frame(FRAME_BYE, 0));
	ck_assert(stream_is_closed(t));
	ck_assert_uint_eq(held(t), 100);
	stream_release(t);
	done(&far);
}
END_TEST

/* ---- the end of a stream ---- */

/*
 * The far side's stream 1 was opened with a window of 1,000: that much is
 * reserved, wherever the bytes are.
 */
START_TEST(reserved_is_the_window_then_the_bytes_then_the_credit)
{
	far_with_stream();
	ck_assert_uint_eq(reserved(far), 1000);
	put_data(1, 600);
	mux_feed(far, 0, wire, 8 + 250, now);
	ck_assert_uint_eq(reserved(far), 1000);
	mux_feed(far, 0, wire + 8 + 250, wired - 8 - 250, now);
	wired = 0;
	ck_assert_uint_eq(reserved(far), 1000);
	take_bytes(taken, 240);
	ck_assert_uint_eq(reserved(far), 1000);
	take_bytes(taken, 60);
	pull(far);
	ck_assert_ptr_nonnull(find_frame(FRAME_CREDIT, 1));
	ck_assert_uint_ge(reserved(far), 1000);
	put_frame(FRAME_EOF, 1, "", 0);
	lives(far);
	ck_assert_uint_eq(reserved(far), 300); /* no window after EOF */
	take_bytes(taken, 100);
	ck_assert_uint_eq(reserved(far), 200);
	stream_release(taken);
	ck_assert_uint_eq(reserved(far), 0);
	done(&far);
}
END_TEST

/*
 * A reset may come while either side has bytes queued, on the way and received.
 */
START_TEST(ten_thousand_resets_with_data_queued_leave_nothing_reserved)
{
	struct stream *s, *t;
	const unsigned char *frame;
	int i;

	both(MUX_MEMORY);
	for (i = 0; i < 10000; i++) {
		s = open_both(&t);
		send_bytes(s, 1 + (size_t)(i * 7919 % 40000));
		send_bytes(t, 1 + (size_t)(i * 104729 % 40000));
		if (i % 2 == 0)
			cross();
		if (i % 3 == 0 && held(t) > 0)
			take_bytes(t, held(t) / 2);
		if (i % 5 == 0)
			stream_stop(s);
		if (i % 8 < 4)
			stream_reset(i % 4 < 2 ? s : t, MUX_RESET, "");
		if (i % 16 < 8)
			cross();
		stream_release(s);
		stream_release(t);
		cross();
		ck_assert_uint_eq(streams(near) + streams(far), 0);
		ck_assert_msg(reserved(near) == 0 && reserved(far) == 0,
		    "round %d: %lu and %lu stay reserved", i, (unsigned long)reserved(near),
		    (unsigned long)reserved(far));
	}
	ck_assert_ptr_nonnull(s = open_stream("/x", &owner));
	pull(near);
	ck_assert_ptr_nonnull(frame = find_frame(FRAME_OPEN, stream_id(s)));
	ck_assert_uint_eq(frame_get(frame + FRAME_HEAD, 4), MUX_WINDOW_FIRST);
	ck_assert_uint_eq(frame_get(frame + FRAME_HEAD + 4, 4), MUX_WINDOW_FIRST);
	stream_release(s);
	over();
}
END_TEST

/* ${_i}: the code of CLOSE; 0 before both EOFs is a reset, too. */
START_TEST(what_was_received_before_a_reset_stays)
{
	far_with_stream();
	put_data(1, 600);
	put_close(1, (uint16_t)_i);
	lives(far);
	ck_assert(stream_is_closed(taken));
	ck_assert_int_eq(stream_code(taken), _i == 0 ? MUX_RESET : _i);
	ck_assert(!stream_eof_read(taken));
	ck_assert_uint_eq(held(taken), 600);
	ck_assert_uint_eq(reserved(far), 600);
	pull(far);
	ck_assert_ptr_nonnull(find_frame(FRAME_CLOSE, 1));
	ck_assert_uint_ne(frame_get(find_frame(FRAME_CLOSE, 1) + FRAME_HEAD, 2), MUX_END);
	ck_assert_uint_eq(streams(far), 0);
	take_bytes(taken, 400);
	ck_assert_uint_eq(reserved(far), 200);
	ck_assert_uint_eq(pull(far), 0); /* no CREDIT for a stream that has ended */
	stream_release(taken);
	ck_assert_uint_eq(reserved(far), 0);
	done(&far);
}
END_TEST

/* The same when the channel ends, with a DATA frame read in part. */
START_TEST(what_was_received_before_the_end_of_the_link_stays)
{
	far_with_stream();
	put_data(1, 600);
	mux_feed(far, 0, wire, wired - 100, now);
	wired = 0;
	if (_i == 0)
		mux_lost(far, 0, MUX_RESET, "gone");
	else
		mux_bye(far, MUX_RESET, "gone");
	ck_assert_uint_eq(held(taken), 500);
	ck_assert_uint_eq(reserved(far), 500);
	take_bytes(taken, 300);
	ck_assert_uint_eq(reserved(far), 200);
	take_bytes(taken, 200);
	ck_assert_uint_eq(reserved(far), 0);
	stream_release(taken);
	done(&far);
}
END_TEST

START_TEST(a_mux_may_be_freed_before_its_last_stream_is_released)
{
	struct stream *s[3];
	int i;

	greet(&far, MUX_FAR);
	for (i = 0; i < 3; i++) {
		put_open((uint32_t)(2 * i + 1), 1000, 1000, "/t");
		put_data((uint32_t)(2 * i + 1), 100);
		put_frame(FRAME_EOF, (uint32_t)(2 * i + 1), "", 0);
	}
	lives(far);
	for (i = 0; i < 3; i++) {
		s[i] = mux_accept(far);
		stream_set_owner(s[i], &owner);
		send_bytes(s[i], 10);
	}
	mux_free(far);
	far = NULL;
	for (i = 0; i < 3; i++) {
		ck_assert(stream_is_closed(s[i]) && is_reset(s[i]));
		ck_assert_str_eq(stream_target(s[i]), "/t");
		ck_assert_uint_eq(held(s[i]), 100);
		take_bytes(s[i], 40);
		send_bytes(s[i], 10);
		stream_shutdown(s[i]);
		stream_stop(s[i]);
		ck_assert_uint_eq(stream_room(s[i]), 0);
		stream_release(s[i]);
	}
	buf_trim();
}
END_TEST

/* After EOF, the sender still sees that its last bytes are taken. */
START_TEST(credit_is_sent_after_eof_while_bytes_are_held)
{
	struct stream *s, *t;
	uint64_t progress;
	int i;

	both(MUX_MEMORY);
	s = open_both(&t);
	send_bytes(s, 10000);
	stream_shutdown(s);
	cross();
	ck_assert(stream_eof_read(t));
	for (i = 0; i < 9; i++) {
		progress = stream_progress(s);
		take_bytes(t, 1000);
		pull(far);
		ck_assert_ptr_nonnull(find_frame(FRAME_CREDIT, stream_id(t)));
		ck_assert_uint_eq(
		    frame_get(find_frame(FRAME_CREDIT, stream_id(t)) + FRAME_HEAD, 4), 1000);
		mux_feed(near, 0, sent, sent_n, now);
		ck_assert_uint_ne(stream_progress(s), progress);
		ck_assert_uint_eq(reserved(far), 10000 - 1000 * (uint64_t)(i + 1));
	}
	stream_shutdown(t);
	cross();
	take_bytes(t, 1000);
	pull(far);
	ck_assert_ptr_null(find_frame(FRAME_CREDIT, stream_id(t)));
	sent_close(stream_id(t), MUX_END, ""); /* shows that all were taken */
	mux_feed(near, 0, sent, sent_n, now);
	cross();
	ck_assert_uint_eq(stream_code(s), MUX_END);
	ck_assert_uint_eq(stream_code(t), MUX_END);
	stream_release(s);
	stream_release(t);
	over();
}
END_TEST

/*
 * Frames read and DATA sent are progress; time, and DATA that waits for a
 * window, are not.
 */
START_TEST(progress_changes_when_the_peer_shows_that_the_stream_moves)
{
	uint64_t progress;

	far_with_stream();
	progress = stream_progress(taken);
	send_bytes(taken, 1500);
	ck_assert_uint_eq(stream_progress(taken), progress);
	pull(far);
	ck_assert_uint_ne(stream_progress(taken), progress);
	ck_assert_uint_eq(stream_sent(taken), 1000);
	progress = stream_progress(taken);
	now += SECOND;
	mux_tick(far, now);
	pull(far);
	ck_assert_uint_eq(stream_progress(taken), progress);
	put_number(FRAME_CREDIT, 1, 100, 4);
	lives(far);
	ck_assert_uint_ne(stream_progress(taken), progress);
	stream_release(taken);
	done(&far);
}
END_TEST

/* The peer's stream 1 has sent ${n} bytes and EOF, and has read our EOF. */
static void
far_with_both_eofs(size_t n)
{
	far_with_stream();
	if (n > 0)
		put_data(1, n);
	put_frame(FRAME_EOF, 1, "", 0);
	lives(far);
	stream_shutdown(taken);
	pull(far);
	ck_assert_ptr_nonnull(find_frame(FRAME_EOF, 1));
}

#define LOSS "not everything was delivered"

/* ${_i}: how the received bytes are dropped, before and after the peer's CLOSE. */
START_TEST(a_close_after_both_eofs_reports_what_was_dropped)
{
	far_with_both_eofs(600);
	ck_assert_ptr_null(find_frame(FRAME_CLOSE, 1));
	take_bytes(taken, 100);
	if (_i >= 3) {
		put_close(1, MUX_END); /* the bytes that we sent were delivered */
		lives(far);
	}
	if (_i % 3 == 0)
		stream_stop(taken);
	else if (_i % 3 == 1)
		stream_discard(taken);
	else
		stream_release(taken);
	pull(far);
	sent_close(1, MUX_RESET, LOSS);
	ck_assert_uint_eq(reserved(far), 0);
	if (_i < 3) {
		put_close(1, MUX_END);
		lives(far);
	}
	ck_assert_uint_eq(streams(far), 0);
	if (_i % 3 != 2) {
		ck_assert_uint_eq(stream_code(taken), MUX_END);
		stream_release(taken);
	}
	done(&far);
}
END_TEST

START_TEST(a_close_reports_what_was_dropped_after_the_clean_close_of_the_peer)
{
	far_with_both_eofs(600);
	put_close(1, MUX_END);
	lives(far);
	stream_discard(taken);
	pull(far);
	sent_close(1, MUX_RESET, LOSS);
	stream_release(taken);
	done(&far);
}
END_TEST

/*
 * ${_i}: 0 stop, 1 discard.  DATA that comes later is dropped, and CLOSE
 * reports this.  Without such DATA, CLOSE has code 0.
 */
START_TEST(a_close_reports_data_that_comes_after_stop_or_discard)
{
	size_t n;

	for (n = 0; n <= 10; n += 10) {
		far_with_stream();
		if (_i == 0)
			stream_stop(taken);
		else
			stream_discard(taken);
		stream_shutdown(taken);
		pull(far);
		ck_assert((find_frame(FRAME_STOP, 1) != NULL) == (_i == 0));
		if (n > 0)
			put_data(1, n);
		put_frame(FRAME_EOF, 1, "", 0);
		lives(far);
		ck_assert_uint_eq(held(taken), 0);
		pull(far);
		if (n > 0)
			sent_close(1, MUX_RESET, LOSS);
		else
			sent_close(1, MUX_END, "");
		stream_release(taken);
		done(&far);
	}
}
END_TEST

/*
 * A side that has sent EOF and STOP waits for the peer's EOF, also after its
 * owner has released it.
 */
START_TEST(a_released_stream_reports_what_it_dropped)
{
	far_with_stream();
	put_data(1, 600);
	lives(far);
	stream_stop(taken);
	stream_shutdown(taken);
	pull(far);
	stream_release(taken);
	pull(far);
	ck_assert_ptr_null(find_frame(FRAME_CLOSE, 1));
	put_frame(FRAME_EOF, 1, "", 0);
	lives(far);
	pull(far);
	sent_close(1, MUX_RESET, LOSS);
	put_close(1, MUX_END);
	lives(far);
	ck_assert_uint_eq(streams(far), 0);
	done(&far);
}
END_TEST

/*
 * The side that reads the report sends its own CLOSE when its owner has taken
 * or discarded all bytes.
 */
START_TEST(a_report_of_loss_leaves_the_other_direction_alone)
{
	far_with_both_eofs(600);
	put_frame(FRAME_CLOSE, 1, "\0\1" LOSS, 2 + strlen(LOSS));
	lives(far);
	ck_assert(stream_is_closed(taken));
	ck_assert_uint_eq(stream_code(taken), MUX_RESET);
	ck_assert_str_eq(stream_reason(taken), LOSS);
	ck_assert_uint_eq(held(taken), 600);
	pull(far);
	ck_assert_ptr_null(find_frame(FRAME_CLOSE, 1));
	ck_assert_uint_eq(streams(far), 1);
	take_bytes(taken, 400);
	pull(far);
	ck_assert_ptr_null(find_frame(FRAME_CLOSE, 1));
	if (_i == 0)
		take_bytes(taken, 200);
	else
		stream_discard(taken);
	pull(far);
	ck_assert_ptr_nonnull(find_frame(FRAME_CLOSE, 1));
	sent_close(1, _i == 0 ? MUX_END : MUX_RESET, "");
	ck_assert_uint_eq(streams(far), 0);
	stream_release(taken);
	done(&far);
}
END_TEST

/*
 * CLOSE with code 0 after both EOFs: the peer has delivered all that we sent.
 */
START_TEST(a_close_with_code_0_after_both_eofs_does_not_reset)
{
	far_with_both_eofs(600);
	put_close(1, MUX_END);
	lives(far);
	ck_assert(stream_is_closed(taken));
	ck_assert_uint_eq(stream_code(taken), MUX_END);
	ck_assert_uint_eq(held(taken), 600);
	mux_lost(far, 0, MUX_RESET, "gone"); /* nor does the end of the link */
	ck_assert_uint_eq(stream_code(taken), MUX_END);
	take_bytes(taken, 600);
	stream_release(taken);
	done(&far);
}
END_TEST

START_TEST(a_stream_that_is_stopped_sends_eof_by_itself_and_no_data)
{
	far_with_stream();
	send_bytes(taken, 5000);
	pull(far);
	ck_assert_uint_eq(stream_sent(taken), 1000);
	put_frame(FRAME_STOP, 1, "", 0);
	put_number(FRAME_CREDIT, 1, 1000, 4);
	lives(far);
	ck_assert(stream_is_stopped(taken));
	ck_assert_uint_eq(waiting(taken), 4000); /* the owner has sent them */
	pull(far);
	ck_assert_ptr_null(find_frame(FRAME_DATA, 1));
	ck_assert_ptr_nonnull(find_frame(FRAME_EOF, 1));
	ck_assert(stream_eof_sent(taken));
	send_bytes(taken, 10);
	stream_shutdown(taken);
	pull(far);
	ck_assert_ptr_null(find_frame(FRAME_DATA, 1));
	ck_assert_ptr_null(find_frame(FRAME_EOF, 1));
	ck_assert(!is_reset(taken));
	put_data(1, 7);
	lives(far);
	ck_assert_uint_eq(held(taken), 7); /* the other direction stays open */
	stream_release(taken);
	done(&far);
}
END_TEST

/* ${_i}: a stream without an owner, a released one, one that has ended too. */
START_TEST(only_streams_with_an_owner_are_returned_as_dirty)
{
	struct stream *s;

	greet(&far, MUX_FAR);
	put_open(1, 1000, 1000, "/t");
	put_data(1, 10);
	put_open(3, 1000, 1000, "/t");
	put_data(3, 10);
	lives(far);
	taken = mux_accept(far);
	s = mux_accept(far);
	ck_assert_ptr_null(mux_next_dirty(far));
	stream_set_owner(taken, &owner);
	stream_set_owner(s, &owner);
	ck_assert_ptr_eq(stream_owner(taken), &owner);
	put_data(1, 10);
	put_data(3, 10);
	put_data(3, 10);
	lives(far);
	ck_assert_ptr_eq(mux_next_dirty(far), taken);
	ck_assert_ptr_eq(mux_next_dirty(far), s);
	ck_assert_ptr_null(mux_next_dirty(far));
	put_data(1, 10);
	if (_i == 2)
		put_close(1, 1);
	put_data(3, 10);
	lives(far);
	pull(far);
	if (_i == 0)
		stream_set_owner(taken, NULL);
	else
		stream_release(taken);
	ck_assert_ptr_eq(mux_next_dirty(far), s);
	ck_assert_ptr_null(mux_next_dirty(far));
	if (_i == 0)
		stream_release(taken);
	stream_release(s);
	done(&far);
}
END_TEST

/*
 * DATA and EOF that mux_output has sent make a stream dirty, as frames do: its
 * owner may append more.
 */
START_TEST(what_is_sent_makes_a_stream_dirty)
{
	far_with_stream();
	while (mux_next_dirty(far) != NULL)
		;
	send_bytes(taken, 10);
	ck_assert_ptr_null(mux_next_dirty(far));
	pull(far);
	ck_assert_ptr_eq(mux_next_dirty(far), taken);
	ck_assert_ptr_null(mux_next_dirty(far));
	stream_shutdown(taken);
	pull(far);
	ck_assert_ptr_eq(mux_next_dirty(far), taken);
	mux_lost(far, 0, MUX_RESET, "gone");
	ck_assert_ptr_eq(mux_next_dirty(far), taken);
	stream_release(taken);
	done(&far);
}
END_TEST

#ifndef __SANITIZE_ADDRESS__ /* it maps memory of its own */

/*
 * No more memory can be mapped, so that DATA does not fit into rx.  False: this
 * system, or a sanitizer, has no such limit.
 */
static bool
no_memory(void)
{
	struct buf b = { .used = 0 };
	struct rlimit limit;
	bool fits;

	buf_trim();
	ck_assert_int_eq(getrlimit(RLIMIT_AS, &limit), 0);
	limit.rlim_cur = 4096;
	if (setrlimit(RLIMIT_AS, &limit) == -1)
		return false;
	fits = buf_put(&b, "x", 1);
	buf_clear(&b);
	buf_trim();
	return !fits;
}

static void
memory_again(void)
{
	struct rlimit limit;

	ck_assert_int_eq(getrlimit(RLIMIT_AS, &limit), 0);
	limit.rlim_cur = limit.rlim_max;
	ck_assert_int_eq(setrlimit(RLIMIT_AS, &limit), 0);
}

#endif

/* A side that cannot send for lack of memory does not ask for turns. */
START_TEST(without_memory_a_side_waits_before_it_sends)
{
#ifndef __SANITIZE_ADDRESS__
	void *used[64] = { NULL };
	uint32_t id;
	int i;

	far = with_session(MUX_FAR);
	for (id = 1; id < 4000; id += 2) {
		refuse_one(id);
		wired = 0; /* no CLOSE comes, so the words are sent */
	}
	if (no_memory()) {
		for (i = 0; i < 64; i++) /* what the heap has */
			used[i] = malloc(256 * 1024);
		while (pull(far) > 0)
			;
		memory_again();
		for (i = 0; i < 64; i++)
			free(used[i]);
		ck_assert(!mux_has_output(far, 0));
		ck_assert_int_gt(mux_deadline(far), now);
		ck_assert_int_le(mux_deadline(far), now + 100000);
		now = mux_deadline(far);
		mux_tick(far, now);
		ck_assert(mux_has_output(far, 0));
		ck_assert_uint_gt(pull(far), 0);
	}
	memory_again();
	done(&far);
#endif
}
END_TEST

/* ${_i}: the DATA frame is read at once, or in two pieces. */
START_TEST(a_stream_without_memory_is_reset_alone)
{
#ifndef __SANITIZE_ADDRESS__
	struct stream *s;

	far_with_stream();
	put_open(3, MUX_WINDOW_FIRST, 1000, "/t");
	lives(far);
	s = mux_accept(far);
	stream_set_owner(s, &owner);
	put_data(3, 65000);
	lives(far); /* a chunk of memory that is nearly full */
	put_data(3, 50000);
	if (no_memory()) {
		mux_feed(far, 0, wire, _i == 0 ? wired : 30000, now);
		memory_again();
		if (_i != 0)
			mux_feed(far, 0, wire + 30000, wired - 30000, now);
		wired = 0;
		ck_assert_int_eq(mux_state(far), MUX_UP);
		ck_assert_uint_eq(stream_code(s), MUX_NO_ROOM);
		ck_assert_uint_eq(held(s), 0);
		ck_assert_uint_eq(reserved(far), 1000); /* of the other stream */
		pull(far);
		sent_close(3, MUX_NO_ROOM, "out of memory");
		ck_assert(!is_reset(taken));
	}
	wired = 0;
	memory_again();
	stream_release(s);
	stream_release(taken);
	done(&far);
#endif
}
END_TEST

START_TEST(a_mux_and_its_streams_name_each_other)
{
	near = NULL;
	mux_free(near);
	near_with_stream();
	ck_assert_int_eq(mux_role(near), MUX_NEAR);
	ck_assert_ptr_eq(stream_mux(taken), near);
	ck_assert_str_eq(mux_peer(near), "peer");
	mux_name_peer(near, "node");
	ck_assert_str_eq(mux_peer(near), "node");
	stream_release(taken);
	done(&near);
}
END_TEST

/* A target may be reached after the stream was reset. */
START_TEST(an_accepted_stream_that_was_reset_sends_no_opened)
{
	far_with_stream();
	put_close(1, MUX_RESET);
	lives(far);
	if (_i == 0)
		pull(far);
	stream_accept(taken);
	pull(far);
	ck_assert_ptr_null(find_frame(FRAME_OPENED, 1));
	stream_release(taken);
	done(&far);
}
END_TEST

START_TEST(a_second_bye_changes_nothing)
{
	greet(&near, MUX_NEAR);
	mux_bye(near, MUX_END, "first");
	mux_bye(near, MUX_RESET, "second");
	ck_assert_uint_eq(mux_code(near), MUX_END);
	ck_assert_str_eq(mux_why(near), "first");
	pull(near);
	ck_assert_mem_eq(find_frame(FRAME_BYE, 0) + FRAME_HEAD, "\0\0first", 7);
	ck_assert_uint_eq(pull(near), 0);
	done(&near);
}
END_TEST

/* stream_reason is what the peer wrote, not what was sent to it. */
START_TEST(the_reason_of_a_reset_is_that_of_the_peer)
{
	far_with_stream();
	stream_reset(taken, MUX_REFUSED, "ours");
	ck_assert_uint_eq(stream_code(taken), MUX_REFUSED);
	if (_i == 0)
		pull(far);
	put_frame(FRAME_CLOSE, 1, "\0\1theirs", 8);
	lives(far);
	ck_assert_str_eq(stream_reason(taken), "theirs");
	ck_assert_uint_eq(stream_code(taken), MUX_REFUSED); /* the first one */
	pull(far);
	stream_release(taken);
	done(&far);
}
END_TEST

START_TEST(a_reset_without_words_has_no_reason)
{
	far_with_stream();
	stream_reset(taken, MUX_REFUSED, "ours");
	pull(far);
	sent_close(1, MUX_REFUSED, "ours");
	ck_assert_str_eq(stream_reason(taken), "");
	if (_i == 0) {
		put_close(1, MUX_RESET);
		lives(far);
	} else {
		mux_lost(far, 0, MUX_RESET, "gone");
	}
	ck_assert_str_eq(stream_reason(taken), "");
	stream_release(taken);
	done(&far);
}
END_TEST

/* CLOSE is a side's last frame of a stream. */
RULE(a_second_close, far, put_close(1, 1); put_close(1, 1))
RULE(a_credit_after_close, far, put_close(1, 1); put_number(FRAME_CREDIT, 1, 1, 4))
RULE(an_eof_after_close, far, put_close(1, 1); put_frame(FRAME_EOF, 1, "", 0))
RULE(data_after_close, far, put_close(1, 1); put_data(1, 1))
RULE(an_open_after_close_before_the_answer, far, put_close(1, 1); put_open(1, 1000, 1000, "/t"))

START_TEST(a_stop_after_close_and_both_eofs)
{
	far_with_both_eofs(600);
	put_close(1, MUX_END);
	lives(far);
	put_frame(FRAME_STOP, 1, "", 0);
	feed(far);
	ck_assert_int_eq(mux_state(far), MUX_DEAD);
	stream_release(taken);
	broken(&far);
}
END_TEST

/* Codes of CLOSE that have an errno, and those that have none. */
START_TEST(codes_and_errnos)
{
	static const int errs[] = { ECONNRESET, ECONNREFUSED, ENOENT, EACCES, ETIMEDOUT,
		EHOSTUNREACH, EMFILE };
	size_t i;

	for (i = 0; i < sizeof(errs) / sizeof(errs[0]); i++)
		ck_assert_int_eq(mux_errno_of(mux_code_of(errs[i])), errs[i]);
	ck_assert_uint_eq(mux_code_of(EPERM), MUX_NO_PERMISSION);
	ck_assert_uint_eq(mux_code_of(ENETUNREACH), MUX_NO_ROUTE);
	ck_assert_uint_eq(mux_code_of(ENOMEM), MUX_NO_ROOM);
	ck_assert_uint_eq(mux_code_of(EISDIR), MUX_UNUSABLE);
	ck_assert_int_eq(mux_errno_of(MUX_COMMAND), ECONNRESET);
	ck_assert_int_eq(mux_errno_of(60000), ECONNRESET);
}
END_TEST

/* ---- windows and turns ---- */

/* A stream of near that sends beside bulk, ${beside_n} bytes every 50 ms. */
static struct stream *beside;
static size_t beside_n;
static int64_t beside_at;

/*
 * Bulk over a line of ${rate} bytes per us and ${trip}, for ${span}; return how
 * many bytes were taken at far.
 */
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
			mux_tick(end_of(i), now);
			deliver(i);
			send_out(i);
			if (mux_deadline(end_of(i)) > now)
				next = earliest(next, mux_deadline(end_of(i)));
		}
		all += n = held(t);
		take_bytes(t, n);
		while (stream_room(s) > 0) {
			send_bytes(s, 32768);
			send_out(0);
		}
		if (beside != NULL && now >= beside_at) {
			send_bytes(beside, beside_n);
			beside_at = now + 50000;
		}
		send_out(1);
		next = earliest(next, earliest(wire_next(&line[0]), wire_next(&line[1])));
		now = next > now ? next : now;
		ck_assert_uint_le(reserved(far), MUX_MEMORY);
	}
	while (wire_next(&line[0]) != WIRE_NEVER || wire_next(&line[1]) != WIRE_NEVER) {
		now = earliest(wire_next(&line[0]), wire_next(&line[1]));
		for (i = 0; i < 2; i++) {
			mux_tick(end_of(i), now);
			deliver(i);
			send_out(i);
		}
		all += n = held(t);
		take_bytes(t, n);
	}
	wire_free(&line[0]);
	wire_free(&line[1]);
	return all;
}

/* What both send arrives half a round trip later, ${times} times. */
static void
cross_slowly(int64_t rtt, int times)
{
	static unsigned char from_near[sizeof(sent)];
	size_t n;

	while (times-- > 0) {
		n = pull(near);
		memcpy(from_near, sent, n);
		pull(far);
		now += rtt / 2;
		mux_tick(near, now);
		mux_tick(far, now);
		mux_feed(far, 0, from_near, n, now);
		mux_feed(near, 0, sent, sent_n, now);
	}
}

/*
 * While one stream is open and its owner takes all at once, reserved is its
 * window.
 */
START_TEST(windows_grow_with_need)
{
	struct stream *t, *s;
	uint64_t n;

	near = mux_new(MUX_NEAR, MUX_MEMORY, "laptop", now);
	far = mux_new(MUX_FAR, MUX_MEMORY, "node", now);
	cross_slowly(100000, 4);
	s = open_stream("/a.soc", &owner);
	cross_slowly(100000, 1);
	t = mux_accept(far);
	stream_accept(t);
	ck_assert_uint_eq(reserved(far), MUX_WINDOW_FIRST);
	n = bulk(s, t, 100000, 62.5, 10 * SECOND);
	ck_assert_uint_ge(reserved(far), 100000 * 62.5);
	ck_assert_uint_le(reserved(far), MUX_WINDOW_MOST);
	ck_assert_msg(
	    n > 62.5 * 10 * SECOND * 0.75, "%.2f of the line", (double)n / (62.5 * 10 * SECOND));
	stream_release(s);
	stream_release(t);
	cross();
	over();
}
END_TEST

/* The first stream stays open and idle after its bulk. */
START_TEST(a_window_that_has_grown_leaves_room_for_others)
{
	struct stream *t[2], *s[2];
	uint64_t n = 0;
	int i;

	both(MUX_MEMORY);
	for (i = 0; i < 2; i++) {
		s[i] = open_both(&t[i]);
		n = bulk(s[i], t[i], 50000, 125, 10 * SECOND);
	}
	ck_assert_msg(
	    n > 125 * 10 * SECOND * 0.4, "%.2f of the line", (double)n / (125 * 10 * SECOND));
	for (i = 0; i < 2; i++) {
		stream_release(s[i]);
		stream_release(t[i]);
	}
	cross();
	over();
}
END_TEST

START_TEST(windows_do_not_grow_on_a_slow_line)
{
	struct stream *t, *s;

	both(MUX_MEMORY);
	s = open_both(&t);
	bulk(s, t, 20000, 0.625, 20 * SECOND);
	ck_assert_uint_le(reserved(far), 2 * MUX_WINDOW_FIRST);
	stream_release(s);
	stream_release(t);
	cross();
	over();
}
END_TEST

START_TEST(windows_stop_at_the_bound_and_new_streams_are_still_accepted)
{
	struct stream *t[40], *s[40];
	int i;

	both(4 << 20);
	for (i = 0; i < 8; i++) {
		s[i] = open_both(&t[i]);
		bulk(s[i], t[i], 100000, 62.5, 2 * SECOND);
		ck_assert_uint_le(reserved(far), 4 << 20);
	}
	for (; i < 40; i++)
		s[i] = open_both(&t[i]);
	for (i = 0; i < 40; i++) {
		ck_assert_msg(!stream_is_closed(s[i]), "stream %d was refused with code %d", i,
		    stream_code(s[i]));
		if (i >= 8) {
			send_bytes(s[i], 1000);
			cross();
			ck_assert_uint_eq(held(t[i]), 1000);
		}
		stream_release(s[i]);
		stream_release(t[i]);
	}
	cross();
	over();
}
END_TEST

START_TEST(a_reader_that_never_reads_stops_no_other_stream)
{
	struct stream *t, *s, *stuck, *u;

	both(MUX_MEMORY);
	stuck = open_both(&u);
	send_bytes(stuck, 3000000);
	cross();
	ck_assert_uint_eq(held(u), MUX_WINDOW_FIRST);
	ck_assert(!mux_has_output(near, 0));
	s = open_both(&t);
	ck_assert_uint_gt(bulk(s, t, 10000, 12.5, 5 * SECOND), 5 * SECOND * 12.5 * 0.8);
	stream_release(s);
	stream_release(t);
	stream_release(stuck);
	stream_release(u);
	cross();
	over();
}
END_TEST

/* How many bytes are sent now before the first DATA frame of ${s}. */
static size_t
before(const struct stream *s)
{
	struct frame f;
	size_t at, n = 0;

	pull(near);
	for (at = 0; at < sent_n; at += FRAME_HEAD + f.length) {
		frame_decode(&f, sent + at);
		if (f.type == FRAME_DATA && f.stream == stream_id(s))
			return n;
		n += FRAME_HEAD + f.length;
	}
	return SIZE_MAX;
}

START_TEST(a_quiet_stream_is_sent_before_busy_ones)
{
	struct stream *t[4], *s[4];
	int i;

	both(MUX_MEMORY);
	for (i = 0; i < 4; i++)
		s[i] = open_both(&t[i]);
	for (i = 0; i < 3; i++)
		send_bytes(s[i], 1000000);
	pull(near); /* as much as may be in flight */
	ck_assert_uint_gt(waiting(s[0]), 0);
	now += 20000;
	mux_tick(near, now);
	send_bytes(s[3], 1);
	ck_assert(mux_has_output(near, 0));
	ck_assert_uint_le(before(s[3]), 20); /* an ACK */
	mux_lost(near, 0, MUX_END, "");
	mux_lost(far, 0, MUX_END, "");
	for (i = 0; i < 4; i++) {
		stream_release(s[i]);
		stream_release(t[i]);
	}
	over();
}
END_TEST

START_TEST(a_stream_is_quiet_again_a_second_after_its_bulk)
{
	struct stream *t[2], *s[2];

	both(MUX_MEMORY);
	s[0] = open_both(&t[0]);
	s[1] = open_both(&t[1]);
	bulk(s[1], t[1], 20000, 12.5, 10 * SECOND);
	while (waiting(s[1]) > 0) {
		cross();
		take_bytes(t[1], held(t[1]));
		now += 1000;
	}
	now += SECOND;
	cross();
	send_bytes(s[0], 4000000);
	pull(near);
	ck_assert_uint_gt(waiting(s[0]), 0);
	now += 1000;
	send_bytes(s[1], 1);
	ck_assert_uint_le(before(s[1]), 20);
	mux_lost(near, 0, MUX_END, "");
	mux_lost(far, 0, MUX_END, "");
	stream_release(s[0]);
	stream_release(s[1]);
	stream_release(t[0]);
	stream_release(t[1]);
	over();
}
END_TEST

/*
 * Small pieces of a quiet stream make the queue of bulk shorter; larger pieces
 * do not.
 */
START_TEST(keystrokes_beside_bulk_make_its_cwnd_smaller)
{
	static const size_t sizes[] = { 4096, 1, 512, 4096 };
	struct stream *t, *s, *key, *there;
	size_t i;

	both(MUX_MEMORY);
	s = open_both(&t);
	key = open_both(&there);
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		beside = key;
		beside_n = sizes[i];
		bulk(s, t, 500, 250, 2 * SECOND);
		beside = NULL;
		take_bytes(there, held(there));
		if (beside_n <= 512)
			ck_assert_uint_lt(stats(near).cwnd, 2 * 500 * 250);
		else
			ck_assert_uint_gt(stats(near).cwnd, 2 * 500 * 250);
	}
	stream_release(s);
	stream_release(t);
	stream_release(key);
	stream_release(there);
	over();
}
END_TEST

START_TEST(busy_streams_share_by_bytes)
{
	struct stream *t[4], *s[4];
	uint64_t least = UINT64_MAX, most = 0;
	int i, round;

	both(MUX_MEMORY);
	for (i = 0; i < 4; i++)
		s[i] = open_both(&t[i]);
	for (round = 0; round < 4000; round++) {
		for (i = 0; i < 4; i++)
			while (stream_room(s[i]) > 0)
				send_bytes(s[i], i == 0 ? 100 : 32768);
		pull(near);
		mux_feed(far, 0, sent, sent_n, now);
		for (i = 0; i < 4; i++)
			take_bytes(t[i], held(t[i]));
		now += 500;
		mux_tick(far, now);
		pull(far);
		mux_feed(near, 0, sent, sent_n, now);
	}
	for (i = 0; i < 4; i++) {
		least = stream_sent(s[i]) < least ? stream_sent(s[i]) : least;
		most = stream_sent(s[i]) > most ? stream_sent(s[i]) : most;
		stream_release(s[i]);
		stream_release(t[i]);
	}
	ck_assert_msg(
	    least * 10 >= most * 9, "%lu and %lu", (unsigned long)least, (unsigned long)most);
	cross();
	over();
}
END_TEST

/* A reader that takes single bytes does not cause as many CREDIT frames. */
START_TEST(credit_is_sent_for_many_bytes_at_once)
{
	struct stream *t, *s;
	size_t i, credits = 0;

	both(MUX_MEMORY);
	s = open_both(&t);
	send_bytes(s, 2 * MUX_WINDOW_FIRST);
	cross();
	for (i = 0; i < MUX_WINDOW_FIRST; i++) {
		take_bytes(t, 1);
		pull(far);
		credits += find_frame(FRAME_CREDIT, stream_id(s)) != NULL;
		mux_feed(near, 0, sent, sent_n, now);
		pull(near);
		mux_feed(far, 0, sent, sent_n, now);
		now += 10;
	}
	ck_assert_msg(credits <= 32, "%lu credits for a window of bytes read one by one",
	    (unsigned long)credits);
	stream_release(s);
	stream_release(t);
	cross();
	over();
}
END_TEST

/* A slow reader needs no larger window, however long the line. */
START_TEST(the_window_of_a_slow_reader_does_not_grow)
{
	struct stream *t, *s;
	int64_t end;

	both(MUX_MEMORY);
	s = open_both(&t);
	bulk(s, t, 100000, 0.625, SECOND); /* both have measured the round trip */
	line[0].delay = line[1].delay = 50000;
	line[0].room = line[1].room = 4 << 20;
	for (end = now + 60 * SECOND; now < end; now += 10000) {
		while (stream_room(s) > 0)
			send_bytes(s, 32768);
		take_bytes(t, held(t) < 4000
				  ? held(t)
				  : 4000); /* 400 kB a second, of a line that has no limit */
		mux_tick(near, now);
		mux_tick(far, now);
		deliver(0);
		deliver(1);
		send_out(0);
		send_out(1);
	}
	ck_assert_msg(
	    reserved(far) <= 2 * MUX_WINDOW_FIRST, "it is %lu", (unsigned long)reserved(far));
	mux_lost(near, 0, MUX_END, "");
	mux_lost(far, 0, MUX_END, "");
	stream_release(s);
	stream_release(t);
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
		next = earliest(mux_deadline(near), mux_deadline(far));
		if (next > end)
			break;
		now = next > now ? next : now;
		mux_tick(near, now);
		mux_tick(far, now);
		all += pull(near);
		mux_feed(far, 0, sent, sent_n, now);
		all += pull(far);
		mux_feed(near, 0, sent, sent_n, now);
		ck_assert_uint_lt(all, 1000000);
	}
	now = end;
	return all;
}

START_TEST(idle_links_send_nothing_but_pings)
{
	struct stream *t, *s;

	both(MUX_MEMORY);
	s = open_both(&t);
	ck_assert_uint_gt(bulk(s, t, 1000, 12.5, SECOND), 0);
	cross();
	take_bytes(t, held(t));
	while (waiting(s) > 0) {
		cross();
		take_bytes(t, held(t));
		now += 1000;
	}
	idle(now + 2 * SECOND);
	ck_assert_uint_eq(idle(now + 12 * SECOND), 0);
	/* and then a PING and its ACK every 15 s, from both */
	ck_assert_uint_le(idle(now + 3600 * (int64_t)SECOND), 3600 / 15 * 2 * (8 + 20));
	ck_assert_int_eq(mux_state(near), MUX_UP);
	ck_assert_int_eq(mux_state(far), MUX_UP);
	stream_release(s);
	stream_release(t);
	cross();
	over();
}
END_TEST

START_TEST(ping_at_15_s_dead_at_45)
{
	greet(&near, MUX_NEAR);
	now += 30000;
	mux_tick(near, now);
	pull(near);
	now += 15 * SECOND - 30000 - 1;
	mux_tick(near, now);
	ck_assert(!mux_has_output(near, 0));
	ck_assert_int_eq(mux_deadline(near), now + 1);
	now++;
	mux_tick(near, now);
	ck_assert(mux_has_output(near, 0));
	ck_assert_int_gt(mux_deadline(near), now);
	ck_assert_uint_eq(pull(near), FRAME_HEAD);
	ck_assert_ptr_nonnull(find_frame(FRAME_PING, 0));
	now += 15 * SECOND;
	mux_tick(near, now);
	ck_assert_uint_eq(pull(near), FRAME_HEAD);
	now += 15 * SECOND - 1;
	mux_tick(near, now);
	ck_assert_int_eq(mux_state(near), MUX_UP);
	now++;
	mux_tick(near, now);
	ck_assert_int_eq(mux_state(near), MUX_DEAD);
	ck_assert_uint_eq(mux_code(near), MUX_TIMEOUT);
	HAS(mux_why(near), "45 s");
	done(&near);
}
END_TEST

START_TEST(a_ping_is_acknowledged_at_once)
{
	greet(&far, MUX_FAR);
	now += 30000;
	mux_tick(far, now);
	pull(far);
	put_frame(FRAME_PING, 0, "", 0);
	lives(far);
	ck_assert(mux_has_output(far, 0));
	pull(far);
	ck_assert_ptr_nonnull(find_frame(FRAME_ACK, 0));
	ck_assert_uint_eq(frame_get(find_frame(FRAME_ACK, 0) + 8, 8), stats(far).received);
	done(&far);
}
END_TEST

START_TEST(an_ack_is_sent_after_5_ms_or_1024_bytes)
{
	far_with_stream();
	now += 30000;
	mux_tick(far, now);
	pull(far);
	put_data(1, 10);
	lives(far);
	ck_assert(!mux_has_output(far, 0));
	now += 2000;
	put_data(1, 10);
	lives(far);
	ck_assert_int_eq(mux_deadline(far), now + 3000);
	now += 2999;
	mux_tick(far, now);
	ck_assert(!mux_has_output(far, 0));
	now++;
	mux_tick(far, now);
	pull(far);
	ck_assert_ptr_nonnull(find_frame(FRAME_ACK, 0));
	ck_assert_uint_eq(frame_get(find_frame(FRAME_ACK, 0) + 16, 4), 3000);
	put_frame(200, 0, sent, 1016);
	lives(far);
	ck_assert(mux_has_output(far, 0));
	stream_release(taken);
	done(&far);
}
END_TEST

START_TEST(acks_are_as_many_as_the_peer_asks_for)
{
	static const uint32_t wanted[] = { 0, 1, 1023, 1024, 5000, 65536 };
	uint32_t every, n;
	size_t i;

	far_with_stream();
	for (i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		now += 30000;
		mux_tick(far, now);
		pull(far);
		ck_assert(!mux_has_output(far, 0)); /* no busy loop for ACK_EVERY of 0 */
		every = wanted[i] < 1024 ? 1024 : wanted[i];
		put_number(FRAME_ACK_EVERY, 0, wanted[i], 4);
		for (n = FRAME_HEAD + 4; n + 16 < every; n += 16) {
			put_frame(200, 0, sent, 8);
			lives(far);
			ck_assert(!mux_has_output(far, 0));
		}
		put_frame(200, 0, sent, 8);
		lives(far);
		ck_assert_int_eq(mux_has_output(far, 0), true);
	}
	stream_release(taken);
	done(&far);
}
END_TEST

/*
 * The ACK_EVERY of near, by PROTOCOL section 6, for the line that mux_stats
 * reports.
 */
static uint32_t
ack_every_for(const struct mux *m)
{
	uint64_t acks = stats(m).rtt_us < 2000 ? 8 : (uint64_t)stats(m).rtt_us / 250;
	uint32_t every = 1024;

	while (every < 262144 && every * 2 <= stats(m).cwnd / acks)
		every *= 2;
	return every;
}

/*
 * The larger the cwnd of a short line, the fewer ACKs are requested;
 * those of a long line stay many.
 */
START_TEST(ack_every_follows_the_bytes_in_flight)
{
	static const struct {
		double rate; /* bytes per us */
		int64_t rtt;
		uint32_t least, most;
	} t[] = { { 0.625, 20000, 1024, 1024 }, { 250, 2000, 32768, 131072 },
		{ 1000, 1500, 131072, 262144 }, { 62.5, 100000, 4096, 16384 } };
	struct stream *there, *s;
	const unsigned char *frame;

	both(MUX_MEMORY);
	s = open_both(&there);
	ack_every_frames = 0;
	bulk(s, there, t[_i].rtt, t[_i].rate, 3 * SECOND);
	ck_assert_uint_gt(ack_every_frames, 0);
	pull(near);
	frame = find_frame(FRAME_ACK_EVERY, 0);
	if (frame != NULL)
		last_ack_every = (uint32_t)frame_get(frame + FRAME_HEAD, 4);
	ck_assert_uint_eq(last_ack_every, ack_every_for(near));
	ck_assert_msg(last_ack_every >= t[_i].least && last_ack_every <= t[_i].most, "%u",
	    (unsigned)last_ack_every);
	stream_release(s);
	stream_release(there);
	over();
}
END_TEST

START_TEST(no_pings_on_a_busy_line)
{
	int i;

	far_with_stream();
	for (i = 0; i < 600; i++) {
		now += 14 * SECOND;
		mux_tick(far, now);
		put_frame(FRAME_STOP, 1, "", 0);
		lives(far);
		pull(far);
		ck_assert_ptr_null(find_frame(FRAME_PING, 0));
	}
	stream_release(taken);
	done(&far);
}
END_TEST

START_TEST(a_link_survives_a_sleep_of_an_hour)
{
	both(MUX_MEMORY);
	idle(now + 100 * SECOND);
	now += 3600 * (int64_t)SECOND;
	if (_i == 0)
		mux_tick(near, now);
	ck_assert_int_eq(mux_state(near), MUX_UP);
	ck_assert_int_eq(mux_state(far), MUX_UP);
	idle(now + 100 * SECOND);
	ck_assert_int_eq(mux_state(near), MUX_UP);
	ck_assert_int_eq(mux_state(far), MUX_UP);
	over();
}
END_TEST

/*
 * The limit starts with the magic: before it, a person may be typing a
 * password.
 */
START_TEST(a_hello_is_awaited_for_45_s_at_most)
{
	near = mux_new(_i == 0 ? MUX_NEAR : MUX_FAR, MUX_MEMORY, "here", now);
	mux_tick(near, now += 1000 * (int64_t)SECOND);
	ck_assert_int_eq(mux_state(near), MUX_STARTING);
	ck_assert(mux_deadline(near) == INT64_MAX);
	put(frame_magic, FRAME_MAGIC);
	feed(near);
	ck_assert_int_eq(mux_deadline(near), now + 45 * SECOND);
	pull(near);
	mux_tick(near, now += 45 * SECOND - 1);
	ck_assert_int_eq(mux_state(near), MUX_GREETING);
	ck_assert_uint_eq(pull(near), 0);
	mux_tick(near, now += 1);
	ck_assert_int_eq(mux_state(near), MUX_DEAD);
	ck_assert_uint_eq(mux_code(near), MUX_TIMEOUT);
	HAS(mux_why(near), "45 s");
	done(&near);
}
END_TEST

/*
 * A dead line is noticed 45 s after the last byte, or 15 s after the end of a
 * sleep.
 */
START_TEST(a_dead_line_is_noticed)
{
	int64_t start;
	int i;

	greet(&near, MUX_NEAR);
	switch (_i) {
	case 0: /* a sleep, then bytes, then silence */
	case 1: /* the same, but bytes are read before mux_tick */
		now += 3600 * (int64_t)SECOND;
		if (_i == 0)
			mux_tick(near, now);
		put_frame(FRAME_PING, 0, "", 0);
		lives(near);
		break;
	case 2: /* an hour of bytes in which no deadline came */
		for (i = 0; i < 3600; i++) {
			now += SECOND;
			put_frame(FRAME_PING, 0, "", 0);
			lives(near);
			pull(near);
		}
		break;
	case 3: /* a sleep, then silence */
		now += 3600 * (int64_t)SECOND;
		break;
	}
	start = now;
	for (i = 0; mux_state(near) == MUX_UP && i < 1000; i++) {
		mux_tick(near, now);
		pull(near);
		if (mux_state(near) == MUX_UP && mux_deadline(near) > now)
			now = mux_deadline(near);
	}
	ck_assert_int_eq(mux_state(near), MUX_DEAD);
	ck_assert_int_le(now - start, (_i == 3 ? 16 : 46) * SECOND);
	ck_assert_int_ge(now - start, (_i == 3 ? 14 : 29) * SECOND);
	done(&near);
}
END_TEST

/*
 * A sleep that the clock does not show: PING is sent at once, and the link goes
 * on if an answer is read.
 */
START_TEST(mux_woke_sends_a_ping_and_waits_15_s)
{
	greet(&near, MUX_NEAR);
	pull(near);
	now += SECOND;
	mux_woke(near, now);
	pull(near);
	ck_assert_ptr_nonnull(find_frame(FRAME_PING, 0));
	ck_assert_int_le(mux_deadline(near), now + 15 * SECOND);
	if (_i == 0) {
		now += 10 * SECOND;
		put_frame(FRAME_PING, 0, "", 0);
		lives(near);
	}
	now += 16 * SECOND;
	mux_tick(near, now);
	ck_assert_int_eq(mux_state(near), _i == 0 ? MUX_UP : MUX_DEAD);
	done(&near);
}
END_TEST

/* A channel that takes nothing must not make the loop spin. */
START_TEST(a_deadline_is_never_in_the_past)
{
	far_with_stream();
	put_data(1, 10);
	lives(far);
	now += 5000;
	mux_tick(far, now);
	ck_assert(mux_has_output(far, 0));
	ck_assert_int_gt(mux_deadline(far), now);
	now += SECOND;
	put_data(1, 10);
	lives(far);
	mux_tick(far, now);
	ck_assert_int_gt(mux_deadline(far), now);
	stream_release(taken);
	done(&far);
}
END_TEST

/* ---- channels that end, and bytes that change ---- */

static unsigned char record[2][1 << 16];
static size_t recorded[2];

static void
exchange(void) /* and record */
{
	size_t n;

	do {
		n = pull(near);
		ck_assert_uint_le(recorded[0] + sent_n, sizeof(record[0]));
		memcpy(record[0] + recorded[0], sent, sent_n);
		recorded[0] += sent_n;
		mux_feed(far, 0, sent, sent_n, now);
		n += pull(far);
		memcpy(record[1] + recorded[1], sent, sent_n);
		recorded[1] += sent_n;
		mux_feed(near, 0, sent, sent_n, now);
	} while (n > 0);
}

static bool
can_send(const struct stream *s)
{
	return !sends_no_more(s) && !stream_is_stopped(s);
}

static struct stream *mine[3], *peers[3];
static int peers_n;

static void
take_all(void)
{
	struct stream *t;

	while ((t = mux_accept(far)) != NULL) {
		if (peers_n == 3) {
			stream_release(t);
			continue;
		}
		stream_set_owner(t, &owner);
		peers[peers_n++] = t;
		stream_accept(t);
	}
}

static void
small(enum mux_role role)
{
	struct mux **m = role == MUX_NEAR ? &near : &far;

	*m = mux_new(role, 1 << 20, "host", now);
	mux_limit_streams(*m, 16);
	memset(mine, 0, sizeof(mine));
	memset(peers, 0, sizeof(peers));
	peers_n = 0;
}

/*
 * What the near owner does in the session; frames of the far side are fed
 * between the steps.
 */
static void
near_part(int step)
{
	int i;

	switch (step) {
	case 0:
		for (i = 0; i < 3; i++)
			if ((mine[i] = open_stream("/target", &owner)) != NULL)
				send_bytes(mine[i], 100);
		break;
	case 1:
		if (mine[0] != NULL)
			stream_shutdown(mine[0]);
		if (mine[1] != NULL)
			stream_stop(mine[1]);
		break;
	case 2:
		if (mine[2] != NULL)
			stream_reset(mine[2], MUX_RESET, "bored");
		break;
	}
}

static void
far_part(int step)
{
	int i;

	take_all();
	for (i = 0; i < peers_n; i++) {
		if (step == 0 && can_send(peers[i]))
			send_bytes(peers[i], 150);
		if (step == 1 && i == 0 && held(peers[i]) > 0)
			take_bytes(peers[i], held(peers[i]));
		if (step == 2 && can_send(peers[i]))
			stream_shutdown(peers[i]);
	}
}

static void
release_mine(struct mux **m, struct stream **s)
{
	int i;

	for (i = 0; i < 3; i++)
		if (s[i] != NULL)
			stream_release(s[i]);
	done(m);
}

static void
record_session(void)
{
	int step;

	recorded[0] = recorded[1] = 0;
	small(MUX_NEAR);
	small(MUX_FAR);
	exchange();
	for (step = 0; step < 3; step++) {
		near_part(step);
		exchange();
		far_part(step);
		exchange();
	}
	mux_bye(far, MUX_END, "end");
	exchange();
	release_mine(&near, mine);
	release_mine(&far, peers);
	ck_assert_uint_gt(recorded[0], 450);
	ck_assert_uint_gt(recorded[1], 450);
}

/* One side alone, fed from a record cut at ${at}, in pieces of ${piece}. */
static void
replay(enum mux_role role, const unsigned char *p, size_t n, size_t at, size_t piece)
{
	struct mux **m = role == MUX_NEAR ? &near : &far, *l;
	size_t i, k;

	small(role);
	l = *m;
	pull(l);
	for (i = 0; i < n; i += k) {
		k = i < at ? at - i : n - i;
		if (k > piece)
			k = piece;
		mux_feed(l, 0, p + i, k, now);
		if (role == MUX_FAR)
			far_part(i < n / 2 ? 0 : 2);
		else if (mux_state(l) == MUX_UP && mine[0] == NULL)
			near_part(0);
		else if (i + k >= n / 2 && mine[0] != NULL)
			near_part(1);
		pull(l);
		ck_assert_uint_le(reserved(l), 1 << 20);
	}
}

START_TEST(a_session_is_the_same_however_it_is_cut)
{
	uint64_t whole;
	size_t at;

	record_session();
	for (at = 0; at <= recorded[0]; at++) {
		replay(MUX_FAR, record[0], recorded[0], at, SIZE_MAX);
		ck_assert_msg(mux_state(far) == MUX_UP || mux_ended_by_peer(far) ||
				  mux_state(far) == MUX_DEAD,
		    "cut at %lu", (unsigned long)at);
		ck_assert_msg(
		    mux_state(far) == MUX_UP, "cut at %lu: %s", (unsigned long)at, mux_why(far));
		whole = stats(far).received;
		ck_assert_uint_eq(whole + FRAME_MAGIC, recorded[0]);
		release_mine(&far, peers);
	}
	replay(MUX_FAR, record[0], recorded[0], 0, 1);
	ck_assert_int_eq(mux_state(far), MUX_UP);
	release_mine(&far, peers);
}
END_TEST

START_TEST(the_channel_may_end_at_every_byte)
{
	size_t at;

	record_session();
	for (at = 0; at <= recorded[_i]; at++) {
		replay(_i == 0 ? MUX_FAR : MUX_NEAR, record[_i], at, SIZE_MAX, 61);
		mux_lost(_i == 0 ? far : near, 0, MUX_RESET, "cut");
		if (_i == 0)
			release_mine(&far, peers);
		else
			release_mine(&near, mine);
	}
}
END_TEST

START_TEST(every_byte_may_be_changed)
{
	static const unsigned char how[] = { 0x01, 0x80, 0xff, 0x10, 0x02, 0x20 };
	size_t at, k;

	record_session();
	for (at = 0; at < recorded[_i]; at++)
		for (k = 0; k < sizeof(how); k++) {
			record[_i][at] ^= how[k];
			replay(_i == 0 ? MUX_FAR : MUX_NEAR, record[_i], recorded[_i], 0, 997);
			record[_i][at] ^= how[k];
			if (_i == 0)
				release_mine(&far, peers);
			else
				release_mine(&near, mine);
		}
}
END_TEST

START_TEST(a_megabyte_of_random_bytes_breaks_the_link)
{
	struct mux **m = _i % 2 == 0 ? &near : &far, *l;
	size_t i;
	int round;

	for (round = 0; round < 20; round++) {
		dice_state = (uint64_t)(round * 77 + _i);
		for (i = 0; i < sizeof(wire); i++)
			wire[i] = (unsigned char)dice();
		wired = 0;
		small(_i % 2 == 0 ? MUX_NEAR : MUX_FAR);
		l = *m;
		if (_i >= 2) { /* after a valid start */
			put(frame_magic, FRAME_MAGIC);
			put_hello(1, _i % 2 == 0, 1 << 20, 16);
			wired = 0;
		}
		mux_feed(l, 0, wire, sizeof(wire), now);
		ck_assert_int_eq(mux_state(l), MUX_DEAD);
		ck_assert_uint_le(banner_length(l), MUX_BANNER);
		ck_assert_uint_eq(streams(l), 0);
		pull(l);
		done(m);
	}
}
END_TEST

/*
 * Valid heads with random contents: the link may break or not, but reserves
 * no more than its memory.
 */
START_TEST(well_formed_random_frames_reserve_no_more_than_the_memory)
{
	static unsigned char body[65536];
	struct mux **m = _i % 2 == 0 ? &near : &far, *l;
	unsigned type;
	size_t n;
	int i, k;

	for (i = 0; i < 3000; i++) {
		dice_state = (uint64_t)(i * 2 + _i);
		small(_i % 2 == 0 ? MUX_NEAR : MUX_FAR);
		l = *m;
		put(frame_magic, FRAME_MAGIC);
		put_hello(1, _i % 2 == 0, 1 << 20, 16);
		feed(l);
		if (_i % 2 == 0)
			near_part(0);
		pull(l);
		for (k = 0; k < 40 && mux_state(l) == MUX_UP; k++) {
			type = 2 + upto(8);
			n = type == FRAME_OPEN   ? 8 + upto(20)
			    : type == FRAME_DATA ? 1 + upto(one_in(4) ? 65535 : 300)
			    : type == FRAME_CLOSE || type == FRAME_BYE ? 2 + upto(20)
			    : type == FRAME_CREDIT                     ? 4
			    : type == FRAME_ACK                        ? 12
								       : 0;
			memset(body, 0, 16);
			frame_put(body, upto(one_in(3) ? 300000 : 9000), 4);
			frame_put(body + 4, upto(300000), 4);
			if (type == FRAME_CREDIT && one_in(2))
				frame_put(body, dice(), 4);
			put_frame(type, type < FRAME_ACK || type > FRAME_PING ? upto(3) * 2 + 1 : 0,
			    body, n);
			feed(l);
			ck_assert_uint_le(reserved(l), 1 << 20);
			if (_i % 2 != 0)
				far_part((int)upto(2));
			pull(l);
		}
		release_mine(m, _i % 2 == 0 ? mine : peers);
	}
}
END_TEST

/*
 * Each test has to end with done(), which checks that no memory stays reserved.
 */
static void
teardown(void)
{
	ck_assert_ptr_null(near);
	ck_assert_ptr_null(far);
	ack_every_frames = 0;
}

#define R(name) tcase_add_test(tc, name)

static void
add_rules(TCase *tc)
{
	tcase_add_loop_test(tc, a_banner_before_the_magic_is_skipped_and_kept, 0, 10);
	R(a_banner_of_more_than_64_KiB_ends_the_start);
	R(a_magic_behind_its_own_beginning_is_found);
	tcase_add_loop_test(tc, a_line_that_changes_bytes_is_reported, 0, 10);
	R(a_command_that_echoes_is_reported);
	R(two_far_ends_are_reported);
	R(a_far_side_refuses_a_banner);
	R(a_side_that_waits_for_its_peer_sends_nothing_before_the_magic);
	R(a_side_that_has_sent_nothing_sends_no_BYE);
	R(a_far_side_skips_a_script_for_a_shell);
	tcase_add_loop_test(tc, a_far_side_skips_no_other_text, 0, 9);
	R(a_far_side_skips_no_script_of_more_than_64_KiB);
	R(another_version_is_refused_by_name_and_BYE_13);
	tcase_add_loop_test(tc, a_hello_that_allows_no_work_breaks_the_link, 0, 5);
	R(a_BYE_ends_the_link_with_its_words);
	R(only_the_hello_is_sent_before_the_far_hello);
	R(an_unknown_type_below_128);
	R(the_last_unknown_type_below_128);
	R(an_ack_every_of_a_wrong_length);
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
	tcase_add_loop_test(tc, a_breach_by_a_released_stream, 0, 4);
	R(credits_up_to_2_31_less_1_are_taken);
	R(another_frame_before_hello_breaks_the_link);
	R(types_from_129_are_skipped);
	R(more_opens_than_hello_allows_break_the_link);
	R(an_open_beyond_the_memory_is_refused_alone);
	R(a_long_target_beside_many_streams_is_refused_alone);
	R(a_million_opens_and_closes_hold_nothing);
	R(a_stream_that_was_closed_before_it_was_accepted_is_not_accepted);
	R(a_target_that_is_too_long_for_OPEN_is_refused);
	R(no_more_streams_than_the_far_side_allows);
	R(what_was_on_its_way_when_CLOSE_was_sent_is_dropped);
	tcase_add_loop_test(tc, memory_is_free_when_a_stream_is_closed_in_the_middle_of_data, 0, 5);
	R(data_follows_open_at_once);
	tcase_add_loop_test(tc, a_refusal_carries_code_and_words, 0, 6);
	R(each_direction_ends_alone);
	R(stop_is_answered_by_eof_and_the_other_direction_continues);
	R(a_side_that_sent_stop_and_eof_may_be_released_without_a_reset);
	tcase_add_loop_test(tc, a_reset_passes_both_ways_at_once, 0, 2);
	R(ids_are_used_again_and_never_while_they_are_held);
	R(the_end_of_the_channel_resets_every_stream);
	R(reserved_is_the_window_then_the_bytes_then_the_credit);
	R(ten_thousand_resets_with_data_queued_leave_nothing_reserved);
	tcase_add_loop_test(tc, what_was_received_before_a_reset_stays, 0, 12);
	tcase_add_loop_test(tc, what_was_received_before_the_end_of_the_link_stays, 0, 2);
	R(a_mux_may_be_freed_before_its_last_stream_is_released);
	R(credit_is_sent_after_eof_while_bytes_are_held);
	R(progress_changes_when_the_peer_shows_that_the_stream_moves);
	tcase_add_loop_test(tc, a_close_after_both_eofs_reports_what_was_dropped, 0, 6);
	tcase_add_loop_test(tc, a_close_reports_data_that_comes_after_stop_or_discard, 0, 2);
	R(a_released_stream_reports_what_it_dropped);
	tcase_add_test(
	    tc, a_close_reports_what_was_dropped_after_the_clean_close_of_the_peer);
	tcase_add_loop_test(tc, a_report_of_loss_leaves_the_other_direction_alone, 0, 2);
	R(a_close_with_code_0_after_both_eofs_does_not_reset);
	R(a_stream_that_is_stopped_sends_eof_by_itself_and_no_data);
	tcase_add_loop_test(tc, only_streams_with_an_owner_are_returned_as_dirty, 0, 3);
	R(what_is_sent_makes_a_stream_dirty);
	tcase_add_loop_test(tc, the_reason_of_a_reset_is_that_of_the_peer, 0, 2);
	tcase_add_loop_test(tc, a_reset_without_words_has_no_reason, 0, 2);
	R(a_second_close);
	R(a_credit_after_close);
	R(an_eof_after_close);
	R(data_after_close);
	R(an_open_after_close_before_the_answer);
	R(a_stop_after_close_and_both_eofs);
	R(codes_and_errnos);
	tcase_add_loop_test(tc, a_stream_without_memory_is_reset_alone, 0, 2);
	R(without_memory_a_side_waits_before_it_sends);
	R(a_mux_and_its_streams_name_each_other);
	tcase_add_loop_test(tc, an_accepted_stream_that_was_reset_sends_no_opened, 0, 2);
	R(a_second_bye_changes_nothing);
	R(windows_grow_with_need);
	R(a_window_that_has_grown_leaves_room_for_others);
	R(windows_do_not_grow_on_a_slow_line);
	R(windows_stop_at_the_bound_and_new_streams_are_still_accepted);
	R(a_reader_that_never_reads_stops_no_other_stream);
	R(a_quiet_stream_is_sent_before_busy_ones);
	R(a_stream_is_quiet_again_a_second_after_its_bulk);
	R(keystrokes_beside_bulk_make_its_cwnd_smaller);
	R(busy_streams_share_by_bytes);
	R(credit_is_sent_for_many_bytes_at_once);
	R(the_window_of_a_slow_reader_does_not_grow);
	R(idle_links_send_nothing_but_pings);
	R(ping_at_15_s_dead_at_45);
	tcase_add_loop_test(tc, a_hello_is_awaited_for_45_s_at_most, 0, 2);
	R(a_ping_is_acknowledged_at_once);
	R(an_ack_is_sent_after_5_ms_or_1024_bytes);
	R(acks_are_as_many_as_the_peer_asks_for);
	tcase_add_loop_test(tc, ack_every_follows_the_bytes_in_flight, 0, 4);
	R(no_pings_on_a_busy_line);
	tcase_add_loop_test(tc, a_link_survives_a_sleep_of_an_hour, 0, 2);
	tcase_add_loop_test(tc, mux_woke_sends_a_ping_and_waits_15_s, 0, 2);
	tcase_add_loop_test(tc, a_dead_line_is_noticed, 0, 4);
	R(a_deadline_is_never_in_the_past);
	R(a_session_is_the_same_however_it_is_cut);
	tcase_add_loop_test(tc, the_channel_may_end_at_every_byte, 0, 2);
	tcase_add_loop_test(tc, every_byte_may_be_changed, 0, 2);
	tcase_add_loop_test(tc, a_session_needs_kind_1_on_both_sides, 0, 512);
	tcase_add_loop_test(tc, a_side_that_asks_for_no_session_keeps_none, 0, 2);
	tcase_add_loop_test(tc, a_peer_of_version_1_has_no_session, 0, 2);
	tcase_add_loop_test(tc, a_session_after_the_greeting_breaks_the_link, 0, 2);
	R(a_join_continues_at_each_byte_that_is_kept);
	tcase_add_loop_test(tc, a_join_with_a_count_out_of_range_ends_the_session, 0, 10);
	tcase_add_loop_test(tc, an_ack_within_the_greeting_breaks_a_session, 0, 2);
	tcase_add_loop_test(tc, another_answer_than_a_join_ends_the_session, 0, 5);
	R(only_a_newer_generation_of_the_same_id_is_accepted);
	R(a_mux_without_a_session_accepts_no_join);
	R(the_near_side_alone_counts_generations);
	tcase_add_loop_test(tc, nothing_follows_the_greeting_of_a_join_that_is_stopped, 0, 2);
	R(a_side_that_retains_its_most_sends_only_acks);
	tcase_add_loop_test(tc, a_full_side_can_end_the_link, 0, 2);
	R(a_peer_that_never_acknowledges_has_a_limit);
	R(a_thousand_cuts_hold_no_memory);
	tcase_add_loop_test(tc, a_megabyte_of_random_bytes_breaks_the_link, 0, 4);
	tcase_add_loop_test(tc, well_formed_random_frames_reserve_no_more_than_the_memory, 0, 2);
}

TESTS("mux")
{
	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, NULL, teardown);
	add_rules(tc);
}
