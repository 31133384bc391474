"""Bytes, EOF and resets between every kind of source and every kind of target.

Sources: a TCP or Unix listener, stdin and stdout as two pipes or one
socketpair, and `nested`, which is relay as the command of another relay.
Targets: a TCP or Unix server, or a command.
"""
import contextlib
import itertools
import os
import random
import re
import resource
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time

import pytest

import rig
from rig import exchange, ping, wait_for

SOURCES = ('tcp', 'unix', 'pipes', 'socketpair', 'nested')
TARGETS = ('tcp', 'unix', 'command')
MATRIX = list(itertools.product(SOURCES, TARGETS))
MIB = 1 << 20
RANDOM = os.urandom(64 * MIB)

matrix = pytest.mark.parametrize('source, kind', MATRIX)
listening = pytest.mark.parametrize('source, kind', [m for m in MATRIX if m[0] in rig.LISTENERS])
sockets = pytest.mark.parametrize('source, kind', list(itertools.product(rig.LISTENERS, repeat=2)))


busy_or_not = pytest.mark.parametrize('busy', [False, True], ids=['idle', 'busy'])


# ---- bytes ----

@matrix
def test_integrity(joined, pool, source, kind):
    """Goal: 64 MiB of random bytes in each direction at the same time arrive
    complete, in order and once."""
    a, b = joined(source, kind).connect()
    exchange(pool, a, b, RANDOM, RANDOM[::-1] if source == kind else RANDOM[1:])


@matrix
def test_sizes(joined, pool, source, kind):
    """Goal: no byte is lost or added at any size near those of the buffers,
    including 0."""
    j = joined(source, kind)
    for n in (0, 1, 2, 4095, 4096, 4097, 65535, 65536, 65537, 262143, 262144, 262145):
        a, b = j.connect()
        exchange(pool, a, b, RANDOM[:n], RANDOM[n:2 * n])
        a.close()
        b.close()


@matrix
def test_small_messages(joined, source, kind):
    """Goal: 300 messages of one byte go back and forth without delay.  Nagle's
    algorithm and delayed acknowledgements, 40 ms each, would make it 12 s."""
    a, b = joined(source, kind).connect()
    ping(a, b)
    timer = threading.Timer(6, lambda: a.close())
    timer.start()
    for _ in range(300):
        ping(a, b)
    assert timer.is_alive(), 'too slow'
    timer.cancel()


# ---- half-close ----

@matrix
def test_client_ends_first(joined, pool, source, kind):
    """Goal: EOF from the client reaches the target, and the target can still
    answer."""
    j = joined(source, kind)
    a, b = j.connect()
    a.send(b'question')
    a.shut()
    assert b.read_all() == b'question'
    rig.quiet(j.relay.pid)
    assert a.silent()
    job = pool.submit(b.send, RANDOM[:MIB])
    assert a.read(MIB) == RANDOM[:MIB]
    job.result()
    rig.quiet(j.relay.pid)
    b.send(b'that was it')
    b.shut()
    assert a.read_all() == b'that was it'


