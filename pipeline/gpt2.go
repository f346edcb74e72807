package pipeline

import (
	"fmt"

	"cyclecap/nets/gpt2"
	"cyclecap/weights"
)

// LoadGPT2 loads a GPT-2 with the dtype of its file, on the CPU.
func LoadGPT2(path string) (*gpt2.Model, error) {
	sd, err := weights.LoadGPT2(path)
	if err != nil {
		return nil, err
	}
	m, err := gpt2.Load(sd)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}
