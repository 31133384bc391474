"""Sessions: connections that outlive the line.

The line is cut in several ways while bytes pass.  Each client compares all
bytes that it reads with those that its target has sent.
"""
import contextlib
import fcntl
import hashlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import termios
import threading
import time

import pytest

import hosts as hosts_room
import rig
from rig import far_relays, places, wait_for
from test_tunnel import Far, cable, write    # noqa: F401
from test_user import STRANGER, as_stranger

if hosts_room.missing():
    pytest.skip(hosts_room.missing(), allow_module_level=True)


@pytest.fixture(scope='module')
def hosts():
    h = hosts_room.Hosts(bare=True)
    del h.env['RELAY_KEEP']
    yield h
    h.close()


@pytest.fixture
def far(hosts, tmp):
    return Far(hosts, tmp)


@pytest.fixture
def tunnel(far, relay, mark):
    """tunnel(word, ...) starts relay, with an account on the far side."""
    def start(*words, env=(), **popen):
        e = dict(far.env, **{rig.MARK: mark}, **dict(env))
        e.setdefault('RELAY_KEEP', '')
        return relay(*words, env=e, **popen)
    return start


class Echo:
    """A TCP server that sends back what it reads, and EOF for EOF."""

    def __init__(self):
        self.socket = socket.create_server(('127.0.0.1', 0), backlog=100)
        self.address = '127.0.0.1:%d' % self.socket.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.serve, args=(self.socket.accept()[0],),
                                 daemon=True).start()

    @staticmethod
    def serve(s):
        with s, contextlib.suppress(OSError):
            while data := s.recv(65536):
                s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            s.recv(1)

    def close(self):
        self.socket.close()


@pytest.fixture
def echo():
    e = Echo()
    yield e
    e.close()


def dial(address):
    host, port = address.rsplit(':', 1)
    s = socket.create_connection((host, int(port)))
    s.settimeout(60)
    return s


def read_exactly(s, n):
    got = b''
    while len(got) < n:
        data = s.recv(n - len(got))
        assert data, 'EOF after %d of %d bytes' % (len(got), n)
        got += data
    return got


class Bulk(threading.Thread):
    """Sends `total` bytes through an echo and compares what comes back."""

    def __init__(self, address, total, seed):
        super().__init__(daemon=True)
        self.socket, self.total, self.seed = dial(address), total, seed
        self.error, self.got = None, 0
        self.start()

    def pieces(self):
        rng = random.Random(self.seed)
        left = self.total
        while left:
            n = min(left, rng.choice((1, 100, 5000, 65536)))
            yield rng.randbytes(n)
            left -= n

    def send(self):
        with contextlib.suppress(OSError):    # run() reports the loss
            for piece in self.pieces():
                self.socket.sendall(piece)
            self.socket.shutdown(socket.SHUT_WR)

    def run(self):
        try:
            sender = threading.Thread(target=self.send, daemon=True)
            sender.start()
            expected = hashlib.sha256()
            for piece in self.pieces():
                expected.update(piece)
            got = hashlib.sha256()
            while data := self.socket.recv(65536):
                got.update(data)
                self.got += len(data)
            assert self.got == self.total, '%d of %d bytes' % (self.got, self.total)
            assert got.digest() == expected.digest(), 'other bytes'
            sender.join()
        except (OSError, AssertionError) as e:
            self.error = e
        finally:
            self.socket.close()


def channel_of(r):
    """The ssh of the first hop."""
    return rig.children(r.pid)


def reconnected(r, n):
    wait_for(lambda: r.err().count('reconnected to ') >= n, 30, what='again: ' + r.err())


CUTS = {
    'ssh is killed': lambda r, hosts: [rig.kill(pid, signal.SIGKILL) for pid in channel_of(r)],
    'sshd of the first hop': lambda r, hosts: hosts.cut('login'),
    'sshd of the last hop': lambda r, hosts: hosts.cut('node'),
}


@pytest.mark.parametrize('cut', CUTS)
def test_connections_survive(tunnel, hosts, echo, cut):
    """Goal: bulk, keystrokes, half-closed and idle connections survive cuts of
    the line: no byte is lost or doubled, and no connection is reset."""
    r = tunnel('-L', '127.0.0.1:0:' + echo.address, 'login', 'node')
    address = r.address
    idle, keys, half = dial(address), dial(address), dial(address)
    half.sendall(b'all of it')
    half.shutdown(socket.SHUT_WR)
    bulks = [Bulk(address, 3 << 20, seed) for seed in range(2)]
    cuts = int(os.environ.get('CUTS', 4))
    signal.alarm(90 + 10 * cuts)
    for i in range(cuts):
        for word in (b'a', b'bc'):
            keys.sendall(word)
            assert read_exactly(keys, len(word)) == word
        keys.sendall(b'in flight')
        CUTS[cut](r, hosts)
        assert read_exactly(keys, 9) == b'in flight'
        reconnected(r, i + 1)
        bulks.append(Bulk(address, 1 << 20, 100 + i))
    assert read_exactly(half, 9) == b'all of it' and half.recv(1) == b''
    idle.sendall(b'still here')
    assert read_exactly(idle, 10) == b'still here'
    for b in bulks:
        b.join(60)
        assert b.error is None and b.got == b.total, (b.error, b.got, r.err())
    assert 'reset' not in r.err()
    assert r.stop() == 0


def test_listeners_of_R_survive(tunnel, echo):
    """Goal: the listener of -R and its connections survive."""
    r = tunnel('-R', '127.0.0.1:0:' + echo.address, 'login')
    a = dial(r.address)
    a.sendall(b'one')
    assert read_exactly(a, 3) == b'one'
    CUTS['ssh is killed'](r, None)
    b = dial(r.address)    # accepted while the line is down
    b.sendall(b'two')
    a.sendall(b'three')
    assert read_exactly(a, 5) == b'three' and read_exactly(b, 3) == b'two'
    assert r.stop() == 0


def test_stdio_survives(tunnel, hosts, echo):
    """Goal: -W, as an ssh ProxyCommand uses it, survives cuts."""
    r = tunnel('-W', echo.address, 'login', 'node', stdin=subprocess.PIPE)
    for i in range(3):
        r.proc.stdin.write(b'%d' % i)
        r.proc.stdin.flush()
        assert r.proc.stdout.read(1) == b'%d' % i
        CUTS['sshd of the last hop'](r, hosts)
    r.proc.stdin.write(b'x')
    r.proc.stdin.close()
    assert r.proc.stdout.read() == b'x'
    assert r.wait() == 0


def test_host_that_comes_back_later(tunnel, hosts, echo):
    """Goal: clients wait while the host is down, and continue when it is back."""
    r = tunnel('-L', '127.0.0.1:0:' + echo.address, 'login', 'node')
    a = dial(r.address)
    a.sendall(b'x')
    assert read_exactly(a, 1) == b'x'
    hosts.stop('login')
    r.says('; reconnecting')
    a.sendall(b'sent while it is down')
    hosts.start('login')
    dial(r.address).close()    # shortens the wait
    assert read_exactly(a, 21) == b'sent while it is down'
    assert r.stop() == 0


