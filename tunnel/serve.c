/* tunnel/serve.c - the far side: serves the streams of the near side. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "mux/frame.h"
#include "mux/mux.h"
#include "net/addr.h"
#include "net/dial.h"
#include "net/endpoint.h"
#include "net/unixpath.h"
#include "conn/conn.h"
#include "conn/fdpair.h"
#include "conn/side.h"
#include "tunnel/command.h"
#include "tunnel/keeper.h"
#include "tunnel/remote.h"
#include "tunnel/serve.h"

/* us.  The addresses of a name can change while a tunnel runs for weeks. */
#define NAME_AGE 60000000
#define NAMES 16

/* A target with a host name, which is looked up once for many streams. */
struct shared_name {
	struct dial_target *target; /* NULL: none */
	int64_t expires_at;         /* then another one is made */
};

struct serve {
	struct conns *conns;
	struct remotes *remotes;
	struct dial_target *target;
	bool only_target;
	struct command *command;         /* NULL: none is allowed */
	struct shared_name names[NAMES]; /* the most recently used one first */
};

struct serve *
serve_new(struct conns *conns, struct remotes *remotes, struct dial_target *target,
    bool only_target, struct command *command)
{
	struct serve *tab = calloc(1, sizeof(*tab));

	if (tab == NULL)
		return NULL;
	tab->conns = conns;
	tab->remotes = remotes;
	tab->target = target;
	tab->only_target = only_target;
	tab->command = command;
	return tab;
}

bool
serve_refuse(struct stream *s, uint16_t code, const char *why)
{
	log_say(LOG_INFO, "refused a stream: %s", why);
	stream_reset(s, code, why);
	return false;
}

void
serve_log_refusal(const struct stream *s, enum log_level level, const char *end)
{
	const struct mux *m = stream_mux(s);

	if (mux_state(m) == MUX_DEAD || stream_code(s) == MUX_RESET)
		return;
	if (*stream_reason(s) != '\0')
		log_failure(level, "%s: %s", mux_peer(m), stream_reason(s));
	else
		log_failure(level, "%s: the far side refused %s: %s", mux_peer(m), end,
		    strerror(mux_errno_of(stream_code(s))));
}

/* A target with one reference and its own copy of the path.  NULL: no memory. */
static struct dial_target *
new_target(const struct serve *tab, const struct endpoint *to)
{
	const char *path = to->kind == ENDPOINT_UNIX ? to->path : "";
	struct dial_target *t = malloc(sizeof(*t) + strlen(path) + 1);

	if (t == NULL)
		return NULL;
	*t = *tab->target;
	t->to = *to;
	t->users = 1;
	if (to->kind == ENDPOINT_UNIX)
		t->to.path = strcpy((char *)(t + 1), path);
	return t;
}

static bool
is_for(const struct shared_name *n, const struct endpoint *to, int64_t now)
{
	return n->target != NULL && now < n->expires_at && n->target->to.port == to->port &&
	       strcmp(n->target->to.host, to->host) == 0;
}

/*
 * The target of all streams to this name, with a reference for the caller.  A
 * new one replaces the least recently used one.  NULL: no memory.
 */
static struct dial_target *
share_target(struct serve *tab, const struct endpoint *to, int64_t now)
{
	struct shared_name name;
	size_t i = 0;

	while (i < NAMES - 1 && !is_for(&tab->names[i], to, now))
		i++;
	name = tab->names[i];
	if (!is_for(&name, to, now)) {
		dial_drop_target(name.target);
		name.target = new_target(tab, to);
		name.expires_at = now + NAME_AGE;
	}
	memmove(&tab->names[1], &tab->names[0], i * sizeof(name));
	tab->names[0] = name;
	if (name.target != NULL)
		name.target->users++;
	return name.target;
}

/*
 * The target of ${s}, with a reference for the caller.  NULL: ${s} was refused.
 */
