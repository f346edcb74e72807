//go:build !nomodels

// Package world embeds the models with which `cyclecap caption` captions photos if it
// is given no others. They know only the drawn scenes of package data/world.
package world

import "embed"

// FS contains the models: clip.safetensors, gpt2.safetensors, decoder.safetensors (the
// mapper of a ClipCap decoder) and generator.safetensors (the CycleGAN's, from image
// features to text features). README.md says how they were trained. It also contains gap.json, a
// picture of the features of some photos and captions (geometry.Cloud).
//
//go:embed clip.safetensors gpt2.safetensors decoder.safetensors generator.safetensors gap.json
var FS embed.FS
