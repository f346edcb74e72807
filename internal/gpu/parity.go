package main

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"cyclecap/data/photo"
	"cyclecap/internal/parity"
	"cyclecap/nets/clip"
	"cyclecap/nets/clipcap"
	"cyclecap/pipeline"
	"cyclecap/torch"
	"cyclecap/torch/compare"
	"cyclecap/torch/cuda"
	"cyclecap/torch/nn"
	"cyclecap/torch/optim"
	"cyclecap/train"
)

const (
	openAI       = "OpenAI's CLIP in plain PyTorch"
	transformers = "transformers"
	clipCap      = "ClipCap's rules in PyTorch"
	cycleGAN     = "CycleGAN's rules in PyTorch"
	beams        = 5
)

// comparison adds a row.
func (e *env) comparison(what, peer, dtype string, d compare.Difference, tolerance compare.Tolerance) {
	equal := d.Equal()
	out := row{Name: what, Peer: peer, DType: dtype, Elements: d.Elements, Differing: d.Differing, Bound: tolerance.String(), BitEqual: &equal}
	difference := d.Max
	if tolerance.Relative > 0 {
		difference = d.Relative()
	}
	out.Difference = finite(difference)
	switch {
	case equal:
		out.Verdict = bitEqual
	case tolerance.Within(d):
		out.Verdict, out.Note = within, tolerance.Why
	case d.Mismatch != "":
		out.Verdict, out.Note = outside, d.Mismatch
	default:
		out.Verdict = outside
		out.Note = fmt.Sprintf("%d of %d elements differ, by %.1e of the largest; first at %v", d.Differing, d.Elements, d.Relative(), d.First)
		if tolerance.Why != "" {
			out.Note += "; expected: " + tolerance.Why
		}
	}
	e.add(out)
}

// finite returns a number as JSON can hold it.
func finite(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

// attempt runs a part of a section; if it fails, the others still run.
func (e *env) attempt(name string, f func() error) {
	if e.left() <= 0 {
		e.add(row{Name: name, Verdict: absent, Note: "the section's time was used up"})
		return
	}
	if err := torch.Scope(f); err != nil {
		e.add(row{Name: name, Verdict: failed, Note: err.Error()})
	}
}

// precision sets both sides' handling of f32.
func (e *env) precision(dtype string) error {
	if e.on.Type == torch.CUDADevice {
		cuda.AllowTF32(dtype == "tf32", dtype == "tf32")
	}
	return e.ask(e.left(), "precision", args{"dtype": dtype}, nil)
}

func parityRows(e *env) error {
	if err := e.precision("f32"); err != nil {
		return err
	}
	e.attempt("photos", e.photosAgree)
	e.attempt("CLIP", e.clipAgrees)
	e.attempt("mapper and GPT-2", e.decoderAgrees)
	e.attempt("captions", e.captionsAgree)
	e.attempt("mapper training", e.mapperTrainingAgrees)
	e.attempt("CycleGAN training", e.cycleGANTrainingAgrees)
	return nil
}

// photosAgree compares the decoding and resizing of photos, which both sides do on the CPU.
func (e *env) photosAgree() error {
	paths, err := e.photoFiles()
	if err != nil {
		return err
	}
	want, err := e.reference("photos", args{"paths": paths}, nil)
	if err != nil {
		e.add(row{Name: "photos, decoded and preprocessed", Peer: "Pillow, torchvision", Verdict: skipped, Note: err.Error()})
		return nil
	}
	defer want.Close()
	pre := photo.CLIP(224)
	pixels := make([]float32, len(paths)*pre.Len())
	for i, path := range paths {
		m, err := photo.Decode(path)
		if err != nil {
			return err
		}
		if err := pre.Into(pixels[i*pre.Len():(i+1)*pre.Len()], m); err != nil {
			return err
		}
	}
	w, _ := want.Get("pixels")
	got := torch.FromSlice(pixels, int64(len(paths)), 3, 224, 224)
	e.comparison(fmt.Sprintf("%d photos, decoded and preprocessed", len(paths)), "Pillow, torchvision", "f32", compare.Tensors(got, w), compare.Bits)
	return nil
}

func (e *env) photoFiles() ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(e.photos, "*.jpg"))
	if err == nil && len(paths) == 0 {
		err = fmt.Errorf("%s contains no photos", e.photos)
	}
	if err != nil {
		return nil, err
	}
	return paths[:min(4, len(paths))], nil
}

