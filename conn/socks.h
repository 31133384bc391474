/*
 * conn/socks.h - the handshake of a client of -D: SOCKS 5 (RFC 1928, without authentication), 4 and 4a.
 *
 * A struct of zeros begins.  socks_feed and socks_reply work on bytes alone; socks_read and socks_answer do the I/O around them.
 */
#ifndef CONN_SOCKS_H
#define CONN_SOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conn/fdpair.h"

#define SOCKS_REPLY 10
#define SOCKS_TARGET 272 /* a host of at most 255 bytes and a port */

enum socks_state { SOCKS_READING, SOCKS_WANTS, SOCKS_WRONG };

struct socks {
	enum socks_state state;
	unsigned char in[1024];
	size_t have, needs;
	unsigned char version;
	bool greeted, no_command, no_address;
	bool silent;               /* the client would understand no answer */
	uint16_t code;             /* SOCKS_WRONG: one of enum mux_code */
	const char *why;           /* SOCKS_WRONG */
	char target[SOCKS_TARGET]; /* SOCKS_WANTS */
};

/*
 * socks_needs(s): how many bytes to read next, and no more.
 * socks_feed(s, p, n, answer, answer_n): they came; ${answer} (SOCKS_REPLY bytes) is to be sent at once.
 * socks_reply(s, code, dst): write the reply to the request, MUX_END: connected; return its length.
 */
size_t socks_needs(const struct socks *s);
void socks_feed(struct socks *s, const void *p, size_t n, unsigned char *answer, size_t *answer_n);
size_t socks_reply(const struct socks *s, uint16_t code, unsigned char dst[SOCKS_REPLY]);

/*
 * socks_read(s, fds): read once from the client and answer what needs an answer before the request.  Return 0; an errno value if
 * the client failed or could not be answered; -1 if it closed.  EAGAIN is 0.
 * socks_answer(s, fds, code): write the reply to the request.  False: the socket did not take it whole, and what would follow half
 * a reply would be misread.
 */
int socks_read(struct socks *s, struct fdpair *fds);
bool socks_answer(const struct socks *s, const struct fdpair *fds, uint16_t code);

#endif
