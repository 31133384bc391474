/* check_tree.c - making a directory, and removing it and what is in it. */
#include <sys/stat.h>

#include "t/all.h"
#include "t/check.h"

static char top[64];

static void
sh(const char *line)
{
	char command[512];

	snprintf(command, sizeof(command), "cd %s && %s", top, line);
	ck_assert_int_eq(system(command), 0);
}

static void
begin(void)
{
	snprintf(top, sizeof(top), "/tmp/relay-check-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(top));
}

static bool
removed(const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", top, name);
	return tree_remove(path);
}

START_TEST(a_new_directory_has_the_name_of_its_id)
{
	static const unsigned char id[TREE_ID] = { 0, 1, 0x7f, 0x80, 0xff, 10, 16, 99 };
	unsigned char random[TREE_ID];
	char one[64], other[64], small[20];
	struct stat st;

	tree_name(one, sizeof(one), "/tmp/a-", id);
	ck_assert_str_eq(one, "/tmp/a-00017f80ff0a1063");
	ck_assert(tree_is_name(one, "/tmp/a-"));
	ck_assert(!tree_is_name(one, "/tmp/a") && !tree_is_name(one, "/tmp/a-0"));
	ck_assert(!tree_is_name("/tmp/a-00017f80ff0a106g", "/tmp/a-"));
	ck_assert(!tree_is_name("/tmp/a-00017f80ff0a10634", "/tmp/a-"));
	tree_name(small, sizeof(small), "/tmp/a-", id);
	ck_assert_str_eq(small, "/tmp/a-00017f80ff0a");
	ck_assert(os_random(random, sizeof(random)));
	ck_assert(tree_make(one, sizeof(one), "/tmp/relay-check-", random));
	ck_assert(tree_is_name(one, "/tmp/relay-check-"));
	ck_assert(!tree_make(other, sizeof(other), "/tmp/relay-check-", random));
	ck_assert_int_eq(errno, EEXIST);
	ck_assert_str_eq(one, other);
	ck_assert_int_eq(stat(one, &st), 0);
	ck_assert_int_eq(st.st_mode & 07777, 0700);
	ck_assert(tree_remove(one));
	ck_assert(!tree_make(one, sizeof(one), "/tmp/none/x-", id));
	ck_assert_int_eq(errno, ENOENT);
}
END_TEST

START_TEST(all_that_is_in_it_goes)
{
	begin();
	sh("mkdir -p a/b/c a/ro; touch a/x a/b/.y a/b/c/z a/ro/r; mkfifo a/p; chmod 500 a/ro; chmod 0 a/x");
	ck_assert(removed("a"));
	sh("test ! -e a");
	ck_assert(tree_remove(top));
	ck_assert_int_eq(access(top, F_OK), -1);
}
END_TEST

START_TEST(links_are_not_followed)
{
	begin();
	sh("mkdir a kept; touch kept/x; ln -s ../kept a/dir; ln -s ../kept/x a/file; ln -s . a/loop; ln -s a link; ln kept/x a/hard");
	ck_assert(!removed("link"));
	sh("test -L link && test -e a/hard");
	ck_assert(removed("a"));
	sh("test -e kept/x && test ! -e a");
	ck_assert(tree_remove(top));
}
END_TEST

START_TEST(what_is_no_directory_stays)
{
	begin();
	sh("touch x");
	ck_assert(!removed("x"));
	ck_assert_int_eq(errno, ENOTDIR);
	ck_assert(!removed("none"));
	ck_assert_int_eq(errno, ENOENT);
	ck_assert(tree_remove(top));
}
END_TEST

START_TEST(the_depth_is_limited)
{
	char line[128];
	int fds = fds_open();

	begin();
	snprintf(line, sizeof(line), "i=0; while [ $i -lt %d ]; do mkdir d && cd d && i=$((i + 1)) || exit; done", TREE_DEPTH + 1);
	sh(line);
	ck_assert(!tree_remove(top));
	ck_assert_int_eq(errno, ELOOP);
	ck_assert_int_eq(fds_open(), fds);
	sh("rm -r d");
	ck_assert(tree_remove(top));
}
END_TEST

TESTS("tree")
{
	tcase_add_test(tc, a_new_directory_has_the_name_of_its_id);
	tcase_add_test(tc, all_that_is_in_it_goes);
	tcase_add_test(tc, links_are_not_followed);
	tcase_add_test(tc, what_is_no_directory_stays);
	tcase_add_test(tc, the_depth_is_limited);
}
