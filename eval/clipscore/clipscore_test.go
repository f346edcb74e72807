package clipscore

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"cyclecap/data/coco"
	"cyclecap/eval"
	"cyclecap/nets/clip"
	"cyclecap/pipeline"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/weights"
)

// The scores equal those of the authors' rules in Python with OpenAI's CLIP to 1e-6: a
// batch of photos has other low-order bits than a single photo.
func TestScoresArePythons(t *testing.T) {
	b, err := os.ReadFile("testdata/scores.json")
	if err != nil {
		t.Fatal(err)
	}
	var want struct {
		Seed  uint64
		Items []struct {
			ImageID      coco.ID `json:"image_id"`
			FileName     string  `json:"file_name"`
			Candidate    string
			References   []string
			CLIPScore    float64
			RefCLIPScore float64
		}
	}
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	var items []eval.Item
	inputs := map[coco.ID]Input{}
	for _, w := range want.Items {
		items = append(items, eval.Item{ImageID: w.ImageID, Candidate: w.Candidate, References: w.References})
		inputs[w.ImageID] = Input{filepath.Join("../../testdata/photos", w.FileName), w.Candidate, w.References}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	path := filepath.Join(t.TempDir(), "clip.safetensors")
	if err := torch.Scope(func() error {
		torch.ManualSeed(want.Seed)
		m := clip.New(clip.Config{EmbedDim: 64, ImageSize: 32, PatchSize: 8, VisionWidth: 64, VisionDepth: 2,
			Context: 77, Vocab: 49408, TextWidth: 64, TextHeads: 1, TextDepth: 2})
		defer nn.Close(m)
		return weights.Save(t.Context(), path, nn.StateDictOf(m), map[string]string{weights.CLIPConfig: m.Config.Metadata()})
	}); err != nil {
		t.Fatal(err)
	}
	m, err := pipeline.LoadCLIP(path, "", clip.Both, pipeline.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	score := func(inputs map[coco.ID]Input) (*eval.Result, error) {
		return eval.Evaluate(context.Background(), items, eval.Options{Metrics: []eval.Metric{Metric(m, inputs, nil, nil)}})
	}
	r, err := score(inputs)
	if err != nil {
		t.Fatal(err)
	}
	worst, positive := 0., 0
	for i, w := range want.Items {
		have := r.Images[i].Scores
		for name, v := range map[string]float64{"CLIPScore": w.CLIPScore, "RefCLIPScore": w.RefCLIPScore} {
			if v > 0 {
				positive++
			}
			d := math.Abs(have[name] - v)
			if worst = max(worst, d); !(d < 1e-6) {
				t.Errorf("image %s: %s is %g instead of %g", w.ImageID, name, have[name], v)
			}
		}
	}
	t.Logf("largest difference %.1e over %d positive scores", worst, positive)
	if positive < 10 {
		t.Errorf("only %d scores are not 0", positive)
	}

	broken := map[coco.ID]Input{}
	for id, in := range inputs {
		broken[id] = in
	}
	delete(broken, items[2].ImageID)
	if _, err := score(broken); err == nil || !strings.Contains(err.Error(), "has no photo") {
		t.Error(err)
	}
	broken[items[2].ImageID] = Input{Photo: "clipscore.go"}
	if _, err := score(broken); err == nil || !strings.Contains(err.Error(), "clipscore.go") {
		t.Error(err)
	}
}
