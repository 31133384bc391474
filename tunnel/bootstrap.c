/*
 * tunnel/bootstrap.c - starts relay on the far side.  If none is installed
 * there, it uploads one.
 *
 * The script contains only one text of the user: the path of -x, in quotes.
 * Targets are sent over the link.
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
#include "tunnel/bootstrap_sh.h"
#include "tunnel/bootstrap.h"
#include "tunnel/elf.h"

#define ECHO "printf 'relay%s" /* part of the script; no answer contains it */
#define TYPE_SIZE 64
#define BINARIES_MAX 7                /* our own, and those in add_directory */
#define BINARY_MAX (16 * 1024 * 1024) /* bytes of a binary */
#define UPLOADS_MAX 5                 /* the script has fewer directories */

#define MAKE_STATIC                                                                            \
	"that relay needs the loader and the C library of this host: build a static one here " \
	"with \"make static && make install\", or "
#define UNEXPECTED "the far side sent an unexpected answer"

struct binary {
	char path[BOOTSTRAP_PATH];
	char type[TYPE_SIZE]; /* uname -s, "-", uname -m */
	size_t size;
	uint32_t cksum;
	bool is_dynamic;
};

/* A binary that the far system did not run. */
struct refusal {
	uint32_t cksum;
	char why[BOOTSTRAP_WHY]; /* "": none */
};

struct bootstrap {
	struct bootstrap_facts facts;
	struct binary binaries[BINARIES_MAX]; /* on offer */
	int n_binaries;
	uid_t owner;                   /* of the file of this relay */
	unsigned char *out;            /* the script, or a binary; NULL: all was sent */
	const unsigned char *at, *end; /* what is not sent */
	size_t mark_have, echo_have;   /* bytes of BOOTSTRAP_MARK and ECHO that were read last */
	char line[1024];               /* an answer after its mark */
	size_t line_have;
	struct refusal refusal; /* remains for later starts */
};

/* ---- the binaries on offer ---- */

/*
 * The polynomial is 0x04c11db7.  The length follows the bytes, its low byte
 * first.
 */
uint32_t
bootstrap_cksum(const unsigned char *p, size_t n)
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

/*
 * An uploaded binary runs as the user.  It has to belong to the user, to root,
 * or to the owner of the relay that runs here.
 */
static bool
is_binary(const struct bootstrap *b, const struct stat *st)
{
	bool trusted = st->st_uid == 0 || st->st_uid == geteuid() || st->st_uid == b->owner;

	return trusted && S_ISREG(st->st_mode) && st->st_size > 0 && st->st_size < BINARY_MAX;
}

static bool
read_all(int fd, unsigned char *p, size_t n)
{
	size_t have = 0;
	ssize_t got;

	while (have < n) {
		got = read(fd, p + have, n - have);
		if (got > 0)
			have += (size_t)got;
		else if (got == 0 || errno != EINTR)
			return false;
	}
	return true;
}

/*
 * Read the binary ${path} into memory that the caller frees, and set ${*size}.
 * Return NULL if it cannot be used.  O_NONBLOCK: ${path} may be a FIFO.
 */
static unsigned char *
read_binary(const struct bootstrap *b, const char *path, size_t *size)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	unsigned char *p = NULL;
	struct stat st;

	if (fd == -1)
		return NULL;
	if (fstat(fd, &st) == 0 && is_binary(b, &st)) {
		*size = (size_t)st.st_size;
		p = malloc(*size);
	}
	if (p != NULL && !read_all(fd, p, *size)) {
		free(p);
		p = NULL;
	}
	close(fd);
	return p;
}

/* The offered binary whose type is the first ${n} bytes of ${type}, or NULL. */
static struct binary *
find_binary(struct bootstrap *b, const char *type, size_t n)
{
	int i;

	for (i = 0; i < b->n_binaries; i++)
		if (strlen(b->binaries[i].type) == n && memcmp(b->binaries[i].type, type, n) == 0)
			return &b->binaries[i];
	return NULL;
}

/*
 * Offer the binary ${path} for ${type}, unless one is already on offer.  A
 * static binary replaces a dynamic one.
 */
static void
add_binary(struct bootstrap *b, const char *path, const char *type)
{
	struct binary *one = find_binary(b, type, strlen(type));
	struct binary new;
	unsigned char *bytes;

	if ((one != NULL && !one->is_dynamic) || strlen(path) >= sizeof(new.path))
		return;
	bytes = read_binary(b, path, &new.size);
	if (bytes == NULL)
		return;
	new.cksum = bootstrap_cksum(bytes, new.size);
	new.is_dynamic = elf_needs_loader(bytes, new.size);
	free(bytes);
	snprintf(new.path, sizeof(new.path), "%s", path);
	snprintf(new.type, sizeof(new.type), "%s", type);
	if (one == NULL)
		b->binaries[b->n_binaries++] = new;
	else if (!new.is_dynamic)
		*one = new;
}

