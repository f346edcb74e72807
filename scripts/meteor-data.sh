#!/usr/bin/env bash
# Downloads METEOR's data, which comes from the Python package pycocoevalcap and
# may not be copied into this project, and compiles it to an index in the user's
# cache folder. Does nothing if there is a valid index already.
set -euo pipefail
cd "$(dirname "$0")/.."

VERSION=1.2
WHEEL=pycocoevalcap-$VERSION-py3-none-any.whl
SHA256=083ed7910f1aec000b0a237ef6665f74edf19954204d0b1cbdb8399ed132228d

say() { printf 'meteor-data: %s\n' "$*" >&2; }

mkdir -p build
go build -o build/meteor-data ./eval/meteor/cmd/meteor-data
if dir=$(build/meteor-data -print-dir); then
  say "already installed in $dir"
  exit 0
fi

if [ -n "${PYTHON:-}" ]; then
  python=$PYTHON
elif [ -x .venv/bin/python ]; then
  python=.venv/bin/python
else
  python=python3
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if ! "$python" -m pip --version >/dev/null 2>&1; then
  if ! "$python" -m venv "$work/venv" >/dev/null 2>&1; then
    say "$python has no pip; install python3-pip, or set PYTHON to another Python"
    exit 1
  fi
  python=$work/venv/bin/python
fi
say "downloading pycocoevalcap $VERSION (100 MB)"
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
  --dest "$work" "pycocoevalcap==$VERSION"
if ! echo "$SHA256  $work/$WHEEL" | sha256sum --check --status; then
  say "$WHEEL has the wrong checksum, expected sha256 $SHA256"
  exit 1
fi
build/meteor-data "$work/$WHEEL"
