#!/usr/bin/env bash
# Gets what the build needs and writes build/libtorch, the path of the libtorch
# in use: LIBTORCH where it is set, else the torch of the active Python
# environment, else a pinned one in .venv. CUDA=1 adds CUDA's libraries to that
# one. Where all is there it takes no time and, with --quiet, says nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

TORCH=2.11.0
# torch without its dependencies, and the two small libraries that its CPU part
# links even where there is no GPU.
PINNED=("torch==$TORCH" nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85)
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

# The folder of the torch that a Python imports, if it is 2.6 or newer.
torch_of() {
  "$1" - 2>/dev/null <<'PY'
import importlib.util, pathlib, re, sys
spec = importlib.util.find_spec("torch")
if spec is None or spec.origin is None:
    sys.exit(1)
root = pathlib.Path(spec.origin).parent
version = re.search(r"__version__ = '(\d+)\.(\d+)", (root / "version.py").read_text())
if version is None or tuple(map(int, version.groups())) < (2, 6) or not (root / "lib/libtorch_cpu.so").exists():
    sys.exit(1)
print(root)
PY
}

# Installs into .venv, once for each list of packages: a stamp written at the
# end tells a whole installation from one that was cut off.
get() {
  local stamp=.venv/$1 what=$2
  shift 2
  if [ "$(cat "$stamp" 2>/dev/null)" != "$*" ]; then
    say "installing $what into .venv"
    .venv/bin/python -m pip --version >/dev/null 2>&1 || python3 -m venv .venv
    .venv/bin/python -m pip install -q --disable-pip-version-check "$@" >&2 ||
      die "pip could not install $what (the reason is above); an existing libtorch is used with LIBTORCH=<folder with include/ and lib/>"
    echo "$*" >"$stamp"
  fi
}

libtorch=
active=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
if [ -n "${LIBTORCH:-}" ]; then
  for file in lib/libtorch_cpu.so include/ATen/ATen.h; do
    [ -e "$LIBTORCH/$file" ] || die "LIBTORCH is $LIBTORCH, but $file is not there"
  done
  libtorch=$(cd "$LIBTORCH" && pwd)
elif [ -n "$active" ] && [ ! "$active" -ef .venv ]; then
  libtorch=$(torch_of "$active/bin/python") ||
    say "the active Python environment, $active, has no torch 2.6 or newer: .venv gets one"
fi
if [ -n "$libtorch" ]; then
  [ "${CUDA:-0}" = 0 ] || say "CUDA=1 changes nothing: the libtorch at $libtorch is used as it is"
else
  get libtorch "libtorch $TORCH (544 MB)" --no-deps "${PINNED[@]}"
  if [ "${CUDA:-0}" != 0 ]; then
    get cuda "CUDA's libraries (2.7 GB)" "${PINNED[@]}"
  fi
  libtorch=$(torch_of .venv/bin/python) || {
    rm -f .venv/libtorch .venv/cuda
    die "torch $TORCH is not in .venv any more; run \`make setup\` again"
  }
fi

# Written only where it changes: make rebuilds the shim then.
mkdir -p build
[ "$(cat build/libtorch 2>/dev/null)" = "$libtorch" ] || echo "$libtorch" >build/libtorch
[ "$quiet" = --quiet ] || say "libtorch at $libtorch"
