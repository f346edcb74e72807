package nn

import (
	"reflect"

	"cyclecap/torch"
)

// Module is a part of a net with one input and one output.
type Module interface {
	Forward(x torch.Tensor) torch.Tensor
}

// ReLUModule is torch.nn.ReLU.
type ReLUModule struct{}

// ReLU makes a ReLU.
func ReLU() *ReLUModule { return &ReLUModule{} }

// Forward is max(x, 0).
func (*ReLUModule) Forward(x torch.Tensor) torch.Tensor { return x.Relu() }

// LeakyReLUModule is torch.nn.LeakyReLU.
type LeakyReLUModule struct{ slope float64 }

// LeakyReLU makes a leaky ReLU; PyTorch's default slope is 0.01.
func LeakyReLU(negativeSlope float64) *LeakyReLUModule { return &LeakyReLUModule{negativeSlope} }

// Forward is x where it is positive, else slope x.
func (m *LeakyReLUModule) Forward(x torch.Tensor) torch.Tensor {
	return x.LeakyRelu(torch.WithNegativeSlope(m.slope))
}

// TanhModule is torch.nn.Tanh.
type TanhModule struct{}

// Tanh makes a tanh.
func Tanh() *TanhModule { return &TanhModule{} }

// Forward is tanh x.
func (*TanhModule) Forward(x torch.Tensor) torch.Tensor { return x.Tanh() }

// SigmoidModule is torch.nn.Sigmoid.
type SigmoidModule struct{}

// Sigmoid makes a sigmoid.
func Sigmoid() *SigmoidModule { return &SigmoidModule{} }

// Forward is 1/(1+exp(-x)).
func (*SigmoidModule) Forward(x torch.Tensor) torch.Tensor { return x.Sigmoid() }

// SiLUModule is torch.nn.SiLU.
type SiLUModule struct{}

// SiLU makes a SiLU.
func SiLU() *SiLUModule { return &SiLUModule{} }

// Forward is x sigmoid(x).
func (*SiLUModule) Forward(x torch.Tensor) torch.Tensor { return x.Silu() }

// GELUModule is torch.nn.GELU.
type GELUModule struct{ approximate string }

// GELU makes a GELU: exact for "none", PyTorch's default, or "tanh".
func GELU(approximate string) *GELUModule { return &GELUModule{approximate} }

// Forward is x times the normal distribution's share below x.
func (m *GELUModule) Forward(x torch.Tensor) torch.Tensor {
	return x.Gelu(torch.WithApproximate(m.approximate))
}

// DropoutModule is torch.nn.Dropout. It drops only while Training.
type DropoutModule struct {
	Training bool
	p        float64
}

// Dropout makes a dropout of probability p, in training mode as all modules
// are at first.
func Dropout(p float64) *DropoutModule { return &DropoutModule{Training: true, p: p} }

// Forward zeroes elements with probability p and scales the others up.
func (m *DropoutModule) Forward(x torch.Tensor) torch.Tensor {
	return torch.Dropout(x, m.p, m.Training)
}

// SequentialModule runs modules one after the other; their parameters are
// named "0.weight", "2.weight", … by their places.
type SequentialModule struct{ Modules []Module }

// Sequential makes a module of several.
func Sequential(modules ...Module) *SequentialModule { return &SequentialModule{modules} }

// Forward runs x through all modules.
func (m *SequentialModule) Forward(x torch.Tensor) torch.Tensor {
	for _, part := range m.Modules {
		x = part.Forward(x)
	}
	return x
}

// SetTraining is module.train(on): it sets the field Training of every module
// in m that has one. Modules of this package start in training mode.
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
