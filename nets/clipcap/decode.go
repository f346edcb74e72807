package clipcap

import (
	"context"
	"fmt"
	"math"
	"slices"

	"cyclecap/nets/gpt2"
	"cyclecap/torch"
)

// Model is a decoder: a mapper and the GPT-2 that continues its prefixes.
type Model struct {
	Mapper Mapper
	GPT2   *gpt2.Model
}

// Method is a way of choosing the next token.
type Method string

// The methods of decoding.
const (
	// Greedy takes the most probable token.
	Greedy Method = "greedy"
	// TopP is ClipCap's "generate2": the tokens outside of the nucleus are
	// removed and the most probable one is taken. The nucleus always holds
	// that one, so the captions are Greedy's.
	TopP Method = "top-p"
	// Sample draws from the distribution after temperature, top-k and top-p.
	Sample Method = "sample"
	// Beam is ClipCap's "generate_beam".
	Beam Method = "beam"
)

// Stop is GPT-2's token ".", by which ClipCap ends a caption.
const Stop = 13

// Options says how to decode.
type Options struct {
	Method    Method
	Beam      int   // beams (ClipCap: 5)
	MaxTokens int   // tokens at most, the stop token included (ClipCap: 67)
	Stop      int64 // the token that ends a caption (ClipCap: Stop); negative: none

	// Of Sample. Temperature 0 means 1; TopK 0 and TopP 0 or 1 mean all.
	Temperature float64
	TopK        int
	TopP        float64
	Seed        uint64
}

// Caption is what was decoded for one feature.
type Caption struct {
	Tokens []int64 // with the stop token, where it came up
	// TokenLogProbs are the log-probabilities of the tokens, each given those
	// before it, by the model itself: before temperature, top-k and top-p.
	TokenLogProbs []float64
	LogProb       float64 // their sum; of beam search in f32, as it ranks by it
	// Score is what beam search ranks by: LogProb over the number of tokens.
	Score float64
}

// Check reports options that make no sense.
func (o Options) Check() error {
	switch o.Method {
	case Greedy, TopP, Sample, Beam:
	default:
		return fmt.Errorf("unknown way of decoding %q; there are greedy, top-p, sample and beam", o.Method)
	}
	if o.MaxTokens < 1 {
		return fmt.Errorf("at least 1 token must be allowed, not %d", o.MaxTokens)
	}
	if o.Method == Beam && o.Beam < 1 {
		return fmt.Errorf("at least 1 beam is needed, not %d", o.Beam)
	}
	if o.Method == Sample && (o.Temperature < 0 || o.TopK < 0 || o.TopP < 0 || o.TopP > 1) {
		return fmt.Errorf("sampling needs a temperature and a top-k of at least 0 and a top-p from 0 to 1 (they are %g, %d, %g)", o.Temperature, o.TopK, o.TopP)
	}
	return nil
}

// Room is the most tokens that a caption can have: the last one is not fed back.
func (m *Model) Room() int {
	return int(m.GPT2.Config.NPositions - m.Mapper.PrefixLength() + 1)
}

// Generate writes a caption for each feature [n, width]. It must run in a
// scope, without gradients. It ends with ctx's error at the next token when ctx
// is done.
func (m *Model) Generate(ctx context.Context, features torch.Tensor, o Options) ([][]Caption, error) {
	return m.Continue(ctx, m.Mapper.Forward(features), o)
}

// Continue writes a caption for each prefix [n, length, GPT-2 width]. With
// Beam the captions of one feature are all its beams, best first; else there
// is one.
func (m *Model) Continue(ctx context.Context, prefix torch.Tensor, o Options) ([][]Caption, error) {
	if err := o.Check(); err != nil {
		return nil, fmt.Errorf("generate: %w", err)
	}
	n, length := prefix.Size(0), prefix.Size(1)
	room := length + int64(o.MaxTokens) - 1
	if room > m.GPT2.Config.NPositions {
		return nil, fmt.Errorf("generate: a prefix of %d and %d tokens do not fit into GPT-2's %d positions", length, o.MaxTokens, m.GPT2.Config.NPositions)
	}
	if o.Method == Beam && int64(o.Beam) > m.GPT2.Config.VocabSize {
		return nil, fmt.Errorf("generate: %d beams are more than GPT-2's %d tokens", o.Beam, m.GPT2.Config.VocabSize)
	}
	cache := m.GPT2.NewCache(n, room)
	defer cache.Close()
	logits := torch.Tidy(func() torch.Tensor { return m.step(prefix, cache) })
	if o.Method == Beam {
		return m.beam(ctx, logits, cache, o)
	}
	return m.single(ctx, logits, cache, o)
}

