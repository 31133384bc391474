# Build:    all  static  cross  cross-all  clean  distclean
# Install:  install  install-strip  uninstall
# Package:  source  dist  deb
# Prepare:  deps  deps-all
# Test:     check  check-all  check-browser  check-cross  check-faults  check-macos
#           coverage  fuzz  simulate  soak  valgrind
# Measure:  bench  lines  size
# Examine:  lint  layers  analyse
# Show:     demo
#
# The environment or the command line sets CC, CFLAGS, CPPFLAGS, LDFLAGS, PREFIX
# and DESTDIR.  The command line sets each other macro.
# OS=linux, darwin, bsd or posix selects base/os_*.c; by default, uname -s does.
# POSIX=1 is short for OS=posix: use nothing beyond POSIX.1-2008.
#
# GNU make 3.81, bmake and POSIX.1-2024 have ?=.  There is no .POSIX: with it,
# the default of CC would be c99, and ?= keeps a default.

CC ?= cc
CFLAGS ?= -O2 -g
CPPFLAGS ?=
LDFLAGS ?=
PREFIX ?= /usr/local
DESTDIR ?=
BINDIR = $(PREFIX)/bin
LIBDIR = $(PREFIX)/lib
MANDIR = $(PREFIX)/share/man
ZSHDIR = $(PREFIX)/share/zsh/site-functions
BASHDIR = $(PREFIX)/share/bash-completion/completions
STRIP = strip
POSIX = 0

# make check: the tests to run, and how many unit tests run at the same time.
# PYTHON: a python3 that has pytest.
PYTHON = $$(for python in python3 /usr/bin/python3; do \
	"$$python" -c 'import pytest' 2>/dev/null && break; done; echo "$$python")
E2E = t
ROWS = 1
# make check-faults: run every SAMPLE-th case.
SAMPLE = 1

# The shell of each command evaluates this: POSIX make cannot run a program.
OS = $$(case $(POSIX)$$(uname -s) in (0Linux) echo linux ;; (0Darwin) echo darwin ;; \
	(0*BSD | 0DragonFly) echo bsd ;; (*) echo posix ;; esac)

# With _POSIX_C_SOURCE alone, macOS hides O_NOFOLLOW and O_DIRECTORY of
# POSIX.1-2008.
APPLE = -D_DARWIN_C_SOURCE
# Offsets of files have 64 bits on each system.
WIDE = -D_FILE_OFFSET_BITS=64
STRICT = -std=c99 -pedantic -Wall -Wextra -Wshadow -Wconversion -D_POSIX_C_SOURCE=200809L \
	$(APPLE) $(WIDE) -I.

# With _POSIX_C_SOURCE, headers of the BSDs hide parts of POSIX.1-2008: those of
# FreeBSD SIGXFSZ, those of NetBSD fchdir and dirfd, those of OpenBSD O_NOFOLLOW.
SHOW = $$(case $$(uname -s) in (*BSD | DragonFly) echo -U_POSIX_C_SOURCE ;; esac)

# The target "guards" selects those that this compiler and linker accept.
# CPPFLAGS, CFLAGS and LDFLAGS come later on the command line and override them.
GUARDS = -fPIE -fstack-protector-strong -fstack-clash-protection -fcf-protection \
	-D_FORTIFY_SOURCE=2
LINK_GUARDS = -pie -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack

# The layers from the lowest to the highest.  A layer uses itself and the layers
# before it; make layers checks this.  spawn.c is a layer between BASE and NET.
# Each file here has a header.
BASE = base/buf.o base/log.o base/os.o base/poll.o base/signals.o base/tree.o
NET = net/addr.o net/dial.o net/endpoint.o net/listen.o net/lookup.o net/unixpath.o
MUX = mux/cc.o mux/early.o mux/frame.o mux/greeting.o mux/mux.o mux/queue.o mux/retain.o \
	mux/slot.o
CONN = conn/conn.o conn/fdpair.o conn/half.o conn/listeners.o conn/side.o conn/socks.o
TUNNEL = tunnel/bootstrap.o tunnel/channels.o tunnel/command.o tunnel/dir.o tunnel/elf.o \
	tunnel/forward.o tunnel/growth.o tunnel/hops.o tunnel/keeper.o tunnel/master.o tunnel/probe.o \
	tunnel/record.o tunnel/remote.o tunnel/run.o tunnel/serve.o tunnel/transport.o tunnel/tunnel.o
