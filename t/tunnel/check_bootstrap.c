/* check_boot.c - a far end where none was installed, and its script in the shells of this host; needs boot.o */
#include <signal.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#include "t/net.h"

static struct bootstrap *b;
static char type[64]; /* of this host */
static char script[32768];
static size_t script_n;

static void
put_file(const char *path, const void *p, size_t n, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, mode);

	ck_assert_msg(fd != -1, "%s: %s", path, strerror(errno));
	ck_assert_int_eq(write(fd, p, n), (ssize_t)n);
	close(fd);
	chmod(path, mode);
}

static void
run(const char *fmt, const char *arg)
{
	char cmd[512];

	snprintf(cmd, sizeof(cmd), fmt, arg);
	ck_assert_msg(system(cmd) == 0, "%s", cmd);
}

/* What stands for relay: it tells its version, or its magic and its options and gives back what it reads. */
#define FAKE "#!/bin/sh\n[ \"$1\" = -V ] && { echo relay " RELAY_VERSION "; exit; }\nprintf 'MAGIC<%s>' \"$*\"\nexec cat\n"
#define FAKE_SIZE 100000

static unsigned char fake[FAKE_SIZE]; /* the last one that was written */

static void
put_fake(const char *path, const char *text)
{
	uint32_t seed = 7;
	size_t i;

	for (i = 0; i < sizeof(fake); i++) /* more than a pipe holds, and every byte there is */
		fake[i] = (unsigned char)((seed = seed * 1664525 + 1013904223) >> 24);
	memcpy(fake, text, strlen(text));
	put_file(path, fake, sizeof(fake), 0755);
}

static unsigned long
fake_cksum(void)
{
	return bootstrap_cksum(fake, sizeof(fake));
}

/* Ours is dir/bin/relay, in an own directory. */
static const char *
own_path(void)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/bin/relay", own_dir);
	return path;
}

static const char *
our_file(void)
{
	mkdir("bin", 0755);
	put_fake(own_path(), FAKE);
	return own_path();
}

static void
take_script(void)
{
	script_n = bootstrap_pull(b, (unsigned char *)script, sizeof(script) - 1);
	script[script_n] = '\0';
	ck_assert(!bootstrap_has_output(b));
}

/* A start, of a relay whose file is ${self}. */
static void
start(const char *self, const char *far_path)
{
	if (b == NULL)
		b = bootstrap_new();
	ck_assert(bootstrap_start(b, self, self, far_path, "-m -t 5 -"));
}

static void
begin(const char *far_path)
{
	start(our_file(), far_path);
	ck_assert_int_eq(bootstrap_state(b), BOOTSTRAP_ASKING);
}

static void
begin_asked(void)
{
	begin(NULL);
	take_script();
}

static void
feed(const char *text)
{
	bootstrap_feed(b, text, strlen(text));
}

/* ---- the checksum ---- */

START_TEST(a_sum_is_that_of_cksum)
{
	static const struct {
		const char *text;
		uint32_t sum;
	} known[] = { { "", 4294967295U }, { "123456789", 930766865U }, { "a", 1220704766U } };
	int i;

	for (i = 0; i < 3; i++)
		ck_assert_uint_eq(bootstrap_cksum((const unsigned char *)known[i].text, strlen(known[i].text)), known[i].sum);
}
END_TEST

START_TEST(a_sum_is_what_cksum_of_this_host_says)
{
	static const size_t sizes[] = { 0, 1, 2, 255, 256, 257, 65535, 65536, 70000 };
	static unsigned char p[70000];
	unsigned long sum, size;
	FILE *f;
	size_t i;

	for (i = 0; i < sizeof(p); i++)
		p[i] = (unsigned char)(i * 31 ^ i >> 8);
	put_file("sum", p, sizes[_i], 0644);
	f = popen("cksum <sum", "r");
	ck_assert_int_eq(fscanf(f, "%lu %lu", &sum, &size), 2);
	pclose(f);
	ck_assert_uint_eq(size, sizes[_i]);
	ck_assert_uint_eq(bootstrap_cksum(p, sizes[_i]), sum);
}
END_TEST

/* ---- the binaries that we have ---- */

/* The binaries that the script offers, each with a blank before it and behind it. */
static const char *
offers(void)
{
	static char list[1024];
	char *at, *end;

	at = strstr(script, "b='");
	ck_assert_ptr_nonnull(at);
	end = strchr(at + 3, '\'');
	snprintf(list, sizeof(list), " %.*s ", (int)(end - at - 3), at + 3);
	return list;
}

static int
n_offered(void)
{
	const char *at;
	int n = 0;

	for (at = offers(); (at = strchr(at, ':')) != NULL; at++)
		n++;
	return n / 2;
}

/* Is a binary for ${wanted} offered that holds ${n} bytes at ${p}? */
static bool
is_offered(const char *wanted, const void *p, size_t n)
{
	char text[128];

	snprintf(text, sizeof(text), " %s:%lu:%zu ", wanted, (unsigned long)bootstrap_cksum(p, n), n);
	return strstr(offers(), text) != NULL;
}

START_TEST(our_own_file_is_for_our_own_type)
{
	begin_asked();
	ck_assert_int_eq(n_offered(), 1);
	ck_assert(is_offered(type, fake, FAKE_SIZE));
}
END_TEST

/* lib/relay, then beside us, then our own. */
START_TEST(earlier_places_go_first)
{
	char path[128];

	mkdir("lib", 0755);
	mkdir("lib/relay", 0755);
	put_file("lib/relay/relay-Linux-riscv64", "lib", 3, 0755);
	put_file("bin/relay-Linux-riscv64", "beside", 6, 0755);
	put_file("bin/relay-Darwin-arm64", "apple", 5, 0755);
	snprintf(path, sizeof(path), "lib/relay/relay-%s", type);
	put_file(path, "own", 3, 0755);
	begin_asked();
	ck_assert_int_eq(n_offered(), 3);
	ck_assert(is_offered("Linux-riscv64", "lib", 3));
	ck_assert(is_offered("Darwin-arm64", "apple", 5));
	ck_assert(is_offered(type, "own", 3));
	run("rm -r lib bin", "");
}
END_TEST