def test_line_that_hangs(tunnel, hosts, echo):
    """Goal: if the old channel hangs, the far side closes it when there is a new
    one, and uses the new one."""
    r = tunnel('-L', '127.0.0.1:0:' + echo.address, 'login')
    a = dial(r.address)
    a.sendall(b'x')
    assert read_exactly(a, 1) == b'x'
    ssh = channel_of(r)
    sessions = rig.children(hosts.daemons['login'].pid)
    for pid in sessions:
        os.kill(pid, signal.SIGSTOP)
    for pid in ssh:
        rig.kill(pid, signal.SIGKILL)
    try:
        a.sendall(b'y')
        assert read_exactly(a, 1) == b'y'
    finally:
        for pid in sessions:
            rig.kill(pid, signal.SIGCONT)
    assert r.stop() == 0


def test_keeper_was_killed(tunnel, far, echo, mark):
    """Goal: if the keeper is gone, the connections are reset with a message, and
    new ones work."""
    r = tunnel('-L', '127.0.0.1:0:' + echo.address, far.here())
    a = dial(r.address)
    a.sendall(b'x')
    assert read_exactly(a, 1) == b'x'
    before = places(mark)
    assert len(before) == 1
    for pid, line in rig.marked(mark).items():
        if ' -k 3600 ' in line and os.getsid(pid) == pid:
            os.kill(pid, signal.SIGKILL)
    with pytest.raises(ConnectionResetError):
        a.recv(1)
    r.says('the session on ')
    b = dial(r.address)
    b.sendall(b'new')
    assert read_exactly(b, 3) == b'new'
    assert r.stop() == 0
    assert not any(map(os.path.exists, before))    # removed by the reconnect


@pytest.mark.parametrize('keep', ['-k', 'RELAY_KEEP'])
def test_no_session(tunnel, far, echo, mark, keep):
    """Goal: with -k 0, or RELAY_KEEP=0 on the far side, no keeper runs, and a
    lost line resets the connections."""
    words = ('-k', '0') if keep == '-k' else ()
    r = tunnel(*words, '-L', '127.0.0.1:0:' + echo.address, far.here(),
               env={'RELAY_KEEP': '' if keep == '-k' else '0'})
    a = dial(r.address)
    a.sendall(b'x')
    assert read_exactly(a, 1) == b'x'
    assert not places(mark)
    CUTS['ssh is killed'](r, None)
    with pytest.raises(ConnectionResetError):
        a.recv(1)
    reconnected(r, 1)
    assert r.stop() == 0


@pytest.mark.parametrize('seconds', ['-k', 'RELAY_KEEP'])
def test_bound(tunnel, far, echo, mark, seconds):
    """Goal: a keeper ends after the seconds of -k, or of RELAY_KEEP if these are
    fewer, and nothing is left of it."""
    words = ('-k', '1') if seconds == '-k' else ()
    r = tunnel(*words, '-L', '127.0.0.1:0:' + echo.address, far.here(),
               env={'RELAY_KEEP': '' if seconds == '-k' else '1'})
    a = dial(r.address)
    a.sendall(b'x')
    assert read_exactly(a, 1) == b'x'
    place, = places(mark)
    r.kill()
    wait_for(lambda: not rig.marked(mark), 6)
    assert not os.path.exists(place)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_clean_stop(tunnel, echo, hosts, mark, number):
    """Goal: 2 s after a signal, nothing is left on any host, although megabytes
    are on their way.  A terminal sends the signal to ssh too."""
    r = tunnel('-L', '127.0.0.1:0:' + echo.address, 'login', 'node', start_new_session=True)
    b = Bulk(r.address, 200 << 20, 1)
    wait_for(lambda: b.got > 1 << 20)
    place, = places(mark)
    if number == signal.SIGTERM:
        r.proc.terminate()
    else:
        os.killpg(r.pid, number)    # as a terminal does
    assert r.wait() == 0
    wait_for(lambda: not rig.marked(mark), 2)
    assert not os.path.exists(place)
    b.join()


def test_stopped_while_the_line_is_down(tunnel, hosts, echo, mark):
    """Goal: if relay is stopped while the line is down, it reports how long the
    keeper remains."""
    r = tunnel('-k', '5', '-L', '127.0.0.1:0:' + echo.address, 'login')
    a = dial(r.address)
    a.sendall(b'x')
    assert read_exactly(a, 1) == b'x'
    hosts.stop('login')
    r.says('; reconnecting')
    assert r.stop() == 0
    assert re.search('ends by itself after [1-5] s', r.err()), r.err()
    a.close()
    wait_for(lambda: not rig.marked(mark), 11)
    hosts.start('login')


def test_keeper_is_stopped_without_a_line(tunnel, hosts, echo, tmp, mark):
    """Goal: a keeper that is stopped while the line is down removes the sockets of
    -R."""
    path = tmp + '/far.sock'
    r = tunnel('-R', path + ':' + echo.address, 'login')
    wait_for(lambda: os.path.exists(path))
    keeper = keeper_of(mark)
    hosts.stop('login')
    r.says('; reconnecting')
    wait_for(lambda: list(far_relays(mark)) == [keeper])
    rig.kill(keeper, signal.SIGTERM)
    wait_for(lambda: not far_relays(mark))
    assert not os.path.exists(path) and not places(mark)
    assert r.stop() == 0
    hosts.start('login')


def test_stopped_while_the_line_is_silent(tunnel, echo, cable, mark):
    """Goal: if a stop is not answered, relay reports how long the keeper
    remains."""
    cut, restore = cable
    r = tunnel('-k', '2', '-L', '127.0.0.1:0:' + echo.address, 'cable')
    a = dial(r.address)
    exchange(a, b'x')
    cut()
    assert r.stop(timeout=4) == 0
    assert 'ends by itself after 2 s' in r.err(), r.err()
    a.close()
    restore()
    wait_for(lambda: not rig.marked(mark), 8)


@pytest.mark.alone
@pytest.mark.skipif(os.environ.get('SLOW') != '1',
                    reason='skipped: a busy machine can add a second of silence; set SLOW=1')
def test_stop_behind_a_long_queue(tunnel, far, hosts, echo, mark, tmp):
    """Goal: after a reconnect over a slower line, many bytes are sent again.  A
    stop waits while they move, until the far side has read BYE.  A second signal
    ends the wait."""
    rates = {'narrow': '0.6', 'narrower': '0.1'}    # Mbit/s
    with open(hosts.dir + '/config') as f:
        config = f.read()
    write(tmp + '/config', 'Host %s\n    ProxyCommand %s -S %s/line.py 100 $(cat %s/%%n) %s - '
          '127.0.0.1:%d\n%s' % (' '.join(rates), sys.executable, rig.HERE, tmp, rig.RELAY,
                                hosts.ports['login'], config), 0o600)
    far.env['RELAY_SSH'] = 'ssh -F %s/config' % tmp
    for host in rates:
        write(tmp + '/' + host, '8')
    links = [tunnel('-j', '1', '-k', keep, '-L', '127.0.0.1:0:' + echo.address, host)
             for keep, host in zip(('3600', '60'), rates)]
    bulks = [Bulk(r.address, 1 << 30, 1) for r in links]
    wait_for(lambda: all(b.got > 500000 for b in bulks), 40)
    for host, rate in rates.items():
        write(tmp + '/' + host, rate)
    lines = [pid for pid, line in rig.marked(mark).items() if line.startswith(sys.executable)]
    for pid in lines:
        os.kill(pid, signal.SIGSTOP)
    for r in links:
        rig.quiet(r.pid)    # it has sent what may be in flight
    for pid in lines:
        os.kill(pid, signal.SIGKILL)
    for r in links:
        reconnected(r, 1)
        r.proc.terminate()
    threading.Event().wait(1.1)    # an earlier signal is taken for the same stop
    links[1].proc.terminate()
    assert [r.wait(12) for r in links] == [0, 0]
    assert 'ends by itself' not in links[0].err(), links[0].err()
    assert 'ends by itself after 60 s' in links[1].err(), links[1].err()
    wait_for(lambda: all(' -k 60 ' in line for line in far_relays(mark).values()), 2)
    for pid in far_relays(mark):
        rig.kill(pid, signal.SIGTERM)
    for b in bulks:
        b.join(5)


