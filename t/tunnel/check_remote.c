/* check_leg.c - local sides and streams: two links back to back, legs at both, sockets outside; needs all rooms but relay.o */
#include <netdb.h>
#include <sys/wait.h>

#include "t/net.h"

#define WAITING 8

static struct link near_link, far_link;
static struct legs near, far;
static struct dial_target rule; /* of the far side */
static struct children kids;
static struct pollset ps;
static struct forward f;
static char why[512];
static int status; /* of the near legs */
static bool cut;   /* nothing crosses any more */
static int fds; /* at the beginning */

/* ---- two sides ---- */

static bool
cross(void)
{
	static unsigned char wire[1 << 17];
	size_t n, all = 0;

	if (cut)
		return false;
	n = link_pull(&near_link, wire, sizeof(wire), ps.now_us);
	link_feed(&far_link, wire, n, ps.now_us);
	all += n;
	n = link_pull(&far_link, wire, sizeof(wire), ps.now_us);
	link_feed(&near_link, wire, n, ps.now_us);
	return all + n > 0;
}

static void
turn(void)
{
	static bool moved;
	int s;

	pollset_begin(&ps);
	spawn_turn(&kids, &ps);
	leg_want(&near, &ps);
	leg_want(&far, &ps);
	pollset_until(&ps, moved ? 0 : ps.now + 2);
	ck_assert_int_eq(pollset_wait(&ps), 0);
	spawn_reap(&kids);
	leg_accept(&far, ps.now);
	leg_step(&near, &ps);
	leg_step(&far, &ps);
	s = leg_sweep(&near, &ps);
	status = s == STATUS_OK ? status : s;
	leg_sweep(&far, &ps);
	moved = cross();
}

#define TURN_UNTIL(cond) UNTIL(cond, turn())

/* Long enough for everything that is going to happen. */
static void
settle(void)
{
	int i;

	for (i = 0; i < 20; i++)
		turn();
}

static void
link_begin(uint32_t streams)
{
	link_init(&near_link, LINK_NEAR, LINK_MEMORY, "laptop", pollset_clock_us());
	link_init(&far_link, LINK_FAR, LINK_MEMORY, "node", pollset_clock_us());
	near_link.ours.streams = far_link.ours.streams = streams;
	near.link = &near_link;
	far.link = &far_link;
}

static void
link_up(uint32_t streams)
{
	link_begin(streams);
	cut = false;
	while (cross())
		;
	ck_assert_int_eq(near_link.state, LINK_UP);
	ck_assert_int_eq(far_link.state, LINK_UP);
}

static struct sockaddr *
sock_of(int fd, int (*which)(int, struct sockaddr *, socklen_t *))
{
	static struct sockaddr_storage sa[2];
	static int i;
	socklen_t len = sizeof(sa[0]);

	i = !i;
	which(fd, (struct sockaddr *)&sa[i], &len);
	return (struct sockaddr *)&sa[i];
}

static void
begin(void)
{
	uid_t uid;
	int fd[2];

	signal(SIGPIPE, SIG_IGN);
	capture();
	tcp_pair(fd);
	os_peer_uid(sock_of(fd[0], getpeername), sock_of(fd[0], getsockname), &uid); /* which keeps a socket of its own */
	close(fd[0]);
	close(fd[1]);
	fds = fds_open();
	rule.each_ms = 2000;
	rule.kids = &kids;
	far.target = &rule;
	link_up(LINK_STREAMS);
}

/* The line is dead: both sides see it and clear up; with what is left over, ${left} legs on the near side. */
static void
line_dies(size_t left)
{
	cut = true;
	link_lost(&near_link, LINK_RESET, "the line is cut");
	link_lost(&far_link, LINK_RESET, "the line is cut");
	pollset_begin(&ps);
	leg_step(&near, &ps);
	leg_step(&far, &ps);
	leg_sweep(&near, &ps);
	leg_sweep(&far, &ps);
	ck_assert_uint_eq(near.n, left);
	ck_assert_uint_eq(near.aside, 0);
	ck_assert_uint_eq(far.n, 0);
	ck_assert_uint_eq(far.aside, 0);
	ck_assert_ptr_null(far.watches.active.first);
	link_free(&near_link);
	link_free(&far_link);
}

/* Nothing is left but ${more} descriptors. */
static void
all_is_over(int more)
{
	TURN_UNTIL(near.n == 0 && far.n == 0 && near_link.n == 0 && far_link.n == 0);
	ck_assert_uint_eq(near.aside, 0);
	ck_assert_uint_eq(far.aside, 0);
	ck_assert_uint_eq(near_link.promised, 0);
	ck_assert_uint_eq(far_link.promised, 0);
	ck_assert_int_eq(near_link.state, LINK_UP);
	link_free(&near_link);
	link_free(&far_link);
	buf_trim();
	TURN_UNTIL(kids.first == NULL);
	ck_assert_int_eq(fds_open(), fds + more);
}

/* ---- outside ---- */

static const char *
port_text(uint16_t port)
{
	static char text[2][32];
	static int i;

	i = !i;
	snprintf(text[i], sizeof(text[i]), "127.0.0.1:%u", (unsigned)port);
	return text[i];
}

/* Its connections stay open. */
static uint16_t
kept_deaf_port(void)
{
	uint16_t port = deaf_port();

	fds = fds_open();
	return port;
}

