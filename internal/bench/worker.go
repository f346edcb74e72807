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
)

// tokens and beams are those of bench.py.
const (
	tokens = 20
	beams  = 5
)

// side is the Go side.
type side struct {
	s        settings
	clip     *clip.Model
	decoders map[torch.DType]*clipcap.Model
	features torch.Tensor
	texts    torch.Tensor
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
	w := &side{s: s, decoders: map[torch.DType]*clipcap.Model{}}
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
	kind, _, _ := strings.Cut(name, "-")
	switch kind {
	case "image", "text":
		if w.clip == nil {
			sd, err := read(filepath.Join(w.s.dir, "clip", "model.safetensors"))
			if err != nil {
				return err
			}
			if w.clip, err = clip.Load(sd); err != nil {
				return err
			}
		}
		if !w.texts.Defined() {
			sd, err := read(filepath.Join(w.s.dir, "texts.safetensors"))
			if err != nil {
				return err
			}
			w.texts, _ = sd.Get("ids")
		}
		return nil
	}
	if !w.features.Defined() {
		sd, err := read(filepath.Join(w.s.dir, "features.safetensors"))
		if err != nil {
			return err
		}
		w.features, _ = sd.Get("features")
	}
	dtype := dtypeOf(name)
	if w.decoders[dtype] == nil {
		w.decoders[dtype], err = loadDecoder(w.s.dir, dtype)
	}
	return err
}

func dtypeOf(name string) torch.DType {
	if strings.HasSuffix(name, "-bf16") {
		return torch.BFloat16
	}
	return torch.Float32
}

func loadDecoder(dir string, dtype torch.DType) (*clipcap.Model, error) {
	sd, err := read(filepath.Join(dir, "gpt2", "model.safetensors"))
	if err != nil {
		return nil, err
	}
	g, err := gpt2.Load(sd)
	if err != nil {
		return nil, err
	}
	if sd, err = read(filepath.Join(dir, "decoder.pt")); err != nil {
		return nil, err
	}
	m, err := clipcap.LoadMapper(sd, g.Config.NEmbd)
	if err != nil {
		return nil, err
	}
	if dtype != torch.Float32 {
		nn.To(g, torch.WithDType(dtype))
		nn.To(m, torch.WithDType(dtype))
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
	switch name {
	case "image-1":
		return w.images(w.s.photos[:16], 1)
	case "image-32":
		return w.images(w.s.photos, 32)
	case "text-64":
		return features{torch.ToSlice[float32](w.clip.EncodeText(w.texts)), int(w.clip.Config.EmbedDim)}, nil
	case "clipcap-greedy":
		return w.captions(1, clipcap.TopP, torch.Float32), nil
	case "clipcap-beam":
		return w.captions(1, clipcap.Beam, torch.Float32), nil
	}
	method, rest, _ := strings.Cut(name, "-")
	var n int
	if _, err := fmt.Sscanf(rest, "%d", &n); err != nil {
		return nil, fmt.Errorf("there is no workload of this name")
	}
	return w.captions(n, clipcap.Method(method), dtypeOf(name)), nil
}

// images turns photo files into features; the next photos are decoded
// meanwhile.
func (w *side) images(paths []string, batch int) (features, error) {
	size := w.clip.Config.ImageSize
	f := features{width: int(w.clip.Config.EmbedDim)}
	for b, err := range photo.Load(context.Background(), paths, photo.CLIP(int(size)), 2, batch) {
		if err != nil {
			return f, err
		}
		if len(b.Failed) > 0 {
			return f, b.Failed[0]
		}
		torch.Tidy(func() torch.Tensor {
			pixels := torch.FromSlice(b.Pixels, int64(len(b.Index)), 3, size, size)
			f.values = append(f.values, torch.ToSlice[float32](w.clip.EncodeImage(pixels))...)
			return torch.Tensor{}
		})
	}
	return f, nil
}

// captions decodes the first n features.
func (w *side) captions(n int, method clipcap.Method, dtype torch.DType) [][]int64 {
	f := w.features.Narrow(0, 0, int64(n)).To(torch.WithDType(dtype))
	var out [][]int64
	for _, c := range w.decoders[dtype].Generate(f, clipcap.Options{Method: method, Beam: beams, MaxTokens: tokens, Stop: math.MinInt64}) {
		out = append(out, c[0].Tokens)
	}
	return out
}
