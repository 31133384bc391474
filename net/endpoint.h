/*
 * net/endpoint.h - the ends that the command line names.
 */
#ifndef NET_ENDPOINT_H
#define NET_ENDPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum endpoint_kind { ENDPOINT_TCP, ENDPOINT_UNIX, ENDPOINT_STDIO, ENDPOINT_COMMAND };

#define ENDPOINT_HOST 256 /* a DNS name has at most 253 characters (RFC 1035 2.3.4) */
#define ENDPOINT_NAME 320 /* room for endpoint_name(); a longer path is shortened */

struct endpoint {
	enum endpoint_kind kind;
	char host
	    [ENDPOINT_HOST]; /* TCP: without brackets; "localhost" for a bare port, "*" for every address */
	uint16_t port;     /* TCP, host byte order; 0: the system picks */
	const char *path;  /* Unix: borrowed from the text that was parsed */
	char *const *argv; /* command: borrowed, ends with NULL */
};

/*
 * endpoint_parse(ep, text, listens, why, size):
 * Read ${text} as an end, FROM if ${listens}, else TO, into ${ep}.  ${text} must outlive ${ep}.  Return false with one line
 * in ${why} (${size} bytes) that says what is wrong and shows a right one.  Looks up service names, does nothing else outside.
 */
bool endpoint_parse(struct endpoint *ep, const char *text, bool listens, char *why, size_t size);

/* endpoint_command(ep, argv): make ${ep} the command ${argv}, which must outlive it. */
void endpoint_command(struct endpoint *ep, char *const argv[]);

/* endpoint_name(ep, dst, size): write what people call ${ep} into ${dst}; return ${dst}. */
const char *endpoint_name(const struct endpoint *ep, char *dst, size_t size);

#endif