/* Beside us, in a directory where others may write, lies what others put there. */
START_TEST(a_binary_of_a_stranger_is_not_offered)
{
	if (getuid() != 0)
		return;
	our_file();
	put_file("bin/relay-Linux-riscv64", "strange", 7, 0755);
	put_file("bin/relay-Linux-ppc64le", "ours", 4, 0755);
	ck_assert_int_eq(chown("bin/relay-Linux-riscv64", 54321, 54321), 0);
	ck_assert_int_eq(mkfifo("bin/relay-Darwin-arm64", 0666), 0);
	begin_asked();
	ck_assert_int_eq(n_offered(), 2);
	ck_assert(is_offered("Linux-ppc64le", "ours", 4));
	run("chown 54321 bin/relay bin/relay-Linux-ppc64le", "");
	start(own_path(), NULL);
	take_script();
	ck_assert_int_eq(n_offered(), 3);
	run("rm -r bin", "");
}
END_TEST

START_TEST(what_is_no_binary_is_not_offered)
{
	mkdir("bin", 0755);
	put_file("bin/relay-Linux-riscv64", "", 0, 0755);
	mkdir("bin/relay-Linux-ppc64le", 0755);
	put_file("bin/relay-Darwin-arm64", "", 0, 0755);
	ck_assert_int_eq(truncate("bin/relay-Darwin-arm64", 16 * 1024 * 1024), 0);
	begin_asked();
	ck_assert_int_eq(n_offered(), 1);
	start("relay", NULL);
	take_script();
	ck_assert_int_eq(n_offered(), 0);
	start("/nowhere/relay", NULL);
	take_script();
	ck_assert_int_eq(n_offered(), 0);
	run("rm -r bin", "");
}
END_TEST

/* ---- the script as text ---- */

START_TEST(the_script_is_one_line_without_a_mark)
{
	begin(_i == 0 ? NULL : "~/my relay");
	take_script();
	ck_assert_ptr_eq(strchr(script, '\n'), script + script_n - 1);
	HAS_NOT(script, "relay:: ");
	HAS(script, "o='-m -t 5 -'");
	ck_assert_ptr_eq(strstr(script, MUX_SCRIPT), script);
}
END_TEST

START_TEST(the_script_is_the_same_in_pieces)
{
	static char whole[sizeof(script)];
	size_t n = 0, got;

	begin_asked();
	memcpy(whole, script, sizeof(whole));
	begin(NULL);
	while (bootstrap_has_output(b)) {
		got = bootstrap_pull(b, (unsigned char *)script + n, (size_t)_i);
		ck_assert_uint_gt(got, 0);
		n += got;
	}
	ck_assert_uint_eq(bootstrap_pull(b, (unsigned char *)script + n, 9), 0);
	script[n] = '\0';
	ck_assert_str_eq(script, whole);
}
END_TEST

START_TEST(a_long_path_of_quotes_stays_in_its_room)
{
	static char path[6000];

	memset(path, '\'', sizeof(path) - 1);
	memcpy(path, "~/", 2);
	begin(path + (_i == 0 ? 0 : 2));
	take_script();
	ck_assert_int_eq(script[script_n - 1], '\n');
}
END_TEST

/* ---- answers ---- */

static const struct {
	const char *line;
	enum bootstrap_state state;
	const char *says;
} answers[] = { { "at /home/me/relay", BOOTSTRAP_STARTING, NULL }, { "want %s /home/me/x", BOOTSTRAP_UPLOADING, NULL },
	{ "none Plan9-mips", BOOTSTRAP_FAILED, "Plan9-mips" }, { "no ~/x: not found", BOOTSTRAP_FAILED, "~/x: not found" },
	{ "fail /a: full; /b: read-only", BOOTSTRAP_FAILED, "/a: full; /b: read-only" },
	{ "lack find mv", BOOTSTRAP_FAILED, "find mv" }, { "refuse 77 /a: no loader", BOOTSTRAP_FAILED, "/a: no loader" },
	{ "refuse /a", BOOTSTRAP_FAILED, "unexpected answer" }, { "refuse 7", BOOTSTRAP_FAILED, "unexpected answer" }, { "huh", BOOTSTRAP_FAILED, "unexpected answer" },
	{ "", BOOTSTRAP_FAILED, "unexpected answer" }, { "want ZX-81 /x", BOOTSTRAP_FAILED, "not offered" }, { "want", BOOTSTRAP_FAILED, "not offered" },
	{ "want ", BOOTSTRAP_FAILED, "not offered" }, { "wanton %s /x", BOOTSTRAP_FAILED, "unexpected answer" } };
#define ANSWERS ((int)(sizeof(answers) / sizeof(answers[0])))

static const char *const before[] = { "", "Welcome!\n", "no newline at its end", "relay", "relay:", "relay: : ", "rerelay:",
	"relay::relay:", "\rrelay::\n", "\n\n", "\xff\xfe\x01" };
#define BEFORE ((int)(sizeof(before) / sizeof(before[0])))

static void
is_answer(int i)
{
	ck_assert_int_eq(bootstrap_state(b), answers[i].state);
	if (answers[i].says != NULL)
		HAS(bootstrap_why(b), answers[i].says);
	if (bootstrap_state(b) == BOOTSTRAP_STARTING)
		ck_assert_str_eq(bootstrap_path(b), "/home/me/relay");
	if (bootstrap_state(b) == BOOTSTRAP_UPLOADING)
		ck_assert_uint_eq(bootstrap_upload_size(b), FAKE_SIZE);
	ck_assert_int_eq(bootstrap_has_output(b), bootstrap_state(b) == BOOTSTRAP_UPLOADING);
}

START_TEST(an_answer_is_the_same_cut_at_every_byte)
{
	char line[256], text[400];
	size_t n, cut;
	int j;

	snprintf(line, sizeof(line), answers[_i].line, type);
	for (j = 0; j < 2 * BEFORE; j++) {
		n = (size_t)snprintf(text, sizeof(text), "%srelay:: %s%s", before[j / 2], line, j % 2 == 0 ? "\n" : "\r\n");
		for (cut = 0; cut <= n; cut++) {
			begin_asked();
			bootstrap_feed(b, text, cut);
			ck_assert_int_eq(bootstrap_state(b), cut == n ? answers[_i].state : BOOTSTRAP_ASKING);
			bootstrap_feed(b, text + cut, n - cut);
			is_answer(_i);
		}
	}
}
END_TEST

