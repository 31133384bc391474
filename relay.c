/*
 * relay.c - main() and the event loop.
 *
 * The start opens the listeners of FROM, or joins stdin and stdout to the
 * target.  Then each turn of the loop collects the events to wait for, waits
 * once in poll(2), takes signals, accepts connections, moves bytes, and frees
 * the connections that are closed.
 *
 * The loop ends when no listener, connection, tunnel or child is left.  A
 * signal to stop closes the first three.  Then the loop continues until the
 * children have ended.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "base/poll.h"
#include "base/signals.h"
#include "mux/mux.h"
#include "net/dial.h"
#include "net/endpoint.h"
#include "spawn.h"
#include "conn/conn.h"
#include "conn/fdpair.h"
#include "conn/listeners.h"
#include "conn/side.h"
#include "tunnel/command.h"
#include "tunnel/forward.h"
#include "tunnel/hops.h"
#include "tunnel/keeper.h"
#include "tunnel/probe.h"
#include "tunnel/run.h"
#include "tunnel/tunnel.h"
#include "cli/ask.h"
#include "cli/control.h"
#include "cli/daemon.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "relay.h"

/*
 * Descriptors that belong to no connection: stdio, /dev/null, signals,
 * listeners, netlink, a spare pipe, the pid file, the log, the control socket,
 * the output and the directory of COMMAND.
 */
#define FILES_OWN (17 + CONTROL_FILES)
#define FILES_CHANNEL 4   /* more descriptors, for each further channel */
#define FILES_SPAWN 6     /* more descriptors, while a command is started */
#define ASK_AGAIN 5000000 /* us until a refused -R is tried again */

/* Of COMMAND, in us. */
#define WAIT_PAUSE 250000   /* between two attempts to reach a target */
#define WAIT_QUIET 15000000 /* until the wait is logged, once */
#define STOP_MOST 13000000  /* for SIGTERM, SIGKILL and the last output */
#define STOP_TWICE 1000000  /* signals within this time are one stop */
#define KILL_MOST 3000000   /* for SIGKILL and the last output */
#define DRAIN_MOST 2000000  /* for connections, when COMMAND has ended by itself */
#define TAIL_MOST 2000000   /* for the last output, when the link has ended */

struct relay {
	struct options opt;
	struct daemon daemon;
	struct listeners listeners;
	struct conns conns;
	struct children kids;
	struct tunnel *tunnel;   /* carries all connections; NULL: no link */
	struct control *control; /* NULL: none */
	struct command *command; /* far: runs COMMAND; NULL: not allowed */
	struct run *run;         /* near: the COMMAND of a tunnel; NULL: none */
	int run_stops;           /* near: how often COMMAND was asked to stop */
	int64_t run_until;       /* when to end the link: COMMAND stops or has ended; or 0 */
	int run_status;          /* relay's exit status at run_until */
	int64_t drain_until;     /* the link is over, COMMAND's last output is shown; or 0 */
	int64_t explain_at;      /* when to log that a target does not answer, or 0 */
	struct progress progress;
	struct pollset ps;
	int signal_fd, signal_slot, stdout_slot;
	int enter_slot;
	bool no_terminal;        /* a read from stdin failed, or returned EOF */
	struct probe_run *probe; /* -n; else NULL */
	struct dial *dial;       /* -z and -F, until it has ended; else NULL */
	bool ready;              /* the addresses were printed */
	int64_t used_at;         /* when a connection was open last */
	int status;              /* relay's exit status */
};

static void
fail_system(const char *what)
{
	log_say(LOG_ERROR, "%s: %s", what, strerror(errno));
	exit(STATUS_SYSTEM);
}

/* ---- the COMMAND of a tunnel ---- */

/*
 * Ask COMMAND to stop.  Return false if it has ended, cannot be reached, or was
 * asked twice.  One stop can come as two signals: a terminal and its shell both
 * send SIGHUP.
 */
static bool
stop_run(struct relay *r)
{
	bool again = r->run_stops > 0;

	if (run_life(r->run) != RUN_ALIVE || !tunnel_carries(r->tunnel) || r->run_stops == 2)
		return false;
	if (again && r->ps.now < r->run_until - STOP_MOST + STOP_TWICE)
		return true;
	r->run_stops++;
	run_stop(r->run);
	log_say(LOG_NOTICE,
	    again ? "stopping %s with SIGKILL" : "stopping %s; another Ctrl-C stops it at once",
	    run_name(r->run));
	r->run_until = r->ps.now + (again ? KILL_MOST : STOP_MOST);
	return true;
}

