"""A hostile far side.  evil.py replaces a hop's sh, and sends to the real near
relay whatever PROTOCOL prohibits or allows.

The user loses the tunnel and nothing else: memory and processor time stay
bounded, no file is touched here, and no text controls the terminal.
test_link.py has the breaches of PROTOCOL one by one, and a hostile near side.
"""
import os
import signal
import subprocess
import sys
import threading
import time
import unicodedata

import pytest

import evil
import rig
from rig import wait_for

TIMES = pytest.mark.parametrize
MIB = 1 << 20
EVIL = os.path.join(rig.HERE, 'evil.py')
slow = pytest.mark.skipif('SLOW' not in os.environ, reason='skipped: takes a minute; set SLOW=1')


def hop(lie):
    return '%s -IS %s %s' % (sys.executable, EVIL, lie)


def is_plain(text):
    """True if no character controls a terminal, in UTF-8 or as a byte that is
    not UTF-8 (surrogateescape)."""
    return all(c == '\n' or unicodedata.category(c) != 'Cc'
               and not '\udc80' <= c <= '\udc9f' for c in text)


def files(top):
    return sorted(os.path.join(d, name) for d, dirs, names in os.walk(top) for name in dirs + names)


def peak(pid):
    """The peak of pid's resident memory."""
    with open('/proc/%d/status' % pid) as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith('VmHWM'))


def stays_small(r, most):
    """Check the peak of memory.  With the sanitizers a process uses much more,
    so they are excluded."""
    if not rig.SANITIZED:
        assert peak(r.pid) < most


@pytest.fixture
def near(relay, tmp, mark):
    """near(word, ...) starts a relay with an empty home and empty directories.
    They must stay empty, and everything that relay prints must be plain text.
    """
    places = {name: '%s/%s' % (tmp, name)
              for name in ('HOME', 'TMPDIR', 'XDG_CACHE_HOME', 'XDG_RUNTIME_DIR', 'PWD')}
    for path in places.values():
        os.mkdir(path)
    started = []

    def start(*words, **popen):
        started.append(relay(*words, env=dict(os.environ, **places), cwd=places['PWD'], **popen))
        return started[-1]
    yield start
    cache = places['XDG_CACHE_HOME'] + '/relay'
    for path in places.values():
        assert [f for f in files(path) if f != cache
                and not (f.startswith(cache) and f.endswith('.sock'))] == []
    for r in started:
        with open(r.log, 'rb') as f:
            assert is_plain(f.read().decode(errors='surrogateescape')), r.err()[:2000]


def fails(r, expected=''):
    """relay must exit by itself with status 7, a line with the cause, and no
    address."""
    assert r.wait() == 7, r.err()[:2000]
    assert r.proc.stdout.read() == b''
    assert any(line.startswith('relay: ') and expected in line for line in r.err().splitlines()), \
        r.err()[:2000]


# ---- before the link is up ----

EXPECTED = {'huge-line': '64 KiB of other', 'noise': '64 KiB of other', 'answers': '64 KiB of other',
        'left': '64 KiB of other', 'half-magics': '64 KiB of other',
        'odd-answer': 'unexpected answer', 'empty-answer': 'unexpected answer',
        'no': '-x has to name',
        'none': 'no relay here fits its type', 'fail': 'no directory can store and run it',
        'at-and-noise': '64 KiB of other',
        'leaves-the-copy': 'ended with status 0', 'deaf-in-the-copy': 'cannot reach',
        'stderr': 'cannot reach'}


@TIMES('lie', evil.SHELL)
def test_lies_of_a_shell(near, lie):
    """Goal: for any answer of the far shell relay exits soon with status 7 and
    one sentence, and its listeners are closed."""
    r = near('-v', '-L', '127.0.0.1:0:/a', '-R', '127.0.0.1:0:/b', hop(lie))
    fails(r, EXPECTED.get(lie, 'asked for a binary that was not offered'))
    assert len(r.err()) < 8000 + (lie == 'stderr') * 200000


@TIMES('lie', evil.SILENT)
def test_silence(near, lie):
    """Goal: a far side that does not answer costs no memory.  relay sleeps, or
    reads what arrives, and can be stopped at any time."""
    r = near('-L', '127.0.0.1:0:/a', hop(lie))
    r.says('reaching')
    if lie == 'chatters-on-stderr':
        wait_for(lambda: len(r.err()) > MIB)
    else:
        rig.quiet(r.pid)
    assert r.proc.poll() is None
    stays_small(r, 12 * MIB)
    assert r.stop(timeout=4) == 0