START_TEST(noise_of_any_length_hides_no_answer)
{
	char noise[2600];
	size_t n;

	memset(noise, 'n', sizeof(noise));
	for (n = 0; n < sizeof(noise); n++) {
		start("relay", NULL);
		take_script();
		bootstrap_feed(b, noise, n);
		feed("relay:: at /home/me/relay\n");
		is_answer(0);
	}
}
END_TEST

START_TEST(an_overlong_answer_is_cut_and_the_next_one_is_read)
{
	static char more[70000];

	memset(more, 'x', sizeof(more) - 1);
	begin_asked();
	feed("relay:: at /");
	feed(more);
	ck_assert_int_eq(bootstrap_state(b), BOOTSTRAP_ASKING);
	feed("\n");
	ck_assert_int_eq(bootstrap_state(b), BOOTSTRAP_STARTING);
	ck_assert_uint_gt(strlen(bootstrap_path(b)), 500);
	ck_assert_uint_lt(strlen(bootstrap_path(b)), BOOTSTRAP_PATH);
	feed("relay:: fail ");
	feed(more);
	feed("\n");
	ck_assert_int_eq(bootstrap_state(b), BOOTSTRAP_FAILED);
	HAS(bootstrap_why(b), "xxx");
	HAS(bootstrap_why(b), "-x");
}
END_TEST

START_TEST(a_failure_is_the_end)
{
	begin_asked();
	feed("relay:: none T\nrelay:: at /x\n");
	ck_assert_int_eq(bootstrap_state(b), BOOTSTRAP_FAILED);
	feed("relay:: at /x\n");
	ck_assert_int_eq(bootstrap_state(b), BOOTSTRAP_FAILED);
	HAS(bootstrap_why(b), "its type, T:");
}
END_TEST

START_TEST(a_failure_tells_what_to_do)
{
	static const char *const failures[] = { "relay:: none T\n", "relay:: fail /a: full\n", "relay:: lack mv\n",
		"relay:: refuse 7 /a: no\n" };

	begin_asked();
	feed(failures[_i]);
	HAS(bootstrap_why(b), "-x");
	HAS_NOT(bootstrap_why(b), "\n");
}
END_TEST

START_TEST(a_type_is_wanted_whole)
{
	char line[256];

	begin_asked();
	snprintf(line, sizeof(line), _i == 0 ? "relay:: want %.*s /x\n" : "relay:: want %.*sx /x\n",
	    (int)strlen(type) - (_i == 0), type);
	feed(line);
	ck_assert_int_eq(bootstrap_state(b), BOOTSTRAP_FAILED);
}
END_TEST

START_TEST(no_more_copies_than_places_are_sent)
{
	unsigned char room[4096];
	char line[256];
	int i;

	begin_asked();
	snprintf(line, sizeof(line), "relay:: want %s /d\n", type);
	for (i = 1; i <= 5; i++) {
		feed(line);
		ck_assert_int_eq(bootstrap_state(b), BOOTSTRAP_UPLOADING);
		ck_assert_int_eq(bootstrap_uploads(b), i);
		while (bootstrap_has_output(b))
			bootstrap_pull(b, room, sizeof(room));
	}
	feed(line);
	ck_assert_int_eq(bootstrap_state(b), BOOTSTRAP_FAILED);
}
END_TEST

/* 0: refused after it was sent, 1: where an earlier copy was found, 2: another one, which may be sent */
START_TEST(a_binary_that_was_refused_is_not_sent_again)
{
	char line[256], refusal[256];
	int copies = 0, i;

	begin_asked();
	snprintf(line, sizeof(line), "relay:: want %s /d\n", type);
	snprintf(refusal, sizeof(refusal), "relay:: refuse %lu /d: no such loader\n",
	    fake_cksum() + (_i == 2));
	if (_i == 0)
		feed(line);
	feed(refusal);
	ck_assert_int_eq(bootstrap_state(b), BOOTSTRAP_FAILED);
	HAS(bootstrap_why(b), "/d: no such loader");
	for (i = 0; i < 2; i++) { /* as when the tunnel is made again */
		begin_asked();
		feed(line);
		copies += bootstrap_uploads(b);
	}
	ck_assert_int_eq(copies, _i == 2 ? 2 : 0);
	ck_assert_int_eq(bootstrap_state(b), _i == 2 ? BOOTSTRAP_UPLOADING : BOOTSTRAP_FAILED);
	ck_assert_int_eq(bootstrap_has_output(b), _i == 2);
	if (_i < 2)
		HAS(bootstrap_why(b), "/d: no such loader");
	begin_asked();
	feed("relay:: at /d/relay\n"); /* it has been put there since */
	ck_assert_int_eq(bootstrap_state(b), BOOTSTRAP_STARTING);
}
END_TEST

START_TEST(the_binary_is_sent_as_it_is)
{
	static unsigned char sent[FAKE_SIZE + 1], file[FAKE_SIZE + 1];
	char line[256];
	size_t n = 0;
	int fd;

	begin_asked();
	snprintf(line, sizeof(line), "relay:: want %s /d\n", type);
	feed(line);
	while (bootstrap_has_output(b))
		n += bootstrap_pull(b, sent + n, 777);
	fd = open("bin/relay", O_RDONLY);
	ck_assert_int_eq(read(fd, file, sizeof(file)), FAKE_SIZE);
	close(fd);
	ck_assert_uint_eq(n, FAKE_SIZE);
	ck_assert_mem_eq(sent, file, n);
	feed("relay:: at /d/relay\n");
	ck_assert_int_eq(bootstrap_state(b), BOOTSTRAP_STARTING);
}
END_TEST

/* 0: of another size, 1: gone */
START_TEST(a_binary_that_was_replaced_is_not_sent)
{
	char line[256];

	begin_asked();
	if (_i == 0)
		put_file("bin/relay", "new", 3, 0755);
	else
		unlink("bin/relay");
	snprintf(line, sizeof(line), "relay:: want %s /d\n", type);
	feed(line);
	ck_assert_int_eq(bootstrap_state(b), BOOTSTRAP_FAILED);
	HAS(bootstrap_why(b), "replaced");
	ck_assert(!bootstrap_has_output(b));
}
END_TEST

