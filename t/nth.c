/*
 * nth.c - a preloaded library that makes one system call of one relay fail,
 * once.  check-faults uses it.
 *
 *   cc -shared -fPIC -o nth.so nth.c -ldl
 *   LD_PRELOAD=./nth.so NTH_DIR=. NTH='near read pipe-nb 2 5' ./relay ...
 *
 *   NTH_DIR=D      the library appends to D/log, one line each:
 *                    start PID ROLE                      a relay started
 *                    call PID ROLE CALL WHAT SIZE SITE   a call (NTH_RECORD=1)
 *                    hit PID ROLE CALL WHAT              the call that failed
 *                    crash PID ROLE SIGNAL
 *   NTH='ROLE CALL WHAT K E'
 *                  In the relay of that ROLE the K-th CALL on WHAT fails with
 *                  errno E.  If E is 0, it moves one byte.  If E is 1000 + N,
 *                  getaddrinfo returns -N.  Only the first relay of that role
 *                  is affected (D/once).
 *   NTH_SPEED=N    The clocks of each relay run N times as fast.
 *
 * ROLE is `far` for the far side of a link, `try` for relay -V, and `near` for
 * any other.  ROLE/N is the N-th child process of such a relay until its exec.
 * WHAT is the kind of the call's descriptor, with -nb if it is non-blocking, or
 * a word for the call's purpose.  Two kinds are separate: one byte written to a
 * pipe (by a signal handler), and memory that libc allocates for itself.
 *
 * A call that fails has no effect, with two exceptions: close() closes the
 * descriptor, and an interrupted connect() continues.
 */
#define _GNU_SOURCE
/* As in relay: glibc then gives open() the name open64, and so on. */
#define _FILE_OFFSET_BITS 64
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define REAL(name)                     \
	static __typeof__(name) *real; \
	if (real == NULL)              \
	real = (__typeof__(real))find(#name)
#define SITE __builtin_return_address(0)
#define NOT_DUE -1

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);

static int inside = 1; /* calls of this library itself are not counted */
static int recording;
static char role[64], dir[256];
static char *own_begin, *own_end; /* relay's own code */
static unsigned forks;
static int speed = 1;

static struct {
	char role[64], call[32], what[32];
	long k;
	int e;
} aim;
static long seen;

/* The function of that name, with files of 64 bits if there are two. */
static void *
find(const char *name)
{
	char name64[64];
	void *p;

	inside++;
	snprintf(name64, sizeof(name64), "%s64", name);
	p = dlsym(RTLD_NEXT, name64);
	if (p == NULL)
		p = dlsym(RTLD_NEXT, name);
	inside--;
	return p;
}

