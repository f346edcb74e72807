package distributed

import (
	"fmt"
	"hash/fnv"
	"slices"

	"cyclecap/torch"
)

// BucketBytes is the maximum size of a bucket, the gradients that
// AverageGradients sends in one message. It is the default of PyTorch's
// DistributedDataParallel (bucket_cap_mb): few large messages are much faster
// than one for each small parameter.
const BucketBytes = 25 << 20

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
// position in the message, and the last bit may differ.
func AverageGradients(g *Group, params []torch.Tensor) error {
	if g.Size() == 1 {
		return nil
	}
	return torch.Scope(func() (err error) {
		var need []torch.Tensor
		for _, p := range slices.Backward(params) {
			if p.RequiresGrad() {
				need = append(need, p)
			}
		}
		torch.NoGrad(func() {
			if err = g.sameEverywhere(need); err != nil {
				return
			}
			for len(need) > 0 && err == nil {
				n, bytes := 1, need[0].NBytes()
				for n < len(need) && need[n].DType() == need[0].DType() && need[n].Device() == need[0].Device() && bytes+need[n].NBytes() <= BucketBytes {
					bytes += need[n].NBytes()
					n++
				}
				bucket := need[:n]
				err = torch.Scope(func() error { return g.average(bucket) })
				need = need[n:]
			}
		})
		return err
	})
}

// average averages the gradients of one bucket. The message consists of the
// gradients, followed by a 1 or 0 for each: whether this process has it.
func (g *Group) average(params []torch.Tensor) error {
	like := []torch.Option{torch.WithDType(params[0].DType()), torch.WithDevice(params[0].Device())}
	parts := make([]torch.Tensor, len(params)+1)
	here := make([]float32, len(params))
	var total int64
	for i, p := range params {
		total += p.Numel()
		if grad := p.Grad(); grad.Defined() {
			parts[i], here[i] = grad.Reshape([]int64{-1}), 1
		} else {
			parts[i] = torch.Zeros([]int64{p.Numel()}, like...)
		}
	}
	parts[len(params)] = torch.FromSlice(here).To(like...)
	message := torch.Cat(parts)
	message.Narrow(0, 0, total).MulScalar_(1 / float64(g.size))
	if err := g.AllReduce(message, Sum); err != nil {
		return err
	}
	anywhere := torch.ToSlice[float32](message.Narrow(0, total, int64(len(params))))
	var at int64
	for i, p := range params {
		mean := message.Narrow(0, at, p.Numel()).View(p.Shape())
		at += p.Numel()
		switch {
		case here[i] != 0:
			p.Grad().Copy_(mean)
		case anywhere[i] != 0:
			p.SetGrad(mean.Clone())
		}
	}
	return nil
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
