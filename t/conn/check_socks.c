/* check_socks.c - the handshake of a client of -D */
#include <ctype.h>

#include "conn/socks.h"
#include "mux/mux.h"
#include "t/net.h"

#define V5 "\5\1\0"
#define BYTES(text) (text), sizeof(text) - 1

static struct socks s;
static unsigned char answers[64];
static size_t answers_n;

/*
 * Feed ${n} bytes in pieces of at most ${piece} and socks_needs().  Return how
 * many were taken.
 */
static size_t
feed(const char *p, size_t n, size_t piece)
{
	unsigned char answer[SOCKS_REPLY];
	size_t at = 0, k, got;

	memset(&s, 0, sizeof(s));
	answers_n = 0;
	while (at < n && s.state == SOCKS_READING) {
		k = socks_needs(&s);
		ck_assert_uint_gt(k, 0);
		if (k > piece)
			k = piece;
		if (k > n - at)
			k = n - at;
		memcpy(s.in + s.have, p + at, k);
		got = socks_feed(&s, k, answer);
		ck_assert_uint_le(got, SOCKS_REPLY);
		memcpy(answers + answers_n, answer, got);
		answers_n += got;
		at += k;
	}
	ck_assert_int_eq(socks_needs(&s) == 0, s.state != SOCKS_READING);
	return at;
}

static const char *
reply(uint16_t code, size_t n)
{
	static unsigned char dst[SOCKS_REPLY];

	ck_assert_uint_eq(socks_reply(&s, code, dst), n);
	return (char *)dst;
}

#define N255                                                                                    \
	"nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn" \
	"nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn" \
	"nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"

static const struct {
	const char *p;
	size_t n;
	const char *target; /* NULL: it is refused */
} requests[] = {
	{ BYTES(V5 "\5\1\0\1\12\0\0\5\0\120"), "10.0.0.5:80" },
	{ BYTES(V5 "\5\1\0\1\377\377\377\377\377\377"), "255.255.255.255:65535" },
	{ BYTES(V5 "\5\1\0\3\4node\42\270"), "node:8888" },
	{ BYTES(V5 "\5\1\0\3\1n\0\1"), "n:1" },
	{ BYTES(V5 "\5\1\0\3\11localhost\0\0"), "localhost:0" },
	{ BYTES(V5 "\5\1\0\3\377" N255 "\0\120"), N255 ":80" },
	{ BYTES(V5 "\5\1\0\3\14xn--bcher-_a\0\120"), "xn--bcher-_a:80" },
	{ BYTES(V5 "\5\1\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0\26"), "[::1]:22" },
	{ BYTES(V5 "\5\1\0\4\x20\1\xd\xb8\0\0\0\0\0\0\0\0\0\0\0\1\1\273"), "[2001:db8::1]:443" },
	{ BYTES(V5 "\5\1\0\4\0\0\0\0\0\0\0\0\0\0\377\377\12\0\0\5\1\273"),
	    "[::ffff:10.0.0.5]:443" },
	{ BYTES(V5 "\5\1\0\3\3::1\0\120"),
	    "[::1]:80" }, /* some clients send every address as a name */
	{ BYTES("\5\4\2\1\3\0\5\1\0\1\1\2\3\4\0\120"), "1.2.3.4:80" },
	{ BYTES("\4\1\0\120\12\0\0\5\0"), "10.0.0.5:80" },
	{ BYTES("\4\1\0\120\12\0\0\5me\0"), "10.0.0.5:80" },
	{ BYTES("\4\1\42\270\0\0\0\1\0node\0"), "node:8888" },
	{ BYTES("\4\1\42\270\0\0\0\377me\0node.b\0"), "node.b:8888" },
	{ BYTES("\4\1\0\120\0\0\0\0me\0"), "0.0.0.0:80" },
	{ BYTES("\4\1\0\120\0\0\1\1\0"), "0.0.1.1:80" },
	{ BYTES("\4\1\0\120\0\0\0\1\0" N255 "\0"), N255 ":80" },
	{ BYTES(V5 "\5\2\0\1\12\0\0\5\0\120"), NULL }, /* BIND */
	{ BYTES(V5 "\5\3\0\3\4node\0\120"), NULL },    /* UDP ASSOCIATE */
	{ BYTES("\4\2\0\120\12\0\0\5me\0"), NULL },
	{ BYTES(V5 "\5\1\0\3\0\0\120"), NULL }, /* an empty name */
	{ BYTES("\4\1\0\120\0\0\0\1me\0\0"), NULL },
	{ BYTES(V5 "\5\1\0\3\3a\0b\0\120"), NULL },
	{ BYTES(V5 "\5\1\0\3\4a/.b\0\120"), NULL },
	{ BYTES(V5 "\5\1\0\3\7=listen\0\120"), NULL },
	{ BYTES(V5 "\5\1\0\3\5[::1]\0\120"), NULL },
	{ BYTES("\4\1\0\120\0\0\0\1\0a b\0"), NULL },
	{ BYTES("\4\1\0\120\0\0\0\1\0" N255 "n\0"), NULL }, /* a name of 256 */
	{ BYTES("\4\1\0\120\0\0\0\1me\0" N255 N255 "\0"), NULL },
};
#define REQUESTS ((int)(sizeof(requests) / sizeof(requests[0])))

