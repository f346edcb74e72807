// Package parity compares the Go nets, their training and the weight files
// with what the real Python implementations made of the same weights and
// inputs: folders that testdata/reference/make.py has written.
package parity

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cyclecap/data/photo"
	"cyclecap/nets/clip"
	"cyclecap/nets/clipcap"
	"cyclecap/nets/cyclegan"
	"cyclecap/nets/gpt2"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/torch/optim"
	"cyclecap/train"
	"cyclecap/weights"
)

// Row is one comparison.
type Row struct {
	What      string
	Reference string  // whose numbers
	MaxDiff   float64 // largest |ours - theirs|
	Relative  float64 // the same over the largest |theirs|
	Differing int64   // elements that are not the same bits
	Elements  int64
	// Reason says why a row may differ in bits, and Bound by how much
	// (relative); a row without a reason must be bit-equal.
	Reason string
	Bound  float64
}

// Equal tells rows of equal bits.
func (r Row) Equal() bool { return r.Differing == 0 }

// OK tells rows within their bound. Where the fixtures were made on another
// kind of processor, whose kernels differ, all rows may differ by 1e-5.
func (r Row) OK(sameCPU bool) bool {
	bound := r.Bound
	if !sameCPU {
		bound = max(bound, 1e-5)
	}
	return r.Equal() || r.Relative <= bound
}

// expected is what make.py wrote, beside the tensors.
type expected struct {
	Size    string
	CPU     string
	Threads int
	Photos  []string
	Stops   []int64
	Sizes   struct {
		Gpt, Tokens, Embed, Steps, Context int64
		Prefix                             int64
		Gan                                int64
	}
	CLIPSeed       uint64    `json:"clip_seed"`
	GPT2Seed       uint64    `json:"gpt2_seed"`
	MapperSeed     uint64    `json:"mapper_seed"`
	GANSeed        uint64    `json:"gan_seed"`
	TrainLR        float64   `json:"train_lr"`
	TrainWarmup    int       `json:"train_warmup"`
	GenerateGreedy [][]int64 `json:"generate_greedy"`
	GenerateBeam   [][]int64 `json:"generate_beam"`
	ArchiveNames   []string  `json:"archive_names"`
	raw            map[string]json.RawMessage
}

type checker struct {
	dir    string
	photos string
	want   *nn.StateDict
	facts  expected
	rows   []Row
}

// Result has the rows and where the reference was made.
type Result struct {
	Rows []Row
	CPU  string // as make.py describes it
}

// Run compares everything in a folder of make.py's. photos is the folder of
// the photos that were used, if any.
func Run(dir, photos string) (*Result, error) {
	c := &checker{dir: dir, photos: photos}
	text, err := os.ReadFile(filepath.Join(dir, "expected.json"))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &c.facts); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &c.facts.raw); err != nil {
		return nil, err
	}
	f, err := weights.Open(filepath.Join(dir, "expected.safetensors"))
	if err != nil {
		return nil, err
	}
	if c.want, err = f.Load(); err != nil {
		return nil, err
	}
	defer c.want.Close()
	torch.SetNumThreads(c.facts.Threads)
	for _, step := range []func() error{c.clip, c.archive, c.transformersCLIP, c.gpt2, c.mappers, c.decode, c.initial, c.cyclegan, c.decoderTraining, c.files} {
		if err := torch.Scope(step); err != nil {
			return nil, err
		}
	}
	return &Result{c.rows, c.facts.CPU}, nil
}

// tensor gives a tensor that make.py wrote, as a copy of its own, which is
// aligned as PyTorch's are.
func (c *checker) tensor(name string) torch.Tensor {
	t, ok := c.want.Get(name)
	if !ok {
		torch.Throw("parity", "%s has no tensor %s", c.dir, name)
	}
	return t.Clone()
}

func (c *checker) compare(what, reference string, got, want torch.Tensor, reason ...any) {
	c.numbers(what, reference, torch.ToSlice[float64](got), torch.ToSlice[float64](want), reason...)
}

