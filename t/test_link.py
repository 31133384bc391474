"""relay -m: many connections over one command.

Near and far relay run on this host.  wire.py takes the place of one of them
where a test needs a peer that breaks PROTOCOL.  test_link_ssh.py has the same
over real hosts.
"""
import contextlib
import hashlib
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time

import pytest

import rig
import wire
from rig import exchange, ping, wait_for

TIMES = pytest.mark.parametrize
MIB = 1 << 20
HOST = socket.gethostname()
WIRE = [sys.executable, '-IS', os.path.join(rig.HERE, 'wire.py')]
LINE = [sys.executable, '-IS', os.path.join(rig.HERE, 'line.py')]
SOURCES = ('tcp', 'unix', 'pipes', 'socketpair')
KINDS = ('tcp', 'unix')
EVERY = TIMES('source, kind', [(s, k) for s in SOURCES for k in KINDS])


@pytest.fixture
def link(relay, target, tmp):
    """link(source, target kind, near=options, far=options, line=words before
    the far relay's) makes a rig.Join of a near relay and a far one."""
    made = []

    def make(source='tcp', kind='tcp', near=(), far=(), line=()):
        t = target(kind)
        made.append(rig.Join(relay, source, t, ['-m', *near],
                             ['--', *line, rig.RELAY, '-m', *far, '-', *t.words], tmp))
        return made[-1]
    yield make
    for j in made:
        j.close()


def fate_of_sender(address, data):
    """Connect, send data, and return how the connection ends: 'end' or
    'reset'.  A reset may come at any time, and only one call reports it."""
    try:
        a = rig.connect(address)
    except (ConnectionResetError, BrokenPipeError):
        return 'reset'
    try:
        a.send(data)
        return a.fate()
    except (ConnectionResetError, BrokenPipeError):
        return 'reset'
    finally:
        a.close()


# ---- bytes ----

@EVERY
def test_both_ways_at_once(link, pool, source, kind):
    """Goal: 8 MiB in each direction at the same time arrive complete, and EOF
    after them."""
    j = link(source, kind)
    a, b = j.connect()
    exchange(pool, a, b, os.urandom(8 * MIB), os.urandom(8 * MIB))
    if source not in rig.LISTENERS:
        assert j.relay.wait() == 0, j.relay.err()
    assert not j.relay.err()


SIZES = (0, 1, 2,
         *(n + d for n in (1024, 2048, 16 << 10, 32 << 10, 64 << 10, 256 << 10)
           for d in (-1, 0, 1)))


@TIMES('source, kind', [('tcp', 'tcp'), ('unix', 'unix')])
def test_sizes(link, pool, source, kind):
    """Goal: data of every size near that of a buffer, a frame and a window
    arrives complete, in both directions."""
    j = link(source, kind)
    data = os.urandom(max(SIZES))
    for n in SIZES:
        a, b = j.connect()
        exchange(pool, a, b, data[:n], data[-n:] if n else b'')
        a.close()
        b.close()
    assert not j.relay.err()


@TIMES('size', (0, 1, 65537))
def test_sizes_of_stdio(link, pool, size):
    """Goal: the same with stdin and stdout as source; relay exits with status
    0."""
    j = link('pipes', 'unix')
    a, b = j.connect()
    exchange(pool, a, b, b'u' * size, b'd' * size)
    assert j.relay.wait() == 0, j.relay.err()


@EVERY
def test_client_ends_first(link, source, kind):
    """Goal: after EOF from the client, the target can still send for as long
    as it likes."""
    j = link(source, kind)
    a, b = j.connect()
    a.send(b'question')
    a.shut()
    assert b.read_all() == b'question'
    for _ in range(3):
        b.send(b'answer')
        assert a.read(6) == b'answer'
    b.close()
    assert a.read_all() == b''
    if source not in rig.LISTENERS:
        assert j.relay.wait() == 0, j.relay.err()


@EVERY
def test_target_ends_first(link, source, kind):
    """Goal: after EOF from the target, the client can still send for as long
    as it likes."""
    j = link(source, kind)
    a, b = j.connect()
    b.send(b'greeting')
    b.shut()
    assert a.read_all() == b'greeting'
    for _ in range(3):
        a.send(b'more')
        assert b.read(4) == b'more'
    a.shut()
    assert b.read_all() == b''
    b.close()
    if source not in rig.LISTENERS:
        assert j.relay.wait() == 0, j.relay.err()


@EVERY
def test_client_resets(link, source, kind):
    """Goal: a client's reset arrives as a reset at a TCP target, and as EOF at
    any other."""
    j = link(source, kind)
    a, b = j.connect()
    ping(a, b)
    if source == 'tcp':
        a.reset()
        assert b.fate() == ('reset' if kind == 'tcp' else 'end')
    else:
        a.close()
        b.fate()
        wait_for(b.dead)


@EVERY
def test_target_resets(link, source, kind):
    """Goal: a target's reset arrives as a reset at a TCP client, and as EOF at
    any other.  relay on stdin and stdout reports it by its exit status."""
    j = link(source, kind)
    a, b = j.connect()
    ping(a, b)
    if kind == 'tcp':
        b.reset()
        assert a.fate() == ('reset' if source == 'tcp' else 'end')
        if source not in rig.LISTENERS:
            assert j.relay.wait() == 4, j.relay.err()
    else:
        b.close()
        a.fate()
        wait_for(a.dead)


def test_reset_gives_the_status(link):
    """Goal: if the target resets before all of stdin was written to it, relay
    on stdin and stdout exits with status 4."""
    j = link('pipes', 'tcp')
    a, b = j.connect()
    b.shut()
    assert a.read_all() == b''
    a.stuff(bytes(65536))
    a.shut()
    b.read(10)
    b.reset()
    assert j.relay.wait() == 4, j.relay.err()


