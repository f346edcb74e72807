#!/usr/bin/env bash
# Trains the CLIP and the GPT-2 that stand in for OpenAI's, and puts them into
# models/world as f16, with their losses: standins.sh [OPTIONS OF cyclecap run]
#
# An interrupted run is continued. The decoder and the generator there belong to the CLIP
# and GPT-2 that they were trained with: make them again with `make demo world-models`.
set -euo pipefail
cd "$(dirname "$0")/.."
run=work/standins to=models/world
train() { bin/cyclecap run configs/standins.toml --output "$run" --resume "$@"; }

train --until clip "$@"
# Captions cost little, so GPT-2 reads those of more scenes. CLIP has been trained.
train --until gpt2 --set world.pretrain=300000 --set clip.weights="$run/clip/clip.safetensors" "$@"

new=$(mktemp -d "$to/.new.XXXXXX")
trap 'rm -rf "$new"' EXIT
for model in clip gpt2; do
  bin/cyclecap convert --dtype f16 "$run/$model/$model.safetensors" "$new/$model.safetensors"
  # Every tenth step, and the last one.
  awk 'NR % 10 == 1 {print; next} {last = $0} END {if (NR % 10 != 1) print last}' "$run/$model/metrics.jsonl" >"$new/$model-metrics.jsonl"
done
mv "$new"/* "$to"
(cd "$to" && LC_ALL=C sha256sum -- *.safetensors >SHA256SUMS)
cat "$to/SHA256SUMS"
