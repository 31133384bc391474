/*
 * tunnel/hops.c - from the hops of a tunnel to the words of one command.
 *
 *   login 'srun --jobid=7 -u'   becomes   ssh -T login srun --jobid=7 -u sh
 *
 * The last word is sh: this shell reads the script of bootstrap.  The first hop
 * is executed without a shell.  Each later hop is parsed by the shells of all
 * hops before it.  So it may contain only characters that every shell leaves
 * unchanged.
 *
 *   -J login,gate node   becomes   ssh -o ProxyCommand=... -T node sh
 *
 * where ... is relay -k 0 -W '[%h]:%p' -e ssh -J login gate.  The last host of
 * the user's -J is the hop of that relay.
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "spawn.h"
#include "tunnel/hops.h"

#define BLANKS " \t\n" /* between the words of -e */
#define QUIET_SSH " -o BatchMode=yes"

/* ssh puts the host into its ProxyCommand, which a shell parses. */
#define NOT_IN_HOST "'`\"$\\;&<>|(){}\n"

bool
hops_is_command(const char *hop)
{
	return strpbrk(hop, " \t") != NULL;
}

/* The first character that some shell would change; '\0': none. */
static char
find_special(const char *text)
{
	for (; *text != '\0'; text++)
		if (!isalnum((unsigned char)*text) && strchr(" \t@%_+=:,./-", *text) == NULL)
			return *text;
	return '\0';
}

/* Append ${text} to the text of ${h}, or set full. */
static void
put(struct hops *h, const char *text)
{
	size_t n = strlen(text);

	if (n < HOPS_TEXT - h->length) {
		memcpy(h->text + h->length, text, n);
		h->length += n;
	} else {
		h->full = true;
	}
}

/* Keep the NUL behind the text that begins at ${start}. */
static char *
end_text(struct hops *h, char *start)
{
	if (!h->full)
		h->length++;
	return start;
}

/* Copy ${text} behind the other text.  "": no room. */
static char *
copy_text(struct hops *h, const char *text)
{
	char *copy = h->text + h->length;

	put(h, text);
	return end_text(h, copy);
}

static void
add_word(struct hops *h, char *word)
{
	if (h->words < HOPS_WORDS - 1)
		h->argv[h->words++] = word;
	else
		h->full = true;
}

/* Add the words of ${text}, which have blanks between them. */
static void
add_words(struct hops *h, const char *text)
{
	char *word;

	for (word = strtok(copy_text(h, text), " \t"); word != NULL; word = strtok(NULL, " \t"))
		add_word(h, word);
}

/* ---- a command with quotes ---- */

/* In sh(1), does a backslash before ${c} quote it?  ${quote}: '\0' is none. */
static bool
escapes(char quote, char c)
{
	return c != '\0' && (quote == '\0' || (quote == '"' && strchr("\"\\$`", c) != NULL));
}

/*
 * Remove quotes from the first word of ${*at}, end it, and return it.  Move
 * ${*at} behind it; make it NULL if a quote is not closed.  Return NULL if
 * no word is left.
 */
static char *
next_word(char **at)
{
	char *from = *at + strspn(*at, BLANKS), *word = from, *to = from, quote = '\0';

	if (*from == '\0')
		return NULL;
	for (; *from != '\0' && (quote != '\0' || strchr(BLANKS, *from) == NULL); from++) {
		if (*from == quote)
			quote = '\0';
		else if (quote == '\0' && (*from == '\'' || *from == '"'))
			quote = *from;
		else if (*from == '\\' && escapes(quote, from[1]))
			*to++ = *++from;
		else
			*to++ = *from;
	}
	*at = quote != '\0' ? NULL : *from != '\0' ? from + 1 : from;
	*to = '\0';
	return word;
}

bool
hops_runs_ssh(const struct hops *h)
{
	return !hops_is_command(h->config.hops[h->config.jumps]) &&
	       strcmp(spawn_name(h->argv[0]), "ssh") == 0;
}

/* Add the words of rsh, and those of options after the first one. */
static bool
add_rsh(struct hops *h, char *why, size_t size)
{
	const struct hops_config *c = &h->config;
	char *at = copy_text(h, c->rsh), *word;

	while (at != NULL && (word = next_word(&at)) != NULL) {
		add_word(h, word);
		if (h->words == 1 && c->options != NULL)
			add_words(h, c->options);
	}
	if (at == NULL) {
		snprintf(why, size, "a quote in the command of -e or RELAY_SSH is not closed: %s",
		    c->rsh);
		return false;
	}
	if (h->words == 0 && !h->full) {
		snprintf(why, size, "the command of -e or RELAY_SSH is empty");
		return false;
	}
	if (c->unattended && !h->full && hops_runs_ssh(h))
		add_words(h, QUIET_SSH);
	return true;
}

