"""What make has built into the binary: the guards of the compiler and the linker, as readelf tells."""
import os
import re
import shutil
import subprocess

import pytest

import rig

TOP = os.path.dirname(rig.HERE)
PROGRAM = '#include <stdio.h>\nint main(void) { return puts("") == EOF; }\n'
GUARDS = {                       # flag -> what readelf shows of a binary that was built with it
    '-pie': r'Type: +DYN .*(?s:.*)Flags:.* PIE',
    '-Wl,-z,relro': r'GNU_RELRO',
    '-Wl,-z,now': r'Flags:.* NOW',
    '-Wl,-z,noexecstack': r'GNU_STACK .* RW +0x',
    '-fstack-protector-strong': r'__stack_chk_fail',
    '-D_FORTIFY_SOURCE=2': r'__snprintf_chk',
}


@pytest.fixture(scope='module')
def built():
    """(the compiler and its flags, what readelf says of the binary)."""
    if shutil.which('readelf') is None:
        pytest.skip('skipped: no readelf')
    if rig.SANITIZED:
        pytest.skip('skipped: the sanitizers guard by themselves')
    if rig.RELAY != os.path.join(TOP, 'relay') or not os.path.exists(os.path.join(TOP, 'flags')):
        pytest.skip('skipped: %s is not what make has built here' % rig.RELAY)
    with open(os.path.join(TOP, 'flags')) as f:
        flags = f.read().split()
    says = subprocess.run(['readelf', '-W', '-h', '-l', '-d', '--dyn-syms', rig.RELAY], stdout=subprocess.PIPE, text=True, check=True)
    return flags, says.stdout


@pytest.mark.parametrize('guard', GUARDS)
def test_guard(built, guard, tmp_path):
    """Whatever the compiler takes is there: addresses that nobody knows beforehand, tables that nobody can write, a stack that
    cannot run and tells when it was overwritten, and copies that stay within their arrays."""
    flags, says = built
    cc = subprocess.run([flags[0], '-Werror', '-O2', guard, '-fPIE', '-x', 'c', '-', '-o', str(tmp_path / 'a')], input=PROGRAM,
                        stderr=subprocess.PIPE, text=True)
    if cc.returncode != 0:
        pytest.skip('skipped: %s takes no %s' % (flags[0], guard))
    if 'FORTIFY' in guard and (not re.search(r' -O[123s]', ' '.join(flags)) or 'libc.so.6' not in says):
        pytest.skip('skipped: not with these flags, or not with this C library')
    assert re.search(GUARDS[guard], says), guard
