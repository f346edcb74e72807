package train

import (
	"cyclecap/nets/clipcap"
	"cyclecap/torch"
)

// DecoderLoss is ClipCap's loss of a decoder on CLIP features [n, width] and
// the captions' GPT-2 tokens [n, t] (int64, padded behind with 0): the mean
// cross-entropy of each token given the prefix and the tokens before it. As
// in ClipCap token 0 is padding wherever it stands.
//
// Only the caption's positions go through GPT-2's head; ClipCap computes the
// prefix positions too and drops them.
//
// padMask hides the padding from attention, as ClipCap does. Since padding
// stands behind the text, no position that counts can see it anyway: without
// the mask the loss is the same up to rounding, and libtorch takes its faster
// causal attention. It is there to reproduce a run bit by bit.
func DecoderLoss(m *clipcap.Model, features, tokens torch.Tensor, padMask bool) torch.Tensor {
	prefix := m.Mapper.Forward(features)                                                // [n, p, d]
	embeds := torch.Cat([]torch.Tensor{prefix, m.GPT2.Embed(tokens)}, torch.WithDim(1)) // [n, p+t, d]
	p, t := prefix.Size(1), tokens.Size(1)
	var mask torch.Tensor
	if padMask {
		mask = causalPadMask(tokens, p)
	}
	hidden := m.GPT2.Forward(embeds, nil, mask)
	logits := m.GPT2.Logits(hidden.Narrow(1, p-1, t)) // [n, t, vocab]
	return logits.Reshape([]int64{-1, logits.Size(2)}).CrossEntropyLoss(tokens.Flatten(), torch.WithIgnoreIndex(0))
}

// causalPadMask gives the boolean mask [n, 1, p+t, p+t] of what may be seen:
// positions not behind one's own, padding excluded.
func causalPadMask(tokens torch.Tensor, p int64) torch.Tensor {
	n, t := tokens.Size(0), tokens.Size(1)
	on := []torch.Option{torch.WithDType(torch.Bool), torch.WithDevice(tokens.Device())}
	real := torch.Cat([]torch.Tensor{torch.Ones([]int64{n, p}, on...), tokens.GtScalar(0)}, torch.WithDim(1)) // [n, p+t]
	causal := torch.Ones([]int64{p + t, p + t}, on...).Tril()
	return causal.Unsqueeze(0).Unsqueeze(0).LogicalAnd(real.Unsqueeze(1).Unsqueeze(1))
}
