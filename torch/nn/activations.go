package nn

import (
	"reflect"

	"cyclecap/torch"
)

// Module is a module with one input and one output.
type Module interface {
	Forward(x torch.Tensor) torch.Tensor
}

// ReLUModule is torch.nn.ReLU.
type ReLUModule struct{}

// ReLU returns a ReLU module.
func ReLU() *ReLUModule { return &ReLUModule{} }

// Forward returns max(x, 0).
func (*ReLUModule) Forward(x torch.Tensor) torch.Tensor { return x.Relu() }

// LeakyReLUModule is torch.nn.LeakyReLU.
type LeakyReLUModule struct{ slope float64 }

// LeakyReLU returns a LeakyReLU module. PyTorch's default slope is 0.01.
func LeakyReLU(negativeSlope float64) *LeakyReLUModule { return &LeakyReLUModule{negativeSlope} }

// Forward returns x where it is positive, and x times the slope elsewhere.
func (m *LeakyReLUModule) Forward(x torch.Tensor) torch.Tensor {
	return x.LeakyRelu(torch.WithNegativeSlope(m.slope))
}

// TanhModule is torch.nn.Tanh.
type TanhModule struct{}

// Tanh returns a Tanh module.
func Tanh() *TanhModule { return &TanhModule{} }

// Forward returns tanh(x).
func (*TanhModule) Forward(x torch.Tensor) torch.Tensor { return x.Tanh() }

// SigmoidModule is torch.nn.Sigmoid.
type SigmoidModule struct{}

// Sigmoid returns a Sigmoid module.
func Sigmoid() *SigmoidModule { return &SigmoidModule{} }

// Forward returns 1/(1+exp(-x)).
func (*SigmoidModule) Forward(x torch.Tensor) torch.Tensor { return x.Sigmoid() }

// SiLUModule is torch.nn.SiLU.
type SiLUModule struct{}

// SiLU returns a SiLU module.
func SiLU() *SiLUModule { return &SiLUModule{} }

// Forward returns x * sigmoid(x).
func (*SiLUModule) Forward(x torch.Tensor) torch.Tensor { return x.Silu() }

// GELUModule is torch.nn.GELU.
type GELUModule struct{ approximate string }

// GELU returns a GELU module. approximate is "none" for the exact function,
// PyTorch's default, or "tanh".
func GELU(approximate string) *GELUModule { return &GELUModule{approximate} }

// Forward returns x * Φ(x), where Φ is the cumulative distribution function of
// the standard normal distribution, or its tanh approximation.
func (m *GELUModule) Forward(x torch.Tensor) torch.Tensor {
	return x.Gelu(torch.WithApproximate(m.approximate))
}

// DropoutModule is torch.nn.Dropout. It drops elements only if Training is set.
type DropoutModule struct {
	Training bool
	p        float64
}

// Dropout returns a Dropout module with probability p. Like all modules it is
// initially in training mode.
func Dropout(p float64) *DropoutModule { return &DropoutModule{Training: true, p: p} }

// Forward zeroes elements with probability p and scales the others by 1/(1-p).
func (m *DropoutModule) Forward(x torch.Tensor) torch.Tensor {
	return torch.Dropout(x, m.p, m.Training)
}

// SequentialModule is torch.nn.Sequential: it runs modules one after another.
// Parameters are named by the index of their module: "0.weight", "2.weight", ….
type SequentialModule struct{ Modules []Module }

// Sequential returns a Sequential module.
func Sequential(modules ...Module) *SequentialModule { return &SequentialModule{modules} }

// Forward runs x through all modules.
func (m *SequentialModule) Forward(x torch.Tensor) torch.Tensor {
	for _, part := range m.Modules {
		x = part.Forward(x)
	}
	return x
}

// SetTraining is module.train(on): it sets the Training field of every module in
// m that has one. Modules are initially in training mode.
func SetTraining(m any, on bool) { setTraining(reflect.ValueOf(m), on) }

func setTraining(v reflect.Value, on bool) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			setTraining(v.Elem(), on)
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			setTraining(v.Index(i), on)
		}
	case reflect.Struct:
		if v.Type() == tensorType {
			return
		}
		for i := range v.NumField() {
			f := v.Type().Field(i)
			switch {
			case !f.IsExported() && !f.Anonymous:
			case f.Name == "Training" && f.Type.Kind() == reflect.Bool && v.Field(i).CanSet():
				v.Field(i).SetBool(on)
			default:
				setTraining(v.Field(i), on)
			}
		}
	}
}
