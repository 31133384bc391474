"""Access control: a process that connects to a loopback listener must belong
to relay's user or to root.
"""
import os
import resource
import pwd
import re
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

strangers = pytest.mark.skipif(not rig.EXTRAS,
                               reason='skipped: this build cannot see the user of a connection')

# Connects, sends, and prints the result: `in` if an answer came, `out` if the
# connection was reset.
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


# one that every user may run
PYTHON = shutil.which('python3', path='/usr/bin:/usr/local/bin') or sys.executable


def unused_uid(avoid=()):
    used = {p.pw_uid for p in pwd.getpwall()}
    return next(uid for uid in range(54321, 65000) if uid not in used and uid not in avoid)


STRANGER = unused_uid()
OTHER = unused_uid([STRANGER])


def knock(target, address, uid, more=''):
    """A process of uid connects to address: 'in', 'out', or 'end'."""
    host, port = rig.host_port(address)
    client = subprocess.Popen([PYTHON, '-IS', '-c', CLIENT, host, str(port), more],
                              stdout=subprocess.PIPE, user=uid, group=uid, extra_groups=[])
    wait_for(lambda: target.waiting() or client.poll() is not None)
    if target.waiting():
        b = target.accept()
        if b.read(9) == b'let me in':
            b.send(b'welcome')
        b.close()
    return client.communicate()[0].decode().strip()


# ---- files ----

def as_stranger(function, *args):
    """Call function in a process of STRANGER.  Return its result, or the name
    of the OSError."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(STRANGER)
            os.setuid(STRANGER)
            result = str(function(*args))
        except OSError as e:
            result = type(e).__name__
        os.write(w, result.encode())
        os._exit(0)
    os.close(w)
    os.waitpid(pid, 0)
    with os.fdopen(r) as f:
        return f.read()


FROMS = ['127.0.0.1:0', '[::1]:0', '127.1.2.3:0', '[::ffff:127.0.0.1]:0', '0']


@strangers
@pytest.mark.parametrize('word', FROMS)
def test_stranger_is_refused(relay, target, word):
    """Goal: on each loopback address, another user is reset and the log has
    the uid, once; root is accepted."""
    t = target('unix')
    r = relay(word, *t.words)
    addresses = rig.families(r.address)
    for address in addresses:
        assert knock(t, address, STRANGER) == 'out'
        assert 'uid %d;' % STRANGER in r.err()
        assert r.err().count('\n') == 1
        assert knock(t, address, 0) == 'in'
    assert not t.waiting()
    assert r.stop() == 0
    assert ('(repeated 1 time)' in r.err()) == (len(addresses) == 2)


@strangers
def test_stranger_in_ipv6_clothes(relay, target):
    """Goal: a stranger's IPv6 socket that connects to ::ffff:127.0.0.1 reaches
    the IPv4 listener and is refused; root's is accepted."""
    t = target('unix')
    r = relay('127.0.0.1:0', *t.words)
    address = r.address.replace('127.0.0.1', '[::ffff:127.0.0.1]')
    assert knock(t, address, STRANGER) == 'out'
    assert 'uid %d' % STRANGER in r.err()
    assert knock(t, address, 0) == 'in'


@pytest.mark.parametrize('word', FROMS)
def test_every_user_with_option_a(relay, target, word):
    """Goal: -a accepts every user."""
    t = target('unix')
    r = relay('-a', word, *t.words)
    for address in rig.families(r.address):
        assert knock(t, address, STRANGER) == 'in'
    assert r.err() == ''


@strangers
def test_relay_of_a_user(relay, target, tmp):
    """Goal: a relay that does not run as root checks users too: it accepts its
    own user and root, and refuses a third."""
    t = target('tcp')
    shutil.copy(rig.RELAY, tmp + '/relay')    # every user can reach it
    r = relay('0', *t.words, executable=tmp + '/relay', user=STRANGER, group=STRANGER,
              extra_groups=[])
    for address in rig.families(r.address):
        assert knock(t, address, STRANGER) == 'in'
        assert knock(t, address, 0) == 'in'
        assert knock(t, address, OTHER) == 'out'
    assert 'uid %d' % OTHER in r.err()


