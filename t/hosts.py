"""Two real sshds on loopback, for the hosts `login` and `node`.  They prohibit
every kind of forwarding.  The bench compares relay with ssh -L, so its sshds
allow it.

A directory of programs comes first in PATH, on this side and on the hosts.  It
holds `relay`, which is the binary under test, and wrappers for `ssh` and
`scp`.  The wrappers select the configuration that defines `login` and `node`.
ssh sends the mark of a test to the hosts (SendEnv), so its processes there are
found too.

Bare hosts have no relay in PATH and run each command through SESSION.  FAR_*
in the client's environment stand for the properties of a user account: home,
login shell, user id, directory of programs.

A host in `passwords` accepts PASSWORD and no key.  Its sshd reads a changed
/etc/shadow, in a mount namespace of its own.
"""
import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile

import rig

SSHD = shutil.which('sshd', path='/usr/sbin:/usr/local/sbin:' + os.environ.get('PATH', ''))

SSHD_CONFIG = '''
ListenAddress 127.0.0.1:{port}
HostKey {dir}/{name}.key
PidFile none
AuthorizedKeysFile {dir}/user.key.pub
AllowTcpForwarding {forwarding}
AllowStreamLocalForwarding {forwarding}
PermitTunnel no
AllowAgentForwarding no
X11Forwarding no
UsePAM no
StrictModes no
PasswordAuthentication {password}
PubkeyAuthentication {pubkey}
PermitRootLogin yes
MaxStartups 100
MaxSessions 100
AcceptEnv {mark} RELAY_KEEP FAR_* XDG_* TMPDIR
SetEnv PATH={dir}/bin:{local}/usr/bin:/bin HOST={name} SHLVL=9 {options}
Subsystem sftp internal-sftp
LogLevel VERBOSE
'''

# If SHLVL is set, bash started by sshd does not read the start-up files of
# this machine's user.
SSH_CONFIG = '''
Host {name}
    HostName 127.0.0.1
    Port {port}
'''

PASSWORD = 'open sesame'
# of openssl passwd -6
PASSWORD_HASH = ('$6$relaytest$4k43epj428qt3OiHuAx9wr6zup8uEa1eGLOABAg4jAyNnIdFKGFGlkuU91ys/YSDAcdTy2UJ'
                 'RS1yHj.kfDnbX1')
NAMESPACE = ['unshare', '-m', 'sh', '-c', 'mount --bind "$0" /etc/shadow && exec "$@"']

# Two more names: no process listens at `closed`; `locked` accepts none of our
# keys.
SSH_CONFIG_ALL = '''
Host closed
    HostName 127.0.0.1
    Port {closed}
Host locked
    HostName 127.0.0.1
    Port {locked}
    IdentityFile {dir}/login.key
Match !originalhost locked
    IdentityFile {dir}/user.key
Host *
    User {user}
    IdentitiesOnly yes
    IdentityAgent none
    StrictHostKeyChecking no
    UserKnownHostsFile {dir}/known_hosts
    GlobalKnownHostsFile /dev/null
    BatchMode yes
    LogLevel ERROR
    SendEnv {mark} RELAY_KEEP FAR_* XDG_* TMPDIR
'''

# sshd runs a command in the user's shell and in the user's home.  Without
# SHLVL, bash reads its start-up file.
SESSION = '''#!/bin/sh
unset SHLVL
[ "$FAR_HOME" ] && export HOME="$FAR_HOME" && cd "$HOME"
[ "$FAR_BIN" ] && export PATH="$FAR_BIN:$PATH"
[ "$FAR_COMMAND" ] && exec sh -c "$FAR_COMMAND"
set -- "${FAR_SHELL:-/bin/bash}" -c "$SSH_ORIGINAL_COMMAND"
[ "$FAR_UID" ] && set -- setpriv --reuid "$FAR_UID" --regid "$FAR_UID" --clear-groups "$@"
exec "$@"
'''

WRAPPER = '#!/bin/sh\nexec {program} -F {dir}/config "$@"\n'


def missing():
    """Why the hosts cannot be started here, or None."""
    if not SSHD:
        return 'no sshd: apt-get install openssh-server'
    if os.getuid() != 0:
        return 'sshd with UsePAM no needs root'
    for program in ('ssh', 'scp', 'ssh-keygen'):
        if not shutil.which(program):
            return 'no %s: apt-get install openssh-client' % program
    return None


def missing_password():
    """Why no host can ask for a password here, or None."""
    if missing():
        return missing()
    if subprocess.run(NAMESPACE + ['/etc/shadow', 'true'],
                      stderr=subprocess.DEVNULL).returncode != 0:
        return 'skipped: mount is not permitted'
    return None


