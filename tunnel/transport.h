/*
 * tunnel/transport.h - a channel of a link: a command's stdin and stdout, or
 * relay's own.  It carries one slot of the mux.
 *
 *   dialing --exec--> open --no reader--> draining --end--> closed
 *
 * A transport pulls bytes from the mux only when the channel has taken all
 * earlier ones.  So the mux decides as late as possible which bytes are next.
 *
 * No function waits.  Times are microseconds of pollset_clock.
 */
#ifndef TUNNEL_TRANSPORT_H
#define TUNNEL_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bootstrap;
struct dial_target;
struct hops;
struct mux;
struct pollset;
struct transport;

#define TRANSPORT_NEVER_RAN (-2) /* an exit status */

/*
 * transport_near(m, slot, target, bootstrap, hops, quiet, now):
 * Run the command ${target} as the channel of ${slot}.  If ${bootstrap} is not
 * NULL, it starts the far end through ${hops}, and the command's stderr is
 * logged: at LOG_INFO if ${quiet}, else at LOG_ERROR.  All pointers are borrowed
 * until transport_free.  NULL: no memory.
 *
 * transport_far(m):
 * Use stdin and stdout as the channel of slot 0.  Later output to stdout goes
 * to stderr.  Return NULL after an error, which was logged.  It is an error if
 * stdin is a terminal, or stdout a terminal that changes bytes.  Then the token
 * of PROTOCOL, section 1, is sent to the peer.
 *
 * transport_fds(m, slot, in, out):
 * Use the descriptors ${in} and ${out}, which belong to the transport from then
 * on.  NULL: no memory; they are closed.
 *
 * transport_want(t, ps): add to ${ps} what ${t} waits for.
 * transport_step(t, ps): read the channel and feed the mux.  At the end of the
 * channel, call mux_lost.
 * transport_flush(t, now): write what the channel takes.
 * transport_shut(t): close the channel.  The command may go on.
 * transport_free(t, now): close the channel and release the command.  Bytes that
 * were not flushed are lost.  NULL is harmless.
 */
struct transport *transport_near(struct mux *m, unsigned slot, struct dial_target *target,
    struct bootstrap *bootstrap, const struct hops *hops, bool quiet, int64_t now);
struct transport *transport_far(struct mux *m);
struct transport *transport_fds(struct mux *m, unsigned slot, int in, int out);
void transport_want(struct transport *t, struct pollset *ps);
void transport_step(struct transport *t, const struct pollset *ps);
void transport_flush(struct transport *t, int64_t now);
void transport_shut(struct transport *t);
void transport_free(struct transport *t, int64_t now);

/*
 * transport_drained(t): nothing is left to write, or nothing can be written.
 * transport_is_closed(t): the channel has ended, or was shut.
 * transport_moved_at(t): when the last byte was read or written.  0: none was.
 * transport_readable(t, ps): bytes or EOF were there to be read in this turn.
 * transport_exit_status(t): the exit status of the command; -1 while it runs.
 * TRANSPORT_NEVER_RAN: no command was started, or exec failed.
 * transport_unsent(t): bytes that the command has not read; 0: not known.
 *
 * transport_last_line(t):
 * Read what is left on the command's stderr, at most as much as a pipe holds.
 * Return its last line that is not empty, or "".  ${t} owns it.  If a relay is
 * the ProxyCommand of ssh, its last message has the cause of a failure.  After
 * it, ssh reports the end of the ProxyCommand; these lines are not returned.
 *
 * transport_drop_line(t):
 * A line that shows why a hop cannot be reached is logged after up to 2 s.  Do
 * not log the last line, because another message contains it.  Return false if
 * it was logged already.
 *
 * transport_set_quiet(t, quiet): log the command's stderr at LOG_INFO (true) or
 * LOG_ERROR (false) from now on.
 */
bool transport_drained(const struct transport *t);
bool transport_is_closed(const struct transport *t);
int64_t transport_moved_at(const struct transport *t);
bool transport_readable(const struct transport *t, const struct pollset *ps);
int transport_exit_status(const struct transport *t);
size_t transport_unsent(const struct transport *t);
const char *transport_last_line(struct transport *t);
bool transport_drop_line(struct transport *t);
void transport_set_quiet(struct transport *t, bool quiet);

#endif
