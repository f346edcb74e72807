package serve

import (
	"context"
	"slices"
	"strings"

	"cyclecap/nets/clipcap"
	"cyclecap/pipeline"
)

// A speller says what text each token adds to those before it.
type speller struct {
	decoder *pipeline.Decoder
	tokens  []int64
	text    string // of the tokens so far, without a last character that is not complete
}

// add returns the text that a token adds. The bytes of a character can be spread over tokens:
// the last of them adds it. What is incomplete at the last token of all is replaced by U+FFFD.
func (s *speller) add(id int64, last bool) (string, error) {
	s.tokens = append(s.tokens, id)
	text, err := s.decoder.Text(s.tokens)
	if err != nil || !strings.HasPrefix(text, s.text) || strings.HasSuffix(text, "\uFFFD") && !last {
		return "", err
	}
	added := text[len(s.text):]
	s.text = text
	return added, nil
}

// A piece is a part of an answer of OpenAI's or Ollama's form, with the tokens in which its
// characters end.
type piece struct {
	text   string
	tokens []ownToken
}

// A lineWriter makes the text of an answer from the tokens of captions, piece by piece. The
// captions of several pictures are lines, in the order of the pictures, in whatever order their
// tokens come. The pieces together are what the captions are: without white space around them.
type lineWriter struct {
	stop  int64
	most  int // tokens in a caption
	lines []line
	at    int // the line that is being written
}

type line struct {
	speller
	shown  string // what its pieces say
	held   []ownToken
	pieces []piece // that wait for the lines before
	ended  bool
}

func newLineWriter(m *model, o clipcap.Options, lines int) *lineWriter {
	w := &lineWriter{stop: o.Stop, most: o.MaxTokens, lines: make([]line, lines)}
	for i := range w.lines {
		w.lines[i].decoder = m.captioner.Decoder
	}
	return w
}

// add adds a token to a line, and returns the pieces that can be shown then.
func (w *lineWriter) add(at int, id int64, logProb float64) (out []piece, err error) {
	l := &w.lines[at]
	l.ended = id == w.stop || len(l.tokens)+1 == w.most
	text, err := l.speller.add(id, l.ended)
	if err != nil {
		return nil, err
	}
	l.held = append(l.held, ownToken{id, text, logProb})
	// White space at the end may turn out to be inside the caption.
	shown := strings.TrimSpace(l.text)
	if more, ok := strings.CutPrefix(shown, l.shown); ok && more != "" || l.ended {
		l.pieces = append(l.pieces, piece{more, l.held})
		l.shown, l.held = shown, nil
	}
	for {
		l := &w.lines[w.at]
		out = append(out, l.pieces...)
		l.pieces = nil
		if !l.ended || w.at+1 == len(w.lines) {
			return out, nil
		}
		w.at++
		// The server puts it there, with certainty.
		out = append(out, piece{"\n", []ownToken{{ID: -1, Text: "\n"}}})
	}
}

// A choice is one of the texts that answer a request.
type choice struct {
	pieces []piece
	tokens int    // that the decoder wrote
	finish string // "stop", or "length" if a caption was cut by the limit of tokens
}

func (c choice) text() string {
	var b strings.Builder
	for _, p := range c.pieces {
		b.WriteString(p.text)
	}
	return b.String()
}

func (c choice) all() (list []ownToken) {
	for _, p := range c.pieces {
		list = append(list, p.tokens...)
	}
	return list
}

// A captionRun is a request for captions as clients of language models make it: its answer is
// a text, or n of them to choose from.
type captionRun struct {
	model   *model
	task    *task
	cancel  context.CancelFunc
	images  int
	n       int
	sampled bool // the choices are n captions of each picture, not n beams
}

// chatOptions are what clients of language models can set. What is missing has the model's
// defaults.
type chatOptions struct {
	temperature, topP *float64
	topK, maxTokens   *int
	seed              *int64
}

// decode returns how to write captions. A temperature above 0 means sampling, and 0 the model's
// own method, or the greedy one if that draws.
func (o chatOptions) decode(m *model) (d decodeRequest, err error) {
	method := string(m.Options.Method)
	if t := o.temperature; t != nil {
		switch {
		case *t < 0:
			return d, invalid("temperature", "must be at least 0, got %g", *t)
		case *t > 0:
			method = string(clipcap.Sample)
			d.Temperature = t
		case m.Options.Method == clipcap.Sample:
			method = string(clipcap.Greedy)
		}
	}
	if p := o.topP; p != nil && (*p < 0 || *p > 1) {
		return d, invalid("top_p", "must be between 0 and 1, got %g", *p)
	}
	if k := o.topK; k != nil && *k < 0 {
		return d, invalid("top_k", "must be at least 0, got %d", *k)
	}
	d.Decode, d.TopP, d.TopK = &method, o.topP, o.topK
	if o.seed != nil {
		seed := uint64(*o.seed)
		d.Seed = &seed
	}
	if o.maxTokens != nil {
		// Clients send what suits a language model.
		most := min(*o.maxTokens, m.captioner.Decoder.Model.Room())
		d.MaxTokens = &most
	}
	return d, nil
}

