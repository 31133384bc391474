/* cli/cache.c - the directory of this user for control sockets and logs. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/os.h"
#include "net/unixpath.h"
#include "cli/cache.h"

#define HOST_SIZE 65
#define NAME_SIZE (HOST_SIZE + 32) /* HOST.PID.KIND */

/* False: the environment names no directory, or its path is too long. */
static bool
name_dir(int i, char *dst)
{
	const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	int n;

	if (i > 0)
		n = snprintf(dst, CACHE_PATH, "/tmp/relay-%lu", (unsigned long)geteuid());
	else if (cache != NULL && *cache == '/')
		n = snprintf(dst, CACHE_PATH, "%s/relay", cache);
	else if (home != NULL && *home == '/')
		n = snprintf(dst, CACHE_PATH, "%s/.cache/relay", home);
	else
		return false;
	return n < CACHE_PATH - NAME_SIZE;
}

static bool
make_dir(const char *path)
{
	char parent[CACHE_PATH];

	snprintf(parent, sizeof(parent), "%.*s", (int)(strrchr(path, '/') - path), path);
	mkdir(parent, 0700); /* if it does not exist, the next one fails */
	return mkdir(path, 0700) == 0 || errno == EEXIST;
}

bool
cache_dir(int i, bool make, char *dst, char *why)
{
	const char *cause = NULL;

	if (!name_dir(i, dst)) {
		snprintf(why, CACHE_PATH,
		    "HOME and XDG_CACHE_HOME name no directory, or its path is too long");
		return false;
	}
	if (make && !make_dir(dst))
		cause = strerror(errno);
	else if (!os_own_dir(dst))
		cause = "not a directory of mode 0700 of this user";
	else if (os_remote_file(dst))
		cause = "on a network file system";
	if (cause != NULL)
		snprintf(why, CACHE_PATH, "%.512s: %s", dst, cause);
	return cause == NULL;
}

static void
host_name(char dst[HOST_SIZE])
{
	memset(dst, 0, HOST_SIZE);
	if (gethostname(dst, HOST_SIZE - 1) == -1 || *dst == '\0')
		memcpy(dst, "localhost", sizeof("localhost"));
}

void
cache_file(const char *dir, long pid, const char *kind, char *dst)
{
	char host[HOST_SIZE];

	host_name(host);
	snprintf(dst, CACHE_PATH, "%s/%s.%ld.%s", dir, host, pid, kind);
}

long
cache_pid(const char *name, const char *kind)
{
	char host[HOST_SIZE], *end;
	size_t n;
	long pid;

	host_name(host);
	n = strlen(host);
	if (strncmp(name, host, n) != 0 || name[n] != '.' || name[n + 1] < '1' || name[n + 1] > '9')
		return 0;
	pid = strtol(name + n + 1, &end, 10);
	return *end == '.' && strcmp(end + 1, kind) == 0 ? pid : 0;
}

/* If a new relay gets this process ID meanwhile, its socket is another file. */
void
cache_remove_dead(const char *path)
{
	struct unixpath file = { .path = path };
	struct stat st;

	if (lstat(path, &st) == -1 || !S_ISSOCK(st.st_mode) || !unixpath_is_unused(path))
		return;
	file.dev = st.st_dev;
	file.ino = st.st_ino;
	unixpath_remove(&file, 0);
}
