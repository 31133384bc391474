/*
 * doctor.c - what stands between here and the last hop, tried step by step (-n).
 *
 * Each hop is visited with all those before it: the chain as far as this hop ends in sh, which is asked questions, one line each,
 * and answers with a line that begins with BOOTSTRAP_MARK. What comes before the first answer is what its shells print; the questions
 * coming back mean a terminal; 256 bytes of all values go there, where cksum looks at them, and come back. Nothing else runs
 * meanwhile, so this room may wait, each time with a limit.
 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "base/poll.h"
#include "base/signals.h"
#include "spawn.h"
#include "tunnel/bootstrap.h"
#include "tunnel/hops.h"
#include "tunnel/doctor.h"

#define LOGIN_MOST 120000 /* somebody may have to type a password */
#define ANSWER_MOST 10000
#define PINGS 5
#define EAR_SIZE 1024
#define EAR_PIPE (64 * 1024) /* what a pipe may hold when its writer has ended */

static const char greet[] = "say(){ printf 'relay%s %s\\n' :: \"$*\";};t=0;test -t 0&&t=1;say $t "
			    "\"$(uname -s)-$(uname -m), $(id -un)@$(uname -n)\"\n";
static const char ping[] = "say pong\n";

struct visit {
	struct children kids;
	struct child *child;
	int in, out, err;
	char got[65536]; /* on stdout, from the first byte on */
	size_t have, used;
	char said[512]; /* the last line on stderr that is not empty */
	size_t said_have;
	bool said_ended;
	bool over;
};

/* One line; what strangers said in it must not steer the reader's terminal. */
static void
print(const char *verdict, const char *hop, const char *what, const char *more)
{
	char line[4096];

	snprintf(line, sizeof(line), "%-4s  %s: %s%s", verdict, hop, what, more);
	log_plain(line, strlen(line), ' ');
	puts(line);
	fflush(stdout);
}

static void
report(bool good, const char *hop, const char *what, const char *more)
{
	print(good ? "ok" : "FAIL", hop, what, more);
}

static void
note(const char *hop, const char *what, const char *more)
{
	print("note", hop, what, more);
}

/* ---- one conversation ---- */

static bool
begin(struct visit *v, const struct hops *h)
{
	memset(v, 0, sizeof(*v));
	v->in = v->out = v->err = -1;
	v->child = spawn_start(&v->kids, h->argv, SPAWN_HEARD);
	if (v->child == NULL)
		return false;
	v->in = spawn_take_in(v->child);
	v->out = spawn_take_out(v->child);
	v->err = spawn_take_ear(v->child);
	return true;
}

/* Let the chain end, however it does. */
static void
finish(struct visit *v)
{
	struct pollset ps;

	memset(&ps, 0, sizeof(ps));
	os_close(&v->in);
	os_close(&v->out);
	os_close(&v->err);
	if (v->child != NULL)
		spawn_release(v->child, pollset_clock());
	for (;;) {
		pollset_begin(&ps);
		spawn_reap(&v->kids);
		spawn_turn(&v->kids, &ps);
		if (v->kids.first == NULL)
			break;
		pollset_until(&ps, ps.now + 20);
		if (pollset_wait(&ps) == -1)
			break;
	}
	pollset_free(&ps);
}

static void
take_said(struct visit *v, const char *p, ssize_t n)
{
	ssize_t i;

	for (i = 0; i < n; i++) {
		if (p[i] == '\n' || p[i] == '\r') {
			v->said_ended = true;
			continue;
		}
		if (v->said_ended)
			v->said_have = 0;
		v->said_ended = false;
		if (v->said_have < sizeof(v->said) - 1)
			v->said[v->said_have++] = p[i] == '\0' ? '?' : p[i];
		v->said[v->said_have] = '\0';
	}
}

/* false: nothing to read just now, or no more */
static bool
hear(struct visit *v)
{
	char room[EAR_SIZE];
	ssize_t n = v->err == -1 ? -1 : read(v->err, room, sizeof(room));

	if (n == 0)
		os_close(&v->err); /* or poll would tell of its end again and again */
	take_said(v, room, n);
	return n > 0;
}

