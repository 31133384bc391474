/*
 * relay.c - options, start, and the loop.
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

#include "relay.h"

#define ACCEPTS 64      /* of one listener in one turn */
#define FULL_PAUSE 1000 /* of the listeners when the system has no descriptor left */
#define FILES_OURS 12   /* descriptors that are not a pair's: stdio, signals, listeners, netlink, a spare pipe */
#define FILES_SPAWN 6   /* more while a command is started */
#define SECONDS_MAX 1000000
#define EXPLAIN_AFTER 500 /* for the exit status of a command that was no far end */

struct options {
	bool anybody, background, fdpass, linked, probe;
	long max_pairs; /* 0: no bound of the user's */
	const char *pidfile;
	int each_ms, wait_ms;
};

struct relay {
	struct options opt;
	struct endpoint from;
	struct dial_target target;
	struct listener listeners[SOCK_ADDRS];
	int slots[SOCK_ADDRS];
	int n_listeners;
	int64_t resume;   /* listeners rest until then; 0: they do not */
	size_t max_pairs; /* what -c and the descriptors allow */
	bool told_full;
	struct pairs pairs;
	struct children kids;
	struct pollset ps;
	int signal_fd, signal_slot;
	int ready_fd; /* -f: tells the parent that we listen */
	bool stopped; /* by a signal */
	bool single;  /* one connection: its fate is relay's status */
	int status;
	struct link link; /* -m: one command for all, or its far end */
	struct carrier carrier;
	struct legs legs;
	bool announced;     /* near: the link has stood */
	int64_t explain_at; /* near: the start failed; it is told at this time, or when the command has ended */
	dev_t pid_dev;
	ino_t pid_ino;
	bool pid_ours;
};

static const char usage[] =
    "usage: relay [options] FROM TO\n"
    "       relay [options] FROM -- COMMAND [ARG ...]\n"
    "       relay -m [options] FROM -- COMMAND [ARG ...]\n"
    "       relay -m [options] - [TO]\n"
    "       relay -z | -F [options] TO\n"
    "An end is PORT, HOST:PORT, [IPv6]:PORT, *:PORT, a path with a / (Unix socket), or - (stdin and stdout).\n"
    "  -a          everybody may connect to a loopback port, not this user and root alone\n"
    "  -c N        at most N connections at a time\n"
    "  -f          go to the background once listening\n"
    "  -F          connect, hand the socket to ssh (ProxyUseFdpass) and exit\n"
    "  -m          all connections share one COMMAND, whose end is relay -m - there: a link\n"
    "  -P FILE     write the process id to FILE\n"
    "  -q, -v      say errors only; say a line for each connection\n"
    "  -t SECONDS  give up on an address after SECONDS (10)\n"
    "  -w SECONDS  keep trying for SECONDS until the target is there\n"
    "  -z          connect, say nothing, exit 0 or 1\n"
    "  -h, -V      show this, the version\n";

static void
fail_usage(const char *what)
{
	log_say(LOG_ERROR, "%s (relay -h shows how)", what);
	exit(STATUS_USAGE);
}

static void
fail_system(const char *what)
{
	log_say(LOG_ERROR, "%s: %s", what, strerror(errno));
	exit(STATUS_SYSTEM);
}

/* ---- options ---- */

static long
number(char opt, const char *text, long min, long max)
{
	char why[160], *end;
	long n;

	errno = 0;
	n = strtol(text, &end, 10);
	if (*text == '\0' || *end != '\0' || errno != 0 || n < min || n > max) {
		snprintf(why, sizeof(why), "-%c \"%.40s\": a whole number from %ld to %ld, as in -%c %ld", opt, text, min, max,
		    opt, min + 9);
		fail_usage(why);
	}
	return n;
}