CLI = cli/ask.o cli/cache.o cli/control.o cli/daemon.o cli/options.o cli/progress.o
PARTS = $(CLI) $(TUNNEL) $(CONN) $(MUX) $(NET) spawn.o $(BASE)

# These have no header of their own.  The last one is compiled from the
# base/os_*.c of this system.
LINK = mux/receive.o mux/stream.o mux/tail.o
OBJECTS = $(PARTS) $(LINK) base/os_system.o
SOURCES = relay.c $(PARTS:.o=.c) $(LINK:.o=.c)
HEADERS = relay.h $(PARTS:.o=.h) mux/internal.h base/os_pcblist.h
SYSTEMS = base/os_bsd.c base/os_darwin.c base/os_linux.c base/os_posix.c base/os_pcblist.c
SCRIPT = tunnel/bootstrap_sh.h

UNITS = t/base/check_buf t/base/check_log t/base/check_os t/base/check_os_pcblist \
	t/base/check_poll t/base/check_signals t/base/check_tree \
	t/mux/check_cc t/mux/check_early t/mux/check_frame t/mux/check_greeting t/mux/check_mux t/mux/check_queue \
	t/mux/check_retain t/mux/check_slots t/mux/simulate \
	t/net/check_addr t/net/check_dial t/net/check_endpoint t/net/check_listen \
	t/net/check_lookup t/net/check_unixpath \
	t/check_spawn \
	t/conn/check_conn t/conn/check_fdpair t/conn/check_half t/conn/check_socks \
	t/tunnel/check_bootstrap t/tunnel/check_command t/tunnel/check_elf t/tunnel/check_forward \
	t/tunnel/check_growth t/tunnel/check_hops t/tunnel/check_probe t/tunnel/check_remote \
	t/tunnel/check_serve t/tunnel/check_tunnel \
	t/cli/check_ask t/cli/check_progress
COMPLETIONS = completion/_relay completion/relay.bash
CHECK_LIBS = $$(pkg-config --cflags --libs check 2>/dev/null || \
	echo -lcheck -lsubunit -lrt -lm -lpthread)

# ---- build ----

all: relay $(COMPLETIONS) copied

# A tunnel copies the static relay to machines of this type.  After a new build
# of relay it is out of date, so it is removed.
TYPE = $$(uname -s)-$$(uname -m)

relay: relay.o $(OBJECTS)
	@rm -f relay-$(TYPE)
	$(CC) $$(cat guards guards.link) $(CFLAGS) $(LDFLAGS) -o $@ relay.o $(OBJECTS)

.SUFFIXES: .c .o
.c.o:
	$(CC) $(STRICT) $$(cat guards) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

relay.o $(OBJECTS): $(HEADERS) $(SCRIPT) guards

# Write the script for the far shell as one line: a C string, which is a format
# of printf(3).  Each line of the file gets a ";" at its end, unless it ends in
# a word of the pattern or in a backslash.
$(SCRIPT): tunnel/bootstrap.sh
	@sed -e 's/^[[:blank:]]*//' -e '/^#/d' -e '/^$$/d' -e 's/[\\"]/\\&/g' -e 's/%/%%/g' \
	    -e 's/@[A-Z]*@/%s/g' tunnel/bootstrap.sh | awk ' \
		BEGIN { print "#define BOOTSTRAP_SH \\" } \
		{ end = /([{|]|&&|^do|^then|^else| do| then)$$/ ? " " : "; " } \
		sub(/\\\\$$/, "") { end = "" } \
		{ print "\t\"" $$0 end "\" \\" } \
		END { print "\t\"\\n\"" }' >$@.new
	@mv $@.new $@

base/os_system.o: $(SYSTEMS)
	$(CC) $(STRICT) $$(cat guards) $(CPPFLAGS) $(CFLAGS) -c -o $@ base/os_$(OS).c

# The mux is a library.  It uses $(MUX_BASE) and no other object.
MUX_BASE = base/buf.o base/os.o base/os_system.o
libmux.a: $(MUX) $(LINK)
	rm -f $@
	$(AR) rc $@ $(MUX) $(LINK)

