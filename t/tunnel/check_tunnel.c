/*
 * check_tunnel.c - the life of a link.  Shell scripts stand in for ssh and the
 * far end.
 */
#include <sys/wait.h>

#include "mux/frame.h"
#include "t/mux/pull.h"
#include "t/net.h"
#include "tunnel/tunnel.h"

static struct tunnel *t;
static struct tunnel_config config;
static struct conns conns;
static struct dial_target command;
static struct children kids;
#define REPORT_AFTER 200000 /* of a loss, in us */
#define NEAR 300000         /* what a slow machine adds to a time */

static struct pollset ps;
static struct hops hops, unattended;
static const char *rsh = "ssh";
static int64_t shift; /* added to our clock, in us */
static char why[512];

/* ---- a far end that is a shell script, the file "far" ---- */

static void
far_is(const char *script)
{
	FILE *file = fopen("far.new", "w");

	ck_assert_int_ge(fprintf(file, "%s\n", script), 0);
	ck_assert_int_eq(fclose(file), 0);
	ck_assert_int_eq(rename("far.new", "far"), 0);
}

/*
 * Starts a link, with or without a line of the bootstrap script, and runs until
 * its stdin ends or the file "cut" exists.
 */
#define STARTS "read line; echo 'relay:: at /x'; cat hello; "
#define LIVES STARTS "cat >/dev/null"
#define LIVES_UNTIL_CUT STARTS "while [ ! -e cut ]; do sleep 0.01; done"

/* Never answers; the file "runs" shows that it runs. */
#define SILENT "echo >runs; cat >/dev/null"

/*
 * Write magic and greeting of the host ${name} into ${room}; return how many
 * bytes.  If config.keep is set, it keeps a session.
 */
static size_t
first_bytes(enum mux_role role, const char *name, unsigned char room[MUX_PULL])
{
	struct mux *m = mux_new(role, MUX_MEMORY, name, 0);
	size_t n;

	if (config.keep > 0)
		mux_keep(m, (uint32_t)config.keep, (const unsigned char *)"0123456789abcdef");
	n = pull_into(m, room, MUX_PULL, 0);
	ck_assert_uint_gt(n, 0);
	mux_free(m);
	return n;
}

static void
make_hello(void)
{
	unsigned char room[MUX_PULL];
	size_t n = first_bytes(MUX_FAR, "node7", room);
	int fd = open("hello", O_WRONLY | O_CREAT | O_TRUNC, 0600);

	ck_assert_int_eq(write(fd, room, n), (ssize_t)n);
	close(fd);
}

static char *program[] = { (char *)"/bin/sh", (char *)"./far", NULL };

static void
make_tunnel(void)
{
	config.conns = &conns;
	config.target = &command;
	t = tunnel_new(&config);
	ck_assert_ptr_nonnull(t);
}

/*
 * Through the hops ${names}, which blanks separate; NULL: with a command of the
 * user's (-m).
 */
static void
begin(const char *names, const char *script)
{
	static char *words[8], text[200];
	struct hops_config hops_config = { .hops = words, .rsh = rsh, .self = "", .jump_options = "" };
	int n = 0;

	signal(SIGPIPE, SIG_IGN);
	unlink("cut");
	unlink("runs");
	make_hello();
	far_is(script);
	endpoint_command(&command.to, program);
	command.each_us = 2000000;
	command.kids = &kids;
	if (config.self == NULL)
		config.self = "/nowhere/relay";
	config.far_options = "-m -";
	if (names != NULL) {
		snprintf(text, sizeof(text), "%s", names);
		for (words[n] = strtok(text, " "); words[n] != NULL; words[n] = strtok(NULL, " "))
			n++;
		hops_config.n = n;
		ck_assert(hops_parse(&hops, &hops_config, why, sizeof(why)));
		config.hops = &hops;
	}
	make_tunnel();
	capture();
	ck_assert_int_eq(tunnel_start(t, pollset_clock()), STATUS_OK);
	ck_assert_int_eq(tunnel_state(t), TUNNEL_STARTING);
}

static void
tick(void)
{
	ps.now += shift;
}