/* In pieces of every size, with bytes of the target after it. */
START_TEST(a_request_is_read_to_its_last_byte_and_no_further)
{
	char text[2000];
	size_t n = requests[_i].n, piece;

	memcpy(text, requests[_i].p, n);
	memset(text + n, 'D', sizeof(text) - n);
	for (piece = 1; piece <= n + 1; piece++) {
		ck_assert_uint_eq(feed(text, sizeof(text), piece), n);
		if (requests[_i].target == NULL) {
			ck_assert_int_eq(s.state, SOCKS_REFUSED);
			ck_assert_uint_gt(strlen(s.why), 10);
		} else {
			ck_assert_int_eq(s.state, SOCKS_COMPLETE);
			ck_assert_str_eq(s.target, requests[_i].target);
		}
		ck_assert_uint_eq(answers_n, text[0] == 5 ? 2 : 0);
		ck_assert_mem_eq(answers, "\5\0", answers_n);
	}
	for (piece = 0; piece < n; piece++) {
		feed(text, piece, 7);
		ck_assert_int_eq(s.state, SOCKS_READING);
		ck_assert_uint_le(piece + socks_needs(&s), n);
	}
}
END_TEST

START_TEST(a_request_that_is_refused_gets_an_answer)
{
	size_t n = feed(requests[_i].p, requests[_i].n, 1000);

	ck_assert_uint_eq(n, requests[_i].n);
	if (requests[_i].target != NULL)
		return;
	ck_assert_uint_ne(s.code, MUX_END);
	if (requests[_i].p[0] == 4)
		ck_assert_mem_eq(reply(s.code, 8), "\0\133\0\0\0\0\0\0", 8);
	else
		ck_assert_int_ne(reply(s.code, 10)[1], 0);
}
END_TEST

START_TEST(every_odd_byte_of_a_name_is_refused)
{
	char text[] = V5 "\5\1\0\3\3a?b\0\120";
	bool good = isalnum(_i) || (_i > ' ' && _i < 0x7f && strchr("/[]=", _i) == NULL);

	text[9] = (char)_i;
	feed(text, sizeof(text) - 1, 1000);
	ck_assert_int_eq(s.state, good ? SOCKS_COMPLETE : SOCKS_REFUSED);
	if (!good)
		ck_assert_uint_eq(s.code, MUX_UNUSABLE);
}
END_TEST

