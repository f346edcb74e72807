package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"cyclecap/nets/clipcap"
	"cyclecap/pipeline"
)

// ownRoutes are the routes of this server's own form.
func (s *Server) ownRoutes(mux *http.ServeMux) {
	s.handle(mux, "POST /caption", s.caption)
	s.handle(mux, "POST /features", s.features)
	s.handle(mux, "POST /similarity", s.similarity)
	s.handle(mux, "GET /models", s.listModels)
	s.handle(mux, "GET /gap", s.gap)
}

// An ownRequest is the body of /caption, /features and /similarity as JSON. As a form
// (multipart/form-data), its keys are fields, images are files and texts are fields "text".
type ownRequest struct {
	Model  string     `json:"model"`
	Images stringList `json:"images"`
	Texts  stringList `json:"texts"`
	decodeRequest
	// Normalize scales the features of /features to length 1, and Textualise adds the
	// translated features of the images.
	Normalize  bool `json:"normalize"`
	Textualise bool `json:"textualise"`
	// Gap adds the places of the photos' features in the picture of the gap to /caption.
	Gap bool `json:"gap"`

	pictures []picture
}

// A stringList is a list of strings in JSON. encoding/json takes null for an empty string.
type stringList []string

func (l *stringList) UnmarshalJSON(b []byte) error {
	var list []*string
	if err := json.Unmarshal(b, &list); err != nil {
		return err
	}
	*l = nil
	for _, s := range list {
		if s == nil {
			return errors.New("null in a list of strings")
		}
		*l = append(*l, *s)
	}
	return nil
}

// unused returns an error if the request has options that its route does not use.
func (q *ownRequest) unused(path string, captions, features bool) error {
	switch {
	case !captions && q.decodeRequest != decodeRequest{}:
		return bad("invalid_value", "", "%s writes no captions: it does not use decode, beam and the like", path)
	case !features && q.Normalize:
		return invalid("normalize", "not used by %s", path)
	case !features && q.Textualise:
		return invalid("textualise", "not used by %s", path)
	}
	return nil
}

// decodeRequest is how to write captions. What is missing has the model's defaults.
type decodeRequest struct {
	Decode        *string  `json:"decode"`
	Beam          *int     `json:"beam"`
	MaxTokens     *int     `json:"max_tokens"`
	LengthPenalty *float64 `json:"length_penalty"`
	EarlyStopping *string  `json:"early_stopping"`
	Temperature   *float64 `json:"temperature"`
	TopK          *int     `json:"top_k"`
	TopP          *float64 `json:"top_p"`
	Seed          *uint64  `json:"seed"`
}

// readOwn reads a request of any form: JSON, a form with files, or a picture as the body.
func (s *Server) readOwn(r *http.Request) (q ownRequest, err error) {
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case r.Header.Get("Content-Type") == "" || err == nil && kind == "application/json":
		if err := readJSON(r, &q, true); err != nil {
			return q, err
		}
		if err := s.checkCount(len(q.Images), len(q.Texts)); err != nil {
			return q, err
		}
		for i, text := range q.Images {
			p, err := s.parsePicture(r.Context(), fmt.Sprintf("images[%d]", i), text)
			if err != nil {
				return q, err
			}
			q.pictures = append(q.pictures, p)
		}
		return q, nil
	case err == nil && kind == "multipart/form-data" && params["boundary"] != "":
		return s.readForm(r)
	case err == nil && (strings.HasPrefix(kind, "image/") || kind == "application/octet-stream"):
		data, err := io.ReadAll(r.Body)
		if err != nil {
			return q, readError(err)
		}
		q.Model = r.URL.Query().Get("model")
		q.pictures = []picture{{param: "body", data: data}}
		return q, nil
	}
	return q, &Error{Status: http.StatusUnsupportedMediaType, Code: "unsupported_media_type",
		Message: fmt.Sprintf("Content-Type %.100q: must be application/json, multipart/form-data or image/…", r.Header.Get("Content-Type"))}
}

