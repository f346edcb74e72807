package nn_test

import (
	"strings"
	"testing"

	"cyclecap/torch"
	"cyclecap/torch/internal/fixture"
	"cyclecap/torch/nn"

	"github.com/google/go-cmp/cmp"
)

// A packedCase is a case of make_packed_fixtures.py.
type packedCase struct {
	Name, Kind    string
	BatchFirst    bool `json:"batch_first"`
	Bidirectional bool
	Sorted        bool
	States        bool
	Lengths       []int64
}

// TestPackedSequences compares what the recurrent modules compute for packed sequences with PyTorch: bits of
// outputs, states and all gradients.
func TestPackedSequences(t *testing.T) {
	all := fixture.Open(t, "../testdata/packed.json.gz")
	var cases []packedCase
	all.Cases(&cases)
	if len(cases) != 5*16 {
		t.Fatalf("%d cases", len(cases))
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) { scoped(t, func() { c.run(t, all.For(t)) }) })
	}
}

func (c *packedCase) run(t *testing.T, s *fixture.Set) {
	o := nn.RNNDefaults()
	o.NumLayers, o.Bidirectional, o.BatchFirst = 2, c.Bidirectional, c.BatchFirst
	torch.ManualSeed(3)
	var m any
	var forward func(x nn.PackedSequence, h, c torch.Tensor) (nn.PackedSequence, []torch.Tensor)
	size := int64(4)
	two := false
	switch c.Kind {
	case "rnn", "relu":
		if c.Kind == "relu" {
			o.Nonlinearity = "relu"
		}
		r := nn.RNN(3, 4, o)
		m, forward = r, func(x nn.PackedSequence, h, _ torch.Tensor) (nn.PackedSequence, []torch.Tensor) {
			y, hn := r.ForwardPacked(x, h)
			return y, []torch.Tensor{hn}
		}
	case "gru":
		r := nn.GRU(3, 4, o)
		m, forward = r, func(x nn.PackedSequence, h, _ torch.Tensor) (nn.PackedSequence, []torch.Tensor) {
			y, hn := r.ForwardPacked(x, h)
			return y, []torch.Tensor{hn}
		}
	default:
		if c.Kind == "projection" {
			o.ProjSize, size = 2, 2
		}
		two = true
		r := nn.LSTM(3, 4, o)
		m, forward = r, func(x nn.PackedSequence, h, c torch.Tensor) (nn.PackedSequence, []torch.Tensor) {
			y, hn, cn := r.ForwardPacked(x, h, c)
			return y, []torch.Tensor{hn, cn}
		}
	}
	defer nn.Close(m)
	shape := []int64{6, 4, 3}
	if c.BatchFirst {
		shape = []int64{4, 6, 3}
	}
	x := torch.Randn(shape).SetRequiresGrad(true)
	initial := make([]torch.Tensor, 2)
	if c.States {
		n := int64(2)
		if c.Bidirectional {
			n = 4
		}
		initial[0] = torch.Randn([]int64{n, 4, size}).SetRequiresGrad(true)
		if two {
			initial[1] = torch.Randn([]int64{n, 4, 4}).SetRequiresGrad(true)
		}
	}
	packed := nn.PackPaddedSequence(x, c.Lengths, c.BatchFirst, c.Sorted)
	y, states := forward(packed, initial[0], initial[1])
	total := int64(0)
	if c.Sorted {
		total = 7
	}
	padded, lengths := nn.PadPackedSequence(y, c.BatchFirst, -1.5, total)
	if diff := cmp.Diff(c.Lengths, lengths); diff != "" {
		t.Errorf("lengths: %s", diff)
	}
	loss := padded.Square().Sum()
	for _, state := range states {
		loss = loss.Add(state.Sin().Sum())
	}
	loss.Backward()
	equal := func(name string, got torch.Tensor) { s.Equal(name, got, c.Name+"/"+name) }
	equal("packed", packed.Data)
	equal("batch_sizes", packed.BatchSizes)
	equal("output", y.Data)
	equal("padded", padded)
	equal("x.grad", x.Grad())
	if packed.SortedIndices.Defined() == c.Sorted {
		t.Errorf("sorted_indices is %v", packed.SortedIndices)
	}
	if !c.Sorted {
		equal("sorted_indices", packed.SortedIndices)
		equal("unsorted_indices", packed.UnsortedIndices)
	}
	for i, state := range states {
		name := []string{"state0", "state1"}[i]
		equal(name, state)
		if c.States {
			equal(name+".grad", initial[i].Grad())
		}
	}
	for _, p := range nn.NamedParameters(m) {
		equal(p.Name+".grad", p.Tensor.Grad())
	}
}

