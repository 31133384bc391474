"""-J: every login is made from this host, through the hosts before it.

Three sshds prohibit every kind of forwarding and have no relay: `login`, `gate`
and `node`.  A fourth one, `vault`, accepts only a password.  `locked` is
another name of `node`, and only the ssh of `near` has a key for it.
"""
import contextlib
import fcntl
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import termios

import pytest

import hosts as hosts_room
import rig
from rig import wait_for
from test_tunnel import (again, curl, far, joins_stdio, needs, shows_page, tunnel,    # noqa: F401
                         web, write)

if hosts_room.missing():
    pytest.skip(hosts_room.missing(), allow_module_level=True)

BARE = True
NO_PASSWORD = hosts_room.missing_password()
PASSWORDS = () if NO_PASSWORD else ('vault',)
NAMES = ('login', 'gate', 'vault', 'node')
ME = pwd.getpwuid(os.getuid()).pw_name
pytestmark = pytest.mark.usefixtures('nothing_left_on_the_hosts')
asks_password = pytest.mark.skipif(bool(NO_PASSWORD), reason=str(NO_PASSWORD))


@pytest.fixture
def near(hosts, tmp):
    """An ssh command that has a key for `locked`."""
    with open(hosts.dir + '/config') as f:
        config = f.read()
    write(tmp + '/near config', 'Host locked\n    IdentityFile %s/user.key\n%s' % (hosts.dir, config),
          0o600)
    os.rename(tmp + '/near config', tmp + '/near')
    return 'ssh -F %s/near' % tmp


class Terminal:
    """The controlling terminal of a relay."""

    def __init__(self):
        ours, self.theirs = os.openpty()
        self.end, self.text = rig.End(ours), b''

    def words(self):
        """Arguments of Popen."""
        return {'start_new_session': True,
                'preexec_fn': lambda: fcntl.ioctl(self.theirs, termios.TIOCSCTTY, 0)}

    def expect(self, pattern):
        """Read until the pattern matches.  Remove the text up to its end."""
        while not re.search(pattern, self.text):
            self.text += self.end.recv()
        self.text = self.text[re.search(pattern, self.text).end():]

    def type(self, text):
        self.end.send(text.encode() + b'\n')

    def close(self):
        os.close(self.theirs)
        self.end.close()


@pytest.fixture
def terminal():
    t = Terminal()
    yield t
    t.close()


def forward(web):
    return ['-L', '127.0.0.1:0:' + web.path]


def lines(r):
    return r.err().splitlines()


# ---- the logins ----

@pytest.mark.parametrize('words, path', [
    (['-J', 'login', 'node'], 'login -> node'),
    (['-J', 'login,gate', 'node'], 'login -> gate -> node'),
    (['-J', 'login', 'gate', 'node'], 'login -> gate -> node'),
    (['-J', 'login', 'gate', 'env A=B'], 'login -> gate -> env A=B'),
], ids=lambda v: v if isinstance(v, str) else ' '.join(v))
def test_page(tunnel, far, web, hosts, mark, words, path):
    """Goal: with -J, one command makes a page reachable, although the homes of
    the hosts are empty.  The messages show the whole path."""
    r = tunnel(*forward(web), *words)
    shows_page(r.address)
    assert lines(r)[0] == 'relay: reaching ' + path
    assert lines(r)[-1] == 'http://localhost:%s -> %s:%s' % (r.address.split(':')[1], path, web.path)
    assert r.stop() == 0
    hosts.wait_for_silence(mark)


def test_key_stays_here(tunnel, far, web, near):
    """Goal: a node that accepts only a key of this host is reached with -J.
    Without -J it is not, and the message names -J."""
    r = tunnel('-e', near, *forward(web), '-J', 'login', 'locked')
    shows_page(r.address)
    r = tunnel('-e', near, *forward(web), 'login', 'locked')
    assert r.wait() == 8
    assert 'Permission denied' in lines(r)[-1] and 'use -J' in lines(r)[-1], r.err()


def test_login_runs_no_ssh(tunnel, far, web, hosts):
    """Goal: no ssh runs on the hosts."""
    r = tunnel(*forward(web), '-J', 'login,gate', 'node')
    shows_page(r.address)
    todo, seen = hosts.sessions(), []
    while todo:
        pid = todo.pop()
        seen.append(rig.command_line(pid))
        todo += rig.children(pid)
    assert any('relay' in line for line in seen)
    assert not [line for line in seen if re.match(r'(\S*/)?ssh ', line)], seen


