/* tunnel/tunnel.c - the life of a link, on either side. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "base/poll.h"
#include "mux/greeting.h"
#include "mux/mux.h"
#include "net/dial.h"
#include "net/endpoint.h"
#include "conn/conn.h"
#include "tunnel/bootstrap.h"
#include "tunnel/channels.h"
#include "tunnel/forward.h"
#include "tunnel/hops.h"
#include "tunnel/keeper.h"
#include "tunnel/probe.h"
#include "tunnel/remote.h"
#include "tunnel/serve.h"
#include "tunnel/transport.h"
#include "relay.h"
#include "tunnel/tunnel.h"

/* In us. */
#define EXPLAIN_AFTER 500000 /* the exit status comes a moment after the end of stdout */
#define REPORT_AFTER 200000  /* from a loss to its message */
#define PAUSE_FIRST 1000000
#define PAUSE_MOST 60000000
#define WANTED_PAUSE 1000000 /* for each retry, while a connection waits */
#define WANTED_MOST 10000000
#define SLEPT 5000000        /* a jump of the time of day */
#define START_MOST 120000000 /* for a reconnect, and for -n */
#define MAGIC_AFTER 10000000 /* from the start of the far relay to its magic */
#define STOP_MOST 10000000   /* for BYE and what comes before it, while bytes move */
#define STOP_SILENT 1000000  /* the same: since the last byte that moved */
#define LATER 5000000        /* added to the limit of a session on the near side */
#define UNUSED_MOST 60000000 /* a session without a channel and without a stream */
#define BANNER_SHOWN 400     /* bytes */

struct tunnel {
	struct tunnel_config config;
	enum tunnel_state state;
	int status;
	struct mux *mux;       /* NULL: TUNNEL_OVER, or TUNNEL_BACKOFF without a session */
	struct keeper *keeper; /* far: keeps a session; NULL: none */
	struct channels *channels;
	bool joins; /* this channel continues the link of the last one */
	struct remotes *remotes;
	struct serve *serve;
	struct probes probes;
	struct bootstrap *bootstrap; /* with hops */
	unsigned connects, retries;  /* retries: pauses since the last connect */
	bool wanted;
	bool refused;  /* the last login was refused: the next one needs a person */
	bool attended; /* a person has requested this login or the next one */
	bool unused;   /* no stream was open when the channel was lost */
	int uploads_logged;
	bool silence_logged;
	int64_t started_at;
	int64_t reached_at; /* the far shell answered; 0: not yet */
	int64_t up_at;
	int64_t clock_offset; /* the time of day minus pollset_clock, which stops in a sleep */

	/* Deadlines. */
	int64_t explain_at; /* TUNNEL_FAILED: log the cause, even without an exit status */
	int64_t magic_at;   /* TUNNEL_STARTING: for the far relay's magic; 0: none */
	int64_t retry_at;   /* near, TUNNEL_BACKOFF: start again */
	int64_t expires_at; /* TUNNEL_BACKOFF with a session: its end */
	int64_t lost_at;    /* the same: when it lost its channel */
	int64_t stop_at;    /* TUNNEL_STOPPING: end at last */
	int64_t left_us;    /* the same: how long the far side lives without BYE; 0: it ends */
	int64_t report_at;  /* log a loss; 0: none */
	char loss[2304];    /* why the link was lost, or could not be made */
};

/* ---- names and messages ---- */

const char *
tunnel_name(const struct tunnel *t)
{
	if (t->config.hops != NULL)
		return hops_last(t->config.hops);
	return t->mux != NULL ? mux_peer(t->mux) : "";
}

const char *
tunnel_banner(struct tunnel *t, size_t *n)
{
	char *banner = mux_banner(t->mux, channels_first_slot(t->channels), n);
	size_t i;

	if (banner == NULL)
		return "";
	for (i = 0; i < *n; i++)
		if (banner[i] == '\0')
			banner[i] = '?';
	*n = bootstrap_strip(banner);
	return banner;
}

/* Write the end of the banner in one line into ${text}.  False: it is empty. */
static bool
end_of_banner(struct tunnel *t, char text[BANNER_SHOWN + 1])
{
	size_t n, first, i;
	const char *banner = tunnel_banner(t, &n);

	while (n > 0 && (banner[n - 1] == '\n' || banner[n - 1] == '\r'))
		n--;
	first = n > BANNER_SHOWN ? n - BANNER_SHOWN : 0;
	for (i = first; i < n; i++)
		text[i - first] = banner[i] == '\n' ? '|' : banner[i];
	text[i - first] = '\0';
	return n > 0;
}

static void
log_banner(struct tunnel *t)
{
	char text[BANNER_SHOWN + 1];

	if (end_of_banner(t, text))
		log_say(LOG_ERROR, "its output before that: %s", text);
}

/* The command of -m has ended, if ${ended} is not negative, without a link. */
static void
explain_command(struct tunnel *t, int ended)
{
	char name[ENDPOINT_NAME], why[ENDPOINT_NAME + 128];

	if (ended == 127)
		snprintf(why, sizeof(why),
		    "the far command was not found; is relay there, and in the PATH of a remote "
		    "command?");
	else if (ended == 255)
		snprintf(why, sizeof(why),
		    "%s could not connect, or lost the connection; its own message has the cause",
		    endpoint_name(&t->config.target->to, name, sizeof(name)));
	else if (ended >= 0)
		snprintf(why, sizeof(why),
		    "the command ended with status %d and without a sign of a relay; it must end "
		    "in relay -m -",
		    ended);
	else
		snprintf(why, sizeof(why),
		    "the command closed its stdout without a sign of a relay; it must end in "
		    "relay -m -");
	log_say(LOG_ERROR, "no link: %s", mux_code(t->mux) != MUX_END ? mux_why(t->mux) : why);
	log_banner(t);
}

