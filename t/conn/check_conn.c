/* check_conn.c - the rules of a connection, for each pair of sides */
#include <sys/ioctl.h>
#include <sys/wait.h>

#include "conn/conn.h"
#include "conn/fdpair.h"
#include "t/link.h"
#include "t/net.h"

/*
 * The connections of a test.
 *
 * DIRECT: client === target
 * NEAR:   client === stream; the test has the far end of the stream
 * FAR:    stream === target; the test has the near end of the stream
 * LINK:   client === stream === stream === target
 */
enum shape { DIRECT, NEAR, FAR, LINK };

static const struct kind {
	enum shape shape;
	bool client_tcp, target_tcp;
} kinds[] = {
	{ DIRECT, false, false },
	{ DIRECT, true, false },
	{ DIRECT, false, true },
	{ DIRECT, true, true },
	{ NEAR, false, false },
	{ NEAR, true, false },
	{ FAR, false, false },
	{ FAR, false, true },
	{ LINK, false, false },
	{ LINK, true, false },
	{ LINK, false, true },
	{ LINK, true, true },
};
#define KINDS ((int)(sizeof(kinds) / sizeof(kinds[0])))

/*
 * The test's end of a connection: of a socket, of stdin and stdout, or of a
 * stream.
 */
struct party {
	int in, out; /* to read from it and to write to it; -1: closed */
	struct stream *stream;
	bool tcp;
};

static const struct kind *kind;
static struct conns near_tab, far_tab;
static struct children kids;
static struct dial_target t; /* DIRECT: of the client; else of the far side */
static char target_text[64];
static struct pollset ps;
static int status = -1; /* of the connection that ended last, at the client */
static int turns;
static struct party client, target;
static int listening; /* the target's, -1: none */
static char junk[65536];
static int64_t ahead; /* the clock of the pollset is so far ahead of the real one */
static bool blind;    /* poll reports no event */
static int fds;       /* open at the beginning */

/* A limit of TCP without progress: longer if the system cannot count it. */
#define UNSEEN(limit) (strcmp(OS, "posix") == 0 ? 2 * (limit) : (limit))

/* ---- turns ---- */

static size_t
idle_conns(void)
{
	return near_tab.watches.idle.n;
}

static size_t
all_conns(void)
{
	return near_tab.n + far_tab.n;
}

/* Does for the far side what tunnel/serve.c does. */
static void
serve(void)
{
	struct stream *s;
	struct side a;

	while (link_far != NULL && (s = mux_accept(link_far)) != NULL) {
		if (kind->shape == NEAR) {
			target.stream = s;
			stream_accept(s);
			continue;
		}
		a = side_of_stream(s);
		ck_assert(conn_dial(&far_tab, &a, mux_peer(link_far), &t, ps.now));
	}
}

static void
take_dirty(void)
{
	if (link_near == NULL)
		return;
	conn_take_dirty(&near_tab, link_near, ps.now);
	conn_take_dirty(&far_tab, link_far, ps.now);
}

static void
shift(void)
{
	ps.now += ahead;
}

static void
sweep(struct conns *tab, bool counts)
{
	size_t n = tab->n;
	int s = conn_sweep(tab, &ps);

	if (counts && tab->n < n)
		status = s;
}

static void
want_link(bool moved)
{
	int64_t due;

	if (link_near == NULL || link_held)
		return;
	due = mux_deadline(link_near) < mux_deadline(link_far) ? mux_deadline(link_near)
							       : mux_deadline(link_far);
	pollset_until(&ps, moved ? 0 : due);
}

/* One turn of relay's loop, of at most ${most} ms. */
static void
turn(int most)
{
	static bool moved;
	size_t i;

	pollset_begin(&ps);
	shift();
	spawn_turn(&kids, &ps);
	take_dirty();
	conn_want(&near_tab, &ps);
	conn_want(&far_tab, &ps);
	want_link(moved);
	pollset_until(&ps, ps.now + most * 1000);
	ck_assert_int_eq(pollset_wait(&ps), 0);
	for (i = 0; blind && i < ps.n; i++)
		ps.fds[i].revents = 0;
	shift();
	spawn_reap(&kids);
	serve();
	take_dirty();
	conn_step(&near_tab, &ps);
	conn_step(&far_tab, &ps);
	sweep(&near_tab, true);
	sweep(&far_tab, kind->shape == FAR);
	moved = link_cross(ps.now);
	turns++;
}

#define RUN_UNTIL(cond) UNTIL(cond, turn(5))

/* Turn until nothing more happens. */
static void
run(void)
{
	int i;

	for (i = 0; i < 20; i++)
		turn(2);
}

static bool
sleeps(void)
{
	int64_t began = ms();

	turn(25);
	return ms() - began >= 20;
}

/* The link may have one event to handle.  A busy loop would have more. */
static bool
sleeps_on(void)
{
	return sleeps() && sleeps() && sleeps();
}

/* ---- ends of the test ---- */

static void
no_party(struct party *p)
{
	memset(p, 0, sizeof(*p));
	p->in = p->out = -1;
}

static void
socket_party(struct party *p, int fd, bool tcp)
{
	no_party(p);
	p->in = p->out = fd;
	p->tcp = tcp;
	fcntl(fd, F_SETFL, O_NONBLOCK);
}

/* Can a reset be sent to this end? */
static bool
resets(const struct party *p)
{
	return p->tcp || p->stream != NULL;
}

/* Write; return how many bytes were taken. */
static size_t
put(struct party *p, const void *data, size_t n)
{
	ssize_t w;

	if (p->stream == NULL) {
		w = write(p->out, data, n);
		return w > 0 ? (size_t)w : 0;
	}
	if (stream_is_stopped(p->stream) || stream_is_closed(p->stream)) {
		errno = EPIPE;
		return 0;
	}
	if (n > stream_room(p->stream))
		n = stream_room(p->stream);
	ck_assert(buf_put(stream_tx(p->stream), data, n));
	stream_push(p->stream);
	return n;
}

static void
put_text(struct party *p, const char *text)
{
	ck_assert_uint_eq(put(p, text, strlen(text)), strlen(text));
}

/* As read(2). */
static ssize_t
take(struct party *p, void *dst, size_t size)
{
	size_t n;

	if (p->stream == NULL)
		return read(p->in, dst, size);
	n = buf_take(stream_rx(p->stream), dst, size);
	if (n > 0) {
		stream_consumed(p->stream, n);
		return (ssize_t)n;
	}
	if (stream_eof_read(p->stream))
		return 0;
	errno = stream_is_closed(p->stream) ? ECONNRESET : EAGAIN;
	return -1;
}

/* Read and drop what is there; return how many bytes that was. */
static size_t
take_all(struct party *p)
{
	char room[65536];
	size_t all = 0;
	ssize_t n;

	while ((n = take(p, room, sizeof(room))) > 0)
		all += (size_t)n;
	return all;
}

static void
end(struct party *p)
{
	if (p->stream != NULL) {
		stream_shutdown(p->stream);
	} else if (p->in == p->out) {
		shutdown(p->out, SHUT_WR);
	} else {
		close(p->out);
		p->out = -1;
	}
}

/* Read no more, and stop the peer if the transport can. */
static void
stop_reading(struct party *p)
{
	if (p->stream != NULL)
		stream_stop(p->stream);
	else
		shutdown(p->in, SHUT_RD);
}

static void
close_party(struct party *p)
{
	if (p->in != -1)
		close(p->in);
	if (p->out != -1 && p->out != p->in)
		close(p->out);
	p->in = p->out = -1;
	if (p->stream == NULL)
		return;
	stream_shutdown(p->stream);
	stream_stop(p->stream);
	UNTIL(stream_eof_sent(p->stream) || stream_is_closed(p->stream), turn(1));
	stream_release(p->stream);
	p->stream = NULL;
}

static void
reset_party(struct party *p)
{
	if (p->stream != NULL) {
		stream_reset(p->stream, MUX_RESET, "");
		stream_release(p->stream);
	} else {
		reset(p->in);
	}
	no_party(p);
}

static bool
arrives(struct party *p, const char *text)
{
	char got[64];
	ssize_t n = take(p, got, sizeof(got));

	ck_assert_msg(n != 0 && (n > 0 || errno == EAGAIN), "wanted %s, got %s", text,
	    n == 0 ? "the end" : strerror(errno));
	return n == (ssize_t)strlen(text) && memcmp(got, text, strlen(text)) == 0;
}

static void
pass(struct party *from, struct party *to, const char *text)
{
	put_text(from, text);
	RUN_UNTIL(arrives(to, text));
}

static bool
ended(struct party *p)
{
	char c;

	return take(p, &c, 1) == 0;
}

static int
error_of(struct party *p)
{
	char c;

	errno = 0;
	return take(p, &c, 1) == -1 && errno != EAGAIN ? errno : 0;
}

static bool
over(struct party *p)
{
	return error_of(p) != 0 || ended(p);
}

