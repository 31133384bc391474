/*
 * base/os_linux.c - what Linux (3.10 or later) has beyond POSIX.1-2008.
 */
#define _GNU_SOURCE

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"

#define OS_HAS_ACCEPT4
#define OS_HAS_CLOSE_FROM
#define OS_HAS_FOLLOW
#define OS_HAS_LINUX_CALLS
#define OS_HAS_PEER_UID
#define OS_HAS_REMOTE_FILE
#define OS_HAS_SELF
#define OS_HAS_UNIX_UID
#define OS_HAS_UNSENT
#define OS_HAS_WINSIZE

/*
 * sock_diag(7): a request with both addresses has one answer, even among many
 * sockets.  The structures are those of the kernel (linux/netlink.h,
 * linux/inet_diag.h).  They are repeated here because the headers of a C
 * library may lack them.
 */
#define DIAG_NETLINK 4    /* NETLINK_SOCK_DIAG */
#define DIAG_BY_FAMILY 20 /* SOCK_DIAG_BY_FAMILY */
#define DIAG_REQUEST 1    /* NLM_F_REQUEST */
#define DIAG_DUMP 0x300   /* NLM_F_DUMP */
#define DIAG_DONE 3       /* NLMSG_DONE */
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
diag_open(void)
{
	return socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, DIAG_NETLINK);
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

/* Skip the answers to older requests.  Attributes of the answer are cut. */
static int
diag_receive(int fd, uint32_t seq, struct diag_answer *answer)
{
	ssize_t n;

	memset(answer, 0, sizeof(*answer));
	do
		n = recv(fd, answer, sizeof(*answer), 0);
	while (n == -1 ? errno == EINTR : answer->head.seq != seq);
	if (n == -1)
		return -1;
	if (answer->head.type == DIAG_BY_FAMILY && n == sizeof(*answer))
		return 0;
	errno = ENOENT;
	return -1;
}

int
os_peer_uid(const struct sockaddr *peer, const struct sockaddr *local, uid_t *uid)
{
	static int fd = -1;
	static uint32_t seq;
	struct diag_request req = {
		.head = { sizeof(req), DIAG_BY_FAMILY, DIAG_REQUEST, ++seq, 0 },
		.protocol = IPPROTO_TCP,
		.states = UINT32_MAX,
		.id.cookie = { UINT32_MAX, UINT32_MAX },
	};
	struct diag_answer answer;

	if (fd == -1)
		fd = diag_open();
	if (fd == -1)
		return -1;
	req.family = (uint8_t)plain_address(peer, req.id.src, &req.id.sport);
	if (plain_address(local, req.id.dst, &req.id.dport) != req.family) {
		errno = EAFNOSUPPORT;
		return -1;
	}
	if (send(fd, &req, sizeof(req), 0) == -1 || diag_receive(fd, seq, &answer) == -1)
		return -1;
	/*
	 * Three answers do not count.  A listener: no connection matches, and
	 * the kernel returns the listener on that port.  A socket that is still
	 * connecting: the client has closed, and this new socket got its port.
	 * uid 0 without an inode: the process has closed the socket.
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

/*
 * Ask for a list: an exact request gets ENOENT also if the kernel lacks the
 * module.  If the first message is the end without an error, the list is empty.
 */
static bool
lacks_listener(uint8_t family, uint16_t port)
{
	struct diag_request req = {
		.head = { sizeof(req), DIAG_BY_FAMILY, DIAG_REQUEST | DIAG_DUMP, 1, 0 },
		.family = family,
		.protocol = IPPROTO_TCP,
		.states = 1 << DIAG_LISTEN,
		.id.sport = htons(port),
	};
	struct {
		struct diag_head head;
		int32_t error;
	} end = { .error = -1 };
	int fd = diag_open();

	if (fd != -1 && send(fd, &req, sizeof(req), 0) != -1)
		recv(fd, &end, sizeof(end), 0);
	os_close(&fd);
	return end.head.type == DIAG_DONE && end.error == 0;
}

bool
os_port_is_unused(uint16_t port)
{
	return lacks_listener(AF_INET, port) && lacks_listener(AF_INET6, port);
}

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

void
os_follow(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	/* The parent may have died before the call. */
	if (getppid() != parent)
		raise(SIGTERM);
}

void
os_adopt(void)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
}

