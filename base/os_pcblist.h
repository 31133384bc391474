/*
 * base/os_pcblist.h - searches the list of TCP sockets, which a sysctl of macOS
 * and FreeBSD returns.
 *
 * Source of the facts: bsd/netinet/in_pcblist.c, in_pcb.h, tcp_var.h and
 * bsd/sys/socketvar.h of XNU; sys/netinet/in_pcb.h, in_pcb.c and tcp_subr.c of
 * FreeBSD.
 */
#ifndef BASE_OS_PCBLIST_H
#define BASE_OS_PCBLIST_H

#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>

/* The form of a list: sizes and offsets in bytes. */
struct pcblist_form {
	size_t head;               /* size of the first record and of the last one */
	size_t length;             /* width of the length at the start of a record: 4 or 8 */
	size_t inpcb, sock, tcpcb; /* least length of a record with such a part */
	size_t fport, lport;       /* the ports: 2 bytes in network byte order */
	size_t faddr, laddr;       /* the addresses: 16 bytes, IPv4 in the last 4 */
	size_t vflag;              /* 1 byte: which addresses are valid */
	size_t socket;             /* 8 bytes: 0 if no process has the socket open */
	size_t uid, state;         /* 4 bytes each */
};

/* The form of net.inet.tcp.pcblist_n of macOS. */
extern const struct pcblist_form pcblist_darwin;

/*
 * pcblist_uid(form, list, size, peer, local, uid):
 * In ${list}, which has ${size} bytes of the form ${form}, find the socket that
 * is bound to ${peer} and connected to ${local}.  Return 1 with its user in
 * ${*uid}, or -1.  ENOENT: no process has that socket.  EBADMSG: the list has
 * another form, or sockets of several users match.
 */
int pcblist_uid(const struct pcblist_form *form, const void *list, size_t size,
    const struct sockaddr *peer, const struct sockaddr *local, uid_t *uid);

/*
 * pcblist_ask(name, form, peer, local, uid):
 * As pcblist_uid, with the list that the sysctl ${name} returns now.
 */
int pcblist_ask(const char *name, const struct pcblist_form *form, const struct sockaddr *peer,
    const struct sockaddr *local, uid_t *uid);

#endif
