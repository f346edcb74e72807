package parity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"cyclecap/internal/verify"
	"cyclecap/pipeline"
	"cyclecap/torch"
)

// Zoo compares the models of testdata/reference/zoo.py, or only the one of the given name:
// zoo.py writes random weights in the form of the real packages, record_reference.py runs
// the packages, and package verify compares. Of real models, the files of one are deleted before the
// next one is made. The next small one is made beside the comparison, since most of its time goes
// into Python's imports, on one core.
func Zoo(ctx context.Context, python, dir, size, only, photos string, seed int64) ([]Row, error) {
	names := []string{only}
	if only == "" {
		list, err := script(ctx, python, "testdata/reference/zoo.py", "--list", "--size", size)
		if err != nil {
			return nil, err
		}
		names = strings.Fields(list)
	}
	most := 1 // models at a time
	if size == "small" {
		most = 2
	}
	ctx, stop := context.WithCancel(ctx)
	var recordings sync.WaitGroup
	defer recordings.Wait()
	defer stop()
	animals := make([]animal, len(names))
	recorded := make([]chan error, len(names))
	started := 0
	var rows []Row
	for i, name := range names {
		for ; started < min(i+most, len(names)); started++ {
			a, done := &animals[started], make(chan error, 1)
			*a = animal{name: names[started], dir: filepath.Join(dir, "zoo-"+names[started])}
			recorded[started] = done
			recordings.Go(func() { done <- a.record(ctx, python, size, photos, seed) })
		}
		err := <-recorded[i]
		var more []Row
		if err == nil {
			fmt.Fprintf(os.Stderr, "parity: %s\n", name)
			more, err = animals[i].verify(photos)
		}
		if err = errors.Join(err, os.RemoveAll(animals[i].dir)); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

// An animal is a model of the zoo: its folder, and the arguments of zoo.py's arguments.json.
type animal struct {
	name, dir string
	of        map[string]string
}

// path returns the path of a file among the arguments, or "".
func (a *animal) path(key string) string {
	if a.of[key] == "" {
		return ""
	}
	return filepath.Join(a.dir, a.of[key])
}

func (a *animal) reference() string { return filepath.Join(a.dir, "reference.safetensors") }

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

// record writes the weights and the reference.
func (a *animal) record(ctx context.Context, python, size, photos string, seed int64) error {
	if err := os.RemoveAll(a.dir); err != nil {
		return err
	}
	if _, err := script(ctx, python, "testdata/reference/zoo.py", a.name, a.dir, "--size", size, "--seed", fmt.Sprint(seed)); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(a.dir, "arguments.json"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &a.of); err != nil {
		return err
	}
	args := []string{"scripts/record_reference.py", a.reference(), "--threads", "2", "--tokens", "12", "--seed", fmt.Sprint(seed)}
	for _, key := range []string{"clip", "decoder", "gpt2", "generator"} {
		if a.of[key] != "" {
			args = append(args, "--"+key, a.path(key))
		}
	}
	for _, key := range []string{"clip-package", "open-clip-model", "stop"} {
		if a.of[key] != "" {
			args = append(args, "--"+key, a.of[key])
		}
	}
	if a.of["pil"] != "" {
		args = append(args, "--pil")
	}
	if a.of["clip"] != "" {
		list, err := filepath.Glob(filepath.Join(photos, "*.jpg"))
		if err != nil {
			return err
		}
		args = append(append(args, "--photos"), list[:4]...)
	}
	_, err = script(ctx, python, args...)
	return err
}

// verify compares ours with the reference.
func (a *animal) verify(photos string) ([]Row, error) {
	ref, err := verify.Open(a.reference())
	if err != nil {
		return nil, err
	}
	defer ref.Close()
	torch.SetNumThreads(ref.Facts.Threads)
	v := verify.New(ref, pipeline.Options{})
	defer v.Close()
	v.PhotoDir = photos
	if _, err := v.Files(verify.Files{CLIP: a.path("clip"), CLIPConfig: a.of["clip-config"], Decoder: a.path("decoder"), GPT2: a.path("gpt2"), Generator: a.path("generator")}, pipeline.Options{}); err != nil {
		return nil, err
	}
	report := v.Finish()
	var rows []Row
	for _, r := range report.Rows {
		if strings.HasPrefix(r.What, "sha256") {
			continue
		}
		row := Row{What: a.name + ": " + r.What, Reference: ref.Facts.Parts[r.Part], Difference: r.Difference, Tolerance: r.Tolerance}
		switch r.Verdict() {
		case verify.Failed, verify.Skipped:
			row.Difference.Mismatch = r.Message()
		case verify.Tied:
			row.Tolerance = tied(r.Tie)
		}
		rows = append(rows, row)
	}
	return rows, nil
}
