"""COMMAND: a tunnel runs a program on its last hop as long as it lasts.

The far hosts are two sshds.  A hop without a host is here(...): see
test_tunnel.py.  SLOW=1 runs more rounds, and 1 GiB of output.
"""
import contextlib
import json
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
import urllib.request

import pytest

import hosts as hosts_room
import rig
from rig import wait_for
from test_session import CUTS, keeper_of
from test_tunnel import Far, needs, write    # noqa: F401

if hosts_room.missing():
    pytest.skip(hosts_room.missing(), allow_module_level=True)

SLOW = os.environ.get('SLOW') == '1'
OURS = ['-x', rig.RELAY]
PAGE = b'the page of COMMAND'

# A program that serves PAGE on the sockets that it is given.
SERVER = '''#!/usr/bin/python3
import json, os, signal, socket, sys, threading
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print('words ' + json.dumps(sys.argv[1:]), flush=True)
def serve(path):
    s = socket.socket(socket.AF_UNIX)
    s.bind(path)
    s.listen(100)
    while True:
        c = s.accept()[0]
        try:
            c.sendall(b'%s')
        except OSError:
            pass
        c.close()
paths = [w.split('=')[-1] for w in sys.argv[1:] if '/' in w]
for path in paths:
    threading.Thread(target=serve, args=(path,), daemon=True).start()
signal.sigwait([signal.SIGTERM])
print('bye', flush=True)
os._exit(0)
''' % PAGE.decode()


@pytest.fixture(scope='module')
def hosts():
    h = hosts_room.Hosts(bare=True)
    del h.env['RELAY_KEEP']
    yield h
    h.close()


@pytest.fixture
def far(hosts, tmp):
    """The account there.  At the end, no directory of this test is left."""
    f = Far(hosts, tmp)
    f.server = f.bin + '/server'
    f.program('server', SERVER)
    # /etc/profile sets PATH
    write(f.home + '/.profile', 'PATH=%s:$PATH\n' % f.bin)
    yield f


@pytest.fixture
def tunnel(far, relay, mark):
    """tunnel(word, ...) starts relay, with an account on the far side.  At the
    end, the directories that COMMAND has seen are gone."""
    started = []

    def start(*words, env=(), **popen):
        e = dict(far.env, **{rig.MARK: mark}, **dict(env))
        e.setdefault('RELAY_KEEP', '')
        started.append(relay(*OURS, *words, env=e, **popen))
        return started[-1]
    yield start
    for r in started:
        r.stop()
        for word in r.err().replace('"', ' ').replace('=', ' ').split():
            if word.startswith('/tmp/relay-'):
                wait_for(lambda: not os.path.exists(word[:27]), 3, word)


def page(address):
    a = rig.connect(address)
    try:
        return a.read_all()
    finally:
        a.close()


def silent(mark, seconds=2):
    wait_for(lambda: not rig.marked(mark), seconds, rig.marked(mark))


def relay_was_killed(mark):
    """Only some systems then end COMMAND, too."""
    if not rig.EXTRAS:
        for pid in running(mark, 'server'):
            rig.kill(pid, signal.SIGTERM)


def interrupt(r):
    os.killpg(r.pid, signal.SIGINT)    # as a terminal does


def words_of(r):
    return json.loads(r.says('words ')[6:])


# ---- from a command to its page ----

def test_from_a_command_to_its_page(tunnel, far, hosts, mark):
    """Goal: over two hosts, one command starts a server, waits for it, and
    prints the address.  "@/" is one directory of mode 0700 in the target, in
    words, after "=", and in -R.  Ctrl-C ends all, and the output of COMMAND up
    to its last line is shown."""
    r = tunnel('-L', '127.0.0.1:0:@/one', '-L', '127.0.0.1:0:@/b.sock', '-R',
               '@/back:localhost:9', 'login', 'node', '--', 'server', '@/one', '--sock=@/b.sock',
               'a=b=@/c', "it's $HOME", '', 'x@/y', start_new_session=True)
    assert page(r.addresses[0]) == page(r.addresses[1]) == PAGE
    words = words_of(r)
    here = os.path.dirname(words[0])
    assert words == [here + '/one', '--sock=%s/b.sock' % here, 'a=b=%s/c' % here, "it's $HOME",
                     '', 'x@/y']
    assert stat.S_IMODE(os.stat(here).st_mode) == 0o700 and here.startswith('/tmp/relay-')
    assert r.addresses[2] == here + '/back' and os.path.exists(here + '/back')
    assert 'ends when the line is lost' not in r.err()
    for pid, line in rig.marked(mark).items():
        if line.startswith(rig.RELAY):
            rig.quiet(pid)
    interrupt(r)
    assert r.wait(3) == 0
    hosts.wait_for_silence(mark)
    assert not os.path.exists(here)
    assert r.err().splitlines()[-2:] == [
        'relay: stopping server; another Ctrl-C stops it at once', 'bye'], r.err()


