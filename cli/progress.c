/*
 * cli/progress.c - what a tunnel is doing, on a terminal.
 *
 * The line has a sign, a name, an action, a bar and a time.  The last column
 * stays empty: a character there makes some terminals wrap.  Each character
 * counts as one column.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "base/poll.h"
#include "tunnel/bootstrap.h"
#include "tunnel/forward.h"
#include "tunnel/hops.h"
#include "tunnel/tunnel.h"
#include "cli/options.h"
#include "cli/progress.h"

#define FRAME 100000 /* us between two pictures of the spinner */
#define SECOND 1000000
#define WIDTH 80      /* columns, if the terminal does not report them */
#define WIDTH_MAX 200 /* columns that are used */
#define BAR_LEAST 5   /* columns; a shorter bar is left out */
#define BAR_MOST 24
#define BAR_SIZE (4 + 4 * BAR_MOST) /* bytes; a sign has 3 at most */
#define TEXT_SIZE 1024
#define LINE_SIZE 2000

#define CYAN "\033[36m"
#define GREEN "\033[32m"
#define FAINT "\033[2m"
#define NORMAL "\033[0m"

struct step {
	const char *name; /* a host, or hosts */
	const char *what; /* the action */
	int64_t began_at;
	int64_t ends_at;  /* not 0: the seconds until then are shown */
	size_t done, all; /* bytes; all 0: no bar */
};

struct signs {
	const char *spinner[10];
	unsigned spinners;
	const char *tick, *pause, *full, *empty, *cut;
};

static const struct signs utf8 = {
	.spinner = { "⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏" },
	.spinners = 10,
	.tick = "✓",
	.pause = "·",
	.full = "━",
	.empty = "─",
	.cut = "…",
};

static const struct signs ascii = {
	.spinner = { "|", "/", "-", "\\" },
	.spinners = 4,
	.tick = "+",
	.pause = ".",
	.full = "#",
	.empty = "-",
	.cut = "~",
};

/* ---- the terminal ---- */

/* The console of Linux has no font for the signs of UTF-8. */
static const struct signs *
choose_signs(void)
{
	static const char *const names[] = { "LC_ALL", "LC_CTYPE", "LANG" };
	const char *locale = NULL, *term = getenv("TERM"), *codeset;
	size_t i;

	for (i = 0; i < 3 && (locale == NULL || *locale == '\0'); i++)
		locale = getenv(names[i]);
	if (locale == NULL || (term != NULL && strcmp(term, "linux") == 0))
		return &ascii;
	codeset = strrchr(locale, '.');
	codeset = codeset == NULL ? locale : codeset + 1;
	return strncasecmp(codeset, "UTF-8", 5) == 0 || strncasecmp(codeset, "UTF8", 4) == 0
		   ? &utf8
		   : &ascii;
}

static size_t
read_width(void)
{
	const char *text = getenv("COLUMNS");
	long width = os_columns(STDERR_FILENO);

	if (width <= 0 && text != NULL)
		width = strtol(text, NULL, 10);
	if (width <= 0)
		width = WIDTH;
	return width > WIDTH_MAX ? WIDTH_MAX : (size_t)width;
}

/* ---- the line ---- */

static size_t
columns(const char *text)
{
	size_t n = 0;

	for (; *text != '\0'; text++)
		n += !log_continues(*text);
	return n;
}

/* Cut ${text} to ${width} columns.  The sign ${mark} in the last marks that. */
static void
cut(char *text, size_t size, size_t width, const char *mark)
{
	size_t n = 0, at = 0;

	if (columns(text) <= width)
		return;
	while (log_continues(text[at]) || ++n < width)
		at++;
	snprintf(text + at, size - at, "%s", width > 0 ? mark : "");
}

static void
write_bar(char *dst, const struct step *s, const struct signs *signs, size_t room)
{
	size_t width = room > BAR_MOST + 2 ? BAR_MOST : room - 2, full, i;

	if (s->all == 0 || room < BAR_LEAST + 2)
		return;
	full = s->done >= s->all ? width : s->done * width / s->all;
	dst = stpcpy(dst, "  ");
	for (i = 0; i < width; i++)
		dst = stpcpy(dst, i < full ? signs->full : signs->empty);
}

