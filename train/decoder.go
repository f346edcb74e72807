package train

import (
	"cyclecap/nets/clipcap"
	"cyclecap/torch"
)

// DecoderLoss returns ClipCap's loss of a decoder, given CLIP features [n, width] and the
// captions' GPT-2 tokens [n, t] (int64, padded at the end with 0): the mean cross-entropy
// of each token given the prefix and the tokens before it. As in ClipCap, token 0 counts
// as padding at any position.
//
// Only the positions of the caption go through GPT-2's head, and attention is plain causal
// attention: padding follows the text, so no position that counts can attend to it. If the
// head is frozen, it is computed for a part of the positions at a time (headLoss). With
// exact, DecoderLoss computes what ClipCap does: the head on the prefix as well, and a mask
// for the padding. That is slower and bit-identical to Python; it exists for regression
// tests. The two differ by rounding, since the products of a matrix with fewer rows may be
// summed in another order: the loss by an ulp or two, and gradients by about 5e-6 of their
// largest element (docs/parity.md has the measurements). Without exact, the number of tokens
// that count is read from the device.
func DecoderLoss(m *clipcap.Model, features, tokens torch.Tensor, exact bool) torch.Tensor {
	if !exact {
		return decoderLoss(m, features, tokens, tokens.Flatten().Nonzero().Flatten())
	}
	embeds, p := decoderInput(m, features, tokens)
	hidden := m.GPT2.Forward(embeds, nil, causalPadMask(tokens, p))
	logits := m.GPT2.Logits(hidden).Narrow(1, p-1, tokens.Size(1)) // [n, t, vocab]
	return crossEntropy(logits.Flatten(torch.WithEndDim(1)), tokens.Flatten())
}

// decoderLoss is DecoderLoss without exact. counted are the positions in tokens, flattened, of
// those that are not 0: the caller knows them before the device does.
func decoderLoss(m *clipcap.Model, features, tokens, counted torch.Tensor) torch.Tensor {
	embeds, p := decoderInput(m, features, tokens)
	hidden := m.GPT2.Forward(embeds, nil, torch.Tensor{}).Narrow(1, p-1, tokens.Size(1))
	hidden = hidden.Flatten(torch.WithEndDim(1)).IndexSelect(0, counted) // [k, d]
	tokens = tokens.Flatten().IndexSelect(0, counted)
	if m.GPT2.HeadWeight().RequiresGrad() {
		return crossEntropy(m.GPT2.Logits(hidden), tokens)
	}
	return headLoss(m.GPT2.Logits, m.GPT2.HeadWeight().Size(0), hidden, tokens)
}

// decoderInput returns GPT-2's input [n, p+t, d]: prefixes and embeddings of tokens.
func decoderInput(m *clipcap.Model, features, tokens torch.Tensor) (embeds torch.Tensor, p int64) {
	prefix := m.Mapper.Forward(features) // [n, p, d]
	return torch.Cat([]torch.Tensor{prefix, m.GPT2.Embed(tokens)}, torch.WithDim(1)), prefix.Size(1)
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

// headLoss returns the mean cross-entropy of tokens [n], none of them padding, given hidden
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
	if n == 0 {
		return crossEntropy(head(hidden), tokens) // NaN
	}
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
// to itself and to earlier ones, except to padding.
func causalPadMask(tokens torch.Tensor, p int64) torch.Tensor {
	n, t := tokens.Size(0), tokens.Size(1)
	on := []torch.Option{torch.WithDType(torch.Bool), torch.WithDevice(tokens.Device())}
	real := torch.Cat([]torch.Tensor{torch.Ones([]int64{n, p}, on...), tokens.GtScalar(0)}, torch.WithDim(1)) // [n, p+t]
	causal := torch.Ones([]int64{p + t, p + t}, on...).Tril()
	return causal.Unsqueeze(0).Unsqueeze(0).BitwiseAnd(real.Unsqueeze(1).Unsqueeze(1))
}
