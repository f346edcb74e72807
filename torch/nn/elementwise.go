package nn

import (
	"math"

	"cyclecap/torch"
)

// ReLU6Module is torch.nn.ReLU6.
type ReLU6Module struct {
	Hook
}

// ReLU6 returns a ReLU6 module.
func ReLU6() *ReLU6Module { return &ReLU6Module{} }

// Forward returns x limited to 0 to 6.
func (m *ReLU6Module) Forward(x torch.Tensor) torch.Tensor { return m.Output(x.Relu6()) }

// ELUModule is torch.nn.ELU.
type ELUModule struct {
	Hook
	alpha float64
}

// ELU returns an ELU module. PyTorch's default alpha is 1.
func ELU(alpha float64) *ELUModule { return &ELUModule{alpha: alpha} }

// Forward returns x where it is positive, and alpha * (exp(x) - 1) elsewhere.
func (m *ELUModule) Forward(x torch.Tensor) torch.Tensor {
	return m.Output(x.Elu(torch.WithAlpha(m.alpha)))
}

// CELUModule is torch.nn.CELU.
type CELUModule struct {
	Hook
	alpha float64
}

// CELU returns a CELU module. PyTorch's default alpha is 1.
func CELU(alpha float64) *CELUModule { return &CELUModule{alpha: alpha} }

// Forward returns max(0, x) + min(0, alpha * (exp(x/alpha) - 1)).
func (m *CELUModule) Forward(x torch.Tensor) torch.Tensor {
	return m.Output(x.Celu(torch.WithAlpha(m.alpha)))
}

// SELUModule is torch.nn.SELU.
type SELUModule struct {
	Hook
}

// SELU returns a SELU module.
func SELU() *SELUModule { return &SELUModule{} }

// Forward returns scale * ELU(x), with the constants of self-normalizing networks.
func (m *SELUModule) Forward(x torch.Tensor) torch.Tensor { return m.Output(x.Selu()) }

// GLUModule is torch.nn.GLU.
type GLUModule struct {
	Hook
	dim int64
}

// GLU returns a GLU module. PyTorch's default dimension is -1.
func GLU(dim int64) *GLUModule { return &GLUModule{dim: dim} }

// Forward returns the first half of x along the dimension times the sigmoid of the second.
func (m *GLUModule) Forward(x torch.Tensor) torch.Tensor {
	return m.Output(x.Glu(torch.WithDim(m.dim)))
}

// HardshrinkModule is torch.nn.Hardshrink.
type HardshrinkModule struct {
	Hook
	lambda float64
}

// Hardshrink returns a Hardshrink module. PyTorch's default lambda is 0.5.
func Hardshrink(lambda float64) *HardshrinkModule { return &HardshrinkModule{lambda: lambda} }

// Forward returns x where its magnitude is above lambda, and 0 elsewhere.
func (m *HardshrinkModule) Forward(x torch.Tensor) torch.Tensor {
	return m.Output(x.Hardshrink(torch.WithLambd(m.lambda)))
}

// SoftshrinkModule is torch.nn.Softshrink.
type SoftshrinkModule struct {
	Hook
	lambda float64
}

// Softshrink returns a Softshrink module. PyTorch's default lambda is 0.5.
func Softshrink(lambda float64) *SoftshrinkModule { return &SoftshrinkModule{lambda: lambda} }

// Forward returns x moved by lambda towards 0, and 0 where its magnitude is below lambda.
func (m *SoftshrinkModule) Forward(x torch.Tensor) torch.Tensor {
	return m.Output(x.Softshrink(torch.WithLambd(m.lambda)))
}

// HardswishModule is torch.nn.Hardswish.
type HardswishModule struct {
	Hook
}

// Hardswish returns a Hardswish module.
func Hardswish() *HardswishModule { return &HardswishModule{} }

// Forward returns x * ReLU6(x + 3) / 6.
func (m *HardswishModule) Forward(x torch.Tensor) torch.Tensor { return m.Output(x.Hardswish()) }

// HardsigmoidModule is torch.nn.Hardsigmoid.
type HardsigmoidModule struct {
	Hook
}

// Hardsigmoid returns a Hardsigmoid module.
func Hardsigmoid() *HardsigmoidModule { return &HardsigmoidModule{} }

// Forward returns ReLU6(x + 3) / 6.
func (m *HardsigmoidModule) Forward(x torch.Tensor) torch.Tensor { return m.Output(x.Hardsigmoid()) }

// HardtanhModule is torch.nn.Hardtanh.
type HardtanhModule struct {
	Hook
	minVal float64
	maxVal float64
}