// numbers adds a row. reason is empty, or a text and a bound.
func (c *checker) numbers(what, reference string, got, want []float64, reason ...any) {
	r := Row{What: what, Reference: reference, Elements: int64(len(want))}
	if len(reason) == 2 {
		r.Reason, r.Bound = reason[0].(string), reason[1].(float64)
	}
	if len(got) != len(want) {
		torch.Throw("parity", "%s: %d numbers, %d are expected", what, len(got), len(want))
	}
	var largest float64
	for i, w := range want {
		largest = max(largest, math.Abs(w))
		if d := math.Abs(got[i] - w); d != 0 || math.Float64bits(got[i]) != math.Float64bits(w) && got[i] != w {
			r.Differing++
			r.MaxDiff = max(r.MaxDiff, d)
			if math.IsNaN(d) {
				r.MaxDiff = math.Inf(1)
			}
		}
	}
	if r.MaxDiff > 0 {
		r.Relative = r.MaxDiff / largest
	}
	c.rows = append(c.rows, r)
}

func (c *checker) ids(what, reference string, got, want [][]int64) {
	r := Row{What: what, Reference: reference}
	for i := range want {
		r.Elements += int64(len(want[i]))
		if i >= len(got) || !slices.Equal(got[i], want[i]) {
			r.Differing++
			r.MaxDiff, r.Relative = math.Inf(1), math.Inf(1)
		}
	}
	c.rows = append(c.rows, r)
}

func (c *checker) path(name string) string { return filepath.Join(c.dir, name) }

// pixels gives the photos as CLIP takes them, decoded and resized by us where
// the reference used photos.
func (c *checker) pixels() torch.Tensor {
	want := c.tensor("pixels")
	if len(c.facts.Photos) == 0 {
		return want
	}
	size := int(want.Size(2))
	pre := photo.CLIP(size)
	px := torch.Empty([]int64{int64(len(c.facts.Photos)), 3, int64(size), int64(size)})
	data := torch.Data[float32](px)
	each := 3 * size * size
	for i, name := range c.facts.Photos {
		img, err := photo.Decode(filepath.Join(c.photos, name))
		if err != nil {
			torch.Throw("parity", "%v", err)
		}
		if err := pre.Into(data[i*each:(i+1)*each], img); err != nil {
			torch.Throw("parity", "%s: %v", name, err)
		}
	}
	c.compare("photos, decoded and preprocessed", "Pillow, torchvision", px.Narrow(0, 0, want.Size(0)), want)
	return px
}

func (c *checker) loadCLIP(name string) *clip.Model {
	sd, quick, err := weights.LoadCLIP(c.path(name), nil)
	if err != nil {
		torch.Throw("parity", "%v", err)
	}
	m, err := clip.Load(sd, !quick, clip.Both)
	if err != nil {
		torch.Throw("parity", "%v", err)
	}
	return m
}

func (c *checker) clip() error {
	m := c.loadCLIP("clip.pt")
	defer nn.Close(m)
	torch.InferenceMode(func() {
		px, ids := c.pixels(), c.tensor("text_ids")
		c.compare(fmt.Sprintf("CLIP image features, batch %d", px.Size(0)), "OpenAI's CLIP", m.EncodeImage(px), c.tensor("openai_image"))
		c.compare("CLIP image features, batch 1", "OpenAI's CLIP", m.EncodeImage(px.Narrow(0, 0, 1)), c.tensor("openai_image_1"))
		c.compare(fmt.Sprintf("CLIP text features, batch %d", ids.Size(0)), "OpenAI's CLIP", m.EncodeText(ids), c.tensor("openai_text"))
		c.compare("CLIP text features, batch 1", "OpenAI's CLIP", m.EncodeText(ids.Narrow(0, 0, 1)), c.tensor("openai_text_1"))
	})
	return nil
}