static void
turn(void)
{
	pollset_begin(&ps);
	tick();
	tunnel_want(t, &ps);
	spawn_turn(&kids, &ps);
	pollset_until(&ps, ps.now + 2000);
	ck_assert_int_eq(pollset_wait(&ps), 0);
	tick();
	spawn_reap(&kids);
	tunnel_step(t, &ps);
	tunnel_serve(t, &ps);
	conn_step(&conns, &ps);
	tunnel_flush(t, conn_sweep(&conns, &ps));
}

#define TURN_UNTIL(cond) UNTIL(cond, turn())

static void
up(void)
{
	TURN_UNTIL(tunnel_state(t) == TUNNEL_UP);
}

/* When poll returns if there is no event. */
static int64_t
wakes_at(void)
{
	pollset_begin(&ps);
	tick();
	tunnel_want(t, &ps);
	return ps.deadline;
}

/* The far relay was started: it has 10 s for its magic. */
static bool
awaits_magic(void)
{
	return wakes_at() != INT64_MAX && wakes_at() > ps.now + 9000000;
}

/* Our clock stands still for 6 s, but the time of day does not. */
static void
fall_asleep(void)
{
	shift -= 6000000;
}

static bool
runs(void)
{
	return access("runs", F_OK) == 0;
}

static void
cut_line(void)
{
	close(open("cut", O_CREAT | O_WRONLY, 0600));
	TURN_UNTIL(tunnel_state(t) != TUNNEL_UP);
	unlink("cut");
}

/* When the next start is due.  A loss is reported before that. */
static int64_t
start_at(void)
{
	int64_t at = wakes_at();

	ck_assert_int_eq(tunnel_state(t), TUNNEL_BACKOFF);
	if (at > ps.now + REPORT_AFTER)
		return at;
	shift += at - ps.now;
	turn();
	ck_assert_int_eq(tunnel_state(t), TUNNEL_BACKOFF);
	return wakes_at();
}

static void
over(int status)
{
	TURN_UNTIL(tunnel_state(t) == TUNNEL_OVER);
	ck_assert_int_eq(tunnel_status(t), status);
	TURN_UNTIL(kids.first == NULL);
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
}

/* ---- up and over ---- */

START_TEST(a_tunnel_starts_is_up_and_stops)
{
	begin(_i == 0 ? "me@login node" : NULL, _i == 0 ? LIVES : "cat hello; cat >/dev/null");
	up();
	ck_assert_uint_eq(tunnel_connects(t), 1);
	ck_assert_str_eq(tunnel_name(t), _i == 0 ? "node" : "node7");
	UNTIL(wakes_at() > ps.now + 1000000, turn()); /* until it is idle */
	tunnel_stop(t, 130);
	over(130);
	ck_assert_str_eq(captured(), "");
}
END_TEST

/* 0: at once, 1: when the command runs, 2: when the far relay was started */
START_TEST(a_tunnel_may_be_stopped_while_it_starts)
{
	begin("login", _i == 2 ? "read line; echo 'relay:: at /x'; cat >/dev/null" : SILENT);
	if (_i == 1)
		TURN_UNTIL(runs());
	if (_i == 2)
		TURN_UNTIL(awaits_magic());
	tunnel_stop(t, STATUS_OK);
	over(STATUS_OK);
	ck_assert_str_eq(captured(), "");
	tunnel_stop(t, 99);
	ck_assert_int_eq(tunnel_status(t), STATUS_OK);
}
END_TEST

START_TEST(a_tunnel_in_backoff_may_be_stopped)
{
	begin("login", LIVES_UNTIL_CUT);
	up();
	cut_line();
	ck_assert_int_eq(tunnel_state(t), TUNNEL_BACKOFF);
	tunnel_stop(t, 143);
	over(143);
	ck_assert_str_eq(captured(), ""); /* not reported yet */
}
END_TEST

/* A command of the user's (-m) does not reconnect. */
START_TEST(a_command_is_not_started_again)
{
	begin(NULL, "cat hello; while [ ! -e cut ]; do sleep 0.01; done");
	up();
	cut_line();
	over(STATUS_LINK);
	HAS(captured(), "relay: the link to node7 has ended: its channel was closed\n");
}
END_TEST

/* ---- a start that fails ---- */

#define SSH(words) "echo '" words "' >&2; exit 255"

