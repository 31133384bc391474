/* check_small.c - small.c's printf beside the system's; needs no room */
#include "check.h"

#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>

#define vsnprintf small_vsnprintf
#define snprintf small_snprintf
#define printf small_printf
#define dprintf small_dprintf
#include "../small.c"
#undef vsnprintf
#undef snprintf
#undef printf
#undef dprintf

/* Both must write the same and return the same, whatever the room. */
#define SAME(...) do { \
		char ours[64], theirs[64]; \
		size_t room; \
		for (room = 0; room <= sizeof(ours); room++) { \
			memset(ours, '#', sizeof(ours)); \
			memset(theirs, '#', sizeof(theirs)); \
			ck_assert_int_eq(small_snprintf(ours, room, __VA_ARGS__), snprintf(theirs, room, __VA_ARGS__)); \
			ck_assert_msg(memcmp(ours, theirs, sizeof(ours)) == 0, "%.63s, not %.63s", ours, theirs); \
		} \
	} while (0)

START_TEST(integers)
{
	SAME("%d %d %d %d", 0, -1, INT_MAX, INT_MIN);
	SAME("%u %u", 0u, UINT_MAX);
	SAME("%ld %ld %lu", LONG_MIN, LONG_MAX, ULONG_MAX);
	SAME("%lld %lld %llu", LLONG_MIN, LLONG_MAX, ULLONG_MAX);
	SAME("%zu", SIZE_MAX);
	SAME("%x %lx %llx", 0xbeefu, ULONG_MAX, 0ull);
	SAME("%03o|%o|%lo", 7u, 0755u, ULONG_MAX);
	SAME("%5d|%5d|%1d", -12, 7, 1234);
	SAME("%08llx|%2u|%02x", 0xabcull, 3u, 255u);
}
END_TEST

START_TEST(texts)
{
	SAME("%s", "");
	SAME("[%s] [%s]", "one", "two");
	SAME("%.3s|%.0s|%.9s", "abcdef", "abc", "abc");
	SAME("%.*s|%.*s", 2, "abc", -1, "abc");
	SAME("%6s|%-6s|%-2s|%c%c", "abc", "abc", "abc", 'x', '%');
	SAME("no conversion, 100%%");
}
END_TEST

/* What stands behind a precision is not read: it need not end. */
START_TEST(unended_text)
{
	char text[3] = { 'a', 'b', 'c' };

	SAME("%.3s", text);
}
END_TEST

START_TEST(seconds)
{
	SAME("%.3f|%.3f|%.3f", 0.0, 1.0006, 86400.9996);
	SAME("%.1f|%.0f|%.3f", 12.34, 2.7, -1.25);
}
END_TEST

START_TEST(unknown_is_copied)
{
	char got[32];

	ck_assert_int_eq(small_snprintf(got, sizeof(got), "%3q %", 1), 5);
	ck_assert_str_eq(got, "%3q %");
}
END_TEST

START_TEST(to_a_descriptor)
{
	char got[16] = "";
	int fd[2];

	ck_assert_int_eq(pipe(fd), 0);
	ck_assert_int_eq(small_dprintf(fd[1], "%ld\n", 4711L), 5);
	ck_assert_int_eq(read(fd[0], got, sizeof(got)), 5);
	ck_assert_str_eq(got, "4711\n");
}
END_TEST

TESTS("small")
{
	tcase_add_test(tc, integers);
	tcase_add_test(tc, texts);
	tcase_add_test(tc, unended_text);
	tcase_add_test(tc, seconds);
	tcase_add_test(tc, unknown_is_copied);
	tcase_add_test(tc, to_a_descriptor);
}
