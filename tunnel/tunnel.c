/*
 * tunnel/tunnel.c - the life of a link, on either side.
 *
 *   near, a command (-m)   starts --> up --> over
 *   near, hops (-L ...)    starts --> up --> rests --> starts ...      a first start that fails: over
 *   far                    starts --> up --> over
 *
 * A link that is lost resets the streams that it carried. One over hops comes back: at once when somebody connects, else after a pause
 * that grows; its listeners stay, and whoever connects meanwhile waits in their backlog. The command's exit status explains a start
 * that failed, and comes a moment after the end of its stdout: it is waited for, shortly.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "base/poll.h"
#include "mux/mux.h"
#include "net/endpoint.h"
#include "spawn.h"
#include "conn/conn.h"
#include "tunnel/bootstrap.h"
#include "tunnel/hops.h"
#include "tunnel/probe.h"
#include "tunnel/remote.h"
#include "tunnel/serve.h"
#include "tunnel/transport.h"
#include "relay.h"
#include "tunnel/tunnel.h"

#define EXPLAIN_AFTER 500 /* for the exit status of a command that was no far end */
#define PAUSE_FIRST 1000
#define PAUSE_MOST 60000
#define WAKE_AFTER \
	1000 /* whoever wants it, a start is followed by no other within this time for each that failed */
#define WAKE_MOST 10000
#define TELL_AFTER 200    /* of a loss */
#define SLEPT 5000        /* a jump of the time of day */
#define START_MOST 120000 /* for a start with nobody there to type a password */
#define MAGIC_AFTER 10000 /* the far relay was started, and is not heard */

/* ---- what people are told ---- */

/* What came before the link and was no answer to bootstrap.c, as people can read it. */
static void
show_banner(struct mux *m)
{
	char *banner, text[401];
	size_t n, from, i;

	banner = mux_banner(m, &n);
	for (i = 0; i < n; i++)
		if (banner[i] == '\0')
			banner[i] = '?';
	if (n > 0)
		n = bootstrap_strip(banner);
	if (n == 0)
		return;
	from = n > 400 ? n - 400 : 0;
	for (i = from; i < n; i++)
		text[i - from] = banner[i] == '\n' ? '|' : banner[i];
	text[i - from] = '\0';
	log_say(LOG_ERROR, "before that it said: %s", text);
}

static void
explain_command(struct tunnel *t, int ended)
{
	char name[ENDPOINT_NAME];
	const char *banner;
	size_t n;

	banner = mux_banner(t->mux, &n);
	endpoint_name(&t->command->to, name, sizeof(name));
	/* The far relay saw it first, or what we said came back changed: whichever is read before the other. */
	if (mux_code(t->mux) == MUX_END && n > 0 &&
	    strstr(banner, "cannot go through a terminal") != NULL)
		log_say(LOG_ERROR, "no link: the line changes bytes: is there an ssh -t, or "
				   "another terminal, on the way?");
	else if (mux_code(t->mux) != MUX_END)
		log_say(LOG_ERROR, "no link: %s", mux_why(t->mux));
	else if (ended == 127)
		log_say(LOG_ERROR, "no link: the far command was not found; is relay there, and in "
				   "the PATH of a remote command?");
	else if (ended == 255)
		log_say(LOG_ERROR, "no link: %s could not connect, or the far command broke", name);
	else if (ended >= 0)
		log_say(LOG_ERROR,
		    "no link: the command ended with status %d and without a sign of a relay; its "
		    "end is relay -m -",
		    ended);
	else
		log_say(LOG_ERROR, "no link: the command closed its stdout without a sign of a "
				   "relay; its end is relay -m -");
	show_banner(t->mux);
}

/* What people call the far side. */
const char *
tunnel_name(const struct tunnel *t)
{
	if (t->hops != NULL)
		return t->hops->hops[t->hops->n - 1];
	return t->mux != NULL ? mux_peer(t->mux) : "";
}