# For unit tests: the linker takes only the objects that a test uses.
t/all.a: $(OBJECTS)
	rm -f $@
	$(AR) rc $@ $(OBJECTS)

# Rewritten only if the compiler, its flags or the system changed.
flags: FORCE
	@echo '$(CC) $(STRICT) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS)' "$(OS)" >flags.new
	@if cmp -s flags.new flags; then rm flags.new; else mv flags.new flags; fi
FORCE:

# Sanitizers replace the guards: some guards do not work with them.
TRY = try() { for guard; do case '$(CFLAGS)' in *-fsanitize=*) return ;; esac; \
	$(CC) -Werror $$guard $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o guards.try guards.c 2>/dev/null && \
	echo "$$guard"; done; true; }

# Keep file names of this machine out of the binary, so that the same source
# gives the same binary in each directory.  Exception: a directory with a blank
# in its name, which cat guards would split.
MAP = $$(case $$PWD in (*[[:blank:]]*) ;; (*) echo "-ffile-prefix-map=$$PWD=." ;; esac)

guards: flags
	@printf '%s\n' '#include <stdio.h>' 'int main(void) { return puts("") == EOF; }' >guards.c
	@$(TRY); try $(LINK_GUARDS) >guards.link; \
		{ try $(GUARDS) "$(MAP)"; echo "$(SHOW)"; } >guards
	@rm -f guards.c guards.try

# A C compiler for musl.  A static program with glibc cannot look up names.
STATIC_CC = $$(case $$($(CC) -dumpmachine 2>/dev/null) in \
	(*-musl*) echo $(CC) ;; (*) echo musl-gcc ;; esac)
OZ = $$($(STATIC_CC) -Oz -E -x c /dev/null >/dev/null 2>&1 && echo -Oz || echo -Os)
SMALL = $(OZ) -flto -flto-partition=one -static -s -ffunction-sections -fdata-sections \
	-fno-asynchronous-unwind-tables -fno-pie -no-pie -fstack-protector-strong \
	-Wl,-z,relro,-z,now -Wl,--gc-sections -Wl,-z,noseparate-code -Wl,--build-id=none
STATIC_GOAL = 204800 # bytes
STATIC_MAX = 237568

static: relay-static
	cp relay-static relay-$(TYPE)

relay-static: $(SOURCES) $(SYSTEMS) $(HEADERS) $(SCRIPT)
	t/need $(STATIC_CC)
	$(STATIC_CC) $(STRICT) $(SMALL) -o $@ $(SOURCES) base/os_$(OS).c

# Print the lines of C and the size of the static relay, which has a limit on
# x86_64.
size: relay-static
	@echo "$$(cat $(SOURCES) $(SYSTEMS) $(HEADERS) | wc -l) lines of C with headers"
	@echo "$$(wc -c <relay-static) bytes in relay-static; the goal is $(STATIC_GOAL)"
	@[ $$(wc -c <relay-static) -le $(STATIC_MAX) ]

# Without a static relay, a tunnel copies ./relay itself, which does not start
# on a machine with an older C library.
copied: relay
	@[ "$$(uname -s)" = Linux ] && ! [ -f relay-$(TYPE) ] || exit 0; \
	if command -v $(STATIC_CC) >/dev/null; then \
		$(MAKE) static; \
	elif t/zig version >/dev/null 2>&1 && echo $(CROSSED) | grep -q "$(TYPE)"; then \
		$(MAKE) relay-$(TYPE); \
	else \
		echo "no static relay: $(STATIC_CC) (musl-tools) or zig is needed to build one"; \
	fi

# Print the source files, for scripts.
sources:
	@echo $(SOURCES) base/os_$(OS).c

# ---- build for other machine types ----

# Each name ends with uname -s and uname -m.  If the far side has no relay, a
# tunnel looks for the file with its name.
CROSSED = relay-Linux-x86_64 relay-Linux-aarch64 relay-Linux-ppc64le relay-Linux-riscv64 \
	relay-Darwin-x86_64 relay-Darwin-arm64
CROSS = t/zig cc
CROSS_SMALL = -Os -s -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables \
	-fno-unwind-tables

