"""What test_rules.py uses: every kind of connection that relay makes, and what
the two ends of a connection do.

A cell is (way, client, target).  The ways are `direct`, which is `relay source
target`; `m`, which is relay -m with its far side; and the tunnels `L`, `R` and
`W`.  The only hop of a tunnel is env, which runs its arguments like any hop
that is a command.  So no ssh is needed.
"""
import array
import collections
import contextlib
import fcntl
import os
import re
import select
import signal
import socket
import termios
import threading
import time

import pytest

import rig
from rig import wait_for

HOP = 'env RULES=1'
STDIO = ('pipes', 'socketpair')
# long form: more rounds of what fails only sometimes
LONG = 'SLOW' in os.environ
MIB = 1 << 20
DATA = os.urandom(8 * MIB)

# The kinds of ends that each way joins.  The other pairs do not exist:
# - The far side of a link connects to sockets only.  Its stdin and stdout are
# the link.
# - -L and -R listen; -W uses stdin and stdout.
# - `relay - -` would join stdin and stdout with themselves.
KINDS = {
    'direct': (('tcp', 'unix') + STDIO, ('tcp', 'unix', 'command')),
    'direct-to-stdio': (rig.LISTENERS, STDIO),
    'm': (('tcp', 'unix') + STDIO, rig.LISTENERS),
    'L': (rig.LISTENERS, rig.LISTENERS),
    'R': (rig.LISTENERS, rig.LISTENERS),
    'W': (STDIO, rig.LISTENERS),
}
Cell = collections.namedtuple('Cell', 'way client target')
CELLS = [Cell(way.split('-')[0], client, target)
         for way, (clients, targets) in KINDS.items() for client in clients for target in targets]


def grid(only=lambda cell: True, but=()):
    """Parametrize over all cells to which the rule applies (`only`).  `but` is
    a list of (condition, reason): the cells that are skipped, with the reason.
    """
    params = []
    for cell in filter(only, CELLS):
        reasons = [reason for condition, reason in but if condition(cell)]
        params.append(pytest.param(cell, id='-'.join(cell),
                                   marks=[pytest.mark.skip(reason='skipped: ' + r)
                                          for r in reasons[:1]]))
    return pytest.mark.parametrize('cell', params)


# ---- ends ----

def without_relay(kind):
    """(client, target) joined by the kernel without relay."""
    if kind in ('pipes', 'command'):
        a, i, o = rig.end_of_pipe_pair()
        return a, rig.End(i, o)
    if kind == 'tcp':
        t = rig.TcpTarget()
        a = rig.connect(t.words[0])
        b = t.accept()
        t.close()
        return a, b
    a, b = socket.socketpair()
    return rig.End(a), rig.End(b)


class Joint:
    """One cell.  connect() returns the client's end and the target's end of a
    new connection.

    If one of the two is stdin and stdout, each connection has its own relay."""

    def __init__(self, start, target, tmp, cell, near=(), far=()):
        self.start, self.cell, self.near, self.far = start, cell, list(near), list(far)
        self.ends, self.relays, self.tmp = [], [], tmp
        self.target = target(cell.target) if cell.target not in STDIO else None
        if cell.client not in STDIO and self.target:
            self.run()

    @property
    def relay(self):
        return self.relays[-1]

    def source_path(self):
        """The source of the next relay, if it is a Unix socket."""
        return '%s/from%d' % (self.tmp, len(self.relays))

    def words(self):
        """relay's arguments."""
        way, client, _ = self.cell
        source = {'tcp': '127.0.0.1:0', 'unix': self.source_path()}.get(client, '-')
        to = self.target.words if self.target else ['-']
        if way == 'direct':
            return [*self.near, source, *to]
        if way == 'm':
            return ['-m', *self.near, source, '--', rig.RELAY, '-m', *self.far, '-', *to]
        forward = ['-W', to[0]] if way == 'W' else ['-' + way, '%s:%s' % (source, to[0])]
        return ['-q', '-x', rig.RELAY, *self.near, *forward, HOP]

    def run(self, **popen):
        words = self.words()
        # relay prints no address: its stdout is the target
        if not self.target and self.cell.client == 'tcp':
            self.address = '127.0.0.1:%d' % rig.free_port()
            words[words.index('127.0.0.1:0')] = self.address
        elif not self.target:
            self.address = self.source_path()
        self.relays.append(self.start(*words, **popen))

    def run_on(self, kind):
        """Run relay on stdin and stdout, and return their other end."""
        end, i, o = rig.stdio(kind)
        self.run(stdin=i, stdout=o)
        os.close(i)
        os.close(o)
        self.ends.append(end)
        return end

    def client(self, **kw):
        """Return the client's end alone; the target still has to accept."""
        if self.cell.client in STDIO:
            return self.run_on(self.cell.client)
        self.ends.append(rig.connect(self.relay.address, **kw))
        return self.ends[-1]

    def connect(self, **kw):
        """Return the client's end and the target's end."""
        if self.target:
            a = self.client(**kw)
            self.ends.append(self.target.accept())
            return a, self.ends[-1]
        b = self.run_on(self.cell.target)
        a = rig.reach(self.address)
        self.ends.append(a)
        # a client that closes before the user check is refused: see relay(1),
        # CAVEATS
        a.send(b'.')
        assert b.read(1) == b'.'
        return a, b

    def is_stdio(self):
        """True if relay exits with its connection."""
        return self.cell.client in STDIO or not self.target

    def hang_up(self):
        """Close both ends of the last connection."""
        for end in self.ends:
            end.close()
        self.ends.clear()

    def pids(self):
        """The processes of all relays of the cell, near and far."""
        return [pid for pid, line in rig.marked(os.environ[rig.MARK]).items()
                if line.startswith(rig.RELAY + ' ')]

    def rest(self):
        """Wait until all of them sleep."""
        for pid in self.pids():
            # the process has exited
            with contextlib.suppress(FileNotFoundError, TypeError, ProcessLookupError):
                rig.quiet(pid)

    def close(self):
        self.hang_up()
        if not self.is_stdio():
            return
        # relay exits by itself, unless the test has failed
        for r in self.relays:
            with contextlib.suppress(AssertionError):
                r.wait(5)
            if r.proc.poll() is None:
                r.stop()


