package optim

import (
	"fmt"
	"slices"

	"cyclecap/torch"
)

// GradScalerOptions configures a GradScaler; the names are PyTorch's.
type GradScalerOptions struct {
	InitScale      float64
	GrowthFactor   float64 // of the scale after GrowthInterval steps without overflow
	BackoffFactor  float64 // of the scale after an overflow
	GrowthInterval int64
}

// GradScalerDefaults returns PyTorch's defaults: 65536, 2, 0.5, 2000.
func GradScalerDefaults() GradScalerOptions {
	return GradScalerOptions{InitScale: 65536, GrowthFactor: 2, BackoffFactor: 0.5, GrowthInterval: 2000}
}

// GradScaler is torch.amp.GradScaler: it scales losses so that gradients in float16 do not vanish, and
// skips steps whose gradients overflow.
//
//	scaler.Scale(loss).Backward()
//	scaler.Unscale(opt) // before clipping; Step does it otherwise
//	optim.ClipGradNorm(params, 1)
//	scaler.Step(opt)
//	scaler.Update()
type GradScaler struct {
	o              GradScalerOptions
	grown          int64        // the first value of tracker
	scale, tracker torch.Tensor // f32 and int32, without dimensions, on the device of the losses
	optimizers     []*scaled
}

// scaled is an optimizer since the last Update.
type scaled struct {
	opt     Optimizer
	found   []torch.Tensor // f32, without dimensions: 1 if a gradient of a device is not finite
	stepped bool
}

const scalerOp = "optim.GradScaler"

// NewGradScaler returns a GradScaler. Close frees it.
func NewGradScaler(o GradScalerOptions) *GradScaler {
	if !(o.GrowthFactor > 1 && o.BackoffFactor < 1) {
		torch.Throw(scalerOp, "GrowthFactor must be above 1, and BackoffFactor below, got %v and %v", o.GrowthFactor, o.BackoffFactor)
	}
	return &GradScaler{o: o}
}

// Scale returns loss times the scale.
func (s *GradScaler) Scale(loss torch.Tensor) torch.Tensor {
	if !s.scale.Defined() {
		on := torch.WithDevice(loss.Device())
		s.scale = torch.Full([]int64{}, s.o.InitScale, torch.WithDType(torch.Float32), on).Keep()
		s.tracker = torch.Full([]int64{}, s.grown, torch.WithDType(torch.Int32), on).Keep()
	}
	return loss.Mul(s.scale.To(torch.WithDevice(loss.Device())))
}

// of returns what is known of an optimizer since the last Update, or nil.
func (s *GradScaler) of(opt Optimizer) *scaled {
	if !s.scale.Defined() {
		torch.Throw(scalerOp, "no loss has been scaled yet")
	}
	if i := slices.IndexFunc(s.optimizers, func(o *scaled) bool { return o.opt == opt }); i >= 0 {
		return s.optimizers[i]
	}
	return nil
}

// Unscale divides the gradients of an optimizer by the scale, in place. It may be called once between
// two calls of Update, and before Step. Gradients in float16 are an error.
func (s *GradScaler) Unscale(opt Optimizer) {
	if s.of(opt) != nil {
		torch.Throw(scalerOp, "Unscale was called before, or after Step, since the last Update")
	}
	own := &scaled{opt: opt}
	torch.NoGrad(func() {
		torch.Tidy(func() torch.Tensor {
			inverse := s.scale.To(torch.WithDType(torch.Float64)).Reciprocal().To(torch.WithDType(torch.Float32))
			found := map[torch.Device]torch.Tensor{}
			for _, g := range groupsOf(opt.Params()) {
				if g.grads[0].DType() == torch.Float16 {
					torch.Throw(scalerOp, "gradients in float16 cannot be unscaled")
				}
				for i, grad := range g.grads {
					if grad.Layout() == torch.SparseCOO {
						g.grads[i] = torch.Call("aten::_values", grad)[0].(torch.Tensor)
					}
				}
				d := g.grads[0].Device()
				if !found[d].Defined() {
					found[d] = torch.Zeros([]int64{}, torch.WithDType(torch.Float32), torch.WithDevice(d)).Keep()
					own.found = append(own.found, found[d])
				}
				torch.AmpForeachNonFiniteCheckAndUnscale_(g.grads, found[d], inverse.To(torch.WithDevice(d)))
			}
			return torch.Tensor{}
		})
	})
	if len(own.found) == 0 {
		torch.Throw(scalerOp, "no parameter of the optimizer has a gradient")
	}
	s.optimizers = append(s.optimizers, own)
}

