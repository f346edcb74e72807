package verify

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cyclecap/data/photo"
	"cyclecap/data/tokenizer"
	"cyclecap/nets/clip"
	"cyclecap/nets/clipcap"
	"cyclecap/pipeline"
	"cyclecap/torch"
	"cyclecap/torch/compare"
	"cyclecap/torch/nn"
	"cyclecap/train"
	"cyclecap/weights"
)

// The parts of a reference.
const (
	CLIP      = "clip"
	Generator = "generator"
	GPT2      = "gpt2"
	Decoder   = "decoder"
)

// A Row is one comparison.
type Row struct {
	Part       string
	What       string
	Difference compare.Difference
	Tolerance  compare.Tolerance
	Tie        string // where tokens part that rounding decides between; see ties.go
	Skipped    string // why nothing was compared
	Err        string // why it could not be computed
}

// Verdicts of rows.
const (
	Equal   = "equal"   // all bits are equal
	Within  = "within"  // within the tolerance
	Tied    = "tie"     // other tokens, between which rounding decides
	Differs = "DIFFERS" // out of the tolerance
	Failed  = "ERROR"   // could not be computed
	Skipped = "skipped"
)

// Verdict returns one of the verdicts.
func (r Row) Verdict() string {
	switch {
	case r.Skipped != "":
		return Skipped
	case r.Err != "":
		return Failed
	case r.Difference.Equal():
		return Equal
	case r.Tolerance.Within(r.Difference):
		return Within
	case r.Tie != "":
		return Tied
	}
	return Differs
}

// OK reports whether the row does not fail.
func (r Row) OK() bool { return r.Verdict() != Differs && r.Verdict() != Failed }

// A Module is the output of one module of a net, of the first photo, text or caption.
type Module struct {
	Net  string // such as "clip.image"
	Name string
	Row  Row
}

// Report is what a verification found.
type Report struct {
	Reference *Reference
	Here      Environment
	Rows      []Row
	Modules   []Module // if they were asked for, in the order of the computation
	Diagnosis []string
}

// OK reports whether no row failed.
func (r *Report) OK() bool {
	return !slices.ContainsFunc(r.Rows, func(row Row) bool { return !row.OK() })
}

// Verifier compares models with a reference, part by part. Each part is given the
// recorded inputs, so that a difference is found where it arises.
type Verifier struct {
	Report
	PhotoDir string // where the photos are that the reference doesn't contain; "" is the working directory
	Bisect   bool   // whether to compare the outputs of modules

	ref        *Reference
	tolerances tolerances
	given      map[string]bool
	otherFiles map[string]bool // parts whose weights come from other files
	activation string          // what was found with another activation of CLIP
	photosDiff string          // how the photos differ, if they do
	features   torch.Tensor    // of the photos, as we compute them
}

// New returns a Verifier that computes as o says.
func New(r *Reference, o pipeline.Options) *Verifier {
	v := &Verifier{ref: r, given: map[string]bool{}, otherFiles: map[string]bool{}}
	v.Report.Reference = r
	v.Here = here(o)
	v.tolerances = tolerancesOf(r.Facts.Environment, v.Here)
	return v
}

// Close frees what the verifier keeps.
func (v *Verifier) Close() { v.features.Close() }

// Finish adds rows for the parts that were not given, and the diagnosis.
func (v *Verifier) Finish() *Report {
	for _, part := range []string{CLIP, Generator, Decoder, GPT2} {
		if _, ok := v.ref.Facts.Parts[part]; ok && !v.given[part] {
			v.Rows = append(v.Rows, Row{Part: part, What: "all of it", Skipped: "no --" + part})
		}
	}
	v.Diagnosis = v.diagnose()
	return &v.Report
}

// Fail adds a row for a part that could not be loaded.
func (v *Verifier) Fail(part string, err error) {
	v.given[part] = true
	v.Rows = append(v.Rows, Row{Part: part, What: "loading", Err: err.Error()})
}

