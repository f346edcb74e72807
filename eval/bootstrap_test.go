package eval

import (
	"encoding/json"
	"math"
	"os"
	"testing"

	"cyclecap/data/coco"
)

// reference is what testdata/reference/significance.py has written.
type reference struct {
	Holm []struct {
		P, Corrected []float64
	}
	Nested struct {
		Methods [][][][]float64 // by method, world, seed and image
		Draws   [][]struct {
			World         int
			Seeds, Images []int32
		}
		Values               [][]float64 // by draw and method
		Interval, Difference []float64
		P                    float64
	}
	Paired struct {
		A, B         []float64
		Low, High, P float64
	}
}

func readReference(t *testing.T) (r reference) {
	t.Helper()
	data, err := os.ReadFile("testdata/significance.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// meanOf returns a result whose only score is the mean of the images' values.
func meanOf(values []float64) *Result {
	sum := 0.0
	s := &Scores{}
	r := &Result{Names: []string{"m"}, scores: []*Scores{s}}
	for i, v := range values {
		sum += v
		s.Images = append(s.Images, []float64{v})
		r.Images = append(r.Images, ImageScores{Tokenized: Tokenized{ImageID: coco.Int(int64(i))}})
	}
	s.Corpus = []float64{sum / float64(len(values))}
	r.Corpus = map[string]float64{"m": s.Corpus[0]}
	return r
}

func runsOf(worlds [][][]float64) (r Runs) {
	for _, w := range worlds {
		var seeds []*Result
		for _, s := range w {
			seeds = append(seeds, meanOf(s))
		}
		r = append(r, seeds)
	}
	return r
}

func close(t *testing.T, what string, got, want float64) {
	t.Helper()
	if !(math.Abs(got-want) <= 1e-14*max(1, math.Abs(want))) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// TestHolm compares with statsmodels' multipletests.
func TestHolm(t *testing.T) {
	for _, c := range readReference(t).Holm {
		for i, p := range Holm(c.P) {
			close(t, "corrected p-value", p, c.Corrected[i])
		}
	}
	if len(Holm(nil)) != 0 {
		t.Error("the correction of no p-values is not empty")
	}
}

// TestNested resamples worlds, seeds and images with the draws of a reference in numpy.
func TestNested(t *testing.T) {
	n := readReference(t).Nested
	a, b := runsOf(n.Methods[0]), runsOf(n.Methods[1])
	var x, y []float64
	for i, d := range n.Draws {
		var sample []drawn
		for _, w := range d {
			sample = append(sample, drawn{w.World, w.Seeds, w.Images})
		}
		x, y = append(x, a.resampled(sample)[0]), append(y, b.resampled(sample)[0])
		close(t, "first method", x[i], n.Values[i][0])
		close(t, "second method", y[i], n.Values[i][1])
	}
	d := difference(x, y)
	close(t, "low", d.Low, n.Difference[0])
	close(t, "high", d.High, n.Difference[1])
	close(t, "p", d.P, n.P)
	i := interval(x)
	close(t, "low", i.Low, n.Interval[0])
	close(t, "high", i.High, n.Interval[1])
}

// TestPaired compares with scipy's bootstrap, which has other random numbers: the ends of
// the interval and the p-value are random too, with deviations of about 1 % of the width
// and of 0.0006.
func TestPaired(t *testing.T) {
	p := readReference(t).Paired
	list, err := CompareAll(t.Context(), []Runs{{{meanOf(p.A)}}, {{meanOf(p.B)}}}, [][2]int{{0, 1}, {1, 0}}, 1)
	if err != nil {
		t.Fatal(err)
	}
	d, back := list[0][0], list[1][0]
	bound := 0.02 * (p.High - p.Low)
	if math.Abs(d.Low-p.Low) > bound || math.Abs(d.High-p.High) > bound || math.Abs(d.P-p.P) > 0.003 {
		t.Errorf("got %+v, want %v to %v, p = %v", d, p.Low, p.High, p.P)
	}
	if back.P != d.P || back.Difference != -d.Difference {
		t.Errorf("the difference is %+v, and %+v the other way round", d, back)
	}
}

// TestLevels checks that each level which exists more than once widens the interval by its
// own spread.
func TestLevels(t *testing.T) {
	images := func(shift float64) (v []float64) {
		for i := range 50 {
			v = append(v, shift+float64(i%2)/100)
		}
		return v
	}
	width := func(worlds ...[][]float64) float64 {
		t.Helper()
		i, err := runsOf(worlds).Intervals(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		return i["m"].High - i["m"].Low
	}
	one := width([][]float64{images(0)})
	same := width([][]float64{images(0), images(0), images(0)})
	seeds := width([][]float64{images(0), images(0.1), images(0.2)})
	worlds := width([][]float64{images(0)}, [][]float64{images(1)})
	if math.Abs(one-same) > 0.0005 {
		t.Errorf("three equal seeds have a width of %v, one has %v", same, one)
	}
	if seeds < 0.1 || seeds > 0.21 {
		t.Errorf("seeds of 0, 0.1 and 0.2 have a width of %v", seeds)
	}
	if worlds < 0.99 || worlds > 1.01 {
		t.Errorf("two worlds that differ by 1 have a width of %v", worlds)
	}
	a, b := runsOf([][][]float64{{images(0)}}), runsOf([][][]float64{{images(0), images(0)}})
	if _, err := CompareAll(t.Context(), []Runs{a, b}, [][2]int{{0, 1}}, 1); err == nil {
		t.Error("one seed is compared with two")
	}
}