def test_claims_that_are_not_valid(tunnel, far, echo, mark):
    """Goal: a keeper ignores invalid claims, and closes their descriptors."""
    r = tunnel('-L', '127.0.0.1:0:' + echo.address, far.here())
    a = dial(r.address)
    a.sendall(b'x')
    assert read_exactly(a, 1) == b'x'
    place, = places(mark)
    assert os.stat(place).st_mode & 0o7777 == 0o700
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.connect(place + '/s')
    ends = [os.pipe() for _ in range(100)]
    for i in range(1000):
        fds = [fd for end in ends[:i % 100] for fd in end][:i % 9]
        with contextlib.suppress(BlockingIOError):
            socket.send_fds(s, [os.urandom(i % 2000 + 1)], fds)
    for pair in ends:
        os.close(pair[1])
    for pair in ends:
        os.set_blocking(pair[0], True)
        assert os.read(pair[0], 1) == b''    # no copy of the other end is left
        os.close(pair[0])
    s.close()
    a.sendall(b'y')
    assert read_exactly(a, 1) == b'y'
    assert r.stop() == 0


def test_silent_cut(tunnel, hosts, echo, cable):
    """Goal: bytes that are on their way while the line is silent arrive once.
    With SLOW=1 the silence takes 60 s, so that both sides give the line up."""
    cut, restore = cable
    slow = os.environ.get('SLOW') == '1'
    signal.alarm(300)
    r = tunnel('-L', '127.0.0.1:0:' + echo.address, 'cable')
    idle, keys = dial(r.address), dial(r.address)
    keys.settimeout(200)
    bulk = Bulk(r.address, 32 << 20, 5)
    bulk.socket.settimeout(200)
    wait_for(lambda: bulk.got > 1 << 20, 30)
    cut()
    keys.sendall(b'while it is silent')
    threading.Event().wait(60 if slow else 3)
    restore()
    assert read_exactly(keys, 18) == b'while it is silent'
    bulk.join(100)
    assert bulk.error is None and bulk.got == bulk.total, (bulk.error, bulk.got, r.err())
    exchange(idle, b'still here')
    if slow:
        reconnected(r, 1)
    assert 'reset' not in r.err()
    assert r.stop() == 0


@pytest.mark.alone
def test_first_bytes_after_a_login(tunnel, far, hosts, tmp):
    """Goal: after a reconnect, the first bytes arrive at most two round trips
    after the start of the far relay: its magic and greeting come here, and ours
    goes there in between."""
    rtt = 0.2
    with open(hosts.dir + '/config') as f:
        config = f.read()
    write(tmp + '/config', 'Host long\n    ProxyCommand %s -S %s/line.py %d 0 %s - 127.0.0.1:%d\n%s'
          % (sys.executable, rig.HERE, rtt * 1000, rig.RELAY, hosts.ports['login'], config), 0o600)
    far.env['RELAY_SSH'] = 'ssh -F %s/config' % tmp
    far.program('relay', '#!/bin/sh\ncase "$*" in *join*) date +%%s.%%N >%s/start ;; esac\n'
                'exec %s "$@"\n' % (tmp, rig.RELAY))
    with socket.create_server(('127.0.0.1', 0)) as server:
        r = tunnel('-j', '1', '-L', '127.0.0.1:0:127.0.0.1:%d' % server.getsockname()[1], 'long')
        a = dial(r.address)
        t = server.accept()[0]
        t.settimeout(60)
        trips = []
        for i in range(3):
            CUTS['ssh is killed'](r, None)
            t.sendall(b'down')
            a.sendall(b'up')
            times = []
            for s, word in ((a, b'down'), (t, b'up')):
                assert read_exactly(s, len(word)) == word
                times.append(time.time())
            with open(tmp + '/start') as f:
                start = float(f.read())
            trips.append([(t - start) / rtt for t in times])
            reconnected(r, i + 1)
        print('round trips, to here and to the target: %s' % trips)
        assert min(trips[0] for trips in trips) < 1.8
        assert min(trips[1] for trips in trips) < 2.3
        assert r.stop() == 0


def test_sleep(tunnel, echo):
    """Goal: bulk continues if the line is lost while SIGSTOP stops relay."""
    r = tunnel('-L', '127.0.0.1:0:' + echo.address, 'login')
    b = Bulk(r.address, 8 << 20, 3)
    wait_for(lambda: b.got > 100000)
    os.kill(r.pid, signal.SIGSTOP)
    CUTS['ssh is killed'](r, None)
    os.kill(r.pid, signal.SIGCONT)
    b.join(60)
    assert b.error is None and b.got == b.total, (b.error, r.err())
    assert r.stop() == 0


def test_clients_in_the_turn_of_the_loss(tunnel, echo):
    """Goal: a client that connects, and one that completes its request to -D,
    are served after the reconnect if relay reads the loss in the same turn."""
    r = tunnel('-L', '127.0.0.1:0:' + echo.address, '-D', '127.0.0.1:0', 'login')
    direct, proxy = r.addresses
    host, port = echo.address.rsplit(':', 1)
    request = b'\5\1\0\5\1\0\1' + socket.inet_aton(host) + int(port).to_bytes(2, 'big')
    a, b = dial(direct), dial(proxy)
    exchange(a, b'x')
    b.sendall(request[:-1])
    assert read_exactly(b, 2) == b'\5\0'
    ssh = channel_of(r)
    with stopped(r.pid):
        CUTS['ssh is killed'](r, None)
        wait_for(lambda: not any(map(rig.alive, ssh)))
        b.sendall(request[-1:])
        c = dial(direct)
    exchange(c, b'y')
    assert read_exactly(b, 10)[1] == 0
    exchange(b, b'z')
    exchange(a, b'x')
    assert r.stop() == 0


def keeper_of(mark):
    """The pid of the one keeper of this test."""
    pid, = rig.keepers(mark)
    return pid


def waiters(mark):
    """The processes that wait, of the channels of a hop without a host."""
    return [pid for pid in far_relays(mark) if os.getsid(pid) != pid]


def joins(mark):
    """The later processes of a session."""
    return [pid for pid, line in far_relays(mark).items() if ' -k join ' in line]


def lose(mark):
    """Cut the channel of a hop without a host."""
    for pid in waiters(mark):
        rig.kill(pid, signal.SIGKILL)


def exchange(s, word):
    s.sendall(word)
    assert read_exactly(s, len(word)) == word


@contextlib.contextmanager
def stopped(pid):
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        rig.kill(pid, signal.SIGCONT)


def cpu(pid):
    with open('/proc/%d/stat' % pid) as f:
        fields = f.read().rsplit(') ', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGKILL])