static int
open_in_dir(const char *name, int flags)
{
	char path[sizeof(dir) + 16];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return open(path, flags | O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
}

static void
log_line(const char *format, ...)
{
	char line[512];
	va_list ap;
	int fd, n;

	inside++;
	n = snprintf(line, sizeof(line), "%.*s %ld %s ", (int)strcspn(format, " "), format,
	    (long)getpid(), role);
	va_start(ap, format);
	n += vsnprintf(
	    line + n, sizeof(line) - (size_t)n - 1, format + strcspn(format, " ") + 1, ap);
	va_end(ap);
	line[n++] = '\n';
	fd = open_in_dir("log", O_APPEND);
	if (fd == -1 || write(fd, line, (size_t)n) != n)
		abort();
	close(fd);
	inside--;
}

static void
on_crash(int sig)
{
	log_line("crash %d", sig);
	raise(sig);
}

static const char *
role_of(int argc, char *argv[])
{
	int link = 0, stdio = 0, i;

	if (argc == 2 && strcmp(argv[1], "-V") == 0)
		return "try";
	if (argc > 2 && strcmp(argv[1], "-k") == 0 && strcmp(argv[2], "join") == 0)
		return "join";
	for (i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
		link = link || strcmp(argv[i], "-m") == 0;
		stdio = stdio || strcmp(argv[i], "-") == 0;
	}
	return link && stdio && i == argc ? "far" : "near";
}

/* The first object is the program. */
static int
take_own(struct dl_phdr_info *info, size_t size, void *arg)
{
	char *base = (char *)info->dlpi_addr;
	int i;

	(void)size;
	(void)arg;
	for (i = 0; i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_LOAD &&
		    (info->dlpi_phdr[i].p_flags & PF_X) != 0) {
			own_begin = base + info->dlpi_phdr[i].p_vaddr;
			own_end = own_begin + info->dlpi_phdr[i].p_memsz;
		}
	return 1;
}

__attribute__((constructor)) static void
begin(int argc, char *argv[])
{
	static const int crashes[] = { SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL };
	const char *at = getenv("NTH_DIR"), *text = getenv("NTH"), *fast = getenv("NTH_SPEED");
	struct sigaction sa = { .sa_handler = on_crash, .sa_flags = (int)SA_RESETHAND };
	size_t i;

	if (strncmp(program_invocation_short_name, "relay", 5) != 0 || at == NULL)
		return;
	snprintf(dir, sizeof(dir), "%s", at);
	snprintf(role, sizeof(role), "%s", role_of(argc, argv));
	recording = getenv("NTH_RECORD") != NULL;
	if (fast != NULL)
		speed = atoi(fast);
	if (text != NULL && sscanf(text, "%63s %31s %31s %ld %d", aim.role, aim.call, aim.what,
				&aim.k, &aim.e) != 5)
		abort();
	for (i = 0; i < sizeof(crashes) / sizeof(crashes[0]); i++)
		sigaction(crashes[i], &sa, NULL);
	dl_iterate_phdr(take_own, NULL);
	log_line("start -");
	inside = 0;
}

/* ---- the kind of a call ---- */

static const char *
family_of(int domain)
{
	return domain == AF_UNIX                         ? "unix"
	       : domain == AF_INET || domain == AF_INET6 ? "tcp"
							 : "netlink";
}

static const char *
kind_of(int fd)
{
	socklen_t len = sizeof(int);
	struct stat st;
	int domain = 0;

	if (fstat(fd, &st) == -1)
		return "closed";
	if (S_ISSOCK(st.st_mode)) {
		getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len);
		return family_of(domain);
	}
	return S_ISFIFO(st.st_mode)  ? "pipe"
	       : S_ISREG(st.st_mode) ? "file"
	       : S_ISDIR(st.st_mode) ? "dir"
				     : "device";
}

static const char *
what_of(int fd)
{
	static char what[32];
	int saved = errno, flags;

	if (inside)
		return "";
	inside++;
	flags = fcntl(fd, F_GETFL);
	snprintf(what, sizeof(what), "%s%s", kind_of(fd),
	    flags != -1 && (flags & O_NONBLOCK) != 0 ? "-nb" : "");
	inside--;
	errno = saved;
	return what;
}

/* Log a call with its place in the program, in the form of addr2line. */
static void
record(const char *call, const char *what, size_t size, void *site)
{
	Dl_info info;
	const char *slash;

	inside++;
	if (dladdr(site, &info) == 0)
		log_line("call %s %s %zu ?", call, what, size);
	else {
		slash = strrchr(info.dli_fname, '/');
		log_line("call %s %s %zu %s+%#zx", call, what, size,
		    slash == NULL ? info.dli_fname : slash + 1,
		    (size_t)((char *)site - (char *)info.dli_fbase) - 1);
	}
	inside--;
}

/* Return NOT_DUE, or E of NTH if this call must fail. */
static int
due(const char *call, const char *what, size_t size, void *site)
{
	int saved = errno, fd;

	if (inside)
		return NOT_DUE;
	if (recording)
		record(call, what, size, site);
	errno = saved;
	if (strcmp(call, aim.call) != 0 || strcmp(what, aim.what) != 0 ||
	    strcmp(role, aim.role) != 0 || ++seen != aim.k)
		return NOT_DUE;
	inside++;
	fd = open_in_dir("once", O_EXCL);
	if (fd != -1)
		close(fd);
	inside--;
	errno = saved;
	if (fd == -1)
		return NOT_DUE;
	log_line("hit %s %s", call, what);
	errno = aim.e > 0 ? aim.e : saved;
	return aim.e;
}

