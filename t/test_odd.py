"""Old and unusual systems.  If something is missing, full, closed or odd,
relay works without it, or reports it in one sentence.

Namespaces, system call filters and limits make such a system.  They are set
between fork and exec, so they affect relay alone.  WAYS are the ways to join
two ends there.  All run on this host; the tunnel's hop is env, which runs its
arguments.
"""
import contextlib
import ctypes
import fcntl
import os
import re
import resource
import shutil
import signal
import socket
import stat
import struct
import subprocess
import tempfile
import threading

import pytest

import rig
from rig import exchange

TIMES = pytest.mark.parametrize
# the first x86_64 system call that Linux 3.10 lacks (syscall_64.tbl)
KERNEL_3_10 = 314
# may be missing: close_range (os_close_from), Landlock (os_confine)
OPTIONAL = 436, 444, 445, 446
DATA = os.urandom(300000)

root = pytest.mark.skipif(os.getuid() != 0,
                          reason='skipped: only root can change the system around relay')
uncounted = pytest.mark.skipif(rig.COUNTED,
                               reason='skipped: a relay built for gcov must write files')
x86_64 = pytest.mark.skipif(os.uname().machine != 'x86_64',
                            reason='skipped: the system call numbers here are those of x86_64')
unwatched = pytest.mark.skipif(rig.SANITIZED,
                               reason='skipped: AddressSanitizer does not work without /proc')
libc = ctypes.CDLL(None, use_errno=True)


# ---- odd systems: each is a function for preexec_fn ----

def call(name, *args):
    if getattr(libc, name)(*args) != 0:
        raise OSError(ctypes.get_errno(), name)


def filter_calls(*code):
    """Install a seccomp filter, a program of (operation, if true, if false,
    value): see seccomp(2)."""
    # x86_64 alone
    code = [(0x20, 0, 0, 4), (0x15, 1, 0, 0xc000003e), (0x06, 0, 0, 0x7fff0000), (0x20, 0, 0, 0),
            *code]
    raw = b''.join(struct.pack('HBBI', *c) for c in code)
    kept = ctypes.create_string_buffer(raw, len(raw))
    program = struct.pack('HxxxxxxP', len(code), ctypes.addressof(kept))
    call('prctl', 38, 1, 0, 0, 0)       # PR_SET_NO_NEW_PRIVS
    call('prctl', 22, 2, program, 0, 0)     # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def allow():
    return 0x06, 0, 0, 0x7fff0000


def refuse(err):
    return 0x06, 0, 0, 0x00050000 | err


def linux_3_10():
    """Every system call newer than Linux 3.10 gives ENOSYS."""
    filter_calls((0x35, 0, 1, KERNEL_3_10), refuse(38), allow())


def no_ipv6():
    """A kernel built without IPv6: socket(AF_INET6) gives EAFNOSUPPORT."""
    filter_calls((0x15, 0, 3, 41), (0x20, 0, 0, 16), (0x15, 0, 1, socket.AF_INET6), refuse(97),
                 allow())


def own_mounts():
    call('unshare', 0x20000)            # CLONE_NEWNS
    call('mount', b'none', b'/', None, 0x44000, None)       # MS_REC | MS_PRIVATE


def cover(path):
    def cover():
        own_mounts()
        call('mount', b'none', path, b'tmpfs', 1, b'size=4k')       # MS_RDONLY
    return cover


def read_only():
    """All file systems are read-only; devices can be written."""
    own_mounts()
    with open('/proc/self/mounts', 'rb') as f:
        mounts = [line.split() for line in f]
    for _, where, kind, *_ in mounts:
        if kind not in (b'proc', b'sysfs', b'devtmpfs', b'devpts', b'cgroup2', b'mqueue'):
            libc.mount(b'none', where, None, 0x1021, None)      # MS_REMOUNT | MS_BIND | MS_RDONLY


def limit(n):
    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (n, n))
    return limit


# ---- what relay has to do there ----

