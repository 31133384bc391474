/*
 * forward.c - what a tunnel carries, as -L, -R, -D and -W write it.
 *
 *   -L FROM:TO   here a listener, and each of its connections is a stream to TO
 *   -R FROM:TO   a stream of its own asks the far side to listen; WAITING more wait there, each for a connection to it, and each that
 *                was given one goes to TO here
 *   -D FROM      here a listener that speaks SOCKS, and each of its connections is a stream to where it asks to go
 *   -W TO        stdin and stdout are one stream to TO
 *
 * So only this side ever opens a stream, and only to connect to what this side's user named.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "net/endpoint.h"
#include "net/addr.h"
#include "net/unixpath.h"
#include "tunnel/hops.h"
#include "tunnel/forward.h"

/* ---- from words ---- */

/* Where the end that ${text} begins with is over, at a colon, or NULL: a path up to the first one, [IPv6], or a host or port. */
static const char *
end_of_field(const char *text)
{
	const char *slash = strchr(text, '/'), *colon = strchr(text, ':'), *close;

	if (slash != NULL && (colon == NULL || slash < colon))
		return colon;
	if (*text == '[') {
		close = strchr(text, ']');
		return close == NULL || close[1] != ':' ? NULL : close + 1;
	}
	return colon;
}

static bool
is_path(const char *text)
{
	const char *end = end_of_field(text);

	return memchr(text, '/', end == NULL ? strlen(text) : (size_t)(end - text)) != NULL;
}

static char *
copy(const char *text, size_t n)
{
	char *dst = malloc(n + 1);

	if (dst != NULL) {
		memcpy(dst, text, n);
		dst[n] = '\0';
	}
	return dst;
}

/*
 * The colon between FROM and TO, or NULL. TO is a path, which takes all the rest, or the last two fields; FROM is a path, a port, or
 * a bind address and a port.
 */
static const char *
find_joint(const char *text)
{
	const char *first = end_of_field(text), *second;

	if (first == NULL)
		return NULL;
	if (is_path(text) || is_path(first + 1))
		return first;
	second = end_of_field(first + 1);
	if (second == NULL)
		return NULL; /* two fields: no TO */
	if (is_path(second + 1) || end_of_field(second + 1) != NULL)
		return second; /* bind:port:/path, bind:port:host:hostport */
	return first;
}

static bool
wrong(char *why, size_t size, char kind, const char *text)
{
	snprintf(why, size,
	    "-%c \"%s\": it is FROM:TO, as in -%c 8888:localhost:8888 or -%c "
	    "8888:/home/me/app.sock",
	    kind, text, kind, kind);
	return false;
}

static bool
parse_both(struct forward *f, const char *text, char *why, size_t size)
{
	const char *joint = find_joint(text);
	struct endpoint to;

	if (joint == NULL || joint == text || joint[1] == '\0')
		return wrong(why, size, f->kind, text);
	f->from_text = copy(text, (size_t)(joint - text));
	f->to_text = copy(joint + 1, strlen(joint + 1));
	if (f->from_text == NULL || f->to_text == NULL) {
		snprintf(why, size, "out of memory");
		return false;
	}
	if (!endpoint_parse(&f->from, f->from_text, true, why, size) ||
	    !endpoint_parse(&to, f->to_text, false, why, size))
		return false;
	if (f->from.kind == ENDPOINT_STDIO || to.kind == ENDPOINT_STDIO)
		return wrong(why, size, f->kind, text);
	f->to.to = to;
	return true;
}

bool
forward_parse(struct forward *f, char kind, const char *text, char *why, size_t size)
{
	memset(f, 0, sizeof(*f));
	f->kind = kind;
	if (kind == FORWARD_NEAR || kind == FORWARD_FAR)
		return parse_both(f, text, why, size);
	f->from_text =
	    copy(kind == FORWARD_SOCKS ? text : "-", kind == FORWARD_SOCKS ? strlen(text) : 1);
	f->to_text =
	    copy(kind == FORWARD_SOCKS ? "" : text, kind == FORWARD_SOCKS ? 0 : strlen(text));
	if (f->from_text == NULL || f->to_text == NULL) {
		snprintf(why, size, "out of memory");
		return false;
	}
	if (!endpoint_parse(&f->from, f->from_text, true, why, size))
		return false;
	if (kind == FORWARD_SOCKS && f->from.kind == ENDPOINT_STDIO) {
		snprintf(why, size, "-D \"-\": a proxy listens on a port, as in -D 1080");
		return false;
	}
	if (kind == FORWARD_STDIO && !endpoint_parse(&f->to.to, f->to_text, false, why, size))
		return false;
	if (kind == FORWARD_STDIO && f->to.to.kind == ENDPOINT_STDIO) {
		snprintf(
		    why, size, "-W \"-\": it names where stdin and stdout go, as in -W node:22");
		return false;
	}
	return true;
}

void
forward_keep_port(struct forward *f)
{
	char first[ADDR_NAME], name[ENDPOINT_NAME], *colon, *text;
	unsigned long port;

	snprintf(first, sizeof(first), "%.*s", (int)strcspn(f->bound, "\n"), f->bound);
	colon = strrchr(first, ':');
	port = colon == NULL ? 0 : strtoul(colon + 1, NULL, 10);
	if (f->from.kind != ENDPOINT_TCP || f->from.port != 0 || port == 0 || port > UINT16_MAX ||
	    strstr(f->bound, "\n\n") == NULL)
		return;
	f->from.port = (uint16_t)port;
	endpoint_name(&f->from, name, sizeof(name));
	text = copy(name, strlen(name));
	if (text == NULL)
		return;
	free(f->from_text);
	f->from_text = text;
}

/* ---- to words ---- */

/* How a browser or a user of this host calls what is bound as ${bound}. */
static void
here_name(const struct forward *f, const char *bound, char *dst, size_t size)
{
	const char *scheme = f->kind == FORWARD_SOCKS ? "socks5h://" : "http://",
		   *port = strrchr(bound, ':');
	bool loopback = strncmp(bound, "127.0.0.1:", 10) == 0 || strncmp(bound, "[::1]:", 6) == 0;

	if (strchr(bound, '/') != NULL || port == NULL)
		snprintf(dst, size, "%s", bound);
	else if (loopback)
		snprintf(dst, size, "%slocalhost%s", scheme, port);
	else
		snprintf(dst, size, "%s%s", scheme, bound);
}

void
forward_tell(const struct forward *f, const char *bound, const char *hops)
{
	char here[UNIXPATH_MAX + 16], line[2 * UNIXPATH_MAX + HOPS_PATH];

	here_name(f, bound, here, sizeof(here));
	if (f->kind == FORWARD_NEAR)
		snprintf(line, sizeof(line), "%s -> %s:%s", here, hops, f->to_text);
	else if (f->kind == FORWARD_SOCKS)
		snprintf(line, sizeof(line), "%s -> %s", here, hops);
	else if (f->kind == FORWARD_FAR)
		snprintf(line, sizeof(line), "%s:%s -> here:%s", hops, bound, f->to_text);
	else
		return;
	log_quote(LOG_NOTICE, line);
}
