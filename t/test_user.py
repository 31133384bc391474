"""Only its user: on a loopback listener the connecting process must be this user's or root's."""
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys

import pytest

import rig
from rig import wait_for

if os.getuid() != 0:
    pytest.skip('only root can be two users', allow_module_level=True)

strangers = pytest.mark.skipif(not rig.EXTRAS, reason='this build cannot tell who connects')

# Connects, speaks, and tells what came of it: `in` if the answer came, `out` if it was reset.
CLIENT = '''
import socket, sys
host, port, more = sys.argv[1], int(sys.argv[2]), sys.argv[3]
try:
    s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET)
    s.settimeout(20)
    s.connect((host, port))
    s.sendall(b'let me in')
    if more == 'hasty':
        s.close()
        sys.exit(print('gone'))
    print('in' if s.recv(100) == b'welcome' else 'end')
except (ConnectionResetError, BrokenPipeError):
    print('out')
'''


PYTHON = shutil.which('python3', path='/usr/bin:/usr/local/bin') or sys.executable     # one that every user may run


def unused_uid(avoid=()):
    used = {p.pw_uid for p in pwd.getpwall()}
    return next(uid for uid in range(54321, 65000) if uid not in used and uid not in avoid)


STRANGER = unused_uid()
OTHER = unused_uid([STRANGER])


def knock(target, address, uid, more=''):
    """A process of uid connects to address: 'in', 'out', or 'end'."""
    host, port = rig.host_port(address)
    client = subprocess.Popen([PYTHON, '-IS', '-c', CLIENT, host, str(port), more], stdout=subprocess.PIPE, user=uid, group=uid, extra_groups=[])
    wait_for(lambda: target.waiting() or client.poll() is not None)
    if target.waiting():
        b = target.accept()
        if b.read(9) == b'let me in':
            b.send(b'welcome')
        b.close()
    return client.communicate()[0].decode().strip()


FROMS = ['127.0.0.1:0', '[::1]:0', '127.1.2.3:0', '[::ffff:127.0.0.1]:0', '0']


@strangers
@pytest.mark.parametrize('word', FROMS)
def test_stranger_is_refused(relay, target, word):
    """Goal: another user is reset and his uid told, at each loopback address, IPv4, IPv6 and one in the other's clothes; root
    is let in."""
    t = target('unix')
    r = relay(word, *t.words)
    for address in r.addresses:
        said = len(r.err())
        assert knock(t, address, STRANGER) == 'out'
        assert 'uid %d' % STRANGER in r.err()[said:]
        assert r.err()[said:].count('\n') == 1
        assert knock(t, address, 0) == 'in'
    assert not t.waiting()


@strangers
def test_stranger_in_ipv6_clothes(relay, target):
    """Goal: a stranger's IPv6 socket that connects to ::ffff:127.0.0.1 reaches the IPv4 listener, and is refused as well;
    root's is let in."""
    t = target('unix')
    r = relay('127.0.0.1:0', *t.words)
    address = r.address.replace('127.0.0.1', '[::ffff:127.0.0.1]')
    assert knock(t, address, STRANGER) == 'out'
    assert 'uid %d' % STRANGER in r.err()
    assert knock(t, address, 0) == 'in'


@pytest.mark.parametrize('word', FROMS)
def test_everybody(relay, target, word):
    """Goal: -a lets everybody in."""
    t = target('unix')
    r = relay('-a', word, *t.words)
    for address in r.addresses:
        assert knock(t, address, STRANGER) == 'in'
    assert r.err() == ''


@strangers
def test_relay_of_a_user(relay, target, tmp):
    """Goal: a relay that is not root's tells users apart as well: its own and root are let in, a third is not."""
    t = target('tcp')
    shutil.copy(rig.RELAY, tmp + '/relay')      # where every user can reach it
    r = relay('0', *t.words, executable=tmp + '/relay', user=STRANGER, group=STRANGER, extra_groups=[])
    for address in r.addresses:
        assert knock(t, address, STRANGER) == 'in'
        assert knock(t, address, 0) == 'in'
        assert knock(t, address, OTHER) == 'out'
    assert 'uid %d' % OTHER in r.err()


