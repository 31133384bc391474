/* check_frame.c - the wire format, and the vectors of PROTOCOL */
#include "mux/cc.h"
#include "mux/frame.h"
#include "mux/mux.h"
#include "mux/queue.h"
#include "t/check.h"

#include "mux/frame.h"
#include <ctype.h>

static unsigned char head[FRAME_HEAD];
static struct frame f;

static const char *
decoded(unsigned type, uint32_t length, uint32_t stream)
{
	frame_put_head(head, type, stream, length);
	memset(&f, 0xee, sizeof(f));
	return frame_decode(&f, head);
}

static const struct {
	const char *name;
	unsigned type;
	uint32_t least, most;
	uint32_t stream; /* 2: any number, of a slot */
} types[] = {
	{ "HELLO", FRAME_HELLO, 32, 287, 0 },
	{ "OPEN", FRAME_OPEN, 8, 4360, 1 },
	{ "OPENED", FRAME_OPENED, 0, 0, 1 },
	{ "DATA", FRAME_DATA, 1, 65536, 1 },
	{ "EOF", FRAME_EOF, 0, 0, 1 },
	{ "STOP", FRAME_STOP, 0, 0, 1 },
	{ "CLOSE", FRAME_CLOSE, 2, 514, 1 },
	{ "CREDIT", FRAME_CREDIT, 4, 4, 1 },
	{ "ACK", FRAME_ACK, 12, 12, 0 },
	{ "PING", FRAME_PING, 0, 0, 0 },
	{ "BYE", FRAME_BYE, 2, 514, 0 },
	{ "ACK_EVERY", FRAME_ACK_EVERY, 4, 4, 0 },
	{ "DATA_AT", FRAME_DATA_AT, 9, 65544, 1 },
	{ "FINAL", FRAME_FINAL, 8, 8, 1 },
	{ "FREE", FRAME_FREE, 0, 0, 1 },
	{ "LOST", FRAME_LOST, 12, 12, 2 },
	{ "TAIL", FRAME_TAIL, 12, 65548, 2 },
	{ "DRAIN", FRAME_DRAIN, 4, 4, 2 },
	{ "LIMITED", FRAME_LIMITED, 4, 4, 0 },
	{ "SESSION", FRAME_SESSION, FRAME_SESSION_SIZE, FRAME_SESSION_SIZE, 0 },
};
#define TYPES (int)(sizeof(types) / sizeof(types[0]))

START_TEST(a_head_is_big_endian_field_by_field)
{
	frame_put_head(head, 0xab, 0x89abcdef, 0x123456);
	ck_assert_mem_eq(head, "\xab\x12\x34\x56\x89\xab\xcd\xef", FRAME_HEAD);
}
END_TEST

START_TEST(a_type_has_its_number)
{
	ck_assert_uint_eq(types[_i].type, types[_i].type == FRAME_SESSION ? 128 : (unsigned)_i + 1);
}
END_TEST

START_TEST(a_valid_head_is_decoded_as_it_was_encoded)
{
	uint32_t ids[] = { 1, 3, 16383, 0x7fffffff, 0xffffffff }, id, n;
	size_t i;

	for (i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
		id = types[_i].stream ? ids[i] : 0;
		for (n = types[_i].least; n <= types[_i].most; n++) {
			ck_assert_ptr_null(decoded(types[_i].type, n, id));
			ck_assert_uint_eq(f.type, types[_i].type);
			ck_assert_uint_eq(f.length, n);
			ck_assert_uint_eq(f.stream, id);
		}
	}
}
END_TEST

START_TEST(every_other_length_is_refused)
{
	uint32_t n;

	for (n = 0; n < 70000; n++)
		ck_assert_int_eq(decoded(types[_i].type, n, types[_i].stream) == NULL,
		    n >= types[_i].least && n <= types[_i].most);
	for (n = 1 << 17; n < 1 << 24; n <<= 1) {
		ck_assert_ptr_nonnull(decoded(types[_i].type, n, types[_i].stream));
		ck_assert_ptr_nonnull(decoded(types[_i].type, n - 1 + n, types[_i].stream));
	}
	ck_assert_ptr_nonnull(decoded(types[_i].type, 0xffffff, types[_i].stream));
}
END_TEST