START_TEST(methods_that_require_authentication_are_refused)
{
	static const struct {
		const char *p;
		size_t n;
	} methods[] = { { BYTES("\5\0") }, { BYTES("\5\1\1") }, { BYTES("\5\2\1\2") },
		{ BYTES("\5\3\1\2\377") } };
	size_t piece;

	for (piece = 1; piece < 6; piece++) {
		ck_assert_uint_eq(feed(methods[_i].p, methods[_i].n, piece), methods[_i].n);
		ck_assert_int_eq(s.state, SOCKS_REFUSED);
		ck_assert_uint_eq(s.code, MUX_FORBIDDEN);
		ck_assert_uint_eq(answers_n, 2);
		ck_assert_mem_eq(answers, "\5\377", 2);
		reply(s.code, 0);
	}
}
END_TEST

START_TEST(two_hundred_and_fifty_five_methods_are_read)
{
	char text[257];

	memset(text, 2, sizeof(text));
	text[0] = 5;
	text[1] = (char)255;
	text[256] = 0;
	ck_assert_uint_eq(feed(text, sizeof(text), _i == 0 ? 1 : 1000), 257);
	ck_assert_int_eq(s.state, SOCKS_READING);
	ck_assert_mem_eq(answers, "\5\0", 2);
	ck_assert_uint_eq(socks_needs(&s), 5);
}
END_TEST

START_TEST(another_protocol_is_not_answered)
{
	static const char *const text[] = { "GET / HTTP/1.1\r\n", "\3\1", "\26\3\1",
		"SSH-2.0-x\r\n", "\6\1" };

	ck_assert_uint_eq(feed(text[_i], strlen(text[_i]), 1000), 2);
	ck_assert_int_eq(s.state, SOCKS_REFUSED);
	ck_assert_uint_eq(s.code, MUX_PROTOCOL);
	reply(s.code, 0);
	ck_assert_uint_eq(answers_n, 0);
}
END_TEST

/* After the methods: another version, or an unknown type of address. */
START_TEST(a_request_of_another_kind_is_refused)
{
	static const char text[][8] = { V5 "\4\1\0\1\1", V5 "\5\1\0\2\1", V5 "\5\1\0\0\1",
		V5 "\5\1\0\377\1" };

	ck_assert_uint_eq(feed(text[_i], sizeof(text[_i]), 3), sizeof(text[_i]));
	ck_assert_int_eq(s.state, SOCKS_REFUSED);
	ck_assert_uint_eq(s.code, _i == 0 ? MUX_PROTOCOL : MUX_UNUSABLE);
	ck_assert_mem_eq(
	    reply(s.code, 10), _i == 0 ? "\5\1\0\1\0\0\0\0\0\0" : "\5\10\0\1\0\0\0\0\0\0", 10);
}
END_TEST

START_TEST(a_user_of_any_length_is_read_and_one_without_end_is_refused)
{
	char text[3000];
	size_t n;

	memset(text, 'u', sizeof(text));
	memcpy(text, "\4\1\0\120\12\0\0\5", 8);
	ck_assert_uint_eq(feed(text, sizeof(text), 1000), sizeof(s.in));
	ck_assert_int_eq(s.state, SOCKS_REFUSED);
	ck_assert_mem_eq(reply(s.code, 8), "\0\133", 2);
	for (n = 0; n < 1015; n += 29) {
		text[8 + n] = '\0';
		ck_assert_uint_eq(feed(text, sizeof(text), 1000), 9 + n);
		ck_assert_str_eq(s.target, "10.0.0.5:80");
		text[8 + n] = 'u';
	}
}
END_TEST

