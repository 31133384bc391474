/*
 * tunnel/tunnel.h - the life of a link, on either side.
 *
 *   starting --HELLO read--> up --stop, connection ended--> stopping --> over
 *   starting --channel ended--> failed --cause logged--> over, or backoff
 *   up --channel ended--> over, or backoff --retry_at--> starting
 *
 * On the near side the link leads through hops (-L, -R, -D, -W), or the user's
 * command carries it (-m).  Only a link through hops reconnects.  While it is
 * down, the listeners stay open, and new connections wait in the backlog.  If
 * both sides keep a session, its streams wait too; if not, they are reset.
 *
 * The far side of a session is in the state backoff while it has no channel.
 *
 * struct tunnel is opaque and lasts as long as the process.  Only tunnel_start
 * waits.  Times are microseconds of pollset_clock.
 */
#ifndef TUNNEL_TUNNEL_H
#define TUNNEL_TUNNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mux/mux.h"

struct bootstrap_facts;
struct command;
struct conns;
struct dial_target;
struct forward;
struct hops;
struct pollset;
struct tunnel;

enum tunnel_state {
	TUNNEL_OVER,     /* not started yet, or ended */
	TUNNEL_STARTING, /* the channel is being made; until HELLO was read */
	TUNNEL_FAILED,   /* near: a start has failed; its command may still run */
	TUNNEL_UP,
	TUNNEL_STOPPING, /* BYE is being sent */
	TUNNEL_BACKOFF   /* the channel was lost; near: the next start is due later */
};

/* All pointers are borrowed. */
struct tunnel_config {
	enum mux_role role;
	struct conns *conns;

	/* near: the command that carries the link.  far: the target of streams
	 * that name no other; its limits and kids also apply to look-ups. */
	struct dial_target *target;

	const struct hops *hops;       /* near: the hops; NULL: -m */
	const struct hops *unattended; /* with hops: for logins that no person watches */
	const char *self, *far_path;   /* with hops: see bootstrap.h */
	const char *far_options;       /* with hops: of the far relay */
	const char *join_options;      /* of a far relay that continues a session */
	unsigned channels;             /* with hops: at most; 0: 1 */
	int64_t keep;                  /* seconds that a session lasts without a channel; 0: none */
	bool probing;                  /* near: for -n, see tunnel_set_hops */
	bool one_shot;                 /* near: the link ends with its only connection */
	bool only_target;              /* far: refuse streams that name another target */
	bool any_uid;                  /* far: other users may connect to listeners of -R */
	bool runs_command;             /* near: a COMMAND; the link ends with its session */
	struct command *command;       /* far: for streams that request a COMMAND; NULL: none */
};

/*
 * tunnel_new(config): a tunnel that is not started.  NULL: no memory.
 * tunnel_start(t, now): start it.  Return an exit status; a failure was logged.
 * Near: the binaries to copy are read.  Far, with a session: fork and return in
 * the child; the parent waits and exits.
 * tunnel_stop(t, status): end the link with ${status}.  NULL is harmless.
 * tunnel_clean(t): remove the files of ${t}, as the last call.  NULL is
 * harmless.
 *
 * Once a turn, in this order:
 *
 * tunnel_want(t, ps): make the transitions that are due, and add to ${ps} what
 * ${t} waits for.
 * tunnel_step(t, ps): read the channels.  Return true if the link came up.
 * tunnel_serve(t, ps): serve new streams, and activate the connections whose
 * streams have changed.  Before conn_step.
 * tunnel_flush(t, status): write to the channels.  After conn_sweep, which
 * returned ${status}.
 */
struct tunnel *tunnel_new(const struct tunnel_config *config);
int tunnel_start(struct tunnel *t, int64_t now);
void tunnel_stop(struct tunnel *t, int status);
void tunnel_clean(struct tunnel *t);
void tunnel_want(struct tunnel *t, struct pollset *ps);
bool tunnel_step(struct tunnel *t, const struct pollset *ps);
void tunnel_serve(struct tunnel *t, const struct pollset *ps);
void tunnel_flush(struct tunnel *t, int status);

/*
 * For -n, which reports failures itself.  With probing, the cause of a failed
 * start is logged at LOG_INFO, and the tunnel does not reconnect.
 *
 * tunnel_set_hops(t, hops): TUNNEL_OVER: forget the last link, and lead the
 * next one through ${hops}, which is borrowed.  False: no memory.
 * tunnel_bootstrap(t): the results of the last start.
 * tunnel_banner(t, n): the text before the far magic, without the answers to
 * bootstrap: a string of ${*n} bytes.  ${t} owns it.
 * tunnel_loss(t): why the link ended, or could not be made.
 */
bool tunnel_set_hops(struct tunnel *t, const struct hops *hops);
const struct bootstrap_facts *tunnel_bootstrap(const struct tunnel *t);
const char *tunnel_banner(struct tunnel *t, size_t *n);
const char *tunnel_loss(const struct tunnel *t);

/*
 * tunnel_want_up(t): TUNNEL_BACKOFF: a connection waits, so the next start is
 * earlier.
 * tunnel_wanted(t): tunnel_want_up was called after the last start.
 * tunnel_awaits_login(t): TUNNEL_BACKOFF: the last login was refused.  The next
 * one follows tunnel_login.
 * tunnel_login(t, now): a person requests another login; ssh may ask questions.
 * tunnel_try(t, f, quiet): near: request the listener of a -R (remote_ask), or
 * connect to the target of another ${f} once (probe_target).
 * tunnel_check(t, f): near: log if no process listens on the target of ${f}.
 */
void tunnel_want_up(struct tunnel *t);
bool tunnel_wanted(const struct tunnel *t);
bool tunnel_awaits_login(const struct tunnel *t);
void tunnel_login(struct tunnel *t, int64_t now);
void tunnel_try(struct tunnel *t, struct forward *f, bool quiet);
void tunnel_check(struct tunnel *t, struct forward *f);

/*
 * tunnel_state(t): its state.  NULL: TUNNEL_OVER.
 * tunnel_carries(t): the link is up, and at least one channel has not ended.
 * tunnel_status(t): TUNNEL_OVER: the exit status of relay.
 * tunnel_connects(t): how many times the link came up.
 * tunnel_resumed(t): TUNNEL_UP: the channel continues an earlier session.
 * tunnel_can_ask(t): TUNNEL_STARTING: the login may ask for a password.
 * tunnel_copied(t): TUNNEL_STARTING: bytes of the upload that were sent.
 * tunnel_next_start(t): TUNNEL_BACKOFF: when the next login is due.
 * tunnel_name(t): the last hop as the user wrote it, or the far host's name.
 * tunnel_mux(t): TUNNEL_UP: the mux of the link.
 * tunnel_channel(t, nth, dst, size): the figures of a channel; see channels.h.
 * tunnel_table(t, now): log the state and the traffic, for SIGUSR1.
 */
enum tunnel_state tunnel_state(const struct tunnel *t);
bool tunnel_carries(const struct tunnel *t);
int tunnel_status(const struct tunnel *t);
unsigned tunnel_connects(const struct tunnel *t);
bool tunnel_resumed(const struct tunnel *t);
bool tunnel_can_ask(const struct tunnel *t);
size_t tunnel_copied(const struct tunnel *t);
int64_t tunnel_next_start(const struct tunnel *t);
const char *tunnel_name(const struct tunnel *t);
struct mux *tunnel_mux(const struct tunnel *t);
bool tunnel_channel(const struct tunnel *t, unsigned nth, char *dst, size_t size);
void tunnel_table(const struct tunnel *t, int64_t now);

#endif
