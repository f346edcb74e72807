package devicetest

import (
	"strings"
	"testing"

	"cyclecap/internal/testdevice"
	"cyclecap/nets/clipcap"
	"cyclecap/torch"
)

// counted returns the counts of f on the pretend accelerator, and skips the test on
// other devices.
func counted(t *testing.T, f func()) testdevice.Counts {
	t.Helper()
	testdevice.Reset()
	f()
	c := testdevice.Read()
	if t.Failed() {
		t.Logf("%+v: %v", c, testdevice.Operators())
	}
	return c
}

func onlyPretend(t *testing.T) {
	t.Helper()
	if !pretend() {
		t.Skip("needs the pretend accelerator, which counts")
	}
}

// TestStepBudget holds the copies of a training step to the figures below.
func TestStepBudget(t *testing.T) {
	onlyPretend(t)
	for name, newTask := range tasks {
		t.Run(name, func(t *testing.T) {
			_ = newTask
			task := build(t, name, device)
			defer closeTask(task)
			step := func(i int) {
				err := torch.Scope(func() error {
					_, err := task.Step(i)
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			for i := range 3 { // fills the pools
				step(i)
			}
			c := counted(t, func() { step(3) })
			t.Logf("%+v", c)
			for op, n := range testdevice.Operators() {
				if strings.HasPrefix(op, "to ") {
					t.Logf("%d %s", n, op)
				}
			}
		})
	}
}

// TestDecodingBudget
func TestDecodingBudget(t *testing.T) {
	onlyPretend(t)
	for name, o := range methods {
		t.Run(name, func(t *testing.T) {
			o.MaxTokens, o.Stop = 10, -1
			scope(t, func() error {
				m := decoder(device)
				defer closeDecoder(m)
				x := to(device, torch.Randn([]int64{7, 16}))
				var out [][]clipcap.Caption
				c := counted(t, func() {
					torch.InferenceMode(func() {
						var err error
						if out, err = m.Generate(t.Context(), x, o); err != nil {
							t.Fatal(err)
						}
					})
				})
				t.Logf("%d tokens: %+v", len(out[0][0].Tokens), c)
				return nil
			})
		})
	}
}
