package bridge

import "cyclecap/torch"

// clipcap is supervised ClipCap (Mokady et al. 2021): the decoder is trained on the
// features of the captions' own photos. It needs pairs and is the ceiling.
var _ = Register(Bridge{
	Name: "clipcap", Title: "ClipCap", Role: Ceiling, Decoder: OfImages,
	Fit: func(Env) (Transform, error) {
		return func(x torch.Tensor) torch.Tensor { return x }, nil
	},
})
