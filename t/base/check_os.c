/*
 * check_os.c - what POSIX lacks
 *
 * OS is the name of the system's file: linux, darwin, bsd or posix.
 */
#define _XOPEN_SOURCE 700 /* posix_openpt */
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "t/net.h"

#define ON_LINUX (strcmp(OS, "linux") == 0)
#define PORTABLE (strcmp(OS, "posix") == 0)
#define OTHER_USER 65534

/* AddressSanitizer ends a process that allocates too much memory. */
#ifdef __SANITIZE_ADDRESS__
#define HAS_ASAN true
#else
#define HAS_ASAN false
#endif

static bool is_root;

/*
 * Connect to ${port} from another process, as another user if this one is root.
 * The process lives until ${hold} is closed.
 */
static void
connect_as_other_user(int family, uint16_t port, int hold[2], bool stays)
{
	char c;

	ck_assert_int_eq(pipe(hold), 0);
	if (fork() == 0) {
		int fd;

		close(hold[1]);
		if (is_root && setuid(OTHER_USER) == -1)
			_exit(1);
		fd = tcp_connect(family, port);
		if (!stays)
			close(fd);
		_exit((int)read(hold[0], &c, 1));
	}
	close(hold[0]);
}

static int
ask(int fd, const struct sockaddr_storage *peer, uid_t *uid)
{
	struct sockaddr_storage local;
	socklen_t len = sizeof(local);

	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&local, &len), 0);
	return os_peer_uid((const struct sockaddr *)peer, (struct sockaddr *)&local, uid);
}

/* ${kind} 0: IPv4, 1: IPv6, 2: IPv4 to an IPv6 socket, v4-mapped. */
START_TEST(descriptors_pass_in_a_message)
{
	int pair[2], fd[2], got[OS_FDS], n = OS_FDS;
	char text[8] = "", byte = 0;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), 0);
	ck_assert_int_eq(pipe(fd), 0);
	ck_assert_int_eq(os_send_fds(pair[0], "abc", 3, fd, 2), 3);
	ck_assert_int_eq(os_recv_fds(pair[1], text, sizeof(text), got, &n), 3);
	ck_assert_int_eq(n, 2);
	ck_assert_str_eq(text, "abc");
	ck_assert_int_eq(write(got[1], "x", 1), 1);
	ck_assert_int_eq(read(fd[0], &byte, 1), 1);
	close(got[0]);
	close(got[1]);
	/* No room for the bytes: the descriptors still belong to the caller. */
	ck_assert_int_eq(os_send_fds(pair[0], "abc", 3, fd, 1), 3);
	n = OS_FDS;
	ck_assert_int_eq(os_recv_fds(pair[1], text, 1, got, &n), -1);
	ck_assert_int_eq(n, 1);
	close(got[0]);
	/* No descriptors. */
	ck_assert_int_eq(send(pair[0], "abc", 3, 0), 3);
	n = OS_FDS;
	ck_assert_int_eq(os_recv_fds(pair[1], text, sizeof(text), got, &n), 3);
	ck_assert_int_eq(n, 0);
	close(pair[0]);
	close(pair[1]);
	close(fd[0]);
	close(fd[1]);
}
END_TEST

START_TEST(a_directory_of_mode_0700_is_own)
{
	static const struct {
		mode_t mode;
		bool own;
	} rows[] = { { 0700, true }, { 02700, true }, { 0710, false }, { 0701, false }, { 0500, false },
		{ 01700, false } };
	size_t i;

	ck_assert(!os_own_dir("none"));
	ck_assert_int_eq(mkdir("own", 0700), 0);
	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		ck_assert_int_eq(chmod("own", rows[i].mode), 0);
		ck_assert_int_eq(os_own_dir("own"), rows[i].own);
	}
	ck_assert_int_eq(chmod("own", 0700), 0);
	if (is_root) {
		ck_assert_int_eq(chown("own", OTHER_USER, OTHER_USER), 0);
		ck_assert(!os_own_dir("own"));
		ck_assert_int_eq(chown("own", 0, 0), 0);
	}
	ck_assert_int_eq(symlink("own", "link"), 0);
	ck_assert(!os_own_dir("link"));
	unlink("link");
	rmdir("own");
}
END_TEST