@matrix
def test_target_ends_first(joined, source, kind):
    """Goal: EOF from the target reaches the client, and the client can still
    send."""
    j = joined(source, kind)
    a, b = j.connect()
    b.send(b'banner')
    b.shut()
    assert a.read_all() == b'banner'
    rig.quiet(j.relay.pid)
    assert b.silent()
    for _ in range(3):
        a.send(RANDOM[:MIB // 16])
        assert b.read(MIB // 16) == RANDOM[:MIB // 16]
        rig.quiet(j.relay.pid)
    a.shut()
    assert b.read_all() == b''


@matrix
def test_end_behind_a_full_buffer(joined, pool, source, kind):
    """Goal: EOF arrives after all bytes sent before it, also if the reader
    starts late."""
    a, b = joined(source, kind).connect()
    def fill():
        a.send(RANDOM[:4 * MIB])
        a.shut()
    job = pool.submit(fill)
    wait_for(lambda: not b.silent())
    assert b.read_all() == RANDOM[:4 * MIB]
    job.result()


@pytest.mark.parametrize('source', ['pipes', 'socketpair'])
@pytest.mark.parametrize('kind', TARGETS)
def test_stdio_ends_with_its_connection(joined, source, kind):
    """Goal: relay on stdin and stdout exits with status 0 when both directions
    have ended, and not earlier."""
    j = joined(source, kind)
    a, b = j.connect()
    b.shut()
    assert a.read_all() == b''
    rig.quiet(j.relay.pid)
    a.shut()
    assert b.read_all() == b''
    b.close()
    assert j.relay.wait() == 0


@pytest.mark.parametrize('kind', TARGETS)
@pytest.mark.parametrize('shape', ['pipe', 'socket'])
def test_target_ends_stderr_too(relay, target, kind, shape):
    """Goal: after the target's last byte relay closes stderr with stdout,
    because sshd forwards EOF only then.  The other direction stays open."""
    t = target(kind)
    a, i, o = rig.end_of_pipe_pair()
    if shape == 'pipe':
        mine, theirs = os.pipe()
    else:
        mine, theirs = (s.detach() for s in socket.socketpair())
    r = relay('-', *t.words, stdin=i, stdout=o, stderr=theirs)
    for fd in (i, o, theirs):
        os.close(fd)
    errors = rig.End(mine)
    b = t.accept()
    b.send(b'last words')
    assert errors.silent()
    b.shut()
    assert a.read_all() == b'last words'
    if kind != 'command':    # a command has its own stderr
        assert errors.read_all() == b''
    a.send(b'more')
    assert b.read(4) == b'more'
    a.shut()
    assert b.read_all() == b''
    b.close()
    assert r.wait() == 0
    a.close()
    errors.close()


# ---- resets and hang-ups ----

@pytest.mark.parametrize('kind', TARGETS)
@busy_or_not
def test_client_resets(joined, kind, busy):
    """Goal: a TCP client's reset is a reset at a TCP target.  A Unix target
    and a command are closed at once."""
    j = joined('tcp', kind, ['-v'])
    a, b = j.connect()
    ping(a, b)
    if busy:
        a.stuff(RANDOM[:MIB])
    a.reset()
    if kind == 'tcp':
        assert b.fate() == 'reset'
    else:
        b.fate()
        wait_for(b.gone)
        j.relay.says('reset')
    j.relay.says('closed')


@pytest.mark.parametrize('source', SOURCES)
@busy_or_not
def test_target_resets(joined, source, busy):
    """Goal: a TCP target's reset is a reset at a TCP client.  A Unix client
    and pipes are closed at once, and relay on stdin and stdout exits with
    status 4."""
    j = joined(source, 'tcp', ['-v'])
    a, b = j.connect()
    ping(a, b)
    if busy:
        b.stuff(RANDOM[:MIB])
    b.reset()
    fate = a.fate()
    if source == 'tcp':
        assert fate == 'reset'
    wait_for(a.dead)
    if source in ('pipes', 'socketpair'):
        assert j.relay.wait() == 4
    else:
        j.relay.says('closed')


@pytest.mark.parametrize('other', rig.LISTENERS)
@pytest.mark.parametrize('who', ['client', 'target'])
def test_reset_while_stuck(joined, other, who):
    """Goal: relay notices a reset while it holds bytes for a side that does
    not read."""
    if who == 'client':
        a, b = joined('tcp', other).connect()
    else:
        b, a = joined(other, 'tcp').connect()
    a.stuff(RANDOM[:MIB])
    a.reset()
    wait_for(b.gone)


@matrix
def test_client_closes_during_an_answer(joined, source, kind):
    """Goal: if the client closes while the target sends, the connection ends
    soon."""
    j = joined(source, kind)
    a, b = j.connect()
    ping(a, b)
    b.stuff(RANDOM[:MIB])
    a.close()
    wait_for(b.dead)
    if source in ('pipes', 'socketpair'):
        assert j.relay.wait() in (4, 5)


@pytest.mark.parametrize('source, kind', [m for m in MATRIX if m[0] not in ('tcp', 'nested')])
def test_client_closes_on_an_idle_connection(joined, source, kind):
    """Goal: relay notices the close of a Unix or stdio client on an idle
    connection, so a ProxyCommand ends with its ssh.  On TCP a close and a
    half-close look the same, so TCP is excluded."""
    j = joined(source, kind, ['-v'])
    a, b = j.connect()
    ping(a, b)
    rig.quiet(j.relay.pid)
    a.close()
    b.fate()
    j.relay.says('closed', 3)
    if source in ('pipes', 'socketpair'):
        assert j.relay.wait() in (0, 4)


@pytest.mark.parametrize('kind', TARGETS)
def test_reader_of_stdout_closes(joined, kind):
    """Goal: if the reader of stdout closes while stdin stays open, bytes from
    stdin still arrive.  The target's next byte ends relay with status 4."""
    j = joined('pipes', kind)
    a, b = j.connect()
    ping(a, b)
    a.shut_read()
    rig.quiet(j.relay.pid)
    a.send(b'still here')
    assert b.read(10) == b'still here'
    try:
        b.send(b'more')
    except BrokenPipeError:
        a.shut()
    assert j.relay.wait(3) == 4
    b.fate()


@pytest.mark.parametrize('kind', TARGETS)
def test_reader_closes_beside_a_stuck_target(joined, kind):
    """Goal: with EOF on stdin, no reader of stdout, and a target that does not
    read, relay exits."""
    j = joined('pipes', kind)
    a, b = j.connect()
    a.stuff(RANDOM[:MIB])
    a.close()
    assert j.relay.wait(3) == 4


@matrix
def test_target_closes_on_an_idle_connection(joined, source, kind):
    """Goal: after the target closes, the connection of a Unix client ends soon.
    That of another client ends when it sends again."""
    j = joined(source, kind)
    a, b = j.connect()
    ping(a, b)
    rig.quiet(j.relay.pid)
    b.close()
    a.fate()
    wait_for(a.dead, 3)


CLIENT = '''
import socket, sys
s = socket.socket(socket.AF_UNIX if '/' in sys.argv[1] else socket.AF_INET)
s.connect(sys.argv[1] if '/' in sys.argv[1] else ('127.0.0.1', int(sys.argv[1].rsplit(':')[1])))
s.sendall(b'hello')
s.recv(1)
sys.stdin.read()
'''


@listening
def test_client_is_killed(joined, source, kind):
    """Goal: a client killed with SIGKILL during a download ends its own
    connection and no other."""
    j = joined(source, kind)
    a, b = j.connect()
    client = subprocess.Popen([sys.executable, '-IS', '-c', CLIENT, j.relay.address],
                              stdin=subprocess.PIPE)
    doomed = j.target.accept()
    assert doomed.read(5) == b'hello'
    doomed.stuff(RANDOM[:MIB])
    client.kill()
    client.communicate()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        while True:
            doomed.send(RANDOM[:MIB])
    doomed.close()
    ping(a, b)


@sockets
def test_target_is_killed(joined, source, kind, tmp):
    """Goal: a server killed with SIGKILL during an upload ends its own
    connection and no other."""
    j = joined(source, kind)
    a, b = j.connect()
    doomed = j.client()
    theirs = j.target.accept()
    # The server process: only it holds the accepted connection.
    server = subprocess.Popen(['sleep', '99'], stdin=theirs.r)
    theirs.close()
    doomed.stuff(RANDOM[:MIB])
    server.kill()
    server.wait()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        while True:
            doomed.send(RANDOM[:MIB])
    ping(a, b)


# ---- many, slow, and too many ----

@listening
def test_slow_reader(joined, pool, lean, source, kind):
    """Goal: a target that does not read does not delay other connections, and
    relay's memory stays within its buffers."""
    j = joined(source, kind)
    a, b = j.connect()
    ping(a, b)
    before = rig.memory(j.relay.pid)
    stuck, slow = j.connect()
    sent = stuck.stuff(RANDOM[:MIB])
    assert rig.memory(j.relay.pid) - before < 4 * MIB
    assert rig.cpu_grows(j.relay.pid, 0.2) < 0.1
    for _ in range(200):
        ping(a, b)
    exchange(pool, a, b, RANDOM[:8 * MIB], RANDOM[:8 * MIB])
    stuck.shut()
    assert slow.digest()[0] == sent


@sockets
def test_1000_connections(joined, pool, source, kind):
    """Goal: 1,000 connections at the same time, each with its own bytes."""
    j = joined(source, kind)
    job = pool.submit(lambda: [j.target.accept() for _ in range(1000)])
    near = [j.client() for _ in range(1000)]
    far = job.result()
    j.ends += far
    for i, a in enumerate(near):
        a.send(b'%d' % i)
    for b in far:
        data = b.recv()
        b.send(data + b'!')
        b.shut()
    for i, a in enumerate(near):
        assert a.read_all() == b'%d!' % i
        a.shut()
    for b in far:
        assert b.read_all() == b''
    assert rig.cpu_grows(j.relay.pid, 0.2) < 0.1


@sockets
def test_quiet_beside_busy(joined, pool, source, kind):
    """Goal: beside a connection that is always busy, 500 idle ones are served
    soon when they send.  EOF, resets and new connections arrive, and relay
    sleeps when all rest."""
    j = joined(source, kind)
    busy = j.connect()
    quiet = [j.connect() for _ in range(500)]
    with rig.chatter(pool, *busy):
        took = []
        for a, b in quiet[::5]:
            began = time.monotonic()
            ping(a, b)
            took.append(time.monotonic() - began)
        assert statistics.median(took) < 0.05 and max(took) < 1
        ping(*j.connect())
        (a, b), (c, d), (e, f) = quiet[1:4]
        a.shut()
        assert b.read_all() == b''
        b.send(b'still')
        b.close()
        assert a.read_all() == b'still'
        c.close()
        assert d.read_all() == b''
        if source == 'tcp':
            e.reset()
            assert f.fate() == ('reset' if kind == 'tcp' else 'end')
        j.relay.proc.send_signal(signal.SIGUSR1)
        wait_for(lambda: j.relay.err().count('bytes there') >= 498)
    rig.quiet(j.relay.pid)
    assert rig.cpu_grows(j.relay.pid, 0.2) < 0.1


@sockets
def test_messages_at_random_moments(joined, pool, source, kind):
    """Goal: 100 mostly idle connections send from either end at random
    moments, alone or beside a busy connection.  Each byte arrives, also while
    a connection becomes idle or active."""
    j = joined(source, kind)
    busy, crowd = j.connect(), [j.connect() for _ in range(100)]
    chance = random.Random(source + kind)

    def talk(times):
        for n in range(times):
            sent = []
            for pair in chance.sample(crowd, 1 + chance.randrange(20)):
                writer, reader = chance.sample(pair, 2)
                writer.send(b'%d of %d' % (n, times))
                sent.append((reader, b'%d of %d' % (n, times)))
            for reader, word in sent:
                assert reader.read(len(word)) == word
            time.sleep(chance.random() * chance.choice((0.001, 0.02, 0.04)))
    talk(100)
    with rig.chatter(pool, *busy):
        talk(100)


def test_unix_client_that_closes_in_two_steps(joined):
    """Goal: a Unix client that closes its sending direction first and its
    receiving direction later has hung up, and its target sees that."""
    rig.close_in_two_steps(joined('unix', 'unix'))


@pytest.mark.parametrize('kind', TARGETS)
def test_signals_blocked_at_the_start(relay, target, kind):
    """Goal: if all signals were blocked at the start, relay still serves idle
    connections, reaps commands, and exits on SIGTERM."""
    t = target(kind)
    r = relay('127.0.0.1:0', *t.words,
              preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()))
    crowd = [(rig.connect(r.address), t.accept()) for _ in range(20)]
    for _ in range(3):
        rig.quiet(r.pid)
        for a, b in crowd:
            ping(a, b)
    for a, b in crowd[10:]:
        a.close()
        b.close()
    if kind == 'command':
        wait_for(lambda: len(rig.children(r.pid)) == 10)
    assert r.stop() == 0
    for a, b in crowd[:10]:
        a.close()
        b.close()


@sockets
def test_idle_without_signals(joined, source, kind):
    """Goal: relay waits for idle connections with poll alone: it catches
    neither SIGIO nor a real-time signal."""
    j = joined(source, kind)
    crowd = [j.connect() for _ in range(20)]
    rig.quiet(j.relay.pid)
    for a, b in crowd:
        ping(a, b)
    with open('/proc/%d/status' % j.relay.pid) as f:
        caught = int(re.search(r'^SigCgt:\s*(\w+)', f.read(), re.M).group(1), 16)
    assert caught & 1 << signal.SIGTERM - 1
    assert not [n for n in (signal.SIGIO, *range(32, 65)) if caught & 1 << n - 1]


@sockets
def test_stuck_beside_busy(joined, pool, source, kind):
    """Goal: beside a busy connection, readers that were stuck for long get
    everything when they read again."""
    j = joined(source, kind)
    busy = j.connect()
    crowd = [j.connect() for _ in range(50)]
    with rig.chatter(pool, *busy):
        sent = [a.stuff(RANDOM[:MIB]) for a, _ in crowd[:3]]
        for (a, b), n in zip(crowd, sent):
            a.shut()
            assert b.digest()[0] == n
    ping(*crowd[9])


def test_50_commands(joined):
    """Goal: 50 commands run at the same time; none is left when their
    connections have ended."""
    j = joined('tcp', 'command')
    pairs = [j.connect() for _ in range(50)]
    for a, b in pairs:
        ping(a, b)
    assert len(rig.children(j.relay.pid)) == 50
    for a, b in pairs:
        a.close()
        b.close()
    wait_for(lambda: not rig.children(j.relay.pid))
    rig.quiet(j.relay.pid)


def limited(n):
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (n, n))


@pytest.mark.parametrize('limit', [40, 41, 42])
@pytest.mark.parametrize('source, kind', [('tcp', 'tcp'), ('unix', 'unix'), ('tcp', 'command')])
def test_too_few_descriptors(relay, target, tmp, source, kind, limit):
    """Goal: with too few descriptors relay pauses, does not spin, logs that
    once, and serves all clients in the end."""
    t = target(kind)
    r = relay('127.0.0.1:0' if source == 'tcp' else tmp + '/from', *t.words,
              preexec_fn=limited(limit))
    near = [rig.connect(r.address) for _ in range(60)]
    for i, a in enumerate(near):
        a.send(b'%d' % i)
    r.says('descriptors')
    seen = set()
    for turn in range(60):
        if turn in (0, 3):
            assert rig.cpu_grows(r.pid, 0.3) < 0.1
        b = t.accept()
        wait_for(lambda: not b.silent())
        n = b.recv()
        seen.add(int(n))
        b.send(n)
        b.close()
        assert near[int(n)].read_all() == n
        near[int(n)].close()
    assert seen == set(range(60))
    assert r.err().count('descriptors') == 1


# ---- SIGTERM during a transfer ----

@matrix
def test_sigterm_in_the_middle(joined, tmp, source, kind):
    """Goal: on SIGTERM during a transfer TCP peers see a reset and others EOF.
    No file and no process is left."""
    j = joined(source, kind)
    a, b = j.connect()
    ping(a, b)
    a.stuff(RANDOM[:MIB])
    b.stuff(RANDOM[:MIB])
    assert j.relay.stop(timeout=5) == (0 if j.source in rig.LISTENERS + ('nested',) else 128 +
                                       signal.SIGTERM)
    fates = a.fate(), b.fate()
    assert fates[0] == 'reset' or source != 'tcp'
    assert fates[1] == 'reset' or kind != 'tcp'
    assert not os.path.exists(tmp + '/from')
    if kind == 'command':
        wait_for(lambda: not rig.alive(b.pid))


# ---- one end goes while the other is at work ----

def test_client_of_a_dead_parent(relay):
    """Goal: stdin is at EOF with megabytes that the client has not read, and stdout
    has no reader.  relay gives up, and the client sees no clean EOF."""
    (r, mine), (out, w), port = os.pipe(), os.pipe(), rig.free_port()
    j = relay('127.0.0.1:%d' % port, '-', stdin=r, stdout=w)
    os.close(r)
    os.close(w)
    with wait_for(lambda: connected(port)) as a:
        stdin = rig.End(os.open('/dev/null', os.O_RDONLY), mine)
        stdin.stuff(bytes(1 << 16))
        stdin.close()
        os.close(out)
        assert j.wait() == 4
        assert rig.End(a.dup()).fate() == 'reset'


def test_reader_closes_before_the_target_is_reached(relay):
    """Goal: if the reader of stdout closes while relay still connects, relay ends,
    and reports that the target did not get stdin."""
    (r, mine), (out, w), port = os.pipe(), os.pipe(), rig.free_port()
    j = relay('-w', '30', '-', '127.0.0.1:%d' % port, stdin=r, stdout=w)
    os.close(r)
    os.close(w)
    os.write(mine, b'request')
    os.close(out)
    assert j.wait(3) == 4
    assert 'before 127.0.0.1:%d was reached: Broken pipe' % port in j.err()
    os.close(mine)


def connected(port):
    with contextlib.suppress(ConnectionRefusedError):
        return socket.create_connection(('127.0.0.1', port))


def test_unix_client_that_still_sends(relay, tmp):
    """Goal: a Unix client that has got its answer and EOF, and still sends, gets no
    ECONNRESET."""
    assert relay(tmp + '/s', '--', 'sh', '-c', 'read x; echo answer; exec >&-; sleep 0.3').address
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(tmp + '/s')
        s.sendall(b'question\n')
        assert s.recv(100) == b'answer\n'
        with contextlib.suppress(BrokenPipeError):
            while True:
                s.sendall(bytes(1 << 16))
        assert s.recv(100) == b''
