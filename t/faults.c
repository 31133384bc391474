/*
 * faults.c - a preloaded library that adds every fault a system may show.
 *
 *   cc -shared -fPIC -o faults.so faults.c -ldl
 *   LD_PRELOAD=./faults.so FAULTS_SHORT=1 FAULTS_EINTR=5 ./relay ...
 *
 *   FAULTS_SHORT=1   calls on non-blocking descriptors, and reads of 512 bytes
 *                    and more, move one byte
 *   FAULTS_EINTR=N   one call in N fails with EINTR; N > 1
 *   FAULTS_EAGAIN=N  one call in N on a non-blocking socket or pipe fails with
 *                    EAGAIN
 *   FAULTS_SEED=N    the seed of the random numbers
 *   FAULTS_COUNT=F   at exit the number of faults is written to F
 *   FAULTS_MODES=F   the mode of each socket file directly after its bind() is
 *                    appended to F
 *   FAULTS_LISTEN=N  N milliseconds pass before each listen()
 *   FAULTS_LOOKUP=1  no look-up of a name ends
 *   FAULTS_NAMES=D   names that begin with "fake" are looked up here.  Each
 *                    look-up appends a line to D/asked, waits while D/hold
 *                    exists, and returns 127.0.0.1.  "fakeless" is unknown.
 *
 * Faults that no system shows are left out.  Small reads and writes on blocking
 * descriptors stay complete (POSIX 2.9.7, PIPE_BUF).  One byte always fits into
 * a pipe that is not full; signal handlers depend on it.  Netlink sockets are
 * left alone, because they are not streams.  Only programs named relay are
 * affected, not the commands that they run.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define REAL(name)                     \
	static __typeof__(name) *real; \
	if (real == NULL)              \
	real = (__typeof__(real))dlsym(RTLD_NEXT, #name)

static int cut;
static long eintr, eagain, made;
static unsigned long long random_state = 88172645463325252ULL;

static long
setting(const char *name)
{
	const char *text = getenv(name);

	return text == NULL ? 0 : atol(text);
}

__attribute__((constructor)) static void
begin(void)
{
	if (strcmp(program_invocation_short_name, "relay") != 0)
		return;
	cut = setting("FAULTS_SHORT") != 0;
	eintr = setting("FAULTS_EINTR");
	eagain = setting("FAULTS_EAGAIN");
	random_state += (unsigned long long)setting("FAULTS_SEED") * 2654435761ULL;
}

__attribute__((destructor)) static void
end(void)
{
	const char *name = getenv("FAULTS_COUNT");
	FILE *f = name == NULL || strcmp(program_invocation_short_name, "relay") != 0
		      ? NULL
		      : fopen(name, "w");

	if (f == NULL)
		return;
	fprintf(f, "%ld\n", made);
	fclose(f);
}

/* True once in n calls, at random (xorshift64). */
static int
one_in(long n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return n > 0 && random_state % (unsigned long long)n == 0;
}

static int
is_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags != -1 && (flags & O_NONBLOCK) != 0;
}

static int
is_stream(int fd)
{
	socklen_t len = sizeof(int);
	int type = SOCK_STREAM;

	getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len); /* fails for pipes and files */
	return type == SOCK_STREAM;
}

/* True if the call on fd must fail; errno is set then. */
static int
fails(int fd)
{
	int saved = errno;

	if (!is_stream(fd)) {
		errno = saved;
		return 0;
	}
	if (one_in(eintr))
		errno = EINTR;
	else if (one_in(eagain) && is_nonblocking(fd))
		errno = EAGAIN;
	else {
		errno = saved;
		return 0;
	}
	made++;
	return 1;
}

static size_t
shorten(int fd, size_t n)
{
	if (!cut || n <= 1 || !is_nonblocking(fd) || !is_stream(fd))
		return n;
	made++;
	return 1;
}

ssize_t
read(int fd, void *p, size_t n)
{
	REAL(read);
	if (fails(fd))
		return -1;
	return real(fd, p, cut && n >= 512 ? (made++, 1) : n);
}

ssize_t
write(int fd, const void *p, size_t n)
{
	struct stat st;

	REAL(write);
	if (n == 1 && fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode))
		return real(fd, p, n);
	return fails(fd) ? -1 : real(fd, p, shorten(fd, n));
}

ssize_t
recv(int fd, void *p, size_t n, int flags)
{
	REAL(recv);
	return fails(fd) ? -1 : real(fd, p, n >= 512 ? shorten(fd, n) : n, flags);
}

