package report

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"cyclecap/data/coco"
	"cyclecap/data/world"
	"cyclecap/eval"
	"cyclecap/eval/geometry"

	"github.com/google/go-cmp/cmp"
)

var (
	update = flag.Bool("update", false, "write the golden files")
	keep   = flag.String("keep", "", "write the sample report to a `folder`, to look at it")
)

const photos = "../../testdata/photos"

// sample returns an experiment with every part, with made-up numbers.
func sample(t testing.TB) *Experiment {
	t.Helper()
	r := rand.New(rand.NewPCG(3, 4))
	e := &Experiment{
		Name: "CycleGAN against direct decoding", Data: "COCO val2014", Val2014: true, Images: 40504,
		Notes:        []string{"These numbers are made up, to show the page."},
		ExamplesNote: "Selected at random with seed 1.",
		Config:       "name = \"paper\"\n\n[decoder]\nepochs = 20 # Table 1\nprefix_length = 40\n\n[cyclegan]\nepochs = 20 # Table 2\nadversarial = \"least-squares\"\n",
		Versions:     []Fact{{"cyclecap", "0.4.0 (db3264e)"}, {"libtorch", "2.9.1"}, {"Go", "1.26.0"}},
		Counts:       []Fact{{"photos", "40,504"}, {"skipped photos: corrupt", "3"}, {"skipped captions: empty", "11"}},
		Stages:       []Stage{{"features", 5025, true}, {"decoder", 40321, false}, {"cyclegan", 612.4, false}, {"evaluate", 17.3, false}},
	}
	base := [][]float64{{.281, .120, .047, .020, .239, .098, .064}, {.407, .231, .121, .062, .341, .161, .247},
		{.391, .220, .113, .058, .330, .155, .221}, {.602, .430, .301, .208, .447, .211, .702}, {.741, .576, .437, .335, .558, .275, 1.131}}
	for i, b := range []Bridge{{ID: "direct", Paper: "direct"}, {ID: "cyclegan", Label: "CycleGAN", Paper: "textualised"},
		{ID: "mean-shift", Label: "mean shift"}, {ID: "capdec", Label: "CapDec noise"}, {ID: "clipcap", Label: "ClipCap", Supervised: true}} {
		b.Scores = map[string]Score{}
		for j, m := range Metrics {
			v := base[i][j]
			b.Scores[m] = Score{Seeds: []float64{v - .004, v, v + .004}, Interval: &eval.Interval{Low: v - .006, High: v + .007}}
		}
		e.Bridges = append(e.Bridges, b)
	}
	e.Bridges[3].Scores["METEOR"] = Score{Missing: "its data is missing; run make meteor-data"}
	e.Baseline = "direct"
	e.Differences = []Difference{
		{"cyclegan", "direct", eval.Difference{Score: "CIDEr", Difference: .183, Low: .176, High: .190, P: .0001}, 0},
		{"cyclegan", "direct", eval.Difference{Score: "BLEU-4", Difference: .042, Low: .001, High: .080, P: .03}, 0},
		{"mean-shift", "direct", eval.Difference{Score: "CIDEr", Difference: .157, Low: .1, High: .2, P: .001}, 0},
		{"mean-shift", "direct", eval.Difference{Score: "BLEU-4", Difference: .038, Low: -.002, High: .08, P: .06}, 0},
		{"mean-shift", "cyclegan", eval.Difference{Score: "CIDEr", Difference: -.026, Low: -.05, High: .002, P: .07}, 0},
	}
	Correct(e.Differences)
	e.Closed = map[string]eval.Interval{"CIDEr": {Low: .15, High: .19}}

	for _, c := range []struct {
		title  string
		series []string
		n      int
	}{{"Text decoder", []string{"train", "validation"}, 9000}, {"CycleGAN: generators", []string{"adversarial", "cycle", "identity"}, 26000},
		{"CycleGAN: discriminators", []string{"image side", "text side"}, 26000}, {"CLIP", []string{"train"}, 60}} {
		chart := Chart{Title: c.title}
		for i, name := range c.series {
			s := Series{Name: name}
			n := c.n
			if name == "validation" {
				n = 20
			}
			for k := range n {
				x := float64(k) / float64(n)
				s.Points = append(s.Points, Point{float64(k) * float64(c.n) / float64(n), (1.5+float64(i))*math.Exp(-4*x) + 1 + .2*r.NormFloat64()})
			}
			chart.Series = append(chart.Series, s)
		}
		e.Charts = append(e.Charts, chart)
	}

	const n, d = 700, 48
	texts, images, moved, shifted := rows(r, n, d), rows(r, n, d), rows(r, n, d), rows(r, n, d)
	for i := range n {
		for j := range d {
			images[i][j] = texts[i][j] + .9*images[i][j]
			moved[i][j] = texts[i][j] + .5*moved[i][j]
			shifted[i][j] = texts[i][j] + .8*shifted[i][j]
		}
		images[i][0] += 6
		texts[i][0] -= 4
		moved[i][0] -= 3.5
		shifted[i][0] -= 4
	}
	g, err := geometry.Measure(images, texts, []geometry.Set{{Name: "CycleGAN", Features: moved}, {Name: "mean shift", Features: shifted}}, 500)
	if err != nil {
		t.Fatal(err)
	}
	e.Geometry = g

	set, err := coco.Read(filepath.Join(photos, "captions.json"))
	if err != nil {
		t.Fatal(err)
	}
	for i, img := range set.Images[:9] {
		data, err := os.ReadFile(filepath.Join(photos, img.FileName))
		if err != nil {
			t.Fatal(err)
		}
		x := Example{ID: img.ID.String(), Photo: data}
		for _, a := range set.Annotations {
			if a.ImageID == img.ID {
				x.Truths = append(x.Truths, a.Caption)
			}
		}
		for j, b := range e.Bridges {
			c := Caption{Bridge: b.ID, Text: set.Annotations[(i*7+j*13)%len(set.Annotations)].Caption}
			if words := strings.SplitAfter(c.Text, " "); len(words) > 4 && j > 0 {
				at := len(words[0])
				for k, w := range words[1:4] {
					if n := len(strings.TrimSpace(w)); n > 0 {
						c.Claims = append(c.Claims, world.Claim{Start: at, End: at + n, Right: (i+j+k)%3 > 0})
					}
					at += len(w)
				}
			}
			x.Captions = append(x.Captions, c)
		}
		e.Examples = append(e.Examples, x)
	}
	return e
}

