"""A slow line between two relays: line.py RTT_MS MBIT_S COMMAND [ARG ...]

It copies stdin to COMMAND, and the output of COMMAND to stdout.  Each direction
carries MBIT_S (0: no limit) and delays the bytes by RTT_MS / 2.  SIGUSR1
interrupts the line and SIGUSR2 restores it.  No byte arrives in between, and
none is lost.  Few bytes are buffered beyond those on the line.
"""
import collections
import os
import signal
import subprocess
import sys
import threading
import time

QUEUE = 1 << 18       # bytes that may wait, beyond those on the line
clock = time.monotonic


class Way(threading.Thread):
    """One direction: a thread that reads, and one that writes after the delay.
    """

    def __init__(self, r, w, delay, rate, whole):
        super().__init__(daemon=True)
        self.r, self.w, self.delay, self.rate, self.whole = r, w, delay, rate, whole
        self.there = threading.Condition()
        self.queue, self.waiting, self.free_at = collections.deque(), 0, 0.0
        self.reader = threading.Thread(target=self.read, daemon=True)

    def read(self):
        size = max(1460, min(65536, int(self.rate / 1000))) if self.rate else 65536
        while True:
            with self.there:
                while self.waiting > QUEUE + self.rate * self.delay * 2:
                    self.there.wait()
            data = os.read(self.r, size)
            now = clock()
            self.free_at = max(now, self.free_at) + (len(data) / self.rate if self.rate else 0)
            with self.there:
                self.queue.append((self.free_at + self.delay, data))
                self.waiting += len(data)
                self.there.notify_all()
            if not data:
                return

    def run(self):
        self.reader.start()
        while True:
            with self.there:
                while not self.queue:
                    self.there.wait()
                due, data = self.queue.popleft()
            time.sleep(max(0, due - clock()))
            self.whole.wait()
            if not data:
                break
            while data:
                data = data[os.write(self.w, data):]
            with self.there:
                self.waiting = sum(len(d) for _, d in self.queue)
                self.there.notify_all()
        os.close(self.w)


def main():
    rtt, mbit, command = float(sys.argv[1]) / 1000, float(sys.argv[2]), sys.argv[3:]
    whole = threading.Event()
    whole.set()
    signal.signal(signal.SIGUSR1, lambda *_: whole.clear())
    signal.signal(signal.SIGUSR2, lambda *_: whole.set())
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.setswitchinterval(0.0005)
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    ways = (Way(0, os.dup(child.stdin.fileno()), rtt / 2, mbit * 125000, whole),
            Way(child.stdout.fileno(), 1, rtt / 2, mbit * 125000, whole))
    child.stdin.close()
    for way in ways:
        way.start()
    ways[1].join()
    sys.exit(child.wait())


main()
