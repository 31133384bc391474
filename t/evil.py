"""A hostile far side of a tunnel: python3 evil.py LIE sh.

It replaces the sh of a hop.  The lies in SHELL and SILENT are answers before
the link is up.  Those in LINK come from a far relay, and those in PROBE answer
relay -n.  It exits at EOF on stdin; some lies end it earlier.
"""
import contextlib
import itertools
import os
import signal
import sys

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
    """Read the line that relay sends to a shell."""
    while read(1) != b'\n':
        pass


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

    def start(self, **hello):
        say('at ' + sys.argv[0])
        write(wire.MAGIC + wire.hello(wire.FAR, **hello))
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
    else:
        if lie not in PROBE:
            script()
        dict(PROBE, **SHELL, **SILENT)[lie]()
    stay()


if __name__ == '__main__':
    with contextlib.suppress(BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        main(sys.argv[1])
