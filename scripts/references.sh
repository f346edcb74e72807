#!/usr/bin/env bash
# Gets the Python packages that ours is compared with into .venv, and prints
# nothing where they are there.
set -euo pipefail
cd "$(dirname "$0")/.."
list=testdata/reference/requirements.txt
stamp=.venv/references
if [ ! -e "$stamp" ] || ! cmp -s "$list" "$stamp"; then
  echo "references: installing $list into .venv (about 5 GB)" >&2
  [ -x .venv/bin/python ] || python3 -m venv .venv
  .venv/bin/python -m pip install -q --disable-pip-version-check -r "$list" >&2
  # Its requirements name no versions and pull in what nothing here uses.
  .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps openai-clip==1.0.1 >&2
  cp "$list" "$stamp"
fi
