/*
 * check_bootstrap.c - the near side's answers to a far shell, and the script
 * itself in the shells of this host.
 */
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

/*
 * A stand-in for relay. With -V it prints its version. Otherwise it prints a
 * magic and its options, and sends back what it reads.
 */
#define FAKE                                                        \
	"#!/bin/sh\n[ \"$1\" = -V ] && { echo relay " RELAY_VERSION \
	"; exit; }\nprintf 'MAGIC<%s>' \"$*\"\nexec cat\n"
#define FAKE_SIZE 100000

static unsigned char fake[FAKE_SIZE]; /* the contents written last */

/* The contents are more than a pipe holds, and have all byte values. */
static void
put_fake(const char *path, const char *text)
{
	uint32_t seed = 7;
	size_t i;

	for (i = 0; i < sizeof(fake); i++)
		fake[i] = (unsigned char)((seed = seed * 1664525 + 1013904223) >> 24);
	memcpy(fake, text, strlen(text));
	put_file(path, fake, sizeof(fake), 0755);
}

static unsigned long
fake_cksum(void)
{
	return bootstrap_cksum(fake, sizeof(fake));
}

/* The near side is bin/relay in the directory of this test. */
static const char *
own_path(void)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/bin/relay", own_dir);
	return path;
}

static const char *
put_own(void)
{
	mkdir("bin", 0755);
	put_fake(own_path(), FAKE);
	return own_path();
}

/* Move up to ${room} bytes that ${x} sends to ${dst}. */
static size_t
pull_bytes(struct bootstrap *x, unsigned char *dst, size_t room)
{
	const unsigned char *p;
	size_t n = bootstrap_output(x, &p);

	if (n > room)
		n = room;
	if (n > 0)
		memcpy(dst, p, n);
	bootstrap_wrote(x, n);
	return n;
}

static void
take_script(void)
{
	script_n = pull_bytes(b, (unsigned char *)script, sizeof(script) - 1);
	script[script_n] = '\0';
	ck_assert(!bootstrap_has_output(b));
}

/* Begin a start by a near side whose file is ${self}. */
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
	start(put_own(), far_path);
	ck_assert_int_eq(bootstrap_facts(b)->state, BOOTSTRAP_ASKING);
}

static void
begin_sent(void)
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

START_TEST(known_checksums)
{
	static const struct {
		const char *text;
		uint32_t sum;
	} known[] = { { "", 4294967295U }, { "123456789", 930766865U }, { "a", 1220704766U } };
	int i;

	for (i = 0; i < 3; i++)
		ck_assert_uint_eq(
		    bootstrap_cksum((const unsigned char *)known[i].text, strlen(known[i].text)),
		    known[i].sum);
}
END_TEST

START_TEST(checksums_agree_with_cksum)
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

/* ---- the binaries on offer ---- */

#define BINARIES "binaries='"

/* The binaries that the script offers, with a blank before and after each. */
static const char *
offered(void)
{
	static char list[1024];
	char *at, *end;

	at = strstr(script, BINARIES);
	ck_assert_ptr_nonnull(at);
	at += strlen(BINARIES);
	end = strchr(at, '\'');
	snprintf(list, sizeof(list), " %.*s ", (int)(end - at), at);
	return list;
}

static int
n_offered(void)
{
	const char *at;
	int n = 0;

	for (at = offered(); (at = strchr(at, ':')) != NULL; at++)
		n++;
	return n / 2;
}

/*
 * Is a binary of type ${wanted} offered whose contents are the ${n} bytes at
 * ${p}?
 */
static bool
is_offered(const char *wanted, const void *p, size_t n)
{
	char text[128];

	snprintf(
	    text, sizeof(text), " %s:%lu:%zu ", wanted, (unsigned long)bootstrap_cksum(p, n), n);
	return strstr(offered(), text) != NULL;
}

START_TEST(own_file_is_offered_for_own_type)
{
	begin_sent();
	ck_assert_int_eq(n_offered(), 1);
	ck_assert(is_offered(type, fake, FAKE_SIZE));
}
END_TEST

#define ELF_SIZE 68

/* An ELF program of 64 bits; ${p_type} of its program header: 3 is PT_INTERP. */
static const unsigned char *
put_elf(const char *path, int p_type)
{
	static unsigned char elf[2][ELF_SIZE];
	unsigned char *p = elf[p_type == 3];

	memcpy(p, "\177ELF\2\1", 6);
	p[32] = 64; /* e_phoff */
	p[54] = 56; /* e_phentsize */
	p[56] = 1;  /* e_phnum */
	p[64] = (unsigned char)p_type;
	put_file(path, p, ELF_SIZE, 0755);
	return p;
}

static void
make_prefix(void)
{
	mkdir("lib", 0755);
	mkdir("lib/relay", 0755);
	mkdir("bin", 0755);
}

START_TEST(static_binary_is_preferred)
{
	const unsigned char *dynamic, *fixed;
	char beside[128], installed[128];

	make_prefix();
	snprintf(beside, sizeof(beside), "bin/relay-%s", type);
	snprintf(installed, sizeof(installed), "lib/relay/relay-%s", type);
	dynamic = put_elf(own_path(), 3);
	start(own_path(), NULL);
	take_script();
	ck_assert(is_offered(type, dynamic, ELF_SIZE));
	fixed = put_elf(own_path(), 1);
	put_elf(installed, 3);
	start(own_path(), NULL);
	take_script();
	ck_assert(is_offered(type, fixed, ELF_SIZE));
	put_elf(own_path(), 3);
	put_file(beside, "beside", 6, 0755);
	start(own_path(), NULL);
	take_script();
	ck_assert(is_offered(type, "beside", 6));
	put_file(installed, "installed", 9, 0755);
	start(own_path(), NULL);
	take_script();
	ck_assert(is_offered(type, "installed", 9));
	ck_assert_int_eq(n_offered(), 1);
	run("rm -r lib bin", "");
}
END_TEST

/* 0: a static binary, 1: a dynamic one */
START_TEST(dynamic_binary_is_reported)
{
	char line[256];

	make_prefix();
	put_elf(own_path(), _i == 0 ? 1 : 3);
	start(own_path(), NULL);
	take_script();
	snprintf(line, sizeof(line), "relay:: want %s /d\n", type);
	feed(line);
	ck_assert_int_eq(bootstrap_facts(b)->state, BOOTSTRAP_UPLOADING);
	ck_assert_int_eq(bootstrap_facts(b)->upload_is_dynamic, _i);
	snprintf(line, sizeof(line), "relay:: refuse %s /d: GLIBC_2.34 not found\n", type);
	feed(line);
	HAS(bootstrap_facts(b)->why, "/d: GLIBC_2.34 not found; ");
	if (_i == 1)
		HAS(bootstrap_facts(b)->why, "make static && make install");
	else
		HAS_NOT(bootstrap_facts(b)->why, "make static");
	run("rm -r lib bin", "");
}
END_TEST