/* COMMAND has ended by itself, or the far side has refused it. */
static void
end_run(struct relay *r)
{
	bool ended = run_life(r->run) == RUN_ENDED;

	log_say(LOG_ERROR, "%s%s%s", ended ? run_name(r->run) : mux_peer(tunnel_mux(r->tunnel)),
	    ended ? " " : ": ", run_reason(r->run));
	r->run_status = STATUS_COMMAND;
	r->run_until = r->ps.now + DRAIN_MOST;
	listeners_close(&r->listeners);
}

static void
watch_run(struct relay *r)
{
	enum run_life life = run_life(r->run);

	if (life == RUN_IDLE)
		return;
	if (r->run_until == 0 && life != RUN_ALIVE && tunnel_carries(r->tunnel))
		end_run(r);
	if (r->run_until == 0 || tunnel_state(r->tunnel) == TUNNEL_STOPPING)
		return;
	pollset_until(&r->ps, r->run_until);
	if ((life != RUN_ALIVE && r->conns.n == 0) || !tunnel_carries(r->tunnel) ||
	    r->ps.now >= r->run_until) {
		conn_stop(&r->conns, r->run_status, r->ps.now);
		tunnel_stop(r->tunnel, r->run_status);
	}
}

/* Return false after an error, which was logged. */
static bool
start_run(struct relay *r)
{
	const struct options *o = &r->opt;

	if (!run_start(r->run, tunnel_mux(r->tunnel))) {
		log_say(LOG_ERROR, "cannot run %s: no memory", run_name(r->run));
		tunnel_stop(r->tunnel, STATUS_SYSTEM);
		return false;
	}
	r->explain_at = r->ps.now + WAIT_QUIET;
	if (mux_keeps(tunnel_mux(r->tunnel)) > 0)
		return true;
	log_say(LOG_NOTICE, "%s ends when the line is lost: %s", run_name(r->run),
	    o->keep != 0                 ? "the last hop keeps no session"
	    : hops_any_command(&o->hops) ? "a hop is a command, which ends with the line"
					 : "-k 0 keeps no session");
	return true;
}

/* While COMMAND can be asked to stop, the link stays. */
static void
close_all(struct relay *r, int status)
{
	bool asked;

	if (r->run_until == 0) /* the first cause counts */
		r->run_status = status;
	asked = stop_run(r);
	listeners_close(&r->listeners);
	conn_stop(&r->conns, r->run_status, r->ps.now);
	if (asked)
		return;
	if (r->probe != NULL)
		probe_run_stop(r->probe);
	else
		tunnel_stop(r->tunnel, r->run_status);
}

/* ---- start ---- */

static void
set_up_tunnel(struct relay *r)
{
	struct options *o = &r->opt;
	const struct tunnel_config config = {
		.role = o->mode == MODE_LINK_FAR ? MUX_FAR : MUX_NEAR,
		.conns = &r->conns,
		.target = &o->target,
		.hops = options_tunnel(o) ? &o->hops : NULL,
		.unattended = o->mode == MODE_TUNNEL ? &o->unattended : NULL,
		.self = o->self,
		.far_path = o->far_path,
		.far_options = o->far_options,
		.join_options = OPTIONS_JOIN,
		.channels = (unsigned)o->channels,
		.keep = o->keep,
		.probing = o->mode == MODE_CHECK,
		.one_shot = options_one_shot(o),
		.only_target = options_only_target(o),
		.any_uid = o->any_uid,
		.runs_command = o->command != NULL,
		.command = r->command,
	};

	r->tunnel = tunnel_new(&config);
	if (r->tunnel == NULL)
		fail_system("cannot start a link");
}

