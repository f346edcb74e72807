package geometry

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

var near = cmpopts.EquateApprox(0, 1e-6)

func random(r *rand.Rand, n, d int) [][]float32 {
	rows := make([][]float32, n)
	for i := range rows {
		rows[i] = make([]float32, d)
		for j := range rows[i] {
			rows[i][j] = float32(r.NormFloat64())
		}
	}
	return rows
}

func TestGap(t *testing.T) {
	for _, c := range []struct {
		name string
		a, b [][]float32
		want float64
	}{
		{"same", [][]float32{{1, 2}}, [][]float32{{1, 2}}, 0},
		{"scale does not count", [][]float32{{1, 2}}, [][]float32{{10, 20}}, 0},
		{"opposite", [][]float32{{3, 0}}, [][]float32{{-1, 0}}, 2},
		{"right angle", [][]float32{{3, 0}}, [][]float32{{0, 1}}, math.Sqrt2},
		{"means", [][]float32{{1, 0}, {0, 1}}, [][]float32{{-1, 0}, {0, 1}}, 1},
		{"zeros", [][]float32{{0, 0}}, [][]float32{{0, 5}}, 1},
	} {
		if got := Gap(c.a, c.b); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	if !math.IsNaN(Gap(nil, nil)) {
		t.Error("no rows have a gap")
	}
}

// Recall agrees with a stable sort of every query's cosines in double precision.
func TestRecallBruteForce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		n, d := rapid.IntRange(1, 300).Draw(t, "n"), rapid.IntRange(2, 40).Draw(t, "d")
		q, targets := random(r, n, d), random(r, n+rapid.IntRange(0, 9).Draw(t, "more"), d)
		// Some targets are copies of others, which causes ties.
		for range n / 3 {
			copy(targets[r.IntN(n)], targets[r.IntN(n)])
		}
		want := make([]float64, 3)
		for i := range q {
			cos := make([]float64, len(targets))
			order := make([]int, len(targets))
			for j := range targets {
				order[j] = j
				for k := range q[i] {
					cos[j] += float64(q[i][k]) * float64(targets[j][k])
				}
				cos[j] /= norm(targets[j])
			}
			sort.SliceStable(order, func(a, b int) bool { return cos[order[a]] > cos[order[b]] })
			for k, rank := range Ranks {
				for _, j := range order[:min(rank, len(order))] {
					if j == i {
						want[k] += 1 / float64(n)
					}
				}
			}
		}
		if diff := cmp.Diff(want, Recall(q, targets, Ranks), near); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestRecallOfCollapsedFeatures(t *testing.T) {
	rows := make([][]float32, 500)
	for i := range rows {
		rows[i] = []float32{1, 2, 3}
	}
	want := []float64{1. / 500, 5. / 500, 10. / 500}
	if diff := cmp.Diff(want, Recall(rows, rows, Ranks), near); diff != "" {
		t.Error(diff)
	}
}

func TestPCA2(t *testing.T) {
	// Points on an ellipse, rotated in three dimensions and shifted.
	var rows [][]float32
	u, v := [3]float64{0.6, 0.8, 0}, [3]float64{0, 0, 1}
	var want [][2]float64
	for i := range 100 {
		s, c := math.Sincos(2 * math.Pi * float64(i) / 100)
		a, b := 3*c, s
		want = append(want, [2]float64{a, b})
		rows = append(rows, []float32{float32(5 + a*u[0] + b*v[0]), float32(a*u[1] + b*v[1]), float32(-2 + a*u[2] + b*v[2])})
	}
	p, err := PCA2(rows)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([2]float64{0.9, 0.1}, p.Explained, near); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want, p.Project(rows), cmpopts.EquateApprox(0, 1e-5)); diff != "" {
		t.Error(diff)
	}
}

func TestPCA2OfLittle(t *testing.T) {
	for name, rows := range map[string][][]float32{
		"one row":    {{1, 2, 3}},
		"one column": {{1}, {2}, {3}},
		"equal rows": {{1, 2}, {1, 2}},
	} {
		p, err := PCA2(rows)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, at := range p.Project(rows) {
			if math.IsNaN(at[0]) || at[1] != 0 {
				t.Errorf("%s: %v", name, at)
			}
		}
	}
	if _, err := PCA2(nil); err == nil {
		t.Error("no rows have a plane")
	}
}