// inputs returns an input that the peer made, on the device.
func (e *env) inputs(name string, dtype torch.DType) (torch.Tensor, error) {
	sd, err := load(e.path("inputs.safetensors"))
	if err != nil {
		return torch.Tensor{}, err
	}
	defer sd.Close()
	t, ok := sd.Get(name)
	if !ok {
		return torch.Tensor{}, fmt.Errorf("inputs.safetensors has no tensor %s", name)
	}
	// A copy of its own, which is aligned as PyTorch's are.
	t = t.Clone()
	if t.DType() != torch.Int64 {
		t = t.To(torch.WithDType(dtype))
	}
	return t.To(torch.WithDevice(e.on)), nil
}

func dtypeOf(name string) torch.DType {
	if name == "bf16" {
		return torch.BFloat16
	}
	return torch.Float32
}

// near compares a result in bf16: with the peer's, and by its distance from the peer's in
// f32, which is the error that bf16 makes.
func (e *env) near(what, peer string, got, theirs, exact torch.Tensor) {
	f32 := torch.WithDType(torch.Float32) // which holds all of bf16
	got, theirs, exact = got.To(f32), theirs.To(f32), exact.To(f32)
	distance := func(t torch.Tensor) (mean float64) { return compare.Tensors(t, exact).Mean }
	d := compare.Tensors(got, theirs)
	ours, bound := distance(got), 1.25*distance(theirs)
	equal := d.Equal()
	out := row{Name: what, Peer: peer, DType: "bf16", Elements: d.Elements, Differing: d.Differing, BitEqual: &equal,
		Difference: finite(ours), Bound: fmt.Sprintf("%.2g", bound), Verdict: outside}
	switch {
	case equal:
		out.Verdict, out.Difference = bitEqual, finite(0)
	case ours <= bound:
		out.Verdict = within
		out.Note = fmt.Sprintf("mean distance from f32; the peer's is %.2g, and the two differ by %.1e of the largest", bound/1.25, d.Relative())
	}
	e.add(out)
}

const (
	separate = "transformers has three layers for query, key and value, where OpenAI's CLIP has one"
	causal   = "OpenAI's code passes the causal mask as a tensor; ours is a flag, for which attention may use another kernel"
)

func (e *env) clipAgrees() error {
	for _, dtype := range []string{"f32", "bf16"} {
		m, err := pipeline.LoadCLIP(e.path("clip.pt"), "", clip.Both, pipeline.Options{Device: e.on, BF16: dtype == "bf16"})
		if err != nil {
			return err
		}
		for _, what := range []string{"image", "text"} {
			input := map[string]string{"image": "pixels", "text": "text_ids"}[what]
			for _, batch := range []int{1, e.sizes.Images} {
				err := torch.Scope(func() error {
					x, err := e.inputs(input, dtypeOf(dtype))
					if err != nil {
						return err
					}
					var got torch.Tensor
					torch.InferenceMode(func() {
						if x = x.Narrow(0, 0, int64(batch)); what == "image" {
							got = m.Model.EncodeImage(x)
						} else {
							got = m.Model.EncodeText(x)
						}
					})
					name := fmt.Sprintf("CLIP %s features, batch %d", what, batch)
					for _, peer := range []string{"openai", "transformers"} {
						label, tolerance := openAI, compare.Bits
						if peer == "transformers" {
							label, tolerance = transformers, compare.Tolerance{Why: separate, Relative: 1e-5}
						} else if what == "text" {
							tolerance = compare.Tolerance{Why: causal, Relative: 1e-5}
						}
						request := args{"what": what, "peer": peer, "dtype": dtype, "batch": batch}
						want, err := e.tensor("clip_features", "features", request)
						if err != nil {
							return err
						}
						if dtype == "f32" {
							e.comparison(name, label, dtype, compare.Tensors(got, want), tolerance)
							continue
						}
						if peer == "transformers" || batch == 1 {
							continue
						}
						request["dtype"] = "f32"
						exact, err := e.tensor("clip_features", "features", request)
						if err != nil {
							return err
						}
						e.near(name, label, got, want, exact)
					}
					return nil
				})
				if err != nil {
					return err
				}
			}
		}
		m.Close()
	}
	return e.ask(e.left(), "forget", args{"what": []string{"openai", "transformers"}}, nil)
}

