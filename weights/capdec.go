package weights

import (
	"encoding/json"
	"fmt"
)

// capdecArgs is the file that CapDec's train.py writes into the folder of its weights, and
// its predictions_runner.py once more.
const capdecArgs = "commandline_args.txt"

// CapDecArgs are the arguments of CapDec's scripts that concern the weights they were
// written with.
type CapDecArgs struct {
	Path             string `json:"-"`
	PrefixLength     *int64 `json:"prefix_length"`
	PrefixLengthClip *int64 `json:"prefix_length_clip"` // of a transformer mapper
	NumLayers        *int64 `json:"num_layers"`         // of a transformer mapper
	// AddModalityOffset adds the mean difference of texts and images to the features.
	AddModalityOffset bool `json:"add_modality_offset"`
	// DontNorm and NoiseVariance are those of train.py. predictions_runner.py has IsRN
	// instead.
	DontNorm      *bool   `json:"dont_norm"`
	NoiseVariance float64 `json:"noise_variance"`
	IsRN          *bool   `json:"is_rn"`
}

// Normalize reports whether the decoder was trained on features of length 1. CapDec
// scales them before it adds noise, unless dont_norm is set, and always after that.
func (a *CapDecArgs) Normalize() bool {
	return a.DontNorm == nil || !*a.DontNorm || a.NoiseVariance != 0
}

// CapDec returns the arguments in the commandline_args.txt beside the weights, or nil if
// there is no such file or another program wrote it.
func CapDec(f *File) (*CapDecArgs, error) {
	data, path, err := f.Beside(capdecArgs)
	if err != nil {
		return nil, err
	}
	var keys map[string]json.RawMessage
	if data == nil || json.Unmarshal(data, &keys) != nil {
		return nil, nil
	}
	if keys["prefix_length"] == nil || keys["dont_norm"] == nil && keys["is_rn"] == nil {
		return nil, nil
	}
	a := &CapDecArgs{Path: path}
	if err := json.Unmarshal(data, a); err != nil {
		return nil, &Error{path, fmt.Errorf("not the arguments of CapDec's train.py: %w", err)}
	}
	return a, nil
}
