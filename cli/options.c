/*
 * options.c - the command line: one table of the options, then sources, targets and hops.
 *
 * A mistake there ends relay before anything is started, with one line that shows a correct form.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "net/endpoint.h"
#include "net/sock.h"
#include "tunnel/forward.h"
#include "tunnel/hops.h"
#include "relay.h"
#include "cli/options.h"

#define MOST 1000000 /* seconds: their milliseconds fit an int */

enum option_kind {
	KIND_FLAG,
	KIND_COUNT,
	KIND_SECONDS,
	KIND_TEXT,
	KIND_FORWARD,
	KIND_LEVEL,
	KIND_MODE,
	KIND_SHOW,
};

/* The sizeof makes the compiler warn if ${field} has another type than parse_option writes. */
#define AT(type, field) (offsetof(struct options, field) + 0 * sizeof(&UNREAD->field == (type *)0))
#define UNREAD ((const struct options *)0)

/* Kind, field and bounds of a row.  A level or mode is stored as the lower bound. */
#define FLAG(field) KIND_FLAG, AT(bool, field), 0, 0
#define COUNT(field, least, most) KIND_COUNT, AT(long, field), least, most
#define SECONDS(field, least, most) KIND_SECONDS, AT(int, field), least, most
#define TEXT(field) KIND_TEXT, AT(const char *, field), 0, 0
#define FORWARD KIND_FORWARD, 0, 0, 0
#define LEVEL(level) KIND_LEVEL, 0, level, 0
#define MODE(mode) KIND_MODE, 0, mode, 0
#define SHOW KIND_SHOW, 0, 0, 0

/*
 * Usage, getopt string and completions come from here.  A new option needs a row,
 * a field in options.h and a paragraph in relay.1.
 */
static const struct option_row {
	char letter;
	const char *argument; /* its name in relay -h; empty: none */
	enum option_kind kind;
	size_t field;
	long least, most;
	const char *help;
} table[] = {
	{ 'a', "", FLAG(any_uid), "let every user connect to the loopback ports" },
	{ 'c', "NUMBER", COUNT(max_conns, 1, MOST), "serve at most NUMBER connections at a time" },
	{ 'D', "[BIND:]PORT", FORWARD, "listen here as a SOCKS proxy, connect from the last hop" },
	{ 'e', "COMMAND", TEXT(rsh), "run COMMAND instead of ssh for the first hop" },
	{ 'F', "", MODE(MODE_FDPASS), "connect, pass the socket to ssh on stdout, and exit" },
	{ 'f', "", FLAG(background), "go to the background when ready" },
	{ 'h', "", SHOW, "print this help on stdout" },
	{ 'i', "SECONDS", SECONDS(idle_ms, 1, MOST), "exit after SECONDS without a connection" },
	{ 'L', "FROM:TO", FORWARD, "listen on FROM here, connect to TO from the last hop" },
	{ 'm', "", MODE(MODE_LINK_NEAR), "carry all connections over one command: a link" },
	{ 'n', "", MODE(MODE_CHECK), "check each step of a tunnel, report it, forward nothing" },
	{ 'P', "FILE", TEXT(pid_path), "write the process ID to FILE" },
	{ 'q', "", LEVEL(LOG_ERROR), "log errors only" },
	{ 'R', "FROM:TO", FORWARD, "listen on FROM on the last hop, connect to TO from here" },
	{ 't', "SECONDS", SECONDS(target.each_ms, 1, MOST),
	    "try an address for SECONDS (default 10)" },
	{ 'V', "", SHOW, "print the version on stdout" },
	{ 'v', "", LEVEL(LOG_INFO), "log each connection" },
	{ 'W', "TO", FORWARD, "connect stdin and stdout to TO from the last hop" },
	{ 'w', "SECONDS", SECONDS(wait_ms, 0, MOST), "retry an unavailable target for SECONDS" },
	{ 'x', "PATH", TEXT(far_path), "run the relay at PATH on the last hop, copy nothing" },
	{ 'z', "", MODE(MODE_PROBE), "connect, transfer nothing, exit with status 0 or 1" },
};

