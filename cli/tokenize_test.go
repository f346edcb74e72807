package cli_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"cyclecap/cli"
	"cyclecap/data/tokenizer"

	"github.com/google/go-cmp/cmp"
)

func TestTokenize(t *testing.T) {
	texts := []string{"A man riding a wave.", "", "  Über\tcafé, 漢字 & 🏄‍♂️\n", "<|endoftext|>", "a,b", "\u2028"}
	var in strings.Builder
	for _, s := range texts {
		b, _ := json.Marshal(s)
		in.Write(append(b, '\n'))
	}
	for name, tok := range map[string]tokenizer.Tokenizer{"clip": tokenizer.CLIP(), "gpt2": tokenizer.GPT2()} {
		var want [][]int
		for _, s := range texts {
			want = append(want, append([]int{}, tok.Encode(s)...))
		}
		// With and without a line break at the end, and with a long line.
		long := strings.Repeat("a wave ", 30_000)
		for _, stdin := range []string{in.String(), strings.TrimSuffix(in.String(), "\n"), strings.ReplaceAll(in.String(), "\n", "\r\n"), in.String() + `"` + long + `"`} {
			r := run(stdin, "tokenize", "--tokenizer", name)
			if r.code != 0 || r.err != "" {
				t.Fatalf("%s: exit code %d: %s", name, r.code, r.err)
			}
			var got [][]int
			for line := range strings.Lines(r.out) {
				var ids []int
				if err := json.Unmarshal([]byte(line), &ids); err != nil {
					t.Fatalf("%s: %v: %.80q", name, err, line)
				}
				got = append(got, ids)
			}
			w := want
			if strings.Contains(stdin, long) {
				w = append(w, tok.Encode(long))
			}
			if diff := cmp.Diff(w, got); diff != "" {
				t.Errorf("%s (-want +got):\n%.2000s", name, diff)
			}
		}
	}
	if r := run("", "tokenize", "--tokenizer", "gpt2"); r.code != 0 || r.out != "" || r.err != "" {
		t.Errorf("no lines gave %+v", r)
	}
}

// The lines before a bad one are answered; the error names the bad line's number.
func TestTokenizeErrors(t *testing.T) {
	for _, c := range []struct {
		in   string
		out  string
		says []string
	}{
		{"\"a\"\nb\n\"c\"\n", "[64]\n", []string{"line 2", "JSON string", `"b"`}},
		{"12\n", "", []string{"line 1", "12"}},
		{"null\n", "", []string{"line 1", "null"}},
		{"[\"a\"]\n", "", []string{"line 1"}},
		{"\"a\"\n\n\"c\"\n", "[64]\n", []string{"line 2", "empty"}},
		{"\"a\"\n\"b", "[64]\n", []string{"line 2"}},
		{"\"a\" \"b\"\n", "", []string{"line 1"}},
		{"\x00\x1b[31m" + strings.Repeat("x", 10000) + "\n", "", []string{"line 1"}},
	} {
		r := run(c.in, "tokenize", "--tokenizer", "gpt2")
		if r.code != 1 || r.out != c.out {
			t.Errorf("%.30q: exit code %d, output %q, want 1 and %q", c.in, r.code, r.out, c.out)
		}
		r.says(t, 1, c.says...)
	}
	for _, c := range []struct {
		args []string
		says string
	}{
		{nil, "--tokenizer is required"},
		{[]string{"--tokenizer", "bert"}, "clip or gpt2"},
		{[]string{"--tokenizer", "clip", "file.jsonl"}, "file.jsonl"},
	} {
		run("", append([]string{"tokenize"}, c.args...)...).fails(t, 2, c.says)
	}
}

