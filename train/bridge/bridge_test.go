package bridge

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"cyclecap/nets/clipcap"
	"cyclecap/nets/cyclegan"
	"cyclecap/torch"
	"cyclecap/torch/compare"
	"cyclecap/torch/nn"
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

// row returns row i in f64.
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

// scaled returns a vector scaled to a length.
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

// deviationRow returns the standard deviation of each column.
func deviationRow(m train.Matrix) []float64 {
	out, mean := make([]float64, m.Cols), meanRow(m)
	for i := range m.Len() {
		for k, v := range row(m, i) {
			out[k] += (v - mean[k]) * (v - mean[k]) / float64(m.Len())
		}
	}
	for k := range out {
		out[k] = math.Sqrt(out[k])
	}
	return out
}

// dense is a linear layer in f64.
func dense(l *nn.LinearModule, x []float64) []float64 {
	out := torch.ToSlice[float64](l.Bias)
	weight := torch.ToSlice[float64](l.Weight)
	for i := range out {
		out[i] += dot(weight[i*len(x):(i+1)*len(x)], x)
	}
	return out
}

func tanh(x []float64) []float64 {
	for i := range x {
		x[i] = math.Tanh(x[i])
	}
	return x
}

// unit returns the rows scaled to length 1.
func unit(m train.Matrix) train.Matrix {
	out := train.Matrix{Cols: m.Cols}
	for i := range m.Len() {
		for _, v := range scaled(row(m, i), 1) {
			out.Data = append(out.Data, float32(v))
		}
	}
	return out
}