/* By a terminal, or a cat: whole, with CR LF, behind a prompt, without its newline. */
START_TEST(an_echo_is_recognised)
{
	size_t cut;

	begin(_i % 2 == 0 ? NULL : "/opt/relay");
	take_script();
	for (cut = 0; cut <= script_n; cut++) {
		start("relay", NULL);
		if (_i / 2 > 0)
			feed("me@login$ ");
		bootstrap_feed(b, script, cut);
		bootstrap_feed(b, script + cut, script_n - cut);
		ck_assert_int_eq(bootstrap_state(b), BOOTSTRAP_FAILED);
		HAS(bootstrap_why(b), "came back");
	}
	start("relay", NULL);
	cut = (size_t)(strstr(script, "printf 'relay") - script) + strlen("printf 'relay");
	bootstrap_feed(b, script, cut);
	ck_assert_int_eq(bootstrap_state(b), BOOTSTRAP_ASKING);
	feed("%s %s\\n");
	ck_assert_int_eq(bootstrap_state(b), BOOTSTRAP_FAILED);
}
END_TEST

START_TEST(what_comes_behind_an_answer_is_no_answer)
{
	begin_asked();
	feed("relay:: at /x\n");
	bootstrap_feed(b, "\0\362reLAylink\r\n\n\376 at /y\n", 22);
	ck_assert_int_eq(bootstrap_state(b), BOOTSTRAP_STARTING);
	ck_assert_str_eq(bootstrap_path(b), "/x");
	bootstrap_release(b);
	bootstrap_release(b);
	ck_assert(!bootstrap_has_output(b));
}
END_TEST

START_TEST(answers_are_taken_out_of_the_noise)
{
	static const char *const noise[][2] = { { "", "" }, { "hello\n", "hello\n" }, { "relay:: at /x\n", "" },
		{ "a\nrelay:: want T /x\nb\nrelay:: at /x\nc", "a\nb\nc" }, { "arelay:: at /x\nb", "ab" },
		{ "a\nrelay:: at /x", "a\n" }, { "relay:: ", "" }, { "relay::\n", "relay::\n" },
		{ "relay:: 1\nrelay:: 2\nrelay:: 3\n", "" }, { "relay:relay:: 1\n: 2\n", "relay:: 2\n" } };
	char text[100];

	strcpy(text, noise[_i][0]);
	ck_assert_uint_eq(bootstrap_strip(text), strlen(noise[_i][1]));
	ck_assert_str_eq(text, noise[_i][1]);
}
END_TEST

/* ---- the script in shells ---- */

static const char *const shells[][4] = { { "sh" }, { "dash" }, { "bash" }, { "bash", "--posix" }, { "busybox", "sh" }, { "ksh" },
	{ "mksh" }, { "yash" }, { "yash", "--posix" }, { "zsh", "--emulate", "sh" } };
#define SHELLS ((int)(sizeof(shells) / sizeof(shells[0])))
#define NOBODY "/dev/null/none" /* where nothing can be made, by root neither */

static char home[128], tools[160];
static pid_t shell = -1;
static int to_shell, from_shell;
static char came[4096]; /* behind the answer */
static size_t came_n;

/* A PATH with what the script uses and nothing else; each can be taken away. */
static void
make_tools(void)
{
	snprintf(tools, sizeof(tools), "%s/tools", own_dir);
	snprintf(home, sizeof(home), "%s/home", own_dir);
	run("rm -rf %s", tools);
	run("chmod -R u+rwx home 2>/dev/null; rm -rf %s", home);
	mkdir("tools", 0755);
	mkdir("home", 0755);
	run("for t in cat chmod cksum dd find head id mkdir mv printf rm sh uname echo [; do ln -s \"$(PATH=/usr/bin:/bin which $t)\" %s; done", tools);
	setenv("HOME", home, 1);
	unsetenv("XDG_CACHE_HOME");
	unsetenv("XDG_RUNTIME_DIR");
	unsetenv("TMPDIR");
	unsetenv("ENV");
	setenv("LC_ALL", "C", 1);
}

/* false: it is not installed */
static bool
has_shell(int i)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "command -v %s >/dev/null", shells[i][0]);
	if (system(cmd) == 0)
		return true;
	printf("skipped: %s is not installed here\n", shells[i][0]);
	return false;
}

static void
start_shell(int i)
{
	int to[2], from[2];
	char program[256], cmd[64];
	FILE *f;

	signal(SIGPIPE, SIG_IGN);
	snprintf(cmd, sizeof(cmd), "command -v %s", shells[i][0]);
	f = popen(cmd, "r");
	ck_assert_int_eq(fscanf(f, "%255s", program), 1);
	pclose(f);
	ck_assert(pipe(to) == 0 && pipe(from) == 0);
	shell = fork();
	if (shell == 0) {
		signal(SIGPIPE, SIG_DFL);
		dup2(to[0], 0);
		dup2(from[1], 1);
		dup2(open("said", O_WRONLY | O_CREAT | O_TRUNC, 0600), 2);
		setenv("PATH", tools, 1);
		for (to[0] = 3; to[0] < 64; to[0]++)
			close(to[0]);
		execv(program, (char *const *)shells[i]);
		_exit(127);
	}
	close(to[0]);
	close(from[1]);
	to_shell = to[1];
	from_shell = from[0];
	fcntl(to_shell, F_SETFL, O_NONBLOCK);
	fcntl(from_shell, F_SETFL, O_NONBLOCK);
	fcntl(to_shell, F_SETFD, FD_CLOEXEC);
	fcntl(from_shell, F_SETFD, FD_CLOEXEC);
	came_n = 0;
}

/* What carrier.c does: a turn.  false: the shell has ended. */
static bool
turn(struct bootstrap *x)
{
	static unsigned char out[8192];
	static size_t at, n;
	struct pollfd p[2] = { { .fd = from_shell, .events = POLLIN }, { .fd = to_shell, .events = POLLOUT } };
	char in[1024];
	ssize_t r;

	if (at == n) {
		at = 0;
		n = bootstrap_pull(x, out, sizeof(out));
	}
	if (n == 0)
		p[1].fd = -1;
	ck_assert_int_ge(poll(p, 2, 1000), 0);
	if (n > 0 && (r = write(to_shell, out + at, n - at)) > 0)
		at += (size_t)r;
	else if (n > 0 && r == -1 && errno != EAGAIN)
		at = n;
	r = p[0].revents == 0 ? -1 : read(from_shell, in, sizeof(in));
	if (r > 0) {
		bootstrap_feed(x, in, (size_t)r);
		ck_assert_uint_lt(came_n + (size_t)r, sizeof(came));
		memcpy(came + came_n, in, (size_t)r);
		came_n += (size_t)r;
		came[came_n] = '\0';
	}
	if (r == 0)
		at = n = 0;
	return r != 0;
}

