"""Tunnels over two real sshds that prohibit every kind of forwarding.

The hosts are bare: PATH there has no relay.  The fixture `far` describes the
account there: home, shell, user id, programs.  A hop without ssh is
`here(...)`, which is env: it runs its arguments like any hop that is a
command.  SLOW=1 also runs the tests that take a minute.
"""
import contextlib
import http.server
import itertools
import os
import pwd
import re
import shutil
import signal
import socketserver
import stat
import subprocess
import sys
import threading
import time

import pytest

import hosts as hosts_room
import rig
from rig import wait_for

if hosts_room.missing():
    pytest.skip(hosts_room.missing(), allow_module_level=True)

BARE = True
pytestmark = pytest.mark.usefixtures('nothing_left_on_the_hosts')

VERSION = subprocess.run([rig.RELAY, '-V'], stdout=subprocess.PIPE, text=True,
                         check=True).stdout.strip()
MACHINE = '%s-%s' % (os.uname().sysname, os.uname().machine)
COPY = re.compile(r'relay-%s-%s-\d+$' % (re.escape(VERSION.split()[1]), re.escape(MACHINE)))
# make builds a static relay beside the other one if it can
COPIED = '%s-%s' % (rig.RELAY, MACHINE)
if not os.path.exists(COPIED):
    COPIED = rig.RELAY
ME = pwd.getpwuid(os.getuid()).pw_name
PAGE = b'<p>the notebook</p>' * 1000
uids = itertools.count(2000000 + os.getpid() % 100000 * 100)

slow = pytest.mark.skipif('SLOW' not in os.environ, reason='skipped: takes a minute; set SLOW=1')


def needs(program):
    return pytest.mark.skipif(not shutil.which(program), reason='skipped: no %s' % program)


# ---- helpers and fixtures ----

class Far:
    """The account on the far side.  SESSION in hosts.py applies what is set
    here."""

    def __init__(self, hosts, tmp):
        self.home = tmp + '/home'
        self.bin = tmp + '/farbin'
        for path in (self.home, self.bin):
            os.mkdir(path)
        self.env = dict(hosts.env, FAR_HOME=self.home, FAR_BIN=self.bin)

    @property
    def cache(self):
        return self.home + '/.cache/relay'

    def program(self, name, text):
        """Make a program in the PATH there."""
        write(os.path.join(self.bin, name), text, 0o755)

    def user(self):
        """Run as a user without a name and other than root; the home belongs
        to that user."""
        uid = next(uids)
        os.chown(self.home, uid, uid)
        self.env['FAR_UID'] = str(uid)
        return uid

    def files(self):
        """All files in the home, as paths below it."""
        return sorted(os.path.relpath(os.path.join(d, f), self.home)
                      for d, _, files in os.walk(self.home) for f in files)

    def here(self, *words):
        """A hop without a host: env with the same account."""
        uid = self.env.get('FAR_UID')
        return ' '.join(['env', '-u', 'XDG_CACHE_HOME', 'HOME=' + self.home,
                         'PATH=%s:/usr/bin:/bin' % self.bin, *words] +
                        (['setpriv', '--reuid', uid, '--regid', uid, '--clear-groups'] if uid
                         else []))


def write(path, text, mode=0o644):
    with open(path, 'w' if isinstance(text, str) else 'wb') as f:
        f.write(text)
    os.chmod(path, mode)


@pytest.fixture
def far(hosts, tmp):
    f = Far(hosts, tmp)
    yield f
    left = [name for name in f.files() if name.endswith('.part')
            or stat.S_ISSOCK(os.lstat('%s/%s' % (f.home, name)).st_mode)]
    assert not left, 'files left in the home'


@pytest.fixture
def tunnel(far, relay):
    """tunnel(word, ...) starts relay with the environment of `far`; env adds
    to it."""
    def start(*words, env=(), **popen):
        return relay(*words, env=dict(far.env, **{rig.MARK: os.environ[rig.MARK]}, **dict(env)),
                     **popen)
    return start


@pytest.fixture
def cable(far, hosts, tmp, mark):
    """A host `cable` behind a connection that can be interrupted: (cut,
    restore)."""
    with open(hosts.dir + '/config') as f:
        config = f.read()
    write(tmp + '/config', 'Host cable\n    ProxyCommand %s -S %s/line.py 0 0 %s - 127.0.0.1:%d\n%s'
          % (sys.executable, rig.HERE, rig.RELAY, hosts.ports['login'], config), 0o600)
    far.env['RELAY_SSH'] = 'ssh -F %s/config' % tmp

    def lines():
        return [pid for pid, line in rig.marked(mark).items() if line.startswith(sys.executable)]

    def cut():
        held = lines()
        assert held, rig.marked(mark)
        for pid in held:
            os.kill(pid, signal.SIGSTOP)
            wait_for(lambda: rig.stat_of(pid)[0] == 'T')

    def restore():
        for pid in lines():
            os.kill(pid, signal.SIGCONT)
    return cut, restore


class Web:
    """A web server on a Unix socket and on a port, with a page at every path.
    """

    def __init__(self, directory):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def do_GET(self):
                self.send_response(200)
                self.send_header('Content-Length', str(len(PAGE)))
                self.end_headers()
                self.wfile.write(PAGE)

            def address_string(self):
                return 'a client'

            def log_message(self, *_):
                pass

        class Quiet(socketserver.ThreadingMixIn):
            daemon_threads, block_on_close, request_queue_size = True, False, 1024

            def handle_error(self, *_):
                pass

        class Unix(Quiet, socketserver.UnixStreamServer):
            pass

        class Tcp(Quiet, socketserver.TCPServer):
            pass

        self.path = directory + '/app.sock'
        self.servers = [Unix(self.path, Handler), Tcp(('127.0.0.1', 0), Handler)]
        os.chmod(self.path, 0o666)
        self.port = self.servers[1].server_address[1]


@pytest.fixture
def web(tmp):
    server = Web(tmp)
    with rig.serving(*server.servers):
        yield server


def curl(*words):
    """Run curl: (exit status, output)."""
    c = subprocess.run(['curl', '-sS', '--max-time', str(rig.PATIENCE), *words],
                       stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=rig.PATIENCE + 5)
    return c.returncode, c.stdout


def shows_page(address):
    """Check that the page is at an address in the form that relay prints."""
    where = ['--unix-socket', address,
             'http://app/'] if '/' in address else ['http://%s/' % address]
    status, page = curl(*where)
    assert status == 0 and page == PAGE, (address, status, page[:200])


def has_one_copy(far, where=None):
    """The cache must hold one file: relay, which only its user can read."""
    where = where or far.cache
    names = os.listdir(where)
    assert len(names) == 1 and COPY.match(names[0]), names
    path = os.path.join(where, names[0])
    assert stat.S_IMODE(os.stat(where).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
    with open(path, 'rb') as copy, open(COPIED, 'rb') as own:
        assert copy.read() == own.read()
    return path


# ---- from nothing to a page ----

def test_from_nothing_to_a_page(tunnel, far, web, hosts, mark):
    """Goal: one command, two hosts with an empty home, and curl gets a page.
    The second start uses the cached relay and leaves it unchanged."""
    r = tunnel('-L', '127.0.0.1:0:' + web.path, 'login', 'node')
    shows_page(r.address)
    path = has_one_copy(far)
    before = os.stat(path)
    lines = r.err().splitlines()
    assert lines[0] == 'relay: reaching login -> node'
    assert re.fullmatch(r'relay: copying relay \(\d+ KiB\) to node(; it is not static: .*)?',
                        lines[1])
    assert lines[2:] == ['http://localhost:%s -> login -> node:%s'
                         % (r.address.split(':')[1], web.path)]
    assert r.stop() == 0
    hosts.wait_for_silence(mark)
    r = tunnel('-L', '127.0.0.1:0:' + web.path, 'login', 'node')
    shows_page(r.address)
    after = os.stat(path)
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)
    assert 'copying' not in r.err()
    assert r.stop() == 0
    assert far.files() == [os.path.relpath(path, far.home)]


def test_quiet(tunnel, far, web):
    """Goal: with -q a working tunnel logs nothing, on either side."""
    r = tunnel('-q', '-L', '127.0.0.1:0:' + web.path, far.here())
    shows_page(r.address)
    assert r.stop() == 0
    assert r.err() == ''


def test_every_form_of_local(tunnel, far, web, tmp):
    """Goal: each form of -L in ssh's grammar works, all at once over one link.
    The sockets are removed at the end."""
    ports = [rig.free_port() for _ in range(2)]
    port = str(web.port)
    r = tunnel('-L', '%d:%s' % (ports[0], web.path), '-L', '%d:localhost:%s' % (ports[1], port),
               '-L', '127.0.0.1:0:127.0.0.1:' + port,
               '-L', '[::1]:0:' + web.path, '-L', '%s/a.sock:%s' % (tmp, web.path), '-L',
               '%s/b.sock:127.0.0.1:%s' % (tmp, port), '-L', '*:0:' + web.path, far.here())
    bound = r.addresses
    assert bound[:2] == ['localhost:%d' % p for p in ports]
    assert bound[2].startswith('127.0.0.1:') and bound[3].startswith('[::1]:')
    assert bound[4:6] == [tmp + '/a.sock', tmp + '/b.sock']
    assert bound[6].startswith('*:') and len(bound) == 7
    for address in bound[2:6] + sum(map(rig.families, bound[:2] + bound[6:]), []):
        shows_page(address)
    logged = r.err().splitlines()[2:]
    assert len(logged) == 7
    assert logged[0] == 'http://localhost:%d -> %s:%s' % (ports[0], far.here(), web.path)
    assert logged[4] == '%s/a.sock -> %s:%s' % (tmp, far.here(), web.path)
    assert r.stop() == 0
    assert not os.path.exists(tmp + '/a.sock') and not os.path.exists(tmp + '/b.sock')