// TestTransforms compares every bridge with its formula, computed here in f64, both for
// CLIP's features and for features of length 1: the result of the transform, and what a
// mapper computes from it. No bridge may modify its input.
func TestTransforms(t *testing.T) {
	const width = 8
	raw := Env{Images: random(20, width, 1), Texts: random(30, width, 2), Length: 3.5, Settings: map[string]float64{"decap_temperature": 0.1}}
	normal := raw
	normal.Images, normal.Texts = unit(random(20, width, 1)), unit(random(30, width, 2))
	normal.Length, normal.Normalized = 1, true
	for _, c := range []struct {
		name  string
		env   Env
		query train.Matrix
	}{
		{"raw", raw, random(5, width, 3)},
		{"normalized", normal, unit(random(5, width, 3))},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := torch.Scope(func() error {
				torch.ManualSeed(0)
				e := c.env
				e.Generator = cyclegan.NewGenerator(width)
				decoder := clipcap.NewMLPMapper(width, 6, 4)
				want := formulas(t, e)
				for _, b := range all {
					transform, err := b.Fit(e)
					if err != nil {
						return err
					}
					formula := want[b.Name]
					if formula == nil {
						t.Errorf("%s has no formula in this test", b.Name)
						continue
					}
					x := torch.FromSlice(c.query.Data, 5, width)
					y := transform(x)
					if !slices.Equal(torch.ToSlice[float32](x), c.query.Data) {
						t.Errorf("%s modifies its input", b.Name)
					}
					given, prefix := torch.ToSlice[float64](y), torch.ToSlice[float64](decoder.Forward(y))
					for i := range 5 {
						feature := formula(row(c.query, i))
						near(t, b.Name+": feature", i, given, feature, 1e-5*e.Length)
						near(t, b.Name+": prefix", i, prefix, dense(decoder.Model.Second, tanh(dense(decoder.Model.First, feature))), 1e-5*e.Length)
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// near compares row i.
func near(t *testing.T, what string, i int, have, want []float64, bound float64) {
	t.Helper()
	if d := compare.Numbers(have[i*len(want):(i+1)*len(want)], want); !(compare.Tolerance{Max: bound}).Within(d) {
		t.Errorf("%s of photo %d: %v", what, i, d)
	}
}

// formulas returns the transform of each bridge, for the feature of one photo.
func formulas(t *testing.T, e Env) map[string]func(x []float64) []float64 {
	images, texts := e.Images.(train.Matrix), e.Texts.(train.Matrix)
	matrix, m, c, err := gaussianMap(images, texts, whiteningRidge) // which TestGaussianMap checks
	if err != nil {
		t.Fatal(err)
	}
	a, from, center := torch.ToSlice[float64](matrix), torch.ToSlice[float64](m), torch.ToSlice[float64](c)
	asItIs := func(x []float64) []float64 { return x }
	return map[string]func(x []float64) []float64{
		"direct":  asItIs,
		"clipcap": asItIs,
		"capdec":  func(x []float64) []float64 { return scaled(x, 1) },
		"cyclegan": func(x []float64) []float64 {
			y := x
			for i := 0; i < len(e.Generator.Model.Modules); i += 2 {
				if i > 0 {
					y = tanh(y)
				}
				y = dense(e.Generator.Model.Modules[i].(*nn.LinearModule), y)
			}
			if e.Normalized {
				y = scaled(y, 1)
			}
			return y
		},
		"meanshift": func(x []float64) []float64 {
			a, b := meanRow(images), meanRow(texts)
			y := make([]float64, len(x))
			for k := range y {
				y[k] = x[k] - a[k] + b[k]
			}
			return scaled(y, e.Length)
		},
		"meandev": func(x []float64) []float64 {
			a, b, da, db := meanRow(images), meanRow(texts), deviationRow(images), deviationRow(texts)
			y := make([]float64, len(x))
			for k := range y {
				y[k] = (x[k]-a[k])/da[k]*db[k] + b[k]
			}
			return scaled(y, e.Length)
		},
		"c3": func(x []float64) []float64 {
			y := scaled(x, 1)
			for i := range images.Len() {
				for k, v := range scaled(row(images, i), 1) {
					y[k] -= v / float64(images.Len())
				}
			}
			return scaled(y, 1)
		},
		"whitening": func(x []float64) []float64 {
			y := slices.Clone(center)
			for k := range y {
				for j, v := range x {
					y[k] += (v - from[j]) * a[j*len(x)+k]
				}
			}
			return scaled(y, e.Length)
		},
		"decap": func(x []float64) []float64 {
			x = scaled(x, 1)
			var weights []float64
			var sum float64
			for i := range texts.Len() {
				w := math.Exp(dot(x, scaled(row(texts, i), 1)) / e.Settings["decap_temperature"])
				weights, sum = append(weights, w), sum+w
			}
			y := make([]float64, len(x))
			for i, w := range weights {
				for k, v := range scaled(row(texts, i), 1) {
					y[k] += w / sum * v
				}
			}
			return scaled(y, e.Length)
		},
	}
}

// TestDecoders checks that each bridge uses the decoder that was trained on features like
// those that its transform returns.
func TestDecoders(t *testing.T) {
	want := map[string]Decoder{"direct": OfTexts, "cyclegan": OfTexts, "meanshift": OfTexts, "decap": OfTexts, "whitening": OfTexts,
		"meandev": OfTexts, "capdec": {Name: "noisy-texts", Noise: "capdec_variance"}, "clipcap": OfImages,
		"c3": {Name: "centered-noisy-texts", Noise: "c3_variance", Centered: true}}
	for _, b := range all {
		if b.Decoder != want[b.Name] {
			t.Errorf("%s uses the decoder of %s, want that of %s", b.Name, b.Decoder.Name, want[b.Name].Name)
		}
	}
}

// TestParameters checks the number of parameters of every bridge.
func TestParameters(t *testing.T) {
	const width, texts = 8, 30
	want := map[string]int64{"direct": 0, "clipcap": 0, "capdec": 0, "c3": width, "meanshift": width, "meandev": 2 * width,
		"whitening": width*width + width, "decap": 12 * width, "cyclegan": 0}
	err := torch.Scope(func() error {
		g := cyclegan.NewGenerator(width)
		for _, p := range nn.Parameters(g) {
			want["cyclegan"] += p.Numel()
		}
		e := Env{Images: random(20, width, 1), Texts: random(texts, width, 2), Generator: g, Settings: map[string]float64{"decap_memory": 12}}
		for _, b := range all {
			var n int64
			if b.Parameters != nil {
				n = b.Parameters(e)
			}
			if n != want[b.Name] {
				t.Errorf("%s has %d parameters, want %d", b.Name, n, want[b.Name])
			}
		}
		for memory, n := range map[float64]int64{0: texts, 29: 29, 31: texts} {
			e.Settings["decap_memory"] = memory
			if p := all["decap"].Parameters(e); p != n*width {
				t.Errorf("decap with a memory of %g has %d parameters, want %d", memory, p, n*width)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestFlatDimension checks that a dimension in which all image features are equal gets the
// mean of the texts.
func TestFlatDimension(t *testing.T) {
	images, texts := random(20, 8, 1), random(30, 8, 2)
	for i := range images.Len() {
		images.Data[i*8+3] = 1
	}
	err := torch.Scope(func() error {
		transform, err := all["meandev"].Fit(Env{Images: images, Texts: texts, Length: 1})
		if err != nil {
			return err
		}
		y := torch.ToSlice[float64](transform(torch.FromSlice(random(1, 8, 4).Data, 1, 8)))
		for _, v := range y {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				t.Errorf("got %v", y)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestMemory checks that a memory is a sample of the texts that depends on the seed alone.
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
			t.Error("the sample does not follow the seed")
		}
		whole, err := sample(texts, 0, 7)
		if err == nil && whole.Size(0) != 30 {
			t.Errorf("got %d texts, want all 30", whole.Size(0))
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
	if _, err := Get([]string{"capdeck"}); err == nil || !strings.Contains(err.Error(), "c3, capdec, clipcap, cyclegan, decap, direct, meandev, meanshift, whitening") {
		t.Error(err)
	}
}

// TestMeta checks that every bridge works on the decoder's device if the features are on
// another.
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
