"""The files in examples/.  jupyter-slurm runs against the two sshds, with
programs that behave like Slurm's and Jupyter's.  The other files are read by
the programs that they are for.
"""
import os
import re
import shutil
import signal
import stat
import subprocess
import urllib.error
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
assert sys.argv[1:4] == ['--jobid=41', '--overlap', '-u']
home = os.environ['HOME']
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
import http.server, os, signal, socketserver, sys
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
assert sys.argv[1] == 'notebook' and '--no-browser' in sys.argv
token = os.environ['JUPYTER_TOKEN']
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path.endswith('?token=' + token) else 403)
        self.end_headers()
        self.wfile.write(b'the notebook of job ' + os.environ['SLURM_JOB_ID'].encode())
    def log_message(self, *_):
        pass
path, = [word[7:] for word in sys.argv if word.startswith('--sock=')]
server = socketserver.UnixStreamServer(path, Handler)
server.serve_forever()
'''}


class Cluster:
    """The home and the programs of the account there.  start(word, ...) runs
    jupyter-slurm here."""

    def __init__(self, hosts, tmp):
        self.hosts, self.home, self.tmp = hosts, tmp + '/home', tmp
        for path in (self.home, tmp + '/far', tmp + '/near', tmp + '/tmp'):
            os.mkdir(path)
        for name, text in PROGRAMS.items():
            with open('%s/far/%s' % (tmp, name), 'w') as f:
                f.write(text)
            os.chmod(f.name, 0o755)
        os.symlink(rig.RELAY, tmp + '/near/relay')
        self.procs = []

    def start(self, *words):
        self.log = open(self.tmp + '/err', 'w+')
        env = dict(self.hosts.env, FAR_HOME=self.home, FAR_BIN=self.tmp + '/far',
                   TMPDIR=self.tmp + '/tmp', PATH='%s/near:%s' % (self.tmp, self.hosts.env['PATH']))
        self.procs.append(self.hosts.popen(EXAMPLES + '/jupyter-slurm', *words, env=env,
                                           stdin=subprocess.DEVNULL, text=True,
                                           stdout=subprocess.PIPE, stderr=self.log,
                                           start_new_session=True))
        return self.procs[-1]

    def err(self):
        with open(self.tmp + '/err') as f:
            return f.read()

    def left(self):
        """The files that the account has now and had not before, without the
        cache and the files of Slurm."""
        home = set(os.listdir(self.home)) - {'.cache', 'slurm'}
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
