// Package clipcap implements ClipCap (Mokady et al. 2021): a mapper turns a CLIP
// feature into a prefix of GPT-2 embeddings, and GPT-2 continues the prefix with a
// caption. Decoding follows ClipCap's rules, with a key-value cache.
package clipcap

import (
	"cmp"
	"fmt"
	"math"
	"strings"

	"cyclecap/torch"
	"cyclecap/torch/nn"
)

// A Mapper turns features [n, CLIP width] into prefixes [n, length, GPT-2 width].
type Mapper interface {
	Forward(features torch.Tensor) torch.Tensor
	// FeatureWidth, PrefixLength and Width return the sizes.
	FeatureWidth() int64
	PrefixLength() int64
	Width() int64
}

// TransformerConfig holds the sizes of the transformer mapper. The paper uses
// 512, 768, 40, 40, 8 layers and 8 heads.
type TransformerConfig struct {
	FeatureWidth int64 // of the CLIP feature
	Width        int64 // of GPT-2
	ClipLength   int64 // number of tokens that represent the feature
	PrefixLength int64
	Layers       int64
	Heads        int64
	Inner        int64 // width inside the layers' MLPs; 0 means twice Width, as in ClipCap
}

// Heads is the number of attention heads in ClipCap's transformer mapper. Weights
// files do not contain it.
const Heads = 8

// PaperTransformer returns the configuration of the paper's mapper (Table 1).
func PaperTransformer() TransformerConfig {
	return TransformerConfig{FeatureWidth: 512, Width: 768, ClipLength: 40, PrefixLength: 40, Layers: 8, Heads: Heads}
}

// TransformerMapper is ClipCap's mapper of type "transformer".
type TransformerMapper struct {
	Config      TransformerConfig `name:"-"`
	PrefixConst torch.Tensor
	Transformer *mapperTransformer
	Linear      *nn.LinearModule
}

type mapperTransformer struct{ Layers []*mapperLayer }

type mapperLayer struct {
	nn.Hook
	Norm1 *nn.LayerNormModule `name:"norm1"`
	Attn  *mapperAttention
	Norm2 *nn.LayerNormModule `name:"norm2"`
	Mlp   *mapperMLP

	fused *nn.FusedLayer // set by nn.Pack, or nil
}

type mapperAttention struct {
	ToQueries    *nn.LinearModule
	ToKeysValues *nn.LinearModule
	Project      *nn.LinearModule
	heads        int64
}

type mapperMLP struct {
	Fc1 *nn.LinearModule `name:"fc1"`
	Fc2 *nn.LinearModule `name:"fc2"`
}

// NewTransformerMapper returns a mapper with random weights, initialised like
// ClipCap's code.
func NewTransformerMapper(c TransformerConfig) *TransformerMapper {
	m := &TransformerMapper{Config: c, Transformer: &mapperTransformer{}}
	d, inner := c.Width, c.Inner
	if inner == 0 {
		inner = 2 * d
	}
	for range c.Layers {
		m.Transformer.Layers = append(m.Transformer.Layers, &mapperLayer{
			Norm1: nn.LayerNorm([]int64{d}, 1e-5),
			Attn: &mapperAttention{
				ToQueries:    nn.Linear(d, d, false),
				ToKeysValues: nn.Linear(d, 2*d, false),
				Project:      nn.Linear(d, d, true),
				heads:        c.Heads,
			},
			Norm2: nn.LayerNorm([]int64{d}, 1e-5),
			Mlp:   &mapperMLP{Fc1: nn.Linear(d, inner, true), Fc2: nn.Linear(inner, d, true)},
		})
	}
	m.Linear = nn.Linear(c.FeatureWidth, c.ClipLength*d, true)
	m.PrefixConst = torch.Randn([]int64{c.PrefixLength, d}).Keep().SetRequiresGrad(true)
	return m
}

// FeatureWidth returns the width of the features.
func (m *TransformerMapper) FeatureWidth() int64 { return m.Config.FeatureWidth }

// PrefixLength returns the length of the prefix.
func (m *TransformerMapper) PrefixLength() int64 { return m.Config.PrefixLength }

// Width returns the width of GPT-2.
func (m *TransformerMapper) Width() int64 { return m.Config.Width }

