package train

import (
	"fmt"
	"math"

	"cyclecap/torch"
)

// A Task is something that can be trained step by step. Everything that the
// next step depends on is either in Parts or follows from the step's number, so
// that training that was interrupted ends with the same bits.
type Task interface {
	// Step does step number step, counted from 0, in a scope, and gives its
	// losses.
	Step(step int) (Losses, error)
	// Parts lists what a checkpoint holds.
	Parts() Parts
	// Batch describes a step's batch for people, for when it goes wrong.
	Batch(step int) string
}

// A Validator is a Task with a loss on held-out data, less being better. It
// runs in a scope without gradients.
type Validator interface{ Validate() (float64, error) }

// Losses are named numbers of a step, in the order in which people read them.
// The first is the one that a progress bar shows.
type Losses []Loss

// Loss is one of Losses.
type Loss struct {
	Name  string
	Value float64
}

// Get gives a loss by name, NaN where there is none.
func (l Losses) Get(name string) float64 {
	for _, x := range l {
		if x.Name == name {
			return x.Value
		}
	}
	return math.NaN()
}

// autocast runs f, in bf16 where on.
func autocast(on bool, d torch.Device, f func()) {
	if on {
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

// listed names items of a batch for people.
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