static const struct {
	const char *hops, *script, *part;
} failures[] = {
	{ "login", "exit 127", "cannot reach login: a command was not found there (status 127); is it in the PATH" },
	{ "login", "exit 3", "cannot reach login: ssh ended with status 3" },
	{ "login node", "exit 3", "cannot reach login -> node: ssh ended with status 3" },
	{ "login", "exec >&-; cat >/dev/null", "cannot reach login: ssh closed its stdout without a message" },
	{ "login node", SSH("ssh: Could not resolve hostname node: Name or service not known"),
	    "relay: cannot reach node: Could not resolve the name: Name or service not known; is the name right? The hop before looks it up. If it is a command, write -- before it\n" },
	{ "login node", SSH("ssh: Could not resolve hostname login: Name or service not known"),
	    "not known; is the name right?\n" },
	{ "login node", SSH("me@node: Permission denied (publickey)."), "no password can be typed there" },
	{ "login node", SSH("me@login: Permission denied (publickey)."), "relay: cannot reach login: user me: Permission denied (publickey); is the user name right? ssh -v shows the keys that it tried\n" },
	{ "login node", SSH("Host key verification failed."), "hop by hop: ssh asks about a new key" },
	{ "login", SSH("Host key verification failed."), "failed; log in by hand once: ssh asks" },
	{ "login", "echo one >&2; echo two >&2; exit 1", "cannot reach login: two\n" },
	{ "login", "read line; echo 'relay:: none Plan9-mips'; cat >/dev/null", "Plan9-mips" },
	{ "login", "cat", "came back" },
	{ "login", "echo This account is closed.; exit 1", "with status 1 after this output: \"This account is closed.\"; does the login shell there run commands" },
	{ "login", "read line; echo Hi; echo 'relay:: here'; echo 'relay:: at /x'; exit 1", "login was reached, but /x there ended before the link was up, after this output: \"Hi\"; run it there with -V" },
	{ "login", "printf '%2000s\\n' x >&2; printf '%2000sx' >&2; exit 1", "cannot reach login:  " },
	{ NULL, "exit 127", "no link: the far command was not found" },
	{ NULL, "exit 255", "no link: sh could not connect" },
	{ NULL, "exit 9", "no link: the command ended with status 9" },
	{ NULL, "kill -9 $$", "no link: the command ended with status 137" },
	{ NULL, "exec >&-; cat >/dev/null", "no link: the command closed its stdout" },
	{ NULL, "cat", "sends back its input" },
	{ NULL, "printf 'motd\\r\\nreLAylink\\r\\n'; exit 7", "no link: the line changes bytes" },
	{ NULL, "printf 'motd\\nrelay::\\0x'; exit 1", "its output before that: motd|relay::?x\n" },
};
#define FAILURES ((int)(sizeof(failures) / sizeof(failures[0])))

START_TEST(a_first_start_that_fails_is_explained_and_ends)
{
	const char *script = failures[_i].script;
	bool refused = strstr(script, "denied") != NULL || strstr(script, "Host key") != NULL;

	begin(failures[_i].hops, script);
	over(refused ? STATUS_REFUSED : STATUS_LINK);
	HAS(captured(), failures[_i].part);
	ck_assert_uint_eq(tunnel_connects(t), 0);
}
END_TEST

/* The line of ssh is not logged beside the message that contains it. */
START_TEST(a_cause_is_logged_once)
{
	const char *line;

	begin("login node", SSH("Welcome!\nssh: connect to host node port 22: Connection refused"));
	over(STATUS_LINK);
	line = strstr(captured(), "Connection refused");
	ck_assert_ptr_nonnull(line);
	ck_assert_ptr_null(strstr(line + 1, "Connection refused"));
	HAS(captured(), "Welcome!\nrelay: cannot reach node: port 22: Connection refused; no sshd");
}
END_TEST

/* A line that looks like a cause is logged when the link comes up, or after 2 s. */
START_TEST(a_line_that_is_no_cause_in_the_end_is_logged)
{
	begin("login", _i == 0 ? "echo 'x: command not found' >&2; " LIVES : "echo 'x: command not found' >&2; cat >/dev/null");
	if (_i == 0) {
		up();
	} else {
		TURN_UNTIL(wakes_at() <= ps.now + 2000000);
		HAS_NOT(captured(), "not found");
		shift += 2100000;
		turn();
	}
	HAS(captured(), "x: command not found\n");
	HAS_NOT(captured(), "relay: x");
	tunnel_stop(t, 0);
	over(0);
}
END_TEST

