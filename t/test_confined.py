"""What a far side with a target can no longer do: relay -m - TO.

confined.so tries it from within relay, after the start.
"""
import ctypes
import errno
import os
import socket
import struct
import subprocess
import threading

import pytest

import rig
from test_odd import call, own_mounts, own_network, root

# What relay needs is not denied.
ALLOWED = 'signal-itself', 'passwd'
# What the filter of system calls denies, on every kernel that has one.
FILTERED = ('execve', 'execveat', 'ptrace', 'setuid', 'process_vm_readv', 'mount', 'unshare',
            'clone', 'keyctl', 'bpf', 'io_uring', 'chmod', 'removexattr', 'lremovexattr',
            'fremovexattr', 'removexattrat', 'truncate', 'open-truncate', 'openat-truncate',
            'listen', 'x32')
# Their flags are in memory, where the filter cannot read them.
UNKNOWN = 'clone3', 'openat2'
# These are denied unless a connection to the target needs them.
UNIX = 'unix', 'unix-pair'
# These connect to a port and pass Landlock: MPTCP, SMC, TCP Fast Open.
OTHER_WAYS = 'mptcp', 'smc', 'af-smc', 'sendto', 'sendmsg', 'sendmmsg'
# What Landlock denies, from which version on.
FILES = ('read', 'write', 'create', 'remove', 'mkdir', 'symlink', 'list')
LANDLOCK = {**dict.fromkeys(FILES, 1), 'connect': 4, 'bind': 4, 'signal-parent': 6}
KINDS = 'unix', 'tcp', 'name', 'long directory', 'long name'


def landlock():
    """The version of Landlock in this kernel, or 0."""
    libc = ctypes.CDLL(None, use_errno=True)
    return max(libc.syscall(444, None, 0, 1), 0)


def host_name():
    """A name other than localhost whose first address is this host."""
    try:
        found = socket.getaddrinfo(socket.gethostname(), 80, socket.AF_INET, socket.SOCK_STREAM)
    except socket.gaierror:
        pytest.skip('skipped: the name of this host has no address')
    if not found[0][4][0].startswith('127.'):
        pytest.skip('skipped: the name of this host has another address')
    return socket.gethostname()


@pytest.fixture
def library(tmp):
    path = tmp + '/confined.so'
    source = os.path.join(rig.HERE, 'confined.c')
    subprocess.run(['cc', '-shared', '-fPIC', '-o', path, source, '-ldl'], check=True)
    return path


@pytest.fixture
def far(relay, target, tmp):
    """far(kind, env) starts a link whose far side has a target of that kind,
    and returns (relay, target)."""
    ends = []

    def make(kind='unix', **env):
        if kind in ('unix', 'long directory', 'long name'):
            deep = os.path.join(tmp, 'd' * (110 if kind == 'long directory' else 10))
            os.makedirs(deep)
            t = rig.UnixTarget(deep + '/s')
            ends.append(t)
            if kind == 'long name':
                t.path = '%s/%s' % (deep, 's' * 120)
                os.rename(deep + '/s', t.path)
            to = t.path
        else:
            t = target('tcp')
            to = t.words[0]
            if kind == 'name':
                to = to.replace('127.0.0.1', host_name())
        command = ['env', *('%s=%s' % pair for pair in env.items()), rig.RELAY, '-v', '-m', '-', to]
        return relay('-m', '127.0.0.1:0', '--', *command), t
    yield make
    for t in ends:
        t.close()


def exchange(r, t):
    """Bytes and both ends pass, in both directions."""
    a = rig.connect(r.address)
    b = t.accept()
    a.send(b'there')
    assert b.read(5) == b'there'
    b.send(b'back')
    assert a.read(4) == b'back'
    b.shut()
    assert a.read_all() == b''
    a.send(b'late')
    a.shut()
    assert b.read_all() == b'late'
    a.close()
    b.close()


def confined(r):
    """What the far side has reported about itself."""
    return r.says('confinement: ').split('confinement: ')[1]


def tried(r, t):
    """{what was tried: errno}"""
    exchange(r, t)
    lines = [line.split() for line in r.err().splitlines() if line.startswith('try ')]
    return {words[1]: int(words[2]) for words in lines}


def is_built_in():
    return rig.EXTRAS and not rig.SANITIZED


needs_it = pytest.mark.skipif(not is_built_in(),
                              reason='skipped: this build does not confine itself')
needs_preload = pytest.mark.skipif(rig.SANITIZED or rig.VALGRIND or rig.loader(rig.RELAY) is None,
                                   reason='skipped: nothing can be preloaded')


@pytest.mark.parametrize('kind', KINDS)
def test_each_kind_of_target(far, kind):
    """Goal: a far side that is confined reaches its target, again and again,
    also after the target was away, when a name is looked up again."""
    r, t = far(kind)
    report = confined(r)
    exchange(r, t)
    exchange(r, t)
    if 'long' not in kind and kind != 'unix':
        port = t.sock.getsockname()[1]
        t.close()
        assert rig.fate_at(r.address) == 'reset'
        t.sock = rig.TcpTarget(port=port).sock
        exchange(r, t)
    if is_built_in():
        assert 'seccomp' in report and 'no seccomp' not in report, report


