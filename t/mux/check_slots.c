/*
 * check_slots.c - a link with several slots: one side that reads frames made by
 * hand, or two sides back to back
 */
#include "t/check.h"

#include "mux/frame.h"
#include "mux/mux.h"
#include "t/mux/frames.h"
#include "t/mux/pull.h"

#define SECOND 1000000
#define GREETED (FRAME_HEAD + FRAME_HELLO_FIXED + 4 + FRAME_HEAD + FRAME_SESSION_SIZE)

static struct mux *near, *far;
static struct stream *taken; /* stream 1, or the one of near */
static int64_t now = 1000 * (int64_t)SECOND;
static int owner;
static unsigned home; /* the slot of taken */
static const unsigned char session_id[MUX_SESSION] = "0123456789abcde";

/* ---- helpers ---- */

static size_t
held(struct stream *s)
{
	return stream_rx(s)->used;
}

static uint64_t
reserved(const struct mux *m)
{
	struct mux_stats s;

	mux_stats(m, &s);
	return s.reserved;
}

static uint32_t
streams(const struct mux *m)
{
	struct mux_stats s;

	mux_stats(m, &s);
	return s.streams;
}

static unsigned char sent[4 << 20]; /* by the last pull */
static size_t sent_n;

static size_t
pull(struct mux *m, unsigned slot)
{
	size_t n;

	sent_n = 0;
	while (sent_n + 65536 <= sizeof(sent) &&
	       (n = pull_slot(m, slot, sent + sent_n, MUX_PULL, now)) > 0)
		sent_n += n;
	return sent_n;
}

/* The first frame of ${type} in the last pull, or NULL. */
static const unsigned char *
find_frame(unsigned type, uint32_t stream)
{
	struct frame f;
	size_t at = memcmp(sent, frame_magic, FRAME_MAGIC) == 0 ? FRAME_MAGIC : 0;

	for (; at < sent_n; at += FRAME_HEAD + f.length) {
		ck_assert_ptr_null(frame_decode(&f, sent + at));
		if (f.type == type && f.stream == stream)
			return sent + at;
	}
	return NULL;
}

static void
feed(struct mux *m, unsigned slot)
{
	mux_feed(m, slot, wire, wired, now);
	wired = 0;
}

static void
lives(struct mux *m, unsigned slot)
{
	feed(m, slot);
	ck_assert_msg(mux_state(m) == MUX_UP, "the link is not up: %s", mux_why(m));
}

static struct session
join(unsigned slot, uint32_t generation, uint64_t count)
{
	struct session s = { .kind = SESSION_JOIN,
		.slot = (uint8_t)slot,
		.slots = 8,
		.generation = generation,
		.count = count };

	memcpy(s.id, session_id, sizeof(s.id));
	return s;
}

/* A side with a session whose peer allows ${slots}. */
static struct mux *
greeted(enum mux_role role, unsigned slots)
{
	struct session s = { .kind = SESSION_NEW, .keep = 60, .slots = (uint8_t)slots };
	struct mux *m = mux_new(role, MUX_MEMORY, "here", now);

	mux_keep(m, 60, session_id);
	put_greeting(role == MUX_NEAR, s);
	lives(m, 0);
	pull(m, 0);
	return m;
}

/* The same with slots 0 and 1 up. */
static void
near_up(void)
{
	near = greeted(MUX_NEAR, 8);
	ck_assert_int_eq(mux_add_slot(near, now), 1);
	pull(near, 1);
	put_greeting(1, join(1, 1, 0));
	lives(near, 1);
	ck_assert_int_eq(mux_slot_state(near, 1), MUX_SLOT_UP);
}

static void
far_up(void)
{
	struct session s = join(1, 1, 0);

	far = greeted(MUX_FAR, 8);
	ck_assert_int_eq(mux_accept_slot(far, &s, false, now), 1);
	put_greeting(0, s);
	lives(far, 1);
	pull(far, 1);
	ck_assert_int_eq(mux_slot_state(far, 1), MUX_SLOT_UP);
}

/* Stream 1 has a window of 1,000 bytes. */
static void
far_with_stream(void)
{
	far_up();
	put_open(1, 1000, 1000, "/t");
	lives(far, 0);
	taken = mux_accept(far);
	ck_assert_ptr_nonnull(taken);
	stream_set_owner(taken, &owner);
	stream_accept(taken);
	pull(far, 0);
}

static void
near_with_stream(void)
{
	near_up();
	taken = mux_open(near, "/t");
	ck_assert_ptr_nonnull(taken);
	stream_set_owner(taken, &owner);
	pull(near, 0);
	home = find_frame(FRAME_OPEN, 1) == NULL;
	pull(near, 1);
}

static void
done(struct mux **m)
{
	if (taken != NULL)
		stream_release(taken);
	taken = NULL;
	mux_end(*m, MUX_END, "");
	while (mux_accept(*m) != NULL)
		;
	ck_assert_uint_eq(reserved(*m), 0);
	mux_free(*m);
	*m = NULL;
	buf_trim();
}

static unsigned char
pattern(uint64_t at)
{
	return (unsigned char)(at * 7 ^ at >> 8);
}

static void
put_at(uint32_t id, uint64_t at, size_t n)
{
	unsigned char body[FRAME_AT + 2000];
	size_t i;

	frame_put(body, at, 8);
	for (i = 0; i < n; i++)
		body[FRAME_AT + i] = pattern(at + i);
	put_frame(FRAME_DATA_AT, id, body, FRAME_AT + n);
}

static void
put_lost(unsigned slot, uint32_t generation, uint64_t count)
{
	unsigned char body[12];

	frame_put(body, generation, 4);
	frame_put(body + 4, count, 8);
	put_frame(FRAME_LOST, slot, body, 12);
}

static void
put_tail(unsigned slot, uint32_t generation, uint64_t at, const void *p, size_t n)
{
	unsigned char body[FRAME_TAIL_AT + 5000];

	frame_put(body, generation, 4);
	frame_put(body + 4, at, 8);
	memcpy(body + FRAME_TAIL_AT, p, n);
	put_frame(FRAME_TAIL, slot, body, FRAME_TAIL_AT + n);
}

/* ${taken} has received the first ${n} bytes of the pattern. */
static void
received(size_t n)
{
	unsigned char x[4000];
	size_t i;

	ck_assert_uint_eq(held(taken), n);
	ck_assert_uint_eq(buf_take(stream_rx(taken), x, sizeof(x)), n);
	for (i = 0; i < n; i++)
		ck_assert_uint_eq(x[i], pattern(i));
	stream_consumed(taken, n);
}

/* ---- how many slots there are ---- */

START_TEST(both_sides_must_allow_slots)
{
	static const unsigned theirs[] = { 0, 1, 2, 8, 255 }, both[] = { 1, 1, 2, 8, 8 };
	struct mux *m = greeted(_i < 5 ? MUX_NEAR : MUX_FAR, theirs[_i % 5]);

	ck_assert_uint_eq(mux_slots(m), both[_i % 5]);
	ck_assert_int_eq(mux_slot_state(m, 0), MUX_SLOT_UP);
	ck_assert_int_eq(mux_slot_state(m, 1), MUX_SLOT_FREE);
	ck_assert_int_eq(mux_slot_state(m, 8), MUX_SLOT_FREE);
	done(&m);
}
END_TEST

