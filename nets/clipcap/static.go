package clipcap

import (
	"context"
	"fmt"
	"math"
	"slices"

	"cyclecap/nets/gpt2"
	"cyclecap/torch"
	"cyclecap/torch/cuda"
)

// On a GPU, launching the operators of a token one by one takes the host many times
// as long as the GPU needs to run them. So there all state of the decoding stays on
// the device, in tensors whose shapes and addresses do not change, and the work of a
// token is recorded as a CUDA graph and replayed. The host reads from the device only
// every few tokens, whether all captions have ended.
//
// The beams of a caption are not moved when they change places. All beams of a photo
// share one cache: the prefix, and then for each step one slot for each beam; a mask
// tells each beam which slots hold its own ancestors. Greedy decoding is one beam.

// readEvery is the number of tokens between two reads from the device. A read waits
// for the device, which costs about 20 us; the tokens after the end are for nothing.
const readEvery = 4

// A Model keeps the state and the graphs of at most maxStatics shapes, whose caches have
// at most maxBytes together; the shape in use is kept however large it is.
const maxStatics = 4

var maxBytes int64 = 1 << 30

// staticKey is what the state and the graphs of a decoding depend on.
type staticKey struct {
	photos, beams, prefix, tokens int64
	input                         string // shape of the input
	mapped                        bool   // the input is features, not prefixes
	beam                          bool   // beam search, even with a single beam
	stop                          int64
	weights                       uintptr
	dtype                         torch.DType
}

// room returns the number of cache slots. The last chosen token is not fed, but its slot
// is masked. Attention kernels need rows of the mask that start at multiples of 16 bytes.
func (k staticKey) room() int64 { return (k.prefix + k.beams*k.tokens + 15) / 16 * 16 }

// cacheBytes returns the size of the cache, for numbers of 4 bytes.
func (k staticKey) cacheBytes(m *Model) int64 {
	c := m.GPT2.Config
	return k.photos * k.room() * c.NLayer * 2 * c.NEmbd * 4
}

// static decodes batches of one shape on a device.
type static struct {
	m    *Model
	key  staticKey
	uses int

	cache *gpt2.StaticCache
	input torch.Tensor // copy of the features or prefixes

	counters torch.Tensor // int64 [2+beams]: at, position, slots; each step adds growth
	growth   torch.Tensor
	at       torch.Tensor // [1]: number of the token to choose, from 0
	position torch.Tensor // [1]: position of the token to feed
	slots    torch.Tensor // [beams]: cache slots of the tokens to feed
	mask     torch.Tensor // [photos, 1, beams, slots]: 0 for visible slots, else -inf
	own      torch.Tensor // [photos, 1, beams, beams]: the mask of the newest slots

	ids     torch.Tensor // int64 [photos, beams]: the tokens to feed
	tokens  torch.Tensor // int64 [photos, beams, tokens]: those chosen so far
	logProb torch.Tensor // f32 [photos, beams, tokens]: their log-probabilities
	scores  torch.Tensor // f32 [photos, beams]: sums of log-probabilities
	lengths torch.Tensor // f32 [photos, beams]
	stopped torch.Tensor // bool [photos, beams]
	ended   torch.Tensor // bool []: whether all have stopped
	stay    torch.Tensor // int64 [photos, beams]: 0, 1, 2 ...
	padding torch.Tensor // f32 [1, 1, vocab]: log-probabilities after the stop token
	head    torch.Tensor // the head's weight [vocab, width], and its bias; undefined: GPT-2's own
	bias    torch.Tensor
	vocab   int64        // of head
	never   torch.Tensor // bool [vocab]: tokens that are never chosen; undefined: none

	first *cuda.Graph           // from the input to the first token
	next  map[int64]*cuda.Graph // a further token, by the number of slots that it sees
	warm  map[int64]bool        // whether such a token was computed without a graph
}

// static returns the state for a shape, which may have been used before.
func (m *Model) static(key staticKey, input torch.Tensor) *static {
	if i := slices.IndexFunc(m.statics, func(s *static) bool { return s.key == key }); i >= 0 {
		s := m.statics[i]
		m.statics = append(slices.Delete(m.statics, i, i+1), s)
		return s
	}
	total := key.cacheBytes(m)
	for _, s := range m.statics {
		total += s.key.cacheBytes(m)
	}
	for len(m.statics) > 0 && (len(m.statics) >= maxStatics || total > maxBytes) {
		total -= m.statics[0].key.cacheBytes(m)
		m.statics[0].close()
		m.statics = slices.Delete(m.statics, 0, 1)
	}
	var s *static
	tidy(func() { s = newStatic(m, key, input) })
	m.statics = append(m.statics, s)
	return s
}

