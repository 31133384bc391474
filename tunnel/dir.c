/* tunnel/dir.c - the directory of a tunnel on its last hop: "@/". */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "base/tree.h"
#include "tunnel/dir.h"

#define TMP "/tmp"
#define PREFIX "relay-at-" /* "relay-" and digits: a session, see keeper.c */
#define DIGITS 16          /* of its name, hexadecimal */
#define LOCK ".relay"
#define TRIES 16

/*
 * Open and lock the file in ${d}.  False with ESTALE, EAGAIN or ENOENT: another
 * relay removes the directory, or has locked it.
 */
static bool
lock_dir(struct dir *d, int flags)
{
	char path[DIR_SIZE + sizeof(LOCK)];
	int saved;

	snprintf(path, sizeof(path), "%s/" LOCK, d->path);
	d->fd = open(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | flags, 0600);
	if (d->fd == -1)
		return false;
	if (os_lock(d->fd, path) == 0)
		return true;
	saved = errno;
	if (saved == ENOLCK)
		unlink(path);
	os_close(&d->fd);
	errno = saved;
	return false;
}

static bool
is_ours(const char *name)
{
	size_t n = strlen(PREFIX);

	return strncmp(name, PREFIX, n) == 0 && strlen(name + n) == DIGITS &&
	       strspn(name + n, "0123456789abcdef") == DIGITS;
}

static void
remove_left(void)
{
	DIR *tmp = opendir(TMP);
	struct dir d = { .fd = -1 };
	struct dirent *entry;

	while (tmp != NULL && (entry = readdir(tmp)) != NULL) {
		if (!is_ours(entry->d_name))
			continue;
		snprintf(d.path, sizeof(d.path), TMP "/%.32s", entry->d_name);
		if (!os_own_dir(d.path) || !lock_dir(&d, 0))
			continue;
		tree_remove(d.path);
		os_close(&d.fd);
	}
	if (tmp != NULL)
		closedir(tmp);
}

/* A directory that exists is not used: another user may have made it. */
static bool
try_name(struct dir *d)
{
	unsigned char random[DIGITS / 2];
	size_t i;
	int n = snprintf(d->path, sizeof(d->path), TMP "/" PREFIX);

	if (!os_random(random, sizeof(random)))
		return false;
	for (i = 0; i < sizeof(random); i++)
		n += snprintf(d->path + n, sizeof(d->path) - (size_t)n, "%02x", random[i]);
	if (mkdir(d->path, 0700) == -1)
		return false;
	if (lock_dir(d, O_CREAT | O_EXCL) || errno == ENOLCK)
		return true;
	n = errno;
	tree_remove(d->path);
	errno = n;
	return false;
}

bool
dir_make(struct dir *d)
{
	int tries = TRIES;

	d->fd = -1;
	remove_left();
	while (tries-- > 0) {
		if (try_name(d))
			return true;
		if (errno != EEXIST && errno != EAGAIN && errno != ESTALE && errno != ENOENT)
			break;
	}
	d->path[0] = '\0';
	return false;
}

void
dir_remove(struct dir *d)
{
	if (d->path[0] == '\0')
		return;
	if (!tree_remove(d->path) && errno != ENOENT)
		log_say(
		    LOG_ERROR, "cannot remove %s: %s; remove it by hand", d->path, strerror(errno));
	os_close(&d->fd);
	d->path[0] = '\0';
}

bool
dir_resolve(const struct dir *d, const char *text, char *dst, size_t size)
{
	size_t mark = strlen(DIR_MARK);
	int n;

	if (strncmp(text, DIR_MARK, mark) != 0)
		n = snprintf(dst, size, "%s", text);
	else if (d->path[0] == '\0')
		return false;
	else
		n = snprintf(dst, size, "%s/%s", d->path, text + mark);
	return n >= 0 && (size_t)n < size;
}
