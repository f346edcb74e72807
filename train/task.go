package train

import (
	"fmt"
	"math"

	"cyclecap/torch"
)

// A Task can be trained step by step. Everything that a step depends on is either in Parts
// or follows from the step's number, so that an interrupted and resumed training ends bit
// for bit like an uninterrupted one.
type Task interface {
	// Step runs a step, counted from 0, in a scope and returns its losses.
	Step(step int) (Losses, error)
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

// autocast runs f, with autocast to bf16 if on is true.
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
