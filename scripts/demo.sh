#!/usr/bin/env bash
# Runs the whole experiment on a small rendered world, with the CLIP and the GPT-2 of
# models/world: photos, features, decoders, the latent CycleGAN, captions by every bridge,
# scores and a report. A second run skips the stages that are done, and continues one that
# was interrupted.
set -euo pipefail
cd "$(dirname "$0")/.."
begin=$SECONDS
bin/cyclecap run configs/demo.toml --resume
echo
cat work/demo/table.md
echo "demo: done in $((SECONDS - begin)) s; the report, with photos and plots, is work/demo/report.html" >&2
