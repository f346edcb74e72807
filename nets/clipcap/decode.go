package clipcap

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"cyclecap/nets/gpt2"
	"cyclecap/torch"
)

// Model is a decoder: a mapper, and the GPT-2 that continues its prefixes. Their
// weights must not be replaced after the first call of Generate or Continue on a
// GPU, whose CUDA graphs contain their addresses; Close frees the graphs.
type Model struct {
	Mapper Mapper
	GPT2   *gpt2.Model
	// Never are ids that are never chosen, such as rows of the embeddings that no
	// token has. Their probability is 0, and that of the others accordingly larger.
	Never   []int64
	never   torch.Tensor // the same as bool [vocab], during a beam search on the CPU's path
	statics []*static    // the last used last
}

// A Method is a way to choose the next token.
type Method string

// Decoding methods.
const (
	// Greedy takes the most probable token.
	Greedy Method = "greedy"
	// TopP is ClipCap's "generate2": it removes the tokens outside the nucleus
	// and takes the most probable of the rest. The nucleus always contains the
	// most probable token, so the captions are those of Greedy.
	TopP Method = "top-p"
	// Sample draws from the distribution, after applying temperature, top-k and top-p.
	Sample Method = "sample"
	// Beam is ClipCap's "generate_beam". A beam that has reached the stop token stays
	// one of the beams; the search ends when all have.
	Beam Method = "beam"
	// BeamTransformers is the beam search of transformers' generate(num_beams=…). A
	// beam that has reached the stop token makes room for another; LengthPenalty
	// and EarlyStopping apply.
	BeamTransformers Method = "beam-transformers"
)

// Methods are the decoding methods.
var Methods = []Method{Greedy, TopP, Sample, Beam, BeamTransformers}

// Stop is GPT-2's token ".", with which ClipCap ends a caption. In another vocabulary,
// "." has another id (pipeline.GPT2.Stop).
const Stop = 13

// Options configures the decoding.
type Options struct {
	Method    Method
	Beam      int   // number of beams (ClipCap: 5); at least 2 for BeamTransformers
	MaxTokens int   // maximum number of tokens, including the stop token (ClipCap: 67)
	Stop      int64 // token that ends a caption (ClipCap: Stop); negative: none

	// For BeamTransformers only. The score of a caption is the sum of its
	// log-probabilities divided by length^LengthPenalty: 0 means the sum, 1
	// (transformers' default) the average, and more favours longer captions.
	// EarlyStopping "" means EarlyStoppingFalse.
	LengthPenalty float64
	EarlyStopping EarlyStopping

	// For Sample only. Temperature 0 means 1; TopK 0 and TopP 0 or 1 mean no limit.
	Temperature float64
	TopK        int
	TopP        float64
	Seed        uint64

	// OnToken, if not nil, is called with the tokens of the captions, in order, and their
	// log-probabilities (see Caption). index is that of the feature or, with a Batcher,
	// the number that Add returned. Greedy, TopP and Sample call it as each token is
	// chosen. A beam search, and Greedy and TopP on a GPU, whose tokens stay there until the
	// end, call it when all captions have ended, with the best of each. A Batcher calls
	// it as each token is chosen on every device.
	OnToken func(index int, id int64, logProb float64)
	// OnPrefixes, if not nil, is called with the time that the mapper took for the prefixes of
	// a batch. It is called only on the CPU: other devices compute them later, with what follows.
	OnPrefixes func(took time.Duration)
}

// Single reports whether the method follows a single sequence, so that a Batcher can write
// its captions.
func (m Method) Single() bool { return m == Greedy || m == TopP || m == Sample }

