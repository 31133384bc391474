"""What relay draws on a terminal.

A Terminal is a pty whose screen is computed here.  It accepts only the escape
sequences that relay is to use.
"""
import codecs
import contextlib
import fcntl
import os
import re
import signal
import struct
import subprocess
import sys
import termios

import pytest

import hosts as hosts_room
import rig
from rig import wait_for
from test_tunnel import far, shows_page, tunnel, web, write    # noqa: F401

if hosts_room.missing():
    pytest.skip(hosts_room.missing(), allow_module_level=True)

BARE = True
NO_PASSWORD = hosts_room.missing_password()
PASSWORDS = () if NO_PASSWORD else ('vault',)
NAMES = ('login', 'vault', 'node')
pytestmark = pytest.mark.usefixtures('nothing_left_on_the_hosts')

TERM = {'TERM': 'xterm', 'NO_COLOR': '', 'LC_ALL': 'C.UTF-8', 'COLUMNS': ''}
RED, CYAN, GREEN, BOLD, FAINT = '31', '36', '32', '1;36', '2'
TICK = '\u2713'
DOTS = '\u280b\u2819\u2839\u2838\u283c\u2834\u2826\u2827\u2807\u280f'
SERVER = '''#!%s -IS
import socket, sys, time
for n in range(3):
    sys.stdout.write('count ')
    sys.stdout.flush()
    time.sleep(0.3)
    print(n, flush=True)
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen()
time.sleep(60)
''' % sys.executable
SEQUENCE = re.compile(r'\x1b\[([0-9;]*)([mK])')


class Screen:
    """Rows of (character, colour).  A row that continues the row above it,
    because that one was full, is in `wrapped`."""

    def __init__(self, width):
        self.width, self.rows, self.column, self.colour = width, [[]], 0, ''
        self.wrapped = set()

    def feed(self, text):
        while text:
            sequence = SEQUENCE.match(text)
            if sequence:
                self._obey(*sequence.groups())
                text = text[sequence.end():]
            else:
                self._put(text[0])
                text = text[1:]

    def _obey(self, number, letter):
        if letter == 'm':
            self.colour = '' if number == '0' else number
        else:
            assert number == ''
            del self.rows[-1][self.column:]

    def _put(self, c):
        if c == '\r':
            self.column = 0
        elif c == '\n':
            self.rows.append([])
        else:
            assert c >= ' ', repr(c)
            if self.column == self.width:
                self.rows.append([])
                self.wrapped.add(len(self.rows) - 1)
                self.column = 0
            self.rows[-1][self.column:self.column + 1] = [(c, self.colour)]
            self.column += 1

    @property
    def lines(self):
        return [''.join(c for c, _ in row) for row in self.rows]

    def colours(self, text):
        """The colours of text, which is in one row."""
        row = [n for n, line in enumerate(self.lines) if text in line][0]
        at = self.lines[row].index(text)
        return {colour for c, colour in self.rows[row][at:at + len(text)] if c != ' '}


class Terminal:
    """The controlling terminal of a relay, and its stderr."""

    def __init__(self, width):
        self.ours, self.theirs = os.openpty()
        self.resize(width)
        self.screen, self.raw, self.seen = Screen(width), '', set()
        self.decode = codecs.getincrementaldecoder('utf-8')('replace').decode
        os.set_blocking(self.ours, False)

    def resize(self, width):
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack('HHHH', 24, width, 0, 0))

    def words(self, **env):
        """Arguments of Popen."""
        return {'start_new_session': True, 'stderr': self.theirs, 'stdin': self.theirs,
                'env': dict(TERM, **env),
                'preexec_fn': lambda: fcntl.ioctl(self.theirs, termios.TIOCSCTTY, 0)}

    def read(self):
        """Read what is there.  `seen` gets each state of the last line."""
        with contextlib.suppress(BlockingIOError):
            while True:
                text = self.decode(os.read(self.ours, 65536))
                self.raw += text
                for part in re.split('(?=\r|\n)', text):
                    self.screen.feed(part)
                    self.seen.add(self.last)
        return self.screen

    @property
    def last(self):
        return self.screen.lines[-1]

    def find(self, pattern):
        """Wait until a line of the screen matches."""
        try:
            wait_for(lambda: any(re.search(pattern, line) for line in self.read().lines))
        except AssertionError:
            raise AssertionError('%r is not in %r' % (pattern, self.screen.lines)) from None

    def expect(self, pattern):
        """Wait until the last line matches."""
        wait_for(lambda: self.read() and re.search(pattern, self.last), what=pattern)

    def type(self, text):
        os.write(self.ours, text.encode())

    def close(self):
        os.close(self.theirs)
        os.close(self.ours)


