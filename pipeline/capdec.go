package pipeline

import (
	"fmt"

	"cyclecap/nets/clipcap"
	"cyclecap/weights"
)

// CapDec (github.com/DavidHuji/CapDec) trains ClipCap's classes on the features of texts
// with noise. Its weights do not tell it from ClipCap; the arguments that its scripts
// write beside them do.

// capdec follows the arguments of CapDec's scripts.
func (d *Decoder) capdec(a *weights.CapDecArgs) error {
	contradicts := func(key string, want *int64, what string, have int64) error {
		if want == nil || *want == have {
			return nil
		}
		return fmt.Errorf("%s contradicts %s: %s is %d, but %s %d; if they don't belong together, move one of them into another folder", a.Path, d.Path, key, *want, what, have)
	}
	if err := contradicts("prefix_length", a.PrefixLength, "the prefix of the mapper has length", d.Model.Mapper.PrefixLength()); err != nil {
		return err
	}
	if m, ok := d.Model.Mapper.(*clipcap.TransformerMapper); ok {
		if err := contradicts("prefix_length_clip", a.PrefixLengthClip, "the mapper takes the feature as this many positions:", m.Config.ClipLength); err != nil {
			return err
		}
		if err := contradicts("num_layers", a.NumLayers, "the number of layers of the mapper is", m.Config.Layers); err != nil {
			return err
		}
	}
	if d.Normalize = a.Normalize(); !d.Normalize {
		d.Notes = append(d.Notes, fmt.Sprintf("%s says dont_norm, without noise: features are not scaled to length 1, as in training; CapDec's predictions_runner.py scales them all the same", a.Path))
	}
	if a.AddModalityOffset {
		d.Notes = append(d.Notes, fmt.Sprintf("%s says add_modality_offset: CapDec then adds the offset in its file others/CLIP_embeddings_centers_info.pkl to image features before it captions them; here they are captioned without it", a.Path))
	}
	return nil
}
