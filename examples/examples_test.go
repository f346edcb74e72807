// Package examples has whole programs that use package torch. Its test runs them.
package examples

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
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

func TestDigits(t *testing.T) {
	file := filepath.Join(t.TempDir(), "digits.pt")
	out := run(t, "./digits", "-o", file)
	m := regexp.MustCompile(`([0-9.]+) % of 1000`).FindStringSubmatch(out)
	if m == nil {
		t.Fatal(out)
	}
	if right, _ := strconv.ParseFloat(m[1], 64); right < 95 {
		t.Errorf("%s %% are right:\n%s", m[1], out)
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
	if !strings.Contains(out, "400 ") || !strings.Contains(out, "320 of 320 answers are [") || !strings.Contains(out, "4 tensors are alive") {
		t.Error(out)
	}
}

func TestTorchScript(t *testing.T) {
	out := run(t, "./torchscript", "../torch/testdata/traced.pt", "../torch/testdata/traced.npz")
	m := regexp.MustCompile(`largest difference from Python: (\S+)`).FindStringSubmatch(out)
	if m == nil {
		t.Fatal(out)
	}
	if d, err := strconv.ParseFloat(m[1], 64); err != nil || d > 1e-5 {
		t.Error(out)
	}
}