/* The parent of the process ${pid}, from proc(5); -1: not known. */
static long
parent_of(const char *pid)
{
	char path[64], text[512], *at;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%.20s/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd == -1)
		return -1;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	at = strrchr(text, ')'); /* the name of the program can contain a ')' */
	return at == NULL || strlen(at) < 5 ? -1 : strtol(at + 4, NULL, 10);
}

int
os_children(pid_t *pids, int most)
{
	struct dirent *entry;
	siginfo_t info;
	int n = 0;
	DIR *d;

	if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == -1)
		return 0; /* ECHILD: no child */
	d = opendir("/proc");
	if (d == NULL)
		return -1;
	while (n < most && (entry = readdir(d)) != NULL)
		if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' &&
		    parent_of(entry->d_name) == (long)getpid())
			pids[n++] = (pid_t)strtol(entry->d_name, NULL, 10);
	closedir(d);
	return n;
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

/* TIOCOUTQ is another name of SIOCOUTQ: tcp(7), unix(7).  FIONREAD: pipe(7). */
uint64_t
os_unsent(int fd)
{
	int n;

	if (ioctl(fd, TIOCOUTQ, &n) == -1 && ioctl(fd, FIONREAD, &n) == -1)
		return 0;
	return n < 0 ? 0 : (uint64_t)n;
}

bool
os_self(const char *name, char *dst, size_t size)
{
	ssize_t n = readlink("/proc/self/exe", dst, size - 1);

	if (n <= 0 || (size_t)n == size - 1) /* an error, or cut */
		return os_find_program(name, dst, size);
	dst[n] = '\0';
	return true;
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
		os_close_each(fd);
}

#if defined(__has_feature)
#define HAS_ASAN __has_feature(address_sanitizer)
#elif defined(__SANITIZE_ADDRESS__)
#define HAS_ASAN 1
#else
#define HAS_ASAN 0
#endif

/*
 * With AddressSanitizer, the portable forms are built: it checks the bounds of
 * memory from malloc, not those of pages, and a part of it, LeakSanitizer,
 * traces the process at its end and writes a report to a file.
 */
#if !HAS_ASAN
#define OS_HAS_CONFINE
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

/*
 * The numbers and structures here are those of linux/prctl.h, linux/audit.h,
 * linux/filter.h, linux/seccomp.h and linux/landlock.h, which the headers of a
 * C library may lack.  Since Linux 5.1 a new system call has the same number on
 * each of these machines.
 */
#if defined(__x86_64__) && !defined(__ILP32__)
#define AUDIT_ARCH 0xc000003e
#elif defined(__i386__)
#define AUDIT_ARCH 0x40000003
#elif defined(__aarch64__) && !defined(__AARCH64EB__)
#define AUDIT_ARCH 0xc00000b7
#elif defined(__ARM_EABI__) && !defined(__ARMEB__)
#define AUDIT_ARCH 0x40000028
#elif defined(__riscv) && __riscv_xlen == 64
#define AUDIT_ARCH 0xc00000f3
#elif defined(__powerpc64__) && defined(__LITTLE_ENDIAN__)
#define AUDIT_ARCH 0xc0000015
#elif defined(__powerpc64__)
#define AUDIT_ARCH 0x80000015
#elif defined(__s390x__)
#define AUDIT_ARCH 0x80000016
#elif defined(__loongarch64)
#define AUDIT_ARCH 0xc0000102
#endif

#ifdef AUDIT_ARCH

/* Headers of Linux 3.10 lack these calls, and so does that kernel. */
#ifndef SYS_execveat
#define SYS_execveat -1
#endif
#ifndef SYS_bpf
#define SYS_bpf -1
#endif
#ifndef SYS_userfaultfd
#define SYS_userfaultfd -1
#endif

