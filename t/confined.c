/*
 * confined.c - a preloaded library that tries what a confined relay must not
 * do, or hides confinement from relay.
 *
 *   cc -shared -fPIC -o confined.so confined.c -ldl
 *   LD_PRELOAD=./confined.so CONFINED_TRY=DIR ./relay -m - TO
 *
 *   CONFINED_TRY=DIR  before its first connect(), relay tries each call below.
 *                     A line on stderr has the result: try NAME ERRNO.  ERRNO is
 *                     0 if the call succeeds.  DIR has the files "file" and
 *                     "old"
 *   CONFINED_OLD=1    prctl(2) and Landlock fail as in an old kernel
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define REAL(name) __typeof__(name) *real = (__typeof__(real))dlsym(RTLD_NEXT, #name)
#define TRY(name, call) report(name, (long)(call) == -1 ? errno : 0)

static void
report(const char *name, int e)
{
	dprintf(STDERR_FILENO, "try %s %d\n", name, e);
}

static long
in_a_child(int (*call)(void))
{
	pid_t pid = fork();
	int status = 0;

	if (pid == 0)
		_exit(call() == -1 ? errno : 0);
	if (pid == -1)
		return -1;
	while (waitpid(pid, &status, 0) != pid)
		if (errno != EINTR)
			return -1;
	errno = WEXITSTATUS(status);
	return errno == 0 ? 0 : -1;
}

static int
run(void)
{
	char *argv[] = { "true", NULL };

	return execve("/bin/true", argv, argv + 1);
}

static int
run_descriptor(void)
{
	char *argv[] = { "true", NULL };
	int fd = open("/bin/true", O_PATH);

	return (int)syscall(SYS_execveat, fd, "", argv, argv + 1, AT_EMPTY_PATH);
}

static int
trace(void)
{
	return (int)ptrace(PTRACE_TRACEME, 0, NULL, NULL);
}

static int
become(void)
{
	return (int)syscall(SYS_setuid, getuid());
}

/* SIGCHLD is in the low byte of the flags. */
static int
make_namespace(void)
{
	long pid = syscall(SYS_clone, 0x10000000L /* CLONE_NEWUSER */ | SIGCHLD, 0, 0, 0, 0);

	if (pid == 0)
		_exit(0);
	return pid == -1 ? -1 : 0;
}

/* With access mode 3, Landlock of version 1 or 2 allows this. */
static int
open_how(const char *path)
{
	uint64_t how[3] = { O_ACCMODE | O_TRUNC, 0, 0 };

	return (int)syscall(437, AT_FDCWD, path, how, sizeof(how));
}

static int
unix_socket(void)
{
	return socket(AF_UNIX, SOCK_STREAM, 0);
}

static int
unix_pair(void)
{
	int fd[2];

	return socketpair(AF_UNIX, SOCK_DGRAM, 0, fd);
}

static int
signal_itself(void)
{
	return kill(getpid(), 0);
}

static int
signal_parent(void)
{
	return kill(getppid(), 0);
}

static int
connect_to(uint16_t port)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(port) };
	REAL(connect);
	int fd = socket(AF_INET, SOCK_STREAM, 0), r;

	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	r = real(fd, (struct sockaddr *)&in, sizeof(in));
	close(fd);
	return r;
}

static int
listen_on_a_port(void)
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	int fd = socket(AF_INET, SOCK_STREAM, 0), r;

	r = bind(fd, (struct sockaddr *)&in, sizeof(in));
	close(fd);
	return r;
}

/* The system selects the port. */
static int
listen_without_bind(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0), r = listen(fd, 1);

	close(fd);
	return r;
}

/* TCP Fast Open: connect to port 1. */
static int
send_at_once(int way)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(1) };
	struct iovec iov = { "a", 1 };
	struct mmsghdr m = { { &in, sizeof(in), &iov, 1, NULL, 0, 0 }, 0 };
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	ssize_t r;

	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (way == 0)
		r = sendto(fd, "a", 1, MSG_FASTOPEN, (struct sockaddr *)&in, sizeof(in));
	else if (way == 1)
		r = sendmsg(fd, &m.msg_hdr, MSG_FASTOPEN);
	else
		r = sendmmsg(fd, &m, 1, MSG_FASTOPEN);
	close(fd);
	return (int)r;
}

