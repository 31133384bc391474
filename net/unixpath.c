/*
 * net/unixpath.c - Unix sockets and their files.
 *
 * relay makes a socket file with mode 0600, and removes it at the end if the
 * path still leads to that file.  It replaces a socket file only if no process
 * has the socket open: see unixpath_connect.
 *
 * A socket that is bound and does not listen yet refuses a connect, too.  So
 * relay binds the socket to ".NAME.relay" beside the path NAME, and listens.
 * Then it renames that file to NAME.
 *
 * Two processes at once could both find a dead socket, and the second rename
 * would replace the live socket of the first process.  So a process locks
 * ".NAME.relay-lock" before it changes NAME.  Both names follow from NAME: if a
 * process is killed, the next one finds its files, and uses or removes them.
 *
 * bind(2) and connect(2) take paths of at most 107 bytes (Linux).  For a longer
 * path, the process changes to the directory of the file during the call.  If
 * the file name alone is too long, connect(2) uses a symbolic link with a short
 * name, which exists only during the call.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "relay.h"
#include "net/unixpath.h"

#define STICKY 01000    /* S_ISVTX is XSI; POSIX has its value */
#define UNMAPPED 65534  /* Linux: root and others, in a namespace without their uid */
#define BESIDE_NAME 80  /* bytes of NAME in ".NAME.relay", to fit sun_path */
#define BESIDE_ROOM 48  /* for what is added to a path */
#define LOCK_PAUSE 5000 /* us between two attempts */
#define LOCK_TRIES 16   /* without a pause */

/* ---- long paths ---- */

typedef int path_call(int fd, const struct sockaddr *addr, socklen_t len);

static bool
fits_sun_path(const char *path)
{
	return strlen(path) < sizeof(((struct sockaddr_un *)0)->sun_path);
}

static void
dir_of(const char *path, char dst[UNIXPATH_MAX])
{
	snprintf(dst, UNIXPATH_MAX, "%.*s", (int)(strrchr(path, '/') + 1 - path), path);
}

static int
call_short(path_call *call, int fd, const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };

	memcpy(sa.sun_path, path, strlen(path) + 1);
	return call(fd, (struct sockaddr *)&sa, sizeof(sa));
}

/* Connect to ${name} in the working directory through a short symbolic link. */
static int
connect_alias(int fd, const char *name)
{
	struct stat st;
	char alias[32];
	int r, saved;

	snprintf(alias, sizeof(alias), ".relay-%ld", (long)getpid());
	unlink(alias); /* left by a killed process that had the same pid */
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
 * Open the working directory.  Never fail with EINTR: after EINTR, the caller
 * expects that the system continues a connect(2).
 */
static int
open_here(void)
{
	int fd;

	do
		fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	while (fd == -1 && errno == EINTR);
	return fd;
}

/*
 * Make ${call} in the directory of ${path}.  For bind, the name must fit.  If
 * relay cannot return to its directory, relative paths would be wrong: it
 * exits.  An error may be temporary: try three times.
 */
static int
call_from_dir(path_call *call, int fd, const char *path)
{
	const char *name = strrchr(path, '/') + 1;
	char dir[UNIXPATH_MAX];
	int here = open_here(), tries = 3, r, saved;

	if (here == -1)
		return -1;
	dir_of(path, dir);
	r = chdir(dir);
	if (r == 0)
		r = fits_sun_path(name) ? call_short(call, fd, name) : connect_alias(fd, name);
	saved = errno;
	while (fchdir(here) == -1) {
		if (--tries > 0)
			continue;
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
	return fits_sun_path(path) ? call_short(call, fd, path) : call_from_dir(call, fd, path);
}

const char *
unixpath_link_dir(const char *path, char *dst)
{
	if (fits_sun_path(path))
		return NULL;
	dir_of(path, dst);
	return dst;
}

/* gVisor refuses a datagram socket even if a process listens. */
static bool
is_connected(const char *path)
{
	int fd = os_socket(AF_UNIX);
	bool live = fd != -1 && (call_path(connect, fd, path) == 0 || errno == EAGAIN);

	os_close(&fd);
	return live;
}

/*
 * Return EAGAIN if a process has the socket at ${path} open, else another errno
 * value.  The connect of a datagram socket makes no connection: it is refused
 * if no process has the socket open.  Otherwise it gets EPROTOTYPE, because the
 * types differ.
 */
static int
find_socket(const char *path)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0), e = EAGAIN;

	if (fd == -1 || (call_path(connect, fd, path) == -1 && errno != EPROTOTYPE))
		e = errno;
	os_close(&fd);
	return e == ECONNREFUSED && is_connected(path) ? EAGAIN : e;
}