START_TEST(a_command_that_is_not_there_is_explained)
{
	program[0] = (char *)"/nowhere/ssh";
	begin(_i == 0 ? "login" : NULL, "");
	over(STATUS_LINK);
	HAS(captured(), "No such file or directory");
}
END_TEST

START_TEST(lines_on_stderr_are_logged_unchanged)
{
	begin("login", "echo 'Warning: old' >&2; printf 'half' >&2; " LIVES);
	up();
	tunnel_stop(t, 0);
	over(0);
	HAS(captured(), "Warning: old\n");
	HAS_NOT(captured(), "relay: Warning");
}
END_TEST

/* It answers "at", and then nothing. */
START_TEST(a_far_relay_that_does_not_answer_has_10_s)
{
	begin("login", "read line; echo 'relay:: at /x'; cat >/dev/null");
	TURN_UNTIL(awaits_magic());
	ck_assert_int_le(wakes_at(), ps.now + 10000000);
	shift += 9000000;
	turn();
	ck_assert_int_eq(tunnel_state(t), TUNNEL_STARTING);
	shift += 1100000;
	over(STATUS_LINK);
	HAS(captured(), "login: the relay there was started and does not answer");
}
END_TEST

/* Typing a password may take any time. */
START_TEST(a_first_start_has_all_the_time)
{
	begin("login", SILENT);
	TURN_UNTIL(runs());
	turn();
	shift += 86400000000;
	turn();
	ck_assert_int_eq(tunnel_state(t), TUNNEL_STARTING);
	ck_assert_int_eq(wakes_at(), INT64_MAX);
	tunnel_stop(t, 0);
	over(0);
}
END_TEST

START_TEST(a_copy_is_reported_once)
{
	char script[200];
	int fd = open("relay-Linux-riscv64", O_WRONLY | O_CREAT | O_TRUNC, 0700);

	ck_assert_int_eq(write(fd, "binary", 6), 6);
	close(fd);
	snprintf(script, sizeof(script), "read line; echo 'relay:: want Linux-riscv64 /x'; dd bs=1 count=6 of=got 2>/dev/null; "
		"echo 'relay:: at /x'; cat hello; cat >/dev/null");
	config.self = "./relay";
	begin("login", script);
	up();
	ck_assert_str_eq(captured(), "relay: copying relay (1 KiB) to login\n");
	ck_assert_int_eq(system("[ \"$(cat got)\" = binary ]"), 0);
	tunnel_stop(t, 0);
	over(0);
}
END_TEST

/* ---- reconnects ---- */

START_TEST(a_lost_link_is_reported_and_reconnects)
{
	begin("login node", LIVES_UNTIL_CUT);
	up();
	cut_line();
	ck_assert_int_eq(tunnel_state(t), TUNNEL_BACKOFF);
	ck_assert_int_gt(wakes_at(), ps.now);
	ck_assert_str_eq(captured(), "");
	TURN_UNTIL(*captured() != '\0');
	ck_assert_str_eq(captured(), "relay: the link to node has ended: its channel was closed; reconnecting\n");
	ck_assert_int_eq(tunnel_status(t), STATUS_OK);
	up();
	ck_assert_uint_eq(tunnel_connects(t), 2);
	tunnel_stop(t, 0);
	over(0);
}
END_TEST

static int64_t down_at; /* when it failed last */

static void
fail_again(void)
{
	int64_t at = start_at();

	shift += at - ps.now + 1000;
	TURN_UNTIL(tunnel_state(t) == TUNNEL_STARTING);
	TURN_UNTIL(tunnel_state(t) == TUNNEL_BACKOFF);
	down_at = ps.now;
}

START_TEST(the_pause_grows_to_a_minute)
{
	static const int64_t most[] = { 1000000, 1000000, 2000000, 4000000, 8000000, 16000000, 32000000, 60000000, 60000000, 60000000 };
	int64_t pause;
	int i;

	begin("login", LIVES_UNTIL_CUT);
	up();
	cut_line();
	down_at = ps.now;
	far_is("echo no >&2; exit 255");
	for (i = 0; i < 10; i++) {
		pause = start_at() - down_at;
		ck_assert_msg(pause > most[i] / 2 - NEAR && pause <= most[i], "pause %d: %lld us", i, (long long)pause);
		fail_again();
	}
	for (i = 0; i < 12; i++) { /* not beyond a minute, and not back to a second */
		fail_again();
		pause = start_at() - down_at;
		ck_assert(pause > 30000000 - NEAR && pause <= 60000000);
	}
	HAS_NOT(captured(), "cannot reach"); /* logged only with -v */
	HAS_NOT(captured(), "no\n");
	far_is(LIVES_UNTIL_CUT);
	shift += start_at() - ps.now + 1000;
	up();
	cut_line();
	down_at = ps.now;
	ck_assert_int_le(start_at() - down_at, 1000000);
	tunnel_stop(t, 0);
	over(0);
}
END_TEST