// tensor returns one tensor of a reference.
func (e *env) tensor(name, tensor string, a args) (torch.Tensor, error) {
	sd, err := e.reference(name, a, nil)
	if err != nil {
		return torch.Tensor{}, err
	}
	defer sd.Close()
	t, ok := sd.Get(tensor)
	if !ok {
		return t, fmt.Errorf("the reference of %s has no tensor %s", name, tensor)
	}
	return t.Clone(), nil
}

func (e *env) decoder(dtype string) (*pipeline.Decoder, error) {
	return pipeline.LoadDecoder(e.path("decoder.pt"), e.path("gpt2"), pipeline.Options{Device: e.on, BF16: dtype == "bf16"})
}

func (e *env) decoderAgrees() error {
	for _, dtype := range []string{"f32", "bf16"} {
		d, err := e.decoder(dtype)
		if err != nil {
			return err
		}
		features, err := e.inputs("features", dtypeOf(dtype))
		if err != nil {
			return err
		}
		for _, batch := range []int{1, min(16, e.sizes.Features)} {
			var got torch.Tensor
			torch.InferenceMode(func() { got = d.Model.Mapper.Forward(features.Narrow(0, 0, int64(batch))) })
			want, err := e.tensor("mapper", "prefix", args{"dtype": dtype, "batch": batch})
			if err != nil {
				return err
			}
			name := fmt.Sprintf("transformer mapper, batch %d", batch)
			if dtype == "f32" {
				e.comparison(name, clipCap, dtype, compare.Tensors(got, want), compare.Bits)
			} else if batch > 1 {
				exact, err := e.tensor("mapper", "prefix", args{"dtype": "f32", "batch": batch})
				if err != nil {
					return err
				}
				e.near(name, clipCap, got, want, exact)
			}
		}
		embeds, err := e.inputs("embeds", dtypeOf(dtype))
		if err != nil {
			return err
		}
		ids, err := e.inputs("ids", torch.Int64)
		if err != nil {
			return err
		}
		got := map[string]torch.Tensor{}
		torch.InferenceMode(func() {
			m, none := d.Model.GPT2, torch.Tensor{}
			last := func(h torch.Tensor) torch.Tensor { return m.Logits(h).Slice(torch.WithDim(1), torch.WithStart(-2)) }
			got["embeds"] = last(m.Forward(embeds, nil, none))
			got["ids"] = last(m.Forward(m.Embed(ids), nil, none))
			cache := m.NewCache(embeds.Size(0), embeds.Size(1)+ids.Size(1))
			defer cache.Close()
			m.Forward(embeds, cache, none)
			var h torch.Tensor
			for i := range ids.Size(1) {
				h = m.Forward(m.Embed(ids.Narrow(1, i, 1)), cache, none)
			}
			got["cache"] = m.Logits(h)
		})
		want, err := e.reference("logits", args{"dtype": dtype}, nil)
		if err != nil {
			return err
		}
		var exact *nn.StateDict
		if dtype == "bf16" {
			if exact, err = e.reference("logits", args{"dtype": "f32"}, nil); err != nil {
				return err
			}
			defer exact.Close()
		}
		defer want.Close()
		for _, what := range []string{"embeds", "ids", "cache"} {
			name := map[string]string{"embeds": "GPT-2 logits of embeddings", "ids": "GPT-2 logits of ids", "cache": "GPT-2 logits with a cache"}[what]
			w, _ := want.Get(what)
			if dtype == "f32" {
				e.comparison(name, transformers, dtype, compare.Tensors(got[what], w), compare.Bits)
			} else {
				x, _ := exact.Get(what)
				e.near(name, transformers, got[what], w, x)
			}
		}
		d.Close()
	}
	return nil
}

