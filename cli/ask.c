/* cli/ask.c - -O: list, check and stop the relays of this user. */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "base/poll.h"
#include "net/unixpath.h"
#include "tunnel/hops.h"
#include "relay.h"
#include "cli/ask.h"
#include "cli/cache.h"
#include "cli/control.h"

/* In us. */
#define ANSWER_TIME 2000000 /* for a report */
#define EXIT_TIME 20000000  /* a command has ten seconds to end */

#define EXIT_TRIES 3
#define HOSTS 6
#define WIDE 2
#define VALUE_SIZE (UNIXPATH_MAX + HOPS_PATH)

/* ---- reading a report ---- */

bool
ask_field(const char *report, const char *key, int nth, char *dst, size_t size)
{
	size_t n = strlen(key);
	const char *line, *value;

	for (line = report; *line != '\0'; line += strcspn(line, "\n"), line += *line == '\n') {
		if (strncmp(line, key, n) != 0 || line[n] != ' ' || nth-- > 0)
			continue;
		value = line + n + strspn(line + n, " ");
		snprintf(dst, size, "%.*s", (int)strcspn(value, "\n"), value);
		return true;
	}
	*dst = '\0';
	return false;
}

static bool
is_same_file(const char *one, const char *other)
{
	struct stat a, b;

	return lstat(one, &a) == 0 && lstat(other, &b) == 0 && a.st_dev == b.st_dev &&
	       a.st_ino == b.st_ino;
}

/* The first WIDE of these stand for all. */
static const char *const hosts[HOSTS] = {
	"localhost:", "*:", "127.0.0.1:", "[::1]:", "0.0.0.0:", "[::]:"
};

/* The index of the host of ${text}; HOSTS: another host, or none. */
static size_t
find_host(const char *text)
{
	size_t i;

	for (i = 0; i < HOSTS && strncmp(text, hosts[i], strlen(hosts[i])) != 0; i++)
		;
	return i;
}

static bool
is_address(const char *address, const char *name)
{
	const char *port = strrchr(address, ':');
	size_t a = find_host(address), b = find_host(name);

	if (strcmp(address, name) == 0)
		return true;
	if (strchr(address, '/') != NULL)
		return strchr(name, '/') != NULL && is_same_file(address, name);
	if (a < HOSTS && b < HOSTS && (a < WIDE || b < WIDE))
		name += strlen(hosts[b]);
	return port != NULL && strcmp(port + 1, name) == 0;
}

bool
ask_is_named(const char *report, const char *name)
{
	char value[VALUE_SIZE];
	int i;

	for (i = 0; ask_field(report, "listens", i, value, sizeof(value)); i++)
		if (is_address(value, name))
			return true;
	return false;
}

/* ---- -O ---- */

enum asked { ASKED_OK, ASKED_DEAD, ASKED_SILENT };

/* One relay, as -O found it. */
struct found {
	long pid; /* from the name of its socket */
	enum asked asked;
	char path[CACHE_PATH];
	char report[CONTROL_REPORT];
};

/*
 * ${fd} is connected.  Send ${request}, and read the answer until EOF.  If the
 * relay ends before it reads the request, the answer is empty.
 */
static enum asked
talk(int fd, const char *request, int64_t time_us, char answer[CONTROL_REPORT])
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	int64_t until = pollset_clock() + time_us, left;
	size_t used = 0;
	ssize_t n;

	n = send(fd, request, strlen(request), MSG_NOSIGNAL);
	if (n == -1 && errno == EPIPE)
		return ASKED_OK;
	if (n != (ssize_t)strlen(request))
		return ASKED_SILENT;
	while ((left = until - pollset_clock()) > 0 && used < CONTROL_REPORT - 1) {
		if (poll(&pfd, 1, (int)(left / 1000) + 1) <= 0)
			continue;
		n = recv(fd, answer + used, CONTROL_REPORT - 1 - used, 0);
		if (n == 0 || (n == -1 && errno == ECONNRESET))
			return ASKED_OK;
		if (n == -1 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
			break;
		used += n > 0 ? (size_t)n : 0;
		answer[used] = '\0';
	}
	return ASKED_SILENT;
}

static enum asked
ask(const char *path, const char *request, int64_t time_us, char answer[CONTROL_REPORT])
{
	enum asked asked = ASKED_SILENT;
	int fd = os_socket(AF_UNIX);
	uid_t uid = geteuid();

	*answer = '\0';
	if (fd == -1)
		return ASKED_SILENT;
	if (unixpath_connect(fd, path) == -1)
		asked = errno == ECONNREFUSED || errno == ENOENT ? ASKED_DEAD : ASKED_SILENT;
	else if (os_unix_uid(fd, &uid) != -1 && uid == geteuid())
		asked = talk(fd, request, time_us, answer);
	close(fd);
	return asked;
}

