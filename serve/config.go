package serve

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"cyclecap/internal/nearest"
	"cyclecap/nets/clipcap"
	"cyclecap/pipeline"
	"cyclecap/torch"

	"github.com/BurntSushi/toml"
)

// A file is the configuration of a server in TOML. Its keys are the names of the command's
// options; what is missing keeps its value.
type file struct {
	Listen       *string     `toml:"listen"`
	Queue        *int        `toml:"queue"`
	QueueTimeout *duration   `toml:"queue_timeout"`
	BatchWindow  *duration   `toml:"batch_window"`
	MaxBatch     *int        `toml:"max_batch"`
	MaxBody      *int64      `toml:"max_body"`
	MaxPixels    *int        `toml:"max_pixels"`
	MaxItems     *int        `toml:"max_items"`
	MaxInFlight  *int64      `toml:"max_in_flight"`
	APIKeyFile   *string     `toml:"api_key_file"`
	Public       *[]string   `toml:"public"`
	AllowHosts   *[]string   `toml:"allow_hosts"`
	Origins      *[]string   `toml:"cors_origins"`
	FetchHosts   *[]string   `toml:"fetch_hosts"`
	TLSCert      *string     `toml:"tls_cert"`
	TLSKey       *string     `toml:"tls_key"`
	DrainPause   *duration   `toml:"drain_pause"`
	DrainTimeout *duration   `toml:"drain_timeout"`
	Models       []fileModel `toml:"model"`
}

// A fileModel is a [[model]] of a file.
type fileModel struct {
	Name          string   `toml:"name"`
	CLIP          string   `toml:"clip"`
	CLIPConfig    string   `toml:"clip_config"`
	Decoder       string   `toml:"decoder"`
	GPT2          string   `toml:"gpt2"`
	Generator     string   `toml:"generator"`
	Gap           string   `toml:"gap"`
	Normalize     string   `toml:"normalize"`
	Device        string   `toml:"device"`
	Dtype         string   `toml:"dtype"`
	Fast          bool     `toml:"fast"`
	Batch         *int     `toml:"batch"`
	Decode        *string  `toml:"decode"`
	Beam          *int     `toml:"beam"`
	MaxTokens     int      `toml:"max_tokens"`
	LengthPenalty *float64 `toml:"length_penalty"`
	EarlyStopping string   `toml:"early_stopping"`
	Temperature   float64  `toml:"temperature"`
	TopK          int      `toml:"top_k"`
	TopP          float64  `toml:"top_p"`
	Seed          uint64   `toml:"seed"`
}

// duration is a length of time such as "5ms".
type duration time.Duration

func (d *duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%.30q is not a length of time, such as 500ms, 5s or 2m", text)
	}
	*d = duration(v)
	return nil
}

// ReadConfig sets the options that a file has. Its [[model]] tables replace o.Models; a table
// that names no weights is builtIn, with its own name. Paths are relative to the file.
func ReadConfig(path string, o *Options, builtIn ModelConfig) error {
	var f file
	md, err := toml.DecodeFile(path, &f)
	if parse := (toml.ParseError{}); errors.As(err, &parse) {
		return fmt.Errorf("%s:%d: %s", path, parse.Position.Line, strings.TrimPrefix(parse.Message, "toml: "))
	} else if m := wrongType.FindStringSubmatch(fmt.Sprint(err)); m != nil {
		return fmt.Errorf("%s:%s: %s: must be of type %s, got %s", path, m[1], m[2], m[4], m[3])
	} else if err != nil {
		return fmt.Errorf("%s: %s", path, strings.TrimPrefix(err.Error(), "toml: "))
	}
	if list := md.Undecoded(); len(list) > 0 {
		return unknownKey(path, list[0])
	}
	set(&o.Queue, f.Queue)
	set(&o.MaxBatch, f.MaxBatch)
	set(&o.MaxPixels, f.MaxPixels)
	set(&o.MaxItems, f.MaxItems)
	set(&o.Listen, f.Listen)
	set(&o.MaxBody, f.MaxBody)
	set(&o.MaxInFlight, f.MaxInFlight)
	set((*duration)(&o.QueueTimeout), f.QueueTimeout)
	set((*duration)(&o.BatchWindow), f.BatchWindow)
	set((*duration)(&o.DrainPause), f.DrainPause)
	set((*duration)(&o.DrainTimeout), f.DrainTimeout)
	set(&o.Public, f.Public)
	set(&o.AllowHosts, f.AllowHosts)
	set(&o.Origins, f.Origins)
	set(&o.FetchHosts, f.FetchHosts)
	beside := func(name string) string {
		// A name that is not a file here may be that of a downloaded model.
		if name == "" || filepath.IsAbs(name) {
			return name
		}
		if at := filepath.Join(filepath.Dir(path), name); exists(at) {
			return at
		}
		return name
	}
	for _, p := range []struct {
		to   *string
		from *string
	}{{&o.TLSCert, f.TLSCert}, {&o.TLSKey, f.TLSKey}, {&o.KeyFile, f.APIKeyFile}} {
		if p.from != nil {
			*p.to = beside(*p.from)
		}
	}
	if f.Models != nil {
		o.Models = nil
	}
	for i, m := range f.Models {
		c, err := m.config(builtIn, beside)
		if err != nil {
			return fmt.Errorf("%s: model %d (%q): %w", path, i+1, m.Name, err)
		}
		o.Models = append(o.Models, c)
	}
	return nil
}

