/*
 * net/listen.c - listening sockets, and the connections that they accept.
 *
 * Every user of a host can connect to its loopback ports.  So where the system
 * can find the user of a client, a loopback listener accepts only clients of
 * this user and of root.
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "net/addr.h"
#include "net/endpoint.h"
#include "net/unixpath.h"
#include "net/listen.h"

#define PORT_TRIES 32 /* for a port that is free on both addresses */

/* ---- listening ---- */

static in_port_t *
port_of(struct sockaddr_storage *sa)
{
	return sa->ss_family == AF_INET6 ? &((struct sockaddr_in6 *)(void *)sa)->sin6_port
					 : &((struct sockaddr_in *)(void *)sa)->sin_port;
}

/* Listen on ${addr} and fill ${l}.  ${bound} is ${addr} with the real port. */
static int
open_one(
    const struct sockaddr *addr, socklen_t len, struct listener *l, struct sockaddr_storage *bound)
{
	const struct sockaddr_in6 *in6 = (const void *)addr;
	socklen_t bound_len = sizeof(*bound);
	int on = 1, only;

	memset(l, 0, sizeof(*l));
	l->fd = os_socket(addr->sa_family);
	if (l->fd == -1)
		return -1;
	setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (addr->sa_family == AF_INET6) {
		/* IPv4 has its own socket, except for mapped addresses. */
		only = !IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr);
		setsockopt(l->fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof(only));
	}
	if (bind(l->fd, addr, len) == -1 || listen(l->fd, OS_BACKLOG) == -1 ||
	    getsockname(l->fd, (struct sockaddr *)bound, &bound_len) == -1) {
		os_close(&l->fd);
		return -1;
	}
	l->check_uid = addr_is_loopback((struct sockaddr *)bound);
	addr_name((struct sockaddr *)bound, l->name);
	return 0;
}

/*
 * Listen on all of ${addrs}.  For port 0 the system picks the port of the first
 * address, and all others get the same port.  If ${lenient}, leave out
 * addresses of a family that this host does not have.  Return how many
 * listeners there are, or -1 with the failed address in ${*failed}.  Then
 * ${*held} is the socket of the first address, or -1.
 */
static int
open_all(struct addr_list *addrs, bool lenient, struct listener *tab, int *failed, int *held)
{
	struct sockaddr_storage *sa, bound;
	in_port_t port = 0;
	int i, n = 0;

	*held = -1;
	for (i = 0; i < addrs->n; i++) {
		sa = &addrs->addr[i];
		if (port != 0)
			*port_of(sa) = port;
		if (open_one((struct sockaddr *)sa, addrs->len[i], &tab[n], &bound) == 0) {
			if (*port_of(sa) == 0)
				port = *port_of(&bound);
			n++;
		} else if (!lenient || (errno != EAFNOSUPPORT && errno != EADDRNOTAVAIL)) {
			if (n > 0)
				*held = tab[0].fd;
			while (--n > 0)
				os_close(&tab[n].fd);
			*failed = i;
			return -1;
		}
	}
	if (n > 0)
		return n;
	*failed = 0;
	errno = EADDRNOTAVAIL;
	return -1;
}

static const char *
advice(int e, uint16_t port)
{
	switch (e) {
	case EADDRINUSE:
		if (port == 0)
			return "; no port is free on all addresses: listen on one, as in "
			       "127.0.0.1:0";
		return "; another program has that port: choose another port, or 0 to let the "
		       "system pick one";
	case EADDRNOTAVAIL:
		return "; this host does not have that address: PORT alone listens on loopback, "
		       "*:PORT on all addresses";
	case EACCES:
		return port > 0 && port < 1024
			   ? "; ports below 1024 are reserved for root: choose a higher port"
			   : "";
	default:
		return "";
	}
}

/* The addresses of ${host} have one port: name the listeners as one. */
static void
join_names(struct listener *tab, int n, const char *host)
{
	const char *port = strrchr(tab[0].name, ':');
	char name[ADDR_NAME];
	int i;

	snprintf(name, sizeof(name), "%.9s%s", host, port);
	for (i = 0; i < n; i++)
		strcpy(tab[i].name, name);
}