// Hardtanh returns a Hardtanh module. PyTorch's defaults are -1 and 1.
func Hardtanh(minVal, maxVal float64) *HardtanhModule {
	return &HardtanhModule{minVal: minVal, maxVal: maxVal}
}

// Forward returns x limited to minVal to maxVal.
func (m *HardtanhModule) Forward(x torch.Tensor) torch.Tensor {
	return m.Output(x.Hardtanh(torch.WithMinVal(m.minVal), torch.WithMaxVal(m.maxVal)))
}

// SoftplusModule is torch.nn.Softplus.
type SoftplusModule struct {
	Hook
	beta      float64
	threshold float64
}

// Softplus returns a Softplus module. PyTorch's defaults are 1 and 20.
func Softplus(beta, threshold float64) *SoftplusModule {
	return &SoftplusModule{beta: beta, threshold: threshold}
}

// Forward returns log(1 + exp(beta * x)) / beta, and x where beta * x is above the threshold.
func (m *SoftplusModule) Forward(x torch.Tensor) torch.Tensor {
	return m.Output(x.Softplus(torch.WithBeta(m.beta), torch.WithThreshold(m.threshold)))
}

// ThresholdModule is torch.nn.Threshold.
type ThresholdModule struct {
	Hook
	threshold float64
	value     float64
}

// Threshold returns a Threshold module.
func Threshold(threshold, value float64) *ThresholdModule {
	return &ThresholdModule{threshold: threshold, value: value}
}

// Forward returns x where it is above the threshold, and value elsewhere.
func (m *ThresholdModule) Forward(x torch.Tensor) torch.Tensor {
	return m.Output(x.Threshold(m.threshold, m.value))
}

// SoftsignModule is torch.nn.Softsign.
type SoftsignModule struct {
	Hook
}

// Softsign returns a Softsign module.
func Softsign() *SoftsignModule { return &SoftsignModule{} }

// Forward returns x / (1 + |x|).
func (m *SoftsignModule) Forward(x torch.Tensor) torch.Tensor {
	return m.Output(x.Div(x.Abs().AddScalar(1)))
}

// TanhshrinkModule is torch.nn.Tanhshrink.
type TanhshrinkModule struct {
	Hook
}

// Tanhshrink returns a Tanhshrink module.
func Tanhshrink() *TanhshrinkModule { return &TanhshrinkModule{} }

// Forward returns x - tanh(x).
func (m *TanhshrinkModule) Forward(x torch.Tensor) torch.Tensor { return m.Output(x.Sub(x.Tanh())) }

// LogSigmoidModule is torch.nn.LogSigmoid.
type LogSigmoidModule struct {
	Hook
}

// LogSigmoid returns a LogSigmoid module.
func LogSigmoid() *LogSigmoidModule { return &LogSigmoidModule{} }

// Forward returns log(sigmoid(x)).
func (m *LogSigmoidModule) Forward(x torch.Tensor) torch.Tensor { return m.Output(x.LogSigmoid()) }

// MishModule is torch.nn.Mish.
type MishModule struct {
	Hook
}

// Mish returns a Mish module.
func Mish() *MishModule { return &MishModule{} }

// Forward returns x * tanh(softplus(x)).
func (m *MishModule) Forward(x torch.Tensor) torch.Tensor { return m.Output(x.Mish()) }

// SoftmaxModule is torch.nn.Softmax.
type SoftmaxModule struct {
	Hook
	dim int64
}

// Softmax returns a Softmax module.
func Softmax(dim int64) *SoftmaxModule { return &SoftmaxModule{dim: dim} }

// Forward returns the softmax of x along the dimension.
func (m *SoftmaxModule) Forward(x torch.Tensor) torch.Tensor { return m.Output(x.Softmax(m.dim)) }

// LogSoftmaxModule is torch.nn.LogSoftmax.
type LogSoftmaxModule struct {
	Hook
	dim int64
}

// LogSoftmax returns a LogSoftmax module.
func LogSoftmax(dim int64) *LogSoftmaxModule { return &LogSoftmaxModule{dim: dim} }

// Forward returns the logarithm of the softmax of x along the dimension.
func (m *LogSoftmaxModule) Forward(x torch.Tensor) torch.Tensor { return m.Output(x.LogSoftmax(m.dim)) }

// SoftminModule is torch.nn.Softmin.
type SoftminModule struct {
	Hook
	dim int64
}

// Softmin returns a Softmin module.
func Softmin(dim int64) *SoftminModule { return &SoftminModule{dim: dim} }

