"""A real Slurm with one node, this machine."""
import contextlib
import os
import shutil
import subprocess
import tempfile

import rig

CONF = '''
ClusterName=t
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthInfo=socket={dir}/munge.sock
CredType=cred/munge
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool
SlurmctldPidFile={dir}/a.pid
SlurmdPidFile={dir}/b.pid
SlurmctldLogFile={dir}/ctld.log
SlurmdLogFile={dir}/d.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=p Nodes=ALL Default=YES State=UP OverSubscribe=FORCE:8
'''
DAEMONS = [['munged', '-F', '--force', '--socket={dir}/munge.sock', '--key-file={dir}/key',
            '--pid-file={dir}/m.pid', '--log-file={dir}/munge.log', '--seed-file={dir}/seed'],
           ['slurmctld', '-D'], ['slurmd', '-D', '-N', '{host}']]


def missing():
    """Why Slurm cannot be started here, or None."""
    absent = [words[0] for words in DAEMONS + [['srun']] if not shutil.which(words[0])]
    if absent:
        return 'skipped: no %s: apt-get install slurm-wlm' % absent[0]
    return None if os.getuid() == 0 else 'skipped: Slurm as set up here needs root'


@contextlib.contextmanager
def running():
    """Yield (SLURM_CONF, run); run(word, ...) returns what a program of Slurm
    prints.  The result is None if the node does not start."""
    facts = {'dir': tempfile.mkdtemp(prefix='slurm', dir='/tmp'),
             'host': os.uname().nodename.split('.')[0],
             'ports': [rig.free_port(), rig.free_port()]}
    os.chmod(facts['dir'], 0o755)
    for name in ('state', 'spool'):
        os.mkdir(facts['dir'] + '/' + name)
    with open(facts['dir'] + '/key', 'wb') as f:
        os.chmod(f.name, 0o600)
        f.write(os.urandom(1024))
    with open(facts['dir'] + '/conf', 'w') as f:
        f.write(CONF.format(**facts))
    env = {name: value for name, value in os.environ.items() if name != rig.MARK}
    env['SLURM_CONF'] = f.name
    procs = []

    def run(*words):
        return subprocess.run(words, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True, timeout=rig.PATIENCE).stdout
    try:
        for daemon in DAEMONS:
            procs.append(subprocess.Popen([w.format(**facts) for w in daemon], env=env,
                                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                          stderr=subprocess.DEVNULL))
            if daemon[0] == 'munged':
                rig.wait_for(lambda: os.path.exists(facts['dir'] + '/munge.sock'))
        with contextlib.suppress(AssertionError):
            rig.wait_for(lambda: run('sinfo', '-h', '-t', 'idle'))
        yield (f.name, run) if run('sinfo', '-h', '-t', 'idle') else None
    finally:
        for p in reversed(procs):
            p.terminate()
            p.wait(rig.PATIENCE)
        shutil.rmtree(facts['dir'])
