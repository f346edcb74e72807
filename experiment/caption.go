package experiment

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"cyclecap/data/coco"
	"cyclecap/data/tokenizer"
	"cyclecap/nets/clipcap"
	"cyclecap/torch"
	"cyclecap/train/bridge"
)

// seedCaptions are the captions of a seed, by bridge.
type seedCaptions struct {
	seed     int
	key      string
	results  map[string][]coco.Result
	decoders map[bridge.Decoder]learned
	gan      *learned
}

// stop is GPT-2's token of "." by which ClipCap ends a caption.
const stop = 13

// captions writes a caption for each validation photo by each bridge, in COCO's
// results format.
func (x *Experiment) captions(ctx context.Context, seed int, f *featureSets, gpt *model, decoders map[bridge.Decoder]learned, gan *learned) (*seedCaptions, error) {
	s := &seedCaptions{seed: seed, results: map[string][]coco.Result{}, decoders: decoders, gan: gan}
	var keys []string
	for _, b := range x.bridges {
		st := &stage{name: "caption", dir: filepath.Join(seedDir(seed), "captions-"+b.Name),
			inputs: []any{f.key, decoders[b.Decoder].key, x.Config.Caption, x.Config.Data.Pairing, seed}}
		if b.CycleGAN {
			st.inputs = append(st.inputs, gan.key)
		}
		if b.Name == "decap" {
			st.inputs = append(st.inputs, x.Config.Bridges.DeCapMemory, x.Config.Bridges.DeCapTemperature)
		}
		st.do = func(ctx context.Context, dir string) error {
			return x.captionBridge(ctx, b, seed, f, gpt, decoders[b.Decoder], gan, filepath.Join(dir, "results.json"))
		}
		if err := x.run(ctx, st); err != nil {
			return nil, err
		}
		r, err := coco.ReadResults(filepath.Join(x.Dir, st.dir, "results.json"))
		if err != nil {
			return nil, err
		}
		s.results[b.Name] = r
		keys = append(keys, b.Name, st.key())
	}
	s.key = strings.Join(keys, " ")
	return s, nil
}

// env is what a bridge may learn from.
func (x *Experiment) env(b bridge.Bridge, seed int, f *featureSets, gan *learned) (e bridge.Env, err error) {
	e = bridge.Env{Normalized: x.Config.Train.Decoder.NormalizePrefix, Length: 1,
		Temperature: x.Config.Bridges.DeCapTemperature, Memory: x.Config.Bridges.DeCapMemory, Seed: uint64(seed), Device: x.device}
	e.Images, e.Texts = f.unpaired()
	if !e.Normalized {
		if e.Length, err = bridge.MeanLength(e.Texts); err != nil {
			return e, err
		}
	}
	if b.CycleGAN {
		e.Generator, err = x.loadGenerator(gan.path)
	}
	return e, err
}

func (x *Experiment) captionBridge(ctx context.Context, b bridge.Bridge, seed int, f *featureSets, gpt *model, d learned, gan *learned, path string) error {
	return scope(seed, func() error {
		m, err := x.loadDecoder(d.path, gpt)
		if err != nil {
			return err
		}
		defer closing(m.Mapper, m.GPT2)
		e, err := x.env(b, seed, f, gan)
		if err != nil {
			return err
		}
		transform, err := b.Fit(e)
		if err != nil {
			return err
		}
		c := x.Config.Caption
		o := clipcap.Options{Method: clipcap.Method(c.Decode), Beam: c.Beam, MaxTokens: c.MaxTokens, Stop: stop}
		if room := int(m.GPT2.Config.NPositions - m.Mapper.PrefixLength() + 1); o.MaxTokens > room {
			o.MaxTokens = room
		}
		n := f.valImages.Len()
		bar := x.UI.Bar(b.Name+" captions", 0, n)
		defer bar.Finish()
		var results []coco.Result
		for at := 0; at < n; at += c.Batch {
			if err := ctx.Err(); err != nil {
				return err
			}
			rows := span(at, min(n, at+c.Batch))
			err := torch.Scope(func() (err error) {
				torch.InferenceMode(func() {
					var features torch.Tensor
					if features, err = tensorOf(f.valImages, rows, x.device); err != nil {
						return
					}
					for i, beams := range m.Generate(transform(features), o) {
						text, e := decode(beams[0])
						if e != nil {
							err = e
							return
						}
						results = append(results, coco.Result{ImageID: f.valImageIDs[at+i], Caption: text})
					}
				})
				return err
			})
			if err != nil {
				return err
			}
			bar.Set(len(results), "")
		}
		return coco.WriteResults(path, results)
	})
}

func decode(c clipcap.Caption) (string, error) {
	ids := make([]int, len(c.Tokens))
	for i, id := range c.Tokens {
		ids[i] = int(id)
	}
	text, err := tokenizer.GPT2().Decode(ids)
	return strings.TrimSpace(text), err
}

func span(from, to int) []int32 {
	rows := make([]int32, to-from)
	for i := range rows {
		rows[i] = int32(from + i)
	}
	return rows
}

func tensorOf(f interface {
	Width() int
	Read([]int32, []float32) error
}, rows []int32, d torch.Device) (torch.Tensor, error) {
	data := make([]float32, len(rows)*f.Width())
	if err := f.Read(rows, data); err != nil {
		return torch.Tensor{}, fmt.Errorf("features: %w", err)
	}
	return torch.FromSlice(data, int64(len(rows)), int64(f.Width())).To(torch.WithDevice(d)), nil
}
