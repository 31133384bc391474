"""A short part of the matrix under faults that a system's manual allows: see
faults.c.
"""
import contextlib
import os
import shutil
import signal
import stat
import subprocess
import tempfile

import pytest

import rig
from rig import exchange, ping, wait_for
from test_ends import MATRIX, RANDOM

FAULTS = {'short': dict(FAULTS_SHORT='1'),
          'eintr': dict(FAULTS_EINTR='2'),
          'eagain': dict(FAULTS_EAGAIN='2'),
          'all': dict(FAULTS_SHORT='1', FAULTS_EINTR='4', FAULTS_EAGAIN='4')}


@pytest.fixture(scope='module')
def library():
    """The library, if relay loads it; a static binary does not."""
    cc = os.environ.get('CC', 'cc').split()
    if not shutil.which(cc[0]):
        pytest.skip('no C compiler')
    path = tempfile.mkdtemp(prefix='rf', dir='/tmp')
    so, count = path + '/faults.so', path + '/count'
    subprocess.run(cc + ['-shared', '-fPIC', '-o', so, os.path.join(rig.HERE, 'faults.c'), '-ldl'],
                   check=True)
    subprocess.run([rig.RELAY, '-', '--', 'cat'], input=b'x' * 10000, stdout=subprocess.DEVNULL,
                   timeout=rig.PATIENCE,
                   env=dict(os.environ, LD_PRELOAD=so, FAULTS_SHORT='1', FAULTS_COUNT=count,
                            ASAN_OPTIONS=asan()))
    try:
        with open(count) as f:
            taken = int(f.read()) > 1000
    except FileNotFoundError:
        taken = False
    if taken:
        yield so
    shutil.rmtree(path)
    if not taken:
        pytest.skip('this binary takes no preloaded library')


def asan():
    return os.environ.get('ASAN_OPTIONS', '') + ':verify_asan_link_order=0'


@pytest.fixture(params=FAULTS)
def faults(request, library, monkeypatch):
    """The environment of a faulty system."""
    for name, value in dict(FAULTS[request.param], LD_PRELOAD=library, ASAN_OPTIONS=asan()).items():
        monkeypatch.setenv(name, value)
    return request.param


@pytest.mark.parametrize('source, kind', MATRIX)
def test_exchange(joined, pool, faults, source, kind):
    """Goal: many bytes in each direction at the same time arrive complete, and
    few bytes with the same relay."""
    j = joined(source, kind)
    for n in (20000 if faults in ('short', 'all') else 4 << 20, 1, 0):
        a, b = j.connect()
        exchange(pool, a, b, RANDOM[:n], RANDOM[n:2 * n])
        a.close()
        b.close()


@pytest.mark.parametrize('source, kind', MATRIX)
def test_half_closes(joined, faults, source, kind):
    """Goal: EOF from the target, then bytes from the client, then its EOF."""
    a, b = joined(source, kind).connect()
    ping(a, b, b'hello')
    b.shut()
    assert a.read_all() == b''
    a.send(b'so long')
    a.shut()
    assert b.read_all() == b'so long'


@pytest.mark.parametrize('source', ['tcp', 'unix', 'pipes'])
def test_reset(joined, faults, source):
    """Goal: a reset arrives as a reset."""
    j = joined(source, 'tcp')
    a, b = j.connect()
    ping(a, b)
    b.reset()
    assert a.fate() == 'reset' or source != 'tcp'
    if source == 'pipes':
        assert j.relay.wait() == 4


def test_many(joined, faults):
    """Goal: 50 connections at the same time."""
    j = joined('tcp', 'unix')
    pairs = [j.connect() for _ in range(50)]
    for i, (a, b) in enumerate(pairs):
        ping(a, b, b'%d' % i)
    assert j.relay.err() == ''


def test_words(run, faults, target, tmp):
    """Goal: messages are written completely, and the exit statuses stay the
    same."""
    r = run('-', tmp + '/none')
    assert r.returncode == 1 and r.stderr.startswith('relay: ') and r.stderr.endswith('\n')
    assert 'No such file or directory' in r.stderr
    assert run('-', '--', 'no-such-command-here').returncode == 127
    assert run('-', '--', 'sh', '-c', 'exit 3').returncode == 5
    assert run('-z', *target().words).returncode == 0


@pytest.mark.parametrize('name', ['sock', 'n' * 200])
def test_socket_is_private_from_the_first_instant(library, monkeypatch, relay, target, tmp, name):
    """Goal: at no time between bind() and chmod() can others connect."""
    monkeypatch.setenv('LD_PRELOAD', library)
    monkeypatch.setenv('ASAN_OPTIONS', asan())
    monkeypatch.setenv('FAULTS_MODES', tmp + '/modes')
    r = relay(tmp + '/' + name, *target().words, preexec_fn=lambda: os.umask(0))
    assert r.address
    with open(tmp + '/modes') as f:
        assert set(f.read().split()) == {'600'}


# ---- starts at once on one socket path ----

@pytest.fixture
def preloaded(library, monkeypatch):
    """preloaded(NAME=value) returns the environment for the library with that
    setting."""
    def preload(**settings):
        for name, value in dict(settings, LD_PRELOAD=library, ASAN_OPTIONS=asan()).items():
            monkeypatch.setenv(name, value)
    return preload


