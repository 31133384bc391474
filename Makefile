# make [all] check check-browser check-faults soak install uninstall static cross demo bench lines fuzz analyse valgrind coverage
#      lint clean
#
# Set CC, CFLAGS, LDFLAGS, CROSS, PREFIX and DESTDIR as you need.  OS=linux, darwin, bsd or posix selects base/os_*.c; the default is
# found by uname -s.  POSIX=1 is OS=posix: nothing beyond POSIX.1-2008.
.POSIX:

PREFIX = /usr/local
CC = cc
CFLAGS = -O2 -g
LDFLAGS =
POSIX = 0

# Evaluated by the shell of each command: a portable makefile cannot run a program itself.
OS = $$(case $(POSIX)$$(uname -s) in (0Linux) echo linux ;; (0Darwin) echo darwin ;; (0*BSD | 0DragonFly) echo bsd ;; \
	(*) echo posix ;; esac)

STATIC_CC = musl-gcc
SMALL = -Os -flto -static -s -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables -fno-pie -no-pie \
	-fstack-protector-strong -Wl,-z,relro,-z,now -Wl,--gc-sections -Wl,-z,noseparate-code -Wl,--build-id=none

# The compiler for other machine types.  Its driver makes -Os of -Oz, hence the second form; on macOS, where names cannot be
# stripped, -Os leaves fewer functions.  ppc64le has a limit of its own: each instruction has four bytes there, and each function
# computes the address of its data in two more instructions.
CROSS = t/zig cc
CROSS_SMALL = -Os -s -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables -fno-unwind-tables
CROSS_MAX = 180224
CROSS_MAX_PPC = 196608
CROSSED = relay-Linux-x86_64 relay-Linux-aarch64 relay-Linux-ppc64le relay-Linux-riscv64 relay-Darwin-x86_64 relay-Darwin-arm64

PYTHON = /usr/bin/python3
E2E = t
ROWS = 1
SAMPLE = 1

# What macOS hides from strict programs: O_NOFOLLOW and O_DIRECTORY, which POSIX has, and CMSG_SPACE, which it will have.
APPLE = -D_DARWIN_C_SOURCE
STRICT = -std=c99 -pedantic -Wall -Wextra -Wshadow -Wconversion -D_POSIX_C_SOURCE=200809L $(APPLE) -I.

# What guards relay against its own bugs, as far as this compiler and linker take it. Yours come behind it and win; the sanitizers
# are better guards, and want no others.
GUARDS = -fPIE -fstack-protector-strong -fstack-clash-protection -fcf-protection -D_FORTIFY_SOURCE=2
LINK_GUARDS = -pie -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack

# The layers from the lowest to the highest.  A layer uses itself and those before it: make layers.
BASE = base/buf.o base/log.o base/os.o base/os_system.o base/poll.o base/signals.o
MUX = mux/cc.o mux/frame.o mux/mux.o mux/queue.o mux/stream.o
NET = net/dial.o net/endpoint.o net/lookup.o net/sock.o
CONN = conn/conn.o conn/fdpair.o conn/half.o conn/side.o conn/socks.o
TUNNEL = tunnel/bootstrap.o tunnel/forward.o tunnel/hops.o tunnel/probe.o tunnel/remote.o tunnel/serve.o \
	tunnel/transport.o tunnel/tunnel.o
CLI = cli/options.o
ROOMS = $(CLI) $(TUNNEL) $(CONN) spawn.o $(NET) $(MUX) $(BASE)

SYSTEMS = base/os_bsd.c base/os_darwin.c base/os_linux.c base/os_posix.c
SOURCES = relay.c spawn.c base/buf.c base/log.c base/os.c base/poll.c base/signals.c mux/cc.c mux/frame.c mux/mux.c mux/queue.c \
	mux/stream.c net/dial.c net/endpoint.c net/lookup.c net/sock.c conn/conn.c conn/fdpair.c conn/half.c conn/side.c \
	conn/socks.c tunnel/bootstrap.c tunnel/forward.c tunnel/hops.c tunnel/probe.c tunnel/remote.c \
	tunnel/serve.c tunnel/transport.c tunnel/tunnel.c cli/options.c
