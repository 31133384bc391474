/* check_listen.c - listening sockets, and the connections that they accept. */
#include <netinet/tcp.h>

#include "t/net.h"

static struct listener tab[ADDR_MAX];
static char why[LISTENER_WHY];

static int
listen_on(const char *text)
{
	static struct endpoint ep;

	ck_assert_msg(endpoint_parse(&ep, text, true, why, sizeof(why)), "%s", why);
	return listener_open(&ep, NULL, LISTENER_START, tab, why, sizeof(why));
}

static unsigned
port_of(const struct listener *l)
{
	unsigned port = 0;

	ck_assert_int_eq(sscanf(strrchr(l->name, ':'), ":%u", &port), 1);
	ck_assert_uint_ne(port, 0);
	return port;
}

/* ---- listening ---- */

START_TEST(port_0_is_one_port_on_both_loopback_families)
{
	char name[ADDR_NAME];
	unsigned port;

	ck_assert_int_eq(listen_on("0"), 2);
	port = port_of(&tab[0]);
	snprintf(name, sizeof(name), "localhost:%u", port);
	ck_assert_str_eq(tab[0].name, name);
	ck_assert_str_eq(tab[1].name, name);
	ck_assert(tab[0].check_uid && tab[1].check_uid);
	ck_assert(tab[0].file.path == NULL);
	ck_assert(nonblocking(tab[0].fd) && cloexec(tab[0].fd) && nonblocking(tab[1].fd) &&
		  cloexec(tab[1].fd));
	close(tcp_connect(AF_INET, (uint16_t)port));
	close(tcp_connect(AF_INET6, (uint16_t)port));
}
END_TEST

START_TEST(an_address_is_listened_on_alone_and_named)
{
	static const char *const table[][2] = { { "127.0.0.1:0", "127.0.0.1:" },
		{ "[::1]:0", "[::1]:" }, { "127.0.0.2:0", "127.0.0.2:" },
		{ "[::ffff:127.0.0.1]:0", "[::ffff:127.0.0.1]:" } };

	ck_assert_int_eq(listen_on(table[_i][0]), 1);
	ck_assert(strncmp(tab[0].name, table[_i][1], strlen(table[_i][1])) == 0);
	ck_assert_str_eq(listener_name(&tab[0]), tab[0].name);
	ck_assert(tab[0].check_uid);
}
END_TEST

START_TEST(every_address_accepts_every_user)
{
	ck_assert_int_eq(listen_on("*:0"), 2);
	ck_assert(strncmp(tab[0].name, "*:", 2) == 0);
	ck_assert_str_eq(tab[0].name, tab[1].name);
	ck_assert(!tab[0].check_uid && !tab[1].check_uid);
}
END_TEST

START_TEST(a_port_taken_on_one_family_is_refused_and_left_free_on_the_other)
{
	uint16_t port = 0;
	char text[16], name[ADDR_NAME];
	int before, fd = tcp_listener(_i == 0 ? AF_INET : AF_INET6, &port);

	snprintf(text, sizeof(text), "%u", (unsigned)port);
	snprintf(name, sizeof(name), _i == 0 ? "127.0.0.1:%u" : "[::1]:%u", (unsigned)port);
	capture();
	before = fds_open();
	ck_assert_int_eq(listen_on(text), -1);
	HAS(why, "another program has that port");
	HAS(why, name);
	ck_assert_str_eq(captured(), ""); /* the caller logs it */
	ck_assert_int_eq(fds_open(), before);
	ck_assert_int_ne(tcp_bound(_i == 0 ? AF_INET6 : AF_INET, &port), -1);
	close(fd);
}
END_TEST

START_TEST(a_port_is_free_at_once_after_connections)
{
	char text[16];
	unsigned port;
	int i, fd;

	ck_assert_int_eq(listen_on("0"), 2);
	port = port_of(&tab[0]);
	fd = tcp_connect(AF_INET, (uint16_t)port);
	close(accept(tab[0].fd, NULL, NULL)); /* closed first, so TIME_WAIT is here */
	close(fd);
	for (i = 0; i < 2; i++)
		listener_close(&tab[i], 0);
	snprintf(text, sizeof(text), "%u", port);
	ck_assert_int_eq(listen_on(text), 2);
}
END_TEST