@pytest.fixture
def terminal():
    """terminal(width) makes a Terminal."""
    made = []

    def make(width=80):
        made.append(Terminal(width))
        return made[-1]
    yield make
    for t in made:
        t.close()


def status_lines(t):
    """The lines that relay has cut to the width, and where they end."""
    return [line for line in t.seen | set(t.screen.lines)
            if line and line[0] in TICK + DOTS + '\u00b7+|/-\\.']


# ---- a start ----

@pytest.mark.parametrize('width', [40, 80, 200])
def test_start(tunnel, far, tmp, terminal, width):
    """Goal: a start over two hosts shows the copy with its size, and the wait for
    the target.  Each step leaves a line with a tick.  The URL is last.  No line
    of a step wraps.  Then nothing is drawn."""
    t = terminal(width)
    path = tmp + '/late.sock'
    r = tunnel('-w', '20', '-L', '127.0.0.1:0:' + path, 'login', 'node', **t.words())
    t.expect('^[%s] node  waiting' % DOTS)
    t.expect(' 1 s$')
    target = rig.UnixTarget(path)
    t.find('^http')
    assert rig.host_port(r.address)[0] == '127.0.0.1'
    target.close()
    rig.quiet(r.pid)
    lines = t.read().lines
    assert lines[0] == 'relay: reaching login -> node'
    assert re.match(r'%s login -> node  reached  \d+(\.\d)? s$' % TICK, lines[1]), lines
    assert re.match(r'%s node  relay copied  \d+ KiB  \d+\.\d s$' % TICK, lines[2]), lines
    assert re.match(r'%s node  .*  \d+(\.\d)? s$' % TICK, lines[3]), lines
    assert lines[4].startswith('http://localhost:%s' % r.address.split(':')[1])
    assert lines[-1] == '' and not [n for n in t.screen.wrapped if n < 5], lines
    assert t.screen.colours(lines[4].split()[0]) == {BOLD}
    assert t.screen.colours(TICK + ' ') == {GREEN}
    assert len({line[0] for line in t.seen if 'waiting' in line}) > 3
    assert any(re.search(r'copying relay.* \d+/\d+ KiB', line) for line in t.seen), t.seen
    assert all(len(line) < width for line in status_lines(t)), t.seen
    assert ('\u2026' in lines[3]) == (width == 40)
    assert r.stop() == 0


def test_url_is_last(tunnel, far, web, terminal):
    """Goal: if stdout is the terminal too, the URL follows the addresses."""
    t = terminal(200)
    r = tunnel('-L', '127.0.0.1:0:' + web.path, far.here(), stdout=t.theirs, **t.words())
    t.find('^http')
    assert t.screen.lines[-3].startswith('127.0.0.1:') and t.screen.lines[-1] == ''
    assert r.stop() == 0


PLAIN = r'''relay: reaching env .*
relay: copying relay \(\d+ KiB\) to env .*
relay: waiting for the target
http://localhost:\d+ -> env .*
'''


@pytest.mark.parametrize('where', ['dumb', 'unknown', 'file'])
def test_plain(tunnel, far, web, terminal, where):
    """Goal: on a dumb terminal, and elsewhere than on a terminal, each step is
    a plain line."""
    t = terminal()
    kw = t.words(**{'TERM': 'dumb' if where == 'dumb' else ''})
    if where == 'file':
        del kw['stderr']
        kw['env']['TERM'] = 'xterm'
    r = tunnel('-w', '5', '-L', '127.0.0.1:0:' + web.path, far.here(), **kw)
    shows_page(r.address)
    text = r.err() if where == 'file' else t.read() and t.raw.replace('\r\n', '\n')
    assert re.fullmatch(PLAIN, text), text
    assert r.stop() == 0


def test_quiet_and_verbose(tunnel, far, web, terminal):
    """Goal: nothing is drawn with -q or with -v."""
    for option in ('-q', '-v'):
        t = terminal()
        r = tunnel(option, '-L', '127.0.0.1:0:' + web.path, far.here(), **t.words())
        shows_page(r.address)
        assert r.stop() == 0
        t.read()
        assert '\x1b' not in t.raw and ('connected to' in t.raw) == (option == '-v')
        assert option == '-v' or t.raw == ''


