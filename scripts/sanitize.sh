#!/usr/bin/env bash
# Runs the tests of the packages that call libtorch twice: with a shim that
# AddressSanitizer and UndefinedBehaviorSanitizer check, build/sanitize, and under Go's
# race detector. The two cannot share a process.
set -euo pipefail
cd "$(dirname "$0")/.."
packages=(./torch/... ./weights ./nets/...)
export SANITIZE=1 # for tests that measure memory, or run the command

# Leaks in the shim are counted by torch.Alive, and Go handles signals itself. ASan looks
# for the C++ library's functions when the program starts, before libtorch is loaded.
options=detect_leaks=0:handle_segv=0:handle_sigbus=0:handle_sigfpe=0:detect_odr_violation=0:abort_on_error=1
echo "== AddressSanitizer and UndefinedBehaviorSanitizer"
CYCLECAP_SHIM=$PWD/build/sanitize/lib/libcyclecap_torch.so go test -p 3 -short -count=1 -timeout 10m \
  -exec "env LD_PRELOAD=$(g++ -print-file-name=libasan.so):$(g++ -print-file-name=libstdc++.so) ASAN_OPTIONS=$options UBSAN_OPTIONS=print_stacktrace=1" \
  "${packages[@]}"

echo "== race detector"
go test -p 3 -race -short -count=1 -timeout 10m "${packages[@]}"
