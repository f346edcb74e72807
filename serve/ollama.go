package serve

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"

	"cyclecap/torch"
	"cyclecap/torch/nn"
)

// ollamaVersion is the version of Ollama whose API this is. Some clients ask for a certain one.
const ollamaVersion = "0.12.11"

// ollamaRoutes are the routes of Ollama's API. Unknown keys are ignored, since clients send many.
func (s *Server) ollamaRoutes(mux *http.ServeMux) {
	s.handle(mux, "POST /api/generate", s.ollamaGenerate)
	s.handle(mux, "POST /api/chat", s.ollamaChat)
	s.handle(mux, "POST /api/embed", s.ollamaEmbed)
	s.handle(mux, "POST /api/embeddings", s.ollamaEmbeddings)
	s.handle(mux, "GET /api/tags", s.ollamaTags)
	s.handle(mux, "GET /api/ps", s.ollamaTags)
	s.handle(mux, "POST /api/show", s.ollamaShow)
	s.handle(mux, "GET /api/version", func(w http.ResponseWriter, r *http.Request) error {
		return writeJSON(w, http.StatusOK, map[string]string{"version": ollamaVersion})
	})
	// Clients ask for this to see whether the server is there.
	mux.HandleFunc("HEAD /{$}", func(w http.ResponseWriter, r *http.Request) {})
	for _, route := range []string{"POST /api/pull", "POST /api/push", "POST /api/create", "POST /api/copy", "DELETE /api/delete", "HEAD /api/blobs/{digest}", "POST /api/blobs/{digest}"} {
		s.handle(mux, route, func(w http.ResponseWriter, r *http.Request) error {
			return bad("models_are_fixed", "", "this server's models are those that it was started with: clients cannot add, change or remove any")
		})
	}
}

// An ollamaRequest is the body of /api/generate and /api/chat.
type ollamaRequest struct {
	Model   string        `json:"model"`
	Stream  *bool         `json:"stream"`
	Options ollamaOptions `json:"options"`

	// Of /api/generate.
	Prompt string   `json:"prompt"`
	Images []string `json:"images"`
	Suffix string   `json:"suffix"`
	// Of /api/chat.
	Messages []ollamaMessage `json:"messages"`
	Tools    json.RawMessage `json:"tools"`

	LogProbs    bool            `json:"logprobs"`
	TopLogProbs int             `json:"top_logprobs"`
	Format      json.RawMessage `json:"format"`
	Think       json.RawMessage `json:"think"`
}

// ollamaOptions are the options that have a meaning for captions.
type ollamaOptions struct {
	Temperature *float64        `json:"temperature"`
	TopP        *float64        `json:"top_p"`
	TopK        *int            `json:"top_k"`
	Seed        *int64          `json:"seed"`
	NumPredict  *int            `json:"num_predict"`
	Stop        json.RawMessage `json:"stop"`
}

type ollamaMessage struct {
	Role    string   `json:"role"`
	Content string   `json:"content"`
	Images  []string `json:"images,omitempty"`
}

// check refuses settings whose answer would not be what was asked for.
func (q ollamaRequest) check() error {
	think := string(q.Think)
	switch {
	case !empty(q.Format):
		return bad("unsupported_parameter", "format", "format is not supported: this server's models write captions, not JSON; /caption has them as JSON")
	case !empty(q.Tools):
		return bad("unsupported_parameter", "tools", "%s does not support tools", q.Model)
	case think != "" && think != "null" && think != "false":
		return bad("unsupported_parameter", "think", "%s does not support thinking", q.Model)
	case q.Suffix != "":
		return bad("unsupported_parameter", "suffix", "%s does not support insert", q.Model)
	case q.TopLogProbs != 0:
		return bad("unsupported_parameter", "top_logprobs", "top_logprobs is not supported: logprobs has the probability of each token that was chosen, and no others")
	case !empty(q.Options.Stop):
		return bad("unsupported_parameter", "stop", "stop is not supported: a caption ends where the decoder was trained to end it; num_predict makes it shorter")
	}
	return nil
}

