/*
 * cli/connect.c - -z and -F: connect to the target, then exit.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "base/poll.h"
#include "base/signals.h"
#include "net/dial.h"
#include "net/endpoint.h"
#include "spawn.h"
#include "relay.h"
#include "cli/connect.h"

static int
pass_descriptor(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	/* ssh shares the file status flags.  It expects a blocking socket. */
	if (flags == -1 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) == -1)
		return -1;
	return os_send_fds(STDOUT_FILENO, "", 1, &fd, 1) == 1 ? 0 : -1;
}

static int
use_connection(struct dial *d, bool fdpass)
{
	int fd = dial_take(d), status = STATUS_OK;

	if (fdpass && pass_descriptor(fd) == -1) {
		log_say(LOG_ERROR,
		    "cannot send the socket over stdout: %s; -F needs ssh as its parent, with "
		    "ProxyCommand and ProxyUseFdpass yes",
		    strerror(errno));
		status = STATUS_CONNECT;
	}
	close(fd);
	return status;
}

static int
report_failure(const struct dial *d, bool fdpass)
{
	char why[ENDPOINT_NAME + 512];

	log_say(fdpass ? LOG_ERROR : LOG_INFO, "%s", dial_explain(d, why, sizeof(why)));
	return fdpass ? dial_status(d) : STATUS_CONNECT;
}

/* Wait for an event.  Return the signal that stops relay, or 0. */
static int
wait_for_event(struct pollset *ps, struct children *kids, int signal_fd)
{
	int sig;

	pollset_add(ps, signal_fd, POLLIN);
	if (pollset_wait(ps) == -1) {
		log_say(LOG_ERROR, "poll: %s", strerror(errno));
		exit(STATUS_SYSTEM);
	}
	do
		sig = signals_take();
	while (sig == SIGCHLD || sig == SIGUSR1);
	spawn_reap(kids);
	return sig;
}

/* Without this, the child of a name look-up could outlive relay. */
static void
end_children(struct pollset *ps, struct children *kids, int signal_fd)
{
	pollset_begin(ps);
	spawn_hurry(kids, ps->now);
	while (spawn_turn(kids, ps), kids->first != NULL) {
		wait_for_event(ps, kids, signal_fd);
		pollset_begin(ps);
	}
}

int
connect_once(struct dial_target *target, bool fdpass, int signal_fd)
{
	struct dial *d = dial_start(target, pollset_clock());
	enum dial_state state = DIAL_BUSY;
	struct pollset ps = { .n = 0 };
	int sig = 0, status;

	if (d == NULL) {
		log_say(LOG_ERROR, "cannot connect: %s", strerror(errno));
		return STATUS_SYSTEM;
	}
	pollset_begin(&ps);
	while (sig == 0 && (state = dial_step(d, &ps)) == DIAL_BUSY) {
		pollset_begin(&ps);
		dial_want(d, &ps);
		spawn_turn(target->kids, &ps);
		sig = wait_for_event(&ps, target->kids, signal_fd);
	}
	if (sig != 0)
		status = STATUS_SIGNAL + sig;
	else if (state == DIAL_DONE)
		status = use_connection(d, fdpass);
	else
		status = report_failure(d, fdpass);
	dial_free(d, ps.now);
	end_children(&ps, target->kids, signal_fd);
	pollset_free(&ps);
	return status;
}
