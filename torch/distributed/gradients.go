package distributed

import (
	"fmt"
	"hash/fnv"
	"slices"

	"cyclecap/torch"
	"cyclecap/torch/internal/shim"
)

// The sizes of the messages in which gradients are averaged, those of PyTorch's
// DistributedDataParallel (bucket_cap_mb): a message is full when it has so many
// bytes. The first one is small, so that it leaves early in the backward pass. Few
// large messages are much faster than one for each small parameter.
const (
	FirstBucketBytes = 1 << 20
	BucketBytes      = 25 << 20
)

// AverageGradients replaces the gradients of params with their averages over the
// processes, as PyTorch's DistributedDataParallel does. Call it between Backward
// and the optimizer's Step, in every process, with the same parameters in the
// same order. Parameters that do not require gradients are skipped. A missing
// gradient counts as zero; if no process has the gradient, it remains missing.
//
// The parameters are sent in buckets of one dtype and device, the last ones
// first, and each gradient is divided by the number of processes before the sum.
// With two processes the results are bit-identical to those of
// DistributedDataParallel. With more, the order of the additions depends on the
// position in the message, and the last bit may differ. In all processes the
// bits are the same.
//
// A Reducer does the same while the backward pass goes on.
func AverageGradients(g *Group, params []torch.Tensor) error {
	r, err := newReducer(g, params, false)
	if err != nil {
		return err
	}
	defer r.Close()
	_, _, err = r.FinalizeBackward()
	return err
}

// A Reducer averages the gradients of parameters over the processes of a group as
// AverageGradients does, but sends those of a bucket as soon as the backward pass
// has accumulated them all, as PyTorch's DistributedDataParallel does:
//
//	reducer, err := distributed.NewReducer(group, params)
//	…
//	if err := reducer.PrepareForBackward(); err != nil {
//		return err
//	}
//	loss.Backward()
//	means, _, err := reducer.FinalizeBackward(loss)
//	if err != nil {
//		return err
//	}
//	opt.Step()
//
// The last bucket leaves when FinalizeBackward is called. Between the two calls, each
// parameter may be reached by one backward pass. From the first one on, the group must not
// be used otherwise; neither it nor the Reducer may be closed during one.
type Reducer struct {
	group  *Group
	c      uintptr      // 0 for a group of one process, without parameters and when it is closed
	like   torch.Device // of the parameters
	closed bool
}

// NewReducer returns a Reducer of the gradients of params. All processes must call it with the
// same parameters in the same order. Those that do not require gradients now are
// skipped. A parameter can have only one Reducer. Close frees it; closing the group does, too.
func NewReducer(g *Group, params []torch.Tensor) (*Reducer, error) {
	return newReducer(g, params, true)
}

func newReducer(g *Group, params []torch.Tensor, hooks bool) (*Reducer, error) {
	r := &Reducer{group: g}
	var need []torch.Tensor
	for _, p := range slices.Backward(params) {
		if p.RequiresGrad() {
			need = append(need, p)
		}
	}
	if g.Size() == 1 || len(need) == 0 {
		return r, nil
	}
	if err := torch.Scope(func() error { return g.sameEverywhere(need) }); err != nil {
		return nil, err
	}
	r.like = need[0].Device()
	if r.like.Type == torch.CUDADevice {
		if err := g.decide(); err != nil {
			return nil, fmt.Errorf("distributed: %w", err)
		}
	}
	list := make([]any, len(need))
	for i, p := range need {
		list[i] = p
	}
	err := g.call("reducer", torch.Tensor{}, func(c uintptr) error {
		return shim.Lend("reducer", func(p []uintptr) (err error) {
			r.c, err = shim.NewReducer(c, p, buckets(need), hooks)
			return err
		}, list...)
	})
	if err != nil {
		return nil, err
	}
	g.reducers[r] = true
	return r, nil
}