@pytest.mark.parametrize('shell', ['bash', 'dash', 'zsh', 'tcsh', 'fish', 'mksh'])
def test_words_and_login_shells(tunnel, far, tmp, shell):
    """Goal: several words reach COMMAND unchanged through each login shell,
    and one word with blanks is a line of this shell.  Its start-up files are
    read; stdin is /dev/null; $RELAY_DIR is the directory."""
    path = shutil.which(shell)
    if path is None:
        pytest.skip('skipped: no ' + shell)
    setting = {'tcsh': 'setenv FROM_LOGIN yes\nsetenv PATH %s:$PATH\n',
               'fish': 'set -gx FROM_LOGIN yes\nset -gx PATH %s $PATH\n'}.get(
                   shell, 'export FROM_LOGIN=yes\nPATH=%s:$PATH\n') % far.bin
    for name in ('.profile', '.zprofile', '.login', '.config/fish/config.fish'):
        os.makedirs(os.path.dirname(far.home + '/' + name), exist_ok=True)
        write(far.home + '/' + name, setting)
    far.program('show', '''#!/usr/bin/python3 -IS
import json, os, sys
print(json.dumps([sys.argv[1:], os.environ.get('FROM_LOGIN'), os.environ['RELAY_DIR'],
                  sys.stdin.read(), os.getcwd(), 'RELAY_COMMAND' in os.environ]))
sys.exit(3)
''')
    odd = ['', ' ', "'", '"', '\\', '\\\\', "\\'", '$HOME', '`id`', '$(id)', '!', '!!', 'a\nb', '\t',
           '*', '~', '{a,b}', '%1', '^', '#', 'é\U0001f600', '-n', '--', '&&', ';', '|', '=', '@',
           'x' * 20000]
    hop = far.here('SHELL=' + path)
    r = tunnel('-L', '127.0.0.1:0:@/s', hop, '--', 'show', *odd)
    assert r.wait() == 5
    words, login, here, text, _, leaked = json.loads(r.says('[["'))
    assert words == odd and text == '' and not leaked
    assert login == 'yes' and here.startswith('/tmp/relay-')
    assert r.err().splitlines()[-1] == 'relay: show exited with status 3'
    r = tunnel('-L', '127.0.0.1:0:@/s', hop, '--', 'echo dir $RELAY_DIR; show "$RELAY_DIR/x" a\\ b')
    assert r.wait() == 5
    here = r.says('dir ')[4:]
    assert json.loads(r.says('[["'))[0] == [here + '/x', 'a b']
    assert r.err().splitlines()[-1] == 'relay: the command exited with status 3'


@pytest.mark.parametrize('words, expected', [
    (['-L', '8888:@/s', 'login'], 'add -- COMMAND'),
    (['-R', '@/s:/a', 'login'], 'add -- COMMAND'),
    (['-W', '@/s', 'login'], 'add -- COMMAND'),
    (['-L', '8888:@/s', 'login', '--'], 'the command after -- is missing'),
    (['-L', '8888:@/s', 'login', '--', ''], 'the command after -- is missing'),
    (['-L', '@/a:@/s', 'login', '--', 'a'], 'on the last hop'),
    (['-R', '@/a:@/s', 'login', '--', 'a'], 'on the last hop'),
    (['-L', '8888:/a', '--', 'login', '--', 'a', 'x' * 65536], '64 KiB'),
    (['-n', '-L', '8888:/a', 'login', '--', 'a'], '-n runs no command'),
    (['-W', 'a:22', 'login', '--', 'a'], '-W excludes a command'),
    (['-r', '-L', '8888:/a', 'login'], '-r needs -m -'),
    (['-m', '-r', '-', '/a'], '-r excludes TO'),
])
def test_wrong_words(run, words, expected):
    """Goal: a wrong use of COMMAND or of "@/" gives one line and status 2."""
    r = run(*words)
    assert (r.returncode, r.stdout) == (2, ''), r.stderr
    assert expected in r.stderr and r.stderr.count('\n') == 1, r.stderr


