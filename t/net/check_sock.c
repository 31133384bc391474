/* check_sock.c - listening, addresses and paths; needs sock.o endpoint.o os.o log.o */
#include <dirent.h>
#include <netinet/tcp.h>

#include "t/net.h"

static struct listener tab[SOCK_ADDRS];

static struct endpoint
end(const char *text)
{
	struct endpoint ep;
	char why[256];

	ck_assert_msg(endpoint_parse(&ep, text, true, why, sizeof(why)), "%s", why);
	return ep;
}

static int
listen_on(const char *text)
{
	struct endpoint ep = end(text);

	return sock_listen(&ep, tab);
}

static int
connect_to(const char *path)
{
	int fd = sock_open(AF_UNIX);

	return sock_connect_path(fd, path) == 0 ? fd : -1;
}

static void
leave_dead(const char *path)
{
	close(unix_listener(path, SOCK_STREAM, 1));
}

static bool
exists(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

static int
files_in(const char *dir)
{
	DIR *d = opendir(dir);
	int n = -2; /* . and .. */

	while (readdir(d) != NULL)
		n++;
	closedir(d);
	return n;
}

/* ---- TCP ---- */

START_TEST(port_0_is_one_port_on_both_loopback_families)
{
	char v4[SOCK_NAME], v6[SOCK_NAME];
	unsigned port;

	ck_assert_int_eq(listen_on("0"), 2);
	ck_assert_int_eq(sscanf(tab[0].name, "127.0.0.1:%u", &port), 1);
	ck_assert_uint_ne(port, 0);
	snprintf(v4, sizeof(v4), "127.0.0.1:%u", port);
	snprintf(v6, sizeof(v6), "[::1]:%u", port);
	ck_assert_str_eq(tab[0].name, v4);
	ck_assert_str_eq(tab[1].name, v6);
	ck_assert(tab[0].guarded && tab[1].guarded);
	ck_assert(tab[0].path == NULL && tab[0].resume == 0);
	ck_assert(nonblocking(tab[0].fd) && cloexec(tab[0].fd) && nonblocking(tab[1].fd) && cloexec(tab[1].fd));
	close(tcp_connect(AF_INET, (uint16_t)port));
	close(tcp_connect(AF_INET6, (uint16_t)port));
}
END_TEST

START_TEST(an_address_is_listened_on_alone_and_named)
{
	static const char *const table[][2] = { { "127.0.0.1:0", "127.0.0.1:" }, { "[::1]:0", "[::1]:" },
		{ "127.0.0.2:0", "127.0.0.2:" }, { "[::ffff:127.0.0.1]:0", "[::ffff:127.0.0.1]:" } };

	ck_assert_int_eq(listen_on(table[_i][0]), 1);
	ck_assert(strncmp(tab[0].name, table[_i][1], strlen(table[_i][1])) == 0);
	ck_assert(tab[0].guarded);
}
END_TEST

START_TEST(every_address_is_not_guarded)
{
	ck_assert_int_eq(listen_on("*:0"), 2);
	ck_assert(strncmp(tab[0].name, "0.0.0.0:", 8) == 0);
	ck_assert(strncmp(tab[1].name, "[::]:", 5) == 0);
	ck_assert(!tab[0].guarded && !tab[1].guarded);
}
END_TEST

/* "On every loopback family that exists, or not at all." */
START_TEST(a_port_taken_on_one_family_is_refused_and_left_free_on_the_other)
{
	uint16_t port = 0;
	char text[16], name[SOCK_NAME];
	int before, fd = tcp_listener(_i == 0 ? AF_INET : AF_INET6, &port);

	snprintf(text, sizeof(text), "%u", (unsigned)port);
	snprintf(name, sizeof(name), _i == 0 ? "127.0.0.1:%u" : "[::1]:%u", (unsigned)port);
	capture();
	before = fds_open();
	ck_assert_int_eq(listen_on(text), -1);
	HAS(captured(), "another program has that port");
	HAS(captured(), name);
	ck_assert_int_eq(fds_open(), before);
	ck_assert_int_ne(tcp_bound(_i == 0 ? AF_INET6 : AF_INET, &port), -1);
	close(fd);
}
END_TEST

START_TEST(a_port_can_be_taken_again_at_once_after_connections)
{
	char text[16];
	unsigned port;
	int i, fd;

	ck_assert_int_eq(listen_on("0"), 2);
	ck_assert_int_eq(sscanf(tab[0].name, "127.0.0.1:%u", &port), 1);
	fd = tcp_connect(AF_INET, (uint16_t)port);
	close(accept(tab[0].fd, NULL, NULL)); /* this side closes first: TIME_WAIT is ours */
	close(fd);
	for (i = 0; i < 2; i++)
		sock_unlisten(&tab[i]);
	snprintf(text, sizeof(text), "%u", port);
	ck_assert_int_eq(listen_on(text), 2);
}
END_TEST

START_TEST(an_address_of_another_host_is_explained)
{
	capture();
	ck_assert_int_eq(listen_on("192.0.2.1:0"), -1);
	HAS(captured(), "192.0.2.1");
	HAS(captured(), "none of this host's");
}
END_TEST

START_TEST(no_descriptor_is_said_and_leaves_nothing)
{
	static const char *const texts[] = { "0", "./no-fd.sock" };
	int fd, last = -1;

	capture();
	while ((fd = dup(0)) != -1)
		last = fd;
	ck_assert_int_eq(listen_on(texts[_i]), -1);
	HAS(captured(), "Too many open files");
	close(last); /* one is free: enough for one family only, and for a lock without a socket */
	ck_assert_int_eq(listen_on(texts[_i]), -1);
	ck_assert_int_eq(dup(0), last);
	ck_assert(!exists("no-fd.sock") && !exists(".no-fd.sock.relay") && !exists(".no-fd.sock.relay-lock"));
	give_back();
}
END_TEST

/* ---- Unix ---- */

START_TEST(a_socket_file_is_0600_under_umask_0_and_the_umask_is_kept)
{
	struct stat st;

	umask(_i == 0 ? 0 : 0777);
	ck_assert_int_eq(listen_on("./mode.sock"), 1);
	ck_assert_uint_eq(umask(022), _i == 0 ? 0 : 0777);
	ck_assert_int_eq(lstat("mode.sock", &st), 0);
	ck_assert(S_ISSOCK(st.st_mode));
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	ck_assert(st.st_dev == tab[0].dev && st.st_ino == tab[0].ino);
	ck_assert(nonblocking(tab[0].fd) && cloexec(tab[0].fd) && !tab[0].guarded);
	sock_unlisten(&tab[0]);
}
END_TEST

START_TEST(unlisten_removes_the_file_and_twice_is_harmless)
{
	int fd;

	ck_assert_int_eq(listen_on("./un.sock"), 1);
	fd = tab[0].fd;
	sock_unlisten(&tab[0]);
	ck_assert(!exists("un.sock"));
	ck_assert_int_eq(tab[0].fd, -1);
	ck_assert_int_eq(fcntl(fd, F_GETFD), -1);
	leave_dead("un.sock");
	sock_unlisten(&tab[0]);
	ck_assert(exists("un.sock"));
	unlink("un.sock");
}
END_TEST

START_TEST(unlisten_leaves_a_file_that_took_its_place)
{
	ck_assert_int_eq(listen_on("./other.sock"), 1);
	unlink("other.sock");
	leave_dead("new.sock"); /* another inode while ours still exists */
	rename("new.sock", "other.sock");
	sock_unlisten(&tab[0]);
	ck_assert(exists("other.sock"));
	unlink("other.sock");
}
END_TEST

START_TEST(a_dead_socket_is_replaced_and_that_is_told)
{
	leave_dead("dead.sock");
	capture();
	ck_assert_int_eq(listen_on("./dead.sock"), 1);
	HAS(captured(), "replaced ./dead.sock");
	ck_assert_int_ne(connect_to("./dead.sock"), -1);
	sock_unlisten(&tab[0]);
}
END_TEST

START_TEST(nothing_stays_beside_a_replaced_socket)
{
	ck_assert_int_eq(mkdir("beside", 0700), 0);
	leave_dead("beside/x");
	ck_assert_int_eq(listen_on("beside/x"), 1);
	ck_assert_int_eq(files_in("beside"), 1);
	sock_unlisten(&tab[0]);
	ck_assert_int_eq(files_in("beside"), 0);
}
END_TEST

/* 0: a dead socket in a directory that is not ours; 1: a live one that is not ours */
START_TEST(a_socket_of_another_user_is_left_alone)
{
	if (geteuid() != 0)
		return; /* only root can become another user */
	ck_assert_int_eq(mkdir("theirs", 0755), 0);
	_i == 0 ? leave_dead("theirs/x") : (void)unix_listener("theirs/x", SOCK_STREAM, 1);
	ck_assert_int_eq(chmod("theirs/x", _i == 0 ? 0777 : 0600), 0);
	ck_assert_int_eq(chmod(".", 0755), 0);
	capture();
	ck_assert_int_eq(seteuid(1234), 0);
	ck_assert_int_eq(listen_on("theirs/x"), -1);
	ck_assert_int_eq(seteuid(0), 0);
	HAS(captured(), _i == 0 ? "cannot be replaced: Permission denied" : "cannot be told: Permission denied");
	ck_assert_int_eq(files_in("theirs"), 1);
	remove("theirs/x");
	remove("theirs");
}
END_TEST

/* 0: idle; 1: with a full backlog */
START_TEST(a_live_socket_is_refused_and_still_lives)
{
	int l = unix_listener(_i == 0 ? "live.sock" : "busy.sock", SOCK_STREAM, _i == 0 ? 8 : 0), fd;
	const char *path = _i == 0 ? "./live.sock" : "./busy.sock";

	if (_i == 1)
		while (connect_to(path) != -1)
			;
	capture();
	ck_assert_int_eq(listen_on(path), -1);
	HAS(captured(), "in use");
	HAS_NOT(captured(), "replaced");
	while ((fd = accept(l, NULL, NULL)) != -1)
		close(fd);
	ck_assert_int_ne(connect_to(path), -1);
	ck_assert_int_ne(accept(l, NULL, NULL), -1);
	unlink(path);
}
END_TEST

START_TEST(a_live_datagram_socket_is_refused)
{
	unix_listener("dgram.sock", SOCK_DGRAM, 0);
	capture();
	ck_assert_int_eq(listen_on("./dgram.sock"), -1);
	HAS(captured(), "in use");
	ck_assert(exists("dgram.sock"));
	unlink("dgram.sock");
}
END_TEST

/* 0: file, 1: directory, 2: symlink to a dead socket, 3: dangling symlink */
START_TEST(what_is_no_socket_is_refused_and_left_alone)
{
	struct stat before, after;

	if (_i == 0)
		close(open("thing", O_CREAT | O_WRONLY, 0600));
	else if (_i == 1)
		mkdir("thing", 0700);
	else
		ck_assert_int_eq(symlink("target", "thing"), 0);
	if (_i == 2)
		leave_dead("target");
	lstat("thing", &before);
	capture();
	ck_assert_int_eq(listen_on("./thing"), -1);
	HAS(captured(), "not a socket");
	ck_assert_int_eq(lstat("thing", &after), 0);
	ck_assert(before.st_ino == after.st_ino);
	if (_i == 2)
		ck_assert(exists("target"));
	remove("thing");
	remove("target");
}
END_TEST

START_TEST(a_missing_directory_is_said)
{
	int before;

	capture();
	before = fds_open();
	ck_assert_int_eq(listen_on("./no/such.sock"), -1);
	HAS(captured(), "cannot listen on ./no/such.sock: No such file or directory");
	ck_assert_int_eq(fds_open(), before);
}
END_TEST

/* ---- long paths ---- */

static char *
long_path(size_t dir, size_t name)
{
	static char path[1024];

	strcpy(path, "./");
	if (dir > 0) {
		memset(path + 2, 'd', dir);
		path[2 + dir] = '\0';
		ck_assert(mkdir(path, 0700) == 0 || errno == EEXIST);
		path[2 + dir] = '/';
		dir++;
	}
	memset(path + 2 + dir, 'n', name);
	path[2 + dir + name] = '\0';
	return path;
}

static const size_t longs[][2] = { { 0, 104 }, { 0, 105 }, { 0, 106 }, { 0, 107 }, { 0, 108 }, { 0, 255 }, { 200, 5 },
	{ 200, 106 }, { 200, 107 }, { 200, 108 }, { 200, 255 }, { 255, 1 } };

START_TEST(long_paths_are_listened_on_and_reached)
{
	char here[1024], after[1024], *path = long_path(longs[_i][0], longs[_i][1]);
	int fd, before, files;
	struct stat st;

	ck_assert_ptr_nonnull(getcwd(here, sizeof(here)));
	files = files_in(".");
	before = fds_open();
	ck_assert_int_eq(listen_on(path), 1);
	ck_assert_int_eq(lstat(path, &st), 0);
	ck_assert(S_ISSOCK(st.st_mode));
	ck_assert_uint_eq(st.st_mode & 0777, 0600);
	fd = connect_to(path);
	ck_assert_int_ne(fd, -1);
	ck_assert_int_ne(accept(tab[0].fd, NULL, NULL), -1);
	ck_assert_int_eq(fds_open(), before + 3);
	ck_assert_ptr_nonnull(getcwd(after, sizeof(after)));
	ck_assert_str_eq(here, after);
	sock_unlisten(&tab[0]);
	ck_assert(!exists(path));
	ck_assert_int_eq(files_in("."), files);
	ck_assert_int_eq(connect_to(path), -1);
	ck_assert_int_eq(errno, ENOENT);
}
END_TEST

START_TEST(a_dead_socket_at_a_long_path_is_replaced)
{
	char *path = long_path(longs[_i][0], longs[_i][1]);

	capture();
	ck_assert_int_eq(listen_on(path), 1);
	close(tab[0].fd); /* dead: its file stays */
	ck_assert_msg(listen_on(path) == 1, "%s", captured());
	HAS(captured(), "replaced");
	ck_assert_int_ne(connect_to(path), -1);
	sock_unlisten(&tab[0]);
}
END_TEST

START_TEST(a_live_socket_at_a_long_path_is_refused)
{
	char *path = long_path(longs[_i][0], longs[_i][1]);
	struct listener first;

	ck_assert_int_eq(listen_on(path), 1);
	first = tab[0];
	capture();
	ck_assert_int_eq(listen_on(path), -1);
	HAS(captured(), "in use");
	ck_assert_int_ne(connect_to(path), -1);
	sock_unlisten(&first);
}
END_TEST

START_TEST(a_file_name_of_256_bytes_is_refused_with_its_cause)
{
	char *path = long_path(0, 256);

	capture();
	ck_assert_int_eq(listen_on(path), -1);
	HAS(captured(), "File name too long");
	ck_assert_int_eq(connect_to(path), -1);
	ck_assert_int_eq(errno, ENAMETOOLONG);
}
END_TEST

/* ---- accepting ---- */

START_TEST(nobody_waits_is_EAGAIN)
{
	char name[SOCK_NAME];

	ck_assert_int_ge(listen_on(_i == 0 ? "127.0.0.1:0" : "./idle.sock"), 1);
	ck_assert_int_eq(sock_accept(&tab[0], name), -1);
	ck_assert_int_eq(errno, EAGAIN);
	sock_unlisten(&tab[0]);
}
END_TEST

START_TEST(an_accepted_connection_is_named_and_in_order)
{
	int fd, c, on = 0, family = _i == 0 ? AF_INET : AF_INET6;
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	char name[SOCK_NAME], want[SOCK_NAME];

	ck_assert_int_eq(listen_on("0"), 2);
	ck_assert_int_eq(getsockname(tab[_i].fd, (struct sockaddr *)&sa, &len), 0);
	c = tcp_connect(family, ntohs(((struct sockaddr_in *)(void *)&sa)->sin_port));
	WAIT_FOR((fd = sock_accept(&tab[_i], name)) != -1);
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
	char name[SOCK_NAME] = "";
	int fd;

	ck_assert_int_eq(listen_on("./acc.sock"), 1);
	ck_assert_int_ne(connect_to("./acc.sock"), -1);
	fd = sock_accept(&tab[0], name);
	ck_assert(nonblocking(fd) && cloexec(fd));
	ck_assert_str_ne(name, "");
	sock_unlisten(&tab[0]);
}
END_TEST

/* A look-up that fails refuses: nobody holds a closed socket.  Unguarded, it is taken. */
START_TEST(a_client_that_closed_before_its_user_was_known_is_refused)
{
	struct pollfd p = { .events = POLLIN };
	char name[SOCK_NAME];
	unsigned port;

	if (!knows_users())
		return;
	ck_assert_int_eq(listen_on("127.0.0.1:0"), 1);
	tab[0].guarded = _i == 0;
	ck_assert_int_eq(sscanf(tab[0].name, "127.0.0.1:%u", &port), 1);
	capture();
	close(tcp_connect(AF_INET, (uint16_t)port));
	p.fd = tab[0].fd;
	ck_assert_int_eq(poll(&p, 1, 5000), 1);
	if (_i == 1) {
		ck_assert_int_ne(sock_accept(&tab[0], name), -1);
		return;
	}
	ck_assert_int_eq(sock_accept(&tab[0], name), -1);
	ck_assert_int_eq(errno, EACCES);
	HAS(captured(), "refused 127.0.0.1:");
}
END_TEST

/* Another user is refused with a reset and named; needs root to be one. */
START_TEST(another_user_is_refused_and_named)
{
	char name[SOCK_NAME], c;
	unsigned port;
	int told[2], fd;

	if (geteuid() != 0 || !knows_users())
		return;
	ck_assert_int_eq(listen_on("127.0.0.1:0"), 1);
	ck_assert_int_eq(sscanf(tab[0].name, "127.0.0.1:%u", &port), 1);
	ck_assert_int_eq(pipe(told), 0);
	capture();
	if (fork() == 0) {
		if (setuid(1234) == -1)
			_exit(1);
		fd = tcp_connect(AF_INET, (uint16_t)port);
		fcntl(fd, F_SETFL, 0);
		c = read(fd, &c, 1) == -1 && errno == ECONNRESET ? 'y' : 'n';
		_exit(write(told[1], &c, 1) != 1);
	}
	WAIT_FOR((fd = sock_accept(&tab[0], name)) != -1 || errno != EAGAIN);
	ck_assert_int_eq(fd, -1);
	ck_assert_int_eq(errno, EACCES);
	HAS(captured(), "uid 1234");
	ck_assert_int_eq(read(told[0], &c, 1), 1);
	ck_assert_int_eq(c, 'y');
}
END_TEST

/* ---- small ones ---- */

START_TEST(a_reset_is_seen_as_a_reset_and_taken_once)
{
	struct pollfd p = { .events = POLLIN };
	int fd[2];

	tcp_pair(fd);
	ck_assert_int_eq(os_error(fd[1]), 0);
	sock_reset(fd[0]);
	ck_assert_int_eq(fcntl(fd[0], F_GETFD), -1);
	p.fd = fd[1];
	ck_assert_int_eq(poll(&p, 1, 5000), 1);
	ck_assert_int_eq(os_error(fd[1]), ECONNRESET);
	ck_assert_int_eq(os_error(fd[1]), 0);
	ck_assert_int_eq(os_error(-1), EBADF);
}
END_TEST

START_TEST(an_open_socket_sends_small_messages_at_once)
{
	int on = 0, fd = sock_open(_i == 0 ? AF_INET : AF_INET6);
	socklen_t len = sizeof(on);

	ck_assert(nonblocking(fd) && cloexec(fd));
	ck_assert_int_eq(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &len), 0);
	ck_assert_int_ne(on, 0);
}
END_TEST

