package verify

import (
	"fmt"
	"math"
	"slices"

	"cyclecap/nets/clipcap"
	"cyclecap/torch"
)

// Where two tokens have nearly the same score, rounding decides which one is taken, and
// what follows differs altogether. Such a difference is no fault: the scores are compared
// with the tolerance of GPT-2's outputs, by our own net.

// Ties finds such places.
type Ties struct {
	Model    *clipcap.Model
	Relative float64 // scores that differ by no more than this part of the largest are equal
}

// Greedy says where lists of tokens part, if in each of them both tokens are as likely;
// otherwise it returns "". prefix has a row for each list.
func (t Ties) Greedy(prefix torch.Tensor, got, want [][]int64) string {
	return t.find(got, want, func(i, at int) (ours, theirs, largest float64) {
		logits := t.logits(prefix.Narrow(0, int64(i), 1), want[i][:at]).Select(0, -1)
		row := torch.ToSlice[float64](logits)
		for _, x := range row {
			largest = max(largest, math.Abs(x))
		}
		return row[got[i][at]], row[want[i][at]], largest
	})
}

// Beams returns Greedy's counterpart for beams, which compares their average
// log-probabilities. each is the number of beams of a prefix.
func (t Ties) Beams(each int) func(prefix torch.Tensor, got, want [][]int64) string {
	return func(prefix torch.Tensor, got, want [][]int64) string {
		return t.find(got, want, func(i, _ int) (ours, theirs, largest float64) {
			row := prefix.Narrow(0, int64(i/each), 1)
			ours, theirs = t.average(row, got[i]), t.average(row, want[i])
			return ours, theirs, math.Abs(theirs)
		})
	}
}

// find calls score for each list that differs, with the place where it does.
func (t Ties) find(got, want [][]int64, score func(i, at int) (ours, theirs, largest float64)) string {
	text, count := "", 0
	if len(got) != len(want) {
		return ""
	}
	for i := range want {
		if slices.Equal(got[i], want[i]) {
			continue
		}
		at := 0
		for at < len(got[i]) && at < len(want[i]) && got[i][at] == want[i][at] {
			at++
		}
		if at == len(got[i]) || at == len(want[i]) {
			return ""
		}
		ours, theirs, largest := score(i, at)
		off := math.Abs(ours-theirs) / largest
		if !(off <= t.Relative) {
			return ""
		}
		if count++; count == 1 {
			text = fmt.Sprintf("at [%d, %d], tokens %d and %d have scores that differ by %.2g of the largest", i, at, got[i][at], want[i][at], off)
		}
	}
	if count > 1 {
		text += fmt.Sprintf(", and %d more captions part at such a place", count-1)
	}
	return text
}

// logits returns GPT-2's logits [t, vocab] after a prefix [1, p, width] and each of the
// tokens that follow it.
func (t Ties) logits(prefix torch.Tensor, tokens []int64) torch.Tensor {
	x := prefix
	if len(tokens) > 0 {
		ids := torch.FromSlice(tokens, 1, int64(len(tokens))).To(torch.WithDevice(prefix.Device()))
		x = torch.Cat([]torch.Tensor{x, t.Model.GPT2.Embed(ids)}, torch.WithDim(1))
	}
	h := t.Model.GPT2.Forward(x, nil, torch.Tensor{}).Slice(torch.WithDim(1), torch.WithStart(prefix.Size(1)-1))
	return t.Model.GPT2.Logits(h).To(torch.WithDType(torch.Float32)).Select(0, 0)
}

// average returns the average log-probability of tokens after a prefix.
func (t Ties) average(prefix torch.Tensor, tokens []int64) float64 {
	logp := t.logits(prefix, tokens[:len(tokens)-1]).LogSoftmax(-1)
	sum := 0.0
	for i, id := range tokens {
		sum += logp.Select(0, int64(i)).Select(0, id).Item()
	}
	return sum / float64(len(tokens))
}
