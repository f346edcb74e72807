package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"cyclecap/cli"
	"cyclecap/nets/clip"
	"cyclecap/pipeline"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/weights"

	"github.com/google/go-cmp/cmp"
)

// The networks of these tests are small and random, but real files that
// Python's implementations wrote (internal/parity).
const (
	small   = "../internal/parity/testdata/small/"
	clipF   = small + "clip.pt" // photos of 32 pixels, features of width 64, 256 tokens
	mapperF = small + "decoder.pt"
	gptBare = small + "gpt2" // with a config.json, but without a tokenizer
	genF    = small + "generator.pt"
)

var photos = []string{
	"../testdata/photos/000000084284.jpg", "../testdata/photos/000000114174.jpg", "../testdata/photos/000000126107.jpg",
	"../testdata/photos/000000129648.jpg", "../testdata/photos/000000159269.jpg",
}

var (
	// scratch is the folder of this run for files that several tests share.
	scratch string
	// gptF is gptBare with metadata that say what its tokenizer is.
	gptF string
)

func TestMain(m *testing.M) {
	if text := os.Getenv(groupVariable); text != "" {
		var args []string
		if err := json.Unmarshal([]byte(text), &args); err != nil {
			panic(err)
		}
		os.Exit(cli.Main(append([]string{"cyclecap"}, args...), os.Stdin, os.Stdout, os.Stderr))
	}
	var err error
	if scratch, err = os.MkdirTemp("", "cyclecap-cli-*"); err != nil {
		panic(err)
	}
	gptF = filepath.Join(scratch, "gpt2.safetensors")
	g, err := pipeline.LoadGPT2(gptBare)
	if err == nil {
		err = weights.Save(context.Background(), gptF, nn.StateDictOf(g.Model), g.Meta())
		nn.Close(g.Model)
	}
	if err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(scratch)
	os.Exit(code)
}

// textCLIP writes a CLIP with random weights and the whole vocabulary, which the
// small fixtures lack.
var textCLIP = sync.OnceValues(func() (string, error) {
	path := filepath.Join(scratch, "text-clip.pt")
	return path, torch.Scope(func() error {
		torch.ManualSeed(1)
		m := clip.New(clip.Config{EmbedDim: 64, ImageSize: 32, PatchSize: 8, VisionWidth: 64, VisionDepth: 1,
			Context: 16, Vocab: 49408, TextWidth: 64, TextHeads: 1, TextDepth: 2})
		defer nn.Close(m)
		return weights.Save(context.Background(), path, nn.StateDictOf(m), map[string]string{weights.CLIPConfig: m.Config.Metadata()})
	})
})

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// result is the outcome of a command line.
type result struct {
	code     int
	out, err string
}

func run(stdin string, args ...string) result {
	var out, errs bytes.Buffer
	code := cli.Main(append([]string{"cyclecap"}, args...), strings.NewReader(stdin), &out, &errs)
	return result{code, out.String(), errs.String()}
}

// ok runs a command that must succeed without messages, and returns its output.
func ok(t *testing.T, args ...string) string {
	t.Helper()
	r := run("", args...)
	if r.code != 0 {
		t.Fatalf("cyclecap %s: exit code %d\n%s", strings.Join(args, " "), r.code, r.err)
	}
	return r.out
}

// fails checks that a command failed: with this exit code, one line that begins with
// the program's name and contains all of the words, and nothing else.
func (r result) fails(t *testing.T, code int, words ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d", r.code, code)
	}
	if r.out != "" {
		t.Errorf("standard output has %.300q, want nothing", r.out)
	}
	r.says(t, 1, words...)
}

// says checks that standard error has this number of lines and contains the words.
func (r result) says(t *testing.T, lines int, words ...string) {
	t.Helper()
	if n := strings.Count(r.err, "\n"); n != lines || !strings.HasSuffix(r.err, "\n") {
		t.Errorf("standard error has %d lines, want %d:\n%s", n, lines, r.err)
	}
	for line := range strings.Lines(r.err) {
		if !strings.HasPrefix(line, "cyclecap: ") {
			t.Errorf("a line of standard error doesn't begin with the program's name: %q", line)
		}
		if len(line) > 600 {
			t.Errorf("a line of %d bytes: %.200q…", len(line), line)
		}
		for _, c := range strings.TrimSuffix(line, "\n") {
			if c < ' ' {
				t.Errorf("a control character in %q", line)
			}
		}
	}
	for _, w := range words {
		if !strings.Contains(r.err, w) {
			t.Errorf("standard error lacks %q:\n%s", w, r.err)
		}
	}
	for _, w := range []string{"internal error", "goroutine", "panic", "0x0", "%!", "photo: ", "tokenizer: "} {
		if strings.Contains(r.err, w) {
			t.Errorf("standard error speaks of %q:\n%s", w, r.err)
		}
	}
}

// listing returns all files below a folder, including hidden ones.
func listing(t *testing.T, dir string) []string {
	t.Helper()
	list := []string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && path != dir {
			rel, _ := filepath.Rel(dir, path)
			list = append(list, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// empty checks that a folder is empty, after a command that must leave nothing in it.
func empty(t *testing.T, dir string) {
	t.Helper()
	if diff := cmp.Diff([]string{}, listing(t, dir)); diff != "" {
		t.Errorf("something was written (-want +got):\n%s", diff)
	}
}

func put(t *testing.T, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// captionLine is the contract of caption --json; any other field is an error.
type captionLine struct {
	File     string  `json:"file"`
	ImageID  int64   `json:"image_id"`
	Pipeline string  `json:"pipeline"`
	Caption  string  `json:"caption"`
	Tokens   []int64 `json:"tokens"`
	LogProb  float64 `json:"logprob"`
}

// imageID returns the id in a file name of COCO.
func imageID(path string) int64 {
	id, err := strconv.ParseInt(strings.TrimSuffix(filepath.Base(path), ".jpg"), 10, 64)
	if err != nil {
		panic(err)
	}
	return id
}

func captionLines(t *testing.T, out string) []captionLine {
	t.Helper()
	var list []captionLine
	for line := range strings.Lines(out) {
		var keys map[string]any
		if err := json.Unmarshal([]byte(line), &keys); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		for _, k := range []string{"file", "pipeline", "caption", "tokens", "logprob"} {
			if keys[k] == nil {
				t.Errorf("%s is missing or null in %s", k, line)
			}
		}
		d := json.NewDecoder(strings.NewReader(line))
		d.DisallowUnknownFields()
		var l captionLine
		if err := d.Decode(&l); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		list = append(list, l)
	}
	return list
}