START_TEST(slots_are_added_up_to_the_limit)
{
	const unsigned char *frame;
	struct session s;
	int i;

	near = greeted(MUX_NEAR, 3);
	for (i = 1; i < 3; i++) {
		ck_assert_int_eq(mux_add_slot(near, now), i);
		ck_assert_int_eq(mux_slot_state(near, (unsigned)i), MUX_SLOT_STARTING);
		ck_assert_uint_gt(pull(near, (unsigned)i), 0);
		frame = find_frame(FRAME_SESSION, 0);
		ck_assert_ptr_nonnull(frame);
		frame_decode_session(&s, frame + FRAME_HEAD);
		ck_assert_uint_eq(s.kind, SESSION_JOIN);
		ck_assert_int_eq(s.slot, i);
		ck_assert_uint_eq(s.generation, 1);
		ck_assert_uint_eq(s.count, 0);
	}
	ck_assert_int_eq(mux_add_slot(near, now), -1);
	done(&near);
	far = greeted(MUX_FAR, 8);
	ck_assert_int_eq(mux_add_slot(far, now), -1);
	done(&far);
}
END_TEST

START_TEST(a_claim_is_for_a_slot_in_range_and_a_new_generation)
{
	struct session s = join(1, 1, 0);

	far_up();
	ck_assert_int_eq(mux_claimed_slot(far, &s), -1);
	s.generation = 2;
	ck_assert_int_eq(mux_claimed_slot(far, &s), 1);
	s.slot = 7;
	ck_assert_int_eq(mux_claimed_slot(far, &s), 7);
	s.slot = 8;
	ck_assert_int_eq(mux_claimed_slot(far, &s), -1);
	s.slot = 255;
	ck_assert_int_eq(mux_accept_slot(far, &s, false, now), -1);
	done(&far);
}
END_TEST

/* Another host may answer: the session lives on the other slots. */
START_TEST(a_join_that_fails_loses_its_slot_alone)
{
	static const struct session gone = { .kind = SESSION_GONE };

	near = greeted(MUX_NEAR, 8);
	ck_assert_int_eq(mux_add_slot(near, now), 1);
	pull(near, 1);
	if (_i == 0)
		put_greeting(1, gone);
	else if (_i == 1)
		put_greeting(1, join(2, 1, 0));
	else
		put("reLAylink\n", 10);
	feed(near, 1);
	ck_assert_int_eq(mux_state(near), MUX_UP);
	ck_assert_int_eq(mux_slot_state(near, 1), MUX_SLOT_DOWN);
	pull(near, 0);
	ck_assert_ptr_nonnull(find_frame(FRAME_LOST, 1));
	done(&near);
}
END_TEST

START_TEST(a_slot_that_has_sent_nothing_is_free_at_once)
{
	near = greeted(MUX_NEAR, 8);
	ck_assert_int_eq(mux_add_slot(near, now), 1);
	mux_lost(near, 1, MUX_COMMAND, "no ssh");
	ck_assert_int_eq(mux_slot_state(near, 1), MUX_SLOT_FREE);
	ck_assert_int_eq(mux_add_slot(near, now), 1);
	done(&near);
}
END_TEST

/* A near side that waits for the peer's magic has read its whole greeting. */
static void
greeted_first(void)
{
	static const struct session s = { .kind = SESSION_NEW, .keep = 60, .slots = 8 };

	near = mux_new(MUX_NEAR, MUX_MEMORY, "here", now);
	mux_wait_peer_first(near);
	mux_keep(near, 0, NULL);
	put_greeting(1, s);
}

/* Our greeting was not written when the channel ended. */
START_TEST(a_slot_that_is_up_is_down_after_its_loss)
{
	unsigned slot = (unsigned)_i;

	greeted_first();
	lives(near, 0);
	if (slot == 1) {
		pull(near, 0);
		ck_assert_int_eq(mux_add_slot(near, now), 1);
		put_greeting(1, join(1, 1, 0));
		lives(near, 1);
	}
	taken = mux_open(near, "/t");
	ck_assert_ptr_nonnull(taken);
	mux_lost(near, slot, MUX_END, "the channel has ended");
	ck_assert_int_eq(mux_slot_state(near, slot), MUX_SLOT_DOWN);
	if (slot == 1)
		mux_lost(near, 0, MUX_END, "the channel has ended");
	ck_assert_int_eq(mux_down_slot(near), 0);
	done(&near);
}
END_TEST

START_TEST(our_greeting_is_before_BYE)
{
	static const unsigned char zeros[MUX_SESSION];
	struct session s;

	greeted_first();
	put_number(99, 0, 0, 1);
	feed(near, 0);
	ck_assert_int_eq(mux_state(near), MUX_DEAD);
	pull(near, 0);
	ck_assert_int_eq(memcmp(sent, frame_magic, FRAME_MAGIC), 0);
	ck_assert_ptr_nonnull(find_frame(FRAME_SESSION, 0));
	frame_decode_session(&s, find_frame(FRAME_SESSION, 0) + FRAME_HEAD);
	ck_assert_uint_eq(s.keep, 0);
	ck_assert_mem_eq(s.id, zeros, MUX_SESSION);
	ck_assert_ptr_nonnull(find_frame(FRAME_BYE, 0));
	done(&near);
}
END_TEST

/* ---- DATA out of order ---- */

START_TEST(bytes_are_in_order_however_they_come)
{
	static const int orders[6][3] = { { 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 }, { 1, 2, 0 },
		{ 2, 0, 1 }, { 2, 1, 0 } };
	size_t i, k, piece;

	for (piece = 1; piece < 330; piece += 41) {
		far_with_stream();
		for (i = 0; i < 3; i++) {
			put_at(1, (size_t)orders[_i][i] * piece, piece);
			for (k = 0; k < wired; k++)
				mux_feed(far, i & 1, wire + k, 1, now);
			wired = 0;
			ck_assert_uint_le(reserved(far), 1000);
		}
		received(3 * piece);
		done(&far);
	}
}
END_TEST

/* Two frames are read at the same time, byte by byte. */
START_TEST(frames_of_two_slots_are_read_at_the_same_time)
{
	unsigned char two[200];
	size_t one_n, two_n, i;

	far_with_stream();
	put_at(1, 100, 100);
	memcpy(two, wire, two_n = wired);
	wired = 0;
	put_at(1, 0, 100);
	one_n = wired;
	for (i = 0; i < one_n || i < two_n; i++) {
		mux_feed(far, _i == 0, two + i, 1, now);
		mux_feed(far, _i != 0, wire + i, 1, now);
	}
	wired = 0;
	received(200);
	put_at(1, 200, 300);
	mux_feed(far, 0, wire, 200, now); /* direct, in part */
	memmove(wire, wire + 200, wired - 200);
	one_n = wired - 200;
	wired = one_n;
	put_at(1, 500, 100);
	mux_feed(far, 1, wire + one_n, wired - one_n, now);
	mux_feed(far, 0, wire, one_n, now);
	wired = 0;
	ck_assert_uint_eq(held(taken), 400);
	done(&far);
}
END_TEST

START_TEST(eof_and_close_wait_for_the_bytes_before_them)
{
	far_with_stream();
	put_at(1, 0, 100);
	put_number(FRAME_FINAL, 1, 300, 8);
	if (_i == 0)
		put_frame(FRAME_EOF, 1, "", 0);
	else
		put_close(1, MUX_RESET);
	lives(far, 0);
	ck_assert(!stream_eof_read(taken) && !stream_is_closed(taken));
	put_at(1, 200, 100);
	lives(far, 1);
	ck_assert(!stream_eof_read(taken) && !stream_is_closed(taken));
	put_at(1, 100, 100);
	lives(far, 1);
	ck_assert(_i == 0 ? stream_eof_read(taken) : stream_is_closed(taken));
	received(300);
	done(&far);
}
END_TEST

