"""Options, exit statuses, addresses, messages, and inherited descriptors."""
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

import rig
from rig import ping, wait_for

TIMES = pytest.mark.parametrize


def one_line(text):
    """Return True if text is one line that relay logged."""
    return text.startswith('relay: ') and text.count('\n') == 1 and text.endswith('\n')


def gone_port():
    """Return an address on which no process listens."""
    return '127.0.0.1:%d' % rig.free_port()


# ---- usage ----

WRONG_ENDS = ['', 'nosuchservice', '65536', '-1', ':80', '[::1]', '[::1]:', '[::1', '::1:80',
              '[::1:80', '[]:80', 'localhost:',
              'localhost:99999', 'localhost:nosuchservice', 'localhost:0x50', '8888 ', ' 8888',
              '+80', '127.0.0.1:80:90',
              'a' * 300 + ':80', '/', './', '/' + 'a' * 5000]


@TIMES('word', WRONG_ENDS, ids=lambda w: repr(w[:20]))
def test_wrong_ends(run, word):
    """Goal: a wrong end gives status 2 and one line that names it, as FROM and
    as TO. Nothing is written to stdout."""
    for words in ([word, '8888'], ['8888', word], ['-', word], ['-z', word], ['-F', word],
                  [word, '--', 'true']):
        if word.startswith('-') and words[0] in (word, '-z', '-F'):
            continue    # an option
        r = run(*words)
        assert (r.returncode, r.stdout) == (2, ''), words
        assert one_line(r.stderr), (words, r.stderr)
        assert not word.strip() or word.strip()[:10] in r.stderr


@TIMES('words', ['', '8888', '8888 9999 7777', '-', '- -', '8888 *:80', '8888 0',
                 '8888 localhost:0', '8888 --', '- --',
                 '-x 8888 9999', '-c', '-c 0 8888 9999', '-c x 8888 9999', '-c -1 8888 9999',
                 '-c 1x 8888 9999',
                 '-t 0 8888 9999', '-t -1 8888 9999', '-t 1e3 8888 9999',
                 '-t 99999999999999999999 8888 9999',
                 '-w -1 8888 9999', '-w x 8888 9999', '-P', '-f - 8888', '-f 8888 -', '-z', '-z -',
                 '-z - -', '-F -', '-F - -',
                 '-z 8888 9999', '-F 8888 9999', '-z -- true', '-F -- true', '8888 9999 -y', '8888 9999 --foo',
                 '8888 -x /r 9999', '-l me 8888 9999', '-o A=b -z 8888',
                 '-z *:80',
                 '-m', '-m 8888', '-m - -', '-m - 8888 9999', '-m -z 8888', '-m -F 8888',
                 '-m -L 8888:x:80 login',
                 '-z -F 8888', '-n -z login', '-n -m login', '-F -m 8888', '-x /r -z 8888',
                 '-e ssh 8888 9999',
                 '-L 8888:x:80', '-L 8888:x:80 -z login', '-F -D 8888 login',
                 '-k join -L 8888:x:80 login', '-z -P p 8888', '-F -i 5 8888', '-n -P p login',
                 '-O list -i 5', '-m -P p -', '-m -i 5 - 8888',
                 '-L 0:x:80 ' * 33 + 'login'],
       ids=lambda words: words[:40])
def test_wrong_words(run, words):
    """Goal: a wrong option or a wrong number of words gives status 2 and one
    line."""
    r = run(*words.split())
    assert (r.returncode, r.stdout) == (2, '')
    assert one_line(r.stderr), r.stderr


def test_empty_command(run):
    """Goal: an empty word is refused as a command."""
    r = run('8888', '--', '')
    assert r.returncode == 2 and one_line(r.stderr)


def test_help_and_version(run):
    """Goal: -h and -V write to stdout and exit with status 0. -h names every
    option. If stdout is full, the status is not 0."""
    h = run('-h')
    assert (h.returncode, h.stderr) == (0, '')
    for option in 'acfFhlNopPqtTvVwz':
        assert '-' + option in h.stdout
    v = run('-V')
    assert (v.returncode, v.stderr, v.stdout.count('\n')) == (0, '', 1)
    assert re.match(r'relay \d', v.stdout)
    assert run('--help').stdout == h.stdout and run('8888', '--version').stdout == v.stdout
    with open('/dev/full', 'w') as full:
        assert subprocess.run([rig.RELAY, '-h'], stdout=full).returncode != 0


def test_each_option_has_a_line(run):
    """Goal: relay -h lists one option a line, in alphabetical order, in at most
    80 columns."""
    text = run('-h').stdout
    assert [line for line in text.splitlines() if len(line) > 80] == []
    letters = [line[3] for line in text.splitlines() if re.match(r'  -\w \S* +\S', line)]
    assert letters == sorted(letters, key=lambda c: (c.lower(), c))
    assert len(set(letters)) == len(letters) > 20
    for letter in letters:
        assert 'unknown' not in run('-' + letter, '-h').stderr


def test_manual_has_each_option(run):
    """Goal: relay(1) describes exactly the options that relay -h lists, with
    the same arguments."""
    shown = re.findall(r'^  -(\w) (\S*) +\S', run('-h').stdout, re.M)
    with open(os.path.join(os.path.dirname(rig.HERE), 'doc', 'relay.1')) as f:
        text = f.read().split('The options are')[1].split('.El\n')[0]
    described = re.findall(r'^\.It Fl (\w)( .+)?$', text, re.M)
    assert ([(letter, argument != '') for letter, argument in described] ==
            [(letter, argument != '') for letter, argument in shown])


@TIMES('words, remedy', [
    (['-L', '8888:9000', 'login'], 'TO lacks a host: write -L 8888:localhost:9000'),
    (['-C', '-L', '8888:x:80', 'login'], "write -e 'ssh -C'"),
    (['-i', '~/.ssh/id', '-L', '8888:x:80', 'login'], 'IdentityFile=PATH'),
    (['-j', '9', '-L', '8888:x:80', 'login'], 'from 1 to 8, as in -j 2'),
    (['-F', '~/cfg', '-L', '8888:x:80', 'login'], "ssh -F FILE"),
    (['-e', "ssh 'a", '-L', '8888:x:80', 'login'], 'is not closed'),
    (['-p', '22', '-L', '8888:x:80', 'docker exec x'], 'is a command'),
    (['-o', 'ProxyCommand=x', '-J', 'a', '-L', '8888:x:80', 'b'], 'ProxyCommand'),
    (['8888', '9999', '7777'], 'a command follows --'),
], ids=str)
def test_habits_of_ssh(run, words, remedy):
    """Goal: where relay differs from ssh, the usage error shows how to write
    it."""
    r = run(*words)
    assert r.returncode == 2 and one_line(r.stderr) and remedy in r.stderr, r.stderr


def test_options_after_words(run, target):
    """Goal: an option may follow the words, alone or in a cluster.  Words after
    -- are those of the command."""
    t = target()
    word = t.words[0]
    assert run(word, '-zNT').returncode == 0
    assert 'relay' in run(word, '-Tzw', '1', '-V').stdout
    r = run('-', '-v', '--', 'printf', '%s.', '-v', '--', '-h')
    assert r.returncode == 0 and r.stdout == '-v.--.-h.' and 'exited' in r.stderr
    r = run('--', '-', '--', 'printf', '%s.', '--help')
    assert (r.returncode, r.stdout, r.stderr) == (0, '--help.', '')