# The driver of zig turns -Oz into -Os, but -Xclang -Oz passes.  On macOS, where
# names cannot be stripped, -Os leaves fewer functions.
CROSS_LINUX = $(CROSS_SMALL) -Xclang -Oz -fstack-protector-strong -static -Wl,--gc-sections \
	-o $@ $(SOURCES) base/os_linux.c
CROSS_DARWIN = $(CROSS_SMALL) -o $@ $(SOURCES) base/os_darwin.c

# Limits in bytes.  CROSS_MAX_WIDE is for machines whose instructions all have
# four bytes.  On ppc64le, each function also needs two instructions to compute
# the address of its data.
CROSS_MAX = 245760
CROSS_MAX_WIDE = 311296
FITS = [ $$(wc -c <$@) -lt $$max ] || { echo "$@ has $$(wc -c <$@) bytes; the limit is $$max"; \
	rm $@; exit 1; }

cross: $(CROSSED)

# Machine types that a release has no binary for.  They show that relay works
# with 32 bits and with the other byte order.
FURTHER = relay-Linux-armv7l relay-Linux-i686 relay-Linux-s390x

# The linker of zig 0.11 has no s390x.  A static program with glibc can look up
# names only if the same glibc is there.
CROSS_S390X = s390x-linux-gnu-gcc

cross-all: $(CROSSED) $(FURTHER)

# Join the sides of links on different machine types, under qemu.
check-cross: relay cross-all
	@t/need qemu-s390x-static
	$(PYTHON) -m pytest -q t/test_cross.py

$(CROSSED) $(FURTHER): $(SOURCES) $(SYSTEMS) $(HEADERS) $(SCRIPT)

relay-Linux-x86_64:
	$(CROSS) -target x86_64-linux-musl $(STRICT) $(CROSS_LINUX)
	@max=$(CROSS_MAX); $(FITS)
relay-Linux-aarch64:
	$(CROSS) -target aarch64-linux-musl $(STRICT) $(CROSS_LINUX)
	@max=$(CROSS_MAX); $(FITS)
relay-Linux-ppc64le:
	$(CROSS) -target powerpc64le-linux-musl $(STRICT) $(CROSS_LINUX) -fno-stack-protector
	@max=$(CROSS_MAX_WIDE); $(FITS)
relay-Linux-riscv64:
	$(CROSS) -target riscv64-linux-musl $(STRICT) $(CROSS_LINUX)
	@max=$(CROSS_MAX); $(FITS)
relay-Darwin-x86_64:
	$(CROSS) -target x86_64-macos $(STRICT) $(CROSS_DARWIN)
	@max=$(CROSS_MAX); $(FITS)
relay-Darwin-arm64:
	$(CROSS) -target aarch64-macos $(STRICT) $(CROSS_DARWIN)
	@max=$(CROSS_MAX_WIDE); $(FITS)

relay-Linux-armv7l:
	$(CROSS) -target arm-linux-musleabihf $(STRICT) $(CROSS_LINUX)
	@max=$(CROSS_MAX_WIDE); $(FITS)
relay-Linux-i686:
	$(CROSS) -target x86-linux-musl $(STRICT) $(CROSS_LINUX)
	@max=$(CROSS_MAX); $(FITS)
relay-Linux-s390x:
	@t/need $(CROSS_S390X)
	$(CROSS_S390X) $(STRICT) -Os -s -static -o $@ $(SOURCES) base/os_linux.c

# ---- install ----

# The completions are made from the output of relay -h.  If ./relay does not run
# on this machine, set HELP to a command that prints this output.
HELP = ./relay -h
GENERATE = $(HELP) | completion/generate $@.in >$@.new && mv $@.new $@

completion/_relay: relay completion/generate completion/_relay.in
	$(GENERATE)
completion/relay.bash: relay completion/generate completion/relay.bash.in
	$(GENERATE)

BIN = $(DESTDIR)$(BINDIR)
LIB = $(DESTDIR)$(LIBDIR)/relay
MAN = $(DESTDIR)$(MANDIR)/man1
ZSH = $(DESTDIR)$(ZSHDIR)
BASH = $(DESTDIR)$(BASHDIR)

# Install what was built, whatever the flags are now.
built:
	@[ -f relay ] && [ -f completion/_relay ] && [ -f completion/relay.bash ] || $(MAKE) all