/* Read and drop everything.  Return 0 after a clean end, or an errno value. */
static int
last_error(struct party *p, size_t *got)
{
	ssize_t n;

	UNTIL((n = take(p, junk, sizeof(junk))) == 0 || (n == -1 && errno != EAGAIN), {
		*got += n > 0 ? (size_t)n : 0;
		turn(n > 0 ? 0 : 1);
	});
	return n == 0 ? 0 : errno;
}

static bool
write_fails(struct party *p)
{
	errno = 0;
	return put(p, "x", 1) == 0 && errno != EAGAIN && errno != 0;
}

/* ---- begin and finish ---- */

static void
begin(enum shape shape)
{
	static struct kind other;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGTERM, SIG_DFL);
	if (kind == NULL) {
		other.shape = shape;
		kind = &other;
	}
	if (fds == 0) {
		capture();
		log_show(LOG_INFO);
		ck_assert(os_fill_stdio()); /* it keeps a descriptor */
		fds = fds_open();
	}
	no_party(&client);
	no_party(&target);
	listening = -1;
	t.kids = &kids;
	t.each_us = 3000000;
	if (shape != DIRECT && link_near == NULL) {
		link_up(MUX_STREAMS, pollset_clock());
		near_tab.mux = link_near;
	}
}

static void
forget_log(void)
{
	ck_assert_int_eq(ftruncate(2, 0), 0);
	lseek(2, 0, SEEK_SET);
}

static void
target_port(uint16_t port)
{
	t.to.kind = ENDPOINT_TCP;
	strcpy(t.to.host, "127.0.0.1");
	t.to.port = port;
	snprintf(target_text, sizeof(target_text), "127.0.0.1:%u", (unsigned)port);
}

static void
target_path(const char *path)
{
	t.to.kind = ENDPOINT_UNIX;
	t.to.path = path;
	snprintf(target_text, sizeof(target_text), "%s", path);
}

static void
target_command(char *const argv[])
{
	endpoint_command(&t.to, argv);
	strcpy(target_text, "a command");
}

static void
listen_target(bool tcp)
{
	uint16_t port = 0;

	if (tcp) {
		listening = tcp_listener(AF_INET, &port);
		target_port(port);
		return;
	}
	unlink("target");
	listening = unix_listener("target", SOCK_STREAM, 64);
	target_path("./target");
}

static bool
accepts(void)
{
	int fd = accept(listening, NULL, NULL);

	if (fd == -1)
		return false;
	socket_party(&target, fd, t.to.kind == ENDPOINT_TCP);
	return true;
}

static void
stop_listening(void)
{
	os_close(&listening);
}

/* Make a client's socket and return it.  ${client} becomes its other end. */
static struct side
client_side(bool tcp)
{
	int s[2];

	tcp ? tcp_pair(s) : socks(s);
	socket_party(&client, s[1], tcp);
	return side_of_socket(s[0], tcp);
}

/* Join ${a} to the target, in this process or over the link. */
static void
connect_side(const struct side *a, const char *from)
{
	struct side b;

	if (kind->shape == DIRECT) {
		ck_assert(conn_dial(&near_tab, a, from, &t, pollset_clock() + ahead));
		return;
	}
	b = side_of_stream(mux_open(link_near, target_text));
	ck_assert_ptr_nonnull(b.stream);
	ck_assert(conn_join(&near_tab, a, from, &b, pollset_clock() + ahead));
}

static void
connect_client(bool tcp)
{
	struct side a;

	if (kind->shape == FAR) {
		no_party(&client);
		client.stream = mux_open(link_near, target_text);
		ck_assert_ptr_nonnull(client.stream);
		return;
	}
	a = client_side(tcp);
	connect_side(&a, "me");
}

static void
reach_target(void)
{
	if (kind->shape == NEAR) {
		RUN_UNTIL(target.stream != NULL);
	} else {
		RUN_UNTIL(accepts());
	}
	stop_listening();
	turn(5);
}

static void
join(int i)
{
	kind = &kinds[i];
	begin(kind->shape);
	if (kind->shape == NEAR)
		target_path("./target");
	else
		listen_target(kind->target_tcp);
	connect_client(kind->client_tcp);
	reach_target();
}

/* No connection, reserved memory, descriptor or child is left. */
static void
finish(void)
{
	stop_listening();
	link_held = false;
	close_party(&client);
	close_party(&target);
	UNTIL(all_conns() == 0 && kids.first == NULL, {
		ahead += 20000;
		turn(2);
	});
	ck_assert_ptr_null(watch_next(&near_tab.watches, NULL));
	ck_assert_ptr_null(watch_next(&far_tab.watches, NULL));
	if (link_near != NULL) {
		RUN_UNTIL(link_streams() == 0);
		ck_assert_uint_eq(link_reserved(), 0);
		link_free();
	}
	buf_trim();
	ck_assert_int_eq(fds_open(), fds);
}

/* ---- one life ---- */

START_TEST(bytes_pass_both_ways)
{
	join(_i);
	pass(&client, &target, "request");
	pass(&target, &client, "answer");
	pass(&client, &target, "x");
	ck_assert_uint_eq(all_conns(), kind->shape == LINK ? 2 : 1);
	finish();
}
END_TEST

/* ${_i} 1: the target ends first. */
START_TEST(a_half_close_passes_and_the_answer_comes_back)
{
	struct party *one, *two;

	join(_i / 2);
	one = _i % 2 ? &target : &client;
	two = _i % 2 ? &client : &target;
	pass(one, two, "last words");
	end(one);
	RUN_UNTIL(ended(two));
	pass(two, one, "answer");
	pass(two, one, "and more");
	end(two);
	RUN_UNTIL(all_conns() == 0);
	RUN_UNTIL(ended(one));
	ck_assert_int_eq(status, STATUS_OK);
	HAS_NOT(captured(), "broke");
	finish();
}
END_TEST

/* Half-closed or not, it has no time limit and makes no busy loop. */
START_TEST(an_idle_connection_costs_no_turns)
{
	join(_i / 2);
	if (_i % 2) {
		end(&client);
		RUN_UNTIL(ended(&target));
	}
	UNTIL(sleeps_on(), );
	pass(&target, &client, "still here");
	finish();
}
END_TEST

START_TEST(megabytes_pass_both_ways_at_once_whole_and_in_order)
{
	static unsigned char out[2][3000000];
	size_t size = sizeof(out[0]), sent[2] = { 0, 0 }, got[2] = { 0, 0 }, i, left;
	struct party *p[2] = { &client, &target };
	unsigned char block[20000];
	ssize_t n;
	int k;

	join(_i);
	UNTIL(got[0] == size && got[1] == size, {
		for (k = 0; k < 2; k++) {
			for (i = 0; i < sizeof(block); i++)
				block[i] = (unsigned char)((sent[k] + i) * 7 + (size_t)k +
							   ((sent[k] + i) >> 10));
			left = size - sent[k];
			if (left > 0)
				sent[k] +=
				    put(p[k], block, left < sizeof(block) ? left : sizeof(block));
			n = take(p[!k], out[k] + got[k], size - got[k]);
			got[k] += n > 0 ? (size_t)n : 0;
		}
		turn(0);
	});
	for (k = 0; k < 2; k++)
		for (i = 0; i < size; i++)
			if (out[k][i] != (unsigned char)(i * 7 + (size_t)k + (i >> 10)))
				ck_abort_msg("way %d differs at %zu", k, i);
	end(&client);
	end(&target);
	RUN_UNTIL(all_conns() == 0);
	ck_assert_int_eq(status, STATUS_OK);
	HAS(captured(), "3000000 bytes there, 3000000 back");
	finish();
}
END_TEST

/* Fill the way from ${one} to ${two}; return how many bytes it took. */
static size_t
fill(struct party *one, size_t most)
{
	size_t sent = 0, n;
	int idle;

	for (idle = 0; idle < 20 && sent < most; turn(1)) {
		n = put(one, junk, most - sent < sizeof(junk) ? most - sent : sizeof(junk));
		idle = n > 0 ? 0 : idle + 1;
		sent += n;
		ck_assert_uint_lt(sent, 64 * 1024 * 1024);
	}
	return sent;
}

/* Memory is bounded while a peer does not read.  ${_i} 1: the client. */
START_TEST(a_slow_reader_stops_the_writer_and_not_the_other_way)
{
	size_t sent, got = 0;
	struct party *one, *two;

	join(_i / 2);
	one = _i % 2 ? &target : &client;
	two = _i % 2 ? &client : &target;
	sent = fill(one, SIZE_MAX);
	UNTIL(sleeps_on(), );
	pass(two, one, "the other way is free");
	end(one);
	UNTIL(got == sent, {
		got += take_all(two);
		turn(1);
	});
	RUN_UNTIL(ended(two));
	finish();
}
END_TEST

/* ---- resets ---- */

