package clipcap

import (
	"context"
	"fmt"
	"math"
	"slices"

	"cyclecap/nets/gpt2"
	"cyclecap/torch"
)

// A Batcher decodes captions that join and leave between two tokens (continuous
// batching): a new one need not wait until those of a batch have ended, and the place of
// one that has ended is free for the next. Its methods must not be called concurrently,
// nor from the functions of Options.
//
// A caption's tokens do not depend on the others, except where two tokens are equally
// probable up to rounding: libtorch adds in another order for another number of rows, and
// for rows of different lengths. Captions that are added together are computed as by
// Generate on the CPU, which is a Batcher, until others join.
type Batcher struct {
	m       *Model
	o       Options
	mapped  bool // the inputs are features, not prefixes
	most    int
	added   int // number of captions so far
	joining []*row
	rows    []*row // those in the cache, in its order; some may have ended
	cache   *gpt2.RowCache
	never   torch.Tensor // bool [vocab]: tokens that are never chosen; undefined: none
}

// row is a caption that has not ended.
type row struct {
	id        int
	most      int              // tokens
	generator *torch.Generator // for Sample
	input     torch.Tensor     // [1, ...], until it joins
	caption   Caption
	ended     bool
}

// RowOptions configures one caption of a Batcher.
type RowOptions struct {
	MaxTokens int    // at most Options.MaxTokens, which 0 means
	Seed      uint64 // for Sample
}

// Finished is a caption that has ended. Where the networks computed NaN or infinity, it
// ends with a token whose log-probability is not finite.
type Finished struct {
	ID int // that Add returned
	Caption
}

// NewBatcher returns a Batcher for at most most captions at a time, by Greedy, TopP or
// Sample. It must be closed. Its memory is that of most rows of Generate.
func (m *Model) NewBatcher(o Options, most int) (b *Batcher, err error) {
	length := m.Mapper.PrefixLength()
	if err := m.check(o, length); err != nil {
		return nil, err
	}
	if !o.Method.Single() {
		return nil, fmt.Errorf("a batcher decodes by %s, %s or %s, got %q", Greedy, TopP, Sample, o.Method)
	}
	if most < 1 {
		return nil, fmt.Errorf("a batcher must have room for at least 1 caption, got %d", most)
	}
	err = torch.Scope(func() error {
		b = m.newBatcher(o, most, true, length)
		return nil
	})
	return b, err
}

// newBatcher returns a Batcher for features or, if mapped is false, prefixes of the given
// length.
func (m *Model) newBatcher(o Options, most int, mapped bool, length int64) *Batcher {
	b := &Batcher{m: m, o: o, most: most, mapped: mapped}
	// In inference mode, in which alone the tensors of one step can be changed in the next.
	torch.InferenceMode(func() {
		b.cache = m.GPT2.NewRowCache(int64(most), length+int64(o.MaxTokens)-1)
		b.never = m.neverOn(m.GPT2.Wte.Weight.Device(), m.GPT2.Config.VocabSize)
	})
	return b
}

// Room returns the number of captions that Add takes.
func (b *Batcher) Room() int { return b.most - b.Len() }

// Len returns the number of captions that have not ended.
func (b *Batcher) Len() int {
	n := len(b.joining)
	for _, r := range b.rows {
		if !r.ended {
			n++
		}
	}
	return n
}

// Add adds a caption for each feature of [n, width] with the options of rows, and returns
// their ids: 0 for the first caption of the Batcher, and one more for each other. The
// next Step computes their prefixes. features may be freed afterwards.
func (b *Batcher) Add(features torch.Tensor, rows []RowOptions) (ids []int, err error) {
	shape := features.Shape()
	if width := b.m.Mapper.FeatureWidth(); len(shape) != 2 || shape[0] != int64(len(rows)) || shape[1] != width {
		return nil, fmt.Errorf("the features of %d captions have shape %v, want [%d %d]", len(rows), shape, len(rows), width)
	}
	if len(rows) > b.Room() {
		return nil, fmt.Errorf("the batcher has room for %d captions, got %d", b.Room(), len(rows))
	}
	for i, r := range rows {
		if r.MaxTokens < 0 || r.MaxTokens > b.o.MaxTokens {
			return nil, fmt.Errorf("row %d: the maximum number of tokens must be between 1 and %d, that of the batcher, got %d", i, b.o.MaxTokens, r.MaxTokens)
		}
	}
	err = torch.Scope(func() error {
		torch.InferenceMode(func() {
			for i, r := range rows {
				ids = append(ids, b.add(features.Narrow(0, int64(i), 1).Clone().Keep(), r))
			}
		})
		return nil
	})
	return ids, err
}

// add adds a caption for an input [1, ...], which it closes.
func (b *Batcher) add(input torch.Tensor, o RowOptions) int {
	r := &row{id: b.added, most: o.MaxTokens, input: input}
	if r.most == 0 {
		r.most = b.o.MaxTokens
	}
	if b.o.Method == Sample {
		r.generator = torch.NewGenerator(torch.CPU).ManualSeed(o.Seed)
	}
	b.added++
	b.joining = append(b.joining, r)
	return r.id
}

