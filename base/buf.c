/*
 * base/buf.c - a queue of bytes: chunks of memory, or a pipe in the kernel.
 *
 * An empty buffer holds no memory, so an idle connection costs only its
 * structs.  Up to KEEP free chunks and KEEP_PIPES empty pipes are kept for
 * reuse.  The chunk that was freed last is used first, because it is probably
 * in the CPU's cache.
 *
 * Where the system can move bytes between descriptors without a copy
 * (os_splice), a large transfer uses a pipe instead of chunks.  A buffer never
 * holds bytes in both, because their order would be lost.  If the bytes in a
 * pipe cannot be spliced to a descriptor, all of them move into chunks.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/os.h"
#include "base/buf.h"

#define KEEP 16      /* free chunks */
#define KEEP_PIPES 4 /* empty pipes */
#define PACKET 4096  /* PIPE_BUF of Linux */

/*
 * The limit of pipes in this process.  If all pipes of a user hold more than
 * 64 MiB, Linux makes each new pipe of that user tiny.
 */
#define PIPES 16

/* A smaller pipe costs more in system calls than it saves in copies. */
#define PIPE_LEAST (256 * 1024)

struct chunk {
	struct chunk *next;
	size_t start, end; /* of the bytes held */
	unsigned char data[BUF_CHUNK];
};

struct kpipe {
	int in, out; /* bytes are written to in and read from out */
};

static struct chunk *spare[KEEP];
static struct kpipe *spare_pipe[KEEP_PIPES];
static int spares, spare_pipes, pipes;

static struct chunk *
take_chunk(void)
{
	struct chunk *c = spares > 0 ? spare[--spares] : os_pages(sizeof(*c));

	if (c == NULL)
		return NULL;
	c->next = NULL;
	c->start = c->end = 0;
	return c;
}

static void
give_chunk(struct chunk *c)
{
	if (spares < KEEP)
		spare[spares++] = c;
	else
		os_free_pages(c, sizeof(*c));
}

/* Append an empty chunk.  Return it, or NULL if the memory runs out. */
static struct chunk *
add_chunk(struct buf *b)
{
	struct chunk *c = take_chunk();

	if (c == NULL)
		return NULL;
	if (b->tail == NULL)
		b->head = c;
	else
		b->tail->next = c;
	b->tail = c;
	return c;
}

/* Free the chunks after ${last}, or all if it is NULL. */
static void
free_after(struct buf *b, struct chunk *last)
{
	struct chunk **next = last == NULL ? &b->head : &last->next, *c;

	while ((c = *next) != NULL) {
		*next = c->next;
		give_chunk(c);
	}
	b->tail = last;
}

/*
 * A read from a pipe in packet mode (Linux: O_DIRECT) drops the part of a
 * packet that has no room.  On Linux a packet has at most a page.
 */
static size_t
packet_max(void)
{
	long page = sysconf(_SC_PAGESIZE);

	return page > PACKET ? (size_t)page : PACKET;
}

/*
 * Fill the last chunk first.  If a packet may not fit into its room, one new
 * chunk takes the rest of BUF_CHUNK bytes.
 */
ssize_t
buf_fill(struct buf *b, int fd, size_t max)
{
	struct chunk *last = b->tail, *c;
	size_t room = last == NULL ? 0 : BUF_CHUNK - last->end, packet = packet_max();
	size_t left = max < packet ? packet : max, some;
	struct iovec v[BUF_WIDE];
	int i = 0, saved;
	ssize_t n;

	if (room > 0) {
		some = room < packet ? BUF_CHUNK : room;
		if (left > some)
			left = some;
		some = left < room ? left : room;
		v[i++] = (struct iovec){ .iov_base = last->data + last->end, .iov_len = some };
		left -= some;
	}
	for (; left > 0 && i < BUF_WIDE && (c = add_chunk(b)) != NULL; left -= some) {
		some = left < BUF_CHUNK ? left : BUF_CHUNK;
		v[i++] = (struct iovec){ .iov_base = c->data, .iov_len = some };
	}
	if (b->tail == last && room < packet) {
		errno = ENOMEM;
		return -1;
	}
	do
		n = i == 1 ? read(fd, v[0].iov_base, v[0].iov_len) : readv(fd, v, i);
	while (n == -1 && errno == EINTR);
	saved = errno;
	left = n > 0 ? (size_t)n : 0;
	b->used += left;
	c = last;
	if (c == NULL)
		c = b->head;
	while (c != NULL && left > 0) {
		some = BUF_CHUNK - c->end < left ? BUF_CHUNK - c->end : left;
		c->end += some;
		left -= some;
		last = c;
		c = c->next;
	}
	free_after(b, last);
	errno = saved;
	return n;
}

static void
close_pipe(struct kpipe *k)
{
	close(k->in);
	close(k->out);
	free(k);
	pipes--;
}

static struct kpipe *
take_pipe(void)
{
	struct kpipe *k;
	int fd[2];

	if (spare_pipes > 0)
		return spare_pipe[--spare_pipes];
	k = pipes < PIPES ? malloc(sizeof(*k)) : NULL;
	if (k == NULL || pipe(fd) == -1) {
		free(k);
		errno = EMFILE;
		return NULL;
	}
	*k = (struct kpipe){ .in = fd[1], .out = fd[0] };
	pipes++;
	if (os_setup(k->in) == 0 && os_setup(k->out) == 0 &&
	    os_pipe_size(k->in, BUF_PIPE) >= PIPE_LEAST)
		return k;
	close_pipe(k);
	errno = EMFILE;
	return NULL;
}