/* ${_i} 1: the target resets. */
START_TEST(a_reset_leaves_as_a_reset_where_it_can)
{
	struct party *one, *two;
	size_t got = 0;

	join(_i / 2);
	one = _i % 2 ? &target : &client;
	two = _i % 2 ? &client : &target;
	if (resets(one)) {
		reset_party(one);
		RUN_UNTIL(all_conns() == 0);
		ck_assert_int_eq(status, STATUS_BROKEN);
		ck_assert_int_eq(last_error(two, &got), resets(two) ? ECONNRESET : 0);
		if (kind->shape == DIRECT) {
			HAS(captured(), "Connection reset by peer");
			HAS(captured(), resets(two) ? "was reset too" : "only TCP carries a reset");
		}
	}
	finish();
}
END_TEST

/*
 * Wait until relay's socket has received everything: a reset would drop the
 * rest.
 */
static size_t
unsent(const struct party *p)
{
	int n = 0;

	if (p->stream != NULL)
		return stream_tx(p->stream)->used;
	return p->tcp && ioctl(p->out, TIOCOUTQ, &n) == 0 && n > 0 ? (size_t)n : 0;
}

/*
 * A few bytes, more than a chunk, and more than the reader takes before the
 * reset.
 */
static const size_t before_reset[] = { 6, 100000, 700000 };

/* ${_i} 1: the target resets. */
START_TEST(a_reset_arrives_after_the_bytes_that_were_sent_before_it)
{
	size_t size = before_reset[_i % 3], sent = 0, got = 0;
	struct party *one, *two;

	join(_i / 6);
	one = _i / 3 % 2 ? &target : &client;
	two = _i / 3 % 2 ? &client : &target;
	if (resets(one)) {
		sent = fill(one, size);
		UNTIL(unsent(one) == 0, {
			got += take_all(two);
			turn(1);
		});
		reset_party(one);
		run(); /* the reader starts late */
		ck_assert_int_eq(last_error(two, &got), resets(two) ? ECONNRESET : 0);
		ck_assert_uint_eq(got, sent);
		RUN_UNTIL(all_conns() == 0);
		ck_assert_int_eq(status, STATUS_BROKEN);
	}
	finish();
}
END_TEST

/*
 * What has room in the first packets of TCP is on its way at once.  A reset
 * behind it waits for no reader.  ${_i} 1: the target resets.
 */
START_TEST(a_reset_behind_few_bytes_waits_for_one_retransmission)
{
	struct party *one, *two;
	size_t got = 0;

	join(_i / 2);
	one = _i % 2 ? &target : &client;
	two = _i % 2 ? &client : &target;
	if (resets(one) && two->tcp) {
		put_text(one, "hello");
		UNTIL(unsent(one) == 0, { turn(1); });
		reset_party(one);
		run();
		UNTIL(all_conns() == 0, {
			ahead += 50000;
			turn(1);
		});
		ck_assert_int_le(ahead, kind->shape == LINK ? 700000 : 350000);
		ck_assert_int_eq(last_error(two, &got), ECONNRESET);
		ck_assert_uint_eq(got, 5);
	}
	finish();
}
END_TEST

/* The limit of what was sent before the reset.  ${_i} 1: the target resets. */
START_TEST(a_reset_waits_for_a_reader_no_longer_than_two_seconds)
{
	struct party *one, *two;

	join(_i / 2);
	one = _i % 2 ? &target : &client;
	two = _i % 2 ? &client : &target;
	if (resets(one) && two->stream == NULL) { /* the mux reads a stream */
		fill(one, SIZE_MAX);
		reset_party(one);
		run();
		ck_assert_uint_ge(all_conns(), 1);
		if (!two->tcp && kind->shape != LINK)
			ck_assert(write_fails(two));
		ahead = 1500000; /* a loaded machine has lost 200 ms by now */
		turn(1);
		ck_assert_uint_ge(all_conns(), 1);
		UNTIL(all_conns() == 0, {
			ahead += 100000;
			turn(1);
		});
		/*
		 * Without a pipe of splice, relay holds more than the system
		 * has taken.  A probe of the window may let it take more.
		 */
		ck_assert_int_le(ahead, kind->shape == LINK ? 5000000 : UNSEEN(2300000));
		ck_assert_int_eq(status, STATUS_BROKEN);
	}
	finish();
}
END_TEST

/* ${_i} 1: the target ends and resets. */
START_TEST(a_reset_after_a_half_close_is_passed_on)
{
	struct party *one, *two;

	join(_i / 2);
	one = _i % 2 ? &target : &client;
	two = _i % 2 ? &client : &target;
	if (resets(one) && resets(two)) {
		end(one);
		RUN_UNTIL(ended(two));
		reset_party(one);
		RUN_UNTIL(all_conns() == 0);
		ck_assert_int_eq(status, STATUS_BROKEN);
		if (two->tcp)
			ck_assert_int_ne(os_error(two->in), 0); /* although nothing is written */
		else
			RUN_UNTIL(
			    error_of(two) == ECONNRESET || stream_code(two->stream) == MUX_RESET);
	}
	finish();
}
END_TEST

START_TEST(a_stop_cuts_all)
{
	struct conns *tab;
	size_t got = 0;

	join(_i);
	tab = kind->shape == FAR ? &far_tab : &near_tab;
	put_text(&client, "x");
	conn_stop(tab, STATUS_SIGNAL + SIGTERM, pollset_clock());
	ck_assert_int_eq(conn_sweep(tab, &ps), STATUS_SIGNAL + SIGTERM);
	ck_assert_uint_eq(tab->n, 0);
	if (resets(&client))
		ck_assert_int_eq(last_error(&client, &got), ECONNRESET);
	else
		RUN_UNTIL(over(&client));
	ck_assert_int_eq(last_error(&target, &got), resets(&target) ? ECONNRESET : 0);
	RUN_UNTIL(all_conns() == 0);
	finish();
}
END_TEST

/* ---- a reader that goes away ---- */

/*
 * Nothing is written to the client.  A target that can be stopped is stopped.
 */
START_TEST(the_close_of_a_unix_client_is_noticed_at_once)
{
	join(_i);
	if (kind->shape != FAR && !kind->client_tcp) {
		close_party(&client);
		RUN_UNTIL(ended(&target));
		if (!kind->target_tcp)
			RUN_UNTIL(write_fails(&target));
		close_party(&target);
		RUN_UNTIL(all_conns() == 0);
	}
	finish();
}
END_TEST

/* The writes of a Unix client get EPIPE, and it still receives the answer. */
START_TEST(a_target_that_stops_reading_stops_the_client_and_its_answer_arrives)
{
	join(_i);
	if (!kind->target_tcp && !kind->client_tcp) {
		stop_reading(&target);
		RUN_UNTIL(write_fails(&client));
		ck_assert_int_eq(errno, EPIPE);
		pass(&target, &client, "answer");
		end(&target);
		RUN_UNTIL(ended(&client));
		end(&client);
		RUN_UNTIL(all_conns() == 0);
		HAS_NOT(captured(), "was reset");
	}
	finish();
}
END_TEST

/*
 * TCP cannot stop the client.  It may continue to send, but has a limit after
 * the end of the answer.  ${_i} 1: it does not close; 2: nor may it have
 * received the whole answer.
 */
START_TEST(a_tcp_client_that_sends_without_a_reader_has_a_limit)
{
	size_t got = 0;
	int i;

	join(_i / 3);
	if (kind->client_tcp && !kind->target_tcp) {
		stop_reading(&target);
		for (i = 0; i < 5; i++) {
			put_text(&client, "x");
			turn(5);
		}
		if (_i % 3 == 2) {
			ck_assert_uint_eq(put(&target, junk, 6000), 6000);
			UNTIL(got == 6000, {
				got += take_all(&client);
				turn(1);
			});
		}
		pass(&target, &client, "answer");
		end(&target);
		RUN_UNTIL(ended(&client));
		for (i = 0; i < 5; i++) {
			put_text(&client, "x");
			turn(5);
		}
		ck_assert_uint_ge(near_tab.n, 1);
		if (_i % 3 == 0) {
			close_party(&client);
		} else {
			ahead = (_i % 3 == 2 ? UNSEEN(2000000) : 2000000) - 800000;
			turn(1);
			ck_assert_uint_ge(near_tab.n, 1);
		}
		RUN_UNTIL(all_conns() == 0);
	}
	finish();
}
END_TEST

/*
 * A close with unread input would destroy the last bytes.  ${_i} 1: the target
 * closes, and has not read all bytes of the client.
 */
START_TEST(an_answer_is_whole_although_the_client_continues_to_send)
{
	size_t answer, got = 0;
	ssize_t n;

	join(_i / 2);
	fill(&client, 500000);
	answer = fill(&target, 150000);
	ck_assert_uint_eq(answer, 150000);
	if (target.stream != NULL)
		UNTIL(stream_tx(target.stream)->used == 0, turn(1));
	if (_i % 2 == 0) {
		end(&target);
		if (!target.tcp)
			stop_reading(&target);
	} else {
		close_party(&target);
	}
	UNTIL((n = take(&client, junk, 1000)) == 0 || (n == -1 && errno != EAGAIN), {
		got += n > 0 ? (size_t)n : 0;
		if (client.stream == NULL)
			put(&client, "more", 4);
		turn(n > 0 ? 0 : 1);
	});
	ck_assert_uint_eq(got, answer);
	finish();
}
END_TEST