// A command fails if reading its input or writing its output fails (a full disk).
func TestStreamsThatFail(t *testing.T) {
	var errs strings.Builder
	broken := io.MultiReader(strings.NewReader("\"a\"\n"), failing{})
	if code := cli.Main([]string{"cyclecap", "tokenize", "--tokenizer", "gpt2"}, broken, io.Discard, &errs); code != 1 {
		t.Errorf("exit code %d when standard input fails", code)
	}
	result{err: errs.String()}.says(t, 1, "standard input", "it broke")

	for _, args := range [][]string{
		{"tokenize", "--tokenizer", "gpt2"}, {"doctor"}, {"doctor", "--json"}, {"inspect", clipF}, {"inspect", "--json", clipF}, caption(photos[0]),
	} {
		errs.Reset()
		if code := cli.Main(append([]string{"cyclecap"}, args...), strings.NewReader("\"a\"\n"), failing{}, &errs); code != 1 {
			t.Errorf("%s: exit code %d when standard output fails", args[0], code)
		}
		result{err: errs.String()}.says(t, 1, "it broke")
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error)  { return 0, errors.New("it broke") }
func (failing) Write([]byte) (int, error) { return 0, errors.New("it broke") }

func TestDoctor(t *testing.T) {
	var got map[string]any
	if err := json.Unmarshal([]byte(ok(t, "doctor", "--json")), &got); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"cyclecap", "go", "libtorch", "built_for", "libtorch_path", "devices", "cuda", "threads", "cores",
		"instruction_set", "bf16", "mkl", "onednn", "openmp", "gloo", "nccl", "problems", "hints"} {
		if got[k] == nil {
			t.Errorf("%s is missing or null", k)
		}
	}
	devices, _ := got["devices"].([]any)
	if len(devices) < 2 || devices[0] != "cpu" {
		t.Errorf("devices %v", devices)
	}
	path, _ := got["libtorch_path"].(string)
	if _, err := os.Stat(path); err != nil {
		t.Errorf("libtorch_path: %v", err)
	}
	text := ok(t, "doctor")
	for _, w := range []string{"libtorch", path, "devices", "threads", "Gloo, NCCL", got["go"].(string)} {
		if !strings.Contains(text, w) {
			t.Errorf("%q is missing in:\n%s", w, text)
		}
	}
	run("", "doctor", "me").fails(t, 2, "doctor", "me")
}

func TestSelfTest(t *testing.T) {
	var got struct {
		Problems []string
		SelfTest struct {
			Device  string
			Seconds float64
			Checks  []struct {
				Name              string
				OK                *bool
				Difference, Bound float64
				Seconds           float64
			}
		} `json:"self_test"`
	}
	if err := json.Unmarshal([]byte(ok(t, "doctor", "--self-test", "--device", "cpu", "--json")), &got); err != nil {
		t.Fatal(err)
	}
	if s := got.SelfTest; s.Device != "cpu" || s.Seconds <= 0 || len(s.Checks) < 30 || len(got.Problems) > 0 {
		t.Errorf("got %+v", got)
	}
	for _, c := range got.SelfTest.Checks {
		if c.Name == "" || c.OK == nil || !*c.OK || c.Bound == 0 || c.Difference == 0 || c.Difference > c.Bound {
			t.Errorf("check %+v", c)
		}
	}
	text := ok(t, "doctor", "--self-test", "--device", "cpu")
	for _, w := range []string{"self-test on cpu", "CLIP, images, f32", "difference", "bound", ": ok", "all 37 checks passed", "no problems found"} {
		if !strings.Contains(text, w) {
			t.Errorf("%q is missing in:\n%s", w, text)
		}
	}
	if strings.Contains(ok(t, "doctor", "--json"), "self_test") {
		t.Error("doctor speaks of a self-test that it did not run")
	}
	run("", "doctor", "--device", "cpu").fails(t, 2, "--device", "--self-test")
	run("", "doctor", "--self-test", "--device", "tpu").fails(t, 2, "--device", "tpu")
	run("", "doctor", "--self-test", "--device", "cuda:4000").fails(t, 1, "--device", "cuda:4000")
}
