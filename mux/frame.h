/*
 * mux/frame.h - the wire format of a link: PROTOCOL 1 to 3.
 *
 * These functions have no state.  They refuse a frame that is never valid.
 * greeting.c, mux.c, stream.c and tail.c check whether a frame may come now.
 */
#ifndef MUX_FRAME_H
#define MUX_FRAME_H

#include <stddef.h>
#include <stdint.h>

#define FRAME_MAGIC 16
#define FRAME_HEAD 8
#define FRAME_DATA_MAX 65536           /* bytes in DATA, DATA_AT and TAIL */
#define FRAME_AT 8                     /* bytes of DATA_AT before its data */
#define FRAME_TAIL_AT 12               /* bytes of TAIL before its data */
#define FRAME_TARGET 4352              /* in OPEN: a host and a port, or a socket path */
#define FRAME_FIXED (8 + FRAME_TARGET) /* see frame_fixed: at most */
#define FRAME_WORDS 512                /* in CLOSE and BYE */
#define FRAME_HELLO_FIXED 32           /* bytes of HELLO before the host's name */
#define FRAME_SKIPPED 128              /* unknown types from here on are skipped */
#define FRAME_SKIPPED_MOST 8192        /* their bodies */
#define FRAME_SESSION_SIZE 36
#define FRAME_SESSION_ID 16

enum frame_type {
	FRAME_HELLO = 1,
	FRAME_OPEN,
	FRAME_OPENED,
	FRAME_DATA,
	FRAME_EOF,
	FRAME_STOP,
	FRAME_CLOSE,
	FRAME_CREDIT,
	FRAME_ACK,
	FRAME_PING,
	FRAME_BYE,
	FRAME_ACK_EVERY,
	FRAME_DATA_AT,
	FRAME_FINAL,
	FRAME_FREE,
	FRAME_LOST,
	FRAME_TAIL,
	FRAME_DRAIN,
	FRAME_LIMITED,
	FRAME_SESSION = 128 /* a peer of version 1 skips it */
};

struct frame {
	unsigned type;
	uint32_t length; /* of the body */
	uint32_t stream; /* 0: the frame concerns the link; LOST to DRAIN: a slot */
};

struct hello {
	uint8_t version, role; /* version: the least one that is supported */
	uint8_t newest;        /* the greatest one; 0: the same */
	uint32_t features, memory, streams;
	char host[256];
};

enum session_kind {
	SESSION_NONE, /* the link ends with its channel */
	SESSION_NEW,  /* near: requests a session; far: keeps one */
	SESSION_JOIN, /* this channel continues the session */
	SESSION_GONE  /* far: the session does not exist */
};

struct session {
	uint8_t kind;
	uint8_t slot;        /* that this channel carries */
	uint8_t slots;       /* that the sender allows; 0: 1 */
	uint32_t generation; /* number of the channel of this slot; the highest is in use */
	uint32_t keep;       /* far: seconds that the session lasts without a channel */
	uint64_t count;      /* join: link bytes of this slot that the sender has read */
	unsigned char id[FRAME_SESSION_ID];
};

/* What each side sends first. */
extern const unsigned char frame_magic[FRAME_MAGIC];

/*
 * frame_decode(f, src):
 * Read the head ${src} into ${f}.  Return NULL, or a text that names the fault.
 */
const char *frame_decode(struct frame *f, const unsigned char src[FRAME_HEAD]);

/*
 * frame_fixed(f):
 * Return the length of the fixed part of the body, which is gathered before it
 * is used.  The bytes after it are passed on or skipped as they arrive.
 */
uint32_t frame_fixed(const struct frame *f);

/*
 * frame_put(dst, n, bytes), frame_get(src, bytes):
 * Write or read a number of ${bytes} bytes in network byte order.
 */
void frame_put(unsigned char *dst, uint64_t n, int bytes);
uint64_t frame_get(const unsigned char *src, int bytes);

/*
 * frame_put_head(dst, type, stream, length):
 * Write the head of a frame into ${dst}; return where its body begins.
 *
 * frame_put_bare(dst, type, stream), frame_put_number(dst, type, stream, n,
 * bytes), frame_put_words(dst, type, stream, code, words):
 * Write a frame without a body, with a number, or with a code and a text;
 * return its length.
 */
unsigned char *frame_put_head(unsigned char *dst, unsigned type, uint32_t stream, size_t length);
size_t frame_put_bare(unsigned char *dst, unsigned type, uint32_t stream);
size_t frame_put_number(unsigned char *dst, unsigned type, uint32_t stream, uint64_t n, int bytes);
size_t frame_put_words(
    unsigned char *dst, unsigned type, uint32_t stream, uint16_t code, const char *words);

/*
 * frame_encode_hello(dst, h):
 * Write the body of HELLO into ${dst}, which has FRAME_HELLO_FIXED + 255 bytes.
 * Return its length.
 */
size_t frame_encode_hello(unsigned char *dst, const struct hello *h);

/*
 * frame_decode_hello(h, src, length):
 * Read the body of HELLO into ${h}.  frame_decode has accepted its length.
 */
void frame_decode_hello(struct hello *h, const unsigned char *src, size_t length);

/*
 * frame_encode_session(dst, s), frame_decode_session(s, src):
 * Write or read the body of SESSION, FRAME_SESSION_SIZE bytes.
 */
void frame_encode_session(unsigned char *dst, const struct session *s);
void frame_decode_session(struct session *s, const unsigned char *src);

#endif