@asks_password
def test_password(tunnel, far, web, terminal):
    """Goal: the password of the second hop is typed at the terminal here."""
    r = tunnel(*forward(web), '-J', 'login', 'vault', **terminal.words())
    terminal.expect(b'password: ')
    terminal.type(hosts_room.PASSWORD)
    shows_page(r.address)
    assert r.stop() == 0


@asks_password
def test_background(hosts, far, web, terminal, mark):
    """Goal: with -f, relay goes to the background after the password."""
    pid_file = far.home + '/pid'
    shell = hosts.popen('sh', '-c', '"$@"; read x', 'sh', rig.RELAY, '-f', '-P', pid_file,
                        *forward(web), '-J', 'login', 'vault', env=far.env, text=True,
                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, **terminal.words())
    terminal.expect(b'password: ')
    terminal.type(hosts_room.PASSWORD)
    address = shell.stdout.readline().strip()
    shows_page(address)
    with open(pid_file) as f:
        os.kill(int(f.read()), signal.SIGTERM)
    hosts.wait_for_silence(mark, [shell.pid])
    assert not os.path.exists(pid_file)
    shell.communicate('')


@asks_password
def test_password_on_the_way(tunnel, far, web, terminal):
    """Goal: two hosts ask for a password, in the order of the path."""
    r = tunnel(*forward(web), '-J', 'login,vault,node', 'vault', **terminal.words())
    for _ in range(2):
        terminal.expect(b'password: ')
        terminal.type(hosts_room.PASSWORD)
    shows_page(r.address)


@asks_password
def test_wrong_password(tunnel, far, web, terminal):
    """Goal: after three wrong passwords relay exits with status 8.  The message
    does not recommend -J, which was used."""
    r = tunnel(*forward(web), '-J', 'login', 'vault', **terminal.words())
    for _ in range(3):
        terminal.expect(b'password: ')
        terminal.type('open barley')
    assert r.wait() == 8
    assert lines(r)[-1].startswith('relay: cannot reach vault: ') and \
        'Permission denied' in lines(r)[-1] and 'use -J' not in r.err(), r.err()


@asks_password
def test_password_without_jump(tunnel, far, web):
    """Goal: the error at a second hop that wants a password names -J."""
    r = tunnel(*forward(web), 'login', 'vault')
    assert r.wait() == 8
    assert 'Permission denied' in lines(r)[-1] and 'use -J' in lines(r)[-1], r.err()


def test_host_keys_in_order(tunnel, far, web, hosts, tmp, terminal):
    """Goal: the questions about host keys come in the order of the path, and
    Ctrl-C at the second one ends all processes."""
    ssh = 'ssh -F %s/config -o BatchMode=no -o StrictHostKeyChecking=ask -o UserKnownHostsFile=%s/known' \
        % (hosts.dir, tmp)
    for answers in (('login', 'gate', 'node'), ('login', None)):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(tmp + '/known')
        r = tunnel('-e', ssh, *forward(web), '-J', 'login,gate', 'node', **terminal.words())
        for name in answers:
            terminal.expect(rb'authenticity of host .*:%d' % hosts.ports[name or 'gate'])
            terminal.expect(rb'continue connecting.*\? ')
            terminal.type('yes') if name else terminal.end.send(b'\x03')
        if None not in answers:
            shows_page(r.address)
            assert r.stop() == 0
    assert r.wait(2) == 0
    # after Ctrl-C, ssh may end before relay does
    assert not [line for line in lines(r) if line.startswith('relay: cannot')
                and 'Host key verification failed' not in line], r.err()
    wait_for(lambda: not hosts.sessions(), 2)


# ---- the words of a hop ----

@pytest.mark.parametrize('words', [
    ['-J', '{me}@127.0.0.1:{login}', '{me}@127.0.0.1:{node}'],
    ['-J', '[::ffff:127.0.0.1]:{login},{me}@[::ffff:127.0.0.1]:{gate}', '[::ffff:127.0.0.1]:{node}'],
    ['-J', 'ssh://{me}@127.0.0.1:{login}', 'ssh://127.0.0.1:{node}'],
], ids=' '.join)
def test_ports(tunnel, far, web, hosts, words):
    """Goal: user, port and IPv6 address are written as for ssh -J."""
    r = tunnel(*forward(web), *(w.format(me=ME, **hosts.ports) for w in words))
    shows_page(r.address)


