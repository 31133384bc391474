/* net.h - loopback sockets of the tests */
#ifndef T_NET_H
#define T_NET_H
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/un.h>
#include "t/all.h"
#include "t/check.h"

/* Can this system find the user of a connection?  See os_peer_uid. */
static inline bool
has_peer_uid(void)
{
	const struct sockaddr_in in = { .sin_family = AF_INET };
	uid_t uid;

	return os_peer_uid((const struct sockaddr *)&in, (const struct sockaddr *)&in, &uid) != 0;
}

static inline socklen_t
loopback(int family, uint16_t port, struct sockaddr_storage *sa)
{
	struct sockaddr_in *in = (void *)sa;
	struct sockaddr_in6 *in6 = (void *)sa;

	memset(sa, 0, sizeof(*sa));
	sa->ss_family = (sa_family_t)family;
	if (family == AF_INET) {
		in->sin_port = htons(port);
		in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		return sizeof(*in);
	}
	in6->sin6_port = htons(port);
	in6->sin6_addr = in6addr_loopback;
	return sizeof(*in6);
}

/*
 * Return a socket that is bound to ${*port} of loopback, or -1.  If ${*port} is
 * 0, it becomes the port that the system has chosen.
 */
static inline int
tcp_bound(int family, uint16_t *port)
{
	struct sockaddr_storage sa;
	socklen_t len = loopback(family, *port, &sa);
	int fd = socket(family, SOCK_STREAM, 0), on = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&sa, len) == -1 ||
	    getsockname(fd, (struct sockaddr *)&sa, &len) == -1) {
		close(fd);
		return -1;
	}
	*port = ntohs(
	    ((struct sockaddr_in *)(void *)&sa)->sin_port); /* sin6_port has the same offset */
	return fd;
}

static inline int
tcp_listener(int family, uint16_t *port)
{
	int fd = tcp_bound(family, port);

	ck_assert_int_eq(listen(fd, 64), 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

static inline int
tcp_connect(int family, uint16_t port)
{
	struct sockaddr_storage sa;
	socklen_t len = loopback(family, port, &sa);
	int fd = socket(family, SOCK_STREAM, 0);

	ck_assert_int_eq(connect(fd, (struct sockaddr *)&sa, len), 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

/* Make ${fd} a connected pair of non-blocking sockets. */
static inline void
tcp_pair(int fd[2])
{
	uint16_t port = 0;
	int l = tcp_listener(AF_INET, &port);

	fd[0] = tcp_connect(AF_INET, port);
	WAIT_FOR((fd[1] = accept(l, NULL, NULL)) != -1);
	fcntl(fd[1], F_SETFL, O_NONBLOCK);
	close(l);
}

static inline void
reset(int fd)
{
	struct linger now = { 1, 0 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(fd);
}

/* Return a Unix listener of any socket type. */
static inline int
unix_listener(const char *path, int type, int backlog)
{
	struct sockaddr_un sa;
	int fd = socket(AF_UNIX, type, 0);

	memset(&sa, 0, sizeof(sa));
	sa.sun_family = AF_UNIX;
	ck_assert_uint_lt(strlen(path), sizeof(sa.sun_path));
	strcpy(sa.sun_path, path);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	if (type == SOCK_STREAM)
		ck_assert_int_eq(listen(fd, backlog), 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

/* Work in a new directory; remove it.  For tcase_add_unchecked_fixture. */
static char own_dir[] = "/tmp/relay-check-XXXXXX";

static inline void
enter_dir(void)
{
	if (mkdtemp(own_dir) == NULL || chdir(own_dir) == -1)
		abort();
}

static inline void
leave_dir(void)
{
	char cmd[64];

	snprintf(cmd, sizeof(cmd), "rm -rf %s", own_dir);
	if (chdir("/") == -1 || system(cmd) != 0)
		fprintf(stderr, "could not remove %s\n", own_dir);
}

/*
 * Lock ${path} in a child process, as a relay does that starts to listen there.
 * Return the descriptor whose close ends that process.
 */
static inline int
lock_elsewhere(const char *path)
{
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int end[2], ready[2], fd;
	char c;

	ck_assert(pipe(end) == 0 && pipe(ready) == 0);
	if (fork() == 0) {
		close(end[1]);
		fd = open(path, O_RDWR | O_CREAT, 0600);
		if (fd == -1 || fcntl(fd, F_SETLK, &whole) == -1 || write(ready[1], "", 1) != 1)
			_exit(1);
		_exit(read(end[0], &c, 1) != 0);
	}
	close(end[0]);
	ck_assert_int_eq(read(ready[0], &c, 1), 1);
	close(ready[0]);
	close(ready[1]);
	return end[1];
}

static inline uint16_t
free_port(void)
{
	uint16_t port = 0;

	close(tcp_bound(AF_INET, &port));
	return port;
}

/* Return a TCP port that answers no SYN: its backlog is full. */
static inline uint16_t
silent_port(void)
{
	struct sockaddr_storage sa;
	uint16_t port = 0;
	int l = tcp_bound(AF_INET, &port), fd;
	struct pollfd p = { .events = POLLOUT };
	socklen_t len = loopback(AF_INET, port, &sa);

	ck_assert_int_eq(listen(l, 0), 0);
	do {
		p.fd = fd = socket(AF_INET, SOCK_STREAM, 0);
		fcntl(fd, F_SETFL, O_NONBLOCK);
		connect(fd, (struct sockaddr *)&sa, len);
	} while (poll(&p, 1, 50) == 1);
	return port;
}

/* Read and drop what has come at ${fd}; return how many bytes. */
static inline size_t
drained(int fd)
{
	char room[65536];
	size_t all = 0;
	ssize_t n;

	while ((n = read(fd, room, sizeof(room))) > 0)
		all += (size_t)n;
	return all;
}

#endif
