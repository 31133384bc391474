/*
 * cli/options.c - the command line: options, then ends or hops.
 *
 * The whole command line is checked before relay opens anything.
 */
#include <ctype.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "mux/mux.h"
#include "net/endpoint.h"
#include "net/unixpath.h"
#include "tunnel/command.h"
#include "tunnel/dir.h"
#include "tunnel/forward.h"
#include "tunnel/hops.h"
#include "tunnel/keeper.h"
#include "relay.h"
#include "cli/options.h"

#define MOST 1000000 /* of a number */

enum option_kind {
	KIND_FLAG,
	KIND_NUMBER,
	KIND_TEXT,
	KIND_FORWARD,
	KIND_SSH,
	KIND_LEVEL,
	KIND_MODE,
	KIND_SHOW,
	KIND_NONE,
};

/* The completions follow from relay -h. */
struct option_row {
	char letter;
	const char *argument; /* "": none */
	enum option_kind kind;
	size_t field;     /* in struct options */
	long least, most; /* of a number; LEVEL and MODE are least */
	const char *help;
};

/* clang-format off */
#define ROW(letter, argument, kind, field, least, most, help) \
	{ letter, argument, KIND_##kind, offsetof(struct options, field), least, most, help }

static const struct option_row table[] = {
	ROW('a', "", FLAG, any_uid, 0, 1,
	    "let every user connect to the loopback ports"),
	ROW('c', "NUMBER", NUMBER, max_conns, 1, MOST,
	    "serve at most NUMBER connections at a time"),
	ROW('D', "[BIND:]PORT", FORWARD, forwards, 0, 0,
	    "listen here as a SOCKS proxy, connect from the last hop"),
	ROW('E', "FILE", TEXT, log_path, 0, 0,
	    "append the messages to FILE"),
	ROW('e', "COMMAND", TEXT, rsh, 0, 0,
	    "run COMMAND instead of ssh for the first hop"),
	ROW('F', "", MODE, mode, MODE_FDPASS, 0,
	    "connect, pass the socket to ssh on stdout, and exit"),
	ROW('f', "", FLAG, background, 0, 1,
	    "go to the background when ready"),
	ROW('h', "", SHOW, mode, 0, 0,
	    "print this help on stdout; so does --help"),
	ROW('i', "SECONDS", NUMBER, idle_s, 1, MOST,
	    "exit after SECONDS without a connection"),
	ROW('J', "HOP[,HOP]", TEXT, jump, 0, 0,
	    "make each login from here, through these hosts"),
	ROW('j', "NUMBER", NUMBER, channels, 1, MUX_SLOTS,
	    "use up to NUMBER ssh sessions of one login (default 4)"),
	ROW('k', "SECONDS", NUMBER, keep, 0, KEEPER_MOST,
	    "keep connections for SECONDS after the line is lost"),
	ROW('L', "FROM:TO", FORWARD, forwards, 0, 0,
	    "listen on FROM here, connect to TO from the last hop"),
	ROW('l', "USER", SSH, ssh_words, 0, 0,
	    "pass -l USER to the ssh of the first hop"),
	ROW('m', "", MODE, mode, MODE_LINK_NEAR, 0,
	    "carry all connections over one command: a link"),
	ROW('N', "", NONE, mode, 0, 0,
	    "accepted as in ssh, without effect"),
	ROW('n', "", MODE, mode, MODE_CHECK, 0,
	    "check each step of a tunnel, report it, forward nothing"),
	ROW('O', "ACTION", TEXT, action, 0, 0,
	    "list the running relays, check NAME or exit NAME"),
	ROW('o', "OPTION", SSH, ssh_words, 0, 0,
	    "pass -o OPTION to the ssh of the first hop"),
	ROW('P', "FILE", TEXT, pid_path, 0, 0,
	    "write the process ID to FILE"),
	ROW('p', "PORT", SSH, ssh_words, 0, 0,
	    "pass -p PORT to the ssh of the first hop"),
	ROW('q', "", LEVEL, mode, LOG_ERROR, 0,
	    "log errors only"),
	ROW('R', "FROM:TO", FORWARD, forwards, 0, 0,
	    "listen on FROM on the last hop, connect to TO from here"),
	ROW('r', "", FLAG, runs_command, 0, 1,
	    "with -m -: run the command that the near side requests"),
	ROW('T', "", NONE, mode, 0, 0,
	    "accepted as in ssh, without effect"),
	ROW('t', "SECONDS", NUMBER, each_s, 1, MOST,
	    "try an address for SECONDS (default 10)"),
	ROW('V', "", SHOW, mode, 0, 0,
	    "print the version on stdout; so does --version"),
	ROW('v', "", LEVEL, mode, LOG_INFO, 0,
	    "log each connection"),
	ROW('W', "TO", FORWARD, forwards, 0, 0,
	    "connect stdin and stdout to TO from the last hop"),
	ROW('w', "SECONDS", NUMBER, wait_s, 0, MOST,
	    "retry an unavailable target for SECONDS"),
	ROW('x', "PATH", TEXT, far_path, 0, 0,
	    "run the relay at PATH on the last hop, copy nothing"),
	ROW('z', "", MODE, mode, MODE_PROBE, 0,
	    "connect, transfer nothing, exit with status 0 or 1"),
};
/* clang-format on */

#define OPTIONS (sizeof(table) / sizeof(table[0]))
#define KEEP_UNSET (-2)
#define KEEP_USUAL 3600
#define KEEP_COMMAND 86400 /* a day */
#define CHANNELS_USUAL 4
#define KEEP_NEEDS "-k needs a tunnel: -L, -R, -D, -W or -n"
#define WIDEST 11 /* of an argument: [BIND:]PORT */

/* The options of ssh(1) that relay does not have. */
#define SSH_LETTERS "46ABbCGgIKMQSsXYy"

static void fail_usage(const char *fmt, ...) LOG_PRINTF(1, 2) LOG_EXITS;

static void
fail_usage(const char *fmt, ...)
{
	char what[UNIXPATH_MAX + 256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	log_say(LOG_ERROR, "%s; see relay -h", what);
	exit(STATUS_USAGE);
}

static void
print_usage(void)
{
	const struct option_row *row;

	fputs("usage: relay [options] FROM TO\n"
	      "       relay [options] FROM -- COMMAND [ARG ...]\n"
	      "       relay [options] -L FROM:TO | -R FROM:TO | -D PORT | -W TO ... HOP ...\n"
	      "             [-- COMMAND [ARG ...]]\n"
	      "       relay -n [options] [-L FROM:TO ...] HOP ...\n"
	      "       relay -m [options] FROM -- COMMAND [ARG ...]\n"
	      "       relay -m [options] - [TO]\n"
	      "       relay -z | -F [options] TO\n"
	      "       relay -O list | -O check NAME | -O exit NAME\n"
	      "The source FROM and the target TO are PORT, HOST:PORT, [IPv6]:PORT, *:PORT,\n"
	      "a path with a / (Unix socket), or - (stdin and stdout).\n"
	      "A HOP is an ssh destination, or, if it contains a blank, a command that runs\n"
	      "its arguments on the next host: 'srun --jobid=7 --overlap -u'.\n"
	      "A COMMAND runs on the last HOP.  There, @/ is a directory of this tunnel.\n",
	    stdout);
	for (row = table; row < table + OPTIONS; row++)
		printf("  -%c %-*s  %s\n", row->letter, WIDEST, row->argument, row->help);
}

/* Exit at once after -h or -V, even if wrong options follow. */
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
	char *end;
	long n = strtol(text, &end, 10);

	if (row->letter == 'k' && strcmp(text, "join") == 0)
		return KEEP_JOIN;
	if (*text == '\0' || *end != '\0' || n < row->least || n > row->most)
		fail_usage("-%c \"%.40s\": write a whole number from %ld to %ld, as in -%c %ld%s",
		    row->letter, text, row->least, row->most, row->letter, row->least + 1,
		    row->letter == 'i' ? "; a key for ssh is -o IdentityFile=PATH" : "");
	return n;
}

static void
add_forward(struct options *o, char kind, const char *text)
{
	char why[UNIXPATH_MAX + 256];

	if (o->n_forwards == OPTIONS_FORWARDS)
		fail_usage("a tunnel has at most %d of -L, -R and -D", OPTIONS_FORWARDS);
	if (!forward_parse(&o->forwards[o->n_forwards++], kind, text, why, sizeof(why)))
		fail_usage("%s", why);
}

static void
add_ssh_word(struct options *o, char letter, const char *text)
{
	const char *word = letter == 'l' ? "-l" : letter == 'o' ? "-o" : "-p";

	if (o->n_ssh_words == OPTIONS_SSH_WORDS)
		fail_usage("there are too many of -l, -o and -p");
	o->ssh_words[o->n_ssh_words++] = word;
	o->ssh_words[o->n_ssh_words++] = text;
}

static void
set_mode(struct options *o, enum mode mode)
{
	if (o->mode != MODE_DIRECT && o->mode != mode)
		fail_usage("-F, -m, -n and -z exclude each other");
	o->mode = mode;
}

static void
parse_option(struct options *o, const struct option_row *row, const char *text)
{
	void *field = (char *)o + row->field;

	switch (row->kind) {
	case KIND_FLAG:
		*(bool *)field = true;
		break;
	case KIND_NUMBER:
		*(long *)field = number(row, text);
		break;
	case KIND_TEXT:
		*(const char **)field = text;
		break;
	case KIND_FORWARD:
		add_forward(o, row->letter, text);
		break;
	case KIND_SSH:
		add_ssh_word(o, row->letter, text);
		break;
	case KIND_LEVEL:
		log_show((enum log_level)row->least);
		break;
	case KIND_MODE:
		set_mode(o, (enum mode)row->least);
		break;
	case KIND_SHOW:
		show(row->letter);
		break;
	case KIND_NONE:
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

/* With a ':' in front, getopt(3) returns ':' for a missing argument. */
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

static void
fail_option(int c)
{
	if (c == ':')
		fail_usage("-%c requires an argument", optopt);
	if (optopt != 0 && strchr(SSH_LETTERS, optopt) != NULL)
		fail_usage(
		    "unknown option -%c; to pass it to ssh, write -e 'ssh -%c'", optopt, optopt);
	fail_usage("unknown option -%c", optopt);
}

static void
parse_long(const char *word)
{
	if (strcmp(word, "--help") == 0)
		show('h');
	if (strcmp(word, "--version") == 0)
		show('V');
	fail_usage("unknown option %.60s", word);
}

/*
 * Move the words that are not options to the front of ${argv}, and return their
 * number.  As in ssh, an option may follow a word.  After "--", all are words.
 * "--" itself is a word, unless it is the first one.
 */
static int
parse_table(struct options *o, int argc, char *argv[])
{
	char letters[2 * OPTIONS + 2], *word;
	const struct option_row *row;
	int c, n = 0;

	getopt_string(letters);
	while ((word = argv[optind]) != NULL && strcmp(word, "--") != 0) {
		if (*word != '-' || word[1] == '\0') {
			argv[1 + n++] = argv[optind++];
			continue;
		}
		if (word[1] == '-')
			parse_long(word);
		c = getopt(argc, argv, letters);
		row = find_option(c);
		if (row == NULL)
			fail_option(c);
		parse_option(o, row, optarg);
	}
	if (n == 0 && word != NULL)
		optind++;
	while (optind < argc)
		argv[1 + n++] = argv[optind++];
	argv[1 + n] = NULL;
	return n;
}

static void
parse_end(struct endpoint *ep, const char *text, bool listens)
{
	char why[ENDPOINT_NAME + 256];

	if (!endpoint_parse(ep, text, listens, why, sizeof(why)))
		fail_usage("%s", why);
}

/* -z and -F: TO is the only end.  A FROM of "-" before it is allowed. */
static void
parse_target_only(struct options *o, int n, char *argv[])
{
	if (n == 2 && strcmp(argv[0], "-") == 0) {
		argv++;
		n--;
	}
	if (n != 1)
		fail_usage("-z and -F need one end, TO");
	parse_end(&o->target.to, argv[0], false);
	if (o->target.to.kind == ENDPOINT_STDIO)
		fail_usage("-z and -F need a port or a socket path as TO");
	o->from.kind = ENDPOINT_STDIO;
}

static void
parse_control(struct options *o, int n, char *argv[])
{
	bool list = strcmp(o->action, "list") == 0;

	if (!list && strcmp(o->action, "check") != 0 && strcmp(o->action, "exit") != 0 &&
	    strcmp(o->action, "stop") != 0)
		fail_usage("write -O list, -O check NAME or -O exit NAME");
	if (n != (list ? 0 : 1))
		fail_usage(list ? "there are words after -O list"
				: "-O check and -O exit need one NAME: the address on which the "
				  "relay listens, or its process ID");
	o->name = list ? NULL : argv[0];
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
		fail_usage("there are words after TO; a command follows --");
	parse_end(&o->target.to, argv[1], false);
	if (o->from.kind == ENDPOINT_STDIO && o->target.to.kind == ENDPOINT_STDIO)
		fail_usage("FROM and TO are both stdin and stdout");
}

/* -m: the near side has a command, the far side has stdin and stdout. */
static void
parse_link(struct options *o, int n, char *argv[])
{
	if (n >= 2 && strcmp(argv[1], "--") == 0) {
		if (o->keep != KEEP_UNSET)
			fail_usage(KEEP_NEEDS);
		parse_ends(o, n, argv);
		return;
	}
	if (n == 0 || strcmp(argv[0], "-") != 0)
		fail_usage("with -m, write relay -m FROM -- COMMAND here and relay -m - [TO] on "
			   "the far side");
	if (n > 2)
		fail_usage("there are words after TO");
	if (n == 2 && o->keep != KEEP_UNSET)
		fail_usage("-k excludes TO on the far side");
	if (o->keep == KEEP_UNSET)
		o->keep = 0;
	if (o->runs_command && n == 2)
		fail_usage("-r excludes TO: a far side with a fixed target runs no command");
	o->mode = MODE_LINK_FAR;
	o->from.kind = ENDPOINT_STDIO;
	o->target.to.kind = ENDPOINT_STDIO; /* no TO */
	if (n == 2)
		parse_ends(o, n, argv);
}

/* The level of messages, as an option. */
static const char *
level_option(void)
{
	return log_shows(LOG_INFO) ? " -v" : log_shows(LOG_NOTICE) ? "" : " -q";
}

static void
far_options(struct options *o)
{
	char wait[32] = "", keep[32] = "";

	if (o->keep > 0)
		snprintf(keep, sizeof(keep), " -k %ld", o->keep);
	if (o->wait_s > 0)
		snprintf(wait, sizeof(wait), " -w %ld", o->wait_s);
	snprintf(o->far_options, sizeof(o->far_options), "-m -t %ld%s%s%s%s%s -", o->each_s, wait,
	    keep, o->any_uid ? " -a" : "", o->command != NULL ? " -r" : "", level_option());
}

/* Split -J at its commas.  Return the number of its hops. */
static int
split_jumps(struct options *o)
{
	char *at = o->jump_text;
	int n = 0;

	if (o->jump == NULL)
		return 0;
	if (strlen(o->jump) >= sizeof(o->jump_text))
		fail_usage("-J is too long");
	strcpy(at, o->jump);
	for (o->hop_list[n++] = at; (at = strchr(at, ',')) != NULL; o->hop_list[n++] = at) {
		if (n == HOPS_WORDS)
			fail_usage("-J has too many hops");
		*at++ = '\0';
	}
	return n;
}

/* If ${words} set a proxy, ssh would ignore that of -J. */
static void
check_proxy(const char *words)
{
	char text[HOPS_TEXT], *at;

	snprintf(text, sizeof(text), "%s", words);
	for (at = text; *at != '\0'; at++)
		*at = (char)tolower((unsigned char)*at);
	if (strstr(text, "proxycommand") != NULL || strstr(text, "proxyjump") != NULL ||
	    strstr(words, " -J") != NULL)
		fail_usage("-J sets ProxyCommand itself: remove ProxyCommand, ProxyJump and -J "
			   "from -o, -e and RELAY_SSH");
}

static void
parse_hops(struct options *o, int n, char *argv[])
{
	struct hops_config config = {
		.hops = o->hop_list,
		.jumps = split_jumps(o),
		.rsh = o->rsh,
		.ssh_words = o->ssh_words,
		.n_ssh_words = o->n_ssh_words,
		.self = o->self,
		.jump_options = o->jump_options,
	};
	char why[512];
	int i;

	snprintf(o->jump_options, sizeof(o->jump_options), " -t %ld%s", o->each_s, level_option());
	if (config.jumps > 0)
		check_proxy(o->rsh);
	for (i = 0; i < o->n_ssh_words && config.jumps > 0; i++)
		check_proxy(o->ssh_words[i]);
	config.n = config.jumps + n;
	if (config.n > HOPS_WORDS)
		fail_usage("there are too many hops");
	memcpy(o->hop_list + config.jumps, argv, (size_t)n * sizeof(argv[0]));
	if (!hops_parse(&o->hops, &config, why, sizeof(why)))
		fail_usage("%s", why);
	config.unattended = true;
	if (!hops_parse(&o->unattended, &config, why, sizeof(why)))
		fail_usage("%s", why);
}

static bool
in_dir(const char *text)
{
	return strncmp(text, DIR_MARK, strlen(DIR_MARK)) == 0;
}

static void
check_dir(const struct options *o, const struct forward *f)
{
	bool far = f->kind == FORWARD_FAR;

	if (f->kind != FORWARD_SOCKS && in_dir(far ? f->to_text : f->from_text))
		fail_usage("@/ is a directory on the last hop; write ./@/ for a directory here");
	if (o->command == NULL && in_dir(far ? f->from_text : f->to_text))
		fail_usage("@/ is the directory of a tunnel that runs a command: add -- COMMAND "
			   "after the hops, or write ./@/");
}

/* Split off COMMAND at "--".  Return the number of words before it. */
static int
take_command(struct options *o, int n, char *argv[])
{
	size_t length = 0;
	int i = 0, j;

	while (i < n && strcmp(argv[i], "--") != 0)
		i++;
	if (i == n)
		return n;
	if (i + 1 == n || *argv[i + 1] == '\0')
		fail_usage("the command after -- is missing");
	for (j = i + 1; j < n; j++)
		length += strlen(argv[j]) + 1;
	if (length > COMMAND_WORDS_MOST)
		fail_usage("the command after -- is longer than 64 KiB");
	if (o->mode == MODE_CHECK)
		fail_usage("-n runs no command: leave out -- and what follows it");
	if (o->forwards[0].kind == FORWARD_STDIO)
		fail_usage("-W excludes a command: use -L or -R");
	o->command = argv + i + 1;
	return i;
}

/*
 * If a hop is a command, COMMAND ends with the line, and the next run of the
 * hop can lead to another host.  So no session is kept by default.
 */
static void
set_keep(struct options *o)
{
	o->end_after = o->keep == KEEP_UNSET ? -1 : o->keep;
	if (o->mode == MODE_CHECK)
		o->keep = 0;
	else if (o->keep == KEEP_UNSET && o->command != NULL)
		o->keep = hops_any_command(&o->hops) ? 0 : KEEP_COMMAND;
	else if (o->keep == KEEP_UNSET)
		o->keep = KEEP_USUAL;
}

static void
parse_tunnel(struct options *o, int n, char *argv[], const char *name)
{
	const char *rsh = getenv("RELAY_SSH");
	int i;

	n = take_command(o, n, argv);
	for (i = 0; i < o->n_forwards; i++) {
		check_dir(o, &o->forwards[i]);
		if (o->forwards[i].kind == FORWARD_STDIO && o->n_forwards > 1)
			fail_usage("-W excludes -L, -R, -D and a second -W: stdin and stdout have "
				   "one target");
	}
	if (n == 0)
		fail_usage("a tunnel needs a hop, as in relay -L 8888:localhost:8888 me@login");
	if (o->rsh == NULL)
		o->rsh = rsh != NULL && *rsh != '\0' ? rsh : "ssh";
	if (!os_self(name, o->self, sizeof(o->self)))
		snprintf(o->self, sizeof(o->self), "%s", name);
	parse_hops(o, n, argv);
	set_keep(o);
	if (o->channels == 0)
		o->channels = CHANNELS_USUAL;
	if (o->keep == 0) /* further channels join a session */
		o->channels = 1;
	far_options(o);
	endpoint_command(&o->target.to, o->hops.argv);
	if (o->n_forwards > 0)
		o->from = o->forwards[0].from;
}

/* Check which options are used together. */
static void
check_table(struct options *o)
{
	if (o->action != NULL && (o->n_forwards > 0 || o->mode != MODE_DIRECT || o->background))
		fail_usage("-O excludes -f, -F, -m, -n, -z, -L, -R, -D and -W");
	if (o->action != NULL)
		o->mode = MODE_CONTROL;
	if (o->n_forwards > 0 && o->mode == MODE_DIRECT)
		o->mode = MODE_TUNNEL;
	if (o->n_forwards > 0 && o->mode == MODE_LINK_NEAR)
		fail_usage("-m needs a command, -L, -R, -D and -W need hops: use one of them");
	if (o->n_forwards > 0 && !options_tunnel(o))
		fail_usage(
		    "-z and -F exclude -L, -R, -D and -W; a configuration for ssh is -e 'ssh "
		    "-F FILE'");
	if (!options_tunnel(o) && (o->rsh != NULL || o->far_path != NULL || o->jump != NULL ||
				      o->n_ssh_words > 0 || o->channels != 0))
		fail_usage("-e, -J, -j, -l, -o, -p and -x need a tunnel: -L, -R, -D, -W or -n");
	if (o->keep != KEEP_UNSET && !options_tunnel(o) && o->mode != MODE_LINK_NEAR)
		fail_usage(KEEP_NEEDS);
	if (o->keep == KEEP_JOIN && o->mode != MODE_LINK_NEAR)
		fail_usage("-k \"join\": write a number of seconds");
}

/* Does it become ready, and stay until it is stopped? */
static bool
stays(const struct options *o)
{
	return o->mode == MODE_DIRECT || o->mode == MODE_LINK_NEAR || o->mode == MODE_TUNNEL;
}

void
options_parse(struct options *o, int argc, char *argv[])
{
	int n;

	o->each_s = 10;
	o->keep = KEEP_UNSET;
	n = parse_table(o, argc, argv);
	check_table(o);
	if (options_tunnel(o))
		parse_tunnel(o, n, argv + 1, argv[0]);
	else if (o->mode == MODE_LINK_NEAR)
		parse_link(o, n, argv + 1);
	else if (o->mode == MODE_CONTROL)
		parse_control(o, n, argv + 1);
	else if (o->mode == MODE_DIRECT)
		parse_ends(o, n, argv + 1);
	else /* -z, -F */
		parse_target_only(o, n, argv + 1);
	if (o->runs_command && o->mode != MODE_LINK_FAR)
		fail_usage("-r needs -m -: it is an option of the far side");
	if ((o->pid_path != NULL || o->idle_s != 0) && !stays(o))
		fail_usage("-i and -P exclude -F, -n, -O, -z and -m -");
	if (o->background && o->mode == MODE_CHECK)
		fail_usage("-n exits after its report: use it without -f");
	if (o->background && options_stdio(o))
		fail_usage("-f needs a listener: FROM and TO cannot be stdin and stdout");
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
options_only_target(const struct options *o)
{
	return o->mode == MODE_LINK_FAR && o->target.to.kind != ENDPOINT_STDIO;
}

bool
options_stdio(const struct options *o)
{
	return o->from.kind == ENDPOINT_STDIO || o->target.to.kind == ENDPOINT_STDIO;
}

bool
options_one_shot(const struct options *o)
{
	return stays(o) && options_stdio(o);
}
