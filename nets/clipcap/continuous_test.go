package clipcap_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"cyclecap/nets/clipcap"
	"cyclecap/nets/gpt2"
	"cyclecap/torch"
	"cyclecap/torch/nn"

	"github.com/google/go-cmp/cmp"
)

// long returns a decoder for captions of up to 93 tokens, which depend on every token.
func long() *clipcap.Model {
	torch.ManualSeed(5)
	m := &clipcap.Model{
		Mapper: clipcap.NewTransformerMapper(clipcap.TransformerConfig{FeatureWidth: 16, Width: 64, ClipLength: 3, PrefixLength: 4, Layers: 2, Heads: 8}),
		GPT2:   gpt2.New(gpt2.Config{VocabSize: 300, NPositions: 96, NEmbd: 64, NLayer: 3, NHead: 4, LayerNormEpsilon: 1e-5}),
		Never:  []int64{7, 299},
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

// withLong calls f with a decoder and 60 features.
func withLong(t *testing.T, f func(m *clipcap.Model, features torch.Tensor)) {
	t.Helper()
	// For so small a model, a second thread costs more than it does.
	threads := torch.NumThreads()
	torch.SetNumThreads(1)
	defer torch.SetNumThreads(threads)
	before := torch.Alive()
	err := torch.Scope(func() error {
		m := long()
		defer nn.Close(m.GPT2)
		defer nn.Close(m.Mapper)
		torch.InferenceMode(func() { f(m, torch.Randn([]int64{60, 16})) })
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if after := torch.Alive(); after != before {
		t.Errorf("%d tensors are alive that were not before", after-before)
	}
}

func batcher(t *testing.T, m *clipcap.Model, o clipcap.Options, most int) *clipcap.Batcher {
	t.Helper()
	b, err := m.NewBatcher(o, most)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close) // a second Close does nothing
	return b
}

func add(t *testing.T, b *clipcap.Batcher, features torch.Tensor, rows ...clipcap.RowOptions) []int {
	t.Helper()
	ids, err := b.Add(features, rows)
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func step(t *testing.T, b *clipcap.Batcher) []clipcap.Finished {
	t.Helper()
	ended, err := b.Step(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return ended
}

// drain steps until all captions have ended.
func drain(t *testing.T, b *clipcap.Batcher) map[int]clipcap.Caption {
	t.Helper()
	out := map[int]clipcap.Caption{}
	for b.Len() > 0 {
		for _, c := range step(t, b) {
			out[c.ID] = c.Caption
		}
	}
	return out
}

// alone decodes a single feature.
func alone(t *testing.T, m *clipcap.Model, feature torch.Tensor, o clipcap.Options, r clipcap.RowOptions) clipcap.Caption {
	t.Helper()
	o.Seed, o.OnToken = r.Seed, nil
	if r.MaxTokens > 0 {
		o.MaxTokens = r.MaxTokens
	}
	return generate(t, m, feature, o)[0][0]
}

// same compares a caption with one that was decoded in other company, and returns the
// largest difference of a log-probability.
func same(t *testing.T, what string, got, want clipcap.Caption) (off float64) {
	t.Helper()
	if diff := cmp.Diff(want.Tokens, got.Tokens); diff != "" {
		t.Errorf("%s:\n%s", what, diff)
		return 0
	}
	for i, p := range want.TokenLogProbs {
		off = max(off, math.Abs(p-got.TokenLogProbs[i]))
	}
	off = max(off, math.Abs(want.LogProb-got.LogProb)/float64(len(want.Tokens)), math.Abs(want.Score-got.Score))
	if !(off <= 1e-4) {
		t.Errorf("%s: log-probabilities differ by up to %g", what, off)
	}
	return off
}

var single = map[string]clipcap.Options{
	"greedy":         {Method: clipcap.Greedy},
	"top-p":          {Method: clipcap.TopP, TopP: 0.8},
	"sample":         {Method: clipcap.Sample, Temperature: 0.9},
	"sample, warped": {Method: clipcap.Sample, Temperature: 1.2, TopK: 40, TopP: 0.9},
}

// TestContinuous has captions of many lengths join and leave at random steps, and compares
// each with the same caption decoded alone. The largest difference of a log-probability
// measured is 2.9e-6, in captions of up to 90 tokens.
func TestContinuous(t *testing.T) {
	for name, o := range single {
		t.Run(name, func(t *testing.T) {
			withLong(t, func(m *clipcap.Model, features torch.Tensor) {
				o.MaxTokens, o.Stop = 90, -1
				// A token that ends some captions early.
				o.Stop = alone(t, m, features.Narrow(0, 0, 1), o, clipcap.RowOptions{}).Tokens[20]
				total, r := 30, rand.New(rand.NewPCG(1, 2))
				rows := make([]clipcap.RowOptions, total)
				for i := range rows {
					rows[i].Seed = r.Uint64()
					if r.IntN(2) == 0 {
						rows[i].MaxTokens = 1 + r.IntN(90)
					}
				}
				b := batcher(t, m, o, 9)
				got := map[int]clipcap.Caption{}
				var most int
				for added := 0; added < total || b.Len() > 0; {
					if n := min(b.Room(), total-added, 1+r.IntN(4)); n > 0 && r.IntN(4) == 0 {
						ids := add(t, b, features.Narrow(0, int64(added), int64(n)), rows[added:added+n]...)
						if ids[0] != added || len(ids) != n {
							t.Fatalf("ids %v, want %d from %d", ids, n, added)
						}
						added += n
					}
					most = max(most, b.Len())
					for _, c := range step(t, b) {
						if _, ok := got[c.ID]; ok {
							t.Errorf("caption %d has ended twice", c.ID)
						}
						got[c.ID] = c.Caption
					}
				}
				b.Close()
				if most < 5 {
					t.Errorf("at most %d captions at a time", most)
				}
				var off float64
				ends := map[int]bool{}
				for i, row := range rows {
					want := alone(t, m, features.Narrow(0, int64(i), 1), o, row)
					off = max(off, same(t, fmt.Sprintf("caption %d", i), got[i], want))
					ends[len(want.Tokens)] = true
				}
				if len(ends) < 10 {
					t.Errorf("captions have only %d different lengths", len(ends))
				}
				t.Logf("up to %d at a time, %d lengths; the largest difference of a log-probability is %.2g", most, len(ends), off)
			})
		})
	}
}

// plain decodes greedily with a cache that grows, and without a Batcher.
func plain(m *clipcap.Model, features torch.Tensor, o clipcap.Options) []clipcap.Caption {
	out := make([]clipcap.Caption, features.Size(0))
	rows := make([]int, len(out))
	for i := range rows {
		rows[i] = i
	}
	embeds := m.Mapper.Forward(features)
	cache := m.GPT2.NewCache(embeds.Size(0), 96)
	never := torch.Zeros([]int64{m.GPT2.Config.VocabSize}, torch.WithDType(torch.Bool))
	for _, id := range m.Never {
		never.Select(0, id).Fill_(1)
	}
	for {
		logits := m.GPT2.Logits(m.GPT2.Forward(embeds, cache, torch.Tensor{}).Select(1, -1)).MaskedFill(never, math.Inf(-1))
		ids := logits.Argmax(torch.WithDim(-1))
		p := torch.ToSlice[float64](logits.Gather(1, ids.Unsqueeze(1)).Sub(logits.Logsumexp([]int64{-1}, torch.WithKeepdim(true))))
		var live []int64
		var going []int
		for i, id := range torch.ToSlice[int64](ids) {
			c := &out[rows[i]]
			c.Tokens, c.TokenLogProbs, c.LogProb = append(c.Tokens, id), append(c.TokenLogProbs, p[i]), c.LogProb+p[i]
			c.Score = c.LogProb / float64(len(c.Tokens))
			if id != o.Stop && len(c.Tokens) < o.MaxTokens {
				live, going = append(live, int64(i)), append(going, rows[i])
			}
		}
		if len(live) == 0 {
			return out
		}
		keep := torch.FromSlice(live)
		if len(live) < len(rows) {
			cache.Select(keep, 0)
		}
		rows, embeds = going, m.GPT2.Embed(ids.IndexSelect(0, keep).Unsqueeze(1))
	}
}

// TestTogether: captions that are added together have the bits of a plain loop over a cache
// that grows, as Generate has, although they end at different steps.
func TestTogether(t *testing.T) {
	withLong(t, func(m *clipcap.Model, features torch.Tensor) {
		o := clipcap.Options{Method: clipcap.Greedy, MaxTokens: 30, Stop: -1}
		o.Stop = alone(t, m, features.Narrow(0, 0, 1), o, clipcap.RowOptions{}).Tokens[9]
		want := plain(m, features, o)
		ends := map[int]bool{}
		for i, c := range generate(t, m, features, o) {
			if diff := cmp.Diff(want[i], c[0]); diff != "" {
				t.Errorf("caption %d by Generate: %s", i, diff)
			}
			ends[len(c[0].Tokens)] = true
		}
		if len(ends) < 3 {
			t.Errorf("captions have only %d different lengths", len(ends))
		}
		b := batcher(t, m, o, 60)
		add(t, b, features.Narrow(0, 0, 50), make([]clipcap.RowOptions, 50)...)
		for i := range int64(10) {
			add(t, b, features.Narrow(0, 50+i, 1), clipcap.RowOptions{})
		}
		got := drain(t, b)
		for i, c := range want {
			if diff := cmp.Diff(c, got[i]); diff != "" {
				t.Errorf("caption %d by a Batcher: %s", i, diff)
			}
		}
		// What follows earlier captions in the same Batcher has these bits, too.
		ids := add(t, b, features, make([]clipcap.RowOptions, 60)...)
		got = drain(t, b)
		for i, c := range want {
			if diff := cmp.Diff(c, got[ids[i]]); diff != "" {
				t.Errorf("caption %d, the second time: %s", i, diff)
			}
		}
		b.Close()
	})
}

// TestRemove: captions that are removed, before and after their first token, make room at
// once and leave the others as they are. So does a step that was cancelled.
// With packed weights, a caption has the bits that it has alone, whatever joins and leaves.
func TestPackedContinuous(t *testing.T) {
	if !torch.HasPanels() {
		t.Skip("this processor does not have AVX-512")
	}
	for _, as := range []nn.Packing{nn.Blocked, nn.Int8} {
		withLong(t, func(m *clipcap.Model, features torch.Tensor) {
			nn.PackAs(m.GPT2, as)
			nn.PackAs(m.Mapper, as)
			o := clipcap.Options{Method: clipcap.Greedy, MaxTokens: 60, Stop: 13}
			b := batcher(t, m, o, 16)
			got := map[int]clipcap.Caption{}
			r := rand.New(rand.NewPCG(3, 4))
			added := 0
			for added < 60 || b.Len() > 0 {
				for n := r.IntN(5); n > 0 && b.Room() > 0 && added < 60; n-- {
					add(t, b, features.Narrow(0, int64(added), 1), clipcap.RowOptions{MaxTokens: 20 + added%40})
					added++
				}
				for _, c := range step(t, b) {
					got[c.ID] = c.Caption
				}
			}
			for i := range 60 {
				want := alone(t, m, features.Narrow(0, int64(i), 1), o, clipcap.RowOptions{MaxTokens: 20 + i%40})
				if diff := cmp.Diff(want, got[i]); diff != "" {
					t.Fatalf("packing %d, caption %d differs from that alone: %s", as, i, diff)
				}
			}
			b.Close()
		})
	}
}

func TestRemove(t *testing.T) {
	for name, o := range single {
		t.Run(name, func(t *testing.T) {
			withLong(t, func(m *clipcap.Model, features torch.Tensor) {
				o.MaxTokens, o.Stop = 40, -1
				b := batcher(t, m, o, 8)
				row := func(id int) clipcap.RowOptions { return clipcap.RowOptions{Seed: uint64(id), MaxTokens: 20 + id} }
				rows := func(from, n int) (list []clipcap.RowOptions) {
					for i := range n {
						list = append(list, row(from+i))
					}
					return list
				}
				cancelled, cancel := context.WithCancel(t.Context())
				cancel()
				got := map[int]clipcap.Caption{}
				steps := func(n int) {
					for range n {
						if _, err := b.Step(cancelled); !errors.Is(err, context.Canceled) {
							t.Fatalf("a cancelled step: %v", err)
						}
						for _, c := range step(t, b) {
							got[c.ID] = c.Caption
						}
					}
				}
				add(t, b, features.Narrow(0, 0, 6), rows(0, 6)...)
				b.Remove(2) // before its first token
				b.Remove(77)
				if b.Room() != 3 || b.Len() != 5 {
					t.Errorf("room for %d beside %d", b.Room(), b.Len())
				}
				steps(4)
				b.Remove(0)
				b.Remove(0)
				b.Remove(4)
				if b.Room() != 5 || b.Len() != 3 {
					t.Errorf("room for %d beside %d", b.Room(), b.Len())
				}
				add(t, b, features.Narrow(0, 6, 5), rows(6, 5)...)
				steps(1)
				b.Remove(1) // an old one
				b.Remove(8) // a new one
				add(t, b, features.Narrow(0, 11, 2), rows(11, 2)...)
				for b.Len() > 0 {
					steps(1)
				}
				b.Close()
				var ids []int
				for id := range got {
					ids = append(ids, id)
				}
				slices.Sort(ids)
				if want := []int{3, 5, 6, 7, 9, 10, 11, 12}; !slices.Equal(ids, want) {
					t.Errorf("captions %v have ended, want %v", ids, want)
				}
				for id, c := range got {
					same(t, fmt.Sprintf("caption %d", id), c, alone(t, m, features.Narrow(0, int64(id), 1), o, row(id)))
				}
			})
		})
	}
}

// TestRemoveAll: a Batcher whose captions were all removed goes on with others.
func TestRemoveAll(t *testing.T) {
	withLong(t, func(m *clipcap.Model, features torch.Tensor) {
		o := clipcap.Options{Method: clipcap.Greedy, MaxTokens: 10, Stop: -1}
		b := batcher(t, m, o, 2)
		add(t, b, features.Narrow(0, 0, 2), make([]clipcap.RowOptions, 2)...)
		step(t, b)
		b.Remove(0)
		b.Remove(1)
		if ended := step(t, b); len(ended) != 0 || b.Len() != 0 {
			t.Errorf("%v have ended; %d are left", ended, b.Len())
		}
		id := add(t, b, features.Narrow(0, 5, 1), clipcap.RowOptions{})[0]
		if diff := cmp.Diff(plain(m, features.Narrow(0, 5, 1), o)[0], drain(t, b)[id]); diff != "" {
			t.Error(diff)
		}
		b.Close()
	})
}

// TestCloseInTheMiddle frees a Batcher with captions that have begun, and others that have
// not; withLong counts the tensors.
func TestCloseInTheMiddle(t *testing.T) {
	withLong(t, func(m *clipcap.Model, features torch.Tensor) {
		b := batcher(t, m, clipcap.Options{Method: clipcap.Greedy, MaxTokens: 10, Stop: -1}, 8)
		add(t, b, features.Narrow(0, 0, 3), make([]clipcap.RowOptions, 3)...)
		step(t, b)
		add(t, b, features.Narrow(0, 3, 2), make([]clipcap.RowOptions, 2)...)
		step(t, b)
		add(t, b, features.Narrow(0, 5, 2), make([]clipcap.RowOptions, 2)...)
		b.Close()
		if b.Len() != 0 || b.Room() != 0 {
			t.Errorf("%d captions and room for %d in a closed Batcher", b.Len(), b.Room())
		}
		if _, err := b.Add(features.Narrow(0, 0, 1), make([]clipcap.RowOptions, 1)); err == nil {
			t.Error("a closed Batcher takes captions")
		}
		if ended := step(t, b); ended != nil {
			t.Errorf("%v", ended)
		}
	})
}

// TestNotFinite: a caption whose numbers are not finite ends, and neither those beside it
// nor one that takes its place have a part in it.
func TestNotFinite(t *testing.T) {
	for name, o := range single {
		t.Run(name, func(t *testing.T) {
			withLong(t, func(m *clipcap.Model, features torch.Tensor) {
				o.MaxTokens, o.Stop = 20, -1
				told := map[int]int{}
				o.OnToken = func(index int, _ int64, logProb float64) {
					if math.IsNaN(logProb) {
						t.Errorf("caption %d: NaN", index)
					}
					told[index]++
				}
				features.Select(0, 1).Fill_(math.NaN())
				b := batcher(t, m, o, 3)
				got := map[int]clipcap.Caption{}
				for i := range 6 {
					add(t, b, features.Narrow(0, int64(i), 1), clipcap.RowOptions{Seed: uint64(i)})
					for range 2 {
						for _, c := range step(t, b) {
							got[c.ID] = c.Caption
						}
					}
					for b.Room() == 0 {
						for _, c := range step(t, b) {
							got[c.ID] = c.Caption
						}
					}
				}
				for id, c := range drain(t, b) {
					got[id] = c
				}
				b.Close()
				for id := range 6 {
					if id == 1 {
						if c := got[id]; len(c.Tokens) != 1 || !math.IsNaN(c.LogProb) {
							t.Errorf("caption of NaN: %+v", c)
						}
						continue
					}
					same(t, fmt.Sprintf("caption %d", id), got[id], alone(t, m, features.Narrow(0, int64(id), 1), o, clipcap.RowOptions{Seed: uint64(id)}))
					if told[id] != len(got[id].Tokens) {
						t.Errorf("caption %d: OnToken was called for %d of %d tokens", id, told[id], len(got[id].Tokens))
					}
				}
				if told[1] != 0 {
					t.Errorf("OnToken was called for %d tokens that are not finite", told[1])
				}
			})
		})
	}
}

// TestOnPrefixes: the mapper's time is told once for a batch, and for captions that join later.
func TestOnPrefixes(t *testing.T) {
	withLong(t, func(m *clipcap.Model, features torch.Tensor) {
		for _, method := range clipcap.Methods {
			var told []time.Duration
			o := clipcap.Options{Method: method, Beam: 3, MaxTokens: 4, OnPrefixes: func(took time.Duration) { told = append(told, took) }}
			if _, err := m.Generate(t.Context(), features.Narrow(0, 0, 5), o); err != nil {
				t.Fatal(method, err)
			}
			if len(told) != 1 || told[0] <= 0 {
				t.Errorf("%s: told %v", method, told)
			}
		}
		told := 0
		b := batcher(t, m, clipcap.Options{Method: clipcap.Greedy, MaxTokens: 4, Stop: -1, OnPrefixes: func(time.Duration) { told++ }}, 4)
		defer b.Close()
		for _, want := range []int{1, 1, 2} {
			if want > told {
				if _, err := b.Add(features.Narrow(0, 0, 2), make([]clipcap.RowOptions, 2)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := b.Step(t.Context()); err != nil || told != want {
				t.Errorf("told %d times, want %d: %v", told, want, err)
			}
		}
	})
}

// TestOnToken: Generate tells every token of its captions, in order, whatever the method.
func TestOnToken(t *testing.T) {
	with(t, func(m *clipcap.Model, features torch.Tensor) {
		stop := tokens(generate(t, m, features, clipcap.Options{Method: clipcap.Greedy, MaxTokens: 10, Stop: -1}))[0][4]
		for _, method := range clipcap.Methods {
			o := clipcap.Options{Method: method, Beam: 3, MaxTokens: 10, Stop: stop, TopP: 0.8, Seed: 1}
			told := make([]clipcap.Caption, features.Size(0))
			turns, last := 0, -1
			o.OnToken = func(i int, id int64, p float64) {
				told[i].Tokens, told[i].TokenLogProbs = append(told[i].Tokens, id), append(told[i].TokenLogProbs, p)
				if i <= last {
					turns++
				}
				last = i
			}
			for i, c := range generate(t, m, features, o) {
				if !slices.Equal(told[i].Tokens, c[0].Tokens) || !slices.Equal(told[i].TokenLogProbs, c[0].TokenLogProbs) {
					t.Errorf("%s: caption %d: told %v, want %v", method, i, told[i], c[0])
				}
			}
			if early := method != clipcap.Beam && method != clipcap.BeamTransformers; early && turns != 9 {
				t.Errorf("%s: the captions had %d turns, want 9: tokens are to be told as they are chosen", method, turns)
			}
		}
	})
}

func TestBatcherErrors(t *testing.T) {
	withLong(t, func(m *clipcap.Model, features torch.Tensor) {
		o := clipcap.Options{Method: clipcap.Greedy, MaxTokens: 10, Stop: -1}
		beams, tokens := o, o
		beams.Method, beams.Beam = clipcap.Beam, 3
		tokens.MaxTokens = 94
		for what, try := range map[string]func() (*clipcap.Batcher, error){
			"beams":   func() (*clipcap.Batcher, error) { return m.NewBatcher(beams, 2) },
			"tokens":  func() (*clipcap.Batcher, error) { return m.NewBatcher(tokens, 2) },
			"no room": func() (*clipcap.Batcher, error) { return m.NewBatcher(o, 0) },
		} {
			if b, err := try(); err == nil || b != nil {
				t.Errorf("%s: no error", what)
			}
		}
		b := batcher(t, m, o, 2)
		for what, try := range map[string]func() ([]int, error){
			"too many":       func() ([]int, error) { return b.Add(features.Narrow(0, 0, 3), make([]clipcap.RowOptions, 3)) },
			"another number": func() ([]int, error) { return b.Add(features.Narrow(0, 0, 2), make([]clipcap.RowOptions, 1)) },
			"width": func() ([]int, error) {
				return b.Add(features.Narrow(1, 0, 8).Narrow(0, 0, 1), make([]clipcap.RowOptions, 1))
			},
			"no matrix":       func() ([]int, error) { return b.Add(features.Select(0, 0), make([]clipcap.RowOptions, 1)) },
			"tokens":          func() ([]int, error) { return b.Add(features.Narrow(0, 0, 1), []clipcap.RowOptions{{MaxTokens: 11}}) },
			"negative tokens": func() ([]int, error) { return b.Add(features.Narrow(0, 0, 1), []clipcap.RowOptions{{MaxTokens: -1}}) },
		} {
			if ids, err := try(); err == nil || ids != nil {
				t.Errorf("%s: no error", what)
			}
		}
		if b.Room() != 2 || b.Len() != 0 {
			t.Errorf("room for %d beside %d", b.Room(), b.Len())
		}
		b.Close()
	})
}
