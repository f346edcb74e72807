package eval_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cyclecap/data/coco"
	"cyclecap/eval"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// longest computes the length of the longest common subsequence with the table that
// defines it.
func longest(a, b []string) int {
	row := make([]int, len(b)+1)
	for _, x := range a {
		diagonal := 0
		for j, y := range b {
			above := row[j+1]
			if x == y {
				row[j+1] = diagonal + 1
			} else {
				row[j+1] = max(row[j+1], row[j])
			}
			diagonal = above
		}
	}
	return row[len(b)]
}

// ROUGE_L, computed 64 tokens at a time, equals the table's result for texts shorter and
// longer than 64 tokens.
func TestROUGEAgainstTable(t *testing.T) {
	text := func(t *rapid.T, name string) []string {
		n := rapid.IntRange(1, 300).Draw(t, name+" length")
		words := rapid.IntRange(1, 40).Draw(t, name+" words")
		list := make([]string, n)
		for i := range list {
			list[i] = fmt.Sprintf("w%d", rapid.IntRange(1, words).Draw(t, "word"))
		}
		return list
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := text(t, "candidate"), text(t, "reference")
		set := eval.NewSet([]eval.Tokenized{{ImageID: coco.Int(1), Candidate: strings.Join(a, " "), References: []string{strings.Join(b, " ")}}})
		got, err := (eval.ROUGE{}).Score(context.Background(), set)
		if err != nil {
			t.Fatal(err)
		}
		p, r := float64(longest(a, b))/float64(len(a)), float64(longest(a, b))/float64(len(b))
		want := 0.0
		if p > 0 {
			want = (1 + 1.2*1.2) * p * r / (r + 1.2*1.2*p)
		}
		if math.Abs(got.Corpus[0]-want) > 1e-15 {
			t.Fatalf("got %v, want %v", got.Corpus[0], want)
		}
	})
}

