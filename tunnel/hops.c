/*
 * hops.c - from the hops of a tunnel to the words of one command.
 *
 *   login 'srun --jobid=7 -u'   is   ssh -T login srun --jobid=7 -u sh
 *
 * A hop without a blank is an ssh destination; one with blanks is a command that runs its arguments on the other side. The last word
 * is sh, to which bootstrap.c speaks. The first hop is executed here, without a shell. The words behind it are read by a shell on each hop
 * before them, whatever that shell is: so they may hold nothing but what every shell takes as it stands.
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "tunnel/hops.h"

static bool
has_blank(const char *text)
{
	return strpbrk(text, " \t") != NULL;
}

/* The first letter that some shell would not take as it stands; '\0': none. */
static char
odd_letter(const char *text)
{
	for (; *text != '\0'; text++)
		if (!isalnum((unsigned char)*text) && strchr(" \t@%_+=:,./-", *text) == NULL)
			return *text;
	return '\0';
}

/* Add the words of ${text}, which is cut up; false: no room. */
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
	char odd = i > 0 ? odd_letter(hop) : '\0';

	if (hop[strspn(hop, " \t")] == '\0')
		snprintf(why, size,
		    "a hop is empty; it is an ssh destination, as in me@login, or the words of a "
		    "command");
	else if (hop[strspn(hop, " \t")] == '-')
		snprintf(why, size, "\"%s\" is no hop: options stand before the first one", hop);
	else if (odd != '\0')
		snprintf(why, size,
		    "the hop \"%s\" holds a %c, which a shell on %s would read; give it a plain "
		    "name in ~/.ssh/config there",
		    hop, odd, hops[i - 1]);
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
		if (!has_blank(hops[i]))
			fits = fits && add_text(h, i == 0 ? rsh : "ssh") && add_text(h, "-T");
		fits = fits && add_text(h, hops[i]);
	}
	if (!fits || !add_text(h, "sh")) {
		snprintf(why, size, "the hops have more than %d words, or %d letters",
		    HOPS_WORDS - 2, HOPS_TEXT);
		return false;
	}
	h->hops = hops;
	h->n = n;
	return true;
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

	for (i = 0; i < h->n && !has_blank(h->hops[i]); i++)
		;
	return i < h->n;
}

/* "me@login" is known as "login" to those who speak of it. */
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

/* Does ${host} stand in ${words}, not as a part of another name? It may be the first part of its own whole one. */
static bool
speaks_of(const char *words, const char *host)
{
	const char *at, *behind;

	for (at = strstr(words, host); at != NULL; at = strstr(at + 1, host)) {
		behind = at + strlen(host);
		if ((at == words || (!is_part_of_name(at[-1]) && at[-1] != '.')) &&
		    !is_part_of_name(*behind))
			return true;
	}
	return false;
}

int
hops_blame(const struct hops *h, const char *words)
{
	int i;

	for (i = h->n - 1; i >= 0; i--)
		if (!has_blank(h->hops[i]) && speaks_of(words, host_of(h->hops[i])))
			return i;
	return h->n == 1 ? 0 : -1;
}

const char *
hops_remedy(int hop, const char *words)
{
	if (strstr(words, "Permission denied") != NULL && hop != 0)
		return "; nobody can type a password there: put a key for it on the hop before, or "
		       "reach it with ssh's "
		       "ProxyCommand (relay(1), EXAMPLES)";
	if (strstr(words, "Host key verification failed") != NULL)
		return hop == 0 ? "; log in by hand once, and accept the key"
				: "; log in by hand once, hop by hop, and accept the key";
	if (strstr(words, "Could not resolve") != NULL)
		return hop == 0 ? "; is the name right?"
				: "; is the name right, as the hop before it knows it?";
	return "";
}