// step gives the logits [n, vocab] behind the last of the new embeddings.
func (m *Model) step(embeds torch.Tensor, cache *gpt2.Cache) torch.Tensor {
	hidden := m.GPT2.Forward(embeds, cache, torch.Tensor{})
	// As a matrix: of a strided [n, 1, width] libtorch makes n products, each
	// with a copy of the head.
	return m.GPT2.Logits(hidden.Select(1, -1))
}

// next runs the tokens that were chosen, ids [n], and gives the next logits.
func (m *Model) next(ids torch.Tensor, cache *gpt2.Cache) torch.Tensor {
	return m.step(m.GPT2.Embed(ids.Unsqueeze(1)), cache)
}

// single decodes one sequence for each prefix.
func (m *Model) single(ctx context.Context, logits torch.Tensor, cache *gpt2.Cache, o Options) ([][]Caption, error) {
	n := int(logits.Size(0))
	out := make([][]Caption, n)
	choose := greedy
	if o.Method == Sample {
		choose = sampler(n, o)
	}
	rows := make([]int, n) // which caption a row of the batch belongs to
	for i := range rows {
		rows[i] = i
		out[i] = make([]Caption, 1)
	}
	for step := 0; ; step++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var live []int64 // rows that go on
		ids := torch.Tidy(func() torch.Tensor {
			chosen := choose(logits, rows)
			// log_softmax at the chosen token, without a table of them all.
			logp := logits.Gather(1, chosen.Unsqueeze(1)).SqueezeDim(1).To(torch.WithDType(torch.Float32)).
				Sub(logits.To(torch.WithDType(torch.Float32)).Logsumexp([]int64{-1}))
			p := torch.ToSlice[float64](logp)
			for row, id := range torch.ToSlice[int64](chosen) {
				c := &out[rows[row]][0]
				c.Tokens = append(c.Tokens, id)
				c.TokenLogProbs = append(c.TokenLogProbs, p[row])
				c.LogProb += p[row]
				if id != o.Stop {
					live = append(live, int64(row))
				}
			}
			if len(live) < len(rows) && len(live) > 0 {
				chosen = chosen.IndexSelect(0, torch.FromSlice(live).To(torch.WithDevice(chosen.Device())))
			}
			return chosen
		})
		logits.Close()
		if len(live) == 0 || step+1 == o.MaxTokens {
			break
		}
		if len(live) < len(rows) {
			cache.Select(torch.FromSlice(live).To(torch.WithDevice(ids.Device())), 0)
			going := make([]int, len(live))
			for i, row := range live {
				going[i] = rows[row]
			}
			rows = going
		}
		logits = torch.Tidy(func() torch.Tensor { return m.next(ids, cache) })
		ids.Close()
	}
	for _, c := range out {
		c[0].Score = c[0].LogProb / float64(len(c[0].Tokens))
	}
	return out, nil
}

func greedy(logits torch.Tensor, _ []int) torch.Tensor {
	return logits.Argmax(torch.WithDim(-1))
}