/*
 * All other calls are allowed, so that a new C library works.  The look-up of a
 * name uses none of these.
 */
static const int16_t denied[] = {
	/* run a program, or control another process */
	SYS_execve, SYS_execveat, SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp,
	438 /* pidfd_getfd */, 440 /* process_madvise */,
	/* become another user */
	SYS_setuid, SYS_setgid, SYS_setreuid, SYS_setregid, SYS_setresuid, SYS_setresgid,
	SYS_setgroups, SYS_setfsuid, SYS_setfsgid, SYS_capset,
#ifdef SYS_setuid32
	SYS_setuid32, SYS_setgid32, SYS_setreuid32, SYS_setregid32, SYS_setresuid32,
	SYS_setresgid32, SYS_setgroups32, SYS_setfsuid32, SYS_setfsgid32,
#endif
	/* change the file system or the namespace */
	SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, SYS_unshare, SYS_setns,
	428 /* open_tree */, 429 /* move_mount */, 430 /* fsopen */, 431 /* fsconfig */,
	432 /* fsmount */, 433 /* fspick */, 442 /* mount_setattr */, SYS_open_by_handle_at,
	/* give others access to a file, which Landlock does not prevent */
	SYS_fchmod, SYS_fchmodat, 452 /* fchmodat2 */, SYS_fchown, SYS_fchownat, SYS_setxattr,
	SYS_lsetxattr, SYS_fsetxattr, 463 /* setxattrat */, SYS_removexattr, SYS_lremovexattr,
	SYS_fremovexattr, 466 /* removexattrat */,
#ifdef SYS_chmod
	SYS_chmod, SYS_chown, SYS_lchown,
#endif
	/* empty a file, which Landlock before version 3 does not prevent */
	SYS_truncate,
#ifdef SYS_truncate64
	SYS_truncate64,
#endif
#ifndef SYS_socketcall
	/* listen on a port, which Landlock does not prevent without bind(2) */
	SYS_listen,
#endif
	/* reach far into the kernel */
	SYS_bpf, SYS_keyctl, SYS_add_key, SYS_request_key, SYS_perf_event_open, SYS_userfaultfd,
	SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_kexec_load, SYS_reboot,
	SYS_swapon, SYS_swapoff, SYS_acct, SYS_quotactl, SYS_personality, 425 /* io_uring_setup */,
	426 /* io_uring_enter */, 427 /* io_uring_register */
};

#define DENIED (sizeof(denied) / sizeof(denied[0]))
#define FILTER_MAX (2 * DENIED + 64)
#define FILTER_ALLOW 0x7fff0000
#define FILTER_ERRNO 0x00050000
#define OTHER_ABI 0x40000000 /* x32: a second set of numbers on x86_64 */
#define FAST_OPEN 0x20000000 /* MSG_FASTOPEN */

/* seccomp_data has 64 bits for each argument; these are the lower 32. */
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define ARGUMENT(i) (20 + 8 * (i))
#else
#define ARGUMENT(i) (16 + 8 * (i))
#endif

#ifdef __s390x__
#define CLONE_FLAGS 1
#else
#define CLONE_FLAGS 0
#endif

enum { LOAD = 0x20, EQUAL = 0x15, AT_LEAST = 0x35, ANY_BIT = 0x45, RETURN = 0x06 };

struct filter_op {
	uint16_t code;
	uint8_t jump_true, jump_false; /* operations to skip */
	uint32_t k;
};

struct filter {
	unsigned short n;
	struct filter_op *ops;
};

static void
put_op(struct filter *f, uint16_t code, uint8_t jump_false, uint32_t k)
{
	f->ops[f->n++] = (struct filter_op){ code, 0, jump_false, k };
}

/* If the comparison ${code} with ${k} is true, the call fails with ${err}. */
static void
fail_if(struct filter *f, uint16_t code, uint32_t k, uint32_t err)
{
	put_op(f, code, 1, k);
	put_op(f, RETURN, 0, FILTER_ERRNO | err);
}

