"""Several channels of one link: ssh sessions that share one login.

On a line with a round trip of 200 ms, an ssh session carries 10 MB/s, so bulk
needs more channels.
"""
import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest

import hosts as hosts_room
import rig
from rig import wait_for
from test_session import cpu, dial, echo, exchange, far_relays, keeper_of, read_exactly    # noqa: F401
from test_tunnel import Far, write
from test_versions import old, posing, version_of    # noqa: F401

if hosts_room.missing():
    pytest.skip(hosts_room.missing(), allow_module_level=True)

# ms, Mbit/s
LONG = '200 1600'
SLOW = '20 40'
PIECE = random.Random(1).randbytes(1 << 20)
TWICE = memoryview(PIECE * 2)


@pytest.fixture(scope='module')
def hosts():
    h = hosts_room.Hosts(('login', 'node', 'few'), bare=True)
    del h.env['RELAY_KEEP']
    h.stop('few')
    path = h.dir + '/few.conf'
    with open(path) as f:
        text = f.read()
    write(path, text.replace('MaxSessions 100', 'MaxSessions 1'), 0o600)
    h.start('few')
    with open(h.dir + '/config') as f:
        config = f.read()
    own = '    ControlMaster auto\n    ControlPath %s/own-%%C\n' % h.dir
    lines = ''.join('Host %s\n    ProxyCommand %s -S %s/line.py %s %s - 127.0.0.1:%d\n%s'
                    % (name, sys.executable, rig.HERE, line, rig.RELAY, h.ports[host], more)
                    for name, line, host, more in (
                        ('long-login', LONG, 'login', ''), ('long-own', LONG, 'login', own),
                        ('slow-login', SLOW, 'login', ''), ('slow-few', SLOW, 'few', '')))
    write(h.dir + '/config', lines + config, 0o600)
    yield h
    h.close()


@pytest.fixture
def far(hosts, tmp):
    return Far(hosts, tmp)


@pytest.fixture
def tunnel(far, relay, mark):
    """tunnel(word, ...) starts relay -v, with an account on the far side."""
    def start(*words, **popen):
        return relay('-v', *words, env=dict(far.env, RELAY_KEEP='', **{rig.MARK: mark}), **popen)
    return start


class Source:
    """A TCP server that sends PIECE until `stop`, and then EOF.  Reader checks
    the bytes."""

    def __init__(self):
        self.socket = socket.create_server(('127.0.0.1', 0), backlog=100)
        self.address = '127.0.0.1:%d' % self.socket.getsockname()[1]
        self.stopped = threading.Event()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.serve, args=(self.socket.accept()[0],),
                                 daemon=True).start()

    def serve(self, s):
        with s, contextlib.suppress(OSError):
            while not self.stopped.is_set():
                s.sendall(PIECE)
            s.shutdown(socket.SHUT_WR)
            s.recv(1)


@pytest.fixture
def source():
    s = Source()
    yield s
    s.stopped.set()
    s.socket.close()


class Reader(threading.Thread):
    """Reads from a Source until EOF, and compares."""

    def __init__(self, address):
        super().__init__(daemon=True)
        self.socket, self.got, self.error = dial(address), 0, None
        self.start()

    def run(self):
        try:
            while data := self.socket.recv(1 << 18):
                at = self.got % len(PIECE)
                assert TWICE[at:at + len(data)] == data, 'other bytes at %d' % self.got
                self.got += len(data)
            assert self.got % len(PIECE) == 0, 'bytes are missing'
        except (OSError, AssertionError) as e:
            self.error = e
        finally:
            self.socket.close()

    def finish(self, source):
        source.stopped.set()
        self.join(30)
        assert not self.is_alive() and self.error is None, self.error


def channels(r):
    """The figures of each channel, as relay -O check prints them."""
    report = subprocess.run([rig.RELAY, '-O', 'check', str(r.pid)], stdout=subprocess.PIPE,
                            text=True, env=rig.environ_with(r.pid), check=True).stdout
    return [line for line in report.splitlines() if line.startswith('channel ')]


def first_ssh(r):
    """The command line of the ssh of the first channel."""
    line, = [line for line in map(rig.command_line, rig.children(r.pid))
             if ' -G ' not in line and '-o ProxyCommand=false' not in line]
    return line


def place_of(r):
    """The directory of the ControlMaster's socket."""
    found = re.search('-o ControlMaster=yes -o ControlPath=(/tmp/relay-at-[0-9a-f]{16})/',
                      first_ssh(r))
    return found.group(1)


