/*
 * tunnel/bootstrap.h - starts a far end where none is installed.
 */
#ifndef TUNNEL_BOOTSTRAP_H
#define TUNNEL_BOOTSTRAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "mux/mux.h"

#define BOOT_MARK "relay:: " /* before each answer of a far shell */
#define BOOT_BEGIN MUX_SCRIPT
#define BOOT_BINARIES 8
#define BOOT_PATH 1024
#define BOOT_TYPE 64

struct binary {
	char path[BOOT_PATH];
	char type[BOOT_TYPE]; /* uname -s, "-", uname -m */
	size_t size;
	uint32_t sum;
};

enum boot_state { BOOT_ASKS, BOOT_COPIES, BOOT_STARTS, BOOT_FAILED };

struct boot {
	enum boot_state state;
	struct binary binary[BOOT_BINARIES];
	int binaries, copies;
	uid_t owner;        /* of our own binary */
	unsigned char *out; /* what is being sent: the script, or a binary */
	size_t out_start, out_end;
	char line[1024]; /* what came last, or, behind a mark, the answer */
	size_t have, size;
	bool marked;
	bool here;            /* the far shell has answered */
	char path[BOOT_PATH]; /* BOOT_STARTS: of the far relay */
	char why[1200];       /* BOOT_FAILED: a sentence */
	bool refused;         /* from here on: kept from start to start */
	uint32_t refused_sum; /* of the binary that the system there did not run */
	char refusal[1200];   /* why it failed then */
};

/*
 * boot_start(b, self, image, far_path, options): begin; ${self} is our own binary's path, ${image} where it can be read, ${options}
 * those of the far relay; ${far_path} is the far relay to use, NULL: whatever is found or can be brought.  False: no memory.
 * Before its first start ${b} is all zeros; a binary that was refused there is not sent in later starts.
 * boot_free(b): any number of times.
 * boot_feed(b, p, n): what came before the magic of the link.  boot_pull(b, dst, room), boot_has_output(b): what is to be sent.
 * boot_strip(text): take the answers out of what came; its new length.
 * boot_sum(p, n): as cksum(1) does it.
 */
bool boot_start(
    struct boot *b, const char *self, const char *image, const char *far_path, const char *options);
void boot_free(struct boot *b);
void boot_feed(struct boot *b, const void *p, size_t n);
size_t boot_pull(struct boot *b, unsigned char *dst, size_t room);
bool boot_has_output(const struct boot *b);
size_t boot_strip(char *text);
uint32_t boot_sum(const unsigned char *p, size_t n);

#endif