/* ---- a destination: [user@]host[:port] ---- */

static bool
is_uri(const char *hop)
{
	return strncmp(hop, "ssh://", 6) == 0;
}

/* Return ${hop} without ssh:// and the user. */
static const char *
host_of(const char *hop)
{
	const char *at = strrchr(hop, '@');

	if (at == NULL && is_uri(hop))
		return hop + 6;
	return at == NULL || at[1] == '\0' ? hop : at + 1;
}

/* The port of ${hop}, or NULL.  An IPv6 address before it has brackets. */
static const char *
port_of(const char *hop)
{
	const char *host = host_of(hop), *colon = strrchr(host, ':');

	if (colon == NULL || colon == host || colon[1] == '\0' ||
	    colon[1 + strspn(colon + 1, "0123456789")] != '\0')
		return NULL;
	if (host[0] == '[' ? colon[-1] != ']' : strchr(host, ':') != colon)
		return NULL;
	return colon + 1;
}

/* The host of ${hop}, without brackets and port: its start and its length. */
static const char *
bare_host(const char *hop, size_t *n)
{
	const char *host = host_of(hop), *port = port_of(hop);

	*n = port != NULL ? (size_t)(port - 1 - host) : strlen(host);
	if (*n > 2 && host[0] == '[' && host[*n - 1] == ']') {
		host++;
		*n -= 2;
	}
	return host;
}

/* ssh takes the port as -p, and an IPv6 address without brackets. */
static void
add_destination(struct hops *h, const char *hop)
{
	const char *port = port_of(hop), *host;
	char text[HOPS_PATH];
	size_t n;

	if (is_uri(hop)) {
		add_words(h, hop);
		return;
	}
	host = bare_host(hop, &n);
	if ((size_t)snprintf(text, sizeof(text), "%.*s%.*s", (int)(host_of(hop) - hop), hop, (int)n,
		host) >= sizeof(text))
		h->full = true;
	if (port != NULL) {
		add_words(h, "-p");
		add_words(h, port);
	}
	add_words(h, text);
}

/* ---- the ProxyCommand of -J ---- */

/*
 * Append ${text} as one word, quoted for ssh and for any shell.
 * ssh expands %.  In quotes, csh interprets ! and fish interprets a backslash.
 */
static void
put_quoted(struct hops *h, const char *text)
{
	char quoted[] = "'\\?'", plain[] = "?";

	put(h, " '");
	for (; *text != '\0'; text++) {
		quoted[2] = plain[0] = *text;
		put(h, *text == '%' ? "%%" : strchr("'\\!", *text) != NULL ? quoted : plain);
	}
	put(h, "'");
}

/* Write the names of the first ${n} hops, separated by ${between}. */
static const char *
join(const struct hops *h, int n, const char *between, char *dst, size_t size)
{
	size_t have = 0;
	int i;

	*dst = '\0';
	for (i = 0; i < n && have < size; i++)
		have += (size_t)snprintf(
		    dst + have, size - have, "%s%s", i == 0 ? "" : between, h->config.hops[i]);
	return dst;
}

/* Add the relay that carries the connection of ssh to hops[jumps]. */
static void
add_proxy(struct hops *h)
{
	const struct hops_config *c = &h->config;
	char *word, jumps[HOPS_TEXT];

	add_words(h, "-o");
	word = h->text + h->length;
	put(h, "ProxyCommand=");
	put_quoted(h, c->self);
	put(h, " -k 0 -W '[%h]:%p' -e");
	put_quoted(h, c->rsh);
	if (c->unattended && hops_runs_ssh(h))
		put(h, "'" QUIET_SSH "'"); /* of the same word */
	put(h, c->jump_options);
	if (c->jumps > 1) {
		put(h, " -J");
		put_quoted(h, join(h, c->jumps - 1, ",", jumps, sizeof(jumps)));
	}
	put_quoted(h, c->hops[c->jumps - 1]);
	add_word(h, end_text(h, word));
}

/* ---- the command ---- */

