/*
 * base/buf.h - a queue of bytes: chunks of memory, or a pipe in the kernel.
 *
 * A buf of zeros is empty.  An empty buf holds no memory and no pipe.  No
 * function here blocks if the descriptor is non-blocking.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define BUF_CHUNK 65536
#define BUF_WIDE 4 /* chunks that one call moves, at most */
#define BUF_PIPE (1024 * 1024)

struct chunk;
struct kpipe;

struct buf {
	struct chunk *head, *tail;
	struct kpipe *pipe; /* not NULL: the bytes are in this pipe */
	size_t used;        /* bytes held */
	bool full;          /* the pipe takes no more until bytes leave it */
};

/*
 * buf_fill(b, fd, max):
 * Read once from ${fd} to the end of ${b}: at most ${max} bytes, or a packet of
 * a pipe if that is more, and at most BUF_WIDE chunks.  Return as read(2), or
 * -1 with ENOMEM.
 *
 * buf_splice(b, fd):
 * The same within the kernel.  ${b} must be empty, or hold its bytes in a pipe.
 * EAGAIN: ${fd} is empty or ${b} is full.  EMFILE: ${b} gets no pipe.  Other
 * errors are those of read(2) or os_splice.
 */
ssize_t buf_fill(struct buf *b, int fd, size_t max);
ssize_t buf_splice(struct buf *b, int fd);

/*
 * buf_drain(b, fd, max):
 * Write once from the front of ${b} to ${fd}, at most ${max} bytes.  Return as
 * write(2), or 0 if ${b} is empty.
 */
ssize_t buf_drain(struct buf *b, int fd, size_t max);

/*
 * buf_put(b, p, n), buf_take(b, p, n):
 * Copy ${n} bytes to the end of ${b}, or move up to ${n} from its front to
 * ${p}.  ${b} must not be in a pipe.  buf_put returns false if the memory runs
 * out; some of the bytes may have been copied.  buf_take returns how many.
 */
bool buf_put(struct buf *b, const void *p, size_t n);
size_t buf_take(struct buf *b, void *p, size_t n);

/* buf_clear(b): Drop all bytes of ${b}. */
void buf_clear(struct buf *b);

/* buf_trim(): Free the chunks and pipes that are kept for reuse. */
void buf_trim(void);

#endif
