/* check_greeting.c - what a peer sends first, whole, cut and wrong */
#include "t/check.h"

#include "mux/greeting.h"
#include "mux/mux.h"

static struct greeting g;
static unsigned char wire[8192];
static size_t wired;

static void
put(const void *p, size_t n)
{
	ck_assert_uint_le(wired + n, sizeof(wire));
	memcpy(wire + wired, p, n);
	wired += n;
}

static void
put_frame(unsigned type, const void *body, size_t n)
{
	unsigned char head[FRAME_HEAD];

	frame_put_head(head, type, 0, n);
	put(head, sizeof(head));
	put(body, n);
}

static void
put_hello(unsigned newest, const char *host)
{
	struct hello h = { .version = 1,
		.role = MUX_FAR,
		.newest = (uint8_t)newest,
		.memory = MUX_MEMORY,
		.streams = 5 };
	unsigned char body[FRAME_HELLO_FIXED + 255];

	snprintf(h.host, sizeof(h.host), "%s", host);
	put_frame(FRAME_HELLO, body, frame_encode_hello(body, &h));
}

static void
put_session(unsigned kind)
{
	struct session s = { .kind = (uint8_t)kind,
		.generation = 7,
		.keep = 3600,
		.count = UINT64_C(0x123456789a),
		.id = "0123456789abcde" };
	unsigned char body[FRAME_SESSION_SIZE];

	frame_encode_session(body, &s);
	put_frame(FRAME_SESSION, body, sizeof(body));
}

static void
put_greeting(unsigned newest)
{
	put(frame_magic, FRAME_MAGIC);
	put_hello(newest, "node");
	if (newest > 1)
		put_session(SESSION_NEW);
}

/* Feed it in pieces of ${piece} bytes.  Return how many bytes were taken. */
static size_t
feed(size_t piece)
{
	size_t at = 0, used, n;

	while (at < wired) {
		n = wired - at < piece ? wired - at : piece;
		used = greeting_feed(&g, wire + at, n);
		ck_assert_uint_le(used, n);
		at += used;
		if (used < n)
			break;
	}
	wired = 0;
	return at;
}

START_TEST(a_greeting_in_pieces_of_any_size)
{
	size_t whole, piece;

	for (piece = 1; piece < 200; piece++) {
		greeting_start(&g, false);
		put("motd\n", 5);
		put_greeting(2);
		whole = wired;
		put("\0\0\0\0", 4); /* of the link */
		ck_assert_uint_eq(feed(piece), whole);
		ck_assert_int_eq(g.state, GREETING_DONE);
		ck_assert_uint_eq(g.length, whole - 5 - FRAME_MAGIC);
		ck_assert_str_eq(g.banner, "motd\n");
		ck_assert_str_eq(g.hello.host, "node");
		ck_assert_uint_eq(g.session.kind, SESSION_NEW);
		ck_assert_uint_eq(g.session.generation, 7);
		ck_assert_uint_eq(g.session.keep, 3600);
		ck_assert_uint_eq(g.session.count, UINT64_C(0x123456789a));
		ck_assert_mem_eq(g.session.id, "0123456789abcde", FRAME_SESSION_ID);
	}
}
END_TEST

START_TEST(a_peer_of_version_1_sends_no_session)
{
	put_greeting((unsigned)_i);
	put("\x09\0\0\x0c", 4); /* of an ACK */
	feed(1);
	ck_assert_int_eq(g.state, GREETING_DONE);
	ck_assert_uint_eq(g.session.kind, SESSION_NONE);
	ck_assert_uint_eq(g.length, FRAME_HEAD + FRAME_HELLO_FIXED + 4);
}
END_TEST

START_TEST(a_kind_that_is_unknown_is_read)
{
	put(frame_magic, FRAME_MAGIC);
	put_hello(2, "");
	put_session(255);
	feed(3);
	ck_assert_int_eq(g.state, GREETING_DONE);
	ck_assert_uint_eq(g.session.kind, 255);
}
END_TEST

START_TEST(a_bye_in_place_of_each_frame)
{
	put(frame_magic, FRAME_MAGIC);
	if (_i == 1)
		put_hello(2, "node");
	put_frame(FRAME_BYE, "\0\x0dno", 4);
	put_session(SESSION_NEW);
	feed(wired);
	ck_assert_int_eq(g.state, GREETING_FAILED);
	ck_assert(g.by_peer && !g.lost);
	ck_assert_uint_eq(g.code, MUX_VERSION);
	ck_assert_str_eq(g.why, "no");
}
END_TEST

