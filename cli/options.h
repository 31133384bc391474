/* cli/options.h - the whole command line. */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <stdbool.h>

#include "net/dial.h"
#include "net/endpoint.h"
#include "tunnel/bootstrap.h"
#include "tunnel/forward.h"
#include "tunnel/hops.h"

#define OPTIONS_FORWARDS 32
#define OPTIONS_SSH_WORDS 128

enum mode {
	MODE_DIRECT,    /* FROM and TO are joined in this process */
	MODE_PROBE,     /* -z */
	MODE_FDPASS,    /* -F */
	MODE_LINK_NEAR, /* -m FROM -- COMMAND */
	MODE_LINK_FAR,  /* -m - [TO] */
	MODE_TUNNEL,    /* -L, -R, -D, -W */
	MODE_CHECK,     /* -n: check a tunnel, forward nothing */
	MODE_CONTROL    /* -O: list, check or stop relays */
};

/*
 * The far relay that continues a session has these options.  The first one
 * sets keep to KEEP_JOIN.
 */
#define OPTIONS_JOIN "-k join -m -"
#define KEEP_JOIN (-1)

struct options {
	bool any_uid, background, runs_command;
	long max_conns, idle_s, each_s, wait_s, channels; /* 0: not given */
	long keep;                                        /* in s; or KEEP_JOIN */
	const char *log_path, *pid_path, *rsh, *far_path, *jump, *action;
	enum mode mode;
	const char *name; /* -O: the relay; NULL: list */
	struct endpoint from;
	struct dial_target target; /* a tunnel: the command through the hops */
	struct forward forwards[OPTIONS_FORWARDS];
	int n_forwards;
	const char *ssh_words[OPTIONS_SSH_WORDS]; /* -l USER -o OPTION -p PORT, as given */
	int n_ssh_words;
	long end_after; /* -n: end sessions after so many s without a channel; -1: none */
	struct hops hops;
	struct hops unattended;     /* the same for logins that no person watches */
	char jump_text[HOPS_TEXT];  /* -J, each HOP a string */
	char *hop_list[HOPS_WORDS]; /* hops of -J, then the others */
	char *const *command;       /* a tunnel: what the last hop runs; NULL: nothing */
	char self[BOOTSTRAP_PATH];  /* a tunnel: the path of this program */
	char far_options[96];       /* a tunnel: for the relay on the last hop */
	char jump_options[24];      /* a tunnel: for the relay of -J */
};

/*
 * options_parse(o, argc, argv):
 * Parse the command line ${argv} into ${o}, which is all zeros, and move the
 * words of ${argv} that are not options to its front.  ${o} borrows the strings
 * of ${argv} and contains pointers into itself: do not copy it.  If the command
 * line is wrong, log one line and exit with STATUS_USAGE.  After -h and -V,
 * exit with STATUS_OK.
 */
void options_parse(struct options *o, int argc, char *argv[]);

/*
 * options_tunnel(o): there are hops (-L, -R, -D, -W, -n).
 * options_linked(o): all connections share one link (a tunnel or -m).
 * options_only_target(o): the far side of a link with a fixed target.
 * options_stdio(o): an end is stdin and stdout.
 * options_one_shot(o): relay serves one connection, and exits with its status.
 */
bool options_tunnel(const struct options *o);
bool options_linked(const struct options *o);
bool options_only_target(const struct options *o);
bool options_stdio(const struct options *o);
bool options_one_shot(const struct options *o);

#endif
