package torch

import (
	"runtime"

	"cyclecap/torch/internal/shim"
)

// ManualSeed seeds the default generators of all devices, as torch.manual_seed
// does. With the same seed and the same calls, results are bit-identical to
// PyTorch's.
func ManualSeed(seed uint64) { must("manual_seed", shim.ManualSeed(seed)) }

// Generator is a random number generator for one device.
type Generator struct {
	ptr    uintptr
	device Device
}

// NewGenerator returns a new generator with the default seed (67280421310721).
func NewGenerator(d Device) *Generator {
	p, err := shim.NewGenerator(int(d.Type), d.Index)
	must("generator", err)
	return newGenerator(p, d)
}

// DefaultGenerator returns the generator that operators on d use by default.
func DefaultGenerator(d Device) *Generator {
	p, err := shim.DefaultGenerator(int(d.Type), d.Index)
	must("default_generator", err)
	return newGenerator(p, d)
}

func newGenerator(p uintptr, d Device) *Generator {
	g := &Generator{ptr: p, device: d}
	runtime.AddCleanup(g, shim.FreeGenerator, p)
	return g
}

// pointer returns g's address for a call, after which g must be kept alive.
func (g *Generator) pointer(op string) (uintptr, *Error) {
	if g == nil || g.ptr == 0 {
		return 0, &Error{Kind: TypeError, Op: op, Text: "expected a generator from NewGenerator or DefaultGenerator, got none"}
	}
	return g.ptr, nil
}

// use calls f with g's address and keeps g alive until f returns.
func (g *Generator) use(op string, f func(p uintptr) error) error {
	p, bad := g.pointer(op)
	if bad != nil {
		return bad
	}
	defer runtime.KeepAlive(g)
	return wrap(op, f(p))
}

// ManualSeed seeds g and returns it.
func (g *Generator) ManualSeed(seed uint64) *Generator {
	must("manual_seed", g.use("manual_seed", func(p uintptr) error { return shim.SeedGenerator(p, seed) }))
	return g
}

// State returns g's state as bytes, the same bytes as PyTorch's get_state().
func (g *Generator) State() []byte {
	var out []byte
	must("get_state", Scope(func() error {
		var t uintptr
		err := g.use("get_state", func(p uintptr) (err error) { t, err = shim.GeneratorState(p); return err })
		if err == nil {
			out = ToSlice[uint8](adopt("get_state", t))
		}
		return err
	}))
	return out
}

// SetState sets g's state to one returned by State.
func (g *Generator) SetState(state []byte) error {
	return Scope(func() error {
		return g.use("set_state", func(p uintptr) error {
			return lend("set_state", func(s []uintptr) error { return shim.SetGeneratorState(p, s[0]) }, FromSlice(state))
		})
	})
}