/* Keep the empty pipe of ${b} for reuse, or close it. */
static void
drop_pipe(struct buf *b)
{
	if (spare_pipes < KEEP_PIPES)
		spare_pipe[spare_pipes++] = b->pipe;
	else
		close_pipe(b->pipe);
	b->pipe = NULL;
	b->full = false;
}

ssize_t
buf_splice(struct buf *b, int fd)
{
	ssize_t n;

	if (b->pipe == NULL)
		b->pipe = take_pipe();
	if (b->pipe == NULL)
		return -1;
	n = os_splice(fd, b->pipe->in, BUF_PIPE - b->used);
	if (n > 0) {
		b->used += (size_t)n;
		/* A slot can hold more than a page: more than the size fits. */
		b->full = b->used >= BUF_PIPE;
		return n;
	}
	/* EAGAIN: ${fd} is empty, or all slots of the pipe are used. */
	if (b->used > 0)
		b->full = true;
	else
		drop_pipe(b);
	return n;
}

/*
 * The bytes cannot be spliced to the descriptor: move them from the pipe into
 * chunks.  Return -1; EAGAIN: the next buf_drain writes the chunks.
 */
static ssize_t
unsplice(struct buf *b)
{
	struct kpipe *k = b->pipe;
	size_t left = b->used;
	ssize_t n = 1;

	b->pipe = NULL;
	b->full = false;
	b->used = 0;
	while (n > 0 && b->used < left)
		n = buf_fill(b, k->out, BUF_WIDE * BUF_CHUNK);
	close_pipe(k);
	if (b->used == left) {
		errno = EAGAIN;
		return -1;
	}
	errno = n == 0 ? EIO : errno;
	return -1;
}

static ssize_t
drain_pipe(struct buf *b, int fd, size_t max)
{
	ssize_t n = os_splice(b->pipe->out, fd, max < b->used ? max : b->used);

	if (n == -1 && errno == EINVAL)
		return unsplice(b);
	if (n > 0) {
		b->used -= (size_t)n;
		b->full = false;
		if (b->used == 0)
			drop_pipe(b);
	}
	return n;
}

/* Write from the chunks from ${c} on, at most ${max} bytes. */
static ssize_t
write_from(struct chunk *c, int fd, size_t max)
{
	struct iovec v[BUF_WIDE];
	int i;

	for (i = 0; i < BUF_WIDE && c != NULL && max > 0; i++, c = c->next) {
		v[i] =
		    (struct iovec){ .iov_base = c->data + c->start, .iov_len = c->end - c->start };
		if (v[i].iov_len > max)
			v[i].iov_len = max;
		max -= v[i].iov_len;
	}
	return i == 1 ? write(fd, v[0].iov_base, v[0].iov_len) : writev(fd, v, i);
}

/* Remove ${n} bytes from the front. */
static void
drop(struct buf *b, size_t n)
{
	struct chunk *c;
	size_t some;

	b->used -= n;
	while (n > 0 && (c = b->head) != NULL) {
		some = c->end - c->start < n ? c->end - c->start : n;
		c->start += some;
		n -= some;
		if (c->start == c->end) {
			b->head = c->next;
			if (b->head == NULL)
				b->tail = NULL;
			give_chunk(c);
		}
	}
}

ssize_t
buf_drain(struct buf *b, int fd, size_t max)
{
	ssize_t n;

	if (b->pipe != NULL)
		return drain_pipe(b, fd, max);
	if (b->head == NULL)
		return 0;
	n = write_from(b->head, fd, max);
	if (n > 0)
		drop(b, (size_t)n);
	return n;
}

bool
buf_put(struct buf *b, const void *p, size_t n)
{
	const unsigned char *from = p;
	struct chunk *c;
	size_t room;

	while (n > 0) {
		c = b->tail;
		if (c == NULL || c->end == BUF_CHUNK)
			c = add_chunk(b);
		if (c == NULL)
			return false;
		room = BUF_CHUNK - c->end;
		if (room > n)
			room = n;
		memcpy(c->data + c->end, from, room);
		c->end += room;
		b->used += room;
		from += room;
		n -= room;
	}
	return true;
}

size_t
buf_take(struct buf *b, void *p, size_t n)
{
	unsigned char *to = p;
	struct chunk *c;
	size_t have, left = n;

	while (left > 0 && (c = b->head) != NULL) {
		have = c->end - c->start;
		if (have > left)
			have = left;
		memcpy(to, c->data + c->start, have);
		drop(b, have);
		to += have;
		left -= have;
	}
	return n - left;
}

void
buf_clear(struct buf *b)
{
	free_after(b, NULL);
	if (b->pipe != NULL)
		close_pipe(b->pipe);
	b->pipe = NULL;
	b->full = false;
	b->used = 0;
}

void
buf_trim(void)
{
	while (spares > 0)
		os_free_pages(spare[--spares], sizeof(struct chunk));
	while (spare_pipes > 0)
		close_pipe(spare_pipe[--spare_pipes]);
}
