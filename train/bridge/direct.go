package bridge

import "cyclecap/torch"

// direct gives the text decoder the image feature as it is: the paper's first
// column.
var _ = Register(Bridge{
	Name: "direct", Title: "direct", Role: Baseline, Paper: "direct", Decoder: OfTexts,
	Fit: func(Env) (Transform, error) {
		return func(x torch.Tensor) torch.Tensor { return x }, nil
	},
})
