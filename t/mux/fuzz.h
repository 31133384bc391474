/*
 * fuzz.h - a mux and the owners of its streams, driven by the input.
 *
 * The input is a list of steps.  A step is one byte, which selects how many
 * bytes to feed or what else happens, and then the bytes to feed.  An input of
 * even length is read by a side that keeps a session.  A step can select
 * another slot, whose channel the next bytes come from.  What an owner does with
 * its stream depends on the byte of the step and on the stream's place.
 */
#ifndef T_FUZZ_H
#define T_FUZZ_H
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mux/frame.h"
#include "mux/mux.h"
#include "t/mux/pull.h"

#define FUZZ_OWNERS 64
#define FUZZ_MEMORY (1024 * 1024)
#define FUZZ_STREAMS 256 /* of a far side */
#define FUZZ_MUST(cond)                                                            \
	do {                                                                       \
		if (!(cond)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond); \
			abort();                                                   \
		}                                                                  \
	} while (0)

static struct mux *fuzz;
static struct stream *fuzz_stream[FUZZ_OWNERS];
static int64_t fuzz_now;
static unsigned fuzz_slot;
static uint32_t fuzz_generation;
static const unsigned char *fuzz_in;
static size_t fuzz_left;

static void
fuzz_adopt(struct stream *s)
{
	int i;

	for (i = 0; i < FUZZ_OWNERS; i++)
		if (fuzz_stream[i] == NULL) {
			fuzz_stream[i] = s;
			stream_set_owner(s, &fuzz_stream[i]);
			return;
		}
	stream_reset(s, MUX_NO_ROOM, "no owner left");
	stream_release(s);
}

static bool
fuzz_ended(const struct stream *s)
{
	return stream_code(s) != MUX_END || stream_is_closed(s);
}

static void
fuzz_use(int i, unsigned what)
{
	static const unsigned char zeros[40000];
	unsigned char x[5000];
	struct stream *s = fuzz_stream[i];
	size_t n;

	if ((what & 1) != 0 && (n = buf_take(stream_rx(s), x, sizeof(x))) > 0)
		stream_consumed(s, n);
	if ((what & 2) != 0 && stream_room(s) > 0) {
		FUZZ_MUST(buf_put(stream_tx(s), zeros, 1 + what * 157 % 40000));
		stream_push(s);
	}
	if (stream_is_stopped(s))
		buf_clear(stream_tx(s));
	if ((what & 28) == 28)
		stream_shutdown(s);
	if ((what & 224) == 224)
		stream_stop(s);
	else if ((what & 224) == 192)
		stream_discard(s);
	if ((what & 244) == 64)
		stream_reset(s, (uint16_t)(1 + (what & 15)), "fuzz");
	if (((fuzz_ended(s) || (stream_eof_read(s) && stream_eof_sent(s))) &&
		stream_rx(s)->used == 0) ||
	    (what & 252) == 132) {
		stream_release(s);
		fuzz_stream[i] = NULL;
	}
}

static void
fuzz_check(void)
{
	struct mux_stats stats;
	uint64_t held = 0;
	int i;

	for (i = 0; i < FUZZ_OWNERS; i++)
		if (fuzz_stream[i] != NULL)
			held += stream_rx(fuzz_stream[i])->used;
	mux_stats(fuzz, &stats);
	FUZZ_MUST(held <= stats.reserved);
	FUZZ_MUST(stats.reserved <= FUZZ_MEMORY);
	FUZZ_MUST(stats.streams <= (mux_role(fuzz) == MUX_FAR ? FUZZ_STREAMS : MUX_STREAMS));
}

/*
 * The owners look at every stream, so that none needs to be dirty; yet a dirty
 * one must have an owner.
 */
static void
fuzz_dirty(void)
{
	struct stream *s;

	while ((s = mux_next_dirty(fuzz)) != NULL)
		FUZZ_MUST(*(struct stream **)stream_owner(s) == s);
}

static void
fuzz_turn(unsigned what)
{
	static unsigned char out[32768];
	size_t n, most = MUX_PULL + (what & 1) * MUX_PULL;
	struct stream *s;
	int i, turns = 0;
	unsigned k;

	mux_tick(fuzz, fuzz_now);
	while ((s = mux_accept(fuzz)) != NULL) {
		if ((what & 2) != 0)
			stream_accept(s);
		fuzz_adopt(s);
	}
	for (i = 0; i < FUZZ_OWNERS; i++)
		if (fuzz_stream[i] != NULL)
			fuzz_use(i, (what * 31 + (unsigned)i * 97) & 255);
	for (k = 0; k < MUX_SLOTS; k++)
		while (mux_has_output(fuzz, k) &&
		       (n = pull_slot(fuzz, k, out, most, fuzz_now)) > 0) {
			FUZZ_MUST(n <= most);
			FUZZ_MUST(++turns < 100000);
		}
	fuzz_dirty();
	fuzz_check();
}

