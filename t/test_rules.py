"""The rules of a connection, over every way to join every kind of client with every kind of target: rules.py has the grid.

A rule holds in all cells alike.  Where a cell cannot be tried, or the kernel itself gives less, the parametrization has the reason.
SLOW=1 runs the long form: more rounds of what fails now and then."""
import contextlib
import functools
import http.server
import re
import signal
import socketserver
import threading

import pytest

import rig
import rules
from rig import ping, wait_for
from rules import DATA, LONG, MIB, STDIO, grid, same, take, together

KB = 1000
TIMES = pytest.mark.parametrize


@pytest.fixture
def joint(relay, target, tmp):
    """joint(cell, near=options, far=options) makes a rules.Joint."""
    made = []

    def make(cell, **kw):
        made.append(rules.Joint(relay, target, tmp, cell, **kw))
        return made[-1]
    yield make
    for j in made:
        j.close()


# ---- what the kernel gives without relay: a rule asks for no more ----

CONTROLS = {
    'client-first': lambda a, b, _: rules.play_client_ends_first(a, b, DATA[:3000 * KB], DATA[-3000 * KB:]),
    'target-first': lambda a, b, _: rules.play_target_ends_first(a, b, DATA[:3000 * KB], DATA[-3000 * KB:]),
    'before-reset': lambda a, b, _: same(rules.play_bytes_before_reset(a, b, ANSWER), ANSWER, 'down'),
    'early-answer': lambda a, b, _: rules.play_early_answer(a, b, DATA[:3000 * KB], ANSWER),
    'slow-reader': lambda a, b, _: rules.play_slow_reader(b, a, DATA[:2 * MIB]),
    'client-closes': lambda a, b, kind: same(rules.play_client_closes(a, b, CLOSES, kind == 'tcp'), CLOSES, 'up'),
    'end-behind-answer': lambda a, b, _: same(
        rules.play_slow_reader_sends_on(a, b, LONG_ANSWER, 'rests', closes=False), LONG_ANSWER, 'down'),
    'close-behind-answer': lambda a, b, _: same(rules.play_slow_reader_sends_on(a, b, LONG_ANSWER, 'rests'), LONG_ANSWER, 'down'),
}


@TIMES('kind, rule', [(kind, rule) for kind in ('tcp', 'unix', 'pipes') for rule in CONTROLS
                      if (kind, rule) != ('tcp', 'close-behind-answer')])    # its kernel drops what it has not sent
def test_without_relay(kind, rule):
    """Goal: the kernel alone obeys each rule, so that a failure below is relay's."""
    a, b = rules.without_relay(kind)
    CONTROLS[rule](a, b, kind)
    a.close()
    b.close()


# ---- 1: half-closes ----

AMOUNTS = ((0, 0), (0, 3000 * KB), (1, 300 * KB), (300 * KB, 1), (3000 * KB, 0), (3000 * KB, 3000 * KB))


@TIMES('play', [rules.play_client_ends_first, rules.play_target_ends_first], ids=['client-first', 'target-first'])
@grid()
def test_half_close(joint, cell, play):
    """Goal: an end of either side stands behind all its bytes, and the other side then sends any amount: all of it
    arrives, and its end.  relay on stdin and stdout ends with status 0."""
    j = joint(cell)
    for up, down in AMOUNTS:
        a, b = j.connect()
        play(a, b, DATA[:up], DATA[-down:] if down else b'')
        j.hang_up()
        if j.is_stdio():
            assert j.relay.wait() == 0, (up, down, j.relay.err())


# ---- 2: resets ----

BUSY = TIMES('busy', [False, True], ids=['idle', 'busy'])


def sees_reset(j, end, kind):
    """The end of this kind learns that the connection broke."""
    fate = end.fate()
    if kind == 'tcp':
        assert fate == 'reset', 'a reset became a clean end'
    wait_for(end.dead, what='the %s end sees that nothing reads' % kind)
    if j.is_stdio():
        assert j.relay.wait() == 4, j.relay.err()


