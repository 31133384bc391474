/* tunnel/master.c - one login carries several channels: ssh's ControlMaster. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "base/poll.h"
#include "relay.h"
#include "spawn.h"
#include "tunnel/dir.h"
#include "tunnel/hops.h"
#include "tunnel/master.h"

#define PATH_SIZE 256
#define LINE_SIZE 512
#define ASK_MOST 10000000 /* us, for ssh -V and ssh -G; Match exec may be slow */

/*
 * For sh, with the command of ssh and -G as arguments.  Only OpenSSH is run
 * with -G: Dropbear's ssh ignores -G and logs in.  Errors are discarded: the ssh
 * of the first channel reports them.
 */
#define ASK                                                                        \
	"exec </dev/null 2>/dev/null; case $(\"$1\" -V 2>&1) in *OpenSSH_*) exec " \
	"\"$@\";; esac"

#define FIRST "-o ControlMaster=yes -o ControlPath=%s -o ControlPersist=no"

/* ProxyCommand: without a master, ssh would log in. */
#define FURTHER                                                                       \
	"-S %s -o ControlMaster=no -o ProxyCommand=false -o ClearAllForwardings=yes " \
	"-o BatchMode=yes"

enum master_state { MASTER_ASKING, MASTER_OURS, MASTER_THEIRS, MASTER_NONE };

struct master {
	enum master_state state;
	const struct hops *asked; /* the hops whose first ssh is asked */

	/* MASTER_ASKING */
	struct child *child;
	int in, slot;
	int64_t until;
	char line[LINE_SIZE];
	size_t line_have;
	bool answers; /* OpenSSH has printed its configuration */

	struct dir dir;
	char path[PATH_SIZE]; /* the ControlPath of the user, or of the last ssh; "": none */
	unsigned count;       /* of paths in dir */

	struct hops first, further;
	char options[sizeof(FURTHER) + PATH_SIZE]; /* of the last parsed one of them */
};

/* ---- ssh -V and ssh -G ---- */

/* In the child: ${fd} is stdin. */
static void
run(const void *arg, int fd)
{
	const struct master *m = arg;
	char sh[] = "sh", dash_c[] = "-c", script[] = ASK, dash_g[] = "-G";
	char *argv[HOPS_WORDS + 5] = { sh, dash_c, script, sh, m->asked->argv[0], dash_g };
	size_t words = (size_t)m->asked->words;

	memcpy(&argv[6], &m->asked->argv[1], words * sizeof(argv[0]));
	if (dup2(fd, STDOUT_FILENO) != -1) {
		os_restore_files();
		execvp(sh, argv);
	}
	_exit(STATUS_NOTFOUND);
}

struct master *
master_new(const struct hops *hops, struct children *kids, int64_t now)
{
	struct master *m;

	if (!hops_runs_ssh(hops) || hops_any_command(hops))
		return NULL;
	m = calloc(1, sizeof(*m));
	if (m == NULL)
		return NULL;
	m->asked = hops;
	m->dir.fd = m->slot = -1;
	m->until = now + ASK_MOST;
	m->child = spawn_call(kids, run, m);
	if (m->child != NULL) {
		m->in = spawn_take(m->child, STDOUT_FILENO);
		return m;
	}
	free(m);
	return NULL;
}

static void
end_asking(struct master *m, bool answers, int64_t now)
{
	os_close(&m->in);
	spawn_release(m->child, now);
	if (answers && m->path[0] != '\0')
		m->state = MASTER_THEIRS;
	else
		m->state = answers && dir_make(&m->dir) ? MASTER_OURS : MASTER_NONE;
	if (m->state == MASTER_NONE)
		log_say(LOG_INFO, "one channel only: ssh is not OpenSSH, ssh -G gave no answer, or "
				  "no directory can be made in /tmp");
}

/*
 * ssh -G prints the expanded path, and -S expands it again: % is doubled, and a
 * path with a $ is not used.  A path with a blank is not used either, because
 * options are split at blanks.
 */
