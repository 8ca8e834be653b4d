# Shared by the scripts of this directory: source it, do not run it.
# shellcheck shell=bash
# After sourcing: set -euo pipefail is on, ROOT is the checkout, and Go switches to the toolchain that go.mod asks for.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export ROOT

# Debian sets the toolchain switch to "local"; our go.mod may ask for a newer Go than the distribution has.
export GOTOOLCHAIN=${GOTOOLCHAIN:-auto}
# Minimal environments (cron, a clean tree) may lack these, and Go and apt need them.
export HOME=${HOME:-/root}
for dir in /usr/local/go/bin /usr/local/sbin /usr/sbin /sbin; do
	case ":$PATH:" in
	*":$dir:"*) ;;
	*) PATH=$PATH:$dir ;;
	esac
done
export PATH

# say TEXT...: progress for people, on stderr, so that a script's stdout stays usable.
say() { printf '%s\n' "$*" >&2; }

# die TEXT...: an error and the end.
die() {
	say "${0##*/}: $*"
	exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

need_root() {
	[ "$(id -u)" -eq 0 ] || die "must run as root (containers, mounts and packages need it)"
}

# install_deps GROUP...: see scripts/install-deps.
install_deps() { "$ROOT/scripts/install-deps" "$@"; }

# go_usable: a Go that can fetch the toolchain go.mod names (1.21 or newer), or is that toolchain.
go_usable() {
	local version minor
	version=$(cd / && GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) || return 1
	case $version in
	go1.*)
		minor=${version#go1.}
		minor=${minor%%[!0-9]*}
		[ "${minor:-0}" -ge 21 ]
		;;
	devel*) return 0 ;;
	*) return 1 ;;
	esac
}