@BUSY
@grid(but=[(lambda c: c.client != 'tcp', 'only a TCP client can reset')])
def test_client_resets(joint, cell, busy):
    """Goal: a client's reset is a reset at a TCP target, and the death of any other; also while bytes are stuck on the way."""
    j = joint(cell)
    a, b = j.connect()
    ping(a, b)
    if busy:
        a.stuff(DATA[:MIB])
    a.reset()
    sees_reset(j, b, cell.target)


@BUSY
@grid(but=[(lambda c: c.target != 'tcp', 'only a TCP target can reset')])
def test_target_resets(joint, cell, busy):
    """Goal: the mirror; relay on stdin and stdout ends with status 4."""
    j = joint(cell)
    a, b = j.connect()
    ping(a, b)
    if busy:
        b.stuff(DATA[:MIB])
    b.reset()
    sees_reset(j, a, cell.client)


def connecting(port):
    """How many TCP sockets of this host wait for an answer of the port."""
    with open('/proc/net/tcp') as f:
        return sum(line.split()[2].endswith(':%04X' % port) and line.split()[3] == '02' for line in f)


class Full:
    """A target whose backlog is full until it is opened."""

    def __init__(self, target):
        self.target = target
        while target.waiting():         # a tunnel with -w has been to see it
            target.accept().close()
        target.sock.listen(0)
        self.filler = rig.connect(target.words[0])

    def open(self):
        self.target.sock.listen(1024)
        self.target.accept().close()
        self.filler.close()


@TIMES('first', [b'', b'first' * 1000], ids=['silent', 'sent'])
@grid(only=lambda c: c.target in rig.LISTENERS,      # a command or stdout is there at once
      but=[(lambda c: c.client != 'tcp', 'only a TCP client can reset')])
def test_client_resets_while_the_far_side_dials(joint, cell, first):
    """Goal: a client that resets before its target has accepted is never a clean end there: there is no connection, or a reset."""
    tcp = cell.target == 'tcp'
    wait = [] if tcp else ['-w', '20']        # a Unix socket whose backlog is full gives EAGAIN: relay must retry
    j = joint(cell, near=wait if cell.way != 'm' else [], far=wait)
    assert j.relay.address
    full = Full(j.target)
    a = j.client()
    a.send(first)
    if tcp:
        wait_for(lambda: connecting(rig.host_port(j.target.words[0])[1]))
        j.rest()
    a.reset()
    if tcp:
        j.rest()
    second = j.client()
    second.send(b'second')
    if tcp:
        j.rest()
    full.open()
    b = accept_second(j)
    b.send(b'well')
    assert second.read(4) == b'well'


def accept_second(j):
    """The target's end of the client that sends b'second'; those before it that have not gone yet were reset."""
    while True:
        b = j.target.accept()
        j.ends.append(b)
        got, fate = read_tag(b)
        if got == b'second':
            return b
        assert j.cell.target != 'tcp' or fate == 'reset', 'the target got %d bytes and a clean end' % len(got)


def read_tag(end):
    """The first bytes, and the fate unless they are b'second'."""
    got = b''
    try:
        while got != b'second':
            data = end.recv()
            if not data:
                return got, 'end'
            got += data
    except rules.GONE:
        return got, 'reset'
    return got, None


@TIMES('first', [b'', b'first' * 1000], ids=['silent', 'sent'])
@grid(only=lambda c: c.target in rig.LISTENERS,
      but=[(lambda c: c.client != 'tcp', 'only a TCP client can reset')])
def test_client_resets_before_the_target_accepts(joint, cell, first):
    """Goal: the same while the connection waits in the target's backlog."""
    j = joint(cell)
    a = j.client()
    a.send(first)
    wait_for(j.target.waiting)
    a.reset()
    b = j.target.accept()
    j.ends.append(b)
    got, fate = take(b)
    if cell.target == 'tcp':
        assert fate == 'reset', 'the target got %d bytes and a clean end' % len(got)
    else:
        wait_for(b.dead)


# ---- 3: bytes before a reset ----

