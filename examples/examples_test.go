// Package examples has whole programs that use package torch. Its test runs them.
package examples

import (
	"bytes"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"cyclecap/torch"
	"cyclecap/torch/compare"
	"cyclecap/weights"
)

// run runs an example and returns what it prints.
func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("go", append([]string{"run"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// numbers returns the numbers that the groups of an expression find in the output of an example.
func numbers(t *testing.T, out, expression string) (list []float64) {
	t.Helper()
	m := regexp.MustCompile(expression).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("the output lacks %s:\n%s", expression, out)
	}
	for _, text := range m[1:] {
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		list = append(list, v)
	}
	return list
}

func TestDigits(t *testing.T) {
	file := filepath.Join(t.TempDir(), "digits.pt")
	out := run(t, "./digits", "-o", file)
	if right := numbers(t, out, `([0-9.]+) % of 1000`)[0]; right < 95 {
		t.Errorf("%g %% are right:\n%s", right, out)
	}
}

// TestDCGAN: what the generator draws is like the real pictures.
func TestDCGAN(t *testing.T) {
	file := filepath.Join(t.TempDir(), "samples.png")
	out := run(t, "./dcgan", "-o", file)
	d := numbers(t, out, `(?s)before: the mean picture is ([0-9.]+) .*after: the mean picture is ([0-9.]+) `)
	if d[0] < 0.6 || d[1] > 0.4 {
		t.Error(out)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if picture, err := png.Decode(bytes.NewReader(text)); err != nil || picture.Bounds().Dx() != 8*16 || picture.Bounds().Dy() != 8*16 {
		t.Errorf("%v, %v", picture.Bounds(), err)
	}
}

// TestResNet: a training that is killed between two checkpoints, and continues from the last one, ends with the
// weights of one that is not.
func TestResNet(t *testing.T) {
	dir := t.TempDir()
	program, whole, parts, folder := filepath.Join(dir, "resnet"), filepath.Join(dir, "whole.pt"), filepath.Join(dir, "parts.pt"), filepath.Join(dir, "checkpoint")
	if out, err := exec.Command("go", "build", "-o", program, "./resnet").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	start := func(code int, args ...string) string {
		t.Helper()
		cmd := exec.Command(program, args...)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != code {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	out := start(0, "-o", whole)
	if right := numbers(t, out, `([0-9.]+) % of 500`)[0]; right < 90 {
		t.Errorf("%g %% are right:\n%s", right, out)
	}
	start(3, "-checkpoint", folder, "-stop", "30")
	if out := start(0, "-checkpoint", folder, "-o", parts); !strings.HasPrefix(out, "continuing after step 20\n") {
		t.Error(out)
	}
	if d := differing(t, whole, parts); d != nil {
		t.Errorf("tensors that differ after the interruption: %s", d)
	}
	if list, _ := filepath.Glob(filepath.Join(folder, "*")); len(list) != 1 || filepath.Base(list[0]) != "step-000100" {
		t.Errorf("the folder has %s", list)
	}
}

// differing returns the names of the tensors that are in only one of two files, or have other bits.
func differing(t *testing.T, a, b string) (names []string) {
	t.Helper()
	err := torch.Scope(func() error {
		var all [2]map[string]torch.Tensor
		for i, path := range []string{a, b} {
			file, err := weights.Open(path)
			if err != nil {
				return err
			}
			sd, err := file.Load()
			if err != nil {
				return err
			}
			defer sd.Close()
			all[i] = map[string]torch.Tensor{}
			for _, name := range sd.Names() {
				all[i][name], _ = sd.Get(name)
			}
		}
		for name := range all[0] {
			if !all[1][name].Defined() || !compare.Tensors(all[0][name], all[1][name]).Equal() {
				names = append(names, name)
			}
		}
		for name := range all[1] {
			if !all[0][name].Defined() {
				names = append(names, name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

// TestFinetune: only the head changes, and PyTorch reads the result and finds as many patterns.
func TestFinetune(t *testing.T) {
	file := filepath.Join(t.TempDir(), "patterns.pt")
	out := run(t, "./finetune", "-o", file, "finetune/testdata/pretrained.pt")
	if right := numbers(t, out, `([0-9.]+) % of 500`)[0]; right < 85 {
		t.Errorf("%g %% are right:\n%s", right, out)
	}
	if d := differing(t, "finetune/testdata/pretrained.pt", file); !slices.Equal(d, []string{"fc.bias", "fc.weight"}) {
		t.Errorf("tensors that differ from the pretrained ones: %s", d)
	}
	const python = "../.venv/bin/python"
	if err := exec.Command(python, "-c", "import torch").Run(); err != nil {
		t.Skip("there is no Python with torch to read the file with (make references)")
	}
	printed, err := exec.Command(python, "finetune/testdata/patterns.py", "check", file).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, printed)
	}
	if right := numbers(t, string(printed), `^([0-9.]+)\n$`)[0]; right < 85 {
		t.Errorf("%g %% are right in PyTorch", right)
	}
}

func TestCharLSTM(t *testing.T) {
	out := run(t, "./charlstm")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if last := lines[len(lines)-1]; !regexp.MustCompile(`^the (red|blue|small) (dog|bird|cat) sees a (house|tree|boat)\. `).MatchString(last) {
		t.Error(out)
	}
}

func TestHTTPServer(t *testing.T) {
	out := run(t, "./httpserver")
	if !strings.Contains(out, "400 linear(float32[1,3]") || !strings.Contains(out, "320 of 320 answers are the same as alone; 4 tensors are alive") {
		t.Error(out)
	}
}

func TestTorchScript(t *testing.T) {
	out := run(t, "./torchscript", "../torch/testdata/traced.pt", "../torch/testdata/traced.npz")
	if d := numbers(t, out, `largest difference from Python: (\S+)`)[0]; d > 1e-5 {
		t.Error(out)
	}
}
