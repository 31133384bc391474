"""What the end-to-end tests share.

A test joins two Ends through a Relay: `a` is the client's end, `b` the
target's.  An End is a socket, or the descriptors of two pipes.  Every
operation of an End has a deadline, so no test can hang.  No function here
sleeps for a fixed time: wait_for() waits for a condition.
"""
import array
import contextlib
import hashlib
import itertools
import os
import re
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time

RELAY = os.path.abspath(os.environ.get('RELAY', './relay'))
HERE = os.path.dirname(os.path.abspath(__file__))
MARK = 'RELAY_TEST'    # environment variable that marks the processes of a test
# limit of any one wait, in seconds
PATIENCE = float(os.environ.get('PATIENCE', 20))
CHUNK = 1 << 18
SANITIZER_OPTIONS = ('ASAN_OPTIONS', 'UBSAN_OPTIONS')
LISTENERS = ('tcp', 'unix')


def _binary():
    """Read from the binary how it was built: (with sanitizers, for coverage,
    with what the system has beyond POSIX).  A static binary has no dynamic
    symbols; it is taken to have the extras."""
    with open(RELAY, 'rb') as f:
        text = f.read()
    extras = sys.platform.startswith('linux') and (b'\0splice\0' in text
                                                   or b'\0.dynsym\0' not in text)
    return b'__asan_init' in text, b'.gcda\0' in text, extras


SANITIZED, COUNTED, EXTRAS = _binary() if os.path.exists(RELAY) else (False, False, False)
MACOS = os.environ.get('LD_PRELOAD', '').endswith('/xnu.so')
VALGRIND = os.path.basename(RELAY) == 'valgrind'
# Functions of relay whose descriptors stay open until it exits: the signal
# pipe, the socket of the user check, pipes for splice, /dev/null.
HELD = ('<inherited from parent>', 'signals_open', 'diag_open', 'take_pipe', 'os_fill_stdio')


def loader(path):
    """The loader that an ELF program of 64 bits names, or None."""
    with open(path, 'rb') as f:
        data = f.read()
    if data[:6] != b'\x7fELF\x02\x01':
        return None
    at, = struct.unpack_from('<Q', data, 32)
    size, count = struct.unpack_from('<HH', data, 54)
    for i in range(count):
        kind, _, offset, _, _, length = struct.unpack_from('<IIQQQQ', data, at + i * size)
        if kind == 3:
            return data[offset:offset + length - 1].decode()
    return None


def wait_for(condition, timeout=PATIENCE, what=None):
    """Call condition() until its result is true, and return the result."""
    end = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError('not within %g s: %s' % (timeout, what or condition))
        time.sleep(0.005)


# ---- ends ----

def families(address):
    """The addresses that relay prints as one: localhost:PORT and *:PORT."""
    host, port = address.rsplit(':', 1)
    return ['127.0.0.1:' + port, '[::1]:' + port] if host in ('localhost', '*') else [address]


