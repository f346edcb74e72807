package nn

import (
	"math"

	"cyclecap/torch"
)

// The functions in this file are those of torch.nn.init. They fill a parameter in
// place, without recording for autograd. The arithmetic, in double precision, and
// the order of random numbers match PyTorch, so that the same seed gives
// bit-identical results.

// KaimingUniform_ is kaiming_uniform_(t, a): mode "fan_in" for a leaky ReLU with
// negative slope a. Linear and Conv2d use it with a = sqrt(5).
func KaimingUniform_(t torch.Tensor, a float64) {
	if t.Numel() == 0 {
		return
	}
	in, _ := fans("nn.KaimingUniform_", t)
	gain := math.Sqrt(2.0 / (1 + a*a))
	std := gain / math.Sqrt(float64(in))
	bound := math.Sqrt(3.0) * std // in the same order as PyTorch
	Uniform_(t, -bound, bound)
}

// KaimingNormal_ is kaiming_normal_(t, a): mode "fan_in" for a leaky ReLU with
// negative slope a.
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

// Uniform_ fills t with random numbers from the uniform distribution on [from,
// to).
func Uniform_(t torch.Tensor, from, to float64) {
	torch.NoGrad(func() { t.Uniform_(torch.WithFrom(from), torch.WithTo(to)) })
}

// Normal_ fills t with random numbers from a normal distribution.
func Normal_(t torch.Tensor, mean, std float64) {
	torch.NoGrad(func() { t.Normal_(torch.WithMean(mean), torch.WithStd(std)) })
}

// Constant_ fills t with v.
func Constant_(t torch.Tensor, v float64) {
	torch.NoGrad(func() { t.Fill_(v) })
}

// fans returns the fan-in and fan-out of a weight [out, in, ...].
func fans(op string, t torch.Tensor) (in, out int64) {
	s := t.Shape()
	if len(s) < 2 {
		torch.Throw(op, "expected a weight of shape [out, in, ...], got %v", s)
	}
	in, out = s[1], s[0]
	for _, k := range s[2:] {
		in, out = in*k, out*k
	}
	return in, out
}

// uniformFanIn_ initializes a bias as Linear and Conv2d do.
func uniformFanIn_(t torch.Tensor, in int64) {
	bound := 0.0
	if in > 0 {
		bound = 1 / math.Sqrt(float64(in))
	}
	Uniform_(t, -bound, bound)
}
