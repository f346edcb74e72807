package serve

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"cyclecap/eval/geometry"
	"cyclecap/internal/atomicfile"
	"cyclecap/internal/regular"
	"cyclecap/nets/clipcap"
	"cyclecap/pipeline"
	"cyclecap/torch"
)

// A ModelConfig names the files of a model and how it computes.
type ModelConfig struct {
	// Name is what clients call the model.
	Name string
	// Files are the weights. Without a decoder, the model has features but no captions.
	Files pipeline.Files
	// Normalize says whether features are scaled to length 1 before they enter the
	// decoder: "auto", "yes" or "no".
	Normalize string
	Compute   pipeline.Options
	// Options are the defaults of captions; MaxTokens 0 means the decoder's own limit.
	Options clipcap.Options
	// Batch is the number of photos or texts to compute at once.
	Batch int
	// Gap is a file with a picture of the gap (geometry.Cloud) in JSON, in Files.FS if that is
	// set, or "".
	Gap string
}

// A model is ready to compute.
type model struct {
	ModelConfig
	clip      *pipeline.CLIP
	captioner *pipeline.Captioner // its Decoder is nil if the model writes no captions
	texts     bool                // whether clip has a text encoder that the tokenizers suit
	// temperature is that of CLIP's softmax over texts, or 0.
	temperature float64
	gap         *geometry.Cloud // nil without one
	loaded      time.Time
	// parameters is the number of parameters, and bytes their size.
	parameters, bytes int64
	notes             []string
	uses              sync.WaitGroup // requests
}

// load loads a model, on the calling goroutine's OS thread, and computes once with it, so that
// the first request is not slower than the others.
func load(c ModelConfig) (m *model, err error) {
	m = &model{ModelConfig: c, loaded: time.Now()}
	defer func() {
		if err != nil {
			m.close()
			err = fmt.Errorf("model %s: %w", c.Name, err)
		}
	}()
	c.Files.Texts = true
	var said string
	if c.Compute, said = c.Compute.Usable(); said != "" {
		m.notes = append(m.notes, "dtype int8: "+said)
	}
	m.Compute = c.Compute
	if m.captioner, err = pipeline.Load(c.Files, c.Compute); err != nil {
		return m, err
	}
	m.clip = m.captioner.CLIP
	m.temperature = m.clip.Temperature()
	m.texts = m.clip.CheckTokenizer() == nil
	if !m.texts {
		m.notes = append(m.notes, "it has no text encoder whose tokenizer is supported: only photos have features")
	}
	m.notes = append(m.notes, m.clip.Notes...)
	if c.Gap != "" {
		if m.gap, err = readGap(c, m.clip.Width()); err != nil {
			return m, fmt.Errorf("gap: %s: %w", c.Gap, atomicfile.Plain(err))
		}
	}
	if d := m.captioner.Decoder; d != nil {
		m.notes = append(m.notes, d.Notes...)
		if d.Normalize, err = normalize(c.Normalize, d); err != nil {
			return m, err
		}
		if c.Normalize == "auto" && d.NormalizeNote != "" {
			m.notes = append(m.notes, d.NormalizeNote)
		}
		m.Options.Stop = d.Stop
		room := d.Model.Room()
		switch {
		case room < 1:
			return m, fmt.Errorf("%s: its prefix of length %d leaves no room for captions in GPT-2's %d positions", d.Path, d.Model.Mapper.PrefixLength(), d.Model.GPT2.Config.NPositions)
		case c.Options.MaxTokens == 0:
			m.Options.MaxTokens = min(d.MaxTokens, room)
		case c.Options.MaxTokens > room:
			return m, fmt.Errorf("max_tokens %d: its GPT-2 has room for %d tokens after the prefix", c.Options.MaxTokens, room)
		}
		if err := m.Options.Check(); err != nil {
			return m, err
		}
	}
	m.count()
	return m, m.warm()
}

// maxGap bounds the size of a picture of the gap.
const maxGap = 16 << 20

// readGap reads the picture of the gap of a model with features of a width.
func readGap(c ModelConfig, width int) (*geometry.Cloud, error) {
	read := func(name string) ([]byte, error) { return regular.Read(name, maxGap) }
	if c.Files.FS != nil {
		read = func(name string) ([]byte, error) { return fs.ReadFile(c.Files.FS, name) }
	}
	data, err := read(c.Gap)
	if err != nil {
		return nil, err
	}
	cloud, err := geometry.ReadCloud(data)
	if err == nil && len(cloud.Mean) != width {
		err = fmt.Errorf("it is for features of width %d, but the model's have width %d", len(cloud.Mean), width)
	}
	return cloud, err
}