/* The order is lib/relay, the directory of the own file. */
START_TEST(first_directory_with_a_type_is_used)
{
	char path[128];

	make_prefix();
	put_file("lib/relay/relay-Linux-riscv64", "lib", 3, 0755);
	put_file("bin/relay-Linux-riscv64", "beside", 6, 0755);
	put_file("bin/relay-Darwin-arm64", "apple", 5, 0755);
	snprintf(path, sizeof(path), "lib/relay/relay-%s", type);
	put_file(path, "own", 3, 0755);
	begin_sent();
	ck_assert_int_eq(n_offered(), 3);
	ck_assert(is_offered("Linux-riscv64", "lib", 3));
	ck_assert(is_offered("Darwin-arm64", "apple", 5));
	ck_assert(is_offered(type, "own", 3));
	run("rm -r lib bin", "");
}
END_TEST

/* Other users may have put files into the directory of relay. */
START_TEST(binary_of_another_user_is_not_offered)
{
	if (getuid() != 0)
		return;
	put_own();
	put_file("bin/relay-Linux-riscv64", "foreign", 7, 0755);
	put_file("bin/relay-Linux-ppc64le", "ours", 4, 0755);
	ck_assert_int_eq(chown("bin/relay-Linux-riscv64", 54321, 54321), 0);
	ck_assert_int_eq(mkfifo("bin/relay-Darwin-arm64", 0666), 0);
	begin_sent();
	ck_assert_int_eq(n_offered(), 2);
	ck_assert(is_offered("Linux-ppc64le", "ours", 4));
	run("chown 54321 bin/relay bin/relay-Linux-ppc64le", "");
	start(own_path(), NULL);
	take_script();
	ck_assert_int_eq(n_offered(), 3);
	run("rm -r bin", "");
}
END_TEST

START_TEST(only_usable_files_are_offered)
{
	mkdir("bin", 0755);
	put_file("bin/relay-Linux-riscv64", "", 0, 0755);
	mkdir("bin/relay-Linux-ppc64le", 0755);
	put_file("bin/relay-Darwin-arm64", "", 0, 0755);
	ck_assert_int_eq(truncate("bin/relay-Darwin-arm64", 16 * 1024 * 1024), 0);
	begin_sent();
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

START_TEST(script_is_one_line_without_a_mark)
{
	begin(_i == 0 ? NULL : "~/my relay");
	take_script();
	ck_assert_ptr_eq(strchr(script, '\n'), script + script_n - 1);
	HAS_NOT(script, "relay:: ");
	ck_assert_uint_lt(script_n, 4096); /* bytes of a terminal's line */
	HAS(script, "args='-m -t 5 -'");
	ck_assert_ptr_eq(strstr(script, MUX_SCRIPT), script);
}
END_TEST

START_TEST(script_is_the_same_in_pieces)
{
	static char whole[sizeof(script)];
	size_t n = 0, got;

	begin_sent();
	memcpy(whole, script, sizeof(whole));
	begin(NULL);
	while (bootstrap_has_output(b)) {
		got = pull_bytes(b, (unsigned char *)script + n, (size_t)_i);
		ck_assert_uint_gt(got, 0);
		n += got;
	}
	ck_assert_uint_eq(pull_bytes(b, (unsigned char *)script + n, 9), 0);
	script[n] = '\0';
	ck_assert_str_eq(script, whole);
}
END_TEST

START_TEST(long_path_of_quotes_is_cut)
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
	const char *message;
} answers[] = { { "at /home/me/relay", BOOTSTRAP_STARTING, NULL },
	{ "want %s /home/me/x", BOOTSTRAP_UPLOADING, NULL },
	{ "none Plan9-mips", BOOTSTRAP_FAILED, "Plan9-mips" },
	{ "no ~/x: not found", BOOTSTRAP_FAILED, "~/x: not found" },
	{ "fail /a: full; /b: read-only", BOOTSTRAP_FAILED, "/a: full; /b: read-only" },
	{ "lack find mv", BOOTSTRAP_FAILED, "find mv" },
	{ "refuse %s /a: no loader", BOOTSTRAP_FAILED, "/a: no loader" },
	{ "refuse /a", BOOTSTRAP_FAILED, "unexpected answer" },
	{ "refuse 7", BOOTSTRAP_FAILED, "unexpected answer" },
	{ "huh", BOOTSTRAP_FAILED, "unexpected answer" },
	{ "", BOOTSTRAP_FAILED, "unexpected answer" },
	{ "want ZX-81 /x", BOOTSTRAP_FAILED, "not offered" },
	{ "want", BOOTSTRAP_FAILED, "not offered" }, { "want ", BOOTSTRAP_FAILED, "not offered" },
	{ "wanton %s /x", BOOTSTRAP_FAILED, "unexpected answer" } };
#define ANSWERS ((int)(sizeof(answers) / sizeof(answers[0])))

static const char *const before[] = { "", "Welcome!\n", "no newline at its end", "relay",
	"relay:", "relay: : ", "rerelay:", "relay::relay:", "\rrelay::\n", "\n\n", "\xff\xfe\x01" };
#define BEFORE ((int)(sizeof(before) / sizeof(before[0])))

static void
is_taken(int i)
{
	ck_assert_int_eq(bootstrap_facts(b)->state, answers[i].state);
	if (answers[i].message != NULL)
		HAS(bootstrap_facts(b)->why, answers[i].message);
	if (bootstrap_facts(b)->state == BOOTSTRAP_STARTING)
		ck_assert_str_eq(bootstrap_facts(b)->path, "/home/me/relay");
	if (bootstrap_facts(b)->state == BOOTSTRAP_UPLOADING)
		ck_assert_uint_eq(bootstrap_facts(b)->upload_size, FAKE_SIZE);
	ck_assert_int_eq(bootstrap_has_output(b), bootstrap_facts(b)->state == BOOTSTRAP_UPLOADING);
}

