/* ISC license: see LICENSE. */
#ifndef RELAY_H
#define RELAY_H

/*
 * relay.h - the map of relay.  One section a room, in the order in which a byte travels:
 *
 *   relay.c --> options.c    the command line: endpoint.c (ends), forward.c (-L -R -D -W), hops.c (one command of hops)
 *      |    --> sock.c       listen, accept: struct -> descriptor
 *      |    --> dial.c       reach the target: sock.c and spawn.c (commands) stand behind it
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

struct child;
struct dial;
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
 * May wait for a name server: see dial.c for how the loop is spared.  "localhost" is 127.0.0.1 and ::1 without asking anybody
 * (RFC 6761 6.3).
 * sock_numeric(ep, out): the same for an end that needs no name server; false if it needs one.
 */
int sock_resolve(const struct endpoint *ep, struct sock_addrs *out);
bool sock_numeric(const struct endpoint *ep, struct sock_addrs *out);

/*
 * sock_listen(ep, tab):
 * Listen on ${ep}: fill entries of ${tab} and return how many, at least 1.  A bare port is bound on every loopback family that
 * exists, or not at all.  A socket file that a connect proves dead is replaced, and that is told.  On failure say why, close and
 * remove all that was begun, and return -1.
 */
int sock_listen(const struct endpoint *ep, struct listener tab[SOCK_ADDRS]);

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

/* ---- dial.c: from an end to connected descriptors, without blocking the loop ---- */

enum dial_state { DIAL_BUSY, DIAL_DONE, DIAL_FAILED };

struct dial_target {
	struct endpoint to;
	int each_ms;             /* for one address */
	int wait_ms;             /* how long to keep trying until the target is there; 0: once */
	struct children *kids;   /* what commands and name look-ups are children of */
	unsigned how;            /* of a command; see spawn_start */
	struct sock_addrs cache; /* what the name server said, n = 0 at first: dial.c's own */
};

/*
 * dial_start(target, now): start to connect to ${target}, which must outlive the dial, or to run it if it is a command.  NULL: no
 * memory.
 * dial_want(d, ps), dial_step(d, ps): ask poll for what ${d} waits for, then go on; dial_step is also right before any poll.
 * dial_take(d), dial_take_child(d): DIAL_DONE: the connected descriptor, or the command (else NULL); the caller's now.
 * dial_status(d): DIAL_FAILED: what it means for relay's exit.
 * dial_errno(d): DIAL_FAILED: the errno value; 0: the name is not known.
 * dial_explain(d, dst, size): DIAL_FAILED: a sentence with cause and remedy into ${dst}, which is returned.
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
void dial_free(struct dial *d, int64_t now);

/* ---- end.c: the descriptors of one side ---- */

#define END_PIPE (256 * 1024) /* the size that pipes to others are given, where they let us */

struct end {
	int in, out;             /* -1: that direction is over; the same number: one socket */
	int in_slot, out_slot;   /* of this turn's pollset */
	int in_flags, out_flags; /* inherited: file status flags to give back; -1: none */
	bool single;             /* one socket is both directions */
	bool out_socket;         /* out is ended by shutdown */
	bool tcp;                /* can carry a reset */
	bool stdio;              /* stdin and stdout */
	bool keeps_stderr;       /* the end of stdout does not end stderr */
	bool in_blocks, out_blocks; /* a terminal, a file: to be used only after poll said so */
	bool in_splices, out_splices; /* bulk to or from it is moved faster unseen (os_splice) than read and written */
	bool wants_in;           /* poll was asked for in */
	bool hup;                /* a single socket, or in, has hung up: nothing more to learn from watching it idle */
};

