package torch_test

import (
	"math"
	"runtime"
	"testing"
	"time"

	"cyclecap/torch"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestFromBlob(t *testing.T) {
	run(t, func() {
		data := []float32{1, 2, 3, 4, 5, 6}
		x := torch.FromBlob(data, []int64{2, 3}, nil, nil)
		y := torch.FromBlob(data, []int64{3, 2}, []int64{1, 3}, nil)
		if !y.Equal(x.T()) {
			t.Errorf("with strides: %v", y)
		}
		x.MulScalar_(10)
		data[5] = -1
		if diff := cmp.Diff([]float32{10, 20, 30, 40, 50, -1}, torch.ToSlice[float32](x)); diff != "" || data[0] != 10 {
			t.Errorf("not the same memory: %v, %s", data, diff)
		}
		if v := torch.FromBlob(data[1:], []int64{}, nil, nil).Item(); v != 20 {
			t.Errorf("a scalar: %v", v)
		}
		if v := torch.FromBlob(data, []int64{4}, []int64{0}, nil).Sum().Item(); v != 40 {
			t.Errorf("an expanded element: %v", v)
		}
		if s := torch.FromBlob([]int64(nil), []int64{2, 0}, nil, nil); s.Numel() != 0 || s.DType() != torch.Int64 {
			t.Errorf("without elements: %v", s)
		}
		if v := torch.FromBlob([]uint16{0x3f80, 0xc000}, []int64{2}, nil, nil).ViewDType(torch.BFloat16); torch.ToSlice[float32](v)[1] != -2 {
			t.Errorf("bfloat16: %v", v)
		}
		w := torch.FromBlob(data, []int64{6}, nil, nil).SetRequiresGrad(true)
		w.Square().Sum().Backward()
		if g := w.Grad(); !g.Equal(w.Detach().MulScalar(2)) {
			t.Errorf("gradient %v", g)
		}
	})
}

func TestFromBlobErrors(t *testing.T) {
	data := make([]float64, 6)
	for name, c := range map[string]struct {
		text           string
		shape, strides []int64
	}{
		"too many elements":   {"shape [7] with strides [1] needs 7 elements, but there are 6", []int64{7}, nil},
		"strides too large":   {"needs 7 elements", []int64{3, 2}, []int64{2, 2}},
		"a negative size":     {"size -1 of dimension 1 is negative", []int64{2, -1}, nil},
		"a negative stride":   {"stride -1 of dimension 0 is negative", []int64{2}, []int64{-1}},
		"too few strides":     {"expected a stride for each of the 2 dimensions, got 1", []int64{2, 3}, []int64{1}},
		"an enormous shape":   {"too large", []int64{1 << 32, 1 << 32}, nil},
		"an enormous stride":  {"too large", []int64{3, 3}, []int64{math.MaxInt64 / 2, math.MaxInt64 / 2}},
		"an enormous product": {"too large", []int64{2, 1 << 32, 1 << 32}, nil},
	} {
		fails(t, name, c.text, func() {
			torch.FromBlob(data, c.shape, c.strides, func() { t.Errorf("%s: released", name) })
		})
	}
	fails(t, "resize", "resiz", func() { torch.FromBlob(data, []int64{6}, nil, nil).Resize_([]int64{12}) })
	var err error
	func() {
		defer func() { err, _ = recover().(error) }()
		torch.FromBlob(data, []int64{6}, nil, nil)
	}()
	if err == nil {
		t.Error("no error outside of a scope")
	}
}

// TestFromBlobIsReleased holds the memory through a view that outlives the tensor, and
// through a graph.
func TestFromBlobIsReleased(t *testing.T) {
	released := make(chan string, 1)
	was := func(want bool, when string) {
		t.Helper()
		wait := 20 * time.Millisecond
		if want {
			wait = 10 * time.Second
		}
		select {
		case <-released:
			if !want {
				t.Fatalf("released %s", when)
			}
		case <-time.After(wait):
			if want {
				t.Fatalf("not released %s", when)
			}
		}
	}
	page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	page[4095] = 7
	var view torch.Tensor
	run(t, func() {
		x := torch.FromBlob(page, []int64{64, 64}, nil, func() { unix.Munmap(page); released <- "" })
		view = x.Select(0, 63).Keep()
	})
	was(false, "while there is a view")
	run(t, func() {
		if view.Sum().Item() != 7 {
			t.Error("the view changed")
		}
	})
	view.Close()
	was(true, "after the last view")

	run(t, func() {
		w := torch.Ones([]int64{3}).SetRequiresGrad(true)
		x := torch.FromBlob([]float32{1, 2, 3}, []int64{3}, nil, func() { released <- "" })
		y := w.Mul(x)
		x.Close()
		was(false, "while autograd needs it")
		runtime.GC()
		if diff := cmp.Diff([]float32{1, 2, 3}, torch.ToSlice[float32](torch.GradOf([]torch.Tensor{y.Sum()}, []torch.Tensor{w}, false)[0])); diff != "" {
			t.Error(diff)
		}
		y.Close()
	})
	was(true, "after the graph")

	run(t, func() { torch.FromBlob([]float32{}, []int64{0}, nil, func() { released <- "" }) })
	was(true, "without elements")
}

// TestFromBlobPins keeps Go's memory, to which nothing else refers.
func TestFromBlobPins(t *testing.T) {
	collecting(func() {
		for i := range 300 {
			run(t, func() {
				data := make([]int64, 1000)
				for k := range data {
					data[k] = int64(i)
				}
				x := torch.FromBlob(data, []int64{1000}, nil, nil)
				data = nil
				runtime.GC()
				_ = make([]int64, 1000)
				if v := x.Sum().Item(); v != float64(1000*i) {
					t.Errorf("sum %v, want %d", v, 1000*i)
				}
			})
		}
	})
}
