"""relay with a poll and a connect that behave as those of macOS: see xnu.c.

make check-macos runs tests of other files with it, too.
"""
import os
import shutil
import subprocess
import tempfile

import pytest

import rig
from rig import ping
from test_faults import asan
from test_rules import joint
from rules import Cell, grid


@pytest.fixture(scope='module')
def library():
    cc = os.environ.get('CC', 'cc').split()
    if not shutil.which(cc[0]):
        pytest.skip('skipped: no C compiler')
    path = tempfile.mkdtemp(prefix='rx', dir='/tmp')
    so = path + '/xnu.so'
    subprocess.run(cc + ['-shared', '-fPIC', '-o', so, os.path.join(rig.HERE, 'xnu.c'), '-ldl'],
                   check=True)
    seen = subprocess.run([rig.RELAY, '-V'], stdout=subprocess.PIPE, text=True,
                          env=dict(os.environ, LD_PRELOAD=so, LD_DEBUG='files'),
                          stderr=subprocess.STDOUT).stdout
    if so in seen:
        yield so
    shutil.rmtree(path)
    if so not in seen:
        pytest.skip('skipped: this binary takes no preloaded library')


@pytest.fixture(autouse=True)
def macos(library, monkeypatch):
    monkeypatch.setenv('LD_PRELOAD', library)
    monkeypatch.setenv('ASAN_OPTIONS', asan())


@grid(only=lambda c: 'pipes' not in c)
def test_half_closes(joint, cell):
    """Goal: an EOF passes before the other direction ends, in either order.
    relay then sleeps."""
    j = joint(cell)
    for first in (0, 1):
        ends = j.connect()
        one, other = ends if first == 0 else ends[::-1]
        one.send(b'x' * 300000)
        one.shut()
        assert len(other.read_all()) == 300000
        j.rest()
        other.send(b'y' * 300000)
        other.shut()
        assert len(one.read_all()) == 300000
        j.hang_up()


@pytest.mark.parametrize('way', ['direct', 'm'])
def test_reset_after_eof(joint, way):
    """Goal: a client sends EOF, and later resets.  Although poll
    reports only the EOF, the target sees the reset."""
    a, b = joint(Cell(way, 'tcp', 'tcp')).connect()
    ping(a, b)
    a.shut()
    assert b.read_all() == b''
    a.reset()
    rig.wait_for(b.gone, what='a reset at the target')


def test_full_backlog_is_not_dead(run, relay, tmp):
    """Goal: a socket whose backlog is full refuses a connect.  relay does not
    replace it, and reports its state if it is the target."""
    t = rig.UnixTarget(tmp + '/sock')
    t.sock.listen(0)
    waiting = rig.connect(t.path)
    before = os.lstat(t.path)
    r = run(t.path, tmp + '/none')
    assert r.returncode == 3 and 'in use' in r.stderr, r.stderr
    assert os.lstat(t.path).st_ino == before.st_ino
    r = run('-t', '1', '-', t.path)
    assert r.returncode == 1 and 'its server runs' in r.stderr, r.stderr
    waiting.close()
    t.close()
