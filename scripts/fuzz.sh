#!/usr/bin/env bash
# Runs every fuzz target in the tree, one after the other: fuzz.sh [TIME_EACH]
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-10m}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
log=$work/log
corpus=$(go env GOCACHE)/fuzz # where go test keeps the inputs that it finds

# Up to Go 1.26, the end of -fuzztime itself is sometimes reported as a failure
# (golang.org/issue/75804). Such a run has tested every input that it tried: the
# only message is the deadline's, and no failing input was written.
only_the_deadline() {
  ! grep -q 'Failing input written' "$log" &&
    [ "$(sed -n '/^--- FAIL: /,/^FAIL$/p' "$log" | sed '1d;$d')" = "    context deadline exceeded" ]
}

# A package is linked once, not once for each of its targets.
grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u | while read -r dir; do
  go test -c -fuzz . -o "$work/test" "$dir"
  grep -ho '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go | sed 's/func //' | while read -r target; do
    echo "== $dir $target"
    if ! (cd "$dir" && "$work/test" -test.run '^$' -test.fuzz "^$target\$" -test.fuzztime "$time" -test.fuzzminimizetime 1s \
      -test.parallel 2 -test.fuzzcachedir "$corpus/$(go list)") </dev/null 2>&1 | tee "$log"; then
      only_the_deadline || exit 1
      echo "ok: the time was up (golang.org/issue/75804)"
    fi
  done
done
