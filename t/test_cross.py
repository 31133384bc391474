"""The binaries of make cross-all: their format and size, and each in use under
qemu.
"""
import os
import shutil
import subprocess

import pytest

import rig

TOP = os.path.dirname(rig.HERE)
LIMIT = 240 * 1024
WIDE_LIMIT = 304 * 1024    # its code is longer: see Makefile
ELF = {'x86_64': 62, 'aarch64': 183, 'ppc64le': 21, 'riscv64': 243}           # e_machine
MACHO = {'x86_64': 0x01000007, 'arm64': 0x0100000c}                           # cputype
# uname -m: what qemu calls it, None if it runs here
MACHINES = {'aarch64': 'aarch64', 'ppc64le': 'ppc64le', 'riscv64': 'riscv64', 's390x': 's390x',
            'armv7l': 'arm', 'i686': None, 'x86_64': None}
MIB = 1 << 20


def cross(name):
    path = os.path.join(TOP, 'relay-' + name)
    if not os.access(path, os.X_OK):
        pytest.skip('skipped: no relay-%s: make cross-all' % name)
    return path


def number(data, at, size):
    return int.from_bytes(data[at:at + size], 'little')


@pytest.mark.parametrize('machine', ELF)
def test_linux(machine):
    """Goal: a static ELF program for that machine, without symbols, smaller
    than 240 KiB (ppc64le: 304 KiB)."""
    with open(cross('Linux-' + machine), 'rb') as f:
        data = f.read()
    assert data[:6] == b'\x7fELF\x02\x01'
    assert number(data, 18, 2) == ELF[machine]
    headers, size, count = number(data, 32, 8), number(data, 54, 2), number(data, 56, 2)
    kinds = [number(data, headers + i * size, 4) for i in range(count)]
    assert 3 not in kinds, 'it wants a dynamic loader'
    assert b'.symtab' not in data
    assert len(data) < (WIDE_LIMIT if machine == 'ppc64le' else LIMIT)


@pytest.mark.parametrize('machine', MACHO)
def test_darwin(machine):
    """Goal: a Mach-O program for that machine, smaller than 240 KiB (arm64:
    304 KiB), and signed if the system requires it."""
    with open(cross('Darwin-' + machine), 'rb') as f:
        data = f.read()
    assert number(data, 0, 4) == 0xfeedfacf
    assert number(data, 4, 4) == MACHO[machine]
    commands, at = [], 32
    for _ in range(number(data, 16, 4)):
        commands.append(number(data, at, 4))
        at += number(data, at + 4, 4)
    if machine == 'arm64':
        assert 0x1d in commands, 'no LC_CODE_SIGNATURE'
    assert len(data) < (WIDE_LIMIT if machine == 'arm64' else LIMIT)


@pytest.fixture(params=MACHINES)
def foreign(request):
    """The command that runs relay of that machine type here."""
    binary, machine = cross('Linux-' + request.param), MACHINES[request.param]
    if machine is None:
        if os.uname().machine != 'x86_64':
            pytest.skip('skipped: only x86_64 runs this')
        return [binary]
    qemu = shutil.which('qemu-%s-static' % machine) or shutil.which('qemu-' + machine)
    if not qemu:
        pytest.skip('skipped: no qemu: apt-get install qemu-user-static')
    return [qemu, binary]


def test_version(foreign, run):
    r = subprocess.run(foreign + ['-V'], stdout=subprocess.PIPE, text=True, timeout=rig.PATIENCE)
    assert (r.returncode, r.stdout) == (0, run('-V').stdout)


def test_raw_join(foreign, target, pool):
    """Goal: stdin and stdout joined to a socket."""
    t = target('unix')
    a, i, o = rig.end_of_pipe_pair()
    p = subprocess.Popen(foreign + ['-', t.words[0]], stdin=i, stdout=o)
    os.close(i)
    os.close(o)
    b = t.accept()
    rig.exchange(pool, a, b, os.urandom(MIB), os.urandom(2 * MIB))
    a.close()
    b.close()
    assert p.wait(rig.PATIENCE) == 0


def test_no_target(foreign, tmp):
    """Goal: if the target does not exist, relay logs the cause and exits with
    status 1, as on this machine type."""
    r = subprocess.run(foreign + ['-', tmp + '/none'], stdin=subprocess.DEVNULL,
                       stderr=subprocess.PIPE, text=True, timeout=rig.PATIENCE)
    assert r.returncode == 1
    assert 'relay: ' in r.stderr and tmp + '/none: No such file' in r.stderr


@pytest.fixture(params=['far', 'near'])
def link(request, foreign, relay, tmp):
    """link(target): the address of a link to it, one side of which is foreign."""
    started = []

    def link(target):
        far = (foreign if request.param == 'far' else [rig.RELAY]) + ['-m', '-', target]
        if request.param == 'far':
            return relay('-m', '127.0.0.1:0', '--', *far).address
        # qemu does not answer sock_diag(7)
        started.append(subprocess.Popen(foreign + ['-m', tmp + '/near', '--'] + far,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL))
        return tmp + '/near'

    yield link
    for p in started:
        p.terminate()
        assert p.wait(rig.PATIENCE) == 0


def test_link(link, target, pool):
    """Goal: one side here and one on the other machine type use the same wire
    format: bytes, EOFs in both orders, several connections at a time."""
    t = target('unix')
    address = link(t.words[0])
    pairs = []
    for _ in range(3):
        a = rig.reach(address)
        b = t.accept()
        rig.ping(a, b)
        pairs.append((a, b))
    for a, b in pairs:
        rig.exchange(pool, a, b, os.urandom(MIB), os.urandom(2 * MIB))
        a.close()
        b.close()


def test_link_refused(link, tmp):
    """Goal: if the target does not exist, the client is reset, or reads EOF
    from a Unix socket, which has no reset."""
    address = link(tmp + '/none')
    if '/' in address:
        rig.reach(address).close()
    assert rig.fate_at(address) == ('end' if '/' in address else 'reset')


def test_reset(link, target):
    """Goal: a reset of the target reaches the client of a link."""
    t = target('tcp')
    address = link(t.words[0])
    a = rig.reach(address)
    b = t.accept()
    rig.ping(a, b)
    b.reset()
    assert a.fate() == ('end' if '/' in address else 'reset')
    a.close()
