package train

import (
	"math/rand/v2"
)

// Order determines the items of each step: the numbers 0 to N-1, shuffled in each epoch
// and split into batches, without an incomplete last batch (like PyTorch's DataLoader with
// shuffle and drop_last). It depends only on the seed and the step.
type Order struct {
	N     int
	Batch int
	Seed  uint64

	epoch int
	perm  []int32
}

// StepsPerEpoch returns the number of batches in an epoch.
func (o *Order) StepsPerEpoch() int { return o.N / o.Batch }

// Indices returns the items of a step. The slice is valid until the next call.
func (o *Order) Indices(step int) []int32 {
	per := o.StepsPerEpoch()
	epoch := step / per
	if o.perm == nil || epoch != o.epoch {
		if o.perm == nil {
			o.perm = make([]int32, o.N)
		}
		for i := range o.perm {
			o.perm[i] = int32(i)
		}
		rng := rand.New(rand.NewPCG(o.Seed, uint64(epoch)))
		rng.Shuffle(o.N, func(i, j int) { o.perm[i], o.perm[j] = o.perm[j], o.perm[i] })
		o.epoch = epoch
	}
	at := step % per * o.Batch
	return o.perm[at : at+o.Batch]
}
