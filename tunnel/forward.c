/* tunnel/forward.c - one -L, -R, -D or -W of a tunnel. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "net/endpoint.h"
#include "net/addr.h"
#include "net/unixpath.h"
#include "tunnel/hops.h"
#include "tunnel/forward.h"

/* ---- parse ---- */

/*
 * The colon after the first field of ${text}, or NULL.  A field is a path,
 * [IPv6], a host or a port.
 */
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

/*
 * The colon between SOURCE and TARGET, or NULL.  TARGET is the last two fields,
 * or a path, which may contain colons.  SOURCE is a path, a port, or a bind
 * address and a port.
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
		return NULL; /* no TARGET */
	if (is_path(second + 1) || end_of_field(second + 1) != NULL)
		return second; /* bind:port:/path, bind:port:host:hostport */
	return first;
}

/* Are the ${n} bytes at ${text}, which a colon or NUL follows, a number? */
static bool
is_number(const char *text, size_t n)
{
	return n > 0 && strspn(text, "0123456789") == n;
}

/* Is ${text} only [BIND:]PORT:PORT? */
static bool
lacks_host(const char *text)
{
	const char *first = end_of_field(text), *second = strrchr(text, ':');

	if (first == NULL || is_path(text) || !is_number(second + 1, strlen(second + 1)))
		return false;
	if (first == second)
		return is_number(text, (size_t)(first - text));
	return !is_number(text, (size_t)(first - text)) &&
	       is_number(first + 1, (size_t)(second - first - 1));
}

/* Copy SOURCE, ${n} bytes, and TARGET, and parse them.  -D has no TARGET. */
static bool
take_ends(
    struct forward *f, const char *source, size_t n, const char *target, char *why, size_t size)
{
	f->from_text = strndup(source, n);
	f->to_text = strdup(target);
	if (f->from_text == NULL || f->to_text == NULL) {
		snprintf(why, size, "out of memory");
		return false;
	}
	return endpoint_parse(&f->from, f->from_text, true, why, size) &&
	       (f->kind == FORWARD_SOCKS ||
		   endpoint_parse(&f->to.to, f->to_text, false, why, size));
}

static bool
parse_both(struct forward *f, const char *text, char *why, size_t size)
{
	const char *joint = find_joint(text), *port = strrchr(text, ':');
	char kind = f->kind;

	if (lacks_host(text)) {
		snprintf(why, size, "-%c \"%s\": TO lacks a host: write -%c %.*s:localhost%s", kind,
		    text, kind, (int)(port - text), text, port);
		return false;
	}
	if (joint != NULL && joint != text && joint[1] != '\0') {
		if (!take_ends(f, text, (size_t)(joint - text), joint + 1, why, size))
			return false;
		if (f->from.kind != ENDPOINT_STDIO && f->to.to.kind != ENDPOINT_STDIO)
			return true;
	}
	snprintf(why, size,
	    "-%c \"%s\": expected SOURCE:TARGET, as in -%c 8888:localhost:8888 or -%c "
	    "8888:/home/me/app.sock",
	    kind, text, kind, kind);
	return false;
}

/* -D has no TARGET; the SOURCE of -W is "-". */
static bool
parse_one(struct forward *f, const char *text, char *why, size_t size)
{
	bool socks = f->kind == FORWARD_SOCKS;
	const char *source = socks ? text : "-";

	if (!take_ends(f, source, strlen(source), socks ? "" : text, why, size))
		return false;
	if ((socks ? f->from.kind : f->to.to.kind) != ENDPOINT_STDIO)
		return true;
	snprintf(why, size, "%s",
	    socks ? "-D \"-\": a proxy listens on a port, as in -D 1080"
		  : "-W \"-\": expected the target of stdin and stdout, as in -W node:22");
	return false;
}

bool
forward_parse(struct forward *f, char kind, const char *text, char *why, size_t size)
{
	memset(f, 0, sizeof(*f));
	f->kind = kind;
	if (kind == FORWARD_SOCKS || kind == FORWARD_STDIO)
		return parse_one(f, text, why, size);
	return parse_both(f, text, why, size);
}

/* ---- where it listens ---- */

/* The port of the first bound address; 0: none. */
static uint16_t
bound_port(const struct forward *f)
{
	char first[ADDR_NAME], *colon;
	unsigned long port;

	if (strstr(f->bound, "\n\n") == NULL)
		return 0;
	snprintf(first, sizeof(first), "%.*s", (int)strcspn(f->bound, "\n"), f->bound);
	colon = strrchr(first, ':');
	port = colon == NULL ? 0 : strtoul(colon + 1, NULL, 10);
	return port > UINT16_MAX ? 0 : (uint16_t)port;
}

void
forward_keep_port(struct forward *f)
{
	char name[ENDPOINT_NAME], *text;
	uint16_t port = bound_port(f);

	if (f->from.kind != ENDPOINT_TCP || f->from.port != 0 || port == 0)
		return;
	f->from.port = port;
	endpoint_name(&f->from, name, sizeof(name));
	text = strdup(name);
	if (text == NULL)
		return;
	free(f->from_text);
	f->from_text = text;
}

/* If ${bound} has a port, write it as a URL for a browser, else unchanged. */
static void
write_url(const struct forward *f, const char *bound, char *dst, size_t size)
{
	const char *scheme = f->kind == FORWARD_SOCKS ? "socks5h://" : "http://",
		   *port = strrchr(bound, ':');
	bool loopback = strncmp(bound, "127.0.0.1:", 10) == 0 || strncmp(bound, "[::1]:", 6) == 0;

	if (strchr(bound, '/') != NULL || port == NULL || *bound == '*')
		snprintf(dst, size, "%s", bound);
	else if (loopback)
		snprintf(dst, size, "%slocalhost%s", scheme, port);
	else
		snprintf(dst, size, "%s%s", scheme, bound);
}

void
forward_log(const struct forward *f, const char *bound, const char *path)
{
	char here[UNIXPATH_MAX + 16], line[2 * UNIXPATH_MAX + HOPS_PATH];
	const char *colon = f->kind == FORWARD_SOCKS ? "" : ":";

	if (f->kind == FORWARD_STDIO)
		return;
	write_url(f, bound, here, sizeof(here));
	if (f->kind == FORWARD_FAR)
		snprintf(line, sizeof(line), "%s:%.*s -> here:%s", path, (int)strcspn(bound, "\n"),
		    bound, f->to_text);
	else
		snprintf(line, sizeof(line), "%s -> %s%s%s", here, path, colon, f->to_text);
	log_quote(LOG_NOTICE, line, f->kind == FORWARD_FAR ? 0 : strlen(here));
}
