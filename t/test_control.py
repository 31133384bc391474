"""-O: list, check and stop running relays.  -E and the log of -f."""
import contextlib
import os
import re
import resource
import signal
import socket
import stat
import subprocess
import time

import pytest

import rig
from rig import ping, wait_for

HOST = socket.gethostname()
FOREIGN = 65534


class Control:
    """The control sockets and logs of one directory, and relay -O for it."""

    def __init__(self, run, base):
        self.run, self.base, self.dir = run, base, base + '/relay'

    def __call__(self, *words, **kw):
        return self.run('-O', *words, **kw)

    def socket(self, pid):
        return '%s/%s.%d.sock' % (self.dir, HOST, pid)

    def log(self, pid):
        return '%s/%s.%d.log' % (self.dir, HOST, pid)

    def list(self):
        """The lines of this test's relays.  Other tests run beside this one, and
        some of their relays use the directory in /tmp."""
        own = rig.marked(os.environ[rig.MARK])
        r = self('list')
        assert (r.returncode, r.stderr) == (0, '')
        lines = [line.split('  ') for line in r.stdout.splitlines()]
        return [line for line in lines if int(line[1].split()[1]) in own]

    def check(self, name):
        """The report as a dictionary; a key can occur more than once."""
        r = self('check', name)
        assert (r.returncode, r.stderr) == (0, ''), r.stderr
        report = {}
        for line in r.stdout.splitlines():
            key, value = line.split(None, 1)
            report.setdefault(key, []).append(value)
        return report

    def connect(self, pid):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(rig.PATIENCE)
        s.connect(self.socket(pid))
        return s


@pytest.fixture
def control(run, tmp, monkeypatch):
    """Relays of this test alone."""
    base = tmp + '/cache'
    monkeypatch.setenv('XDG_CACHE_HOME', base)
    return Control(run, base)


def pid_of(control, address):
    return int(control.check(address)['pid'][0])


@contextlib.contextmanager
def frozen(pid):
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


# ---- list, check, exit ----

def test_no_relay(control):
    """Goal: without a relay, list prints nothing, and check and exit fail with
    status 1 and one line."""
    assert control.list() == []
    for word in 'check', 'exit', 'stop':
        r = control(word, '8888')
        assert (r.returncode, r.stdout) == (1, '')
        assert r.stderr.count('\n') == 1 and '8888' in r.stderr
    assert not os.path.exists(control.dir)


@pytest.mark.parametrize('words, cause', [
    (['-O', 'list', '8888'], 'after -O list'),
    (['-O', 'check'], 'need one NAME'),
    (['-O', 'exit', '1', '2'], 'need one NAME'),
    (['-O', 'restart', '1'], '-O list, -O check NAME or -O exit NAME'),
    (['-O', 'list', '-L', '1:/a'], '-O excludes'),
    (['-z', '-O', 'list'], '-O excludes'),
    (['-f', '-O', 'list'], '-O excludes'),
    (['-O'], 'requires an argument')], ids=lambda v: ' '.join(v) if isinstance(v, list) else '')
def test_wrong_words(run, words, cause):
    r = run(*words)
    assert r.returncode == 2 and cause in r.stderr and r.stderr.count('\n') == 1


def test_two_relays(control, relay, target):
    """Goal: list shows each relay, and the report of one counts its
    connections and bytes.  exit ends one, and the other goes on."""
    t = target('unix')
    one, two = (relay('127.0.0.1:0', *t.words) for _ in range(2))
    a, b = rig.connect(one.address), t.accept()
    ping(a, b, b'x' * 1000)
    a.close()
    b.close()
    a = rig.connect(one.address)
    b = t.accept()
    ping(a, b, b'y' * 500)
    two.address
    assert sorted(line[:4] for line in control.list()) == sorted(
        [r.address, 'pid %d' % r.pid, 'up', t.path] for r in (one, two))
    report = wait_for(lambda: [r for r in [control.check(one.address)]
                               if r['connections'] == ['1 open, 2 in all']])[0]
    assert report['pid'] == [str(one.pid)] and report['state'] == ['up']
    assert report['listens'] == [one.address] and report['target'] == [t.path]
    assert report['bytes'] == ['1500 there, 1500 back']
    assert re.fullmatch(r'\d+ s', report['age'][0])
    r = control('exit', one.address)
    assert (r.returncode, r.stdout, r.stderr) == (0, '', '')
    assert one.wait(1) == 0
    with pytest.raises(OSError):
        rig.connect(one.address)
    assert control('check', one.address).returncode == 1
    assert control.check(two.address)['state'] == ['up']
    assert os.listdir(control.dir) == [os.path.basename(control.socket(two.pid))]
    a.close()
    b.close()


