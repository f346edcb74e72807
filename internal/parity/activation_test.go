package parity

import (
	"testing"

	"cyclecap/nets/clip"
	"cyclecap/torch"
	"cyclecap/torch/compare"
	"cyclecap/torch/nn"
	"cyclecap/weights"
)

// TestActivation: QuickGELU and GELU are near enough to be mixed up in
// silence; the reference must tell them apart.
func TestActivation(t *testing.T) {
	f, err := weights.Open("testdata/small/expected.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	want, err := f.Load()
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	for _, gelu := range []bool{false, true} {
		file, err := weights.Open("testdata/small/clip.pt")
		if err != nil {
			t.Fatal(err)
		}
		sd, err := weights.LoadCLIP(file, nil)
		if err != nil {
			t.Fatal(err)
		}
		config, err := clip.ConfigOf(sd, clip.Both)
		if err != nil {
			t.Fatal(err)
		}
		if config.VisionActivation != clip.QuickGELU {
			t.Error("OpenAI's weights are taken for a CLIP with GELU")
		}
		if gelu {
			config.VisionActivation = clip.GELU
		}
		m, err := clip.Load(sd, config, clip.Both)
		if err != nil {
			t.Fatal(err)
		}
		err = torch.Scope(func() error {
			px, _ := want.Get("pixels")
			reference, _ := want.Get("openai_image")
			d := compare.Tensors(m.EncodeImage(px), reference).Max
			if gelu == (d < 1e-3) {
				t.Errorf("GELU %v: the features differ by %g from QuickGELU's", gelu, d)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		nn.Close(m)
	}
}
