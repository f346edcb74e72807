package clipcap_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"cyclecap/nets/clipcap"
	"cyclecap/nets/gpt2"
	"cyclecap/torch"
	"cyclecap/torch/nn"
)

// BenchmarkBatcher decodes captions of 8 to 20 tokens with a GPT-2 of the smallest real
// size, on one thread. As soon as one ends, the next joins: with room for 1, one by one.
func BenchmarkBatcher(b *testing.B) {
	threads := torch.NumThreads()
	torch.SetNumThreads(1)
	defer torch.SetNumThreads(threads)
	torch.TuneAllocator()
	err := torch.Scope(func() error {
		torch.ManualSeed(1)
		m := &clipcap.Model{
			Mapper: clipcap.NewMLPMapper(512, 768, 10),
			GPT2:   gpt2.New(gpt2.Config{VocabSize: 50257, NPositions: 1024, NEmbd: 768, NLayer: 12, NHead: 12, LayerNormEpsilon: 1e-5}),
		}
		defer nn.Close(m.GPT2)
		defer nn.Close(m.Mapper)
		var features torch.Tensor
		torch.InferenceMode(func() { features = torch.Randn([]int64{1, 512}) })
		for _, most := range []int{1, 8, 32} {
			b.Run(fmt.Sprintf("room=%d", most), func(b *testing.B) {
				batch, err := m.NewBatcher(clipcap.Options{Method: clipcap.Greedy, MaxTokens: 67, Stop: -1}, most)
				if err != nil {
					b.Fatal(err)
				}
				defer batch.Close()
				r := rand.New(rand.NewPCG(1, 2))
				tokens := 0
				step := func() {
					for batch.Room() > 0 {
						if _, err := batch.Add(features, []clipcap.RowOptions{{MaxTokens: 8 + r.IntN(13)}}); err != nil {
							b.Fatal(err)
						}
					}
					if _, err := batch.Step(b.Context()); err != nil {
						b.Fatal(err)
					}
					tokens += most
				}
				for range 20 { // until the captions are of every age
					step()
				}
				tokens = 0
				for b.Loop() {
					step()
				}
				b.ReportMetric(float64(tokens)/b.Elapsed().Seconds(), "tokens/s")
			})
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}
