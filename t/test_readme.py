"""Every command of README runs as written, through the two sshds.  Only the
names of files, ports and accounts differ: see Room.real.  srun, kubectl, docker
and sudo are fakes.  A fake checks its own arguments and executes the rest, so
it proves the quoting and not the program.
"""
import os
import re
import socket
import socketserver
import subprocess
import time
import urllib.request

import pytest

import hosts as hosts_room
import rig
from rig import wait_for

TOP = os.path.dirname(rig.HERE)

if hosts_room.missing():
    pytest.skip(hosts_room.missing(), allow_module_level=True)

BARE = True
FAKES = {
    'srun': ['--jobid=7 --overlap -u', '-u -t 4:00:00'],
    'kubectl': ['exec -i pod --'],
    'docker': ['exec -i container'],
    'sudo': ['-u app']}
FAKE = '''#!/bin/sh
for expected in %s; do
	n=$(echo $expected | wc -w)
	[ "$(echo "$@" | cut -d' ' -f1-$n)" = "$expected" ] && shift $n && exec "$@"
done
echo "${0##*/}: not expected: $*" >&2
exit 1
'''
JUPYTER = '''#!/usr/bin/python3
import os, signal, socketserver, sys
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
class Page(socketserver.StreamRequestHandler):
    def handle(self):
        while self.rfile.readline().strip():
            pass
        self.wfile.write(b'HTTP/1.0 200 OK\\r\\n\\r\\njupyter')
assert sys.argv[1:3] == ['notebook', '--no-browser'] and sys.argv[3].startswith('--sock=/')
socketserver.UnixStreamServer(sys.argv[3][7:], Page).serve_forever()
'''
SBATCH = '''#!/bin/sh
[ "$1 $2 $3 $4" = "-t 4:00:00 --wrap sleep infinity" ] && echo "Submitted batch job 7"
'''
PROGRAMS = r'(\$ )?(relay|ssh|make|curl|ln|addr=\S*|examples/\S+) '


def blocks():
    """The indented blocks of README that have commands, one text each."""
    with open(TOP + '/README') as f:
        text = f.read()
    found = re.findall(r'(?:^    .*\n)+', text, re.M)
    found = [re.sub('^    ', '', block, flags=re.M) for block in found]
    return [block for block in found if re.search('^ *' + PROGRAMS, block, re.M)
            or 'ProxyCommand' in block or block.startswith('restrict')]