/* The near side may have sent DATA elsewhere: only FREE frees the id. */
START_TEST(an_id_is_free_after_FREE)
{
	near_with_stream();
	ck_assert_uint_eq(stream_id(taken), 1);
	stream_reset(taken, MUX_RESET, "");
	pull(near, home);
	ck_assert_ptr_nonnull(find_frame(FRAME_CLOSE, 1));
	put_close(1, MUX_RESET);
	lives(near, 0);
	ck_assert_uint_eq(streams(near), 1);
	put_frame(FRAME_FREE, 1, "", 0);
	lives(near, 0);
	ck_assert_uint_eq(streams(near), 0);
	done(&near);
	far_with_stream();
	put_number(FRAME_FINAL, 1, 100, 8);
	put_close(1, MUX_RESET);
	lives(far, 0);
	stream_reset(taken, MUX_RESET, "");
	pull(far, 0);
	ck_assert_ptr_nonnull(find_frame(FRAME_CLOSE, 1));
	ck_assert_ptr_null(find_frame(FRAME_FREE, 1));
	put_at(1, 0, 100);
	lives(far, 1);
	pull(far, 0);
	ck_assert_ptr_nonnull(find_frame(FRAME_FREE, 1));
	ck_assert_uint_eq(streams(far), 0);
	done(&far);
}
END_TEST

/* A release drops the rest of a frame: the end behind it takes effect. */
START_TEST(dropped_bytes_count_as_read)
{
	far_with_stream();
	put_at(1, 0, 100);
	mux_feed(far, 1, wire, 50, now);
	put_number(FRAME_FINAL, 1, 100, 8);
	put_frame(FRAME_EOF, 1, "", 0);
	mux_feed(far, 0, wire + 116, wired - 116, now);
	wired = 0;
	ck_assert(!stream_eof_read(taken));
	stream_shutdown(taken);
	pull(far, 0);
	stream_discard(taken);
	ck_assert(stream_eof_read(taken));
	pull(far, 0);
	ck_assert_ptr_nonnull(find_frame(FRAME_CLOSE, 1));
	done(&far);
}
END_TEST

START_TEST(data_before_OPENED_waits_for_it)
{
	near_with_stream();
	put_at(1, 0, 50);
	lives(near, 1);
	ck_assert_uint_eq(held(taken), 0);
	put_frame(FRAME_OPENED, 1, "", 0);
	lives(near, 0);
	received(50);
	done(&near);
}
END_TEST

/* Pieces of one byte cost more than the window: their number has a limit. */
START_TEST(many_tiny_pieces_reset_the_stream_alone)
{
	uint64_t at;

	far_up();
	put_open(1, MUX_WINDOW_FIRST, 1000, "/t");
	lives(far, 0);
	taken = mux_accept(far);
	stream_set_owner(taken, &owner);
	for (at = 1; at < 65536 && stream_code(taken) == MUX_END; at += 2) {
		put_at(1, at, 1);
		lives(far, 1);
	}
	ck_assert_uint_eq(stream_code(taken), MUX_NO_ROOM);
	ck_assert_uint_le(at, 2 * 16384 + 4);
	ck_assert_uint_eq(reserved(far), 0);
	done(&far);
}
END_TEST

/* The same bytes without gaps are few pieces. */
START_TEST(pieces_without_gaps_are_merged)
{
	uint64_t at;

	far_up();
	put_open(1, MUX_WINDOW_FIRST, 1000, "/t");
	lives(far, 0);
	taken = mux_accept(far);
	stream_set_owner(taken, &owner);
	for (at = 1; at < 65536; at++) {
		put_at(1, at, 1);
		lives(far, 1);
	}
	ck_assert_uint_eq(stream_code(taken), MUX_END);
	put_at(1, 0, 1);
	lives(far, 0);
	ck_assert_uint_eq(held(taken), 65536);
	done(&far);
}
END_TEST

/* ---- what breaks the link ---- */

#define RULE(name, side, slot, frames)                                                     \
	START_TEST(name)                                                                   \
	{                                                                                  \
		side##_with_stream();                                                      \
		frames;                                                                    \
		feed(side, slot);                                                          \
		ck_assert_msg(mux_state(side) == MUX_DEAD, "the link is up");              \
		ck_assert_uint_eq(mux_code(side), MUX_PROTOCOL);                           \
		pull(side, 1 - slot);                                                      \
		ck_assert(mux_slot_state(side, 1 - slot) == MUX_SLOT_DOWN ||               \
			  mux_slot_state(side, 1 - slot) == MUX_SLOT_CLOSING ||            \
			  find_frame(FRAME_BYE, 0) != NULL);                               \
		done(&side);                                                               \
	}                                                                                  \
	END_TEST

static void
lose(struct mux *m)
{
	mux_lost(m, 1, MUX_RESET, "cut");
	pull(m, 0);
	ck_assert_ptr_nonnull(find_frame(FRAME_LOST, 1));
}

RULE(data_at_beyond_the_window, far, 1, put_at(1, 1000, 1))
RULE(data_at_partly_beyond_the_window, far, 0, put_at(1, 500, 501))
RULE(data_at_the_greatest_offset, far, 1, put_at(1, UINT64_MAX, 1))
RULE(data_at_near_the_greatest_offset, far, 1, put_at(1, UINT64_MAX - 10, 11))
RULE(data_at_for_no_stream, far, 1, put_at(3, 0, 1))
RULE(data_twice, far, 1, put_at(1, 0, 10); put_at(1, 0, 10))
RULE(data_early_twice, far, 1, put_at(1, 50, 10); put_at(1, 50, 10))
RULE(data_that_overlaps_in_front, far, 1, put_at(1, 50, 10); put_at(1, 45, 6))
RULE(data_that_overlaps_behind, far, 1, put_at(1, 50, 10); put_at(1, 59, 6))
RULE(data_that_overlaps_all, far, 1, put_at(1, 50, 10); put_at(1, 10, 100))
RULE(data_that_overlaps_what_is_being_read, far, 1, put_at(1, 0, 100);
     mux_feed(far, 0, wire, 60, now); wired = 0; put_at(1, 99, 2))
RULE(data_that_overlaps_what_is_being_read_early, far, 1, put_at(1, 100, 100);
     mux_feed(far, 0, wire, 60, now); wired = 0; put_at(1, 199, 2))
RULE(data_beyond_FINAL, far, 1, put_number(FRAME_FINAL, 1, 10, 8); put_at(1, 5, 6))
RULE(data_plain_after_FINAL, far, 1, put_number(FRAME_FINAL, 1, 10, 8); put_data(1, 1))
RULE(data_at_after_EOF, far, 1, put_frame(FRAME_EOF, 1, "", 0); put_at(1, 0, 1))
RULE(data_at_after_EOF_and_all_bytes, far, 1, put_at(1, 0, 10);
     put_number(FRAME_FINAL, 1, 10, 8); put_frame(FRAME_EOF, 1, "", 0); put_at(1, 10, 1))
RULE(FINAL_below_what_was_read, far, 0, put_at(1, 0, 10); put_number(FRAME_FINAL, 1, 9, 8))
RULE(FINAL_below_what_was_read_early, far, 0, put_at(1, 50, 10);
     put_number(FRAME_FINAL, 1, 59, 8))
