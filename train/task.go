package train

import (
	"fmt"
	"math"
	"slices"

	"cyclecap/torch"
)

// A Task can be trained step by step. Everything that a step depends on is either in Parts
// or follows from the step's number, so that an interrupted and resumed training ends bit
// for bit like an uninterrupted one.
type Task interface {
	// Step runs a step, counted from 0, in a scope and returns its losses, for which
	// it waits.
	Step(step int) (Losses, error)
	// Queue is Step without waiting for the device.
	Queue(step int) (Pending, error)
	// Parts returns the contents of a checkpoint.
	Parts() Parts
	// Batch describes the batch of a step, for error messages.
	Batch(step int) string
}

// A Validator is a Task with a loss on validation data, of which lower is better. Validate
// runs in a scope without gradients.
type Validator interface{ Validate() (float64, error) }

// Losses are the named values of a step, in the order in which to show them. Progress bars
// show the first.
type Losses []Loss

// Loss is one of Losses.
type Loss struct {
	Name  string
	Value float64
}

// Get returns the value with a name, or NaN if there is none.
func (l Losses) Get(name string) float64 {
	for _, x := range l {
		if x.Name == name {
			return x.Value
		}
	}
	return math.NaN()
}

// Pending is the losses of a step that the device may not have computed yet.
type Pending struct {
	values torch.Tensor // [k] on the device
	// losses returns the losses, given the k values.
	losses func(values []float64) Losses
	// stops says that one more value is not 0 if a process of the group wants to stop.
	stops bool
}

// pending returns Pending with the values of scalars on a device. The caller owns the
// tensor, which does not keep the graph of autograd alive.
func pending(scalars []torch.Tensor, losses func(values []float64) Losses) Pending {
	p := Pending{losses: losses}
	torch.NoGrad(func() { p.values = torch.Stack(scalars) })
	return p
}

// reduced is pending for the results of distributed.Reducer.FinalizeBackward.
func reduced(means []torch.Tensor, stopping torch.Tensor, losses func(values []float64) Losses) Pending {
	if !stopping.Defined() {
		return pending(means, losses)
	}
	p := pending(append(slices.Clip(means), stopping), losses)
	p.stops = true
	return p
}

// read waits for the losses of steps and copies them to the host all at once. stop says whether a
// process of the group wanted to stop in one of the steps.
func read(steps []Pending) (out []Losses, stop bool) {
	var all []torch.Tensor
	for _, p := range steps {
		all = append(all, p.values)
	}
	values := all[0]
	if len(all) > 1 {
		values = torch.Cat(all)
	}
	flat := make([]float64, values.Numel())
	if values.Device() != torch.Meta {
		flat = torch.ToSlice[float64](values)
	}
	for _, p := range steps {
		own := flat[:p.values.Numel()]
		flat = flat[len(own):]
		if p.stops {
			last := len(own) - 1
			stop = stop || own[last] != 0
			own = own[:last]
		}
		out = append(out, p.losses(own))
	}
	return out, stop
}

// wait is Step, given the result of Queue.
func wait(p Pending, err error) (Losses, error) {
	if err != nil {
		return nil, err
	}
	l, _ := read([]Pending{p})
	return l[0], nil
}

// autocast runs f, with autocast to bf16 if on is true.
func autocast(on bool, d torch.Device, f func()) {
	if on {
		if d.Type != torch.CUDADevice && torch.FlashSDPEnabled() {
			// The backward pass of the CPU's flash attention in bf16 takes nearly half of a step
			// of a decoder.
			torch.EnableFlashSDP(false)
			defer torch.EnableFlashSDP(true)
		}
		torch.Autocast(d.Type, torch.BFloat16, f)
		return
	}
	f()
}

func item(t torch.Tensor) float64 {
	if t.Device() == torch.Meta {
		return 0
	}
	return t.Item()
}

// listed lists items of a batch for error messages: "photos 3, 5 and 62 more".
func listed(what string, items []int32) string {
	s := what
	for i, v := range items {
		if i == 8 {
			return s + fmt.Sprintf(" and %d more", len(items)-i)
		}
		if i > 0 {
			s += ","
		}
		s += fmt.Sprintf(" %d", v)
	}
	return s
}
