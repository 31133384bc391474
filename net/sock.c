/*
 * sock.c - listening sockets, addresses and socket paths.
 *
 * A TCP end becomes a list of addresses; a bare port means loopback, both families, the same number.  A Unix end becomes a file:
 * made with mode 0600 by the bind itself, put where nothing stood or in the place of a socket that a connect proved dead, and
 * removed only while it is still the same file.  Never is a live socket or any other file touched.
 *
 * A socket that was bound and does not listen yet refuses a connect as a dead
 * one does.  So the socket ".NAME.relay" is bound and listens beside the path
 * NAME, and then gets that name.  Between the proof that a socket is dead and
 * the rename over it, another start could put a live one there.  So all changes
 * of NAME are made while ".NAME.relay-lock" is locked.  Both names follow from
 * NAME: what a killed start left is used or removed by the next one.
 *
 * bind() and connect() take paths of at most 107 bytes.  A longer one is reached from its own directory; a file name that is too
 * long by itself, by connect() through a short name beside it that lives for the length of one call.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "net/endpoint.h"
#include "relay.h"
#include "net/sock.h"

/* Connections that may wait; the system has its own limit below that. musl says 128 for SOMAXCONN, whatever the system takes. */
#define BACKLOG 4096
#define STICKY 01000  /* S_ISVTX is XSI, its value is POSIX's own */
#define PORT_TRIES 16 /* for a port that is free on both loopback addresses */
#define TOLD_MOST \
	20 /* refusals that are told within TOLD_SPAN seconds: they come faster than anybody reads */
#define TOLD_SPAN 60
#define BESIDE_NAME 80  /* bytes of NAME in ".NAME.relay", which has to fit into sun_path */
#define BESIDE_ROOM 48  /* for what is added to a path */
#define LOCK_PAUSE 5    /* ms between two attempts */
#define START_WAIT 5000 /* ms that a start waits for another one on the same path */
#define END_WAIT 1000   /* a stop has 2 s in all */

/* ---- addresses ---- */

static void
add_addr(struct sock_addrs *out, const void *addr, socklen_t len)
{
	if (out->n == SOCK_ADDRS)
		return;
	memcpy(&out->addr[out->n], addr, len);
	out->len[out->n++] = len;
}

static void
add_both(struct sock_addrs *out, uint16_t port, in_addr_t v4, struct in6_addr v6)
{
	struct sockaddr_in in;
	struct sockaddr_in6 in6;

	memset(&in, 0, sizeof(in));
	in.sin_family = AF_INET;
	in.sin_port = htons(port);
	in.sin_addr.s_addr = htonl(v4);
	add_addr(out, &in, sizeof(in));
	memset(&in6, 0, sizeof(in6));
	in6.sin6_family = AF_INET6;
	in6.sin6_port = htons(port);
	in6.sin6_addr = v6;
	add_addr(out, &in6, sizeof(in6));
}

static int
resolve(const struct endpoint *ep, int flags, struct sock_addrs *out)
{
	struct addrinfo hints, *list, *ai;
	char port[8];
	int e;

	out->n = 0;
	if (strcmp(ep->host, "localhost") == 0) {
		add_both(out, ep->port, INADDR_LOOPBACK, (struct in6_addr)IN6ADDR_LOOPBACK_INIT);
		return 0;
	}
	if (strcmp(ep->host, "*") == 0) {
		add_both(out, ep->port, INADDR_ANY, (struct in6_addr)IN6ADDR_ANY_INIT);
		return 0;
	}
	memset(&hints, 0, sizeof(hints));
	hints.ai_socktype = SOCK_STREAM;
	hints.ai_flags = flags | AI_NUMERICSERV;
	snprintf(port, sizeof(port), "%u", (unsigned)ep->port);
	e = getaddrinfo(ep->host, port, &hints, &list);
	if (e != 0)
		return e;
	for (ai = list; ai != NULL; ai = ai->ai_next)
		if (ai->ai_family == AF_INET || ai->ai_family == AF_INET6)
			add_addr(out, ai->ai_addr, ai->ai_addrlen);
	freeaddrinfo(list);
	return out->n == 0 ? EAI_NONAME : 0;
}

int
sock_resolve(const struct endpoint *ep, struct sock_addrs *out)
{
	return resolve(ep, 0, out);
}

bool
sock_numeric(const struct endpoint *ep, struct sock_addrs *out)
{
	return resolve(ep, AI_NUMERICHOST, out) == 0;
}

