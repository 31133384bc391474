/* tunnel/record.c - the records of a stream to COMMAND_TARGET. */
#include "base/buf.h"
#include "mux/frame.h"
#include "mux/mux.h"
#include "tunnel/record.h"

bool
record_put(struct stream *s, enum record_type type, const void *p, size_t n)
{
	unsigned char head[RECORD_HEAD];

	frame_put(head, type, 1);
	frame_put(head + 1, n, RECORD_HEAD - 1);
	return buf_put(stream_tx(s), head, sizeof(head)) && buf_put(stream_tx(s), p, n);
}

bool
record_read(struct record *r, struct stream *s, void *body, size_t *n)
{
	size_t most = *n, taken;

	*n = 0;
	if (r->have < RECORD_HEAD) {
		taken = buf_take(stream_rx(s), r->head + r->have, RECORD_HEAD - r->have);
		r->have += taken;
		r->left = (size_t)frame_get(r->head + 1, RECORD_HEAD - 1);
	} else {
		taken = buf_take(stream_rx(s), body, r->left < most ? r->left : most);
		r->left -= taken;
		*n = taken;
	}
	if (taken > 0)
		stream_consumed(s, taken);
	return taken > 0;
}

unsigned
record_type(const struct record *r)
{
	return r->head[0];
}

bool
record_ends(struct record *r)
{
	if (r->have < RECORD_HEAD || r->left > 0)
		return false;
	r->have = 0;
	return true;
}