func rows(r *rand.Rand, n, d int) [][]float32 {
	out := make([][]float32, n)
	for i := range out {
		out[i] = make([]float32, d)
		for j := range out[i] {
			out[i][j] = float32(r.NormFloat64())
		}
	}
	return out
}

func html(t testing.TB, e *Experiment) string {
	t.Helper()
	var b bytes.Buffer
	if err := HTML(&b, e); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTables(t *testing.T) {
	e := sample(t)
	one := &Experiment{Name: "One seed | a <b>", Data: "demo world", Images: 200, Bridges: []Bridge{
		{ID: "direct", Scores: map[string]Score{"CIDEr": {Seeds: []float64{.1234}}, "BLEU-1": {Seeds: []float64{.5}}}},
		{ID: "cyclegan", Scores: map[string]Score{"CIDEr": {Seeds: []float64{.1226}}, "BLEU-1": {Seeds: []float64{.49996}}}},
	}}
	for name, e := range map[string]*Experiment{"full": e, "one": one} {
		for ext, f := range map[string]func(*bytes.Buffer) error{
			"md":   func(b *bytes.Buffer) error { return Markdown(b, e) },
			"json": func(b *bytes.Buffer) error { return JSON(b, e) },
		} {
			var b bytes.Buffer
			if err := f(&b); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", name+"."+ext)
			if *update {
				if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), b.String()); diff != "" {
				t.Errorf("%s:\n%s", path, diff)
			}
		}
	}
}

