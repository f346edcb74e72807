package train

import (
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"

	"cyclecap/nets/clip"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/weights"
)

// TestContrastive compares the training of small CLIPs with OpenAI's model and PyTorch's
// AdamW (testdata/reference/contrastive.py): the losses of five steps, and the weights and
// running statistics after them. The order of the photos in a batch differs, so that the
// sums are not the same to the last bit.
func TestContrastive(t *testing.T) {
	text, err := os.ReadFile("testdata/contrastive.json")
	if err != nil {
		t.Fatal(err)
	}
	var want struct {
		LR          float64
		WeightDecay float64 `json:"weight_decay"`
		Warmup      int
		Steps       int
		Losses      map[string][]float64
	}
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	f, err := weights.Open("testdata/contrastive.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	sd, err := f.Load()
	if err != nil {
		t.Fatal(err)
	}
	defer sd.Close()
	get := func(name string) torch.Tensor {
		x, ok := sd.Get(name)
		if !ok {
			t.Fatalf("no %s in the fixture", name)
		}
		return x
	}
	ids := get("ids")
	n, context := int(ids.Size(0)), int(ids.Size(1))
	data := CLIPData{Pixels: torch.ToSlice[uint8](get("pixels")), Captions: &Texts{}}
	for i, row := 0, torch.ToSlice[int64](ids); i < n; i++ {
		var caption []int
		for _, id := range row[i*context : (i+1)*context] {
			if id != 0 {
				caption = append(caption, int(id))
			}
		}
		data.Captions.Add(caption)
		data.Of = append(data.Of, []int32{int32(i)})
	}
	// Adam divides a gradient by its own size, so that rounding changes a step where the
	// gradient is next to 0.
	const lossBound, bound = 1e-5, 1e-4
	for name, losses := range want.Losses {
		err := torch.Scope(func() error {
			c := clip.Config{EmbedDim: 16, ImageSize: 64, PatchSize: 16, VisionWidth: 64, VisionDepth: 1, Context: int64(context), Vocab: 50, TextWidth: 64, TextHeads: 1, TextDepth: 1}
			if name != "vit" {
				c.ResNet, c.PatchSize, c.VisionWidth, c.VisionDepth = [4]int64{1, 2, 1, 1}, 0, 4, 0
			}
			m, before := clip.New(c), name+".before."
			if name == "locked" {
				before = "resnet.before."
			}
			states := nn.StateDictOf(m)
			torch.NoGrad(func() {
				for _, key := range states.Names() {
					to, _ := states.Get(key)
					to.Copy_(get(before + key))
				}
			})
			task, err := NewCLIPTask(CLIPConfig{Mean: [3]float32{.5, .5, .5}, Std: [3]float32{.25, .25, .25}, Epochs: want.Steps, Batch: n,
				LR: want.LR, WeightDecay: want.WeightDecay, WarmupSteps: want.Warmup, LockText: name == "locked"}, m, data)
			if err != nil {
				return err
			}
			defer task.Close()
			var worst float64
			for step, w := range losses {
				l, err := task.Step(step)
				if err != nil {
					return err
				}
				worst = max(worst, math.Abs(l[0].Value-w)/w)
			}
			t.Logf("%s: losses differ by at most %.2g of their size", name, worst)
			if !(worst <= lossBound) {
				t.Errorf("%s: the losses differ by %g of their size, want at most %g", name, worst, lossBound)
			}
			worst = 0
			for _, key := range states.Names() {
				have, _ := states.Get(key)
				was := get(before + key)
				if name == "locked" && !strings.HasPrefix(key, "visual.") && key != "logit_scale" {
					if !have.Equal(was) {
						t.Errorf("%s: %s has changed", name, key)
					}
					continue
				}
				w := get(name + ".after." + key)
				if w.Equal(was) {
					t.Errorf("%s: %s has not changed in the reference", name, key)
				}
				difference := have.Sub(w).Abs()
				if strings.HasSuffix(key, "in_proj_bias") {
					// The same number added to all scores changes nothing: the gradient of the
					// bias of keys is 0 but for rounding, which Adam makes as large as any.
					difference.Narrow(0, have.Size(0)/3, have.Size(0)/3).Zero_()
				}
				d := difference.Max().Item()
				worst = max(worst, d)
				if !(d <= bound) {
					t.Errorf("%s: %s differs by %g, want at most %g", name, key, d, bound)
				}
			}
			t.Logf("%s: weights differ by at most %.2g", name, worst)
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}