// tokens returns the best caption's tokens of the first n features.
func tokens(captions [][]pipeline.Caption) (ids [][]int64) {
	for _, c := range captions {
		ids = append(ids, c[0].Tokens)
	}
	return ids
}

func (e *env) generate(d *pipeline.Decoder, n int, o clipcap.Options) (out [][]pipeline.Caption, err error) {
	o.Beam, o.MaxTokens = beams, e.sizes.Tokens
	features, err := e.inputs("features", torch.Float32)
	if err != nil {
		return nil, err
	}
	torch.InferenceMode(func() { out, err = d.Generate(context.Background(), features.Narrow(0, 0, int64(n)), o) })
	return out, err
}

func (e *env) captionsAgree() error {
	for _, dtype := range []string{"f32", "bf16"} {
		d, err := e.decoder(dtype)
		if err != nil {
			return err
		}
		n := min(16, e.sizes.Features)
		for _, method := range []clipcap.Method{clipcap.Greedy, clipcap.Beam} {
			k := 1
			if method == clipcap.Beam {
				k = beams
			}
			captions, err := e.generate(d, n, clipcap.Options{Method: method, Stop: -1})
			if err != nil {
				return err
			}
			var want struct{ Tokens [][]int64 }
			if _, err := e.reference("captions", args{"dtype": dtype, "batch": n, "beams": k}, &want); err != nil {
				return err
			}
			got := tokens(captions)
			name := fmt.Sprintf("%s tokens of %d captions", method, n)
			if dtype == "f32" {
				e.comparison(name, "transformers' generate", dtype, compare.Lists(got, want.Tokens), compare.Bits)
				continue
			}
			same := 0
			for i := range got {
				if slices.Equal(got[i], want.Tokens[i]) {
					same++
				}
			}
			e.add(row{Name: name, Peer: "transformers' generate", DType: dtype, Verdict: measured,
				Note: fmt.Sprintf("%d of %d captions are the same; no bound: the rounding of bf16 decides close calls, and all later tokens follow", same, n)})
		}
		if dtype == "f32" {
			if err := e.clipCapAgrees(d); err != nil {
				return err
			}
		}
		d.Close()
	}
	return nil
}

// clipCapAgrees compares with ClipCap's own loops, which have no cache.
func (e *env) clipCapAgrees(d *pipeline.Decoder) error {
	const n = 2
	var want struct {
		Greedy [][]int64
		Beams  [][][]int64
		Scores [][]float64
	}
	if _, err := e.reference("clipcap", args{"batch": n, "stop": e.sizes.Stop}, &want); err != nil {
		return err
	}
	greedy, err := e.generate(d, n, clipcap.Options{Method: clipcap.TopP, Stop: e.sizes.Stop})
	if err != nil {
		return err
	}
	e.comparison(fmt.Sprintf("top-p tokens of %d captions", n), clipCap+", no cache", "f32", compare.Lists(tokens(greedy), want.Greedy), compare.Bits)
	all, err := e.generate(d, n, clipcap.Options{Method: clipcap.Beam, Stop: e.sizes.Stop})
	if err != nil {
		return err
	}
	var got, ids [][]int64
	var scores, wanted []float64
	for i, captions := range all {
		for j, c := range captions {
			got, ids = append(got, c.Tokens), append(ids, want.Beams[i][j])
			scores, wanted = append(scores, c.Score), append(wanted, want.Scores[i][j])
		}
	}
	e.comparison(fmt.Sprintf("tokens of all %d beams of %d captions", beams, n), clipCap+", no cache", "f32", compare.Lists(got, ids), compare.Bits)
	e.comparison(fmt.Sprintf("scores of all %d beams of %d captions", beams, n), clipCap+", no cache", "f32", compare.Numbers(scores, wanted),
		compare.Tolerance{Why: "the cache computes one position at a time, and all photos at once", Relative: 1e-5})
	return nil
}

const (
	trainLR = 1e-4
	warmup  = 5
	seed    = 20261126
)

