/*
 * os.c - what POSIX.1-2008 lacks.
 *
 * The only room that is built with the system's own feature macros, and the only one with conditions on the system.  Each
 * function has a portable form at the end of the file, which make POSIX=1 takes everywhere: with it relay does the same work,
 * more slowly or with one kindness less, as the contracts in relay.h say.
 */
#if defined(__linux__) && !RELAY_POSIX
#define OS_LINUX 1
#define _GNU_SOURCE
#else
#define OS_LINUX 0
#define _XOPEN_SOURCE 700 /* getrlimit is XSI */
#endif

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#if OS_LINUX
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#endif

#include "relay.h"

/* AddressSanitizer watches the edges of what malloc gives, and knows nothing of pages. */
#if defined(__has_feature)
#define OS_WATCHED __has_feature(address_sanitizer)
#elif defined(__SANITIZE_ADDRESS__)
#define OS_WATCHED 1
#else
#define OS_WATCHED 0
#endif

#define FILES_MAX 65536 /* descriptors that a loop looks at, where no call closes them all */

static struct rlimit old_files;
static int null = -1; /* open to /dev/null from the start */

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

/* Tell the limit that ${was} until now, and set it ${to}; either may be NULL. */
static int limit_files(const struct rlimit *to, struct rlimit *was);

long
os_raise_files(void)
{
	struct rlimit r;

	if (limit_files(NULL, &old_files) == 0) {
		r = old_files;
		r.rlim_cur = r.rlim_max;
		limit_files(&r, NULL);
	}
	return sysconf(_SC_OPEN_MAX);
}

void
os_restore_files(void)
{
	if (old_files.rlim_cur != 0)
		limit_files(&old_files, NULL);
}

/* As a shell finds ${name}: by its '/', or in the PATH. */
static bool
find_program(const char *name, char *dst, size_t size)
{
	const char *path = getenv("PATH"), *end;
	int n;

	if (strchr(name, '/') != NULL)
		return (size_t)snprintf(dst, size, "%s", name) < size;
	for (; path != NULL; path = *end == ':' ? end + 1 : NULL) {
		end = path + strcspn(path, ":");
		n = snprintf(dst, size, "%.*s/%s", end == path ? 1 : (int)(end - path), end == path ? "." : path, name);
		if (n > 0 && (size_t)n < size && access(dst, X_OK) == 0)
			return true;
	}
	return false;
}

static void
close_one_by_one(int fd)
{
	long max = sysconf(_SC_OPEN_MAX);

	if (max == -1 || max > FILES_MAX)
		max = FILES_MAX;
	for (; fd < max; fd++)
		close(fd);
}

#if OS_LINUX && !OS_WATCHED

void *
os_pages(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

void
os_free_pages(void *p, size_t size)
{
	munmap(p, size);
}

#else /* portable, or watched */

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

#if OS_LINUX

/* SIOCOUTQ of tcp(7), under its other name. */
uint64_t
os_unsent(int fd)
{
	int n;

	return ioctl(fd, TIOCOUTQ, &n) == -1 || n < 0 ? 0 : (uint64_t)n;
}

bool
os_self(const char *name, char *dst, size_t size)
{
	ssize_t n = readlink("/proc/self/exe", dst, size - 1);

	if (n <= 0 || (size_t)n == size - 1) /* it may be cut */
		return find_program(name, dst, size);
	dst[n] = '\0';
	return true;
}

/* musl's setrlimit brings 2 KiB of code that would stop all threads first. */
static int
limit_files(const struct rlimit *to, struct rlimit *was)
{
	return prlimit(0, RLIMIT_NOFILE, to, was);
}

const char *
os_image(const char *self)
{
	static const char image[] = "/proc/self/exe";

	return access(image, R_OK) == 0 ? image : self;
}

void
os_close_from(int fd)
{
	/* close_range(2), Linux 5.9 */
	if (syscall(436, (unsigned)fd, UINT_MAX, 0) == -1)
		close_one_by_one(fd);
}

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

ssize_t
os_splice(int in, int out, size_t max)
{
	ssize_t n;

	do
		n = splice(in, NULL, out, NULL, max, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	while (n == -1 && errno == EINTR);
	return n;
}

int
os_pipe_size(int fd, int size)
{
	int n = fcntl(fd, F_SETPIPE_SZ, size);

	return n == -1 ? fcntl(fd, F_GETPIPE_SZ) : n;
}

void
os_follow(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	/* The parent may have died before it could be followed. */
	if (getppid() != parent)
		raise(SIGTERM);
}

/* Numbers of statfs(2) and linux/magic.h; Lustre, GPFS, BeeGFS and CephFS from their own sources. */
bool
os_remote_file(const char *path)
{
	static const uint32_t remote[] = { 0x6969 /* NFS */, 0xff534d42 /* CIFS */, 0xfe534d42 /* SMB2 */, 0x517b /* SMB */,
		0x0bd00bd0 /* Lustre */, 0x47504653 /* GPFS */, 0x19830326 /* BeeGFS */, 0x00c36400 /* Ceph */,
		0x5346414f /* AFS */, 0x01021997 /* 9p */, 0x65735546 /* FUSE: sshfs and the like */ };
	struct statfs fs;
	size_t i;

	if (statfs(path, &fs) == -1)
		return false;
	for (i = 0; i < sizeof(remote) / sizeof(remote[0]); i++)
		if ((uint32_t)fs.f_type == remote[i])
			return true;
	return false;
}

/*
 * Whose is the socket at the other end of a local TCP connection?  sock_diag(7): one request that names both addresses exactly is
 * answered with that one socket, however many there are.  The structures are the kernel's (linux/netlink.h, linux/inet_diag.h),
 * written out here since a C library's headers need not bring them.
 */
#define DIAG_NETLINK 4    /* NETLINK_SOCK_DIAG */
#define DIAG_BY_FAMILY 20 /* SOCK_DIAG_BY_FAMILY */
#define DIAG_REQUEST 1    /* NLM_F_REQUEST */
#define DIAG_SYN_SENT 2   /* TCP_SYN_SENT */
#define DIAG_LISTEN 10    /* TCP_LISTEN */

struct diag_head {
	uint32_t len;
	uint16_t type, flags;
	uint32_t seq, pid;
};

struct diag_id {
	uint16_t sport, dport; /* network byte order, as the addresses */
	uint32_t src[4], dst[4];
	uint32_t interface;
	uint32_t cookie[2];
};

struct diag_request {
	struct diag_head head;
	uint8_t family, protocol, ext, pad;
	uint32_t states;
	struct diag_id id;
};

struct diag_answer {
	struct diag_head head;
	uint8_t family, state, timer, retrans;
	struct diag_id id;
	uint32_t expires, rqueue, wqueue, uid, inode;
};

static int
diag_socket(void)
{
	static int fd = -1;

	if (fd == -1)
		fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, DIAG_NETLINK);
	return fd;
}

/* The address of ${sa}, v4-mapped ones as IPv4; returns the family that it now has. */
static int
plain_address(const struct sockaddr *sa, uint32_t addr[4], uint16_t *port)
{
	const struct sockaddr_in6 *in6 = (const void *)sa;
	const struct sockaddr_in *in = (const void *)sa;

	memset(addr, 0, 4 * sizeof(addr[0]));
	if (sa->sa_family == AF_INET) {
		*port = in->sin_port;
		addr[0] = in->sin_addr.s_addr;
		return AF_INET;
	}
	*port = in6->sin6_port;
	if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
		memcpy(addr, &in6->sin6_addr.s6_addr[12], 4);
		return AF_INET;
	}
	memcpy(addr, &in6->sin6_addr, 16);
	return AF_INET6;
}

