/*
 * mux/frame.c - the wire format of a link: PROTOCOL 1 to 3.
 */
#include <stdbool.h>
#include <string.h>

#include "mux/frame.h"

const unsigned char frame_magic[FRAME_MAGIC] = { 0x00, 0xf2, 'r', 'e', 'L', 'A', 'y', 'l', 'i', 'n',
	'k', '\r', '\n', '\n', 0xfe, 0x00 };

/* What a frame concerns. */
enum about { ABOUT_LINK, ABOUT_STREAM, ABOUT_SLOT };

/* The lengths that a body may have. */
struct rule {
	uint32_t least, most;
	enum about about;
};

static const struct rule rules[] = {
	[FRAME_HELLO] = { FRAME_HELLO_FIXED, FRAME_HELLO_FIXED + 255, ABOUT_LINK },
	[FRAME_OPEN] = { 8, 8 + FRAME_TARGET, ABOUT_STREAM },
	[FRAME_OPENED] = { 0, 0, ABOUT_STREAM },
	[FRAME_DATA] = { 1, FRAME_DATA_MAX, ABOUT_STREAM },
	[FRAME_EOF] = { 0, 0, ABOUT_STREAM },
	[FRAME_STOP] = { 0, 0, ABOUT_STREAM },
	[FRAME_CLOSE] = { 2, 2 + FRAME_WORDS, ABOUT_STREAM },
	[FRAME_CREDIT] = { 4, 4, ABOUT_STREAM },
	[FRAME_ACK] = { 12, 12, ABOUT_LINK },
	[FRAME_PING] = { 0, 0, ABOUT_LINK },
	[FRAME_BYE] = { 2, 2 + FRAME_WORDS, ABOUT_LINK },
	[FRAME_ACK_EVERY] = { 4, 4, ABOUT_LINK },
	[FRAME_DATA_AT] = { FRAME_AT + 1, FRAME_AT + FRAME_DATA_MAX, ABOUT_STREAM },
	[FRAME_FINAL] = { 8, 8, ABOUT_STREAM },
	[FRAME_FREE] = { 0, 0, ABOUT_STREAM },
	[FRAME_LOST] = { 12, 12, ABOUT_SLOT },
	[FRAME_TAIL] = { FRAME_TAIL_AT, FRAME_TAIL_AT + FRAME_DATA_MAX, ABOUT_SLOT },
	[FRAME_DRAIN] = { 4, 4, ABOUT_SLOT },
	[FRAME_LIMITED] = { 4, 4, ABOUT_LINK },
};

static const struct rule session_rule = { FRAME_SESSION_SIZE, FRAME_SESSION_SIZE, ABOUT_LINK };

void
frame_put(unsigned char *dst, uint64_t n, int bytes)
{
	while (bytes-- > 0) {
		dst[bytes] = (unsigned char)(n & 0xff);
		n >>= 8;
	}
}

uint64_t
frame_get(const unsigned char *src, int bytes)
{
	uint64_t n = 0;

	while (bytes-- > 0)
		n = n << 8 | *src++;
	return n;
}

static const struct rule *
rule_of(unsigned type)
{
	if (type == FRAME_SESSION)
		return &session_rule;
	return type > 0 && type < sizeof(rules) / sizeof(rules[0]) ? &rules[type] : NULL;
}

const char *
frame_decode(struct frame *f, const unsigned char src[FRAME_HEAD])
{
	const struct rule *r;

	f->type = src[0];
	f->length = (uint32_t)frame_get(src + 1, 3);
	f->stream = (uint32_t)frame_get(src + 4, 4);
	if (f->type >= FRAME_SKIPPED && f->type != FRAME_SESSION)
		return f->length > FRAME_SKIPPED_MOST ? "a frame that is too long" : NULL;
	r = rule_of(f->type);
	if (r == NULL)
		return "a frame of unknown type";
	if (f->length < r->least || f->length > r->most)
		return "a length that this type of frame cannot have";
	if (r->about == ABOUT_STREAM && f->stream == 0)
		return "a frame of a stream without a stream id";
	if (r->about == ABOUT_LINK && f->stream != 0)
		return "a frame of the link with a stream id";
	return NULL;
}

uint32_t
frame_fixed(const struct frame *f)
{
	if (f->type == FRAME_DATA || f->type >= FRAME_SKIPPED)
		return 0;
	if (f->type == FRAME_DATA_AT)
		return FRAME_AT;
	return f->type == FRAME_TAIL ? FRAME_TAIL_AT : f->length;
}

unsigned char *
frame_put_head(unsigned char *dst, unsigned type, uint32_t stream, size_t length)
{
	dst[0] = (unsigned char)type;
	frame_put(dst + 1, length, 3);
	frame_put(dst + 4, stream, 4);
	return dst + FRAME_HEAD;
}

size_t
frame_put_bare(unsigned char *dst, unsigned type, uint32_t stream)
{
	return frame_put_number(dst, type, stream, 0, 0);
}

size_t
frame_put_number(unsigned char *dst, unsigned type, uint32_t stream, uint64_t n, int bytes)
{
	frame_put(frame_put_head(dst, type, stream, (size_t)bytes), n, bytes);
	return FRAME_HEAD + (size_t)bytes;
}

size_t
frame_put_words(
    unsigned char *dst, unsigned type, uint32_t stream, uint16_t code, const char *words)
{
	size_t n = words == NULL ? 0 : strnlen(words, FRAME_WORDS);
	unsigned char *body;

	body = frame_put_head(dst, type, stream, 2 + n);
	frame_put(body, code, 2);
	if (n > 0)
		memcpy(body + 2, words, n);
	return FRAME_HEAD + 2 + n;
}

size_t
frame_encode_hello(unsigned char *dst, const struct hello *h)
{
	size_t n = strlen(h->host);

	memset(dst, 0, FRAME_HELLO_FIXED);
	dst[0] = h->version;
	dst[1] = h->role;
	dst[2] = h->newest;
	frame_put(dst + 4, h->features, 4);
	frame_put(dst + 8, h->memory, 4);
	frame_put(dst + 12, h->streams, 4);
	memcpy(dst + FRAME_HELLO_FIXED, h->host, n);
	return FRAME_HELLO_FIXED + n;
}

void
frame_decode_hello(struct hello *h, const unsigned char *src, size_t length)
{
	size_t n = length - FRAME_HELLO_FIXED;

	h->version = src[0];
	h->role = src[1];
	h->newest = src[2];
	h->features = (uint32_t)frame_get(src + 4, 4);
	h->memory = (uint32_t)frame_get(src + 8, 4);
	h->streams = (uint32_t)frame_get(src + 12, 4);
	memcpy(h->host, src + FRAME_HELLO_FIXED, n);
	h->host[n] = '\0';
}

void
frame_encode_session(unsigned char *dst, const struct session *s)
{
	memset(dst, 0, FRAME_SESSION_SIZE);
	dst[0] = s->kind;
	dst[1] = s->slot;
	dst[2] = s->slots;
	frame_put(dst + 4, s->generation, 4);
	frame_put(dst + 8, s->keep, 4);
	frame_put(dst + 12, s->count, 8);
	memcpy(dst + 20, s->id, FRAME_SESSION_ID);
}

void
frame_decode_session(struct session *s, const unsigned char *src)
{
	s->kind = src[0];
	s->slot = src[1];
	s->slots = src[2];
	s->generation = (uint32_t)frame_get(src + 4, 4);
	s->keep = (uint32_t)frame_get(src + 8, 4);
	s->count = frame_get(src + 12, 8);
	memcpy(s->id, src + 20, FRAME_SESSION_ID);
}