// sampler draws with a generator of its own for each caption, so that a
// caption does not depend on its neighbours in the batch.
func sampler(n int, o Options) func(torch.Tensor, []int) torch.Tensor {
	generators := make([]*torch.Generator, n)
	for i := range generators {
		generators[i] = torch.NewGenerator(torch.CPU).ManualSeed(o.Seed + uint64(i))
	}
	return func(logits torch.Tensor, rows []int) torch.Tensor {
		p := Warp(logits.To(torch.WithDType(torch.Float32), torch.WithDevice(torch.CPU)), o).Softmax(-1)
		ids := make([]torch.Tensor, len(rows))
		for i, row := range rows {
			ids[i] = p.Select(0, int64(i)).Multinomial(1, torch.WithGenerator(generators[row]))
		}
		return torch.Cat(ids).To(torch.WithDevice(logits.Device()))
	}
}

// Warp gives logits [n, vocab] with temperature applied and the tokens
// outside of top-k and top-p set to -inf, in transformers' order.
func Warp(logits torch.Tensor, o Options) torch.Tensor {
	if o.Temperature != 0 && o.Temperature != 1 {
		logits = logits.DivScalar(o.Temperature)
	}
	if k := int64(o.TopK); k > 0 && k < logits.Size(-1) {
		best, _ := logits.Topk(k)
		logits = logits.MaskedFill(logits.Lt(best.Slice(torch.WithDim(-1), torch.WithStart(-1))), math.Inf(-1))
	}
	if o.TopP > 0 && o.TopP < 1 {
		logits = TopPFilter(logits, o.TopP)
	}
	return logits
}

// TopPFilter sets the tokens outside of the nucleus to -inf: ClipCap's rule,
// by which the first token that makes the sum exceed p still belongs to it.
func TopPFilter(logits torch.Tensor, p float64) torch.Tensor {
	sorted, index := logits.Sort(torch.WithDescending(true))
	over := sorted.Softmax(-1).Cumsum(-1).GtScalar(p)
	n := over.Size(-1)
	remove := over.ZerosLike()
	remove.Narrow(-1, 1, n-1).Copy_(over.Narrow(-1, 0, n-1))
	return logits.MaskedFill(remove.ZerosLike().Scatter_(-1, index, remove), math.Inf(-1))
}