// Forward maps [n, feature] to [n, prefix, width]: ClipLength tokens computed
// from the feature, followed by as many learned constants as the prefix is long,
// pass through the transformer; the outputs of the constants are the prefix.
func (m *TransformerMapper) Forward(features torch.Tensor) torch.Tensor {
	n := features.Size(0)
	x := m.Linear.Forward(features).View([]int64{n, m.Config.ClipLength, -1}) // [n, clip, d]
	prefix := m.PrefixConst.Unsqueeze(0).Expand([]int64{n, m.Config.PrefixLength, m.Config.Width})
	x = torch.Cat([]torch.Tensor{x, prefix}, torch.WithDim(1)) // [n, clip+prefix, d]
	for _, l := range m.Transformer.Layers {
		// Keep only the result of the layer, and what autograd needs.
		x = torch.Tidy(func() torch.Tensor {
			if l.fused.Ready() {
				return l.fused.Forward(x, false, nil, nil)
			}
			y := x.Add(l.Attn.forward(l.Norm1.Forward(x)))
			return l.Output(y.Add(l.Mlp.forward(l.Norm2.Forward(y))))
		})
	}
	return x.Slice(torch.WithDim(1), torch.WithStart(m.Config.ClipLength))
}

// Pack prepares the layer to be computed at once; nn.Pack calls it.
func (l *mapperLayer) Pack(nn.Packing) {
	a := l.Attn
	l.fused = nn.NewFusedLayer(l, l.Norm1, l.Norm2, []*nn.Packed{a.ToQueries.Packed, a.ToKeysValues.Packed}, a.Project.Packed,
		l.Mlp.Fc1.Packed, l.Mlp.Fc2.Packed, torch.ReLU, a.heads, a.scale())
}

// scale returns the factor of the scores.
func (a *mapperAttention) scale() float64 {
	return math.Pow(float64(a.Project.Bias.Size(0)/a.heads), -0.5)
}

func (a *mapperAttention) forward(x torch.Tensor) torch.Tensor {
	n, t, d := x.Size(0), x.Size(1), x.Size(2)
	head := d / a.heads
	q := a.ToQueries.Forward(x).Reshape([]int64{n, t, a.heads, head})
	kv := a.ToKeysValues.Forward(x).Reshape([]int64{n, t, 2, a.heads, head})
	k, v := kv.Select(2, 0), kv.Select(2, 1) // [n, t, heads, head]
	// Softmax over the axis of the keys, which comes before that of the heads here.
	w := torch.Einsum("bnhd,bmhd->bnmh", []torch.Tensor{q, k}).MulScalar(a.scale()).Softmax(2)
	y := torch.Einsum("bnmh,bmhd->bnhd", []torch.Tensor{w, v}).Reshape([]int64{n, t, d})
	return a.Project.Forward(y)
}

func (m *mapperMLP) forward(x torch.Tensor) torch.Tensor {
	return m.Fc2.Forward(m.Fc1.Forward(x).Relu())
}

// MLPMapper is ClipCap's mapper of type "mlp": two linear layers, named model.0
// and model.2, with Tanh between them.
type MLPMapper struct {
	Model *mlpLayers
	// The sizes are stored, because a packed layer has no weight to tell them.
	features, length, width int64
}

type mlpLayers struct {
	First  *nn.LinearModule `name:"0"`
	Second *nn.LinearModule `name:"2"`
}

// NewMLPMapper returns an MLP mapper with random weights.
func NewMLPMapper(featureWidth, width, prefixLength int64) *MLPMapper {
	hidden := width * prefixLength / 2
	return &MLPMapper{
		Model:    &mlpLayers{First: nn.Linear(featureWidth, hidden, true), Second: nn.Linear(hidden, width*prefixLength, true)},
		features: featureWidth, length: prefixLength, width: width,
	}
}

// FeatureWidth returns the width of the features.
func (m *MLPMapper) FeatureWidth() int64 { return m.features }

// PrefixLength returns the length of the prefix.
func (m *MLPMapper) PrefixLength() int64 { return m.length }

// Width returns the width of GPT-2.
func (m *MLPMapper) Width() int64 { return m.width }

// Forward maps [n, feature] to [n, prefix, width].
func (m *MLPMapper) Forward(features torch.Tensor) torch.Tensor {
	y := m.Model.Second.Forward(m.Model.First.Forward(features).Tanh())
	return y.View([]int64{-1, m.length, m.Width()})
}

// LinearMapper is DeCap's mapper: one linear layer, named model.0, which turns a
// feature into a prefix of length 1. ClipCap's class MLP is the same with one layer.
type LinearMapper struct {
	Model *oneLayer
	// The sizes are stored, because a packed layer has no weight to tell them.
	features, width int64
}

type oneLayer struct {
	First *nn.LinearModule `name:"0"`
}

// NewLinearMapper returns a linear mapper with random weights.
func NewLinearMapper(featureWidth, width int64) *LinearMapper {
	return &LinearMapper{Model: &oneLayer{First: nn.Linear(featureWidth, width, true)}, features: featureWidth, width: width}
}

// FeatureWidth returns the width of the features.
func (m *LinearMapper) FeatureWidth() int64 { return m.features }

// PrefixLength returns 1.
func (m *LinearMapper) PrefixLength() int64 { return 1 }

// Width returns the width of GPT-2.
func (m *LinearMapper) Width() int64 { return m.width }

