/* check_unixpath.c - Unix sockets and their files. */
#include <dirent.h>

#include "t/net.h"

static struct unixpath file;
static char why[LISTENER_WHY];

static int
listen_for(const char *path, int64_t wait_us)
{
	return unixpath_listen(&file, path, wait_us, why, sizeof(why));
}

static int
listen_at(const char *path)
{
	return listen_for(path, LISTENER_START);
}

/* Remove the file and close the socket ${fd}. */
static void
end_listening(int fd)
{
	unixpath_remove(&file, LISTENER_STOP);
	close(fd);
}

/* Return a socket that is connected to ${path}, or -1. */
static int
connect_to(const char *path)
{
	int fd = os_socket(AF_UNIX);

	return unixpath_connect(fd, path) == 0 ? fd : -1;
}

/* Make a socket file on which no process listens. */
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

/* ---- socket files ---- */

START_TEST(a_socket_file_is_0600_whatever_the_umask)
{
	struct stat st;
	int fd;

	umask(_i == 0 ? 0 : 0777);
	fd = listen_at("./mode.sock");
	ck_assert_int_ne(fd, -1);
	ck_assert_uint_eq(umask(022), _i == 0 ? 0 : 0777);
	ck_assert_int_eq(lstat("mode.sock", &st), 0);
	ck_assert(S_ISSOCK(st.st_mode));
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	ck_assert(st.st_dev == file.dev && st.st_ino == file.ino);
	ck_assert(nonblocking(fd) && cloexec(fd));
	end_listening(fd);
}
END_TEST

START_TEST(a_file_that_replaced_ours_is_not_removed)
{
	int fd = listen_at("./other.sock");

	ck_assert_int_ne(fd, -1);
	unlink("other.sock");
	leave_dead("new.sock"); /* another inode, because ours is still open */
	rename("new.sock", "other.sock");
	end_listening(fd);
	ck_assert(exists("other.sock"));
	unlink("other.sock");
}
END_TEST

START_TEST(a_dead_socket_is_replaced_and_that_is_logged)
{
	int fd;

	leave_dead("dead.sock");
	capture();
	fd = listen_at("./dead.sock");
	ck_assert_int_ne(fd, -1);
	HAS(captured(), "replaced ./dead.sock");
	ck_assert_int_ne(connect_to("./dead.sock"), -1);
	end_listening(fd);
}
END_TEST

START_TEST(nothing_stays_beside_a_replaced_socket)
{
	int fd;

	ck_assert_int_eq(mkdir("beside", 0700), 0);
	leave_dead("beside/x");
	fd = listen_at("beside/x");
	ck_assert_int_ne(fd, -1);
	ck_assert_int_eq(files_in("beside"), 1);
	end_listening(fd);
	ck_assert_int_eq(files_in("beside"), 0);
}
END_TEST

/*
 * 0: a dead socket in a directory of another user, 1: a live socket of another
 * user, 2: a dead socket of another user in a directory such as /tmp
 */
START_TEST(a_socket_of_another_user_is_left_alone)
{
	static const char *const reasons[] = { "cannot be replaced: Permission denied",
		"is in use: Permission denied", "it belongs to another user" };

	if (geteuid() != 0)
		return; /* only root can become another user */
	ck_assert_int_eq(mkdir("theirs", 0755), 0);
	if (_i == 2)
		ck_assert_int_eq(chmod("theirs", 01777), 0);
	_i != 1 ? leave_dead("theirs/x") : (void)unix_listener("theirs/x", SOCK_STREAM, 1);
	ck_assert_int_eq(chmod("theirs/x", _i != 1 ? 0777 : 0600), 0);
	ck_assert_int_eq(chmod(".", 0755), 0);
	ck_assert_int_eq(seteuid(1234), 0);
	ck_assert_int_eq(listen_at("theirs/x"), -1);
	ck_assert_int_eq(seteuid(0), 0);
	HAS(why, reasons[_i]);
	ck_assert_int_eq(files_in("theirs"), 1);
	remove("theirs/x");
	remove("theirs");
}
END_TEST

