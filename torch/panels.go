package torch

import "cyclecap/torch/internal/shim"

// Activation is what [PanelsLinear] and [Int8Linear] apply to their results before they write
// them to memory.
type Activation int

// The activations, with PyTorch's names. All but ReLU differ from the operators by rounding:
// they are within 8e-7 of the exact result, or within 8e-10 of the input where that is more.
const (
	NoActivation Activation = iota
	ReLU
	SiLU
	GELU      // gelu
	GELUTanh  // gelu(approximate="tanh")
	QuickGELU // OpenAI's: x sigmoid(1.702 x)
)

// HasPanels reports whether the processor has the instructions (AVX-512) for [PanelsLinear].
func HasPanels() bool { return shim.PanelsAble() }

// PanelsPack puts a weight [out, in] (f32, CPU) in the order in which [PanelsLinear] reads it.
// The result is f32 and has ceil(out/16) * 16 * in elements: for every 64 outputs, their
// weights for the first input, then those for the second, and so on.
func PanelsPack(weight Tensor) Tensor {
	some("panels_pack", weight)
	var packed uintptr
	must("panels_pack", lend("panels_pack", func(w []uintptr) (err error) {
		packed, err = shim.PanelsPack(w[0])
		return err
	}, weight))
	return adopt("panels_pack", packed)
}

// PanelsLinear maps x (f32 [..., in], CPU) to [..., out] with the weight that [PanelsPack] has
// packed, and a bias (f32 [out]) or none, and applies an activation. It is for inference only:
// autograd does not support it. [HasPanels] must be true.
//
// The products of an output are added in the order of the inputs, with fused multiplications
// and additions, and sums of 384 products are added up. The bits of a row therefore depend
// neither on the other rows nor on the number of threads.
func PanelsLinear(x, packed Tensor, out int64, bias Tensor, a Activation) Tensor {
	some("panels_linear", x, packed)
	var y uintptr
	must("panels_linear", lend("panels_linear", func(p []uintptr) (err error) {
		y, err = shim.PanelsLinear(p, out, int(a))
		return err
	}, x, packed, bias))
	return adopt("panels_linear", y)
}
