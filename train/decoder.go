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
// attention: padding follows the text, so no position that counts can attend to it. With
// exact, DecoderLoss computes what ClipCap does: the head on the prefix as well, and a mask
// for the padding. That is slower and bit-identical to Python; it exists for regression
// tests. The two differ by rounding, since the products of a matrix with fewer rows may be
// summed in another order: the loss by an ulp or two, and gradients by about 5e-6 of their
// largest element (docs/parity.md has the measurements).
func DecoderLoss(m *clipcap.Model, features, tokens torch.Tensor, exact bool) torch.Tensor {
	prefix := m.Mapper.Forward(features)                                                // [n, p, d]
	embeds := torch.Cat([]torch.Tensor{prefix, m.GPT2.Embed(tokens)}, torch.WithDim(1)) // [n, p+t, d]
	p, t := prefix.Size(1), tokens.Size(1)
	var logits torch.Tensor // [n, t, vocab]
	if exact {
		logits = m.GPT2.Logits(m.GPT2.Forward(embeds, nil, causalPadMask(tokens, p))).Narrow(1, p-1, t)
	} else {
		logits = m.GPT2.Logits(m.GPT2.Forward(embeds, nil, torch.Tensor{}).Narrow(1, p-1, t))
	}
	logits = logits.To(torch.WithDType(torch.Float32)) // autocast may have computed bf16
	return logits.Reshape([]int64{-1, logits.Size(2)}).CrossEntropyLoss(tokens.Flatten(), torch.WithIgnoreIndex(0))
}

// causalPadMask returns the boolean attention mask [n, 1, p+t, p+t]: each position attends
// to itself and to earlier ones, except to padding.
func causalPadMask(tokens torch.Tensor, p int64) torch.Tensor {
	n, t := tokens.Size(0), tokens.Size(1)
	on := []torch.Option{torch.WithDType(torch.Bool), torch.WithDevice(tokens.Device())}
	real := torch.Cat([]torch.Tensor{torch.Ones([]int64{n, p}, on...), tokens.GtScalar(0)}, torch.WithDim(1)) // [n, p+t]
	causal := torch.Ones([]int64{p + t, p + t}, on...).Tril()
	return causal.Unsqueeze(0).Unsqueeze(0).BitwiseAnd(real.Unsqueeze(1).Unsqueeze(1))
}
