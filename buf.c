/*
 * buf.c - bytes at rest: a queue of chunks.
 *
 * Memory comes when bytes come and goes when they go: an empty buffer holds none, so an idle connection costs only its structs.
 * Chunks that fall free are kept for the next reader, the last one first while it is still in the CPU's cache; what is kept is
 * bounded by KEEP.  How much a buffer may hold is its user's business.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "relay.h"

#define KEEP 16 /* free chunks */

struct chunk {
	struct chunk *next;
	size_t start, end; /* of the bytes held */
	unsigned char data[BUF_CHUNK];
};

static struct chunk *spare;
static int spares;

static struct chunk *
take_chunk(void)
{
	struct chunk *c = spare;

	if (c != NULL) {
		spare = c->next;
		spares--;
	} else {
		c = malloc(sizeof(*c));
		if (c == NULL)
			return NULL;
	}
	c->next = NULL;
	c->start = c->end = 0;
	return c;
}

static void
give_chunk(struct chunk *c)
{
	if (spares == KEEP) {
		free(c);
		return;
	}
	c->next = spare;
	spare = c;
	spares++;
}

/* The chunk with room at its end, a new one if there is none. */
static struct chunk *
tail_with_room(struct buf *b)
{
	struct chunk *c = b->tail;

	if (c != NULL && c->end < BUF_CHUNK)
		return c;
	c = take_chunk();
	if (c == NULL)
		return NULL;
	if (b->tail == NULL)
		b->head = c;
	else
		b->tail->next = c;
	b->tail = c;
	return c;
}

/* Let go of the first chunk when it is empty. */
static void
drop_head(struct buf *b)
{
	struct chunk *c = b->head;

	if (c == NULL || c->start < c->end)
		return;
	b->head = c->next;
	if (b->head == NULL)
		b->tail = NULL;
	give_chunk(c);
}

ssize_t
buf_fill(struct buf *b, int fd)
{
	struct chunk *c = tail_with_room(b);
	ssize_t n;

	if (c == NULL) {
		errno = ENOMEM;
		return -1;
	}
	do
		n = read(fd, c->data + c->end, BUF_CHUNK - c->end);
	while (n == -1 && errno == EINTR);
	if (n > 0) {
		c->end += (size_t)n;
		b->used += (size_t)n;
	}
	/* Only when the queue held nothing can its chunk be empty now. */
	if (b->used == 0)
		drop_head(b);
	return n;
}

ssize_t
buf_drain(struct buf *b, int fd, size_t max)
{
	struct chunk *c = b->head;
	size_t want;
	ssize_t n;

	if (c == NULL)
		return 0;
	want = c->end - c->start;
	if (want > max)
		want = max;
	do
		n = write(fd, c->data + c->start, want);
	while (n == -1 && errno == EINTR);
	if (n > 0) {
		c->start += (size_t)n;
		b->used -= (size_t)n;
		drop_head(b);
	}
	return n;
}

void
buf_clear(struct buf *b)
{
	while (b->head != NULL) {
		b->head->start = b->head->end;
		drop_head(b);
	}
	b->used = 0;
}

void
buf_trim(void)
{
	struct chunk *c;

	while ((c = spare) != NULL) {
		spare = c->next;
		free(c);
	}
	spares = 0;
}
