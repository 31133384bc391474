/*
 * net/endpoint.c - the ends that the command line names: text to struct
 * endpoint.
 *
 * Each error names the wrong part and shows a correct example.
 */
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/unixpath.h"
#include "spawn.h"
#include "net/endpoint.h"

static bool
all_digits(const char *s)
{
	return s[strspn(s, "0123456789")] == '\0';
}

/* Return the port of ${text}, a number or a service name; -1: no port. */
static long
port_number(const char *text)
{
	const struct servent *service;
	long port;

	if (*text == '\0')
		return -1;
	if (all_digits(text)) {
		port = strtol(text, NULL, 10);
		return port <= 65535 ? port : -1;
	}
	service = getservbyname(text, "tcp");
	return service == NULL ? -1 : (long)ntohs((uint16_t)service->s_port);
}

static bool
parse_port(
    struct endpoint *ep, const char *text, const char *port, bool listens, char *why, size_t size)
{
	long n = port_number(port);

	if (n == -1) {
		snprintf(why, size,
		    "\"%s\": \"%s\" is not a port; a port is a number up to 65535 or a service "
		    "name, as in localhost:8888",
		    text, port);
		return false;
	}
	if (n == 0 && !listens) {
		snprintf(why, size,
		    "\"%s\": port 0 can only be listened on; to connect, give a port, as in "
		    "localhost:8888",
		    text);
		return false;
	}
	ep->port = (uint16_t)n;
	return true;
}

static bool
parse_path(struct endpoint *ep, const char *text, char *why, size_t size)
{
	size_t len = strlen(text);

	if (len >= UNIXPATH_MAX) {
		snprintf(why, size, "the path \"%.40s...\" has %zu bytes; the limit is %d", text,
		    len, UNIXPATH_MAX - 1);
		return false;
	}
	if (text[len - 1] == '/') {
		snprintf(why, size,
		    "\"%s\" names a directory; give the path of a socket in it, as in %sapp.sock",
		    text, text);
		return false;
	}
	ep->kind = ENDPOINT_UNIX;
	ep->path = text;
	return true;
}

/* Without a colon, the text is a port of this host. */
static bool
parse_bare(struct endpoint *ep, const char *text, bool listens, char *why, size_t size)
{
	if (!all_digits(text) && port_number(text) == -1) {
		snprintf(why, size,
		    "\"%s\" is neither a port nor HOST:PORT nor a path; the path of a socket in "
		    "this directory is ./%s",
		    text, text);
		return false;
	}
	strcpy(ep->host, "localhost");
	return parse_port(ep, text, text, listens, why, size);
}

static bool
parse_tcp(struct endpoint *ep, const char *text, bool listens, char *why, size_t size)
{
	const char *colon = strrchr(text, ':');
	const char *host = text;
	size_t len;

	ep->kind = ENDPOINT_TCP;
	if (colon == NULL)
		return parse_bare(ep, text, listens, why, size);
	len = (size_t)(colon - text);
	if (text[0] == '[' && len > 2 && text[len - 1] == ']') {
		host++;
		len -= 2;
	} else if (memchr(text, ':', len) != NULL || text[0] == '[') {
		snprintf(why, size,
		    "\"%s\": an IPv6 address needs brackets before its port, as in [::1]:8888",
		    text);
		return false;
	}
	if (len == 0) {
		snprintf(why, size, "\"%s\" has no host; localhost:8888 is this host%s", text,
		    listens ? ", *:8888 is every address" : "");
		return false;
	}
	if (len >= sizeof(ep->host)) {
		snprintf(why, size, "the host in \"%.40s...\" has %zu characters; the limit is 253",
		    text, len);
		return false;
	}
	memcpy(ep->host, host, len);
	ep->host[len] = '\0';
	if (!listens && strcmp(ep->host, "*") == 0) {
		snprintf(why, size,
		    "\"%s\": * is every address, and can only be listened on; to connect, give a "
		    "host, as in localhost:8888",
		    text);
		return false;
	}
	return parse_port(ep, text, colon + 1, listens, why, size);
}

bool
endpoint_parse(struct endpoint *ep, const char *text, bool listens, char *why, size_t size)
{
	memset(ep, 0, sizeof(*ep));
	if (*text == '\0') {
		snprintf(why, size,
		    "an end is empty; examples of ends are 8888, localhost:8888, ./app.sock and -");
		return false;
	}
	if (strcmp(text, "-") == 0) {
		ep->kind = ENDPOINT_STDIO;
		return true;
	}
	if (strchr(text, '/') != NULL)
		return parse_path(ep, text, why, size);
	return parse_tcp(ep, text, listens, why, size);
}

void
endpoint_command(struct endpoint *ep, char *const argv[])
{
	*ep = (struct endpoint){ .kind = ENDPOINT_COMMAND, .argv = argv };
}

const char *
endpoint_name(const struct endpoint *ep, char *dst, size_t size)
{
	switch (ep->kind) {
	case ENDPOINT_TCP:
		snprintf(dst, size, strchr(ep->host, ':') ? "[%s]:%u" : "%s:%u", ep->host,
		    (unsigned)ep->port);
		break;
	case ENDPOINT_UNIX:
		snprintf(dst, size, "%s", ep->path);
		break;
	case ENDPOINT_STDIO:
		snprintf(dst, size, "stdio");
		break;
	case ENDPOINT_COMMAND:
		snprintf(dst, size, "%s", spawn_name(ep->argv[0]));
		break;
	}
	return dst;
}
