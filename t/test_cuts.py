"""A link of several channels over two hops, cut in every way.

Bulk in both directions, keystrokes, half-closed and idle connections, and an
ssh login through -W survive: no byte is lost or doubled, and no connection is
reset.  With SLOW=1 there are 200 cuts, which take 10 to 15 minutes.
"""
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

import hosts as hosts_room
import rig
from rig import wait_for
from test_channels import Reader, further, source    # noqa: F401
from test_session import Bulk, dial, echo, exchange, read_exactly, waiters    # noqa: F401
from test_tunnel import Far, write

if hosts_room.missing():
    pytest.skip(hosts_room.missing(), allow_module_level=True)

SLOW = os.environ.get('SLOW') == '1'
ROUNDS, CUTS = 10, 20
HOPS = ('login', 'far')
# ms, Mbit/s.  Each channel has a line of its own from the first hop to the
# second one, so more channels are faster also on a busy machine.
LINE = '60 8'


@pytest.fixture(scope='module')
def hosts():
    h = hosts_room.Hosts(('login', 'node', 'end'), bare=True)
    del h.env['RELAY_KEEP']
    with open(h.dir + '/config') as f:
        config = f.read()
    write(h.dir + '/config', 'Host far\n    ProxyCommand %s -S %s/line.py %s %s - 127.0.0.1:%d\n%s'
          % (sys.executable, rig.HERE, LINE, rig.RELAY, h.ports['node'], config), 0o600)
    yield h
    h.close()


class Login:
    """An ssh login through relay -W.  The program there sends back what it
    reads."""

    def __init__(self, hosts, env):
        proxy = '%s -W 127.0.0.1:%d %s' % (rig.RELAY, hosts.ports['end'], ' '.join(HOPS))
        self.proc = hosts.popen('ssh', '-o', 'ProxyCommand=' + proxy, 'end', 'cat', env=env,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.exchange(b'in')

    def exchange(self, word):
        self.proc.stdin.write(word)
        self.proc.stdin.flush()
        assert self.proc.stdout.read(len(word)) == word

    def close(self):
        self.proc.stdin.close()
        assert self.proc.stdout.read() == b''
        assert self.proc.wait(20) == 0


class Link:
    """A link of several channels, and what passes through it."""

    def __init__(self, r, hosts, mark):
        self.r, self.hosts, self.mark = r, hosts, mark
        down, self.up = r.addresses
        self.reader = Reader(down)
        self.reader.socket.shutdown(socket.SHUT_WR)
        self.idle, self.keys = dial(self.up), dial(self.up)
        for s in (self.idle, self.keys, self.reader.socket):
            s.settimeout(150)
        exchange(self.keys, b'x')
        self.bulks = []

    def channels(self):
        """How many channels there are or start."""
        return len(self.first()) + len(further(self.r))

    def grow(self, n, seconds):
        """Wait until there are n channels.  False: not within `seconds`."""
        until = time.monotonic() + seconds
        while self.channels() < n and time.monotonic() < until:
            time.sleep(0.1)
        return self.channels() >= n

    def first(self):
        """The ssh of the first channel, which is the master of the others."""
        return [pid for pid in rig.children(self.r.pid)
                if 'ControlMaster=yes' in rig.command_line(pid)]

    def lines(self):
        return [pid for pid, line in rig.marked(self.mark).items() if line.startswith(sys.executable)]

    def sessions(self, name):
        return rig.children(self.hosts.daemons[name].pid)

    def send(self, rng):
        self.bulks.append(Bulk(self.up, rng.choice((1000, 100000, 1 << 20) if SLOW else (1000, 100000)), rng.random()))
        self.bulks[-1].socket.settimeout(150)


def kill(pids):
    for pid in pids:
        rig.kill(pid, signal.SIGKILL)


def some(pids, rng):
    return [rng.choice(pids)] if pids else []


def pause(pids, seconds):
    """Stop the processes for a while."""
    for pid in pids:
        rig.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)
    for pid in pids:
        rig.kill(pid, signal.SIGCONT)