HEADERS = relay.h spawn.h base/buf.h base/log.h base/os.h base/poll.h base/signals.h mux/cc.h mux/frame.h mux/internal.h mux/mux.h \
	mux/queue.h net/dial.h net/endpoint.h net/lookup.h net/sock.h conn/conn.h conn/fdpair.h conn/half.h conn/side.h \
	conn/socks.h tunnel/bootstrap.h tunnel/forward.h tunnel/hops.h tunnel/probe.h tunnel/remote.h \
	tunnel/serve.h tunnel/transport.h tunnel/tunnel.h cli/options.h
SCRIPT = tunnel/bootstrap_sh.h

UNITS = t/base/check_buf t/base/check_log t/base/check_os t/base/check_poll t/base/check_signals \
	t/mux/check_cc t/mux/check_frame t/mux/check_mux t/mux/check_queue \
	t/net/check_dial t/net/check_endpoint t/net/check_lookup t/net/check_sock t/check_spawn \
	t/conn/check_conn t/conn/check_fdpair t/conn/check_half t/conn/check_socks \
	t/tunnel/check_bootstrap t/tunnel/check_forward t/tunnel/check_hops t/tunnel/check_probe t/tunnel/check_remote \
	t/tunnel/check_serve t/tunnel/check_tunnel
CHECK_LIBS = -lcheck -lsubunit -lrt -lm -lpthread

all: relay

relay: relay.o $(ROOMS)
	$(CC) $$(cat guards guards.link) $(CFLAGS) $(LDFLAGS) -o $@ relay.o $(ROOMS)

.SUFFIXES: .c .o
.c.o:
	$(CC) $(STRICT) $$(cat guards) $(CFLAGS) -c -o $@ $<

relay.o $(ROOMS): $(HEADERS) $(SCRIPT) guards

# The script for the far shell as one line, and that line as a C string, a format of printf(3).  Each line of the file ends in a
# command, unless its last word is one of those in the test.
$(SCRIPT): tunnel/bootstrap.sh
	@sed -e 's/^[[:blank:]]*//' -e '/^#/d' -e '/^$$/d' -e 's/[\\"]/\\&/g' -e 's/%/%%/g' -e 's/@[A-Z]*@/%s/g' tunnel/bootstrap.sh | \
	    awk 'BEGIN { print "#define BOOTSTRAP_SH \\" } \
		{ end = /([{|]|&&|^do|^then|^else| do| then)$$/ ? " " : "; "; if (sub(/\\\\$$/, "")) end = ""; print "\t\"" $$0 end "\" \\" } \
		END { print "\t\"\\n\"" }' >$@.new
	@mv $@.new $@

base/os_system.o: $(SYSTEMS)
	$(CC) $(STRICT) $$(cat guards) $(CFLAGS) -c -o $@ base/os_$(OS).c

# The mux alone.  It needs nothing else but $(MUX_BASE).
MUX_BASE = base/buf.o base/os.o base/os_system.o
libmux.a: $(MUX)
	rm -f $@
	$(AR) rc $@ $(MUX)

# What the unit tests link: the linker takes what a test uses.
t/all.a: $(ROOMS)
	rm -f $@
	$(AR) rc $@ $(ROOMS)

# Changes only when the compiler, its flags or the system change.
flags: FORCE
	@echo '$(CC) $(STRICT) $(CFLAGS) $(LDFLAGS)' "$(OS)" >flags.new
	@if cmp -s flags.new flags; then rm flags.new; else mv flags.new flags; fi
FORCE:

TRY = try() { for guard; do case '$(CFLAGS)' in *-fsanitize=*) return ;; esac; \
	$(CC) -Werror $$guard $(CFLAGS) $(LDFLAGS) -o guards.try guards.c 2>/dev/null && echo "$$guard"; done; true; }

