/*
 * base/os_posix.c - portable forms of the functions that depend on the system.
 *
 * With POSIX=1, or on an unknown system, make builds it alone.  The file of a
 * system includes it last, and defines OS_HAS_... for its own functions, and
 * for what several systems have in one form.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/os.h"

#ifdef OS_HAS_ACCEPT4

int
os_socket(int family)
{
	return socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

int
os_accept(int lfd, struct sockaddr *peer, socklen_t *len)
{
	return accept4(lfd, peer, len, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

#else

/* Return ${fd} with the flags of a new socket, or -1 if it cannot have them. */
static int
with_flags(int fd)
{
	if (fd != -1 && os_setup(fd) == -1)
		os_close(&fd);
	return fd;
}

int
os_socket(int family)
{
	return with_flags(socket(family, SOCK_STREAM, 0));
}

int
os_accept(int lfd, struct sockaddr *peer, socklen_t *len)
{
	return with_flags(accept(lfd, peer, len));
}

#endif
#ifndef OS_HAS_PEER_UID

int
os_peer_uid(const struct sockaddr *peer, const struct sockaddr *local, uid_t *uid)
{
	(void)peer;
	(void)local;
	(void)uid;
	return 0;
}

#endif
#ifndef OS_HAS_LINUX_CALLS

bool
os_port_is_unused(uint16_t port)
{
	(void)port;
	return false;
}

void
os_adopt(void)
{
}

int
os_children(pid_t *pids, int most)
{
	(void)pids;
	(void)most;
	return 0;
}

ssize_t
os_splice(int in, int out, size_t max)
{
	(void)in;
	(void)out;
	(void)max;
	errno = ENOSYS;
	return -1;
}

int
os_pipe_size(int fd, int size)
{
	(void)fd;
	(void)size;
	return 0;
}

const char *
os_image(const char *self)
{
	return self;
}

#endif
#ifndef OS_HAS_MOST_FILES

long
os_most_files(void)
{
	return -1;
}

#endif
#ifdef OS_HAS_GETPEEREID

int
os_unix_uid(int fd, uid_t *uid)
{
	gid_t gid;

	return getpeereid(fd, uid, &gid) == 0 ? 1 : -1;
}

#elif !defined(OS_HAS_UNIX_UID)

int
os_unix_uid(int fd, uid_t *uid)
{
	(void)fd;
	(void)uid;
	return 0;
}

#endif
#ifdef OS_HAS_MNT_LOCAL

bool
os_remote_file(const char *path)
{
	struct statfs fs;

	return statfs(path, &fs) == 0 && (fs.f_flags & MNT_LOCAL) == 0;
}

#elif !defined(OS_HAS_REMOTE_FILE)

bool
os_remote_file(const char *path)
{
	(void)path;
	return false;
}

#endif
#ifndef OS_HAS_FOLLOW

void
os_follow(pid_t parent)
{
	(void)parent;
}

#endif
#ifndef OS_HAS_UNSENT

uint64_t
os_unsent(int fd)
{
	(void)fd;
	return OS_UNSENT_UNKNOWN;
}

#endif
#ifdef OS_HAS_WINSIZE

int
os_columns(int fd)
{
	struct winsize size;

	return ioctl(fd, TIOCGWINSZ, &size) == -1 ? 0 : size.ws_col;
}

#else

int
os_columns(int fd)
{
	(void)fd;
	return 0;
}

#endif
#ifndef OS_HAS_PAGES

void *
os_pages(size_t size)
{
	return malloc(size);
}

void
os_free_pages(void *p, size_t size)
{
	(void)size;
	free(p);
}

#endif
#ifndef OS_HAS_SELF

bool
os_self(const char *name, char *dst, size_t size)
{
	return os_find_program(name, dst, size);
}

#endif
#ifndef OS_HAS_CONFINE

void
os_confine(const struct os_needs *needs, char *dst, size_t size)
{
	(void)needs;
	snprintf(dst, size, "none");
}

#endif
#ifndef OS_HAS_CLOSE_FROM

void
os_close_from(int fd)
{
	os_close_each(fd);
}

#endif