@pytest.mark.parametrize('words, part', [
    (['-J', 'srun -u', 'node'], '"srun -u" is a command'),
    (['-J', 'login', 'srun -u'], '"srun -u" is a command'),
    (['-J', 'login,', 'node'], 'a hop is empty'),
    (['-J', ',login', 'node'], 'a hop is empty'),
    (['-J', '', 'node'], 'a hop is empty'),
    (['-J', 'login,-v', 'node'], '"-v" is not a hop'),
    (['-J', 'login', '$(x)'], 'contains a $'),
    (['-J', 'login'], 'needs a hop'),
    (['-e', 'ssh -o proxycommand=x', '-J', 'login', 'node'], 'ProxyCommand'),
    (['-e', 'ssh -J x', '-J', 'login', 'node'], 'ProxyCommand'),
    (['-J', ','.join('abcdefgh' * 40), 'node'], 'many hops'),
], ids=str)
def test_wrong_words(run, words, part):
    """Goal: wrong uses of -J are usage errors of one line."""
    r = run('-L', '1:/a', *words)
    assert r.returncode == 2 and part in r.stderr and r.stderr.count('\n') == 1, r.stderr


def test_needs_a_tunnel(run):
    """Goal: -J without a tunnel is a usage error."""
    r = run('-J', 'login', '1', '/a')
    assert r.returncode == 2 and '-J' in r.stderr, r.stderr


SHELLS = [pytest.param(name, marks=needs(name))
          for name in ('sh', 'bash', 'csh', 'tcsh', 'fish', 'zsh', 'ksh', 'mksh')]


@pytest.mark.parametrize('shell', SHELLS)
def test_odd_path(tunnel, far, web, tmp, shell, monkeypatch):
    """Goal: no character of relay's path is changed by ssh or by a shell."""
    path = tmp + '/it\'s 100%h "odd" [x] $HOME `y` \\n!! \xe9 #~/'
    os.mkdir(path)
    shutil.copy(rig.RELAY, path + '/relay')
    monkeypatch.setattr(rig, 'RELAY', path + '/relay')
    r = tunnel(*forward(web), '-J', 'login', 'node', env={'SHELL': shutil.which(shell)})
    shows_page(r.address)


def test_environment(tunnel, far, web, near):
    """Goal: RELAY_SSH is used for every login."""
    r = tunnel(*forward(web), '-J', 'login,gate', 'locked', env={'RELAY_SSH': near, 'PATH': '/usr/bin:/bin'})
    shows_page(r.address)


def test_named_relay(tunnel, far, web, tmp):
    """Goal: -x applies to the last hop only."""
    shutil.copy(rig.RELAY, tmp + '/other')
    r = tunnel('-x', tmp + '/other', *forward(web), '-J', 'login', 'node')
    shows_page(r.address)
    copying = [line for line in lines(r) if 'copying' in line]
    assert len(copying) == 1 and ' to login' in copying[0], r.err()


