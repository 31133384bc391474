"""Fixtures.  rig.py has the classes that they return.

After each test, every process, socket and pid file that the test made must be
gone.  A test's processes carry a mark in their environment, and /proc is
searched for that mark.
"""
import concurrent.futures
import fcntl
import glob
import itertools
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True

import pytest

import hosts as hosts_room
import rig
import slurm as slurm_room

counter = itertools.count()
# the directory of the locks that the workers of pytest -n share
TURNS = 'RELAY_TEST_TURNS'


def pytest_configure(config):
    config.addinivalue_line('markers', 'alone: measures time, and runs beside no other test')
    if not os.access(rig.RELAY, os.X_OK):
        pytest.exit('no binary at %s: set RELAY' % rig.RELAY, 4)
    os.environ['RELAY_KEEP'] = '0'    # the tests of sessions remove it
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # nohup and `&` start the tests with these signals ignored, and relay would
    # leave them ignored
    for sig in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(sig) == signal.SIG_IGN:
            signal.signal(sig, signal.SIG_DFL)
    if not hasattr(config, 'workerinput'):
        os.environ[TURNS] = tempfile.mkdtemp(prefix='relay-turns')


def pytest_unconfigure(config):
    if not hasattr(config, 'workerinput') and TURNS in os.environ:
        shutil.rmtree(os.environ.pop(TURNS))


@pytest.fixture(autouse=True)
def turn(request):
    """A test marked `alone` waits until the tests of all other workers have
    ended.  Later tests wait until it has ended."""
    with open(os.environ[TURNS] + '/next', 'w') as queue, \
        open(os.environ[TURNS] + '/room', 'w') as room:
        fcntl.flock(queue, fcntl.LOCK_EX)
        fcntl.flock(room,
                    fcntl.LOCK_EX if request.node.get_closest_marker('alone') else fcntl.LOCK_SH)
        fcntl.flock(queue, fcntl.LOCK_UN)
        yield


@pytest.fixture(scope='session', autouse=True)
def findings():
    """The prefix of the files to which AddressSanitizer or valgrind writes its
    findings.  A file is needed because stderr of some processes is not read."""
    if not rig.SANITIZED and not rig.VALGRIND:
        yield None
        return
    path = tempfile.mkdtemp(prefix='relay-findings', dir='/tmp')
    os.chmod(path, 0o1777)
    for name in rig.SANITIZER_OPTIONS:
        os.environ[name] = '%s:log_path=%s/found:exitcode=99:print_stacktrace=1' \
            % (os.environ.get(name, ''), path)
    os.environ['VALGRIND_OPTS'] = '--log-file=%s/found.%%p' % path
    yield path + '/found'
    shutil.rmtree(path)


@pytest.fixture
def lean(monkeypatch):
    """For tests that measure memory: the sanitizers return freed memory at
    once."""
    monkeypatch.setenv('ASAN_OPTIONS',
                       os.environ.get('ASAN_OPTIONS', '') +
                       ':quarantine_size_mb=0:thread_local_quarantine_size_kb=0')


@pytest.fixture(autouse=True)
def deadline(turn):
    """A test fails when it takes more than 90 s."""
    def late(*_):
        raise AssertionError('the test took more than 90 s')
    signal.signal(signal.SIGALRM, late)
    signal.alarm(90)
    yield
    signal.alarm(0)


@pytest.fixture(scope='session')
def home():
    """The home of relays, so that their control sockets and logs are not those
    of the user."""
    path = tempfile.mkdtemp(prefix='rhome', dir='/tmp')
    os.chmod(path, 0o1777)
    yield path
    shutil.rmtree(path)


@pytest.fixture(autouse=True)
def mark(turn, monkeypatch, findings, home):
    """Mark the processes of this test.  At its end no marked process may be
    left, and the sanitizers must have found nothing in any of them."""
    name = '%d.%d' % (os.getpid(), next(counter))
    monkeypatch.setenv(rig.MARK, name)
    monkeypatch.setenv('HOME', home)
    monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
    yield name
    try:
        rig.wait_for(lambda: not rig.marked(name), 5)
    except AssertionError:
        left = rig.marked(name)
        for pid in left:
            rig.kill(pid, signal.SIGKILL)
        pytest.fail('processes left behind: %s' % left)
    found = ''
    for path in glob.glob(findings + '.*') if findings else ():
        with open(path, errors='replace') as f:
            found += rig.findings_in(f.read())
        os.unlink(path)
    assert not found, found