/* Write the numbers behind the bar. */
static void
write_tail(char *dst, size_t size, const struct step *s, bool done, int64_t now)
{
	int64_t took = s->ends_at > 0 ? s->ends_at - now + SECOND - 1 : now - s->began_at;
	int n = 0;

	dst[0] = '\0';
	if (took < 0)
		took = 0;
	if (s->all > 0)
		n = snprintf(dst, size, done ? "  %zu KiB" : "  %zu/%zu KiB",
		    ((done ? s->all : s->done) + 1023) / 1024, (s->all + 1023) / 1024);
	if (done && took < 10 * SECOND)
		snprintf(dst + n, size - (size_t)n, "  %d.%d s", (int)(took / SECOND),
		    (int)(took / (SECOND / 10) % 10));
	else if (took >= SECOND)
		snprintf(dst + n, size - (size_t)n, "  %lld s", (long long)(took / SECOND));
}

/* Append ${text}, in ${colour} if that is not "". */
static void
append(char line[LINE_SIZE], const char *text, const char *colour)
{
	bool coloured = *text != '\0' && *colour != '\0';
	size_t n = strlen(line);

	snprintf(line + n, LINE_SIZE - n, "%s%s%s", coloured ? colour : "", text,
	    coloured ? NORMAL : "");
}

/* Write the name and the action.  If the room is small, cut the name first. */
static void
write_text(char dst[TEXT_SIZE], const struct step *s, const char *mark, size_t room)
{
	size_t what = columns(s->what) + 2;
	char name[TEXT_SIZE / 2];

	snprintf(name, sizeof(name), "%s", s->name);
	cut(name, sizeof(name), room > what + room / 3 ? room - what : room / 3, mark);
	snprintf(dst, TEXT_SIZE, "%s  %s", name, s->what);
	log_plain(dst, ' ');
	cut(dst, TEXT_SIZE, room, mark);
}

/*
 * The numbers get their columns first, then the name and the action.  The bar
 * gets the rest.
 */
static void
compose(char line[LINE_SIZE], const struct step *s, bool done, int64_t now)
{
	const struct signs *signs = choose_signs();
	const char *sign = done             ? signs->tick
			   : s->ends_at > 0 ? signs->pause
					    : signs->spinner[now / FRAME % signs->spinners];
	char text[TEXT_SIZE], bar[BAR_SIZE] = "", tail[64];
	size_t width = read_width() - 1, room;
	bool lit = log_in_colour();

	write_tail(tail, sizeof(tail), s, done, now);
	if (columns(tail) + 2 > width)
		tail[0] = '\0';
	room = width > 2 ? width - 2 - columns(tail) : 0;
	write_text(text, s, signs->cut, room);
	if (!done)
		write_bar(bar, s, signs, room - columns(text));
	line[0] = '\0';
	append(line, sign, !lit ? "" : done ? GREEN : CYAN);
	append(line, " ", "");
	append(line, text, "");
	append(line, bar, lit ? CYAN : "");
	append(line, tail, lit ? FAINT : "");
}

/*
 * Show ${s} below all messages or, if it is ${done}, above that line, with a
 * tick and the time that it took.  Return the time of the next draw; INT64_MAX:
 * never.  A draw for each write of a copy would fill the terminal's queue, and
 * messages would be lost.
 */
static int64_t
draw(const struct step *s, bool done, int64_t now)
{
	char line[LINE_SIZE];

	if (!log_on_terminal())
		return INT64_MAX;
	compose(line, s, done, now);
	if (done)
		log_above(line);
	else if (log_live(line) && s->ends_at == 0)
		return now + FRAME;
	return now + SECOND;
}

/* ---- the phases of a tunnel ---- */

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
	const struct forward *f, *first = NULL;
	int n = 0;

	for (f = o->forwards; f < o->forwards + o->n_forwards; f++)
		if (f->kind == FORWARD_NEAR && n++ == 0)
			first = f;
	if (n == 1)
		snprintf(dst, size, "%s", first->to_text);
	else
		snprintf(dst, size, "%d targets", n);
}

/* Draw the phase, or write that it is done. */
static void
report(struct progress *p, const struct pollset *ps, bool done)
{
	struct step s = {
		.name = tunnel_name(p->tunnel), .what = "starting relay", .began_at = p->began_at
	};
	char path[HOPS_PATH], targets[256], what[288];

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
	p->draw_at = draw(&s, done, ps->now);
}

static void
change_phase(struct progress *p, enum progress_phase next, const struct pollset *ps)
{
	enum tunnel_state state = tunnel_state(p->tunnel);
	bool works = state == TUNNEL_STARTING || state == TUNNEL_UP;

	log_live("");
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
