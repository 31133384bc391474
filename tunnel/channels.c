/*
 * tunnel/channels.c - the channels of a link: a transport for each slot of the
 * mux.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/os.h"
#include "base/poll.h"
#include "mux/mux.h"
#include "net/dial.h"
#include "net/endpoint.h"
#include "tunnel/bootstrap.h"
#include "tunnel/growth.h"
#include "tunnel/hops.h"
#include "tunnel/master.h"
#include "tunnel/transport.h"
#include "tunnel/channels.h"

#define START_MOST 20000000 /* us, until a further channel is up */

struct channel {
	struct transport *transport; /* NULL: none */
	struct bootstrap *bootstrap; /* of a further channel; NULL: none */
	int64_t give_up_at;          /* of a further channel that is not up yet; else 0 */
};

struct channels {
	const char *self, *join_options;
	unsigned most;
	struct mux *mux;
	struct channel slot[MUX_SLOTS];
	unsigned first;         /* the slot of the first channel */
	struct transport *held; /* the closed first channel; its ssh is the master */

	/* near: further channels */
	struct master *master;
	bool asked;  /* master was set */
	bool failed; /* the first failure of this try was logged */
	struct dial_target target;
	struct growth growth;
};

struct channels *
channels_new(const char *self, const char *join_options, struct children *kids, unsigned most)
{
	struct channels *c = calloc(1, sizeof(*c));

	if (c == NULL)
		return NULL;
	c->self = self;
	c->join_options = join_options;
	c->most = most;
	c->target.kids = kids;
	return c;
}

/* ---- the set ---- */

static bool
is_starting(const struct channels *c, unsigned slot)
{
	enum mux_slot_state state = mux_slot_state(c->mux, slot);

	return c->slot[slot].transport != NULL &&
	       (state == MUX_SLOT_STARTING || state == MUX_SLOT_GREETING);
}

static bool
is_up(const struct channels *c, unsigned slot)
{
	return c->slot[slot].transport != NULL && mux_slot_state(c->mux, slot) == MUX_SLOT_UP;
}

static unsigned
count(const struct channels *c, bool (*is)(const struct channels *c, unsigned slot))
{
	unsigned slot, n = 0;

	for (slot = 0; slot < MUX_SLOTS; slot++)
		n += is(c, slot);
	return n;
}

bool
channels_describe(const struct channels *c, unsigned nth, char *dst, size_t size)
{
	struct mux_slot_stats s;
	unsigned slot;

	for (slot = 0; slot < MUX_SLOTS; slot++)
		if (is_up(c, slot) && nth-- == 0)
			break;
	if (slot == MUX_SLOTS)
		return false;
	mux_slot_stats(c->mux, slot, &s);
	snprintf(dst, size,
	    "round trip %lld us, %llu of at most %llu bytes in flight, %llu sent, %llu read",
	    (long long)s.rtt_us, (unsigned long long)s.in_flight, (unsigned long long)s.cwnd,
	    (unsigned long long)s.sent, (unsigned long long)s.received);
	return true;
}

void
channels_begin(struct channels *c, struct mux *m, unsigned slot)
{
	c->mux = m;
	c->first = slot;
	growth_reset(&c->growth);
}

void
channels_set(struct channels *c, unsigned slot, struct transport *t)
{
	c->slot[slot].transport = t;
	if (t == NULL)
		mux_lost(c->mux, slot, MUX_NO_ROOM, "no memory or descriptors");
}

unsigned
channels_first_slot(const struct channels *c)
{
	return c->first;
}

struct transport *
channels_first(const struct channels *c)
{
	return c->slot[c->first].transport;
}

bool
channels_has(const struct channels *c, unsigned slot)
{
	return c->slot[slot].transport != NULL;
}