START_TEST(the_last_bytes_of_a_client_that_closed_arrive)
{
	size_t sent = 0, got = 0, n;

	join(_i);
	while (client.stream == NULL && (n = put(&client, junk, sizeof(junk))) > 0)
		sent += n;
	if (client.stream != NULL)
		sent = put(&client, junk, sizeof(junk));
	close_party(&client);
	UNTIL(got == sent, {
		turn(1);
		got += take_all(&target);
	});
	RUN_UNTIL(ended(&target));
	finish();
}
END_TEST

/*
 * The command stops reading, answers and exits, like a server that refuses a
 * long request.  ${_i} 2: over a link.
 */
START_TEST(an_answer_arrives_whole_after_the_target_stopped_reading)
{
	char *argv[] = { (char *)"sh", (char *)"-c",
		(char *)"head -c 1 >/dev/null; exec 0<&-; head -c 3000000 /dev/zero", NULL };
	size_t got = 0;

	begin(_i / 2 ? LINK : DIRECT);
	target_command(argv);
	connect_client(_i % 2);
	for (turns = 0; turns < 100;
	     turn(1)) /* it writes what it can, and does not read all that we send */
		put(&client, junk, sizeof(junk));
	last_error(&client, &got);
	ck_assert_uint_eq(got, 3000000);
	finish();
}
END_TEST

/* ---- dialling ---- */

/* The target is still being dialled then.  ${_i} 1: it appears later. */
START_TEST(a_client_that_sends_and_closes_before_the_target_is_reached_is_served)
{
	bool late = _i % 2;

	kind = &kinds[_i / 2];
	begin(kind->shape);
	if (kind->shape == NEAR || (late && kind->target_tcp))
		return finish();
	if (late) {
		t.wait_us = 4000000;
		target_path("./target");
		unlink("target");
	} else {
		listen_target(kind->target_tcp);
	}
	connect_client(kind->client_tcp);
	put_text(&client, "hello");
	if (client.stream == NULL)
		close_party(&client);
	else
		end(&client);
	if (late) {
		turn(5);
		turn(5);
		turn(5);
		ck_assert_msg(all_conns() > 0, "given up before the target came");
		listen_target(false);
	}
	RUN_UNTIL(accepts());
	RUN_UNTIL(arrives(&target, "hello"));
	RUN_UNTIL(ended(&target));
	finish();
}
END_TEST

/*
 * The target's system has accepted the connection, so the target sees how it
 * ends.  ${_i} 1: the client has sent something before.
 */
START_TEST(a_client_reset_during_the_dial_resets_the_target)
{
	size_t got = 0;

	kind = &kinds[_i / 2];
	begin(kind->shape);
	if (kind->shape == NEAR || !kind->target_tcp || (kind->shape != FAR && !kind->client_tcp))
		return finish();
	listen_target(true);
	connect_client(kind->client_tcp);
	if (_i % 2)
		put_text(&client, "hello");
	reset_party(&client);
	RUN_UNTIL(all_conns() == 0);
	if (accepts())
		ck_assert_int_eq(last_error(&target, &got), ECONNRESET);
	finish();
}
END_TEST

/*
 * A listener with a full backlog.  A SYN is dropped, and repeated after a
 * second, until ${fillers} are accepted.
 */
static int
fill_listener(int fillers[8])
{
	struct pollfd p = { .events = POLLOUT };
	struct sockaddr_storage sa;
	socklen_t len;
	int n = 0;

	listen_target(true);
	ck_assert_int_eq(listen(listening, 0), 0);
	len = loopback(AF_INET, t.to.port, &sa);
	do {
		ck_assert_int_lt(n, 8);
		p.fd = fillers[n++] = socket(AF_INET, SOCK_STREAM, 0);
		fcntl(p.fd, F_SETFL, O_NONBLOCK);
		connect(p.fd, (struct sockaddr *)&sa, len);
	} while (poll(&p, 1, 50) == 1);
	close(fillers[--n]);
	return n;
}

/* The target is reached and the stream is reset in the same turn. */
START_TEST(a_stream_reset_during_the_dial_resets_the_target)
{
	int fillers[8], n, i;
	size_t got = 0;

	kind = &kinds[7];
	begin(FAR);
	n = fill_listener(fillers);
	connect_client(false);
	RUN_UNTIL(far_tab.n == 1);
	for (i = 0; i < n; i++) {
		close(fillers[i]);
		WAIT_FOR(accepts());
		close_party(&target);
	}
	WAIT_FOR(accepts());
	stream_reset(client.stream, MUX_RESET, "");
	while (link_cross(pollset_clock()))
		;
	RUN_UNTIL(all_conns() == 0);
	ck_assert_int_eq(status, STATUS_BROKEN);
	ck_assert_int_eq(last_error(&target, &got), ECONNRESET);
	finish();
}
END_TEST

/* ${_i} & 1: TCP, ${_i} & 2: over a link. */
START_TEST(a_failed_dial_resets_a_tcp_client_and_closes_a_unix_one)
{
	begin(_i & 2 ? LINK : DIRECT);
	target_path("./missing");
	connect_client(_i & 1);
	RUN_UNTIL(all_conns() == 0);
	ck_assert_int_eq(status, STATUS_CONNECT);
	RUN_UNTIL(over(&client));
	HAS(captured(), _i & 2 ? "relay: node: cannot connect to ./missing: No such file"
			       : "relay: cannot connect to ./missing: No such file");
	finish();
}
END_TEST

/* ${_i} 1: over a link. */
START_TEST(a_refused_dial_is_reset_as_a_refusal)
{
	begin(_i ? LINK : DIRECT);
	target_port(free_port());
	connect_client(true);
	RUN_UNTIL(error_of(&client) == ECONNRESET);
	RUN_UNTIL(all_conns() == 0);
	ck_assert_int_eq(status, STATUS_CONNECT);
	HAS(captured(), "Connection refused");
	finish();
}
END_TEST

/* ${_i} 1: over a link. */
START_TEST(a_client_that_is_reset_ends_the_dial)
{
	begin(_i ? LINK : DIRECT);
	t.wait_us = 4000000;
	target_path("./missing");
	connect_client(true);
	run();
	ck_assert_uint_ge(all_conns(), 1);
	reset_party(&client);
	RUN_UNTIL(all_conns() == 0);
	ck_assert_int_eq(status, STATUS_BROKEN);
	HAS_NOT(captured(), "cannot connect");
	finish();
}
END_TEST

/* ${_i} & 1: TCP, ${_i} & 2: over a link. */
START_TEST(a_command_is_a_target)
{
	char *argv[] = { (char *)"cat", NULL };

	begin(_i & 2 ? LINK : DIRECT);
	target_command(argv);
	connect_client(_i & 1);
	pass(&client, &client, "echo");
	end(&client);
	RUN_UNTIL(all_conns() == 0);
	RUN_UNTIL(ended(&client));
	ck_assert_int_eq(status, STATUS_OK);
	RUN_UNTIL(kids.first == NULL);
	HAS_NOT(captured(), "signal");
	finish();
}
END_TEST

/* ${_i} 1: over a link. */
START_TEST(a_command_that_is_missing_is_reported_once)
{
	char *argv[] = { (char *)"no-such-command", NULL };

	set_path();
	begin(_i ? LINK : DIRECT);
	target_command(argv);
	connect_client(true);
	RUN_UNTIL(all_conns() == 0);
	ck_assert_int_eq(status, _i ? STATUS_CONNECT : STATUS_NOTFOUND);
	RUN_UNTIL(kids.first == NULL);
	HAS(captured(), "cannot execute no-such-command: No such file");
	HAS_NOT(captured(), "exited with");
	finish();
}
END_TEST

/* ---- stdin and stdout ---- */

enum { SOCKET = 1, TO_TCP = 2, OVER_LINK = 4, STDIO_KINDS = 8 };

/* ${p} becomes the other ends. */
static void
replace_stdio(struct party *p, bool socket)
{
	int in[2], out[2];

	no_party(p);
	if (socket) {
		socks(in);
		ck_assert(dup2(in[0], 0) == 0 && dup2(in[0], 1) == 1);
		p->in = p->out = in[1];
	} else {
		ck_assert(pipe(in) == 0 && pipe(out) == 0);
		ck_assert(dup2(in[0], 0) == 0 && dup2(out[1], 1) == 1);
		close(out[1]);
		p->in = out[0];
		p->out = in[1];
		fcntl(p->in, F_SETFL, O_NONBLOCK);
		fcntl(p->out, F_SETFL, O_NONBLOCK);
	}
	close(in[0]);
}

