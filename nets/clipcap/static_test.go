package clipcap_test

import (
	"context"
	"testing"

	"cyclecap/internal/testdevice"
	"cyclecap/nets/clipcap"
	"cyclecap/torch"
	"cyclecap/torch/nn"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestStatic compares the decoding for GPUs, run here on the CPU, with the one for the
// CPU: captions that end at different steps, shapes that come again, and more shapes
// than are kept.
func TestStatic(t *testing.T) {
	with(t, func(m *clipcap.Model, features torch.Tensor) {
		defer m.Close()
		stop := tokens(generate(t, m, features, clipcap.Options{Method: clipcap.Greedy, MaxTokens: 10, Stop: -1}))[0][4]
		near := cmpopts.EquateApprox(0, 2e-5)
		for range 2 {
			for _, o := range []clipcap.Options{
				{Method: clipcap.Greedy, MaxTokens: 10, Stop: stop},
				{Method: clipcap.TopP, MaxTokens: 10, Stop: stop},
				{Method: clipcap.Greedy, MaxTokens: 1, Stop: stop},
				{Method: clipcap.Greedy, MaxTokens: 28, Stop: -1},
				{Method: clipcap.Beam, Beam: 1, MaxTokens: 10, Stop: stop},
				{Method: clipcap.Beam, Beam: 5, MaxTokens: 10, Stop: stop},
				{Method: clipcap.Beam, Beam: 3, MaxTokens: 29, Stop: -1},
				{Method: clipcap.Beam, Beam: 5, MaxTokens: 1, Stop: stop},
			} {
				for _, n := range []int64{1, 7} {
					x := features.Narrow(0, 0, n)
					got, err := m.Static(context.Background(), x, o)
					if err != nil {
						t.Fatal(err)
					}
					if diff := cmp.Diff(generate(t, m, x, o), got, near); diff != "" {
						t.Errorf("%+v, %d features: %s", o, n, diff)
					}
				}
			}
		}
	})
}

// In other dtypes than f32 the head is padded. f64 has no close calls.
func TestStaticPaddedHead(t *testing.T) {
	with(t, func(m *clipcap.Model, features torch.Tensor) {
		nn.To(m.GPT2, torch.WithDType(torch.Float64))
		nn.To(m.Mapper, torch.WithDType(torch.Float64))
		features = features.To(torch.WithDType(torch.Float64))
		defer m.Close()
		for _, o := range []clipcap.Options{
			{Method: clipcap.Greedy, MaxTokens: 20, Stop: -1},
			{Method: clipcap.Beam, Beam: 5, MaxTokens: 20, Stop: 3},
			{Method: clipcap.Beam, Beam: vocab, MaxTokens: 3, Stop: 3}, // no beam may end in the padding
		} {
			got, err := m.Static(context.Background(), features, o)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(generate(t, m, features, o), got, cmpopts.EquateApprox(0, 2e-5)); diff != "" {
				t.Errorf("%+v: %s", o, diff)
			}
		}
	})
}

// TestStaticOnDevice checks that the decoding for GPUs has the same bits on the pretend
// accelerator, and so leaves no tensor on the CPU and reads none without a copy.
func TestStaticOnDevice(t *testing.T) {
	if err := testdevice.Open(); err != nil {
		t.Fatal(err)
	}
	on := torch.WithDevice(testdevice.Device)
	with(t, func(m *clipcap.Model, features torch.Tensor) {
		defer m.Close()
		other := small()
		defer func() {
			other.Close()
			nn.Close(other.GPT2)
			nn.Close(other.Mapper)
		}()
		nn.To(other.GPT2, on)
		nn.To(other.Mapper, on)
		for _, o := range []clipcap.Options{
			{Method: clipcap.Greedy, MaxTokens: 20, Stop: 7},
			{Method: clipcap.Beam, Beam: 5, MaxTokens: 20, Stop: 7},
		} {
			for range 2 { // with new state, and with that of the first call
				want, err := m.Static(context.Background(), features, o)
				if err != nil {
					t.Fatal(err)
				}
				got, err := other.Generate(context.Background(), features.To(on), o)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s: %s", o.Method, diff)
				}
			}
		}
	})
}

// The beam search ends for one photo while it goes on for another.
func TestStaticBeamsEndApart(t *testing.T) {
	with(t, func(m *clipcap.Model, features torch.Tensor) {
		defer m.Close()
		lengths := map[int]bool{}
		for stop := range int64(vocab) {
			o := clipcap.Options{Method: clipcap.Beam, Beam: 4, MaxTokens: 12, Stop: stop}
			got, err := m.Static(context.Background(), features, o)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(generate(t, m, features, o), got, cmpopts.EquateApprox(0, 2e-5)); diff != "" {
				t.Errorf("stop %d: %s", stop, diff)
			}
			for _, c := range got {
				lengths[len(c[0].Tokens)] = true
			}
		}
		if len(lengths) < 5 {
			t.Errorf("the captions have only the lengths %v", lengths)
		}
	})
}

// A cancelled context stops the decoding, and the next call works.
func TestStaticCancel(t *testing.T) {
	with(t, func(m *clipcap.Model, features torch.Tensor) {
		defer m.Close()
		o := clipcap.Options{Method: clipcap.Greedy, MaxTokens: 20, Stop: -1}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := m.Static(ctx, features, o); err != context.Canceled {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
		got, err := m.Static(context.Background(), features, o)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tokens(generate(t, m, features, o)), tokens(got)); diff != "" {
			t.Error(diff)
		}
	})
}

// Close, and shapes beyond MaxStatics, free what was kept.
func TestStaticMemory(t *testing.T) {
	with(t, func(m *clipcap.Model, features torch.Tensor) {
		var alive []int64
		for max := 2; max < 6+clipcap.MaxStatics; max++ {
			if _, err := m.Static(context.Background(), features, clipcap.Options{Method: clipcap.Greedy, MaxTokens: max}); err != nil {
				t.Fatal(err)
			}
			alive = append(alive, torch.Alive())
		}
		if a, b := alive[clipcap.MaxStatics-1], alive[len(alive)-1]; a != b {
			t.Errorf("%d tensors are alive after %d shapes, %d after %d", a, clipcap.MaxStatics, b, len(alive))
		}
		m.Close()
	})
}

// Large caches push out those of other shapes, but never the one in use.
func TestStaticBytes(t *testing.T) {
	with(t, func(m *clipcap.Model, features torch.Tensor) {
		defer m.Close()
		// 7 features, 16 slots, 2 layers with keys and values of 64 numbers.
		const one = 7 * 16 * 2 * 2 * 64 * 4
		defer clipcap.SetMaxBytes(clipcap.SetMaxBytes(2 * one))
		for _, step := range []struct{ tokens, kept int }{{2, 1}, {3, 2}, {4, 2}, {2, 2}, {28, 1}, {2, 1}} {
			if _, err := m.Static(context.Background(), features, clipcap.Options{Method: clipcap.Greedy, MaxTokens: step.tokens, Stop: -1}); err != nil {
				t.Fatal(err)
			}
			if got := m.Kept(); got != step.kept {
				t.Errorf("after %d tokens, %d shapes are kept, want %d", step.tokens, got, step.kept)
			}
		}
	})
}
