"""The command that the tests let relay run: it hands its stdin and stdout to the test through the Unix socket argv[1]
and keeps no copy of them.  Then it does what single bytes from the test say: a number is its exit status, `i` makes it
ignore SIGTERM, `k` makes it kill itself.  The test's going away ends it."""
import array
import os
import signal
import socket
import sys

control = socket.socket(socket.AF_UNIX)
control.connect(sys.argv[1])
control.sendmsg([b'%d' % os.getpid()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0, 1]))])
os.close(0)
os.close(1)
while True:
    order = control.recv(1)
    if order == b'i':
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        control.send(b'i')
    elif order == b'k':
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        os._exit(ord(order) if order else 0)
