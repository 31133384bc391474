"""A link between this relay and the one of version 0.1, which has no sessions."""
import os
import signal
import subprocess

import pytest

import rig
from test_session import Echo, dial, exchange

OLD = 'abb7cc65b3d8a652b685be65e4f3c8116eea6891'    # before sessions
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def git(*words, **popen):
    return subprocess.run(['git', '-C', ROOT, *words], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, check=False, **popen)


@pytest.fixture(scope='session')
def old(tmp_path_factory):
    """The binary of version 0.1, built from the history."""
    if git('cat-file', '-e', OLD + '^{commit}').returncode != 0:
        pytest.skip('skipped: no git history')
    tree = tmp_path_factory.mktemp('old')
    subprocess.run(['tar', '-x', '-C', tree], input=git('archive', OLD).stdout, check=True)
    signal.alarm(600)
    subprocess.run(['make', '-s', '-C', tree, 'relay', 'CFLAGS=-O0'], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    signal.alarm(90)
    return str(tree / 'relay')


@pytest.fixture
def echo():
    e = Echo()
    yield e
    e.close()


@pytest.mark.parametrize('near', ['old', 'new'])
def test_link_of_two_versions(old, relay, echo, monkeypatch, near):
    """Goal: a link between the two versions works, and keeps no session."""
    new = rig.RELAY
    monkeypatch.delenv('RELAY_KEEP')
    monkeypatch.setattr(rig, 'RELAY', old if near == 'old' else new)
    far = new if near == 'old' else old
    r = relay('-m', '127.0.0.1:0', '--', far, '-m', '-', echo.address)
    for _ in range(3):
        with dial(r.address) as a:
            exchange(a, bytes(100000))
    a = dial(r.address)
    exchange(a, b'x')
    for pid in rig.children(r.pid):
        rig.kill(pid, signal.SIGKILL)
    with pytest.raises(ConnectionResetError):
        a.recv(1)
    assert r.wait() == 7, r.err()


def posing(tmp, binary, version, args='"$@"'):
    """A relay that prints another version: bootstrap starts only its own."""
    path = tmp + '/relay'
    with open(path, 'w') as f:
        f.write('#!/bin/sh\n[ "$1" = -V ] && echo relay %s && exit\nexec %s %s\n'
                % (version, binary, args))
    os.chmod(path, 0o755)
    return path


def version_of(binary):
    return subprocess.run([binary, '-V'], stdout=subprocess.PIPE, text=True).stdout.split()[1]


def test_tunnel_of_the_old_version(old, relay, echo, monkeypatch, tmp):
    """Goal: an old near side works with a new relay on the far host."""
    new = rig.RELAY
    monkeypatch.delenv('RELAY_KEEP')
    monkeypatch.setattr(rig, 'RELAY', old)
    r = relay('-x', posing(tmp, new, version_of(old)), '-L', '127.0.0.1:0:' + echo.address, 'env A=B')
    with dial(r.address) as a:
        exchange(a, bytes(100000))
    assert r.stop() == 0


def test_session_that_the_far_side_does_not_know(old, relay, echo, monkeypatch, tmp):
    """Goal: a near side that requests a session works without one if the far
    side skips the request.  It cannot check targets, and nothing is logged."""
    monkeypatch.delenv('RELAY_KEEP')
    path = posing(tmp, old, version_of(rig.RELAY), '-m -t 10 -')
    r = relay('-x', path, *(word for to in (echo.address, '/none', 'localhost:%d' % rig.free_port())
                            for word in ('-L', '127.0.0.1:0:' + to)), 'env A=B')
    a = dial(r.address)
    exchange(a, bytes(100000))
    for pid in rig.children(r.pid):
        rig.kill(pid, signal.SIGKILL)
    with pytest.raises(ConnectionResetError):
        a.recv(1)
    r.says('reconnected to ')
    with dial(r.address) as a:
        exchange(a, b'x')
    assert 'listens' not in r.err()
    assert r.stop() == 0
