/*
 * options.c - the words of the command line, as a whole: flags, ends, forwards and hops.
 *
 * Whatever is wrong with them ends relay here, with one line that shows a right one, before anything was begun.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "relay.h"

#define SECONDS_MAX 1000000

static const char usage[] =
    "usage: relay [options] FROM TO\n"
    "       relay [options] FROM -- COMMAND [ARG ...]\n"
    "       relay [options] -L FROM:TO | -R FROM:TO | -D PORT | -W TO ... HOP ...\n"
    "       relay -m [options] FROM -- COMMAND [ARG ...]\n"
    "       relay -m [options] - [TO]\n"
    "       relay -z | -F [options] TO\n"
    "An end is PORT, HOST:PORT, [IPv6]:PORT, *:PORT, a path with a / (Unix socket), or - (stdin and stdout).\n"
    "A HOP is an ssh destination, or the words of a command that runs its arguments there: 'srun --jobid=7 -u'.\n"
    "  -a          everybody may connect to a loopback port, not this user and root alone\n"
    "  -c N        at most N connections at a time\n"
    "  -D PORT     a SOCKS proxy, whose connections leave from the last hop\n"
    "  -e COMMAND  the ssh to run for the first hop, as in -e 'ssh -F FILE' (RELAY_SSH)\n"
    "  -f          go to the background once listening, or once the tunnel stands\n"
    "  -F          connect, hand the socket to ssh (ProxyUseFdpass) and exit\n"
    "  -i SECONDS  end when nothing was connected for so long\n"
    "  -L FROM:TO  listen here, connect from the last hop; -R: listen there, connect from here\n"
    "  -m          all connections share one COMMAND, whose end is relay -m - there: a link\n"
    "  -n          try each step of a tunnel and report; forward nothing\n"
    "  -P FILE     write the process id to FILE\n"
    "  -q, -v      say errors only; say a line for each connection\n"
    "  -t SECONDS  give up on an address after SECONDS (10)\n"
    "  -w SECONDS  keep trying for SECONDS until the target is there\n"
    "  -W TO       join stdin and stdout to TO beyond the last hop\n"
    "  -x PATH     the relay to use on the last hop; nothing is copied\n"
    "  -z          connect, say nothing, exit 0 or 1\n"
    "  -h, -V      show this, the version\n";

static void
fail_usage(const char *what)
{
	log_say(LOG_ERROR, "%s (relay -h shows how)", what);
	exit(STATUS_USAGE);
}

static long
number(char opt, const char *text, long min, long max)
{
	char why[160], *end;
	long n;

	errno = 0;
	n = strtol(text, &end, 10);
	if (*text == '\0' || *end != '\0' || errno != 0 || n < min || n > max) {
		snprintf(why, sizeof(why), "-%c \"%.40s\": a whole number from %ld to %ld, as in -%c %ld", opt, text, min, max,
		    opt, min + 9);
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

/* Returns the index of the first word that is no option. */
static int
parse_flags(struct options *o, int argc, char *argv[])
{
	char why[64];
	int c;

	o->each_ms = 10000;
	while ((c = getopt(argc, argv, ":ac:D:e:fFhi:L:mnP:qR:t:vVw:W:x:z")) != -1) {
		switch (c) {
		case 'a':
			o->anybody = true;
			break;
		case 'c':
			o->max_pairs = number('c', optarg, 1, 1000000);
			break;
		case 'D':
		case 'L':
		case 'R':
		case 'W':
			add_forward(o, c, optarg);
			break;
		case 'e':
			o->rsh = optarg;
			break;
		case 'F':
			o->fdpass = true;
			break;
		case 'f':
			o->background = true;
			break;
		case 'h':
			exit(fputs(usage, stdout) >= 0 && fflush(stdout) == 0 ? STATUS_OK : STATUS_SYSTEM);
		case 'i':
			o->idle_ms = (int)number('i', optarg, 1, SECONDS_MAX) * 1000;
			break;
		case 'm':
			o->linked = true;
			break;
		case 'n':
			o->doctor = true;
			break;
		case 'P':
			o->pidfile = optarg;
			break;
		case 'q':
			o->quiet = true;
			log_show(LOG_ERROR);
			break;
		case 't':
			o->each_ms = (int)number('t', optarg, 1, SECONDS_MAX) * 1000;
			break;
		case 'V':
			exit(puts("relay " RELAY_VERSION) >= 0 && fflush(stdout) == 0 ? STATUS_OK : STATUS_SYSTEM);
		case 'v':
			o->verbose = true;
			log_show(LOG_INFO);
			break;
		case 'w':
			o->wait_ms = (int)number('w', optarg, 0, SECONDS_MAX) * 1000;
			break;
		case 'x':
			o->far_path = optarg;
			break;
		case 'z':
			o->probe = true;
			break;
		default:
			snprintf(why, sizeof(why), c == ':' ? "-%c wants a value" : "there is no option -%c", optopt);
			fail_usage(why);
		}
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
	parse_end(&o->to, argv[0], false);
	if (o->to.kind == ENDPOINT_STDIO)
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
		endpoint_command(&o->to, argv + 2);
		return;
	}
	if (n > 2)
		fail_usage("there are words after TO; options stand before FROM, and a command after --");
	parse_end(&o->to, argv[1], false);
	if (o->from.kind == ENDPOINT_STDIO && o->to.kind == ENDPOINT_STDIO)
		fail_usage("FROM and TO are both stdin and stdout");
}

