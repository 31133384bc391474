/*
 * base/log.h - messages, on stderr or in a file.
 *
 * All functions keep errno.  None waits longer than 100 ms for a reader of
 * stderr.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>

/* LOG_TABLE: always written, on SIGUSR1.  The others: -q, default, -v. */
enum log_level { LOG_TABLE = -1, LOG_ERROR, LOG_NOTICE, LOG_INFO };

#define LOG_PREFIX "relay: " /* of each message */

/*
 * The arguments ${first} and later are those of the format ${format}.
 * LOG_EXITS: the function does not return.
 */
#if defined(__GNUC__)
#define LOG_PRINTF(format, first) __attribute__((__format__(__printf__, format, first)))
#define LOG_EXITS __attribute__((__noreturn__))
#else
#define LOG_PRINTF(format, first)
#define LOG_EXITS
#endif

/* log_show(level): From now on, write the messages up to ${level}. */
void log_show(enum log_level level);

/* log_shows(level): Return true if messages of ${level} are written. */
bool log_shows(enum log_level level);

/*
 * log_to_file(path, most):
 * From now on, append each message, with its time, to the file ${path}, which
 * is borrowed.  The file is created with mode 0600.  It can also be a character
 * device, or a FIFO that has a reader.  Symbolic links are not followed.
 * EEXIST: the file belongs to another user, or has several names.
 * Before the file would exceed ${most} bytes, it is renamed to PATH.old, and a
 * new file is created; ${most} 0: no limit.  A message that cannot be written
 * is lost.
 *
 * log_file():
 * Return the path of log_to_file, or NULL.
 */
int log_to_file(const char *path, long most);
const char *log_file(void);

/*
 * log_last(seconds):
 * Return the last error or notice, and its age in ${*seconds}.  "": none.
 */
const char *log_last(long *seconds);

/* log_say(level, fmt, ...): Write LOG_PREFIX, the text and a newline. */
void log_say(enum log_level level, const char *fmt, ...) LOG_PRINTF(2, 3);

/*
 * log_quote(level, line, lit):
 * Write a line without LOG_PREFIX, such as one of another program.  On a
 * terminal, its first ${lit} bytes are highlighted.
 */
void log_quote(enum log_level level, const char *line, size_t lit);

/*
 * log_failure(level, fmt, ...):
 * As log_say, for a failure that each connection can repeat.  Within a minute
 * after a message, equal ones are only counted.  With -v each one is written.
 *
 * log_counts():
 * Write the counts now, as log_say does.
 */
void log_failure(enum log_level level, const char *fmt, ...) LOG_PRINTF(2, 3);
void log_counts(void);

/*
 * log_on_terminal():
 * Return true if messages go to a terminal that can be drawn on, and the level
 * is LOG_NOTICE.  log_live with a text and log_above require it.
 *
 * log_in_colour():
 * Return true if log_on_terminal does and NO_COLOR is not set.
 *
 * log_live(text):
 * Show ${text}, which fits into a line of the terminal, below all messages
 * until the next call; "": show nothing.  Return false if nothing is shown, as
 * in the background.
 *
 * log_above(line):
 * Write ${line} above the live line.  Both may contain escape sequences.
 */
bool log_on_terminal(void);
bool log_in_colour(void);
bool log_live(const char *text);
void log_above(const char *line);

/*
 * log_output(p, n):
 * Write output of another program unchanged, where messages go.  The next
 * message begins a new line.  Return how many bytes were taken; 0: the reader
 * does not read, or ${n} is 0.  Does not wait.  Output that cannot be written
 * is lost.
 *
 * log_descriptor():
 * Return the descriptor to poll (POLLOUT) until there is room.
 */
size_t log_output(const char *p, size_t n);
int log_descriptor(void);

/*
 * log_plain(text, but):
 * In a foreign text, replace each control character except ${but} by '?', so
 * that the text cannot control a terminal.
 */
void log_plain(char *text, char but);

/*
 * log_continues(c): Is ${c} a later byte of a character of UTF-8?
 *
 * log_missing(p, n):
 * Return how many bytes the last character of the ${n} bytes at ${p} lacks.
 *
 * log_whole(p, n):
 * Return ${n} without the bytes of such a character, or ${n} if there are no
 * others.
 */
bool log_continues(char c);
size_t log_missing(const char *p, size_t n);
size_t log_whole(const char *p, size_t n);

#endif