/* Returns the index of the first word that is no option. */
static int
parse_options(struct options *o, int argc, char *argv[])
{
	char why[64];
	int c;

	o->each_ms = 10000;
	while ((c = getopt(argc, argv, ":ac:fFhmP:qt:vVw:z")) != -1) {
		switch (c) {
		case 'a':
			o->anybody = true;
			break;
		case 'c':
			o->max_pairs = number('c', optarg, 1, 1000000);
			break;
		case 'f':
			o->background = true;
			break;
		case 'F':
			o->fdpass = true;
			break;
		case 'h':
			fputs(usage, stdout);
			exit(fflush(stdout) == 0 ? STATUS_OK : STATUS_SYSTEM);
		case 'm':
			o->linked = true;
			break;
		case 'P':
			o->pidfile = optarg;
			break;
		case 'q':
			log_show(LOG_ERROR);
			break;
		case 't':
			o->each_ms = (int)number('t', optarg, 1, SECONDS_MAX) * 1000;
			break;
		case 'v':
			log_show(LOG_INFO);
			break;
		case 'V':
			puts("relay " RELAY_VERSION);
			exit(fflush(stdout) == 0 ? STATUS_OK : STATUS_SYSTEM);
		case 'w':
			o->wait_ms = (int)number('w', optarg, 0, SECONDS_MAX) * 1000;
			break;
		case 'z':
			o->probe = true;
			break;
		default:
			snprintf(why, sizeof(why), c == ':' ? "-%c wants a value" : "there is no option -%c", optopt);
			fail_usage(why);
		}
	}
	return optind;
}

static void
parse_end(struct endpoint *ep, const char *text, bool listens)
{
	char why[ENDPOINT_NAME + 256];

	if (!endpoint_parse(ep, text, listens, why, sizeof(why)))
		fail_usage(why);
}

/* -z and -F: the only end is TO; a FROM of "-" may stand before it. */
static void
parse_target_only(struct relay *r, int n, char *argv[])
{
	if (n == 2 && strcmp(argv[0], "-") == 0) {
		argv++;
		n--;
	}
	if (n != 1)
		fail_usage("-z and -F take one end, TO");
	parse_end(&r->target.to, argv[0], false);
	if (r->target.to.kind == ENDPOINT_STDIO)
		fail_usage("-z and -F connect: TO is a port or a socket path");
	r->from.kind = ENDPOINT_STDIO;
}

static void
parse_ends(struct relay *r, int n, char *argv[])
{
	if (n < 2)
		fail_usage(n == 0 ? "FROM and TO are missing" : "TO is missing");
	parse_end(&r->from, argv[0], true);
	if (strcmp(argv[1], "--") == 0) {
		if (n == 2 || *argv[2] == '\0')
			fail_usage("the command after -- is missing");
		endpoint_command(&r->target.to, argv + 2);
		return;
	}
	if (n > 2)
		fail_usage("there are words after TO; options stand before FROM, and a command after --");
	parse_end(&r->target.to, argv[1], false);
	if (r->from.kind == ENDPOINT_STDIO && r->target.to.kind == ENDPOINT_STDIO)
		fail_usage("FROM and TO are both stdin and stdout");
}

/* -m: near with a command, or far on stdin and stdout. */
static void
parse_link(struct relay *r, int n, char *argv[])
{
	if (n >= 2 && strcmp(argv[1], "--") == 0) {
		parse_ends(r, n, argv);
		r->link.role = LINK_NEAR;
		return;
	}
	if (n == 0 || strcmp(argv[0], "-") != 0)
		fail_usage("-m is relay -m FROM -- COMMAND on this side, relay -m - [TO] on the other");
	if (n > 2)
		fail_usage("there are words after TO; options stand before FROM");
	r->from.kind = ENDPOINT_STDIO;
	r->link.role = LINK_FAR;
	r->target.to.kind = ENDPOINT_STDIO; /* none */
	if (n == 2) {
		parse_end(&r->target.to, argv[1], false);
		if (r->target.to.kind == ENDPOINT_STDIO)
			fail_usage("FROM and TO are both stdin and stdout");
		r->legs.fixed = true;
	}
}

static void
parse(struct relay *r, int argc, char *argv[])
{
	int at = parse_options(&r->opt, argc, argv);

	if (r->opt.linked && (r->opt.probe || r->opt.fdpass))
		fail_usage("-m goes with neither -z nor -F");
	if (r->opt.linked)
		parse_link(r, argc - at, argv + at);
	else if (r->opt.probe || r->opt.fdpass)
		parse_target_only(r, argc - at, argv + at);
	else
		parse_ends(r, argc - at, argv + at);
	if (r->opt.background && (r->from.kind == ENDPOINT_STDIO || r->target.to.kind == ENDPOINT_STDIO))
		fail_usage("-f needs a listener as FROM and leaves stdin and stdout behind");
	r->target.each_ms = r->opt.each_ms;
	r->target.wait_ms = r->opt.wait_ms;
	r->target.kids = &r->kids;
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

	if (r->opt.fdpass && pass_descriptor(fd) == -1) {
		log_say(LOG_ERROR,
		    "cannot pass the socket over stdout: %s; -F is for ssh's ProxyCommand with ProxyUseFdpass yes",
		    strerror(errno));
		status = STATUS_CONNECT;
	}
	close(fd);
	return status;
}