/* The same for hops; the command printed no message. */
static void
explain_end(struct tunnel *t, int ended)
{
	const char *program = t->config.hops->argv[0];
	const struct bootstrap_facts *facts = bootstrap_facts(t->bootstrap);
	char path[HOPS_PATH], output[BANNER_SHOWN + 1], after[BANNER_SHOWN + 32] = "";

	hops_path(t->config.hops, path, sizeof(path));
	if (end_of_banner(t, output))
		snprintf(after, sizeof(after), "%s after this output: \"%s\"",
		    facts->answered ? "," : "", output);
	if (facts->answered)
		snprintf(t->loss, sizeof(t->loss),
		    "%s was reached, but %s there ended before the link was up%s; run it there "
		    "with -V to see the cause",
		    path, *facts->path != '\0' ? facts->path : "sh", after);
	else if (ended == 127)
		snprintf(t->loss, sizeof(t->loss),
		    "cannot reach %s: a command was not found there (status 127); " HOPS_NOT_FOUND,
		    path);
	else if (ended >= 0)
		snprintf(t->loss, sizeof(t->loss),
		    "cannot reach %s: %s ended with status %d%s; does the login shell there run "
		    "commands, as in ssh HOST true?",
		    path, program, ended, after);
	else
		snprintf(t->loss, sizeof(t->loss),
		    "cannot reach %s: %s closed its stdout without a message", path, program);
}

/*
 * After the first connect, a failed start is retried, so it is logged with -v
 * only.  A message of the relay that -J runs may have been logged already.
 */
static void
explain_hops(struct tunnel *t, int ended)
{
	struct transport *first = channels_first(t->channels);
	const char *line = transport_last_line(first);
	bool answered = mux_code(t->mux) != MUX_END, quiet = t->connects > 0 || t->config.probing;
	bool there = answered && ended != TRANSPORT_NEVER_RAN, own = false;

	if (answered)
		snprintf(t->loss, sizeof(t->loss), "%s", mux_why(t->mux));
	else if (*line != '\0')
		own =
		    hops_explain(t->config.hops, line, t->config.probing, t->loss, sizeof(t->loss));
	else
		explain_end(t, ended);
	if (!answered && !transport_drop_line(first) && own)
		quiet = true;
	log_say(quiet ? LOG_INFO : LOG_ERROR, "%s%s%s", there ? tunnel_name(t) : "",
	    there ? ": " : "", t->loss);
	if (t->connects == 0 && (answered || *line != '\0'))
		log_banner(t);
}

/* The near side ends a link with one of these two codes. */
static bool
is_normal_end(const struct tunnel *t)
{
	return t->config.role == MUX_FAR &&
	       (mux_code(t->mux) == MUX_END || mux_code(t->mux) == MUX_RESET);
}

static void
log_end(struct tunnel *t)
{
	snprintf(t->loss, sizeof(t->loss), "%s", mux_why(t->mux));
	log_say(is_normal_end(t) ? LOG_INFO : LOG_ERROR, "the link%s%s has ended: %s",
	    t->connects > 0 ? " to " : "", t->connects > 0 ? mux_peer(t->mux) : "", t->loss);
}

/* Ctrl-C ends ssh too, often before relay.  REPORT_AFTER leaves time for the
 * signal, which cancels the report. */
static void
report_loss(struct tunnel *t, struct pollset *ps)
{
	if (t->report_at == 0)
		return;
	pollset_until(ps, t->report_at);
	if (ps->now < t->report_at)
		return;
	t->report_at = 0;
	log_say(LOG_ERROR, "the link to %s has ended: %s; reconnecting", tunnel_name(t), t->loss);
}

/* ---- start ---- */

struct tunnel *
tunnel_new(const struct tunnel_config *config)
{
	struct tunnel *t = calloc(1, sizeof(*t));

	if (t == NULL)
		return NULL;
	t->config = *config;
	t->remotes = remote_new(config->conns, config->target, config->any_uid);
	t->serve = serve_new(
	    config->conns, t->remotes, config->target, config->only_target, config->command);
	t->channels = channels_new(
	    config->self, config->join_options, config->target->kids, config->channels);
	if (config->hops != NULL)
		t->bootstrap = bootstrap_new();
	if (t->remotes != NULL && t->serve != NULL && t->channels != NULL &&
	    (config->hops == NULL || t->bootstrap != NULL))
		return t;
	bootstrap_free(t->bootstrap);
	channels_free(t->channels, 0);
	free(t->serve);
	free(t->remotes);
	free(t);
	return NULL;
}

/* The hops of this login, which a person may watch, or of the next one. */
static const struct hops *
login_hops(const struct tunnel *t)
{
	bool watched = t->connects == 0 || t->attended;

	return watched || t->config.unattended == NULL ? t->config.hops : t->config.unattended;
}