ANSWER = DATA[:300]


def rounds(cell):
    return 200 if LONG else 10 if STDIO in ((cell.client,), (cell.target,)) or cell.way == 'W' else 20


@functools.lru_cache(None)
def baseline(kind, n, want, reads):
    """In which share of the rounds does everything arrive without relay?"""
    return rules.share(rules.direct_rounds(kind), n, want, lambda a, b: rules.play_bytes_before_reset(a, b, want, reads=reads))


@TIMES('reads', [0, 100], ids=['unread', 'read-some'])
@grid()
def test_bytes_before_a_reset(joint, cell, reads):
    """Goal: a target that answers 300 bytes and closes with input unread: the client gets them as often as without relay."""
    n = rounds(cell)
    direct = min(baseline(kind, n, ANSWER, reads)[0] for kind in (cell.client, cell.target))
    got, least = rules.share(rules.joint_rounds(joint(cell)), n, ANSWER,
                             lambda a, b: rules.play_bytes_before_reset(a, b, ANSWER, reads=reads))
    assert got >= direct - 0.02, '%.0f %% of %d rounds whole, %.0f %% without relay; at least %d bytes' % (
        100 * got, n, 100 * direct, least)


class Web:
    """Python's http.server, which answers a POST with 501, and closes, without a look at the body."""

    def __init__(self, target):
        class Handler(http.server.BaseHTTPRequestHandler):
            def address_string(self):
                return 'a client'

            def log_message(self, *_):
                pass

        base = socketserver.UnixStreamServer if isinstance(target, rig.UnixTarget) else socketserver.TCPServer

        class Server(socketserver.ThreadingMixIn, base):
            daemon_threads = True

            def get_request(self):
                s, address = self.socket.accept()
                s.settimeout(rig.PATIENCE)
                return s, address

            def handle_error(self, *_):
                pass
        self.server = Server(('', 0) if base is socketserver.TCPServer else target.path, Handler, bind_and_activate=False)
        self.server.socket.close()
        self.server.socket = target.sock
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()


POST = b'POST / HTTP/1.0\r\nContent-Length: 300000\r\n\r\n' + bytes(300000)


def post(address=None, end=None):
    """Send the request, as far as it is taken, then read."""
    a = end or rig.connect(address)
    try:
        rules.push(a, POST)
        return take(a)[0]
    finally:
        a.close()


def is_501(answer):
    return answer.startswith(b'HTTP/1.0 501') and b'</html>' in answer


@grid(only=lambda c: c.target in rig.LISTENERS)      # a server has a socket
def test_post_that_is_refused(joint, cell):
    """Goal: a POST of 300 kB to a server that answers 501 at once: the client reads the 501 as often as without relay."""
    n = rounds(cell)
    j = joint(cell)
    with Web(j.target):
        direct = sum(is_501(post(j.target.words[0])) for _ in range(n)) / n
        got = 0
        for _ in range(n):
            got += is_501(post(end=j.client()))
            j.hang_up()
    assert got / n >= direct - 0.02, '%.0f %% of %d got the 501, %.0f %% without relay' % (100 * got / n, n, 100 * direct)


@TIMES('size', [200 * KB, 8 * MIB], ids=['200k', '8M'])
@TIMES('cell', [pytest.param(rules.Cell(*words.split('-')), id=words) for words in ('direct-tcp-tcp', 'm-tcp-tcp', 'L-tcp-tcp')])
def test_show_large_answers_before_a_reset(joint, cell, size):
    """Goal: no promise, only shown: what becomes of a large early answer, without relay and with it."""
    answer = DATA[:size]

    def play(a, b):
        return rules.play_bytes_before_reset(a, b, answer)
    for name, source in (('without', rules.direct_rounds('tcp')), ('with', rules.joint_rounds(joint(cell)))):
        whole, least = rules.share(source, 5, answer, play)
        print('\n%s %d bytes, %s relay: %.0f %% whole, at least %d' % ('-'.join(cell), size, name, 100 * whole, least), end='')


