#!/usr/bin/env bash
# Installs the Python servers that `make bench-serve` compares with into build/: infinity, which
# needs an older transformers, and what serve_peer.py needs. Both use .venv's torch.
set -euo pipefail
cd "$(dirname "$0")/.."
peer() { # FOLDER PACKAGE…
  local to=build/$1
  shift
  [ "$(cat "$to/packages" 2>/dev/null)" = "$*" ] && return
  rm -rf "$to"
  python3 -m venv "$to"
  realpath .venv/lib/python3*/site-packages >"$(echo "$to"/lib/python3*/site-packages)/torch.pth"
  "$to/bin/pip" install -q --disable-pip-version-check "$@" >&2
  echo "$*" >"$to/packages"
}
peer fastapi fastapi==0.165.0 "uvicorn[standard]==0.54.0"
peer infinity infinity-emb==0.0.77 transformers==4.47.1 sentence-transformers==3.4.1 optimum==1.27.0 colpali-engine==0.3.8 \
  "uvicorn[standard]==0.54.0" fastapi==0.165.0 aiohttp requests einops orjson posthog prometheus-fastapi-instrumentator soundfile typer rich hf_transfer