// beam is ClipCap's generate_beam, for many prefixes at once. Its rules: the
// beams are ranked by the average log-probability of their tokens; a beam
// that ended in the stop token keeps its score and is padded with token 0;
// the search ends when all beams of a prefix have ended.
func (m *Model) beam(ctx context.Context, logits torch.Tensor, cache *gpt2.Cache, o Options) ([][]Caption, error) {
	photos, k := logits.Size(0), int64(o.Beam)
	prefix := cache.Len
	out := make([][]Caption, photos)

	type state struct {
		photo   int
		tokens  [][]int64   // of each beam
		logProb [][]float64 // of each beam's tokens
		scores  []float32   // sums
		lengths []float32
		stopped []bool
	}
	states := make([]*state, photos)

	// The first step ranks the tokens behind the one prefix.
	vocab := logits.Size(-1)
	var first []float32
	var firstIDs []int64
	torch.Tidy(func() torch.Tensor {
		top, ids := logProbs(logits).Topk(k)
		first, firstIDs = torch.ToSlice[float32](top), torch.ToSlice[int64](ids)
		return torch.Tensor{}
	})
	logits.Close()
	rows := make([]int64, 0, photos*k) // row of the cache that each beam comes from
	next := make([]int64, 0, photos*k)
	for i := range states {
		s := &state{photo: i}
		for b := range int(k) {
			j := i*int(k) + b
			s.tokens = append(s.tokens, []int64{firstIDs[j]})
			s.logProb = append(s.logProb, []float64{float64(first[j])})
			s.scores = append(s.scores, first[j])
			s.lengths = append(s.lengths, 1)
			s.stopped = append(s.stopped, firstIDs[j] == o.Stop)
			rows = append(rows, int64(i))
			next = append(next, firstIDs[j])
		}
		states[i] = s
	}
	device := m.GPT2.Wte.Weight.Device()
	finish := func(s *state) { out[s.photo] = ranked(s.tokens, s.logProb, s.scores, s.lengths) }

	for step := 1; len(states) > 0; step++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		// Photos whose beams have all ended leave the batch.
		going := states[:0]
		var goingRows, goingNext []int64
		for i, s := range states {
			if step == o.MaxTokens || !slices.Contains(s.stopped, false) {
				finish(s)
				continue
			}
			going = append(going, s)
			goingRows = append(goingRows, rows[i*int(k):(i+1)*int(k)]...)
			goingNext = append(goingNext, next[i*int(k):(i+1)*int(k)]...)
		}
		states, rows, next = going, goingRows, goingNext
		if len(states) == 0 {
			break
		}
		if int64(len(rows)) != cache.Batch() || !identity(rows) {
			shared := prefix
			index := torch.FromSlice(rows).To(torch.WithDevice(device))
			cache.Select(index, shared)
			index.Close()
		}
		var values, chosen []float32 // averages; log-probabilities of the new tokens
		var flat []int64
		torch.Tidy(func() torch.Tensor {
			lp := logProbs(m.next(torch.FromSlice(next).To(torch.WithDevice(device)), cache)) // [photos*k, vocab]
			scores := make([]float32, 0, len(rows))
			lengths := make([]float32, 0, len(rows))
			for i, s := range states {
				for b, stopped := range s.stopped {
					if stopped {
						// Only padding may follow, at no cost.
						row := lp.Select(0, int64(i)*k+int64(b))
						row.Fill_(math.Inf(-1))
						row.Select(0, 0).Fill_(0)
					} else {
						s.lengths[b]++
					}
				}
				scores = append(scores, s.scores...)
				lengths = append(lengths, s.lengths...)
			}
			sums := torch.FromSlice(scores, int64(len(scores)), 1).To(torch.WithDevice(device)).Add(lp)
			average := sums.Div(torch.FromSlice(lengths, int64(len(lengths)), 1).To(torch.WithDevice(device)))
			top, ids := average.View([]int64{int64(len(states)), k * vocab}).Topk(k)
			values, flat = torch.ToSlice[float32](top), torch.ToSlice[int64](ids)
			chosen = torch.ToSlice[float32](lp.View([]int64{int64(len(states)), k * vocab}).Gather(1, ids))
			return torch.Tensor{}
		})
		rows, next = rows[:0], next[:0]
		for i, s := range states {
			t := &state{photo: s.photo}
			for b := range int(k) {
				j := i*int(k) + b
				from, id := flat[j]/vocab, flat[j]%vocab
				t.tokens = append(t.tokens, append(slices.Clone(s.tokens[from]), id))
				t.logProb = append(t.logProb, append(slices.Clone(s.logProb[from]), float64(chosen[j])))
				t.lengths = append(t.lengths, s.lengths[from])
				// The sum is taken back from the average, as ClipCap does:
				// the rounding belongs to its ranking.
				t.scores = append(t.scores, values[j]*s.lengths[from])
				t.stopped = append(t.stopped, s.stopped[from] || id == o.Stop)
				rows = append(rows, int64(i)*k+from)
				next = append(next, id)
			}
			states[i] = t
		}
	}
	return out, nil
}

// logProbs is softmax and then log, in float32, as ClipCap has it
// (log_softmax differs in the last bits).
func logProbs(logits torch.Tensor) torch.Tensor {
	return logits.To(torch.WithDType(torch.Float32)).Softmax(-1).Log()
}

func identity(rows []int64) bool {
	for i, r := range rows {
		if r != int64(i) {
			return false
		}
	}
	return true
}

// ranked gives the beams best first, without their padding.
func ranked(tokens [][]int64, logProb [][]float64, scores, lengths []float32) []Caption {
	out := make([]Caption, len(tokens))
	for i := range tokens {
		score := scores[i] / lengths[i]
		n := int(lengths[i])
		out[i] = Caption{Tokens: tokens[i][:n], TokenLogProbs: logProb[i][:n], LogProb: float64(scores[i]), Score: float64(score)}
	}
	slices.SortStableFunc(out, func(a, b Caption) int {
		switch {
		case a.Score > b.Score:
			return -1
		case a.Score < b.Score:
			return 1
		}
		return 0
	})
	return out
}
