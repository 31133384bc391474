#!/usr/bin/python3
"""seeds.py - write the first inputs of the fuzz targets to t/corpus"""
import os, struct
here = os.path.dirname(os.path.abspath(__file__))
MAGIC = bytes.fromhex('00f272654c41796c696e6b0d0a0afe00')
def frame(t, s, body=b''): return struct.pack('>I', t << 24 | len(body)) + struct.pack('>I', s) + body
def hello(role, mem=1 << 20, streams=256): return frame(1, 0, struct.pack('>BBHIIIQQ', 1, role, 0, 0, mem, streams, 0, 0) + b'peer')
ID = b'0123456789abcde\0'
def session(kind, generation=0, count=0, slot=0, slots=0): return frame(128, 0, struct.pack('>BBBBIIQ', kind, slot, slots, 0, generation, 60, count) + ID)
def hello2(role): return frame(1, 0, struct.pack('>BBHIIIQQ', 1, role, 2 << 8, 0, 1 << 20, 256, 0, 0) + b'peer')
def even(b): return b if len(b) % 2 == 0 else b + T[1:]
def feed(b):
    out = b''
    while b:
        n = min(len(b), 100)
        out += bytes([n - 1]) + b[:n]
        b = b[n:]
    return out
def opens(i, send=65536, recv=65536, to=b'/a'): return frame(2, i, struct.pack('>II', send, recv) + to)
def data(i, n): return frame(4, i, b'x' * n)
def close(i, code=1): return frame(7, i, struct.pack('>H', code) + b'no')
def credit(i, n): return frame(8, i, struct.pack('>I', n))
def ack(n): return frame(9, 0, struct.pack('>QI', n, 100))
ping, bye = frame(10, 0), frame(11, 0, b'\0\0ok')
def eof(i): return frame(5, i)
def stop(i): return frame(6, i)
T = b'\x83\xc8'          # 64 us pass; two turns
OPEN = b'\xff'
LOSE, ATTACH = b'\x90', b'\x92'
JOIN = LOSE + T + ATTACH + T
def joins(role, generation, count): return JOIN + feed(MAGIC + hello2(role) + session(2, generation, count)) + T
def slot(k): return bytes([150 + k])
START, CLOSE_SLOT = b'\x9e', b'\x9f'
def up(role, k, generation=1): return slot(k) + START + T + feed(MAGIC + hello2(role) + session(2, generation, 0, k, 8)) + T
def data_at(i, at, n): return frame(13, i, struct.pack('>Q', at) + b'y' * n)
def final(i, n): return frame(14, i, struct.pack('>Q', n))
def lost(k, generation, count): return frame(16, k, struct.pack('>IQ', generation, count))
def tail(k, generation, at, b=b''): return frame(17, k, struct.pack('>IQ', generation, at) + b)
def drain(k, generation): return frame(18, k, struct.pack('>I', generation))
GREETED = 44 + 44            # link bytes of our greeting
far = MAGIC + hello(0)
near = b'Last login: today\r\n' + MAGIC + hello(1)
seeds = {
    'far/session': feed(far) + T + feed(opens(1) + data(1, 80) + opens(3)) + T + feed(eof(1) + credit(1, 5000) + stop(3)) + T + feed(ack(47) + close(3) + ping) + T + feed(close(1, 0) + opens(1)) + T + feed(bye),
    'far/reset': feed(far) + feed(opens(1) + close(1)) + T + feed(opens(5) + data(5, 300) + close(5)) + T,
    'far/many': feed(far) + feed(b''.join(opens(i, 4096, 4096, b'') for i in range(1, 60, 2))) + T + feed(b''.join(data(i, 50) + eof(i) for i in range(1, 60, 2))) + T * 4 + feed(frame(200, 7, b'skipped')),
    'near/session': T + feed(near) + T + OPEN * 3 + T + feed(frame(3, 1) + data(1, 80) + frame(3, 3)) + T + feed(eof(1) + credit(1, 5000) + stop(3)) + T + feed(ack(47) + close(3) + ping) + T + feed(close(1, 0)) + OPEN + T + feed(bye),
    'near/reset': T + feed(near) + T + OPEN * 2 + T + feed(close(1, 2)) + T + OPEN + T + feed(data(3, 300) + close(3)) + T * 3,
    'far/kept': even(feed(MAGIC + hello2(0) + session(1)) + T + feed(opens(1) + data(1, 80)) + T + joins(0, 1, GREETED) + feed(data(1, 40) + eof(1)) + T + joins(0, 2, GREETED) + feed(ack(GREETED) + close(1, 0)) + T),
    'far/kept2': even(feed(MAGIC + hello2(0) + session(1)) + T + feed(opens(1) + data(1, 300)[:200]) + T + joins(0, 1, GREETED) + feed(data(1, 300)[200:]) + joins(0, 2, 1 << 40)),
    'near/kept': even(T + feed(MAGIC + hello2(1) + session(1)) + T + OPEN * 3 + T + feed(frame(3, 1) + data(1, 80)) + T + joins(1, 1, GREETED) + feed(eof(1) + credit(1, 5000)) + T + joins(1, 2, GREETED + 10) + feed(close(3)) + T + JOIN + feed(MAGIC + hello2(1) + session(3))),
    'far/slots': even(feed(MAGIC + hello2(0) + session(1, slots=8)) + T + up(0, 1) + up(0, 2, 2) + feed(opens(1) + data_at(1, 50, 50)) + T + slot(1) + feed(data_at(1, 0, 50) + final(1, 120) + eof(1)) + slot(0) + feed(data_at(1, 100, 20)) + T + feed(close(1, 0)) + T + feed(opens(1)) + T),
    'far/lost': even(feed(MAGIC + hello2(0) + session(1, slots=8)) + T + up(0, 1) + feed(opens(1)) + slot(1) + feed(data_at(1, 0, 80)[:60]) + T + LOSE + slot(0) + T + feed(lost(1, 1, 0)) + T + feed(tail(1, 1, 82, data_at(1, 0, 80)[38:]) + tail(1, 1, 60 + 22)) + T + feed(drain(0, 0)) + T + up(0, 1, 2) + LOSE + T),
    'near/slots': even(T + feed(MAGIC + hello2(1) + session(1, slots=8)) + T + slot(1) + START + T + feed(MAGIC + hello2(1) + session(2, 1, 0, 1, 8)) + OPEN * 3 + T + feed(frame(3, 1) + data_at(1, 40, 40)) + slot(0) + feed(data_at(1, 0, 40) + frame(3, 3) + final(1, 80) + eof(1)) + T + CLOSE_SLOT + T * 3 + slot(1) + feed(lost(0, 0, GREETED)) + T + feed(tail(0, 0, GREETED)) + T + feed(close(3) + frame(15, 3) + frame(19, 0, b'\0\0\4\0')) + T),
    'near/lost': even(T + feed(MAGIC + hello2(1) + session(1, slots=8)) + T + slot(1) + START + T + feed(MAGIC + hello2(1) + session(2, 1, 0, 1, 8)) + OPEN * 3 + T + LOSE + slot(0) + T + feed(tail(1, 1, 0, frame(3, 1)[:5])) + T + feed(lost(1, 1, 0)) + T + feed(tail(1, 1, 5, frame(3, 1)[5:]) + tail(1, 1, 8)) + T + slot(1) + START + T + feed(MAGIC + hello2(1) + session(2, 2, 0, 1, 8)) + T + LOSE + slot(0) + LOSE + ATTACH + T + feed(MAGIC + hello2(1) + session(2, 1, GREETED, 0, 8)) + T),
    'near/early': even(feed(MAGIC + hello2(1) + session(1, slots=8)) + OPEN + LOSE + ATTACH + T + feed(MAGIC + hello2(1) + session(2, 1, 0, 0, 8)) + T),
    'near/refused': T + feed(MAGIC + frame(1, 0, struct.pack('>BBHIIIQQ', 2, 1, 0, 0, 1, 1, 0, 0))) + T,
}
for name, body in seeds.items():
    path = os.path.join(here, 'corpus', name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    open(path, 'wb').write(body)
