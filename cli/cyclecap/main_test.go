package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"cyclecap/data/tokenizer"
	"cyclecap/nets/clip"
	"cyclecap/nets/clipcap"
	"cyclecap/nets/cyclegan"
	"cyclecap/nets/gpt2"
	"cyclecap/pipeline"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/weights"

	"github.com/google/go-cmp/cmp"
)

// These tests run the binary that users run, and check its exit code, its two
// outputs and the files that it leaves. The networks are small, with random
// weights; internal/parity checks their numbers.

// Files that TestMain makes.
var program, dir string

func TestMain(m *testing.M) {
	code, err := withFiles(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func withFiles(run func() int) (code int, err error) {
	if dir, err = os.MkdirTemp("", "cyclecap"); err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "cyclecap")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		return 0, fmt.Errorf("go build: %w\n%s", err, out)
	}
	const width = 64 // one head, in every part
	for _, f := range []struct {
		file, prefix string
		make         func() any
	}{
		{"clip.pt", "", func() any {
			return clip.New(clip.Config{EmbedDim: 16, ImageSize: 32, PatchSize: 16, VisionWidth: width, VisionDepth: 1,
				Context: 20, Vocab: 49408, TextWidth: width, TextHeads: 1, TextDepth: 1})
		}},
		{"gpt2.pt", "", func() any { return gpt2.New(smallGPT2(width)) }},
		{"gpt2-wide.pt", "", func() any { return gpt2.New(smallGPT2(2 * width)) }},
		{"decoder.pt", "clip_project.", func() any {
			return clipcap.NewTransformerMapper(clipcap.TransformerConfig{FeatureWidth: 16, Width: width, ClipLength: 4, PrefixLength: 4, Layers: 1, Heads: 8})
		}},
		{"decoder-other.pt", "clip_project.", func() any { return clipcap.NewMLPMapper(24, width, 4) }},
		{"generator.pt", "", func() any { return cyclegan.NewGenerator(16) }},
		{"generator-other.pt", "", func() any { return cyclegan.NewGenerator(24) }},
	} {
		err := torch.Scope(func() error {
			torch.ManualSeed(uint64(len(f.file)))
			m := f.make()
			defer nn.Close(m)
			sd := nn.NewStateDict()
			for _, p := range nn.NamedParameters(m) {
				sd.Add(f.prefix+p.Name, *p.Tensor)
			}
			var meta map[string]string
			switch m := m.(type) { // files that say all that their tensors do not
			case *gpt2.Model:
				meta = (&pipeline.GPT2{Model: m, Tokenizer: tokenizer.GPT2()}).Meta()
			case *clip.Model:
				meta = map[string]string{weights.CLIPConfig: m.Config.Metadata()}
			case clipcap.Mapper:
				meta = map[string]string{weights.NormalizePrefix: "false"}
			}
			return weights.Save(context.Background(), filepath.Join(dir, f.file), sd, meta)
		})
		if err != nil {
			return 0, fmt.Errorf("%s: %w", f.file, err)
		}
	}
	return run(), nil
}

func smallGPT2(width int64) gpt2.Config {
	return gpt2.Config{VocabSize: 50257, NPositions: 40, NEmbd: width, NLayer: 1, NHead: width / 64, LayerNormEpsilon: 1e-5}
}

func in(file string) string { return filepath.Join(dir, file) }

// photos returns n sample photos.
func photos(t *testing.T, n int) []string {
	t.Helper()
	list, err := filepath.Glob("../../testdata/photos/*.jpg")
	if err != nil || len(list) < n {
		t.Fatalf("testdata/photos has %d photos, want at least %d (%v)", len(list), n, err)
	}
	for i, p := range list {
		if list[i], err = filepath.Abs(p); err != nil {
			t.Fatal(err)
		}
	}
	return list[:n]
}

type result struct {
	code           int
	stdout, stderr string
}

// limit is far longer than any command here takes.
const limit = 3 * time.Minute

// cyclecap runs the binary in an empty folder of its own, with stdin.
func cyclecap(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	return cyclecapIn(t, t.TempDir(), stdin, args...)
}