static bool
check(const struct hops_config *c, int i, char *why, size_t size)
{
	size_t n;
	const char *hop = c->hops[i], *host = bare_host(hop, &n);
	bool command = hops_is_command(hop), later = i > c->jumps;
	char special = later ? find_special(hop) : host[strcspn(host, NOT_IN_HOST)];

	if (hop[strspn(hop, " \t")] == '\0')
		snprintf(why, size,
		    "a hop is empty; it is an ssh destination, as in me@login, or the words of a "
		    "command");
	else if (hop[strspn(hop, " \t")] == '-' || (!command && *host == '-'))
		snprintf(why, size, "\"%s\" is not a hop: a hop and its host do not begin with a -",
		    hop);
	else if (c->jumps > 0 && !later && command)
		snprintf(why, size,
		    "\"%s\" is a command; the hops of -J, and the hop after them, are ssh "
		    "destinations",
		    hop);
	else if (c->jumps > 0 && !later && special != '\0')
		snprintf(why, size,
		    "the host of the hop \"%s\" contains a %c; give it a plain name in "
		    "~/.ssh/config",
		    hop, special);
	else if (later && special != '\0')
		snprintf(why, size,
		    "the hop \"%s\" contains a %c, which the shell on %s would interpret; give it "
		    "a plain name in ~/.ssh/config there",
		    hop, special, c->hops[i - 1]);
	else if (i == c->jumps && c->n_ssh_words > 0 && command)
		snprintf(why, size,
		    "-l, -o and -p are for ssh, and the first hop, \"%s\", is a command", hop);
	else
		return true;
	return false;
}

/* For the ssh to hops[jumps], which runs on this host, rsh was added before. */
static void
add_hop(struct hops *h, int i)
{
	const struct hops_config *c = &h->config;
	int word;

	if (hops_is_command(c->hops[i])) {
		add_words(h, c->hops[i]);
		return;
	}
	if (i > c->jumps)
		add_words(h, c->batch ? "ssh" QUIET_SSH : "ssh");
	else if (c->jumps > 0)
		add_proxy(h);
	for (word = 0; i == c->jumps && word < c->n_ssh_words; word++)
		add_word(h, copy_text(h, c->ssh_words[word]));
	add_words(h, "-T");
	add_destination(h, c->hops[i]);
}

bool
hops_parse(struct hops *h, const struct hops_config *config, char *why, size_t size)
{
	struct hops_config *c = &h->config;
	int i;

	memset(h, 0, sizeof(*h));
	*c = *config;
	if (c->jumps > c->n - 1) {
		c->jumps = c->n - 1;
		c->n_ssh_words = 0;
	}
	if (!hops_is_command(c->hops[c->jumps]) && !add_rsh(h, why, size))
		return false;
	for (i = 0; i < c->n; i++) {
		if (!check(c, i, why, size))
			return false;
		if (i >= c->jumps && !h->full)
			add_hop(h, i);
	}
	add_words(h, "sh");
	if (h->full)
		snprintf(why, size, "the hops have more than %d words, or %d bytes", HOPS_WORDS - 2,
		    HOPS_TEXT);
	return !h->full;
}

const char *
hops_last(const struct hops *h)
{
	return h->config.hops[h->config.n - 1];
}

const char *
hops_path(const struct hops *h, char *dst, size_t size)
{
	return join(h, h->config.n, " -> ", dst, size);
}

bool
hops_can_ask(const struct hops *h)
{
	int i;

	for (i = 0; i < h->words && strcmp(h->argv[i], "BatchMode=yes") != 0; i++)
		;
	return i == h->words;
}

bool
hops_any_command(const struct hops *h)
{
	int i;

	for (i = 0; i < h->config.n && !hops_is_command(h->config.hops[i]); i++)
		;
	return i < h->config.n;
}

/* ---- what ssh printed ---- */

static bool
is_part_of_name(char c)
{
	return isalnum((unsigned char)c) || c == '-' || c == '_';
}

/*
 * Return true if ${line} contains the host of ${hop}.  A part of another name
 * does not count, except the first part of a domain name: "node" in
 * "node.site.org".
 */
static bool
names_host(const char *line, const char *hop)
{
	size_t n;
	const char *host = bare_host(hop, &n), *at;

	for (at = line; *at != '\0'; at++)
		if (strncmp(at, host, n) == 0 && !is_part_of_name(at[n]) &&
		    (at == line || (!is_part_of_name(at[-1]) && at[-1] != '.')))
			return true;
	return false;
}

