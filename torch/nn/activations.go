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
type ReLUModule struct{ Hook }

// ReLU returns a ReLU module.
func ReLU() *ReLUModule { return &ReLUModule{} }

// Forward returns max(x, 0).
func (m *ReLUModule) Forward(x torch.Tensor) torch.Tensor { return m.Output(x.Relu()) }

// LeakyReLUModule is torch.nn.LeakyReLU.
type LeakyReLUModule struct {
	Hook
	slope float64
}

// LeakyReLU returns a LeakyReLU module. PyTorch's default slope is 0.01.
func LeakyReLU(negativeSlope float64) *LeakyReLUModule { return &LeakyReLUModule{slope: negativeSlope} }

// Forward returns x where it is positive, and x times the slope elsewhere.
func (m *LeakyReLUModule) Forward(x torch.Tensor) torch.Tensor {
	return m.Output(x.LeakyRelu(torch.WithNegativeSlope(m.slope)))
}

// TanhModule is torch.nn.Tanh.
type TanhModule struct{ Hook }

// Tanh returns a Tanh module.
func Tanh() *TanhModule { return &TanhModule{} }

// Forward returns tanh(x).
func (m *TanhModule) Forward(x torch.Tensor) torch.Tensor { return m.Output(x.Tanh()) }

// SigmoidModule is torch.nn.Sigmoid.
type SigmoidModule struct{ Hook }

// Sigmoid returns a Sigmoid module.
func Sigmoid() *SigmoidModule { return &SigmoidModule{} }

// Forward returns 1/(1+exp(-x)).
func (m *SigmoidModule) Forward(x torch.Tensor) torch.Tensor { return m.Output(x.Sigmoid()) }

// SiLUModule is torch.nn.SiLU.
type SiLUModule struct{ Hook }

// SiLU returns a SiLU module.
func SiLU() *SiLUModule { return &SiLUModule{} }

// Forward returns x * sigmoid(x).
func (m *SiLUModule) Forward(x torch.Tensor) torch.Tensor { return m.Output(x.Silu()) }

// GELUModule is torch.nn.GELU.
type GELUModule struct {
	Hook
	approximate string
}

// GELU returns a GELU module. approximate is "none" for the exact function,
// PyTorch's default, or "tanh".
func GELU(approximate string) *GELUModule { return &GELUModule{approximate: approximate} }

// Forward returns x * Φ(x), where Φ is the cumulative distribution function of
// the standard normal distribution, or its tanh approximation.
func (m *GELUModule) Forward(x torch.Tensor) torch.Tensor {
	return m.Output(x.Gelu(torch.WithApproximate(m.approximate)))
}

// DropoutModule is torch.nn.Dropout. It drops elements only if Training is set.
type DropoutModule struct {
	Hook
	Training bool
	p        float64
}

// Dropout returns a Dropout module with probability p. Like all modules it is
// initially in training mode.
func Dropout(p float64) *DropoutModule { return &DropoutModule{Training: true, p: p} }

// Forward zeroes elements with probability p and scales the others by 1/(1-p).
func (m *DropoutModule) Forward(x torch.Tensor) torch.Tensor {
	return m.Output(torch.Dropout(x, m.p, m.Training))
}

// SequentialModule is torch.nn.Sequential: it runs modules one after another.
// Parameters are named by the index of their module: "0.weight", "2.weight", ….
type SequentialModule struct {
	Hook
	Modules []Module
}

// Sequential returns a Sequential module.
func Sequential(modules ...Module) *SequentialModule { return &SequentialModule{Modules: modules} }

// Forward runs x through all modules.
func (m *SequentialModule) Forward(x torch.Tensor) torch.Tensor {
	for _, part := range m.Modules {
		x = part.Forward(x)
	}
	return m.Output(x)
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
