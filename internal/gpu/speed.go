package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"cyclecap/data/photo"
	"cyclecap/nets/clip"
	"cyclecap/nets/clipcap"
	"cyclecap/pipeline"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/train"
)

// A workload is something that both sides do, in the same amounts.
type workload struct {
	key    string // gpu.py's name
	name   string // with a batch
	unit   string
	per    float64 // units of work in a run; 0: the figure is the time of a run, in ms
	batch  int
	peer   string // gpu.py's name of the peer
	label  string
	target float64
	// work gives the FLOPs and the bytes of a run, of which the larger share is reported.
	flops, bytes float64
}

// ceiling is what the card can do, as measured on it.
type ceiling struct {
	bytes float64            // per second, read and written
	flops map[string]float64 // per second, by dtype
}

var dtypes = []string{"f32", "tf32", "bf16"}

func speedRows(e *env) error {
	if err := e.precision("f32"); err != nil {
		return err
	}
	var top ceiling
	e.attempt("what the device can do", func() (err error) { top, err = e.ceiling(); return err })
	e.attempt("photos", e.photoSpeed)
	modes := dtypes
	if e.small {
		modes = []string{"f32"}
	}
	for _, dtype := range modes {
		list := slices.Concat(e.clipWorkloads(), e.captionWorkloads(dtype), e.trainingWorkloads())
		if e.quick && dtype == "tf32" {
			// What TF32 speeds up.
			list = slices.DeleteFunc(list, func(w workload) bool { return w.key == "beam" || w.batch == 1 })
		}
		e.pairs(list, dtype, top)
	}
	for _, w := range e.compiledWorkloads() {
		for _, dtype := range modes {
			if e.quick && dtype == "tf32" {
				continue
			}
			if e.on == torch.CPU {
				e.add(row{Name: w.name, Peer: w.label, DType: dtype, Verdict: skipped, Note: "transformers compiles only on a GPU"})
				continue
			}
			e.pairs([]workload{w}, dtype, top)
		}
	}
	return nil
}

// batches returns the sizes that are measured; the CPU's are small.
func (e *env) batches(real ...int) []int {
	if e.small {
		return []int{1, 4}[:min(2, len(real))]
	}
	return real
}

// Work of the real sizes, for the shares.
const (
	clipFLOPs = 12*50*(24*768*768+4*50*768) + 2*49*3072*768.0 // an image through ViT-B/32
	gptBlocks = 12 * 12 * 768 * 768.0                         // parameters of the products of GPT-2's blocks
	gptHead   = 50257 * 768.0
	mapBlocks = 8 * 8 * 768 * 768.0
	mapInput  = 512 * 40 * 768.0
	ganNet    = 4 * 512 * 512.0
)

func (e *env) clipWorkloads() (list []workload) {
	for _, n := range e.batches(1, 64, 256) {
		list = append(list, workload{key: "image", name: fmt.Sprintf("CLIP images, batch %d", n), unit: "images/s", per: float64(n), batch: n,
			peer: "openai", label: openAI, target: 1, flops: float64(n) * clipFLOPs})
	}
	if !e.quick {
		for _, n := range e.batches(64, 256) {
			list = append(list, workload{key: "image", name: fmt.Sprintf("CLIP images, batch %d", n), unit: "images/s", per: float64(n), batch: n,
				peer: "transformers", label: transformers, flops: float64(n) * clipFLOPs})
		}
	}
	n := e.batches(256)[0]
	return append(list, workload{key: "text", name: fmt.Sprintf("CLIP texts, batch %d", n), unit: "texts/s", per: float64(n), batch: n, peer: "openai", label: openAI})
}

