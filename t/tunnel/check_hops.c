/* check_hops.c - from hops to the words of one command. */
#include "t/all.h"
#include "t/check.h"

static struct hops all[4], h; /* all: keeps each parsed copy reachable */
static char why[512];
static bool with_jumps;
static const char *jump_options = "";
static const char *const options[] = { "-p", "22", "-o", "A b" };
static bool with_options;

#define MOST 8

/*
 * Parse the hops of ${text}, which '|' separates; return as hops_parse.  Hops
 * before '!' are those of -J.
 */
static bool
parse(const char *text, const char *rsh)
{
	struct hops_config config = { .rsh = rsh, .self = "/a/relay", .jump_options = jump_options };
	static char room[2000], *hops[MOST];
	static int parsed;
	char *at = room;
	int n = 0;
	char *mark = NULL;

	snprintf(room, sizeof(room), "%s", text);
	if (with_jumps && (mark = strchr(room, '!')) != NULL)
		*mark = '|';
	for (hops[n++] = at; (at = strchr(at, '|')) != NULL; hops[n++] = at) {
		config.jumps += mark != NULL && at <= mark;
		*at++ = '\0';
	}
	why[0] = '\0';
	all[parsed++ % 4] = h;
	if (with_options) {
		config.ssh_words = options;
		config.n_ssh_words = 4;
	}
	config.hops = hops;
	config.n = n;
	return hops_parse(&h, &config, why, sizeof(why));
}

/* Parse the same hops for a login that no person watches. */
static void
leave_alone(void)
{
	struct hops_config config = h.config;

	config.unattended = true;
	ck_assert(hops_parse(&h, &config, why, sizeof(why)));
}

