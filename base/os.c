/*
 * base/os.c - descriptors and limits, the same on every system.
 *
 * It also has two portable forms, os_find_program and os_close_each.  The file
 * of a system calls them when the better form fails.
 */
#define _XOPEN_SOURCE 700 /* getrlimit is XSI */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/os.h"

#define FILES_MAX 65536 /* of os_close_each: a limit may be 10^9 */

static struct rlimit old_files;
static int null = -1; /* a descriptor of /dev/null */

socklen_t
os_cmsg_len(struct cmsghdr *head, size_t n)
{
	return (socklen_t)((char *)CMSG_DATA(head) - (char *)head) + (socklen_t)n;
}

int
os_setup(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags == -1 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) == -1)
		return -1;
	return fcntl(fd, F_SETFD, FD_CLOEXEC);
}

void
os_close(int *fd)
{
	if (*fd != -1)
		close(*fd);
	*fd = -1;
}

int
os_lock(int fd, const char *path)
{
	struct stat opened, named;
	struct flock whole;

	memset(&whole, 0, sizeof(whole));
	whole.l_type = F_WRLCK;
	whole.l_whence = SEEK_SET;
	if (fcntl(fd, F_SETLK, &whole) == -1) {
		if (errno == EACCES)
			errno = EAGAIN;
		else if (errno == ENOSYS || errno == EOPNOTSUPP || errno == EINVAL)
			errno = ENOLCK;
		return -1;
	}
	if (fstat(fd, &opened) == 0 && lstat(path, &named) == 0 && opened.st_dev == named.st_dev &&
	    opened.st_ino == named.st_ino)
		return 0;
	errno = ESTALE;
	return -1;
}

bool
os_fill_stdio(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd != -1 ? fd <= STDERR_FILENO : errno == EINTR);
	if (fd != -1)
		fcntl(fd, F_SETFD, FD_CLOEXEC);
	null = fd;
	return fd != -1;
}

int
os_null(int fd)
{
	int r;

	if (null == -1 && !os_fill_stdio())
		return -1;
	do
		r = dup2(null, fd);
	while (r == -1 && errno == EINTR);
	return r;
}

int
os_error(int fd)
{
	socklen_t len = sizeof(int);
	int e = 0;

	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len) == -1 ? errno : e;
}

void
os_reset(int fd)
{
	struct linger now = { .l_onoff = 1, .l_linger = 0 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(fd);
}

long
os_raise_files(void)
{
	long most = os_most_files();
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &old_files) == 0) {
		r = old_files;
		r.rlim_cur = r.rlim_max;
		if (most != -1 && r.rlim_max > (rlim_t)most)
			r.rlim_cur = (rlim_t)most;
		setrlimit(RLIMIT_NOFILE, &r);
	}
	return sysconf(_SC_OPEN_MAX);
}

void
os_restore_files(void)
{
	if (old_files.rlim_cur != 0)
		setrlimit(RLIMIT_NOFILE, &old_files);
}

bool
os_find_program(const char *name, char *dst, size_t size)
{
	const char *path = getenv("PATH"), *end;
	int n;

	if (strchr(name, '/') != NULL)
		return (size_t)snprintf(dst, size, "%s", name) < size;
	for (; path != NULL; path = *end == ':' ? end + 1 : NULL) {
		end = path + strcspn(path, ":");
		n = snprintf(dst, size, "%.*s/%s", end == path ? 1 : (int)(end - path),
		    end == path ? "." : path, name);
		if (n > 0 && (size_t)n < size && access(dst, X_OK) == 0)
			return true;
	}
	return false;
}

void
os_close_each(int fd)
{
	long max = sysconf(_SC_OPEN_MAX);

	if (max == -1 || max > FILES_MAX)
		max = FILES_MAX;
	for (; fd < max; fd++)
		close(fd);
}

bool
os_random(void *p, size_t n)
{
	int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
	ssize_t got = fd == -1 ? -1 : read(fd, p, n);

	os_close(&fd);
	return got == (ssize_t)n;
}
