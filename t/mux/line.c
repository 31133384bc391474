/*
 * line.c - measure two muxes on a simulated line: the rate of bulk, and the
 * delay of a keystroke beside bulk
 */
#include <stdbool.h>
#include <stdio.h>

#include "mux/mux.h"
#include "t/mux/pull.h"
#include "t/mux/wire.h"

#define SECOND 1000000
#define BULKS 4
#define MOST 100000

static struct mux *near, *far;
static struct wire line[2];
static int64_t now;
static struct stream *mine[BULKS + 1], *peer[BULKS + 1];
static int64_t took[MOST];
static int samples;

static int
compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return x < y ? -1 : x > y;
}
static struct mux *
end_of(int i)
{
	return i == 0 ? near : far;
}
static int64_t
earliest(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static void
send_bytes(struct stream *s, size_t n)
{
	static unsigned char zeros[65536];

	buf_put(stream_tx(s), zeros, n);
	stream_push(s);
}

static void
send_out(int i)
{
	static unsigned char x[65536];
	size_t n;

	while (mux_has_output(end_of(i), 0) && wire_room(&line[i], now) >= MUX_PULL &&
	       (n = pull_into(end_of(i), x, MUX_PULL, now)) > 0)
		wire_put(&line[i], x, n, now);
}

static void
deliver(int i)
{
	const unsigned char *p;
	size_t n;

	while ((n = wire_take(&line[i], &p, now)) > 0) {
		mux_feed(end_of(1 - i), 0, p, n, now);
		wire_drop(&line[i], n, now);
	}
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

/*
 * Each source gives ${trickle} bytes per us, in pieces of ${piece}.  0: it is
 * always full.
 */
static void
run(double mbit, int64_t trip, int bulks, double trickle, size_t piece, int64_t start, int64_t span,
    bool print)
{
	int64_t end, next, key_at = 0, key_sent = 0, worst_queue = 0, sum_queue = 0, queue,
			   samples_queue = 0, source_at[BULKS + 1];
	uint64_t all = 0;
	double window = 0;
	struct mux_stats stats;
	int i;

	memset(line, 0, sizeof(line));
	for (i = 0; i < 2; i++) {
		line[i].delay = trip / 2;
		line[i].rate = mbit / 8;
		line[i].room = 4 << 20;
	}
	now = 1000000;
	samples = 0;
	dice_state = 1;
	near = mux_new(MUX_NEAR, MUX_MEMORY, "laptop", now);
	far = mux_new(MUX_FAR, MUX_MEMORY, "node", now);
	end = now + start + span;
	while (now < end) {
		next = end;
		for (i = 0; i < 2; i++) {
			mux_tick(end_of(i), now);
			deliver(i);
		}
		if (mux_state(near) == MUX_UP && mine[0] == NULL)
			for (i = 0; i <= bulks; i++) {
				mine[i] = mux_open(near, "/x");
				source_at[i] = now;
			}
		for (i = 0; i <= bulks; i++)
			if (peer[i] == NULL)
				peer[i] = mux_accept(far);
		for (i = 0; i < bulks && mine[0] != NULL; i++) {
			if (peer[i] != NULL) {
				size_t n = take_all(peer[i]);

				all += now >= end - span ? n : 0;
			}
			while (stream_room(mine[i]) > 0 && source_at[i] <= now) {
				send_bytes(mine[i], piece);
				if (trickle > 0)
					source_at[i] += (int64_t)((double)piece / trickle);
				if (trickle > 0 && source_at[i] + 100000 < now)
					source_at[i] = now;
				send_out(0);
			}
			if (trickle > 0)
				next =
				    earliest(next, source_at[i] > now ? source_at[i] : now + 1000);
		}
		if (mine[0] != NULL && now >= end - span) { /* the keystroke and its echo */
			if (peer[bulks] != NULL && take_all(peer[bulks]) > 0)
				send_bytes(peer[bulks], 1);
			if (take_all(mine[bulks]) > 0) {
				if (samples < MOST)
					took[samples++] = now - key_sent;
				key_sent = 0;
				key_at = now + 20000 + upto(60000);
			}
			if (key_sent == 0 && now >= key_at) {
				send_bytes(mine[bulks], 1);
				key_sent = now;
			}
			if (key_sent == 0)
				next = earliest(next, key_at);
			queue = line[0].free_at > (double)now
				    ? (int64_t)(line[0].free_at - (double)now)
				    : 0;
			worst_queue = queue > worst_queue ? queue : worst_queue;
			sum_queue += queue;
			samples_queue++;
			mux_stats(near, &stats);
			window += (double)stats.cwnd;
		}
		for (i = 0; i < 2; i++) {
			send_out(i);
			if (mux_deadline(end_of(i)) > now)
				next = earliest(next, mux_deadline(end_of(i)));
			next = earliest(next, wire_next(&line[i]));
		}
		now = next > now ? next : now + 1;
	}
	mux_stats(near, &stats);
	qsort(took, (size_t)samples, sizeof(took[0]), compare);
	if (print)
		printf("%5.0f ms %5.0f Mbit/s  bulk %5.3f  queue mean %6.1f worst %6.1f ms  "
		       "keystroke + %6.1f p50 %6.1f p99 %6.1f worst (%d)  cwnd %8.0f  rtt %6.1f\n",
		    (double)trip / 1000, mbit, (double)all * 8 / mbit / (double)span,
		    samples_queue ? (double)sum_queue / (double)samples_queue / 1000 : 0,
		    (double)worst_queue / 1000,
		    samples ? (double)(took[samples / 2] - trip) / 1000 : -1,
		    samples ? (double)(took[samples * 99 / 100] - trip) / 1000 : -1,
		    samples ? (double)(took[samples - 1] - trip) / 1000 : -1, samples,
		    samples_queue ? window / (double)samples_queue : 0,
		    (double)stats.rtt_us / 1000);
	fflush(stdout);
	mux_lost(near, 0, 0, "");
	mux_lost(far, 0, 0, "");
	for (i = 0; i <= bulks; i++) {
		if (mine[i] != NULL)
			stream_release(mine[i]);
		if (peer[i] != NULL)
			stream_release(peer[i]);
		mine[i] = peer[i] = NULL;
	}
	mux_free(near);
	mux_free(far);
	wire_free(&line[0]);
	wire_free(&line[1]);
}

int
main(void)
{
	static const int64_t trips[] = { 1000, 20000, 50000, 100000 };
	static const double rates[] = { 5, 50, 500 };
	size_t i, k;

	printf("4 full sources, a keystroke beside; the first 3 s left out, 20 s\n");
	for (i = 0; i < 4; i++)
		for (k = 0; k < 3; k++)
			run(rates[k], trips[i], 4, 0, 32768, 3 * SECOND, 20 * SECOND, true);
	printf("the same, the first 3 s\n");
	for (i = 0; i < 4; i++)
		for (k = 0; k < 3; k++)
			run(rates[k], trips[i], 4, 0, 32768, 0, 3 * SECOND, true);
	printf("4 sources of 0.4 of the line each, in pieces of 1,024\n");
	for (i = 0; i < 4; i++)
		for (k = 0; k < 2; k++)
			run(rates[k], trips[i], 4, rates[k] / 8 * 0.4, 1024, 3 * SECOND,
			    20 * SECOND, true);
	printf("1 full source, after 60 s and 300 s\n");
	for (i = 0; i < 4; i++) {
		run(50, trips[i], 1, 0, 32768, 60 * SECOND, 20 * SECOND, true);
		run(50, trips[i], 1, 0, 32768, 300 * SECOND, 20 * SECOND, true);
	}
	return 0;
}
