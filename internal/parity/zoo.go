package parity

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"cyclecap/internal/verify"
	"cyclecap/pipeline"
	"cyclecap/torch"
	"cyclecap/torch/compare"
)

// Zoo compares the models of testdata/reference/zoo.py, or only the one of the given name:
// zoo.py writes random weights in the form of the real packages, record_reference.py runs
// the packages, and package verify compares. The files of a model are deleted before the
// next one is made.
func Zoo(ctx context.Context, python, dir, size, only, photos string, seed int64) ([]Row, error) {
	names := []string{only}
	if only == "" {
		list, err := script(ctx, python, "testdata/reference/zoo.py", "--list", "--size", size)
		if err != nil {
			return nil, err
		}
		names = strings.Fields(list)
	}
	var rows []Row
	for _, name := range names {
		more, err := zoo(ctx, python, filepath.Join(dir, "zoo-"+name), size, name, photos, seed)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

func script(ctx context.Context, python string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, python, args...)
	c.Env = append(os.Environ(), "PYTHONWARNINGS=ignore", "HF_HUB_DISABLE_PROGRESS_BARS=1", "TQDM_DISABLE=1")
	var stderr strings.Builder
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", args[0], err, stderr.String())
	}
	return string(out), nil
}

func zoo(ctx context.Context, python, dir, size, name, photos string, seed int64) ([]Row, error) {
	fmt.Fprintf(os.Stderr, "parity: %s\n", name)
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if _, err := script(ctx, python, "testdata/reference/zoo.py", name, dir, "--size", size, "--seed", fmt.Sprint(seed)); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "arguments.json"))
	if err != nil {
		return nil, err
	}
	var of map[string]string
	if err := json.Unmarshal(text, &of); err != nil {
		return nil, err
	}
	path := func(key string) string {
		if of[key] == "" {
			return ""
		}
		return filepath.Join(dir, of[key])
	}
	reference := filepath.Join(dir, "reference.safetensors")
	args := []string{"scripts/record_reference.py", reference, "--threads", "2", "--tokens", "12", "--seed", fmt.Sprint(seed)}
	for _, key := range []string{"clip", "decoder", "gpt2", "generator"} {
		if of[key] != "" {
			args = append(args, "--"+key, path(key))
		}
	}
	for _, key := range []string{"clip-package", "open-clip-model", "stop"} {
		if of[key] != "" {
			args = append(args, "--"+key, of[key])
		}
	}
	if of["pil"] != "" {
		args = append(args, "--pil")
	}
	if of["clip"] != "" {
		list, err := filepath.Glob(filepath.Join(photos, "*.jpg"))
		if err != nil {
			return nil, err
		}
		args = append(append(args, "--photos"), list[:4]...)
	}
	if _, err := script(ctx, python, args...); err != nil {
		return nil, err
	}
	ref, err := verify.Open(reference)
	if err != nil {
		return nil, err
	}
	defer ref.Close()
	torch.SetNumThreads(ref.Facts.Threads)
	v := verify.New(ref, pipeline.Options{})
	defer v.Close()
	v.PhotoDir = photos
	if _, err := v.Files(verify.Files{CLIP: path("clip"), CLIPConfig: of["clip-config"], Decoder: path("decoder"), GPT2: path("gpt2"), Generator: path("generator")}, pipeline.Options{}); err != nil {
		return nil, err
	}
	report := v.Finish()
	var rows []Row
	for _, r := range report.Rows {
		if strings.HasPrefix(r.What, "sha256") {
			continue
		}
		row := Row{What: name + ": " + r.What, Reference: ref.Facts.Parts[r.Part], Difference: r.Difference, Tolerance: r.Tolerance}
		switch r.Verdict() {
		case verify.Failed, verify.Skipped:
			row.Difference.Mismatch = r.Message()
		case verify.Tied:
			row.Tolerance = compare.Tolerance{Why: r.Tie, Max: math.Inf(1)}
		}
		rows = append(rows, row)
	}
	return rows, nil
}
