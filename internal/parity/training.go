package parity

import (
	"cyclecap/torch"
	"cyclecap/train"
)

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
