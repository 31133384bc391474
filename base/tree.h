/*
 * base/tree.h - removes a directory and all that is in it.
 */
#ifndef BASE_TREE_H
#define BASE_TREE_H

#include <stdbool.h>

#define TREE_DEPTH 64 /* directories in one another, at most */

/*
 * tree_remove(path):
 * Remove the directory ${path} and all that is in it.  Symbolic links are
 * removed and not followed; ${path} itself must not be one.  Only a file system
 * blocks.  Return false with errno set if something is left.
 */
bool tree_remove(const char *path);

#endif
