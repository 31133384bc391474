/*
 * mux/queue.c - an intrusive queue.
 */
#include <stddef.h>

#include "mux/queue.h"

void
queue_append(struct queue *q, struct queue_node *node)
{
	if (node->queued)
		return;
	node->queued = true;
	node->next = NULL;
	if (q->last == NULL)
		q->first = node;
	else
		q->last->next = node;
	q->last = node;
}

void *
queue_first(const struct queue *q)
{
	return q->first == NULL ? NULL : q->first->item;
}

void *
queue_pop(struct queue *q)
{
	struct queue_node *node = q->first;

	if (node == NULL)
		return NULL;
	q->first = node->next;
	if (q->first == NULL)
		q->last = NULL;
	node->queued = false;
	return node->item;
}
