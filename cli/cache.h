/*
 * cli/cache.h - the directory of this user for control sockets and logs.
 *
 * It is $XDG_CACHE_HOME/relay, else ~/.cache/relay, else /tmp/relay-UID: a
 * directory of this user with mode 0700.  A directory on a network file system
 * is not used: its sockets work on one host only, and a write can block.
 *
 * A file in it is named HOST.PID.KIND.  Hosts that share a home directory do
 * not disturb each other.
 */
#ifndef CLI_CACHE_H
#define CLI_CACHE_H

#include <stdbool.h>

#define CACHE_DIRS 2
#define CACHE_PATH 1024 /* the size of a path, with its NUL */

/*
 * cache_dir(i, make, dst, why):
 * Write the path of directory number ${i} to ${dst}.  ${i} is less than
 * CACHE_DIRS.  If ${make}, create the directory.  Both buffers have CACHE_PATH
 * bytes.  Return false with the reason in ${why} if the directory cannot be
 * used.
 */
bool cache_dir(int i, bool make, char *dst, char *why);

/*
 * cache_file(dir, pid, kind, dst):
 * Write the path of a file in ${dir}, which is from cache_dir, to ${dst}, which
 * has CACHE_PATH bytes.
 */
void cache_file(const char *dir, long pid, const char *kind, char *dst);

/*
 * cache_pid(name, kind):
 * Return the process ID of the file name ${name}, or 0 if it is not a file of
 * this host and of this ${kind}.
 */
long cache_pid(const char *name, const char *kind);

/* cache_remove_dead(path): Remove the socket ${path} if no process has it open. */
void cache_remove_dead(const char *path);

#endif