/* 0: idle; 1: with a full backlog */
START_TEST(a_live_socket_is_refused_and_left_alone)
{
	int l = unix_listener(_i == 0 ? "live.sock" : "busy.sock", SOCK_STREAM, _i == 0 ? 8 : 0),
	    fd;
	const char *path = _i == 0 ? "./live.sock" : "./busy.sock";

	if (_i == 1)
		while (connect_to(path) != -1)
			;
	capture();
	ck_assert_int_eq(listen_at(path), -1);
	HAS(why, "the path is in use");
	ck_assert_str_eq(captured(), "");
	if (_i == 0)
		ck_assert_int_eq(accept(l, NULL, NULL), -1);
	while ((fd = accept(l, NULL, NULL)) != -1)
		close(fd);
	ck_assert_int_ne(connect_to(path), -1);
	ck_assert_int_ne(accept(l, NULL, NULL), -1);
	unlink(path);
}
END_TEST

/* It refuses a connect, as a full backlog does on macOS. */
START_TEST(a_socket_that_is_bound_only_is_left_alone)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX, .sun_path = "./bound.sock" };
	int fd = os_socket(AF_UNIX);

	ck_assert_int_eq(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	ck_assert_int_eq(connect_to("./bound.sock"), -1);
	ck_assert_int_eq(errno, EAGAIN);
	ck_assert_int_eq(listen_at("./bound.sock"), -1);
	HAS(why, "the path is in use");
	close(fd);
	fd = listen_at("./bound.sock");
	ck_assert_int_ne(fd, -1);
	end_listening(fd);
}
END_TEST

START_TEST(a_path_is_unused_if_no_process_has_its_socket)
{
	int l;

	ck_assert(unixpath_is_unused("./unused.sock"));
	leave_dead("unused.sock");
	ck_assert(unixpath_is_unused("./unused.sock"));
	l = unix_listener("used.sock", SOCK_STREAM, 1);
	ck_assert(!unixpath_is_unused("./used.sock"));
	ck_assert_int_eq(accept(l, NULL, NULL), -1);
	unix_listener("used.dgram", SOCK_DGRAM, 0);
	ck_assert(!unixpath_is_unused("./used.dgram"));
	ck_assert(!unixpath_is_unused("/dev/null/x"));
}
END_TEST

START_TEST(a_live_datagram_socket_is_refused)
{
	unix_listener("dgram.sock", SOCK_DGRAM, 0);
	ck_assert_int_eq(listen_at("./dgram.sock"), -1);
	HAS(why, "the path is in use");
	ck_assert(exists("dgram.sock"));
	unlink("dgram.sock");
}
END_TEST

START_TEST(a_file_at_the_name_of_the_new_socket_is_named)
{
	close(open(".new.sock.relay", O_CREAT | O_WRONLY, 0600));
	ck_assert_int_eq(listen_at("./new.sock"), -1);
	HAS(why, "./.new.sock.relay is in use; remove it");
	ck_assert(exists(".new.sock.relay") && !exists("new.sock"));
	remove(".new.sock.relay");
}
END_TEST

/* 0: file, 1: directory, 2: link to a dead socket, 3: link to nothing */
START_TEST(another_kind_of_file_is_refused_and_left_alone)
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
	ck_assert_int_eq(listen_at("./thing"), -1);
	HAS(why, "not a socket");
	ck_assert_int_eq(lstat("thing", &after), 0);
	ck_assert(before.st_ino == after.st_ino);
	if (_i == 2)
		ck_assert(exists("target"));
	remove("thing");
	remove("target");
}
END_TEST

START_TEST(a_missing_directory_is_reported)
{
	int before = fds_open();

	ck_assert_int_eq(listen_at("./no/such.sock"), -1);
	HAS(why, "cannot listen on ./no/such.sock: No such file or directory");
	ck_assert_int_eq(fds_open(), before);
}
END_TEST

/* ---- the lock ---- */