# ---- 4: linger ----

LONG_ANSWER = DATA[:1500 * KB]


@TIMES('pace', rules.SLOWLY)
@grid(but=[(lambda c: c.target == 'tcp', 'the kernel of a TCP target that closes with input unread drops what it has not sent'),
           (lambda c: c.target == 'pipes', 'a relay whose stdout has no reader ends as SIGPIPE ends a program, unless stdin is at its end')])
def test_close_behind_an_answer_to_a_client_that_sends_on(joint, cell, pace):
    """Goal: the target reads nothing, answers 1.5 MB and closes; the client sends without end, and reads slowly, or rests while it
    reads: it gets everything, as Unix sockets and pipes give it."""
    a, b = joint(cell).connect(receive_buffer=65536 if cell.client == 'tcp' else 0)
    same(rules.play_slow_reader_sends_on(a, b, LONG_ANSWER, pace), LONG_ANSWER, 'down')


@TIMES('pace', rules.SLOWLY)
@grid()
def test_end_behind_an_answer_to_a_client_that_sends_on(joint, cell, pace):
    """Goal: the same where the target ends its half alone, and closes when the client has everything."""
    a, b = joint(cell).connect(receive_buffer=65536 if cell.client == 'tcp' else 0)
    same(rules.play_slow_reader_sends_on(a, b, LONG_ANSWER, pace, closes=False), LONG_ANSWER, 'down')
    b.close()
    rules.pump(a, lambda: False)


CLOSES = DATA[:300 * KB]


@grid()
def test_client_that_closes_behind_its_bytes(joint, cell):
    """Goal: a client writes 300 kB and closes when its kernel has sent them, while the target answers each piece, and nothing reads
    that: the target gets all, as without relay."""
    j = joint(cell)
    for _ in range(1 if j.is_stdio() else 5):
        a, b = j.connect()
        got = rules.play_client_closes(a, b, CLOSES, delivered=cell.client == 'tcp')
        assert got == CLOSES[:len(got)], 'other bytes arrived'
        same(got, CLOSES, 'up')
        j.hang_up()


@grid(only=lambda c: c.client == 'tcp')
def test_tcp_client_that_closes_at_once(joint, cell):
    """Goal: while its kernel still holds bytes, an answer makes it lose them, as without relay; what arrives is right."""
    j = joint(cell)
    for _ in range(1 if j.is_stdio() else 5):
        a, b = j.connect()
        got = rules.play_client_closes(a, b, CLOSES, delivered=False)
        assert got == CLOSES[:len(got)], 'other bytes arrived'
        j.hang_up()


# ---- 5: bytes of stdin that were not delivered ----

@TIMES('when', ['before-close', 'after-close', 'at-eof'])
@grid(only=lambda c: c.client in STDIO,      # the exit status of a listener is not that of a connection
      but=[(lambda c: c.target == 'command', 'a command that leaves its stdin is as in a pipe line; its own status counts')])
def test_undelivered_stdin(joint, cell, when):
    """Goal: the target reads 10 bytes and closes, and stdin holds more, or gets more afterwards: status 4, and one line that
    reports it."""
    if when == 'after-close' and cell.target == 'unix':
        pytest.skip('skipped: a Unix target that closes ends the connection at once, and nothing more is taken from stdin')
    j = joint(cell)
    a, b = j.connect()
    if when == 'after-close':
        a.send(DATA[:10])
    else:
        a.stuff(DATA[:65536])
    if when == 'at-eof':
        a.shut()
    assert b.read(10) == DATA[:10]
    b.close()
    take(a)
    if when == 'after-close':
        rules.push(a, DATA[:MIB])
    assert j.relay.wait() == 4, j.relay.err()
    lines = j.relay.err().splitlines()
    assert len(lines) == 1 and re.match(r'relay: .*(broke|closed|reset|lost|deliver|taken|Broken pipe)', lines[0]), lines


# ---- 6: stuck ----

