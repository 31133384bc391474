/*
 * tunnel/command.h - far: starts and watches the COMMAND of a tunnel.
 *
 * The near side (run.h) requests it with a stream to COMMAND_TARGET, which
 * carries records (record.h).
 *
 *   none --stream--> words --RUN--> runs --stop, or its end--> ending --> over
 *
 * COMMAND is started from the user's login shell, in a session of its own, with
 * /dev/null as its stdin.  Its output never blocks it: if the output cannot be
 * sent, the last COMMAND_OUTPUT_MOST bytes are kept.
 *
 * COMMAND is stopped when its stream ends, or when relay stops.  Its process
 * group receives SIGTERM, and 10 s later SIGKILL.  So do processes that have
 * left the group and have become children of relay, and those that COMMAND has
 * left running when it ends by itself.
 *
 * The tunnel has a directory (dir.h) from command_open until command_free.
 *
 * Times are microseconds of pollset_clock.  No function waits, except for a
 * file system.
 */
#ifndef TUNNEL_COMMAND_H
#define TUNNEL_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define COMMAND_TARGET "=command"
#define COMMAND_WORDS_MOST 65536         /* bytes of all words, a NUL after each */
#define COMMAND_OUTPUT_MOST (256 * 1024) /* bytes that wait on the far side */

/* Why command_resolve has failed. */
#define COMMAND_UNRESOLVED "this end has no directory @/, or the path is too long"

struct children;
struct command;
struct pollset;
struct stream;

/*
 * command_new(kids): no COMMAND yet; NULL: no memory.  ${kids} is borrowed.
 *
 * command_open(c, s): serve the stream ${s}, and take ownership of it.  False:
 * it was refused.  ${c} never serves a second one.
 *
 * command_resolve(c, text, dst, size): dir_resolve with the directory of ${c}.
 *
 * command_is_line(word): Is ${word}, the only word, a line for the login shell?
 *
 * command_stop(c, now): stop COMMAND.
 * command_signal(c, now): the same, for a signal.  Another one after a second or
 * more sends SIGKILL at once.  At the end of a session, systemd sends SIGTERM
 * and SIGHUP together.
 *
 * command_want(c, ps), command_step(c, ps): once a turn, before and after poll
 * and spawn_reap.
 *
 * command_free(c): remove the directory.  A failure is logged.
 *
 * ${c} can be NULL: then streams are refused, and "@/" is not resolved.
 */
struct command *command_new(struct children *kids);
bool command_open(struct command *c, struct stream *s);
bool command_is_line(const char *word);
bool command_resolve(const struct command *c, const char *text, char *dst, size_t size);
void command_stop(struct command *c, int64_t now);
void command_signal(struct command *c, int64_t now);
void command_want(struct command *c, struct pollset *ps);
void command_step(struct command *c, const struct pollset *ps);
void command_free(struct command *c);

#endif
