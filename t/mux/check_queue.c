/* check_queue.c - an intrusive queue */
#include "mux/cc.h"
#include "mux/frame.h"
#include "mux/mux.h"
#include "mux/queue.h"
#include "t/check.h"

#include "mux/queue.h"

#define NODES 8

static struct queue q;
static int item[NODES];
static struct queue_node node[NODES];

static void
fill(int n)
{
	int i;

	memset(&q, 0, sizeof(q));
	memset(node, 0, sizeof(node));
	for (i = 0; i < NODES; i++)
		node[i].item = &item[i];
	for (i = 0; i < n; i++)
		queue_append(&q, &node[i]);
}

START_TEST(an_empty_queue_has_no_item)
{
	fill(0);
	ck_assert_ptr_null(queue_first(&q));
	ck_assert_ptr_null(queue_pop(&q));
}
END_TEST

START_TEST(items_leave_in_the_order_in_which_they_were_appended)
{
	int i;

	fill(NODES);
	for (i = 0; i < NODES; i++) {
		ck_assert_ptr_eq(queue_first(&q), &item[i]);
		ck_assert_ptr_eq(queue_pop(&q), &item[i]);
		ck_assert(!node[i].queued);
	}
	ck_assert_ptr_null(queue_pop(&q));
}
END_TEST

START_TEST(a_node_that_is_queued_is_not_appended_again)
{
	fill(3);
	queue_append(&q, &node[0]);
	queue_append(&q, &node[2]);
	ck_assert_ptr_eq(queue_pop(&q), &item[0]);
	queue_append(&q, &node[0]); /* it has left */
	ck_assert_ptr_eq(queue_pop(&q), &item[1]);
	ck_assert_ptr_eq(queue_pop(&q), &item[2]);
	ck_assert_ptr_eq(queue_pop(&q), &item[0]);
	ck_assert_ptr_null(queue_pop(&q));
}
END_TEST

TESTS("queue")
{
	tcase_add_test(tc, an_empty_queue_has_no_item);
	tcase_add_test(tc, items_leave_in_the_order_in_which_they_were_appended);
	tcase_add_test(tc, a_node_that_is_queued_is_not_appended_again);
}
