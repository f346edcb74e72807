package bridge

import "cyclecap/torch"

// capdec is CapDec (Nukrai et al. 2022): the decoder learned from text features
// with noise, which covers the gap; it is given the image feature as it is, at
// length 1.
var _ = register(Bridge{
	Name: "capdec", Title: "CapDec noise", Decoder: OfNoisyTexts,
	Fit: func(e Env) (Transform, error) {
		e.Length = 1
		return func(x torch.Tensor) torch.Tensor { return e.rescale(x) }, nil
	},
})
