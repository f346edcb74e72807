package torch

import (
	"math/rand/v2"
	"testing"
)

// exactly compares ExactLinear with PyTorch's operators, and reports whether it computed from
// packed weights.
func exactly(t *testing.T, m, n, k int64, transposed, bias bool) (used bool) {
	t.Helper()
	err := Scope(func() error {
		x, weight, b := Randn([]int64{m, k}), Randn([]int64{n, k}), Tensor{}
		if bias {
			b = Randn([]int64{n})
		}
		packed := PanelsPack(weight)
		if transposed {
			weight = weight.T().Contiguous()
		}
		got, lost := exactLinear(x, weight, b, packed, transposed, true)
		want := Tensor{}
		switch {
		case transposed:
			want = b.Addmm(x, weight)
		case bias:
			want = Linear(x, weight, WithBias(b))
		default:
			want = Linear(x, weight)
		}
		if !sameBits(ToSlice[float32](got), ToSlice[float32](want)) {
			t.Errorf("[%d, %d] to %d, transposed %v, bias %v, %d threads: the bits differ", m, k, n, transposed, bias, NumThreads())
		}
		used = lost == -1
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return used
}

// Wherever ExactLinear computes from packed weights, it has the bits of PyTorch's operators.
func TestExactLinear(t *testing.T) {
	needPanels(t)
	defer SetNumThreads(NumThreads())
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(of ...int64) int64 { return of[random.IntN(len(of))] }
	used := 0
	for i := range 400 {
		SetNumThreads(int(pick(1, 2, 3)))
		m := pick(1, 2, 3, 5, 8, 13, 16, 17, 40, 50, 64, 77, 100, 250)
		n := pick(1, 15, 64, 65, 100, 256, 512, 768)
		k := pick(8, 16, 32, 64, 100, 256, 500, 512, 640, 768, 1024, 1536, 3072)
		if exactly(t, m, n, k, i%2 == 0, i%2 == 0 || i%3 == 0) {
			used++
		}
	}
	t.Logf("packed weights computed %d of 400", used)
}

// The layers of ViT-B/32 and GPT-2 small, with the rows of a photo and of 16 captions.
func TestExactLayers(t *testing.T) {
	needPanels(t)
	defer SetNumThreads(NumThreads())
	used, all := 0, 0
	for _, threads := range []int{1, 2} {
		SetNumThreads(threads)
		for _, layer := range [][2]int64{{768, 2304}, {768, 768}, {768, 3072}, {3072, 768}} {
			for _, rows := range []int64{16, 50} {
				for _, transposed := range []bool{false, true} {
					all++
					if exactly(t, rows, layer[1], layer[0], transposed, true) {
						used++
					}
				}
			}
		}
		all++
		if exactly(t, 16, 50257, 768, false, false) {
			used++
		}
	}
	t.Logf("packed weights computed %d of %d", used, all)
}
