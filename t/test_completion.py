"""Completion in bash and zsh: the words that are offered before the cursor."""
import os
import re
import shutil
import subprocess
import tempfile

import pytest

import rig

SOURCES = os.path.join(os.path.dirname(rig.HERE), 'completion')
CONFIG = '''
Host login node-1 *.example !bad gpu?
  HostName 10.0.0.1
host = other   # a comment with words
Host "quoted"
Include extra.d/*.conf
Include ~/elsewhere
Match host nobody
'''
HOSTS = ['login', 'node-1', 'other', 'quoted', 'included', 'nested', 'elsewhere']

BASH = '''
. "$1"
complete -p relay | grep -q _relay || exit 9
COMP_LINE=$2 COMP_POINT=${#2}
# As readline splits words: a character that breaks words is a word of its own.
line=${COMP_LINE//[:]/ : } line=${line//@/ @ }
read -ra COMP_WORDS <<<"$line"
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_relay
[ ${#COMPREPLY[@]} = 0 ] || printf '%s\\n' "${COMPREPLY[@]}"
'''

# zsh with its completion system reads LINE and a Tab from a terminal.  compadd is
# replaced by a function that prints the words that match.
ZSH = r'''
zmodload zsh/zpty
zpty z 'PS1= TERM=dumb zsh -f -i'
zpty -w z 'stty -echo; PS1= PS2= RPS1= PROMPT_EOL_MARK=
fpath=($DIR $fpath); autoload -Uz compinit; compinit -u -d $HOME/.dump
zle -C show complete-word show
show() {
	compadd() {
		[[ ${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]] && { builtin compadd "$@"; return }
		local -a __hits
		builtin compadd -A __hits "$@"
		print -rl -- "hit "${^__hits}
		builtin compadd "$@"
	}
	print -r -- BEGIN
	_main_complete
	print -r -- END
	unfunction compadd
	compstate[list]= compstate[insert]=
}
bindkey "^I" show
print -r -- REA""DY'
while zpty -r z line; do [[ $line == *READY* ]] && break; done
zpty -n -w z "$LINE"$'\t'
while zpty -r z line; do
	line=${line%%$'\r'*}
	[[ $line == *"hit "* ]] && print -r -- ${line#*hit }
	[[ $line == *END* ]] && break
done
zpty -d z
'''


@pytest.fixture(scope='module')
def files():
    """A directory with the completions that make install generates from the
    output of relay -h."""
    with tempfile.TemporaryDirectory() as path:
        for name in ('_relay', 'relay.bash'):
            generate(path, name, subprocess.run([rig.RELAY, '-h'], stdout=subprocess.PIPE,
                                                text=True, check=True).stdout)
        yield path


def generate(path, name, usage):
    with open('%s/%s' % (path, name), 'w') as f:
        subprocess.run([SOURCES + '/generate', '%s/%s.in' % (SOURCES, name)], input=usage, stdout=f,
                       text=True, check=True)


@pytest.fixture
def home(tmp, files):
    for name, text in {'.ssh/config': CONFIG,
                       '.ssh/extra.d/a.conf': 'Host included\nInclude more\n',
                       '.ssh/more': 'Host nested\nInclude config\n',
                       'elsewhere': 'HOST elsewhere\n',
                       'run/app.s': '', 'run/apple.s': '', 'run/with space': ''}.items():
        path = os.path.join(tmp, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, 'w') as f:
            f.write(text)
    os.symlink(files, tmp + '/completion')
    return tmp


def environment(home, **more):
    return dict(os.environ, HOME=home, DIR=home + '/completion', **more)


def run_shell(words, home, **more):
    """Run a shell, which must exit with status 0; return its output."""
    r = subprocess.run(words, cwd=home + '/run', env=environment(home, **more), text=True,
                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       timeout=rig.PATIENCE)
    assert r.returncode == 0, r.stderr
    return r


def bash(home, line):
    r = run_shell(['bash', '--norc', '-c', BASH, 'bash', home + '/completion/relay.bash', line],
                  home)
    assert r.stderr == ''
    return r.stdout.splitlines()


