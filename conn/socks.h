/*
 * conn/socks.h - the handshake of a client of -D: SOCKS 5 (RFC 1928, without
 * authentication), SOCKS 4 and SOCKS 4a.
 *
 * No function here blocks.
 */
#ifndef CONN_SOCKS_H
#define CONN_SOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conn/fdpair.h"

#define SOCKS_REPLY 10
#define SOCKS_TARGET 272 /* a host of at most 255 bytes, and a port */

enum socks_state { SOCKS_READING, SOCKS_COMPLETE, SOCKS_REFUSED };

/* Zeros: a new handshake. */
struct socks {
	enum socks_state state;
	unsigned char in[1024];
	size_t have, needs; /* bytes in ${in}; how many the next step needs */
	unsigned char version;
	bool methods_read;         /* version 5: the request comes next */
	unsigned char reply;       /* refused: the reply of version 5; 0: that of ${code} */
	uint16_t code;             /* refused: one of enum mux_code */
	const char *why;           /* refused: the cause, for a message */
	char target[SOCKS_TARGET]; /* complete: as on relay's command line */
};

/*
 * socks_needs(s):
 * Return how many bytes to read next.  What follows the request belongs to the
 * target, so no more may be read.  0 unless ${s} is reading.
 */
size_t socks_needs(const struct socks *s);

/*
 * socks_feed(s, n, answer):
 * Take ${n} bytes of the client, at most socks_needs(${s}), which are at
 * ${s}->in + ${s}->have.  Write what must be sent to it at once into ${answer},
 * and return the length.
 */
size_t socks_feed(struct socks *s, size_t n, unsigned char answer[SOCKS_REPLY]);

/*
 * socks_reply(s, code, dst):
 * Write the reply to the request into ${dst} and return its length.  MUX_END:
 * the target is connected.  Another code of enum mux_code: it is not.
 */
size_t socks_reply(const struct socks *s, uint16_t code, unsigned char dst[SOCKS_REPLY]);

/*
 * socks_read(s, fds), socks_answer(s, fds, code):
 * Read once from the client, and write the answer if there is one; write the
 * reply to the request.  Return 0; -1 if the client closed; or an errno value
 * if it failed.  EAGAIN: it did not take the whole answer, and would misread
 * the bytes that follow.
 */
int socks_read(struct socks *s, struct fdpair *fds);
int socks_answer(const struct socks *s, const struct fdpair *fds, uint16_t code);

#endif
