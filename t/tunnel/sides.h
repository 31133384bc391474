/* sides.h - the near and the far side of a link in one process, without a transport. */
#ifndef T_TUNNEL_SIDES_H
#define T_TUNNEL_SIDES_H
#include "t/link.h"
#include "t/net.h"
#include "tunnel/probe.h"
#include "tunnel/remote.h"
#include "tunnel/serve.h"

static struct conns near_conns, far_conns;
static struct remotes *near_remotes, *far_remotes;
static struct probes probes;    /* near */
static struct dial_target rule; /* of the far side */
static struct serve *serve;

/* To be set before begin(). */
static bool any_uid, only_target; /* of the far side */
static struct command *command;   /* the same; NULL: it runs none */

static struct children kids;
static struct pollset ps;
static char why[512];
static int fds; /* open at the beginning */

static inline void step_near(void)
{
	if (link_near != NULL)
		conn_take_dirty(&near_conns, link_near, ps.now);
	remote_step(near_remotes, &ps);
	probe_step(&probes);
	conn_step(&near_conns, &ps);
	conn_sweep(&near_conns, &ps);
}

static inline void step_far(void)
{
	if (link_far != NULL) {
		serve_streams(serve, link_far, ps.now);
		conn_take_dirty(&far_conns, link_far, ps.now);
	}
	remote_step(far_remotes, &ps);
	conn_step(&far_conns, &ps);
	conn_sweep(&far_conns, &ps);
}

static inline void turn(void)
{
	static bool moved;

	pollset_begin(&ps);
	spawn_turn(&kids, &ps);
	conn_want(&near_conns, &ps);
	conn_want(&far_conns, &ps);
	remote_want(near_remotes, &ps);
	remote_want(far_remotes, &ps);
	pollset_until(&ps, moved ? 0 : ps.now + 2000);
	ck_assert_int_eq(pollset_wait(&ps), 0);
	spawn_reap(&kids);
	step_near();
	step_far();
	moved = link_cross(ps.now);
}

#define TURN_UNTIL(cond) UNTIL(cond, turn())

/* Enough turns for everything that can happen. */
static inline void run(void)
{
	int i;

	for (i = 0; i < 20; i++)
		turn();
}

static inline void cross(void)
{
	while (link_cross(pollset_clock()))
		;
}

static inline void begin(void)
{
	uid_t uid;
	int fd[2];
	struct sockaddr_storage peer, own;
	socklen_t len = sizeof(peer);

	signal(SIGPIPE, SIG_IGN);
	capture();
	tcp_pair(fd);
	getpeername(fd[0], (struct sockaddr *)&peer, &len);
	getsockname(fd[0], (struct sockaddr *)&own, &len);
	os_peer_uid((struct sockaddr *)&peer, (struct sockaddr *)&own, &uid); /* opens a socket that it keeps */
	close(fd[0]);
	close(fd[1]);
	fds = fds_open();
	rule.each_us = 2000000;
	rule.kids = &kids;
	near_remotes = remote_new(&near_conns, &rule, false);
	far_remotes = remote_new(&far_conns, &rule, any_uid);
	serve = serve_new(&far_conns, far_remotes, &rule, only_target, command);
	link_up(MUX_STREAMS, pollset_clock());
}

static inline void nothing_is_left(void)
{
	ck_assert_ptr_null(probes.first);
	ck_assert_uint_eq(near_conns.n + far_conns.n, 0);
	ck_assert_uint_eq(link_streams(), 0);
	ck_assert_uint_eq(link_reserved(), 0);
	link_free();
	buf_trim();
	TURN_UNTIL(kids.first == NULL);
	ck_assert_int_eq(fds_open(), fds);
}

/* All streams and connections end by themselves. */
static inline void finish(void)
{
	TURN_UNTIL(near_conns.n + far_conns.n == 0 && link_streams() == 0 && probes.first == NULL);
	ck_assert_int_eq(mux_state(link_near), MUX_UP);
	nothing_is_left();
}

/* The link is lost.  Both sides notice it and free everything. */
static inline void lose_link(void)
{
	link_held = true;
	link_cut();
	TURN_UNTIL(near_conns.n + far_conns.n == 0);
	turn();
	nothing_is_left();
}

/* ---- sockets of the test ---- */

static inline const char *port_text(uint16_t port)
{
	static char text[2][32];
	static int i;

	i = !i;
	snprintf(text[i], sizeof(text[i]), "127.0.0.1:%u", (unsigned)port);
	return text[i];
}

/* Its connections stay open. */
static inline uint16_t kept_silent_port(void)
{
	uint16_t port = silent_port();

	fds = fds_open();
	return port;
}

static inline int taken(int l)
{
	int fd;

	TURN_UNTIL((fd = accept(l, NULL, NULL)) != -1);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

static inline void comes(int fd, const char *text)
{
	char got[600];
	size_t have = 0, n = strlen(text);
	ssize_t r;

	while (have < n) {
		TURN_UNTIL((r = read(fd, got + have, n - have)) != -1);
		ck_assert_msg(r > 0, "it ended after %zu bytes", have);
		have += (size_t)r;
	}
	ck_assert_mem_eq(got, text, n);
}

static inline void put(int fd, const char *text)
{
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

static inline void ends(int fd)
{
	char c;
	ssize_t r;

	TURN_UNTIL((r = read(fd, &c, 1)) != -1 || errno != EAGAIN);
	ck_assert_int_eq(r, 0);
}

static inline void is_reset(int fd)
{
	char c;

	TURN_UNTIL(read(fd, &c, 1) == -1 && errno != EAGAIN);
	ck_assert_int_eq(errno, ECONNRESET);
}

/* Send both ways, and end both cleanly. */
static inline void talk(int a, int b)
{
	put(a, "ping");
	comes(b, "ping");
	put(b, "pong");
	comes(a, "pong");
	shutdown(a, SHUT_WR);
	ends(b);
	put(b, "late");
	comes(a, "late");
	shutdown(b, SHUT_WR);
	ends(a);
	close(a);
	close(b);
}

/* ---- streams of the test ---- */

static inline struct stream *open_stream(const char *text)
{
	struct stream *s = mux_open(link_near, text);

	ck_assert_ptr_nonnull(s);
	return s;
}

static inline void put_stream(struct stream *s, const char *text)
{
	ck_assert(buf_put(stream_tx(s), text, strlen(text)));
	stream_push(s);
}

static inline void comes_by(struct stream *s, const char *text)
{
	char got[600];
	size_t n = strlen(text);

	TURN_UNTIL(stream_rx(s)->used >= n);
	ck_assert_uint_eq(buf_take(stream_rx(s), got, n), n);
	stream_consumed(s, n);
	ck_assert_mem_eq(got, text, n);
}

#endif