static int
listener(int kind, uint16_t *port)
{
	struct sockaddr_in6 any;
	socklen_t len = sizeof(any);
	int fd, off = 0;

	if (kind < 2)
		return tcp_listener(kind == 0 ? AF_INET : AF_INET6, port);
	fd = socket(AF_INET6, SOCK_STREAM, 0);
	memset(&any, 0, sizeof(any));
	any.sin6_family = AF_INET6;
	ck_assert_int_eq(inet_pton(AF_INET6, "::ffff:127.0.0.1", &any.sin6_addr), 1);
	setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&any, sizeof(any)), 0);
	ck_assert_int_eq(listen(fd, 8), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&any, &len), 0);
	*port = ntohs(any.sin6_port);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

START_TEST(the_user_of_a_connection_is_found)
{
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);
	uint16_t port = 0;
	uid_t uid = 12345;
	int hold[2], fd, l = listener(_i, &port);

	connect_as_other_user(_i == 1 ? AF_INET6 : AF_INET, port, hold, true);
	WAIT_FOR((fd = os_accept(l, (struct sockaddr *)&peer, &len)) != -1);
	if (!ON_LINUX) {
		ck_assert_int_eq(ask(fd, &peer, &uid), 0);
		return;
	}
	ck_assert_int_eq(ask(fd, &peer, &uid), 1);
	ck_assert_uint_eq(uid, is_root ? OTHER_USER : getuid());
}
END_TEST

START_TEST(no_free_descriptor_is_an_error)
{
	struct rlimit old, none;
	struct sockaddr_in in;
	uid_t uid;
	int found, e;

	memset(&in, 0, sizeof(in));
	in.sin_family = AF_INET;
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = old;
	none.rlim_cur = 0;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
	found = os_peer_uid((struct sockaddr *)&in, (struct sockaddr *)&in, &uid);
	e = errno;
	setrlimit(RLIMIT_NOFILE, &old);
	ck_assert_int_eq(found, ON_LINUX ? -1 : 0);
	if (ON_LINUX)
		ck_assert_int_eq(e, EMFILE);
}
END_TEST

START_TEST(one_is_found_among_many_connections)
{
	struct sockaddr_storage peer;
	socklen_t len;
	uint16_t port = 0;
	uid_t uid;
	int hold[2], i, fd, l = tcp_listener(AF_INET, &port);

	if (!ON_LINUX)
		return;
	for (i = 0; i < 200; i++) {
		fd = tcp_connect(AF_INET, port);
		len = sizeof(peer);
		WAIT_FOR((fd = os_accept(l, (struct sockaddr *)&peer, &len)) != -1);
		ck_assert_int_eq(ask(fd, &peer, &uid), 1);
		ck_assert_uint_eq(uid, getuid());
	}
	connect_as_other_user(AF_INET, port, hold, true);
	len = sizeof(peer);
	WAIT_FOR((fd = os_accept(l, (struct sockaddr *)&peer, &len)) != -1);
	ck_assert_int_eq(ask(fd, &peer, &uid), 1);
	ck_assert_uint_eq(uid, is_root ? OTHER_USER : getuid());
}
END_TEST

/* Linux before 6.x shows uid 0 then, which must not be taken for root. */
START_TEST(a_closed_socket_has_its_user_or_none)
{
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);
	struct pollfd p = { .events = POLLIN };
	uint16_t port = 0;
	uid_t uid = 0;
	int hold[2], l = listener(_i, &port);

	if (!ON_LINUX)
		return;
	connect_as_other_user(_i == 1 ? AF_INET6 : AF_INET, port, hold, false);
	WAIT_FOR((p.fd = os_accept(l, (struct sockaddr *)&peer, &len)) != -1);
	ck_assert_int_eq(poll(&p, 1, 5000), 1);
	if (ask(p.fd, &peer, &uid) == 1)
		ck_assert_uint_eq(uid, is_root ? OTHER_USER : getuid());
	else
		ck_assert_int_eq(errno, ENOENT);
	close(p.fd); /* neither end exists any more */
	ck_assert_int_eq(os_peer_uid((struct sockaddr *)&peer, (struct sockaddr *)&peer, &uid), -1);
	ck_assert_int_eq(errno, ENOENT);
}
END_TEST