@slow
@TIMES('words',
       [['-m', '127.0.0.1:0', '--', sys.executable, '-c',
         'import os, sys; os.write(1, bytes.fromhex(sys.argv[1])); sys.stdin.read()',
         evil.wire.MAGIC.hex()], ['-L', '127.0.0.1:0:/a', hop('magic-and-silent')]],
       ids=['m', 'L'])
def test_magic_and_no_more(near, words):
    """Goal: relay gives up after 45 s if the far side sends its magic and
    nothing else."""
    r = near(*words)
    assert r.wait(60) == 7
    assert 'nothing was received from the other side for 45 s' in r.err()


# ---- a link ----

def stuff_all(ends):
    """Write to each end until all of them have stayed full for 500 ms.  Return
    the number of bytes written."""
    sent, since = 0, time.monotonic()
    while time.monotonic() < since + 0.5:
        for a in ends:
            try:
                sent += os.write(a.w, bytes(65536))
                since = time.monotonic()
            except BlockingIOError:
                continue
        time.sleep(0.005)
    return sent


def echoes(a, data=b'are you there'):
    a.send(data)
    return a.read(len(data)) == data


def test_one_refused_stream(near):
    """Goal: every second stream is refused with text that would control a
    terminal; the other streams continue."""
    r = near('-L', '127.0.0.1:0:/a', hop('refuses'))
    good = []
    for i in range(10):
        if i % 2:
            assert rig.fate_at(r.address) == 'reset'
            continue
        good.append(rig.connect(r.address))
        assert echoes(good[-1])
    assert all(map(echoes, good))
    lines = [line for line in r.err().splitlines() if 'all is well' in line]
    assert len(lines) == 5 \
        and all(line.startswith('relay: %s: ' % os.uname().nodename)
                or line.startswith('relay: python: ') for line in lines)
    for a in good:
        a.close()


def test_all_that_is_allowed(near, lean):
    """Goal: a far side fills the windows of 100 streams whose clients do not
    read.  relay holds that much and no more, and sleeps."""
    r = near('-L', '127.0.0.1:0:/a', hop('fills'))
    ends = [rig.connect(r.address) for _ in range(100)]
    for a in ends:
        wait_for(lambda: not a.silent())
    rig.quiet(r.pid)
    stays_small(r, 90 * MIB)
    for a in ends:
        a.close()


def test_credit_without_end(near, lean):
    """Goal: a far side gives credit for gigabytes and then does not read.
    relay does not buffer that much."""
    r = near('-L', '127.0.0.1:0:/a', hop('credits'))
    ends = [rig.connect(r.address) for _ in range(60)]
    stuff_all(ends)
    rig.quiet(r.pid)
    stays_small(r, 40 * MIB)
    for a in ends:
        a.close()


@TIMES('lie', ['late', 'later-words'])
def test_hostile_frames_beside_work(near, pool, lie):
    """Goal: beside an endless flow of false times, pings and unknown frames,
    bytes arrive complete in both directions, in bounded memory."""
    r = near('-L', '127.0.0.1:0:/a', hop(lie))
    a = rig.connect(r.address)
    data = os.urandom(300000)
    job = pool.submit(a.send, data)
    assert a.read(len(data)) == data
    job.result()
    stays_small(r, 24 * MIB)
    a.close()
    rig.quiet(r.pid)


def test_endless_stderr_beside_work(near):
    """Goal: a far side writes to stderr for ever, faster than the local
    terminal shows it.  relay continues to work."""
    ours, theirs = os.pipe()
    over, seen = threading.Event(), []

    def show():
        while not over.wait(0.005):
            seen.append(os.read(ours, 4096))
    terminal = threading.Thread(target=show)
    r = near('-L', '127.0.0.1:0:/a', hop('talks'), stderr=theirs)
    os.close(theirs)
    terminal.start()
    try:
        wait_for(lambda: len(seen) > 20)
        began = time.monotonic()
        a = rig.connect(r.address)
        assert all(echoes(a) for _ in range(3))
        a.close()
        assert time.monotonic() - began < 4
        assert r.stop(timeout=4) == 0
    finally:
        over.set()
        terminal.join()
        os.close(ours)


def test_opening_back(near, target):
    """Goal: if the far side opens a stream to a socket here, no connection is
    made, and relay ends the link and reconnects."""
    t = target('unix')
    r = near('-L', '127.0.0.1:0:/a', hop('opens'))
    for _ in range(2):
        a = rig.connect(r.address)
        a.send(t.words[0].encode())
        assert a.fate() == 'reset'
        a.close()
    assert not t.waiting()
    assert r.says('an OPEN that is not allowed')
    assert r.stop() == 0


