/*
 * boot.c - a far end where none was installed.
 *
 * What the chain of hops runs is plain sh.  It is sent one line of script and answers with lines that begin with BOOT_MARK:
 *
 *   asks --here--> asks           the shell reads
 *    |   --at PATH--> starts      a relay of this version is there and becomes the far end: the magic of the link comes next
 *    |  \--want--> copies --> asks     there is none: it is sent the binary for its type, once for each directory that it tries;
 *    |                                 left: that one would not do
 *     \--none, lack, fail, refuse, tty--> failed
 *
 * Nothing is sent behind the line, or behind the binary, before an answer to it came: some shells read ahead.  The words of the
 * script hold no BOOT_MARK in one piece, so that a terminal or a cat that gives them back is recognised; a shell at a terminal ends
 * by itself, since no end of the line would end it.  Nothing of the user's stands in the script but the path of -x, in quotes.
 *
 * The binary goes into a directory of mode 0700 that belongs to the user, beside its name, is compared with its checksum (POSIX
 * cksum), tried and renamed: two starts at once, or one that is cut, spoil nothing.  Which directory will take it is found out by
 * doing, since a quota or a mount that forbids execution shows in no other way.
 *
 * If a script can be run in a directory and the binary cannot, the system there
 * refuses the binary (its loader, its processor). The cause is reported. That
 * binary is not sent again, also not in later starts.
 *
 * No descriptor of the carrier is known here: bytes in (boot_feed), bytes out (boot_pull).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "relay.h"
#include "tunnel/bootstrap.h"

#define ECHO "printf 'relay%s" /* a piece of the script that only an echo brings back */
#define COPIES 5               /* of the binary: the script has fewer directories */
#define BINARY_MOST (16 * 1024 * 1024)

/* What every script begins with: V is the version, o the options of the far end. */
static const char script_head[] =
    BOOT_BEGIN RELAY_VERSION "';o='%s';"
			     "say(){ printf 'relay%%s %%s\\n' :: \"$*\";};"
			     "[ ! -t 0 ]||{ say tty;exit 1;};say here||exit;";

/* -x: that relay and no other. */
static const char script_named[] =
    "x=%s;[ \"$({ \"$x\" -V;} 2>/dev/null </dev/null)\" = \"$V\" ]||{ "
    "e=$({ \"$x\" -V;} 2>&1 </dev/null)||e=\"${e:-status $?}\";"
    "set -f;say no \"$x:\" ${e:-no output};exit 1;};"
    "say at \"$x\";exec \"$x\" $o\n";

/*
 * In turn: a relay that was installed; one that was copied earlier; a place for a copy.  c is what cksum says of the binary: its
 * checksum and its size.  head -c may read ahead where dd does not, and is many times as fast.
 *
 * If cksum is missing, the size is compared. A copy of the right size may still
 * be spoiled, so it is sent again when it does not run.
 *
 * try ignores stderr: the loader may print warnings there that do not matter
 * (LD_PRELOAD). When the binary is refused, a second run gets what it prints.
 */
static const char script_found[] =
    "try(){ [ \"$({ \"$1\" -V;} 2>/dev/null </dev/null)\" = \"$V\" ];};"
    "go(){ try \"$1\"&&say at \"$1\"&&exec \"$1\" $o;};"
    "for p in relay \"$HOME/.local/bin/relay\" \"$HOME/bin/relay\";do go \"$p\";done;"
    "has(){ command -v \"$1\" >/dev/null 2>&1;};m=;"
    "for p in cat chmod find mkdir mv rm uname;do has $p||m=\"$m $p\";done;"
    "u=$(id -u 2>/dev/null);[ \"$u\" ]||m=\"$m id\";"
    "has cksum||has wc||m=\"$m cksum\";"
    "h=;head -c 1 </dev/null >/dev/null 2>&1&&h=1;[ \"$h\" ]||has dd||m=\"$m dd\";"
    "[ ! \"$m\" ]||{ say \"lack$m\";exit 1;};"
    "t=$(uname -s)-$(uname -m);c=;case $t in ";
