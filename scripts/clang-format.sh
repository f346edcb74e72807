#!/usr/bin/env bash
# clang-format, installed first where it is missing.
set -euo pipefail
if ! command -v clang-format >/dev/null; then
  as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo)
  "${as_root[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends clang-format >&2
fi
exec clang-format "$@"
