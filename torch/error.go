package torch

import (
	"errors"
	"fmt"
	"strings"

	"cyclecap/torch/internal/shim"
)

// Error is the error of an operator: libtorch's message, with the operator and
// the shapes and dtypes of its arguments. Operators panic with an *Error, so
// that networks read like formulas, and Scope returns it.
type Error struct {
	Kind Kind
	Op   string // "addmm"
	Args string // "float32[2,3], float32[4,5]"
	Text string
}

// Kind is the kind of an error: Python's exception class.
type Kind byte

// The kinds of error. Match these rather than messages, because libtorch's
// messages change between versions.
const (
	RuntimeError        Kind = 'R'
	IndexError          Kind = 'I'
	ValueError          Kind = 'V'
	TypeError           Kind = 'T'
	NotImplementedError Kind = 'N'
	OutOfMemoryError    Kind = 'M'
	DistError           Kind = 'D' // in torch/distributed: a process is late or has ended
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
	if e := (*Error)(nil); errors.As(err, &e) {
		return e
	}
	e := &Error{Kind: RuntimeError, Op: op, Text: err.Error()}
	var s *shim.Error
	if errors.As(err, &s) {
		e.Kind, e.Text = Kind(s.Kind), brief(strings.TrimSpace(s.Text))
	}
	return e
}

// brief shortens libtorch's message for an operator without a kernel for a device, which goes on with a table of all
// kernels and where in libtorch they are. For CUDA it says why there is none, if there are no devices.
func brief(text string) string {
	first, _, found := strings.Cut(text, ". This could be because the operator doesn't exist for this backend")
	if !found {
		return text
	}
	if strings.HasSuffix(first, "from the 'CUDA' backend") {
		if n, err := CUDADevices(); n == 0 && err != nil {
			return first + ": " + err.Error()
		}
	}
	return first + ": libtorch has no such kernel"
}

func must(op string, err error) {
	if err != nil {
		panic(wrap(op, err))
	}
}

// Throw panics with an *Error of kind ValueError, which the enclosing Scope
// returns. Networks use it to report an invalid argument.
func Throw(op, format string, args ...any) {
	panic(&Error{Kind: ValueError, Op: op, Text: fmt.Sprintf(format, args...)})
}

// catch recovers a panic with an *Error and sets *err to it. Every other panic
// is a bug and continues.
func catch(err *error) {
	switch p := recover().(type) {
	case nil:
	case *Error:
		*err = p
	default:
		panic(p)
	}
}
