"""The kinds of stdin and stdout: pipes, sockets, files, terminals, /dev/null.
"""
import os
import re
import shutil
import socket
import subprocess
import sys
import tty

import pytest

import rig

TIMES = pytest.mark.parametrize
MIB = 1 << 20
RANDOM = os.urandom(MIB)
PACKETS = [(1,), (511,), (4095,), (4096,), (4095, 1, 511, 4096)]

# Writes the file argv[1] to stdout in packets of argv[2:] bytes.
WRITER = '''
import fcntl, os, sys
fcntl.fcntl(1, fcntl.F_SETFL, os.O_DIRECT)
data, sizes, i = open(sys.argv[1], 'rb').read(), [int(n) for n in sys.argv[2:]], 0
while data:
    n = sizes[i % len(sizes)]
    os.write(1, data[:n])
    data, i = data[n:], i + 1
'''
# Sends stdin to the command argv[2:] through a pipe, in packets of argv[1]
# bytes.
SHIM = '''
import os, subprocess, sys
r, w = os.pipe2(os.O_DIRECT)
child = subprocess.Popen(sys.argv[2:], stdin=r)
os.close(r)
while True:
    data = os.read(0, int(sys.argv[1]))
    if not data:
        break
    os.write(w, data)
os.close(w)
sys.exit(child.wait())
'''
PYTHON = [sys.executable, '-IS', '-c']


def far_of(*words):
    return ['--', rig.RELAY, '-m', '-', *words]


# ---- pipes in packet mode ----

def in_packets(end, data, sizes):
    i = 0
    while data:
        n = sizes[i % len(sizes)]
        end.send(data[:n])
        data, i = data[n:], i + 1
    end.shut()


def start_stdio(way, relay, path, tmp, **stdio):
    if way == 'direct':
        return relay('-', path, **stdio)
    if way == 'link':
        return relay('-m', '-', *far_of(path), **stdio)
    os.mkdir(tmp + '/home')
    return relay('-W', path, 'env HOME=%s/home PATH=/usr/bin:/bin' % tmp, **stdio)


def packet_pipe():
    """(our End that writes, the reader's descriptor)."""
    r, w = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)
    a = rig.End(w)
    a.r = -1
    return a, r


def arrive_late(pool, r, sender, reader, sizes):
    """Check that every byte arrives at a reader that starts when relay is
    full."""
    data = RANDOM[:4000] if sizes == (1,) else RANDOM
    job = pool.submit(in_packets, sender, data, sizes)
    rig.quiet(r.pid)
    got = reader.read_all()
    job.result()
    assert len(got) == len(data)
    assert got == data


@TIMES('sizes', PACKETS, ids=str)
@TIMES('way', ['direct', 'link', 'tunnel'])
def test_packets_on_stdin(relay, pool, target, tmp, way, sizes):
    """Goal: a pipe in packet mode drops what a read has no space for.  Still
    every byte of stdin arrives."""
    t = target('unix')
    a, i = packet_pipe()
    r = start_stdio(way, relay, t.path, tmp, stdin=i)
    os.close(i)
    b = t.accept()
    arrive_late(pool, r, a, b, sizes)
    b.close()
    assert r.wait() == 0, r.err()
    a.close()


@TIMES('sizes', PACKETS, ids=str)
def test_packets_on_stdin_as_to(relay, pool, tmp, sizes):
    """Goal: the same with stdin and stdout as target."""
    a, i = packet_pipe()
    r = relay(tmp + '/from', '-', stdin=i)
    os.close(i)
    b = rig.reach(tmp + '/from')
    arrive_late(pool, r, a, b, sizes)
    b.close()
    assert r.wait() == 0, r.err()
    a.close()


@TIMES('sizes', PACKETS, ids=str)
def test_packets_of_a_command(relay, tmp, sizes):
    """Goal: the same for a command that puts its stdout into packet mode."""
    data = RANDOM[:4000] if sizes == (1,) else RANDOM
    with open(tmp + '/data', 'wb') as f:
        f.write(data)
    r = relay(tmp + '/from', '--', *PYTHON, WRITER, tmp + '/data', *map(str, sizes))
    a = rig.reach(r.address)
    rig.wait_for(lambda: not a.silent())
    rig.quiet(r.pid)
    assert a.read_all() == data
    a.close()


@TIMES('size', [511, 4095, 4096])
def test_packets_of_the_wire(relay, pool, target, tmp, size):
    """Goal: the same for the far side of a link whose stdin is such a pipe."""
    t = target('unix')
    r = relay('-m', tmp + '/from', '--', *PYTHON, SHIM, str(size), rig.RELAY, '-m', '-', t.path)
    a = rig.reach(r.address)
    b = t.accept()
    rig.exchange(pool, a, b, RANDOM, RANDOM[1:])
    a.close()
    b.close()


# ---- sockets that keep message boundaries ----

