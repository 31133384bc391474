#!/bin/sh
# bootstrap.sh - finds a relay on the far side, or installs one, and runs it.
#
# The near relay sends this script to the shell at the end of the chain of hops.
# The Makefile makes one line of it: it removes comments and leading blanks and
# joins the lines.  It needs these rules:
#   - A comment has a line of its own.
#   - The last word of a line ends a command, or is {, |, &&, ||, do, then, else
#     or a backslash.
#   - The result is shorter than 4096 bytes: ISO C guarantees no longer string.
#
# Some shells read ahead: they would lose input that follows the line.  The near
# side sends nothing more until it has read an answer.
#
# The near relay replaces the words between @ signs, in this order:
#   @VERSION@   the version of both relays
#   @OPTIONS@   the options of the far relay
#   @PATH@      the path of -x in quotes, or nothing
#   @BINARIES@  the binaries on offer, each as TYPE:CHECKSUM:SIZE
#
# A forced command may start relay in place of the shell.  That relay skips the
# script: it recognises the first bytes (MUX_SCRIPT in mux/mux.h).

V='relay @VERSION@'

# A variable that the user exports would be changed for the far relay.
set -- "$V"
unset V args binaries mask word missing user with_head type sum size dir file part reason intact
V=$1
args='@OPTIONS@'
set -- @PATH@
binaries='@BINARIES@'
mask=$(umask)

# Send an answer.  Its mark, "relay:: ", is divided here: if a terminal or
# cat(1) sends the script back, the near side finds no answer in it.
say() {
	printf 'relay%s %s\n' :: "$*"
}

# A terminal changes bytes.  A shell at a terminal can go on after the end of the
# connection, so the script ends it.
if [ -t 0 ]; then
	say tty
	exit 1
fi
say here || exit

# Does $1 run, and is it a relay of this version?  stderr is ignored, since a
# loader may print warnings there (LD_PRELOAD).
runs() {
	[ "$({ "$1" -V; } 2>/dev/null </dev/null)" = "$V" ]
}

# Run $1 as the far end, with the user's file mode mask.
start() {
	umask "$mask"
	# shellcheck disable=SC2086 # the options are several words
	say at "$1" && exec "$1" $args
}

# $1 does not run: send the answer $2 with the output of $1, and exit.
give_up() {
	reason=$({ "$1" -V; } 2>&1 </dev/null) || reason="${reason:-status $?}"
	set -f
	# shellcheck disable=SC2086 # several lines become one
	say "$2" ${reason:-no output}
	exit 1
}

# With -x, no other relay is used.
if [ $# -gt 0 ]; then
	runs "$1" || give_up "$1" "no $1:"
	start "$1"
	exit
fi

# Run $1 if it is a relay of this version.
use() {
	runs "$1" && start "$1"
}

for word in relay "$HOME/.local/bin/relay" "$HOME/bin/relay"; do
	use "$word"
done

# An upload needs these tools.
has() {
	command -v "$1" >/dev/null 2>&1
}

missing=
for word in cat chmod find mkdir mv rm uname; do
	has "$word" || missing="$missing $word"
done
user=$(id -u 2>/dev/null)
[ "$user" ] || missing="$missing id"
has cksum || has wc || missing="$missing cksum"

# head -c is much faster than dd, but some systems have no head -c.
with_head=
head -c 1 </dev/null >/dev/null 2>&1 && with_head=1
[ "$with_head" ] || has dd || missing="$missing dd"
if [ "$missing" ]; then
	say "lack$missing"
	exit 1
fi

# Find the checksum and the size of the binary for the type of this system.
type=$(uname -s)-$(uname -m)
sum=
for word in $binaries; do
	case $word in "$type":*) word=${word#*:}; sum=${word%:*}; size=${word#*:} ;; esac
done
if [ ! "$sum" ]; then
	say none "$type"
	exit 1
fi

umask 077

# Does the file $1 have the checksum and the size of the binary?  If cksum is
# missing, only the size is compared.
same() {
	# shellcheck disable=SC2046 # the output is two words
	set -- $({ cksum <"$1" || wc -c <"$1"; } 2>/dev/null)
	[ "$1 $2" = "$sum $size" ] || [ "$1 $2" = "$size " ]
}

# Make the directory $dir.  Fail and set $reason if it belongs to another user
# or is open to others.
ours() {
	reason=$(mkdir -p "$dir" 2>&1) || return
	reason='it is not a directory of mode 0700 of this user'
	[ "$(find "$dir" -prune -type d -user "$user" \( -perm 700 -o -perm 2700 \) 2>/dev/null)" ]
}

# Remove old remains of uploads.  Fail and set $reason if a script cannot be
# written and run in $dir.  Only a trial shows a full quota or a noexec mount.
room() {
	find "$dir" -name 'relay-*.part' -mtime +0 -exec rm -f {} + 2>/dev/null
	reason=$({ echo '#!/bin/sh' >"$part" && chmod 700 "$part" && "$part"; } 2>&1)
}

# Read the binary from stdin.  head may read ahead, so the near side sends
# nothing after the binary until it has read an answer.
get() {
	if [ "$with_head" ]; then
		head -c "$size"
	else
		dd bs=1 count="$size" 2>/dev/null
	fi
}

# Ask for the binary, write it to $part, test it and rename it to $file.  If
# writing fails, the second cat reads the rest, so that no shell executes it.
# A script runs in $dir.  If the binary does not, the cause is the loader or the
# processor, so other directories are not tried.
put() {
	say want "$type" "$dir"
	reason=$(get | { { cat >"$part"; } 2>&1; cat >/dev/null; })
	same "$part" || return
	runs "$part" || give_up "$part" "refuse $type $dir:"
	reason=$(mv -f "$part" "$file" 2>&1)
}

# Run an earlier upload in $dir, else a new one.  If an earlier upload has the
# right checksum and does not run, the system refuses the binary.  Without
# cksum, that upload may be damaged, so the binary is sent again.  Another start
# can write $file after the comparison, so the result is kept in $intact.
try() {
	intact=
	if same "$file"; then
		use "$file"
		! has cksum || intact=1
	fi
	room || return
	[ ! "$intact" ] || [ ! -x "$file" ] || give_up "$file" "refuse $type $dir:"
	put && use "$file"
}

# Try each directory.  $part differs between processes and hosts: two starts at
# once do not disturb each other.
reasons=
part=
trap 'rm -f "$part"' EXIT
trap 'exit 1' HUP INT PIPE TERM
for dir in "${XDG_CACHE_HOME:-$HOME/.cache}/relay" \
	${XDG_RUNTIME_DIR:+"$XDG_RUNTIME_DIR/relay"} \
	${TMPDIR:+"$TMPDIR/relay-$user"} "/tmp/relay-$user"; do
	file=$dir/relay-${V#* }-$type-$sum
	part=$file.$(uname -n).$$.part
	if ours; then
		try
		rm -f "$part" 2>/dev/null
	fi
	reasons="$reasons; $dir: ${reason:-it could not be written}"
	# If the near side has ended, this fails and no other directory is made.
	say left "$dir" || exit
done
say fail "${reasons#; }"
exit 1
