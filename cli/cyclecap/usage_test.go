package main

import (
	"os"
	"strings"
	"testing"
)

// Wrong usage: one line that says what is wrong, exit code 2, nothing written.
func TestUsage(t *testing.T) {
	photo := photos(t, 1)[0]
	features := func(more ...string) []string {
		return append([]string{"features", "--clip", in("clip.pt"), "--text", "a", "-o", "out.safetensors"}, more...)
	}
	cases := []struct {
		name string
		args []string
		says string
	}{
		{"unknown command", []string{"captoin"}, `"captoin"`},
		{"unknown option", []string{"doctor", "--jsn"}, "--jsn"},
		{"unknown option before a command", []string{"--quick", "doctor"}, "--quick"},
		{"needless argument", []string{"doctor", "now"}, `"now"`},
		{"no --clip", []string{"caption", "--generator", in("generator.pt"), photo}, "--clip and --decoder are required"},
		{"an empty --clip", []string{"caption", "--clip", "", photo}, "--clip and --decoder are required"},
		{"no --decoder", []string{"caption", "--clip", in("clip.pt"), "--gpt2", in("gpt2"), photo}, "--decoder is required"},
		{"no photo", pipelineFlags(), "no PHOTO"},
		{"no --gpt2", []string{"caption", "--clip", in("clip.pt"), "--decoder", in("decoder.pt"), photo}, "--gpt2 is required"},
		{"--decode", pipelineFlags("--decode", "best", photo), "greedy, top-p, sample, beam or beam-transformers"},
		{"--beam 0", pipelineFlags("--decode", "beam", "--beam", "0", photo), "--beam 0"},
		{"--beam of no number", pipelineFlags("--beam", "many", photo), "--beam"},
		{"--max-tokens 0", pipelineFlags("--max-tokens", "0", photo), "--max-tokens 0"},
		{"--max-tokens beyond this GPT-2", pipelineFlags("--max-tokens", "38", photo), "room for 37 tokens"},
		{"--temperature 0", pipelineFlags("--decode", "sample", "--temperature", "0", photo), "--temperature 0"},
		{"--temperature NaN", pipelineFlags("--decode", "sample", "--temperature", "NaN", photo), "--temperature NaN"},
		{"--top-k -1", pipelineFlags("--decode", "sample", "--top-k", "-1", photo), "--top-k -1"},
		{"--top-p 1.5", pipelineFlags("--decode", "sample", "--top-p", "1.5", photo), "--top-p 1.5"},
		{"--seed -1", pipelineFlags("--seed", "-1", photo), "--seed"},
		{"--batch 0", pipelineFlags("--batch", "0", photo), "--batch 0"},
		{"--dtype f8", pipelineFlags("--dtype", "f8", photo), "f32 or bf16"},
		{"--device gpu", pipelineFlags("--device", "gpu", photo), "--device gpu"},
		{"--threads 100000", pipelineFlags("--threads", "100000", photo), "--threads 100000: must be between 1 and"},
		{"--threads -1", pipelineFlags("--threads", "-1", photo), "--threads -1"},
		{"features without an input", []string{"features", "--clip", in("clip.pt"), "-o", "out.safetensors"}, "--images, --text and --captions"},
		{"features of two kinds", features("--images", photo), "got 2"},
		{"features --batch 0", features("--batch", "0"), "--batch 0"},
		{"features into another format", []string{"features", "--clip", in("clip.pt"), "--text", "a", "-o", "out.npz"}, "out.npz"},
		{"features without -o", []string{"features", "--clip", in("clip.pt"), "--text", "a"}, "--output is required"},
		{"option without its value", []string{"features", "--clip"}, "--clip needs a value"},
		{"tokenize without its tokenizer", []string{"tokenize"}, "--tokenizer is required"},
		{"tokenize with another tokenizer", []string{"tokenize", "--tokenizer", "bert"}, "clip or gpt2"},
		{"inspect of nothing", []string{"inspect"}, "one FILE"},
		{"convert of one file", []string{"convert", in("clip.pt")}, "IN and OUT"},
		{"convert to unknown names", []string{"convert", "--names", "keras", in("clip.pt"), "out.pt"}, "openai, transformers or clipcap"},
		{"convert to another precision", []string{"convert", "--dtype", "i4", in("clip.pt"), "out.pt"}, "f32, f16, bf16 or int8"},
		{"convert to int8 as .pt", []string{"convert", "--dtype", "int8", in("clip.pt"), "out.pt"}, "writes .safetensors files only, not out.pt"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			folder := t.TempDir()
			r := cyclecapIn(t, folder, "", c.args...)
			r.want(t, 2, "cyclecap: ", c.says)
			if n := strings.Count(r.stderr, "\n"); n != 1 {
				t.Errorf("want one line, got %d:\n%s", n, r.stderr)
			}
			if r.stdout != "" {
				t.Errorf("standard output:\n%s", r.stdout)
			}
			empty(t, folder)
		})
	}
}

// empty checks that a command has left nothing behind.
func empty(t *testing.T, folder string) {
	t.Helper()
	list, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		t.Errorf("%s was left behind", e.Name())
	}
}