func (e *env) captionWorkloads(dtype string) (list []workload) {
	size := 4.0
	if dtype == "bf16" {
		size = 2
	}
	for _, key := range []string{"greedy", "beam"} {
		for _, n := range e.batches(1, 16, 64) {
			rows := float64(n)
			if key == "beam" {
				rows *= beams
			}
			w := workload{key: key, name: fmt.Sprintf("captions, %s, batch %d", label(key), n), unit: "captions/s", per: float64(n), batch: n, label: "generate",
				// Every token reads all weights.
				bytes: size * (float64(e.sizes.Tokens)*(gptBlocks+gptHead) + mapBlocks + mapInput),
				// The mapper, the prefix, and a token less than there are: the last is not fed.
				flops: 2 * (float64(n)*(mapInput+80*mapBlocks+40*gptBlocks+gptHead) + rows*float64(e.sizes.Tokens-1)*(gptBlocks+gptHead))}
			if n == 1 && key == "greedy" {
				w.target = 5
			}
			list = append(list, w)
		}
	}
	return list
}

func label(key string) string {
	if key == "beam" {
		return fmt.Sprintf("beam %d", beams)
	}
	return key
}

func (e *env) compiledWorkloads() (list []workload) {
	keys := []string{"greedy", "beam"}
	counts := e.batches(1, 16, 64)
	if e.quick {
		keys, counts = keys[:1], e.batches(1) // each takes 10 s to compile
	}
	for _, key := range keys {
		for _, n := range counts {
			w := workload{key: key, name: fmt.Sprintf("captions, %s, batch %d", label(key), n), unit: "captions/s", per: float64(n), batch: n,
				peer: "compiled", label: "generate, static cache, compiled"}
			if n == 1 && key == "greedy" {
				w.target = 1
			}
			list = append(list, w)
		}
	}
	return list
}

func (e *env) trainingWorkloads() []workload {
	n := 64
	if e.small {
		n = 8
	}
	positions, caption := float64(n)*52, float64(n)*12
	list := []workload{
		{key: "mapper", name: fmt.Sprintf("mapper step, batch %d", n), unit: "ms", batch: n, label: "ClipCap's step, GPT-2 frozen", target: 1,
			// Twice for what is frozen (forward, gradients of activations), three times for the mapper.
			flops: 4*(gptBlocks*positions+gptHead*caption) + 6*(mapBlocks*float64(n)*80+mapInput*float64(n))},
		// Six passes through a generator, forward and twice backward.
		{key: "cyclegan", name: fmt.Sprintf("CycleGAN step, batch %d", n), unit: "ms", batch: n, label: "CycleGAN's step, the pool row by row", target: 2,
			flops: 6 * 6 * ganNet * float64(n)},
	}
	faster := list[1]
	faster.peer, faster.label = "index", "CycleGAN's step, the pool by index operators"
	list = append(list, faster)
	if !e.quick {
		list = append(list, workload{key: "mapper", name: list[0].name, unit: "ms", batch: n, peer: "whole", label: "ClipCap's step as it is, GPT-2 with gradients"})
	}
	return list
}

// pairs measures workloads; a failure belongs to its row.
func (e *env) pairs(list []workload, dtype string, top ceiling) {
	models := &models{e: e, dtype: dtype}
	defer models.close()
	for _, w := range list {
		r := row{Name: w.name, Peer: w.label, DType: dtype, Key: w.key, Batch: w.batch, Target: w.target, Verdict: absent}
		if e.left() < 3*time.Second {
			r.Note = "the section's time was used up"
			e.add(r)
			continue
		}
		if w.key == "cyclegan" && dtype == "bf16" {
			r.Verdict, r.Note = skipped, "cyclecap trains it in f32 only, as the paper does"
			e.add(r)
			continue
		}
		err := torch.Scope(func() error {
			// Every time, since the peer may be a new process.
			if err := e.precision(dtype); err != nil {
				return err
			}
			return e.pair(w, dtype, models, top, &r)
		})
		if err != nil {
			r.Note = err.Error()
			if r.Ours == 0 && e.left() > 0 {
				r.Verdict = failed
			}
		}
		if r.Ours > 0 {
			r.Unit = w.unit
		}
		e.add(r)
	}
}

