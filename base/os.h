/*
 * base/os.h - what POSIX.1-2008 lacks, and small functions for descriptors.
 *
 * base/os.c is the same on every system.  Beside it, the Makefile builds one of
 * base/os_linux.c, base/os_darwin.c, base/os_bsd.c and base/os_posix.c.  Each
 * of these four defines all functions of the second part.  os_posix.c has the
 * portable forms; the others use them where the system has nothing better.
 *
 * Unless its contract says otherwise, a function that can fail returns -1 with
 * errno set.
 */
#ifndef BASE_OS_H
#define BASE_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

/* The size of pipes to and from commands, where os_pipe_size works. */
#define OS_PIPE (256 * 1024)

/* Of listening sockets; the system may lower it.  SOMAXCONN of musl is 128. */
#define OS_BACKLOG 4096

/* What os_unsent returns if the system cannot count the bytes. */
#define OS_UNSENT_UNKNOWN UINT64_MAX

#define OS_FDS 4 /* descriptors in one message, at most */

/* ---- os.c: the same on every system ---- */

/* os_setup(fd): Make ${fd} non-blocking and close-on-exec. */
int os_setup(int fd);

/* os_close(fd): Close ${*fd} unless it is -1, set it to -1, and keep errno. */
void os_close(int *fd);

/*
 * os_lock(fd, path):
 * Lock the file ${fd}, which was opened as ${path}.  The lock ends when this
 * process closes any descriptor of the file.  EAGAIN: another process holds the
 * lock.  ESTALE: ${path} is another file now.  ENOLCK: the file system has no
 * locks.
 */
int os_lock(int fd, const char *path);

/*
 * os_fill_stdio():
 * If descriptor 0, 1 or 2 is closed, open /dev/null there, so that no later
 * descriptor gets that number.  Keep one more descriptor of /dev/null for
 * os_null.  Return false if /dev/null cannot be opened.
 *
 * os_null(fd):
 * Put /dev/null in the place of ${fd}, which is 0, 1 or 2.  A command that is
 * executed inherits it.  Return ${fd}.  After os_fill_stdio has returned true
 * this cannot fail, even if the process has no free descriptor.
 */
bool os_fill_stdio(void);
int os_null(int fd);

/*
 * os_error(fd):
 * Return the pending error of the socket ${fd} as an errno value, and clear it.
 * 0: none.  If it cannot be read, return the errno value of that.
 */
int os_error(int fd);

/* os_reset(fd): Close the TCP socket ${fd}; its peer receives a reset. */
void os_reset(int fd);

/*
 * os_raise_files():
 * Raise the limit of open descriptors to its hard limit, or to os_most_files if
 * that is lower.  Return how many descriptors the process can open now, even if
 * the limit could not be raised.  -1: no limit.
 *
 * os_restore_files():
 * In a child that executes a command: undo os_raise_files, if it was called.
 */
long os_raise_files(void);
void os_restore_files(void);

/*
 * os_find_program(name, dst, size):
 * Find the program ${name} as a shell does: a name with a '/' is a path,
 * any other name is looked up in PATH.  Write the path to ${dst}.  Return false
 * if the program is not found or its path has no room.
 */
bool os_find_program(const char *name, char *dst, size_t size);

/*
 * os_own_dir(path):
 * Is ${path} a directory of this user with mode 0700?  A setgid bit is allowed.
 */
bool os_own_dir(const char *path);

/*
 * os_send_fds(fd, p, n, fds, count):
 * Send ${n} bytes and ${count} descriptors, OS_FDS at most, in one message over
 * the Unix socket ${fd}.  Return as sendmsg(2); EINTR is retried.
 *
 * os_recv_fds(fd, p, size, fds, count):
 * Receive such a message.  ${*count} is the room of ${fds}, and becomes the
 * number of descriptors; they belong to the caller even if -1 is returned.
 * Return the number of bytes, or -1: an error, or a message that has no room.
 */
ssize_t os_send_fds(int fd, const void *p, size_t n, const int *fds, int count);
ssize_t os_recv_fds(int fd, void *p, size_t size, int *fds, int *count);

/* os_random(p, n): Fill ${p} with ${n} random bytes; false if that fails. */
bool os_random(void *p, size_t n);

/*
 * os_close_each(fd):
 * Close each descriptor from ${fd} up to the limit of open descriptors, or
 * up to 65,535 if the limit is higher.
 */
void os_close_each(int fd);

/* ---- os_linux.c, os_darwin.c, os_bsd.c, os_posix.c ---- */

/*
 * os_socket(family), os_accept(lfd, peer, len):
 * Create a stream socket, or accept a connection as accept(2) does.  The new
 * socket is non-blocking and close-on-exec.
 */
int os_socket(int family);
int os_accept(int lfd, struct sockaddr *peer, socklen_t *len);