START_TEST(answer_is_the_same_cut_at_every_byte)
{
	char line[256], text[400];
	size_t n, cut;
	int j;

	snprintf(line, sizeof(line), answers[_i].line, type);
	for (j = 0; j < 2 * BEFORE; j++) {
		n = (size_t)snprintf(text, sizeof(text), "%srelay:: %s%s", before[j / 2], line,
		    j % 2 == 0 ? "\n" : "\r\n");
		for (cut = 0; cut <= n; cut++) {
			begin_sent();
			bootstrap_feed(b, text, cut);
			ck_assert_int_eq(
			    bootstrap_facts(b)->state, cut == n ? answers[_i].state : BOOTSTRAP_ASKING);
			bootstrap_feed(b, text + cut, n - cut);
			is_taken(_i);
		}
	}
}
END_TEST

START_TEST(answer_is_found_after_any_banner)
{
	char noise[2600];
	size_t n;

	memset(noise, 'n', sizeof(noise));
	for (n = 0; n < sizeof(noise); n++) {
		start("relay", NULL);
		take_script();
		bootstrap_feed(b, noise, n);
		feed("relay:: at /home/me/relay\n");
		is_taken(0);
	}
}
END_TEST

START_TEST(long_answer_is_cut_and_the_next_is_read)
{
	static char more[70000];

	memset(more, 'x', sizeof(more) - 1);
	begin_sent();
	feed("relay:: at /");
	feed(more);
	ck_assert_int_eq(bootstrap_facts(b)->state, BOOTSTRAP_ASKING);
	feed("\n");
	ck_assert_int_eq(bootstrap_facts(b)->state, BOOTSTRAP_STARTING);
	ck_assert_uint_gt(strlen(bootstrap_facts(b)->path), 500);
	ck_assert_uint_lt(strlen(bootstrap_facts(b)->path), BOOTSTRAP_PATH);
	feed("relay:: fail ");
	feed(more);
	feed("\n");
	ck_assert_int_eq(bootstrap_facts(b)->state, BOOTSTRAP_FAILED);
	HAS(bootstrap_facts(b)->why, "xxx");
	HAS(bootstrap_facts(b)->why, "-x");
}
END_TEST

START_TEST(nothing_is_read_after_a_failure)
{
	begin_sent();
	feed("relay:: none T\nrelay:: at /x\n");
	ck_assert_int_eq(bootstrap_facts(b)->state, BOOTSTRAP_FAILED);
	feed("relay:: at /x\n");
	ck_assert_int_eq(bootstrap_facts(b)->state, BOOTSTRAP_FAILED);
	HAS(bootstrap_facts(b)->why, "its type, T:");
}
END_TEST

START_TEST(failure_message_has_a_remedy)
{
	static const char *const failures[] = { "relay:: none T\n", "relay:: fail /a: full\n",
		"relay:: lack mv\n", "relay:: refuse %s /a: no\n" };
	char line[256];

	begin_sent();
	snprintf(line, sizeof(line), failures[_i], type);
	feed(line);
	HAS(bootstrap_facts(b)->why, "-x");
	HAS_NOT(bootstrap_facts(b)->why, "\n");
}
END_TEST

START_TEST(type_is_compared_whole)
{
	char line[256];

	begin_sent();
	snprintf(line, sizeof(line), _i == 0 ? "relay:: want %.*s /x\n" : "relay:: want %.*sx /x\n",
	    (int)strlen(type) - (_i == 0), type);
	feed(line);
	ck_assert_int_eq(bootstrap_facts(b)->state, BOOTSTRAP_FAILED);
}
END_TEST

START_TEST(uploads_are_limited)
{
	unsigned char room[4096];
	char line[256];
	int i;

	begin_sent();
	snprintf(line, sizeof(line), "relay:: want %s /d\n", type);
	for (i = 1; i <= 5; i++) {
		feed(line);
		ck_assert_int_eq(bootstrap_facts(b)->state, BOOTSTRAP_UPLOADING);
		ck_assert_int_eq(bootstrap_facts(b)->uploads, i);
		while (bootstrap_has_output(b))
			pull_bytes(b, room, sizeof(room));
	}
	feed(line);
	ck_assert_int_eq(bootstrap_facts(b)->state, BOOTSTRAP_FAILED);
}
END_TEST

/*
 * 0: refused after an upload, 1: an earlier upload was refused, 2: a different
 * binary was refused, so this one may be sent
 */
START_TEST(refused_binary_is_not_sent_again)
{
	char line[256], refusal[256];
	int uploads = 0, i;

	begin_sent();
	if (_i == 2) {
		put_fake(own_path(), "another");
		start(own_path(), NULL);
		take_script();
	}
	snprintf(line, sizeof(line), "relay:: want %s /d\n", type);
	snprintf(refusal, sizeof(refusal), "relay:: refuse %s /d: no such loader\n", type);
	if (_i == 0)
		feed(line);
	feed(refusal);
	ck_assert_int_eq(bootstrap_facts(b)->state, BOOTSTRAP_FAILED);
	HAS(bootstrap_facts(b)->why, "/d: no such loader");
	for (i = 0; i < 2; i++) { /* as in a reconnect */
		begin_sent();
		feed(line);
		uploads += bootstrap_facts(b)->uploads;
	}
	ck_assert_int_eq(uploads, _i == 2 ? 2 : 0);
	ck_assert_int_eq(bootstrap_facts(b)->state, _i == 2 ? BOOTSTRAP_UPLOADING : BOOTSTRAP_FAILED);
	ck_assert_int_eq(bootstrap_has_output(b), _i == 2);
	if (_i < 2)
		HAS(bootstrap_facts(b)->why, "/d: no such loader");
	begin_sent();
	feed("relay:: at /d/relay\n"); /* the user has installed it */
	ck_assert_int_eq(bootstrap_facts(b)->state, BOOTSTRAP_STARTING);
}
END_TEST

START_TEST(binary_is_sent_unchanged)
{
	static unsigned char sent[FAKE_SIZE + 1], file[FAKE_SIZE + 1];
	char line[256];
	size_t n = 0;
	int fd;

	begin_sent();
	snprintf(line, sizeof(line), "relay:: want %s /d\n", type);
	feed(line);
	while (bootstrap_has_output(b))
		n += pull_bytes(b, sent + n, 777);
	fd = open("bin/relay", O_RDONLY);
	ck_assert_int_eq(read(fd, file, sizeof(file)), FAKE_SIZE);
	close(fd);
	ck_assert_uint_eq(n, FAKE_SIZE);
	ck_assert_mem_eq(sent, file, n);
	feed("relay:: at /d/relay\n");
	ck_assert_int_eq(bootstrap_facts(b)->state, BOOTSTRAP_STARTING);
}
END_TEST