START_TEST(pauses_differ)
{
	int64_t pause, least = INT64_MAX;
	int i;

	begin("login", LIVES_UNTIL_CUT);
	for (i = 0; i < 8; i++) {
		up();
		cut_line();
		down_at = ps.now;
		pause = start_at() - down_at;
		least = pause < least ? pause : least;
		shift += 2000000;
	}
	ck_assert_int_lt(least, 900000); /* fails by chance in one of 390,000 runs */
	tunnel_stop(t, 0);
	over(0);
}
END_TEST

/* After each failed start the next one is a second later, up to ten. */
START_TEST(a_connection_shortens_the_pause)
{
	static const int64_t least[] = { 1000000, 2000000, 3000000, 4000000, 5000000, 6000000, 7000000, 8000000, 9000000, 10000000, 10000000, 10000000 };
	int64_t at;
	int i;

	begin("login", LIVES_UNTIL_CUT);
	up();
	cut_line();
	far_is("exit 255");
	down_at = ps.now;
	for (i = 0; i < 12; i++) {
		tunnel_want_up(t);
		at = start_at();
		if (i > 4) {
			ck_assert_int_le(at, down_at + least[i]);
			ck_assert_int_ge(at, down_at + least[i] - 500000 - NEAR); /* counted from the start that failed */
		}
		fail_again();
	}
	tunnel_stop(t, 0);
	over(0);
}
END_TEST

START_TEST(a_lost_link_that_was_up_for_long_reconnects_at_once)
{
	begin("login", LIVES_UNTIL_CUT);
	up();
	shift += 5000000;
	cut_line();
	tunnel_want_up(t);
	turn();
	ck_assert_int_ne(tunnel_state(t), TUNNEL_BACKOFF);
	up();
	ck_assert_uint_eq(tunnel_connects(t), 2);
	tunnel_stop(t, 0);
	over(0);
}
END_TEST

/*
 * No password can be typed.  While the exit status is awaited, nothing spins.
 */
START_TEST(a_later_start_has_two_minutes)
{
	begin("login", LIVES_UNTIL_CUT);
	up();
	cut_line();
	far_is(SILENT);
	shift += 2000000;
	TURN_UNTIL(tunnel_state(t) == TUNNEL_STARTING && runs());
	turn();
	ck_assert_int_ge(wakes_at(), ps.now + 120000000 - NEAR);
	ck_assert_int_le(wakes_at(), ps.now + 120000000);
	shift += 119000000;
	turn();
	ck_assert_int_eq(tunnel_state(t), TUNNEL_STARTING);
	ck_assert_int_gt(wakes_at(), ps.now + 100000);
	shift += 1100000;
	turn();
	ck_assert_int_eq(tunnel_state(t), TUNNEL_FAILED);
	ck_assert_int_gt(wakes_at(), ps.now);
	TURN_UNTIL(tunnel_state(t) == TUNNEL_BACKOFF);
	tunnel_stop(t, 0);
	over(0);
}
END_TEST

/* Its limit is that of sshd.  Each hop can ask for a second factor. */
START_TEST(a_login_of_a_person_has_all_the_time)
{
	rsh = "/bin/sh ./far";
	config.unattended = &unattended;
	begin("login", LIVES_UNTIL_CUT);
	unattended = hops;
	up();
	cut_line();
	far_is("echo 'me@login: Permission denied (password).' >&2; exit 255");
	shift += 2000000;
	TURN_UNTIL(tunnel_awaits_login(t));
	far_is(SILENT);
	tunnel_login(t, ps.now);
	TURN_UNTIL(tunnel_state(t) == TUNNEL_STARTING && runs());
	shift += 500000000;
	turn();
	ck_assert_int_eq(tunnel_state(t), TUNNEL_STARTING);
	tunnel_stop(t, 0);
	over(0);
}
END_TEST