guards: flags
	@printf '%s\n' '#include <stdio.h>' 'int main(void) { return puts("") == EOF; }' >guards.c
	@$(TRY); try $(LINK_GUARDS) >guards.link; try $(GUARDS) >guards
	@rm -f guards.c guards.try

static: $(SCRIPT)
	t/need $(STATIC_CC)
	$(STATIC_CC) $(STRICT) $(SMALL) -o relay-static $(SOURCES) base/os_$(OS).c

# Named by uname -s and -m: the near side looks for them there when a far side has no relay.
cross: $(CROSSED)

CROSS_LINUX = $(CROSS_SMALL) -Xclang -Oz -fstack-protector-strong -static -Wl,--gc-sections -o $@ $(SOURCES) base/os_linux.c
CROSS_DARWIN = $(CROSS_SMALL) -o $@ $(SOURCES) base/os_darwin.c
FITS = @[ $$(wc -c <$@) -lt $(CROSS_MAX) ] || { echo "$@ has $$(wc -c <$@) bytes, $(CROSS_MAX) are too many"; rm $@; exit 1; }
FITS_PPC = @[ $$(wc -c <$@) -lt $(CROSS_MAX_PPC) ] || { echo "$@ has $$(wc -c <$@) bytes, $(CROSS_MAX_PPC) are too many"; rm $@; exit 1; }

$(CROSSED): $(SOURCES) $(SYSTEMS) $(HEADERS) $(SCRIPT)

relay-Linux-x86_64:
	$(CROSS) -target x86_64-linux-musl $(STRICT) $(CROSS_LINUX)
	$(FITS)
relay-Linux-aarch64:
	$(CROSS) -target aarch64-linux-musl $(STRICT) $(CROSS_LINUX)
	$(FITS)
relay-Linux-ppc64le:
	$(CROSS) -target powerpc64le-linux-musl $(STRICT) $(CROSS_LINUX) -fno-stack-protector
	$(FITS_PPC)
relay-Linux-riscv64:
	$(CROSS) -target riscv64-linux-musl $(STRICT) $(CROSS_LINUX)
	$(FITS)
relay-Darwin-x86_64:
	$(CROSS) -target x86_64-macos $(STRICT) $(CROSS_DARWIN)
	$(FITS)
relay-Darwin-arm64:
	$(CROSS) -target aarch64-macos $(STRICT) $(CROSS_DARWIN)
	$(FITS)

# Shells complete the options that relay -h lists.  Set HELP to a relay that runs here if this one does not.
HELP = ./relay -h
COMPLETIONS = completion/_relay completion/relay.bash
GENERATE = $(HELP) | completion/generate $@.in >$@.new && mv $@.new $@

completion/_relay: relay completion/generate completion/_relay.in
	$(GENERATE)
completion/relay.bash: relay completion/generate completion/relay.bash.in
	$(GENERATE)

install: relay $(COMPLETIONS)
	mkdir -p $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1
	cp relay $(DESTDIR)$(PREFIX)/bin/relay
	chmod 755 $(DESTDIR)$(PREFIX)/bin/relay
	cp doc/relay.1 $(DESTDIR)$(PREFIX)/share/man/man1/relay.1
	chmod 644 $(DESTDIR)$(PREFIX)/share/man/man1/relay.1
	mkdir -p $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	cp completion/_relay $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_relay
	cp completion/relay.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/relay
	@for file in $(CROSSED); do \
		[ -f $$file ] || continue; \
		mkdir -p $(DESTDIR)$(PREFIX)/lib/relay && cp $$file $(DESTDIR)$(PREFIX)/lib/relay && \
		    chmod 755 $(DESTDIR)$(PREFIX)/lib/relay/$$file || exit 1; \
	done

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/relay $(DESTDIR)$(PREFIX)/share/man/man1/relay.1
	rm -f $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_relay $(DESTDIR)$(PREFIX)/share/bash-completion/completions/relay
	for file in $(CROSSED); do rm -f $(DESTDIR)$(PREFIX)/lib/relay/$$file; done
	rmdir $(DESTDIR)$(PREFIX)/lib/relay 2>/dev/null || :

