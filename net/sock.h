/*
 * net/sock.h - listening sockets, addresses and paths.
 */
#ifndef NET_SOCK_H
#define NET_SOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

struct endpoint;

#define SOCK_NAME 80       /* "[" + IPv6 (INET6_ADDRSTRLEN: 46) + "%" + a scope + "]:65535" */
#define SOCK_ADDRS 8       /* addresses of one name that are tried or listened on */
#define SOCK_PATH_MAX 4096 /* no longer path is taken */

struct sock_addrs {
	int n;
	socklen_t len[SOCK_ADDRS];
	struct sockaddr_storage addr[SOCK_ADDRS];
};

struct listener {
	int fd;               /* -1: closed */
	bool guarded;         /* loopback TCP: only this user and root may connect */
	char name[SOCK_NAME]; /* TCP: the bound address */
	const char *path;     /* Unix: borrowed from the endpoint; NULL: TCP */
	dev_t dev;            /* Unix: the file that is ours to remove */
	ino_t ino;
	int64_t resume; /* no accept before this time; 0: accepts */
};

/*
 * sock_resolve(ep, out): fill ${out} with the addresses that the TCP end ${ep} names, in the order to try them; 0 or an EAI_ code.
 * May wait for a name server: in the loop, use lookup.c.  "localhost" is 127.0.0.1 and ::1 without asking anybody
 * (RFC 6761 6.3).
 * sock_numeric(ep, out): the same for an end that needs no name server; false if it needs one.
 */
int sock_resolve(const struct endpoint *ep, struct sock_addrs *out);
bool sock_numeric(const struct endpoint *ep, struct sock_addrs *out);

/*
 * sock_listen(ep, tab):
 * Listen on ${ep}: fill entries of ${tab} and return how many, at least 1.  A bare port is bound on every loopback family that
 * exists, or not at all.  A socket file that a connect proves dead is replaced, and that is told.  Of several starts on one path
 * one succeeds; the others may wait for it, some seconds at most.  On failure say why, close and remove all that was begun, and
 * return -1.  May wait for a name server.
 * sock_listen_at(ep, addrs, tab): the same on ${addrs}, the addresses of the TCP end ${ep}; never waits.
 */
int sock_listen(const struct endpoint *ep, struct listener tab[SOCK_ADDRS]);
int sock_listen_at(
    const struct endpoint *ep, const struct sock_addrs *addrs, struct listener tab[SOCK_ADDRS]);

/*
 * sock_accept(l, name): take a waiting connection, what to call its peer into ${name} (SOCK_NAME bytes).  EAGAIN: none waits;
 * EACCES: it was not this user's, and was reset and told.
 */
int sock_accept(const struct listener *l, char *name);

/* sock_unlisten(l): close ${l}; remove its socket file if the file there is still the one that it made. */
void sock_unlisten(struct listener *l);

/* sock_bound(l): where it listens, as a user writes it; ${l} keeps it. */
const char *sock_bound(const struct listener *l);

/*
 * sock_open(family): a stream socket; TCP_NODELAY where it is TCP, for a 1-byte message must not wait for an acknowledgement.
 * sock_connect_path(fd, path): connect(2) to a Unix socket whose path may be longer than sun_path.
 * sock_reset(fd): close the TCP socket ${fd} so that its peer sees a reset.
 * sock_name(addr, dst): "127.0.0.1:80" or "[::1]:80" into ${dst} (SOCK_NAME bytes).
 */
int sock_open(int family);
int sock_connect_path(int fd, const char *path);
void sock_reset(int fd);
void sock_name(const struct sockaddr *addr, char *dst);

#endif
