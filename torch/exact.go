package torch

import (
	"time"

	"cyclecap/torch/internal/shim"
)

// ExactLinear is [Linear] with a weight [out, in] and a bias or none, or, if transposed is set,
// bias.Addmm(x, weight) with a weight [in, out] and an x with any number of dimensions before in.
// It has the bits of these operators.
//
// packed is what [PanelsPack] makes of the weight [out, in], or none. With it, y is computed as
// [PanelsLinear] does, but in the order in which MKL adds up, if that order is known for the
// shape and the number of threads, and takes less time. lost is the time that packed would have
// saved if it had been given, and 0 if nothing is known of it.
//
// The order is found in one of the first calls of a shape: candidates are compared with MKL, bit
// by bit, on random inputs. That call takes about ten times as long as others. Where gradients
// are needed, PyTorch's operators compute.
func ExactLinear(x, weight, bias, packed Tensor, transposed bool) (y Tensor, lost time.Duration) {
	y, ns := exactLinear(x, weight, bias, packed, transposed, false)
	return y, time.Duration(max(ns, 0))
}

// exactLinear is ExactLinear. eager finds the order in the first call, and computes from packed
// even if it takes more time. lost, in nanoseconds, is -1 where packed was used.
func exactLinear(x, weight, bias, packed Tensor, transposed, eager bool) (y Tensor, lost int64) {
	some("exact_linear", x, weight)
	var p uintptr
	must("exact_linear", lend("exact_linear", func(t []uintptr) (err error) {
		p, lost, err = shim.ExactLinear(t, transposed, eager)
		return err
	}, x, weight, bias, packed))
	return adopt("exact_linear", p), lost
}
