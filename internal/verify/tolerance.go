package verify

import (
	"fmt"
	"math"

	"cyclecap/pipeline"
	"cyclecap/torch"
	"cyclecap/torch/compare"
	"cyclecap/torch/cuda"
)

// here describes this side.
func here(o pipeline.Options) Environment {
	e := Environment{Versions: map[string]string{}, Threads: torch.NumThreads(), Device: "CPU", DeviceType: "cpu", DType: "f32", Packed: o.Packed()}
	e.CPU, _ = compare.Processor()
	if b, err := torch.BuildInfo(); err == nil {
		e.Versions["torch"] = b.Version
	}
	if l, err := torch.FindLibraries(); err == nil && l.Version != "" {
		e.Versions["torch"] = l.Version
	}
	switch {
	case o.BF16:
		e.DType = "bf16"
	case o.Int8:
		e.DType = "int8"
	}
	if o.Device.Type == torch.CUDADevice {
		e.DeviceType = "cuda"
		e.Device = o.Device.String()
		if p, err := cuda.PropertiesOf(o.Device); err == nil {
			e.Device = p.Name
		}
		e.TF32, _ = cuda.TF32Allowed()
	}
	return e
}

// tolerances are the bounds of the rows.
type tolerances struct{ pixels, outputs, gradients compare.Tolerance }

// int8Bound is the tolerance of outputs with weights and inputs of 8 bits. A layer of 768 inputs
// with normal weights has 127 steps for a largest weight of 3.5 deviations, and 255 for inputs
// that span 7: the rounding of each is 0.8 % of their size, and that of their product
// 1.1 %. Residual connections carry what came before it unrounded, so that whole nets are
// off by little more: at most 1.2 % for the models in the program, and 3.5 % for a random
// ViT-B/32 and GPT-2, which the bound doubles.
const int8Bound = 7e-2

// tolerancesOf returns the bounds for a reference of one environment and results of another.
// In f32 they are those of rounding: the order of sums depends on threads, batch size,
// processor and kernel.
func tolerancesOf(ref, here Environment) tolerances {
	t := tolerances{
		pixels:    compare.Tolerance{Why: "rounding", Relative: 1e-6},
		outputs:   compare.Tolerance{Why: "sums in another order", Relative: 1e-5},
		gradients: compare.Tolerance{Why: "sums in another order, amplified by the backward pass", Relative: 1e-4},
	}
	switch {
	case here.DType == "int8":
		t.outputs = compare.Tolerance{Why: "weights and inputs of linear layers have 8 bits", Relative: int8Bound}
	case ref.DType == "bf16" || here.DType == "bf16":
		t.outputs = compare.Tolerance{Why: "bf16 has 8 bits of precision", Relative: 3e-2}
	case ref.DType == "f16":
		t.outputs = compare.Tolerance{Why: "f16 has 11 bits of precision", Relative: 5e-3}
	case ref.TF32 || here.TF32:
		t.outputs = compare.Tolerance{Why: "TF32 has 11 bits of precision", Relative: 1e-2}
	case ref.DeviceType != here.DeviceType:
		t.outputs = compare.Tolerance{Why: "another device: sums in another order", Relative: 1e-4}
		t.gradients = compare.Tolerance{Why: t.outputs.Why, Relative: 1e-3}
	}
	return t
}

// size says how large a difference is.
func size(d compare.Difference) string {
	switch {
	case d.Mismatch != "":
		return d.Mismatch
	case d.Differing == 0:
		return "equal bits"
	case math.IsInf(d.Max, 0):
		return fmt.Sprintf("%d of %d differ, the first at %s", d.Differing, d.Elements, d.First)
	}
	return fmt.Sprintf("max |difference| %.2g, %.2g of the largest", d.Max, d.Relative())
}