/*
 * end_none(e): an end without descriptors.
 * end_socket(e, fd, tcp), end_pipes(e, in, out): make ${e} of descriptors that are its own from now on.
 * end_stdio(e): make ${e} of stdin and stdout, which become /dev/null.
 * end_want(e, ps, reads, writes): watch ${e} for the failure of its outgoing direction, and for what is wanted.
 * end_unwatch(e): it is not watched in this turn.
 * end_readable(e, ps), end_writable(e, ps): what poll said.
 * end_failed(e, ps): an errno value if whoever reads what is written to ${e} is gone (EPIPE: it closed), or ${e} was reset; else 0.
 * end_has_unread(e): the single socket ${e} has sent bytes that were not read.
 * end_shut_out(e), end_shut_in(e): end one direction; twice is harmless.  The end of stdout also ends stderr if that is a pipe or
 * a socket, unless ${e} keeps it.  end_shut_out: -1: the system could not tell the peer of the end.
 * end_close(e, reset): end both; where ${e} can carry it, as a reset.
 */
void end_none(struct end *e);
void end_socket(struct end *e, int fd, bool tcp);
void end_pipes(struct end *e, int in, int out);
int end_stdio(struct end *e);
void end_want(struct end *e, struct pollset *ps, bool reads, bool writes);
void end_unwatch(struct end *e);
bool end_readable(const struct end *e, const struct pollset *ps);
bool end_writable(const struct end *e, const struct pollset *ps);
bool end_has_unread(const struct end *e);
int end_failed(struct end *e, const struct pollset *ps);
int end_shut_out(struct end *e);
void end_shut_in(struct end *e);
void end_close(struct end *e, bool reset);

/* ---- buf.c: bytes at rest ---- */

#define BUF_CHUNK 65536
#define BUF_WIDE 4 /* chunks that one call moves at the most */

#define BUF_PIPE (1024 * 1024)

struct buf {
	struct chunk *head, *tail;
	struct kpipe *pipe; /* not NULL: this holds the bytes */
	size_t used;
	bool full;          /* the pipe takes no more for now */
};

/*
 * A buf of zeros is empty.
 * buf_fill(b, fd, chunks): one read of at most so many times BUF_CHUNK bytes, or BUF_WIDE times, from ${fd} to the end of ${b};
 * returns as read(2), ENOMEM among the errors.
 * buf_splice(b, fd): the same into a pipe, unseen; ${b} is empty or was filled so before.  EAGAIN: nothing to read, or ${b} is full.
 * Any other errno, with ${b}->pipe NULL: use buf_fill.
 * buf_drain(b, fd, max): one write of at most ${max} bytes from the front of ${b} to ${fd}; returns as write(2), 0 if ${b} is empty.
 * buf_put(b, p, n): copy ${n} bytes to the end of ${b}, which is not in a pipe; false: no memory for all of them.
 * buf_take(b, p, n): copy up to ${n} bytes from the front of ${b}, which is not in a pipe, to ${p}; returns how many.
 * buf_clear(b): forget what it holds.
 * buf_trim(): free the chunks and pipes that are kept for reuse.
 */
ssize_t buf_fill(struct buf *b, int fd, int chunks);
ssize_t buf_splice(struct buf *b, int fd);
ssize_t buf_drain(struct buf *b, int fd, size_t max);
bool buf_put(struct buf *b, const void *p, size_t n);
size_t buf_take(struct buf *b, void *p, size_t n);
void buf_clear(struct buf *b);
void buf_trim(void);

/* ---- half.c: one direction ---- */

#define HALF_HOLDS (BUF_WIDE * BUF_CHUNK) /* no more is read while so much is held */

enum half_state { HALF_OPEN, HALF_DRAIN, HALF_SHUT, HALF_BROKEN };

struct half {
	struct end *src, *dst; /* borrowed */
	struct buf buf;
	uint64_t moved;        /* bytes written onward */
	enum half_state state;
	int err;               /* broken: why */
	bool by_sink;          /* broken: by dst */
	bool lost;             /* broken: bytes of src were not delivered */
	bool bulk;             /* the last read brought so much that splicing is worth it, */
	bool wide;             /* that more is to be read at once */
};

