package train

import (
	"math/rand/v2"
	"slices"
	"testing"

	"cyclecap/torch"
)

// reference is the pool of the CycleGAN authors: fake after fake, row by row.
func (p *pool) reference(past, fakes [][]float32) (seen [][]float32) {
	n := len(fakes)
	coins := torch.ToSlice[float32](torch.Rand([]int64{int64(n)}))
	places := torch.ToSlice[int64](torch.Randint(0, int64(p.size), []int64{int64(n)}))
	for i, fake := range fakes {
		switch {
		case p.used < p.size:
			past[p.used] = fake
			p.used++
			seen = append(seen, fake)
		case coins[i] > 0.5:
			seen = append(seen, past[places[i]])
			past[places[i]] = fake
		default:
			seen = append(seen, fake)
		}
	}
	return seen
}

// TestPool compares the pool with its rule, fake after fake, over many batches. Pools that
// are smaller than a batch have places that several fakes of a batch are swapped into.
func TestPool(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	const width = 3
	repeated := 0
	for trial := range 400 {
		size, n := 1+rng.IntN(12), 1+rng.IntN(16)
		err := torch.Scope(func() error {
			torch.ManualSeed(uint64(trial))
			ours := pool{size: size}
			ours.make(width, torch.CPU)
			defer ours.close()
			theirs := pool{size: size}
			past := make([][]float32, size)
			for i := range past {
				past[i] = make([]float32, width)
			}
			generator := torch.DefaultGenerator(torch.CPU)
			for range 10 {
				fakes := make([][]float32, n)
				for i := range fakes {
					for range width {
						fakes[i] = append(fakes[i], rng.Float32())
					}
				}
				state := generator.State()
				want := theirs.reference(past, fakes)
				after := generator.State()
				if err := generator.SetState(state); err != nil {
					return err
				}
				rows := ours.draw(n)
				for i, r := range rows[:n] {
					if r >= int64(size) && r != int64(size+i) {
						repeated++ // swapped for another fake of the same batch
					}
				}
				seen := ours.exchange(torch.FromSlice(slices.Concat(fakes...), int64(n), width), torch.FromSlice(rows))
				if !slices.Equal(slices.Concat(want...), torch.ToSlice[float32](seen)) {
					t.Fatalf("size %d, batch %d: the batch is\n%v, want\n%v", size, n, torch.ToSlice[float32](seen), want)
				}
				if !slices.Equal(slices.Concat(past...), torch.ToSlice[float32](ours.past)) || ours.used != theirs.used {
					t.Fatalf("size %d, batch %d: the pool is\n%v, want\n%v", size, n, torch.ToSlice[float32](ours.past), past)
				}
				if !slices.Equal(after, generator.State()) {
					t.Fatal("the pool draws other random numbers")
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if repeated < 1000 {
		t.Errorf("only %d fakes were swapped for one of their own batch: the test shows little", repeated)
	}
}
