"""make dist: the files of a release, their hashes, and their signature.  The
binaries are made only with SLOW=1, because two runs of zig take minutes.
"""
import hashlib
import json
import os
import re
import shutil
import subprocess

import pytest

import rig
from test_build import copy_tree, make

TOP = os.path.dirname(rig.HERE)
IDENTITY = {'GIT_%s_%s' % (who, what): 'relay' for who in ('AUTHOR', 'COMMITTER')
            for what in ('NAME', 'EMAIL')}
DATE = {'GIT_AUTHOR_DATE': '1700000000 +0000', 'GIT_COMMITTER_DATE': '1700000000 +0000'}
BINARIES = ['relay-%s' % name for name in
            ('Darwin-arm64', 'Darwin-x86_64', 'Linux-aarch64', 'Linux-ppc64le', 'Linux-riscv64',
             'Linux-x86_64')]

needs_git = pytest.mark.skipif(shutil.which('git') is None, reason='skipped: no git')


def read(path):
    with open(path, 'rb') as f:
        return f.read()


def repository(to):
    """A repository whose HEAD has the sources of this tree."""
    top = str(copy_tree(to))
    if 'SLOW' in os.environ and os.path.isdir(TOP + '/.cross'):
        os.symlink(TOP + '/.cross', top + '/.cross')
        with open(top + '/.gitignore', 'a') as f:
            f.write('/.cross\n')
    for words in (['init', '-q'], ['add', '-A'], ['commit', '-q', '-m', 'all']):
        subprocess.run(['git', *words], cwd=top, check=True,
                       env=dict(os.environ, HOME=str(to.parent), **IDENTITY, **DATE))
    return top


def files(top):
    return {name: read('%s/dist/%s' % (top, name)) for name in os.listdir(top + '/dist')}


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """The files of make dist in two directories.  A second run in the same
    directory makes all of them again."""
    found = []
    for umask in (0o022, 0o077):
        top = repository(tmp_path_factory.mktemp('dist') / 'tree')
        before = os.umask(umask)
        try:
            make(top, 'dist')
            if found:
                with open(top + '/dist/old', 'w'):
                    pass
                make(top, 'dist')
        finally:
            os.umask(before)
        found.append(files(top))
    return found


@needs_git
def test_files(runs):
    """Goal: source, list of parts, hashes of all; and the binaries if there is
    a zig."""
    names = sorted(name for name in runs[0] if name not in BINARIES)
    version = re.search(r'RELAY_VERSION "(.*)"', read(TOP + '/relay.h').decode())[1]
    assert names == ['SHA256SUMS', 'relay-%s.spdx.json' % version, 'relay-%s.tar.gz' % version]
    sums = dict(reversed(line.split('  ')) for line in runs[0]['SHA256SUMS'].decode().splitlines())
    assert sums == {name: hashlib.sha256(data).hexdigest() for name, data in runs[0].items()
                    if name != 'SHA256SUMS'}


@needs_git
def test_same_twice(runs):
    """Goal: two directories and two umasks give the same bytes."""
    assert sorted(runs[0]) == sorted(runs[1])
    for name in runs[0]:
        assert runs[0][name] == runs[1][name], name


@needs_git
def test_sbom(runs):
    """Goal: the list of parts has what SPDX 2.3 requires, names each file with
    its hash, and each relation leads to a part."""
    name, = [name for name in runs[0] if name.endswith('.json')]
    document = json.loads(runs[0][name])
    assert document['spdxVersion'] == 'SPDX-2.3' and document['dataLicense'] == 'CC0-1.0'
    assert document['creationInfo']['created'] == '2023-11-14T22:13:20Z'
    ids = ['SPDXRef-DOCUMENT'] + [x['SPDXID'] for x in document['packages'] + document['files']]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r'SPDXRef-[A-Za-z0-9.-]+', one) for one in ids)
    for x in document['relationships']:
        assert x['spdxElementId'] in ids and x['relatedSpdxElement'] in ids
    assert sorted(x['fileName'][2:] for x in document['files']) == \
        sorted(set(runs[0]) & set(BINARIES))
    for x in document['files'] + document['packages'][:1]:
        data = runs[0][x.get('packageFileName') or x['fileName'][2:]]
        for sum_ in x['checksums']:
            assert hashlib.new(sum_['algorithm'].lower(), data).hexdigest() == \
                sum_['checksumValue']


