package nn

import (
	"fmt"
	"slices"
	"strings"

	"cyclecap/torch"
)

// StateDict is an ordered list of named tensors: the counterpart of PyTorch's
// state_dict() and the contents of weights files.
type StateDict struct {
	names   []string
	tensors map[string]torch.Tensor
}

// NewStateDict returns an empty StateDict.
func NewStateDict() *StateDict { return &StateDict{tensors: map[string]torch.Tensor{}} }

// Add appends a tensor, or replaces the tensor of the same name.
func (s *StateDict) Add(name string, t torch.Tensor) {
	if _, ok := s.tensors[name]; !ok {
		s.names = append(s.names, name)
	}
	s.tensors[name] = t
}

// Get returns the tensor with the given name.
func (s *StateDict) Get(name string) (torch.Tensor, bool) {
	t, ok := s.tensors[name]
	return t, ok
}

// Delete removes the tensor with the given name, which it does not close.
func (s *StateDict) Delete(name string) {
	delete(s.tensors, name)
	s.names = slices.DeleteFunc(s.names, func(n string) bool { return n == name })
}

// Names returns the names in order.
func (s *StateDict) Names() []string { return slices.Clone(s.names) }

// Len returns the number of tensors.
func (s *StateDict) Len() int { return len(s.names) }

// Close frees all tensors.
func (s *StateDict) Close() {
	for _, t := range s.tensors {
		t.Close()
	}
}

// StateDictOf returns the parameters and buffers of a module. The tensors still
// belong to the module.
func StateDictOf(m any) *StateDict {
	s := NewStateDict()
	walk(m, func(n Named) { s.Add(n.Name, *n.Tensor) })
	return s
}

// MismatchError lists all differences between a state dict and a module.
type MismatchError struct {
	Missing    []string // names in the module but not in the state dict
	Unexpected []string // names in the state dict but not in the module
	WrongShape []WrongShape
}

// WrongShape describes a tensor whose shape differs from the module's.
type WrongShape struct {
	Name      string
	Got, Want []int64
}

func (e *MismatchError) Error() string {
	var b strings.Builder
	b.WriteString("the weights do not match the model")
	list := func(what string, names []string) {
		if len(names) > 0 {
			fmt.Fprintf(&b, "; %d %s: %s", len(names), what, strings.Join(names, ", "))
		}
	}
	list("missing", e.Missing)
	list("unexpected", e.Unexpected)
	if len(e.WrongShape) > 0 {
		fmt.Fprintf(&b, "; %d of a different shape:", len(e.WrongShape))
		for i, w := range e.WrongShape {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, " %s is %v, want %v", w.Name, w.Got, w.Want)
		}
	}
	return b.String()
}

// LoadStateDict assigns the tensors of sd to the fields of a module, without
// copying (like PyTorch's load_state_dict with assign=True), and closes the
// previous tensors. The tensors retain their device, dtype and requires_grad, so
// weights from a file are frozen until SetRequiresGrad is called. Names and
// shapes must match exactly; otherwise the module is unchanged and the error is a
// *MismatchError that lists all differences. A field tagged `optional:"true"` takes its
// tensor, of any shape, from sd, or none if sd does not have it. allowed lists additional
// names that sd may contain. LoadStateDict does not need a scope; tensors that belong to a
// scope are kept.
func LoadStateDict(m any, sd *StateDict, allowed ...string) error {
	var e MismatchError
	own := map[string]bool{}
	walkFields(m, func(n Named) {
		own[n.Name] = true
		t, ok := sd.Get(n.Name)
		if n.optional {
			return
		}
		if !ok {
			e.Missing = append(e.Missing, n.Name)
			return
		}
		if got, want := t.Shape(), n.Tensor.Shape(); !slices.Equal(got, want) {
			e.WrongShape = append(e.WrongShape, WrongShape{n.Name, got, want})
		}
	})
	for _, name := range sd.names {
		if !own[name] && !slices.Contains(allowed, name) {
			e.Unexpected = append(e.Unexpected, name)
		}
	}
	if len(e.Missing)+len(e.Unexpected)+len(e.WrongShape) > 0 {
		return &e
	}
	// sd may contain tensors of the module itself, under the same or other names.
	var old []torch.Tensor
	used := map[torch.Tensor]bool{}
	walkFields(m, func(n Named) {
		t, ok := sd.Get(n.Name)
		old = append(old, *n.Tensor)
		used[t] = true
		if *n.Tensor = t; ok {
			t.Keep()
		}
	})
	for _, t := range old {
		if !used[t] {
			t.Close()
		}
	}
	return nil
}
