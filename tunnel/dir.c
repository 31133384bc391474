/* tunnel/dir.c - a directory of a relay, until it ends. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "base/tree.h"
#include "tunnel/dir.h"

#define TMP "/tmp"
#define PREFIX "relay-at-" /* "relay-" and digits: a session, see keeper.c */
#define LOCK ".relay"
#define TRIES 16

/* Open and lock the file in ${d}.  On failure return false with errno set. */
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
	/* The file without a lock would look like that of a killed relay. */
	if (saved == ENOLCK && flags != 0)
		unlink(path);
	os_close(&d->fd);
	errno = saved;
	return false;
}

static void
remove_left(void)
{
	DIR *tmp = opendir(TMP);
	struct dir d = { .fd = -1 };
	struct dirent *entry;

	while (tmp != NULL && (entry = readdir(tmp)) != NULL) {
		if (!tree_is_name(entry->d_name, PREFIX))
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

static bool
try_name(struct dir *d)
{
	unsigned char id[TREE_ID];
	int saved;

	if (!os_random(id, sizeof(id)) || !tree_make(d->path, sizeof(d->path), TMP "/" PREFIX, id))
		return false;
	if (lock_dir(d, O_CREAT | O_EXCL) || errno == ENOLCK)
		return true;
	saved = errno;
	if (!tree_remove(d->path))
		rmdir(d->path); /* no descriptor was left to look into it */
	errno = saved;
	return false;
}

bool
dir_make(struct dir *d)
{
	int tries = TRIES;

	d->fd = -1;
	remove_left();
	/* Before it is locked, another relay can remove the directory. */
	while (tries-- > 0) {
		if (try_name(d))
			return true;
		if (errno == EMFILE || errno == ENFILE || errno == ENOSPC || errno == EACCES)
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
	else if (d == NULL || d->path[0] == '\0')
		return false;
	else
		n = snprintf(dst, size, "%s/%s", d->path, text + mark);
	return n >= 0 && (size_t)n < size;
}