def leave(j, a, how):
    """stdin comes to its end, and stdout has no reader any more, in this order, in the other or at once."""
    if how == 'stdout-last':
        a.shut()
        j.rest()
        a.close()
    elif how == 'stdin-last':
        a.deafen()
        j.rest()
        a.shut()
    else:
        a.close()


@TIMES('how', ['at-once', 'stdout-last', 'stdin-last'])
@grid(only=lambda c: c.client in STDIO)      # other clients may leave at any time: relay stays
def test_stuck_behind_a_dead_parent(joint, cell, how):
    """Goal: stdin at its end behind up to 8 MB, stdout without a reader, and a target that does not read: relay ends within 5 s
    with status 4, and nothing is left on the far side.  What was cut off is not a clean end at a TCP target."""
    j = joint(cell)
    a, b = j.connect()
    sent = rules.stuff(a, DATA)
    leave(j, a, how)
    assert j.relay.wait(5) == 4, j.relay.err()
    wait_for(lambda: not j.pids(), 5, 'no relay is left')
    got, fate = take(b)         # what the kernel has of it
    assert got == DATA[:len(got)]
    assert cell.target != 'tcp' or fate == 'reset', '%d bytes of %d arrived, and a clean end' % (len(got), sent)


# ---- 7: a slow reader ----

@TIMES('down', [True, False], ids=['down', 'up'])
@grid()
def test_slow_reader(joint, lean, cell, down):
    """Goal: 2 MB to a reader that reads 1 KB in 10 ms for a while; the other side has closed at once.  All arrives, with a clean
    end, and no relay has more than 40 MB."""
    j = joint(cell)
    a, b = j.connect(receive_buffer=16384 if cell.client == 'tcp' else 0)
    over, most = threading.Event(), [0]

    def watch():
        pids = j.pids()
        while not over.wait(0.1):
            for pid in pids:
                with contextlib.suppress(TypeError):        # it has ended
                    most.append(rig.memory(pid))

    def play():
        try:
            rules.play_slow_reader(*((b, a) if down else (a, b)), DATA[:2 * MIB])
        finally:
            over.set()
    together(play, watch)
    assert max(most) < 40 * MIB or rig.SANITIZED or rig.VALGRIND


# ---- 8: an early answer ----

@TIMES('down', [1, 300 * KB])
@grid()
def test_early_answer(joint, cell, down):
    """Goal: the target answers and ends its half before it reads; the client, which sends all the while, reads that, and all that
    it sends arrives."""
    a, b = joint(cell).connect()
    rules.play_early_answer(a, b, DATA[:3000 * KB], DATA[-down:])


# ---- 9: many resets ----

def resets(cell):
    """How many: what a link does not give back after a reset shows after 1,400 of them."""
    return 10000 if LONG else 300 if cell.way == 'direct' else 2000