class Hosts:
    def __init__(self, names=('login', 'node'), forwarding='no', bare=False, passwords=()):
        self.passwords = passwords
        self.dir = tempfile.mkdtemp(prefix='rs', dir='/tmp')
        os.chmod(self.dir, 0o755)
        os.makedirs('/run/sshd', mode=0o755, exist_ok=True)
        self.env = {name: value for name, value in os.environ.items() if not name.startswith('XDG_')
                    and name != 'TMPDIR'}
        # control sockets of relays on this side; ssh does not use HOME
        self.env['HOME'] = self.dir + '/home'
        os.mkdir(self.env['HOME'])
        self.env['PATH'] = '%s/bin:%s' % (self.dir, os.environ['PATH'])
        self._programs(bare)
        self._key('user')
        if passwords:
            self._shadow()
        config = ''
        options = ' '.join('%s=%s' % (name, os.environ.get(name, ''))
                           for name in (*rig.SANITIZER_OPTIONS, 'LD_PRELOAD'))
        self.daemons, self.ports = {}, {}
        for name in names:
            self._key(name)
            port = self.ports[name] = rig.free_port()
            config += SSH_CONFIG.format(name=name, port=port)
            config += '    BatchMode no\n' if name in passwords else ''
            text = SSHD_CONFIG.format(name=name, port=port, dir=self.dir, mark=rig.MARK,
                                      options=options,
                                      forwarding=forwarding,
                                      password='yes' if name in passwords else 'no',
                                      pubkey='no' if name in passwords else 'yes',
                                      local='' if bare else '/usr/local/bin:')
            self._write(name + '.conf',
                        text + ('ForceCommand %s/session\n' % self.dir if bare else ''))
            self.start(name)
        config += SSH_CONFIG_ALL.format(user=getpass.getuser(), dir=self.dir, mark=rig.MARK,
                                        closed=rig.free_port(), locked=self.ports[names[-1]])
        self._write('config', config)

    def _write(self, name, text, mode=0o600):
        path = os.path.join(self.dir, name)
        with open(path, 'w') as f:
            f.write(text)
        os.chmod(path, mode)

    def start(self, name):
        """Start the sshd of a host, also after stop()."""
        with open('%s/%s.log' % (self.dir, name), 'a') as log:
            words = [SSHD, '-D', '-e', '-f', '%s/%s.conf' % (self.dir, name)]
            if name in self.passwords:
                words = NAMESPACE + [self.dir + '/shadow'] + words
            self.daemons[name] = subprocess.Popen(words,
                                                  stdin=subprocess.DEVNULL, stderr=log)
        rig.wait_for(lambda: self._answers(self.ports[name]),
                     what='sshd for %s: %s' % (name, self.log(name)))

    def stop(self, name):
        """Kill the sshd of a host and every session of it."""
        daemon = self.daemons[name]
        sessions = rig.children(daemon.pid)
        daemon.terminate()
        daemon.wait()
        for pid in sessions:
            rig.kill(pid, signal.SIGKILL)

    def cut(self, name):
        """Kill every session of a host; its sshd keeps running."""
        sessions = rig.children(self.daemons[name].pid)
        for pid in sessions:
            rig.kill(pid, signal.SIGKILL)
        return len(sessions)

    def _programs(self, bare):
        os.mkdir(self.dir + '/bin')
        for program in ('ssh', 'scp'):
            self._write('bin/' + program,
                        WRAPPER.format(program=shutil.which(program), dir=self.dir), 0o755)
        if bare:
            self._write('session', SESSION, 0o755)
        else:
            os.symlink(rig.RELAY, self.dir + '/bin/relay')

    def _key(self, name):
        subprocess.run(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f',
                        '%s/%s.key' % (self.dir, name)], check=True)

    def _shadow(self):
        """Write /etc/shadow with PASSWORD for this user."""
        user = getpass.getuser()
        with open('/etc/shadow') as f:
            lines = [line.split(':') for line in f]
        for line in lines:
            if line[0] == user:
                line[1] = PASSWORD_HASH
        self._write('shadow', ''.join(':'.join(line) for line in lines))

    def _answers(self, port):
        try:
            with socket.create_connection(('127.0.0.1', port), timeout=1) as s:
                return s.recv(4) == b'SSH-'
        except OSError:
            return False

    def log(self, name):
        with open('%s/%s.log' % (self.dir, name), errors='replace') as f:
            return f.read()

    def sessions(self):
        """The session processes of all sshds."""
        return [p for d in self.daemons.values() for p in rig.children(d.pid)]

    def wait_for_silence(self, mark, but=(), seconds=2):
        """Check that within `seconds` no session and no marked process is left
        on either host, except the processes `but`."""
        try:
            rig.wait_for(lambda: not self.sessions() and set(rig.marked(mark)) <= set(but),
                         seconds)
        except AssertionError:
            raise AssertionError('left after %g s: %s' % (seconds, rig.marked(mark))) from None

    def _words(self, words, kw):
        env = dict(self.env, **{rig.MARK: os.environ.get(rig.MARK, '')})
        env.update(kw.pop('env', {}))
        return dict(kw, args=[str(w) for w in words], env=env)

    def run(self, *words, **kw):
        """Run a program until it exits; input and output are text."""
        kw.setdefault('stdin', subprocess.DEVNULL)
        return subprocess.run(**self._words(words, kw), stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=rig.PATIENCE)

    def popen(self, *words, **kw):
        return subprocess.Popen(**self._words(words, kw))

    def close(self):
        for d in self.daemons.values():
            d.terminate()
            d.wait()
        shutil.rmtree(self.dir)
