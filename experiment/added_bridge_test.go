package experiment

import (
	"cyclecap/torch"
	"cyclecap/train/bridge"
)

// A bridge that is added by this file alone. TestSmall checks that it appears in the
// configuration, the captions and the table.
var _ = bridge.Register(bridge.Bridge{
	Name: "scaled", Title: "scaled by a setting", Decoder: bridge.OfTexts,
	Settings: []bridge.Setting{{Key: "scaled_factor", Default: 1, Range: "[0,10]", Text: "is the factor to multiply features by."}},
	Fit: func(e bridge.Env) (bridge.Transform, error) {
		factor := e.Settings["scaled_factor"]
		return func(x torch.Tensor) torch.Tensor { return x.MulScalar(factor) }, nil
	},
})