static bool
is_loopback(const struct sockaddr *sa)
{
	const struct sockaddr_in6 *in6 = (const void *)sa;
	const struct sockaddr_in *in = (const void *)sa;

	if (sa->sa_family == AF_INET)
		return ntohl(in->sin_addr.s_addr) >> 24 == 127;
	if (sa->sa_family != AF_INET6)
		return false;
	return IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr) ||
	       (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr) && in6->sin6_addr.s6_addr[12] == 127);
}

void
sock_name(const struct sockaddr *addr, char *dst)
{
	const struct sockaddr_in6 *in6 = (const void *)addr;
	const struct sockaddr_in *in = (const void *)addr;
	char host[INET6_ADDRSTRLEN] = "?", scope[16] = "";

	if (addr->sa_family == AF_INET) {
		inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
		snprintf(dst, SOCK_NAME, "%s:%u", host, (unsigned)ntohs(in->sin_port));
		return;
	}
	inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
	if (in6->sin6_scope_id != 0)
		snprintf(scope, sizeof(scope), "%%%lu", (unsigned long)in6->sin6_scope_id);
	snprintf(dst, SOCK_NAME, "[%s%s]:%u", host, scope, (unsigned)ntohs(in6->sin6_port));
}

int
sock_open(int family)
{
	int fd = os_socket(family), on = 1;

	if (fd != -1 && family != AF_UNIX)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return fd;
}

