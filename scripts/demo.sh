#!/usr/bin/env bash
# Captions sample photos through the full-size networks. Until there is a
# trained model to ship, the weights are random, and the captions nonsense.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=work/demo
if [ ! -e "$dir/generator.pt" ]; then
  echo "demo: writing random weights of the real sizes into $dir (1.3 GB)" >&2
  bin/cyclecap random-weights "$dir"
fi
cat >&2 <<'TEXT'
demo: THE WEIGHTS ARE RANDOM, so the captions are nonsense: this shows that photos
demo: go through CLIP ViT-B/32, the generator, the mapper and GPT-2 at full size.
TEXT
time bin/cyclecap caption --clip "$dir/clip.pt" --decoder "$dir/decoder.pt" --gpt2 "$dir/gpt2.pt" \
  --generator "$dir/generator.pt" --decode beam --max-tokens 12 $(ls testdata/photos/*.jpg | head -6)