RULE(FINAL_before_a_gap, far, 0, put_at(1, 50, 10); put_number(FRAME_FINAL, 1, 10, 8))
RULE(EOF_without_FINAL_after_DATA_AT, far, 0, put_at(1, 0, 10); put_frame(FRAME_EOF, 1, "", 0))
RULE(FINAL_twice, far, 0, put_number(FRAME_FINAL, 1, 9, 8); put_number(FRAME_FINAL, 1, 9, 8))
RULE(FINAL_after_EOF, far, 0, put_frame(FRAME_EOF, 1, "", 0); put_number(FRAME_FINAL, 1, 0, 8))
RULE(FINAL_after_CLOSE, far, 0, put_close(1, 1); put_number(FRAME_FINAL, 1, 0, 8))
RULE(FREE_from_the_near_side, far, 0, put_close(1, 1); put_frame(FRAME_FREE, 1, "", 0))
RULE(FREE_before_CLOSE, near, 0, put_frame(FRAME_FREE, 1, "", 0))
RULE(FREE_before_our_CLOSE, near, 0, put_close(1, 1); put_frame(FRAME_FREE, 1, "", 0))
RULE(LOST_of_no_slot, far, 0, put_lost(8, 1, 0))
RULE(LOST_of_a_far_slot, near, 0, put_lost(UINT32_MAX, 1, 0))
RULE(LOST_of_the_slot_itself, far, 1, put_lost(1, 1, 0))
RULE(LOST_of_a_newer_slot_itself, far, 1, put_lost(1, 9, 0))
RULE(LOST_of_bytes_that_were_not_sent, far, 0, put_lost(1, 1, 100000))
RULE(LOST_of_the_greatest_count, near, 0, put_lost(1, 1, UINT64_MAX))
RULE(LOST_of_a_generation_from_the_far_side, near, 0, put_lost(1, 2, 0))
RULE(LOST_of_a_free_slot_with_bytes, far, 0, put_lost(2, 1, 1))
RULE(LOST_of_a_slot_that_is_starting, near, 0, mux_add_slot(near, now); put_lost(2, 1, 0))
RULE(TAIL_of_no_slot, far, 0, put_tail(8, 1, 0, "", 0))
RULE(TAIL_of_a_slot_that_is_up, far, 0, put_tail(1, 1, 0, "", 0))
RULE(TAIL_of_the_slot_itself, far, 1, put_tail(1, 1, 0, "", 0))
RULE(TAIL_before_our_LOST, far, 0, mux_lost(far, 1, 1, "cut"); put_tail(1, 1, 0, "", 0))
RULE(TAIL_of_a_newer_generation, far, 0, lose(far); put_tail(1, 2, 0, "", 0))
RULE(TAIL_with_a_gap, far, 0, lose(far); put_tail(1, 1, 1, "", 0))
RULE(TAIL_after_the_last, far, 0, lose(far); put_tail(1, 1, 0, "", 0); put_tail(1, 1, 0, "", 0))
RULE(TAIL_that_ends_in_a_head, far, 0, lose(far); put_tail(1, 1, 0, "\12", 1);
     put_tail(1, 1, 1, "", 0))
RULE(TAIL_that_ends_in_a_body, far, 0, lose(far); put_tail(1, 1, 0, "\14\0\0\4\0\0\0\0", 8);
     put_tail(1, 1, 8, "", 0))
RULE(TAIL_within_the_same_TAIL, far, 0, lose(far);
     put_tail(1, 1, 0, "\21\0\0\14\0\0\0\1\0\0\0\1\0\0\0\0\0\0\0\0", 20))
RULE(DRAIN_from_the_far_side, near, 0, put_number(FRAME_DRAIN, 1, 1, 4))
RULE(DRAIN_of_no_slot, far, 0, put_number(FRAME_DRAIN, 8, 1, 4))
RULE(DRAIN_of_the_slot_itself, far, 1, put_number(FRAME_DRAIN, 1, 1, 4))
RULE(LIMITED_from_the_near_side, far, 0, put_number(FRAME_LIMITED, 0, 1, 4))

/* Without slots, their frames are of unknown types. */
START_TEST(a_peer_without_slots_sends_none_of_their_frames)
{
	static const unsigned sizes[] = { 9, 8, 0, 12, 12, 4, 4 };
	static const unsigned char zeros[16];
	unsigned type = FRAME_DATA_AT + (unsigned)_i;

	far = greeted(MUX_FAR, 1);
	put_open(1, 1000, 1000, "/t");
	put_frame(type, type < FRAME_LOST, zeros, sizes[_i]);
	feed(far, 0);
	ck_assert_int_eq(mux_state(far), MUX_DEAD);
	done(&far);
}
END_TEST

START_TEST(frames_of_older_channels_are_ignored)
{
	struct session s = join(1, 5, 0);

	far_with_stream();
	mux_lost(far, 1, MUX_RESET, "cut");
	ck_assert_int_eq(mux_accept_slot(far, &s, false, now), 1);
	put_greeting(0, s);
	lives(far, 1);
	put_lost(1, 4, UINT64_MAX);
	put_tail(1, 4, UINT64_MAX, "nonsense", 8);
	put_number(FRAME_DRAIN, 1, 4, 4);
	lives(far, 0);
	ck_assert_int_eq(mux_slot_state(far, 1), MUX_SLOT_UP);
	put_number(FRAME_DRAIN, 3, 0, 4); /* free */
	put_lost(3, 0, 7);
	lives(far, 0);
	ck_assert_int_eq(mux_slot_state(far, 3), MUX_SLOT_FREE);
	done(&far);
}
END_TEST

/* ---- lost slots ---- */

/* The far side reads TAIL of a slot cut at any byte; ${_i}: in one piece or not. */
START_TEST(a_tail_continues_at_each_byte)
{
	static unsigned char all[200];
	size_t n, cut, i, k;

	for (n = 0; n < 100; n++)
		all[n] = pattern(n);
	for (cut = 0; cut <= 108; cut++) {
		far_with_stream();
		put_frame(FRAME_DATA_AT, 1, "\0\0\0\0\0\0\0\0", 8); /* only its head is used */
		wired = 0;
		put_at(1, 0, 100);
		memcpy(all, wire, n = wired);
		wired = 0;
		mux_feed(far, 1, all, cut, now);
		lose(far);
		put_lost(1, 1, 0);
		for (i = cut; i < n; i += k) {
			k = _i == 0 ? n - i : 1 + i % 7;
			k = k < n - i ? k : n - i;
			put_tail(1, 1, i, all + i, k);
		}
		put_tail(1, 1, n, "", 0);
		lives(far, 0);
		received(100);
		pull(far, 0);
		ck_assert_ptr_nonnull(find_frame(FRAME_TAIL, 1));
		ck_assert_int_eq(mux_slot_state(far, 1), MUX_SLOT_FREE);
		done(&far);
	}
}
END_TEST