#define OPTIONS (sizeof(table) / sizeof(table[0]))

static void
fail_usage(const char *what)
{
	log_say(LOG_ERROR, "%s (relay -h shows how)", what);
	exit(STATUS_USAGE);
}

static void
print_usage(void)
{
	const struct option_row *row;

	fputs("usage: relay [options] FROM TO\n"
	      "       relay [options] FROM -- COMMAND [ARG ...]\n"
	      "       relay [options] -L FROM:TO | -R FROM:TO | -D PORT | -W TO ... HOP ...\n"
	      "       relay -n [options] [-L FROM:TO ...] HOP ...\n"
	      "       relay -m [options] FROM -- COMMAND [ARG ...]\n"
	      "       relay -m [options] - [TO]\n"
	      "       relay -z | -F [options] TO\n"
	      "The source FROM and the target TO are PORT, HOST:PORT, [IPv6]:PORT, *:PORT,\n"
	      "a path with a / (Unix socket), or - (stdin and stdout).\n"
	      "A HOP is an ssh destination, or, if it contains a blank, a command that runs\n"
	      "its arguments on the next host: 'srun --jobid=7 --overlap -u'.\n",
	    stdout);
	for (row = table; row < table + OPTIONS; row++)
		printf(
		    "  -%c %-11s  %s\n", row->letter, row->argument, row->help); /* [BIND:]PORT */
}

/* -h, -V */
static void
show(char letter)
{
	if (letter == 'V')
		puts("relay " RELAY_VERSION);
	else
		print_usage();
	exit(fflush(stdout) == 0 && !ferror(stdout) ? STATUS_OK : STATUS_SYSTEM);
}

static long
number(const struct option_row *row, const char *text)
{
	char why[160], *end;
	long n;

	errno = 0;
	n = strtol(text, &end, 10);
	if (*text == '\0' || *end != '\0' || errno != 0 || n < row->least || n > row->most) {
		snprintf(why, sizeof(why),
		    "-%c \"%.40s\": a whole number from %ld to %ld, as in -%c %ld", row->letter,
		    text, row->least, row->most, row->letter, row->least + 9);
		fail_usage(why);
	}
	return n;
}

static void
add_forward(struct options *o, int kind, const char *text)
{
	char why[SOCK_PATH_MAX + 256];

	if (o->n_forwards == OPTIONS_FORWARDS)
		fail_usage("a tunnel carries at most 32 of -L, -R and -D");
	if (!forward_parse(&o->forwards[o->n_forwards++], (char)kind, text, why, sizeof(why)))
		fail_usage(why);
}

static void
set_mode(struct options *o, enum mode mode)
{
	if (o->mode != MODE_DIRECT && o->mode != mode)
		fail_usage("-F, -m, -n and -z exclude each other");
	o->mode = mode;
}

static void
set_level(struct options *o, enum log_level level)
{
	o->level = level;
	log_show(level);
}

static void
parse_option(struct options *o, const struct option_row *row, const char *text)
{
	void *field = (char *)o + row->field;

	switch (row->kind) {
	case KIND_FLAG:
		*(bool *)field = true;
		break;
	case KIND_COUNT:
		*(long *)field = number(row, text);
		break;
	case KIND_SECONDS:
		*(int *)field = (int)number(row, text) * 1000;
		break;
	case KIND_TEXT:
		*(const char **)field = text;
		break;
	case KIND_FORWARD:
		add_forward(o, row->letter, text);
		break;
	case KIND_LEVEL:
		set_level(o, (enum log_level)row->least);
		break;
	case KIND_MODE:
		set_mode(o, (enum mode)row->least);
		break;
	case KIND_SHOW:
		show(row->letter);
		break;
	}
}