@pytest.mark.parametrize('word', ['exit', 'stop'])
def test_names(control, relay, tmp, target, word):
    """Goal: a name is an address, a port, localhost:PORT, a path from any
    directory, or the process ID."""
    t = target('unix')
    port = rig.free_port()
    r = relay(port, *t.words)
    s = relay('./it.sock', *t.words, cwd=tmp)
    r.address, s.address
    for name in port, 'localhost:%d' % port, '127.0.0.1:%d' % port, '[::1]:%d' % port, r.pid:
        assert control.check(name)['pid'] == [str(r.pid)]
    assert control.check(tmp + '/it.sock')['listens'] == [tmp + '/./it.sock']
    os.mkdir(tmp + '/d')
    for name in './it.sock', 'd/../it.sock':
        q = control('check', name, cwd=tmp)
        assert q.returncode == 0 and 'pid         %d\n' % s.pid in q.stdout
    for name in 'localhost:1', str(port)[:-1], tmp, os.getpid(), '':
        assert control('check', name).returncode == 1
    assert control(word, tmp + '/it.sock').returncode == 0
    assert s.wait(1) == 0 and r.proc.poll() is None


def test_name_of_several(control, relay, target):
    """Goal: if two relays have a name, nothing is stopped."""
    t = target('unix')
    port = rig.free_port()
    relays = [relay('127.0.0.%d:%d' % (i, port), *t.words) for i in (1, 2)]
    for r in relays:
        r.address
    r = control('exit', port)
    assert r.returncode == 2 and all(str(x.pid) in r.stderr for x in relays)
    assert len(control.list()) == 2


def test_never_just_a_pid(control):
    """Goal: other processes are not stopped, even if a control socket with
    their process ID exists."""
    with subprocess.Popen(['sleep', '60']) as sleep:
        os.makedirs(control.dir, 0o700)
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(control.socket(sleep.pid))
        assert control('exit', sleep.pid).returncode == 1
        with socket.socket(socket.AF_UNIX) as s:
            os.unlink(control.socket(sleep.pid))
            s.bind(control.socket(sleep.pid))
            s.listen(8)
            r = control('exit', sleep.pid)
            assert r.returncode == 1 and 'does not answer' in r.stderr
        os.unlink(control.socket(sleep.pid))
        assert sleep.poll() is None
        sleep.kill()


def test_dead_sockets(control, relay, target):
    """Goal: list removes the socket that SIGKILL left, and leaves those of
    other hosts and other files."""
    t = target('unix')
    live, dead = (relay('127.0.0.1:0', *t.words) for _ in range(2))
    dead.address, live.address
    other = control.dir + '/other-host.%d.sock' % dead.pid
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(other)
    plain = control.socket(1)
    with open(plain, 'w'):
        pass
    dead.proc.kill()
    dead.proc.wait()
    assert control('check', dead.pid).returncode == 1
    assert os.path.exists(control.socket(dead.pid))
    assert [line[1] for line in control.list()] == ['pid %d' % live.pid]
    assert not os.path.exists(control.socket(dead.pid))
    assert os.path.exists(other) and os.path.exists(plain)
    os.unlink(other)


def test_own_dead_socket(control, relay, target):
    """Goal: if a killed relay with the same process ID has left its socket, a
    new relay replaces it and logs nothing."""
    os.makedirs(control.dir, 0o700)

    def leave():
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(control.socket(os.getpid()))
    r = relay('127.0.0.1:0', *target('unix').words, preexec_fn=leave)
    assert control.check(r.address)['pid'] == [str(r.pid)]
    assert r.stop() == 0 and r.err() == ''


