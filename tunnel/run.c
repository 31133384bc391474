/* tunnel/run.c - near: the COMMAND that a tunnel runs on its last hop. */
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/poll.h"
#include "mux/frame.h"
#include "mux/mux.h"
#include "spawn.h"
#include "tunnel/command.h"
#include "tunnel/record.h"
#include "tunnel/run.h"

#define NAME_SIZE 64
#define END_SIZE 512
#define PIECE 4096 /* bytes of output that are held */
#define PIECES 16  /* in a turn, at most */
#define PART 3     /* bytes of a character that is not complete, at most */

struct run {
	char *const *words;
	char name[NAME_SIZE];
	enum run_life life;
	struct stream *stream;

	struct record record;         /* that is being read */
	unsigned char body[END_SIZE]; /* its body, if it is not RECORD_OUTPUT */
	size_t kept;

	char piece[PIECE]; /* of output that is not written yet */
	size_t at, used;
	char reason[END_SIZE + 1];
};

struct run *
run_new(char *const *words)
{
	struct run *r = calloc(1, sizeof(*r));

	if (r == NULL)
		return NULL;
	r->words = words;
	snprintf(r->name, sizeof(r->name), "%s",
	    words[1] == NULL && command_is_line(words[0]) ? "the command" : spawn_name(words[0]));
	return r;
}

bool
run_start(struct run *r, struct mux *m)
{
	bool fits = true;
	int i;

	r->stream = mux_open(m, COMMAND_TARGET);
	if (r->stream == NULL)
		return false;
	for (i = 0; r->words[i] != NULL && fits; i++)
		fits = record_put(r->stream, RECORD_WORD, r->words[i], strlen(r->words[i]));
	fits = fits && record_put(r->stream, RECORD_RUN, "", 0);
	if (!fits) {
		stream_release(r->stream);
		r->stream = NULL;
		return false;
	}
	stream_push(r->stream);
	r->life = RUN_ALIVE;
	return true;
}

void
run_stop(struct run *r)
{
	if (r->life != RUN_ALIVE || stream_is_reset(r->stream))
		return;
	if (record_put(r->stream, RECORD_STOP, "", 0))
		stream_push(r->stream);
	else /* this stops COMMAND, too */
		stream_reset(r->stream, MUX_NO_ROOM, "out of memory");
}

/* ---- what the far side sends ---- */

static void
end_record(struct run *r)
{
	if (record_type(&r->record) == RECORD_DROPPED && r->kept == RECORD_DROPPED_SIZE)
		log_say(LOG_NOTICE,
		    "%llu bytes of the output of %s were dropped: it prints faster than they can "
		    "be sent or shown here",
		    (unsigned long long)frame_get(r->body, RECORD_DROPPED_SIZE), r->name);
	if (record_type(&r->record) == RECORD_END && r->kept > 0 && r->reason[0] == '\0')
		snprintf(r->reason, sizeof(r->reason), "%.*s", (int)r->kept - 1,
		    (const char *)r->body + 1);
	r->kept = 0;
}

/* ${n} bytes of a body follow the output in piece. */
static void
take_body(struct run *r, size_t n)
{
	if (record_type(&r->record) == RECORD_OUTPUT) {
		r->used += n;
	} else if (r->kept + n <= sizeof(r->body)) {
		memcpy(r->body + r->kept, r->piece + r->used, n);
		r->kept += n;
	}
}

/* Read a part of a record.  False: no byte was there. */
static bool
read_some(struct run *r)
{
	size_t n = sizeof(r->piece) - r->used;
	bool more;

	memmove(r->piece, r->piece + r->at, r->used);
	r->at = 0;
	more = record_read(&r->record, r->stream, r->piece + r->used, &n);
	if (n > 0)
		take_body(r, n);
	if (record_ends(&r->record))
		end_record(r);
	return more;
}

static void
end(struct run *r)
{
	const char *reason = stream_reason(r->stream);

	r->life = r->reason[0] != '\0' ? RUN_ENDED : RUN_REFUSED;
	if (r->life == RUN_REFUSED)
		snprintf(r->reason, sizeof(r->reason), "%s",
		    *reason != '\0' ? reason : "it does not report how the command ended");
	stream_release(r->stream);
	r->stream = NULL;
}

void
run_step(struct run *r)
{
	size_t n;
	int i;

	if (r == NULL || r->life != RUN_ALIVE)
		return;
	for (i = 0; i < PIECES; i++) {
		n = log_output(r->piece + r->at, r->used);
		r->at += n;
		r->used -= n;
		if (r->used > PART)
			return;
		if (read_some(r))
			continue;
		if (r->used > 0)
			return;
		if (stream_eof_read(r->stream) || stream_is_closed(r->stream))
			end(r);
		return;
	}
}

void
run_want(const struct run *r, struct pollset *ps)
{
	if (r == NULL || r->life != RUN_ALIVE)
		return;
	if (r->used > 0)
		pollset_add(ps, log_descriptor(), POLLOUT);
	else if (stream_rx(r->stream)->used > 0 || stream_eof_read(r->stream) ||
		 stream_is_closed(r->stream))
		pollset_until(ps, ps->now);
}

enum run_life
run_life(const struct run *r)
{
	return r == NULL ? RUN_IDLE : r->life;
}

const char *
run_name(const struct run *r)
{
	return r->name;
}

const char *
run_reason(const struct run *r)
{
	return r->reason;
}