// captionRun checks a request for captions by one way of a model, and decodes its pictures.
// finish must be called in the end.
func (s *Server) captionRun(ctx context.Context, m *model, way string, list []picture, n int, o chatOptions) (c *captionRun, err error) {
	if way == "" {
		return nil, noDecoder(m)
	}
	d, err := o.decode(m)
	if err != nil {
		return nil, err
	}
	if n < 1 || n > maxBeams {
		return nil, invalid("n", "must be between 1 and %d, got %d", maxBeams, n)
	}
	c = &captionRun{model: m, images: len(list), n: n, sampled: *d.Decode == string(clipcap.Sample)}
	switch {
	case n > 1 && c.sampled:
		if err := s.checkCount(len(list)*n, 0); err != nil {
			return nil, err
		}
	case n > 1:
		if *d.Decode != string(clipcap.BeamTransformers) {
			*d.Decode = string(clipcap.Beam)
		}
		beam := max(n, m.Options.Beam)
		d.Beam = &beam
	}
	ctx, c.cancel = context.WithCancel(ctx)
	if c.task, err = s.captionTask(ctx, m, []string{way}, list, d); err != nil {
		c.cancel()
		return nil, err
	}
	if n > 1 && c.sampled {
		// Each caption has its place in the batch, and so a seed of its own.
		var repeated [][]float32
		for _, p := range c.task.photos {
			repeated = append(repeated, slices.Repeat([][]float32{p}, n)...)
		}
		c.task.photos = repeated
	}
	return c, nil
}

// choices returns the texts of a run that has ended.
func (c *captionRun) choices() (list []choice, err error) {
	captions := c.task.captions[c.task.ways[0]]
	for k := range c.n {
		w := newLineWriter(c.model, c.task.options, c.images)
		to := choice{finish: "stop"}
		for i := range c.images {
			var caption pipeline.Caption
			if c.sampled {
				caption = captions[i*c.n+k][0]
			} else {
				caption = captions[i][k]
			}
			for j, id := range caption.Tokens {
				more, err := w.add(i, id, caption.TokenLogProbs[j])
				if err != nil {
					return nil, err
				}
				to.pieces = append(to.pieces, more...)
			}
			if to.tokens += len(caption.Tokens); caption.Tokens[len(caption.Tokens)-1] != c.task.options.Stop {
				to.finish = "length"
			}
		}
		list = append(list, to)
	}
	return list, nil
}

// prompt returns the number of tokens that the decoder continues: the prefixes, one for each
// picture.
func (c *captionRun) prompt() int {
	return c.images * int(c.model.captioner.Decoder.Model.Mapper.PrefixLength())
}

// stream runs the task and calls send with the pieces of the choices as their tokens are
// chosen, or, if there are several choices, one after the other in the end. It returns them, or
// the first error, which may be of send.
func (s *Server) stream(c *captionRun, send func(choice int, p piece) error) ([]choice, error) {
	type chosen struct {
		line    int
		id      int64
		logProb float64
	}
	// There is room for all, so that the worker never waits for a client.
	tokens := make(chan chosen, c.images*c.task.options.MaxTokens)
	live := c.n == 1
	if live {
		c.task.onToken = func(_ string, photo int, id int64, logProb float64) { tokens <- chosen{photo, id, logProb} }
	}
	done := make(chan error, 1)
	go func() {
		done <- s.worker.do(c.task)
		close(tokens)
	}()
	w := newLineWriter(c.model, c.task.options, c.images)
	var failed error
	for t := range tokens {
		if failed != nil {
			continue
		}
		var list []piece
		list, failed = w.add(t.line, t.id, t.logProb)
		for _, p := range list {
			if failed == nil {
				failed = send(0, p)
			}
		}
		if failed != nil {
			c.cancel() // and wait: the worker uses the model until then
		}
	}
	if err := <-done; failed != nil || err != nil {
		if failed == nil {
			failed = err
		}
		return nil, failed
	}
	choices, err := c.choices()
	if err != nil {
		return nil, err
	}
	for k := 0; k < len(choices) && !live; k++ {
		for _, p := range choices[k].pieces {
			if err := send(k, p); err != nil {
				return nil, err
			}
		}
	}
	return choices, nil
}

// logProbJSON is a token in OpenAI's and Ollama's form.
type logProbJSON struct {
	Token   string  `json:"token"`
	LogProb float64 `json:"logprob"`
	// Bytes are those of the token's text: null if its character ends in a later token.
	Bytes []int      `json:"bytes"`
	Top   []struct{} `json:"top_logprobs"`
}

func logProbsJSON(tokens []ownToken) []logProbJSON {
	out := make([]logProbJSON, len(tokens))
	for i, t := range tokens {
		out[i] = logProbJSON{Token: t.Text, LogProb: t.LogProb, Top: []struct{}{}}
		for _, b := range []byte(t.Text) {
			out[i].Bytes = append(out[i].Bytes, int(b))
		}
	}
	return out
}

// checkTexts checks the lengths of texts, and returns how many tokens of them the model reads.
func checkTexts(m *model, texts []string, truncate bool) (tokens int, err error) {
	if len(texts) > 0 && !m.texts {
		return 0, bad("no_text_encoder", "input", "the model %s has no text encoder", m.Name)
	}
	for i, text := range texts {
		n, most := m.clip.CountTokens(text)
		if n > most && !truncate {
			return 0, bad("context_length_exceeded", "input", "input[%d] has %d tokens with those that mark its start and end, but the model %s reads at most %d: shorten it, or have its end ignored with \"truncate\": true", i, n, m.Name, most)
		}
		tokens += min(n, most)
	}
	return tokens, nil
}

// checkDimensions refuses to cut features.
func checkDimensions(m *model, dimensions *int) error {
	if width := m.clip.Width(); dimensions != nil && *dimensions != width {
		return invalid("dimensions", "the model %s has embeddings of %d numbers, which mean nothing when they are cut: it was not trained for that", m.Name, width)
	}
	return nil
}

// noImage is the error of a chat about nothing.
func noImage(param string) error {
	return bad("no_image", param, "no image in the last message of the user: this server's models describe images and answer no questions")
}