demo: relay
	@t/demo ./relay

check: need relay units t/faults.so
	$(PYTHON) -m pytest -q $(E2E)

# A notebook in a browser, through a tunnel: needs a Jupyter and a Chromium, and says so where they are missing.
check-browser: relay
	@$(PYTHON) t/browser

# Mixed traffic through a tunnel that is cut again and again, for SECONDS (1800), chosen by SEED; takes a fourth of a processor (SHARE).
soak: relay
	@$(PYTHON) t/soak

# Every system call of a short run fails once, in each way that it may; SAMPLE=N: every N-th case.
check-faults: relay t/nth.so
	@$(PYTHON) t/check-faults --sample $(SAMPLE)

need:
	@CC='$(CC)' PYTHON='$(PYTHON)' t/need check pytest sshd ssh curl

units: $(UNITS)
	@t/units $(ROWS) $(UNITS)

T = $(CC) -std=c99 -Wall -Wextra -Wshadow -Wconversion -D_POSIX_C_SOURCE=200809L -DOS='"'$(OS)'"' -I. $(CFLAGS) $(LDFLAGS)

$(UNITS): FORCE t/all.a libmux.a t/all.h t/check.h t/net.h t/link.h t/mux/wire.h
	$(T) -o $@ $@.c $$(case $@ in (t/mux/*) echo libmux.a $(MUX_BASE) ;; (*) echo t/all.a ;; esac) $(CHECK_LIBS)

FUZZ = clang -g -O1 -std=c99 -D_POSIX_C_SOURCE=200809L -I. -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined
FUZZED = mux/mux.c mux/stream.c mux/queue.c mux/cc.c mux/frame.c base/buf.c base/os.c base/os_$(OS).c
FUZZ_SECONDS = 60

# What each side of the wire may read, for a minute each, from the seeds in the corpus; findings stay beside it.
fuzz: t/mux/fuzz_near t/mux/fuzz_far
	mkdir -p t/fuzzed/near t/fuzzed/far
	t/mux/fuzz_near -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=t/corpus/ t/fuzzed/near t/corpus/near
	t/mux/fuzz_far -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=t/corpus/ t/fuzzed/far t/corpus/far

t/mux/fuzz_near: t/mux/fuzz_near.c t/mux/fuzz.h $(SOURCES) $(HEADERS)
	$(FUZZ) -o $@ t/mux/fuzz_near.c $(FUZZED)
t/mux/fuzz_far: t/mux/fuzz_far.c t/mux/fuzz.h $(SOURCES) $(HEADERS)
	$(FUZZ) -o $@ t/mux/fuzz_far.c $(FUZZED)

# Leaks and descriptors that stay open, of the rooms that hold them and of relay in some scenes of each kind.
VALGRIND = valgrind -q --leak-check=full --errors-for-leak-kinds=definite,indirect --show-leak-kinds=definite,indirect \
	--error-exitcode=99
VALGRIND_UNITS = t/base/check_poll t/base/check_signals t/base/check_buf t/conn/check_fdpair t/conn/check_half t/net/check_sock
SCENES = t/test_ends.py t/test_link.py t/test_tunnel.py -k 'test_client_resets or test_reset_while_stuck or test_50_commands \
	or test_no_target or test_refusing_target or test_far_reasons or test_far_refuses or test_remote_socket or test_remote_refused \
	or test_proxy or test_both_ways_in_one or test_comes_back_again or test_loss_is_seen'
BESIDE =

valgrind: relay $(VALGRIND_UNITS)
	@CC='$(CC)' PYTHON='$(PYTHON)' t/need valgrind check pytest sshd ssh
	for unit in $(VALGRIND_UNITS); do CK_TIMEOUT_MULTIPLIER=10 $(VALGRIND) $$unit || exit 1; done
	RELAY=t/valgrind PATIENCE=60 $(PYTHON) -m pytest -q $(BESIDE) $(SCENES)

# What the tests reach of each room.  Fork and exec write what was counted so far where C is GNU's, _exit never does; other
# users, too, write into the files.
COUNTED = -O0 -g --coverage -std=gnu99 -D_exit=exit
COVERAGE = 90

coverage:
	@t/need gcc
	$(MAKE) clean
	umask 0; GCOV_ERROR_FILE=/dev/null $(MAKE) check CC=gcc CFLAGS='$(COUNTED)' E2E='$(E2E)' ROWS='$(ROWS)'
	$(MAKE) reached
reached:
	t/coverage $(COVERAGE) $(SOURCES) base/os_linux.c

t/faults.so: t/faults.c
	$(CC) -std=c99 -Wall -Wextra -O1 -shared -fPIC -o $@ t/faults.c -ldl

t/nth.so: t/nth.c
	$(CC) -std=c99 -Wall -Wextra -O1 -shared -fPIC -o $@ t/nth.c -ldl

# Relay beside other relays, and a link beside ssh -L and the bare channel: half an hour, see BENCHMARKS.
bench: relay t/load
	t/bench --load t/load ./relay
	t/bench-link --load t/load ./relay

# The rate of bulk on slow and long lines, and the delay of a keystroke beside it: two muxes, joined by a simulated line.
lines: t/mux/line
	t/mux/line
t/mux/line: t/mux/line.c t/mux/wire.h libmux.a $(MUX_BASE)
	$(T) -o $@ $@.c libmux.a $(MUX_BASE)

t/load: t/load.c
	$(CC) -std=c99 -D_POSIX_C_SOURCE=200809L -Wall -Wextra -O2 -o $@ t/load.c

# What four analysers find is an error; .clang-tidy tells what is off there. cppcheck: declarations stand at the top of a function,
# whatever their scope; and the members that nobody uses are the kernel's, in os.c.
ANALYSED = $(SOURCES) base/os_linux.c base/os_posix.c
CPPCHECK = --enable=warning,style,performance,portability --suppress=variableScope --suppress=unusedStructMember

analyse-gcc analyse-clang analyse-cppcheck analyse-tidy: $(SCRIPT)
analyse: analyse-gcc analyse-clang analyse-cppcheck analyse-tidy

analyse-gcc:
	@t/need gcc
	for file in $(ANALYSED); do gcc $(STRICT) -O2 -Werror -fanalyzer -c -o /dev/null $$file || exit 1; done
analyse-clang:
	@t/need clang
	clang --analyze --analyzer-output text -Xclang -analyzer-werror $(STRICT) $(ANALYSED)
analyse-cppcheck:
	@t/need cppcheck
	cppcheck -q --std=c99 --error-exitcode=1 $(CPPCHECK) $(ANALYSED)
analyse-tidy:
	@t/need clang-tidy
	clang-tidy --quiet $(ANALYSED) -- $(STRICT)

# No file may include a header of a layer above its own.
layers:
	@t/layers

lint: layers $(COMPLETIONS)
	@t/need mandoc shellcheck clang-format
	mandoc -Tlint -Wwarning doc/relay.1
	shellcheck tunnel/bootstrap.sh t/demo t/need t/units t/valgrind t/zig completion/generate completion/relay.bash examples/jupyter-slurm .ci/run
	clang-format --dry-run -Werror $(SOURCES) $(SYSTEMS) $(HEADERS)

clean:
	rm -f relay relay-static libmux.a $(CROSSED) flags flags.new guards guards.* *.o */*.o t/all.a $(UNITS) t/faults.so t/nth.so t/load t/mux/line t/mux/fuzz_near t/mux/fuzz_far
	rm -f *.gcno *.gcda */*.gcno */*.gcda t/*/*.gcno t/*/*.gcda
	rm -f $(COMPLETIONS) completion/*.new $(SCRIPT) $(SCRIPT).new
	rm -rf t/fuzzed t/__pycache__ .pytest_cache t/.pytest_cache
