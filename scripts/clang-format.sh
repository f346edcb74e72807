#!/usr/bin/env bash
# Runs clang-format, and installs it first if it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v clang-format >/dev/null || scripts/debian.sh clang-format
exec clang-format "$@"
