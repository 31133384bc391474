"""What make builds: the hardening flags of compiler and linker, as readelf
shows them, and one file for each system.
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
    """The code of the system's file, and that of os_posix.c if the file
    includes it."""
    own = text_of(BASE + '/os_%s.c' % system)
    if '#include "base/os_posix.c"' not in own:
        return own
    has = re.findall(r'^\s*#\s*define (OS_HAS_\w+)', own, re.M)
    return own + re.sub(r'^#ifndef (OS_HAS_\w+)\n.*?^#endif$',
                        lambda m: '' if m[1] in has else m[0],
                        text_of(BASE + '/os_posix.c'), flags=re.M | re.S)


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
        if os.path.relpath(path, TOP).startswith('base/os_'):
            continue
        found = re.search(r'^\s*#\s*(el)?if.*(__linux|__APPLE__|BSD|RELAY_POSIX|_GNU_SOURCE).*',
                          text_of(path), re.M)
        assert not found, '%s: %s' % (path, found[0])
