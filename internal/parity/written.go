package parity

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Written has cyclecap convert weight files of a folder of make.py's, and
// Python compare what it reads from the results with what it wrote itself
// (script is check_written.py).
func Written(ctx context.Context, python, script, cyclecap, dir string) (Row, error) {
	r := Row{What: "weights that cyclecap wrote as .pt and .safetensors, as Python reads them", Reference: "torch.load, safetensors"}
	to, err := os.MkdirTemp(dir, "written-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(to)
	for _, name := range []string{"clip.pt", "gpt2-old.bin"} {
		original := filepath.Join(dir, name)
		args := []string{script, original}
		for _, ext := range []string{".pt", ".safetensors"} {
			written := filepath.Join(to, name+ext)
			if out, err := exec.CommandContext(ctx, cyclecap, "convert", original, written).CombinedOutput(); err != nil {
				return r, fmt.Errorf("cyclecap convert %s: %w\n%s", original, err, out)
			}
			args = append(args, written)
		}
		c := exec.CommandContext(ctx, python, args...)
		c.Stderr = os.Stderr
		out, err := c.Output()
		if err != nil {
			return r, fmt.Errorf("%s %s: %w", script, original, err)
		}
		var one struct {
			Elements, Differing int64
			Max                 float64
		}
		if err := json.Unmarshal(out, &one); err != nil {
			return r, fmt.Errorf("%s: %w: %q", script, err, out)
		}
		r.Elements += one.Elements
		r.Differing += one.Differing
		r.Max = max(r.Max, one.Max)
	}
	return r, nil
}