START_TEST(only_numbers_and_known_words_need_no_name_server)
{
	static const struct { const char *text; int n; } table[] = {
		{ "127.0.0.1:80", 1 }, { "[::1]:80", 1 }, { "localhost:80", 2 },
		{ "80", 2 }, { "*:80", 2 }, { "some.name:80", 0 }, { "[fe80::1%lo]:80", 1 }, { "300.0.0.1:80", 0 } };
	struct endpoint ep = end(table[_i].text);
	struct sock_addrs a;

	ck_assert_int_eq(sock_numeric(&ep, &a), table[_i].n > 0);
	ck_assert_int_eq(a.n, table[_i].n);
}
END_TEST

START_TEST(localhost_is_both_loopback_addresses_in_order)
{
	struct endpoint ep = end("8888");
	struct sockaddr_storage want;
	struct sock_addrs a;

	ck_assert_int_eq(sock_resolve(&ep, &a), 0);
	ck_assert_int_eq(a.n, 2);
	ck_assert_uint_eq(a.len[0], loopback(AF_INET, 8888, &want));
	ck_assert_mem_eq(&a.addr[0], &want, a.len[0]);
	ck_assert_uint_eq(a.len[1], loopback(AF_INET6, 8888, &want));
	ck_assert_mem_eq(&a.addr[1], &want, a.len[1]);
}
END_TEST

