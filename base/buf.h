/*
 * base/buf.h - a queue of bytes: chunks of memory, or a pipe in the kernel.
 *
 * A buf of zeros is empty.  An empty buf holds no memory and no pipe.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define BUF_CHUNK 65536
#define BUF_WIDE 4 /* chunks that one call moves at most */
#define BUF_PIPE (1024 * 1024)

struct chunk;
struct kpipe;

struct buf {
	struct chunk *head, *tail;
	struct kpipe *pipe; /* not NULL: this holds the bytes */
	size_t used;        /* bytes held */
	bool full;          /* the pipe takes no more for now */
};

/*
 * buf_fill(b, fd, chunks): one read of at most so many times BUF_CHUNK bytes, or BUF_WIDE times, from ${fd} to the end of ${b};
 * returns as read(2), ENOMEM among the errors.
 * buf_splice(b, fd): the same into a pipe, unseen; ${b} is empty or was filled so before.  EAGAIN: nothing to read, or ${b} is full.
 * Any other errno, with ${b}->pipe NULL: use buf_fill.
 * buf_drain(b, fd, max): one write of at most ${max} bytes from the front of ${b} to ${fd}; returns as write(2), 0 if ${b} is empty.
 * buf_put(b, p, n): copy ${n} bytes to the end of ${b}, which is not in a pipe; false: no memory for all of them.
 * buf_take(b, p, n): copy up to ${n} bytes from the front of ${b}, which is not in a pipe, to ${p}; returns how many.
 * buf_clear(b): forget what it holds.
 * buf_trim(): free the chunks and pipes that are kept for reuse.
 */
ssize_t buf_fill(struct buf *b, int fd, int chunks);
ssize_t buf_splice(struct buf *b, int fd);
ssize_t buf_drain(struct buf *b, int fd, size_t max);
bool buf_put(struct buf *b, const void *p, size_t n);
size_t buf_take(struct buf *b, void *p, size_t n);
void buf_clear(struct buf *b);
void buf_trim(void);

#endif