// Close frees what decoding keeps between calls: caches and CUDA graphs. The weights
// belong to the caller.
func (m *Model) Close() {
	for _, s := range m.statics {
		s.close()
	}
	m.statics = nil
}

func newStatic(m *Model, key staticKey, input torch.Tensor) *static {
	n, k := key.photos, key.beams
	d := input.Device()
	room := key.room()
	s := &static{m: m, key: key, next: map[int64]*cuda.Graph{}, warm: map[int64]bool{}}
	torch.OnDevice(d, func() {
		long, float := torch.WithDType(torch.Int64), torch.WithDType(torch.Float32)
		s.cache = m.GPT2.NewStaticCache(n, room)
		s.input = torch.Empty(input.Shape(), torch.WithDType(input.DType())).Keep()
		s.counters = torch.Zeros([]int64{2 + k}, long).Keep()
		s.growth = torch.Full([]int64{2 + k}, k, long).Keep()
		s.growth.Narrow(0, 0, 2).Fill_(1)
		s.at, s.position = s.counters.Narrow(0, 0, 1).Keep(), s.counters.Narrow(0, 1, 1).Keep()
		s.slots = s.counters.Narrow(0, 2, k).Keep()
		s.mask = torch.Empty([]int64{n, 1, k, room}, torch.WithDType(key.dtype)).Keep()
		s.own = torch.Full([]int64{k, k}, math.Inf(-1), torch.WithDType(key.dtype))
		s.own = s.own.Triu(torch.WithDiagonal(1)).Add(s.own.Tril(torch.WithDiagonal(-1))).Expand([]int64{n, 1, k, k}).Contiguous().Keep()
		s.ids = torch.Zeros([]int64{n, k}, long).Keep()
		s.tokens = torch.Zeros([]int64{n, k, key.tokens}, long).Keep()
		s.logProb = torch.Zeros([]int64{n, k, key.tokens}, float).Keep()
		s.scores = torch.Zeros([]int64{n, k}, float).Keep()
		s.lengths = torch.Ones([]int64{n, k}, float).Keep()
		s.stopped = torch.Zeros([]int64{n, k}, torch.WithDType(torch.Bool)).Keep()
		s.ended = torch.Zeros([]int64{}, torch.WithDType(torch.Bool)).Keep()
		s.stay = torch.Arange(0, k, long).Expand([]int64{n, k}).Contiguous().Keep()
		s.vocab = m.GPT2.Config.VocabSize
		if key.dtype != torch.Float32 {
			s.pad(m.GPT2.HeadWeight())
		}
		s.never = m.neverOn(d, s.vocab)
		s.padding = torch.Full([]int64{1, 1, s.vocab}, math.Inf(-1), float).Keep()
		s.padding.Narrow(2, 0, 1).Fill_(0)
	})
	return s
}

// pad extends the head by tokens of probability 0, to a number of tokens that is a
// multiple of 64. GPT-2's 50257 scores a row are not aligned, so that the kernels for 16
// bits take up to 5 times as long.
func (s *static) pad(head torch.Tensor) {
	extra := (64 - s.vocab%64) % 64
	if extra == 0 {
		return
	}
	s.head = torch.Cat([]torch.Tensor{head, torch.Zeros([]int64{extra, head.Size(1)}, torch.WithDType(s.key.dtype))}).Keep()
	s.bias = torch.Zeros([]int64{s.vocab + extra}, torch.WithDType(s.key.dtype)).Keep()
	s.bias.Narrow(0, s.vocab, extra).Fill_(math.Inf(-1))
	s.vocab += extra
}

// logits returns the scores [n, vocab] of hidden states [n, width].
func (s *static) logits(hidden torch.Tensor) torch.Tensor {
	var logits torch.Tensor
	if s.head.Defined() {
		logits = torch.Linear(hidden, s.head, torch.WithBias(s.bias))
	} else {
		logits = s.m.GPT2.Logits(hidden)
	}
	if s.never.Defined() {
		logits = logits.MaskedFill(s.never, math.Inf(-1))
	}
	return logits
}

func (s *static) close() {
	s.first.Close()
	for _, g := range s.next {
		g.Close()
	}
	s.cache.Close()
	for _, t := range []torch.Tensor{s.input, s.counters, s.growth, s.at, s.position, s.slots, s.mask, s.own, s.ids,
		s.tokens, s.logProb, s.scores, s.lengths, s.stopped, s.ended, s.stay, s.padding, s.head, s.bias, s.never} {
		t.Close()
	}
}

