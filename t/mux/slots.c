/*
 * slots.c - measure two muxes with several channels: the rate of bulk, and the
 * delay of a keystroke beside it
 *
 * The channels have a line each, or share one.
 */
#include <stdbool.h>
#include <stdio.h>

#include "mux/frame.h"
#include "mux/mux.h"
#include "t/mux/pull.h"
#include "t/mux/wire.h"

#define SECOND 1000000
#define MOST 100000

static struct mux *end[2]; /* near, far */
static struct wire line[MUX_SLOTS][2];
static bool open_line[MUX_SLOTS];
static double shared_at[2];
static bool shared;
static int64_t now;
static struct stream *bulk[8][2], *key[2];
static int64_t took[MOST];
static int samples;

static int
compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return x < y ? -1 : x > y;
}

static int64_t
earliest(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static void
put(struct stream *s, size_t n)
{
	static unsigned char zeros[65536];

	buf_put(stream_tx(s), zeros, n);
	stream_push(s);
}

static size_t
take_all(struct stream *s)
{
	static unsigned char x[65536];
	size_t n, all = 0;

	while ((n = buf_take(stream_rx(s), x, sizeof(x))) > 0) {
		stream_consumed(s, n);
		all += n;
	}
	return all;
}

static void
send_out(void)
{
	static unsigned char x[262144];
	unsigned k;
	size_t n;
	int i;

	for (k = 0; k < MUX_SLOTS; k++)
		for (i = 0; open_line[k] && i < 2; i++)
			while (mux_has_output(end[i], k) && wire_room(&line[k][i], now) >= MUX_PULL &&
			       (n = pull_slot(end[i], k, x,
				    wire_room(&line[k][i], now) < sizeof(x) ? wire_room(&line[k][i], now)
									    : sizeof(x),
				    now)) > 0) {
				if (shared)
					line[k][i].free_at = shared_at[i];
				wire_put(&line[k][i], x, n, now);
				shared_at[i] = line[k][i].free_at;
			}
}

static int64_t
deliver(void)
{
	int64_t next = INT64_MAX;
	const unsigned char *p;
	unsigned k;
	size_t n;
	int i;

	for (k = 0; k < MUX_SLOTS; k++)
		for (i = 0; i < 2; i++) {
			while ((n = wire_take(&line[k][i], &p, now)) > 0) {
				mux_feed(end[1 - i], k, p, n, now);
				wire_drop(&line[k][i], n, now);
			}
			next = earliest(next, wire_next(&line[k][i]));
		}
	return next;
}

static void
open_channel(unsigned k, double rate, int64_t trip, size_t room)
{
	int i;

	for (i = 0; i < 2; i++) {
		line[k][i].delay = trip / 2;
		line[k][i].rate = rate;
		line[k][i].room = room;
	}
	open_line[k] = true;
}

static void
run(const char *what, bool share, unsigned slots, double mbit, int64_t trip, int bulks, bool keys,
    int64_t start, int64_t span)
{
	static const unsigned char id[MUX_SESSION];
	int64_t until, next, key_at = 0, key_sent = 0;
	struct mux_slot_stats one;
	struct mux_stats stats;
	uint64_t all = 0;
	unsigned k, n = 1;
	int slot, i;

	memset(line, 0, sizeof(line));
	memset(open_line, 0, sizeof(open_line));
	memset(bulk, 0, sizeof(bulk));
	shared = share;
	shared_at[0] = shared_at[1] = 0;
	dice_state = 1;
	samples = 0;
	key[0] = key[1] = NULL;
	now = 1000000;
	for (i = 0; i < 2; i++)
		end[i] = mux_new(i == 0 ? MUX_NEAR : MUX_FAR, MUX_MEMORY, "host", now);
	mux_keep(end[0], 0, NULL);
	mux_keep(end[1], 60, id);
	open_channel(0, mbit / 8, trip, 2 << 20);
	until = now + start + span;
	while (now < until) {
		for (i = 0; i < 2; i++)
			mux_tick(end[i], now);
		next = deliver();
		if (mux_state(end[0]) == MUX_UP && key[0] == NULL) {
			key[0] = mux_open(end[0], "/key");
			for (i = 0; i < bulks; i++)
				bulk[i][0] = mux_open(end[0], "/x");
		}
		while (mux_keeps(end[0]) > 0 && n < slots && (slot = mux_add_slot(end[0], now)) > 0) {
			struct session s = { .kind = 2, .slot = (uint8_t)slot, .generation = 1 };
			open_channel((unsigned)slot, mbit / 8, trip, 2 << 20);
			mux_accept_slot(end[1], &s, false, now);
			n++;
		}
		if (key[0] != NULL && key[1] == NULL && (key[1] = mux_accept(end[1])) != NULL)
			stream_accept(key[1]);
		for (i = 0; i < bulks; i++) {
			if (key[1] != NULL && bulk[i][1] == NULL &&
			    (bulk[i][1] = mux_accept(end[1])) != NULL)
				stream_accept(bulk[i][1]);
			if (bulk[i][0] != NULL)
				while (stream_room(bulk[i][0]) > 0) {
					put(bulk[i][0], 32768);
					send_out();
				}
			if (bulk[i][1] != NULL) {
				uint64_t got = take_all(bulk[i][1]);

				all += now >= until - span ? got : 0;
			}
		}
		if (keys && key[1] != NULL && now >= until - span) {
			if (take_all(key[1]) > 0)
				put(key[1], 1);
			if (take_all(key[0]) > 0) {
				if (samples < MOST)
					took[samples++] = now - key_sent;
				key_sent = 0;
				key_at = now + 20000 + upto(60000);
			}
			if (key_sent == 0 && now >= key_at) {
				put(key[0], 1);
				key_sent = now;
			}
			if (key_sent == 0)
				next = earliest(next, key_at);
		}
		send_out();
		for (i = 0; i < 2; i++)
			if (mux_deadline(end[i]) > now)
				next = earliest(next, mux_deadline(end[i]));
		for (k = 0; k < MUX_SLOTS; k++)
			for (i = 0; i < 2; i++)
				next = earliest(next, wire_next(&line[k][i]));
		now = next > now ? next : now + 1;
	}
	qsort(took, (size_t)samples, sizeof(took[0]), compare);
	mux_stats(end[0], &stats);
	printf("%-8s %u slots %4.0f ms %5.0f Mbit/s %d bulk: %5.3f of the lines, reserved %4.1f MB, ",
	    what, n, (double)trip / 1000, mbit, bulks,
	    (double)all * 8 / (mbit * (share ? 1 : n)) / (double)span,
	    (double)stats.reserved / 1e6);
	if (samples > 0)
		printf("key +%5.1f p50 %5.1f p99; ", (double)(took[samples / 2] - trip) / 1000,
		    (double)(took[samples * 99 / 100] - trip) / 1000);
	printf("cwnd/rtt");
	for (k = 0; k < n; k++) {
		mux_slot_stats(end[0], k, &one);
		printf(" %.0fk/%.0f", (double)one.cwnd / 1000, (double)one.rtt_us / 1000);
	}
	printf("\n");
	fflush(stdout);
	for (i = 0; i < 2; i++)
		mux_end(end[i], 0, "");
	for (k = 0; k < 8; k++)
		for (i = 0; i < 2; i++)
			if (bulk[k][i] != NULL)
				stream_release(bulk[k][i]);
	for (i = 0; i < 2; i++) {
		if (key[i] != NULL)
			stream_release(key[i]);
		while (mux_accept(end[i]) != NULL)
			;
		mux_free(end[i]);
	}
	for (k = 0; k < MUX_SLOTS; k++)
		for (i = 0; i < 2; i++)
			wire_free(&line[k][i]);
}

int
main(void)
{
	static const unsigned slots[] = { 1, 2, 4, 8 };
	size_t i;

	for (i = 0; i < 4; i++)
		run("own", false, slots[i], 160, 100000, 1, true, 5 * SECOND, 10 * SECOND);
	for (i = 0; i < 4; i++)
		run("own", false, slots[i], 160, 100000, 4, true, 5 * SECOND, 10 * SECOND);
	for (i = 0; i < 4; i++)
		run("own", false, slots[i], 800, 20000, 1, true, 5 * SECOND, 10 * SECOND);
	for (i = 0; i < 4; i++)
		run("shared", true, slots[i], 160, 100000, 1, true, 5 * SECOND, 20 * SECOND);
	for (i = 0; i < 4; i++)
		run("shared", true, slots[i], 160, 20000, 4, true, 5 * SECOND, 20 * SECOND);
	for (i = 0; i < 4; i++)
		run("shared", true, slots[i], 800, 20000, 1, true, 5 * SECOND, 20 * SECOND);
	for (i = 0; i < 4; i++)
		run("shared", true, slots[i], 20, 50000, 1, true, 5 * SECOND, 60 * SECOND);
	return 0;
}
