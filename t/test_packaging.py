"""packaging/: each file has the version of relay.h, and installed tools can read
it.
"""
import glob
import os
import re
import shutil
import subprocess

import pytest

import rig

TOP = os.path.dirname(rig.HERE)
PACKAGING = TOP + '/packaging/'
VERSIONED = {    # file -> where it has the version
    'debian/changelog': r'\Arelay \((.*)-\d+\)',
    'alpine/APKBUILD': r'^pkgver=(.*)$',
    'rpm/relay.spec': r'^Version: +(.*)$',
    'arch/PKGBUILD': r'^pkgver=(.*)$',
    'nix/default.nix': r'version = "(.*)";',
    'homebrew/relay.rb': r'/relay-(.*)\.tar\.gz',
    'spack/package.py': r'version\("(.*?)"',
    'easybuild/relay-*.eb': r"^version = '(.*)'$",
    'conda/meta.yaml': r'set version = "(.*)"',
}
READERS = {
    'debian/rules': ['make', '-n', '-f'],
    'alpine/APKBUILD': ['sh', '-n'],
    'arch/PKGBUILD': ['bash', '-n'],
    'rpm/relay.spec': ['rpmspec', '-P'],
    'nix/default.nix': ['nix-instantiate', '--parse'],
    'homebrew/relay.rb': ['ruby', '-c'],
    'spack/package.py': ['python3', '-c', 'import ast, sys; ast.parse(open(sys.argv[1]).read())'],
    'easybuild/relay-*.eb':
        ['python3', '-c', 'import ast, sys; ast.parse(open(sys.argv[1]).read())'],
}


def path_of(name):
    path, = glob.glob(PACKAGING + name)
    return path


def read(path):
    with open(path) as f:
        return f.read()


@pytest.mark.parametrize('name', VERSIONED)
def test_version(name):
    """Goal: the version, and the name of the file, are those of relay.h."""
    version = re.search(r'RELAY_VERSION "(.*)"', read(TOP + '/relay.h'))[1]
    found = re.findall(VERSIONED[name], read(path_of(name)), re.M)
    assert found and set(found) == {version}
    if '*' in name:
        assert os.path.basename(path_of(name)).startswith('relay-%s-' % version)


@pytest.mark.parametrize('name', READERS)
def test_syntax(name):
    if shutil.which(READERS[name][0]) is None:
        pytest.skip('skipped: no ' + READERS[name][0])
    done = subprocess.run([*READERS[name], path_of(name)], stdin=subprocess.DEVNULL, cwd=TOP,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout


def test_no_invented_address():
    """Goal: every address is in a domain that never exists, or belongs to the
    description of a format."""
    for path in glob.glob(PACKAGING + '**', recursive=True):
        if os.path.isfile(path):
            for host in re.findall(r'(?:://|@)([\w.-]+\.\w+)', read(path)):
                assert host in ('packages.invalid', 'www.debian.org', 'spdx.org'), \
                    '%s: %s' % (path, host)