class End:
    """One end of a byte stream: a socket, or the descriptors of two pipes."""

    def __init__(self, r, w=None, control=None):
        self.r = r.detach() if isinstance(r, socket.socket) else r
        self.w = self.r if w is None else w
        # socket to agent.py, which stands for a command
        self.control = control
        for fd in {self.r, self.w}:
            os.set_blocking(fd, False)

    def _poll(self, fd, events, timeout=PATIENCE):
        p = select.poll()
        p.register(fd, events)
        ready = p.poll(timeout * 1000)
        assert ready, \
            'no %s within %g s' % ('input' if events & select.POLLIN else 'space', timeout)
        return ready[0][1]

    def send(self, data):
        """Write all of data."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self.w, view[:CHUNK]):]
            except BlockingIOError:
                self._poll(self.w, select.POLLOUT)

    def stuff(self, data, most=1 << 30):
        """Write data repeatedly until the descriptor has stayed full for 300
        ms.  Return the number of bytes written."""
        sent = 0
        while sent < most:
            try:
                sent += os.write(self.w, data)
            except BlockingIOError:
                p = select.poll()
                p.register(self.w, select.POLLOUT)
                if not p.poll(300):
                    return sent
        raise AssertionError('no backpressure: %d bytes were accepted' % sent)

    def recv(self, most=CHUNK):
        """Read at least one byte; b'' means EOF."""
        while True:
            try:
                return os.read(self.r, most)
            except BlockingIOError:
                self._poll(self.r, select.POLLIN)

    def read(self, n):
        """Read n bytes, or fewer if EOF comes first."""
        got = bytearray()
        while len(got) < n:
            data = self.recv(min(CHUNK, n - len(got)))
            if not data:
                break
            got += data
        return bytes(got)

    def read_all(self):
        """Read until EOF."""
        got = bytearray()
        while True:
            data = self.recv()
            if not data:
                return bytes(got)
            got += data

    def digest(self):
        """Read until EOF; return the number of bytes and their hash."""
        n, h = 0, hashlib.sha256()
        while True:
            data = self.recv()
            if not data:
                return n, h.hexdigest()
            n += len(data)
            h.update(data)

    def silent(self):
        """True while there is nothing to read: no byte and no EOF."""
        p = select.poll()
        p.register(self.r, select.POLLIN)
        return not p.poll(0)

    def gone(self):
        """True after an error or a hang-up, even if bytes can still be read."""
        p = select.poll()
        for fd in {self.r, self.w} - {-1}:
            p.register(fd, 0)
        return any(ev & (select.POLLERR | select.POLLHUP) for _, ev in p.poll(0))

    def dead(self):
        """True when our bytes have no reader.  On TCP only a write finds that
        out, so a byte is written."""
        try:
            return self.gone() or not os.write(self.w, b'?')
        except BlockingIOError:
            return False
        except (BrokenPipeError, ConnectionResetError):
            return True

    def is_socket(self):
        return stat.S_ISSOCK(os.fstat(self.w).st_mode)

    def shut(self):
        """Close the sending direction; the other stays open."""
        if self.is_socket():
            with socket.socket(fileno=os.dup(self.w)) as s:
                s.shutdown(socket.SHUT_WR)
        else:
            os.close(self.w)
            self.w = -1

    def shut_read(self):
        """Close the receiving direction; the other stays open."""
        if self.is_socket():
            with socket.socket(fileno=os.dup(self.r)) as s:
                s.shutdown(socket.SHUT_RD)
        else:
            os.close(self.r)
            self.r = -1

    def reset(self):
        """Close with a TCP reset."""
        with socket.socket(fileno=os.dup(self.w)) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        self.close()

    def fate(self):
        """Read until the stream ends; return 'end' or 'reset'."""
        try:
            self.read_all()
        except (ConnectionResetError, BrokenPipeError):
            return 'reset'
        return 'end'

    def close(self):
        for fd in {self.r, self.w} - {-1}:
            os.close(fd)
        self.r = self.w = -1
        if self.control:
            self.control.close()


def host_port(address):
    """'127.0.0.1:80' or '[::1]:80' as connect() expects it."""
    host, port = address.rsplit(':', 1)
    return host.strip('[]'), int(port)


@contextlib.contextmanager
def short_path(path):
    """A name for path that fits into sun_path (107 bytes): it goes through a
    descriptor of the directory."""
    if len(os.fsencode(path)) <= 100:
        yield path
        return
    fd = os.open(os.path.dirname(path) or '.', os.O_PATH)
    try:
        yield '/proc/self/fd/%d/%s' % (fd, os.path.basename(path))
    finally:
        os.close(fd)


def connect(address, receive_buffer=0):
    """Connect to 'host:port' or to a path; return an End."""
    if '/' in address:
        s = socket.socket(socket.AF_UNIX)
    else:
        s = socket.socket(socket.AF_INET6 if address.startswith('[')
                          or '::' in address else socket.AF_INET)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if receive_buffer:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    s.settimeout(PATIENCE)
    with short_path(address) as name:
        s.connect(name if '/' in address else host_port(address))
    return End(s)


def reach(address):
    """Connect, and retry until a process listens."""
    def attempt():
        with contextlib.suppress(ConnectionRefusedError, FileNotFoundError):
            return connect(address)
    return wait_for(attempt, what=address)


def fate_at(address):
    """Connect, send nothing, and return how the connection ends: 'end' or
    'reset'."""
    try:
        a = connect(address)
    except (ConnectionResetError, BrokenPipeError):
        return 'reset'
    try:
        return a.fate()
    finally:
        a.close()


_ports = itertools.cycle(range(10000, 32768))
for _ in range(os.getpid() * 977 % 22768):
    next(_ports)


def free_port():
    """A free port outside the range from which the system assigns ports
    (Linux: ip_local_port_range).  Each test process starts at another port."""
    for port in _ports:
        with socket.socket() as s, socket.socket(socket.AF_INET6) as s6, \
            contextlib.suppress(OSError):
            s.bind(('', port))
            if socket.has_dualstack_ipv6():
                s6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                s6.bind(('', port))
            return port


def end_of_pipe_pair():
    """Two pipes, one for each direction: (our End, the child's stdin, the
    child's stdout)."""
    child_in, our_w = os.pipe()
    our_r, child_out = os.pipe()
    return End(our_r, our_w), child_in, child_out


def stdio(kind):
    """(our End, stdin, stdout) for a relay on 'pipes' or a 'socketpair'."""
    if kind == 'pipes':
        return end_of_pipe_pair()
    ours, theirs = socket.socketpair()
    fd = theirs.detach()
    return End(ours), fd, os.dup(fd)


# ---- targets: what relay connects to ----

class SocketTarget:
    """A listening socket.  accept() returns the target's end of relay's next
    connection."""

    def __init__(self, sock, word):
        self.sock, self.words = sock, [word]
        sock.settimeout(PATIENCE)
        sock.listen(1024)

    def accept(self):
        s = self.sock.accept()[0]
        if s.family != socket.AF_UNIX:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return End(s)

    def waiting(self):
        """True when a connection can be accepted."""
        p = select.poll()
        p.register(self.sock, select.POLLIN)
        return bool(p.poll(0))

    def close(self):
        self.sock.close()


class TcpTarget(SocketTarget):
    def __init__(self, host='127.0.0.1', port=0):
        s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((host, port))
        port = s.getsockname()[1]
        super().__init__(s, '[%s]:%d' % (host, port) if ':' in host else '%s:%d' % (host, port))


class UnixTarget(SocketTarget):
    def __init__(self, path):
        s = socket.socket(socket.AF_UNIX)
        with short_path(path) as name:
            s.bind(name)
        self.path = path
        super().__init__(s, path)

    def close(self):
        super().close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)


