package train

import (
	"math"
	"slices"

	"cyclecap/nets/clipcap"
	"cyclecap/nets/gpt2"
	"cyclecap/torch"
)

// DecoderLoss returns ClipCap's loss of a decoder, given CLIP features [n, width] and the
// captions' GPT-2 tokens [n, t] (int64, padded at the end with 0): the mean cross-entropy
// of each token given the prefix and the tokens before it. As in ClipCap, token 0 counts
// as padding at any position.
//
// Padding does not go through GPT-2 except in attention, nor does the last token of a caption, whose
// output nobody needs, and its head sees only the positions whose tokens count. If the
// head is frozen, it is computed for a part of the positions at a time (headLoss). With
// exact, DecoderLoss computes what ClipCap does: padding and the prefix as well, and a mask
// for the padding. That is slower and bit-identical to Python; it exists for regression
// tests. The two differ by rounding, since the products of a matrix with fewer rows may be
// summed in another order: the loss by an ulp or two, and gradients by about 5e-6 of their
// largest element (docs/parity.md has the measurements). Without exact, the tokens are read
// from the device.
func DecoderLoss(m *clipcap.Model, features, tokens torch.Tensor, exact bool) torch.Tensor {
	if !exact {
		rows, ids := make([][]int64, tokens.Size(0)), torch.ToSlice[int64](tokens)
		for i := range rows {
			rows[i] = ids[i*int(tokens.Size(1)):][:tokens.Size(1)]
		}
		return decoderLoss(m, features, newCaptionBatch(rows, m.Mapper.PrefixLength(), tokens.Device()))
	}
	prefix := m.Mapper.Forward(features) // [n, p, d]
	p := prefix.Size(1)
	embeds := torch.Cat([]torch.Tensor{prefix, m.GPT2.Embed(tokens)}, torch.WithDim(1))
	hidden := m.GPT2.Forward(embeds, nil, causalPadMask(tokens, p))
	logits := m.GPT2.Logits(hidden).Narrow(1, p-1, tokens.Size(1)) // [n, t, vocab]
	return crossEntropy(logits.Flatten(torch.WithEndDim(1)), tokens.Flatten())
}

// captionBatch is the captions of a batch as decoderLoss needs them. All tensors are int64.
type captionBatch struct {
	inputs  torch.Tensor // the tokens that GPT-2 reads: those of all captions, without the last of each
	targets torch.Tensor // the tokens that count, in order
	// places are those of the prefixes, caption by caption, and then of inputs. What they give is wanted
	// where a token that counts comes next.
	places gpt2.Varlen
}

// newCaptionBatch places the tokens of captions, which may be padded with 0, after prefixes of length p.
func newCaptionBatch(rows [][]int64, p int64, d torch.Device) captionBatch {
	n, longest := int64(len(rows)), int64(1)
	for i, row := range rows {
		for len(row) > 0 && row[len(row)-1] == 0 {
			row = row[:len(row)-1]
		}
		rows[i], longest = row, max(longest, int64(len(row)))
	}
	length := p + longest - 1
	var inputs, targets, positions, places, wanted []int64
	place := func(row int, position int64) {
		positions, places = append(positions, position), append(places, int64(row)*length+position)
	}
	for i := range rows {
		for j := range p {
			place(i, j)
		}
	}
	for i, row := range rows {
		before := (int64(i)+1)*p - 1 // the row of the last position of the prefix
		for j, id := range row {
			if id != 0 {
				targets, wanted = append(targets, id), append(wanted, before)
			}
			if j < len(row)-1 {
				before = int64(len(places))
				place(i, p+int64(j))
				inputs = append(inputs, id)
			}
		}
	}
	all := slices.Concat(inputs, targets, positions, places, wanted)
	rest := torch.FromSliceOn(d, all, int64(len(all))) // one copy to the device
	next := func(list []int64) torch.Tensor {
		k := int64(len(list))
		part := rest.Narrow(0, 0, k)
		rest = rest.Narrow(0, k, rest.Size(0)-k)
		return part
	}
	return captionBatch{inputs: next(inputs), targets: next(targets),
		places: gpt2.Varlen{Texts: n, Length: length, Positions: next(positions), Places: next(places), Wanted: next(wanted)}}
}

