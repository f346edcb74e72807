package nn

import (
	"sync"
	"testing"

	"cyclecap/torch"
)

// A module with exact layers has the bits of the plain one before and after its weights are packed.
func TestPackExact(t *testing.T) {
	err := torch.Scope(func() error {
		m := &struct {
			In        *LinearModule
			Attention *MultiheadAttentionModule
			Out       *LinearModule
		}{Linear(96, 192, true), MultiheadAttention(192, 4, MultiheadAttentionDefaults()), Linear(192, 80, false)}
		forward := func(x torch.Tensor) torch.Tensor {
			return m.Out.Forward(m.Attention.SelfAttention(m.In.Forward(x), true))
		}
		torch.NoGrad(func() {
			x := torch.Randn([]int64{3, 20, 96})
			want := forward(x)
			Exact(m)
			layers := []*ExactLinear{m.In.Exact, m.Attention.Exact, m.Attention.OutProj.Exact, m.Out.Exact}
			weights := []torch.Tensor{m.In.Weight, m.Attention.InProjWeight, m.Attention.OutProj.Weight, m.Out.Weight}
			for i := range 80 {
				if i == 60 && torch.HasPanels() { // if that has not been worth while so far
					for k, l := range layers {
						l.once.Do(func() { l.pack(weights[k], false) })
					}
				}
				torch.Tidy(func() torch.Tensor {
					if got := forward(x); !got.Equal(want) {
						t.Fatalf("call %d has other bits", i)
					}
					return torch.Tensor{}
				})
			}
		})
		if n := len(Parameters(m)); n != 7 {
			t.Errorf("%d parameters, want 7", n)
		}
		Close(m)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Several goroutines may compute with a layer while its weight is packed.
func TestExactConcurrent(t *testing.T) {
	var m *LinearModule
	var x, want torch.Tensor
	err := torch.Scope(func() error {
		m, x = Linear(256, 512, true), torch.Randn([]int64{30, 256})
		torch.NoGrad(func() { want = m.Forward(x) })
		x.Keep()
		want.Keep()
		Exact(m)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for call := range 100 {
				err := torch.Scope(func() error {
					torch.NoGrad(func() {
						if got := m.Forward(x); !got.Equal(want) {
							t.Errorf("call %d has other bits", call)
						}
					})
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	Close(m)
	x.Close()
	want.Close()
}