/* What the peer has not read travels as TAIL, and nothing else. */
START_TEST(a_tail_has_the_bytes_after_the_count)
{
	static unsigned char before[2000];
	struct mux_slot_stats one;
	const unsigned char *frame;
	size_t first, n;
	struct frame f;

	for (n = 0; n < 30; n++) {
		far_up();
		mux_slot_stats(far, 1, &one);
		put_open(3, 1000, 1000, "/u");
		lives(far, 1);
		taken = mux_accept(far);
		stream_accept(taken);
		first = pull(far, 1);
		ck_assert_uint_ge(first, FRAME_HEAD);
		memcpy(before, sent, first);
		lose(far);
		put_lost(1, 1, one.sent + n);
		feed(far, 0);
		ck_assert_int_eq(mux_state(far), n > first ? MUX_DEAD : MUX_UP);
		pull(far, 0);
		frame = find_frame(FRAME_TAIL, 1);
		ck_assert((frame == NULL) == (n >= first));
		if (frame != NULL) {
			frame_decode(&f, frame);
			ck_assert_uint_eq(f.length - FRAME_TAIL_AT, first - n);
			ck_assert_uint_eq(frame_get(frame + FRAME_HEAD + 4, 8), one.sent + n);
			ck_assert_mem_eq(frame + FRAME_HEAD + FRAME_TAIL_AT, before + n, first - n);
		}
		done(&far);
	}
}
END_TEST

/* Open and release streams with long targets until ${slot} has ${n} bytes in flight. */
static void
open_many(unsigned slot, size_t n)
{
	static char target[FRAME_TARGET + 1];
	struct mux_slot_stats one;

	memset(target, 'x', FRAME_TARGET);
	do {
		taken = mux_open(near, target);
		ck_assert_ptr_nonnull(taken);
		stream_release(taken);
		ck_assert_uint_gt(pull(near, 0) + pull(near, 1), FRAME_TARGET);
		mux_slot_stats(near, slot, &one);
	} while (one.in_flight < n);
	taken = NULL;
}

/* When TAIL is acknowledged, its bytes are retained no more. */
START_TEST(bytes_of_a_tail_are_retained_once)
{
	struct mux_slot_stats zero;

	near_up();
	open_many(1, 7 << 20);
	lose(near);
	put_lost(1, 1, 0);
	do {
		mux_slot_stats(near, 0, &zero);
		put_ack(zero.sent, 0);
		lives(near, 0);
	} while (pull(near, 0) > 0);
	ck_assert_int_eq(mux_slot_state(near, 1), MUX_SLOT_CLOSING);
	open_many(0, 12 << 20);
	done(&near);
}
END_TEST

/* A byte of such a TAIL would be passed from one to the other, and back. */
START_TEST(TAILs_that_carry_each_other_break_the_link)
{
	static const unsigned char zeros[1000];
	unsigned char inner[FRAME_HEAD + FRAME_TAIL_AT];
	struct mux_slot_stats two, three;
	struct session s;
	unsigned i;

	far_up();
	for (i = 2; i <= 3; i++) {
		s = join((unsigned char)i, 1, 0);
		ck_assert_int_eq(mux_accept_slot(far, &s, false, now), i);
		put_greeting(0, s);
		lives(far, i);
		pull(far, i);
	}
	mux_lost(far, 3, MUX_RESET, "cut");
	pull(far, 0);
	mux_slot_stats(far, 3, &three);
	put_tail(3, 1, three.received, zeros, sizeof(zeros));
	mux_feed(far, 2, wire, sizeof(inner), now);
	wired = 0;
	mux_lost(far, 2, MUX_RESET, "cut");
	pull(far, 0);
	mux_slot_stats(far, 2, &two);
	put_tail(2, 1, two.received, zeros, sizeof(zeros));
	memcpy(inner, wire, sizeof(inner));
	wired = 0;
	put_tail(3, 1, three.received, inner, sizeof(inner));
	feed(far, 1);
	ck_assert_int_eq(mux_state(far), MUX_DEAD);
	ck_assert_str_eq(mux_why(far), "the other side broke the protocol: a TAIL that is not possible");
	done(&far);
}
END_TEST

START_TEST(BYE_after_DRAIN_is_why_the_link_has_ended)
{
	far_with_stream();
	put_number(FRAME_DRAIN, 1, 1, 4);
	put_frame(FRAME_BYE, 0, "\0\1stop", 6);
	feed(far, 0);
	ck_assert_uint_eq(mux_code(far), MUX_RESET);
	ck_assert_str_eq(mux_why(far), "stop");
	done(&far);
}
END_TEST

/* DRAIN of slot 1 was sent on slot 0.  That is lost, so slot 1 carries it. */
START_TEST(a_tail_may_have_DRAIN_of_its_carrier)
{
	unsigned char drain[FRAME_HEAD + 4];
	struct mux_slot_stats zero;

	far_with_stream();
	mux_slot_stats(far, 0, &zero);
	mux_lost(far, 0, MUX_RESET, "cut");
	pull(far, 1);
	put_number(FRAME_DRAIN, 1, 1, 4);
	memcpy(drain, wire, wired);
	wired = 0;
	put_lost(0, 0, zero.sent);
	put_tail(0, 0, zero.received, drain, sizeof(drain));
	lives(far, 1);
	ck_assert_int_eq(mux_slot_state(far, 1), MUX_SLOT_CLOSING);
	done(&far);
}
END_TEST

/* The rest of a TAIL frame comes after another channel has continued the slot. */
START_TEST(a_tail_that_is_read_in_part_ends_with_its_generation)
{
	unsigned char rest[100];
	size_t n;

	near_with_stream();
	lose(near);
	put_frame(FRAME_OPENED, 1, "", 0);
	put_frame(FRAME_OPENED, 1, "", 0); /* would break the link */
	memcpy(rest, wire, n = wired);
	wired = 0;
	put_tail(1, 1, 0, rest, n);
	mux_feed(near, 0, wire, wired - 8, now);
	ck_assert(stream_is_opened(taken));
	memmove(wire, wire + wired - 8, 8);
	wired = 8;
	mux_lost(near, 0, MUX_RESET, "cut");
	ck_assert_int_eq(mux_state(near), MUX_DOWN);
	mux_attach(near, 1, false, now);
	pull(near, 1);
	memcpy(rest, wire, 8);
	wired = 0;
	put_greeting(1, join(1, 2, 0));
	lives(near, 1);
	pull(near, 1);
	ck_assert_ptr_nonnull(find_frame(FRAME_LOST, 0));
	put_lost(0, 0, GREETED);
	put_tail(0, 0, GREETED + FRAME_HEAD + FRAME_TAIL_AT + 8, rest, 8);
	put_tail(0, 0, GREETED + FRAME_HEAD + FRAME_TAIL_AT + 16, "", 0);
	lives(near, 1);
	done(&near);
}
END_TEST

START_TEST(the_near_side_attaches_no_slot_after_the_far_LOST)
{
	near_with_stream();
	lose(near);
	ck_assert_int_eq(mux_slot_state(near, 1), MUX_SLOT_DOWN);
	put_lost(1, 1, 0);
	lives(near, 0);
	ck_assert_int_eq(mux_slot_state(near, 1), MUX_SLOT_CLOSING);
	mux_lost(near, 0, MUX_RESET, "cut");
	ck_assert_int_eq(mux_state(near), MUX_DOWN);
	ck_assert_int_eq(mux_down_slot(near), 0);
	done(&near);
}
END_TEST

/* A far side that answers nothing costs no memory: the slots are few. */
START_TEST(a_hundred_thousand_claims_and_losses_hold_nothing)
{
	struct session s = join(1, 1, 0);
	uint32_t i;

	far_up();
	for (i = 2; i < 100000; i++) {
		s = join(i % 8, i, i % 8 == 0 ? GREETED : 0);
		if (mux_claimed_slot(far, &s) == -1)
			continue;
		if (i % 8 == 0)
			continue;
		mux_lost(far, i % 8, MUX_RESET, "replaced");
		ck_assert_int_eq(mux_accept_slot(far, &s, false, now), (int)(i % 8));
		put_greeting(0, s);
		feed(far, i % 8);
		ck_assert_int_eq(mux_state(far), MUX_UP);
		put_lost((i + 3) % 8 == 0 ? 1 : (i + 3) % 8, i, 0);
		feed(far, 0);
		ck_assert_int_eq(mux_state(far), MUX_UP);
		if (i % 50 == 0) {
			pull(far, 0);
			put_ack(GREETED, 0);
			wired = 0;
		}
	}
	done(&far);
}
END_TEST

