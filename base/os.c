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
	int saved = errno;

	if (*fd != -1)
		close(*fd);
	*fd = -1;
	errno = saved;
}

int
os_lock(int fd, const char *path)
{
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	struct stat opened, named;

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
	struct stat st;
	int n;

	if (strchr(name, '/') != NULL)
		return (size_t)snprintf(dst, size, "%s", name) < size;
	for (; path != NULL; path = *end == ':' ? end + 1 : NULL) {
		end = path + strcspn(path, ":");
		n = snprintf(dst, size, "%.*s/%s", end == path ? 1 : (int)(end - path),
		    end == path ? "." : path, name);
		if (n > 0 && (size_t)n < size && access(dst, X_OK) == 0 && stat(dst, &st) == 0 &&
		    S_ISREG(st.st_mode))
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

bool
os_own_dir(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() &&
	       (st.st_mode & 05777) == 0700;
}

/* ---- descriptors in a message ---- */

/* Room for the descriptors.  The BSDs hide CMSG_SPACE and CMSG_LEN. */
union control {
	struct cmsghdr head;
	char bytes[sizeof(struct cmsghdr) + 32 + sizeof(int) * OS_FDS];
};

/* The length of the control message ${head} with ${n} bytes. */
static socklen_t
control_length(struct cmsghdr *head, size_t n)
{
	return (socklen_t)((char *)CMSG_DATA(head) - (char *)head) + (socklen_t)n;
}

/* A message with room for ${count} descriptors. */
static struct msghdr
message_of(struct iovec *iov, union control *control, int count)
{
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 1, .msg_control = control->bytes };

	memset(control, 0, sizeof(*control));
	msg.msg_controllen = control_length(&control->head, sizeof(int) * (size_t)count);
	return msg;
}

ssize_t
os_send_fds(int fd, const void *p, size_t n, const int *fds, int count)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)p, .iov_len = n };
	union control control;
	struct msghdr msg = message_of(&iov, &control, count);
	ssize_t sent;

	control.head.cmsg_level = SOL_SOCKET;
	control.head.cmsg_type = SCM_RIGHTS;
	control.head.cmsg_len = (socklen_t)msg.msg_controllen;
	memcpy(CMSG_DATA(&control.head), fds, sizeof(int) * (size_t)count);
	do
		sent = sendmsg(fd, &msg, 0);
	while (sent == -1 && errno == EINTR);
	return sent;
}

/* Take the descriptors of ${msg}, ${most} at most.  Return their number. */
static int
take_fds(struct msghdr *msg, int *fds, int most)
{
	struct cmsghdr *head = CMSG_FIRSTHDR(msg);
	size_t n;

	if (head == NULL || head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS)
		return 0;
	n = (head->cmsg_len - control_length(head, 0)) / sizeof(int);
	if (n > (size_t)most)
		n = (size_t)most;
	memcpy(fds, CMSG_DATA(head), n * sizeof(int));
	return (int)n;
}

ssize_t
os_recv_fds(int fd, void *p, size_t size, int *fds, int *count)
{
	struct iovec iov = { .iov_base = p, .iov_len = size };
	union control control;
	struct msghdr msg = message_of(&iov, &control, *count);
	ssize_t got = recvmsg(fd, &msg, 0);

	*count = got == -1 ? 0 : take_fds(&msg, fds, *count);
	return (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0 ? got : -1;
}