class CommandTarget(UnixTarget):
    """agent.py as a command.  It passes its stdin and stdout to the test, and
    exits when the test tells it to."""

    def __init__(self, path):
        super().__init__(path)
        self.words = ['--', sys.executable, '-IS', os.path.join(HERE, 'agent.py'), path]

    def accept(self):
        """The command's end.  Its .control is the socket to the agent, .pid
        the agent's process."""
        control = self.sock.accept()[0]
        control.settimeout(PATIENCE)
        pid, fds = receive_fds(control, 2)
        end = End(*fds, control=control)
        end.pid = int(pid)
        return end


def receive_fds(sock, n):
    """Receive one message with n descriptors: (its bytes, the descriptors)."""
    data, ancillary, _, _ = sock.recvmsg(64, socket.CMSG_SPACE(n * 4))
    fds = array.array('i')
    for level, kind, payload in ancillary:
        assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        fds.frombytes(payload[:len(payload) - len(payload) % 4])
    assert len(fds) == n
    return data, list(fds)


# ---- relay and other processes ----

class Relay:
    """A running relay.  Its stderr goes to a file that err() reads.  A
    listener's addresses come from its stdout."""

    def __init__(self, words, logs, **popen):
        self.words = [str(w) for w in words]
        fd, self.log = tempfile.mkstemp(dir=logs)
        popen.setdefault('stdin', subprocess.DEVNULL)
        popen.setdefault('stdout', subprocess.PIPE)
        popen.setdefault('stderr', fd)
        self.proc = subprocess.Popen([RELAY] + self.words, **popen)
        os.close(fd)
        self.pid = self.proc.pid
        self._addresses = None

    @property
    def addresses(self):
        """What relay prints on stdout until it closes stdout; from then on it
        listens."""
        if self._addresses is None:
            end = End(os.dup(self.proc.stdout.fileno()))
            self._addresses = end.read_all().decode().splitlines()
            end.close()
            assert self._addresses, \
                'relay %s: no address; stderr: %s' % (' '.join(self.words), self.err())
        return self._addresses

    @property
    def address(self):
        return self.addresses[0]

    def err(self):
        with open(self.log, errors='replace') as f:
            return f.read()

    def says(self, text, timeout=PATIENCE):
        """Wait for a line with text on stderr, and return that line."""
        return wait_for(lambda: [line for line in self.err().splitlines() if text in line], timeout,
                        '%r in %r' % (text, self.err()))[0]

    def wait(self, timeout=PATIENCE):
        """The exit status; -N if signal N killed relay."""
        try:
            return self.proc.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError('relay %s still runs after %g s; stderr: %s'
                                 % (' '.join(self.words), timeout, self.err())) from None

    def stop(self, sig=signal.SIGTERM, timeout=PATIENCE):
        if self.proc.poll() is None:
            self.proc.send_signal(sig)
        return self.wait(timeout)

    def kill(self):
        if self.proc.poll() is None:
            self.proc.kill()
        self.proc.wait()
        if self.proc.stdout:
            self.proc.stdout.close()