/* 0: the new file has a different size, 1: the file was removed */
START_TEST(replaced_binary_is_not_sent)
{
	char line[256];

	begin_sent();
	if (_i == 0)
		put_file("bin/relay", "new", 3, 0755);
	else
		unlink("bin/relay");
	snprintf(line, sizeof(line), "relay:: want %s /d\n", type);
	feed(line);
	ck_assert_int_eq(bootstrap_facts(b)->state, BOOTSTRAP_FAILED);
	HAS(bootstrap_facts(b)->why, "replaced");
	ck_assert(!bootstrap_has_output(b));
}
END_TEST

/*
 * The script comes back cut at each byte. 0, 1: from a cat, 2, 3: from a
 * terminal, after a prompt.
 */
START_TEST(echo_is_recognised)
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
		ck_assert_int_eq(bootstrap_facts(b)->state, BOOTSTRAP_FAILED);
		HAS(bootstrap_facts(b)->why, "came back");
	}
	start("relay", NULL);
	cut = (size_t)(strstr(script, "printf 'relay") - script) + strlen("printf 'relay");
	bootstrap_feed(b, script, cut);
	ck_assert_int_eq(bootstrap_facts(b)->state, BOOTSTRAP_ASKING);
	feed("%s %s\\n");
	ck_assert_int_eq(bootstrap_facts(b)->state, BOOTSTRAP_FAILED);
}
END_TEST

START_TEST(link_bytes_after_an_answer_are_skipped)
{
	begin_sent();
	feed("relay:: at /x\n");
	bootstrap_feed(b, "\0\362reLAylink\r\n\n\376 at /y\n", 22);
	ck_assert_int_eq(bootstrap_facts(b)->state, BOOTSTRAP_STARTING);
	ck_assert_str_eq(bootstrap_facts(b)->path, "/x");
	ck_assert(!bootstrap_has_output(b));
}
END_TEST

START_TEST(answers_are_removed_from_the_banner)
{
	static const char *const noise[][2] = { { "", "" }, { "hello\n", "hello\n" },
		{ "relay:: at /x\n", "" },
		{ "a\nrelay:: want T /x\nb\nrelay:: at /x\nc", "a\nb\nc" },
		{ "arelay:: at /x\nb", "ab" }, { "a\nrelay:: at /x", "a\n" }, { "relay:: ", "" },
		{ "relay::\n", "relay::\n" }, { "relay:: 1\nrelay:: 2\nrelay:: 3\n", "" },
		{ "relay:relay:: 1\n: 2\n", "relay:: 2\n" } };
	char text[100];

	strcpy(text, noise[_i][0]);
	ck_assert_uint_eq(bootstrap_strip(text), strlen(noise[_i][1]));
	ck_assert_str_eq(text, noise[_i][1]);
}
END_TEST

/* ---- the script in shells ---- */

static const char *const shells[][4] = { { "sh" }, { "dash" }, { "bash" }, { "bash", "--posix" },
	{ "busybox", "sh" }, { "ksh" }, { "ksh93" }, { "mksh" }, { "yash" }, { "yash", "--posix" },
	{ "zsh", "--emulate", "sh" } };
#define SHELLS ((int)(sizeof(shells) / sizeof(shells[0])))
#define NO_PLACE "/dev/null/none" /* root cannot make this directory either */

static char home[128], tools[160];
static pid_t shell = -1;
static int to_shell, from_shell;
static char received[4096];
static size_t n_received;

/*
 * Make a PATH with the tools of the script alone. A test may remove one of
 * them.
 */
static void
make_tools(void)
{
	snprintf(tools, sizeof(tools), "%s/tools", own_dir);
	snprintf(home, sizeof(home), "%s/home", own_dir);
	run("rm -rf %s", tools);
	run("chmod -R u+rwx home 2>/dev/null; rm -rf %s", home);
	mkdir("tools", 0755);
	mkdir("home", 0755);
	run("for t in cat chmod cksum dd find head id mkdir mv printf rm sh uname echo [; do ln -s "
	    "\"$(PATH=/usr/bin:/bin which $t)\" %s; done",
	    tools);
	setenv("HOME", home, 1);
	unsetenv("XDG_CACHE_HOME");
	unsetenv("XDG_RUNTIME_DIR");
	unsetenv("TMPDIR");
	unsetenv("ENV");
	setenv("LC_ALL", "C", 1);
}

/* Is shell ${i} installed here? */
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
		dup2(open("stderr", O_WRONLY | O_CREAT | O_TRUNC, 0600), 2);
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
	n_received = 0;
}