/*
 * os_peer_uid(peer, local, uid):
 * Find the user that owns the other end of a TCP connection within this host.
 * ${peer} is the address of that end, ${local} the address of our end.  Return
 * 1 with the user in ${*uid}, or 0 if this system has no way (NetBSD,
 * DragonFly, portable).  Return -1 if the look-up failed; ENOENT: no process
 * has that socket any more.
 * Linux: the first call opens a descriptor that stays open.  macOS, FreeBSD:
 * takes longer if the host has many TCP sockets.
 *
 * os_unix_uid(fd, uid):
 * The same for the Unix socket ${fd}; portable: 0.
 */
int os_peer_uid(const struct sockaddr *peer, const struct sockaddr *local, uid_t *uid);
int os_unix_uid(int fd, uid_t *uid);

/*
 * os_port_is_unused(port):
 * Return true if no process of this host listens on the TCP port ${port}, on
 * any address.  Return false if one does, if the look-up failed, or if this
 * system has no way (all but Linux).  No connection is made.
 */
bool os_port_is_unused(uint16_t port);

/*
 * os_most_files():
 * Return how many descriptors poll(2) and the system allow a process, whatever
 * its limit is.  -1: no such bound (portable).
 */
long os_most_files(void);

/*
 * os_remote_file(path):
 * Is ${path} on a network file system?  Portable, or if it cannot be examined:
 * false.
 */
bool os_remote_file(const char *path);

/*
 * os_follow(parent):
 * In a child: ask the system to send SIGTERM to this process when its parent,
 * ${parent}, ends.  If the parent has ended already, raise SIGTERM now.
 *
 * os_adopt():
 * Become the parent of each descendant whose parent ends.
 *
 * os_children(pids, most):
 * Write the processes whose parent is this process into ${pids}, ${most} at
 * most.  Return their number, or -1 if there are some and they cannot be listed.
 *
 * Portable: these three do nothing.
 */
void os_follow(pid_t parent);
void os_adopt(void);
int os_children(pid_t *pids, int most);

/*
 * os_splice(in, out, max):
 * Move up to ${max} bytes from ${in} to ${out} within the kernel; one of them
 * is a pipe.  Does not block if both are non-blocking.  Return how many bytes
 * were moved, 0 at the end of ${in}, or -1; EAGAIN: ${in} is empty or ${out} is
 * full.  Portable: fail with ENOSYS.
 */
ssize_t os_splice(int in, int out, size_t max);

/*
 * os_pipe_size(fd, size):
 * Ask the system to let the pipe ${fd} hold ${size} bytes.  Return how many it
 * can hold now, -1 if ${fd} is not a pipe, or 0 if it is not known (portable).
 */
int os_pipe_size(int fd, int size);

/*
 * os_unsent(fd):
 * Return how many bytes were written to the TCP socket ${fd} and are not
 * acknowledged by the peer's system.  Linux: if ${fd} is a Unix socket or a
 * pipe, return how many its reader has not read.  Portable: OS_UNSENT_UNKNOWN.
 */
uint64_t os_unsent(int fd);

/* os_columns(fd): The width of the terminal ${fd}; 0: not known (portable). */
int os_columns(int fd);

/*
 * os_pages(size), os_free_pages(p, size):
 * os_pages allocates ${size} bytes, aligned as by malloc.  NULL: no memory is
 * left.  os_free_pages returns it to the system at once.  Portable: the C
 * library decides when it returns to the system.
 */
void *os_pages(size_t size);
void os_free_pages(void *p, size_t size);

/*
 * os_self(name, dst, size):
 * Write the path of the running program, whose argv[0] is ${name}, to ${dst}.
 * Return false if it is not known or has no room.  Portable: os_find_program.
 *
 * os_image(self):
 * Return a path from which the running program can be read, even if ${self},
 * the path from os_self, is another file by now.  Portable: return ${self}.
 */
bool os_self(const char *name, char *dst, size_t size);
const char *os_image(const char *self);

/*
 * os_confine(needs, dst, size):
 * Restrict this process and its children for ever to what a connection to
 * ${needs} requires.  Open descriptors stay usable.  Write to ${dst} what the
 * system enforces and what it cannot enforce.  This never fails; an old system
 * enforces less.
 *
 *   Linux     execve(2) gains no privilege.
 *             Landlock: only files below system directories can be read, and no
 *             file can be written.  No TCP port can be bound.  Unless names are
 *             looked up, only the port of ${needs} can be connected to.  No
 *             process outside can get a signal.
 *             seccomp: execve(2), ptrace(2), mount(2), setuid(2) and others
 *             that act beyond this process fail with EPERM.  Except on
 *             machines with socketcall(2), so do listen(2), what connects to a
 *             TCP port without Landlock, and, if ${needs} has no path and no
 *             names, Unix sockets.
 *   OpenBSD   pledge(2) and unveil(2)
 *
 * Portable, or built with AddressSanitizer: enforce nothing.
 */
struct os_needs {
	const char *path; /* a Unix socket; NULL: none */
	const char *dir;  /* a symbolic link is made here; NULL: none */
	uint16_t port;    /* a TCP port; 0: none */
	bool names;       /* host names or interfaces are looked up */
};
void os_confine(const struct os_needs *needs, char *dst, size_t size);

/* os_close_from(fd): As os_close_each, without a limit if the system can. */
void os_close_from(int fd);

#endif
