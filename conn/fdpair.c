/*
 * conn/fdpair.c - the descriptors of one side of a connection.
 *
 * stdin and stdout are moved to private numbers, and /dev/null takes their
 * place.  So closing one of them really closes it, and no stray output gets
 * between the bytes.
 *
 * Other processes may share stdin and stdout with relay, and with them the file
 * status flags, which belong to the open file.  So O_NONBLOCK is set only on
 * pipes and sockets, and the old flags are restored before they are closed.
 * Terminals, files and devices stay blocking.  A terminal, or a device other
 * than /dev/null, is used only when poll has reported it as ready.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/os.h"
#include "base/poll.h"
#include "conn/fdpair.h"

#define RESET_CHECK 1000000 /* us between two checks that poll cannot do */

void
fdpair_none(struct fdpair *e)
{
	memset(e, 0, sizeof(*e));
	e->in = e->out = e->in_slot = e->out_slot = -1;
	e->in_flags = e->out_flags = -1;
	e->check_at = INT64_MAX;
}

void
fdpair_socket(struct fdpair *e, int fd, bool tcp)
{
	fdpair_none(e);
	e->in = e->out = fd;
	e->single = e->out_socket = true;
	e->tcp = e->in_splices = tcp;
}

void
fdpair_pipes(struct fdpair *e, int in, int out)
{
	fdpair_none(e);
	e->in = in;
	e->out = out;
	e->in_splices = e->out_splices = true;
}

/* A file or /dev/null: read(2) and write(2) wait for no peer. */
static bool
never_waits(const struct stat *st)
{
	struct stat null;

	if (S_ISREG(st->st_mode))
		return true;
	return stat("/dev/null", &null) == 0 && st->st_dev == null.st_dev &&
	       st->st_ino == null.st_ino;
}

/*
 * Make ${fd} non-blocking if it is a pipe or a socket, and store its old flags.
 * Set ${*blocks} to whether it can still block.
 */
static void
set_up(int fd, const struct stat *st, int *flags, bool *blocks)
{
	bool has_peer = S_ISFIFO(st->st_mode) || S_ISSOCK(st->st_mode);
	int now = fcntl(fd, F_GETFL);

	if (S_ISFIFO(st->st_mode))
		os_pipe_size(fd, OS_PIPE); /* ssh wakes up a fourth as often */
	*blocks = !has_peer && !never_waits(st);
	if (!has_peer || now == -1 || (now & O_NONBLOCK) != 0)
		return;
	if (fcntl(fd, F_SETFL, now | O_NONBLOCK) == 0)
		*flags = now;
}

static bool
is_tcp(int fd)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);

	return getsockname(fd, (struct sockaddr *)&sa, &len) == 0 &&
	       (sa.ss_family == AF_INET || sa.ss_family == AF_INET6);
}

/* A read from a socket of messages drops the part that has no room. */
static bool
has_message_type(int fd, mode_t mode)
{
	socklen_t len = sizeof(int);
	int type;

	return S_ISSOCK(mode) && getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 &&
	       type != SOCK_STREAM;
}

const char *
fdpair_explain(int err)
{
	if (err == EPROTOTYPE)
		return "a socket of type SOCK_SEQPACKET or SOCK_DGRAM would lose bytes; use one of "
		       "type SOCK_STREAM, or pipes";
	return strerror(err);
}

/* Undo what fdpair_stdio has done; keep errno.  Return -1. */
static int
give_up(struct fdpair *e)
{
	int saved = errno;

	e->keeps_stderr = true; /* the caller logs the error */
	fdpair_close(e, false);
	errno = saved;
	return -1;
}

