/* tunnel/serve.c - the far side: what the streams that the near side opens are joined to. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tunnel/serve.h"

static void
refuse(struct stream *s, uint16_t code, const char *why)
{
	log_say(LOG_INFO, "refused a stream: %s", why);
	stream_reset(s, code, why);
	stream_release(s);
}

/* Fill ${t} with what ${s} names.  On failure return false, and fill ${code} and ${why}. */
static bool
find_target(const struct serve *tab, const struct stream *s, struct dial_target *t, uint16_t *code, char *why, size_t size)
{
	const char *text = stream_target(s);
	char own[ENDPOINT_NAME];

	*t = *tab->target;
	*code = MUX_FORBIDDEN;
	endpoint_name(&t->to, own, sizeof(own));
	snprintf(why, size, "this end connects to %.300s and to nothing else", own);
	if (tab->only_target)
		return *text == '\0' || strcmp(text, own) == 0;
	*code = MUX_UNUSABLE;
	if (!endpoint_parse(&t->to, text, false, why, size))
		return false;
	snprintf(why, size, "a stream's target is a port or a socket path");
	return t->to.kind == ENDPOINT_TCP || t->to.kind == ENDPOINT_UNIX;
}

static void
dial(struct serve *tab, struct stream *s, int64_t now)
{
	struct dial_target *t = malloc(sizeof(*t));
	struct side a = side_of_stream(s);
	uint16_t code;
	char why[512];

	if (t == NULL) {
		refuse(s, MUX_NO_ROOM, "out of memory");
	} else if (!find_target(tab, s, t, &code, why, sizeof(why))) {
		refuse(s, code, why);
		free(t);
	} else if (!conn_dial(tab->conns, &a, mux_peer(stream_mux(s)), t, true, now)) {
		refuse(s, MUX_NO_ROOM, "out of memory");
		free(t);
	}
}

static bool
begins(const struct stream *s, const char *word)
{
	return strncmp(stream_target(s), word, strlen(word)) == 0;
}

void
serve_streams(struct serve *tab, struct mux *m, int64_t now)
{
	struct stream *s;

	while ((s = mux_accept(m)) != NULL) {
		if (begins(s, REMOTE_LISTEN) && tab->only_target)
			refuse(s, MUX_FORBIDDEN, "this end connects to one target and listens nowhere");
		else if (begins(s, REMOTE_LISTEN))
			remote_listen(tab->remotes, s);
		else if (begins(s, REMOTE_ACCEPT))
			remote_wait(tab->remotes, s);
		else
			dial(tab, s, now);
	}
}
