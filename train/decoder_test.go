package train

import (
	"testing"

	"cyclecap/torch"
	"cyclecap/torch/nn"
)

// TestHeadLoss compares the loss over a frozen head, computed for a few positions at a time, with
// PyTorch's cross-entropy over all of them.
func TestHeadLoss(t *testing.T) {
	err := torch.Scope(func() error {
		torch.ManualSeed(1)
		const n, d, vocab = 100, 16, 50257 // 41 positions at a time
		head := nn.Linear(d, vocab, false)
		nn.SetRequiresGrad(head, false)
		tokens := torch.Randint(1, vocab, []int64{n})
		hidden := torch.Randn([]int64{n, d}).SetRequiresGrad(true)
		want := crossEntropy(head.Forward(hidden), tokens)
		want.Backward()
		wantGrad := hidden.Grad().Clone()
		hidden.SetGrad(torch.Tensor{})

		have := headLoss(head.Forward, vocab, hidden, tokens)
		have.MulScalar(2).Backward() // as for a process of a group
		if a, b := have.Item(), want.Item(); max(a-b, b-a) > 1e-6*b {
			t.Errorf("the loss is %v instead of %v", a, b)
		}
		scale := wantGrad.Abs().Max().Item()
		if diff := hidden.Grad().DivScalar(2).Sub(wantGrad).Abs().Max().Item(); diff > 5e-6*scale {
			t.Errorf("gradients differ by %v of the largest", diff/scale)
		}
		torch.NoGrad(func() {
			alone := headLoss(head.Forward, vocab, hidden.Detach(), tokens)
			if alone.Item() != have.Item() {
				t.Errorf("without gradients, the loss is %v instead of %v", alone.Item(), have.Item())
			}
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