// pair measures a workload.
func (e *env) pair(w workload, dtype string, m *models, top ceiling, r *row) error {
	begin := time.Now()
	ours, err := m.prepare(w)
	if err != nil {
		return err
	}
	timed := func(repeats int) (float64, error) {
		if err := torch.Synchronize(e.on); err != nil {
			return 0, err
		}
		begin := time.Now()
		for range repeats {
			if err := ours(); err != nil {
				return 0, err
			}
		}
		if err := torch.Synchronize(e.on); err != nil {
			return 0, err
		}
		return time.Since(begin).Seconds() / float64(repeats), nil
	}
	var one float64
	for range 3 { // the last of them is warm
		if one, err = timed(1); err != nil {
			return err
		}
	}
	r.Ours = w.figure(one)
	limit := 60 * time.Second
	if w.peer == "compiled" && !e.quick {
		limit = 120 * time.Second
	}
	request := args{"name": w.key, "dtype": dtype, "batch": w.batch}
	if w.peer != "" {
		request["peer"] = w.peer
	}
	var theirs struct{ Seconds, Warm float64 }
	if err := e.ask(limit, "prepare", request, &theirs); err != nil {
		if errors.Is(err, errSlow) {
			err = fmt.Errorf("the peer's preparation took longer than %v", min(limit, time.Since(begin).Round(time.Second)))
		}
		return err
	}
	if w.peer == "compiled" {
		r.Note = fmt.Sprintf("compiled and warm after %.0f s", theirs.Warm)
	}
	// A round repeats short work; a quick run has fewer rounds of long work.
	each, rounds := 0.1, 9
	if e.quick {
		each = 0.04
		if e.small || one+theirs.Seconds > 0.2 {
			rounds = 3
		}
	}
	repeats := func(seconds float64) int { return max(1, min(100, int(each/seconds))) }
	mine, yours := repeats(one), repeats(theirs.Seconds)
	var a, b, ratios []float64
	for round := range rounds {
		var x float64
		var y struct{ Seconds float64 }
		turns := []func() error{
			func() (err error) { x, err = timed(mine); return err },
			func() error { return e.ask(time.Minute, "time", args{"repeats": yours}, &y) },
		}
		if round%2 == 1 {
			slices.Reverse(turns)
		}
		for _, turn := range turns {
			if err := turn(); err != nil {
				return err
			}
		}
		a, b, ratios = append(a, x), append(b, y.Seconds), append(ratios, y.Seconds/x)
	}
	r.Ours, r.Theirs = w.figure(median(a)), w.figure(median(b))
	r.Ratio = &ratio{slices.Min(ratios), median(ratios), slices.Max(ratios)}
	switch {
	case w.target == 0 || e.small:
		r.Verdict, r.Target = measured, 0
	case r.Ratio.Median >= w.target:
		r.Verdict = reached
	default:
		r.Verdict = missed
	}
	if top.bytes > 0 && !e.small {
		r.Share, r.Of = w.flops/median(a)/top.flops[dtype], "FLOPS"
		if share := w.bytes / median(a) / top.bytes; share > r.Share {
			r.Share, r.Of = share, "memory bandwidth"
		}
	}
	return nil
}

