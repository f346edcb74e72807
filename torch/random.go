package torch

import (
	"runtime"

	"cyclecap/torch/internal/shim"
)

// ManualSeed seeds the default generators of all devices, as
// torch.manual_seed. The same calls after the same seed give PyTorch's bits.
func ManualSeed(seed uint64) { must("manual_seed", shim.ManualSeed(seed)) }

// Generator is a source of random numbers of one device.
type Generator struct {
	ptr    uintptr
	device Device
}

// NewGenerator makes a generator with the default seed (67280421310721).
func NewGenerator(d Device) *Generator {
	p, err := shim.NewGenerator(int(d.Type), d.Index)
	must("generator", err)
	return newGenerator(p, d)
}

// DefaultGenerator is the generator that operators on d use by default.
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

// State gives g's state as bytes, equal to PyTorch's get_state().
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

// SetState sets what State gave.
func (g *Generator) SetState(state []byte) error {
	defer runtime.KeepAlive(g)
	return Scope(func() error {
		return wrap("set_state", shim.SetGeneratorState(g.ptr, FromSlice(state).pointer("set_state")))
	})
}