/* 0: the caller does not wait, 1: it waits for 0.3 s */
START_TEST(a_lock_that_stays_taken_is_reported)
{
	int lock = lock_elsewhere(".held.sock.relay-lock"), wait_ms = _i * 300;
	int64_t began = ms();

	ck_assert_int_eq(listen_for("./held.sock", wait_ms * 1000), -1);
	ck_assert_int_ge(ms() - began, wait_ms);
	ck_assert_int_lt(ms() - began, wait_ms + 2000);
	HAS(why, "cannot listen on ./held.sock: another process ");
	HAS(why, "./.held.sock.relay-lock");
	ck_assert(exists(".held.sock.relay-lock") && !exists("held.sock"));
	close(lock);
	unlink(".held.sock.relay-lock");
}
END_TEST

START_TEST(a_lock_that_comes_free_is_waited_for)
{
	int lock = lock_elsewhere(".free.sock.relay-lock"), fd;

	if (fork() == 0) { /* it has the only other copy of the descriptor */
		poll(NULL, 0, 100);
		_exit(0);
	}
	close(lock);
	fd = listen_at("./free.sock");
	ck_assert_msg(fd != -1, "%s", why);
	ck_assert(!exists(".free.sock.relay-lock"));
	end_listening(fd);
}
END_TEST

/* The lock is free although its file exists, so there is no need to wait. */
START_TEST(a_lock_file_that_a_killed_process_left_is_used)
{
	int fd;

	close(open(".left.sock.relay-lock", O_CREAT | O_WRONLY, 0600));
	leave_dead(".left.sock.relay");
	fd = listen_for("./left.sock", 0);
	ck_assert_msg(fd != -1, "%s", why);
	ck_assert(!exists(".left.sock.relay-lock") && !exists(".left.sock.relay"));
	end_listening(fd);
	ck_assert(!exists("left.sock"));
}
END_TEST

START_TEST(a_file_with_the_name_of_the_lock_is_left_alone)
{
	int fd = open(".used.sock.relay-lock", O_CREAT | O_WRONLY, 0600);

	ck_assert_int_eq(write(fd, "x", 1), 1);
	close(fd);
	ck_assert_int_eq(listen_at("./used.sock"), -1);
	HAS(why, "the lock ./.used.sock.relay-lock cannot be used");
	ck_assert(exists(".used.sock.relay-lock"));
	unlink(".used.sock.relay-lock");
}
END_TEST

