/*
 * net/dial.c - from an endpoint to connected descriptors, without blocking.
 *
 *   RESOLVING   a name is being looked up, in a child process
 *   CONNECTING  one address after the other, each with its own deadline
 *   STARTING    a command, until exec has succeeded
 *   PAUSING     before the next attempt: the target may appear later (-w), or
 *               the system or a backlog is full
 *   DONE, FAILED
 *
 * The addresses of a name are kept with the target, so that only the first dial
 * looks the name up.  Dials that start during the look-up share it.  If all
 * kept addresses fail, the name is looked up again.
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/os.h"
#include "base/poll.h"
#include "net/addr.h"
#include "net/endpoint.h"
#include "net/lookup.h"
#include "net/unixpath.h"
#include "spawn.h"
#include "relay.h"
#include "net/dial.h"

/* Pauses before the next attempt, in us. */
#define PAUSE_FIRST 20000 /* doubled up to PAUSE_MAX */
#define PAUSE_MAX 500000
#define PAUSE_FULL 100000  /* no descriptor, memory or look-up is left */
#define PAUSE_BACKLOG 5000 /* the backlog of a Unix listener is full */

enum step { RESOLVING, CONNECTING, STARTING, PAUSING, DONE, FAILED };

struct dial {
	struct dial_target *target;
	const struct endpoint *to; /* of the target */
	enum step step;
	int slot;
	int fd;                 /* CONNECTING or DONE */
	struct child *child;    /* STARTING or DONE */
	struct lookup *lookup;  /* RESOLVING */
	struct addr_list addrs; /* to try */
	int next;               /* the address to try next */
	bool cached;            /* the addresses are from an earlier dial */
	int64_t deadline;       /* of this step */
	int64_t full_until;     /* end of retries if system or backlog is full */
	int64_t give_up;        /* -w: no new attempt after this time */
	int64_t pause;          /* before the next attempt */
	int err, gai;           /* the failure of this attempt */
	bool late;              /* ETIMEDOUT: by the limit of -t */
};

static void begin(struct dial *d, int64_t now);

/* Later attempts would fail with the same error. */
static bool
is_permanent(int err)
{
	return err == EACCES || err == EPERM || err == ENAMETOOLONG || err == EPROTOTYPE ||
	       err == ENOTDIR || err == ELOOP;
}

static bool
is_system_full(int err)
{
	return err == EMFILE || err == ENFILE || err == ENOBUFS || err == ENOMEM;
}

/* EBUSY and EAGAIN: see lookup_start and unixpath_connect. */
static bool
is_full(const struct dial *d)
{
	return is_system_full(d->err) || d->err == EBUSY ||
	       (d->err == EAGAIN && d->to->kind != ENDPOINT_COMMAND);
}

static bool
waits_for_room(const struct dial *d, int64_t now)
{
	return is_full(d) && now < d->full_until;
}

/* Pause before the next attempt, or give up. */
static void
attempt_failed(struct dial *d, int64_t now)
{
	d->step = PAUSING;
	if (waits_for_room(d, now)) {
		bool backlog = d->err == EAGAIN && d->to->kind == ENDPOINT_UNIX;

		d->deadline = now + (backlog ? PAUSE_BACKLOG : PAUSE_FULL);
	} else if (now >= d->give_up || d->to->kind == ENDPOINT_COMMAND || is_permanent(d->err)) {
		d->step = FAILED;
	} else {
		d->deadline = now + d->pause;
		d->pause = d->pause * 2 > PAUSE_MAX ? PAUSE_MAX : d->pause * 2;
	}
}

static void
resolve(struct dial *d, int64_t now)
{
	struct lookup **shared = &d->target->lookup;

	d->lookup = *shared != NULL ? lookup_join(*shared) : lookup_start(d->target->kids, d->to);
	if (d->lookup == NULL) {
		d->err = errno;
		d->gai = errno == EBUSY ? EAI_AGAIN : 0;
		attempt_failed(d, now);
		return;
	}
	*shared = d->lookup;
	d->step = RESOLVING;
	d->deadline = now + d->target->each_us;
}