# ---- the end of COMMAND ----

def test_command_that_fails(tunnel, far, mark):
    """Goal: a COMMAND that is missing, cannot be executed, or ends before its
    target answers, ends relay with status 5.  The last lines are its last
    output and its status."""
    write(far.bin + '/text', 'no program')
    for words, output, line in (
            (['no-such-program', 'x'], 'not found', 'no-such-program exited with status 127'),
            ([far.bin + '/text'], 'denied', 'text exited with status 126'),
            (['sh', '-c', 'printf last; exit 7'], 'last', 'sh exited with status 7'),
            (['sh', '-c', 'echo last; exit 255'], 'last', 'sh exited with status 255'),
            (['sh', '-c', 'echo last; exit 0'], 'last', 'sh exited with status 0'),
            (['sh', '-c', 'echo last; kill -9 $$'], 'last', 'sh was ended by signal 9 (Killed)')):
        r = tunnel('-L', '127.0.0.1:0:@/s', far.here(), '--', *words)
        assert r.wait() == 5, r.err()
        assert output in r.err().splitlines()[-2].lower(), r.err()
        assert r.err().splitlines()[-1] == 'relay: ' + line
        assert r.proc.stdout.read() == b''
    for shell in ('/no/such/shell', 'relative', ''):
        r = tunnel('-L', '127.0.0.1:0:@/s', far.here('SHELL=' + shell), '--', 'echo $0')
        assert r.wait() == 5 and '-sh' in r.err().splitlines(), r.err()
    far.program('shell', '#!/no/interpreter\n')
    r = tunnel('-L', '127.0.0.1:0:@/s', far.here('SHELL=%s/shell' % far.bin), '--', 'echo a')
    assert r.wait() == 5
    assert 'cannot be started by %s/shell' % far.bin in r.err().splitlines()[-1]


def test_far_side_without_permission(tunnel, far):
    """Goal: a forced relay -m - runs no COMMAND, with and without a target.
    With -r it does."""
    for forced, expected in (('-m -', 'started without -r'),
                             ('-m - /a', 'this end connects only to /a')):
        r = tunnel('-L', '127.0.0.1:0:@/s', 'login', '--', 'touch', far.home + '/made',
                   env={'FAR_COMMAND': '%s %s' % (rig.RELAY, forced)})
        assert r.wait() == 5, r.err()
        assert expected in r.err().splitlines()[-1], r.err()
        assert not os.path.exists(far.home + '/made')
    r = tunnel('-L', '127.0.0.1:0:@/s', 'login', '--', 'touch', far.home + '/made',
               env={'FAR_COMMAND': rig.RELAY + ' -m -r -'})
    assert r.wait() == 5 and os.path.exists(far.home + '/made')


STUBBORN = '''#!/usr/bin/python3
import os, signal, subprocess, sys, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
if sys.argv[1] == 'leader':
    for name in sys.argv[2:]:
        subprocess.Popen([sys.argv[0], name], start_new_session=name == 'session')
print('ready ' + sys.argv[1], flush=True)
while True:
    signal.sigwait([signal.SIGTERM])
    print('SIGTERM ' + sys.argv[1], flush=True)
'''


def running(mark, name):
    return [pid for pid, line in rig.marked(mark).items() if name in line and not line.startswith((rig.RELAY, 'ssh', '/usr/bin/ssh'))]


def stubborn(tunnel, far):
    far.program('stubborn', STUBBORN)
    names = ['leader', 'group'] + ['session'] * rig.EXTRAS
    r = tunnel('-D', '127.0.0.1:0', 'login', '--', 'stubborn', *names, start_new_session=True)
    for name in names:
        r.says('ready ' + name)
    assert r.address
    return r