// onDevice decodes on the device of the input: features or, if mapped is false,
// prefixes of the given length.
func (m *Model) onDevice(ctx context.Context, input torch.Tensor, mapped bool, prefix int64, o Options) (out [][]Caption, err error) {
	beams := int64(1)
	if o.Method == Beam {
		beams = int64(o.Beam)
	}
	// The state is created and changed in inference mode, in which alone the tensors
	// of one call can be changed in the next.
	torch.InferenceMode(func() {
		s := m.static(staticKey{photos: input.Size(0), beams: beams, prefix: prefix, tokens: int64(o.MaxTokens),
			input: fmt.Sprint(input.Shape()), mapped: mapped, beam: o.Method == Beam, stop: o.Stop,
			weights: m.GPT2.Wte.Weight.DataPtr(), dtype: m.GPT2.Wte.Weight.DType()}, input)
		if out, err = s.decode(ctx, input); err != nil {
			return
		}
		s.uses++
	})
	return out, err
}

func (s *static) decode(ctx context.Context, input torch.Tensor) ([][]Caption, error) {
	s.input.Copy_(input)
	if s.uses > 0 && s.first == nil {
		if err := s.record(&s.first, s.start); err != nil {
			return nil, err
		}
	}
	if err := run(s.first, s.start); err != nil {
		return nil, err
	}
	for chosen := int64(1); chosen < s.key.tokens; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if s.key.stop >= 0 && s.ended.Item() != 0 {
			break
		}
		for range min(readEvery, s.key.tokens-chosen) {
			span := s.span(s.key.prefix + s.key.beams*chosen)
			step := func() { s.step(span) }
			g := s.next[span]
			// The first time, libraries prepare what may not be prepared while
			// work is recorded.
			if g == nil && s.warm[span] {
				if err := s.record(&g, step); err != nil {
					return nil, err
				}
				s.next[span] = g
			}
			if err := run(g, step); err != nil {
				return nil, err
			}
			s.warm[span] = true
			chosen++
		}
	}
	return s.captions(), nil
}

// record records f where the device is CUDA, and leaves *g nil elsewhere.
func (s *static) record(g **cuda.Graph, f func()) (err error) {
	if s.input.Device().Type != torch.CUDADevice {
		return nil
	}
	*g, err = cuda.Capture(s.input.Device(), func() { tidy(f) })
	return err
}

func run(g *cuda.Graph, f func()) error {
	if g != nil {
		return g.Replay()
	}
	tidy(f)
	return nil
}

func tidy(f func()) {
	torch.Tidy(func() torch.Tensor {
		f()
		return torch.Tensor{}
	})
}

// span returns the number of slots that a step looks at: at least used, and one of few
// numbers, since each has a graph of its own.
func (s *static) span(used int64) int64 {
	return min((used+63)/64*64, s.mask.Size(3))
}

// start computes the first tokens from the input.
func (s *static) start() {
	prefix := s.input
	if s.key.mapped {
		prefix = s.m.Mapper.Forward(s.input)
	}
	k, p := s.key.beams, s.key.prefix
	long := []torch.Option{torch.WithDType(torch.Int64), torch.WithDevice(s.input.Device())}
	positions := torch.Arange(0, p, long...)
	hidden := s.m.GPT2.ForwardStatic(prefix, s.cache, positions, positions, torch.Tensor{})
	logits := s.logits(hidden.Select(1, -1)) // [n, vocab]
	if s.key.beam {
		top, ids := logProbs(logits).Topk(k)
		s.ids.Copy_(ids)
		s.scores.Copy_(top)
		s.chosen(ids, top, true)
	} else {
		s.greedy(logits, true)
	}
	s.lengths.Fill_(1)
	s.counters.Narrow(0, 0, 1).Fill_(1)
	s.counters.Narrow(0, 1, 1).Fill_(p)
	s.slots.Copy_(torch.Arange(p, p+k, long...))
	s.mask.Fill_(math.Inf(-1))
	s.mask.Narrow(3, 0, p).Fill_(0)
	s.mask.Narrow(3, p, k).Copy_(s.own)
}

// step feeds the chosen tokens and chooses the next.
func (s *static) step(span int64) {
	n, k := s.key.photos, s.key.beams
	hidden := s.m.GPT2.ForwardStatic(s.m.GPT2.Embed(s.ids), s.cache, s.position, s.slots, s.mask.Narrow(3, 0, span))
	logits := s.logits(hidden.View([]int64{n * k, -1}))
	if s.key.beam {
		s.rank(logits)
	} else {
		s.greedy(logits, false)
	}
	s.counters.Add_(s.growth)
	s.mask.IndexCopy_(3, s.slots, s.own)
}