def test_process_of_the_channel_is_ended(tunnel, far, echo, mark, number):
    """Goal: a signal ends the process that waits, as any other process, and the
    connections go on over the next channel."""
    r = tunnel('-L', '127.0.0.1:0:' + echo.address, far.here())
    a = dial(r.address)
    exchange(a, b'x')
    for i in range(2):
        pid, = waiters(mark)
        os.kill(pid, number)
        wait_for(lambda: pid not in rig.marked(mark), 5)
        exchange(a, b'y')
        reconnected(r, i + 1)
    assert r.stop() == 0


def test_channel_without_reader(tunnel, far, echo, mark):
    """Goal: the process that waits ends with its channel, even while the keeper
    does not run."""
    r = tunnel('-L', '127.0.0.1:0:' + echo.address, 'login')
    a = dial(r.address)
    exchange(a, b'x')
    keeper = keeper_of(mark)
    CUTS['ssh is killed'](r, None)
    reconnected(r, 1)
    pid, = joins(mark)
    with stopped(keeper):
        CUTS['ssh is killed'](r, None)
        wait_for(lambda: pid not in rig.marked(mark), 10)
    exchange(a, b'y')
    assert r.stop() == 0


def test_idle_tunnel_that_is_cut(tunnel, far, echo, mark):
    """Goal: the session of an idle tunnel goes on too, so that a stop after the
    cut leaves no keeper behind."""
    r = tunnel('-L', '127.0.0.1:0:' + echo.address, far.here())
    with dial(r.address) as a:
        exchange(a, b'x')
    before = places(mark)
    for i in range(3):
        lose(mark)
        reconnected(r, i + 1)
        assert places(mark) == before
    assert r.stop() == 0
    wait_for(lambda: not rig.marked(mark), 2)
    assert 'reset' not in r.err()


def test_idle_session_that_ended(tunnel, far, echo, mark):
    """Goal: if no connection was open, the end of the session is not reported."""
    r = tunnel('-L', '127.0.0.1:0:' + echo.address, far.here())
    assert r.address
    keeper = keeper_of(mark)
    before = figures(keeper)[0][0]
    with dial(r.address) as a:
        exchange(a, b'x')
    wait_for(lambda: figures(keeper)[0][0] <= before, 5)
    os.kill(keeper, signal.SIGKILL)
    reconnected(r, 1)
    with dial(r.address) as a:
        exchange(a, b'x')
    assert 'the session on' not in r.err(), r.err()
    assert r.stop() == 0


def test_stopped_while_it_joins(tunnel, far, echo, mark, tmp):
    """Goal: a stop during a reconnect reports how long the keeper still remains."""
    far.program('slow', '#!/bin/sh\n[ -e %s/flag ] && exec sleep 60\nexec "$@"\n' % tmp)
    r = tunnel('-k', '5', '-L', '127.0.0.1:0:' + echo.address, far.here('slow'))
    a = dial(r.address)
    exchange(a, b'x')
    open(tmp + '/flag', 'w').close()
    lose(mark)
    wait_for(lambda: any('sleep 60' in line for line in rig.marked(mark).values()), 10)
    assert r.stop() == 0
    assert re.search('ends by itself after [1-5] s', r.err()), r.err()
    wait_for(lambda: not rig.marked(mark), 8)


LATE = """
import os, subprocess, sys, time
with subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE) as p:
    while data := os.read(0, 65536):
        if os.path.exists(sys.argv[1]):
            time.sleep(0.1)
        os.write(p.stdin.fileno(), data)
    p.stdin.close()
"""


def test_last_bytes_that_are_late(tunnel, far, echo, mark, tmp):
    """Goal: a clean stop ends the session, also if a command hop passes the last
    bytes after the near side has closed the channel."""
    with open(tmp + '/late.py', 'w') as f:
        f.write(LATE)
    r = tunnel('-L', '127.0.0.1:0:' + echo.address,
               far.here('python3 %s/late.py %s/flag' % (tmp, tmp)))
    a = dial(r.address)
    exchange(a, b'x')
    lose(mark)
    reconnected(r, 1)
    exchange(a, b'y')
    open(tmp + '/flag', 'w').close()
    assert r.stop() == 0
    wait_for(lambda: not rig.marked(mark), 5)


def test_keeper_that_is_busy(tunnel, hosts, echo, mark):
    """Goal: while the queue of the keeper's socket is full, a later process
    waits without using the processor."""
    r = tunnel('-L', '127.0.0.1:0:' + echo.address, 'login')
    a = dial(r.address)
    exchange(a, b'x')
    place, = places(mark)
    with stopped(keeper_of(mark)), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.setblocking(False)
        s.connect(place + '/s')
        with contextlib.suppress(BlockingIOError):
            while True:
                s.send(b'x')
        CUTS['ssh is killed'](r, None)
        wait_for(lambda: joins(mark), 10)
        pid, = joins(mark)
        before = cpu(pid)
        threading.Event().wait(2)
        assert cpu(pid) - before < 0.3
    exchange(a, b'y')
    assert r.stop() == 0


def figures(*pids):
    """Descriptors, and resident KiB, of each process."""
    found = []
    for pid in pids:
        with open('/proc/%d/statm' % pid) as f:
            found.append((len(os.listdir('/proc/%d/fd' % pid)), int(f.read().split()[1]) * 4))
    return found


@pytest.mark.alone
def test_soak(tunnel, far, echo, mark):
    """Goal: after many cuts under load, the memory and the descriptors of both
    sides are as at the start.  The environment can set CUTS."""
    cuts = int(os.environ.get('CUTS', 8))
    signal.alarm(90 + 10 * cuts)
    r = tunnel('-L', '127.0.0.1:0:' + echo.address, far.here())
    exchange(dial(r.address), b'x')
    keeper = keeper_of(mark)
    before = None
    for i in range(cuts + 3):
        bulks = [Bulk(r.address, 8 << 20, i * 10 + k) for k in range(3)]
        wait_for(lambda: all(b.got > 1 << 20 for b in bulks), 30)
        lose(mark)
        reconnected(r, i + 1)
        for b in bulks:
            b.join(60)
            assert b.error is None and b.got == b.total, (b.error, r.err())
        if i == 2:
            before = figures(r.pid, keeper)
    wait_for(lambda: all(n <= m for (n, _), (m, _) in zip(figures(r.pid, keeper), before)), 5)
    after = figures(r.pid, keeper)
    print('%d cuts: near and keeper (descriptors, KiB): %s, then %s' % (cuts, before, after))
    if not rig.SANITIZED:
        for (_, old), (_, new) in zip(before, after):
            assert new < old + 4096, (before, after)
    assert 'reset' not in r.err()
    assert r.stop() == 0


MAGIC = bytes.fromhex('00f272654c41796c696e6b0d0a0afe00')


def tapped(tunnel, far, echo, mark, tmp):
    """A tunnel that has joined its session once: (relay, a client, the greeting
    of this join)."""
    # sh closes stdout, so that the end of the channel is seen at once
    far.program('tap', '#!/bin/sh\nexec 3<&0\ntee -a %s/sent <&3 3<&- | "$@" 3<&- &\n'
                'exec <&- >&- 3<&-\nwait\n' % tmp)
    r = tunnel('-L', '127.0.0.1:0:' + echo.address, far.here('tap'))
    a = dial(r.address)
    exchange(a, b'x')
    lose(mark)
    reconnected(r, 1)
    exchange(a, b'y')
    with open(tmp + '/sent', 'rb') as f:
        sent = f.read().rsplit(MAGIC, 1)[1]
    n = 8 + int.from_bytes(sent[1:4], 'big')
    assert sent[n] == 128 and sent[n + 8] == 2    # SESSION, join
    return r, a, MAGIC + sent[:n + 8 + 36]


