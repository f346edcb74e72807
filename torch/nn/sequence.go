package nn

import (
	"slices"

	"cyclecap/torch"
)

// A PackedSequence is torch.nn.utils.rnn.PackedSequence: a batch of sequences of different lengths
// without padding, longest first, one time step after another. RNN, GRU and LSTM take it with
// ForwardPacked, and compute nothing for padding.
type PackedSequence struct {
	Data       torch.Tensor // [sum of lengths, ...]
	BatchSizes torch.Tensor // int64 [longest length] on the CPU: how many sequences have each step
	// SortedIndices are the places of the sequences in the batch in the order in which they are
	// packed, and UnsortedIndices the reverse. Both are none if the batch was sorted.
	SortedIndices, UnsortedIndices torch.Tensor
}

// PackPaddedSequence is torch.nn.utils.rnn.pack_padded_sequence. input is [t, n, ...], or [n, t, ...]
// with batchFirst, where t is at least the longest of the n lengths, each of which is at least 1. With
// enforceSorted the lengths must not increase; otherwise the sequences are sorted.
func PackPaddedSequence(input torch.Tensor, lengths []int64, batchFirst, enforceSorted bool) PackedSequence {
	const op = "nn.PackPaddedSequence"
	batch, time := 1, 0
	if batchFirst {
		batch, time = 0, 1
	}
	if input.Dim() < 2 || input.Size(batch) != int64(len(lengths)) {
		torch.Throw(op, "expected an input of two or more dimensions with a batch of %d, as many as there are lengths, got %v (BatchFirst: %v)", len(lengths), input.Shape(), batchFirst)
	}
	for i, n := range lengths {
		switch {
		case n < 1 || n > input.Size(time):
			torch.Throw(op, "length %d is %d, but an input of shape %v (BatchFirst: %v) has lengths from 1 to %d", i, n, input.Shape(), batchFirst, input.Size(time))
		case enforceSorted && i > 0 && n > lengths[i-1]:
			torch.Throw(op, "the lengths %v increase; sort the batch, or pass false for enforceSorted", lengths)
		}
	}
	sizes := torch.FromSlice(lengths)
	var p PackedSequence
	if !enforceSorted {
		var sorted torch.Tensor
		sizes, sorted = sizes.Sort(torch.WithDim(0), torch.WithDescending(true))
		p.SortedIndices = sorted.To(torch.WithDevice(input.Device()))
		p.UnsortedIndices = p.SortedIndices.Argsort()
		input = input.IndexSelect(int64(batch), p.SortedIndices)
	}
	out := torch.Call("aten::_pack_padded_sequence", input, sizes, batchFirst)
	p.Data, p.BatchSizes = out[0].(torch.Tensor), out[1].(torch.Tensor)
	return p
}

// PackSequence is torch.nn.utils.rnn.pack_sequence. Each sequence is [length, ...]. With enforceSorted
// the lengths must not increase; otherwise the sequences are sorted.
func PackSequence(sequences []torch.Tensor, enforceSorted bool) PackedSequence {
	var lengths []int64
	for _, s := range sequences {
		lengths = append(lengths, s.Size(0))
	}
	return PackPaddedSequence(torch.PadSequence(sequences), lengths, false, enforceSorted)
}