class Join:
    """relay between a kind of source and a kind of target.

    relay's arguments are `before`, the source, `after`.  The source is a
    listener ('tcp', 'unix'), or stdin and stdout ('pipes', 'socketpair')."""

    def __init__(self, start, source, target, before, after, tmp):
        self.start, self.source, self.target = start, source, target
        self.before, self.after = list(before), list(after)
        self.ends, self.relay = [], None
        if source in LISTENERS:
            address = '%s/from' % tmp if source == 'unix' else '127.0.0.1:0'
            self.relay = start(*self.before, address, *self.after)

    def client(self, **kw):
        """Return the client's end alone."""
        if self.source in LISTENERS:
            a = connect(self.relay.address, **kw)
        else:
            a, i, o = stdio(self.source)
            self.relay = self.start(*self.before, '-', *self.after, stdin=i, stdout=o)
            os.close(i)
            os.close(o)
        self.ends.append(a)
        return a

    def connect(self, **kw):
        """Return the client's end and the target's end."""
        a = self.client(**kw)
        self.ends.append(self.target.accept())
        return a, self.ends[-1]

    def close(self):
        for end in self.ends:
            end.close()


def environ_of(pid):
    try:
        with open('/proc/%s/environ' % pid, 'rb') as f:
            return f.read().split(b'\0')
    except OSError:
        return []


def environ_with(pid):
    """The environment of a process."""
    return dict(word.decode().split('=', 1) for word in environ_of(pid) if b'=' in word)


