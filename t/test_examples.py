"""The files in examples/ run against the two sshds.

Jupyter, Slurm and Xvnc are the real programs if they are installed.  The fakes of
srun, qsub, kubectl, apptainer and the servers check their arguments, and execute
what they are given.  So they prove that the words arrive, and not that the
program accepts them.  The real kubectl parses its words without a cluster.  The
files that are no scripts are read by the programs that they are for.
"""
import http.server
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import urllib.error
import urllib.parse
import urllib.request

import pytest

import hosts as hosts_room
import rig
from rig import wait_for

EXAMPLES = os.path.join(os.path.dirname(rig.HERE), 'examples')

if hosts_room.missing():
    pytest.skip(hosts_room.missing(), allow_module_level=True)

BARE = True

# ---- a cluster: Slurm's programs with one job, number 41, which starts at the
# second squeue ----

PAGE = '''
import http.server, os, signal, socketserver, sys
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

def option(name):
    value, = [word.split('=', 1)[1] for word in sys.argv if word.startswith(name + '=')]
    return value

def serve(address, page, token=''):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path.endswith('?token=' + token) or not token else 403)
            self.end_headers()
            self.wfile.write(page.encode())
        def log_message(self, *_):
            pass
    unix = isinstance(address, str)
    kind = socketserver.UnixStreamServer if unix else http.server.HTTPServer
    kind(address, Handler).serve_forever()
'''

PROGRAMS = {
    'sbatch': '''#!/bin/sh
[ "$1" = --parsable ] || exit 1
case "$*" in *--wrong*) echo "sbatch: error: unrecognized option" >&2; exit 1 ;; esac
mkdir "$HOME/slurm" && echo "$*" >"$HOME/slurm/words" && cat >"$HOME/slurm/script"
echo "41;cluster"
''',
    'squeue': '''#!/bin/sh
[ "$1 $2 $4 $5" = "-h -o -j 41" ] || exit 1
cd "$HOME/slurm" || exit 1
if [ "$3" = %N ]; then echo node
elif [ -e refused ]; then :
elif [ -e pid ]; then kill -0 "$(cat pid)" 2>/dev/null && echo R
elif [ -e asked ]; then
	cd ..
	SLURM_JOB_ID=41 setsid sh slurm/script >jupyter-41.log 2>&1 </dev/null &
	echo $! >slurm/pid
	echo R
else touch asked; echo PD; fi
''',
    # -u: the task's stdout is a terminal in raw mode, its stdin is a pipe.
    'srun': '''#!/usr/bin/python3
import os, subprocess, sys, termios
home = os.environ['HOME']
if sys.argv[1:4] != ['-u', '-t', '4:00:00']:
    assert sys.argv[1:4] == ['--jobid=41', '--overlap', '-u']
    os.kill(int(open(home + '/slurm/pid').read()), 0)
    open(home + '/slurm/srun', 'w').close()
here, there = os.openpty()
modes = termios.tcgetattr(there)
modes[1] &= ~termios.OPOST
termios.tcsetattr(there, termios.TCSANOW, modes)
task = subprocess.Popen(sys.argv[4:], stdout=there)
os.close(there)
try:
    while True:
        data = os.read(here, 65536)
        while data:
            data = data[os.write(1, data):]
except OSError:
    sys.exit(task.wait())
''',
    'scancel': '''#!/bin/sh
cd "$HOME/slurm" && touch cancelled && [ "$1" = 41 ] && kill -- "-$(cat pid)"
''',
    'jupyter': '''#!/usr/bin/python3
import os, sys
from page import serve, option
assert sys.argv[1] == 'notebook' and '--no-browser' in sys.argv
serve(option('--sock'), 'the notebook of job ' + os.environ.get('SLURM_JOB_ID', 'none'),
      os.environ.get('JUPYTER_TOKEN', ''))
''',
    'page.py': PAGE}


# ---- PBS with one job, number 77, which starts at the second qstat; a pod; the
# servers of the other examples ----

