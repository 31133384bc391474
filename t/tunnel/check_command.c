/* check_command.c - a COMMAND: the near side (run.h) and the far side. */
#include <sys/stat.h>
#include <sys/wait.h>

#include "mux/frame.h"
#include "t/tunnel/sides.h"
#include "tunnel/command.h"
#include "tunnel/record.h"
#include "tunnel/dir.h"
#include "tunnel/run.h"

static struct run *r;
static struct stream *raw; /* in place of ${r} */
static bool near_stops;    /* the near side reads nothing */

static void
turn_both(void)
{
	turn();
	pollset_begin(&ps);
	spawn_turn(&kids, &ps);
	command_want(command, &ps);
	run_want(r, &ps);
	pollset_until(&ps, ps.now + 2000);
	ck_assert_int_eq(pollset_wait(&ps), 0);
	spawn_reap(&kids);
	command_step(command, &ps);
	if (!near_stops)
		run_step(r);
}

/* turn() has a pollset of its own, so the command gets another one. */
#define RUN_UNTIL(cond) UNTIL(cond, turn_both())

static void
begin_command(void)
{
	unsetenv("SHELL");
	command = command_new(&kids);
	ck_assert_ptr_nonnull(command);
	begin();
}

static void
run_words(char *const *words)
{
	begin_command();
	r = run_new(words);
	ck_assert_ptr_nonnull(r);
	ck_assert_int_eq(run_life(r), RUN_IDLE);
	ck_assert(run_start(r, link_near));
}

/* A line for the shell. */
static void
run_line(const char *line)
{
	static char copy[1024];
	static char *words[2] = { copy };

	snprintf(copy, sizeof(copy), "%s", line);
	run_words(words);
}

static void
end_command(void)
{
	if (raw != NULL)
		stream_release(raw);
	RUN_UNTIL(kids.first == NULL && link_streams() == 0);
	command_free(command);
	command = NULL;
	log_show(LOG_NOTICE);
	free(r);
	r = NULL;
	nothing_is_left();
}

static void
ends_with(const char *how)
{
	RUN_UNTIL(run_life(r) != RUN_ALIVE);
	ck_assert_int_eq(run_life(r), RUN_ENDED);
	ck_assert_str_eq(run_reason(r), how);
	end_command();
}

START_TEST(words_reach_the_program)
{
	char *words[] = { (char *)"printf", (char *)"<%s>", (char *)"", (char *)"a b", (char *)"it's", (char *)"$x\n",
		(char *)"@/s", (char *)"x=@/y", (char *)"x@/y", NULL };
	char path[64];

	run_words(words);
	ck_assert_str_eq(run_name(r), "printf");
	RUN_UNTIL(run_life(r) != RUN_ALIVE);
	ck_assert(command_resolve(command, "@/", path, sizeof(path)));
	snprintf(why, sizeof(why), "<><a b><it's><$x\n><%ss><x=%sy><x@/y>", path, path);
	HAS(captured(), why);
	ends_with("exited with status 0");
	ck_assert_int_eq(access(path, F_OK), -1);
}
END_TEST

static const struct {
	const char *line, *output, *end;
} lines[] = {
	{ "echo out; echo err >&2; exit 3", "out\nerr\n", "exited with status 3" },
	{ "printf part; kill -9 $$", "part", "was ended by signal 9 (Killed)" },
	{ "cat; echo $0 $RELAY_COMMAND- >&2 ; exec >&- 2>&-; sleep 0.05; exit 9", "-sh -\n", "exited with status 9" },
	{ "sleep 100 & echo left", "left\n", "exited with status 0" },
	{ "test -d $RELAY_DIR && cd $RELAY_DIR && umask && stat -c %a .", "700\n", "exited with status 0" },
};

START_TEST(a_line_runs_in_the_login_shell)
{
	run_line(lines[_i].line);
	ck_assert_str_eq(run_name(r), "the command");
	RUN_UNTIL(run_life(r) != RUN_ALIVE);
	HAS(captured(), lines[_i].output);
	ends_with(lines[_i].end);
}
END_TEST

