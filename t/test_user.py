"""Only its user: on a loopback listener the connecting process must be this user's or root's."""
import os
import pwd
import select
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


CROWD = '''
import contextlib, socket, sys
address, n, held = (sys.argv[1], int(sys.argv[2])), int(sys.argv[3]), []
family = socket.AF_INET6 if ':' in address[0] else socket.AF_INET
for _ in range(n):
    s = socket.socket(family)
    s.setblocking(False)
    with contextlib.suppress(OSError):
        s.connect(address)
    held.append(s)
    if len(sys.argv) == 4:
        held.clear()
print('done', flush=True)
sys.stdin.read()
'''


def crowd(address, n, *more):
    """A process of STRANGER that makes n connections, one after the other; with more it keeps them until its stdin ends."""
    host, port = rig.host_port(address)
    return subprocess.Popen([PYTHON, '-IS', '-c', CROWD, host, str(port), str(n), *more], user=STRANGER, group=STRANGER,
                            extra_groups=[], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def leave(client):
    client.communicate()
    assert client.returncode == 0


@strangers
@pytest.mark.parametrize('words', [['127.0.0.1:0', 'TO'], ['-x', rig.RELAY, '-R', '127.0.0.1:0:TO', 'env -u NOTHING']], ids=['here', 'there'])
def test_flood(relay, target, words):
    """Goal: beside strangers who connect as fast as they can, a friend is served, and newcomers too; 20 lines are told of it; at the
    end nothing is held.  The same where a far side listens for -R."""
    t = target('unix')
    r = relay(*(w.replace('TO', t.path) for w in words))
    a = rig.connect(r.address)
    b = t.accept()
    floods = [crowd(r.address, 5000) for _ in range(2)]
    served = 0
    while any(f.poll() is None and not select.select([f.stdout], [], [], 0)[0] for f in floods):
        rig.ping(a, b)
        c, d = rig.connect(r.address), t.accept()
        rig.ping(c, d)
        c.close()
        d.close()
        served += 1
    for f in floods:
        leave(f)
    assert served > 3
    assert not t.waiting()
    a.close()
    b.close()
    for pid in (r.pid, *rig.children(r.pid)):
        rig.quiet(pid)
        assert len(os.listdir('/proc/%d/fd' % pid)) < 20
    wait_for(lambda: 'further refusals are not logged for a minute' in r.err())
    assert r.err().count('refused') == 20


@strangers
def test_full_backlog(relay, target):
    """Goal: strangers who filled the backlog while relay did not accept are sent away, and a friend behind them is served; slow ones,
    who only connect and say nothing, hold no place."""
    t = target('unix')
    r = relay('-c', '2', '127.0.0.1:0', *t.words)
    assert r.address
    os.kill(r.pid, signal.SIGSTOP)
    wait_for(lambda: rig.stat_of(r.pid)[0] == 'T')
    many = crowd(r.address, 6000, 'keep')
    assert many.stdout.readline() == b'done\n'
    os.kill(r.pid, signal.SIGCONT)
    for _ in range(3):
        a, b = rig.connect(r.address), t.accept()
        rig.ping(a, b)
        a.close()
        b.close()
    leave(many)
    assert not t.waiting()


def bound(host, port, *options):
    s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET)
    for option in options:
        s.setsockopt(socket.SOL_SOCKET, option, 1)
    s.bind((host, port))
    s.listen()
    return s


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason='no IPv6 here')
def test_port_held_by_a_stranger(relay, run, target):
    """Goal: a bare port of which a stranger has one of the two addresses is not used by half; with port 0 both addresses have one port,
    which nobody else can listen on any more."""
    words = target('unix').words
    held = bound('::1', 0, socket.SO_REUSEADDR, socket.SO_REUSEPORT)
    r = run(str(held.getsockname()[1]), *words)
    assert (r.returncode, r.stdout) == (3, '') and r.stderr.startswith('relay: cannot listen on [::1]:'), r.stderr
    held.close()
    r = relay('0', *words)
    ports = {rig.host_port(address)[1] for address in r.addresses}
    assert len(r.addresses) == 2 and len(ports) == 1
    for host in ('127.0.0.1', '::1', '0.0.0.0', '::'):
        assert as_stranger(bound, host, *ports, socket.SO_REUSEADDR, socket.SO_REUSEPORT) == 'OSError', host


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
    assert r.returncode == 6 and r.stderr.count('\n') == 1 and 'not a regular file of this user' in r.stderr
    with open(common + '/it.pid') as f:
        assert f.read() == 'my own'
    os.unlink(common + '/it.pid')


@pytest.fixture
def ours(relay, tmp):
    """ours(word, ...): a relay of the user OTHER, who is no more than anybody."""
    shutil.copy(rig.RELAY, tmp + '/relay')      # where every user can reach it
    return lambda *words: relay(*words, executable=tmp + '/relay', user=OTHER, group=OTHER, extra_groups=[])