/* ---- two sides ---- */

/* Both send and read all that they can, on all slots, in no time. */
static void
cross(void)
{
	size_t n;
	unsigned k;

	do {
		for (n = 0, k = 0; k < MUX_SLOTS; k++) {
			n += pull(near, k);
			mux_feed(far, k, sent, sent_n, now);
			n += pull(far, k);
			mux_feed(near, k, sent, sent_n, now);
		}
	} while (n > 0);
}

static void
both_up(int slots)
{
	struct session s;
	int i;

	near = mux_new(MUX_NEAR, MUX_MEMORY, "laptop", now);
	far = mux_new(MUX_FAR, MUX_MEMORY, "node", now);
	mux_keep(near, 0, NULL);
	mux_keep(far, 3600, session_id);
	cross();
	for (i = 1; i < slots; i++) {
		ck_assert_int_eq(mux_add_slot(near, now), i);
		s = join((unsigned)i, 1, 0);
		ck_assert_int_eq(mux_accept_slot(far, &s, false, now), i);
	}
	cross();
}

static struct stream *
open_both(struct stream **there)
{
	struct stream *s = mux_open(near, "/a.soc");

	ck_assert_ptr_nonnull(s);
	stream_set_owner(s, &owner);
	cross();
	*there = mux_accept(far);
	ck_assert_ptr_nonnull(*there);
	stream_set_owner(*there, &owner);
	stream_accept(*there);
	cross();
	return s;
}

static void
send_bytes(struct stream *s, uint64_t at, size_t n)
{
	unsigned char x[1000];
	size_t i;

	ck_assert_uint_le(n, sizeof(x));
	for (i = 0; i < n; i++)
		x[i] = pattern(at + i);
	ck_assert(buf_put(stream_tx(s), x, n));
	stream_push(s);
}

static void
over(struct stream *s, struct stream *t)
{
	stream_release(s);
	stream_release(t);
	cross();
	ck_assert_uint_eq(streams(near) + streams(far), 0);
	done(&near);
	done(&far);
}

START_TEST(a_closed_slot_becomes_free_on_both_sides)
{
	struct stream *s, *t;
	unsigned slot = _i == 0 ? 0 : 1;

	both_up(2);
	s = open_both(&t);
	send_bytes(s, 0, 500);
	mux_close_slot(near, slot);
	ck_assert_int_eq(mux_slot_state(near, slot), MUX_SLOT_CLOSING);
	for (; mux_slot_state(near, slot) != MUX_SLOT_FREE; now += 10000) {
		cross();
		mux_tick(near, now);
		mux_tick(far, now);
	}
	ck_assert_int_eq(mux_slot_state(far, slot), MUX_SLOT_FREE);
	send_bytes(s, 500, 500);
	cross();
	taken = t;
	received(1000);
	send_bytes(t, 0, 500);
	cross();
	taken = s;
	received(500);
	taken = NULL;
	over(s, t);
}
END_TEST

START_TEST(the_last_slot_is_used_while_it_drains)
{
	struct stream *s, *t;

	both_up(1);
	s = open_both(&t);
	mux_close_slot(near, 0);
	send_bytes(s, 0, 500);
	cross();
	ck_assert_uint_eq(held(t), 500);
	ck_assert_int_eq(mux_slot_state(near, 0), MUX_SLOT_CLOSING);
	over(s, t);
}
END_TEST

/* Before OPENED, DATA uses the slot of OPEN.  If that drains, DATA waits. */
START_TEST(a_slot_that_drains_sends_no_data_of_its_own_streams)
{
	struct mux_slot_stats one;

	near_with_stream();
	mux_close_slot(near, home);
	send_bytes(taken, 0, 500);
	ck_assert(!mux_has_output(near, home));
	pull(near, 1 - home);
	pull(near, home);
	ck_assert_ptr_null(find_frame(FRAME_DATA, 1));
	put_frame(FRAME_OPENED, 1, "", 0);
	lives(near, home);
	mux_slot_stats(near, home, &one);
	put_lost(home, home, one.sent);
	lives(near, 1 - home);
	pull(near, 1 - home); /* which is the home after TAIL */
	ck_assert_ptr_nonnull(find_frame(FRAME_DATA, 1));
	done(&near);
}
END_TEST

static void
exchange(int64_t span)
{
	int64_t until = now + span;

	for (; now < until; now += 10000) {
		mux_tick(near, now);
		mux_tick(far, now);
		cross();
	}
}

/*
 * Slot 1 of near is cut and carries a byte of DATA.  ${_i}: slot 0 works, or is
 * cut, too.
 */
START_TEST(a_silent_slot_is_lost_after_5_s_if_others_answer)
{
	struct stream *s, *t;
	int64_t cut;
	unsigned k;

	both_up(2);
	s = open_both(&t);
	exchange(SECOND);
	send_bytes(s, 0, 1);
	for (k = 0; k < 2; k++) { /* the slot that takes the byte is cut */
		pull(near, k);
		if (sent_n > 0)
			break;
	}
	ck_assert_uint_lt(k, 2);
	for (cut = now; mux_slot_state(near, k) == MUX_SLOT_UP; now += 10000) {
		mux_tick(near, now);
		mux_tick(far, now);
		pull(near, k);
		pull(near, 1 - k);
		if (_i == 0)
			mux_feed(far, 1 - k, sent, sent_n, now);
		pull(far, k);
		pull(far, 1 - k);
		if (_i == 0)
			mux_feed(near, 1 - k, sent, sent_n, now);
		ck_assert_int_lt(now - cut, 100 * SECOND);
	}
	ck_assert_int_ge(now - cut, (_i == 0 ? 5 : 44) * SECOND - 20000);
	ck_assert_int_le(now - cut, (_i == 0 ? 6 : 46) * SECOND);
	stream_release(s);
	stream_release(t);
	done(&near);
	done(&far);
}
END_TEST

/* The process stands still while bytes are in flight on both slots. */
START_TEST(after_a_stop_the_first_slot_that_is_read_does_not_end_the_others)
{
	struct stream *s, *t;
	unsigned k;
	int i;

	both_up(2);
	s = open_both(&t);
	exchange(SECOND);
	for (i = 0; i < 100; i++)
		send_bytes(s, 0, 1000);
	for (i = 0; i < 2; i++)
		for (k = 0; k < 2; k++, now += 10)
			pull(near, k);
	mux_tick(near, now);
	now += _i == 0 ? 10 * SECOND : 100 * SECOND;
	put_frame(FRAME_PING, 0, "", 0);
	feed(near, 1);
	for (i = 0; i < 10; i++, now += 100000)
		mux_tick(near, now);
	ck_assert_int_eq(mux_slot_state(near, 0), MUX_SLOT_UP);
	ck_assert_int_eq(mux_slot_state(near, 1), MUX_SLOT_UP);
	stream_release(s);
	stream_release(t);
	done(&near);
	done(&far);
}
END_TEST

