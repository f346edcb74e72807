package eval

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"strings"
	"sync"
	"testing"

	"cyclecap/data/coco"

	"github.com/google/go-cmp/cmp"
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
	list, err := CompareAll(t.Context(), []Runs{{{meanOf(p.A)}}, {{meanOf(p.B)}}}, [][2]int{{0, 1}, {1, 0}}, Bootstrap{Seed: 1})
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
		i, err := runsOf(worlds).Intervals(t.Context(), Bootstrap{Seed: 1})
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
	if _, err := CompareAll(t.Context(), []Runs{a, b}, [][2]int{{0, 1}}, Bootstrap{Seed: 1}); err == nil {
		t.Error("one seed is compared with two")
	}
}

// processes are a Group of goroutines.
type processes struct {
	rank, size int
	table      *table
}

// A table is where they meet.
type table struct {
	mu   sync.Mutex
	data [][]byte
	wait *sync.WaitGroup
}

func (p processes) Rank() int { return p.rank }
func (p processes) Size() int { return p.size }
func (p processes) AllGatherBytes(data []byte) ([][]byte, error) {
	p.table.mu.Lock()
	p.table.data[p.rank] = data
	p.table.mu.Unlock()
	p.table.wait.Done()
	p.table.wait.Wait()
	return p.table.data, nil
}

// together calls f for each process of a group, and returns the errors.
func together(size int, f func(g processes) error) []error {
	at := &table{data: make([][]byte, size), wait: new(sync.WaitGroup)}
	at.wait.Add(size)
	errs := make([]error, size)
	var all sync.WaitGroup
	for rank := range size {
		all.Go(func() { errs[rank] = f(processes{rank, size, at}) })
	}
	all.Wait()
	return errs
}

// TestProcesses: several processes compute the samples of one, each of them only its share, and an
// interruption of one ends all.
func TestProcesses(t *testing.T) {
	p := readReference(t).Paired
	methods := []Runs{{{meanOf(p.A)}}, {{meanOf(p.B)}}}
	want, err := sample(t.Context(), methods, 1000, Bootstrap{Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	for size := 1; size <= 4; size++ {
		for rank, err := range together(size, func(g processes) error {
			got, err := sample(t.Context(), methods, 1000, Bootstrap{Seed: 3, Group: g})
			if diff := cmp.Diff(want, got); err == nil && diff != "" {
				err = errors.New(diff)
			}
			return err
		}) {
			if err != nil {
				t.Errorf("rank %d of %d: %v", rank, size, err)
			}
		}
	}
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	for rank, err := range together(3, func(g processes) error {
		ctx := t.Context()
		if g.rank == 1 {
			ctx = stopped
		}
		_, err := sample(ctx, methods, 1000, Bootstrap{Group: g})
		return err
	}) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("rank %d continued after the interruption of rank 1: %v", rank, err)
		}
	}
	for rank, err := range together(2, func(g processes) error {
		_, err := sample(t.Context(), methods[:1+g.rank], 1000, Bootstrap{Group: g})
		return err
	}) {
		if err == nil || !strings.Contains(err.Error(), "score different captions or metrics") {
			t.Errorf("rank %d: %v", rank, err)
		}
	}
}
