package bridge

import "cyclecap/torch"

// cyclegan textualises: the latent CycleGAN's generator turns the image feature
// into a text feature. The paper's second column.
var _ = Register(Bridge{
	Name: "cyclegan", Title: "textualised", Paper: "textualised", Decoder: OfTexts, CycleGAN: true,
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