/* The words of the command, separated by '|'. */
static const char *
words(void)
{
	static char text[4000];
	size_t n = 0;
	int i;

	text[0] = '\0';
	ck_assert_ptr_null(h.argv[h.words]);
	for (i = 0; i < h.words; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s", i == 0 ? "" : "|", h.argv[i]);
	return text;
}

static const struct {
	const char *hops, *rsh, *words;
} right[] = {
	{ "login", "ssh", "ssh|-T|login|sh" },
	{ "me@login", "ssh", "ssh|-T|me@login|sh" },
	{ "login|node", "ssh", "ssh|-T|login|ssh|-T|node|sh" },
	{ "a|b|c", "ssh", "ssh|-T|a|ssh|-T|b|ssh|-T|c|sh" },
	{ "login|srun --jobid=7 --overlap -u", "ssh", "ssh|-T|login|srun|--jobid=7|--overlap|-u|sh" },
	{ "ssh -p 2222 login|node", "ssh", "ssh|-p|2222|login|ssh|-T|node|sh" },
	{ "kubectl exec -i pod --", "ssh", "kubectl|exec|-i|pod|--|sh" },
	{ "login", "ssh -F cfg", "ssh|-F|cfg|-T|login|sh" },
	{ "login|node", "/opt/my/ssh -o A=b", "/opt/my/ssh|-o|A=b|-T|login|ssh|-T|node|sh" },
	{ "login", "ssh -i 'my key' \"a b\"\\ c d\\'e", "ssh|-i|my key|a b c|d'e|-T|login|sh" },
	{ "login", " '/my ssh'\t-F\n''", "/my ssh|-F||-T|login|sh" },
	{ "login", "ssh \"$HOME \\$ \\\" \\x\" '\\' ~ *", "ssh|$HOME $ \" \\x|\\|~|*|-T|login|sh" },
	{ "login", "ssh a\\", "ssh|a\\|-T|login|sh" },
	{ "sudo -u app|node", "ssh -F 'cfg", "sudo|-u|app|ssh|-T|node|sh" }, /* ${rsh} is for the first hop only */
	{ "  docker  exec\t-i c ", "ssh", "docker|exec|-i|c|sh" },
	{ "me@$HOME", "ssh", "ssh|-T|me@$HOME|sh" }, /* no shell reads the first hop */
	{ "ssh -i it's login", "ssh", "ssh|-i|it's|login|sh" },
	{ "[::1]", "ssh", "ssh|-T|::1|sh" },
	{ "::1", "ssh", "ssh|-T|::1|sh" },
	{ "fe80::1:22", "ssh", "ssh|-T|fe80::1:22|sh" }, /* no port: an address has brackets before it */
	{ "me@[::1]:22", "ssh", "ssh|-T|-p|22|me@::1|sh" },
	{ "[node]:22", "ssh", "ssh|-T|-p|22|node|sh" },
	{ "me@login:2222|you@node:23", "ssh", "ssh|-T|-p|2222|me@login|ssh|-T|-p|23|you@node|sh" },
	{ "ssh://me@login:22", "ssh", "ssh|-T|ssh://me@login:22|sh" },
	{ "a@b.org@login:22", "ssh", "ssh|-T|-p|22|a@b.org@login|sh" },
	{ ":22", "ssh", "ssh|-T|:22|sh" },
	{ "me@:22", "ssh", "ssh|-T|me@:22|sh" },
	{ "login:", "ssh", "ssh|-T|login:|sh" },
	{ "login:22x", "ssh", "ssh|-T|login:22x|sh" },
	{ "login|me@node-1.b_c,d:2/e%f+g=h", "ssh", "ssh|-T|login|ssh|-T|me@node-1.b_c,d:2/e%f+g=h|sh" },
};
#define RIGHT ((int)(sizeof(right) / sizeof(right[0])))

START_TEST(hops_become_words)
{
	ck_assert_msg(parse(right[_i].hops, right[_i].rsh), "%s", why);
	ck_assert_str_eq(words(), right[_i].words);
	ck_assert_str_eq(why, "");
}
END_TEST

#define PROXY(rest) "ssh|-o|ProxyCommand= '/a/relay' -k 0 -W '[%h]:%p' -e 'ssh'" rest "|-T|"
static const struct {
	const char *hops, *words;
} jumps[] = {
	{ "login!node", PROXY(" 'login'") "node|sh" },
	{ "a|b!node", PROXY(" -J 'a' 'b'") "node|sh" },
	{ "a|b|me@c:22!me@node:23", PROXY(" -J 'a,b' 'me@c:22'") "-p|23|me@node|sh" },
	{ "login!node|next|sudo -u x", PROXY(" 'login'") "node|ssh|-T|next|sudo|-u|x|sh" },
	{ "it's@a%h!$me@%h", PROXY(" 'it'\\''s@a%%h'") "$me@%h|sh" }, /* no shell reads these users */
	{ "D\\me@a!node", PROXY(" 'D'\\\\'me@a'") "node|sh" },
	{ "me@[::1]:22!fe80::1%eth0", PROXY(" 'me@[::1]:22'") "fe80::1%eth0|sh" },
	{ "ssh://me@a:22!ssh://[::1]", PROXY(" 'ssh://me@a:22'") "ssh://[::1]|sh" },
};
#define JUMPS ((int)(sizeof(jumps) / sizeof(jumps[0])))

START_TEST(jumps_become_a_proxy_command)
{
	char path[HOPS_PATH];

	with_jumps = true;
	ck_assert_msg(parse(jumps[_i].hops, "ssh"), "%s", why);
	ck_assert_str_eq(words(), jumps[_i].words);
	if (_i == 1)
		ck_assert_str_eq(hops_path(&h, path, sizeof(path)), "a -> b -> node");
}
END_TEST

START_TEST(the_proxy_command_has_the_options_and_the_ssh)
{
	with_jumps = true;
	jump_options = " -t 3 -q";
	ck_assert(parse("a!b", "ssh -F c"));
	ck_assert_str_eq(words(),
	    "ssh|-F|c|-o|ProxyCommand= '/a/relay' -k 0 -W '[%h]:%p' -e 'ssh -F c' -t 3 -q 'a'|-T|b|sh");
	leave_alone();
	HAS(words(), "ssh|-F|c|-o|BatchMode=yes|-o|ProxyCommand=");
	HAS(words(), "-e 'ssh -F c'' -o BatchMode=yes' -t 3 -q 'a'|-T|b|sh");
}
END_TEST

static const struct {
	const char *hops, *words;
} optioned[] = {
	{ "login|node", "ssh|-p|22|-o|A b|-T|login|ssh|-T|node|sh" },
	{ "login!node:23|last", NULL },
};

/* -p and the like are for the ssh that runs here, and not for the hops of -J. */
START_TEST(options_of_ssh_are_for_the_first_hop)
{
	struct hops_config config;

	with_jumps = with_options = true;
	ck_assert_msg(parse(optioned[_i].hops, "ssh"), "%s", why);
	if (_i == 0) {
		ck_assert_str_eq(words(), optioned[0].words);
		ck_assert(!parse("run x|node", "ssh"));
		HAS(why, "\"run x\", is a command");
		return;
	}
	HAS(words(), "'login'|-p|22|-o|A b|-T|-p|23|node|ssh|-T|last|sh");
	config = h.config;
	config.n = 1;
	ck_assert(hops_parse(&h, &config, why, sizeof(why)));
	ck_assert_str_eq(words(), "ssh|-T|login|sh");
}
END_TEST

static const struct {
	const char *rsh, *part, *unattended;
} shells[] = {
	{ "ssh -F 'x", "is not closed: ssh -F 'x", NULL },
	{ "\"ssh", "is not closed", NULL },
	{ "", "the command of -e or RELAY_SSH is empty", NULL },
	{ " \t", "the command of -e or RELAY_SSH is empty", NULL },
	{ "'/my dir/ssh' -v", NULL, "/my dir/ssh|-v|-o|BatchMode=yes|-T|login|sh" },
	{ "'my ssh' -v", NULL, "my ssh|-v|-T|login|sh" },
	{ "plink", NULL, "plink|-T|login|sh" },
};
#define SHELLS ((int)(sizeof(shells) / sizeof(shells[0])))

START_TEST(the_command_of_e_is_split_as_in_sh)
{
	ck_assert_int_eq(parse("login", shells[_i].rsh), shells[_i].part == NULL);
	if (shells[_i].part != NULL) {
		HAS(why, shells[_i].part);
		return;
	}
	leave_alone();
	ck_assert_str_eq(words(), shells[_i].unattended);
}
END_TEST

/* As -n does: the first hops of a path. */
START_TEST(a_prefix_has_fewer_jumps)
{
	struct hops_config config;
	static struct hops part;

	with_jumps = true;
	ck_assert(parse("a|b!c|d", "ssh"));
	config = h.config;
	for (config.n = 1; config.n <= 4; config.n++) {
		ck_assert(hops_parse(&part, &config, why, sizeof(why)));
		ck_assert_int_eq(part.config.jumps, config.n == 1 ? 0 : config.n == 2 ? 1 : 2);
		ck_assert_str_eq(hops_last(&part), h.config.hops[config.n - 1]);
	}
	config.n = 1;
	ck_assert(hops_parse(&h, &config, why, sizeof(why)));
	ck_assert_str_eq(words(), "ssh|-T|a|sh");
}
END_TEST

/* A command of each length around the limit fits or is refused. */
START_TEST(long_jumps_are_refused)
{
	static char rsh[HOPS_TEXT + 9];
	struct hops_config config;
	size_t n;

	with_jumps = true;
	for (n = HOPS_TEXT / 2 - 200; n < HOPS_TEXT / 2 + 9; n++) {
		memset(rsh, 'x', n);
		if (parse("a!b", rsh))
			ck_assert_uint_le(h.length, sizeof(h.text));
		else
			HAS(why, "16384 bytes");
	}
	memset(rsh, '!', HOPS_TEXT - 99);
	ck_assert(!parse("a!b", rsh));
	memset(rsh, 'x', sizeof(rsh) - 1);
	ck_assert(!parse("a!b", rsh));
	config = h.config;
	config.unattended = true;
	ck_assert(!hops_parse(&h, &config, why, sizeof(why)));
	HAS(why, "16384 bytes");
}
END_TEST

static const struct {
	const char *hops, *part;
	bool jumps;
} wrong[] = {
	{ "a b!node", "\"a b\" is a command", true },
	{ "login!a b", "\"a b\" is a command", true },
	{ "login|!node", "a hop is empty", true },
	{ "-v!node", "\"-v\" is not a hop", true },
	{ "login!node|a$b", "the shell on node would", true },
	{ "login!me@a'b:22", "\"me@a'b:22\" contains a ';", true },
	{ "a`b!node", "contains a `; give", true },
	{ "ssh://me@a;b!node", "contains a ;; give", true },
	{ "[-oProxyCommand=x]", "is not a hop", false },
	{ "me@[-x]:22", "is not a hop", false },
	{ "@-x", "is not a hop", false },
	{ "ssh://-x", "is not a hop", false },
	{ "login|me@-x", "is not a hop", false },
	{ "[-x]!node", "is not a hop", true },
	{ "", "a hop is empty", false },
	{ "  ", "a hop is empty", false },
	{ "login|", "a hop is empty", false },
	{ "-v", "\"-v\" is not a hop", false },
	{ "-oProxyCommand=x login", "is not a hop", false },
	{ " -oProxyCommand=x", "is not a hop", false }, /* ssh takes options after its destination too */
	{ "login|-v", "\"-v\" is not a hop", false },
	{ "login| -oProxyCommand=x", "is not a hop", false },
	{ "login|\t-oProxyCommand=x node", "is not a hop", false },
};
#define WRONG ((int)(sizeof(wrong) / sizeof(wrong[0])))

START_TEST(a_wrong_hop_is_refused)
{
	with_jumps = wrong[_i].jumps;
	ck_assert(!parse(wrong[_i].hops, "ssh"));
	HAS(why, wrong[_i].part);
	HAS_NOT(why, "\n");
}
END_TEST

/*
 * Every byte in the second hop.  If some shell would change it, it is refused,
 * and the message names the host of that shell.
 */
START_TEST(special_characters_are_refused_after_the_first_hop)
{
	bool plain = (_i >= '0' && _i <= '9') || (_i >= 'a' && _i <= 'z') || (_i >= 'A' && _i <= 'Z') ||
		     strchr(" \t@%_+=:,./-", _i) != NULL;
	char text[40], jump[40];

	if (_i == '|')
		return; /* the separator of this file */
	snprintf(text, sizeof(text), "login|no%cde|last", _i);
	ck_assert_int_eq(parse(text, "ssh"), plain);
	snprintf(jump, sizeof(jump), "login!no%cde", _i);
	with_jumps = true;
	ck_assert_int_eq(parse(jump, "ssh"), strchr("'`\"$\\;&<>(){} \t\n", _i) == NULL);
	with_jumps = false;
	parse(text, "ssh");
	if (plain)
		return;
	HAS(why, "on login would interpret");
	snprintf(text, sizeof(text), "contains a %c", _i);
	HAS(why, text);
	snprintf(text, sizeof(text), "no%cde", _i);
	ck_assert(parse(text, "ssh"));
}
END_TEST

START_TEST(the_host_that_would_interpret_one_is_named)
{
	ck_assert(!parse("a|b|c$|d", "ssh"));
	HAS(why, "\"c$\"");
	HAS(why, "the shell on b would");
}
END_TEST

/* 0, 1: one long hop; 2, 3: a long ${rsh}; 1, 3: one word too many */
START_TEST(so_many_words_and_no_more_are_taken)
{
	static char text[2000], rsh[2000];
	int i, n = _i < 2 ? 254 : 252;

	text[0] = rsh[0] = '\0';
	for (i = 0; i < n + _i % 2; i++)
		strcat(_i < 2 ? text : rsh, "w ");
	if (_i >= 2)
		strcpy(text, "login");
	ck_assert_int_eq(parse(text, rsh), _i % 2 == 0);
	if (_i % 2 == 0)
		ck_assert_int_eq(h.words, 255);
	else
		HAS(why, "more than 254 words");
}
END_TEST

START_TEST(the_path_is_cut_to_its_room)
{
	char room[64], whole[40];
	size_t size;

	ck_assert(parse("login|srun --jobid=7|node", "ssh"));
	ck_assert_str_eq(hops_path(&h, whole, sizeof(whole)), "login -> srun --jobid=7 -> node");
	for (size = 1; size < sizeof(whole); size++) {
		memset(room, '#', sizeof(room) - 1);
		room[sizeof(room) - 1] = '\0';
		ck_assert_ptr_eq(hops_path(&h, room, size), room);
		ck_assert_uint_eq(strlen(room), size - 1 < strlen(whole) ? size - 1 : strlen(whole));
		ck_assert_mem_eq(room, whole, strlen(room));
		ck_assert_uint_eq(strspn(room + size, "#"), sizeof(room) - 1 - size);
	}
	ck_assert(parse("me@login", "ssh"));
	ck_assert_str_eq(hops_path(&h, whole, sizeof(whole)), "me@login");
}
END_TEST

static const struct {
	const char *hops, *words;
	int hop;
} named[] = {
	{ "login", "Permission denied", 0 }, /* the only one */
	{ "login", "", 0 },
	{ "login|node", "ssh: Could not resolve hostname node: Name or service not known", 1 },
	{ "login|node", "ssh: connect to host login port 22: Connection refused", 0 },
	{ "login|node", "me@node: Permission denied (publickey).", 1 },
	{ "me@login|you@node", "you@node: Permission denied (publickey).", 1 },
	{ "me@login|you@node", "me@login: Permission denied (publickey).", 0 },
	{ "me@login|you@node", "ssh: connect to host login port 22: Connection refused", 0 },
	{ "login|node", "Host key verification failed.", -1 },
	{ "login|node", "", -1 },
	{ "login|ssh -p 2 node", "ssh: connect to host node port 2: Connection refused", -1 },
	{ "login1|n1", "ssh: connect to host login1 port 22: Connection refused", 0 }, /* whole words */
	{ "node12|node1", "ssh: connect to host node12 port 22: Connection refused", 0 },
	{ "node1|node12", "ssh: connect to host node12 port 22: Connection refused", 1 },
	{ "a|b", "ssh: connect to host a port 22: No route to host", 0 },
	{ "b|a", "ssh: connect to host b port 22: Network is unreachable", 0 },
	{ "login|gpu", "ssh: connect to host gpu-login port 22: Connection refused", -1 },
	{ "gpu-1|gpu", "ssh: connect to host gpu-1 port 22: Connection refused", 0 },
	{ "login|node", "ssh: connect to host node.site.org port 22: Connection refused", 1 },
	{ "login|node", "no such host as node.", 1 },
	{ "login|node", "(node) cannot be reached", 1 },
	{ "me@|node", "no such host as me@", 0 },
	{ "me@|node", "something else.", -1 },
	{ "login|org", "ssh: connect to host hub.org port 22: Connection refused", -1 },
	{ "login|run x@node sh", "node sh: not found", -1 },
	{ "me@login:22|node:23", "ssh: connect to host login port 22: Connection refused", 0 },
	{ "me@login:22|node:23", "ssh: connect to host node port 23: Connection refused", 1 },
	{ "[::1]:23|node", "ssh: connect to host ::1 port 23: Connection refused", 0 },
	{ "ssh://login:23|node", "ssh: connect to host login port 23: Connection refused", 0 },
	{ "login!node", "me@127.0.0.1: Permission denied", 1 }, /* the only login that ssh makes here */
	{ "login!node", "login: Permission denied", 1 },
	{ "login!node|last", "me@last: Permission denied", 2 },
	{ "login!node|last", "me@node: Permission denied", 1 },
	{ "login!node|last", "me@127.0.0.1: Permission denied", -1 },
};
#define NAMED ((int)(sizeof(named) / sizeof(named[0])))

static char written[1000];

/* Write what hops_explain makes of ${line}, with the hops ${names}. */
static void
explain(const char *names, const char *line, bool last)
{
	with_jumps = true;
	ck_assert(parse(names, "ssh"));
	ck_assert_int_eq(hops_explain(&h, line, last, written, sizeof(written)), h.config.jumps > 0 && strncmp(line, "relay: ", 7) == 0);
}

START_TEST(the_hop_that_a_line_names_is_found)
{
	char path[HOPS_PATH];
	int hop = named[_i].hop;

	explain(named[_i].hops, named[_i].words, false);
	snprintf(why, sizeof(why), "cannot reach %s: ", hop == -1 ? hops_path(&h, path, sizeof(path)) : h.config.hops[hop]);
	ck_assert_msg(strncmp(written, why, strlen(why)) == 0, "%s: %s", why, written);
	explain(named[_i].hops, named[_i].words, true);
	snprintf(why, sizeof(why), "cannot reach %s: ", hop == -1 ? hops_last(&h) : h.config.hops[hop]);
	ck_assert_msg(strncmp(written, why, strlen(why)) == 0, "%s: %s", why, written);
}
END_TEST

static const struct {
	const char *hops, *words, *remedy;
	bool last;
} remedies[] = {
	{ "a|b", "me@a: Permission denied (publickey,password).", "ssh -v shows the keys", false },
	{ "a|b", "me@b: Permission denied (publickey,password).", "use -J, which makes this login from here", false },
	{ "a|b", "Permission denied (password).", "relay -n shows which hop refused it: if it is not the first one, use -J", false },
	{ "a!b", "Permission denied (password).", "ssh -v shows", false },
	{ "a!b|c", "me@c: Permission denied (password).", "use -J", false },
	{ "a!b|c", "Permission denied (password).", "use -J", false },
	{ "a", "Host key verification failed.", "log in by hand once: ssh asks", false },
	{ "a|b", "Host key verification failed.", "log in by hand once, hop by hop: ssh asks", true },
	{ "a|b", "Host key verification failed.", "log in by hand once, hop by hop: ssh asks", false },
	{ "a!b", "Host key verification failed.", "start relay once at a terminal: ssh asks", false },
	{ "a|b", "ssh: Could not resolve hostname a: Name or service not known", "is the name right?", false },
	{ "a|b", "ssh: Could not resolve hostname b: Name or service not known", "The hop before looks it up", false },
	{ "a!b", "kex_exchange_identification: Connection closed by remote host", "relay -n with the same hops", false },
	{ "a!b", "Connection closed by UNKNOWN port 65535", "relay -n with the same hops", false },
	{ "a", "kex_exchange_identification: Connection closed by remote host", "refuses this address", false },
	{ "a|b", "kex_exchange_identification: Connection closed by remote host", "refuses the hop before", true },
	{ "a", "Connection closed by UNKNOWN port 65535", "use -J", false },
	{ "a", "Connection refused", "is the port right (-p)?", false },
	{ "a|b", "Connection refused", "(HOST:PORT)", true },
	{ "a!b", "relay: login: cannot connect to 10.0.0.1:22: Connection refused; wait", "login: cannot connect to 10.0.0.1:22: Connection refused; no sshd listens there: is the port right (HOST:PORT)?", false },
	{ "a!b", "login: cannot connect to 10.0.0.1:22: Connection refused", "(HOST:PORT)", false },
	{ "a|b", "ssh: connect to host 10.0.0.1 port 22: Connection refused", "relay -n with the same hops shows which", false },
	{ "a", "ssh: connect to host a port 22: Network is unreachable", "is this host online", false },
	{ "a|b", "ssh: connect to host b port 22: No route to host", "the hop before has no route", false },
	{ "a|b", "bash: line 1: srun: command not found", "whole path", false },
	{ "a|b", "Access denied by pam_slurm_adopt: you have no active jobs on this node", "is the job running?", false },
	{ "a|b", "a: something else", NULL, false },
	{ "a|b", "", NULL, false },
};
#define REMEDIES ((int)(sizeof(remedies) / sizeof(remedies[0])))

START_TEST(a_cause_has_its_remedy)
{
	explain(remedies[_i].hops, remedies[_i].words, remedies[_i].last);
	if (remedies[_i].remedy == NULL)
		ck_assert_ptr_null(strchr(written, ';'));
	else
		HAS(written, remedies[_i].remedy);
}
END_TEST

static const struct {
	const char *hops, *line, *text; /* text: up to the remedy */
	bool is_cause;
} causes[] = {
	{ "login", "ssh: connect to host login port 22: Connection refused", "cannot reach login: port 22: Connection refused", true },
	{ "login", "ssh: connect to host 10.0.0.1 port 22: Connection refused", "cannot reach login: 10.0.0.1 port 22: Connection refused", true },
	{ "login1", "ssh: connect to host login port 22: E", "cannot reach login1: login port 22: E", true },
	{ "[::1]:23", "ssh: connect to host ::1 port 23: E", "cannot reach [::1]:23: port 23: E", true },
	{ "me@login", "ssh: Could not resolve hostname login: E", "cannot reach me@login: Could not resolve the name: E", true },
	{ "login", "ssh: Could not resolve hostname node: E", "cannot reach login: Could not resolve hostname node: E", true },
	{ "me@login", "me@login: Permission denied (publickey).", "cannot reach me@login: Permission denied (publickey)", true },
	{ "login", "me@login: Permission denied (publickey).", "cannot reach login: user me: Permission denied (publickey)", true },
	{ "login", "me@10.0.0.1: Permission denied (x).", "cannot reach login: me@10.0.0.1: Permission denied (x)", true },
	{ "login|node", "ssh: connect to host gate port 22: E.", "cannot reach login -> node: gate port 22: E", true },
	{ "login|node", "me@gate: Permission denied (x).", "cannot reach login -> node: me@gate: Permission denied (x)", true },
	{ "login", "Bad port 'x'", "cannot reach login: Bad port 'x'", true },
	{ "login", "Welcome to login", "cannot reach login: Welcome to login", false },
	{ "login", "Permission denied, please try again.", "cannot reach login: Permission denied, please try again", false },
	{ "a!b", "relay: cannot reach a: E", "cannot reach a: E", true },
	{ "a!b", "relay: copying relay (800 KiB) to a", "copying relay (800 KiB) to a", false },
	{ "a!b", "relay: cannot x: cannot connect to y", "cannot x: cannot connect to y", true },
	{ "a!b", "b: relay: x", "cannot reach b: b: relay: x", false },
	{ "a|b", "relay: cannot reach a: E", "cannot reach a: relay: cannot reach a: E", false },
	{ "@|.", ".", "cannot reach .: ", false },
	{ "login", "", "cannot reach login: ", false },
};
#define CAUSES ((int)(sizeof(causes) / sizeof(causes[0])))

START_TEST(a_cause_names_the_hop_once)
{
	explain(causes[_i].hops, causes[_i].line, false);
	ck_assert_int_eq(hops_is_cause(&h, causes[_i].line), causes[_i].is_cause);
	written[strcspn(written, ";")] = '\0';
	ck_assert_str_eq(written, causes[_i].text);
}
END_TEST

START_TEST(only_ssh_can_be_kept_from_asking)
{
	static const struct {
		const char *hops, *rsh;
		bool asks;
	} rows[] = { { "a|b", "ssh", false }, { "a", "/usr/bin/ssh -v", false },
		{ "a", "plink", true }, { "sudo -u b|a", "ssh", true } };

	ck_assert(parse(rows[_i].hops, rows[_i].rsh));
	ck_assert(hops_can_ask(&h));
	leave_alone();
	ck_assert_int_eq(hops_can_ask(&h), rows[_i].asks);
}
END_TEST

static bool
parse_with(const char *text, const char *rsh, const char *more)
{
	struct hops_config c;

	with_jumps = true;
	ck_assert(parse(text, rsh));
	c = h.config;
	c.options = more;
	c.batch = true;
	return hops_parse(&h, &c, why, sizeof(why));
}

/* Options are added to the ssh that runs here, but not to those of -J. */
START_TEST(options_are_added)
{
	static char big[HOPS_TEXT];

	ck_assert(parse_with("a|b", " ssh -p 2", "-S x"));
	ck_assert_str_eq(words(), "ssh|-S|x|-p|2|-T|a|ssh|-o|BatchMode=yes|-T|b|sh");
	ck_assert(parse_with("a!b", "/x/ssh -v", "-S x"));
	HAS(words(), "/x/ssh|-S|x|-v|-o|ProxyCommand=");
	HAS(words(), " -e '/x/ssh -v' 'a'|-T|b|sh");
	ck_assert(hops_runs_ssh(&h));
	memset(big, 'x', sizeof(big) - 1);
	ck_assert(!parse_with("a", "ssh", big));
	ck_assert(parse("env A=B|b", "ssh"));
	ck_assert(!hops_runs_ssh(&h));
	ck_assert(parse("a", "env ssh"));
	ck_assert(!hops_runs_ssh(&h));
}
END_TEST

TESTS("hops")
{
	tcase_add_test(tc, options_are_added);
	tcase_add_loop_test(tc, only_ssh_can_be_kept_from_asking, 0, 4);
	tcase_add_loop_test(tc, hops_become_words, 0, RIGHT);
	tcase_add_loop_test(tc, jumps_become_a_proxy_command, 0, JUMPS);
	tcase_add_test(tc, the_proxy_command_has_the_options_and_the_ssh);
	tcase_add_loop_test(tc, options_of_ssh_are_for_the_first_hop, 0, 2);
	tcase_add_loop_test(tc, the_command_of_e_is_split_as_in_sh, 0, SHELLS);
	tcase_add_test(tc, a_prefix_has_fewer_jumps);
	tcase_add_test(tc, long_jumps_are_refused);
	tcase_add_loop_test(tc, a_wrong_hop_is_refused, 0, WRONG);
	tcase_add_loop_test(tc, special_characters_are_refused_after_the_first_hop, 1, 256);
	tcase_add_test(tc, the_host_that_would_interpret_one_is_named);
	tcase_add_loop_test(tc, so_many_words_and_no_more_are_taken, 0, 4);
	tcase_add_test(tc, the_path_is_cut_to_its_room);
	tcase_add_loop_test(tc, the_hop_that_a_line_names_is_found, 0, NAMED);
	tcase_add_loop_test(tc, a_cause_names_the_hop_once, 0, CAUSES);
	tcase_add_loop_test(tc, a_cause_has_its_remedy, 0, REMEDIES);
}
