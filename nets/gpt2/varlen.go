package gpt2

import "cyclecap/torch"

// Varlen says where the rows of ForwardVarlen belong: texts of different lengths without padding, as in
// FlashAttention's functions of this name. A row is a position of a text; the order of rows is free. All
// tensors are int64, on the model's device.
type Varlen struct {
	Texts  int64 // number of texts
	Length int64 // number of positions of the longest
	// Positions [rows] are the positions in the texts, and Places [rows] are text*Length + position.
	Positions, Places torch.Tensor
	Wanted            torch.Tensor // [k]: the rows whose hidden states are wanted
}

// ForwardVarlen returns the last hidden states [k, n_embd], after ln_f, of the wanted rows of input
// embeddings [rows, n_embd]. Each is that of Forward on the padded texts, but for rounding. Only attention
// sees padding; matrix products, norms and activations are computed for the rows alone, and after the
// attention of the last layer only for those that are wanted.
func (m *Model) ForwardVarlen(embeds torch.Tensor, v Varlen) torch.Tensor {
	m.reaches(v.Length)
	x := embeds.Add(m.Wpe.Forward(v.Positions))
	for i, b := range m.H {
		x = torch.Tidy(func() torch.Tensor { return b.varlen(x, v, i == len(m.H)-1) })
	}
	return m.LnF.Forward(x)
}

func (b *Block) varlen(x torch.Tensor, v Varlen, last bool) torch.Tensor {
	qkv := b.Attn.CAttn.Forward(b.Ln1.Forward(x)) // [rows, 3d]
	width := qkv.Size(1)
	// Zeros in the padding: a weight of 0 times a NaN in the memory would be NaN.
	padded := torch.Zeros([]int64{v.Texts * v.Length, width}, torch.WithDType(qkv.DType()), torch.WithDevice(qkv.Device())).
		IndexCopy(0, v.Places, qkv).View([]int64{v.Texts, v.Length, width})
	y := b.Attn.attend(padded, nil, 0, torch.Tensor{}).Flatten(torch.WithEndDim(1))
	places := v.Places
	if last {
		places = places.IndexSelect(0, v.Wanted)
		x = x.IndexSelect(0, v.Wanted)
	}
	x = b.Attn.CProj.Forward(y.IndexSelect(0, places)).Add(x)
	return b.Output(x.Add(b.Mlp.Forward(b.Ln2.Forward(x))))
}
