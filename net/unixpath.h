/*
 * net/unixpath.h - Unix sockets and their files.
 *
 * Paths may be longer than sun_path, up to UNIXPATH_MAX - 1 bytes.  A path has
 * at least one '/'.  For a long path, the working directory of the process
 * changes during the call.  If it cannot be restored, the process exits.
 */
#ifndef NET_UNIXPATH_H
#define NET_UNIXPATH_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define UNIXPATH_MAX 4096

/* A socket file that this process made. */
struct unixpath {
	const char *path; /* borrowed */
	dev_t dev;
	ino_t ino;
};

/*
 * unixpath_connect(fd, path):
 * Call connect(2) for the Unix stream socket ${fd} and ${path}.  EAGAIN: the
 * backlog is full, or a process has bound the socket and does not listen yet.
 * ECONNREFUSED: no process has the socket open.
 */
int unixpath_connect(int fd, const char *path);

/*
 * unixpath_is_unused(path):
 * Return true if ${path} does not exist, or if no process has its socket open.
 * If this cannot be found out, return false.  No connection is made.
 */
bool unixpath_is_unused(const char *path);

/*
 * unixpath_link_dir(path, dst):
 * If ${path} is so long that unixpath_connect makes a symbolic link, write the
 * directory of the link to ${dst}, which has UNIXPATH_MAX bytes, and return
 * ${dst}.  Else return NULL.
 */
const char *unixpath_link_dir(const char *path, char *dst);

/*
 * unixpath_listen(file, path, wait_us, why, size):
 * Make a socket file with mode 0600 at ${path}, which must outlive ${file}, and
 * listen on it.  Return a non-blocking socket, which belongs to the caller, and
 * fill ${file}.  On failure write one line with cause and remedy to ${why},
 * remove all files that were made, and return -1.
 *
 * A socket file on which no process listens is replaced, and that is logged.
 * If any other file is there, it stays and the call fails.  A warning is logged
 * if other users may replace the new file.
 *
 * If several processes call this at once for one path, one succeeds: each one
 * locks the path first, if the file system has locks.  Wait at most ${wait_us}
 * microseconds for the lock of another process; 0: fail at once if it is taken.
 */
int unixpath_listen(
    struct unixpath *file, const char *path, int64_t wait_us, char *why, size_t size);

/*
 * unixpath_remove(file, wait_us):
 * Remove ${file}, unless its path leads to another file by now.  If another
 * process holds the lock, wait at most ${wait_us} microseconds, and then go on
 * without the lock.  A failure is logged.
 */
void unixpath_remove(const struct unixpath *file, int64_t wait_us);

#endif