def test_end_waits_for_delivery(link, pool):
    """Goal: relay on stdin and stdout exits with status 0 only after the
    target has received everything, however late it reads."""
    j = link('pipes', 'unix')
    a, b = j.connect()
    data = os.urandom(700000)
    b.shut()
    job = pool.submit(a.send, data)
    wait_for(lambda: not b.silent())
    rig.quiet(j.relay.pid)
    assert b.read(100000) == data[:100000]
    b_rest = pool.submit(b.read_all)
    job.result()
    a.shut()
    assert b_rest.result() == data[100000:]
    assert j.relay.wait() == 0, j.relay.err()


@TIMES('back', (False, True), ids=('up', 'down'))
def test_reset_in_the_middle(link, back):
    """Goal: a reset arrives before data that is still queued, in both
    directions, and the next connection works."""
    j = link()
    a, b = j.connect()
    if back:
        a, b = b, a
    a.stuff(bytes(65536))
    a.reset()
    wait_for(b.gone)
    assert b.fate() == 'reset'
    ping(*j.connect())


@TIMES('back', (False, True), ids=('up', 'down'))
def test_reader_goes_away(link, back):
    """Goal: when a reader closes, its writer gets an error soon, on either
    side of the link."""
    j = link('unix', 'unix')
    a, b = j.connect()
    if back:
        a, b = b, a
    ping(a, b)
    b.close()
    wait_for(a.dead)


@TIMES('back', (False, True), ids=('up', 'down'))
def test_half_close_behind_a_full_pipe(link, pool, back):
    """Goal: EOF arrives after all bytes sent before it, even if the reader did
    not read for a while."""
    j = link()
    a, b = j.connect()
    if back:
        a, b = b, a
    n = a.stuff(b'z' * 65536)
    a.shut()
    assert b.digest() == (n, hashlib.sha256(b'z' * n).hexdigest())
    b.send(b'thanks')
    assert a.read(6) == b'thanks'


# ---- many ----

@TIMES('back', (False, True), ids=('up', 'down'))
def test_stuck_beside_lively(link, pool, lean, back):
    """Goal: a reader that does not read blocks its own stream only.  Memory of
    both relays stays bounded, they use no processor time, and the reader gets
    everything in the end."""
    j = link()
    a, b = j.connect()
    if back:
        a, b = b, a
    n = a.stuff(b's' * 65536)
    lively = j.connect()
    exchange(pool, *lively, os.urandom(8 * MIB), os.urandom(8 * MIB))
    ping(*j.connect())
    for pid in (j.relay.pid, *rig.children(j.relay.pid)):
        rig.quiet(pid)
        assert rig.memory(pid) < 40 * MIB
    a.shut()
    assert b.digest() == (n, hashlib.sha256(b's' * n).hexdigest())


@pytest.mark.skipif(not rig.EXTRAS or rig.SANITIZED,
                    reason='skipped: malloc may keep freed memory')
def test_memory_comes_back(link, pool):
    """Goal: memory that many stuck readers made both relays reserve returns to
    the system after they close, in any order."""
    j = link()
    ping(*j.connect())
    pids = (j.relay.pid, *rig.children(j.relay.pid))
    before = [rig.memory(pid) for pid in pids]
    crowd = [j.connect() for _ in range(40)]
    ends = [end for pair in crowd for end in pair]
    list(pool.map(lambda end: end.stuff(b's' * 65536), ends))
    assert all(rig.memory(pid) > was + 8 * MIB for pid, was in zip(pids, before))
    random.Random(4).shuffle(ends)
    for end in ends:
        end.reset()
    j.ends.clear()
    for pid, was in zip(pids, before):
        wait_for(lambda: rig.memory(pid) < was + 3 * MIB, 5,
                 'memory back: %d of %d KiB' % (rig.memory(pid) >> 10, was >> 10))


def test_thousand_at_once(link):
    """Goal: 1,000 connections at the same time each carry their own bytes in
    both directions, and all end."""
    j = link('tcp', 'unix')
    a = [j.client() for _ in range(1000)]
    for i, end in enumerate(a):
        end.send(b'%4d' % i)
    b = {}
    for _ in a:
        end = j.target.accept()
        j.ends.append(end)
        b[int(end.read(4))] = end
    assert sorted(b) == list(range(1000))
    for i in b:
        b[i].send(b'back %4d' % i)
        b[i].shut()
    for i, end in enumerate(a):
        assert end.read_all() == b'back %4d' % i
        end.shut()
    for end in b.values():
        assert end.read_all() == b''
    ping(*j.connect())
    assert not j.relay.err()


def test_quiet_beside_busy(link, pool):
    """Goal: beside a stream that never rests, 1,000 idle streams are served
    soon, from both sides.  EOF, resets and new connections arrive, and at the
    end all rest."""
    j = link('tcp', 'tcp')
    busy = j.connect()
    quiet = [j.connect() for _ in range(1000)]
    with rig.chatter(pool, *busy):
        took = []
        for a, b in quiet[::8]:
            began = time.monotonic()
            ping(a, b)
            took.append(time.monotonic() - began)
        assert statistics.median(took) < 0.05 and max(took) < 1
        for a, b in quiet[4::8]:
            ping(b, a)
        ping(*j.connect())
        (a, b), (c, d), (e, f), (g, h) = quiet[1:5]
        a.shut()
        assert b.read_all() == b''
        b.send(b'still')
        b.close()
        assert a.read_all() == b'still'
        c.reset()
        assert d.fate() == 'reset'
        f.reset()
        assert e.fate() == 'reset'
        sent = g.stuff(bytes(65536))
        g.shut()
        assert h.digest()[0] == sent
        j.relay.proc.send_signal(signal.SIGUSR1)
        wait_for(lambda: j.relay.err().count('bytes there') >= 999)
    for pid in (j.relay.pid, *rig.children(j.relay.pid)):
        rig.quiet(pid)
        assert rig.cpu_grows(pid, 0.2) < 0.1


