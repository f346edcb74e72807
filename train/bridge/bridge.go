// Package bridge implements the bridges that the experiment compares: ways from CLIP's
// image features to the input of a text decoder. Each bridge is one file that registers
// itself. Its settings become keys of [bridges] in TOML, and its title becomes a row of
// the table. To add a bridge, add a file.
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

// Decoder describes what a decoder is trained on. Bridges with equal values share a
// decoder.
type Decoder struct {
	Name string // in folder names and titles: "noisy-texts"
	// Images trains the decoder on the feature of a caption's photo, which requires
	// paired data, instead of the caption's own text feature.
	Images bool
	// Noise is the key of the setting with the variance of the Gaussian noise to add
	// to the features, which are scaled to length 1 before and after; "" means no noise.
	Noise string
	// Centered subtracts the mean of the features before the noise is added.
	Centered bool
}

// The decoders.
var (
	// OfTexts is trained on the text features of the captions (the paper's Table 1).
	OfTexts = Decoder{Name: "texts"}
	// OfImages is trained on the features of the captions' photos: paired data.
	OfImages = Decoder{Name: "images", Images: true}
)

// Role is the role of a bridge in the comparison.
type Role int

// The roles.
const (
	Method Role = iota
	// Baseline is the bridge that the others are compared with.
	Baseline
	// Ceiling is trained on pairs. It shows what could be reached, and is not marked as
	// the best.
	Ceiling
)

// A Setting is a numeric setting of a bridge, a key in TOML.
type Setting struct {
	Key     string // in [bridges]: "decap_memory"
	Default float64
	Whole   bool   // must be an integer
	Range   string // allowed values, as in the tags of package experiment/config: "[0,100]"
	Text    string // description that continues the key: "is the number of …"
	Source  string // where the default comes from
}

// A Bridge is a way from image features to the input of a decoder.
type Bridge struct {
	Name     string // in TOML
	Title    string // in tables
	Role     Role
	Paper    string // column in the paper's Table 3, "direct" or "textualised"; "" if none
	Decoder  Decoder
	CycleGAN bool // requires Env.Generator
	Sets     bool // requires Env.Images, Env.Texts and Env.Length
	Settings []Setting
	// Fit computes what the bridge needs from the training set and returns the
	// transform to apply to image features at inference. It runs in the scope in which
	// the transform is used, which owns the tensors that the transform needs.
	Fit func(e Env) (Transform, error)
	// Parameters returns how many numbers the transform needs, such as the weights of a
	// network; nil means none.
	Parameters func(e Env) int64
}

// A Transform maps image features [n, width] to inputs of the decoder [n, width].
type Transform func(x torch.Tensor) torch.Tensor

// Env is what a bridge may use.
type Env struct {
	// Images and Texts are the training set's features, or nil unless Bridge.Sets. They
	// are unpaired, and have length 1 if the decoder normalizes its inputs.
	Images, Texts train.Features
	Generator     *cyclegan.Generator // from image to text; nil unless Bridge.CycleGAN
	// Length is the length of the decoder's inputs: 1 if they are normalized, or else
	// the mean length of the text features (unless Bridge.Sets is false).
	Length     float64
	Normalized bool
	Settings   map[string]float64 // by key
	Seed       uint64
	Device     torch.Device // of the decoder
}

var all = map[string]Bridge{}

// Register adds a bridge. Each bridge's file calls it during initialization. It panics
// if another bridge or setting has the same name.
func Register(b Bridge) struct{} {
	if _, taken := all[b.Name]; taken {
		panic("bridge: two bridges are named " + b.Name)
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

// All returns the bridges, sorted by name.
func All() []Bridge {
	var list []Bridge
	for _, name := range names() {
		list = append(list, all[name])
	}
	return list
}

// Get returns the bridges with the given names, in that order.
func Get(list []string) ([]Bridge, error) {
	var out []Bridge
	for _, n := range list {
		b, ok := all[n]
		if !ok {
			return nil, fmt.Errorf("unknown bridge %q; valid bridges: %s", n, strings.Join(names(), ", "))
		}
		out = append(out, b)
	}
	return out, nil
}

func names() []string { return slices.Sorted(maps.Keys(all)) }

// rescale scales rows to the length of the decoder's inputs.
func (e Env) rescale(x torch.Tensor) torch.Tensor {
	return clip.Normalize(x).MulScalar(e.Length)
}

// block is the number of rows to process at once, which bounds memory for any set.
const block = 8192

// blocks calls do with all features, block rows at a time.
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

// mean returns the mean row [width] as f64 on the CPU.
func mean(f train.Features) (torch.Tensor, error) {
	return meanOf(f, func(x torch.Tensor) torch.Tensor { return x })
}

// meanOf returns the mean row [width] of what change makes of the rows, as f64 on the CPU.
func meanOf(f train.Features, change func(x torch.Tensor) torch.Tensor) (torch.Tensor, error) {
	sum := torch.Zeros([]int64{int64(f.Width())}, torch.WithDType(torch.Float64), torch.WithDevice(torch.CPU))
	err := blocks(f, func(x torch.Tensor) error {
		sum.Add_(change(x).SumDim([]int64{0}, torch.WithDType(torch.Float64)))
		return nil
	})
	return sum.DivScalar(f.Len()), err
}

// MeanDirection returns the mean of the rows, each scaled to length 1.
func MeanDirection(f train.Features) (m []float32, err error) {
	err = torch.Scope(func() error {
		mean, err := meanOf(f, clip.Normalize)
		if err == nil {
			m = torch.ToSlice[float32](mean)
		}
		return err
	})
	return m, err
}

// MeanLength returns the mean length (L2 norm) of the rows.
func MeanLength(f train.Features) (float64, error) {
	var sum float64
	err := blocks(f, func(x torch.Tensor) error {
		sum += x.LinalgVectorNorm(torch.WithDimList([]int64{-1}), torch.WithDType(torch.Float64)).Sum().Item()
		return nil
	})
	return sum / float64(f.Len()), err
}
