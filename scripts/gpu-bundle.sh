#!/usr/bin/env bash
# Writes build/gpu-bundle: run.sh and bundle.tar.xz, which together prove the project on a
# machine with a GPU that has no Go and no compiler.
set -euo pipefail
cd "$(dirname "$0")/.."
bundle=build/gpu-bundle
most=$((24 * 1000 * 1000))

files=$(mktemp -d)
trap 'rm -rf "$files"' EXIT
mkdir -p "$files/lib" "$files/python" "$files/photos"
commit=$(git describe --always --dirty --exclude='*' --abbrev=12 2>/dev/null || true)

# Programs find libjpeg and libwebp beside them.
link=(-ldflags "-s -w -r \$ORIGIN/lib -X main.commit=$commit -X cyclecap/cli.commit=$commit")
go build "${link[@]}" -o "$files/gpu" ./internal/gpu
go build -tags nomodels "${link[@]}" -o "$files/cyclecap" ./cli/cyclecap
if [ -d internal/devicetest ]; then
  go test -c "${link[@]}" -o "$files/devicetest" ./internal/devicetest
fi
cp build/lib/libcyclecap_torch*.so "$files/lib"
strip "$files"/lib/*.so
# What a bare machine may lack; the C and C++ libraries are everywhere.
for program in "$files"/gpu "$files"/cyclecap "$files"/devicetest; do
  [ -e "$program" ] || continue
  ldd "$program" | awk '$2 == "=>" && $3 ~ /^\// {print $3}'
done | sort -u | grep -Ev '/(libc|libm|libdl|librt|libpthread|libgcc_s|libstdc\+\+)\.so' | while read -r library; do
  cp -L "$library" "$files/lib"
done
cp testdata/reference/{gpu,bench,make,models}.py scripts/record_reference.py "$files/python"
# shellcheck disable=SC2012
cp $(ls testdata/photos/*.jpg | head -4) "$files/photos"
sed -n "s/^__version__ = '\([0-9.]*\).*/\1/p" "$(cat build/libtorch)/version.py" >"$files/torch"

rm -rf "$bundle"
mkdir -p "$bundle"
XZ_OPT=-6 tar -cJf "$bundle/bundle.tar.xz" -C "$files" .
install -m 755 scripts/gpu-run.sh "$bundle/run.sh"
size=$(du -sb "$bundle" | cut -f1)
if [ "$size" -gt "$most" ]; then
  echo "gpu: $bundle has $size bytes, more than $most" >&2
  exit 1
fi
echo "$bundle has $((size / 1000000)) MB; on a machine with a GPU: bash run.sh OUT"