def test_quiet_streams_end_with_the_link(link, mark):
    """Goal: when the command is killed beside a busy stream, 200 idle clients
    see a reset at once."""
    j = link('tcp', 'unix')
    crowd = [j.connect() for _ in range(200)]
    ping(*crowd[0])
    for pid in rig.children(j.relay.pid):
        rig.kill(pid, signal.SIGKILL)
    assert {a.fate() for a, _ in crowd} == {'reset'}
    assert j.relay.wait() == 7


def test_thousand_one_by_one(link, lean):
    """Goal: stream ids are reused: neither relay grows or keeps a descriptor
    while connections come and go."""
    j = link('tcp', 'unix')
    pids = ()
    for i in range(1500):
        a, b = j.connect()
        ping(a, b, b'%d' % i)
        (a if i & 1 else b).close()
        assert (b if i & 1 else a).read_all() == b''
        (b if i & 1 else a).close()
        j.ends.clear()
        if i == 300:
            pids = (j.relay.pid, *rig.children(j.relay.pid))
            before = [rig.memory(p) for p in pids]
    for pid, was in zip(pids, before):
        rig.quiet(pid)
        wait_for(lambda: len(os.listdir('/proc/%d/fd' % pid)) < 12)
        assert rig.memory(pid) < was + MIB


def test_out_of_descriptors_at_the_far_end(link):
    """Goal: when the far side has no descriptor left, new streams wait or are
    reset with the cause; open streams go on."""
    limit = 'import os, resource, sys; ' \
            'resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40)); ' \
            'os.execv(sys.argv[1], sys.argv[1:])'
    j = link('tcp', 'unix', far=['-t', '1'], line=[sys.executable, '-c', limit])
    a, b = j.connect()
    ping(a, b)
    more = [j.client() for _ in range(60)]
    j.relay.says('raise the limit with ulimit -n')
    ping(a, b)
    for end in more:
        end.close()
    while j.target.waiting():
        j.target.accept().close()
    ping(a, b)


# ---- targets ----

@TIMES('source', rig.LISTENERS)
def test_no_target(link, source):
    """Goal: if the target does not exist, the client is reset, near logs the
    far host's name and the cause, and the link stays up."""
    j = link(source, 'unix')
    os.unlink(j.target.path)
    assert rig.fate_at(j.relay.address) == ('reset' if source == 'tcp' else 'end')
    line = j.relay.says('No such file or directory')
    assert line.startswith('relay: %s: ' % HOST) and j.target.path in line
    assert fate_of_sender(j.relay.address, bytes(8 * MIB)) == 'reset'
    assert j.relay.proc.poll() is None


def test_refusing_target(link):
    """Goal: a port on which no process listens gives status 1 and the cause,
    with stdin and stdout as source."""
    j = link('pipes', 'tcp')
    j.target.close()
    a = j.client()
    assert a.fate() == 'end'
    assert j.relay.wait() == 1, j.relay.err()
    line = j.relay.says('refused')
    assert line.startswith('relay: %s: ' % HOST) and j.target.words[0] in line


def test_wait_at_the_far_end(relay, tmp, target):
    """Goal: -w on the far side waits for the target; what the client sent in
    the meantime arrives."""
    r = relay('-m', '127.0.0.1:0', '--', rig.RELAY, '-m', '-w', '20', '-', tmp + '/late')
    a = rig.connect(r.address)
    a.send(b'early')
    a.shut()
    far = rig.children(r.pid)[0]
    wait_for(lambda: int(rig.stat_of(far)[12]) >= 0 and a.silent())
    t = rig.UnixTarget(tmp + '/late')
    b = t.accept()
    assert b.read_all() == b'early'
    b.send(b'late')
    b.close()
    assert a.read_all() == b'late'
    a.close()
    t.close()
    assert not r.err()


# ---- the far side against a near side written by hand ----

class FarSide:
    """relay -m - [TO] as the far side; the test is the near side."""

    def __init__(self, start, *words, greet=True):
        self.end, i, o = rig.end_of_pipe_pair()
        self.relay = start('-m', *words, stdin=i, stdout=o)
        os.close(i)
        os.close(o)
        self.wire = wire.Wire(self.end.read, self.end.send)
        if greet:
            self.send(wire.MAGIC, wire.hello(wire.NEAR))
            self.wire.magic()
            kind, stream, body = self.wire.frame()
            assert (kind, stream, body[0], body[1]) == (wire.HELLO, 0, 1, wire.FAR)
            assert body[32:].decode() == HOST

    def send(self, *data):
        self.end.send(b''.join(data))

    def close_of(self, stream):
        """Wait for the CLOSE of a stream and return (code, text).  The caller
        must send the CLOSE that answers it."""
        kind, got, body = self.wire.frame(wire.CLOSE, wire.BYE)
        assert (kind, got) == (wire.CLOSE, stream), body
        self.send(wire.words(wire.CLOSE, stream, 0))
        return int.from_bytes(body[:2], 'big'), body[2:].decode()


@pytest.fixture
def far(relay):
    made = []

    def make(*words, **kw):
        made.append(FarSide(relay, *words, **kw))
        return made[-1]
    yield make
    for f in made:
        f.end.close()