def test_time_limit(tunnel, far):
    """Goal: -t also limits the connections that the hosts of -J make."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(('127.0.0.1', 0), backlog=0))
        for s in [stack.enter_context(socket.socket()) for _ in range(8)]:
            s.setblocking(False)
            s.connect_ex(full.getsockname())
        port = full.getsockname()[1]
        r = tunnel('-t', '1', '-L', '127.0.0.1:0:/a', '-J', 'login', '127.0.0.1:%d' % port)
        assert r.wait() == 7
    assert 'no answer within 1 s' in lines(r)[-1], r.err()


def test_quiet(tunnel, far, web):
    """Goal: with -q a working tunnel logs nothing."""
    r = tunnel('-q', *forward(web), '-J', 'login,gate', 'node')
    shows_page(r.address)
    assert r.stop() == 0
    assert r.err() == ''


def test_verbose(tunnel, far, web):
    """Goal: -v also applies to the relays that -J runs, and their messages do
    not hide the cause of a failure."""
    r = tunnel('-v', *forward(web), '-J', 'login,gate', 'node')
    shows_page(r.address)
    assert r.err().count('opened stdio -> ') == 2, r.err()
    for words, parts in [
            (['-J', 'login,gate', 'closed'], 'cannot reach closed: gate: .*Connection refused; no sshd'),
            (['-J', 'login,nowhere.invalid', 'node'], 'cannot reach nowhere.invalid: login: '),
            (['-J', 'locked', 'node'], 'cannot reach locked: .*Permission denied')]:
        r = tunnel('-v', '-L', '127.0.0.1:0:/a', *words)
        assert r.wait() == (8 if 'locked' in words else 7)
        assert re.match('relay: ' + parts, lines(r)[-1]), r.err()


# ---- every mode ----

def test_remote(tunnel, far, web, tmp):
    """Goal: -R listens on the last hop."""
    r = tunnel('-R', '%s/far.sock:%s' % (tmp, web.path), '-J', 'login', 'node')
    shows_page(r.address)
    assert r.stop() == 0


def test_proxy(tunnel, far, web):
    """Goal: -D works."""
    r = tunnel('-D', '127.0.0.1:0', '-J', 'login', 'node')
    assert curl('--socks5-hostname', r.address, 'http://localhost:%d/' % web.port)[0] == 0


def test_stdio(tunnel, far, target):
    """Goal: -W passes half-closes; the status is 0."""
    joins_stdio(tunnel, target('unix'), '-J', 'login,gate', 'node')


def test_stdio_no_target(tunnel, far, tmp):
    """Goal: -W without a target gives status 1 and one line."""
    r = tunnel('-q', '-W', tmp + '/none.sock', '-J', 'login', 'node')
    assert r.wait() == 1, r.err()
    assert r.err().count('\n') == 1 and tmp + '/none.sock: No such file' in r.err(), r.err()


def test_proxycommand(hosts, far):
    """Goal: relay -J -W works as ssh's ProxyCommand."""
    r = hosts.run('ssh', '-o', 'ProxyCommand=%s -q -J login -W %%h:%%p gate' % rig.RELAY, 'node',
                  'echo $HOST; exit 7', env=far.env)
    assert (r.stdout, r.stderr, r.returncode) == ('node\n', '', 7)


# ---- -n ----

def steps(hosts, far, *words):
    return hosts.run(rig.RELAY, '-n', *words, env=far.env)


def test_steps(hosts, far, web):
    """Goal: -n makes each login in turn, and reports each of them."""
    r = steps(hosts, far, *forward(web), '-J', 'login,gate', 'node')
    oks = re.findall(r'^ok +(\S+): reached', r.stdout, re.M)
    assert oks == ['login', 'gate', 'node'] and r.returncode == 0, (r.stdout, r.stderr)
    assert 'the target %s answers' % web.path in r.stdout


@pytest.mark.parametrize('words, good, bad, part', [
    (['-J', 'locked', 'node'], [], 'locked', 'Permission denied'),
    (['-J', 'login,locked', 'node'], ['login'], 'locked', 'Permission denied'),
    (['-J', 'login,gate', 'locked'], ['login', 'gate'], 'locked', 'Permission denied'),
    (['-J', 'login,closed', 'node'], ['login'], 'closed', 'Connection refused'),
    (['-J', 'login', 'nowhere.invalid'], ['login'], 'nowhere.invalid', 'nowhere.invalid'),
], ids=str)
def test_failed_step(hosts, far, words, good, bad, part):
    """Goal: -n shows which login failed, and why."""
    r = steps(hosts, far, *words)
    assert re.findall(r'^ok +(\S+): reached', r.stdout, re.M) == good, r.stdout
    assert re.search(r'^FAIL +%s: .*%s' % (bad, part), r.stdout, re.M), r.stdout
    assert r.returncode == (8 if bad == 'locked' else 7)


# ---- failures ----