@strangers
def test_hasty_stranger(relay, target):
    """Goal: a stranger that closes before the check is refused, although Linux
    shows such sockets as root's."""
    t = target('unix')
    r = relay('-v', '127.0.0.1:0', *t.words)
    assert r.address
    for _ in range(10):
        # relay checks after the stranger has closed
        os.kill(r.pid, signal.SIGSTOP)
        wait_for(lambda: rig.stat_of(r.pid)[0] == 'T')
        assert knock(t, r.address, STRANGER, 'hasty') == 'gone'
        before = len(r.err())
        os.kill(r.pid, signal.SIGCONT)
        wait_for(lambda: len(r.err()) > before or t.waiting())
        assert not t.waiting()
        assert 'refused' in r.err()[before:]


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
    """Goal: a stranger connects and resets, and then a friend connects from the
    same port, all before the check.  The friend is served, and the stranger is
    refused."""
    t = target('unix')
    r = relay('127.0.0.1:0', *t.words)
    listener = rig.host_port(r.address)
    os.kill(r.pid, signal.SIGSTOP)
    wait_for(lambda: rig.stat_of(r.pid)[0] == 'T')
    port = rig.free_port()
    subprocess.run([PYTHON, '-IS', '-c', RESETS, str(listener[1]), str(port)], user=STRANGER,
                   group=STRANGER, extra_groups=[], check=True)
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
    """A process of STRANGER makes n connections, one after the other, and with
    `more` keeps them until EOF on its stdin."""
    host, port = rig.host_port(address)
    return subprocess.Popen([PYTHON, '-IS', '-c', CROWD, host, str(port), str(n), *more],
                            user=STRANGER, group=STRANGER,
                            extra_groups=[], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def leave(client):
    client.communicate()
    assert client.returncode == 0


@strangers
@pytest.mark.parametrize('words',
                         [['127.0.0.1:0', 'TO'],
                          ['-x', rig.RELAY, '-R', '127.0.0.1:0:TO', 'env -u NOTHING']],
                         ids=['here', 'there'])
def test_flood(relay, target, words):
    """Goal: while strangers connect as fast as they can, a friend's open and
    new connections are served.  A few lines count the strangers, and at the end
    nothing is held.  The same holds for a far side that listens for -R."""
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
    assert r.stop() == 0
    lines = re.findall(r'refused a client on .*; -a accepts all users'
                       r'(?: \(repeated (\d+) times?\))?\n', r.err())
    assert 0 < len(lines) == r.err().count('refused') < 20
    if words[-1] == 'TO':    # at the end, the last count of a far side is not read
        assert 5000 < sum(int(n or 1) for n in lines) <= 10000


@strangers
def test_full_backlog(relay, target):
    """Goal: strangers fill the backlog while relay does not accept.  They are
    then refused and a friend behind them is served; strangers that send
    nothing occupy no slot."""
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


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason='skipped: no IPv6')
def test_port_held_by_a_stranger(relay, run, target):
    """Goal: if a stranger holds one of the two addresses of a bare port, relay
    does not listen on the other alone.  With port 0 both addresses have one
    port, on which no other process can listen."""
    words = target('unix').words
    held = bound('::1', 0, socket.SO_REUSEADDR, socket.SO_REUSEPORT)
    r = run(str(held.getsockname()[1]), *words)
    assert (r.returncode, r.stdout) == (3,
                             '') and r.stderr.startswith('relay: cannot listen on [::1]:'), r.stderr
    held.close()
    r = relay('0', *words)
    host, port = rig.host_port(r.address)
    assert host == 'localhost' and len(r.addresses) == 1
    for host in ('127.0.0.1', '::1', '0.0.0.0', '::'):
        assert as_stranger(bound, host, port, socket.SO_REUSEADDR,
                           socket.SO_REUSEPORT) == 'OSError', host