static void
explain_hops(struct tunnel *t, int ended)
{
	char path[HOPS_PATH], *why = t->loss;
	size_t size = sizeof(t->loss);
	const char *said, *whole = hops_path(t->hops, path, sizeof(path));
	bool answered = mux_code(t->mux) != MUX_END;
	enum log_level level = t->connects > 0 || t->probing ? LOG_INFO : LOG_ERROR;
	int hop;

	transport_read_stderr(&t->transport);
	said = t->transport.last_line;
	hop = hops_blame(t->hops, said);
	if (answered)
		snprintf(why, size, "%s", mux_why(t->mux));
	else if (*said != '\0')
		snprintf(why, size, "cannot reach %s: %s%s", hop == -1 ? whole : t->hops->hops[hop],
		    said, hops_remedy(hop, said));
	else if (ended == 127)
		snprintf(why, size,
		    "cannot reach %s: a command was not found there, with status 127", whole);
	else if (ended >= 0)
		snprintf(why, size, "cannot reach %s: %s ended with status %d", whole,
		    t->hops->argv[0], ended);
	else
		snprintf(why, size, "cannot reach %s: it closed the line without a word", whole);
	log_say(level, "%s%s%s", answered ? tunnel_name(t) : "", answered ? ": " : "", why);
	if (t->connects == 0)
		show_banner(t->mux);
}

static void
explain_start(struct tunnel *t)
{
	int ended = t->transport.child == NULL ? -1 : spawn_exit(t->transport.child);

	if (t->hops != NULL)
		explain_hops(t, ended);
	else
		explain_command(t, ended);
}

/* A far side ends when the near one does, and that is all right. */
static bool
is_far_end(const struct tunnel *t)
{
	return t->role == MUX_FAR && (mux_code(t->mux) == MUX_END || mux_code(t->mux) == MUX_RESET);
}

static void
explain_loss(struct tunnel *t)
{
	snprintf(t->loss, sizeof(t->loss), "%s", mux_why(t->mux));
	log_say(is_far_end(t) ? LOG_INFO : LOG_ERROR, "the link%s%s has ended: %s",
	    t->connects > 0 ? " to " : "", t->connects > 0 ? mux_peer(t->mux) : "", t->loss);
}

/* A key that ends relay ends ssh as well, and often first: that is no loss to be told of. */
static void
report_loss(struct tunnel *t, struct pollset *ps)
{
	if (t->report_at == 0)
		return;
	pollset_until(ps, t->report_at);
	if (ps->now < t->report_at)
		return;
	t->report_at = 0;
	log_say(LOG_ERROR, "the link to %s has ended: %s; it will be made again", tunnel_name(t),
	    t->loss);
}

/* ---- start ---- */

static bool
start_near(struct tunnel *t, int64_t now)
{
	if (t->hops != NULL) {
		if (t->bootstrap == NULL)
			t->bootstrap = bootstrap_new();
		mux_wait_peer_first(t->mux);
		if (t->bootstrap == NULL || !bootstrap_start(t->bootstrap, t->self,
						os_image(t->self), t->far_path, t->far_options))
			return false;
	}
	if (!transport_near(&t->transport, t->mux, t->command, t->bootstrap, now))
		return false;
	t->transport.quiet = t->connects > 0;
	return true;
}

int
tunnel_start(struct tunnel *t, enum mux_role role, int64_t now)
{
	char host[ENDPOINT_HOST] = "?";

	gethostname(host, sizeof(host) - 1);
	t->role = role;
	t->state = TUNNEL_STARTING;
	t->started_at = now;
	t->explain_at = t->magic_at = t->here_at = 0;
	t->mux = mux_new(role, MUX_MEMORY, host, now * 1000);
	if (t->mux == NULL) {
		log_say(LOG_ERROR, "cannot start a link: no memory");
		return STATUS_SYSTEM;
	}
	if (role == MUX_FAR)
		return transport_far(&t->transport, t->mux) == -1 ? STATUS_LINK : STATUS_OK;
	if (start_near(t, now))
		return STATUS_OK;
	log_say(LOG_ERROR, "cannot start the command: no memory or descriptors");
	return STATUS_SYSTEM;
}

