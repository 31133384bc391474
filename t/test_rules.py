"""The rules of a connection, for every kind of client, every kind of target
and every way between them.  rules.py has the grid.

A rule is the same in all cells.  A cell is skipped if a rule cannot be tried
there, or if the kernel itself breaks the rule; the skip gives the reason.

SLOW=1 selects the long form: more rounds of what fails only sometimes.
"""
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


# ---- without relay: a rule asks for no more than the kernel gives ----

def control(kind, rule, a, b):
    """Play one rule between a client and a target of this kind."""
    if rule == 'client-first':
        rules.play_client_ends_first(a, b, DATA[:3000 * KB], DATA[-3000 * KB:])
    elif rule == 'target-first':
        rules.play_target_ends_first(a, b, DATA[:3000 * KB], DATA[-3000 * KB:])
    elif rule == 'before-reset':
        same(rules.play_bytes_before_reset(a, b, ANSWER), ANSWER, 'down')
    elif rule == 'early-answer':
        rules.play_early_answer(a, b, DATA[:3000 * KB], ANSWER)
    elif rule == 'slow-reader':
        rules.play_slow_reader(b, a, DATA[:2 * MIB])
    elif rule == 'client-closes':
        same(rules.play_client_closes(a, b, CLOSES, kind == 'tcp'), CLOSES, 'up')
    else:
        closes = rule == 'close-behind-answer'
        same(rules.play_slow_reader_sends_on(a, b, LONG_ANSWER, 'rests', closes), LONG_ANSWER,
             'down')


CONTROLS = ('client-first', 'target-first', 'before-reset', 'early-answer', 'slow-reader',
            'client-closes', 'end-behind-answer', 'close-behind-answer')


@TIMES('kind, rule', [(kind, rule) for kind in ('tcp', 'unix', 'pipes') for rule in CONTROLS
                      # TCP discards unsent bytes when a socket is closed with
                      # input unread
                      if (kind, rule) != ('tcp', 'close-behind-answer')])
def test_without_relay(kind, rule):
    """Goal: the kernel without relay obeys each rule.  So a failure in a later
    test is relay's fault."""
    a, b = rules.without_relay(kind)
    control(kind, rule, a, b)
    a.close()
    b.close()


# ---- 1: half-closes ----

AMOUNTS = ((0, 0), (0, 3000 * KB), (1, 300 * KB), (300 * KB, 1), (3000 * KB, 0),
           (3000 * KB, 3000 * KB))


@TIMES('play', [rules.play_client_ends_first, rules.play_target_ends_first],
       ids=['client-first', 'target-first'])
@grid()
def test_half_close(joint, cell, play):
    """Goal: after EOF in one direction, the other direction carries any
    amount, and all of it arrives before its EOF.  relay on stdin and stdout
    then exits with status 0."""
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
    """Check that the end, which is of this kind, sees that the connection
    broke."""
    fate = end.fate()
    if kind == 'tcp':
        assert fate == 'reset', 'a reset arrived as EOF'
    wait_for(end.dead, what='an error at the %s end' % kind)
    if j.is_stdio():
        assert j.relay.wait() == 4, j.relay.err()


@BUSY
@grid(but=[(lambda c: c.client != 'tcp', 'only a TCP client can send a reset')])
def test_client_resets(joint, cell, busy):
    """Goal: a reset by the client arrives as a reset at a TCP target, and as a
    hang-up at any other.  The same holds while bytes are queued."""
    j = joint(cell)
    a, b = j.connect()
    ping(a, b)
    if busy:
        a.stuff(DATA[:MIB])
    a.reset()
    sees_reset(j, b, cell.target)


@BUSY
@grid(but=[(lambda c: c.target != 'tcp', 'only a TCP target can send a reset')])
def test_target_resets(joint, cell, busy):
    """Goal: a reset by the target arrives at the client in the same way.
    relay on stdin and stdout exits with status 4."""
    j = joint(cell)
    a, b = j.connect()
    ping(a, b)
    if busy:
        b.stuff(DATA[:MIB])
    b.reset()
    sees_reset(j, a, cell.client)


def connecting(port):
    """The number of this host's TCP sockets in SYN_SENT to the port."""
    with open('/proc/net/tcp') as f:
        return sum(line.split()[2].endswith(':%04X' % port)
                   and line.split()[3] == '02' for line in f)


