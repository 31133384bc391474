/*
 * cli/options.h - the command line as a whole.
 */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <stdbool.h>

#include "base/log.h"
#include "net/dial.h"
#include "net/endpoint.h"
#include "tunnel/bootstrap.h"
#include "tunnel/forward.h"
#include "tunnel/hops.h"

#define OPTIONS_FORWARDS 32

enum mode {
	MODE_DIRECT,    /* FROM and TO are joined in this process */
	MODE_PROBE,     /* -z */
	MODE_FDPASS,    /* -F */
	MODE_LINK_NEAR, /* -m FROM -- COMMAND */
	MODE_LINK_FAR,  /* -m - [TO] */
	MODE_TUNNEL,    /* -L, -R, -D, -W */
	MODE_CHECK      /* -n: a tunnel that forwards nothing */
};

struct options {
	enum mode mode;
	enum log_level level;
	bool any_uid, background;
	long max_conns; /* 0: no limit */
	const char *pid_path, *rsh, *far_path;
	int wait_ms, idle_ms;
	struct endpoint from;
	struct dial_target target; /* of a tunnel: the command that leads through the hops */
	struct forward forwards[OPTIONS_FORWARDS];
	int n_forwards;
	struct hops hops;
	char self[BOOTSTRAP_PATH], far_options[64];
};

/*
 * options_parse(o, argc, argv): fill ${o} from ${argv}, whose strings it borrows.  ${o} is all zeros: it is large, and pages that
 * are not written cost no memory.  Exits after a usage error, and for -h and -V.
 * options_tunnel(o): the link leads through hops.
 * options_linked(o): all connections share one link.
 * options_one_shot(o): there is one connection, and its status is relay's.
 */
void options_parse(struct options *o, int argc, char *argv[]);
bool options_tunnel(const struct options *o);
bool options_linked(const struct options *o);
bool options_one_shot(const struct options *o);

#endif