START_TEST(only_a_frame_of_a_stream_has_a_stream_id)
{
	if (types[_i].stream == 2) {
		ck_assert_ptr_null(decoded(types[_i].type, types[_i].least, 0));
		ck_assert_ptr_null(decoded(types[_i].type, types[_i].least, 1));
		return;
	}
	ck_assert_ptr_nonnull(decoded(types[_i].type, types[_i].least, !types[_i].stream));
	ck_assert_ptr_nonnull(
	    decoded(types[_i].type, types[_i].least, types[_i].stream ? 0 : 0x80000000));
}
END_TEST

START_TEST(unknown_types_are_refused_below_128_and_accepted_from_there)
{
	unsigned t;

	for (t = 0; t < 256; t++) {
		if ((t >= 1 && t < (unsigned)TYPES) || t == FRAME_SESSION)
			continue;
		ck_assert_int_eq(decoded(t, 0, 0) == NULL, t >= 128);
		ck_assert_int_eq(decoded(t, 8192, 7) == NULL, t >= 128);
		ck_assert_ptr_nonnull(decoded(t, 8193, 0));
		ck_assert_ptr_nonnull(decoded(t, 0xffffff, 0));
	}
}
END_TEST

START_TEST(a_fault_is_described_in_words)
{
	ck_assert_uint_gt(strlen(decoded(0, 0, 0)), 5);
	ck_assert_uint_gt(strlen(decoded(FRAME_DATA, 0, 1)), 5);
	ck_assert_uint_gt(strlen(decoded(FRAME_DATA, 1, 0)), 5);
	ck_assert_uint_gt(strlen(decoded(FRAME_ACK, 12, 1)), 5);
}
END_TEST

START_TEST(numbers_of_every_width_are_decoded_as_they_were_encoded)
{
	unsigned char x[10];
	uint64_t n = 0x0123456789abcdef, want;
	int bytes;

	for (bytes = 1; bytes <= 8; bytes++) {
		memset(x, 0x5a, sizeof(x));
		frame_put(x + 1, n, bytes);
		want = bytes == 8 ? n : n & (((uint64_t)1 << 8 * bytes) - 1);
		ck_assert_uint_eq(frame_get(x + 1, bytes), want);
		ck_assert_uint_eq(x[0], 0x5a);
		ck_assert_uint_eq(x[bytes + 1], 0x5a);
		ck_assert_uint_eq(x[bytes], 0xef);
	}
	ck_assert_uint_eq(
	    frame_get((const unsigned char *)"\xff\xff\xff\xff\xff\xff\xff\xff", 8), UINT64_MAX);
}
END_TEST

START_TEST(a_hello_is_decoded_as_it_was_encoded)
{
	static const size_t names[] = { 0, 1, 4, 254, 255 };
	struct hello h = { 1, 1, 2, 0x11223344, 0x55667788, 0x99aabbcc, "" }, g;
	unsigned char body[FRAME_HELLO_FIXED + 255];
	size_t n;

	memset(h.host, 'h', names[_i]);
	n = frame_encode_hello(body, &h);
	ck_assert_uint_eq(n, FRAME_HELLO_FIXED + names[_i]);
	ck_assert_mem_eq(body,
	    "\1\1\2\0\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\0\0\0\0\0\0\0\0\0\0\0"
	    "\0\0\0\0\0",
	    FRAME_HELLO_FIXED);
	memset(&g, 0xee, sizeof(g));
	frame_decode_hello(&g, body, n);
	ck_assert_uint_eq(g.version, h.version);
	ck_assert_uint_eq(g.role, h.role);
	ck_assert_uint_eq(g.features, h.features);
	ck_assert_uint_eq(g.memory, h.memory);
	ck_assert_uint_eq(g.streams, h.streams);
	ck_assert_uint_eq(g.newest, h.newest);
	ck_assert_str_eq(g.host, h.host);
}
END_TEST