/* ---- end ---- */

/* Free everything of the link that has ended.  Its connections go on until they have delivered what they hold. */
static void
clear(struct tunnel *t, const struct pollset *ps)
{
	t->conns->mux = NULL;
	if (t->mux == NULL)
		return;
	/* After a BYE with code 0 all is delivered, and only the last bytes in TCP are on their way. */
	if (mux_ended_by_peer(t->mux) && t->role == MUX_FAR && mux_code(t->mux) != MUX_END)
		conn_stop(t->conns, STATUS_BROKEN, ps->now);
	conn_take_dirty(t->conns, t->mux, ps->now);
	t->conns->behind = true;
	remote_step(&t->remotes, ps);
	probe_step(&t->probes);
	transport_flush(&t->transport, ps->now * 1000);
	transport_close(&t->transport, ps->now);
	bootstrap_release(t->bootstrap);
	mux_free(t->mux);
	t->mux = NULL;
}

static void
rest(struct tunnel *t, int64_t now)
{
	int64_t pause = PAUSE_FIRST;
	unsigned i;

	for (i = 1; i < t->retries && pause < PAUSE_MOST; i++)
		pause *= 2;
	if (pause > PAUSE_MOST)
		pause = PAUSE_MOST;
	/* Many relays that lost the same host must not come back as one. */
	pause -= pollset_clock_us() % (pause / 2);
	t->retries++;
	t->state = TUNNEL_BACKOFF;
	t->again_at = now + pause;
}

/* A start that failed is explained once its exit status is known. */
static bool
is_explained(struct tunnel *t, struct pollset *ps)
{
	if (t->explain_at == 0)
		t->explain_at = ps->now + EXPLAIN_AFTER;
	pollset_until(ps, t->explain_at);
	if (ps->now < t->explain_at && t->transport.child != NULL &&
	    spawn_exit(t->transport.child) == -1)
		return false;
	explain_start(t);
	return true;
}

static bool
comes_back(const struct tunnel *t)
{
	return t->hops != NULL && t->connects > 0 && !t->stopped && !t->one_shot && !t->probing;
}

/* The link is dead: reset what it carried, and say why. */
static void
end_link(struct tunnel *t, struct pollset *ps)
{
	bool done =
	    t->stopped || t->finished ||
	    (t->one_shot && t->conns->n == 0 && t->state == TUNNEL_UP && t->status == STATUS_OK);

	if (t->role == MUX_NEAR && t->state == TUNNEL_STARTING && !t->stopped) {
		if (!is_explained(t, ps))
			return;
	} else if (!done && comes_back(t)) {
		t->report_at = ps->now + TELL_AFTER;
		snprintf(t->loss, sizeof(t->loss), "%s", mux_why(t->mux));
	} else if (!done) {
		explain_loss(t);
	}
	if (!done && !is_far_end(t))
		t->status = STATUS_LINK;
	clear(t, ps);
	if (comes_back(t)) {
		t->status = STATUS_OK;
		rest(t, ps->now);
		return;
	}
	t->state = TUNNEL_OVER;
}

void
tunnel_stop(struct tunnel *t, int status)
{
	if (t->state == TUNNEL_OVER)
		return;
	t->status = status;
	t->stopped = true;
	if (t->state == TUNNEL_BACKOFF)
		t->state = TUNNEL_OVER;
	else
		mux_bye(t->mux, MUX_RESET, "stopped by a signal");
}

/* ---- a turn ---- */

/*
 * A hop that is a command may hold all back until there is more of it, and what is called relay there may be something else. Nothing
 * is ended: an ssh may be asking for a password, and a host may be slow.
 */
