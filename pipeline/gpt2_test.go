package pipeline_test

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cyclecap/nets/clipcap"
	"cyclecap/nets/gpt2"
	"cyclecap/pipeline"
	"cyclecap/torch"
	"cyclecap/torch/compare"
	"cyclecap/torch/nn"
	"cyclecap/torch/torchtest"
	"cyclecap/weights"
)

// gpt2Cases are the fixtures of testdata/reference/gpt2.py.
type gpt2Cases struct {
	CPU   string `json:"cpu"`
	Cases map[string]struct {
		Weights string          `json:"weights"`
		Config  json.RawMessage `json:"config"`
	} `json:"cases"`
}

const gpt2Data = "testdata/gpt2"

// write writes files into a folder.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// gpt2Folder returns a folder with weights of the fixtures as model.safetensors, and
// with other files.
func gpt2Folder(t *testing.T, file string, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	data, err := os.ReadFile(filepath.Join(gpt2Data, file))
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string]string{"model.safetensors": string(data)})
	write(t, dir, files)
	return dir
}

func readCases(t *testing.T) (f gpt2Cases, expected *nn.StateDict, sameCPU bool) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(gpt2Data, "cases.json"))
	if err == nil {
		err = json.Unmarshal(data, &f)
	}
	if err != nil {
		t.Fatal(err)
	}
	e, err := weights.Open(filepath.Join(gpt2Data, "expected.safetensors"))
	if err == nil {
		expected, err = e.Load()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(expected.Close)
	info, _ := os.ReadFile("/proc/cpuinfo")
	return f, expected, strings.Contains(string(info), f.CPU)
}

