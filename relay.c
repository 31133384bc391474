/*
 * relay.c - start, and the loop.
 *
 * A start goes from words to ends, from FROM to listeners or to the one pair of stdin and stdout, and then into the loop: ask
 * everybody what to wait for, wait once, take signals, accept, move, sweep.  The loop ends when nothing is left to wait for: no
 * listener, no pair, no child.  A stop signal only takes the first two away.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "base/poll.h"
#include "base/signals.h"
#include "mux/mux.h"
#include "net/dial.h"
#include "net/endpoint.h"
#include "net/sock.h"
#include "spawn.h"
#include "conn/conn.h"
#include "conn/fdpair.h"
#include "conn/side.h"
#include "tunnel/forward.h"
#include "tunnel/hops.h"
#include "tunnel/probe.h"
#include "tunnel/remote.h"
#include "tunnel/tunnel.h"
#include "cli/options.h"
#include "relay.h"

#define ACCEPTS 64      /* of one listener in one turn */
#define FULL_PAUSE 1000 /* of the listeners when the system has no descriptor left */
#define FILES_OURS \
	14 /* not a pair's: stdio, /dev/null, signals, listeners, netlink, a spare pipe, the pid file */
#define FILES_SPAWN 6 /* more while a command is started */
#define GATES 64
#define PIDFILE_TRIES 100 /* while other processes remove it */
#define ASK_AGAIN 5000    /* the far side to listen, where it would not after the link came back */

/* Where connections come in, and what for. */
struct gate {
	struct listener l;
	int slot;
	const struct forward *forward; /* NULL: TO */
};

struct relay {
	struct options opt;
	struct dial_target target;
	struct gate gates[GATES];
	int n_gates;
	int64_t resume;   /* gates rest until then; 0: they do not */
	size_t max_pairs; /* what -c and the descriptors allow */
	bool told_full;
	struct conns conns;
	struct children kids;
	struct pollset ps;
	int signal_fd, signal_slot;
	int ready_fd; /* -f: tells the parent that we listen */
	int status;
	struct tunnel tunnel;    /* all connections share one link */
	struct probe_run *probe; /* -n; else NULL */
	bool announced;          /* programs and people know that it stands */
	int64_t used_at;         /* the last time that a connection was there */
	int pid_fd; /* keeps the pid file locked: not to be closed before the end; 0: none */
};

static void
fail_system(const char *what)
{
	log_say(LOG_ERROR, "%s: %s", what, strerror(errno));
	exit(STATUS_SYSTEM);
}

/* What was asked for, as those who do it want it. */
static void
set_up(struct relay *r)
{
	const struct options *o = &r->opt;
	int i;

	r->target.to = o->to;
	r->target.each_ms = o->each_ms;
	r->target.wait_ms = options_tunnel(o) ? 0 : o->wait_ms;
	r->target.kids = &r->kids;
	for (i = 0; i < o->n_forwards; i++) {
		r->opt.forwards[i].to.kids = &r->kids;
		r->opt.forwards[i].to.each_ms = o->each_ms;
	}
	r->tunnel.command = &r->target;
	r->tunnel.conns = r->tunnel.remotes.conns = r->tunnel.serve.conns = &r->conns;
	r->tunnel.remotes.any_uid = o->anybody;
	r->tunnel.remotes.kids = &r->kids;
	r->tunnel.remotes.lookup_ms = o->each_ms;
	r->tunnel.serve.remotes = &r->tunnel.remotes;
	r->tunnel.serve.target = &r->target;
	r->tunnel.serve.only_target = o->mode == MODE_LINK_FAR && o->to.kind != ENDPOINT_STDIO;
	if (!options_tunnel(o))
		return;
	r->tunnel.hops = &o->hops;
	r->tunnel.self = o->self;
	r->tunnel.far_path = o->far_path;
	r->tunnel.far_options = o->far_options;
}

/* ---- -z and -F ---- */

