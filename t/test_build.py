"""What make builds and installs: hardening, one source file for each system, and
make as packagers use it.
"""
import glob
import os
import re
import shutil
import subprocess

import pytest

import rig

TOP = os.path.dirname(rig.HERE)
PROGRAM = '#include <stdio.h>\nint main(void) { return puts("") == EOF; }\n'
GUARDS = {    # flag -> what readelf shows of a binary built with it
    '-pie': r'Type: +DYN .*(?s:.*)Flags:.* PIE',
    '-Wl,-z,relro': r'GNU_RELRO',
    '-Wl,-z,now': r'Flags:.* NOW',
    '-Wl,-z,noexecstack': r'GNU_STACK .* RW +0x',
    '-fstack-protector-strong': r'__stack_chk_fail',
    '-D_FORTIFY_SOURCE=2': r'__snprintf_chk',
}


@pytest.fixture(scope='module')
def built():
    """(the compiler and its flags, readelf's output for the binary)."""
    if shutil.which('readelf') is None:
        pytest.skip('skipped: no readelf')
    if rig.SANITIZED:
        pytest.skip('skipped: the sanitizers guard by themselves')
    if rig.RELAY != os.path.join(TOP, 'relay') or not os.path.exists(os.path.join(TOP, 'flags')):
        pytest.skip('skipped: %s is not what make has built here' % rig.RELAY)
    with open(os.path.join(TOP, 'flags')) as f:
        flags = f.read().split()
    says = subprocess.run(['readelf', '-W', '-h', '-l', '-d', '--dyn-syms', rig.RELAY],
                          stdout=subprocess.PIPE, text=True, check=True)
    return flags, says.stdout


@pytest.mark.parametrize('guard', GUARDS)
def test_guard(built, guard, tmp_path):
    """Goal: the binary has every protection that the compiler accepts: random
    addresses, read-only tables, a stack that is not executable and is checked,
    and checked copies."""
    flags, says = built
    cc = subprocess.run([flags[0], '-Werror', '-O2', guard, '-fPIE', '-x', 'c', '-', '-o',
                         str(tmp_path / 'a')], input=PROGRAM,
                        stderr=subprocess.PIPE, text=True)
    if cc.returncode != 0:
        pytest.skip('skipped: %s takes no %s' % (flags[0], guard))
    if 'FORTIFY' in guard and (not re.search(r' -O[123s]', ' '.join(flags))
                               or 'libc.so.6' not in says):
        pytest.skip('skipped: not with these flags, or not with this C library')
    assert re.search(GUARDS[guard], says), guard


# ---- one file per system ----

BASE = os.path.join(TOP, 'base')


def text_of(path):
    with open(path) as f:
        return re.sub(r'/\*.*?\*/', '', f.read(), flags=re.S)


def functions(text):
    return re.findall(r'^(os_\w+)\(', text, re.M)


def built_for(system):
    """The code of the system's file, without the branches for others, and that
    of os_posix.c if the file includes it."""
    text = re.sub(r'^#elif [^!].*?(?=^#endif)', '', text_of(BASE + '/os_%s.c' % system),
                  flags=re.M | re.S)
    has = re.findall(r'^\s*#\s*define (OS_HAS_\w+)', text, re.M)
    if '#include "base/os_posix.c"' in text:
        text += text_of(BASE + '/os_posix.c')
    text = re.sub(r'^#ifdef (OS_HAS_\w+)\n([^#]*)^#elif !defined\((OS_HAS_\w+)\)\n(.*?)^#endif$',
                  lambda m: m[2] if m[1] in has else '' if m[3] in has else m[4],
                  text, flags=re.M | re.S)
    text = re.sub(r'^#ifdef (OS_HAS_\w+)\n(.*?)^#else\n(.*?)^#endif$',
                  lambda m: m[2] if m[1] in has else m[3], text, flags=re.M | re.S)
    return re.sub(r'^#ifndef (OS_HAS_\w+)\n.*?^#endif$',
                  lambda m: '' if m[1] in has else m[0], text, flags=re.M | re.S)