/* Write and read once, as the transport does. false: the shell has ended. */
static bool
turn(struct bootstrap *x)
{
	static unsigned char out[8192];
	static size_t at, n;
	struct pollfd p[2] = { { .fd = from_shell, .events = POLLIN },
		{ .fd = to_shell, .events = POLLOUT } };
	char in[1024];
	ssize_t r;

	if (at == n) {
		at = 0;
		n = pull_bytes(x, out, sizeof(out));
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
		ck_assert_uint_lt(n_received + (size_t)r, sizeof(received));
		memcpy(received + n_received, in, (size_t)r);
		n_received += (size_t)r;
		received[n_received] = '\0';
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

/*
 * Run shell ${i} until ${x} starts or fails. What was started has to send back
 * each byte: then nothing was lost, and the shell read nothing too early.
 */
static void
run_shell(int i, struct bootstrap *x)
{
	bool goes_on = true;

	start_shell(i);
	UNTIL(!goes_on || bootstrap_facts(x)->state == BOOTSTRAP_FAILED ||
		  (bootstrap_facts(x)->state == BOOTSTRAP_STARTING && strchr(received, '>') != NULL &&
		      n_received > 0 && strstr(received, "MAGIC") != NULL),
	    goes_on = turn(x));
	if (goes_on && bootstrap_facts(x)->state == BOOTSTRAP_STARTING) {
		HAS(received, "MAGIC<-m -t 5 ->");
		ck_assert_int_eq(write(to_shell, "hello", 5), 5);
		UNTIL(strstr(received, ">hello") != NULL, ck_assert(turn(x)));
	}
	end_shell();
}

/* What the shell printed on its stderr, which is the stderr of ssh. */
static const char *
shell_stderr(void)
{
	static char text[1024];
	int fd = open("stderr", O_RDONLY);
	ssize_t n = read(fd, text, sizeof(text) - 1);

	close(fd);
	text[n > 0 ? n : 0] = '\0';
	return text;
}

static void
start_there(int i)
{
	begin(NULL);
	received[0] = '\0';
	run_shell(i, b);
}

#define IS_STARTED(count)                                                                \
	do {                                                                             \
		ck_assert_msg(bootstrap_facts(b)->state == BOOTSTRAP_STARTING, "%s: %d %s, %s", \
		    shells[_i][0], bootstrap_facts(b)->state, bootstrap_facts(b)->why, received);      \
		ck_assert_int_eq(bootstrap_facts(b)->uploads, (count));                         \
	} while (0)

/* The last shell has left no part of an upload in ${where}. */
static void
has_no_remains(const char *where)
{
	char cmd[256], line[256] = "";
	FILE *f;

	snprintf(cmd, sizeof(cmd), "find %s -name '*.%ld.part' 2>/dev/null", where, (long)shell);
	f = popen(cmd, "r");
	ck_assert_msg(fgets(line, sizeof(line), f) == NULL, "not removed: %s", line);
	pclose(f);
}

/* Prepare a test with shell ${i}. false: it is not installed. */
static bool
begin_shell(int i)
{
	if (!has_shell(i))
		return false;
	make_tools();
	return true;
}

START_TEST(only_the_first_start_uploads)
{
	char path[512];
	struct stat st;

	if (!begin_shell(_i))
		return;
	start_there(_i);
	IS_STARTED(1);
	snprintf(path, sizeof(path), "%s/.cache/relay/relay-" RELAY_VERSION "-%s-%lu", home, type,
	    fake_cksum());
	ck_assert_str_eq(bootstrap_facts(b)->path, path);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_eq(st.st_size, FAKE_SIZE);
	ck_assert_int_eq(st.st_mode & 0777, 0700);
	snprintf(path, sizeof(path), "%s/.cache/relay", home);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_eq(st.st_mode & 07777, 0700);
	has_no_remains(home);
	ck_assert_str_eq(shell_stderr(), "");
	start_there(_i);
	IS_STARTED(0);
	ck_assert_str_eq(shell_stderr(), "");
}
END_TEST

START_TEST(damaged_upload_is_replaced)
{
	struct stat st;
	int fd;

	if (!begin_shell(_i))
		return;
	start_there(_i);
	IS_STARTED(1);
	fd = open(bootstrap_facts(b)->path, O_WRONLY);
	ck_assert_int_eq(pwrite(fd, "?", 1, FAKE_SIZE - 7), 1);
	close(fd);
	start_there(_i);
	IS_STARTED(1);
	ck_assert_int_eq(truncate(bootstrap_facts(b)->path, 400), 0);
	start_there(_i);
	IS_STARTED(1);
	ck_assert_int_eq(stat(bootstrap_facts(b)->path, &st), 0);
	ck_assert_int_eq(st.st_size, FAKE_SIZE);
	ck_assert_int_eq(chmod(bootstrap_facts(b)->path, 0600), 0);
	start_there(_i);
	IS_STARTED(1);
	start_there(_i);
	IS_STARTED(0);
}
END_TEST

/*
 * The script looks in PATH, ~/.local/bin and ~/bin. Other versions are not
 * used.
 */
START_TEST(installed_relay_is_used)
{
	static const char *const places[] = { "tools/relay", "home/.local/bin/relay",
		"home/bin/relay" };
	char path[256];
	int i;

	if (!begin_shell(_i))
		return;
	run("mkdir -p %s/.local/bin home/bin", home);
	for (i = 2; i >= 0; i--) {
		put_fake(places[i], FAKE);
		start_there(_i);
		IS_STARTED(0);
		snprintf(path, sizeof(path), "%s/%s", own_dir, places[i]);
		ck_assert_str_eq(bootstrap_facts(b)->path, i == 0 ? "relay" : path);
	}
	for (i = 0; i < 3; i++)
		put_fake(places[i], "#!/bin/sh\necho relay " RELAY_VERSION ".1\nexit\n");
	start_there(_i);
	IS_STARTED(1);
}
END_TEST

START_TEST(named_relay_may_have_any_name)
{
	static const char *const names[] = { "plain", "two words", "it's", "''", "\"q\"", "$HOME",
		"`id`", "a\\b", "*", "-x", ";x&", "#", "!x", "{a,b}", "\xc3\xa9", "~" };
	char path[256], real[256];
	size_t i;

	if (!begin_shell(_i))
		return;
	for (i = 0; i < 2 * sizeof(names) / sizeof(names[0]); i++) {
		if ((unsigned char)names[i / 2][0] >= 0x80 && strcmp(shells[_i][0], "yash") == 0)
			continue; /* it rejects bytes that its locale does not have */
		snprintf(real, sizeof(real), "%s/%s", home, names[i / 2]);
		snprintf(path, sizeof(path), "%s/%s", i % 2 == 0 ? home : "~", names[i / 2]);
		put_fake(real, FAKE);
		begin(path);
		received[0] = '\0';
		run_shell(_i, b);
		IS_STARTED(0);
		ck_assert_str_eq(bootstrap_facts(b)->path, real);
	}
}
END_TEST

/* An empty name is one, too: no other relay is looked for. */
START_TEST(missing_named_relay_is_reported)
{
	if (!begin_shell(_i))
		return;
	begin("");
	run_shell(_i, b);
	ck_assert_int_eq(bootstrap_facts(b)->state, BOOTSTRAP_FAILED);
	HAS(bootstrap_facts(b)->why, "-x has to name");
	begin("~/no such");
	run_shell(_i, b);
	ck_assert_int_eq(bootstrap_facts(b)->state, BOOTSTRAP_FAILED);
	HAS(bootstrap_facts(b)->why, "-x");
	HAS(bootstrap_facts(b)->why, "home/no such: ");
	ck_assert(strstr(bootstrap_facts(b)->why, "ot found") != NULL ||
		  strstr(bootstrap_facts(b)->why, "o such file") != NULL);
}
END_TEST

/* ~user/ is not expanded. */
START_TEST(only_tilde_slash_is_the_home)
{
	if (!begin_shell(_i))
		return;
	run("rm -rf '~x'; mkdir '~x'%s", "");
	put_fake("~x/relay", FAKE);
	begin("~x/relay");
	received[0] = '\0';
	run_shell(_i, b);
	IS_STARTED(0);
	ck_assert_str_eq(bootstrap_facts(b)->path, "~x/relay");
}
END_TEST

/* 0: the version and a warning, 1: nothing, 2: two lines */
START_TEST(output_of_a_named_relay_is_reported)
{
	static const char *const texts[] = { "#!/bin/sh\necho warning >&2\n" FAKE,
		"#!/bin/sh\nexit 3\n", "#!/bin/sh\necho One >&2; echo '*' >&2; exit 1\n" };
	static const char *const message[] = { NULL, "/home/mine: status 3", "/home/mine: One *" };
	int i;

	if (!begin_shell(_i))
		return;
	for (i = 0; i < 3; i++) {
		put_fake("home/mine", texts[i]);
		begin("~/mine");
		received[0] = '\0';
		run_shell(_i, b);
		ck_assert_int_eq(
		    bootstrap_facts(b)->state, i == 0 ? BOOTSTRAP_STARTING : BOOTSTRAP_FAILED);
		if (i > 0)
			HAS(bootstrap_facts(b)->why, message[i]);
	}
}
END_TEST

START_TEST(version_of_a_named_relay_is_reported)
{
	if (!begin_shell(_i))
		return;
	put_fake("home/old", "#!/bin/sh\necho relay 0.0; exit\n");
	begin("~/old");
	run_shell(_i, b);
	ck_assert_int_eq(bootstrap_facts(b)->state, BOOTSTRAP_FAILED);
	HAS(bootstrap_facts(b)->why, "/home/old: relay 0.0");
}
END_TEST

/* The dd of this test leaves a file when it runs. */
START_TEST(without_head_dd_reads)
{
	if (!begin_shell(_i))
		return;
	if (strcmp(shells[_i][0], "busybox") != 0) { /* head is built in */
		run("d=$(command -v dd); rm tools/dd tools/head; "
		    "printf '#!/bin/sh\\necho \"$@\" >\"$HOME/dd\"\\nexec '$d' \"$@\"\\n' "
		    ">tools/dd; chmod 755 tools/dd%s",
		    "");
		start_there(_i);
		IS_STARTED(1);
		ck_assert_int_eq(access("home/dd", F_OK), 0);
		has_no_remains(home);
	}
}
END_TEST

/* Is ${tool} built into shell ${i}? */
static bool
has_own(int i, const char *tool)
{
	char cmd[256];

	snprintf(cmd, sizeof(cmd),
	    "s=$(command -v %s); PATH=/nowhere; export PATH; \"$s\" %s -c 'command -v %s' "
	    ">/dev/null 2>&1",
	    shells[i][0], shells[i][1] == NULL ? "" : shells[i][1], tool);
	return system(cmd) == 0;
}

static void
begin_without(const char *tools_text)
{
	make_tools();
	run("cd tools && rm %s", tools_text);
	setenv("XDG_CACHE_HOME", NO_PLACE, 1);
	setenv("TMPDIR", home, 1);
	begin(NULL);
	received[0] = '\0';
}

static void
is_lacking(const char *tool)
{
	ck_assert_int_eq(bootstrap_facts(b)->state, BOOTSTRAP_FAILED);
	HAS(bootstrap_facts(b)->why, tool);
	HAS(bootstrap_facts(b)->why, "-x");
	HAS_NOT(bootstrap_facts(b)->why, "make room");
	ck_assert_int_eq(bootstrap_facts(b)->uploads, 0);
	ck_assert_int_eq(rmdir(home), 0); /* it is empty */
	ck_assert_str_eq(shell_stderr(), "");
}

START_TEST(missing_tool_is_reported)
{
	static const char *const names[] = { "cat", "chmod", "find", "id", "mkdir", "mv", "rm",
		"uname" };
	char named[32];
	size_t i;

	if (!begin_shell(_i))
		return;
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (has_own(_i, names[i]))
			continue;
		begin_without(names[i]);
		run_shell(_i, b);
		snprintf(named, sizeof(named), "lacks %s,", names[i]);
		is_lacking(named);
	}
}
END_TEST

/*
 * 0: two tools, 1: both readers of the binary, 2: cksum (and wc, which is
 * never there)
 */
START_TEST(missing_tools_are_reported)
{
	static const char *const names[][2] = { { "find id", "lacks find id," },
		{ "head dd", "lacks dd," }, { "cksum", "lacks cksum," } };
	int i;

	if (!begin_shell(_i))
		return;
	for (i = 0; i < 3; i++) {
		if (has_own(_i, "find") || has_own(_i, "dd") || has_own(_i, "cksum"))
			continue;
		begin_without(names[i][0]);
		run_shell(_i, b);
		is_lacking(names[i][1]);
	}
}
END_TEST

/* 0: id is missing, 1: it fails, 2: it prints nothing */
START_TEST(no_directory_without_a_user_id)
{
	bool had = access("/tmp/relay-", F_OK) == 0;
	char path[256];
	int i;

	if (!begin_shell(_i))
		return;
	for (i = 0; i < 3; i++) {
		begin_without("id");
		if (i > 0)
			run("printf '#!/bin/sh\\nexit %s\\n' >tools/id; chmod 755 tools/id",
			    i == 1 ? "1" : "0");
		run_shell(_i, b);
		snprintf(path, sizeof(path), "%s/relay-", home);
		ck_assert_int_eq(access(path, F_OK), -1);
		ck_assert(had || access("/tmp/relay-", F_OK) == -1);
		if (!has_own(_i, "id"))
			is_lacking("lacks id,");
	}
}
END_TEST

START_TEST(without_cksum_sizes_are_compared)
{
	if (!begin_shell(_i))
		return;
	run("rm tools/cksum; ln -s $(command -v wc) tools%s", "");
	start_there(_i);
	IS_STARTED(1);
	ck_assert_str_eq(shell_stderr(), "");
	start_there(_i);
	IS_STARTED(0);
	ck_assert_str_eq(shell_stderr(), "");
	ck_assert_int_eq(truncate(bootstrap_facts(b)->path, 400), 0);
	start_there(_i);
	IS_STARTED(1);
	ck_assert_int_eq(chmod(bootstrap_facts(b)->path, 0600), 0);
	start_there(_i);
	IS_STARTED(1);
	has_no_remains(home);
}
END_TEST

/*
 * What a shell gets for a missing loader, an old library, and an old
 * processor; and two programs that run and are not this relay.
 */
static const struct {
	const char *text, *message;
} refusals[] = {
	{ "#!/nonexistent/loader\n", "" },
	{ "#!/bin/sh\necho \"$0: libc.so: version 'GLIBC_9.9' not found\" >&2; echo Two >&2; exit "
	  "1\n",
	    "libc.so: version 'GLIBC_9.9' not found Two" },
	{ "#!/bin/sh\nkill -9 $$\n", "" },
	{ "#!/bin/sh\necho 'relay 0.0 *'; exit\n", "relay 0.0 *" },
	{ "#!/bin/sh\nexit\n", "no output" },
};
#define REFUSALS ((int)(sizeof(refusals) / sizeof(refusals[0])))

static void
begin_refused(int refusal)
{
	put_own();
	put_fake("bin/relay", refusals[refusal].text);
	start(own_path(), NULL);
	received[0] = '\0';
}

static void
is_refused(int refusal, int uploads)
{
	ck_assert_int_eq(bootstrap_facts(b)->state, BOOTSTRAP_FAILED);
	HAS(bootstrap_facts(b)->why, home);
	HAS(bootstrap_facts(b)->why, refusals[refusal].message);
	if (refusal == 0)
		ck_assert_msg(strstr(bootstrap_facts(b)->why, "ot found") != NULL ||
				  strstr(bootstrap_facts(b)->why, "o such file") != NULL,
		    "%s", bootstrap_facts(b)->why);
	HAS(bootstrap_facts(b)->why, "-x");
	HAS_NOT(bootstrap_facts(b)->why, "make room");
	ck_assert_int_eq(bootstrap_facts(b)->uploads, uploads);
	has_no_remains(home);
	run("[ -z \"$(find %s -type f)\" ]", home);
}

/* There are two directories. The second one is not tried. */
START_TEST(upload_that_does_not_run_is_sent_once)
{
	int i;

	if (!begin_shell(_i))
		return;
	for (i = 0; i < REFUSALS; i++) {
		make_tools();
		setenv("TMPDIR", home, 1);
		begin_refused(i);
		run_shell(_i, b);
		is_refused(i, 1);
		ck_assert_str_eq(shell_stderr(), "");
		begin_refused(i);
		run_shell(_i, b);
		is_refused(i, 0);
		bootstrap_free(b); /* as in another process */
		b = NULL;
	}
}
END_TEST

/* The home is shared with another host, where the binary runs. */
START_TEST(earlier_upload_that_does_not_run_is_not_sent)
{
	char path[512];

	if (!begin_shell(_i))
		return;
	begin_refused(1);
	snprintf(path, sizeof(path), "%s/.cache/relay/relay-" RELAY_VERSION "-%s-%lu", home, type,
	    fake_cksum());
	run("mkdir -p -m 700 %s/.cache/relay", home);
	put_fake(path, refusals[1].text);
	run_shell(_i, b);
	ck_assert_int_eq(bootstrap_facts(b)->state, BOOTSTRAP_FAILED);
	HAS(bootstrap_facts(b)->why, refusals[1].message);
	ck_assert_int_eq(bootstrap_facts(b)->uploads, 0);
	ck_assert_int_eq(access(path, X_OK), 0);
}
END_TEST

/* A missing library in LD_PRELOAD is an example. */
START_TEST(loader_may_print_a_warning)
{
	if (!begin_shell(_i))
		return;
	put_own();
	put_fake("bin/relay", "#!/bin/sh\necho warning >&2\n" FAKE);
	start(own_path(), NULL);
	received[0] = '\0';
	run_shell(_i, b);
	IS_STARTED(1);
}
END_TEST

/* XDG_CACHE_HOME, XDG_RUNTIME_DIR, TMPDIR; their names have blanks. */
START_TEST(directories_are_tried_in_order)
{
	static const char *const names[] = { "cache dir", "run dir", "tmp dir" };
	char path[256], found[512];
	int i;

	if (!begin_shell(_i))
		return;
	for (i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "%s/%s", home, names[0]);
		setenv("XDG_CACHE_HOME", i > 0 ? NO_PLACE : path, 1);
		snprintf(path, sizeof(path), "%s/%s", home, names[1]);
		setenv("XDG_RUNTIME_DIR", i > 1 ? NO_PLACE : path, 1);
		snprintf(path, sizeof(path), "%s/%s", home, names[2]);
		setenv("TMPDIR", path, 1);
		start_there(_i);
		IS_STARTED(1);
		snprintf(found, sizeof(found), i < 2 ? "%s/%s/relay/relay-" : "%s/%s/relay-", home,
		    names[i]);
		HAS(bootstrap_facts(b)->path, found);
	}
}
END_TEST