PROGRAMS.update({
    'qsub': '''#!/bin/sh
[ "$*" = "-N relay -j oe -o /dev/null -l walltime=4:00:00" ] || { echo "qsub: $*" >&2; exit 1; }
mkdir -p "$HOME/pbs" && cat >"$HOME/pbs/script" && echo 77.server
''',
    'qstat': '''#!/bin/sh
[ "$*" = "-f 77.server" ] && cd "$HOME/pbs" || exit 1
echo "Job Id: 77.server"
echo "    Job_Name = relay"
if [ -e asked ]; then
	setsid sh script >/dev/null 2>&1 </dev/null & echo $! >pid
	echo "    job_state = R"
	echo "    exec_host = node/0*4+node/1*4"
else touch asked; echo "    job_state = Q"; fi
''',
    'qdel': '''#!/bin/sh
[ "$*" = 77.server ] && cd "$HOME/pbs" && touch deleted && kill "$(cat pid)"
''',
    'kubectl': '''#!/bin/sh
[ "$1 $2 $3 $4" = "exec -i pod --" ] && shift 4 || exit 1
cd "$FAR_HOME" && exec env HOME="$FAR_HOME" PATH="$FAR_BIN:/usr/bin:/bin" "$@"
''',
    'apptainer': '''#!/bin/sh
[ "$1 $2" = "exec --bind=$RELAY_DIR" ] || exit 1
[ "$3" = docker://quay.io/jupyter/minimal-notebook ] && shift 3 && exec "$@"
''',
    'code-server': '''#!/usr/bin/python3
import sys
from page import serve, option
assert sys.argv[1:] == ['--auth=password', '--socket=' + option('--socket'), '--socket-mode=600',
                        '--disable-telemetry', '--disable-update-check']
serve(option('--socket'), 'code-server')
''',
    # python3 with modules that have the interface of TensorBoard and Werkzeug
    'python3': '''#!/bin/sh
PYTHONPATH="${0%/*}/modules" exec /usr/bin/python3 "$@"
''',
    'modules/tensorboard/program.py': '''
import abc
class TensorBoardServer(abc.ABC):
    @abc.abstractmethod
    def __init__(self, wsgi_app, flags): ...
    @abc.abstractmethod
    def serve_forever(self): ...
    @abc.abstractmethod
    def get_url(self): ...
class TensorBoard:
    def __init__(self, plugins=None, assets_zip_provider=None, server_class=None, subcommands=None):
        self.server_class = server_class
    def configure(self, argv):
        self.app = argv
    def main(self):
        server = self.server_class(self.app, None)
        print(server.get_url())
        server.serve_forever()
''',
    'modules/werkzeug/serving.py': '''
import page, types
def make_server(host, port, app, threaded):
    assert host.startswith('unix:///') and threaded and app[:2] == ['tensorboard', '--logdir']
    return types.SimpleNamespace(serve_forever=lambda: page.serve(host[7:], app[2]))
''',
    'modules/page.py': PAGE,
    'modules/tensorboard/__init__.py': '',
    'modules/werkzeug/__init__.py': '',
    # These options are in server-options.json of rstudio.
    'rserver': '''#!/usr/bin/python3
import os, subprocess, sys
from page import serve, option
known = ['server-daemonize', 'server-user', 'server-data-dir', 'server-pid-file',
         'secure-cookie-key-file', 'database-config-file', 'www-socket', 'auth-none',
         'auth-pam-helper-path']
assert sorted(word[2:].split('=')[0] for word in sys.argv[1:]) == sorted(known)
assert option('--auth-none') == '0' and option('--server-daemonize') == '0'
user, helper = option('--server-user'), option('--auth-pam-helper-path')
password = open(os.path.dirname(helper) + '/password').read().strip()
assert len(password) == 24
for given, word, status in ((user, password, 0), (user, 'x', 1), ('x', password, 1)):
    assert subprocess.run([helper, given], input=word, text=True).returncode == status
serve(option('--www-socket'), 'rstudio')
''',
    'desktop': '''#!/bin/sh
xauth list | grep -q "$DISPLAY " && exec sleep 1000
'''})


