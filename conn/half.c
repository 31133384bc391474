/*
 * conn/half.c - one direction of a connection.
 *
 * Between two descriptors, the queue of a half is its own.  If the sink is a
 * stream, the half reads into the tx queue of the stream, and the mux empties
 * it.  If the source is a stream, the mux fills the rx queue of the stream, and
 * the half writes from it.
 */
#include <errno.h>
#include <string.h>

#include "base/buf.h"
#include "mux/mux.h"
#include "conn/fdpair.h"
#include "conn/side.h"
#include "conn/half.h"

#define SLOW_WRITE 1024  /* to a terminal, which may block during more */
#define BULK_FIRST 32768 /* a read of so many bytes starts bulk */
#define BULK_LEAST 16384 /* a read of fewer bytes ends it */

void
half_init(struct half *h, struct side *src, struct side *dst, struct half *back)
{
	memset(h, 0, sizeof(*h));
	h->src = src;
	h->dst = dst;
	h->back = back;
	h->buf = src->stream != NULL   ? stream_rx(src->stream)
		 : dst->stream != NULL ? stream_tx(dst->stream)
				       : &h->own;
}

bool
half_finished(const struct half *h)
{
	return h->state == HALF_SHUT || h->state == HALF_BROKEN;
}

/* How many bytes the queue takes. */
static size_t
room(const struct half *h)
{
	if (h->dst->stream != NULL)
		return stream_room(h->dst->stream);
	if (h->buf->pipe != NULL)
		return h->buf->full ? 0 : BUF_PIPE;
	return h->buf->used + BUF_CHUNK <= HALF_HOLDS ? HALF_HOLDS - h->buf->used : 0;
}

bool
half_wants_read(const struct half *h)
{
	if (h->src->stream != NULL)
		return false;
	if (h->state == HALF_BROKEN)
		return h->src->fds.in != -1;
	return h->state == HALF_OPEN && room(h) > 0;
}

bool
half_wants_write(const struct half *h)
{
	return h->dst->stream == NULL && h->buf->used > 0 && !half_finished(h);
}

void
half_break(struct half *h, int err)
{
	if (half_finished(h))
		return;
	h->state = HALF_BROKEN;
	h->err = err;
	h->lost = h->buf->used > 0;
	if (h->src->stream != NULL)
		stream_discard(h->src->stream);
	else
		buf_clear(h->buf);
}

static void
update_source(struct half *h, const struct stream *s)
{
	if (h->state != HALF_OPEN)
		return;
	if (stream_eof_read(s)) {
		h->state = HALF_DRAIN;
	} else if (stream_is_closed(s)) {
		h->state = HALF_DRAIN;
		h->src->err = mux_errno_of(stream_code(s));
	}
}

static void
update_sink(struct half *h, const struct stream *s)
{
	h->moved = stream_sent(s);
	if (stream_is_closed(s) && stream_code(s) != MUX_END)
		half_break(h, mux_errno_of(stream_code(s)));
	else if (stream_is_stopped(s))
		half_break(h, EPIPE);
}

void
half_update(struct half *h)
{
	if (h->src->stream != NULL)
		update_source(h, h->src->stream);
	if (h->dst->stream != NULL)
		update_sink(h, h->dst->stream);
}

bool
half_is_local_failure(int err)
{
	return err == ENOMEM || err == ENOBUFS || err == EIO;
}

const char *
half_advice(int err)
{
	if (err != EFBIG)
		return "";
	return ": stdout has reached the file size limit (ulimit -f) or that of its file system; "
	       "raise the limit";
}

/* EINTR: a signal ends a write to a terminal that is stopped. */
static bool
not_now(int err)
{
	return err == EAGAIN || err == EWOULDBLOCK || err == EINTR;
}

/*
 * TCP has no way to stop a source.  Its input is dropped: a peer that is
 * blocked in a write would not read what is on its way to it.
 */