static int
taken(int l)
{
	int fd;

	TURN_UNTIL((fd = accept(l, NULL, NULL)) != -1);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

static void
comes(int fd, const void *p, size_t n)
{
	char got[600];
	size_t have = 0;
	ssize_t r;

	while (have < n) {
		TURN_UNTIL((r = read(fd, got + have, n - have)) != -1);
		ck_assert_msg(r > 0, "it ended after %zu bytes", have);
		have += (size_t)r;
	}
	ck_assert_mem_eq(got, p, n);
}

static void
says(int fd, const void *p, size_t n)
{
	ck_assert_int_eq(write(fd, p, n), (ssize_t)n);
}

static void
ends(int fd)
{
	char c;
	ssize_t r;

	TURN_UNTIL((r = read(fd, &c, 1)) != -1);
	ck_assert_int_eq(r, 0);
}

static void
breaks_off(int fd)
{
	char c;

	TURN_UNTIL(read(fd, &c, 1) == -1 && errno != EAGAIN);
	ck_assert_int_eq(errno, ECONNRESET);
}

/* Both ways, then to a clean end. */
static void
talk(int a, int b)
{
	says(a, "ping", 4);
	comes(b, "ping", 4);
	says(b, "pong", 4);
	comes(a, "pong", 4);
	shutdown(a, SHUT_WR);
	ends(b);
	says(b, "late", 4);
	comes(a, "late", 4);
	shutdown(b, SHUT_WR);
	ends(a);
	close(a);
	close(b);
}

/* A client of the near side: the other end of what becomes a leg. */
static int
client(struct end *a)
{
	int fd[2];

	tcp_pair(fd);
	end_socket(a, fd[0], true);
	return fd[1];
}

static int
new_leg(const char *target)
{
	struct end a;
	int fd = client(&a);

	ck_assert(leg_new(&near, &a, target, ps.now));
	return fd;
}

static int
new_socks(void)
{
	struct end a;
	int fd = client(&a);

	ck_assert(leg_socks(&near, &a, ps.now));
	return fd;
}

/* ---- -L ---- */

START_TEST(a_leg_reaches_its_target)
{
	uint16_t port = 0;
	int l = tcp_listener(AF_INET, &port), u, a, b;

	begin();
	a = new_leg(port_text(port));
	says(a, "early", 5); /* nobody waits for the answer */
	b = taken(l);
	comes(b, "early", 5);
	ck_assert_uint_eq(near.n, 1);
	talk(a, b);
	all_is_over(0);
	ck_assert_int_eq(status, STATUS_OK);
	begin();
	u = unix_listener("there", SOCK_STREAM, 4);
	a = new_leg("./there");
	b = taken(u);
	talk(a, b);
	close(u);
	unlink("there");
	all_is_over(0);
}
END_TEST

static const struct {
	const char *target, *says;
	uint16_t code;
} unreached[] = {
	{ "./missing", "No such file or directory", LINK_NO_FILE },
	{ "", "an end is empty", LINK_UNUSABLE },
	{ "-", "a stream's target is a port or a socket path", LINK_UNUSABLE },
	{ "nonsense", "neither a port", LINK_UNUSABLE },
	{ "=accept 1", "nothing listens for it", LINK_UNUSABLE },
	{ "=accept ", "nothing listens for it", LINK_UNUSABLE },
	{ "=listen -", "not asked for", LINK_UNUSABLE },
	{ "=listen nonsense", "neither a port", LINK_UNUSABLE },
	{ "=listen ", "empty", LINK_UNUSABLE },
	{ "=listen /dev/null/x", "/dev/null/x", LINK_UNUSABLE },
	{ "=other", "neither a port", LINK_UNUSABLE },
};

START_TEST(a_target_that_is_not_reached_resets_its_leg_and_is_told)
{
	int a;

	begin();
	a = new_leg(unreached[_i].target);
	breaks_off(a);
	close(a);
	HAS(captured(), "relay: node: ");
	HAS(captured(), unreached[_i].says);
	ck_assert_int_eq(status, STATUS_CONNECT);
	all_is_over(0);
}
END_TEST

START_TEST(a_refusal_comes_from_the_far_side)
{
	int a;

	begin();
	a = new_leg(port_text(free_port()));
	breaks_off(a);
	close(a);
	HAS(captured(), "Connection refused");
	ck_assert_int_eq(status, STATUS_CONNECT);
	all_is_over(0);
}
END_TEST

START_TEST(a_reset_goes_through_both_ways)
{
	uint16_t port = 0;
	int l = tcp_listener(AF_INET, &port), a, b;

	begin();
	a = new_leg(port_text(port));
	b = taken(l);
	says(a, "x", 1);
	comes(b, "x", 1);
	reset(_i == 0 ? a : b);
	breaks_off(_i == 0 ? b : a);
	close(_i == 0 ? b : a);
	ck_assert_int_eq(status, STATUS_BROKEN);
	all_is_over(0);
	ck_assert_str_eq(captured(), ""); /* that is how connections end */
}
END_TEST

/* 0: no name, 1: its own, 2: another, 3: to listen, 4: to wait for one */
START_TEST(a_far_end_with_a_target_of_its_own_goes_nowhere_else)
{
	uint16_t port = 0;
	int l = tcp_listener(AF_INET, &port), a, b;
	const char *const text[] = { "", port_text(port), "localhost:1", "=listen 0", "=accept 1" };

	begin();
	far.fixed = true;
	ck_assert(endpoint_parse(&rule.to, port_text(port), false, why, sizeof(why)));
	a = new_leg(text[_i]);
	if (_i < 2) {
		b = taken(l);
		talk(a, b);
	} else {
		breaks_off(a);
		close(a);
		HAS(captured(), _i == 4 ? "listens" : "this end connects to");
	}
	all_is_over(0);
}
END_TEST

START_TEST(without_a_link_there_is_no_leg)
{
	struct end a;
	int fd;

	begin();
	link_lost(&near_link, LINK_RESET, "");
	fd = client(&a);
	ck_assert(!leg_new(&near, &a, "x:1", ps.now));
	ck_assert(!leg_remote(&near, &f, ps.now));
	ck_assert(!leg_probe(&near, &f, ps.now));
	end_close(&a, false);
	close(fd);
	leg_sweep(&near, &ps);
	ck_assert_uint_eq(near.n, 0);
	ck_assert_uint_eq(near.aside, 0);
}
END_TEST

/* ---- -R ---- */

/* ${from} there, ${to} here, until it stands or is refused. */
static void
listen_there(const char *from, const char *to)
{
	char text[2 * SOCK_PATH_MAX];

	snprintf(text, sizeof(text), "%s:%s", from, to);
	ck_assert_msg(forward_parse(&f, FORWARD_FAR, text, why, sizeof(why)), "%s", why);
	f.to.each_ms = 2000;
	f.to.kids = &kids;
	ck_assert(leg_remote(&near, &f, ps.now));
	ck_assert_int_eq(f.state, FORWARD_ASKS);
	TURN_UNTIL(f.state != FORWARD_ASKS);
}

static uint16_t
port_there(void)
{
	char *colon = strchr(f.bound, ':');

	ck_assert_msg(colon != NULL, "%s", f.bound);
	return (uint16_t)atoi(colon + 1);
}

static void
all_wait(void)
{
	TURN_UNTIL(far.aside == 1 + WAITING && near.aside == 1 + WAITING);
}

START_TEST(a_listener_there_stands_and_waits)
{
	char want[64];

	begin();
	listen_there("127.0.0.1:0", "127.0.0.1:1");
	ck_assert_int_eq(f.state, FORWARD_STANDS);
	snprintf(want, sizeof(want), "127.0.0.1:%u\n\n", (unsigned)port_there());
	ck_assert_str_eq(f.bound, want);
	all_wait();
	settle();
	all_wait();
	ck_assert_uint_eq(near.n, 1 + WAITING);
	line_dies(0);
	ck_assert_int_eq(f.state, FORWARD_REFUSED);
	ck_assert_int_eq(fds_open(), fds);
}
END_TEST

START_TEST(both_loopbacks_are_told_a_line_each)
{
	begin();
	listen_there("0", "127.0.0.1:1");
	ck_assert_int_eq(f.state, FORWARD_STANDS);
	HAS(f.bound, "127.0.0.1:");
	HAS(f.bound, "[::1]:");
	ck_assert_ptr_eq(strstr(f.bound, "\n\n"), f.bound + strlen(f.bound) - 2);
	line_dies(0);
}
END_TEST

/* One after the other, and more at once than wait. */
START_TEST(who_connects_there_is_served_here)
{
	enum { MANY = 3 * WAITING + 1 };
	uint16_t port = 0;
	int l = tcp_listener(AF_INET, &port), there[MANY], here[MANY], i, n = _i == 0 ? 1 : MANY, round;
	char c;

	begin();
	listen_there("127.0.0.1:0", port_text(port));
	for (round = 0; round < 3; round++) {
		for (i = 0; i < n; i++) {
			there[i] = tcp_connect(AF_INET, port_there());
			c = (char)i;
			says(there[i], &c, 1);
		}
		for (i = 0; i < n; i++)
			here[i] = taken(l);
		all_wait();
		ck_assert_uint_eq(near.n - near.aside, (size_t)n);
		for (i = 0; i < n; i++) {
			TURN_UNTIL(read(here[i], &c, 1) == 1);
			ck_assert_int_ge(c, 0);
			ck_assert_int_lt(c, n);
			ck_assert_int_ne(there[(int)c], -1);
			talk(there[(int)c], here[i]);
			there[(int)c] = -1;
		}
		all_wait();
		TURN_UNTIL(near.n == near.aside && far.n == far.aside);
	}
	line_dies(0);
}
END_TEST

START_TEST(what_goes_to_an_unreached_target_here_is_reset_there)
{
	int fd;

	begin();
	listen_there("127.0.0.1:0", "./missing");
	fd = tcp_connect(AF_INET, port_there());
	breaks_off(fd);
	HAS(captured(), "./missing: No such file");
	HAS_NOT(captured(), "node: ");
	all_wait();
	ck_assert_int_eq(f.state, FORWARD_STANDS);
	line_dies(0);
}
END_TEST

/* 0: in use, 1: no such directory, 2: not allowed for anybody */
START_TEST(a_listener_that_cannot_be_is_refused_and_told)
{
	uint16_t port = 0;
	int l = tcp_listener(AF_INET, &port);

	begin();
	listen_there(_i == 0 ? port_text(port) : _i == 1 ? "/nowhere/x.sock" : "203.0.113.1:80", "127.0.0.1:1");
	ck_assert_int_eq(f.state, FORWARD_REFUSED);
	HAS(captured(), "relay: node: cannot listen on ");
	ck_assert_ptr_null(strstr(strchr(captured(), '\n') + 1, "\n")); /* once, and not by the far side as well */
	close(l);
	all_is_over(-1);
}
END_TEST

/* In other letters it is not the word that relay knows: a child looks it up. */
START_TEST(a_listener_there_may_have_a_name)
{
	struct addrinfo *list;

	if (getaddrinfo("Localhost", NULL, NULL, &list) != 0)
		return;
	freeaddrinfo(list);
	begin();
	listen_there("Localhost:0", "127.0.0.1:1");
	ck_assert_int_eq(f.state, FORWARD_STANDS);
	all_wait();
	TURN_UNTIL(kids.first == NULL);
	line_dies(0);
	ck_assert_int_eq(fds_open(), fds);
}
END_TEST

/* A label of 64 letters: no name server is asked for it. */
START_TEST(a_listener_of_an_unknown_name_is_refused_and_told)
{
	begin();
	listen_there("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx:0", "127.0.0.1:1");
	ck_assert_int_eq(f.state, FORWARD_REFUSED);
	HAS(captured(), "relay: node: cannot listen on xxx");
	TURN_UNTIL(kids.first == NULL);
	all_is_over(0);
}
END_TEST

/* The stream or the line ends during the look-up: its child is ended. 0: by a reset, 1: by its end, 2: the line */
START_TEST(a_look_up_ends_with_its_stream)
{
	struct stream *s;

	begin();
	signal(SIGTERM, SIG_DFL); /* Check's handler would end this test with the child */
	ck_assert(forward_parse(&f, FORWARD_FAR, "Localhost:0:127.0.0.1:1", why, sizeof(why)));
	ck_assert(leg_remote(&near, &f, ps.now));
	while (cross())
		;
	pollset_begin(&ps);
	leg_accept(&far, ps.now);
	leg_step(&far, &ps);
	ck_assert_ptr_nonnull(kids.first);
	ck_assert_uint_eq(far.aside, 1);
	s = near_link.table[f.stream / 2];
	if (_i == 0) {
		link_close(&near_link, s, LINK_RESET, "");
	} else if (_i == 1) {
		s->out.state = HALF_DRAIN;
		link_ready(&near_link, s);
	} else {
		line_dies(0);
		UNTIL(kids.first == NULL, { pollset_begin(&ps); spawn_turn(&kids, &ps); spawn_reap(&kids); });
		return;
	}
	while (cross())
		;
	leg_step(&far, &ps);
	leg_sweep(&far, &ps);
	ck_assert_uint_eq(far.n, 0);
	TURN_UNTIL(kids.first == NULL);
	all_is_over(0);
	ck_assert_int_eq(f.state, FORWARD_REFUSED);
}
END_TEST

START_TEST(a_socket_file_there_goes_with_its_listener)
{
	int fd;
	struct sockaddr_un sa = { .sun_family = AF_UNIX, .sun_path = "app.sock" };

	begin();
	listen_there("./app.sock", "./missing");
	ck_assert_int_eq(f.state, FORWARD_STANDS);
	ck_assert_str_eq(f.bound, "./app.sock\n\n");
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	if (_i == 0)
		ends(fd);
	close(fd);
	line_dies(0);
	ck_assert_int_eq(access("app.sock", F_OK), -1);
}
END_TEST

START_TEST(the_longest_path_there_is_told_whole)
{
	char path[SOCK_PATH_MAX], dir[110];
	size_t n = (size_t)snprintf(path, sizeof(path), "%s", own_dir);
	int i;

	memset(dir, 'd', sizeof(dir));
	dir[0] = '/';
	for (i = 0; i < 20; i++) {
		n += (size_t)snprintf(path + n, sizeof(path) - n, "%.100s", dir);
		ck_assert_int_eq(mkdir(path, 0700), 0);
	}
	snprintf(path + n, sizeof(path) - n, "/app.sock");
	begin();
	listen_there(path, "./missing");
	ck_assert_int_eq(f.state, FORWARD_STANDS);
	ck_assert_uint_eq(strlen(f.bound), strlen(path) + 2);
	line_dies(0);
	ck_assert_int_eq(access(path, F_OK), -1);
}
END_TEST

/* The stream that asked for it ends, while 8 wait and some carry. 0: by a reset, 1: by its end, 2: as 0, with a turn between. */
START_TEST(a_listener_may_end_while_others_wait)
{
	uint16_t port = 0;
	int l = tcp_listener(AF_INET, &port), a, b;
	struct stream *s;

	begin();
	listen_there("127.0.0.1:0", port_text(port));
	a = tcp_connect(AF_INET, port_there());
	b = taken(l);
	all_wait();
	s = near_link.table[f.stream / 2];
	if (_i == 1) {
		s->out.state = HALF_DRAIN;
		link_ready(&near_link, s);
	} else {
		link_close(&near_link, s, LINK_RESET, "");
	}
	if (_i == 2)
		while (cross())
			;
	TURN_UNTIL(far.aside == 0 && near.aside == 0);
	ck_assert_int_eq(f.state, FORWARD_REFUSED);
	talk(a, b); /* who was let in goes on */
	all_is_over(0);
}
END_TEST

/* One after the other, each with those that wait for it and for no other. */
START_TEST(two_listeners_keep_apart)
{
	static struct forward other;
	uint16_t port[2] = { 0, 0 }, there[2];
	int l[2] = { tcp_listener(AF_INET, &port[0]), tcp_listener(AF_INET, &port[1]) }, i, a, b;

	begin();
	listen_there("127.0.0.1:0", port_text(port[0]));
	there[0] = port_there();
	snprintf(why, sizeof(why), "127.0.0.1:0:127.0.0.1:%u", (unsigned)port[1]);
	ck_assert(forward_parse(&other, FORWARD_FAR, why, why, 0));
	other.to.each_ms = 2000;
	other.to.kids = &kids;
	ck_assert(leg_remote(&near, &other, ps.now));
	TURN_UNTIL(far.aside == 2 + 2 * WAITING);
	there[1] = (uint16_t)atoi(strchr(other.bound, ':') + 1);
	for (i = 0; i < 4; i++) {
		a = tcp_connect(AF_INET, there[i % 2]);
		b = taken(l[i % 2]);
		ck_assert_int_eq(accept(l[!(i % 2)], NULL, NULL), -1);
		talk(a, b);
	}
	link_close(&near_link, near_link.table[f.stream / 2], LINK_RESET, "");
	TURN_UNTIL(far.aside == 1 + WAITING && near.aside == 1 + WAITING);
	a = tcp_connect(AF_INET, there[1]);
	b = taken(l[1]);
	talk(a, b);
	line_dies(0);
}
END_TEST

/* The far side allows so few streams that all are in use: when they end, there is somebody to wait again. */
START_TEST(a_listener_recovers_from_a_want_of_streams)
{
	enum { FEW = 6 };
	uint16_t port = 0;
	int l = tcp_listener(AF_INET, &port), there[FEW - 1], here[FEW - 1], i, round;

	begin();
	link_free(&near_link);
	link_free(&far_link);
	link_up(FEW);
	listen_there("127.0.0.1:0", port_text(port));
	for (round = 0; round < 3; round++) {
		for (i = 0; i < FEW - 1; i++) {
			there[i] = tcp_connect(AF_INET, port_there());
			here[i] = taken(l);
		}
		for (i = 0; i < FEW - 1; i++)
			talk(there[i], here[i]);
	}
	line_dies(0);
}
END_TEST

/* ---- -R: a far side that is no friend ---- */

/* By hand: the far link answers what it likes. */
static struct stream *
ask_a_stranger(void)
{
	struct stream *s;

	ck_assert(forward_parse(&f, FORWARD_FAR, "8888:node:80", why, sizeof(why)));
	ck_assert(leg_remote(&near, &f, ps.now));
	while (cross())
		;
	s = link_next(&far_link);
	ck_assert_str_eq(s->words, "=listen 8888");
	s->user = &f;
	link_opened(&far_link, s);
	return s;
}

static void
stranger_says(struct stream *s, const char *text)
{
	ck_assert(buf_put(&s->out.buf, text, strlen(text)));
	link_ready(&far_link, s);
	while (cross())
		;
	pollset_begin(&ps);
	leg_step(&near, &ps);
	leg_sweep(&near, &ps);
}

START_TEST(addresses_without_end_are_refused)
{
	struct stream *s;
	int i;

	begin();
	s = ask_a_stranger();
	for (i = 0; i < 6000 && f.state == FORWARD_ASKS; i++)
		stranger_says(s, _i == 0 ? "x" : "a line\n");
	ck_assert_int_eq(f.state, FORWARD_REFUSED);
	ck_assert_uint_eq(near.n, 0);
	ck_assert_uint_lt(strlen(f.bound), sizeof(f.bound));
}
END_TEST

/* They are printed where a program or a terminal reads them. */
START_TEST(addresses_steer_no_terminal)
{
	struct stream *s;
	const char *p;

	begin();
	s = ask_a_stranger();
	stranger_says(s, "\033]0;you\007:80\n[::1]:80\r\n\n");
	ck_assert_int_eq(f.state, FORWARD_STANDS);
	for (p = f.bound; *p != '\0'; p++)
		ck_assert_msg(*p >= ' ' || *p == '\n', "%d in the addresses", *p);
	HAS(f.bound, "[::1]:80");
}
END_TEST

START_TEST(addresses_come_in_pieces)
{
	struct stream *s;

	begin();
	s = ask_a_stranger();
	stranger_says(s, "127.0.0.1:80\n");
	ck_assert_int_eq(f.state, FORWARD_ASKS);
	stranger_says(s, "[::1]:80");
	stranger_says(s, "\n");
	ck_assert_int_eq(f.state, FORWARD_ASKS);
	ck_assert_uint_eq(near.n, 1);
	stranger_says(s, "\n");
	ck_assert_int_eq(f.state, FORWARD_STANDS);
	ck_assert_str_eq(f.bound, "127.0.0.1:80\n[::1]:80\n\n");
	ck_assert_uint_eq(near.n, 1 + WAITING);
	/* Then it ends. */
	s->out.state = HALF_DRAIN;
	stranger_says(s, "");
	ck_assert_int_eq(f.state, FORWARD_REFUSED);
}
END_TEST

/* ---- who may connect there ---- */

/* Another user, where we are root; with -a it is let in. */
START_TEST(another_user_of_the_far_host_is_not_let_in)
{
	uint16_t port = 0;
	int l = tcp_listener(AF_INET, &port), fd;
	pid_t pid;

	if (geteuid() != 0 || RELAY_POSIX) {
		printf("skipped: needs root, and what POSIX lacks\n");
		return;
	}
	begin();
	far.anybody = _i == 1;
	listen_there("127.0.0.1:0", port_text(port));
	pid = fork();
	if (pid == 0) {
		if (setuid(65534) == -1)
			_exit(1);
		fd = tcp_connect(AF_INET, port_there());
		pause();
		_exit(fd);
	}
	if (_i == 1) {
		close(taken(l));
	} else {
		TURN_UNTIL(*captured() != '\0');
		settle();
		ck_assert_int_eq(accept(l, NULL, NULL), -1);
		ck_assert_uint_eq(near.n, near.aside);
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	line_dies(0);
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

/* 0: as a client should, 1: all at once and more, 2: byte by byte */
START_TEST(a_client_of_the_proxy_gets_through)
{
	uint16_t port = 0;
	int l = tcp_listener(AF_INET, &port), a, b;
	char text[32];
	size_t n = request(text, port), i;

	begin();
	a = new_socks();
	if (_i == 0) {
		says(a, text, 3);
		comes(a, CONNECTED, 2);
		says(a, text + 3, n - 3);
	} else if (_i == 1) {
		memcpy(text + n, "early", 5);
		says(a, text, n + 5);
	} else {
		for (i = 0; i < n; i++) {
			says(a, text + i, 1);
			settle();
		}
	}
	b = taken(l);
	comes(a, &CONNECTED[_i == 0 ? 2 : 0], _i == 0 ? 10 : 12);
	if (_i == 1)
		comes(b, "early", 5);
	talk(a, b);
	all_is_over(0);
}
END_TEST

START_TEST(a_client_of_version_4_gets_through)
{
	uint16_t port = 0;
	int l = tcp_listener(AF_INET, &port), a, b;
	char text[] = "\4\1??\0\0\0\1me\0localhost";

	begin();
	text[2] = (char)(port >> 8);
	text[3] = (char)port;
	a = new_socks();
	says(a, text, sizeof(text));
	b = taken(l);
	comes(a, "\0\132\0\0\0\0\0\0", 8);
	talk(a, b);
	all_is_over(0);
}
END_TEST

START_TEST(a_client_whose_target_is_not_there_is_told)
{
	char text[32];
	size_t n = request(text, free_port());
	int a;

	begin();
	a = new_socks();
	says(a, text, n);
	comes(a, "\5\0\5\5\0\1\0\0\0\0\0\0", 12);
	ends(a);
	close(a);
	all_is_over(0);
}
END_TEST

START_TEST(a_client_that_asks_for_nonsense_is_told)
{
	static const struct {
		const char *p, *answer;
		size_t n, answer_n;
	} bad[] = { { "GET / HTTP/1.0\r\n\r\n", "", 18, 0 }, { "\5\1\2", "\5\377", 3, 2 },
		{ "\5\1\0\5\2\0\1\1\1\1\1\0\120", "\5\0\5\7\0\1\0\0\0\0\0\0", 13, 12 },
		{ "\4\2\0\120\1\1\1\1", "\0\133\0\0\0\0\0\0", 9, 8 } };
	char c;
	int a;

	begin();
	a = new_socks();
	says(a, bad[_i].p, bad[_i].n);
	comes(a, bad[_i].answer, bad[_i].answer_n);
	TURN_UNTIL(read(a, &c, 1) == 0 || errno == ECONNRESET);
	close(a);
	all_is_over(0);
}
END_TEST

/* It goes away: having said nothing, half a request, all of it, with a half-close. */
START_TEST(a_client_that_goes_away_is_forgotten)
{
	char text[32];
	size_t n = request(text, kept_deaf_port());
	int a;

	begin();
	rule.each_ms = 60000;
	a = new_socks();
	if (_i > 0)
		says(a, text, _i == 1 ? 8 : n);
	if (_i == 2)
		TURN_UNTIL(far.n == 1);
	settle();
	if (_i == 3)
		shutdown(a, SHUT_WR);
	else
		reset(a);
	if (_i == 3) {
		settle();
		ck_assert_uint_eq(near.n, 1); /* it only ended its own direction */
		reset(a);
	}
	all_is_over(0);
}
END_TEST

/* Nothing, or half a request, said before the line died: it may go on when there is a line again. */
START_TEST(a_client_that_has_not_asked_outlives_the_line)
{
	uint16_t port = 0;
	int l = tcp_listener(AF_INET, &port), a, b;
	char text[32];
	size_t n = request(text, port), half = (size_t)_i;

	begin();
	a = new_socks();
	says(a, text, half);
	settle();
	line_dies(1);
	link_begin(LINK_STREAMS);
	says(a, text + half, n - half);
	settle(); /* it waits until there is one */
	cut = false;
	b = taken(l);
	comes(a, CONNECTED, 12);
	talk(a, b);
	all_is_over(0);
}
END_TEST

/* ---- probes ---- */

START_TEST(a_probe_finds_its_target_and_leaves_it)
{
	uint16_t port = 0;
	int l = tcp_listener(AF_INET, &port), b;
	char text[64];

	begin();
	snprintf(text, sizeof(text), "1:%s", port_text(port));
	ck_assert(forward_parse(&f, FORWARD_NEAR, text, why, sizeof(why)));
	ck_assert(leg_probe(&near, &f, ps.now));
	ck_assert_int_eq(f.state, FORWARD_ASKS);
	b = taken(l);
	if (_i == 1)
		says(b, "220 hello\r\n", 11); /* those who speak first */
	ends(b);
	settle();
	ck_assert_int_eq(os_error(b), 0); /* no reset came behind it */
	close(b);
	TURN_UNTIL(f.state == FORWARD_STANDS);
	all_is_over(0);
	ck_assert_int_eq(status, STATUS_OK);
}
END_TEST

START_TEST(a_probe_without_a_target_is_refused)
{
	begin();
	ck_assert(forward_parse(&f, FORWARD_NEAR, "1:./missing", why, sizeof(why)));
	ck_assert(leg_probe(&near, &f, ps.now));
	TURN_UNTIL(f.state != FORWARD_ASKS);
	ck_assert_int_eq(f.state, FORWARD_REFUSED);
	HAS(captured(), "./missing");
	all_is_over(0);
}
END_TEST

START_TEST(a_probe_waits_as_long_as_the_far_side_does)
{
	int l, b;

	begin();
	rule.wait_ms = 10000;
	ck_assert(forward_parse(&f, FORWARD_NEAR, "1:./soon", why, sizeof(why)));
	ck_assert(leg_probe(&near, &f, ps.now));
	settle();
	ck_assert_int_eq(f.state, FORWARD_ASKS);
	l = unix_listener("soon", SOCK_STREAM, 4);
	b = taken(l);
	ends(b);
	close(b);
	close(l);
	unlink("soon");
	TURN_UNTIL(f.state == FORWARD_STANDS);
	all_is_over(0);
}
END_TEST

/* ---- the line dies, in every phase ---- */

START_TEST(the_line_may_die_while_a_leg_is_joined)
{
	uint16_t port = 0;
	int l = tcp_listener(AF_INET, &port), a, b;
	static char bulk[300000];

	begin();
	a = new_leg(port_text(port));
	b = taken(l);
	if (_i > 0) {
		TURN_UNTIL(write(a, bulk, sizeof(bulk)) == -1);
		TURN_UNTIL(write(b, bulk, sizeof(bulk)) == -1);
	}
	if (_i == 2) {
		shutdown(a, SHUT_WR);
		settle();
	}
	line_dies(0);
	while (read(a, bulk, sizeof(bulk)) > 0)
		;
	ck_assert_int_eq(errno, ECONNRESET);
	while (read(b, bulk, sizeof(bulk)) > 0)
		;
	ck_assert_int_eq(errno, ECONNRESET);
	close(a);
	close(b);
	buf_trim();
	ck_assert_int_eq(fds_open(), fds);
}
END_TEST

/* 0: at once, 1: when the far side dials, 2: the same for a client of the proxy, 3: a probe, 4: a -R that nobody has answered */
START_TEST(the_line_may_die_before_anything_stands)
{
	uint16_t port = kept_deaf_port();
	char text[64];
	size_t n = request(text, port);
	int a = -1;

	begin();
	if (_i < 2) {
		a = new_leg(port_text(port));
		if (_i == 1)
			TURN_UNTIL(far.n == 1);
	} else if (_i == 2) {
		a = new_socks();
		says(a, text, n);
		TURN_UNTIL(far.n == 1);
		comes(a, "\5\0", 2);
	} else {
		snprintf(text, sizeof(text), "0:%s", port_text(port));
		ck_assert(forward_parse(&f, _i == 3 ? FORWARD_NEAR : FORWARD_FAR, text, why, sizeof(why)));
		ck_assert(_i == 3 ? leg_probe(&near, &f, ps.now) : leg_remote(&near, &f, ps.now));
		if (_i == 3)
			TURN_UNTIL(far.n == 1);
	}
	line_dies(0);
	if (_i == 2) {
		ck_assert_int_eq(read(a, text, 64), 10);
		ck_assert_mem_eq(text, "\5\1\0\1\0\0\0\0\0\0", 10);
		ck_assert_int_eq(read(a, text, 64), 0);
	} else if (_i < 2) {
		ck_assert_int_eq(read(a, text, 1), -1);
		ck_assert_int_eq(errno, ECONNRESET);
	} else {
		ck_assert_int_eq(f.state, FORWARD_REFUSED);
	}
	close(a);
	ck_assert_str_eq(captured(), ""); /* the link tells of its own end */
	ck_assert_int_eq(fds_open(), fds);
}
END_TEST

/* Somebody is connected there, and here the target is being dialled. */
START_TEST(the_line_may_die_while_the_near_side_dials)
{
	uint16_t port = kept_deaf_port();
	char c;
	int fd;

	begin();
	listen_there("127.0.0.1:0", port_text(port));
	fd = tcp_connect(AF_INET, port_there());
	TURN_UNTIL(near.n - near.aside == 1 && far.n - far.aside == 1);
	all_wait();
	line_dies(0);
	ck_assert_int_eq(read(fd, &c, 1), -1);
	ck_assert_int_eq(errno, ECONNRESET);
	close(fd);
	ck_assert_int_eq(fds_open(), fds);
}
END_TEST

/* After any number of turns from the start of a -R, with connections coming. */
START_TEST(the_line_may_die_at_any_turn)
{
	uint16_t port = 0, there;
	int l = tcp_listener(AF_INET, &port), fd = -1, b, i;

	begin();
	there = free_port();
	ck_assert(forward_parse(&f, FORWARD_FAR, (snprintf(why, sizeof(why), "127.0.0.1:%u:127.0.0.1:%u", there, port), why), why, 0));
	f.to.each_ms = 2000;
	f.to.kids = &kids;
	ck_assert(leg_remote(&near, &f, ps.now));
	for (i = 0; i < _i; i++) {
		turn();
		if (fd == -1 && f.state == FORWARD_STANDS)
			fd = tcp_connect(AF_INET, there);
		if ((b = accept(l, NULL, NULL)) != -1)
			close(b);
	}
	line_dies(0);
	if (fd != -1)
		close(fd);
	ck_assert_int_eq(fds_open(), fds);
}
END_TEST

START_TEST(a_table_tells_of_legs_that_carry)
{
	uint16_t port = 0;
	int l = tcp_listener(AF_INET, &port), a, b;
	char want[64];

	begin();
	listen_there("127.0.0.1:0", port_text(port));
	a = new_leg(port_text(port));
	b = taken(l);
	says(a, "12345", 5);
	comes(b, "12345", 5);
	settle();
	capture();
	leg_table(&near);
	snprintf(want, sizeof(want), "] -> %s: 5 bytes out, 0 in\n", port_text(port));
	HAS(captured(), "relay: link to node: 1 open stream\n");
	HAS(captured(), want);
	ck_assert_ptr_eq(strrchr(captured(), '['), strchr(captured(), '['));
	close(a);
	close(b);
	line_dies(0);
}
END_TEST

TESTS("leg")
{
	tcase_set_timeout(tc, 30);
	tcase_add_unchecked_fixture(tc, enter_dir, leave_dir);
	tcase_add_test(tc, a_leg_reaches_its_target);
	tcase_add_loop_test(tc, a_target_that_is_not_reached_resets_its_leg_and_is_told, 0, (int)(sizeof(unreached) / sizeof(unreached[0])));
	tcase_add_test(tc, a_refusal_comes_from_the_far_side);
	tcase_add_loop_test(tc, a_reset_goes_through_both_ways, 0, 2);
	tcase_add_loop_test(tc, a_far_end_with_a_target_of_its_own_goes_nowhere_else, 0, 5);
	tcase_add_test(tc, without_a_link_there_is_no_leg);
	tcase_add_test(tc, a_listener_there_stands_and_waits);
	tcase_add_test(tc, both_loopbacks_are_told_a_line_each);
	tcase_add_loop_test(tc, who_connects_there_is_served_here, 0, 2);
	tcase_add_test(tc, what_goes_to_an_unreached_target_here_is_reset_there);
	tcase_add_loop_test(tc, a_listener_that_cannot_be_is_refused_and_told, 0, 3);
	tcase_add_test(tc, a_listener_there_may_have_a_name);
	tcase_add_test(tc, a_listener_of_an_unknown_name_is_refused_and_told);
	tcase_add_loop_test(tc, a_look_up_ends_with_its_stream, 0, 3);
	tcase_add_loop_test(tc, a_socket_file_there_goes_with_its_listener, 0, 2);
	tcase_add_test(tc, the_longest_path_there_is_told_whole);
	tcase_add_loop_test(tc, a_listener_may_end_while_others_wait, 0, 3);
	tcase_add_test(tc, two_listeners_keep_apart);
	tcase_add_test(tc, a_listener_recovers_from_a_want_of_streams);
	tcase_add_loop_test(tc, addresses_without_end_are_refused, 0, 2);
	tcase_add_test(tc, addresses_steer_no_terminal);
	tcase_add_test(tc, addresses_come_in_pieces);
	tcase_add_loop_test(tc, another_user_of_the_far_host_is_not_let_in, 0, 2);
	tcase_add_loop_test(tc, a_client_of_the_proxy_gets_through, 0, 3);
	tcase_add_test(tc, a_client_of_version_4_gets_through);
	tcase_add_test(tc, a_client_whose_target_is_not_there_is_told);
	tcase_add_loop_test(tc, a_client_that_asks_for_nonsense_is_told, 0, 4);
	tcase_add_loop_test(tc, a_client_that_goes_away_is_forgotten, 0, 4);
	tcase_add_loop_test(tc, a_client_that_has_not_asked_outlives_the_line, 0, 13);
	tcase_add_loop_test(tc, a_probe_finds_its_target_and_leaves_it, 0, 2);
	tcase_add_test(tc, a_probe_without_a_target_is_refused);
	tcase_add_test(tc, a_probe_waits_as_long_as_the_far_side_does);
	tcase_add_loop_test(tc, the_line_may_die_while_a_leg_is_joined, 0, 3);
	tcase_add_loop_test(tc, the_line_may_die_before_anything_stands, 0, 5);
	tcase_add_test(tc, the_line_may_die_while_the_near_side_dials);
	tcase_add_loop_test(tc, the_line_may_die_at_any_turn, 0, 40);
	tcase_add_test(tc, a_table_tells_of_legs_that_carry);
}