/* The chain has ended: its last line is the cause. */
static void
hear_last(struct visit *v)
{
	int i;

	for (i = 0; i < EAR_PIPE / EAR_SIZE && hear(v); i++)
		;
}

/* Wait until something comes; false: it took too long, or the chain has ended. */
static bool
wait_more(struct visit *v, int64_t until)
{
	struct pollfd p[2] = { { .fd = v->in, .events = POLLIN },
		{ .fd = v->err, .events = POLLIN } };
	int64_t left = until - pollset_clock();
	ssize_t n;
	int sig;

	while ((sig = signals_take()) != 0)
		v->over = v->over || (sig != SIGCHLD && sig != SIGUSR1);
	if (left <= 0 || v->over || v->have == sizeof(v->got) - 1)
		return false;
	if (poll(p, 2, (int)left) == -1 && errno != EINTR)
		return false;
	if ((p[1].revents & (POLLIN | POLLHUP)) != 0)
		hear(v);
	if (p[0].revents == 0)
		return true;
	n = read(v->in, v->got + v->have, sizeof(v->got) - 1 - v->have);
	if (n == 0 || (n == -1 && errno != EAGAIN && errno != EINTR))
		v->over = true;
	if (n > 0)
		v->have += (size_t)n;
	v->got[v->have] = '\0';
	return true;
}

static bool
tell(struct visit *v, const void *p, size_t n)
{
	struct pollfd pfd = { .fd = v->out, .events = POLLOUT };
	const char *at = p;
	ssize_t w;

	while (n > 0) {
		w = write(v->out, at, n);
		if (w > 0) {
			at += w;
			n -= (size_t)w;
		} else if (errno == EAGAIN ? poll(&pfd, 1, ANSWER_MOST) <= 0 : errno != EINTR) {
			return false;
		}
	}
	return true;
}

/* The words of the next answer, without its mark, or NULL; ${skipped} bytes came before it. */
static char *
answer(struct visit *v, int most, size_t *skipped)
{
	int64_t until = pollset_clock() + most;
	char *mark, *end, *from;
	size_t i;

	do {
		/* A NUL in noise must not hide what comes behind it. */
		for (i = v->used; i < v->have; i++)
			if (v->got[i] == '\0')
				v->got[i] = '?';
		from = v->got + v->used;
		mark = strstr(from, BOOTSTRAP_MARK);
		end = mark == NULL ? NULL : strchr(mark, '\n');
		if (end != NULL) {
			*end = '\0';
			*skipped = (size_t)(mark - from);
			v->used = (size_t)(end + 1 - v->got);
			return mark + strlen(BOOTSTRAP_MARK);
		}
	} while (wait_more(v, until));
	return NULL;
}

static char *
ask(struct visit *v, const char *question, int most)
{
	size_t skipped;

	return tell(v, question, strlen(question)) ? answer(v, most, &skipped) : NULL;
}

/* ---- what is asked ---- */

static bool
greet_hop(struct visit *v, const struct hops *h, int64_t began)
{
	const char *hop = h->hops[h->n - 1];
	char text[256], *words;
	size_t noise = 0;

	words = tell(v, greet, strlen(greet)) ? answer(v, LOGIN_MOST, &noise) : NULL;
	if (strstr(v->got, "say(){") != NULL) {
		report(false, hop,
		    "a terminal is on the way (ssh -t), or no shell: the words sent there come "
		    "back",
		    "");
		return false;
	}
	if (words != NULL && strncmp(words, "0 ", 2) != 0 && strncmp(words, "1 ", 2) != 0) {
		report(false, hop, "what answers there is no shell: ", words);
		return false;
	}
	if (words == NULL) {
		hear_last(v);
		report(false, hop,
		    v->said[0] != '\0' ? v->said : "it closed the line, or did not answer",
		    hops_remedy(h->n - 1, v->said));
		return false;
	}
	snprintf(text, sizeof(text), "reached in %lld ms: ", (long long)(pollset_clock() - began));
	report(true, hop, text, words + 2);
	if (noise > 0) {
		snprintf(text, sizeof(text),
		    "its shells print %zu bytes first; they are skipped: %.*s", noise,
		    noise > 80 ? 80 : (int)noise, v->got);
		note(hop, text, noise > 80 ? " ..." : "");
	}
	if (words[0] == '1')
		report(false, hop, "its stdin is a terminal; bytes will not pass unchanged", "");
	return words[0] == '0';
}

