"""relay -m over two real sshds that prohibit every kind of forwarding: one
login carries all streams.
"""
import contextlib
import hashlib
import http.server
import os
import socketserver
import threading

import pytest

import hosts as hosts_room
import rig
from rig import wait_for

if hosts_room.missing():
    pytest.skip(hosts_room.missing(), allow_module_level=True)

pytestmark = pytest.mark.usefixtures('nothing_left_on_the_hosts')

MIB = 1 << 20
AT_ONCE = 200
# RELAY_MIB=1024 sends 1 GiB, in half a minute
EACH_WAY = int(os.environ.get('RELAY_MIB', 256)) * MIB


@pytest.fixture
def link(hosts, relay):
    """link(TO, hop, ...) starts: relay -m 0 -- ssh login ssh node relay -m -
    TO"""
    def start(to, *hops, near='127.0.0.1:0'):
        words = [word for hop in hops or ('login', 'node') for word in ('ssh', hop)]
        return relay('-m', near, '--', *words, 'relay', '-m', '-', to,
                     env=dict(hosts.env, **{rig.MARK: os.environ[rig.MARK]}))
    return start


def page(i):
    """The i-th page; each has its own length and its own bytes."""
    return hashlib.sha256(b'%d' % i).digest() * (1 + i * 37 % 4096)