static int
diag_receive(int fd, uint32_t seq, struct diag_answer *answer)
{
	union {
		struct diag_head head;
		struct diag_answer answer;
		char room[1024];
	} u;
	ssize_t n;

	for (;;) {
		n = recv(fd, &u, sizeof(u), 0);
		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1)
			return -1;
		if ((size_t)n < sizeof(u.head) || u.head.seq != seq)
			continue; /* the answer to a question that was given up */
		if (u.head.type == DIAG_BY_FAMILY && (size_t)n >= sizeof(u.answer)) {
			*answer = u.answer;
			return 0;
		}
		errno = ENOENT;
		return -1;
	}
}

int
os_peer_uid(const struct sockaddr *peer, const struct sockaddr *local, uid_t *uid)
{
	static uint32_t seq;
	struct diag_request req;
	struct diag_answer answer;
	int fd = diag_socket();

	if (fd == -1)
		return -1;
	memset(&req, 0, sizeof(req));
	req.head.len = sizeof(req);
	req.head.type = DIAG_BY_FAMILY;
	req.head.flags = DIAG_REQUEST;
	req.head.seq = ++seq;
	req.protocol = IPPROTO_TCP;
	req.states = UINT32_MAX;
	req.id.cookie[0] = req.id.cookie[1] = UINT32_MAX;
	req.family = (uint8_t)plain_address(peer, req.id.src, &req.id.sport);
	if (plain_address(local, req.id.dst, &req.id.dport) != req.family) {
		errno = EAFNOSUPPORT;
		return -1;
	}
	if (send(fd, &req, sizeof(req), 0) == -1 || diag_receive(fd, seq, &answer) == -1)
		return -1;
	/*
	 * Three answers look right and are not: where no connection matches, the kernel goes on to look for a listener on the port;
	 * a socket that still connects is another one, whose port was that of a peer that has closed; and a socket that its
	 * process has closed already may be shown as uid 0, with no inode.
	 */
	if (answer.state == DIAG_LISTEN || answer.state == DIAG_SYN_SENT || answer.id.dport != req.id.dport ||
	    answer.id.sport != req.id.sport || (answer.uid == 0 && answer.inode == 0)) {
		errno = ENOENT;
		return -1;
	}
	*uid = answer.uid;
	return 1;
}

#else /* portable */

uint64_t
os_unsent(int fd)
{
	(void)fd;
	return 0;
}

void
os_close_from(int fd)
{
	close_one_by_one(fd);
}

int
os_socket(int family)
{
	int fd = socket(family, SOCK_STREAM, 0);

	if (fd != -1 && os_setup(fd) == -1) {
		close(fd);
		return -1;
	}
	return fd;
}

int
os_accept(int lfd, struct sockaddr *peer, socklen_t *len)
{
	int fd = accept(lfd, peer, len);

	if (fd != -1 && os_setup(fd) == -1) {
		close(fd);
		return -1;
	}
	return fd;
}

void
os_follow(pid_t parent)
{
	(void)parent;
}

bool
os_self(const char *name, char *dst, size_t size)
{
	return find_program(name, dst, size);
}

static int
limit_files(const struct rlimit *to, struct rlimit *was)
{
	if (was != NULL && getrlimit(RLIMIT_NOFILE, was) == -1)
		return -1;
	return to == NULL ? 0 : setrlimit(RLIMIT_NOFILE, to);
}

const char *
os_image(const char *self)
{
	return self;
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

bool
os_remote_file(const char *path)
{
	(void)path;
	return false;
}

int
os_peer_uid(const struct sockaddr *peer, const struct sockaddr *local, uid_t *uid)
{
	(void)peer;
	(void)local;
	(void)uid;
	return 0;
}

#endif