/*
 * Start the first channel, if it is known whether its ssh can be a master.
 * Return an exit status; a failure was logged.
 */
static int
start_near(struct tunnel *t, int64_t now)
{
	const struct tunnel_config *c = &t->config;
	unsigned slot = channels_first_slot(t->channels);
	struct transport *transport = NULL;
	bool prepared = true;

	if (c->hops != NULL) {
		if (!channels_ask(t->channels, c->hops, now))
			return STATUS_OK;
		if (c->unattended != NULL)
			endpoint_command(
			    &c->target->to, channels_hops(t->channels, login_hops(t))->argv);
		prepared = bootstrap_start(t->bootstrap, c->self, os_image(c->self), c->far_path,
		    t->joins ? c->join_options : c->far_options);
	}
	if (prepared)
		transport = transport_near(
		    t->mux, slot, c->target, t->bootstrap, c->hops, t->connects > 0, now);
	channels_set(t->channels, slot, transport);
	if (transport != NULL)
		return STATUS_OK;
	log_say(LOG_ERROR, "cannot start the command: no memory or descriptors; raise ulimit -n");
	return STATUS_SYSTEM;
}

/* Make the mux of a new link.  Return false if the memory runs out. */
static bool
new_link(struct tunnel *t, int64_t now)
{
	char host[ENDPOINT_HOST] = "?";

	gethostname(host, sizeof(host) - 1);
	t->mux = mux_new(t->config.role, MUX_MEMORY, host, now);
	if (t->mux == NULL)
		return false;
	if (t->config.hops != NULL)
		mux_wait_peer_first(t->mux);
	if (t->keeper != NULL)
		keeper_keep(t->keeper, t->mux);
	else if (t->config.hops != NULL && t->config.keep > 0 && !t->config.probing)
		mux_keep(t->mux, 0, NULL);
	return true;
}

static int
start(struct tunnel *t, int64_t now)
{
	unsigned slot = 0;

	t->joins = t->mux != NULL;
	t->state = TUNNEL_STARTING;
	t->started_at = now;
	t->reached_at = t->magic_at = 0;
	t->wanted = false;
	if (t->joins) {
		slot = (unsigned)mux_down_slot(t->mux);
		mux_attach(t->mux, slot, false, now);
	} else if (!new_link(t, now)) {
		log_say(LOG_ERROR, "cannot start a link: no memory");
		return STATUS_SYSTEM;
	}
	channels_begin(t->channels, t->mux, slot);
	if (t->config.role == MUX_NEAR)
		return start_near(t, now);
	channels_set(t->channels, slot, transport_far(t->mux));
	return channels_has(t->channels, slot) ? STATUS_OK : STATUS_LINK;
}

int
tunnel_start(struct tunnel *t, int64_t now)
{
	if (t->config.role == MUX_FAR)
		t->keeper = keeper_start(t->config.keep);
	t->status = start(t, now);
	if (t->status == STATUS_OK)
		return STATUS_OK;
	keeper_free(t->keeper);
	t->keeper = NULL;
	t->state = TUNNEL_OVER;
	return t->status;
}

bool
tunnel_set_hops(struct tunnel *t, const struct hops *hops)
{
	bootstrap_free(t->bootstrap);
	t->bootstrap = bootstrap_new();
	t->config.hops = hops;
	endpoint_command(&t->config.target->to, hops->argv);
	t->connects = 0;
	t->uploads_logged = 0;
	t->silence_logged = false;
	t->status = STATUS_OK;
	if (t->bootstrap == NULL) {
		log_say(LOG_ERROR, "cannot start a link: no memory");
		t->status = STATUS_SYSTEM;
	}
	return t->bootstrap != NULL;
}

static void
come_up(struct tunnel *t, int64_t now)
{
	t->state = TUNNEL_UP;
	t->connects++;
	t->retries = 0;
	t->expires_at = 0;
	t->up_at = now;
	t->config.conns->mux = t->mux;
	if (channels_first(t->channels) != NULL)
		transport_set_quiet(channels_first(t->channels), false);
	/* Messages contain the host name that the user wrote. */
	if (t->config.hops != NULL && !t->config.probing && !hops_is_command(tunnel_name(t)))
		mux_name_peer(t->mux, tunnel_name(t));
}

/* ---- what a start with hops waits for ---- */

/*
 * Only log: ssh may wait for a password, and a host may be slow.  A hop that is
 * a command may buffer its output.  If the far shell has answered, the program
 * named relay there may be a different one that ignores -V.
 */
static void
watch_silence(struct tunnel *t, struct pollset *ps)
{
	bool reached = t->reached_at != 0;
	int64_t silence_at = (reached ? t->reached_at : t->started_at) + MAGIC_AFTER;

	if (t->connects > 0 || t->silence_logged || (!reached && !hops_any_command(t->config.hops)))
		return;
	pollset_until(ps, silence_at);
	if (ps->now < silence_at)
		return;
	t->silence_logged = true;
	if (reached)
		log_say(LOG_NOTICE,
		    "%s was reached and does not answer any more: is another program there named "
		    "relay? -x PATH names the right one",
		    tunnel_name(t));
	else
		log_say(
		    LOG_NOTICE, "no answer yet: does a hop buffer its output (srun without -u)?");
}

