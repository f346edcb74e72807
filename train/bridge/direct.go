package bridge

import "cyclecap/torch"

// direct passes the image feature to the text decoder unchanged. This is the paper's
// first column.
var _ = Register(Bridge{
	Name: "direct", Title: "direct", Role: Baseline, Paper: "direct", Decoder: OfTexts,
	Fit: func(Env) (Transform, error) {
		return func(x torch.Tensor) torch.Tensor { return x }, nil
	},
})