// An ollamaAnswer is a line of the answer to /api/generate or /api/chat.
type ollamaAnswer struct {
	Model     string         `json:"model"`
	CreatedAt time.Time      `json:"created_at"`
	Response  *string        `json:"response,omitempty"` // of /api/generate
	Message   *ollamaMessage `json:"message,omitempty"`  // of /api/chat
	LogProbs  []logProbJSON  `json:"logprobs,omitempty"`
	Done      bool           `json:"done"`
	Reason    string         `json:"done_reason,omitempty"`

	// Durations in nanoseconds, and numbers of tokens.
	Total          time.Duration `json:"total_duration,omitempty"`
	Load           time.Duration `json:"load_duration,omitempty"`
	PromptCount    int           `json:"prompt_eval_count,omitempty"`
	PromptDuration time.Duration `json:"prompt_eval_duration,omitempty"`
	Count          int           `json:"eval_count,omitempty"`
	Duration       time.Duration `json:"eval_duration,omitempty"`
}

func (s *Server) ollamaGenerate(w http.ResponseWriter, r *http.Request) error {
	return s.ollamaCaption(w, r, func(q ollamaRequest) (images []string, load bool) {
		return q.Images, q.Prompt == "" && len(q.Images) == 0
	}, func(a *ollamaAnswer, text string) { a.Response = &text })
}

func (s *Server) ollamaChat(w http.ResponseWriter, r *http.Request) error {
	return s.ollamaCaption(w, r, func(q ollamaRequest) (images []string, load bool) {
		for i := len(q.Messages) - 1; i >= 0; i-- {
			if q.Messages[i].Role == "user" {
				return q.Messages[i].Images, false
			}
		}
		return nil, len(q.Messages) == 0
	}, func(a *ollamaAnswer, text string) { a.Message = &ollamaMessage{Role: "assistant", Content: text} })
}

// ollamaCaption answers /api/generate and /api/chat, which differ in where the pictures are and
// where the text goes. A request for nothing loads the model, which is there already.
func (s *Server) ollamaCaption(w http.ResponseWriter, r *http.Request, images func(ollamaRequest) ([]string, bool), say func(*ollamaAnswer, string)) error {
	begin := time.Now()
	var q ollamaRequest
	if err := readJSON(r, &q, false); err != nil {
		return err
	}
	m, way, err := s.models.get(q.Model)
	if err != nil {
		return err
	}
	defer m.uses.Done()
	line := func(text string) ollamaAnswer {
		a := ollamaAnswer{Model: answered(q.Model, m), CreatedAt: time.Now().UTC()}
		say(&a, text)
		return a
	}
	if err := q.check(); err != nil {
		return err
	}
	encoded, load := images(q)
	if load {
		a := line("")
		a.Done, a.Reason = true, "load"
		return writeJSON(w, http.StatusOK, a)
	}
	if len(encoded) == 0 {
		return noImage("images")
	}
	if err := s.checkCount(len(encoded), 0); err != nil {
		return err
	}
	list := make([]picture, len(encoded))
	for i, text := range encoded {
		if list[i], err = s.parsePicture(r.Context(), fmt.Sprintf("images[%d]", i), text); err != nil {
			return err
		}
	}
	options := chatOptions{temperature: q.Options.Temperature, topP: q.Options.TopP, topK: q.Options.TopK, seed: q.Options.Seed}
	if n := q.Options.NumPredict; n != nil && *n > 0 { // others mean no limit
		options.maxTokens = n
	}
	c, err := s.captionRun(r.Context(), m, way, list, 1, options)
	if err != nil {
		return err
	}
	defer c.cancel()
	end := func(text string, choices []choice) ollamaAnswer {
		a, t, now := line(text), c.task, time.Now()
		a.Done, a.Reason = true, choices[0].finish
		a.Total, a.Load = now.Sub(begin), t.began.Sub(begin)
		a.PromptCount, a.PromptDuration = c.prompt(), t.encoded.Sub(t.began)
		a.Count, a.Duration = choices[0].tokens, now.Sub(t.encoded)
		return a
	}
	if q.Stream != nil && !*q.Stream {
		if err := s.compute(w, c.task); err != nil {
			return err
		}
		choices, err := c.choices()
		if err != nil {
			return err
		}
		a := end(choices[0].text(), choices)
		if q.LogProbs {
			a.LogProbs = logProbsJSON(choices[0].all())
		}
		return writeJSON(w, http.StatusOK, a)
	}
	to := streamer{w: w, kind: "application/x-ndjson", after: "\n"}
	choices, err := s.stream(c, func(_ int, p piece) error {
		a := line(p.text)
		if q.LogProbs {
			a.LogProbs = logProbsJSON(p.tokens)
		}
		return to.send(c.task, a)
	})
	if err != nil {
		return s.failStream(r, &to, c.task, err)
	}
	to.send(c.task, end("", choices))
	return nil
}

