/*
 * net/endpoint.h - the ends that the command line names.
 *
 * An endpoint is "-" (stdin and stdout), a text with a '/' (the path of a Unix
 * socket), or TCP: PORT, HOST:PORT or [IPv6]:PORT, where PORT is a number or a
 * service name.  A command is an endpoint too, but has no text form.
 */
#ifndef NET_ENDPOINT_H
#define NET_ENDPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * In other files, each kind without a case of its own is a socket address.  So
 * a new kind of address needs changes in endpoint.c and addr.c only.
 */
enum endpoint_kind { ENDPOINT_TCP, ENDPOINT_UNIX, ENDPOINT_STDIO, ENDPOINT_COMMAND };

#define ENDPOINT_HOST 256 /* a DNS name has at most 253 characters (RFC 1035 2.3.4) */
#define ENDPOINT_NAME 320 /* room for endpoint_name; a longer path is cut */

struct endpoint {
	enum endpoint_kind kind;
	char host[ENDPOINT_HOST]; /* TCP: without brackets; "*": every address */
	uint16_t port;            /* TCP, host byte order; 0: the system picks one */
	const char *path;         /* Unix: borrowed from the parsed text */
	char *const *argv;        /* command: borrowed, ends with NULL */
};

/*
 * endpoint_parse(ep, text, listens, why, size):
 * Parse ${text}, which must outlive ${ep}.  ${listens} is true if relay listens
 * on it, false if it connects to it.  A bare port gets the host "localhost".
 * If ${text} is wrong, write one line with the error and a correct example to
 * ${why}, and return false.  The call may read the system's list of service
 * names.
 */
bool endpoint_parse(struct endpoint *ep, const char *text, bool listens, char *why, size_t size);

/* endpoint_command(ep, argv): Make ${ep} the command ${argv} (borrowed). */
void endpoint_command(struct endpoint *ep, char *const argv[]);

/*
 * endpoint_name(ep, dst, size):
 * Write a name of ${ep} for messages to ${dst}, and return ${dst}.  A command
 * is named by the last part of its path.
 */
const char *endpoint_name(const struct endpoint *ep, char *dst, size_t size);

#endif