// mapperTrainingAgrees trains a mapper for 20 steps, in ClipCap's way and in that of
// production.
func (e *env) mapperTrainingAgrees() error {
	want, err := e.reference("train_mapper", args{"lr": trainLR, "warmup": warmup}, nil)
	if err != nil {
		return err
	}
	defer want.Close()
	losses, err := e.exactMapper(want)
	if err != nil {
		return err
	}
	first, m, err := e.productionMapper()
	if err != nil {
		return err
	}
	l, _ := want.Get("losses")
	theirs, may := torch.ToSlice[float64](l), parity.Production("real", trainLR)
	e.comparison("losses of 20 mapper steps, ClipCap's way", clipCap, "f32", compare.Numbers(losses, theirs), compare.Bits)
	e.comparison("losses of 20 mapper steps, production's way", clipCap, "f32", compare.Numbers(first, theirs), may.Losses)
	e.comparison("weights after 20 mapper steps, production's way", clipCap, "f32", parity.Tensors(nn.NamedParameters(m.Mapper), under(want, "weight.")), may.Weights)
	second, again, err := e.productionMapper()
	if err != nil {
		return err
	}
	const itself = "the same training, run again"
	e.comparison("losses of 20 mapper steps", itself, "f32", compare.Numbers(second, first), compare.Bits)
	e.comparison("weights after 20 mapper steps", itself, "f32", parity.Tensors(nn.NamedParameters(again.Mapper), nn.StateDictOf(m.Mapper)), compare.Bits)
	for _, x := range []*clipcap.Model{m, again} {
		nn.Close(x.Mapper)
		nn.Close(x.GPT2)
	}
	return nil
}

// under returns the tensors whose names begin with a prefix, without it.
func under(sd *nn.StateDict, prefix string) *nn.StateDict {
	out := nn.NewStateDict()
	for _, name := range sd.Names() {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			t, _ := sd.Get(name)
			out.Add(rest, t)
		}
	}
	return out
}