TESTS("sock")
{
	tcase_add_unchecked_fixture(tc, enter_dir, leave_dir);
	tcase_add_test(tc, port_0_is_one_port_on_both_loopback_families);
	tcase_add_loop_test(tc, an_address_is_listened_on_alone_and_named, 0, 4);
	tcase_add_test(tc, every_address_is_not_guarded);
	tcase_add_loop_test(tc, a_port_taken_on_one_family_is_refused_and_left_free_on_the_other, 0, 2);
	tcase_add_test(tc, a_port_can_be_taken_again_at_once_after_connections);
	tcase_add_test(tc, an_address_of_another_host_is_explained);
	tcase_add_loop_test(tc, no_descriptor_is_said_and_leaves_nothing, 0, 2);
	tcase_add_loop_test(tc, a_socket_file_is_0600_under_umask_0_and_the_umask_is_kept, 0, 2);
	tcase_add_test(tc, unlisten_removes_the_file_and_twice_is_harmless);
	tcase_add_test(tc, unlisten_leaves_a_file_that_took_its_place);
	tcase_add_test(tc, a_dead_socket_is_replaced_and_that_is_told);
	tcase_add_test(tc, nothing_stays_beside_a_replaced_socket);
	tcase_add_loop_test(tc, a_socket_of_another_user_is_left_alone, 0, 2);
	tcase_add_loop_test(tc, a_live_socket_is_refused_and_still_lives, 0, 2);
	tcase_add_test(tc, a_live_datagram_socket_is_refused);
	tcase_add_loop_test(tc, what_is_no_socket_is_refused_and_left_alone, 0, 4);
	tcase_add_test(tc, a_missing_directory_is_said);
	tcase_add_loop_test(tc, long_paths_are_listened_on_and_reached, 0, 12);
	tcase_add_loop_test(tc, a_dead_socket_at_a_long_path_is_replaced, 0, 12);
	tcase_add_loop_test(tc, a_live_socket_at_a_long_path_is_refused, 0, 12);
	tcase_add_test(tc, a_file_name_of_256_bytes_is_refused_with_its_cause);
	tcase_add_loop_test(tc, nobody_waits_is_EAGAIN, 0, 2);
	tcase_add_loop_test(tc, an_accepted_connection_is_named_and_in_order, 0, 2);
	tcase_add_test(tc, a_unix_client_is_accepted);
	tcase_add_loop_test(tc, a_client_that_closed_before_its_user_was_known_is_refused, 0, 2);
	tcase_add_test(tc, another_user_is_refused_and_named);
	tcase_add_test(tc, a_reset_is_seen_as_a_reset_and_taken_once);
	tcase_add_loop_test(tc, an_open_socket_sends_small_messages_at_once, 0, 2);
	tcase_add_loop_test(tc, only_numbers_and_known_words_need_no_name_server, 0, 8);
	tcase_add_test(tc, localhost_is_both_loopback_addresses_in_order);
}
