package clipcap_test

import (
	"context"
	"errors"
	"math"
	"testing"

	"cyclecap/nets/clipcap"
	"cyclecap/nets/gpt2"
	"cyclecap/torch"
	"cyclecap/torch/compare"
	"cyclecap/torch/nn"
	"cyclecap/torch/torchtest"

	"github.com/google/go-cmp/cmp"
)

const vocab = 50

// small returns a decoder whose captions depend on every token.
func small() *clipcap.Model {
	torch.ManualSeed(3)
	m := &clipcap.Model{
		Mapper: clipcap.NewTransformerMapper(clipcap.TransformerConfig{FeatureWidth: 16, Width: 64, ClipLength: 3, PrefixLength: 4, Layers: 2, Heads: 8}),
		GPT2:   gpt2.New(gpt2.Config{VocabSize: vocab, NPositions: 32, NEmbd: 64, NLayer: 2, NHead: 1, LayerNormEpsilon: 1e-5}),
	}
	torch.NoGrad(func() {
		for _, p := range nn.NamedParameters(m.GPT2) {
			if p.Tensor.Dim() == 2 {
				p.Tensor.MulScalar_(6)
			}
		}
	})
	return m
}

func with(t *testing.T, f func(m *clipcap.Model, features torch.Tensor)) {
	t.Helper()
	before := torch.Alive()
	err := torch.Scope(func() error {
		m := small()
		defer nn.Close(m.GPT2)
		defer nn.Close(m.Mapper)
		torch.InferenceMode(func() { f(m, torch.Randn([]int64{7, 16})) })
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if after := torch.Alive(); after != before {
		t.Errorf("%d tensors are alive that were not before", after-before)
	}
}

func tokens(captions [][]clipcap.Caption) (out [][]int64) {
	for _, c := range captions {
		out = append(out, c[0].Tokens)
	}
	return out
}

// withoutCache is greedy decoding in the plainest form: the nucleus is cut out and the
// whole sequence is computed again for every token.
func withoutCache(m *clipcap.Model, feature torch.Tensor, n int, stop int64) (ids []int64, logProb float64) {
	embeds := m.Mapper.Forward(feature)
	for range n {
		h := m.GPT2.Forward(embeds, nil, torch.Tensor{})
		logits := m.GPT2.Logits(h.Select(1, -1))
		id := int64(clipcap.TopPFilter(logits, 0.8).Argmax(torch.WithDim(int64(-1))).Item())
		logProb += logits.LogSoftmax(-1).Select(1, id).Item()
		ids = append(ids, id)
		if id == stop {
			break
		}
		embeds = torch.Cat([]torch.Tensor{embeds, m.GPT2.Embed(torch.FromSlice([]int64{id}, 1, 1))}, torch.WithDim(1))
	}
	return ids, logProb
}

func generate(t *testing.T, m *clipcap.Model, features torch.Tensor, o clipcap.Options) [][]clipcap.Caption {
	t.Helper()
	captions, err := m.Generate(context.Background(), features, o)
	if err != nil {
		t.Fatal(err)
	}
	return captions
}

// TestGreedyAndTopP compares cached, batched decoding with the plain one, on captions that
// end at different steps.
func TestGreedyAndTopP(t *testing.T) {
	with(t, func(m *clipcap.Model, features torch.Tensor) {
		free := tokens(generate(t, m, features, clipcap.Options{Method: clipcap.Greedy, MaxTokens: 10, Stop: -1}))
		stop := free[0][4] // a token that some captions reach
		ends := map[int]bool{}
		for _, method := range []clipcap.Method{clipcap.Greedy, clipcap.TopP} {
			got := generate(t, m, features, clipcap.Options{Method: method, MaxTokens: 10, Stop: stop})
			for i, c := range got {
				want, logProb := withoutCache(m, features.Narrow(0, int64(i), 1), 10, stop)
				if diff := cmp.Diff(want, c[0].Tokens); diff != "" {
					t.Errorf("%s, feature %d: %s", method, i, diff)
				}
				if d := math.Abs(c[0].LogProb - logProb); d > 1e-4 {
					t.Errorf("%s, feature %d: log-probability %g, want %g", method, i, c[0].LogProb, logProb)
				}
				ends[len(c[0].Tokens)] = true
			}
		}
		if len(ends) < 2 {
			t.Errorf("all captions are equally long (%v): nothing left the batch early", ends)
		}
	})
}

// TestBeamOfOne checks that a single beam equals greedy decoding.
func TestBeamOfOne(t *testing.T) {
	with(t, func(m *clipcap.Model, features torch.Tensor) {
		o := clipcap.Options{Method: clipcap.Greedy, MaxTokens: 8, Stop: -1}
		want := tokens(generate(t, m, features, o))
		o.Method, o.Beam = clipcap.Beam, 1
		if diff := cmp.Diff(want, tokens(generate(t, m, features, o))); diff != "" {
			t.Error(diff)
		}
	})
}

// TestBeamBatch checks that a photo's beams do not depend on the other photos in the batch,
// although photos leave the batch at different steps.
func TestBeamBatch(t *testing.T) {
	with(t, func(m *clipcap.Model, features torch.Tensor) {
		stop := tokens(generate(t, m, features, clipcap.Options{Method: clipcap.Greedy, MaxTokens: 10, Stop: -1}))[0][2]
		o := clipcap.Options{Method: clipcap.Beam, Beam: 5, MaxTokens: 10, Stop: stop}
		all := generate(t, m, features, o)
		for i := range all {
			alone := generate(t, m, features.Narrow(0, int64(i), 1), o)[0]
			for b := range alone {
				if diff := cmp.Diff(alone[b].Tokens, all[i][b].Tokens); diff != "" {
					t.Errorf("feature %d, beam %d: %s", i, b, diff)
				}
				if b > 0 && alone[b].Score > alone[b-1].Score {
					t.Errorf("feature %d: beam %d is better than the one before", i, b)
				}
			}
		}
	})
}

// TestSample checks that the seed determines the captions, not the batch, and that
// temperature near 0 and top-k 1 are greedy.
func TestSample(t *testing.T) {
	with(t, func(m *clipcap.Model, features torch.Tensor) {
		o := clipcap.Options{Method: clipcap.Sample, MaxTokens: 8, Stop: -1, Temperature: 1.5, Seed: 5}
		first := tokens(generate(t, m, features, o))
		if diff := cmp.Diff(first, tokens(generate(t, m, features, o))); diff != "" {
			t.Errorf("the same seed gave another caption: %s", diff)
		}
		if diff := cmp.Diff(first[:2], tokens(generate(t, m, features.Narrow(0, 0, 2), o))); diff != "" {
			t.Errorf("a smaller batch gave another caption: %s", diff)
		}
		o.Seed = 6
		if cmp.Equal(first, tokens(generate(t, m, features, o))) {
			t.Error("another seed gave the same captions")
		}
		greedy := tokens(generate(t, m, features, clipcap.Options{Method: clipcap.Greedy, MaxTokens: 8, Stop: -1}))
		for name, o := range map[string]clipcap.Options{
			"top-k 1":       {Method: clipcap.Sample, MaxTokens: 8, Stop: -1, TopK: 1},
			"tiny top-p":    {Method: clipcap.Sample, MaxTokens: 8, Stop: -1, TopP: 1e-9},
			"temperature 0": {Method: clipcap.Sample, MaxTokens: 8, Stop: -1, Temperature: 1e-6},
			"not a float32": {Method: clipcap.Sample, MaxTokens: 8, Stop: -1, Temperature: 1e-300},
		} {
			if diff := cmp.Diff(greedy, tokens(generate(t, m, features, o))); diff != "" {
				t.Errorf("%s is not greedy: %s", name, diff)
			}
		}
	})
}

func TestTopPFilter(t *testing.T) {
	err := torch.Scope(func() error {
		// Probabilities .5, .3, .15, .05: the second makes the sum reach .8.
		p := torch.FromSlice([]float64{0.15, 0.5, 0.05, 0.3}, 1, 4)
		kept := torch.ToSlice[bool](clipcap.TopPFilter(p.Log(), 0.79).Isfinite())
		if diff := cmp.Diff([]bool{false, true, false, true}, kept); diff != "" {
			t.Error(diff)
		}
		kept = torch.ToSlice[bool](clipcap.TopPFilter(p.Log(), 0.1).Isfinite())
		if diff := cmp.Diff([]bool{false, true, false, false}, kept); diff != "" {
			t.Error(diff)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestOptionsThatMakeNoSense(t *testing.T) {
	for name, o := range map[string]clipcap.Options{
		"method":      {Method: "best", MaxTokens: 5},
		"tokens":      {Method: clipcap.Greedy},
		"beams":       {Method: clipcap.Beam, MaxTokens: 5},
		"one beam":    {Method: clipcap.BeamTransformers, Beam: 1, MaxTokens: 5},
		"penalty":     {Method: clipcap.BeamTransformers, Beam: 2, MaxTokens: 5, LengthPenalty: 11},
		"stopping":    {Method: clipcap.BeamTransformers, Beam: 2, MaxTokens: 5, EarlyStopping: "maybe"},
		"temperature": {Method: clipcap.Sample, MaxTokens: 5, Temperature: -1},
		"top-p":       {Method: clipcap.Sample, MaxTokens: 5, TopP: 1.5},
	} {
		if o.Check() == nil {
			t.Errorf("%s: no error", name)
		}
	}
	err := torch.Scope(func() error {
		m := small()
		defer nn.Close(m.GPT2)
		defer nn.Close(m.Mapper)
		_, err := m.Generate(context.Background(), torch.Randn([]int64{1, 16}), clipcap.Options{Method: clipcap.Greedy, MaxTokens: 30, Stop: -1})
		return err
	})
	if err == nil {
		t.Error("30 tokens after a prefix of 4 fit into 32 positions")
	}
}

// TestTokenLogProbs compares the log-probability of each token with that computed from the
// whole sequence.
func TestTokenLogProbs(t *testing.T) {
	with(t, func(m *clipcap.Model, features torch.Tensor) {
		stop := tokens(generate(t, m, features, clipcap.Options{Method: clipcap.Greedy, MaxTokens: 10, Stop: -1}))[0][3]
		for _, o := range []clipcap.Options{
			{Method: clipcap.Greedy, MaxTokens: 10, Stop: stop},
			{Method: clipcap.Sample, MaxTokens: 10, Stop: stop, Temperature: 1.5, TopK: 20},
			{Method: clipcap.Beam, Beam: 4, MaxTokens: 10, Stop: stop},
			{Method: clipcap.BeamTransformers, Beam: 4, MaxTokens: 10, Stop: stop, LengthPenalty: 1},
		} {
			for i, alternatives := range generate(t, m, features, o) {
				if o.Beam == 4 && len(alternatives) != 4 {
					t.Errorf("%d alternatives of 4 beams", len(alternatives))
				}
				for _, c := range alternatives {
					if len(c.TokenLogProbs) != len(c.Tokens) {
						t.Fatalf("%s: %d log-probabilities of %d tokens", o.Method, len(c.TokenLogProbs), len(c.Tokens))
					}
					prefix := m.Mapper.Forward(features.Narrow(0, int64(i), 1))
					embeds := torch.Cat([]torch.Tensor{prefix, m.GPT2.Embed(torch.FromSlice(c.Tokens, 1, int64(len(c.Tokens))))}, torch.WithDim(1))
					all := m.GPT2.Logits(m.GPT2.Forward(embeds, nil, torch.Tensor{})).LogSoftmax(-1)
					var sum float64
					for k, id := range c.Tokens {
						want := all.Select(1, prefix.Size(1)-1+int64(k)).Select(1, id).Item()
						if d := math.Abs(c.TokenLogProbs[k] - want); !(d < 1e-4) {
							t.Errorf("%s, feature %d, token %d: %g, want %g", o.Method, i, k, c.TokenLogProbs[k], want)
						}
						sum += c.TokenLogProbs[k]
					}
					if d := math.Abs(sum - c.LogProb); !(d < 1e-4) {
						t.Errorf("%s, feature %d: the tokens' sum is %g, that of the whole %g", o.Method, i, sum, c.LogProb)
					}
				}
			}
		}
	})
}

// patient is a context that is done at the n-th check.
type patient struct {
	context.Context
	left int
}

func (p *patient) Err() error {
	if p.left--; p.left < 0 {
		return context.Canceled
	}
	return nil
}

// TestCancel checks that decoding stops between two tokens.
func TestCancel(t *testing.T) {
	with(t, func(m *clipcap.Model, features torch.Tensor) {
		for _, method := range []clipcap.Method{clipcap.Greedy, clipcap.Sample, clipcap.Beam, clipcap.BeamTransformers} {
			ctx := &patient{context.Background(), 3}
			_, err := m.Generate(ctx, features, clipcap.Options{Method: method, Beam: 3, MaxTokens: 20, Stop: -1})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", method, err)
			}
			if ctx.left != -1 {
				t.Errorf("%s: it continued for %d tokens", method, -1-ctx.left)
			}
		}
	})
}

// TestPackedMLP: a packed mapper still knows its sizes. (It once read them from its
// weights, which packing frees.)
func TestPackedMLP(t *testing.T) {
	before := torch.Alive()
	err := torch.Scope(func() error {
		torch.ManualSeed(1)
		m := clipcap.NewMLPMapper(16, 64, 4)
		defer nn.Close(m)
		x := torch.Randn([]int64{3, 16})
		torch.InferenceMode(func() {
			want := m.Forward(x)
			nn.Pack(m)
			if m.FeatureWidth() != 16 || m.Width() != 64 || m.PrefixLength() != 4 {
				t.Errorf("the packed mapper has sizes %d, %d and %d", m.FeatureWidth(), m.Width(), m.PrefixLength())
			}
			torchtest.Close(t, m.Forward(x), want, compare.Tolerance{Max: 1e-5}, "packed")
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if after := torch.Alive(); after != before {
		t.Errorf("%d tensors are alive that were not before", after-before)
	}
}