def test_interface(relay):
    """Goal: the interface of an IPv6 address can be looked up."""
    to = '[fe80::1%%%s]:1' % socket.if_nameindex()[0][1]
    r = relay('-m', '127.0.0.1:0', '--', rig.RELAY, '-m', '-', to)
    assert rig.fate_at(r.address) == 'reset'
    assert 'cannot be resolved' not in r.says('cannot connect to ' + to)


def answer_names(sock):
    """A name server: each name that begins with "a" has the address
    127.0.0.1, no other name exists.  An empty query ends it."""
    while True:
        query, client = sock.recvfrom(512)
        if not query:
            return
        question = query[12:query.index(b'\0', 12) + 5]
        found = question[1:2] == b'a' and question[-3:-2] == b'\1'
        code = 0x8180 if question[1:2] == b'a' else 0x8183
        address = b'\xc0\x0c\0\1\0\1\0\0\0\0\0\4\x7f\0\0\1' if found else b''
        sock.sendto(query[:2] + struct.pack('>HHHHH', code, 1, found, 0, 0) + question + address,
                    client)


@root
def test_name_server(relay, target, tmp, own_network):
    """Goal: the resolver of the C library asks a name server."""
    def use_own_server():
        own_mounts()
        for name, text in ('resolv.conf', 'nameserver 127.0.0.1\n'), \
                          ('nsswitch.conf', 'hosts: files dns\n'):
            with open('%s/%s' % (tmp, name), 'w') as f:
                f.write(text)
            if os.path.exists('/etc/' + name):
                call('mount', f.name.encode(), b'/etc/' + name.encode(), None, 0x1000, None)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(('127.0.0.1', 53))
        thread = threading.Thread(target=answer_names, args=(server,))
        thread.start()
        t = target('tcp')
        for name in 'a.name.example', 'no.name.example':
            r = relay('-m', '127.0.0.1:0', '--', rig.RELAY, '-v', '-m', '-',
                      t.words[0].replace('127.0.0.1', name), preexec_fn=use_own_server)
            if name.startswith('a'):
                exchange(r, t)
        assert rig.fate_at(r.address) == 'reset'
        r.says('no.name.example')
        server.sendto(b'', ('127.0.0.1', 53))
        thread.join()


@needs_it
def test_the_kernel_shows_it(far):
    """Goal: the kernel lists the filter, and that no privilege can be gained."""
    r, t = far()
    confined(r)
    with open('/proc/%d/status' % rig.children(r.pid)[0]) as f:
        status = dict(line.split(':\t', 1) for line in f if ':\t' in line)
    assert (status['Seccomp'].strip(), status['NoNewPrivs'].strip()) == ('2', '1')


@needs_it
@needs_preload
@pytest.mark.parametrize('kind', KINDS)
def test_it_bites(far, library, tmp, kind):
    """Goal: a far side that an attacker controls runs no program, reads and
    writes no file of its user, and connects to no other port."""
    for name in ('file', 'old'):
        with open(os.path.join(tmp, name), 'w'):
            pass
    os.chmod(tmp + '/file', 0o640)
    got = tried(*far(kind, LD_PRELOAD=library, CONFINED_TRY=tmp))
    wanted = {name: errno.EPERM for name in FILTERED if name in got}
    wanted.update(dict.fromkeys(UNKNOWN, errno.ENOSYS))
    wanted.update({name: errno.EPERM if kind == 'tcp' else 0 for name in UNIX if name in got})
    if kind != 'name':
        wanted.update({name: errno.EPERM for name in OTHER_WAYS if name in got})
    version = landlock()
    for name, since in LANDLOCK.items():
        if version >= since and not (name == 'connect' and kind == 'name'):
            wanted[name] = errno.EPERM if name == 'signal-parent' else errno.EACCES
    wanted.update(dict.fromkeys(ALLOWED, 0))
    assert {name: got[name] for name in wanted} == wanted
    left = set(os.listdir(tmp))
    assert 'old' in left and not left & {'new', 'dir', 'link'}
    assert os.stat(tmp + '/file').st_mode & 0o777 == 0o640


@needs_preload
def test_old_kernel(far, library):
    """Goal: where the kernel has none of this, the far side works, and says
    so with -v."""
    r, t = far(LD_PRELOAD=library, CONFINED_OLD='1')
    exchange(r, t)
    if is_built_in():
        report = confined(r)
        assert 'no seccomp' in report and 'no Landlock' in report, report


def test_without_a_target(relay, target):
    """Goal: without TO, a far side is as before."""
    r = relay('-m', '127.0.0.1:0', '--', rig.RELAY, '-v', '-m', '-')
    assert rig.fate_at(r.address) == 'reset'
    r.says('an end is empty')
    assert 'confinement' not in r.err()


def test_no_session_with_a_target(run):
    """Goal: -k needs a far side without a target."""
    r = run('-k', '60', '-m', '-', '8888')
    assert r.returncode == 2 and '-k' in r.stderr, r.stderr
