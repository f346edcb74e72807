package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// sampled writes a sample of the world.
func sampled(t *testing.T, n string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "photos")
	ok(t, "world", "--sample", n, "--seed", "5", dir)
	return dir
}

// Without flags, caption uses the models in models/world, and one note says so. The
// captions are those of the files on disk, whose names nothing else is said about.
func TestCaptionBuiltIn(t *testing.T) {
	dir := sampled(t, "3")
	got := run("", "caption", "--json", dir)
	if got.code != 0 {
		t.Fatalf("exit code %d: %s", got.code, got.err)
	}
	got.says(t, 1, "note: the built-in models know only the drawn scenes of `cyclecap world`", "--clip, --decoder, --gpt2 and --generator")
	const models = "../models/world/"
	files := []string{"--clip", models + "clip.safetensors", "--decoder", models + "decoder.safetensors", "--gpt2", models + "gpt2.safetensors", "--generator", models + "generator.safetensors"}
	want := run("", append(append([]string{"caption", "--json"}, files...), dir)...)
	if want.code != 0 || want.err != "" {
		t.Fatalf("exit code %d, standard error %q", want.code, want.err)
	}
	if diff := cmp.Diff(want.out, got.out); diff != "" {
		t.Errorf("(-files +built-in):\n%s", diff)
	}
	lines := captionLines(t, got.out)
	if len(lines) != 6 || lines[0].Pipeline != "direct" || lines[1].Pipeline != "textualised" || lines[1].ImageID != 40000001 {
		t.Errorf("got %+v", lines)
	}
	text := run("", "caption", dir)
	if !strings.HasPrefix(text.out, lines[0].File+" (direct): "+lines[0].Caption+"\n"+lines[1].File+" (textualised): ") {
		t.Errorf("as text: %s", text.out)
	}
	// Flags that choose no model keep the built-in ones; any other needs all of them.
	run("", "caption", "--decode", "beam", "--beam", "3", "--max-tokens", "5", "--normalize", "auto", dir).says(t, 1, "note: the built-in models")
	for _, flag := range []string{"--gpt2", "--generator", "--clip-config"} {
		run("", "caption", flag, models+"gpt2.safetensors", dir).fails(t, 2, "--clip and --decoder are required")
	}
	run("", "caption", "--clip", clipF, dir).fails(t, 2, "--decoder is required")
	run("", "caption", "--decoder", mapperF, dir).fails(t, 2, "--clip is required")
	run("", "caption").fails(t, 2, "no PHOTO given")
}

// The built-in models name the main object of unseen scenes more often than by chance
// (one in 24). least is close to what they reach.
func TestBuiltInModelsSeeTheScene(t *testing.T) {
	const n, least = 60, 5
	dir := sampled(t, "60")
	data, err := os.ReadFile(filepath.Join(dir, "captions.json"))
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Images []struct {
			ID    int64
			World struct {
				Objects []struct{ Kind string }
			}
		}
	}
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	right := map[string]int{}
	for _, l := range captionLines(t, run("", "caption", "--json", dir).out) {
		for _, image := range d.Images {
			if image.ID == l.ImageID && strings.Contains(l.Caption, image.World.Objects[0].Kind) {
				right[l.Pipeline]++
			}
		}
	}
	t.Logf("captions that name the main object by its commonest word, of %d: %v", n, right)
	if right["textualised"] < least {
		t.Errorf("%d of %d textualised captions name the main object, want at least %d", right["textualised"], n, least)
	}
}
