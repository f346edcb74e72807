#!/usr/bin/env bash
# Gets what the build needs and writes build/libtorch, the path of the libtorch
# in use: LIBTORCH where it is set, else the torch of the python3 on the PATH,
# else a pinned one in .venv (torch/setup looks and installs). CUDA=1 adds CUDA's
# libraries to that one. Where all is there it takes no time and, with --quiet,
# says nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

quiet=${1:-}

say() { printf 'setup: %s\n' "$*" >&2; }
die() {
  say "$*"
  exit 1
}

# Debian packages, for what is missing.
packages=()
has() { command -v "$1" >/dev/null || packages+=("$2"); }
has g++ g++
has cmake cmake
has make make
has pkg-config pkg-config
has python3 python3
if command -v pkg-config >/dev/null; then
  pkg-config --exists libjpeg || packages+=(libjpeg62-turbo-dev)
  pkg-config --exists libwebp libwebpdemux || packages+=(libwebp-dev)
else
  packages+=(libjpeg62-turbo-dev libwebp-dev)
fi
if [ -z "${LIBTORCH:-}" ] && [ ! -x .venv/bin/python ]; then
  python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)
fi
if [ ${#packages[@]} -gt 0 ]; then
  scripts/debian.sh "${packages[@]}"
fi
command -v go >/dev/null || die "Go is missing: https://go.dev/doc/install (go.mod says which version)"

options=(-libtorch -venv .venv)
[ "${CUDA:-0}" = 0 ] || options+=(-cuda)
libtorch=$(go run ./torch/setup "${options[@]}")

# Written only where it changes: make rebuilds the shim then.
mkdir -p build
[ "$(cat build/libtorch 2>/dev/null)" = "$libtorch" ] || echo "$libtorch" >build/libtorch
[ "$quiet" = --quiet ] || say "libtorch at $libtorch"