def zsh(home, line):
    if not shutil.which('zsh'):
        pytest.skip('skipped: no zsh: apt-get install zsh')
    return run_shell(['zsh', '-f', '-c', ZSH], home, LINE=line).stdout.splitlines()


SHELLS = pytest.mark.parametrize('shell', [bash, zsh])


@SHELLS
@pytest.mark.parametrize('line', ['relay -L 8888:/run/app.sock ',
                                  'relay -f -R 1:localhost:2 login ', 'relay -fL1:h:2 -v ',
                                  'relay -n ', 'relay -W ', 'relay -L 1:h:2 -vPx '])
def test_hops(shell, home, line):
    assert sorted(shell(home, line)) == sorted(HOSTS)


@SHELLS
def test_hop_begun(shell, home):
    assert sorted(shell(home, 'relay -D 1080 n')) == ['nested', 'node-1']


@SHELLS
def test_hop_with_a_user(shell, home):
    """Goal: the text before the @ stays: readline and zle replace only the text
    after it."""
    assert shell(home, 'relay -L 1:h:2 me@lo') == ['login']


@SHELLS
def test_hops_of_jump(shell, home):
    """Goal: the argument of -J is a list of hops."""
    assert shell(home, 'relay -L 1:h:2 -J lo') == ['login']
    assert [word.split(',')[-1] for word in shell(home, 'relay -J login,lo')] == ['login']


@SHELLS
def test_no_config(shell, home):
    os.unlink(home + '/.ssh/config')
    assert shell(home, 'relay -L 1:h:2 ') == []


@SHELLS
@pytest.mark.parametrize('line', ['relay app', 'relay -m 8888 app', 'relay -P app',
                                  'relay -L 8888:app', 'relay -x app',
                                  'relay - -- cat app', 'relay -vP app', 'relay -vP n app'])
def test_paths(shell, home, line):
    assert sorted(shell(home, line)) == ['app.s', 'apple.s']


@SHELLS
def test_a_number_is_wanted(shell, home):
    assert shell(home, 'relay -t ') == []


@SHELLS
def test_commands(shell, home):
    assert 'sshd-or-such' not in shell(home, 'relay -m 8888 -- ssh')
    assert 'ssh' in shell(home, 'relay -m 8888 -- ssh')


def rows(text):
    """Return (letter, argument, help) of each option that relay -h lists."""
    return re.findall(r'^  -(\w) (\S*) +(.+)$', text, re.M)


def test_options_are_those_of_relay(home, run):
    """Goal: both shells offer exactly the options that relay -h lists. zsh
    shows the same help."""
    shown = rows(run('-h').stdout)
    assert len(shown) > 20
    assert set(bash(home, 'relay -')) == {'-' + letter for letter, _, _ in shown} | {'--'}
    offered = [line for line in zsh(home, 'relay -') if line.startswith('-')]
    assert sorted(offered) == sorted('-' + letter for letter, _, _ in shown)
    with open(home + '/completion/_relay') as f:
        text = f.read()
    for letter, argument, what in shown:
        assert "-%s%s[%s]" % (letter, '+' if argument else '', what) in text


@SHELLS
def test_new_option(shell, home, files, run, tmp_path):
    """Goal: the completions follow from the table alone: a new row is offered,
    whatever characters its help contains."""
    usage = (run('-h').stdout + "  -y FILE         it's a [thing]: \\ & so\n" +
             '  -Y              without one\n')
    os.unlink(home + '/completion')
    os.mkdir(home + '/completion')
    for name in ('_relay', 'relay.bash'):
        generate(home + '/completion', name, usage)
    assert {'-y', '-Y'} <= set(shell(home, 'relay -'))
    assert sorted(shell(home, 'relay -Yy app')) == ['app.s', 'apple.s']


def test_no_usage():
    """Goal: if the list of options is empty, generate fails, so that make
    installs no empty completion."""
    r = subprocess.run([SOURCES + '/generate', SOURCES + '/_relay.in'], input='',
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       text=True)
    assert (r.returncode, r.stdout) == (1, '') and 'no option' in r.stderr


def test_zsh_syntax(files):
    if not shutil.which('zsh'):
        pytest.skip('skipped: no zsh: apt-get install zsh')
    assert subprocess.run(['zsh', '-n', files + '/_relay']).returncode == 0