START_TEST(after_a_sleep_it_reconnects_at_once)
{
	begin("login", LIVES_UNTIL_CUT);
	up();
	cut_line();
	far_is("exit 255");
	fail_again();
	fail_again();
	fail_again();
	far_is(LIVES);
	fall_asleep();
	turn();
	ck_assert_int_eq(tunnel_state(t), TUNNEL_STARTING);
	up();
	fall_asleep();
	turn();
	ck_assert_int_le(wakes_at(), ps.now + 15000000);
	tunnel_stop(t, 0);
	over(0);
}
END_TEST

START_TEST(many_reconnects_leave_nothing_behind)
{
	int fds = 0, i;

	begin("login", LIVES_UNTIL_CUT);
	for (i = 0; i < 6; i++) {
		up();
		cut_line();
		TURN_UNTIL(kids.first == NULL || tunnel_state(t) != TUNNEL_BACKOFF);
		ck_assert_int_eq(tunnel_state(t), TUNNEL_BACKOFF);
		if (i == 0)
			fds = fds_open();
		ck_assert_int_eq(fds_open(), fds);
		shift += 2000000;
	}
	tunnel_stop(t, 0);
	over(0);
}
END_TEST

/* ---- the only connection ---- */

START_TEST(a_one_shot_tunnel_does_not_reconnect)
{
	config.one_shot = true;
	begin("login", LIVES_UNTIL_CUT);
	conns.n = 1; /* a connection is open */
	up();
	cut_line();
	conns.n = 0;
	over(STATUS_LINK);
	HAS(captured(), "has ended: its channel was closed\n");
}
END_TEST

START_TEST(a_one_shot_tunnel_ends_with_its_connection)
{
	config.one_shot = true;
	begin("login", LIVES);
	over(STATUS_OK);
	ck_assert_uint_eq(tunnel_connects(t), 1);
	ck_assert_str_eq(captured(), "");
}
END_TEST

/* ---- the far side ---- */

static int to_far, from_far;

static void
begin_far(void)
{
	int in[2], out[2];

	signal(SIGPIPE, SIG_IGN);
	make_hello();
	capture();
	ck_assert(pipe(in) == 0 && pipe(out) == 0);
	dup2(in[0], 0);
	dup2(out[1], 1);
	close(in[0]);
	close(out[1]);
	to_far = in[1];
	from_far = out[0];
	fcntl(from_far, F_SETFL, O_NONBLOCK);
	config.role = MUX_FAR;
	make_tunnel();
	ck_assert_int_eq(tunnel_start(t, pollset_clock()), STATUS_OK);
}

/* Send magic and HELLO of a near side, after ${noise}. */
static void
send_near(const char *noise)
{
	unsigned char room[MUX_PULL];
	size_t n = first_bytes(MUX_NEAR, "laptop", room);

	ck_assert_int_eq(write(to_far, noise, strlen(noise)), (ssize_t)strlen(noise));
	ck_assert_int_eq(write(to_far, room, n), (ssize_t)n);
}

static void
far_over(int status)
{
	TURN_UNTIL(tunnel_state(t) == TUNNEL_OVER);
	ck_assert_int_eq(tunnel_status(t), status);
}

/* 1: a bootstrap script comes first, as with a forced command */
START_TEST(a_far_end_is_up_and_ends_with_its_line)
{
	unsigned char got[512];

	begin_far();
	turn();
	ck_assert_int_gt(read(from_far, got, sizeof(got)), 16);
	ck_assert_mem_eq(got, "\0\362reLAylink\r\n\n\376", 16);
	send_near(_i == 0 ? "" : "V='relay 0.1';o='-m -';say(){ ...\n");
	up();
	ck_assert_str_eq(tunnel_name(t), "laptop");
	close(to_far);
	far_over(STATUS_OK);
	ck_assert_str_eq(captured(), "");
}
END_TEST

START_TEST(a_far_end_reports_input_that_is_not_a_link)
{
	begin_far();
	send_near("hello\n");
	far_over(STATUS_LINK);
	HAS(captured(), "relay: the link has ended: stdin does not carry a link");
}
END_TEST

START_TEST(a_far_end_may_be_stopped)
{
	begin_far();
	if (_i == 1) {
		send_near("");
		up();
	}
	tunnel_stop(t, 0);
	far_over(STATUS_OK);
	ck_assert_str_eq(captured(), "");
}
END_TEST