class Talk(threading.Thread):
    """Sends bytes to an echo and reads them back, until `over`."""

    def __init__(self, client):
        super().__init__(daemon=True)
        self.client, self.over, self.turns, self.error = client, threading.Event(), 0, None
        self.start()

    def run(self):
        try:
            while not self.over.wait(0.01):
                exchange(self.client, b'%d' % self.turns)
                self.turns += 1
        except (OSError, AssertionError) as e:
            self.error = e

    def finish(self):
        self.over.set()
        self.join(30)
        assert not self.is_alive() and self.error is None, self.error


@pytest.mark.alone
def test_claims_without_end(tunnel, far, echo, mark, tmp):
    """Goal: an old claim that is sent again is refused.  Thousands of claims a
    second take little processor time each.  Meanwhile the keeper has no more
    memory and descriptors than before, and a connection continues."""
    r, a, old = tapped(tunnel, far, echo, mark, tmp)
    keeper = keeper_of(mark)
    place, = places(mark)
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.settimeout(rig.PATIENCE)
    s.connect(place + '/s')

    def send(data):
        ours, theirs = os.pipe()
        socket.send_fds(s, [data], [theirs] * 4)
        os.close(theirs)
        return ours

    for i in range(30):
        fd = send(old)
        assert os.read(fd, 1) == b''    # refused: all four are closed
        os.close(fd)
    (files, memory), = figures(keeper)
    most_files, most_memory = files, memory
    talk = Talk(a)
    began, used, count = time.monotonic(), cpu(keeper), 0
    while time.monotonic() < began + 3 or talk.turns < 50:
        assert time.monotonic() < began + 30 and talk.error is None, (talk.turns, talk.error)
        for data in (old, old[:-1], MAGIC, b'', os.urandom(1024), os.urandom(5000)):
            os.close(send(data))
            count += 1
        (files_now, memory_now), = figures(keeper)
        most_files, most_memory = max(most_files, files_now), max(most_memory, memory_now)
    used, seconds = cpu(keeper) - used, time.monotonic() - began
    talk.finish()
    print('%d claims a second, %.1f us of the processor for each; %d echoes; %d more descriptors, '
          '%d KiB more' % (count / seconds, used / count * 1e6, talk.turns, most_files - files,
                           most_memory - memory))
    assert used < count * 0.0005 + talk.turns * 0.001
    assert most_files <= files + 4    # those of one claim
    # the sanitizers keep freed memory for a while
    assert rig.SANITIZED or most_memory < memory + 1024
    wait_for(lambda: figures(keeper)[0][0] == files, 5)
    s.close()
    assert r.stop() == 0


def test_stderr_that_is_closed(tunnel, far, echo, mark):
    """Goal: a keeper and its later processes work with a closed stderr."""
    far.program('mute', '#!/bin/sh\nexec "$@" 2>&-\n')
    r = tunnel('-L', '127.0.0.1:0:' + echo.address, far.here('mute'))
    a = dial(r.address)
    for i in range(3):
        exchange(a, b'x')
        lose(mark)
        reconnected(r, i + 1)
    exchange(a, b'y')
    assert places(mark)
    assert r.stop() == 0


def place_of(uid, name):
    """A directory for a session of that user, as a keeper makes it."""
    path = '/tmp/relay-' + name
    os.mkdir(path, 0o700)
    os.chown(path, uid, uid)
    return path


class OldKeeper:
    """A keeper that does not know questions, and closes their descriptors."""

    def __init__(self, uid, name):
        self.place = place_of(uid, name)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.place + '/s')
        os.chown(self.place + '/s', uid, uid)
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while True:
            data, fds, _, _ = socket.recv_fds(self.socket, 1024, 4)
            for fd in fds:
                os.close(fd)
            if not data:
                return

    def close(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.sendto(b'', self.place + '/s')
        self.thread.join()
        self.socket.close()
        shutil.rmtree(self.place)


@pytest.fixture
def sessions(far):
    """sessions(word, ...): the sessions that relay -n lists: {name: text}.  They
    are those of a user of this test alone."""
    if os.geteuid() != 0:
        pytest.skip('skipped: needs root')
    far.user()

    def run(*words):
        out = subprocess.run([rig.RELAY, '-n', *words, far.here()], env=far.env, timeout=30,
                             stdout=subprocess.PIPE, text=True)
        assert out.returncode == 0 and 'FAIL' not in out.stdout, out.stdout
        lines = [line.split(' session ')[1] for line in out.stdout.splitlines()
                 if ' session ' in line]
        return dict(line.split(': ', 1) for line in lines)
    return run


def test_list(tunnel, far, echo, mark, sessions):
    """Goal: relay -n lists the sessions of this user on the last hop, also those
    of another version of relay.  It removes what killed keepers left."""
    uid, host = int(far.env['FAR_UID']), socket.gethostname()
    assert sessions() == {}
    old, young, dead = ('%016x' % (uid << 20 | i) for i in range(3))
    keeper = OldKeeper(uid, old)
    try:
        young, dead = place_of(uid, young), place_of(uid, dead)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.bind(dead + '/s')
        os.chown(dead + '/s', uid, uid)
        r = tunnel('-k', '600', '-L', '127.0.0.1:0:' + echo.address, far.here())
        a = dial(r.address)
        exchange(a, b'x')
        place, = places(mark)
        name = place.split('-')[1]
        got = sessions()
        assert set(got) == {name, old}
        assert re.fullmatch('[0-9]+ s old, from %s, 1 connections' % re.escape(host), got[name])
        assert got[old].endswith(' old, its relay does not answer')
        assert not os.path.exists(dead)
        assert os.path.exists(young)    # its keeper may be about to make the socket
        os.utime(young, (1, 1))
        r.kill()
        lose(mark)
        wait_for(lambda: 'without a line' in sessions()[name])
        assert re.fullmatch('.*, without a line for [0-9]+ s, ends in [0-9]+ s', sessions()[name])
        assert not os.path.exists(young)
    finally:
        keeper.close()
    assert set(sessions('-k', '0')) == {name}
    wait_for(lambda: not rig.marked(mark), 5)
    assert sessions() == {} and not os.path.exists(place)


def test_end(tunnel, far, echo, mark, sessions):
    """Goal: relay -n -k SECONDS ends the sessions that have had no line for so
    long, and no other one."""
    kept = [tunnel('-L', '127.0.0.1:0:' + echo.address, far.here()) for _ in range(2)]
    clients = [dial(r.address) for r in kept]
    for a in clients:
        exchange(a, b'x')
    before = places(mark)
    assert all('1 connections' in text for text in sessions('-k', '0').values())
    assert places(mark) == before
    kept[1].kill()
    wait_for(lambda: sum('without a line' in text for text in sessions('-k', '1000').values()) == 1)
    ended = [text for text in sessions('-k', '0').values() if text.endswith(', now ended')]
    assert len(ended) == 1
    wait_for(lambda: len(sessions()) == 1)
    exchange(clients[0], b'y')
    assert kept[0].stop() == 0
    assert sessions() == {}


def test_directory_of_a_tunnel(tunnel, far, echo, mark, sessions):
    """Goal: the directory of a COMMAND, "@/", is not listed as a session, and
    its sockets stay."""
    r = tunnel('-k', '60', '-L', '127.0.0.1:0:@/s', far.here(), '--', sys.executable, '-c',
               'import os, socket, sys, time\n'
               's = socket.socket(socket.AF_UNIX)\n'
               's.bind(sys.argv[1])\n'
               'print("bound", sys.argv[1], flush=True)\n'
               'time.sleep(100)', '@/s')
    path = r.says('bound ').split()[-1]
    place, = places(mark) - {os.path.dirname(path)}
    assert set(sessions('-k', '0')) == {place.split('-')[-1]}
    assert os.path.exists(path)
    assert r.stop() in (0, 128 + signal.SIGTERM), r.err()


def test_keeper_that_hangs(tunnel, far, echo, mark, sessions):
    """Goal: a keeper that does not run is listed too."""
    r = tunnel('-L', '127.0.0.1:0:' + echo.address, far.here())
    exchange(dial(r.address), b'x')
    keeper = keeper_of(mark)
    os.kill(keeper, signal.SIGSTOP)
    try:
        text, = sessions('-k', '0').values()
        assert text.endswith('does not answer')
    finally:
        os.kill(keeper, signal.SIGCONT)
    assert r.stop() == 0


NO_SESSION = {
    'no process more': 'exec prlimit --nproc=0:0 %s "$@"',
    '/tmp cannot be written':
        "exec unshare -m sh -c 'mount -t tmpfs -o ro none /tmp && exec \"$0\" \"$@\"' %s \"$@\"",
    '/tmp is full':
        "exec unshare -m sh -c 'mount -t tmpfs -o nr_inodes=1 none /tmp && exec \"$0\" \"$@\"' "
        '%s "$@"',
}


@pytest.mark.parametrize('what', NO_SESSION)
def test_no_session_can_be_kept(tunnel, far, echo, what):
    """Goal: where no keeper can live, relay works without one and reports it."""
    if os.geteuid() != 0:
        pytest.skip('skipped: needs root')
    if what == 'no process more' and rig.SANITIZED:
        pytest.skip('skipped: LeakSanitizer needs a process')
    if what.startswith('/tmp') and subprocess.run(
            ['unshare', '-m', 'mount', '-t', 'tmpfs', '-o', 'ro', 'none', '/mnt'],
            stderr=subprocess.DEVNULL).returncode != 0:
        pytest.skip('skipped: tmpfs cannot be mounted')
    far.program('relay', '#!/bin/sh\n%s\n' % NO_SESSION[what] % rig.RELAY)
    if what == 'no process more':
        far.user()
    r = tunnel('-L', '127.0.0.1:0:' + echo.address, far.here())
    r.says('the last hop cannot keep a session: ')
    a = dial(r.address)
    exchange(a, b'x')
    assert r.stop() == 0


def test_background(tunnel, hosts, echo, mark, tmp):
    """Goal: connections of a relay in the background survive too."""
    r = tunnel('-f', '-P', tmp + '/pid', '-L', '127.0.0.1:0:' + echo.address, 'login')
    address = r.address
    assert r.wait() == 0
    with open(tmp + '/pid') as f:
        pid = int(f.read())
    a = dial(address)
    exchange(a, b'x')
    for ssh in rig.children(pid):
        rig.kill(ssh, signal.SIGKILL)
    exchange(a, b'y')
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not rig.marked(mark), 3)


