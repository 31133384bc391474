/*
 * mux/retain.h - the link bytes that were sent and are not acknowledged.
 *
 *   acked             next                end
 *     | written, kept   | to be written    | room for more
 *
 * These positions count link bytes since the start of the slot.  The bytes are
 * written to the channel from here, so keeping them costs no copy.  If the
 * channel is lost, the next one can continue from any byte that is kept.
 */
#ifndef MUX_RETAIN_H
#define MUX_RETAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct piece;

/* A retain of zeros is empty, at position 0. */
struct retain {
	struct piece *first, *last, *spare;
	uint64_t acked, next, end;
};

/* retain_start(r, at): Free all bytes and continue at position ${at}. */
void retain_start(struct retain *r, uint64_t at);

/*
 * retain_room(r, least, room), retain_add(r, n):
 * Return where the next bytes are to be written, or NULL if the memory runs
 * out.  ${*room} bytes fit there, at least ${least}, which is at most 256 KiB.
 * Then retain_add adds the ${n} bytes that were written there.
 */
unsigned char *retain_room(struct retain *r, size_t least, size_t *room);
void retain_add(struct retain *r, size_t n);

/*
 * retain_next(r, n), retain_wrote(r, n):
 * Return the next ${*n} bytes for the channel; ${*n} is 0 if there are none.
 * Then retain_wrote skips the ${n} bytes that the channel has taken.
 */
const unsigned char *retain_next(const struct retain *r, size_t *n);
void retain_wrote(struct retain *r, size_t n);

/*
 * retain_acked(r, at):
 * Drop the bytes before ${at}, which is not below acked.  All were written.
 *
 * retain_rewind(r, at):
 * The same, and write again from ${at}, which must be kept.
 */
void retain_acked(struct retain *r, uint64_t at);
void retain_rewind(struct retain *r, uint64_t at);

#endif
