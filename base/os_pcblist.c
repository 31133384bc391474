/*
 * base/os_pcblist.c - searches the list of TCP sockets of macOS and FreeBSD.
 *
 * base/os_darwin.c and base/os_bsd.c include this file.
 *
 * A list begins and ends with a record of a fixed size, and each record begins
 * with its length.  On FreeBSD, whose lengths have 8 bytes, a socket is one
 * record.  On macOS, whose lengths have 4, a socket is several records of
 * different kinds, which begin at multiples of 8 bytes.
 */
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/os_pcblist.h"

#define TRIES 5 /* if the list grows between two calls */

#define KIND 4 /* the offset of the kind in a record of macOS */
#define KIND_SOCKET 0x01
#define KIND_INPCB 0x10
#define KIND_TCPCB 0x20

#define VFLAG_IPV4 0x1
#define VFLAG_IPV6 0x2
#define STATE_SYN_SENT 2

/* Computed from the structures of XNU, which are packed to 4 bytes. */
const struct pcblist_form pcblist_darwin = { .head = 24,
	.length = 4,
	.inpcb = 80,
	.sock = 68,
	.tcpcb = 40,
	.fport = 16,
	.lport = 18,
	.vflag = 44,
	.faddr = 48,
	.laddr = 64,
	.socket = 8,
	.uid = 64,
	.state = 36 };

struct address {
	uint16_t port; /* network byte order */
	size_t from;   /* the first byte that counts: 12 for IPv4 */
	unsigned char bytes[16];
};

/* The socket to find, and what was read of the current one. */
struct search {
	struct address peer, local;
	bool match, open;
	uint32_t uid;
	int users; /* -1: sockets of several users match */
	uint32_t user;
};

static void
take_address(struct address *a, const struct sockaddr *sa)
{
	const struct sockaddr_in6 *in6 = (const void *)sa;
	const struct sockaddr_in *in = (const void *)sa;

	if (sa->sa_family == AF_INET) {
		a->port = in->sin_port;
		a->from = 12;
		memcpy(a->bytes + 12, &in->sin_addr, 4);
		return;
	}
	a->port = in6->sin6_port;
	a->from = IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr) ? 12 : 0;
	memcpy(a->bytes, &in6->sin6_addr, 16);
}

static bool
is_address(const struct address *a, const unsigned char *port, const unsigned char *bytes)
{
	return memcmp(port, &a->port, 2) == 0 &&
	       memcmp(bytes + a->from, a->bytes + a->from, 16 - a->from) == 0;
}

/*
 * Read a record with some parts of a socket, or all.  The part of TCP is the
 * last one.  Two kinds of sockets do not count.  Closed: the record has uid 0.
 * Still connecting: the client has closed, and this new socket got its port.
 * Return false if the record is cut.
 */
static bool
take_record(const struct pcblist_form *form, struct search *s, const unsigned char *p, size_t n)
{
	int valid = s->peer.from == 12 ? VFLAG_IPV4 : VFLAG_IPV6;
	uint32_t kind = KIND_INPCB | KIND_SOCKET | KIND_TCPCB, state;
	uint64_t so;

	if (form->length == 4)
		memcpy(&kind, p + KIND, 4);
	if (((kind & KIND_INPCB) != 0 && n < form->inpcb) ||
	    ((kind & KIND_SOCKET) != 0 && n < form->sock) ||
	    ((kind & KIND_TCPCB) != 0 && n < form->tcpcb))
		return false;
	if ((kind & KIND_INPCB) != 0) {
		s->open = false;
		s->match = (p[form->vflag] & valid) != 0 &&
			   is_address(&s->peer, p + form->lport, p + form->laddr) &&
			   is_address(&s->local, p + form->fport, p + form->faddr);
	}
	if ((kind & KIND_SOCKET) != 0) {
		memcpy(&so, p + form->socket, 8);
		memcpy(&s->uid, p + form->uid, 4);
		s->open = so != 0;
	}
	if ((kind & KIND_TCPCB) != 0) {
		memcpy(&state, p + form->state, 4);
		if (s->match && s->open && state != STATE_SYN_SENT) {
			s->users = s->users == 0 || (s->users == 1 && s->user == s->uid) ? 1 : -1;
			s->user = s->uid;
		}
		s->match = s->open = false;
	}
	return true;
}

/* Return the length of the record ${p}; 0: it is cut, or has a wrong length. */
static size_t
record_length(const struct pcblist_form *form, const unsigned char *p, size_t room)
{
	uint64_t wide;
	uint32_t narrow;

	if (room < form->head)
		return 0;
	if (form->length == 8) {
		memcpy(&wide, p, 8);
	} else {
		memcpy(&narrow, p, 4);
		wide = narrow;
	}
	return wide >= form->head && wide <= room ? (size_t)wide : 0;
}

/* Search the list.  Return false if its form is wrong. */
static bool
search_list(const struct pcblist_form *form, struct search *s, const unsigned char *p, size_t size)
{
	size_t n = record_length(form, p, size);

	if (n != form->head)
		return false;
	do {
		n += -n % 8; /* round up, to size + 7 at most */
		if (n >= size)
			return false;
		p += n;
		size -= n;
		n = record_length(form, p, size);
		if (n == form->head)
			return s->users >= 0;
	} while (n != 0 && take_record(form, s, p, n));
	return false;
}

int
pcblist_uid(const struct pcblist_form *form, const void *list, size_t size,
    const struct sockaddr *peer, const struct sockaddr *local, uid_t *uid)
{
	struct search s = { .users = 0 };

	take_address(&s.peer, peer);
	take_address(&s.local, local);
	if (!search_list(form, &s, list, size)) {
		errno = EBADMSG;
		return -1;
	}
	if (s.users == 0) {
		errno = ENOENT;
		return -1;
	}
	*uid = (uid_t)s.user;
	return 1;
}

int
pcblist_ask(const char *name, const struct pcblist_form *form, const struct sockaddr *peer,
    const struct sockaddr *local, uid_t *uid)
{
	int tries = TRIES, r = -1, saved;
	void *list = NULL, *more;
	size_t size;

	do {
		/* The system adds room for an eighth more sockets. */
		if (sysctlbyname(name, NULL, &size, NULL, 0) == -1)
			break;
		more = realloc(list, size + 1);
		if (more == NULL)
			break;
		list = more;
		r = sysctlbyname(name, list, &size, NULL, 0);
	} while (r == -1 && errno == ENOMEM && --tries > 0);
	if (r == 0)
		r = pcblist_uid(form, list, size, peer, local, uid);
	saved = errno;
	free(list);
	errno = saved;
	return r;
}
