#!/usr/bin/env bash
# Gets what the build needs and writes build/libtorch, the path of the libtorch
# in use: LIBTORCH where it is set, else the torch of the active Python
# environment, else a pinned one in .venv. CUDA=1 adds CUDA's libraries.
set -euo pipefail
cd "$(dirname "$0")/.."

TORCH=2.11.0
PINNED=("torch==$TORCH" nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85)

say() { printf 'setup: %s\n' "$*" >&2; }
die() {
  say "$*"
  exit 1
}

# Debian packages, by the file that shows that they are there.
packages=()
need() { [ -e "$1" ] || packages+=("$2"); }
command -v g++ >/dev/null || packages+=(g++)
command -v cmake >/dev/null || packages+=(cmake)
command -v make >/dev/null || packages+=(make)
command -v python3 >/dev/null || packages+=(python3)
command -v pkg-config >/dev/null || packages+=(pkg-config)
need /usr/include/jpeglib.h libjpeg62-turbo-dev
need /usr/include/webp/decode.h libwebp-dev
if [ -z "${LIBTORCH:-}" ] && [ ! -x .venv/bin/python ]; then
  python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)
fi
if [ ${#packages[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || die "these are missing and there is no apt-get to get them: ${packages[*]}"
  as_root=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "these Debian packages are missing, install them as root: ${packages[*]}"
    as_root=(sudo)
  fi
  say "installing ${packages[*]}"
  "${as_root[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${packages[@]}" >&2
fi
command -v go >/dev/null || die "Go is missing: https://go.dev/doc/install (the version is in go.mod)"

# The folder of the torch that a Python imports, if it is new enough.
torch_of() {
  "$1" - 2>/dev/null <<'PY'
import importlib.util, pathlib, sys
spec = importlib.util.find_spec("torch")
if spec is None:
    sys.exit(1)
root = pathlib.Path(spec.origin).parent
version = (root / "version.py").read_text().split("__version__ = '")[1].split("'")[0]
if tuple(int(x) for x in version.split("+")[0].split(".")[:2]) < (2, 4) or not (root / "lib/libtorch_cpu.so").exists():
    sys.exit(1)
print(root)
PY
}

libtorch=
if [ -n "${LIBTORCH:-}" ]; then
  [ -e "$LIBTORCH/lib/libtorch_cpu.so" ] || die "LIBTORCH is $LIBTORCH, but lib/libtorch_cpu.so is not there"
  libtorch=$(cd "$LIBTORCH" && pwd)
elif [ -n "${VIRTUAL_ENV:-${CONDA_PREFIX:-}}" ] && libtorch=$(torch_of "${VIRTUAL_ENV:-$CONDA_PREFIX}/bin/python"); then
  say "using the active Python environment's torch"
else
  [ -x .venv/bin/python ] || python3 -m venv .venv
  if ! libtorch=$(torch_of .venv/bin/python); then
    say "installing libtorch $TORCH into .venv (544 MB)"
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps "${PINNED[@]}" >&2
    libtorch=$(torch_of .venv/bin/python) || die "torch $TORCH was installed into .venv, but can't be found there; remove .venv and try again"
  fi
  if [ "${CUDA:-0}" = 1 ] && [ ! -e .venv/cuda ]; then
    say "installing CUDA's libraries into .venv (2.7 GB)"
    .venv/bin/python -m pip install -q --disable-pip-version-check "${PINNED[@]}" >&2
    touch .venv/cuda
  fi
fi

mkdir -p build
if [ "$(cat build/libtorch 2>/dev/null)" != "$libtorch" ]; then
  echo "$libtorch" >build/libtorch
fi
say "libtorch at $libtorch"
