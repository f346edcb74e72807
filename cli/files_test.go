package cli_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cyclecap/pipeline"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/weights"

	"github.com/google/go-cmp/cmp"
)

// tensors returns all tensors of a file as f64, and their types, by name.
func tensors(t *testing.T, path string) (values map[string][]float64, types map[string]string) {
	t.Helper()
	values, types = map[string][]float64{}, map[string]string{}
	err := torch.Scope(func() error {
		f, err := weights.Open(path)
		if err != nil {
			return err
		}
		sd, err := f.Load()
		if err != nil {
			return err
		}
		defer sd.Close()
		for _, name := range sd.Names() {
			x, _ := sd.Get(name)
			values[name] = torch.ToSlice[float64](x)
			types[name] = fmt.Sprint(x.DType(), x.Shape())
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return values, types
}

// Conversion to another format and back keeps names, types and values.
func TestConvertRoundTrip(t *testing.T) {
	for _, in := range []string{"clip.pt", "clip-archive.pt", "gpt2-old.bin", "gpt2", "decoder-whole.pt", "generator.pt"} {
		t.Run(in, func(t *testing.T) {
			dir := t.TempDir()
			a, b, c := filepath.Join(dir, "a.safetensors"), filepath.Join(dir, "b.pt"), filepath.Join(dir, "c.bin")
			ok2(t, "a.safetensors", "convert", small+in, a)
			ok2(t, "b.pt", "convert", a, b)
			ok2(t, "c.bin", "convert", small+in, c)
			want, types := tensors(t, small+in)
			for _, p := range []string{a, b, c} {
				got, gotTypes := tensors(t, p)
				if diff := cmp.Diff(types, gotTypes); diff != "" {
					t.Errorf("%s (-want +got):\n%s", filepath.Base(p), diff)
				}
				if !cmp.Equal(want, got) {
					t.Errorf("%s: other numbers", filepath.Base(p))
				}
			}
			if diff := cmp.Diff([]string{"a.safetensors", "b.pt", "c.bin"}, listing(t, dir)); diff != "" {
				t.Errorf("files:\n%s", diff)
			}
		})
	}
}

// ok2 is ok for commands that print what they wrote to standard error.
func ok2(t *testing.T, says string, args ...string) {
	t.Helper()
	r := run("", args...)
	if r.code != 0 || r.out != "" || !strings.Contains(r.err, says) {
		t.Fatalf("cyclecap %s: exit code %d, output %q, standard error %q", strings.Join(args, " "), r.code, r.out, r.err)
	}
}

func TestConvertNames(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	// A transformers CLIP renamed to OpenAI's scheme has the same features.
	ok2(t, "clip.pt", "convert", "--names", "openai", small+"clip-transformers", at("clip.pt"))
	if s := inspect(t, at("clip.pt")).Scheme; s != "OpenAI CLIP" {
		t.Errorf("scheme %q", s)
	}
	for i, c := range []string{small + "clip-transformers", at("clip.pt")} {
		ok(t, "features", "--clip", c, "--images", photos[0], photos[1], "-o", at(fmt.Sprint(i, ".safetensors")))
	}
	// The projection is a transposed view in both: the same kernels, the same bits.
	a, b := readFeatures(t, at("0.safetensors")).values, readFeatures(t, at("1.safetensors")).values
	if diff := cmp.Diff(a, b); diff != "" {
		t.Errorf("features under other names differ:\n%s", diff)
	}
	// An old GPT-2 loses its buffers and its tied head.
	// What its new metadata say is assumed.
	ok2(t, "there is no config.json and no tokenizer beside", "convert", small+"gpt2-old.bin", at("gpt.safetensors"), "--names", "transformers")
	got, _ := tensors(t, at("gpt.safetensors"))
	for name := range got {
		if strings.HasPrefix(name, "transformer.") || strings.HasSuffix(name, ".attn.bias") || name == "lm_head.weight" {
			t.Errorf("%s is still there", name)
		}
	}
	// The mapper of a whole model, alone.
	ok2(t, "mapper.pt", "convert", "--names", "clipcap", small+"decoder-whole.pt", at("mapper.pt"))
	if s := inspect(t, at("mapper.pt")).Scheme; s != "ClipCap mapper" {
		t.Errorf("scheme %q", s)
	}
	r := run("", "convert", "--names", "openai", small+"decoder.pt", at("no.pt"))
	r.fails(t, 1, "decoder.pt", "expected a CLIP model", "ClipCap mapper")
	run("", "convert", "--names", "klingon", clipF, at("no.pt")).fails(t, 2, "--names klingon", "openai")
	for _, f := range listing(t, dir) {
		if strings.Contains(f, "no.pt") || strings.HasSuffix(f, ".tmp") {
			t.Errorf("%s was left", f)
		}
	}
}

func TestConvertPrecision(t *testing.T) {
	for _, dtype := range []string{"bf16", "f16", "f32"} {
		out := filepath.Join(t.TempDir(), "x.pt")
		ok2(t, "x.pt", "convert", "--dtype", dtype, small+"gpt2-old.bin", out)
		long := map[string]string{"bf16": "bfloat16", "f16": "float16", "f32": "float32"}[dtype]
		want, before := tensors(t, small+"gpt2-old.bin")
		got, types := tensors(t, out)
		bits := map[string]float64{"bf16": 1. / 256, "f16": 1. / 2048, "f32": 0}[dtype]
		for name, values := range want {
			if strings.HasPrefix(before[name], "float") != strings.HasPrefix(types[name], long) {
				t.Errorf("%s: %s became %s", name, before[name], types[name])
			}
			for i, v := range values {
				if d := got[name][i] - v; d*d > (bits*v)*(bits*v)+1e-12 {
					t.Fatalf("%s: %g became %g", name, v, got[name][i])
				}
			}
		}
		// The head is tied to the embeddings, and stays so.
		storages := map[string]int64{}
		for _, e := range must[*weights.File](t)(weights.Open(out)).Entries {
			if e.Name == "lm_head.weight" || strings.HasSuffix(e.Name, "wte.weight") {
				storages[e.Storage] = e.Offset
			}
		}
		if len(storages) != 1 {
			t.Errorf("%s: the tied head became a tensor of its own", dtype)
		}
	}
	dir := t.TempDir()
	run("", "convert", "--dtype", "f8", clipF, filepath.Join(dir, "x.pt")).fails(t, 2, "--dtype f8", "bf16")
	empty(t, dir)
}

// A file that convert has written with int8 gives what the original gives with int8. inspect lists
// its weights and their scales, and f32 takes it back.
func TestConvertInt8(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for in, n := range map[string]string{"clip.pt": "16", "decoder-whole.pt": "19", "generator.pt": "4"} {
		out := at(strings.TrimSuffix(in, ".pt") + ".safetensors")
		ok2(t, n+" weights of linear layers have 8 bits; the other tensors are unchanged", "convert", "--dtype", "int8", small+in, out)
		i := inspect(t, out)
		if i.Metadata["quantization"] != "int8" || !slices.ContainsFunc(i.Settings, func(s pipeline.Setting) bool {
			return s == pipeline.Setting{Name: "linear layers with weights of 8 bits", Value: n, From: "weights"}
		}) {
			t.Errorf("%s: %v, %v", in, i.Metadata, i.Settings)
		}
	}
	args := func(clip, decoder, generator string, more ...string) []string {
		return append([]string{"caption", "--json", "--clip", clip, "--decoder", decoder, "--generator", generator, photos[0], photos[1]}, more...)
	}
	original := args(clipF, small+"decoder-whole.pt", genF, "--dtype", "int8")
	converted := args(at("clip.safetensors"), at("decoder-whole.safetensors"), at("generator.safetensors"), "--dtype", "int8")
	want, got := run("", original...), run("", converted...)
	if want.code != 0 || got.code != 0 || want.out != got.out {
		t.Errorf("captions of the original:\n%s%s\nof the converted files:\n%s%s", want.out, want.err, got.out, got.err)
	}
	if torch.HasInt8() && strings.Contains(got.err, "8 bits") {
		t.Errorf("with int8, it says %s", got.err)
	}
	got = run("", args(at("clip.safetensors"), at("decoder-whole.safetensors"), at("generator.safetensors"))...)
	for _, name := range []string{"clip", "decoder-whole", "generator"} {
		if says := at(name+".safetensors") + " has weights of 8 bits, which were converted to float32"; got.code != 0 || strings.Count(got.err, says) != 1 {
			t.Errorf("exit code %d, standard error without %q:\n%s", got.code, says, got.err)
		}
	}

	// Names change with the scales, and the integers stay.
	ok2(t, "t.safetensors", "convert", "--dtype", "int8", small+"clip-transformers", at("t.safetensors"))
	ok2(t, "o.safetensors", "convert", "--names", "openai", at("t.safetensors"), at("o.safetensors"))
	ok2(t, "p.safetensors", "convert", "--names", "openai", "--dtype", "int8", small+"clip-transformers", at("p.safetensors"))
	a, b := must[[]byte](t)(os.ReadFile(at("o.safetensors"))), must[[]byte](t)(os.ReadFile(at("p.safetensors")))
	if inspect(t, at("o.safetensors")).Metadata["quantization"] != "int8" || len(a) == 0 {
		t.Error("the metadata do not say int8")
	}
	_, types := tensors(t, at("o.safetensors"))
	_, same := tensors(t, at("p.safetensors"))
	if diff := cmp.Diff(same, types); diff != "" || len(a) > len(b)+1000 {
		t.Errorf("files of %d and %d bytes (-want +got):\n%s", len(b), len(a), diff)
	}

	// Back in f32, all is there, nearly.
	ok2(t, "back.pt", "convert", "--dtype", "f32", at("clip.safetensors"), at("back.pt"))
	values, before := tensors(t, clipF)
	back, after := tensors(t, at("back.pt"))
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for name, list := range values {
		most := 0.0
		for _, v := range list {
			most = max(most, math.Abs(v))
		}
		for i, v := range list {
			if math.Abs(back[name][i]-v) > most/253 {
				t.Fatalf("%s: %g became %g", name, v, back[name][i])
			}
		}
	}

	// What cannot be is an error, and leaves no file.
	for _, c := range []struct {
		code  int
		args  []string
		words []string
	}{
		{2, []string{"--dtype", "int8", clipF, at("no.pt")}, []string{"--dtype int8 writes .safetensors files only", "no.pt"}},
		{2, []string{at("clip.safetensors"), at("no.bin")}, []string{"clip.safetensors has weights of 8 bits", "no.bin", "--dtype f32"}},
		{1, []string{"--dtype", "int8", "../weights/testdata/zip.pt", at("no.safetensors")}, []string{"zip.pt", "none of them", "inspect"}},
	} {
		run("", append([]string{"convert"}, c.args...)...).fails(t, c.code, c.words...)
	}
	for _, f := range listing(t, dir) {
		if strings.HasPrefix(f, "no.") {
			t.Errorf("%s was left", f)
		}
	}
}

// inspection is the contract of inspect --json.
type inspection struct {
	File, Format, Scheme, Description, Root string
	Ignored                                 []string
	Metadata                                map[string]string
	Bytes                                   int64
	Tensors                                 []struct {
		Name, DType string
		Shape       []int64
		Bytes       int64
	}
	Settings []pipeline.Setting
}

func inspect(t *testing.T, path string) (i inspection) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(ok(t, "inspect", "--json", path)))
	if err := d.Decode(&i); err != nil {
		t.Fatal(err)
	}
	if d.More() {
		t.Errorf("more than one JSON value")
	}
	return i
}

func TestInspect(t *testing.T) {
	for _, c := range []struct {
		file, format, scheme, about string
		count                       int
	}{
		{"clip.pt", "PyTorch (zip)", "OpenAI CLIP", "patches of 8", 62},
		{"clip-archive.pt", "TorchScript", "OpenAI CLIP", "patches of 8", 65},
		{"gpt2", "safetensors", "transformers GPT-2", "300 tokens", 28},
		{"gpt2-old.bin", "PyTorch (before 1.6)", "transformers GPT-2", "2 layers", 33},
		{"decoder.pt", "PyTorch (zip)", "ClipCap mapper", "prefix of 4", 27},
		{"decoder-mlp.pt", "PyTorch (zip)", "ClipCap mapper", "MLP", 4},
		{"decoder-whole.pt", "PyTorch (zip)", "ClipCap model", "width 64", 60},
		{"generator.pt", "PyTorch (zip)", "CycleGAN generator", "width 64", 8},
	} {
		t.Run(c.file, func(t *testing.T) {
			i := inspect(t, small+c.file)
			if i.Format != c.format || i.Scheme != c.scheme || !strings.Contains(i.Description, c.about) || len(i.Tensors) != c.count {
				t.Errorf("format %q, scheme %q, description %q, %d tensors; want %q, %q, …%s…, %d", i.Format, i.Scheme, i.Description, len(i.Tensors), c.format, c.scheme, c.about, c.count)
			}
			table := ok(t, "inspect", small+c.file)
			for _, e := range i.Tensors {
				n := int64(1)
				for _, d := range e.Shape {
					n *= d
				}
				size := map[string]int64{"float32": 4, "float16": 2, "int64": 8, "int32": 4, "uint8": 1, "bool": 1}[e.DType]
				if size == 0 || e.Bytes != n*size {
					t.Errorf("%s: %d bytes for %s %v", e.Name, e.Bytes, e.DType, e.Shape)
				}
				row := ""
				for line := range strings.Lines(table) {
					if f := strings.Fields(line); len(f) > 2 && f[0] == e.Name {
						row = line
					}
				}
				if !strings.Contains(row, e.DType) || !strings.Contains(row, strings.ReplaceAll(fmt.Sprint(e.Shape), " ", ", ")) {
					t.Errorf("the table's row of %s is %q", e.Name, row)
				}
			}
			if !strings.Contains(table, fmt.Sprintf("%d tensors", c.count)) || !strings.Contains(table, c.format) {
				t.Errorf("the table's end:\n%s", table[max(0, len(table)-300):])
			}
		})
	}
}

// A name of 1 MB does not make every row of the table as wide.
func TestInspectLongName(t *testing.T) {
	var h strings.Builder
	for i := range 500 {
		fmt.Fprintf(&h, `"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},`, i)
	}
	long := strings.Repeat("n", 1<<20)
	path := put(t, filepath.Join(t.TempDir(), "x.safetensors"), safetensors(`{`+h.String()+`"`+long+`":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}`, 0, 0))
	if table := ok(t, "inspect", path); len(table) > 200<<10 || !strings.Contains(table, "nnn…nnn") {
		t.Errorf("a table of %d bytes", len(table))
	}
	if got := inspect(t, path); got.Tensors[500].Name != long {
		t.Errorf("--json has a name of %d bytes", len(got.Tensors[500].Name))
	}
}

// Weights that a training program saved in a wrapper, as DataParallel and Lightning
// do, caption as the plain ones; a line for each file says what was removed.
func TestWrappers(t *testing.T) {
	dir := t.TempDir()
	wrap := func(in, prefix string) string {
		f := must[*weights.File](t)(weights.Open(in))
		sd := must[*nn.StateDict](t)(f.Load())
		defer sd.Close()
		wrapped := nn.NewStateDict()
		for _, name := range sd.Names() {
			x, _ := sd.Get(name)
			wrapped.Add(prefix+name, x)
		}
		out := filepath.Join(dir, prefix+"pt")
		if err := weights.Save(context.Background(), out, wrapped, f.Meta); err != nil {
			t.Fatal(err)
		}
		return out
	}
	clip, decoder, gpt, gen := wrap(clipF, "model."), wrap(mapperF, "module."), wrap(gptF, "model._orig_mod."), wrap(genF, "net.")
	want := ok(t, "caption", "--clip", clipF, "--decoder", mapperF, "--gpt2", gptF, "--generator", genF, "--max-tokens", "8", photos[0])
	r := run("", "caption", "--clip", clip, "--decoder", decoder, "--gpt2", gpt, "--generator", gen, "--max-tokens", "8", photos[0])
	if r.code != 0 || r.out != want {
		t.Errorf("exit code %d, captions %q, want %q", r.code, r.out, want)
	}
	for path, prefix := range map[string]string{clip: "model.", decoder: "module.", gpt: "model._orig_mod.", gen: "net."} {
		if line := fmt.Sprintf("cyclecap: note: %s: the prefix %q of all tensor names was removed\n", path, prefix); !strings.Contains(r.err, line) {
			t.Errorf("standard error lacks %q:\n%s", line, r.err)
		}
	}
	out := filepath.Join(dir, "plain.safetensors")
	ok2(t, `the prefix "module." of all tensor names was removed`, "convert", decoder, out)
	a, _ := tensors(t, mapperF)
	b, _ := tensors(t, out)
	if diff := cmp.Diff(a, b); diff != "" {
		t.Errorf("the converted file (-want +got):\n%s", diff)
	}
}

// inspect shows a model's settings with their sources, and the files beside it.
func TestInspectSettings(t *testing.T) {
	for file, want := range map[string][]string{
		"clip-transformers": {"image encoder heads: 1 (config.json)", "text encoder activation: quick_gelu (config.json)", "patch size: 8 (weights)", "beside it: config.json"},
		"clip-archive.pt":   {"image encoder activation: quick_gelu (weights)"},
		"gpt2":              {"n_head: 1 (config.json)", "n_layer: 2 (weights)"},
		"decoder.pt":        {"mapper: transformer (weights)", "feature width: 64 (weights)"},
		"generator.pt":      {"feature width: 64 (weights)"},
	} {
		out := ok(t, "inspect", small+file)
		for _, w := range want {
			if !strings.Contains(out, w+"\n") && !strings.Contains(out, w+",") {
				t.Errorf("%s lacks %q:\n%s", file, w, out)
			}
		}
	}
	out := ok(t, "inspect", "--json", small+"clip-transformers")
	var got struct {
		Prefix   string
		Beside   []string
		Notes    []string
		Settings []struct{ Name, Value, From string }
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Settings) < 10 || got.Settings[0].Name != "feature width" || got.Settings[0].From != "weights" || got.Beside[0] != "config.json" || got.Notes == nil {
		t.Errorf("%+v", got)
	}
}
