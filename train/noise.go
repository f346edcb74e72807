package train

import (
	"math"

	"cyclecap/nets/clip"
	"cyclecap/torch"
)

// Noise changes features while a decoder learns from them, as CapDec (Nukrai et al. 2022,
// section 3) and C3 (Zhang, Sui and Yeung-Levy 2024) do.
type Noise struct {
	Variance float64 // of the Gaussian noise in each dimension
	// Mean is subtracted from features of length 1 before noise is added (C3's collapse).
	// It is the mean of all features, scaled to length 1; nil for CapDec.
	Mean []float32
}

// apply scales features [n, width] to length 1, subtracts the mean, adds noise and scales
// the result to length 1: noise_injection in CapDec's train.py, and ClipCocoDataset in
// C3's dataset_coco.py. noise is drawn from the standard normal distribution, and
// undefined in validation; mean is n.Mean [width] on the device of x, if it is not nil.
func (n Noise) apply(x, noise, mean torch.Tensor) torch.Tensor {
	x = clip.Normalize(x)
	if n.Mean == nil && !noise.Defined() {
		return x
	}
	if n.Mean != nil {
		x = x.Sub(mean)
	}
	if noise.Defined() {
		x = x.Add(noise.MulScalar(math.Sqrt(n.Variance)))
	}
	return clip.Normalize(x)
}