install: built
	umask 022; mkdir -p $(BIN) $(MAN) $(ZSH) $(BASH)
	cp relay $(BIN)/relay
	chmod 755 $(BIN)/relay
	cp doc/relay.1 $(MAN)/relay.1
	cp completion/_relay $(ZSH)/_relay
	cp completion/relay.bash $(BASH)/relay
	chmod 644 $(MAN)/relay.1 $(ZSH)/_relay $(BASH)/relay
	@umask 022; for file in relay-[A-Z]*-*; do \
		[ -f $$file ] || continue; \
		mkdir -p $(LIB) && cp $$file $(LIB) && chmod 755 $(LIB)/$$file || exit 1; \
		[ -f $(BIN)/../lib/relay/$$file ] || { \
			echo "relay searches BINDIR/../lib/relay and not LIBDIR/relay"; exit 1; }; \
	done

install-strip: install
	$(STRIP) $(BIN)/relay

uninstall:
	rm -f $(BIN)/relay $(MAN)/relay.1 $(ZSH)/_relay $(BASH)/relay $(LIB)/relay-[A-Z]*-*
	rmdir $(LIB) 2>/dev/null || :

# ---- packages ----

VERSION = $$(sed -n 's/^.define RELAY_VERSION "\(.*\)"/\1/p' relay.h)
SOURCE = dist/relay-$(VERSION).tar.gz

# The files of HEAD.
source:
	mkdir -p dist
	git -c tar.umask=022 archive --format=tar --prefix=relay-$(VERSION)/ HEAD | \
		gzip -9n >$(SOURCE)

# The files of a release: see doc/RELEASING.
dist: FORCE
	packaging/make-dist "$(VERSION)" $(CROSSED)

deb: source
	packaging/make-deb $(VERSION)

# ---- tools ----

# What make check uses, and what the other targets and .ci/run use.  Both lists
# have names of tools and of Debian's packages: see t/need.
TOOLS = cc check pytest sshd ssh curl
MORE_TOOLS = bmake musl-gcc pkg-config clang libclang-rt-14-dev clang-format clang-tidy cppcheck \
	valgrind binutils strace python3-pytest-xdist git debhelper lintian blhc mandoc shellcheck \
	csh tcsh fish zsh dash busybox mksh ksh yash sudo

# Install them: on Debian, as root.  Otherwise print those that are missing.
deps:
	@CC='$(CC)' PYTHON="$(PYTHON)" t/need -i $(TOOLS)
deps-all:
	@CC='$(CC)' PYTHON="$(PYTHON)" t/need -i $(TOOLS) $(MORE_TOOLS)

need:
	@CC='$(CC)' PYTHON="$(PYTHON)" t/need $(TOOLS)

# ---- show and test ----

demo: relay
	@t/demo ./relay

check: need relay units t/faults.so t/xnu.so
	$(PYTHON) -m pytest -q $(E2E)

# Everything, before a release: all that .ci/run leaves out because it is slow.
check-all:
	.ci/run all

units: $(UNITS)
	@t/units $(ROWS) $(UNITS)

T = $(CC) -std=c99 -Wall -Wextra -Wshadow -Wconversion -D_POSIX_C_SOURCE=200809L $(SHOW) $(WIDE) \
	-DOS='"'$(OS)'"' -I. $(CPPFLAGS) $(CFLAGS) $(LDFLAGS)

