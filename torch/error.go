package torch

import (
	"errors"
	"fmt"
	"strings"

	"cyclecap/torch/internal/shim"
)

// Error is what an operator reports: libtorch's message, with the operator
// and the shapes and dtypes of its arguments. Inside a Scope operators panic
// with a *Error, so that nets read like formulas; Scope returns it.
type Error struct {
	Kind Kind
	Op   string // "addmm"
	Args string // "float32[2,3], float32[4,5]"
	Text string
}

// Kind tells errors apart as Python's exception classes do.
type Kind byte

// The kinds of error. Tests match these, since libtorch's texts change from
// one version to the next.
const (
	RuntimeError        Kind = 'R'
	IndexError          Kind = 'I'
	ValueError          Kind = 'V'
	TypeError           Kind = 'T'
	NotImplementedError Kind = 'N'
	OutOfMemoryError    Kind = 'M'
	DistError           Kind = 'D' // of torch/distributed: a process is late or gone
)

func (e *Error) Error() string {
	s := e.Text
	if e.Op != "" {
		s = e.Op + "(" + e.Args + "): " + s
	}
	return s
}

// wrap turns the shim's error into an *Error.
func wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	e := &Error{Kind: RuntimeError, Op: op, Text: err.Error()}
	var s *shim.Error
	if errors.As(err, &s) {
		e.Kind, e.Text = Kind(s.Kind), strings.TrimSpace(s.Text)
	}
	return e
}

func must(op string, err error) {
	if err != nil {
		panic(wrap(op, err))
	}
}

// Throw panics with an *Error of kind ValueError, for Scope to return: the
// way in which nets report an argument that can't be right.
func Throw(op, format string, args ...any) {
	panic(&Error{Kind: ValueError, Op: op, Text: fmt.Sprintf(format, args...)})
}

// catch turns a panic that carries an *Error into *err and lets every other
// panic go on: those are bugs.
func catch(err *error) {
	switch p := recover().(type) {
	case nil:
	case *Error:
		*err = p
	default:
		panic(p)
	}
}