/*
 * 0: mode 770 (the directory above it is used), 1: a symbolic link, 2: a file,
 * 3: mode 2700, as in a parent with set-group-ID: it is private
 */
START_TEST(only_a_private_directory_is_used)
{
	char path[256];
	int i;

	if (!begin_shell(_i))
		return;
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
		start_there(_i);
		IS_STARTED(i == 0 || i == 3);
		snprintf(path, sizeof(path), i == 3 ? "%s/c3/relay/relay-" : "%s/relay-", home);
		HAS(bootstrap_facts(b)->path, path);
	}
}
END_TEST

START_TEST(each_directory_is_reported_with_its_cause)
{
	char mine[64], there[80];
	bool had;

	if (!begin_shell(_i))
		return;
	snprintf(mine, sizeof(mine), "/tmp/relay-%lu", (unsigned long)getuid());
	had = access(mine, F_OK) == 0;
	run("rm tools/mv; printf '#!/bin/sh\necho no move >&2; exit 1\n' >tools/mv; chmod 755 "
	    "tools/mv%s",
	    "");
	setenv("XDG_CACHE_HOME", NO_PLACE, 1);
	setenv("XDG_RUNTIME_DIR", home, 1);
	mkdir("home/relay", 0755);
	setenv("TMPDIR", home, 1);
	begin(NULL);
	run_shell(_i, b);
	/* busybox-static prefers its own mv to the one in PATH. */
	if (bootstrap_facts(b)->state == BOOTSTRAP_STARTING && strcmp(shells[_i][0], "busybox") == 0) {
		puts("skipped: this busybox has its own mv");
		return;
	}
	ck_assert_int_eq(bootstrap_facts(b)->state, BOOTSTRAP_FAILED);
	HAS(bootstrap_facts(b)->why, NO_PLACE "/relay: ");
	HAS(bootstrap_facts(b)->why, "Not a directory");
	HAS(bootstrap_facts(b)->why, "/home/relay: it is not a directory of mode 0700 of this user; ");
	if (!has_own(_i, "mv"))
		HAS(bootstrap_facts(b)->why, ": no move; ");
	snprintf(there, sizeof(there), "; %s: ", mine);
	HAS(bootstrap_facts(b)->why, there);
	HAS(bootstrap_facts(b)->why, "-x");
	ck_assert_int_ne(system("ls home/relay-*/* >/dev/null 2>&1"), 0);
	has_no_remains(home);
	has_no_remains(mine);
	if (!had)
		rmdir(mine);
}
END_TEST