static const struct option_row *
find_option(int letter)
{
	const struct option_row *row;

	for (row = table; row < table + OPTIONS; row++)
		if (row->letter == letter)
			return row;
	return NULL;
}

/* With a colon first, getopt(3) prints nothing, and a missing argument is a ':'. */
static void
getopt_string(char dst[2 * OPTIONS + 2])
{
	const struct option_row *row;

	*dst++ = ':';
	for (row = table; row < table + OPTIONS; row++) {
		*dst++ = row->letter;
		if (*row->argument != '\0')
			*dst++ = ':';
	}
	*dst = '\0';
}

/* Returns the index of the first word after the options. */
static int
parse_table(struct options *o, int argc, char *argv[])
{
	char letters[2 * OPTIONS + 2], why[64];
	const struct option_row *row;
	int c;

	o->target.each_ms = 10000;
	o->level = LOG_NOTICE;
	getopt_string(letters);
	while ((c = getopt(argc, argv, letters)) != -1) {
		row = find_option(c);
		if (row != NULL) {
			parse_option(o, row, optarg);
			continue;
		}
		snprintf(why, sizeof(why),
		    c == ':' ? "-%c requires an argument" : "unknown option -%c", optopt);
		fail_usage(why);
	}
	return optind;
}

static void
parse_end(struct endpoint *ep, const char *text, bool listens)
{
	char why[ENDPOINT_NAME + 256];

	if (!endpoint_parse(ep, text, listens, why, sizeof(why)))
		fail_usage(why);
}

/* -z and -F: the only end is TO; a FROM of "-" may stand before it. */
static void
parse_target_only(struct options *o, int n, char *argv[])
{
	if (n == 2 && strcmp(argv[0], "-") == 0) {
		argv++;
		n--;
	}
	if (n != 1)
		fail_usage("-z and -F take one end, TO");
	parse_end(&o->target.to, argv[0], false);
	if (o->target.to.kind == ENDPOINT_STDIO)
		fail_usage("-z and -F connect: TO is a port or a socket path");
	o->from.kind = ENDPOINT_STDIO;
}

static void
parse_ends(struct options *o, int n, char *argv[])
{
	if (n < 2)
		fail_usage(n == 0 ? "FROM and TO are missing" : "TO is missing");
	parse_end(&o->from, argv[0], true);
	if (strcmp(argv[1], "--") == 0) {
		if (n == 2 || *argv[2] == '\0')
			fail_usage("the command after -- is missing");
		endpoint_command(&o->target.to, argv + 2);
		return;
	}
	if (n > 2)
		fail_usage(
		    "there are words after TO; options stand before FROM, and a command after --");
	parse_end(&o->target.to, argv[1], false);
	if (o->from.kind == ENDPOINT_STDIO && o->target.to.kind == ENDPOINT_STDIO)
		fail_usage("FROM and TO are both stdin and stdout");
}

/* -m: near with a command, or far on stdin and stdout. */
static void
parse_link(struct options *o, int n, char *argv[])
{
	if (n >= 2 && strcmp(argv[1], "--") == 0) {
		parse_ends(o, n, argv);
		return;
	}
	if (n == 0 || strcmp(argv[0], "-") != 0)
		fail_usage(
		    "-m is relay -m FROM -- COMMAND on this side, relay -m - [TO] on the other");
	if (n > 2)
		fail_usage("there are words after TO; options stand before FROM");
	o->mode = MODE_LINK_FAR;
	o->from.kind = ENDPOINT_STDIO;
	o->target.to.kind = ENDPOINT_STDIO; /* none */
	if (n == 2) {
		parse_end(&o->target.to, argv[1], false);
		if (o->target.to.kind == ENDPOINT_STDIO)
			fail_usage("FROM and TO are both stdin and stdout");
	}
}