void
sock_reset(int fd)
{
	struct linger now = { .l_onoff = 1, .l_linger = 0 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(fd);
}

/* ---- socket paths ---- */

typedef int path_call(int fd, const struct sockaddr *addr, socklen_t len);

static int
call_short(path_call *call, int fd, const char *path)
{
	struct sockaddr_un sa;

	memset(&sa, 0, sizeof(sa));
	sa.sun_family = AF_UNIX;
	memcpy(sa.sun_path, path, strlen(path) + 1);
	return call(fd, (struct sockaddr *)&sa, sizeof(sa));
}

/* ${name}, of this directory, is too long: use a short name beside it for the moment of the call. */
static int
connect_alias(int fd, const char *name)
{
	struct stat st;
	char alias[32];
	int r, saved;

	snprintf(alias, sizeof(alias), ".relay-%ld", (long)getpid());
	unlink(alias); /* of a process of our number that was killed in the middle of this */
	if (symlink(name, alias) == -1)
		return -1;
	r = call_short(connect, fd, alias);
	saved = errno;
	if (unlink(alias) == -1 && lstat(alias, &st) == 0)
		log_say(LOG_NOTICE, "cannot remove %s, beside %s; remove it by hand", alias, name);
	errno = saved;
	return r;
}

/*
 * From the directory of ${path}; the working directory is as before when this returns.  The name that a socket is bound to is short.
 */
static int
call_from_dir(path_call *call, int fd, const char *path)
{
	const char *name = strrchr(path, '/') + 1;
	char dir[SOCK_PATH_MAX];
	int here, r, saved, tries = 3;

	/* An EINTR from here would look like that of a connect, which goes on by itself. */
	do
		here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	while (here == -1 && errno == EINTR);
	if (here == -1)
		return -1;
	memcpy(dir, path, (size_t)(name - path));
	dir[name - path] = '\0';
	r = chdir(dir);
	if (r == 0)
		r = strlen(name) < sizeof(((struct sockaddr_un *)0)->sun_path)
			? call_short(call, fd, name)
			: connect_alias(fd, name);
	saved = errno;
	/* What passes must not end relay; to stay in another directory would make every other path a wrong one. */
	while (fchdir(here) == -1 && --tries > 0)
		;
	if (tries == 0) {
		if (call == bind && r == 0)
			unlink(name);
		log_say(LOG_ERROR, "cannot return to the working directory: %s", strerror(errno));
		_exit(STATUS_SYSTEM);
	}
	close(here);
	errno = saved;
	return r;
}

static int
call_path(path_call *call, int fd, const char *path)
{
	if (strlen(path) < sizeof(((struct sockaddr_un *)0)->sun_path))
		return call_short(call, fd, path);
	return call_from_dir(call, fd, path);
}

int
sock_connect_path(int fd, const char *path)
{
	return call_path(connect, fd, path);
}

/* ---- listening on a path ---- */

/* What a connect to ${path} says: 0 somebody listens; else the errno value, ECONNREFUSED: nobody. */
static int
probe(const char *path)
{
	int fd = os_socket(AF_UNIX), e;

	if (fd == -1)
		return errno;
	e = sock_connect_path(fd, path) == 0 ? 0 : errno;
	close(fd);
	return e == EAGAIN || e == EINPROGRESS ? 0 : e; /* EAGAIN: a full backlog is somebody's */
}

/* What is at a path.  FOUND_TAKEN: it has to stay, and that was reported. */
enum found { FOUND_NOTHING, FOUND_DEAD, FOUND_TAKEN };

static enum found
look_at(const char *path)
{
	struct stat st;
	int e;

	if (lstat(path, &st) == -1) {
		if (errno == ENOENT)
			return FOUND_NOTHING;
		log_say(LOG_ERROR, "cannot listen on %s: what is there cannot be told: %s", path,
		    strerror(errno));
		return FOUND_TAKEN;
	}
	if (!S_ISSOCK(st.st_mode)) {
		log_say(LOG_ERROR,
		    "cannot listen on %s: the file there is not a socket; remove it or take "
		    "another name",
		    path);
		return FOUND_TAKEN;
	}
	e = probe(path);
	if (e == ENOENT)
		return FOUND_NOTHING;
	if (e == ECONNREFUSED)
		return FOUND_DEAD;
	if (e == 0 || e == EPROTOTYPE)
		log_say(LOG_ERROR,
		    "cannot listen on %s: it is in use, a process is listening there; stop that "
		    "one or take another name",
		    path);
	else
		log_say(LOG_ERROR,
		    "cannot listen on %s: a socket is there, and whether it is in use cannot be "
		    "told: %s",
		    path, strerror(e));
	return FOUND_TAKEN;
}

/* A path and what is beside it during a start or an end. */
struct place {
	const char *path;
	char fresh[SOCK_PATH_MAX + BESIDE_ROOM]; /* the name of a socket until it listens */
	char lock[SOCK_PATH_MAX + BESIDE_ROOM];
	int lock_fd; /* -1: the file system has no locks */
};

/* ".NAME" and ${suffix} beside ${path}.  A long NAME is cut, but not inside a character of UTF-8. */
static void
name_beside(char dst[SOCK_PATH_MAX + BESIDE_ROOM], const char *path, const char *suffix)
{
	const char *name = strrchr(path, '/') + 1;
	size_t n = strlen(name);

	if (n > BESIDE_NAME)
		for (n = BESIDE_NAME; n > 0 && ((unsigned char)name[n] & 0xc0) == 0x80; n--)
			;
	snprintf(dst, SOCK_PATH_MAX + BESIDE_ROOM, "%.*s.%.*s%s", (int)(name - path), path, (int)n,
	    name, suffix);
}

/* Only an empty file is a lock: any other file of that name is not ours to remove. */
static bool
is_lock(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0 && st.st_nlink <= 1;
}

static int
open_lock(const char *path)
{
	mode_t old = umask(0177);
	int fd = open(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC), saved;

	if (fd != -1 && !is_lock(fd)) {
		os_close(&fd);
		errno = EEXIST;
	} else if (fd == -1 && errno == ENOENT) {
		fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd == -1 && errno == EEXIST)
			errno = EAGAIN;
	}
	saved = errno;
	umask(old);
	errno = saved;
	return fd;
}

static int
try_lock(struct place *p)
{
	int saved;

	p->lock_fd = open_lock(p->lock);
	if (p->lock_fd == -1)
		return -1;
	if (os_lock(p->lock_fd, p->lock) == 0)
		return 0;
	saved = errno;
	os_close(&p->lock_fd);
	errno = saved == ESTALE ? EAGAIN : saved;
	return -1;
}

/* Lock ${path}, waiting for at most ${ms}.  EAGAIN: another process held the lock all the time. */
static int
lock_place(struct place *p, const char *path, int ms)
{
	char suffix[BESIDE_ROOM - 16];

	p->path = path;
	name_beside(p->lock, path, ".relay-lock");
	name_beside(p->fresh, path, ".relay");
	for (; try_lock(p) == -1; ms -= LOCK_PAUSE) {
		if (errno == ENOLCK) {
			/* Without a lock, each start needs a name of its own. */
			unlink(p->lock);
			snprintf(suffix, sizeof(suffix), ".relay%ld", (long)getpid());
			name_beside(p->fresh, path, suffix);
			return 0;
		}
		if ((errno != EAGAIN && errno != EINTR) || ms <= 0)
			return -1;
		poll(NULL, 0, LOCK_PAUSE);
	}
	return 0;
}

