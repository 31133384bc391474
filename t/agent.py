"""The command that the tests give to relay.

It sends its stdin and stdout as descriptors to the test, through the Unix
socket argv[1], and closes its own copies.  Then it obeys each byte from the
test: `i` makes it ignore SIGTERM, `k` makes it kill itself, and any other byte
is its exit status.  At EOF it exits with status 0.
"""
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