START_TEST(an_answer_has_its_number)
{
	static const struct {
		uint16_t code;
		char five;
	} codes[] = { { MUX_END, 0 }, { MUX_RESET, 1 }, { MUX_REFUSED, 5 }, { MUX_NO_FILE, 1 },
		{ MUX_NO_PERMISSION, 2 }, { MUX_UNUSABLE, 1 }, { MUX_TIMEOUT, 4 },
		{ MUX_NO_ROUTE, 4 }, { MUX_NO_NAME, 4 }, { MUX_NO_ROOM, 1 }, { MUX_FORBIDDEN, 2 },
		{ 999, 1 } };
	char want[10] = "\5?\0\1\0\0\0\0\0";

	feed(requests[0].p, requests[0].n, 1000);
	want[1] = codes[_i].five;
	ck_assert_mem_eq(reply(codes[_i].code, 10), want, 10);
	feed("\4\1\0\120\12\0\0\5\0", 9, 1000);
	ck_assert_mem_eq(
	    reply(codes[_i].code, 8), _i == 0 ? "\0\132\0\0\0\0\0\0" : "\0\133\0\0\0\0\0\0", 8);
}
END_TEST

/* ${_i} 0: BIND, 1: UDP ASSOCIATE, 2: an unknown command. */
START_TEST(a_command_that_is_not_connect_is_7)
{
	char text[] = V5 "\5?\0\1\12\0\0\5\0\120";

	text[4] = "\2\3\0"[_i];
	feed(text, sizeof(text) - 1, 1000);
	ck_assert_int_eq(s.state, SOCKS_REFUSED);
	ck_assert_mem_eq(reply(s.code, 10), "\5\7\0\1\0\0\0\0\0\0", 10);
}
END_TEST

static uint32_t seed;

static unsigned
number(unsigned below)
{
	seed = seed * 1664525 + 1013904223;
	return (seed >> 8) % below;
}

/*
 * Random bytes: it ends within its room, and a target has plain characters
 * only.
 */
START_TEST(random_bytes_come_to_an_end)
{
	char text[2048];
	size_t i, n;
	int round, j;

	seed = (uint32_t)_i;
	for (round = 0; round < 20000; round++) {
		n = 1 + number(round % 16 == 0 ? sizeof(text) : 40);
		for (i = 0; i < n; i++)
			text[i] = (char)(number(3) == 0 ? number(6) : number(256));
		if (number(2) == 0) {
			i = number(REQUESTS);
			n = requests[i].n;
			memcpy(text, requests[i].p, n);
			for (j = (int)number(4); j > 0; j--)
				text[number((unsigned)n)] = (char)number(256);
		}
		feed(text, n, 1 + number(64));
		if (s.state == SOCKS_COMPLETE)
			for (i = 0; i == 0 || s.target[i] != '\0'; i++)
				ck_assert(i < sizeof(s.target) && s.target[i] > ' ' &&
					  s.target[i] != '/' && s.target[0] != '=');
		else if (s.state == SOCKS_READING)
			ck_assert_uint_le(s.have + socks_needs(&s), sizeof(s.in));
	}
}
END_TEST

/* ---- I/O ---- */

static struct fdpair client;
static int ours; /* the end of the client */

static void
connect_client(bool tcp)
{
	int fd[2];

	signal(SIGPIPE, SIG_IGN);
	memset(&s, 0, sizeof(s));
	tcp ? tcp_pair(fd) : socks(fd);
	fdpair_socket(&client, fd[0], tcp);
	ours = fd[1];
}

static int
read_all(void)
{
	int err = 0;

	UNTIL(s.state != SOCKS_READING || err != 0, err = socks_read(&s, &client));
	return err;
}

