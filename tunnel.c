/*
 * tunnel.c - the life of a link, on either side.
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

#include "relay.h"

#define EXPLAIN_AFTER 500 /* for the exit status of a command that was no far end */
#define PAUSE_FIRST 1000
#define PAUSE_MOST 60000
#define WAKE_AFTER 1000 /* whoever wants it, a start is followed by no other within this time for each that failed */
#define WAKE_MOST 10000
#define TELL_AFTER 200    /* of a loss */
#define SLEPT 5000        /* a jump of the time of day */
#define START_MOST 120000 /* for a start with nobody there to type a password */
#define MAGIC_AFTER 10000 /* the far relay was started, and is not heard */

/* ---- what people are told ---- */

/* What came before the link and was no answer to boot.c, as people can read it. */
static void
show_noise(struct link *l)
{
	size_t from, i;
	char text[401];

	for (i = 0; i < l->noise_have; i++)
		if (l->noise[i] == '\0')
			l->noise[i] = '?';
	if (l->noise_have > 0)
		l->noise_have = boot_strip(l->noise);
	if (l->noise_have == 0)
		return;
	from = l->noise_have > 400 ? l->noise_have - 400 : 0;
	for (i = from; i < l->noise_have; i++)
		text[i - from] = l->noise[i] == '\n' ? '|' : l->noise[i];
	text[i - from] = '\0';
	log_say(LOG_ERROR, "before that it said: %s", text);
}

static void
explain_command(struct tunnel *t, int ended)
{
	char name[ENDPOINT_NAME];

	endpoint_name(&t->command->to, name, sizeof(name));
	/* The far relay saw it first, or what we said came back changed: whichever is read before the other. */
	if (t->link.code == LINK_END && t->link.noise_have > 0 && strstr(t->link.noise, "cannot go through a terminal") != NULL)
		log_say(LOG_ERROR, "no link: the line changes bytes: is there an ssh -t, or another terminal, on the way?");
	else if (t->link.code != LINK_END)
		log_say(LOG_ERROR, "no link: %s", t->link.why);
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
	show_noise(&t->link);
}

/* What helps against what ssh said. */
static const char *
remedy(const struct hops *h, int hop, const char *said)
{
	if (strstr(said, "Permission denied") != NULL && hop != 0)
		return "; nobody can type a password there: put a key for it on the hop before, or reach it with ssh's "
		       "ProxyCommand (relay(1), EXAMPLES)";
	if (strstr(said, "Host key verification failed") != NULL)
		return h->n > 1 ? "; log in by hand once, hop by hop, and accept the key"
				: "; log in by hand once, and accept the key";
	if (strstr(said, "Could not resolve") != NULL)
		return hop == 0 ? "; is the name right?" : "; is the name right, as the hop before it knows it?";
	return "";
}

/* What people call the far side. */
static const char *
far_name(const struct tunnel *t)
{
	return t->hops != NULL ? t->hops->hops[t->hops->n - 1] : t->link.theirs.host;
}

static void
explain_hops(struct tunnel *t, int ended)
{
	char path[HOPS_PATH], why[sizeof(t->loss)];
	const char *said, *whole = hops_path(t->hops, path, sizeof(path));
	enum log_level level = t->lives > 0 ? LOG_INFO : LOG_ERROR;
	int hop;

	carrier_hear(&t->carrier);
	said = t->carrier.last_said;
	hop = hops_blame(t->hops, said);
	if (t->link.code != LINK_END)
		snprintf(why, sizeof(why), "%s: %s", far_name(t), t->link.why);
	else if (*said != '\0')
		snprintf(why, sizeof(why), "cannot reach %s: %s%s", hop == -1 ? whole : t->hops->hops[hop], said,
		    remedy(t->hops, hop, said));
	else if (ended == 127)
		snprintf(why, sizeof(why), "cannot reach %s: a command was not found there, with status 127", whole);
	else if (ended >= 0)
		snprintf(why, sizeof(why), "cannot reach %s: %s ended with status %d", whole, t->hops->argv[0], ended);
	else
		snprintf(why, sizeof(why), "cannot reach %s: it closed the line without a word", whole);
	log_say(level, "%s", why);
	snprintf(t->loss, sizeof(t->loss), "%s", why);
	if (level == LOG_ERROR)
		show_noise(&t->link);
}