// Forward maps [n, feature] to [n, 1, width].
func (m *LinearMapper) Forward(features torch.Tensor) torch.Tensor {
	return m.Model.First.Forward(features).Unsqueeze(1)
}

// LoadMapper returns the mapper described by the weights, with the names of
// ClipCap's and DeCap's checkpoints ("clip_project.…"), for a GPT-2 of the given width.
func LoadMapper(sd *nn.StateDict, width int64) (m Mapper, err error) {
	const prefix = "clip_project."
	own := nn.NewStateDict()
	var extra []string
	for _, name := range sd.Names() {
		if !strings.HasPrefix(name, prefix) {
			extra = append(extra, name)
			continue
		}
		t, _ := sd.Get(name)
		own.Add(strings.TrimPrefix(name, prefix), t)
	}
	if width < 1 {
		return nil, fmt.Errorf("the width of GPT-2 must be at least 1, got %d", width)
	}
	if own.Len() == 0 {
		return nil, fmt.Errorf(`not a ClipCap decoder: no tensor has a name that starts with "clip_project."`)
	}
	if len(extra) > 0 {
		return nil, fmt.Errorf(`not a ClipCap mapper: the names of %d tensors, such as %s, do not start with "clip_project."`, len(extra), extra[0])
	}
	err = torch.Scope(func() error {
		var module any
		if _, ok := own.Get("prefix_const"); ok {
			c, err := transformerConfigOf(own)
			if err != nil {
				return err
			}
			torch.OnDevice(torch.Meta, func() { module = NewTransformerMapper(c) })
			m = module.(*TransformerMapper)
		} else {
			first, err := own.Sizes("model.0.weight", 2)
			if err != nil {
				return fmt.Errorf("neither a transformer mapper (with prefix_const) nor an MLP mapper: clip_project.%w", err)
			}
			if _, ok := own.Get("model.2.weight"); !ok {
				if first[0] != width {
					return fmt.Errorf("the linear mapper has %d outputs, but GPT-2's width is %d: they were not trained together", first[0], width)
				}
				torch.OnDevice(torch.Meta, func() { module = NewLinearMapper(first[1], width) })
				m = module.(*LinearMapper)
				return nn.LoadStateDict(module, own)
			}
			second, err := own.Sizes("model.2.weight", 2)
			if err != nil {
				return fmt.Errorf("clip_project.%w", err)
			}
			if second[0]%width != 0 {
				return fmt.Errorf("the MLP mapper has %d outputs, which is not a multiple of GPT-2's width %d", second[0], width)
			}
			length := second[0] / width
			if length > maxLength {
				return fmt.Errorf("the MLP mapper has a prefix of %d; at most %d are supported", length, maxLength)
			}
			torch.OnDevice(torch.Meta, func() { module = NewMLPMapper(first[1], width, length) })
			m = module.(*MLPMapper)
		}
		if m.Width() != width {
			return fmt.Errorf("the mapper's width is %d, but GPT-2's is %d: they were not trained together", m.Width(), width)
		}
		return nn.LoadStateDict(module, own)
	})
	if err != nil {
		return nil, fmt.Errorf("ClipCap mapper: %w", err)
	}
	return m, nil
}

// maxLength limits the lengths of a mapper that LoadMapper accepts. GPT-2 has 1,024
// positions.
const maxLength = 4096

func transformerConfigOf(sd *nn.StateDict) (TransformerConfig, error) {
	linear, err := sd.Sizes("linear.weight", 2)
	constant, err2 := sd.Sizes("prefix_const", 2)
	if err := cmp.Or(err, err2); err != nil {
		return TransformerConfig{}, fmt.Errorf("clip_project.%w", err)
	}
	c := TransformerConfig{FeatureWidth: linear[1], Width: constant[1], PrefixLength: constant[0], Heads: Heads}
	if linear[0]%c.Width != 0 || c.Width%c.Heads != 0 {
		return c, fmt.Errorf("clip_project.linear has %d outputs, which do not divide into tokens of width %d with %d heads", linear[0], c.Width, c.Heads)
	}
	c.ClipLength = linear[0] / c.Width
	if c.ClipLength > maxLength || c.PrefixLength > maxLength {
		return c, fmt.Errorf("the mapper has %d tokens for the feature and a prefix of %d; at most %d of each are supported", c.ClipLength, c.PrefixLength, maxLength)
	}
	fc1, err := sd.Sizes("transformer.layers.0.mlp.fc1.weight", 2)
	if err != nil {
		return c, fmt.Errorf("clip_project.%w", err)
	}
	c.Inner = fc1[0]
	for {
		if _, ok := sd.Get(fmt.Sprintf("transformer.layers.%d.norm1.weight", c.Layers)); !ok {
			return c, nil
		}
		c.Layers++
	}
}