class Cluster:
    """The home and the programs of the account there.  start(word, ...) runs an
    example here."""

    def __init__(self, hosts, tmp):
        self.hosts, self.home, self.tmp = hosts, tmp + '/home', tmp
        for path in (self.home, tmp + '/far', tmp + '/near', tmp + '/tmp'):
            os.mkdir(path)
        for name, text in PROGRAMS.items():
            os.makedirs(os.path.dirname('%s/far/%s' % (tmp, name)), exist_ok=True)
            with open('%s/far/%s' % (tmp, name), 'w') as f:
                f.write(text)
            os.chmod(f.name, 0o755)
        # A login shell sets PATH again.  That of -- COMMAND has RELAY_DIR.
        with open(self.home + '/.profile', 'w') as f:
            f.write('PATH="%s/far:$PATH"\necho "$RELAY_DIR" >~/.cache/dir\n' % tmp)
        os.symlink(rig.RELAY, tmp + '/near/relay')
        os.symlink(tmp + '/far/kubectl', tmp + '/near/kubectl')
        self.procs = []

    def start(self, *words, example='jupyter-slurm', **env):
        self.log = open(self.tmp + '/err', 'w+')
        env = dict(self.hosts.env, FAR_HOME=self.home, FAR_BIN=self.tmp + '/far',
                   TMPDIR=self.tmp + '/tmp', PATH='%s/near:%s' % (self.tmp, self.hosts.env['PATH']), **env)
        self.procs.append(self.hosts.popen(os.path.join(EXAMPLES, example), *words, env=env,
                                           stdin=subprocess.DEVNULL, text=True,
                                           stdout=subprocess.PIPE, stderr=self.log,
                                           start_new_session=True))
        return self.procs[-1]

    def err(self):
        with open(self.tmp + '/err') as f:
            return f.read()

    def left(self):
        """The files that the account has now and had not before, without the
        cache and the files of Slurm and PBS."""
        home = set(os.listdir(self.home)) - {'.cache', '.profile', 'slurm', 'pbs'}
        return sorted(home) + os.listdir(self.tmp + '/tmp')

    def close(self):
        for p in self.procs:
            if p.poll() is None:
                os.killpg(p.pid, signal.SIGKILL)
            p.wait()
            p.stdout.close()
        self.log.close()


@pytest.fixture
def cluster(hosts, tmp, mark):
    c = Cluster(hosts, tmp)
    yield c
    c.close()
    wait_for(lambda: not hosts.sessions(), 5, 'sessions left on the hosts')


def get(url):
    with urllib.request.urlopen(url, timeout=rig.PATIENCE) as answer:
        return answer.read()


@pytest.mark.parametrize('via', ['srun', 'ssh'])
@pytest.mark.parametrize('end', ['ctrl-c', 'term'])
def test_jupyter_slurm(cluster, via, end):
    """Goal: the job starts, and its page is served.  After SIGTERM nothing is
    left, nor after Ctrl-C, which reaches all processes of the terminal."""
    port = rig.free_port()
    p = cluster.start(*(['-s'] if via == 'ssh' else []), '-p', port, 'login', '--time=1:00', '-p',
                      'gpu')
    url = p.stdout.readline().strip()
    assert re.fullmatch(r'http://(127\.0\.0\.1|localhost|\[::1\]):%d/\?token=[0-9a-f]{48}' % port,
                        url), (url, cluster.err())
    assert get(url) == b'the notebook of job 41'
    with pytest.raises(urllib.error.HTTPError):
        get(url[:-1])
    assert stat.S_IMODE(os.stat(cluster.home + '/.jupyter-41').st_mode) == 0o700
    assert os.path.exists(cluster.home + '/slurm/srun') == (via == 'srun')
    with open(cluster.home + '/slurm/words') as f:
        assert f.read().endswith('--time=1:00 -p gpu\n')
    if end == 'ctrl-c':
        os.killpg(p.pid, signal.SIGINT)
    else:
        p.terminate()
    assert p.wait(rig.PATIENCE) == 130, cluster.err()
    assert 'job 41 is cancelled' in cluster.err()
    wait_for(lambda: not cluster.left(), 5, cluster.left())


