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

	"cyclecap/data/photo"
	"cyclecap/nets/clip"
	"cyclecap/nets/clipcap"
	"cyclecap/nets/gpt2"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/weights"
)

// tokens and beams are those of bench.py.
const (
	tokens = 20
	beams  = 5
)

// side is the Go side.
type side struct {
	s        settings
	clips    map[bool]*clip.Model // by whether they are packed
	decoders map[kind]*clipcap.Model
	features torch.Tensor
	texts    torch.Tensor
	training *training
}

// kind says how a decoder computes.
type kind struct {
	dtype  torch.DType
	packed bool
}

// kindOf reads the end of a workload's name: "-bf16", "-packed" or both.
func kindOf(name string) (k kind, rest string) {
	k.dtype = torch.Float32
	rest, k.packed = strings.CutSuffix(name, "-packed")
	if r, ok := strings.CutSuffix(rest, "-bf16"); ok {
		k.dtype, rest = torch.BFloat16, r
	}
	return k, rest
}

// serve is the Go side's process: it answers as bench.py's worker does.
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
	w := &side{s: s, clips: map[bool]*clip.Model{}, decoders: map[kind]*clipcap.Model{}}
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
	case "image", "text":
		if w.clips[k.packed] == nil {
			sd, quick, err := weights.LoadCLIP(filepath.Join(w.s.dir, "clip"))
			if err != nil {
				return err
			}
			m, err := clip.Load(sd, !quick)
			if err != nil {
				return err
			}
			if k.packed {
				nn.Pack(m)
			}
			w.clips[k.packed] = m
		}
		if !w.texts.Defined() {
			sd, err := tensors(filepath.Join(w.s.dir, "texts.safetensors"))
			if err != nil {
				return err
			}
			w.texts, _ = sd.Get("ids")
		}
		return nil
	}
	if !w.features.Defined() {
		sd, err := tensors(filepath.Join(w.s.dir, "features.safetensors"))
		if err != nil {
			return err
		}
		w.features, _ = sd.Get("features")
	}
	if w.decoders[k] == nil {
		w.decoders[k], err = loadDecoder(w.s.dir, k)
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

func loadDecoder(dir string, k kind) (*clipcap.Model, error) {
	sd, err := weights.LoadGPT2(filepath.Join(dir, "gpt2"))
	if err != nil {
		return nil, err
	}
	g, err := gpt2.Load(sd)
	if err != nil {
		return nil, err
	}
	if sd, _, err = weights.LoadDecoder(filepath.Join(dir, "decoder.pt")); err != nil {
		return nil, err
	}
	m, err := clipcap.LoadMapper(sd, g.Config.NEmbd)
	if err != nil {
		return nil, err
	}
	if k.dtype != torch.Float32 {
		nn.To(g, torch.WithDType(k.dtype))
		nn.To(m, torch.WithDType(k.dtype))
	}
	if k.packed {
		nn.Pack(g)
		nn.Pack(m)
	}
	return &clipcap.Model{Mapper: m, GPT2: g}, nil
}

// features are the rows of a result.
type features struct {
	values []float32
	width  int
}

func (f features) bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(f.values))), 4*len(f.values))
}

func (w *side) run(name string) (any, error) {
	k, name := kindOf(name)
	model := w.clips[k.packed]
	switch name {
	case "image-1":
		return images(model, w.s.photos[:16], 1)
	case "image-32":
		return images(model, w.s.photos, 32)
	case "text-64":
		return features{torch.ToSlice[float32](model.EncodeText(w.texts)), int(model.Config.EmbedDim)}, nil
	case "clipcap-greedy":
		return w.captions(1, clipcap.TopP, k), nil
	case "clipcap-beam":
		return w.captions(1, clipcap.Beam, k), nil
	}
	method, rest, _ := strings.Cut(name, "-")
	var n int
	if _, err := fmt.Sscanf(rest, "%d", &n); err != nil {
		return nil, fmt.Errorf("there is no workload of this name")
	}
	return w.captions(n, clipcap.Method(method), k), nil
}

// images turns photo files into features; the next photos are decoded
// meanwhile.
func images(model *clip.Model, paths []string, batch int) (features, error) {
	size := model.Config.ImageSize
	f := features{width: int(model.Config.EmbedDim)}
	for b, err := range photo.Load(context.Background(), paths, photo.CLIP(int(size)), 2, batch) {
		if err != nil {
			return f, err
		}
		if len(b.Failed) > 0 {
			return f, b.Failed[0]
		}
		torch.Tidy(func() torch.Tensor {
			pixels := torch.FromSlice(b.Pixels, int64(len(b.Index)), 3, size, size)
			f.values = append(f.values, torch.ToSlice[float32](model.EncodeImage(pixels))...)
			return torch.Tensor{}
		})
	}
	return f, nil
}

// captions decodes the first n features.
func (w *side) captions(n int, method clipcap.Method, k kind) [][]int64 {
	f := w.features.Narrow(0, 0, int64(n)).To(torch.WithDType(k.dtype))
	var out [][]int64
	for _, c := range w.decoders[k].Generate(f, clipcap.Options{Method: method, Beam: beams, MaxTokens: tokens, Stop: math.MinInt64}) {
		out = append(out, c[0].Tokens)
	}
	return out
}
