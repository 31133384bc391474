/* tunnel/probe.c - tests of a tunnel that carry no connection. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/poll.h"
#include "mux/frame.h"
#include "mux/mux.h"
#include "tunnel/bootstrap.h"
#include "tunnel/forward.h"
#include "tunnel/hops.h"
#include "tunnel/keeper.h"
#include "tunnel/serve.h"
#include "tunnel/tunnel.h"
#include "relay.h"
#include "tunnel/probe.h"

#define BYTE_VALUES 256
#define BYTES_WAIT 10000000   /* us, until all byte values are back; in a message */
#define SESSIONS_WAIT 2000000 /* us, until each keeper has answered */
#define SESSIONS 16384
#define BANNER_SHOWN 80

struct probe {
	struct probe *next;
	struct forward *forward;
	struct stream *stream;
	bool quiet;
	bool checks; /* probe_check */
};

/*
 *   reaches --shell answers--> starts --link up--> bytes --> sessions -->
 *   targets --> done
 *
 * Only the last hop has sessions and targets.  After done, the next tunnel may
 * start.  A tunnel that ends in another state ends the run, except if
 * is_only_passed().
 */
enum run_state {
	RUN_REACHES,
	RUN_STARTS,
	RUN_BYTES,
	RUN_SESSIONS,
	RUN_TARGETS,
	RUN_DONE,
	RUN_FAILED
};

struct probe_run {
	enum run_state state;
	struct tunnel *tunnel;
	const struct hops *all;
	struct forward *forwards;
	int n_forwards;
	struct hops hops;      /* the first hops of ${all}: the tunnel leads through these */
	int64_t end_after;     /* in s; -1: end no session */
	struct stream *stream; /* RUN_BYTES: to the echo, RUN_SESSIONS: to the list */
	char got[SESSIONS];    /* what was read from it */
	size_t n_got;
	int64_t started_at; /* of the tunnel */
	int64_t give_up_at; /* of the stream */
};

/* ---- target probes ---- */

/* NULL: no memory, or too many streams are open. */
static struct probe *
add(struct probes *tab, struct mux *m, struct forward *f, const char *target)
{
	struct probe *p = calloc(1, sizeof(*p)), **at = &tab->first;

	if (p != NULL)
		p->stream = mux_open(m, target);
	if (p == NULL || p->stream == NULL) {
		free(p);
		return NULL;
	}
	p->forward = f;
	while (*at != NULL)
		at = &(*at)->next;
	*at = p;
	return p;
}

void
probe_check(struct probes *tab, struct mux *m, struct forward *f)
{
	char target[FRAME_TARGET + 1];
	struct probe *p;

	snprintf(target, sizeof(target), SERVE_CHECK "%s", f->to_text);
	p = add(tab, m, f, target);
	if (p != NULL)
		p->checks = true;
}

void
probe_target(struct probes *tab, struct mux *m, struct forward *f, bool quiet)
{
	struct probe *p = add(tab, m, f, f->to_text);

	if (p == NULL) {
		log_say(LOG_ERROR, "cannot test %s on %s: no memory, or too many streams are open",
		    f->to_text, mux_peer(m));
		f->state = FORWARD_REFUSED;
		return;
	}
	p->quiet = quiet;
	f->state = FORWARD_ASKED;
}

/* The answer is a reset with this code. */
static bool
step_check(struct probe *p)
{
	if (!stream_is_closed(p->stream))
		return !stream_is_opened(p->stream);
	if (stream_code(p->stream) == MUX_REFUSED)
		log_say(LOG_NOTICE,
		    "%s: no process listens on %s yet; connections work when one does",
		    mux_peer(stream_mux(p->stream)), p->forward->to_text);
	return false;
}

