/* mux/retain.c - the link bytes that were sent and are not acknowledged. */
#include <stdlib.h>

#include "mux/retain.h"

#define PIECE (256 * 1024)
#define SPARE 8 /* pieces that are kept while bytes are in flight */

struct piece {
	struct piece *next;
	uint64_t at; /* position of its first byte */
	size_t used;
	unsigned char bytes[PIECE];
};

/* A dropped piece is used again.  A new one costs a page fault per page. */
static void
drop_first(struct retain *r)
{
	struct piece *p = r->first;

	r->first = p->next;
	if (r->first == NULL)
		r->last = NULL;
	p->next = r->spare;
	r->spare = p;
}

/* Free the spare pieces except the first ${n}. */
static void
trim(struct retain *r, int n)
{
	struct piece **at = &r->spare, *p;

	for (; n > 0 && *at != NULL; n--)
		at = &(*at)->next;
	while ((p = *at) != NULL) {
		*at = p->next;
		free(p);
	}
}

void
retain_start(struct retain *r, uint64_t at)
{
	while (r->first != NULL)
		drop_first(r);
	trim(r, 0);
	r->acked = r->next = r->end = at;
}

static struct piece *
add_piece(struct retain *r)
{
	struct piece *p = r->spare;

	if (p != NULL)
		r->spare = p->next;
	else
		p = malloc(sizeof(*p));
	if (p == NULL)
		return NULL;
	p->next = NULL;
	p->at = r->end;
	p->used = 0;
	if (r->last == NULL)
		r->first = p;
	else
		r->last->next = p;
	r->last = p;
	return p;
}

unsigned char *
retain_room(struct retain *r, size_t least, size_t *room)
{
	struct piece *p = r->last;

	if (p == NULL || PIECE - p->used < least)
		p = add_piece(r);
	if (p == NULL)
		return NULL;
	*room = PIECE - p->used;
	return p->bytes + p->used;
}

void
retain_add(struct retain *r, size_t n)
{
	r->last->used += n;
	r->end += n;
}

const unsigned char *
retain_next(const struct retain *r, size_t *n)
{
	const struct piece *p = r->first;

	*n = 0;
	if (r->next == r->end)
		return NULL;
	while (r->next >= p->at + p->used)
		p = p->next;
	*n = (size_t)(p->at + p->used - r->next);
	return p->bytes + (r->next - p->at);
}

void
retain_wrote(struct retain *r, size_t n)
{
	r->next += n;
}

void
retain_acked(struct retain *r, uint64_t at)
{
	r->acked = at;
	while (r->first != NULL && r->first->at + r->first->used <= at &&
	       (r->first != r->last || at == r->end))
		drop_first(r);
	trim(r, r->first == NULL ? 1 : SPARE);
}

void
retain_rewind(struct retain *r, uint64_t at)
{
	r->next = at;
	retain_acked(r, at);
}