static int
pass_descriptor(int fd)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	char byte = 0;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr msg;
	struct cmsghdr *head;
	int flags = fcntl(fd, F_GETFL);
	ssize_t n;

	/* The flags go with it: it has to look as if ssh had made it. */
	if (flags == -1 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) == -1)
		return -1;
	memset(&control, 0, sizeof(control));
	memset(&msg, 0, sizeof(msg));
	msg.msg_iov = &iov;
	msg.msg_iovlen = 1;
	msg.msg_control = &control;
	msg.msg_controllen = sizeof(control.room);
	head = CMSG_FIRSTHDR(&msg);
	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(head), &fd, sizeof(int));
	do
		n = sendmsg(STDOUT_FILENO, &msg, 0);
	while (n == -1 && errno == EINTR);
	return n == 1 ? 0 : -1;
}

static int
use_connection(struct relay *r, struct dial *d)
{
	int fd = dial_take(d), status = STATUS_OK;

	if (r->opt.mode == MODE_FDPASS && pass_descriptor(fd) == -1) {
		log_say(LOG_ERROR,
		    "cannot pass the socket over stdout: %s; -F is for ssh's ProxyCommand with "
		    "ProxyUseFdpass yes",
		    strerror(errno));
		status = STATUS_CONNECT;
	}
	close(fd);
	return status;
}

/* Wait for an event of the pollset; the signal that came to stop relay, or 0. */
static int
wait_alone(struct relay *r)
{
	int sig;

	r->signal_slot = pollset_add(&r->ps, r->signal_fd, POLLIN);
	if (pollset_wait(&r->ps) == -1)
		fail_system("poll");
	do
		sig = signals_take();
	while (sig == SIGCHLD || sig == SIGUSR1);
	spawn_reap(&r->kids);
	return sig;
}

/* A look-up that nothing waits for any more would go on after the exit of relay. */
static void
end_children(struct relay *r)
{
	pollset_begin(&r->ps);
	spawn_hurry(&r->kids, r->ps.now);
	while (spawn_turn(&r->kids, &r->ps), r->kids.first != NULL) {
		wait_alone(r);
		pollset_begin(&r->ps);
	}
}

static int
finish_alone(struct relay *r, struct dial *d, enum dial_state state)
{
	char why[ENDPOINT_NAME + 512];

	if (state == DIAL_DONE)
		return use_connection(r, d);
	log_say(r->opt.mode == MODE_PROBE ? LOG_INFO : LOG_ERROR, "%s",
	    dial_explain(d, why, sizeof(why)));
	return r->opt.mode == MODE_PROBE ? STATUS_CONNECT : dial_status(d);
}

/* Connect without anybody to join. */
static int
dial_alone(struct relay *r)
{
	struct dial *d = dial_start(&r->target, pollset_clock());
	enum dial_state state = DIAL_BUSY;
	int sig = 0, status;

	if (d == NULL)
		fail_system("cannot connect");
	pollset_begin(&r->ps);
	while (sig == 0 && (state = dial_step(d, &r->ps)) == DIAL_BUSY) {
		pollset_begin(&r->ps);
		dial_want(d, &r->ps);
		spawn_turn(&r->kids, &r->ps);
		sig = wait_alone(r);
	}
	status = sig != 0 ? STATUS_SIGNAL + sig : finish_alone(r, d, state);
	dial_free(d, r->ps.now);
	end_children(r);
	return status;
}

/* ---- start ---- */

static void
close_gates(struct relay *r)
{
	while (r->n_gates > 0)
		sock_unlisten(&r->gates[--r->n_gates].l);
}

/* Tell programs where we listen, here and there; the end of stdout tells them that this is all. */
static void
print_addresses(struct relay *r)
{
	int i;

	for (i = 0; i < r->n_gates; i++)
		printf("%s\n", sock_bound(&r->gates[i].l));
	for (i = 0; i < r->opt.n_forwards; i++)
		if (r->opt.forwards[i].kind == FORWARD_FAR)
			printf("%.*s", (int)strlen(r->opt.forwards[i].bound) - 1,
			    r->opt.forwards[i].bound);
	if (ferror(stdout) || fflush(stdout) != 0)
		log_say(LOG_NOTICE, "cannot print the addresses: %s", strerror(errno));
	os_null(STDOUT_FILENO);
}