/* Return false once the stream can be released. */
static bool
step(struct probe *p)
{
	if (p->checks)
		return step_check(p);
	if (stream_is_closed(p->stream)) {
		if (p->forward->state == FORWARD_ASKED) {
			serve_log_refusal(
			    p->stream, p->quiet ? LOG_INFO : LOG_ERROR, p->forward->to_text);
			p->forward->state = FORWARD_REFUSED;
		}
		return false;
	}
	if (stream_is_opened(p->stream) && p->forward->state == FORWARD_ASKED) {
		p->forward->state = FORWARD_READY;
		/* A reset would be passed on to the target. */
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

/* ---- the report ---- */

/* Parts of the line come from far hosts: remove control characters. */
static void
report(const struct probe_run *p, const char *verdict, const char *fmt, ...)
{
	char text[2048], line[4096];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	snprintf(line, sizeof(line), "%-4s  %s: %s", verdict, hops_last(&p->hops), text);
	log_plain(line, ' ');
	puts(line);
	fflush(stdout);
}

static void
drop_stream(struct probe_run *p)
{
	if (p->stream != NULL)
		stream_release(p->stream);
	p->stream = NULL;
}

/* End the tunnel.  After STATUS_OK the next one starts. */
static void
stop(struct probe_run *p, int status)
{
	p->state = status == STATUS_OK ? RUN_DONE : RUN_FAILED;
	tunnel_stop(p->tunnel, status);
}

static void
fail(struct probe_run *p, int status, const char *why, const char *more)
{
	report(p, "FAIL", "%s%s", why, more);
	stop(p, status);
}

/* Open a stream to ${target}, and send ${n} bytes and EOF. */
static void
open_stream(struct probe_run *p, const char *target, const void *bytes, size_t n)
{
	p->n_got = 0;
	p->stream = mux_open(tunnel_mux(p->tunnel), target);
	if (p->stream == NULL || !buf_put(stream_tx(p->stream), bytes, n)) {
		fail(p, STATUS_SYSTEM, "no memory", "");
		return;
	}
	stream_push(p->stream);
	stream_shutdown(p->stream);
}

/* ---- one tunnel ---- */

static void
report_reached(struct probe_run *p, int64_t now)
{
	if (p->state != RUN_REACHES)
		return;
	p->state = RUN_STARTS;
	report(p, "ok", "reached in %lld ms", (long long)(now - p->started_at) / 1000);
}

static void
report_banner(const struct probe_run *p)
{
	size_t n;
	const char *banner = tunnel_banner(p->tunnel, &n);

	if (n > 0)
		report(p, "note", "its shells print %zu bytes first, which are skipped: %.*s%s", n,
		    BANNER_SHOWN, banner, n > BANNER_SHOWN ? " ..." : "");
}

static void
send_bytes(struct probe_run *p, int64_t now)
{
	unsigned char all[BYTE_VALUES];
	unsigned i;

	for (i = 0; i < BYTE_VALUES; i++)
		all[i] = (unsigned char)i;
	p->state = RUN_BYTES;
	p->give_up_at = now + BYTES_WAIT;
	open_stream(p, SERVE_ECHO, all, sizeof(all));
}

void
probe_run_up(struct probe_run *p, int64_t now)
{
	const struct bootstrap_facts *b = tunnel_bootstrap(p->tunnel);

	report_reached(p, now);
	report_banner(p);
	report(p, "ok", "a relay runs there%s, on the host %s%s%s",
	    b->uploads > 0 ? ", copied just now" : "", mux_peer(tunnel_mux(p->tunnel)),
	    *b->path != '\0' ? ": " : "", b->path);
	mux_name_peer(tunnel_mux(p->tunnel), hops_last(&p->hops));
	send_bytes(p, now);
}

static void
take(struct probe_run *p)
{
	size_t n = buf_take(stream_rx(p->stream), p->got + p->n_got, sizeof(p->got) - 1 - p->n_got);

	stream_consumed(p->stream, n);
	p->n_got += n;
}

/* Are the bytes that have come back equal to those sent? */
static bool
are_unchanged(const struct probe_run *p)
{
	size_t i;

	for (i = 0; i < p->n_got; i++)
		if (i == BYTE_VALUES || (unsigned char)p->got[i] != i)
			return false;
	return true;
}

static bool
has_all_bytes(const struct probe_run *p)
{
	return p->n_got == BYTE_VALUES && stream_eof_read(p->stream);
}

static void
test_targets(struct probe_run *p)
{
	struct tunnel *t = p->tunnel;
	struct forward *f;

	p->state = RUN_TARGETS;
	for (f = p->forwards; f < p->forwards + p->n_forwards; f++) {
		f->state = FORWARD_READY;
		if (f->kind != FORWARD_SOCKS)
			tunnel_try(t, f, false);
	}
}

/* ---- the sessions on the last hop ---- */

static void
ask_for_sessions(struct probe_run *p, int64_t now)
{
	char target[64] = SERVE_SESSIONS KEEPER_LIST;

	if (p->end_after >= 0)
		snprintf(target, sizeof(target), SERVE_SESSIONS KEEPER_END "%lld",
		    (long long)p->end_after);
	p->state = RUN_SESSIONS;
	p->give_up_at = now + SESSIONS_WAIT;
	open_stream(p, target, "", 0);
}

/* A line has the name of a session, and its age or the answer of its keeper. */
struct line {
	const char *name, *text;
};

static bool
is_age(const struct line *l)
{
	return strspn(l->text, "0123456789") == strlen(l->text);
}

static const char *
find_answer(const struct line *lines, size_t n, const char *name)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (!is_age(&lines[i]) && strcmp(lines[i].name, name) == 0)
			return lines[i].text;
	return "its relay does not answer";
}

static const char *
age(long seconds, char *dst, size_t size)
{
	if (seconds < 120)
		snprintf(dst, size, "%ld s", seconds);
	else if (seconds < 120 * 60)
		snprintf(dst, size, "%ld min", seconds / 60);
	else if (seconds < 48 * 3600)
		snprintf(dst, size, "%ld h", seconds / 3600);
	else
		snprintf(dst, size, "%ld days", seconds / 86400);
	return dst;
}

static void
report_sessions(struct probe_run *p)
{
	struct line lines[SESSIONS / 16];
	const size_t most = sizeof(lines) / sizeof(lines[0]);
	char *name, *text, room[32];
	size_t n = 0, i;

	p->got[p->n_got] = '\0';
	for (name = strtok(p->got, " "); name != NULL && n < most; name = strtok(NULL, " ")) {
		text = strtok(NULL, "\n");
		if (text != NULL)
			lines[n++] = (struct line){ name, text };
	}
	for (i = 0; i < n; i++)
		if (is_age(&lines[i]))
			report(p, "note", "session %s: %s old, %s", lines[i].name,
			    age(strtol(lines[i].text, NULL, 10), room, sizeof(room)),
			    find_answer(lines, n, lines[i].name));
}

static void
watch_sessions(struct probe_run *p, struct pollset *ps)
{
	take(p);
	if (!stream_eof_read(p->stream) && !stream_is_closed(p->stream) &&
	    p->n_got < sizeof(p->got) - 1 && ps->now < p->give_up_at) {
		pollset_until(ps, p->give_up_at);
		return;
	}
	drop_stream(p);
	report_sessions(p);
	test_targets(p);
}

/* ---- the state of the run ---- */

/* All byte values have come back. */
static void
end_bytes(struct probe_run *p, int64_t rtt_us, int64_t now)
{
	drop_stream(p);
	report(p, "ok", "round trip %lld.%03lld ms", (long long)(rtt_us / 1000),
	    (long long)(rtt_us % 1000));
	report(p, "ok", "all byte values pass, both ways");
	if (p->hops.config.n < p->all->config.n)
		stop(p, STATUS_OK);
	else
		ask_for_sessions(p, now);
}

static void
watch_bytes(struct probe_run *p, struct pollset *ps)
{
	struct mux_stats stats;

	take(p);
	mux_stats(stream_mux(p->stream), &stats);
	if (!are_unchanged(p))
		fail(p, STATUS_LINK, "not all byte values come back unchanged", "");
	else if (has_all_bytes(p) && stats.rtt_us != 0)
		end_bytes(p, stats.rtt_us, ps->now);
	else if (stream_is_closed(p->stream) && !has_all_bytes(p))
		fail(p, STATUS_LINK,
		    "the relay there sends no bytes back: ", stream_reason(p->stream));
	else if (ps->now >= p->give_up_at)
		fail(p, STATUS_LINK, "not all byte values come back within 10 s", "");
	else
		pollset_until(ps, p->give_up_at);
}

static void
report_forward(const struct probe_run *p, const struct forward *f)
{
	bool good = f->state == FORWARD_READY;
	const char *verdict = good ? "ok" : "FAIL";

	if (f->kind == FORWARD_FAR)
		report(p, verdict, "listening on %s %s", f->from_text,
		    good ? "works" : "does not work; the cause is on stderr");
	else if (f->kind != FORWARD_SOCKS)
		report(p, verdict, "the target %s %s", f->to_text,
		    good ? "answers" : "does not answer; the cause is on stderr");
}

static void
watch_targets(struct probe_run *p)
{
	const struct forward *f, *end = p->forwards + p->n_forwards;
	bool good = true;

	for (f = p->forwards; f < end; f++)
		if (f->state == FORWARD_ASKED)
			return;
	for (f = p->forwards; f < end; f++) {
		report_forward(p, f);
		good = good && f->state == FORWARD_READY;
	}
	stop(p, good ? STATUS_OK : STATUS_CONNECT);
}

void
probe_run_want(struct probe_run *p, struct pollset *ps)
{
	if (tunnel_bootstrap(p->tunnel)->answered)
		report_reached(p, ps->now);
	if (!tunnel_carries(p->tunnel))
		return;
	if (p->state == RUN_BYTES)
		watch_bytes(p, ps);
	if (p->state == RUN_SESSIONS)
		watch_sessions(p, ps);
	if (p->state == RUN_TARGETS)
		watch_targets(p);
}

void
probe_run_stop(struct probe_run *p)
{
	stop(p, STATUS_LINK);
}

/* ---- from hop to hop ---- */

struct probe_run *
probe_run_new(
    struct tunnel *t, const struct hops *all, struct forward *forwards, int n, int64_t end_after)
{
	struct probe_run *p = calloc(1, sizeof(*p));

	if (p == NULL)
		return NULL;
	p->state = RUN_DONE;
	p->tunnel = t;
	p->all = all;
	p->forwards = forwards;
	p->n_forwards = n;
	p->end_after = end_after;
	return p;
}

/* Only the last hop needs a relay: a hop before it may be unable to run one. */
static bool
is_only_passed(const struct probe_run *p)
{
	const struct bootstrap_facts *b = tunnel_bootstrap(p->tunnel);

	return p->hops.config.n < p->all->config.n && b->answered && b->state == BOOTSTRAP_FAILED;
}

/* The state of the run explains more than the cause alone. */
static void
report_failure(const struct probe_run *p)
{
	const char *why = tunnel_loss(p->tunnel);

	if (p->state == RUN_BYTES)
		report(p, "FAIL",
		    "the link ended before all byte values came back: %s; does the line change "
		    "bytes?",
		    why);
	else if (tunnel_bootstrap(p->tunnel)->state == BOOTSTRAP_UPLOADING)
		report(p, "FAIL",
		    "the copy of relay is not confirmed: %s; does the line change bytes?", why);
	else
		report(p, "FAIL", "%s", why);
}

/* The tunnel has ended by itself.  False: no other one may start. */
static bool
report_end(struct probe_run *p, int64_t now)
{
	if (tunnel_bootstrap(p->tunnel)->answered)
		report_reached(p, now);
	if (is_only_passed(p)) {
		report(p, "note", "%s", tunnel_loss(p->tunnel));
		report(p, "note",
		    "no relay runs there, so it was not tested whether all byte values pass");
		return true;
	}
	report_failure(p);
	return false;
}

static bool
start_next(struct probe_run *p, int64_t now)
{
	struct hops_config config = p->all->config;
	char why[512];

	config.n = p->hops.config.n + 1;
	/* This cannot fail: options_parse has parsed all hops already. */
	hops_parse(&p->hops, &config, why, sizeof(why));
	p->state = RUN_REACHES;
	p->started_at = now;
	return tunnel_set_hops(p->tunnel, &p->hops) && tunnel_start(p->tunnel, now) == STATUS_OK;
}

bool
probe_run_next(struct probe_run *p, int64_t now)
{
	bool goes_on = p->state == RUN_DONE;

	if (p->state != RUN_DONE && p->state != RUN_FAILED)
		goes_on = report_end(p, now);
	drop_stream(p);
	return goes_on && p->hops.config.n < p->all->config.n && start_next(p, now);
}