func (c *checker) archive() error {
	m := c.loadCLIP("clip-archive.pt")
	defer nn.Close(m)
	nn.To(m, torch.WithDType(torch.Float32))
	torch.InferenceMode(func() {
		px := c.tensor("pixels")
		c.compare("CLIP from a TorchScript archive in f16, image features", "OpenAI's CLIP", m.EncodeImage(px), c.tensor("archive_image"))
		c.compare("CLIP from a TorchScript archive in f16, text features", "OpenAI's CLIP", m.EncodeText(c.tensor("text_ids")), c.tensor("archive_text"))
	})
	f, err := weights.Open(c.path("clip-archive.pt"))
	if err != nil {
		return err
	}
	var names []string
	for _, e := range f.Entries {
		names = append(names, e.Name)
	}
	slices.Sort(names)
	var differ float64
	if !slices.Equal(names, c.facts.ArchiveNames) {
		differ = 1
	}
	c.numbers(fmt.Sprintf("names of the archive's %d tensors", len(names)), "torch.jit.load", []float64{differ}, []float64{0})
	return nil
}

func (c *checker) transformersCLIP() error {
	m := c.loadCLIP("clip-transformers")
	defer nn.Close(m)
	torch.InferenceMode(func() {
		px, ids := c.tensor("pixels"), c.tensor("text_ids")
		all := c.tensor("transformers_image")
		if all.Size(0) != px.Size(0) {
			px = c.quietPixels()
		}
		c.compare(fmt.Sprintf("CLIP image features, batch %d", px.Size(0)), "transformers", m.EncodeImage(px), all)
		c.compare("CLIP image features, batch 1", "transformers", m.EncodeImage(px.Narrow(0, 0, 1)), c.tensor("transformers_image_1"))
		c.compare(fmt.Sprintf("CLIP text features, batch %d", ids.Size(0)), "transformers", m.EncodeText(ids), c.tensor("transformers_text"))
		c.compare("CLIP text features, batch 1", "transformers", m.EncodeText(ids.Narrow(0, 0, 1)), c.tensor("transformers_text_1"))
	})
	return nil
}

// quietPixels is pixels without its row.
func (c *checker) quietPixels() torch.Tensor {
	n := len(c.rows)
	px := c.pixels()
	c.rows = c.rows[:n]
	return px
}

func (c *checker) loadGPT2(name string) *gpt2.Model {
	sd, err := weights.LoadGPT2(c.path(name))
	if err != nil {
		torch.Throw("parity", "%v", err)
	}
	m, err := gpt2.Load(sd)
	if err != nil {
		torch.Throw("parity", "%v", err)
	}
	return m
}

func (c *checker) gpt2() error {
	for _, file := range []string{"gpt2", "gpt2-old.bin"} {
		m := c.loadGPT2(file)
		form := map[string]string{"gpt2": "safetensors", "gpt2-old.bin": "old .bin with buffers"}[file]
		torch.InferenceMode(func() {
			embeds, ids := c.tensor("gpt2_embeds"), c.tensor("gpt2_ids")
			last := func(h torch.Tensor) torch.Tensor { return m.Logits(h).Slice(torch.WithDim(1), torch.WithStart(-2)) }
			none := torch.Tensor{}
			c.compare("GPT-2 logits of embeddings, "+form, "transformers", last(m.Forward(embeds, nil, none)), c.tensor("gpt2_logits_embeds"))
			c.compare("GPT-2 logits of embeddings, batch 1, "+form, "transformers", last(m.Forward(embeds.Narrow(0, 0, 1), nil, none)), c.tensor("gpt2_logits_embeds_1"))
			c.compare("GPT-2 logits of ids, "+form, "transformers", last(m.Forward(m.Embed(ids), nil, none)), c.tensor("gpt2_logits_ids"))
			cache := m.NewCache(embeds.Size(0), embeds.Size(1)+ids.Size(1))
			m.Forward(embeds, cache, none)
			var h torch.Tensor
			for i := range ids.Size(1) {
				h = m.Forward(m.Embed(ids.Narrow(1, i, 1)), cache, none)
			}
			c.compare("GPT-2 logits with cache, "+form, "transformers", m.Logits(h), c.tensor("gpt2_logits_cache"))
		})
		nn.Close(m)
	}
	return nil
}

func (c *checker) loadMapper(name string) clipcap.Mapper {
	sd, _, _, err := weights.LoadDecoder(c.path(name))
	if err != nil {
		torch.Throw("parity", "%v", err)
	}
	m, err := clipcap.LoadMapper(sd, c.facts.Sizes.Gpt)
	if err != nil {
		torch.Throw("parity", "%v", err)
	}
	return m
}