/*
 * half_init(h, src, dst): an open half without bytes.
 * half_wants_read(h), half_wants_write(h): would half_read or half_write do something, if the descriptor is ready?
 * half_read(h, chunks): one read, of so many chunks once one was filled; return how much came.  The end of ${src} makes it drain, a
 * failure breaks it.
 * half_write(h, ready): write what ${dst} takes; ${ready}: poll said that it takes something.
 * half_shut(h, explicit): if ${h} drained, it is shut; ${dst} is told so if ${explicit}, else its close will tell; where it cannot
 * be told, ${h} breaks.
 * half_break(h, err, by_sink): give up what is held; harmless when finished.
 * half_is_ours(err): a failure of this host, of which nobody but us will tell; else the peer's or the line's.
 */
void half_init(struct half *h, struct end *src, struct end *dst);
bool half_wants_read(const struct half *h);
bool half_wants_write(const struct half *h);
bool half_finished(const struct half *h);
size_t half_read(struct half *h, int chunks);
void half_write(struct half *h, bool ready);
void half_shut(struct half *h, bool explicit);
void half_break(struct half *h, int err, bool by_sink);
bool half_is_ours(int err);

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

/* ---- pair.c: two ends, two halves, one life ---- */

struct pairs {
	struct watches watches;
	size_t n;
	size_t busy; /* that poll had something for, in the last turn */
	unsigned long last_id;
};

/*
 * pair_new(tab, a, from, target, now): join ${a}, called ${from}, to ${target}, which must outlive the pair.  ${a} is the pair's
 * from now on, unless false is returned: no memory.
 * pair_want(tab, ps), pair_step(tab, ps): ask poll for what the pairs wait for whose turn it is; move what can be moved, and decide.
 * pair_stop(tab, status, now): cut all pairs short.
 * pair_sweep(tab, ps): free the pairs that are over; return what the last failure among them means for relay's exit.
 * pair_table(tab, now): tell people of every pair.
 */
bool pair_new(struct pairs *tab, const struct end *a, const char *from, struct dial_target *target, int64_t now);
void pair_want(struct pairs *tab, struct pollset *ps);
void pair_step(struct pairs *tab, const struct pollset *ps);
void pair_stop(struct pairs *tab, int status, int64_t now);
int pair_sweep(struct pairs *tab, const struct pollset *ps);
void pair_table(const struct pairs *tab, int64_t now);

/* ---- frame.c: the wire, as PROTOCOL says ---- */

#define FRAME_MAGIC 16
#define FRAME_HEAD 8
#define FRAME_DATA_MAX 65536   /* body of DATA */
#define FRAME_BODY 8192        /* body of any other */
#define FRAME_TARGET 4352      /* of OPEN: a host and a port, or SOCK_PATH_MAX */
#define FRAME_WORDS 512        /* of CLOSE and BYE */
#define FRAME_HELLO_FIXED 32   /* of HELLO, before the host's name */
#define FRAME_SKIPPED 128      /* types from here on are skipped where they are unknown */

enum frame_type {
	FRAME_HELLO = 1,
	FRAME_OPEN,
	FRAME_OPENED,
	FRAME_DATA,
	FRAME_EOF,
	FRAME_STOP,
	FRAME_CLOSE,
	FRAME_CREDIT,
	FRAME_ACK,
	FRAME_PING,
	FRAME_BYE,
	FRAME_STRIDE
};

struct frame {
	unsigned type;
	uint32_t length;
	uint32_t stream;
};

struct hello {
	uint8_t version, role;
	uint32_t features, memory, streams;
	uint64_t session, offset;
	char host[256];
};

/*
 * frame_encode(dst, f), frame_decode(f, src): the head. frame_decode returns NULL, or what no such frame can be.
 * frame_put(dst, n, bytes), frame_get(src, bytes): a number of so many bytes.
 * frame_encode_hello(dst, h): the body, at most FRAME_HELLO_FIXED + 255 bytes; returns its length.
 * frame_decode_hello(h, src, length): the body, of a length that frame_decode let through.
 */