/* Tell people how it goes. */
static void
tell_ways(struct relay *r)
{
	char path[HOPS_PATH], bound[sizeof(r->opt.forwards[0].bound)];
	const struct forward *f;
	int i;

	hops_path(&r->opt.hops, path, sizeof(path));
	for (i = 0; i < r->n_gates; i++)
		if (r->gates[i].forward != NULL &&
		    (i == 0 || r->gates[i - 1].forward != r->gates[i].forward))
			forward_tell(r->gates[i].forward, sock_bound(&r->gates[i].l), path);
	for (i = 0; i < r->opt.n_forwards; i++) {
		f = &r->opt.forwards[i];
		snprintf(bound, sizeof(bound), "%.*s", (int)strcspn(f->bound, "\n"), f->bound);
		if (f->kind == FORWARD_FAR)
			forward_tell(f, bound, path);
	}
}

/*
 * A new file, or one that was there and is this user's own: whoever else owns it could name another process in it, and a FIFO would
 * keep us waiting.
 */
static int
open_pidfile(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	struct stat st;

	if (fd != -1 || errno != EEXIST)
		return fd;
	fd = open(path, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd == -1)
		return -1;
	/* Without a name: its process has just removed it, and os_lock reports that. */
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink <= 1 &&
	    st.st_uid == geteuid())
		return fd;
	close(fd);
	errno = EEXIST;
	return -1;
}

/* The process that keeps ${fd} locked; 0: none, or it runs on another host. */
static long
pidfile_owner(int fd)
{
	struct flock whole;

	memset(&whole, 0, sizeof(whole));
	whole.l_type = F_WRLCK;
	whole.l_whence = SEEK_SET;
	if (fcntl(fd, F_GETLK, &whole) == -1 || whole.l_type == F_UNLCK || whole.l_pid < 0)
		return 0;
	return (long)whole.l_pid;
}

/*
 * The pid file, locked.  The lock lasts as long as this descriptor is open, so kill -9 ends it, too.
 * -1, EAGAIN: ${*owner} keeps it locked, 0 if that is not known.
 */
static int
take_pidfile(const char *path, long *owner)
{
	int fd, saved, tries = PIDFILE_TRIES;

	do {
		*owner = 0;
		fd = open_pidfile(path);
		if (fd == -1)
			return -1;
		/* ENOLCK: some network file systems have no locks. */
		if (os_lock(fd, path) == 0 || errno == ENOLCK)
			return fd;
		saved = errno;
		if (saved == EAGAIN)
			*owner = pidfile_owner(fd);
		close(fd);
		errno = saved;
	} while ((errno == ESTALE || (errno == EAGAIN && *owner == 0)) && --tries > 0);
	return -1;
}

static void
remove_pidfile(const struct relay *r)
{
	struct stat ours, st;
	int found;

	if (r->pid_fd == 0)
		return;
	found = fstat(r->pid_fd, &ours) == 0 ? lstat(r->opt.pidfile, &st) : -1;
	if (found == 0 && (st.st_dev != ours.st_dev || st.st_ino != ours.st_ino))
		return;
	if ((found == -1 || unlink(r->opt.pidfile) == -1) && errno != ENOENT)
		log_say(LOG_ERROR, "cannot remove %s: %s; remove it by hand", r->opt.pidfile,
		    strerror(errno));
	close(r->pid_fd);
}

static void
fail_pidfile(struct relay *r, long owner)
{
	const char *path = r->opt.pidfile;

	if (errno == EEXIST)
		log_say(LOG_ERROR,
		    "cannot write %s: what is there is no file of this user's own; remove it or "
		    "take another name",
		    path);
	else if (errno == EAGAIN && owner != 0)
		log_say(LOG_ERROR,
		    "cannot write %s: process %ld uses it as its pid file; stop it or take another "
		    "name",
		    path, owner);
	else if (errno == EAGAIN)
		log_say(LOG_ERROR,
		    "cannot write %s: a process of another host or container uses it as its pid "
		    "file; take another name",
		    path);
	else
		log_say(LOG_ERROR, "cannot write %s: %s", path, strerror(errno));
	close_gates(r);
	exit(STATUS_SYSTEM);
}