def test_proxy_while_the_line_is_down(tunnel, hosts, echo):
    """Goal: a client of -D that comes while the line is down is served later."""
    r = tunnel('-D', '127.0.0.1:0', 'login')
    port = int(echo.address.rsplit(':', 1)[1])
    request = b'\5\1\0' + b'\5\1\0\1\x7f\0\0\1' + port.to_bytes(2, 'big')
    a = dial(r.address)
    a.sendall(request + b'x')
    assert read_exactly(a, 13)[-1:] == b'x'
    hosts.stop('login')
    r.says('; reconnecting')
    b = dial(r.address)
    b.sendall(request + b'y')
    a.sendall(b'z')
    hosts.start('login')
    assert read_exactly(b, 13)[-1:] == b'y'
    assert read_exactly(a, 1) == b'z'
    assert r.stop() == 0


def test_client_that_ends_while_the_line_is_down(tunnel, hosts, echo):
    """Goal: with -W, relay ends when its client ends, also without a line."""
    r = tunnel('-k', '3', '-W', echo.address, 'login', stdin=subprocess.PIPE)
    r.proc.stdin.write(b'x')
    r.proc.stdin.flush()
    assert r.proc.stdout.read(1) == b'x'
    hosts.stop('login')
    r.says('; reconnecting')
    r.proc.stdin.close()
    r.proc.stdout.close()
    try:
        assert r.wait(20) != 0
    finally:
        hosts.start('login')


def test_binary_was_replaced(tunnel, far, echo, mark):
    """Goal: a session goes on although relay there was replaced meanwhile."""
    def install():
        shutil.copy(rig.RELAY, far.bin + '/new')
        os.rename(far.bin + '/new', far.bin + '/relay')
    install()
    r = tunnel('-L', '127.0.0.1:0:' + echo.address, far.here())
    a = dial(r.address)
    for i in range(2):
        exchange(a, b'x')
        install()
        lose(mark)
        reconnected(r, i + 1)
    exchange(a, b'y')
    assert r.stop() == 0


def lose_home(how, far):
    if how == 'moved':
        os.rename(far.home, far.home + '.away')
    elif how == 'forbidden':
        os.chown(far.home, 0, 0)
        os.chmod(far.home, 0)
    else:
        subprocess.run(['umount', '-l', far.home], check=True)


@pytest.mark.parametrize('how, hop', [('moved', 'login'), ('forbidden', 'here'),
                                      ('unmounted', 'login')])
def test_home_that_is_lost(tunnel, far, echo, mark, hosts, how, hop):
    """Goal: a session outlives the home directory, where relay was copied to,
    and a cut after it."""
    uid = far.user()
    own = '/tmp/relay-%d' % uid
    if how == 'unmounted':
        if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'uid=%d' % uid, 'none', far.home],
                          stderr=subprocess.DEVNULL).returncode != 0:
            pytest.skip('skipped: mount is not permitted')
    r = tunnel('-L', '127.0.0.1:0:' + echo.address, hop if hop == 'login' else far.here())
    a = dial(r.address)
    b = Bulk(r.address, 20 << 20, 1)
    exchange(a, b'x')
    assert os.path.exists(far.cache)
    lose_home(how, far)
    try:
        for i in range(2):
            if hop == 'login':
                hosts.cut('login')
            else:
                lose(mark)
            exchange(a, b'y')
            reconnected(r, i + 1)
        b.join(60)
        assert b.error is None and b.got == b.total, (b.error, r.err())
        with dial(r.address) as c:
            exchange(c, b'z')
        assert 'reset' not in r.err(), r.err()
        assert r.stop() == 0
        wait_for(lambda: not rig.marked(mark), 2)
    finally:
        if how == 'moved':
            os.rename(far.home + '.away', far.home)
        shutil.rmtree(own, ignore_errors=True)


def test_name_that_leads_to_another_host(tunnel, far, echo, mark):
    """Goal: if the reconnect leads to a host without the session, connections
    are reset with a message, and new ones work."""
    r = tunnel('-k', '2', '-L', '127.0.0.1:0:' + echo.address, far.here())
    a = dial(r.address)
    exchange(a, b'x')
    place, = places(mark)
    os.rename(place, place + '.away')
    try:
        lose(mark)
        with pytest.raises(ConnectionResetError):
            a.recv(1)
        r.says('the session on ')
        b = dial(r.address)
        exchange(b, b'y')
        assert r.stop() == 0
        wait_for(lambda: not rig.marked(mark), 8)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place + '.away/s')
        os.rmdir(place + '.away')