extern const unsigned char frame_magic[FRAME_MAGIC];
void frame_encode(unsigned char dst[FRAME_HEAD], const struct frame *f);
const char *frame_decode(struct frame *f, const unsigned char src[FRAME_HEAD]);
void frame_put(unsigned char *dst, uint64_t n, int bytes);
uint64_t frame_get(const unsigned char *src, int bytes);
size_t frame_encode_hello(unsigned char *dst, const struct hello *h);
void frame_decode_hello(struct hello *h, const unsigned char *src, size_t length);

/* ---- pace.c: how many bytes may be in flight; all times are microseconds ---- */

#define PACE_MARKS 256 /* sendings whose round trip is measured at a time */
#define PACE_SLICE_LEAST 1024
#define PACE_SLICE_MOST 65536

struct pace {
	uint64_t sent, acked;  /* link bytes */
	uint64_t window;       /* that may be in flight */
	uint64_t goal;         /* what the window becomes */
	int64_t trip;          /* of the line itself, 0: not known */
	int64_t trip_last;     /* the last one */
	uint64_t settled;      /* what was sent up to here was sent under another window */
	int64_t look_at;       /* this look: its first trip, the smallest one, how many there were */
	int64_t least, sum, tremble;
	unsigned samples;
	bool used;             /* the window was, in this look */
	bool shorter;          /* the last dip has shown a shorter line */
	bool calm;             /* nobody talks beside bulk */
	int64_t talked_at;     /* somebody did */
	unsigned looks;        /* since the last dip */
	unsigned growth;       /* growths, one after the other */
	uint64_t before;       /* 0, or the window before it was lowered; its trip, and the one that was hoped for */
	int64_t before_trip, hoped;
	int64_t next_at;       /* nothing is sent before, so that the window is spread over a long trip */
	struct {
		uint64_t end;
		int64_t at;
	} mark[PACE_MARKS];
	size_t first, marks;
};

/*
 * pace_sent(p, n, now): ${n} bytes more were sent.  pace_talked(p, now): among them what somebody waits for.
 * pace_acked(p, count, delay, now): the peer has read ${count} bytes in all, the last of them ${delay} before it said so.  False:
 * that cannot be.
 * pace_room(p, now): how many bytes may be sent now.  pace_next(p, now): when more may be sent though nothing is acknowledged;
 * INT64_MAX: now, or not at all.  pace_over(p): even what may go beyond that has gone.
 * pace_slice(p): how many one stream should send at once.
 */
void pace_init(struct pace *p, int64_t now);
void pace_sent(struct pace *p, size_t n, int64_t now);
void pace_talked(struct pace *p, int64_t now);
bool pace_acked(struct pace *p, uint64_t count, int64_t delay, int64_t now);
size_t pace_room(const struct pace *p, int64_t now);
int64_t pace_next(const struct pace *p, int64_t now);
bool pace_over(const struct pace *p);
size_t pace_slice(const struct pace *p);

/* ---- boot.c: a far end where none was installed; bytes only ---- */

#define BOOT_MARK "relay:: "    /* before each answer of a far shell */
#define BOOT_BEGIN "V='relay " /* what the words for it begin with */
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
};

/*
 * boot_start(b, self, image, far_path, options): begin; ${self} is our own binary's path, ${image} where it can be read, ${options}
 * those of the far relay; ${far_path} is the far relay to use, NULL: whatever is found or can be brought.  False: no memory.
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

/* ---- link.c: many streams over one carrier; no descriptors; all times are microseconds ---- */

#define LINK_STREAMS 16384           /* open at once, at most */
#define LINK_MEMORY (64 * 1024 * 1024)
#define LINK_WINDOW_FIRST (256 * 1024)
#define LINK_WINDOW_LEAST 4096
#define LINK_WINDOW_MOST (16 * 1024 * 1024)
#define LINK_NOISE 65536             /* bytes before the far magic */

enum link_role { LINK_NEAR, LINK_FAR };
enum link_state { LINK_STARTS, LINK_GREETS, LINK_UP, LINK_DEAD };