func (c *checker) mappers() error {
	m, mlp := c.loadMapper("decoder.pt"), c.loadMapper("decoder-mlp.pt")
	whole := c.loadMapper("decoder-whole.pt")
	torch.InferenceMode(func() {
		features := c.tensor("features")
		c.compare("transformer mapper", "PyTorch (ClipCap's rules)", m.Forward(features), c.tensor("mapper_prefix"))
		c.compare("transformer mapper, batch 1", "PyTorch (ClipCap's rules)", m.Forward(features.Narrow(0, 0, 1)), c.tensor("mapper_prefix_1"))
		c.compare("transformer mapper out of a whole model", "PyTorch (ClipCap's rules)", whole.Forward(features), c.tensor("mapper_prefix"))
		c.compare("MLP mapper", "PyTorch (ClipCap's rules)", mlp.Forward(features), c.tensor("mlp_prefix"))
	})
	return nil
}

func (c *checker) decode() error {
	m := &clipcap.Model{Mapper: c.loadMapper("decoder.pt"), GPT2: c.loadGPT2("gpt2")}
	var err error
	torch.InferenceMode(func() {
		features := c.tensor("features")
		n, tokens := features.Size(0), int(c.facts.Sizes.Tokens)
		generate := func(o clipcap.Options) [][]clipcap.Caption {
			captions, err := m.Generate(context.Background(), features, o)
			if err != nil {
				torch.Throw("parity", "%v", err)
			}
			return captions
		}
		first := func(o clipcap.Options) (ids [][]int64) {
			for _, captions := range generate(o) {
				ids = append(ids, captions[0].Tokens)
			}
			return ids
		}
		batch := fmt.Sprintf(", batch %d with cache", n)
		c.ids("greedy ids"+batch, "transformers' generate", first(clipcap.Options{Method: clipcap.Greedy, MaxTokens: tokens, Stop: -1}), c.facts.GenerateGreedy)
		c.ids("beam ids, no stop"+batch, "transformers' generate", first(clipcap.Options{Method: clipcap.Beam, Beam: 5, MaxTokens: tokens, Stop: -1}), c.facts.GenerateBeam)
		for _, stop := range c.facts.Stops {
			var greedy [][]int64
			var beams [][][]int64
			var scores [][]float64
			for key, to := range map[string]any{"greedy": &greedy, "beam": &beams, "beam_scores": &scores} {
				if err = json.Unmarshal(c.facts.raw[fmt.Sprintf("clipcap_%s_%d", key, stop)], to); err != nil {
					err = fmt.Errorf("clipcap_%s_%d: %w", key, stop, err)
					return
				}
			}
			c.ids(fmt.Sprintf("top-p ids, stop %d%s", stop, batch), "ClipCap's generate2, no cache",
				first(clipcap.Options{Method: clipcap.TopP, MaxTokens: tokens, Stop: stop}), greedy)
			var got, want [][]int64
			var gotScores, wantScores []float64
			for i, captions := range generate(clipcap.Options{Method: clipcap.Beam, Beam: 5, MaxTokens: tokens, Stop: stop}) {
				for j, caption := range captions {
					got, want = append(got, caption.Tokens), append(want, beams[i][j])
					gotScores, wantScores = append(gotScores, caption.Score), append(wantScores, scores[i][j])
				}
			}
			c.ids(fmt.Sprintf("all 5 beams' ids, stop %d%s", stop, batch), "ClipCap's generate_beam, no cache", got, want)
			c.numbers(fmt.Sprintf("all 5 beams' scores, stop %d%s", stop, batch), "ClipCap's generate_beam, no cache", gotScores, wantScores,
				"the cache computes one position at a time, and all photos at once", 1e-5)
		}
	})
	return err
}