static void
end_shell(void)
{
	close(to_shell);
	close(from_shell);
	waitpid(shell, NULL, 0);
}

/* ${x} with a shell until it starts or fails, and what was started gives back what it gets: nothing was lost or taken too early. */
static void
talk(int i, struct bootstrap *x)
{
	bool goes_on = true;

	start_shell(i);
	UNTIL(!goes_on || bootstrap_state(x) == BOOTSTRAP_FAILED ||
		(bootstrap_state(x) == BOOTSTRAP_STARTING && strchr(came, '>') != NULL && came_n > 0 && strstr(came, "MAGIC") != NULL),
	    goes_on = turn(x));
	if (goes_on && bootstrap_state(x) == BOOTSTRAP_STARTING) {
		HAS(came, "MAGIC<-m -t 5 ->");
		ck_assert_int_eq(write(to_shell, "hello", 5), 5);
		UNTIL(strstr(came, ">hello") != NULL, ck_assert(turn(x)));
	}
	end_shell();
}

/* What the shell said on its stderr, which people would see. */
static const char *
said(void)
{
	static char text[1024];
	int fd = open("said", O_RDONLY);
	ssize_t n = read(fd, text, sizeof(text) - 1);

	close(fd);
	text[n > 0 ? n : 0] = '\0';
	return text;
}

static void
talks(int i)
{
	begin(NULL);
	came[0] = '\0';
	talk(i, b);
}

#define STARTS(copied) do { \
		ck_assert_msg(bootstrap_state(b) == BOOTSTRAP_STARTING, "%s: %d %s, %s", shells[_i][0], bootstrap_state(b), bootstrap_why(b), came); \
		ck_assert_int_eq(bootstrap_uploads(b), (copied)); \
	} while (0)

static void
no_parts(const char *where)
{
	char cmd[256], line[256] = "";
	FILE *f;

	snprintf(cmd, sizeof(cmd), "find %s -name '*.%ld.part' 2>/dev/null", where, (long)shell);
	f = popen(cmd, "r");
	ck_assert_msg(fgets(line, sizeof(line), f) == NULL, "left behind: %s", line);
	pclose(f);
}

#define EACH_SHELL(name) START_TEST(name) { if (!has_shell(_i)) return; make_tools();
#define END_EACH } END_TEST

/* First it is copied, then it is there. */
EACH_SHELL(the_first_start_copies_and_the_second_does_not)
	char path[512];
	struct stat st;

	talks(_i);
	STARTS(1);
	snprintf(path, sizeof(path), "%s/.cache/relay/relay-" RELAY_VERSION "-%s-%lu", home, type, fake_cksum());
	ck_assert_str_eq(bootstrap_path(b), path);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_eq(st.st_size, FAKE_SIZE);
	ck_assert_int_eq(st.st_mode & 0777, 0700);
	snprintf(path, sizeof(path), "%s/.cache/relay", home);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_eq(st.st_mode & 07777, 0700);
	no_parts(home);
	ck_assert_str_eq(said(), "");
	talks(_i);
	STARTS(0);
	ck_assert_str_eq(said(), "");
END_EACH

EACH_SHELL(a_spoiled_copy_is_made_again)
	struct stat st;
	int fd;

	talks(_i);
	STARTS(1);
	fd = open(bootstrap_path(b), O_WRONLY);
	ck_assert_int_eq(pwrite(fd, "?", 1, FAKE_SIZE - 7), 1);
	close(fd);
	talks(_i);
	STARTS(1);
	ck_assert_int_eq(truncate(bootstrap_path(b), 400), 0);
	talks(_i);
	STARTS(1);
	ck_assert_int_eq(stat(bootstrap_path(b), &st), 0);
	ck_assert_int_eq(st.st_size, FAKE_SIZE);
	ck_assert_int_eq(chmod(bootstrap_path(b), 0600), 0);
	talks(_i);
	STARTS(1);
	talks(_i);
	STARTS(0);
END_EACH

/* In the PATH, ~/.local/bin, ~/bin; one of another version is not used. */
EACH_SHELL(a_relay_that_is_there_is_used)
	static const char *const places[] = { "tools/relay", "home/.local/bin/relay", "home/bin/relay" };
	char path[256];
	int i;

	run("mkdir -p %s/.local/bin home/bin", home);
	for (i = 2; i >= 0; i--) {
		put_fake(places[i], FAKE);
		talks(_i);
		STARTS(0);
		snprintf(path, sizeof(path), "%s/%s", own_dir, places[i]);
		ck_assert_str_eq(bootstrap_path(b), i == 0 ? "relay" : path);
	}
	for (i = 0; i < 3; i++)
		put_fake(places[i], "#!/bin/sh\necho relay " RELAY_VERSION ".1\nexit\n");
	talks(_i);
	STARTS(1);
END_EACH

EACH_SHELL(a_named_relay_is_used_whatever_its_name)
	static const char *const names[] = { "plain", "two words", "it's", "''", "\"q\"", "$HOME", "`id`", "a\\b", "*", "-x", ";x&", "#",
		"!x", "{a,b}", "\xc3\xa9", "~" };
	char path[256], real[256];
	size_t i;

	for (i = 0; i < 2 * sizeof(names) / sizeof(names[0]); i++) {
		if ((unsigned char)names[i / 2][0] >= 0x80 && strcmp(shells[_i][0], "yash") == 0)
			continue; /* which reads nothing that its locale does not know */
		snprintf(real, sizeof(real), "%s/%s", home, names[i / 2]);
		snprintf(path, sizeof(path), "%s/%s", i % 2 == 0 ? home : "~", names[i / 2]);
		put_fake(real, FAKE);
		begin(path);
		came[0] = '\0';
		talk(_i, b);
		STARTS(0);
		ck_assert_str_eq(bootstrap_path(b), real);
	}
END_EACH

EACH_SHELL(a_named_relay_that_is_not_there_is_told)
	begin("~/no such");
	talk(_i, b);
	ck_assert_int_eq(bootstrap_state(b), BOOTSTRAP_FAILED);
	HAS(bootstrap_why(b), "-x");
	HAS(bootstrap_why(b), "home/no such: ");
	ck_assert(strstr(bootstrap_why(b), "ot found") != NULL || strstr(bootstrap_why(b), "o such file") != NULL); /* as the shell says it */
END_EACH