def further(r):
    """The ssh processes of the further channels."""
    return [pid for pid in rig.children(r.pid)
            if '-o ProxyCommand=false' in rig.command_line(pid)]


@pytest.mark.alone
def test_bulk_gets_more_channels(tunnel, hosts, far, source, echo, mark):
    """Goal: bulk on a long line gets more channels.  All bytes arrive once and in
    order, also if a channel is lost.  A clean stop leaves nothing."""
    r = tunnel('-L', '127.0.0.1:0:' + source.address, '-L', '127.0.0.1:0:' + echo.address,
               'long-login')
    bulk, keys = Reader(r.addresses[0]), dial(r.addresses[1])
    exchange(keys, b'x')
    place = place_of(r)
    assert os.stat(place).st_mode & 0o7777 == 0o700
    wait_for(lambda: len(channels(r)) == 4, 40)
    assert len(hosts.sessions()) == 1    # one login
    pid = further(r)[0]
    before = bulk.got
    rig.kill(pid, signal.SIGKILL)
    exchange(keys, b'y')
    wait_for(lambda: len(channels(r)) == 3, 10)
    r.proc.send_signal(signal.SIGUSR1)
    r.says('channel 3: round trip ')
    wait_for(lambda: bulk.got > before + (50 << 20), 20)
    bulk.finish(source)
    exchange(keys, b'z')
    assert 'reset' not in r.err() and 'reconnect' not in r.err(), r.err()
    assert r.stop() == 0
    wait_for(lambda: not rig.marked(mark) and not os.path.exists(place), 2)


HOPS = {
    'a second login': ('long-login', 'node'),
    '-J': ('-J', 'long-login', 'node'),
    'own ControlPath': ('long-own',),
}


@pytest.mark.alone
@pytest.mark.parametrize('hops', HOPS)
def test_second_channel(tunnel, hosts, source, mark, hops):
    """Goal: the second channel uses the login of the first one, whatever the hops
    are.  If the first channel is lost alone, the link goes on.  After SIGKILL of
    relay, no process is left."""
    r = tunnel('-k', '1', '-j', '2', '-L', '127.0.0.1:0:' + source.address, *HOPS[hops])
    bulk = Reader(r.address)
    own = hops == 'own ControlPath'
    assert ('ControlMaster' in first_ssh(r)) == (not own)
    wait_for(lambda: len(channels(r)) == 2, 40)
    pid, = further(r)
    assert '-S %s' % (hosts.dir + '/own-' if own else '/tmp/relay-at-') in rig.command_line(pid)
    if own:
        r.kill()
        wait_for(lambda: not rig.marked(mark), 6)
        bulk.join()
    else:
        first = [pid for pid, line in far_relays(mark).items() if ' -k 1 ' in line
                 and pid != keeper_of(mark)]
        rig.kill(first[0], signal.SIGKILL)
        wait_for(lambda: len(channels(r)) == 1, 10)
        before = bulk.got
        wait_for(lambda: bulk.got > before + (10 << 20), 20)
        bulk.finish(source)
        assert 'reset' not in r.err() and 'reconnect' not in r.err(), r.err()
        assert r.stop() == 0
        wait_for(lambda: not rig.marked(mark), 2)


@pytest.mark.alone
def test_first_channel_is_lost_while_another_starts(tunnel, source, echo, mark, tmp):
    """Goal: while the only channel starts, a client that connects waits."""
    open(tmp + '/hold', 'w').close()
    write(tmp + '/late', """#!/bin/sh
case $* in *join*) while [ -e %s/hold ]; do sleep 0.1; done ;; esac
exec %s "$@"
""" % (tmp, rig.RELAY), 0o755)
    r = tunnel('-x', tmp + '/late', '-j', '2', '-L', '127.0.0.1:0:' + source.address, '-L',
               '127.0.0.1:0:' + echo.address, 'long-login')
    bulk, first = Reader(r.addresses[0]), set(far_relays(mark)) - {keeper_of(mark)}
    wait_for(lambda: any(tmp + '/late -k join' in line for line in rig.marked(mark).values()), 40)
    for pid in first:
        rig.kill(pid, signal.SIGKILL)
    wait_for(lambda: not channels(r))
    a = dial(r.addresses[1])
    rig.quiet(r.pid)
    os.unlink(tmp + '/hold')
    exchange(a, b'x')
    assert 'refused' not in r.err() and 'reconnect' not in r.err(), r.err()
    bulk.finish(source)
    assert r.stop() == 0