/* As fail_if, for argument ${i} of ${call}. */
static void
deny_argument(struct filter *f, int call, uint32_t i, uint16_t code, uint32_t k)
{
	put_op(f, EQUAL, 4, (uint32_t)call);
	put_op(f, LOAD, 0, ARGUMENT(i));
	fail_if(f, code, k, EPERM);
	put_op(f, LOAD, 0, 0 /* the number of the call, again */);
}

static void
deny_arguments(struct filter *f, const struct os_needs *needs)
{
	/* In a new user namespace, a process has all capabilities. */
	deny_argument(f, SYS_clone, CLONE_FLAGS, ANY_BIT, 0x7e020000 /* CLONE_NEW* */);
	/* O_ACCMODE | O_TRUNC: Landlock before version 3 sees no access. */
	deny_argument(f, SYS_openat, 2, ANY_BIT, O_TRUNC);
#ifdef SYS_open
	deny_argument(f, SYS_open, 1, ANY_BIT, O_TRUNC);
#endif
/* The arguments of socketcall(2), another way to these, are in memory. */
#ifndef SYS_socketcall
	if (needs->names)
		return;
	if (needs->path == NULL) {
		deny_argument(f, SYS_socket, 0, EQUAL, AF_UNIX);
		deny_argument(f, SYS_socketpair, 0, EQUAL, AF_UNIX);
	}
	/* These connect to a TCP port, but Landlock does not check them. */
	deny_argument(f, SYS_socket, 0, EQUAL, 43 /* AF_SMC */);
	deny_argument(f, SYS_socket, 2, ANY_BIT, 0x100 /* IPPROTO_SMC, IPPROTO_MPTCP */);
	deny_argument(f, SYS_sendto, 3, ANY_BIT, FAST_OPEN);
	deny_argument(f, SYS_sendmsg, 2, ANY_BIT, FAST_OPEN);
	deny_argument(f, SYS_sendmmsg, 3, ANY_BIT, FAST_OPEN);
#else
	(void)needs;
#endif
}

/* The calls of another architecture have other numbers: deny all of them. */
static int
filter_calls(const struct os_needs *needs)
{
	struct filter_op ops[FILTER_MAX] = {
		{ LOAD, 0, 0, 4 /* the architecture */ },
		{ EQUAL, 1, 0, AUDIT_ARCH },
		{ RETURN, 0, 0, FILTER_ERRNO | EPERM },
		{ LOAD, 0, 0, 0 /* the number of the call */ },
	};
	struct filter f = { 4, ops };
	size_t i;

	fail_if(&f, AT_LEAST, OTHER_ABI, EPERM);
	for (i = 0; i < DENIED; i++)
		fail_if(&f, EQUAL, (uint32_t)denied[i], EPERM);
	/* Flags in memory.  After ENOSYS, a C library makes the older call. */
	fail_if(&f, EQUAL, 435 /* clone3 */, ENOSYS);
	fail_if(&f, EQUAL, 437 /* openat2 */, ENOSYS);
	deny_arguments(&f, needs);
	put_op(&f, RETURN, 0, FILTER_ALLOW);
	return prctl(PR_SET_SECCOMP, 2 /* SECCOMP_MODE_FILTER */, &f, 0, 0);
}

#else

static int
filter_calls(const struct os_needs *needs)
{
	(void)needs;
	errno = ENOTSUP;
	return -1;
}

#endif

/* Landlock: system calls, kinds of rules, accesses. */
enum { RULESET = 444, ADD_RULE = 445, RESTRICT = 446 };
enum { RULE_PATH = 1, RULE_PORT = 2 };
enum { READ_FILE = 1 << 2, READ_DIR = 1 << 3, REMOVE_FILE = 1 << 5, MAKE_SYM = 1 << 12 };
enum { BIND_TCP = 1 << 0, CONNECT_TCP = 1 << 1 };
enum { ABSTRACT_SOCKETS = 1 << 0, SIGNALS = 1 << 1 };

/* What needs a rule.  Landlock may add members after these. */
struct ruleset {
	uint64_t files, ports, scopes;
};

struct path_rule {
	uint64_t access;
	int32_t fd;
};