ssize_t
send(int fd, const void *p, size_t n, int flags)
{
	REAL(send);
	return fails(fd) ? -1 : real(fd, p, n, flags);
}

ssize_t
readv(int fd, const struct iovec *v, int n)
{
	struct iovec one = { v[0].iov_base, v[0].iov_len > 0 };

	REAL(readv);
	if (fails(fd))
		return -1;
	return cut ? (made++, real(fd, &one, 1)) : real(fd, v, n);
}

ssize_t
writev(int fd, const struct iovec *v, int n)
{
	struct iovec one = { v[0].iov_base, v[0].iov_len > 0 };

	REAL(writev);
	if (fails(fd))
		return -1;
	return cut && is_nonblocking(fd) ? (made++, real(fd, &one, 1)) : real(fd, v, n);
}

ssize_t
splice(int in, off64_t *inoff, int out, off64_t *outoff, size_t n, unsigned flags)
{
	REAL(splice);
	return fails(in) || fails(out) ? -1 : real(in, inoff, out, outoff, shorten(in, n), flags);
}

ssize_t
sendmsg(int fd, const struct msghdr *m, int flags)
{
	REAL(sendmsg);
	return fails(fd) ? -1 : real(fd, m, flags);
}

int
poll(struct pollfd *p, nfds_t n, int timeout)
{
	REAL(poll);
	if (one_in(eintr)) {
		made++;
		errno = EINTR;
		return -1;
	}
	return real(p, n, timeout);
}

int
accept(int fd, struct sockaddr *sa, socklen_t *len)
{
	REAL(accept);
	return fails(fd) ? -1 : real(fd, sa, len);
}

int
accept4(int fd, struct sockaddr *sa, socklen_t *len, int flags)
{
	REAL(accept4);
	return fails(fd) ? -1 : real(fd, sa, len, flags);
}

/* An interrupted connect continues in the background (POSIX connect). */
int
connect(int fd, const struct sockaddr *sa, socklen_t len)
{
	int r;

	REAL(connect);
	r = real(fd, sa, len);
	if (sa->sa_family == AF_UNIX || (r == -1 && errno != EINPROGRESS) || !one_in(eintr))
		return r;
	made++;
	errno = EINTR;
	return -1;
}

int
bind(int fd, const struct sockaddr *sa, socklen_t len)
{
	const char *name = getenv("FAULTS_MODES");
	struct stat st;
	FILE *f;
	int r;

	REAL(bind);
	r = real(fd, sa, len);
	if (r == -1 || name == NULL || sa->sa_family != AF_UNIX)
		return r;
	f = fopen(name, "a");
	if (f != NULL && stat(((const struct sockaddr_un *)sa)->sun_path, &st) == 0)
		fprintf(f, "%o\n", (unsigned)st.st_mode & 07777);
	if (f != NULL)
		fclose(f);
	return 0;
}

int
listen(int fd, int backlog)
{
	long ms = setting("FAULTS_LISTEN");
	struct timespec left = { ms / 1000, ms % 1000 * 1000000 };

	REAL(listen);
	while (ms > 0 && nanosleep(&left, &left) == -1 && errno == EINTR)
		;
	return real(fd, backlog);
}

/* Landlock would keep this library from writing its files. */
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
	return number == 446 /* landlock_restrict_self */ ? 0
			     : real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int
getaddrinfo(
    const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **list)
{
	const char *dir = getenv("FAULTS_NAMES");
	char path[256];
	FILE *f;

	REAL(getaddrinfo);
	while (setting("FAULTS_LOOKUP") != 0 &&
	       (hints == NULL || (hints->ai_flags & AI_NUMERICHOST) == 0))
		pause();
	if (dir == NULL || host == NULL || strncmp(host, "fake", 4) != 0 ||
	    (hints->ai_flags & AI_NUMERICHOST) != 0)
		return real(host, service, hints, list);
	snprintf(path, sizeof(path), "%s/asked", dir);
	f = fopen(path, "a");
	if (f != NULL) {
		fprintf(f, "%s\n", host);
		fclose(f);
	}
	snprintf(path, sizeof(path), "%s/hold", dir);
	while (access(path, F_OK) == 0)
		poll(NULL, 0, 5);
	return strncmp(host, "fakeless", 8) == 0 ? EAI_NONAME
						 : real("127.0.0.1", service, hints, list);
}