// Remove ends a caption, such as one that nobody waits for any more. Its place is free at
// once. An id that has ended is ignored.
func (b *Batcher) Remove(id int) {
	for _, r := range b.rows {
		if r.id == id {
			r.ended = true
		}
	}
	b.joining = slices.DeleteFunc(b.joining, func(r *row) bool {
		if r.id == id {
			r.input.Close()
		}
		return r.id == id
	})
}

// Step chooses a token for every caption, and returns those that have ended. When ctx is
// done, it returns ctx's error instead, and the captions can still be continued. After
// another error, the Batcher can only be closed.
func (b *Batcher) Step(ctx context.Context) (ended []Finished, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if b.Len() == 0 {
		return nil, nil
	}
	err = torch.Scope(func() error {
		torch.InferenceMode(func() { ended = b.step() })
		return nil
	})
	return ended, err
}

func (b *Batcher) step() (ended []Finished) {
	b.leave()
	var parts []torch.Tensor // logits
	if len(b.rows) > 0 {
		parts = append(parts, b.next())
	}
	if len(b.joining) > 0 {
		parts = append(parts, b.join())
	}
	logits := parts[0]
	if len(parts) > 1 {
		logits = torch.Cat(parts)
	}
	ids, logProbs := b.choose(logits)
	for i, r := range b.rows {
		c, id, p := &r.caption, ids[i], logProbs[i]
		c.Tokens = append(c.Tokens, id)
		c.TokenLogProbs = append(c.TokenLogProbs, p)
		c.LogProb += p
		finite := !math.IsNaN(p) && !math.IsInf(p, 0)
		if r.ended = id == b.o.Stop || len(c.Tokens) == r.most || !finite; r.ended {
			c.Score = c.LogProb / float64(len(c.Tokens))
			ended = append(ended, Finished{r.id, *c})
		}
		if finite && b.o.OnToken != nil {
			b.o.OnToken(r.id, id, p)
		}
	}
	return ended
}

// leave takes captions that have ended out of the cache.
func (b *Batcher) leave() {
	var keep []int64
	for i, r := range b.rows {
		if !r.ended {
			keep = append(keep, int64(i))
		}
	}
	if len(keep) < len(b.rows) {
		b.cache.Keep(keep)
		b.rows = slices.DeleteFunc(b.rows, func(r *row) bool { return r.ended })
	}
}

// next feeds the last tokens and returns the next logits.
func (b *Batcher) next() torch.Tensor {
	last := make([]int64, len(b.rows))
	for i, r := range b.rows {
		last[i] = r.caption.Tokens[len(r.caption.Tokens)-1]
	}
	return torch.Tidy(func() torch.Tensor {
		gpt := b.m.GPT2
		ids := torch.FromSlice(last, int64(len(last)), 1).To(torch.WithDevice(gpt.Wte.Weight.Device()))
		return b.m.logits(gpt.ForwardNext(gpt.Embed(ids), b.cache), b.never)
	})
}

// join puts the joining captions into the cache and returns the logits of their first
// tokens.
func (b *Batcher) join() torch.Tensor {
	inputs := make([]torch.Tensor, len(b.joining))
	for i, r := range b.joining {
		inputs[i] = r.input
	}
	logits := torch.Tidy(func() torch.Tensor {
		input := torch.Cat(inputs)
		if b.mapped {
			input = b.m.prefixes(input, b.o)
		}
		return b.m.logits(b.m.GPT2.ForwardNew(input, b.cache), b.never)
	})
	for _, t := range inputs {
		t.Close()
	}
	b.rows, b.joining = append(b.rows, b.joining...), nil
	return logits
}

// choose returns the chosen tokens and their log-probabilities, given the logits
// [rows, vocab].
func (b *Batcher) choose(logits torch.Tensor) ([]int64, []float64) {
	if b.o.Method != Sample {
		chosen := logits.Argmax(torch.WithDim(-1))
		return torch.ToSlice[int64](chosen), torch.ToSlice[float64](logProbOf(logits, chosen.Unsqueeze(1)))
	}
	// On the CPU, so that a seed means the same caption everywhere.
	logits = logits.To(torch.WithDevice(torch.CPU))
	p := Warp(logits.To(torch.WithDType(torch.Float32)), b.o).Softmax(-1)
	sums := torch.ToSlice[float64](p.SumDim([]int64{-1}))
	ids := make([]torch.Tensor, len(b.rows))
	for i, r := range b.rows {
		if math.IsNaN(sums[i]) {
			// multinomial would refuse, and all captions would end with this one.
			ids[i] = torch.Zeros([]int64{1}, torch.WithDType(torch.Int64))
			continue
		}
		// Each caption has a generator of its own, so that it does not depend on the others.
		ids[i] = p.Select(0, int64(i)).Multinomial(1, torch.WithGenerator(r.generator))
	}
	chosen := torch.Cat(ids)
	logProbs := torch.ToSlice[float64](logProbOf(logits, chosen.Unsqueeze(1)))
	for i, sum := range sums {
		if math.IsNaN(sum) {
			logProbs[i] = sum
		}
	}
	return torch.ToSlice[int64](chosen), logProbs
}

// Close frees the memory, also of captions that have not ended. A closed Batcher has no
// room.
func (b *Batcher) Close() {
	b.cache.Close()
	b.never.Close()
	for _, r := range b.joining {
		r.input.Close()
	}
	b.rows, b.joining, b.most = nil, nil, 0
}