func TestMeasure(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	texts := random(r, 300, 24)
	images := random(r, 300, 24)
	for i := range images {
		for j := range images[i] {
			images[i][j] = texts[i][j] + images[i][j]/4
		}
		images[i][0] += 12 // the gap
	}
	g, err := Measure(images, texts, []Set{{"perfect", texts}}, 100)
	if err != nil {
		t.Fatal(err)
	}
	if len(g.Sides) != 2 || len(g.Texts) != 100 || len(g.Sides[0].Points) != 100 || g.Pairs != 300 || g.Width != 24 {
		t.Fatalf("%+v", g)
	}
	image, perfect := g.Sides[0], g.Sides[1]
	if image.Gap < 0.5 || perfect.Gap != 0 {
		t.Errorf("gaps %v and %v", image.Gap, perfect.Gap)
	}
	if diff := cmp.Diff([]float64{1, 1, 1}, perfect.Recall); diff != "" {
		t.Error(diff)
	}
	if math.Abs(perfect.Paired.Mean-1) > 1e-6 || math.Abs(perfect.Unpaired.Mean) > 0.1 {
		t.Errorf("cosines %v and %v", perfect.Paired.Mean, perfect.Unpaired.Mean)
	}
	for _, s := range g.Sides {
		for _, h := range []Histogram{s.Paired, s.Unpaired} {
			n := 0
			for _, c := range h.Counts {
				n += c
			}
			if n != 300 {
				t.Errorf("%s: the bins hold %d", s.Name, n)
			}
		}
	}
	// Across the gap, the means are 0 and the gap apart, and not apart in the other direction.
	all, err := Measure(images, texts, nil, 300)
	if err != nil {
		t.Fatal(err)
	}
	var apart, beside float64
	for i, p := range all.TextsAcross {
		apart += (p[0] - all.Sides[0].Across[i][0]) / 300
		beside += (p[1] - all.Sides[0].Across[i][1]) / 300
	}
	if math.Abs(apart-image.Gap) > 1e-5 || math.Abs(beside) > 1e-5 {
		t.Errorf("the means are %v and %v apart, the gap is %v", apart, beside, image.Gap)
	}
	var back Geometry
	if data, err := json.Marshal(g); err != nil {
		t.Error(err)
	} else if err := json.Unmarshal(data, &back); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(g, &back); diff != "" {
		t.Error(diff)
	}
}

func TestMeasureErrors(t *testing.T) {
	ok := [][]float32{{1, 2}, {3, 4}}
	nan := float32(math.NaN())
	for _, c := range []struct {
		images, texts, bridged [][]float32
		want                   string
	}{
		{nil, ok, ok, "image features are empty"},
		{ok, ok[:1], ok, "the text features have shape [1, 2], but the image features have shape [2, 2]"},
		{ok, ok, [][]float32{{1, 2, 3}, {1, 2, 3}}, "the b features have shape [2, 3]"},
		{ok, [][]float32{{1, 2}, {3}}, ok, "row 1 of the text features has width 1, but row 0 has width 2"},
		{ok, ok, [][]float32{{1, 2}, {3, nan}}, "row 1, column 1 of the b features is NaN"},
		{ok[:1], ok[:1], ok[:1], "at least two pairs are needed"},
	} {
		_, err := Measure(c.images, c.texts, []Set{{"b", c.bridged}}, 10)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

func BenchmarkRecall(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	q, t := random(r, 5000, 512), random(r, 5000, 512)
	for b.Loop() {
		Recall(q, t, Ranks)
	}
}

func BenchmarkPCA2(b *testing.B) {
	rows := random(rand.New(rand.NewPCG(1, 2)), 5000, 512)
	for b.Loop() {
		if _, err := PCA2(rows); err != nil {
			b.Fatal(err)
		}
	}
}