/* Later dials must not join: the answer is complete, or may never come. */
static void
leave_lookup(struct dial *d, int64_t now)
{
	if (d->lookup != NULL && d->target->lookup == d->lookup)
		d->target->lookup = NULL;
	lookup_free(d->lookup, now);
	d->lookup = NULL;
}

/*
 * If no process listens on a port of this host, connect(2) may by chance pick
 * the same port for its own end.  TCP then connects the socket to itself
 * (simultaneous open, RFC 9293 3.5).
 */
static bool
is_self_connected(int fd)
{
	struct sockaddr_storage a, b;
	socklen_t alen = sizeof(a), blen = sizeof(b);

	memset(&a, 0, sizeof(a));
	memset(&b, 0, sizeof(b));
	return getsockname(fd, (struct sockaddr *)&a, &alen) == 0 &&
	       getpeername(fd, (struct sockaddr *)&b, &blen) == 0 && alen == blen &&
	       memcmp(&a, &b, alen) == 0;
}

/*
 * If this host lacks a family or a route, an earlier error is the cause:
 * "localhost" is tried as ::1 last, also on hosts without IPv6.
 */
static bool
hides_cause(const struct dial *d, int err)
{
	return d->next > 1 && (err == EAFNOSUPPORT || err == EADDRNOTAVAIL || err == ENETUNREACH);
}

/* A connect has ended with ${err}.  Return true if the dial is done. */
static bool
connect_ended(struct dial *d, int err)
{
	if (err == 0 && d->to->kind == ENDPOINT_TCP && is_self_connected(d->fd))
		err = ECONNREFUSED;
	if (err == 0) {
		d->step = DONE;
		return true;
	}
	if (!hides_cause(d, err)) {
		d->err = err;
		d->late = false;
	}
	os_close(&d->fd);
	return false;
}