/*
 * The index of the last hop whose host is in ${line}, without the hops that the
 * relay of -J reaches.  If none is, the only hop, or -1.
 */
static int
find_named(const struct hops *h, const char *line)
{
	const struct hops_config *c = &h->config;
	int i;

	for (i = c->n - 1; i >= c->jumps; i--)
		if (!hops_is_command(c->hops[i]) && names_host(line, c->hops[i]))
			return i;
	return c->n == c->jumps + 1 ? c->jumps : -1;
}

bool
hops_is_refusal(const char *line)
{
	return strstr(line, "Permission denied (") != NULL ||
	       strstr(line, "Too many authentication failures") != NULL ||
	       strstr(line, "Access denied") != NULL || /* pam_slurm_adopt(8) */
	       strstr(line, "Host key verification failed") != NULL;
}

bool
hops_is_proxy_end(const char *line)
{
	return strstr(line, "exchange_identification: ") != NULL ||
	       strstr(line, "UNKNOWN port 65535") != NULL;
}

/* If ${line} is a message of the relay that -J runs, its text, else NULL. */
static const char *
own_line(const struct hops *h, const char *line)
{
	size_t n = strlen(LOG_PREFIX);

	return h->config.jumps > 0 && strncmp(line, LOG_PREFIX, n) == 0 ? line + n : NULL;
}

static const char *
skip(const char *text, const char *start)
{
	size_t n = strlen(start);

	return strncmp(text, start, n) == 0 ? text + n : text;
}

/*
 * ssh printed ${line}.  Write it without the name of the hop of index ${hop}
 * (-1: not known) into ${dst}.
 */
static void
write_cause(const struct hops *h, int hop, const char *line, char *dst, size_t size)
{
	const char *name = hop == -1 ? "" : h->config.hops[hop], *at, *rest;
	char host[HOPS_PATH], text[HOPS_PATH + 64];
	size_t n;

	at = bare_host(name, &n);
	snprintf(host, sizeof(host), "%.*s", (int)n, at);
	line = skip(skip(line, "ssh: "), "connect to host ");
	snprintf(text, sizeof(text), "%s port ", host);
	if (skip(line, text) != line)
		line += n + 1;
	snprintf(text, sizeof(text), "Could not resolve hostname %s:", host);
	rest = skip(line, text);
	snprintf(dst, size, "%s%s", rest != line ? "Could not resolve the name:" : "", rest);
	at = line + strcspn(line, "@ ");
	snprintf(text, sizeof(text), "@%s: ", host);
	rest = skip(at, text);
	if (rest != at && strchr(name, '@') != NULL)
		snprintf(dst, size, "%s", rest);
	else if (rest != at)
		snprintf(dst, size, "user %.*s: %s", (int)(at - line), line, rest);
	n = strlen(dst);
	if (n > 0 && dst[n - 1] == '.')
		dst[n - 1] = '\0';
}

#define ASKS "ssh asks about a new key, and shows what to do if a key has changed"

/*
 * What to do about a line of ssh or of a shell.  here: the login is made from
 * this host; jump: the same, through -J; far: it is made on the hop before;
 * unknown: the line names no hop.  NULL: as here; for unknown, the remedy is
 * relay -n if far is not NULL.
 */
