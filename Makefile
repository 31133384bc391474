# make [all] check check-browser check-faults soak install uninstall static cross demo bench lines fuzz analyse valgrind coverage
#      lint clean
#
# CC, CFLAGS, LDFLAGS, CROSS, PREFIX and DESTDIR are yours.  POSIX=1 builds without what os.c knows beyond POSIX.1-2008.
.POSIX:

PREFIX = /usr/local
CC = cc
CFLAGS = -O2 -g
LDFLAGS =
POSIX = 0
STATIC_CC = musl-gcc
SMALL = -Os -flto -static -s -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables -fno-pie -no-pie \
	-fstack-protector-strong -Wl,-z,relro,-z,now -Wl,--gc-sections -Wl,-z,noseparate-code -Wl,--build-id=none

# The compiler for other machine types.  Its driver makes -Os of -Oz, hence the second form; on macOS, where names cannot be
# stripped, -Os leaves fewer functions.  Two have a limit of their own: on ppc64le each instruction has four bytes, each function
# finds its data by two more, and no compiler saves more than a twentieth; on arm64 macOS each segment ends with a page of 16 KiB.
CROSS = t/zig cc
CROSS_SMALL = -Os -s -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables -fno-unwind-tables
CROSS_MAX = 153600
CROSS_MAX_LARGE = 176128
CROSSED = relay-Linux-x86_64 relay-Linux-aarch64 relay-Linux-ppc64le relay-Linux-riscv64 relay-Darwin-x86_64 relay-Darwin-arm64

PYTHON = /usr/bin/python3
E2E = t
ROWS = 1
SAMPLE = 1

# What macOS hides from strict programs: O_NOFOLLOW and O_DIRECTORY, which POSIX has, and CMSG_SPACE, which it will have.
APPLE = -D_DARWIN_C_SOURCE
STRICT = -std=c99 -pedantic -Wall -Wextra -Wshadow -Wconversion -D_POSIX_C_SOURCE=200809L $(APPLE) -DRELAY_POSIX=$(POSIX) -I.

# What guards relay against its own bugs, as far as this compiler and linker take it. Yours come behind it and win; the sanitizers
# are better guards, and want no others.
GUARDS = -fPIE -fstack-protector-strong -fstack-clash-protection -fcf-protection -D_FORTIFY_SOURCE=2
LINK_GUARDS = -pie -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack

# The layers, from the lowest to the highest: a layer uses itself and those before it.  A unit test links its layer and those below.
BASE = base/buf.o poll.o signals.o os.o log.o
MUX = mux/mux.o mux/stream.o mux/queue.o mux/cc.o mux/frame.o
NET = endpoint.o sock.o spawn.o lookup.o dial.o
CONN = conn/conn.o conn/half.o conn/side.o conn/fdpair.o conn/socks.o
TUNNEL = tunnel/tunnel.o tunnel/transport.o tunnel/remote.o tunnel/serve.o tunnel/probe.o doctor.o hops.o forward.o boot.o
CLI = options.o
ROOMS = $(CLI) $(TUNNEL) $(CONN) $(NET) $(MUX) $(BASE)
SOURCES = relay.c options.c endpoint.c sock.c spawn.c lookup.c dial.c doctor.c hops.c forward.c boot.c poll.c signals.c os.c log.c \
	base/buf.c mux/mux.c mux/stream.c mux/queue.c mux/cc.c mux/frame.c conn/conn.c conn/half.c conn/side.c conn/fdpair.c \
	conn/socks.c tunnel/tunnel.c tunnel/transport.c tunnel/remote.c tunnel/serve.c tunnel/probe.c
HEADERS = relay.h base/buf.h mux/mux.h mux/frame.h mux/cc.h mux/queue.h mux/internal.h conn/conn.h conn/half.h conn/side.h \
	conn/fdpair.h conn/socks.h tunnel/tunnel.h tunnel/transport.h tunnel/remote.h tunnel/serve.h tunnel/probe.h

UNITS = t/check_log t/check_os t/check_poll t/check_signals t/check_buf t/check_endpoint t/check_sock t/check_spawn t/check_lookup \
	t/check_dial t/check_hops t/check_forward t/check_boot t/mux/check_queue t/mux/check_frame t/mux/check_cc t/mux/check_mux \
	t/conn/check_fdpair t/conn/check_half t/conn/check_socks t/conn/check_conn
CHECK_LIBS = -lcheck -lsubunit -lrt -lm -lpthread

all: relay

relay: relay.o $(ROOMS)
	$(CC) $$(cat guards guards.link) $(CFLAGS) $(LDFLAGS) -o $@ relay.o $(ROOMS)

.SUFFIXES: .c .o
.c.o:
	$(CC) $(STRICT) $$(cat guards) $(CFLAGS) -c -o $@ $<

relay.o $(ROOMS): $(HEADERS) guards

# The mux alone.  A program that uses it links libmux.a and $(MUX_BASE).
MUX_BASE = base/buf.o os.o
libmux.a: $(MUX)
	rm -f $@
	$(AR) rc $@ $(MUX)

