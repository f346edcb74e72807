package bridge

import (
	"encoding/json"
	"math"
	"os"
	"testing"

	"cyclecap/torch"
	"cyclecap/torch/compare"
	"cyclecap/torch/torchtest"
	"cyclecap/train"
)

// TestGaussianMap compares the transport with that of POT (Python Optimal Transport).
func TestGaussianMap(t *testing.T) {
	text, err := os.ReadFile("testdata/whitening.json")
	if err != nil {
		t.Fatal(err)
	}
	var want struct {
		Width                 int
		Source, Target, Query []float32
		A, Mapped             []float64
	}
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	w := want.Width
	err = torch.Scope(func() error {
		a, from, to, err := gaussianMap(train.Matrix{Data: want.Source, Cols: w}, train.Matrix{Data: want.Target, Cols: w}, 0)
		if err != nil {
			return err
		}
		x := torch.FromSlice(want.Query, int64(len(want.Query)/w), int64(w)).To(torch.WithDType(torch.Float64))
		mapped := x.Sub(from).MM(a).Add(to)
		for name, pair := range map[string][2][]float64{"A": {want.A, torch.ToSlice[float64](a)}, "mapped": {want.Mapped, torch.ToSlice[float64](mapped)}} {
			// The covariance's condition number is 25,000, and mapped values are as
			// large as 115: two f64 implementations differ by 1.4e-9.
			if d := compare.Numbers(pair[1], pair[0]); !(compare.Tolerance{Max: 1e-8}).Within(d) {
				t.Errorf("%s, compared with POT: %v", name, d)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestWhiteningMovesMoments checks that mapped image features have the mean and covariance
// of the text features.
func TestWhiteningMovesMoments(t *testing.T) {
	images, texts := random(300, 6, 1), random(400, 6, 2)
	for i := range images.Len() { // different variances
		for k := range 6 {
			images.Data[i*6+k] *= float32(k + 1)
		}
	}
	err := torch.Scope(func() error {
		a, from, to, err := gaussianMap(images, texts, 0)
		if err != nil {
			return err
		}
		f64 := torch.WithDType(torch.Float64)
		moved := torch.FromSlice(images.Data, 300, 6).To(f64).Sub(from).MM(a).Add(to).To(torch.WithDType(torch.Float32))
		m, c, err := covariance(train.Matrix{Data: torch.ToSlice[float32](moved), Cols: 6}, 0)
		if err != nil {
			return err
		}
		wantM, wantC, err := covariance(texts, 0)
		if err != nil {
			return err
		}
		torchtest.Close(t, m, wantM, compare.Tolerance{Max: 1e-5}, "mean")
		torchtest.Close(t, c, wantC, compare.Tolerance{Max: 1e-5}, "covariance")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestWhiteningOfFlatFeatures checks that the result is finite if features vary in only
// some of their dimensions, or if there are fewer features than dimensions.
func TestWhiteningOfFlatFeatures(t *testing.T) {
	images, texts := random(5, 8, 1), random(6, 8, 2)
	for i := range images.Len() {
		images.Data[i*8+3] = 1
	}
	err := torch.Scope(func() error {
		b := all["whitening"]
		transform, err := b.Fit(Env{Images: images, Texts: texts, Length: 1})
		if err != nil {
			return err
		}
		for _, v := range torch.ToSlice[float64](transform(torch.FromSlice(images.Data, 5, 8))) {
			if math.IsNaN(v) || math.Abs(v) > 1 {
				t.Errorf("a value of %g", v)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