/* Connect without anybody to join. */
static int
dial_alone(struct relay *r)
{
	struct dial *d = dial_start(&r->target, pollset_clock());
	enum dial_state state = DIAL_BUSY;
	char why[ENDPOINT_NAME + 512];
	int sig, status;

	if (d == NULL)
		fail_system("cannot connect");
	pollset_begin(&r->ps);
	while ((state = dial_step(d, &r->ps)) == DIAL_BUSY) {
		pollset_begin(&r->ps);
		r->signal_slot = pollset_add(&r->ps, r->signal_fd, POLLIN);
		dial_want(d, &r->ps);
		if (pollset_wait(&r->ps) == -1)
			fail_system("poll");
		while ((sig = signals_take()) != 0)
			if (sig != SIGCHLD && sig != SIGUSR1)
				return STATUS_SIGNAL + sig;
		spawn_reap(&r->kids);
		spawn_turn(&r->kids, &r->ps);
	}
	if (state == DIAL_DONE) {
		status = use_connection(r, d);
	} else {
		log_say(r->opt.probe ? LOG_INFO : LOG_ERROR, "%s", dial_explain(d, why, sizeof(why)));
		status = r->opt.probe ? STATUS_CONNECT : dial_status(d);
	}
	dial_free(d, r->ps.now);
	return status;
}

/* ---- start ---- */

/* A descriptor that we make must never become stdin, stdout or stderr. */
static void
fill_stdio(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd != -1 && fd <= STDERR_FILENO);
	if (fd > STDERR_FILENO)
		close(fd);
}

static void
close_listeners(struct relay *r)
{
	while (r->n_listeners > 0)
		sock_unlisten(&r->listeners[--r->n_listeners]);
}

static void
null_over(int fd)
{
	int null = open("/dev/null", O_RDWR);

	if (null == -1)
		return;
	dup2(null, fd);
	close(null);
}

/* Tell programs where we listen; the end of stdout tells them that this is all. */
static void
print_addresses(struct relay *r)
{
	int i;

	for (i = 0; i < r->n_listeners; i++)
		printf("%s\n", r->listeners[i].path != NULL ? r->listeners[i].path : r->listeners[i].name);
	if (fflush(stdout) != 0)
		log_say(LOG_NOTICE, "cannot print the addresses: %s", strerror(errno));
	null_over(STDOUT_FILENO);
}

static void
write_pidfile(struct relay *r)
{
	struct stat st;
	int fd;

	if (r->opt.pidfile == NULL)
		return;
	fd = open(r->opt.pidfile, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd == -1 || fstat(fd, &st) == -1 || dprintf(fd, "%ld\n", (long)getpid()) < 0) {
		log_say(LOG_ERROR, "cannot write %s: %s", r->opt.pidfile, strerror(errno));
		close_listeners(r);
		exit(STATUS_SYSTEM);
	}
	r->pid_dev = st.st_dev;
	r->pid_ino = st.st_ino;
	r->pid_ours = true;
	close(fd);
}

static void
remove_pidfile(const struct relay *r)
{
	struct stat st;

	if (r->pid_ours && lstat(r->opt.pidfile, &st) == 0 && st.st_dev == r->pid_dev && st.st_ino == r->pid_ino)
		unlink(r->opt.pidfile);
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
	if (read(fd[0], &byte, 1) == 1)
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
	null_over(STDIN_FILENO);
	/* A terminal or a pipe there would be held open for ever; a file is somebody's log. */
	if (fstat(STDERR_FILENO, &st) == -1 || !S_ISREG(st.st_mode))
		null_over(STDERR_FILENO);
	n = write(r->ready_fd, "", 1);
	(void)n; /* a parent that was killed does not wait */
	close(r->ready_fd);
}

