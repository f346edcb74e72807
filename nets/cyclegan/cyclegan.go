// Package cyclegan implements the networks of the paper's latent CycleGAN
// (Table 2): two generators, which map between image and text features, and a
// discriminator for each.
package cyclegan

import (
	"fmt"

	"cyclecap/torch"
	"cyclecap/torch/nn"
)

// Generator maps features of one kind to the other: linear layers of the latent
// width with Tanh between them. The last layer is linear, because features are not
// bounded by 1. Parameter names are those of an nn.Sequential of linear and Tanh
// layers under "model".
type Generator struct {
	Model *nn.SequentialModule
}

// Layers is the paper's number of linear layers in a generator.
const Layers = 4

// NewGenerator returns the paper's generator for features of the given width (512 in
// the paper).
func NewGenerator(width int64) *Generator { return NewGeneratorOf(width, Layers) }

// NewGeneratorOf returns a generator with another number of linear layers.
func NewGeneratorOf(width int64, layers int) *Generator {
	var m []nn.Module
	for i := range layers {
		if i > 0 {
			m = append(m, nn.Tanh())
		}
		m = append(m, nn.Linear(width, width, true))
	}
	return &Generator{Model: nn.Sequential(m...)}
}

// Width returns the width of the features. It is that of the bias too, which stays when
// the weights are packed.
func (g *Generator) Width() int64 { return g.Model.Modules[0].(*nn.LinearModule).Bias.Size(0) }

// Forward maps [n, width] to [n, width].
func (g *Generator) Forward(x torch.Tensor) torch.Tensor { return g.Model.Forward(x) }

// Last returns the name of the last linear layer, such as "model.6".
func (g *Generator) Last() string { return fmt.Sprintf("model.%d", len(g.Model.Modules)-1) }

// Discriminator distinguishes real from generated features: a linear layer from
// width to width/2, LeakyReLU(0.2), and a linear layer to 1. There is no sigmoid,
// because the loss includes it.
type Discriminator struct {
	Model *discriminatorLayers
}

type discriminatorLayers struct {
	L0 *nn.LinearModule `name:"0"`
	L1 *nn.LinearModule `name:"2"`
}

// NewDiscriminator returns a discriminator for features of the given width.
func NewDiscriminator(width int64) *Discriminator {
	return &Discriminator{Model: &discriminatorLayers{nn.Linear(width, width/2, true), nn.Linear(width/2, 1, true)}}
}

// Forward maps [n, width] to [n, 1].
func (d *Discriminator) Forward(x torch.Tensor) torch.Tensor {
	return d.Model.L1.Forward(d.Model.L0.Forward(x).LeakyRelu(torch.WithNegativeSlope(0.2)))
}

// LoadGenerator returns a generator that uses the tensors of sd without copying them.
func LoadGenerator(sd *nn.StateDict) (g *Generator, err error) {
	first, err := sd.Sizes("model.0.weight", 2)
	if err != nil {
		return nil, fmt.Errorf("not a CycleGAN generator: %w", err)
	}
	layers := 1
	for {
		if _, more := sd.Get(fmt.Sprintf("model.%d.weight", 2*layers)); !more {
			break
		}
		layers++
	}
	err = torch.Scope(func() error {
		torch.OnDevice(torch.Meta, func() { g = NewGeneratorOf(first[1], layers) })
		return nn.LoadStateDict(g, sd)
	})
	if err != nil {
		return nil, fmt.Errorf("CycleGAN generator: %w", err)
	}
	return g, nil
}