START_TEST(a_session_is_decoded_as_it_was_encoded)
{
	struct session s = { SESSION_JOIN, 1, 8, 0x01020304, 3600, 0x1112131415161718,
		"0123456789abcde" },
		       g;
	unsigned char body[FRAME_SESSION_SIZE];

	frame_encode_session(body, &s);
	ck_assert_mem_eq(body,
	    "\2\1\10\0\1\2\3\4\0\0\x0e\x10\x11\x12\x13\x14\x15\x16\x17\x18"
	    "0123456789abcde",
	    FRAME_SESSION_SIZE);
	memset(&g, 0xee, sizeof(g));
	frame_decode_session(&g, body);
	ck_assert_uint_eq(g.kind, s.kind);
	ck_assert_uint_eq(g.generation, s.generation);
	ck_assert_uint_eq(g.keep, s.keep);
	ck_assert_uint_eq(g.count, s.count);
	ck_assert_mem_eq(g.id, s.id, FRAME_SESSION_ID);
}
END_TEST

/* ---- doc/PROTOCOL ---- */

static char name[16];
static unsigned char vector[512];
static size_t vector_n;
static FILE *page;
static char text[256];

/* Read the next "vector NAME = hex ..." and its indented continuation lines. */
static bool
next_vector(void)
{
	const char *p;
	char *end;
	int at = 0;

	for (;; text[0] = '\0') {
		if (text[0] == '\0' && fgets(text, sizeof(text), page) == NULL)
			return false;
		if (sscanf(text, " vector %15s = %n", name, &at) == 1 && at > 0)
			break;
	}
	vector_n = 0;
	p = text + at;
	do {
		for (;; p = end) {
			unsigned long n = strtoul(p, &end, 16);

			if (end == p)
				break;
			ck_assert_msg(n < 256 && vector_n < sizeof(vector),
			    "vector %s: not bytes: %s", name, p);
			vector[vector_n++] = (unsigned char)n;
		}
		while (isspace((unsigned char)*p))
			p++;
		ck_assert_msg(*p == '\0', "vector %s: %s", name, p);
		text[0] = '\0';
		p = text;
	} while (fgets(text, sizeof(text), page) != NULL && text[0] == ' ' &&
		 strstr(text, "vector") == NULL &&
		 strspn(text, " 0123456789abcdef\n") == strlen(text) && strlen(text) > 1);
	return true;
}

static bool
find_vector(const char *wanted)
{
	page = fopen("doc/PROTOCOL", "r");
	if (page == NULL)
		page = fopen("../doc/PROTOCOL", "r");
	ck_assert_msg(page != NULL, "no PROTOCOL here or one up");
	text[0] = '\0';
	while (next_vector())
		if (strcmp(name, wanted) == 0)
			return fclose(page) == 0;
	fclose(page);
	return false;
}

/* The frame that the vector of ${type} shows. */
static size_t
encoded(unsigned char *dst, unsigned type)
{
	struct hello h = { .version = 1,
		.role = 1,
		.newest = 2,
		.memory = 64 * 1024 * 1024,
		.streams = 16384,
		.host = "node" };
	struct session join = { SESSION_JOIN, 1, 8, 2, 3600, 70000, "0123456789abcdef" };
	struct frame g = { .type = type, .stream = 3 };
	unsigned char *body = dst + FRAME_HEAD;

	switch (type) {
	case FRAME_HELLO:
		g.stream = 0;
		g.length = (uint32_t)frame_encode_hello(body, &h);
		break;
	case FRAME_OPEN:
		frame_put(body, 262144, 4);
		frame_put(body + 4, 32768, 4);
		memcpy(body + 8, "/a.soc", 6);
		g.length = 14;
		break;
	case FRAME_DATA:
		memcpy(body, "hi", 2);
		g.length = 2;
		break;
	case FRAME_CLOSE:
		frame_put(body, MUX_RESET, 2);
		memcpy(body + 2, "no", 2);
		g.length = 4;
		break;
	case FRAME_CREDIT:
		frame_put(body, 131072, 4);
		g.length = 4;
		break;
	case FRAME_ACK:
		frame_put(body, 0x100000002, 8);
		frame_put(body + 8, 1000, 4);
		g.stream = 0;
		g.length = 12;
		break;
	case FRAME_PING:
		g.stream = 0;
		break;
	case FRAME_SESSION:
		frame_encode_session(body, &join);
		g.stream = 0;
		g.length = FRAME_SESSION_SIZE;
		break;
	case FRAME_ACK_EVERY:
		frame_put(body, 65536, 4);
		g.stream = 0;
		g.length = 4;
		break;
	case FRAME_DATA_AT:
		frame_put(body, 0x100000002, 8);
		memcpy(body + FRAME_AT, "hi", 2);
		g.length = FRAME_AT + 2;
		break;
	case FRAME_FINAL:
		frame_put(body, 0x100000004, 8);
		g.length = 8;
		break;
	case FRAME_LOST:
		frame_put(body, 5, 4);
		frame_put(body + 4, 70000, 8);
		g.stream = 2;
		g.length = 12;
		break;
	case FRAME_TAIL:
		frame_put(body, 5, 4);
		frame_put(body + 4, 70000, 8);
		memcpy(body + FRAME_TAIL_AT, "\10", 2);
		g.stream = 2;
		g.length = FRAME_TAIL_AT + 2;
		break;
	case FRAME_DRAIN:
		frame_put(body, 5, 4);
		g.stream = 2;
		g.length = 4;
		break;
	case FRAME_LIMITED:
		frame_put(body, 1000, 4);
		g.stream = 0;
		g.length = 4;
		break;
	case FRAME_BYE:
		frame_put(body, MUX_END, 2);
		memcpy(body + 2, "ok", 2);
		g.stream = 0;
		g.length = 4;
		break;
	}
	frame_put_head(dst, g.type, g.stream, g.length);
	return FRAME_HEAD + g.length;
}