static void
explain_start(struct tunnel *t)
{
	int ended = t->carrier.child == NULL ? -1 : spawn_exit(t->carrier.child);

	if (t->hops != NULL)
		explain_hops(t, ended);
	else
		explain_command(t, ended);
}

/* A far side ends when the near one does, and that is all right. */
static bool
is_far_end(const struct tunnel *t)
{
	return t->link.role == LINK_FAR && (t->link.code == LINK_END || t->link.code == LINK_RESET);
}

static void
explain_loss(const struct tunnel *t)
{
	log_say(is_far_end(t) ? LOG_INFO : LOG_ERROR, "the link%s%s has ended: %s", t->lives > 0 ? " to " : "",
	    t->lives > 0 ? t->link.theirs.host : "", t->link.why);
}

/* A key that ends relay ends ssh as well, and often first: that is no loss to be told of. */
static void
tell_loss(struct tunnel *t, struct pollset *ps)
{
	if (t->untold_at == 0)
		return;
	pollset_until(ps, t->untold_at);
	if (ps->now < t->untold_at)
		return;
	t->untold_at = 0;
	log_say(LOG_ERROR, "the link to %s has ended: %s; it will be made again", far_name(t), t->loss);
}

/* ---- start ---- */

static bool
start_near(struct tunnel *t, int64_t now)
{
	struct boot *boot = NULL;

	if (t->hops != NULL) {
		boot = &t->boot;
		t->link.patient = true;
		if (!boot_start(boot, t->self, os_image(t->self), t->far_path, t->far_options))
			return false;
	}
	if (!carrier_near(&t->carrier, &t->link, t->command, boot, now))
		return false;
	t->carrier.hushed = t->lives > 0;
	return true;
}

int
tunnel_start(struct tunnel *t, enum link_role role, int64_t now)
{
	char host[ENDPOINT_HOST] = "?";

	gethostname(host, sizeof(host) - 1);
	link_init(&t->link, role, LINK_MEMORY, host, now * 1000);
	t->legs.link = &t->link;
	t->state = TUNNEL_STARTS;
	t->started_at = now;
	t->explain_at = t->magic_at = t->here_at = 0;
	if (role == LINK_FAR)
		return carrier_far(&t->carrier, &t->link) == -1 ? STATUS_LINK : STATUS_OK;
	if (start_near(t, now))
		return STATUS_OK;
	log_say(LOG_ERROR, "cannot start the command: no memory or descriptors");
	return STATUS_SYSTEM;
}

/* ---- end ---- */

/* Everything of the link that has ended goes; the next start begins anew. */
static void
clear(struct tunnel *t, int64_t now)
{
	carrier_flush(&t->carrier, now * 1000);
	carrier_close(&t->carrier, now);
	boot_free(&t->boot);
	link_free(&t->link);
}

static void
rest(struct tunnel *t, int64_t now)
{
	int64_t pause = PAUSE_FIRST;
	unsigned i;

	for (i = 1; i < t->failures && pause < PAUSE_MOST; i++)
		pause *= 2;
	if (pause > PAUSE_MOST)
		pause = PAUSE_MOST;
	/* Many relays that lost the same host must not come back as one. */
	pause -= pollset_clock_us() % (pause / 2);
	t->failures++;
	t->state = TUNNEL_RESTS;
	t->again_at = now + pause;
}

/* A start that failed is explained once its exit status is known. */
static bool
is_explained(struct tunnel *t, struct pollset *ps)
{
	if (t->explain_at == 0)
		t->explain_at = ps->now + EXPLAIN_AFTER;
	pollset_until(ps, t->explain_at);
	if (ps->now < t->explain_at && t->carrier.child != NULL && spawn_exit(t->carrier.child) == -1)
		return false;
	explain_start(t);
	return true;
}

static bool
comes_back(const struct tunnel *t)
{
	return t->hops != NULL && t->lives > 0 && !t->stopped && !t->single;
}