// Step unscales the gradients, unless Unscale has done so, and calls opt.Step if all are finite. It
// waits for the device. It returns whether it made the step.
func (s *GradScaler) Step(opt Optimizer) bool {
	own := s.of(opt)
	if own == nil {
		s.Unscale(opt)
		own = s.of(opt)
	}
	if own.stepped {
		torch.Throw(scalerOp, "Step was called before since the last Update")
	}
	own.stepped = true
	for _, f := range own.found {
		if f.Item() != 0 {
			return false
		}
	}
	opt.Step()
	return true
}

// Update sets the scale for the next step: smaller after an overflow, and larger after GrowthInterval
// steps without one. Call it after the Steps of all optimizers.
func (s *GradScaler) Update() {
	if len(s.optimizers) == 0 {
		torch.Throw(scalerOp, "Update was called before Step")
	}
	torch.NoGrad(func() {
		torch.Tidy(func() torch.Tensor {
			var sum torch.Tensor
			for _, o := range s.optimizers {
				for _, f := range o.found {
					f = f.To(torch.WithDevice(s.scale.Device()))
					if sum.Defined() {
						f = sum.Add(f)
					}
					sum = f
				}
			}
			s.scale.AmpUpdateScale_(s.tracker, sum, s.o.GrowthFactor, s.o.BackoffFactor, s.o.GrowthInterval)
			return torch.Tensor{}
		})
	})
	s.forget()
}

// Factor returns the scale, for which it waits for the device.
func (s *GradScaler) Factor() float64 {
	if !s.scale.Defined() {
		return s.o.InitScale
	}
	return s.scale.Item()
}

// StateDict returns the state by PyTorch's names: float64 and int64. It waits for the device. Call it after Update.
func (s *GradScaler) StateDict() map[string]any {
	grown := s.grown
	if s.tracker.Defined() {
		grown = torch.ItemOf[int64](s.tracker)
	}
	return map[string]any{
		"scale": s.Factor(), "growth_factor": s.o.GrowthFactor, "backoff_factor": s.o.BackoffFactor,
		"growth_interval": s.o.GrowthInterval, "_growth_tracker": grown,
	}
}

// LoadStateDict restores what StateDict, or PyTorch's state_dict, returned, with the options. A state may have
// been written as JSON, which reads all numbers as float64. If LoadStateDict fails, the scaler is unchanged.
func (s *GradScaler) LoadStateDict(d map[string]any) error {
	o := s.o
	for name, to := range map[string]*float64{"scale": &o.InitScale, "growth_factor": &o.GrowthFactor, "backoff_factor": &o.BackoffFactor} {
		v, ok := d[name].(float64)
		if !ok {
			return fmt.Errorf("optim: the state of a GradScaler has %v as %s, not a number", d[name], name)
		}
		*to = v
	}
	interval, err := integer("a GradScaler", d, "growth_interval")
	if err != nil {
		return err
	}
	grown, err := integer("a GradScaler", d, "_growth_tracker")
	if err != nil {
		return err
	}
	o.GrowthInterval = interval
	s.Close()
	// The next loss says on which device the tensors are.
	*s = GradScaler{o: o, grown: grown}
	return nil
}

// forget frees what is known since the last Update.
func (s *GradScaler) forget() {
	for _, o := range s.optimizers {
		for _, f := range o.found {
			f.Close()
		}
	}
	s.optimizers = nil
}

// Close frees the scaler's tensors.
func (s *GradScaler) Close() {
	s.forget()
	if s.scale.Defined() {
		s.scale.Close()
		s.tracker.Close()
	}
}
