package bridge

import "cyclecap/torch"

// capdec is CapDec (Nukrai et al. 2022): the decoder is trained on text features with
// added noise, which covers the gap. Its input is the image feature, scaled to length 1.
var _ = Register(Bridge{
	Name: "capdec", Title: "CapDec noise",
	Decoder: Decoder{Name: "noisy-texts", Noise: "capdec_variance"},
	Settings: []Setting{{Key: "capdec_variance", Default: 0.016, Range: "[0,100]", Source: "CapDec",
		Text: "is the variance of the Gaussian noise that CapDec adds to text features of length 1."}},
	Fit: func(e Env) (Transform, error) {
		e.Length = 1
		return func(x torch.Tensor) torch.Tensor { return e.rescale(x) }, nil
	},
})