@TIMES('kind', KINDS)
def test_far_by_hand(far, target, kind):
    """Goal: the far side connects to the target in OPEN.  DATA directly after
    OPEN arrives, EOF from both sides gives CLOSE 0, and the id can then be
    used again."""
    t = target(kind)
    f = far('-')
    for _ in range(2):
        f.send(wire.open_(1, t.words[0]), wire.frame(wire.DATA, 1, b'at once'))
        b = t.accept()
        assert b.read(7) == b'at once'
        assert f.wire.frame() == (wire.OPENED, 1, b'')
        b.send(b'answer')
        b.shut()
        assert f.wire.frame() == (wire.DATA, 1, b'answer')
        assert f.wire.frame() == (wire.EOF, 1, b'')
        f.send(wire.frame(wire.EOF, 1))
        assert b.read_all() == b''
        assert f.close_of(1) == (0, '')
        b.close()
    f.end.shut()
    assert f.relay.wait() == 0, f.relay.err()


def test_far_with_a_target_takes_no_other(far, target):
    """Goal: relay -m - TO connects to TO only.  It accepts an empty name and
    TO's own name, and refuses any other with code 11."""
    t, other = target('unix'), target('unix')
    f = far('-', t.words[0])
    for name in (other.words[0], '127.0.0.1:22', t.words[0] + 'x', t.words[0][:-1],
                 '/' + t.words[0], ' ', '-', 'garbage'):
        f.send(wire.open_(5, name))
        code, words = f.close_of(5)
        assert code == 11 and t.words[0] in words, name
    for name in ('', t.words[0]):
        f.send(wire.open_(5, name))
        b = t.accept()
        assert f.wire.frame() == (wire.OPENED, 5, b'')
        b.close()
        assert f.wire.frame(wire.EOF)[1] == 5
        f.send(wire.words(wire.CLOSE, 5, 1))
        f.wire.frame(wire.CLOSE)
    assert not other.waiting()


@TIMES('first', [(), (b"V='relay 0.1';touch %s/pwned;exec sh\n",)], ids=['plain', 'shell'])
def test_far_with_a_target_connects_to_it_only(far, target, tmp, first):
    """Goal: relay -m - TO as a forced command connects to TO only, whatever
    the near side sends.  It does not listen, has no -w, and does not run a
    shell command that comes before the link."""
    t = target('unix')
    f = far('-', t.words[0], greet=False)
    f.send(*(w.replace(b'%s', tmp.encode()) for w in first), wire.MAGIC, wire.hello(wire.NEAR))
    f.wire.magic()
    assert f.wire.frame()[0] == wire.HELLO
    port = rig.free_port()
    for name, code in (('=listen 127.0.0.1:%d' % port, 11), ('=listen %s/back' % tmp, 11),
                       ('=listen ' + t.words[0], 11), ('=accept 1', 11),
                       ('=listen', 11), ('=', 11), ('=exec sh', 11), ('-- sh', 11),
                       ('=sessions end 0', 11), ('=check/' + t.words[0], 11),
                       (t.words[0] + '\0', 0)):
        f.send(wire.open_(9, name))
        if code == 0:    # the name ends at the NUL, so it equals TO
            t.accept().close()
            f.send(wire.words(wire.CLOSE, 9, 1))
            f.wire.frame(wire.CLOSE)
        else:
            assert f.close_of(9)[0] == code, name
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(('127.0.0.1', port), 5)
    assert os.listdir(tmp) == [os.path.basename(t.path)]
    assert rig.children(f.relay.pid) == [] and not t.waiting()


@TIMES('long', (False, True), ids=('short', 'long'))
def test_far_with_many_streams_that_wait(far, tmp, lean, long):
    """Goal: 8,192 streams that wait for a target, each with a full window, use
    bounded memory.  With names of the greatest length it is 1,024 streams."""
    f = far('-w', '60', '-t', '60', '-')
    name, closed = tmp + '/' * (4000 if long else 480) + 'none', 0
    for i in range(8192):
        f.send(wire.open_(2 * i + 1, name, send=4096),
               wire.frame(wire.DATA, 2 * i + 1, bytes(4096)))
    while long and closed < 8192 - 1024:
        closed += f.wire.frame(wire.CLOSE)[0] == wire.CLOSE
    f.send(wire.frame(wire.PING))
    while int.from_bytes(f.wire.frame(wire.ACK)[2][:8], 'big') < 8192 * 4096:
        pass
    if not rig.SANITIZED:
        assert rig.memory(f.relay.pid) < (40 if long else 120) * MIB


def test_far_reasons(far, target, tmp):
    """Goal: the cause of a failed connect arrives as a code of PROTOCOL and as
    text."""
    f = far('-t', '5', '-')
    with open(tmp + '/file', 'w'):
        pass
    for name, code in (('127.0.0.1:%d' % rig.free_port(), 2), (tmp + '/none', 3),
                       (tmp + '/file', (2, 5)), ('', 5), ('-', 5),
                       ('no port', 5), ('no.such.host.invalid:80', 9), ('/' * 4352, (3, 5)),
                       ('x' * 4352, 5), ('a\0b/c', (3, 5))):
        f.send(wire.open_(7, name))
        got, words = f.close_of(7)
        assert got == code or isinstance(code, tuple) and got in code, (name[:40], got, words)
        assert words, name
    assert not f.relay.err()


def test_far_looks_up_names_beside(far, target):
    """Goal: while one name is looked up, other streams go on."""
    t = target('tcp')
    f = far('-')
    f.send(wire.open_(1, 'no.such.host.invalid:80'), wire.open_(3, t.words[0]),
           wire.frame(wire.DATA, 3, b'now'))
    b = t.accept()
    assert b.read(3) == b'now'
    b.close()


