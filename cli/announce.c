/*
 * cli/announce.c - the addresses and routes that are reported when relay is
 * ready.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "net/listen.h"
#include "conn/listeners.h"
#include "tunnel/forward.h"
#include "tunnel/hops.h"
#include "cli/options.h"
#include "cli/announce.h"

void
announce_addresses(const struct listeners *ls, const struct options *o)
{
	const struct forward *f;
	const char *name;
	int at = 0;

	while ((name = listeners_next_name(ls, &at)) != NULL)
		printf("%s\n", name);
	for (f = o->forwards; f < o->forwards + o->n_forwards; f++)
		if (f->kind == FORWARD_FAR) /* not the empty last line */
			printf("%.*s", (int)strlen(f->bound) - 1, f->bound);
	if (ferror(stdout) || fflush(stdout) != 0)
		log_say(LOG_NOTICE, "cannot print the addresses: %s", strerror(errno));
	os_null(STDOUT_FILENO);
}

void
announce_routes(const struct listeners *ls, const struct options *o)
{
	char path[HOPS_PATH], bound[sizeof(o->forwards[0].bound)];
	const struct forward *f, *last = NULL;
	int i;

	hops_path(&o->hops, path, sizeof(path));
	for (i = 0; i < ls->n; i++) {
		f = ls->tab[i].use;
		if (f != NULL && f != last) /* once for all addresses of a name */
			forward_log(f, listener_name(&ls->tab[i].l), path);
		last = f;
	}
	for (f = o->forwards; f < o->forwards + o->n_forwards; f++)
		if (f->kind == FORWARD_FAR)
			forward_log(f, forward_first_bound(f, bound, sizeof(bound)), path);
}
