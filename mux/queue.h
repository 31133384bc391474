/*
 * mux/queue.h - an intrusive queue.
 *
 * A stream has one node for each queue that it can be in.  A queue of zeros is
 * empty.
 */
#ifndef MUX_QUEUE_H
#define MUX_QUEUE_H

#include <stdbool.h>

struct queue_node {
	struct queue_node *next;
	void *item; /* the stream of this node */
	bool queued;
};

struct queue {
	struct queue_node *first, *last;
};

/*
 * queue_append(q, node):
 * Append ${node} to ${q}, unless it is queued already.
 */
void queue_append(struct queue *q, struct queue_node *node);

/* queue_pop(q): Remove the first node and return its item, or NULL. */
void *queue_pop(struct queue *q);

/* queue_first(q): Return the item of the first node, or NULL. */
void *queue_first(const struct queue *q);

#endif