/* The link is dead: reset what it carried, and say why. */
static void
end_link(struct tunnel *t, struct pollset *ps)
{
	bool done =
	    t->stopped || t->finished || (t->single && t->legs.n == 0 && t->state == TUNNEL_UP && t->status == STATUS_OK);

	if (t->link.role == LINK_NEAR && t->state == TUNNEL_STARTS && !t->stopped) {
		if (!is_explained(t, ps))
			return;
	} else if (!done && comes_back(t)) {
		t->untold_at = ps->now + TELL_AFTER;
		snprintf(t->loss, sizeof(t->loss), "%s", t->link.why);
	} else if (!done) {
		explain_loss(t);
	}
	if (!done && !is_far_end(t))
		t->status = STATUS_LINK;
	leg_step(&t->legs, ps);
	leg_sweep(&t->legs, ps);
	clear(t, ps->now);
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
	if (t->state == TUNNEL_RESTS)
		t->state = TUNNEL_OVER;
	else
		link_bye(&t->link, LINK_END, "stopped by a signal");
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

	if (t->lives > 0 || t->told_silence || t->boot.state != BOOT_ASKS || (t->here_at == 0 && !hops_any_command(t->hops)))
		return;
	pollset_until(ps, when);
	if (ps->now < when)
		return;
	t->told_silence = true;
	if (t->here_at == 0)
		log_say(LOG_NOTICE, "no answer yet: does a hop hold bytes back until there are many (srun without -u)?");
	else
		log_say(LOG_NOTICE,
		    "%s was reached and answers no more: what does relay -V do there? -x PATH names another one", far_name(t));
}

/* What a start with hops is just doing. */
static void
watch_boot(struct tunnel *t, struct pollset *ps)
{
	char text[HOPS_PATH + 64];

	if (t->boot.state == BOOT_COPIES && t->told_copies < t->boot.copies) {
		t->told_copies = t->boot.copies;
		snprintf(text, sizeof(text), "copying relay (%zu KiB) to %s", (t->boot.size + 1023) / 1024, far_name(t));
		if (t->lives == 0)
			log_status(text);
	}
	if (t->boot.here && t->here_at == 0) {
		t->here_at = ps->now;
		log_say(LOG_INFO, "reached %s", far_name(t));
	}
	watch_silence(t, ps);
	if (t->boot.state == BOOT_STARTS && t->link.state == LINK_STARTS) {
		if (t->magic_at == 0)
			t->magic_at = ps->now + MAGIC_AFTER;
		if (ps->now >= t->magic_at)
			link_lost(&t->link, LINK_TIMEOUT,
			    "the relay there was started and is not heard: does a hop hold bytes back until a line is whole "
			    "(srun without -u)?");
		pollset_until(ps, t->magic_at);
	}
	if (t->lives > 0 && t->link.state != LINK_DEAD) {
		if (ps->now >= t->started_at + START_MOST)
			link_lost(&t->link, LINK_TIMEOUT, "no answer within two minutes");
		else
			pollset_until(ps, t->started_at + START_MOST);
	}
}