static int
start_single(struct relay *r)
{
	struct end a;

	if (end_stdio(&a) == -1 || !pair_new(&r->pairs, &a, "stdio", &r->target, pollset_clock()))
		fail_system("cannot use stdin and stdout");
	r->single = true;
	write_pidfile(r);
	return STATUS_OK;
}

/* A connection that was taken must find the descriptors for its other side too: do not take more than can be served. */
static void
bound_pairs(struct relay *r, long files)
{
	bool command = r->target.to.kind == ENDPOINT_COMMAND;
	long most = command ? (files - FILES_OURS - FILES_SPAWN) / 3 : (files - FILES_OURS) / 2;

	if (r->opt.linked)
		most = files - FILES_OURS - FILES_SPAWN;

	if (files == -1)
		most = LONG_MAX;
	if (most < 1)
		most = 1;
	r->max_pairs = (size_t)(r->opt.max_pairs != 0 && r->opt.max_pairs < most ? r->opt.max_pairs : most);
}

static int
start_listening(struct relay *r)
{
	int i;

	r->n_listeners = sock_listen(&r->from, r->listeners);
	if (r->n_listeners == -1) {
		r->n_listeners = 0;
		return STATUS_LISTEN;
	}
	for (i = 0; i < r->n_listeners && r->opt.anybody; i++)
		r->listeners[i].guarded = false;
	return STATUS_OK;
}

/* Ready: tell programs, and let the shell go on. */
static void
announce(struct relay *r)
{
	write_pidfile(r);
	if (r->target.to.kind != ENDPOINT_STDIO)
		print_addresses(r);
	if (r->opt.background)
		go_background(r);
}

static int
start_link(struct relay *r)
{
	char host[ENDPOINT_HOST] = "?";
	int status = STATUS_OK;

	if (r->link.role == LINK_NEAR && r->from.kind != ENDPOINT_STDIO)
		status = start_listening(r);
	if (status != STATUS_OK)
		return status;
	gethostname(host, sizeof(host) - 1);
	link_init(&r->link, r->link.role, LINK_MEMORY, host, pollset_clock_us());
	r->legs.link = &r->link;
	r->legs.target = &r->target;
	if (r->link.role == LINK_FAR)
		return carrier_far(&r->carrier, &r->link) == -1 ? STATUS_LINK : STATUS_OK;
	if (!carrier_near(&r->carrier, &r->link, &r->target, pollset_clock()))
		fail_system("cannot start the command");
	return STATUS_OK;
}

static int
start(struct relay *r)
{
	int status;

	if (r->opt.linked)
		return start_link(r);
	if (r->from.kind == ENDPOINT_STDIO)
		return start_single(r);
	status = start_listening(r);
	if (status == STATUS_OK)
		announce(r);
	return status;
}

/* ---- the loop ---- */

static size_t
connections(const struct relay *r)
{
	return r->pairs.n + r->legs.n;
}