// wrongType is the library's error for a value of another type.
var wrongType = regexp.MustCompile(`^toml: line (\d+) \(last key "(.*)"\): incompatible types: TOML value has type (\w+); destination has type (.*)$`)

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// unknownKey is the error of a key that has no meaning, with the one that was probably meant.
func unknownKey(path string, key toml.Key) error {
	valid := keysOf(file{})
	if len(key) > 1 && key[0] == "model" {
		valid = keysOf(fileModel{})
	}
	text := fmt.Sprintf("%s: %s: unknown key", path, key)
	if near := nearest.Word(key[len(key)-1], valid); near != "" {
		return fmt.Errorf("%s; did you mean %s?", text, near)
	}
	return fmt.Errorf("%s; valid keys: %s", text, strings.Join(valid, ", "))
}

// keysOf returns the keys of a table.
func keysOf(v any) (keys []string) {
	t := reflect.TypeOf(v)
	for i := range t.NumField() {
		keys = append(keys, t.Field(i).Tag.Get("toml"))
	}
	return keys
}

// config returns the model that a table describes.
func (m fileModel) config(builtIn ModelConfig, beside func(string) string) (c ModelConfig, err error) {
	if m.CLIP == "" && m.Decoder == "" && m.GPT2 == "" && m.Generator == "" {
		if m.Gap != "" {
			return c, errors.New("gap: the models in the program have a picture of their own")
		}
		c.Files, c.Gap = builtIn.Files, builtIn.Gap
	} else {
		c.Gap = beside(m.Gap)
		c.Files = pipeline.Files{CLIP: beside(m.CLIP), CLIPConfig: beside(m.CLIPConfig), Decoder: beside(m.Decoder), GPT2: beside(m.GPT2), Generator: beside(m.Generator)}
	}
	c.Name, c.Normalize = m.Name, m.Normalize
	c.Compute.Pack = m.Fast
	if m.Device != "" {
		if c.Compute.Device, err = torch.ParseDevice(m.Device); err != nil {
			return c, fmt.Errorf("device: %w", err)
		}
	}
	switch m.Dtype {
	case "", "f32":
	case "bf16":
		c.Compute.BF16 = true
	case "int8":
		c.Compute.Int8 = true
	default:
		return c, fmt.Errorf("dtype: must be f32 or bf16, or int8 on the CPU, got %q", m.Dtype)
	}
	if err := c.Compute.Check(); err != nil {
		return c, fmt.Errorf("dtype: %w", err)
	}
	c.Batch, c.Options = 16, clipcap.Options{Method: clipcap.Greedy, Beam: 5, LengthPenalty: 1, EarlyStopping: clipcap.EarlyStopping(m.EarlyStopping),
		MaxTokens: m.MaxTokens, Temperature: m.Temperature, TopK: m.TopK, TopP: m.TopP, Seed: m.Seed}
	set(&c.Batch, m.Batch)
	set((*string)(&c.Options.Method), m.Decode)
	set(&c.Options.Beam, m.Beam)
	set(&c.Options.LengthPenalty, m.LengthPenalty)
	return c, nil
}

// modelName is the form of a model's name: it stands in URLs, and before a colon.
var modelName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/-]{0,99}$`)

// Check returns an error if the options are invalid.
func (o Options) Check() error {
	for _, n := range []struct {
		name          string
		value, lo, hi int64
	}{
		{"queue", int64(o.Queue), 1, 1e6}, {"max-batch", int64(o.MaxBatch), 1, 4096}, {"max-items", int64(o.MaxItems), 1, 1e5},
		{"max-pixels", int64(o.MaxPixels), 1, 178_956_970}, {"max-body", o.MaxBody, 1 << 10, 1 << 40}, {"max-in-flight", o.MaxInFlight, o.MaxBody, 1 << 50},
	} {
		if n.value < n.lo || n.value > n.hi {
			return fmt.Errorf("%s: must be between %d and %d, got %d", n.name, n.lo, n.hi, n.value)
		}
	}
	for name, d := range map[string]time.Duration{"queue-timeout": o.QueueTimeout - 1, "batch-window": o.BatchWindow, "drain-pause": o.DrainPause, "drain-timeout": o.DrainTimeout} {
		if d < 0 || d > 24*time.Hour {
			return fmt.Errorf("%s: must be positive and at most 24h", name)
		}
	}
	if _, _, err := net.SplitHostPort(o.Listen); err != nil {
		return fmt.Errorf("listen: %q is not an address, such as 127.0.0.1:8080 or :8080", o.Listen)
	}
	for _, p := range o.Public {
		if !slices.Contains([]string{"health", "metrics", "page"}, p) {
			return fmt.Errorf("public: must be health, metrics or page, got %q", p)
		}
	}
	if (o.TLSCert == "") != (o.TLSKey == "") {
		return errors.New("tls-cert and tls-key: both are needed")
	}
	if len(o.Models) == 0 {
		return errors.New("no model")
	}
	for _, m := range o.Models {
		if !modelName.MatchString(m.Name) {
			return fmt.Errorf("the model name %q must consist of letters, digits and . _ - /, and begin with a letter or digit", m.Name)
		}
		if m.Files.CLIP == "" {
			return fmt.Errorf("model %s: clip is missing", m.Name)
		}
		if m.Batch < 1 || m.Batch > 4096 {
			return fmt.Errorf("model %s: batch: must be between 1 and 4096, got %d", m.Name, m.Batch)
		}
	}
	return nil
}

// ReadKeys returns the API keys in a file, one on each line; empty lines and those that begin
// with # are left out.
func ReadKeys(path string) (keys []string, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			keys = append(keys, line)
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s: has no key", path)
	}
	return keys, nil
}
