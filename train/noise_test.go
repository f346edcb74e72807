package train

import (
	"encoding/json"
	"os"
	"testing"

	"cyclecap/nets/clipcap"
	"cyclecap/nets/gpt2"
	"cyclecap/torch"
	"cyclecap/torch/compare"
)

// TestNoise compares what CapDec and C3 do to features with PyTorch
// (testdata/reference/noise.py).
func TestNoise(t *testing.T) {
	text, err := os.ReadFile("testdata/noise.json")
	if err != nil {
		t.Fatal(err)
	}
	var want struct {
		Width          int64
		Variance       float64
		X, Noise, Mean []float32
		CapDec, C3     []float64
		CapDecVal      []float64 `json:"capdec_validation"`
		C3Val          []float64 `json:"c3_validation"`
	}
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	err = torch.Scope(func() error {
		x := torch.FromSlice(want.X, int64(len(want.X))/want.Width, want.Width)
		noise, mean := torch.FromSlice(want.Noise, x.Shape()...), torch.FromSlice(want.Mean, x.Size(1))
		capdec, c3 := Noise{Variance: want.Variance}, Noise{Variance: want.Variance, Mean: want.Mean}
		for _, c := range []struct {
			name string
			have torch.Tensor
			want []float64
		}{
			{"CapDec", capdec.apply(x, noise, torch.Tensor{}), want.CapDec},
			{"CapDec, validation", capdec.apply(x, torch.Tensor{}, torch.Tensor{}), want.CapDecVal},
			{"C3", c3.apply(x, noise, mean), want.C3},
			{"C3, validation", c3.apply(x, torch.Tensor{}, mean), want.C3Val},
		} {
			// Another processor may add the squares of a row in another order.
			if d := compare.Numbers(torch.ToSlice[float64](c.have), c.want); !(compare.Tolerance{Max: 1e-7}).Within(d) {
				t.Errorf("%s: %v", c.name, d)
			} else {
				t.Logf("%s: %v", c.name, d)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestMeanOfAnotherWidth checks that the mean must have the width of the features.
func TestMeanOfAnotherWidth(t *testing.T) {
	err := torch.Scope(func() error {
		m := &clipcap.Model{Mapper: clipcap.NewMLPMapper(16, 64, 3),
			GPT2: gpt2.New(gpt2.Config{VocabSize: 50, NPositions: 32, NEmbd: 64, NLayer: 1, NHead: 1, LayerNormEpsilon: 1e-5})}
		data := DecoderData{Captions: captions(8, 50), Features: random(8, 16, 2)}
		_, err := NewDecoderTask(DecoderConfig{Epochs: 1, Batch: 4, Noise: &Noise{Mean: make([]float32, 15)}}, m, data, data)
		return err
	})
	if err == nil || err.Error() != "decoder: the mean has width 15, and the features have width 16" {
		t.Errorf("got %v", err)
	}
}