/* PROTOCOL, section 4 */
enum link_code {
	LINK_END,
	LINK_RESET,
	LINK_REFUSED,
	LINK_NO_FILE,
	LINK_NO_PERMISSION,
	LINK_UNUSABLE,
	LINK_COMMAND,
	LINK_TIMEOUT,
	LINK_NO_ROUTE,
	LINK_NO_NAME,
	LINK_NO_ROOM,
	LINK_FORBIDDEN,
	LINK_PROTOCOL,
	LINK_VERSION
};

/*
 * One direction is ${out}, from the local side to the link: its user fills out.buf and sets its state, and calls link_ready. The
 * other is ${in}: the link fills in.buf and sets its state, its user takes bytes and calls link_consumed.
 */
struct stream {
	struct half out, in;
	struct stream *next_control, *next_flow, *next_new, *next_touched;
	char *words;             /* OPEN: the target; CLOSE: why; owned */
	void *user;              /* NULL: released */
	int64_t sent_at, credit_at;
	uint32_t id;
	uint32_t send_window;    /* DATA bytes that may be sent */
	uint32_t recv_window;    /* DATA bytes that the peer may still send */
	uint32_t window;         /* what recv_window is filled up to */
	uint32_t consumed;       /* written onward, not yet given back */
	uint32_t burst;          /* bytes sent lately: little makes it quiet */
	int32_t deficit;
	uint16_t code;           /* of CLOSE, whoever sent it first */
	unsigned opened : 1, sent_eof : 1, got_eof : 1, sent_close : 1, got_close : 1;
	unsigned due_open : 1, due_opened : 1, due_credit : 1, due_stop : 1, due_close : 1, stopped : 1;
	unsigned in_control : 1, in_flow : 1, in_news : 1, in_touched : 1;
};

struct link_list {
	struct stream *first, *last;
};

struct link {
	enum link_role role;
	enum link_state state;
	struct hello ours, theirs;
	int64_t now;
	unsigned char head[FRAME_HEAD];
	size_t head_have;
	struct frame frame;          /* whose body is being read */
	struct stream *data;         /* DATA: where it goes; NULL: it is dropped */
	size_t left;                 /* of the body */
	unsigned char body[FRAME_BODY];
	size_t matched;              /* of the magic */
	char *noise;                 /* what came before it */
	size_t noise_have;
	struct stream **table;       /* by id / 2 */
	uint32_t size, n, next_id;
	struct link_list control, fresh, busy, news, touched;
	struct pace pace;
	uint64_t read, read_acked;   /* link bytes */
	uint32_t stride, told;       /* how many may be read without an ACK: by us, and what the peer was told */
	int64_t unacked_at;          /* the first byte that wants an ACK; 0: none does */
	int64_t read_at;             /* the last byte */
	int64_t heard, ticked, pinged;
	bool due_hello, due_ack, due_ping, due_bye;
	bool patient;                /* says nothing before the far magic came: its far end is still being made */
	uint64_t promised;           /* the sum of all recv_window, in.buf and consumed, and what is left of DATA */
	uint16_t code;               /* why it is dead */
	uint16_t late;               /* of a stream that was reset after its user had released it */
	char why[FRAME_WORDS + 128];
	bool by_peer;                /* BYE came */
};

/*
 * link_init(l, role, memory, host, now): a link that starts.  link_free(l): with all streams that have no user.
 * link_feed(l, p, n, now): ${n} bytes came from the carrier; all are taken.
 * link_pull(l, dst, room, now): put frames that are to be sent now into ${dst}; ${room} is at least LINK_PULL.
 * link_has_output(l): would link_pull give something?
 * link_tick(l, now): let time pass; link_deadline(l): when it has to be called at the latest.
 * link_woke(l, now): this host slept, which its clock may not show: ask for a sign of life, and wait less long for it.
 * link_lost(l, code, why): the carrier has ended: all streams are reset.
 * link_bye(l, code, why): end the link; one more link_pull gives the last frame.
 *
 * link_open(l, target, user): near: a new stream; NULL: too many are open, or no memory.
 * link_next(l): far: a stream that was opened, with the target in words, or NULL; it is the caller's to take up (user).
 * link_touched(l): a stream to which the link has done something since it was given here last: its user has to look at it; NULL: none.
 * link_opened(s): far: its target is reached.
 * link_ready(l, s): out has changed.  link_takes(s): more bytes in out would be sent soon.
 * link_consumed(l, s, n): ${n} bytes of in were written onward.
 * link_stop(l, s): nobody reads in any more.  link_close(l, s, code, words): reset the stream.
 * link_release(l, s): its user is done with it.
 *
 * link_code(err), link_errno(code): codes of CLOSE from and to errno values.
 */