START_TEST(the_longest_frames_fit)
{
	char text[2 + FRAME_WORDS], host[256];

	memset(text, 'x', sizeof(text));
	memset(host, 'h', 255);
	host[255] = '\0';
	put(frame_magic, FRAME_MAGIC);
	put_hello(2, host);
	put_frame(FRAME_BYE, text, sizeof(text));
	feed(1);
	ck_assert_int_eq(g.state, GREETING_FAILED);
	ck_assert_uint_eq(strlen(g.why), FRAME_WORDS);
	ck_assert_str_eq(g.hello.host, host);
}
END_TEST

struct wrong {
	const char *head;
	bool after_hello;
	const char *why;
};

static const struct wrong wrongs[] = {
	{ "\x80\0\0\x24\0\0\0\0", false, "another frame before HELLO" },
	{ "\x09\0\0\x0c\0\0\0\0", false, "another frame before HELLO" },
	{ "\x01\0\0\x1f\0\0\0\0", false, "a length that this type of frame cannot have" },
	{ "\x01\0\x01\x20\0\0\0\0", false, "a length that this type of frame cannot have" },
	{ "\x01\0\0\x24\0\0\0\1", false, "a frame of the link with a stream id" },
	{ "\x7f\0\0\0\0\0\0\0", false, "a frame of unknown type" },
	{ "\xff\xff\xff\xff\0\0\0\0", false, "a frame that is too long" },
	{ "\x01\0\0\x24\0\0\0\0", true, "another frame before SESSION" },
	{ "\x81\0\0\x24\0\0\0\0", true, "another frame before SESSION" },
	{ "\x0b\0\0\1\0\0\0\0", true, "a length that this type of frame cannot have" },
	{ "\x80\0\0\x23\0\0\0\0", true, "a length that this type of frame cannot have" },
	{ "\x80\0\0\x25\0\0\0\0", true, "a length that this type of frame cannot have" },
	{ "\x80\0\0\x24\0\0\0\3", true, "a frame of the link with a stream id" },
};

START_TEST(a_wrong_head_fails_at_once)
{
	const struct wrong *w = &wrongs[_i];
	size_t n;

	put(frame_magic, FRAME_MAGIC);
	if (w->after_hello)
		put_hello(2, "node");
	put(w->head, FRAME_HEAD);
	n = wired;
	put_session(SESSION_NEW);
	ck_assert_uint_eq(feed(wired), n);
	ck_assert_int_eq(g.state, GREETING_FAILED);
	ck_assert_uint_eq(g.code, MUX_PROTOCOL);
	ck_assert(!g.by_peer && !g.lost);
	ck_assert_ptr_nonnull(strstr(g.why, w->why));
}
END_TEST

START_TEST(nothing_is_taken_after_the_end)
{
	if (_i == 0)
		put_greeting(2);
	else
		put("x", 1);
	greeting_start(&g, _i == 1);
	feed(wired);
	ck_assert_int_eq(g.state, _i == 0 ? GREETING_DONE : GREETING_FAILED);
	put_greeting(2);
	ck_assert_uint_eq(feed(wired), 0);
}
END_TEST

START_TEST(a_greeting_may_be_read_many_times)
{
	int i;

	for (i = 0; i < 1000; i++) {
		greeting_start(&g, false);
		put("some words\n", 11);
		put_greeting((unsigned)i % 3);
		feed(50);
		ck_assert_int_eq(g.state, GREETING_DONE);
	}
	greeting_free(&g);
	ck_assert_ptr_null(g.banner);
	ck_assert_uint_eq(g.banner_have, 0);
	greeting_free(&g);
}
END_TEST

static void
setup(void)
{
	greeting_start(&g, false);
}

static void
teardown(void)
{
	greeting_free(&g);
}

#define WRONGS (int)(sizeof(wrongs) / sizeof(wrongs[0]))

TESTS("greeting")
{
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_greeting_in_pieces_of_any_size);
	tcase_add_loop_test(tc, a_peer_of_version_1_sends_no_session, 0, 2);
	tcase_add_test(tc, a_kind_that_is_unknown_is_read);
	tcase_add_loop_test(tc, a_bye_in_place_of_each_frame, 0, 2);
	tcase_add_test(tc, the_longest_frames_fit);
	tcase_add_loop_test(tc, a_wrong_head_fails_at_once, 0, WRONGS);
	tcase_add_loop_test(tc, nothing_is_taken_after_the_end, 0, 2);
	tcase_add_test(tc, a_greeting_may_be_read_many_times);
}