// TestGPT2Settings compares every setting of GPT2Config that changes numbers with
// transformers: logits of ids and of embeddings, and step by step with a cache. The
// path of GPUs is compared within rounding, and so are packed weights.
func TestGPT2Settings(t *testing.T) {
	torch.SetNumThreads(1)
	f, expected, sameCPU := readCases(t)
	get := func(name string) torch.Tensor {
		x, ok := expected.Get(name)
		if !ok {
			t.Fatalf("%s is missing", name)
		}
		return x
	}
	for _, name := range slices.Sorted(maps.Keys(f.Cases)) {
		c := f.Cases[name]
		t.Run(name, func(t *testing.T) {
			g, err := pipeline.LoadGPT2(gpt2Folder(t, c.Weights, map[string]string{"config.json": string(c.Config)}))
			if err != nil {
				t.Fatal(err)
			}
			m := g.Model
			defer nn.Close(m)
			err = torch.Scope(func() error {
				torch.InferenceMode(func() {
					same := func(what string, got, want torch.Tensor) {
						t.Helper()
						tolerance := compare.Tolerance{Relative: 1e-5}
						if bits := what == "ids" || what == "embeds" || what == "steps"; bits && sameCPU {
							tolerance = compare.Bits
						}
						torchtest.Close(t, got, want, tolerance, what)
					}
					var none torch.Tensor
					ids, embeds := get("ids"), get("embeds")
					same("ids", m.Logits(m.Forward(m.Embed(ids), nil, none)), get(name+"/ids"))
					same("embeds", m.Logits(m.Forward(embeds, nil, none)), get(name+"/embeds"))
					cache := m.NewCache(1, 16)
					static := m.NewStaticCache(1, 16)
					defer static.Close()
					long := torch.WithDType(torch.Int64)
					first := torch.Arange(0, 5, long)
					steps := []torch.Tensor{m.Logits(m.Forward(embeds, cache, none)).Select(1, -1)}
					other := []torch.Tensor{m.Logits(m.ForwardStatic(embeds, static, first, first, none).Select(1, -1))}
					for i := range int64(3) {
						x, at := m.Embed(ids.Narrow(1, i, 1)), torch.Arange(5+i, 6+i, long)
						steps = append(steps, m.Logits(m.Forward(x, cache, none)).Select(1, -1))
						other = append(other, m.Logits(m.ForwardStatic(x, static, at, at, torch.Zeros([]int64{1, 1, 1, 6 + i})).Select(1, -1)))
					}
					same("steps", torch.Stack(steps), get(name+"/steps"))
					same("steps on a device", torch.Stack(other), get(name+"/steps"))
					nn.Pack(m)
					same("packed", m.Logits(m.Forward(embeds, nil, none)), get(name+"/embeds"))
				})
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			// What is written reads back as the same settings.
			again, err := gpt2.ParseConfig(m.Config.JSON())
			if err != nil || again != m.Config {
				t.Errorf("settings %+v are written and read as %+v, %v", m.Config, again, err)
			}
		})
	}
}

// A GPT-2 in shards, with buffers, and with the tied pair saved under its other name.
func TestGPT2Files(t *testing.T) {
	f, expected, _ := readCases(t)
	plain := f.Cases["n_head 8"]
	renamed := func(t *testing.T, change func(*nn.StateDict) *nn.StateDict) string {
		dir := gpt2Folder(t, plain.Weights, map[string]string{"config.json": string(plain.Config)})
		w, err := weights.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		sd, err := w.Load()
		if err != nil {
			t.Fatal(err)
		}
		defer sd.Close()
		out := filepath.Join(dir, "pytorch_model.bin")
		err = torch.Scope(func() error { return weights.Save(t.Context(), out, change(sd), nil) })
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	headOnly := func(sd *nn.StateDict) *nn.StateDict {
		out := nn.NewStateDict()
		for _, name := range sd.Names() {
			x, _ := sd.Get(name)
			out.Add(strings.Replace(name, "transformer.wte.weight", "lm_head.weight", 1), x)
		}
		return out
	}
	for name, path := range map[string]string{
		"shards":              filepath.Join(gpt2Data, "shards"),
		"only lm_head.weight": renamed(t, headOnly),
		"a head that is equal": renamed(t, func(sd *nn.StateDict) *nn.StateDict {
			x, _ := sd.Get("transformer.wte.weight")
			sd.Add("lm_head.weight", x.Clone())
			return sd
		}),
	} {
		t.Run(name, func(t *testing.T) {
			g, err := pipeline.LoadGPT2(path)
			if err != nil {
				t.Fatal(err)
			}
			defer nn.Close(g.Model)
			want, _ := expected.Get("n_head 8/ids")
			ids, _ := expected.Get("ids")
			err = torch.Scope(func() error {
				torch.InferenceMode(func() {
					if got := g.Model.Logits(g.Model.Forward(g.Model.Embed(ids), nil, torch.Tensor{})); !got.Allclose(want, torch.WithRtol(1e-5)) {
						t.Error("other logits")
					}
				})
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if g.Model.LmHead != nil || g.Model.Config.Untied {
				t.Error("the head is not tied")
			}
		})
	}
	// A head of its own that config.json denies is used, as in transformers, with a note.
	g, err := pipeline.LoadGPT2(gpt2Folder(t, "untied.safetensors", map[string]string{"config.json": string(plain.Config)}))
	if err != nil {
		t.Fatal(err)
	}
	defer nn.Close(g.Model)
	if g.Model.LmHead == nil || !slices.ContainsFunc(g.Notes, func(n string) bool { return strings.Contains(n, "lm_head.weight") }) {
		t.Errorf("head %v, notes %q", g.Model.LmHead, g.Notes)
	}
}

// Settings that contradict the weights, or that are not supported, are named.
func TestGPT2Refused(t *testing.T) {
	for name, c := range map[string]struct {
		weights, config string
		want            []string
	}{
		"vocabulary":       {"plain", `{"vocab_size": 300, "n_head": 8}`, []string{"model.safetensors", "config.json", "vocab_size is 300", "[260 24]"}},
		"layers":           {"plain", `{"n_layer": 3, "n_head": 8}`, []string{"n_layer is 3", "2 layers"}},
		"positions":        {"plain", `{"n_positions": 1024, "n_head": 8}`, []string{"n_positions is 1024", "wpe.weight"}},
		"n_inner":          {"plain", `{"n_inner": 40, "n_head": 8}`, []string{"n_inner is 40", "c_fc"}},
		"heads":            {"plain", `{"n_head": 7}`, []string{"n_embd = 24", "n_head = 7"}},
		"heads, other key": {"plain", `{"n_head": 8, "num_attention_heads": 4}`, []string{"num_attention_heads = 4", "n_head = 8"}},
		"no heads":         {"plain", `{"n_head": 0}`, []string{"n_head", "at least 1"}},
		"a text":           {"plain", `{"n_head": "8"}`, []string{"n_head", "whole number"}},
		"null":             {"plain", `{"n_head": null}`, []string{"n_head", "null"}},
		"no JSON":          {"plain", `{`, []string{"config.json", "JSON"}},
		"activation":       {"plain", `{"n_head": 8, "activation_function": "mish"}`, []string{"activation_function", "mish", "gelu_new"}},
		"cross attention":  {"plain", `{"n_head": 8, "add_cross_attention": true}`, []string{"add_cross_attention"}},
		"quantised":        {"plain", `{"n_head": 8, "quantization_config": {"bits": 4}}`, []string{"quantization_config"}},
		"own code":         {"plain", `{"n_head": 8, "auto_map": {"AutoModelForCausalLM": "x.Y"}}`, []string{"auto_map"}},
		"no head":          {"plain", `{"n_head": 8, "tie_word_embeddings": false}`, []string{"tie_word_embeddings", "lm_head.weight"}},
		"another model":    {"plain", `{"model_type": "imagegpt"}`, []string{"model_type", "imagegpt"}},
		"epsilon":          {"plain", `{"n_head": 8, "layer_norm_epsilon": -1}`, []string{"layer_norm_epsilon"}},
		"no config.json":   {"plain", ``, []string{"24", "64", "config.json"}},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{}
			if c.config != "" {
				files["config.json"] = c.config
			}
			_, err := pipeline.LoadGPT2(gpt2Folder(t, c.weights+".safetensors", files))
			if err == nil {
				t.Fatal("no error")
			}
			for _, s := range c.want {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("error does not say %q: %v", s, err)
				}
			}
		})
	}
}

// saveGPT2 writes a random GPT-2 with a vocabulary of its own, and files beside it.
func saveGPT2(t *testing.T, vocab int64, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	err := torch.Scope(func() error {
		torch.ManualSeed(4)
		m := gpt2.New(gpt2.Config{VocabSize: vocab, NPositions: 32, NEmbd: 64, NLayer: 1, NHead: 1, LayerNormEpsilon: 1e-5})
		defer nn.Close(m)
		if _, ok := files["config.json"]; !ok {
			write(t, dir, map[string]string{"config.json": string(m.Config.JSON())})
		}
		return weights.Save(t.Context(), filepath.Join(dir, "model.safetensors"), nn.StateDictOf(m), nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, files)
	return dir
}

func TestGPT2Tokenizer(t *testing.T) {
	const tokenizers = "../data/tokenizer/testdata/gpt2/files/"
	own := map[string]string{}
	for _, name := range []string{"vocab.json", "merges.txt", "added_tokens.json", "tokenizer_config.json"} {
		data, err := os.ReadFile(tokenizers + name)
		if err != nil {
			t.Fatal(err)
		}
		own[name] = string(data)
	}
	with := func(m map[string]string, name, text string) map[string]string {
		m = maps.Clone(m)
		m[name] = text
		return m
	}
	for name, c := range map[string]struct {
		vocab   int64
		files   map[string]string
		text    string
		ids     []int
		stop    int64
		unnamed int
		eos     []int64
		notes   []string
	}{
		"none":                   {50257, nil, "a dog.", []int{64, 3290, 13}, 13, 0, []int64{50256}, []string{"no tokenizer beside"}},
		"the first tokens":       {300, nil, "a.", []int{64, 13}, 13, 0, []int64{50256}, []string{"no tokenizer beside"}},
		"padded":                 {50304, nil, "a dog.", []int{64, 3290, 13}, 13, 47, []int64{50256}, []string{"no tokenizer beside", "47 of the 50304 tokens"}},
		"an added token":         {50258, map[string]string{"added_tokens.json": `{"[PAD]": 50257}`}, "a[PAD]", []int{64, 50257}, 13, 0, []int64{50256}, []string{"no tokenizer beside"}},
		"an added token, padded": {50304, map[string]string{"added_tokens.json": `{"[PAD]": 50257}`}, "a[PAD]", []int{64, 50257}, 13, 46, []int64{50256}, []string{"no tokenizer beside", "46 of the 50304 tokens"}},
		"an added token that the model lacks": {50257, map[string]string{"added_tokens.json": `{"[PAD]": 50257}`}, "[PAD]", []int{58, 47, 2885, 60}, 13, 0, []int64{50256},
			[]string{"1 added tokens", "no tokenizer beside"}},
		"a vocabulary of its own":             {422, own, "La palla.<mask>", []int{45, 66, 384, 264, 15, 421}, 15, 0, []int64{50256}, nil},
		"generation_config.json":              {50257, map[string]string{"generation_config.json": `{"eos_token_id": [7, 8]}`}, "a", []int{64}, 13, 0, []int64{7, 8}, []string{"no tokenizer beside"}},
		"no config.json, but another model's": {300, map[string]string{"config.json": `{"model_type": "clip"}`}, "", nil, 0, 0, nil, []string{"error: model_type is \"clip\""}},
		"a vocabulary that is too large":      {300, own, "", nil, 0, 0, nil, []string{"error: vocab.json: the vocabulary has ids up to 419"}},
		"another kind":                        {300, map[string]string{"vocab.txt": "[PAD]"}, "", nil, 0, 0, nil, []string{"error: vocab.txt is a WordPiece vocabulary"}},
		"another kind, by its class":          {422, with(own, "tokenizer_config.json", `{"tokenizer_class": "BertTokenizer"}`), "", nil, 0, 0, nil, []string{"error: BertTokenizer"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := saveGPT2(t, c.vocab, c.files)
			g, err := pipeline.LoadGPT2(path)
			if err != nil {
				for _, n := range c.notes {
					if want, ok := strings.CutPrefix(n, "error: "); !ok || !strings.Contains(err.Error(), want) {
						t.Errorf("%v", err)
					}
				}
				return
			}
			defer nn.Close(g.Model)
			if got := g.Tokenizer.Encode(c.text); !slices.Equal(got, c.ids) {
				t.Errorf("%q: ids %v, want %v", c.text, got, c.ids)
			}
			if g.Stop != c.stop || len(g.Unnamed) != c.unnamed || !slices.Equal(g.EOS, c.eos) {
				t.Errorf("stop %d, want %d; %d unnamed, want %d; eos %v, want %v", g.Stop, c.stop, len(g.Unnamed), c.unnamed, g.EOS, c.eos)
			}
			if len(g.Notes) != len(c.notes) {
				t.Errorf("notes %q, want %q", g.Notes, c.notes)
			}
			for i := range min(len(g.Notes), len(c.notes)) {
				if !strings.Contains(g.Notes[i], c.notes[i]) {
					t.Errorf("note %q, want %q", g.Notes[i], c.notes[i])
				}
			}
		})
	}
}

// A decoder that contains its GPT-2 keeps the settings and knows its tokenizer; ids
// that the tokenizer lacks are not chosen, by no method.
func TestDecoderKeepsGPT2(t *testing.T) {
	ctx := context.Background()
	f, _, _ := readCases(t)
	c := f.Cases["everything"]
	g, err := pipeline.LoadGPT2(gpt2Folder(t, c.Weights, map[string]string{"config.json": string(c.Config)}))
	if err != nil {
		t.Fatal(err)
	}
	defer nn.Close(g.Model)
	path := filepath.Join(t.TempDir(), "decoder.pt")
	err = torch.Scope(func() error {
		mapper := clipcap.NewMLPMapper(8, 24, 2)
		defer nn.Close(mapper)
		return pipeline.SaveDecoder(ctx, path, mapper, g, pipeline.Scaling{})
	})
	if err != nil {
		t.Fatal(err)
	}
	d, err := pipeline.LoadDecoder(path, "", pipeline.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.Model.GPT2.Config != g.Model.Config || d.Model.GPT2.LmHead == nil || len(d.Notes) != 0 {
		t.Errorf("settings %+v, want %+v; notes %q", d.Model.GPT2.Config, g.Model.Config, d.Notes)
	}
	// Another tokenizer than the one that it was saved with.
	write(t, filepath.Dir(path), map[string]string{"config.json": string(c.Config), "added_tokens.json": `{"[PAD]": 259}`})
	if _, err := pipeline.LoadDecoder(path, "", pipeline.Options{}); err == nil {
		t.Error("another tokenizer: no error")
	}
	err = torch.Scope(func() error {
		features := torch.Randn([]int64{3, 8})
		free, err := d.Generate(ctx, features, clipcap.Options{Method: clipcap.Greedy, MaxTokens: 8, Stop: -1})
		if err != nil {
			return err
		}
		for _, caption := range free {
			d.Model.Never = append(d.Model.Never, caption[0].Tokens...)
		}
		for _, o := range []clipcap.Options{{Method: clipcap.Greedy}, {Method: clipcap.TopP}, {Method: clipcap.Sample}, {Method: clipcap.Beam, Beam: 3}} {
			o.MaxTokens, o.Stop = 8, -1
			all, err := d.Generate(ctx, features, o)
			if err != nil {
				return err
			}
			for _, beams := range all {
				for _, caption := range beams {
					for _, id := range caption.Tokens {
						if slices.Contains(d.Model.Never, id) {
							t.Errorf("%s chose token %d of %v", o.Method, id, d.Model.Never)
						}
					}
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
