package parity

import (
	"math"

	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/train"
)

// Numbers compares numbers with those of another implementation.
func Numbers(what, reference string, got, want []float64, tolerance Tolerance) Row {
	r := Row{What: what, Reference: reference, Elements: int64(len(want)), Tolerance: tolerance}
	if len(got) != len(want) {
		torch.Throw("parity", "%s: %d numbers, %d are expected", what, len(got), len(want))
	}
	var largest float64
	for i, w := range want {
		largest = max(largest, math.Abs(w))
		if math.Float64bits(got[i]) == math.Float64bits(w) {
			continue
		}
		r.Differing++
		d := math.Abs(got[i] - w)
		if math.IsNaN(d) {
			d = math.Inf(1)
		}
		r.MaxDiff = max(r.MaxDiff, d)
		r.MeanDiff += d / float64(len(want))
	}
	if r.MaxDiff > 0 {
		r.Relative = r.MaxDiff / largest
	}
	return r
}

// Lists compares lists whose elements must be equal: those of token ids, where no
// difference but "another token" makes sense, and of names.
func Lists[T comparable](what, reference string, got, want [][]T) Row {
	r := Row{What: what, Reference: reference}
	if len(got) != len(want) {
		torch.Throw("parity", "%s: %d lists, %d are expected", what, len(got), len(want))
	}
	for i := range want {
		longest := max(len(got[i]), len(want[i]))
		r.Elements += int64(longest)
		for j := range longest {
			if j >= len(got[i]) || j >= len(want[i]) || got[i][j] != want[i][j] {
				r.Differing++
				r.MaxDiff, r.MeanDiff, r.Relative = math.Inf(1), math.Inf(1), math.Inf(1)
			}
		}
	}
	return r
}

// Tensors compares several tensors with those of the same names in a state dict.
func Tensors(what, reference string, got []nn.Named, want *nn.StateDict, tolerance Tolerance) Row {
	r := Row{What: what, Reference: reference, Tolerance: tolerance}
	var sum float64
	for _, g := range got {
		w, ok := want.Get(g.Name)
		if !ok {
			torch.Throw("parity", "%s: the reference has no %s", what, g.Name)
		}
		o := Numbers(what+", "+g.Name, reference, torch.ToSlice[float64](*g.Tensor), torch.ToSlice[float64](w), tolerance)
		r.Differing += o.Differing
		r.Elements += o.Elements
		r.MaxDiff, r.Relative = max(r.MaxDiff, o.MaxDiff), max(r.Relative, o.Relative)
		sum += o.MeanDiff * float64(o.Elements)
	}
	r.MeanDiff = sum / float64(r.Elements)
	return r
}

// InOrder returns the rows of batches [steps, batch, width] as features that a task
// shuffles back into their order: it draws step i's batch as batch i.
func InOrder(batches torch.Tensor, batch int, seed uint64) train.Matrix {
	width := int(batches.Size(2))
	rows := torch.ToSlice[float32](batches.Contiguous())
	m := train.Matrix{Data: make([]float32, len(rows)), Cols: width}
	order := train.Order{N: m.Len(), Batch: batch, Seed: seed}
	for k := range m.Len() {
		at := int(order.Indices(k / batch)[k%batch])
		copy(m.Data[at*width:(at+1)*width], rows[k*width:])
	}
	return m
}

// CycleGANLosses trains for a number of steps and returns the losses of each, in the order
// in which the references write them.
func CycleGANLosses(task *train.CycleGANTask, steps int) (losses []float64, err error) {
	for i := range steps {
		err := torch.Scope(func() error {
			l, err := task.Step(i)
			for _, name := range []string{"gan_text", "gan_image", "cycle_image", "cycle_text", "identity_text", "identity_image", "disc_text", "disc_image"} {
				losses = append(losses, l.Get(name))
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return losses, nil
}
