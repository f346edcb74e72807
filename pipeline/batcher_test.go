package pipeline_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"cyclecap/nets/clipcap"
	"cyclecap/pipeline"
	"cyclecap/torch"
)

// loadWorld loads the models that the program contains.
func loadWorld(t *testing.T) *pipeline.Captioner {
	t.Helper()
	const folder = "../models/world/"
	c, err := pipeline.Load(pipeline.Files{CLIP: folder + "clip.safetensors", Decoder: folder + "decoder.safetensors",
		GPT2: folder + "gpt2.safetensors", Generator: folder + "generator.safetensors"}, pipeline.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	threads := torch.NumThreads()
	torch.SetNumThreads(1) // models this small are faster with one
	t.Cleanup(func() { torch.SetNumThreads(threads) })
	return c
}

// features returns the features of 20 photos.
func features(t *testing.T, c *pipeline.Captioner) []float32 {
	t.Helper()
	var rows []float32
	for f, err := range c.CLIP.Photos(t.Context(), photos(t, 20), 16) {
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, f.Rows...)
	}
	return rows
}

// TestBatcher has both captions of photos by the world's models join and leave at random
// steps, and compares each with the same caption decoded alone.
func TestBatcher(t *testing.T) {
	before := torch.Alive()
	c := loadWorld(t)
	rows, width := features(t, c), c.CLIP.Width()
	n := len(rows) / width
	textual, err := c.Textualise(rows)
	if err != nil {
		t.Fatal(err)
	}
	both := slices.Concat(rows, textual)
	for _, o := range []clipcap.Options{
		{Method: clipcap.Greedy, MaxTokens: 40, Stop: c.Decoder.Stop},
		{Method: clipcap.Sample, MaxTokens: 40, Stop: c.Decoder.Stop, Temperature: 0.8, TopP: 0.95},
	} {
		streamed := map[int][]int64{}
		o.OnToken = func(id int, token int64, _ float64) { streamed[id] = append(streamed[id], token) }
		b, err := c.Decoder.NewBatcher(o, 7)
		if err != nil {
			t.Fatal(err)
		}
		got := map[int]pipeline.Finished{}
		r := rand.New(rand.NewPCG(3, 4))
		for added := 0; added < 2*n || b.Len() > 0; {
			if k := min(b.Room(), 2*n-added, r.IntN(3)); k > 0 {
				options := make([]clipcap.RowOptions, k)
				for i := range options {
					options[i].Seed = uint64((added + i) % n)
				}
				ids, err := b.Add(both[added*width:(added+k)*width], options)
				if err != nil || ids[0] != added {
					t.Fatal(ids, err)
				}
				added += k
			}
			ended, err := b.Step(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range ended {
				got[f.ID] = f
			}
		}
		b.Close()
		texts := map[string]bool{}
		var off float64
		o.OnToken = nil
		for i := range n {
			o.Seed = uint64(i)
			want, err := c.Captions(t.Context(), rows[i*width:(i+1)*width], o)
			if err != nil {
				t.Fatal(err)
			}
			for id, w := range map[int]pipeline.Caption{i: want[0].Direct[0], n + i: want[0].Textualised[0]} {
				g := got[id]
				if g.Err != nil || g.Text != w.Text || !slices.Equal(g.Tokens, w.Tokens) || !slices.Equal(streamed[id], w.Tokens) {
					t.Errorf("%s, caption %d: %q (%v), streamed %v, want %q %v", o.Method, id, g.Text, g.Err, streamed[id], w.Text, w.Tokens)
					continue
				}
				for k, p := range w.TokenLogProbs {
					off = max(off, math.Abs(p-g.TokenLogProbs[k]))
				}
				texts[w.Text] = true
			}
		}
		if !(off <= 1e-4) { // measured: 5.7e-6
			t.Errorf("%s: log-probabilities differ by up to %g", o.Method, off)
		}
		if len(texts) < n {
			t.Errorf("%s: only %d different captions", o.Method, len(texts))
		}
		t.Logf("%s: %d different captions; log-probabilities differ by up to %.2g", o.Method, len(texts), off)
	}
	c.Close()
	if after := torch.Alive(); after != before {
		t.Errorf("%d tensors are alive that were not before", after-before)
	}
}

// TestBatcherAtOnce: captions that are added together are those of Captions. The operators are
// the same, and so are the bits with MKL_CBWR=AVX512,STRICT. Without it, MKL's products for
// these shapes depend on the addresses, and two calls of Captions may differ in the last
// bits, too; TestTogether of nets/clipcap compares bits where they do not.
func TestBatcherAtOnce(t *testing.T) {
	c := loadWorld(t)
	rows, width := features(t, c), c.CLIP.Width()
	n := len(rows) / width
	textual, err := c.Textualise(rows)
	if err != nil {
		t.Fatal(err)
	}
	o := clipcap.Options{Method: clipcap.Sample, MaxTokens: 40, Stop: c.Decoder.Stop, Seed: 8}
	want, err := c.Captions(t.Context(), rows, o)
	if err != nil {
		t.Fatal(err)
	}
	var off float64
	for name, features := range map[string][]float32{"direct": rows, "textualised": textual} {
		b, err := c.Decoder.NewBatcher(o, n)
		if err != nil {
			t.Fatal(err)
		}
		options := make([]clipcap.RowOptions, n)
		for i := range options {
			options[i].Seed = o.Seed + uint64(i)
		}
		if _, err := b.Add(features, options); err != nil {
			t.Fatal(err)
		}
		for b.Len() > 0 {
			ended, err := b.Step(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range ended {
				w := want[f.ID].Direct[0]
				if name == "textualised" {
					w = want[f.ID].Textualised[0]
				}
				if f.Err != nil || f.Text != w.Text || !slices.Equal(f.Tokens, w.Tokens) {
					t.Errorf("%s, caption %d: %q (%v), want %q", name, f.ID, f.Text, f.Err, w.Text)
					continue
				}
				for k, p := range w.TokenLogProbs {
					off = max(off, math.Abs(p-f.TokenLogProbs[k]))
				}
			}
		}
		b.Close()
	}
	if !(off <= 1e-4) { // measured: 0, or up to 6e-6 where addresses matter
		t.Errorf("log-probabilities differ by up to %g", off)
	}
	t.Logf("log-probabilities differ by up to %.2g", off)
}

// TestBatcherErrors: what is wrong with one caption ends neither the others nor the Batcher.
func TestBatcherErrors(t *testing.T) {
	c := loadWorld(t)
	width := c.CLIP.Width()
	rows := features(t, c)[:3*width]
	o := clipcap.Options{Method: clipcap.Greedy, MaxTokens: 40, Stop: c.Decoder.Stop}
	want, err := c.Captions(t.Context(), rows, o)
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.Decoder.NewBatcher(o, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := (&pipeline.Captioner{CLIP: c.CLIP, Decoder: c.Decoder}).Textualise(rows); err == nil || !strings.Contains(err.Error(), "no generator") {
		t.Errorf("textualised without a generator: %v", err)
	}
	if _, err := b.Add(rows[1:], make([]clipcap.RowOptions, 3)); err == nil || !strings.Contains(err.Error(), "width") {
		t.Errorf("features of another size: %v", err)
	}
	if ids, err := b.Add(nil, nil); err != nil || ids != nil {
		t.Errorf("no captions: %v, %v", ids, err)
	}
	bad := slices.Clone(rows)
	bad[width] = float32(math.NaN())
	if _, err := b.Add(bad, make([]clipcap.RowOptions, 3)); err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Step(cancelled); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that is done: %v", err)
	}
	ends := 0
	for b.Len() > 0 {
		ended, err := b.Step(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range ended {
			ends++
			var e *pipeline.NotFiniteError
			switch {
			case f.ID == 1 && (!errors.As(f.Err, &e) || e.Index != 1):
				t.Errorf("a feature of NaN: %v", f.Err)
			case f.ID != 1 && (f.Err != nil || f.Text != want[f.ID].Direct[0].Text):
				t.Errorf("caption %d: %q (%v), want %q", f.ID, f.Text, f.Err, want[f.ID].Direct[0].Text)
			}
		}
	}
	if ends != 3 {
		t.Errorf("%d captions have ended, want 3", ends)
	}
}

// TestText returns the text of the first tokens of a caption.
func TestText(t *testing.T) {
	d := loadWorld(t).Decoder
	var tokens []int64
	for _, id := range d.GPT2.Tokenizer.Encode(" a red ball.") {
		tokens = append(tokens, int64(id))
	}
	text, err := d.Text(tokens)
	if err != nil || text != "a red ball." {
		t.Errorf("%q, %v", text, err)
	}
	if text, err := d.Text(tokens[:2]); err != nil || !strings.HasPrefix("a red ball.", text) || text == "" {
		t.Errorf("the first tokens: %q, %v", text, err)
	}
	if _, err := d.Text([]int64{1 << 40}); err == nil {
		t.Error("no error for a token that does not exist")
	}
}