/* The file goes before the lock: a process that gets the lock of a removed file tries again. */
static void
unlock_place(struct place *p)
{
	if (p->lock_fd != -1 && unlink(p->lock) == -1 && errno != ENOENT)
		log_say(LOG_NOTICE, "cannot remove %s: %s; remove it by hand", p->lock,
		    strerror(errno));
	os_close(&p->lock_fd);
}

static int
bind_private(int fd, const char *path)
{
	mode_t old = umask(0177);
	int r = call_path(bind, fd, path), saved = errno;

	umask(old);
	errno = saved;
	return r;
}

/* The socket of a start that was killed. */
static void
remove_left(const char *path)
{
	struct stat st;

	if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode) && probe(path) == ECONNREFUSED)
		unlink(path);
}

/* A socket that listens beside ${p}; ${l} remembers its file. */
static int
listen_beside(const struct place *p, struct listener *l)
{
	struct stat st;
	int fd, saved;

	remove_left(p->fresh);
	fd = os_socket(AF_UNIX);
	if (fd == -1)
		return -1;
	if (bind_private(fd, p->fresh) == -1)
		goto fail;
	if (listen(fd, BACKLOG) == 0 && lstat(p->fresh, &st) == 0) {
		l->dev = st.st_dev;
		l->ino = st.st_ino;
		return fd;
	}
	saved = errno;
	unlink(p->fresh);
	errno = saved;

fail:
	saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

/* Where nothing is found, link fails if another program has put a file there since. */
static int
give_name(const struct place *p, enum found found)
{
	struct stat st;

	if (found == FOUND_DEAD)
		return rename(p->fresh, p->path);
	if (link(p->fresh, p->path) == 0) {
		if (unlink(p->fresh) == -1)
			log_say(LOG_NOTICE, "cannot remove %s: %s; remove it by hand", p->fresh,
			    strerror(errno));
		return 0;
	}
	/* Some file systems have no hard links. */
	if (errno == EEXIST || lstat(p->path, &st) == 0)
		return -1;
	return rename(p->fresh, p->path);
}

static void
tell_failure(const char *path, enum found found, int e)
{
	log_say(LOG_ERROR, "cannot listen on %s: %s%s", path,
	    found == FOUND_DEAD ? "the dead socket there cannot be replaced: " : "", strerror(e));
}

static void
tell_lock_failure(const struct place *p, enum found found, int e)
{
	struct stat st;

	if (e == EAGAIN)
		log_say(LOG_ERROR,
		    "cannot listen on %s: another start has held the lock %s for %d s; end that "
		    "process or take another name",
		    p->path, p->lock, START_WAIT / 1000);
	else if (e != EMFILE && lstat(p->lock, &st) == 0)
		log_say(LOG_ERROR,
		    "cannot listen on %s: the lock %s cannot be used: %s; remove it or take "
		    "another name",
		    p->path, p->lock, strerror(e));
	else
		tell_failure(p->path, found, e);
}

/* A listening socket at ${p}, which is locked; -1, and reported. */
static int
take_place(const struct place *p, struct listener *l)
{
	enum found found = look_at(p->path);
	int fd, e;

	if (found == FOUND_TAKEN)
		return -1;
	fd = listen_beside(p, l);
	if (fd == -1) {
		tell_failure(p->path, found, errno);
		return -1;
	}
	if (give_name(p, found) == 0) {
		if (found == FOUND_DEAD)
			log_say(LOG_NOTICE,
			    "replaced %s, a dead socket: no process was listening on it", p->path);
		return fd;
	}
	e = errno;
	unlink(p->fresh);
	close(fd);
	/* A file that was put there meanwhile has a reason of its own. */
	if (e != EEXIST || look_at(p->path) != FOUND_TAKEN)
		tell_failure(p->path, found, e);
	return -1;
}

/* Nobody else can connect to the socket; but where others may write, they can put one of theirs in its place. */
static void
warn_of_others(const char *path)
{
	char dir[SOCK_PATH_MAX];
	struct stat st;

	snprintf(dir, sizeof(dir), "%.*s", (int)(strrchr(path, '/') + 1 - path), path);
	if (stat(dir, &st) == 0 && (st.st_mode & S_IWOTH) != 0 && (st.st_mode & STICKY) == 0)
		log_say(LOG_NOTICE,
		    "others may write to %s and put a socket of theirs in the place of %s", dir,
		    path);
}

static int
listen_unix(const struct endpoint *ep, struct listener *l)
{
	enum found found = look_at(ep->path); /* what has to stay needs no lock */
	struct place p;

	if (found == FOUND_TAKEN)
		return -1;
	if (lock_place(&p, ep->path, START_WAIT) == -1) {
		tell_lock_failure(&p, found, errno);
		return -1;
	}
	l->fd = take_place(&p, l);
	unlock_place(&p);
	if (l->fd == -1)
		return -1;
	l->path = ep->path;
	warn_of_others(ep->path);
	return 1;
}

/* ---- listening on addresses ---- */

static int
bind_tcp(const struct sockaddr *addr, socklen_t len)
{
	const struct sockaddr_in6 *in6 = (const void *)addr;
	int fd = os_socket(addr->sa_family), on = 1, only, saved;

	if (fd == -1)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (addr->sa_family == AF_INET6) {
		/* IPv4 has a socket of its own, except where its addresses were asked for in IPv6's clothes. */
		only = !IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr);
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof(only));
	}
	if (bind(fd, addr, len) == 0 && listen(fd, BACKLOG) == 0)
		return fd;
	saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

