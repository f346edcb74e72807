#!/usr/bin/env bash
# clang-format, installed first where it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v clang-format >/dev/null || scripts/debian.sh clang-format
exec clang-format "$@"