/* The options that the far relay is started with. */
static void
far_options(struct options *o)
{
	const char *level = o->level == LOG_ERROR ? " -q" : o->level == LOG_INFO ? " -v" : "";
	char wait[16] = "";

	if (o->wait_ms > 0)
		snprintf(wait, sizeof(wait), " -w %d", o->wait_ms / 1000);
	snprintf(o->far_options, sizeof(o->far_options), "-m -t %d%s%s%s -",
	    o->target.each_ms / 1000, wait, o->any_uid ? " -a" : "", level);
}

static void
parse_tunnel(struct options *o, int n, char *argv[], const char *name)
{
	const char *rsh = getenv("RELAY_SSH");
	char why[512];
	int i;

	if (n == 0)
		fail_usage("a tunnel needs a hop, as in relay -L 8888:localhost:8888 me@login");
	for (i = 0; i < o->n_forwards && o->n_forwards > 1; i++)
		if (o->forwards[i].kind == FORWARD_STDIO)
			fail_usage("-W stands alone: stdin and stdout go to one place");
	if (o->rsh == NULL)
		o->rsh = rsh != NULL && *rsh != '\0' ? rsh : "ssh";
	if (!hops_parse(&o->hops, argv, n, o->rsh, why, sizeof(why)))
		fail_usage(why);
	if (!os_self(name, o->self, sizeof(o->self)))
		snprintf(o->self, sizeof(o->self), "%s", name);
	far_options(o);
	endpoint_command(&o->target.to, o->hops.argv);
	if (o->n_forwards > 0)
		o->from = o->forwards[0].from;
}

/* The rules between options, once all were read. */
static void
check_table(struct options *o)
{
	if (o->n_forwards > 0 && o->mode == MODE_DIRECT)
		o->mode = MODE_TUNNEL;
	if (o->n_forwards > 0 && o->mode == MODE_LINK_NEAR)
		fail_usage("-m takes a command, -L, -R, -D and -W take hops: use one of them");
	if (o->n_forwards > 0 && !options_tunnel(o))
		fail_usage("-L, -R, -D and -W go with neither -z nor -F");
	if (!options_tunnel(o) && (o->rsh != NULL || o->far_path != NULL))
		fail_usage("-e and -x belong to a tunnel: -L, -R, -D or -W");
}

static void
parse_words(struct options *o, int n, char *argv[], const char *name)
{
	switch (o->mode) {
	case MODE_TUNNEL:
	case MODE_CHECK:
		parse_tunnel(o, n, argv, name);
		break;
	case MODE_LINK_NEAR:
	case MODE_LINK_FAR:
		parse_link(o, n, argv);
		break;
	case MODE_PROBE:
	case MODE_FDPASS:
		parse_target_only(o, n, argv);
		break;
	case MODE_DIRECT:
		parse_ends(o, n, argv);
		break;
	}
}

void
options_parse(struct options *o, int argc, char *argv[])
{
	int at = parse_table(o, argc, argv);

	check_table(o);
	parse_words(o, argc - at, argv + at, argv[0]);
	if (o->background && o->mode == MODE_CHECK)
		fail_usage("-n reports and ends: it goes without -f");
	if (o->background &&
	    (o->from.kind == ENDPOINT_STDIO || o->target.to.kind == ENDPOINT_STDIO))
		fail_usage("-f needs a listener as FROM and leaves stdin and stdout behind");
}

bool
options_tunnel(const struct options *o)
{
	return o->mode == MODE_TUNNEL || o->mode == MODE_CHECK;
}

bool
options_linked(const struct options *o)
{
	return o->mode == MODE_LINK_NEAR || o->mode == MODE_LINK_FAR || options_tunnel(o);
}

bool
options_one_shot(const struct options *o)
{
	if (o->mode == MODE_DIRECT)
		return o->from.kind == ENDPOINT_STDIO || o->target.to.kind == ENDPOINT_STDIO;
	return (o->mode == MODE_LINK_NEAR || o->mode == MODE_TUNNEL) &&
	       o->from.kind == ENDPOINT_STDIO;
}