// initial compares weights made from a seed with PyTorch's.
func (c *checker) initial() error {
	torch.ManualSeed(c.facts.MapperSeed)
	like := c.loadMapper("decoder.pt").(*clipcap.TransformerMapper)
	mapper := clipcap.NewTransformerMapper(like.Config)
	c.module("initial weights of the mapper by seed", "PyTorch", mapper, nn.StateDictOf(like))
	stored := c.loadGPT2("gpt2-init")
	torch.ManualSeed(c.facts.GPT2Seed)
	fresh := gpt2.New(stored.Config)
	c.module("initial weights of GPT-2 by seed", "transformers", fresh, nn.StateDictOf(stored))
	drawn := c.loadCLIP("clip-init.pt")
	torch.ManualSeed(c.facts.CLIPSeed)
	made := clip.New(drawn.Config)
	c.module("initial weights of CLIP by seed", "OpenAI's CLIP", made, nn.StateDictOf(drawn))
	for _, m := range []any{mapper, fresh, like, stored, drawn, made} {
		nn.Close(m)
	}
	return nil
}

// module compares all parameters of a module with those of a state dict.
func (c *checker) module(what, reference string, m any, want *nn.StateDict, reason ...any) {
	r := Row{What: what, Reference: reference}
	if len(reason) == 2 {
		r.Reason, r.Bound = reason[0].(string), reason[1].(float64)
	}
	before := len(c.rows)
	for _, p := range nn.NamedParameters(m) {
		w, ok := want.Get(p.Name)
		if !ok {
			torch.Throw("parity", "%s: the reference has no %s", what, p.Name)
		}
		c.compare(p.Name, reference, *p.Tensor, w)
		one := c.rows[len(c.rows)-1]
		r.Differing += one.Differing
		r.Elements += one.Elements
		r.MaxDiff, r.Relative = max(r.MaxDiff, one.MaxDiff), max(r.Relative, one.Relative)
	}
	c.rows = append(c.rows[:before], r)
}

// part gives the tensors under a prefix.
func part(sd *nn.StateDict, prefix, to string) *nn.StateDict {
	out := nn.NewStateDict()
	for _, name := range sd.Names() {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			t, _ := sd.Get(name)
			out.Add(to+rest, t)
		}
	}
	return out
}

