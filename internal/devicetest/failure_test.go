package devicetest

import (
	"errors"
	"runtime"
	"strings"
	"testing"

	"cyclecap/nets/clipcap"
	"cyclecap/torch"
	"cyclecap/torch/nn"
)

func elsewhere(t *testing.T) {
	t.Helper()
	if device == torch.CPU {
		t.Skip("needs a device other than the CPU")
	}
}

// TestMixedDevicesFail checks that a tensor left on the CPU is an error, and that the
// same network works afterwards.
func TestMixedDevicesFail(t *testing.T) {
	elsewhere(t)
	scope(t, func() error {
		m := decoder(device)
		defer closeDecoder(m)
		features := torch.Randn([]int64{2, 16})
		for what, f := range map[string]func(){
			"mapper": func() { m.Mapper.Forward(features) },
			"tokens": func() { m.GPT2.Embed(torch.FromSlice([]int64{1, 2}, 1, 2)) },
			"loss":   func() { m.Mapper.Forward(to(device, features)).MseLoss(torch.Zeros([]int64{2, 4, 64})) },
			"state": func() {
				nn.Parameters(m.Mapper)[0].Mul(torch.Ones(nn.Parameters(m.Mapper)[0].Shape()))
			},
			"generator": func() {
				torch.Empty([]int64{2}, torch.WithDevice(device)).Normal_(torch.WithGenerator(torch.NewGenerator(torch.CPU)))
			},
		} {
			err := torch.Scope(func() error { f(); return nil })
			var e *torch.Error
			if !errors.As(err, &e) {
				t.Errorf("%s: got %v, want a *torch.Error", what, err)
				continue
			}
			if !strings.Contains(e.Text, "device") {
				t.Errorf("%s: %v", what, err)
			}
		}
		o := clipcap.Options{Method: clipcap.Greedy, MaxTokens: 3, Stop: -1}
		var err error
		torch.InferenceMode(func() { _, err = m.Generate(t.Context(), to(device, features), o) })
		return err
	})
}

// TestOutOfMemory allocates more than any device has, and goes on.
func TestOutOfMemory(t *testing.T) {
	elsewhere(t)
	for range 3 {
		err := torch.Scope(func() error {
			torch.Zeros([]int64{1 << 42}, torch.WithDevice(device))
			return nil
		})
		var e *torch.Error
		if !errors.As(err, &e) || e.Kind != torch.OutOfMemoryError {
			t.Fatalf("got %v, want out of memory", err)
		}
		scope(t, func() error {
			if v := torch.Ones([]int64{1000}, torch.WithDevice(device)).Sum().Item(); v != 1000 {
				t.Errorf("the sum is %g", v)
			}
			return nil
		})
	}
}

// TestBackwardFails checks that an error in the backward pass, which runs on a thread of
// the device, reaches the caller.
func TestBackwardFails(t *testing.T) {
	scope(t, func() error {
		err := torch.Scope(func() error {
			x := to(device, torch.Ones([]int64{3})).SetRequiresGrad(true)
			y := x.Exp()
			torch.NoGrad(func() { y.MulScalar_(2) }) // backward needs the value from before
			y.Sum().Backward()
			return nil
		})
		var e *torch.Error
		if !errors.As(err, &e) || !strings.Contains(e.Text, "inplace operation") {
			t.Errorf("got %v", err)
		}
		return nil
	})
}

// TestMissingDevice checks that a device that does not exist is an error.
func TestMissingDevice(t *testing.T) {
	elsewhere(t)
	d := device
	d.Index = 99
	err := torch.Scope(func() error {
		torch.Zeros([]int64{3}, torch.WithDevice(d)).Sum().Item()
		return nil
	})
	var e *torch.Error
	if !errors.As(err, &e) {
		t.Errorf("got %v", err)
	}
}

// TestDataOfDeviceFails checks that the memory of the device cannot be had as a slice.
func TestDataOfDeviceFails(t *testing.T) {
	elsewhere(t)
	err := torch.Scope(func() error {
		torch.Data(torch.Zeros([]int64{3}, torch.WithDevice(device)), func([]float32) {})
		return nil
	})
	var e *torch.Error
	if !errors.As(err, &e) || !strings.Contains(e.Text, "CPU tensor") {
		t.Errorf("got %v", err)
	}
}

// TestGoroutines trains and decodes on the device from several goroutines at once.
func TestGoroutines(t *testing.T) {
	done := make(chan error)
	for range 3 {
		go func() {
			runtime.LockOSThread()
			done <- torch.Scope(func() error {
				m := moved(device, newTransformerMapper())
				defer nn.Close(m)
				for range 5 {
					err := torch.Scope(func() error {
						m.Forward(to(device, torch.Randn([]int64{4, 16}))).Square().Mean().Backward()
						return nil
					})
					if err != nil {
						return err
					}
				}
				return nil
			})
		}()
	}
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
