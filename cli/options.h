/* cli/options.h - the table of options, and the whole command line. */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/log.h"
#include "mux/mux.h"
#include "net/dial.h"
#include "net/endpoint.h"
#include "tunnel/bootstrap.h"
#include "tunnel/forward.h"
#include "tunnel/hops.h"
#include "tunnel/keeper.h"

#define OPTIONS_MOST 1000000
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
 * ROW(letter, argument, kind, field, least, most, help):
 * One row per option: letter, argument in relay -h ("": none), kind, field in
 * struct options, bounds of a number, line in relay -h.  A LEVEL or MODE is
 * ${least}.  The completions follow from relay -h.
 */
/* clang-format off */
#define OPTIONS_TABLE(ROW) \
	ROW('a', "", FLAG, any_uid, 0, 1, \
	    "let every user connect to the loopback ports") \
	ROW('c', "NUMBER", NUMBER, max_conns, 1, OPTIONS_MOST, \
	    "serve at most NUMBER connections at a time") \
	ROW('D', "[BIND:]PORT", FORWARD, forwards, 0, 0, \
	    "listen here as a SOCKS proxy, connect from the last hop") \
	ROW('E', "FILE", TEXT, log_path, 0, 0, \
	    "append the messages to FILE") \
	ROW('e', "COMMAND", TEXT, rsh, 0, 0, \
	    "run COMMAND instead of ssh for the first hop") \
	ROW('F', "", MODE, mode, MODE_FDPASS, 0, \
	    "connect, pass the socket to ssh on stdout, and exit") \
	ROW('f', "", FLAG, background, 0, 1, \
	    "go to the background when ready") \
	ROW('h', "", SHOW, mode, 0, 0, \
	    "print this help on stdout; so does --help") \
	ROW('i', "SECONDS", NUMBER, idle_s, 1, OPTIONS_MOST, \
	    "exit after SECONDS without a connection") \
	ROW('J', "HOP[,HOP]", TEXT, jump, 0, 0, \
	    "make each login from here, through these hosts") \
	ROW('j', "NUMBER", NUMBER, channels, 1, MUX_SLOTS, \
	    "use up to NUMBER ssh sessions of one login (default 4)") \
	ROW('k', "SECONDS", NUMBER, keep, 0, KEEPER_MOST, \
	    "keep connections for SECONDS after the line is lost") \
	ROW('L', "FROM:TO", FORWARD, forwards, 0, 0, \
	    "listen on FROM here, connect to TO from the last hop") \
	ROW('l', "USER", SSH, ssh_words, 0, 0, \
	    "pass -l USER to the ssh of the first hop") \
	ROW('m', "", MODE, mode, MODE_LINK_NEAR, 0, \
	    "carry all connections over one command: a link") \
	ROW('N', "", NONE, mode, 0, 0, \
	    "accepted as in ssh, without effect") \
	ROW('n', "", MODE, mode, MODE_CHECK, 0, \
	    "check each step of a tunnel, report it, forward nothing") \
	ROW('O', "ACTION", TEXT, action, 0, 0, \
	    "list the running relays, check NAME or exit NAME") \
	ROW('o', "OPTION", SSH, ssh_words, 0, 0, \
	    "pass -o OPTION to the ssh of the first hop") \
	ROW('P', "FILE", TEXT, pid_path, 0, 0, \
	    "write the process ID to FILE") \
	ROW('p', "PORT", SSH, ssh_words, 0, 0, \
	    "pass -p PORT to the ssh of the first hop") \
	ROW('q', "", LEVEL, mode, LOG_ERROR, 0, \
	    "log errors only") \
	ROW('R', "FROM:TO", FORWARD, forwards, 0, 0, \
	    "listen on FROM on the last hop, connect to TO from here") \
	ROW('r', "", FLAG, runs_command, 0, 1, \
	    "with -m -: run the command that the near side requests") \
	ROW('T', "", NONE, mode, 0, 0, \
	    "accepted as in ssh, without effect") \
	ROW('t', "SECONDS", NUMBER, each_s, 1, OPTIONS_MOST, \
	    "try an address for SECONDS (default 10)") \
	ROW('V', "", SHOW, mode, 0, 0, \
	    "print the version on stdout; so does --version") \
	ROW('v', "", LEVEL, mode, LOG_INFO, 0, \
	    "log each connection") \
	ROW('W', "TO", FORWARD, forwards, 0, 0, \
	    "connect stdin and stdout to TO from the last hop") \
	ROW('w', "SECONDS", NUMBER, wait_s, 0, OPTIONS_MOST, \
	    "retry an unavailable target for SECONDS") \
	ROW('x', "PATH", TEXT, far_path, 0, 0, \
	    "run the relay at PATH on the last hop, copy nothing") \
	ROW('z', "", MODE, mode, MODE_PROBE, 0, \
	    "connect, transfer nothing, exit with status 0 or 1")
/* clang-format on */

/* The member of a row.  Rows of some kinds have no member of their own. */
#define OPTIONS_FIELD(letter, argument, kind, field, least, most, help) OPTIONS_##kind(field)
#define OPTIONS_FLAG(field) bool field;
#define OPTIONS_NUMBER(field) long field; /* 0: not given; keep in s, or KEEP_JOIN */
#define OPTIONS_TEXT(field) const char *field;
#define OPTIONS_FORWARD(field)
#define OPTIONS_SSH(field)
#define OPTIONS_NONE(field)
#define OPTIONS_LEVEL(field)
#define OPTIONS_MODE(field)
#define OPTIONS_SHOW(field)

/*
 * The far relay that continues a session has these options.  The first one
 * sets keep to KEEP_JOIN.
 */
#define OPTIONS_JOIN "-k join -m -"
#define KEEP_JOIN (-1)

struct options {
	OPTIONS_TABLE(OPTIONS_FIELD)
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
	struct hops unattended; /* the same for logins that no person watches */
	char unattended_rsh[HOPS_TEXT];
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
 * options_one_shot(o): relay serves one connection, and exits with its status.
 */
bool options_tunnel(const struct options *o);
bool options_linked(const struct options *o);
bool options_only_target(const struct options *o);
bool options_one_shot(const struct options *o);

#endif