# Changes when the compiler or its flags do, and only then.
flags: FORCE
	@echo '$(CC) $(STRICT) $(CFLAGS) $(LDFLAGS)' >flags.new
	@if cmp -s flags.new flags; then rm flags.new; else mv flags.new flags; fi
FORCE:

TRY = try() { for guard; do case '$(CFLAGS)' in *-fsanitize=*) return ;; esac; \
	$(CC) -Werror $$guard $(CFLAGS) $(LDFLAGS) -o guards.try guards.c 2>/dev/null && echo "$$guard"; done; true; }

guards: flags
	@printf '%s\n' '#include <stdio.h>' 'int main(void) { return puts("") == EOF; }' >guards.c
	@$(TRY); try $(LINK_GUARDS) >guards.link; try $(GUARDS) >guards
	@rm -f guards.c guards.try

static:
	t/need $(STATIC_CC)
	$(STATIC_CC) $(STRICT) $(SMALL) -o relay-static $(SOURCES) small.c

# Named by uname -s and -m: the near side looks for them there when a far side has no relay.
cross: $(CROSSED)

CROSS_LINUX = $(CROSS_SMALL) -Xclang -Oz -fstack-protector-strong -static -Wl,--gc-sections -o $@ $(SOURCES) small.c
CROSS_DARWIN = $(CROSS_SMALL) -o $@ $(SOURCES)
FITS = @[ $$(wc -c <$@) -lt $(CROSS_MAX) ] || { echo "$@ has $$(wc -c <$@) bytes, $(CROSS_MAX) are too many"; rm $@; exit 1; }
FITS_LARGE = @[ $$(wc -c <$@) -lt $(CROSS_MAX_LARGE) ] || { echo "$@ has $$(wc -c <$@) bytes, $(CROSS_MAX_LARGE) are too many"; rm $@; exit 1; }

$(CROSSED): $(SOURCES) small.c relay.h

relay-Linux-x86_64:
	$(CROSS) -target x86_64-linux-musl $(STRICT) $(CROSS_LINUX)
	$(FITS)
relay-Linux-aarch64:
	$(CROSS) -target aarch64-linux-musl $(STRICT) $(CROSS_LINUX)
	$(FITS)
relay-Linux-ppc64le:
	$(CROSS) -target powerpc64le-linux-musl $(STRICT) $(CROSS_LINUX) -fno-stack-protector
	$(FITS_LARGE)
relay-Linux-riscv64:
	$(CROSS) -target riscv64-linux-musl $(STRICT) $(CROSS_LINUX)
	$(FITS)
relay-Darwin-x86_64:
	$(CROSS) -target x86_64-macos $(STRICT) $(CROSS_DARWIN)
	$(FITS)
relay-Darwin-arm64:
	$(CROSS) -target aarch64-macos $(STRICT) $(CROSS_DARWIN)
	$(FITS_LARGE)

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
	cp relay.1 $(DESTDIR)$(PREFIX)/share/man/man1/relay.1
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

T = $(CC) -std=c99 -Wall -Wextra -Wshadow -Wconversion -D_POSIX_C_SOURCE=200809L -DRELAY_POSIX=$(POSIX) -I. $(CFLAGS) $(LDFLAGS) -o $@ $@.c

t/check_log: t/check_log.c t/check.h t/net.h log.o
	$(T) log.o $(CHECK_LIBS)
t/check_os: t/check_os.c t/check.h t/net.h os.o
	$(T) os.o $(CHECK_LIBS)
t/check_poll: t/check_poll.c t/check.h t/net.h poll.o
	$(T) poll.o $(CHECK_LIBS)
t/check_signals: t/check_signals.c t/check.h t/net.h signals.o os.o
	$(T) signals.o os.o $(CHECK_LIBS)
t/check_buf: t/check_buf.c t/check.h t/net.h buf.o os.o
	$(T) buf.o os.o $(CHECK_LIBS)
t/conn/check_fdpair: t/conn/check_fdpair.c t/check.h t/net.h conn/fdpair.o $(BASE)
	$(T) conn/fdpair.o $(BASE) $(CHECK_LIBS)
t/conn/check_half: t/conn/check_half.c t/check.h t/net.h t/link.h conn/half.o conn/side.o conn/fdpair.o $(MUX) $(BASE)
	$(T) conn/half.o conn/side.o conn/fdpair.o $(MUX) $(BASE) $(CHECK_LIBS)
t/check_endpoint: t/check_endpoint.c t/check.h t/net.h endpoint.o
	$(T) endpoint.o $(CHECK_LIBS)
t/check_sock: t/check_sock.c t/check.h t/net.h sock.o endpoint.o os.o log.o
	$(T) sock.o endpoint.o os.o log.o $(CHECK_LIBS)
t/check_spawn: t/check_spawn.c t/check.h t/net.h spawn.o endpoint.o $(BASE)
	$(T) spawn.o endpoint.o $(BASE) $(CHECK_LIBS)
t/check_lookup: t/check_lookup.c t/check.h t/net.h $(NET) $(BASE)
	$(T) $(NET) $(BASE) $(CHECK_LIBS)
