/* cli/daemon.c - the background process of -f, the pid file of -P, -E. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "relay.h"
#include "cli/cache.h"
#include "cli/daemon.h"

#define PID_TRIES 100 /* while other processes remove the pid file */

/* The log of -f and its predecessor have at most 1 MiB together. */
#define LOG_MOST (512L * 1024)
#define LOG_KEPT (7 * 24 * 3600) /* seconds */

/* ---- -E ---- */

bool
daemon_open_log(const char *path)
{
	const char *why;
	struct stat st;

	if (log_to_file(path, 0) == 0)
		return true;
	why = strerror(errno);
	if (errno == EEXIST)
		why = "it belongs to another user, or has several names";
	else if (errno == ENXIO)
		why = "no process reads this FIFO";
	else if (lstat(path, &st) == 0 && S_ISLNK(st.st_mode))
		why = "it is a symbolic link";
	log_say(LOG_ERROR, "cannot write messages to %s: %s; name another file with -E", path, why);
	return false;
}

/* Is the file ${name} in ${dir} the old log of a process that has ended? */
static bool
is_old_log(const char *dir, const char *name, char path[CACHE_PATH])
{
	const char *kind = "log";
	long pid = cache_pid(name, kind);
	struct stat st;

	if (pid == 0)
		pid = cache_pid(name, kind = "log.old");
	if (pid == 0)
		return false;
	cache_file(dir, pid, "sock", path);
	if (lstat(path, &st) == 0)
		return false;
	cache_file(dir, pid, kind, path);
	return lstat(path, &st) == 0 && time(NULL) - st.st_mtime > LOG_KEPT;
}

static void
remove_old_logs(const char *dir)
{
	char path[CACHE_PATH];
	DIR *d = opendir(dir);
	struct dirent *entry;

	while (d != NULL && (entry = readdir(d)) != NULL)
		if (is_old_log(dir, entry->d_name, path))
			unlink(path);
	if (d != NULL)
		closedir(d);
}

/* Open the log of -f. */
static void
keep_log(void)
{
	static char path[CACHE_PATH];
	char dir[CACHE_PATH], why[CACHE_PATH];
	int i;

	for (i = 0; i < CACHE_DIRS; i++) {
		if (!cache_dir(i, true, dir, why))
			continue;
		cache_file(dir, (long)getpid(), "log", path);
		if (log_to_file(path, LOG_MOST) == 0) {
			remove_old_logs(dir);
			return;
		}
		snprintf(why, sizeof(why), "%.900s: %s", path, strerror(errno));
	}
	log_say(LOG_INFO, "no log, later messages are lost: %s", why);
}

/* ---- -f ---- */

/* In the parent: wait until the child is ready or has ended, then exit. */
static void
exit_as_child(pid_t pid, int fd)
{
	int status;
	char byte;
	ssize_t n;
	pid_t ended;

	do
		n = read(fd, &byte, 1);
	while (n == -1 && errno == EINTR);
	if (n == 1)
		_exit(STATUS_OK);
	do
		ended = waitpid(pid, &status, 0);
	while (ended == -1 && errno == EINTR);
	if (ended == -1)
		_exit(STATUS_SYSTEM);
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : STATUS_SIGNAL + WTERMSIG(status));
}

bool
daemon_fork(struct daemon *d)
{
	struct sigaction usual = { .sa_handler = SIG_DFL }, found;
	pid_t pid = -1;
	int fd[2];

	/* If SIGCHLD is ignored, waitpid does not return the status. */
	sigaction(SIGCHLD, &usual, &found);
	if (pipe(fd) == 0 && fcntl(fd[1], F_SETFD, FD_CLOEXEC) != -1)
		pid = fork();
	if (pid == -1)
		return false;
	if (pid > 0) {
		close(fd[1]);
		exit_as_child(pid, fd[0]);
	}
	sigaction(SIGCHLD, &found, NULL);
	close(fd[0]);
	d->ready_fd = fd[1];
	return true;
}

