package experiment

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"

	"cyclecap/data/coco"
	"cyclecap/data/features"
	"cyclecap/nets/clipcap"
	"cyclecap/pipeline"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/train"
	"cyclecap/train/bridge"
)

// seedCaptions are the captions of a run with one seed in one world, by bridge.
type seedCaptions struct {
	in       *Experiment // the experiment in its world
	seed     int
	hashes   map[string]string // of the captions of each bridge
	keys     map[string]string // of the stages that wrote them
	results  map[string][]coco.Result
	decoders map[bridge.Decoder]learned
	gan      *learned
	fits     map[string]*fitted // by bridge
}

// captions captions every validation photo with every bridge and writes the captions in
// COCO's results format.
func (x *Experiment) captions(ctx context.Context, seed int, f *featureSets, gpt *model, decoders map[bridge.Decoder]learned, gan *learned) (*seedCaptions, error) {
	s := &seedCaptions{in: x, seed: seed, results: map[string][]coco.Result{}, hashes: map[string]string{}, keys: map[string]string{}, decoders: decoders, gan: gan, fits: map[string]*fitted{}}
	var unfinished error // in a dry run
	ids := make([]string, len(f.valImageIDs))
	for i, id := range f.valImageIDs {
		ids[i] = x.data.val.id(id).String()
	}
	images := []string{f.results.valImages, features.Hash(ids...)}
	for _, b := range x.bridges {
		st := &stage{name: "caption", dir: filepath.Join(seedDir(seed), "captions-"+b.Name), products: []string{resultsFile}, shared: true,
			settings: []any{b.Name, x.Config.Caption, x.Config.Train.Decoder.NormalizePrefix, seed},
			outcome:  fmt.Sprintf("%d captions", f.valImages.Len()),
			// A decoder's file may lack a GPT-2, and has no tokenizer.
			inputs: append(slices.Clone(images), decoders[b.Decoder].result, gpt.id)}
		if b.CycleGAN {
			st.inputs = append(st.inputs, gan.result)
		}
		if b.Sets {
			st.inputs = append(st.inputs, f.unpairedInputs()...)
		}
		for _, setting := range b.Settings {
			st.settings = append(st.settings, x.Config.Bridges.Settings[setting.Key])
		}
		st.do = func(ctx context.Context, dir string) error {
			return x.captionBridge(ctx, b, seed, f, gpt, decoders[b.Decoder], gan, filepath.Join(dir, resultsFile))
		}
		if err := x.run(ctx, st); errors.Is(err, errUnfinished) {
			unfinished = err
			continue
		} else if err != nil {
			return nil, err
		}
		r, err := coco.ReadResults(filepath.Join(x.folder(st), resultsFile))
		if err != nil {
			return nil, err
		}
		s.results[b.Name] = r
		if s.fits[b.Name], err = readFit(x.folder(st)); err != nil {
			return nil, err
		}
		s.hashes[b.Name], s.keys[b.Name] = st.result, st.key()
	}
	return s, unfinished
}

// inputs are what the evaluation reads of the captions and their world.
func (s *seedCaptions) inputs() ([]string, error) {
	x := s.in
	list := []string{fmt.Sprint(s.seed), x.data.val.referenceHash()}
	for _, b := range x.bridges {
		list = append(list, b.Name, s.hashes[b.Name])
	}
	shown, err := x.shown()
	if shown != nil {
		list = append(list, features.Hash(fmt.Sprint(shown))) // fmt sorts the keys
	}
	return list, err
}

// resultsFile is the name of the file with a bridge's captions.
const resultsFile = "results.json"

// env returns the data that a bridge may use.
func (x *Experiment) env(b bridge.Bridge, seed int, f *featureSets, gan *learned) (e bridge.Env, err error) {
	e = bridge.Env{Normalized: x.Config.Train.Decoder.NormalizePrefix, Length: 1,
		Settings: x.Config.Bridges.Settings, Seed: uint64(seed), Device: x.device}
	if b.Sets {
		e.Images, e.Texts = f.unpaired()
		if !e.Normalized {
			if e.Length, err = bridge.MeanLength(e.Texts); err != nil {
				return e, err
			}
		}
	}
	if b.CycleGAN {
		g, err := pipeline.LoadGenerator(gan.path, pipeline.Options{Device: x.device})
		if err != nil {
			return e, err
		}
		e.Generator = g.Model
	}
	return e, nil
}

func (x *Experiment) captionBridge(ctx context.Context, b bridge.Bridge, seed int, f *featureSets, gpt *model, d learned, gan *learned, file string) error {
	return scope(seed, func() error {
		// If the decoder's file contains a GPT-2, gpt.path is only where its tokenizer is.
		m, err := pipeline.LoadDecoder(d.path, gpt.path, pipeline.Options{Device: x.device})
		if err != nil {
			return err
		}
		defer m.Close()
		e, err := x.env(b, seed, f, gan)
		if err != nil {
			return err
		}
		if e.Generator != nil {
			defer nn.Close(e.Generator)
		}
		// All processes fit the same; rank 0 says what it took.
		fit := func(b bridge.Bridge, e bridge.Env, _ string) (bridge.Transform, error) { return b.Fit(e) }
		if x.Group.Rank() == 0 {
			fit = x.fit
		}
		transform, err := fit(b, e, filepath.Dir(file))
		if err != nil {
			return err
		}
		c := x.Config.Caption
		o := clipcap.Options{Method: clipcap.Method(c.Decode), Beam: c.Beam, MaxTokens: min(c.MaxTokens, m.Model.Room()), Stop: m.Stop,
			LengthPenalty: c.LengthPenalty, EarlyStopping: clipcap.EarlyStopping(c.EarlyStopping)}
		n := f.valImages.Len()
		bar := x.UI.Bar(path.Join(x.place, seedDir(seed), b.Name)+" captions", 0, n)
		defer bar.Finish()
		var results []coco.Result
		share, own, err := divided(x, 0, n, c.Batch, func(list []coco.Result) error {
			results = append(results, list...)
			bar.Set(len(results), "")
			return nil
		})
		if err != nil {
			return err
		}
		caption := func(index []int32) (list []coco.Result, err error) {
			err = torch.Scope(func() (err error) {
				torch.InferenceMode(func() {
					var rows torch.Tensor
					if rows, err = train.Rows(f.valImages, index, x.device); err != nil {
						return
					}
					var captions [][]pipeline.Caption
					if captions, err = m.Generate(ctx, transform(rows), o); err != nil {
						if bad := (*pipeline.NotFiniteError)(nil); errors.As(err, &bad) {
							err = fmt.Errorf("captions of bridge %s: image id %s: %w", b.Name, x.data.val.id(f.valImageIDs[index[bad.Index]]), err)
						}
						return
					}
					for i, beams := range captions {
						list = append(list, coco.Result{ImageID: x.data.val.id(f.valImageIDs[index[i]]), Caption: beams[0].Text})
					}
				})
				return err
			})
			return list, err
		}
		err = share.run(func() error {
			for index := range slices.Chunk(own, c.Batch) {
				if err := ctx.Err(); err != nil {
					return err
				}
				list, err := caption(index)
				if err != nil {
					return err
				}
				if err := share.give(list); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || x.Group.Rank() > 0 {
			return err
		}
		return coco.WriteResults(file, results)
	})
}
