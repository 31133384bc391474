"""One connection per command, over two real sshds that prohibit every kind of
forwarding.
"""
import hashlib
import http.server
import os
import socketserver
import subprocess
import threading

import pytest

import hosts as hosts_room
import rig
from rig import wait_for

if hosts_room.missing():
    pytest.skip(hosts_room.missing(), allow_module_level=True)

pytestmark = pytest.mark.usefixtures('nothing_left_on_the_hosts')

THROUGH_LOGIN = 'ProxyCommand=ssh login relay - %h:%p'
PAGE = b'<p>the notebook</p>' * 1000


@pytest.fixture
def app(tmp):
    """A web server on a Unix socket: / is a page, /endless never ends."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            if self.path == '/':
                self.send_header('Content-Length', str(len(PAGE)))
            self.end_headers()
            self.wfile.write(PAGE)
            try:
                while self.path == '/endless':
                    self.wfile.write(PAGE)
            except OSError:
                server.cut.set()

        def log_message(self, *_):
            pass

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True

        def handle_error(self, *_):
            self.cut.set()

    server = Server(tmp + '/app.sock', Handler)
    server.cut = threading.Event()
    with rig.serving(server):
        yield server


def processes(mark, *names):
    """The marked processes whose command line begins with one of the names."""
    return [line for line in rig.marked(mark).values() if line.startswith(names)]


# ---- what such a site prohibits ----

def test_two_hosts(hosts):
    """Goal: the two hosts of the test have different keys, and `ssh login` and
    `ssh node` reach them."""
    assert hosts.run('ssh', 'login', 'echo $HOST').stdout == 'login\n'
    assert hosts.run('ssh', 'login', 'ssh', 'node', 'echo \\$HOST').stdout == 'node\n'


def test_forwarding_is_prohibited(hosts, target, mark):
    """Goal: ssh -W, -J and -L all fail here."""
    t = target('tcp')
    w = hosts.run('ssh', '-v', '-W', t.words[0], 'login')
    assert w.returncode == 255 and 'prohibited' in w.stderr
    j = hosts.run('ssh', '-v', '-J', 'login', 'node', 'true')
    assert j.returncode == 255 and 'prohibited' in j.stderr
    port = rig.free_port()
    ssh = hosts.popen('ssh', '-v', '-N', '-L', '127.0.0.1:%d:%s' % (port, t.words[0]), 'login',
                      stderr=subprocess.PIPE)
    a = rig.reach('127.0.0.1:%d' % port)
    a.fate()
    a.close()
    # not SIGTERM: just before ssh's poll it has no effect until the next event
    ssh.kill()
    assert b'prohibited' in ssh.communicate()[1]
    assert not t.waiting()


# ---- the same with relay ----

def test_proxycommand_logs_in(hosts):
    """Goal: ssh -o ProxyCommand='ssh login relay - %h:%p' node logs in, and
    returns the remote command's status."""
    r = hosts.run('ssh', '-o', THROUGH_LOGIN, 'node', 'echo $HOST; exit 7')
    assert (r.stdout, r.returncode) == ('node\n', 7), r.stderr


def test_scp_keeps_its_hash(hosts, tmp):
    """Goal: 64 MiB copied there and back with scp through relay keep their
    hash."""
    data = os.urandom(64 << 20)
    with open(tmp + '/data', 'wb') as f:
        f.write(data)
    for there, here in (('node:' + tmp + '/there', tmp + '/data'),
                        (tmp + '/back', 'node:' + tmp + '/there')):
        r = hosts.run('scp', '-q', '-o', THROUGH_LOGIN, here, there)
        assert r.returncode == 0, r.stderr
    with open(tmp + '/back', 'rb') as f:
        assert hashlib.sha256(f.read()).digest() == hashlib.sha256(data).digest()


