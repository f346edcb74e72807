package train

import (
	"math/rand/v2"
)

// Order determines the items of each step. It depends only on the seed and the step.
//
// The numbers 0 to N-1 are shuffled in each epoch and split into batches, without an
// incomplete last batch (like PyTorch's DataLoader with shuffle and drop_last). If a batch
// is larger than the set, the set is begun again as often as needed, shuffled anew each
// time: step s takes the items s*Batch to (s+1)*Batch-1 of the shuffled sets in a row.
type Order struct {
	N     int // at least 1
	Batch int
	Seed  uint64

	pass  int // number of the shuffle in perm
	perm  []int32
	batch []int32 // of a step, if Batch is larger than N
}

// StepsPerEpoch returns the number of full batches in an epoch.
func (o *Order) StepsPerEpoch() int { return o.N / o.Batch }

// Indices returns the items of a step. The slice is valid until the next call.
func (o *Order) Indices(step int) []int32 {
	if o.Batch > o.N {
		o.batch = o.batch[:0]
		for at := step * o.Batch; len(o.batch) < o.Batch; at = (at/o.N + 1) * o.N {
			rest := o.shuffled(at / o.N)[at%o.N:]
			o.batch = append(o.batch, rest[:min(len(rest), o.Batch-len(o.batch))]...)
		}
		return o.batch
	}
	per := o.StepsPerEpoch()
	at := step % per * o.Batch
	return o.shuffled(step / per)[at : at+o.Batch]
}

// shuffled returns the items as they are shuffled in a pass through the set.
func (o *Order) shuffled(pass int) []int32 {
	if o.perm == nil || pass != o.pass {
		if o.perm == nil {
			o.perm = make([]int32, o.N)
		}
		for i := range o.perm {
			o.perm[i] = int32(i)
		}
		rng := rand.New(rand.NewPCG(o.Seed, uint64(pass)))
		rng.Shuffle(o.N, func(i, j int) { o.perm[i], o.perm[j] = o.perm[j], o.perm[i] })
		o.pass = pass
	}
	return o.perm
}