static void
log_upload(struct tunnel *t)
{
	const struct bootstrap_facts *facts = bootstrap_facts(t->bootstrap);
	bool shown =
	    t->connects > 0 || (!t->config.one_shot && !t->config.probing && log_on_terminal());

	if (shown || t->uploads_logged >= facts->uploads)
		return;
	t->uploads_logged = facts->uploads;
	log_say(LOG_NOTICE, "copying relay (%zu KiB) to %s%s", (facts->upload_size + 1023) / 1024,
	    tunnel_name(t),
	    facts->upload_is_dynamic
		? "; it is not static: it needs a C library there that is not older than here"
		: "");
}

/*
 * INT64_MAX: no limit.  A person may be answering the questions of ssh, for which
 * each sshd has a limit of its own.
 */
static int64_t
start_until(const struct tunnel *t)
{
	if (t->config.probing || (t->connects > 0 && !t->attended))
		return t->started_at + START_MOST;
	if (t->connects == 0 || t->reached_at == 0)
		return INT64_MAX;
	return t->reached_at + START_MOST;
}

static void
watch_start(struct tunnel *t, struct pollset *ps)
{
	const struct bootstrap_facts *facts = bootstrap_facts(t->bootstrap);
	unsigned slot = channels_first_slot(t->channels);
	const char *why = "no answer within two minutes";
	int64_t give_up_at = start_until(t);

	if (facts->answered && t->reached_at == 0) {
		t->reached_at = ps->now;
		log_say(LOG_INFO, "reached %s", tunnel_name(t));
	}
	if (facts->state == BOOTSTRAP_ASKING) {
		watch_silence(t, ps);
	} else if (facts->state == BOOTSTRAP_UPLOADING) {
		log_upload(t);
	} else if (mux_slot_state(t->mux, slot) == MUX_SLOT_STARTING) {
		if (t->magic_at == 0)
			t->magic_at = ps->now + MAGIC_AFTER;
		if (t->magic_at < give_up_at) {
			give_up_at = t->magic_at;
			why = "the relay there was started and does not answer: does a hop buffer "
			      "its output until a line is complete (srun without -u)?";
		}
	}
	if (mux_state(t->mux) == MUX_DEAD)
		return;
	if (ps->now >= give_up_at)
		mux_lost(t->mux, slot, MUX_TIMEOUT, why);
	else
		pollset_until(ps, give_up_at);
}

/* ---- end: one function for each transition ---- */

/* Does the link wait for another channel? */
static bool
waits(const struct tunnel *t)
{
	return t->mux != NULL && mux_state(t->mux) == MUX_DOWN;
}

static void
drop_channel(struct tunnel *t, unsigned slot, const struct pollset *ps)
{
	channels_drop(t->channels, slot, ps->now);
	if (t->keeper != NULL)
		keeper_release(
		    t->keeper, slot, mux_state(t->mux) != MUX_DEAD ? STATUS_OK : t->status);
}

static void
drop_channels(struct tunnel *t, const struct pollset *ps)
{
	unsigned slot;

	t->config.conns->mux = NULL;
	channels_flush(t->channels, ps->now);
	for (slot = 0; slot < MUX_SLOTS; slot++)
		drop_channel(t, slot, ps);
	bootstrap_release(t->bootstrap);
}

/* Close the channels that have ended.  Others carry the link. */
static void
drop_lost_channels(struct tunnel *t, const struct pollset *ps)
{
	int slot;

	while ((slot = channels_lost(t->channels)) != -1)
		drop_channel(t, (unsigned)slot, ps);
}

/*
 * Free the link.  Its connections stay until they have written what they hold.
 */
static void
free_link(struct tunnel *t, const struct pollset *ps)
{
	struct conns *conns = t->config.conns;

	conns->mux = NULL;
	if (t->mux == NULL)
		return;
	if (mux_state(t->mux) == MUX_DOWN)
		mux_end(t->mux, MUX_RESET, t->loss);
	/* A BYE with MUX_END follows the delivery of all bytes.  After any
	 * other BYE, bytes may be missing. */
	if (mux_ended_by_peer(t->mux) && t->config.role == MUX_FAR && mux_code(t->mux) != MUX_END)
		conn_stop(conns, STATUS_BROKEN, ps->now);
	conn_take_dirty(conns, t->mux, ps->now);
	conns->behind = true;
	remote_step(t->remotes, ps);
	probe_step(&t->probes);
	drop_channels(t, ps);
	mux_free(t->mux);
	t->mux = NULL;
}

static void
be_over(struct tunnel *t, int status, const struct pollset *ps)
{
	t->status = status;
	channels_stop(t->channels, ps->now);
	free_link(t, ps);
	keeper_free(t->keeper);
	t->keeper = NULL;
	t->state = TUNNEL_OVER;
}

/* Has the channel ended? */
static bool
is_lost(const struct tunnel *t)
{
	return waits(t) || mux_state(t->mux) == MUX_DEAD;
}

static bool
has_streams(const struct tunnel *t)
{
	struct mux_stats s;

	mux_stats(t->mux, &s);
	return s.streams > 0;
}

/* How long the far side lives without a channel: both sides have a limit. */
static int64_t
keeps_us(const struct tunnel *t)
{
	int64_t theirs = mux_keeps(t->mux);
	int64_t keep = (theirs < t->config.keep ? theirs : t->config.keep) * 1000000;

	return has_streams(t) || keep < UNUSED_MOST ? keep : UNUSED_MOST;
}