static void
write_pidfile(struct relay *r)
{
	long owner;
	int fd, saved;

	if (r->opt.pidfile == NULL)
		return;
	fd = take_pidfile(r->opt.pidfile, &owner);
	if (fd == -1)
		fail_pidfile(r, owner);
	if (ftruncate(fd, 0) == -1 || dprintf(fd, "%ld\n", (long)getpid()) < 0) {
		saved = errno;
		unlink(r->opt.pidfile);
		errno = saved;
		fail_pidfile(r, 0);
	}
	r->pid_fd = fd;
}

/*
 * -f: the work is done by a child from the very start, so that what it starts is its own; the parent waits until the child is ready,
 * or takes over the status with which its start failed.  Until then the child stays where ssh can ask for a password.
 */
static void
fork_early(struct relay *r)
{
	int fd[2], status;
	char byte;
	pid_t pid = -1;
	ssize_t n;

	if (pipe(fd) == 0 && fcntl(fd[1], F_SETFD, FD_CLOEXEC) != -1)
		pid = fork();
	if (pid == -1)
		fail_system("cannot go to the background");
	if (pid == 0) {
		close(fd[0]);
		r->ready_fd = fd[1];
		return;
	}
	close(fd[1]);
	do
		n = read(fd[0], &byte, 1);
	while (n == -1 && errno == EINTR);
	if (n == 1)
		_exit(STATUS_OK);
	while (waitpid(pid, &status, 0) == -1 && errno == EINTR)
		;
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : STATUS_SIGNAL + WTERMSIG(status));
}

/* Let go of the terminal and of the parent, whose exit gives the shell its prompt back. */
static void
go_background(struct relay *r)
{
	struct stat st;
	ssize_t n;

	setsid();
	os_null(STDIN_FILENO);
	/* A terminal or a pipe there would be held open for ever; a file is somebody's log. */
	if (fstat(STDERR_FILENO, &st) == -1 || !S_ISREG(st.st_mode))
		os_null(STDERR_FILENO);
	n = write(r->ready_fd, "", 1);
	(void)n; /* a parent that was killed does not wait */
	close(r->ready_fd);
}

static int
start_single(struct relay *r)
{
	struct fdpair fds;
	struct side a;
	int saved;

	if (fdpair_stdio(&fds) == -1) {
		log_say(LOG_ERROR, "cannot use stdin and stdout: %s", fdpair_explain(errno));
		exit(STATUS_SYSTEM);
	}
	a = side_of_fds(&fds);
	if (!conn_dial(&r->conns, &a, "stdio", &r->target, pollset_clock())) {
		saved = errno;
		fdpair_close(&fds, false);
		errno = saved;
		fail_system("cannot use stdin and stdout");
	}
	write_pidfile(r);
	return STATUS_OK;
}

/* A connection that was taken must find the descriptors for its other side too: do not take more than can be served. */
static void
bound_pairs(struct relay *r, long files)
{
	bool command = r->target.to.kind == ENDPOINT_COMMAND;
	long most = command ? (files - FILES_OURS - FILES_SPAWN) / 3 : (files - FILES_OURS) / 2;

	if (options_linked(&r->opt))
		most = files - FILES_OURS - FILES_SPAWN - r->opt.n_forwards * 2;

	if (files == -1)
		most = LONG_MAX;
	if (most < 1)
		most = 1;
	r->max_pairs =
	    (size_t)(r->opt.max_pairs != 0 && r->opt.max_pairs < most ? r->opt.max_pairs : most);
	r->tunnel.remotes.max_conns = r->max_pairs;
}