def test_channels_that_are_refused(old, tunnel, source, tmp):
    """Goal: if sshd allows one session, or the far side is of version 0.1, the
    link works with one channel.  A refused one is reported once, with -v."""
    # version 0.1 does not work with the poll of macOS
    path = posing(tmp, 'env -u LD_PRELOAD ' + old, version_of(rig.RELAY), '-m -t 10 -')
    both = [tunnel('-L', '127.0.0.1:0:' + source.address, 'slow-few'),
            tunnel('-x', path, '-L', '127.0.0.1:0:' + source.address, 'slow-login')]
    bulks = [Reader(r.address) for r in both]
    both[0].says('another channel could not be made', 40)
    before = [bulk.got for bulk in bulks]
    wait_for(lambda: all(b.got > n + (1 << 20) for b, n in zip(bulks, before)), 20, [(b.got, b.error) for b in bulks])
    assert [len(channels(r)) for r in both] == [1, 1]
    for bulk in bulks:
        bulk.finish(source)
    assert both[0].err().count('another channel could not be made') == 1
    assert 'another channel' not in both[1].err()
    assert [r.stop() for r in both] == [0, 0]


ONE = {
    '-j 1': (('-j', '1'), 'login'),
    '-k 0': (('-k', '0'), 'login'),
    'a command as hop': ((), 'login', 'env A=B'),
    'another program': (('-e', 'env {ssh}'), 'login'),
}


@pytest.mark.parametrize('what', ONE)
def test_one_channel(tunnel, hosts, echo, what):
    """Goal: where one channel is used, no ssh is a master."""
    options, *hops = ONE[what]
    options = [word.format(ssh=hosts.dir + '/bin/ssh') for word in options]
    r = tunnel(*options, '-L', '127.0.0.1:0:' + echo.address, *hops)
    with dial(r.address) as a:
        exchange(a, b'x')
    assert 'ControlMaster' not in first_ssh(r)
    assert r.stop() == 0


STRANGE = {
    'an old one': 'if [ "$1" = -G ]; then echo "unknown option -- G" >&2; exit 255; fi',
    'no answer': 'if [ "$1" = -G ]; then exec sleep 60; fi',
    'another program': 'if [ "$1" = -V ]; then echo Dropbear >&2; exit; fi\n'
                       'if [ "$1" = -G ]; then touch %s; exit; fi',
}


def test_other_ssh(tunnel, echo, tmp):
    """Goal: an ssh that does not know -G, or does not answer it, is used as it is.
    Another program does not get -G: it could log in."""
    for i, (what, text) in enumerate(STRANGE.items()):
        ssh = '%s/%d/ssh' % (tmp, i)
        os.mkdir(os.path.dirname(ssh))
        write(ssh, '#!/bin/sh\n%s\nexec ssh "$@"\n' % text.replace('%s', tmp + '/asked'), 0o755)
        r = tunnel('-e', ssh, '-L', '127.0.0.1:0:' + echo.address, 'login')
        with dial(r.address) as a:
            exchange(a, b'x')
        assert 'ControlMaster' not in first_ssh(r), what
        r.says('one channel only')
        assert r.stop() == 0
    assert not os.path.exists(tmp + '/asked')


def test_stop_while_a_channel_starts(tunnel, source, tmp, mark):
    """Goal: a stop does not wait for a channel that is not up yet."""
    write(tmp + '/ssh', '#!/bin/sh\ncase $* in *ControlMaster=no*) exec sleep 60 ;; esac\n'
          'exec ssh "$@"\n', 0o755)
    r = tunnel('-e', tmp + '/ssh', '-L', '127.0.0.1:0:' + source.address, 'slow-login')
    Reader(r.address)
    wait_for(lambda: 'sleep 60' in map(rig.command_line, rig.children(r.pid)), 40)
    assert r.stop() == 0
    assert 'does not answer' not in r.err(), r.err()
    wait_for(lambda: not rig.marked(mark), 2)


def test_stop_while_ssh_is_asked(tunnel, echo, tmp):
    """Goal: a stop does not wait for an ssh that does not answer -G."""
    write(tmp + '/ssh', '#!/bin/sh\n%s\nexec ssh "$@"\n' % STRANGE['no answer'], 0o755)
    r = tunnel('-e', tmp + '/ssh', '-L', '127.0.0.1:0:' + echo.address, 'login')
    wait_for(lambda: 'sleep 60' in map(rig.command_line, rig.children(r.pid)))
    assert r.stop(timeout=1.5) == 0