def squat(path, how):
    """What a stranger puts at path."""
    if how in ('live', 'dead'):
        s = socket.socket(socket.AF_UNIX)
        s.bind(path)
        os.chmod(path, 0o777)
        s.listen()
        return s if how == 'live' else s.close()
    if how == 'file':
        make(path, 'a file')
    elif how == 'fifo':
        os.mkfifo(path)
    else:
        os.symlink({'dangling': path + '.not', 'link': os.path.dirname(path) + '/precious'}[how], path)


@pytest.mark.parametrize('how', ['live', 'dead', 'file', 'fifo', 'dangling', 'link'])
def test_path_held_by_a_stranger(ours, target, common, how):
    """Goal: in a directory like /tmp, whatever a stranger has put at the path is told, and left as it is: status 3; where a link leads
    to nothing is touched."""
    make(common + '/precious', 'precious')
    os.chown(common + '/precious', OTHER, OTHER)
    path = common + '/sock'
    held = []
    assert as_stranger(squat, path, how) is not None
    if how == 'live':       # as_stranger's process has ended: another one listens there
        os.unlink(path)
        held.append(squat(path, how))
        os.chown(path, STRANGER, STRANGER)
    before = os.lstat(path)
    r = ours(path, *target('tcp').words)
    assert r.wait() == 3
    assert r.err().count('\n') == 1 and r.err().startswith('relay: cannot listen on ' + path), r.err()
    assert sorted(os.listdir(common)) == ['precious', 'sock']
    after = os.lstat(path)
    assert (before.st_ino, before.st_mode, before.st_uid) == (after.st_ino, after.st_mode, after.st_uid)
    with open(common + '/precious') as f:
        assert f.read() == 'precious'
    for s in held:
        s.close()
    os.unlink(path)


@pytest.mark.parametrize('how', ['here', 'there', 'long'])
def test_socket_is_private(relay, target, tmp, common, how):
    """Goal: a stranger can neither connect to a socket file, nor move it away, nor change it, whatever the umask, here or where -R
    listens."""
    t = target('tcp')
    path = common + '/' + ('n' * 120 if how == 'long' else 'sock')
    old = os.umask(0)
    try:
        r = relay(*(['-x', rig.RELAY, '-R', path + ':' + t.words[0], 'env -u NOTHING'] if how == 'there' else [path, *t.words]))
        assert r.address == path
    finally:
        os.umask(old)
    os.symlink(path, tmp + '/short')
    assert as_stranger(rig.connect, tmp + '/short') == 'PermissionError'
    for attempt in (lambda: os.unlink(path), lambda: os.rename(path, path + 'x'), lambda: os.chmod(path, 0o666),
                    lambda: os.rename(common, common + 'x')):
        assert as_stranger(attempt) == 'PermissionError'
    assert not t.waiting()
    a, b = rig.connect(tmp + '/short'), t.accept()
    rig.ping(a, b)
    assert r.stop() == 0
    assert os.listdir(common) == []
    a.close()
    b.close()


@pytest.mark.parametrize('how', ['live', 'file', 'dangling', 'link'])
def test_swapped_socket(relay, target, common, how):
    """Goal: a directory in which others may put a socket in the place of relay's is told; what they put there is left at the end."""
    os.chmod(common, 0o777)
    make(common + '/precious', 'precious')
    r = relay(common + '/sock', *target('tcp').words)
    assert r.address
    assert 'other users may' in r.says(common) and r.err().count('\n') == 1
    as_stranger(os.unlink, common + '/sock')
    as_stranger(squat, common + '/sock', how)
    assert r.stop() == 0
    assert sorted(os.listdir(common)) == ['precious', 'sock']
    os.unlink(common + '/sock')


def test_copy_cannot_be_read(relay, tmp):
    """Goal: while the binary is copied, and later, no stranger can see, read or change it or what lies beside it."""
    home, cache = tmp + '/home', tmp + '/home/.cache/relay'
    for path in (home, tmp + '/bin'):
        os.mkdir(path, 0o755)
    os.mkfifo(tmp + '/fifo')
    with open(tmp + '/bin/cksum', 'w') as f:      # it is asked when the copy has been written, before the copy has its name
        f.write('#!/bin/sh\n[ -e %s/go ] || read x <%s/fifo\nexec /usr/bin/cksum "$@"\n' % (tmp, tmp))
    os.chmod(tmp + '/bin/cksum', 0o755)
    old = os.umask(0)
    try:
        r = relay('-L', tmp + '/sock:/a', 'env -u XDG_CACHE_HOME HOME=%s PATH=%s/bin:/usr/bin:/bin' % (home, tmp))
    finally:
        os.umask(old)

    def is_closed(suffix):
        name = wait_for(lambda: [n for n in (os.listdir(cache) if os.path.exists(cache) else ()) if n.endswith(suffix)])[0]
        path = cache + '/' + name
        for attempt in (lambda: os.listdir(cache), lambda: open(path), lambda: open(path, 'r+'), lambda: os.unlink(path),
                        lambda: make(cache + '/relay', ''), lambda: os.rename(cache, cache + 'x'), lambda: os.chmod(path, 0o777)):
            assert as_stranger(attempt) == 'PermissionError'
    is_closed('.part')
    with open(tmp + '/go', 'w'), open(tmp + '/fifo', 'w'):
        pass
    assert r.address
    is_closed('')
    os.unlink(tmp + '/fifo')
