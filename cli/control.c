/* cli/control.c - the control socket of a relay. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "base/poll.h"
#include "net/endpoint.h"
#include "net/unixpath.h"
#include "conn/conn.h"
#include "conn/listeners.h"
#include "tunnel/forward.h"
#include "tunnel/hops.h"
#include "tunnel/tunnel.h"
#include "cli/cache.h"
#include "cli/options.h"
#include "cli/control.h"

/* In us. */
#define CLIENT_TIME 1000000
#define ACCEPT_PAUSE 1000000 /* after accept(2) has failed */

#define CLIENTS (CONTROL_FILES - 1)
#define LINE_SIZE 16 /* more than a request has */
#define VALUE_SIZE (UNIXPATH_MAX + HOPS_PATH)
#define KEY_WIDTH 12

struct client {
	int fd; /* -1: none */
	int slot;
	int64_t until;
	bool leaving;                /* sent exit: it waits for the end of this process */
	char answer[CONTROL_REPORT]; /* "": the request is not complete */
	size_t sent;
};

struct control {
	struct control_view view;
	char path[CACHE_PATH];
	struct unixpath file;
	int fd, slot;
	int64_t began_at;
	int64_t resume_at; /* no accept before this time */
	struct client clients[CLIENTS];
};

/* ---- the report ---- */

static void add(char report[CONTROL_REPORT], const char *key, const char *fmt, ...)
    LOG_PRINTF(3, 4);

/* A line that has no room is left out. */
static void
add(char report[CONTROL_REPORT], const char *key, const char *fmt, ...)
{
	size_t used = strlen(report), room = CONTROL_REPORT - used;
	char value[VALUE_SIZE];
	va_list ap;
	int n;

	va_start(ap, fmt);
	vsnprintf(value, sizeof(value), fmt, ap);
	va_end(ap);
	log_plain(value, ' ');
	n = snprintf(report + used, room, "%-*s%s\n", KEY_WIDTH, key, value);
	if (n < 0 || (size_t)n >= room)
		report[used] = '\0';
}

static const char *
state_name(const struct control_view *v)
{
	enum tunnel_state state = tunnel_state(v->tunnel);

	if (v->tunnel == NULL)
		return v->listeners->n > 0 ? "up" : "stopping";
	if (state == TUNNEL_UP)
		return *v->ready ? "up" : "waiting";
	if (state == TUNNEL_STOPPING || state == TUNNEL_OVER)
		return "stopping";
	if (tunnel_awaits_login(v->tunnel))
		return "login refused";
	return tunnel_connects(v->tunnel) > 0 ? "reconnecting" : "starting";
}

/* A relative path means nothing to a process in another directory. */
static void
add_path(char report[CONTROL_REPORT], const char *key, const char *path)
{
	char here[UNIXPATH_MAX];

	if (strchr(path, '/') == NULL || *path == '/' || getcwd(here, sizeof(here)) == NULL)
		add(report, key, "%s", path);
	else
		add(report, key, "%s/%s", here, path);
}

static void
add_routes(char report[CONTROL_REPORT], const struct control_view *v)
{
	const struct options *o = v->options;
	const struct forward *f;
	char text[HOPS_PATH];
	const char *name;
	int at = 0;

	if (o->mode == MODE_TUNNEL)
		add(report, "hops", "%s", hops_path(&o->hops, text, sizeof(text)));
	if (o->command != NULL)
		add(report, "command", "%s", o->command[0]);
	if (o->mode != MODE_TUNNEL)
		add(report, "target", "%s", endpoint_name(&o->target.to, text, sizeof(text)));
	while ((name = listeners_next_name(v->listeners, &at)) != NULL)
		add_path(report, "listens", name);
	for (f = o->forwards; f < o->forwards + o->n_forwards; f++)
		add(report, "forward", "-%c %s%s%s", f->kind, f->from_text,
		    f->to_text != NULL ? ":" : "", f->to_text != NULL ? f->to_text : "");
}

static void
write_report(const struct control *c, int64_t now, char report[CONTROL_REPORT])
{
	const struct control_view *v = &c->view;
	char channel[256];
	uint64_t there, back;
	const char *event;
	unsigned i;
	long age;

	*report = '\0';
	add(report, "pid", "%ld", (long)getpid());
	add(report, "state", "%s", state_name(v));
	add_routes(report, v);
	conn_bytes(v->conns, &there, &back);
	add(report, "connections", "%zu open, %lu in all", v->conns->n, v->conns->last_id);
	add(report, "bytes", "%" PRIu64 " there, %" PRIu64 " back", there, back);
	for (i = 0; v->tunnel != NULL && tunnel_channel(v->tunnel, i, channel, sizeof(channel));
	     i++)
		add(report, "channel", "%s", channel);
	add(report, "age", "%" PRId64 " s", (now - c->began_at) / 1000000);
	if (log_file() != NULL)
		add_path(report, "log", log_file());
	event = log_last(&age);
	if (*event != '\0')
		add(report, "event", "%ld s ago: %s", age, event);
}

/* ---- the socket ---- */

