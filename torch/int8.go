package torch

import "cyclecap/torch/internal/shim"

// HasInt8 reports whether the processor has the instructions (AVX-512 VNNI) with which
// [Int8Linear] is fast. Without them, it gives the same bits slowly.
func HasInt8() bool { return shim.Int8Fast() }

// Int8MaxInputs is the largest number of inputs of a layer for which the sums of products of
// 8-bit integers fit into 32 bits.
const Int8MaxInputs = 65536

// Int8Pack makes a weight [out, in] (f32, CPU) 8-bit integers for [Int8Linear]. The weights of
// an output n are round(w / scales[n]), from -127 to 127, with scales[n] = max|w| / 127 (f32
// [out]); halves are rounded to even. packed (int8 [ceil(out/16), ceil(in/4), 16, 4]) has them
// in the order in which the instruction VPDPBUSD reads them, padded with zeros. sums (int32
// [out]) has their sum for each output. At most [Int8MaxInputs] inputs are supported.
//
// An output of zeros has the scale 0. One with a number that is not finite has the scale NaN,
// and so NaN as its result.
//
// A weight that is int8 already, such as one of [Int8Quantize], is packed as it is, and its scales
// are 1.
func Int8Pack(weight Tensor) (packed, scales, sums Tensor) {
	some("int8_pack", weight)
	var p, s, z uintptr
	must("int8_pack", lend("int8_pack", func(w []uintptr) (err error) {
		p, s, z, err = shim.Int8Pack(w[0])
		return err
	}, weight))
	return adopt("int8_pack", p), adopt("int8_pack", s), adopt("int8_pack", z)
}

// Int8Quantize makes a weight [out, in] (f32, CPU) 8-bit integers (int8 [out, in]) with a scale for
// each output (f32 [out]): those of [Int8Pack], in the order of the weight.
func Int8Quantize(weight Tensor) (integers, scales Tensor) {
	packed, scales, sums := Int8Pack(weight)
	sums.Close()
	integers = Tidy(func() Tensor {
		shape := packed.Shape() // blocks of 16 outputs, steps of 4 inputs
		all := packed.Permute([]int64{0, 2, 1, 3}).Reshape([]int64{shape[0] * shape[2], shape[1] * shape[3]})
		return all.Narrow(0, 0, weight.Size(0)).Narrow(1, 0, weight.Size(1)).Contiguous()
	})
	packed.Close()
	return integers, scales
}

// Int8Linear maps x (f32 [..., in], CPU) to [..., out] with the weight that [Int8Pack] has
// packed, and a bias (f32 [out]) or none, and applies an activation. It is for inference only:
// autograd does not support it.
//
// Each row of x is rounded to integers from 0 to 255 on its own, by the usual rule of dynamic
// quantization (torch.ao.quantization's, which has one scale for all rows):
//
//	lo, hi = min(0, min x), max(0, max x)
//	scale  = (hi - lo) / 255
//	zero   = round(-lo / scale)
//	q      = clamp(round(x / scale) + zero, 0, 255)
//	y[n]   = scale scales[n] (sum(q w[n]) - zero sums[n]) + bias[n]
//
// The sums are exact, and the last line is a single f32 multiplication and addition. The bits
// of a row therefore depend neither on the other rows nor on the number of threads nor on the
// processor. A row with a number that is not finite gives NaNs.
func Int8Linear(x, packed, scales, sums, bias Tensor, a Activation) Tensor {
	return int8Linear(x, packed, scales, sums, bias, a, false)
}

// int8Linear is Int8Linear. plain asks for the kernel that processors without the instructions
// run.
func int8Linear(x, packed, scales, sums, bias Tensor, a Activation, plain bool) Tensor {
	some("int8_linear", x, packed, scales, sums)
	var y uintptr
	must("int8_linear", lend("int8_linear", func(p []uintptr) (err error) {
		y, err = shim.Int8Linear(p, int(a), plain)
		return err
	}, x, packed, scales, sums, bias))
	return adopt("int8_linear", y)
}