$(UNITS): FORCE t/all.a libmux.a t/all.h t/check.h t/net.h t/link.h t/terminal.h \
		t/mux/frames.h t/mux/pull.h t/mux/wire.h
	$(T) -o $@ $@.c $$(case $@ in (t/mux/*) echo libmux.a $(MUX_BASE) ;; \
		(*) echo t/all.a ;; esac) $(CHECK_LIBS)

# Use a notebook in a browser, through a tunnel.  Without Jupyter or Chromium,
# the test is skipped.
check-browser: relay
	@$(PYTHON) t/browser

# Run mixed traffic through a tunnel that is cut again and again.  The
# environment can set SECONDS (1800), SEED and SHARE (0.25 of a processor).
soak: relay
	@$(PYTHON) t/soak

# Let every system call of short runs fail once, in each way that its manual
# page allows.
check-faults: relay t/nth.so
	@$(PYTHON) t/check-faults --sample $(SAMPLE)

t/faults.so: t/faults.c
	$(CC) -std=c99 -Wall -Wextra -O1 -shared -fPIC -o $@ t/faults.c -ldl

# Run the end-to-end tests with a poll that behaves as that of macOS.
MACOS = t
check-macos: relay t/xnu.so
	LD_PRELOAD=$$PWD/t/xnu.so $(PYTHON) -m pytest -q $(BESIDE) $(MACOS)

t/xnu.so: t/xnu.c
	$(CC) -std=c99 -Wall -Wextra -O1 -shared -fPIC -o $@ t/xnu.c -ldl

t/nth.so: t/nth.c
	$(CC) -std=c99 -Wall -Wextra -O1 -shared -fPIC -o $@ t/nth.c -ldl

# Give each side of a link random frames, starting from those in t/corpus.  An
# input that fails is written to t/corpus.
FUZZ = clang -g -O1 -std=c99 -D_POSIX_C_SOURCE=200809L $(WIDE) -I. -fsanitize=fuzzer,address,undefined \
	-fno-sanitize-recover=undefined
FUZZED = $(MUX:.o=.c) $(LINK:.o=.c) base/buf.c base/os.c base/os_$(OS).c
FUZZ_SECONDS = 60

fuzz: t/mux/fuzz_near t/mux/fuzz_far
	mkdir -p t/fuzzed/near t/fuzzed/far
	t/mux/fuzz_near -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=t/corpus/ \
		t/fuzzed/near t/corpus/near
	t/mux/fuzz_far -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=t/corpus/ \
		t/fuzzed/far t/corpus/far

t/mux/fuzz_near: t/mux/fuzz_near.c t/mux/fuzz.h $(SOURCES) $(HEADERS)
	$(FUZZ) -o $@ t/mux/fuzz_near.c $(FUZZED)
t/mux/fuzz_far: t/mux/fuzz_far.c t/mux/fuzz.h $(SOURCES) $(HEADERS)
	$(FUZZ) -o $@ t/mux/fuzz_far.c $(FUZZED)

# Simulate a link with several channels: this many random schedules.
SCHEDULES = 1000000
simulate: t/mux/simulate
	t/mux/simulate $(SCHEDULES)

# Search for memory leaks and for descriptors that stay open.  BESIDE has more
# options for pytest.
VALGRIND = valgrind -q --leak-check=full --errors-for-leak-kinds=definite,indirect \
	--show-leak-kinds=definite,indirect --error-exitcode=99
VALGRIND_UNITS = t/base/check_poll t/base/check_signals t/base/check_buf t/conn/check_fdpair \
	t/conn/check_half t/net/check_listen t/net/check_unixpath
SCENES = t/test_ends.py t/test_link.py t/test_tunnel.py -k 'test_client_resets \
	or test_reset_while_stuck or test_50_commands or test_no_target or test_refusing_target \
	or test_far_reasons or test_far_refuses or test_remote_socket or test_remote_refused \
	or test_proxy or test_both_ways_in_one or test_comes_back_again or test_loss_is_seen'
BESIDE =

valgrind-units: $(VALGRIND_UNITS)
	@CC='$(CC)' t/need valgrind check
	for unit in $(VALGRIND_UNITS); do \
		CK_TIMEOUT_MULTIPLIER=10 $(VALGRIND) $$unit || exit 1; \
	done
valgrind: relay valgrind-units
	@PYTHON="$(PYTHON)" t/need pytest sshd ssh
	RELAY=t/valgrind PATIENCE=60 $(PYTHON) -m pytest -q $(BESIDE) $(SCENES)

# The share of lines and branches that the tests execute, for each source file.
# With -std=gnu99 gcc writes the counters before fork and exec.  _exit writes
# none, so exit replaces it.  umask 0: some tests run relay as another user, and
# that relay writes counters too.
COUNTED = -O0 -g --coverage -std=gnu99 -D_exit=exit
COVERAGE = 90
COVERAGE_OF_A_FILE = 75

coverage:
	@t/need gcc
	$(MAKE) clean
	umask 0; GCOV_ERROR_FILE=/dev/null \
		$(MAKE) check CC=gcc CFLAGS='$(COUNTED)' E2E='$(E2E)' ROWS='$(ROWS)'
	$(MAKE) reached
reached:
	t/coverage $(COVERAGE) $(COVERAGE_OF_A_FILE) $(SOURCES) base/os_$(OS).c

# ---- measure ----

# Compare relay with other relays, and a link with ssh -L and the bare channel:
# 40 minutes, see doc/BENCHMARKS.
bench: relay t/load
	@t/need gnuplot
	rm -f doc/bench.json doc/bench-link.json
	t/bench --load t/load --keep doc/bench.json ./relay
	t/bench-link --load t/load --keep doc/bench-link.json ./relay
	t/bench-channels --ms 100 --subjects '^(ssh -L|-j [48])$$' --keep doc/bench-link.json ./relay
	$(MAKE) doc/bench.svg

doc/bench.svg: t/bench-draw t/measure.py doc/bench.json doc/bench-link.json
	t/bench-draw doc/bench.json doc/bench-link.json >$@.new
	mv $@.new $@

t/load: t/load.c
	$(CC) -std=c99 -D_POSIX_C_SOURCE=200809L -Wall -Wextra -O2 -o $@ t/load.c

# Simulate two muxes and slow or long lines between them: one channel, and
# several that share a line or do not.  Measure the rate of a bulk transfer, and
# the delay of a keystroke during it.
lines: t/mux/line t/mux/slots
	t/mux/line
	t/mux/slots
t/mux/line t/mux/slots: t/mux/line.c t/mux/slots.c t/mux/wire.h libmux.a $(MUX_BASE)
	$(T) -o $@ $@.c libmux.a $(MUX_BASE)

# ---- examine ----

# Each finding of the four analysers is an error.  .clang-tidy lists its
# disabled checks.  Off in cppcheck: variableScope, because declarations are at
# the top of a function; unusedStructMember, because os_linux.c has structs of
# the kernel.
ANALYSED = $(SOURCES) base/os_linux.c base/os_posix.c
CPPCHECK = --enable=warning,style,performance,portability --suppress=variableScope \
	--suppress=unusedStructMember

analyse-gcc analyse-clang analyse-cppcheck analyse-tidy: $(SCRIPT)
analyse: analyse-gcc analyse-clang analyse-cppcheck analyse-tidy

analyse-gcc:
	@t/need gcc
	for file in $(ANALYSED); do \
		gcc $(STRICT) -O2 -Werror -fanalyzer -c -o /dev/null $$file || exit 1; \
	done
analyse-clang:
	@t/need clang
	clang --analyze --analyzer-output text -Xclang -analyzer-werror $(STRICT) $(ANALYSED)
analyse-cppcheck:
	@t/need cppcheck
	cppcheck -q --std=c99 --error-exitcode=1 $(CPPCHECK) $(ANALYSED)
analyse-tidy:
	@t/need clang-tidy
	clang-tidy --quiet $(ANALYSED) -- $(STRICT)

# Check that no file includes a header of a higher layer.
layers:
	@t/layers

EXAMPLES = examples/code-server examples/jupyter examples/jupyter-apptainer examples/jupyter-slurm \
	examples/pbs examples/rstudio examples/tensorboard examples/vnc
SCRIPTS = tunnel/bootstrap.sh t/demo t/layers t/need t/units t/valgrind t/zig completion/generate \
	completion/relay.bash $(EXAMPLES) packaging/make-deb t/foreign .ci/run

lint: layers $(COMPLETIONS)
	@t/need mandoc shellcheck clang-format
	mandoc -Tlint -Wwarning doc/relay.1
	shellcheck $(SCRIPTS)
	clang-format --dry-run -Werror $(SOURCES) $(SYSTEMS) $(HEADERS)

clean:
	rm -f relay relay-static relay-[A-Z]*-* libmux.a flags flags.new guards guards.* *.o */*.o
	rm -f t/all.a $(UNITS) t/faults.so t/nth.so t/xnu.so t/load
	rm -f t/mux/line t/mux/slots t/mux/fuzz_near t/mux/fuzz_far
	rm -f *.gcno *.gcda */*.gcno */*.gcda t/*/*.gcno t/*/*.gcda
	rm -f $(COMPLETIONS) completion/*.new $(SCRIPT) $(SCRIPT).new
	rm -rf t/fuzzed t/__pycache__ .pytest_cache t/.pytest_cache

distclean: clean
	rm -rf .cross dist
