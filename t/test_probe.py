"""relay -n: over two hosts that prohibit forwarding and have no relay."""
import os
import re
import signal
import subprocess

import pytest

import hosts as hosts_room
import rig

if hosts_room.missing():
    pytest.skip(hosts_room.missing(), allow_module_level=True)

BARE = True
pytestmark = pytest.mark.usefixtures('nothing_left_on_the_hosts')


@pytest.fixture
def probe(hosts, tmp, mark):
    """probe(word, ...): run relay -n to its end. The home directory on the
    hosts is empty at first."""
    os.mkdir(tmp + '/home')
    os.mkdir(tmp + '/bin')

    def run(*words):
        r = hosts.run(rig.RELAY, '-n', *words, env={'FAR_HOME': tmp + '/home', 'FAR_BIN': tmp + '/bin'})
        assert 'relay::' not in r.stdout
        assert all(re.match(r'(ok|FAIL|note) +\S', line) for line in r.stdout.splitlines()), r.stdout
        return r
    return run


@pytest.fixture
def hop(tmp):
    """hop(script) makes a hop that runs the script. The rest of the command is
    the script's arguments."""
    def make(script):
        path = '%s/hop%d' % (tmp, len(os.listdir(tmp)))
        with open(path, 'w') as f:
            f.write(script)
        return 'sh ' + path
    return make


def reports(r, verdict, hop, words):
    pattern = r'^%s +%s: .*%s' % (verdict, re.escape(hop), words)
    assert re.search(pattern, r.stdout, re.M), (verdict, hop, words, r.stdout, r.stderr)


def test_all_is_well(probe, target):
    """Goal: over two hops, each step, target and listener is reported as ok.
    The status is 0."""
    unix, tcp = target('unix'), target('tcp')
    r = probe('-L', '8888:' + unix.path, '-L', '8889:' + tcp.words[0], '-R', '0:localhost:1', 'login', 'node')
    for hop in ('login', 'node'):
        reports(r, 'ok', hop, 'reached in [0-9]+ ms')
        reports(r, 'ok', hop, 'a relay runs there.* on the host %s: /' % re.escape(os.uname().nodename))
        reports(r, 'ok', hop, 'round trip [0-9.]+ ms')
        reports(r, 'ok', hop, 'all byte values pass, both ways')
    reports(r, 'ok', 'node', 'the target %s answers' % unix.path)
    reports(r, 'ok', 'node', 'the target %s answers' % tcp.words[0])
    reports(r, 'ok', 'node', 'listening on 0 works')
    assert r.returncode == 0 and 'FAIL' not in r.stdout


def test_copy_is_reported(probe):
    """Goal: the report shows whether relay was copied to the hop or was there.
    """
    copied = 'a relay runs there, copied just now'
    first, second = probe('login'), probe('login')
    reports(first, 'ok', 'login', copied)
    assert copied not in second.stdout
    assert first.returncode == second.returncode == 0


def test_report_that_cannot_be_written(hosts, tmp):
    """Goal: if stdout is full, the status is 6."""
    with open('/dev/full', 'w') as full:
        r = subprocess.run([rig.RELAY, '-n', '-e', 'ssh -F %s/config' % hosts.dir, 'login'],
                           stdout=full, stderr=subprocess.PIPE, text=True,
                           env=dict(os.environ, FAR_HOME=tmp, FAR_BIN=tmp))
    assert r.returncode == 6 and 'cannot write the report' in r.stderr, r.stderr


def test_missing_target(probe, tmp):
    """Goal: if a target does not answer, its line fails, and the cause is on
    stderr. The status is 1."""
    r = probe('-L', '8888:%s/none.sock' % tmp, 'login')
    reports(r, 'ok', 'login', 'a relay runs there')
    reports(r, 'FAIL', 'login', 'none.sock does not answer')
    assert r.returncode == 1 and 'No such file' in r.stderr


@pytest.mark.parametrize('hops, hop', ((('nowhere',), 'nowhere'), (('login', 'nowhere'), 'nowhere')))
def test_unknown_host(probe, hops, hop):
    """Goal: the hop that cannot be reached is reported, and those before it as
    reached. The status is 7."""
    r = probe('-L', '8888:/a', *hops)
    for good in hops[:-1]:
        reports(r, 'ok', good, 'all byte values pass')
    reports(r, 'FAIL', hop, 'Could not resolve')
    assert r.returncode == 7


@pytest.mark.parametrize('hops', [('locked',), ('login', 'locked'), ('nowhere',), ('login', 'nowhere')])
def test_same_words_as_a_tunnel(probe, hosts, hops):
    """Goal: if a hop cannot be reached, -n reports the cause that the tunnel
    logs, with a remedy.  The tunnel may not find out which hop it is."""
    r, tunnel = probe('-L', '8888:/a', *hops), hosts.run(rig.RELAY, '-L', '127.0.0.1:0:/a', *hops)
    cause = re.search('cannot reach .*?%s: ([^;]*; )' % hops[-1], tunnel.stderr).group(1)
    reports(r, 'FAIL', hops[-1], 'cannot reach %s: %s' % (hops[-1], re.escape(cause)))
    assert 'relay -n' not in r.stdout and cause not in r.stderr