def test_far_looks_up_some_names_at_a_time(far):
    """Goal: 300 streams to names have at most 64 look-ups on the far side at a
    time, each in a process, and each stream gets its answer."""
    f = far('-t', '2', '-')
    f.send(*(wire.open_(2 * i + 1, 'no.such.host%d.invalid:80' % i, send=4096) for i in range(300)))
    most, closed = 0, 0
    while closed < 300:
        # while relay is stopped, the number of its children cannot grow
        os.kill(f.relay.pid, signal.SIGSTOP)
        wait_for(lambda: rig.stat_of(f.relay.pid)[0] == 'T')
        most = max(most, len(rig.children(f.relay.pid)))
        os.kill(f.relay.pid, signal.SIGCONT)
        for _ in range(10):
            kind, _, body = f.wire.frame()
            assert kind == wire.CLOSE and body[:2] == b'\0\x09', body
            closed += 1
    # a process that has answered may still be about to exit
    assert 1 < most <= 64 + 32


BREACHES = {
    'unknown-type': [wire.frame(99)],
    'type-0': [wire.frame(0)],
    'long-data': [(wire.DATA << 24 | 65537).to_bytes(4, 'big') + b'\0\0\0\1'],
    'long-skipped': [(200 << 24 | 8193).to_bytes(4, 'big') + b'\0\0\0\0'],
    'second-hello': [wire.hello(wire.NEAR)],
    'even': [wire.open_(2)],
    'beyond-the-limit': [wire.open_(32769)],
    'open-twice': [wire.open_(1), wire.open_(1)],
    'big-window': [wire.open_(1, send=wire.WINDOW + 1)],
    'not-open': [wire.frame(wire.DATA, 3, b'x')],
    'eof-of-nothing': [wire.frame(wire.EOF, 3)],
    'close-of-nothing': [wire.words(wire.CLOSE, 3, 1)],
    'opened-from-near': [wire.open_(1), wire.frame(wire.OPENED, 1)],
    'beyond-the-window': [wire.open_(1, send=4096), wire.frame(wire.DATA, 1, bytes(4097))],
    'after-eof': [wire.open_(1), wire.frame(wire.EOF, 1), wire.frame(wire.DATA, 1, b'x')],
    'second-eof': [wire.open_(1), wire.frame(wire.EOF, 1), wire.frame(wire.EOF, 1)],
    'credit-0': [wire.open_(1), wire.frame(wire.CREDIT, 1, bytes(4))],
    'credit-overflow': [wire.open_(1), wire.frame(wire.CREDIT, 1, b'\x7f\xff\xff\xff')],
    'ack-ahead': [wire.frame(wire.ACK, 0, b'\x7f' * 12)],
    'short-ack': [wire.frame(wire.ACK, 0, b'\0' * 8)],
    'empty-data': [wire.open_(1), wire.frame(wire.DATA, 1)],
    'stream-0': [wire.frame(wire.EOF, 0)],
    'ping-with-stream': [wire.frame(wire.PING, 1)],
}


@TIMES('what', BREACHES)
def test_far_refuses_a_breach(far, target, what):
    """Goal: for each breach of PROTOCOL the far side sends BYE 12 with a
    sentence, and exits with status 7."""
    f = far('-', target('unix').words[0])
    f.send(*BREACHES[what])
    while True:
        kind, _, body = f.wire.frame()
        if kind == wire.BYE:
            break
    assert body[:2] == b'\0\x0c' and len(body) > 10
    assert f.wire.frame() is None
    assert f.relay.wait() == 7
    assert f.relay.err().startswith('relay: ') and f.relay.err().count('\n') == 1, f.relay.err()


@TIMES('first',
       [b'GET / HTTP/1.0\r\n\r\n', b'\xff' * 100, b'\0\xf2reLAylink\n\n\n\xfe\0',
        wire.MAGIC + wire.frame(wire.DATA, 1, b'x'),
        wire.MAGIC + wire.hello(wire.NEAR, version=3), wire.MAGIC + wire.hello(wire.FAR),
        wire.MAGIC + wire.hello(wire.NEAR, streams=0),
        wire.MAGIC + wire.hello(wire.NEAR, memory=0)],
       ids=['http', 'bytes', 'text', 'no-hello', 'version', 'far', 'streams', 'memory'])
def test_far_refuses_a_start(far, first):
    """Goal: if the peer is not a near side, the far side writes a sentence and
    exits with status 7 at once."""
    f = far('-', greet=False)
    f.send(first)
    assert f.relay.wait() == 7
    assert f.relay.err().startswith('relay: ') and f.relay.err().count('\n') == 1, f.relay.err()


def test_far_ends_with_its_wire(far, target):
    """Goal: at EOF of the link the far side exits within 2 s, with a stream
    stuck in both directions and one that is connecting."""
    t = target('unix')
    f = far('-w', '60', '-')
    f.send(wire.open_(1, t.words[0]), wire.open_(3, '/no/such/socket'),
           *[wire.frame(wire.DATA, 1, bytes(65536))] * 4)
    b = t.accept()
    b.stuff(bytes(65536))
    f.end.close()
    f.relay.wait(2)
    b.close()


def test_far_with_a_million_opens(far, target, lean):
    """Goal: streams opened and closed a million times cost the far side no
    memory and no descriptor."""
    f = far('-', target('unix').words[0])
    more = b''.join(wire.open_(i * 2 + 1, '/x', send=4096) for i in range(2000))
    for _ in range(10):
        f.send(more)
        for _ in range(2000):
            kind, stream, body = f.wire.frame()
            assert kind == wire.CLOSE and body[:2] == b'\0\x0b', body
        f.send(b''.join(wire.words(wire.CLOSE, i * 2 + 1, 0) for i in range(2000)))
    assert rig.memory(f.relay.pid) < 16 * MIB