class Full:
    """A target whose backlog is full until open()."""

    def __init__(self, target):
        self.target = target
        # a tunnel with -w has connected once to test the target
        while target.waiting():
            target.accept().close()
        target.sock.listen(0)
        self.filler = rig.connect(target.words[0])

    def open(self):
        self.target.sock.listen(1024)
        self.target.accept().close()
        self.filler.close()


@TIMES('first', [b'', b'first' * 1000], ids=['silent', 'sent'])
# a command and stdout have no backlog
@grid(only=lambda c: c.target in rig.LISTENERS,
      but=[(lambda c: c.client != 'tcp', 'only a TCP client can send a reset')])
def test_client_resets_while_the_far_side_dials(joint, cell, first):
    """Goal: if a client resets before its target accepts, the target sees a
    reset or no connection, and never a clean EOF."""
    tcp = cell.target == 'tcp'
    # a Unix socket with a full backlog gives EAGAIN, and relay must retry
    wait = [] if tcp else ['-w', '20']
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
    """Accept until a client sends b'second', and return the target's end of it.
    A TCP target must see a reset on each connection before it."""
    while True:
        b = j.target.accept()
        j.ends.append(b)
        got, fate = read_tag(b)
        if got == b'second':
            return b
        assert j.cell.target != 'tcp' or fate == 'reset', \
            'the target got %d bytes and EOF' % len(got)


def read_tag(end):
    """Read until b'second', and return it and None.  If the stream ends first,
    return its bytes and 'end' or 'reset'."""
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
      but=[(lambda c: c.client != 'tcp', 'only a TCP client can send a reset')])
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
        assert fate == 'reset', 'the target got %d bytes and EOF' % len(got)
    else:
        wait_for(b.dead)


# ---- 3: bytes before a reset ----

ANSWER = DATA[:300]


def rounds(cell):
    """The number of rounds.  POSIX alone does not show that bytes have arrived,
    so each reset behind them waits for 0.25 s."""
    return 200 if LONG else 5 if not rig.EXTRAS else 10 if cell.way == 'W' else 20


@functools.lru_cache(None)
def baseline(kind, n, want, reads):
    """The share of rounds in which everything arrives without relay, for one
    kind of end."""
    return rules.share(rules.direct_rounds(kind), n, want,
                       lambda a, b: rules.play_bytes_before_reset(a, b, want, reads=reads))


@TIMES('reads', [0, 100], ids=['unread', 'read-some'])
@grid()
def test_bytes_before_a_reset(joint, cell, reads):
    """Goal: if the target answers 300 bytes and closes with input unread, the
    client gets the answer as often as without relay."""
    n = rounds(cell)
    direct = min(baseline(kind, n, ANSWER, reads)[0] for kind in (cell.client, cell.target))
    got, least = rules.share(rules.joint_rounds(joint(cell)), n, ANSWER,
                             lambda a, b: rules.play_bytes_before_reset(a, b, ANSWER, reads=reads))
    assert got >= direct - 0.02, \
        '%.0f %% of %d rounds whole, %.0f %% without relay; at least %d bytes' % (
        100 * got, n, 100 * direct, least)