@strangers
def test_hasty_stranger(relay, target):
    """Goal: a stranger who has closed before relay looks is nobody's friend: such sockets are shown as root's."""
    t = target('unix')
    r = relay('127.0.0.1:0', *t.words)
    assert r.address
    for _ in range(10):
        os.kill(r.pid, signal.SIGSTOP)      # relay looks when the stranger has long gone
        wait_for(lambda: rig.stat_of(r.pid)[0] == 'T')
        assert knock(t, r.address, STRANGER, 'hasty') == 'gone'
        said = len(r.err())
        os.kill(r.pid, signal.SIGCONT)
        wait_for(lambda: len(r.err()) > said or t.waiting())
        assert not t.waiting()
        assert 'refused' in r.err()[said:]


RESETS = '''
import socket, struct, sys
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('127.0.0.1', int(sys.argv[2])))
s.connect(('127.0.0.1', int(sys.argv[1])))
s.sendall(b'let me in')
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
'''


@strangers
def test_port_with_two_owners(relay, target):
    """Goal: a stranger whose connection was reset before relay looked is not taken for the friend who has his port by then."""
    t = target('unix')
    r = relay('127.0.0.1:0', *t.words)
    listener = rig.host_port(r.address)
    os.kill(r.pid, signal.SIGSTOP)
    wait_for(lambda: rig.stat_of(r.pid)[0] == 'T')
    port = rig.free_port()
    subprocess.run([PYTHON, '-IS', '-c', RESETS, str(listener[1]), str(port)], user=STRANGER, group=STRANGER,
                   extra_groups=[], check=True)
    friend = socket.socket()
    friend.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    friend.bind(('127.0.0.1', port))
    friend.connect(listener)
    friend = rig.End(friend)
    os.kill(r.pid, signal.SIGCONT)
    b = t.accept()
    rig.ping(friend, b)
    assert not t.waiting()
    assert r.err().count('refused') == 1
    friend.close()
    b.close()


@strangers
def test_among_many_sockets(relay, target):
    """Goal: the look-up holds when 3,000 other sockets are open, and costs no more."""
    crowd = socket.socket()
    crowd.bind(('127.0.0.1', 0))
    crowd.listen(1500)
    others = [crowd]
    for _ in range(1500):
        others.append(socket.create_connection(crowd.getsockname()))
        others.append(crowd.accept()[0])
    t = target('unix')
    r = relay('0', *t.words)
    for address in r.addresses:
        for _ in range(3):
            assert knock(t, address, STRANGER) == 'out'
            assert knock(t, address, 0) == 'in'
    for s in others:
        s.close()


# ---- files ----

def as_stranger(function, *args):
    """What function says when a process of STRANGER runs it: its result, or the name of the OSError."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(STRANGER)
            os.setuid(STRANGER)
            said = str(function(*args))
        except OSError as e:
            said = type(e).__name__
        os.write(w, said.encode())
        os._exit(0)
    os.close(w)
    os.waitpid(pid, 0)
    with os.fdopen(r) as f:
        return f.read()


@pytest.fixture
def common(tmp):
    """A directory that all may write, as /tmp is."""
    path = tmp + '/common'
    os.mkdir(path)
    os.chmod(path, 0o1777)
    return path


def make(path, text):
    with open(path, 'w') as f:
        f.write(text)
    os.chmod(path, 0o666)


def test_pid_file_of_a_stranger(run, target, common):
    """Goal: a pid file that a stranger has put there is not written: he could name another process in it."""
    as_stranger(make, common + '/it.pid', 'my own')
    r = run('-P', common + '/it.pid', '127.0.0.1:0', *target().words)
    assert r.returncode == 6 and r.stderr.count('\n') == 1 and 'no file of this user' in r.stderr
    with open(common + '/it.pid') as f:
        assert f.read() == 'my own'
    os.unlink(common + '/it.pid')