START_TEST(an_address_of_another_host_is_explained)
{
	ck_assert_int_eq(listen_on("192.0.2.1:0"), -1);
	HAS(why, "192.0.2.1");
	HAS(why, "this host does not have that address");
}
END_TEST

/* 0: a port below 1024, 1: a name without an address */
START_TEST(other_failures_are_explained)
{
	static const char *const table[][2] = { { "127.0.0.1:1", "choose a higher port" },
		{ "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx:80",
		    "cannot listen on xxx" } };

	if (_i == 0 && (geteuid() != 0 || seteuid(1234) == -1))
		return; /* other users need not be refused: ip_unprivileged_port_start */
	if (_i == 0 && listen_on(table[_i][0]) != -1)
		return;
	ck_assert_int_eq(listen_on(table[_i][0]), -1);
	HAS(why, table[_i][1]);
	if (_i == 0)
		ck_assert_int_eq(seteuid(0), 0); /* LeakSanitizer needs it at exit */
}
END_TEST

START_TEST(without_descriptors_it_fails_and_leaves_nothing)
{
	static const char *const texts[] = { "0", "./no-fd.sock" };
	int fd, last = -1;

	capture();
	while ((fd = dup(0)) != -1)
		last = fd;
	ck_assert_int_eq(listen_on(texts[_i]), -1);
	HAS(why, "Too many open files");
	close(last); /* one is free: enough for one address only, and for a lock without a socket */
	ck_assert_int_eq(listen_on(texts[_i]), -1);
	ck_assert_int_eq(dup(0), last);
	ck_assert_int_eq(access("no-fd.sock", F_OK), -1);
	ck_assert_int_eq(access(".no-fd.sock.relay", F_OK), -1);
	ck_assert_int_eq(access(".no-fd.sock.relay-lock", F_OK), -1);
	give_back();
}
END_TEST

START_TEST(a_unix_listener_is_named_by_its_path_and_closed_once)
{
	int fd;

	ck_assert_int_eq(listen_on("./un.sock"), 1);
	ck_assert_str_eq(listener_name(&tab[0]), "./un.sock");
	ck_assert(!tab[0].check_uid);
	fd = tab[0].fd;
	listener_close(&tab[0], 0);
	ck_assert_int_eq(access("un.sock", F_OK), -1);
	ck_assert_int_eq(tab[0].fd, -1);
	ck_assert_int_eq(fcntl(fd, F_GETFD), -1);
	close(unix_listener("un.sock", SOCK_STREAM, 1));
	listener_close(&tab[0], 0);
	ck_assert_int_eq(access("un.sock", F_OK), 0);
	unlink("un.sock");
}
END_TEST

/* ---- accepting ---- */

START_TEST(without_a_client_it_is_EAGAIN)
{
	char name[ADDR_NAME];

	ck_assert_int_ge(listen_on(_i == 0 ? "127.0.0.1:0" : "./idle.sock"), 1);
	ck_assert_int_eq(listener_accept(&tab[0], name), -1);
	ck_assert_int_eq(errno, EAGAIN);
	listener_close(&tab[0], 0);
}
END_TEST

START_TEST(an_accepted_connection_is_named_and_non_blocking)
{
	int fd, c, on = 0, family = _i == 0 ? AF_INET : AF_INET6;
	struct sockaddr_storage sa;
	socklen_t len;
	char name[ADDR_NAME], want[ADDR_NAME];

	ck_assert_int_eq(listen_on("0"), 2);
	c = tcp_connect(family, (uint16_t)port_of(&tab[_i]));
	WAIT_FOR((fd = listener_accept(&tab[_i], name)) != -1);
	len = sizeof(sa);
	ck_assert_int_eq(getsockname(c, (struct sockaddr *)&sa, &len), 0);
	snprintf(want, sizeof(want), _i == 0 ? "127.0.0.1:%u" : "[::1]:%u",
	    (unsigned)ntohs(((struct sockaddr_in *)(void *)&sa)->sin_port));
	ck_assert_str_eq(name, want);
	ck_assert(nonblocking(fd) && cloexec(fd));
	len = sizeof(on);
	ck_assert_int_eq(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &len), 0);
	ck_assert_int_ne(on, 0);
}
END_TEST

