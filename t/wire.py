"""Frames of PROTOCOL.  With Wire, a test is one side of a link.

    python3 wire.py SIN     sends the start of a far relay, then the frames of
                            SIN, most of which break PROTOCOL, and reads until
                            EOF on stdin
"""
import contextlib
import os
import struct
import sys

MAGIC = b'\0\xf2reLAylink\r\n\n\xfe\0'
HELLO, OPEN, OPENED, DATA, EOF, STOP, CLOSE, CREDIT, ACK, PING, BYE, ACK_EVERY = range(1, 13)
DATA_AT, FINAL, FREE, LOST, TAIL, DRAIN, LIMITED = range(13, 20)
SESSION = 128
NEW, JOIN, GONE = 1, 2, 3    # kinds of SESSION
NEAR, FAR = 0, 1
WINDOW = 1 << 18


def frame(kind, stream=0, body=b''):
    return struct.pack('>II', kind << 24 | len(body), stream) + body


def hello(role, host='python', version=1, memory=1 << 26, streams=16384, newest=0):
    return frame(HELLO, 0, struct.pack('>BBBBIIIQQ', version, role, newest, 0, 0, memory, streams, 0, 0) + host.encode())


def session(kind, slot=0, generation=0, count=0, slots=8):
    return frame(SESSION, 0, struct.pack('>BBBBIIQ', kind, slot, slots, 0, generation, 3600, count) + b'0123456789abcdef')


def open_(stream, target='', send=WINDOW, recv=WINDOW):
    return frame(OPEN, stream, struct.pack('>II', send, recv) + target.encode())


def words(kind, stream, code, text=''):
    return frame(kind, stream, struct.pack('>H', code) + text.encode())


def data_at(offset, data=b'x', stream=1):
    return frame(DATA_AT, stream, struct.pack('>Q', offset) + data)


def final(offset):
    return frame(FINAL, 1, struct.pack('>Q', offset))


def lost(slot, generation, count):
    return frame(LOST, slot, struct.pack('>IQ', generation, count))


def tail(slot, generation, offset, data=b''):
    return frame(TAIL, slot, struct.pack('>IQ', generation, offset) + data)


def limited(ms):
    return frame(LIMITED, 0, struct.pack('>I', ms))


def ack(count):
    return frame(ACK, 0, struct.pack('>QI', count, 0))


class Wire:
    """One side of a link.  read(n) returns n bytes, or fewer at EOF.
    write(data) writes all of data."""

    def __init__(self, read, write):
        self.read, self.write = read, write
        self.got = 0

    def magic(self):
        assert self.read(len(MAGIC)) == MAGIC

    def frame(self, *kinds):
        """Return the next frame (kind, stream, body) of one of these kinds, or
        None at EOF.  Without kinds, only ACK, PING, ACK_EVERY and SESSION
        are skipped."""
        while True:
            head = self.read(8)
            if len(head) < 8:
                return None
            kind, stream = struct.unpack('>II', head)
            kind, length = kind >> 24, kind & 0xffffff
            body = self.read(length)
            self.got += 8 + length
            if kind in kinds if kinds else kind not in (ACK, PING, ACK_EVERY,
                                                                 SESSION):
                return kind, stream, body

    def ack(self):
        self.write(ack(self.got))


def endless(wire):
    for _ in range(4096):
        yield frame(DATA, 1, b'x' * 65536)


SINS = {
    'open': lambda w: [open_(1, '127.0.0.1:1')],
    'open-even': lambda w: [open_(2, '127.0.0.1:1')],
    'beyond': endless,
    'garbage': lambda w: [b'\xff' * 1000],
    'text': lambda w: [b'bash: warning: something\r\n' * 10],
    'unknown-type': lambda w: [frame(99)],
    'long': lambda w: [struct.pack('>II', DATA << 24 | 65537, 1)],
    'long-skipped': lambda w: [struct.pack('>II', 200 << 24 | 8193, 0)],
    'unknown-stream': lambda w: [frame(DATA, 77, b'x')],
    'zero-stream': lambda w: [frame(EOF, 0)],
    'huge-stream': lambda w: [frame(EOF, 0xffffffff)],
    'after-eof': lambda w: [frame(EOF, 1), frame(DATA, 1, b'x')],
    'second-eof': lambda w: [frame(EOF, 1), frame(EOF, 1)],
    'second-opened': lambda w: [frame(OPENED, 1), frame(OPENED, 1)],
    'second-hello': lambda w: [hello(FAR)],
    'late-session': lambda w: [frame(SESSION, 0, b'\0' * 36)],
    'short-session': lambda w: [frame(SESSION, 0, b'\0' * 35)],
    'credit-0': lambda w: [frame(CREDIT, 1, struct.pack('>I', 0))],
    'credit-overflow': lambda w: [frame(CREDIT, 1, struct.pack('>I', 0x7fffffff))] * 2,
    'ack-ahead': lambda w: [frame(ACK, 0, struct.pack('>QI', 1 << 40, 0))],
    'empty-data': lambda w: [frame(DATA, 1)],
    'short-credit': lambda w: [frame(CREDIT, 1, b'xx')],
    'bye': lambda w: [words(BYE, 0, 10, 'I have had enough')],
    'bye-escape': lambda w: [words(BYE, 0, 10, 'pwned \x1b[31m\x1b]0;title\x07 \r\nrelay: all is well\n')],
    'half-frame': lambda w: [frame(DATA, 1, b'x' * 100)[:50], None],
    'end': lambda w: [None],
}
HARMLESS = {
    'skipped': lambda w: [frame(200, 0, b'later versions'), frame(255, 5)],
}


def main(sin):
    def read(n):
        got = b''
        while len(got) < n:
            data = os.read(0, n - len(got))
            if not data:
                break
            got += data
        return got

    def write(data):
        while data:
            data = data[os.write(1, data):]
    w = Wire(read, write)
    if sin.startswith('hello:'):
        write(MAGIC + hello(FAR, **eval('dict(%s)' % sin[6:])))
    else:
        write(MAGIC + hello(FAR))
        w.magic()
        assert w.frame(OPEN)[1] == 1
        for data in dict(SINS, **HARMLESS)[sin](w):
            if data is None:
                os.close(1)
                break
            write(data)
    while os.read(0, 65536):
        pass


if __name__ == '__main__':
    with contextlib.suppress(BrokenPipeError):
        main(sys.argv[1])