static void
join_stdio(int how)
{
	struct side a;

	begin(how & OVER_LINK ? LINK : DIRECT);
	listen_target(how & TO_TCP);
	replace_stdio(&client, how & SOCKET);
	side_none(&a);
	ck_assert_int_eq(fdpair_stdio(&a.fds), 0);
	connect_side(&a, "stdio");
	reach_target();
}

START_TEST(stdio_is_joined_and_half_closed_both_ways)
{
	join_stdio(_i);
	pass(&client, &target, "request");
	pass(&target, &client, "answer");
	end(&client);
	RUN_UNTIL(ended(&target));
	pass(&target, &client, "still");
	close_party(&target);
	RUN_UNTIL(all_conns() == 0);
	ck_assert(ended(&client));
	ck_assert_int_eq(status, STATUS_OK);
	finish();
}
END_TEST

/*
 * ${_i} & 1: stdin and stdout are one socket, ${_i} & 2: a TCP client, ${_i} &
 * 4: at the far side of a link.
 */
START_TEST(stdio_is_a_target)
{
	begin(_i & OVER_LINK ? LINK : DIRECT);
	replace_stdio(&target, _i & SOCKET);
	t.to.kind = ENDPOINT_STDIO;
	connect_client(_i & TO_TCP);
	pass(&client, &target, "request");
	pass(&target, &client, "answer");
	end(&client);
	RUN_UNTIL(ended(&target));
	pass(&target, &client, "still");
	end(&target);
	RUN_UNTIL(ended(&client));
	RUN_UNTIL(all_conns() == 0);
	ck_assert_int_eq(status, STATUS_OK);
	finish();
}
END_TEST

/*
 * The parent is dead and the target does not read.  ${_i} 1: more is sent than
 * relay holds.
 */
START_TEST(stuck_stdio_ends_after_its_limit)
{
	int64_t began;

	join_stdio(_i / 2);
	fill(&client, _i % 2 || target.tcp ? SIZE_MAX : 400000);
	close(client.in);
	if (client.out != client.in)
		close(client.out);
	no_party(&client);
	began = ms();
	for (turns = 0; turns < 10;)
		turn(5);
	ck_assert_uint_eq(near_tab.n, 1);
	if (_i > 0)
		ahead = (_i / 2 & ~SOCKET) == TO_TCP ? UNSEEN(1000000) - 200000 : 800000;
	turn(0);
	ck_assert_uint_eq(near_tab.n, 1);
	if (_i == 0) /* the connection sets a deadline for poll */
		UNTIL(near_tab.n == 0, turn(4000));
	UNTIL(near_tab.n == 0, {
		ahead += 1100000;
		turn(0);
	});
	ck_assert_int_lt(ms() - began, 2500);
	ck_assert_int_lt(turns, 80);
	ck_assert_int_eq(status, STATUS_BROKEN);
	conn_stop(&far_tab, STATUS_BROKEN, ps.now); /* the near side has exited */
	finish();
}
END_TEST

/*
 * The connection stays while the last bytes move.  ${_i} 1: so few are read at
 * a time that poll does not report the socket as writable; 2: over a link.
 */
START_TEST(the_last_bytes_have_no_limit_while_they_move)
{
	size_t sent, got = 0, most = _i % 2 ? 65536 : SIZE_MAX, step, taken;
	ssize_t n;

	join_stdio(_i / 2 ? OVER_LINK : 0);
	sent = fill(&client, 600000);
	close_party(&client);
	for (step = 0; step < 8; step++) { /* much longer than the limit */
		for (taken = 0; taken < most && (n = take(&target, junk, sizeof(junk))) > 0;
		     taken += (size_t)n)
			got += (size_t)n;
		for (turns = 0; turns < 5;)
			turn(2);
		ahead += 600000;
		turn(2);
	}
	UNTIL(got == sent, {
		got += take_all(&target);
		turn(1);
	});
	RUN_UNTIL(near_tab.n == 0);
	finish();
}
END_TEST

/* Stdin and the target are open; another program would die of SIGPIPE. */
START_TEST(an_answer_without_a_reader_ends_it)
{
	join_stdio(_i);
	link_held = true;
	put_text(&target, "x");
	if (_i & OVER_LINK) {
		run();
		link_held = false;
		while (link_cross(ps.now))
			;
	}
	if (_i & SOCKET)
		close_party(&client);
	else
		os_close(&client.in);
	link_held = false;
	RUN_UNTIL(near_tab.n == 0);
	ck_assert_int_eq(status, STATUS_BROKEN);
	finish();
}
END_TEST

/*
 * Nothing is lost yet: the target is stopped if it can be, and stdin stays
 * open.
 */
START_TEST(a_reader_that_closes_while_idle_ends_nothing)
{
	join_stdio(_i);
	if (_i & SOCKET)
		return finish();
	os_close(&client.in);
	run();
	pass(&client, &target, "still");
	if (!target.tcp)
		ck_assert(write_fails(&target));
	close_party(&client);
	RUN_UNTIL(ended(&target));
	close_party(&target);
	RUN_UNTIL(near_tab.n == 0);
	ck_assert_int_eq(status, STATUS_BROKEN);
	finish();
}
END_TEST

START_TEST(a_dead_parent_ends_it_when_the_target_answers_the_half_close)
{
	join_stdio(_i);
	close_party(&client);
	RUN_UNTIL(ended(&target));
	close_party(&target);
	RUN_UNTIL(all_conns() == 0);
	ck_assert_int_eq(status, STATUS_BROKEN);
	finish();
}
END_TEST

/* The target neither answers nor closes, whatever was exchanged before. */
START_TEST(a_dead_parent_ends_it_although_the_target_stays)
{
	join_stdio(_i);
	pass(&client, &target, "request");
	pass(&target, &client, "answer");
	close_party(&client);
	RUN_UNTIL(ended(&target));
	UNTIL(near_tab.n == 0, {
		ahead += 20000;
		turn(1);
	});
	ck_assert_int_le(ahead, 3200000);
	finish();
}
END_TEST

static int
lines_logged(void)
{
	const char *p;
	int n = 0;

	for (p = captured(); (p = strchr(p, '\n')) != NULL; p++)
		n++;
	return n;
}

/*
 * The target closes before it has read everything.  ${_i} 1: it stops reading,
 * and ends its answer cleanly.
 */
START_TEST(bytes_of_stdin_that_were_not_read_are_reported)
{
	join_stdio(_i / 2);
	log_show(LOG_NOTICE);
	forget_log();
	fill(&client, 8000000);
	end(&client);
	run();
	if (target.tcp) {
		reset_party(&target);
	} else if (_i % 2) {
		stop_reading(&target);
		run();
		end(&target);
	} else {
		close_party(&target);
	}
	RUN_UNTIL(near_tab.n == 0);
	ck_assert_int_eq(status, STATUS_BROKEN);
	ck_assert_int_eq(lines_logged(), 1);
	HAS(captured(), "relay: ");
	if (_i % 2 && !(_i / 2 & TO_TCP))
		HAS(captured(), _i / 2 & OVER_LINK ? "not everything was delivered"
						   : "closed before it had read everything");
	finish();
}
END_TEST

/*
 * The bytes are in the queue of the stream when STOP is read.  ${_i} 1: the far
 * side has dropped bytes too.
 */
START_TEST(bytes_of_stdin_that_were_not_sent_are_reported)
{
	static const struct kind near_stdio = { NEAR, false, false };
	struct side a;

	kind = &near_stdio;
	begin(NEAR);
	target_path("./target");
	replace_stdio(&client, false);
	side_none(&a);
	ck_assert_int_eq(fdpair_stdio(&a.fds), 0);
	connect_side(&a, "stdio");
	reach_target();
	log_show(LOG_NOTICE);
	forget_log();
	if (_i == 1) {
		put_text(&client, "read, not delivered");
		RUN_UNTIL(stream_rx(target.stream)->used > 0);
	}
	link_held = true;
	put_text(&client, "unread");
	run();
	stop_reading(&target);
	link_cross_one(link_far, link_near, pollset_clock());
	run();
	link_held = false;
	end(&target);
	RUN_UNTIL(near_tab.n == 0);
	ck_assert_int_eq(status, STATUS_BROKEN);
	ck_assert_int_eq(lines_logged(), 1);
	finish();
}
END_TEST

/* ---- many ---- */

/* The sides of many connections. */
static const int crowds[] = { 0, 1, 2, 3, 11 };
#define CROWDS ((int)(sizeof(crowds) / sizeof(crowds[0])))
#define CROWD 300

static struct party crowd_client[CROWD], crowd_target[CROWD];

static void
add_to_crowd(int i)
{
	connect_client(kind->client_tcp);
	RUN_UNTIL(accepts());
	crowd_client[i] = client;
	crowd_target[i] = target;
}