static void
set_up(struct relay *r)
{
	struct options *o = &r->opt;
	int64_t each_us = o->each_s * INT64_C(1000000);
	struct forward *f;

	r->daemon.pid_path = o->pid_path;
	r->listeners.conns = &r->conns;
	o->target.kids = &r->kids;
	o->target.each_us = each_us;
	/* In a tunnel, -w applies to the targets and not to the command. */
	o->target.wait_us = options_tunnel(o) ? 0 : o->wait_s * INT64_C(1000000);
	for (f = o->forwards; f < o->forwards + o->n_forwards; f++) {
		f->to.kids = &r->kids;
		f->to.each_us = each_us;
		f->to.no_wait = true; /* the far side dials those of -L, -D and -W */
	}
	r->run = o->command == NULL ? NULL : run_new(o->command);
	r->command = o->runs_command ? command_new(&r->kids) : NULL;
	if ((r->run == NULL) != (o->command == NULL) || (r->command == NULL) == o->runs_command)
		fail_system("cannot start");
	if (options_linked(o))
		set_up_tunnel(r);
}

/*
 * A connection also uses descriptors for its target.  The far side of a session
 * expects as many channels as there can be.  ${files} -1: no limit.
 */
static void
limit_conns(struct relay *r, long files)
{
	const struct options *o = &r->opt;
	long channels = o->mode == MODE_LINK_FAR && o->keep > 0 ? MUX_SLOTS : o->channels;
	long most = (files - FILES_OWN) / 2;

	if (options_linked(o))
		most = files - FILES_OWN - FILES_SPAWN - o->n_forwards * 2 -
		       (channels > 1 ? (channels - 1) * FILES_CHANNEL : 0);
	else if (o->target.to.kind == ENDPOINT_COMMAND)
		most = (files - FILES_OWN - FILES_SPAWN) / 3;
	if (files == -1)
		most = LONG_MAX;
	if (most < 1)
		most = 1;
	r->listeners.log_full = o->max_conns == 0 || o->max_conns > most;
	r->conns.max = (size_t)(r->listeners.log_full ? most : o->max_conns);
}

/*
 * Print the address of each listener, here and on the far side (-R), one a
 * line.  localhost:PORT is printed once for both loopback addresses.  Then
 * replace stdout by /dev/null, so that its reader gets EOF.  This may block
 * until the reader takes the lines.
 */
static void
print_addresses(const struct relay *r)
{
	const struct options *o = &r->opt;
	const struct forward *f;
	const char *name;
	int at = 0;

	while ((name = listeners_next_name(&r->listeners, &at)) != NULL)
		printf("%s\n", name);
	for (f = o->forwards; f < o->forwards + o->n_forwards; f++)
		if (f->kind == FORWARD_FAR) /* not the empty last line */
			printf("%.*s", (int)strlen(f->bound) - 1, f->bound);
	if (ferror(stdout) || fflush(stdout) != 0)
		log_say(LOG_NOTICE, "cannot print the addresses: %s", strerror(errno));
	os_null(STDOUT_FILENO);
}

/* Log where each forward listens, its hops and its target. */
static void
log_routes(const struct relay *r)
{
	const struct options *o = &r->opt;
	const struct listeners *ls = &r->listeners;
	char path[HOPS_PATH];
	const struct forward *f;
	int i;

	hops_path(&o->hops, path, sizeof(path));
	for (f = o->forwards; f < o->forwards + o->n_forwards; f++) {
		for (i = 0; i < ls->n && ls->tab[i].use != f; i++)
			;
		if (i < ls->n)
			forward_log(f, listener_name(&ls->tab[i].l), path);
		else if (f->kind == FORWARD_FAR)
			forward_log(f, f->bound, path);
	}
}

/* Report that relay accepts connections.  Return an exit status. */
static int
report_ready(struct relay *r)
{
	bool terminal = log_on_terminal();

	progress_show(&r->progress, &r->ps);
	r->ready = true;
	if (!daemon_write_pid(&r->daemon)) {
		close_all(r, STATUS_SYSTEM);
		return STATUS_SYSTEM;
	}
	if (!options_stdio(&r->opt)) {
		/* On a terminal the routes come last: they show the URL. */
		if (terminal)
			print_addresses(r);
		log_routes(r);
		if (!terminal)
			print_addresses(r);
	}
	daemon_detach(&r->daemon);
	return STATUS_OK;
}

/*
 * Join ${a} to the target or, if there is a link, to a stream for the forward
 * ${f}; NULL: none.  Return false with errno set if the memory runs out.
 */