def test_far_keeps_its_wire_clean(relay, target, tmp):
    """Goal: the log of a far relay with -v goes to its stderr, not between the
    frames."""
    t = target('unix')
    r = relay('-m', '127.0.0.1:0', '--', rig.RELAY, '-m', '-v', '-')
    assert rig.fate_at(r.address) == 'reset'
    r.says('refused a stream')
    r.stop()
    r = relay('-m', '127.0.0.1:0', '--', rig.RELAY, '-m', '-v', '-', *t.words)
    for _ in range(3):
        a, b = rig.connect(r.address), t.accept()
        ping(a, b)
        a.close()
        b.close()


# ---- the near side against a far side that breaks the rules ----

@TIMES('sin', wire.SINS)
def test_near_refuses(relay, sin):
    """Goal: for any breach by the far side near logs one sentence with the
    cause, resets its clients and exits with status 7."""
    r = relay('-m', '127.0.0.1:0', '--', *WIRE, sin)
    assert fate_of_sender(r.address, b'hello') == 'reset' or sin in ('after-eof', 'second-eof')
    assert r.wait() == 7, r.err()
    lines = [line for line in r.err().splitlines() if 'link' in line]
    assert len(lines) == 1 and lines[0].startswith('relay: '), r.err()
    assert all(c.isprintable() or c == '\n' for c in r.err())
    if sin.startswith(('end', 'half', 'bye')):
        assert 'broke the protocol' not in lines[0]
    else:
        assert 'protocol' in lines[0], lines


def test_clients_of_a_broken_link_are_reset(relay):
    """Goal: when a link breaks, clients see a reset.  EOF would look like the
    end of a short file."""
    r = relay('-m', '127.0.0.1:0', '--', *WIRE, 'end')
    assert fate_of_sender(r.address, b'') == 'reset'
    assert r.wait() == 7


def test_near_skips_frames_of_later_versions(relay):
    """Goal: frame types of later versions are ignored."""
    r = relay('-m', '127.0.0.1:0', '--', *WIRE, 'skipped')
    a = rig.connect(r.address)
    rig.quiet(r.pid)
    assert r.proc.poll() is None and a.silent()
    a.close()


@TIMES('words, expected',
       [('version=3', 'version 3'), ('version=0', 'version 0'), ('memory=0', 'HELLO'),
        ('streams=0', 'HELLO'),
        ('streams=16385', 'HELLO')])
def test_near_refuses_a_hello(relay, words, expected):
    """Goal: a far relay of another version, or one that allows no streams, has
    its own message.  No address is printed."""
    r = relay('-m', '127.0.0.1:0', '--', *WIRE, 'hello:' + words)
    assert r.wait() == 7
    assert r.proc.stdout.read() == b''
    assert expected in r.err(), r.err()


def test_near_names_an_evil_host_safely(relay):
    """Goal: the far host chooses the name that it sends, so nothing in it may
    control the terminal."""
    r = relay('-m', '-v', '127.0.0.1:0', '--', *WIRE, r'hello:host="\x1b]0;x\x07\n" + "h" * 240')
    assert r.address
    assert all(c.isprintable() or c == '\n' for c in r.err())
    assert r.err().count('\n') == 1


# ---- life ----

def test_term(link, mark):
    """Goal: after SIGTERM near exits with status 0 and logs no error; clients
    and targets are reset, and no process is left."""
    j = link()
    a, b = j.connect()
    c, d = j.connect()
    c.stuff(bytes(65536))
    d.stuff(bytes(65536))
    assert j.relay.stop(timeout=2) == 0
    for end in (a, b, c, d):
        assert end.fate() == 'reset'
    wait_for(lambda: not rig.marked(mark), 2)
    assert j.relay.err() == ''


def test_term_of_stdio(link):
    """Goal: with stdin and stdout as source, a signal N gives exit status 128
    + N."""
    j = link('pipes', 'tcp')
    a, b = j.connect()
    ping(a, b)
    assert j.relay.stop(timeout=2) == 128 + signal.SIGTERM
    assert b.fate() == 'reset'


def test_term_before_the_link_is_up(relay, mark):
    """Goal: SIGTERM stops near while its command still asks for a password:
    status 0, and the command ends."""
    r = relay('-m', '127.0.0.1:0', '--', 'sh', '-c', 'exec tail -f /dev/null')
    wait_for(lambda: any(line.startswith('tail') for line in rig.marked(mark).values()))
    assert r.stop(timeout=4) == 0
    wait_for(lambda: not rig.marked(mark), 2)


@TIMES('script', ['exec sleep 100', 'trap "" TERM; read x; read y; sleep 100'],
       ids=['deaf', 'obstinate'])
def test_term_of_a_command_that_ignores_it(relay, mark, script):
    """Goal: relay exits although its command ignores both EOF on stdin and
    SIGTERM."""
    r = relay('-m', '127.0.0.1:0', '--', 'sh', '-c', script)
    wait_for(lambda: len(rig.marked(mark)) > 1)
    rig.quiet(r.pid)
    assert r.stop(timeout=4) == 0
    for pid in rig.marked(mark):
        rig.kill(pid, signal.SIGKILL)    # the child of sh


def test_near_is_killed(link, mark):
    """Goal: when near is killed with SIGKILL during a transfer, the far side
    exits and the target is reset."""
    j = link()
    a, b = j.connect()
    a.stuff(bytes(65536))
    b.stuff(bytes(65536))
    j.relay.kill()
    wait_for(lambda: not rig.marked(mark), 2)
    assert b.fate() == 'reset'


def test_far_is_killed(link, mark):
    """Goal: when the far side is killed with SIGKILL during a transfer, near
    logs it, resets its clients and exits with status 7."""
    j = link()
    a, b = j.connect()
    a.stuff(bytes(65536))
    b.stuff(bytes(65536))
    os.kill(rig.children(j.relay.pid)[0], 9)
    wait_for(a.gone, 2)
    assert a.fate() == 'reset'
    assert j.relay.wait(2) == 7
    assert 'the link to %s' % HOST in j.relay.err()
    assert not rig.marked(mark)