class Odd:
    """Starts relay in an odd system."""

    def __init__(self, relay, target, tmp, pool):
        self.relay, self.make, self.tmp, self.pool = relay, target, tmp, pool
        self.preexec, self.env, self.binary, self.prefix = None, {}, rig.RELAY, []

    def start(self, *words, **popen):
        env = dict(os.environ, ASAN_OPTIONS=os.environ.get('ASAN_OPTIONS', '') + ':detect_leaks=0',
                   **self.env)
        return self.relay(*self.prefix, *words, preexec_fn=self.preexec, env=env, **popen)

    @property
    def hop(self):
        home = self.tmp + '/home'
        os.makedirs(home, exist_ok=True)
        return 'env HOME=%s PATH=/usr/bin:/bin' % home

    def passes(self, r, target, address=None):
        """Check a new connection: bytes and EOF pass in both directions."""
        a = rig.connect(address or r.address)
        b = target.accept()
        exchange(self.pool, a, b, DATA, DATA[::-1])
        a.close()
        b.close()


def raw_tcp(odd):
    t = odd.make('unix')
    odd.passes(odd.start('127.0.0.1:0', *t.words), t)


def raw_bare_port(odd):
    t = odd.make('tcp')
    odd.passes(odd.start('0', 'localhost:' + t.words[0].split(':')[1]), t)


def raw_unix(odd):
    t = odd.make('tcp')
    odd.passes(odd.start(odd.tmp + '/from', *t.words), t)


def command(odd):
    a = rig.connect(odd.start('127.0.0.1:0', '--', 'cat').address)
    a.send(b'hello')
    assert a.read(5) == b'hello'
    a.shut()
    assert a.read_all() == b''
    a.close()


def link(odd):
    t = odd.make('unix')
    odd.passes(odd.start('-m', '127.0.0.1:0', '--', odd.binary, '-m', '-', *t.words), t)


def tunnel(odd):
    t, u = odd.make('unix'), odd.make('tcp')
    r = odd.start('-L', '127.0.0.1:0:' + t.words[0], '-R', '127.0.0.1:0:' + u.words[0], odd.hop)
    near, far = r.addresses
    odd.passes(r, t, near)
    odd.passes(r, u, far)


WAYS = {f.__name__: f for f in (raw_tcp, raw_bare_port, raw_unix, command, link, tunnel)}


@pytest.fixture
def odd(relay, target, tmp, pool):
    return Odd(relay, target, tmp, pool)


SYSTEMS = {'linux 3.10': (linux_3_10, [x86_64]), 'no ipv6': (no_ipv6, [x86_64]),
           'no proc': (cover(b'/proc'), [root, unwatched]), 'descriptors': (limit(16), [])}


@TIMES('way', WAYS)
@TIMES('system', [pytest.param(name, marks=marks) for name, (_, marks) in SYSTEMS.items()])
def test_serves(odd, system, way):
    """Goal: every way works without system calls newer than Linux 3.10,
    without IPv6, without /proc, and with 16 descriptors."""
    odd.preexec = SYSTEMS[system][0]
    WAYS[way](odd)


# ---- an old kernel ----

@pytest.fixture(scope='module')
def static():
    """The static binary: the one under test, or a new one."""
    with open(rig.RELAY, 'rb') as f:
        if b'\0.dynsym\0' not in f.read():
            yield rig.RELAY
            return
    if rig.SANITIZED or not rig.EXTRAS:
        pytest.skip('skipped: the static binary is tested where this one is as built')
    if not shutil.which('musl-gcc'):
        pytest.skip('skipped: no musl-gcc: apt-get install musl-tools, or RELAY=./relay-static')
    top = os.path.dirname(rig.HERE)
    place = tempfile.mkdtemp(prefix='ro', dir='/tmp')
    sources = subprocess.run(['make', '-s', 'sources'], cwd=top, stdout=subprocess.PIPE, text=True,
                             check=True).stdout.split()
    subprocess.run(['musl-gcc', '-std=c99', '-D_POSIX_C_SOURCE=200809L', '-I.', '-O0', '-static',
                    '-o', place + '/relay', *sources], cwd=top, check=True)
    yield place + '/relay'
    shutil.rmtree(place)