static int
listen_on(struct relay *r, const struct endpoint *from, const struct forward *forward)
{
	struct listener tab[SOCK_ADDRS];
	int n = sock_listen(from, tab), i;

	for (i = 0; i < n && r->n_gates < GATES; i++) {
		r->gates[r->n_gates].l = tab[i];
		r->gates[r->n_gates].forward = forward;
		if (r->opt.anybody)
			r->gates[r->n_gates].l.guarded = false;
		r->n_gates++;
	}
	if (n != -1 && i == n)
		return STATUS_OK;
	if (n != -1)
		log_say(LOG_ERROR, "cannot listen on more than %d addresses", GATES);
	for (; i < n; i++)
		sock_unlisten(&tab[i]);
	close_gates(r);
	return STATUS_LISTEN;
}

/* Ready: tell programs and people, and let the shell go on. */
static void
announce(struct relay *r)
{
	r->announced = true;
	write_pidfile(r);
	if (r->target.to.kind != ENDPOINT_STDIO && r->opt.from.kind != ENDPOINT_STDIO) {
		tell_ways(r);
		print_addresses(r);
	}
	if (r->opt.background)
		go_background(r);
}

static int
start_probe(struct relay *r)
{
	r->probe =
	    probe_run_new(&r->tunnel, &r->opt.hops, r->opt.rsh, r->opt.forwards, r->opt.n_forwards);
	if (r->probe == NULL)
		fail_system("cannot start");
	return probe_run_next(r->probe, pollset_clock()) ? STATUS_OK : r->tunnel.status;
}

static int
start_link(struct relay *r)
{
	enum mux_role role = r->opt.mode == MODE_LINK_FAR ? MUX_FAR : MUX_NEAR;
	int status = STATUS_OK, i;
	char path[HOPS_PATH];

	for (i = 0; i < r->opt.n_forwards && status == STATUS_OK && r->opt.mode == MODE_TUNNEL; i++)
		if (r->opt.forwards[i].kind == FORWARD_NEAR ||
		    r->opt.forwards[i].kind == FORWARD_SOCKS)
			status = listen_on(r, &r->opt.forwards[i].from, &r->opt.forwards[i]);
	if (r->opt.mode == MODE_LINK_NEAR && r->opt.from.kind != ENDPOINT_STDIO)
		status = listen_on(r, &r->opt.from, NULL);
	if (status != STATUS_OK)
		return status;
	r->tunnel.one_shot = options_one_shot(&r->opt);
	if (r->opt.mode == MODE_TUNNEL && !r->tunnel.one_shot)
		log_say(LOG_NOTICE, "reaching %s", hops_path(&r->opt.hops, path, sizeof(path)));
	return tunnel_start(&r->tunnel, role, pollset_clock());
}

static int
start(struct relay *r)
{
	int status;

	if (r->opt.mode == MODE_CHECK)
		return start_probe(r);
	if (options_linked(&r->opt))
		return start_link(r);
	if (r->opt.from.kind == ENDPOINT_STDIO)
		return start_single(r);
	status = listen_on(r, &r->opt.from, NULL);
	if (status == STATUS_OK)
		announce(r);
	return status;
}

/* ---- the loop ---- */

static size_t
connections(const struct relay *r)
{
	return r->conns.n;
}

static void
tell_full(struct relay *r)
{
	if (!r->told_full)
		log_say(LOG_NOTICE,
		    "out of descriptors with %zu connections: new ones wait (ulimit -n; -c N "
		    "bounds them)",
		    connections(r));
	r->told_full = true;
}

static bool
is_full(struct relay *r)
{
	if (connections(r) < r->max_pairs)
		return false;
	if ((long)r->max_pairs != r->opt.max_pairs)
		tell_full(r);
	return true;
}

/* Connections that come while the link is away wait in the backlog; the first one is a reason to start it again. */
static bool
gates_rest(const struct relay *r)
{
	if (!options_linked(&r->opt) || r->tunnel.state == TUNNEL_UP)
		return !r->announced;
	return r->tunnel.state != TUNNEL_BACKOFF || r->tunnel.wanted;
}

