/*
 * os_bsd.h - what base/os_bsd.c uses and Linux does not declare.
 *
 * test_build.py compiles os_bsd.c with it, for each system.  Names and types are
 * those of the manual pages, or of the headers of FreeBSD 13, NetBSD 11 and
 * OpenBSD 6.6.  Values, and the order of members, are not.
 */
#define closefrom bsd_closefrom /* glibc declares one */
#if defined(__FreeBSD__)
void closefrom(int);
#else
int closefrom(int);
#endif
int getpeereid(int, uid_t *, gid_t *);
int sysctl(const int *, unsigned, void *, size_t *, const void *, size_t);

#if !defined(__NetBSD__)
#include <sys/vfs.h>
#define MNT_LOCAL 1
#endif

#if defined(__FreeBSD__) || defined(__NetBSD__)
#define FIONWRITE 1
#endif

#if defined(__FreeBSD__) || defined(__DragonFly__)
enum { CTL_KERN, KERN_PROC, KERN_PROC_PATHNAME };
int procctl(idtype_t, id_t, int, void *);
#define PROC_PDEATHSIG_CTL 1
#endif

#if defined(__FreeBSD__)
int sysctlbyname(const char *, void *, size_t *, const void *, size_t);

struct xinpgen {
	uint64_t xig_len, xig_gen, xig_sogen;
};

struct xtcpcb {
	uint64_t xt_len;
	struct {
		struct {
			struct {
				uint16_t ie_fport, ie_lport;
				struct in6_addr ie_dependfaddr, ie_dependladdr;
			} inc_ie;
		} inp_inc;
		struct {
			uint64_t xso_so;
			uid_t so_uid;
		} xi_socket;
		unsigned char inp_vflag;
	} xt_inp;
	int32_t t_state;
};
#endif

#if defined(__OpenBSD__)
enum { CTL_NET, TCPCTL_IDENT };
struct tcp_ident_mapping {
	struct sockaddr_storage faddr, laddr;
	int euid, ruid;
	unsigned rdomain;
};
#define sa_len sa_family /* Linux has no such member */
int getrtable(void);
int pledge(const char *, const char *);
int unveil(const char *, const char *);
#endif
