package bridge

import (
	"math"
	"math/rand/v2"

	"cyclecap/nets/clip"
	"cyclecap/torch"
	"cyclecap/train"
)

// decap is DeCap's projection (Li et al. 2023, section 3.3): it replaces the image
// feature by a sum of the text features in a memory, weighted by the softmax of their
// cosines, divided by a temperature.
var _ = Register(Bridge{
	Name: "decap", Title: "DeCap memory", Decoder: OfTexts, Sets: true,
	Settings: []Setting{
		{Key: "decap_temperature", Default: 0.01, Range: "[1e-4,100]", Source: "DeCap",
			Text: "is the temperature of DeCap's softmax over the memory, which divides the cosines; DeCap's code multiplies them by 100."},
		{Key: "decap_memory", Whole: true, Range: "[0,1e9]", Source: "DeCap",
			Text: "is the number of texts in DeCap's memory, selected at random by the seed; 0 means all."},
	},
	Parameters: func(e Env) int64 {
		return int64(remembered(e.Texts, int(e.Settings["decap_memory"]))) * int64(e.Texts.Width())
	},
	Fit: func(e Env) (Transform, error) {
		temperature := e.Settings["decap_temperature"]
		memory, err := sample(e.Texts, int(e.Settings["decap_memory"]), e.Seed)
		if err != nil {
			return nil, err
		}
		memory = clip.Normalize(memory.To(torch.WithDevice(e.Device))) // [m, width]
		return func(x torch.Tensor) torch.Tensor {
			// The softmax goes through the memory in parts, to avoid a matrix of all
			// photos and all texts.
			x = clip.Normalize(x)
			n, m := x.Size(0), memory.Size(0)
			const part = 65536
			top := torch.Full([]int64{n, 1}, math.Inf(-1), torch.WithDevice(e.Device))
			for at := int64(0); at < m; at += part {
				top = torch.Tidy(func() torch.Tensor {
					cos := x.MM(memory.Narrow(0, at, min(part, m-at)).T())
					return top.Maximum(cos.Amax(torch.WithDimList([]int64{1}), torch.WithKeepdim(true)))
				})
			}
			sum := torch.Zeros([]int64{n, memory.Size(1)}, torch.WithDevice(e.Device))
			for at := int64(0); at < m; at += part {
				sum = torch.Tidy(func() torch.Tensor {
					rows := memory.Narrow(0, at, min(part, m-at))
					w := x.MM(rows.T()).Sub(top).DivScalar(temperature).Exp()
					return sum.Add(w.MM(rows))
				})
			}
			return e.rescale(sum) // rescaling makes the softmax's denominator unnecessary
		}, nil
	},
})

// remembered returns the number of rows in a memory of n rows, where 0 means all.
func remembered(f train.Features, n int) int {
	if n == 0 {
		return f.Len()
	}
	return min(n, f.Len())
}

// sample returns n rows drawn by a seed, or all rows in order if n is 0.
func sample(f train.Features, n int, seed uint64) (torch.Tensor, error) {
	total := f.Len()
	rows := make([]int32, total)
	for i := range rows {
		rows[i] = int32(i)
	}
	if n = remembered(f, n); n < total {
		rng := rand.New(rand.NewPCG(seed, 0))
		rng.Shuffle(total, func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
		rows = rows[:n]
	}
	data := make([]float32, len(rows)*f.Width())
	if err := f.Read(rows, data); err != nil {
		return torch.Tensor{}, err
	}
	return torch.FromSlice(data, int64(len(rows)), int64(f.Width())), nil
}