/* Where bulk is in flight, a keystroke would wait behind it. */
START_TEST(a_small_piece_takes_the_slot_with_the_fewest_bytes_in_flight)
{
	struct stream *s, *t, *key, *there;
	unsigned busy = _i == 0 ? 0 : 1, k;
	int i;

	both_up(2);
	s = open_both(&t);
	key = open_both(&there);
	now += SECOND;
	for (i = 0; i < 200; i++)
		send_bytes(s, 0, 1000);
	for (i = 0; i < 2; i++)
		for (k = 0; k < 2; k++) {
			pull(near, k);
			mux_feed(far, k, sent, sent_n, now);
		}
	buf_clear(stream_tx(s));
	pull(far, 1 - busy); /* ACK of one slot alone */
	mux_feed(near, 1 - busy, sent, sent_n, now);
	send_bytes(key, 0, 1);
	ck_assert(mux_has_output(near, 1 - busy));
	pull(near, busy);
	ck_assert_ptr_null(find_frame(FRAME_DATA, stream_id(key)));
	ck_assert_ptr_null(find_frame(FRAME_DATA_AT, stream_id(key)));
	mux_feed(far, busy, sent, sent_n, now);
	pull(near, 1 - busy);
	mux_feed(far, 1 - busy, sent, sent_n, now);
	ck_assert_uint_eq(held(there), 1);
	stream_release(key);
	stream_release(there);
	over(s, t);
}
END_TEST

/* Near has sent this on slot 0.  After 10 ms, ACK and CREDIT are back. */
static void
carry(struct stream *reader)
{
	static unsigned char x[65536];
	unsigned k;
	size_t n;

	mux_feed(far, 0, sent, sent_n, now);
	while ((n = buf_take(stream_rx(reader), x, sizeof(x))) > 0)
		stream_consumed(reader, n);
	now += 10000;
	for (k = 0; k < 2; k++) {
		pull(far, k);
		mux_feed(near, k, sent, sent_n, now);
	}
}

/*
 * Slot 1 has a small cwnd, and an ACK that waits for its channel.  What is
 * little for slot 0 makes no stream busy, although slot 1 is its home.
 */
START_TEST(the_fastest_slot_decides_which_stream_is_quiet)
{
	struct stream *s, *t, *key, *there;
	const unsigned char *p;
	int i, k;

	both_up(2);
	key = open_both(&there);
	s = open_both(&t);
	put_frame(FRAME_PING, 0, "", 0);
	feed(near, 1);
	ck_assert_uint_gt(mux_output(near, 1, &p, MUX_PULL, now), 0);
	for (i = 0; i < 1010; i++) {
		while (stream_tx(s)->used < 100000)
			send_bytes(s, 0, 1000);
		for (k = 0; i >= 1000 && k < 4; k++)
			send_bytes(key, 0, 1000);
		pull(near, 0);
		p = find_frame(FRAME_DATA_AT, stream_id(key));
		ck_assert((p != NULL) == (i >= 1000));
		ck_assert(p <= find_frame(FRAME_DATA_AT, stream_id(s)));
		carry(t);
	}
	buf_clear(stream_tx(s));
	stream_release(key);
	stream_release(there);
	over(s, t);
}
END_TEST

/* Each channel that can take bytes gets a part of one stream. */
START_TEST(bulk_is_sent_on_all_slots)
{
	struct mux_slot_stats one;
	struct stream *s, *t;
	unsigned k;
	int i;

	both_up(4);
	s = open_both(&t);
	for (i = 0; i < 200; i++)
		send_bytes(s, 0, 1000);
	for (k = 0; k < 8; k++) {
		pull(near, k % 4);
		mux_feed(far, k % 4, sent, sent_n, now);
	}
	for (k = 0; k < 4; k++) {
		mux_slot_stats(near, k, &one);
		ck_assert_uint_gt(one.in_flight, 10000);
		ck_assert_uint_le(one.in_flight, one.cwnd + one.cwnd / 4);
		ck_assert(!mux_has_output(near, k));
	}
	ck_assert_uint_gt(held(t), 100000);
	buf_clear(stream_tx(s));
	over(s, t);
}
END_TEST

/* On a line of 4 ms without another limit, each slot retains the same share. */
START_TEST(slots_share_what_may_be_retained)
{
	static unsigned char line[MUX_SLOTS][5 << 19];
	struct mux_slot_stats one;
	struct stream *s, *t;
	size_t n[MUX_SLOTS];
	uint64_t all = 0;
	unsigned k;
	int i;

	both_up(MUX_SLOTS);
	s = open_both(&t);
	for (i = 0; i < 50; i++, now += 4000) {
		for (all = 0, k = 0; k < MUX_SLOTS; k++) {
			ck_assert(buf_put(stream_tx(t), line[k], sizeof(line[k])));
			stream_push(t);
			n[k] = pull(far, k);
			memcpy(line[k], sent, n[k]);
			buf_clear(stream_tx(t));
			mux_slot_stats(far, k, &one);
			ck_assert_uint_le(one.in_flight, (2 << 20) + 65536);
			all += one.in_flight;
		}
		for (k = 0; k < MUX_SLOTS; k++) {
			mux_feed(near, k, line[k], n[k], now + 2000);
			stream_consumed(s, stream_rx(s)->used);
			buf_clear(stream_rx(s));
			pull(near, k);
			mux_feed(far, k, sent, sent_n, now + 4000);
		}
	}
	ck_assert_uint_gt(all, 14 << 20);
	over(s, t);
}
END_TEST

/* The line takes 10 bytes per us. */
START_TEST(a_far_side_reports_that_bulk_waits)
{
	static unsigned char line[2 << 20], acks[20000];
	struct stream *s, *t;
	size_t n, have = 0;
	int i;

	both_up(1);
	s = open_both(&t);
	ck_assert(mux_limited_at(near) == INT64_MAX && mux_limited_at(far) == INT64_MAX);
	for (i = 0; i < 12000; i++, now += 400) {
		while (i < 6000 && stream_tx(t)->used < 500000)
			send_bytes(t, 0, 1000);
		mux_tick(far, now);
		while (have < sizeof(line) - 65536 &&
		       (n = pull_slot(far, 0, line + have, 65536, now)) > 0)
			have += n;
		n = have < 4000 ? have : 4000;
		mux_tick(near, now);
		mux_feed(near, 0, line, n, now);
		have -= n;
		memmove(line, line + n, have);
		while ((n = buf_take(stream_rx(s), acks, sizeof(acks))) > 0)
			stream_consumed(s, n);
		n = pull_slot(near, 0, acks, sizeof(acks), now);
		mux_feed(far, 0, acks, n, now);
		if (i == 5999) {
			ck_assert_int_lt(mux_limited_at(far), now - SECOND);
			ck_assert_int_lt(mux_limited_at(near), now - SECOND);
			buf_clear(stream_tx(t));
		}
	}
	ck_assert(mux_limited_at(far) == INT64_MAX);
	ck_assert(mux_limited_at(near) == INT64_MAX);
	over(s, t);
}
END_TEST

/* Frames of two slots overtake each other, so no frame ends the limit. */
START_TEST(a_LIMITED_of_the_peer_lapses)
{
	int64_t since = now - 3 * SECOND, last;

	near_up();
	put_number(FRAME_LIMITED, 0, 3000, 4);
	lives(near, 0);
	ck_assert_int_eq(mux_limited_at(near), since);
	now += SECOND / 2;
	put_number(FRAME_LIMITED, 0, 3500, 4);
	lives(near, 1);
	ck_assert_int_eq(mux_limited_at(near), since);
	for (last = now; mux_limited_at(near) != INT64_MAX; mux_tick(near, now)) {
		pull(near, 0);
		pull(near, 1);
		now = mux_deadline(near);
	}
	ck_assert_int_eq(now - last, SECOND);
	done(&near);
}
END_TEST