@strangers
def test_among_many_sockets(relay, target):
    """Goal: the user check works with 3,000 other sockets open, and takes no
    longer."""
    crowd = socket.socket()
    crowd.bind(('127.0.0.1', 0))
    crowd.listen(1500)
    others = [crowd]
    for _ in range(1500):
        others.append(socket.create_connection(crowd.getsockname()))
        others.append(crowd.accept()[0])
    t = target('unix')
    r = relay('0', *t.words)
    for address in rig.families(r.address):
        for _ in range(3):
            assert knock(t, address, STRANGER) == 'out'
            assert knock(t, address, 0) == 'in'
    for s in others:
        s.close()


# ---- files ----

@pytest.fixture
def common(tmp):
    """A directory that every user may write to, like /tmp."""
    path = tmp + '/common'
    os.mkdir(path)
    os.chmod(path, 0o1777)
    return path


def make(path, text):
    with open(path, 'w') as f:
        f.write(text)
    os.chmod(path, 0o666)


def test_pid_file_of_a_stranger(run, target, common):
    """Goal: relay does not write a pid file made by a stranger, because the
    stranger could replace the pid in it."""
    as_stranger(make, common + '/it.pid', 'my own')
    r = run('-P', common + '/it.pid', '127.0.0.1:0', *target().words)
    assert r.returncode == 6 and r.stderr.count('\n') == 1 \
        and 'not a regular file of this user' in r.stderr
    with open(common + '/it.pid') as f:
        assert f.read() == 'my own'
    os.unlink(common + '/it.pid')


@pytest.fixture
def ours(relay, tmp):
    """ours(word, ...) starts a relay of the ordinary user OTHER."""
    shutil.copy(rig.RELAY, tmp + '/relay')    # every user can reach it
    return lambda *words, group=OTHER, **popen: relay(
        *words, executable=tmp + '/relay', user=OTHER, group=group, extra_groups=[], **popen)


@pytest.mark.parametrize('words, cause', [
    (['-L', '127.0.0.1:0:/a', 'login'], 'cannot execute ssh: '),
    (['-m', '-', '--', 'true'], 'no link: cannot execute true: '),
    (['-', '--', 'true'], 'cannot execute true: '),
    (['-', 'no-such-host.invalid:80'], 'cannot connect to no-such-host.invalid:80: '),
], ids=['tunnel', 'link', 'command', 'name'])
def test_no_processes(ours, monkeypatch, words, cause):
    """Goal: if the limit of processes is reached, the status is 6, and the
    remedy is named.  A look-up is retried for 10 s."""
    monkeypatch.setenv('ASAN_OPTIONS', 'detect_leaks=0')    # LeakSanitizer needs a process
    r = ours(*words, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NPROC, (0, 0)))
    assert r.wait(rig.PATIENCE) == 6 and 'ulimit -u' in r.err(), r.err()
    assert r.err().splitlines()[-1].startswith('relay: ' + cause), r.err()


def squat(path, how):
    """Put something of a stranger at path."""
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
        os.symlink({'dangling': path + '.not', 'link': os.path.dirname(path) + '/precious'}[how],
                   path)


@pytest.mark.parametrize('how', ['live', 'dead', 'file', 'fifo', 'dangling', 'link'])
def test_path_held_by_a_stranger(ours, target, common, how):
    """Goal: in a directory like /tmp, if a stranger has put anything at the
    path, relay reports it with status 3 and leaves it unchanged.  The target
    of a symbolic link stays unchanged too."""
    make(common + '/precious', 'precious')
    os.chown(common + '/precious', OTHER, OTHER)
    path = common + '/sock'
    held = []
    assert as_stranger(squat, path, how) is not None
    # as_stranger's process has exited; another one listens there
    if how == 'live':
        os.unlink(path)
        held.append(squat(path, how))
        os.chown(path, STRANGER, STRANGER)
    before = os.lstat(path)
    r = ours(path, *target('tcp').words)
    assert r.wait() == 3
    assert r.err().count('\n') == 1 and r.err().startswith('relay: cannot listen on ' + path), \
        r.err()
    assert sorted(os.listdir(common)) == ['precious', 'sock']
    after = os.lstat(path)
    assert (before.st_ino, before.st_mode, before.st_uid) \
        == (after.st_ino, after.st_mode, after.st_uid)
    with open(common + '/precious') as f:
        assert f.read() == 'precious'
    for s in held:
        s.close()
    os.unlink(path)


