package serve

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"
)

// openaiRoutes are the routes of OpenAI's API, with the extensions for pictures of infinity and
// vLLM. Unknown keys are ignored, since clients send many.
func (s *Server) openaiRoutes(mux *http.ServeMux) {
	s.handle(mux, "POST /v1/embeddings", s.openaiEmbeddings)
	s.handle(mux, "POST /v1/chat/completions", s.openaiChat)
	s.handle(mux, "GET /v1/models", s.openaiModels)
	s.handle(mux, "GET /v1/models/{id...}", s.openaiModel)
}

type embeddingsRequest struct {
	Model    string          `json:"model"`
	Input    json.RawMessage `json:"input"`
	Format   string          `json:"encoding_format"`
	Dims     *int            `json:"dimensions"`
	Modality string          `json:"modality"` // infinity's: "text" or "image"
	Messages []openaiMessage `json:"messages"` // vLLM's, in place of input
	// Normalize, if false, leaves features as the encoder returns them.
	Normalize *bool `json:"normalize"`
	// Truncate lets texts be cut that are too long.
	Truncate bool `json:"truncate"`
}

// read returns the texts or the pictures of a request.
func (q embeddingsRequest) read(ctx context.Context, s *Server) (texts []string, list []picture, err error) {
	hasInput := len(q.Input) > 0 && string(q.Input) != "null"
	if q.Messages != nil {
		if hasInput {
			return nil, nil, bad("invalid_value", "input", "the request has both input and messages: send one of them")
		}
		return s.embeddedMessages(ctx, q.Messages)
	}
	if !hasInput {
		return nil, nil, bad("no_input", "input", "input is missing: a text or a list of texts")
	}
	inputs, ok := stringsOf(q.Input)
	if !ok {
		if first := strings.TrimLeft(string(q.Input), "[ \t\r\n"); q.Input[0] == '[' && first != "" && (first[0] == '-' || first[0] >= '0' && first[0] <= '9') {
			return nil, nil, bad("token_array", "input", "input has token ids, but ids of OpenAI's tokenizers mean other texts to this server's models: send texts (LangChain: OpenAIEmbeddings(…, check_embedding_ctx_length=False))")
		}
		return nil, nil, invalid("input", "must be a string or a list of strings")
	}
	if len(inputs) == 0 {
		return nil, nil, bad("no_input", "input", "input is an empty list")
	}
	switch q.Modality {
	case "", "text":
		for i, text := range inputs {
			if q.Modality == "" && len(text) > 11 && strings.EqualFold(text[:11], "data:image/") {
				return nil, nil, bad("invalid_value", "modality", `input[%d] is a picture: send "modality": "image" with it`, i)
			}
		}
		return inputs, nil, s.checkCount(0, len(inputs))
	case "image":
		if err := s.checkCount(len(inputs), 0); err != nil {
			return nil, nil, err
		}
		for i, text := range inputs {
			p, err := s.parsePicture(ctx, fmt.Sprintf("input[%d]", i), text)
			if err != nil {
				return nil, nil, err
			}
			list = append(list, p)
		}
		return nil, list, nil
	}
	return nil, nil, invalid("modality", "must be text or image, got %.50q", q.Modality)
}

// stringsOf reads a string or a list of strings.
func stringsOf(v json.RawMessage) (list []string, ok bool) {
	var one *string
	if json.Unmarshal(v, &one) == nil && one != nil {
		return []string{*one}, true
	}
	var many []*string
	if json.Unmarshal(v, &many) != nil {
		return nil, false
	}
	for _, text := range many {
		if text == nil {
			return nil, false
		}
		list = append(list, *text)
	}
	return list, true
}

// embeddedMessages returns the text or the picture of messages: as with vLLM, a request has one
// embedding.
func (s *Server) embeddedMessages(ctx context.Context, messages []openaiMessage) (texts []string, list []picture, err error) {
	for i, m := range messages {
		param := fmt.Sprintf("messages[%d].content", i)
		parts, err := m.parts(param)
		if err != nil {
			return nil, nil, err
		}
		for k, p := range parts {
			switch {
			case p.Type == "image_url":
				image, err := s.parsePicture(ctx, fmt.Sprintf("%s[%d]", param, k), string(p.ImageURL))
				if err != nil {
					return nil, nil, err
				}
				list = append(list, image)
			case p.Type != "text":
				return nil, nil, unsupportedPart(param, k, p.Type)
			case strings.TrimSpace(p.Text) != "":
				texts = append(texts, p.Text)
			}
			if len(texts)+len(list) > 1 {
				return nil, nil, bad("invalid_value", "messages", "the messages have more than one text or picture, but a request with messages has one embedding, and CLIP embeds a text or a picture: use input for several")
			}
		}
	}
	if len(texts)+len(list) == 0 {
		return nil, nil, bad("no_input", "messages", "the messages have no text and no picture")
	}
	return texts, list, nil
}