def direct_rounds(kind):
    """Yield pairs of ends without relay.  Each pair is closed before the next
    is made."""
    while True:
        a, b = without_relay(kind)
        try:
            yield a, b
        finally:
            a.close()
            b.close()


def joint_rounds(joint):
    """The same with relay."""
    while True:
        try:
            yield joint.connect()
        finally:
            joint.hang_up()


# ---- what ends do ----

def together(*jobs):
    """Run all jobs at the same time.  When all have ended, return their
    results, or raise the first error."""
    results, errors = [None] * len(jobs), []

    def run(n, job):
        try:
            results[n] = job()
        except BaseException as e:    # the test's thread raises it
            errors.append(e)
    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(jobs)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if errors:
        raise errors[0]
    return results


GONE = (ConnectionResetError, BrokenPipeError)


def send_all(end, data):
    """Send data, then close the sending direction."""
    end.send(data)
    end.shut()


def push(end, data):
    """Send data; a peer that is gone is no error."""
    with contextlib.suppress(*GONE):
        end.send(data)


def pump(end, over):
    """Send until the reader is gone or over() is true.  There is no pause while
    bytes are accepted, because many resets need a full link."""
    writable = select.poll()
    with contextlib.suppress(OSError):
        writable.register(end.w, select.POLLOUT)
        while not over():
            try:
                os.write(end.w, DATA[:65536])
            except BlockingIOError:
                writable.poll(10)


def stuff(end, data):
    """Send data until the descriptor has stayed full for 300 ms.  Return the
    number of bytes sent."""
    view = memoryview(data)
    p = select.poll()
    p.register(end.w, select.POLLOUT)
    while view and p.poll(300):
        view = view[os.write(end.w, view[:65536]):]
    return len(data) - len(view)


def take(end):
    """Read until the stream ends: (bytes, 'end' or 'reset')."""
    got = bytearray()
    try:
        while True:
            data = end.recv()
            if not data:
                return bytes(got), 'end'
            got += data
    except GONE:
        return bytes(got), 'reset'


def take_slowly(end, pieces, size=1024, pause=0.01):
    """The same, but the first `pieces` reads are of `size` bytes, each
    followed by a pause of `pause` seconds."""
    got = bytearray()
    try:
        for _ in range(pieces):
            data = end.recv(size)
            if not data:
                return bytes(got), 'end'
            got += data
            time.sleep(pause)
    except GONE:
        return bytes(got), 'reset'
    rest, fate = take(end)
    return bytes(got) + rest, fate


def unsent(end):
    """The number of bytes that the kernel of this side still holds for a TCP
    peer."""
    n = array.array('i', [0])
    fcntl.ioctl(end.w, termios.TIOCOUTQ, n)
    return n[0]


def same(got, sent, what):
    """Compare; a failure reports counts, because the data has megabytes."""
    assert len(got) == len(sent), '%s: %d bytes of %d arrived' % (what, len(got), len(sent))
    assert got == sent, '%s: other bytes arrived' % what


def share(rounds, n, want, play):
    """Call play(a, b), which returns the bytes that the client got, n times.
    Return the share of calls that returned `want`, and the least number of
    bytes."""
    whole, least = 0, len(want)
    for _ in range(n):
        a, b = next(rounds)
        got = play(a, b)
        whole += got == want
        least = min(least, len(got))
    rounds.close()
    return whole / n, least


# ---- the rules as plays between two ends ----
# A play checks what arrives.  It closes an end only if that is part of the
# rule.

def play_client_ends_first(a, b, up, down):
    """Rule 1: the client sends EOF, the target reads until EOF, then answers.
    """
    _, got = together(lambda: send_all(a, up), b.read_all)
    same(got, up, 'up')
    _, got = together(lambda: send_all(b, down), a.read_all)
    same(got, down, 'down')