@grid(only=lambda c: c.client == 'tcp' and c.target in rig.LISTENERS)    # only TCP resets, and a source has a socket
def test_resets_while_data_is_queued(joint, cell):
    """Goal: many clients, four at a time, read a little from a fast source and reset: none is refused, and afterwards a connection
    still carries 8 MB each way."""
    if LONG:
        signal.alarm(900)
    j = joint(cell)
    assert j.relay.address
    source = rules.Source(j.target)

    def clients(n):
        for i in range(n):
            a = rig.connect(j.relay.address)
            try:
                served = a.recv(1 << (i % 17))
            except ConnectionResetError:
                served = b''
            assert served, 'client %d of %d was turned away: %s' % (i, n, j.relay.err() or 'relay reports nothing')
            if i % 2:
                rules.push(a, DATA[:20000])
            a.reset()
    try:
        together(*[lambda: clients(resets(cell) // 4)] * 4)
    finally:
        source.stop()
    a = j.client()
    a.send(b'second')
    b = accept_second(j)
    together(lambda: rules.send_all(a, DATA), lambda: rules.send_all(b, DATA[::-1]), lambda: same(a.read_all(), DATA[::-1], 'down'),
             lambda: same(b.read_all(), DATA, 'up'))
    assert not j.relay.err()
    standing = 9 * 262144 if cell.way == 'R' else 0     # the stream that listens there, and the 8 that wait
    assert rules.reserved(j.relay) in (None, standing)


# ---- 10: all of it at once ----

# (rule, play(client, target, the client is TCP, the target is TCP))
MIXED = (
    ('client ends first', lambda a, b, *_: rules.play_client_ends_first(a, b, DATA[:300 * KB], DATA[:MIB])),
    ('target ends first', lambda a, b, *_: rules.play_target_ends_first(a, b, DATA[:MIB], DATA[:300 * KB])),
    ('early answer', lambda a, b, *_: rules.play_early_answer(a, b, DATA[:MIB], DATA[:300 * KB])),
    ('client resets', lambda a, b, client, target: rules.play_reset(a, b, target) if client else
        rules.play_target_ends_first(a, b, b'', b'')),
    ('target resets', lambda a, b, client, target: rules.play_reset(b, a, client) if target else
        rules.play_client_ends_first(a, b, b'', b'')),
    ('bytes before a reset', lambda a, b, *_: same(rules.play_bytes_before_reset(a, b, ANSWER), ANSWER, 'down')),
    ('slow reader', lambda a, b, *_: rules.play_slow_reader(b, a, DATA[:MIB], 20)),
    ('slow target', lambda a, b, *_: rules.play_slow_reader(a, b, DATA[:MIB], 20)),
    ('client closes', lambda a, b, client, _: same(rules.play_client_closes(a, b, CLOSES, client), CLOSES, 'up')),
    ('end behind an answer', lambda a, b, *_: same(
        rules.play_slow_reader_sends_on(a, b, DATA[:MIB], 'steady', closes=False), DATA[:MIB], 'down')),
)


def mixed(connect, crowds, kinds, n=50):
    """n connections at once, each by a rule of MIXED; connect(i) makes the i-th, crowds[i % len] has its target, kinds[i % len] is
    whether client and target are TCP.  Which rules were broken?"""
    broken = []

    def one(i):
        rule, play = MIXED[i // len(crowds) % len(MIXED)]
        a = connect(i)
        try:
            play(a, crowds[i % len(crowds)].end_of(a, i), *kinds[i % len(crowds)])
        except (AssertionError, OSError) as e:
            broken.append('%d, %s, %s: %s' % (i, rule, kinds[i % len(crowds)], str(e).splitlines()[0]))
        finally:
            a.close()
    try:
        together(*(functools.partial(one, i) for i in range(n)))
    finally:
        for crowd in crowds:
            crowd.close()
    assert not broken, '%d of %d:\n%s' % (len(broken), n, '\n'.join(sorted(broken)))


@grid(only=lambda c: c.client in rig.LISTENERS and c.target in rig.LISTENERS)     # 50 need a listener, and one that accepts
def test_mixed_at_once(joint, cell):
    """Goal: 50 connections of all these kinds at once obey their rules."""
    j = joint(cell)
    assert j.relay.address
    mixed(lambda _: rig.connect(j.relay.address), [rules.Crowd(j.target, 50)], [(cell.client == 'tcp', cell.target == 'tcp')])


def test_mixed_kinds_at_once(relay, target, tmp):
    """Goal: the same over one link that has a listener for each kind of client and target."""
    cells = [(client, kind) for client in rig.LISTENERS for kind in rig.LISTENERS]
    targets = [target(kind) for _, kind in cells]
    forwards = [word for n, (client, _) in enumerate(cells) for word in
                ('-L', '%s:%s' % ('127.0.0.1:0' if client == 'tcp' else '%s/%d' % (tmp, n), targets[n].words[0]))]
    r = relay('-q', '-x', rig.RELAY, *forwards, rules.HOP)
    assert len(r.addresses) == 4
    mixed(lambda i: rig.connect(r.addresses[i % 4]), [rules.Crowd(t, 13 - (n > 1)) for n, t in enumerate(targets)],
          [(client == 'tcp', kind == 'tcp') for client, kind in cells])