/* True if the call must fail; errno is set then. */
static int
fails(const char *call, const char *what, void *site)
{
	return due(call, what, 0, site) > 0;
}

/* ---- bytes ---- */

static size_t
cut(int e, size_t n)
{
	return e == 0 && n > 1 ? 1 : n;
}

ssize_t
read(int fd, void *p, size_t n)
{
	int e = due("read", what_of(fd), n, SITE);

	REAL(read);
	return e > 0 ? -1 : real(fd, p, cut(e, n));
}

ssize_t
write(int fd, const void *p, size_t n)
{
	const char *what = what_of(fd);
	int e = due("write", n == 1 && strncmp(what, "pipe", 4) == 0 ? "pipe-byte" : what, n, SITE);

	REAL(write);
	return e > 0 ? -1 : real(fd, p, cut(e, n));
}

static size_t
size_of(const struct iovec *v, int n)
{
	size_t size = 0;

	while (n-- > 0)
		size += v[n].iov_len;
	return size;
}

ssize_t
readv(int fd, const struct iovec *v, int n)
{
	int e = due("read", what_of(fd), size_of(v, n), SITE);
	struct iovec one = { v[0].iov_base, 1 };

	REAL(readv);
	return e > 0 ? -1 : e == 0 ? real(fd, &one, 1) : real(fd, v, n);
}

ssize_t
writev(int fd, const struct iovec *v, int n)
{
	int e = due("write", what_of(fd), size_of(v, n), SITE);
	struct iovec one = { v[0].iov_base, 1 };

	REAL(writev);
	return e > 0 ? -1 : e == 0 ? real(fd, &one, 1) : real(fd, v, n);
}

ssize_t
recv(int fd, void *p, size_t n, int flags)
{
	int e = due("recv", what_of(fd), n, SITE);

	REAL(recv);
	return e > 0 ? -1 : real(fd, p, cut(e, n), flags);
}

ssize_t
send(int fd, const void *p, size_t n, int flags)
{
	int e = due("send", what_of(fd), n, SITE);

	REAL(send);
	return e > 0 ? -1 : real(fd, p, cut(e, n), flags);
}

ssize_t
sendmsg(int fd, const struct msghdr *m, int flags)
{
	REAL(sendmsg);
	return fails("sendmsg", what_of(fd), SITE) ? -1 : real(fd, m, flags);
}

ssize_t
recvmsg(int fd, struct msghdr *m, int flags)
{
	REAL(recvmsg);
	return fails("recvmsg", what_of(fd), SITE) ? -1 : real(fd, m, flags);
}

ssize_t
splice(int in, off64_t *inoff, int out, off64_t *outoff, size_t n, unsigned flags)
{
	char what[72];
	int e;

	snprintf(what, sizeof(what), "%s", what_of(in));
	snprintf(what + strlen(what), sizeof(what) - strlen(what), ",%s", what_of(out));
	e = due("splice", what, n, SITE);
	REAL(splice);
	return e > 0 ? -1 : real(in, inoff, out, outoff, cut(e, n), flags);
}

int
vdprintf(int fd, const char *format, va_list ap)
{
	REAL(vdprintf);
	return fails("dprintf", what_of(fd), SITE) ? -1 : real(fd, format, ap);
}

int
dprintf(int fd, const char *format, ...)
{
	va_list ap;
	int n;

	va_start(ap, format);
	n = vdprintf(fd, format, ap);
	va_end(ap);
	return n;
}

/* dprintf with _FORTIFY_SOURCE. */
int
__dprintf_chk(int fd, int level, const char *format, ...)
{
	va_list ap;
	int n;

	(void)level;
	va_start(ap, format);
	n = vdprintf(fd, format, ap);
	va_end(ap);
	return n;
}

