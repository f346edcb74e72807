#!/usr/bin/env bash
# The whole experiment on a small rendered world, from nothing: photos, a small
# CLIP and GPT-2, the text decoders, the latent CycleGAN, captions by every
# bridge, scores and a report. A second run skips what is done; one that was
# interrupted goes on.
set -euo pipefail
cd "$(dirname "$0")/.."
begin=$SECONDS
bin/cyclecap run configs/demo.toml --resume
echo
cat work/demo/table.md
echo "demo: $((SECONDS - begin)) s; the report, with photos and plots, is work/demo/report.html" >&2