static void
want_gates(struct relay *r)
{
	int i;

	for (i = 0; i < r->n_gates; i++)
		r->gates[i].slot = -1;
	if (r->n_gates == 0 || gates_rest(r) || is_full(r))
		return;
	if (r->resume > r->ps.now) {
		pollset_until(&r->ps, r->resume);
		return;
	}
	r->resume = 0;
	for (i = 0; i < r->n_gates; i++)
		r->gates[i].slot = pollset_add(&r->ps, r->gates[i].l.fd, POLLIN);
}

/* accept failed with ${err}: rest where it would fail again at once. */
static void
accept_failed(struct relay *r, int err)
{
	if (err == EAGAIN || err == EWOULDBLOCK)
		return;
	r->resume = r->ps.now + FULL_PAUSE;
	if (err == EMFILE || err == ENFILE) {
		tell_full(r);
	} else if (!r->told_full) {
		r->told_full = true;
		log_say(LOG_NOTICE, "cannot accept: %s; new connections wait", strerror(err));
	}
}

/* Join ${a} to a stream of the link. */
static bool
join_linked(struct relay *r, const struct side *a, const struct forward *f, const char *name)
{
	struct side b;

	if (f != NULL && f->kind == FORWARD_SOCKS)
		return conn_socks(&r->conns, a, name, r->ps.now);
	b = side_of_stream(mux_open(r->tunnel.mux, f == NULL ? "" : f->to_text));
	if (b.stream == NULL)
		return false;
	if (conn_join(&r->conns, a, name, &b, r->ps.now))
		return true;
	side_close(&b, true, MUX_NO_ROOM, "out of memory");
	return false;
}

static void
join_connection(struct relay *r, int fd, const struct gate *g, const char *name)
{
	struct fdpair fds;
	struct side a;

	fdpair_socket(&fds, fd, g->l.path == NULL);
	a = side_of_fds(&fds);
	if (options_linked(&r->opt)) {
		if (join_linked(r, &a, g->forward, name))
			return;
		log_say(LOG_NOTICE, "refused %s: the link carries %zu connections and no more",
		    name, connections(r));
		side_close(&a, true, MUX_RESET, "");
		return;
	}
	if (!conn_dial(&r->conns, &a, name, &r->target, r->ps.now)) {
		log_say(LOG_ERROR, "no memory for %s", name);
		side_close(&a, true, MUX_RESET, "");
		return;
	}
	if (r->target.to.kind == ENDPOINT_STDIO)
		close_gates(r);
}

static void
accept_some(struct relay *r, const struct gate *g)
{
	char name[SOCK_NAME];
	int i, fd;

	for (i = 0; i < ACCEPTS && g->l.fd != -1; i++) {
		if (is_full(r))
			return;
		fd = sock_accept(&g->l, name);
		if (fd == -1 && errno == EACCES)
			continue;
		if (fd == -1) {
			accept_failed(r, errno);
			return;
		}
		if (connections(r) <= r->max_pairs / 2)
			r->told_full = false;
		join_connection(r, fd, g, name);
	}
}

static void
accept_all(struct relay *r)
{
	int i;

	for (i = 0; i < r->n_gates; i++) {
		if (pollset_ready(&r->ps, r->gates[i].slot) == 0)
			continue;
		if (options_linked(&r->opt) && r->tunnel.state == TUNNEL_BACKOFF)
			tunnel_want_up(&r->tunnel);
		else
			accept_some(r, &r->gates[i]);
	}
}

static void
stop(struct relay *r, int sig)
{
	log_say(LOG_INFO, "stopped by signal %d (%s)", sig, strsignal(sig));
	close_gates(r);
	conn_stop(&r->conns, STATUS_SIGNAL + sig, r->ps.now);
	if (r->probe != NULL)
		probe_run_stop(r->probe);
	else
		tunnel_stop(&r->tunnel,
		    r->opt.from.kind == ENDPOINT_STDIO ? STATUS_SIGNAL + sig : STATUS_OK);
	spawn_hurry(&r->kids, r->ps.now);
}

