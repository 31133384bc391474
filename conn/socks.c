/*
 * conn/socks.c - the handshake of a client of -D.
 *
 *   SOCKS 5:       methods --> request --> complete or refused
 *   SOCKS 4, 4a:               request --> complete or refused
 *
 * Host names are sent as they are, because the far side resolves them.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "mux/mux.h"
#include "net/endpoint.h"
#include "conn/fdpair.h"
#include "conn/socks.h"

#define CONNECT 1
#define NO_METHOD 0xff

static bool
refuse(struct socks *s, unsigned char code, const char *why)
{
	s->state = SOCKS_REFUSED;
	s->code = code;
	s->why = why;
	return false;
}

size_t
socks_needs(const struct socks *s)
{
	return s->state != SOCKS_READING ? 0 : (s->needs == 0 ? 2 : s->needs) - s->have;
}

static void
take_target(struct socks *s, const char *host, const unsigned char *port)
{
	snprintf(s->target, sizeof(s->target), strchr(host, ':') != NULL ? "[%s]:%u" : "%s:%u",
	    host, (unsigned)(port[0] << 8 | port[1]));
	s->state = SOCKS_COMPLETE;
}

/* A name becomes part of a target, so it must have no other meaning there. */
static bool
take_name(struct socks *s, char *dst, const unsigned char *name, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (name[i] <= ' ' || name[i] >= 0x7f || strchr("/[]=", name[i]) != NULL)
			return refuse(s, MUX_UNUSABLE, "the host name in its request is not valid");
	if (n == 0 || n >= ENDPOINT_HOST)
		return refuse(s, MUX_UNUSABLE, "the host name in its request is empty or too long");
	memcpy(dst, name, n);
	dst[n] = '\0';
	return true;
}

/* ---- version 5 ---- */

/* VER NMETHODS METHODS */
static size_t
take_methods(struct socks *s, unsigned char *answer)
{
	size_t count = s->in[1];

	if (s->have < 2 + count) {
		s->needs = 2 + count;
		return 0;
	}
	answer[0] = 5;
	answer[1] = memchr(s->in + 2, 0, count) != NULL ? 0 : NO_METHOD;
	s->methods_read = answer[1] == 0;
	if (!s->methods_read)
		refuse(
		    s, MUX_FORBIDDEN, "it requires authentication, which relay does not support");
	s->have = 0;
	s->needs = 5; /* up to the first byte of the address, which may be a length */
	return 2;
}

/* VER CMD RSV ATYP ADDR PORT; at least five bytes were read. */
static void
take_request5(struct socks *s)
{
	size_t length = s->in[3] == 1   ? 4
			: s->in[3] == 4 ? 16
			: s->in[3] == 3 ? (size_t)s->in[4] + 1
					: 0;
	char host[ENDPOINT_HOST];

	if (s->in[0] != 5) {
		refuse(s, MUX_PROTOCOL, "the version in its request is not 5");
		return;
	}
	if (length == 0) {
		s->reply = 8;
		refuse(s, MUX_UNUSABLE, "the address in its request is of an unknown type");
		return;
	}
	if (s->have < 4 + length + 2) {
		s->needs = 4 + length + 2;
		return;
	}
	if (s->in[1] != CONNECT) {
		s->reply = 7;
		refuse(s, MUX_UNUSABLE, "its request has a command other than CONNECT");
		return;
	}
	if (s->in[3] == 3) {
		if (!take_name(s, host, s->in + 5, s->in[4]))
			return;
	} else {
		inet_ntop(s->in[3] == 1 ? AF_INET : AF_INET6, s->in + 4, host, sizeof(host));
	}
	take_target(s, host, s->in + 4 + length);
}

/* ---- version 4 ---- */

/*
 * VN CD PORT IP USERID NUL.  With an IP of 0.0.0.x (4a), a name and NUL follow.
 * The length of both texts is unknown, so they are read byte by byte.
 */