void
daemon_detach(struct daemon *d)
{
	struct stat st;

	if (d->ready_fd == 0)
		return;
	setsid();
	os_null(STDIN_FILENO);
	/* If stderr is a pipe, its reader would get no EOF while relay runs. */
	if (fstat(STDERR_FILENO, &st) == -1 || !S_ISREG(st.st_mode)) {
		if (log_file() == NULL)
			keep_log();
		os_null(STDERR_FILENO);
	}
	if (write(d->ready_fd, "", 1) != 1) /* the parent was killed */
		raise(SIGTERM);
	close(d->ready_fd);
	d->ready_fd = 0;
}

/* ---- -P ---- */

/*
 * A file of another user can contain any process ID.  A second name could be a
 * file of another program.  If the file has no name, another relay has just
 * removed it: os_lock returns ESTALE.
 */
static bool
is_pid_file(const struct stat *st)
{
	return S_ISREG(st->st_mode) && st->st_nlink <= 1 && st->st_uid == geteuid();
}

static int
open_pid_file(const char *path)
{
	/* Without O_NONBLOCK, open waits for the reader of a FIFO. */
	int fd = open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0644);
	struct stat st;

	if (fd == -1 || (fstat(fd, &st) == 0 && is_pid_file(&st)))
		return fd;
	close(fd);
	errno = EEXIST;
	return -1;
}

/* Return the process that has locked ${fd}.  0: none, or on another host. */
static long
find_owner(int fd)
{
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	if (fcntl(fd, F_GETLK, &whole) == -1 || whole.l_type == F_UNLCK || whole.l_pid < 0)
		return 0;
	return (long)whole.l_pid;
}

/* On EAGAIN, the process ${*owner} has locked the file; 0: not known. */
static int
lock_pid_file(const char *path, long *owner)
{
	int fd, saved, tries = PID_TRIES;

	do {
		*owner = 0;
		fd = open_pid_file(path);
		if (fd == -1)
			return -1;
		/* ENOLCK: some network file systems have no locks. */
		if (os_lock(fd, path) == 0 || errno == ENOLCK)
			return fd;
		saved = errno;
		if (saved == EAGAIN)
			*owner = find_owner(fd);
		close(fd);
		errno = saved;
	} while ((errno == ESTALE || (errno == EAGAIN && *owner == 0)) && --tries > 0);
	return -1;
}

static void
log_pid_failure(const char *path, int err, long owner)
{
	char why[128];
	struct stat st;

	if (err == EEXIST || (lstat(path, &st) == 0 && !is_pid_file(&st)))
		snprintf(why, sizeof(why),
		    "it is not a regular file of this user with one name; "
		    "remove it or choose another name");
	else if (err == EAGAIN && owner != 0)
		snprintf(why, sizeof(why),
		    "it is the pid file of process %ld; stop this process or choose another name",
		    owner);
	else if (err == EAGAIN)
		snprintf(why, sizeof(why),
		    "it is the pid file of a process on another host or in another container; "
		    "choose another name");
	else
		snprintf(why, sizeof(why), "%s; name another file with -P", strerror(err));
	log_say(LOG_ERROR, "cannot write %s: %s", path, why);
}

bool
daemon_write_pid(struct daemon *d)
{
	long owner;
	int fd, err;

	if (d->pid_path == NULL)
		return true;
	fd = lock_pid_file(d->pid_path, &owner);
	if (fd != -1 && ftruncate(fd, 0) == 0 && dprintf(fd, "%ld\n", (long)getpid()) > 0) {
		d->pid_fd = fd;
		return true;
	}
	err = errno;
	if (fd != -1) {
		unlink(d->pid_path);
		close(fd);
	}
	log_pid_failure(d->pid_path, err, owner);
	return false;
}

void
daemon_remove_pid(struct daemon *d)
{
	struct stat ours, st;

	if (d->pid_fd == 0)
		return;
	if (fstat(d->pid_fd, &ours) == 0 && lstat(d->pid_path, &st) == 0 &&
	    (st.st_dev != ours.st_dev || st.st_ino != ours.st_ino))
		return;
	if (unlink(d->pid_path) == -1 && errno != ENOENT)
		log_say(LOG_ERROR, "cannot remove %s: %s; remove it by hand", d->pid_path,
		    strerror(errno));
}