def test_no_colour(tunnel, far, web, terminal):
    """Goal: with NO_COLOR the lines are drawn without colours."""
    t = terminal()
    r = tunnel('-L', '127.0.0.1:0:' + web.path, far.here(), **t.words(NO_COLOR='1'))
    t.find('^http')
    assert not re.search(r'\x1b\[[0-9;]*m', t.raw) and '\r\x1b[K' in t.raw
    assert TICK in t.raw
    assert r.stop() == 0


@pytest.mark.parametrize('env', [{'LC_ALL': 'C'}, {'LC_ALL': '', 'LC_CTYPE': '', 'LANG': 'de_DE'},
                                 {'TERM': 'linux'}], ids=str)
def test_ascii(tunnel, far, tmp, terminal, env):
    """Goal: without UTF-8 in the locale, and on the console of Linux, all
    signs are ASCII."""
    t = terminal(60)
    path = '/' + 'p' * 60
    r = tunnel('-w', '9', '-L', '127.0.0.1:0:' + path, far.here(), **t.words(**env))
    t.expect(r'^[-|/\\] .*~')
    t.find(r'^\+ env.* reached')
    assert t.raw.isascii()
    assert r.stop() == 0


def test_width(tunnel, far, tmp, terminal):
    """Goal: each line has the width that the terminal has at that moment."""
    t = terminal(200)
    r = tunnel('-w', '20', '-L', '127.0.0.1:0:/' + 'p' * 100, 'login', **t.words())
    t.expect('p{100}')
    t.resize(50)
    t.expect('p\u2026')
    assert len(t.last) <= 49
    assert r.stop() == 0


def test_message_in_between(tunnel, far, terminal):
    """Goal: a message appears above the line of the current step, and the end
    of relay removes that line."""
    t = terminal()
    r = tunnel('-w', '20', '-L', '127.0.0.1:0:/nothing', 'login', **t.words())
    t.expect('waiting for /nothing')
    os.kill(r.pid, signal.SIGUSR1)
    t.find('0 open connections')
    t.expect('waiting for /nothing')
    lines = t.screen.lines
    assert [line for line in lines if 'open connections' in line] == ['relay: 0 open connections']
    assert sum('waiting' in line for line in lines) == 1
    assert t.screen.colours('0 open connections') == {''}
    assert r.stop() == 0
    assert 'waiting' not in str(t.read().lines) and t.last == ''


def test_output_of_a_command(tunnel, far, terminal):
    """Goal: while relay waits for the targets, the output of COMMAND appears
    above the line of this step, which does not end for a probe that failed."""
    t = terminal()
    far.program('server', SERVER)
    r = tunnel('-L', '127.0.0.1:0:@/s', 'login', '--', far.bin + '/server', '@/s', **t.words())
    t.find('^http')
    lines = t.screen.lines
    assert [line for line in lines if line.startswith('count')] == ['count 0', 'count 1', 'count 2'
                                                                    ], lines
    assert sum('@/s' in line for line in lines) == 2, lines    # the tick and the URL
    assert any('waiting for @/s' in line for line in t.seen)
    assert r.stop() == 0


def test_error(tunnel, far, web, terminal):
    """Goal: an error is red, and its remedy has a line of its own."""
    t = terminal(200)
    r = tunnel('-L', '127.0.0.1:0:' + web.path, 'login', 'locked', **t.words())
    assert r.wait() == 8
    lines = t.read().lines
    at = [n for n, line in enumerate(lines) if line.startswith('relay: cannot reach ')][0]
    assert t.screen.colours(lines[at]) == {RED}
    assert lines[at + 1].startswith('    relay -n shows which hop refused it: if it is not the first one, use -J')
    assert t.screen.colours('use -J') == {''}


def test_error_after_the_shell_answered(tunnel, far, web, terminal):
    """Goal: a start that fails leaves no line of a step without a tick."""
    t = terminal()
    r = tunnel('-x', '/nothing', '-L', '127.0.0.1:0:' + web.path, far.here(), **t.words())
    assert r.wait() == 7
    lines = t.read().lines
    assert 'starting' not in str(lines) and 'relay: ' in str(lines[1:]) and t.last == ''