// readForm reads multipart/form-data, part by part: nothing is written to disk.
func (s *Server) readForm(r *http.Request) (q ownRequest, err error) {
	form, err := r.MultipartReader()
	if err != nil {
		return q, bad("invalid_form", "", "the form cannot be read: %v", err)
	}
	for {
		part, err := form.NextPart()
		if err == io.EOF {
			return q, nil
		}
		if err != nil {
			return q, formError(err)
		}
		data, err := io.ReadAll(part)
		if err != nil {
			return q, formError(err)
		}
		name := part.FormName()
		if part.FileName() != "" || name == "image" || name == "images" {
			q.pictures = append(q.pictures, picture{name: part.FileName(), param: fmt.Sprintf("images[%d]", len(q.pictures)), data: data})
		} else if err := q.set(name, string(data)); err != nil {
			return q, err
		}
		if err := s.checkCount(len(q.pictures), len(q.Texts)); err != nil {
			return q, err
		}
	}
}

func formError(err error) error {
	if e := readError(err); e == err {
		return e
	}
	return bad("invalid_form", "", "the form cannot be read: %v", err)
}

// set sets a field of a form.
func (q *ownRequest) set(name, value string) (err error) {
	wrong := func(want string) error { return invalid(name, "must be %s, got %.50q", want, value) }
	whole := func(to **int) error {
		n, err := strconv.Atoi(value)
		*to = &n
		if err != nil {
			return wrong("a whole number")
		}
		return nil
	}
	number := func(to **float64) error {
		n, err := strconv.ParseFloat(value, 64)
		*to = &n
		if err != nil {
			return wrong("a number")
		}
		return nil
	}
	flag := func(to *bool) error {
		if *to, err = strconv.ParseBool(value); err != nil {
			return wrong("true or false")
		}
		return nil
	}
	switch name {
	case "model":
		q.Model = value
	case "text", "texts":
		q.Texts = append(q.Texts, value)
	case "normalize":
		return flag(&q.Normalize)
	case "textualise":
		return flag(&q.Textualise)
	case "gap":
		return flag(&q.Gap)
	case "decode":
		q.Decode = &value
	case "early_stopping":
		q.EarlyStopping = &value
	case "beam":
		return whole(&q.Beam)
	case "max_tokens":
		return whole(&q.MaxTokens)
	case "top_k":
		return whole(&q.TopK)
	case "length_penalty":
		return number(&q.LengthPenalty)
	case "temperature":
		return number(&q.Temperature)
	case "top_p":
		return number(&q.TopP)
	case "seed":
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			return wrong("a whole number")
		}
		q.Seed = &n
	default:
		return bad("unknown_field", name, "%.50q is not a field of this route", name)
	}
	return nil
}

// maxBeams limits the memory that a request can ask for.
const maxBeams = 64

// options returns the options of captions for a model, or what is wrong with them.
func (d decodeRequest) options(m *model) (clipcap.Options, error) {
	o := m.Options
	decoder := m.captioner.Decoder
	if d.Decode != nil {
		o.Method = clipcap.Method(*d.Decode)
	}
	if d.Beam != nil {
		o.Beam = *d.Beam
	}
	if d.MaxTokens != nil {
		o.MaxTokens = *d.MaxTokens
	}
	if d.LengthPenalty != nil {
		o.LengthPenalty = *d.LengthPenalty
	}
	if d.EarlyStopping != nil {
		o.EarlyStopping = clipcap.EarlyStopping(*d.EarlyStopping)
	}
	if d.Temperature != nil {
		o.Temperature = *d.Temperature
	}
	if d.TopK != nil {
		o.TopK = *d.TopK
	}
	if d.TopP != nil {
		o.TopP = *d.TopP
	}
	if d.Seed != nil {
		o.Seed = *d.Seed
	}
	most := min(maxBeams, decoder.Model.MaxBeams(o.Method))
	switch {
	case o.MaxTokens < 1 || o.MaxTokens > decoder.Model.Room():
		return o, invalid("max_tokens", "must be between 1 and %d with this model, got %d", decoder.Model.Room(), o.MaxTokens)
	case int64(o.Beam) > most || o.Beam < 1:
		return o, invalid("beam", "must be between 1 and %d, got %d", most, o.Beam)
	case math.IsNaN(o.Temperature) || math.IsInf(o.Temperature, 0):
		return o, invalid("temperature", "must be finite")
	}
	if err := o.Check(); err != nil {
		return o, bad("invalid_value", "", "%v", err)
	}
	return o, nil
}

