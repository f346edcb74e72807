package pipeline

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"cyclecap/data/tokenizer"
	"cyclecap/nets/gpt2"
	"cyclecap/torch/nn"
	"cyclecap/weights"
)

// GPT2 is a GPT-2 with its tokenizer.
type GPT2 struct {
	Path      string // of the weights
	Model     *gpt2.Model
	Tokenizer *tokenizer.GPT2Tokenizer
	// Unnamed are the ids that the model has but the tokenizer does not, such as the
	// rows by which the matrix of embeddings was padded. No text contains them.
	Unnamed []int64
	// Stop is the id of the token ".", with which ClipCap ends a caption.
	Stop int64
	// EOS is eos_token_id of generation_config.json or config.json, with which
	// transformers' generate ends a text.
	EOS []int64
	// Notes say what was assumed because no file says it.
	Notes []string
	// from says where the settings that the weights do not tell come from, like
	// Setting.From.
	from string
}

// GPT2Files are the names of the files beside the weights of a GPT-2 that say how to
// compute with them.
var GPT2Files = []string{"config.json", "tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"}

// LoadGPT2 loads a GPT-2 with the dtype of its file, on the CPU; weights of 8 bits become
// f32. Its settings and its tokenizer are those of the files beside the weights:
// config.json, and tokenizer.json or vocab.json with merges.txt. Without them, LoadGPT2
// assumes those of the released GPT-2, and says so in Notes.
func LoadGPT2(path string) (*GPT2, error) { return Files{GPT2: path}.loadGPT2(Options{}) }

// LoadGPT2For is LoadGPT2 with weights that compute as o says.
func LoadGPT2For(path string, o Options) (*GPT2, error) {
	if err := ready(); err != nil {
		return nil, err
	}
	g, err := Files{GPT2: path}.loadGPT2(o)
	if err != nil {
		return nil, err
	}
	return g, o.prepare(g.Model)
}

// loadGPT2 is LoadGPT2 for weights that o.prepare will prepare.
func (from Files) loadGPT2(o Options) (*GPT2, error) {
	f, err := from.open(from.GPT2)
	if err != nil {
		return nil, err
	}
	sd, err := weights.LoadGPT2(f, nil)
	if err != nil {
		return nil, err
	}
	converted, err := o.dequantize(from.GPT2, sd)
	if err != nil {
		return nil, err
	}
	g, err := gpt2Of(sd, folderOf(f))
	if err != nil {
		sd.Close()
		return nil, err
	}
	g.Notes = slices.Concat(f.Notes, converted, g.Notes)
	return g, nil
}

// ReadGPT2 is LoadGPT2 for an open file. Weights of 8 bits stay as they are in the file. The notes
// are without those of the file.
func ReadGPT2(f *weights.File) (*GPT2, error) { return readGPT2(f, nil) }

// readGPT2 is ReadGPT2 of the tensors that keep selects, as for weights.LoadGPT2.
func readGPT2(f *weights.File, keep func(name string) bool) (*GPT2, error) {
	sd, err := weights.LoadGPT2(f, keep)
	if err != nil {
		return nil, err
	}
	g, err := gpt2Of(sd, folderOf(f))
	if err != nil {
		sd.Close()
	}
	return g, err
}

// gpt2Inside returns the GPT-2 with the tensors sd that the decoder file f contains.
// Its settings and its tokenizer are those in the file's metadata, beside the file,
// or beside the GPT-2 that was given in addition, other (nil: none).
func gpt2Inside(sd *nn.StateDict, f, other *weights.File) (*GPT2, error) {
	own := folderOf(f)
	own.shared = true
	from := []gpt2Folder{own}
	if other != nil {
		from = append(from, folderOf(other))
	}
	return gpt2Of(sd, from...)
}

// gpt2Folder is where to look for the files of a GPT-2.
type gpt2Folder struct {
	file *weights.File
	// whole reports that the files beside the weights belong to them, by the name of
	// the weights file.
	whole bool
	// shared reports that files beside the weights may belong to other models; they
	// count only if config.json is a GPT-2's.
	shared bool
}

func folderOf(f *weights.File) gpt2Folder {
	name := filepath.Base(f.Path)
	return gpt2Folder{file: f, whole: strings.HasPrefix(name, "model") && strings.Contains(name, ".safetensors") ||
		strings.HasPrefix(name, "pytorch_model") && strings.Contains(name, ".bin")}
}

// gpt2Files are what was found beside weights.
type gpt2Files struct {
	config     *gpt2.Config
	configPath string
	configFrom string // Setting.From
	eos        []int64
	tokens     *tokenizer.GPT2Tokenizer
	tokensPath string // empty: GPT-2's vocabulary is assumed
	note       string
}

