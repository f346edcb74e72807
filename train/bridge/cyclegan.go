package bridge

import (
	"cyclecap/torch"
	"cyclecap/torch/nn"
)

// cyclegan textualises image features: the generator of the latent CycleGAN turns an
// image feature into a text feature. This is the paper's second column.
var _ = Register(Bridge{
	Name: "cyclegan", Title: "textualised", Paper: "textualised", Decoder: OfTexts, CycleGAN: true,
	Parameters: func(e Env) (n int64) {
		for _, p := range nn.Parameters(e.Generator) {
			n += p.Numel()
		}
		return n
	},
	Fit: func(e Env) (Transform, error) {
		return func(x torch.Tensor) torch.Tensor {
			y := e.Generator.Forward(x)
			if e.Normalized {
				y = e.rescale(y)
			}
			return y
		}, nil
	},
})