func (s *Server) openaiEmbeddings(w http.ResponseWriter, r *http.Request) error {
	var q embeddingsRequest
	if err := readJSON(r, &q, false); err != nil {
		return err
	}
	m, _, err := s.models.get(q.Model)
	if err != nil {
		return err
	}
	defer m.uses.Done()
	texts, list, err := q.read(r.Context(), s)
	if err != nil {
		return err
	}
	if q.Format != "" && q.Format != "float" && q.Format != "base64" {
		return invalid("encoding_format", "must be float or base64, got %.50q", q.Format)
	}
	if err := checkDimensions(m, q.Dims); err != nil {
		return err
	}
	tokens, err := checkTexts(m, texts, q.Truncate)
	if err != nil {
		return err
	}
	t, err := s.featuresTask(r.Context(), m, list, texts)
	if err != nil {
		return err
	}
	t.normalize = q.Normalize == nil || *q.Normalize
	if err := s.compute(w, t); err != nil {
		return err
	}
	type embedding struct {
		Object    string `json:"object"`
		Index     int    `json:"index"`
		Embedding any    `json:"embedding"`
	}
	rows := t.textRows
	if len(list) > 0 {
		rows = t.imageRows
	}
	data := []embedding{}
	for i, row := range rowsOf(rows, m.clip.Width()) {
		e := embedding{"embedding", i, row}
		if q.Format == "base64" {
			e.Embedding = base64.StdEncoding.EncodeToString(littleEndian(row))
		}
		data = append(data, e)
	}
	return writeJSON(w, http.StatusOK, struct {
		Object string      `json:"object"`
		Data   []embedding `json:"data"`
		Model  string      `json:"model"`
		Usage  any         `json:"usage"`
	}{"list", data, answered(q.Model, m), struct {
		Prompt int `json:"prompt_tokens"`
		Total  int `json:"total_tokens"`
	}{tokens, tokens}})
}

// littleEndian returns the bytes of numbers.
func littleEndian(row []float32) []byte {
	b := make([]byte, 0, 4*len(row))
	for _, v := range row {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}

// answered returns the name of the model that answers: the one that was asked for.
func answered(name string, m *model) string {
	if name == "" {
		return m.Name
	}
	return name
}

// openaiMessage is a message of a chat. Its content, a string or a list of parts, is read only
// where it matters.
type openaiMessage struct {
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
}

type openaiPart struct {
	Type     string    `json:"type"`
	Text     string    `json:"text"`
	ImageURL openaiURL `json:"image_url"`
}

// openaiURL is {"url": …} or, as some clients write it, the URL itself.
type openaiURL string

func (u *openaiURL) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, (*string)(u))
	}
	var o struct {
		URL string `json:"url"`
	}
	err := json.Unmarshal(b, &o)
	*u = openaiURL(o.URL)
	return err
}

// parts returns the parts of a message's content.
func (m openaiMessage) parts(param string) (list []openaiPart, err error) {
	var text string
	if len(m.Content) == 0 || json.Unmarshal(m.Content, &text) == nil {
		return []openaiPart{{Type: "text", Text: text}}, nil
	}
	if json.Unmarshal(m.Content, &list) != nil {
		return nil, invalid(param, `must be a string or a list of parts, such as {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,…"}}`)
	}
	return list, nil
}

func unsupportedPart(param string, k int, kind string) error {
	return bad("unsupported_content", param, "%s[%d] has type %.50q; want image_url or text", param, k, kind)
}

type chatRequest struct {
	Model         string          `json:"model"`
	Messages      []openaiMessage `json:"messages"`
	Stream        bool            `json:"stream"`
	StreamOptions struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	N                   *int     `json:"n"`
	LogProbs            bool     `json:"logprobs"`
	TopLogProbs         int      `json:"top_logprobs"`
	MaxTokens           *int     `json:"max_tokens"`
	MaxCompletionTokens *int     `json:"max_completion_tokens"`
	Temperature         *float64 `json:"temperature"`
	TopP                *float64 `json:"top_p"`
	Seed                *int64   `json:"seed"`

	// What cannot be heeded, and must not be ignored.
	Stop             json.RawMessage       `json:"stop"`
	ResponseFormat   struct{ Type string } `json:"response_format"`
	ToolChoice       json.RawMessage       `json:"tool_choice"`
	LogitBias        map[string]float64    `json:"logit_bias"`
	PresencePenalty  float64               `json:"presence_penalty"`
	FrequencyPenalty float64               `json:"frequency_penalty"`
	Modalities       []string              `json:"modalities"`
}