def inner(link):
    """The ssh processes on the first hop."""
    return [pid for pid, line in rig.marked(link.mark).items()
            if re.match('ssh -F .* far ', line) and ' login ' not in line]


CUTS_OF = {
    'ssh of a channel': lambda n, rng: kill(some(further(n.r), rng) or n.first()),
    'ssh of the first channel': lambda n, rng: kill(n.first()),
    'all ssh': lambda n, rng: kill(rig.children(n.r.pid)),
    'sshd of a channel': lambda n, rng: kill(some(n.sessions('node'), rng)),
    'sshd of all channels': lambda n, rng: kill(n.sessions('node')),
    'sshd of the login': lambda n, rng: kill(n.sessions('login')),
    'all at once': lambda n, rng: kill(n.sessions('login') + rig.children(n.r.pid)
                                       + n.sessions('node')),
    'process of a channel': lambda n, rng: kill(some(waiters(n.mark), rng)),
    'silence': lambda n, rng: pause(n.lines(), rng.choice((0.5, 2))),
    'ssh is stopped': lambda n, rng: pause(n.first(), 2),
    'ssh of a second hop is stopped': lambda n, rng: pause(some(inner(n), rng), 6),
}
LONG_CUTS = {
    'silence of 60 s': lambda n, rng: pause(n.lines(), 60),
    'ssh is stopped for 50 s': lambda n, rng: pause(n.first(), 50),
}


def plan(number, rng):
    """The cuts of a round, in a random order."""
    if not SLOW:
        return ['sshd of a channel', 'process of a channel', 'all at once']
    kinds = sorted(CUTS_OF)
    cuts = [kinds[i % len(kinds)] for i in range(number * CUTS, (number + 1) * CUTS)]
    rng.shuffle(cuts)
    if number < len(LONG_CUTS):
        cuts[-1] = sorted(LONG_CUTS)[number]
    return cuts


@pytest.mark.alone
@pytest.mark.parametrize('number', range(ROUNDS if SLOW else 1))
def test_cuts(relay, hosts, source, echo, mark, tmp, number):
    """Goal: every byte arrives once and in order, and no connection is reset."""
    signal.alarm(600 if SLOW else 90)
    env = dict(Far(hosts, tmp).env, RELAY_KEEP='', **{rig.MARK: mark})
    rng = random.Random(number)
    r = relay('-v', '-j', '4', '-L', '127.0.0.1:0:' + source.address, '-L',
              '127.0.0.1:0:' + echo.address, *HOPS, env=env)
    login = Login(hosts, env)
    n = Link(r, hosts, mark)
    began = time.monotonic()
    assert n.grow(2, 40), r.err()
    print('two channels after %.1f s' % (time.monotonic() - began))
    for cut in plan(number, rng):
        if rng.random() < 0.5:
            n.grow(rng.choice((2, 4)), 4)
        n.send(rng)
        n.keys.sendall(b'in flight')
        before, at = n.channels(), time.monotonic()
        {**CUTS_OF, **LONG_CUTS}[cut](n, rng)
        assert read_exactly(n.keys, 9) == b'in flight'
        exchange(n.keys, b'afterwards')
        back = time.monotonic()
        login.exchange(rng.randbytes(5000))
        print('%6.1f s: %-30s %d channels, %5.2f s; login %5.2f; %d channels, %d MB' %
              (at - began, cut, before, back - at, time.monotonic() - at, n.channels(),
               n.reader.got >> 20))
    n.reader.finish(source)
    for b in n.bulks:
        b.join(60)
        assert b.error is None and b.got == b.total, (b.error, b.got, r.err())
    exchange(n.idle, b'still here')
    login.close()
    print('%d bytes down, %d there and back' % (n.reader.got, sum(b.total for b in n.bulks)))
    assert 'are reset' not in r.err(), r.err()
    assert r.stop() == 0
    wait_for(lambda: not rig.marked(mark), 2)


# ---- another address ----

