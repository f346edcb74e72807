#!/usr/bin/env bash
# Runs every fuzz target in the tree, one after the other: fuzz.sh [TIME_EACH]
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-10m}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Up to Go 1.26, the end of -fuzztime itself is sometimes reported as a failure
# (golang.org/issue/75804). Such a run has tested every input that it tried: the
# only message is the deadline's, and no failing input was written.
only_the_deadline() {
  ! grep -q 'Failing input written' "$log" &&
    [ "$(sed -n '/^--- FAIL: /,/^FAIL$/p' "$log" | sed '1d;$d')" = "    context deadline exceeded" ]
}

grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u | while read -r dir; do
  grep -ho '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go | sed 's/func //' | while read -r target; do
    echo "== $dir $target"
    if ! go test "$dir" -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 1s -parallel 2 </dev/null 2>&1 | tee "$log"; then
      only_the_deadline || exit 1
      echo "ok: the time was up (golang.org/issue/75804)"
    fi
  done
done