t/check_dial: t/check_dial.c t/check.h t/net.h $(NET) $(BASE)
	$(T) $(NET) $(BASE) $(CHECK_LIBS)
t/conn/check_conn: t/conn/check_conn.c t/check.h t/net.h t/link.h $(CONN) $(NET) $(MUX) $(BASE)
	$(T) $(CONN) $(NET) $(MUX) $(BASE) $(CHECK_LIBS)

t/mux/check_queue: t/mux/check_queue.c t/check.h libmux.a
	$(T) libmux.a $(CHECK_LIBS)
t/mux/check_frame: t/mux/check_frame.c t/check.h libmux.a
	$(T) libmux.a $(CHECK_LIBS)
t/mux/check_cc: t/mux/check_cc.c t/check.h t/mux/wire.h libmux.a
	$(T) libmux.a $(CHECK_LIBS)
t/mux/check_mux: t/mux/check_mux.c t/check.h t/mux/wire.h libmux.a $(MUX_BASE)
	$(T) libmux.a $(MUX_BASE) $(CHECK_LIBS)

t/check_small: t/check_small.c t/check.h small.c
	$(T) $(CHECK_LIBS)
t/conn/check_socks: t/conn/check_socks.c t/check.h t/net.h conn/socks.o conn/fdpair.o $(BASE)
	$(T) conn/socks.o conn/fdpair.o $(BASE) $(CHECK_LIBS)
t/check_hops: t/check_hops.c t/check.h hops.o
	$(T) hops.o $(CHECK_LIBS)
t/check_forward: t/check_forward.c t/check.h forward.o endpoint.o log.o
	$(T) forward.o endpoint.o log.o $(CHECK_LIBS)
t/check_boot: t/check_boot.c t/check.h t/net.h boot.o os.o
	$(T) boot.o os.o $(CHECK_LIBS)
t/check_leg: t/check_leg.c t/check.h t/net.h $(ROOMS)
	$(T) $(ROOMS) $(CHECK_LIBS)
t/check_tunnel: t/check_tunnel.c t/check.h t/net.h $(ROOMS)
	$(T) $(ROOMS) $(CHECK_LIBS)

FUZZ = clang -g -O1 -std=c99 -D_POSIX_C_SOURCE=200809L -I. -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined
FUZZED = mux/mux.c mux/stream.c mux/queue.c mux/cc.c mux/frame.c base/buf.c os.c
FUZZ_SECONDS = 60

# What each side of the wire may read, for a minute each, from the seeds in the corpus; findings stay beside it.
fuzz: t/mux/fuzz_near t/mux/fuzz_far
	mkdir -p t/fuzzed/near t/fuzzed/far
	t/mux/fuzz_near -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=t/corpus/ t/fuzzed/near t/corpus/near
	t/mux/fuzz_far -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=t/corpus/ t/fuzzed/far t/corpus/far

t/mux/fuzz_near: t/mux/fuzz_near.c t/mux/fuzz.h $(FUZZED) $(HEADERS)
	$(FUZZ) -o $@ t/mux/fuzz_near.c $(FUZZED)
t/mux/fuzz_far: t/mux/fuzz_far.c t/mux/fuzz.h $(FUZZED) $(HEADERS)
	$(FUZZ) -o $@ t/mux/fuzz_far.c $(FUZZED)

# Leaks and descriptors that stay open, of the rooms that hold them and of relay in some scenes of each kind.
VALGRIND = valgrind -q --leak-check=full --errors-for-leak-kinds=definite,indirect --show-leak-kinds=definite,indirect \
	--error-exitcode=99
VALGRIND_UNITS = t/check_poll t/check_signals t/check_buf t/conn/check_fdpair t/conn/check_half t/check_sock
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
	t/coverage $(COVERAGE) $(SOURCES) small.c

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
	$(T) libmux.a $(MUX_BASE)

t/load: t/load.c
	$(CC) -std=c99 -D_POSIX_C_SOURCE=200809L -Wall -Wextra -O2 -o $@ t/load.c

# What four analysers find is an error; .clang-tidy tells what is off there. cppcheck: declarations stand at the top of a function,
# whatever their scope; and the members that nobody uses are the kernel's, in os.c.
ANALYSED = $(SOURCES) small.c
CPPCHECK = --enable=warning,style,performance,portability --suppress=variableScope --suppress=unusedStructMember

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

lint: $(COMPLETIONS)
	@t/need mandoc shellcheck clang-format
	mandoc -Tlint -Wwarning relay.1
	shellcheck t/demo t/need t/units t/valgrind t/zig completion/generate completion/relay.bash examples/jupyter-slurm .ci/run
	clang-format --dry-run -Werror $(SOURCES) small.c

clean:
	rm -f relay relay-static libmux.a $(CROSSED) flags flags.new guards guards.* *.o */*.o $(UNITS) t/faults.so t/nth.so t/load t/mux/line t/mux/fuzz_near t/mux/fuzz_far
	rm -f *.gcno *.gcda */*.gcno */*.gcda t/mux/*.gcno t/mux/*.gcda
	rm -f $(COMPLETIONS) completion/*.new
	rm -rf t/fuzzed t/__pycache__ .pytest_cache t/.pytest_cache