/* cwnd has room for more, but the channel takes 2,000 bytes at a time. */
START_TEST(a_full_channel_limits_bulk)
{
	static unsigned char bytes[65536];
	const unsigned char *p;
	struct stream *s, *t;
	size_t n;
	int i;

	both_up(1);
	s = open_both(&t);
	for (i = 0; i < 8000; i++, now += 400) {
		while (stream_tx(t)->used < 500000)
			send_bytes(t, 0, 1000);
		mux_tick(far, now);
		n = mux_output(far, 0, &p, sizeof(bytes), now);
		n = n < 2000 ? n : 2000;
		mux_tick(near, now);
		mux_feed(near, 0, p, n, now);
		mux_wrote(far, 0, n);
		while ((n = buf_take(stream_rx(s), bytes, sizeof(bytes))) > 0)
			stream_consumed(s, n);
		n = pull_slot(near, 0, bytes, sizeof(bytes), now);
		mux_feed(far, 0, bytes, n, now);
	}
	ck_assert_int_lt(mux_limited_at(far), now - SECOND);
	ck_assert_int_lt(mux_limited_at(near), now - SECOND);
	stream_release(s);
	stream_release(t);
	done(&near);
	done(&far);
}
END_TEST

START_TEST(bye_is_sent_on_each_slot)
{
	unsigned k;

	both_up(3);
	mux_bye(near, MUX_END, "done");
	for (k = 0; k < 3; k++) {
		ck_assert(mux_has_output(near, k));
		pull(near, k);
		ck_assert_ptr_nonnull(find_frame(FRAME_BYE, 0));
		ck_assert(!mux_has_output(near, k));
		mux_lost(near, k, MUX_RESET, "");
	}
	mux_feed(far, 2, sent, sent_n, now);
	ck_assert_int_eq(mux_state(far), MUX_DEAD);
	ck_assert(mux_ended_by_peer(far));
	done(&near);
	done(&far);
}
END_TEST

static void
teardown(void)
{
	ck_assert_ptr_null(near);
	ck_assert_ptr_null(far);
}

#define R(name) tcase_add_test(tc, name)

static void
add_rules(TCase *tc)
{
	R(data_at_beyond_the_window);
	R(data_at_partly_beyond_the_window);
	R(data_at_the_greatest_offset);
	R(data_at_near_the_greatest_offset);
	R(data_at_for_no_stream);
	R(data_twice);
	R(data_early_twice);
	R(data_that_overlaps_in_front);
	R(data_that_overlaps_behind);
	R(data_that_overlaps_all);
	R(data_that_overlaps_what_is_being_read);
	R(data_that_overlaps_what_is_being_read_early);
	R(data_beyond_FINAL);
	R(data_plain_after_FINAL);
	R(data_at_after_EOF);
	R(data_at_after_EOF_and_all_bytes);
	R(FINAL_below_what_was_read);
	R(FINAL_below_what_was_read_early);
	R(FINAL_before_a_gap);
	R(EOF_without_FINAL_after_DATA_AT);
	R(FINAL_twice);
	R(FINAL_after_EOF);
	R(FINAL_after_CLOSE);
	R(FREE_from_the_near_side);
	R(FREE_before_CLOSE);
	R(FREE_before_our_CLOSE);
	R(LOST_of_no_slot);
	R(LOST_of_a_far_slot);
	R(LOST_of_the_slot_itself);
	R(LOST_of_a_newer_slot_itself);
	R(LOST_of_bytes_that_were_not_sent);
	R(LOST_of_the_greatest_count);
	R(LOST_of_a_generation_from_the_far_side);
	R(LOST_of_a_free_slot_with_bytes);
	R(LOST_of_a_slot_that_is_starting);
	R(TAIL_of_no_slot);
	R(TAIL_of_a_slot_that_is_up);
	R(TAIL_of_the_slot_itself);
	R(TAIL_before_our_LOST);
	R(TAIL_of_a_newer_generation);
	R(TAIL_with_a_gap);
	R(TAIL_after_the_last);
	R(TAIL_that_ends_in_a_head);
	R(TAIL_that_ends_in_a_body);
	R(TAIL_within_the_same_TAIL);
	R(DRAIN_from_the_far_side);
	R(DRAIN_of_no_slot);
	R(DRAIN_of_the_slot_itself);
	R(LIMITED_from_the_near_side);
}

TESTS("slots")
{
	tcase_add_checked_fixture(tc, NULL, teardown);
	tcase_add_loop_test(tc, both_sides_must_allow_slots, 0, 10);
	R(slots_are_added_up_to_the_limit);
	R(a_claim_is_for_a_slot_in_range_and_a_new_generation);
	tcase_add_loop_test(tc, a_join_that_fails_loses_its_slot_alone, 0, 3);
	R(a_slot_that_has_sent_nothing_is_free_at_once);
	tcase_add_loop_test(tc, a_slot_that_is_up_is_down_after_its_loss, 0, 2);
	R(our_greeting_is_before_BYE);
	tcase_add_loop_test(tc, bytes_are_in_order_however_they_come, 0, 6);
	tcase_add_loop_test(tc, frames_of_two_slots_are_read_at_the_same_time, 0, 2);
	tcase_add_loop_test(tc, eof_and_close_wait_for_the_bytes_before_them, 0, 2);
	R(an_id_is_free_after_FREE);
	R(dropped_bytes_count_as_read);
	R(data_before_OPENED_waits_for_it);
	R(many_tiny_pieces_reset_the_stream_alone);
	R(pieces_without_gaps_are_merged);
	add_rules(tc);
	tcase_add_loop_test(tc, a_peer_without_slots_sends_none_of_their_frames, 0, 7);
	R(frames_of_older_channels_are_ignored);
	tcase_add_loop_test(tc, a_tail_continues_at_each_byte, 0, 2);
	R(a_tail_has_the_bytes_after_the_count);
	R(bytes_of_a_tail_are_retained_once);
	R(a_tail_that_is_read_in_part_ends_with_its_generation);
	R(TAILs_that_carry_each_other_break_the_link);
	R(BYE_after_DRAIN_is_why_the_link_has_ended);
	R(a_tail_may_have_DRAIN_of_its_carrier);
	R(the_near_side_attaches_no_slot_after_the_far_LOST);
	R(a_hundred_thousand_claims_and_losses_hold_nothing);
	tcase_add_loop_test(tc, a_closed_slot_becomes_free_on_both_sides, 0, 2);
	R(the_last_slot_is_used_while_it_drains);
	R(a_slot_that_drains_sends_no_data_of_its_own_streams);
	tcase_add_loop_test(tc, a_silent_slot_is_lost_after_5_s_if_others_answer, 0, 2);
	tcase_add_loop_test(
	    tc, after_a_stop_the_first_slot_that_is_read_does_not_end_the_others, 0, 2);
	tcase_add_loop_test(
	    tc, a_small_piece_takes_the_slot_with_the_fewest_bytes_in_flight, 0, 2);
	R(the_fastest_slot_decides_which_stream_is_quiet);
	R(bulk_is_sent_on_all_slots);
	R(slots_share_what_may_be_retained);
	R(a_far_side_reports_that_bulk_waits);
	R(a_LIMITED_of_the_peer_lapses);
	R(a_full_channel_limits_bulk);
	R(bye_is_sent_on_each_slot);
}