def test_far_side_that_never_answers(near):
    """Goal: if the far side never answers, clients wait and can close, and no
    process spins."""
    r = near('-L', '127.0.0.1:0:/a', hop('mute'))
    ends = [rig.connect(r.address) for _ in range(20)]
    stuff_all(ends)
    rig.quiet(r.pid)
    assert rig.cpu_grows(r.pid) < 0.1
    stays_small(r, 24 * MIB)
    for a in ends:
        a.reset()
    rig.quiet(r.pid)
    assert r.stop() == 0


# ---- a session ----

KEPT = ('-k', '60', '-L', '127.0.0.1:0:/a')
BROKE = 'the other side broke the protocol: '
BREACHES = {
    'data-at-twice': 'DATA that was read before',
    'data-at-early-twice': 'DATA that was read before',
    'data-at-beyond': 'DATA beyond the window',
    'data-at-the-end-of-numbers': 'DATA for a stream that is not open',
    'data-at-without-data': 'a length that this type of frame cannot have',
    'data-after-final': 'DATA for a stream that is not open',
    'data-at-after-final': 'DATA for a stream that is not open',
    'final-of-fewer-bytes': 'an end before the last DATA',
    'final-twice': 'a second FINAL, or one after EOF',
    'final-after-eof': 'a second FINAL, or one after EOF',
    'free-of-an-open-stream': 'a FREE that is not allowed',
    'lost-is-this-slot': 'a LOST that is not possible',
    'lost-of-no-slot': 'LOST of a slot that is not allowed',
    'lost-of-a-later-generation': 'a generation that was not used',
    'tail-of-this-slot': 'a TAIL that is not possible',
    'tail-of-no-slot': 'TAIL of a slot that is not in use',
    'tail-of-a-later-generation': 'TAIL of a slot that is not in use',
    'drain': 'a DRAIN that is not allowed',
    'ack-goes-back': 'an ACK of bytes that were not sent',
    'ack-ahead': 'an ACK of bytes that were not sent',
}


@TIMES('lie', evil.SLOTS)
def test_breach_in_a_session(near, lie):
    """Goal: if an offset, a slot, a generation or a count is not possible, the
    link ends with a message that names it, and relay reconnects."""
    r = near(*KEPT, hop(lie))
    assert rig.fate_at(r.address) == 'reset'
    r.says(BROKE + BREACHES[lie] + '; reconnecting')
    stays_small(r, 12 * MIB)
    assert r.stop() == 0


def test_old_frames_in_a_session(near):
    """Goal: frames about channels of earlier generations are ignored."""
    r = near(*KEPT, hop('harmless'))
    a = rig.connect(r.address)
    assert echoes(a)
    rig.quiet(r.pid)
    a.close()
    assert r.stop() == 0 and 'has ended' not in r.err()


REJOINS = {
    'join-is-ahead': BROKE + 'a SESSION with a count of bytes that are not kept',
    'join-is-replayed': BROKE + 'a SESSION with a count of bytes that are not kept',
    'join-has-data': BROKE + 'another frame before HELLO',
    'join-is-refused': 'no memory',
}


@TIMES('lie', evil.REJOIN)
def test_lies_to_a_join(near, lie):
    """Goal: if the answer to a join is not possible, or is that of an earlier
    join, the connections are reset with a message.  New ones work."""
    r = near(*KEPT, hop(lie))
    files = []
    for i in range(2):
        a = rig.connect(r.address)
        assert echoes(a)
        files.append(os.listdir('/proc/%d/fd' % r.pid))
        a.send(b'end')
        assert a.fate() == 'reset'
        a.close()
        wait_for(lambda: r.err().count('the session on ') > i)
    assert len(files[0]) == len(files[1])
    assert REJOINS.get(lie, 'the far side has ended meanwhile') in r.says('the session on ')
    stays_small(r, 12 * MIB)
    assert r.stop() == 0


def test_greeting_of_a_far_side_that_reads_nothing(near):
    """Goal: the far side starts a session and ends before it has read anything.
    relay reconnects, finds no session, and starts another one."""
    r = near('-v', *KEPT, hop('greets-without-reading'))
    wait_for(lambda: r.err().count('the session on ') > 1 or r.proc.poll() is not None)
    assert 'has ended: its channel was closed; reconnecting' in r.err()
    assert r.stop() == 0


def test_lie_to_the_join_of_W(near):
    """Goal: the same ends -W, with the cause."""
    r = near('-k', '60', '-W', '/a', hop('join-is-ahead'), stdin=subprocess.PIPE)
    r.proc.stdin.write(b'end')
    r.proc.stdin.flush()
    assert r.wait() == 7
    assert REJOINS['join-is-ahead'] in r.err()
    r.proc.stdin.close()