static void
close_crowd(int first, int n)
{
	int i;

	for (i = first; i < n; i++) {
		close_party(&crowd_client[i]);
		close_party(&crowd_target[i]);
	}
}

START_TEST(many_connections_are_independent)
{
	enum { MANY = 50 };
	size_t each;
	int i;

	kind = &kinds[crowds[_i]];
	begin(kind->shape);
	listen_target(kind->target_tcp);
	for (i = 0; i < MANY; i++)
		add_to_crowd(i);
	each = kind->shape == LINK ? 2 : 1;
	ck_assert_uint_eq(all_conns(), MANY * each);
	close_party(&crowd_client[7]);
	close_party(&crowd_target[7]);
	RUN_UNTIL(all_conns() == (MANY - 1) * each);
	for (i = 0; i < MANY; i++)
		if (i != 7)
			pass(&crowd_client[i], &crowd_target[i], "alive");
	close_crowd(0, MANY);
	no_party(&client);
	no_party(&target);
	RUN_UNTIL(all_conns() == 0);
	finish();
}
END_TEST

/* ---- idle ones beside busy ones ---- */

/* CROWD idle connections, and one between client and target. */
static void
join_crowd(int k)
{
	struct party one, two;
	int i;

	os_raise_files();
	join(crowds[k]);
	one = client;
	two = target;
	listen_target(kind->target_tcp);
	for (i = 0; i < CROWD; i++)
		add_to_crowd(i);
	stop_listening();
	client = one;
	target = two;
	UNTIL(idle_conns() == CROWD + 1, turn(5));
	pass(&client, &target, "awake");
	ck_assert_uint_ge(idle_conns(), CROWD - 5); /* a slow machine may have woken some */
}

/* One turn in which bytes move between client and target. */
static void
busy_turn(void)
{
	char c;

	put(&client, "x", 1);
	turn(5);
	if (take(&target, &c, 1) == 1)
		put(&target, "y", 1);
	take_all(&client);
}

#define BUSY_UNTIL(cond) UNTIL(cond, busy_turn())

static void
leave_crowd(void)
{
	close_crowd(0, CROWD);
	finish();
}

START_TEST(an_idle_connection_is_served_beside_a_busy_one)
{
	int64_t began, worst = 0;
	int i, k;

	join_crowd(_i);
	for (i = 0; i < CROWD; i += 7) {
		k = i * 31 % CROWD;
		began = ms();
		put_text(&crowd_client[k], "key");
		BUSY_UNTIL(arrives(&crowd_target[k], "key"));
		put_text(&crowd_target[k], "echo");
		BUSY_UNTIL(arrives(&crowd_client[k], "echo"));
		if (ms() - began > worst)
			worst = ms() - began;
		turns = 0;
		BUSY_UNTIL(turns == 40);
	}
	/* Mostly 3 ms.  If the idle set is not polled, it is never served. */
	ck_assert_int_le(worst, 2000);
	ck_assert_uint_ge(idle_conns(), CROWD / 2);
	leave_crowd();
}
END_TEST

/* Many bulk connections are ready at the same time. */
START_TEST(a_keystroke_waits_for_one_bulk_transfer_at_most)
{
	enum { BULKS = 4 };
	struct party from[BULKS], to[BULKS];
	size_t moved[BULKS] = { 0 }, n;
	int i, turned;

	for (i = 0; i < BULKS; i++) {
		join(0);
		from[i] = client;
		to[i] = target;
	}
	join(0);
	for (turned = -1; turned < 3 * BULKS; turned++) {
		for (i = 0; i < BULKS; i++)
			while (put(&from[i], junk, sizeof(junk)) > 0)
				;
		put_text(&client, "key");
		turn(5);
		ck_assert(arrives(&target, "key"));
		for (n = 0, i = 0; i < BULKS; i++) {
			if (take_all(&to[i]) == 0 || turned == -1)
				continue; /* it becomes bulk with its first chunk */
			moved[i]++;
			n++;
		}
		ck_assert_uint_le(n, 1);
	}
	for (i = 0; i < BULKS; i++) {
		ck_assert_uint_eq(moved[i], 3);
		close_party(&from[i]);
		close_party(&to[i]);
	}
	finish();
}
END_TEST

START_TEST(many_become_ready_at_once_beside_a_busy_one)
{
	int i;

	join_crowd(_i);
	for (i = 0; i < CROWD; i++)
		put_text(&crowd_target[i], "all");
	for (i = 0; i < CROWD; i++)
		BUSY_UNTIL(arrives(&crowd_client[i], "all"));
	UNTIL(idle_conns() == CROWD + 1, turn(5));
	for (i = 0; i < CROWD; i++)
		pass(&crowd_client[i], &crowd_target[i], "again");
	leave_crowd();
}
END_TEST

START_TEST(events_that_a_failed_poll_missed_are_seen_later)
{
	int i;

	join_crowd(_i);
	watch_wake_all(&near_tab.watches);
	blind = true;
	turn(0); /* all become idle */
	for (i = 0; i < CROWD; i += 50)
		put_text(&crowd_target[i], "all");
	turn(0);
	ps.now += 1000000;
	turn(0);
	blind = false;
	for (i = 0; i < CROWD; i += 50)
		UNTIL(arrives(&crowd_client[i], "all"), turn(5));
	leave_crowd();
}
END_TEST

START_TEST(the_end_of_an_idle_connection_is_seen_beside_a_busy_one)
{
	size_t gone;

	join_crowd(_i);
	end(&crowd_client[3]);
	BUSY_UNTIL(ended(&crowd_target[3]));
	ck_assert_uint_eq(near_tab.n, CROWD + 1);
	close_party(&crowd_target[3]);
	BUSY_UNTIL(near_tab.n == CROWD);
	if (kind->client_tcp && kind->target_tcp) {
		reset_party(&crowd_target[200]);
		BUSY_UNTIL(near_tab.n == CROWD - 1);
		BUSY_UNTIL(error_of(&crowd_client[200]) == ECONNRESET);
	}
	gone = CROWD + 1 - near_tab.n;
	close_crowd(210, CROWD);
	BUSY_UNTIL(near_tab.n == CROWD + 1 - gone - (CROWD - 210));
	conn_stop(&near_tab, STATUS_OK, pollset_clock());
	conn_sweep(&near_tab, &ps);
	ck_assert_uint_eq(near_tab.n, 0);
	ck_assert_ptr_null(watch_next(&near_tab.watches, NULL));
	leave_crowd();
}
END_TEST

START_TEST(a_stuck_reader_beside_a_busy_one_continues_when_it_reads)
{
	size_t sent = 0, got = 0, n;
	int idle;

	join_crowd(_i);
	for (idle = 0; idle < 20; busy_turn()) {
		n = put(&crowd_client[9], junk, sizeof(junk));
		idle = n > 0 ? 0 : idle + 1;
		sent += n;
	}
	BUSY_UNTIL(idle_conns() == CROWD); /* a stuck one is idle too */
	UNTIL(got == sent, {
		got += take_all(&crowd_target[9]);
		busy_turn();
	});
	pass(&crowd_client[9], &crowd_target[9], "on");
	leave_crowd();
}
END_TEST

START_TEST(limits_hold_beside_a_busy_one)
{
	struct party one, two, late;
	int64_t began;

	join_crowd(1);
	/* a dial that retries */
	t.wait_us = 1000000;
	target_path("./missing");
	one = client;
	two = target;
	began = ms();
	connect_client(true);
	late = client;
	client = one;
	target = two;
	BUSY_UNTIL(ms() - began > 100);
	ck_assert_uint_eq(near_tab.n, CROWD + 2);
	BUSY_UNTIL(near_tab.n == CROWD + 1);
	ck_assert_int_ge(ms() - began, 990);
	ck_assert_int_eq(status, STATUS_CONNECT);
	/*
	 * linger: the target has stopped reading and sent EOF, and the client
	 * sends
	 */
	began = ms();
	stop_reading(&crowd_target[5]);
	put_text(&crowd_client[5], "x");
	end(&crowd_target[5]);
	BUSY_UNTIL(near_tab.n == CROWD);
	ck_assert_int_ge(ms() - began, 990);
	close_party(&late);
	leave_crowd();
}
END_TEST

START_TEST(many_idle_connections_cost_no_turns)
{
	join_crowd(_i);
	UNTIL(ps.now - near_tab.watches.event_at > 100000, turn(5));
	ck_assert_uint_eq(idle_conns(), CROWD + 1);
	UNTIL(sleeps_on(), );
	pass(&crowd_client[CROWD - 1], &crowd_target[CROWD - 1], "still here");
	leave_crowd();
}
END_TEST

/* ---- SIGUSR1 ---- */

START_TEST(the_table_has_all_connections)
{
	static char text[100000];
	char line[32];
	int i;

	join_crowd(0);
	forget_log();
	conn_table(&near_tab, pollset_clock());
	text[pread(2, text, sizeof(text) - 1, 0)] = '\0';
	for (i = 1; i <= CROWD + 1; i++) {
		snprintf(line, sizeof(line), "[%d] me -> ./target", i);
		HAS(text, line);
	}
	HAS(text, "301 open connections");
	leave_crowd();
}
END_TEST

