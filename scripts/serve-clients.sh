#!/usr/bin/env bash
# Installs the real clients that the server is tested with: Python's and JavaScript's into
# build/serve-clients, and Chromium.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v chromium >/dev/null || scripts/debian.sh chromium
command -v npm >/dev/null || scripts/debian.sh nodejs npm
to=build/serve-clients
mkdir -p "$to"
if ! cmp -s serve/clients/requirements.txt "$to/requirements.txt"; then
  [ -x "$to/venv/bin/python" ] || python3 -m venv "$to/venv"
  "$to/venv/bin/pip" install --quiet -r serve/clients/requirements.txt
  cp serve/clients/requirements.txt "$to/"
fi
if ! cmp -s serve/clients/package.json "$to/package.json"; then
  cp serve/clients/package.json "$to/"
  npm install --prefix "$to" --no-audit --no-fund --silent
fi
