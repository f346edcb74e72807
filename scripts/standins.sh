#!/usr/bin/env bash
# Trains the CLIP and the GPT-2 that stand in for OpenAI's, and puts them into
# models/world as f16, with their losses: standins.sh [OPTIONS OF cyclecap run]
#
# An interrupted run is continued. The decoder and the generator there belong to the CLIP
# and GPT-2 that they were trained with: make them again with `make demo world-models`.
set -euo pipefail
cd "$(dirname "$0")/.."
text=work/standins-text run=work/standins to=models/world
train() { bin/cyclecap run "$1" --output "$2" --resume "${@:3}"; }

train configs/standins-text.toml "$text" --until clip "$@"
# As it is stored: the same text encoder as that of the next CLIP.
bin/cyclecap convert --dtype f16 "$text/clip/clip.safetensors" "$text/clip.safetensors"
train configs/standins.toml "$run" --until clip "$@"
# GPT-2 reads the captions of fewer scenes. CLIP has been trained.
train configs/standins.toml "$run" --until gpt2 --set world.pretrain=120000 --set clip.weights="$run/clip/clip.safetensors" "$@"

new=$(mktemp -d "$to/.new.XXXXXX")
trap 'rm -rf "$new"' EXIT
# Every tenth step, and the last one.
losses() { awk 'NR % 10 == 1 {print; next} {last = $0} END {if (NR % 10 != 1) print last}' "$1/metrics.jsonl"; }
losses "$text/clip" >"$new/clip-text-metrics.jsonl"
for model in clip gpt2; do
  bin/cyclecap convert --dtype f16 "$run/$model/$model.safetensors" "$new/$model.safetensors"
  losses "$run/$model" >"$new/$model-metrics.jsonl"
done
mv "$new"/* "$to"
(cd "$to" && sha256sum -- *.safetensors gap.json | LC_ALL=C sort -k2 >SHA256SUMS)
cat "$to/SHA256SUMS"