def test_cancelled_while_it_waits(cluster):
    """Goal: Ctrl-C before the job runs cancels the job."""
    p = cluster.start('-p', rig.free_port(), 'login')
    wait_for(lambda: os.path.exists(cluster.home + '/slurm/asked'))
    os.killpg(p.pid, signal.SIGINT)
    assert p.wait(rig.PATIENCE) == 130
    assert os.path.exists(cluster.home + '/slurm/cancelled')
    assert not os.listdir(cluster.tmp + '/tmp')
    # ends the squeue that still waits
    open(cluster.home + '/slurm/refused', 'w').close()


def test_sbatch_refuses(cluster):
    p = cluster.start('login', '--wrong')
    assert p.wait(rig.PATIENCE) not in (0, 130)
    assert 'unrecognized option' in cluster.err()
    assert not cluster.left()


def test_job_ends_early(cluster):
    """Goal: a job that leaves the queue without having run is reported."""
    p = cluster.start('login')
    wait_for(lambda: os.path.exists(cluster.home + '/slurm/asked'))
    open(cluster.home + '/slurm/refused', 'w').close()
    assert p.wait(rig.PATIENCE) == 1
    assert 'job 41 has ended; its log is jupyter-41.log on login' in cluster.err()


def test_the_script_is_short():
    with open(EXAMPLES + '/jupyter-slurm') as f:
        assert len(f.readlines()) <= 60


# ---- one command: relay ... -- COMMAND ----

HOPS = {
    'slurm': ['login', 'srun -u -t 4:00:00'],
    'kubernetes': ['kubectl exec -i pod --']}
PAGES = {
    'jupyter': b'the notebook of job none',
    'jupyter-apptainer': b'the notebook of job none',
    'rstudio': b'rstudio',
    'code-server': b'code-server',
    'tensorboard': b'runs',
    'vnc': None}


def is_vnc(port):
    """A VNC server answers, and accepts no client without a password."""
    with socket.create_connection(('localhost', port), rig.PATIENCE) as s, s.makefile('rwb') as f:
        assert f.read(12) == b'RFB 003.008\n'
        f.write(b'RFB 003.008\n')
        f.flush()
        assert f.read(2) == b'\x01\x02'    # one method: VncAuth
        f.write(b'\x02')
        f.flush()
        assert len(f.read(16)) == 16
        f.write(bytes(16))
        f.flush()
        assert f.read(4) == b'\x00\x00\x00\x01'    # refused


def url(cluster, port):
    """The URL of the page, with the token if the example prints one."""
    found = re.search(r'^open (http://localhost:%d/\?token=[0-9a-f]{48})$' % port, cluster.err(), re.M)
    return found[1] if found else 'http://localhost:%d/' % port


@pytest.mark.parametrize('system', ['slurm', 'pbs', 'kubernetes'])
@pytest.mark.parametrize('example', PAGES)
def test_one_command(cluster, example, system):
    """Goal: one command starts the program on the last hop, and its page is
    here.  After Ctrl-C nothing is left there."""
    if example == 'vnc' and not (shutil.which('Xvnc') and shutil.which('vncpasswd')):
        pytest.skip('skipped: no Xvnc: apt-get install tigervnc-standalone-server tigervnc-tools')
    port = rig.free_port()
    words = ['runs'] if example == 'tensorboard' else []
    env = {'PORT': str(port), 'DESKTOP': 'desktop'}
    if system == 'pbs':
        if example != 'jupyter':    # the job starts at once
            os.mkdir(cluster.home + '/pbs')
            open(cluster.home + '/pbs/asked', 'w').close()
        p = cluster.start('login', '-l', 'walltime=4:00:00', '--', EXAMPLES + '/' + example, *words,
                          example='pbs', **env)
    else:
        p = cluster.start(*words, *HOPS[system], example=example, **env)
    assert p.stdout.readline(), cluster.err()
    if example == 'vnc':
        is_vnc(port)
    else:
        assert get(url(cluster, port)) == PAGES[example]
    os.killpg(p.pid, signal.SIGINT)
    assert p.wait(rig.PATIENCE) in (0, 130), cluster.err()
    assert os.path.exists(cluster.home + '/pbs/deleted') == (system == 'pbs')
    with open(cluster.home + '/.cache/dir') as f:
        path = f.read().strip()
    assert path.startswith('/')
    wait_for(lambda: not cluster.left() and not os.path.exists(path), 5, path)


