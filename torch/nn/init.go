package nn

import (
	"math"

	"cyclecap/torch"
)

// The functions here are those of torch.nn.init: they fill a parameter in
// place, unrecorded, with the same arithmetic in double precision and the same
// draws from the generator as PyTorch, so that a seed gives the same bits.

// KaimingUniform_ is kaiming_uniform_(t, a) for a leaky ReLU of negative slope
// a, by the fan in: what Linear and Conv2d start from, with a = sqrt(5).
func KaimingUniform_(t torch.Tensor, a float64) {
	if t.Numel() == 0 {
		return
	}
	in, _ := fans("nn.KaimingUniform_", t)
	gain := math.Sqrt(2.0 / (1 + a*a))
	std := gain / math.Sqrt(float64(in))
	bound := math.Sqrt(3.0) * std // the order of PyTorch's own arithmetic
	Uniform_(t, -bound, bound)
}

// KaimingNormal_ is kaiming_normal_(t, a), by the fan in.
func KaimingNormal_(t torch.Tensor, a float64) {
	if t.Numel() == 0 {
		return
	}
	in, _ := fans("nn.KaimingNormal_", t)
	gain := math.Sqrt(2.0 / (1 + a*a))
	Normal_(t, 0, gain/math.Sqrt(float64(in)))
}

// XavierUniform_ is xavier_uniform_(t).
func XavierUniform_(t torch.Tensor) {
	in, out := fans("nn.XavierUniform_", t)
	std := math.Sqrt(2.0 / float64(in+out))
	bound := math.Sqrt(3.0) * std
	Uniform_(t, -bound, bound)
}

// XavierNormal_ is xavier_normal_(t).
func XavierNormal_(t torch.Tensor) {
	in, out := fans("nn.XavierNormal_", t)
	Normal_(t, 0, math.Sqrt(2.0/float64(in+out)))
}

// Uniform_ draws from [from, to).
func Uniform_(t torch.Tensor, from, to float64) {
	torch.NoGrad(func() { t.Uniform_(torch.WithFrom(from), torch.WithTo(to)) })
}

// Normal_ draws from the normal distribution.
func Normal_(t torch.Tensor, mean, std float64) {
	torch.NoGrad(func() { t.Normal_(torch.WithMean(mean), torch.WithStd(std)) })
}

// Constant_ sets every element.
func Constant_(t torch.Tensor, v float64) {
	torch.NoGrad(func() { t.Fill_(v) })
}

// fans counts the inputs and outputs of one unit of a weight [out, in, ...].
func fans(op string, t torch.Tensor) (in, out int64) {
	s := t.Shape()
	if len(s) < 2 {
		torch.Throw(op, "a weight [out, in, ...] is needed, not one of shape %v", s)
	}
	in, out = s[1], s[0]
	for _, k := range s[2:] {
		in, out = in*k, out*k
	}
	return in, out
}

// uniformFanIn_ is how Linear and Conv2d draw their bias.
func uniformFanIn_(t torch.Tensor, in int64) {
	bound := 0.0
	if in > 0 {
		bound = 1 / math.Sqrt(float64(in))
	}
	Uniform_(t, -bound, bound)
}
