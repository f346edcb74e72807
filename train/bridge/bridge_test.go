package bridge

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"cyclecap/nets/cyclegan"
	"cyclecap/torch"
	"cyclecap/train"
)

func random(n, width int, seed uint64) train.Matrix {
	rng := rand.New(rand.NewPCG(seed, 0))
	m := train.Matrix{Data: make([]float32, n*width), Cols: width}
	for i := range m.Data {
		m.Data[i] = float32(rng.NormFloat64()) + float32(seed)
	}
	return m
}

// row gives row i in f64.
func row(m train.Matrix, i int) []float64 {
	out := make([]float64, m.Cols)
	for k := range out {
		out[k] = float64(m.Data[i*m.Cols+k])
	}
	return out
}

func dot(a, b []float64) (s float64) {
	for i := range a {
		s += a[i] * b[i]
	}
	return s
}

// scaled gives a vector another length.
func scaled(a []float64, length float64) []float64 {
	out := make([]float64, len(a))
	n := math.Sqrt(dot(a, a))
	for i := range a {
		out[i] = a[i] / n * length
	}
	return out
}

func meanRow(m train.Matrix) []float64 {
	out := make([]float64, m.Cols)
	for i := range m.Len() {
		for k, v := range row(m, i) {
			out[k] += v / float64(m.Len())
		}
	}
	return out
}

// Every bridge against its formula, written out in f64.
func TestTransforms(t *testing.T) {
	const width, length = 8, 3.5
	images, texts := random(20, width, 1), random(30, width, 2)
	query := random(5, width, 3)
	e := Env{Images: images, Texts: texts, Length: length, Settings: map[string]float64{"decap_temperature": 0.1}}
	want := map[string]func(x []float64) []float64{
		"direct":  func(x []float64) []float64 { return x },
		"clipcap": func(x []float64) []float64 { return x },
		"capdec":  func(x []float64) []float64 { return scaled(x, 1) },
		"meanshift": func(x []float64) []float64 {
			a, b := meanRow(images), meanRow(texts)
			y := make([]float64, width)
			for k := range y {
				y[k] = x[k] - a[k] + b[k]
			}
			return scaled(y, length)
		},
		"decap": func(x []float64) []float64 {
			x = scaled(x, 1)
			var weights []float64
			var sum float64
			for i := range texts.Len() {
				w := math.Exp(dot(x, scaled(row(texts, i), 1)) / 0.1)
				weights, sum = append(weights, w), sum+w
			}
			y := make([]float64, width)
			for i, w := range weights {
				for k, v := range scaled(row(texts, i), 1) {
					y[k] += w / sum * v
				}
			}
			return scaled(y, length)
		},
	}
	err := torch.Scope(func() error {
		torch.ManualSeed(0)
		e.Generator = cyclegan.NewGenerator(width)
		x := torch.FromSlice(query.Data, 5, width)
		for _, b := range all {
			transform, err := b.Fit(e)
			if err != nil {
				return err
			}
			have := torch.ToSlice[float32](transform(x))
			if b.Name == "whitening" {
				continue // whitening_test.go
			}
			formula := want[b.Name]
			if b.CycleGAN {
				for i, v := range torch.ToSlice[float32](e.Generator.Forward(x)) {
					if have[i] != v {
						t.Errorf("%s: value %d is %g instead of %g", b.Name, i, have[i], v)
					}
				}
				continue
			}
			if formula == nil {
				t.Errorf("%s has no formula here", b.Name)
				continue
			}
			for i := range 5 {
				for k, v := range formula(row(query, i)) {
					if h := float64(have[i*width+k]); math.Abs(h-v) > 1e-5*length {
						t.Errorf("%s: feature %d of photo %d is %g instead of %g", b.Name, k, i, h, v)
					}
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A memory is a seeded choice of the texts.
func TestMemory(t *testing.T) {
	texts := random(30, 4, 1)
	err := torch.Scope(func() error {
		a, err := sample(texts, 10, 7)
		if err != nil {
			return err
		}
		b, err := sample(texts, 10, 7)
		if err != nil {
			return err
		}
		c, err := sample(texts, 10, 8)
		if err != nil {
			return err
		}
		if a.Size(0) != 10 || !a.Equal(b) || a.Equal(c) {
			t.Error("the choice does not follow the seed")
		}
		whole, err := sample(texts, 0, 7)
		if err == nil && whole.Size(0) != 30 {
			t.Errorf("%d texts instead of all", whole.Size(0))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestGet(t *testing.T) {
	list, err := Get([]string{"cyclegan", "direct"})
	if err != nil || len(list) != 2 || list[0].Name != "cyclegan" || list[1].Title != "direct" {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := Get([]string{"capdeck"}); err == nil || !strings.Contains(err.Error(), "capdec, clipcap, cyclegan, decap, direct, meanshift, whitening") {
		t.Error(err)
	}
}

// TestMeta: with the decoder on another device than the features', every bridge
// works there.
func TestMeta(t *testing.T) {
	e := Env{Images: random(20, 8, 1), Texts: random(30, 8, 2), Length: 1, Settings: map[string]float64{"decap_temperature": 0.1}, Device: torch.Meta}
	for _, b := range all {
		err := torch.Scope(func() error {
			torch.OnDevice(torch.Meta, func() { e.Generator = cyclegan.NewGenerator(8) })
			transform, err := b.Fit(e)
			if err != nil {
				return err
			}
			if y := transform(torch.Empty([]int64{5, 8}, torch.WithDevice(torch.Meta))); y.Device() != torch.Meta || y.Size(0) != 5 {
				t.Errorf("%s gives %v", b.Name, y)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", b.Name, err)
		}
	}
}
