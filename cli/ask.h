/*
 * cli/ask.h - -O: list, check and stop the relays of this user.
 *
 * Each relay that is asked has two seconds to answer.
 */
#ifndef CLI_ASK_H
#define CLI_ASK_H

#include <stdbool.h>
#include <stddef.h>

/*
 * ask_relays(word, name):
 * "list" the relays of this user on stdout and remove dead control sockets,
 * "check" the relay ${name}: print its report, or "exit": stop it and wait
 * for its end.  Return an exit status; a failure was logged.
 */
int ask_relays(const char *word, const char *name);

/*
 * ask_field(report, key, nth, dst, size):
 * Copy the value of line number ${nth} with ${key}, from 0, to ${dst}.  Return
 * false, with ${dst} empty, if there is no such line.
 */
bool ask_field(const char *report, const char *key, int nth, char *dst, size_t size);

/*
 * ask_is_named(report, name):
 * Return true if ${name} is the process ID, an address or the port of the relay
 * of ${report}.
 */
bool ask_is_named(const char *report, const char *name);

#endif
