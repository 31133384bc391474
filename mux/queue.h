/*
 * mux/queue.h - a queue of streams.
 *
 * A stream has one node for each queue that it can be in.  A node is in at most one queue at a time.
 */
#ifndef MUX_QUEUE_H
#define MUX_QUEUE_H

#include <stdbool.h>

struct queue_node {
	struct queue_node *next;
	void *item; /* whose node it is */
	bool queued;
};

struct queue {
	struct queue_node *first, *last;
};

/*
 * A queue of zeros is empty.
 * queue_append(q, node): put ${node} at the end of ${q}, unless it is queued already.
 * queue_pop(q): remove the first node; return its item, or NULL.
 * queue_first(q): the item of the first node, or NULL.
 * queue_remove(q, node): remove ${node} from ${q}, wherever it is; takes time in proportion to its place.
 */
void queue_append(struct queue *q, struct queue_node *node);
void *queue_pop(struct queue *q);
void *queue_first(const struct queue *q);
void queue_remove(struct queue *q, struct queue_node *node);

#endif