def test_no_answer(control, relay, target):
    """Goal: while SIGSTOP stops a relay, list prints it, does not remove its
    socket, and waits two seconds at most."""
    r = relay('127.0.0.1:0', *target('unix').words)
    r.address
    with frozen(r.pid):
        since = time.monotonic()
        assert control.list() == [[str(r.pid), 'pid %d' % r.pid, 'no answer']]
        assert time.monotonic() - since < 4
        q = control('exit', r.pid)
        assert q.returncode == 1 and 'does not answer' in q.stderr
    assert wait_for(lambda: control.list()[0][2:3] == ['up'])


def test_exit_waits(control, relay, target):
    """Goal: exit returns after the process has ended, also if a command needs
    a moment to end."""
    r = relay('-v', '127.0.0.1:0', '--', 'sh', '-c', 'trap "" TERM; echo; exec sleep 9 >&- <&-')
    a = rig.connect(r.address)
    assert a.recv() == b'\n'
    since = time.monotonic()
    assert control('exit', r.address).returncode == 0
    assert time.monotonic() - since > 0.3
    assert r.wait(0.5) == 0 and 'stopped by signal' not in r.err()
    a.close()


def test_one_connection_has_no_socket(control, relay, tmp, target):
    """Goal: a relay on stdin and stdout has no control socket."""
    ours, i, o = rig.stdio('socketpair')
    t = target('unix')
    relay('-', *t.words, stdin=i, stdout=o)
    os.close(i)
    os.close(o)
    b = t.accept()
    ping(ours, b)
    assert not os.path.exists(control.dir)
    ours.close()
    b.close()


# ---- tunnels ----

def test_tunnel(control, relay, target, tmp):
    """Goal: the report of a tunnel has its hops, forwards and state, during
    the start, when it is up, and after the line was lost."""
    t = target('unix')
    gate = tmp + '/gate'
    os.mkfifo(gate)
    hop = tmp + '/hop'
    with open(hop, 'w') as f:
        f.write('#!/bin/sh\nread -r line <%s\nexec "$@"\n' % gate)
    os.chmod(hop, 0o755)
    r = relay('-x', rig.RELAY, '-L', '127.0.0.1:0:' + t.path, '-R', tmp + '/far.sock:' + t.path,
              hop + ' ', 'env A=B')

    def report():
        with contextlib.suppress(AssertionError):
            return control.check(r.pid)

    def has(state):
        return wait_for(lambda: [x for x in [report()] if x and x['state'] == [state]])[0]

    assert has('starting')['hops'] == ['%s  -> env A=B' % hop]

    def open_gate():
        with open(gate, 'w') as f:
            f.write('\n')
    open_gate()
    r.address
    up = has('up')
    assert up['forward'] == ['-L 127.0.0.1:0:' + t.path, '-R %s/far.sock:%s' % (tmp, t.path)]
    assert up['listens'] == [r.address]
    assert re.match(r'\d+ s ago: .*far.sock', up['event'][0])
    for pid in rig.children(r.pid):
        os.kill(pid, signal.SIGKILL)
    lost = has('reconnecting')
    wait_for(lambda: 'reconnecting' in report()['event'][0])
    assert lost['pid'] == [str(r.pid)]
    assert control.list()[0][2] == 'reconnecting'
    assert control('exit', r.address).returncode == 0
    assert r.wait(1) == 0
    os.unlink(tmp + '/far.sock')        # the far relay was killed


# ---- other users, hostile clients ----

def test_modes(control, relay, target):
    """Goal: directory 0700, socket 0600, whatever the umask."""
    r = relay('127.0.0.1:0', *target('unix').words, umask=0)
    r.address
    assert stat.S_IMODE(os.stat(control.dir).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(control.socket(r.pid)).st_mode) == 0o600


@pytest.mark.skipif(os.getuid() != 0, reason='skipped: needs root')
@pytest.mark.skipif(not rig.EXTRAS, reason='skipped: no peer uid on this system')
def test_wrong_user(control, relay, target, tmp):
    """Goal: a client of another user gets no answer and stops nothing, even if
    it could open the socket."""
    r = relay('-v', '127.0.0.1:0', *target('unix').words)
    r.address
    for path, mode in ((tmp, 0o755), (control.base, 0o755), (control.dir, 0o755),
                       (control.socket(r.pid), 0o666)):
        os.chmod(path, mode)
    for word in 'status', 'exit':
        q = subprocess.run(['python3', '-c', 'import socket, sys; s = socket.socket('
                            'socket.AF_UNIX); s.connect(sys.argv[1]); s.send(b"%s\\n"); '
                            'print(s.recv(99))' % word, control.socket(r.pid)], user=FOREIGN,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=9)
        assert q.stdout == "b''\n" or 'ConnectionReset' in q.stderr or 'BrokenPipe' in q.stderr
    r.says('another user')
    assert r.proc.poll() is None