@pytest.mark.parametrize('words, expected', [
    (['-L', '8888', 'login'], 'expected SOURCE:TARGET'),
    (['-L', '8888:localhost', 'login'], 'expected SOURCE:TARGET'),
    (['-L', '8888:localhost:99999', 'login'], '"99999"'),
    (['-L', '8888:/a'], 'a tunnel needs a hop'),
    (['-L', '8888:/a', 'login', ''], 'a hop is empty'),
    (['-L', '8888:/a', 'login', '-y'], "-y; to pass it to ssh, write -e 'ssh -y'"),
    (['-L', '8888:/a', 'login', ' -v'], '" -v" is not a hop'),
    (['-L', '8888:/a', 'login', 'n;reboot'], 'contains a ;'),
    (['-L', '8888:/a', 'login', "ssh -o 'a b' node"], "contains a '"),
    (['-W', 'node:22', '-L', '8888:/a', 'login'], '-W excludes'),
    (['-D', '-', 'login'], 'a proxy listens on a port'),
    (['-f', '-W', 'node:22', 'login'], '-f needs a listener'),
    (['-m', '-L', '8888:/a', 'login'], 'use one of them'),
    (['-x', '/a', '8888', '/a'], '-e, -J, -j, -l, -o, -p and -x need a tunnel'),
])
def test_wrong_words(run, words, expected):
    """Goal: contradictory or malformed arguments give one line and status 2,
    and nothing is started."""
    r = run(*words)
    assert (r.returncode, r.stdout) == (2, ''), r.stderr
    assert expected in r.stderr and r.stderr.count('\n') == 1, r.stderr


# ---- -R ----

def test_remote_port(tunnel, far, web):
    """Goal: -R with port 0 prints the far port on stdout and logs it;
    connections to it arrive here."""
    r = tunnel('-R', '127.0.0.1:0:' + web.path, 'login', 'node')
    assert re.fullmatch(r'127\.0\.0\.1:[1-9]\d*', r.address)
    r.says('login -> node:%s -> here:%s' % (r.address, web.path))
    shows_page(r.address)
    assert r.stop() == 0
    with pytest.raises(ConnectionRefusedError):
        rig.connect(r.address)


def test_remote_socket(tunnel, far, target, tmp, hosts, mark):
    """Goal: a socket file that -R makes has mode 0600, passes half-closes, and
    is removed at the end, also after SIGKILL."""
    t = target('unix')
    path = tmp + '/there.sock'
    for sig in (signal.SIGTERM, signal.SIGKILL):
        r = tunnel('-R', '%s:%s' % (path, t.words[0]), 'login')
        assert r.addresses == [path]
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        a = rig.connect(path)
        b = t.accept()
        rig.half_closes(a, b)
        a.close()
        b.close()
        r.stop(sig)
        hosts.wait_for_silence(mark)
        assert not os.path.exists(path)


@pytest.mark.skipif(not rig.EXTRAS,
                    reason='skipped: POSIX does not report the user of a connection')
def test_remote_port_is_private(tunnel, far, web):
    """Goal: a port that -R opens accepts only its user and root, and with -a
    every user."""
    def stranger(address):
        return subprocess.run(['setpriv', '--reuid', str(next(uids)), '--clear-groups', 'curl',
                               '-sS', 'http://%s/' % address],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, timeout=rig.PATIENCE).stdout
    r = tunnel('-R', '127.0.0.1:0:' + web.path, far.here())
    for _ in range(20):
        assert stranger(r.address) == b''
    shows_page(r.address)
    r = tunnel('-a', '-R', '127.0.0.1:0:' + web.path, far.here())
    assert stranger(r.address) == PAGE


def test_remote_refused(tunnel, far, web, tmp):
    """Goal: if the far side cannot listen, relay logs the far side's message
    and exits with status 3."""
    taken = '127.0.0.1:%d' % web.port
    for place, expected in ((taken, 'in use'), (tmp + '/none/a.sock', 'No such file'),
                        ('192.0.2.1:80', '192.0.2.1'), (web.path, 'in use')):
        r = tunnel('-R', '%s:%s' % (place, web.path), far.here())
        assert r.wait() == 3, (place, r.err())
        last = r.err().splitlines()[-1]
        assert expected in last and place in last, last
        assert r.proc.stdout.read() == b''


def test_remote_crowd(tunnel, far, target, pool):
    """Goal: 60 connections at the same time work through -R, though fewer fit
    into its queue."""
    t = target('tcp')
    r = tunnel('-R', '127.0.0.1:0:' + t.words[0], far.here())
    clients = [rig.connect(r.address) for _ in range(60)]
    served = [t.accept() for _ in clients]
    for i, a in enumerate(clients):
        a.send(b'%2d' % i)
    order = [int(b.read(2)) for b in served]
    assert sorted(order) == list(range(60))
    for i, b in zip(order, served):
        b.send(b'!')
        assert clients[i].read(1) == b'!'
    for end in clients + served:
        end.close()


def serves(r, t):
    a = rig.connect(r.address)
    b = t.accept()
    rig.ping(a, b)
    a.close()
    b.close()


def test_remote_target_that_refuses(tunnel, far, target, tmp):
    """Goal: if the target on this side refuses, the client on the far side is
    reset and the cause is logged.  After the target starts, the next client is
    served."""
    r = tunnel('-R', '127.0.0.1:0:%s/t0' % tmp, far.here())
    for _ in range(12):
        assert rig.fate_at(r.address) == 'reset'
    assert tmp + '/t0' in r.says('No such file')
    serves(r, target('unix'))


def test_both_ways_in_one(tunnel, far, web, tmp):
    """Goal: -L, -R and -D work together over one login."""
    r = tunnel('-L', '127.0.0.1:0:' + web.path, '-R', '%s/r.sock:127.0.0.1:%d' % (tmp, web.port),
               '-D', '127.0.0.1:0', 'login')
    near, proxy, there = r.addresses
    shows_page(near)
    shows_page(there)
    assert curl('--socks5-hostname', proxy, 'http://localhost:%d/' % web.port) == (0, PAGE)
    assert len(r.err().splitlines()) == 5


# ---- -D ----

def test_proxy(tunnel, far, web):
    """Goal: -D serves every kind of SOCKS client; the far side looks up the
    names.  A refused request ends at once, with a reply that has the reason."""
    r = tunnel('-D', '127.0.0.1:0', 'login', 'node')
    r.says('socks5h://localhost:%s -> login -> node' % r.address.split(':')[1])
    url = 'http://%%s:%d/' % web.port
    for words in (['--socks5-hostname', r.address, url % 'localhost'],
                  ['--socks5', r.address, url % '127.0.0.1'],
                  ['--socks4a', r.address, url % 'localhost'],
                  ['--socks4', r.address, url % '127.0.0.1']):
        assert curl(*words) == (0, PAGE), words
    for kind in ('--socks5-hostname', '--socks4a'):
        assert curl(kind, r.address, 'http://no.such.host.invalid/')[0] == 97
        assert curl(kind, r.address, 'http://localhost:%d/' % rig.free_port())[0] == 97
    for host, port, code in (('no.such.host.invalid', 80, 4), ('localhost', rig.free_port(), 5)):
        a = rig.connect(r.address)
        a.send(b'\5\1\0')
        assert a.read(2) == b'\5\0'
        a.send(b'\5\1\0\3' + bytes([len(host)]) + host.encode() + port.to_bytes(2, 'big'))
        assert a.read(10)[:2] == bytes([5, code])
        assert a.read_all() == b''
        a.close()
    assert curl('http://%s/' % r.address)[0] != 0
    assert curl('--socks5-hostname', r.address, url % 'localhost') == (0, PAGE)


# ---- -W ----

def joins_stdio(tunnel, t, *hops):
    """-W joins stdin and stdout to the target t and passes half-closes."""
    a, i, o = rig.end_of_pipe_pair()
    r = tunnel('-W', t.words[0], *hops, stdin=i, stdout=o)
    os.close(i)
    os.close(o)
    b = t.accept()
    rig.half_closes(a, b)
    b.close()
    assert r.wait() == 0, r.err()
    a.close()


def test_stdio(tunnel, far, target, hosts):
    """Goal: -W joins stdin and stdout to a target behind the hops and passes
    half-closes; stdout has no other bytes."""
    joins_stdio(tunnel, target('unix'), 'login', 'node')


def test_stdio_no_target(tunnel, far, tmp):
    """Goal: -W without a target gives status 1 and one line; stdout stays
    empty."""
    r = tunnel('-q', '-W', tmp + '/none.sock', far.here())
    assert r.wait() == 1, r.err()
    assert r.proc.stdout.read() == b''
    assert r.err().count('\n') == 1 and tmp + '/none.sock: No such file' in r.err(), r.err()


def test_stdio_has_no_reader_at_the_start(tunnel, far, hosts, mark):
    """Goal: if the reader of stdout ends before the link is made, as an ssh
    does that is killed, relay ends too, with status 4."""
    far.program('uname', '#!/bin/sh\nexec sleep 100\n')
    a, i, o = rig.end_of_pipe_pair()
    r = tunnel('-W', '/a', 'login', stdin=i, stdout=o)
    os.close(i)
    os.close(o)
    sleep, = wait_for(lambda: [pid for pid, line in rig.marked(mark).items()
                               if line == 'sleep 100'])
    a.close()
    assert r.wait(2) == 4
    os.kill(sleep, signal.SIGKILL)
    hosts.wait_for_silence(mark)


def test_stdio_under_ssh(hosts, far):
    """Goal: relay -W works as ssh's ProxyCommand."""
    r = hosts.run('ssh', '-o', 'ProxyCommand=%s -q -W %%h:%%p login' % rig.RELAY, 'node',
                  'echo $HOST; exit 7', env=far.env)
    assert (r.stdout, r.stderr, r.returncode) == ('node\n', '', 7)
    has_one_copy(far)