@pytest.mark.parametrize('system', ['linux', 'darwin', 'bsd', 'posix'])
def test_each_system_has_all_functions(system):
    """Goal: with base/os.c, each system's file defines every function of
    base/os.h once, and no other."""
    declared = re.findall(r'^\w.*?\b(os_\w+)\(', text_of(BASE + '/os.h'), re.M)
    assert declared
    assert sorted(functions(text_of(BASE + '/os.c') + built_for(system))) == sorted(declared)


def test_no_condition_on_the_system():
    """Goal: only base/os_*.c test which system this is."""
    files = [path for ext in 'ch' for path in glob.glob(TOP + '/**/*.' + ext, recursive=True)]
    assert files
    for path in files:
        if 'base/os_' in path:    # t/base/os_bsd.h is only for its test
            continue
        found = re.search(r'^\s*#\s*(el)?if.*(__linux|__APPLE__|BSD|RELAY_POSIX|_GNU_SOURCE).*',
                          text_of(path), re.M)
        assert not found, '%s: %s' % (path, found[0])


# The headers of Linux come first: gcc's own read __FreeBSD__ and __NetBSD__.
HERE = ['errno.h', 'netinet/in.h', 'netinet/tcp.h', 'signal.h', 'stdbool.h', 'stdint.h', 'stdio.h',
        'stdlib.h', 'string.h', 'sys/ioctl.h', 'sys/mount.h', 'sys/param.h', 'sys/socket.h',
        'sys/wait.h', 'unistd.h']
THERE = ['netinet/in_pcb.h', 'netinet/tcp_timer.h', 'netinet/tcp_var.h', 'sys/procctl.h',
         'sys/socketvar.h', 'sys/sysctl.h']


@pytest.mark.parametrize('system', ['FreeBSD', 'DragonFly', 'NetBSD', 'OpenBSD'])
def test_each_bsd(system, tmp_path):
    """Goal: the compiler accepts what is built on each BSD, if the system has
    what t/base/os_bsd.h declares."""
    for name in THERE:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    text = ['#include <%s>' % name for name in HERE]
    text += ['#define __%s__ 1' % system, '#include "t/base/os_bsd.h"', '#include "base/os_bsd.c"', '']
    for cc in [cc for cc in ('gcc', 'clang', 'cc') if shutil.which(cc)][:2]:
        done = subprocess.run([cc, '-std=c99', '-pedantic', '-Wall', '-Wextra', '-Wshadow',
                               '-Wconversion', '-Werror', '-D_GNU_SOURCE', '-I.', '-I', str(tmp_path),
                               '-fsyntax-only', '-x', 'c', '-'], cwd=TOP, text=True,
                              input='\n'.join(text), stderr=subprocess.PIPE)
        assert done.returncode == 0, done.stderr


# ---- make, as packagers use it ----

MAKES = [name for name in ('make', 'gmake', 'bmake') if shutil.which(name)]
FLAGS = '-O0 -g'
KINDS = ['relay', 'relay-static']


def copy_tree(to):
    """A copy of the sources, without anything that make has built."""
    shutil.copytree(TOP, to, ignore=shutil.ignore_patterns(
        '.git', '.cross', 'dist', '*.o', '*.a', 'relay', 'relay-*', 'flags', 'guards*', '__pycache__',
        'corpus', '*.gcno', '*.gcda', 'bootstrap_sh.h', '_relay', 'relay.bash', 'check_*[!c]'))
    return to


def own_environment():
    """The environment without variables of the make that runs these tests."""
    return {name: value for name, value in os.environ.items()
            if name not in ('MAKEFLAGS', 'MFLAGS', 'MAKELEVEL', 'CC', 'CFLAGS', 'LDFLAGS',
                            'CPPFLAGS', 'PREFIX', 'DESTDIR', 'OS', 'POSIX')}


