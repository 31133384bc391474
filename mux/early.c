/* mux/early.c - bytes of a stream that were read too early. */
#include <stdlib.h>

#include "mux/early.h"

bool
early_overlaps(const struct early *list, uint64_t at, size_t n)
{
	for (; list != NULL && list->at < at + n; list = list->next)
		if (at < list->at + list->size)
			return true;
	return false;
}

/* Return ${*p} with room for ${n} more bytes, or NULL. */
static struct early *
enlarge(struct early **p, size_t n)
{
	struct early *e = *p;
	size_t room = e->room;

	while (room < e->size + n)
		room *= 2;
	if (room > e->room) {
		e = realloc(e, sizeof(*e) + room);
		if (e == NULL)
			return NULL;
		e->room = room;
		*p = e;
	}
	e->size += n;
	return e;
}

static bool
is_followed(const struct early *e, uint64_t at, size_t n)
{
	return e->at + e->size == at && e->have == e->size && e->size + n <= EARLY_MERGED;
}

struct early *
early_add(struct early **list, uint64_t at, size_t n, uint32_t *pieces)
{
	struct early *e;

	while (*list != NULL && (*list)->at < at) {
		if (is_followed(*list, at, n))
			return enlarge(list, n);
		list = &(*list)->next;
	}
	e = malloc(sizeof(*e) + n);
	if (e == NULL)
		return NULL;
	e->next = *list;
	e->at = at;
	e->size = e->room = n;
	e->have = 0;
	*list = e;
	++*pieces;
	return e;
}

void
early_pop(struct early **list, uint32_t *pieces)
{
	struct early *e = *list;

	*list = e->next;
	free(e);
	--*pieces;
}