static bool
join(struct relay *r, const struct side *a, const char *name, const struct forward *f)
{
	struct side b;

	if (r->tunnel == NULL)
		return conn_dial(&r->conns, a, name, &r->opt.target, r->ps.now);
	if (f != NULL && f->kind == FORWARD_SOCKS)
		return conn_socks(&r->conns, a, name, r->ps.now);
	b = side_of_stream(mux_open(tunnel_mux(r->tunnel), f == NULL ? "" : f->to_text));
	if (b.stream != NULL && conn_join(&r->conns, a, name, &b, r->ps.now))
		return true;
	side_close(&b, true, MUX_NO_ROOM, "out of memory");
	errno = ENOMEM;
	return false;
}

/* stdin and stdout are the only connection.  Return an exit status. */
static int
join_stdio(struct relay *r)
{
	const struct forward *f = r->opt.n_forwards > 0 ? r->opt.forwards : NULL;
	struct side a;

	/* First the pid file: fdpair_stdio changes the flags of stdin and stdout. */
	if (report_ready(r) != STATUS_OK)
		return STATUS_SYSTEM;
	side_none(&a);
	if (fdpair_stdio(&a.fds) == 0 && join(r, &a, "stdio", f))
		return STATUS_OK;
	log_say(LOG_ERROR, "cannot use stdin and stdout: %s", fdpair_explain(errno));
	fdpair_close(&a.fds, false);
	tunnel_stop(r->tunnel, STATUS_SYSTEM);
	return STATUS_SYSTEM;
}

/* Listen on FROM, or on the sources of -L and -D.  Return an exit status. */
static int
listen_here(struct relay *r)
{
	const struct options *o = &r->opt;
	bool ok = o->n_forwards > 0 || o->from.kind == ENDPOINT_STDIO ||
		  listeners_add(&r->listeners, &o->from, o->any_uid, NULL);
	const struct forward *f;

	for (f = o->forwards; ok && f < o->forwards + o->n_forwards; f++)
		if (f->kind == FORWARD_NEAR || f->kind == FORWARD_SOCKS)
			ok = listeners_add(&r->listeners, &f->from, o->any_uid, f);
	if (ok)
		return STATUS_OK;
	listeners_close(&r->listeners);
	return STATUS_LISTEN;
}

static int
start_probe(struct relay *r)
{
	r->probe = probe_run_new(
	    r->tunnel, &r->opt.hops, r->opt.forwards, r->opt.n_forwards, r->opt.end_after);
	if (r->probe == NULL)
		fail_system("cannot start");
	return probe_run_next(r->probe, pollset_clock()) ? STATUS_OK : tunnel_status(r->tunnel);
}

static int
start_dial(struct relay *r)
{
	r->dial = dial_start(&r->opt.target, pollset_clock());
	if (r->dial == NULL)
		fail_system("cannot connect");
	return STATUS_OK;
}

static int
start_link(struct relay *r)
{
	const struct options *o = &r->opt;
	char path[HOPS_PATH], text[256];
	int status;

	/* The ssh that runs -W may ask for a password: nothing is drawn there. */
	if (o->mode == MODE_TUNNEL && !options_one_shot(o)) {
		log_say(LOG_NOTICE, "reaching %s", hops_path(&o->hops, path, sizeof(path)));
		r->progress.options = o;
		r->progress.tunnel = log_on_terminal() ? r->tunnel : NULL;
		r->progress.ready = &r->ready;
	}
	status = tunnel_start(r->tunnel, r->ps.now);
	if (status == STATUS_OK && options_only_target(o))
		log_say(LOG_INFO, "confinement: %s", dial_confine(&o->target, text, sizeof(text)));
	return status;
}

/* Return an exit status. */
static int
start(struct relay *r)
{
	const struct control_view view = {
		.options = &r->opt,
		.listeners = &r->listeners,
		.conns = &r->conns,
		.tunnel = r->tunnel,
		.ready = &r->ready,
	};
	bool stdio = r->opt.from.kind == ENDPOINT_STDIO;
	int status;

	if (r->opt.mode == MODE_CHECK)
		return start_probe(r);
	if (r->opt.mode == MODE_PROBE || r->opt.mode == MODE_FDPASS)
		return start_dial(r);
	status = listen_here(r);
	if (status != STATUS_OK)
		return status;
	pollset_begin(&r->ps);
	if (!stdio)
		r->control = control_open(&view);
	if (r->tunnel != NULL)
		return start_link(r);
	return stdio ? join_stdio(r) : report_ready(r);
}

