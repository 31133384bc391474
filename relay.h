/* ISC license: see LICENSE. */
#ifndef RELAY_H
#define RELAY_H

/*
 * relay.h - the map of relay.  One section a room, in the order in which a byte travels:
 *
 *   relay.c --> options.c    the command line: endpoint.c (ends), forward.c (-L -R -D -W), hops.c (one command of hops)
 *      |    --> sock.c       listen, accept: struct -> descriptor
 *      |    --> dial.c       reach the target: lookup.c (names), sock.c and spawn.c (commands) stand behind it
 *      |    --> doctor.c     -n: each step tried by itself
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

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "mux/mux.h"

#define RELAY_VERSION "0.1"

/* What relay's exit tells a script; relay(1), EXIT STATUS. */
enum status {
	STATUS_OK = 0,
	STATUS_CONNECT = 1,   /* TO could not be reached */
	STATUS_USAGE = 2,     /* a wrong option or end */
	STATUS_LISTEN = 3,    /* FROM could not be listened on */
	STATUS_BROKEN = 4,    /* the connection broke before both sides had ended it */
	STATUS_COMMAND = 5,   /* the command failed */
	STATUS_SYSTEM = 6,    /* the system refused descriptors, memory or processes */
	STATUS_LINK = 7,      /* the link could not be made, or broke */
	STATUS_NOEXEC = 126,  /* the command could not be executed; what shells return (POSIX XCU 2.8.2) */
	STATUS_NOTFOUND = 127,/* the command was not found */
	STATUS_SIGNAL = 128   /* plus N: signal N stopped the one connection */
};

enum log_level { LOG_ERROR, LOG_NOTICE, LOG_INFO }; /* -q, default, -v */

struct child;
struct dial;
struct lookup;
struct pollset;

/* ---- endpoint.c: the words of the command line ---- */

enum endpoint_kind { ENDPOINT_TCP, ENDPOINT_UNIX, ENDPOINT_STDIO, ENDPOINT_COMMAND };

#define ENDPOINT_HOST 256 /* a DNS name has at most 253 characters (RFC 1035 2.3.4) */
#define ENDPOINT_NAME 320 /* room for endpoint_name(); a longer path is shortened */