static void
watch_silence(struct tunnel *t, struct pollset *ps)
{
	int64_t when = (t->here_at != 0 ? t->here_at : t->started_at) + MAGIC_AFTER;

	if (t->connects > 0 || t->silence_logged ||
	    bootstrap_state(t->bootstrap) != BOOTSTRAP_ASKING ||
	    (t->here_at == 0 && !hops_any_command(t->hops)))
		return;
	pollset_until(ps, when);
	if (ps->now < when)
		return;
	t->silence_logged = true;
	if (t->here_at == 0)
		log_say(LOG_NOTICE, "no answer yet: does a hop hold bytes back until there are "
				    "many (srun without -u)?");
	else
		log_say(LOG_NOTICE,
		    "%s was reached and answers no more: what does relay -V do there? -x PATH "
		    "names another one",
		    tunnel_name(t));
}

/* What a start with hops is just doing. */
static void
watch_bootstrap(struct tunnel *t, struct pollset *ps)
{
	char text[HOPS_PATH + 64];

	if (bootstrap_state(t->bootstrap) == BOOTSTRAP_UPLOADING &&
	    t->uploads_logged < bootstrap_uploads(t->bootstrap)) {
		t->uploads_logged = bootstrap_uploads(t->bootstrap);
		snprintf(text, sizeof(text), "copying relay (%zu KiB) to %s",
		    (bootstrap_upload_size(t->bootstrap) + 1023) / 1024, tunnel_name(t));
		if (t->connects == 0)
			log_status(text);
	}
	if (bootstrap_answered(t->bootstrap) && t->here_at == 0) {
		t->here_at = ps->now;
		log_say(LOG_INFO, "reached %s", tunnel_name(t));
	}
	watch_silence(t, ps);
	if (bootstrap_state(t->bootstrap) == BOOTSTRAP_STARTING &&
	    mux_state(t->mux) == MUX_STARTING) {
		if (t->magic_at == 0)
			t->magic_at = ps->now + MAGIC_AFTER;
		if (ps->now >= t->magic_at)
			mux_lost(t->mux, MUX_TIMEOUT,
			    "the relay there was started and is not heard: does a hop hold bytes "
			    "back until a line is whole "
			    "(srun without -u)?");
		pollset_until(ps, t->magic_at);
	}
	if ((t->connects > 0 || t->probing) && mux_state(t->mux) != MUX_DEAD) {
		if (ps->now >= t->started_at + START_MOST)
			mux_lost(t->mux, MUX_TIMEOUT, "no answer within two minutes");
		else
			pollset_until(ps, t->started_at + START_MOST);
	}
}

