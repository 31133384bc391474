/* cli/connect.c - -z and -F: what follows the connect. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "net/dial.h"
#include "net/endpoint.h"
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

int
connect_end(struct dial *d, enum dial_state state, bool fdpass)
{
	char why[ENDPOINT_NAME + 512];
	int fd, status = STATUS_OK;

	if (state == DIAL_FAILED) {
		log_say(fdpass ? LOG_ERROR : LOG_INFO, "%s", dial_explain(d, why, sizeof(why)));
		return fdpass ? dial_status(d) : STATUS_CONNECT;
	}
	fd = dial_take(d);
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