@pytest.mark.skipif(os.getuid() != 0, reason='skipped: needs root')
@pytest.mark.parametrize('what', ['owner', 'mode', 'link', 'file'])
def test_foreign_directory(control, relay, target, tmp, what):
    """Goal: relay does not use a directory of another user, one that is open to
    others, or a link.  It uses the next directory."""
    os.mkdir(control.base)
    if what == 'file':
        with open(control.dir, 'w'):
            pass
    elif what == 'link':
        os.mkdir(tmp + '/elsewhere', 0o700)
        os.symlink(tmp + '/elsewhere', control.dir)
    else:
        os.mkdir(control.dir, 0o700)
        if what == 'owner':
            os.chown(control.dir, FOREIGN, FOREIGN)
        else:
            os.chmod(control.dir, 0o750)
    r = relay('-v', '127.0.0.1:0', *target('unix').words)
    r.address
    path = '/tmp/relay-%d/%s.%d.sock' % (os.getuid(), HOST, r.pid)
    assert os.path.exists(path)
    assert control.check(r.address)['pid'] == [str(r.pid)]
    assert r.stop() == 0 and not os.path.exists(path)
    assert what == 'file' or os.listdir(control.dir) == []


@pytest.mark.skipif(os.getuid() != 0, reason='skipped: needs root')
@pytest.mark.parametrize('what', ['owner', 'mode'])
def test_no_directory(relay, target, tmp, what):
    """Goal: where no directory can be used, relay works.  Only -v logs that,
    unless another user has made the directory in /tmp."""
    uid = 3000000 + os.getpid()
    path = '/tmp/relay-%d' % uid
    os.mkdir(path, 0o755)
    if what == 'mode':
        os.chown(path, uid, uid)
    env = {k: v for k, v in os.environ.items() if k not in ('HOME', 'XDG_CACHE_HOME')}
    t = target()
    try:
        for words in [], ['-v']:
            r = relay(*words, '127.0.0.1:0', *t.words, env=env, user=uid)
            a = rig.connect(r.address)
            b = t.accept()
            ping(a, b)
            a.close()
            b.close()
            assert r.stop() == 0
            assert ('no control socket' in r.err()) == (bool(words) or what == 'owner')
            assert words or r.err() == ('' if what == 'mode' else (
                'relay: no control socket: %s belongs to another user; '
                'set XDG_CACHE_HOME to a local directory\n' % path))
    finally:
        os.rmdir(path)


def test_hostile_clients(control, relay, target):
    """Goal: clients that send nothing, send megabytes, or do not read are
    closed soon.  relay does not grow or spin, and connections go on."""
    t = target('unix')
    r = relay('127.0.0.1:0', *t.words)
    a, b = rig.connect(r.address), t.accept()
    ping(a, b)
    before, files = rig.memory(r.pid), len(os.listdir('/proc/%d/fd' % r.pid))
    silent = [control.connect(r.pid) for _ in range(20)]
    ping(a, b)
    assert len(os.listdir('/proc/%d/fd' % r.pid)) <= files + 4
    assert rig.cpu_grows(r.pid) < 0.2
    for s in silent:
        assert s.recv(1) == b''         # four at a time, a second each
        s.close()
    for text in b'x' * 4096, b'status', b'status\nstatus\n', b'\n', b'\0' * 15, b'exit', b'exit\nx':
        with control.connect(r.pid) as s, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            s.sendall(text * (1 << 10))
            s.shutdown(socket.SHUT_WR)
            while s.recv(1 << 16):
                pass
    deaf = [control.connect(r.pid) for _ in range(4)]
    for s in deaf:
        s.send(b'status\n')
    ping(a, b)
    assert control.check(r.address)['state'] == ['up']
    for s in deaf:
        s.close()
    ping(a, b)
    wait_for(lambda: len(os.listdir('/proc/%d/fd' % r.pid)) == files)
    assert rig.memory(r.pid) - before < 1 << 20
    assert rig.cpu_grows(r.pid) < 0.2
    a.close()
    b.close()