def test_far_is_stopped(link, mark):
    """Goal: after SIGTERM to the far side, near logs that the far side was
    stopped, and exits with status 7."""
    j = link()
    a, b = j.connect()
    ping(a, b)
    os.kill(rig.children(j.relay.pid)[0], signal.SIGTERM)
    assert a.fate() == 'reset' and b.fate() == 'reset'
    assert j.relay.wait(4) == 7
    assert 'stopped by a signal' in j.relay.err()


def test_table(link):
    """Goal: SIGUSR1 logs the link's other host, and each stream with its
    bytes."""
    j = link('tcp', 'unix')
    (a, b), (c, d) = j.connect(), j.connect()
    ping(a, b)
    ping(c, d, b'x' * 1000)
    j.relay.proc.send_signal(signal.SIGUSR1)
    j.relay.says('the link to ' + HOST + ' is up')
    j.relay.says('2 open connections')
    j.relay.says('1000 bytes there, 1000 back')
    j.relay.says(' 1 bytes there, 1 back')
    ping(a, b)


def test_idle_link_sleeps(link):
    """Goal: a link with idle streams causes no wake-ups."""
    j = link('tcp', 'unix')
    for _ in range(20):
        ping(*j.connect())
    for pid in (j.relay.pid, *rig.children(j.relay.pid)):
        rig.quiet(pid)
        assert rig.cpu_grows(pid) < 0.02


def test_background_when_the_link_is_up(relay, target, tmp, mark):
    """Goal: -f goes to the background, and prints the address, only when the
    link is up.  SIGTERM to the process in the pid file ends it and the far
    side."""
    t = target('unix')
    os.mkfifo(tmp + '/password')
    script = 'read x <"$1"; shift; exec "$@"'
    r = relay('-m', '-f', '-P', tmp + '/pid.pid', '127.0.0.1:0', '--', 'sh', '-c', script, 'sh',
              tmp + '/password', rig.RELAY, '-m', '-', *t.words)
    wait_for(lambda: any(line.startswith('sh -c') for line in rig.marked(mark).values()))
    rig.quiet(r.pid)
    assert r.proc.poll() is None and not os.path.exists(tmp + '/pid.pid')
    with open(tmp + '/password', 'w') as f:
        f.write('secret\n')
    assert r.address and r.wait() == 0
    with open(tmp + '/pid.pid') as f:
        pid = int(f.read())
    a, b = rig.connect(r.address), t.accept()
    ping(a, b)
    os.kill(pid, signal.SIGTERM)
    assert a.fate() == 'reset'
    wait_for(lambda: not rig.marked(mark), 3)
    a.close()
    b.close()


# ---- start ----

PTY = 'import pty, sys; pty.spawn(sys.argv[1:])'
FAILING = {
    'not-found': (['no-such-command-here'], 'no-such-command-here'),
    'not-found-there': (['sh', '-c', 'echo relay: not found >&2; exit 127'],
                        'the far command was not found'),
    'ssh-fails': (['sh', '-c', 'exit 255'], 'could not connect'),
    'echo': (['cat'], 'sends back'),
    'nothing': (['true'], 'without a sign of a relay'),
    'another': (['sh', '-c', 'echo what is this; exit 3'], 'status 3'),
    'banner': (['sh', '-c', 'head -c 70000 /dev/zero | tr "\\0" n; exec tail -f /dev/null'],
              '64 KiB'),
    'script': (['script', '-qec', '%s -m -' % rig.RELAY, '/dev/null'], 'the line changes bytes'),
    'pty': ([sys.executable, '-c', PTY, rig.RELAY, '-m', '-'], 'the line changes bytes'),
    'crlf': (['sh', '-c', 'printf "\\0\\362reLAylink\\n\\n\\376\\0"; exec tail -f /dev/null'],
             'the line changes bytes'),
    'closes-stdout': (['sh', '-c', 'exec >&-; exec cat >/dev/null'], 'closed its stdout'),
}


@TIMES('case', FAILING)
def test_failing_start(relay, case):
    """Goal: each way in which a start can fail has its own message and status
    7.  No address is printed and no process is left."""
    command, expected = FAILING[case]
    r = relay('-m', '127.0.0.1:0', '--', *command)
    assert r.wait(8) == 7, r.err()
    assert r.proc.stdout.read() == b''
    assert any(line.startswith('relay: no link: ')
               and expected in line for line in r.err().splitlines()), r.err()


def test_far_side_at_a_terminal():
    """Goal: if stdin is a terminal, the far side writes the token of PROTOCOL,
    section 1, to stdout and exits with status 7."""
    main, terminal = os.openpty()
    r = subprocess.run([rig.RELAY, '-m', '-'], stdin=terminal, capture_output=True, timeout=10,
                       check=False)
    os.close(main)
    os.close(terminal)
    assert (r.returncode, r.stdout) == (7, b'reLAylink\n'), r
    assert b'cannot go through a terminal' in r.stderr


@TIMES('script',
       ['cat /dev/stdin | "$@"', 'exec "$@" <$(ls -d /proc/self/fd/0 /dev/fd/0 | head -n 1)'])
def test_command_opens_its_stdin_by_name(relay, target, script):
    """Goal: a command can open its stdin by name (/dev/stdin), because it is a
    pipe."""
    t = target('unix')
    r = relay('-m', '127.0.0.1:0', '--', 'sh', '-c', script, 'sh', rig.RELAY, '-m', '-', *t.words)
    a, b = rig.connect(r.address), t.accept()
    ping(a, b)
    a.close()
    b.close()