/* On macOS and the BSDs, a full backlog refuses a connect, too. */
int
unixpath_connect(int fd, const char *path)
{
	int r = call_path(connect, fd, path);

	if (r == -1 && errno == ECONNREFUSED)
		errno = find_socket(path);
	return r;
}

bool
unixpath_is_unused(const char *path)
{
	int e = find_socket(path);

	return e == ENOENT || e == ECONNREFUSED;
}

/* ---- what is at a path ---- */

/* FOUND_TAKEN: a file that relay does not replace. */
enum found { FOUND_NOTHING, FOUND_DEAD, FOUND_TAKEN };

/* Look at ${path}.  FOUND_TAKEN: the reason is in ${why}. */
static enum found
examine(const char *path, char *why, size_t size)
{
	struct stat st;
	int e = lstat(path, &st) == -1 ? errno : 0;

	if (e == 0 && !S_ISSOCK(st.st_mode)) {
		snprintf(
		    why, size, "the file there is not a socket; remove it or choose another path");
		return FOUND_TAKEN;
	}
	if (e == 0)
		e = find_socket(path);
	if (e == ENOENT)
		return FOUND_NOTHING;
	if (e == ECONNREFUSED)
		return FOUND_DEAD;
	if (e == EAGAIN)
		snprintf(why, size,
		    "the path is in use, a process listens there; stop that process or choose "
		    "another path");
	else
		snprintf(why, size,
		    "cannot find out whether a socket there is in use: %s; choose another path",
		    strerror(e));
	return FOUND_TAKEN;
}

/* ---- the lock of a path ---- */

/* A path, and the files beside it that exist while relay changes it. */
struct place {
	const char *path;
	char temp[UNIXPATH_MAX + BESIDE_ROOM]; /* the name of the new socket file */
	char lock[UNIXPATH_MAX + BESIDE_ROOM];
	int lock_fd; /* -1: the file system has no locks */
};

/*
 * From the path DIR/NAME, write DIR/.NAME and ${suffix} to ${dst}.  A long NAME
 * is cut, but not within a UTF-8 character.
 */
static void
name_beside(char dst[UNIXPATH_MAX + BESIDE_ROOM], const char *path, const char *suffix)
{
	const char *name = strrchr(path, '/') + 1;
	size_t n = strlen(name);

	if (n > BESIDE_NAME)
		for (n = BESIDE_NAME; n > 0 && log_continues(name[n]); n--)
			;
	snprintf(dst, UNIXPATH_MAX + BESIDE_ROOM, "%.*s.%.*s%s", (int)(name - path), path, (int)n,
	    name, suffix);
}

/* A lock is an empty file.  Any other file of that name must stay. */
static bool
is_lock(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0 && st.st_nlink <= 1;
}

static int
open_lock(const char *path)
{
	int fd = open(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	if (fd != -1 && !is_lock(fd)) {
		os_close(&fd);
		errno = EEXIST;
	} else if (fd == -1 && errno == ENOENT) {
		fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd == -1 && errno == EEXIST)
			errno = ESTALE; /* another process has just made it */
	}
	return fd;
}

/*
 * Lock without waiting.  ESTALE means that another process made or removed the
 * lock file just now, so the next attempt has another result.
 */