// Forward returns the softmax of -x along the dimension.
func (m *SoftminModule) Forward(x torch.Tensor) torch.Tensor { return m.Output(x.Neg().Softmax(m.dim)) }

// Softmax2dModule is torch.nn.Softmax2d.
type Softmax2dModule struct{ Hook }

// Softmax2d returns a Softmax2d module.
func Softmax2d() *Softmax2dModule { return &Softmax2dModule{} }

// Forward returns the softmax of x [n, channels, h, w] over the channels; n may be missing.
func (m *Softmax2dModule) Forward(x torch.Tensor) torch.Tensor {
	if x.Dim() != 3 && x.Dim() != 4 {
		torch.Throw("nn.Softmax2d", "expected an input of three or four dimensions, got %v", x.Shape())
	}
	return m.Output(x.Softmax(-3))
}

// PReLUModule is torch.nn.PReLU.
type PReLUModule struct {
	Hook
	Weight torch.Tensor // [n]
}

// PReLU returns a PReLU module of n slopes, which are initially init: one slope for all
// channels, or one for each. PyTorch's defaults are 1 and 0.25.
func PReLU(n int64, init float64) *PReLUModule {
	m := &PReLUModule{Weight: parameter(torch.Empty([]int64{n}))}
	Constant_(m.Weight, init)
	return m
}

// Forward returns x where it is positive, and x times the slope of its channel, which is
// dimension 1, elsewhere.
func (m *PReLUModule) Forward(x torch.Tensor) torch.Tensor { return m.Output(x.Prelu(m.Weight)) }

// Dropout2dModule is torch.nn.Dropout2d. It drops channels only if Training is set.
type Dropout2dModule struct {
	Hook
	Training bool
	p        float64
}

// Dropout2d returns a module that drops whole channels with probability p.
func Dropout2d(p float64) *Dropout2dModule { return &Dropout2dModule{Training: true, p: p} }

// Forward zeroes channels of x [n, channels, h, w] with probability p and scales the others by
// 1/(1-p).
func (m *Dropout2dModule) Forward(x torch.Tensor) torch.Tensor {
	return m.Output(torch.FeatureDropout(x, m.p, m.Training))
}

// RReLUModule is torch.nn.RReLU. Slopes are random only if Training is set.
type RReLUModule struct {
	Hook
	Training     bool
	lower, upper float64
}

// RReLU returns a randomized leaky ReLU. PyTorch's default slopes are between 1/8 and 1/3.
func RReLU(lower, upper float64) *RReLUModule {
	return &RReLUModule{Training: true, lower: lower, upper: upper}
}

// Forward returns x where it is positive, and elsewhere x times a slope: one for each element, drawn between
// lower and upper, or their mean if Training is not set.
func (m *RReLUModule) Forward(x torch.Tensor) torch.Tensor {
	return m.Output(x.Rrelu(torch.WithLower(m.lower), torch.WithUpperBound(m.upper), torch.WithTraining(m.Training)))
}

// AlphaDropoutModule is torch.nn.AlphaDropout. It drops elements only if Training is set.
type AlphaDropoutModule struct {
	Hook
	Training bool
	p        float64
}

// AlphaDropout returns a dropout for networks of SELU: it keeps mean and variance.
func AlphaDropout(p float64) *AlphaDropoutModule { return &AlphaDropoutModule{Training: true, p: p} }

// Forward drops elements of x with probability p.
func (m *AlphaDropoutModule) Forward(x torch.Tensor) torch.Tensor {
	return m.Output(torch.AlphaDropout(x, m.p, m.Training))
}

// BilinearModule is torch.nn.Bilinear.
type BilinearModule struct {
	Hook
	Weight torch.Tensor // [out, in1, in2]
	Bias   torch.Tensor // [out], or none
}

// Bilinear returns a bilinear layer with PyTorch's initialization.
func Bilinear(in1, in2, out int64, bias bool) *BilinearModule {
	m := &BilinearModule{Weight: parameter(torch.Empty([]int64{out, in1, in2}))}
	bound := 1 / math.Sqrt(float64(in1))
	Uniform_(m.Weight, -bound, bound)
	if bias {
		m.Bias = parameter(torch.Empty([]int64{out}))
		Uniform_(m.Bias, -bound, bound)
	}
	return m
}

// Forward maps x [..., in1] and y [..., in2] to [..., out].
func (m *BilinearModule) Forward(x, y torch.Tensor) torch.Tensor {
	return m.Output(torch.Bilinear(x, y, m.Weight, torch.WithBias(m.Bias)))
}
