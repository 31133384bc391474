/*
 * tunnel/hops.c - from the hops of a tunnel to the words of one command.
 *
 *   login 'srun --jobid=7 -u'   becomes   ssh -T login srun --jobid=7 -u sh
 *
 * The last word is sh: this shell reads the script of bootstrap.  The first hop
 * is executed without a shell.  Each later hop is parsed by the shells of all
 * hops before it.  So it may contain only characters that every shell leaves
 * unchanged.
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "tunnel/hops.h"

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

/* Split ${text} in place and add its words.  False: no room. */
static bool
add_words(struct hops *h, char *text)
{
	char *word;

	for (word = strtok(text, " \t"); word != NULL; word = strtok(NULL, " \t")) {
		if (h->words == HOPS_WORDS - 1)
			return false;
		h->argv[h->words++] = word;
	}
	return true;
}

static bool
add_text(struct hops *h, const char *text)
{
	size_t n = strlen(text) + 1;
	char *copy = h->text + h->length;

	if (n > sizeof(h->text) - h->length)
		return false;
	memcpy(copy, text, n);
	h->length += n;
	return add_words(h, copy);
}

static bool
check(const char *hop, int i, char *const hops[], char *why, size_t size)
{
	char special = i > 0 ? find_special(hop) : '\0';

	if (hop[strspn(hop, " \t")] == '\0')
		snprintf(why, size,
		    "a hop is empty; it is an ssh destination, as in me@login, or the words of a "
		    "command");
	else if (hop[strspn(hop, " \t")] == '-')
		snprintf(why, size, "\"%s\" is not a hop; options come before the first hop", hop);
	else if (special != '\0')
		snprintf(why, size,
		    "the hop \"%s\" contains a %c, which the shell on %s would interpret; give it "
		    "a plain name in ~/.ssh/config there",
		    hop, special, hops[i - 1]);
	else
		return true;
	return false;
}

bool
hops_parse(struct hops *h, char *const hops[], int n, const char *rsh, char *why, size_t size)
{
	bool fits = true;
	int i;

	memset(h, 0, sizeof(*h));
	for (i = 0; i < n; i++) {
		if (!check(hops[i], i, hops, why, size))
			return false;
		if (!hops_is_command(hops[i]))
			fits = fits && add_text(h, i == 0 ? rsh : "ssh") && add_text(h, "-T");
		fits = fits && add_text(h, hops[i]);
	}
	if (!fits || !add_text(h, "sh")) {
		snprintf(why, size, "the hops have more than %d words, or %d bytes", HOPS_WORDS - 2,
		    HOPS_TEXT);
		return false;
	}
	h->hops = hops;
	h->n = n;
	return true;
}

char *const *
hops_argv(const struct hops *h)
{
	return h->argv;
}

const char *
hops_name(const struct hops *h, int i)
{
	return h->hops[i];
}

const char *
hops_last(const struct hops *h)
{
	return h->hops[h->n - 1];
}

const char *
hops_path(const struct hops *h, char *dst, size_t size)
{
	size_t n = 0;
	int i;

	*dst = '\0';
	for (i = 0; i < h->n && n < size; i++)
		n += (size_t)snprintf(dst + n, size - n, "%s%s", i == 0 ? "" : " -> ", h->hops[i]);
	return dst;
}

bool
hops_any_command(const struct hops *h)
{
	int i;

	for (i = 0; i < h->n && !hops_is_command(h->hops[i]); i++)
		;
	return i < h->n;
}

/* ---- what ssh printed ---- */

/* ssh prints "me@login" or "login". */
static const char *
host_of(const char *hop)
{
	const char *at = strrchr(hop, '@');

	return at == NULL || at[1] == '\0' ? hop : at + 1;
}

static bool
is_part_of_name(char c)
{
	return isalnum((unsigned char)c) || c == '-' || c == '_';
}

/*
 * Return true if ${line} contains the name ${host}.  A part of another name
 * does not count, except the first part of a domain name: "node" in
 * "node.site.org".
 */
static bool
names_host(const char *line, const char *host)
{
	const char *at, *behind;

	for (at = strstr(line, host); at != NULL; at = strstr(at + 1, host)) {
		behind = at + strlen(host);
		if ((at == line || (!is_part_of_name(at[-1]) && at[-1] != '.')) &&
		    !is_part_of_name(*behind))
			return true;
	}
	return false;
}

int
hops_find_named(const struct hops *h, const char *line)
{
	int i;

	for (i = h->n - 1; i >= 0; i--)
		if (!hops_is_command(h->hops[i]) && names_host(line, host_of(h->hops[i])))
			return i;
	return h->n == 1 ? 0 : -1;
}

const char *
hops_remedy(int hop, const char *line)
{
	if (strstr(line, "Permission denied") != NULL && hop != 0)
		return "; no password can be typed there: put a key for it on the hop before, or "
		       "reach it with ssh's ProxyCommand (relay(1), EXAMPLES)";
	if (strstr(line, "Host key verification failed") != NULL)
		return hop == 0 ? "; log in by hand once, and accept the key"
				: "; log in by hand once, hop by hop, and accept the key";
	if (strstr(line, "Could not resolve") != NULL)
		return hop == 0 ? "; is the name right?"
				: "; is the name right, as the hop before it knows it?";
	return "";
}
