/* cli/progress.c - what a tunnel is doing, on a terminal. */
#include <stdio.h>

#include "base/poll.h"
#include "base/status.h"
#include "tunnel/bootstrap.h"
#include "tunnel/forward.h"
#include "tunnel/hops.h"
#include "tunnel/tunnel.h"
#include "cli/options.h"
#include "cli/progress.h"

#define TARGET_SIZE 256

static bool
waits_for_targets(const struct progress *p)
{
	const struct options *o = p->options;
	const struct forward *f;

	if (*p->ready || (o->wait_s == 0 && o->command == NULL))
		return false;
	for (f = o->forwards; f < o->forwards + o->n_forwards; f++)
		if (f->kind == FORWARD_NEAR && f->state != FORWARD_READY)
			return true;
	return false;
}

static enum progress_phase
find_phase(const struct progress *p)
{
	const struct bootstrap_facts *b = tunnel_bootstrap(p->tunnel);
	enum tunnel_state state = tunnel_state(p->tunnel);

	if (state == TUNNEL_UP && waits_for_targets(p))
		return PROGRESS_WAIT;
	if (state == TUNNEL_BACKOFF && !tunnel_awaits_login(p->tunnel))
		return PROGRESS_DOWN;
	if (state != TUNNEL_STARTING)
		return PROGRESS_NONE;
	if (!b->answered)
		return PROGRESS_LOGIN;
	return b->state == BOOTSTRAP_UPLOADING ? PROGRESS_COPY : PROGRESS_START;
}

/* Write the target of -L, or the number of targets. */
static void
name_targets(const struct options *o, char *dst, size_t size)
{
	const struct forward *f, *last = NULL;
	int n = 0;

	for (f = o->forwards; f < o->forwards + o->n_forwards; f++)
		if (f->kind == FORWARD_NEAR) {
			last = f;
			n++;
		}
	if (n == 1)
		snprintf(dst, size, "%s", last->to_text);
	else
		snprintf(dst, size, "%d targets", n);
}

/* Draw the phase, or write that it is done. */
static void
report(struct progress *p, const struct pollset *ps, bool done)
{
	struct step s = { .name = tunnel_name(p->tunnel), .began_at = p->began_at };
	char path[HOPS_PATH], targets[TARGET_SIZE], what[TARGET_SIZE + 32];

	switch (p->phase) {
	case PROGRESS_LOGIN:
		s.name = hops_path(&p->options->hops, path, sizeof(path));
		s.what = done ? "reached" : "reaching";
		break;
	case PROGRESS_COPY:
		s.all = tunnel_bootstrap(p->tunnel)->upload_size;
		s.done = done ? s.all : tunnel_copied(p->tunnel);
		s.what = done ? "relay copied" : "copying relay";
		break;
	case PROGRESS_START:
		s.what = "starting relay";
		break;
	case PROGRESS_WAIT:
		name_targets(p->options, targets, sizeof(targets));
		snprintf(what, sizeof(what), done ? "%s: ready" : "waiting for %s", targets);
		s.what = what;
		break;
	case PROGRESS_DOWN:
		s.ends_at = tunnel_next_start(p->tunnel);
		s.what = "reconnecting in";
		break;
	case PROGRESS_NONE:
		return;
	}
	if (done)
		status_done(&s, ps->now);
	else
		p->draw_at = status_draw(&s, ps->now);
}

static void
change_phase(struct progress *p, enum progress_phase next, const struct pollset *ps)
{
	enum tunnel_state state = tunnel_state(p->tunnel);
	bool works = state == TUNNEL_STARTING || state == TUNNEL_UP;

	status_clear();
	if (works && p->phase != PROGRESS_START && p->phase != PROGRESS_DOWN)
		report(p, ps, true);
	p->phase = next;
	p->began_at = p->draw_at = ps->now;
}

void
progress_show(struct progress *p, struct pollset *ps)
{
	enum progress_phase phase = p->tunnel == NULL ? PROGRESS_NONE : find_phase(p);

	if (phase != p->phase)
		change_phase(p, phase, ps);
	if (phase == PROGRESS_NONE || (phase == PROGRESS_LOGIN && tunnel_can_ask(p->tunnel)))
		return;
	if (ps->now >= p->draw_at)
		report(p, ps, false);
	pollset_until(ps, p->draw_at);
}