START_TEST(a_request_is_read_and_answered)
{
	char got[16];

	connect_client(true);
	ck_assert_int_eq(socks_read(&s, &client), 0); /* nothing to read */
	ck_assert_int_eq(write(ours, V5 "\5\1\0\1\12\0\0\5\0\120early", 18), 18);
	ck_assert_int_eq(read_all(), 0);
	ck_assert_int_eq(s.state, SOCKS_COMPLETE);
	ck_assert_str_eq(s.target, "10.0.0.5:80");
	WAIT_FOR(read(ours, got, sizeof(got)) == 2);
	ck_assert_mem_eq(got, "\5\0", 2);
	ck_assert_int_eq(0, socks_answer(&s, &client, MUX_END));
	WAIT_FOR(read(ours, got, sizeof(got)) == 10);
	ck_assert_mem_eq(got, "\5\0\0\1\0\0\0\0\0\0", 10);
	ck_assert_int_eq(read(client.in, got, sizeof(got)), 5); /* for the target */
	ck_assert_mem_eq(got, "early", 5);
}
END_TEST

START_TEST(a_client_that_closes_or_resets_is_reported)
{
	connect_client(true);
	ck_assert_int_eq(write(ours, V5 "\5\1", 5), 5);
	_i == 0 ? (void)shutdown(ours, SHUT_WR) : reset(ours);
	ck_assert_int_eq(read_all(), _i == 0 ? -1 : ECONNRESET);
}
END_TEST

/* The client would misread what follows half a reply. */
START_TEST(a_reply_that_does_not_fit_is_a_failure)
{
	static char junk[65536];

	connect_client(false);
	ck_assert_int_eq(write(ours, "\5\1", 2), 2);
	WAIT_FOR(socks_read(&s, &client) == 0 && s.have == 2);
	while (write(client.out, junk, sizeof(junk)) > 0)
		;
	while (write(client.out, junk, 1) > 0)
		;
	ck_assert_int_eq(write(ours, "\0", 1), 1);
	if (_i == 0) {
		ck_assert_int_eq(read_all(), EAGAIN);
		return;
	}
	feed("\4\1\0\120\12\0\0\5\0", 9, 1000);
	ck_assert_int_eq(s.state, SOCKS_COMPLETE);
	ck_assert_int_ne(0, socks_answer(&s, &client, MUX_END));
}
END_TEST

START_TEST(a_refusal_without_an_answer_writes_nothing)
{
	char c;

	connect_client(true);
	ck_assert_int_eq(write(ours, "GET /", 5), 5);
	ck_assert_int_eq(read_all(), 0);
	ck_assert_int_eq(s.state, SOCKS_REFUSED);
	ck_assert_int_eq(0, socks_answer(&s, &client, s.code));
	ck_assert_int_eq(read(ours, &c, 1), -1);
	ck_assert_int_eq(errno, EAGAIN);
}
END_TEST

TESTS("socks")
{
	tcase_add_test(tc, a_request_is_read_and_answered);
	tcase_add_loop_test(tc, a_client_that_closes_or_resets_is_reported, 0, 2);
	tcase_add_loop_test(tc, a_reply_that_does_not_fit_is_a_failure, 0, 2);
	tcase_add_test(tc, a_refusal_without_an_answer_writes_nothing);
	tcase_add_loop_test(tc, a_request_is_read_to_its_last_byte_and_no_further, 0, REQUESTS);
	tcase_add_loop_test(tc, a_request_that_is_refused_gets_an_answer, 0, REQUESTS);
	tcase_add_loop_test(tc, every_odd_byte_of_a_name_is_refused, 0, 256);
	tcase_add_loop_test(tc, methods_that_require_authentication_are_refused, 0, 4);
	tcase_add_loop_test(tc, two_hundred_and_fifty_five_methods_are_read, 0, 2);
	tcase_add_loop_test(tc, another_protocol_is_not_answered, 0, 5);
	tcase_add_loop_test(tc, a_request_of_another_kind_is_refused, 0, 4);
	tcase_add_test(tc, a_user_of_any_length_is_read_and_one_without_end_is_refused);
	tcase_add_loop_test(tc, an_answer_has_its_number, 0, 12);
	tcase_add_loop_test(tc, a_command_that_is_not_connect_is_7, 0, 3);
	tcase_add_loop_test(tc, random_bytes_come_to_an_end, 0, 5);
}