START_TEST(a_stop_is_sigterm_and_then_sigkill)
{
	run_line(_i ? "trap 'echo term' TERM; echo on; while :; do sleep 0.05; done" :
		      "trap 'echo term; exit 7' TERM; echo on; while :; do sleep 0.05; done");
	RUN_UNTIL(strstr(captured(), "on\n") != NULL);
	run_stop(r);
	RUN_UNTIL(strstr(captured(), "term\n") != NULL);
	if (_i)
		run_stop(r);
	ends_with(_i ? "was ended by signal 9 (Killed)" : "exited with status 7");
}
END_TEST

/* 0: the near side leaves; 1: the far relay is stopped, by two signals that come
 * together and a later one */
START_TEST(it_ends_with_its_stream_and_with_its_relay)
{
	run_line(_i ? "trap 'echo term' TERM; echo on; while :; do sleep 0.05; done" : "echo on; exec sleep 100");
	RUN_UNTIL(strstr(captured(), "on\n") != NULL);
	if (_i == 0) {
		link_held = true;
		link_cut();
	} else {
		command_stop(command, pollset_clock());
		command_signal(command, pollset_clock());
		command_signal(command, pollset_clock());
		RUN_UNTIL(strstr(captured(), "term\n") != NULL);
		command_signal(command, pollset_clock() + 1000000);
	}
	RUN_UNTIL(kids.first == NULL);
	RUN_UNTIL(run_life(r) != RUN_ALIVE);
	ck_assert_int_eq(run_life(r), _i ? RUN_ENDED : RUN_REFUSED);
	end_command();
}
END_TEST

/*
 * The near side reads nothing: COMMAND ends, and the newest bytes are kept.
 * ${_i} 1: UTF-8, which is kept from the start of a character.
 */
START_TEST(output_never_blocks_it)
{
	static char text[2000000];
	char *at;
	ssize_t n;

	near_stops = true;
	run_line(_i ? "awk 'BEGIN { for (i = 0; i < 1000000; i++) printf \"\\342\\202\\254\" }'; echo xxlast" :
		 "i=0; while [ $i -lt 30 ]; do head -c 100000 /dev/zero | tr '\\0' x; i=$((i+1)); done; echo last");
	RUN_UNTIL(kids.first != NULL);
	RUN_UNTIL(kids.first == NULL);
	near_stops = false;
	RUN_UNTIL(run_life(r) != RUN_ALIVE);
	n = pread(2, text, sizeof(text) - 1, 0);
	ck_assert_int_gt(n, COMMAND_OUTPUT_MOST);
	text[n] = '\0';
	ck_assert_ptr_nonnull(strstr(text, "xxlast\n"));
	at = strstr(text, " bytes of the output of the command were dropped");
	ck_assert_ptr_nonnull(at);
	ck_assert(!log_continues(strchr(at, '\n')[1]));
	ends_with("exited with status 0");
}
END_TEST

START_TEST(it_runs_once_and_only_if_allowed)
{
	if (_i == 0)
		begin();
	else
		begin_command();
	r = run_new((char *[]){ (char *)"true", NULL });
	ck_assert(run_start(r, link_near));
	RUN_UNTIL(run_life(r) != RUN_ALIVE);
	if (_i == 0) {
		ck_assert_int_eq(run_life(r), RUN_REFUSED);
		HAS(run_reason(r), "without -r");
	} else {
		raw = open_stream(COMMAND_TARGET);
		RUN_UNTIL(stream_is_closed(raw));
		ck_assert_int_eq(stream_code(raw), MUX_FORBIDDEN);
	}
	end_command();
}
END_TEST

static void
put_head(unsigned type, size_t length)
{
	unsigned char head[RECORD_HEAD];

	frame_put(head, type, 1);
	frame_put(head + 1, length, RECORD_HEAD - 1);
	ck_assert(buf_put(stream_tx(raw), head, sizeof(head)));
}

