/*
 * cli/connect.h - -z and -F: connect to the target, then exit.
 */
#ifndef CLI_CONNECT_H
#define CLI_CONNECT_H

#include <stdbool.h>

struct dial_target;

/*
 * connect_once(target, fdpass, signal_fd):
 * Connect to ${target} and transfer nothing.  If ${fdpass}, send the connected
 * socket over stdout with SCM_RIGHTS, in blocking mode.  OpenSSH expects this
 * from a ProxyCommand with ProxyUseFdpass (ssh_config(5)).  ${signal_fd} is the
 * descriptor of signals_open.  Blocks until the target is reached, a limit of
 * ${target} has passed or a signal came, then until all children have ended.
 * Return the exit status.  A failed connection is logged as an error if
 * ${fdpass}, else at LOG_INFO.
 */
int connect_once(struct dial_target *target, bool fdpass, int signal_fd);

#endif