#define LINK_PULL 16384

void link_init(struct link *l, enum link_role role, uint32_t memory, const char *host, int64_t now);
void link_free(struct link *l);
void link_feed(struct link *l, const void *p, size_t n, int64_t now);
size_t link_pull(struct link *l, unsigned char *dst, size_t room, int64_t now);
bool link_has_output(const struct link *l);
void link_tick(struct link *l, int64_t now);
int64_t link_deadline(const struct link *l);
void link_woke(struct link *l, int64_t now);
void link_lost(struct link *l, uint16_t code, const char *why);
void link_bye(struct link *l, uint16_t code, const char *why);
struct stream *link_open(struct link *l, const char *target, void *user);
struct stream *link_next(struct link *l);
struct stream *link_touched(struct link *l);
void link_opened(struct link *l, struct stream *s);
void link_ready(struct link *l, struct stream *s);
bool link_takes(const struct link *l, const struct stream *s);
void link_consumed(struct link *l, struct stream *s, size_t n);
void link_stop(struct link *l, struct stream *s);
void link_close(struct link *l, struct stream *s, uint16_t code, const char *words);
void link_release(struct link *l, struct stream *s);
uint16_t link_code(int err);
int link_errno(uint16_t code);

/* ---- socks.c: what a client of -D says first; bytes only ---- */

#define SOCKS_REPLY 10

enum socks_state { SOCKS_TALKS, SOCKS_WANTS, SOCKS_WRONG };

struct socks {
	enum socks_state state;
	unsigned char in[1024];
	size_t have, needs;
	unsigned char version;
	bool greeted, no_command, no_address;
	bool silent;            /* there is no answer that it would understand */
	uint16_t code;          /* SOCKS_WRONG: of link.h's codes; why */
	const char *why;
	char target[ENDPOINT_HOST + 16]; /* SOCKS_WANTS */
};

/*
 * A struct of zeros begins.
 * socks_needs(s): how many bytes to read next, and no more.
 * socks_feed(s, p, n, answer, answer_n): they came; ${answer} (SOCKS_REPLY bytes) is to be sent at once.
 * socks_reply(s, code, dst): what tells the client how its request ended, LINK_END: it is connected; returns its length.
 */
size_t socks_needs(const struct socks *s);
void socks_feed(struct socks *s, const void *p, size_t n, unsigned char *answer, size_t *answer_n);
size_t socks_reply(const struct socks *s, uint16_t code, unsigned char dst[SOCKS_REPLY]);

/* ---- forward.c: what a tunnel carries ---- */

enum forward_kind { FORWARD_NEAR = 'L', FORWARD_FAR = 'R', FORWARD_SOCKS = 'D', FORWARD_STDIO = 'W' };

enum forward_state { FORWARD_DOWN, FORWARD_ASKS, FORWARD_STANDS, FORWARD_REFUSED };

