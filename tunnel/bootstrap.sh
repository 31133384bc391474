#!/bin/sh
# bootstrap.sh - finds a relay on the far side, or installs one, and runs it.
#
# The near relay sends this script to the shell at the end of the chain of hops.
# The Makefile makes one line of it: it removes comments and leading blanks and
# joins the lines.  Rules for that:
#   - A comment has a line of its own.
#   - A line ends where a command ends, or after {, |, &&, ||, do, then or else,
#     or with a backslash.
#   - The whole line is shorter than 4096 bytes.
#
# One line, because some shells read ahead: input that follows the line could be
# lost.  The near side sends nothing more until it has read an answer.
#
# The four words between @ signs are filled in by the near side, in this order:
# the version, the options of the far relay, the path of -x as a quoted word (or
# ''), and the binaries on offer, each as TYPE:CHECKSUM:SIZE.
#
# Far relays recognise the script by its first bytes: MUX_SCRIPT in mux/mux.h.

V='relay @VERSION@'
o='@OPTIONS@'
x=@PATH@
b='@BINARIES@'

# Answer the near side.  The mark of an answer, "relay:: ", does not occur in the
# script.  A terminal or a cat that sends the script back is so told apart.
say() {
	printf 'relay%s %s\n' :: "$*"
}

# A terminal changes bytes.  A shell at a terminal would not end with the
# connection, so it ends here.
if [ -t 0 ]; then
	say tty
	exit 1
fi
say here || exit

# Is $1 a relay of this version that runs?  stderr is ignored: a loader may print
# warnings there that do not matter (LD_PRELOAD).
runs() {
	[ "$({ "$1" -V; } 2>/dev/null </dev/null)" = "$V" ]
}

# Run $1 as the far end.
start() {
	# shellcheck disable=SC2086 # the options are several words
	say at "$1" && exec "$1" $o
}

# $1 does not run: answer with $2, and with what it prints, in one line.
give_up() {
	e=$({ "$1" -V; } 2>&1 </dev/null) || e="${e:-status $?}"
	set -f
	# shellcheck disable=SC2086 # its lines become words of one line
	say "$2" ${e:-no output}
	exit 1
}

# -x: that relay and no other.
if [ "$x" ]; then
	runs "$x" || give_up "$x" "no $x:"
	start "$x"
	exit
fi

# Run $1 if it is a relay of this version.
use() {
	runs "$1" && start "$1"
}

for p in relay "$HOME/.local/bin/relay" "$HOME/bin/relay"; do
	use "$p"
done

# An upload needs these tools.  The missing ones are collected in $m.
has() {
	command -v "$1" >/dev/null 2>&1
}

m=
for p in cat chmod find mkdir mv rm uname; do
	has "$p" || m="$m $p"
done
u=$(id -u 2>/dev/null)
[ "$u" ] || m="$m id"
has cksum || has wc || m="$m cksum"

# head -c is many times as fast as dd, but some systems have no head -c.
h=
head -c 1 </dev/null >/dev/null 2>&1 && h=1
[ "$h" ] || has dd || m="$m dd"
if [ "$m" ]; then
	say "lack$m"
	exit 1
fi

# The checksum $s and the size $n of the binary for the type of this system.
t=$(uname -s)-$(uname -m)
s=
for p in $b; do
	case $p in "$t":*) p=${p#*:}; s=${p%:*}; n=${p#*:} ;; esac
done
if [ ! "$s" ]; then
	say none "$t"
	exit 1
fi

umask 077

# Is the file $1 the binary on offer?  If cksum is missing, wc gives its size
# alone.
same() {
	# shellcheck disable=SC2046 # the output is two words
	set -- $({ cksum <"$1" || wc -c <"$1"; } 2>/dev/null)
	[ "$1 $2" = "$s $n" ] || [ "$1 $2" = "$n " ]
}

# Make the directory $d.  Is it a directory of this user that is closed to all
# other users?  $e is the reason if not.
ours() {
	e=$(mkdir -p "$d" 2>&1) || return
	e='it is not a directory of mode 0700 of this user'
	[ "$(find "$d" -prune -type d -user "$u" \( -perm 700 -o -perm 2700 \) 2>/dev/null)" ]
}

# Can a file be written and run in $d?  A quota or a mount with noexec shows in no
# other way.  $e is the reason if not.  Old remains of uploads are removed first.
room() {
	find "$d" -name 'relay-*.part' -mtime +0 -exec rm -f {} + 2>/dev/null
	e=$({ echo '#!/bin/sh' >"$f" && chmod 700 "$f" && "$f"; } 2>&1)
}

# Read the binary from the near side.  head may read ahead: nothing is sent behind
# the binary.
get() {
	if [ "$h" ]; then
		head -c "$n"
	else
		dd bs=1 count="$n" 2>/dev/null
	fi
}

# A script could be run in $d and the binary $1 cannot: the system itself refuses
# the binary (its loader, its processor).  Another directory would not help.
refuse() {
	give_up "$1" "refuse $s $d:"
}

# Ask for the binary, write it to $f, test it, and rename it to $p.  If writing
# fails, the rest of the binary is read all the same: it must not reach the shell.
put() {
	say want "$t" "$d"
	e=$(get | { { cat >"$f"; } 2>&1; cat >/dev/null; })
	same "$f" || return
	runs "$f" || refuse "$f"
	e=$(mv -f "$f" "$p" 2>&1)
}

# Use an earlier upload in $d, or make one there.  If an earlier upload has the
# right checksum and does not run, the system refuses the binary.  A right size
# proves less: without cksum the binary is sent again.
try() {
	k=
	if same "$p"; then
		use "$p"
		! has cksum || k=1
	fi
	room || return
	[ ! "$k" ] || [ ! -x "$p" ] || refuse "$p"
	put && use "$p"
}

# Each directory in turn.  The reasons are collected in $w.  Each upload has a name
# of its own until it is complete: two starts at once do not disturb each other.
w=
f=
trap 'rm -f "$f"' EXIT
trap 'exit 1' HUP INT PIPE TERM
for d in "${XDG_CACHE_HOME:-$HOME/.cache}/relay" \
	${XDG_RUNTIME_DIR:+"$XDG_RUNTIME_DIR/relay"} \
	${TMPDIR:+"$TMPDIR/relay-$u"} "/tmp/relay-$u"; do
	p=$d/relay-${V#* }-$t-$s
	f=$p.$(uname -n).$$.part
	if ours; then
		try
		rm -f "$f" 2>/dev/null
	fi
	w="$w; $d: ${e:-it could not be written}"
	# If the near side is gone, this fails, and no further directory is made.
	say left "$d" || exit
done
say fail "${w#; }"
exit 1
