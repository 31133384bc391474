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

static bool
is_followed(const struct early *e, uint64_t at)
{
	return e != NULL && e->at + e->size == at && e->have == e->size;
}

/*
 * Return the room for ${n} bytes and for later ones: at most twice that of
 * ${before}, which has no room for ${n}.  So all rooms together stay below four
 * times the bytes.
 */
static size_t
room_for(const struct early *before, size_t n)
{
	size_t room = 2 * before->room < EARLY_MERGED ? 2 * before->room : EARLY_MERGED;

	return n > room ? n : room;
}

struct early *
early_add(struct early_list *list, uint64_t at, size_t n, uint32_t *pieces)
{
	struct early **p = &list->first, *before = NULL, *e;
	size_t room = n;

	if (list->last != NULL && list->last->at < at)
		p = &list->last;
	for (; *p != NULL && (*p)->at < at; p = &before->next)
		before = *p;
	if (is_followed(before, at)) {
		if (n <= before->room - before->size) {
			before->size += n;
			return before;
		}
		room = room_for(before, n);
	}
	e = malloc(sizeof(*e) + room);
	if (e == NULL)
		return NULL;
	*e = (struct early){ .next = *p, .at = at, .size = n, .room = room };
	*p = e;
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
	free(e);
	--*pieces;
}