static void
list_one(const struct found *f)
{
	char name[VALUE_SIZE], state[16], route[VALUE_SIZE], age[32], log[VALUE_SIZE];

	if (f->asked == ASKED_DEAD)
		cache_remove_dead(f->path);
	else if (f->asked == ASKED_SILENT)
		printf("%ld  pid %ld  no answer\n", f->pid, f->pid);
	if (f->asked != ASKED_OK)
		return;
	if (!ask_field(f->report, "listens", 0, name, sizeof(name)))
		snprintf(name, sizeof(name), "%ld", f->pid);
	if (!ask_field(f->report, "hops", 0, route, sizeof(route)))
		ask_field(f->report, "target", 0, route, sizeof(route));
	ask_field(f->report, "state", 0, state, sizeof(state));
	ask_field(f->report, "age", 0, age, sizeof(age));
	ask_field(f->report, "log", 0, log, sizeof(log));
	printf("%s  pid %ld  %s  %s  %s%s%s\n", name, f->pid, state, route, age,
	    *log != '\0' ? "  " : "", log);
}

/* The relays that ${name} matches. */
struct search {
	const char *name; /* NULL: list all */
	int n;
	char pids[128]; /* for the message */
	struct found found;
};

static void
match(struct search *s, const struct found *f)
{
	char pid[32];
	size_t used = strlen(s->pids);

	snprintf(pid, sizeof(pid), "%ld", f->pid);
	if (f->asked == ASKED_DEAD ||
	    (strcmp(pid, s->name) != 0 && !ask_is_named(f->report, s->name)))
		return;
	snprintf(s->pids + used, sizeof(s->pids) - used, "%s%s", used > 0 ? ", " : "", pid);
	if (s->n++ == 0)
		s->found = *f;
}

/* List or match each control socket in ${dir}. */
static void
visit_dir(struct search *s, const char *dir)
{
	static struct found f;
	DIR *d = opendir(dir);
	struct dirent *entry;

	while (d != NULL && (entry = readdir(d)) != NULL) {
		f.pid = cache_pid(entry->d_name, "sock");
		if (f.pid == 0)
			continue;
		cache_file(dir, f.pid, "sock", f.path);
		f.asked = ask(f.path, "status\n", ANSWER_TIME, f.report);
		if (f.asked == ASKED_OK && *f.report == '\0')
			f.asked = ASKED_SILENT;
		log_plain(f.report, '\n');
		if (s->name == NULL)
			list_one(&f);
		else
			match(s, &f);
	}
	if (d != NULL)
		closedir(d);
}

/* List all relays, or find the one ${s}->name.  Return an exit status. */
static int
find(struct search *s)
{
	char dir[CACHE_PATH], why[CACHE_PATH];
	int i;

	for (i = 0; i < CACHE_DIRS; i++)
		if (cache_dir(i, false, dir, why))
			visit_dir(s, dir);
	if (s->name == NULL)
		return STATUS_OK;
	if (s->n == 0) {
		log_say(LOG_ERROR,
		    "no relay of this user listens on %s or is process %s; "
		    "relay -O list shows all",
		    s->name, s->name);
		return STATUS_CONNECT;
	}
	if (s->n > 1) {
		log_say(LOG_ERROR, "%s names several relays: name one of the processes %s", s->name,
		    s->pids);
		return STATUS_USAGE;
	}
	if (s->found.asked == ASKED_OK)
		return STATUS_OK;
	log_say(LOG_ERROR,
	    "process %ld does not answer on %s: is it suspended? kill -CONT %ld continues it",
	    s->found.pid, s->found.path, s->found.pid);
	return STATUS_CONNECT;
}

static int
stop(struct found *f)
{
	enum asked asked;
	int i;

	for (i = 0; i < EXIT_TRIES; i++) {
		asked = ask(f->path, "exit\n", EXIT_TIME, f->report);
		if (asked == ASKED_DEAD ||
		    (asked == ASKED_OK && strcmp(f->report, CONTROL_LEAVING) == 0))
			return STATUS_OK;
		if (asked == ASKED_SILENT)
			break;
		/* The relay closed the socket: it was busy, or it has ended. */
	}
	log_say(LOG_ERROR,
	    "process %ld has not ended after a request to end; kill -KILL %ld ends it", f->pid,
	    f->pid);
	return STATUS_CONNECT;
}

int
ask_relays(const char *word, const char *name)
{
	static struct search s;
	int status;

	s.name = name;
	status = find(&s);
	if (status == STATUS_OK && strcmp(word, "check") == 0) {
		fputs(s.found.report, stdout);
		ask(s.found.path, "login\n", ANSWER_TIME, s.found.report);
	} else if (status == STATUS_OK && name != NULL)
		status = stop(&s.found);
	return fflush(stdout) == 0 && !ferror(stdout) ? status : STATUS_SYSTEM;
}