/* uid 0 without a process may be root or any user. */
START_TEST(a_closed_socket_of_uid_0_has_no_user)
{
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);
	uint16_t port = 0;
	uid_t uid;
	int fd, l = tcp_listener(AF_INET, &port);

	if (!ON_LINUX || !is_root)
		return;
	close(tcp_connect(AF_INET, port));
	WAIT_FOR((fd = os_accept(l, (struct sockaddr *)&peer, &len)) != -1);
	ck_assert_int_eq(ask(fd, &peer, &uid), -1);
	ck_assert_int_eq(errno, ENOENT);
}
END_TEST

/* If no connection matches, the kernel returns a listener on the port. */
START_TEST(a_listener_is_not_taken_for_the_peer)
{
	struct sockaddr_storage peer, local;
	uint16_t port = 0;
	uid_t uid;

	if (!ON_LINUX)
		return;
	tcp_listener(AF_INET, &port);
	loopback(AF_INET, port, &peer);
	loopback(AF_INET, 1, &local);
	ck_assert_int_eq(
	    os_peer_uid((struct sockaddr *)&peer, (struct sockaddr *)&local, &uid), -1);
	ck_assert_int_eq(errno, ENOENT);
}
END_TEST

/* Its port may have been the port of a peer that has closed. */
START_TEST(a_socket_that_still_connects_is_not_the_peer)
{
	struct sockaddr_storage peer, local;
	socklen_t len = loopback(AF_INET, silent_port(), &local);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	uid_t uid;

	if (!ON_LINUX)
		return;
	fcntl(fd, F_SETFL, O_NONBLOCK);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&local, len), -1);
	ck_assert_int_eq(errno, EINPROGRESS);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&peer, &len), 0);
	ck_assert_int_eq(
	    os_peer_uid((struct sockaddr *)&peer, (struct sockaddr *)&local, &uid), -1);
	ck_assert_int_eq(errno, ENOENT);
}
END_TEST

START_TEST(addresses_of_two_families_are_an_error)
{
	struct sockaddr_storage peer, local;
	uid_t uid;

	if (!ON_LINUX)
		return;
	loopback(AF_INET, 1, &peer);
	loopback(AF_INET6, 1, &local);
	ck_assert_int_eq(
	    os_peer_uid((struct sockaddr *)&peer, (struct sockaddr *)&local, &uid), -1);
}
END_TEST

/* 0: IPv4, 1: IPv6 */
START_TEST(a_port_is_unused_if_no_socket_listens_on_it)
{
	uint16_t port = 0;
	int family = _i == 0 ? AF_INET : AF_INET6, l = tcp_bound(family, &port), open, fd;

	open = fds_open();
	ck_assert_int_eq(os_port_is_unused(port), ON_LINUX);
	ck_assert_int_eq(listen(l, 1), 0);
	ck_assert(!os_port_is_unused(port));
	ck_assert_int_eq(fds_open(), open);
	tcp_connect(family, port);
	fd = accept(l, NULL, NULL);
	close(l);
	ck_assert_int_eq(os_port_is_unused(port), ON_LINUX);
	close(fd);
}
END_TEST

START_TEST(the_user_of_a_unix_socket_is_found)
{
	uid_t uid = OTHER_USER;
	int fd[2], file;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	ck_assert_int_eq(os_unix_uid(fd[0], &uid), !PORTABLE);
	ck_assert_uint_eq(uid, PORTABLE ? OTHER_USER : geteuid());
	file = open("/dev/null", O_RDONLY);
	ck_assert_int_eq(os_unix_uid(file, &uid), PORTABLE ? 0 : -1);
}
END_TEST

START_TEST(setup_makes_nonblocking_and_close_on_exec_and_keeps_other_flags)
{
	int fd = open("/dev/null", O_WRONLY | O_APPEND);

	ck_assert_int_eq(os_setup(fd), 0);
	ck_assert(nonblocking(fd) && cloexec(fd));
	ck_assert_int_ne(fcntl(fd, F_GETFL) & O_APPEND, 0);
	ck_assert_int_eq(fcntl(fd, F_GETFL) & O_ACCMODE, O_WRONLY);
	close(fd);
	ck_assert_int_eq(os_setup(fd), -1);
	ck_assert_int_eq(errno, EBADF);
}
END_TEST