START_TEST(type_without_a_binary_is_reported)
{
	if (!begin_shell(_i))
		return;
	start("/nowhere/relay", NULL);
	run_shell(_i, b);
	ck_assert_int_eq(bootstrap_facts(b)->state, BOOTSTRAP_FAILED);
	HAS(bootstrap_facts(b)->why, type);
	ck_assert_int_eq(access("home/.cache", F_OK), -1);
}
END_TEST

/* The connection ends in the middle of the binary. */
START_TEST(cut_upload_leaves_nothing)
{
	char rest[64];

	if (!begin_shell(_i))
		return;
	begin(NULL);
	start_shell(_i);
	UNTIL(bootstrap_facts(b)->state == BOOTSTRAP_UPLOADING, ck_assert(turn(b)));
	ck_assert_int_eq(turn(b), true);
	close(to_shell);
	WAIT_FOR(read(from_shell, rest, sizeof(rest)) == 0);
	waitpid(shell, NULL, 0);
	close(from_shell);
	has_no_remains(home);
	ck_assert_int_ne(system("ls home/.cache/relay/* >/dev/null 2>&1"), 0);
	start_there(_i);
	IS_STARTED(1);
}
END_TEST

/* A second start runs from begin to end during the upload of the first. */
START_TEST(two_starts_at_once)
{
	struct bootstrap *other;
	pid_t first;
	int in, out;

	if (!begin_shell(_i))
		return;
	begin(NULL);
	other = b;
	b = NULL;
	start_shell(_i);
	UNTIL(bootstrap_facts(other)->state == BOOTSTRAP_UPLOADING, ck_assert(turn(other)));
	turn(other);
	first = shell;
	in = from_shell;
	out = to_shell;
	while (bootstrap_has_output(other) && (poll(NULL, 0, 1), n_received < 1))
		;
	start_there(_i);
	IS_STARTED(1);
	shell = first;
	from_shell = in;
	to_shell = out;
	n_received = 0;
	UNTIL(strstr(received, "MAGIC") != NULL && n_received > 0, turn(other));
	ck_assert_int_eq(bootstrap_facts(other)->state, BOOTSTRAP_STARTING);
	end_shell();
	bootstrap_free(other);
	has_no_remains(home);
	start_there(_i);
	IS_STARTED(0);
}
END_TEST