/* ---- the loop ---- */

/*
 * While the link is down, connections wait in the backlog.  During backoff the
 * listeners are polled: a first connection makes the next start earlier.
 */
static bool
accepts(const struct relay *r)
{
	if (tunnel_state(r->tunnel) == TUNNEL_BACKOFF)
		return !tunnel_wanted(r->tunnel);
	return r->ready && (r->tunnel == NULL || tunnel_carries(r->tunnel));
}

static void
join_accepted(struct relay *r, struct accepted *c)
{
	if (join(r, &c->side, c->name, c->use)) {
		if (r->opt.target.to.kind == ENDPOINT_STDIO)
			listeners_close(&r->listeners);
		return;
	}
	if (r->tunnel != NULL)
		log_say(LOG_NOTICE,
		    "refused %s: no memory, or too many connections (%zu are open); close some",
		    c->name, r->conns.n);
	else
		log_say(LOG_ERROR, "refused %s: out of memory", c->name);
	side_close(&c->side, true, MUX_RESET, "");
}

static void
accept_connections(struct relay *r)
{
	struct accepted c;

	if (tunnel_state(r->tunnel) == TUNNEL_BACKOFF) {
		if (listeners_ready(&r->listeners, &r->ps))
			tunnel_want_up(r->tunnel);
		return;
	}
	while (listeners_accept(&r->listeners, &r->ps, &c))
		join_accepted(r, &c);
}

/* ---- -z and -F ---- */

/* A name look-up must not outlive relay. */
static void
end_dial(struct relay *r, int status)
{
	r->status = status;
	dial_free(r->dial, r->ps.now);
	r->dial = NULL;
	spawn_hurry(&r->kids, r->ps.now);
}

/* Send ${fd} to ssh, as a ProxyCommand with ProxyUseFdpass (ssh_config(5)). */
static int
pass_descriptor(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	/* ssh shares the file status flags.  It expects a blocking socket. */
	if (flags == -1 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) == -1)
		return -1;
	return os_send_fds(STDOUT_FILENO, "", 1, &fd, 1) == 1 ? 0 : -1;
}

/* Return an exit status. */
static int
use_dial(struct dial *d, enum dial_state state, bool fdpass)
{
	char why[ENDPOINT_NAME + 512];
	int fd, status = STATUS_OK;

	if (state == DIAL_FAILED) {
		log_say(fdpass ? LOG_ERROR : LOG_INFO, "%s", dial_explain(d, why, sizeof(why)));
		return fdpass ? dial_status(d) : STATUS_CONNECT;
	}
	fd = dial_take(d);
	if (fdpass && pass_descriptor(fd) == -1) {
		log_say(LOG_ERROR,
		    "cannot send the socket over stdout: %s; -F needs ssh as its parent, with "
		    "ProxyCommand and ProxyUseFdpass yes",
		    strerror(errno));
		status = STATUS_CONNECT;
	}
	close(fd);
	return status;
}

static void
step_dial(struct relay *r)
{
	enum dial_state state = r->dial == NULL ? DIAL_BUSY : dial_step(r->dial, &r->ps);

	if (state != DIAL_BUSY)
		end_dial(r, use_dial(r->dial, state, r->opt.mode == MODE_FDPASS));
}

/* ---- signals and the end of connections ---- */

static void
stop(struct relay *r, int sig)
{
	if (r->dial != NULL)
		end_dial(r, STATUS_SIGNAL + sig);
	command_signal(r->command, r->ps.now);
	close_all(r, options_stdio(&r->opt) ? STATUS_SIGNAL + sig : STATUS_OK);
	spawn_hurry(&r->kids, r->ps.now);
}

static void
take_signals(struct relay *r)
{
	int sig;

	if (pollset_ready(&r->ps, r->signal_slot) == 0)
		return;
	while ((sig = signals_take()) != 0) {
		if (sig == SIGUSR1 && r->tunnel != NULL)
			tunnel_table(r->tunnel, r->ps.now);
		if (sig == SIGUSR1) {
			conn_table(&r->conns, r->ps.now);
		} else if (sig != SIGCHLD) {
			log_say(LOG_INFO, "stopped by signal %d (%s)", sig, strsignal(sig));
			stop(r, sig);
		}
	}
	spawn_reap(&r->kids);
}