// ownCaption is a caption with its tokens.
type ownCaption struct {
	Pipeline string     `json:"pipeline,omitempty"`
	Text     string     `json:"text"`
	LogProb  float64    `json:"logprob"`
	Score    float64    `json:"score"`
	Tokens   []ownToken `json:"tokens"`
	// Alternatives are the other beams, best first.
	Alternatives []ownCaption `json:"alternatives,omitempty"`
}

// ownToken is a token with its probability, given the tokens before it.
type ownToken struct {
	ID      int64   `json:"id"`
	Text    string  `json:"text"`
	LogProb float64 `json:"logprob"`
}

func captionJSON(d *pipeline.Decoder, way string, list []pipeline.Caption) (out ownCaption, err error) {
	for i, c := range list {
		o := ownCaption{Text: c.Text, LogProb: c.LogProb, Score: c.Score, Tokens: []ownToken{}}
		texts, err := tokenTexts(d, c.Tokens)
		if err != nil {
			return out, err
		}
		for k, id := range c.Tokens {
			o.Tokens = append(o.Tokens, ownToken{id, texts[k], c.TokenLogProbs[k]})
		}
		if i == 0 {
			o.Pipeline = way
			out = o
		} else {
			out.Alternatives = append(out.Alternatives, o)
		}
	}
	return out, nil
}

