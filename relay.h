/* ISC license: see LICENSE. */
/*
 * relay.h - the map of the source, the exit statuses, the version.
 *
 * A byte of a client passes through these files, in this order:
 *
 *   net/listen.c        listens and accepts
 *   conn/listeners.c    accepts connections, up to the limit
 *   relay.c             joins each accepted socket to its target
 *   conn/conn.c         one connection, from its start to its end
 *   conn/side.c         a side: descriptors or a stream
 *   conn/half.c         one direction of a connection
 *   base/buf.c          the queue where its bytes wait
 *   conn/fdpair.c       descriptors: a socket, two pipes, stdin and stdout
 *
 * If the side is a stream of a link, these files replace conn/fdpair.c:
 *
 *   mux/stream.c        one stream of a link: queues and flow control
 *   mux/early.c         bytes of a stream that arrived before earlier ones
 *   mux/mux.c           all streams of a link: which one sends next
 *   mux/receive.c       reads the frames of the peer
 *   mux/slot.c          one slot of a link: frames over one channel at a time
 *   mux/tail.c          what a lost channel has not delivered
 *   mux/queue.c         the streams that have something to send
 *   mux/cc.c            congestion control: how much may be in flight
 *   mux/retain.c        the bytes that were sent and are not acknowledged
 *   mux/frame.c         the wire format
 *   mux/greeting.c      what the peer sends first on a channel
 *   tunnel/transport.c  the channel of a link: a command or stdin and stdout
 *
 * How a target is reached:
 *
 *   conn/socks.c        the handshake of a SOCKS client (-D)
 *   net/dial.c          connects to an endpoint, or runs it
 *   net/lookup.c        looks up a name in a child process
 *   net/addr.c          a name to addresses, an address to text
 *   net/unixpath.c      Unix sockets: long paths, locks, dead socket files
 *   spawn.c             child processes
 *
 * How a tunnel starts, is kept and ends:
 *
 *   tunnel/tunnel.c     the states of a link: starting, up, backoff, over
 *   tunnel/channels.c   the channels of a link, one for each slot of the mux
 *   tunnel/growth.c     decides how many channels a link has
 *   tunnel/master.c     one login for all channels: ssh's ControlMaster
 *   tunnel/bootstrap.c  starts relay on the far host, copies it if necessary;
 *                       bootstrap.sh is the script for the far shell
 *   tunnel/elf.c        checks whether the binary to copy needs a loader
 *   tunnel/hops.c       makes one command of all hops
 *   tunnel/forward.c    parses -L, -R, -D and -W
 *   tunnel/remote.c     -R: listeners on the far side
 *   tunnel/keeper.c     far side: keeps a session without a channel
 *   tunnel/serve.c      far side: connects the streams that were opened
 *   tunnel/run.c        near side: the COMMAND that the last hop runs
 *   tunnel/command.c    far side: starts and watches the COMMAND
 *   tunnel/record.c     what both sides send about the COMMAND
 *   tunnel/dir.c        far side: the directory of the COMMAND, "@/"
 *   tunnel/probe.c      -n: tests each hop and target; -w: tests the targets
 *
 * The command line:
 *
 *   cli/options.c       the table of options, and which exclude others
 *   net/endpoint.c      an end as text: 8888, host:80, /path, -
 *   cli/progress.c      what a tunnel is doing, on a terminal
 *   cli/daemon.c        -f, -P and -E
 *   cli/control.c       the control socket
 *   cli/ask.c           -O: lists, checks and stops the relays of this user
 *   cli/cache.c         the directory of control sockets and logs
 *
 * What all of them use:
 *
 *   base/poll.c         the set of descriptors of one turn, the clock
 *   base/signals.c      signals as a descriptor
 *   base/log.c          messages on stderr
 *   base/tree.c         removes a directory and what is in it
 *   base/os.c           system calls
 *   base/os_*.c         what POSIX.1-2008 lacks: the file for this system is
 *                       built (linux, darwin, bsd or posix)
 *   base/os_pcblist.c   the TCP sockets of macOS and FreeBSD, with their users
 *
 * The folders are layers, from top to bottom: cli, tunnel, conn, mux, net,
 * base.  spawn.c is between net and base.
 *
 * The name of a function begins with the name of its file or of its type.
 * Unless its contract differs, a function that fails returns -1 and sets errno.
 * relay opens its descriptors non-blocking and close-on-exec.  Times are
 * microseconds of CLOCK_MONOTONIC.  Sizes are bytes.
 */
#ifndef RELAY_H
#define RELAY_H

#define RELAY_VERSION "1.0"

/* The exit status: relay(1), EXIT STATUS. */
enum status {
	STATUS_OK = 0,
	STATUS_CONNECT = 1,    /* the target cannot be reached */
	STATUS_USAGE = 2,      /* a wrong option, end or hop */
	STATUS_LISTEN = 3,     /* cannot listen on the source */
	STATUS_BROKEN = 4,     /* the connection broke before both EOFs */
	STATUS_COMMAND = 5,    /* the command failed */
	STATUS_SYSTEM = 6,     /* no descriptors, memory or processes */
	STATUS_LINK = 7,       /* the link cannot be made, or was lost */
	STATUS_REFUSED = 8,    /* the login to a hop has failed */
	STATUS_NOEXEC = 126,   /* the command cannot be executed (XCU 2.8.2) */
	STATUS_NOTFOUND = 127, /* the command was not found (XCU 2.8.2) */
	STATUS_SIGNAL = 128    /* plus N: signal N ended the one connection */
};

#endif
