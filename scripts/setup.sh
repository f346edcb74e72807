#!/usr/bin/env bash
# Installs what the build needs and writes build/libtorch, the path of the libtorch
# to use: LIBTORCH if it is set, otherwise the torch of the python3 on the PATH,
# otherwise a pinned version in .venv (torch/setup finds or installs it). CUDA=1
# adds the CUDA libraries to the version in .venv. If nothing is missing, it is
# quick and, with --quiet, prints nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

quiet=${1:-}

say() { printf 'setup: %s\n' "$*" >&2; }
die() {
  say "$*"
  exit 1
}

# Debian packages for what is missing.
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
command -v go >/dev/null || die "Go is missing; install it from https://go.dev/doc/install (go.mod names the version)"

options=(-libtorch -venv .venv)
[ "${CUDA:-0}" = 0 ] || options+=(-cuda)
libtorch=$(go run ./torch/setup "${options[@]}")

# Written only if it changes, since make then rebuilds the shim.
mkdir -p build
[ "$(cat build/libtorch 2>/dev/null)" = "$libtorch" ] || echo "$libtorch" >build/libtorch
# With CUDA's headers, make builds parts of the shim that it lacks so far.
if [ "${CUDA:-0}" != 0 ] && [ ! -e build/lib/libcyclecap_torch_nccl.so ]; then
  touch build/libtorch
fi
[ "$quiet" = --quiet ] || say "using libtorch in $libtorch"