// exactMapper trains with ClipCap's loss as ClipCap computes it.
func (e *env) exactMapper(want *nn.StateDict) (losses []float64, err error) {
	d, err := e.decoder("f32")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	m := d.Model
	features, err := e.inputs("train_features", torch.Float32)
	if err != nil {
		return nil, err
	}
	tokens, err := e.inputs("train_tokens", torch.Int64)
	if err != nil {
		return nil, err
	}
	nn.SetRequiresGrad(m.GPT2, false)
	nn.SetRequiresGrad(m.Mapper, true)
	o := optim.TransformersAdamWDefaults()
	o.LR = trainLR
	opt := optim.TransformersAdamW(nn.Parameters(m.Mapper), o)
	defer opt.Close()
	steps := int(features.Size(0))
	for i := range steps {
		err := torch.Scope(func() error {
			opt.SetLR(trainLR * optim.WarmupLinear(i, warmup, steps))
			opt.ZeroGrad()
			l := train.DecoderLoss(m, features.Select(0, int64(i)), tokens.Select(0, int64(i)), true)
			l.Backward()
			losses = append(losses, l.Item())
			if i == 0 {
				var got []nn.Named
				for _, p := range nn.NamedParameters(m.Mapper) {
					grad := p.Tensor.Grad()
					got = append(got, nn.Named{Name: p.Name, Tensor: &grad})
				}
				e.comparison("gradients of the first mapper step, ClipCap's way", clipCap, "f32", parity.Tensors(got, under(want, "gradient.")), compare.Bits)
			}
			opt.Step()
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	e.comparison("weights after 20 mapper steps, ClipCap's way", clipCap, "f32", parity.Tensors(nn.NamedParameters(m.Mapper), under(want, "weight.")), compare.Bits)
	return losses, nil
}

// productionMapper trains as `cyclecap train` does.
func (e *env) productionMapper() (losses []float64, m *clipcap.Model, err error) {
	d, err := e.decoder("f32")
	if err != nil {
		return nil, nil, err
	}
	features, err := e.inputs("train_features", torch.Float32)
	if err != nil {
		return nil, nil, err
	}
	ids, err := e.inputs("train_tokens", torch.Int64)
	if err != nil {
		return nil, nil, err
	}
	steps, batch, length := int(ids.Size(0)), int(ids.Size(1)), int(ids.Size(2))
	// The task shuffles the captions back into the reference's order.
	flat := torch.ToSlice[int64](ids)
	texts := make([][]int, steps*batch)
	order := train.Order{N: len(texts), Batch: batch}
	for k := range texts {
		at := order.Indices(k / batch)[k%batch]
		for _, id := range flat[k*length : (k+1)*length] {
			if id != 0 {
				texts[at] = append(texts[at], int(id))
			}
		}
	}
	captions := &train.Texts{}
	for _, text := range texts {
		captions.Add(text)
	}
	task, err := train.NewDecoderTask(train.DecoderConfig{Epochs: 1, Batch: batch, LR: trainLR, WarmupSteps: warmup, Device: e.on},
		d.Model, train.DecoderData{Captions: captions, Features: parity.InOrder(features, batch, 0)}, train.DecoderData{Captions: &train.Texts{}})
	if err != nil {
		return nil, nil, err
	}
	defer task.Close()
	nn.SetRequiresGrad(d.Model.Mapper, true)
	for i := range steps {
		err := torch.Scope(func() error {
			l, err := task.Step(i)
			losses = append(losses, l.Get("loss"))
			return err
		})
		if err != nil {
			return nil, nil, err
		}
	}
	return losses, d.Model, nil
}

// cycleGANTrainingAgrees trains the CycleGAN at the paper's size for 20 steps.
func (e *env) cycleGANTrainingAgrees() error {
	want, err := e.reference("train_gan", args{"seed": seed}, nil)
	if err != nil {
		return err
	}
	defer want.Close()
	run := func() (losses []float64, task *train.CycleGANTask, err error) {
		data, err := e.inputs("gan_data", torch.Float32)
		if err != nil {
			return nil, nil, err
		}
		steps, batch := int(data.Size(0)), int(data.Size(2))
		config := train.DefaultCycleGAN()
		config.Width, config.Batch, config.Epochs, config.DecayFrom, config.Device = data.Size(3), batch, 1, 1, e.on
		task, err = train.NewCycleGANTask(config, parity.InOrder(data.Select(1, 0), batch, 2*config.Seed), parity.InOrder(data.Select(1, 1), batch, 2*config.Seed+1))
		if err != nil {
			return nil, nil, err
		}
		initial, err := load(e.path("gan.safetensors"))
		if err != nil {
			return nil, nil, err
		}
		defer initial.Close()
		for name, net := range gan(task) {
			for _, p := range nn.NamedParameters(net) {
				from, ok := initial.Get(name + "." + p.Name)
				if !ok {
					return nil, nil, fmt.Errorf("gan.safetensors has no %s.%s", name, p.Name)
				}
				torch.NoGrad(func() { p.Tensor.Copy_(from) })
			}
		}
		torch.ManualSeed(seed) // the pools' draws
		losses, err = parity.CycleGANLosses(task, steps)
		return losses, task, err
	}
	losses, task, err := run()
	if err != nil {
		return err
	}
	defer task.Close()
	l, _ := want.Get("losses")
	e.comparison("losses of 20 CycleGAN steps", cycleGAN, "f32", compare.Numbers(losses, torch.ToSlice[float64](l)), compare.Bits)
	nets := gan(task)
	for _, name := range []string{"to_text", "to_image", "text_disc", "image_disc"} {
		e.comparison("weights after 20 CycleGAN steps, "+name, cycleGAN, "f32", parity.Tensors(nn.NamedParameters(nets[name]), under(want, name+".")), compare.Bits)
	}
	again, other, err := run()
	if err != nil {
		return err
	}
	defer other.Close()
	const itself = "the same training, run again"
	e.comparison("losses of 20 CycleGAN steps", itself, "f32", compare.Numbers(again, losses), compare.Bits)
	e.comparison("weights after 20 CycleGAN steps, to_text", itself, "f32", parity.Tensors(nn.NamedParameters(other.ToText), nn.StateDictOf(task.ToText)), compare.Bits)
	return nil
}

// gan returns the networks of a task by name.
func gan(t *train.CycleGANTask) map[string]any {
	return map[string]any{"to_text": t.ToText, "to_image": t.ToImage, "text_disc": t.TextDisc, "image_disc": t.ImageDisc}
}