def test_background_process(tunnel, far, tmp, terminal):
    """Goal: a relay in the background draws nothing over the shell's prompt."""
    t = terminal()
    kw = t.words()
    env = dict(far.env, **{rig.MARK: os.environ[rig.MARK]}, **kw.pop('env'))
    words = [rig.RELAY, '-w', '2', '-L', '127.0.0.1:0:/nothing', far.here()]
    shell = subprocess.Popen(['bash', '-c', 'set -m; "$@" & printf "prompt> "; wait', 'sh', *words],
                             env=env, **dict(kw, stdout=t.theirs))
    shell.wait(rig.PATIENCE)
    t.find('reached')
    assert '\x1b[K' not in t.raw and 'prompt> ' in t.raw


# ---- prompts ----

def test_prompt_of_a_hop(tunnel, far, web, tmp, terminal):
    """Goal: during a login nothing is written over a prompt, however long it
    waits for an answer."""
    t = terminal(200)
    write(tmp + '/ask', '#!/bin/sh\nprintf "password: " >/dev/tty\nstty -echo </dev/tty\n'
                        'read -r answer </dev/tty\nstty echo </dev/tty\necho >/dev/tty\n'
                        'exec "$@"\n', 0o755)
    r = tunnel('-L', '127.0.0.1:0:' + web.path, '%s/ask %s' % (tmp, far.here()), **t.words())
    t.expect('^password: $')
    rig.quiet(r.pid)
    assert rig.cpu_grows(r.pid, 1) < 0.1
    assert t.read() and t.last == 'password: ' and '\x1b[K' not in t.raw
    t.type('secret\n')
    t.find('^http')
    lines = t.screen.lines
    assert lines[1] == 'password: ' and lines[2].startswith(TICK), lines
    shows_page(r.address)
    assert r.stop() == 0


@pytest.mark.skipif(bool(NO_PASSWORD), reason=str(NO_PASSWORD))
def test_prompt_of_ssh(tunnel, far, web, terminal):
    """Goal: a prompt of ssh stays whole, and a message after a wrong password
    does not continue it, whichever of the two comes first."""
    t = terminal()
    r = tunnel('-L', '127.0.0.1:0:' + web.path, 'vault', **t.words())
    for n, answer in enumerate(('wrong', hosts_room.PASSWORD), 1):
        wait_for(lambda n=n: t.read() and t.raw.count("@127.0.0.1's password: ") == n)
        rig.quiet(r.pid)
        t.type(answer + '\n')
        t.find('^Permission denied' if answer == 'wrong' else '^http')
    prompts = [line for line in t.screen.lines if 'password: ' in line]
    assert len(prompts) == 2 and all(line.endswith("'s password: ") for line in prompts)
    assert '\x1b[K' not in t.raw[:t.raw.rindex('password: ')]
    shows_page(r.address)
    assert r.stop() == 0


# ---- later ----

def test_reconnect(tunnel, far, web, hosts, terminal):
    """Goal: a reconnect shows the pause and the login in the same way.  While
    the link is up, nothing is drawn and relay sleeps."""
    t = terminal()
    r = tunnel('-L', '127.0.0.1:0:' + web.path, 'login', **t.words())
    t.find('^http')
    rig.quiet(r.pid)
    hosts.stop('login')
    t.find('the link to login has ended')
    t.expect('^\u00b7 login  reconnecting in  [12] s$')
    hosts.start('login')
    t.find('^relay: reconnected to login')
    assert t.screen.colours('relay: the link to login') == {RED}
    assert any(re.match('[%s] login  reaching' % DOTS, line) for line in t.seen), t.seen
    lines = t.screen.lines
    assert sum(bool(re.match(TICK + ' login  reached', line)) for line in lines) == 2, lines
    assert lines[-1] == ''
    rig.quiet(r.pid)
    shows_page(r.address)
    assert r.stop() == 0


def test_same_failure(tunnel, far, terminal):
    """Goal: connections that fail in the same way are reported once, then
    counted."""
    t = terminal(200)
    r = tunnel('-L', '127.0.0.1:0:/nothing', 'login', **t.words())
    for _ in range(5):
        assert rig.fate_at(r.address) == 'reset'
    assert r.stop() == 0
    lines = [line for line in t.read().lines if 'cannot connect to /nothing' in line]
    assert len(lines) == 2, t.screen.lines
    assert '(repeated 4 times)' in t.raw