START_TEST(new_sockets_are_nonblocking_and_close_on_exec)
{
	static const int families[] = { AF_INET, AF_INET6, AF_UNIX };
	int fd = os_socket(families[_i]);

	ck_assert(nonblocking(fd) && cloexec(fd));
}
END_TEST

START_TEST(accepted_sockets_are_nonblocking_and_close_on_exec)
{
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);
	uint16_t port = 0;
	int fd, l = tcp_listener(AF_INET, &port);

	ck_assert_int_eq(os_accept(l, (struct sockaddr *)&peer, &len), -1);
	ck_assert_int_eq(errno, EAGAIN);
	len = sizeof(peer);
	tcp_connect(AF_INET, port);
	WAIT_FOR((fd = os_accept(l, (struct sockaddr *)&peer, &len)) != -1);
	ck_assert(nonblocking(fd) && cloexec(fd));
	ck_assert_int_eq(peer.ss_family, AF_INET);
}
END_TEST

/* ${_i} 0: the form of this system, 1: the portable form. */
START_TEST(close_from_closes_that_and_all_above_and_nothing_below)
{
	int status, fd, i;
	pid_t pid = fork();

	if (pid == 0) {
		fd = fcntl(0, F_DUPFD, 40);
		fcntl(0, F_DUPFD, 41);
		fcntl(0, F_DUPFD, 200);
		_i == 0 ? os_close_from(fd + 1) : os_close_each(fd + 1);
		for (i = fd + 1; i < 1024; i++)
			if (fcntl(i, F_GETFD) != -1)
				_exit(1);
		_exit(fcntl(fd, F_GETFD) == -1 || fcntl(0, F_GETFD) == -1 ? 2 : 0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
}
END_TEST

START_TEST(the_limit_of_descriptors_is_raised_and_restored)
{
	struct rlimit r, was;

	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &was), 0);
	was.rlim_cur = 100;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &was), 0);
	os_restore_files(); /* does nothing before a raise */
	getrlimit(RLIMIT_NOFILE, &r);
	ck_assert_uint_eq(r.rlim_cur, 100);
	os_raise_files();
	getrlimit(RLIMIT_NOFILE, &r);
	ck_assert_uint_eq(r.rlim_cur, was.rlim_max);
	os_restore_files();
	getrlimit(RLIMIT_NOFILE, &r);
	ck_assert_uint_eq(r.rlim_cur, 100);
	ck_assert_uint_eq(r.rlim_max, was.rlim_max);
}
END_TEST

/* When the follower ends, the pipe that it holds has an EOF. */
START_TEST(a_follower_ends_when_its_parent_is_killed)
{
	struct pollfd p = { .events = POLLIN };
	int fd[2], status;
	pid_t parent;
	char c;

	if (!ON_LINUX)
		return;
	ck_assert_int_eq(pipe(fd), 0);
	signal(SIGTERM, SIG_DFL); /* Check's handler would end the test */
	parent = fork();
	if (parent == 0) {
		pid_t self = getpid();

		if (fork() == 0) {
			os_follow(self);
			if (write(fd[1], "f", 1) != 1)
				_exit(1);
			for (;;)
				pause();
		}
		close(fd[1]);
		for (;;)
			pause();
	}
	close(fd[1]);
	ck_assert_int_eq(read(fd[0], &c, 1), 1);
	kill(parent, SIGKILL);
	ck_assert_int_eq(waitpid(parent, &status, 0), parent);
	p.fd = fd[0];
	ck_assert_int_eq(poll(&p, 1, 5000), 1);
	ck_assert_int_eq(read(fd[0], &c, 1), 0);
}
END_TEST

