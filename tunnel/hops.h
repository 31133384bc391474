/*
 * tunnel/hops.h - the hops of a tunnel, and the command that leads through
 * them.
 *
 * A hop is an ssh destination.  If it contains a blank, it is a command that
 * runs its arguments on the next host.
 */
#ifndef TUNNEL_HOPS_H
#define TUNNEL_HOPS_H

#include <stdbool.h>
#include <stddef.h>

#define HOPS_WORDS 256
#define HOPS_TEXT 16384
#define HOPS_PATH 512

/* The remedy if a command was not found on a hop. */
#define HOPS_NOT_FOUND "is it in the PATH of a login without a terminal? Else write its whole path"

/*
 * If jumps is not 0, hops[0] to hops[jumps] are ssh destinations.  The login to
 * each of these is made from this host, through the hops before it.  The login
 * to each later hop is made on the hop before it.  All pointers are borrowed.
 */
struct hops_config {
	char *const *hops;            /* as the user wrote them */
	int n;                        /* at least 1 */
	int jumps;                    /* the number of hops in -J */
	const char *rsh;              /* the ssh that runs here, quoted as in sh */
	const char *const *ssh_words; /* more words for the ssh to hops[jumps] */
	int n_ssh_words;
	const char *self;         /* the path of this relay, which -J runs again */
	const char *jump_options; /* for the relay of -J: words with a blank before each */
	bool unattended;          /* if rsh is ssh, it does not ask for passwords */

	/* Both are zeros, except for several channels (master.h). */
	const char *options; /* more words for the ssh to hops[jumps] only */
	bool batch;          /* the logins of later hops do not ask for passwords */
};

struct hops {
	struct hops_config config;
	char *argv[HOPS_WORDS]; /* the command, as for execvp */
	int words;
	char text[HOPS_TEXT + 1]; /* argv points into it: do not copy the struct */
	size_t length;
	bool full; /* no room for the words, or for the text */
};

/*
 * hops_parse(h, config, why, size):
 * Make one command of the hops of ${config}, which is copied.  On failure write
 * a line into ${why} and return false.
 *
 * hops_runs_ssh(h): the first word of the command is ssh.
 * hops_last(h): the last hop.
 * hops_path(h, dst, size): write "login -> node" into ${dst}, and return it.
 * hops_is_command(hop): ${hop} is a command, not an ssh destination.
 * hops_can_ask(h): the command may ask for passwords at the terminal.
 * hops_any_command(h): at least one hop is a command.
 */
bool hops_parse(struct hops *h, const struct hops_config *config, char *why, size_t size);
bool hops_runs_ssh(const struct hops *h);
const char *hops_last(const struct hops *h);
const char *hops_path(const struct hops *h, char *dst, size_t size);
bool hops_is_command(const char *hop);
bool hops_can_ask(const struct hops *h);
bool hops_any_command(const struct hops *h);

/*
 * hops_explain(h, line, last, dst, size):
 * The command printed ${line} and has ended: write which hop cannot be reached,
 * the cause and the remedy into ${dst}.  ${last}: if ${line} names no hop, it is
 * the last one, because -n has reached the others.  Return true if the relay
 * that -J runs printed ${line}.
 *
 * hops_is_cause(h, line): ${line} shows why a hop cannot be reached.
 * hops_is_refusal(line): ${line} reports that a login was refused.
 * hops_is_proxy_end(line): in ${line}, ssh only reports that its ProxyCommand
 * has ended.
 */
bool hops_explain(const struct hops *h, const char *line, bool last, char *dst, size_t size);
bool hops_is_cause(const struct hops *h, const char *line);
bool hops_is_refusal(const char *line);
bool hops_is_proxy_end(const char *line);

#endif