// ollamaEmbed answers /api/embed, whose embeddings have length 1.
func (s *Server) ollamaEmbed(w http.ResponseWriter, r *http.Request) error {
	begin := time.Now()
	var q struct {
		Model      string          `json:"model"`
		Input      json.RawMessage `json:"input"`
		Truncate   *bool           `json:"truncate"`
		Dimensions *int            `json:"dimensions"`
	}
	if err := readJSON(r, &q, false); err != nil {
		return err
	}
	var texts []string
	if len(q.Input) > 0 && string(q.Input) != `""` { // nothing loads the model, as null and [] do
		var ok bool
		if texts, ok = stringsOf(q.Input); !ok {
			return invalid("input", "must be a string or a list of strings")
		}
	}
	if q.Dimensions != nil && *q.Dimensions == 0 {
		q.Dimensions = nil
	}
	return s.ollamaFeatures(w, r, q.Model, texts, q.Truncate == nil || *q.Truncate, q.Dimensions, true, func(model string, t *task, rows [][]float32, tokens int) any {
		return struct {
			Model      string        `json:"model"`
			Embeddings [][]float32   `json:"embeddings"`
			Total      time.Duration `json:"total_duration"`
			Load       time.Duration `json:"load_duration"`
			Count      int           `json:"prompt_eval_count"`
		}{model, rows, time.Since(begin), max(0, t.began.Sub(begin)), tokens}
	})
}

// ollamaEmbeddings answers /api/embeddings, the older form, whose embeddings are as the encoder
// returns them.
func (s *Server) ollamaEmbeddings(w http.ResponseWriter, r *http.Request) error {
	var q struct {
		Model  string `json:"model"`
		Prompt string `json:"prompt"`
	}
	if err := readJSON(r, &q, false); err != nil {
		return err
	}
	var texts []string
	if q.Prompt != "" {
		texts = []string{q.Prompt}
	}
	return s.ollamaFeatures(w, r, q.Model, texts, true, nil, false, func(_ string, _ *task, rows [][]float32, _ int) any {
		row := []float32{}
		if len(rows) > 0 {
			row = rows[0]
		}
		return map[string][]float32{"embedding": row}
	})
}

// ollamaFeatures answers with the features of texts.
func (s *Server) ollamaFeatures(w http.ResponseWriter, r *http.Request, model string, texts []string, truncate bool, dimensions *int, normalize bool,
	answer func(model string, t *task, rows [][]float32, tokens int) any) error {
	m, _, err := s.models.get(model)
	if err != nil {
		return err
	}
	defer m.uses.Done()
	if err := checkDimensions(m, dimensions); err != nil {
		return err
	}
	tokens, err := checkTexts(m, texts, truncate)
	if err != nil {
		return err
	}
	if len(texts) == 0 {
		return writeJSON(w, http.StatusOK, answer(answered(model, m), &task{}, [][]float32{}, 0))
	}
	t, err := s.featuresTask(r.Context(), m, nil, texts)
	if err != nil {
		return err
	}
	t.normalize = normalize
	if err := s.compute(w, t); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, answer(answered(model, m), t, rowsOf(t.textRows, m.clip.Width()), tokens))
}

// ollamaModel describes a model in lists. Those of /api/ps are the same, since every model is
// in memory.
type ollamaModel struct {
	Name     string        `json:"name"`
	Model    string        `json:"model"`
	Modified time.Time     `json:"modified_at"`
	Size     int64         `json:"size"`
	Digest   string        `json:"digest"`
	Details  ollamaDetails `json:"details"`
	// Of /api/ps.
	Expires *time.Time `json:"expires_at,omitempty"`
	VRAM    *int64     `json:"size_vram,omitempty"`
}

type ollamaDetails struct {
	Parent        string   `json:"parent_model"`
	Format        string   `json:"format"`
	Family        string   `json:"family"`
	Families      []string `json:"families"`
	ParameterSize string   `json:"parameter_size"`
	Quantization  string   `json:"quantization_level"`
}

func (m *model) ollamaDetails() ollamaDetails {
	d := ollamaDetails{Family: "clip", Families: []string{"clip"}, Quantization: "F32", ParameterSize: fmt.Sprintf("%.1fM", float64(m.parameters)/1e6)}
	if m.parameters >= 1e9 {
		d.ParameterSize = fmt.Sprintf("%.1fB", float64(m.parameters)/1e9)
	}
	if m.captioner.Decoder != nil {
		d.Family, d.Families = "clipcap", []string{"clip", "gpt2"}
	}
	switch {
	case m.Compute.BF16:
		d.Quantization = "BF16"
	case m.Compute.Int8:
		d.Quantization = "INT8"
	}
	return d
}