int
fdpair_stdio(struct fdpair *e)
{
	struct stat in, out;
	int on = 1;

	fdpair_none(e);
	if (fstat(STDIN_FILENO, &in) == -1 || fstat(STDOUT_FILENO, &out) == -1)
		return -1;
	if (has_message_type(STDIN_FILENO, in.st_mode) ||
	    has_message_type(STDOUT_FILENO, out.st_mode)) {
		errno = EPROTOTYPE;
		return -1;
	}
	e->stdio = true;
	e->out_socket = S_ISSOCK(out.st_mode);
	e->single = S_ISSOCK(in.st_mode) && e->out_socket && in.st_dev == out.st_dev &&
		    in.st_ino == out.st_ino;
	e->in = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	e->out = e->single ? e->in : fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	if (e->in == -1 || e->out == -1)
		return give_up(e);
	set_up(e->in, &in, &e->in_flags, &e->in_blocks);
	if (e->single)
		e->out_flags = e->in_flags;
	else
		set_up(e->out, &out, &e->out_flags, &e->out_blocks);
	e->tcp = e->single && is_tcp(e->in);
	e->in_splices = e->tcp || S_ISFIFO(in.st_mode);
	e->out_splices = S_ISFIFO(out.st_mode);
	if (e->tcp)
		setsockopt(e->out, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return os_null(STDIN_FILENO) == -1 || os_null(STDOUT_FILENO) == -1 ? give_up(e) : 0;
}

/* ---- poll ---- */

void
fdpair_unwatch(struct fdpair *e)
{
	e->in_slot = e->out_slot = -1;
}

void
fdpair_want(struct fdpair *e, struct pollset *ps, bool reads, bool writes)
{
	short in = reads ? POLLIN : 0, out = writes ? POLLOUT : 0;

	fdpair_unwatch(e);
	e->wants_in = reads;
	if (e->in != -1 && e->in == e->out) {
		if ((in | out) != 0 || !e->hup)
			e->in_slot = e->out_slot = pollset_add(ps, e->in, (short)(in | out));
		return;
	}
	/*
	 * A socket is watched for a reset even if nothing is read from it.  A
	 * pipe is not: it would report its end in every turn.  Exception: once
	 * stdout has no reader, a hang-up on stdin means that our parent is
	 * dead.
	 */
	if (reads || ((e->single || (e->stdio && e->out == -1)) && !e->hup))
		e->in_slot = pollset_add(ps, e->in, in);
	if (writes || !e->hup)
		e->out_slot = pollset_add(ps, e->out, out);
}

bool
fdpair_has_event(const struct fdpair *e, const struct pollset *ps)
{
	return (pollset_ready(ps, e->in_slot) | pollset_ready(ps, e->out_slot)) != 0;
}

bool
fdpair_readable(const struct fdpair *e, const struct pollset *ps)
{
	return e->wants_in &&
	       (pollset_ready(ps, e->in_slot) & (POLLIN | POLLHUP | POLLERR | POLLNVAL)) != 0;
}

bool
fdpair_writable(const struct fdpair *e, const struct pollset *ps)
{
	return e->out != -1 &&
	       (pollset_ready(ps, e->out_slot) & (POLLOUT | POLLERR | POLLNVAL)) != 0;
}

bool
fdpair_has_unread(const struct fdpair *e)
{
	char c;

	return recv(e->in, &c, 1, MSG_PEEK) > 0;
}

bool
fdpair_input_ends(const struct fdpair *e)
{
	struct pollfd p = { .fd = e->in, .events = POLLIN };

	return e->in == -1 || (poll(&p, 1, 0) == 1 && (p.revents & POLLHUP) != 0);
}

/* An empty send fails if the peer reads no more.  It sends nothing. */
static bool
takes_bytes(int fd)
{
	return send(fd, "", 0, 0) == 0 || errno == EAGAIN || errno == EINTR;
}

int
fdpair_failed(struct fdpair *e, const struct pollset *ps)
{
	int fd = e->out != -1 ? e->out : e->in;
	short r = pollset_ready(ps, e->out != -1 ? e->out_slot : e->in_slot);
	socklen_t len = sizeof(int);
	int err = 0;

	if ((r & (POLLERR | POLLHUP | POLLNVAL)) == 0 && (e->out == -1 || ps->now < e->check_at))
		return 0;
	if (e->out != -1 && !e->out_socket)
		return EPIPE;
	e->hup = true;
	e->check_at = INT64_MAX;
	if (fd == -1 || (e->out == -1 && !e->single))
		return 0;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) == 0 && err != 0)
		return e->single ? err : EPIPE;
	if (e->out == -1)
		return 0;
	/* On macOS, a received EOF is POLLHUP, and hides a later reset. */
	if (takes_bytes(e->out)) {
		e->check_at = ps->now + RESET_CHECK;
		return 0;
	}
	/* Before EOF was sent: TCP was reset, or a Unix peer closed. */
	return e->tcp ? ECONNRESET : EPIPE;
}

/* ---- ending ---- */

static void
give_back(int fd, int flags)
{
	if (flags != -1)
		fcntl(fd, F_SETFL, flags);
	close(fd);
}

/*
 * sshd passes on the end of stdout only when stderr is closed too.  A stderr
 * that is a file or a terminal does not concern sshd, and stays open.
 */
static void
close_stderr(void)
{
	struct stat st;

	if (fstat(STDERR_FILENO, &st) == 0 && (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode)))
		os_null(STDERR_FILENO);
}

int
fdpair_shut_out(struct fdpair *e)
{
	int fd = e->out, err = 0;

	if (fd == -1)
		return 0;
	e->out = -1;
	/* ENOTCONN: the peer is gone already, which read(2) will report. */
	if (e->out_socket && shutdown(fd, SHUT_WR) == -1 && errno != ENOTCONN)
		err = errno;
	if (fd != e->in)
		give_back(fd, e->out_flags);
	if (e->stdio && !e->keeps_stderr)
		close_stderr();
	errno = err;
	return err == 0 ? 0 : -1;
}

/*
 * Make the writes of a Unix peer fail with EPIPE.  What it wrote before is
 * read: on Linux, a close with unread input would give the peer ECONNRESET.
 */
static void
stop_unix_peer(int fd)
{
	char dropped[4096];
	ssize_t n;

	if (shutdown(fd, SHUT_RD) == -1)
		return;
	do
		n = read(fd, dropped, sizeof(dropped));
	while (n > 0 || (n == -1 && errno == EINTR));
}

static void
close_in(struct fdpair *e)
{
	int fd = e->in;

	e->in = -1;
	if (fd != -1 && fd != e->out)
		give_back(fd, e->in_flags);
}

void
fdpair_shut_in(struct fdpair *e)
{
	if (e->in != -1 && e->single && !e->tcp)
		stop_unix_peer(e->in);
	close_in(e);
}

void
fdpair_close(struct fdpair *e, bool reset)
{
	struct linger now = { .l_onoff = 1, .l_linger = 0 };

	if (reset && e->tcp) {
		setsockopt(e->out != -1 ? e->out : e->in, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
		e->out_socket = false; /* no EOF before the reset */
	}
	if (e->in != -1 && e->in == e->out)
		e->out = -1;
	close_in(e);
	fdpair_shut_out(e);
}