static void
log_table(const struct relay *r)
{
	if (options_linked(&r->opt))
		tunnel_table(&r->tunnel, r->ps.now);
	if (!options_linked(&r->opt) || r->tunnel.state == TUNNEL_UP)
		conn_table(&r->conns, r->ps.now);
}

static void
take_signals(struct relay *r)
{
	int sig;

	if (pollset_ready(&r->ps, r->signal_slot) == 0)
		return;
	while ((sig = signals_take()) != 0) {
		if (sig == SIGUSR1)
			log_table(r);
		else if (sig != SIGCHLD)
			stop(r, sig);
	}
	spawn_reap(&r->kids);
}

static void
sweep(struct relay *r)
{
	size_t n = r->conns.n;
	int status = conn_sweep(&r->conns, &r->ps);

	if (r->conns.n < n)
		r->resume = 0; /* there are descriptors again */
	if (options_one_shot(&r->opt) && status != STATUS_OK)
		r->status = status;
	if (options_linked(&r->opt))
		tunnel_flush(&r->tunnel, status);
}

/* ---- the tunnel in the loop ---- */

/* stdin and stdout are the one connection. */
static void
join_stdio(struct relay *r)
{
	const char *target = r->opt.n_forwards > 0 ? r->opt.forwards[0].to_text : "";
	struct side a, b;

	side_none(&a);
	if (fdpair_stdio(&a.fds) != -1) {
		b = side_of_stream(mux_open(r->tunnel.mux, target));
		if (b.stream != NULL && conn_join(&r->conns, &a, "stdio", &b, r->ps.now)) {
			announce(r);
			return;
		}
		side_close(&a, false, MUX_RESET, "");
		errno = ENOMEM;
	}
	log_say(LOG_ERROR, "cannot use stdin and stdout: %s", fdpair_explain(errno));
	tunnel_stop(&r->tunnel, STATUS_SYSTEM);
}

/* The link is up, for the first time or again. */
static void
link_is_up(struct relay *r)
{
	struct tunnel *t = &r->tunnel;
	struct forward *f;
	int i;

	if (r->probe != NULL) {
		probe_run_up(r->probe, r->ps.now);
		return;
	}
	if (t->role == MUX_FAR)
		return;
	log_say(t->connects > 1 ? LOG_NOTICE : LOG_INFO, "link to %s%s", mux_peer(t->mux),
	    t->connects > 1 ? ", again" : "");
	if (r->opt.from.kind == ENDPOINT_STDIO) {
		join_stdio(r);
		return;
	}
	for (i = 0; i < r->opt.n_forwards; i++) {
		f = &r->opt.forwards[i];
		f->state = FORWARD_STANDS;
		if (f->kind == FORWARD_FAR) {
			forward_keep_port(f);
			remote_ask(&t->remotes, t->mux, f);
		} else if (f->kind == FORWARD_NEAR && r->opt.wait_ms > 0 && !r->announced) {
			log_status("waiting for the target");
			probe_target(&t->probes, t->mux, f);
		}
	}
}

/* A forward that cannot be made ends a tunnel that starts; in one that came back it is tried again. */
static void
forward_refused(struct relay *r, struct forward *f)
{
	if (!r->announced) {
		close_gates(r);
		tunnel_stop(&r->tunnel, f->kind == FORWARD_FAR ? STATUS_LISTEN : STATUS_CONNECT);
		return;
	}
	if (f->again_at == 0)
		f->again_at = r->ps.now + ASK_AGAIN;
	if (r->ps.now >= f->again_at) {
		f->again_at = 0;
		remote_ask(&r->tunnel.remotes, r->tunnel.mux, f);
	} else {
		pollset_until(&r->ps, f->again_at);
	}
}