@needs_git
@pytest.mark.skipif('SLOW' not in os.environ, reason='skipped: takes minutes; set SLOW=1')
def test_binaries(runs):
    if subprocess.run([TOP + '/t/zig', 'version'], capture_output=True).returncode != 0:
        pytest.skip('skipped: no zig (t/zig install)')
    assert set(BINARIES) <= set(runs[0])


@needs_git
def test_source_builds(runs, tmp_path):
    """Goal: the source in dist/ can be built."""
    name, = [name for name in runs[0] if name.endswith('.tar.gz')]
    (tmp_path / name).write_bytes(runs[0][name])
    subprocess.run(['tar', '-xzf', name], cwd=tmp_path, check=True)
    make(str(tmp_path / name[:-len('.tar.gz')]), '-j2', 'relay', CFLAGS='-O0')


@needs_git
def test_changes_are_refused(tmp_path):
    """Goal: with changes that are in no commit, nothing is made."""
    top = repository(tmp_path / 'tree')
    with open(top + '/README', 'a') as f:
        f.write('changed\n')
    done = subprocess.run(['make', 'dist'], cwd=top, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode != 0 and 'commit your changes first' in done.stdout
    assert not os.path.exists(top + '/dist')


def commands(text, start):
    """The commands of doc/RELEASING that begin with the text."""
    return re.findall(r'^    (%s(?:.*\\\n)*.*)$' % re.escape(start), text, re.M)


@pytest.mark.skipif(shutil.which('ssh-keygen') is None, reason='skipped: no ssh-keygen')
def test_signature(tmp_path):
    """Goal: the commands of doc/RELEASING make a signature and check it, and
    refuse a changed file and another key."""
    text = read(TOP + '/doc/RELEASING').decode()
    make_key, = commands(text, 'ssh-keygen -t')
    sign, = commands(text, 'ssh-keygen -Y sign')
    verify, = commands(text, 'ssh-keygen -Y verify')
    check, = commands(text, 'sha256sum -c')
    line, = re.findall(r'^    (relay-release .*) ssh-ed25519 AAAA\.\.\.$', text, re.M)

    def sh(command, where='.'):
        return subprocess.run(['sh', '-c', command], cwd=tmp_path / where, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
    dist = tmp_path / 'dist'
    dist.mkdir()
    (dist / 'a').write_text('a')
    assert sh('sha256sum a >SHA256SUMS', 'dist').returncode == 0
    for command in (make_key + " -N ''", sign):
        done = sh(command)
        assert done.returncode == 0, done.stdout
    key = (tmp_path / 'release-key.pub').read_text()
    (dist / 'allowed_signers').write_text('%s %s' % (line, key))
    for command in (verify, check):
        done = sh(command, 'dist')
        assert done.returncode == 0, done.stdout
    (dist / 'a').write_text('b')
    assert sh(check, 'dist').returncode != 0
    sums = (dist / 'SHA256SUMS').read_text()
    (dist / 'SHA256SUMS').write_text(sums + '\n')
    assert sh(verify, 'dist').returncode != 0
    (dist / 'SHA256SUMS').write_text(sums)
    assert sh(verify, 'dist').returncode == 0
    sh("ssh-keygen -q -t ed25519 -N '' -f other")
    (dist / 'allowed_signers').write_text('%s %s' % (line, (tmp_path / 'other.pub').read_text()))
    assert sh(verify, 'dist').returncode != 0
