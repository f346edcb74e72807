package compare_test

import (
	"testing"

	"cyclecap/torch"
	"cyclecap/torch/compare"
)

// BenchmarkTensors compares tensors of CLIP's size, of which every element or none
// differs.
func BenchmarkTensors(b *testing.B) {
	err := torch.Scope(func() error {
		want := torch.Rand([]int64{150_000_000})
		got := want.MulScalar(1 + 1e-6)
		for name, t := range map[string]torch.Tensor{"equal": want.Clone(), "different": got} {
			b.Run(name, func(b *testing.B) {
				for b.Loop() {
					compare.Tensors(t, want)
				}
			})
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}
