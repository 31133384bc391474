"""packaging/: each file has the version of relay.h, installed tools can read it,
and its commands install the files of make install.  A compiler that copies
./relay takes the place of the real one, unless SLOW=1 is set.
"""
import glob
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess

import pytest

import rig
from test_build import copy_tree, files_of, own_environment

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


# ---- the commands of each recipe, in a clean tree ----

VERSION = re.search(r'RELAY_VERSION "(.*)"', read(TOP + '/relay.h'))[1]
TREE = 'relay-' + VERSION
# A program is a copy of ./relay, or does nothing.
COMPILER = '''#!/bin/sh
out=
while [ $# -gt 0 ]; do
	case $1 in
	-o) out=$2 ;;
	-dumpmachine) echo x86_64-linux-gnu ;;
	esac
	shift
done
case $out in
'') ;;
relay | relay-static) cp %s "$out" ;;
*) echo '#!/bin/sh' >"$out" && chmod +x "$out" ;;
esac
'''


def source(top):
    """Put the source into a directory, packed and unpacked, which any user may
    write."""
    top = pathlib.Path(top)
    copy_tree(top / TREE)
    subprocess.run(['tar', '-czf', TREE + '.tar.gz', TREE], cwd=top, check=True)
    top.chmod(0o777)
    (top / 'bin').mkdir()
    for name in ('cc', 'gcc', 'musl-gcc'):
        (top / 'bin' / name).write_text(COMPILER % rig.RELAY)
        (top / 'bin' / name).chmod(0o755)
    return top


