/* ISC license: see LICENSE. */
#ifndef RELAY_H
#define RELAY_H

/*
 * relay.h - the map of relay.  One section a room, in the order in which a byte travels:
 *
 *   relay.c --> options.c    the command line: endpoint.c (ends), forward.c (-L -R -D -W), hops.c (one command of hops)
 *      |    --> sock.c       listen, accept: struct -> descriptor
 *      |    --> dial.c       reach the target: lookup.c (names), sock.c and spawn.c (commands) stand behind it
 *      v
 *   pair.c ---------------------------> half.c --> buf.c     A <=> B
 *      |                                  |   \--> end.c      what the descriptors of one side are, and how they close
 *   tunnel.c      the life of a link      |
 *      |                                  |
 *   leg.c --> socks.c                     |                  A <=> stream
 *      | \--> link.c --> frame.c          |
 *      |        |   \--> pace.c           |
 *      |        \-------------------------/
 *   carrier.c --> boot.c                                     streams <=> wire; a far end where none was
 *
 *   floor: poll.c  signals.c  os.c  log.c
 *
 * A room calls to the right and down, never back.  An exported name begins with its file's or its type's name.  Unless a
 * contract says otherwise, a function that can fail returns -1 and leaves the cause in errno, and every descriptor that relay
 * makes is non-blocking and close-on-exec.  Times are milliseconds of a clock that never goes back (pollset_clock); sizes are
 * bytes.
 */

#define RELAY_VERSION "0.1"

/* What relay's exit tells a script; relay(1), EXIT STATUS. */
enum status {
	STATUS_OK = 0,
	STATUS_CONNECT = 1, /* TO could not be reached */
	STATUS_USAGE = 2,   /* a wrong option or end */
	STATUS_LISTEN = 3,  /* FROM could not be listened on */
	STATUS_BROKEN = 4,  /* the connection broke before both sides had ended it */
	STATUS_COMMAND = 5, /* the command failed */
	STATUS_SYSTEM = 6,  /* the system refused descriptors, memory or processes */
	STATUS_LINK = 7,    /* the link could not be made, or broke */
	STATUS_NOEXEC =
	    126, /* the command could not be executed; what shells return (POSIX XCU 2.8.2) */
	STATUS_NOTFOUND = 127, /* the command was not found */
	STATUS_SIGNAL = 128    /* plus N: signal N stopped the one connection */
};

#endif
