#!/usr/bin/env bash
# Writes a release of the checked-out commit, under the module path of the host that
# will serve it: release.sh VERSION MODULE_PATH [FOLDER]
#
#   FOLDER/goproxy/                              the module, as a Go module proxy
#   FOLDER/cyclecap_VERSION_linux_amd64.tar.gz   the program and everything it needs
#                                                except libtorch
#   FOLDER/SHA256SUMS
set -euo pipefail
say() { printf 'release: %s\n' "$*" >&2; }
die() {
  say "$*"
  exit 1
}
if [ $# -lt 2 ] || [ $# -gt 3 ]; then
  echo "usage: scripts/release.sh VERSION MODULE_PATH [FOLDER]    (for example v0.1.0 example.com/vision/cyclecap dist)" >&2
  exit 2
fi
version=$1 module=$2
dist=$(realpath -m "${3:-dist}")
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The module comes first, because this step checks the arguments.
go build -o "$work/release" ./internal/release
"$work/release" -proxy "$dist/goproxy" -sources "$work/sources" "$version" "$module"
commit=$(git describe --always --dirty --exclude='*' --abbrev=12)
case $commit in
*-dirty) say "note: the working tree has uncommitted changes; --version will print $commit" ;;
esac

make --no-print-directory shim >&2
shim=build/lib/libcyclecap_torch.so
torch=$(readelf -p .cyclecap "$shim" | sed -n 's/.*libtorch=\([0-9.]*\).*/\1/p')
[ -n "$torch" ] || die "$shim does not record which libtorch it was built for"

name=cyclecap_${version}_linux_$(go env GOARCH)
root=$work/$name
mkdir -p "$root"/{bin,lib,completions,licenses}

# The program, built from the module's sources. RPATH rather than RUNPATH, since
# only RPATH applies to the dependencies of its libraries too.
(cd "$work/sources" && go build -trimpath -buildvcs=false -ldflags "-s -w -linkmode=external \
  -X $module/cli.release=$version -X $module/cli.commit=$commit \
  -extldflags '-Wl,-rpath,\$ORIGIN/../lib -Wl,--disable-new-dtags'" -o "$root/bin/cyclecap" ./cli/cyclecap)
# The shim, and its parts for CUDA and NCCL, for which the headers were there.
for file in "$shim" build/lib/libcyclecap_torch_*.so; do
  [ ! -e "$file" ] || strip --strip-unneeded -o "$root/lib/$(basename "$file")" "$file"
done

# The image libraries that the program finds on this machine, and their licences.
ldd "$root/bin/cyclecap" | awk '$1 ~ /^lib(jpeg|webp|webpdemux|sharpyuv)\.so/ {print $1, $3}' | while read -r soname file; do
  cp -L "$file" "$root/lib/$soname"
  package=$(dpkg-query -S "$(readlink -f "$file")" 2>/dev/null || dpkg-query -S "/usr$(readlink -f "$file")") ||
    die "no Debian package contains $file, so its licence is unknown"
  cp "/usr/share/doc/${package%%:*}/copyright" "$root/licenses/${package%%:*}"
done
for file in libjpeg libwebp libwebpdemux; do
  ls "$root/lib/$file".so.* >/dev/null || die "the program is not linked with $file"
done

# The licences of Go and of the modules that the program contains.
cp "$(go env GOROOT)/LICENSE" "$root/licenses/go"
(cd "$work/sources" && go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Dir}}{{end}}{{end}}' ./cli/cyclecap | sort -u) >"$work/modules"
while read -r path dir; do
  mkdir -p "$root/licenses/$path"
  find "$dir" -maxdepth 1 \( -iname 'licen[cs]e*' -o -iname 'copying*' -o -iname 'notice*' -o -iname 'patents*' -o -iname 'third_party*' -o -iname authors \) \
    -exec cp -r {} "$root/licenses/$path" \;
  [ -n "$(ls "$root/licenses/$path")" ] || die "module $path has no licence file in $dir"
done <"$work/modules"

for shell in bash zsh fish; do
  "$root/bin/cyclecap" completion $shell >"$root/completions/cyclecap.$shell"
done
"$root/bin/cyclecap" man "$root/share/man/man1"
gzip -9n "$root"/share/man/man1/*
cp LICENSE NOTICE CHANGELOG.md "$root"
sed "s/@VERSION@/$version/g; s/@LIBTORCH@/$torch/g" docs/install.md >"$root/INSTALL.md"
chmod -R u+w,go-w,a+rX "$root"

# The same commit must give the same archive.
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="$(git log -1 --format=%cI)" -C "$work" -cf - "$name" |
  gzip -9n >"$work/$name.tar.gz"
mv "$work/$name.tar.gz" "$dist"
(cd "$dist" && find . \( -name '*.tar.gz' -o -name '*.zip' \) -printf '%P\n' | sort | xargs sha256sum) >"$work/SHA256SUMS"
mv "$work/SHA256SUMS" "$dist"
say "wrote $name.tar.gz (needs libtorch $torch) and $module@$version to $dist"