func normalize(when string, d *pipeline.Decoder) (bool, error) {
	switch when {
	case "auto", "":
		return d.Normalize, nil
	case "yes":
		return true, nil
	case "no":
		return false, nil
	}
	return false, fmt.Errorf("normalize must be auto, yes or no, got %q", when)
}

// warm computes once with every part.
func (m *model) warm() error {
	rows, err := m.clip.EncodePixels([][]float32{make([]float32, m.clip.Preprocess.Len())})
	if err == nil && m.texts {
		for _, e := range m.clip.Texts(context.Background(), []string{"a photo"}, 1, true) {
			err = errors.Join(err, e)
		}
	}
	o := m.Options
	o.MaxTokens = min(2, o.MaxTokens)
	for _, way := range m.ways() {
		if err == nil {
			_, err = m.captions(context.Background(), way, rows, o)
		}
	}
	return err
}

// captions writes the captions of one way for the features of photos, rows [n, width].
func (m *model) captions(ctx context.Context, way string, rows []float32, o clipcap.Options) ([][]pipeline.Caption, error) {
	if way == textualised {
		return m.captioner.Textualised(ctx, rows, o)
	}
	return m.captioner.Direct(ctx, rows, o)
}

// ways returns how the model can caption photos, the best last.
func (m *model) ways() []string {
	switch {
	case m.captioner.Decoder == nil:
		return nil
	case m.captioner.Generator == nil:
		return []string{direct}
	}
	return []string{direct, textualised}
}

func (m *model) close() {
	if m.captioner != nil {
		m.captioner.Close()
	}
}

// models are the models of a server by name. They can be replaced while requests use them.
type models struct {
	mu    sync.RWMutex
	list  []*model // in the order of the configuration
	ended bool
}

// get returns a model for a request, and how to caption with it. name is that of a model, which
// stands for its best way, or has a way after a colon: "world:direct". An empty name is the
// first model. The caller must call the model's uses.Done.
func (s *models) get(name string) (m *model, way string, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(s.list) == 0 {
		return nil, "", notReady()
	}
	base, tag, _ := strings.Cut(name, ":")
	m = s.list[0]
	if name != "" {
		i := slices.IndexFunc(s.list, func(m *model) bool { return m.Name == base })
		if i < 0 {
			return nil, "", s.unknown(name)
		}
		m = s.list[i]
	}
	ways := m.ways()
	switch {
	case tag == "" || tag == "latest":
		if len(ways) > 0 {
			way = ways[len(ways)-1]
		}
	case slices.Contains(ways, tag):
		way = tag
	default:
		return nil, "", s.unknown(name)
	}
	m.uses.Add(1)
	return m, way, nil
}

func (s *models) unknown(name string) *Error {
	return &Error{Status: 404, Code: "model_not_found", Param: "model",
		Message: fmt.Sprintf("no model %q; this server has %s", name, strings.Join(s.names(), ", "))}
}

// names returns the names that get knows.
func (s *models) names() (list []string) {
	for _, m := range s.list {
		list = append(list, m.names()...)
	}
	return list
}

// names returns the model's name, and that with each of its ways.
func (m *model) names() []string {
	list := []string{m.Name}
	for _, way := range m.ways() {
		list = append(list, m.Name+":"+way)
	}
	return list
}

// all returns the models, each with a use that the caller must end.
func (s *models) all() []*model {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, m := range s.list {
		m.uses.Add(1)
	}
	return slices.Clone(s.list)
}

// replace sets the models. Those before are closed when no request uses them any longer.
func (s *models) replace(list []*model) {
	s.mu.Lock()
	old := s.list
	if s.list = list; s.ended {
		s.list, old = nil, append(old, list...)
	}
	s.mu.Unlock()
	for _, m := range old {
		go func() {
			m.uses.Wait()
			m.close()
		}()
	}
}

// end closes the models, and all with which replace is called from now on.
func (s *models) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.replace(nil)
}

// loadAll loads models on a thread of their own.
func loadAll(configs []ModelConfig) (list []*model, err error) {
	names := map[string]bool{}
	e := torch.NewExecutor()
	defer e.Close()
	for _, c := range configs {
		if names[c.Name] {
			err = fmt.Errorf("two models have the name %s", c.Name)
		}
		names[c.Name] = true
		if err == nil {
			err = e.Do(func() error {
				m, err := load(c)
				if err == nil {
					list = append(list, m)
				}
				return err
			})
		}
		if err != nil {
			for _, m := range list {
				m.close()
			}
			return nil, err
		}
	}
	return list, nil
}

func notReady() *Error {
	return &Error{Status: 503, Code: "not_ready", Message: "the server is not ready: it is loading its models or shutting down", RetryAfter: time.Second}
}
