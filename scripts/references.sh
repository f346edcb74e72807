#!/usr/bin/env bash
# Installs the Python packages that cyclecap is compared with into .venv. Does
# nothing if they are installed already.
set -euo pipefail
cd "$(dirname "$0")/.."
list=testdata/reference/requirements.txt
stamp=.venv/references
if ! cmp -s "$list" "$stamp"; then
  echo "references: installing $list into .venv (about 5 GB)" >&2
  .venv/bin/python -m pip --version >/dev/null 2>&1 || python3 -m venv .venv
  pip=(.venv/bin/python -m pip install -q --disable-pip-version-check)
  "${pip[@]}" -r "$list" >&2
  # Its own requirements pin no versions and include packages that nothing uses.
  "${pip[@]}" --no-deps openai-clip==1.0.1 >&2
  cp "$list" "$stamp"
fi
