/*
 * half.c - one direction: bytes from one side, at rest, and on to the other side.
 *
 *   open  --EOF of the source-->  drain  --nothing left-->  shut
 *     \--------------------------------\--> broken
 *
 * open: reads while there is room, writes while there are bytes.  drain: writes what is left.  shut: the end was passed on.
 * broken: the source or the sink failed, and nothing is passed on any more.  A TCP source cannot be told that its reader is gone
 * while it is to be written to still: what it says is swallowed, or it might never come to read what is on its way to it.  Either
 * side may be the link instead of an end; then it is NULL here, and the link fills or empties the buffer.  Which half ends the other
 * is for the pair to say.
 */
#include <errno.h>
#include <string.h>

#include "relay.h"

#define SLOW_WRITE 1024  /* to a terminal, which may block in the middle of more */
#define BULK_FIRST 32768 /* bytes at once that make it bulk, */
#define BULK_LEAST 16384 /* and that keep it so */

void
half_init(struct half *h, struct end *src, struct end *dst)
{
	memset(h, 0, sizeof(*h));
	h->src = src;
	h->dst = dst;
}

bool
half_wants_read(const struct half *h)
{
	if (h->state == HALF_BROKEN)
		return h->by_sink && h->src->in != -1;
	if (h->buf.pipe != NULL)
		return h->state == HALF_OPEN && !h->buf.full;
	return h->state == HALF_OPEN && h->buf.used + BUF_CHUNK <= HALF_HOLDS;
}

bool
half_wants_write(const struct half *h)
{
	return h->buf.used > 0 && (h->state == HALF_OPEN || h->state == HALF_DRAIN);
}

bool
half_finished(const struct half *h)
{
	return h->state == HALF_SHUT || h->state == HALF_BROKEN;
}

void
half_break(struct half *h, int err, bool by_sink)
{
	if (half_finished(h))
		return;
	h->state = HALF_BROKEN;
	h->err = err;
	h->by_sink = by_sink;
	h->lost = h->buf.used > 0;
	buf_clear(&h->buf);
}

bool
half_is_ours(int err)
{
	return err == ENOMEM || err == ENOBUFS || err == EIO;
}

static bool
not_now(int err)
{
	return err == EAGAIN || err == EWOULDBLOCK;
}

static void
swallow(struct half *h)
{
	ssize_t n = buf_fill(&h->buf, h->src->in, 1);

	buf_clear(&h->buf);
	if (n > 0)
		h->lost = true;
	else if (n == 0 || !not_now(errno))
		end_shut_in(h->src);
}

/* How many chunks of ${most} to read at once: more than one for who fills them, as far as there is room. */
static int
chunks_to_read(const struct half *h, int most)
{
	int room = (int)((HALF_HOLDS - h->buf.used) / BUF_CHUNK);

	return !h->wide ? 1 : most < room ? most : room;
}

/* Without being shown to us, if the buffer is in that way already or can turn to it, and the system can. */
static ssize_t
fill(struct half *h, int chunks)
{
	ssize_t n;

	if (h->buf.pipe == NULL && (!h->bulk || h->buf.used > 0))
		return buf_fill(&h->buf, h->src->in, chunks_to_read(h, chunks));
	n = buf_splice(&h->buf, h->src->in);
	if (n == -1 && h->buf.pipe == NULL && !not_now(errno) && errno != ECONNRESET) {
		h->bulk = false;
		return buf_fill(&h->buf, h->src->in, 1);
	}
	return n;
}

size_t
half_read(struct half *h, int chunks)
{
	ssize_t n;

	if (h->state == HALF_BROKEN) {
		swallow(h);
		return 0;
	}
	n = fill(h, chunks);
	if (n > 0) {
		h->wide = n >= BUF_CHUNK;
		/* A message is read faster than spliced; only a stream that fills whole chunks gains. */
		h->bulk =
		    h->dst != NULL && (h->src->in_splices || h->dst->out_splices) && n >= (h->bulk ? BULK_LEAST : BULK_FIRST);
		return (size_t)n;
	}
	if (n == 0) {
		h->state = HALF_DRAIN;
		if (!h->src->single)
			end_shut_in(h->src);
	} else if (!not_now(errno)) {
		half_break(h, errno, false);
	}
	return 0;
}

void
half_write(struct half *h, bool ready)
{
	size_t max = SIZE_MAX;
	ssize_t n;

	if (h->dst->out_blocks) {
		if (!ready)
			return;
		max = SLOW_WRITE;
	}
	while (half_wants_write(h)) {
		n = buf_drain(&h->buf, h->dst->out, max);
		if (n > 0)
			h->moved += (uint64_t)n;
		else if (n == 0 || !not_now(errno))
			half_break(h, n == 0 ? EIO : errno, true);
		if (n <= 0 || h->dst->out_blocks)
			return;
	}
}

void
half_shut(struct half *h, bool explicit)
{
	if (h->state != HALF_DRAIN || h->buf.used > 0)
		return;
	if (explicit && end_shut_out(h->dst) == -1)
		half_break(h, errno, true);
	else
		h->state = HALF_SHUT;
}
