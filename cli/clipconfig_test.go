package cli_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What a CLIP's file does not say is assumed with a note, or given by --clip-config, by
// every command with --clip.
func TestClipConfig(t *testing.T) {
	dir := t.TempDir()
	bare := filepath.Join(dir, "bare.pt")
	data, err := os.ReadFile(clipF)
	if err != nil {
		t.Fatal(err)
	}
	put(t, bare, data)
	config, err := os.ReadFile(filepath.Join(filepath.Dir(clipF), "open_clip_config.json"))
	if err != nil {
		t.Fatal(err)
	}
	gelu := put(t, filepath.Join(dir, "gelu.json"), []byte(strings.Replace(string(config), `"quick_gelu": true`, `"quick_gelu": false`, 1)))

	out := filepath.Join(dir, "x.safetensors")
	features := func(args ...string) []float32 {
		args = append([]string{"features", "--images", photos[0], "-o", out, "--clip"}, args...)
		r := run("", args...)
		if r.code != 0 {
			t.Fatal(r.err)
		}
		if noted := strings.Contains(r.err, "note: no open_clip_config.json is beside "+bare); noted != (len(args) == 7 && args[6] == bare) {
			t.Errorf("%v: %s", args, r.err)
		}
		return readFeatures(t, out).values[0]
	}
	want := features(clipF)
	if !slices.Equal(features(bare), want) {
		t.Error("other features with what was assumed")
	}
	if slices.Equal(features(bare, "--clip-config", gelu), want) {
		t.Error("--clip-config has no effect")
	}
	caption := []string{"caption", "--decoder", mapperF, "--gpt2", gptF, "--max-tokens", "2", "--normalize", "no", photos[0], "--clip", bare}
	run("", caption...).says(t, 1, "note: no open_clip_config.json is beside "+bare, "--clip-config")
	if r := run("", append(caption, "--clip-config", gelu)...); r.code != 0 || r.err != "" {
		t.Errorf("exit code %d: %s", r.code, r.err)
	}
	run("", append(caption, "--clip-config", "ViT-B/32")...).fails(t, 1, "ViT-B/32 contradicts "+bare, "features of width 512, but the weights have 64")
	run("", append(caption, "--clip-config", "ViT-B-33")...).fails(t, 1, "ViT-B-33", "did you mean ViT-B-32")
	run("", "eval", "--annotations", "a.json", "--results", "r.json", "--metrics", "BLEU", "--clip", bare, "--images", dir, "--clip-config", "ViT-B/32").
		fails(t, 1, "ViT-B/32 contradicts "+bare)
}
