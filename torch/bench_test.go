package torch_test

import (
	"testing"

	"cyclecap/torch"
)

// inScope runs f b.N times, in inference mode, in scopes of 64.
func inScope(b *testing.B, f func(x torch.Tensor)) {
	b.ReportAllocs()
	err := torch.Scope(func() error {
		x := torch.Ones([]int64{4})
		torch.InferenceMode(func() {
			for n := b.N; n > 0; n -= 64 {
				torch.Tidy(func() torch.Tensor {
					for range min(n, 64) {
						f(x)
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

// What a call costs beside the operator itself.
func BenchmarkAddSmall(b *testing.B) { inScope(b, func(x torch.Tensor) { x.Add(x) }) }

func BenchmarkEmpty(b *testing.B) {
	shape := []int64{4}
	inScope(b, func(torch.Tensor) { torch.Empty(shape) })
}

func BenchmarkShape(b *testing.B) { inScope(b, func(x torch.Tensor) { x.Shape() }) }

func BenchmarkSize(b *testing.B) { inScope(b, func(x torch.Tensor) { x.Size(0) }) }

func BenchmarkItem(b *testing.B) { inScope(b, func(x torch.Tensor) { x.Select(0, 1).Item() }) }
