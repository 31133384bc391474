"""A hostile far side of a tunnel: python3 evil.py LIE sh.

It replaces the sh of a hop.  The lies in SHELL and SILENT are answers before
the link is up.  Those in LINK come from a far relay, those in SLOTS, REJOIN and
SECOND from one that keeps a session, and those in PROBE answer relay -n.  It
exits at EOF on stdin; some lies end it earlier.
"""
import contextlib
import itertools
import os
import signal
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import wire

ESCAPES = b'\x1b[2J\x1b]0;title\x07\x9b31m\xc2\x9b31m\x08\x7f\r relay: all is well'
KIND = '%s-%s' % (os.uname().sysname, os.uname().machine)
BLOCK = 65536


def read(n):
    """Read exactly n bytes; exit at EOF."""
    got = b''
    while len(got) < n:
        data = os.read(0, n - len(got))
        if not data:
            sys.exit(0)
        got += data
    return got


def write(data, fd=1):
    while data:
        data = data[os.write(fd, data):]


def say(words):
    write(b'relay:: ' + (words if isinstance(words, bytes) else words.encode()) + b'\n')


def stay():
    while os.read(0, BLOCK):
        pass


def script():
    """Read the line that relay sends to a shell, and return it."""
    line = b''
    while not line.endswith(b'\n'):
        line += read(1)
    return line


# ---- before there is a link ----

def huge_line():
    write(b'relay:: at /')
    for _ in range(160):
        write(b'x' * BLOCK)