static void
take_request4(struct socks *s)
{
	unsigned char *user = s->in + 8, *end = s->in + s->have, *name;
	bool named = s->in[4] == 0 && s->in[5] == 0 && s->in[6] == 0 && s->in[7] != 0;
	char host[ENDPOINT_HOST];

	if (s->have < 9) {
		s->needs = 9;
		return;
	}
	name = memchr(user, '\0', (size_t)(end - user));
	if (name != NULL)
		name++;
	if (name == NULL || (named && memchr(name, '\0', (size_t)(end - name)) == NULL)) {
		if (s->have == sizeof(s->in))
			refuse(s, MUX_UNUSABLE, "its request is too long");
		else
			s->needs = s->have + 1;
		return;
	}
	if (s->in[1] != CONNECT) {
		refuse(s, MUX_UNUSABLE, "its request has a command other than CONNECT");
		return;
	}
	if (!named)
		inet_ntop(AF_INET, s->in + 4, host, sizeof(host));
	else if (!take_name(s, host, name, strlen((char *)name)))
		return;
	take_target(s, host, s->in + 2);
}

size_t
socks_feed(struct socks *s, size_t n, unsigned char answer[SOCKS_REPLY])
{
	s->have += n;
	if (s->state != SOCKS_READING || (s->needs != 0 && s->have < s->needs) || s->have < 2)
		return 0;
	s->version = s->methods_read ? 5 : s->in[0];
	if (s->version == 5 && !s->methods_read)
		return take_methods(s, answer);
	if (s->version == 5)
		take_request5(s);
	else if (s->version == 4)
		take_request4(s);
	else
		refuse(s, MUX_PROTOCOL, "it sent neither SOCKS 4 nor SOCKS 5");
	return 0;
}

/* The reply field: RFC 1928, section 6. */
static unsigned char
reply5(const struct socks *s, uint16_t code)
{
	if (s->reply != 0)
		return s->reply;
	switch (code) {
	case MUX_END:
		return 0;
	case MUX_FORBIDDEN:
	case MUX_NO_PERMISSION:
		return 2;
	case MUX_NO_ROUTE:
	case MUX_NO_NAME:
	case MUX_TIMEOUT:
		return 4;
	case MUX_REFUSED:
		return 5;
	default:
		return 1;
	}
}

size_t
socks_reply(const struct socks *s, uint16_t code, unsigned char dst[SOCKS_REPLY])
{
	memset(dst, 0, SOCKS_REPLY);
	if (s->version == 4) {
		dst[1] = code == MUX_END ? 90 : 91;
		return 8;
	}
	if (!s->methods_read) /* the client understands no reply */
		return 0;
	dst[0] = 5;
	dst[1] = reply5(s, code);
	dst[3] = 1; /* bound to 0.0.0.0:0: only the far side has the address */
	return 10;
}

/* ---- I/O ---- */

/* The client waits for a short answer, so its socket has room for all of it. */
static int
send_answer(const struct fdpair *fds, const unsigned char *p, size_t n)
{
	ssize_t w;

	if (n == 0)
		return 0;
	do
		w = write(fds->out, p, n);
	while (w == -1 && errno == EINTR);
	if (w == (ssize_t)n)
		return 0;
	return w == -1 ? errno : EAGAIN;
}

int
socks_read(struct socks *s, struct fdpair *fds)
{
	unsigned char answer[SOCKS_REPLY];
	ssize_t n = read(fds->in, s->in + s->have, socks_needs(s));

	if (n == 0)
		return -1;
	if (n == -1)
		return errno == EAGAIN || errno == EINTR ? 0 : errno;
	return send_answer(fds, answer, socks_feed(s, (size_t)n, answer));
}

int
socks_answer(const struct socks *s, const struct fdpair *fds, uint16_t code)
{
	unsigned char reply[SOCKS_REPLY];

	return send_answer(fds, reply, socks_reply(s, code, reply));
}
