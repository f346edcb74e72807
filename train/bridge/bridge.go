// Package bridge has the ways from CLIP's image features to a text decoder: what
// the experiment compares. Each is one file that describes and registers itself:
// its settings become keys of [bridges] in TOML, and its title a row of the table.
// To add one is to add a file.
package bridge

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"cyclecap/nets/clip"
	"cyclecap/nets/cyclegan"
	"cyclecap/torch"
	"cyclecap/train"
)

// Decoder says what a bridge's decoder is trained on. Bridges with equal ones
// share a decoder.
type Decoder struct {
	Name string // of its folder and in titles: "noisy-texts"
	// Images says that it reads the feature of a caption's photo, which takes paired
	// data, and not the caption's own text feature.
	Images bool
	// Noise names the setting with the variance of the Gaussian noise that is added
	// to its features; "": none.
	Noise string
}

// The decoders.
var (
	// OfTexts reads a caption's own text feature (the paper's Table 1).
	OfTexts = Decoder{Name: "texts"}
	// OfImages reads the feature of the caption's photo: paired data.
	OfImages = Decoder{Name: "images", Images: true}
)

// Role is what a bridge is in the comparison.
type Role int

// The roles.
const (
	Method Role = iota
	// Baseline is what the differences in the table are measured from.
	Baseline
	// Ceiling learns from pairs: what could be reached, not marked as the best.
	Ceiling
)

// A Setting is a number that a bridge is set by, in TOML.
type Setting struct {
	Key     string // in [bridges]: "decap_memory"
	Default float64
	Whole   bool   // a whole number
	Range   string // as in the tags of package experiment/config: "[0,100]"
	Text    string // what it is, continuing the key: "is the number of …"
	Source  string // of the default
}

// A Bridge is a way from image features to a decoder.
type Bridge struct {
	Name     string // in TOML
	Title    string // in tables
	Role     Role
	Paper    string // the paper's column in Table 3, "direct" or "textualised"; "": none
	Decoder  Decoder
	CycleGAN bool // Env.Generator is needed
	Settings []Setting
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
	Settings   map[string]float64 // by key
	Seed       uint64
	Device     torch.Device // of the decoder
}

var all = map[string]Bridge{}

// Register adds a bridge. It is called when the program starts, by each bridge's
// own file; a second bridge or setting of one name is a mistake of the program,
// and panics.
func Register(b Bridge) struct{} {
	if _, taken := all[b.Name]; taken {
		panic("bridge: two are named " + b.Name)
	}
	for _, s := range b.Settings {
		for _, other := range all {
			if slices.ContainsFunc(other.Settings, func(o Setting) bool { return o.Key == s.Key }) {
				panic("bridge: two settings are named " + s.Key)
			}
		}
	}
	all[b.Name] = b
	return struct{}{}
}

// All lists the bridges by name.
func All() []Bridge {
	var list []Bridge
	for _, name := range names() {
		list = append(list, all[name])
	}
	return list
}

// Get finds bridges by their names, in the order of the names.
func Get(list []string) ([]Bridge, error) {
	var out []Bridge
	for _, n := range list {
		b, ok := all[n]
		if !ok {
			return nil, fmt.Errorf("there is no bridge %q; there are %s", n, strings.Join(names(), ", "))
		}
		out = append(out, b)
	}
	return out, nil
}

func names() []string { return slices.Sorted(maps.Keys(all)) }

// rescale gives rows the length of the decoder's inputs.
func (e Env) rescale(x torch.Tensor) torch.Tensor {
	return clip.Normalize(x).MulScalar(e.Length)
}

// block is how many rows are looked at together: bounded memory for any set.
const block = 8192

// blocks runs f on all features, some rows at a time.
func blocks(f train.Features, do func(x torch.Tensor) error) error {
	n := f.Len()
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

// mean gives the mean row [width] in f64, on the CPU.
func mean(f train.Features) (torch.Tensor, error) {
	sum := torch.Zeros([]int64{int64(f.Width())}, torch.WithDType(torch.Float64), torch.WithDevice(torch.CPU))
	err := blocks(f, func(x torch.Tensor) error {
		sum.Add_(x.SumDim([]int64{0}, torch.WithDType(torch.Float64)))
		return nil
	})
	return sum.DivScalar(f.Len()), err
}

// MeanLength gives the mean length of rows.
func MeanLength(f train.Features) (float64, error) {
	var sum float64
	err := blocks(f, func(x torch.Tensor) error {
		sum += x.LinalgVectorNorm(torch.WithDim([]int64{-1}), torch.WithDType(torch.Float64)).Sum().Item()
		return nil
	})
	return sum / float64(f.Len()), err
}