static void
take_path(struct master *m, const char *path)
{
	size_t n = 0;

	if (strpbrk(path, " \t$") != NULL)
		path = "/none";
	for (; *path != '\0' && n < sizeof(m->path) - 2; path++) {
		if (*path == '%')
			m->path[n++] = '%';
		m->path[n++] = *path;
	}
	m->path[n] = '\0';
}

static void
take_line(struct master *m)
{
	static const char master[] = "controlmaster ", path[] = "controlpath ";

	m->line[m->line_have] = '\0';
	m->line_have = 0;
	if (strncmp(m->line, master, sizeof(master) - 1) == 0)
		m->answers = true;
	else if (strncmp(m->line, path, sizeof(path) - 1) == 0)
		take_path(m, m->line + sizeof(path) - 1);
}

static void
take(struct master *m, const char *p, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (p[i] == '\n')
			take_line(m);
		else if (m->line_have < sizeof(m->line) - 1)
			m->line[m->line_have++] = p[i];
}

bool
master_is_known(const struct master *m)
{
	return m == NULL || m->state != MASTER_ASKING;
}

void
master_want(struct master *m, struct pollset *ps)
{
	if (master_is_known(m))
		return;
	m->slot = pollset_add(ps, m->in, POLLIN);
	pollset_until(ps, m->until);
}

void
master_step(struct master *m, const struct pollset *ps)
{
	char room[4096];
	ssize_t n;

	if (master_is_known(m))
		return;
	if (ps->now >= m->until) {
		end_asking(m, false, ps->now);
		return;
	}
	if (pollset_ready(ps, m->slot) == 0)
		return;
	n = read(m->in, room, sizeof(room));
	if (n > 0)
		take(m, room, (size_t)n);
	else if (n == 0 || (errno != EINTR && errno != EAGAIN))
		end_asking(m, m->answers, ps->now);
}

bool
master_is_usable(const struct master *m)
{
	return m != NULL && (m->state == MASTER_OURS || m->state == MASTER_THEIRS);
}

/* ---- the commands ---- */

/* What removes old files in /tmp may have removed the directory. */
static bool
keep_dir(struct master *m)
{
	if (os_own_dir(m->dir.path))
		return true;
	os_close(&m->dir.fd);
	m->path[0] = '\0';
	return dir_make(&m->dir);
}

/*
 * Each ssh has a socket of another name: an ssh that ends removes its socket,
 * and the next ssh may already run.
 */
static bool
rename_socket(struct master *m)
{
	if (!keep_dir(m))
		return false;
	if (m->path[0] != '\0')
		unlink(m->path);
	snprintf(m->path, sizeof(m->path), "%s/%u", m->dir.path, ++m->count);
	return true;
}

const struct hops *
master_first(struct master *m, const struct hops *hops)
{
	struct hops_config config = hops->config;
	char why[512];

	if (m == NULL || m->state != MASTER_OURS)
		return hops;
	config.options = m->options;
	if (rename_socket(m)) {
		snprintf(m->options, sizeof(m->options), FIRST, m->path);
		if (hops_parse(&m->first, &config, why, sizeof(why)))
			return &m->first;
	}
	m->state = MASTER_NONE;
	return hops;
}

const struct hops *
master_further(struct master *m)
{
	struct hops_config config;
	char why[512];

	if (!master_is_usable(m))
		return NULL;
	config = m->asked->config;
	config.options = m->options;
	config.batch = true;
	snprintf(m->options, sizeof(m->options), FURTHER, m->path);
	return hops_parse(&m->further, &config, why, sizeof(why)) ? &m->further : NULL;
}

void
master_stop(struct master *m, int64_t now)
{
	if (master_is_known(m))
		return;
	os_close(&m->in);
	spawn_release(m->child, now);
	m->state = MASTER_NONE;
}

void
master_free(struct master *m, int64_t now)
{
	if (m == NULL)
		return;
	master_stop(m, now);
	dir_remove(&m->dir);
	free(m);
}
