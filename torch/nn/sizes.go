package nn

import "fmt"

// MaxSize is the largest size of a dimension that StateDict.Sizes accepts.
const MaxSize = 1 << 24

// Sizes returns the shape of a tensor, which must have so many dimensions, each
// between 1 and MaxSize. A net that infers its own sizes
// from weights takes them from here: a file may contain any shape, also one of
// size 0, by which nothing can be divided.
func (s *StateDict) Sizes(name string, dims int) ([]int64, error) {
	t, ok := s.Get(name)
	if !ok {
		return nil, fmt.Errorf("%s is missing", name)
	}
	shape := t.Shape()
	if len(shape) != dims {
		return nil, fmt.Errorf("%s has %d dimensions, want %d", name, len(shape), dims)
	}
	for _, n := range shape {
		if n < 1 || n > MaxSize {
			return nil, fmt.Errorf("%s has shape %v: each size must be between 1 and %d", name, shape, MaxSize)
		}
	}
	return shape, nil
}
