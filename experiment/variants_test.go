package experiment

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"cyclecap/experiment/config"

	"github.com/google/go-cmp/cmp"
)

const smallVariants = `
[[variant]]
name = "no pool"
train.cyclegan.pool = 0

[[variant]]
name = "no pool, two layers"
train.cyclegan.pool = 0
train.cyclegan.layers = 2

[[variant]]
name = "fewer photos"
data.photo_limit = 20

[[variant]]
name = "other texts"
world.texts = 24
world.text_seed = 2

[[variant]]
name = "shift"
bridges.use = ["meanshift"]
`

func variantsOf(t *testing.T, dir, text, last string, change func(*Experiment), sets ...string) (*Experiment, *quiet, error) {
	t.Helper()
	path := write(t, filepath.Join(t.TempDir(), "small.toml"), small+text)
	c, variants, err := config.LoadVariants(path, append([]string{"output=" + dir, "bridges.use=[direct,cyclegan]"}, sets...))
	if err != nil {
		t.Fatal(err)
	}
	q := &quiet{}
	x := &Experiment{Config: c, Variants: variants, Dir: c.Output, Seeds: 1, UI: q}
	change(x)
	done, err := x.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	return x, q, x.Execute(t.Context(), last)
}

// TestVariants runs variants of the small experiment, which must share every stage whose
// inputs are the same.
func TestVariants(t *testing.T) {
	dir := t.TempDir()
	same := func(*Experiment) {}
	x, q, err := variantsOf(t, dir, smallVariants, "", same)
	if err != nil {
		t.Fatal(err)
	}
	ran := map[string]int{}
	stage := regexp.MustCompile(`^([a-z0-9/-]+)-[0-9a-f]{8}$`)
	for _, line := range q.said {
		if m := stage.FindStringSubmatch(line); m != nil {
			ran[m[1]]++
		}
	}
	want := map[string]int{"world": 1, "clip": 1, "gpt2": 1, "features/val-images": 1, "features/val-texts": 1, "features/train-images": 1,
		"features/train-texts": 2, "seed-0/decoder-texts": 2, "seed-0/cyclegan": 5,
		// Fewer photos change no decoder.
		"seed-0/captions-direct": 2, "seed-0/captions-cyclegan": 5, "seed-0/captions-meanshift": 1}
	if diff := cmp.Diff(want, ran); diff != "" {
		t.Errorf("stages that ran: %s", diff)
	}
	var table struct {
		Images   int
		Variants []struct {
			Name    string
			Changes []string
			Scores  map[string]map[string]struct {
				Value, Low *float64
				Difference *struct {
					Value, P float64
					Holm     *float64 `json:"p_holm"`
				}
			}
			Same []string `json:"same_as_base"`
		}
	}
	if err := readJSON(filepath.Join(dir, "table.json"), &table); err != nil {
		t.Fatal(err)
	}
	if len(table.Variants) != 6 || table.Images != 6 || table.Variants[0].Name != "base" {
		t.Fatalf("%+v", table)
	}
	base := table.Variants[0].Scores["cyclegan"]["CIDEr"].Value
	for _, v := range table.Variants[1:5] {
		s := v.Scores["cyclegan"]["CIDEr"]
		if d := s.Difference; d == nil || d.Holm == nil || d.P <= 0 || *d.Holm < d.P || *s.Value-*base-d.Value > 1e-15 || *s.Value-*base-d.Value < -1e-15 {
			t.Errorf("%s: %+v", v.Name, s)
		}
		if d := v.Scores["cyclegan"]["BLEU-1"].Difference; d == nil || d.Holm != nil {
			t.Errorf("%s: BLEU-1, which is not in the table, has %+v", v.Name, d)
		}
	}
	if diff := cmp.Diff([]string{"direct"}, table.Variants[2].Same); diff != "" {
		t.Error(diff)
	}
	text, err := os.ReadFile(filepath.Join(dir, "table.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"## direct\n\n| variant | changes | BLEU-4 | difference | CIDEr | difference |", "## textualised\n", "## mean shift\n\n| variant",
		"| no pool, two layers | `train.cyclegan.layers = 2`<br>`train.cyclegan.pool = 0` |", "| = |", "Differences are from the base."} {
		has(t, string(text), want)
	}

	// Nothing runs again, except what a new variant needs.
	_, q, err = variantsOf(t, dir, smallVariants+"[[variant]]\nname = \"more\"\ntrain.cyclegan.cycle_weight = 5\n", "", same)
	if err != nil {
		t.Fatal(err)
	}
	var again []string
	for _, line := range q.said {
		if m := stage.FindStringSubmatch(line); m != nil {
			again = append(again, m[1])
		}
	}
	if diff := cmp.Diff([]string{"seed-0/cyclegan", "seed-0/captions-cyclegan"}, again); diff != "" {
		t.Error(diff)
	}

	// Two worlds, up to a stage.
	_, q, err = variantsOf(t, dir, smallVariants, "features", func(x *Experiment) { x.Worlds = 2 })
	if err != nil {
		t.Fatal(err)
	}
	// One line for each variant in each world, and one more when it is done.
	if n := strings.Count(strings.Join(q.said, "\n"), "\nclip-"); n != 13 || strings.Contains(strings.Join(q.said, "\n"), "decoder") {
		t.Errorf("CLIP is trained or skipped %d times", n)
	}

	// The plan leaves out what is finished, and what another variant has before.
	planOf := func(x Experiment) (rows []string) {
		t.Helper()
		x.contents, x.Worlds = nil, 1
		_, lines, err := x.plan(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range lines {
			rows = append(rows, fmt.Sprintf("%s %d", p.name, p.times))
		}
		return rows
	}
	if rows := planOf(*x); rows != nil {
		t.Errorf("the plan of a finished run has %q", rows)
	}
	more := *x
	changed, variants, err := config.LoadVariants(write(t, filepath.Join(t.TempDir(), "small.toml"), small+smallVariants+"[[variant]]\nname = \"new\"\ntrain.cyclegan.cycle_weight = 3\n"),
		[]string{"output=" + dir, "bridges.use=[direct,cyclegan]"})
	if err != nil {
		t.Fatal(err)
	}
	more.Config, more.Variants = changed, variants
	if diff := cmp.Diff([]string{"new: cyclegan 1", "new: caption 1"}, planOf(more)); diff != "" {
		t.Errorf("the plan of a run with a new variant: %s", diff)
	}
	// Most variants have the decoder of the base, and captions of their own.
	decoders, err := filepath.Glob(filepath.Join(dir, "seed-0/decoder-texts-*/decoder.pt"))
	if err != nil || len(decoders) != 2 {
		t.Fatal(decoders, err)
	}
	for _, path := range decoders {
		if err := os.Rename(path, path+".away"); err != nil {
			t.Fatal(err)
		}
	}
	lost := []string{"base: decoder 1", "base: caption 2", "no pool: caption 1", "no pool, two layers: caption 1", "fewer photos: caption 1",
		"other texts: decoder 1", "other texts: caption 2", "shift: caption 1"}
	if diff := cmp.Diff(lost, planOf(*x)); diff != "" {
		t.Errorf("the plan of a run without its decoders: %s", diff)
	}
	for _, path := range decoders {
		if err := os.Rename(path+".away", path); err != nil {
			t.Fatal(err)
		}
	}
	fresh := *x
	fresh.Dir, fresh.contents = t.TempDir(), nil
	var plan strings.Builder
	if err := fresh.Plan(t.Context(), &plan, ""); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"base: decoder", "no pool, two layers: cyclegan", "other texts: decoder", "shift: caption", "6 variants"} {
		has(t, plan.String(), want)
	}
	for _, not := range []string{"no pool: decoder", "no pool: clip", "shift: decoder", "fewer photos: features"} {
		if strings.Contains(plan.String(), not) {
			t.Errorf("%q is in the plan:\n%s", not, plan.String())
		}
	}

	// A variant that cannot run is refused before the first one begins.
	_, q, err = variantsOf(t, t.TempDir(), "[[variant]]\nname = \"large\"\ntrain.decoder.batch = 1000\n", "", same)
	wants(t, err, `variant "large": train.decoder.batch: must be at most 120`)
	if len(q.said) > 0 {
		t.Errorf("a stage had begun: %q", q.said)
	}
}
