# shellcheck shell=bash
# relay.bash - completion of relay(1) for bash: options, paths, commands, and hops from ~/.ssh/config.

_relay_hosts() {
	# Host names without wildcards of the configuration $1 and of what it includes; $seen holds the files that were read.
	local key rest word file
	local -a words
	[[ -r $1 && $seen != *"|$1|"* ]] || return 0
	seen+="|$1|"
	while read -r key rest; do
		[[ $key == *=* ]] && rest="${key#*=} $rest" key=${key%%=*}
		rest=${rest#=} rest=${rest//\"/} rest=${rest//$'\r'/}
		case $key in
		[Hh][Oo][Ss][Tt])
			read -ra words <<<"$rest"
			for word in "${words[@]}"; do
				[[ $word == '#'* ]] && break
				[[ $word == *[*?!]* ]] || printf '%s\n' "$word"
			done
			;;
		[Ii][Nn][Cc][Ll][Uu][Dd][Ee])
			read -ra words <<<"$rest"
			for word in "${words[@]}"; do
				case $word in
				\~/*) word=$HOME/${word#\~/} ;;
				/*) ;;
				*) word=$HOME/.ssh/$word ;;
				esac
				while read -r file; do
					_relay_hosts "$file"
				done < <(compgen -G "$word")
			done
			;;
		esac
	done <"$1"
}

_relay_lines() {
	# Every line of stdin is a completion.  What readline has for a word begins behind the last character that breaks words.
	local line head=${cur%"${cur##*[@:=]}"}
	[[ -n $head && $COMP_WORDBREAKS == *"${head: -1}"* ]] || head=
	while read -r line; do
		COMPREPLY+=("${line#"$head"}")
	done
}

_relay_paths() {
	# A path may stand behind a port: 8888:/home/me/app.sock.
	local head=${cur%"${cur##*:}"}
	compopt -o filenames 2>/dev/null
	_relay_lines < <(compgen -P "$head" -f -- "${cur#"$head"}")
}

_relay_hops() {
	local head=${cur%"${cur##*@}"} seen=
	_relay_lines < <(compgen -P "$head" -W "$(_relay_hosts "$HOME/.ssh/config" 2>/dev/null)" -- "${cur#"$head"}")
}

_relay() {
	local cur word tunnel='' value='' dashes=0 i
	local -a words
	# Words as the shell has them; COMP_WORDS is cut at colons.
	read -ra words <<<"${COMP_LINE:0:COMP_POINT}"
	[[ ${COMP_LINE:0:COMP_POINT} == *[[:space:]] ]] && words+=('')
	cur=${words[${#words[@]} - 1]}
	COMPREPLY=()
	for ((i = 1; i < ${#words[@]} - 1; i++)); do
		word=${words[i]}
		if [[ -n $value ]]; then
			value=
		elif [[ $word == -- ]]; then
			dashes=$i
			break
		elif [[ $word == -[LRDWcPtweix] || $word == -[afFhmnqvVz]*[LRDWcPtweix] ]]; then
			value=${word: -1}
		fi
		[[ $word == -*[LRDW]* ]] && tunnel=yes
	done
	if ((dashes > 0)); then
		if ((dashes == ${#words[@]} - 2)); then _relay_lines < <(compgen -c -- "$cur"); else _relay_paths; fi
		return
	fi
	case $value in
	[LRPx]) _relay_paths; return ;;
	W) _relay_hops; return ;;
	?) return ;;
	esac
	case $cur in
	-*) _relay_lines < <(compgen -W '-a -c -D -e -f -F -h -i -L -m -n -P -q -R -t -v -V -w -W -x -z --' -- "$cur") ;;
	*) if [[ -n $tunnel ]]; then _relay_hops; else _relay_paths; fi ;;
	esac
}

complete -F _relay relay