@pytest.mark.parametrize('example', ['README', 'jupyter', 'jupyter-slurm'])
def test_real(cluster, slurm, example):
    """Goal: the real Jupyter in a job of the real Slurm.  The URL that an example
    prints opens it.  With the command of README, the last part of the URL that
    Jupyter prints opens it.  After Ctrl-C there is no job."""
    if not shutil.which('jupyter-notebook'):
        pytest.skip('skipped: no jupyter-notebook')
    conf, run = slurm
    wrapper = '#!/bin/sh\nexec %s "$@"%s\n'
    for name in ('srun', 'sbatch', 'squeue', 'scancel'):
        with open('%s/far/%s' % (cluster.tmp, name), 'w') as f:
            f.write(wrapper % ('env SLURM_CONF=%s /usr/bin/%s' % (conf, name), ''))
    with open(cluster.tmp + '/far/jupyter', 'w') as f:
        f.write(wrapper % ('/usr/bin/jupyter', ' --allow-root'))
    port = rig.free_port()
    if example == 'README':
        p = cluster.start('-L', '%d:@/sock' % port, *HOPS['slurm'], '--', 'jupyter', 'notebook',
                          '--no-browser', '--sock=@/sock', example=rig.RELAY)
        pattern = r'(?:http\+unix://%2F\S*%2Fsock|http://localhost:8888)(/\S*\?token=\w+)'
        page = 'http://localhost:%d%s' % (port, wait_for(lambda: re.search(pattern, cluster.err()))[1])
        assert p.stdout.readline(), cluster.err()
    elif example == 'jupyter':
        p = cluster.start(*HOPS['slurm'], example=example, PORT=str(port))
        assert p.stdout.readline(), cluster.err()
        page = url(cluster, port)
    else:
        p = cluster.start('-p', port, 'login', '--time=1:00')
        page = p.stdout.readline().strip()
    assert run('squeue', '-h', '-o', '%t') == 'R\n', cluster.err()
    assert b'logout' in get(page)
    os.killpg(p.pid, signal.SIGINT)
    p.wait(rig.PATIENCE)
    wait_for(lambda: not run('squeue', '-h'), 10, 'the job is still there')


def test_kubectl(tmp):
    """Goal: the real kubectl splits the hop from the words after it as the fake
    does.  The server here has one pod, and refuses the exec request."""
    if not shutil.which('kubectl'):
        pytest.skip('skipped: no kubectl')
    requests = []

    answers = {
        '/api': {'kind': 'APIVersions', 'versions': ['v1']},
        '/apis': {'kind': 'APIGroupList', 'apiVersion': 'v1', 'groups': []},
        '/api/v1': {'kind': 'APIResourceList', 'groupVersion': 'v1', 'resources': [
            {'name': 'pods', 'namespaced': True, 'kind': 'Pod', 'verbs': ['get']}]},
        '/api/v1/namespaces/default/pods/pod': {
            'kind': 'Pod', 'apiVersion': 'v1', 'metadata': {'name': 'pod', 'namespace': 'default'},
            'spec': {'containers': [{'name': 'c'}]}, 'status': {'phase': 'Running'}}}

    class Api(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            answer = answers.get(self.path.split('?')[0])
            self.send_response(200 if answer else 403)
            self.send_header('Content-Type', 'application/json')
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())
        do_POST = do_GET

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(('127.0.0.1', 0), Api) as server, rig.serving(server):
        subprocess.run(['kubectl', '--server', 'http://127.0.0.1:%d' % server.server_port,
                        *HOPS['kubernetes'][0].split()[1:], 'sh', '-c', 'a b'],
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, timeout=rig.PATIENCE)
    words = urllib.parse.parse_qs(urllib.parse.urlsplit(requests[-1]).query)
    assert '/namespaces/default/pods/pod/exec?' in requests[-1]
    assert words['command'] == ['sh', '-c', 'a b'] and words['stdin'] == ['true']