# ---- other users ----

def test_keeper_and_another_user(tunnel, far, echo, mark, tmp):
    """Goal: another user sees the name of a session, but cannot reach its keeper
    or remove it: a claim has no uid, so only the directory prevents this.  With a
    copy of the greeting, that user cannot join.  A second join with the same
    greeting does not work for this user either."""
    uid = far.user()
    r, a, greeting = tapped(tunnel, far, echo, mark, tmp)
    place, = places(mark)
    assert as_stranger(lambda: os.path.basename(place) in os.listdir('/tmp')) == 'True'
    for attempt in (lambda: os.listdir(place), lambda: connect_datagram(place + '/s'),
                    lambda: send_datagram(place + '/s'), lambda: os.stat(place + '/s'),
                    lambda: os.lstat(place + '/s'), lambda: os.lstat(place + '/none'),
                    lambda: os.link(place + '/s', place + '.link'),
                    lambda: os.unlink(place + '/s'), lambda: os.rename(place, place + 'x'),
                    lambda: os.rmdir(place), lambda: os.chmod(place, 0o777)):
        assert as_stranger(attempt) == 'PermissionError'
    shutil.copy(rig.RELAY, tmp + '/relay')    # every user can reach it
    later = greeting[:-32] + b'\0\0\0\x63' + greeting[-28:]    # another generation
    for user, sent, status in ((STRANGER, later, 0), (uid, greeting, 7)):
        join = subprocess.run([tmp + '/relay', '-k', 'join', '-m', '-'], input=sent, timeout=10,
                              stdout=subprocess.PIPE, user=user, group=user, extra_groups=[])
        assert join.returncode == status
        kind = join.stdout[-36:-35]
        assert kind == (b'\3' if user == STRANGER else b'')    # gone
    exchange(a, b'z')
    assert r.stop() == 0


