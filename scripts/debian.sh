#!/usr/bin/env bash
# Installs Debian packages: debian.sh PACKAGE…
set -euo pipefail
fail() {
  printf 'setup: %s: %s\n' "$1" "${packages[*]}" >&2
  exit 1
}
packages=("$@")
command -v apt-get >/dev/null || fail "these Debian packages are missing and there is no apt-get; install the packages of this system that correspond to them"
as_root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || fail "these Debian packages are missing and there is no sudo; install them as root"
  as_root=(sudo)
fi
printf 'setup: installing %s\n' "${packages[*]}" >&2
"${as_root[@]}" apt-get update -qq >&2 || true # the package lists at hand may be enough
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >&2 ||
  fail "apt-get could not install these packages (see above)"
