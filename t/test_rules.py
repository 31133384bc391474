"""The rules of a connection, over every way to join every kind of client with every kind of target: rules.py has the grid.

A rule holds in all cells alike.  Where a cell cannot be tried, or the kernel itself gives less, the parametrization says so.
SLOW=1 runs the long form: more rounds of what fails now and then."""
import contextlib
import functools
import http.server
import os
import re
import signal
import socket
import socketserver
import threading
import time

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


# ---- 1: half-closes ----

AMOUNTS = ((0, 0), (0, 3000 * KB), (1, 300 * KB), (300 * KB, 1), (3000 * KB, 0), (3000 * KB, 3000 * KB))


@TIMES('play', [rules.play_client_ends_first, rules.play_target_ends_first], ids=['client-first', 'target-first'])
@grid()
def test_half_close(joint, cell, play):
    """Goal: an end of either side stands behind all its bytes, and the other side then says what it likes, however much: all of it
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
        target.sock.listen(0)
        self.filler = rig.connect(target.words[0])

    def open(self):
        self.target.sock.listen(1024)
        self.target.accept().close()
        self.filler.close()


@TIMES('first', [b'', b'first' * 1000], ids=['silent', 'spoke'])
@grid(only=lambda c: c.target in rig.LISTENERS,      # a command or stdout is there at once
      but=[(lambda c: c.client != 'tcp', 'only a TCP client can reset')])
def test_client_resets_while_the_far_side_dials(joint, cell, first):
    """Goal: a client that resets before its target has accepted is never a clean end there: there is no connection, or a reset."""
    j = joint(cell)
    full = Full(j.target)
    a = j.client()
    a.send(first)
    if cell.target == 'tcp':
        wait_for(lambda: connecting(rig.host_port(j.target.words[0])[1]))
    j.rest()
    a.reset()
    j.rest()
    second = j.client()
    second.send(b'second')
    j.rest()
    full.open()
    while True:
        b = j.target.accept()
        j.ends.append(b)
        got, fate = read_tag(b)
        if got == b'second':
            break
        assert cell.target != 'tcp' or fate == 'reset', 'the target got %d bytes and a clean end' % len(got)
    b.send(b'well')
    assert second.read(4) == b'well'


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


@TIMES('first', [b'', b'first' * 1000], ids=['silent', 'spoke'])
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


@functools.lru_cache(None)
def answers_to_one_that_sends_on(kind):
    """Without relay: the bytes that arrive, the fewest of three."""
    least = len(LONG_ANSWER)
    for _, (a, b) in zip(range(3), rules.direct_rounds(kind)):
        least = min(least, len(rules.play_slow_reader_sends_on(a, b, LONG_ANSWER, pause=0.3)))
    return least


@grid()
def test_answer_to_a_client_that_sends_on(joint, cell):
    """Goal: the target reads nothing, answers 1.5 MB and closes; the client sends without end, and rests for longer than a second
    while it reads.  It gets everything, wherever a target of this kind can give everything to one that sends on: not a TCP target,
    whose kernel drops the answer with the reset."""
    direct = min(answers_to_one_that_sends_on(kind) for kind in {cell.target})
    a, b = joint(cell).connect()
    got = rules.play_slow_reader_sends_on(a, b, LONG_ANSWER)
    assert got == LONG_ANSWER[:len(got)], 'other bytes arrived'
    if direct == len(LONG_ANSWER):
        same(got, LONG_ANSWER, 'down')


CLOSES = DATA[:300 * KB]


@functools.lru_cache(None)
def closes_direct(kind, delivered):
    """Without relay: the bytes that arrive, the fewest of ten."""
    least = len(CLOSES)
    for _, (a, b) in zip(range(10), rules.direct_rounds(kind)):
        least = min(least, len(rules.play_client_closes(a, b, CLOSES, delivered)))
    return least


@TIMES('delivered', [True, False], ids=['taken', 'at-once'])
@grid(but=[])
def test_client_that_closes_behind_its_bytes(joint, cell, delivered):
    """Goal: a client writes 300 kB and closes, while the target answers each piece, which nothing reads: the target gets all.
    A TCP client that closes before its own kernel has sent everything may lose the rest, as without relay."""
    if cell.client != 'tcp' and delivered:
        delivered = False               # the kernel has taken what was written
    direct = closes_direct(cell.client, delivered)
    j = joint(cell)
    for _ in range(1 if j.is_stdio() else 5):
        a, b = j.connect()
        got = rules.play_client_closes(a, b, CLOSES, delivered)
        assert got == CLOSES[:len(got)], 'other bytes arrived'
        if direct == len(CLOSES):
            same(got, CLOSES, 'up')
        j.hang_up()


# ---- 5: what stdin said and was not delivered ----

@TIMES('when', ['before-close', 'after-close', 'at-eof'])
@grid(only=lambda c: c.client in STDIO,      # the exit status of a listener is not that of a connection
      but=[(lambda c: c.target == 'command', 'a command that leaves its stdin is as in a pipe line; its own status counts')])
def test_undelivered_stdin(joint, cell, when):
    """Goal: the target reads 10 bytes and closes, and stdin holds more, or gets more afterwards: status 4, and one line that says so."""
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
    assert len(lines) == 1 and re.match(r'relay: .*(broke|closed|reset|lost|deliver|taken)', lines[0]), lines