START_TEST(the_page_has_the_magic)
{
	ck_assert(find_vector("magic"));
	ck_assert_uint_eq(vector_n, FRAME_MAGIC);
	ck_assert_mem_eq(vector, frame_magic, FRAME_MAGIC);
}
END_TEST

START_TEST(the_page_has_a_vector_of_every_type_and_frame_c_agrees)
{
	unsigned char mine[512];

	ck_assert_msg(find_vector(types[_i].name), "PROTOCOL has no vector %s", types[_i].name);
	ck_assert_uint_eq(vector_n, encoded(mine, types[_i].type));
	ck_assert_mem_eq(vector, mine, vector_n);
	ck_assert_ptr_null(frame_decode(&f, vector));
	ck_assert_uint_eq(FRAME_HEAD + f.length, vector_n);
}
END_TEST

START_TEST(every_vector_of_the_page_is_tested)
{
	int i, known = 0, all = 0;

	ck_assert(!find_vector("none"));
	page = fopen("doc/PROTOCOL", "r");
	if (page == NULL)
		page = fopen("../doc/PROTOCOL", "r");
	for (text[0] = '\0'; next_vector(); all++) {
		known += strcmp(name, "magic") == 0;
		for (i = 0; i < TYPES; i++)
			known += strcmp(name, types[i].name) == 0;
	}
	ck_assert_int_eq(known, all);
	ck_assert_int_eq(all, TYPES + 1);
	fclose(page);
}
END_TEST

TESTS("frame")
{
	tcase_add_test(tc, a_head_is_big_endian_field_by_field);
	tcase_add_loop_test(tc, a_type_has_its_number, 0, TYPES);
	tcase_add_loop_test(tc, a_valid_head_is_decoded_as_it_was_encoded, 0, TYPES);
	tcase_add_loop_test(tc, every_other_length_is_refused, 0, TYPES);
	tcase_add_loop_test(tc, only_a_frame_of_a_stream_has_a_stream_id, 0, TYPES);
	tcase_add_test(tc, unknown_types_are_refused_below_128_and_accepted_from_there);
	tcase_add_test(tc, a_fault_is_described_in_words);
	tcase_add_test(tc, numbers_of_every_width_are_decoded_as_they_were_encoded);
	tcase_add_loop_test(tc, a_hello_is_decoded_as_it_was_encoded, 0, 5);
	tcase_add_test(tc, a_session_is_decoded_as_it_was_encoded);
	tcase_add_test(tc, the_page_has_the_magic);
	tcase_add_loop_test(tc, the_page_has_a_vector_of_every_type_and_frame_c_agrees, 0, TYPES);
	tcase_add_test(tc, every_vector_of_the_page_is_tested);
}