/* Did this host sleep since the last turn? Its clock may not show it, the time of day does. */
static bool
has_slept(struct tunnel *t, int64_t now_us)
{
	struct timespec ts;
	int64_t clocks, before = t->clocks;

	clock_gettime(CLOCK_REALTIME, &ts);
	clocks = ((int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000 - now_us) / 1000;
	t->clocks = clocks;
	return before != 0 && clocks - before > SLEPT;
}

/* A line seldom survives a sleep, and a pause before the next start was for another place and time. */
static void
watch_sleep(struct tunnel *t, const struct pollset *ps)
{
	if (!has_slept(t, ps->now_us))
		return;
	if (t->state == TUNNEL_UP)
		link_woke(&t->link, ps->now_us);
	t->failures = 0;
	t->again_at = ps->now;
}

static int64_t
next_start(const struct tunnel *t)
{
	int64_t least = WAKE_AFTER * (int64_t)t->failures;
	int64_t woken = t->started_at + (least < WAKE_MOST ? least : WAKE_MOST);

	return t->woken && woken < t->again_at ? woken : t->again_at;
}

void
tunnel_want(struct tunnel *t, struct pollset *ps)
{
	watch_sleep(t, ps);
	if (t->state == TUNNEL_RESTS && ps->now >= next_start(t)) {
		t->woken = false;
		if (tunnel_start(t, LINK_NEAR, ps->now) != STATUS_OK) {
			clear(t, ps->now);
			rest(t, ps->now);
		}
	}
	if (t->hops != NULL && t->state == TUNNEL_STARTS)
		watch_boot(t, ps);
	if ((t->state == TUNNEL_STARTS || t->state == TUNNEL_UP) && t->link.state == LINK_DEAD)
		end_link(t, ps);
	/* Behind the end of a link: nothing else may ever wake us. */
	tell_loss(t, ps);
	if (t->state == TUNNEL_RESTS)
		pollset_until(ps, next_start(t));
	if (t->state == TUNNEL_OVER || t->state == TUNNEL_RESTS || t->link.state == LINK_DEAD)
		return;
	leg_want(&t->legs, ps);
	carrier_want(&t->carrier, ps);
}

/* People know the far end by the name that they reached it by. */
static void
take_name(struct tunnel *t)
{
	const char *last = t->hops->hops[t->hops->n - 1];

	if (strpbrk(last, " \t") == NULL)
		snprintf(t->link.theirs.host, sizeof(t->link.theirs.host), "%s", last);
}

bool
tunnel_step(struct tunnel *t, const struct pollset *ps)
{
	if (t->state == TUNNEL_OVER || t->state == TUNNEL_RESTS)
		return false;
	carrier_step(&t->carrier, ps);
	if (t->link.state != LINK_UP || t->state == TUNNEL_UP)
		return false;
	t->state = TUNNEL_UP;
	t->lives++;
	t->failures = 0;
	t->up_at = ps->now;
	t->carrier.hushed = false;
	boot_free(&t->boot);
	if (t->hops != NULL)
		take_name(t);
	return true;
}

void
tunnel_move(struct tunnel *t, const struct pollset *ps)
{
	int status;

	if (t->state == TUNNEL_OVER || t->state == TUNNEL_RESTS)
		return;
	leg_accept(&t->legs, ps->now);
	leg_step(&t->legs, ps);
	status = leg_sweep(&t->legs, ps);
	if (t->single && status != STATUS_OK && !t->stopped)
		t->status = status;
	carrier_flush(&t->carrier, pollset_clock_us());
	if (t->single && t->link.late != LINK_END && t->status == STATUS_OK)
		t->status = STATUS_BROKEN;
	if (t->single && t->state == TUNNEL_UP && t->legs.n == 0 && t->link.n == 0 && t->link.state != LINK_DEAD) {
		t->finished = true;
		link_bye(&t->link, LINK_END, "done");
	}
}

void
tunnel_wake(struct tunnel *t)
{
	t->woken = true;
}

void
tunnel_table(const struct tunnel *t, int64_t now)
{
	static const char *const words[] = { "over", "starting", "up", "down" };
	const char *name = far_name(t);
	const struct pace *p = &t->link.pace;
	int64_t up = (now - t->up_at) / 1000;

	log_say(LOG_ERROR, "the link to %s is %s", *name != '\0' ? name : "the far side", words[t->state]);
	if (t->state == TUNNEL_RESTS)
		log_say(LOG_ERROR, "%s; it is made again in %lld s, or when somebody connects", t->loss,
		    (long long)((next_start(t) - now + 999) / 1000));
	if (t->state != TUNNEL_UP)
		return;
	log_say(
	    LOG_ERROR, "round trip %lld us, at most %llu bytes in flight", (long long)p->trip, (unsigned long long)p->window);
	log_say(LOG_ERROR, "%llu bytes sent and %llu read in %lld s: %llu and %llu a second", (unsigned long long)p->sent,
	    (unsigned long long)t->link.read, (long long)up, (unsigned long long)(p->sent / (uint64_t)(up + (up == 0))),
	    (unsigned long long)(t->link.read / (uint64_t)(up + (up == 0))));
	leg_table(&t->legs);
}
