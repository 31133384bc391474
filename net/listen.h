/*
 * net/listen.h - listening sockets, and the connections that they accept.
 *
 * An endpoint can have several addresses, and so several listeners: a bare port
 * has one on 127.0.0.1 and one on ::1.
 */
#ifndef NET_LISTEN_H
#define NET_LISTEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/addr.h"
#include "net/unixpath.h"

struct endpoint;

/*
 * Limits of the wait for another process on the same socket path, at the start
 * and at the end of relay.  relay must end within 2 s.
 */
#define LISTENER_START 5000000 /* us */
#define LISTENER_STOP 1000000  /* us */

#define LISTENER_WHY (UNIXPATH_MAX + 2048) /* room for an error with its path */

struct listener {
	int fd;               /* -1: closed */
	bool check_uid;       /* accept only processes of this user and of root */
	char name[ADDR_NAME]; /* TCP: see listener_name */
	struct unixpath file; /* Unix; path NULL: TCP */
};

/*
 * listener_open(ep, addrs, wait_us, tab, why, size):
 * Listen on the TCP or Unix endpoint ${ep}, which must outlive the listeners.
 * Fill entries of ${tab} and return how many, at least 1.  On failure write one
 * line with cause and remedy to ${why}, close all that was opened, and return
 * -1.
 *
 * ${addrs} are the addresses of a TCP endpoint.  NULL: they are looked up,
 * which may block for a name server.  A bare port is bound on both loopback
 * addresses, or on none.  For "localhost" and "*", a family that this host does
 * not have is left out.  check_uid is set for TCP on loopback, because every
 * user of the host can reach it.
 *
 * A Unix endpoint waits at most ${wait_us} microseconds for another process
 * that starts on the same path; see unixpath_listen.
 */
int listener_open(const struct endpoint *ep, const struct addr_list *addrs, int64_t wait_us,
    struct listener tab[ADDR_MAX], char *why, size_t size);

/*
 * listener_accept(l, name):
 * Accept a connection.  Return its non-blocking socket for the caller, and
 * write a name of the client for messages to ${name}, which has ADDR_NAME
 * bytes.  EAGAIN: no connection is waiting.  EACCES: check_uid is set, and the
 * user of the client is not allowed or cannot be found.  Such a connection is
 * reset, and that is logged as by log_failure.
 */
int listener_accept(const struct listener *l, char *name);

/*
 * listener_close(l, wait_us):
 * Close ${l} if it is open, and remove its socket file as unixpath_remove does.
 */
void listener_close(struct listener *l, int64_t wait_us);

/*
 * listener_name(l):
 * Return the address or path of ${l} in the form of the command line.  It
 * belongs to ${l}.  If "localhost" or "*" has two listeners, both have the name
 * localhost:PORT or *:PORT.
 */
const char *listener_name(const struct listener *l);

#endif