static const char script_type[] = "%s)c='%lu %zu';;";
static const char script_copied[] =
    "esac;"
    "[ \"$c\" ]||{ say none \"$t\";exit 1;};"
    "n=${c#* };s=${c%% *};w=;umask 077;"
    "sum(){ set -- $({ cksum <\"$1\"||wc -c <\"$1\";} 2>/dev/null);[ \"$1 $2\" = \"$c\" ]||[ \"$1 "
    "$2\" = \"$n \" ];};"
    "ours(){ e=$(mkdir -p \"$d\" 2>&1)||return;e='it is not a directory of mode 0700 of this user';"
    "[ \"$(find \"$d\" -prune -type d -user \"$u\" \\( -perm 700 -o -perm 2700 \\) 2>/dev/null)\" "
    "];};"
    "room(){ find \"$d\" -name 'relay-*.part' -mtime +0 -exec rm -f {} + 2>/dev/null;"
    "e=$({ echo '#!/bin/sh' >\"$x\"&&chmod 700 \"$x\"&&\"$x\";} 2>&1);};"
    "get(){ if [ \"$h\" ];then head -c $n;else dd bs=1 count=$n 2>/dev/null;fi;};"
    "refuse(){ e=$({ \"$1\" -V;} 2>&1 </dev/null)||e=\"${e:-status $?}\";set -f;say refuse $s "
    "\"$d:\" ${e:-no output};exit 1;};"
    "put(){ say want \"$t\" \"$d\";e=$(get|{ { cat >\"$x\";} 2>&1;cat >/dev/null;});"
    "sum \"$x\"||return;try \"$x\"||refuse \"$x\";e=$(mv -f \"$x\" \"$p\" 2>&1);};"
    "trap 'rm -f \"$x\"' 0;trap 'exit 1' 1 2 13 15;"
    "for d in \"${XDG_CACHE_HOME:-$HOME/.cache}/relay\" "
    "${XDG_RUNTIME_DIR:+\"$XDG_RUNTIME_DIR/relay\"} "
    "${TMPDIR:+\"$TMPDIR/relay-$u\"} \"/tmp/relay-$u\";do "
    "p=$d/relay-" RELAY_VERSION "-$t-$s;x=$p.$(uname -n).$$.part;k=;"
    "if ours;then if sum \"$p\";then go \"$p\";! has cksum||k=1;fi;"
    "if room;then [ ! \"$k\" ]||[ ! -x \"$p\" ]||refuse \"$p\";put&&go \"$p\";fi;rm -f \"$x\" "
    "2>/dev/null;fi;"
    "w=\"$w; $d: ${e:-it could not be written}\";say left \"$d\"||exit;done;"
    "say fail \"${w#; }\";exit 1\n";

/* ---- the binaries that we have ---- */

/* POSIX XCU cksum: the polynomial 0x04c11db7 over the bytes and then the length, least significant byte first. */
uint32_t
boot_sum(const unsigned char *p, size_t n)
{
	uint32_t table[256], c;
	size_t i, left;
	int bit;

	for (i = 0; i < 256; i++) {
		c = (uint32_t)i << 24;
		for (bit = 0; bit < 8; bit++)
			c = (c & 0x80000000U) != 0 ? c << 1 ^ 0x04c11db7U : c << 1;
		table[i] = c;
	}
	c = 0;
	for (i = 0; i < n; i++)
		c = c << 8 ^ table[(c >> 24 ^ p[i]) & 0xff];
	for (left = n; left != 0; left >>= 8)
		c = c << 8 ^ table[(c >> 24 ^ left) & 0xff];
	return ~c;
}

/* What is sent is run as the user there: it is his own, root's, or of whoever put our own binary where it is. */
static bool
is_trusted(const struct boot *b, const struct stat *st)
{
	return st->st_uid == 0 || st->st_uid == geteuid() || st->st_uid == b->owner;
}