/* ---- a session without a channel ---- */

/*
 * 0: no stream is open.  The far side ends after 60 s, so the near side gives
 * the session up 5 s earlier.  1: a stream is open.
 */
START_TEST(the_near_side_gives_an_unused_session_up)
{
	struct stream *s = NULL;

	config.keep = 3600;
	config.join_options = "-k join -m -";
	begin("login", LIVES_UNTIL_CUT);
	up();
	if (_i == 1)
		s = mux_open(tunnel_mux(t), "/t");
	cut_line();
	far_is("exit 255");
	shift += _i == 0 ? 54000000 : 3604000000;
	TURN_UNTIL(tunnel_state(t) == TUNNEL_STARTING);
	ck_assert(tunnel_resumed(t));
	TURN_UNTIL(tunnel_state(t) == TUNNEL_BACKOFF);
	shift += 5000000;
	TURN_UNTIL(tunnel_state(t) == TUNNEL_STARTING);
	ck_assert(!tunnel_resumed(t));
	if (s != NULL)
		stream_release(s);
	tunnel_stop(t, 0);
	over(0);
}
END_TEST

/* ${shift} does not change the clock of tunnel_stop. */
START_TEST(a_stop_reports_how_long_the_far_side_still_lives)
{
	struct stream *s;

	config.keep = 3600;
	config.join_options = "-k join -m -";
	begin("login", LIVES_UNTIL_CUT);
	up();
	s = mux_open(tunnel_mux(t), "/t");
	shift -= 3000000000;
	cut_line();
	capture();
	tunnel_stop(t, 0);
	HAS(captured(), "login is not reachable now: relay there ends by itself after 600 s\n");
	stream_release(s);
	over(0);
}
END_TEST

static uint32_t
streams(void)
{
	struct mux_stats s;

	mux_stats(tunnel_mux(t), &s);
	return s.streams;
}

/* 0: no stream is open, 1: one is open, 2: one was open */
static void
be_keeper(int how)
{
	unsigned char open[FRAME_HEAD + 10] = { 0 };

	config.keep = 3600;
	begin_far();
	send_near("");
	up();
	if (how > 0) {
		memcpy(frame_put_head(open, FRAME_OPEN, 1, 10) + 8, "/t", 2);
		ck_assert_int_eq(write(to_far, open, sizeof(open)), sizeof(open));
		TURN_UNTIL(streams() == 1);
	}
	if (how == 2) {
		frame_put_words(open, FRAME_CLOSE, 1, MUX_RESET, NULL);
		ck_assert_int_eq(write(to_far, open, FRAME_HEAD + 2), FRAME_HEAD + 2);
		TURN_UNTIL(streams() == 0);
	}
	mux_lost(tunnel_mux(t), 0, MUX_RESET, "cut");
	TURN_UNTIL(tunnel_state(t) == TUNNEL_BACKOFF);
	shift += how == 1 ? 3598000000 : 58000000;
	turn();
	ck_assert_int_eq(tunnel_state(t), TUNNEL_BACKOFF);
	shift += 2000000;
	far_over(STATUS_LINK);
}

/* The process that calls tunnel_start waits for the keeper, and exits early. */
START_TEST(a_keeper_ends_a_minute_after_its_last_stream)
{
	char done = 0;
	int fd[2];

	unsetenv("RELAY_KEEP");
	ck_assert_int_eq(pipe(fd), 0);
	if (fork() == 0) {
		close(fd[0]);
		be_keeper(_i);
		_exit(write(fd[1], "k", 1) != 1);
	}
	close(fd[1]);
	ck_assert_int_eq(read(fd[0], &done, 1), 1);
	ck_assert_int_eq(done, 'k');
}
END_TEST

/* ---- the table ---- */

START_TEST(the_table_shows_the_state)
{
	begin("me@login node", LIVES_UNTIL_CUT);
	tunnel_table(t, pollset_clock());
	HAS(captured(), "relay: the link to node is starting\n");
	up();
	capture();
	tunnel_table(t, ps.now);
	HAS(captured(), "relay: the link to node is up\n");
	HAS(captured(), "round trip");
	HAS(captured(), ", 0 bytes reserved\n");
	HAS(captured(), "bytes sent and");
	capture();
	cut_line();
	tunnel_table(t, ps.now);
	HAS(captured(), "relay: the link to node is down\n");
	HAS(captured(), "reconnecting in 1 s");
	tunnel_stop(t, 0);
	over(0);
}
END_TEST