/* Only the first loss in an outage sets the end of the session. */
static void
await_channel(struct tunnel *t, const struct pollset *ps)
{
	int64_t keep = keeps_us(t);

	t->unused = !has_streams(t);
	if (t->config.role == MUX_NEAR)
		keep += t->unused ? -LATER : LATER;
	drop_channels(t, ps);
	if (t->expires_at != 0)
		return;
	t->lost_at = ps->now;
	t->expires_at = ps->now + keep;
}

static void
back_off(struct tunnel *t, const struct pollset *ps)
{
	int64_t pause = PAUSE_FIRST;
	unsigned i;

	if (waits(t))
		await_channel(t, ps);
	else
		free_link(t, ps);
	for (i = 1; i < t->retries && pause < PAUSE_MOST; i++)
		pause *= 2;
	if (pause > PAUSE_MOST)
		pause = PAUSE_MOST;
	/* Many relays that lost the same host must not reconnect at once.  Only
	 * the last digits of the clock differ if they lost it together. */
	pause -= pollset_clock() % (pause / 2000) * 1000;
	t->retries++;
	t->attended = false;
	t->state = TUNNEL_BACKOFF;
	t->retry_at = ps->now + pause;
}

/* Does the link end with its session? */
static bool
needs_session(const struct tunnel *t)
{
	return t->config.one_shot || t->config.runs_command;
}

static bool
reconnects(const struct tunnel *t)
{
	return t->config.hops != NULL && t->connects > 0 && !t->config.probing &&
	       (!needs_session(t) || waits(t));
}

/*
 * After a refused login, the next one waits for a person.  Browsers reconnect
 * by themselves, and would cause logins until the account is locked.  Return
 * true for -W: it has no terminal and no control socket, so it ends.
 */
static bool
refused_for_good(struct tunnel *t)
{
	if (!t->refused)
		return false;
	if (t->config.one_shot)
		log_say(LOG_ERROR, "%s", t->loss);
	else
		log_say(LOG_NOTICE,
		    "%s; for another login press Enter at the terminal of relay, or run "
		    "relay -O check %ld",
		    t->loss, (long)getpid());
	return t->config.one_shot;
}

static void
explain_start(struct tunnel *t, struct pollset *ps)
{
	int ended = transport_exit_status(channels_first(t->channels));
	bool full = mux_code(t->mux) == MUX_NO_ROOM;

	pollset_until(ps, t->explain_at);
	if (ps->now < t->explain_at && ended == -1)
		return;
	if (t->config.hops != NULL)
		explain_hops(t, ended);
	else
		explain_command(t, ended);
	/* After the answer, the line can be of a shell's start-up file. */
	t->refused = t->config.hops != NULL && !bootstrap_facts(t->bootstrap)->answered &&
		     hops_is_refusal(transport_last_line(channels_first(t->channels)));
	if (!reconnects(t) || refused_for_good(t)) {
		be_over(t, t->refused ? STATUS_REFUSED : full ? STATUS_SYSTEM : STATUS_LINK, ps);
		return;
	}
	back_off(t, ps);
}

/* The session has ended: start a new one at once. */
static void
lose_session(struct tunnel *t, const struct pollset *ps)
{
	if (t->config.runs_command && mux_code(t->mux) == MUX_GONE)
		log_say(LOG_NOTICE,
		    "%s has no session of this tunnel: it has ended, or the name leads to another "
		    "host now; on the old host the command then runs for at most %lld s more",
		    tunnel_name(t), (long long)((t->expires_at - ps->now) / 1000000));
	if (needs_session(t)) {
		log_end(t);
		be_over(t, STATUS_LINK, ps);
		return;
	}
	log_say(t->unused ? LOG_INFO : LOG_NOTICE,
	    "the session on %s has ended: %s; its connections are reset", tunnel_name(t),
	    mux_why(t->mux));
	t->retries = 0;
	back_off(t, ps);
	t->retry_at = ps->now;
}

/* Has the only connection ended? */
static bool
is_done(const struct tunnel *t)
{
	return t->config.one_shot && t->config.conns->n == 0;
}

static void
lose_link(struct tunnel *t, const struct pollset *ps)
{
	if (is_done(t) && t->status == STATUS_OK) { /* both in one turn */
		be_over(t, STATUS_OK, ps);
		return;
	}
	if (t->config.role == MUX_FAR && waits(t)) {
		log_say(LOG_INFO, "the channel was lost: %s", mux_why(t->mux));
		await_channel(t, ps);
		t->state = TUNNEL_BACKOFF;
		return;
	}
	if (reconnects(t)) {
		t->report_at = ps->now + REPORT_AFTER;
		snprintf(t->loss, sizeof(t->loss), "%s", mux_why(t->mux));
		back_off(t, ps);
		return;
	}
	log_end(t);
	be_over(t, is_normal_end(t) ? t->status : STATUS_LINK, ps);
}

/* A far side that cannot be reached ends at its own limit. */
static void
log_left(const struct tunnel *t, const char *why)
{
	log_say(LOG_NOTICE, "%s %s: relay there ends by itself after %lld s", tunnel_name(t), why,
	    (long long)((t->left_us + 999999) / 1000000));
}

