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
#define FORWARDS 32
#define GATES 64
#define ASK_AGAIN 5000 /* the far side to listen, where it would not after the link came back */

struct options {
	bool anybody, background, doctor, fdpass, linked, probe, quiet, verbose;
	long max_pairs; /* 0: no bound of the user's */
	const char *pidfile, *rsh, *far_path;
	int each_ms, wait_ms, idle_ms;
};

/* Where connections come in, and what for. */
struct gate {
	struct listener l;
	int slot;
	const struct forward *forward; /* NULL: TO */
};

struct relay {
	struct options opt;
	struct endpoint from;
	struct dial_target target;
	struct gate gates[GATES];
	int n_gates;
	struct forward forwards[FORWARDS];
	int n_forwards;
	int64_t resume;   /* gates rest until then; 0: they do not */
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
	struct tunnel tunnel; /* all connections share one link */
	bool linked;
	bool announced;  /* programs and people know that it stands */
	int64_t used_at; /* the last time that a connection was there */
	struct hops hops;
	char self[BOOT_PATH], far_options[64];
	dev_t pid_dev;
	ino_t pid_ino;
	bool pid_ours;
};

static const char usage[] =
    "usage: relay [options] FROM TO\n"
    "       relay [options] FROM -- COMMAND [ARG ...]\n"
    "       relay [options] -L FROM:TO | -R FROM:TO | -D PORT | -W TO ... HOP ...\n"
    "       relay -m [options] FROM -- COMMAND [ARG ...]\n"
    "       relay -m [options] - [TO]\n"
    "       relay -z | -F [options] TO\n"
    "An end is PORT, HOST:PORT, [IPv6]:PORT, *:PORT, a path with a / (Unix socket), or - (stdin and stdout).\n"
    "A HOP is an ssh destination, or the words of a command that runs its arguments there: 'srun --jobid=7 -u'.\n"
    "  -a          everybody may connect to a loopback port, not this user and root alone\n"
    "  -c N        at most N connections at a time\n"
    "  -D PORT     a SOCKS proxy, whose connections leave from the last hop\n"
    "  -e COMMAND  the ssh to run for the first hop, as in -e 'ssh -F FILE' (RELAY_SSH)\n"
    "  -f          go to the background once listening, or once the tunnel stands\n"
    "  -F          connect, hand the socket to ssh (ProxyUseFdpass) and exit\n"
    "  -i SECONDS  end when nothing was connected for so long\n"
    "  -L FROM:TO  listen here, connect from the last hop; -R: listen there, connect from here\n"
    "  -m          all connections share one COMMAND, whose end is relay -m - there: a link\n"
    "  -n          try each step of a tunnel and report; forward nothing\n"
    "  -P FILE     write the process id to FILE\n"
    "  -q, -v      say errors only; say a line for each connection\n"
    "  -t SECONDS  give up on an address after SECONDS (10)\n"
    "  -w SECONDS  keep trying for SECONDS until the target is there\n"
    "  -W TO       join stdin and stdout to TO beyond the last hop\n"
    "  -x PATH     the relay to use on the last hop; nothing is copied\n"
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

static void
add_forward(struct relay *r, int kind, const char *text)
{
	char why[SOCK_PATH_MAX + 256];

	if (r->n_forwards == FORWARDS)
		fail_usage("a tunnel carries at most 32 of -L, -R and -D");
	if (!forward_parse(&r->forwards[r->n_forwards++], (char)kind, text, why, sizeof(why)))
		fail_usage(why);
}