/* ~/ alone is the home. */
EACH_SHELL(a_named_relay_may_lie_in_a_directory_named_like_a_user)
	run("rm -rf '~x'; mkdir '~x'%s", "");
	put_fake("~x/relay", FAKE);
	begin("~x/relay");
	came[0] = '\0';
	talk(_i, b);
	STARTS(0);
	ck_assert_str_eq(bootstrap_path(b), "~x/relay");
END_EACH

/* 0: it prints a warning as well, 1: nothing, 2: more than a line */
EACH_SHELL(a_named_relay_may_print_something_else)
	static const char *const texts[] = { "#!/bin/sh\necho warning >&2\n" FAKE, "#!/bin/sh\nexit 3\n",
		"#!/bin/sh\necho One >&2; echo '*' >&2; exit 1\n" };
	static const char *const says[] = { NULL, "/home/mine: status 3", "/home/mine: One *" };
	int i;

	for (i = 0; i < 3; i++) {
		put_fake("home/mine", texts[i]);
		begin("~/mine");
		came[0] = '\0';
		talk(_i, b);
		ck_assert_int_eq(bootstrap_state(b), i == 0 ? BOOTSTRAP_STARTING : BOOTSTRAP_FAILED);
		if (i > 0)
			HAS(bootstrap_why(b), says[i]);
	}
END_EACH

/* Of another version, or something else: it is not started. */
EACH_SHELL(a_named_relay_of_another_version_is_told)
	put_fake("home/old", "#!/bin/sh\necho relay 0.0; exit\n");
	begin("~/old");
	talk(_i, b);
	ck_assert_int_eq(bootstrap_state(b), BOOTSTRAP_FAILED);
	HAS(bootstrap_why(b), "/home/old: relay 0.0");
END_EACH

/* With a dd that tells of itself: byte by byte, since there is no head(1). */
EACH_SHELL(without_head_it_is_dd_that_reads)
	if (strcmp(shells[_i][0], "busybox") != 0) { /* which has a head of its own */
		run("d=$(command -v dd); rm tools/dd tools/head; "
		    "printf '#!/bin/sh\\necho \"$@\" >\"$HOME/dd\"\\nexec '$d' \"$@\"\\n' >tools/dd; chmod 755 tools/dd%s", "");
		talks(_i);
		STARTS(1);
		ck_assert_int_eq(access("home/dd", F_OK), 0);
		no_parts(home);
	}
END_EACH

/* Does the shell find ${tool} without any file? */
static bool
has_own(int i, const char *tool)
{
	char cmd[256];

	snprintf(cmd, sizeof(cmd), "s=$(command -v %s); PATH=/nowhere; export PATH; \"$s\" %s -c 'command -v %s' >/dev/null 2>&1",
	    shells[i][0], shells[i][1] == NULL ? "" : shells[i][1], tool);
	return system(cmd) == 0;
}

static void
begin_without(const char *tools_text)
{
	make_tools();
	run("cd tools && rm %s", tools_text);
	setenv("XDG_CACHE_HOME", NOBODY, 1);
	setenv("TMPDIR", home, 1);
	begin(NULL);
	came[0] = '\0';
}

static void
lacks(const char *tool)
{
	ck_assert_int_eq(bootstrap_state(b), BOOTSTRAP_FAILED);
	HAS(bootstrap_why(b), tool);
	HAS(bootstrap_why(b), "-x");
	HAS_NOT(bootstrap_why(b), "make room");
	ck_assert_int_eq(bootstrap_uploads(b), 0);
	ck_assert_int_eq(rmdir(home), 0); /* nothing was made there */
	ck_assert_str_eq(said(), "");
}

EACH_SHELL(a_missing_tool_is_named)
	static const char *const names[] = { "cat", "chmod", "find", "id", "mkdir", "mv", "rm", "uname" };
	char named[32];
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (has_own(_i, names[i]))
			continue;
		begin_without(names[i]);
		talk(_i, b);
		snprintf(named, sizeof(named), "lacks %s,", names[i]);
		lacks(named);
	}
END_EACH

/* 0: two, 1: what reads the binary, 2: what compares it; wc is there in 0 alone */
EACH_SHELL(missing_tools_are_named)
	static const char *const names[][2] = { { "find id", "lacks find id," }, { "head dd", "lacks dd," }, { "cksum", "lacks cksum," } };
	int i;

	for (i = 0; i < 3; i++) {
		if (has_own(_i, "find") || has_own(_i, "dd") || has_own(_i, "cksum"))
			continue;
		begin_without(names[i][0]);
		talk(_i, b);
		lacks(names[i][1]);
	}
END_EACH

/* 0: id is missing, 1: it fails, 2: it prints nothing: no name without a user id */
EACH_SHELL(no_directory_is_made_for_an_unknown_user)
	bool had = access("/tmp/relay-", F_OK) == 0;
	char path[256];
	int i;

	for (i = 0; i < 3; i++) {
		begin_without("id");
		if (i > 0)
			run("printf '#!/bin/sh\\nexit %s\\n' >tools/id; chmod 755 tools/id", i == 1 ? "1" : "0");
		talk(_i, b);
		snprintf(path, sizeof(path), "%s/relay-", home);
		ck_assert_int_eq(access(path, F_OK), -1);
		ck_assert(had || access("/tmp/relay-", F_OK) == -1);
		if (!has_own(_i, "id"))
			lacks("lacks id,");
	}
END_EACH

/* Then the sizes are compared. */
EACH_SHELL(without_cksum_it_goes_on)
	run("rm tools/cksum; ln -s $(command -v wc) tools%s", "");
	talks(_i);
	STARTS(1);
	ck_assert_str_eq(said(), "");
	talks(_i);
	STARTS(0);
	ck_assert_str_eq(said(), "");
	ck_assert_int_eq(truncate(bootstrap_path(b), 400), 0);
	talks(_i);
	STARTS(1);
	ck_assert_int_eq(chmod(bootstrap_path(b), 0600), 0);
	talks(_i);
	STARTS(1);
	no_parts(home);
END_EACH

/* As a missing loader, a library that is too old, and a processor that is too old look to a shell. */
static const struct {
	const char *text, *says;
} refusals[] = {
	{ "#!/nonexistent/loader\n", "" },
	{ "#!/bin/sh\necho \"$0: libc.so: version 'GLIBC_9.9' not found\" >&2; echo Two >&2; exit 1\n",
	    "libc.so: version 'GLIBC_9.9' not found Two" },
	{ "#!/bin/sh\nkill -9 $$\n", "" },
	{ "#!/bin/sh\necho 'relay 0.0 *'; exit\n", "relay 0.0 *" },
	{ "#!/bin/sh\nexit\n", "no output" },
};
#define REFUSALS ((int)(sizeof(refusals) / sizeof(refusals[0])))

