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
#define ANSWER_SIZE 32768
#define ASK_MOST 10000000 /* us, for ssh -V and ssh -G; Match exec may be slow */

/*
 * For sh, with the command of ssh and -G as arguments.  Only OpenSSH is run
 * with -G: Dropbear's ssh ignores -G and logs in.  Errors are discarded: the
 * ssh of the first channel reports them.
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
	char answer[ANSWER_SIZE]; /* a newline, and the configuration as a string */
	size_t have;

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
	m->answer[m->have++] = '\n';
	m->until = now + ASK_MOST;
	m->child = spawn_call(kids, run, m);
	if (m->child != NULL) {
		m->in = spawn_take(m->child, STDOUT_FILENO);
		return m;
	}
	free(m);
	return NULL;
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

	if (path[strcspn(path, " \t$\n")] != '\n')
		path = "/none\n";
	for (; *path != '\n' && n < sizeof(m->path) - 2; path++) {
		if (*path == '%')
			m->path[n++] = '%';
		m->path[n++] = *path;
	}
	m->path[n] = '\0';
}

static void
end_asking(struct master *m, int64_t now)
{
	static const char path[] = "\ncontrolpath ";
	const char *found = strstr(m->answer, path);

	os_close(&m->in);
	spawn_release(m->child, now);
	m->state = MASTER_NONE;
	if (found != NULL) {
		take_path(m, found + strlen(path));
		m->state = MASTER_THEIRS;
	} else if (strstr(m->answer, "\ncontrolmaster ") != NULL && dir_make(&m->dir)) {
		m->state = MASTER_OURS;
	} else {
		log_say(LOG_INFO, "one channel only: ssh is not OpenSSH, ssh -G gave no answer, or "
				  "no directory can be made in /tmp");
	}
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
	ssize_t n;

	if (master_is_known(m))
		return;
	if (ps->now >= m->until) {
		m->answer[0] = '\0';
		end_asking(m, ps->now);
		return;
	}
	if (pollset_ready(ps, m->slot) == 0)
		return;
	n = read(m->in, m->answer + m->have, sizeof(m->answer) - 1 - m->have);
	if (n > 0)
		m->have += (size_t)n;
	else if (n == 0 || (errno != EINTR && errno != EAGAIN))
		end_asking(m, ps->now);
}

bool
master_is_usable(const struct master *m)
{
	return m != NULL && (m->state == MASTER_OURS || m->state == MASTER_THEIRS);
}

/* ---- the commands ---- */

/*
 * Each ssh has a socket of another name: an ssh that ends removes its socket,
 * and the next ssh may already run.  What removes old files in /tmp may have
 * removed the directory.
 */
static bool
rename_socket(struct master *m)
{
	if (!os_own_dir(m->dir.path)) {
		os_close(&m->dir.fd);
		if (!dir_make(&m->dir))
			return false;
	} else if (m->path[0] != '\0') {
		unlink(m->path);
	}
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
