/*
 * base/status.c - what relay is doing now, as one line of a terminal.
 *
 * The last column stays empty: a character there makes some terminals wrap.
 * Each character counts as one column.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "base/status.h"

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

/* ---- the parts of a line ---- */

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

/* ---- the line ---- */

int64_t
status_draw(const struct step *s, int64_t now)
{
	char line[LINE_SIZE];

	if (!log_on_terminal())
		return INT64_MAX;
	compose(line, s, false, now);
	return now + (log_live(line) && s->ends_at == 0 ? FRAME : SECOND);
}

void
status_done(const struct step *s, int64_t now)
{
	char line[LINE_SIZE];

	if (!log_on_terminal())
		return;
	compose(line, s, true, now);
	log_above(line);
}

void
status_clear(void)
{
	log_live("");
}