// ollamaTags answers /api/tags and /api/ps.
func (s *Server) ollamaTags(w http.ResponseWriter, r *http.Request) error {
	list := []ollamaModel{}
	for _, m := range s.models.all() {
		for _, name := range m.names() {
			if name == m.Name {
				name += ":latest"
			}
			o := ollamaModel{Name: name, Model: name, Modified: m.loaded.UTC(), Size: m.bytes, Digest: m.digest(), Details: m.ollamaDetails()}
			if r.URL.Path == "/api/ps" {
				var vram int64
				if m.Compute.Device != torch.CPU {
					vram = m.bytes
				}
				never := m.loaded.AddDate(100, 0, 0).UTC()
				o.Expires, o.VRAM = &never, &vram
			}
			list = append(list, o)
		}
		m.uses.Done()
	}
	if len(list) == 0 {
		return notReady()
	}
	return writeJSON(w, http.StatusOK, map[string][]ollamaModel{"models": list})
}

func (s *Server) ollamaShow(w http.ResponseWriter, r *http.Request) error {
	var q struct {
		Model string `json:"model"`
		Name  string `json:"name"` // in older clients
	}
	if err := readJSON(r, &q, false); err != nil {
		return err
	}
	if q.Model == "" {
		q.Model = q.Name
	}
	if q.Model == "" {
		return bad("no_model", "model", "model is required")
	}
	m, _, err := s.models.get(q.Model)
	if err != nil {
		return err
	}
	defer m.uses.Done()
	details := m.ollamaDetails()
	info := map[string]any{"general.architecture": details.Family, "general.basename": m.Name, "general.parameter_count": m.parameters,
		"clip.embedding_length": m.clip.Width(), "clip.vision.image_size": m.clip.Model.ImageSize()}
	capabilities := []string{}
	var parameters []string
	if d := m.captioner.Decoder; d != nil {
		capabilities = append(capabilities, "completion", "vision")
		info["clipcap.context_length"] = d.Model.GPT2.Config.NPositions
		info["clipcap.embedding_length"] = d.Model.GPT2.Config.NEmbd
		info["clipcap.prefix_length"] = d.Model.Mapper.PrefixLength()
		parameters = append(parameters, fmt.Sprintf("num_predict %d", m.Options.MaxTokens))
	}
	if m.texts {
		capabilities = append(capabilities, "embedding")
		info["clip.context_length"] = m.clip.Model.ContextLength()
	}
	return writeJSON(w, http.StatusOK, struct {
		Modelfile    string         `json:"modelfile"`
		Parameters   string         `json:"parameters"`
		Template     string         `json:"template"`
		Details      ollamaDetails  `json:"details"`
		Info         map[string]any `json:"model_info"`
		Capabilities []string       `json:"capabilities"`
		Modified     time.Time      `json:"modified_at"`
	}{"# cyclecap serve has this model; there is no Modelfile.\n", strings.Join(parameters, "\n"), "{{ .Prompt }}", details, info, capabilities, m.loaded.UTC()})
}

// digest identifies the files of a model by their names, sizes and times: reading them would
// take as long as loading them.
func (m *model) digest() string {
	h := sha256.New()
	for _, path := range []string{m.Files.CLIP, m.Files.CLIPConfig, m.Files.Decoder, m.Files.GPT2, m.Files.Generator} {
		fmt.Fprintf(h, "%q\n", path)
		var info fs.FileInfo
		err := fs.ErrNotExist
		if path != "" && m.Files.FS != nil {
			info, err = fs.Stat(m.Files.FS, path)
		} else if path != "" {
			info, err = os.Stat(path)
		}
		if err == nil {
			fmt.Fprintln(h, info.Size(), info.ModTime().UnixNano())
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// count counts the parameters of a model and the bytes that they take.
func (m *model) count() {
	modules := []any{m.clip.Model}
	if d := m.captioner.Decoder; d != nil {
		modules = append(modules, d.Model.Mapper, d.Model.GPT2)
	}
	if g := m.captioner.Generator; g != nil {
		modules = append(modules, g.Model)
	}
	for _, module := range modules {
		for _, p := range nn.Parameters(module) {
			if p.Defined() {
				m.parameters += p.Numel()
				m.bytes += p.Numel() * p.DType().Size()
			}
		}
	}
}