static void
sweep(struct relay *r)
{
	size_t n = r->conns.n;
	int status = conn_sweep(&r->conns, &r->ps);

	if (r->conns.n < n)
		listeners_retry(&r->listeners);
	if (options_one_shot(&r->opt) && status != STATUS_OK)
		r->status = status;
	if (r->tunnel != NULL)
		tunnel_flush(r->tunnel, status);
}

/* ---- the tunnel in the loop ---- */

static void
start_forward(struct relay *r, struct forward *f)
{
	f->state = FORWARD_READY;
	if (f->kind == FORWARD_FAR) {
		forward_keep_port(f);
		tunnel_try(r->tunnel, f, false);
	} else if (f->kind == FORWARD_NEAR && (r->opt.wait_s > 0 || r->run != NULL) && !r->ready) {
		if (r->progress.tunnel == NULL)
			log_say(LOG_NOTICE, "waiting for the target");
		tunnel_try(r->tunnel, f, r->run != NULL);
	}
}

/* A forced command starts the far side, which then has no keeper. */
static void
report_forced(const struct relay *r)
{
	const struct options *o = &r->opt;

	if (o->mode == MODE_TUNNEL && o->keep > 0 && r->run == NULL &&
	    !tunnel_bootstrap(r->tunnel)->answered && mux_keeps(tunnel_mux(r->tunnel)) == 0)
		log_say(LOG_NOTICE, "connections end with the line: a forced command on the last "
				    "hop keeps no session");
}

/* The link of a near side came up, for the first time or again. */
static void
link_up(struct relay *r)
{
	struct options *o = &r->opt;
	bool again = tunnel_connects(r->tunnel) > 1;
	struct forward *f;

	progress_show(&r->progress, &r->ps);
	log_say(again ? LOG_NOTICE : LOG_INFO, "%s to %s", again ? "reconnected" : "connected",
	    mux_peer(tunnel_mux(r->tunnel)));
	if (!again)
		report_forced(r);
	if (tunnel_resumed(r->tunnel))
		return;
	if (r->run != NULL && !start_run(r)) /* first: it makes the directory of @/ */
		return;
	if (o->from.kind == ENDPOINT_STDIO)
		join_stdio(r);
	else
		for (f = o->forwards; f < o->forwards + o->n_forwards; f++)
			start_forward(r, f);
}

/*
 * At the first start a refusal ends the tunnel.  After a reconnect the refusal
 * is temporary: the old far relay may still have the port.  With COMMAND, the
 * targets of -L are retried, because COMMAND may not listen yet.
 */
static void
forward_refused(struct relay *r, struct forward *f)
{
	bool waits = r->run != NULL && f->kind == FORWARD_NEAR;
	bool again = f->kind == FORWARD_FAR && tunnel_connects(r->tunnel) > 1;

	if (!waits && !again && !r->ready) {
		close_all(r, f->kind == FORWARD_FAR ? STATUS_LISTEN : STATUS_CONNECT);
		return;
	}
	f->state = FORWARD_RETRY;
	f->retry_at = r->ps.now + (waits ? WAIT_PAUSE : ASK_AGAIN);
}

static void
retry_forward(struct relay *r, struct forward *f)
{
	if (f->kind == FORWARD_NEAR && r->explain_at != 0 && r->ps.now >= r->explain_at) {
		r->explain_at = 0;
		log_say(LOG_NOTICE, "still waiting: %s does not listen on %s", run_name(r->run),
		    f->to_text);
	}
	tunnel_try(r->tunnel, f, true);
}

/* Return true if ${f} is ready. */
static bool
watch_forward(struct relay *r, struct forward *f)
{
	if (f->state == FORWARD_RETRY && r->ps.now >= f->retry_at)
		retry_forward(r, f);
	if (f->state == FORWARD_REFUSED)
		forward_refused(r, f);
	if (f->state == FORWARD_RETRY)
		pollset_until(&r->ps, f->retry_at);
	return f->state == FORWARD_READY;
}