// files reads the files in a folder.
func (d gpt2Folder) files() (out gpt2Files, err error) {
	data, path, err := d.file.Beside("config.json")
	if err != nil {
		return out, err
	}
	if data != nil {
		c, err := gpt2.ParseConfig(data)
		if other := (*gpt2.OtherModelError)(nil); errors.As(err, &other) && !d.whole {
			out.note = fmt.Sprintf("the files beside %s belong to another model (config.json: %s) and are not used", d.file.Path, other.Type)
			return out, nil
		} else if err != nil {
			return out, fmt.Errorf("%s: %w", path, err)
		}
		out.config, out.configPath, out.configFrom = &c, path, "config.json"
		if out.eos, err = eosOf(data, path); err != nil {
			return out, err
		}
	} else if d.shared {
		return out, nil
	}
	generation, path, err := d.file.Beside("generation_config.json")
	if err != nil {
		return out, err
	}
	if eos, err := eosOf(generation, path); err != nil {
		return out, err
	} else if eos != nil {
		out.eos = eos
	}
	out.tokens, out.tokensPath, err = tokenizer.Load(func(name string) ([]byte, error) {
		data, _, err := d.file.Beside(name)
		return data, err
	})
	folder := filepath.Dir(d.file.Path)
	if err != nil {
		return out, fmt.Errorf("%s: %w", folder, err)
	}
	if out.tokensPath != "" {
		out.tokensPath = filepath.Join(folder, out.tokensPath)
	}
	return out, nil
}

// eosOf returns eos_token_id, an id or a list of ids; nil if it is missing.
func eosOf(data []byte, path string) ([]int64, error) {
	if data == nil {
		return nil, nil
	}
	var c struct {
		EOS json.RawMessage `json:"eos_token_id"`
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, fmt.Errorf("%s: not a JSON object", path)
	}
	var one int64
	var list []int64
	switch {
	case c.EOS == nil || string(c.EOS) == "null":
		return nil, nil
	case json.Unmarshal(c.EOS, &one) == nil:
		return []int64{one}, nil
	case json.Unmarshal(c.EOS, &list) == nil:
		return list, nil
	}
	return nil, fmt.Errorf("%s: eos_token_id must be an id or a list of ids, got %.60s", path, c.EOS)
}

// gpt2Of returns the GPT-2 with the tensors sd, and with the files in the first of the
// folders that has them. The first folder is that of the tensors' file.
func gpt2Of(sd *nn.StateDict, from ...gpt2Folder) (*GPT2, error) {
	g := &GPT2{Path: from[0].file.Path}
	var all gpt2Files
	fingerprint := ""
	for _, d := range from {
		if text, ok := d.file.Meta[weights.GPT2Config]; ok && all.config == nil {
			c, err := gpt2.ParseConfig([]byte(text))
			if err != nil {
				return nil, fmt.Errorf("%s: metadata %s: %w", d.file.Path, weights.GPT2Config, err)
			}
			all.config, all.configPath, all.configFrom = &c, "the metadata of "+d.file.Path, "metadata"
		}
		if fingerprint == "" {
			fingerprint = d.file.Meta[weights.GPT2Tokenizer]
		}
		if text, ok := d.file.Meta[weights.GPT2Merges]; ok && all.tokens == nil {
			t, err := tokenizer.FromMerges(text)
			if err != nil {
				return nil, fmt.Errorf("%s: metadata %s: %w", d.file.Path, weights.GPT2Merges, err)
			}
			all.tokens, all.tokensPath = t, "the metadata of "+d.file.Path
		}
		f, err := d.files()
		if err != nil {
			return nil, err
		}
		if all.config == nil {
			all.config, all.configPath, all.configFrom, all.eos = f.config, f.configPath, f.configFrom, f.eos
		}
		if all.tokens == nil {
			all.tokens, all.tokensPath = f.tokens, f.tokensPath
		}
		if f.note != "" {
			g.Notes = append(g.Notes, f.note)
		}
	}
	if g.EOS = all.eos; g.EOS == nil {
		g.EOS = []int64{int64(tokenizer.GPT2().EndID())} // GPT2Config's default
	}
	g.from = cmp.Or(all.configFrom, "assumed")
	if err := g.model(sd, &all); err != nil {
		return nil, err
	}
	if err := g.tokens(fingerprint, &all); err != nil {
		nn.Close(g.Model)
		return nil, err
	}
	g.assumed(fingerprint != "", &all)
	return g, nil
}