// TestMarks checks that scores are marked by the corrected p-values of their differences
// from the baseline, and that the legend says over what the means are.
func TestMarks(t *testing.T) {
	e := sample(t)
	for _, c := range []struct{ bridge, metric, want string }{
		{"cyclegan", "CIDEr", "†"}, {"cyclegan", "BLEU-4", ""}, {"mean-shift", "CIDEr", "†"}, {"direct", "CIDEr", ""}, {"capdec", "CIDEr", ""},
	} {
		if got := e.mark(c.bridge, c.metric); got != c.want {
			t.Errorf("%s of %s is marked %q, want %q", c.metric, c.bridge, got, c.want)
		}
	}
	if p := e.fromBaseline("cyclegan", "BLEU-4").Holm; math.Abs(p-.09) > 1e-12 {
		t.Errorf("the corrected p-value of 0.03, the third of five, is %v", p)
	}
	for _, c := range []struct {
		seeds, worlds int
		want          string
	}{
		{1, 0, "Brackets: the 95% bootstrap interval over images."},
		{3, 0, "Each score is the mean over 3 seeds. Brackets: the 95% bootstrap interval over seeds and images. ±: the standard deviation over seeds."},
		{6, 2, "Each score is the mean over 2 worlds with 3 seeds each. Brackets: the 95% bootstrap interval over worlds, seeds and images. ±: the standard deviation over runs."},
		{2, 2, "Each score is the mean over 2 worlds. Brackets: the 95% bootstrap interval over worlds and images. ±: the standard deviation over worlds."},
	} {
		e := &Experiment{Bridges: []Bridge{{ID: "a", Scores: map[string]Score{"CIDEr": {Seeds: make([]float64, c.seeds), Interval: &eval.Interval{}, Worlds: make([]float64, c.worlds)}}}}}
		if got := e.table().legend(); got != c.want {
			t.Errorf("%d runs in %d worlds: %q", c.seeds, c.worlds, got)
		}
	}
}

func TestScore(t *testing.T) {
	s := Score{Seeds: []float64{1, 2, 6}}
	if s.Value() != 3 || math.Abs(s.Std()-math.Sqrt(7)) > 1e-12 {
		t.Errorf("mean %v, std %v", s.Value(), s.Std())
	}
	if !math.IsNaN(Score{Seeds: []float64{1}}.Std()) || !math.IsNaN(Score{}.Value()) {
		t.Error("the deviation of one value and the mean of none must be NaN")
	}
}

var (
	loads = regexp.MustCompile(`(?i)(?:src|href|srcset|action|data|poster|xlink:href)\s*=\s*["']?([^"'\s>]+)|url\(([^)]*)\)|@import`)
	ids   = regexp.MustCompile(`\sid="([^"]*)"`)
	label = regexp.MustCompile(`aria-labelledby="([^"]*)"`)
)