def commands(block):
    """The commands of a block.  A line that ends in a backslash continues."""
    lines = block.replace('\\\n', ' ').splitlines()
    return [line.strip().removeprefix('$ ') for line in lines if re.match(' *' + PROGRAMS, line)]


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A web server whose page is its name."""
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, family, address, name):
        self.address_family, self.page = family, name.encode()
        super().__init__(address, Page)

    def server_bind(self):
        self.socket.bind(self.server_address)


class Page(socketserver.StreamRequestHandler):
    def handle(self):
        while self.rfile.readline().strip():
            pass
        self.wfile.write(b'HTTP/1.0 200 OK\r\n\r\n' + self.server.page)


class Room:
    """The account on the hosts, with servers on the sockets and the ports that
    README names."""

    def __init__(self, hosts, tmp):
        self.hosts, self.tmp, self.home = hosts, tmp, tmp + '/home'
        for path in (self.home, self.home + '/bin', tmp + '/far', tmp + '/near'):
            os.makedirs(path)
        os.symlink(rig.RELAY, tmp + '/near/relay')
        os.symlink(rig.RELAY, self.home + '/bin/relay')
        for name, words in FAKES.items():
            for place in ('far', 'near'):
                self.program('%s/%s' % (place, name), FAKE % ' '.join("'%s'" % w for w in words))
        self.program('far/jupyter', JUPYTER)
        self.program('far/sbatch', SBATCH)
        # the login shell of -- COMMAND sets PATH again
        self.program('home/.profile', 'PATH="%s/far:$PATH"\n' % tmp)
        self.near, self.far, self.procs, self.stack = {}, {}, [], []

    def program(self, name, text):
        path = '%s/%s' % (self.tmp, name)
        with open(path, 'w') as f:
            f.write(text)
        os.chmod(path, 0o755)

    def __enter__(self):
        for name in ('jupyter.sock', 'app.sock', 'test.sock'):
            self.serve(socket.AF_UNIX, '%s/%s' % (self.home, name), name)
        return self

    def serve(self, family, address, name):
        server = rig.serving(Server(family, address, name))
        server.__enter__()
        self.stack.append(server)

    def target(self, port):
        """The port on the hosts that stands for a port in README; a server
        listens there."""
        if port not in self.far:
            self.far[port] = str(rig.free_port())
            self.serve(socket.AF_INET, ('127.0.0.1', int(self.far[port])), port)
        return self.far[port]

    def source(self, port):
        return port if port == '0' else self.near.setdefault(port, str(rig.free_port()))

    def real(self, command):
        """The command with the names and ports that exist here."""
        command = re.sub(r'(-[LR] (?:127\.0\.0\.1:)?)(\d+):(localhost|machine):(\d+)',
                         lambda m: '%s%s:127.0.0.1:%s' % (m[1], self.source(m[2]), self.target(m[4])),
                         command)
        command = re.sub(r'(-L |-D |-O \w+ |^relay )(\d+)(?=[: ]|$)(?!:127)',
                         lambda m: m[1] + self.source(m[2]), command)
        for name, here in (('me@server', 'login'), ('me@login', 'login'),
                           ('/home/me', self.home), ('/tmp/test', self.home + '/test'),
                           ('/srv', self.home)):
            command = command.replace(name, here)
        return command

    def env(self):
        path = '%s/near:%s' % (self.tmp, self.hosts.env['PATH'])
        return dict(self.hosts.env, FAR_HOME=self.home, FAR_BIN=self.tmp + '/far', PATH=path,
                    HOME=self.home)

    def start(self, command, stderr=None, **env):
        """Run a command that listens here until the test ends; return its
        addresses."""
        p = self.hosts.popen('sh', '-c', 'exec ' + self.real(command), env=dict(self.env(), **env),
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                             stderr=stderr or open(self.tmp + '/err', 'w'))
        self.procs.append(p)
        addresses = p.stdout.read().split()
        assert addresses, self.err()
        return addresses

    def run(self, script):
        return self.hosts.run('sh', '-c', self.real(script), env=self.env())

    def err(self):
        with open(self.tmp + '/err') as f:
            return f.read()

    def __exit__(self, *_):
        for p in self.procs:
            p.terminate()
            p.wait(rig.PATIENCE)
            p.stdout.close()
        for server in self.stack:
            server.__exit__(None, None, None)
        for name in os.listdir(self.home):
            if name.endswith('.sock'):
                os.unlink('%s/%s' % (self.home, name))
        wait_for(lambda: not self.hosts.sessions(), 5, 'sessions left on the hosts')


@pytest.fixture
def room(hosts, tmp, mark):
    with Room(hosts, tmp) as r:
        yield r


def get(port):
    with urllib.request.urlopen('http://localhost:%s/' % port, timeout=rig.PATIENCE) as answer:
        return answer.read().decode()


# ---- what a block must do ----

def forward(room, command, **kw):
    """relay -L: the page of the target is at the port."""
    addresses = room.start(command, **kw)
    port = room.near[re.search(r'(?:-L |relay )(\d+)', command)[1]]
    expected = re.search(r'/(\w+\.sock)|:(\d+) |(?<= )(jupyter) ', command)
    assert get(port) == (expected[1] or expected[2] or expected[3])
    return addresses


def shown(room, block):
    """The same at a terminal.  It shows the lines of README, with other times and
    sizes."""
    command, *lines = block.replace('\\\n', ' ').splitlines()
    os.unlink(room.home + '/bin/relay')    # one is copied
    here, there = os.openpty()
    addresses = forward(room, command[2:], stderr=there, TERM='xterm', LC_ALL='C')
    os.close(there)
    text = b''
    while b'\nhttp://' not in re.sub(rb'\x1b\[[0-9;]*[mK]', b'', text):
        text += os.read(here, 4096)
    text = re.sub(r'\x1b\[[0-9;]*[mK]|[^\n]*\r(?!\n)', '', text.decode())
    text += '\n'.join(addresses)    # stdout
    os.close(here)
    for line in lines:
        line = line.replace('me@', '').replace('8888', room.near['8888'])
        line = re.sub(r'\d+(\\\.\d)?(?=\\ (KiB|s)\b)', r'[\\d.]+', re.escape(line))
        assert re.search('^%s\\r?$' % line, text, re.M), (line, text)


def back(room, command):
    room.start(command)
    assert get(room.near['9000']) == '3000'


def proxy(room, command):
    room.start(command)
    url = 'http://127.0.0.1:%s/' % room.target('8888')
    r = room.run('curl -s -x socks5h://localhost:%s %s' % (room.near['1080'], url))
    assert r.stdout == '8888', r.stderr


def shell(room, command):
    r = room.run(command + ' echo hello')
    assert r.stdout == 'hello\n', r.stderr


def config(room, block):
    """Lines for ~/.ssh/config."""
    with open(room.tmp + '/config', 'w') as f:
        f.write(block + 'Host *\nInclude %s/config\n' % room.hosts.dir)
    r = room.run('ssh -F %s/config node echo hello' % room.tmp)
    assert r.stdout == 'hello\n', r.stderr


def probe(room, command):
    r = room.run(command)
    assert r.returncode == 0, r.stdout + r.stderr


def background(room, block):
    """-f returns, -O list shows the tunnel, and -O exit ends it."""
    tunnel, listed, ended = commands(block)
    r = room.run(tunnel)
    assert r.returncode == 0, r.stderr
    assert get(room.near['8888']) == 'jupyter.sock'
    assert 'login -> node' in room.run(listed).stdout
    r = room.run(ended)
    assert r.returncode == 0, r.stderr
    with pytest.raises(OSError):
        get(room.near['8888'])


def script(room, block):
    r = room.run('\n'.join(commands(block)) + '\nrelay -O exit $addr')
    assert (r.returncode, r.stdout) == (0, 'app.sock'), r.stderr


def ready(room, command):
    assert room.run(command).stdout == 'ready\n'


def one_key(room, block):
    """The block for authorized_keys, and the command after it."""
    hosts = hosts_room.Hosts(names=('login',))
    try:
        key = hosts.dir + '/user.key'
        with open(key + '.pub') as f:
            public = ' '.join(f.read().split()[:2])
        # this sshd does not change HOME, so bin/relay would be in root's home
        with open(key + '.pub', 'w') as f:
            line = block.replace('bin/relay', 'relay').replace('/home/me', room.home)
            f.write(line.replace('ssh-ed25519 AAAA...', public))
        tunnel, = [b for b in blocks() if '~/.ssh/app' in b]
        env, room.hosts = room.hosts, hosts
        try:
            forward(room, commands(tunnel)[0].replace('~/.ssh/app', key))
        finally:
            room.procs.pop().terminate()
            wait_for(lambda: not hosts.sessions(), 5, 'sessions left on the host')
            room.hosts = env
    finally:
        hosts.close()


def each(room, block):
    """Several commands, each with its own tunnel."""
    for command in commands(block):
        with Room(room.hosts, room.tmp + '/' + str(time.monotonic_ns())) as r:
            check(r, command)


def targets(room, block):
    """make, with targets that exist.  test_build.py and .ci/run execute them."""
    for line in commands(block):
        for words in re.split('  +', line)[0].split(' && '):
            if words.startswith('make'):
                subprocess.run(['make', '-n'] + words.split()[1:], cwd=TOP, check=True,
                               stdout=subprocess.DEVNULL)


def batch(room, block):
    """A job, and a tunnel to its node."""
    job, tunnel = commands(block)
    r = room.run(job)
    assert r.stdout == 'Submitted batch job 7\n', r.stderr
    forward(room, tunnel)


def examples(room, block):
    """Scripts that exist.  test_examples.py executes them."""
    for name in re.findall(r'examples/\S+', block):
        assert os.access('%s/%s' % (TOP, name), os.X_OK)


CHECKS = [
    (r'make |ln ', targets),
    (r'ssh me@login sbatch', batch),
    (r'examples/', examples),
    (r'(?s)ssh -L.*\n *relay -R', each),
    (r'(?s)relay -L.*\nrelay -L', each),
    (r'(?s)relay -f.*-O list.*-O exit', background),
    (r'addr=', script),
    (r'Host ', config),
    (r'restrict,', one_key),
    (r'(?s)relay 8888.*relay -z', each),
    (r'(\$ )?relay -e', lambda room, block: None),    # one_key() runs it
    (r'relay -R', back),
    (r'relay -D', proxy),
    (r'relay -n', probe),
    (r'relay -z', ready),
    (r'ssh -o', shell),
    (r'ssh ', lambda room, command: None),    # the command that relay replaces
    (r'\$ relay .*-L ', shown),
    (r'relay .*-L |relay 8888 ', forward),
]


def check(room, block):
    for pattern, function in CHECKS:
        if re.match(pattern, block):
            if function not in (each, shown, config, background, script, targets, one_key, batch,
                                examples):
                block, = commands(block)
            return function(room, block)
    raise AssertionError('README has a command that no test runs: ' + block)


@pytest.mark.parametrize('block', blocks(), ids=lambda block: block.split('\n')[0][:40])
def test_readme(room, block):
    check(room, block)


def test_readme_is_short():
    """Goal: README is read in five minutes and fits a terminal."""
    with open(TOP + '/README') as f:
        lines = f.read().splitlines()
    assert len(lines) <= 230 and max(map(len, lines)) <= 80


def test_demo(tmp, mark):
    """Goal: make demo shows a page through a tunnel.  On a terminal it waits for
    Enter; then nothing is left."""
    here, there = os.openpty()
    p = subprocess.Popen([TOP + '/t/demo', rig.RELAY], stdin=there, stdout=there, stderr=there,
                         env=dict(os.environ, TMPDIR=tmp, TERM='xterm'), start_new_session=True)
    os.close(there)
    shown = b''
    while b'Enter ends the demo' not in shown:
        shown += os.read(here, 4096)
    assert b'<h1>It works</h1>' in shown, shown
    assert re.search(rb'node/\.cache/relay/relay-', shown), shown
    os.write(here, b'\n')
    while p.poll() is None:
        try:
            os.read(here, 4096)
        except OSError:
            break
    assert p.wait(rig.PATIENCE) == 0
    os.close(here)
    assert not os.listdir(tmp)