/* With -w and COMMAND, the targets were reached. */
static void
check_targets(struct relay *r)
{
	struct forward *f, *end = r->opt.forwards + r->opt.n_forwards;

	for (f = r->opt.forwards; f < end; f++)
		if (f->kind == FORWARD_NEAR && r->opt.wait_s == 0 && r->run == NULL)
			tunnel_check(r->tunnel, f);
}

static void
watch_forwards(struct relay *r)
{
	struct forward *f, *end = r->opt.forwards + r->opt.n_forwards;
	bool ready = true;

	if (r->opt.from.kind == ENDPOINT_STDIO || r->run_until != 0)
		return;
	for (f = r->opt.forwards; f < end && tunnel_carries(r->tunnel); f++)
		ready = watch_forward(r, f) && ready;
	if (ready && !r->ready && tunnel_carries(r->tunnel) && report_ready(r) == STATUS_OK)
		check_targets(r);
}

/* The link is over.  Show the last output of COMMAND, and then how it ended. */
static void
want_tail(struct relay *r)
{
	enum run_life life = run_life(r->run);

	if (r->drain_until == 0)
		return;
	if (life == RUN_ALIVE && r->ps.now < r->drain_until) {
		pollset_until(&r->ps, r->drain_until);
		run_want(r->run, &r->ps);
		return;
	}
	r->drain_until = 0;
	if (r->run_until != 0 || life == RUN_IDLE)
		return;
	if (life == RUN_ENDED) {
		end_run(r);
		r->status = r->run_status;
	} else if (r->status != STATUS_OK) {
		log_say(LOG_ERROR, "%s ends with the link", run_name(r->run));
	}
}

static void
want_tunnel(struct relay *r)
{
	if (tunnel_state(r->tunnel) == TUNNEL_OVER) {
		want_tail(r);
		return;
	}
	if (r->probe != NULL)
		probe_run_want(r->probe, &r->ps);
	else
		watch_forwards(r);
	watch_run(r);
	run_want(r->run, &r->ps);
	tunnel_want(r->tunnel, &r->ps);
	if (tunnel_state(r->tunnel) == TUNNEL_OVER && r->probe != NULL &&
	    probe_run_next(r->probe, r->ps.now))
		tunnel_want(r->tunnel, &r->ps);
	if (tunnel_state(r->tunnel) != TUNNEL_OVER)
		return;
	listeners_close(&r->listeners);
	command_stop(r->command, r->ps.now);
	r->status = tunnel_status(r->tunnel);
	r->drain_until = r->ps.now + TAIL_MOST;
	want_tail(r);
}

static void
step_tunnel(struct relay *r)
{
	if (tunnel_state(r->tunnel) == TUNNEL_OVER)
		return;
	if (tunnel_step(r->tunnel, &r->ps)) {
		if (r->probe != NULL)
			probe_run_up(r->probe, r->ps.now);
		else if (r->opt.mode != MODE_LINK_FAR)
			link_up(r);
	}
	tunnel_serve(r->tunnel, &r->ps);
}

/*
 * With -W, no connection watches stdout until the link is up.  If ssh reads
 * stdout and is killed, it sends no signal to its ProxyCommand.
 */
static void
want_stdout(struct relay *r)
{
	bool watches = options_one_shot(&r->opt) && tunnel_state(r->tunnel) == TUNNEL_STARTING;

	r->stdout_slot = pollset_add(&r->ps, watches ? STDOUT_FILENO : -1, 0);
}

static void
watch_stdout(struct relay *r)
{
	if ((pollset_ready(&r->ps, r->stdout_slot) & (POLLERR | POLLHUP)) == 0)
		return;
	log_say(LOG_INFO, "exiting: stdout has no reader");
	tunnel_stop(r->tunnel, STATUS_BROKEN);
	spawn_hurry(&r->kids, r->ps.now);
}

/* ---- a turn ---- */

static bool
is_ending(const struct relay *r)
{
	enum tunnel_state state = tunnel_state(r->tunnel);

	if (r->run_until != 0)
		return true;
	if (r->opt.n_forwards > 0)
		return state == TUNNEL_STOPPING || state == TUNNEL_OVER;
	return r->listeners.n == 0;
}

