package nn

import (
	"fmt"
	"slices"
	"strings"

	"cyclecap/torch"
)

// StateDict is an ordered list of named tensors: what PyTorch's state_dict()
// gives and weight files hold.
type StateDict struct {
	names   []string
	tensors map[string]torch.Tensor
}

// NewStateDict makes an empty list.
func NewStateDict() *StateDict { return &StateDict{tensors: map[string]torch.Tensor{}} }

// Add puts a tensor at the end, or in place of one of the same name.
func (s *StateDict) Add(name string, t torch.Tensor) {
	if _, ok := s.tensors[name]; !ok {
		s.names = append(s.names, name)
	}
	s.tensors[name] = t
}

// Get looks a tensor up.
func (s *StateDict) Get(name string) (torch.Tensor, bool) {
	t, ok := s.tensors[name]
	return t, ok
}

// Names lists the names in order.
func (s *StateDict) Names() []string { return slices.Clone(s.names) }

// Len counts the tensors.
func (s *StateDict) Len() int { return len(s.names) }

// Close frees all tensors.
func (s *StateDict) Close() {
	for _, t := range s.tensors {
		t.Close()
	}
}

// StateDictOf lists the parameters and buffers of a module; the tensors are
// the module's own.
func StateDictOf(m any) *StateDict {
	s := NewStateDict()
	walk(m, func(n Named) { s.Add(n.Name, *n.Tensor) })
	return s
}

// MismatchError lists all that does not fit between weights and a module.
type MismatchError struct {
	Missing    []string // the module has them, the weights don't
	Unexpected []string // the weights have them, the module doesn't
	WrongShape []WrongShape
}

// WrongShape is a tensor of the right name and another shape.
type WrongShape struct {
	Name      string
	Got, Want []int64
}

func (e *MismatchError) Error() string {
	var b strings.Builder
	b.WriteString("the weights do not fit")
	list := func(what string, names []string) {
		if len(names) > 0 {
			fmt.Fprintf(&b, "; %d %s: %s", len(names), what, strings.Join(names, ", "))
		}
	}
	list("missing", e.Missing)
	list("unexpected", e.Unexpected)
	if len(e.WrongShape) > 0 {
		fmt.Fprintf(&b, "; %d of another shape:", len(e.WrongShape))
		for i, w := range e.WrongShape {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, " %s is %v, needed %v", w.Name, w.Got, w.Want)
		}
	}
	return b.String()
}

// LoadStateDict puts the tensors of sd into a module's fields, without a copy
// (PyTorch's load_state_dict with assign=True), and closes those that were
// there. They keep their own device, dtype and requires_grad: weights from a
// file are frozen until SetRequiresGrad. It is strict: unless every name and
// every shape fits, nothing changes and the error is a *MismatchError that
// lists all that doesn't. allowed names what sd may hold beside the module's
// own. It needs no scope; tensors of one are kept.
func LoadStateDict(m any, sd *StateDict, allowed ...string) error {
	var e MismatchError
	own := map[string]bool{}
	walk(m, func(n Named) {
		own[n.Name] = true
		t, ok := sd.Get(n.Name)
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
	// A tensor of sd may be one of the module's own, in its place or another.
	var old []torch.Tensor
	used := map[torch.Tensor]bool{}
	walk(m, func(n Named) {
		t, _ := sd.Get(n.Name)
		old = append(old, *n.Tensor)
		used[t] = true
		*n.Tensor = t.Keep()
	})
	for _, t := range old {
		if !used[t] {
			t.Close()
		}
	}
	return nil
}