/* Connect to address ${i}; return 0 or the errno value. */
static int
start_connect(struct dial *d, int i)
{
	const struct sockaddr *sa = (const struct sockaddr *)&d->addrs.addr[i];
	bool path = d->to->kind == ENDPOINT_UNIX;
	int on = 1;

	d->fd = os_socket(path ? AF_UNIX : sa->sa_family);
	if (d->fd == -1)
		return errno;
	if (path)
		return unixpath_connect(d->fd, d->to->path) == 0 ? 0 : errno;
	/* A small message must not wait for an acknowledgement. */
	setsockopt(d->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return connect(d->fd, sa, d->addrs.len[i]) == 0 ? 0 : errno;
}

static void
connect_next(struct dial *d, int64_t now)
{
	int count = d->to->kind == ENDPOINT_UNIX ? 1 : d->addrs.n, e;

	while (d->next < count && !waits_for_room(d, now)) {
		e = start_connect(d, d->next++);
		/* POSIX: after EINTR, connect continues. */
		if (e == EINPROGRESS || e == EINTR) {
			d->step = CONNECTING;
			d->deadline = now + d->target->each_us;
			return;
		}
		if (connect_ended(d, e))
			return;
	}
	if (d->cached && !waits_for_room(d, now)) {
		d->target->cache.n = 0;
		begin(d, now);
		return;
	}
	attempt_failed(d, now);
}

static void
begin_command(struct dial *d, int64_t now)
{
	d->child = spawn_start(d->target->kids, d->to->argv[0], d->to->argv, d->target->how);
	d->step = STARTING;
	if (d->child == NULL) {
		d->err = errno;
		attempt_failed(d, now);
	}
}

static void
begin_addrs(struct dial *d, int64_t now)
{
	d->cached = d->target->cache.n > 0;
	if (d->cached)
		d->addrs = d->target->cache;
	if (d->cached || addr_numeric(d->to, &d->addrs))
		connect_next(d, now);
	else
		resolve(d, now);
}

static void
begin(struct dial *d, int64_t now)
{
	d->next = 0;
	d->err = d->gai = 0;
	switch (d->to->kind) {
	case ENDPOINT_STDIO:
		d->step = DONE;
		break;
	case ENDPOINT_COMMAND:
		begin_command(d, now);
		break;
	case ENDPOINT_UNIX:
		connect_next(d, now);
		break;
	default: /* net/addr.c has the addresses */
		begin_addrs(d, now);
		break;
	}
}

struct dial *
dial_start(struct dial_target *target, int64_t now)
{
	struct dial *d = calloc(1, sizeof(*d));

	if (d == NULL)
		return NULL;
	d->target = target;
	d->to = &target->to;
	d->fd = d->slot = -1;
	d->pause = PAUSE_FIRST;
	d->give_up = now + target->wait_us;
	d->full_until = now + target->each_us;
	begin(d, now);
	return d;
}

void
dial_want(struct dial *d, struct pollset *ps)
{
	d->slot = -1;
	if (d->step == RESOLVING)
		lookup_want(d->lookup, ps);
	if (d->step == CONNECTING)
		d->slot = pollset_add(ps, d->fd, POLLOUT);
	if (d->step == STARTING)
		spawn_want(d->child, ps);
	else
		pollset_until(ps, d->step == DONE || d->step == FAILED ? ps->now : d->deadline);
}

static void
step_resolving(struct dial *d, const struct pollset *ps)
{
	if (lookup_step(d->lookup, ps))
		d->gai = lookup_answer(d->lookup, &d->addrs);
	else if (ps->now >= d->deadline)
		d->gai = EAI_AGAIN;
	else
		return;
	leave_lookup(d, ps->now);
	if (d->gai != 0) {
		attempt_failed(d, ps->now);
		return;
	}
	d->target->cache = d->addrs;
	connect_next(d, ps->now);
}

static void
step_connecting(struct dial *d, const struct pollset *ps)
{
	if (pollset_ready(ps, d->slot) != 0) {
		if (!connect_ended(d, os_error(d->fd)))
			connect_next(d, ps->now);
	} else if (ps->now >= d->deadline) {
		connect_ended(d, ETIMEDOUT);
		d->late = true;
		connect_next(d, ps->now);
	}
}

static void
step_starting(struct dial *d, const struct pollset *ps)
{
	switch (spawn_step(d->child, ps)) {
	case SPAWN_STARTING:
		break;
	case SPAWN_RUNS:
		d->step = DONE;
		break;
	case SPAWN_FAILED:
		d->err = spawn_errno(d->child);
		d->step = FAILED;
		break;
	}
}

enum dial_state
dial_step(struct dial *d, const struct pollset *ps)
{
	if (d->step == RESOLVING)
		step_resolving(d, ps);
	else if (d->step == CONNECTING)
		step_connecting(d, ps);
	else if (d->step == STARTING)
		step_starting(d, ps);
	else if (d->step == PAUSING && ps->now >= d->deadline)
		begin(d, ps->now);
	d->slot = -1;
	return d->step == DONE ? DIAL_DONE : d->step == FAILED ? DIAL_FAILED : DIAL_BUSY;
}

int
dial_take(struct dial *d)
{
	int fd = d->fd;

	d->fd = -1;
	return fd;
}

struct child *
dial_take_child(struct dial *d)
{
	struct child *c = d->child;

	d->child = NULL;
	return c;
}

int
dial_status(const struct dial *d)
{
	int err = dial_errno(d);

	/* EAGAIN of fork: the user has no process left. */
	if (is_system_full(err) || (err == EAGAIN && d->to->kind != ENDPOINT_UNIX))
		return STATUS_SYSTEM;
	if (d->to->kind != ENDPOINT_COMMAND)
		return STATUS_CONNECT;
	return err == ENOENT ? STATUS_NOTFOUND : STATUS_NOEXEC;
}

int
dial_errno(const struct dial *d)
{
	return d->gai == 0 ? d->err : 0;
}

/* What to do if no server runs. */
static const char *
start_server(const struct dial *d)
{
	if (d->target->no_wait)
		return "start its server";
	return d->target->wait_us > 0 ? "start its server, or raise the SECONDS of -w"
				      : "start its server, or wait for it with -w SECONDS";
}

static void
explain_refused_path(const struct dial *d, char *dst, size_t size)
{
	char host[ENDPOINT_HOST] = "?";
	struct stat st;

	if (stat(d->to->path, &st) == 0 && !S_ISSOCK(st.st_mode)) {
		snprintf(dst, size, "the file there is not a socket");
		return;
	}
	gethostname(host, sizeof(host) - 1);
	snprintf(dst, size, "no process on this host (%s) is listening on that file; %s", host,
	    os_remote_file(d->to->path)
		? "the file is on a network file system: if its server runs "
		  "on another host, run relay there"
		: start_server(d));
}

static const char *
advice(const struct dial *d)
{
	bool path = d->to->kind == ENDPOINT_UNIX;

	switch (d->err) {
	case ENOENT:
		return d->to->kind == ENDPOINT_COMMAND ? "is it installed, and in the PATH?"
						       : start_server(d);
	case ECONNREFUSED:
		return start_server(d);
	case EACCES:
		return path ? "relay needs write permission for the socket and search permission "
			      "for its directories"
			    : "";
	case EAGAIN:
		return path ? "its server runs but accepts no connections: its backlog is full, or "
			      "it does not listen yet"
			    : "too many processes: end some, or raise ulimit -u";
	case ENETUNREACH:
	case EHOSTUNREACH:
		return "is the address right, and the network up?";
	case EMFILE:
		return "raise the limit with ulimit -n";
	default:
		return "";
	}
}

const char *
dial_explain(const struct dial *d, char *dst, size_t size)
{
	char name[ENDPOINT_NAME];
	size_t n;

	endpoint_name(d->to, name, sizeof(name));
	snprintf(dst, size,
	    d->to->kind == ENDPOINT_COMMAND ? "cannot execute %s: " : "cannot connect to %s: ",
	    name);
	n = strlen(dst);
	dst += n;
	size -= n;
	if (d->gai != 0)
		snprintf(dst, size, "the name cannot be resolved: %s; is it right?",
		    gai_strerror(d->gai));
	else if (d->err == ECONNREFUSED && d->to->kind == ENDPOINT_UNIX)
		explain_refused_path(d, dst, size);
	else if (d->err == ETIMEDOUT && d->late)
		snprintf(dst, size, "no answer within %d s; -t SECONDS waits longer",
		    (int)(d->target->each_us / 1000000));
	else
		snprintf(dst, size, "%s%s%s%s", strerror(d->err), *advice(d) != '\0' ? "; " : "",
		    d->err == ECONNREFUSED ? "no process listens on that port: " : "", advice(d));
	return dst - n;
}

void
dial_reset(struct dial *d)
{
	if (d->fd == -1 || d->to->kind != ENDPOINT_TCP)
		return;
	os_reset(d->fd);
	d->fd = -1;
}

void
dial_free(struct dial *d, int64_t now)
{
	if (d == NULL)
		return;
	os_close(&d->fd);
	if (d->child != NULL)
		spawn_release(d->child, now);
	leave_lookup(d, now);
	free(d);
}

const char *
dial_confine(const struct dial_target *target, char *dst, size_t size)
{
	const struct endpoint *to = &target->to;
	struct os_needs needs = { .port = to->port };
	struct addr_list addrs;
	char dir[UNIXPATH_MAX];

	if (to->kind == ENDPOINT_UNIX) {
		needs.path = to->path;
		needs.dir = unixpath_link_dir(to->path, dir);
	} else {
		/* musl looks an interface up with a Unix socket. */
		needs.names = !addr_numeric(to, &addrs) || strchr(to->host, '%') != NULL;
	}
	os_confine(&needs, dst, size);
	return dst;
}

void
dial_drop_target(struct dial_target *target)
{
	if (target != NULL && target->users > 0 && --target->users == 0)
		free(target);
}