/*
 * Add the binaries of a directory.  Its path is the first ${n} bytes of ${dir},
 * then ${under}.  ${own} is the type of this system.
 */
static void
add_directory(struct bootstrap *b, const char *own, const char *dir, int n, const char *under)
{
	const char *const types[BINARIES_MAX] = { own, "Linux-x86_64", "Linux-aarch64",
		"Linux-ppc64le", "Linux-riscv64", "Darwin-x86_64", "Darwin-arm64" };
	char path[BOOTSTRAP_PATH + 64];
	size_t i;

	for (i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		snprintf(path, sizeof(path), "%.*s%srelay-%s", n, dir, under, types[i]);
		add_binary(b, path, types[i]);
	}
}

/* The file of this relay comes last, because it is seldom static. */
static void
add_binaries(struct bootstrap *b, const char *self, const char *image)
{
	const char *slash = strrchr(self, '/');
	char type[TYPE_SIZE];
	struct utsname us;
	struct stat st;

	if (slash == NULL || uname(&us) == -1)
		return;
	b->owner = stat(image, &st) == 0 ? st.st_uid : geteuid();
	snprintf(type, sizeof(type), "%.*s-%.*s", TYPE_SIZE / 2 - 1, us.sysname, TYPE_SIZE / 2 - 1,
	    us.machine);
	add_directory(b, type, self, (int)(slash - self), "/../lib/relay/");
	add_directory(b, type, self, (int)(slash - self), "/");
	add_binary(b, image, type);
}

/* ---- the script ---- */

/*
 * Write ${path} as a word of sh.  A leading ~/ is the far user's home
 * directory.
 */
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

/* Write the binaries on offer as words: TYPE:CHECKSUM:SIZE. */
static void
list_binaries(const struct bootstrap *b, char *dst, size_t size)
{
	size_t n = 0;
	int i;

	*dst = '\0';
	for (i = 0; i < b->n_binaries && n < size; i++)
		n += (size_t)snprintf(dst + n, size - n, "%s%s:%lu:%zu", i > 0 ? " " : "",
		    b->binaries[i].type, (unsigned long)b->binaries[i].cksum, b->binaries[i].size);
}

/* The arguments are in the order of the @words@ in bootstrap.sh. */
static bool
write_script(struct bootstrap *b, const char *far_path, const char *options)
{
	char path[BOOTSTRAP_PATH * 4 + 16] = "", offer[BINARIES_MAX * (TYPE_SIZE + 32)];
	size_t size = sizeof(BOOTSTRAP_SH) + sizeof(RELAY_VERSION) + strlen(options) +
		      sizeof(path) + sizeof(offer);

	b->out = malloc(size);
	if (b->out == NULL)
		return false;
	if (far_path != NULL)
		quote(path, sizeof(path), far_path);
	list_binaries(b, offer, sizeof(offer));
	b->at = b->out;
	b->end = b->at +
		 snprintf((char *)b->out, size, BOOTSTRAP_SH, RELAY_VERSION, options, path, offer);
	return true;
}

struct bootstrap *
bootstrap_new(void)
{
	return calloc(1, sizeof(struct bootstrap));
}

void
bootstrap_release(struct bootstrap *b)
{
	if (b == NULL)
		return;
	free(b->out);
	b->out = NULL;
	b->at = b->end = NULL;
}

bool
bootstrap_start(struct bootstrap *b, const char *self, const char *image, const char *far_path,
    const char *options)
{
	struct refusal refusal = b->refusal;

	bootstrap_release(b);
	memset(b, 0, sizeof(*b));
	b->refusal = refusal;
	if (far_path == NULL)
		add_binaries(b, self, image);
	return write_script(b, far_path, options);
}

bool
bootstrap_has_output(const struct bootstrap *b)
{
	return b->at < b->end;
}

size_t
bootstrap_output(const struct bootstrap *b, const unsigned char **p)
{
	*p = b->at;
	return (size_t)(b->end - b->at);
}

void
bootstrap_wrote(struct bootstrap *b, size_t n)
{
	b->at += n;
	if (b->at == b->end)
		bootstrap_release(b);
}

void
bootstrap_free(struct bootstrap *b)
{
	if (b != NULL)
		bootstrap_release(b);
	free(b);
}

/* ---- the answers ---- */

static void
fail(struct bootstrap *b, const char *why)
{
	b->facts.state = BOOTSTRAP_FAILED;
	snprintf(b->facts.why, sizeof(b->facts.why), "%s", why);
}

/* ${words}: the type of the far system, the directory. */
static void
take_want(struct bootstrap *b, const char *words)
{
	const struct binary *one = find_binary(b, words, strcspn(words, " "));
	unsigned char *bytes;
	size_t size = 0;

	if (one == NULL || b->facts.uploads == UPLOADS_MAX) {
		fail(b, "the far side asked for a binary that was not offered");
		return;
	}
	if (b->refusal.why[0] != '\0' && b->refusal.cksum == one->cksum) {
		fail(b, b->refusal.why);
		return;
	}
	bytes = read_binary(b, one->path, &size);
	if (bytes == NULL || size != one->size) {
		free(bytes);
		fail(b, "the binary of this relay cannot be read, or was replaced after the start");
		return;
	}
	bootstrap_release(b);
	b->at = b->out = bytes;
	b->end = bytes + size;
	b->facts.upload_size = size;
	b->facts.upload_is_dynamic = one->is_dynamic;
	b->facts.uploads++;
	b->facts.state = BOOTSTRAP_UPLOADING;
}