def test_bytes_held_back(near, lean):
    """Goal: the far side sends all that the windows allow, except each first
    byte.  relay holds that much and no more, and sleeps."""
    r = near(*KEPT, hop('holds-back'))
    ends = [rig.connect(r.address) for _ in range(100)]
    wait_for(lambda: peak(r.pid) > 8 * MIB)
    rig.quiet(r.pid)
    assert all(a.silent() for a in ends)
    stays_small(r, 90 * MIB)
    for a in ends:
        a.close()


@TIMES('lie', ['gaps', 'gaps-before-a-piece'])
def test_tiny_pieces(near, lie):
    """Goal: thousands of tiny pieces with gaps reset their stream alone, and
    take little memory and processor time."""
    r = near(*KEPT, hop(lie))
    a, b = rig.connect(r.address), rig.connect(r.address)

    def is_reset():
        b.send(b'?')
        return b.read(4) == b'true'
    wait_for(is_reset)
    if not rig.SANITIZED:
        assert rig.cpu(r.pid) < 2
    stays_small(r, 24 * MIB)
    a.close()
    b.close()


SECOND = {
    'second-lost-behind': 'a LOST that is not possible',
    'second-lost-ahead': 'a LOST that is not possible',
    'second-tail-of-a-slot-in-use': 'a TAIL that is not possible',
    'second-tail-elsewhere': 'a TAIL that is not possible',
    'second-tail-ends-in-a-frame': 'a TAIL that ends in a frame',
}


@TIMES('lie', evil.SECOND)
def test_lies_about_another_channel(near, tmp, monkeypatch, lie):
    """Goal: the far side reports bulk, so relay starts another channel.  Lies on
    it about the first one end the link with a message."""
    with open(tmp + '/ssh', 'w') as f:
        f.write('#!/bin/sh\ncase $1 in -V) exec echo OpenSSH_ >&2 ;;\n'
                '-G) exec echo controlmaster false ;; esac\nexec %s\n' % hop(lie))
    os.chmod(tmp + '/ssh', 0o755)
    monkeypatch.setenv('RELAY_SSH', tmp + '/ssh')
    r = near('-L', '127.0.0.1:0:/a', 'host')
    a = rig.connect(r.address)
    r.says('the link to host has ended: ' + BROKE + SECOND[lie])
    assert a.fate() == 'reset'
    a.close()
    assert r.stop() == 0


# ---- listening on the far side ----

@TIMES('lie, status',
       [('listens-not', 3), ('listens-endless', 3), ('listens-escapes', 0),
        ('listens-everywhere', 0)])
def test_lies_about_listening(near, target, lie, status):
    """Goal: any listening address that the far side reports is printed as
    plain text, on stdout too, or refused with status 3."""
    t = target('unix')
    r = near('-R', '127.0.0.1:0:' + t.path, hop(lie))
    if status == 0:
        printed = r.proc.stdout.read().decode(errors='surrogateescape')
        assert printed.startswith('127.0.0.1:1') and is_plain(printed), printed
        assert r.stop() == 0
    else:
        assert r.wait() == status, r.err()
        assert r.proc.stdout.read() == b''
    assert not t.waiting()


def test_accepts_without_end(near, target):
    """Goal: a far side reports accepted connections without end.  They reach
    only the target that -R names, at most -c at a time."""
    t, other = target('unix'), target('unix')
    r = near('-c', '20', '-R', '127.0.0.1:0:' + t.path, '-L', '127.0.0.1:0:' + other.path,
             hop('accepts'))
    assert r.addresses
    rig.quiet(r.pid)
    ends = []
    while t.waiting():
        ends.append(t.accept())
    assert len(ends) == 20
    assert not other.waiting()
    for b in ends[:5]:
        b.close()
    for _ in range(5):
        ends.append(t.accept())
    rig.quiet(r.pid)
    assert not t.waiting()
    for b in ends:
        b.close()


# ---- relay -n ----

@TIMES('lie, seconds', [('probe-empty', 20), ('probe-escapes', 20), ('probe-noise', 5)])
def test_lies_to_a_probe(near, lie, seconds):
    """Goal: relay -n reports in plain words what is wrong with the hop, and
    exits with status 7."""
    r = near('-n', '-L', '8888:/a', hop(lie))
    assert r.wait(seconds) == 7
    text = r.proc.stdout.read().decode(errors='surrogateescape')
    assert 'FAIL' in text and is_plain(text), text


def test_probe_of_a_hop_without_stderr(near):
    """Goal: if a hop closes its stderr and does not answer, relay -n waits
    without spinning, and a signal ends the wait."""
    r = near('-n', '-L', '8888:/a', hop('probe-stderr-ends'))
    wait_for(lambda: rig.children(r.pid))
    rig.quiet(r.pid)
    assert rig.cpu_grows(r.pid) < 0.1
    r.proc.send_signal(signal.SIGTERM)
    assert r.wait() == 7