@needs('git')
def test_stdio_under_git(hosts, far, tmp):
    """Goal: git clone works through it."""
    git = ['git', '-c', 'user.name=a', '-c', 'user.email=a', '-c', 'init.defaultBranch=main', '-c',
           'safe.directory=*']
    hosts.run(*git, 'init', '-q', tmp + '/there')
    write(tmp + '/there/file', os.urandom(1 << 20))
    assert hosts.run(*git, '-C', tmp + '/there', 'add', '.').returncode == 0
    assert hosts.run(*git, '-C', tmp + '/there', 'commit', '-q', '-m', 'all').returncode == 0
    r = hosts.run(*git, 'clone', '-q', 'ssh://node%s/there' % tmp, tmp + '/clone',
                  env=dict(far.env,
                           GIT_SSH_COMMAND="ssh -o 'ProxyCommand=%s -q -W %%h:%%p login'"
                           % rig.RELAY))
    assert (r.returncode, r.stderr) == (0, '')
    with open(tmp + '/there/file', 'rb') as a, open(tmp + '/clone/file', 'rb') as b:
        assert a.read() == b.read()


# ---- shells and banners ----

START_UP = {'bash': '.bashrc', 'csh': '.cshrc', 'tcsh': '.tcshrc',
            'fish': '.config/fish/config.fish',
         'zsh': '.zshenv'}


@pytest.mark.parametrize('shell',
                         [pytest.param(name, marks=needs(name))
                          for name in ('bash', 'csh', 'tcsh', 'fish', 'zsh', 'dash')])
def test_login_shells(tunnel, far, web, shell):
    """Goal: every login shell works, whatever it prints on both hosts: a line
    without a newline, another relay's answer, 10 KiB of text."""
    if shell in START_UP:
        path = os.path.join(far.home, START_UP[shell])
        os.makedirs(os.path.dirname(path), exist_ok=True)
        text = 'x' * 100 + '\n'
        write(far.home + '/motd', 'relay: here is no relay:\n' + text * 100 + 'Welcome, user')
        write(path, 'cat %s/motd\n' % far.home)
    r = tunnel('-L', '127.0.0.1:0:' + web.path, 'login', 'node',
               env={'FAR_SHELL': shutil.which(shell)})
    shows_page(r.address)
    has_one_copy(far)
    assert len(r.err().splitlines()) == 3, r.err()


def test_banner_on_stderr(tunnel, far, web):
    """Goal: what a start-up file prints on stderr is logged and does no harm.
    """
    write(far.home + '/.bashrc', 'echo quota 99% used >&2\n')
    r = tunnel('-L', '127.0.0.1:0:' + web.path, 'login')
    shows_page(r.address)
    assert 'quota 99% used' in r.err()


def test_banner_before_a_failure(tunnel, far):
    """Goal: if a start fails, relay logs what the shell printed."""
    write(far.home + '/.bashrc', 'echo this account has expired; exit 5\n')
    r = tunnel('-L', '127.0.0.1:0:/a', 'login')
    assert r.wait() == 7
    assert 'this account has expired' in r.err() and 'status 5' in r.err()


def test_endless_banner(tunnel, far):
    """Goal: if a shell never stops printing, relay reports it and exits."""
    r = tunnel('-L', '127.0.0.1:0:/a', far.here('yes'))
    assert r.wait() == 7
    assert '64 KiB of other output came before relay started there' in r.err()


# ---- homes ----

def starts(tunnel, far, web, env=()):
    """Start a tunnel; return the path of its far relay."""
    r = tunnel('-v', '-L', '127.0.0.1:0:127.0.0.1:%d' % web.port,
               far.here(*('%s=%s' % pair for pair in dict(env).items())))
    shows_page(r.address)
    far_relay = [pid for pid, line in rig.marked(os.environ[rig.MARK]).items() if ' -m -t ' in line
                 and ' -L ' not in line]
    assert len(far_relay) == 1, rig.marked(os.environ[rig.MARK])
    path = os.readlink('/proc/%d/exe' % far_relay[0])
    assert r.stop() == 0
    return path


@pytest.fixture
def shelf():
    """Directories outside the test's own, which are removed at its end."""
    paths = []
    yield paths
    for path in paths:
        if os.path.islink(path):
            os.unlink(path)
        shutil.rmtree(path, ignore_errors=True)


def test_home_read_only(tunnel, far, web, mounted, tmp, shelf):
    """Goal: if the home cannot be written, relay uses a private directory in
    $XDG_RUNTIME_DIR, $TMPDIR or /tmp."""
    uid = far.user()
    mounted(far.home, 'ro')
    runtime, temp = tmp + '/run', tmp + '/temp'
    for path in (runtime, temp):
        os.mkdir(path)
        os.chown(path, uid, uid)
    own = '/tmp/relay-%d' % uid
    shelf.append(own)
    assert os.path.dirname(starts(tunnel, far, web)) == own
    has_one_copy(far, own)
    path = starts(tunnel, far, web, {'TMPDIR': temp})
    assert os.path.dirname(path) == '%s/relay-%d' % (temp, uid)
    assert os.path.dirname(starts(tunnel, far, web,
                                  {'TMPDIR': temp,
                                   'XDG_RUNTIME_DIR': runtime})) == runtime + '/relay'
    assert os.path.dirname(starts(tunnel, far, web,
                                  {'XDG_CACHE_HOME': temp + '/c'})) == temp + '/c/relay'


@pytest.mark.parametrize('size', [4, 16, 96])
def test_home_without_quota(tunnel, far, web, mounted, tmp, size):
    """Goal: if the home has no space or too little, the next directory is
    used, and nothing is left in the home."""
    mounted(far.home, 'size=%dk' % size)
    assert starts(tunnel, far, web,
                  {'TMPDIR': tmp}) == os.path.realpath(has_one_copy(far, tmp + '/relay-0'))
    assert far.files() == []


def test_home_noexec(tunnel, far, web, mounted, tmp):
    """Goal: the same if programs cannot be executed in the home (noexec)."""
    mounted(far.home, 'noexec')
    assert os.path.dirname(starts(tunnel, far, web, {'TMPDIR': tmp})) == tmp + '/relay-0'
    assert far.files() == []


