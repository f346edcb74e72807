// Package bridge has the ways from CLIP's image features to a decoder that
// learned from texts: what the experiment compares. Each is one file that
// registers itself; to add one is to add a file.
package bridge

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"cyclecap/nets/cyclegan"
	"cyclecap/torch"
	"cyclecap/train"
)

// Decoder names what a bridge's decoder is trained on. Bridges with the same
// one share a decoder.
type Decoder string

// The decoders.
const (
	// OfTexts reads a caption's own text feature (the paper's Table 1).
	OfTexts Decoder = "texts"
	// OfNoisyTexts reads it with CapDec's noise.
	OfNoisyTexts Decoder = "noisy-texts"
	// OfImages reads the feature of the caption's photo: paired data.
	OfImages Decoder = "images"
)

// A Bridge is a way from image features to a decoder.
type Bridge struct {
	Name    string // in TOML
	Title   string // in tables
	Decoder Decoder
	// CycleGAN says that Env.Generator is needed.
	CycleGAN bool
	// Fit learns what it needs from the training set and gives the transform
	// of image features [n, width] at inference. It runs in a scope; what the
	// transform uses must be kept.
	Fit func(e Env) (Transform, error)
}

// Transform maps image features [n, width] to what the decoder is given.
type Transform func(x torch.Tensor) torch.Tensor

// Env is what a bridge may learn from: the training set's features, unpaired,
// as the decoder's own inputs are (at length 1 if it normalises).
type Env struct {
	Images, Texts train.Features
	Generator     *cyclegan.Generator // image to text; nil unless Bridge.CycleGAN
	// Length is that of the decoder's inputs: 1 if they are normalised, else
	// the mean length of the text features.
	Length     float64
	Normalized bool
	// DeCap's settings.
	Temperature float64
	Memory      int // texts in the memory; 0: all
	Seed        uint64
	Device      torch.Device // of the decoder
}

var all = map[string]Bridge{}

func register(b Bridge) struct{} {
	all[b.Name] = b
	return struct{}{}
}

// Get finds bridges by their names, in the order of the names.
func Get(names []string) ([]Bridge, error) {
	var out []Bridge
	for _, n := range names {
		b, ok := all[n]
		if !ok {
			return nil, fmt.Errorf("there is no bridge %q; there are %s", n, strings.Join(Names(), ", "))
		}
		out = append(out, b)
	}
	return out, nil
}

// Names lists the bridges.
func Names() []string { return slices.Sorted(maps.Keys(all)) }

// rescale gives rows the length of the decoder's inputs.
func (e Env) rescale(x torch.Tensor) torch.Tensor {
	return train.Normalize(x).MulScalar(e.Length)
}

// block is how many rows are looked at together: bounded memory for any set.
const block = 8192

// blocks runs f on features, some rows at a time.
func blocks(f train.Features, n int, do func(x torch.Tensor) error) error {
	buf := make([]float32, block*f.Width())
	rows := make([]int32, 0, block)
	for at := 0; at < n; at += block {
		rows = rows[:0]
		for i := at; i < min(n, at+block); i++ {
			rows = append(rows, int32(i))
		}
		part := buf[:len(rows)*f.Width()]
		if err := f.Read(rows, part); err != nil {
			return err
		}
		err := torch.Scope(func() error {
			return do(torch.FromSlice(part, int64(len(rows)), int64(f.Width())))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// mean gives the mean row [width], summed in f64.
func mean(f train.Features, d torch.Device) (torch.Tensor, error) {
	sum := torch.Zeros([]int64{int64(f.Width())}, torch.WithDType(torch.Float64))
	err := blocks(f, f.Len(), func(x torch.Tensor) error {
		sum.Add_(x.SumDim([]int64{0}, torch.WithDType(torch.Float64)))
		return nil
	})
	if err != nil {
		return sum, err
	}
	return sum.DivScalar(f.Len()).To(torch.WithDType(torch.Float32), torch.WithDevice(d)), nil
}

// MeanLength gives the mean length of rows.
func MeanLength(f train.Features) (float64, error) {
	var sum float64
	err := blocks(f, f.Len(), func(x torch.Tensor) error {
		sum += x.LinalgVectorNorm(torch.WithDim([]int64{-1}), torch.WithDType(torch.Float64)).Sum().Item()
		return nil
	})
	return sum / float64(f.Len()), err
}