def make(tree, *words, tool='make', user=None, **env):
    """What the tool prints.  env is added to its environment."""
    clean = dict(own_environment(), **env)
    done = subprocess.run([tool, *words], cwd=tree, env=clean, stdin=subprocess.DEVNULL, user=user,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


def files_of(top):
    return sorted(os.path.relpath(os.path.join(where, name), top)
                  for where, _, names in os.walk(top) for name in names)


def read(path):
    with open(path, 'rb') as f:
        return f.read()


@pytest.fixture(scope='module', params=MAKES)
def tree(request, tmp_path_factory):
    """(a tree that `make` has built, the name of that make).  The static copy
    is a dummy, because test_reproducible builds a real one."""
    top = copy_tree(tmp_path_factory.mktemp('build') / 'relay')
    make(top, '-j2', 'relay', 'completion/_relay', 'completion/relay.bash', tool=request.param,
         CFLAGS=FLAGS)
    (top / 'relay-Linux-x86_64').write_text('a static one')
    return str(top), request.param


def test_environment(tmp_path):
    """Goal: CC, CFLAGS, CPPFLAGS and LDFLAGS of the environment are used, and
    those of the command line replace them.  On Linux, the sys.mk of bmake
    empties LDFLAGS."""
    top = copy_tree(tmp_path / 'relay')
    for tool in MAKES:
        log = make(top, '-n', 'base/buf.o', 'relay', *['LDFLAGS=-Denv_ld'] * (tool == 'bmake'),
                   tool=tool, CC='env-cc', CFLAGS='-Denv_c', CPPFLAGS='-Denv_cpp',
                   LDFLAGS='-Denv_ld')
        compiled, = [line for line in log.splitlines() if line.endswith('base/buf.c')]
        linked, = [line for line in log.splitlines() if '-o relay ' in line]
        assert compiled.startswith('env-cc ') and linked.startswith('env-cc ')
        assert '-Denv_c ' in compiled and '-Denv_cpp ' in compiled and '-Denv_ld ' in linked
        log = make(top, '-n', 'relay', 'CC=own-cc', 'CFLAGS=-Down', tool=tool, CFLAGS='-Denv_c')
        assert 'own-cc ' in log and '-Down ' in log and '-Denv_c' not in log


def test_install(tree, tmp_path):
    """Goal: make install copies what was built and builds nothing, whatever
    flags it gets; uninstall leaves no file."""
    top, tool = tree
    before = read(top + '/relay')
    to = ['DESTDIR=%s' % tmp_path, 'PREFIX=/usr', 'CC=false', 'CFLAGS=-Dother']
    log = make(top, 'install', *to, tool=tool)
    assert '-Dother' not in log
    assert read(top + '/relay') == read(str(tmp_path / 'usr/bin/relay')) == before
    assert files_of(str(tmp_path)) == [
        'usr/bin/relay', 'usr/lib/relay/relay-Linux-x86_64',
        'usr/share/bash-completion/completions/relay', 'usr/share/man/man1/relay.1',
        'usr/share/zsh/site-functions/_relay']
    modes = {oct(os.stat(str(tmp_path / name)).st_mode)[-3:]: name
             for name in files_of(str(tmp_path))}
    assert sorted(modes) == ['644', '755']
    make(top, 'uninstall', *to, tool=tool)
    assert files_of(str(tmp_path)) == []
    assert not (tmp_path / 'usr/lib/relay').exists()


def test_install_under_umask(tree, tmp_path):
    """Goal: the umask of the user does not change the modes of the files."""
    top, tool = tree
    os.umask(0o077)
    try:
        make(top, 'install', 'DESTDIR=%s' % tmp_path, tool=tool)
    finally:
        os.umask(0o022)
    for name in files_of(str(tmp_path)):
        assert os.stat(str(tmp_path / name)).st_mode & 0o444 == 0o444, name


def test_install_directories(tree, tmp_path):
    """Goal: BINDIR, MANDIR and LIBDIR, also from the environment's PREFIX."""
    top, tool = tree
    make(top, 'install', 'BINDIR=%s/b/sbin' % tmp_path, 'MANDIR=%s/man' % tmp_path,
         'LIBDIR=%s/b/lib' % tmp_path, tool=tool, PREFIX=str(tmp_path / 'p'))
    assert files_of(str(tmp_path)) == [
        'b/lib/relay/relay-Linux-x86_64', 'b/sbin/relay', 'man/man1/relay.1',
        'p/share/bash-completion/completions/relay', 'p/share/zsh/site-functions/_relay']


def test_install_where_relay_does_not_look(tree, tmp_path):
    """Goal: a LIBDIR that relay does not search is an error."""
    top, tool = tree
    done = subprocess.run([tool, 'install', 'DESTDIR=%s' % tmp_path, 'LIBDIR=/usr/local/lib64'],
                          cwd=top, env=own_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode != 0 and 'LIBDIR' in done.stdout, done.stdout


def test_install_strip(tree, tmp_path):
    """Goal: install-strip installs the same without symbols."""
    top, tool = tree
    make(top, 'install-strip', 'DESTDIR=%s' % tmp_path, 'PREFIX=/usr', tool=tool)
    installed = read(str(tmp_path / 'usr/bin/relay'))
    assert b'.symtab' not in installed and len(installed) < len(read(top + '/relay'))
    assert b'.symtab' in read(top + '/relay')


def test_distclean(tmp_path):
    """Goal: after distclean, the tree has the files of the source and no
    other."""
    top = str(copy_tree(tmp_path / 'relay'))
    make(top, 'distclean')    # the copy has what was built here
    before = files_of(top)
    for tool in MAKES:
        make(top, '-j2', 'relay', 'libmux.a', 'completion/_relay', 't/faults.so', 't/nth.so',
             tool=tool, CFLAGS=FLAGS)
        for name in ('relay-static', 'relay-Linux-s390x'):
            (tmp_path / 'relay' / name).touch()
        make(top, 'distclean', tool=tool)
        assert files_of(top) == before


@pytest.mark.parametrize('tool', MAKES)
def test_static_copy(tool, tmp_path):
    """Goal: make builds the static relay that tunnels copy.  When ./relay is
    built, the old static one is removed.  Without the compiler of the static
    one, make reports this and succeeds."""
    top = str(copy_tree(tmp_path / 'relay'))
    copy = '%s/relay-%s-%s' % (top, os.uname().sysname, os.uname().machine)
    log = make(top, '-j2', 'STATIC_CC=no-musl', 'CROSSED=', tool=tool, CFLAGS=FLAGS)
    assert 'no static relay' in log and not os.path.exists(copy)
    if shutil.which('musl-gcc') is None:
        pytest.skip('skipped: no musl-gcc: apt-get install musl-tools')
    make(top, tool=tool, CFLAGS=FLAGS)
    assert rig.loader(copy) is None
    assert subprocess.run([copy, '-V'], stdout=subprocess.PIPE).stdout.startswith(b'relay ')
    log = make(top, tool=tool, CFLAGS=FLAGS)
    assert 'musl-gcc' not in log
    make(top, 'relay', tool=tool, CFLAGS='-O1')
    assert not os.path.exists(copy)


def test_image_of_the_bench(tmp_path):
    """Goal: doc/bench.svg is what gnuplot draws of the values beside it, and
    relay has a bar in each panel."""
    draw = [TOP + '/t/bench-draw', TOP + '/doc/bench.json', TOP + '/doc/bench-link.json']
    script = subprocess.run([*draw, '--commands'], stdout=subprocess.PIPE, check=True, text=True).stdout
    panels = re.findall(r'^\$data\d+ << EOD\n(.*?)^EOD', script, re.M | re.S)
    assert len(panels) == 16 and all('relay"' in panel for panel in panels)
    if shutil.which('gnuplot') is None:
        pytest.skip('skipped: no gnuplot: apt-get install gnuplot-nox')

    def parts(svg):
        return re.sub(r'<desc>.*?</desc>', '', svg, flags=re.S)    # the version of gnuplot
    drawn = subprocess.run(draw, stdout=subprocess.PIPE, check=True, text=True).stdout
    with open(TOP + '/doc/bench.svg') as f:
        assert parts(drawn) == parts(f.read())


def test_syntax():
    """Goal: the Makefile uses only features of GNU make 3.81 and bmake."""
    with open(TOP + '/Makefile') as f:
        text = f.read()
    assert not re.search(r'^\w+ *(!=|::=|:=|\+=)|^[ .]*(ifeq|ifdef|if |for |include)'
                         r'|\$\((shell|wildcard|file|foreach|patsubst|call|if) |^\.ONESHELL'
                         r'|\$[<^+|?]|\$\(@[DF]\)', re.sub(r'^\t.*\$<$', '', text, flags=re.M),
                         re.M)


@pytest.mark.parametrize('kind', KINDS)
def test_reproducible(kind, tmp_path):
    """Goal: two users who build in two directories get the same file."""
    if kind == 'relay-static' and shutil.which('musl-gcc') is None:
        pytest.skip('skipped: no musl-gcc: apt-get install musl-tools')
    user = 54321 if os.geteuid() == 0 else None
    built = []
    for name, owner in (('a', None), ('another/directory', user)):
        top = str(copy_tree(tmp_path / name))
        if owner is not None:
            os.chmod(str(tmp_path.parent), 0o755)
            os.chmod(str(tmp_path), 0o755)
            subprocess.run(['chown', '-R', str(owner), top], check=True)
        make(top, '-j2', kind, user=owner, CFLAGS='-O1 -g', HOME=top, USER=name)
        built.append(read('%s/%s' % (top, kind)))
    assert built[0] == built[1]
    assert str(tmp_path).encode() not in built[0]


# ---- tools that are missing ----

# install makes the tool "tool"; the first update finds the lock of another apt.
APT_GET = '''#!/bin/sh
cd "${0%/*}" && echo "$*" >>log
case $1 in
update) [ -e locked ] || { >locked; echo "E: Could not get lock /var/lib" >&2; exit 100; } ;;
install) ln -s /bin/true tool ;;
esac
'''


@pytest.mark.parametrize('words, system, status, out, log', [
    ([], 'debian', 1, 'missing: tool; to install:\n    sudo apt-get install tool\n', ''),
    (['-i'], 'debian', 0, 'waiting for another apt-get\n',
     'update -qq\nupdate -qq\ninstall -y -qq --no-install-recommends '
     '-o DPkg::Lock::Timeout=600 tool\n'),
    (['-i'], 'other', 1, 'missing: tool (names of Debian); install them, or what this system has '
     'instead\n', ''),
])
def test_missing_tool(tmp_path, words, system, status, out, log):
    """Goal: make check installs nothing and prints the command; make deps
    installs, and waits for another apt-get."""
    if os.getuid() != 0:
        pytest.skip('skipped: only root installs')
    for name in ('sh', 'id', 'sleep'):
        os.symlink(shutil.which(name), tmp_path / name)
    (tmp_path / 'log').write_text('')
    if system == 'debian':
        (tmp_path / 'apt-get').write_text(APT_GET.replace('ln -s', shutil.which('ln') + ' -s'))
        (tmp_path / 'apt-get').chmod(0o755)
    r = subprocess.run([TOP + '/t/need', *words, 'tool', 'sh'], stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, text=True, env={'PATH': str(tmp_path)})
    assert (r.returncode, r.stderr, (tmp_path / 'log').read_text()) == (status, out, log)
