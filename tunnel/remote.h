/*
 * tunnel/remote.h - -R: listeners on the far side, targets on the near side.
 *
 * The near side opens a stream that asks the far side to listen ("=listen").
 * It also opens a few streams in advance, each for one connection ("=accept");
 * see PROTOCOL, section 4.  The far side never opens a stream: a connection
 * there takes a waiting one, and so needs no round trip.  If no stream waits,
 * connections stay in the listener's backlog.
 *
 *   near   a -R:        asked --addresses, an empty line--> ready
 *          a stream:    waiting --OPENED--> a connection; its target is dialed
 *   far    a listener:  queued --> look-up --> open; ends with its stream
 *          a stream:    waiting --accept--> a connection
 *
 * No function waits.  Times are microseconds of pollset_clock.
 */
#ifndef TUNNEL_REMOTE_H
#define TUNNEL_REMOTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the targets of these streams begin with: PROTOCOL, section 4. */
#define REMOTE_LISTEN "=listen "
#define REMOTE_ACCEPT "=accept "

struct command;
struct conns;
struct dial_target;
struct forward;
struct mux;
struct pollset;
struct remotes;
struct stream;

/*
 * remote_new(conns, rule, any_uid): a table without entries; NULL: no memory.
 * ${conns} and ${rule} are borrowed.  Look-ups are children of ${rule}->kids,
 * and take ${rule}->each_us at most.  far: with ${any_uid}, processes of other
 * users may connect to the listeners.
 *
 * remote_ask(tab, m, f): near: ask the far side of ${m} to listen for ${f}, and
 * serve its connections.  ${f} is borrowed as long as ${m} lives; ${f}->state
 * and ${f}->bound report the answer.  If no stream can be opened, log it and set
 * FORWARD_REFUSED.
 *
 * remote_listen(tab, s, command, now): far: listen on the end that the target
 * of ${s} names.  "@/" at the start of a path is the directory of ${command}.
 * remote_wait(tab, s): far: ${s} waits for a connection.  Both take ownership
 * of ${s}, unless they refuse it and return false.
 *
 * remote_want(tab, ps), remote_step(tab, ps): once a turn, before and after
 * poll.
 */
struct remotes *remote_new(struct conns *conns, const struct dial_target *rule, bool any_uid);
void remote_ask(struct remotes *tab, struct mux *m, struct forward *f);
bool remote_listen(
    struct remotes *tab, struct stream *s, const struct command *command, int64_t now);
bool remote_wait(struct remotes *tab, struct stream *s);
void remote_want(struct remotes *tab, struct pollset *ps);
void remote_step(struct remotes *tab, const struct pollset *ps);

#endif