def test_leaving_client_goes_away(control, relay, target):
    """Goal: relay does not spin if the client of exit closes before the end."""
    r = relay('127.0.0.1:0', '--', 'sh', '-c', 'trap "" TERM; echo; exec sleep 9')
    a = rig.connect(r.address)
    assert a.recv() == b'\n'
    with control.connect(r.pid) as s:
        s.send(b'exit\n')
    before = rig.cpu(r.pid)
    since = time.monotonic()
    while time.monotonic() - since < 0.3 and r.proc.poll() is None:
        assert rig.cpu(r.pid) - before < 0.15
    assert r.wait() == 0
    a.close()


def test_no_descriptors(control, relay, target):
    """Goal: a relay without free descriptors does not spin at a client."""
    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))
    t = target('unix')
    r = relay('127.0.0.1:0', *t.words, preexec_fn=limit)
    ends = [rig.connect(r.address)]
    ends.append(t.accept())
    assert control.check(r.address)['connections'] == ['1 open, 1 in all']
    for end in ends:
        end.close()


# ---- -E ----

STAMP = r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ '


def test_log(relay, target, tmp):
    """Goal: -E appends all messages to a file of mode 0600, each with its
    time, and nothing to stderr."""
    t = target()
    path = tmp + '/log'
    for n in 1, 2:
        r = relay('-v', '-E', path, '127.0.0.1:0', *t.words, umask=0)
        a, b = rig.connect(r.address), t.accept()
        ping(a, b)
        a.close()
        b.close()
        assert r.stop() == 0 and r.err() == ''
        with open(path) as f:
            lines = f.read().splitlines()
        assert all(re.match(STAMP + 'relay: ', line) for line in lines)
        assert sum('stopped by signal' in line for line in lines) == n
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_log_of_a_failure(run, tmp):
    """Goal: the cause of a failed start is also in the file."""
    r = run('-E', tmp + '/log', '-', tmp + '/none')
    assert (r.returncode, r.stderr) == (1, '')
    with open(tmp + '/log') as f:
        assert 'No such file' in f.read()


@pytest.mark.parametrize('kind', ['link', 'directory', 'none', 'fifo', 'foreign', 'socket',
                                  'names'])
def test_log_that_cannot_be_opened(run, target, tmp, kind):
    """Goal: each kind of file is an error with status 6 and one line, and relay
    does not block."""
    path = tmp + '/log'
    if kind == 'link':
        os.symlink(tmp + '/to', path)
    elif kind == 'directory':
        os.mkdir(path)
    elif kind == 'fifo':
        os.mkfifo(path)
    elif kind == 'foreign':
        if os.getuid() != 0:
            pytest.skip('skipped: needs root')
        with open(path, 'w'):
            os.chown(path, FOREIGN, FOREIGN)
    elif kind == 'names':
        with open(tmp + '/precious', 'w'):
            os.link(tmp + '/precious', path)
    elif kind == 'socket':
        path = target('unix').path
    else:
        path = tmp + '/none/log'
    r = run('-E', path, '127.0.0.1:0', '1')
    assert (r.returncode, r.stdout) == (6, '') and r.stderr.count('\n') == 1
    assert path in r.stderr
    assert kind not in ('foreign', 'names') or 'another user, or has several names;' in r.stderr
    assert not os.path.exists(tmp + '/to')
    assert kind != 'names' or os.path.getsize(path) == 0


def test_log_is_a_fifo(relay, target, tmp):
    """Goal: a FIFO gets the messages.  If its reader does not read, or goes
    away, connections go on."""
    path = tmp + '/log'
    os.mkfifo(path)
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    t = target('unix')
    r = relay('-v', '-E', path, '127.0.0.1:0', *t.words)
    r.address

    def play():
        a = rig.connect(r.address)
        b = t.accept()
        ping(a, b)
        a.close()
        b.close()
    play()
    assert b'relay: ' in os.read(fd, 1 << 16)
    since = time.monotonic()
    for _ in range(1000):
        play()
    assert time.monotonic() - since < 15
    os.close(fd)
    play()
    assert r.stop() == 0 and r.err() == ''