def test_command_that_ignores_sigterm(tunnel, far, mark):
    """Goal: COMMAND, its process group, and a process that has left the group,
    get SIGTERM and 10 s to end; then SIGKILL.  A second Ctrl-C is SIGKILL at
    once, but two signals that come together are one stop.  Nothing is left."""
    late, fast = stubborn(tunnel, far), stubborn(tunnel, far)
    since = time.monotonic()
    os.kill(late.pid, signal.SIGHUP)
    late.says('stopping stubborn')
    os.kill(late.pid, signal.SIGTERM)
    interrupt(fast)
    fast.says('SIGTERM leader')
    fast.says('SIGTERM group')
    threading.Event().wait(1.1)
    interrupt(fast)
    assert fast.wait(5) == 0
    assert late.wait(14) == 0
    assert time.monotonic() - since > 9
    # a process that has left the group is known once its parent has ended
    assert 'SIGTERM session' not in late.err()
    silent(mark)


@pytest.mark.skipif(not rig.EXTRAS, reason='skipped: this build cannot adopt processes')
def test_what_command_leaves_running(tunnel, far, mark):
    """Goal: when COMMAND ends by itself, what it has left running is stopped:
    in its process group, and outside of it."""
    far.program('leaves', '#!/bin/sh\nsetsid sleep 1000 &\nsleep 1000 &\necho left\nexit 4\n')
    r = tunnel('-L', '127.0.0.1:0:@/s', 'login', '--', 'leaves')
    assert r.wait(5) == 5
    assert r.err().splitlines()[-2:] == ['left', 'relay: leaves exited with status 4']
    silent(mark)


def test_directory_is_removed(tunnel, far, tmp, mark):
    """Goal: all that COMMAND has made in the directory is removed; links are
    not followed."""
    write(tmp + '/precious', 'x')
    os.mkdir(tmp + '/others')
    write(tmp + '/others/precious', 'x')
    line = ('cd $RELAY_DIR && mkdir -p a/b/c ro && ln -s %s others && ln -s %s/precious a/b/file '
            '&& touch a/b/c/x ro/y && mkfifo a/p && chmod 500 ro && ln -s . loop '
            '&& echo made $RELAY_DIR; exit 1' % (tmp + '/others', tmp))
    r = tunnel('-L', '127.0.0.1:0:@/s', far.here(), '--', line)
    assert r.wait() == 5
    here = r.says('made ')[5:]
    silent(mark)
    assert not os.path.exists(here)
    assert os.path.exists(tmp + '/precious') and os.path.exists(tmp + '/others/precious')


@pytest.mark.skipif(not shutil.which('strace') or rig.SANITIZED or os.geteuid() != 0,
                    reason='skipped: no strace (apt-get install strace), LeakSanitizer, or not root')
def test_left_directory_without_locks(tunnel, far):
    """Goal: if the file in a directory that was left cannot be locked, nothing
    there is removed: its relay may run."""
    uid, left = far.user(), '/tmp/relay-at-' + os.urandom(8).hex()
    os.mkdir(left, 0o700)
    try:
        os.chown(left, uid, uid)
        write(left + '/.relay', '')
        os.chown(left + '/.relay', uid, uid)
        far.program('traced', '#!/bin/sh\nexec strace -f -qq -o /dev/null -P %s/.relay -e trace=fcntl '
                    '-e inject=fcntl:error=ENOLCK %s "$@"\n' % (left, rig.RELAY))
        for words, files in (['-x', far.bin + '/traced'], ['.relay']), ([], None):
            r = tunnel(*words, '-L', '127.0.0.1:0:@/s', far.here(), '--', 'exit 3')
            assert r.wait() == 5
            assert (os.listdir(left) if os.path.exists(left) else None) == files
    finally:
        shutil.rmtree(left, ignore_errors=True)


# ---- output ----

PRINTER = '''#!/usr/bin/python3 -IS
import os, sys
n = int(sys.argv[1]) << 20
line = b'%015d\\n'
for i in range(0, n // 16, 4096):
    os.write(1, b''.join(line % j for j in range(i, i + 4096)))
open(sys.argv[2], 'w').close()
print('printed', flush=True)
if len(sys.argv) > 3:
    import time
    time.sleep(1000)
'''


