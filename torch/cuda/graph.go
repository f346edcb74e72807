package cuda

import (
	"cyclecap/torch"
	"cyclecap/torch/internal/shim"
)

// A Graph is recorded work of a device, torch.cuda.CUDAGraph: launching it takes
// the host a few microseconds, however many operators it contains.
//
// A graph computes with the same memory each time: it reads the tensors that it read
// when it was recorded, whose contents the caller changes in between (Copy_), and
// leaves its results in the tensors that were its results then. These tensors must
// not be freed before the graph is.
type Graph struct{ p uintptr }

// Capture records the work that f launches on d, without running it. It must be
// called in a torch.Scope. f must not read from the device (Item, ToSlice, a copy to
// the CPU): that is an error, and so is an operator that allocates memory outside
// libtorch's allocator for the first time, so run f once before.
func Capture(d torch.Device, f func()) (_ *Graph, err error) {
	if err := check("cuda.capture", d); err != nil {
		return nil, err
	}
	p, err := shim.GraphBegin(d.Index)
	if err != nil {
		return nil, wrap("cuda.capture", err)
	}
	recording := true
	defer func() {
		if recording { // f panicked: leave the recording mode, with f's panic
			if shim.GraphEnd(p) == nil {
				shim.GraphFree(p)
			}
		}
	}()
	f()
	recording = false
	if err := shim.GraphEnd(p); err != nil {
		return nil, wrap("cuda.capture", err)
	}
	return &Graph{p}, nil
}

// Replay launches the graph on the current stream. It does not wait for it.
func (g *Graph) Replay() error { return wrap("cuda.replay", shim.GraphReplay(g.p)) }

// Close frees the graph and its memory. Nothing may be running from it.
func (g *Graph) Close() {
	if g != nil && g.p != 0 {
		shim.GraphFree(g.p)
		g.p = 0
	}
}
