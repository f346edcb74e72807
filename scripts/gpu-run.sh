#!/usr/bin/env bash
# Runs the GPU bundle that `make gpu` wrote, on a machine with Linux, an NVIDIA driver and
# a python3 that has a CUDA build of the same PyTorch and transformers:
#
#   bash run.sh OUT [--quick] [--sections parity,tests,speed,table] [--device cuda:0|cpu]
#
# It writes OUT/report.json and OUT/report.md. --quick ends within 4 minutes. With
# --device cpu the models are small. PYTHON names another interpreter than python3.
set -euo pipefail
bundle=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}

usage() { sed -n '/^#   bash/,/^set/{s/^# \{0,1\}//p}' "$0" >&2; }
die() {
  printf 'run.sh: %s\n' "$*" >&2
  exit 1
}
out='' device=cuda:0
options=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage && exit ;;
    --quick) options+=(-quick) ;;
    --sections | --device)
      [ $# -gt 1 ] || die "$1 needs a value"
      options+=("${1#-}" "$2")
      [ "$1" = --sections ] || device=$2
      shift
      ;;
    -*) usage && die "unknown option $1" ;;
    *)
      [ -z "$out" ] || die "only one folder can be given, got $out and $1"
      out=$1
      ;;
  esac
  shift
done
[ -n "$out" ] || { usage && exit 2; }
mkdir -p "$out"

work=$(mktemp -d "${TMPDIR:-/tmp}/cyclecap-gpu.XXXXXX") # weights: 2 GB
trap 'rm -rf "$work"' EXIT
# Python unpacks, since xz is not on every machine.
"$python" -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$bundle/bundle.tar.xz" "$work" ||
  die "$python cannot unpack $bundle/bundle.tar.xz"
"$python" "$work/python/gpu.py" facts "$work" --device "$device" >"$work/facts.json" ||
  die "$python needs torch $(cat "$work/torch") with CUDA, transformers and safetensors (set PYTHON to another interpreter)"
fact() { "$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$work/facts.json" "$1"; }
torch=$(fact torch)
[ "${torch%%+*}" = "$(cat "$work/torch")" ] ||
  die "the bundle was built for libtorch $(cat "$work/torch"), but $python has torch $torch"

LIBTORCH=$(fact libtorch)
export LIBTORCH CYCLECAP_SHIM=$work/lib/libcyclecap_torch.so
"$work/gpu" -out "$out" -facts "$work/facts.json" -work "$work/weights" -python "$python" -scripts "$work/python" \
  -photos "$work/photos" -tests "$work/devicetest" -cyclecap "$work/cyclecap" "${options[@]}"
