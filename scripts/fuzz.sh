#!/usr/bin/env bash
# Runs every fuzz target in the tree, one after the other: fuzz.sh [TIME_EACH]
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-10m}
grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u | while read -r dir; do
  grep -ho '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go | sed 's/func //' | while read -r target; do
    echo "== $dir $target"
    go test "$dir" -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 1s -parallel 2 </dev/null
  done
done