static void
set_up(void)
{
	struct utsname us;

	enter_dir();
	uname(&us);
	snprintf(type, sizeof(type), "%.30s-%.30s", us.sysname, us.machine);
}

#define SHELL_TEST(f) tcase_add_loop_test(tc, f, 0, SHELLS)

TESTS("bootstrap")
{
	tcase_set_timeout(tc, 60);
	tcase_add_unchecked_fixture(tc, set_up, leave_dir);
	tcase_add_test(tc, known_checksums);
	tcase_add_loop_test(tc, checksums_agree_with_cksum, 0, 9);
	tcase_add_test(tc, own_file_is_offered_for_own_type);
	tcase_add_test(tc, static_binary_is_preferred);
	tcase_add_loop_test(tc, dynamic_binary_is_reported, 0, 2);
	tcase_add_test(tc, first_directory_with_a_type_is_used);
	tcase_add_test(tc, binary_of_another_user_is_not_offered);
	tcase_add_test(tc, only_usable_files_are_offered);
	tcase_add_loop_test(tc, script_is_one_line_without_a_mark, 0, 2);
	tcase_add_loop_test(tc, script_is_the_same_in_pieces, 1, 12);
	tcase_add_loop_test(tc, long_path_of_quotes_is_cut, 0, 2);
	tcase_add_loop_test(tc, answer_is_the_same_cut_at_every_byte, 0, ANSWERS);
	tcase_add_test(tc, answer_is_found_after_any_banner);
	tcase_add_test(tc, long_answer_is_cut_and_the_next_is_read);
	tcase_add_test(tc, nothing_is_read_after_a_failure);
	tcase_add_loop_test(tc, failure_message_has_a_remedy, 0, 4);
	tcase_add_loop_test(tc, type_is_compared_whole, 0, 2);
	tcase_add_test(tc, uploads_are_limited);
	tcase_add_loop_test(tc, refused_binary_is_not_sent_again, 0, 3);
	tcase_add_test(tc, binary_is_sent_unchanged);
	tcase_add_loop_test(tc, replaced_binary_is_not_sent, 0, 2);
	tcase_add_loop_test(tc, echo_is_recognised, 0, 4);
	tcase_add_loop_test(tc, answers_are_removed_from_the_banner, 0, 10);
	tcase_add_test(tc, link_bytes_after_an_answer_are_skipped);
	SHELL_TEST(only_the_first_start_uploads);
	SHELL_TEST(damaged_upload_is_replaced);
	SHELL_TEST(installed_relay_is_used);
	SHELL_TEST(named_relay_may_have_any_name);
	SHELL_TEST(missing_named_relay_is_reported);
	SHELL_TEST(only_tilde_slash_is_the_home);
	SHELL_TEST(output_of_a_named_relay_is_reported);
	SHELL_TEST(version_of_a_named_relay_is_reported);
	SHELL_TEST(without_head_dd_reads);
	SHELL_TEST(missing_tool_is_reported);
	SHELL_TEST(missing_tools_are_reported);
	SHELL_TEST(no_directory_without_a_user_id);
	SHELL_TEST(without_cksum_sizes_are_compared);
	SHELL_TEST(upload_that_does_not_run_is_sent_once);
	SHELL_TEST(earlier_upload_that_does_not_run_is_not_sent);
	SHELL_TEST(loader_may_print_a_warning);
	SHELL_TEST(directories_are_tried_in_order);
	SHELL_TEST(only_a_private_directory_is_used);
	SHELL_TEST(each_directory_is_reported_with_its_cause);
	SHELL_TEST(type_without_a_binary_is_reported);
	SHELL_TEST(cut_upload_leaves_nothing);
	SHELL_TEST(two_starts_at_once);
}
