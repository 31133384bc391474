/*
 * base/tree.h - removes a directory and all that is in it.
 */
#ifndef BASE_TREE_H
#define BASE_TREE_H

#include <stdbool.h>

#define TREE_DEPTH 64 /* nested directories, at most */

/*
 * tree_remove(path):
 * Remove the directory ${path} and all that is in it.  Symbolic links are
 * removed and not followed; ${path} itself must not be one.  Blocks only for
 * the file system.  Return false with errno set if something is left.
 */
bool tree_remove(const char *path);

#endif