struct port_rule {
	uint64_t access, port;
};

/* Allow ${access} below the directory ${path}, if it can be opened. */
static int
allow_below(int ruleset, const char *path, uint64_t access)
{
	struct path_rule rule = { access, open(path, O_PATH | O_DIRECTORY | O_CLOEXEC) };
	long r;

	if (rule.fd == -1)
		return errno == ENOENT || errno == ENOTDIR || errno == EACCES ? 0 : -1;
	r = syscall(ADD_RULE, ruleset, RULE_PATH, &rule, 0);
	close(rule.fd);
	return (int)r;
}

/*
 * The resolver reads its modules and its configuration below these.  /run is
 * not listed as a whole, because it has directories of users.
 */
static int
allow_system(int ruleset)
{
	static const char *const dirs[] = { "/etc", "/lib", "/lib32", "/lib64", "/usr", "/opt",
		"/nix", "/gnu", "/cvmfs", "/var/lib/sss", "/var/db", "/var/yp", "/run/systemd",
		"/run/resolvconf", "/run/NetworkManager", "/run/netconfig", "/run/connman",
		"/run/nscd" };
	size_t i;

	for (i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++)
		if (allow_below(ruleset, dirs[i], READ_FILE | READ_DIR) == -1)
			return -1;
	return 0;
}

/* For a long path, relay opens the working directory, to return to it. */
static int
allow_needs(int ruleset, long version, const struct os_needs *needs)
{
	struct port_rule port = { CONNECT_TCP, needs->port };

	if (needs->dir != NULL && (allow_below(ruleset, needs->dir, MAKE_SYM | REMOVE_FILE) == -1 ||
				      allow_below(ruleset, ".", READ_DIR) == -1))
		return -1;
	if (version < 4 || needs->names || needs->port == 0)
		return 0;
	return (int)syscall(ADD_RULE, ruleset, RULE_PORT, &port, 0);
}

static struct ruleset
ruleset_of(long version, bool names)
{
	struct ruleset set = { 0x1fff, 0, 0 };

	if (version >= 2)
		set.files |= 1 << 13; /* move to another directory */
	if (version >= 3)
		set.files |= 1 << 14; /* truncate */
	if (version >= 4)
		set.ports = names ? BIND_TCP : BIND_TCP | CONNECT_TCP;
	if (version >= 5)
		set.files |= 1 << 15; /* ioctl of devices */
	if (version >= 6)
		set.scopes = ABSTRACT_SOCKETS | SIGNALS;
	return set;
}

/* Return the version of Landlock, which is not 0, or -1. */
static long
restrict_files(const struct os_needs *needs)
{
	long version = syscall(RULESET, NULL, 0, 1 /* return the version */), r;
	struct ruleset set = ruleset_of(version, needs->names);
	int fd;

	if (version == -1)
		return -1;
	fd = (int)syscall(RULESET, &set, sizeof(set), 0);
	if (fd == -1)
		return -1;
	r = allow_system(fd);
	if (r == 0)
		r = allow_needs(fd, version, needs);
	if (r == 0)
		r = syscall(RESTRICT, fd, 0);
	os_close(&fd);
	return r == 0 ? version : -1;
}

static void
put_phase(char *dst, size_t size, const char *name, long r)
{
	int e = errno;
	size_t n = strlen(dst);
	const char *comma = n > 0 ? ", " : "";

	if (r == -1)
		snprintf(dst + n, size - n, "%sno %s (%s)", comma, name, strerror(e));
	else if (r == 0)
		snprintf(dst + n, size - n, "%s%s", comma, name);
	else
		snprintf(dst + n, size - n, "%s%s %ld", comma, name, r);
}

void
os_confine(const struct os_needs *needs, char *dst, size_t size)
{
	*dst = '\0';
	put_phase(dst, size, "no_new_privs", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	put_phase(dst, size, "Landlock", restrict_files(needs));
	put_phase(dst, size, "seccomp", filter_calls(needs));
}

#endif

#include "base/os_posix.c" /* the rest */