def sockets(path):
    """The socket files in a directory: {name: time of creation}."""
    found = {}
    for name in os.listdir(path):
        with contextlib.suppress(FileNotFoundError):
            st = os.lstat(path + '/' + name)
            if stat.S_ISSOCK(st.st_mode):
                found[name] = st.st_mtime_ns
    return found


class Starts:
    """n relays started at the same time on one path; exactly one of them
    listens."""

    def __init__(self, n, path, to):
        self.path = path
        self.all = [subprocess.Popen([rig.RELAY, path, to], stdin=subprocess.DEVNULL,
                                     stdout=subprocess.PIPE,
                                     stderr=subprocess.PIPE) for _ in range(n)]

    def winner(self):
        wait_for(lambda: sum(p.poll() is None for p in self.all) <= 1,
                 what='all starts but one end')
        ended = [p for p in self.all if p.poll() is not None]
        results = [(p.returncode, p.stderr.read().decode()) for p in ended]
        assert len(ended) == len(self.all) - 1, results
        assert all(status == 3 and 'in use' in words
                   and words.count('\n') <= 2 for status, words in results), results
        winner, = set(self.all) - set(ended)
        assert winner.stdout.read() == self.path.encode() + b'\n'
        assert subprocess.run([rig.RELAY, '-z', self.path], timeout=rig.PATIENCE).returncode == 0
        return winner

    def close(self):
        for p in self.all:
            p.kill()
            p.wait()
            p.stdout.close()
            p.stderr.close()


@pytest.mark.parametrize('left', [False, True], ids=['nothing there', 'dead socket'])
@pytest.mark.parametrize('name', ['sock', 'n' * 200])
def test_starts_at_once_while_listen_is_slow(preloaded, relay, tmp, name, left):
    """Goal: with 200 ms between bind and listen, one of four starts listens,
    and its file stays until it exits."""
    path = tmp + '/' + name
    if left:
        first = relay(path, tmp + '/none')
        assert first.address
        first.kill()
    preloaded(FAULTS_LISTEN='200')
    starts = Starts(4, path, tmp + '/none')
    try:
        winner = starts.winner()
        assert os.listdir(tmp) == [name]
        winner.terminate()
        assert winner.wait(rig.PATIENCE) == 0
        assert os.listdir(tmp) == []
    finally:
        starts.close()


def test_starts_at_once_over_a_dead_socket(tmp):
    """Goal: in each round four relays start on the socket of a relay killed
    with SIGKILL.  One listens, three report it."""
    for _ in range(50 if rig.SANITIZED else 200):
        starts = Starts(4, tmp + '/sock', tmp + '/none')
        try:
            starts.winner()
            assert os.listdir(tmp) == ['sock']
        finally:
            starts.close()
    os.unlink(tmp + '/sock')


def test_socket_listens_before_it_has_its_name(preloaded, relay, tmp):
    """Goal: a client that sees the file is never refused, however long listen
    takes."""
    preloaded(FAULTS_LISTEN='200')
    r = relay(tmp + '/sock', tmp + '/none')
    wait_for(lambda: os.path.lexists(tmp + '/sock'))
    rig.connect(tmp + '/sock').close()
    assert r.stop() == 0


def test_killed_in_the_middle_of_a_start(preloaded, relay, tmp):
    """Goal: after SIGKILL between bind and listen the number of files left
    does not grow, and the next start removes them."""
    preloaded(FAULTS_LISTEN='60000')
    counts = []
    for _ in range(3):
        before = sockets(tmp)
        r = relay(tmp + '/sock', tmp + '/none')
        wait_for(lambda: sockets(tmp) not in ({}, before))
        r.kill()
        counts.append(len(os.listdir(tmp)))
    assert counts[0] == counts[1] == counts[2] <= 2
    preloaded(FAULTS_LISTEN='0')
    r = relay(tmp + '/sock', tmp + '/none')
    assert r.address
    assert os.listdir(tmp) == ['sock']
    assert r.stop() == 0
    assert os.listdir(tmp) == []


def test_start_that_is_stopped_in_the_middle(preloaded, relay, run, tmp):
    """Goal: a second start does not wait for ever for the first one, and
    reports the file that it waits for."""
    preloaded(FAULTS_LISTEN='60000')
    first = relay(tmp + '/sock', tmp + '/none')
    wait_for(lambda: sockets(tmp))
    r = run(tmp + '/sock', tmp + '/none')
    assert r.returncode == 3 and tmp + '/.sock.relay-lock' in r.stderr \
        and r.stderr.count('\n') == 1, r.stderr
    first.kill()
    preloaded(FAULTS_LISTEN='0')
    assert relay(tmp + '/sock', tmp + '/none').address


# ---- look-ups ----

@pytest.mark.parametrize('option', ['-z', '-F'])
@pytest.mark.parametrize('how', ['SIGTERM', 'time limit'])
def test_lookup_does_not_outlive_relay(preloaded, relay, option, how):
    """Goal: the child process for a look-up exits with relay."""
    preloaded(FAULTS_LOOKUP='1')
    r = relay('-t', '1' if how == 'time limit' else '60', option, 'a.name.invalid:80')
    child = wait_for(lambda: rig.children(r.pid))
    if how == 'SIGTERM':
        r.proc.send_signal(signal.SIGTERM)
    assert r.wait() == (1 if how == 'time limit' else 128 + signal.SIGTERM)
    assert not rig.alive(child[0])
