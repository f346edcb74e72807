package experiment

import (
	"path/filepath"
	"testing"

	"cyclecap/internal/processor"
)

// TestDtypeAuto trains with "auto", and with what that means on this processor.
func TestDtypeAuto(t *testing.T) {
	meant, other := "f32", "bf16"
	if processor.HasBF16() {
		meant, other = other, meant
	}
	weights := map[string]string{}
	for _, dtype := range []string{"auto", meant, other} {
		dir := filepath.Join(t.TempDir(), "run")
		if _, _, err := runSmall(t, dir, nil, "bridges.use=[direct]", "train.decoder.dtype="+dtype); err != nil {
			t.Fatal(err)
		}
		weights[dtype] = products(t, dir)["seed-0/decoder-texts/decoder.pt"]
	}
	if weights["auto"] != weights[meant] || weights["auto"] == weights[other] {
		t.Errorf("hashes of the decoder's weights: %v", weights)
	}
}
