/* frames.h - frames made by hand */
#ifndef T_MUX_FRAMES_H
#define T_MUX_FRAMES_H
#include "mux/frame.h"
#include "mux/mux.h"
#include "t/check.h"

static unsigned char wire[1 << 20];
static size_t wired;

static inline void
put(const void *p, size_t n)
{
	ck_assert_uint_le(wired + n, sizeof(wire));
	if (n > 0)
		memcpy(wire + wired, p, n);
	wired += n;
}

static inline void
put_frame(unsigned type, uint32_t stream, const void *body, size_t n)
{
	unsigned char head[FRAME_HEAD];

	frame_put_head(head, type, stream, n);
	put(head, sizeof(head));
	put(body, n);
}

static inline void
put_hello(unsigned version, unsigned role, uint32_t memory, uint32_t most)
{
	struct hello h = { .version = (uint8_t)version,
		.role = (uint8_t)role,
		.memory = memory,
		.streams = most,
		.host = "peer" };
	unsigned char body[FRAME_HELLO_FIXED + 255];

	put_frame(FRAME_HELLO, 0, body, frame_encode_hello(body, &h));
}

/* The greeting of a peer that knows sessions. */
static inline void
put_greeting(unsigned role, struct session session)
{
	struct hello h = { .version = 1,
		.role = (uint8_t)role,
		.newest = 2,
		.memory = MUX_MEMORY,
		.streams = MUX_STREAMS,
		.host = "peer" };
	unsigned char body[FRAME_HELLO_FIXED + 255];

	put(frame_magic, FRAME_MAGIC);
	put_frame(FRAME_HELLO, 0, body, frame_encode_hello(body, &h));
	frame_encode_session(body, &session);
	put_frame(FRAME_SESSION, 0, body, FRAME_SESSION_SIZE);
}

static inline void
put_number(unsigned type, uint32_t stream, uint64_t n, int bytes)
{
	unsigned char body[16] = { 0 };

	frame_put(body, n, bytes);
	put_frame(type, stream, body, (size_t)bytes);
}

static inline void
put_ack(uint64_t count, uint32_t delay)
{
	unsigned char body[12];

	frame_put(body, count, 8);
	frame_put(body + 8, delay, 4);
	put_frame(FRAME_ACK, 0, body, 12);
}

static inline void
put_open(uint32_t id, uint32_t send, uint32_t recv, const char *target)
{
	unsigned char body[8 + 8192];

	frame_put(body, send, 4);
	frame_put(body + 4, recv, 4);
	memcpy(body + 8, target, strlen(target));
	put_frame(FRAME_OPEN, id, body, 8 + strlen(target));
}

static inline void
put_close(uint32_t id, uint16_t code)
{
	put_number(FRAME_CLOSE, id, code, 2);
}

static inline void
put_data(uint32_t id, size_t n)
{
	static const unsigned char zeros[FRAME_DATA_MAX + 1];

	put_frame(FRAME_DATA, id, zeros, n);
}

#endif