static in_port_t *
port_of(struct sockaddr_storage *sa)
{
	return sa->ss_family == AF_INET6 ? &((struct sockaddr_in6 *)(void *)sa)->sin6_port
					 : &((struct sockaddr_in *)(void *)sa)->sin_port;
}

static void
close_all(struct listener *tab, int n)
{
	while (n-- > 0)
		sock_unlisten(&tab[n]);
}

/*
 * Bind all of ${addrs}, port 0 as one port for all.  An address of a family that this host does not have is left out where the
 * end named none.  Return how many; -1: ${*failed} is the address that could not be had.
 */
static int
bind_all(struct sock_addrs *addrs, bool lenient, struct listener *tab, int *failed)
{
	struct sockaddr_storage *sa, bound;
	in_port_t port = 0;
	socklen_t len;
	int i, fd, n = 0, saved;

	for (i = 0; i < addrs->n; i++) {
		sa = &addrs->addr[i];
		if (port != 0)
			*port_of(sa) = port;
		fd = bind_tcp((struct sockaddr *)sa, addrs->len[i]);
		if (fd == -1 && lenient && (errno == EAFNOSUPPORT || errno == EADDRNOTAVAIL))
			continue;
		len = sizeof(bound);
		if (fd == -1 || getsockname(fd, (struct sockaddr *)&bound, &len) == -1) {
			saved = errno;
			close_all(tab, n);
			errno = saved;
			*failed = i;
			return -1;
		}
		if (*port_of(sa) == 0)
			port = *port_of(&bound);
		memset(&tab[n], 0, sizeof(tab[n]));
		tab[n].fd = fd;
		tab[n].guarded = is_loopback((struct sockaddr *)&bound);
		sock_name((struct sockaddr *)&bound, tab[n].name);
		n++;
	}
	if (n > 0)
		return n;
	*failed = 0;
	errno = EADDRNOTAVAIL;
	return -1;
}

static const char *
listen_advice(int e)
{
	switch (e) {
	case EADDRINUSE:
		return "; another program has that port: take another one, or 0 to let the system "
		       "pick";
	case EADDRNOTAVAIL:
		return "; the address is none of this host's: a bare port is on loopback, *:PORT "
		       "on every address";
	case EACCES:
		return "; ports below 1024 are root's: take a higher one";
	default:
		return "";
	}
}

int
sock_listen_at(
    const struct endpoint *ep, const struct sock_addrs *addrs, struct listener tab[SOCK_ADDRS])
{
	bool lenient = strcmp(ep->host, "localhost") == 0 || strcmp(ep->host, "*") == 0;
	struct sock_addrs tried;
	char name[SOCK_NAME];
	int e, n, failed = 0, tries = PORT_TRIES;

	do {
		tried = *addrs;
		n = bind_all(&tried, lenient, tab, &failed);
	} while (n == -1 && errno == EADDRINUSE && ep->port == 0 && --tries > 0);
	if (n == -1) {
		e = errno;
		sock_name((struct sockaddr *)&tried.addr[failed], name);
		log_say(
		    LOG_ERROR, "cannot listen on %s: %s%s", name, strerror(e), listen_advice(e));
	}
	return n;
}