static const struct remedy {
	const char *part, *here, *jump, *far, *unknown;
} remedies[] = {
	{ "Permission denied (", "is the user name right? ssh -v shows the keys that it tried",
	    NULL,
	    "no password can be typed there: use -J, which makes this login from here (relay(1), "
	    "EXAMPLES), or put a key for it on the hop before",
	    "relay -n shows which hop refused it: if it is not the first one, use -J, or put a key "
	    "on the hop before it" },
	{ "Too many authentication failures",
	    "ssh tried too many keys: name one with -o IdentitiesOnly=yes -o IdentityFile=PATH",
	    NULL, "on the hop before, set IdentitiesOnly and IdentityFile in ~/.ssh/config", NULL },
	{ "Host key verification failed", "log in by hand once: " ASKS,
	    "start relay once at a terminal: " ASKS, "log in by hand once, hop by hop: " ASKS,
	    "log in by hand once, hop by hop: " ASKS },
	{ "Could not resolve", "is the name right?", NULL,
	    "is the name right? The hop before looks it up. If it is a command, write -- before it",
	    NULL },
	{ "Network is unreachable", "is this host online, and does it need a VPN?", NULL,
	    "the hop before has no route to it: is the name right?", NULL },
	{ "No route to host", "is this host online, and does it need a VPN?", NULL,
	    "the hop before has no route to it: is the name right?", NULL },
	{ "timed out", "is that host up, and does this one need a VPN?", NULL,
	    "is that host up, and can the hop before reach it?", NULL },
	{ "Connection refused", "no sshd listens there: is the port right (-p)?",
	    "no sshd listens there: is the port right (HOST:PORT)?",
	    "no sshd listens there: is the port right (HOST:PORT)?", NULL },
	{ "cannot be resolved", NULL, "is the name right? The hop before looks it up", NULL, NULL },
	{ "no answer within", NULL, "is that host up, and can the hop before reach it?", NULL,
	    NULL },
	{ "no matching ",
	    "the two sides have no algorithm in common: set KexAlgorithms or HostKeyAlgorithms, "
	    "see ssh_config(5)",
	    NULL, NULL, NULL },
	{ "UNKNOWN port 65535",
	    "its ProxyCommand or ProxyJump has failed: if sshd forbids forwarding, use -J", NULL,
	    NULL, NULL },
	{ "stdio forwarding failed",
	    "its sshd or the one before it forbids forwarding: use -J of relay, without ProxyJump",
	    NULL, NULL, NULL },
	{ "exchange_identification: ",
	    "its sshd refuses this address, or has too many connections: try again later", NULL,
	    "its sshd refuses the hop before, or has too many connections: try again later", NULL },
	{ "sudo: a ", "no password can be typed there: allow the command with NOPASSWD", NULL, NULL,
	    NULL },
	{ "no active jobs", "is the job running? squeue lists the jobs", NULL, NULL, NULL },
	{ "nvalid job", "is the job running? squeue lists the jobs", NULL, NULL, NULL },
	{ "not found", HOPS_NOT_FOUND, NULL, NULL, NULL },
	{ NULL, "", NULL, NULL, NULL },
};

/* The remedy, or "". */
static const char *
find_remedy(const struct hops *h, int hop, const char *line)
{
	const struct remedy *r = remedies;
	const char *there;

	if (h->config.jumps > 0 && hops_is_proxy_end(line))
		return "relay -n with the same hops shows the cause";
	while (r->part != NULL && strstr(line, r->part) == NULL)
		r++;
	if (hop == -1 && r->unknown != NULL)
		return r->unknown;
	if (hop == -1 && r->far != NULL)
		return "relay -n with the same hops shows which hop it is";
	there = hop > h->config.jumps ? r->far : hop > 0 ? r->jump : NULL;
	return there != NULL ? there : r->here != NULL ? r->here : "";
}

bool
hops_is_cause(const struct hops *h, const char *line)
{
	const char *own = own_line(h, line);

	if (own != NULL)
		return strstr(own, "cannot ") != NULL;
	return *find_remedy(h, -1, line) != '\0' || skip(line, "ssh: ") != line ||
	       skip(line, "Bad ") != line || skip(line, "command-line") != line;
}

/*
 * The relay of -J reports a hop that it cannot reach, or that its target, which
 * is the hop after it, cannot be connected.  Its remedy for a target is replaced.
 */
bool
hops_explain(const struct hops *h, const char *line, bool last, char *dst, size_t size)
{
	const char *own = own_line(h, line), *remedy;
	int hop = own != NULL ? h->config.jumps : find_named(h, line);
	char path[HOPS_PATH], cause[1024];

	if (own != NULL &&
	    (strstr(own, ": cannot connect to ") == NULL || strncmp(own, "cannot ", 7) == 0)) {
		snprintf(dst, size, "%s", own);
		return true;
	}
	if (hop == -1 && last)
		hop = h->config.n - 1;
	if (own != NULL)
		snprintf(cause, sizeof(cause), "%.*s", (int)strcspn(own, ";"), own);
	else
		write_cause(h, hop, line, cause, sizeof(cause));
	remedy = find_remedy(h, hop, own != NULL ? own : line);
	snprintf(dst, size, "cannot reach %s: %s%s%s",
	    hop == -1 ? hops_path(h, path, sizeof(path)) : h->config.hops[hop], cause,
	    *remedy != '\0' ? "; " : "", remedy);
	return own != NULL;
}
