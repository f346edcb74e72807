#!/usr/bin/env bash
# Puts the models of a finished run on a world into models/world, from where the
# program embeds them: world-models.sh [RUN]    (default: work/demo)
#
# The decoder that learnt from texts and the CycleGAN's generator are those of seed 0.
# CLIP and GPT-2 are the run's own, if it trained them; otherwise they must be those in
# models/world already. All are stored as f16. The picture of the gap, gap.json, is computed
# from them. `make build` embeds them afterwards.
set -euo pipefail
cd "$(dirname "$0")/.."
run=${1:-work/demo} to=models/world
die() {
  printf 'world-models: %s\n' "$*" >&2
  exit 1
}
[ -f "$run/config.toml" ] || die "$run is not the folder of a run: it has no config.toml"

# The value of the key weights in a section of the run's configuration.
weights() { awk -F'"' -v section="[$1]" '/^\[/ {on = ($0 == section)} on && /^weights *=/ {print $2}' "$run/config.toml"; }

new=$(mktemp -d "$to/.new.XXXXXX")
trap 'rm -rf "$new"' EXIT
convert() {
  [ -f "$1" ] || die "$1 is missing: the run is not finished"
  bin/cyclecap convert --dtype f16 "$1" "$new/$2.safetensors"
}
for model in clip gpt2; do
  case $(weights $model) in
  '') convert "$run/$model/$model.safetensors" $model ;;
  "$to/$model.safetensors") ;;
  *) die "$run used $(weights $model) as $model; expected $to/$model.safetensors, or a model of its own" ;;
  esac
done
convert "$run/seed-0/decoder-texts/decoder.pt" decoder
convert "$run/seed-0/cyclegan/image2text.pt" generator

mv "$new"/*.safetensors "$to"
go run ./internal/gapcloud # the picture of the gap, of the new models
(cd "$to" && sha256sum -- *.safetensors gap.json | LC_ALL=C sort -k2 >SHA256SUMS)
cat "$to/SHA256SUMS"