static bool
ping_hop(struct visit *v, const char *hop)
{
	int64_t least = INT64_MAX, began;
	char text[64];
	int i;

	for (i = 0; i < PINGS; i++) {
		began = pollset_clock_us();
		if (ask(v, ping, ANSWER_MOST) == NULL) {
			report(false, hop, "it stopped answering", "");
			return false;
		}
		if (pollset_clock_us() - began < least)
			least = pollset_clock_us() - began;
	}
	snprintf(text, sizeof(text), "round trip %lld.%lld ms, its shell included",
	    (long long)(least / 1000), (long long)(least / 100 % 10));
	report(true, hop, text, "");
	return true;
}

/* All byte values there: what arrives is summed up by cksum. It says first that it reads, for some shells read ahead. */
static bool
send_all(struct visit *v)
{
	static const char question[] = "say go;say \"$(dd bs=1 count=256 2>/dev/null|cksum)\"\n";
	unsigned char all[256];
	char right[32], *sum;
	size_t skipped;
	int i;

	for (i = 0; i < 256; i++)
		all[i] = (unsigned char)i;
	snprintf(right, sizeof(right), "%lu 256", (unsigned long)bootstrap_cksum(all, sizeof(all)));
	if (ask(v, question, ANSWER_MOST) == NULL || !tell(v, all, sizeof(all)))
		return false;
	sum = answer(v, ANSWER_MOST, &skipped);
	return sum != NULL && strncmp(sum, right, strlen(right)) == 0;
}

/* All byte values back, behind a mark. */
static bool
receive_all(struct visit *v)
{
	char question[2048];
	size_t n = (size_t)snprintf(question, sizeof(question), "printf 'relay%%s ' ::;printf '"),
	       i, from = v->used, want = from + strlen(BOOTSTRAP_MARK) + 256;
	int64_t until = pollset_clock() + ANSWER_MOST;

	for (i = 0; i < 256; i++)
		n += (size_t)snprintf(question + n, sizeof(question) - n, "\\%03o", (unsigned)i);
	n += (size_t)snprintf(question + n, sizeof(question) - n, "'\n");
	if (want >= sizeof(v->got) || !tell(v, question, n))
		return false;
	while (v->have < want)
		if (!wait_more(v, until))
			return false;
	v->used = want;
	for (i = 0; i < 256; i++)
		if ((unsigned char)v->got[want - 256 + i] != i)
			return false;
	return memcmp(v->got + from, BOOTSTRAP_MARK, strlen(BOOTSTRAP_MARK)) == 0;
}

static bool
carry_all(struct visit *v, const char *hop)
{
	bool there = send_all(v), back = there && receive_all(v);

	report(there && back, hop,
	    back    ? "all byte values pass, both ways"
	    : there ? "not all byte values come back unchanged"
		    : "not all byte values arrive there unchanged",
	    "");
	return back;
}

static bool
visit(struct visit *v, const struct hops *h)
{
	const char *hop = h->hops[h->n - 1];
	int64_t began = pollset_clock();

	if (!begin(v, h)) {
		report(false, hop, "no process could be started: ", strerror(errno));
		return false;
	}
	return greet_hop(v, h, began) && ping_hop(v, hop) && carry_all(v, hop);
}

bool
doctor_visit(char *const hops[], int n, const char *rsh)
{
	static struct visit v;
	static struct hops h;
	char why[512];
	bool good = true;
	int i;

	for (i = 1; i <= n && good; i++) {
		good = hops_parse(&h, hops, i, rsh, why, sizeof(why)) && visit(&v, &h);
		finish(&v);
	}
	return good;
}

void
doctor_say(bool good, const char *hop, const char *fmt, ...)
{
	char text[2048];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	report(good, hop, text, "");
}