/* Returns the index of the first word that is no option. */
static int
parse_options(struct relay *r, int argc, char *argv[])
{
	struct options *o = &r->opt;
	char why[64];
	int c;

	o->each_ms = 10000;
	while ((c = getopt(argc, argv, ":ac:D:e:fFhi:L:mnP:qR:t:vVw:W:x:z")) != -1) {
		switch (c) {
		case 'D':
		case 'L':
		case 'R':
		case 'W':
			add_forward(r, c, optarg);
			break;
		case 'e':
			o->rsh = optarg;
			break;
		case 'i':
			o->idle_ms = (int)number('i', optarg, 1, SECONDS_MAX) * 1000;
			break;
		case 'n':
			o->doctor = true;
			break;
		case 'x':
			o->far_path = optarg;
			break;
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
			o->quiet = true;
			log_show(LOG_ERROR);
			break;
		case 't':
			o->each_ms = (int)number('t', optarg, 1, SECONDS_MAX) * 1000;
			break;
		case 'v':
			o->verbose = true;
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
		r->tunnel.link.role = LINK_NEAR;
		return;
	}
	if (n == 0 || strcmp(argv[0], "-") != 0)
		fail_usage("-m is relay -m FROM -- COMMAND on this side, relay -m - [TO] on the other");
	if (n > 2)
		fail_usage("there are words after TO; options stand before FROM");
	r->from.kind = ENDPOINT_STDIO;
	r->tunnel.link.role = LINK_FAR;
	r->target.to.kind = ENDPOINT_STDIO; /* none */
	if (n == 2) {
		parse_end(&r->target.to, argv[1], false);
		if (r->target.to.kind == ENDPOINT_STDIO)
			fail_usage("FROM and TO are both stdin and stdout");
		r->tunnel.legs.fixed = true;
	}
}

/* What the far relay is to do as this one was told. */
static void
far_options(struct relay *r)
{
	const struct options *o = &r->opt;
	char wait[16] = "";

	if (o->wait_ms > 0)
		snprintf(wait, sizeof(wait), " -w %d", o->wait_ms / 1000);
	snprintf(r->far_options, sizeof(r->far_options), "-m -t %d%s%s%s%s -", o->each_ms / 1000, wait, o->anybody ? " -a" : "",
	    o->quiet ? " -q" : "", o->verbose ? " -v" : "");
}

static void
parse_tunnel(struct relay *r, int n, char *argv[], const char *name)
{
	const char *rsh = getenv("RELAY_SSH");
	char why[512];
	int i;

	if (n == 0)
		fail_usage("a tunnel needs a hop, as in relay -L 8888:localhost:8888 me@login");
	for (i = 0; i < r->n_forwards && r->n_forwards > 1; i++)
		if (r->forwards[i].kind == FORWARD_STDIO)
			fail_usage("-W stands alone: stdin and stdout go to one place");
	if (r->opt.rsh == NULL)
		r->opt.rsh = rsh != NULL && *rsh != '\0' ? rsh : "ssh";
	if (!hops_parse(&r->hops, argv, n, r->opt.rsh, why, sizeof(why)))
		fail_usage(why);
	if (!os_self(name, r->self, sizeof(r->self)))
		snprintf(r->self, sizeof(r->self), "%s", name);
	far_options(r);
	endpoint_command(&r->target.to, r->hops.argv);
	if (r->n_forwards > 0)
		r->from = r->forwards[0].from;
	for (i = 0; i < r->n_forwards; i++) {
		r->forwards[i].to.kids = &r->kids;
		r->forwards[i].to.each_ms = r->opt.each_ms;
	}
	r->tunnel.hops = &r->hops;
	r->tunnel.self = r->self;
	r->tunnel.far_path = r->opt.far_path;
	r->tunnel.far_options = r->far_options;
}

static void
parse(struct relay *r, int argc, char *argv[])
{
	int at = parse_options(r, argc, argv);
	bool tunnel = r->n_forwards > 0 || r->opt.doctor;

	r->linked = r->opt.linked || tunnel;
	if (r->linked && (r->opt.probe || r->opt.fdpass))
		fail_usage("-m, -L, -R, -D and -W go with neither -z nor -F");
	if (r->opt.linked && tunnel)
		fail_usage("-m takes a command of yours, -L, -R, -D and -W take hops: only one of both");
	if (!tunnel && (r->opt.rsh != NULL || r->opt.far_path != NULL))
		fail_usage("-e and -x belong to a tunnel: -L, -R, -D or -W");
	if (tunnel)
		parse_tunnel(r, argc - at, argv + at, argv[0]);
	else if (r->opt.linked)
		parse_link(r, argc - at, argv + at);
	else if (r->opt.probe || r->opt.fdpass)
		parse_target_only(r, argc - at, argv + at);
	else
		parse_ends(r, argc - at, argv + at);
	if (r->opt.background && r->opt.doctor)
		fail_usage("-n reports and ends: it goes without -f");
	if (r->opt.background && (r->from.kind == ENDPOINT_STDIO || r->target.to.kind == ENDPOINT_STDIO))
		fail_usage("-f needs a listener as FROM and leaves stdin and stdout behind");
	r->target.each_ms = r->opt.each_ms;
	r->target.wait_ms = tunnel ? 0 : r->opt.wait_ms;
	r->target.kids = &r->kids;
	r->tunnel.command = &r->target;
	r->tunnel.legs.target = &r->target;
	r->tunnel.legs.anybody = r->opt.anybody;
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
close_gates(struct relay *r)
{
	while (r->n_gates > 0)
		sock_unlisten(&r->gates[--r->n_gates].l);
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

static const char *
gate_name(const struct gate *g)
{
	return g->l.path != NULL ? g->l.path : g->l.name;
}

/* Tell programs where we listen, here and there; the end of stdout tells them that this is all. */
static void
print_addresses(struct relay *r)
{
	int i;

	for (i = 0; i < r->n_gates; i++)
		printf("%s\n", gate_name(&r->gates[i]));
	for (i = 0; i < r->n_forwards; i++)
		if (r->forwards[i].kind == FORWARD_FAR)
			printf("%.*s", (int)strlen(r->forwards[i].bound) - 1, r->forwards[i].bound);
	if (fflush(stdout) != 0)
		log_say(LOG_NOTICE, "cannot print the addresses: %s", strerror(errno));
	null_over(STDOUT_FILENO);
}

/* Tell people how it goes. */
static void
tell_ways(struct relay *r)
{
	char path[HOPS_PATH], bound[sizeof(r->forwards[0].bound)];
	const struct forward *f;
	int i;

	hops_path(&r->hops, path, sizeof(path));
	for (i = 0; i < r->n_gates; i++)
		if (r->gates[i].forward != NULL && (i == 0 || r->gates[i - 1].forward != r->gates[i].forward))
			forward_tell(r->gates[i].forward, gate_name(&r->gates[i]), path);
	for (i = 0; i < r->n_forwards; i++) {
		f = &r->forwards[i];
		snprintf(bound, sizeof(bound), "%.*s", (int)strcspn(f->bound, "\n"), f->bound);
		if (f->kind == FORWARD_FAR)
			forward_tell(f, bound, path);
	}
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
		close_gates(r);
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

	if (r->linked)
		most = files - FILES_OURS - FILES_SPAWN - r->n_forwards * 2;

	if (files == -1)
		most = LONG_MAX;
	if (most < 1)
		most = 1;
	r->max_pairs = (size_t)(r->opt.max_pairs != 0 && r->opt.max_pairs < most ? r->opt.max_pairs : most);
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
	if (r->target.to.kind != ENDPOINT_STDIO && r->from.kind != ENDPOINT_STDIO) {
		tell_ways(r);
		print_addresses(r);
	}
	if (r->opt.background)
		go_background(r);
}

static int
start_link(struct relay *r)
{
	int status = STATUS_OK, i;
	char text[HOPS_PATH + 16], path[HOPS_PATH];

	for (i = 0; i < r->n_forwards && status == STATUS_OK && !r->opt.doctor; i++)
		if (r->forwards[i].kind == FORWARD_NEAR || r->forwards[i].kind == FORWARD_SOCKS)
			status = listen_on(r, &r->forwards[i].from, &r->forwards[i]);
	if (r->n_forwards == 0 && r->tunnel.link.role == LINK_NEAR && r->from.kind != ENDPOINT_STDIO)
		status = listen_on(r, &r->from, NULL);
	if (status != STATUS_OK)
		return status;
	r->tunnel.single = r->tunnel.link.role == LINK_NEAR && r->from.kind == ENDPOINT_STDIO && !r->opt.doctor;
	snprintf(text, sizeof(text), "reaching %s", hops_path(&r->hops, path, sizeof(path)));
	if (r->n_forwards > 0 && !r->tunnel.single && !r->opt.doctor)
		log_say(LOG_NOTICE, "%s", text);
	return tunnel_start(&r->tunnel, r->tunnel.link.role, pollset_clock());
}

static int
start(struct relay *r)
{
	int status;

	if (r->linked)
		return start_link(r);
	if (r->from.kind == ENDPOINT_STDIO)
		return start_single(r);
	status = listen_on(r, &r->from, NULL);
	if (status == STATUS_OK)
		announce(r);
	return status;
}

/* ---- the loop ---- */

static size_t
connections(const struct relay *r)
{
	return r->pairs.n + r->tunnel.legs.n - r->tunnel.legs.aside;
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

/* Connections that come while the link is away wait in the backlog; the first one is a reason to start it again. */
static bool
gates_rest(const struct relay *r)
{
	if (!r->linked || r->tunnel.state == TUNNEL_UP)
		return !r->announced;
	return r->tunnel.state != TUNNEL_RESTS || r->tunnel.woken;
}

static void
want_gates(struct relay *r)
{
	int i;

	for (i = 0; i < r->n_gates; i++)
		r->gates[i].slot = -1;
	if (connections(r) <= r->max_pairs / 2)
		r->told_full = false;
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

static void
join_linked(struct relay *r, const struct end *a, const struct forward *f, const char *name)
{
	struct legs *legs = &r->tunnel.legs;
	bool joined = f == NULL                  ? leg_new(legs, a, "")
		      : f->kind == FORWARD_SOCKS ? leg_socks(legs, a)
						 : leg_new(legs, a, f->to_text);
	struct end refused = *a;

	if (joined)
		return;
	log_say(LOG_NOTICE, "refused %s: the link carries %zu connections and no more", name, connections(r));
	end_close(&refused, true);
}

static void
join_connection(struct relay *r, int fd, const struct gate *g, const char *name)
{
	struct end a;

	end_socket(&a, fd, g->l.path == NULL);
	if (r->linked) {
		join_linked(r, &a, g->forward, name);
		return;
	}
	if (!pair_new(&r->pairs, &a, name, &r->target, r->ps.now)) {
		log_say(LOG_ERROR, "no memory for %s", name);
		end_close(&a, true);
		return;
	}
	if (r->target.to.kind == ENDPOINT_STDIO) {
		r->single = true;
		close_gates(r);
	}
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
		if (r->linked && r->tunnel.state == TUNNEL_RESTS)
			tunnel_wake(&r->tunnel);
		else
			accept_some(r, &r->gates[i]);
	}
}

static void
stop(struct relay *r, int sig)
{
	log_say(LOG_INFO, "stopped by signal %d (%s)", sig, strsignal(sig));
	close_gates(r);
	pair_stop(&r->pairs, STATUS_SIGNAL + sig, r->ps.now);
	tunnel_stop(&r->tunnel, r->from.kind == ENDPOINT_STDIO ? STATUS_SIGNAL + sig : STATUS_OK);
	spawn_hurry(&r->kids, r->ps.now);
}

static void
take_signals(struct relay *r)
{
	int sig;

	if (pollset_ready(&r->ps, r->signal_slot) == 0)
		return;
	while ((sig = signals_take()) != 0) {
		if (sig == SIGUSR1 && r->linked)
			tunnel_table(&r->tunnel, r->ps.now);
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

/* ---- the tunnel in the loop ---- */

/* -n: the link stands; are the targets there? */
static void
examine(struct relay *r)
{
	struct tunnel *t = &r->tunnel;
	struct forward *f;
	int i;

	doctor_say(true, t->link.theirs.host, "a relay runs there (%s), and the link stands", t->boot.path);
	for (i = 0; i < r->n_forwards; i++) {
		f = &r->forwards[i];
		f->state = FORWARD_STANDS;
		if (f->kind == FORWARD_FAR)
			leg_remote(&t->legs, f);
		else if (f->kind != FORWARD_SOCKS)
			leg_probe(&t->legs, f);
	}
}

static void
examined(struct relay *r)
{
	const char *host = r->tunnel.link.theirs.host;
	const struct forward *f;
	bool good = true;
	int i;

	for (i = 0; i < r->n_forwards; i++)
		if (r->forwards[i].state == FORWARD_ASKS)
			return;
	for (i = 0; i < r->n_forwards; i++) {
		f = &r->forwards[i];
		good = good && f->state == FORWARD_STANDS;
		if (f->kind == FORWARD_FAR)
			doctor_say(f->state == FORWARD_STANDS, host, "listening on %s %s", f->from_text,
			    f->state == FORWARD_STANDS ? "works" : "does not work, as told above");
		else if (f->kind != FORWARD_SOCKS)
			doctor_say(f->state == FORWARD_STANDS, host, "the target %s %s", f->to_text,
			    f->state == FORWARD_STANDS ? "answers" : "does not answer, as told above");
	}
	tunnel_stop(&r->tunnel, good ? STATUS_OK : STATUS_CONNECT);
}

/* The link is up, for the first time or again. */
static void
link_is_up(struct relay *r)
{
	struct tunnel *t = &r->tunnel;
	struct forward *f;
	struct end a;
	int i;

	if (t->link.role == LINK_FAR)
		return;
	log_say(t->lives > 1 ? LOG_NOTICE : LOG_INFO, "link to %s%s", t->link.theirs.host, t->lives > 1 ? ", again" : "");
	if (r->opt.doctor) {
		examine(r);
		return;
	}
	if (r->from.kind == ENDPOINT_STDIO) {
		if (end_stdio(&a) == -1 || !leg_new(&t->legs, &a, r->n_forwards > 0 ? r->forwards[0].to_text : ""))
			link_bye(&t->link, LINK_NO_ROOM, "cannot use stdin and stdout");
		else
			announce(r);
		return;
	}
	for (i = 0; i < r->n_forwards; i++) {
		f = &r->forwards[i];
		f->state = FORWARD_STANDS;
		if (f->kind == FORWARD_FAR)
			leg_remote(&t->legs, f);
		else if (f->kind == FORWARD_NEAR && r->opt.wait_ms > 0 && !r->announced) {
			log_status("waiting for the target");
			leg_probe(&t->legs, f);
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
		leg_remote(&r->tunnel.legs, f);
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

	if (r->tunnel.state != TUNNEL_UP || r->tunnel.link.state == LINK_DEAD)
		return;
	if (r->opt.doctor)
		examined(r);
	if (r->opt.doctor || r->from.kind == ENDPOINT_STDIO)
		return;
	for (i = 0; i < r->n_forwards; i++) {
		if (r->forwards[i].state == FORWARD_REFUSED)
			forward_refused(r, &r->forwards[i]);
		stands = stands && r->forwards[i].state == FORWARD_STANDS;
	}
	if (stands && !r->announced && r->tunnel.link.state != LINK_DEAD)
		announce(r);
}

static void
want_tunnel(struct relay *r)
{
	if (!r->linked || r->tunnel.state == TUNNEL_OVER)
		return;
	watch_forwards(r);
	tunnel_want(&r->tunnel, &r->ps);
	if (r->tunnel.state != TUNNEL_OVER)
		return;
	close_gates(r);
	r->status = r->tunnel.status;
}

static void
step_tunnel(struct relay *r)
{
	if (!r->linked || r->tunnel.state == TUNNEL_OVER)
		return;
	if (tunnel_step(&r->tunnel, &r->ps))
		link_is_up(r);
	tunnel_move(&r->tunnel, &r->ps);
}

/* -i: nobody has been connected for so long. */
static void
watch_idle(struct relay *r)
{
	if (r->opt.idle_ms == 0 || !r->announced || r->n_gates == 0)
		return;
	if (connections(r) > 0 || r->used_at == 0)
		r->used_at = r->ps.now;
	if (r->ps.now >= r->used_at + r->opt.idle_ms) {
		log_say(LOG_NOTICE, "nobody was connected for %d s: the end", r->opt.idle_ms / 1000);
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
	if ((r->single || r->tunnel.single) && status != STATUS_OK)
		r->status = status;
	if (r->n_gates == 0 && r->pairs.n == 0 && r->kids.first == NULL && r->tunnel.state == TUNNEL_OVER)
		return false;
	r->signal_slot = pollset_add(&r->ps, r->signal_fd, POLLIN);
	want_gates(r);
	pair_want(&r->pairs, &r->ps);
	if (pollset_wait(&r->ps) == -1) {
		log_say(LOG_ERROR, "poll: %s", strerror(errno));
		r->status = STATUS_SYSTEM;
		stop(r, SIGTERM);
	}
	take_signals(r);
	accept_all(r);
	pair_step(&r->pairs, &r->ps);
	step_tunnel(r);
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
	if (r.opt.doctor && !doctor_visit(r.hops.hops, r.hops.n, r.opt.rsh))
		return STATUS_LINK;
	r.status = start(&r);
	if (r.status == STATUS_OK)
		while (turn(&r))
			;
	remove_pidfile(&r);
	return r.status;
}