def calls_of(trace):
    """The system calls of all relay processes and their children in the output
    of strace -f -n: {number: name}."""
    program, begun, seen = {}, {}, {}
    with open(trace, errors='replace') as f:
        for line in f:
            pid, rest = line.split(None, 1)
            m = re.match(r'\[ *(\d+)\] (?:<\.\.\. )?(\w+)', rest)
            if not m:
                continue
            number, name = int(m[1]), m[2]
            if name == 'execve':
                path = re.search(r'execve\("([^"]*)"', rest)
                begun[pid] = path[1] if path else begun.get(pid, '')
                if re.search(r'= 0$', rest.rstrip()):
                    program[pid] = os.path.basename(begun[pid])
                continue
            child = re.search(r'= (\d+)$', rest.rstrip())
            if name in ('clone', 'fork', 'vfork', 'clone3') and child:
                program.setdefault(child[1], program.get(pid, ''))
            mine = program.get(pid, '')
            # the copy starts as a script
            if mine.startswith('relay') and not mine.endswith('.part'):
                seen[number] = name
    return seen


@x86_64
@pytest.mark.skipif(not shutil.which('strace'), reason='skipped: no strace: apt-get install strace')
def test_no_newer_call(odd, static, tmp, monkeypatch):
    """Goal: the static binary uses no system call newer than Linux 3.10.  The
    one exception may be missing."""
    monkeypatch.setattr(rig, 'RELAY', shutil.which('strace'))
    odd.binary = static
    seen = {}
    for name, way in WAYS.items():
        trace = '%s/trace.%s' % (tmp, name)
        odd.prefix = ['-D', '-f', '-n', '-qq', '-e', 'signal=none', '-o', trace, static]
        way(odd)
        seen.update(calls_of(trace))
    odd.start('-', 'no.such.host.invalid:1').wait()
    assert len(seen) > 40, seen
    newer = {number: name for number, name in seen.items() if number >= KERNEL_3_10
             and number not in OPTIONAL}
    assert not newer, newer


# ---- IPv6 switched off ----

@contextlib.contextmanager
def network(**settings):
    """Give this thread and its children a network of their own, with loopback
    alone and with these settings of sysctl."""
    with open('/proc/thread-self/ns/net') as before:
        call('unshare', 0x40000000)     # CLONE_NEWNET
        try:
            with socket.socket() as s:
                fcntl.ioctl(s, 0x8914,
                            struct.pack('16sH14x', b'lo', 1))        # SIOCSIFFLAGS, IFF_UP
            for name, value in settings.items():
                with contextlib.suppress(FileNotFoundError), \
                    open('/proc/sys/net/' + name, 'w') as f:
                    f.write(value)
            yield
        finally:
            call('setns', before.fileno(), 0x40000000)


def no_ipv6_network():
    """A network where IPv6 is switched off."""
    return network(**{'ipv6/conf/%s/disable_ipv6' % name: '1' for name in ('all', 'default', 'lo')})


@pytest.fixture
def own_network():
    with no_ipv6_network():
        yield


@root
@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason='skipped: no IPv6')
def test_port_that_is_free_on_both_families(relay, run, target):
    """Goal: port 0 is a port that is free on both families, even if most ports
    of ::1 are taken.  If all are, the remedy is one family."""
    t = target('unix')
    with network(**{'ipv4/ip_local_port_range': '20000 20031'}), contextlib.ExitStack() as held:
        for port in set(range(20000, 20032)) - {20021, 20026}:
            s = held.enter_context(socket.socket(socket.AF_INET6))
            s.bind(('::1', port))
        found = set()
        for _ in range(2):
            r = relay('0', *t.words)
            found.add(r.address)
        assert found == {'localhost:20021', 'localhost:20026'}
        r = run('0', *t.words)
        assert r.returncode == 3 and 'as in 127.0.0.1:0' in r.stderr, r.stderr


@root
@TIMES('way', ['raw_tcp', 'raw_bare_port', 'link', 'tunnel'])
def test_ipv6_switched_off(odd, own_network, way):
    """Goal: if sysctl has switched IPv6 off, a bare port means 127.0.0.1, and
    every way works."""
    WAYS[way](odd)


