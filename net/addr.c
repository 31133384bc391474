/*
 * net/addr.c - TCP addresses: a name to addresses, an address to text.
 */
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "net/endpoint.h"
#include "net/addr.h"

static void
add_addr(struct addr_list *out, const void *addr, socklen_t len)
{
	if (out->n == ADDR_MAX)
		return;
	memcpy(&out->addr[out->n], addr, len);
	out->len[out->n++] = len;
}

static void
add_both(struct addr_list *out, uint16_t port, bool loopback)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };

	in.sin_addr.s_addr = htonl(loopback ? INADDR_LOOPBACK : INADDR_ANY);
	in6.sin6_addr = loopback ? in6addr_loopback : in6addr_any;
	add_addr(out, &in, sizeof(in));
	add_addr(out, &in6, sizeof(in6));
}

static int
resolve(const struct endpoint *ep, int flags, struct addr_list *out)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV };
	bool loopback = strcmp(ep->host, "localhost") == 0;
	struct addrinfo *list, *ai;
	char port[8];
	int e;

	out->n = 0;
	if (loopback || strcmp(ep->host, "*") == 0) {
		add_both(out, ep->port, loopback);
		return 0;
	}
	snprintf(port, sizeof(port), "%u", (unsigned)ep->port);
	e = getaddrinfo(ep->host, port, &hints, &list);
	if (e != 0)
		return e;
	for (ai = list; ai != NULL; ai = ai->ai_next)
		if (ai->ai_family == AF_INET || ai->ai_family == AF_INET6)
			add_addr(out, ai->ai_addr, ai->ai_addrlen);
	freeaddrinfo(list);
	return out->n == 0 ? EAI_NONAME : 0;
}

int
addr_resolve(const struct endpoint *ep, struct addr_list *out)
{
	return resolve(ep, 0, out);
}

bool
addr_numeric(const struct endpoint *ep, struct addr_list *out)
{
	return resolve(ep, AI_NUMERICHOST, out) == 0;
}

bool
addr_is_loopback(const struct sockaddr *addr)
{
	const struct sockaddr_in6 *in6 = (const void *)addr;
	const struct sockaddr_in *in = (const void *)addr;

	if (addr->sa_family == AF_INET)
		return ntohl(in->sin_addr.s_addr) >> 24 == 127;
	if (addr->sa_family != AF_INET6)
		return false;
	return IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr) ||
	       (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr) && in6->sin6_addr.s6_addr[12] == 127);
}

void
addr_name(const struct sockaddr *addr, char *dst)
{
	const struct sockaddr_in6 *in6 = (const void *)addr;
	const struct sockaddr_in *in = (const void *)addr;
	char host[INET6_ADDRSTRLEN] = "?", scope[16] = "";

	if (addr->sa_family == AF_INET) {
		inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
		snprintf(dst, ADDR_NAME, "%s:%u", host, (unsigned)ntohs(in->sin_port));
		return;
	}
	inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
	if (in6->sin6_scope_id != 0)
		snprintf(scope, sizeof(scope), "%%%lu", (unsigned long)in6->sin6_scope_id);
	snprintf(dst, ADDR_NAME, "[%s%s]:%u", host, scope, (unsigned)ntohs(in6->sin6_port));
}