func cyclecapIn(t *testing.T, folder, stdin string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	c := exec.CommandContext(ctx, program, args...)
	c.Dir, c.Stdin = folder, strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		t.Fatalf("cyclecap %q did not end within %v; standard error:\n%s", args, limit, stderr.String())
	}
	return result{c.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// want checks the exit code, and that standard error contains the texts and never
// shows a panic.
func (r result) want(t *testing.T, code int, texts ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d; standard error:\n%s", r.code, code, r.stderr)
	}
	for _, s := range texts {
		if !strings.Contains(r.stderr, s) {
			t.Errorf("standard error lacks %q:\n%s", s, r.stderr)
		}
	}
	for _, s := range []string{"goroutine ", "internal error", "panic:"} {
		if strings.Contains(r.stderr, s) {
			t.Errorf("standard error shows a panic:\n%s", r.stderr)
		}
	}
}

// pipelineFlags returns the arguments of caption with a complete pipeline.
func pipelineFlags(more ...string) []string {
	return append([]string{"caption", "--clip", in("clip.pt"), "--decoder", in("decoder.pt"), "--gpt2", in("gpt2.pt"), "--max-tokens", "5"}, more...)
}

type captionLine struct {
	File     string   `json:"file"`
	ImageID  int64    `json:"image_id"`
	Pipeline string   `json:"pipeline"`
	Caption  *string  `json:"caption"`
	Tokens   []int64  `json:"tokens"`
	LogProb  *float64 `json:"logprob"`
}

// captionLines parses the output of --json, which has these fields and no others.
func captionLines(t *testing.T, stdout string) []captionLine {
	t.Helper()
	var lines []captionLine
	d := json.NewDecoder(strings.NewReader(stdout))
	d.DisallowUnknownFields()
	for d.More() {
		var l captionLine
		if err := d.Decode(&l); err != nil {
			t.Fatalf("%v in\n%s", err, stdout)
		}
		if l.Caption == nil || l.LogProb == nil || l.Tokens == nil || *l.LogProb >= 0 {
			t.Errorf("this line is incomplete, or its log-probability is not below 0: %+v", l)
		}
		lines = append(lines, l)
	}
	if n := strings.Count(stdout, "\n"); n != len(lines) {
		t.Errorf("%d objects on %d lines", len(lines), n)
	}
	return lines
}

// where returns the file and the pipeline of each line.
func where(lines []captionLine) (out []string) {
	for _, l := range lines {
		out = append(out, filepath.Base(l.File)+" "+l.Pipeline)
	}
	return out
}

func TestCaption(t *testing.T) {
	files := photos(t, 3)
	names := func(pipelines ...string) (out []string) {
		for _, f := range files {
			for _, p := range pipelines {
				out = append(out, filepath.Base(f)+" "+p)
			}
		}
		return out
	}
	cases := []struct {
		name  string
		flags []string
		want  []string
	}{
		{"greedy", nil, names("direct")},
		{"top-p", []string{"--decode", "top-p"}, names("direct")},
		{"beam", []string{"--decode", "beam", "--beam", "3"}, names("direct")},
		{"sample", []string{"--decode", "sample", "--temperature", "0.9", "--top-k", "50", "--top-p", "0.9", "--seed", "7"}, names("direct")},
		{"small batches", []string{"--batch", "2"}, names("direct")},
		{"bf16", []string{"--dtype", "bf16"}, names("direct")},
		{"one thread", []string{"--threads", "1", "--device", "cpu"}, names("direct")},
		{"both pipelines", []string{"--generator", in("generator.pt")}, names("direct", "textualised")},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			args := append(pipelineFlags("--json"), append(c.flags, files...)...)
			r := cyclecap(t, "", args...)
			r.want(t, 0)
			if r.stderr != "" {
				t.Errorf("want nothing on standard error, got:\n%s", r.stderr)
			}
			lines := captionLines(t, r.stdout)
			if diff := cmp.Diff(c.want, where(lines)); diff != "" {
				t.Errorf("lines (-want +got):\n%s", diff)
			}
			for _, l := range lines {
				if n := len(l.Tokens); n < 1 || n > 5 || (n < 5 && l.Tokens[n-1] != 13) {
					t.Errorf("tokens %v: want 5, or fewer if a full stop (13) ends them", l.Tokens)
				}
			}
			// The same command prints the same again.
			if again := cyclecap(t, "", args...); again.stdout != r.stdout {
				t.Errorf("a second run differs (-first +second):\n%s", cmp.Diff(r.stdout, again.stdout))
			}
		})
	}
}

