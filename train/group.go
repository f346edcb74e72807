package train

import (
	"cyclecap/torch"
	"cyclecap/torch/distributed"
)

// share returns this process's part of a batch that is the same in all processes.
func share(batch []int32, g *distributed.Group) []int32 {
	n := len(batch) / g.Size()
	return batch[g.Rank()*n : (g.Rank()+1)*n]
}

// gathered returns the rows of all processes in the order of their ranks. part returns
// this process's rows of such a tensor.
func gathered(g *distributed.Group, rows torch.Tensor) (all torch.Tensor, part func(torch.Tensor) torch.Tensor) {
	if g.Size() == 1 {
		return rows, func(t torch.Tensor) torch.Tensor { return t }
	}
	list, err := g.AllGather(rows.Detach().Contiguous())
	if err != nil {
		torch.Throw("all_gather", "%v", err)
	}
	n := rows.Size(0)
	return torch.Cat(list), func(t torch.Tensor) torch.Tensor { return t.Narrow(0, n*int64(g.Rank()), n) }
}