@root
def test_ipv6_switched_off_and_asked_for(run, own_network, target):
    """Goal: if IPv6 is switched off, ::1 gives an error: status 3 as source, 1
    as target."""
    r = run('[::1]:0', *target().words)
    assert r.returncode == 3 and '[::1]:0' in r.stderr and r.stderr.count('\n') == 1, r.stderr
    r = run('-', '[::1]:80')
    assert r.returncode == 1 and '[::1]:80' in r.stderr and r.stderr.count('\n') == 1, r.stderr


@root
@TIMES('how', ['built without', 'switched off'])
def test_no_ipv6_and_no_server(run, how):
    """Goal: "localhost" is tried as ::1 too.  Where IPv6 is missing, the error of
    127.0.0.1 is the one that is reported."""
    with network() if how == 'built without' else no_ipv6_network():
        r = run('-', 'localhost:%d' % rig.free_port(),
                preexec_fn=no_ipv6 if how == 'built without' else None)
    assert r.returncode == 1 and 'no process listens on that port' in r.stderr, r.stderr


@root
def test_source_that_times_out(relay, target):
    """Goal: if TCP gives up a source in the middle of bulk, after relay has sent
    EOF to it, the connection is broken and does not end as with EOF."""
    t = target('unix')
    with network(), socket.create_server(('127.0.0.1', 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        near = listener.accept()[0]
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT):
            near.setsockopt(socket.IPPROTO_TCP, option, 1)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        r = relay('-', *t.words, stdin=near.fileno(), stdout=near.fileno())
        near.close()
        b = t.accept()
        b.shut()
        assert far.recv(1) == b''
        bulk = threading.Thread(target=far.sendall, args=(bytes(4 << 20),))
        bulk.start()
        assert len(b.read(4 << 20)) == 4 << 20
        bulk.join()
        with socket.socket() as s:
            fcntl.ioctl(s, 0x8914, struct.pack('16sH14x', b'lo', 0))    # SIOCSIFFLAGS: down
        assert r.wait() == 4 and 'timed out' in r.err(), r.err()
        far.close()


@root
def test_ipv6_switched_off_and_every_address(odd, own_network):
    """Goal: if IPv6 is switched off, * listens on the IPv4 addresses."""
    t = odd.make('unix')
    r = odd.start('*:0', *t.words)
    odd.passes(r, t, '127.0.0.1:' + r.address.rsplit(':', 1)[1])


# ---- no /tmp, no file system to write to ----

@pytest.fixture
def shm(monkeypatch):
    """A directory outside /tmp, with the binary in it."""
    path = tempfile.mkdtemp(prefix='r', dir='/run' if os.access('/run', os.W_OK) else '/var/tmp')
    shutil.copy(rig.RELAY, path + '/relay')
    monkeypatch.setattr(rig, 'RELAY', path + '/relay')
    yield path
    shutil.rmtree(path)


@root
@TIMES('way', WAYS)
def test_without_tmp(relay, pool, shm, way):
    """Goal: relay works without /tmp."""
    made = []

    def target(kind):
        made.append(rig.TcpTarget() if kind == 'tcp'
                    else rig.UnixTarget('%s/t%d' % (shm, len(made))))
        return made[-1]
    odd = Odd(relay, target, shm, pool)
    odd.preexec = cover(b'/tmp')
    WAYS[way](odd)
    for t in made:
        t.close()
    for r in [f for f in os.listdir(shm) if stat.S_ISSOCK(os.lstat(os.path.join(shm, f)).st_mode)]:
        assert r == 'from', r    # its relay still runs


@root
@TIMES('way', ['raw_tcp', 'raw_bare_port', 'command', 'link'])
def test_read_only(odd, way):
    """Goal: on read-only file systems everything works that needs no file."""
    odd.preexec = read_only
    WAYS[way](odd)


@root
@uncounted
def test_read_only_tunnel(odd):
    """Goal: on read-only file systems a tunnel works if the far side has a
    relay.  If not, the error names every directory that was tried."""
    t = odd.make('unix')
    words = ['-L', '127.0.0.1:0:' + t.words[0], odd.hop]
    odd.preexec = read_only
    odd.passes(odd.start('-x', rig.RELAY, *words), t)
    r = odd.start(*words)
    assert r.wait() == 7
    assert r.err().splitlines()[-1].count('Read-only file system') == 2, r.err()


@root
@uncounted
def test_read_only_files(run, target, tmp):
    """Goal: if a socket or a pid file cannot be made, the error has the cause;
    the status is 3 or 6."""
    for words, status in (([tmp + '/from'], 3), ([tmp + '/' + 'n' * 200], 3),
                          (['-P', tmp + '/pid', '127.0.0.1:0'], 6)):
        r = run(*words, *target().words, preexec_fn=read_only)
        assert r.returncode == status and r.stderr.count('\n') == 1, r.stderr
        assert words[-1 if status == 3 else 1] in r.stderr \
            and 'Read-only file system' in r.stderr, r.stderr


# ---- descriptors ----

CLOSED = TIMES('closed', [[0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]], ids=str)


@CLOSED
@TIMES('linked', ['link', 'tunnel'])
def test_closed_descriptors(odd, tmp, closed, linked):
    """Goal: if stdin, stdout or stderr are closed at the start, a link and a
    tunnel still work, and no other descriptor is taken for them."""
    def close():
        for fd in closed:
            os.close(fd)
    odd.preexec = close
    t = odd.make('tcp')
    path = tmp + '/from'
    r = odd.start(*(['-m', path, '--', rig.RELAY, '-m', '-', *t.words] if linked == 'link' else
                    ['-L', '%s:%s' % (path, t.words[0]), odd.hop]))
    rig.reach(path).close()
    t.accept().close()
    odd.passes(r, t, path)
    # relay writes to descriptor 2, whatever that is now
    os.kill(r.pid, signal.SIGUSR1)
    odd.passes(r, t, path)
    assert r.stop() == 0


@TIMES('fd', [0, 1])
def test_far_end_without_stdio(run, fd):
    """Goal: a far side with stdin or stdout closed exits by itself, and takes
    no other descriptor for them."""
    r = run('-m', '-', '/nowhere', preexec_fn=lambda: os.close(fd))
    assert r.returncode in (0, 7), r.stderr


@TIMES('n', [7, 9])
@TIMES('words',
       [['127.0.0.1:0', '/nowhere'], ['0', '--', 'cat'], ['-m', '127.0.0.1:0', '--', 'cat'],
        ['-L', '127.0.0.1:0:/nowhere', '-L', '127.0.0.1:0:/nowhere', '-D', '127.0.0.1:0',
         'env']], ids=lambda w: w[0])
def test_too_few_descriptors(odd, n, words):
    """Goal: with very few descriptors relay exits with an error, or serves as
    many connections as it can and logs that once.  It never spins."""
    odd.preexec = limit(n)
    r = odd.start('-t', '1', *words)
    out = rig.End(os.dup(r.proc.stdout.fileno()))
    addresses = out.read_all().decode().split()
    out.close()
    if addresses:
        with contextlib.suppress(ConnectionResetError):
            a = rig.connect(addresses[0])
            assert rig.cpu_grows(r.pid, 0.7) < 0.1
            a.close()
        r.stop()
    assert r.wait() in (0, 3, 6, 7), r.err()
    lines = [line for line in r.err().splitlines() if 'out of descriptors' in line
            or 'ulimit -n' in line]
    assert len(lines) <= 2 and (r.proc.returncode == 0 or r.err()), r.err()


def test_no_descriptor_is_logged_once(odd):
    """Goal: a listener that cannot accept for lack of descriptors logs that
    once, not at every try."""
    odd.preexec = limit(7)
    t = odd.make('unix')
    r = odd.start('127.0.0.1:0', *t.words)
    a = rig.connect(r.address)
    assert rig.cpu_grows(r.pid, 2.1) < 0.1
    assert r.err().count('out of descriptors') == 1, r.err()
    a.close()


# ---- a full disk ----

@pytest.fixture
def full(tmp, mounted):
    """full(options) mounts a file system of that size and fills it."""
    return lambda options: mounted('%s/full,%s' % (tmp, options), options)


def test_full_disk_and_a_socket(run, target, full):
    """Goal: if there is no space for a socket file, the status is 3 and the
    error has the cause."""
    r = run(full('nr_inodes=1') + '/from', *target().words)
    assert r.returncode == 3 and 'No space left' in r.stderr and r.stderr.count('\n') == 1, r.stderr


def test_full_disk_and_a_pid_file(run, target, full):
    """Goal: if there is no space for a pid file, the status is 6, the error
    has the cause, and no empty file is left."""
    place = full('size=4k')
    with open(place + '/fill', 'wb', buffering=0) as f, contextlib.suppress(OSError):
        while True:
            f.write(bytes(4096))
    r = run('-P', place + '/pid', '127.0.0.1:0', *target().words)
    assert r.returncode == 6 and 'No space left' in r.stderr and r.stderr.count('\n') == 1, r.stderr
    assert os.listdir(place) == ['fill']


def test_full_disk_and_messages(odd):
    """Goal: relay continues if it cannot write to stdout and stderr."""
    t = odd.make('unix')
    with open('/dev/full', 'wb') as nowhere:
        r = odd.start(odd.tmp + '/from', *t.words, stdout=nowhere, stderr=nowhere)
    rig.reach(odd.tmp + '/from').close()
    t.accept().close()
    odd.passes(r, t, odd.tmp + '/from')


# ---- names ----

def test_long_home(odd, tmp):
    """Goal: with a HOME of 200 characters relay is copied there; sockets below
    it can be listened on and connected to, and are removed."""
    home = tmp + '/' + 'h' * (199 - len(tmp))
    os.mkdir(home)
    hop = 'env HOME=%s PATH=/usr/bin:/bin' % home
    odd.env = {'HOME': home}
    t, back = odd.make('unix'), rig.UnixTarget(home + '/app.sock')
    r = odd.start('-L', '127.0.0.1:0:%s/app.sock' % home, '-L',
                  '%s/near.sock:%s/app.sock' % (home, home),
                  '-R', '%s/far.sock:%s' % (home, t.words[0]), hop)
    port, near, far = r.addresses
    assert (near, far) == (home + '/near.sock', home + '/far.sock')
    odd.passes(r, back, port)
    odd.passes(r, back, near)
    odd.passes(r, t, far)
    assert len([f for f in os.listdir(home + '/.cache/relay') if f.startswith('relay-')]) == 1
    assert r.stop() == 0
    back.close()
    assert os.listdir(home) == ['.cache']


# not UTF-8, and a byte that old terminals take for an escape
LATIN = os.fsdecode(b'b\xe4r \xff\x9b\xc3')


def plain(path):
    return os.fsencode(path).replace(b'\x9b', b'?')


@TIMES('locale', ['C', 'de_DE.ISO-8859-1', 'no_SUCH.locale'])
def test_latin_1(odd, tmp, locale):
    """Goal: paths are bytes: they work in any locale and are printed as they
    were given, except bytes that could control a terminal."""
    odd.env = {'LC_ALL': locale}
    os.mkdir(tmp + '/' + LATIN)
    place = '%s/%s/' % (tmp, LATIN)
    t = rig.UnixTarget(place + 'app')
    r = odd.start(place + 'from', place + 'app')
    with open(r.proc.stdout.fileno(), 'rb', closefd=False) as f:
        assert f.read() == os.fsencode(place + 'from\n')
    odd.passes(r, t, place + 'from')
    r.stop()
    r = odd.start('-L', '%sfrom:%sapp' % (place, place), '-R', '%sfar:%sapp' % (place, place),
                  odd.hop)
    with open(r.proc.stdout.fileno(), 'rb', closefd=False) as f:
        # in a message from the far side
        assert f.read() == os.fsencode('%sfrom\n' % place) + plain(place) + b'far\n'
    odd.passes(r, t, place + 'from')
    odd.passes(r, t, place + 'far')
    assert r.stop() == 0
    t.close()
    with open(r.log, 'rb') as f:
        assert b'-> %s:%sapp' % (os.fsencode(odd.hop), plain(place)) in f.read()
    r = odd.start('-', place + 'none')
    assert r.wait() == 1
    with open(r.log, 'rb') as f:
        assert plain(place) + b'none' in f.read()