// Weights compares the sha256 of a part's files with those of the reference.
func (v *Verifier) Weights(part, path string) {
	v.given[part] = true
	want := v.ref.Facts.Weights[part]
	if len(want) == 0 {
		return
	}
	row := Row{Part: part, What: "sha256 of the weights"}
	got, err := hashes(path, want)
	switch {
	case err != nil:
		row.Err = err.Error()
	case len(got) == 0:
		row.Skipped = fmt.Sprintf("%s has none of the reference's files (%s)", path, strings.Join(names(want), ", "))
		v.otherFiles[part] = true
	default:
		var g, w [][]string
		for _, name := range names(got) {
			g, w = append(g, []string{got[name]}), append(w, []string{want[name]})
		}
		d := compare.Lists(g, w)
		v.otherFiles[part] = !d.Equal()
		if d.Equal() {
			row.Difference = d
		} else {
			row.Skipped = "other files than the reference's: " + strings.Join(differing(got, want), ", ")
		}
	}
	v.Rows = append(v.Rows, row)
}

func names(m map[string]string) []string {
	var out []string
	for name := range m {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func differing(got, want map[string]string) (out []string) {
	for _, name := range names(got) {
		if got[name] != want[name] {
			out = append(out, name)
		}
	}
	return out
}

// hashes returns the sha256 of the file at path, or of the wanted files in the folder at
// path, under the names that want has.
func hashes(path string, want map[string]string) (map[string]string, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) { // the name of a downloaded model
		f, openErr := weights.Open(path)
		if openErr != nil {
			return nil, openErr
		}
		path = filepath.Dir(f.Path)
		info, err = os.Stat(path)
	}
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	switch {
	case info.IsDir():
		for name := range want {
			files[name] = filepath.Join(path, filepath.Base(name))
		}
	default: // it may have another name than the reference's only file of weights
		only := slices.DeleteFunc(names(want), func(name string) bool { return strings.HasSuffix(name, ".json") || strings.HasSuffix(name, ".txt") })
		if _, ok := want[filepath.Base(path)]; ok {
			files[filepath.Base(path)] = path
		} else if len(only) == 1 {
			files[only[0]] = path
		}
	}
	out := map[string]string{}
	for name, file := range files {
		sum, err := hash(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, err
		}
		out[name] = sum
	}
	return out, nil
}

func hash(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// run runs f in a scope without gradients. An error of libtorch's becomes a row.
func (v *Verifier) run(part, what string, f func() error) {
	err := torch.Scope(func() (err error) {
		torch.InferenceMode(func() { err = f() })
		return err
	})
	if err != nil {
		v.Rows = append(v.Rows, Row{Part: part, What: what, Err: err.Error()})
	}
}

// compute adds a row: f's result and the reference's tensor of this name.
func (v *Verifier) compute(part, what, name string, tolerance compare.Tolerance, f func() torch.Tensor) {
	if !v.ref.Has(name) {
		return
	}
	v.run(part, what, func() error {
		v.Rows = append(v.Rows, v.row(part, what, name, tolerance, f()))
		return nil
	})
}

func (v *Verifier) row(part, what, name string, tolerance compare.Tolerance, got torch.Tensor) Row {
	return Row{Part: part, What: what, Difference: v.difference(name, got), Tolerance: tolerance}
}

// difference compares a tensor with what the reference has of it, in f32 or integers.
func (v *Verifier) difference(name string, got torch.Tensor) compare.Difference {
	if shape := v.ref.shape(name); !slices.Equal(got.Shape(), shape) {
		return compare.Difference{Shape: shape, Mismatch: fmt.Sprintf("the shape is %s, want %s", tuple(got.Shape()), tuple(shape))}
	}
	part := v.ref.sample(name, got)
	want := v.ref.tensor(name)
	to := torch.WithDType(torch.Float32)
	switch want.DType() {
	case torch.Int64, torch.Float64:
		to = torch.WithDType(want.DType())
	}
	d := compare.Tensors(part.To(to, torch.WithDevice(torch.CPU)), want.To(to))
	if s, ok := v.ref.Facts.Sampled[name]; ok {
		d.Shape = s.Shape
		for _, e := range []*compare.Element{d.First, d.Worst} {
			if e != nil && len(e.Index) == 1 {
				e.Index = unflatten(e.Index[0]*s.Step, s.Shape)
			}
		}
	}
	return d
}

func tuple(n []int64) string { return strings.ReplaceAll(fmt.Sprint(n), " ", ", ") }

func unflatten(i int64, shape []int64) []int64 {
	at := make([]int64, len(shape))
	for d := len(shape) - 1; d >= 0; d-- {
		at[d] = i % shape[d]
		i /= shape[d]
	}
	return at
}

// input returns a recorded tensor on the device and in the dtype of o.
func (v *Verifier) input(name string, o pipeline.Options) torch.Tensor {
	t := v.ref.tensor(name)
	if t.DType() == torch.Int64 {
		return t.To(torch.WithDevice(o.Device))
	}
	return t.To(torch.WithDevice(o.Device), torch.WithDType(o.DType()))
}

// each runs f on each row of a batch.
func each(batch torch.Tensor, f func(torch.Tensor) torch.Tensor) torch.Tensor {
	var rows []torch.Tensor
	for i := range batch.Size(0) {
		rows = append(rows, f(batch.Narrow(0, i, 1)))
	}
	return torch.Cat(rows)
}

// CLIP compares a CLIP: preprocessing, tokens and features.
func (v *Verifier) CLIP(c *pipeline.CLIP) {
	v.given[CLIP] = true
	o := c.Options()
	v.pixels(c)
	if len(v.ref.Facts.Texts) > 0 {
		v.run(CLIP, "token ids of the texts", func() error {
			want := v.ref.tensor("clip.ids")
			if n := want.Size(1); n != c.Model.ContextLength() {
				v.Rows = append(v.Rows, Row{Part: CLIP, What: "token ids of the texts", Err: fmt.Sprintf("the model takes %d tokens, the reference's takes %d", c.Model.ContextLength(), n)})
				return nil
			}
			ids, err := c.Tokens(v.ref.Facts.Texts)
			if err != nil {
				return err
			}
			v.Rows = append(v.Rows, v.row(CLIP, "token ids of the texts", "clip.ids", compare.Bits, torch.FromSlice(ids, want.Shape()...)))
			return nil
		})
	}
	begin := len(v.Rows)
	v.compute(CLIP, "image features, all photos at once", "clip.image", v.tolerances.outputs, func() torch.Tensor {
		f := c.Model.EncodeImage(v.input("clip.pixels", o))
		v.features = f.To(torch.WithDevice(torch.CPU), torch.WithDType(torch.Float32)).Clone().Keep()
		return f
	})
	v.compute(CLIP, "image features, photo by photo", "clip.image_1", v.tolerances.outputs, func() torch.Tensor {
		return each(v.input("clip.pixels", o), c.Model.EncodeImage)
	})
	v.compute(CLIP, "text features, all texts at once", "clip.text", v.tolerances.outputs, func() torch.Tensor {
		return c.Model.EncodeText(v.input("clip.ids", o))
	})
	v.compute(CLIP, "text features, text by text", "clip.text_1", v.tolerances.outputs, func() torch.Tensor {
		return each(v.input("clip.ids", o), c.Model.EncodeText)
	})
	if m, ok := c.Model.(*clip.Model); ok && slices.ContainsFunc(v.Rows[begin:], func(r Row) bool { return r.Verdict() == Differs }) {
		v.otherActivation(m, o)
	}
	v.layers("clip.image", c.Model, func() { c.Model.EncodeImage(v.input("clip.pixels", o).Narrow(0, 0, 1)) })
	v.layers("clip.text", c.Model, func() { c.Model.EncodeText(v.input("clip.ids", o).Narrow(0, 0, 1)) })
}

// otherActivation tries the activations that were not taken, on photos or, without an image
// encoder, on texts.
func (v *Verifier) otherActivation(m *clip.Model, o pipeline.Options) {
	own := m.Config
	what, name, taken := "image", "clip.image", own.VisionActivation
	compute := func() torch.Tensor { return m.EncodeImage(v.input("clip.pixels", o)) }
	switch v.ref.encoders() {
	case clip.Both:
		if own.VisionActivation != own.TextActivation {
			return
		}
	case clip.Text:
		what, name, taken = "text", "clip.text", own.TextActivation
		compute = func() torch.Tensor { return m.EncodeText(v.input("clip.ids", o)) }
	}
	defer func() {
		m.SetActivation(taken)
		m.Config = own
	}()
	for _, a := range []clip.Activation{clip.QuickGELU, clip.GELU, clip.GELUTanh} {
		if a == taken {
			continue
		}
		m.SetActivation(a)
		v.run(CLIP, what+" features with another activation", func() error {
			if r := v.row(CLIP, "", name, v.tolerances.outputs, compute()); r.OK() && v.activation == "" {
				v.activation = fmt.Sprintf("with %v instead of %v, the %s features agree (%s): see --clip-config", a, taken, what, size(r.Difference))
			}
			return nil
		})
	}
}

// pixels compares the preprocessing of the photos that are at hand.
func (v *Verifier) pixels(c *pipeline.CLIP) {
	photos := v.ref.Facts.Photos
	if len(photos) == 0 {
		return
	}
	const what = "photos, decoded and preprocessed"
	v.run(CLIP, what, func() error {
		want := v.ref.tensor("clip.pixels")
		size := c.Model.ImageSize()
		if want.Size(2) != size {
			v.photosDiff = fmt.Sprintf("the reference's photos have %d pixels, the model takes %d", want.Size(2), size)
			v.Rows = append(v.Rows, Row{Part: CLIP, What: what, Err: v.photosDiff})
			return nil
		}
		var got []torch.Tensor
		var at []int64
		for i, p := range photos {
			img, err := v.photo(i, p)
			if err != nil {
				v.Rows = append(v.Rows, Row{Part: CLIP, What: "photo " + p.Name, Err: err.Error()})
				continue
			}
			px := torch.Empty([]int64{1, 3, size, size})
			torch.Data(px, func(data []float32) { err = c.Preprocess.Into(data, img) })
			if err != nil {
				v.Rows = append(v.Rows, Row{Part: CLIP, What: "photo " + p.Name, Err: err.Error()})
				continue
			}
			got, at = append(got, px), append(at, int64(i))
		}
		if len(got) == 0 {
			return nil
		}
		d := compare.Tensors(torch.Cat(got), want.To(torch.WithDType(torch.Float32)).IndexSelect(0, torch.FromSlice(at)))
		row := Row{Part: CLIP, What: fmt.Sprintf("%d %s", len(got), what), Difference: d, Tolerance: v.tolerances.pixels}
		v.Rows = append(v.Rows, row)
		if !row.OK() {
			v.photosDiff = fmt.Sprintf("pixels of Python's (by %s) differ by up to %.2g; the first photo is %s", cmp.Or(v.ref.Facts.Preprocessing, "an unknown processor"), d.Max, photos[at[d.First.Index[0]]].Name)
		}
		return nil
	})
}

// photo returns a photo out of the reference or of PhotoDir.
func (v *Verifier) photo(i int, p Photo) (*photo.Image, error) {
	if p.Stored {
		return photo.DecodeBytes(torch.ToSlice[uint8](v.ref.tensor(fmt.Sprintf("photos.%d", i))))
	}
	path := filepath.Join(v.PhotoDir, filepath.Base(p.Name))
	sum, err := hash(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s does not exist; the reference does not contain its photos: name their folder with --photos (sha256 %s)", path, p.SHA256)
	} else if err != nil {
		return nil, err
	}
	if sum != p.SHA256 {
		return nil, fmt.Errorf("%s is another file than the reference's: its sha256 is %s, not %s", path, sum, p.SHA256)
	}
	return photo.Decode(path)
}

// Generator compares a CycleGAN's generator.
func (v *Verifier) Generator(g *pipeline.Generator, o pipeline.Options) {
	v.given[Generator] = true
	v.compute(Generator, "generator", "generator.output", v.tolerances.outputs, func() torch.Tensor {
		return g.Model.Forward(v.input("generator.input", o))
	})
	v.layers("generator", g.Model, func() { g.Model.Forward(v.input("generator.input", o).Narrow(0, 0, 1)) })
}

// GPT2 compares a GPT-2 and its tokenizer.
func (v *Verifier) GPT2(g *pipeline.GPT2, o pipeline.Options) {
	v.given[GPT2] = true
	m := g.Model
	if texts := v.ref.Facts.GPT2Texts; len(texts) > 0 && g.Tokenizer != nil {
		v.run(GPT2, "token ids of the texts", func() error {
			v.gpt2Tokens(g.Tokenizer, texts)
			return nil
		})
	}
	none := torch.Tensor{}
	last := func(h torch.Tensor) torch.Tensor {
		return m.Logits(h).Slice(torch.WithDim(1), torch.WithStart(-2))
	}
	forward := func(x torch.Tensor) torch.Tensor { return last(m.Forward(x, nil, none)) }
	v.compute(GPT2, "logits of token ids", "gpt2.logits_ids", v.tolerances.outputs, func() torch.Tensor {
		return forward(m.Embed(v.input("gpt2.ids", o)))
	})
	v.compute(GPT2, "logits of embeddings, all at once", "gpt2.logits", v.tolerances.outputs, func() torch.Tensor {
		return forward(v.input("gpt2.embeds", o))
	})
	v.compute(GPT2, "logits of embeddings, one by one", "gpt2.logits_1", v.tolerances.outputs, func() torch.Tensor {
		return each(v.input("gpt2.embeds", o), forward)
	})
	v.layers("gpt2", m, func() { m.Forward(v.input("gpt2.embeds", o).Narrow(0, 0, 1), nil, none) })
}

// gpt2Tokens compares the ids of texts, which the reference has cut and padded with 0.
func (v *Verifier) gpt2Tokens(t *tokenizer.GPT2Tokenizer, texts []string) {
	want := v.ref.tensor("gpt2.ids")
	width := int(want.Size(1))
	flat := make([]int64, 0, len(texts)*width)
	for _, text := range texts {
		ids := t.Encode(text)
		for i := range width {
			id := 0
			if i < len(ids) {
				id = ids[i]
			}
			flat = append(flat, int64(id))
		}
	}
	v.Rows = append(v.Rows, v.row(GPT2, "token ids of the texts", "gpt2.ids", compare.Bits, torch.FromSlice(flat, want.Shape()...)))
}

// Decoder compares a mapper, its captions, and a step of its training.
func (v *Verifier) Decoder(d *pipeline.Decoder) {
	v.given[Decoder] = true
	o := d.Options()
	m := d.Model
	v.compute(Decoder, "prefixes, all at once", "decoder.prefix", v.tolerances.outputs, func() torch.Tensor {
		return m.Mapper.Forward(v.input("decoder.input", o))
	})
	v.compute(Decoder, "prefixes, one by one", "decoder.prefix_1", v.tolerances.outputs, func() torch.Tensor {
		return each(v.input("decoder.input", o), m.Mapper.Forward)
	})
	if v.ref.Has("decoder.input") {
		v.scaling(d)
	}
	v.layers("decoder", m.Mapper, func() { m.Mapper.Forward(v.input("decoder.input", o).Narrow(0, 0, 1)) })
	v.decode(m, o)
	if v.features.Defined() && v.ref.Has("decoder.input") {
		v.endToEnd(d)
	}
	if v.ref.Has("train.loss") {
		v.training(m, o)
	}
}

// scaling compares whether features are scaled to length 1 for the decoder. A difference is
// no failure, because the user may have asked for it in Python.
func (v *Verifier) scaling(d *pipeline.Decoder) {
	row := Row{Part: Decoder, What: "whether features are scaled to length 1"}
	got, want := d.Normalize, v.ref.Facts.Normalize
	switch {
	case got == want:
		row.Difference = compare.Lists([][]bool{{got}}, [][]bool{{want}})
	case want:
		row.Skipped = "the reference scales them, cyclecap does not unless it is told to (caption --normalize yes)"
	default:
		row.Skipped = "the reference does not scale them, cyclecap does unless it is told not to (caption --normalize no)"
	}
	v.Rows = append(v.Rows, row)
}

// decode compares the tokens of captions of the recorded prefixes.
func (v *Verifier) decode(m *clipcap.Model, o pipeline.Options) {
	f := v.ref.Facts
	base := clipcap.Options{MaxTokens: f.Tokens, Stop: f.Stop, Beam: f.Beams}
	generate := func(what string, method clipcap.Method, stop int64, f func([][]clipcap.Caption)) {
		v.run(Decoder, what, func() error {
			options := base
			options.Method, options.Stop = method, stop
			captions, err := m.Continue(context.Background(), v.input("decoder.prefix", o), options)
			if err == nil {
				f(captions)
			}
			return err
		})
	}
	add := func(what string, got, want [][]int64, ties func(prefix torch.Tensor, got, want [][]int64) string) {
		row := Row{Part: Decoder, What: what, Difference: compare.Lists(got, want)}
		if !row.Difference.Equal() {
			row.Tie = ties(v.input("decoder.prefix", o), got, want)
		}
		v.Rows = append(v.Rows, row)
	}
	ties := Ties{m, v.tolerances.outputs.Relative}
	if name, method, want := f.Decoded.rule(); len(want) > 0 {
		what := "tokens, " + name
		generate(what, method, f.Stop, func(c [][]clipcap.Caption) { add(what, best(c), want, ties.Greedy) })
	}
	if len(f.Decoded.GenerateGreedy) > 0 {
		what := "tokens, greedy (transformers' generate)"
		generate(what, clipcap.Greedy, f.Stop, func(c [][]clipcap.Caption) { add(what, best(c), f.Decoded.GenerateGreedy, ties.Greedy) })
	}
	if len(f.Decoded.Beam) > 0 {
		what := fmt.Sprintf("tokens of all %d beams (ClipCap's generate_beam)", f.Beams)
		generate(what, clipcap.Beam, f.Stop, func(c [][]clipcap.Caption) {
			var got, want [][]int64
			var scores []float64
			for i, list := range c {
				for j, caption := range list {
					got, want = append(got, caption.Tokens), append(want, f.Decoded.Beam[i][j])
					scores = append(scores, caption.Score)
				}
			}
			add(what, got, want, ties.Beams(f.Beams))
			if v.ref.Has("decoded.beam_scores") {
				d := compare.Numbers(scores, torch.ToSlice[float64](v.ref.tensor("decoded.beam_scores")))
				v.Rows = append(v.Rows, Row{Part: Decoder, What: "scores of the beams", Difference: d, Tolerance: v.tolerances.outputs})
			}
		})
	}
	if len(f.Decoded.GenerateBeam) > 0 {
		what := fmt.Sprintf("tokens, %d beams (transformers' generate)", f.Beams)
		base.LengthPenalty = 1
		generate(what, clipcap.BeamTransformers, f.Stop, func(c [][]clipcap.Caption) { add(what, best(c), f.Decoded.GenerateBeam, ties.Beams(1)) })
	}
	if len(f.Decoded.GenerateBeamNoStop) > 0 {
		what := fmt.Sprintf("tokens, %d beams without a stop (transformers' generate)", f.Beams)
		generate(what, clipcap.Beam, -1, func(c [][]clipcap.Caption) { add(what, best(c), f.Decoded.GenerateBeamNoStop, ties.Beams(1)) })
	}
}

// best returns the tokens of each photo's best caption.
func best(captions [][]clipcap.Caption) (ids [][]int64) {
	for _, list := range captions {
		ids = append(ids, list[0].Tokens)
	}
	return ids
}

// endToEnd compares the captions of our own features.
func (v *Verifier) endToEnd(d *pipeline.Decoder) {
	f := v.ref.Facts
	name, method, want := f.Decoded.rule()
	what := "from photos to tokens, " + name
	if slices.ContainsFunc(v.Rows, func(r Row) bool { return r.Part == CLIP && r.Verdict() == Differs }) {
		v.Rows = append(v.Rows, Row{Part: Decoder, What: what, Skipped: "the features differ already"})
		return
	}
	v.run(Decoder, what, func() error {
		o := d.Options()
		x := v.features.To(torch.WithDevice(o.Device), torch.WithDType(o.DType()))
		if f.Normalize {
			x = clip.Normalize(x)
		}
		captions, err := d.Generate(context.Background(), x, clipcap.Options{Method: method, MaxTokens: f.Tokens, Stop: f.Stop})
		if err != nil {
			return err
		}
		var ids [][]int64
		for _, list := range captions {
			ids = append(ids, list[0].Tokens)
		}
		row := Row{Part: Decoder, What: what, Difference: compare.Lists(ids, want)}
		equal := row.Difference.Equal()
		if !equal {
			row.Tie = Ties{d.Model, v.tolerances.outputs.Relative}.Greedy(d.Model.Mapper.Forward(x), ids, want)
		}
		v.Rows = append(v.Rows, row)
		if equal && len(f.Decoded.DeCapTexts) == len(captions) {
			v.texts(captions)
		}
		return nil
	})
}

// texts compares the texts of DeCap's captions.
func (v *Verifier) texts(captions [][]pipeline.Caption) {
	var got, want [][]string
	for i, text := range v.ref.Facts.Decoded.DeCapTexts {
		if text != nil {
			got, want = append(got, []string{captions[i][0].Text}), append(want, []string{*text})
		}
	}
	v.Rows = append(v.Rows, Row{Part: Decoder, What: "texts of the captions", Difference: compare.Lists(got, want)})
}

// training compares the loss and the gradients of one step.
func (v *Verifier) training(m *clipcap.Model, o pipeline.Options) {
	if o.Packed() || o.BF16 {
		v.Rows = append(v.Rows, Row{Part: Decoder, What: "loss and gradients", Skipped: "packed and bf16 weights can't be trained"})
		return
	}
	err := torch.Scope(func() error {
		nn.SetRequiresGrad(m.Mapper, true)
		defer nn.SetRequiresGrad(m.Mapper, false)
		nn.SetRequiresGrad(m.GPT2, false)
		loss := train.DecoderLoss(m, v.input("train.input", o), v.input("train.tokens", o), true)
		loss.Backward()
		d := compare.Numbers([]float64{loss.Item()}, torch.ToSlice[float64](v.ref.tensor("train.loss")))
		v.Rows = append(v.Rows, Row{Part: Decoder, What: "loss of a training step", Difference: d, Tolerance: v.tolerances.outputs})
		all := Row{Part: Decoder, What: "gradients of the mapper", Tolerance: v.tolerances.gradients}
		for _, p := range nn.NamedParameters(m.Mapper) {
			grad := p.Tensor.Grad()
			all.Difference.Add(p.Name, v.difference("train.gradients."+p.Name, grad))
			grad.Close()
		}
		v.Rows = append(v.Rows, all)
		return nil
	})
	if err != nil {
		v.Rows = append(v.Rows, Row{Part: Decoder, What: "loss and gradients", Err: err.Error()})
	}
}