static const unsigned char fuzz_id[MUX_SESSION] = "0123456789abcde";

/*
 * The channel is lost, or another one is attached: with a magic and a SESSION
 * of the input, as soon as the next bytes are fed.
 */
static void
fuzz_channel(unsigned what)
{
	unsigned k;

	if (what < 147 && mux_slot_state(fuzz, fuzz_slot) != MUX_SLOT_FREE)
		mux_lost(fuzz, fuzz_slot, MUX_RESET, "lost");
	if (mux_state(fuzz) == MUX_DOWN) {
		for (k = 0; k < MUX_SLOTS; k++)
			FUZZ_MUST(!mux_has_output(fuzz, k));
		FUZZ_MUST(mux_deadline(fuzz) == INT64_MAX);
		FUZZ_MUST(mux_role(fuzz) == MUX_FAR || mux_down_slot(fuzz) != -1);
	}
	if (what > 144 && mux_state(fuzz) == MUX_DOWN &&
	    mux_slot_state(fuzz, fuzz_slot) == MUX_SLOT_DOWN)
		mux_attach(fuzz, fuzz_slot, what % 2 == 0, fuzz_now);
}

/* A slot is started: the near side adds one, the far side accepts a claim. */
static void
fuzz_start_slot(void)
{
	struct session s = { .kind = SESSION_JOIN,
		.slot = (uint8_t)fuzz_slot,
		.generation = ++fuzz_generation };

	memcpy(s.id, fuzz_id, sizeof(s.id));
	if (mux_role(fuzz) == MUX_NEAR)
		mux_add_slot(fuzz, fuzz_now);
	else if (mux_claimed_slot(fuzz, &s) != -1) {
		mux_lost(fuzz, fuzz_slot, MUX_RESET, "replaced");
		mux_accept_slot(fuzz, &s, false, fuzz_now);
	}
}

static void
fuzz_slots(unsigned what)
{
	if (what < 158)
		fuzz_slot = what - 150;
	else if (what == 158)
		fuzz_start_slot();
	else if (mux_role(fuzz) == MUX_NEAR && mux_state(fuzz) == MUX_UP)
		mux_close_slot(fuzz, fuzz_slot);
}

static void
fuzz_run(enum mux_role role, const uint8_t *p, size_t n)
{
	struct mux_stats stats;
	unsigned what, i, k;
	bool freed;

	fuzz_now = 1000000;
	fuzz_in = p;
	fuzz_left = n;
	fuzz_slot = 0;
	fuzz_generation = 0;
	fuzz = mux_new(role, FUZZ_MEMORY, "fuzz", fuzz_now);
	FUZZ_MUST(fuzz != NULL);
	mux_limit_streams(fuzz, FUZZ_STREAMS);
	if (n % 2 == 0)
		mux_keep(fuzz, 60, fuzz_id);
	while (fuzz_left > 0) {
		what = *fuzz_in++;
		fuzz_left--;
		if (what < 128) {
			k = what < 100 ? what + 1 : (what - 99) * 600;
			if (k > fuzz_left)
				k = (unsigned)fuzz_left;
			mux_feed(fuzz, fuzz_slot, fuzz_in, k, fuzz_now);
			fuzz_in += k;
			fuzz_left -= k;
		} else if (what < 144) {
			fuzz_now += (int64_t)1 << (what - 128) * 2;
			fuzz_turn(what);
		} else if (what < 150) {
			fuzz_channel(what);
		} else if (what < 160) {
			fuzz_slots(what);
		} else if (what == 255 && role == MUX_NEAR) {
			struct stream *s = mux_open(fuzz, "/fuzz");

			if (s != NULL)
				fuzz_adopt(s);
		} else {
			fuzz_turn(what);
		}
	}
	fuzz_turn(3);
	if (n % 3 == 0)
		mux_bye(fuzz, MUX_END, "done");
	fuzz_turn(1);
	if (n % 5 == 0)
		mux_end(fuzz, MUX_RESET, "lost");
	freed = n % 7 == 0;
	if (freed)
		mux_free(fuzz); /* before the last release */
	for (i = 0; i < FUZZ_OWNERS; i++)
		if (fuzz_stream[i] != NULL)
			stream_release(fuzz_stream[i]);
	memset(fuzz_stream, 0, sizeof(fuzz_stream));
	if (!freed) {
		mux_end(fuzz, MUX_END, "");
		while (mux_accept(fuzz) != NULL)
			;
		mux_stats(fuzz, &stats);
		FUZZ_MUST(stats.reserved == 0);
		mux_free(fuzz);
	}
	buf_trim();
}
#endif