func (c *checker) cyclegan() error {
	load := func(name string) (*nn.StateDict, error) {
		f, err := weights.Open(c.path(name))
		if err != nil {
			return nil, err
		}
		return f.Load()
	}
	first, err := load("gan-init.safetensors")
	if err != nil {
		return err
	}
	trained, err := load("gan-trained.safetensors")
	if err != nil {
		return err
	}
	data := c.tensor("gan_data")
	steps, batch := int(data.Size(0)), int(data.Size(2))
	config := train.DefaultCycleGAN()
	config.Width, config.Batch, config.Epochs, config.DecayFrom = c.facts.Sizes.Gan, batch, 1, 1
	torch.ManualSeed(c.facts.GANSeed)
	g, err := train.NewCycleGANTask(config, inOrder(data.Select(1, 0), batch, 2*config.Seed), inOrder(data.Select(1, 1), batch, 2*config.Seed+1))
	if err != nil {
		return err
	}
	defer g.Close()
	nets := []struct {
		name string
		net  any
	}{{"to_text", g.ToText}, {"to_image", g.ToImage}, {"text_disc", g.TextDisc}, {"image_disc", g.ImageDisc}}
	for _, n := range nets {
		c.module("initial weights of the CycleGAN by seed, "+n.name, "PyTorch", n.net, part(first, n.name+".", "model."))
	}
	sd, err := weights.LoadGenerator(c.path("generator.pt"))
	if err != nil {
		return err
	}
	generator, err := cyclegan.LoadGenerator(sd)
	if err != nil {
		return err
	}
	torch.InferenceMode(func() {
		c.compare("CycleGAN generator from a file", "PyTorch", generator.Forward(data.Select(0, 0).Select(0, 0)), c.tensor("gan_output"))
	})
	var losses []float64
	for i := range steps {
		err := torch.Scope(func() error {
			l, err := g.Step(i)
			for _, name := range []string{"gan_text", "gan_image", "cycle_image", "cycle_text", "identity_text", "identity_image", "disc_text", "disc_image"} {
				losses = append(losses, l.Get(name))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	c.numbers(fmt.Sprintf("losses of %d CycleGAN steps", steps), "PyTorch (CycleGAN's rules)", losses, torch.ToSlice[float64](c.tensor("gan_losses")))
	for _, n := range nets {
		c.module(fmt.Sprintf("weights after %d CycleGAN steps, %s", steps, n.name), "PyTorch (CycleGAN's rules)", n.net, part(trained, n.name+".", "model."))
	}
	return nil
}

// inOrder gives the rows of batches [steps, batch, width] as features that a task
// shuffles back into their order: it draws step i's batch as batch i.
func inOrder(batches torch.Tensor, batch int, seed uint64) train.Matrix {
	width := int(batches.Size(2))
	rows := torch.ToSlice[float32](batches.Contiguous())
	m := train.Matrix{Data: make([]float32, len(rows)), Cols: width}
	order := train.Order{N: m.Len(), Batch: batch, Seed: seed}
	for k := range m.Len() {
		at := int(order.Indices(k / batch)[k%batch])
		copy(m.Data[at*width:(at+1)*width], rows[k*width:])
	}
	return m
}

func (c *checker) decoderTraining() error {
	f, err := weights.Open(c.path("decoder-trained.safetensors"))
	if err != nil {
		return err
	}
	want, err := f.Load()
	if err != nil {
		return err
	}
	features, tokens := c.tensor("train_features"), c.tensor("train_tokens")
	steps := int(features.Size(0))
	for _, exact := range []bool{true, false} {
		m := &clipcap.Model{Mapper: c.loadMapper("decoder.pt"), GPT2: c.loadGPT2("gpt2")}
		nn.SetRequiresGrad(m.Mapper, true)
		o := optim.AdamDefaults()
		o.LR, o.Eps = c.facts.TrainLR, 1e-6
		opt := optim.TransformersAdamW(nn.Parameters(m.Mapper), o)
		var losses []float64
		for i := range steps {
			err := torch.Scope(func() error {
				opt.SetLR(c.facts.TrainLR * optim.WarmupLinear(i, c.facts.TrainWarmup, steps))
				opt.ZeroGrad()
				loss := train.DecoderLoss(m, features.Select(0, int64(i)), tokens.Select(0, int64(i)), exact)
				loss.Backward()
				opt.Step()
				losses = append(losses, loss.Item())
				return nil
			})
			if err != nil {
				return err
			}
		}
		what := ", ClipCap's way"
		var losses20, weights20 []any
		if !exact {
			what = ""
			const why = "no padding mask, head on the caption only; Adam makes whole steps of gradients near 0"
			losses20, weights20 = []any{why, 1e-3}, []any{why, 1e-1}
		}
		c.numbers(fmt.Sprintf("losses of %d mapper steps%s", steps, what), "PyTorch (ClipCap's rules)", losses, torch.ToSlice[float64](c.tensor("train_losses")), losses20...)
		c.module(fmt.Sprintf("weights after %d mapper steps%s", steps, what), "PyTorch (ClipCap's rules)", m.Mapper, want, weights20...)
		opt.Close()
		nn.Close(m.Mapper)
		nn.Close(m.GPT2)
	}
	return nil
}

// files writes what was read and reads it back.
func (c *checker) files() error {
	dir, err := os.MkdirTemp("", "cyclecap-parity-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, name := range []string{"clip.pt", "gpt2-old.bin", "clip-archive.pt", "clip-transformers"} {
		f, err := weights.Open(c.path(name))
		if err != nil {
			return err
		}
		sd, err := f.Load()
		if err != nil {
			return err
		}
		for _, ext := range []string{".pt", ".safetensors"} {
			to := filepath.Join(dir, "copy"+ext)
			if err := weights.Save(context.Background(), to, sd, nil); err != nil {
				return err
			}
			g, err := weights.Open(to)
			if err != nil {
				return err
			}
			back, err := g.Load()
			if err != nil {
				return err
			}
			r := Row{What: fmt.Sprintf("%s written as %s and read again", name, ext), Reference: "itself"}
			for _, key := range sd.Names() {
				a, _ := sd.Get(key)
				b, ok := back.Get(key)
				r.Elements += a.Numel()
				if !ok || a.DType() != b.DType() || !a.Equal(b) {
					r.Differing++
					r.MaxDiff, r.Relative = math.Inf(1), math.Inf(1)
				}
			}
			c.rows = append(c.rows, r)
			back.Close()
		}
		sd.Close()
	}
	return nil
}
