/*
 * net/addr.h - TCP addresses: a name to addresses, an address to text.
 *
 * A host name can have several addresses.  "localhost" and "*" are resolved
 * here: each has one address of IPv4 and one of IPv6.
 */
#ifndef NET_ADDR_H
#define NET_ADDR_H

#include <stdbool.h>
#include <sys/socket.h>

struct endpoint;

#define ADDR_NAME 80 /* "[" + IPv6 (INET6_ADDRSTRLEN: 46) + "%" + a scope + "]:65535" */
#define ADDR_MAX 8   /* addresses of one name that are used */

struct addr_list {
	int n;
	socklen_t len[ADDR_MAX];
	struct sockaddr_storage addr[ADDR_MAX];
};

/*
 * addr_resolve(ep, out):
 * Fill ${out} with the addresses of the TCP endpoint ${ep}, in the order of
 * the attempts.  Addresses after the first ADDR_MAX are dropped.
 * "localhost" is 127.0.0.1 and then ::1, without a name server (RFC 6761 6.3).
 * Return 0 or an EAI_ code of getaddrinfo(3).  May block for a name server: the
 * event loop uses net/lookup.h instead.
 *
 * addr_numeric(ep, out):
 * The same without a name server.  If the name needs one, return false with
 * ${out} empty.
 */
int addr_resolve(const struct endpoint *ep, struct addr_list *out);
bool addr_numeric(const struct endpoint *ep, struct addr_list *out);

/*
 * addr_is_loopback(addr):
 * Can only processes of this host connect to ${addr}?  These are 127.0.0.0/8,
 * ::1, and the IPv4-mapped addresses of 127.0.0.0/8.
 */
bool addr_is_loopback(const struct sockaddr *addr);

/*
 * addr_name(addr, dst):
 * Write the IPv4 or IPv6 address ${addr} and its port to ${dst}, which has
 * ADDR_NAME bytes: "127.0.0.1:80" or "[::1]:80".
 */
void addr_name(const struct sockaddr *addr, char *dst);

#endif
