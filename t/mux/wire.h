/*
 * wire.h - a simulated line with a delay, a rate and a bounded queue
 *
 * Times are microseconds of a simulated clock; rates are bytes per microsecond.
 */
#ifndef T_WIRE_H
#define T_WIRE_H
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define WIRE_PACKET 1400
#define WIRE_NEVER INT64_MAX

struct wire {
	int64_t delay; /* one way */
	double rate;   /* 0: no limit */
	size_t room;   /* of the queue in front of the line, in bytes */
	double free_at;
	unsigned char *data;
	size_t size, from, to;
	struct packet {
		int64_t left, at; /* when it leaves the queue, when it arrives */
		size_t n;
	} * packet;
	size_t packets, first, last, gone;
	size_t waits;
	uint64_t total;
};

static inline void
wire_free(struct wire *w)
{
	free(w->data);
	free(w->packet);
	memset(w, 0, sizeof(*w));
}

/* How many bytes may be put now. */
static inline size_t
wire_room(struct wire *w, int64_t now)
{
	for (; w->gone < w->last && w->packet[w->gone].left <= now; w->gone++)
		w->waits -= w->packet[w->gone].n;
	return w->waits < w->room ? w->room - w->waits : 0;
}

static inline void
wire_put(struct wire *w, const void *p, size_t n, int64_t now)
{
	const unsigned char *at = p;
	struct packet k;

	if (w->from == w->to)
		w->from = w->to = 0;
	if (w->to + n > w->size) {
		if (w->from > 0)
			memmove(w->data, w->data + w->from, w->to - w->from);
		w->to -= w->from;
		w->from = 0;
		while (w->to + n > w->size)
			w->data = realloc(w->data, w->size = w->size * 2 + 65536);
	}
	memcpy(w->data + w->to, at, n);
	w->to += n;
	w->total += n;
	while (n > 0) {
		k.n = n < WIRE_PACKET ? n : WIRE_PACKET;
		if (w->free_at < (double)now)
			w->free_at = (double)now;
		if (w->rate > 0)
			w->free_at += (double)k.n / w->rate;
		k.left = (int64_t)w->free_at;
		k.at = k.left + w->delay;
		if (w->last > w->first && k.at < w->packet[w->last - 1].at)
			k.at = w->packet[w->last - 1]
				   .at; /* a line keeps the order even if its delay changes */
		if (w->last == w->packets) {
			size_t done = w->gone < w->first ? w->gone : w->first;

			if (done > 0)
				memmove(w->packet, w->packet + done, (w->last - done) * sizeof(k));
			w->first -= done;
			w->gone -= done;
			w->last -= done;
			if (w->last >= w->packets / 2)
				w->packet = realloc(
				    w->packet, (w->packets = w->packets * 2 + 256) * sizeof(k));
		}
		w->packet[w->last++] = k;
		w->waits += k.n;
		n -= k.n;
	}
}

/* The time at which the next bytes arrive; at which ${n} bytes have room. */
static inline int64_t
wire_next(const struct wire *w)
{
	return w->first < w->last ? w->packet[w->first].at : WIRE_NEVER;
}

static inline int64_t
wire_room_at(struct wire *w, size_t n, int64_t now)
{
	size_t i, waits;

	if (wire_room(w, now) >= n)
		return now;
	for (i = w->gone, waits = w->waits; i < w->last; i++)
		if ((waits -= w->packet[i].n) + n <= w->room)
			return w->packet[i].left;
	return now;
}

/*
 * Set ${*p} to the packet that has arrived and return its length, or 0.  It
 * stays until the next call.  wire_drop: ${n} of its bytes were used.
 */
static inline size_t
wire_take(struct wire *w, const unsigned char **p, int64_t now)
{
	if (w->first == w->last || w->packet[w->first].at > now)
		return 0;
	*p = w->data + w->from;
	return w->packet[w->first].n;
}

static inline void
wire_drop(struct wire *w, size_t n, int64_t now)
{
	w->from += n;
	wire_room(w, now > w->packet[w->first].left ? now : w->packet[w->first].left);
	if ((w->packet[w->first].n -= n) == 0)
		w->first++;
}

/* A random generator with the same numbers on every machine. */
static uint64_t dice_state;
static inline uint32_t
dice(void)
{
	uint64_t z = (dice_state += 0x9e3779b97f4a7c15u);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return (uint32_t)((z ^ z >> 31) >> 32);
}
static inline uint32_t
upto(uint32_t n)
{
	return (uint32_t)((uint64_t)dice() * ((uint64_t)n + 1) >> 32);
} /* 0 to n */
static inline bool
one_in(uint32_t n)
{
	return upto(n - 1) == 0;
}

#endif