def test_fdpass(hosts, mark):
    """Goal: with ProxyUseFdpass ssh gets the connected descriptor, and relay
    has exited while the session lasts."""
    ssh = hosts.popen('ssh', '-o', 'ProxyUseFdpass=yes', '-o', 'ProxyCommand=relay -F - %h:%p',
                      'node', 'echo $HOST; cat', stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert ssh.stdout.readline() == b'node\n'
    assert not processes(mark, 'relay -F')
    assert ssh.communicate(b'and so on')[0] == b'and so on'
    assert ssh.returncode == 0


def test_fdpass_that_fails(hosts):
    """Goal: if no process listens, relay logs it and ssh fails at once."""
    r = hosts.run('ssh', '-o', 'ProxyUseFdpass=yes', '-o',
                  'ProxyCommand=relay -F - 127.0.0.1:%d' % rig.free_port(), 'node')
    assert r.returncode == 255
    assert 'relay: ' in r.stderr and 'refused' in r.stderr.lower()


def test_ssh_to_a_unix_socket(hosts, app, tmp):
    """Goal: `ssh login relay - /path/app.sock` carries a request that ends
    with EOF, and the answer."""
    r = hosts.run('ssh', 'login', 'relay', '-', tmp + '/app.sock', stdin=None,
                  input='GET / HTTP/1.0\r\n\r\n')
    assert r.returncode == 0, r.stderr
    assert r.stdout.endswith(PAGE.decode())


def test_errors_come_back(hosts, tmp):
    """Goal: an error of the far relay reaches the user, with its exit status.
    """
    r = hosts.run('ssh', 'login', 'relay', '-', tmp + '/none.sock')
    assert r.returncode == 1
    assert r.stderr.startswith('relay: ') and 'No such file or directory' in r.stderr
    assert r.stdout == ''


def tunnel(relay, hosts, to, *hops):
    """Start relay 0 -- ssh login ssh node relay - TO."""
    words = [word for hop in hops or ('login', 'node') for word in ('ssh', hop)]
    return relay('0', '--', *words, 'relay', '-', to,
                 env=dict(hosts.env, **{rig.MARK: os.environ[rig.MARK]}))


def test_curl_over_two_hosts(relay, hosts, app, tmp, pool):
    """Goal: relay PORT -- ssh login ssh node relay - /path/app.sock serves
    several curls at the same time."""
    r = tunnel(relay, hosts, tmp + '/app.sock')
    jobs = [pool.submit(hosts.run, 'curl', '-sS', 'http://%s/' % address) for address in rig.families(r.address)
            for _ in range(2)]
    for job in jobs:
        assert job.result().stdout == PAGE.decode(), job.result().stderr
    wait_for(lambda: not rig.children(r.pid))


def test_target_ends_first_over_ssh(hosts, target):
    """Goal: EOF from the far side arrives while the client still sends.  sshd
    forwards it only after stdout and stderr are both closed."""
    t = target('unix')
    ssh = hosts.popen('ssh', 'login', 'relay', '-', *t.words, stdin=subprocess.PIPE,
                      stdout=subprocess.PIPE)
    b = t.accept()
    b.send(b'all I had to say')
    b.shut()
    a = rig.End(os.dup(ssh.stdout.fileno()), os.dup(ssh.stdin.fileno()))
    ssh.stdin.close()
    ssh.stdout.close()
    assert a.read_all() == b'all I had to say'
    a.send(b'thanks')
    assert b.read(6) == b'thanks'
    a.shut()
    assert b.read_all() == b''
    b.close()
    assert ssh.wait(rig.PATIENCE) == 0
    a.close()


# ---- nothing is left behind ----

@pytest.mark.parametrize('path', ['/', '/endless'], ids=['waiting', 'busy'])
def test_curl_is_killed(relay, hosts, app, tmp, mark, path):
    """Goal: when curl is killed with SIGKILL, during a transfer or on an idle
    connection, only relay itself is left."""
    r = tunnel(relay, hosts, tmp + '/app.sock')
    curl = hosts.popen('curl', '-sN', 'http://%s%s' % (r.address, path),
                       stdout=subprocess.PIPE)
    assert curl.stdout.read(10)
    curl.kill()
    curl.communicate()
    hosts.wait_for_silence(mark, [r.pid])
    if path == '/endless':
        assert app.cut.wait(2)


stuck_or_not = pytest.mark.parametrize('stuck', [False, True], ids=['idle', 'stuck'])


@stuck_or_not
def test_client_of_a_silent_server_is_killed(relay, hosts, target, mark, stuck):
    """Goal: a client is killed while its server never sends, or never reads.
    ssh and the far relay exit within 2 s.  On macOS, each of the two relays
    checks once a second whether an end that it does not read is gone."""
    t = target('unix')
    r = tunnel(relay, hosts, t.words[0], 'login')
    a = rig.connect(r.address)
    b = t.accept()
    rig.ping(a, b)
    if stuck:
        a.stuff(b'x' * 65536)
    a.reset()
    hosts.wait_for_silence(mark, [r.pid], 5 if rig.MACOS else 2)
    b.close()


@stuck_or_not
def test_client_over_two_hosts_is_killed(relay, hosts, target, mark, stuck):
    """Goal: over two hosts the server sees the end of a killed client.  When
    the server closes, all exit within 2 s."""
    t = target('unix')
    r = tunnel(relay, hosts, t.words[0])
    a = rig.connect(r.address)
    b = t.accept()
    rig.ping(a, b)
    if stuck:
        a.stuff(b'x' * 65536)
    a.reset()
    b.read_all()
    b.close()
    hosts.wait_for_silence(mark, [r.pid])


@stuck_or_not
def test_ssh_is_killed(hosts, target, mark, stuck):
    """Goal: when `ssh login relay - TO` is killed with SIGKILL, the far relay
    exits, even if its target does not read."""
    t = target('unix')
    ssh = hosts.popen('ssh', 'login', 'relay', '-', *t.words, stdin=subprocess.PIPE,
                      stdout=subprocess.PIPE)
    a = rig.End(os.dup(ssh.stdout.fileno()), os.dup(ssh.stdin.fileno()))
    b = t.accept()
    rig.ping(a, b)
    if stuck:
        a.stuff(b'x' * 65536)
    ssh.kill()
    ssh.communicate()
    hosts.wait_for_silence(mark)
    a.close()
    b.close()


def test_ssh_with_proxycommand_is_killed(hosts, mark):
    """Goal: when the ssh that uses relay as ProxyCommand is killed with
    SIGKILL, no process is left on either host."""
    ssh = hosts.popen('ssh', '-o', THROUGH_LOGIN, 'node', 'echo $HOST; cat', stdin=subprocess.PIPE,
                      stdout=subprocess.PIPE)
    assert ssh.stdout.readline() == b'node\n'
    ssh.kill()
    ssh.communicate()
    hosts.wait_for_silence(mark)


def test_local_relay_as_proxycommand_exits(hosts, mark):
    """Goal: a local relay as ProxyCommand exits when its ssh is killed with
    SIGKILL."""
    ssh = hosts.popen('ssh', '-o', 'ProxyCommand=relay - %h:%p', 'node', 'echo $HOST; cat',
                      stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert ssh.stdout.readline() == b'node\n'
    ssh.kill()
    ssh.communicate()
    hosts.wait_for_silence(mark)


def test_relay_is_killed(relay, hosts, target, mark):
    """Goal: when relay is killed with SIGKILL, its ssh and the far relay exit
    although the server is idle.  A system that cannot do that ends them at the
    server's next byte."""
    t = target('unix')
    r = tunnel(relay, hosts, t.words[0], 'login')
    a = rig.connect(r.address)
    b = t.accept()
    rig.ping(a, b)
    r.kill()
    if not rig.EXTRAS:
        assert b.read_all() == b''
        b.send(b'a question')
    hosts.wait_for_silence(mark)
    a.close()
    b.close()


def test_far_relay_is_killed(relay, hosts, target, mark):
    """Goal: when the far relay is killed with SIGKILL, the client's connection
    ends, and the near relay serves the next one."""
    t = target('unix')
    r = tunnel(relay, hosts, t.words[0])
    a = rig.connect(r.address)
    b = t.accept()
    rig.ping(a, b)
    far = [pid for pid, line in rig.marked(mark).items() if line.startswith('relay -')]
    assert len(far) == 1
    os.kill(far[0], 9)
    a.fate()
    r.says('ssh exited with status')
    a2 = rig.connect(r.address)
    b2 = t.accept()
    rig.ping(a2, b2)
    for end in (a, b, a2, b2):
        end.close()


def test_server_dies(hosts, target, mark):
    """Goal: when the server exits, the whole chain ends."""
    t = target('unix')
    ssh = hosts.popen('ssh', 'login', 'relay', '-', *t.words, stdin=subprocess.PIPE,
                      stdout=subprocess.PIPE)
    b = t.accept()
    b.close()
    assert ssh.stdout.read() == b''
    ssh.stdin.close()
    ssh.wait(rig.PATIENCE)
    ssh.stdout.close()
    hosts.wait_for_silence(mark)