static void
begin_refused(int refusal)
{
	our_file();
	put_fake("bin/relay", refusals[refusal].text);
	start(own_path(), NULL);
	came[0] = '\0';
}

static void
is_refused(int refusal, int copies)
{
	ck_assert_int_eq(bootstrap_state(b), BOOTSTRAP_FAILED);
	HAS(bootstrap_why(b), home);
	HAS(bootstrap_why(b), refusals[refusal].says);
	if (refusal == 0)
		ck_assert_msg(strstr(bootstrap_why(b), "ot found") != NULL || strstr(bootstrap_why(b), "o such file") != NULL, "%s", bootstrap_why(b));
	HAS(bootstrap_why(b), "-x");
	HAS_NOT(bootstrap_why(b), "make room");
	ck_assert_int_eq(bootstrap_uploads(b), copies);
	no_parts(home);
	run("[ -z \"$(find %s -type f)\" ]", home);
}

/* There are two places: the second one would not run it either. */
EACH_SHELL(a_copy_that_does_not_run_is_sent_once)
	int i;

	for (i = 0; i < REFUSALS; i++) {
		make_tools();
		setenv("TMPDIR", home, 1);
		begin_refused(i);
		talk(_i, b);
		is_refused(i, 1);
		ck_assert_str_eq(said(), "");
		begin_refused(i);
		talk(_i, b);
		is_refused(i, 0);
		bootstrap_free(b); /* another run */
		b = NULL;
	}
END_EACH

/* A home that is shared with a host where it ran: the bytes are right. */
EACH_SHELL(a_copy_that_is_there_and_does_not_run_is_not_sent)
	char path[512];

	begin_refused(1);
	snprintf(path, sizeof(path), "%s/.cache/relay/relay-" RELAY_VERSION "-%s-%lu", home, type, fake_cksum());
	run("mkdir -p -m 700 %s/.cache/relay", home);
	put_fake(path, refusals[1].text);
	talk(_i, b);
	ck_assert_int_eq(bootstrap_state(b), BOOTSTRAP_FAILED);
	HAS(bootstrap_why(b), refusals[1].says);
	ck_assert_int_eq(bootstrap_uploads(b), 0);
	ck_assert_int_eq(access(path, X_OK), 0);
END_EACH

/* The loader may warn on stderr of what has nothing to do with relay (LD_PRELOAD). */
EACH_SHELL(a_warning_of_the_loader_is_no_refusal)
	our_file();
	put_fake("bin/relay", "#!/bin/sh\necho warning >&2\n" FAKE);
	start(own_path(), NULL);
	came[0] = '\0';
	talk(_i, b);
	STARTS(1);
END_EACH

/* Where it is put: XDG_CACHE_HOME, ~/.cache, XDG_RUNTIME_DIR, TMPDIR, in this order, blanks and all. */
EACH_SHELL(the_next_place_is_taken_when_one_will_not_do)
	static const char *const names[] = { "cache dir", "run dir", "tmp dir" };
	char path[256], found[512];
	int i;

	for (i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "%s/%s", home, names[0]);
		setenv("XDG_CACHE_HOME", i > 0 ? NOBODY : path, 1);
		snprintf(path, sizeof(path), "%s/%s", home, names[1]);
		setenv("XDG_RUNTIME_DIR", i > 1 ? NOBODY : path, 1);
		snprintf(path, sizeof(path), "%s/%s", home, names[2]);
		setenv("TMPDIR", path, 1);
		talks(_i);
		STARTS(1);
		snprintf(found, sizeof(found), i < 2 ? "%s/%s/relay/relay-" : "%s/%s/relay-", home, names[i]);
		HAS(bootstrap_path(b), found);
	}
END_EACH

/* Of others, or open to them: a link, a file, mode 755.  A directory that is ours but for the set-group-id of its parent will do. */
EACH_SHELL(a_place_that_is_not_ours_alone_is_not_taken)
	char path[256];
	int i;

	setenv("TMPDIR", home, 1);
	for (i = 0; i < 4; i++) {
		snprintf(path, sizeof(path), "%s/c%d", home, i);
		setenv("XDG_CACHE_HOME", path, 1);
		mkdir(path, 0755);
		snprintf(path, sizeof(path), "%s/c%d/relay", home, i);
		if (i == 0)
			mkdir(path, 0755);
		else if (i == 1)
			ck_assert_int_eq(symlink(home, path), 0);
		else if (i == 2)
			put_file(path, "x", 1, 0700);
		else
			mkdir(path, 0700);
		if (i == 0)
			chmod(path, 0770);
		if (i == 3)
			chmod(path, 02700);
		talks(_i);
		STARTS(i == 0 || i == 3);
		snprintf(path, sizeof(path), i == 3 ? "%s/c3/relay/relay-" : "%s/relay-", home);
		HAS(bootstrap_path(b), path);
	}
END_EACH

/* Each place is tried, each is named, nothing is left there. */
EACH_SHELL(without_any_place_each_is_told_with_its_cause)
	char mine[64], there[80];
	bool had;

	snprintf(mine, sizeof(mine), "/tmp/relay-%lu", (unsigned long)getuid());
	had = access(mine, F_OK) == 0;
	run("rm tools/mv; printf '#!/bin/sh\necho no move >&2; exit 1\n' >tools/mv; chmod 755 tools/mv%s", "");
	setenv("XDG_CACHE_HOME", NOBODY, 1);
	setenv("XDG_RUNTIME_DIR", home, 1);
	mkdir("home/relay", 0755);
	setenv("TMPDIR", home, 1);
	begin(NULL);
	talk(_i, b);
	ck_assert_int_eq(bootstrap_state(b), BOOTSTRAP_FAILED);
	HAS(bootstrap_why(b), NOBODY "/relay: ");
	HAS(bootstrap_why(b), "Not a directory");
	HAS(bootstrap_why(b), "/home/relay: it is not a directory of mode 0700 of this user; ");
	if (!has_own(_i, "mv"))
		HAS(bootstrap_why(b), ": no move; ");
	snprintf(there, sizeof(there), "; %s: ", mine);
	HAS(bootstrap_why(b), there);
	HAS(bootstrap_why(b), "-x");
	ck_assert_int_ne(system("ls home/relay-*/* >/dev/null 2>&1"), 0);
	no_parts(home);
	no_parts(mine);
	if (!had)
		rmdir(mine);