@contextlib.contextmanager
def web_server(target):
    """Python's http.server on the target: it answers a POST with 501 and
    closes without reading the body."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def address_string(self):
            return 'a client'

        def log_message(self, *_):
            pass

    unix = isinstance(target, rig.UnixTarget)
    base = socketserver.UnixStreamServer if unix else socketserver.TCPServer

    class Server(socketserver.ThreadingMixIn, base):
        daemon_threads = True

        def get_request(self):
            s, address = self.socket.accept()
            s.settimeout(rig.PATIENCE)
            return s, address

        def handle_error(self, *_):
            pass

    server = Server(target.path if unix else ('', 0), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = target.sock
    with rig.serving(server):
        yield


POST = b'POST / HTTP/1.0\r\nContent-Length: 300000\r\n\r\n' + bytes(300000)


def answer_to_post(address=None, end=None):
    """Send the request until the server closes, then read the answer."""
    a = end or rig.connect(address)
    try:
        rules.push(a, POST)
        return take(a)[0]
    finally:
        a.close()


def is_501(answer):
    return answer.startswith(b'HTTP/1.0 501') and b'</html>' in answer


# http.server needs a listening socket
@grid(only=lambda c: c.target in rig.LISTENERS)
def test_post_that_is_refused(joint, cell):
    """Goal: if a server answers a POST of 300 kB with 501 at once, the client
    reads the 501 as often as without relay."""
    n = rounds(cell)
    j = joint(cell)
    with web_server(j.target):
        direct = sum(is_501(answer_to_post(j.target.words[0])) for _ in range(n)) / n
        got = 0
        for _ in range(n):
            got += is_501(answer_to_post(end=j.client()))
            j.hang_up()
    assert got / n >= direct - 0.02, \
        '%.0f %% of %d got the 501, %.0f %% without relay' % (100 * got / n, n, 100 * direct)


@TIMES('size', [200 * KB, 8 * MIB], ids=['200k', '8M'])
@TIMES('cell',
       [pytest.param(rules.Cell(*words.split('-')), id=words)
        for words in ('direct-tcp-tcp', 'm-tcp-tcp', 'L-tcp-tcp')])
def test_show_large_answers_before_a_reset(joint, cell, size):
    """Goal: show how much of a large early answer arrives, with relay and
    without.  There is no promise to check."""
    answer = DATA[:size]

    def play(a, b):
        return rules.play_bytes_before_reset(a, b, answer)
    for name, source in (('without', rules.direct_rounds('tcp')),
                         ('with', rules.joint_rounds(joint(cell)))):
        # with POSIX alone, each round takes two seconds
        whole, least = rules.share(source, 5 if rig.EXTRAS else 1, answer, play)
        print('\n%s %d bytes, %s relay: %.0f %% whole, at least %d'
              % ('-'.join(cell), size, name, 100 * whole, least), end='')


# ---- 4: linger ----

LONG_ANSWER = DATA[:1500 * KB]


def answer_while_client_sends(j, closes):
    """Two clients at the same time, one for each pace of rules.SLOWLY: each
    must get LONG_ANSWER.  Return the pairs of ends."""
    receive_buffer = 65536 if j.cell.client == 'tcp' else 0
    pairs = [j.connect(receive_buffer=receive_buffer) for _ in rules.SLOWLY]
    answers = together(*(
        functools.partial(rules.play_slow_reader_sends_on, a, b, LONG_ANSWER, pace, closes)
        for (a, b), pace in zip(pairs, rules.SLOWLY)))
    for answer, pace in zip(answers, rules.SLOWLY):
        same(answer, LONG_ANSWER, 'down, ' + pace)
    return pairs


@grid(but=[(lambda c: c.target == 'tcp',
            'TCP discards unsent bytes when a target closes with input unread'),
           (lambda c: c.target == 'pipes',
            'relay ends, as by SIGPIPE, when stdout has no reader and stdin is open')])
def test_close_behind_an_answer_to_a_client_that_sends_on(joint, cell):
    """Goal: the target reads nothing, answers 1.5 MB and closes, while the
    client sends without end and reads slowly or pauses.  The client gets the
    whole answer, as through Unix sockets and pipes."""
    answer_while_client_sends(joint(cell), closes=True)


@grid()
def test_end_behind_an_answer_to_a_client_that_sends_on(joint, cell):
    """Goal: the same if the target only sends EOF, and closes after the client
    has the whole answer."""
    pairs = answer_while_client_sends(joint(cell), closes=False)
    for _, b in pairs:
        b.close()
    together(*(functools.partial(rules.pump, a, lambda: False) for a, _ in pairs))


CLOSES = DATA[:300 * KB]


@grid()
def test_client_that_closes_behind_its_bytes(joint, cell):
    """Goal: a client writes 300 kB and closes as soon as its kernel has sent
    them; the target's answers are not read.  The target gets all bytes, as
    without relay."""
    j = joint(cell)
    for _ in range(1 if j.is_stdio() else 5):
        a, b = j.connect()
        got = rules.play_client_closes(a, b, CLOSES, delivered=cell.client == 'tcp')
        assert got == CLOSES[:len(got)], 'other bytes arrived'
        same(got, CLOSES, 'up')
        j.hang_up()


@grid(only=lambda c: c.client == 'tcp')
def test_tcp_client_that_closes_at_once(joint, cell):
    """Goal: if a TCP client closes at once, an answer makes its kernel discard
    bytes, as without relay.  The bytes that do arrive are correct."""
    j = joint(cell)
    for _ in range(1 if j.is_stdio() else 5):
        a, b = j.connect()
        got = rules.play_client_closes(a, b, CLOSES, delivered=False)
        assert got == CLOSES[:len(got)], 'other bytes arrived'
        j.hang_up()


# ---- 5: bytes of stdin that were not delivered ----

@TIMES('when', ['before-close', 'after-close', 'at-eof'])
# a listener's exit status does not depend on its connections
@grid(only=lambda c: c.client in STDIO,
      but=[(lambda c: c.target == 'command',
            'a command may leave its stdin unread; its own status counts')])
def test_undelivered_stdin(joint, cell, when):
    """Goal: the target reads 10 bytes and closes, while stdin holds more or
    gets more later.  relay logs one line about it and exits with status 4."""
    if when == 'after-close' and cell.target == 'unix':
        pytest.skip('skipped: a Unix target that closes ends the connection at once, '
                    'and stdin is not read any more')
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
    assert len(lines) == 1 \
        and re.match(r'relay: .*(broke|closed|reset|lost|deliver|taken|Broken pipe)',
                     lines[0]), lines


# ---- 6: stuck ----

def leave(relay, a, how):
    """Send EOF on stdin and close the reader of stdout, in the order that
    `how` names."""
    if how == 'stdout-last':
        a.shut()
        rig.quiet(relay.pid)
        a.close()
    elif how == 'stdin-last':
        a.shut_read()
        rig.quiet(relay.pid)
        a.shut()
    else:
        a.close()


# a listener stays when a client leaves
@grid(only=lambda c: c.client in STDIO)
def test_stuck_behind_a_dead_parent(joint, cell):
    """Goal: stdin is at EOF with up to 8 MB queued, stdout has no reader, and
    the target does not read.  relay exits with status 4 within 5 s, the far
    side too, and a TCP target sees no clean EOF after incomplete data."""
    j = joint(cell)

    def dies(how, relay, a, b):
        sent = rules.stuff(a, DATA)
        leave(relay, a, how)
        assert relay.wait(5) == 4, (how, relay.err())
        got, fate = take(b)    # the bytes that the kernel holds
        assert got == DATA[:len(got)], how
        assert cell.target != 'tcp' or fate == 'reset', \
            '%s: %d bytes of %d arrived, and EOF' % (how, len(got), sent)

    jobs = []
    for how in ('at-once', 'stdout-last', 'stdin-last'):
        a, b = j.connect()
        jobs.append(functools.partial(dies, how, j.relay, a, b))
    together(*jobs)
    wait_for(lambda: not j.pids(), 5, 'no relay is left')


# ---- 7: a slow reader ----

@grid()
def test_slow_reader(joint, lean, cell):
    """Goal: 2 MB arrive, with a clean EOF, at a reader that first reads 1 KB
    every 10 ms, though the writer closed at once.  The reader is once the
    client and once the target.  No relay uses more than 40 MB."""
    j = joint(cell)
    pairs = [j.connect(receive_buffer=16384 if cell.client == 'tcp' else 0) for _ in 'du']
    over, most = threading.Event(), [0]

    def watch():
        pids = j.pids()
        while not over.wait(0.1):
            for pid in pids:
                with contextlib.suppress(TypeError):    # the process has exited
                    most.append(rig.memory(pid))

    def play():
        (down_reader, down_writer), (up_writer, up_reader) = pairs
        try:
            together(lambda: rules.play_slow_reader(down_writer, down_reader, DATA[:2 * MIB]),
                     lambda: rules.play_slow_reader(up_writer, up_reader, DATA[:2 * MIB]))
        finally:
            over.set()
    together(play, watch)
    assert max(most) < 40 * MIB or rig.SANITIZED or rig.VALGRIND


# ---- 8: an early answer ----

@TIMES('down', [1, 300 * KB])
@grid()
def test_early_answer(joint, cell, down):
    """Goal: the target answers and sends EOF before it reads, while the client
    keeps sending.  The client gets the answer, and the target gets everything.
    """
    a, b = joint(cell).connect()
    rules.play_early_answer(a, b, DATA[:3000 * KB], DATA[-down:])


# ---- 9: many resets ----

def resets(cell):
    """The number of resets.  A leak in a link shows after 1,400 of them.  It
    does not depend on the system, and with POSIX alone, a reset behind 20,000
    bytes takes two seconds."""
    return 10000 if LONG else 300 if cell.way == 'direct' or not rig.EXTRAS else 2000


# only TCP can reset, and the source is a listener
@grid(only=lambda c: c.client == 'tcp' and c.target in rig.LISTENERS)
def test_resets_while_data_is_queued(joint, cell):
    """Goal: many clients, four at a time, read a little from a fast source and
    reset.  None is refused, and afterwards a connection still carries 8 MB in
    each direction."""
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
            cause = j.relay.err() or 'relay logged nothing'
            assert served, 'client %d of %d was refused: %s' % (i, n, cause)
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
    together(lambda: rules.send_all(a, DATA), lambda: rules.send_all(b, DATA[::-1]),
             lambda: same(a.read_all(), DATA[::-1], 'down'), lambda: same(b.read_all(), DATA, 'up'))
    assert not j.relay.err()
    # the remote listener's stream, and 8 that wait for its connections
    standing = 9 * 262144 if cell.way == 'R' else 0
    assert rules.reserved(j.relay) in (None, standing)


# ---- 10: all of it at once ----

# (rule, play(client, target, the client is TCP, the target is TCP))
MIXED = (
    ('client ends first',
     lambda a, b, *_: rules.play_client_ends_first(a, b, DATA[:300 * KB], DATA[:MIB])),
    ('target ends first',
     lambda a, b, *_: rules.play_target_ends_first(a, b, DATA[:MIB], DATA[:300 * KB])),
    ('early answer', lambda a, b, *_: rules.play_early_answer(a, b, DATA[:MIB], DATA[:300 * KB])),
    ('client resets', lambda a, b, client, target: rules.play_reset(a, b, target) if client else
        rules.play_target_ends_first(a, b, b'', b'')),
    ('target resets', lambda a, b, client, target: rules.play_reset(b, a, client) if target else
        rules.play_client_ends_first(a, b, b'', b'')),
    ('bytes before a reset',
     lambda a, b, *_: same(rules.play_bytes_before_reset(a, b, ANSWER), ANSWER, 'down')),
    ('slow reader', lambda a, b, *_: rules.play_slow_reader(b, a, DATA[:MIB], 20)),
    ('slow target', lambda a, b, *_: rules.play_slow_reader(a, b, DATA[:MIB], 20)),
    ('client closes',
     lambda a, b, client, _: same(rules.play_client_closes(a, b, CLOSES, client), CLOSES, 'up')),
    ('end behind an answer', lambda a, b, *_: same(
        rules.play_slow_reader_sends_on(a, b, DATA[:MIB], 'steady', closes=False), DATA[:MIB],
        'down')),
)


def mixed(connect, crowds, kinds, n=50):
    """Run n connections at the same time, each by one rule of MIXED.
    connect(i) makes the i-th; crowds and kinds are cyclic lists of its target
    and of (client is TCP, target is TCP).  A broken rule fails the test."""
    broken = []

    def one(i):
        rule, play = MIXED[i // len(crowds) % len(MIXED)]
        a = connect(i)
        try:
            play(a, crowds[i % len(crowds)].end_of(a, i), *kinds[i % len(crowds)])
        except (AssertionError, OSError) as e:
            broken.append('%d, %s, %s: %s'
                          % (i, rule, kinds[i % len(crowds)], str(e).splitlines()[0]))
        finally:
            a.close()
    try:
        together(*(functools.partial(one, i) for i in range(n)))
    finally:
        for crowd in crowds:
            crowd.close()
    assert not broken, '%d of %d:\n%s' % (len(broken), n, '\n'.join(sorted(broken)))


# 50 clients need a listener and a target that accepts
@grid(only=lambda c: c.client in rig.LISTENERS and c.target in rig.LISTENERS)
def test_mixed_at_once(joint, cell):
    """Goal: 50 connections at the same time, of all these kinds, obey their
    rules."""
    j = joint(cell)
    assert j.relay.address
    mixed(lambda _: rig.connect(j.relay.address), [rules.Crowd(j.target, 50)],
          [(cell.client == 'tcp', cell.target == 'tcp')])


def test_mixed_kinds_at_once(relay, target, tmp):
    """Goal: the same over one link with a listener for each kind of client and
    target."""
    cells = [(client, kind) for client in rig.LISTENERS for kind in rig.LISTENERS]
    targets = [target(kind) for _, kind in cells]
    forwards = [word for n, (client, _) in enumerate(cells) for word in
                ('-L', '%s:%s'
                 % ('127.0.0.1:0' if client == 'tcp' else '%s/%d' % (tmp, n), targets[n].words[0]))]
    r = relay('-q', '-x', rig.RELAY, *forwards, rules.HOP)
    assert len(r.addresses) == 4
    mixed(lambda i: rig.connect(r.addresses[i % 4]),
          [rules.Crowd(t, 13 - (n > 1)) for n, t in enumerate(targets)],
          [(client == 'tcp', kind == 'tcp') for client, kind in cells])