static void
tell_full(struct relay *r)
{
	if (!r->told_full)
		log_say(LOG_NOTICE, "out of descriptors with %zu connections: new ones wait (ulimit -n; -c N bounds them)",
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

static void
want_listeners(struct relay *r)
{
	int i;

	for (i = 0; i < r->n_listeners; i++)
		r->slots[i] = -1;
	if (connections(r) <= r->max_pairs / 2)
		r->told_full = false;
	if (r->n_listeners == 0 || is_full(r) || (r->opt.linked && !r->announced))
		return;
	if (r->resume > r->ps.now) {
		pollset_until(&r->ps, r->resume);
		return;
	}
	r->resume = 0;
	for (i = 0; i < r->n_listeners; i++)
		r->slots[i] = pollset_add(&r->ps, r->listeners[i].fd, POLLIN);
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

static void
join_connection(struct relay *r, int fd, const struct listener *l, const char *name)
{
	struct end a;

	end_socket(&a, fd, l->path == NULL);
	if (r->opt.linked) {
		if (!leg_new(&r->legs, &a, "", r->ps.now)) {
			log_say(LOG_NOTICE, "refused %s: the link carries %zu connections and no more", name, r->legs.n);
			end_close(&a, true);
		}
		return;
	}
	if (!pair_new(&r->pairs, &a, name, &r->target, r->ps.now)) {
		log_say(LOG_ERROR, "no memory for %s", name);
		end_close(&a, true);
		return;
	}
	if (r->target.to.kind == ENDPOINT_STDIO) {
		r->single = true;
		close_listeners(r);
	}
}

static void
accept_some(struct relay *r, const struct listener *l)
{
	char name[SOCK_NAME];
	int i, fd;

	for (i = 0; i < ACCEPTS && l->fd != -1; i++) {
		if (is_full(r))
			return;
		fd = sock_accept(l, name);
		if (fd == -1 && errno == EACCES)
			continue;
		if (fd == -1) {
			accept_failed(r, errno);
			return;
		}
		join_connection(r, fd, l, name);
	}
}

static void
stop(struct relay *r, int sig)
{
	log_say(LOG_INFO, "stopped by signal %d (%s)", sig, strsignal(sig));
	close_listeners(r);
	pair_stop(&r->pairs, STATUS_SIGNAL + sig, r->ps.now);
	if (r->opt.linked) {
		link_bye(&r->link, LINK_END, "stopped by a signal");
		r->status = r->from.kind == ENDPOINT_STDIO ? STATUS_SIGNAL + sig : STATUS_OK;
		r->stopped = true;
	}
	spawn_hurry(&r->kids, r->ps.now);
}

static void
take_signals(struct relay *r)
{
	int sig;

	if (pollset_ready(&r->ps, r->signal_slot) == 0)
		return;
	while ((sig = signals_take()) != 0) {
		if (sig == SIGUSR1 && r->opt.linked)
			leg_table(&r->legs);
		else if (sig == SIGUSR1)
			pair_table(&r->pairs, r->ps.now);
		else if (sig != SIGCHLD)
			stop(r, sig);
	}
	spawn_reap(&r->kids);
}

static void
sweep(struct relay *r)
{
	size_t n = r->pairs.n;
	int status = pair_sweep(&r->pairs, r->ps.now);

	if (r->pairs.n < n)
		r->resume = 0; /* there are descriptors again */
	if (r->single && status != STATUS_OK)
		r->status = status;
}

/* ---- the link in the loop ---- */

/* What came before the link, as people can read it. */
static void
show_noise(const struct link *l)
{
	size_t from = l->noise_have > 400 ? l->noise_have - 400 : 0, i;
	char text[401];

	if (l->noise_have == 0)
		return;
	for (i = from; i < l->noise_have; i++)
		text[i - from] = l->noise[i] == '\n' ? '|' : l->noise[i] == '\0' ? '?' : l->noise[i];
	text[i - from] = '\0';
	log_say(LOG_ERROR, "before that it said: %s", text);
}

static void
explain_start(const struct relay *r)
{
	int ended = r->carrier.child == NULL ? -1 : spawn_exit(r->carrier.child);
	char name[ENDPOINT_NAME];

	endpoint_name(&r->target.to, name, sizeof(name));
	if (r->link.code != LINK_END)
		log_say(LOG_ERROR, "no link: %s", r->link.why);
	else if (ended == 127)
		log_say(
		    LOG_ERROR, "no link: the far command was not found; is relay there, and in the PATH of a remote command?");
	else if (ended == 255)
		log_say(LOG_ERROR, "no link: %s could not connect, or the far command broke", name);
	else if (ended >= 0)
		log_say(LOG_ERROR,
		    "no link: the command ended with status %d and without a sign of a relay; its end is relay -m -", ended);
	else
		log_say(LOG_ERROR, "no link: the command closed its stdout without a sign of a relay; its end is relay -m -");
	show_noise(&r->link);
}

/* The link is dead: reset what it carried, and say why. */
static void
end_link(struct relay *r)
{
	bool far_end = r->link.role == LINK_FAR && (r->link.code == LINK_END || r->link.code == LINK_RESET);

	if (r->link.role == LINK_NEAR && !r->announced && !r->stopped) {
		/* The command's exit status says most; it comes a moment after the end of its stdout. */
		if (r->explain_at == 0)
			r->explain_at = r->ps.now + EXPLAIN_AFTER;
		pollset_until(&r->ps, r->explain_at);
		if (r->ps.now < r->explain_at && r->carrier.child != NULL && spawn_exit(r->carrier.child) == -1)
			return;
		explain_start(r);
	} else if (!r->stopped && !(r->single && r->legs.n == 0)) {
		log_say(far_end ? LOG_INFO : LOG_ERROR, "the link%s%s has ended: %s", r->announced ? " to " : "",
		    r->announced ? r->link.theirs.host : "", r->link.why);
	}
	if (!r->stopped && !far_end && !(r->single && r->legs.n == 0))
		r->status = STATUS_LINK;
	leg_step(&r->legs, &r->ps);
	leg_sweep(&r->legs, r->ps.now);
	carrier_flush(&r->carrier, r->ps.now_us);
	carrier_close(&r->carrier, r->ps.now);
	close_listeners(r);
	link_free(&r->link);
	r->opt.linked = false;
}

static void
link_is_up(struct relay *r)
{
	struct end a;

	r->announced = true;
	if (r->link.role == LINK_FAR)
		return;
	log_say(LOG_INFO, "link to %s", r->link.theirs.host);
	if (r->from.kind != ENDPOINT_STDIO) {
		announce(r);
		return;
	}
	r->single = true;
	if (end_stdio(&a) == -1 || !leg_new(&r->legs, &a, "", r->ps.now))
		link_bye(&r->link, LINK_NO_ROOM, "cannot use stdin and stdout");
}

static void
want_link(struct relay *r)
{
	if (!r->opt.linked)
		return;
	if (r->link.state == LINK_DEAD)
		end_link(r);
	if (!r->opt.linked || r->link.state == LINK_DEAD)
		return;
	leg_want(&r->legs, &r->ps);
	carrier_want(&r->carrier, &r->ps);
}

static void
step_link(struct relay *r)
{
	int status;

	if (!r->opt.linked)
		return;
	carrier_step(&r->carrier, &r->ps);
	if (r->link.state == LINK_UP && !r->announced)
		link_is_up(r);
	leg_accept(&r->legs, r->ps.now);
	leg_step(&r->legs, &r->ps);
	status = leg_sweep(&r->legs, r->ps.now);
	if (r->single && status != STATUS_OK && !r->stopped)
		r->status = status;
	carrier_flush(&r->carrier, pollset_clock_us());
	if (r->single && r->link.late != LINK_END && r->status == STATUS_OK)
		r->status = STATUS_BROKEN;
	if (r->single && r->legs.n == 0 && r->link.n == 0)
		link_bye(&r->link, LINK_END, "done");
}

/* One turn.  False: nothing is left to wait for. */
static bool
turn(struct relay *r)
{
	int i, status;

	pollset_begin(&r->ps);
	want_link(r); /* first, since it may release the command */
	status = spawn_turn(&r->kids, &r->ps);
	if (r->single && status != STATUS_OK)
		r->status = status;
	if (r->n_listeners == 0 && r->pairs.n == 0 && r->kids.first == NULL && !r->opt.linked)
		return false;
	r->signal_slot = pollset_add(&r->ps, r->signal_fd, POLLIN);
	want_listeners(r);
	pair_want(&r->pairs, &r->ps);
	if (pollset_wait(&r->ps) == -1) {
		log_say(LOG_ERROR, "poll: %s", strerror(errno));
		r->status = STATUS_SYSTEM;
		stop(r, SIGTERM);
	}
	take_signals(r);
	for (i = 0; i < r->n_listeners; i++)
		if (pollset_ready(&r->ps, r->slots[i]) != 0)
			accept_some(r, &r->listeners[i]);
	pair_step(&r->pairs, &r->ps);
	step_link(r);
	sweep(r);
	return true;
}

int
main(int argc, char *argv[])
{
	static struct relay r;

	fill_stdio();
	parse(&r, argc, argv);
	if (r.opt.background)
		fork_early(&r);
	r.signal_fd = signals_open();
	if (r.signal_fd == -1)
		fail_system("cannot catch signals");
	bound_pairs(&r, os_raise_files());
	if (r.opt.probe || r.opt.fdpass)
		return dial_alone(&r);
	r.status = start(&r);
	if (r.status == STATUS_OK)
		while (turn(&r))
			;
	remove_pidfile(&r);
	return r.status;
}
