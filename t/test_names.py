"""Look-ups of names: the event loop continues during a look-up, and one
look-up serves many connections.

faults.c replaces getaddrinfo.  The test holds the look-ups back and counts
them.
"""
import contextlib
import os
import signal

import pytest

import rig
from rig import ping, wait_for
from test_faults import asan, library
from test_link import FarSide
import wire

CROWD = 20


class Names:
    """What faults.c does with names that begin with "fake"."""

    def __init__(self, path):
        self.path = path

    def hold(self):
        with open(self.path + '/hold', 'w'):
            pass

    def release(self):
        os.unlink(self.path + '/hold')

    def asked(self):
        """The names that were looked up, in order."""
        try:
            with open(self.path + '/asked') as f:
                return f.read().split()
        except FileNotFoundError:
            return []


def has_child(pid):
    """True while the process has a child, even one that has exited and was not
    reaped."""
    return any((rig.stat_of(int(p)) or 'Z0')[1] == str(pid) for p in os.listdir('/proc')
               if p.isdigit())


@pytest.fixture
def names(library, tmp, monkeypatch):
    for name, value in dict(LD_PRELOAD=library, FAULTS_NAMES=tmp, ASAN_OPTIONS=asan()).items():
        monkeypatch.setenv(name, value)
    return Names(tmp)


@pytest.fixture
def far(relay):
    made = []

    def make(*words):
        made.append(FarSide(relay, *words))
        return made[-1]
    yield make
    for f in made:
        f.end.close()


def echo(far, target, stream):
    """Check that a new stream to the target carries a byte in each direction.
    """
    far.send(wire.open_(stream, target.words[0]), wire.frame(wire.DATA, stream, b'x'))
    b = target.accept()
    assert b.read(1) == b'x'
    b.send(b'y')
    assert far.wire.frame() == (wire.OPENED, stream, b'')
    assert far.wire.frame() == (wire.DATA, stream, b'y')
    b.close()


# ---- -R ----

def test_listening_on_a_name_beside_others(names, far, target):
    """Goal: while the look-up of -R NAME:PORT hangs, another stream of the
    link is served.  Then -R listens at the address of the name."""
    f = far('-')
    names.hold()
    f.send(wire.open_(1, '=listen fake.example:0'))
    wait_for(names.asked)
    echo(f, target('tcp'), 3)
    names.release()
    assert f.wire.frame(wire.OPENED) == (wire.OPENED, 1, b'')
    bound = f.wire.frame(wire.DATA)[2].decode()
    assert bound.startswith('127.0.0.1:') and bound.endswith('\n\n'), bound
    rig.connect(bound.strip()).close()
    assert names.asked() == ['fake.example']


def far_relays(mark):
    return [pid for pid, line in rig.marked(mark).items() if ' -m -t ' in line
            and ' -L ' not in line]


def test_listening_in_a_tunnel(names, relay, target, tmp, mark):
    """Goal: a tunnel has reconnected and looks up the name of its -R.  -L is
    served meanwhile; after the look-up, -R is served too."""
    here, there = target('tcp'), target('unix')
    r = relay('-x', rig.RELAY, '-L', tmp + '/from:' + here.words[0], '-R',
              'fake.example:0:' + there.words[0], 'env -u NOTHING')
    address, = [a for a in r.addresses if '/' not in a]
    names.hold()
    os.kill(far_relays(mark)[0], signal.SIGKILL)
    wait_for(lambda: len(names.asked()) == 2)
    a = rig.connect(tmp + '/from')
    b = here.accept()
    ping(a, b)
    assert len(names.asked()) == 2
    names.release()
    c = rig.reach(address)
    d = there.accept()
    ping(c, d)
    for end in (a, b, c, d):
        end.close()


def test_listening_on_an_unknown_name(names, far, target):
    """Goal: if the name of -R does not exist, the far side reports that and
    continues to serve."""
    f = far('-')
    f.send(wire.open_(1, '=listen fakeless.example:0'))
    code, words = f.close_of(1)
    assert code == 5 and words.startswith('cannot listen on fakeless.example:0: '), words
    echo(f, target('tcp'), 3)