END_EACH

EACH_SHELL(a_type_without_a_binary_is_told)
	start("/nowhere/relay", NULL);
	talk(_i, b);
	ck_assert_int_eq(bootstrap_state(b), BOOTSTRAP_FAILED);
	HAS(bootstrap_why(b), type);
	ck_assert_int_eq(access("home/.cache", F_OK), -1);
END_EACH

/* The line ends in the middle of the binary. */
EACH_SHELL(a_copy_that_is_cut_leaves_nothing)
	char rest[64];

	begin(NULL);
	start_shell(_i);
	UNTIL(bootstrap_state(b) == BOOTSTRAP_UPLOADING, ck_assert(turn(b)));
	ck_assert_int_eq(turn(b), true);
	close(to_shell);
	WAIT_FOR(read(from_shell, rest, sizeof(rest)) == 0);
	waitpid(shell, NULL, 0);
	close(from_shell);
	no_parts(home);
	ck_assert_int_ne(system("ls home/.cache/relay/* >/dev/null 2>&1"), 0);
	talks(_i);
	STARTS(1);
END_EACH

/* One starts while another is in the middle of its copy. */
EACH_SHELL(two_starts_at_once_spoil_nothing)
	struct bootstrap *other;
	pid_t first;
	int in, out;

	begin(NULL);
	other = b;
	b = NULL;
	start_shell(_i);
	UNTIL(bootstrap_state(other) == BOOTSTRAP_UPLOADING, ck_assert(turn(other)));
	turn(other);
	first = shell;
	in = from_shell;
	out = to_shell;
	while (bootstrap_has_output(other) && (poll(NULL, 0, 1), came_n < 1))
		;
	talks(_i);
	STARTS(1);
	shell = first;
	from_shell = in;
	to_shell = out;
	came_n = 0;
	UNTIL(strstr(came, "MAGIC") != NULL && came_n > 0, turn(other));
	ck_assert_int_eq(bootstrap_state(other), BOOTSTRAP_STARTING);
	end_shell();
	bootstrap_free(other);
	no_parts(home);
	talks(_i);
	STARTS(0);
END_EACH

static void
know_type(void)
{
	struct utsname us;

	enter_dir();
	uname(&us);
	snprintf(type, sizeof(type), "%.30s-%.30s", us.sysname, us.machine);
}

#define SHELL_TEST(f) tcase_add_loop_test(tc, f, 0, SHELLS)

TESTS("boot")
{
	tcase_set_timeout(tc, 60);
	tcase_add_unchecked_fixture(tc, know_type, leave_dir);
	tcase_add_test(tc, a_sum_is_that_of_cksum);
	tcase_add_loop_test(tc, a_sum_is_what_cksum_of_this_host_says, 0, 9);
	tcase_add_test(tc, our_own_file_is_for_our_own_type);
	tcase_add_test(tc, earlier_places_go_first);
	tcase_add_test(tc, a_binary_of_a_stranger_is_not_offered);
	tcase_add_test(tc, what_is_no_binary_is_not_offered);
	tcase_add_loop_test(tc, the_script_is_one_line_without_a_mark, 0, 2);
	tcase_add_loop_test(tc, the_script_is_the_same_in_pieces, 1, 12);
	tcase_add_loop_test(tc, a_long_path_of_quotes_stays_in_its_room, 0, 2);
	tcase_add_loop_test(tc, an_answer_is_the_same_cut_at_every_byte, 0, ANSWERS);
	tcase_add_test(tc, noise_of_any_length_hides_no_answer);
	tcase_add_test(tc, an_overlong_answer_is_cut_and_the_next_one_is_read);
	tcase_add_test(tc, a_failure_is_the_end);
	tcase_add_loop_test(tc, a_failure_tells_what_to_do, 0, 4);
	tcase_add_loop_test(tc, a_type_is_wanted_whole, 0, 2);
	tcase_add_test(tc, no_more_copies_than_places_are_sent);
	tcase_add_loop_test(tc, a_binary_that_was_refused_is_not_sent_again, 0, 3);
	tcase_add_test(tc, the_binary_is_sent_as_it_is);
	tcase_add_loop_test(tc, a_binary_that_was_replaced_is_not_sent, 0, 2);
	tcase_add_loop_test(tc, an_echo_is_recognised, 0, 4);
	tcase_add_loop_test(tc, answers_are_taken_out_of_the_noise, 0, 10);
	tcase_add_test(tc, what_comes_behind_an_answer_is_no_answer);
	SHELL_TEST(the_first_start_copies_and_the_second_does_not);
	SHELL_TEST(a_spoiled_copy_is_made_again);
	SHELL_TEST(a_relay_that_is_there_is_used);
	SHELL_TEST(a_named_relay_is_used_whatever_its_name);
	SHELL_TEST(a_named_relay_that_is_not_there_is_told);
	SHELL_TEST(a_named_relay_may_lie_in_a_directory_named_like_a_user);
	SHELL_TEST(a_named_relay_may_print_something_else);
	SHELL_TEST(a_named_relay_of_another_version_is_told);
	SHELL_TEST(without_head_it_is_dd_that_reads);
	SHELL_TEST(a_missing_tool_is_named);
	SHELL_TEST(missing_tools_are_named);
	SHELL_TEST(no_directory_is_made_for_an_unknown_user);
	SHELL_TEST(without_cksum_it_goes_on);
	SHELL_TEST(a_copy_that_does_not_run_is_sent_once);
	SHELL_TEST(a_copy_that_is_there_and_does_not_run_is_not_sent);
	SHELL_TEST(a_warning_of_the_loader_is_no_refusal);
	SHELL_TEST(the_next_place_is_taken_when_one_will_not_do);
	SHELL_TEST(a_place_that_is_not_ours_alone_is_not_taken);
	SHELL_TEST(without_any_place_each_is_told_with_its_cause);
	SHELL_TEST(a_type_without_a_binary_is_told);
	SHELL_TEST(a_copy_that_is_cut_leaves_nothing);
	SHELL_TEST(two_starts_at_once_spoil_nothing);
}