// Any captions have scores, which are numbers between 0 and 1, or 10 for CIDEr.
func TestAnyCaptions(t *testing.T) {
	caption := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", " ", ".", "a dog", "A dog.", "a dog on a dog on a dog", "5 7/8 of a dog"}))
	rapid.Check(t, func(t *rapid.T) {
		var items []eval.Item
		for i := range rapid.IntRange(1, 6).Draw(t, "images") {
			items = append(items, eval.Item{ImageID: coco.Int(int64(i)), Candidate: caption.Draw(t, "candidate"),
				References: rapid.SliceOfN(caption, 1, 4).Draw(t, "references")})
		}
		r, err := eval.Evaluate(context.Background(), items, eval.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, image := range r.Images {
			for name, v := range image.Scores {
				if math.IsNaN(v) || v < 0 || v > 10.0000001 || name != "CIDEr" && v > 1.0000001 {
					t.Fatalf("%s is %v", name, v)
				}
			}
		}
	})
}

func TestEvaluateErrors(t *testing.T) {
	one := eval.Item{ImageID: coco.Int(7), Candidate: "a", References: []string{"b"}}
	for name, c := range map[string]struct {
		items []eval.Item
		want  string
	}{
		"none":          {nil, "nothing to score"},
		"twice":         {[]eval.Item{one, one}, "image 7 occurs twice"},
		"no references": {[]eval.Item{{ImageID: coco.Int(7), Candidate: "a"}}, "image 7 has no reference"},
		"candidate":     {[]eval.Item{{ImageID: coco.Int(7), Candidate: "a\xff", References: []string{"b"}}}, `image 7: the caption "a\xff" is not valid UTF-8`},
		"reference":     {[]eval.Item{{ImageID: coco.Int(7), Candidate: "a", References: []string{"b", "\xc0"}}}, "image 7: reference 1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := eval.Evaluate(context.Background(), c.items, eval.Options{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := eval.Evaluate(ctx, []eval.Item{one}, eval.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	if _, err := eval.Evaluate(context.Background(), []eval.Item{one}, eval.Options{Metrics: []eval.Metric{eval.BLEU{}, eval.BLEU{}}}); err == nil {
		t.Error("the same metric twice is no error")
	}
}

func TestIntervals(t *testing.T) {
	ctx := context.Background()
	list := items(t, "testdata/fakecap")
	a, err := eval.Evaluate(ctx, list, eval.Options{})
	if err != nil {
		t.Fatal(err)
	}
	x, err := a.Intervals(ctx, eval.Bootstrap{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	again, err := a.Intervals(ctx, eval.Bootstrap{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(x, again); diff != "" {
		t.Errorf("the same seed gives other intervals:\n%s", diff)
	}
	for name, v := range a.Corpus {
		if i := x[name]; !(i.Low < v && v < i.High) || i.High-i.Low > 0.3 {
			t.Errorf("%s: %v is not inside of %v, or that is too wide", name, v, i)
		}
	}
	// Half of the candidates replaced by a reference are better beyond doubt.
	better := append([]eval.Item(nil), list...)
	for i := range better {
		if i%2 == 0 {
			better[i].Candidate = better[i].References[0]
		}
	}
	b, err := eval.Evaluate(ctx, better, eval.Options{})
	if err != nil {
		t.Fatal(err)
	}
	differences, err := eval.Compare(ctx, b, a, eval.Bootstrap{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range differences {
		if !(0 < d.Low && d.Low < d.Difference && d.Difference < d.High) || d.P > 0.01 || d.Difference != b.Corpus[d.Score]-a.Corpus[d.Score] {
			t.Errorf("%+v", d)
		}
	}
	if _, err := eval.Compare(ctx, a, &eval.Result{}, eval.Bootstrap{Seed: 1}); err == nil {
		t.Error("results of other images are compared")
	}
}

func TestPair(t *testing.T) {
	set := &coco.Dataset{Images: []coco.Image{{ID: coco.Int(1)}, {ID: coco.Int(2)}, {ID: coco.Int(3)}}, Annotations: []coco.Annotation{
		{ID: coco.Int(1), ImageID: coco.Int(2), Caption: "b"}, {ID: coco.Int(2), ImageID: coco.Int(1), Caption: "a"}, {ID: coco.Int(3), ImageID: coco.Int(2), Caption: "c"}}}
	got, err := eval.Pair(set, []coco.Result{{ImageID: coco.Int(2), Caption: "x"}, {ImageID: coco.Int(1), Caption: "y"}}, false)
	if err != nil {
		t.Fatal(err)
	}
	want := []eval.Item{{ImageID: coco.Int(2), Candidate: "x", References: []string{"b", "c"}}, {ImageID: coco.Int(1), Candidate: "y", References: []string{"a"}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := eval.Pair(set, []coco.Result{{ImageID: coco.Int(1), Caption: "y"}}, false); err == nil || !strings.Contains(err.Error(), "the first is image 2") {
		t.Errorf("got %v", err)
	}
	if _, err := eval.Pair(set, []coco.Result{{ImageID: coco.Int(1), Caption: "y"}}, true); err != nil {
		t.Error(err)
	}
}

func TestWriteImages(t *testing.T) {
	dir := t.TempDir()
	r, err := eval.Evaluate(context.Background(), items(t, "testdata/hard"), eval.Options{})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "images.json")
	if err := r.WriteImages(path); err != nil {
		t.Fatal(err)
	}
	type line struct {
		ImageID coco.ID `json:"image_id"`
		Scores  map[string]float64
	}
	lines := read[[]line](t, path)
	if len(lines) != len(r.Images) || lines[0].ImageID != r.Images[0].ImageID || lines[0].Scores["CIDEr"] != r.Images[0].Scores["CIDEr"] {
		t.Errorf("%+v", lines)
	}
	// With a folder in its place, nothing is left behind.
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := r.WriteImages(filepath.Join(dir, "taken")); err == nil {
		t.Error("a folder was overwritten")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func BenchmarkEvaluate(b *testing.B) {
	list := items(b, "testdata/fakecap")
	for _, n := range []int{5000, 40504} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			many := make([]eval.Item, n)
			for i := range many {
				many[i] = list[i%len(list)]
				many[i].ImageID = coco.Int(int64(i))
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := eval.Evaluate(context.Background(), many, eval.Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A metric from outside: the fraction of the candidates' tokens in the set that occur in
// the first reference.
func TestSummed(t *testing.T) {
	type stats struct{ have, all int }
	m := eval.Summed("SHARE", func(candidate string, references []string) (s stats) {
		for _, w := range strings.Fields(candidate) {
			s.all++
			if strings.Contains(" "+references[0]+" ", " "+w+" ") {
				s.have++
			}
		}
		return s
	}, func(total *stats, s stats) { total.have += s.have; total.all += s.all },
		func(s stats) float64 { return float64(s.have) / float64(max(1, s.all)) })
	r, err := eval.Evaluate(context.Background(), []eval.Item{
		{ImageID: coco.Int(1), Candidate: "A dog!", References: []string{"a dog runs"}},
		{ImageID: coco.Int(2), Candidate: "a cat on the mat", References: []string{"the dog"}},
	}, eval.Options{Metrics: []eval.Metric{eval.CIDEr{}, m}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"CIDEr", "SHARE"}, r.Names); diff != "" {
		t.Error(diff)
	}
	if r.Corpus["SHARE"] != 3./7 || r.Images[0].Scores["SHARE"] != 1 || r.Images[1].Scores["SHARE"] != 1./5 {
		t.Errorf("%v, %v", r.Corpus, r.Images)
	}
	if i, err := r.Intervals(context.Background(), eval.Bootstrap{Seed: 1}); err != nil || i["SHARE"] != (eval.Interval{Low: 1. / 5, High: 1}) {
		t.Errorf("%v %v", i, err)
	}
}
