package train

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"cyclecap/nets/clipcap"
	"cyclecap/nets/gpt2"
	"cyclecap/torch"
)

// The trainings of BenchmarkTwoProcesses: that of the paper's CycleGAN, and one with 48 MB of gradients.
var timed = map[string]func() (Task, error){
	"cyclegan": func() (Task, error) {
		c := DefaultCycleGAN()
		c.Group, c.Epochs, c.DecayFrom = group, 1000, 1000
		return NewCycleGANTask(c, random(1024, 512, 1), random(1024, 512, 2))
	},
	"decoder": func() (Task, error) {
		m := &clipcap.Model{
			GPT2: gpt2.New(gpt2.Config{VocabSize: 1000, NPositions: 64, NEmbd: 384, NLayer: 6, NHead: 6, LayerNormEpsilon: 1e-5}),
			Mapper: clipcap.NewTransformerMapper(clipcap.TransformerConfig{FeatureWidth: 512, Width: 384, ClipLength: 4, PrefixLength: 4,
				Layers: 1, Heads: 8}),
		}
		captions := &Texts{}
		for i := range 64 {
			var ids []int
			for k := range 16 {
				ids = append(ids, (i*31+k*7)%1000)
			}
			captions.Add(ids)
		}
		return NewDecoderTask(DecoderConfig{Epochs: 1000, Batch: 8, LR: 1e-5, TuneGPT2: true, Group: group}, m,
			DecoderData{Captions: captions, Features: random(64, 512, 1)}, DecoderData{Captions: &Texts{}})
	},
}

// timeSteps runs a training and prints the milliseconds of each step after the first five.
func timeSteps(name, dir string) error {
	var task Task
	if err := torch.Scope(func() (err error) {
		torch.ManualSeed(11)
		task, err = timed[name]()
		return err
	}); err != nil {
		return err
	}
	var took []float64
	last := time.Now()
	l := &Loop{Dir: dir, Kind: name, Steps: 45, Every: 1000, Config: "c", Group: group, Progress: func(done int, _ Losses) {
		now := time.Now()
		if done > 5 {
			took = append(took, 1e3*now.Sub(last).Seconds())
		}
		last = now
	}}
	if err := l.Run(context.Background(), task); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(took)
}

// BenchmarkTwoProcesses reports the median and the least time of a step in two processes of one thread each.
func BenchmarkTwoProcesses(b *testing.B) {
	for name := range timed {
		b.Run(name, func(b *testing.B) {
			var all []float64
			for b.Loop() {
				outs := spawnTwo(b, "time "+name, b.TempDir())
				var took []float64
				if err := json.NewDecoder(strings.NewReader(outs[0])).Decode(&took); err != nil {
					b.Fatal(err, fmt.Sprintf("%q", outs[0]))
				}
				all = append(all, took...)
			}
			slices.Sort(all)
			b.ReportMetric(all[len(all)/2], "ms/step")
			b.ReportMetric(all[0], "least-ms/step")
		})
	}
}