def test_many_words_on_stderr(probe, hop):
    """Goal: after a long warning, the last line of stderr is still the cause.
    It is whole and has its remedy.  The status is 8."""
    wordy = hop('printf "%0600d\\n" 1 2 3 >&2; printf "Host key verification failed.\\r\\n" >&2; exec >&-; exit 255\n')
    r = probe('-L', '8888:/a', wordy)
    reports(r, 'FAIL', wordy, 'Host key verification failed; log in by hand once: ssh asks about a new key, .*$')
    assert r.returncode == 8


def test_terminal(probe):
    """Goal: a terminal on the way is reported. The status is 7."""
    r = probe('-L', '8888:/a', 'ssh -tt login')
    reports(r, 'FAIL', 'ssh -tt login', 'terminal')
    assert r.returncode == 7


def test_banner(probe, hop, tmp):
    """Goal: what a shell prints at its start is reported, without control
    characters, and does no harm."""
    noisy = hop('printf "\\033[31mwelcome"\nexec "$@"\n')
    r = probe('-L', '8888:%s/none.sock' % tmp, noisy)
    reports(r, 'note', noisy, r'12 bytes first.*welcome')
    reports(r, 'ok', noisy, 'all byte values pass')
    assert '\033' not in r.stdout


# CR is a part of the magic. The byte 250 (octal) is in no frame that the start
# of a link needs.
@pytest.mark.parametrize('filter, words', [
    (r'"$@" | stdbuf -o0 tr -d "\r"', 'the line changes bytes'),
    (r'stdbuf -o0 tr -d "\r" | "$@"',
     'not all byte values come back|.*does the line change bytes'),
    (r'"$@" | stdbuf -o0 tr "\250" "\251"', 'not all byte values come back unchanged'),
    (r'stdbuf -o0 tr "\250" "\251" | "$@"', 'not all byte values come back unchanged'),
    (r'stdbuf -o0 tr -d "\250" | "$@"',
     'not all byte values come back|.*does the line change bytes'),
], ids=('CR back', 'CR there', 'changed back', 'changed there', 'lost there'))
def test_line_that_changes_bytes(probe, hop, tmp, filter, words):
    """Goal: a line that changes one byte value, in either direction, is
    reported. The status is 7."""
    os.symlink(rig.RELAY, tmp + '/bin/relay')
    changing = hop('PATH=%s/bin:$PATH\n%s\n' % (tmp, filter))
    r = probe('-L', '8888:/a', changing)
    reports(r, 'ok', changing, 'reached in')
    reports(r, 'FAIL', changing, words)
    assert r.returncode == 7


def test_hop_that_can_run_no_relay(probe, hop, tmp):
    """Goal: a hop before the last one needs no relay. The cause is a note, and
    the next hop is tested. If the last hop can run no relay, that is a failure
    with the cause."""
    bare = hop('unset XDG_RUNTIME_DIR TMPDIR\nHOME=/proc/none PATH=%s:$PATH exec "$@"\n' % (tmp + '/bin'))
    with open(tmp + '/bin/mkdir', 'w') as f:
        f.write('#!/bin/sh\n[ "$HOME" != /proc/none ] && PATH=/usr/bin:/bin exec mkdir "$@"\necho no room >&2; exit 1\n')
    os.chmod(tmp + '/bin/mkdir', 0o755)
    r = probe(bare, 'env HOME=%s/home' % tmp)
    reports(r, 'ok', bare, 'reached in')
    reports(r, 'note', bare, 'relay is not installed there, and no directory')
    reports(r, 'note', bare, 'not tested')
    reports(r, 'ok', 'env HOME=%s/home' % tmp, 'all byte values pass')
    assert r.returncode == 0
    r = probe('env A=B', bare)
    reports(r, 'ok', 'env A=B', 'all byte values pass')
    reports(r, 'FAIL', bare, 'relay is not installed there, and no directory')
    assert r.returncode == 7


def test_signal(hosts, hop, tmp):
    """Goal: a signal ends the run, also between two hops. The status is 7."""
    silent = hop('cat >/dev/null\n')
    r = hosts.popen(rig.RELAY, '-n', 'env HOME=%s' % tmp, silent)
    rig.wait_for(lambda: any(silent.split()[1] in rig.command_line(pid) for pid in rig.children(r.pid)))
    r.send_signal(signal.SIGTERM)
    assert r.wait(rig.PATIENCE) == 7


@pytest.mark.parametrize('words', [(), ('-L', '0:/a'), ('-D', '0')], ids=' '.join)
def test_nothing_listens(probe, hop, tmp, words):
    """Goal: with forwards and without, relay -n makes the link and has no
    listening socket here."""
    look = hop('ls -l /proc/$PPID/fd >>%s/fds\ncat /proc/net/tcp /proc/net/tcp6 >>%s/net\nexec "$@"\n' % (tmp, tmp))
    r = probe(*words, look)
    assert 'a relay runs there' in r.stdout, r.stderr
    assert r.returncode == (1 if '0:/a' in words else 0)
    with open(tmp + '/fds') as fds, open(tmp + '/net') as net:
        ours = set(re.findall(r'socket:\[(\d+)\]', fds.read()))
        listening = {line.split()[9] for line in net.read().splitlines() if line.split()[3] == '0A'}
    assert ours & listening == set()


def test_usage(run):
    """Goal: -n without hops and -n with -f are usage errors."""
    for words in (('-n',), ('-n', '-f', '-L', '1:/a', 'login')):
        assert run(*words).returncode == 2
