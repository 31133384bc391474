/*
 * tunnel/bootstrap.h - starts relay on the far side.  If none is installed
 * there, it uploads one.
 *
 * The chain of hops runs a plain sh.  The near side sends that shell one line
 * of script (bootstrap.sh).  The shell answers with lines that begin with
 * BOOTSTRAP_MARK:
 *
 *   answer           next state
 *   here             unchanged   the shell has read the script
 *   want TYPE DIR    UPLOADING   no relay is there: the near side sends the
 *                                binary for the system TYPE, to be kept in DIR
 *   left DIR         unchanged   DIR cannot store and run the binary
 *   at PATH          STARTING    this relay becomes the far end; the magic of
 *                                the link follows
 *   any other        FAILED      the cause is in bootstrap_facts
 *
 * This module has no descriptor and no clock.  No function blocks, but
 * bootstrap_start() and bootstrap_feed() read local files of up to 16 MiB each.
 */
#ifndef TUNNEL_BOOTSTRAP_H
#define TUNNEL_BOOTSTRAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BOOTSTRAP_MARK "relay:: " /* before each answer of the far shell */
#define BOOTSTRAP_PATH 1024       /* the size of a path, with its NUL */
#define BOOTSTRAP_WHY 1200        /* the size of a cause, with its NUL */

enum bootstrap_state {
	BOOTSTRAP_ASKING,
	BOOTSTRAP_UPLOADING,
	BOOTSTRAP_STARTING,
	BOOTSTRAP_FAILED
};

/* The results of a start, until the next one. */
struct bootstrap_facts {
	enum bootstrap_state state;
	bool answered;             /* the far shell has sent its first answer */
	char path[BOOTSTRAP_PATH]; /* BOOTSTRAP_STARTING: of the far relay */
	char why[BOOTSTRAP_WHY];   /* BOOTSTRAP_FAILED: cause and remedy as one sentence */
	int uploads;               /* finished or not */
	size_t upload_size;        /* of the last of them */
	bool upload_is_dynamic;    /* the last of them needs a loader (elf.h) */
};

struct bootstrap;

/*
 * bootstrap_new(), bootstrap_free(b):
 * Allocate a bootstrap, for any number of starts on one far side; free it.
 * NULL: no memory.
 *
 * bootstrap_release(b):
 * Free the bytes that were not sent.  The results of the start stay.  ${b} can
 * be NULL.
 *
 * bootstrap_start(b, self, image, far_path, options):
 * Begin a start: prepare the script and enter BOOTSTRAP_ASKING.
 * ${self} is the path of this relay's binary.  The binaries on offer are in the
 * directory of ${self} and in its ../lib/relay.  ${image} is a path from which
 * the running binary can be read.  For the type of this system, ${image} is
 * offered if no other binary has it, or only a dynamic one and ${image} is
 * static.  The far relay is run with the words ${options}.  If ${far_path} is
 * not NULL, only that relay is used and nothing is uploaded.
 * If the far system refused a binary in an earlier start of ${b}, that binary
 * is not sent again.  Return false if the memory runs out.
 */
struct bootstrap *bootstrap_new(void);
void bootstrap_release(struct bootstrap *b);
void bootstrap_free(struct bootstrap *b);
bool bootstrap_start(struct bootstrap *b, const char *self, const char *image, const char *far_path,
    const char *options);

/*
 * bootstrap_feed(b, p, n):
 * Take ${n} bytes that the far side sent before the magic of the link.  Bytes
 * that belong to no answer are skipped.
 *
 * bootstrap_output(b, p), bootstrap_wrote(b, n), bootstrap_has_output(b):
 * As mux_output, mux_wrote and mux_has_output.
 */
void bootstrap_feed(struct bootstrap *b, const void *p, size_t n);
size_t bootstrap_output(const struct bootstrap *b, const unsigned char **p);
void bootstrap_wrote(struct bootstrap *b, size_t n);
bool bootstrap_has_output(const struct bootstrap *b);

/*
 * bootstrap_facts(b): the results, which belong to ${b}.
 * bootstrap_strip(text): remove the answers of a far shell from the string
 * ${text}, in place.  Return its new length.
 * bootstrap_cksum(p, n): the checksum of ${n} bytes as cksum(1) prints it
 * (POSIX.1-2008, XCU, cksum).
 */
const struct bootstrap_facts *bootstrap_facts(const struct bootstrap *b);
size_t bootstrap_strip(char *text);
uint32_t bootstrap_cksum(const unsigned char *p, size_t n);

#endif
