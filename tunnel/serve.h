/*
 * tunnel/serve.h - the far side: serves the streams of the near side.
 *
 * All streams to a host name share its addresses, which are kept for a minute.
 */
#ifndef TUNNEL_SERVE_H
#define TUNNEL_SERVE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/log.h"

/* The target of a stream whose bytes are sent back: PROTOCOL, section 4. */
#define SERVE_ECHO "=echo"
/* Requests the list of sessions; a question (keeper.h) follows. */
#define SERVE_SESSIONS "=sessions "
/* Requests the state of a target, which follows: MUX_REFUSED if it is unused. */
#define SERVE_CHECK "=check/"

struct command;
struct conns;
struct dial_target;
struct mux;
struct remotes;
struct serve;
struct stream;

/*
 * serve_new(conns, remotes, target, only_target, command):
 * All arguments are borrowed.  ${target} is the target of streams that name no
 * other.  Its time limits apply to all targets.  With ${only_target}, streams
 * that name another target are refused.  ${command} serves streams that request
 * a COMMAND, and has the directory "@/".  NULL: no memory.
 *
 * serve_streams(tab, m, now):
 * Take up all streams that the peer of ${m} has opened.  Streams that cannot be
 * served are refused.  Does not wait.
 *
 * serve_refuse(s, code, why): log ${why}, reset ${s} with it, and return false.
 * serve_log_refusal(s, level, end): near: log why the far side has refused ${s},
 * which is for ${end}.  Log nothing if the link was lost.
 */
struct serve *serve_new(struct conns *conns, struct remotes *remotes, struct dial_target *target,
    bool only_target, struct command *command);
void serve_streams(struct serve *tab, struct mux *m, int64_t now);
bool serve_refuse(struct stream *s, uint16_t code, const char *why);
void serve_log_refusal(const struct stream *s, enum log_level level, const char *end);

#endif