int
channels_lost(const struct channels *c)
{
	enum mux_slot_state state;
	unsigned slot;

	for (slot = 0; slot < MUX_SLOTS; slot++) {
		if (!channels_has(c, slot))
			continue;
		state = mux_slot_state(c->mux, slot);
		if (state == MUX_SLOT_FREE || state == MUX_SLOT_DOWN ||
		    transport_is_closed(c->slot[slot].transport))
			return (int)slot;
	}
	return -1;
}

static void
log_loss(const struct channels *c, unsigned slot)
{
	unsigned up = count(c, is_up);

	if (up > 0 && mux_state(c->mux) == MUX_UP && mux_slot_state(c->mux, slot) == MUX_SLOT_DOWN)
		log_say(
		    LOG_INFO, "a channel has ended: %s; channels left: %u", mux_why(c->mux), up);
}

/* Log the first failure of a try.  Its cause can be a limit of sshd. */
static void
log_refusal(struct channels *c, struct channel *ch)
{
	const char *line;

	if (ch->give_up_at == 0 || c->failed)
		return;
	c->failed = true;
	line = transport_last_line(ch->transport);
	log_say(LOG_INFO, "another channel could not be made%s%s", *line != '\0' ? ": " : "", line);
}

/*
 * Further channels need the ssh of the first one.  So its process stays until
 * they have ended.
 */
void
channels_drop(struct channels *c, unsigned slot, int64_t now)
{
	struct channel *ch = &c->slot[slot];
	struct transport *t = ch->transport;

	if (t == NULL)
		return;
	log_refusal(c, ch);
	log_loss(c, slot);
	ch->give_up_at = 0;
	ch->transport = NULL;
	bootstrap_free(ch->bootstrap);
	ch->bootstrap = NULL;
	if (slot == c->first && c->master != NULL && c->held == NULL &&
	    count(c, channels_has) > 0) {
		transport_shut(t);
		c->held = t;
	} else {
		transport_free(t, now);
	}
	if (count(c, channels_has) == 0) {
		transport_free(c->held, now);
		c->held = NULL;
	}
}

void
channels_want(struct channels *c, struct pollset *ps)
{
	unsigned slot;

	master_want(c->master, ps);
	for (slot = 0; slot < MUX_SLOTS; slot++)
		if (channels_has(c, slot))
			transport_want(c->slot[slot].transport, ps);
	if (c->held != NULL)
		transport_want(c->held, ps);
	pollset_until(ps, mux_deadline(c->mux));
}

void
channels_step(struct channels *c, const struct pollset *ps)
{
	unsigned slot;

	master_step(c->master, ps);
	for (slot = 0; slot < MUX_SLOTS; slot++)
		if (channels_has(c, slot))
			transport_step(c->slot[slot].transport, ps);
	if (c->held != NULL)
		transport_step(c->held, ps);
	mux_tick(c->mux, ps->now);
}

void
channels_flush(struct channels *c, int64_t now)
{
	unsigned slot;

	for (slot = 0; slot < MUX_SLOTS; slot++)
		if (channels_has(c, slot))
			transport_flush(c->slot[slot].transport, now);
}

bool
channels_drained(const struct channels *c)
{
	unsigned slot;

	for (slot = 0; slot < MUX_SLOTS; slot++)
		if (channels_has(c, slot) && !transport_drained(c->slot[slot].transport))
			return false;
	return true;
}

/* A channel that is not up yet gets no BYE, so the far side does not close it. */
bool
channels_closed(const struct channels *c)
{
	enum mux_slot_state state;
	unsigned slot;

	for (slot = 0; slot < MUX_SLOTS; slot++) {
		state = mux_slot_state(c->mux, slot);
		if (channels_has(c, slot) && (state == MUX_SLOT_UP || state == MUX_SLOT_CLOSING) &&
		    !transport_is_closed(c->slot[slot].transport))
			return false;
	}
	return true;
}

int64_t
channels_moved_at(const struct channels *c)
{
	int64_t last = 0, at;
	unsigned slot;

	for (slot = 0; slot < MUX_SLOTS; slot++) {
		at = channels_has(c, slot) ? transport_moved_at(c->slot[slot].transport) : 0;
		last = at > last ? at : last;
	}
	return last;
}

