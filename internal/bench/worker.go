package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"cyclecap/nets/clip"
	"cyclecap/nets/clipcap"
	"cyclecap/nets/gpt2"
	"cyclecap/pipeline"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/weights"
)

// tokens and beams are the values in bench.py.
const (
	tokens       = 20
	beams        = 5
	promptLength = 40
)

// side is the state of the Go side.
type side struct {
	s        settings
	clips    map[kind]*pipeline.CLIP
	decoders map[kind]*pipeline.Decoder
	features torch.Tensor
	texts    torch.Tensor
	prompts  torch.Tensor
	training *training
}

// A kind is the way in which a decoder computes.
type kind struct {
	bf16, packed, int8 bool
	alone              bool // GPT-2 without a mapper
	rn50               bool // CLIP RN50 instead of ViT-B/32
}

// options returns how a pipeline computes in this way.
func (k kind) options() pipeline.Options {
	return pipeline.Options{BF16: k.bf16, Pack: k.packed, Int8: k.int8}
}

// kindOf parses the suffix of a workload's name, "-bf16", "-int8" or "-packed", and the prefix
// "rn50-". rest has no suffix.
func kindOf(name string) (k kind, rest string) {
	rest, k.packed = strings.CutSuffix(name, "-packed")
	if r, ok := strings.CutSuffix(rest, "-bf16"); ok {
		k.bf16, rest = true, r
	}
	if r, ok := strings.CutSuffix(rest, "-int8"); ok {
		k.int8, rest = true, r
	}
	k.rn50 = strings.HasPrefix(rest, "rn50-")
	return k, rest
}

// serve runs the Go side's process, which answers like the worker in bench.py.
func serve(s settings) error {
	torch.SetNumThreads(s.threads)
	build, err := torch.BuildInfo()
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(map[string]any{"ready": true, "torch": build.Version, "threads": torch.NumThreads()}); err != nil {
		return err
	}
	w := &side{s: s, clips: map[kind]*pipeline.CLIP{}, decoders: map[kind]*pipeline.Decoder{}}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		name := strings.TrimPrefix(in.Text(), "run ")
		var result any
		// Loading is not part of a workload.
		if err := torch.Scope(func() error { return w.load(name) }); err != nil {
			return err
		}
		begin := time.Now()
		err := torch.Scope(func() (err error) {
			if w.training != nil {
				result, err = w.training.run(stepsOf[name])
				return err
			}
			torch.InferenceMode(func() { result, err = w.run(name) })
			return err
		})
		seconds := time.Since(begin).Seconds()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if f, ok := result.(features); ok {
			path := filepath.Join(s.dir, "ours.f32")
			if err := os.WriteFile(path, f.bytes(), 0o644); err != nil {
				return err
			}
			result = map[string]any{"file": path, "shape": []int{len(f.values) / f.width, f.width}}
		}
		if err := out.Encode(map[string]any{"seconds": seconds, "result": result}); err != nil {
			return err
		}
	}
	return in.Err()
}

func (w *side) load(name string) (err error) {
	if _, ok := stepsOf[name]; ok {
		if w.training == nil {
			w.training, err = loadTraining(w.s.dir, name)
		}
		return err
	}
	k, name := kindOf(name)
	what, _, _ := strings.Cut(name, "-")
	switch what {
	case "image", "rn50", "text":
		file, part := "clip", clip.Both
		if k.rn50 {
			file, part = "rn50.safetensors", clip.Image
		}
		if w.clips[k] == nil {
			m, err := pipeline.LoadCLIP(filepath.Join(w.s.dir, file), "", part, k.options())
			if err != nil {
				return err
			}
			w.clips[k] = m
		}
		return w.once(&w.texts, "texts", "ids")
	case "gpt2":
		k.alone = true
		err = w.once(&w.prompts, "prompts", "ids")
	default:
		err = w.once(&w.features, "features", "features")
	}
	if err == nil && w.decoders[k] == nil {
		w.decoders[k], err = loadDecoder(w.s.dir, k)
	}
	return err
}

// once loads a tensor of a file, unless it is loaded already.
func (w *side) once(t *torch.Tensor, file, name string) error {
	if t.Defined() {
		return nil
	}
	sd, err := tensors(filepath.Join(w.s.dir, file+".safetensors"))
	if err == nil {
		*t, _ = sd.Get(name)
	}
	return err
}

func tensors(path string) (*nn.StateDict, error) {
	f, err := weights.Open(path)
	if err != nil {
		return nil, err
	}
	return f.Load()
}

func loadDecoder(dir string, k kind) (*pipeline.Decoder, error) {
	d, err := pipeline.LoadDecoder(filepath.Join(dir, "decoder.pt"), filepath.Join(dir, "gpt2"), k.options())
	if err == nil && k.alone {
		nn.Close(d.Model.Mapper)
		d.Model.Mapper = prompt{d.Model.GPT2}
	}
	return d, err
}

// A prompt is a mapper for features that are tokens.
type prompt struct{ gpt2 *gpt2.Model }

func (p prompt) Forward(ids torch.Tensor) torch.Tensor {
	return p.gpt2.Embed(ids.To(torch.WithDType(torch.Int64)))
}

func (p prompt) FeatureWidth() int64 { return promptLength }
func (p prompt) PrefixLength() int64 { return promptLength }
func (p prompt) Width() int64        { return p.gpt2.Config.NEmbd }

// features holds the rows of a result.
type features struct {
	values []float32
	width  int
}

func (f features) bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(f.values))), 4*len(f.values))
}

func (w *side) run(name string) (any, error) {
	k, name := kindOf(name)
	model := w.clips[k]
	switch name {
	case "image-1", "rn50-1":
		return images(model, w.s.photos[:16], 1)
	case "image-32", "rn50-32":
		return images(model, w.s.photos, 32)
	case "text-64":
		return features{torch.ToSlice[float32](model.Model.EncodeText(w.texts)), model.Width()}, nil
	case "clipcap-greedy":
		return w.captions(1, clipcap.TopP, k)
	case "clipcap-beam":
		return w.captions(1, clipcap.Beam, k)
	}
	name, k.alone = strings.CutPrefix(name, "gpt2-")
	method, rest, _ := strings.Cut(name, "-")
	var n int
	if _, err := fmt.Sscanf(rest, "%d", &n); err != nil {
		return nil, fmt.Errorf("unknown workload")
	}
	return w.captions(n, clipcap.Method(method), k)
}

// images computes the features of photo files; the next photos are decoded meanwhile.
func images(model *pipeline.CLIP, paths []string, batch int) (features, error) {
	f := features{width: model.Width()}
	for b, err := range model.Photos(context.Background(), paths, batch) {
		if err != nil {
			return f, err
		}
		if len(b.Failed) > 0 {
			return f, b.Failed[0]
		}
		f.values = append(f.values, b.Rows...)
	}
	return f, nil
}

// captions decodes the first n features.
func (w *side) captions(n int, method clipcap.Method, k kind) ([][]int64, error) {
	rows := w.features
	if k.alone {
		rows = w.prompts.To(torch.WithDType(torch.Float32)) // as features are
	}
	captions, err := w.decoders[k].Generate(context.Background(), rows.Narrow(0, 0, int64(n)),
		clipcap.Options{Method: method, Beam: beams, MaxTokens: tokens, Stop: math.MinInt64})
	var out [][]int64
	for _, c := range captions {
		out = append(out, c[0].Tokens)
	}
	return out, err
}