/* 0: unknown records, and a RUN without words; 1: too many bytes; 2: EOF */
START_TEST(odd_records_are_harmless)
{
	static char many[70000];

	begin_command();
	raw = open_stream(COMMAND_TARGET);
	put_head(99, 5);
	put_stream(raw, "abcde");
	if (_i == 0) {
		put_head(RECORD_RUN, 0);
		put_head(RECORD_WORD, 1);
		put_stream(raw, "x");
		put_head(RECORD_RUN, 0);
		stream_push(raw);
		RUN_UNTIL(stream_eof_read(raw));
	} else if (_i == 1) {
		put_head(RECORD_WORD, sizeof(many));
		ck_assert(buf_put(stream_tx(raw), many, sizeof(many)));
		stream_push(raw);
		RUN_UNTIL(stream_is_closed(raw));
		HAS(stream_reason(raw), "too long");
	} else {
		put_head(RECORD_STOP, 0);
		stream_shutdown(raw);
		RUN_UNTIL(stream_is_closed(raw));
	}
	end_command();
}
END_TEST

/* A child makes directories; the one of the parent is locked. */
static int
child_status(const struct dir *d, bool leaves, char *path)
{
	int fd[2], status;
	struct dir other;
	pid_t pid;

	ck_assert_int_eq(pipe(fd), 0);
	pid = fork();
	if (pid == 0) {
		if (!dir_make(&other) || access(d->path, F_OK) == -1 || write(fd[1], other.path, DIR_SIZE) != DIR_SIZE)
			_exit(1);
		if (!leaves)
			dir_remove(&other);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(read(fd[0], path, DIR_SIZE), DIR_SIZE);
	close(fd[0]);
	close(fd[1]);
	return status;
}

START_TEST(a_directory_that_was_left_is_removed)
{
	char left[DIR_SIZE], other[DIR_SIZE];
	struct stat st;
	struct dir d;

	ck_assert(dir_make(&d));
	ck_assert(stat(d.path, &st) == 0 && (st.st_mode & 07777) == 0700);
	ck_assert_int_eq(child_status(&d, true, left), 0);
	ck_assert_int_eq(access(left, F_OK), 0);
	ck_assert_int_eq(child_status(&d, false, other), 0);
	ck_assert_int_eq(access(left, F_OK), -1);
	ck_assert_int_eq(access(other, F_OK), -1);
	dir_remove(&d);
	ck_assert_int_eq(access(d.path, F_OK), -1);
	ck_assert_int_eq(d.fd, -1);
	dir_remove(&d);
}
END_TEST

START_TEST(only_the_mark_is_resolved)
{
	char dst[64];
	struct dir none = { .fd = -1 }, d = { .path = "/tmp/d", .fd = -1 };

	ck_assert(dir_resolve(&none, "/a/@/b", dst, sizeof(dst)));
	ck_assert_str_eq(dst, "/a/@/b");
	ck_assert(!dir_resolve(&none, "@/b", dst, sizeof(dst)));
	ck_assert(dir_resolve(&d, "@/b", dst, sizeof(dst)));
	ck_assert_str_eq(dst, "/tmp/d/b");
	ck_assert(!dir_resolve(&d, "@/b", dst, 8));
	ck_assert(command_resolve(NULL, "x", dst, sizeof(dst)));
	ck_assert(!command_resolve(NULL, "@/x", dst, sizeof(dst)));
}
END_TEST

TESTS("command")
{
	tcase_add_test(tc, words_reach_the_program);
	tcase_add_loop_test(tc, a_line_runs_in_the_login_shell, 0, (int)(sizeof(lines) / sizeof(lines[0])));
	tcase_add_loop_test(tc, a_stop_is_sigterm_and_then_sigkill, 0, 2);
	tcase_add_loop_test(tc, it_ends_with_its_stream_and_with_its_relay, 0, 2);
	tcase_add_loop_test(tc, output_never_blocks_it, 0, 2);
	tcase_add_loop_test(tc, it_runs_once_and_only_if_allowed, 0, 2);
	tcase_add_loop_test(tc, odd_records_are_harmless, 0, 3);
	tcase_add_test(tc, a_directory_that_was_left_is_removed);
	tcase_add_test(tc, only_the_mark_is_resolved);
}