/* The whole file ${path} into memory that is the caller's; NULL: it cannot be had. */
static unsigned char *
read_file(const struct boot *b, const char *path, size_t *size)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* of a FIFO too */
	unsigned char *p = NULL;
	struct stat st;
	size_t have = 0;
	ssize_t n;

	if (fd == -1)
		return NULL;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && is_trusted(b, &st) && st.st_size > 0 &&
	    st.st_size < BINARY_MOST)
		p = malloc((size_t)st.st_size);
	while (p != NULL && have < (size_t)st.st_size) {
		n = read(fd, p + have, (size_t)st.st_size - have);
		if (n > 0) {
			have += (size_t)n;
		} else if (n == 0 || errno != EINTR) {
			free(p);
			p = NULL;
		}
	}
	close(fd);
	*size = have;
	return p;
}

static void
add_binary(struct boot *b, const char *path, const char *type)
{
	struct binary *one = &b->binary[b->binaries];
	unsigned char *bytes;
	int i;

	for (i = 0; i < b->binaries; i++)
		if (strcmp(b->binary[i].type, type) == 0)
			return; /* an earlier place has it */
	if (b->binaries == BOOT_BINARIES || strlen(path) >= sizeof(one->path))
		return;
	bytes = read_file(b, path, &one->size);
	if (bytes == NULL)
		return;
	one->sum = boot_sum(bytes, one->size);
	free(bytes);
	snprintf(one->path, sizeof(one->path), "%s", path);
	snprintf(one->type, sizeof(one->type), "%s", type);
	b->binaries++;
}

/* The binaries named by their types in ${dir}, whose first ${n} bytes count, and ${under} it. */
static void
find_in(struct boot *b, const char *dir, int n, const char *under)
{
	static const char *const types[] = { "Linux-x86_64", "Linux-aarch64", "Linux-ppc64le",
		"Linux-riscv64", "Darwin-x86_64", "Darwin-arm64" };
	char path[BOOT_PATH + 64];
	size_t i;

	for (i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		snprintf(path, sizeof(path), "%.*s%srelay-%s", n, dir, under, types[i]);
		add_binary(b, path, types[i]);
	}
}

/* What was installed with us comes first: it is static. For our own type there is our own file, before what was built beside it. */
static void
find_binaries(struct boot *b, const char *self, const char *image)
{
	const char *slash = strrchr(self, '/');
	char type[BOOT_TYPE];
	struct utsname us;
	struct stat st;

	if (slash == NULL || uname(&us) == -1)
		return;
	b->owner = stat(image, &st) == 0 ? st.st_uid : geteuid();
	snprintf(type, sizeof(type), "%.*s-%.*s", BOOT_TYPE / 2 - 1, us.sysname, BOOT_TYPE / 2 - 1,
	    us.machine);
	find_in(b, self, (int)(slash - self), "/../lib/relay/");
	add_binary(b, image, type);
	find_in(b, self, (int)(slash - self), "/");
}

/* ---- what is said ---- */

static void
fail(struct boot *b, const char *why)
{
	b->state = BOOT_FAILED;
	snprintf(b->why, sizeof(b->why), "%s", why);
}

/* ${path} as a word of sh, whatever it holds; ~/ is the home there. */
static void
quote(char *dst, size_t size, const char *path)
{
	size_t n = 0;

	if (strncmp(path, "~/", 2) == 0) {
		n = (size_t)snprintf(dst, size, "\"$HOME\"");
		path++;
	}
	dst[n++] = '\'';
	for (; *path != '\0' && n + 6 < size; path++) {
		if (*path == '\'')
			n += (size_t)snprintf(dst + n, size - n, "'\\''");
		else
			dst[n++] = *path;
	}
	dst[n++] = '\'';
	dst[n] = '\0';
}