// PadPackedSequence is torch.nn.utils.rnn.pad_packed_sequence: it returns the sequences [t, n, ...], or
// [n, t, ...] with batchFirst, in the order in which they were packed from, and their lengths. Behind a
// sequence is paddingValue. t is totalLength, which must be at least the longest length, or this if it
// is 0.
func PadPackedSequence(p PackedSequence, batchFirst bool, paddingValue float64, totalLength int64) (torch.Tensor, []int64) {
	longest := p.BatchSizes.Size(0)
	if totalLength == 0 {
		totalLength = longest
	}
	if totalLength < longest {
		torch.Throw("nn.PadPackedSequence", "the total length is %d, but the longest sequence has length %d", totalLength, longest)
	}
	out := torch.Call("aten::_pad_packed_sequence", p.Data, p.BatchSizes, batchFirst, paddingValue, totalLength)
	padded, lengths := out[0].(torch.Tensor), out[1].(torch.Tensor)
	if p.UnsortedIndices.Defined() {
		batch := int64(1)
		if batchFirst {
			batch = 0
		}
		padded = padded.IndexSelect(batch, p.UnsortedIndices)
		lengths = lengths.IndexSelect(0, p.UnsortedIndices.To(torch.WithDevice(torch.CPU)))
	}
	return padded, torch.ToSlice[int64](lengths)
}

// with returns a sequence of the same batch with other data.
func (p PackedSequence) with(data torch.Tensor) PackedSequence {
	p.Data = data
	return p
}

// permuted returns a state with its batch in another order, or as it is if there is none.
func permuted(state, indices torch.Tensor) torch.Tensor {
	if !indices.Defined() {
		return state
	}
	return state.IndexSelect(1, indices)
}

// packedState returns a state of the given size in the order of a packed batch: h, or zeros if it is none.
func (r *recurrent) packedState(h torch.Tensor, p PackedSequence, size int64) torch.Tensor {
	want := []int64{r.o.NumLayers * r.directions(), torch.ItemOf[int64](p.BatchSizes.Select(0, 0)), size}
	if !h.Defined() {
		return torch.Zeros(want, torch.WithDType(p.Data.DType()), torch.WithDevice(p.Data.Device()))
	}
	if got := h.Shape(); !slices.Equal(got, want) {
		torch.Throw(r.op, "the state has shape %v, want %v", got, want)
	}
	return permuted(h, p.SortedIndices)
}

// runPacked is ForwardPacked of RNN and GRU.
func (r *recurrent) runPacked(p PackedSequence, h torch.Tensor, call func(data, sizes, h torch.Tensor, params []torch.Tensor, biases bool, layers int64, dropout float64, train, bidirectional bool) (out, hn torch.Tensor)) (PackedSequence, torch.Tensor) {
	out, hn := call(p.Data, p.BatchSizes, r.packedState(h, p, r.hidden), r.tensors(), r.o.Bias, r.o.NumLayers, r.o.Dropout, r.Training, r.o.Bidirectional)
	return p.with(r.Output(out)), permuted(hn, p.UnsortedIndices)
}

// ForwardPacked is Forward for a packed batch: the states are in the order of the batch before it was
// packed. BatchFirst has no effect on it.
func (m *RNNModule) ForwardPacked(x PackedSequence, h torch.Tensor) (out PackedSequence, hn torch.Tensor) {
	call := torch.RnnTanhData
	if m.o.Nonlinearity == "relu" {
		call = torch.RnnReluData
	}
	return m.runPacked(x, h, call)
}

// ForwardPacked is like that of [RNNModule].
func (m *GRUModule) ForwardPacked(x PackedSequence, h torch.Tensor) (out PackedSequence, hn torch.Tensor) {
	return m.runPacked(x, h, torch.GruData)
}

// ForwardPacked is Forward for a packed batch: the states are in the order of the batch before it was
// packed. BatchFirst has no effect on it.
func (m *LSTMModule) ForwardPacked(x PackedSequence, h, c torch.Tensor) (out PackedSequence, hn, cn torch.Tensor) {
	m.together(h, c)
	states := []torch.Tensor{m.packedState(h, x, m.output), m.packedState(c, x, m.hidden)}
	data, hn, cn := torch.LstmData(x.Data, x.BatchSizes, states, m.tensors(), m.o.Bias, m.o.NumLayers, m.o.Dropout, m.Training, m.o.Bidirectional)
	return x.with(m.Output(data)), permuted(hn, x.UnsortedIndices), permuted(cn, x.UnsortedIndices)
}
