/*
 * conn/socks.h - the handshake of a client of -D: SOCKS 5 (RFC 1928, without
 * authentication), SOCKS 4 and SOCKS 4a.
 *
 * socks_needs, socks_feed and socks_reply work on bytes alone.  socks_read and
 * socks_answer read from and write to a client, and do not block.
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
	size_t have, needs; /* bytes in ${in}; how many the next step has to have */
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
 * socks_feed(s, p, n, answer, answer_n):
 * Take ${n} bytes of the client, at most socks_needs(${s}).  Write what must be
 * sent to it at once into ${answer}, which has SOCKS_REPLY bytes, and the
 * length into ${*answer_n}.
 */
void socks_feed(struct socks *s, const void *p, size_t n, unsigned char *answer, size_t *answer_n);

/*
 * socks_reply(s, code, dst):
 * Write the reply to the request into ${dst} and return its length.  MUX_END:
 * the target is connected.  Another code of enum mux_code: it is not.
 */
size_t socks_reply(const struct socks *s, uint16_t code, unsigned char dst[SOCKS_REPLY]);

/*
 * socks_read(s, fds):
 * Read once from the client, and write the answer if there is one.  Return 0;
 * -1 if the client closed; or an errno value if it failed.  EAGAIN: it did not
 * take the whole answer.
 */
int socks_read(struct socks *s, struct fdpair *fds);

/*
 * socks_answer(s, fds, code):
 * Write the reply to the request.  Return 0 or an errno value.  EAGAIN: the
 * client did not take all of it, and would misread the bytes that follow.
 */
int socks_answer(const struct socks *s, const struct fdpair *fds, uint16_t code);

#endif
