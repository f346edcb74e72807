package pipeline_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cyclecap/nets/clip"
	"cyclecap/nets/clipcap"
	"cyclecap/pipeline"
	"cyclecap/torch"
	"cyclecap/torch/compare"
	"cyclecap/torch/nn"
	"cyclecap/weights"

	"github.com/google/go-cmp/cmp"
)

// decoders is a folder that testdata/reference/decoders.py has written.
var decoders = flag.String("decoders", "testdata/decoders", "compare with the decoders in `FOLDER`")

// search is what transformers' generate returned for some settings.
type search struct {
	Stop    int64
	Early   clipcap.EarlyStopping
	Penalty float64
	Beams   int
	Tokens  int
	IDs     [][][]int64 `json:"ids"`
	Scores  [][]float64
}

type decoderFacts struct {
	CPU      string
	Threads  int
	Beams    []search
	Decoders []struct {
		File, GPT2 string
		Normalize  bool
		IDs        [][]int64 `json:"ids"`
	}
	Texts []struct {
		IDs  []int `json:"ids"`
		Text string
	} `json:"decap_texts"`
}

// reference returns what Python computed, and whether on a processor like this one.
func reference(t *testing.T) (facts decoderFacts, tensors *nn.StateDict, sameCPU bool) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(*decoders, "expected.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &facts); err != nil {
		t.Fatal(err)
	}
	f, err := weights.Open(filepath.Join(*decoders, "expected.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	if tensors, err = f.Load(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tensors.Close)
	threads := torch.NumThreads()
	torch.SetNumThreads(facts.Threads)
	t.Cleanup(func() { torch.SetNumThreads(threads) })
	cpu, err := compare.Processor()
	if err != nil {
		t.Fatal(err)
	}
	return facts, tensors, cpu == facts.CPU
}

// TestBeamTransformers compares all beams with those of transformers' generate. Scores
// differ in their last bits, because transformers computes the prefix once for each beam.
func TestBeamTransformers(t *testing.T) {
	facts, tensors, _ := reference(t)
	var largest float64
	err := torch.Scope(func() error {
		g, err := pipeline.LoadGPT2(filepath.Join(*decoders, "beams.safetensors"))
		if err != nil {
			return err
		}
		defer nn.Close(g.Model)
		m := &clipcap.Model{GPT2: g.Model}
		prefix, _ := tensors.Get("prefix")
		for _, s := range facts.Beams {
			o := clipcap.Options{Method: clipcap.BeamTransformers, Beam: s.Beams, MaxTokens: s.Tokens, Stop: s.Stop,
				LengthPenalty: s.Penalty, EarlyStopping: s.Early}
			var all [][]clipcap.Caption
			torch.InferenceMode(func() { all, err = m.Continue(t.Context(), prefix, o) })
			if err != nil {
				return err
			}
			name := fmt.Sprintf("%d beams, %d tokens, stop %d, early stopping %s, length penalty %g", s.Beams, s.Tokens, s.Stop, s.Early, s.Penalty)
			for i, beams := range all {
				var ids [][]int64
				for b, c := range beams {
					ids = append(ids, c.Tokens)
					if b < len(s.Scores[i]) {
						off := math.Abs(c.Score-s.Scores[i][b]) / max(1, math.Abs(s.Scores[i][b]))
						largest = max(largest, off)
						if !(off <= 1e-5) {
							t.Errorf("%s: photo %d, beam %d: score %g, want %g", name, i, b, c.Score, s.Scores[i][b])
						}
					}
					var sum float64
					for _, p := range c.TokenLogProbs {
						sum += p
					}
					if !(math.Abs(sum-c.LogProb) <= 1e-4) || len(c.TokenLogProbs) != len(c.Tokens) {
						t.Errorf("%s: photo %d, beam %d: the %d tokens' log-probabilities sum to %g, want %g", name, i, b, len(c.TokenLogProbs), sum, c.LogProb)
					}
				}
				if diff := cmp.Diff(s.IDs[i], ids); diff != "" {
					t.Errorf("%s: photo %d (-transformers +ours):\n%s", name, i, diff)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d searches; largest relative difference of a score: %.2g", len(facts.Beams), largest)
}

// TestDecoders compares the decoders of ClipCap, CapDec and DeCap with Python: what is
// read from a file, whether features are normalised, prefixes bit for bit, and captions.
func TestDecoders(t *testing.T) {
	facts, tensors, sameCPU := reference(t)
	for _, want := range facts.Decoders {
		t.Run(want.File, func(t *testing.T) {
			gpt := want.GPT2
			if gpt != "" {
				gpt = filepath.Join(*decoders, gpt)
			}
			d, err := pipeline.LoadDecoder(filepath.Join(*decoders, want.File), gpt, pipeline.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			decap := strings.HasPrefix(want.File, "decap")
			if d.Normalize != want.Normalize || (d.NormalizeNote == "") != decap || d.OwnGPT2 != (gpt == "") {
				t.Errorf("normalize %v (%q), own GPT-2 %v", d.Normalize, d.NormalizeNote, d.OwnGPT2)
			}
			stop, most := int64(13), 67
			if decap {
				stop, most = 49407, 30
			}
			if d.Stop != stop || d.MaxTokens != most {
				t.Errorf("stop token %d and at most %d tokens, want %d and %d", d.Stop, d.MaxTokens, stop, most)
			}
			name := strings.TrimSuffix(want.File, ".pt")
			features, _ := tensors.Get(name + "_features")
			prefix, _ := tensors.Get(name + "_prefix")
			err = torch.Scope(func() (err error) {
				torch.InferenceMode(func() {
					x := features
					if d.Normalize {
						x = clip.Normalize(x)
					}
					got, exact := d.Model.Mapper.Forward(x), torch.ToSlice[float32](prefix)
					differ := 0
					for i, v := range torch.ToSlice[float32](got) {
						if math.Float32bits(v) != math.Float32bits(exact[i]) {
							differ++
							if sameCPU || math.Abs(float64(v-exact[i])) > 1e-5*(1+math.Abs(float64(exact[i]))) {
								t.Errorf("the prefix is %g at %d, want %g", v, i, exact[i])
								break
							}
						}
					}
					t.Logf("%d of %d elements of the prefix differ", differ, len(exact))
					var captions [][]pipeline.Caption
					longest := 0
					for _, ids := range want.IDs {
						longest = max(longest, len(ids))
					}
					o := clipcap.Options{Method: clipcap.Greedy, MaxTokens: longest, Stop: d.Stop}
					if captions, err = d.Generate(t.Context(), x, o); err != nil {
						return
					}
					for i, c := range captions {
						if !slices.Equal(c[0].Tokens, want.IDs[i]) {
							t.Errorf("caption %d: tokens %v, want %v", i, c[0].Tokens, want.IDs[i])
						}
						if decap && c[0].Text != strings.TrimSpace(facts.Texts[2+i].Text) {
							t.Errorf("caption %d: text %q, want %q", i, c[0].Text, facts.Texts[2+i].Text)
						}
					}
				})
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestDeCapText compares the text of captions with that of CLIP's tokenizer in Python.
func TestDeCapText(t *testing.T) {
	facts, _, _ := reference(t)
	for _, want := range facts.Texts {
		// An id that CLIP does not have is left out.
		got, err := pipeline.DeCapText(append(slices.Clone(want.IDs), 50000))
		if err != nil || got != want.Text {
			t.Errorf("%v: %q, want %q (%v)", want.IDs, got, want.Text, err)
		}
	}
}

// TestDeCapConfig: the number of heads is read from decoder_config.pkl beside the
// weights. Without that file it is that of the published weights, and a note says so.
func TestDeCapConfig(t *testing.T) {
	model, err := os.ReadFile("testdata/decoders/decap.pt")
	if err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile("testdata/decoders/decoder_config.pkl")
	if err != nil {
		t.Fatal(err)
	}
	change := func(from, to string) []byte {
		out := strings.Replace(string(config), from, to, 1)
		if out == string(config) {
			t.Fatalf("the configuration does not contain %q", from)
		}
		return []byte(out)
	}
	for name, test := range map[string]struct {
		config []byte
		heads  int64
		note   string // in one of the notes
		err    string
	}{
		"as written": {config, 4, "", ""},
		"8 heads":    {change("n_head\x94K\x04", "n_head\x94K\x08"), 8, "", ""},
		"no file":    {nil, 4, "no decoder_config.pkl", ""},
		"heads":      {change("n_head\x94K\x04", "n_head\x94K\x07"), 0, "", "decoder_config.pkl: n_embd = 64 is not a multiple of n_head = 7"},
		"activation": {change("gelu_new", "gelu_old"), 0, "", "gelu_old"},
		"cross":      {change("add_cross_attention\x94\x89", "add_cross_attention\x94\x88"), 0, "", "add_cross_attention"},
		"other code": {change("GPT2Config", "GPT2Malice"), 0, "", "decoder_config.pkl"},
		"no pickle":  {[]byte("{}"), 0, "", "decoder_config.pkl"},
		"cut off":    {config[:200], 0, "", "decoder_config.pkl"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "coco_prefix-009.pt")
			if err := os.WriteFile(path, model, 0o666); err != nil {
				t.Fatal(err)
			}
			if test.config != nil {
				if err := os.WriteFile(filepath.Join(dir, "decoder_config.pkl"), test.config, 0o666); err != nil {
					t.Fatal(err)
				}
			}
			d, err := pipeline.LoadDecoder(path, "", pipeline.Options{})
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("error %v, want %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if got := d.Model.GPT2.Config.NHead; got != test.heads {
				t.Errorf("%d heads, want %d", got, test.heads)
			}
			if notes := strings.Join(d.Notes, "\n"); strings.Contains(notes, "no decoder_config.pkl") != (test.note != "") {
				t.Errorf("notes: %s", notes)
			}
		})
	}
}