static int
try_lock(struct place *p)
{
	int tries = LOCK_TRIES;

	do {
		p->lock_fd = open_lock(p->lock);
		if (p->lock_fd != -1 && os_lock(p->lock_fd, p->lock) == 0)
			return 0;
		os_close(&p->lock_fd);
		if (errno != ESTALE && errno != EINTR)
			return -1;
	} while (--tries > 0);
	errno = EAGAIN;
	return -1;
}

/*
 * Lock ${path}, and wait at most ${wait_us} for it.  EAGAIN: another process
 * held the lock all the time.
 */
static int
lock_place(struct place *p, const char *path, int64_t wait_us)
{
	char suffix[BESIDE_ROOM - 16];

	p->path = path;
	name_beside(p->lock, path, ".relay-lock");
	name_beside(p->temp, path, ".relay");
	for (; try_lock(p) == -1; wait_us -= LOCK_PAUSE) {
		if (errno == ENOLCK) {
			/* Without a lock, each process needs its own name. */
			unlink(p->lock);
			snprintf(suffix, sizeof(suffix), ".relay%ld", (long)getpid());
			name_beside(p->temp, path, suffix);
			return 0;
		}
		if (errno != EAGAIN || wait_us <= 0)
			return -1;
		poll(NULL, 0, LOCK_PAUSE / 1000);
	}
	return 0;
}

static void
remove_file(const char *path, enum log_level level)
{
	if (unlink(path) == -1 && errno != ENOENT)
		log_say(level, "cannot remove %s: %s; remove it by hand", path, strerror(errno));
}

/*
 * Remove the file first, then release the lock.  A process that then gets the
 * lock of the removed file tries again.
 */
static void
unlock_place(struct place *p)
{
	if (p->lock_fd != -1)
		remove_file(p->lock, LOG_NOTICE);
	os_close(&p->lock_fd);
}

/* ---- listening ---- */

/*
 * Give the new socket file its name.  Where no file was found, use link(2),
 * which fails if another program has made a file there since.
 */
static int
give_name(const struct place *p, enum found found)
{
	struct stat st;

	if (found == FOUND_DEAD)
		return rename(p->temp, p->path);
	if (link(p->temp, p->path) == 0) {
		remove_file(p->temp, LOG_NOTICE);
		return 0;
	}
	/* Some file systems have no hard links. */
	if (errno == EEXIST || lstat(p->path, &st) == 0)
		return -1;
	return rename(p->temp, p->path);
}

/*
 * Return a socket that listens at the path of ${p}, and fill ${file}.
 * EADDRINUSE: the name beside the path is in use.
 */
static int
make_socket(const struct place *p, enum found found, struct unixpath *file)
{
	int fd = os_socket(AF_UNIX), saved;
	struct stat st;

	if (fd == -1 || call_path(bind, fd, p->temp) == -1) {
		os_close(&fd);
		return -1;
	}
	if (listen(fd, OS_BACKLOG) == 0 && lstat(p->temp, &st) == 0 && give_name(p, found) == 0) {
		*file = (struct unixpath){ .path = p->path, .dev = st.st_dev, .ino = st.st_ino };
		return fd;
	}
	saved = errno;
	unlink(p->temp);
	close(fd);
	errno = saved;
	return -1;
}

static const char *
advice(int e)
{
	switch (e) {
	case ENOENT:
		return "; make its directory first, or choose another path";
	case EACCES:
		return "; relay needs write permission for its directory";
	case EPERM: /* a directory such as /tmp, in which each user has files */
		return "; it belongs to another user: choose another path";
	case EMFILE:
		return "; raise the limit with ulimit -n";
	default:
		return "; choose a path on another file system, such as /tmp";
	}
}

static void
explain(enum found found, int e, char *why, size_t size)
{
	snprintf(why, size, "%s%s%s",
	    found == FOUND_DEAD ? "the dead socket there cannot be replaced: " : "", strerror(e),
	    advice(e));
}