@TIMES('which', ['stdin', 'stdout', 'both'])
@TIMES('kind', [socket.SOCK_SEQPACKET, socket.SOCK_DGRAM], ids=['seqpacket', 'dgram'])
@TIMES('way, status', [('direct', 6), ('to', 6), ('link', 6), ('far', 7)])
def test_message_sockets(relay, pool, target, tmp, way, status, kind, which):
    """Goal: a socket that keeps message boundaries is refused with one line
    before a byte is lost."""
    t = target('unix')
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with ours, theirs:
        stdio = {name: theirs for name in ('stdin', 'stdout') if which in (name, 'both')}
        stdio.setdefault('stdin', subprocess.DEVNULL)
        words = {'direct': ['-', t.path], 'to': [tmp + '/from', '-'],
                 'link': ['-m', '-', *far_of(t.path)], 'far': ['-m', '-', t.path]}[way]
        r = relay(*words, **stdio)
        if way == 'to':
            rig.reach(tmp + '/from').close()
        assert r.wait() == status, r.err()
        lines = [line for line in r.err().splitlines() if 'stdin and stdout' in line]
        assert len(lines) == 1 and 'SOCK_STREAM' in lines[0], r.err()


# ---- files ----

strace = pytest.mark.skipif(not shutil.which('strace') or rig.SANITIZED,
                            reason='skipped: no strace (apt-get install strace), or LeakSanitizer '
                                   'does not work under it')


def calls_in(table):
    """Read the output of strace -c: {name: calls}."""
    with open(table) as f:
        rows = [line.split() for line in f]
    return {row[-1]: int(row[3]) for row in rows if len(row) >= 5 and re.match(r'[0-9.]+$', row[0])
            and row[-1] != 'total'}


@strace
@TIMES('sink', ['file', 'append', 'null'])
@TIMES('way', ['direct', 'link'])
def test_few_calls_for_a_file(pool, target, tmp, mark, way, sink):
    """Goal: relay reads and writes a file and /dev/null in large pieces: at
    most one poll and one write for each 4 KiB of 8 MiB."""
    t = target('unix')
    data = RANDOM * 8
    words = ['-', t.path] if way == 'direct' else ['-m', '-', *far_of(t.path)]
    path = os.devnull if sink == 'null' else tmp + '/out'
    with open(path, 'ab' if sink == 'append' else 'wb') as out:
        p = subprocess.Popen(['strace', '-c', '-o', tmp + '/calls', rig.RELAY, *words],
                             stdin=subprocess.DEVNULL, stdout=out)
    b = t.accept()
    pool.submit(b.send, data).result()
    b.shut()
    b.read_all()
    assert p.wait(rig.PATIENCE) == 0
    b.close()
    if sink != 'null':
        with open(path, 'rb') as f:
            assert f.read() == data
    calls = calls_in(tmp + '/calls')
    writes = sum(calls.get(name, 0) for name in ('write', 'writev', 'splice'))
    assert calls['poll'] < len(data) >> 12 and writes < len(data) >> 12, calls


# ---- every kind of stdin with every kind of stdout ----

KINDS = ('pipe', 'socketpair', 'tcp', 'file', 'pty', 'null')


def tcp_pair():
    with socket.create_server(('127.0.0.1', 0)) as listener:
        a = socket.create_connection(listener.getsockname())
        return a, listener.accept()[0]


def duplex(kind):
    """(our descriptor, relay's)."""
    if kind == 'pty':
        ours, theirs = os.openpty()
        tty.setraw(theirs)
        return ours, theirs
    return (s.detach() for s in (socket.socketpair() if kind == 'socketpair' else tcp_pair()))


def stdin_of(kind, path, data):
    """(our End or None, relay's descriptor)."""
    if kind == 'file':
        with open(path, 'wb') as f:
            f.write(data)
        return None, os.open(path, os.O_RDONLY)
    if kind == 'null':
        return None, os.open(os.devnull, os.O_RDONLY)
    if kind == 'pipe':
        theirs, ours = os.pipe()
    else:
        ours, theirs = duplex(kind)
    return rig.End(ours), theirs


def stdout_of(kind, path):
    """(our End or None, relay's descriptor)."""
    if kind in ('file', 'null'):
        return None, os.open(path if kind == 'file' else os.devnull, os.O_WRONLY | os.O_CREAT,
                             0o600)
    ours, theirs = os.pipe() if kind == 'pipe' else duplex(kind)
    return rig.End(ours), theirs


@TIMES('way', ['direct', 'link'])
@TIMES('stdout', KINDS)
@TIMES('stdin', KINDS)
def test_every_kind(relay, pool, target, tmp, stdin, stdout, way):
    """Goal: 1 MiB arrives in each direction at the same time, and EOF after
    it, for each kind of stdin and stdout."""
    t = target('unix')
    up, down = b'' if stdin == 'null' else RANDOM, RANDOM[::-1]
    source, i = stdin_of(stdin, tmp + '/in', up)
    sink, o = stdout_of(stdout, tmp + '/out')
    r = start_stdio(way, relay, t.path, tmp, stdin=i, stdout=o)
    os.close(i)
    os.close(o)
    b = t.accept()
    jobs = [pool.submit(b.send, down)]
    if source:
        jobs.append(pool.submit(source.send, up))
    arrived = pool.submit(b.read, len(up))
    if sink:
        assert sink.read(len(down)) == down
    assert arrived.result() == up
    for job in jobs:
        job.result()
    b.shut()
    if source:
        source.close()
    assert b.read_all() == b''
    b.close()
    assert r.wait() == 0, r.err()
    if stdout == 'file':
        with open(tmp + '/out', 'rb') as f:
            assert f.read() == down
    if sink and stdout != 'pty':
        assert sink.read_all() == b''
    if sink:
        sink.close()
