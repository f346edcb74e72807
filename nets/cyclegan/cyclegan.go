// Package cyclegan has the nets of the paper's latent CycleGAN (Table 2): two
// generators between image and text features, and a discriminator for each.
package cyclegan

import (
	"fmt"

	"cyclecap/torch"
	"cyclecap/torch/nn"
)

// Generator maps features to features of the other kind: dense layers of the
// latent width with Tanh between. The last layer is linear, since features
// are not bounded by 1. Names are those of an nn.Sequential of linear and
// Tanh layers under "model".
type Generator struct {
	Model *generatorLayers
}

type generatorLayers struct {
	L0 *nn.LinearModule `name:"0"`
	L1 *nn.LinearModule `name:"2"`
	L2 *nn.LinearModule `name:"4"`
	L3 *nn.LinearModule `name:"6"`
}

// NewGenerator makes a generator for features of a width (512 in the paper).
func NewGenerator(width int64) *Generator {
	l := func() *nn.LinearModule { return nn.Linear(width, width, true) }
	return &Generator{Model: &generatorLayers{l(), l(), l(), l()}}
}

// Width gives the width of the features.
func (g *Generator) Width() int64 { return g.Model.L0.Weight.Size(1) }

// Forward maps [n, width] to [n, width].
func (g *Generator) Forward(x torch.Tensor) torch.Tensor {
	m := g.Model
	x = m.L0.Forward(x).Tanh()
	x = m.L1.Forward(x).Tanh()
	x = m.L2.Forward(x).Tanh()
	return m.L3.Forward(x)
}

// Discriminator tells real features from generated ones: dense width to half,
// LeakyReLU(0.2), dense to 1, without a sigmoid (the loss has its own).
type Discriminator struct {
	Model *discriminatorLayers
}

type discriminatorLayers struct {
	L0 *nn.LinearModule `name:"0"`
	L1 *nn.LinearModule `name:"2"`
}

// NewDiscriminator makes a discriminator for features of a width.
func NewDiscriminator(width int64) *Discriminator {
	return &Discriminator{Model: &discriminatorLayers{nn.Linear(width, width/2, true), nn.Linear(width/2, 1, true)}}
}

// Forward maps [n, width] to [n, 1].
func (d *Discriminator) Forward(x torch.Tensor) torch.Tensor {
	return d.Model.L1.Forward(d.Model.L0.Forward(x).LeakyRelu(torch.WithNegativeSlope(0.2)))
}

// LoadGenerator makes a generator from weights, without a copy of them.
func LoadGenerator(sd *nn.StateDict) (g *Generator, err error) {
	first, ok := sd.Get("model.0.weight")
	if !ok || first.Dim() != 2 {
		return nil, fmt.Errorf("not a CycleGAN generator: the matrix model.0.weight is missing")
	}
	err = torch.Scope(func() error {
		torch.OnDevice(torch.Meta, func() { g = NewGenerator(first.Size(1)) })
		return nn.LoadStateDict(g, sd)
	})
	if err != nil {
		return nil, fmt.Errorf("CycleGAN generator: %w", err)
	}
	return g, nil
}