struct endpoint {
	enum endpoint_kind kind;
	char host[ENDPOINT_HOST]; /* TCP: without brackets; "localhost" for a bare port, "*" for every address */
	uint16_t port;            /* TCP, host byte order; 0: the system picks */
	const char *path;         /* Unix: borrowed from the text that was parsed */
	char *const *argv;        /* command: borrowed, ends with NULL */
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

/* ---- sock.c: listening sockets, addresses and paths ---- */

#define SOCK_NAME 80       /* "[" + IPv6 (INET6_ADDRSTRLEN: 46) + "%" + a scope + "]:65535" */
#define SOCK_ADDRS 8       /* addresses of one name that are tried or listened on */
#define SOCK_PATH_MAX 4096 /* no longer path is taken */

struct sock_addrs {
	int n;
	socklen_t len[SOCK_ADDRS];
	struct sockaddr_storage addr[SOCK_ADDRS];
};

struct listener {
	int fd;             /* -1: closed */
	bool guarded;       /* loopback TCP: only this user and root may connect */
	char name[SOCK_NAME]; /* TCP: the bound address */
	const char *path;   /* Unix: borrowed from the endpoint; NULL: TCP */
	dev_t dev;          /* Unix: the file that is ours to remove */
	ino_t ino;
	int64_t resume;     /* no accept before this time; 0: accepts */
};

/*
 * sock_resolve(ep, out): fill ${out} with the addresses that the TCP end ${ep} names, in the order to try them; 0 or an EAI_ code.
 * May wait for a name server: in the loop, use lookup.c.  "localhost" is 127.0.0.1 and ::1 without asking anybody
 * (RFC 6761 6.3).
 * sock_numeric(ep, out): the same for an end that needs no name server; false if it needs one.
 */
int sock_resolve(const struct endpoint *ep, struct sock_addrs *out);
bool sock_numeric(const struct endpoint *ep, struct sock_addrs *out);

/*
 * sock_listen(ep, tab):
 * Listen on ${ep}: fill entries of ${tab} and return how many, at least 1.  A bare port is bound on every loopback family that
 * exists, or not at all.  A socket file that a connect proves dead is replaced, and that is told.  Of several starts on one path
 * one succeeds; the others may wait for it, some seconds at most.  On failure say why, close and remove all that was begun, and
 * return -1.  May wait for a name server.
 * sock_listen_at(ep, addrs, tab): the same on ${addrs}, the addresses of the TCP end ${ep}; never waits.
 */
int sock_listen(const struct endpoint *ep, struct listener tab[SOCK_ADDRS]);
int sock_listen_at(const struct endpoint *ep, const struct sock_addrs *addrs, struct listener tab[SOCK_ADDRS]);

/*
 * sock_accept(l, name): take a waiting connection, what to call its peer into ${name} (SOCK_NAME bytes).  EAGAIN: none waits;
 * EACCES: it was not this user's, and was reset and told.
 */
int sock_accept(const struct listener *l, char *name);

/* sock_unlisten(l): close ${l}; remove its socket file if the file there is still the one that it made. */
void sock_unlisten(struct listener *l);

/* sock_bound(l): where it listens, as a user writes it; ${l} keeps it. */
const char *sock_bound(const struct listener *l);

/*
 * sock_open(family): a stream socket; TCP_NODELAY where it is TCP, for a 1-byte message must not wait for an acknowledgement.
 * sock_connect_path(fd, path): connect(2) to a Unix socket whose path may be longer than sun_path.
 * sock_reset(fd): close the TCP socket ${fd} so that its peer sees a reset.
 * sock_name(addr, dst): "127.0.0.1:80" or "[::1]:80" into ${dst} (SOCK_NAME bytes).
 */
int sock_open(int family);
int sock_connect_path(int fd, const char *path);
void sock_reset(int fd);
void sock_name(const struct sockaddr *addr, char *dst);

/* ---- spawn.c: commands and the end of children ---- */

struct children {
	struct child *first;
	int64_t due; /* before this time spawn_turn has nothing to do */
};

enum { SPAWN_HEARD = 1, SPAWN_WIRE = 2 };
enum spawn_state { SPAWN_STARTING, SPAWN_RUNS, SPAWN_FAILED };

/*
 * spawn_start(kids, argv, how): fork and execute ${argv}, with a pipe at its stdin and one at its stdout.  SPAWN_HEARD: also at its
 * stderr, and whoever reads that tells of its end; else relay's own stays.  SPAWN_WIRE: much will go through its stdin, which is a
 * socket.  The child belongs to ${kids}.  NULL: no process or descriptor could be had, errno tells.
 * spawn_call(kids, run, arg): fork, and call run(arg, fd) in the child, for work that blocks; what it writes to ${fd} can be read
 * from spawn_take_in, and it ends by _exit.  Nothing is told of such a child, and a release ends it at once.
 * spawn_take_in(c), spawn_take_out(c), spawn_take_ear(c): the descriptor that reads what ${c} writes, the one that it reads,
 * and, heard, the one that reads its stderr; the caller's now.
 * spawn_want(c, ps), spawn_step(c, ps): wait until it is known whether exec worked.
 * spawn_errno(c): SPAWN_FAILED: why.
 * spawn_exit(c): the status with which it ended, 128 + N for signal N; -1: it runs.
 * spawn_release(c, now): the owner is done with ${c} and has closed its descriptors: it is given a grace to end, then signals.
 */
struct child *spawn_start(struct children *kids, char *const argv[], unsigned how);
struct child *spawn_call(struct children *kids, void (*run)(const void *arg, int fd), const void *arg);
int spawn_take_in(struct child *c);
int spawn_take_out(struct child *c);
int spawn_take_ear(struct child *c);
void spawn_want(struct child *c, struct pollset *ps);
enum spawn_state spawn_step(struct child *c, const struct pollset *ps);
int spawn_errno(const struct child *c);
int spawn_exit(const struct child *c);
void spawn_release(struct child *c, int64_t now);

/*
 * spawn_reap(kids): collect every child that has ended, and tell of the commands that failed.
 * spawn_hurry(kids, now): relay is to stop: what was released gets its signal now.
 * spawn_turn(kids, ps): send the signals that are due, set the next deadline, and forget children that ended and were released.
 * Return STATUS_COMMAND if a command among those failed by itself, else STATUS_OK.
 */
void spawn_reap(struct children *kids);
void spawn_hurry(struct children *kids, int64_t now);
int spawn_turn(struct children *kids, struct pollset *ps);

/* ---- lookup.c: from a name to addresses, without blocking the loop ---- */

/*
 * lookup_start(kids, ep): look up the name of the TCP end ${ep}, in a child that belongs to ${kids}.
 * NULL: no memory, process or descriptor, or EBUSY: as many look-ups as may be are under way.
 * lookup_join(l): add a user of ${l}, and return it.
 * lookup_want(l, ps), lookup_step(l, ps): wait for the answer, without a deadline; true: it is there.
 * lookup_answer(l, out): then: 0 with the addresses in ${out}, or an EAI_ code.
 * lookup_free(l, now): remove a user; the last one frees ${l} and ends its child.  NULL is harmless.
 */
struct lookup *lookup_start(struct children *kids, const struct endpoint *ep);
struct lookup *lookup_join(struct lookup *l);
void lookup_want(struct lookup *l, struct pollset *ps);
bool lookup_step(struct lookup *l, const struct pollset *ps);
int lookup_answer(const struct lookup *l, struct sock_addrs *out);
void lookup_free(struct lookup *l, int64_t now);

/* ---- dial.c: from an end to connected descriptors, without blocking the loop ---- */

enum dial_state { DIAL_BUSY, DIAL_DONE, DIAL_FAILED };

struct dial_target {
	struct endpoint to;
	int each_ms;             /* for one address */
	int wait_ms;             /* how long to keep trying until the target is there; 0: once */
	struct children *kids;   /* what commands and name look-ups are children of */
	unsigned how;            /* of a command; see spawn_start */
	struct sock_addrs cache; /* what the name server said, n = 0 at first: dial.c's own */
	size_t users;            /* references; 0: not counted, and not freed by dial_drop_target */
	struct lookup *lookup;   /* that dials may join, NULL at first: dial.c's own */
};

/*
 * dial_start(target, now): start to connect to ${target}, which must outlive the dial, or to run it if it is a command.  NULL: no
 * memory.
 * dial_want(d, ps), dial_step(d, ps): ask poll for what ${d} waits for, then go on; dial_step is also right before any poll.
 * dial_take(d), dial_take_child(d): DIAL_DONE: the connected descriptor, or the command (else NULL); the caller's now.
 * dial_status(d): DIAL_FAILED: what it means for relay's exit.
 * dial_errno(d): DIAL_FAILED: the errno value; 0: the name is not known.
 * dial_explain(d, dst, size): DIAL_FAILED: a sentence with cause and remedy into ${dst}, which is returned.
 * dial_drop_target(target): give up a reference; the last one frees it.  NULL is harmless.
 * dial_reset(d): reset a TCP connection that is being made or was not taken; before dial_free.
 * dial_free(d, now): NULL is harmless; what was not taken is closed and released.
 */
struct dial *dial_start(struct dial_target *target, int64_t now);
void dial_want(struct dial *d, struct pollset *ps);
enum dial_state dial_step(struct dial *d, const struct pollset *ps);
int dial_take(struct dial *d);
struct child *dial_take_child(struct dial *d);
int dial_status(const struct dial *d);
int dial_errno(const struct dial *d);
const char *dial_explain(const struct dial *d, char *dst, size_t size);
void dial_reset(struct dial *d);
void dial_free(struct dial *d, int64_t now);
void dial_drop_target(struct dial_target *target);

/* ---- poll.c: the poll set of one turn, active and idle watches ---- */

struct pollset {
	struct pollfd *fds;
	size_t n, size;
	int64_t now;      /* the clock, read once a turn */
	int64_t now_us;   /* the same in microseconds */
	int64_t deadline;
};

/*
 * pollset_clock(), pollset_clock_us(): milliseconds and microseconds of
 * CLOCK_MONOTONIC.
 * pollset_begin(ps): make ${ps}, which may be all zeros, empty for a new turn.
 * pollset_add(ps, fd, events): watch ${fd} in this turn; return its slot, or -1
 * if ${fd} is -1 or there is no memory (then the turn ends soon).
 * pollset_until(ps, when): wait no longer than until ${when}.
 * pollset_wait(ps): wait; -1: poll failed, and would fail again.
 * pollset_ready(ps, slot): the events of a slot; 0 for -1.
 */
int64_t pollset_clock(void);
int64_t pollset_clock_us(void);
void pollset_begin(struct pollset *ps);
int pollset_add(struct pollset *ps, int fd, short events);
void pollset_until(struct pollset *ps, int64_t when);
int pollset_wait(struct pollset *ps);
short pollset_ready(const struct pollset *ps, int slot);
void pollset_free(struct pollset *ps);

/* The first member of whatever is polled. */
struct watch {
	struct watch *prev, *next;
	int64_t event_at; /* its last event */
	bool idle;
};

struct watch_list {
	struct watch *first, *last;
	size_t n;
};

struct watches {
	struct watch_list active;
	struct watch_list idle; /* the first one was not polled for longest */
	int64_t event_at;       /* the last event of any watch */
	int64_t slice_due_us;   /* when some idle watches are to be polled */
	int64_t slice_began_us; /* when this turn's slice began; 0: it has none */
};

/*
 * A struct watches of zeros is empty.
 * watch_add(ws, w, now): add ${w}, active.
 * watch_remove(ws, w): remove ${w}.
 * watch_turn(ws, ps): make those active that this turn polls, and limit the
 * wait of ${ps}.
 * watch_event(ws, w, now): ${w} had an event, and is active.
 * watch_to_back(ws, w): make ${w}, active, the last active one.
 * watch_to_idle(ws, w, now): make ${w}, active, idle unless it had an event
 * recently; return true if it did become idle.  ${w} must not wait for a time.
 * watch_wake_all(ws): make all active.
 * watch_next(ws, w): the watch after ${w}, or the first one if ${w} is NULL:
 * the active ones, then the idle ones; NULL: there are no more.
 */
void watch_add(struct watches *ws, struct watch *w, int64_t now);
void watch_remove(struct watches *ws, struct watch *w);
void watch_turn(struct watches *ws, struct pollset *ps);
void watch_event(struct watches *ws, struct watch *w, int64_t now);
void watch_to_back(struct watches *ws, struct watch *w);
bool watch_to_idle(struct watches *ws, struct watch *w, int64_t now);
void watch_wake_all(struct watches *ws);
struct watch *watch_next(const struct watches *ws, const struct watch *w);

/* ---- boot.c: a far end where none was installed; bytes only ---- */

#define BOOT_MARK "relay:: "    /* before each answer of a far shell */
#define BOOT_BEGIN MUX_SCRIPT
#define BOOT_BINARIES 8
#define BOOT_PATH 1024
#define BOOT_TYPE 64

struct binary {
	char path[BOOT_PATH];
	char type[BOOT_TYPE]; /* uname -s, "-", uname -m */
	size_t size;
	uint32_t sum;
};

enum boot_state { BOOT_ASKS, BOOT_COPIES, BOOT_STARTS, BOOT_FAILED };

struct boot {
	enum boot_state state;
	struct binary binary[BOOT_BINARIES];
	int binaries, copies;
	uid_t owner;        /* of our own binary */
	unsigned char *out; /* what is being sent: the script, or a binary */
	size_t out_start, out_end;
	char line[1024];    /* what came last, or, behind a mark, the answer */
	size_t have, size;
	bool marked;
	bool here;            /* the far shell has answered */
	char path[BOOT_PATH]; /* BOOT_STARTS: of the far relay */
	char why[1200];       /* BOOT_FAILED: a sentence */
	bool refused;         /* from here on: kept from start to start */
	uint32_t refused_sum; /* of the binary that the system there did not run */
	char refusal[1200];   /* why it failed then */
};

/*
 * boot_start(b, self, image, far_path, options): begin; ${self} is our own binary's path, ${image} where it can be read, ${options}
 * those of the far relay; ${far_path} is the far relay to use, NULL: whatever is found or can be brought.  False: no memory.
 * Before its first start ${b} is all zeros; a binary that was refused there is not sent in later starts.
 * boot_free(b): any number of times.
 * boot_feed(b, p, n): what came before the magic of the link.  boot_pull(b, dst, room), boot_has_output(b): what is to be sent.
 * boot_strip(text): take the answers out of what came; its new length.
 * boot_sum(p, n): as cksum(1) does it.
 */
bool boot_start(struct boot *b, const char *self, const char *image, const char *far_path, const char *options);
void boot_free(struct boot *b);
void boot_feed(struct boot *b, const void *p, size_t n);
size_t boot_pull(struct boot *b, unsigned char *dst, size_t room);
bool boot_has_output(const struct boot *b);
size_t boot_strip(char *text);
uint32_t boot_sum(const unsigned char *p, size_t n);

/* ---- forward.c: what a tunnel carries ---- */

enum forward_kind { FORWARD_NEAR = 'L', FORWARD_FAR = 'R', FORWARD_SOCKS = 'D', FORWARD_STDIO = 'W' };

enum forward_state { FORWARD_DOWN, FORWARD_ASKS, FORWARD_STANDS, FORWARD_REFUSED };

struct forward {
	char kind;
	char *from_text, *to_text;
	struct endpoint from;     /* of -L and -D: here, of -R: there */
	struct dial_target to;    /* of -R: here */
	enum forward_state state; /* of -R: does it listen there?  of -L with -w: was its target reached? */
	char bound[SOCK_PATH_MAX + 8]; /* -R, FORWARD_STANDS: the addresses there, a line each, and an empty one */
	int64_t again_at;         /* -R, refused after the link came back: asked again then */
};

/*
 * forward_parse(f, kind, text, why, size): read ${text} as what ${kind} takes; false with one line in ${why}, as endpoint_parse.
 * forward_keep_port(f): the port that the system there picked, told in ${f}->bound, is the one to ask for from now on.
 * forward_tell(f, bound, hops): say where it begins, ${bound}, and how it goes on through ${hops}.
 */
bool forward_parse(struct forward *f, char kind, const char *text, char *why, size_t size);
void forward_keep_port(struct forward *f);
void forward_tell(const struct forward *f, const char *bound, const char *hops);

/* ---- hops.c: the hops of a tunnel ---- */

#define HOPS_WORDS 256
#define HOPS_TEXT 16384
#define HOPS_PATH 512

struct hops {
	char *const *hops; /* as they were written, borrowed */
	int n;
	char *argv[HOPS_WORDS]; /* of the command that leads through them all; ends with NULL */
	int words;
	char text[HOPS_TEXT];   /* what argv points to: it must stay where it is */
	size_t length;
};

/*
 * hops_parse(h, hops, n, rsh, why, size): the ${n} texts ${hops} as one command, ${rsh} in the place of the first ssh; false with one
 * line in ${why}.
 * hops_path(h, dst, size): "login -> node" into ${dst}, which is returned.
 * hops_any_command(h): is one of them no ssh destination, but a command?
 * hops_blame(h, words): the index of the hop that ${words} speak of, -1: of none.
 * hops_remedy(hop, words): the remedy, to be appended to ${words}, which ssh printed when it could not reach the hop of index
 * ${hop} (-1: the hop is not known); "": none.
 */
bool hops_parse(struct hops *h, char *const hops[], int n, const char *rsh, char *why, size_t size);
const char *hops_path(const struct hops *h, char *dst, size_t size);
bool hops_any_command(const struct hops *h);
int hops_blame(const struct hops *h, const char *words);
const char *hops_remedy(int hop, const char *words);

/* ---- doctor.c: each step tried, and reported on stdout ---- */

/*
 * doctor_visit(hops, n, rsh): try hop after hop; false: one of them failed, or a signal came. Waits.
 * doctor_say(good, hop, fmt, ...): report of ${hop}, in the same form.
 */
bool doctor_visit(char *const hops[], int n, const char *rsh);
void doctor_say(bool good, const char *hop, const char *fmt, ...);

/* ---- options.c: the command line as a whole ---- */

#define OPTIONS_FORWARDS 32

enum mode {
	MODE_DIRECT,    /* FROM and TO are joined in this process */
	MODE_PROBE,     /* -z */
	MODE_FDPASS,    /* -F */
	MODE_LINK_NEAR, /* -m FROM -- COMMAND */
	MODE_LINK_FAR,  /* -m - [TO] */
	MODE_TUNNEL,    /* -L, -R, -D, -W */
	MODE_CHECK      /* -n: a tunnel that forwards nothing */
};

struct options {
	enum mode mode;
	enum log_level level;
	bool anybody, background;
	long max_pairs;          /* 0: no bound of the user's */
	const char *pidfile, *rsh, *far_path;
	int each_ms, wait_ms, idle_ms;
	struct endpoint from, to; /* to, of a tunnel: the command that leads through its hops */
	struct forward forwards[OPTIONS_FORWARDS];
	int n_forwards;
	struct hops hops;
	char self[BOOT_PATH], far_options[64];
};

/*
 * options_parse(o, argc, argv): fill ${o} from ${argv}, whose strings it borrows.  ${o} is all zeros: it is large, and pages that
 * are not written cost no memory.  Exits after a usage error, and for -h and -V.
 * options_tunnel(o): the link leads through hops.
 * options_linked(o): all connections share one link.
 * options_one_shot(o): there is one connection, and its status is relay's.
 */
void options_parse(struct options *o, int argc, char *argv[]);
bool options_tunnel(const struct options *o);
bool options_linked(const struct options *o);
bool options_one_shot(const struct options *o);

/* ---- signals.c: signals as a descriptor ---- */

/*
 * signals_open(): catch SIGTERM, SIGINT, SIGHUP, SIGCHLD and SIGUSR1, ignore SIGPIPE and SIGXFSZ, block none; return the descriptor to poll.
 * signals_take(): the next signal that came, 0 if there is none.
 * signals_block(old), signals_restore(old): around a fork.
 * signals_child(): in the child: everything as relay found it at its start.
 */
int signals_open(void);
int signals_take(void);
void signals_block(sigset_t *old);
void signals_restore(const sigset_t *old);
void signals_child(void);

/* ---- os.c: what POSIX.1-2008 lacks, each with a portable form ---- */

#define OS_PIPE (256 * 1024) /* the size that pipes to other programs are given, where the system allows it */

/*
 * os_setup(fd): make ${fd} non-blocking and close-on-exec.
 * os_close(fd): close ${*fd} unless it is -1, which it becomes.
 * os_lock(fd, path): lock the file ${fd}, which was opened from ${path}, until this process closes any descriptor of it.
 * EAGAIN: another process holds the lock; ESTALE: ${path} is another file by now; ENOLCK: this file system has no locks.
 * os_fill_stdio(): open to /dev/null whatever of stdin, stdout and stderr is closed, so that no descriptor of ours becomes one of
 * them, and keep one more; false: it cannot be had.
 * os_null(fd): put /dev/null in the place of ${fd}, 0 to 2; after os_fill_stdio it does not fail.
 * os_error(fd): take the pending error of the socket ${fd}: 0 or an errno value.
 * os_socket(family), os_accept(lfd, peer, len): stream sockets that are both from birth (portable: a moment later).
 * os_peer_uid(peer, local, uid): whose process holds the socket at the other end of a TCP connection within this host: 1 known,
 * 0 this system cannot tell (portable: always), -1 the look-up failed, ENOENT: no process holds it any more.
 * os_remote_file(path): does it lie on a network file system?  (portable: false)
 * os_follow(parent): in a child: be sent SIGTERM when ${parent} dies, however it dies (portable: nothing).
 * os_splice(in, out, max): move up to ${max} bytes between two non-blocking descriptors, one of them a pipe, as read(2) and write(2)
 * would (portable: ENOSYS).  os_pipe_size(fd, size): try to make a pipe hold ${size} bytes; return what it holds (portable: 0).
 * os_unsent(fd): how many bytes written to the TCP socket ${fd} the peer's system has not acknowledged yet (portable: 0).
 * os_pages(size), os_free_pages(p, size): memory that goes back to the system as soon as it is free (portable: when the C library
 * gives it back); NULL: none.
 * os_close_from(fd): close every descriptor from ${fd} on.
 * os_raise_files(), os_restore_files(): as many descriptors as the hard limit gives, returns how many; the limit back as it was,
 * for a command.
 * os_self(name, dst, size): the path of relay's own binary, which was started as ${name}; false: it is not found.
 * os_image(self): the path by which the binary that runs can be read, also when another one was put at ${self} since (portable:
 * ${self}).
 */
int os_setup(int fd);
void os_close(int *fd);
int os_lock(int fd, const char *path);
bool os_fill_stdio(void);
int os_null(int fd);
int os_error(int fd);
int os_socket(int family);
int os_accept(int lfd, struct sockaddr *peer, socklen_t *len);
int os_peer_uid(const struct sockaddr *peer, const struct sockaddr *local, uid_t *uid);
bool os_remote_file(const char *path);
void os_follow(pid_t parent);
ssize_t os_splice(int in, int out, size_t max);
int os_pipe_size(int fd, int size);
uint64_t os_unsent(int fd);
void *os_pages(size_t size);
void os_free_pages(void *p, size_t size);
bool os_self(const char *name, char *dst, size_t size);
const char *os_image(const char *self);
void os_close_from(int fd);
long os_raise_files(void);
void os_restore_files(void);

/* ---- log.c: words for people ---- */

#if defined(__GNUC__)
#define LOG_FORMAT __attribute__((format(printf, 2, 3)))
#else
#define LOG_FORMAT
#endif

/*
 * log_show(level): from now on, show what is at most ${level}.
 * log_say(level, fmt, ...): one line on stderr; keeps errno.  log_quote(level, line): the same in the words of another program.
 * log_plain(text, n, but): in words of strangers, make each control character a '?', but for ${but}: none may steer a terminal.
 * Whole ones of UTF-8 stay, and what is neither that nor a control character.
 * log_divert(dst, size): from now on the words of errors go into ${dst} alone; NULL: to stderr again.
 * log_status(text): on a terminal, show at LOG_NOTICE what is being done, until the next line or status; elsewhere it is a line.
 */
void log_show(enum log_level level);
void log_quote(enum log_level level, const char *line);
void log_status(const char *text);
void log_plain(char *text, size_t n, char but);
void log_divert(char *dst, size_t size);
void log_say(enum log_level level, const char *fmt, ...) LOG_FORMAT;

#endif