/* Send BYE.  A far side that keeps a session closes its channels after it. */
static void
begin_stop(struct tunnel *t, uint16_t code, const char *why)
{
	bool can_live = t->mux != NULL && mux_state(t->mux) != MUX_DEAD;

	t->left_us = can_live && t->config.role == MUX_NEAR ? keeps_us(t) : 0;
	if (t->left_us > 0 && t->expires_at != 0) { /* it has no channel since lost_at */
		t->left_us -= pollset_clock() - t->lost_at;
		if (t->left_us < 1)
			t->left_us = 1; /* the far side may have noticed it later */
	}
	if (t->left_us > 0 && mux_state(t->mux) != MUX_UP) {
		log_left(t, "is not reachable now");
		t->left_us = 0;
	}
	if (t->mux != NULL)
		mux_bye(t->mux, code, why);
	t->state = TUNNEL_STOPPING;
	t->stop_at = pollset_clock() + STOP_MOST;
}

void
tunnel_stop(struct tunnel *t, int status)
{
	if (t == NULL || t->state == TUNNEL_OVER)
		return;
	t->status = status;
	t->report_at = 0;
	if (t->state != TUNNEL_STOPPING) {
		begin_stop(t, MUX_RESET, "its relay was stopped by a signal");
		return;
	}
	/* One stop can come as two signals: a terminal and its shell both send SIGHUP. */
	if (pollset_clock() > t->stop_at - STOP_MOST + STOP_SILENT)
		t->stop_at = 0;
}

/*
 * Without a session, the far side ends when the channel is closed.  With one, it
 * needs BYE, which ssh can hold behind megabytes.
 */
static void
step_stop(struct tunnel *t, struct pollset *ps)
{
	int64_t from = t->stop_at - STOP_MOST, moved = channels_moved_at(t->channels), until;
	bool done = t->left_us > 0 ? channels_closed(t->channels) : channels_drained(t->channels);

	if (t->left_us > 0 && moved > from)
		from = moved;
	until = from + STOP_SILENT < t->stop_at ? from + STOP_SILENT : t->stop_at;
	if (!done && ps->now < until) {
		pollset_until(ps, until);
		return;
	}
	if (!done && t->left_us > 0)
		log_left(t, "does not answer");
	be_over(t, t->status, ps);
}

void
tunnel_clean(struct tunnel *t)
{
	if (t != NULL)
		channels_free(t->channels, pollset_clock());
}

/* ---- a turn ---- */

/*
 * pollset_clock may stop in a sleep of this host; the time of day does not.  A
 * TCP connection seldom survives a sleep.  The network may be different after
 * it, so the next start is due at once.
 */