@pytest.fixture
def roaming(hosts, tmp):
    """A network namespace with the address .2 of a net, and a host `roam` at .1:
    (the ssh for it, ip(word, ...) in the namespace, the net)."""
    name, net = 'relay%d' % os.getpid(), '198.18.%d' % (os.getpid() % 256)
    veth = 'rt%d' % (os.getpid() % 100000)

    def run(*words):
        return subprocess.run(words, stderr=subprocess.PIPE, text=True)

    def ip(*words):
        done = run('ip', '-n', name, *words)
        assert done.returncode == 0, done.stderr

    made = run('ip', 'netns', 'add', name)
    if made.returncode != 0:
        pytest.skip('skipped: no network namespace: ' + made.stderr.strip())
    try:
        made = run('ip', 'link', 'add', veth, 'type', 'veth', 'peer', 'name', 'v', 'netns', name)
        if made.returncode != 0:
            pytest.skip('skipped: no veth: ' + made.stderr.strip())
        for words in (('addr', 'add', net + '.1/24', 'dev', veth), ('link', 'set', veth, 'up')):
            assert run('ip', *words).returncode == 0
        ip('addr', 'add', net + '.2/24', 'dev', 'v')
        ip('link', 'set', 'v', 'up')
        with open(hosts.dir + '/end.conf') as f:
            text = f.read()
        port = hosts.ports['end']
        write(hosts.dir + '/roam.conf', text.replace('ListenAddress 127.0.0.1:', 'ListenAddress %s.1:' % net), 0o600)
        hosts.daemons['roam'] = hosts.popen(hosts_room.SSHD, '-D', '-f', hosts.dir + '/roam.conf')
        with open(hosts.dir + '/config') as f:
            config = f.read()
        write(tmp + '/config', 'Host roam\n    HostName %s.1\n    Port %d\n%s' % (net, port, config), 0o600)
        write(tmp + '/ssh', '#!/bin/sh\nexec ip netns exec %s ssh -F %s/config "$@"\n' % (name, tmp), 0o755)
        yield tmp + '/ssh', ip, net, run, name
        hosts.stop('roam')
        del hosts.daemons['roam']
    finally:
        run('ip', 'link', 'del', veth)
        run('ip', 'netns', 'del', name)


@pytest.mark.parametrize('how', ['reset', 'hangs'])
def test_another_address(relay, hosts, source, echo, mark, tmp, roaming, how):
    """Goal: the address of this host changes, and ssh's connection is reset or
    hangs.  The session goes on over a new login from the new address."""
    if how == 'hangs' and not SLOW:
        pytest.skip('skipped: takes a minute; set SLOW=1')
    signal.alarm(200)
    ssh, ip, net, run, name = roaming
    env = dict(Far(hosts, tmp).env, RELAY_KEEP='', RELAY_SSH=ssh, **{rig.MARK: mark})
    r = relay('-v', '-L', '127.0.0.1:0:' + source.address, '-L', '127.0.0.1:0:' + echo.address,
              'roam', env=env)
    reader, keys = Reader(r.addresses[0]), dial(r.addresses[1])
    bulk = Bulk(r.addresses[1], 16 << 20, 1)
    for s in (keys, reader.socket, bulk.socket):
        s.settimeout(150)
    exchange(keys, b'x')
    wait_for(lambda: bulk.got > 1 << 20)
    ip('addr', 'del', net + '.2/24', 'dev', 'v')
    ip('addr', 'add', net + '.3/24', 'dev', 'v')
    if how == 'reset' and run('ip', 'netns', 'exec', name, 'ss', '-K', 'dst', net + '.1').returncode != 0:
        pytest.skip('skipped: ss -K is not permitted')
    at = time.monotonic()
    keys.sendall(b'from there')
    assert read_exactly(keys, 10) == b'from there'
    print('%s: %.1f s' % (how, time.monotonic() - at))
    reader.finish(source)
    bulk.join(100)
    assert bulk.error is None and bulk.got == bulk.total, (bulk.error, r.err())
    assert 'are reset' not in r.err(), r.err()
    assert r.stop() == 0
    wait_for(lambda: not rig.marked(mark), 2)