START_TEST(a_follower_of_a_dead_parent_ends_at_once)
{
	int status;
	pid_t pid;

	if (!ON_LINUX)
		return;
	signal(SIGTERM, SIG_DFL);
	pid = fork();
	if (pid == 0) {
		os_follow(getpid()); /* which is not its parent */
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}
END_TEST

START_TEST(no_file_of_this_host_is_remote)
{
	ck_assert(!os_remote_file("/proc"));
	ck_assert(!os_remote_file("/no/such/file"));
}
END_TEST

START_TEST(a_splice_moves_bytes_or_fails)
{
	char got[8];
	int a[2], b[2];
	ssize_t n;

	ck_assert(pipe(a) == 0 && pipe(b) == 0);
	ck_assert_int_eq(write(a[1], "hello", 5), 5);
	n = os_splice(a[0], b[1], 100);
	if (!ON_LINUX) {
		ck_assert_int_eq(n, -1);
		return;
	}
	ck_assert_int_eq(n, 5);
	ck_assert_int_eq(read(b[0], got, sizeof(got)), 5);
	ck_assert_mem_eq(got, "hello", 5);
	ck_assert_int_eq(os_splice(a[0], b[1], 100), -1); /* both are blocking */
	ck_assert_int_eq(errno, EAGAIN);
	ck_assert_int_ge(os_pipe_size(a[0], 256 * 1024), 65536);
	ck_assert_int_le(os_pipe_size(open("/dev/null", O_RDWR), 65536), 0);
}
END_TEST

START_TEST(bytes_that_wait_for_the_peer_are_counted)
{
	static const char some[65536];
	int s[2];

	tcp_pair(s);
	ck_assert_int_eq(os_setup(s[0]), 0);
	ck_assert_uint_eq(os_unsent(s[0]), PORTABLE ? OS_UNSENT_UNKNOWN : 0);
	while (write(s[0], some, sizeof(some)) > 0)
		;
	ck_assert_uint_gt(os_unsent(s[0]), 0);
	ck_assert_uint_eq(os_unsent(-1), PORTABLE ? OS_UNSENT_UNKNOWN : 0);
}
END_TEST

START_TEST(bytes_that_wait_for_a_command_are_counted)
{
	int p[2], s[2];

	ck_assert_int_eq(pipe(p), 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
	ck_assert_int_eq(write(p[1], "abc", 3), 3);
	ck_assert_int_eq(write(s[0], "abc", 3), 3);
	if (ON_LINUX) {
		ck_assert_uint_eq(os_unsent(p[1]), 3);
		ck_assert_uint_gt(os_unsent(s[0]), 0);
	}
}
END_TEST

START_TEST(the_width_of_a_terminal_is_read)
{
	struct winsize size = { .ws_col = 77 };
	int fd = posix_openpt(O_RDWR | O_NOCTTY), p[2];

	ck_assert_int_eq(ioctl(fd, TIOCSWINSZ, &size), 0);
	ck_assert_int_eq(os_columns(fd), PORTABLE ? 0 : 77);
	ck_assert_int_eq(pipe(p), 0);
	ck_assert_int_eq(os_columns(p[0]), 0);
}
END_TEST

START_TEST(pages_are_usable_or_refused)
{
	size_t size = 65536 + 24;
	unsigned char *p[16];
	int i;

	for (i = 0; i < 16; i++) {
		p[i] = os_pages(size);
		ck_assert_ptr_nonnull(p[i]);
		ck_assert_uint_eq((uintptr_t)p[i] % sizeof(void *), 0);
		memset(p[i], i, size);
	}
	for (i = 0; i < 16; i++) {
		ck_assert(p[i][0] == i && p[i][size - 1] == i);
		os_free_pages(p[i], size);
	}
	ck_assert(HAS_ASAN || os_pages(SIZE_MAX) == NULL);
}
END_TEST

/* ---- programs ---- */

START_TEST(the_running_program_is_found)
{
	char path[4096];
	struct stat mine, found;

	ck_assert_int_eq(chdir("/"), 0);
	if (ON_LINUX) {
		ck_assert(os_self("no such name", path, sizeof(path)));
		ck_assert_int_eq(path[0], '/');
		ck_assert_str_eq(strrchr(path, '/'), "/check_os");
		ck_assert(stat("/proc/self/exe", &mine) == 0 && stat(path, &found) == 0);
		ck_assert_uint_eq(mine.st_ino, found.st_ino);
		return;
	}
	ck_assert(os_self("/opt/relay", path, sizeof(path)));
	ck_assert_str_eq(path, "/opt/relay");
	ck_assert(os_self("./relay", path, sizeof(path)));
	ck_assert_str_eq(path, "./relay");
}
END_TEST

/*
 * PATH is searched from left to right for a file that can be executed.  An
 * empty field is the working directory.
 */
START_TEST(a_program_is_found_as_a_shell_does)
{
	static const char *const paths[][2] = { { "/nowhere:%s/a:%s/b", "b/me" },
		{ "%s/b", "b/me" }, { "%s/c:%s/b", "c/me" }, { "%s/d:%s/b", "b/me" },
		{ ":/nowhere", "" },
		{ "/nowhere:", "" }, { "/nowhere::/none", "" }, { "/nowhere", NULL },
		{ "", NULL } };
	char text[256], path[4096], want[300];

	enter_dir();
	ck_assert_int_eq(
	    system("mkdir -p a b c d/me; : >a/me; : >b/me; : >c/me; : >me; chmod 755 b/me c/me me"), 0);
	snprintf(text, sizeof(text), paths[_i][0], own_dir, own_dir);
	if (_i == 8)
		unsetenv("PATH");
	else
		setenv("PATH", text, 1);
	ck_assert_int_eq(os_find_program("me", path, sizeof(path)), paths[_i][1] != NULL);
	if (paths[_i][1] != NULL) {
		snprintf(want, sizeof(want), "%s/%s", _i < 4 ? own_dir : ".",
		    _i < 4 ? paths[_i][1] : "me");
		ck_assert_str_eq(path, want);
	}
	setenv("PATH", "/usr/bin:/bin", 1);
	leave_dir();
}
END_TEST

START_TEST(a_path_that_has_no_room_is_not_cut)
{
	char path[4096], whole[4096];
	size_t size;
	const char *name = "/a/long/path/to/relay";

	ck_assert(os_self(name, whole, sizeof(whole)));
	for (size = 1; size < sizeof(path); size++) {
		memset(path, '#', sizeof(path));
		if (os_self(name, path, size))
			ck_assert(strcmp(path, whole) == 0 || strcmp(path, name) == 0);
		else
			ck_assert_uint_le(size, strlen(whole) + 1);
		if (size > strlen(whole) + 1)
			ck_assert_str_eq(path, whole);
	}
}
END_TEST

START_TEST(null_takes_the_place_of_stdout_when_no_descriptor_is_left)
{
	struct rlimit all, none = { 3, 3 };
	struct stat was, is;
	int out = _i == 0 ? STDOUT_FILENO : STDIN_FILENO;

	close(out);
	ck_assert(os_fill_stdio());
	ck_assert_int_eq(fstat(out, &is), 0);
	ck_assert(S_ISCHR(is.st_mode));
	ck_assert_int_eq(dup2(socket(AF_UNIX, SOCK_STREAM, 0), out), out);
	ck_assert_int_eq(fstat(out, &was), 0);
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &all), 0);
	none.rlim_max = all.rlim_max;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
	ck_assert_int_eq(open("/dev/null", O_RDWR), -1);
	ck_assert_int_eq(os_null(out), out);
	ck_assert_int_eq(fstat(out, &is), 0);
	ck_assert(S_ISCHR(is.st_mode) && !S_ISCHR(was.st_mode));
	ck_assert_int_eq(fcntl(out, F_GETFD), 0); /* a command inherits it */
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &all), 0);
}
END_TEST