/* -m: near with a command, or far on stdin and stdout. */
static void
parse_link(struct options *o, int n, char *argv[])
{
	if (n >= 2 && strcmp(argv[1], "--") == 0) {
		parse_ends(o, n, argv);
		o->role = MUX_NEAR;
		return;
	}
	if (n == 0 || strcmp(argv[0], "-") != 0)
		fail_usage("-m is relay -m FROM -- COMMAND on this side, relay -m - [TO] on the other");
	if (n > 2)
		fail_usage("there are words after TO; options stand before FROM");
	o->from.kind = ENDPOINT_STDIO;
	o->role = MUX_FAR;
	o->to.kind = ENDPOINT_STDIO; /* none */
	if (n == 2) {
		parse_end(&o->to, argv[1], false);
		if (o->to.kind == ENDPOINT_STDIO)
			fail_usage("FROM and TO are both stdin and stdout");
		o->fixed = true;
	}
}

/* What the far relay is to do as this one was told. */
static void
far_options(struct options *o)
{
	char wait[16] = "";

	if (o->wait_ms > 0)
		snprintf(wait, sizeof(wait), " -w %d", o->wait_ms / 1000);
	snprintf(o->far_options, sizeof(o->far_options), "-m -t %d%s%s%s%s -", o->each_ms / 1000, wait, o->anybody ? " -a" : "",
	    o->quiet ? " -q" : "", o->verbose ? " -v" : "");
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
	endpoint_command(&o->to, o->hops.argv);
	if (o->n_forwards > 0)
		o->from = o->forwards[0].from;
}

void
options_parse(struct options *o, int argc, char *argv[])
{
	int at, n;

	at = parse_flags(o, argc, argv);
	n = argc - at;
	argv += at;
	o->tunnel = o->n_forwards > 0 || o->doctor;
	if (o->linked && o->tunnel)
		fail_usage("-m takes a command of yours, -L, -R, -D and -W take hops: only one of both");
	if ((o->linked || o->tunnel) && (o->probe || o->fdpass))
		fail_usage("-m, -L, -R, -D and -W go with neither -z nor -F");
	if (!o->tunnel && (o->rsh != NULL || o->far_path != NULL))
		fail_usage("-e and -x belong to a tunnel: -L, -R, -D or -W");
	if (o->tunnel)
		parse_tunnel(o, n, argv, argv[-at]);
	else if (o->linked)
		parse_link(o, n, argv);
	else if (o->probe || o->fdpass)
		parse_target_only(o, n, argv);
	else
		parse_ends(o, n, argv);
	o->linked = o->linked || o->tunnel;
	if (o->background && o->doctor)
		fail_usage("-n reports and ends: it goes without -f");
	if (o->background && (o->from.kind == ENDPOINT_STDIO || o->to.kind == ENDPOINT_STDIO))
		fail_usage("-f needs a listener as FROM and leaves stdin and stdout behind");
}
