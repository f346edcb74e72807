package serve

import "net/http"

// ownGap has the places of a photo's features in the picture of the gap.
type ownGap struct {
	Image [2]float64 `json:"image"`
	// Textualised is missing if the model has no generator.
	Textualised *[2]float64 `json:"textualised,omitempty"`
}

// gapOf returns the places of photo i of a task that has run.
func gapOf(m *model, t *task, i int) *ownGap {
	row := func(flat []float32) [2]float64 { return m.gap.Project(flat[i*m.clip.Width():][:m.clip.Width()]) }
	g := &ownGap{Image: row(t.imageRows)}
	if t.translatedRows != nil {
		at := row(t.translatedRows)
		g.Textualised = &at
	}
	return g
}

func noGap(m *model) *Error {
	return &Error{Status: http.StatusNotFound, Code: "no_gap", Param: "gap", Message: "the model " + m.Name + " has no picture of the gap"}
}

// gap sends the picture of the gap of a model.
func (s *Server) gap(w http.ResponseWriter, r *http.Request) error {
	m, _, err := s.models.get(r.URL.Query().Get("model"))
	if err != nil {
		return err
	}
	defer m.uses.Done()
	if m.gap == nil {
		return noGap(m)
	}
	return writeJSON(w, http.StatusOK, m.gap)
}

// listModels says what each model can do, and the limits of requests: what the page needs to
// know.
func (s *Server) listModels(w http.ResponseWriter, r *http.Request) error {
	type ownModel struct {
		Name      string   `json:"name"`
		BuiltIn   bool     `json:"built_in"` // it is in the program
		Pipelines []string `json:"pipelines"`
		Texts     bool     `json:"texts"` // it has features of texts
		Gap       bool     `json:"gap"`   // it has a picture of the gap
		// The defaults of captions.
		Decode    string `json:"decode,omitempty"`
		Beam      int    `json:"beam,omitempty"`
		MaxTokens int    `json:"max_tokens,omitempty"`
	}
	out := struct {
		Models []ownModel `json:"models"`
		Limits struct {
			Body  int64 `json:"body"` // bytes
			Items int   `json:"items"`
			Beam  int64 `json:"beam"`
		} `json:"limits"`
	}{}
	list := s.models.all()
	for _, m := range list {
		of := ownModel{Name: m.Name, BuiltIn: m.Files.FS != nil, Pipelines: m.ways(), Texts: m.texts, Gap: m.gap != nil}
		if of.Pipelines == nil {
			of.Pipelines = []string{}
		} else {
			of.Decode, of.Beam, of.MaxTokens = string(m.Options.Method), m.Options.Beam, m.Options.MaxTokens
		}
		out.Models = append(out.Models, of)
		m.uses.Done()
	}
	if len(list) == 0 {
		return notReady()
	}
	out.Limits.Body, out.Limits.Items, out.Limits.Beam = s.o.MaxBody, s.o.MaxItems, maxBeams
	return writeJSON(w, http.StatusOK, out)
}