bool
channels_readable(const struct channels *c, unsigned slot, const struct pollset *ps)
{
	return channels_has(c, slot) && transport_readable(c->slot[slot].transport, ps);
}

/* ---- near: the master, and further channels ---- */

bool
channels_ask(struct channels *c, const struct hops *hops, int64_t now)
{
	if (!c->asked && c->most > 1)
		c->master = master_new(hops, c->target.kids, now);
	c->asked = true;
	return master_is_known(c->master);
}

void
channels_stop(struct channels *c, int64_t now)
{
	master_stop(c->master, now);
}

const struct hops *
channels_hops(struct channels *c, const struct hops *hops)
{
	return master_first(c->master, hops);
}

/* Return false if no channel can be started. */
static bool
start_one(struct channels *c, const char *far_path, int64_t now)
{
	const struct hops *hops = master_further(c->master);
	struct bootstrap *b = hops != NULL ? bootstrap_new() : NULL;
	struct transport *t = NULL;
	int slot = -1;

	if (b != NULL && bootstrap_start(b, c->self, os_image(c->self), far_path, c->join_options))
		slot = mux_add_slot(c->mux, now);
	if (slot != -1) {
		endpoint_command(&c->target.to, hops->argv);
		t = transport_near(c->mux, (unsigned)slot, &c->target, b, hops, true, now);
		channels_set(c, (unsigned)slot, t);
	}
	if (t == NULL) {
		bootstrap_free(b);
		return false;
	}
	c->slot[slot].bootstrap = b;
	c->slot[slot].give_up_at = now + START_MOST;
	return true;
}

static void
close_more(struct channels *c, unsigned n)
{
	unsigned slot;

	for (slot = 0; slot < MUX_SLOTS && n > 0; slot++)
		if (slot != c->first && is_up(c, slot)) {
			mux_close_slot(c->mux, slot);
			n--;
		}
}

static void
watch_starts(struct channels *c, struct pollset *ps)
{
	struct channel *ch;
	unsigned slot;

	for (slot = 0; slot < MUX_SLOTS; slot++) {
		ch = &c->slot[slot];
		if (is_up(c, slot))
			ch->give_up_at = 0;
		if (ch->give_up_at == 0 || !is_starting(c, slot))
			continue;
		pollset_until(ps, ch->give_up_at);
		if (ps->now < ch->give_up_at)
			continue;
		mux_lost(c->mux, slot, MUX_TIMEOUT, "no answer");
		channels_drop(c, slot, ps->now); /* the slot may be free, and be started again */
	}
}

static struct growth_facts
find_facts(const struct channels *c)
{
	struct growth_facts f = { .most = mux_slots(c->mux) };
	struct mux_stats s;

	mux_stats(c->mux, &s);
	if (c->most < f.most)
		f.most = c->most;
	f.up = count(c, is_up);
	f.starting = count(c, is_starting);
	f.bytes = s.sent + s.received;
	f.rtt_us = s.rtt_us;
	f.limited_at = mux_limited_at(c->mux);
	return f;
}

void
channels_grow(struct channels *c, const char *far_path, struct pollset *ps)
{
	struct growth_facts f;
	unsigned n, wanted;

	if (!master_is_usable(c->master))
		return;
	watch_starts(c, ps);
	f = find_facts(c);
	n = f.up + f.starting;
	wanted = growth_step(&c->growth, &f, ps->now);
	if (wanted > n)
		c->failed = false;
	else
		close_more(c, n - wanted);
	while (n < wanted && start_one(c, far_path, ps->now))
		n++;
	pollset_until(ps, growth_deadline(&c->growth));
}

void
channels_free(struct channels *c, int64_t now)
{
	unsigned slot;

	if (c == NULL)
		return;
	for (slot = 0; slot < MUX_SLOTS; slot++)
		channels_drop(c, slot, now);
	master_free(c->master, now);
	free(c);
}
