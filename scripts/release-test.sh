#!/usr/bin/env bash
# Proves that others can use a release: makes one under a path of a host that
# does not exist, and uses it where nothing of this repository is within reach.
#   1. A new module gets it with `go get`, runs torch/setup, and trains the net
#      of docs/torch.md.
#   2. The same with `go mod vendor`, and no module cache.
#   3. The archive captions photos with a libtorch that has been moved.
# It writes to a temporary folder only, and uses the libtorch of `make setup`.
set -euo pipefail
cd "$(dirname "$0")/.."
repository=$PWD
version=v0.0.1 module=example.com/vision/cyclecap
say() { printf '\nrelease-test: %s (%ds)\n' "$*" "$SECONDS" >&2; }
die() {
  printf 'release-test: %s\n' "$*" >&2
  exit 1
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say "a release, $module@$version"
scripts/release.sh "$version" "$module" "$work/dist"
(cd "$work/dist" && sha256sum --quiet --check SHA256SUMS)

# Caches of its own, but for what was compiled. The modules that cyclecap needs
# come from the cache of downloads, which has the layout of a proxy.
export GOCACHE GOMODCACHE=$work/modules XDG_CACHE_HOME=$work/cache
GOCACHE=$(env -u GOCACHE -u XDG_CACHE_HOME go env GOCACHE)
GOPROXY=file://$work/dist/goproxy,file://$(env -u GOMODCACHE go env GOMODCACHE)/cache/download,$(go env GOPROXY)
GONOSUMDB=example.com/*
GOFLAGS="$(go env GOFLAGS) -modcacherw"
export GOPROXY GONOSUMDB GOFLAGS
libtorch=$(cat build/libtorch)
unset LIBTORCH CYCLECAP_SHIM
want='0 xor 0 = 0.0
0 xor 1 = 1.0
1 xor 0 = 1.0
1 xor 1 = 0.0'
# A value just below zero is printed as -0.0.
trains() { diff <(echo "$want") <("$@" | sed 's/-0\.0/0.0/') || die "$* should print these lines"; }

say "a module gets it with go get"
mkdir "$work/app"
cd "$work/app"
go mod init example.org/app
go get "$module@$version"
folder=$(go list -m -f '{{.Dir}}' "$module")
case $folder in
"$GOMODCACHE"/*) ;;
*) die "the module comes from $folder" ;;
esac
# The first example of the documentation, as its readers get it.
awk '/^```go$/ {on = 1; next} /^```$/ {if (on) exit} on' "$folder/docs/torch.md" >main.go
go build -o app . # package torch needs no other module, and so no go mod tidy
! grep replace go.mod || die "go.mod has a replace"
if out=$(./app 2>&1) || [[ $out != *"go run $module/torch/setup"* ]]; then
  die "without a shim the error should name torch/setup: $out"
fi
LIBTORCH=$libtorch go run "$module/torch/setup"
begin=$SECONDS
LIBTORCH=$libtorch go run "$module/torch/setup" 2>&1 | tee "$work/again"
grep -q 'already built' "$work/again" || die "the second setup built the shim again, in $((SECONDS - begin)) s"
trains ./app

say "the same, vendored"
cp -r "$work/app" "$work/vendored"
cd "$work/vendored"
rm app
go get -tool "$module/torch/setup@$version"
go mod vendor
(
  export GOMODCACHE=$work/none GOPROXY=off
  LIBTORCH=$libtorch go tool setup
  go build -mod=vendor -o app .
  trains ./app
)

say "the archive, with a libtorch that has been moved"
mkdir "$work/elsewhere" "$work/python"
tar -xzf "$work/dist/cyclecap_${version}_linux_amd64.tar.gz" -C "$work/elsewhere"
cd "$work/elsewhere"/*
! grep -rlF -e "$repository" -e "$work" . || die "these files know where they were built"
readelf -d bin/cyclecap lib/libcyclecap_torch.so | grep -i 'r.*path' | grep -v '\[\$ORIGIN/\.\./lib\]' && die "a run path leads elsewhere"
[ "$(find licenses -type f | wc -l)" -gt 20 ] && [ -s LICENSE ] && [ -s NOTICE ] || die "licences are missing"
# libtorch as pip lays it, without Python's files: links, since the files are
# large. The loader doesn't follow them to the libraries' neighbours.
cp -rs "$libtorch/lib" "$work/python/lib"
mkdir "$work/python/torch"
mv "$work/python/lib" "$work/python/torch/lib"
cp "$libtorch"/{version.py,__init__.py} "$work/python/torch" 2>/dev/null || true
[ ! -d "$libtorch/../nvidia" ] || cp -rs "$libtorch/../nvidia" "$work/python/nvidia"
small=$repository/internal/parity/testdata/small
caption=(caption --json --clip "$small/clip.pt" --decoder "$small/decoder.pt" --gpt2 "$small/gpt2" "$repository/testdata/photos/000000084284.jpg")
run() { env -i HOME="$work/nobody" "$@"; } # no PATH: no compiler and no Python
if out=$(run bin/cyclecap "${caption[@]}" 2>&1) || [[ $out != *"LIBTORCH"* ]]; then
  die "without libtorch the error should name LIBTORCH: $out"
fi
run bin/cyclecap --version | tee "$work/version"
grep -q "^cyclecap $version, commit [0-9a-f]*.*no libtorch" "$work/version" || die "--version should name the release and the commit"
run LIBTORCH="$work/python/torch" bin/cyclecap doctor | tee "$work/doctor"
for file in "$work/python/torch/lib/libtorch_cpu.so" "$PWD/lib/libcyclecap_torch.so" "$PWD/lib/libjpeg.so" "$PWD/lib/libwebp.so"; do
  grep -qF "$file" "$work/doctor" || die "doctor should name $file"
done
run LIBTORCH="$work/python/torch" bin/cyclecap "${caption[@]}" | tee "$work/captions"
diff "$work/captions" <("$repository/bin/cyclecap" "${caption[@]}") || die "the program of the repository gives another caption"
# The torch of a Python.
run PATH=/usr/bin:/bin PYTHONPATH="$work/python" bin/cyclecap "${caption[@]}" | diff "$work/captions" - || die "the torch of python3 gives another caption"

say "all passed"
