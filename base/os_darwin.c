/*
 * base/os_darwin.c - what macOS has beyond POSIX.1-2008.
 *
 * macOS cannot set the flags of a socket when it creates the socket.  It sends
 * no signal to a process whose parent has ended.
 */
#define _DARWIN_C_SOURCE 1 /* as -D of the Makefile defines it */

#include <limits.h>
#include <mach-o/dyld.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/param.h>
#include <sys/sysctl.h>
#include <unistd.h>

#include "base/os.h"
#include "base/os_pcblist.c"

#define OS_HAS_GETPEEREID
#define OS_HAS_MNT_LOCAL
#define OS_HAS_MOST_FILES
#define OS_HAS_PEER_UID
#define OS_HAS_SELF
#define OS_HAS_UNSENT
#define OS_HAS_WINSIZE

/* The kernel copies the list of all TCP sockets, for every user. */
int
os_peer_uid(const struct sockaddr *peer, const struct sockaddr *local, uid_t *uid)
{
	return pcblist_ask("net.inet.tcp.pcblist_n", &pcblist_darwin, peer, local, uid);
}

/*
 * setrlimit(2) refuses a limit above kern.maxfilesperproc (EINVAL).  poll(2)
 * refuses more than OPEN_MAX descriptors.
 */
long
os_most_files(void)
{
	int most = OPEN_MAX;
	size_t size = sizeof(most);

	if (sysctlbyname("kern.maxfilesperproc", &most, &size, NULL, 0) == -1 || most > OPEN_MAX)
		return OPEN_MAX;
	return most;
}

uint64_t
os_unsent(int fd)
{
	socklen_t len = sizeof(int);
	int n;

	return getsockopt(fd, SOL_SOCKET, SO_NWRITE, &n, &len) == -1 || n < 0 ? 0 : (uint64_t)n;
}

bool
os_self(const char *name, char *dst, size_t size)
{
	uint32_t room = (uint32_t)size;

	return _NSGetExecutablePath(dst, &room) == 0 || os_find_program(name, dst, size);
}

#include "base/os_posix.c" /* the rest */
