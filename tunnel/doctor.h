/*
 * tunnel/doctor.h - each step is tried and reported on stdout.
 */
#ifndef TUNNEL_DOCTOR_H
#define TUNNEL_DOCTOR_H

#include <stdbool.h>

/*
 * doctor_visit(hops, n, rsh): try hop after hop; false: one of them failed, or a signal came. Waits.
 * doctor_say(good, hop, fmt, ...): report of ${hop}, in the same form.
 */
bool doctor_visit(char *const hops[], int n, const char *rsh);
void doctor_say(bool good, const char *hop, const char *fmt, ...);

#endif