// chosen stores the tokens [n, k] and their log-probabilities.
func (s *static) chosen(ids, logProb torch.Tensor, first bool) {
	stopped := ids.EqScalar(s.key.stop)
	if first {
		s.tokens.Narrow(2, 0, 1).Copy_(ids.Unsqueeze(2))
		s.logProb.Narrow(2, 0, 1).Copy_(logProb.Unsqueeze(2))
	} else {
		s.tokens.IndexCopy_(2, s.at, ids.Unsqueeze(2))
		s.logProb.IndexCopy_(2, s.at, logProb.Unsqueeze(2))
		stopped = s.stopped.BitwiseOr(stopped)
	}
	s.stopped.Copy_(stopped)
	s.ended.Copy_(stopped.All())
}

// greedy chooses the most probable tokens.
func (s *static) greedy(logits torch.Tensor, first bool) {
	ids := logits.Argmax(torch.WithDim(-1), torch.WithKeepdim(true)) // [n, 1]
	s.ids.Copy_(ids)
	s.chosen(ids, logProbOf(logits, ids), first)
}

// rank is a step of the beam search: Model.beam has the rules.
func (s *static) rank(logits torch.Tensor) {
	n, k, vocab := s.key.photos, s.key.beams, s.vocab
	lp := torch.Where(s.stopped.Unsqueeze(2), s.padding, logProbs(logits).View([]int64{n, k, vocab}))
	s.lengths.Add_(s.stopped.LogicalNot().To(torch.WithDType(torch.Float32)))
	average := s.scores.Unsqueeze(2).Add(lp).Div(s.lengths.Unsqueeze(2))
	top, flat := average.View([]int64{n, k * vocab}).Topk(k) // [n, k]
	parents, ids := flat.FloorDivideScalar(vocab), flat.RemainderScalar(vocab)
	logProb := lp.View([]int64{n, k * vocab}).Gather(1, flat)
	lengths := s.lengths.Gather(1, parents)
	scores := top.Mul(lengths) // as ClipCap does: the rounding affects its ranking
	// The beams of a photo that have all ended stay as they are.
	done := s.stopped.Amin(torch.WithDimList([]int64{1}), torch.WithKeepdim(true))
	parents = torch.Where(done, s.stay, parents)
	s.ids.Copy_(ids)
	s.scores.Copy_(torch.Where(done, s.scores, scores))
	s.lengths.Copy_(s.lengths.Gather(1, parents))
	s.stopped.Copy_(s.stopped.Gather(1, parents))
	history := parents.Unsqueeze(2).Expand([]int64{n, k, s.key.tokens})
	s.tokens.Copy_(s.tokens.Gather(1, history))
	s.logProb.Copy_(s.logProb.Gather(1, history))
	room := s.mask.Size(3)
	s.mask.Copy_(s.mask.Gather(2, parents.View([]int64{n, 1, k, 1}).Expand([]int64{n, 1, k, room})))
	s.chosen(ids, logProb, false)
}

// captions copies the results to the host, all at once.
func (s *static) captions() [][]Caption {
	n, k, most := int(s.key.photos), int(s.key.beams), int(s.key.tokens)
	var all []float32 // f32 holds every token exactly
	torch.Tidy(func() torch.Tensor {
		all = torch.ToSlice[float32](torch.Cat([]torch.Tensor{
			s.tokens.To(torch.WithDType(torch.Float32)).Flatten(), s.logProb.Flatten(), s.scores.Flatten(), s.lengths.Flatten()}))
		return torch.Tensor{}
	})
	part := func(size int) []float32 {
		p := all[:size]
		all = all[size:]
		return p
	}
	tokens, logProb, scores, lengths := part(n*k*most), part(n*k*most), part(n*k), part(n*k)
	out := make([][]Caption, n)
	for i := range out {
		ids, probs := make([][]int64, k), make([][]float64, k)
		for b := range k {
			row := i*k + b
			for t := range most {
				ids[b] = append(ids[b], int64(tokens[row*most+t]))
				probs[b] = append(probs[b], float64(logProb[row*most+t]))
			}
		}
		if s.key.beam {
			out[i] = ranked(ids, probs, scores[i*k:(i+1)*k], lengths[i*k:(i+1)*k])
			continue
		}
		c := Caption{}
		for t, id := range ids[0] {
			c.Tokens, c.TokenLogProbs = append(c.Tokens, id), append(c.TokenLogProbs, probs[0][t])
			c.LogProb += probs[0][t]
			if id == s.key.stop {
				break
			}
		}
		c.Score = c.LogProb / float64(len(c.Tokens))
		out[i] = []Caption{c}
	}
	return out
}
