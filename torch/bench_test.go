package torch_test

import (
	"testing"

	"cyclecap/torch"
)

// BenchmarkAddSmall shows what a call costs beside the operator itself.
func BenchmarkAddSmall(b *testing.B) {
	err := torch.Scope(func() error {
		x := torch.Ones([]int64{4})
		torch.InferenceMode(func() {
			for range b.N / 64 {
				torch.Tidy(func() torch.Tensor {
					for range 64 {
						x.Add(x)
					}
					return torch.Tensor{}
				})
			}
		})
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}