static void
try_all(const char *dir)
{
	int here = open(".", O_PATH | O_CLOEXEC);

	if (chdir(dir) == -1)
		abort();
	TRY("execve", in_a_child(run));
	TRY("execveat", in_a_child(run_descriptor));
	TRY("ptrace", in_a_child(trace));
	TRY("setuid", in_a_child(become));
	TRY("signal-itself", signal_itself());
	TRY("signal-parent", signal_parent());
	TRY("process_vm_readv", syscall(SYS_process_vm_readv, getpid(), NULL, 0, NULL, 0, 0));
	TRY("mount", syscall(SYS_mount, "none", dir, "tmpfs", 0, NULL));
	TRY("unshare", syscall(SYS_unshare, 0));
#ifndef __s390x__ /* the flags are the second argument */
	TRY("clone", in_a_child(make_namespace));
#endif
	TRY("clone3", syscall(435, NULL, 0));
	TRY("keyctl", syscall(SYS_keyctl, 0, -3, 0, 0, 0));
	TRY("bpf", syscall(SYS_bpf, 0, NULL, 0));
	TRY("io_uring", syscall(425, 1, NULL));
	TRY("chmod", fchmodat(AT_FDCWD, "file", 0600, 0));
	TRY("removexattr", removexattr("file", "user.a"));
	TRY("lremovexattr", lremovexattr("file", "user.a"));
	TRY("fremovexattr", fremovexattr(here, "user.a"));
	TRY("removexattrat", syscall(466, AT_FDCWD, "file", 0, "user.a"));
	TRY("truncate", truncate("file", 0));
#ifdef SYS_open
	TRY("open-truncate", syscall(SYS_open, "file", O_ACCMODE | O_TRUNC));
#endif
	TRY("openat-truncate", syscall(SYS_openat, AT_FDCWD, "file", O_ACCMODE | O_TRUNC));
	TRY("openat2", open_how("file"));
#ifndef SYS_socketcall
	TRY("unix", in_a_child(unix_socket));
	TRY("unix-pair", in_a_child(unix_pair));
	TRY("listen", listen_without_bind());
	TRY("mptcp", socket(AF_INET, SOCK_STREAM, 262));
	TRY("smc", socket(AF_INET, SOCK_STREAM, 256));
	TRY("af-smc", socket(43, SOCK_STREAM, 0));
	TRY("sendto", send_at_once(0));
	TRY("sendmsg", send_at_once(1));
	TRY("sendmmsg", send_at_once(2));
#endif
#ifdef __x86_64__
	TRY("x32", syscall(0x40000000 + SYS_getpid));
#endif
	TRY("read", open("file", O_RDONLY));
	TRY("write", open("file", O_WRONLY));
	TRY("create", open("new", O_WRONLY | O_CREAT, 0600));
	TRY("remove", unlink("old"));
	TRY("mkdir", mkdir("dir", 0700));
	TRY("symlink", symlink("file", "link"));
	TRY("list", open(".", O_RDONLY | O_DIRECTORY));
	TRY("passwd", open("/etc/passwd", O_RDONLY));
	TRY("connect", connect_to(1));
	TRY("bind", listen_on_a_port());
	if (fchdir(here) == -1 || close(here) == -1)
		abort();
}

int
connect(int fd, const struct sockaddr *sa, socklen_t len)
{
	static const char *dir;
	REAL(connect);

	if (dir == NULL && (dir = getenv("CONFINED_TRY")) != NULL)
		try_all(dir);
	return real(fd, sa, len);
}

int
prctl(int option, ...)
{
	int (*real)(int, ...) = (int (*)(int, ...))dlsym(RTLD_NEXT, "prctl");
	unsigned long a[4];
	va_list ap;
	int i;

	if (getenv("CONFINED_OLD") != NULL) {
		errno = EINVAL;
		return -1;
	}
	va_start(ap, option);
	for (i = 0; i < 4; i++)
		a[i] = va_arg(ap, unsigned long);
	va_end(ap);
	return real(option, a[0], a[1], a[2], a[3]);
}

long
syscall(long number, ...)
{
	long (*real)(long, ...) = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
	long a[6];
	va_list ap;
	int i;

	if (number >= 444 && number <= 446 && getenv("CONFINED_OLD") != NULL) {
		errno = ENOSYS;
		return -1;
	}
	va_start(ap, number);
	for (i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