// tokenTexts returns the text that each token adds to those before it.
func tokenTexts(d *pipeline.Decoder, tokens []int64) ([]string, error) {
	s, out := speller{decoder: d}, make([]string, len(tokens))
	for i, id := range tokens {
		var err error
		if out[i], err = s.add(id, i == len(tokens)-1); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// readFor reads a request and finds its model, whose uses.Done the caller must call, and the way
// to caption with it.
func (s *Server) readFor(r *http.Request) (q ownRequest, m *model, way string, err error) {
	if q, err = s.readOwn(r); err == nil {
		m, way, err = s.models.get(q.Model)
	}
	return q, m, way, err
}

func (s *Server) caption(w http.ResponseWriter, r *http.Request) error {
	q, m, way, err := s.readFor(r)
	if err != nil {
		return err
	}
	defer m.uses.Done()
	ways := m.ways()
	if strings.Contains(q.Model, ":") {
		ways = []string{way}
	}
	t, err := s.captionTask(r.Context(), m, ways, q.pictures, q.decodeRequest)
	if err != nil {
		return err
	}
	if err := q.unused("/caption", true, false); err != nil {
		return err
	}
	if len(q.Texts) > 0 {
		return invalid("texts", "not used by /caption; /similarity compares photos with texts")
	}
	if q.Gap && m.gap == nil {
		return noGap(m)
	}
	t.translate = q.Gap
	if err := s.compute(w, t); err != nil {
		return err
	}
	type photo struct {
		Name     string       `json:"name,omitempty"`
		Captions []ownCaption `json:"captions"`
		Gap      *ownGap      `json:"gap,omitempty"`
	}
	out := struct {
		Model  string  `json:"model"`
		Photos []photo `json:"photos"`
	}{Model: m.Name}
	for i, p := range q.pictures {
		of := photo{Name: p.name}
		for _, way := range ways {
			c, err := captionJSON(m.captioner.Decoder, way, t.captions[way][i])
			if err != nil {
				return err
			}
			of.Captions = append(of.Captions, c)
		}
		if q.Gap {
			of.Gap = gapOf(m, t, i)
		}
		out.Photos = append(out.Photos, of)
	}
	return writeJSON(w, http.StatusOK, out)
}

// captionTask checks a request for captions and decodes its pictures.
func (s *Server) captionTask(ctx context.Context, m *model, ways []string, list []picture, d decodeRequest) (*task, error) {
	if len(ways) == 0 {
		return nil, noDecoder(m)
	}
	if len(list) == 0 {
		return nil, bad("no_image", "images", "no image in the request")
	}
	if err := s.checkCount(len(list), 0); err != nil {
		return nil, err
	}
	o, err := d.options(m)
	if err != nil {
		return nil, err
	}
	photos, err := s.prepare(ctx, m, list)
	return &task{ctx: ctx, model: m, photos: photos, ways: ways, options: o}, err
}

func noDecoder(m *model) error {
	return bad("no_decoder", "model", "the model %s has no decoder: it has features, but writes no captions", m.Name)
}

// featuresTask checks a request for features and decodes its pictures.
func (s *Server) featuresTask(ctx context.Context, m *model, list []picture, texts []string) (*task, error) {
	if len(list)+len(texts) == 0 {
		return nil, bad("no_input", "", "no image and no text in the request")
	}
	if err := s.checkCount(len(list), len(texts)); err != nil {
		return nil, err
	}
	if len(texts) > 0 && !m.texts {
		return nil, bad("no_text_encoder", "texts", "the model %s has no text encoder", m.Name)
	}
	photos, err := s.prepare(ctx, m, list)
	return &task{ctx: ctx, model: m, photos: photos, texts: texts}, err
}

// rowsOf cuts features into rows.
func rowsOf(flat []float32, width int) [][]float32 {
	out := make([][]float32, 0, len(flat)/width)
	for row := range slices.Chunk(flat, width) {
		out = append(out, row)
	}
	return out
}

func (s *Server) features(w http.ResponseWriter, r *http.Request) error {
	q, m, _, err := s.readFor(r)
	if err != nil {
		return err
	}
	defer m.uses.Done()
	t, err := s.featuresTask(r.Context(), m, q.pictures, q.Texts)
	if err != nil {
		return err
	}
	if err := q.unused("/features", false, true); err != nil {
		return err
	}
	if q.Textualise && m.captioner.Generator == nil {
		return bad("no_generator", "textualise", "the model %s has no generator", m.Name)
	}
	t.normalize, t.translate = q.Normalize, q.Textualise
	if err := s.compute(w, t); err != nil {
		return err
	}
	out := struct {
		Model       string      `json:"model"`
		Width       int         `json:"width"`
		Images      [][]float32 `json:"images"`
		Texts       [][]float32 `json:"texts"`
		Textualised [][]float32 `json:"textualised,omitempty"`
	}{Model: m.Name, Width: m.clip.Width()}
	out.Images, out.Texts = rowsOf(t.imageRows, out.Width), rowsOf(t.textRows, out.Width)
	out.Textualised = rowsOf(t.translatedRows, out.Width)
	return writeJSON(w, http.StatusOK, out)
}

func (s *Server) similarity(w http.ResponseWriter, r *http.Request) error {
	q, m, _, err := s.readFor(r)
	if err != nil {
		return err
	}
	defer m.uses.Done()
	t, err := s.featuresTask(r.Context(), m, q.pictures, q.Texts)
	if err != nil {
		return err
	}
	if err := q.unused("/similarity", false, false); err != nil {
		return err
	}
	if len(q.pictures) == 0 || len(q.Texts) == 0 {
		return bad("no_input", "", "/similarity compares at least one image with at least one text")
	}
	t.normalize = true
	if err := s.compute(w, t); err != nil {
		return err
	}
	images, texts := rowsOf(t.imageRows, m.clip.Width()), rowsOf(t.textRows, m.clip.Width())
	out := struct {
		Model string `json:"model"`
		// Cosines has a row for each image and a column for each text.
		Cosines [][]float64 `json:"cosines"`
		// Probabilities are the softmax of each row, at CLIP's own temperature.
		Probabilities [][]float64 `json:"probabilities,omitempty"`
	}{Model: m.Name}
	for _, a := range images {
		row := make([]float64, len(texts))
		for k, b := range texts {
			for j := range a {
				row[k] += float64(a[j]) * float64(b[j])
			}
		}
		out.Cosines = append(out.Cosines, row)
		if m.temperature > 0 {
			out.Probabilities = append(out.Probabilities, softmax(row, m.temperature))
		}
	}
	return writeJSON(w, http.StatusOK, out)
}

// softmax returns the softmax of x times a factor.
func softmax(x []float64, factor float64) []float64 {
	most := math.Inf(-1)
	for _, v := range x {
		most = max(most, v)
	}
	out, sum := make([]float64, len(x)), 0.0
	for i, v := range x {
		out[i] = math.Exp(factor * (v - most))
		sum += out[i]
	}
	for i := range out {
		out[i] /= sum
	}
	return out
}