// check refuses settings whose answer would not be what was asked for.
func (q chatRequest) check() error {
	unsupported := func(param, reason string) error {
		return bad("unsupported_parameter", param, "%s is not supported: %s", param, reason)
	}
	for _, m := range q.Modalities {
		if m != "text" {
			return unsupported("modalities", "this server's models write text only")
		}
	}
	switch choice := strings.Trim(string(q.ToolChoice), `"`); {
	case q.TopLogProbs != 0:
		return unsupported("top_logprobs", `logprobs has the probability of each token that was chosen, and no others; "n" asks for other captions`)
	case !empty(q.Stop):
		return unsupported("stop", "a caption ends where the decoder was trained to end it; max_tokens makes it shorter")
	case q.ResponseFormat.Type != "" && q.ResponseFormat.Type != "text":
		return unsupported("response_format", "this server's models write captions, not JSON; /caption has them as JSON")
	case choice != "" && choice != "null" && choice != "none" && choice != "auto":
		return unsupported("tool_choice", "this server's models call no tools")
	case len(q.LogitBias) > 0:
		return unsupported("logit_bias", "the decoder's probabilities are used as they are")
	case q.PresencePenalty != 0:
		return unsupported("presence_penalty", "the decoder's probabilities are used as they are")
	case q.FrequencyPenalty != 0:
		return unsupported("frequency_penalty", "the decoder's probabilities are used as they are")
	}
	return nil
}

// empty reports whether a value in JSON is missing, null or has nothing in it.
func empty(v json.RawMessage) bool {
	switch string(bytes.TrimSpace(v)) {
	case "", "null", "[]", `""`, "{}":
		return true
	}
	return false
}

// pictures returns the pictures of the last message of the user.
func (q chatRequest) pictures(ctx context.Context, s *Server) (list []picture, err error) {
	for i := len(q.Messages) - 1; i >= 0; i-- {
		if q.Messages[i].Role != "user" {
			continue
		}
		param := fmt.Sprintf("messages[%d].content", i)
		parts, err := q.Messages[i].parts(param)
		if err != nil {
			return nil, err
		}
		for k, p := range parts {
			switch p.Type {
			case "text":
			case "image_url":
				if err := s.checkCount(len(list)+1, 0); err != nil {
					return nil, err
				}
				image, err := s.parsePicture(ctx, fmt.Sprintf("%s[%d]", param, k), string(p.ImageURL))
				if err != nil {
					return nil, err
				}
				list = append(list, image)
			default:
				return nil, unsupportedPart(param, k, p.Type)
			}
		}
		break
	}
	if len(list) == 0 {
		return nil, noImage("messages")
	}
	return list, nil
}

// Parts of the answers.
type (
	chatAnswer struct {
		ID      string       `json:"id"`
		Object  string       `json:"object"`
		Created int64        `json:"created"`
		Model   string       `json:"model"`
		Choices []chatChoice `json:"choices"`
		Usage   *chatUsage   `json:"usage,omitempty"`
	}
	chatChoice struct {
		Index    int           `json:"index"`
		Message  *chatMessage  `json:"message,omitempty"`
		Delta    *chatDelta    `json:"delta,omitempty"`
		LogProbs *chatLogProbs `json:"logprobs"`
		Finish   *string       `json:"finish_reason"`
	}
	chatMessage struct {
		Role    string  `json:"role"`
		Content string  `json:"content"`
		Refusal *string `json:"refusal"`
	}
	chatDelta struct {
		Role    string  `json:"role,omitempty"`
		Content *string `json:"content,omitempty"`
	}
	chatLogProbs struct {
		Content []logProbJSON `json:"content"`
		Refusal *struct{}     `json:"refusal"`
	}
	chatUsage struct {
		Prompt     int `json:"prompt_tokens"`
		Completion int `json:"completion_tokens"`
		Total      int `json:"total_tokens"`
	}
)

func (s *Server) openaiChat(w http.ResponseWriter, r *http.Request) error {
	var q chatRequest
	if err := readJSON(r, &q, false); err != nil {
		return err
	}
	m, way, err := s.models.get(q.Model)
	if err != nil {
		return err
	}
	defer m.uses.Done()
	if err := q.check(); err != nil {
		return err
	}
	list, err := q.pictures(r.Context(), s)
	if err != nil {
		return err
	}
	n := 1
	if q.N != nil {
		n = *q.N
	}
	options := chatOptions{temperature: q.Temperature, topP: q.TopP, maxTokens: q.MaxCompletionTokens, seed: q.Seed}
	if options.maxTokens == nil {
		options.maxTokens = q.MaxTokens
	}
	c, err := s.captionRun(r.Context(), m, way, list, n, options)
	if err != nil {
		return err
	}
	defer c.cancel()
	a := chatAnswer{ID: "chatcmpl-" + w.Header().Get("X-Request-Id"), Object: "chat.completion", Created: time.Now().Unix(), Model: answered(q.Model, m)}
	if q.Stream {
		a.Object = "chat.completion.chunk"
		return s.streamChat(w, r, q, c, a)
	}
	if err := s.compute(w, c.task); err != nil {
		return err
	}
	choices, err := c.choices()
	if err != nil {
		return err
	}
	for k, one := range choices {
		to := chatChoice{Index: k, Message: &chatMessage{Role: "assistant", Content: one.text()}, Finish: &one.finish}
		if q.LogProbs {
			to.LogProbs = &chatLogProbs{Content: logProbsJSON(one.all())}
		}
		a.Choices = append(a.Choices, to)
	}
	a.Usage = c.usage(choices)
	return writeJSON(w, http.StatusOK, a)
}

