/*
 * tunnel/hops.h - the hops of a tunnel.
 */
#ifndef TUNNEL_HOPS_H
#define TUNNEL_HOPS_H

#include <stdbool.h>
#include <stddef.h>

#define HOPS_WORDS 256
#define HOPS_TEXT 16384
#define HOPS_PATH 512

struct hops {
	char *const *hops; /* as they were written, borrowed */
	int n;
	char *argv[HOPS_WORDS]; /* of the command that leads through them all; ends with NULL */
	int words;
	char text[HOPS_TEXT]; /* what argv points to: it must stay where it is */
	size_t length;
};

/*
 * hops_parse(h, hops, n, rsh, why, size): the ${n} texts ${hops} as one command, ${rsh} in the place of the first ssh; false with one
 * line in ${why}.
 * hops_path(h, dst, size): "login -> node" into ${dst}, which is returned.
 * hops_any_command(h): is one of them no ssh destination, but a command?
 * hops_blame(h, words): the index of the hop that ${words} speak of, -1: of none.
 * hops_remedy(hop, words): the remedy, to be appended to ${words}, which ssh printed when it could not reach the hop of index
 * ${hop} (-1: the hop is not known); "": none.
 */
bool hops_parse(struct hops *h, char *const hops[], int n, const char *rsh, char *why, size_t size);
const char *hops_path(const struct hops *h, char *dst, size_t size);
bool hops_any_command(const struct hops *h);
int hops_blame(const struct hops *h, const char *words);
const char *hops_remedy(int hop, const char *words);

#endif
