package devicetest

import (
	"math"
	"slices"
	"testing"

	"cyclecap/nets/clipcap"
	"cyclecap/nets/gpt2"
	"cyclecap/torch"
	"cyclecap/torch/nn"
)

// decoder returns a decoder whose captions depend on every token.
func decoder(d torch.Device) *clipcap.Model { return decoderOf(d, newGPT2()) }

// otherDecoder has a GPT-2 with none of the default settings, and ids that are never
// chosen.
func otherDecoder(d torch.Device) *clipcap.Model {
	m := decoderOf(d, gpt2.New(gpt2.Config{VocabSize: 50, NPositions: 32, NEmbd: 64, NLayer: 2, NHead: 4, NInner: 96, LayerNormEpsilon: 1e-3,
		Activation: "gelu", UnscaledAttn: true, InverseLayerScale: true, Untied: true}))
	m.Never = []int64{1, 2, 3, 5, 8, 13, 21, 34, 48, 49}
	return m
}

func decoderOf(d torch.Device, language *gpt2.Model) *clipcap.Model {
	m := &clipcap.Model{Mapper: newTransformerMapper(), GPT2: language}
	torch.NoGrad(func() {
		for _, p := range nn.NamedParameters(m.GPT2) {
			if p.Tensor.Dim() == 2 {
				p.Tensor.MulScalar_(6)
			}
		}
	})
	moved(d, m.Mapper)
	moved(d, m.GPT2)
	return m
}

func closeDecoder(m *clipcap.Model) {
	m.Close()
	nn.Close(m.Mapper)
	nn.Close(m.GPT2)
}

var methods = map[string]clipcap.Options{
	"greedy":           {Method: clipcap.Greedy},
	"greedy to a stop": {Method: clipcap.Greedy, Stop: 7},
	"top-p":            {Method: clipcap.TopP, TopP: 0.8},
	"sample":           {Method: clipcap.Sample, Seed: 3},
	"sample, warped":   {Method: clipcap.Sample, Seed: 3, Temperature: 0.7, TopK: 9, TopP: 0.9},
	"beam":             {Method: clipcap.Beam, Beam: 3},
	"beam to a stop":   {Method: clipcap.Beam, Beam: 5, Stop: 7},
	"transformers":     {Method: clipcap.BeamTransformers, Beam: 3, LengthPenalty: 1, Stop: 7},
	"until 5 ended":    {Method: clipcap.BeamTransformers, Beam: 5, EarlyStopping: clipcap.EarlyStoppingTrue, Stop: 7},
}

// decoded is the tolerance for log-probabilities of tokens. Off the CPU, decoding keeps
// its state on the device, in a cache of another shape, for which libtorch takes another
// attention kernel: the tokens are the CPU's, and the log-probabilities have its bits
// only for sampling and transformers' beam search. A test of nets/clipcap demands equal bits of the same path.
func decoded() float64 {
	if exact() {
		return 2e-5
	}
	return 1e-3
}

// TestDecoding compares tokens and log-probabilities of every method.
func TestDecoding(t *testing.T) { testDecoding(t, decoder) }

func TestDecodingOtherGPT2(t *testing.T) { testDecoding(t, otherDecoder) }

func testDecoding(t *testing.T, decoder func(torch.Device) *clipcap.Model) {
	for name, o := range methods {
		t.Run(name, func(t *testing.T) {
			o.MaxTokens = 10
			if o.Stop == 0 {
				o.Stop = -1
			}
			scope(t, func() error {
				var out [2][][]clipcap.Caption
				var never []int64
				for i, d := range []torch.Device{torch.CPU, device} {
					torch.ManualSeed(3)
					m := decoder(d)
					defer closeDecoder(m)
					never = m.Never
					var err error
					torch.InferenceMode(func() { out[i], err = m.Generate(t.Context(), to(d, torch.Randn([]int64{7, 16})), o) })
					if err != nil {
						return err
					}
				}
				for i, want := range out[0] {
					for k, w := range want {
						g := out[1][i][k]
						for _, id := range g.Tokens {
							if slices.Contains(never, id) {
								t.Errorf("caption %d, beam %d: token %d is never to be chosen", i, k, id)
							}
						}
						if !slices.Equal(g.Tokens, w.Tokens) {
							t.Errorf("caption %d, beam %d: %v, want %v", i, k, g.Tokens, w.Tokens)
							continue
						}
						near := func(what string, g, w float64) {
							same := exact() && (o.Method == clipcap.Sample || o.Method == clipcap.BeamTransformers || device == torch.CPU)
							if g != w && (same || !(math.Abs(g-w) <= decoded()*max(1, math.Abs(w)))) {
								t.Errorf("caption %d, beam %d: %s is %v, want %v", i, k, what, g, w)
							}
						}
						near("log-probability", g.LogProb, w.LogProb)
						near("score", g.Score, w.Score)
						for j, p := range w.TokenLogProbs {
							near("log-probability of a token", g.TokenLogProbs[j], p)
						}
					}
				}
				return nil
			})
		})
	}
}

// TestBatcher compares captions that join and leave between tokens. New memory of the
// pretend accelerator contains NaN, so that padding that nobody wrote would spread.
func TestBatcher(t *testing.T) {
	for name, o := range methods {
		if o.Method != clipcap.Greedy && o.Method != clipcap.TopP && o.Method != clipcap.Sample {
			continue
		}
		t.Run(name, func(t *testing.T) {
			o.MaxTokens = 20
			if o.Stop == 0 {
				o.Stop = -1
			}
			scope(t, func() error {
				var out [2]map[int]clipcap.Caption
				for i, d := range []torch.Device{torch.CPU, device} {
					torch.ManualSeed(3)
					m := otherDecoder(d)
					defer closeDecoder(m)
					features := to(d, torch.Randn([]int64{9, 16}))
					b, err := m.NewBatcher(o, 4)
					if err != nil {
						return err
					}
					defer b.Close()
					out[i] = map[int]clipcap.Caption{}
					for added, step := 0, 0; added < 9 || b.Len() > 0; step++ {
						if step%3 == 0 && added < 9 && b.Room() > 0 {
							row := clipcap.RowOptions{Seed: uint64(added), MaxTokens: 4 + 5*(added%4)}
							if _, err := b.Add(features.Narrow(0, int64(added), 1), []clipcap.RowOptions{row}); err != nil {
								return err
							}
							added++
						}
						ended, err := b.Step(t.Context())
						if err != nil {
							return err
						}
						for _, c := range ended {
							out[i][c.ID] = c.Caption
						}
					}
				}
				for id := range 9 {
					got, want := out[1][id], out[0][id]
					if !slices.Equal(got.Tokens, want.Tokens) {
						t.Errorf("caption %d: %v, want %v", id, got.Tokens, want.Tokens)
						continue
					}
					for k, p := range want.TokenLogProbs {
						if g := got.TokenLogProbs[k]; g != p && (exact() || !(math.Abs(g-p) <= decoded()*max(1, math.Abs(p)))) {
							t.Errorf("caption %d: log-probability %v of token %d, want %v", id, g, k, p)
						}
					}
				}
				return nil
			})
		})
	}
}