static void
read_and_drop(struct half *h)
{
	ssize_t n = buf_fill(&h->own, h->src->fds.in, BUF_CHUNK);

	buf_clear(&h->own);
	if (n > 0)
		h->lost = true;
	else if (n == 0 || !not_now(errno))
		fdpair_shut_in(&h->src->fds);
}

/* Bulk can be moved within the kernel. */
static bool
splices(const struct half *h)
{
	return h->dst->stream == NULL && (h->src->fds.in_splices || h->dst->fds.out_splices);
}

/*
 * No pipe is left, or the source cannot be spliced.  Any other error is that of
 * the source: a read would not return it again.
 */
static bool
cannot_splice(int err)
{
	return err == EINVAL || err == ENOSYS || err == EPERM || err == EMFILE || err == ENFILE ||
	       err == ENOMEM;
}

/*
 * How many bytes to read into memory.  Small reads are slow, so a read of at
 * most a chunk may exceed the room, but not the size of the whole queue.
 */
static size_t
read_max(const struct half *h, size_t chunks)
{
	size_t space = room(h), fit = h->bulk ? space / BUF_CHUNK : 1;

	if (space >= BUF_CHUNK)
		return (fit < chunks ? fit : chunks) * BUF_CHUNK;
	space += h->buf->used;
	return space < BUF_CHUNK ? space : BUF_CHUNK;
}

/*
 * Bulk is read into a pipe if the queue is empty or is a pipe already.  Small
 * reads are faster than splices.
 */
static ssize_t
fill(struct half *h, int chunks)
{
	int fd = h->src->fds.in;
	ssize_t n;

	if (h->buf->pipe != NULL || (h->bulk && h->buf->used == 0 && splices(h))) {
		n = buf_splice(h->buf, fd);
		if (n != -1 || h->buf->pipe != NULL || !cannot_splice(errno))
			return n;
		h->bulk = false;
	}
	return buf_fill(h->buf, fd, read_max(h, (size_t)chunks));
}

static void
source_ended(struct half *h, int err)
{
	h->state = HALF_DRAIN;
	if (err != 0)
		h->src->err = err;
	else if (!h->src->fds.single)
		fdpair_shut_in(&h->src->fds);
}

size_t
half_read(struct half *h, int chunks)
{
	ssize_t n;

	if (h->state == HALF_BROKEN) {
		read_and_drop(h);
		return 0;
	}
	n = fill(h, chunks);
	if (n <= 0) {
		if (n == 0 || !not_now(errno))
			source_ended(h, n == 0 ? 0 : errno);
		return 0;
	}
	h->bulk = n >= (h->bulk ? BULK_LEAST : BULK_FIRST);
	if (h->dst->stream != NULL)
		stream_push(h->dst->stream);
	return (size_t)n;
}

static void
write_queue(struct half *h)
{
	size_t max = h->dst->fds.out_blocks ? SLOW_WRITE : SIZE_MAX;
	ssize_t n;

	while (half_wants_write(h)) {
		n = buf_drain(h->buf, h->dst->fds.out, max);
		if (n > 0)
			h->moved += (uint64_t)n;
		else if (n == 0 || !not_now(errno))
			half_break(h, n == 0 ? EIO : errno);
		if (n <= 0 || h->dst->fds.out_blocks)
			return;
	}
}

void
half_write(struct half *h, bool ready)
{
	uint64_t had = h->moved;

	if (h->dst->stream != NULL || (h->dst->fds.out_blocks && !ready))
		return;
	write_queue(h);
	if (h->src->stream != NULL && h->moved != had)
		stream_consumed(h->src->stream, (size_t)(h->moved - had));
}

void
half_end(struct half *h, bool explicit)
{
	struct side *dst = h->dst;

	if (h->state != HALF_DRAIN)
		return;
	if (dst->stream != NULL) {
		stream_shutdown(dst->stream);
		if (stream_eof_sent(dst->stream))
			h->state = HALF_SHUT;
	} else if (h->buf->used == 0) {
		h->state = HALF_SHUT;
		if (explicit && fdpair_shut_out(&dst->fds) == -1)
			dst->err = errno;
	}
}