/* ${_i} 0: the other process lives, 1: it was killed. */
START_TEST(a_lock_is_held_until_the_process_ends)
{
	char name[] = "/tmp/relay-lock-XXXXXX", c;
	int fd = mkstemp(name), locked[2];
	pid_t pid;

	ck_assert_int_eq(pipe(locked), 0);
	pid = fork();
	if (pid == 0) {
		if (os_lock(fd, name) == 0 && write(locked[1], "x", 1) == 1)
			pause();
		_exit(1);
	}
	ck_assert_int_eq(read(locked[0], &c, 1), 1);
	if (_i == 1) {
		ck_assert_int_eq(kill(pid, SIGKILL), 0);
		ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	}
	ck_assert_int_eq(os_lock(fd, name), _i == 0 ? -1 : 0);
	if (_i == 0)
		ck_assert_int_eq(errno, EAGAIN);
	unlink(name);
	kill(pid, SIGKILL);
}
END_TEST

/* ${_i} 0: its file was removed, 1: another file has its name. */
START_TEST(a_lock_of_a_file_without_its_name_is_stale)
{
	char name[] = "/tmp/relay-lock-XXXXXX";
	int fd = mkstemp(name);

	ck_assert_int_eq(unlink(name), 0);
	if (_i == 1)
		close(open(name, O_CREAT | O_WRONLY, 0600));
	ck_assert_int_eq(os_lock(fd, name), -1);
	ck_assert_int_eq(errno, ESTALE);
	unlink(name);
}
END_TEST