func (c *captionRun) usage(choices []choice) *chatUsage {
	u := &chatUsage{Prompt: c.prompt()}
	for _, one := range choices {
		u.Completion += one.tokens
	}
	u.Total = u.Prompt + u.Completion
	return u
}

// streamChat sends the answer as server-sent events.
func (s *Server) streamChat(w http.ResponseWriter, r *http.Request, q chatRequest, c *captionRun, a chatAnswer) error {
	to := streamer{w: w, kind: "text/event-stream", before: "data: ", after: "\n\n"}
	began := make([]bool, c.n)
	event := func(choice chatChoice) error {
		if k := choice.Index; !began[k] {
			began[k] = true
			nothing := ""
			first := a
			first.Choices = []chatChoice{{Index: k, Delta: &chatDelta{Role: "assistant", Content: &nothing}}}
			if err := to.send(c.task, first); err != nil {
				return err
			}
		}
		next := a
		next.Choices = []chatChoice{choice}
		return to.send(c.task, next)
	}
	choices, err := s.stream(c, func(k int, p piece) error {
		choice := chatChoice{Index: k, Delta: &chatDelta{Content: &p.text}}
		if q.LogProbs {
			choice.LogProbs = &chatLogProbs{Content: logProbsJSON(p.tokens)}
		}
		return event(choice)
	})
	for k, one := range choices {
		if err == nil {
			err = event(chatChoice{Index: k, Delta: &chatDelta{}, Finish: &one.finish})
		}
	}
	if err == nil && q.StreamOptions.IncludeUsage {
		a.Choices, a.Usage = []chatChoice{}, c.usage(choices)
		err = to.send(c.task, a)
	}
	if err != nil {
		return s.failStream(r, &to, c.task, err)
	}
	to.write("data: [DONE]\n\n")
	return nil
}

// A streamer sends an answer in parts, each at once.
type streamer struct {
	w             http.ResponseWriter
	kind          string // Content-Type
	before, after string // what surrounds a part
	began         bool
}

// send sends a part of the answer to a task. Its error means that the client has gone.
func (s *streamer) send(t *task, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if !s.began {
		s.began = true
		h := s.w.Header()
		h.Set("Content-Type", s.kind)
		h.Set("Cache-Control", "no-cache")
		h.Set("X-Accel-Buffering", "no") // nginx would collect the parts
		h.Set(batchHeader, t.batched)
	}
	return s.write(s.before + string(b) + s.after)
}

// failStream makes an error the last part of a stream. It returns the error if none was sent yet:
// the answer is then the same as without a stream.
func (s *Server) failStream(r *http.Request, to *streamer, t *task, err error) error {
	if !to.began {
		return err
	}
	to.send(t, errorBody(r.URL.Path, s.logged(to.w, err)))
	return nil
}

func (s *streamer) write(text string) error {
	_, err := s.w.Write([]byte(text))
	if err == nil {
		err = http.NewResponseController(s.w).Flush()
	}
	if err != nil {
		return fmt.Errorf("%w: %v", context.Canceled, err)
	}
	return nil
}

type modelJSON struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
}

func (s *Server) openaiModels(w http.ResponseWriter, r *http.Request) error {
	data := []modelJSON{}
	for _, m := range s.models.all() {
		for _, name := range m.names() {
			data = append(data, modelJSON{name, "model", m.loaded.Unix(), "cyclecap"})
		}
		m.uses.Done()
	}
	if len(data) == 0 {
		return notReady()
	}
	return writeJSON(w, http.StatusOK, struct {
		Object string      `json:"object"`
		Data   []modelJSON `json:"data"`
	}{"list", data})
}

func (s *Server) openaiModel(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	if id == "" {
		return s.openaiModels(w, r)
	}
	m, _, err := s.models.get(id)
	if err != nil {
		return err
	}
	defer m.uses.Done()
	return writeJSON(w, http.StatusOK, modelJSON{id, "model", m.loaded.Unix(), "cyclecap"})
}