int
fflush(FILE *f)
{
	REAL(fflush);
	if (!fails("fflush", f == stdout ? what_of(STDOUT_FILENO) : "-", SITE))
		return real(f);
	__fpurge(f);
	return EOF;
}

/* ---- descriptors ---- */

int
close(int fd)
{
	const char *what = what_of(fd);
	int r, failed = strcmp(what, "closed") != 0 && fails("close", what, SITE), e = errno;

	REAL(close);
	r = real(fd);
	if (failed)
		errno = e;
	return failed ? -1 : r;
}

int
open(const char *path, int flags, ...)
{
	mode_t mode = 0;
	va_list ap;

	REAL(open);
	if ((flags & O_CREAT) != 0) {
		va_start(ap, flags);
		mode = va_arg(ap, mode_t);
		va_end(ap);
	}
	return fails("open", (flags & O_CREAT) != 0 ? "create" : "read", SITE)
		   ? -1
		   : real(path, flags, mode);
}

int
ftruncate(int fd, off_t n)
{
	REAL(ftruncate);
	return fails("ftruncate", what_of(fd), SITE) ? -1 : real(fd, n);
}

int
dup2(int old, int new)
{
	REAL(dup2);
	return fails("dup2", what_of(old), SITE) ? -1 : real(old, new);
}

int
socketpair(int family, int type, int protocol, int fd[2])
{
	REAL(socketpair);
	return fails("socketpair", "-", SITE) ? -1 : real(family, type, protocol, fd);
}

int
pipe(int fd[2])
{
	REAL(pipe);
	return fails("pipe", "-", SITE) ? -1 : real(fd);
}

static const char *
name_of(int cmd)
{
	switch (cmd) {
	case F_DUPFD:
	case F_DUPFD_CLOEXEC:
		return "dupfd";
	case F_SETPIPE_SZ:
		return "setpipe_sz";
	default:
		return "flags";
	}
}

int
fcntl(int fd, int cmd, ...)
{
	va_list ap;
	long arg;

	REAL(fcntl);
	va_start(ap, cmd);
	arg = va_arg(ap, long);
	va_end(ap);
	return fails("fcntl", name_of(cmd), SITE) ? -1 : real(fd, cmd, arg);
}

int
poll(struct pollfd *p, nfds_t n, int timeout)
{
	REAL(poll);
	if (timeout > 0)
		timeout = (timeout + speed - 1) / speed;
	return fails("poll", "-", SITE) ? -1 : real(p, n, timeout);
}

int
clock_gettime(clockid_t id, struct timespec *ts)
{
	long long ns;
	int r;

	REAL(clock_gettime);
	r = real(id, ts);
	ns = (long long)ts->tv_nsec * speed;
	ts->tv_sec = ts->tv_sec * speed + (time_t)(ns / 1000000000);
	ts->tv_nsec = (long)(ns % 1000000000);
	return r;
}

static const char *
name_of_call(long number)
{
	switch (number) {
	case 436:
		return "close_range";
	case 444:
		return "landlock_ruleset";
	case 445:
		return "landlock_rule";
	case 446:
		return "landlock_restrict";
	default:
		return "-";
	}
}