@pytest.fixture
def tmp():
    """A directory with a short path.  At the end it may hold no socket and no
    pid file."""
    path = tempfile.mkdtemp(prefix='r', dir='/tmp')
    os.chmod(path, 0o755)
    yield path
    left = [os.path.join(d, f) for d, _, files in os.walk(path) for f in files]
    left = [f for f in left if f.endswith('.pid') or stat.S_ISSOCK(os.lstat(f).st_mode)]
    shutil.rmtree(path)
    assert not left, 'files left behind'


@pytest.fixture(scope='session')
def logs():
    """The directory for relay's stderr."""
    path = tempfile.mkdtemp(prefix='relay-logs')
    yield path
    shutil.rmtree(path)


@pytest.fixture
def pool():
    """Threads, for jobs that run at the same time."""
    with concurrent.futures.ThreadPoolExecutor(8) as executor:
        yield executor


@pytest.fixture
def relay(mark, tmp, logs):
    """relay(word, ...) starts a relay.  At the test's end, each relay that
    still runs gets SIGTERM and must exit cleanly."""
    started = []

    def start(*words, **popen):
        started.append(rig.Relay(words, logs, **popen))
        return started[-1]
    yield start
    running = [r for r in started if r.proc.poll() is None]
    try:
        for r in running:
            status = r.stop(timeout=8)
            assert status in ((0, 4, 5, 128 + signal.SIGTERM) if '-' in r.words else (0,)), r.err()
    finally:
        for r in started:
            r.kill()
    for r in started:
        # libubsan writes to stderr only: findings() has no file of it
        assert 'runtime error' not in r.err(), r.err()


@pytest.fixture
def run(mark):
    """run(word, ...) runs relay until it exits, and returns a CompletedProcess
    with stdout and stderr as text."""
    def run(*words, **kw):
        kw.setdefault('stdin', subprocess.DEVNULL)
        kw.setdefault('timeout', rig.PATIENCE)
        return subprocess.run([rig.RELAY] + [str(w) for w in words], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, **kw)
    return run


@pytest.fixture(scope='module')
def hosts(request):
    """The sshds, two by default.  A module may set BARE = True (PATH on the
    hosts has none of our programs), and the arguments NAMES and PASSWORDS."""
    h = hosts_room.Hosts(bare=getattr(request.module, 'BARE', False),
                         names=getattr(request.module, 'NAMES', ('login', 'node')),
                         passwords=getattr(request.module, 'PASSWORDS', ()))
    yield h
    h.close()


@pytest.fixture(scope='module')
def slurm():
    """A real Slurm: see slurm.running()."""
    if slurm_room.missing():
        pytest.skip(slurm_room.missing())
    with slurm_room.running() as s:
        yield s or pytest.skip('skipped: Slurm does not start here')


@pytest.fixture
def nothing_left_on_the_hosts(hosts, mark):
    """After the test neither host has a session."""
    yield
    rig.wait_for(lambda: not hosts.sessions(), 5, 'sessions left on the hosts')


@pytest.fixture
def target(tmp):
    """target(kind) makes a target for relay: 'tcp', 'unix' or 'command'."""
    made = []

    def make(kind='tcp', **kw):
        made.append({'tcp': rig.TcpTarget,
                     'unix': lambda: rig.UnixTarget('%s/t%d' % (tmp, len(made))),
                     'command': lambda: rig.CommandTarget('%s/c%d' % (tmp, len(made)))}[kind](**kw))
        return made[-1]
    yield make
    for t in made:
        t.close()


@pytest.fixture
def joined(relay, target, tmp):
    """joined(source, target kind, options) makes a rig.Join.  The source may
    also be 'nested': TCP, with a second relay as the target's command."""
    made = []

    def make(source, kind, options=()):
        t = target(kind)
        nested = ['--', rig.RELAY, '-'] if source == 'nested' else []
        made.append(rig.Join(relay, 'tcp' if nested else source, t, options,
                             [*nested, *t.words], tmp))
        return made[-1]
    yield make
    for j in made:
        j.close()


@pytest.fixture
def mounted():
    """mounted(path, options) mounts a tmpfs at path until the test's end."""
    made = []

    def mount(path, options):
        os.makedirs(path, exist_ok=True)
        if subprocess.run(['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', path],
                          stderr=subprocess.DEVNULL).returncode != 0:
            pytest.skip('skipped: mount is not permitted')
        made.append(path)
        return path
    yield mount
    for path in made:
        subprocess.run(['umount', '-l', path], check=True)