def kill(pid, number):
    """Send a signal to a process that may have ended by itself."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def marked(mark):
    """The processes that carry mark in their environment: {pid: command line}.
    """
    word = ('%s=%s' % (MARK, mark)).encode()
    found = {}
    for pid in filter(str.isdigit, os.listdir('/proc')):
        if int(pid) != os.getpid() and word in environ_of(pid):
            found[int(pid)] = command_line(pid)
    return found


def far_relays(mark):
    """The processes on the far side of tunnels with a session: {pid: command
    line}."""
    return {pid: line for pid, line in marked(mark).items()
            if ' -k ' in line and line.endswith(' -')}


def keepers(mark):
    """The far processes that keep a session.  The others wait for the end of
    their channel: the parent of a keeper, and those that joined later."""
    far = far_relays(mark)
    parents = {(stat_of(pid) or 'Z0')[1] for pid in far}
    return [pid for pid, line in far.items() if ' join ' not in line and str(pid) not in parents]


def places(mark):
    """The directories of the running keepers of this test."""
    inodes = set()
    for pid in marked(mark):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for fd in os.listdir('/proc/%d/fd' % pid):
                inodes.add(os.readlink('/proc/%d/fd/%s' % (pid, fd)))
    found = set()
    with open('/proc/net/unix') as f:
        for line in f:
            words = line.split()
            if len(words) == 8 and re.match('/tmp/relay-(?!at-)', words[7]) \
                    and 'socket:[%s]' % words[6] in inodes:
                found.add(os.path.dirname(words[7]))
    return found


def command_line(pid):
    try:
        with open('/proc/%s/cmdline' % pid, 'rb') as f:
            return f.read().replace(b'\0', b' ').decode(errors='replace').strip()
    except OSError:
        return ''


def stat_of(pid):
    """The fields of /proc/PID/stat from the third (state) on, or None if there
    is no such process."""
    try:
        with open('/proc/%d/stat' % pid) as f:
            return f.read().rsplit(') ', 1)[1].split()
    except OSError:
        return None


def alive(pid):
    fields = stat_of(pid)
    return fields is not None and fields[0] not in 'ZX'


def children(pid):
    """The living children of pid."""
    pids = map(int, filter(str.isdigit, os.listdir('/proc')))
    return [p for p in pids if (stat_of(p) or 'Z0')[1] == str(pid) and alive(p)]


def cpu(pid):
    """Processor time used by pid, in seconds."""
    fields = stat_of(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def memory(pid):
    """Resident memory of pid, in bytes."""
    return int(stat_of(pid)[21]) * os.sysconf('SC_PAGE_SIZE')


def switches(pid):
    """The counters of pid's context switches.  They stay the same while pid
    sleeps."""
    with open('/proc/%d/status' % pid) as f:
        return [line for line in f if 'ctxt_switches' in line]


def quiet(pid, timeout=PATIENCE):
    """Wait until pid has slept for 100 ms without a context switch.  Then its
    work is done, and it does not spin."""
    before, since, end = None, time.monotonic(), time.monotonic() + timeout
    while time.monotonic() < end:
        now, state = switches(pid), stat_of(pid)[0]
        if state == 'Z':
            raise ProcessLookupError('process %d has exited' % pid)
        if state != 'S' or now != before:
            before, since = now, time.monotonic()
        elif time.monotonic() - since > 0.1:
            return
        time.sleep(0.01)
    raise AssertionError('process %d (%s) does not sleep' % (pid, command_line(pid)))


def close_in_two_steps(j):
    """Unix clients close their sending direction first and their receiving
    direction later.  After the second step each target must see a hang-up."""
    other = j.connect()
    crowd = [j.connect() for _ in range(20)]
    for a, b in crowd:
        a.shut()
        assert b.read_all() == b''
    # the idle clients leave the active set between these turns
    for _ in range(4):
        quiet(j.relay.pid)
        ping(*other)
    for a, _ in crowd:
        a.shut_read()
    wait_for(lambda: all(b.gone() for _, b in crowd))


def cpu_grows(pid, seconds=0.5):
    """Processor time that pid uses in the next seconds.  A small value shows
    that it does not spin."""
    before, end = cpu(pid), time.monotonic() + seconds
    wait_for(lambda: time.monotonic() > end)
    return cpu(pid) - before


def findings_in(text):
    """What a sanitizer or valgrind wrote about one process, without the
    descriptors that relay may hold at its exit, and without the note that
    valgrind lacks Landlock."""
    if not VALGRIND:
        return text
    text = re.sub(r'--\d+-- WARNING: unhandled .* syscall: 444\n(--\d+-- .*\n)*', '', text)
    parts = re.split(r'\n\s*\n', re.sub(r'(?m)^==\d+== ?|FILE DESCRIPTORS: .*\n', '', text))
    return '\n\n'.join(part for part in parts if part.strip() and not
                       (part.lstrip().startswith('Open ') and any(word in part for word in HELD)))


# ---- traffic ----

def exchange(pool, a, b, up, down):
    """Send `up` from a to b and `down` from b to a at the same time, each
    followed by EOF.  Both must arrive complete."""
    def feed(end, data):
        end.send(data)
        end.shut()
    jobs = [pool.submit(f, *args) for f, *args in
            ((b.digest,), (a.digest,), (feed, a, up), (feed, b, down))]
    for job, data, way in zip(jobs, (up, down), ('up', 'down')):
        assert job.result() == (len(data), hashlib.sha256(data).hexdigest()), way
    for job in jobs[2:]:
        job.result()


def ping(a, b, data=b'x'):
    """Send data from a to b and back."""
    a.send(data)
    assert b.read(len(data)) == data
    b.send(data)
    assert a.read(len(data)) == data


@contextlib.contextmanager
def chatter(pool, a, b):
    """While the context lasts, send bytes from a to b and back without a
    pause."""
    over = []

    def talk():
        while not over:
            ping(a, b)
    job = pool.submit(talk)
    try:
        yield
    finally:
        over.append(True)
        job.result()


def half_closes(a, b):
    """b sends and closes its sending direction, then a does the same."""
    for one, other in ((b, a), (a, b)):
        one.send(b'the last bytes')
        one.shut()
        assert other.read_all() == b'the last bytes'


@contextlib.contextmanager
def serving(*servers):
    """Run socketserver servers, each in a thread."""
    threads = [threading.Thread(target=s.serve_forever, args=(0.02,)) for s in servers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for server, thread in zip(servers, threads):
            server.shutdown()
            thread.join()
            server.server_close()
            if isinstance(server.server_address, str):
                os.unlink(server.server_address)
