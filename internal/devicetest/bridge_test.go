package devicetest

import (
	"testing"

	"cyclecap/nets/cyclegan"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/train/bridge"
)

// TestBridges compares what every bridge makes of image features.
func TestBridges(t *testing.T) {
	const width = 16
	for _, b := range bridge.All() {
		t.Run(b.Name, func(t *testing.T) {
			// Transforms keep what they need until the program ends.
			err := torch.Scope(func() error {
				return compareHere(t, gradient, func(d torch.Device) []result {
					g := moved(d, cyclegan.NewGenerator(width))
					defer nn.Close(g)
					e := bridge.Env{Images: matrix(40, width, 1), Texts: matrix(50, width, 2), Generator: g, Length: 3.5, Seed: 4, Device: d,
						Settings: map[string]float64{}}
					for _, s := range b.Settings {
						e.Settings[s.Key] = s.Default
					}
					transform, err := b.Fit(e)
					if err != nil {
						t.Fatal(err)
					}
					var out torch.Tensor
					torch.InferenceMode(func() {
						x := matrix(6, width, 3)
						out = transform(to(d, torch.FromSlice(x.Data, 6, width)))
					})
					return kept([]result{{"features", out}})
				})
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}