# ---- the other examples ----

def test_ssh_config(hosts):
    """Goal: ssh accepts the file, and goes through login for the hosts in it.
    """
    for host, proxy in (('node17', True), ('any.cluster', True), ('login', False),
                        ('elsewhere', False)):
        r = subprocess.run(['ssh', '-F', EXAMPLES + '/ssh_config', '-G', host],
                           stdout=subprocess.PIPE, text=True, check=True)
        assert ('proxycommand relay -W %h:%p login' in r.stdout) == proxy, host
    r = subprocess.run(['ssh', '-F', EXAMPLES + '/ssh_config', '-G', 'any.inner'],
                       stdout=subprocess.PIPE, text=True, check=True)
    assert 'proxycommand relay -J login -W %h:%p gate' in r.stdout


@pytest.fixture
def plain_hosts():
    """Hosts without ForceCommand, so that command= in authorized_keys has
    an effect."""
    h = hosts_room.Hosts(names=('login',))
    yield h
    wait_for(lambda: not h.sessions(), 5, 'sessions left on the host')
    h.close()


def test_authorized_keys(plain_hosts, tmp, target):
    """Goal: the key of the example reaches its socket and nothing else, with a
    tunnel and with -m."""
    t, other = target('unix'), target('unix')
    path = plain_hosts.dir + '/user.key.pub'
    with open(path) as f:
        key = ' '.join(f.read().split()[:2])
    with open(EXAMPLES + '/authorized_keys') as f:
        line = f.read().splitlines()[-1]
    with open(path, 'w') as f:
        # the host has relay in its PATH, and not in the home of this user
        line = line.replace('bin/relay', 'relay').replace('/home/me/app.sock', t.path)
        f.write(line.replace('ssh-ed25519 AAAA... me@laptop', key) + '\n')
    for words in (['-L', '127.0.0.1:0:' + t.path, 'login'],
                  ['-m', '127.0.0.1:0', '--', 'ssh', 'login'],
                  ['-m', '127.0.0.1:0', '--', 'ssh', 'login', 'relay', '-m', '-', other.path]):
        p = plain_hosts.popen(rig.RELAY, *words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)
        try:
            address = p.stdout.readline().strip()
            assert address, p.stderr.read()
            a = rig.connect(address)
            b = t.accept()
            rig.ping(a, b)
            a.close()
            b.close()
        finally:
            p.terminate()
            p.communicate(timeout=rig.PATIENCE)
    p = plain_hosts.popen(rig.RELAY, '-L', '127.0.0.1:0:' + other.path, 'login',
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True)
    try:
        address = p.stdout.readline().strip()
        assert not address or rig.fate_at(address) in ('reset', 'end')
    finally:
        p.terminate()
        p.communicate(timeout=rig.PATIENCE)
    assert 'a shell' not in plain_hosts.run('ssh', 'login', 'echo a shell', errors='replace').stdout
    assert not other.waiting()


def test_systemd_unit():
    if not shutil.which('systemd-analyze'):
        pytest.skip('skipped: no systemd-analyze: apt-get install systemd')
    r = subprocess.run(['systemd-analyze', '--user', '--man=no', 'verify',
                        EXAMPLES + '/relay@.service'], stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, text=True, timeout=rig.PATIENCE,
                       env=dict(os.environ, XDG_RUNTIME_DIR='/tmp', HOME='/tmp'))
    assert 'relay@' not in r.stdout, r.stdout