@pytest.mark.parametrize('words, parts', [
    (['-J', 'nowhere.invalid', 'node'], ['cannot reach nowhere.invalid: ', 'Could not resolve', 'is the name right?']),
    (['-J', 'closed', 'node'], ['cannot reach closed: ', 'Connection refused']),
    (['-J', 'locked', 'node'], ['cannot reach locked: ', 'Permission denied']),
    (['-J', 'login,closed', 'node'],
     ['cannot reach closed: login: ', 'Connection refused; no sshd listens there']),
    (['-J', 'login,locked', 'node'], ['cannot reach locked: ', 'Permission denied']),
    (['-J', 'login', 'closed'],
     ['cannot reach closed: login: ', 'Connection refused; no sshd listens there']),
    (['-J', 'login', 'nowhere.invalid'],
     ['cannot reach nowhere.invalid: login: ', 'The hop before looks it up']),
    (['-J', 'login', 'locked'], ['cannot reach locked: ', 'Permission denied']),
    (['-J', 'login', 'gate', 'locked'], ['cannot reach ', 'Permission denied', 'use -J']),
], ids=str)
def test_no_way(tunnel, far, words, parts):
    """Goal: the last line names the failed hop, the cause and the remedy once.
    ssh's messages about the end of its ProxyCommand are not shown.  The status
    is 8 for a refused login, else 7."""
    r = tunnel('-L', '127.0.0.1:0:/a', *words)
    assert r.wait() == (8 if 'Permission denied' in parts else 7), r.err()
    assert r.proc.stdout.read() == b''
    assert lines(r)[-1].startswith('relay: ') and all(p in lines(r)[-1] for p in parts), r.err()
    assert '-w SECONDS' not in r.err() and len(lines(r)) <= 3, r.err()
    assert 'UNKNOWN port' not in r.err() and 'kex_exchange' not in r.err(), r.err()
    assert len(lines(r)) == len(set(lines(r))), r.err()
    assert '-J' in parts[-1] or 'use -J' not in r.err()


def test_hidden_cause(tunnel, far, hosts, tmp):
    """Goal: with ControlPersist, ssh shows nothing of its ProxyCommand.  The
    message then names -n."""
    ssh = 'ssh -F %s/config -o ControlMaster=auto -o ControlPath=%s/%%C -o ControlPersist=1' % (hosts.dir, tmp)
    r = tunnel('-e', ssh, '-L', '127.0.0.1:0:/a', '-J', 'locked', 'node')
    assert r.wait() == 7
    assert lines(r)[-1].startswith('relay: cannot reach node: ') and 'relay -n' in lines(r)[-1], r.err()


# ---- the end, and reconnecting ----

@pytest.mark.parametrize('sig', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_stopped(tunnel, far, target, hosts, mark, sig):
    """Goal: each signal leaves no process on any host after 2 s."""
    t = target('unix')
    r = tunnel('-L', '127.0.0.1:0:' + t.words[0], '-J', 'login,gate', 'node')
    a, b = rig.connect(r.address), t.accept()
    rig.ping(a, b)
    assert r.stop(sig, timeout=2) == (0 if sig != signal.SIGKILL else -9)
    hosts.wait_for_silence(mark)
    for end in (a, b):
        end.fate()
        end.close()


def test_interrupted_at_the_terminal(tunnel, far, web, hosts, mark):
    """Goal: Ctrl-C reaches each relay and each ssh at the same time.  The
    status is 0, and nothing is logged."""
    r = tunnel(*forward(web), '-J', 'login,gate', 'node', start_new_session=True)
    shows_page(r.address)
    before = r.err()
    os.killpg(r.pid, signal.SIGINT)
    assert r.wait(2) == 0
    hosts.wait_for_silence(mark)
    assert r.err() == before


def test_stopped_while_it_starts(tunnel, far, hosts, mark):
    """Goal: a signal while relay starts on the first host ends all processes."""
    far.program('uname', '#!/bin/sh\n[ "$1" = -s ] && exec sleep 100\necho any\n')
    r = tunnel('-L', '127.0.0.1:0:/a', '-J', 'login', 'node')
    sleep, = wait_for(lambda: [pid for pid, line in rig.marked(mark).items() if line == 'sleep 100'])
    assert r.stop(timeout=2) == 0
    os.kill(sleep, signal.SIGKILL)
    hosts.wait_for_silence(mark)


@pytest.mark.parametrize('name', ['login', 'gate', 'node'])
def test_comes_back(tunnel, far, web, hosts, name):
    """Goal: when a host drops all sessions, the tunnel reconnects."""
    r = tunnel(*forward(web), '-J', 'login,gate', 'node')
    shows_page(r.address)
    assert hosts.cut(name) > 0
    again(r, 1)
    shows_page(r.address)
    assert not [line for line in lines(r) if 'UNKNOWN' in line], r.err()
