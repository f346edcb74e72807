package selftest

import (
	"context"
	"fmt"
	"math"
	"slices"

	"cyclecap/nets/clipcap"
	"cyclecap/torch"
	"cyclecap/torch/nn"
)

// decodings returns the checks of decoding. What is compared are the log-probabilities
// of the tokens, with those that the f64 network gives the same captions when it reads
// each as a whole. So the key-value cache is checked as well, and bf16 may choose other
// tokens. The tokens of greedy and beam search in f32 must be those that f64 chooses.
func decodings() []Check {
	base := clipcap.Options{MaxTokens: 16, Stop: clipcap.Stop}
	greedy, beam, sample := base, base, base
	greedy.Method = clipcap.Greedy
	beam.Method, beam.Beam = clipcap.Beam, 4
	sample.Method, sample.TopP, sample.Temperature, sample.Seed = clipcap.Sample, 0.9, 1.5, 7
	return []Check{
		{"decoding, greedy, f32", boundF32, decoding(greedy, torch.Float32)},
		{"decoding, greedy, bf16", boundBF16, decoding(greedy, torch.BFloat16)},
		{"decoding, beam search, f32", boundF32, decoding(beam, torch.Float32)},
		{"decoding, beam search, bf16", boundBF16, decoding(beam, torch.BFloat16)},
		{"decoding, sampling, f32", boundF32, decoding(sample, torch.Float32)},
	}
}

func newDecoder(d torch.Device, dtype torch.DType) *clipcap.Model {
	m := &clipcap.Model{Mapper: build(1, newMapper), GPT2: build(2, newGPT2)}
	place(m, d, dtype)
	return m
}

func decoding(o clipcap.Options, dtype torch.DType) func(context.Context, torch.Device) (float64, error) {
	return func(ctx context.Context, d torch.Device) (off float64, err error) {
		torch.NoGrad(func() {
			x := features(3, 4)
			m := newDecoder(d, dtype)
			defer nn.Close(m)
			reference := newDecoder(torch.CPU, torch.Float64)
			defer nn.Close(reference)
			var got [][]clipcap.Caption
			if got, err = m.Generate(ctx, x.To(torch.WithDevice(d)).To(torch.WithDType(dtype)), o); err != nil {
				return
			}
			if dtype == torch.Float32 && o.Method != clipcap.Sample {
				var want [][]clipcap.Caption
				if want, err = reference.Generate(ctx, toF64(x), o); err != nil {
					return
				}
				if err = sameTokens(got, want); err != nil {
					return
				}
			}
			prefix := reference.Mapper.Forward(toF64(x))
			for i, captions := range got {
				for _, c := range captions {
					off = max(off, scoreDifference(reference, prefix.Narrow(0, int64(i), 1), c))
				}
			}
		})
		return off, err
	}
}

func sameTokens(got, want [][]clipcap.Caption) error {
	for i := range want {
		if len(got[i]) != len(want[i]) {
			return fmt.Errorf("feature %d has %d captions, want %d", i, len(got[i]), len(want[i]))
		}
		for j := range want[i] {
			if !slices.Equal(got[i][j].Tokens, want[i][j].Tokens) {
				return fmt.Errorf("the tokens of caption %d of feature %d are %v, want %v", j, i, got[i][j].Tokens, want[i][j].Tokens)
			}
		}
	}
	return nil
}

// scoreDifference compares the log-probabilities of a caption with those that m gives
// it, relative to the largest.
func scoreDifference(m *clipcap.Model, prefix torch.Tensor, c clipcap.Caption) (off float64) {
	n := int64(len(c.Tokens))
	torch.Tidy(func() torch.Tensor {
		tokens := torch.FromSlice(c.Tokens, 1, n)
		embeds := torch.Cat([]torch.Tensor{prefix, m.GPT2.Embed(tokens)}, torch.WithDim(1))
		logits := m.GPT2.Logits(m.GPT2.Forward(embeds, nil, torch.Tensor{})).Narrow(1, prefix.Size(1)-1, n)
		logp := torch.ToSlice[float64](logits.LogSoftmax(-1).Gather(2, tokens.Unsqueeze(2)).Flatten())
		var largest float64
		for i, want := range logp {
			off = max(off, math.Abs(c.TokenLogProbs[i]-want))
			largest = max(largest, math.Abs(want))
		}
		off /= largest
		return torch.Tensor{}
	})
	return off
}