static void
watch_sleep(struct tunnel *t, const struct pollset *ps)
{
	int64_t before = t->clock_offset;
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	t->clock_offset = (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000 - ps->now;
	if (before == 0 || t->clock_offset - before <= SLEPT)
		return;
	if (t->state == TUNNEL_UP)
		mux_woke(t->mux, ps->now);
	t->retries = 0;
	t->retry_at = ps->now;
}

int64_t
tunnel_next_start(const struct tunnel *t)
{
	int64_t pause = WANTED_PAUSE * (int64_t)t->retries;
	int64_t wanted_at = t->started_at + (pause < WANTED_MOST ? pause : WANTED_MOST);

	if (t->refused)
		return INT64_MAX;
	return t->wanted && wanted_at < t->retry_at ? wanted_at : t->retry_at;
}

/* TUNNEL_BACKOFF, with a session. */
static void
watch_session(struct tunnel *t, struct pollset *ps)
{
	if (ps->now < t->expires_at) {
		pollset_until(ps, t->expires_at);
		if (is_done(t))
			be_over(t, t->status, ps);
		return;
	}
	log_say(has_streams(t) ? LOG_NOTICE : LOG_INFO,
	    "the session with %s has expired (-k): its connections are reset", tunnel_name(t));
	t->expires_at = 0;
	if (t->config.role == MUX_FAR || needs_session(t))
		be_over(t, STATUS_LINK, ps);
	else
		free_link(t, ps);
}

static void
retry(struct tunnel *t, struct pollset *ps)
{
	if (t->mux != NULL)
		watch_session(t, ps);
	if (t->state == TUNNEL_OVER || t->config.role == MUX_FAR)
		return;
	if (ps->now >= tunnel_next_start(t) && tunnel_start(t, ps->now) != STATUS_OK)
		back_off(t, ps);
	if (t->state == TUNNEL_BACKOFF && !t->refused)
		pollset_until(ps, tunnel_next_start(t));
}

static void
step_start(struct tunnel *t, struct pollset *ps)
{
	if (t->config.hops != NULL && channels_first(t->channels) != NULL) {
		watch_start(t, ps);
	} else if (t->config.hops != NULL && start_near(t, ps->now) != STATUS_OK) {
		be_over(t, STATUS_SYSTEM, ps);
		return;
	}
	if (t->joins && mux_state(t->mux) == MUX_DEAD) {
		lose_session(t, ps);
	} else if (is_lost(t) && t->config.role == MUX_FAR) {
		lose_link(t, ps);
	} else if (is_lost(t)) {
		t->state = TUNNEL_FAILED;
		t->explain_at = ps->now + EXPLAIN_AFTER;
	}
}

static void
step_up(struct tunnel *t, struct pollset *ps)
{
	if (is_lost(t)) {
		lose_link(t, ps);
		return;
	}
	drop_lost_channels(t, ps);
	if (t->config.hops != NULL)
		channels_grow(t->channels, bootstrap_facts(t->bootstrap)->path, ps);
}

/* Make the transition that is due, or set the deadline of the next one. */
static void
step_state(struct tunnel *t, struct pollset *ps)
{
	switch (t->state) {
	case TUNNEL_OVER:
		break;
	case TUNNEL_STARTING:
		step_start(t, ps);
		break;
	case TUNNEL_FAILED:
		explain_start(t, ps);
		break;
	case TUNNEL_UP:
		step_up(t, ps);
		break;
	case TUNNEL_STOPPING:
		step_stop(t, ps);
		break;
	case TUNNEL_BACKOFF:
		retry(t, ps);
		break;
	}
}

void
tunnel_want(struct tunnel *t, struct pollset *ps)
{
	enum tunnel_state before;

	watch_sleep(t, ps);
	/* Repeat until the state stays: the next turn may be much later. */
	do {
		before = t->state;
		step_state(t, ps);
	} while (t->state != before);
	report_loss(t, ps);
	if (t->mux == NULL)
		return;
	if (t->state != TUNNEL_FAILED)
		channels_want(t->channels, ps);
	if (mux_state(t->mux) == MUX_DEAD)
		return;
	conn_take_dirty(t->config.conns, t->mux, ps->now);
	remote_want(t->remotes, ps);
	if (t->keeper != NULL)
		keeper_want(t->keeper, ps);
}

/* The slot that ${c} claims.  -1: the claim is refused. */
static int
accept_claim(const struct tunnel *t, const struct keeper_claim *c, int64_t now)
{
	static struct greeting g;
	int slot = -1;

	greeting_start(&g, true);
	greeting_feed(&g, c->greeting, c->n);
	if (g.state == GREETING_DONE)
		slot = mux_accept_slot(t->mux, &g.session, true, now);
	greeting_free(&g);
	return slot;
}

/* Another process hands over a channel, which replaces that of its slot. */
static void
take_claim(struct tunnel *t, struct keeper_claim *c, const struct pollset *ps)
{
	int claimed = accept_claim(t, c, ps->now);
	unsigned slot = (unsigned)claimed;
	bool first;

	if (claimed == -1) {
		keeper_refuse(c);
		return;
	}
	first = mux_state(t->mux) != MUX_UP;
	drop_channel(t, slot, ps);
	if (first) {
		drop_lost_channels(t, ps);
		channels_begin(t->channels, t->mux, slot);
		t->expires_at = 0;
		t->state = TUNNEL_STARTING;
	}
	keeper_accept(t->keeper, slot, c, first);
	channels_set(t->channels, slot, transport_fds(t->mux, slot, c->fd[0], c->fd[1]));
	mux_feed(t->mux, slot, c->greeting, c->n, ps->now);
	if (!channels_has(t->channels, slot))
		drop_channel(t, slot, ps); /* no memory: release its process */
}

/* relay -n asks for the state of the session, or for its end. */
static void
answer(struct tunnel *t, struct keeper_claim *c, const struct pollset *ps)
{
	int64_t lost = (ps->now - t->lost_at) / 1000000;
	bool waiting = t->state == TUNNEL_BACKOFF;
	char text[256], state[128] = "";

	if (waiting && c->end_after >= 0 && lost >= c->end_after) {
		t->expires_at = ps->now;
		snprintf(state, sizeof(state), ", now ended");
	} else if (waiting) {
		snprintf(state, sizeof(state), ", without a line for %lld s, ends in %lld s",
		    (long long)lost, (long long)(t->expires_at - ps->now) / 1000000);
	}
	snprintf(text, sizeof(text), "from %.100s, %zu connections%s", tunnel_name(t),
	    t->config.conns->n, state);
	keeper_answer(t->keeper, c, text);
}

/*
 * A waiting process can end because its channel has ended.  What is left in the
 * channel, such as BYE, is read first.
 */
static void
step_keeper(struct tunnel *t, const struct pollset *ps)
{
	struct keeper_claim c;
	unsigned slot;

	for (slot = 0; slot < MUX_SLOTS; slot++)
		if (keeper_lost(t->keeper, slot, ps) && !channels_readable(t->channels, slot, ps)) {
			mux_lost(t->mux, slot, MUX_RESET, "the process of the channel has ended");
			drop_channel(t, slot, ps);
		}
	if (!keeper_take(t->keeper, ps, &c))
		return;
	if (c.is_question)
		answer(t, &c, ps);
	else
		take_claim(t, &c, ps);
}

bool
tunnel_step(struct tunnel *t, const struct pollset *ps)
{
	if (t->mux == NULL || t->state == TUNNEL_FAILED)
		return false;
	channels_step(t->channels, ps);
	if (t->keeper != NULL && mux_state(t->mux) != MUX_DEAD)
		step_keeper(t, ps);
	if (t->state != TUNNEL_STARTING || mux_state(t->mux) != MUX_UP)
		return false;
	come_up(t, ps->now);
	return true;
}

void
tunnel_serve(struct tunnel *t, const struct pollset *ps)
{
	if (t->mux == NULL)
		return;
	serve_streams(t->serve, t->mux, ps->now);
	conn_take_dirty(t->config.conns, t->mux, ps->now);
	remote_step(t->remotes, ps);
	probe_step(&t->probes);
}

void
tunnel_flush(struct tunnel *t, int status)
{
	if (t->mux == NULL)
		return;
	if (t->config.one_shot && status != STATUS_OK && t->state != TUNNEL_STOPPING)
		t->status = status;
	channels_flush(t->channels, pollset_clock());
	/* If bytes were given up, MUX_RESET makes the far side give them up too. */
	if (is_done(t) && tunnel_carries(t))
		begin_stop(t, t->config.conns->gave_up ? MUX_RESET : MUX_END, "done");
}

/* ---- for callers ---- */

bool
tunnel_can_ask(const struct tunnel *t)
{
	return hops_can_ask(login_hops(t));
}

size_t
tunnel_copied(const struct tunnel *t)
{
	const struct transport *first = channels_first(t->channels);
	size_t size = bootstrap_facts(t->bootstrap)->upload_size, left;
	const unsigned char *p;

	if (first == NULL)
		return 0;
	left = bootstrap_output(t->bootstrap, &p) + transport_unsent(first);
	return left > size ? 0 : size - left;
}

void
tunnel_want_up(struct tunnel *t)
{
	t->wanted = true;
}

bool
tunnel_awaits_login(const struct tunnel *t)
{
	return t->state == TUNNEL_BACKOFF && t->refused;
}

void
tunnel_login(struct tunnel *t, int64_t now)
{
	if (!tunnel_awaits_login(t))
		return;
	t->refused = false;
	t->attended = true;
	t->retries = 0;
	t->retry_at = now;
}

bool
tunnel_wanted(const struct tunnel *t)
{
	return t->wanted;
}

void
tunnel_try(struct tunnel *t, struct forward *f, bool quiet)
{
	if (f->kind == FORWARD_FAR)
		remote_ask(t->remotes, t->mux, f);
	else
		probe_target(&t->probes, t->mux, f, quiet);
}

void
tunnel_check(struct tunnel *t, struct forward *f)
{
	probe_check(&t->probes, t->mux, f);
}

enum tunnel_state
tunnel_state(const struct tunnel *t)
{
	return t == NULL ? TUNNEL_OVER : t->state;
}

bool
tunnel_carries(const struct tunnel *t)
{
	return t->state == TUNNEL_UP && mux_state(t->mux) == MUX_UP;
}

int
tunnel_status(const struct tunnel *t)
{
	return t->status;
}

unsigned
tunnel_connects(const struct tunnel *t)
{
	return t->connects;
}

bool
tunnel_resumed(const struct tunnel *t)
{
	return t->joins;
}

const struct bootstrap_facts *
tunnel_bootstrap(const struct tunnel *t)
{
	return bootstrap_facts(t->bootstrap);
}

const char *
tunnel_loss(const struct tunnel *t)
{
	return t->loss;
}

struct mux *
tunnel_mux(const struct tunnel *t)
{
	return t->mux;
}

bool
tunnel_channel(const struct tunnel *t, unsigned nth, char *dst, size_t size)
{
	return t->state == TUNNEL_UP && channels_describe(t->channels, nth, dst, size);
}

static void
log_traffic(const struct tunnel *t, int64_t now)
{
	int64_t up = (now - t->up_at) / 1000000;
	uint64_t seconds = (uint64_t)(up > 0 ? up : 1);
	struct mux_stats s;
	char text[256];
	unsigned i;

	mux_stats(t->mux, &s);
	for (i = 0; tunnel_channel(t, i, text, sizeof(text)); i++)
		log_say(LOG_TABLE, "channel %u: %s", i + 1, text);
	log_say(LOG_TABLE, "round trip %lld us, at most %llu bytes in flight, %llu bytes reserved",
	    (long long)s.rtt_us, (unsigned long long)s.cwnd, (unsigned long long)s.reserved);
	log_say(LOG_TABLE, "%llu bytes sent and %llu read in %lld s: %llu and %llu a second",
	    (unsigned long long)s.sent, (unsigned long long)s.received, (long long)up,
	    (unsigned long long)(s.sent / seconds), (unsigned long long)(s.received / seconds));
}

void
tunnel_table(const struct tunnel *t, int64_t now)
{
	static const char *const words[] = { "over", "starting", "not made", "up", "stopping",
		"down" };
	const char *name = tunnel_name(t);

	log_say(LOG_TABLE, "the link to %s is %s", *name != '\0' ? name : "the far side",
	    words[t->state]);
	if (tunnel_awaits_login(t))
		log_say(LOG_TABLE, "%s; waiting for Enter, or for -O check", t->loss);
	else if (t->state == TUNNEL_BACKOFF && t->config.role == MUX_FAR)
		log_say(LOG_TABLE, "waiting for another channel, %lld s at most",
		    (long long)((t->expires_at - now + 999999) / 1000000));
	else if (t->state == TUNNEL_BACKOFF)
		log_say(LOG_TABLE, "%s; reconnecting in %lld s, or at the next connection", t->loss,
		    (long long)((tunnel_next_start(t) - now + 999999) / 1000000));
	if (t->state == TUNNEL_UP)
		log_traffic(t, now);
}