// A Caption is the result of decoding one feature.
type Caption struct {
	Tokens []int64 // includes the stop token if it was reached
	// TokenLogProbs are the log-probabilities of the tokens, each given the
	// tokens before it. They are the model's own, before temperature, top-k and
	// top-p.
	TokenLogProbs []float64
	LogProb       float64 // their sum; for beam search in float32, because it ranks by this sum
	// Score is the ranking criterion of beam search: LogProb divided by the number of
	// tokens or, with BeamTransformers, by its power (transformers' sequences_scores).
	Score float64
}

// Check returns an error if the options are invalid.
func (o Options) Check() error {
	if !slices.Contains(Methods, o.Method) {
		return fmt.Errorf("unknown decoding method %q: must be one of %q", o.Method, Methods)
	}
	if o.MaxTokens < 1 {
		return fmt.Errorf("the maximum number of tokens must be at least 1, got %d", o.MaxTokens)
	}
	if o.Method == Beam && o.Beam < 1 {
		return fmt.Errorf("the number of beams must be at least 1, got %d", o.Beam)
	}
	if o.Method == BeamTransformers {
		if o.Beam < 2 {
			return fmt.Errorf("the number of beams must be at least 2, got %d; transformers' generate(num_beams=1) is greedy decoding", o.Beam)
		}
		if !(math.Abs(o.LengthPenalty) <= MaxLengthPenalty) {
			return fmt.Errorf("the length penalty must be between %d and %d, got %g", -MaxLengthPenalty, MaxLengthPenalty, o.LengthPenalty)
		}
		switch o.EarlyStopping {
		case "", EarlyStoppingFalse, EarlyStoppingTrue, EarlyStoppingNever:
		default:
			return fmt.Errorf("early stopping must be true, false or never, got %q", o.EarlyStopping)
		}
	}
	if o.Method == Sample && (o.Temperature < 0 || o.TopK < 0 || o.TopP < 0 || o.TopP > 1) {
		return fmt.Errorf("for sampling, temperature and top-k must be at least 0 and top-p between 0 and 1, got %g, %d and %g", o.Temperature, o.TopK, o.TopP)
	}
	return nil
}

// MaxBeams returns the largest number of beams for a method. It is limited by the number
// of tokens to choose from, of which transformers takes two for each beam.
func (m *Model) MaxBeams(method Method) int64 {
	switch method {
	case Beam:
		return m.choices()
	case BeamTransformers:
		return m.choices() / 2
	}
	return math.MaxInt64
}

// Room returns the maximum number of tokens in a caption. The last token is not fed back.
func (m *Model) Room() int {
	return int(m.GPT2.Config.NPositions - m.Mapper.PrefixLength() + 1)
}

// choices returns the number of tokens to choose from.
func (m *Model) choices() int64 { return m.GPT2.Config.VocabSize - int64(len(m.Never)) }

// Generate writes a caption for each feature in [n, width]. It must be called in
// a scope, with gradients disabled. When ctx is done, it returns ctx's error at
// the next token.
func (m *Model) Generate(ctx context.Context, features torch.Tensor, o Options) ([][]Caption, error) {
	return m.generate(ctx, features, true, m.Mapper.PrefixLength(), o)
}

// Continue writes a caption for each prefix in [n, length, GPT-2 width]. With beam
// search, it returns all beams for each feature, best first; otherwise it returns
// one caption for each.
func (m *Model) Continue(ctx context.Context, prefix torch.Tensor, o Options) ([][]Caption, error) {
	return m.generate(ctx, prefix, false, prefix.Size(1), o)
}

// generate decodes features or, if mapped is false, prefixes of the given length.
func (m *Model) generate(ctx context.Context, input torch.Tensor, mapped bool, length int64, o Options) ([][]Caption, error) {
	if err := m.check(o, length); err != nil {
		return nil, err
	}
	var out [][]Caption
	var err error
	switch {
	case stays(input, o):
		out, err = m.onDevice(ctx, input, mapped, length, o)
	case o.Method.Single():
		return m.single(ctx, input, mapped, length, o) // calls OnToken itself
	default:
		if mapped {
			input = m.prefixes(input, o)
		}
		out, err = m.search(ctx, input, o)
	}
	if err == nil && o.OnToken != nil {
		for i, c := range out {
			for k, id := range c[0].Tokens {
				o.OnToken(i, id, c[0].TokenLogProbs[k])
			}
		}
	}
	return out, err
}

