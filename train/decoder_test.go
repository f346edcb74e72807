package train

import (
	"math"
	"testing"

	"cyclecap/nets/clipcap"
	"cyclecap/nets/gpt2"
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

// TestDecoderLoss compares the loss over captions without padding with ClipCap's, over captions of all kinds.
func TestDecoderLoss(t *testing.T) {
	err := torch.Scope(func() error {
		torch.ManualSeed(3)
		m := &clipcap.Model{
			Mapper: clipcap.NewTransformerMapper(clipcap.TransformerConfig{FeatureWidth: 16, Width: 24, ClipLength: 3, PrefixLength: 4, Layers: 2, Heads: 2}),
			GPT2:   gpt2.New(gpt2.Config{VocabSize: 50, NPositions: 16, NEmbd: 24, NHead: 2, NLayer: 3}),
		}
		defer nn.Close(m.Mapper)
		defer nn.Close(m.GPT2)
		features := torch.Randn([]int64{6, 16})
		tokens := torch.FromSlice([]int64{
			5, 6, 7, 8, 9, 10, 11, // the longest
			12, 0, 0, 0, 0, 0, 0, // a single token
			0, 0, 0, 0, 0, 0, 0, // none
			13, 0, 14, 15, 0, 0, 0, // token 0 in the middle: it is read, and does not count
			0, 16, 17, 0, 0, 0, 0,
			18, 19, 20, 21, 0, 0, 0,
		}, 6, 7)
		for _, tune := range []bool{false, true} {
			nn.SetRequiresGrad(m.GPT2, tune)
			params := nn.NamedParameters(m.Mapper)
			if tune {
				params = append(params, nn.NamedParameters(m.GPT2)...)
			}
			run := func(exact bool) (loss float64, grads []torch.Tensor) {
				for _, p := range params {
					p.Tensor.SetGrad(torch.Tensor{})
				}
				l := DecoderLoss(m, features, tokens, exact)
				l.Backward()
				for _, p := range params {
					grads = append(grads, p.Tensor.Grad().Clone())
				}
				return l.Item(), grads
			}
			want, wantGrads := run(true)
			have, grads := run(false)
			if d := have - want; max(d, -d) > 1e-6*want {
				t.Errorf("with GPT-2 trained %v, the loss is %v instead of %v", tune, have, want)
			}
			for i, g := range wantGrads {
				if d, scale := grads[i].Sub(g).Abs().Max().Item(), g.Abs().Max().Item(); d > 1e-5*scale {
					t.Errorf("with GPT-2 trained %v, the gradient of %s differs by %v, and its largest element is %v", tune, params[i].Name, d, scale)
				}
			}
		}
		empty := DecoderLoss(m, features, tokens.ZerosLike(), false)
		empty.Backward()
		if v := empty.Item(); !math.IsNaN(v) {
			t.Errorf("the mean loss of no token is %v", v)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