def endless(word):
    def tell():
        while True:
            write(word * (BLOCK // len(word)))
    return tell


def endless_stderr(line):
    """Four processes write at the same time, so that the pipe is never empty.
    """
    def tell():
        for _ in range(4):
            if os.fork() == 0:
                with contextlib.suppress(BrokenPipeError):
                    while True:
                        write(line * (BLOCK // len(line)), 2)
                os._exit(0)
    return tell


def wants(kind, times=1, take=0):
    """Ask for a binary `times` times, and read `take` bytes after each."""
    def tell():
        for _ in range(times):
            say('want %s /tmp' % kind)
            read(take)
    return tell


def leaves_the_copy():
    wants(KIND, take=10000)()
    sys.exit(0)


def deaf_in_the_copy():
    wants(KIND, take=10000)()
    os.close(0)
    wait_for_parent()


def wait_for_parent():
    """Read nothing more, and wait until the parent, relay, sends a signal."""
    signal.pause()


def says(*words):
    def tell():
        for each in words:
            say(each)
    return tell


SHELL = {
    'huge-line': huge_line,
    'noise': endless(b'\x1b[31mnoise\xff\0'),
    'answers': endless(b'relay:: here\n'),
    'left': endless(b'relay:: left ../../x\n'),
    'half-magics': endless(wire.MAGIC[:9]),
    'odd-answer': says(b'reboot ' + ESCAPES),
    'empty-answer': says(b''),
    'no': says(b'no ' + ESCAPES + b'x' * 3000),
    'none': says(b'none ' + ESCAPES * 20),
    'fail': says(b'fail ' + ESCAPES * 60),
    'wants-a-file': wants('../../../../etc/passwd'),
    'wants-nothing': says('want'),
    'wants-more': wants(KIND + 'x'),
    'wants-less': wants(KIND[:-1]),
    'wants-for-ever': wants(KIND, times=100),
    'wants-and-takes-for-ever': wants(KIND, times=100, take=50000),
    'leaves-the-copy': leaves_the_copy,
    'deaf-in-the-copy': deaf_in_the_copy,
    'at-and-noise': lambda: (say(b'at ' + ESCAPES), endless(b'noise')()),
    'stderr': lambda: (write(ESCAPES + b'\n' + b'x' * 100000 + b'\n', 2), sys.exit(1)),
}
SILENT = {
    'silent': lambda: None,
    'here-and-silent': says('here'),
    'takes-no-copy': wants(KIND),
    'chatters-on-stderr': endless_stderr(b'x' * 63 + b'\n'),
    'magic-and-silent': lambda: (says('here', 'at /x')(), write(wire.MAGIC)),
}


# ---- a link ----

class Far(wire.Wire):
    """A far relay that echoes each stream, until a lie changes that."""

    def __init__(self):
        super().__init__(read, write)
        self.ended = set()

    def start(self, session=b'', **hello):
        say('at ' + sys.argv[0])
        write(wire.MAGIC + wire.hello(wire.FAR, newest=2 if session else 0, **hello) + session)
        self.magic()
        self.frame(wire.HELLO)

    def answer(self, kind, stream, body):
        if kind == wire.OPEN:
            write(wire.frame(wire.OPENED, stream))
        elif kind == wire.DATA:
            write(wire.frame(wire.DATA, stream, body) + wire.frame(wire.CREDIT, stream, len(body).to_bytes(4, 'big')))
        elif kind in (wire.EOF, wire.STOP) and stream not in self.ended:
            self.ended.add(stream)
            write(wire.frame(wire.EOF, stream))
        elif kind == wire.CLOSE:
            self.ended.discard(stream)
            write(wire.words(wire.CLOSE, stream, 0))
        elif kind == wire.BYE:
            sys.exit(0)
        self.ack()

    def serve(self, special=lambda kind, stream, body: False):
        while True:
            frame = self.frame()
            if frame is None or not special(*frame):
                self.answer(*frame)


def recv_window(body):
    return int.from_bytes(body[4:8], 'big')


def refuses(far):
    """Refuse every second stream, with text that would control a terminal."""
    opened = itertools.count()

    def special(kind, stream, body):
        if kind == wire.OPEN and not body[8:].startswith(b'=check/') and next(opened) % 2:
            write(wire.frame(wire.CLOSE, stream, (b'\0\x02' + ESCAPES * 20)[:514]))
            return True
        return kind == wire.CLOSE
    far.serve(special)


def fills(far):
    """Send all that near's credit allows, whether it is read or not."""
    def special(kind, stream, body):
        room = recv_window(body) if kind == wire.OPEN else int.from_bytes(body, 'big') if kind == wire.CREDIT else 0
        if kind == wire.OPEN:
            write(wire.frame(wire.OPENED, stream))
        while room > 0:
            n = min(room, BLOCK)
            write(wire.frame(wire.DATA, stream, b'f' * n))
            room -= n
        return room == 0 and kind in (wire.OPEN, wire.CREDIT, wire.DATA)
    far.serve(special)


def credits(far):
    """Give each stream credit for 2 GiB; after 60 streams, read nothing more.
    """
    opened = []

    def special(kind, stream, body):
        if kind == wire.OPEN:
            opened.append(stream)
            write(wire.frame(wire.OPENED, stream) + wire.frame(wire.CREDIT, stream, (0x7fffffff - wire.WINDOW).to_bytes(4, 'big')))
            if len(opened) == 60:
                wait_for_parent()
        return True
    far.serve(special)


def mute(far):
    """Send ACKs and nothing else."""
    while True:
        far.frame()
        far.ack()


def late(far):
    """Echo.  Also send ACKs with a delay of over an hour, and many PINGs."""
    def special(kind, stream, body):
        far.answer(kind, stream, body)
        write(wire.frame(wire.ACK, 0, far.got.to_bytes(8, 'big') + b'\xff' * 4) + wire.frame(wire.PING) * 100)
        return True
    far.serve(special)


def talks(far):
    endless_stderr(b'x' * 63 + b'\n')()
    far.serve()


def later_words(far):
    """Echo, and send many frames of a type that near must skip."""
    def special(kind, stream, body):
        write(wire.frame(255, stream, b's' * 8192) * 100)
    far.serve(special)


def opens(far):
    """Open a stream to the name that the received DATA contains."""
    def special(kind, stream, body):
        if kind == wire.DATA:
            write(wire.open_(1001, body.decode()))
            return True
    far.serve(special)


def listens(answer):
    """Answer =listen with these bytes, and never answer =accept."""
    def tell(far):
        def special(kind, stream, body):
            if kind == wire.OPEN and body[8:].startswith(b'=listen'):
                write(wire.frame(wire.OPENED, stream) + wire.frame(wire.DATA, stream, answer))
            return kind == wire.OPEN
        far.serve(special)
    return tell


def listens_not(far):
    def special(kind, stream, body):
        if kind == wire.OPEN:
            write(wire.frame(wire.CLOSE, stream, b'\0\x04' + ESCAPES))
        return kind in (wire.OPEN, wire.CLOSE)
    far.serve(special)


def accepts(far):
    """Answer =listen, and report a connection at once for each =accept."""
    def special(kind, stream, body):
        if kind == wire.OPEN:
            write(wire.frame(wire.OPENED, stream))
            if body[8:].startswith(b'=listen'):
                write(wire.frame(wire.DATA, stream, b'/there\n\n'))
            return True
    far.serve(special)


LINK = {f.__name__.replace('_', '-'): f for f in (refuses, fills, credits, mute, late, later_words, talks, opens, listens_not, accepts)}
LINK.update({
    'echo': lambda far: far.serve(),
    'listens-escapes': listens(b'127.0.0.1:1' + ESCAPES + b'\0\n\n'),
    'listens-endless': listens(b'x' * 5000),
    'listens-everywhere': listens(b'127.0.0.1:1\n' * 300 + b'\n'),
})


# ---- a session ----

OPENED = wire.frame(wire.OPENED, 1)


def gaps(order):
    """Send 20,000 bytes of stream 1, each in a piece of its own and with a gap
    before it.  On other streams, answer each DATA: is stream 1 reset?"""
    def tell(far):
        reset = []

        def special(kind, stream, body):
            if kind == wire.OPEN and stream == 1:
                write(OPENED + b''.join(wire.data_at(2 * i + 1) for i in order))
                return True
            if kind == wire.CLOSE and stream == 1:
                reset.append(stream)
                return True
            if kind == wire.DATA:
                far.answer(kind, stream, b'true' if reset else b'none')
                return True
        far.serve(special)
    return tell


def holds_back(far):
    """Send all that near's window allows, except the first byte."""
    def special(kind, stream, body):
        if kind == wire.OPEN and not body[8:].startswith(b'=check/'):
            room = recv_window(body) - 1
            write(wire.frame(wire.OPENED, stream))
            for at in range(0, room, BLOCK):
                write(wire.data_at(1 + at, bytes(min(BLOCK, room - at)), stream))
            return True
    far.serve(special)


def harmless(far):
    """Frames about channels of earlier generations, and a LIMITED that began
    before this host was started."""
    write(wire.lost(3, 0, 1 << 60) + wire.tail(3, 0, 1 << 60, b'x' * 60000) + wire.tail(7, 0, 0) +
          wire.limited(0xffffffff) * 1000)
    far.serve()


KEPT = {
    'gaps': gaps(range(20000)),
    'gaps-before-a-piece': gaps([20000, *range(20000)]),
    'holds-back': holds_back,
    'harmless': harmless,
}

# What comes after OPEN of stream 1.
SLOTS = {
    'data-at-twice': lambda far: OPENED + wire.data_at(0) * 2,
    'data-at-early-twice': lambda far: OPENED + wire.data_at(9, b'xx') + wire.data_at(10),
    'data-at-beyond': lambda far: OPENED + wire.data_at(1 << 40),
    'data-at-the-end-of-numbers': lambda far: OPENED + wire.data_at((1 << 64) - 1, b'xx'),
    'data-at-without-data': lambda far: OPENED + wire.data_at(0, b''),
    'data-after-final': lambda far: wire.final(5) + wire.frame(wire.DATA, 1, b'x'),
    'data-at-after-final': lambda far: wire.final(5) + wire.data_at(5),
    'final-of-fewer-bytes': lambda far: OPENED + wire.data_at(5) + wire.final(5),
    'final-twice': lambda far: wire.final(5) * 2,
    'final-after-eof': lambda far: wire.frame(wire.EOF, 1) + wire.final(0),
    'free-of-an-open-stream': lambda far: wire.frame(wire.FREE, 1),
    'lost-is-this-slot': lambda far: wire.lost(0, 0, far.got),
    'lost-of-no-slot': lambda far: wire.lost(8, 0, 0),
    'lost-of-a-later-generation': lambda far: wire.lost(1, 1, 0),
    'tail-of-this-slot': lambda far: wire.tail(0, 0, 0, b'x'),
    'tail-of-no-slot': lambda far: wire.tail(1 << 31, 0, 0, b'x'),
    'tail-of-a-later-generation': lambda far: wire.tail(1, 1, 0, b'x'),
    'drain': lambda far: wire.frame(wire.DRAIN, 1, bytes(4)),
    'ack-goes-back': lambda far: wire.ack(far.got) + wire.ack(far.got - 1),
    'ack-ahead': lambda far: wire.ack(1 << 40),
}

# The far side has ended after the DATA "end".  What comes when near joins.
AGAIN = wire.hello(wire.FAR, newest=2)
REJOIN = {
    'join-is-gone': AGAIN + wire.session(wire.GONE),
    'join-is-new': AGAIN + wire.session(wire.NEW),
    'join-has-version-1': wire.hello(wire.FAR),
    'join-of-another-slot': AGAIN + wire.session(wire.JOIN, slot=1, generation=1),
    'join-is-ahead': AGAIN + wire.session(wire.JOIN, generation=1, count=1 << 40),
    'join-is-replayed': AGAIN + wire.session(wire.JOIN),
    'join-has-data': wire.frame(wire.DATA, 1, b'x'),
    'join-is-refused': wire.words(wire.BYE, 0, 10, 'no memory \x1b[31m'),
}


def ends_and_rejoins(lie):
    far = Far()

    def special(kind, stream, body):
        if kind == wire.DATA and body == b'end':
            far.ack()
            sys.exit(0)
    if b"'-k join " in script():
        say('at ' + sys.argv[0])
        write(wire.MAGIC + REJOIN[lie])
    else:
        far.start(wire.session(wire.NEW))
        far.serve(special)


def greets_without_reading():
    """Send a whole greeting after stdin was closed, and exit: near cannot send
    its own."""
    script()
    os.close(0)
    say('at ' + sys.argv[0])
    write(wire.MAGIC + AGAIN + wire.session(wire.NEW))
    sys.exit(0)


# A second channel.  Its first frames are about the first one.
SECOND = {
    'second-lost-behind': lambda far: wire.lost(0, 0, 0),
    'second-lost-ahead': lambda far: wire.lost(0, 0, 1 << 40),
    'second-tail-of-a-slot-in-use': lambda far: wire.tail(0, 0, 0, b'x'),
    'second-tail-elsewhere': lambda far: wire.tail(0, 0, first_is_lost(far) + 1, b'x'),
    'second-tail-ends-in-a-frame': lambda far: ends_in_a_frame(first_is_lost(far)),
}


def ends_in_a_frame(at):
    return wire.tail(0, 0, at, b'half') + wire.tail(0, 0, at + 4)


def first_is_lost(far):
    """End the first channel.  Return how many of its bytes near has read."""
    with open('/proc/%d/task/%d/children' % (os.getppid(), os.getppid())) as f:
        for pid in map(int, f.read().split()):
            if pid != os.getpid():
                os.kill(pid, signal.SIGKILL)
    return int.from_bytes(far.frame(wire.LOST)[2][4:], 'big')


def pretends_bulk():
    while True:
        write(wire.frame(200, 0, bytes(1000)) + wire.limited(3000))
        time.sleep(0.1)


def gets_a_second_channel(lie):
    """The first channel has a round trip of 10 ms."""
    far = Far()
    if b"'-k join " not in script():
        far.start(wire.session(wire.NEW))
        threading.Thread(target=pretends_bulk, daemon=True).start()
        far.serve(lambda *frame: time.sleep(0.01))
    say('at ' + sys.argv[0])
    write(wire.MAGIC)
    far.magic()
    greeting = far.frame(wire.SESSION)[2]
    write(AGAIN + wire.session(wire.JOIN, greeting[1], int.from_bytes(greeting[4:8], 'big')))
    write(SECOND[lie](far))
    far.serve()


# ---- to relay -n ----

PROBE = {
    'probe-empty': says(b''),
    'probe-escapes': lambda: (say(b'0 ' + ESCAPES), sys.exit(0)),
    'probe-stderr-ends': lambda: os.close(2),
    'probe-noise': endless(ESCAPES),
    'probe-stderr': endless_stderr(ESCAPES + b'\n'),
}


def main(lie):
    if lie in LINK:
        script()
        far = Far()
        far.start()
        LINK[lie](far)
    elif lie in SLOTS or lie in KEPT:
        script()
        far = Far()
        far.start(wire.session(wire.NEW))
        if lie in SLOTS:
            far.frame(wire.OPEN)
            write(SLOTS[lie](far))
        KEPT.get(lie, Far.serve)(far)
    elif lie in REJOIN:
        ends_and_rejoins(lie)
    elif lie == 'greets-without-reading':
        greets_without_reading()
    elif lie in SECOND:
        gets_a_second_channel(lie)
    else:
        if lie not in PROBE:
            script()
        dict(PROBE, **SHELL, **SILENT)[lie]()
    stay()


if __name__ == '__main__':
    with contextlib.suppress(BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        main(sys.argv[1])