def play_target_ends_first(a, b, up, down):
    """Rule 1 with client and target exchanged."""
    _, got = together(lambda: send_all(b, down), a.read_all)
    same(got, down, 'down')
    _, got = together(lambda: send_all(a, up), b.read_all)
    same(got, up, 'up')


def play_early_answer(a, b, up, down):
    """Rule 8: the target answers and sends EOF before it reads; the client
    keeps sending."""
    answered = threading.Event()

    def target():
        send_all(b, down)
        assert answered.wait(rig.PATIENCE), 'the client did not get the answer'
        return b.read_all()

    def client():
        got = a.read_all()
        answered.set()
        return got
    _, down_got, up_got = together(lambda: send_all(a, up), client, target)
    same(down_got, down, 'down')
    same(up_got, up, 'up')


def play_bytes_before_reset(a, b, answer, request=DATA[:300000], reads=0):
    """Rule 3: the target reads `reads` bytes of the request, answers, and
    closes with the rest unread.  Return what the client got."""
    def target():
        b.read(reads)
        push(b, answer)
        b.close()

    def client():
        push(a, request)
        return take(a)[0]
    return together(target, client)[1]


# arguments of take_slowly()
SLOWLY = {'steady': (125, 12000, 0.012), 'rests': (1, 100000, 1.5)}


def play_slow_reader_sends_on(a, b, answer, pace, closes=True):
    """Rule 4: the target reads nothing, answers, and closes or sends EOF.  The
    client sends without end, and reads slowly.  Return what the client got."""
    got = []

    def client():
        try:
            got.append(take_slowly(a, *SLOWLY[pace])[0])
        finally:
            got.append(b'')

    def target():
        wait_for(lambda: not b.silent())    # the client is sending
        push(b, answer)
        b.close() if closes else b.shut()
    together(client, target, lambda: pump(a, lambda: got))
    return got[0]


def play_client_closes(a, b, data, delivered):
    """Rule 4: the client writes data and closes; the target answers each
    piece.  Return what the target got."""
    def client():
        a.send(data)
        if delivered:
            wait_for(lambda: unsent(a) == 0)
        a.close()

    def target():
        got = bytearray()
        with contextlib.suppress(*GONE):
            while True:
                piece = b.recv(8192)
                if not piece:
                    break
                got += piece
                with contextlib.suppress(*GONE, BlockingIOError):
                    os.write(b.w, b'got %d bytes\n' % len(piece))
        return bytes(got)
    return together(client, target)[1]


def play_slow_reader(writer, reader, data, pieces=100):
    """Rule 7: the writer sends all and closes at once.  The reader first reads
    1 KB every 10 ms, then the rest."""
    def send_and_close():
        writer.send(data)
        writer.close()
    _, (got, fate) = together(send_and_close, lambda: take_slowly(reader, pieces))
    same(got, data, 'to the slow reader')
    assert fate == 'end', fate


def play_reset(one, other, tcp):
    """Rule 2: one end resets; the other must see a reset, or at least that its
    bytes have no reader."""
    rig.ping(one, other)
    one.reset()
    fate = other.fate()
    assert fate == 'reset' or not tcp, 'a reset arrived as EOF'
    wait_for(other.dead, what='an error at the other end')


class Source:
    """A target that sends to each client as fast as it can, until stop()."""

    def __init__(self, target):
        self.target, self.over, self.threads = target, False, []
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        while not self.over:
            if not self.target.waiting():
                time.sleep(0.001)
                continue
            t = threading.Thread(target=self.feed, args=(self.target.accept(),))
            t.start()
            self.threads = [t, *(other for other in self.threads if other.is_alive())]

    def feed(self, end):
        pump(end, lambda: self.over)
        end.close()

    def stop(self):
        self.over = True
        self.thread.join()
        for t in self.threads:
            t.join()


TAG = 8    # length of the tag by which a target identifies its client, in bytes


class Crowd:
    """Accepts n clients of a target, and finds the target's end of each."""

    def __init__(self, target, n):
        self.found, self.n, self.target = {}, n, target
        self.thread = threading.Thread(target=self.sort)
        self.thread.start()

    def sort(self):
        with contextlib.suppress(TimeoutError):
            for _ in range(self.n):
                end = self.target.accept()
                self.found[end.read(TAG)] = end

    def end_of(self, client, n):
        """Send the client's number, and return the target's end of that
        connection."""
        tag = b'%*d' % (TAG, n)
        client.send(tag)
        return wait_for(lambda: self.found.get(tag), what='client %d at the target' % n)

    def close(self):
        self.thread.join()
        for end in self.found.values():
            end.close()


# ---- what relay reports ----

def table(relay):
    """The lines that relay logs on SIGUSR1."""
    before = relay.err()
    relay.proc.send_signal(signal.SIGUSR1)
    wait_for(lambda: relay.err().endswith('\n') and 'open ' in relay.err()[len(before):])
    return relay.err()[len(before):].splitlines()


def reserved(relay):
    """The bytes of reserved memory in that table, or None if it has no such
    line."""
    found = re.search(r'(\d+) (?:bytes )?reserved', '\n'.join(table(relay)))
    return int(found.group(1)) if found else None