def test_much_output(tunnel, far, tmp, mark, lean):
    """Goal: a reader that does not read stops neither COMMAND nor connections,
    and costs little memory.  When it reads, the number of dropped bytes is
    reported, and with them all bytes are there."""
    megabytes = 1024 if SLOW else 64
    far.program('printer', PRINTER)
    ours, theirs = os.pipe()
    r = tunnel('-R', '127.0.0.1:0:localhost:9', 'login', '--', 'printer', megabytes,
               tmp + '/printed', 'stay', stderr=theirs, start_new_session=True)
    os.close(theirs)
    wait_for(lambda: os.path.exists(tmp + '/printed'), 60)
    used = [rig.memory(pid) for pid in rig.marked(mark) if rig.command_line(pid)
            .startswith(rig.RELAY)]
    assert rig.SANITIZED or max(used) < 16 << 20, used
    end = rig.End(ours)
    text = b''
    while not text.endswith(b'printed\n'):
        text += end.recv()
    lines = [line for line in text.split(b'\n') if b'dropped' in line]
    assert lines, text[-200:]
    dropped = sum(int(line.split()[1]) for line in lines)
    messages = sum(len(line) + 1 for line in text.split(b'\n') 
                   if line.startswith(b'relay: ') or b' -> ' in line)
    extra = len(text) - messages - len(b'printed\n') + dropped - (megabytes << 20)
    # a message may end a line of the output early
    assert 0 <= extra <= len(lines) + 1, (extra, dropped, len(text))
    assert b'%015d\n' % ((megabytes << 16) - 1) in text
    interrupt(r)
    assert r.wait(5) == 0
    end.close()


def test_output_as_it_is(tunnel, far):
    """Goal: the output passes unchanged, also control characters and bytes that
    are no text.  A message begins a new line."""
    r = tunnel('-L', '127.0.0.1:0:@/s', far.here(), '--',
               "printf '\\033[1mbold\\033[0m\\001\\377\\r\\n'; printf end; exit 1")
    assert r.wait() == 5
    with open(r.log, 'rb') as f:
        text = f.read()
    assert text.endswith(b'\x1b[1mbold\x1b[0m\x01\xff\r\nend\nrelay: the command exited with '
                         b'status 1\n'), text


def test_at_a_terminal(tunnel, far):
    """Goal: the status line is erased before output, and not mixed with it."""
    ours, theirs = os.openpty()
    r = tunnel('-L', '127.0.0.1:0:@/s', far.here(), '--', 'sleep 0.3; printf out; exit 1',
               env={'TERM': 'xterm', 'NO_COLOR': '1'}, stderr=theirs)
    os.close(theirs)
    assert r.wait() == 5
    text = b''
    with contextlib.suppress(OSError):    # EIO: the terminal was closed
        while True:
            text += os.read(ours, 4096)
    os.close(ours)
    assert b'waiting for @/s' in text
    assert b'\r\x1b[Kout\r\nrelay: the command exited with status 1\r\n' in text, text


def test_background(run, far, tmp, mark):
    """Goal: -f waits for the server; later output goes to the log of -E.  The
    end of COMMAND ends relay."""
    log = tmp + '/log'
    r = run(*OURS, '-f', '-E', log, '-L', '127.0.0.1:0:@/s', 'login', '--', 'server', '@/s',
            env=dict(far.env, **{rig.MARK: mark, 'RELAY_KEEP': ''}))
    assert r.returncode == 0, r.stderr
    assert page(r.stdout.strip()) == PAGE
    for pid in running(mark, 'server'):
        os.kill(pid, signal.SIGTERM)
    silent(mark, 5)
    with open(log) as f:
        lines = f.read().splitlines()
    assert 'bye' in lines and lines[-1].endswith('relay: server exited with status 0'), lines