START_TEST(a_reset_is_received_and_its_error_is_taken_once)
{
	struct pollfd p = { .events = POLLIN };
	int fd[2];

	tcp_pair(fd);
	ck_assert_int_eq(os_error(fd[1]), 0);
	os_reset(fd[0]);
	ck_assert_int_eq(fcntl(fd[0], F_GETFD), -1);
	p.fd = fd[1];
	ck_assert_int_eq(poll(&p, 1, 5000), 1);
	ck_assert_int_eq(os_error(fd[1]), ECONNRESET);
	ck_assert_int_eq(os_error(fd[1]), 0);
	ck_assert_int_eq(os_error(-1), EBADF);
}
END_TEST

/* Portable: none is listed. */
START_TEST(a_child_is_listed_or_an_error)
{
	struct rlimit few, files;
	pid_t pid, found[2];
	int n;

	ck_assert_int_eq(os_children(found, 2), 0);
	pid = fork();
	if (pid == 0)
		for (;;)
			pause();
	n = os_children(found, 2);
	ck_assert(n == 0 || (n == 1 && found[0] == pid));
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &files), 0);
	few = files;
	few.rlim_cur = 0;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
	ck_assert_int_eq(os_children(found, 2), -n);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &files), 0);
	kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}
END_TEST

TESTS("os")
{
	tcase_add_test(tc, a_child_is_listed_or_an_error);
	tcase_add_test(tc, a_reset_is_received_and_its_error_is_taken_once);
	tcase_add_loop_test(tc, a_lock_is_held_until_the_process_ends, 0, 2);
	tcase_add_loop_test(tc, a_lock_of_a_file_without_its_name_is_stale, 0, 2);
	tcase_add_test(tc, pages_are_usable_or_refused);
	tcase_add_test(tc, bytes_that_wait_for_the_peer_are_counted);
	tcase_add_test(tc, bytes_that_wait_for_a_command_are_counted);
	tcase_add_test(tc, the_width_of_a_terminal_is_read);
	tcase_add_loop_test(tc, null_takes_the_place_of_stdout_when_no_descriptor_is_left, 0, 2);
	tcase_add_test(tc, the_running_program_is_found);
	tcase_add_loop_test(tc, a_program_is_found_as_a_shell_does, 0, 9);
	tcase_add_test(tc, a_path_that_has_no_room_is_not_cut);
	is_root = geteuid() == 0;
	tcase_add_loop_test(tc, the_user_of_a_connection_is_found, 0, 3);
	tcase_add_test(tc, no_free_descriptor_is_an_error);
	tcase_add_test(tc, one_is_found_among_many_connections);
	tcase_add_loop_test(tc, a_closed_socket_has_its_user_or_none, 0, 3);
	tcase_add_test(tc, a_closed_socket_of_uid_0_has_no_user);
	tcase_add_test(tc, a_listener_is_not_taken_for_the_peer);
	tcase_add_test(tc, a_socket_that_still_connects_is_not_the_peer);
	tcase_add_test(tc, addresses_of_two_families_are_an_error);
	tcase_add_loop_test(tc, a_port_is_unused_if_no_socket_listens_on_it, 0, 2);
	tcase_add_test(tc, the_user_of_a_unix_socket_is_found);
	tcase_add_test(tc, setup_makes_nonblocking_and_close_on_exec_and_keeps_other_flags);
	tcase_add_loop_test(tc, new_sockets_are_nonblocking_and_close_on_exec, 0, 3);
	tcase_add_test(tc, accepted_sockets_are_nonblocking_and_close_on_exec);
	tcase_add_loop_test(tc, close_from_closes_that_and_all_above_and_nothing_below, 0, 2);
	tcase_add_test(tc, the_limit_of_descriptors_is_raised_and_restored);
	tcase_add_test(tc, a_follower_ends_when_its_parent_is_killed);
	tcase_add_test(tc, a_follower_of_a_dead_parent_ends_at_once);
	tcase_add_test(tc, no_file_of_this_host_is_remote);
	tcase_add_test(tc, a_splice_moves_bytes_or_fails);
	tcase_add_test(tc, descriptors_pass_in_a_message);
	tcase_add_test(tc, a_directory_of_mode_0700_is_own);
}