static void
put_text(const char *path, const char *p, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	ck_assert_int_eq(write(fd, p, n), (ssize_t)n);
	close(fd);
}

/*
 * 0: characters of one byte; 1: of two, one of which crosses the buffer's end
 */
START_TEST(a_long_line_on_stderr_is_logged_whole)
{
	static char text[32768], line[10001];
	size_t i, n = 0;
	ssize_t have;

	for (i = 0; i < sizeof(line) - 1; i++)
		line[i] = _i == 0 ? (char)('a' + i % 23) : "\xc3\xa9"[i % 2];
	line[0] = 'x';
	line[sizeof(line) - 2] = 'z';
	if (_i == 1)
		line[1] = 'x';
	put_text("long", line, sizeof(line) - 1);
	begin("login", "cat long >&2; exit 1");
	over(STATUS_LINK);
	have = pread(2, text, sizeof(text) - 1, 0);
	ck_assert_int_gt(have, 10000);
	*strstr(text, "\nrelay: ") = '\0'; /* relay's lines follow */
	for (i = 0; text[i] != '\0'; i++)
		if (text[i] != '\n')
			text[n++] = text[i];
	text[n] = '\0';
	ck_assert_uint_eq(n, sizeof(line) - 1);
	ck_assert_str_eq(text, line);
}
END_TEST

TESTS("tunnel")
{
	tcase_add_loop_test(tc, a_long_line_on_stderr_is_logged_whole, 0, 2);
	tcase_add_unchecked_fixture(tc, enter_dir, leave_dir);
	tcase_add_loop_test(tc, a_tunnel_starts_is_up_and_stops, 0, 2);
	tcase_add_loop_test(tc, a_tunnel_may_be_stopped_while_it_starts, 0, 3);
	tcase_add_test(tc, a_tunnel_in_backoff_may_be_stopped);
	tcase_add_test(tc, a_command_is_not_started_again);
	tcase_add_loop_test(tc, a_first_start_that_fails_is_explained_and_ends, 0, FAILURES);
	tcase_add_loop_test(tc, a_command_that_is_not_there_is_explained, 0, 2);
	tcase_add_test(tc, lines_on_stderr_are_logged_unchanged);
	tcase_add_test(tc, a_cause_is_logged_once);
	tcase_add_loop_test(tc, a_line_that_is_no_cause_in_the_end_is_logged, 0, 2);
	tcase_add_test(tc, a_far_relay_that_does_not_answer_has_10_s);
	tcase_add_test(tc, a_first_start_has_all_the_time);
	tcase_add_test(tc, a_copy_is_reported_once);
	tcase_add_test(tc, a_lost_link_is_reported_and_reconnects);
	tcase_add_test(tc, the_pause_grows_to_a_minute);
	tcase_add_test(tc, pauses_differ);
	tcase_add_test(tc, a_connection_shortens_the_pause);
	tcase_add_test(tc, a_lost_link_that_was_up_for_long_reconnects_at_once);
	tcase_add_test(tc, a_later_start_has_two_minutes);
	tcase_add_test(tc, a_login_of_a_person_has_all_the_time);
	tcase_add_test(tc, after_a_sleep_it_reconnects_at_once);
	tcase_add_test(tc, many_reconnects_leave_nothing_behind);
	tcase_add_test(tc, a_one_shot_tunnel_does_not_reconnect);
	tcase_add_test(tc, a_one_shot_tunnel_ends_with_its_connection);
	tcase_add_loop_test(tc, a_far_end_is_up_and_ends_with_its_line, 0, 2);
	tcase_add_test(tc, a_far_end_reports_input_that_is_not_a_link);
	tcase_add_loop_test(tc, a_far_end_may_be_stopped, 0, 2);
	tcase_add_loop_test(tc, the_near_side_gives_an_unused_session_up, 0, 2);
	tcase_add_loop_test(tc, a_keeper_ends_a_minute_after_its_last_stream, 0, 3);
	tcase_add_test(tc, a_stop_reports_how_long_the_far_side_still_lives);
	tcase_add_test(tc, the_table_shows_the_state);
}