// prefixes returns the prefixes of features.
func (m *Model) prefixes(features torch.Tensor, o Options) torch.Tensor {
	begin := time.Now()
	prefixes := m.Mapper.Forward(features)
	if o.OnPrefixes != nil && features.Device() == torch.CPU {
		o.OnPrefixes(time.Since(begin))
	}
	return prefixes
}

// check returns an error if the options do not suit the model.
func (m *Model) check(o Options, length int64) error {
	if err := o.Check(); err != nil {
		return fmt.Errorf("generate: %w", err)
	}
	if length+int64(o.MaxTokens)-1 > m.GPT2.Config.NPositions {
		return fmt.Errorf("generate: a prefix of length %d and %d tokens do not fit into GPT-2's %d positions", length, o.MaxTokens, m.GPT2.Config.NPositions)
	}
	if most := m.MaxBeams(o.Method); int64(o.Beam) > most {
		return fmt.Errorf("generate: the number of beams must be at most %d with %d tokens to choose from, got %d", most, m.choices(), o.Beam)
	}
	return nil
}

// stays reports whether to keep the state of a decoding on the device. Sampling
// draws on the CPU, so that a seed means the same caption everywhere; the beam search of
// transformers keeps captions that have ended on the host.
func stays(input torch.Tensor, o Options) bool {
	d := input.Device()
	return d != torch.CPU && d != torch.Meta && o.Method != Sample && o.Method != BeamTransformers
}

// search decodes prefixes by beam search, with a cache that grows.
func (m *Model) search(ctx context.Context, prefix torch.Tensor, o Options) ([][]Caption, error) {
	n, length := prefix.Size(0), prefix.Size(1)
	cache := m.GPT2.NewCache(n, length+int64(o.MaxTokens)-1)
	defer cache.Close()
	if m.never = m.neverOn(prefix.Device(), m.GPT2.Config.VocabSize); m.never.Defined() {
		defer m.never.Close()
	}
	logits := torch.Tidy(func() torch.Tensor { return m.step(prefix, cache) })
	if o.Method == Beam {
		return m.beam(ctx, logits, cache, o)
	}
	return m.beamTransformers(ctx, logits, cache, o)
}

// step returns the logits [n, vocab] after the last of the new embeddings.
func (m *Model) step(embeds torch.Tensor, cache *gpt2.Cache) torch.Tensor {
	return m.logits(m.GPT2.ForwardLast(embeds, cache), m.never)
}

// logits returns the logits [n, vocab] of the last of the hidden states [n, t, width].
func (m *Model) logits(hidden, never torch.Tensor) torch.Tensor {
	// As a matrix: for a strided [n, 1, width], libtorch computes n products, each
	// with a copy of the head.
	logits := m.GPT2.Logits(hidden.Select(1, -1))
	if never.Defined() {
		logits = logits.MaskedFill(never, math.Inf(-1))
	}
	return logits
}

// neverOn returns Never as bool [vocab], or an undefined tensor if it is empty.
func (m *Model) neverOn(d torch.Device, vocab int64) (mask torch.Tensor) {
	if len(m.Never) == 0 {
		return mask
	}
	is := make([]bool, vocab)
	for _, id := range m.Never {
		is[id] = true
	}
	return torch.Tidy(func() torch.Tensor { return torch.FromSlice(is).To(torch.WithDevice(d)) }).Keep()
}

// next feeds the chosen tokens, ids [n], and returns the next logits.
func (m *Model) next(ids torch.Tensor, cache *gpt2.Cache) torch.Tensor {
	return m.step(m.GPT2.Embed(ids.Unsqueeze(1)), cache)
}