@pytest.mark.parametrize('how', ['reset', 'eof', 'wire'])
def test_listening_is_given_up(names, far, target, how):
    """Goal: when the stream or the link ends during the look-up, the look-up
    process is killed and reaped."""
    f = far('-')
    names.hold()
    f.send(wire.open_(1, '=listen fake.example:0'))
    wait_for(lambda: names.asked() and rig.children(f.relay.pid))
    if how == 'reset':
        f.send(wire.words(wire.CLOSE, 1, 1))
    elif how == 'eof':
        f.send(wire.frame(wire.EOF, 1))
    else:
        f.end.shut()
        f.relay.wait()
        return
    f.wire.frame(wire.CLOSE)
    wait_for(lambda: not has_child(f.relay.pid))
    echo(f, target('tcp'), 3)


def test_listening_has_its_time(names, far):
    """Goal: relay waits for a silent name server as long as -t allows."""
    f = far('-t', '1', '-')
    names.hold()
    f.send(wire.open_(1, '=listen fake.example:0'))
    code, words = f.close_of(1)
    assert code == 5 and words.startswith('cannot listen on fake.example:0: '), words
    wait_for(lambda: not has_child(f.relay.pid))


# ---- one look-up for many connections ----

def direct(relay, name):
    return relay('127.0.0.1:0', name).address


def link_with_target(relay, name):
    return relay('-m', '127.0.0.1:0', '--', rig.RELAY, '-m', '-', name).address


def tunnel(relay, name):
    return relay('-x', rig.RELAY, '-L', '127.0.0.1:0:' + name, 'env -u NOTHING').address


WAYS = pytest.mark.parametrize('way', [direct, link_with_target, tunnel],
                               ids=lambda way: way.__name__)


def named(target):
    return 'fake.example:' + target.words[0].split(':')[1]


@WAYS
def test_one_by_one(names, relay, target, way):
    """Goal: a target's name is looked up for the first connection only."""
    t = target('tcp')
    address = way(relay, named(t))
    for _ in range(CROWD):
        a = rig.connect(address)
        b = t.accept()
        ping(a, b)
        a.close()
        b.close()
    assert names.asked() == ['fake.example']


@WAYS
def test_at_once(names, relay, target, way):
    """Goal: connections that arrive during the look-up of their target use its
    result."""
    t = target('tcp')
    address = way(relay, named(t))
    names.hold()
    ends = [rig.connect(address) for _ in range(CROWD)]
    wait_for(names.asked)
    for a in ends:
        a.send(b'x')
    names.release()
    ends += [t.accept() for _ in range(CROWD)]
    for b in ends[CROWD:]:
        assert b.read(1) == b'x'
    for end in ends:
        end.close()
    assert names.asked() == ['fake.example']


def test_first_client_closes(names, relay, target):
    """Goal: when the client whose connection began the look-up resets, the
    look-up continues for the others."""
    t = target('tcp')
    address = tunnel(relay, named(t))
    names.hold()
    first, second = rig.connect(address), rig.connect(address)
    wait_for(names.asked)
    first.reset()
    second.send(b'x')
    names.release()
    b = t.accept()
    while b.read(1) != b'x':    # the first client's byte may have passed
        b.close()
        b = t.accept()
    second.close()
    b.close()


def test_many_names(names, far, target):
    """Goal: 40 names, each used twice, all connect.  The cache has 16 names,
    so each name is looked up at most twice."""
    t = target('tcp')
    f = far('-')
    port = t.words[0].split(':')[1]
    for turn in range(2):
        for i in range(40):
            stream = 2 * (40 * turn + i) + 1
            f.send(wire.open_(stream, 'fake%d.example:%s' % (i, port)))
            t.accept().close()
            assert f.wire.frame(wire.OPENED)[1] == stream
    assert len(names.asked()) <= 80
    before = len(names.asked())
    for i in range(39, 39 - 16, -1):
        stream = 2 * (80 + i) + 1
        f.send(wire.open_(stream, 'fake%d.example:%s' % (i, port)))
        t.accept().close()
        assert f.wire.frame(wire.OPENED)[1] == stream
    assert len(names.asked()) == before


def test_target_that_refuses(names, relay, target):
    """Goal: when every cached address fails, the name server is asked again."""
    t = target('tcp')
    address = tunnel(relay, named(t))
    a = rig.connect(address)
    t.accept().close()
    a.close()
    t.close()
    with contextlib.suppress(ConnectionResetError):    # before connect() has returned
        a = rig.connect(address)
        assert a.fate() == 'reset'
        a.close()
    wait_for(lambda: names.asked() == ['fake.example'] * 2)