// figure returns the figure of a run that takes seconds.
func (w workload) figure(seconds float64) float64 {
	if w.per > 0 {
		return w.per / seconds
	}
	return 1000 * seconds
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

// models are the models of a group of workloads.
type models struct {
	e       *env
	dtype   string
	clip    *pipeline.CLIP
	decoder *pipeline.Decoder
	closers []func()
}

func (m *models) close() {
	if m.clip != nil {
		m.clip.Close()
	}
	if m.decoder != nil {
		m.decoder.Close()
	}
	for _, f := range m.closers {
		f()
	}
}

// prepare returns the function that does a workload once.
func (m *models) prepare(w workload) (func() error, error) {
	e := m.e
	o := pipeline.Options{Device: e.on, BF16: m.dtype == "bf16"}
	infer := func(f func() error) func() error {
		return func() error {
			return torch.Scope(func() (err error) {
				torch.InferenceMode(func() { err = f() })
				return err
			})
		}
	}
	switch w.key {
	case "image", "text":
		if m.clip == nil {
			var err error
			if m.clip, err = pipeline.LoadCLIP(e.path("clip.pt"), "", clip.Both, o); err != nil {
				return nil, err
			}
		}
		input := map[string]string{"image": "pixels", "text": "text_ids"}[w.key]
		x, err := e.inputs(input, o.DType())
		if err != nil {
			return nil, err
		}
		x = many(x, w.batch)
		model := m.clip.Model
		return infer(func() error {
			if w.key == "image" {
				model.EncodeImage(x)
			} else {
				model.EncodeText(x)
			}
			return nil
		}), nil
	case "greedy", "beam":
		if m.decoder == nil {
			var err error
			if m.decoder, err = e.decoder(m.dtype); err != nil {
				return nil, err
			}
		}
		features, err := e.inputs("features", torch.Float32)
		if err != nil {
			return nil, err
		}
		features = many(features, w.batch)
		options := clipcap.Options{Method: clipcap.Method(w.key), Beam: beams, MaxTokens: e.sizes.Tokens, Stop: -1}
		return infer(func() error {
			captions, err := m.decoder.Generate(context.Background(), features, options)
			for _, c := range captions {
				if len(c[0].Tokens) != e.sizes.Tokens {
					return fmt.Errorf("a caption has %d tokens, want %d", len(c[0].Tokens), e.sizes.Tokens)
				}
			}
			return err
		}), nil
	case "mapper":
		step, closer, err := e.mapperTask(w.batch, m.dtype == "bf16")
		if err == nil {
			m.closers = append(m.closers, closer)
		}
		return step, err
	case "cyclegan":
		step, closer, err := e.cycleGANTask(w.batch)
		if err == nil {
			m.closers = append(m.closers, closer)
		}
		return step, err
	}
	return nil, fmt.Errorf("unknown workload %s", w.key)
}

// many returns n rows of x, repeated as needed.
func many(x torch.Tensor, n int) torch.Tensor {
	var parts []torch.Tensor
	for have := 0; have < n; have += int(x.Size(0)) {
		parts = append(parts, x)
	}
	return torch.Cat(parts).Narrow(0, 0, int64(n)).Contiguous()
}

// stepper returns a function that queues the next step of a task, which has more of them
// than are measured. Neither side reads the losses.
func stepper(t train.Task) func() error {
	at := 0
	return func() error {
		return torch.Scope(func() error {
			_, err := t.Queue(at)
			at++
			return err
		})
	}
}

// mapperTask returns a step of the mapper's training as `cyclecap train` does it.
func (e *env) mapperTask(batch int, bf16 bool) (step func() error, closer func(), err error) {
	d, err := e.decoder("f32")
	if err != nil {
		return nil, nil, err
	}
	nn.SetRequiresGrad(d.Model.Mapper, true)
	features, err := e.matrix("many_features")
	if err != nil {
		return nil, nil, err
	}
	sd, err := load(e.path("inputs.safetensors"))
	if err != nil {
		return nil, nil, err
	}
	defer sd.Close()
	ids, _ := sd.Get("many_tokens")
	length := int(ids.Size(1))
	flat := torch.ToSlice[int64](ids)
	captions := &train.Texts{}
	one := make([]int, length)
	for at := 0; at < len(flat); at += length {
		for i := range one {
			one[i] = int(flat[at+i])
		}
		captions.Add(one)
	}
	task, err := train.NewDecoderTask(train.DecoderConfig{Epochs: 1000, Batch: batch, LR: 2e-5, BF16: bf16, Device: e.on},
		d.Model, train.DecoderData{Captions: captions, Features: features}, train.DecoderData{Captions: &train.Texts{}})
	if err != nil {
		return nil, nil, err
	}
	return stepper(task), func() { task.Close(); d.Close() }, nil
}

// cycleGANTask returns a step of the CycleGAN's training.
func (e *env) cycleGANTask(batch int) (step func() error, closer func(), err error) {
	var sides [2]train.Matrix
	for i, name := range []string{"many_images", "many_texts"} {
		if sides[i], err = e.matrix(name); err != nil {
			return nil, nil, err
		}
	}
	config := train.DefaultCycleGAN()
	config.Width, config.Batch, config.Epochs, config.DecayFrom, config.Device = int64(sides[0].Cols), batch, 1000, 1000, e.on
	task, err := train.NewCycleGANTask(config, sides[0], sides[1])
	if err != nil {
		return nil, nil, err
	}
	return stepper(task), task.Close, nil
}

// matrix returns an input as features in host memory.
func (e *env) matrix(name string) (train.Matrix, error) {
	sd, err := load(e.path("inputs.safetensors"))
	if err != nil {
		return train.Matrix{}, err
	}
	defer sd.Close()
	t, ok := sd.Get(name)
	if !ok {
		return train.Matrix{}, fmt.Errorf("inputs.safetensors has no tensor %s", name)
	}
	return train.Matrix{Data: torch.ToSlice[float32](t), Cols: int(t.Size(1))}, nil
}

// ceiling measures the device's memory bandwidth and FLOPS.
func (e *env) ceiling() (ceiling, error) {
	c := ceiling{flops: map[string]float64{}}
	bytes, side := int64(1)<<30, int64(8192)
	if e.small {
		bytes, side = 1<<25, 512
	}
	best := func(f func()) float64 {
		fastest := time.Hour.Seconds()
		for range 5 {
			torch.Synchronize(e.on)
			begin := time.Now()
			torch.Tidy(func() torch.Tensor { f(); return torch.Tensor{} })
			torch.Synchronize(e.on)
			fastest = min(fastest, time.Since(begin).Seconds())
		}
		return fastest
	}
	err := torch.Scope(func() error {
		on := torch.WithDevice(e.on)
		from, to := torch.Ones([]int64{bytes / 4}, on), torch.Zeros([]int64{bytes / 4}, on)
		c.bytes = 2 * float64(bytes) / best(func() { to.Copy_(from) })
		return nil
	})
	if err != nil {
		return c, err
	}
	e.add(row{Name: "copy on the device, read and written", Verdict: measured, Unit: "GB/s", Ours: c.bytes / 1e9})
	for _, dtype := range dtypes {
		if e.small && dtype == "tf32" {
			continue
		}
		if err := e.precision(dtype); err != nil {
			return c, err
		}
		err := torch.Scope(func() error {
			a := torch.Randn([]int64{side, side}, torch.WithDevice(e.on), torch.WithDType(dtypeOf(dtype)))
			b := torch.Randn([]int64{side, side}, torch.WithDevice(e.on), torch.WithDType(dtypeOf(dtype)))
			c.flops[dtype] = 2 * float64(side*side*side) / best(func() { a.Matmul(b) })
			return nil
		})
		if err != nil {
			return c, err
		}
		e.add(row{Name: fmt.Sprintf("product of %d x %d matrices", side, side), DType: dtype, Verdict: measured, Unit: "TFLOP/s", Ours: c.flops[dtype] / 1e12})
	}
	return c, e.precision("f32")
}

// photoSpeed measures how many photos the CPU decodes and resizes.
func (e *env) photoSpeed() error {
	paths, err := filepath.Glob(filepath.Join(e.photos, "*.jpg"))
	if err != nil || len(paths) == 0 {
		return fmt.Errorf("%s contains no photos", e.photos)
	}
	total := 2048
	if e.quick || e.small {
		total = 256
	}
	var all []string
	for len(all) < total {
		all = append(all, paths...)
	}
	begin, n := time.Now(), 0
	for b, err := range photo.Load(context.Background(), all, photo.CLIP(224), photo.Workers(), 32) {
		if err != nil {
			return err
		}
		n += len(b.Index)
	}
	rate := float64(n) / time.Since(begin).Seconds()
	e.add(row{Name: fmt.Sprintf("photos decoded and resized by the CPU, %d at a time", photo.Workers()), Verdict: measured, Unit: "photos/s", Ours: rate, Key: "photos"})
	return nil
}