def test_idle(tunnel, far, mark):
    """Goal: -i stops COMMAND as a signal does."""
    r = tunnel('-i', '1', '-L', '127.0.0.1:0:@/s', far.here(), '--',
               'trap "sleep 0.3; echo bye; exit" TERM; %s $RELAY_DIR/s & echo on; while :; do '
               'sleep 0.05; done' % far.server)
    assert page(r.address) == PAGE
    assert r.wait() == 0
    # The shell may write "Terminated" between a word of the server and its newline.
    assert r.err().count('bye') == 2, r.err()


def test_file_mode_mask(relay, far, mark):
    """Goal: COMMAND has the mask of the user, and none of the script's variables, also
    if relay was copied."""
    far.program('shell', '#!/bin/sh\nexec sh "$@"\n')    # it reads no profile
    r = relay('-L', '127.0.0.1:0:@/s', far.here() + ' sum=mine SHELL=%s/shell' % far.bin, '--',
              'umask; echo sum is $sum; exec server $RELAY_DIR/s',
              env=dict(far.env, **{rig.MARK: mark}))
    assert page(r.address) == PAGE
    assert r.stop() == 0
    mask = os.umask(0)
    os.umask(mask)
    assert {'%04o' % mask, 'sum is'} <= set(r.err().splitlines()), r.err()


# ---- the line ----

COUNTER = '''#!/usr/bin/python3 -IS
import os, sys, time
i = 0
while not os.path.exists(sys.argv[1]):
    print('count', i, flush=True)
    i += 1
    time.sleep(0.002)
print('last', i, flush=True)
sys.exit(9)
'''


@pytest.mark.parametrize('ends', [False, True])
def test_lost_line(tunnel, far, hosts, tmp, mark, ends):
    """Goal: COMMAND and its output survive a lost line without a gap; also if
    COMMAND ends during the outage."""
    far.program('counter', COUNTER)
    r = tunnel('-R', '127.0.0.1:0:localhost:9', 'login', 'node', '--', 'counter', tmp + '/end')
    assert r.address
    r.says('count 10')
    if ends:
        hosts.stop('login')
        write(tmp + '/end', '')
        wait_for(lambda: not running(mark, 'counter'))
        hosts.start('login')
    else:
        for cut in ('sshd of the last hop', 'ssh is killed'):
            CUTS[cut](r, hosts)
            n = len(r.err())
            wait_for(lambda: r.err().count('count') and 'reconnected' in r.err()[n:])
        write(tmp + '/end', '')
    assert r.wait() == 5
    lines = r.err().splitlines()
    counts = [int(line.split()[1]) for line in lines if line.startswith('count ')]
    last = int(r.says('last ').split()[1])
    assert counts == list(range(last))
    assert lines[-1] == 'relay: counter exited with status 9'
    silent(mark)


def test_lost_session(tunnel, far, mark):
    """Goal: if the keeper is killed, COMMAND ends with it, and relay with
    status 7."""
    r = tunnel('-L', '127.0.0.1:0:@/s', '-k', '60', far.here(), '--', 'server', '@/s')
    assert page(r.address) == PAGE
    here = os.path.dirname(words_of(r)[0])
    os.kill(keeper_of(mark), signal.SIGKILL)
    assert r.wait() == 7
    assert r.err().splitlines()[-1] == 'relay: server ends with the link'
    relay_was_killed(mark)
    silent(mark)
    # the next start removes what was left, that of another test too
    assert tunnel('-L', '127.0.0.1:0:@/s', far.here(), '--', 'true').wait() == 5
    assert not os.path.exists(here)


def test_refused_listener(tunnel, far, mark):
    """Goal: if -R is refused, COMMAND is stopped as by a signal, before the link
    ends."""
    taken = socket.create_server(('127.0.0.1', 0))
    r = tunnel('-R', '127.0.0.1:%d:localhost:1' % taken.getsockname()[1], far.here(), '--',
               'sleep', '60')
    assert r.wait() == 3, r.err()
    assert 'stopping sleep' in r.err().splitlines()[-1], r.err()
    silent(mark)


def test_stopped_while_the_line_is_lost(tunnel, far, hosts, mark):
    """Goal: relay ends at once and reports how long COMMAND remains; after the
    time of -k nothing is left."""
    r = tunnel('-k', '5', '-L', '127.0.0.1:0:@/s', 'login', '--', 'server', '@/s')
    assert page(r.address) == PAGE
    hosts.stop('login')
    r.says('; reconnecting')
    assert r.stop(timeout=2) == 0
    assert re.search('ends by itself after [1-5] s$', r.err().splitlines()[-1]), r.err()
    silent(mark, 9)
    hosts.start('login')