static int
listen_tcp(const struct endpoint *ep, struct listener *tab)
{
	struct sock_addrs addrs;
	char name[ENDPOINT_NAME];
	int e = sock_resolve(ep, &addrs);

	if (e == 0)
		return sock_listen_at(ep, &addrs, tab);
	log_say(LOG_ERROR, "cannot listen on %s: %s", endpoint_name(ep, name, sizeof(name)),
	    gai_strerror(e));
	return -1;
}

int
sock_listen(const struct endpoint *ep, struct listener tab[SOCK_ADDRS])
{
	if (ep->kind == ENDPOINT_TCP)
		return listen_tcp(ep, tab);
	memset(&tab[0], 0, sizeof(tab[0]));
	return listen_unix(ep, &tab[0]);
}

const char *
sock_bound(const struct listener *l)
{
	return l->path != NULL ? l->path : l->name;
}

static bool
is_own_file(const struct listener *l)
{
	struct stat st;

	return lstat(l->path, &st) == 0 ? st.st_dev == l->dev && st.st_ino == l->ino
					: errno != ENOENT;
}

/* The socket file of ${l}, if it is still there and still ours.  Without the lock, another start could replace it in between. */
static void
remove_file(const struct listener *l)
{
	struct place p;
	bool locked;

	if (!is_own_file(l))
		return;
	locked = lock_place(&p, l->path, END_WAIT) == 0;
	if (is_own_file(l) && unlink(l->path) == -1 && errno != ENOENT)
		log_say(
		    LOG_ERROR, "cannot remove %s: %s; remove it by hand", l->path, strerror(errno));
	if (locked)
		unlock_place(&p);
}

void
sock_unlisten(struct listener *l)
{
	if (l->fd == -1)
		return;
	if (l->path != NULL)
		remove_file(l);
	close(l->fd);
	l->fd = -1;
}

/* ---- accepting ---- */

static void
tell_refused(const char *name, const char *at, const char *why)
{
	static time_t since;
	static unsigned told;
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (told == 0 || now.tv_sec - since >= TOLD_SPAN) {
		since = now.tv_sec;
		told = 0;
	}
	if (told == TOLD_MOST)
		return;
	told++;
	log_say(LOG_NOTICE, "refused %s on %s: %s (-a lets everybody in)%s", name, at, why,
	    told == TOLD_MOST ? "; others are not told of for a minute" : "");
}

/* May the process at the other end of ${fd} use a listener of ours?  Told where not. */
static bool
is_ours(int fd, const struct sockaddr *peer, const char *name, const char *at)
{
	struct sockaddr_storage local;
	socklen_t len = sizeof(local);
	char why[160];
	uid_t uid = 0;
	int known;

	known = getsockname(fd, (struct sockaddr *)&local, &len) == -1
		    ? -1
		    : os_peer_uid(peer, (struct sockaddr *)&local, &uid);
	/* Reset before the look-up: its port was free again, and the answer may speak of the next who has it. */
	if (known == 1 && os_error(fd) != 0) {
		known = -1;
		errno = ENOENT;
	}
	if (known == 0 || (known == 1 && (uid == geteuid() || uid == 0)))
		return true;
	if (known == 1)
		snprintf(why, sizeof(why), "it is a process of uid %lu", (unsigned long)uid);
	else if (errno == ENOENT)
		snprintf(why, sizeof(why), "its socket was closed before its user could be known");
	else
		snprintf(why, sizeof(why), "its user cannot be known: %s", strerror(errno));
	tell_refused(name, at, why);
	return false;
}

int
sock_accept(const struct listener *l, char *name)
{
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);
	int fd, on = 1;

	do
		fd = os_accept(l->fd, (struct sockaddr *)&peer, &len);
	while (fd == -1 && (errno == EINTR || errno == ECONNABORTED));
	if (fd == -1)
		return -1;
	if (l->path != NULL) {
		snprintf(name, SOCK_NAME, "a client");
		return fd;
	}
	sock_name((struct sockaddr *)&peer, name);
	if (l->guarded && !is_ours(fd, (struct sockaddr *)&peer, name, l->name)) {
		sock_reset(fd);
		errno = EACCES;
		return -1;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return fd;
}
