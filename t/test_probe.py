"""-n: each step of a tunnel tried and reported, over the two hosts that prohibit forwarding and have no relay."""
import os
import re

import pytest

import hosts as hosts_room
import rig

if hosts_room.missing():
    pytest.skip(hosts_room.missing(), allow_module_level=True)

BARE = True
pytestmark = pytest.mark.usefixtures('nothing_left_on_the_hosts')


@pytest.fixture
def examine(hosts, tmp, mark):
    """examine(word, ...): relay -n, to its end; the home there is a new one."""
    os.mkdir(tmp + '/home')
    os.mkdir(tmp + '/bin')

    def run(*words):
        r = hosts.run(rig.RELAY, '-n', *words, env={'FAR_HOME': tmp + '/home', 'FAR_BIN': tmp + '/bin'})
        assert 'relay::' not in r.stdout
        assert all(re.match(r'(ok|FAIL|note) +\S', line) for line in r.stdout.splitlines()), r.stdout
        return r
    return run


def says(r, verdict, hop, words):
    assert re.search(r'^%s +%s: .*%s' % (verdict, re.escape(hop), words), r.stdout, re.M), (verdict, hop, words, r.stdout, r.stderr)


def test_all_is_well(examine, target):
    """Goal: two hops, a socket and a port that answer, a port there to listen on: a line for each step, status 0, nothing listens."""
    unix, tcp = target('unix'), target('tcp')
    r = examine('-L', '8888:' + unix.path, '-L', '8889:' + tcp.words[0], '-R', '0:localhost:1', 'login', 'node')
    for hop in ('login', 'node'):
        says(r, 'ok', hop, 'reached in [0-9]+ ms')
        says(r, 'ok', hop, 'round trip [0-9.]+ ms')
        says(r, 'ok', hop, 'all byte values pass, both ways')
    says(r, 'ok', 'node', 'a relay runs there')
    says(r, 'ok', 'node', 'the target %s answers' % unix.path)
    says(r, 'ok', 'node', 'the target %s answers' % tcp.words[0])
    says(r, 'ok', 'node', 'listening on 0 works')
    assert r.returncode == 0 and 'FAIL' not in r.stdout


def test_target_is_not_there(examine, tmp):
    """Goal: the link stands and the target does not answer: that line fails, the cause is on stderr, status 1."""
    r = examine('-L', '8888:%s/none.sock' % tmp, 'login')
    says(r, 'ok', 'login', 'a relay runs there')
    says(r, 'FAIL', 'login', 'none.sock does not answer')
    assert r.returncode == 1 and 'No such file' in r.stderr


@pytest.mark.parametrize('hops, hop', ((('nowhere',), 'nowhere'), (('login', 'nowhere'), 'nowhere')))
def test_unknown_host(examine, hops, hop):
    """Goal: the hop that cannot be reached is the one that is named, those before it are reported as reached; status 7."""
    r = examine('-L', '8888:/a', *hops)
    for good in hops[:-1]:
        says(r, 'ok', good, 'all byte values pass')
    says(r, 'FAIL', hop, 'Could not resolve')
    assert r.returncode == 7


@pytest.mark.parametrize('hops', [('locked',), ('login', 'locked'), ('nowhere',), ('login', 'nowhere')])
def test_same_words_as_a_tunnel(examine, hosts, hops):
    """Goal: where a hop cannot be reached, -n gives cause and remedy in the words of the tunnel itself."""
    r, tunnel = examine('-L', '8888:/a', *hops), hosts.run(rig.RELAY, '-L', '127.0.0.1:0:/a', *hops)
    cause = re.search('cannot reach .*?%s: (.*)' % hops[-1], tunnel.stderr).group(1)
    says(r, 'FAIL', hops[-1], re.escape(cause) + '$')
    assert (hops == ('locked',)) == ('; ' not in cause), cause


def test_many_words_on_stderr(examine, tmp):
    """Goal: behind a long warning the last line of stderr is still the cause, whole, with its remedy."""
    with open(tmp + '/wordy', 'w') as f:
        f.write('printf "%0600d\\n" 1 2 3 >&2; printf "Host key verification failed.\\r\\n" >&2; exec >&-; exit 255\n')
    r = examine('-L', '8888:/a', 'sh %s/wordy' % tmp)
    says(r, 'FAIL', 'sh %s/wordy' % tmp, 'Host key verification failed.; log in by hand once, and accept the key$')


def test_terminal(examine):
    """Goal: a terminal in the way is named; status 7."""
    r = examine('-L', '8888:/a', 'ssh -tt login')
    says(r, 'FAIL', 'ssh -tt login', 'terminal')
    assert r.returncode == 7


def test_noise(examine, tmp):
    """Goal: what a shell prints at its start is shown, plain, and passes."""
    with open(tmp + '/noisy', 'w') as f:
        f.write('printf "\\033[31mwelcome"\nexec "$@"\n')
    r = examine('-L', '8888:%s/none.sock' % tmp, 'sh %s/noisy' % tmp)
    says(r, 'note', 'sh %s/noisy' % tmp, r'12 bytes first.*welcome')
    says(r, 'ok', 'sh %s/noisy' % tmp, 'all byte values pass')
    assert '\033' not in r.stdout


def test_line_that_changes_bytes(examine, tmp):
    """Goal: a line that is not clean on its way back is found out; status 7."""
    with open(tmp + '/back', 'w') as f:
        f.write('"$@" | stdbuf -o0 tr -d "\\r"\n')
    r = examine('-L', '8888:/a', 'sh %s/back' % tmp)
    says(r, 'FAIL', 'sh %s/back' % tmp, 'come back unchanged')
    assert r.returncode == 7


@pytest.mark.parametrize('words', [(), ('-L', '0:/a'), ('-D', '0')], ids=' '.join)
def test_nothing_listens(examine, tmp, words):
    """Goal: with forwards or without, relay -n gets as far as the link, and has no listening socket here."""
    with open(tmp + '/look', 'w') as f:
        f.write('ls -l /proc/$PPID/fd >>%s/fds\ncat /proc/net/tcp /proc/net/tcp6 >>%s/net\nexec "$@"\n' % (tmp, tmp))
    r = examine(*words, 'sh %s/look' % tmp)
    assert 'a relay runs there' in r.stdout, r.stderr
    assert r.returncode == (1 if '0:/a' in words else 0)
    with open(tmp + '/fds') as fds, open(tmp + '/net') as net:
        ours = set(re.findall(r'socket:\[(\d+)\]', fds.read()))
        listening = {line.split()[9] for line in net.read().splitlines() if line.split()[3] == '0A'}
    assert ours & listening == set()


def test_words(run):
    """Goal: -n without hops, and with -f, is a usage error."""
    for words in (('-n',), ('-n', '-f', '-L', '1:/a', 'login')):
        assert run(*words).returncode == 2
