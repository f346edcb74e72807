package torch_test

import (
	"math"
	"testing"

	"cyclecap/torch"

	"github.com/google/go-cmp/cmp"
)

// TestFlashSDP checks that without flash attention the CPU computes what PyTorch's math
// backend does: products and a softmax in f32, rounded to bf16 once.
func TestFlashSDP(t *testing.T) {
	if !torch.FlashSDPEnabled() {
		t.Error("flash attention is off by default")
	}
	torch.EnableFlashSDP(false)
	defer torch.EnableFlashSDP(true)
	if torch.FlashSDPEnabled() {
		t.Error("flash attention is still on")
	}
	err := torch.Scope(func() error {
		torch.ManualSeed(3)
		const n, size = 7, 16
		half := torch.WithDType(torch.BFloat16)
		random := func() torch.Tensor { return torch.Randn([]int64{2, 3, n, size}).To(half) }
		q, k, v := random(), random(), random()
		full := func(x torch.Tensor) torch.Tensor { return x.To(torch.WithDType(torch.Float32)) }
		scale := math.Sqrt(1 / math.Sqrt(size)) // of both factors
		above := torch.Full([]int64{n, n}, math.Inf(-1)).Triu(torch.WithDiagonal(1))
		scores := full(q).MulScalar(scale).Matmul(full(k).MulScalar(scale).Transpose(2, 3)).Add(above)
		want := scores.Softmax(-1).Matmul(full(v)).To(half)
		have := torch.ScaledDotProductAttention(q, k, v, torch.WithIsCausal(true))
		if d := cmp.Diff(torch.ToSlice[float32](full(want)), torch.ToSlice[float32](full(have))); d != "" {
			t.Errorf("attention without flash attention (-want +have):\n%s", d)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
