/* cli/connect.h - -z and -F: what follows the connect. */
#ifndef CLI_CONNECT_H
#define CLI_CONNECT_H

#include <stdbool.h>

#include "net/dial.h"

/*
 * connect_end(d, state, fdpass):
 * ${d} has ended in ${state}.  Close the connection.  If ${fdpass}, send the
 * connected socket over stdout with SCM_RIGHTS first, in blocking mode.  OpenSSH
 * expects this from a ProxyCommand with ProxyUseFdpass (ssh_config(5)).  Return
 * the exit status.  A failed connection is logged as an error if ${fdpass}, else
 * at LOG_INFO.
 */
int connect_end(struct dial *d, enum dial_state state, bool fdpass);

#endif