def connect_datagram(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.connect(path)


def send_datagram(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(b'x', path)


@contextlib.contextmanager
def taken(place, how, uid, tmp):
    """Another user has taken `place`: with a directory, or with a link to a
    directory of uid.  The socket there must get nothing, and must stay."""
    path = tmp + '/own' if how == 'link' else place
    os.mkdir(path, 0o700)
    if how == 'link':
        os.symlink(path, place)
        os.chown(path, uid, uid)
    elif how == 'directory':
        os.chmod(path, 0o777)
    os.chown(place, STRANGER, STRANGER, follow_symlinks=False)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(path + '/s')
        os.chmod(path + '/s', 0o777)
        s.setblocking(False)
        try:
            yield
            assert os.listdir(path) == ['s'] and os.lstat(place).st_uid == STRANGER
            with pytest.raises(BlockingIOError):
                s.recv(1)
        finally:
            if how == 'link':
                os.unlink(place)
            shutil.rmtree(path)


HOW = ['directory', 'private directory', 'link']


def session_is_replaced(r, a):
    """Connection a is reset with a message of the tunnel r, and a new one works."""
    with pytest.raises(ConnectionResetError):
        a.recv(1)
    r.says('the session on ')
    with dial(r.address) as b:
        exchange(b, b'y')


@pytest.mark.parametrize('how', HOW)
def test_place_of_another_user(tunnel, far, echo, mark, tmp, how):
    """Goal: if another user has taken the place of a keeper, nothing is sent
    there.  The connections are reset with a message, and new ones work."""
    uid = far.user()
    r = tunnel('-k', '2', '-L', '127.0.0.1:0:' + echo.address, far.here())
    a = dial(r.address)
    exchange(a, b'x')
    place, = places(mark)
    shutil.rmtree(place)
    with taken(place, how, uid, tmp):
        lose(mark)
        session_is_replaced(r, a)
        assert r.stop() == 0
        wait_for(lambda: not rig.marked(mark), 8)


@pytest.mark.parametrize('mode', [0o701, 0o777], ids=oct)
def test_place_with_another_mode(tunnel, far, echo, mark, mode):
    """Goal: if other users can reach the place of a keeper, no later process uses
    it.  The connections are reset with a message, and new ones work."""
    far.user()
    r = tunnel('-k', '2', '-L', '127.0.0.1:0:' + echo.address, far.here())
    a = dial(r.address)
    exchange(a, b'x')
    place, = places(mark)
    os.chmod(place, mode)
    try:
        lose(mark)
        session_is_replaced(r, a)
        other, = places(mark) - {place}
        assert os.stat(other).st_mode & 0o7777 == 0o700
        assert r.stop() == 0
        wait_for(lambda: not rig.marked(mark), 8)
        assert os.listdir(place) == ['s']
    finally:
        shutil.rmtree(place)


@pytest.mark.skipif(not shutil.which('strace') or rig.SANITIZED,
                    reason='skipped: no strace (apt-get install strace), or LeakSanitizer')
@pytest.mark.parametrize('call, how', [('connect', 'directory'), ('?unlink,unlinkat', 'link')])
def test_place_that_is_taken_meanwhile(tunnel, far, echo, mark, tmp, call, how):
    """Goal: the same if the other user takes it while a later process connects,
    or while it removes what a killed keeper left."""
    uid = far.user()
    far.program('relay', '#!/bin/sh\ncase "$*" in *join*) set -- strace -qq -o /dev/null '
                '-e trace=%s -e inject=%s:delay_enter=3000000 %s "$@" ;;\n'
                '*) set -- %s "$@" ;; esac\nexec "$@"\n' % (call, call, rig.RELAY, rig.RELAY))
    r = tunnel('-k', '2', '-L', '127.0.0.1:0:' + echo.address, far.here())
    a = dial(r.address)
    exchange(a, b'x')
    place, = places(mark)
    if call == 'connect':
        lose(mark)
    else:
        rig.kill(keeper_of(mark), signal.SIGKILL)

    def waiting():
        return [pid for pid, line in rig.marked(mark).items()
                if line.endswith(' -k join -m -') and not line.startswith('strace')
                and rig.stat_of(pid)[0] == 't']
    wait_for(lambda: waiting() and not time.sleep(0.3) and waiting(), 10)
    shutil.rmtree(place)
    with taken(place, how, uid, tmp):
        session_is_replaced(r, a)
        assert r.stop() == 0
        wait_for(lambda: not rig.marked(mark), 8)


@pytest.mark.parametrize('how', HOW + ['dangling', 'own'])
def test_name_of_another_user(tunnel, far, echo, tmp, how):
    """Goal: if the name that a new keeper selects is taken, relay works without a
    keeper and reports it.  A directory of its own user is not used either."""
    name = os.urandom(16)
    write(tmp + '/random', name)
    place = '/tmp/relay-' + name[:8].hex()
    if subprocess.run(['unshare', '-m', 'mount', '--bind', tmp + '/random', '/dev/urandom'],
                      stderr=subprocess.DEVNULL).returncode != 0:
        pytest.skip('skipped: mount is not permitted')
    far.program('relay', '#!/bin/sh\nexec unshare -m sh -c \'mount --bind %s/random /dev/urandom '
                '&& exec "$0" "$@"\' %s "$@"\n' % (tmp, rig.RELAY))
    with contextlib.ExitStack() as stack:
        if how == 'dangling':
            os.symlink(place + '.not', place)
            stack.callback(os.unlink, place)
        elif how == 'own':
            os.mkdir(place, 0o700)
            stack.callback(os.rmdir, place)
        else:
            stack.enter_context(taken(place, how, 0, tmp))
        r = tunnel('-L', '127.0.0.1:0:' + echo.address, far.here())
        r.says('the last hop cannot keep a session: File exists')
        with dial(r.address) as a:
            exchange(a, b'x')
        assert r.stop() == 0


@pytest.mark.parametrize('how', HOW)
def test_list_without_another_user(sessions, far, tmp, how):
    """Goal: relay -n asks no socket of another user, and removes nothing."""
    uid = int(far.env['FAR_UID'])
    with taken('/tmp/relay-%016x' % (uid << 20), how, uid, tmp):
        assert sessions('-k', '0') == {}


# ---- logins that are refused ----

# What ssh prints if a login is refused.
REFUSALS = {
    'too many keys': 'Received disconnect from 127.0.0.1 port 22:2: Too many authentication failures\n'
                     'Disconnected from 127.0.0.1 port 22\n',
    'of a ProxyJump': 'me@login: Permission denied (publickey).\n'
                      'kex_exchange_identification: Connection closed by remote host\n'
                      'Connection closed by UNKNOWN port 65535\n',
    'no job': 'Access denied by pam_slurm_adopt: you have no active jobs on this node\n'
              'Connection closed by 10.0.0.1 port 22\n',
}


@pytest.fixture
def doubtful(far, hosts, tmp):
    """Yields a path: while it exists, the login to the host `doubt` is refused,
    and ssh prints that file.  The second path collects the number of logins."""
    with open(hosts.dir + '/config') as f:
        config = f.read()
    refusing, logins = tmp + '/refusing', tmp + '/logins'
    text = '''#!/bin/sh
case $1 in -G | -V) exec ssh -F %s "$@" ;; esac
echo "$*" >>%s
if [ -e %s ]; then
    cat %s >&2
    exit 255
fi
exec ssh -F %s "$@"
''' % (tmp + '/config', logins, refusing, refusing, tmp + '/config')
    with open(tmp + '/config', 'w') as f:
        f.write('Host doubt\n    HostName 127.0.0.1\n    Port %d\n%s'
                % (hosts.ports['login'], config))
    os.mkdir(tmp + '/near')
    with open(tmp + '/near/ssh', 'w') as f:
        f.write(text)
    os.chmod(tmp + '/near/ssh', 0o755)
    far.env['RELAY_SSH'] = tmp + '/near/ssh'
    return refusing, logins


def count(path):
    with open(path) as f:
        return len(f.readlines())


def test_refused_login(tunnel, echo, doubtful):
    """Goal: after a refused login relay makes no other one by itself, whatever
    clients do.  relay -O check requests one, and the connections continue."""
    refusing, logins = doubtful
    r = tunnel('-L', '127.0.0.1:0:' + echo.address, 'doubt')
    a = dial(r.address)
    a.sendall(b'x')
    assert read_exactly(a, 1) == b'x'
    with open(logins) as f:
        assert 'BatchMode' not in f.read()
    write(refusing, REFUSALS['too many keys'])
    CUTS['ssh is killed'](r, None)
    r.says('for another login press Enter')
    made = count(logins)
    clients = [dial(r.address) for _ in range(3)]    # they would shorten the wait
    rig.quiet(r.pid)
    assert count(logins) == made == 2
    with open(logins) as f:
        assert 'BatchMode=yes' in f.readlines()[1]
    check = subprocess.run([rig.RELAY, '-O', 'check', str(r.pid)], stdout=subprocess.PIPE,
                           text=True, env=rig.environ_with(r.pid), check=True)
    assert 'login refused' in check.stdout
    wait_for(lambda: r.err().count('for another login') == 2, what=r.err())
    assert count(logins) == 3
    os.unlink(refusing)
    subprocess.run([rig.RELAY, '-O', 'check', str(r.pid)], stdout=subprocess.DEVNULL,
                   env=rig.environ_with(r.pid), check=True)
    a.sendall(b'y')
    assert read_exactly(a, 1) == b'y'
    with open(logins) as f:
        assert 'BatchMode' not in f.readlines()[3]    # a person is there
    for c in clients:
        c.sendall(b'z')
        assert read_exactly(c, 1) == b'z'
    assert r.stop() == 0


@pytest.mark.parametrize('text', REFUSALS)
def test_refused_start(relay, far, doubtful, text):
    """Goal: a line of ssh after the refusal does not hide it."""
    write(doubtful[0], REFUSALS[text])
    r = relay('-L', '127.0.0.1:0:/a', 'doubt', env=far.env)
    lines = r.err().splitlines() if r.wait() == 8 else []
    cause = REFUSALS[text].split('\n')[0].rstrip('.')
    assert len(lines) == 2 and cause in lines[1] and '; ' in lines[1], r.err()


def test_refused_login_of_W(tunnel, echo, doubtful):
    """Goal: with -W no person can request a login, so relay ends with the cause."""
    refusing, logins = doubtful
    r = tunnel('-k', '1', '-W', echo.address, 'doubt', stdin=subprocess.PIPE)
    r.proc.stdin.write(b'x')
    r.proc.stdin.flush()
    assert r.proc.stdout.read(1) == b'x'
    write(refusing, REFUSALS['of a ProxyJump'])
    CUTS['ssh is killed'](r, None)
    assert r.wait() == 4
    assert 'Permission denied' in r.err(), r.err()
    assert 'Enter' not in r.err() and count(logins) == 2


def test_enter_requests_a_login(tunnel, echo, doubtful):
    """Goal: Enter at relay's terminal requests another login."""
    refusing, _ = doubtful
    ours, theirs = os.openpty()
    r = tunnel('-L', '127.0.0.1:0:' + echo.address, 'doubt', stdin=theirs, start_new_session=True,
               preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
    os.close(theirs)
    a = dial(r.address)
    a.sendall(b'x')
    assert read_exactly(a, 1) == b'x'
    write(refusing, REFUSALS['no job'])
    CUTS['ssh is killed'](r, None)
    r.says('for another login press Enter')
    os.unlink(refusing)
    rig.quiet(r.pid)
    os.write(ours, b'\n')
    a.sendall(b'y')
    assert read_exactly(a, 1) == b'y'
    assert r.stop() == 0
    os.close(ours)


def test_target_that_resets_while_the_line_is_down(tunnel, hosts, mark):
    """Goal: a reset behind bytes that wait for the line costs no processor."""
    server = socket.create_server(('127.0.0.1', 0))
    r = tunnel('-L', '127.0.0.1:0:127.0.0.1:%d' % server.getsockname()[1], 'login')
    a = dial(r.address)
    t = server.accept()[0]
    a.sendall(b'x')
    assert read_exactly(t, 1) == b'x'
    keeper = keeper_of(mark)
    hosts.stop('login')
    r.says('; reconnecting')
    t.sendall(b'sent before the reset')
    threading.Event().wait(0.2)
    t.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0')
    t.close()
    before = cpu(keeper), cpu(r.pid)
    threading.Event().wait(3)
    used = cpu(keeper) - before[0], cpu(r.pid) - before[1]
    hosts.start('login')
    assert max(used) < 0.5, used
    dial(r.address).close()
    assert read_exactly(a, 21) == b'sent before the reset'
    with pytest.raises(ConnectionResetError):
        a.recv(1)
    assert r.stop() == 0