// model creates the model.
func (g *GPT2) model(sd *nn.StateDict, f *gpt2Files) (err error) {
	if f.config == nil {
		if g.Model, err = gpt2.Load(sd); err != nil {
			return fmt.Errorf("%s: %w", g.Path, err)
		}
		return nil
	}
	c, err := f.config.Of(sd)
	if err == nil {
		g.Model, err = gpt2.LoadConfig(c, sd)
	}
	if err != nil {
		return fmt.Errorf("%s with %s: %w", g.Path, f.configPath, err)
	}
	if c.Untied && !f.config.Untied {
		g.Notes = append(g.Notes, fmt.Sprintf("%s contains a head of its own, lm_head.weight, although %s says that it is tied to wte.weight; it is used, as in transformers", g.Path, f.configPath))
	}
	return nil
}

// tokens sets the tokenizer. fingerprint is the one that the weights were saved with,
// or empty.
func (g *GPT2) tokens(fingerprint string, f *gpt2Files) (err error) {
	rows := int(g.Model.Config.VocabSize)
	t, from := f.tokens, f.tokensPath
	if t == nil {
		t = tokenizer.GPT2()
	}
	if from == "" {
		from = "GPT-2's tokenizer"
	}
	left := 0
	if g.Tokenizer, left, err = t.Limited(rows); err != nil {
		return fmt.Errorf("%s with %s: %w", g.Path, from, err)
	}
	if left > 0 {
		g.Notes = append(g.Notes, fmt.Sprintf("%s has %d added tokens whose ids the model in %s does not have; they are read as ordinary text", from, left, g.Path))
	}
	if fingerprint != "" && fingerprint != g.Tokenizer.Fingerprint() {
		return fmt.Errorf("%s was trained with another tokenizer than %s: put its GPT-2's config.json and tokenizer files beside it, or give the folder with them as the GPT-2", g.Path, from)
	}
	for id := range rows {
		if !g.Tokenizer.Known(id) {
			g.Unnamed = append(g.Unnamed, int64(id))
		}
	}
	stop, ok := g.Tokenizer.ID(".")
	if !ok {
		return fmt.Errorf("%s has no token \".\", which ends a caption", from)
	}
	g.Stop = int64(stop)
	return nil
}

// assumed adds the notes on what no file says. saved reports whether the metadata
// vouches for the tokenizer.
func (g *GPT2) assumed(saved bool, f *gpt2Files) {
	tokenizer := f.tokensPath == "" && !saved
	settings := fmt.Sprintf("%d attention heads of width 64 and gelu_new", g.Model.Config.NHead)
	switch {
	case f.config == nil && tokenizer:
		g.Notes = append(g.Notes, fmt.Sprintf("there is no config.json and no tokenizer beside %s: %s, and GPT-2's tokenizer, are assumed; for a GPT-2 with others, put its files there", g.Path, settings))
	case f.config == nil:
		g.Notes = append(g.Notes, fmt.Sprintf("there is no config.json beside %s: %s are assumed; for a GPT-2 with others, put its config.json there", g.Path, settings))
	case tokenizer:
		g.Notes = append(g.Notes, fmt.Sprintf("there is no tokenizer beside %s: GPT-2's is assumed; for a GPT-2 with another, put its tokenizer.json, or vocab.json and merges.txt, there", g.Path))
	}
	if n := len(g.Unnamed); n > 0 {
		g.Notes = append(g.Notes, fmt.Sprintf("%d of the %d tokens of %s, from id %d on, are not in its tokenizer and are never chosen",
			n, g.Model.Config.VocabSize, g.Path, slices.Min(g.Unnamed)))
	}
}

// Meta returns the metadata that let LoadGPT2 and LoadDecoder read the model's weights
// from a file without its folder.
func (g *GPT2) Meta() map[string]string {
	meta := map[string]string{weights.GPT2Config: string(g.Model.Config.JSON()), weights.GPT2Tokenizer: g.Tokenizer.Fingerprint()}
	if merges := g.Tokenizer.Merges(); merges != "" {
		meta[weights.GPT2Merges] = merges
	}
	return meta
}

// LoadTokenizer loads the tokenizer of a GPT-2-shaped model from its folder.
func LoadTokenizer(folder string) (*tokenizer.GPT2Tokenizer, error) {
	f := &weights.File{Path: filepath.Join(folder, "model.safetensors")}
	t, from, err := tokenizer.Load(func(name string) ([]byte, error) {
		data, _, err := f.Beside(name)
		return data, err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", folder, err)
	}
	if from == "" {
		return nil, fmt.Errorf("%s: the folder contains neither tokenizer.json nor vocab.json with merges.txt", folder)
	}
	return t, nil
}
