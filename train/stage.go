package train

import (
	"fmt"

	"cyclecap/torch"
	"cyclecap/torch/cuda"
)

// A stage is a part of a step that only launches operators: it neither reads from the
// device nor depends on anything that changes from step to step except the contents of
// tensors at fixed addresses. On CUDA a stage is recorded as a graph after a few steps;
// from then on one launch replaces hundreds, which take the host longer than the device
// takes to run them. The graph runs the same kernels, so results have the same bits.
type stage struct {
	device torch.Device
	record bool // record a graph after some steps
	steps  int  // number of steps before the recording
	graph  recording
	in     []torch.Tensor // the graph's inputs, whose contents are replaced in each step
	out    []torch.Tensor // the graph's results
}

// recording is a recorded stage: a *cuda.Graph.
type recording interface {
	Replay() error
	Close()
}

// record records the work that f launches, without running it. Tests replace it.
var record = func(d torch.Device, f func()) (recording, error) {
	// The goroutine may have moved to an OS thread that has no handle of cuBLAS yet, and
	// none can be created during a recording.
	x := torch.Zeros([]int64{1, 1}, torch.WithDevice(d))
	x.MM(x).Close()
	g, err := cuda.Capture(d, f)
	if err != nil {
		return nil, fmt.Errorf("cannot record a training step as a CUDA graph: %w", err)
	}
	return g, nil
}

// warmUp is the number of steps before a recording. They initialise what must not be
// initialised during one, such as the handles of cuBLAS; PyTorch's documentation asks for
// a few.
const warmUp = 3

// run runs f, whose results must be detached, on tensors in. Apart from them, f may use
// only tensors at fixed addresses: weights, pools, and the results of a stage that is
// recorded in the same step as this one or before. Once recorded, results are valid until
// the next run, and so are gradients: they must not be cleared.
func (s *stage) run(f func(in []torch.Tensor) []torch.Tensor, in ...torch.Tensor) ([]torch.Tensor, error) {
	if !s.record || s.steps < warmUp {
		s.steps++
		return tidy(f, in), nil
	}
	if s.graph == nil {
		for _, t := range in {
			s.in = append(s.in, t.Clone().Keep())
		}
		var err error
		s.graph, err = record(s.device, func() {
			s.out = tidy(f, s.in)
			for _, t := range s.out {
				t.Keep()
			}
		})
		if err != nil {
			return nil, err
		}
	} else {
		for i, t := range in {
			s.in[i].Copy_(t)
		}
	}
	return s.out, s.graph.Replay()
}

// tidy runs f and frees everything that it creates except its results. Nothing that refers
// to autograd's graph may be left when a step is recorded: its nodes remember the stream
// that they were created on, and the stream of the recording is another one.
func tidy(f func(in []torch.Tensor) []torch.Tensor, in []torch.Tensor) (out []torch.Tensor) {
	torch.Tidy(func() torch.Tensor {
		out = f(in)
		for _, t := range out {
			t.Return()
		}
		return torch.Tensor{}
	})
	return out
}

func (s *stage) close() {
	if s.graph != nil {
		s.graph.Close()
		s.graph = nil
	}
	for _, t := range append(s.out, s.in...) {
		t.Close()
	}
}
