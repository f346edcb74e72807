package experiment

import (
	"testing"

	"cyclecap/experiment/config"
)

// TestKeysOfEarlierRuns checks that settings which were added later do not change the keys
// of stages at their defaults, so that earlier runs are continued.
func TestKeysOfEarlierRuns(t *testing.T) {
	c := config.TrainCycleGAN{Epochs: 20, Layers: 4, Batch: 64, LR: 2e-4, Beta1: 0.5, Beta2: 0.999, DecayFrom: 10, Adversarial: "least-squares",
		CycleWeight: 10, IdentityWeight: 0.5, Pool: 50, DiscHalved: true, Normalize: "none", CheckpointEvery: 5000}
	key := func(c config.TrainCycleGAN) string {
		s := &stage{name: "cyclegan", inputs: []any{"features", asInput(c), "paper", 0}}
		return s.key()
	}
	if got, want := key(c), "7eabdbb87f274e9dc1023fcd"; got != want {
		t.Errorf("the key of the CycleGAN is %s, want %s", got, want)
	}
	c.Layers = 2
	if key(c) == "7eabdbb87f274e9dc1023fcd" {
		t.Error("the number of layers does not change the key")
	}
}
