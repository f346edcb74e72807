package functional_test

import (
	"fmt"

	"cyclecap/torch"
	F "cyclecap/torch/nn/functional"
)

// The class of the padding is ignored.
func ExampleCrossEntropy() {
	torch.Scope(func() error {
		logits := torch.FromSlice([]float32{2, 0, 0, 2, 5, 5}, 3, 2)
		target := torch.FromSlice([]int64{0, 1, -100})
		fmt.Println(F.CrossEntropy(logits, target, F.CrossEntropyDefaults()))

		o := F.CrossEntropyDefaults()
		o.Reduction = F.None
		fmt.Println(F.CrossEntropy(logits, target, o))
		return nil
	})
	// Output:
	// tensor(0.1269)
	// tensor([0.1269, 0.1269, 0.0000])
}