/* Did this host sleep since the last turn? Its clock may not show it, the time of day does. */
static bool
has_slept(struct tunnel *t, int64_t now_us)
{
	struct timespec ts;
	int64_t clocks, before = t->clock_offset;

	clock_gettime(CLOCK_REALTIME, &ts);
	clocks = ((int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000 - now_us) / 1000;
	t->clock_offset = clocks;
	return before != 0 && clocks - before > SLEPT;
}

/* A line seldom survives a sleep, and a pause before the next start was for another place and time. */
static void
watch_sleep(struct tunnel *t, const struct pollset *ps)
{
	if (!has_slept(t, ps->now_us))
		return;
	if (t->state == TUNNEL_UP)
		mux_woke(t->mux, ps->now_us);
	t->retries = 0;
	t->again_at = ps->now;
}

static int64_t
next_start(const struct tunnel *t)
{
	int64_t least = WAKE_AFTER * (int64_t)t->retries;
	int64_t woken = t->started_at + (least < WAKE_MOST ? least : WAKE_MOST);

	return t->wanted && woken < t->again_at ? woken : t->again_at;
}

void
tunnel_want(struct tunnel *t, struct pollset *ps)
{
	watch_sleep(t, ps);
	if (t->state == TUNNEL_BACKOFF && ps->now >= next_start(t)) {
		t->wanted = false;
		if (tunnel_start(t, MUX_NEAR, ps->now) != STATUS_OK) {
			clear(t, ps);
			rest(t, ps->now);
		}
	}
	if (t->hops != NULL && t->state == TUNNEL_STARTING)
		watch_bootstrap(t, ps);
	if ((t->state == TUNNEL_STARTING || t->state == TUNNEL_UP) && mux_state(t->mux) == MUX_DEAD)
		end_link(t, ps);
	/* Behind the end of a link: nothing else may ever wake us. */
	report_loss(t, ps);
	if (t->state == TUNNEL_BACKOFF)
		pollset_until(ps, next_start(t));
	if (t->state == TUNNEL_OVER || t->state == TUNNEL_BACKOFF || mux_state(t->mux) == MUX_DEAD)
		return;
	conn_take_dirty(t->conns, t->mux, ps->now);
	remote_want(&t->remotes, ps);
	transport_want(&t->transport, ps);
}

/* People know the far end by the name that they reached it by. */
static void
take_name(struct tunnel *t)
{
	const char *last = t->hops->hops[t->hops->n - 1];

	if (strpbrk(last, " \t") == NULL)
		mux_name_peer(t->mux, last);
}

bool
tunnel_step(struct tunnel *t, const struct pollset *ps)
{
	if (t->state == TUNNEL_OVER || t->state == TUNNEL_BACKOFF)
		return false;
	transport_step(&t->transport, ps);
	if (mux_state(t->mux) != MUX_UP || t->state == TUNNEL_UP)
		return false;
	t->state = TUNNEL_UP;
	t->connects++;
	t->retries = 0;
	t->up_at = ps->now;
	t->conns->mux = t->mux;
	t->transport.quiet = false;
	bootstrap_release(t->bootstrap);
	if (t->hops != NULL && !t->probing)
		take_name(t);
	return true;
}

void
tunnel_serve(struct tunnel *t, const struct pollset *ps)
{
	if (t->state == TUNNEL_OVER || t->state == TUNNEL_BACKOFF)
		return;
	serve_streams(&t->serve, t->mux, ps->now);
	conn_take_dirty(t->conns, t->mux, ps->now);
	remote_step(&t->remotes, ps);
	probe_step(&t->probes);
}

void
tunnel_flush(struct tunnel *t, int status)
{
	if (t->state == TUNNEL_OVER || t->state == TUNNEL_BACKOFF)
		return;
	if (t->one_shot && status != STATUS_OK && !t->stopped)
		t->status = status;
	transport_flush(&t->transport, pollset_clock_us());
	/* A connection ends when everything is delivered, or given up; then the far side is to give it up, too. */
	if (t->one_shot && t->state == TUNNEL_UP && t->conns->n == 0 &&
	    mux_state(t->mux) != MUX_DEAD) {
		t->finished = true;
		mux_bye(t->mux, t->conns->gave_up ? MUX_RESET : MUX_END, "done");
	}
}

void
tunnel_want_up(struct tunnel *t)
{
	t->wanted = true;
}

void
tunnel_table(const struct tunnel *t, int64_t now)
{
	static const char *const words[] = { "over", "starting", "up", "down" };
	const char *name = tunnel_name(t);
	int64_t up = (now - t->up_at) / 1000;
	uint64_t seconds = (uint64_t)(up > 0 ? up : 1);
	struct mux_stats s;

	log_say(LOG_ERROR, "the link to %s is %s", *name != '\0' ? name : "the far side",
	    words[t->state]);
	if (t->state == TUNNEL_BACKOFF)
		log_say(LOG_ERROR, "%s; it is made again in %lld s, or when somebody connects",
		    t->loss, (long long)((next_start(t) - now + 999) / 1000));
	if (t->state != TUNNEL_UP)
		return;
	mux_stats(t->mux, &s);
	log_say(LOG_ERROR, "round trip %lld us, at most %llu bytes in flight, %llu bytes reserved",
	    (long long)s.rtt_us, (unsigned long long)s.cwnd, (unsigned long long)s.reserved);
	log_say(LOG_ERROR, "%llu bytes sent and %llu read in %lld s: %llu and %llu a second",
	    (unsigned long long)s.sent, (unsigned long long)s.received, (long long)up,
	    (unsigned long long)(s.sent / seconds), (unsigned long long)(s.received / seconds));
}