static int
open_addrs(const struct endpoint *ep, const struct addr_list *addrs, struct listener *tab,
    char *why, size_t size)
{
	bool lenient = strcmp(ep->host, "localhost") == 0 || strcmp(ep->host, "*") == 0;
	int held[PORT_TRIES], e, n, failed = 0, tries = 0;
	struct addr_list tried;
	char name[ADDR_NAME];

	/* While a socket is held, the system does not pick its port again. */
	do {
		tried = *addrs;
		n = open_all(&tried, lenient, tab, &failed, &held[tries]);
		e = errno;
	} while (held[tries++] != -1 && e == EADDRINUSE && ep->port == 0 && tries < PORT_TRIES);
	while (tries-- > 0)
		os_close(&held[tries]);
	if (n == -1) {
		addr_name((struct sockaddr *)&tried.addr[failed], name);
		snprintf(
		    why, size, "cannot listen on %s: %s%s", name, strerror(e), advice(e, ep->port));
	}
	if (lenient && n > 1)
		join_names(tab, n, ep->host);
	return n;
}

int
listener_open(const struct endpoint *ep, const struct addr_list *addrs, int64_t wait_us,
    struct listener tab[ADDR_MAX], char *why, size_t size)
{
	char name[ENDPOINT_NAME];
	struct addr_list found;
	int e;

	if (ep->kind == ENDPOINT_UNIX) {
		tab[0] = (struct listener){ .fd = -1 };
		tab[0].fd = unixpath_listen(&tab[0].file, ep->path, wait_us, why, size);
		return tab[0].fd == -1 ? -1 : 1;
	}
	if (addrs != NULL)
		return open_addrs(ep, addrs, tab, why, size);
	e = addr_resolve(ep, &found);
	if (e == 0)
		return open_addrs(ep, &found, tab, why, size);
	snprintf(why, size, "cannot listen on %s: %s; a source is an address of this host",
	    endpoint_name(ep, name, sizeof(name)), gai_strerror(e));
	return -1;
}

const char *
listener_name(const struct listener *l)
{
	return l->file.path != NULL ? l->file.path : l->name;
}

void
listener_close(struct listener *l, int64_t wait_us)
{
	if (l->fd == -1)
		return;
	/* Close last: while the file exists, its socket must be in use. */
	if (l->file.path != NULL)
		unixpath_remove(&l->file, wait_us);
	os_close(&l->fd);
}

/* ---- accepting ---- */

/* May the client of ${fd} connect?  If not, log the reason. */
static bool
client_allowed(const struct listener *l, int fd, const struct sockaddr *peer)
{
	struct sockaddr_storage local;
	socklen_t len = sizeof(local);
	uid_t uid = 0;
	char why[160];
	int known = -1;

	if (getsockname(fd, (struct sockaddr *)&local, &len) == 0)
		known = os_peer_uid(peer, (struct sockaddr *)&local, &uid);
	/*
	 * If the client has reset the connection by now, its port may have been
	 * free during the look-up.  Then the answer can be for another process.
	 */
	if (known == 1 && os_error(fd) != 0) {
		known = -1;
		errno = ENOENT;
	}
	if (known == 0 || (known == 1 && (uid == geteuid() || uid == 0)))
		return true;
	if (known == 1)
		snprintf(why, sizeof(why), "it is a process of uid %lu", (unsigned long)uid);
	else if (errno == ENOENT)
		snprintf(why, sizeof(why),
		    "its user was not found: it has closed its socket, or the kernel does not "
		    "report the user");
	else
		snprintf(why, sizeof(why), "its user cannot be found: %s", strerror(errno));
	log_failure(LOG_NOTICE, "refused a client on %s: %s; -a accepts all users", l->name, why);
	return false;
}

int
listener_accept(const struct listener *l, char *name)
{
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);
	int fd, on = 1;

	memset(&peer, 0, sizeof(peer));
	do
		fd = os_accept(l->fd, (struct sockaddr *)&peer, &len);
	while (fd == -1 && (errno == EINTR || errno == ECONNABORTED));
	if (fd == -1)
		return -1;
	if (l->file.path != NULL) {
		snprintf(name, ADDR_NAME, "a client");
		return fd;
	}
	/* An empty address, macOS: the client has gone already. */
	if (len == 0 || (l->check_uid && !client_allowed(l, fd, (struct sockaddr *)&peer))) {
		os_reset(fd);
		errno = EACCES;
		return -1;
	}
	addr_name((struct sockaddr *)&peer, name);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return fd;
}