/* The lines have the same form for all kinds of sides. */
START_TEST(every_connection_is_reported)
{
	struct conns *tab;
	char line[128];
	const char *from;

	join(_i);
	tab = kind->shape == FAR ? &far_tab : &near_tab;
	from = kind->shape == FAR ? "laptop" : "me";
	pass(&client, &target, "12345");
	snprintf(line, sizeof(line), "[1] opened %s -> %s\n", from, target_text);
	HAS(captured(), line);
	turn(5);
	conn_table(tab, ps.now);
	HAS(captured(), "1 open connection\n");
	snprintf(line, sizeof(line), "[1] %s -> %s: 5 bytes there, 0 back, 0 s old\n", from,
	    target_text);
	HAS(captured(), line);
	close_party(&client);
	close_party(&target);
	RUN_UNTIL(all_conns() == 0);
	snprintf(
	    line, sizeof(line), "[1] closed %s -> %s: 5 bytes there, 0 back, ", from, target_text);
	HAS(captured(), line);
	conn_table(tab, ps.now);
	HAS(captured(), "0 open connections\n");
	HAS_NOT(captured(), "broke");
	finish();
}
END_TEST

START_TEST(the_table_shows_that_a_target_is_not_reached_yet)
{
	begin(DIRECT);
	t.wait_us = 4000000;
	target_path("./missing");
	connect_client(true);
	run();
	conn_table(&near_tab, ps.now);
	HAS(captured(), "[1] me -> ./missing (connecting): 0 bytes there, 0 back, 0 s old\n");
	finish();
}
END_TEST

/* ---- -D ---- */

static size_t
request(char *dst, uint16_t port)
{
	memcpy(dst, "\5\1\0\5\1\0\1\177\0\0\1", 11);
	dst[11] = (char)(port >> 8);
	dst[12] = (char)port;
	return 13;
}

#define CONNECTED "\5\0\5\0\0\1\0\0\0\0\0\0"

static void
put_bytes(const void *p, size_t n)
{
	ck_assert_uint_eq(put(&client, p, n), n);
}

static void
comes(const void *p, size_t n)
{
	char got[64];
	size_t have = 0;
	ssize_t r;

	while (have < n) {
		RUN_UNTIL((r = take(&client, got + have, n - have)) != -1);
		ck_assert_msg(r > 0, "it ended after %zu bytes", have);
		have += (size_t)r;
	}
	ck_assert_mem_eq(got, p, n);
}

static void
connect_socks(void)
{
	struct side a = client_side(true);

	ck_assert(conn_socks(&near_tab, &a, "me", pollset_clock() + ahead));
}

/* Send both ways, then end cleanly. */
static void
talk(void)
{
	pass(&client, &target, "ping");
	pass(&target, &client, "pong");
	end(&client);
	RUN_UNTIL(ended(&target));
	pass(&target, &client, "late");
	end(&target);
	RUN_UNTIL(ended(&client));
}

/* ${_i} 0: as clients do, 1: everything at once and more, 2: byte by byte. */
START_TEST(a_client_of_the_proxy_is_connected)
{
	char text[32];
	size_t n, i;

	begin(LINK);
	listen_target(true);
	n = request(text, t.to.port);
	connect_socks();
	if (_i == 0) {
		put_bytes(text, 3);
		comes(CONNECTED, 2);
		put_bytes(text + 3, n - 3);
	} else if (_i == 1) {
		memcpy(text + n, "early", 5);
		put_bytes(text, n + 5);
	}
	for (i = 0; _i == 2 && i < n; i++) {
		put_bytes(text + i, 1);
		run();
	}
	RUN_UNTIL(accepts());
	comes(&CONNECTED[_i == 0 ? 2 : 0], _i == 0 ? 10 : 12);
	if (_i == 1)
		RUN_UNTIL(arrives(&target, "early"));
	HAS(captured(), "opened me -> 127.0.0.1:");
	talk();
	finish();
}
END_TEST

START_TEST(a_client_of_version_4_is_connected)
{
	char text[] = "\4\1??\0\0\0\1me\0localhost";

	begin(LINK);
	listen_target(true);
	text[2] = (char)(t.to.port >> 8);
	text[3] = (char)t.to.port;
	connect_socks();
	put_bytes(text, sizeof(text));
	RUN_UNTIL(accepts());
	comes("\0\132\0\0\0\0\0\0", 8);
	HAS(captured(), "opened me -> localhost:");
	talk();
	finish();
}
END_TEST

START_TEST(a_client_gets_the_reason_of_a_failed_dial)
{
	char text[32];

	begin(LINK);
	target_port(free_port());
	connect_socks();
	put_bytes(text, request(text, t.to.port));
	comes("\5\0\5\5\0\1\0\0\0\0\0\0", 12);
	RUN_UNTIL(ended(&client));
	HAS(captured(), "relay: node: cannot connect");
	finish();
}
END_TEST

START_TEST(a_client_that_sends_something_else_is_refused)
{
	static const struct {
		const char *p, *answer;
		size_t n, answer_n;
	} bad[] = { { "GET / HTTP/1.0\r\n\r\n", "", 18, 0 }, { "\5\1\2", "\5\377", 3, 2 },
		{ "\5\1\0\5\2\0\1\1\1\1\1\0\120", "\5\0\5\7\0\1\0\0\0\0\0\0", 13, 12 },
		{ "\4\2\0\120\1\1\1\1", "\0\133\0\0\0\0\0\0", 9, 8 } };

	begin(LINK);
	connect_socks();
	put_bytes(bad[_i].p, bad[_i].n);
	comes(bad[_i].answer, bad[_i].answer_n);
	RUN_UNTIL(over(&client));
	HAS(captured(), "refused a client of -D");
	finish();
}
END_TEST

/*
 * ${_i}: the client closes 0 before its first byte, 1 within its request, 2
 * after it; 3: it sends EOF first.
 */
START_TEST(a_client_that_closes_is_freed)
{
	char text[32];
	size_t n;

	begin(LINK);
	t.wait_us = 60000000;
	target_path("./missing");
	n = request(text, 80);
	connect_socks();
	if (_i > 0)
		put_bytes(text, _i == 1 ? 8 : n);
	if (_i >= 2)
		RUN_UNTIL(far_tab.n == 1);
	run();
	if (_i == 3) {
		end(&client);
		run();
		ck_assert_uint_eq(near_tab.n, 1);
	}
	reset_party(&client);
	RUN_UNTIL(all_conns() == 0);
	finish();
}
END_TEST

/* ${_i} 1: the link is down. */
START_TEST(a_client_has_a_minute_for_its_request)
{
	begin(LINK);
	connect_socks();
	put_bytes("\5\1\0\5", 4);
	if (_i == 1)
		near_tab.mux = NULL;
	ahead = 59000000;
	run();
	ck_assert_uint_eq(near_tab.n, 1);
	ahead = 60100000;
	RUN_UNTIL(near_tab.n == 0);
	RUN_UNTIL(over(&client));
	ahead = 0;
	finish();
}
END_TEST

/* End the link on both sides.  All connections but ${left} end. */
static void
lose_link(size_t left)
{
	link_cut();
	near_tab.mux = NULL;
	link_held = true;
	RUN_UNTIL(near_tab.n == left && far_tab.n == 0);
	ck_assert_uint_eq(link_reserved(), 0);
	ck_assert_uint_eq(link_streams(), 0);
	link_free();
}

/*
 * Nothing or half a request was sent before the link ended.  A new link is
 * used.
 */
START_TEST(a_client_that_has_not_sent_its_request_outlives_the_link)
{
	size_t n, half = (size_t)_i;
	char text[32];

	begin(LINK);
	listen_target(true);
	n = request(text, t.to.port);
	connect_socks();
	put_bytes(text, half);
	run();
	lose_link(1);
	put_bytes(text + half, n - half);
	UNTIL(sleeps_on(), ); /* although the request has come */
	link_up(MUX_STREAMS, pollset_clock());
	near_tab.mux = link_near;
	RUN_UNTIL(accepts());
	comes(CONNECTED, 12);
	talk();
	finish();
}
END_TEST

/* ---- the link is lost ---- */

/* ${_i} 0: idle, 1: both ways full, 2: the same after a half-close. */
START_TEST(open_connections_end_with_the_link)
{
	int i = _i / 3;

	join(i);
	if (kind->shape == LINK) {
		if (_i % 3 > 0) {
			fill(&client, SIZE_MAX);
			fill(&target, SIZE_MAX);
		}
		if (_i % 3 == 2) {
			end(&client);
			run();
		}
		link_cut();
		near_tab.mux = NULL;
		link_held = true;
		UNTIL(near_tab.n == 0 && far_tab.n == 0, {
			take_all(&client);
			take_all(&target);
			turn(1);
		});
		take_all(&client);
		take_all(&target);
		ck_assert_uint_eq(link_reserved(), 0);
		link_free();
	}
	finish();
}
END_TEST