START_TEST(a_unix_client_is_accepted)
{
	char name[ADDR_NAME] = "";
	int fd, c = socket(AF_UNIX, SOCK_STREAM, 0);

	ck_assert_int_eq(listen_on("./acc.sock"), 1);
	ck_assert_int_eq(unixpath_connect(c, "./acc.sock"), 0);
	fd = listener_accept(&tab[0], name);
	ck_assert(nonblocking(fd) && cloexec(fd));
	ck_assert_str_ne(name, "");
	listener_close(&tab[0], 0);
}
END_TEST

/*
 * 0: no process has the closed socket any more, 1: the user does not matter.
 * Some kernels report the user of such a socket.  relay takes its uid 0 for none.
 */
START_TEST(a_client_that_closed_before_the_look_up_is_refused)
{
	struct pollfd p = { .events = POLLIN };
	char name[ADDR_NAME];

	if (!has_peer_uid() || (_i == 0 && geteuid() != 0))
		return;
	ck_assert_int_eq(listen_on("127.0.0.1:0"), 1);
	tab[0].check_uid = _i == 0;
	capture();
	close(tcp_connect(AF_INET, (uint16_t)port_of(&tab[0])));
	p.fd = tab[0].fd;
	ck_assert_int_eq(poll(&p, 1, 5000), 1);
	if (_i == 1) {
		ck_assert_int_ne(listener_accept(&tab[0], name), -1);
		return;
	}
	ck_assert_int_eq(listener_accept(&tab[0], name), -1);
	ck_assert_int_eq(errno, EACCES);
	HAS(captured(), "refused a client on 127.0.0.1:");
	HAS(captured(), "its user was not found");
}
END_TEST

/* Only root can become another user. */
START_TEST(another_user_gets_a_reset_and_is_named)
{
	char name[ADDR_NAME], c;
	int pipes[2], fd;

	if (geteuid() != 0 || !has_peer_uid())
		return;
	ck_assert_int_eq(listen_on("127.0.0.1:0"), 1);
	ck_assert_int_eq(pipe(pipes), 0);
	capture();
	if (fork() == 0) {
		if (setuid(1234) == -1)
			_exit(1);
		fd = tcp_connect(AF_INET, (uint16_t)port_of(&tab[0]));
		fcntl(fd, F_SETFL, 0);
		c = read(fd, &c, 1) == -1 && errno == ECONNRESET ? 'y' : 'n';
		_exit(write(pipes[1], &c, 1) != 1);
	}
	WAIT_FOR((fd = listener_accept(&tab[0], name)) != -1 || errno != EAGAIN);
	ck_assert_int_eq(fd, -1);
	ck_assert_int_eq(errno, EACCES);
	HAS(captured(), "uid 1234");
	ck_assert_int_eq(read(pipes[0], &c, 1), 1);
	ck_assert_int_eq(c, 'y');
}
END_TEST

TESTS("listen")
{
	tcase_add_unchecked_fixture(tc, enter_dir, leave_dir);
	tcase_add_test(tc, port_0_is_one_port_on_both_loopback_families);
	tcase_add_loop_test(tc, an_address_is_listened_on_alone_and_named, 0, 4);
	tcase_add_test(tc, every_address_accepts_every_user);
	tcase_add_loop_test(
	    tc, a_port_taken_on_one_family_is_refused_and_left_free_on_the_other, 0, 2);
	tcase_add_test(tc, a_port_is_free_at_once_after_connections);
	tcase_add_test(tc, an_address_of_another_host_is_explained);
	tcase_add_loop_test(tc, other_failures_are_explained, 0, 2);
	tcase_add_loop_test(tc, without_descriptors_it_fails_and_leaves_nothing, 0, 2);
	tcase_add_test(tc, a_unix_listener_is_named_by_its_path_and_closed_once);
	tcase_add_loop_test(tc, without_a_client_it_is_EAGAIN, 0, 2);
	tcase_add_loop_test(tc, an_accepted_connection_is_named_and_non_blocking, 0, 2);
	tcase_add_test(tc, a_unix_client_is_accepted);
	tcase_add_loop_test(tc, a_client_that_closed_before_the_look_up_is_refused, 0, 2);
	tcase_add_test(tc, another_user_gets_a_reset_and_is_named);
}
