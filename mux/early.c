/* mux/early.c - bytes of a stream that were read too early. */
#include <stdlib.h>

#include "mux/early.h"

uint64_t
early_end(const struct early_list *list)
{
	return list->last == NULL ? 0 : list->last->at + list->last->size;
}

bool
early_overlaps(const struct early_list *list, uint64_t at, size_t n)
{
	const struct early *e = at < early_end(list) ? list->first : NULL;

	for (; e != NULL && e->at < at + n; e = e->next)
		if (at < e->at + e->size)
			return true;
	return false;
}

/* Add room for ${n} more bytes. */
static bool
enlarge(struct early *e, size_t n)
{
	size_t room = e->room > 0 ? e->room : n;
	unsigned char *bytes;

	while (room < e->size + n)
		room *= 2;
	if (room > e->room) {
		bytes = realloc(e->bytes, room);
		if (bytes == NULL)
			return false;
		e->bytes = bytes;
		e->room = room;
	}
	e->size += n;
	return true;
}

static bool
is_followed(const struct early *e, uint64_t at, size_t n)
{
	return e->at + e->size == at && e->have == e->size && e->size + n <= EARLY_MERGED;
}

/* Return the last piece before ${at}, or NULL. */
static struct early *
find_before(const struct early_list *list, uint64_t at)
{
	struct early *before = list->last, *e;

	if (before == NULL || before->at < at)
		return before;
	for (before = NULL, e = list->first; e->at < at; e = e->next)
		before = e;
	return before;
}

struct early *
early_add(struct early_list *list, uint64_t at, size_t n, uint32_t *pieces)
{
	struct early *before = find_before(list, at), *e, **next;

	if (before != NULL && is_followed(before, at, n))
		return enlarge(before, n) ? before : NULL;
	e = calloc(1, sizeof(*e));
	if (e == NULL || !enlarge(e, n)) {
		free(e);
		return NULL;
	}
	e->at = at;
	next = before == NULL ? &list->first : &before->next;
	e->next = *next;
	*next = e;
	if (e->next == NULL)
		list->last = e;
	++*pieces;
	return e;
}

void
early_pop(struct early_list *list, uint32_t *pieces)
{
	struct early *e = list->first;

	list->first = e->next;
	if (list->first == NULL)
		list->last = NULL;
	free(e->bytes);
	free(e);
	--*pieces;
}