/* ${words}: the type of the far system, directory, what the binary prints. */
static void
take_refuse(struct bootstrap *b, const char *words)
{
	size_t n = strcspn(words, " ");
	const struct binary *one = find_binary(b, words, n);

	if (one == NULL || words[n] == '\0') {
		fail(b, UNEXPECTED);
		return;
	}
	b->refusal.cksum = one->cksum;
	snprintf(b->refusal.why, sizeof(b->refusal.why),
	    "relay does not run there: %.800s; %sname a relay there with -x", words + n + 1,
	    one->is_dynamic ? MAKE_STATIC : "");
	fail(b, b->refusal.why);
}

/* Answers that end the start.  The message is before + answer + after. */
static const struct {
	const char *word, *before, *after;
} failures[] = {
	{ "none", "no relay here fits its type, ",
	    ": build one here with make cross && make install, install relay " RELAY_VERSION
	    " in the PATH there, or name its path with -x" },
	{ "fail", "relay is not installed there, and no directory can store and run it: ",
	    "; make room in one of these (not noexec), or name a relay there with -x" },
	{ "lack", "relay is not installed there, and the system lacks ",
	    ", which an upload needs: install it, or name a relay there with -x" },
	{ "no",
	    "-x has to name a relay of version " RELAY_VERSION " there; with -V it prints: ", "" },
	{ "tty", "a terminal on the way changes bytes: remove it (ssh -t, docker exec -t)", "" },
};

static void
take_failure(struct bootstrap *b, const char *word, const char *words)
{
	size_t i;

	fail(b, UNEXPECTED);
	for (i = 0; i < sizeof(failures) / sizeof(failures[0]); i++)
		if (strcmp(word, failures[i].word) == 0)
			snprintf(b->facts.why, sizeof(b->facts.why), "%s%.800s%s",
			    failures[i].before, words, failures[i].after);
}

/*
 * "left" needs no action.  The script sends it to detect that this side has
 * ended.
 */
static void
take_answer(struct bootstrap *b)
{
	char *line = b->line, *words;

	if (b->line_have > 0 && line[b->line_have - 1] == '\r')
		b->line_have--;
	line[b->line_have] = '\0';
	b->line_have = b->mark_have = 0;
	words = line + strcspn(line, " ");
	if (*words != '\0')
		*words++ = '\0';
	if (strcmp(line, "here") == 0) {
		b->facts.answered = true;
	} else if (strcmp(line, "at") == 0) {
		b->facts.state = BOOTSTRAP_STARTING;
		snprintf(b->facts.path, sizeof(b->facts.path), "%s", words);
	} else if (strcmp(line, "want") == 0) {
		take_want(b, words);
	} else if (strcmp(line, "refuse") == 0) {
		take_refuse(b, words);
	} else if (strcmp(line, "left") != 0) {
		take_failure(b, line, words);
	}
}

/*
 * The last ${have} bytes are the start of ${text}.  Return how many are after
 * ${c}.  The first byte of ${text} is at no other place in it.
 */
static size_t
match(const char *text, size_t have, char c)
{
	if (c == text[have])
		return have + 1;
	return c == *text ? 1 : 0;
}

/* A long answer loses its end. */
static void
take_byte(struct bootstrap *b, char c)
{
	if (b->mark_have < strlen(BOOTSTRAP_MARK)) {
		b->mark_have = match(BOOTSTRAP_MARK, b->mark_have, c);
		b->echo_have = match(ECHO, b->echo_have, c);
		if (b->echo_have == strlen(ECHO))
			fail(b, "the script came back: is there a terminal on the way (ssh -t), or "
				"does a hop not run its arguments?");
	} else if (c == '\n') {
		take_answer(b);
	} else if (b->line_have < sizeof(b->line) - 1) {
		b->line[b->line_have++] = c;
	}
}

void
bootstrap_feed(struct bootstrap *b, const void *p, size_t n)
{
	const char *at = p, *end = at + n;

	while (at < end && b->facts.state != BOOTSTRAP_FAILED)
		take_byte(b, *at++);
}

size_t
bootstrap_strip(char *text)
{
	char *at = text, *end;

	while ((at = strstr(at, BOOTSTRAP_MARK)) != NULL) {
		end = strchr(at, '\n');
		if (end == NULL)
			*at = '\0';
		else
			memmove(at, end + 1, strlen(end + 1) + 1);
	}
	return strlen(text);
}

const struct bootstrap_facts *
bootstrap_facts(const struct bootstrap *b)
{
	return &b->facts;
}
