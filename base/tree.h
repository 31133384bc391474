/*
 * base/tree.h - makes a directory for this process, and removes it with all
 * that is in it.
 */
#ifndef BASE_TREE_H
#define BASE_TREE_H

#include <stdbool.h>
#include <stddef.h>

#define TREE_DEPTH 64 /* nested directories, at most */
#define TREE_ID 8     /* bytes of an id; the name has two digits for each */

/*
 * tree_name(dst, size, prefix, id):
 * Write ${prefix} and the digits of ${id} to ${dst}.
 *
 * tree_make(dst, size, prefix, id):
 * The same, and make a directory of this name and mode 0700.  A directory that
 * exists is not used, because another user may have made it.  Return false with
 * errno set if none was made.
 */
void tree_name(char *dst, size_t size, const char *prefix, const unsigned char id[TREE_ID]);
bool tree_make(char *dst, size_t size, const char *prefix, const unsigned char id[TREE_ID]);

/* tree_is_name(name, prefix): Is ${name} ${prefix} and the digits of an id? */
bool tree_is_name(const char *name, const char *prefix);

/*
 * tree_remove(path):
 * Remove the directory ${path} and all that is in it.  Symbolic links are
 * removed and not followed; ${path} itself must not be one.  Blocks only for
 * the file system.  Return false with errno set if something is left.
 */
bool tree_remove(const char *path);

#endif