def test_cache_half_written(tunnel, far, web):
    """Goal: a file with the right name and the wrong content is replaced.  A
    .part file of another start is kept for a day."""
    path = starts(tunnel, far, web)
    with open(path, 'rb') as f:
        whole = f.read()
    for text in (whole[:len(whole) // 2], b'', b'\0' * len(whole), whole[:-1] + b'?'):
        os.unlink(path)
        write(path, text, 0o700)
        part, old = path + '.other.1.part', path + '.other.2.part'
        write(part, whole[:1000], 0o700)
        write(old, whole[:1000], 0o700)
        os.utime(old, (time.time() - 3 * 86400,) * 2)
        assert starts(tunnel, far, web) == path
        assert os.path.exists(part) and not os.path.exists(old)
        os.unlink(part)
        has_one_copy(far)


def test_cache_cannot_be_run(tunnel, far, web):
    """Goal: a copy without its mode bits is replaced."""
    path = starts(tunnel, far, web)
    os.chmod(path, 0o600)
    assert starts(tunnel, far, web) == path
    has_one_copy(far)


@pytest.mark.parametrize('n', [2, 8])
def test_starts_at_once(tunnel, far, web, n):
    """Goal: several starts at the same time on an empty home all work.  One
    copy is there and no .part file."""
    all_of_them = [tunnel('-L', '127.0.0.1:0:' + web.path,
                          *(['login', 'node'] if n == 2 else [far.here()])) for _ in range(n)]
    for r in all_of_them:
        shows_page(r.address)
    has_one_copy(far)


def test_tmp_of_another_user(tunnel, far, web, mounted, tmp, shelf):
    """Goal: a directory in /tmp is not used if another user made it, if it is
    a symbolic link, or if others may write to it."""
    uid = far.user()
    mounted(far.home, 'ro')
    own = '/tmp/relay-%d' % uid
    shelf.append(own)
    os.mkdir(own, 0o700)

    def refused(why='it is not a directory of mode 0700 of this user'):
        r = tunnel('-L', '127.0.0.1:0:' + web.path, far.here())
        assert r.wait() == 7, r.err()
        assert re.search('%s: [^;]*%s' % (own, why), r.err()), r.err()

    refused()
    os.chown(own, uid, uid)
    os.chmod(own, 0o777)
    refused()
    os.rmdir(own)
    os.mkdir(tmp + '/trap', 0o700)
    os.chown(tmp + '/trap', uid, uid)
    os.symlink(tmp + '/trap', own)
    refused()
    assert os.listdir(tmp + '/trap') == []
    os.unlink(own)
    write(own, '')
    refused('File exists')
    os.unlink(own)
    assert os.path.dirname(starts(tunnel, far, web)) == own


def test_no_place_at_all(tunnel, far, mounted, tmp, shelf):
    """Goal: if no directory can be used, each is named with its cause, and a
    remedy; status 7."""
    uid = far.user()
    mounted(far.home, 'ro')
    full = mounted(tmp + '/full', 'size=16k,mode=1777')
    noexec = mounted(tmp + '/noexec', 'noexec,mode=1777')
    own = '/tmp/relay-%d' % uid
    shelf.append(own)
    os.mkdir(own, 0o700)
    r = tunnel('-L', '127.0.0.1:0:/a', far.here('XDG_RUNTIME_DIR=' + full, 'TMPDIR=' + noexec))
    assert r.wait() == 7
    last = r.err().splitlines()[-1]
    for where, cause in ((far.cache, 'Read-only file system'), (full + '/relay', 'No space left'),
                         ('%s/relay-%d' % (noexec, uid), 'Permission denied'),
                         (own, 'not a directory of mode 0700')):
        assert re.search(r'%s: [^;]*%s' % (re.escape(where), cause), last), (where, last)
    assert '-x' in last and 'relay::' not in r.err(), r.err()


def test_home_with_an_odd_name(tunnel, far, web):
    """Goal: a home with shell metacharacters in its name works."""
    odd = os.path.dirname(far.home) + '/it\'s $HOME; "100%" *'
    os.rename(far.home, odd)
    far.home = far.env['FAR_HOME'] = odd
    for _ in range(2):
        r = tunnel('-L', '127.0.0.1:0:' + web.path, 'login')
        shows_page(r.address)
        assert r.stop() == 0
    has_one_copy(far)


# ---- a relay that is already there ----

def test_named_relay(tunnel, far, web, tmp):
    """Goal: -x PATH is used with any characters in the path, and nothing is
    copied."""
    odd = "%s/it's a $(relay)" % tmp
    shutil.copy(rig.RELAY, odd)
    shutil.copy(rig.RELAY, far.home + '/mine')
    for path in (odd, '~/mine', rig.RELAY):
        r = tunnel('-x', path, '-L', '127.0.0.1:0:' + web.path, 'login')
        shows_page(r.address)
        assert r.stop() == 0
    assert far.files() == ['mine']


def test_named_relay_bad(tunnel, far, tmp):
    """Goal: if the path of -x does not exist, cannot be run or has another
    version, relay reports the cause with status 7; nothing is copied."""
    write(tmp + '/plain', 'text')
    write(tmp + '/other', '#!/bin/sh\necho a nice day\n', 0o755)
    write(tmp + '/old', '#!/bin/sh\necho relay 0.0.1\n', 0o755)
    for path, expected in ((tmp + '/none', 'not found'), (tmp + '/plain', 'ermission denied'),
                       (tmp + '/other', 'a nice day'), (tmp + '/old', 'relay 0.0.1')):
        r = tunnel('-x', path, '-L', '127.0.0.1:0:/a', far.here())
        assert r.wait() == 7, r.err()
        assert path in r.err().splitlines()[-1] and expected in r.err(), (path, r.err())
    assert far.files() == []


@pytest.mark.parametrize('place', ['PATH', '.local/bin', 'bin', 'other version', 'hungry'])
def test_relay_that_is_there(tunnel, far, web, place):
    """Goal: a relay of this version in PATH is used.  One of another version,
    or a program that reads all of stdin, is not."""
    there = {'PATH': far.bin, '.local/bin': far.home + '/.local/bin',
             'bin': far.home + '/bin'}.get(place)
    if there is None:
        far.program('relay',
                    'other version' == place and '#!/bin/sh\necho relay 0.0.1\n'
                    or '#!/bin/sh\ncat\n')
        assert COPY.match(os.path.basename(starts(tunnel, far, web)))
        return
    os.makedirs(there, exist_ok=True)
    shutil.copy(rig.RELAY, there + '/relay')
    assert starts(tunnel, far, web) == there + '/relay'
    assert not os.path.exists(far.cache)


def test_forced_command(tunnel, far, web):
    """Goal: a far side as forced command works, whatever command ssh asked
    for.  With one target, only that target can be reached."""
    r = tunnel('-L', '127.0.0.1:0:' + web.path, 'login', env={'FAR_COMMAND': rig.RELAY + ' -m -'})
    shows_page(r.address)
    r = tunnel('-L', '127.0.0.1:0:' + web.path, '-L', '127.0.0.1:0:127.0.0.1:%d' % web.port,
               'login', env={'FAR_COMMAND': '%s -m - %s' % (rig.RELAY, web.path)})
    shows_page(r.addresses[0])
    assert rig.fate_at(r.addresses[1]) == 'reset'
    r.says('this end connects only to %s' % web.path)
    shows_page(r.addresses[0])
    r = tunnel('-R', '127.0.0.1:0:' + web.path, 'login',
               env={'FAR_COMMAND': '%s -m - %s' % (rig.RELAY, web.path)})
    assert r.wait() == 3
    assert 'does not listen' in r.err()
    assert far.files() == []


def test_machine_without_binary(tunnel, far):
    """Goal: if there is no binary for the machine type, the error names the
    type and the remedy."""
    far.program('uname', '#!/bin/sh\n[ "$1" = -m ] && echo s390x || echo Linux\n')
    r = tunnel('-L', '127.0.0.1:0:/a', far.here())
    assert r.wait() == 7
    last = r.err().splitlines()[-1]
    assert 'Linux-s390x' in last and '-x' in last, last
    assert far.files() == []


@pytest.mark.parametrize('place', ['lib/relay', 'bin'])
def test_machine_with_its_binary(far, web, tmp, place, hosts, logs):
    """Goal: the binary of another machine type is found beside relay, and in
    PREFIX/lib/relay."""
    os.makedirs(tmp + '/prefix/bin')
    os.makedirs('%s/prefix/%s' % (tmp, place), exist_ok=True)
    shutil.copy(rig.RELAY, tmp + '/prefix/bin/relay')
    with open(rig.RELAY, 'rb') as f:
        write('%s/prefix/%s/relay-Linux-riscv64' % (tmp, place), f.read() + b'another one')
    far.program('uname', '#!/bin/sh\n[ "$1" = -m ] && echo riscv64 || echo Linux\n')
    with subprocess.Popen([tmp + '/prefix/bin/relay', '-L', '127.0.0.1:0:' + web.path, far.here()],
                          env=hosts.env,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as r:
        address = r.stdout.readline().strip()
        shows_page(address)
        r.terminate()
        assert r.wait(rig.PATIENCE) == 0
    name, = os.listdir(far.cache)
    assert name.startswith('relay-%s-Linux-riscv64-' % VERSION.split()[1])
    with open('%s/%s' % (far.cache, name), 'rb') as f:
        assert f.read().endswith(b'another one')


# ---- a binary that does not run there, and missing tools ----

SHELLS = ('dash', 'bash', 'busybox', 'mksh', 'ksh93', 'yash')
TOOLS = ('cat', 'chmod', 'cksum', 'dd', 'env', 'find', 'head', 'id', 'mkdir', 'mv', 'rm', 'setpriv',
         'sh', 'uname', 'wc')


def build(path, *words):
    subprocess.run(['cc', '-o', path, *words], check=True)


def refused(kind, tmp):
    """A program that the system refuses to run, for one of three causes."""
    path = tmp + '/refused'
    write(tmp + '/main.c', 'int dep(void); int main(void) { return dep(); }\n')
    write(tmp + '/dep.c', 'int dep(void) { return 0; }\n')
    if kind == 'no loader':
        build(path, '-Wl,--dynamic-linker=/nonexistent/ld.so', tmp + '/main.c', tmp + '/dep.c')
    elif kind == 'older library':
        for version in (2, 1):
            write(tmp + '/map', 'DEP_%d { global: dep; };\n' % version)
            build(tmp + '/libdep.so', '-shared', '-fPIC', '-Wl,--version-script=%s/map' % tmp,
                  tmp + '/dep.c')
            if version == 2:
                build(path, tmp + '/main.c', '-L' + tmp, '-ldep', '-Wl,-rpath,' + tmp)
    else:
        build(path, tmp + '/main.c', tmp + '/dep.c')
        with open(path, 'r+b') as f:
            f.seek(18)                          # e_machine
            f.write(b'\xed\xfe')
    return path


@pytest.fixture
def brings(tmp, monkeypatch):
    """brings(kind) gives relay a binary for this machine type that the far
    system refuses to run."""
    def start(kind):
        for name in ('bin', 'lib/relay'):
            os.makedirs('%s/prefix/%s' % (tmp, name))
        shutil.copy(rig.RELAY, tmp + '/prefix/bin/relay')
        shutil.copy(refused(kind, tmp), '%s/prefix/lib/relay/relay-%s' % (tmp, MACHINE))
        monkeypatch.setattr(rig, 'RELAY', tmp + '/prefix/bin/relay')
    return start


@needs('cc')
@pytest.mark.parametrize('shell', [pytest.param(name, marks=needs(name)) for name in SHELLS])
@pytest.mark.parametrize('kind, expected',
                         [('no loader', 'ot found|o such file'),
                          ('older library', "version .DEP_2' not found"),
                          ('foreign', '[Ee]xec format|ELF')])
def test_binary_that_does_not_run(tunnel, far, tmp, brings, shell, kind, expected):
    """Goal: a binary that the far system refuses to run is sent once, the
    loader's message is quoted, and nothing is left; status 7."""
    if kind == 'foreign' and shell in ('busybox', 'yash'):
        pytest.skip('this shell reads it as a script')
    brings(kind)
    os.symlink(shutil.which(shell), far.bin + '/sh')
    r = tunnel('-L', '127.0.0.1:0:/a', far.here('TMPDIR=' + tmp))
    assert r.wait() == 7
    lines = [line for line in r.err().splitlines() if line.startswith('relay: ')]
    assert len(lines) == 3 and 'copying relay' in lines[1], r.err()
    assert re.search('does not run there: .*(%s)' % expected, lines[2]) and '-x' in lines[2], \
        lines[2]
    assert 'make room' not in r.err() and 'relay::' not in r.err(), r.err()
    assert far.files() == [] and not os.path.exists(tmp + '/relay-0')


@needs('cc')
def test_refused_and_made_again(tunnel, far, web, tmp, brings, mark):
    """Goal: a tunnel reconnects and now reaches another host, which refuses to
    run the binary.  It is sent once, however many starts follow.  A relay
    installed there later is used."""
    brings('older library')
    os.symlink(rig.RELAY, far.bin + '/relay')
    far.program('id', '#!/bin/sh\necho >>%s/starts\nexec /usr/bin/id "$@"\n' % tmp)
    far.program('head',
                '#!/bin/sh\n[ "$2" = 1 ] || echo >>%s/copies\nexec /usr/bin/head "$@"\n' % tmp)

    def lines(name):
        try:
            return os.path.getsize('%s/%s' % (tmp, name))
        except FileNotFoundError:
            return 0
    r = tunnel('-v', '-L', '127.0.0.1:0:' + web.path, far.here())
    shows_page(r.address)
    assert lines('starts') == 0
    os.unlink(far.bin + '/relay')
    os.kill(far_relay(mark), signal.SIGKILL)
    wait_for(lambda: lines('starts') >= 3, what=r.err())
    # the next start may already wait
    assert lines('copies') <= 2 and 'DEP_2' in r.err(), r.err()
    os.symlink(rig.RELAY, far.bin + '/relay')
    again(r, 1)
    shows_page(r.address)
    assert far.files() == []


# ---- hosts with an old C library, and with none ----

# BUSYBOX names a static busybox, if the one in /bin is dynamic
BUSYBOX = next((path for path in ('/bin/busybox', os.environ.get('BUSYBOX', ''))
                if os.path.exists(path) and rig.loader(path) is None), None)
MUSL = shutil.which('musl-gcc')
LOADER = rig.loader(rig.RELAY)
OLD = "relay: /lib64/libc.so.6: version `GLIBC_2.34' not found (required by relay)"


@pytest.fixture
def root(tmp):
    """A hop into a root directory without any library: its programs are those
    of a static busybox."""
    if BUSYBOX is None:
        pytest.skip('skipped: no static busybox: set BUSYBOX')
    if os.geteuid() != 0:
        pytest.skip('skipped: only root can use chroot')
    top = tmp + '/root'
    for name in ('bin', 'tmp', 'dev', 'root'):
        os.makedirs('%s/%s' % (top, name))
    shutil.copy(BUSYBOX, top + '/bin/busybox')
    for name in TOOLS:
        if name not in ('setpriv',):
            os.symlink('busybox', '%s/bin/%s' % (top, name))
    write(top + '/dev/null', '', 0o666)
    write(top + '/root/page', PAGE)
    return 'chroot %s /bin/env -i PATH=/bin HOME=/root' % top, top


@pytest.fixture
def prefix(tmp, monkeypatch):
    """prefix(static) makes relay one that is installed with a static copy, or
    without one."""
    def start(static):
        for name in ('bin', 'lib/relay'):
            os.makedirs('%s/prefix/%s' % (tmp, name))
        shutil.copy(rig.RELAY, tmp + '/prefix/bin/relay')
        if static:
            shutil.copy(static, '%s/prefix/lib/relay/relay-%s' % (tmp, MACHINE))
        monkeypatch.setattr(rig, 'RELAY', tmp + '/prefix/bin/relay')
    return start


def static_relay(tmp):
    """A static relay: that of make, or else one that is built here."""
    path = '%s/relay-static' % os.path.dirname(rig.HERE)
    if os.path.exists(path):
        return path
    if MUSL is None:
        pytest.skip('skipped: no musl-gcc: apt-get install musl-tools')
    shutil.copytree(os.path.dirname(rig.HERE), tmp + '/tree', ignore=shutil.ignore_patterns(
        '.git', '.cross', '*.o', 't', 'relay', 'relay-*'))
    os.symlink(rig.HERE, tmp + '/tree/t')
    subprocess.run(['make', '-s', 'relay-static'], cwd=tmp + '/tree', check=True,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return tmp + '/tree/relay-static'


@pytest.mark.parametrize('loader', ['none', 'old'])
def test_static_relay_runs_everywhere(tunnel, root, prefix, tmp, loader):
    """Goal: a host without a C library, or with an old one, gets the static
    relay."""
    hop, top = root
    prefix(static_relay(tmp))
    if loader == 'old':
        old_library(top)
    r = tunnel('-L', '127.0.0.1:0:127.0.0.1:1', hop)
    assert r.address
    assert 'copying relay' in r.err() and 'not static' not in r.err(), r.err()
    assert len(os.listdir(top + '/root/.cache/relay')) == 1
    assert r.stop() == 0


def old_library(top):
    """The loader of an old system: it reports that the library is too old.
    The kernel starts it for a program that names this loader."""
    if MUSL is None or LOADER is None:
        pytest.skip('skipped: no musl-gcc, or this relay has no loader')
    os.makedirs(top + os.path.dirname(LOADER), exist_ok=True)
    write(top + '/loader.c', """
#include <unistd.h>
int main(void) { return write(2, "%s\\n", %d) < 0 ? 2 : 1; }
""" % (OLD, len(OLD) + 1))
    subprocess.run([MUSL, '-static', '-no-pie', '-o', top + LOADER, top + '/loader.c'], check=True)
    os.unlink(top + '/loader.c')


@pytest.mark.parametrize('loader', ['none', 'old'])
def test_dynamic_relay_is_refused(tunnel, root, prefix, loader):
    """Goal: if there is no static relay, this is reported before the copy.
    The message of the loader is quoted, with the command that helps."""
    hop, top = root
    if LOADER is None:
        pytest.skip('skipped: this relay is static')
    prefix(None)
    if loader == 'old':
        old_library(top)
    r = tunnel('-L', '127.0.0.1:0:127.0.0.1:1', hop)
    assert r.wait() == 7
    lines = [line for line in r.err().splitlines() if line.startswith('relay: ')]
    assert re.search(r'copying relay .*; it is not static', lines[1]), r.err()
    assert (OLD if loader == 'old' else 'not found') in lines[2], lines[2]
    assert 'make static && make install' in lines[2] and '-x' in lines[2], lines[2]
    assert os.listdir(top + '/root/.cache/relay') == []


@pytest.fixture
def without(far, tmp):
    """without(tool) makes a hop whose PATH has every tool that relay needs
    except one."""
    def hop(tool, *words):
        os.mkdir(tmp + '/tools')
        for name in TOOLS:
            if name != tool:
                os.symlink(shutil.which(name), '%s/tools/%s' % (tmp, name))
        return far.here(*words, 'PATH=%s/tools' % tmp)
    return hop


@pytest.mark.parametrize('tool', ['find', 'id', 'mv'])
def test_missing_tool(tunnel, far, without, tmp, tool):
    """Goal: if a tool needed for the copy is missing, the error names it;
    nothing is sent and nothing is made; status 7."""
    r = tunnel('-L', '127.0.0.1:0:/a', without(tool, 'TMPDIR=' + far.home))
    assert r.wait() == 7
    assert len(r.err().splitlines()) == 2 and 'lacks %s,' % tool in r.err() and '-x' in r.err(), \
        r.err()
    assert os.listdir(far.home) == []


def test_without_cksum(tunnel, far, web, without):
    """Goal: a host without cksum gets a copy of relay and finds it at the next
    start."""
    hop = without('cksum')
    for copies in (1, 0):
        r = tunnel('-L', '127.0.0.1:0:' + web.path, hop)
        shows_page(r.address)
        has_one_copy(far)
        assert r.err().count('copying relay') == copies and r.stop() == 0, r.err()


# ---- hops that are commands ----

# Each runs its arguments without a shell, like the program that it replaces.
STAND_INS = {
    'docker': '#!/bin/sh\n[ "$1 $2 $3" = "exec -i c" ] && shift 3 && exec "$@"\n'
              '[ "$1 $2" = "exec c" ] && shift 2 && exec "$@" </dev/null\n',
    'kubectl': '#!/bin/sh\n[ "$1 $2 $3 $4" = "exec -i pod --" ] && shift 4 && exec "$@"\n',
    'srun': '''#!/usr/bin/python3
import os, subprocess, sys
words = sys.argv[1:]
command = words[[w[0] for w in words].index('s'):]
if '-u' in words:
    os.execvp(command[0], command)
child = subprocess.Popen(command, stdout=subprocess.PIPE)
held = b''
while True:
    data = os.read(child.stdout.fileno(), 65536)
    held += data
    if '--block' in words:
        keep = len(held) % 8192
    else:
        keep = len(held) - held.rfind(b'\\n') - 1
    keep = keep if data else 0
    sys.stdout.buffer.write(held[:len(held) - keep])
    sys.stdout.buffer.flush()
    held = held[len(held) - keep:]
    if not data:
        break
''',
}
CONTAINERS = ('docker exec -i c', 'kubectl exec -i pod --', 'srun --jobid=7 --overlap -u')


@pytest.fixture
def stand_ins(far):
    for name, text in STAND_INS.items():
        far.program(name, text)
    far.env['HOME'] = far.home
    far.env['PATH'] = far.bin + ':' + far.env['PATH']


@pytest.mark.parametrize('hop', CONTAINERS)
def test_container(tunnel, far, web, stand_ins, hop):
    """Goal: a command that runs its arguments works as a hop, alone and behind
    a host."""
    for hops in ([hop], ['login', hop]):
        r = tunnel('-L', '127.0.0.1:0:' + web.path, *hops)
        shows_page(r.address)
        assert r.err().splitlines()[-1].endswith('-> %s:%s' % (' -> '.join(hops), web.path))
        assert r.stop() == 0
    has_one_copy(far)


@needs('sudo')
def test_sudo(tunnel, far, web):
    """Goal: with sudo -u as the last hop the far relay runs as that user."""
    os.chmod(far.home, 0o777)
    r = tunnel('-L', '127.0.0.1:0:' + web.path, 'login', 'sudo -n -u nobody env HOME=' + far.home)
    shows_page(r.address)
    assert os.stat(has_one_copy(far)).st_uid == pwd.getpwnam('nobody').pw_uid


def test_hop_without_stdin(tunnel, far, stand_ins):
    """Goal: a command that passes no stdin (docker exec without -i) is
    reported as the cause of the failed start."""
    r = tunnel('-L', '127.0.0.1:0:/a', 'docker exec c')
    assert r.wait() == 7
    assert 'docker exec c' in r.err().splitlines()[-1]


def test_hop_that_holds_back(tunnel, far, stand_ins):
    """Goal: srun without -u holds back data without a newline or smaller than
    a block.  relay reports that within 15 s, with the remedy."""
    hops = ('srun --jobid=7 --overlap', 'srun --jobid=7 --overlap --block')
    held = [tunnel('-x', rig.RELAY, '-L', '127.0.0.1:0:/a', hop) for hop in hops]
    for r in held:
        r.says('srun without -u', 15)
    assert held[0].wait() == 7
    assert held[1].stop() == 0


@slow
def test_relay_there_that_is_another(tunnel, far, web):
    """Goal: if a `relay` in the PATH there does not answer -V, relay logs it
    after 10 s and continues to wait."""
    far.program('relay', '#!/bin/sh\nexec sleep 13\n')
    r = tunnel('-v', '-L', '127.0.0.1:0:' + web.path, 'login')
    r.says('reached login')
    r.says('login was reached and does not answer any more: is another program there named relay?')
    shows_page(r.address)
    assert r.stop() == 0


def test_terminal_in_the_way(tunnel, far):
    """Goal: with ssh -tt as a hop, the error names the terminal."""
    for hops in (['ssh -tt login'], ['login', 'ssh -tt node']):
        r = tunnel('-L', '127.0.0.1:0:/a', *hops)
        assert r.wait() == 7
        last = [line for line in r.err().splitlines() if 'before that' not in line][-1]
        assert 'terminal' in last and 'ssh -t' in last, r.err()


def test_hop_that_runs_nothing(tunnel, far):
    """Goal: a command that does not run its arguments is reported."""
    for hop, expected in (('cat -', 'came back'), ('env true', 'status 0'),
                          ('env false', 'status 1'),
                      ('/none/at all', 'No such file'), ('env cat', 'sh: No such file')):
        r = tunnel('-L', '127.0.0.1:0:/a', hop)
        assert r.wait() == 7, hop
        assert expected in r.err(), r.err()
    assert far.files() == []


def test_another_ssh(tunnel, far, web, hosts):
    """Goal: -e, or else RELAY_SSH, replaces the ssh of the first hop.  A hop
    that is a command uses its own ssh."""
    plain = {'PATH': '/usr/bin:/bin'}
    words = ['-L', '127.0.0.1:0:' + web.path, 'login', 'node']
    ssh = 'ssh -F %s/config' % hosts.dir
    r = tunnel('-e', ssh, *words, env=dict(plain, RELAY_SSH='false'))
    shows_page(r.address)
    r = tunnel(*words, env=dict(plain, RELAY_SSH=ssh))
    shows_page(r.address)
    r = tunnel('-L', '127.0.0.1:0:' + web.path, 'ssh -p %d 127.0.0.1' % hosts.ports['login'])
    shows_page(r.address)


def test_options_of_ssh(tunnel, far, web, hosts):
    """Goal: -l, -o and -p are those of the first ssh, before or after the hops.
    The file of -e may have a blank in its name."""
    os.symlink(hosts.dir + '/config', far.home + '/a file')
    r = tunnel('first', 'node', '-NT', '-l', ME, '-o', 'HostName=127.0.0.1', '-L',
               '127.0.0.1:0:' + web.path, '-p', hosts.ports['login'],
               '-e', "ssh -F '%s/a file'" % far.home)
    shows_page(r.address)
    assert r.err().splitlines()[-1].endswith(' -> first -> node:' + web.path)
    os.unlink(far.home + '/a file')
    r = tunnel('-J', 'login', 'second', '-o', 'HostName=127.0.0.1', '-p', hosts.ports['node'], '-l', ME,
               '-L', '127.0.0.1:0:' + web.path)
    shows_page(r.address)
    r = tunnel('-l', 'no-such-user', '-L', '127.0.0.1:0:/a', 'login')
    assert r.wait() == 8 and 'no-such-user@' in r.err()


# ---- starts that fail ----

@pytest.mark.parametrize('hops, expected', [
    (['no.such.host.invalid'],
     ['cannot reach no.such.host.invalid: ', 'Could not resolve', 'is the name right?']),
    (['login', 'no.such.host.invalid'],
     ['cannot reach no.such.host.invalid: ', 'Could not resolve', 'The hop before looks it up']),
    (['closed'], ['cannot reach closed: 127.0.0.1 port ', ': Connection refused; ', '(-p)']),
    (['login', 'closed'], ['cannot reach login -> closed: ', 'Connection refused', 'relay -n']),
    (['locked'], ['cannot reach locked: ', 'Permission denied', 'ssh -v shows the keys']),
    (['login', 'locked'],
     ['cannot reach login -> locked: ', 'Permission denied', 'put a key on the hop before it']),
    (['login', 'none at all'], ['cannot reach login -> none at all: ', 'not found', 'whole path']),
    (['-o', 'ProxyJump=login', 'node'], ['cannot reach node: ', 'use -J of relay']),
    (['-o', 'Port=x', 'login'], ['cannot reach login: ', 'Bad port']),
])
def test_no_way(tunnel, far, hops, expected):
    """Goal: if a hop cannot be reached, one line names it, the cause and the
    remedy, and nothing else is logged.  The status is 8 for a refused login, else
    7, and stdout is empty."""
    r = tunnel('-L', '127.0.0.1:0:/a', *hops)
    assert r.wait() == (8 if 'Permission denied' in expected else 7), r.err()
    assert r.proc.stdout.read() == b''
    lines = r.err().splitlines()
    assert len(lines) == 2 and all(words in lines[1] for words in expected), r.err()


def test_login_shell_that_runs_nothing(tunnel, far):
    """Goal: if the login shell prints a line and exits, this line is the
    cause."""
    r = tunnel('-L', '127.0.0.1:0:/a', 'login', env={'FAR_COMMAND': 'echo closed today; exit 1'})
    assert r.wait() == 7
    assert 'cannot reach login: ssh ended with status 1 after this output: "closed today"; ' \
        in r.err(), r.err()


def test_refusal_of_a_start_up_file(tunnel, far):
    """Goal: once the far shell has answered, no line is a refused login."""
    line = 'printf "relay:: here\\n"; echo "x: Permission denied (y)." >&2; exit 1'
    r = tunnel('-L', '127.0.0.1:0:/a', 'login', env={'FAR_COMMAND': line})
    assert r.wait() == 7, r.err()


def test_cannot_listen_here(tunnel, far, web, tmp):
    """Goal: if the source cannot be listened on, the status is 3 and no host
    is contacted."""
    for place in ('127.0.0.1:%d' % web.port, tmp + '/none/a.sock'):
        r = tunnel('-L', '%s:/a' % place, 'login')
        assert r.wait() == 3
        assert r.err().count('\n') == 1 and place in r.err(), r.err()
    assert far.files() == []


@pytest.mark.parametrize('who', ['near', 'far'])
def test_stopped_while_it_copies(tunnel, far, hosts, mark, tmp, cable, who):
    """Goal: if relay is killed during the copy, or the far shell gets SIGTERM,
    no .part file is left and no other directory is made."""
    uid = far.user()
    os.chmod(tmp, 0o777)
    far.env['RELAY_SSH'] = 'ssh -F %s/slow' % tmp
    with open(tmp + '/config') as f:
        write(tmp + '/slow', f.read().replace('line.py 0 0', 'line.py 0 1'), 0o600)
    r = tunnel('-L', '127.0.0.1:0:/a', 'cable', env={'TMPDIR': tmp})

    def half():
        return [name for name in far.files() if name.endswith('.part')
                and os.stat('%s/%s' % (far.home, name)).st_size > 20000]
    wait_for(half)
    if who == 'near':
        r.kill()
        for pid, line in rig.marked(mark).items():
            if line.startswith(sys.executable):
                # bytes on the way are lost with the connection
                rig.kill(pid, signal.SIGKILL)
    else:
        for pid, line in rig.marked(mark).items():
            if line == 'sh' or line.startswith(('head -c', 'cat')):
                rig.kill(pid, signal.SIGTERM)
        assert r.wait() == 7
    hosts.wait_for_silence(mark, seconds=10)
    assert far.files() == []
    assert not os.path.exists('%s/relay-%d' % (tmp, uid))


# ---- waiting, and an end ----

def test_wait_for_target(tunnel, far, tmp, target):
    """Goal: with -w the tunnel is announced when the target listens, not
    earlier, and then serves clients."""
    r = tunnel('-w', '30', '-L', '127.0.0.1:0:%s/t0' % tmp, far.here())
    r.says('waiting for the target')
    rig.quiet(r.pid)
    assert r.err().splitlines()[-1].endswith('waiting for the target')
    t = target('unix')
    address = r.address
    t.accept().close()
    a = rig.connect(address)
    b = t.accept()
    rig.ping(a, b)
    a.close()
    b.close()


def test_wait_in_vain(tunnel, far, tmp):
    """Goal: with -w and no target, the status is 1 and the error names the
    target.  -w does not apply to the target of -R, so it is not the remedy."""
    r = tunnel('-w', '1', '-L', '127.0.0.1:0:%s/none' % tmp, far.here())
    assert r.wait() == 1, r.err()
    assert tmp + '/none: No such file' in r.err() and 'raise the SECONDS of -w' in r.err()
    r = tunnel('-R', '127.0.0.1:0:%s/none' % tmp, far.here())
    assert rig.fate_at(r.address) == 'reset'
    assert r.says('cannot connect to').endswith('; start its server')


UNUSED = 'no process listens on %s yet; connections work when one does'


def test_target_without_a_server(tunnel, far, tmp, target):
    """Goal: at the start, one line names each target of -L on which no process
    listens.  Nothing connects: a server that accepts only one connection keeps
    it for the first client."""
    servers = target('unix'), target('tcp')
    free, dead, none = 'localhost:%d' % rig.free_port(), tmp + '/dead', tmp + '/none'
    rig.UnixTarget(dead).sock.close()
    targets = [free, dead, *(t.words[0] for t in servers), '192.0.2.1:80', none]
    r = tunnel(*(word for to in targets for word in ('-L', '127.0.0.1:0:' + to)),
               '-D', '127.0.0.1:0', '-R', '127.0.0.1:0:%s/other' % tmp, 'login', 'node')
    r.says(UNUSED % none)
    os.unlink(dead)
    assert [line for line in r.err().splitlines() if 'yet' in line] == \
        ['relay: node: ' + UNUSED % to for to in (free, dead, none) if rig.EXTRAS or '/' in to]
    for address, t in zip(r.addresses[2:4], servers):
        assert not t.waiting()
        a = rig.connect(address)
        b = t.accept()
        t.close()
        rig.ping(a, b)
        a.close()
        b.close()


def test_server_that_starts_later(tunnel, far, tmp, target):
    """Goal: connections work when the server has started.  A reconnect does not
    report its absence again."""
    r = tunnel('-L', '127.0.0.1:0:%s/t0' % tmp, far.here())
    r.says(UNUSED % (tmp + '/t0'))
    for pid in rig.children(r.pid):
        rig.kill(pid, signal.SIGKILL)
    r.says('reconnected to ')
    assert rig.fate_at(r.address) == 'reset'
    r.says('cannot connect to')
    serves(r, target('unix'))
    assert r.err().count('yet;') == 1, r.err()


def test_server_that_starts_after_the_background(run, far, tmp, mark):
    """Goal: -f does not wait for the check of the targets; the line goes to the
    log."""
    words = ['-f', '-E', tmp + '/log', '-P', tmp + '/relay.pid', '-L', '127.0.0.1:0:/none']
    assert run(*words, far.here(), env=dict(far.env, **{rig.MARK: mark})).returncode == 0

    def log():
        with open(tmp + '/log') as f:
            return f.read()
    wait_for(lambda: UNUSED % '/none' in log())
    with open(tmp + '/relay.pid') as f:
        os.kill(int(f.read()), signal.SIGTERM)
    wait_for(lambda: not rig.marked(mark))


@pytest.mark.parametrize('kind', ['-L', '-R'])
def test_idle(tunnel, far, target, kind):
    """Goal: with -i a tunnel in use stays, and exits with status 0 a second
    after the last connection."""
    t = target('unix')
    r = tunnel('-i', '1', kind, '127.0.0.1:0:' + t.words[0], far.here())
    a = rig.connect(r.address)
    b = t.accept()
    end = time.monotonic() + 1.5
    wait_for(lambda: time.monotonic() > end)
    rig.ping(a, b)
    a.close()
    b.close()
    since = time.monotonic()
    assert r.wait(5) == 0
    assert 0.8 < time.monotonic() - since < 3
    assert r.err().count('exiting: no connection for 1 s') == 1


def test_idle_with_a_slow_end(tunnel, far):
    """Goal: -i exits once, although the hop ends later."""
    far.program('slow', '#!/bin/sh\n"$@"\nsleep 0.3\n')
    r = tunnel('-i', '1', '-L', '127.0.0.1:0:/a', far.here('slow'))
    assert r.address
    assert r.wait(8) == 0
    assert r.err().count('exiting: no connection for 1 s') == 1


def test_idle_from_the_start(tunnel, far):
    """Goal: with -i a tunnel that never had a connection exits too."""
    r = tunnel('-i', '1', '-L', '127.0.0.1:0:/a', far.here())
    assert r.address
    since = time.monotonic()
    assert r.wait(8) == 0
    assert time.monotonic() - since > 0.8


def test_background(run, far, web, tmp, hosts, mark):
    """Goal: -f exits with status 0 when the tunnel works, with the address on
    stdout.  SIGTERM to the pid in the file of -P ends everything."""
    pidfile = tmp + '/relay.pid'
    r = run('-f', '-P', pidfile, '-L', '127.0.0.1:0:' + web.path, 'login',
            env=dict(far.env, **{rig.MARK: mark}))
    assert r.returncode == 0, r.stderr
    shows_page(r.stdout.strip())
    with open(pidfile) as f:
        pid = int(f.read())
    os.kill(pid, signal.SIGTERM)
    hosts.wait_for_silence(mark)
    assert not os.path.exists(pidfile)


def test_background_without_its_parent(tunnel, far, target, tmp, mark):
    """Goal: if the process that waits for -f is killed, relay ends instead of
    going to the background."""
    r = tunnel('-f', '-w', '60', '-L', '127.0.0.1:0:%s/t0' % tmp, far.here())
    r.says('waiting for the target')
    os.kill(r.pid, signal.SIGKILL)
    target('unix')
    wait_for(lambda: not rig.marked(mark))


def test_background_fails(run, far, web, tmp, mark):
    """Goal: -f returns the exit status of a failed start, and no process is
    left."""
    for words, status in ((['-L', '127.0.0.1:0:/a', 'closed'], 7),
                          (['-L', '127.0.0.1:%d:/a' % web.port, 'closed'], 3),
                          (['-R', tmp + '/none/a:/a', far.here()], 3),
                          (['-w', '1', '-L', '127.0.0.1:0:/none/a', far.here()], 1)):
        r = run('-f', '-P', tmp + '/relay.pid', *words, env=dict(far.env, **{rig.MARK: mark}))
        assert (r.returncode, r.stdout) == (status, ''), r.stderr
        assert not rig.marked(mark)
        assert not os.path.exists(tmp + '/relay.pid')


def test_table(tunnel, far, target):
    """Goal: SIGUSR1 logs the state of the connection, its round trip time, and
    each stream with its bytes."""
    t = target('unix')
    r = tunnel('-L', '127.0.0.1:0:' + t.words[0], far.here())
    a = rig.connect(r.address)
    b = t.accept()
    rig.ping(a, b, b'x' * 1000)
    r.proc.send_signal(signal.SIGUSR1)
    r.says(' is up')
    r.says('round trip')
    r.says('1000 bytes there, 1000 back')
    rig.ping(a, b)
    a.close()
    b.close()


@pytest.mark.parametrize('sig', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_stopped(tunnel, far, target, hosts, mark, tmp, sig):
    """Goal: each signal that stops relay with connections open leaves no
    process and no socket on either host after 2 s."""
    t = target('unix')
    r = tunnel('-L', '%s/near.sock:%s' % (tmp, t.words[0]), '-R',
               '%s/far.sock:%s' % (tmp, t.words[0]), 'login', 'node')
    ends = []
    for address in r.addresses:
        ends += [rig.connect(address), t.accept()]
        rig.ping(*ends[-2:])
    assert r.stop(sig, timeout=2) == (0 if sig != signal.SIGKILL else -9)
    hosts.wait_for_silence(mark)
    assert not os.path.exists(tmp + '/far.sock')
    if sig == signal.SIGKILL:
        os.unlink(tmp + '/near.sock')
    for end in ends:
        end.fate()
        end.close()
    assert not os.path.exists(tmp + '/near.sock')


def test_interrupted_at_the_terminal(tunnel, far, web, hosts, mark):
    """Goal: Ctrl-C reaches relay and its ssh at the same time.  relay exits
    with status 0 and does not log a lost connection."""
    r = tunnel('-L', '127.0.0.1:0:' + web.path, 'login', start_new_session=True)
    shows_page(r.address)
    before = r.err()
    os.killpg(r.pid, signal.SIGINT)
    assert r.wait(2) == 0
    hosts.wait_for_silence(mark)
    assert r.err() == before


def test_stopped_while_it_starts(tunnel, far, hosts, mark):
    """Goal: a signal during the start ends relay at once, without a message
    about a failure."""
    far.program('uname', '#!/bin/sh\nexec sleep 100\n')
    r = tunnel('-L', '127.0.0.1:0:/a', 'login')
    sleep, = wait_for(lambda: [pid for pid, line in rig.marked(mark).items()
                               if line == 'sleep 100'])
    assert r.stop(timeout=2) == 0
    assert len(r.err().splitlines()) == 1, r.err()
    os.kill(sleep, signal.SIGKILL)
    hosts.wait_for_silence(mark)
    assert far.files() == []


# ---- reconnecting ----

def again(r, n):
    """Wait for the n-th reconnection."""
    wait_for(lambda: r.err().count('reconnected to ') >= n, what='again: ' + r.err())


class Asker:
    """Clients that request a page repeatedly.  The begin, end and result of
    each request are kept."""

    def __init__(self, address, n=2):
        self.address, self.over, self.seen = address, False, []
        self.threads = [threading.Thread(target=self.ask) for _ in range(n)]
        for thread in self.threads:
            thread.start()

    def ask(self):
        while not self.over:
            begin = time.monotonic()
            status, page = curl('http://%s/' % self.address)
            self.seen.append((begin, time.monotonic(), status == 0 and page == PAGE, status))

    def answered_since(self, when):
        return any(ok and begin > when for begin, _, ok, _ in self.seen)

    def close(self):
        self.over = True
        for thread in self.threads:
            thread.join()


def near_ssh(r):
    """The first ssh of a tunnel."""
    return rig.children(r.pid)[0]


def far_relay(mark):
    pid, = [pid for pid, line in rig.marked(mark).items() if ' -m -t ' in line
            and ' -L ' not in line and 'ssh' not in line]
    return pid


def test_comes_back_again_and_again(tunnel, far, web, hosts, mark):
    """Goal: 20 times a process of the connection is killed while curl sends
    requests.  Requests made before or during an interruption are answered;
    only those in progress at a kill fail."""
    r = tunnel('-L', '127.0.0.1:0:' + web.path, 'login')
    asker = Asker(r.address)
    cuts = []
    kinds = [lambda: os.kill(near_ssh(r), signal.SIGKILL), lambda: hosts.cut('login'),
             lambda: os.kill(far_relay(mark), signal.SIGKILL),
             lambda: os.kill(near_ssh(r), signal.SIGTERM)]
    try:
        for i in range(20):
            wait_for(lambda: asker.answered_since(cuts[-1] if cuts else 0),
                     what='an answer after cut %d: %s' % (i, r.err()))
            cuts.append(time.monotonic())
            kinds[i % len(kinds)]()
            again(r, i + 1)
        wait_for(lambda: asker.answered_since(cuts[-1]))
    finally:
        asker.close()
    lost = [(begin, end, status) for begin, end, ok, status in asker.seen
            if not ok and not any(begin - 0.2 < cut < end for cut in cuts)]
    assert not lost, (lost, cuts)
    assert r.stop(timeout=2) == 0
    hosts.wait_for_silence(mark)
    assert len(far.files()) == 1


def test_proxy_outlives_the_line(tunnel, far, web, mark):
    """Goal: when the connection drops, an idle client of -D, and one that has
    sent half a request, are served after relay reconnects."""
    r = tunnel('-D', '127.0.0.1:0', far.here())
    silent, half = rig.connect(r.address), rig.connect(r.address)
    half.send(b'\5\1\0')
    assert half.read(2) == b'\5\0'
    os.kill(far_relay(mark), signal.SIGKILL)
    again(r, 1)
    silent.send(b'\5\1\0')
    assert silent.read(2) == b'\5\0'
    for a in (silent, half):
        a.send(b'\5\1\0\1\x7f\0\0\1' + web.port.to_bytes(2, 'big'))
        assert a.read(10)[:2] == b'\5\0'
        a.send(b'GET / HTTP/1.0\r\n\r\n')
        a.shut()
        assert a.read_all().endswith(PAGE)
        a.close()


def test_stdio_loses_the_line(tunnel, far, target, mark):
    """Goal: -W is one connection: when it is lost, relay exits with status 7
    and does not reconnect."""
    t = target('unix')
    a, i, o = rig.end_of_pipe_pair()
    r = tunnel('-W', t.words[0], far.here(), stdin=i, stdout=o)
    os.close(i)
    os.close(o)
    b = t.accept()
    rig.ping(a, b)
    os.kill(far_relay(mark), signal.SIGKILL)
    assert r.wait() == 7, r.err()
    assert 'has ended: ' in r.err().splitlines()[-1], r.err()
    assert a.read_all() == b''
    b.fate()
    a.close()
    b.close()


def test_comes_back_unasked(tunnel, far, web, mark):
    """Goal: relay reconnects even if no other event happens: the EOF of the
    channel and the exit of its process come in one turn of the loop."""
    r = tunnel('-L', '127.0.0.1:0:' + web.path, far.here())
    assert r.address
    there = far_relay(mark)
    os.kill(r.pid, signal.SIGSTOP)
    os.kill(there, signal.SIGKILL)
    wait_for(lambda: not rig.alive(there))
    os.kill(r.pid, signal.SIGCONT)
    again(r, 1)


def test_host_goes_away(tunnel, far, web, hosts, mark, pool, tmp):
    """Goal: sshd is stopped and started.  Listeners stay, clients that connect
    in between are served later, and -R listens again."""
    r = tunnel('-L', '127.0.0.1:0:' + web.path, '-R', '%s/far.sock:%s' % (tmp, web.path), 'login',
               'node')
    near, there = r.addresses
    shows_page(there)
    hosts.stop('node')
    r.says('; reconnecting')
    page = pool.submit(shows_page, near)
    rig.quiet(r.pid, 30)
    assert not page.done()
    assert not os.path.exists(there)
    hosts.start('node')
    page.result()
    wait_for(lambda: os.path.exists(there))
    shows_page(there)
    assert r.stop(timeout=2) == 0
    hosts.wait_for_silence(mark)


@pytest.mark.parametrize('place', ['port', 'picked port', 'socket'])
def test_remote_comes_back(tunnel, far, web, tmp, mark, place):
    """Goal: -R listens again at the same place, also if the system chose the
    port, and if a far relay killed with SIGKILL left its socket."""
    asked = {'port': '127.0.0.1:%d' % rig.free_port(), 'picked port': '127.0.0.1:0',
             'socket': tmp + '/far.sock'}[place]
    r = tunnel('-R', '%s:%s' % (asked, web.path), far.here())
    place, = r.addresses
    assert place == asked or asked == '127.0.0.1:0'
    for i in range(2):
        shows_page(place)
        os.kill(far_relay(mark), signal.SIGKILL)
        again(r, i + 1)
        wait_for(lambda: curl(*(['--unix-socket', place, 'http://app/'] if '/' in place
                                else ['http://%s/' % place])) == (0, PAGE))


def test_remote_place_is_taken_meanwhile(tunnel, far, web, tmp, mark):
    """Goal: if the place of -R is in use after a reconnection, relay logs it,
    and listens when the place is free."""
    place = tmp + '/far.sock'
    r = tunnel('-R', '%s:%s' % (place, web.path), far.here())
    assert r.addresses == [place]
    os.unlink(place)
    thief = rig.UnixTarget(place)
    os.kill(far_relay(mark), signal.SIGKILL)
    assert place in r.says('in use')
    assert r.proc.poll() is None
    thief.close()
    wait_for(lambda: os.path.exists(place))
    shows_page(place)


@pytest.mark.skipif(not rig.EXTRAS, reason='skipped: POSIX has no name for the running program')
def test_relay_is_replaced(far, web, tmp, mark):
    """Goal: relay's own file is replaced while it runs, as in an upgrade.  Its
    tunnels reconnect with the relay that runs."""
    own = tmp + '/relay'
    shutil.copy(COPIED, own)
    with open(tmp + '/log', 'w') as log:
        r = subprocess.Popen([own, '-L', '127.0.0.1:0:' + web.path, far.here()],
                             env=dict(far.env, **{rig.MARK: mark}),
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                             text=True)
    with r:
        address = r.stdout.readline().strip()
        shows_page(address)
        write(tmp + '/new', '#!/bin/sh\necho relay 99\n', 0o755)
        os.rename(tmp + '/new', own)
        for name in far.files():
            os.unlink('%s/%s' % (far.home, name))
        os.kill(far_relay(mark), signal.SIGKILL)
        try:
            shows_page(address)
            has_one_copy(far)
        finally:
            r.terminate()
            r.wait(rig.PATIENCE)


def test_loss_is_seen_by_clients(tunnel, far, target, hosts):
    """Goal: when the connection drops, the streams on it are reset on both
    sides."""
    t = target('unix')
    r = tunnel('-L', '127.0.0.1:0:' + t.words[0], 'login')
    a = rig.connect(r.address)
    b = t.accept()
    rig.ping(a, b)
    hosts.cut('login')
    assert a.fate() == 'reset'
    b.fate()
    a.close()
    b.close()


FLAKY = '''#!/bin/sh
date +%s.%N >>{log}
[ -e {broken} ] && exit 255
shift 2
exec "$@"
'''


@pytest.fixture
def flaky(far, tmp):
    """An ssh that fails at once while the file `broken` exists: (times of its
    starts, break it, repair it)."""
    log, broken = tmp + '/times', tmp + '/broken'
    write(tmp + '/flaky', FLAKY.format(log=log, broken=broken), 0o755)
    far.env['RELAY_SSH'] = tmp + '/flaky'

    def times():
        with open(log) as f:
            return [float(line) for line in f]
    return times, lambda: write(broken, ''), lambda: os.unlink(broken)


def test_backoff(tunnel, far, web, flaky, mark):
    """Goal: without a waiting client, failed starts follow with growing pauses
    and log nothing.  Later relay reconnects."""
    times, break_it, mend = flaky
    r = tunnel('-x', rig.RELAY, '-L', '127.0.0.1:0:' + web.path, 'anywhere')
    shows_page(r.address)
    break_it()
    os.kill(far_relay(mark), signal.SIGKILL)
    since = time.time()
    wait_for(lambda: len(times()) >= 4)
    def table():
        r.proc.send_signal(signal.SIGUSR1)
        return 'is down' in r.err()
    wait_for(table)
    assert 'reconnecting in ' in r.err()
    all_times = [since] + times()[1:]
    gaps = [b - a for a, b in zip(all_times, all_times[1:])]
    for gap, most in zip(gaps, (1, 1, 2)):
        assert most / 2 - 0.1 <= gap <= most + 0.5, gaps
    mend()
    lines = r.err().splitlines()
    assert '; reconnecting' in lines[2] \
        and not [line for line in lines[3:] if 'cannot' in line
                 and 'reconnecting in' not in line], \
        r.err()
    shows_page(r.address)


def test_stopped_while_away(tunnel, far, web, flaky, mark):
    """Goal: a signal while the connection is lost ends relay at once, with
    status 0."""
    times, break_it, _ = flaky
    r = tunnel('-x', rig.RELAY, '-L', '127.0.0.1:0:' + web.path, 'anywhere')
    assert r.address
    break_it()
    os.kill(far_relay(mark), signal.SIGKILL)
    wait_for(lambda: len(times()) >= 3)
    assert r.stop(timeout=2) == 0


def test_client_reconnects_at_once(tunnel, far, web, flaky, mark, pool):
    """Goal: a client that connects after the connection dropped starts the
    reconnection at once, without the first pause (at least 0.5 s)."""
    times, _, _ = flaky
    r = tunnel('-x', rig.RELAY, '-L', '127.0.0.1:0:' + web.path, 'anywhere')
    address = r.address
    delays = []
    for i in range(3):
        wait_for(lambda: time.time() > times()[-1] + 1.1)
        killed = time.time()
        os.kill(far_relay(mark), signal.SIGKILL)
        # this client may meet the connection that was just lost
        with contextlib.suppress(AssertionError):
            shows_page(address)
        shows_page(address)
        delays.append(times()[-1] - killed)
    assert min(delays) < 0.45, delays


def test_client_while_the_connection_is_lost(tunnel, far, web, flaky, mark, pool):
    """Goal: a waiting client causes one start at once, but not many starts
    without a pause."""
    times, break_it, mend = flaky
    r = tunnel('-x', rig.RELAY, '-L', '127.0.0.1:0:' + web.path, 'anywhere')
    address = r.address
    break_it()
    os.kill(far_relay(mark), signal.SIGKILL)
    r.says('reconnecting')
    page = pool.submit(shows_page, address)
    assert rig.cpu_grows(r.pid, 1) < 0.3
    wait_for(lambda: len(times()) >= 3)
    mend()
    page.result()
    assert len(times()) <= 5
    r.says('reconnected to')


def test_short_cut(tunnel, far, target, cable):
    """Goal: after an interruption of 3 s streams continue, and bytes sent in
    between arrive."""
    t = target('unix')
    cut, restore = cable
    r = tunnel('-L', '127.0.0.1:0:' + t.words[0], 'cable')
    a = rig.connect(r.address)
    b = t.accept()
    rig.ping(a, b)
    cut()
    a.send(b'are you there?')
    b.send(b'I am')
    end = time.monotonic() + 3
    wait_for(lambda: time.monotonic() > end)
    assert a.silent() and b.silent()
    restore()
    assert b.read(14) == b'are you there?'
    assert a.read(4) == b'I am'
    rig.ping(a, b)
    assert 'ended' not in r.err()
    a.close()
    b.close()


@slow
def test_long_cut(tunnel, far, target, cable, hosts, pool):
    """Goal: after 45 s without an answer relay gives the connection up and
    makes a new one, which serves a client that waited."""
    t = target('unix')
    cut, restore = cable
    r = tunnel('-L', '127.0.0.1:0:' + t.words[0], 'cable')
    a = rig.connect(r.address)
    b = t.accept()
    rig.ping(a, b)
    since = time.monotonic()
    cut()
    r.says('nothing was received', 60)
    assert 40 < time.monotonic() - since < 50
    assert a.fate() == 'reset'
    a.close()
    a = rig.connect(r.address)
    b2 = t.accept()
    rig.ping(a, b2)
    restore()
    b.fate()
    for end in (a, b, b2):
        end.close()
