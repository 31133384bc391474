/*
 * base/log.h - lines for people on stderr.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stddef.h>

enum log_level { LOG_ERROR, LOG_NOTICE, LOG_INFO }; /* -q, default, -v */

#if defined(__GNUC__)
#define LOG_FORMAT __attribute__((format(printf, 2, 3)))
#else
#define LOG_FORMAT
#endif

/*
 * log_show(level): from now on, show what is at most ${level}.
 * log_say(level, fmt, ...): one line on stderr; keeps errno.  log_quote(level, line): the same in the words of another program.
 * log_plain(text, n, but): in words of strangers, make each control character a '?', but for ${but}: none may steer a terminal.
 * Whole ones of UTF-8 stay, and what is neither that nor a control character.
 * log_status(text): on a terminal, show at LOG_NOTICE what is being done, until the next line or status; elsewhere it is a line.
 */
void log_show(enum log_level level);
void log_quote(enum log_level level, const char *line);
void log_status(const char *text);
void log_plain(char *text, size_t n, char but);
void log_say(enum log_level level, const char *fmt, ...) LOG_FORMAT;

#endif
