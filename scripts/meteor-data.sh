#!/usr/bin/env bash
# Gets METEOR's data once: the files are those of the Python package
# pycocoevalcap, which may not be copied into this project. They are compiled to
# an index in the user's cache folder; where a good one is, nothing is done.
set -euo pipefail
cd "$(dirname "$0")/.."

VERSION=1.2
WHEEL=pycocoevalcap-$VERSION-py3-none-any.whl
SHA256=083ed7910f1aec000b0a237ef6665f74edf19954204d0b1cbdb8399ed132228d

say() { printf 'meteor-data: %s\n' "$*" >&2; }

mkdir -p build
go build -o build/meteor-data ./eval/meteor/cmd/meteor-data
if dir=$(build/meteor-data -print-dir); then
  say "there already: $dir"
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
    say "$python has no pip: install python3-pip, or name another Python in PYTHON"
    exit 1
  fi
  python=$work/venv/bin/python
fi
say "getting pycocoevalcap $VERSION (100 MB)"
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
  --dest "$work" "pycocoevalcap==$VERSION"
if ! echo "$SHA256  $work/$WHEEL" | sha256sum --check --status; then
  say "$WHEEL isn't the file that this project knows (sha256 $SHA256)"
  exit 1
fi
build/meteor-data "$work/$WHEEL"