// TestPackSequence packs sequences that were never padded.
func TestPackSequence(t *testing.T) {
	s := fixture.Open(t, "../testdata/packed.json.gz")
	scoped(t, func() {
		torch.ManualSeed(4)
		var parts []torch.Tensor
		for _, n := range []int64{2, 4, 1} {
			parts = append(parts, torch.Randn([]int64{n, 2, 3}))
		}
		p := nn.PackSequence(parts, false)
		s.Equal("data", p.Data, "pack_sequence/data")
		s.Equal("batch_sizes", p.BatchSizes, "pack_sequence/batch_sizes")
		s.Equal("sorted_indices", p.SortedIndices, "pack_sequence/sorted_indices")
		s.Equal("unsorted_indices", p.UnsortedIndices, "pack_sequence/unsorted_indices")
	})
}

// TestPackedObserved: OnOutput sees the data of a packed output.
func TestPackedObserved(t *testing.T) {
	scoped(t, func() {
		m := nn.GRU(2, 3, nn.RNNDefaults())
		defer nn.Close(m)
		var seen []int64
		nn.OnOutput(m, func(_ string, out torch.Tensor) { seen = out.Shape() })
		m.ForwardPacked(nn.PackSequence([]torch.Tensor{torch.Ones([]int64{4, 2}), torch.Ones([]int64{1, 2})}, true), torch.Tensor{})
		if diff := cmp.Diff([]int64{5, 3}, seen); diff != "" {
			t.Error(diff)
		}
	})
}

func TestPackedFailures(t *testing.T) {
	scoped(t, func() {
		x := torch.Ones([]int64{4, 2, 3})
		m := nn.LSTM(3, 5, nn.RNNDefaults())
		defer nn.Close(m)
		p := nn.PackPaddedSequence(x, []int64{4, 2}, false, true)
		none := torch.Tensor{}
		for text, f := range map[string]func(){
			"with a batch of 3":                     func() { nn.PackPaddedSequence(x, []int64{1, 1, 1}, false, true) },
			"length 1 is 0":                         func() { nn.PackPaddedSequence(x, []int64{1, 0}, false, true) },
			"length 0 is 5, but an input of shape":  func() { nn.PackPaddedSequence(x, []int64{5, 1}, false, true) },
			"the lengths [1 2] increase":            func() { nn.PackPaddedSequence(x, []int64{1, 2}, false, true) },
			"got [3]":                               func() { nn.PackPaddedSequence(torch.Ones([]int64{3}), nil, false, true) },
			"the longest sequence has length 4":     func() { nn.PadPackedSequence(p, false, 0, 3) },
			"state has shape [1 3 5], want [1 2 5]": func() { m.ForwardPacked(p, torch.Ones([]int64{1, 3, 5}), torch.Ones([]int64{1, 2, 5})) },
			"h and c must be given together":        func() { m.ForwardPacked(p, torch.Ones([]int64{1, 2, 5}), none) },
			"received an empty list of sequences":   func() { nn.PackSequence(nil, true) },
		} {
			err := torch.Scope(func() error { f(); return nil })
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("got %v, want %s", err, text)
			}
		}
	})
}