/* Does everything stand that the tunnel is to carry? Then tell. */
static void
watch_forwards(struct relay *r)
{
	bool stands = true;
	int i;

	if (r->tunnel.state != TUNNEL_UP || mux_state(r->tunnel.mux) == MUX_DEAD ||
	    r->opt.from.kind == ENDPOINT_STDIO)
		return;
	for (i = 0; i < r->opt.n_forwards; i++) {
		if (r->opt.forwards[i].state == FORWARD_REFUSED)
			forward_refused(r, &r->opt.forwards[i]);
		stands = stands && r->opt.forwards[i].state == FORWARD_STANDS;
	}
	if (stands && !r->announced && mux_state(r->tunnel.mux) != MUX_DEAD)
		announce(r);
}

static void
want_tunnel(struct relay *r)
{
	if (!options_linked(&r->opt) || r->tunnel.state == TUNNEL_OVER)
		return;
	if (r->probe != NULL)
		probe_run_want(r->probe, &r->ps);
	else
		watch_forwards(r);
	tunnel_want(&r->tunnel, &r->ps);
	if (r->tunnel.state == TUNNEL_OVER && r->probe != NULL &&
	    probe_run_next(r->probe, r->ps.now))
		tunnel_want(&r->tunnel, &r->ps);
	if (r->tunnel.state != TUNNEL_OVER)
		return;
	close_gates(r);
	r->status = r->tunnel.status;
}

static void
step_tunnel(struct relay *r)
{
	if (!options_linked(&r->opt) || r->tunnel.state == TUNNEL_OVER)
		return;
	if (tunnel_step(&r->tunnel, &r->ps))
		link_is_up(r);
	tunnel_serve(&r->tunnel, &r->ps);
}

/* -i: nobody has been connected for so long. */
static void
watch_idle(struct relay *r)
{
	if (r->opt.idle_ms == 0 || !r->announced || (r->n_gates == 0 && r->opt.n_forwards == 0))
		return;
	if (connections(r) > 0 || r->used_at == 0)
		r->used_at = r->ps.now;
	if (r->ps.now >= r->used_at + r->opt.idle_ms) {
		log_say(
		    LOG_NOTICE, "nobody was connected for %d s: the end", r->opt.idle_ms / 1000);
		close_gates(r);
		tunnel_stop(&r->tunnel, STATUS_OK);
	} else if (connections(r) == 0) {
		pollset_until(&r->ps, r->used_at + r->opt.idle_ms);
	}
}

/* One turn.  False: nothing is left to wait for. */
static bool
turn(struct relay *r)
{
	int status;

	pollset_begin(&r->ps);
	watch_idle(r);
	want_tunnel(r); /* before the children, since it may release the command */
	status = spawn_turn(&r->kids, &r->ps);
	if (options_one_shot(&r->opt) && status != STATUS_OK)
		r->status = status;
	if (r->n_gates == 0 && r->conns.n == 0 && r->kids.first == NULL &&
	    r->tunnel.state == TUNNEL_OVER)
		return false;
	r->signal_slot = pollset_add(&r->ps, r->signal_fd, POLLIN);
	want_gates(r);
	conn_want(&r->conns, &r->ps);
	if (pollset_wait(&r->ps) == -1) {
		log_say(LOG_ERROR, "poll: %s", strerror(errno));
		r->status = STATUS_SYSTEM;
		stop(r, SIGTERM);
	}
	take_signals(r);
	accept_all(r);
	step_tunnel(r);
	conn_step(&r->conns, &r->ps);
	sweep(r);
	return true;
}

int
main(int argc, char *argv[])
{
	static struct relay r;

	if (!os_fill_stdio())
		fail_system("cannot open /dev/null");
	options_parse(&r.opt, argc, argv);
	if (r.opt.background)
		fork_early(&r);
	r.signal_fd = signals_open();
	if (r.signal_fd == -1)
		fail_system("cannot catch signals");
	set_up(&r);
	bound_pairs(&r, os_raise_files());
	if (r.opt.mode == MODE_PROBE || r.opt.mode == MODE_FDPASS)
		return dial_alone(&r);
	r.status = start(&r);
	if (r.status == STATUS_OK)
		while (turn(&r))
			;
	remove_pidfile(&r);
	return r.status;
}
