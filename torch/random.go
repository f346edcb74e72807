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

// ManualSeed seeds g and returns it.
func (g *Generator) ManualSeed(seed uint64) *Generator {
	must("manual_seed", shim.SeedGenerator(g.ptr, seed))
	runtime.KeepAlive(g)
	return g
}

// State returns g's state as bytes, the same bytes as PyTorch's get_state().
func (g *Generator) State() []byte {
	var out []byte
	err := Scope(func() error {
		p, err := shim.GeneratorState(g.ptr)
		must("get_state", err)
		out = ToSlice[uint8](adopt("get_state", p))
		return nil
	})
	runtime.KeepAlive(g)
	if err != nil {
		panic(err)
	}
	return out
}

// SetState sets g's state to one returned by State.
func (g *Generator) SetState(state []byte) error {
	defer runtime.KeepAlive(g)
	return Scope(func() error {
		return wrap("set_state", shim.SetGeneratorState(g.ptr, FromSlice(state).pointer("set_state")))
	})
}