/* -i: exit after idle_s without a connection. */
static void
watch_idle(struct relay *r)
{
	int64_t idle_us = r->opt.idle_s * INT64_C(1000000);

	if (idle_us == 0 || !r->ready || is_ending(r))
		return;
	if (r->conns.n > 0 || r->used_at == 0)
		r->used_at = r->ps.now;
	pollset_until(&r->ps, r->used_at + idle_us);
	if (r->ps.now < r->used_at + idle_us)
		return;
	log_say(LOG_NOTICE, "exiting: no connection for %ld s", r->opt.idle_s);
	close_all(r, STATUS_OK);
}

static bool
is_over(const struct relay *r)
{
	return r->listeners.n == 0 && r->conns.n == 0 && r->kids.first == NULL && r->dial == NULL &&
	       tunnel_state(r->tunnel) == TUNNEL_OVER && r->drain_until == 0;
}

/*
 * After a refused login, Enter at the terminal requests another one.  A read in
 * the background would stop relay (SIGTTIN).
 */
static void
want_enter(struct relay *r)
{
	bool reads = r->tunnel != NULL && tunnel_awaits_login(r->tunnel) && !r->no_terminal &&
		     tcgetpgrp(STDIN_FILENO) == getpgrp();

	r->enter_slot = pollset_add(&r->ps, reads ? STDIN_FILENO : -1, POLLIN);
}

static void
watch_enter(struct relay *r)
{
	char line[256];
	ssize_t n;

	if (pollset_ready(&r->ps, r->enter_slot) == 0)
		return;
	n = read(STDIN_FILENO, line, sizeof(line));
	if (n > 0)
		tunnel_login(r->tunnel, r->ps.now);
	else if (n == 0 || errno != EINTR)
		r->no_terminal = true;
}

/* Collect what this turn waits for. */
static void
want(struct relay *r)
{
	int status;

	pollset_begin(&r->ps);
	watch_idle(r);
	want_tunnel(r); /* before spawn_turn: it may release its command */
	progress_show(&r->progress, &r->ps);
	status = spawn_turn(&r->kids, &r->ps);
	if (options_one_shot(&r->opt) && status != STATUS_OK)
		r->status = status;
	r->signal_slot = pollset_add(&r->ps, r->signal_fd, POLLIN);
	if (r->dial != NULL)
		dial_want(r->dial, &r->ps);
	want_stdout(r);
	want_enter(r);
	command_want(r->command, &r->ps);
	listeners_want(&r->listeners, &r->ps, accepts(r));
	control_want(r->control, &r->ps);
	conn_want(&r->conns, &r->ps);
}

static void
loop(struct relay *r)
{
	while (want(r), !is_over(r)) {
		if (pollset_wait(&r->ps) == -1) {
			log_say(LOG_ERROR, "poll: %s", strerror(errno));
			stop(r, SIGTERM);
			r->status = STATUS_SYSTEM;
		}
		take_signals(r);
		watch_stdout(r);
		watch_enter(r);
		if (control_step(r->control, &r->ps))
			stop(r, SIGTERM);
		step_dial(r);
		accept_connections(r);
		step_tunnel(r);
		run_step(r->run);
		command_step(r->command, &r->ps);
		conn_step(&r->conns, &r->ps);
		sweep(r);
	}
}

int
main(int argc, char *argv[])
{
	static struct relay r;
	struct options *o = &r.opt;

	if (!os_fill_stdio())
		fail_system("cannot open /dev/null");
	options_parse(o, argc, argv);
	if (o->keep == KEEP_JOIN)
		return keeper_join();
	if (o->mode == MODE_CONTROL)
		return ask_relays(o->action, o->name);
	if (o->log_path != NULL && !daemon_open_log(o->log_path))
		return STATUS_SYSTEM;
	if (o->background && !daemon_fork(&r.daemon))
		fail_system("cannot go to the background");
	r.signal_fd = signals_open();
	if (r.signal_fd == -1)
		fail_system("cannot catch signals");
	set_up(&r);
	limit_conns(&r, os_raise_files());
	r.status = start(&r);
	if (r.status == STATUS_OK)
		loop(&r);
	log_live("");
	command_free(r.command);
	log_counts();
	daemon_remove_pid(&r.daemon);
	tunnel_clean(r.tunnel);
	control_close(r.control);
	if (o->mode == MODE_CHECK && r.status == STATUS_OK && ferror(stdout)) {
		log_say(LOG_ERROR, "cannot write the report to stdout");
		return STATUS_SYSTEM;
	}
	return r.status;
}