// buckets returns where each bucket of parameters ends.
func buckets(params []torch.Tensor) (ends []int32) {
	var bytes int64
	for i, p := range params {
		bytes += p.NBytes()
		limit := int64(BucketBytes)
		if len(ends) == 0 {
			limit = FirstBucketBytes
		}
		last := i+1 == len(params)
		if last || bytes >= limit || params[i+1].DType() != p.DType() || params[i+1].Device() != p.Device() {
			ends = append(ends, int32(i+1))
			bytes = 0
		}
	}
	return ends
}

// PrepareForBackward must be called before the backward pass.
func (r *Reducer) PrepareForBackward() error {
	if r.c == 0 {
		return r.open()
	}
	return r.group.call("reducer", torch.Tensor{}, func(uintptr) error { return shim.BeginReducer(r.c) })
}

// open returns an error if the Reducer has been closed.
func (r *Reducer) open() error {
	if r.closed {
		return fmt.Errorf("distributed: the reducer is closed")
	}
	return nil
}

// FinalizeBackward waits until all gradients are averaged. values, scalars on the device of the
// parameters, travel with the last bucket: means are their averages over the processes, in float32.
// stopping is a scalar there that is not 0 if a process has said that it wants to stop (Group.WantStop); it is none
// for a single process. All processes must call it, with as many values.
func (r *Reducer) FinalizeBackward(values ...torch.Tensor) (means []torch.Tensor, stopping torch.Tensor, err error) {
	if r.c == 0 {
		return values, torch.Tensor{}, r.open()
	}
	g := r.group
	torch.NoGrad(func() {
		on := []torch.Option{torch.WithDType(torch.Float32), torch.WithDevice(r.like)}
		stop := torch.FromSliceOn(r.like, []float32{0}, 1)
		if g.stop {
			stop.Fill_(1)
		}
		parts := []torch.Tensor{stop}
		for _, v := range values {
			parts = append(parts, v.Detach().To(on...).Reshape([]int64{1}))
		}
		all := torch.Cat(parts)
		if err = g.call("all_reduce of gradients", torch.Tensor{}, func(uintptr) error {
			return shim.Lend("all_reduce of gradients", func(p []uintptr) error { return shim.FinishReducer(r.c, p[0]) }, all)
		}); err != nil {
			return
		}
		stopping = all.Select(0, 0)
		average := all.DivScalar(float64(g.size))
		for i := range values {
			means = append(means, average.Select(0, int64(i+1)))
		}
	})
	return means, stopping, err
}

// Close frees the Reducer. A second Close does nothing.
func (r *Reducer) Close() {
	if r.c != 0 {
		g := r.group
		g.mu.Lock()
		defer g.mu.Unlock()
		r.free()
	}
	r.closed = true
}

// free is called with the lock of the group.
func (r *Reducer) free() {
	if r.c != 0 {
		shim.FreeReducer(r.c)
		delete(r.group.reducers, r)
		r.c, r.closed = 0, true
	}
}

// WantStop says whether this process wants to end. The others learn of it with the next gradients
// that they average, so that all can end after the same step; see Reducer.FinalizeBackward.
func (g *Group) WantStop(on bool) {
	if g != nil {
		g.stop = on
	}
}

// sameEverywhere returns an error if the list of parameters differs between the
// processes; messages of different lengths would terminate them inside libtorch.
// A list is compared only the first time.
func (g *Group) sameEverywhere(params []torch.Tensor) error {
	h := fnv.New64a()
	var elements int64
	for _, p := range params {
		fmt.Fprintln(h, p.DType(), p.Shape())
		elements += p.Numel()
	}
	sum := h.Sum64()
	if g.alike[sum] {
		return nil
	}
	all, err := g.AllGather(torch.FromSlice([]int64{int64(sum), int64(len(params)), elements}))
	if err != nil {
		return err
	}
	for rank, t := range all {
		if their := torch.ToSlice[int64](t); uint64(their[0]) != sum {
			return fmt.Errorf("distributed: the parameters differ between processes: rank %d has %d (%d elements), rank %d has %d (%d elements); every process must build the same network",
				g.rank, len(params), elements, rank, their[1], their[2])
		}
	}
	g.alike[sum] = true
	return nil
}
