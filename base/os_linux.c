/*
 * base/os_linux.c - what Linux (3.10 or later) has beyond POSIX.1-2008.
 */
#define _GNU_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/os.h"

#define OS_HAS_SOCKET

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

#define OS_HAS_PEER_UID

/*
 * sock_diag(7): a request with both addresses has one answer, however many
 * sockets exist.  The structures are those of the kernel (linux/netlink.h,
 * linux/inet_diag.h).  They are repeated here because the headers of a C
 * library may lack them.
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

/* Copy the address of ${sa}, a v4-mapped one as IPv4.  Return its family. */
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
			continue; /* the answer to an older request */
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
	 * Three answers are wrong.  A listener: if no connection matches, the
	 * kernel returns a listener on that port.  A socket that is still
	 * connecting: the client has closed, and a new socket has its port.
	 * uid 0 without an inode: the process has closed that socket already.
	 */
	if (answer.state == DIAG_LISTEN || answer.state == DIAG_SYN_SENT ||
	    answer.id.dport != req.id.dport || answer.id.sport != req.id.sport ||
	    (answer.uid == 0 && answer.inode == 0)) {
		errno = ENOENT;
		return -1;
	}
	*uid = answer.uid;
	return 1;
}

#define OS_HAS_UNIX_UID

int
os_unix_uid(int fd, uid_t *uid)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == -1)
		return -1;
	*uid = peer.uid;
	return 1;
}

#define OS_HAS_REMOTE_FILE

/*
 * Numbers of statfs(2) and linux/magic.h.  Those of Lustre, GPFS, BeeGFS and
 * CephFS are from their own sources.
 */
bool
os_remote_file(const char *path)
{
	static const uint32_t remote[] = { 0x6969 /* NFS */, 0xff534d42 /* CIFS */,
		0xfe534d42 /* SMB2 */, 0x517b /* SMB */, 0x0bd00bd0 /* Lustre */,
		0x47504653 /* GPFS */, 0x19830326 /* BeeGFS */, 0x00c36400 /* Ceph */,
		0x5346414f /* AFS */, 0x01021997 /* 9p */,
		0x65735546 /* FUSE: sshfs and others */ };
	struct statfs fs;
	size_t i;

	if (statfs(path, &fs) == -1)
		return false;
	for (i = 0; i < sizeof(remote) / sizeof(remote[0]); i++)
		if ((uint32_t)fs.f_type == remote[i])
			return true;
	return false;
}

#define OS_HAS_FOLLOW

void
os_follow(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	/* The parent may have died before the call. */
	if (getppid() != parent)
		raise(SIGTERM);
}

#define OS_HAS_SPLICE

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

#define OS_HAS_UNSENT

/* TIOCOUTQ is another name of SIOCOUTQ: tcp(7). */
uint64_t
os_unsent(int fd)
{
	int n;

	return ioctl(fd, TIOCOUTQ, &n) == -1 || n < 0 ? 0 : (uint64_t)n;
}

#if defined(__has_feature)
#define HAS_ASAN __has_feature(address_sanitizer)
#elif defined(__SANITIZE_ADDRESS__)
#define HAS_ASAN 1
#else
#define HAS_ASAN 0
#endif

/*
 * AddressSanitizer checks the bounds of memory from malloc, not those of pages.
 * A build with it has the portable form.
 */
#if !HAS_ASAN
#define OS_HAS_PAGES

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

#endif

#define OS_HAS_SELF

bool
os_self(const char *name, char *dst, size_t size)
{
	ssize_t n = readlink("/proc/self/exe", dst, size - 1);

	if (n <= 0 || (size_t)n == size - 1) /* an error, or cut */
		return os_find_program(name, dst, size);
	dst[n] = '\0';
	return true;
}

#define OS_HAS_IMAGE

const char *
os_image(const char *self)
{
	static const char image[] = "/proc/self/exe";

	return access(image, R_OK) == 0 ? image : self;
}

#define OS_HAS_CLOSE_FROM

void
os_close_from(int fd)
{
	/* close_range(2), Linux 5.9 */
	if (syscall(436, (unsigned)fd, UINT_MAX, 0) == -1)
		os_close_each(fd);
}

#include "base/os_posix.c" /* the rest */