@pytest.mark.skipif(not shutil.which('bash'), reason='skipped: no bash')
def test_bash_does_not_read_bashrc(relay, target, tmp, mark):
    """Goal: a bash that carries the link does not read .bashrc.  On a socket
    bash would take itself for a child of rshd and read it, and .bashrc could
    take the link's bytes."""
    t = target('unix')
    with open(tmp + '/.bashrc', 'w') as f:
        f.write('exec cat\n')
    env = {k: v for k, v in os.environ.items() if k not in ('SHLVL', 'SSH_CLIENT', 'SSH2_CLIENT')}
    r = relay('-m', '127.0.0.1:0', '--', 'bash', '-c', 'exec "$@"', 'bash', rig.RELAY, '-m', '-',
              *t.words, env={**env, 'HOME': tmp})
    a, b = rig.connect(r.address), t.accept()
    ping(a, b)
    a.close()
    b.close()


def test_unix_client_that_closes_in_two_steps(link):
    """Goal: a Unix client that closes its sending direction first and its
    receiving direction later has hung up, and its target sees that."""
    rig.close_in_two_steps(link('unix', 'unix'))


def test_banner_is_logged_if_the_start_fails(relay):
    """Goal: when a start fails, relay logs what the login shell printed,
    because it often has the cause."""
    r = relay('-m', '127.0.0.1:0', '--', 'sh', '-c',
              'echo "This account is \33[31mnot available."; exit 1')
    assert r.wait() == 7
    assert 'This account is' in r.err() and '\33' not in r.err()


BANNERS = {'short': b'Last login: today\r\n', 'none at the end': b'no newline', 'zeros': bytes(40),
         'half a magic': wire.MAGIC[:9] * 3, 'most': b'welcome\n' * 8190}


@TIMES('banner', BANNERS)
def test_banner_before_the_hello(relay, target, tmp, banner):
    """Goal: up to 64 KiB that a login shell prints first are skipped."""
    with open(tmp + '/banner', 'wb') as f:
        f.write(BANNERS[banner])
    t = target('unix')
    r = relay('-m', '127.0.0.1:0', '--', 'sh', '-c', 'cat "$1"; shift; exec "$@"', 'sh',
              tmp + '/banner', rig.RELAY, '-m', '-', *t.words)
    a, b = rig.connect(r.address), t.accept()
    ping(a, b)
    a.close()
    b.close()
    assert not r.err()


def test_far_on_a_terminal(run):
    """Goal: relay -m - on a terminal reports that, with status 7."""
    r = run('-m', '-', stdin=os.open('/dev/ptmx', os.O_RDWR | os.O_NOCTTY))
    assert r.returncode == 7 and 'terminal' in r.stderr


# ---- a long and narrow line ----

def line_of(trip_ms, mbit):
    return [*LINE, trip_ms, mbit]


@pytest.mark.alone
def test_first_byte_on_a_long_line(link):
    """Goal: with 100 ms between the sides, the first byte of a new connection
    arrives within 1.3 round trips, because DATA does not wait for OPENED."""
    j = link('tcp', 'unix', line=line_of(100, 100))
    assert j.relay.address
    took = []
    for _ in range(4):
        start = time.monotonic()
        a = j.client()
        a.send(b'x')
        b = j.target.accept()
        assert b.read(1) == b'x'
        b.send(b'y')
        assert a.read(1) == b'y'
        took.append(time.monotonic() - start)
        b.close()
    assert 0.095 < min(took) < 0.130, took


def pump(end, data):
    with contextlib.suppress(OSError):
        while True:
            end.send(data)


def drain(end):
    n = 0
    with contextlib.suppress(OSError):
        while True:
            data = end.recv()
            if not data:
                break
            n += len(data)
    return n


@pytest.mark.alone
@TIMES('back', (False, True), ids=('up', 'down'))
def test_ping_beside_bulk_on_a_narrow_line(link, pool, back):
    """Goal: at 5 Mbit/s and 20 ms, one byte sent back and forth beside bulk
    data takes at most a round trip and 60 ms (median).  The bulk data gets at
    least 0.7 of the bandwidth."""
    j = link('tcp', 'unix', line=line_of(20, 5))
    bulk, quiet = j.connect(), j.connect()
    if back:
        bulk = bulk[::-1]
    jobs = [pool.submit(pump, bulk[0], bytes(65536)), pool.submit(drain, bulk[1])]
    ping(*quiet)
    start, took = time.monotonic(), []
    # on a busy machine the rate may take two seconds to settle
    while time.monotonic() - start < 4:
        t = time.monotonic()
        ping(*quiet)
        took.append(time.monotonic() - t)
    spent = time.monotonic() - start
    j.relay.stop()
    n = max(job.result() or 0 for job in jobs)
    assert statistics.median(took[len(took) // 4:]) < 0.080, sorted(took)
    assert n > 0.7 * spent * 625000, (n, spent)


def test_cut_line_goes_on(link, pool):
    """Goal: after a short interruption of the line, both directions continue
    and arrive complete."""
    j = link('tcp', 'unix', line=line_of(20, 200))
    a, b = j.connect()
    ping(a, b)
    line = rig.children(j.relay.pid)[0]
    up, down = os.urandom(12 * MIB), os.urandom(12 * MIB)
    moved = []

    def counting(end, recv=rig.End.recv):
        data = recv(end)
        moved.append(len(data))
        return data
    b.recv = lambda *_: counting(b)
    job = pool.submit(exchange, pool, a, b, up, down)
    wait_for(lambda: sum(moved) > MIB)
    os.kill(line, signal.SIGUSR1)

    def still():
        n, end = len(moved), time.monotonic() + 0.7
        wait_for(lambda: time.monotonic() > end)
        return n == len(moved)
    wait_for(still)
    assert sum(moved) < len(up)
    for pid in (j.relay.pid,):
        assert rig.cpu_grows(pid) < 0.05
    os.kill(line, signal.SIGUSR2)
    job.result()