func TestCaptionPlain(t *testing.T) {
	files := photos(t, 2)
	r := cyclecap(t, "", append(pipelineFlags(), files...)...)
	r.want(t, 0)
	lines := strings.Split(strings.TrimSuffix(r.stdout, "\n"), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[0], files[0]+": ") || !strings.HasPrefix(lines[1], files[1]+": ") {
		t.Errorf("want one line per photo, with its path in front:\n%s", r.stdout)
	}
	r = cyclecap(t, "", append(pipelineFlags("--generator", in("generator.pt")), files[0])...)
	r.want(t, 0)
	lines = strings.Split(strings.TrimSuffix(r.stdout, "\n"), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[0], files[0]+" (direct): ") || !strings.HasPrefix(lines[1], files[0]+" (textualised): ") {
		t.Errorf("want one line per pipeline:\n%s", r.stdout)
	}
}

func TestSampleFollowsTheSeed(t *testing.T) {
	run := func(seed string) string {
		r := cyclecap(t, "", append(pipelineFlags("--json", "--decode", "sample", "--seed", seed), photos(t, 2)...)...)
		r.want(t, 0)
		return r.stdout
	}
	if run("1") == run("2") {
		t.Error("seeds 1 and 2 gave the same captions")
	}
}

// Options may follow the files.
func TestOptionsAnywhere(t *testing.T) {
	files := photos(t, 2)
	first := cyclecap(t, "", append(pipelineFlags("--json"), files...)...)
	first.want(t, 0)
	args := append([]string{"caption"}, files[0])
	args = append(args, pipelineFlags()[1:]...)
	args = append(args, "--", files[1])
	args = slices.Insert(args, 2, "--json")
	last := cyclecap(t, "", args...)
	last.want(t, 0)
	if diff := cmp.Diff(first.stdout, last.stdout); diff != "" {
		t.Errorf("options after the photos change the result (-before +after):\n%s", diff)
	}
}

// TestWithoutLibtorch uses a broken shim: commands that need no tensors work, and the
// others report what is wrong.
func TestWithoutLibtorch(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "shim.so")
	if err := os.WriteFile(broken, []byte("not a library"), 0o666); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CYCLECAP_SHIM", broken)
	folder := t.TempDir()
	for name, text := range map[string]string{
		"captions.json": `{"images":[{"id":1}],"annotations":[{"id":1,"image_id":1,"caption":"a dog on the grass"}]}`,
		"results.json":  `[{"image_id":1,"caption":"a dog on the grass"}]`,
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	scored := cyclecapIn(t, folder, "", "eval", "--annotations", "captions.json", "--results", "results.json", "--metrics", "CIDEr,ROUGE_L", "--json")
	scored.want(t, 0)
	if !strings.Contains(scored.stdout, `"ROUGE_L":1`) {
		t.Errorf("scores: %s", scored.stdout)
	}
	cyclecap(t, "\"a dog\"\n", "tokenize", "--tokenizer", "gpt2").want(t, 0)
	cyclecap(t, "", pipelineFlags(photos(t, 1)...)...).want(t, 1, "cannot load libtorch: "+broken+" is not a shared library", "to build the required shim")
	cyclecap(t, "", "doctor").want(t, 1, "cannot load libtorch")
}

// TestSelfTestFails runs the self-test where oneDNN computes f32 in bf16, as its own
// variable asks for.
func TestSelfTestFails(t *testing.T) {
	t.Setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
	if r := cyclecap(t, "", "doctor"); !regexp.MustCompile(`bf16 in hardware +yes`).MatchString(r.stdout) {
		t.Skip("this processor has no bf16 instructions")
	}
	r := cyclecap(t, "", "doctor", "--self-test", "--device", "cpu")
	r.want(t, 1, "checks of the self-test failed on cpu", "reinstall libtorch")
	if !regexp.MustCompile(`(?m)^CLIP, images, f32 +difference [0-9.]+e-0[0-3], bound 2e-05: FAILED$`).MatchString(r.stdout) {
		t.Errorf("standard output:\n%s", r.stdout)
	}
	if strings.Contains(r.stdout, "no problems") || strings.Contains(r.stdout, "checks passed") {
		t.Errorf("standard output:\n%s", r.stdout)
	}
}