struct forward {
	char kind;
	char *from_text, *to_text;
	struct endpoint from;     /* of -L and -D: here, of -R: there */
	struct dial_target to;    /* of -R: here */
	enum forward_state state; /* of -R: does it listen there?  of -L with -w: was its target reached? */
	uint32_t stream;          /* -R: that asked for it */
	int waiting;              /* -R: legs that wait there for a connection */
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

/* ---- leg.c: a local side and a stream ---- */

struct legs {
	struct watches watches;
	size_t n;
	size_t aside;               /* of them that carry no connection */
	size_t most;                /* near: who comes in there waits while so many are connected; 0: nobody does */
	struct link *link;
	struct dial_target *target; /* far: where streams go that name no other; its rule is that of all dials */
	bool fixed;                 /* far: no stream may name another */
	bool anybody;               /* far: whoever connects to what it listens on is let in */
};

/*
 * leg_new(tab, a, target, now): near: join ${a} to a new stream to ${target}. ${a} is the leg's from now on, unless false is
 * returned: no stream can be had.
 * leg_socks(tab, a, now): near: the same, to where ${a} asks to go.
 * leg_remote(tab, f, now): near: ask the far side to listen for ${f}, and serve what comes; ${f}->state tells what becomes of it.
 * leg_probe(tab, f, now): near: see that the target of ${f} is there.
 * leg_accept(tab, now): far: take up the streams that were opened.
 * leg_want(tab, ps), leg_step(tab, ps), leg_sweep(tab, ps): as pair_want, pair_step and pair_sweep.
 * leg_table(tab): tell people of every leg.
 */
bool leg_new(struct legs *tab, const struct end *a, const char *target, int64_t now);
bool leg_socks(struct legs *tab, const struct end *a, int64_t now);
bool leg_remote(struct legs *tab, struct forward *f, int64_t now);
bool leg_probe(struct legs *tab, struct forward *f, int64_t now);
void leg_accept(struct legs *tab, int64_t now);
void leg_want(struct legs *tab, struct pollset *ps);
void leg_step(struct legs *tab, const struct pollset *ps);
int leg_sweep(struct legs *tab, const struct pollset *ps);
void leg_table(const struct legs *tab);

/* ---- carrier.c: the wire of a link ---- */

#define CARRIER_OUT (4 * FRAME_DATA_MAX)

struct carrier {
	struct link *link;
	struct end wire;
	struct child *child;  /* near: the command; its end is told by spawn.c */
	struct dial *dial;    /* near: until the command runs */
	bool ended;           /* the wire is closed */
	int64_t unread_at;    /* nobody reads the wire since then; 0: somebody does */
	unsigned char *in, *out;
	size_t out_start, out_end;
	bool full;            /* the wire takes nothing until poll says so: each small piece would wake its reader up */
	struct boot *boot;    /* near: what makes the far end; NULL: the command does */
	int ear, ear_slot;    /* with a boot: the command's stderr; -1 */
	bool hushed;          /* its words are for -v only */
	char said[512], last_said[512]; /* a line that is coming, the last whole one */
	size_t said_have;
};

/*
 * carrier_near(c, link, target, boot, now): run the command ${target} as the carrier of ${link}, whose far end ${boot} makes if it
 * is not NULL; false: no memory or descriptors.
 * carrier_far(c, link): the carrier is stdin and stdout; -1: they cannot be, and it was told.
 * carrier_want(c, ps), carrier_step(c, ps): read what came.
 * carrier_flush(c, now): write what ${link} has to say, as much as the wire takes.
 * carrier_hear(c): read what the command said on its stderr, some KiB of it at the most.
 * carrier_close(c, now): after the last flush.
 */
bool carrier_near(struct carrier *c, struct link *link, struct dial_target *target, struct boot *boot, int64_t now);
int carrier_far(struct carrier *c, struct link *link);
void carrier_want(struct carrier *c, struct pollset *ps);
void carrier_step(struct carrier *c, const struct pollset *ps);
void carrier_flush(struct carrier *c, int64_t now_us);
void carrier_hear(struct carrier *c);
void carrier_close(struct carrier *c, int64_t now);

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
 */
bool hops_parse(struct hops *h, char *const hops[], int n, const char *rsh, char *why, size_t size);
const char *hops_path(const struct hops *h, char *dst, size_t size);
bool hops_any_command(const struct hops *h);
int hops_blame(const struct hops *h, const char *words);

/* ---- doctor.c: each step tried, and reported on stdout ---- */

/*
 * doctor_visit(hops, n, rsh): try hop after hop; false: one of them failed, or a signal came. Waits.
 * doctor_say(good, hop, fmt, ...): report of ${hop}, in the same form.
 */
bool doctor_visit(char *const hops[], int n, const char *rsh);
void doctor_say(bool good, const char *hop, const char *fmt, ...);

/* ---- tunnel.c: the life of a link ---- */

enum tunnel_state { TUNNEL_OVER, TUNNEL_STARTS, TUNNEL_UP, TUNNEL_RESTS };

struct tunnel {
	enum tunnel_state state;
	struct link link;
	struct carrier carrier;
	struct legs legs;
	struct dial_target *command;  /* near: what carries the link */
	const struct hops *hops;      /* near: it leads through these; NULL: it is the user's own */
	const char *self, *far_path, *far_options; /* with hops: for boot.c */
	struct boot boot;
	bool single;         /* ends with its one connection */
	bool finished;       /* it has ended so */
	bool stopped, woken;
	unsigned lives;      /* how often it was up */
	unsigned failures;   /* starts since then */
	int told_copies;
	bool told_silence;
	int64_t started_at, here_at, up_at, explain_at, magic_at, again_at;
	int64_t clocks;      /* what the time of day is ahead of the clock that stands still while the host sleeps */
	int64_t untold_at;   /* a loss that people are told of at this time; 0: none */
	char loss[1024];     /* why the link was lost, or could not be made again */
	int status;          /* TUNNEL_OVER: relay's exit */
};

/*
 * tunnel_start(t, role, now): begin, with command, hops and legs as they are; a status.
 * tunnel_want(t, ps): ask poll; ends and starts what is due.
 * tunnel_step(t, ps): read; true: the link is up just now.  tunnel_move(t, ps): then move what can be moved.
 * tunnel_wake(t): somebody wants a tunnel that rests.
 * tunnel_stop(t, status): end with ${status}.
 * tunnel_table(t, now): tell people how it is, and of every leg.
 */
int tunnel_start(struct tunnel *t, enum link_role role, int64_t now);
void tunnel_want(struct tunnel *t, struct pollset *ps);
bool tunnel_step(struct tunnel *t, const struct pollset *ps);
void tunnel_move(struct tunnel *t, const struct pollset *ps);
void tunnel_wake(struct tunnel *t);
void tunnel_stop(struct tunnel *t, int status);
void tunnel_table(const struct tunnel *t, int64_t now);

/* ---- options.c: the command line as a whole ---- */

#define OPTIONS_FORWARDS 32

struct options {
	bool anybody, background, doctor, fdpass, probe, quiet, verbose;
	bool linked;             /* all connections share one link: -m, or a tunnel */
	bool tunnel;             /* it leads through hops */
	bool fixed;              /* the far end of a link, with a TO */
	enum link_role role;
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
 * options_parse(o, argc, argv): fill ${o}, which is all zeros (it is large, and memory that nobody has written to costs nothing) and
 * borrows from ${argv}; exits where they are wrong, and for -h and -V.
 */
void options_parse(struct options *o, int argc, char *argv[]);

/* ---- signals.c: signals as a descriptor ---- */

/*
 * signals_open(): catch SIGTERM, SIGINT, SIGHUP, SIGCHLD and SIGUSR1, ignore SIGPIPE, block none; return the descriptor to poll.
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

/*
 * os_setup(fd): make ${fd} non-blocking and close-on-exec.
 * os_close(fd): close ${*fd} unless it is -1, which it becomes.
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
void *os_pages(size_t size);
void os_free_pages(void *p, size_t size);
bool os_self(const char *name, char *dst, size_t size);
const char *os_image(const char *self);
void os_close_from(int fd);
long os_raise_files(void);
void os_restore_files(void);

/* ---- log.c: words for people ---- */

enum log_level { LOG_ERROR, LOG_NOTICE, LOG_INFO }; /* -q, default, -v */

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
