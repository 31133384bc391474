/*
 * base/os_bsd.c - what FreeBSD, DragonFly, NetBSD and OpenBSD have beyond
 * POSIX.1-2008.
 *
 * SO_SPLICE of FreeBSD and OpenBSD is not used: the kernel then moves the bytes
 * of two TCP sockets alone, and conn.c would need a second way to count them
 * and to detect EOFs and resets.
 */
#include <sys/param.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/sysctl.h>

#if defined(__FreeBSD__) || defined(__DragonFly__)
#include <signal.h>
#include <sys/procctl.h>
#endif

#if defined(__FreeBSD__) || defined(__OpenBSD__)
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#endif
#if defined(__FreeBSD__)
#include <sys/socketvar.h> /* before the next two */
#include <netinet/in_pcb.h>
#include <netinet/tcp.h>
#include <netinet/tcp_var.h>
#elif defined(__OpenBSD__)
#include <netinet/tcp.h>
#include <netinet/tcp_timer.h>
#include <netinet/tcp_var.h>
#endif

#include <stdio.h>
#include <unistd.h>

#include "base/os.h"

#define OS_HAS_ACCEPT4
#define OS_HAS_CLOSE_FROM
#define OS_HAS_GETPEEREID
#define OS_HAS_WINSIZE
#if !defined(__NetBSD__) /* it has no statfs(2) */
#define OS_HAS_MNT_LOCAL
#endif

void
os_close_from(int fd)
{
	closefrom(fd);
}

/*
 * DragonFly and NetBSD have no check.  NetBSD's net.inet6.tcp6.ident answers
 * only to root, and a check of IPv4 alone would protect nothing.
 */
#if defined(__FreeBSD__)
#include "base/os_pcblist.c"

#define OS_HAS_PEER_UID
#define AT(field) offsetof(struct xtcpcb, xt_inp.field)

/*
 * The kernel copies the list of the TCP sockets.  Those that this user must not
 * see (security.bsd.see_other_uids, jails) are left out.
 */
int
os_peer_uid(const struct sockaddr *peer, const struct sockaddr *local, uid_t *uid)
{
	static const struct pcblist_form form = { .head = sizeof(struct xinpgen),
		.length = sizeof(((struct xtcpcb *)0)->xt_len),
		.inpcb = sizeof(struct xtcpcb),
		.sock = sizeof(struct xtcpcb),
		.tcpcb = sizeof(struct xtcpcb),
		.fport = AT(inp_inc.inc_ie.ie_fport),
		.lport = AT(inp_inc.inc_ie.ie_lport),
		.faddr = AT(inp_inc.inc_ie.ie_dependfaddr),
		.laddr = AT(inp_inc.inc_ie.ie_dependladdr),
		.vflag = AT(inp_vflag),
		.socket = AT(xi_socket.xso_so),
		.uid = AT(xi_socket.so_uid),
		.state = offsetof(struct xtcpcb, t_state) };

	return pcblist_ask("net.inet.tcp.pcblist", &form, peer, local, uid);
}

#elif defined(__OpenBSD__)
#define OS_HAS_PEER_UID

/*
 * net.inet.tcp.ident, which identd(8) uses.  The addresses are those of the
 * other end: its local address is ${peer}.  The user is -1 if that end did not
 * connect, or is closed.
 */
int
os_peer_uid(const struct sockaddr *peer, const struct sockaddr *local, uid_t *uid)
{
	int mib[] = { CTL_NET, PF_INET, IPPROTO_TCP, TCPCTL_IDENT };
	struct tcp_ident_mapping map;
	size_t size = sizeof(map);

	memset(&map, 0, sizeof(map));
	memcpy(&map.laddr, peer, peer->sa_len);
	memcpy(&map.faddr, local, local->sa_len);
	map.rdomain = (u_int)getrtable();
	if (sysctl(mib, 4, &map, &size, NULL, 0) == -1)
		return -1;
	if (map.euid == -1) {
		errno = ENOENT;
		return -1;
	}
	*uid = (uid_t)map.euid;
	return 1;
}

#endif

#if defined(FIONWRITE)
#define OS_HAS_UNSENT

uint64_t
os_unsent(int fd)
{
	int n;

	return ioctl(fd, FIONWRITE, &n) == -1 || n < 0 ? 0 : (uint64_t)n;
}

#endif

#if defined(PROC_PDEATHSIG_CTL) /* not on older systems */
#define OS_HAS_FOLLOW

void
os_follow(pid_t parent)
{
	int sig = SIGTERM;

	procctl(P_PID, (id_t)getpid(), PROC_PDEATHSIG_CTL, &sig);
	/* The parent may have died before the call. */
	if (getppid() != parent)
		raise(SIGTERM);
}

#endif

#if defined(__FreeBSD__) || defined(__DragonFly__)
#define OS_HAS_SELF

bool
os_self(const char *name, char *dst, size_t size)
{
	int mib[] = { CTL_KERN, KERN_PROC, KERN_PROC_PATHNAME, -1 };
	size_t n = size;

	return sysctl(mib, 4, dst, &n, NULL, 0) == 0 || os_find_program(name, dst, size);
}

#endif

#if defined(__OpenBSD__)
#define OS_HAS_CONFINE

/*
 * "dns" includes the files of the resolver.  "error": a call that is not
 * promised fails with ENOSYS, and does not kill the process.
 */
static const char *
promises(const struct os_needs *needs)
{
	if (needs->dir != NULL)
		return "stdio error proc unix rpath cpath";
	if (needs->path != NULL)
		return "stdio error proc unix rpath";
	return needs->names ? "stdio error proc inet dns" : "stdio error proc inet";
}

static int
show_paths(const struct os_needs *needs)
{
	if (needs->path != NULL && unveil(needs->path, "rw") == -1)
		return -1;
	if (needs->dir != NULL && (unveil(needs->dir, "rwc") == -1 || unveil(".", "r") == -1))
		return -1;
	return unveil(NULL, NULL);
}

void
os_confine(const struct os_needs *needs, char *dst, size_t size)
{
	bool restricts = needs->path != NULL || needs->dir != NULL;
	const char *shown = show_paths(needs) == 0 && restricts ? "unveil" : "no unveil";

	snprintf(dst, size, "%s, %s", shown,
	    pledge(promises(needs), NULL) == 0 ? "pledge" : "no pledge");
}

#endif

#include "base/os_posix.c" /* the rest */