def run(here, *words, cwd=TREE, user=None, **env):
    """What the command prints.  A word of sh is a script for sh -e."""
    if shutil.which(words[0]) is None:
        pytest.skip('skipped: no ' + words[0])
    path = os.environ['PATH'] if 'SLOW' in os.environ else '%s/bin:%s' % (here, os.environ['PATH'])
    done = subprocess.run(words, cwd=here / cwd, user=user, stdin=subprocess.DEVNULL, text=True,
                          env=dict(own_environment(), PATH=path, HOME=str(here), **env),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout
    return done.stdout


def names(top):
    """The files below it, as if no document were compressed."""
    return {re.sub(r'\.gz$', '', name).replace('zsh/vendor-completions', 'zsh/site-functions')
            for name in files_of(top)}


@pytest.fixture(scope='module')
def wanted(tmp_path_factory):
    """The files of make install."""
    here = source(tmp_path_factory.mktemp('wanted'))
    run(here, 'make')
    run(here, 'make', 'install', 'PREFIX=%s/out' % here)
    return names(here / 'out')


def debian(here):
    shutil.copytree(here / TREE / 'packaging/debian', here / TREE / 'debian')
    run(here, 'dpkg-buildpackage', '-us', '-uc', '-b', '-d')
    shutil.rmtree(here / TREE / 'debian/relay/DEBIAN')
    return here / TREE / 'debian/relay/usr'


def alpine(here):
    run(here, 'sh', '-ec', '. packaging/alpine/APKBUILD; for phase in build check package; do'
        ' (cd "$builddir"; $phase); done', builddir='.', pkgdir='%s/out' % here)
    return here / 'out/usr'


def arch(here):
    """makepkg refuses root, and needs a pacman."""
    user = 54321 if os.geteuid() == 0 else None
    shutil.copy(here / TREE / 'packaging/arch/PKGBUILD', here)
    run(here, 'makepkg', '-d', cwd='.', user=user, PACMAN='true')
    return here / 'pkg/relay/usr'


def rpm(here):
    (here / 'SOURCES').mkdir()
    shutil.move(here / (TREE + '.tar.gz'), here / 'SOURCES')
    run(here, 'rpmbuild', '-bb', '--nodeps', '-D', '_topdir %s' % here, 'packaging/rpm/relay.spec')
    package, = glob.glob('%s/RPMS/*/relay-%s-*.rpm' % (here, VERSION))
    run(here, 'sh', '-ec', 'rpm2archive - <%s | tar -xzf - -C ..' % package)
    return here / 'usr'


NIX = '''
let derivation = { stdenv = { hostPlatform.isLinux = true; mkDerivation = x: removeAttrs x [ "src" ]; }; };
in import ./packaging/nix (derivation // {
  lib = { optionalString = is: text: if is then text else ""; licenses.isc = 0; platforms.unix = 0; };
  pkgsStatic.callPackage = f: _:
    { outPath = builtins.trace (builtins.toJSON (f derivation)) "$copied"; };
  check = 0;
  pkg-config = 0;
})
'''


def nix(here):
    """Without nixpkgs: evaluate the two derivations, and run their phases as
    stdenv does."""
    printed = run(here, 'nix-instantiate', '--store', 'dummy://', '--eval', '--strict', '--json',
                  '-E', NIX)
    copied, relay = [json.loads(text) for text in re.findall(r'^(?:trace: )?({.*})$', printed, re.M)]
    paths = {'out': '%s/out' % here, 'copied': '%s/copied' % here}
    run(here, 'sh', '-ec', '%(buildPhase)s\n%(installPhase)s' % copied,
        **dict(paths, out=paths['copied'], CC='musl-gcc'))
    run(here, 'make', 'clean')
    run(here, 'make', *relay['buildFlags'], **paths)
    run(here, 'sh', '-ec', relay['postBuild'].replace('${copied}', '$copied'), **paths)
    if relay['doCheck']:
        run(here, 'make', relay['checkTarget'], **paths)
    run(here, 'make', 'install', *relay['installFlags'], **paths)
    return here / 'out'


FORMULA = '''
require "pathname"
class Formula
  %i[desc homepage url sha256 license].each { |name| define_singleton_method(name) { |_| } }
  def self.test(&block) = define_method(:tested, &block)
  def system(*words) = Kernel.system(*words) || abort
  def prefix = ENV["out"]
  def bin = prefix + "/bin"
  def testpath = Pathname.pwd
  def version = ENV["version"]
  def shell_output(command) = `#{command}`
  def assert_equal(a, b) = a == b || abort("#{a} #{b}")
  def assert_match(a, b) = b.include?(a) || abort("#{a} #{b}")
end
load "packaging/homebrew/relay.rb"
Relay.new.install
Relay.new.tested
'''


def homebrew(here):
    run(here, 'ruby', '-e', FORMULA, out='%s/out' % here, version=VERSION)
    return here / 'out'


SPACK = '''
import subprocess, sys, types
class MakefilePackage:
    prefix = sys.argv[1]
    spec = types.SimpleNamespace(satisfies=lambda _: True)
words = dict.fromkeys(("license", "version", "variant", "depends_on"), lambda *_, **__: None)
for name, has in ("spack.package", words), ("spack_repo.builtin.build_systems.makefile",
                                            {"MakefilePackage": MakefilePackage}):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__dict__.update(has)
exec(open("packaging/spack/package.py").read())
for targets in Relay().build_targets, Relay().install_targets:
    subprocess.run(["make", *targets], check=True)
'''


def spack(here):
    run(here, 'python3', '-c', SPACK, '%s/out' % here)
    return here / 'out'


def easybuild(here):
    found = {'SOURCE_TAR_GZ': TREE + '.tar.gz'}
    exec(read(path_of('easybuild/relay-*.eb')), found)
    assert found['easyblock'] == 'ConfigureMake' and found['skipsteps'] == ['configure']
    run(here, 'make')
    run(here, 'make', 'install', found['installopts'] % {'installdir': '%s/out' % here})
    for name in found['sanity_check_paths']['files']:
        assert (here / 'out' / name).exists()
    run(here, 'sh', '-ec', 'PATH=../out/bin:$PATH; ' + found['sanity_check_commands'][0])
    return here / 'out'


def conda(here):
    text = read(path_of('conda/meta.yaml'))
    for name in ('script', 'commands'):
        commands = re.search(r'^  +%s:\n((?: +- .*\n)+)' % name, text, re.M)[1]
        for command in re.findall(r'- (.*)', commands):
            run(here, 'sh', '-ec', 'PATH=$PREFIX/bin:$PATH; ' + command, PREFIX='%s/out' % here)
    return here / 'out'


# recipe -> what else it installs
RECIPES = {debian: 'share/doc/|share/lintian/', alpine: 'share/doc/', arch: 'share/licenses/',
           rpm: 'share/doc/|share/licenses/|lib/.build-id', nix: None, homebrew: None, spack: None,
           easybuild: None, conda: None}


@pytest.mark.parametrize('recipe', RECIPES, ids=lambda recipe: recipe.__name__)
def test_installs(recipe, tmp, wanted):
    """Goal: the recipe installs what make install does, and documents."""
    if 'SLOW' in os.environ:
        signal.alarm(1200)
    found = names(recipe(source(tmp)))
    more = {name for name in found if RECIPES[recipe] and re.match(RECIPES[recipe], name)}
    assert found - more == wanted
    if RECIPES[recipe] and 'doc' in RECIPES[recipe]:
        assert {'README', 'BENCHMARKS', 'bench.svg', 'jupyter'} <= \
            {os.path.basename(name) for name in more}