static size_t
write_script(struct boot *b, char *dst, size_t size, const char *far_path, const char *options)
{
	char word[BOOT_PATH * 4 + 16];
	size_t n = (size_t)snprintf(dst, size, script_head, options);
	int i;

	if (far_path != NULL) {
		quote(word, sizeof(word), far_path);
		return n + (size_t)snprintf(dst + n, size - n, script_named, word);
	}
	n += (size_t)snprintf(dst + n, size - n, "%s", script_found);
	for (i = 0; i < b->binaries; i++)
		n += (size_t)snprintf(dst + n, size - n, script_type, b->binary[i].type,
		    (unsigned long)b->binary[i].sum, b->binary[i].size);
	return n + (size_t)snprintf(dst + n, size - n, "%s", script_copied);
}

bool
boot_start(
    struct boot *b, const char *self, const char *image, const char *far_path, const char *options)
{
	size_t size = BOOT_PATH * 5 + 8192;

	memset(b, 0, offsetof(struct boot, refused));
	if (far_path == NULL)
		find_binaries(b, self, image);
	b->out = malloc(size);
	if (b->out == NULL)
		return false;
	b->out_end = write_script(b, (char *)b->out, size, far_path, options);
	return true;
}

size_t
boot_pull(struct boot *b, unsigned char *dst, size_t room)
{
	size_t n = b->out_end - b->out_start;

	if (n > room)
		n = room;
	if (n > 0)
		memcpy(dst, b->out + b->out_start, n);
	b->out_start += n;
	return n;
}

bool
boot_has_output(const struct boot *b)
{
	return b->out_start < b->out_end;
}

/* ---- what is answered ---- */

/* ${words}: the machine type, a blank, the directory that will take it */
static void
send_binary(struct boot *b, const char *words)
{
	size_t length = strcspn(words, " "), size;
	unsigned char *bytes;
	int i;

	for (i = 0; i < b->binaries; i++)
		if (strlen(b->binary[i].type) == length &&
		    memcmp(b->binary[i].type, words, length) == 0)
			break;
	if (i == b->binaries || b->copies == COPIES) {
		fail(b, "the far side asks for what it was not offered");
		return;
	}
	if (b->refused && b->refused_sum == b->binary[i].sum) {
		fail(b, b->refusal);
		return;
	}
	bytes = read_file(b, b->binary[i].path, &size);
	if (bytes == NULL || size != b->binary[i].size) {
		free(bytes);
		fail(b, "this relay's own binary cannot be read, or was replaced just now");
		return;
	}
	free(b->out);
	b->out = bytes;
	b->out_start = 0;
	b->out_end = size;
	b->copies++;
	b->size = size;
	b->state = BOOT_COPIES;
}

static void
no_binary(struct boot *b, const char *type)
{
	char why[sizeof(b->why)];

	snprintf(why, sizeof(why),
	    "it is a %.60s, for which there is no relay here: put a relay of version " RELAY_VERSION
	    " into the PATH there, or name one with -x",
	    type);
	fail(b, why);
}

static void
no_place(struct boot *b, const char *words)
{
	char why[sizeof(b->why)];

	snprintf(why, sizeof(why),
	    "no relay is there, and no place where one can be kept and run: %.800s; make room in "
	    "one of these, or name a relay "
	    "there with -x",
	    words);
	fail(b, why);
}

static void
no_tool(struct boot *b, const char *tools)
{
	char why[sizeof(b->why)];

	snprintf(why, sizeof(why),
	    "no relay is there, and the system there lacks %.200s, without which none can be "
	    "copied: install it, or name a "
	    "relay there with -x",
	    tools);
	fail(b, why);
}