/* The last directory of cache_dir is in /tmp: another user can make it first. */
static void
explain_failure(const char *dir, const char *why)
{
	struct stat st;

	if (lstat(dir, &st) == 0 && st.st_uid != geteuid())
		log_say(LOG_NOTICE,
		    "no control socket: %s belongs to another user; set XDG_CACHE_HOME to a "
		    "local directory",
		    dir);
	else
		log_say(LOG_INFO, "no control socket: %s", why);
}

struct control *
control_open(const struct control_view *view)
{
	struct control *c = calloc(1, sizeof(*c));
	char dir[CACHE_PATH] = "", why[CACHE_PATH] = "out of memory";
	int i, fd = -1;

	for (i = 0; c != NULL && fd == -1 && i < CACHE_DIRS; i++) {
		if (!cache_dir(i, true, dir, why))
			continue;
		cache_file(dir, (long)getpid(), "sock", c->path);
		cache_remove_dead(c->path); /* it had this process ID */
		fd = unixpath_listen(&c->file, c->path, 0, why, sizeof(why));
	}
	if (fd == -1) {
		explain_failure(dir, why);
		free(c);
		return NULL;
	}
	c->fd = fd;
	c->view = *view;
	c->began_at = pollset_clock();
	for (i = 0; i < CLIENTS; i++)
		c->clients[i].fd = -1;
	return c;
}

void
control_close(struct control *c)
{
	if (c == NULL)
		return;
	unixpath_remove(&c->file, 0);
	os_close(&c->fd);
}

static void
drop(struct client *k)
{
	os_close(&k->fd);
	k->answer[0] = '\0';
}

static struct client *
free_client(struct control *c)
{
	struct client *k;

	for (k = c->clients; k < c->clients + CLIENTS; k++)
		if (k->fd == -1)
			return k;
	return NULL;
}

/* A leaving client is left out: poll would report its hang-up in each turn. */
void
control_want(struct control *c, struct pollset *ps)
{
	struct client *k;

	if (c == NULL)
		return;
	c->slot = -1;
	if (ps->now < c->resume_at)
		pollset_until(ps, c->resume_at);
	else if (free_client(c) != NULL)
		c->slot = pollset_add(ps, c->fd, POLLIN);
	for (k = c->clients; k < c->clients + CLIENTS; k++) {
		k->slot = pollset_add(
		    ps, k->leaving ? -1 : k->fd, k->answer[0] != '\0' ? POLLOUT : POLLIN);
		if (k->slot != -1)
			pollset_until(ps, k->until);
	}
}

static void
accept_client(struct control *c, const struct pollset *ps)
{
	struct client *k = free_client(c);
	uid_t uid = geteuid();

	if (k == NULL || pollset_ready(ps, c->slot) == 0)
		return;
	k->sent = 0;
	k->fd = os_accept(c->fd, NULL, NULL);
	if (k->fd == -1) {
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			c->resume_at = ps->now + ACCEPT_PAUSE;
		return;
	}
	k->until = ps->now + CLIENT_TIME;
	/* If the system has no way, the mode of the directory protects it. */
	if (os_unix_uid(k->fd, &uid) != -1 && (uid == geteuid() || uid == 0))
		return;
	log_say(LOG_INFO, "refused a client of the control socket: it is of another user");
	drop(k);
}

/* Return true for a request to exit.  Drop a client that sends no request. */
static bool
read_request(struct control *c, struct client *k, int64_t now)
{
	char line[LINE_SIZE];
	ssize_t n = read(k->fd, line, sizeof(line) - 1);
	bool login;

	if (n == -1 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		return false;
	line[n > 0 ? n : 0] = '\0';
	if (strcmp(line, "exit\n") == 0) {
		log_say(LOG_NOTICE, "stopped by relay -O exit");
		/* If the answer is lost, the client sends exit again. */
		n = write(k->fd, CONTROL_LEAVING, sizeof(CONTROL_LEAVING) - 1);
		(void)n;
		k->leaving = true;
		return true;
	}
	login = strcmp(line, "login\n") == 0;
	if (login && c->view.tunnel != NULL)
		tunnel_login(c->view.tunnel, now);
	if (login || strcmp(line, "status\n") == 0)
		write_report(c, now, k->answer);
	else
		drop(k);
	return false;
}

static void
write_answer(struct client *k)
{
	size_t left = strlen(k->answer + k->sent);
	ssize_t n = write(k->fd, k->answer + k->sent, left);

	if (n == -1 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		return;
	if (n > 0)
		k->sent += (size_t)n;
	if (n <= 0 || (size_t)n == left)
		drop(k);
}

bool
control_step(struct control *c, const struct pollset *ps)
{
	struct client *k;
	bool exits = false;

	if (c == NULL)
		return false;
	for (k = c->clients; k < c->clients + CLIENTS; k++) {
		if (k->fd == -1 || k->leaving)
			continue;
		if (ps->now >= k->until)
			drop(k);
		else if (pollset_ready(ps, k->slot) != 0 && k->answer[0] != '\0')
			write_answer(k);
		else if (pollset_ready(ps, k->slot) != 0)
			exits = read_request(c, k, ps->now) || exits;
	}
	accept_client(c, ps);
	return exits;
}