long
syscall(long number, ...)
{
	long a[6];
	va_list ap;
	int i;

	REAL(syscall);
	va_start(ap, number);
	for (i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (fails("syscall", name_of_call(number), SITE))
		return -1;
	/* With Landlock, this library could not append to its log. */
	return number == 446 ? 0 : real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int
prctl(int option, ...)
{
	const char *what = option == PR_SET_NO_NEW_PRIVS ? "no_new_privs"
			   : option == PR_SET_SECCOMP    ? "seccomp"
							 : "-";
	unsigned long a[4];
	va_list ap;
	int i;

	REAL(prctl);
	va_start(ap, option);
	for (i = 0; i < 4; i++)
		a[i] = va_arg(ap, unsigned long);
	va_end(ap);
	return fails("prctl", what, SITE) ? -1 : real(option, a[0], a[1], a[2], a[3]);
}

/* ---- sockets ---- */

int
socket(int domain, int type, int protocol)
{
	REAL(socket);
	return fails("socket", family_of(domain), SITE) ? -1 : real(domain, type, protocol);
}

int
bind(int fd, const struct sockaddr *sa, socklen_t len)
{
	REAL(bind);
	return fails("bind", what_of(fd), SITE) ? -1 : real(fd, sa, len);
}

int
listen(int fd, int backlog)
{
	REAL(listen);
	return fails("listen", what_of(fd), SITE) ? -1 : real(fd, backlog);
}

int
accept(int fd, struct sockaddr *sa, socklen_t *len)
{
	REAL(accept);
	return fails("accept", what_of(fd), SITE) ? -1 : real(fd, sa, len);
}

int
accept4(int fd, struct sockaddr *sa, socklen_t *len, int flags)
{
	REAL(accept4);
	return fails("accept", what_of(fd), SITE) ? -1 : real(fd, sa, len, flags);
}

int
connect(int fd, const struct sockaddr *sa, socklen_t len)
{
	int e = due("connect", what_of(fd), 0, SITE), r;

	REAL(connect);
	if (e > 0 && e != EINTR)
		return -1;
	r = real(fd, sa, len);
	if (e == EINTR && (r == 0 || errno == EINPROGRESS)) {
		errno = EINTR;
		r = -1;
	}
	return r;
}

int
shutdown(int fd, int how)
{
	REAL(shutdown);
	return fails("shutdown", what_of(fd), SITE) ? -1 : real(fd, how);
}

int
getsockname(int fd, struct sockaddr *sa, socklen_t *len)
{
	REAL(getsockname);
	return fails("getsockname", what_of(fd), SITE) ? -1 : real(fd, sa, len);
}

int
getpeername(int fd, struct sockaddr *sa, socklen_t *len)
{
	REAL(getpeername);
	return fails("getpeername", what_of(fd), SITE) ? -1 : real(fd, sa, len);
}

int
getsockopt(int fd, int level, int name, void *p, socklen_t *len)
{
	REAL(getsockopt);
	return fails("getsockopt", what_of(fd), SITE) ? -1 : real(fd, level, name, p, len);
}

int
setsockopt(int fd, int level, int name, const void *p, socklen_t len)
{
	REAL(setsockopt);
	return fails("setsockopt", what_of(fd), SITE) ? -1 : real(fd, level, name, p, len);
}

int
getaddrinfo(
    const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **list)
{
	int e = due("getaddrinfo",
	    hints != NULL && (hints->ai_flags & AI_NUMERICHOST) != 0 ? "numeric" : "name", 0, SITE);

	REAL(getaddrinfo);
	if (e <= 0)
		return real(host, service, hints, list);
	errno = EMFILE; /* for EAI_SYSTEM */
	return 1000 - e;
}

/* ---- files ---- */

int
access(const char *path, int mode)
{
	REAL(access);
	return fails("access", "-", SITE) ? -1 : real(path, mode);
}

ssize_t
readlink(const char *path, char *p, size_t n)
{
	REAL(readlink);
	return fails("readlink", "-", SITE) ? -1 : real(path, p, n);
}

int
stat(const char *path, struct stat *st)
{
	REAL(stat);
	return fails("stat", "-", SITE) ? -1 : real(path, st);
}

int
lstat(const char *path, struct stat *st)
{
	REAL(lstat);
	return fails("lstat", "-", SITE) ? -1 : real(path, st);
}

int
fstat(int fd, struct stat *st)
{
	REAL(fstat);
	return fails("fstat", what_of(fd), SITE) ? -1 : real(fd, st);
}

int
statfs(const char *path, struct statfs *st)
{
	REAL(statfs);
	return fails("statfs", "-", SITE) ? -1 : real(path, st);
}

int
unlink(const char *path)
{
	REAL(unlink);
	return fails("unlink", "-", SITE) ? -1 : real(path);
}

int
rmdir(const char *path)
{
	REAL(rmdir);
	return fails("rmdir", "-", SITE) ? -1 : real(path);
}

int
link(const char *from, const char *to)
{
	REAL(link);
	return fails("link", "-", SITE) ? -1 : real(from, to);
}

int
symlink(const char *from, const char *to)
{
	REAL(symlink);
	return fails("symlink", "-", SITE) ? -1 : real(from, to);
}

int
rename(const char *from, const char *to)
{
	REAL(rename);
	return fails("rename", "-", SITE) ? -1 : real(from, to);
}

int
mkdir(const char *path, mode_t mode)
{
	int r;

	REAL(mkdir);
	r = fails("mkdir", "-", SITE) ? -1 : real(path, mode);
	if (r == 0 && !inside)
		log_line("made %s", path);
	return r;
}

DIR *
opendir(const char *path)
{
	REAL(opendir);
	return fails("opendir", "-", SITE) ? NULL : real(path);
}

DIR *
fdopendir(int fd)
{
	REAL(fdopendir);
	return fails("fdopendir", "-", SITE) ? NULL : real(fd);
}

int
openat(int at, const char *path, int flags, ...)
{
	REAL(openat);
	return fails("openat", "-", SITE) ? -1 : real(at, path, flags);
}

int
unlinkat(int at, const char *path, int flags)
{
	REAL(unlinkat);
	return fails("unlinkat", "-", SITE) ? -1 : real(at, path, flags);
}

int
fchmod(int fd, mode_t mode)
{
	REAL(fchmod);
	return fails("fchmod", "-", SITE) ? -1 : real(fd, mode);
}

int
setenv(const char *name, const char *value, int overwrite)
{
	REAL(setenv);
	return fails("setenv", "-", SITE) ? -1 : real(name, value, overwrite);
}

int
chdir(const char *path)
{
	REAL(chdir);
	return fails("chdir", "-", SITE) ? -1 : real(path);
}

int
fchdir(int fd)
{
	REAL(fchdir);
	return fails("fchdir", "-", SITE) ? -1 : real(fd);
}

/* ---- processes ---- */

pid_t
fork(void)
{
	size_t n = strlen(role);
	pid_t pid;

	REAL(fork);
	if (fails("fork", "-", SITE))
		return -1;
	forks += !inside;
	pid = real();
	if (pid != 0 || inside)
		return pid;
	snprintf(role + n, sizeof(role) - n, "/%u", forks);
	forks = 0;
	seen = 0;
	log_line("start -");
	return 0;
}

int
execvp(const char *file, char *const argv[])
{
	REAL(execvp);
	return fails("execvp", "-", SITE) ? -1 : real(file, argv);
}

pid_t
waitpid(pid_t pid, int *status, int flags)
{
	REAL(waitpid);
	return fails("waitpid", (flags & WNOHANG) != 0 ? "nohang" : "-", SITE)
		   ? -1
		   : real(pid, status, flags);
}

/* ---- memory ---- */

static const char *
owner(void *site)
{
	return (char *)site >= own_begin && (char *)site < own_end ? "relay" : "libc";
}

void *
malloc(size_t n)
{
	return due("malloc", owner(SITE), n, SITE) > 0 ? NULL : __libc_malloc(n);
}

void *
calloc(size_t n, size_t size)
{
	return due("calloc", owner(SITE), n * size, SITE) > 0 ? NULL : __libc_calloc(n, size);
}

char *
strdup(const char *text)
{
	REAL(strdup);
	return fails("strdup", "-", SITE) ? NULL : real(text);
}

char *
strndup(const char *text, size_t n)
{
	REAL(strndup);
	return fails("strndup", "-", SITE) ? NULL : real(text, n);
}

void *
mmap(void *p, size_t n, int protection, int flags, int fd, off_t offset)
{
	REAL(mmap);
	return fails("mmap", "-", SITE) ? MAP_FAILED : real(p, n, protection, flags, fd, offset);
}

void *
realloc(void *p, size_t n)
{
	return due("realloc", owner(SITE), n, SITE) > 0 ? NULL : __libc_realloc(p, n);
}