def test_log_on_a_full_disk(relay, target, tmp, mounted):
    """Goal: if the disk is full, messages are lost, and connections go on.
    When it has room again, messages are written."""
    path = mounted(tmp + '/full', 'size=16k') + '/log'
    t = target()
    r = relay('-v', '-E', path, '127.0.0.1:0', *t.words)
    r.address

    def play(n):
        for _ in range(n):
            a, b = rig.connect(r.address), t.accept()
            ping(a, b)
            a.close()
            b.close()
    play(150)
    assert os.path.getsize(path) <= 16384
    os.truncate(path, 0)
    play(1)
    wait_for(lambda: os.path.getsize(path) > 0)
    assert r.stop() == 0 and r.err() == ''


def test_log_that_is_always_full(relay, target):
    r = relay('-v', '-E', '/dev/full', '127.0.0.1:0', *target().words)
    assert r.address
    assert r.stop() == 0 and r.err() == ''


# ---- the log of -f ----

def background(control, *words):
    """Start relay with -f; stderr is a pipe.  Return its pid and address."""
    r = control.run('-f', *words)
    assert r.returncode == 0, r.stderr
    address = r.stdout.splitlines()[0]
    return pid_of(control, address), address


def test_background(control, target):
    """Goal: with -f, later messages go to a file of mode 0600.  list prints its
    name, and the file stays after the end."""
    t = target('unix')
    pid, address = background(control, '127.0.0.1:0', *t.words)
    path = control.log(pid)
    assert control.list() == [[address, 'pid %d' % pid, 'up', t.path,
                               control.check(address)['age'][0], path]]
    t.close()
    assert rig.fate_at(address) == 'reset'
    wait_for(lambda: os.path.getsize(path) > 0)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with open(path) as f:
        assert re.match(STAMP + 'relay: ', f.read())
    assert 'ago: relay: ' in control.check(address)['event'][0]
    assert control('exit', address).returncode == 0
    wait_for(lambda: not rig.alive(pid))
    assert os.path.exists(path)


def test_background_with_log(control, target, tmp):
    """Goal: with -E, -f makes no second log."""
    pid, address = background(control, '-E', tmp + '/log', '127.0.0.1:0', *target('unix').words)
    assert control.check(address)['log'] == [tmp + '/log']
    assert not os.path.exists(control.log(pid))
    assert control('exit', pid).returncode == 0


def test_log_is_bounded(control, target):
    """Goal: the log of -f and its predecessor have at most 1 MiB."""
    t = target('unix')
    pid, address = background(control, '-v', '127.0.0.1:0', *t.words)
    path = control.log(pid)
    line = b'2026-01-01T00:00:00Z relay: ' + b'x' * 100 + b'\n'

    def fill():
        rig.quiet(pid)    # it has logged the end of the last connection
        with open(path, 'ab') as f:
            f.write(line * ((512 * 1024 - os.path.getsize(path)) // len(line)))

    def play():
        a, b = rig.connect(address), t.accept()
        ping(a, b)
        a.close()
        b.close()
    for _ in range(3):
        fill()
        play()
        play()
        wait_for(lambda: os.path.getsize(path) < 4096)
        assert os.path.getsize(path + '.old') <= 512 * 1024
    assert sorted(os.listdir(control.dir)) == sorted(
        os.path.basename(p) for p in (path, path + '.old', control.socket(pid)))
    assert control('exit', pid).returncode == 0


def test_old_logs_are_removed(control, target):
    """Goal: the start of -f removes week-old logs of ended processes, and no
    other file."""
    os.makedirs(control.dir, 0o700)
    old = time.time() - 8 * 24 * 3600
    kept = ['%s.7.log' % HOST, 'relay-0.1-Linux-x86_64-1', 'other-host.5.log', '%s.9.log' % HOST,
            '%s.9.sock' % HOST]
    gone = ['%s.5.log' % HOST, '%s.5.log.old' % HOST]
    for name in kept + gone:
        with open('%s/%s' % (control.dir, name), 'w'):
            pass
        if name != kept[0]:
            os.utime('%s/%s' % (control.dir, name), (old, old))
    pid, address = background(control, '127.0.0.1:0', *target('unix').words)
    names = os.listdir(control.dir)
    assert not set(gone) & set(names) and set(kept) <= set(names)
    assert control('exit', pid).returncode == 0