@pytest.fixture
def app(tmp):
    """A web server on a Unix socket that answers when AT_ONCE requests have
    arrived."""
    together = threading.Barrier(AT_ONCE)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            together.wait(rig.PATIENCE)
            data = page(int(self.path[1:]))
            self.send_response(200)
            self.send_header('Content-Length', str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True
        request_queue_size = 1024

    server = Server(tmp + '/app.sock', Handler)
    with rig.serving(server):
        yield server


def logins(hosts):
    return hosts.log('login').count('Accepted publickey')


def test_curls_at_once(link, hosts, app, tmp):
    """Goal: 200 curls at the same time work through one login on each host,
    and every page has the right hash."""
    before = logins(hosts)
    r = link(tmp + '/app.sock')
    c = hosts.run('curl', '-sS', '-Z', '--parallel-immediate', '--parallel-max', AT_ONCE, '-o',
                  tmp + '/page#1', 'http://%s/[0-%d]' % (r.address, AT_ONCE - 1))
    assert c.returncode == 0, c.stderr
    for i in range(AT_ONCE):
        with open('%s/page%d' % (tmp, i), 'rb') as f:
            assert hashlib.sha256(f.read()).digest() == hashlib.sha256(page(i)).digest(), i
    assert logins(hosts) == before + 1
    assert not r.err()


def feed(end, size):
    """Send size bytes and EOF; every MiB differs.  Return the number of bytes
    and their hash, as End.digest does."""
    noise, h = os.urandom(MIB), hashlib.sha256()
    for i in range(size // MIB):
        piece = i.to_bytes(8, 'big') + noise[8:]
        h.update(piece)
        end.send(piece)
    end.shut()
    return size, h.hexdigest()


def test_both_ways_at_once(link, target, pool):
    """Goal: large amounts arrive in both directions at the same time over two
    hosts."""
    t = target('unix')
    r = link(t.words[0])
    a = rig.connect(r.address)
    b = t.accept()
    received = [pool.submit(end.digest) for end in (b, a)]
    sent = [pool.submit(feed, end, EACH_WAY) for end in (a, b)]
    assert [job.result() for job in received] == [job.result() for job in sent]
    a.close()
    b.close()
    assert not r.err()


def test_half_close_over_two_hosts(link, target):
    """Goal: EOF from the far side crosses two hosts while the client keeps
    sending.  One command per connection cannot do that."""
    t = target('unix')
    r = link(t.words[0])
    a = rig.connect(r.address)
    b = t.accept()
    rig.half_closes(a, b)
    a.close()
    b.close()


def test_stdio_link_as_a_proxycommand(hosts, tmp):
    """Goal: a link with one stream works as ssh's ProxyCommand."""
    port = hosts.run('ssh', '-G', 'node').stdout.split('\nport ')[1].split()[0]
    r = hosts.run('ssh', '-o',
                  'ProxyCommand=relay -m - -- ssh login relay -m - 127.0.0.1:%s' % port, 'node',
                  'echo $HOST; exit 7')
    assert (r.stdout, r.returncode) == ('node\n', 7), r.stderr


def test_no_target_over_two_hosts(link, tmp):
    """Goal: if the target does not exist, its client is reset and near logs
    the cause."""
    r = link(tmp + '/none.sock')
    assert rig.fate_at(r.address) == 'reset'
    assert tmp + '/none.sock: No such file' in r.says('No such file')


def test_start_fails(relay, hosts, tmp):
    """Goal: a failure of ssh, a missing relay and a terminal between the hops
    have different messages; the status is 7."""
    env = dict(hosts.env, **{rig.MARK: os.environ[rig.MARK]})
    for words, expected in ((['ssh', '-p', '1', 'login', 'relay', '-m', '-'],
                             'ssh could not connect'),
                        (['ssh', 'login', 'no-such-relay', '-m', '-'],
                         'the far command was not found'),
                        (['ssh', '-tt', 'login', 'relay', '-m', '-'], 'the line changes bytes'),
                        (['ssh', 'login', 'cat'], 'sends back'),
                        (['ssh', 'login', 'true'], 'without a sign of a relay')):
        r = relay('-m', '127.0.0.1:0', '--', *words, env=env)
        assert r.wait() == 7, (words, r.err())
        assert r.proc.stdout.read() == b''
        assert expected in r.err(), (words, r.err())


def test_term(link, target, hosts, mark):
    """Goal: 2 s after SIGTERM to near no process is left on any host.  The
    status is 0 and nothing is logged."""
    t = target('unix')
    r = link(t.words[0])
    a = rig.connect(r.address)
    b = t.accept()
    rig.ping(a, b)
    assert r.stop(timeout=2) == 0
    hosts.wait_for_silence(mark)
    assert a.fate() == 'reset'
    assert b.fate() == 'end'
    assert not r.err(), r.err()
    a.close()
    b.close()


# ---- a process of the chain is killed ----

def pump(end):
    with contextlib.suppress(OSError):
        while True:
            end.send(bytes(65536))


def drain(end):
    with contextlib.suppress(OSError):
        while end.recv():
            pass


def victims(hosts, near, mark):
    """The processes of a working link: {name: pid}."""
    lines = rig.marked(mark)
    found = {'near': near.pid}
    for pid, line in lines.items():
        if line.startswith('relay -m -'):
            found['far'] = pid
        elif ' login ' in line and 'ssh' in line.split()[0] and pid != near.pid:
            found['ssh'] = pid
        elif ' node ' in line and ' login ' not in line and 'ssh' in line.split()[0] \
                and not line.startswith('sh'):
            found['inner ssh'] = pid
    for name, daemon in hosts.daemons.items():
        found['sshd of ' + name], = rig.children(daemon.pid)
    return found


WHO = ('near', 'ssh', 'sshd of login', 'inner ssh', 'sshd of node', 'far')


@pytest.mark.parametrize('who, stuck',
                         [(who, False) for who in WHO] + [('near', True), ('inner ssh', True)])
def test_killed(link, target, hosts, mark, who, stuck):
    """Goal: any process of the chain is killed with SIGKILL during a transfer,
    running or stuck.  Within 2 s no process is left on either host.  The local
    client is reset, the target sees the end, and near's status is 7."""
    t = target('unix')
    r = link(t.words[0])
    a = rig.connect(r.address)
    b = t.accept()
    threads = []
    rig.ping(a, b)
    if stuck:
        a.stuff(bytes(65536))
        b.stuff(bytes(65536))
    else:
        threads = [threading.Thread(target=f, args=(end,))
                   for f, end in ((pump, a), (pump, b), (drain, b))]
        for thread in threads:
            thread.start()
        a.read(4 * MIB)
    chain = victims(hosts, r, mark)
    assert len(chain) == 6, (chain, rig.marked(mark))
    os.kill(chain[who], 9)
    wait_for(lambda: r.proc.poll() is not None, 2, 'near still runs; stderr: ' + r.err())
    hosts.wait_for_silence(mark)
    assert a.gone()
    if who != 'near':
        assert r.wait() == 7, r.err()
        assert 'the link to ' in r.err(), r.err()
        if not threads:
            assert a.fate() == 'reset'
    for thread in threads:
        thread.join(rig.PATIENCE)
        assert not thread.is_alive()
    if stuck:
        b.fate()
    a.close()
    b.close()
