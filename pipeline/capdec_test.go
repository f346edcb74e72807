package pipeline_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cyclecap/pipeline"
	"cyclecap/weights"
)

// TestCapDec: what CapDec's scripts write beside the weights decides whether features have
// length 1, and must agree with the mapper.
func TestCapDec(t *testing.T) {
	const train, predict = `"dont_norm": false, "noise_variance": 0.016`, `"is_rn": true, "dataset_mode": 0`
	for name, test := range map[string]struct {
		file, args string
		normalize  bool
		assumed    bool   // whether the scaling is an assumption
		note       string // in one of the notes
		err        string
	}{
		"noise":                     {"mlp_whole.pt", `{"prefix_length": 3, "prefix_length_clip": 40, "num_layers": 8, ` + train + `}`, true, false, "", ""},
		"no noise":                  {"mlp_whole.pt", `{"prefix_length": 3, "dont_norm": false, "noise_variance": 0.0}`, true, false, "", ""},
		"dont_norm":                 {"mlp_whole.pt", `{"prefix_length": 3, "dont_norm": true, "noise_variance": 0.0}`, false, false, "says dont_norm, without noise", ""},
		"dont_norm with noise":      {"mlp_whole.pt", `{"prefix_length": 3, "dont_norm": true, "noise_variance": 0.016}`, true, false, "", ""},
		"transformer, dont_norm":    {"transformer_wide.pt", `{"prefix_length": 2, "prefix_length_clip": 2, "num_layers": 1, "dont_norm": true}`, false, false, "says dont_norm", ""},
		"by predictions_runner.py":  {"mlp_whole.pt", `{"prefix_length": 3, ` + predict + `}`, true, false, "", ""},
		"offset":                    {"mlp_whole.pt", `{"prefix_length": 3, "add_modality_offset": true, ` + train + `}`, true, false, "add_modality_offset", ""},
		"prefix_length":             {"mlp_whole.pt", `{"prefix_length": 40, ` + train + `}`, false, false, "", "prefix_length is 40, but"},
		"prefix_length_clip":        {"transformer_wide.pt", `{"prefix_length": 2, "prefix_length_clip": 40, ` + train + `}`, false, false, "", "prefix_length_clip is 40, but"},
		"num_layers":                {"transformer_wide.pt", `{"prefix_length": 2, "num_layers": 8, ` + train + `}`, false, false, "", "num_layers is 8, but"},
		"type":                      {"mlp_whole.pt", `{"prefix_length": 3, "dont_norm": "no"}`, false, false, "", "commandline_args.txt: not the arguments of CapDec's train.py"},
		"of another program":        {"mlp_whole.pt", `{"dont_norm": true}`, false, true, "", ""},
		"a line of another program": {"mlp_whole.pt", "main.py --thread 4\n", false, true, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, file := range []string{test.file, "gpt2.safetensors"} {
				data, err := os.ReadFile(filepath.Join("testdata/decoders", file))
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, file), data, 0o666); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(dir, "commandline_args.txt"), []byte(test.args), 0o666); err != nil {
				t.Fatal(err)
			}
			path, gpt := filepath.Join(dir, test.file), ""
			if strings.HasPrefix(test.file, "transformer") {
				gpt = filepath.Join(dir, "gpt2.safetensors")
			}
			d, err := pipeline.LoadDecoder(path, gpt, pipeline.Options{})
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
			if d.Normalize != test.normalize || (d.NormalizeNote != "") != test.assumed {
				t.Errorf("normalize %v (%q)", d.Normalize, d.NormalizeNote)
			}
			if notes := strings.Join(d.Notes, "\n"); !strings.Contains(notes, test.note) || test.note == "" && strings.Contains(notes, "commandline_args.txt") {
				t.Errorf("notes: %s", notes)
			}
			f, err := weights.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			list, _, err := pipeline.Settings(f)
			if err != nil {
				t.Fatal(err)
			}
			if i := slices.IndexFunc(list, func(s pipeline.Setting) bool { return s.Name == weights.NormalizePrefix }); (i < 0) != test.assumed {
				t.Errorf("settings: %+v", list)
			} else if i >= 0 && (list[i].From != "commandline_args.txt" || (list[i].Value == "true") != test.normalize) {
				t.Errorf("%+v", list[i])
			}
		})
	}
}