static struct dial_target *
find_target(struct serve *tab, struct stream *s, int64_t now)
{
	const char *text = stream_target(s);
	struct endpoint to = tab->target->to;
	struct dial_target *t = NULL;
	char own[ENDPOINT_NAME], resolved[FRAME_TARGET + 1], why[512];

	if (tab->only_target) {
		endpoint_name(&to, own, sizeof(own));
		if (*text == '\0' || strcmp(text, own) == 0)
			return tab->target;
		snprintf(why, sizeof(why), "this end connects only to %.300s%s", own,
		    *text == '=' ? "" : "; name that as TO");
		serve_refuse(s, MUX_FORBIDDEN, why);
	} else if (!command_resolve(tab->command, text, resolved, sizeof(resolved))) {
		serve_refuse(s, MUX_UNUSABLE, COMMAND_UNRESOLVED);
	} else if (!endpoint_parse(&to, resolved, false, why, sizeof(why))) {
		serve_refuse(s, MUX_UNUSABLE, why);
	} else if (to.kind == ENDPOINT_STDIO) {
		serve_refuse(s, MUX_UNUSABLE, "a stream's target is a port or a socket path");
	} else {
		t = to.kind == ENDPOINT_TCP ? share_target(tab, &to, now) : new_target(tab, &to);
		if (t == NULL)
			serve_refuse(s, MUX_NO_ROOM, "out of memory");
	}
	return t;
}

/* Return false if ${s} was refused. */
static bool
dial(struct serve *tab, struct stream *s, int64_t now)
{
	struct side a = side_of_stream(s);
	struct dial_target *t = find_target(tab, s, now);

	if (t == NULL)
		return false;
	if (conn_dial(tab->conns, &a, mux_peer(stream_mux(s)), t, now))
		return true;
	dial_drop_target(t);
	return serve_refuse(s, MUX_NO_ROOM, "out of memory");
}

/*
 * Join ${s} to the read end of a pipe and, if ${echoes}, to its write end.
 * Return the write end.  -1: the stream was refused.
 */
static int
join_pipe(struct serve *tab, struct stream *s, bool echoes, int64_t now)
{
	struct side a = side_of_stream(s), b;
	int fd[2] = { -1, -1 };

	side_none(&b);
	if (pipe(fd) != -1 && os_setup(fd[0]) != -1 && os_setup(fd[1]) != -1) {
		fdpair_pipes(&b.fds, fd[0], echoes ? fd[1] : -1);
		if (conn_join(tab->conns, &a, mux_peer(stream_mux(s)), &b, now)) {
			stream_accept(s);
			return fd[1];
		}
	}
	os_close(&fd[0]);
	os_close(&fd[1]);
	serve_refuse(s, MUX_NO_ROOM, "out of memory or descriptors");
	return -1;
}

static bool
list_sessions(struct serve *tab, struct stream *s, int64_t now)
{
	int fd = join_pipe(tab, s, false, now);

	if (fd == -1)
		return false;
	keeper_ask_all(fd, stream_target(s) + strlen(SERVE_SESSIONS));
	os_close(&fd);
	return true;
}

/* Is it certain that no process listens on ${to}? */
static bool
is_unused(const struct endpoint *to)
{
	struct addr_list list;

	if (to->kind == ENDPOINT_UNIX)
		return unixpath_is_unused(to->path);
	return to->kind == ENDPOINT_TCP && addr_numeric(to, &list) &&
	       addr_is_loopback((struct sockaddr *)&list.addr[0]) && os_port_is_unused(to->port);
}

static bool
check_target(struct stream *s)
{
	const char *text = stream_target(s) + strlen(SERVE_CHECK);
	struct endpoint to;
	char why[512];
	bool unused = endpoint_parse(&to, text, false, why, sizeof(why)) && is_unused(&to);

	stream_reset(s, unused ? MUX_REFUSED : MUX_RESET, "");
	return false;
}

static bool
begins(const struct stream *s, const char *word)
{
	return strncmp(stream_target(s), word, strlen(word)) == 0;
}

static bool
take_up(struct serve *tab, struct stream *s, int64_t now)
{
	if (begins(s, REMOTE_LISTEN) && tab->only_target)
		return serve_refuse(
		    s, MUX_FORBIDDEN, "this end connects to one target and does not listen");
	if (tab->only_target)
		return dial(tab, s, now);
	if (begins(s, REMOTE_LISTEN))
		return remote_listen(tab->remotes, s, tab->command, now);
	if (begins(s, REMOTE_ACCEPT))
		return remote_wait(tab->remotes, s);
	if (strcmp(stream_target(s), COMMAND_TARGET) == 0)
		return command_open(tab->command, s);
	if (strcmp(stream_target(s), SERVE_ECHO) == 0)
		return join_pipe(tab, s, true, now) != -1;
	if (begins(s, SERVE_SESSIONS))
		return list_sessions(tab, s, now);
	if (begins(s, SERVE_CHECK))
		return check_target(s);
	return dial(tab, s, now);
}

void
serve_streams(struct serve *tab, struct mux *m, int64_t now)
{
	struct stream *s;

	while ((s = mux_accept(m)) != NULL)
		if (!take_up(tab, s, now))
			stream_release(s);
}