@pytest.mark.parametrize('how', ['-k 0', 'RELAY_KEEP', 'hop'])
def test_no_session(tunnel, far, hosts, mark, how):
    """Goal: without a session, relay reports at the start that COMMAND ends
    with the line, and when the line is lost both end."""
    words = ['-k', '0'] if how == '-k 0' else []
    hop = far.here() if how == 'hop' else 'login'
    r = tunnel(*words, '-L', '127.0.0.1:0:@/s', hop, '--', 'server', '@/s',
               env={'RELAY_KEEP': '0' if how == 'RELAY_KEEP' else ''})
    assert page(r.address) == PAGE
    reason = {'-k 0': '-k 0 keeps no session', 'RELAY_KEEP': 'the last hop keeps no session',
              'hop': 'a hop is a command, which ends with the line'}[how]
    r.says('relay: server ends when the line is lost: ' + reason)
    CUTS['ssh is killed'](r, hosts)
    assert r.wait() == 7
    assert r.err().splitlines()[-1] == 'relay: server ends with the link'
    if how == 'hop':
        relay_was_killed(mark)
    silent(mark)
    if how == 'hop':    # the far relay was killed; a start of another test may remove this
        shutil.rmtree(os.path.dirname(words_of(r)[0]), ignore_errors=True)


# A hop that ends as soon as it has passed on the text ${1}.
CUTTER = '''#!/usr/bin/python3 -IS
import os, subprocess, sys
far = subprocess.Popen(sys.argv[3:], stdout=subprocess.PIPE)
seen = b''
while sys.argv[1].encode() not in seen[-99999:]:
    piece = os.read(far.stdout.fileno(), 65536)
    seen += piece
    while piece:
        piece = piece[os.write(1, piece):]
open(sys.argv[2], 'w').close()
far.kill()
'''


@pytest.mark.parametrize('last, status, line', [
    ('the-cause', 7, 'the command ends with the link'),
    ('exited', 5, 'the command exited with status 9')])
def test_last_output(tunnel, far, tmp, mark, last, status, line):
    """Goal: if the hop ends with COMMAND, all output that was received is shown,
    and how COMMAND ended."""
    far.program('cutter', CUTTER)
    ours, theirs = os.pipe()
    r = tunnel('-k', '0', '-R', '127.0.0.1:0:localhost:9', far.here('cutter', last, tmp + '/cut'),
               '--', 'seq 40000; sleep 0.1; echo the-cause; [ %s = exited ] || exec sleep 1000; '
               'exit 9' % last, stderr=theirs)
    os.close(theirs)
    wait_for(lambda: os.path.exists(tmp + '/cut') and not running(mark, 'cutter'), 10)
    end = rig.End(ours)
    text = end.read_all().decode().splitlines()
    end.close()
    assert r.wait() == status
    # a message may end a line of the output early
    shown = ''.join(word for word in text if word.isdigit() or word == 'the-cause')
    assert shown == ''.join(map(str, range(1, 40001))) + 'the-cause'
    assert text[-1] == 'relay: ' + line, text[-5:]
    if last != 'exited' and not rig.EXTRAS:
        relay_was_killed(mark)
    silent(mark)


# ---- other hops ----

@needs('sudo')
def test_sudo(tunnel, far, mark):
    """Goal: with sudo -u as the last hop, COMMAND runs as that user, and so is
    the directory."""
    os.chmod(far.home, 0o777)
    r = tunnel('-L', '127.0.0.1:0:@/s', 'login', 'sudo -n -u nobody env HOME=/tmp SHELL=/usr/sbin/nologin', '--',
               'python3 -c "import os; print(\'uid\', os.getuid(), flush=True)"; exec %s '
               '$RELAY_DIR/s' % far.server)
    assert page(r.address) == PAGE
    assert r.says('uid ') == 'uid %d' % pwd.getpwnam('nobody').pw_uid
    assert r.stop() == 0
    silent(mark)