static void
explain_lock(const struct place *p, enum found found, char *why, size_t size)
{
	struct stat st;
	int e = errno;

	if (e == EAGAIN)
		snprintf(why, size,
		    "another process holds the lock %s; end that process, try again later or "
		    "choose another path",
		    p->lock);
	else if (e != EMFILE && lstat(p->lock, &st) == 0)
		snprintf(why, size,
		    "the lock %s cannot be used: %s; remove it or choose another path", p->lock,
		    strerror(e));
	else
		explain(found, e, why, size);
}

/* Listen at the path of ${p}, which is locked; -1: the reason is in ${why}. */
static int
take_place(const struct place *p, struct unixpath *file, char *why, size_t size)
{
	enum found found = examine(p->path, why, size);
	int fd, e;

	if (found == FOUND_TAKEN)
		return -1;
	if (examine(p->temp, why, size) == FOUND_DEAD)
		unlink(p->temp); /* left by a killed process */
	fd = make_socket(p, found, file);
	if (fd != -1) {
		if (found == FOUND_DEAD)
			log_say(LOG_NOTICE,
			    "replaced %s, a dead socket: no process was listening on it", p->path);
		return fd;
	}
	e = errno;
	if (e == EADDRINUSE)
		snprintf(why, size, "%s is in use; remove it or choose another path", p->temp);
	/* EEXIST: report the file that another program has just made. */
	else if (e != EEXIST || examine(p->path, why, size) != FOUND_TAKEN)
		explain(found, e, why, size);
	return -1;
}

/* Many systems give each user a group of the same number without members. */
static bool
others_may_replace(const struct stat *dir)
{
	uid_t uid = geteuid();
	bool own_group = dir->st_gid == getegid() && dir->st_gid == (gid_t)uid;
	bool sticky = (dir->st_mode & STICKY) != 0;

	if (dir->st_uid != uid && dir->st_uid != 0 && !(dir->st_uid == UNMAPPED && sticky))
		return true;
	return !sticky && (dir->st_mode & (own_group ? S_IWOTH : S_IWOTH | S_IWGRP)) != 0;
}

/*
 * Other users cannot connect to the socket.  But if they may write to its
 * directory, they can replace it with their own.
 */
static void
warn_of_others(const char *path)
{
	char dir[UNIXPATH_MAX];
	struct stat st;

	dir_of(path, dir);
	if (stat(dir, &st) == 0 && others_may_replace(&st))
		log_say(LOG_NOTICE,
		    "other users may write to %s and replace the socket %s: use a directory of "
		    "your own",
		    dir, path);
}

/* The umask makes the files private from the start. */
int
unixpath_listen(struct unixpath *file, const char *path, int64_t wait_us, char *why, size_t size)
{
	enum found found;
	struct place p;
	mode_t old;
	int fd = -1;

	snprintf(why, size, "cannot listen on %s: ", path);
	size -= strlen(why);
	why += strlen(why);
	/* A file that must stay is reported without the lock. */
	found = examine(path, why, size);
	if (found == FOUND_TAKEN)
		return -1;
	old = umask(0177);
	if (lock_place(&p, path, wait_us) == -1)
		explain_lock(&p, found, why, size);
	else
		fd = take_place(&p, file, why, size);
	unlock_place(&p);
	umask(old);
	if (fd != -1)
		warn_of_others(path);
	return fd;
}

/* ---- the end ---- */

static bool
is_own_file(const struct unixpath *file)
{
	struct stat st;

	return lstat(file->path, &st) == 0 ? st.st_dev == file->dev && st.st_ino == file->ino
					   : errno != ENOENT;
}

void
unixpath_remove(const struct unixpath *file, int64_t wait_us)
{
	struct place p;
	mode_t old;

	if (!is_own_file(file))
		return;
	/*
	 * While the socket listens, no other relay replaces its file.  But if
	 * the file is removed by hand now, another relay can make a new one.
	 */
	old = umask(0177);
	lock_place(&p, file->path, wait_us);
	if (is_own_file(file))
		remove_file(file->path, LOG_ERROR);
	unlock_place(&p);
	umask(old);
}