@pytest.mark.parametrize('how', ['here', 'there', 'long'])
def test_socket_is_private(relay, target, tmp, common, how):
    """Goal: a stranger cannot connect to a socket file, move it or change it,
    whatever the umask, on this side or where -R listens."""
    t = target('tcp')
    path = common + '/' + ('n' * 120 if how == 'long' else 'sock')
    old = os.umask(0)
    try:
        r = relay(*(['-x', rig.RELAY, '-R', path + ':' + t.words[0], 'env -u NOTHING']
                    if how == 'there' else [path, *t.words]))
        assert r.address == path
    finally:
        os.umask(old)
    os.symlink(path, tmp + '/short')
    assert as_stranger(rig.connect, tmp + '/short') == 'PermissionError'
    for attempt in (lambda: os.unlink(path), lambda: os.rename(path, path + 'x'),
                    lambda: os.chmod(path, 0o666), lambda: os.rename(common, common + 'x')):
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
    """Goal: relay warns about a directory in which others may replace its
    socket, and does not remove what they put there."""
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


SHARED = unused_uid([STRANGER, OTHER])
UNMAPPED = 65534    # the owner of /tmp in a user namespace that has only this user


@pytest.mark.parametrize('owner, group, mode, warns', [
    (OTHER, OTHER, 0o755, False), (OTHER, OTHER, 0o775, False), (OTHER, OTHER, 0o757, True),
    (OTHER, SHARED, 0o770, True), (OTHER, SHARED, 0o1770, False),
    (STRANGER, OTHER, 0o1777, True), (STRANGER, SHARED, 0o770, True),
    (0, 0, 0o1777, False), (UNMAPPED, UNMAPPED, 0o1777, False), (0, SHARED, 0o1770, False), (0, SHARED, 0o770, True),
])
def test_directory_of_a_socket(ours, target, common, owner, group, mode, warns):
    """Goal: relay warns about a directory if another user may replace a file in
    it: its owner, a member of its group, or each user."""
    os.chown(common, owner, group)
    os.chmod(common, mode)
    r = ours(common + '/sock', *target('tcp').words, group=group or OTHER)
    assert r.address and r.stop() == 0
    assert ('other users may write to ' + common in r.err()) == warns, r.err()


def test_copy_cannot_be_read(relay, tmp):
    """Goal: during and after the copy of the binary no stranger can see, read
    or change it, or any file beside it."""
    home, cache = tmp + '/home', tmp + '/home/.cache/relay'
    for path in (home, tmp + '/bin'):
        os.mkdir(path, 0o755)
    os.mkfifo(tmp + '/fifo')
    # cksum runs after the copy is written and before it gets its name
    with open(tmp + '/bin/cksum', 'w') as f:
        f.write('#!/bin/sh\n[ -e %s/go ] || read x <%s/fifo\nexec /usr/bin/cksum "$@"\n'
                % (tmp, tmp))
    os.chmod(tmp + '/bin/cksum', 0o755)
    old = os.umask(0)
    try:
        r = relay('-L', tmp + '/sock:/a',
                  'env -u XDG_CACHE_HOME HOME=%s PATH=%s/bin:/usr/bin:/bin' % (home, tmp))
    finally:
        os.umask(old)

    def is_closed(suffix):
        name = wait_for(lambda: [n for n in (os.listdir(cache) if os.path.exists(cache) else ())
                                 if n.endswith(suffix)])[0]
        path = cache + '/' + name
        for attempt in (lambda: os.listdir(cache), lambda: open(path), lambda: open(path, 'r+'),
                        lambda: os.unlink(path),
                        lambda: make(cache + '/relay', ''), lambda: os.rename(cache, cache + 'x'),
                        lambda: os.chmod(path, 0o777)):
            assert as_stranger(attempt) == 'PermissionError'
    is_closed('.part')
    with open(tmp + '/fifo', 'w'), open(tmp + '/go', 'w'):
        pass
    assert r.address
    is_closed('')
    os.unlink(tmp + '/fifo')