// single decodes one sequence for each input.
func (m *Model) single(ctx context.Context, input torch.Tensor, mapped bool, length int64, o Options) ([][]Caption, error) {
	out := make([][]Caption, input.Size(0))
	b := m.newBatcher(o, len(out), mapped, length)
	defer b.Close()
	for i := range out {
		b.add(input.Narrow(0, int64(i), 1), RowOptions{Seed: o.Seed + uint64(i)})
	}
	for b.Len() > 0 {
		ended, err := b.Step(ctx)
		if err != nil {
			return nil, err
		}
		for _, e := range ended {
			out[e.ID] = []Caption{e.Caption}
		}
	}
	return out, nil
}

// logProbOf returns the log-probabilities [n, 1], float32, of ids [n, 1]: log_softmax
// at these tokens only, without the whole table.
func logProbOf(logits, ids torch.Tensor) torch.Tensor {
	return logits.Gather(1, ids).To(torch.WithDType(torch.Float32)).
		Sub(logits.To(torch.WithDType(torch.Float32)).Logsumexp([]int64{-1}, torch.WithKeepdim(true)))
}

// Warp applies temperature to logits [n, vocab] and sets tokens outside top-k and
// top-p to -inf, in the order in which transformers does it.
func Warp(logits torch.Tensor, o Options) torch.Tensor {
	if o.Temperature != 0 && o.Temperature != 1 {
		// Only the best token has a chance at such a temperature, and a lower one would
		// make the quotients infinite.
		logits = logits.DivScalar(max(o.Temperature, 1e-30))
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

// TopPFilter sets the tokens outside the nucleus to -inf. As in ClipCap, the
// first token that makes the sum exceed p still belongs to the nucleus.
func TopPFilter(logits torch.Tensor, p float64) torch.Tensor {
	sorted, index := logits.Sort(torch.WithDescending(true))
	over := sorted.Softmax(-1).Cumsum(-1).GtScalar(p)
	n := over.Size(-1)
	remove := over.ZerosLike()
	remove.Narrow(-1, 1, n-1).Copy_(over.Narrow(-1, 0, n-1))
	return logits.MaskedFill(remove.ZerosLike().Scatter_(-1, index, remove), math.Inf(-1))
}

// beam implements ClipCap's generate_beam, for many prefixes at once: beams are
// ranked by the average log-probability of their tokens; a beam that has reached
// the stop token keeps its score and is padded with token 0; the search ends when
// all beams of a prefix have ended.
func (m *Model) beam(ctx context.Context, logits torch.Tensor, cache *gpt2.Cache, o Options) ([][]Caption, error) {
	photos, k := logits.Size(0), int64(o.Beam)
	prefix := cache.Len
	out := make([][]Caption, photos)

	type state struct {
		photo   int
		tokens  [][]int64   // of each beam
		logProb [][]float64 // of each beam's tokens
		scores  []float32   // sums of log-probabilities
		lengths []float32
		stopped []bool
	}
	states := make([]*state, photos)

	// The first step ranks the tokens that follow the single prefix.
	vocab := logits.Size(-1)
	var first []float32
	var firstIDs []int64
	torch.Tidy(func() torch.Tensor {
		top, ids := logProbs(logits).Topk(k)
		first, firstIDs = torch.ToSlice[float32](top), torch.ToSlice[int64](ids)
		return torch.Tensor{}
	})
	logits.Close()
	rows := make([]int64, 0, photos*k) // cache row that each beam comes from
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
		// Photos whose beams have all ended are removed from the batch.
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
						// Only padding may follow, with log-probability 0.
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
				// Recover the sum from the average, as ClipCap does: the
				// rounding affects its ranking.
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

// logProbs computes softmax and then log, in float32, as ClipCap does
// (log_softmax differs in the low-order bits).
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

// ranked returns the beams, best first and without padding.
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