// decoderLoss is DecoderLoss without exact.
func decoderLoss(m *clipcap.Model, features torch.Tensor, c captionBatch) torch.Tensor {
	prefix := m.Mapper.Forward(features).Flatten(torch.WithEndDim(1)) // [n x p, d]
	if c.targets.Size(0) == 0 {
		return prefix.Sum().MulScalar(math.NaN()) // the mean of nothing
	}
	embeds := torch.Cat([]torch.Tensor{prefix, m.GPT2.Embed(c.inputs)})
	hidden := m.GPT2.ForwardVarlen(embeds, c.places) // [k, d]
	if m.GPT2.HeadWeight().RequiresGrad() {
		return crossEntropy(m.GPT2.Logits(hidden), c.targets)
	}
	return headLoss(m.GPT2.Logits, m.GPT2.HeadWeight().Size(0), hidden, c.targets)
}

// crossEntropy returns the mean cross-entropy of logits [n, vocab] over the tokens [n] that
// are not padding.
func crossEntropy(logits, tokens torch.Tensor, o ...torch.Option) torch.Tensor {
	logits = logits.To(torch.WithDType(torch.Float32)) // autocast may have computed bf16
	return logits.CrossEntropyLoss(tokens, append(o, torch.WithIgnoreIndex(0))...)
}

// How many bytes of logits headLoss computes at a time: what the caches of a CPU can hold,
// and what keeps a GPU busy.
const (
	logitsCPU = 8 << 20
	logitsGPU = 256 << 20
)

// headLoss returns the mean cross-entropy of tokens [n], at least one and none of them padding, given hidden
// states [n, d] and a frozen head with vocab scores. It computes the logits of a few positions, their loss and the
// gradient of their hidden states, and forgets the logits before the next ones: all of them
// are the largest tensors of a step, and a CPU takes longer to write and read them than to
// compute them.
func headLoss(head func(torch.Tensor) torch.Tensor, vocab int64, hidden, tokens torch.Tensor) torch.Tensor {
	bytes := int64(logitsGPU)
	if tokens.Device() == torch.CPU {
		bytes = logitsCPU
	}
	n, rows := tokens.Size(0), max(1, bytes/(4*vocab))
	all := hidden.Detach()
	loss := torch.Zeros([]int64{}, torch.WithDevice(tokens.Device()))
	var grads []torch.Tensor
	for at := int64(0); at < n; at += rows {
		k := min(rows, n-at)
		part := all.Narrow(0, at, k).Detach().SetRequiresGrad(hidden.RequiresGrad())
		sum := crossEntropy(head(part), tokens.Narrow(0, at, k), torch.WithReduction(reductionSum))
		loss = loss.Add(sum.Detach())
		if hidden.RequiresGrad() {
			sum.Backward()
			grads = append(grads, part.Grad())
		}
	}
	loss = loss.DivScalar(float64(n))
	if !hidden.RequiresGrad() {
		return loss
	}
	// A term with the value 0 and the gradient of the loss.
	term := hidden.Mul(torch.Cat(grads).DivScalar(float64(n))).Sum()
	return loss.Add(term.Sub(term.Detach()))
}

// reductionSum is at::Reduction::Sum.
const reductionSum = 2

// causalPadMask returns the boolean attention mask [n, 1, p+t, p+t]: each position attends
// to itself and to earlier ones, except to padding, which is what follows the last token that is not 0.
func causalPadMask(tokens torch.Tensor, p int64) torch.Tensor {
	n, t := tokens.Size(0), tokens.Size(1)
	on := []torch.Option{torch.WithDType(torch.Bool), torch.WithDevice(tokens.Device())}
	counts := tokens.NeScalar(0).To(torch.WithDType(torch.Int64))
	upTo := counts.Cumsum(1)
	follows := upTo.Narrow(1, t-1, 1).Sub(upTo).Add(counts)                                                    // number of tokens from here on that are not 0
	real := torch.Cat([]torch.Tensor{torch.Ones([]int64{n, p}, on...), follows.GtScalar(0)}, torch.WithDim(1)) // [n, p+t]
	causal := torch.Ones([]int64{p + t, p + t}, on...).Tril()
	return causal.Unsqueeze(0).Unsqueeze(0).BitwiseAnd(real.Unsqueeze(1).Unsqueeze(1))
}