/*
 * The client has stopped reading and waits for the delivery of its bytes.  The
 * target reads too little for poll.
 */
START_TEST(a_slow_target_shows_progress_after_an_outage)
{
	uint64_t progress;
	int i;

	link_start(MUX_STREAMS, pollset_clock());
	mux_keep(link_near, 0, NULL);
	mux_keep(link_far, 60, (const unsigned char *)"0123456789abcdef");
	near_tab.mux = link_near;
	while (link_cross(pollset_clock()))
		;
	join(6);
	fill(&client, SIZE_MAX);
	stop_reading(&client);
	run();
	link_held = true;
	link_cut();
	for (i = 0; i < 60; i++) {
		ahead += 100000;
		turn(0);
	}
	link_held = false;
	mux_attach(link_near, 0, false, ps.now);
	mux_attach(link_far, 0, false, ps.now);
	RUN_UNTIL(mux_state(link_near) == MUX_UP);
	progress = stream_progress(client.stream);
	blind = true;
	ck_assert_int_gt(read(target.in, junk, sizeof(junk)), 0);
	UNTIL(stream_progress(client.stream) != progress, {
		ahead += 10000;
		turn(1);
	});
	blind = false;
	take_all(&target);
	finish();
}
END_TEST

/* ${_i} 0: at once, 1: while the far side dials, 2: the same for -D. */
START_TEST(connections_that_are_not_open_end_with_the_link)
{
	char text[32];

	begin(LINK);
	t.wait_us = 60000000;
	target_path("./missing");
	if (_i < 2)
		connect_client(true);
	if (_i == 1)
		RUN_UNTIL(far_tab.n == 1);
	if (_i == 2) {
		connect_socks();
		put_bytes(text, request(text, 80));
		RUN_UNTIL(far_tab.n == 1);
		comes("\5\0", 2);
	}
	log_show(LOG_NOTICE);
	forget_log();
	lose_link(0);
	if (_i == 2) {
		comes("\5\1\0\1\0\0\0\0\0\0", 10);
		RUN_UNTIL(ended(&client));
	} else {
		RUN_UNTIL(error_of(&client) == ECONNRESET);
	}
	ck_assert_str_eq(captured(), ""); /* the tunnel logs its own end */
	finish();
}
END_TEST

TESTS("conn")
{
	tcase_set_timeout(tc, 30);
	tcase_add_unchecked_fixture(tc, enter_dir, leave_dir);
	tcase_add_loop_test(tc, bytes_pass_both_ways, 0, KINDS);
	tcase_add_loop_test(tc, a_half_close_passes_and_the_answer_comes_back, 0, 2 * KINDS);
	tcase_add_loop_test(tc, an_idle_connection_costs_no_turns, 0, 2 * KINDS);
	tcase_add_loop_test(tc, megabytes_pass_both_ways_at_once_whole_and_in_order, 0, KINDS);
	tcase_add_loop_test(tc, a_slow_reader_stops_the_writer_and_not_the_other_way, 0, 2 * KINDS);
	tcase_add_loop_test(tc, a_reset_leaves_as_a_reset_where_it_can, 0, 2 * KINDS);
	tcase_add_loop_test(
	    tc, a_reset_arrives_after_the_bytes_that_were_sent_before_it, 0, 6 * KINDS);
	tcase_add_loop_test(
	    tc, a_reset_waits_for_a_reader_no_longer_than_two_seconds, 0, 2 * KINDS);
	tcase_add_loop_test(
	    tc, a_reset_behind_few_bytes_waits_for_one_retransmission, 0, 2 * KINDS);
	tcase_add_loop_test(tc, a_reset_after_a_half_close_is_passed_on, 0, 2 * KINDS);
	tcase_add_loop_test(tc, a_stop_cuts_all, 0, KINDS);
	tcase_add_loop_test(tc, the_close_of_a_unix_client_is_noticed_at_once, 0, KINDS);
	tcase_add_loop_test(
	    tc, a_target_that_stops_reading_stops_the_client_and_its_answer_arrives, 0, KINDS);
	tcase_add_loop_test(tc, a_tcp_client_that_sends_without_a_reader_has_a_limit, 0, 3 * KINDS);
	tcase_add_loop_test(
	    tc, an_answer_is_whole_although_the_client_continues_to_send, 0, 2 * KINDS);
	tcase_add_loop_test(tc, the_last_bytes_of_a_client_that_closed_arrive, 0, KINDS);
	tcase_add_loop_test(tc, an_answer_arrives_whole_after_the_target_stopped_reading, 0, 4);
	tcase_add_loop_test(tc,
	    a_client_that_sends_and_closes_before_the_target_is_reached_is_served, 0, 2 * KINDS);
	tcase_add_loop_test(tc, a_client_reset_during_the_dial_resets_the_target, 0, 2 * KINDS);
	tcase_add_test(tc, a_stream_reset_during_the_dial_resets_the_target);
	tcase_add_loop_test(tc, a_failed_dial_resets_a_tcp_client_and_closes_a_unix_one, 0, 4);
	tcase_add_loop_test(tc, a_refused_dial_is_reset_as_a_refusal, 0, 2);
	tcase_add_loop_test(tc, a_client_that_is_reset_ends_the_dial, 0, 2);
	tcase_add_loop_test(tc, a_command_is_a_target, 0, 4);
	tcase_add_loop_test(tc, a_command_that_is_missing_is_reported_once, 0, 2);
	tcase_add_loop_test(tc, stdio_is_joined_and_half_closed_both_ways, 0, STDIO_KINDS);
	tcase_add_loop_test(tc, stdio_is_a_target, 0, STDIO_KINDS);
	tcase_add_loop_test(tc, stuck_stdio_ends_after_its_limit, 0, 2 * STDIO_KINDS);
	tcase_add_loop_test(tc, the_last_bytes_have_no_limit_while_they_move, 0, 4);
	tcase_add_loop_test(tc, an_answer_without_a_reader_ends_it, 0, STDIO_KINDS);
	tcase_add_loop_test(tc, a_reader_that_closes_while_idle_ends_nothing, 0, STDIO_KINDS);
	tcase_add_loop_test(
	    tc, a_dead_parent_ends_it_when_the_target_answers_the_half_close, 0, STDIO_KINDS);
	tcase_add_loop_test(tc, a_dead_parent_ends_it_although_the_target_stays, 0, STDIO_KINDS);
	tcase_add_loop_test(tc, bytes_of_stdin_that_were_not_read_are_reported, 0, 2 * STDIO_KINDS);
	tcase_add_loop_test(tc, bytes_of_stdin_that_were_not_sent_are_reported, 0, 2);
	tcase_add_loop_test(tc, many_connections_are_independent, 0, CROWDS);
	tcase_add_loop_test(tc, an_idle_connection_is_served_beside_a_busy_one, 0, CROWDS);
	tcase_add_test(tc, a_keystroke_waits_for_one_bulk_transfer_at_most);
	tcase_add_loop_test(tc, many_become_ready_at_once_beside_a_busy_one, 0, CROWDS);
	tcase_add_loop_test(tc, events_that_a_failed_poll_missed_are_seen_later, 0, CROWDS);
	tcase_add_loop_test(tc, the_end_of_an_idle_connection_is_seen_beside_a_busy_one, 0, CROWDS);
	tcase_add_loop_test(
	    tc, a_stuck_reader_beside_a_busy_one_continues_when_it_reads, 0, CROWDS);
	tcase_add_test(tc, limits_hold_beside_a_busy_one);
	tcase_add_loop_test(tc, many_idle_connections_cost_no_turns, 0, CROWDS);
	tcase_add_test(tc, the_table_has_all_connections);
	tcase_add_loop_test(tc, every_connection_is_reported, 0, KINDS);
	tcase_add_test(tc, the_table_shows_that_a_target_is_not_reached_yet);
	tcase_add_loop_test(tc, a_client_of_the_proxy_is_connected, 0, 3);
	tcase_add_test(tc, a_client_of_version_4_is_connected);
	tcase_add_test(tc, a_client_gets_the_reason_of_a_failed_dial);
	tcase_add_loop_test(tc, a_client_that_sends_something_else_is_refused, 0, 4);
	tcase_add_loop_test(tc, a_client_that_closes_is_freed, 0, 4);
	tcase_add_loop_test(tc, a_client_has_a_minute_for_its_request, 0, 2);
	tcase_add_loop_test(tc, a_client_that_has_not_sent_its_request_outlives_the_link, 0, 13);
	tcase_add_loop_test(tc, open_connections_end_with_the_link, 0, 3 * KINDS);
	tcase_add_test(tc, a_slow_target_shows_progress_after_an_outage);
	tcase_add_loop_test(tc, connections_that_are_not_open_end_with_the_link, 0, 3);
}
