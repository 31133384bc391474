/* cli/ask.h - -O: list, check and stop the relays of this user. */
#ifndef CLI_ASK_H
#define CLI_ASK_H

#include <stdbool.h>
#include <stddef.h>

/*
 * ask_relays(word, name):
 * Perform the action ${word} of -O: check, exit or stop the relay ${name}, or
 * list all.  Return an exit status; a failure was logged.
 */
int ask_relays(const char *word, const char *name);

/*
 * ask_field(report, key, nth, dst, size):
 * Copy the value of a line with ${key} to ${dst}.  ${nth} is 0 for the first
 * such line.  Return false, with ${dst} empty, if the report has no such line.
 */
bool ask_field(const char *report, const char *key, int nth, char *dst, size_t size);

/*
 * ask_is_named(report, name):
 * Return true if ${name} is an address or the port of the relay of ${report}.
 */
bool ask_is_named(const char *report, const char *name);

#endif
