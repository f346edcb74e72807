#!/usr/bin/env bash
# Installs Debian packages: debian.sh PACKAGE…
set -euo pipefail
fail() {
  printf 'setup: %s: %s\n' "$1" "${packages[*]}" >&2
  exit 1
}
packages=("$@")
command -v apt-get >/dev/null || fail "these Debian packages are missing, and there is no apt-get to get them or what they are called here"
as_root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || fail "these Debian packages are missing; install them as root"
  as_root=(sudo)
fi
printf 'setup: installing %s\n' "${packages[*]}" >&2
"${as_root[@]}" apt-get update -qq >&2 || true # what is known already may do
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >&2 ||
  fail "apt-get could not install these (the reason is above)"
