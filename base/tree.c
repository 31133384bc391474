/* base/tree.c - makes a directory, and removes it with all that is in it. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/os.h"
#include "base/tree.h"

void
tree_name(char *dst, size_t size, const char *prefix, const unsigned char id[TREE_ID])
{
	size_t i, n = strlen(prefix);

	snprintf(dst, size, "%s", prefix);
	for (i = 0; i < TREE_ID && n < size; i++, n += 2)
		snprintf(dst + n, size - n, "%02x", id[i]);
}

bool
tree_is_name(const char *name, const char *prefix)
{
	size_t n = strlen(prefix);

	return strncmp(name, prefix, n) == 0 && strlen(name + n) == 2 * TREE_ID &&
	       strspn(name + n, "0123456789abcdef") == 2 * TREE_ID;
}

bool
tree_make(char *dst, size_t size, const char *prefix, const unsigned char id[TREE_ID])
{
	tree_name(dst, size, prefix, id);
	return mkdir(dst, 0700) == 0;
}

static bool empty(int at, const char *name, int depth);

/* Remove ${name} in the directory ${at}. */
static bool
remove_entry(int at, const char *name, int depth)
{
	if (unlinkat(at, name, 0) == 0 || errno == ENOENT)
		return true;
	/* POSIX: EPERM if it is a directory.  Linux: EISDIR. */
	if ((errno != EPERM && errno != EISDIR) || !empty(at, name, depth))
		return false;
	return unlinkat(at, name, AT_REMOVEDIR) == 0;
}

/* The directory can be read-only: make it writable. */
static DIR *
open_dir(int at, const char *name)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *d;

	if (fd == -1)
		return NULL;
	fchmod(fd, 0700);
	d = fdopendir(fd);
	if (d == NULL)
		os_close(&fd);
	return d;
}

/* Remove all that is in the directory ${name} in ${at}. */
static bool
empty(int at, const char *name, int depth)
{
	struct dirent *entry;
	DIR *d = NULL;
	int err = 0;

	if (depth == 0)
		errno = ELOOP;
	else
		d = open_dir(at, name);
	if (d == NULL)
		return false;
	while ((entry = readdir(d)) != NULL)
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
		    !remove_entry(dirfd(d), entry->d_name, depth - 1))
			err = errno;
	closedir(d);
	errno = err;
	return err == 0;
}

bool
tree_remove(const char *path)
{
	return empty(AT_FDCWD, path, TREE_DEPTH) && rmdir(path) == 0;
}