/* ${words}: the checksum of the binary, a blank, the directory and what was printed */
static void
no_run(struct boot *b, const char *words)
{
	char why[sizeof(b->why)], *end;
	unsigned long sum = strtoul(words, &end, 10);

	if (end == words || *end != ' ') {
		fail(b, "the far side answered what it was not asked");
		return;
	}
	snprintf(why, sizeof(why),
	    "relay does not run there: %.800s; where a loader or a library is missing, use a "
	    "static relay here "
	    "(make static), or name a relay there with -x",
	    end + 1);
	fail(b, why);
	b->refused = true;
	b->refused_sum = (uint32_t)sum;
	snprintf(b->refusal, sizeof(b->refusal), "%s", why);
}

/* A line behind BOOT_MARK. */
static void
take_line(struct boot *b, char *line)
{
	char *words = strchr(line, ' '), why[sizeof(b->why)];

	if (words != NULL)
		*words++ = '\0';
	else
		words = line + strlen(line);
	if (strcmp(line, "at") == 0) {
		b->state = BOOT_STARTS;
		snprintf(b->path, sizeof(b->path), "%s", words);
	} else if (strcmp(line, "want") == 0) {
		send_binary(b, words);
	} else if (strcmp(line, "here") == 0) {
		b->here = true;
	} else if (strcmp(line, "left") == 0) {
		return; /* it is said to learn whether the line still stands, before another directory is made */
	} else if (strcmp(line, "no") == 0) {
		snprintf(why, sizeof(why),
		    "-x has to name a relay " RELAY_VERSION
		    " there, and asked for its version it says: %s",
		    words);
		fail(b, why);
	} else if (strcmp(line, "tty") == 0) {
		fail(b, "there is a terminal on the way, which changes bytes: leave it out (ssh "
			"-t, docker exec -t)");
	} else if (strcmp(line, "none") == 0) {
		no_binary(b, words);
	} else if (strcmp(line, "fail") == 0) {
		no_place(b, words);
	} else if (strcmp(line, "lack") == 0) {
		no_tool(b, words);
	} else if (strcmp(line, "refuse") == 0) {
		no_run(b, words);
	} else {
		fail(b, "the far side answered what it was not asked");
	}
}

/* ${line} has grown by a byte: is it an answer, or the beginning of one? */
static void
take_byte(struct boot *b, char c)
{
	size_t mark = strlen(BOOT_MARK), echo = strlen(ECHO);
	char *line = b->line;

	if (b->marked && c == '\n') {
		line[b->have] = '\0';
		if (b->have > 0 && line[b->have - 1] == '\r')
			line[b->have - 1] = '\0';
		b->marked = false;
		b->have = 0;
		take_line(b, line);
		return;
	}
	if (b->have == sizeof(b->line) - 1) {
		if (b->marked)
			return; /* the rest of an overlong line is dropped */
		memmove(line, line + sizeof(b->line) / 2, b->have - sizeof(b->line) / 2);
		b->have -= sizeof(b->line) / 2;
	}
	line[b->have++] = c;
	if (b->marked)
		return;
	if (b->have >= mark && memcmp(line + b->have - mark, BOOT_MARK, mark) == 0) {
		b->marked = true;
		b->have = 0;
	} else if (b->have >= echo && memcmp(line + b->have - echo, ECHO, echo) == 0) {
		fail(b, "the words for the far shell come back: is there a terminal on the way "
			"(ssh -t), or is a hop no "
			"command that runs its arguments?");
	}
}

void
boot_feed(struct boot *b, const void *p, size_t n)
{
	const char *at = p, *end = at + n;

	while (at < end && b->state != BOOT_FAILED)
		take_byte(b, *at++);
}

size_t
boot_strip(char *text)
{
	char *at = text, *end;

	while ((at = strstr(at, BOOT_MARK)) != NULL) {
		end = strchr(at, '\n');
		if (end == NULL)
			*at = '\0';
		else
			memmove(at, end + 1, strlen(end + 1) + 1);
	}
	return strlen(text);
}

void
boot_free(struct boot *b)
{
	free(b->out);
	b->out = NULL;
	b->out_start = b->out_end = 0;
}
