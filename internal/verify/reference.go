// Package verify compares what cyclecap computes with what Python computed with the same
// weights, photos and texts: the files of scripts/record_reference.py.
package verify

import (
	"encoding/json"
	"fmt"

	"cyclecap/nets/clip"
	"cyclecap/nets/clipcap"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/weights"
)

// layout is the version of the files' layout, VERSION in record_reference.py.
const layout = "1"

// Reference is a file of record_reference.py.
type Reference struct {
	Path  string
	Facts Facts
	sd    *nn.StateDict
}

// Facts is what the file says besides its tensors.
type Facts struct {
	Environment
	Parts   map[string]string            // part -> what computed it
	Weights map[string]map[string]string // part -> file -> sha256
	Photos  []Photo
	// Preprocessing names what preprocessed the photos in Python.
	Preprocessing string
	Texts         []string // of CLIP; empty where ids are random
	GPT2Texts     []string `json:"gpt2_texts"`
	Normalize     bool     // whether the features of the decoder have length 1
	Stop          int64
	Tokens        int // at most, of a caption
	Beams         int
	Decoded       Decoded
	Sampled       map[string]Sample   // tensors of which the file has a part
	Layers        map[string][]string // net -> its modules, in the order of the computation
	Notes         []string
	Mapper        map[string]any
}

// Environment is what low-order bits depend on.
type Environment struct {
	Versions   map[string]string `json:"versions"`
	Threads    int               `json:"threads"`
	CPU        string            `json:"cpu"`
	Device     string            `json:"device"`      // "CPU", or the name of the GPU
	DeviceType string            `json:"device_type"` // "cpu" or "cuda"
	DType      string            `json:"dtype"`
	TF32       bool              `json:"tf32"`
	Packed     bool              `json:"packed,omitempty"`
}

// Photo is a photo that the reference was computed from.
type Photo struct {
	Name   string
	SHA256 string
	Stored bool // in the file, as photos.N
}

// Sample says that a tensor has only every Step-th element of one of this shape.
type Sample struct {
	Shape []int64
	Step  int64
}

// Decoded has the tokens of the photos' captions by each rule. A list of beams has the
// best first.
type Decoded struct {
	Greedy             [][]int64   `json:"greedy"`
	Beam               [][][]int64 `json:"beam"`
	GenerateGreedy     [][]int64   `json:"generate_greedy"`
	GenerateBeam       [][]int64   `json:"generate_beam"`
	GenerateBeamNoStop [][]int64   `json:"generate_beam_no_stop"`
	// DeCap has the tokens by DeCap's rule, in place of Greedy and Beam, and DeCapTexts
	// their texts. A text is nil where DeCap's code has none.
	DeCap      [][]int64 `json:"decap"`
	DeCapTexts []*string `json:"decap_texts"`
}

// rule returns how the decoder's own code decodes a caption, and the tokens of the photos.
func (d Decoded) rule() (name string, method clipcap.Method, tokens [][]int64) {
	if len(d.DeCap) > 0 {
		return "greedy (DeCap's Decoding)", clipcap.Greedy, d.DeCap
	}
	return "top-p (ClipCap's generate2)", clipcap.TopP, d.Greedy
}

// Open reads a file of record_reference.py.
func Open(path string) (*Reference, error) {
	f, err := weights.Open(path)
	if err != nil {
		return nil, err
	}
	const key = "cyclecap_reference"
	switch v := f.Meta[key]; v {
	case layout:
	case "":
		return nil, fmt.Errorf("%s is not a reference: its metadata has no %q; scripts/record_reference.py writes references", path, key)
	default:
		return nil, fmt.Errorf("%s is a reference of version %s, and this cyclecap reads version %s: record it again with the record_reference.py of this version", path, v, layout)
	}
	r := &Reference{Path: path}
	if err := json.Unmarshal([]byte(f.Meta["facts"]), &r.Facts); err != nil {
		return nil, fmt.Errorf("%s: its facts can't be read: %w", path, err)
	}
	if r.sd, err = f.Load(); err != nil {
		return nil, err
	}
	return r, nil
}

// Close frees the tensors.
func (r *Reference) Close() { r.sd.Close() }

// Has reports whether the reference has a tensor.
func (r *Reference) Has(name string) bool {
	_, ok := r.sd.Get(name)
	return ok
}

// encoders returns which encoders of a CLIP the reference is of: both, unless Python had only
// one.
func (r *Reference) encoders() clip.Part {
	switch image, text := r.Has("clip.image"), r.Has("clip.text"); {
	case image && !text:
		return clip.Image
	case text && !image:
		return clip.Text
	}
	return clip.Both
}

// tensor returns a tensor, as a copy of its own, which is aligned as PyTorch's are.
func (r *Reference) tensor(name string) torch.Tensor {
	t, ok := r.sd.Get(name)
	if !ok {
		torch.Throw("verify", "%s has no tensor %s", r.Path, name)
	}
	return t.Clone()
}

// shape returns the shape of a tensor of which the reference may have only a sample.
func (r *Reference) shape(name string) []int64 {
	if s, ok := r.Facts.Sampled[name]; ok {
		return s.Shape
	}
	t, _ := r.sd.Get(name)
	return t.Shape()
}

// sample returns of t what the reference has of the tensor of this name.
func (r *Reference) sample(name string, t torch.Tensor) torch.Tensor {
	if s, ok := r.Facts.Sampled[name]; ok {
		return t.Reshape([]int64{-1}).Slice(torch.WithStep(s.Step))
	}
	return t
}
