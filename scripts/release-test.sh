#!/usr/bin/env bash
# Checks that others can use a release: makes one under the path of a host that does
# not exist, and uses it without access to this repository.
#   1. A new module gets it with `go get`, runs torch/setup, and trains the network
#      of docs/torch.md.
#   2. The same with `go mod vendor`, without a module cache.
#   3. The archive captions photos, with a libtorch that has been moved, with the
#      models in the program too.
# It writes only to a temporary folder, and uses the libtorch of `make setup`.
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

say "making a release, $module@$version"
scripts/release.sh "$version" "$module" "$work/dist"
(cd "$work/dist" && sha256sum --quiet --check SHA256SUMS)

# All caches except the build cache are new. The modules that cyclecap needs come
# from the download cache, which has the layout of a module proxy.
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
trains() { diff <(echo "$want") <("$@" | sed 's/-0\.0/0.0/') || die "$* did not print these lines"; }

say "using it in a module, with go get"
mkdir "$work/app"
cd "$work/app"
go mod init example.org/app
go get "$module@latest"
folder=$(go list -m -f '{{.Dir}}' "$module@$version")
case $folder in
"$GOMODCACHE"/*) ;;
*) die "the module comes from $folder, not from the module cache" ;;
esac
for line in "go get $module@latest" "go run $module/torch/setup" "go get -tool $module/torch/setup"; do
  grep -q "^$line" "$folder/docs/torch.md" || die "docs/torch.md of the release should have: $line"
done
# The first example of docs/torch.md, as users see it.
awk '/^```go$/ {on = 1; next} /^```$/ {if (on) exit} on' "$folder/docs/torch.md" >main.go
go build -o app . # no go mod tidy: package torch needs no other modules
! grep replace go.mod || die "go.mod contains a replace directive"
if out=$(./app 2>&1) || [[ $out != *"go run $module/torch/setup"* ]]; then
  die "without a shim, the error must name torch/setup: $out"
fi
LIBTORCH=$libtorch go run "$module/torch/setup"
begin=$SECONDS
LIBTORCH=$libtorch go run "$module/torch/setup" 2>&1 | tee "$work/again"
grep -q 'already built' "$work/again" || die "the second setup built the shim again, in $((SECONDS - begin)) s"
trains ./app

say "using it in a module, vendored"
cp -r "$work/app" "$work/vendored"
cd "$work/vendored"
rm app
go get -tool "$module/torch/setup"
go mod vendor
(
  export GOMODCACHE=$work/none GOPROXY=off
  LIBTORCH=$libtorch go tool setup
  go build -mod=vendor -o app .
  trains ./app
)

say "using the archive, with a libtorch that has been moved"
mkdir "$work/elsewhere" "$work/python"
tar -xzf "$work/dist/cyclecap_${version}_linux_amd64.tar.gz" -C "$work/elsewhere"
cd "$work/elsewhere"/*
! grep -rlF -e "$repository" -e "$work" . || die "these files contain the path where they were built"
readelf -d bin/cyclecap lib/libcyclecap_torch.so | grep -i 'r.*path' | grep -v '\[\$ORIGIN/\.\./lib\]' && die "a run path is not \$ORIGIN/../lib"
[ "$(find licenses -type f | wc -l)" -gt 20 ] && [ -s LICENSE ] && [ -s NOTICE ] || die "licences are missing"
# libtorch in pip's layout, without the Python files. Symbolic links, since the files
# are large; the loader looks for dependencies beside the link, not its target.
cp -rs "$libtorch/lib" "$work/python/lib"
mkdir "$work/python/torch"
mv "$work/python/lib" "$work/python/torch/lib"
cp "$libtorch"/{version.py,__init__.py} "$work/python/torch" 2>/dev/null || true
[ ! -d "$libtorch/../nvidia" ] || cp -rs "$libtorch/../nvidia" "$work/python/nvidia"
small=$repository/internal/parity/testdata/small
caption=(caption --json --clip "$small/clip.pt" --decoder "$small/decoder.pt" --gpt2 "$small/gpt2" "$repository/testdata/photos/000000084284.jpg")
run() { env -i HOME="$work/nobody" "$@"; } # no PATH: no compiler and no Python
if out=$(run bin/cyclecap "${caption[@]}" 2>&1) || [[ $out != *"LIBTORCH"* ]]; then
  die "without libtorch, the error must name LIBTORCH: $out"
fi
run bin/cyclecap --version | tee "$work/version"
grep -q "^cyclecap $version, commit [0-9a-f]*.*no libtorch" "$work/version" || die "--version must name the release and the commit"
run LIBTORCH="$work/python/torch" bin/cyclecap doctor | tee "$work/doctor"
for file in "$work/python/torch/lib/libtorch_cpu.so" "$PWD/lib/libcyclecap_torch.so" "$PWD/lib/libjpeg.so" "$PWD/lib/libwebp.so"; do
  grep -qF "$file" "$work/doctor" || die "doctor must name $file"
done
run LIBTORCH="$work/python/torch" bin/cyclecap "${caption[@]}" | tee "$work/captions"
diff "$work/captions" <("$repository/bin/cyclecap" "${caption[@]}") || die "the program in the repository writes another caption"
# The torch package of the python3 on the PATH.
run PATH=/usr/bin:/bin PYTHONPATH="$work/python" bin/cyclecap "${caption[@]}" | diff "$work/captions" - || die "the torch of python3 gives another caption"
# The first commands of the README: the models are in the program.
run bin/cyclecap world --sample 2 "$work/photos"
run LIBTORCH="$work/python/torch" bin/cyclecap caption "$work/photos" | tee "$work/drawn"
[ "$(grep -c '(textualised): .' "$work/drawn")" = 2 ] || die "the built-in models did not caption the two photos"
"$repository/bin/cyclecap" caption "$work/photos" | diff "$work/drawn" - || die "the built-in models in the repository write other captions"

say "all passed"
