/*
 * tunnel/hops.h - the hops of a tunnel, and the command that leads through
 * them.
 *
 * A hop is an ssh destination.  If it contains a blank, it is a command that
 * runs its arguments on the next host.
 *
 * struct hops is visible because struct options contains one.
 */
#ifndef TUNNEL_HOPS_H
#define TUNNEL_HOPS_H

#include <stdbool.h>
#include <stddef.h>

#define HOPS_WORDS 256
#define HOPS_TEXT 16384
#define HOPS_PATH 512

struct hops {
	char *const *hops;      /* as the user wrote them, borrowed */
	int n;                  /* at least 1 */
	char *argv[HOPS_WORDS]; /* the command; ends with NULL */
	int words;
	char text[HOPS_TEXT]; /* argv points into it: do not copy the struct */
	size_t length;
};

/*
 * hops_parse(h, hops, n, rsh, why, size):
 * Make one command of the ${n} hops ${hops}, with ${rsh} as the first ssh.
 * ${hops} is borrowed.  On failure write a line into ${why} and return false.
 *
 * hops_argv(h): the command, as for execvp.
 * hops_name(h, i): the hop of index ${i} as the user wrote it.
 * hops_last(h): the last hop.
 * hops_path(h, dst, size): write "login -> node" into ${dst}, and return it.
 * hops_is_command(hop): ${hop} is a command, not an ssh destination.
 * hops_any_command(h): at least one hop is a command.
 */
bool hops_parse(struct hops *h, char *const hops[], int n, const char *rsh, char *why, size_t size);
char *const *hops_argv(const struct hops *h);
const char *hops_name(const struct hops *h, int i);
const char *hops_last(const struct hops *h);
const char *hops_path(const struct hops *h, char *dst, size_t size);
bool hops_is_command(const char *hop);
bool hops_any_command(const struct hops *h);

/*
 * hops_find_named(h, line): the index of the last hop whose host name is in
 * ${line}.  If there is none: 0 with a single hop, else -1.
 * hops_remedy(hop, line): ssh printed ${line} when it could not reach the hop
 * of index ${hop} (-1: not known).  Return the remedy to append to ${line}, or
 * "".
 */
int hops_find_named(const struct hops *h, const char *line);
const char *hops_remedy(int hop, const char *line);

#endif