# ---- exit statuses ----

def test_status_0(relay, target):
    """Goal: a listener that SIGTERM, SIGINT or SIGHUP stops exits with status
    0."""
    t = target()
    for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        r = relay('127.0.0.1:0', *t.words)
        assert r.address
        assert r.stop(sig) == 0
        assert r.err() == ''


@TIMES('sig', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_status_128(joined, sig):
    """Goal: if signal N stops the one connection of stdin and stdout, the
    status is 128 + N."""
    j = joined('pipes', 'tcp')
    a, b = j.connect()
    ping(a, b)
    assert j.relay.stop(sig) == 128 + sig
    assert b.fate() == 'reset'


def test_ignored_hangup_stays_ignored(relay, target):
    """Goal: if SIGHUP was ignored at the start (nohup), it does not stop
    relay."""
    t = target()
    r = relay('127.0.0.1:0', *t.words,
              preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert r.address
    r.proc.send_signal(signal.SIGHUP)
    a = rig.connect(r.address)
    b = t.accept()
    ping(a, b)
    a.close()
    b.close()


def test_status_1(run, tmp):
    """Goal: a target that cannot be reached gives status 1 and the cause: a
    refusing port, a missing file, a dead socket, a file that is not a socket, a
    name that does not exist."""
    port = gone_port()
    r = run('-', port)
    assert r.returncode == 1 and one_line(r.stderr)
    assert port in r.stderr and 'refused' in r.stderr
    r = run('-', tmp + '/none')
    assert r.returncode == 1 and one_line(r.stderr) and 'No such file or directory' in r.stderr
    dead = rig.UnixTarget(tmp + '/dead')
    dead.sock.close()
    r = run('-', tmp + '/dead')
    dead.close()
    assert r.returncode == 1 and one_line(r.stderr)
    assert 'no process on this host (%s) is listening' % socket.gethostname() in r.stderr
    with open(tmp + '/file', 'w'):
        r = run('-', tmp + '/file')
    assert r.returncode == 1 and one_line(r.stderr) and 'not a socket' in r.stderr
    r = run('-', 'no.such.host.invalid:80')
    assert r.returncode == 1 and one_line(r.stderr) and 'no.such.host.invalid' in r.stderr


def test_status_3(run, target, tmp):
    """Goal: if relay cannot listen on FROM, it logs the cause and exits with
    status 3."""
    t = target()
    for word, cause in ((t.words[0], 'in use'), (tmp + '/none/sock', 'No such file'),
                        ('192.0.2.99:0', 'address'),
                       ('no.such.host.invalid:0', 'no.such.host.invalid')):
        r = run(word, *t.words)
        assert (r.returncode, r.stdout) == (3, ''), r.stderr
        assert one_line(r.stderr) and cause in r.stderr


def test_one_taken_address_of_two(run, target):
    """Goal: if one address of a bare port is taken, relay does not listen on
    the other one."""
    t = target(host='::1')
    port = rig.host_port(t.words[0])[1]
    r = run(port, *t.words)
    assert r.returncode == 3 and one_line(r.stderr)
    with pytest.raises(ConnectionRefusedError):
        rig.connect('127.0.0.1:%d' % port)


def test_status_5(run):
    """Goal: with FROM `-`, a command that fails is logged and gives status 5. A
    command that succeeds gives status 0."""
    r = run('-', '--', 'sh', '-c', 'exit 3')
    assert (r.returncode, r.stderr) == (5, 'relay: sh exited with status 3\n')
    r = run('-', '--', 'sh', '-c', 'kill -9 $$')
    assert r.returncode == 5 and one_line(r.stderr) and 'sh was ended by signal 9' in r.stderr
    r = run('-', '--', 'echo', 'fine')
    assert (r.returncode, r.stderr, r.stdout) == (0, '', 'fine\n')
    r = run('-v', '-', '--', 'true')
    assert r.returncode == 0 and 'true exited with status 0' in r.stderr


def test_status_6(run, target, monkeypatch):
    """Goal: if the system refuses descriptors at the start, relay logs it and
    exits with status 6."""
    import resource
    if rig.COUNTED:
        pytest.skip('skipped: gcov needs descriptors to write its counts')
    monkeypatch.setenv('ASAN_OPTIONS', 'detect_leaks=0')     # LeakSanitizer needs descriptors
    limit = resource.RLIMIT_NOFILE, (6, 6)
    r = run('-', *target().words, preexec_fn=lambda: resource.setrlimit(*limit))
    assert r.returncode == 6 and one_line(r.stderr), r.stderr


def test_status_126_127(run, tmp):
    """Goal: as in a shell, a command that does not exist gives 127, one that
    cannot be executed 126. The cause is logged."""
    r = run('-', '--', 'no-such-command-here')
    assert r.returncode == 127 and one_line(r.stderr) and 'no-such-command-here' in r.stderr
    with open(tmp + '/plain', 'w') as f:
        f.write('no program')
    r = run('-', '--', tmp + '/plain')
    assert r.returncode == 126 and one_line(r.stderr) and 'Permission denied' in r.stderr
    r = run('-', '--', tmp)
    assert r.returncode == 126 and one_line(r.stderr)


@TIMES('source', rig.LISTENERS)
def test_failed_dials_end_no_other_connection(joined, relay, tmp, source):
    """Goal: with a listener, a failed connection is logged, then counted, and
    resets the TCP client. Other connections go on, and no descriptor stays
    open."""
    j = joined(source, 'unix')
    a, b = j.connect()
    ping(a, b)
    rig.quiet(j.relay.pid)
    before = os.listdir('/proc/%d/fd' % j.relay.pid)
    j.target.sock.close()
    for _ in range(20):
        assert rig.fate_at(j.relay.address) == ('reset' if source == 'tcp' else 'end')
    rig.quiet(j.relay.pid)
    assert j.relay.err().count('is listening') == 1
    ping(a, b)
    assert os.listdir('/proc/%d/fd' % j.relay.pid) == before
    j.close()
    assert j.relay.stop() == 0
    assert '(repeated 19 times)\n' in j.relay.err()


@TIMES('source', rig.LISTENERS)
def test_failed_commands_end_no_other_connection(relay, tmp, source):
    """Goal: with a listener, a command that cannot be executed is logged and
    ends its connection only."""
    r = relay(tmp + '/from' if source == 'unix' else '127.0.0.1:0', '--', 'no-such-command-here')
    for _ in range(5):
        assert rig.fate_at(r.address) == ('reset' if source == 'tcp' else 'end')
    rig.quiet(r.pid)
    assert r.err().count('no-such-command-here') == 1
    assert {'0', '1', '2'} <= set(os.listdir('/proc/%d/fd' % r.pid))
    assert not rig.children(r.pid)


def test_failing_commands_are_counted(relay):
    """Goal: with a listener, a command that fails again and again is logged
    once, then counted."""
    r = relay('127.0.0.1:0', '--', 'sh', '-c', 'exit 3')
    for _ in range(20):
        assert rig.fate_at(r.address) == 'end'
    wait_for(lambda: not rig.children(r.pid))
    assert r.stop() == 0
    first = 'relay: sh exited with status 3'
    assert r.err().splitlines() == [first, first + ' (repeated 19 times)']


# ---- FROM ----

def test_addresses(relay, target):
    """Goal: a bare port and localhost are 127.0.0.1 and ::1 with one port
    number, and are printed once. So is *. Other hosts stay as they are."""
    t = target()
    for word, host in (('0', 'localhost'), ('localhost:0', 'localhost'), ('127.0.0.1:0', '127.0.0.1'),
                       ('[::1]:0', '::1'), ('*:0', '*')):
        r = relay(word, *t.words)
        assert len(r.addresses) == 1 and rig.host_port(r.address)[0] == host
        for address in rig.families(r.address):
            a = rig.connect(address)
            b = t.accept()
            ping(a, b)
            a.close()
            b.close()
        r.stop()


@TIMES('words', [['0'], ['-x', rig.RELAY, '-L'], ['-x', rig.RELAY, '-R']], ids=str)
def test_one_address_for_a_script(run, tmp, target, words):
    """Goal: the output of relay -f is one address that can be connected to."""
    t = target()
    words = words[:-1] + (['0', t.words[0]] if len(words) == 1 else
                          [words[-1], '0:' + t.words[0], 'env A=b'])
    address = run('-f', '-P', tmp + '/pid', *words).stdout.rstrip('\n')
    assert re.fullmatch(r'localhost:\d+', address)
    for one in rig.families(address):
        a = rig.connect(one)
        b = t.accept()
        ping(a, b)
        a.close()
        b.close()
    with open(tmp + '/pid') as f:
        os.kill(int(f.read()), signal.SIGTERM)
    wait_for(lambda: not os.path.exists(tmp + '/pid'))


def test_fixed_port_can_be_used_again_at_once(relay, target):
    """Goal: relay listens on the port that was given. After a stop with open
    connections, the port can be used again at once."""
    t = target()
    port = rig.free_port()
    for _ in range(3):
        r = relay(port, *t.words)
        assert r.addresses == ['localhost:%d' % port]
        a = rig.connect(r.address)
        b = t.accept()
        ping(a, b)
        b.close()
        r.stop()
        a.close()


def test_service_name(run, relay, target):
    """Goal: a port can be written as a service name."""
    try:
        port = socket.getservbyname('http-alt', 'tcp')
        t = target(port=port)
    except OSError:
        pytest.skip('skipped: no service http-alt, or its port is taken')
    assert run('-z', 'localhost:http-alt').returncode == 0
    assert run('-z', 'http-alt').returncode == 0
    t.sock.close()


def test_all_addresses_of_a_name(relay, target):
    """Goal: localhost and a bare port are tried at all their addresses, so a
    server on ::1 alone is reached."""
    t = target(host='::1')
    port = rig.host_port(t.words[0])[1]
    for word in (port, 'localhost:%d' % port):
        r = relay('127.0.0.1:0', word)
        a = rig.connect(r.address)
        b = t.accept()
        ping(a, b)
        a.close()
        b.close()


def test_target_stdio(relay):
    """Goal: `relay PORT -` prints no address, accepts one connection, refuses a
    second, and exits with the first."""
    port = rig.free_port()
    a, i, o = rig.end_of_pipe_pair()
    r = relay('127.0.0.1:%d' % port, '-', stdin=i, stdout=o)
    os.close(i)
    os.close(o)
    b = rig.reach('127.0.0.1:%d' % port)
    ping(a, b)
    with pytest.raises(ConnectionRefusedError):
        rig.connect('127.0.0.1:%d' % port)
    b.send(b'last')
    b.shut()
    assert a.read_all() == b'last'
    a.shut()
    assert b.read_all() == b''
    assert r.wait() == 0
    a.close()
    b.close()


# ---- Unix sockets ----

def mode(path):
    return os.lstat(path).st_mode & 0o7777


def test_stale_socket_is_replaced(relay, target, tmp):
    """Goal: a socket file without a listening process is replaced, and this is
    logged."""
    path = tmp + '/sock'
    old = rig.UnixTarget(path)
    old.sock.close()
    t = target()
    r = relay(path, *t.words)
    assert r.addresses == [path]
    assert 'replaced' in r.err() and path in r.err()
    a = rig.connect(path)
    b = t.accept()
    ping(a, b)
    a.close()
    b.close()
    r.stop()
    assert os.listdir(tmp) == []


def test_live_socket_stays(run, target, tmp):
    """Goal: a socket on which a process listens is refused and goes on working,
    even if its backlog is full."""
    for backlog in (5, 0):
        live = target('unix')
        live.sock.listen(backlog)
        before = os.lstat(live.path)
        waiting = []
        if backlog == 0:
            waiting = [rig.connect(live.path)]
        r = run(live.path, gone_port())
        assert (r.returncode, r.stdout) == (3, '')
        assert one_line(r.stderr) and 'in use' in r.stderr
        assert os.lstat(live.path).st_ino == before.st_ino
        for end in waiting:
            end.close()
        if backlog:
            a = rig.connect(live.path)
            b = live.accept()
            ping(a, b)
            a.close()
            b.close()


def states(path):
    """Return the name and the state of each file in path."""
    return [(name, os.lstat(os.path.join(path, name))[:8]) for name in sorted(os.listdir(path))]


@TIMES('what', ['file', 'empty', 'directory', 'fifo', 'symlink to a file',
                'symlink to a stale socket', 'dangling symlink',
                'symlink to a live socket'])
def test_other_files_stay(run, target, tmp, what):
    """Goal: if FROM is a file other than a socket, relay refuses it and changes
    nothing. A symlink is not followed."""
    path = tmp + '/it'
    other = tmp + '/other'
    if what == 'directory':
        os.mkdir(path)
    elif what == 'fifo':
        os.mkfifo(path)
    elif what in ('file', 'empty'):
        with open(path, 'w') as f:
            f.write('precious' if what == 'file' else '')
    else:
        if 'socket' in what:
            s = rig.UnixTarget(other)
            if 'stale' in what:
                s.sock.close()
        elif what != 'dangling symlink':
            with open(other, 'w') as f:
                f.write('precious')
        os.symlink(other, path)
    before = states(tmp)
    r = run(path, gone_port())
    assert (r.returncode, r.stdout) == (3, '')
    assert one_line(r.stderr) and path in r.stderr and 'not a socket' in r.stderr
    assert before == states(tmp)
    if 'socket' in what:
        s.close()


@TIMES('mask', [0, 0o22, 0o777])
def test_socket_is_private(relay, target, tmp, mask):
    """Goal: the socket of a listener has mode 0600 under any umask. Commands
    have the umask of relay's caller."""
    r = relay(tmp + '/sock', '--', 'sh', '-c', 'umask', preexec_fn=lambda: os.umask(mask))
    assert mode(r.address) == 0o600
    a = rig.connect(r.address)
    assert int(a.read_all(), 8) == mask
    a.close()


def lay_out(tmp, kind):
    """Return the path of a socket to be made, and the working directory, for an
    unusual kind of path."""
    long = tmp + '/' + '/'.join(['d' * 45] * 4)
    if kind == 'long path':
        os.makedirs(long)
        return long + '/sock', tmp
    if kind == 'path of 107':
        return tmp + '/' + 'n' * (106 - len(tmp)), tmp
    if kind == 'path of 108':
        return tmp + '/' + 'n' * (107 - len(tmp)), tmp
    if kind == 'long name':
        return tmp + '/' + 'n' * 200, tmp
    if kind == 'longest name':
        return tmp + '/' + 'n' * 255, tmp
    if kind == 'relative':
        return './sock', tmp
    if kind == 'relative and long':
        os.makedirs(long)
        return './' + os.path.relpath(long, tmp) + '/sock', tmp
    os.mkdir(tmp + '/a dir\twith "blanks" %s')
    return tmp + '/a dir\twith "blanks" %s/s o c k', tmp


@TIMES('kind', ['long path', 'path of 107', 'path of 108', 'long name', 'longest name', 'relative',
                'relative and long', 'blanks'])
def test_unusual_paths(relay, run, tmp, target, kind):
    """Goal: relay listens on and connects to paths that are long, relative or
    contain blanks. It refuses a live socket there, replaces a dead one, sets
    mode 0600, and leaves no file."""
    path, cwd = lay_out(tmp, kind)
    full = os.path.join(cwd, path)
    t = target()
    first = relay(path, *t.words, cwd=cwd)
    assert first.addresses == [path]
    assert mode(full) == 0o600
    second = relay('127.0.0.1:0', path, cwd=cwd)
    for _ in range(2):
        a = rig.connect(second.address)
        b = t.accept()
        ping(a, b)
        a.close()
        b.close()
    assert run('-z', path, cwd=cwd).returncode == 0
    r = run(path, *t.words, cwd=cwd)
    assert r.returncode == 3 and 'in use' in r.stderr
    for _ in range(2):
        if t.waiting():
            t.accept().close()
    first.kill()
    assert run('-z', path, cwd=cwd).returncode == 1
    third = relay(path, *t.words, cwd=cwd)
    assert third.addresses == [path] and 'replaced' in third.err()
    third.stop()
    assert not os.path.lexists(full)
    assert not [f for _, _, files in os.walk(tmp) for f in files]


def test_socket_of_another_process_stays(relay, target, tmp):
    """Goal: at exit, relay removes the socket file only if it is still its
    own."""
    path = tmp + '/sock'
    t = target()
    r = relay(path, *t.words)
    assert r.address == path
    os.unlink(path)
    other = rig.UnixTarget(path)
    assert r.stop() == 0
    assert os.path.exists(path)
    other.close()


def test_socket_file_was_removed(relay, target, tmp):
    """Goal: if the socket file was removed already, relay exits with status 0
    and logs nothing."""
    r = relay(tmp + '/sock', *target().words)
    os.unlink(r.address)
    assert r.stop() == 0
    assert r.err() == ''


# ---- options ----

def test_probe(run, target, tmp):
    """Goal: -z writes nothing. Its status reports whether a process listens."""
    for kind in ('tcp', 'unix'):
        t = target(kind)
        for words in (['-z', *t.words], ['-z', '-', *t.words]):
            r = run(*words)
            assert (r.returncode, r.stdout, r.stderr) == (0, '', '')
        t.sock.close()
        r = run('-z', *t.words)
        assert (r.returncode, r.stdout, r.stderr) == (1, '', '')
    r = run('-z', tmp + '/none')
    assert (r.returncode, r.stdout, r.stderr) == (1, '', '')
    r = run('-z', 'no.such.host.invalid:80')
    assert (r.returncode, r.stdout, r.stderr) == (1, '', '')


@TIMES('kind', rig.LISTENERS)
def test_wait_for_the_target(relay, run, target, tmp, kind):
    """Goal: -w waits for a target that does not listen yet. All connections
    wait meanwhile and are served then, also with FROM `-`."""
    late = tmp + '/late' if kind == 'unix' else gone_port()
    r = relay('-w', '30', '127.0.0.1:0', late)
    near = [rig.connect(r.address) for _ in range(3)]
    a, i, o = rig.end_of_pipe_pair()
    single = relay('-w', '30', '-', late, stdin=i, stdout=o)
    os.close(i)
    os.close(o)
    wait_for(lambda: rig.stat_of(single.pid)[0] == 'S' and rig.stat_of(r.pid)[0] == 'S')
    assert rig.cpu_grows(r.pid, 0.3) < 0.1
    assert all(n.silent() for n in near)
    t = rig.UnixTarget(late) if kind == 'unix' else rig.TcpTarget(*rig.host_port(late))
    for n in near + [a]:
        n.send(b'%d' % n.w)
    for _ in range(4):
        b = t.accept()
        b.send(b.recv() + b'!')
        b.close()
    for n in near + [a]:
        assert n.read_all() == b'%d!' % n.w
        n.close()
    t.close()


def test_wait_ends(run):
    """Goal: -w gives up after its time, not before, with status 1. -z -w writes
    nothing."""
    for words in (['-w', '1', '-'], ['-w', '1', '-z']):
        start = time.monotonic()
        r = run(*words, gone_port())
        assert r.returncode == 1
        assert 0.9 < time.monotonic() - start < 3
        assert r.stderr == '' if '-z' in words else one_line(r.stderr)


@pytest.fixture
def silent_server():
    """silent_server(host) returns the port of a server that does not answer
    connects: its backlog is full."""
    made = []

    def make(host='127.0.0.1'):
        s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET)
        s.bind((host, 0))
        s.listen(0)
        made.append(s)
        while len(made) < 100:
            c = socket.socket(s.family)
            made.append(c)
            c.settimeout(0.2)
            try:
                c.connect(s.getsockname())
            except socket.timeout:
                return s.getsockname()[1]
        pytest.skip('skipped: a full backlog does not delay connects here')
    yield make
    for s in made:
        s.close()


def test_timeout(run, relay, silent_server):
    """Goal: after -t seconds without an answer, relay gives up with status 1.
    With a listener, it resets the client and goes on."""
    port = silent_server()
    start = time.monotonic()
    r = run('-t', '1', '-', '127.0.0.1:%d' % port)
    assert r.returncode == 1 and one_line(r.stderr) and '-t' in r.stderr
    assert 0.9 < time.monotonic() - start < 3
    r = relay('-t', '1', '127.0.0.1:0', '127.0.0.1:%d' % port)
    near = [rig.connect(r.address) for _ in range(2)]
    assert [a.fate() for a in near] == ['reset', 'reset']
    assert time.monotonic() - start < 6
    assert run('-z', r.address).returncode == 0


def test_timeout_of_each_address(run, silent_server, target):
    """Goal: if the first address of localhost does not answer, the second one
    is tried after -t seconds."""
    port = silent_server()
    try:
        t = target(host='::1', port=port)
    except OSError:
        pytest.skip('skipped: no ::1, or its port is taken')
    r = run('-t', '1', '-z', 'localhost:%d' % port)
    assert r.returncode == 0
    t.accept().close()


def test_client_resets_while_relay_connects(relay, silent_server):
    """Goal: if a client resets while the target does not answer, relay closes
    the connection and its descriptors at once."""
    r = relay('-v', '127.0.0.1:0', '127.0.0.1:%d' % silent_server())
    held = []
    for n in (1, 2, 3):
        a = rig.connect(r.address)
        r.says('[%d] opened' % n)
        a.reset()
        r.says('[%d] closed' % n, 3)
        rig.quiet(r.pid)
        held.append(os.listdir('/proc/%d/fd' % r.pid))
    assert held[0] == held[1] == held[2]


@TIMES('source', rig.LISTENERS)
def test_at_most(joined, source):
    """Goal: with -c 2, a third connection waits in the backlog without using
    processor time, and is served once another one has ended."""
    j = joined(source, 'unix', ['-c', '2', '-v'])
    pairs = [j.connect(), j.connect()]
    third = j.client()
    third.send(b'third...')
    rig.quiet(j.relay.pid)
    assert not j.target.waiting() and j.relay.err().count('opened') == 2
    assert rig.cpu_grows(j.relay.pid, 0.2) < 0.1
    for a, b in pairs:
        ping(a, b)
    a, b = pairs[0]
    a.close()
    b.close()
    served = j.target.accept()
    assert served.read(8) == b'third...'
    ping(third, served)
    served.close()


@TIMES('words', [['127.0.0.1:0'], ['SOCK']], ids=['tcp', 'unix'])
def test_pid_file(relay, target, tmp, words):
    """Goal: the file of -P holds the process ID before the address is printed,
    and is removed at exit."""
    r = relay('-P', tmp + '/it.pid', *[tmp + '/sock' if w == 'SOCK' else w for w in words],
              *target().words)
    assert r.address
    with open(tmp + '/it.pid') as f:
        assert f.read() == '%d\n' % r.pid
    assert r.stop() == 0
    assert os.listdir(tmp) == []


@TIMES('options', [[], ['-f']], ids=['foreground', 'background'])
def test_pid_file_of_a_live_relay(relay, run, tmp, options):
    """Goal: the pid file of a relay that runs is refused with the process ID of
    that relay. The file is not changed, also after its owner has started
    commands, and its owner removes it."""
    path = tmp + '/it.pid'
    first = relay(*options, '-P', path, '127.0.0.1:0', '--', 'echo', 'x')
    a = rig.connect(first.address)
    assert a.read_all() == b'x\n'
    a.close()
    with open(path) as f:
        words = f.read()
    for second in ([], ['-f']):
        r = run(*second, '-P', path, tmp + '/sock', '--', 'true')
        assert (r.returncode, r.stdout) == (6, '')
        assert one_line(r.stderr) and path in r.stderr
        assert 'process ' + words.strip() in r.stderr
        with open(path) as f:
            assert f.read() == words
    os.kill(int(words), signal.SIGTERM)
    wait_for(lambda: not rig.alive(int(words)))
    assert os.listdir(tmp) == []


def test_pid_file_left_by_kill(relay, tmp):
    """Goal: a pid file that kill -9 has left is used again, whatever it
    contains."""
    for left in ('first', 'a text that is longer than any pid\n'):
        if left == 'first':
            first = relay('-P', tmp + '/it.pid', '127.0.0.1:0', gone_port())
            assert first.address
            first.kill()
            assert os.path.exists(tmp + '/it.pid')
        else:
            with open(tmp + '/it.pid', 'w') as f:
                f.write(left)
        r = relay('-P', tmp + '/it.pid', '127.0.0.1:0', gone_port())
        assert r.address
        with open(tmp + '/it.pid') as f:
            assert f.read() == '%d\n' % r.pid
        assert r.stop() == 0
        assert not os.path.exists(tmp + '/it.pid')


def test_pid_file_of_starts_at_once(tmp, run):
    """Goal: of four relays started with one pid file, one runs, and the file
    has its process ID."""
    for _ in range(20):
        all = [subprocess.Popen([rig.RELAY, '-P', tmp + '/it.pid', '127.0.0.1:0', gone_port()],
                                stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE) for _ in range(4)]
        try:
            wait_for(lambda: sum(p.poll() is None for p in all) <= 1)
            winner, = [p for p in all if p.poll() is None]
            assert [p.returncode for p in all if p is not winner] == [6, 6, 6]
            assert winner.stdout.read()
            with open(tmp + '/it.pid') as f:
                assert f.read() == '%d\n' % winner.pid
        finally:
            for p in all:
                p.kill()
                p.wait()
                p.stdout.close()
                p.stderr.close()
    os.unlink(tmp + '/it.pid')


def test_pid_file_of_one_connection(joined, tmp):
    """Goal: with FROM `-`, the pid file exists while the connection is open,
    and is removed at the end."""
    j = joined('pipes', 'tcp', ['-P', tmp + '/it.pid'])
    a, b = j.connect()
    ping(a, b)
    with open(tmp + '/it.pid') as f:
        assert f.read() == '%d\n' % j.relay.pid
    a.shut()
    b.shut()
    assert j.relay.wait() == 0
    assert not os.path.exists(tmp + '/it.pid')


def test_pid_file_that_is_a_device(run, target, tmp):
    """Goal: a device is refused as a pid file and is not changed."""
    try:
        os.mknod(tmp + '/device', 0o20666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip('skipped: mknod is not permitted')
    r = run('-P', tmp + '/device', tmp + '/from', *target().words)
    assert r.returncode == 6 and one_line(r.stderr), r.stderr
    assert os.path.exists(tmp + '/device')


def test_pid_file_that_cannot_be_written(run, target, tmp):
    """Goal: if the pid file cannot be written, relay exits and leaves no socket
    file. Symlinks, FIFOs and files with two names are refused and not
    changed."""
    r = run('-P', tmp + '/none/it.pid', tmp + '/sock', *target().words)
    assert r.returncode in (3, 6) and one_line(r.stderr) and r.stdout == ''
    assert os.listdir(tmp) == []
    target_file = tmp + '/precious'
    with open(target_file, 'w') as f:
        f.write('precious')
    os.symlink(target_file, tmp + '/link')
    os.link(target_file, tmp + '/second')
    os.mkfifo(tmp + '/fifo')
    for name in ('/second', '/fifo'):
        r = run('-P', tmp + name, '127.0.0.1:0', *target().words)
        assert r.returncode == 6 and one_line(r.stderr) and r.stdout == '', name
    r = run('-P', tmp + '/link', '127.0.0.1:0', *target().words)
    assert r.returncode == 6 and 'not a regular file' in r.stderr, r.stderr
    with open(target_file) as f:
        assert f.read() == 'precious'


def test_background(run, target, tmp):
    """Goal: relay -f returns once the listener is ready. Relative paths work.
    After a kill, the socket and the pid file are removed."""
    t = target('unix')
    r = run('-f', '-P', 'it.pid', './sock', os.path.relpath(t.path, tmp).join(['./', '']), cwd=tmp)
    assert (r.returncode, r.stdout, r.stderr) == (0, './sock\n', '')
    with open(tmp + '/it.pid') as f:
        pid = int(f.read())
    assert rig.alive(pid)
    assert os.getsid(pid) != os.getsid(0)
    for fd in '012':
        assert os.readlink('/proc/%d/fd/%s' % (pid, fd)) == '/dev/null'
    a = rig.connect(tmp + '/sock')
    b = t.accept()
    ping(a, b)
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not rig.alive(pid))
    wait_for(lambda: set(os.listdir(tmp)) == {os.path.basename(t.path)})
    a.close()
    b.close()


def test_background_in_a_substitution(target):
    """Goal: addr=$(relay -f 0 TO) returns the address, and kill "$(cat
    pidfile)" ends relay."""
    t = target('unix')
    script = 'addr=$(%s -f -P %s.pid 127.0.0.1:0 %s 2>&1) && echo "got $addr"'
    script %= rig.RELAY, t.path, t.path
    out = subprocess.run(['sh', '-c', script], stdout=subprocess.PIPE, text=True,
                         timeout=rig.PATIENCE).stdout
    assert out.startswith('got 127.0.0.1:')
    a = rig.connect(out.split()[1])
    b = t.accept()
    ping(a, b)
    a.close()
    b.close()
    subprocess.run(['sh', '-c', 'kill "$(cat %s.pid)"' % t.path], check=True)
    wait_for(lambda: not os.path.exists(t.path + '.pid'))


def test_background_that_fails(run, target, tmp, mark):
    """Goal: a start with -f that fails has the same status as without -f, and
    leaves no process and no pid file."""
    t = target()
    for action in (signal.SIG_DFL, signal.SIG_IGN):
        r = run('-f', '-P', tmp + '/it.pid', t.words[0], *t.words,
                preexec_fn=lambda: signal.signal(signal.SIGCHLD, action))
        assert r.returncode == 3 and one_line(r.stderr)
    r = run('-f', '-P', tmp + '/none/it.pid', tmp + '/sock', *t.words)
    assert r.returncode in (3, 6) and one_line(r.stderr)
    assert os.listdir(tmp) == []
    assert not rig.marked(mark)


def test_verbose_and_quiet(relay, target, tmp):
    """Goal: -v logs a line when a connection opens, and a line with bytes and
    time when it closes. Without -v neither is logged. -q logs a failed
    connection but no replaced socket."""
    t = target()
    for options, lines in ((['-v'], 2), ([], 0), (['-q'], 0)):
        r = relay(*options, '127.0.0.1:0', *t.words)
        assert r.address
        before = r.err().count('\n')
        a = rig.connect(r.address)
        b = t.accept()
        a.send(b'x' * 1234)
        a.shut()
        b.send(b'y' * 56)
        b.shut()
        assert b.read_all() and a.read_all()
        rig.quiet(r.pid)
        logged = r.err().splitlines()[before:]
        assert len(logged) == lines, logged
        if logged:
            opened, closed = logged
            assert 'opened' in opened and t.words[0] in opened and '127.0.0.1:' in opened
            assert 'closed' in closed and '1234' in closed and '56' in closed
            assert re.search(r'\d s', closed)
        a.close()
        b.close()
    dead = rig.UnixTarget(tmp + '/sock')
    dead.sock.close()
    r = relay('-q', tmp + '/sock', gone_port())
    a = rig.connect(r.address)
    assert a.fate() == 'end'
    a.close()
    wait_for(r.err)
    assert one_line(r.err()) and 'refused' in r.err()


def test_table(joined):
    """Goal: SIGUSR1 logs the ends and the bytes of each connection and changes
    none, also if there is no connection."""
    j = joined('tcp', 'unix')
    pairs = [j.connect() for _ in range(3)]
    for n, (a, b) in enumerate(pairs):
        a.send(b'x' * (1001 + n))
        b.read(1001 + n)
        b.send(b'y' * (2001 + n))
        a.read(2001 + n)
    os.kill(j.relay.pid, signal.SIGUSR1)
    for n in range(3):
        line = j.relay.says(str(1001 + n))
        assert str(2001 + n) in line and j.target.path in line and '127.0.0.1:' in line
    for a, b in pairs:
        ping(a, b)
        a.close()
        b.close()
    rig.quiet(j.relay.pid)
    before = len(j.relay.err())
    os.kill(j.relay.pid, signal.SIGUSR1)
    wait_for(lambda: len(j.relay.err()) > before)


def test_table_while_relay_connects(relay, silent_server):
    """Goal: SIGUSR1 while relay connects changes nothing, with FROM `-` and
    with -z."""
    port = silent_server()
    for words in (['-t', '1', '-'], ['-t', '1', '-z']):
        r = relay(*words, '127.0.0.1:%d' % port, stdin=subprocess.PIPE)
        wait_for(lambda: rig.stat_of(r.pid)[0] == 'S' and 'SigCgt:\t0000000000000000' not in
                 open('/proc/%d/status' % r.pid).read())
        os.kill(r.pid, signal.SIGUSR1)
        assert r.wait() == 1
        r.proc.stdin.close()


# ---- inherited descriptors ----

def flags(fd):
    import fcntl
    return fcntl.fcntl(fd, fcntl.F_GETFL)


@TIMES('how', ['end', 'sigterm', 'reset', 'cannot connect', 'reader gone'])
@TIMES('blocking', [True, False])
@TIMES('shape', ['pipes', 'socketpair'])
def test_flags_come_back(relay, run, target, shape, blocking, how):
    """Goal: however relay ends, the flags of inherited descriptors are as they
    were: the shell shares them."""
    if shape == 'pipes':
        a, i, o = rig.end_of_pipe_pair()
    else:
        mine, theirs = socket.socketpair()
        a, i = rig.End(mine), theirs.detach()
        o = os.dup(i)
    for fd in (i, o):
        os.set_blocking(fd, blocking)
    before = flags(i), flags(o)
    t = target()
    word = t.words[0] if how != 'cannot connect' else gone_port()
    r = relay('-', word, stdin=i, stdout=o)
    b = None
    if how != 'cannot connect':
        b = t.accept()
        ping(a, b)
    if how == 'end':
        b.shut()
        a.shut()
    elif how == 'sigterm':
        r.stop()
    elif how == 'reset':
        b.reset()
        b = None
    elif how == 'reader gone' and shape == 'pipes':
        a.shut_read()
        os.close(o)
        o = i
        before = (before[0], before[0])
        b.send(b'x')
    elif how == 'reader gone':
        a.close()
        b.close()
        b = None
    r.wait()
    assert (flags(i), flags(o)) == before
    for end in (a, b):
        if end:
            end.close()
    for fd in {i, o}:
        os.close(fd)


def test_flags_stay_without_pid_file(target, tmp):
    """Goal: if the pid file cannot be written, stdin and stdout keep the flags
    that they had."""
    a, i, o = rig.end_of_pipe_pair()
    before = flags(i), flags(o)
    r = subprocess.run([rig.RELAY, '-P', tmp + '/none/it.pid', '-', *target().words], stdin=i,
                       stdout=o,
                       stderr=subprocess.PIPE, text=True, timeout=rig.PATIENCE)
    assert r.returncode == 6 and one_line(r.stderr) and '/none/it.pid' in r.stderr
    assert (flags(i), flags(o)) == before
    for fd in (i, o):
        os.close(fd)
    a.close()


def test_tty(relay, target):
    """Goal: with a terminal as stdin and stdout, lines pass both ways and ^D
    sends EOF. The flags and modes of the terminal stay."""
    import pty
    import termios
    mine, theirs = pty.openpty()
    before = flags(theirs), termios.tcgetattr(theirs)
    t = target()
    r = relay('-', *t.words, stdin=theirs, stdout=theirs)
    b = t.accept()
    a = rig.End(mine)
    a.send(b'hello\n')
    assert b.read(6) == b'hello\n'
    assert a.read(7) == b'hello\r\n'     # the echo of the terminal
    b.send(b'answer\n')
    assert a.read(8) == b'answer\r\n'
    a.send(b'\4')
    assert b.read_all() == b''
    big = b'0123456789abcde\n' * 8192
    b.send(big[:4096])
    assert a.read(4096 + 256) == big[:4096].replace(b'\n', b'\r\n')
    b.close()
    assert r.wait() == 0
    assert (flags(theirs), termios.tcgetattr(theirs)) == before
    os.close(theirs)
    a.close()


@TIMES('kind', ['tcp', 'unix', 'command'])
def test_regular_files(relay, target, tmp, kind):
    """Goal: stdin and stdout can be regular files. If stdout appends, its old
    content stays. The flags stay."""
    data = os.urandom(3 << 20)
    with open(tmp + '/in', 'wb') as f:
        f.write(data)
    with open(tmp + '/out', 'wb') as f:
        f.write(b'before')
    i, o = os.open(tmp + '/in', os.O_RDONLY), os.open(tmp + '/out', os.O_WRONLY | os.O_APPEND)
    before = flags(i), flags(o)
    t = target(kind)
    r = relay('-', *t.words, stdin=i, stdout=o)
    b = t.accept()
    assert b.read_all() == data
    b.send(data[::-1])
    b.close()
    assert r.wait() == 0
    assert (flags(i), flags(o)) == before
    with open(tmp + '/out', 'rb') as f:
        assert f.read() == b'before' + data[::-1]
    os.close(i)
    os.close(o)


def test_full_disk(relay, target):
    """Goal: if stdout is full (/dev/full), relay logs the cause and exits with
    status 4, without using processor time."""
    t = target()
    with open('/dev/full', 'wb') as full:
        r = relay('-', *t.words, stdout=full)
    b = t.accept()
    b.send(b'x' * 100000)
    assert r.wait(5) == 4
    assert 'No space left' in r.err()
    b.close()


def limit_files(size):
    """Return a preexec_fn that limits the size of files to size bytes."""
    import resource
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@TIMES('words', [[], ['-m']], ids=['direct', 'link'])
def test_file_size_limit_of_stdout(relay, tmp, words):
    """Goal: if stdout reaches ulimit -f, relay logs cause and remedy and exits
    with status 4. The bytes within the limit are written."""
    command = 'head -c 200000 /dev/zero; cat'
    to = ['--', 'sh', '-c', command] if not words else ['--', rig.RELAY, '-m', '-', tmp + '/t']
    t = rig.UnixTarget(tmp + '/t')
    with open(tmp + '/out', 'wb') as out:
        r = relay(*words, '-', *to, stdin=subprocess.PIPE, stdout=out,
                  preexec_fn=limit_files(65536))
    if words:
        b = t.accept()
        with contextlib.suppress(ConnectionError):
            b.send(bytes(200000))
    assert r.wait(5) == 4, r.err()
    line = r.says('File too large')
    assert 'ulimit -f' in line and line.startswith('relay: ')
    assert os.path.getsize(tmp + '/out') == 65536
    if words:
        b.close()
    t.close()
    r.proc.stdin.close()


def test_file_size_limit_of_stderr(relay, target, tmp):
    """Goal: if stderr reaches ulimit -f, relay and its connections go on, and
    the socket file is removed at exit."""
    t = target()
    r = relay('-v', tmp + '/sock', *t.words, preexec_fn=limit_files(100))
    for _ in range(5):
        a = rig.reach(tmp + '/sock')
        b = t.accept()
        ping(a, b)
        a.close()
        b.close()
    assert len(r.err()) == 100
    assert r.stop() == 0
    assert os.listdir(tmp) == []


@TIMES('closed', [[0], [1], [2], [0, 1], [1, 2], [0, 1, 2]], ids=str)
def test_closed_descriptors(relay, target, tmp, closed):
    """Goal: if stdin, stdout or stderr is closed at the start, no connection
    gets their numbers, and all works."""
    def close():
        for fd in closed:
            os.close(fd)
    t = target()
    r = relay(tmp + '/from', *t.words, preexec_fn=close)
    a = rig.reach(tmp + '/from')
    b = t.accept()
    ping(a, b)
    os.kill(r.pid, signal.SIGUSR1)      # makes relay write to descriptor 2
    rig.quiet(r.pid)
    ping(a, b)
    a.close()
    b.close()
    assert r.stop() == 0


@TIMES('closed', [[0], [1], [0, 1]], ids=str)
def test_closed_stdio_as_an_end(relay, target, closed):
    """Goal: with FROM `-` and stdin or stdout closed, relay exits by itself,
    and the bytes go to no other descriptor."""
    def close():
        for fd in closed:
            os.close(fd)
    t = target()
    r = relay('-', *t.words, preexec_fn=close)
    if not t.waiting():
        wait_for(lambda: t.waiting() or not rig.alive(r.pid))
    if t.waiting():
        b = t.accept()
        b.send(b'not read')
        b.shut()
        assert b.read_all() == b''
        b.close()
    assert r.wait() in (0, 2, 4, 6)


def test_no_descriptor_leaks_into_commands(relay, tmp):
    """Goal: a command has stdin, stdout and stderr and no other descriptor of
    relay."""
    r = relay('127.0.0.1:0', '--', 'sh', '-c', 'ls /proc/$$/fd')
    others = [rig.connect(r.address) for _ in range(3)]
    for a in others:
        assert a.read_all().split() in ([b'0', b'1', b'2'], [b'0', b'1', b'10', b'2'])
        a.close()


# ---- -F ----

@TIMES('kind', rig.LISTENERS)
@TIMES('words', [['-F'], ['-F', '-']], ids=' '.join)
def test_fdpass(relay, target, kind, words):
    """Goal: -F sends the connected socket, in blocking mode, over stdout and
    exits. The bytes then pass without relay."""
    t = target(kind)
    mine, theirs = socket.socketpair()
    mine.settimeout(rig.PATIENCE)
    r = relay(*words, *t.words, stdout=theirs)
    theirs.close()
    data, (fd,) = rig.receive_fds(mine, 1)
    assert len(data) == 1
    assert r.wait() == 0
    assert mine.recv(1) == b''
    assert os.get_blocking(fd)
    a, b = rig.End(fd), t.accept()
    ping(a, b)
    a.shut()
    assert b.read_all() == b''
    a.close()
    b.close()
    mine.close()


def test_fdpass_fails(run, target):
    """Goal: if -F cannot connect, the status is 1. If stdout is not a socket,
    the message names the use of -F."""
    mine, theirs = socket.socketpair()
    r = subprocess.run([rig.RELAY, '-F', gone_port()], stdout=theirs, stderr=subprocess.PIPE,
                       text=True, timeout=rig.PATIENCE)
    theirs.close()
    assert r.returncode == 1 and one_line(r.stderr) and 'refused' in r.stderr
    assert mine.recv(1) == b''
    mine.close()
    r = run('-F', *target().words)
    assert r.returncode != 0 and one_line(r.stderr) and 'ProxyUseFdpass' in r.stderr


# ---- commands ----

def test_failed_command_with_a_listener(relay):
    """Goal: the failure of a command is logged with its name, and ends its
    connection only."""
    r = relay('127.0.0.1:0', '--', 'sh', '-c', 'read x; exit $x')
    for status in (3, 255):
        a = rig.connect(r.address)
        a.send(b'%d\n' % status)
        assert a.read_all() == b''
        a.close()
        r.says('sh exited with status %d' % status)
    a = rig.connect(r.address)
    a.send(b'0\n')
    a.read_all()
    a.close()
    rig.quiet(r.pid)
    assert 'status 0' not in r.err()
    assert not rig.children(r.pid)


def test_command_is_killed(joined):
    """Goal: if a command is killed with -9, this is logged and its connection
    ends."""
    j = joined('tcp', 'command')
    a, b = j.connect()
    ping(a, b)
    b.control.send(b'k')
    j.relay.says('was ended by signal 9')
    b.close()
    a.fate()
    wait_for(lambda: not rig.children(j.relay.pid))


@TIMES('stubborn', [False, True], ids=['polite', 'stubborn'])
def test_command_that_does_not_end(joined, stubborn):
    """Goal: a command that outlives its connection gets SIGTERM after a second,
    and SIGKILL two seconds later. relay serves other connections meanwhile,
    reaps the command, and logs no failure."""
    j = joined('tcp', 'command')
    a, b = j.connect()
    ping(a, b)
    if stubborn:
        b.control.send(b'i')
        assert b.control.recv(1) == b'i'
    start = time.monotonic()
    a.close()
    b.shut()
    os.close(b.r)
    b.r = b.w
    a2, b2 = j.connect()
    ping(a2, b2)
    wait_for(lambda: rig.children(j.relay.pid) == [b2.pid])
    assert (2.2 if stubborn else 0.4) < time.monotonic() - start < (4.5 if stubborn else 2.5)
    ping(a2, b2)
    assert j.relay.err() == ''


def test_command_closes_stdin_and_writes(joined):
    """Goal: if a command closes its stdin, its output still reaches the client,
    and later bytes of the client are no error."""
    j = joined('tcp', 'command')
    a, b = j.connect()
    ping(a, b)
    b.shut_read()
    a.send(b'not read')
    rig.quiet(j.relay.pid)
    for _ in range(3):
        b.send(b'z' * 50000)
        assert a.read(50000) == b'z' * 50000
        a.send(b'not read' * 1000)
    b.close()
    wait_for(lambda: not rig.children(j.relay.pid))


@TIMES('source', rig.LISTENERS)
def test_output_without_input_arrives(joined, pool, source):
    """Goal: if a command writes its output and exits without reading its stdin,
    even a slow client gets all of the output. A server that answers "413
    Payload Too Large" does this."""
    j = joined(source, 'command', ['-v'])
    a = j.client(receive_buffer=4096)
    b = j.target.accept()
    ping(a, b)
    b.shut_read()
    with contextlib.suppress(BrokenPipeError):      # a Unix client may get EPIPE
        a.send(b'not read')
    rig.quiet(j.relay.pid)
    words = os.urandom(1 << 20)
    job = pool.submit(lambda: (b.send(words), b.close()))
    got = a.read(4096)
    if source == 'tcp':
        j.relay.says('closed')      # the kernel holds all bytes now
    assert got + a.read_all() == words
    job.result()


def test_grandchild_holds_stdout(relay, tmp):
    """Goal: if a process of the command still has its stdout after the command
    has exited, its output arrives. The connection ends when it exits."""
    os.mkfifo(tmp + '/gate')
    r = relay('127.0.0.1:0', '--', 'sh', '-c',
              'echo one; { read x <%s/gate; echo two; } & exit 0' % tmp)
    a = rig.connect(r.address)
    assert a.read(4) == b'one\n'
    wait_for(lambda: not rig.children(r.pid))
    rig.quiet(r.pid)
    assert a.silent()
    with open(tmp + '/gate', 'w') as f:
        f.write('go\n')
    assert a.read_all() == b'two\n'
    a.close()


def test_stderr_of_commands_passes(relay):
    """Goal: a command has the stderr of relay."""
    r = relay('127.0.0.1:0', '--', 'sh', '-c', 'echo help >&2')
    a = rig.connect(r.address)
    assert a.read_all() == b''
    a.close()
    assert r.says('help') == 'help'


def test_process_group_stays(joined):
    """Goal: a command is in the process group of relay, so that ssh can ask for
    a password on the terminal."""
    j = joined('tcp', 'command')
    _, b = j.connect()
    assert os.getpgid(b.pid) == os.getpgid(j.relay.pid)


def test_signals_of_commands(relay):
    """Goal: a command starts with the signals that relay was started with: none
    is blocked, caught or newly ignored."""
    r = relay('127.0.0.1:0', '--', 'cat', '/proc/self/status')
    a = rig.connect(r.address)
    masks = dict(line.split(b':\t') for line in a.read_all().splitlines()
                 if line.startswith(b'Sig'))
    a.close()
    with open('/proc/self/status') as f:
        own = int(re.search(r'^SigIgn:\s*(\w+)', f.read(), re.M).group(1), 16)
    # Popen restores these two in its children.
    python_ignores = 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1
    assert int(masks[b'SigBlk'], 16) == 0 and int(masks[b'SigCgt'], 16) == 0
    assert int(masks[b'SigIgn'], 16) == own & ~python_ignores


@TIMES('source', ['tcp', 'pipes'])
def test_relay_is_killed(joined, source):
    """Goal: if relay is killed with -9, its commands end too. Where the system
    cannot do this, they read EOF from stdin."""
    j = joined(source, 'command')
    a, b = j.connect()
    ping(a, b)
    j.relay.kill()
    if rig.EXTRAS:
        wait_for(lambda: not rig.alive(b.pid), 3)
    else:
        assert b.read_all() == b''


def test_sigterm_ends_stubborn_commands(joined):
    """Goal: after SIGTERM, relay and its commands end within a few seconds,
    even if the commands ignore SIGTERM."""
    j = joined('tcp', 'command')
    a, b = j.connect()
    ping(a, b)
    b.control.send(b'i')
    assert b.control.recv(1) == b'i'
    assert j.relay.stop(timeout=5) == 0
    assert not rig.alive(b.pid)


def test_command_of_a_client_that_closes_at_once(relay, tmp):
    """Goal: if a client sends bytes and closes at once, the command for it
    still gets the bytes and then EOF."""
    r = relay('-a', '127.0.0.1:0', '--', 'sh', '-c', 'cat >>%s/got; echo end >>%s/got' % (tmp, tmp))
    a = rig.connect(r.address)
    a.send(b'bytes ')
    a.close()
    wait_for(lambda: os.path.exists(tmp + '/got') and open(tmp + '/got').read() == 'bytes end\n')