START_TEST(a_taken_lock_does_not_keep_a_file_from_its_removal)
{
	int fd = listen_at("./gone.sock"), lock;
	int64_t began;

	ck_assert_int_ne(fd, -1);
	lock = lock_elsewhere(".gone.sock.relay-lock");
	began = ms();
	unixpath_remove(&file, _i * 300000);
	ck_assert_int_ge(ms() - began, _i * 300);
	ck_assert_int_lt(ms() - began, _i * 300 + 2000);
	ck_assert(!exists("gone.sock") && exists(".gone.sock.relay-lock"));
	close(lock);
	unlink(".gone.sock.relay-lock");
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

static const size_t longs[][2] = { { 0, 104 }, { 0, 105 }, { 0, 106 }, { 0, 107 }, { 0, 108 },
	{ 0, 255 }, { 200, 5 }, { 200, 106 }, { 200, 107 }, { 200, 108 }, { 200, 255 },
	{ 255, 1 } };

START_TEST(long_paths_are_listened_on_and_reached)
{
	char here[1024], after[1024], *path = long_path(longs[_i][0], longs[_i][1]);
	int l, fd, before, files;
	struct stat st;

	ck_assert_ptr_nonnull(getcwd(here, sizeof(here)));
	files = files_in(".");
	before = fds_open();
	l = listen_at(path);
	ck_assert_int_ne(l, -1);
	ck_assert_int_eq(lstat(path, &st), 0);
	ck_assert(S_ISSOCK(st.st_mode));
	ck_assert_uint_eq(st.st_mode & 0777, 0600);
	fd = connect_to(path);
	ck_assert_int_ne(fd, -1);
	ck_assert_int_ne(accept(l, NULL, NULL), -1);
	ck_assert(!unixpath_is_unused(path));
	ck_assert_int_eq(fds_open(), before + 3);
	ck_assert_ptr_nonnull(getcwd(after, sizeof(after)));
	ck_assert_str_eq(here, after);
	end_listening(l);
	ck_assert(!exists(path));
	ck_assert(unixpath_is_unused(path));
	ck_assert_int_eq(files_in("."), files);
	ck_assert_int_eq(connect_to(path), -1);
	ck_assert_int_eq(errno, ENOENT);
}
END_TEST

START_TEST(a_dead_socket_at_a_long_path_is_replaced)
{
	char *path = long_path(longs[_i][0], longs[_i][1]);
	int l;

	capture();
	l = listen_at(path);
	ck_assert_int_ne(l, -1);
	close(l); /* the file stays */
	l = listen_at(path);
	ck_assert_msg(l != -1, "%s", why);
	HAS(captured(), "replaced");
	ck_assert_int_ne(connect_to(path), -1);
	end_listening(l);
}
END_TEST

START_TEST(a_live_socket_at_a_long_path_is_refused)
{
	char *path = long_path(longs[_i][0], longs[_i][1]);
	int l = listen_at(path);

	ck_assert_int_ne(l, -1);
	ck_assert_int_eq(listen_at(path), -1);
	HAS(why, "the path is in use");
	ck_assert_int_ne(connect_to(path), -1);
	end_listening(l);
}
END_TEST

START_TEST(a_file_name_of_256_bytes_is_refused_with_its_cause)
{
	char *path = long_path(0, 256);

	ck_assert_int_eq(listen_at(path), -1);
	HAS(why, "File name too long");
	ck_assert_int_eq(connect_to(path), -1);
	ck_assert_int_eq(errno, ENAMETOOLONG);
}
END_TEST

TESTS("unixpath")
{
	tcase_add_unchecked_fixture(tc, enter_dir, leave_dir);
	tcase_add_loop_test(tc, a_socket_file_is_0600_whatever_the_umask, 0, 2);
	tcase_add_test(tc, a_file_that_replaced_ours_is_not_removed);
	tcase_add_test(tc, a_dead_socket_is_replaced_and_that_is_logged);
	tcase_add_test(tc, nothing_stays_beside_a_replaced_socket);
	tcase_add_loop_test(tc, a_socket_of_another_user_is_left_alone, 0, 3);
	tcase_add_test(tc, a_file_at_the_name_of_the_new_socket_is_named);
	tcase_add_loop_test(tc, a_live_socket_is_refused_and_left_alone, 0, 2);
	tcase_add_test(tc, a_socket_that_is_bound_only_is_left_alone);
	tcase_add_test(tc, a_path_is_unused_if_no_process_has_its_socket);
	tcase_add_test(tc, a_live_datagram_socket_is_refused);
	tcase_add_loop_test(tc, another_kind_of_file_is_refused_and_left_alone, 0, 4);
	tcase_add_test(tc, a_missing_directory_is_reported);
	tcase_add_loop_test(tc, a_lock_that_stays_taken_is_reported, 0, 2);
	tcase_add_test(tc, a_lock_that_comes_free_is_waited_for);
	tcase_add_test(tc, a_lock_file_that_a_killed_process_left_is_used);
	tcase_add_test(tc, a_file_with_the_name_of_the_lock_is_left_alone);
	tcase_add_loop_test(tc, a_taken_lock_does_not_keep_a_file_from_its_removal, 0, 2);
	tcase_add_loop_test(tc, long_paths_are_listened_on_and_reached, 0, 12);
	tcase_add_loop_test(tc, a_dead_socket_at_a_long_path_is_replaced, 0, 12);
	tcase_add_loop_test(tc, a_live_socket_at_a_long_path_is_refused, 0, 12);
	tcase_add_test(tc, a_file_name_of_256_bytes_is_refused_with_its_cause);
}
