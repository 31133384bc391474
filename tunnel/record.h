/*
 * tunnel/record.h - the records of a stream to COMMAND_TARGET: u8 type, u24
 * length and a body.  See PROTOCOL, section 4.
 */
#ifndef TUNNEL_RECORD_H
#define TUNNEL_RECORD_H

#include <stdbool.h>
#include <stddef.h>

#define RECORD_HEAD 4         /* bytes of type and length */
#define RECORD_DROPPED_SIZE 8 /* of the body of RECORD_DROPPED */

enum record_type {
	RECORD_WORD = 1,     /* near: one word */
	RECORD_RUN = 2,      /* near: all words were sent */
	RECORD_STOP = 3,     /* near: send SIGTERM; the second one: SIGKILL */
	RECORD_OUTPUT = 16,  /* far: output of COMMAND */
	RECORD_DROPPED = 17, /* far: output was dropped here; u64: how many bytes */
	RECORD_END = 18      /* far: u8 status as a shell reports it, and a text */
};

struct stream;

/* The record that is being read.  Zeros: none yet. */
struct record {
	unsigned char head[RECORD_HEAD];
	size_t have, left; /* bytes of the head; bytes of the body to read */
};

/*
 * record_put(s, type, p, n): append a record with ${n} bytes of body to what
 * ${s} sends.  False: no memory.
 * record_read(r, s, body, n): take a part of one record from what ${s} has
 * received.  Of its body, at most ${*n} bytes are written to ${body}, and ${*n}
 * becomes their number.  False: no byte was there.
 * record_type(r): the type of the record; valid when its head was read.
 * record_ends(r): Was all of the record read?  Then the next one begins.
 */
bool record_put(struct stream *s, enum record_type type, const void *p, size_t n);
bool record_read(struct record *r, struct stream *s, void *body, size_t *n);
unsigned record_type(const struct record *r);
bool record_ends(struct record *r);

#endif