SRUN = '''#!/usr/bin/python3
import os, signal, subprocess, sys
words = sys.argv[1:]
step = subprocess.Popen(words[[w[0] for w in words].index('s'):], start_new_session=True)
def stop(number, _):
    os.killpg(step.pid, signal.SIGKILL)
    sys.exit(1)
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, stop)
sys.exit(step.wait())
'''


def test_srun(tunnel, far, hosts, mark):
    """Goal: srun is run once.  Ctrl-C ends COMMAND before the step."""
    far.program('srun', SRUN)
    r = tunnel('-L', '127.0.0.1:0:@/s', 'login', 'srun -u -t 4:00:00', '--', 'server', '--sock=@/s',
               start_new_session=True)
    assert page(r.address) == PAGE
    r.says('a hop is a command, which ends with the line')
    interrupt(r)
    assert r.wait(4) == 0 and r.err().splitlines()[-1] == 'bye'
    silent(mark)


def test_slurm(tunnel, far, hosts, mark, slurm):
    """Goal: under a real srun, Ctrl-C ends COMMAND, the step and the job; a
    lost line does so too."""
    conf, run = slurm
    hop = 'srun -u -t 5 env -u XDG_CACHE_HOME'
    with open(far.home + '/.profile', 'a') as f:
        f.write('export SLURM_CONF=%s\n' % conf)
    far.program('srun', '#!/bin/sh\nSLURM_CONF=%s exec %s "$@"\n' % (conf, shutil.which('srun')))
    for how in ('stop', 'cut'):
        r = tunnel('-L', '127.0.0.1:0:@/s', 'login', hop, '--', 'server', '@/s',
                   start_new_session=True)
        assert page(r.address) == PAGE and run('squeue', '-h')
        here = os.path.dirname(words_of(r)[0])
        if how == 'stop':
            interrupt(r)
            assert r.wait(5) == 0
            assert 'bye' in r.err().splitlines()
            assert not os.path.exists(here)
        else:
            CUTS['ssh is killed'](r, hosts)
            assert r.wait() == 7
        wait_for(lambda: not run('squeue', '-h'))
        silent(mark, 5)


def test_nothing_is_left(tunnel, far, hosts, mark, pool):
    """Goal: after many starts and stops no process and no directory is left."""
    def cycle(i):
        how = ('term', 'int', 'end', 'wait')[i % 4]
        hop = ('login', far.here())[i % 2]
        r = tunnel('-L', '127.0.0.1:0:@/s', hop, '--', 'server',
                   '@/other' if how == 'wait' else '@/s', start_new_session=True)
        if how == 'wait':
            r.says('words ')
        else:
            assert page(r.address) == PAGE
        if how == 'end':
            pid, = [p for p in running(mark, 'server') if words_of(r)[0] in rig.command_line(p)]
            os.kill(pid, signal.SIGKILL)
        elif how == 'int':
            interrupt(r)
        else:
            r.proc.terminate()
        assert r.wait() == (5 if how == 'end' else 0), r.err()
        return os.path.dirname(words_of(r)[0])
    signal.alarm(300)
    made = list(pool.map(cycle, range(50 if SLOW else 10)))
    hosts.wait_for_silence(mark)
    assert len(set(made)) == len(made) and not any(map(os.path.exists, made))


def test_jupyter(tunnel, far, hosts, mark):
    """Goal: a real notebook server runs with one command, and its kernels end
    with it."""
    if not shutil.which('jupyter-notebook'):
        pytest.skip('skipped: no jupyter-notebook')
    token = 'secret'
    r = tunnel('-L', '127.0.0.1:0:@/sock', 'login', 'node', '--', 'jupyter', 'notebook',
               '--allow-root', '--no-browser', '--sock=@/sock', '--NotebookApp.token=' + token,
               start_new_session=True)
    r.says('is running at', 60)
    url = 'http://%s/api/' % r.address
    request = urllib.request.Request(url + 'kernels?token=' + token, data=b'{}', method='POST')
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 201
    wait_for(lambda: running(mark, 'ipykernel'))
    interrupt(r)
    assert r.wait(25) == 0
    silent(mark)
