/* tunnel/probe.c - is the target of a forward there? */
#include <stdlib.h>

#include "base/log.h"
#include "mux/mux.h"
#include "tunnel/forward.h"
#include "tunnel/probe.h"

struct probe {
	struct probe *next;
	struct forward *forward;
	struct stream *stream;
};

bool
probe_target(struct probes *tab, struct mux *m, struct forward *f)
{
	struct probe *p = calloc(1, sizeof(*p));

	if (p != NULL)
		p->stream = mux_open(m, f->to_text);
	if (p == NULL || p->stream == NULL) {
		free(p);
		log_say(LOG_ERROR, "cannot ask %s for %s: no memory, or the link carries no more",
		    mux_peer(m), f->to_text);
		f->state = FORWARD_REFUSED;
		return false;
	}
	p->forward = f;
	f->state = FORWARD_ASKS;
	p->next = tab->first;
	tab->first = p;
	return true;
}

static void
report_refused(const struct stream *s)
{
	const struct mux *m = stream_mux(s);

	if (mux_state(m) != MUX_DEAD && stream_code(s) != MUX_RESET && *stream_reason(s) != '\0')
		log_say(LOG_ERROR, "%s: %s", mux_peer(m), stream_reason(s));
}

/* Return false once the stream can be released. */
static bool
step(struct probe *p)
{
	if (stream_is_closed(p->stream)) {
		if (p->forward->state == FORWARD_ASKS) {
			report_refused(p->stream);
			p->forward->state = FORWARD_REFUSED;
		}
		return false;
	}
	if (stream_is_opened(p->stream) && p->forward->state == FORWARD_ASKS) {
		p->forward->state = FORWARD_STANDS;
		/* A clean end for the target, which may have sent something already. */
		stream_shutdown(p->stream);
		stream_stop(p->stream);
	}
	return !stream_eof_sent(p->stream);
}

void
probe_step(struct probes *tab)
{
	struct probe **at = &tab->first, *p;

	while ((p = *at) != NULL) {
		if (step(p)) {
			at = &p->next;
			continue;
		}
		*at = p->next;
		stream_release(p->stream);
		free(p);
	}
}
