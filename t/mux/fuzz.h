/*
 * fuzz.h - a link with a user, driven by what comes from the wire.  The input: by turns a byte that says how much to feed, or what
 * else happens, and the bytes to feed.  Each user reads, writes, ends and resets by its stream's number.
 */
#ifndef T_FUZZ_H
#define T_FUZZ_H
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "relay.h"

#define FUZZ_USERS 64
#define FUZZ_MUST(cond) do { if (!(cond)) { fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond); abort(); } } while (0)

static struct link fuzz;
static struct stream *fuzz_user[FUZZ_USERS];
static int64_t fuzz_now;
static const unsigned char *fuzz_in;
static size_t fuzz_left;

static void
fuzz_adopt(struct stream *s)
{
	int i;

	for (i = 0; i < FUZZ_USERS; i++)
		if (fuzz_user[i] == NULL) {
			fuzz_user[i] = s;
			s->user = &fuzz_user[i];
			return;
		}
	link_close(&fuzz, s, LINK_NO_ROOM, "no user left");
	link_release(&fuzz, s);
}

static void
fuzz_use(int i, unsigned what)
{
	static const unsigned char zeros[40000];
	unsigned char x[5000];
	struct stream *s = fuzz_user[i];
	size_t n;

	if ((what & 1) != 0 && (n = buf_take(&s->in.buf, x, sizeof(x))) > 0)
		link_consumed(&fuzz, s, n);
	if ((what & 2) != 0 && s->out.state == HALF_OPEN && link_takes(&fuzz, s)) {
		FUZZ_MUST(buf_put(&s->out.buf, zeros, 1 + what * 157 % 40000));
		link_ready(&fuzz, s);
	}
	if ((what & 28) == 28 && s->out.state == HALF_OPEN) {
		s->out.state = HALF_DRAIN;
		link_ready(&fuzz, s);
	}
	if ((what & 224) == 224)
		link_stop(&fuzz, s);
	if ((what & 244) == 64)
		link_close(&fuzz, s, (uint16_t)(what & 15), "fuzz");
	if (s->in.state == HALF_DRAIN && s->in.buf.used == 0)
		s->in.state = HALF_SHUT;
	if ((half_finished(&s->in) && half_finished(&s->out)) || (what & 252) == 132) {
		link_release(&fuzz, s);
		fuzz_user[i] = NULL;
	}
}

static void
fuzz_check(void)
{
	uint64_t held = 0;
	int i;

	for (i = 0; i < FUZZ_USERS; i++)
		if (fuzz_user[i] != NULL)
			held += fuzz_user[i]->in.buf.used;
	FUZZ_MUST(held <= fuzz.ours.memory);
	FUZZ_MUST(fuzz.state == LINK_DEAD || fuzz.promised <= fuzz.ours.memory + 65536);
	FUZZ_MUST(fuzz.n <= fuzz.size);
}

static void
fuzz_turn(unsigned what)
{
	static unsigned char out[32768];
	size_t n, most = LINK_PULL + (what & 1) * LINK_PULL;
	struct stream *s;
	int i, turns = 0;

	link_tick(&fuzz, fuzz_now);
	while ((s = link_next(&fuzz)) != NULL) {
		if ((what & 2) != 0)
			link_opened(&fuzz, s);
		fuzz_adopt(s);
	}
	for (i = 0; i < FUZZ_USERS; i++)
		if (fuzz_user[i] != NULL)
			fuzz_use(i, (what * 31 + (unsigned)i * 97) & 255);
	while (link_has_output(&fuzz) && (n = link_pull(&fuzz, out, most, fuzz_now)) > 0) {
		FUZZ_MUST(n <= most);
		FUZZ_MUST(++turns < 100000);
	}
	fuzz_check();
}

static void
fuzz_run(enum link_role role, const uint8_t *p, size_t n)
{
	unsigned what, i, k;

	fuzz_now = 1000000;
	fuzz_in = p;
	fuzz_left = n;
	link_init(&fuzz, role, 1024 * 1024, "fuzz", fuzz_now);
	fuzz.ours.streams = 256;
	while (fuzz_left > 0) {
		what = *fuzz_in++;
		fuzz_left--;
		if (what < 128) {
			k = what < 100 ? what + 1 : (what - 99) * 600;
			if (k > fuzz_left)
				k = (unsigned)fuzz_left;
			link_feed(&fuzz, fuzz_in, k, fuzz_now);
			fuzz_in += k;
			fuzz_left -= k;
		} else if (what < 144) {
			fuzz_now += (int64_t)1 << (what - 128) * 2;
			fuzz_turn(what);
		} else if (what == 255 && role == LINK_NEAR) {
			struct stream *s = link_open(&fuzz, "/fuzz", &fuzz);

			if (s != NULL)
				fuzz_adopt(s);
		} else {
			fuzz_turn(what);
		}
	}
	fuzz_turn(3);
	if (n % 3 == 0)
		link_bye(&fuzz, LINK_END, "done");
	fuzz_turn(1);
	for (i = 0; i < FUZZ_USERS; i++)
		if (fuzz_user[i] != NULL)
			link_release(&fuzz, fuzz_user[i]);
	memset(fuzz_user, 0, sizeof(fuzz_user));
	link_free(&fuzz);
	buf_trim();
}
#endif
