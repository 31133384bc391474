/*
 * tunnel/dir.h - a directory of a relay, until it ends: "@/" on the last hop, and
 * that of the master (master.h).
 *
 * It has mode 0700 and is below /tmp.  $XDG_RUNTIME_DIR is not used: it is
 * removed at logout, and a lost line can end the login session.
 *
 * A locked file in it shows that its relay runs.  If a relay was killed, the
 * next dir_make of this user removes its directory.
 */
#ifndef TUNNEL_DIR_H
#define TUNNEL_DIR_H

#include <stdbool.h>
#include <stddef.h>

#define DIR_MARK "@/"
#define DIR_SIZE 64

/* path "" and fd -1: none. */
struct dir {
	char path[DIR_SIZE];
	int fd; /* of the locked file; -1: the file system has no locks */
};

/*
 * dir_make(d): make a directory, and remove those of killed relays.  On
 * failure return false with errno set.
 * dir_remove(d): remove it and all that is in it.  A failure is logged.
 * dir_resolve(d, text, dst, size): copy ${text} to ${dst}.  If it begins with
 * DIR_MARK, replace that by the path.  False: ${dst} is too small, or ${d} is
 * none or NULL.
 */
bool dir_make(struct dir *d);
void dir_remove(struct dir *d);
bool dir_resolve(const struct dir *d, const char *text, char *dst, size_t size);

#endif