func TestPageStandsAlone(t *testing.T) {
	p := html(t, sample(t))
	if *keep != "" {
		if err := Write(*keep, sample(t)); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range loads.FindAllStringSubmatch(p, -1) {
		if !strings.HasPrefix(m[1], "#") && !strings.HasPrefix(m[1], "data:image/jpeg;base64,") {
			t.Errorf("the page loads %.80q", m[0])
		}
	}
	for _, s := range []string{"<script", "http:", "https:", "//fonts", "ZgotmplZ", "xlink", "#A000", "NaN", "Inf"} {
		// The photos' base64 may hold any short word.
		if i := strings.Index(regexp.MustCompile(`base64,[^"]*`).ReplaceAllString(p, ""), s); i >= 0 {
			t.Errorf("the page has %q", s)
		}
	}
	if len(p) > 2<<20 {
		t.Errorf("the page has %d bytes", len(p))
	}
	svgs := regexp.MustCompile(`(?s)<svg viewBox.*?</svg>`).FindAllString(p, -1)
	if len(svgs) != 2+7+4+4 { // the gap, scores, curves and geometry
		t.Errorf("%d drawings", len(svgs))
	}
	for i, s := range svgs {
		// Every colour must be one of the page's, which suit light and dark mode.
		if c := regexp.MustCompile(`#[0-9A-Fa-f]{3,8}\b`).FindString(s); c != "" {
			t.Errorf("drawing %d has the colour %s", i, c)
		}
		if len(s) > 100_000 {
			t.Errorf("drawing %d has %d bytes", i, len(s))
		}
		if strings.Count(s, "<g") != strings.Count(s, "</g>") {
			t.Errorf("drawing %d has unclosed groups", i)
		}
	}
	seen := map[string]bool{}
	for _, m := range ids.FindAllStringSubmatch(p, -1) {
		if seen[m[1]] {
			t.Errorf("duplicate id %q", m[1])
		}
		seen[m[1]] = true
	}
	for _, m := range append(label.FindAllStringSubmatch(p, -1), regexp.MustCompile(`href="#([^"]*)"`).FindAllStringSubmatch(p, -1)...) {
		if !seen[m[1]] {
			t.Errorf("nothing has the id %q", m[1])
		}
	}
	if strings.Count(p, "<img ") != 9 || strings.Count(p, ` alt="Photo `) != 9 {
		t.Error("a photo or its alternative text is missing")
	}
}

func TestEscaping(t *testing.T) {
	const evil = `"><script>alert(1)</script><img src=http://x.example/ onerror='x'>`
	e := sample(t)
	e.Examples = e.Examples[:1]
	e.Name, e.Data, e.Config, e.ExamplesNote, e.Notes = evil, evil, evil, evil, []string{evil}
	e.Examples[0].Truths, e.Examples[0].Captions[0].Text = []string{evil}, evil
	e.Bridges[0].Label, e.Bridges[0].Scores["METEOR"] = evil, Score{Missing: evil}
	e.Charts[0].Title, e.Charts[0].Series[0].Name, e.Charts[0].Y = evil, evil, evil
	e.Geometry.Sides[1].Name = evil
	e.Versions, e.Counts, e.Stages = []Fact{{evil, evil}}, []Fact{{evil, evil}}, []Stage{{Name: evil}}
	p := html(t, e)
	for _, s := range []string{"<script", "<img src=http", `alert(1)</`} {
		if strings.Contains(p, s) {
			t.Errorf("the page has %q", s)
		}
	}
	var md bytes.Buffer
	if err := Markdown(&md, e); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(md.String(), "<script") {
		t.Error("the Markdown has a script")
	}
}

// TestMissingParts checks that missing parts cause neither empty sections nor errors.
func TestMissingParts(t *testing.T) {
	full := sample(t)
	for name, c := range map[string]struct {
		e        *Experiment
		has, not []string
	}{
		"nothing": {&Experiment{Name: "Empty"}, []string{"<h1>Empty</h1>"}, []string{"<table", "<svg", "<section", "<pre"}},
		"bridge without scores": {&Experiment{Bridges: []Bridge{{ID: "direct"}}},
			[]string{"METEOR: not computed", `<span class="soft" title="not computed">–</span>`}, []string{"NaN", "±", "Bold"}},
		"no METEOR": {&Experiment{Bridges: []Bridge{{ID: "direct", Scores: map[string]Score{"METEOR": {Missing: "no data"}, "CIDEr": {Seeds: []float64{.5}}}}}},
			[]string{"METEOR: no data", "0.500"}, []string{"NaN", "METEOR: no data (", "±"}},
		"not COCO":          {&Experiment{Bridges: []Bridge{{ID: "direct", Paper: "direct"}}}, nil, []string{"the paper: ", "CapDec"}},
		"COCO":              {&Experiment{Val2014: true, Bridges: []Bridge{{ID: "direct", Paper: "direct"}}}, []string{"the paper: direct", "0.281", "CapDec"}, nil},
		"photo not a photo": {&Experiment{Examples: []Example{{ID: "7", Photo: []byte("no")}}}, []string{"photo 7 cannot be shown"}, []string{"<img"}},
		"empty caption":     {&Experiment{Examples: []Example{{ID: "7", Captions: []Caption{{Bridge: "x"}}}}}, []string{"(empty)"}, nil},
		"no values":         {&Experiment{Charts: []Chart{{Title: "T"}, {Title: "U", Series: []Series{{Name: "s", Points: []Point{{1, math.NaN()}}}}}}}, nil, []string{"<svg", "Training"}},
		"one point":         {&Experiment{Charts: []Chart{{Title: "T", Series: []Series{{"s", []Point{{5, 2}}}}}}}, []string{"<svg"}, []string{"NaN", "Inf"}},
		"a flat line":       {&Experiment{Charts: []Chart{{Title: "T", Series: []Series{{"s", []Point{{5, 2}, {6, 2}}}}}}}, []string{"<svg"}, []string{"NaN", "Inf"}},
		"no bridged":        {&Experiment{Geometry: &geometry.Geometry{Texts: full.Geometry.Texts, Sides: full.Geometry.Sides[:1]}}, []string{"recall@5", "<svg"}, []string{"NaN"}},
	} {
		p := html(t, c.e)
		for _, s := range c.has {
			if !strings.Contains(p, s) {
				t.Errorf("%s: the page lacks %q", name, s)
			}
		}
		for _, s := range c.not {
			if _, body, _ := strings.Cut(p, "<body>"); strings.Contains(body, s) {
				t.Errorf("%s: the page has %q", name, s)
			}
		}
	}
}

func TestErrors(t *testing.T) {
	inf := math.Inf(1)
	score := func(m string, s Score) *Experiment {
		return &Experiment{Bridges: []Bridge{{ID: "a", Scores: map[string]Score{m: s}}}}
	}
	for _, c := range []struct {
		e    *Experiment
		want string
	}{
		{score("SPICE", Score{}), "no such metric; valid metrics: BLEU-1"},
		{score("CIDEr", Score{Seeds: []float64{inf}}), `bridge "a", CIDEr: scores must be finite, got [+Inf]`},
		{score("CIDEr", Score{Seeds: []float64{1}, Interval: &eval.Interval{Low: 2, High: 1}}), "invalid interval [2, 1]"},
		{score("CIDEr", Score{Seeds: []float64{1}, Missing: "x"}), "has both scores and a reason"},
		{&Experiment{Bridges: []Bridge{{ID: "a"}, {ID: "a"}}}, `bridge 1: the ID "a" is empty or a duplicate`},
		{&Experiment{Bridges: []Bridge{{ID: "a", Paper: "x"}}}, `no column "x"`},
		{&Experiment{Differences: []Difference{{Bridge: "a", Baseline: "b"}}}, "one of these is not a bridge"},
		{&Experiment{Charts: []Chart{{Series: make([]Series, 9)}}}, "9 series, but there are only 8 colours"},
		{&Experiment{Stages: []Stage{{"x", -1, false}}}, `stage "x": invalid duration of -1 seconds`},
		{&Experiment{Geometry: &geometry.Geometry{}}, "no sides"},
	} {
		dir := t.TempDir()
		err := Write(dir, c.e)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
		if files, _ := os.ReadDir(dir); len(files) > 0 {
			t.Errorf("%s: Write has written files", c.want)
		}
	}
}

func TestWrite(t *testing.T) {
	dir, e := t.TempDir(), sample(t)
	e.Examples = e.Examples[:1] // for speed
	for range 2 {               // the second replaces the first
		if err := Write(dir, e); err != nil {
			t.Fatal(err)
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 3 {
		t.Errorf("%v %v", files, err)
	}
	if err := Write(filepath.Join(dir, "none"), e); err == nil || !strings.Contains(err.Error(), "none/table.json") {
		t.Errorf("%v", err)
	}
}

func TestExperimentThroughJSON(t *testing.T) {
	e := sample(t)
	e.Examples = e.Examples[:1]
	data, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var back Experiment
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if html(t, &back) != html(t, e) {
		t.Error("the page differs")
	}
}

func TestTicks(t *testing.T) {
	for _, c := range []struct {
		low, high float64
		want      string
	}{
		{0, 1, "0 0.2 0.4 0.6 0.8 1.0"},
		{0, 26000, "0 5k 10k 15k 20k 25k"},
		{-0.13, 0.31, "-0.1 0 0.1 0.2 0.3"},
		{2.41, 2.43, "2.410 2.415 2.420 2.425 2.430"},
		{0, 3e6, "0 1M 2M 3M"},
		{0, 2.4e6, "0 0.5M 1.0M 1.5M 2.0M"},
	} {
		var got []string
		for _, k := range (ticks{}).Ticks(c.low, c.high) {
			got = append(got, k.Label)
		}
		if diff := cmp.Diff(c.want, strings.Join(got, " ")); diff != "" {
			t.Errorf("%v to %v: %s", c.low, c.high, diff)
		}
	}
}

func TestExtremesKeepSpikes(t *testing.T) {
	c := Chart{Title: "T", Series: []Series{{Name: "s"}}}
	for i := range 10000 {
		c.Series[0].Points = append(c.Series[0].Points, Point{float64(i), 0})
	}
	c.Series[0].Points[4321].Value = 9
	xy := extremes(finitePoints(c.Series[0].Points), 500)
	found := false
	for _, p := range xy {
		found = found || p.Y == 9 && p.X == 4321
	}
	if !found || len(xy) != 500 {
		t.Errorf("%d points, spike %v", len(xy), found)
	}
}

func TestDuration(t *testing.T) {
	for s, want := range map[float64]string{0: "0.0 s", 59.94: "59.9 s", 61: "1 min 01 s", 3600: "1 h 00 min", 40321: "11 h 12 min"} {
		if got := duration(s); got != want {
			t.Error(fmt.Sprint(s), got, want)
		}
	}
}
