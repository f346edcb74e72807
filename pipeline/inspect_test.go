package pipeline_test

import (
	"testing"

	"cyclecap/pipeline"
	"cyclecap/weights"
)

// The settings of a model are those that loading it would use, with their source.
func TestSettings(t *testing.T) {
	for _, test := range []struct {
		file string
		want []pipeline.Setting // among others
	}{
		{"testdata/siglip/model", []pipeline.Setting{{"image encoder activation", "gelu_pytorch_tanh", "config.json"}, {"text encoder layer norm epsilon", "1e-06", "config.json"}}},
		{"testdata/decoders/decap.pt", []pipeline.Setting{{"mapper", "linear", "weights"}, {"feature width", "64", "weights"}, {"GPT-2 in the file", "true", "weights"}}},
		{small + "gpt2", []pipeline.Setting{{"n_inner", "256", "weights"}, {"n_head", "1", "config.json"}, {"activation_function", "gelu_new", "config.json"}}},
		{small + "gpt2-old.bin", []pipeline.Setting{{"n_head", "1", "assumed"}, {"tie_word_embeddings", "true", "assumed"}}},
		// The weights contain a head of their own, whatever config.json says.
		{gpt2Folder(t, "untied.safetensors", map[string]string{"config.json": `{"n_head": 8}`}), []pipeline.Setting{{"n_head", "8", "config.json"}, {"tie_word_embeddings", "false", "weights"}}},
	} {
		f, err := weights.Open(test.file)
		if err != nil {
			t.Fatal(err)
		}
		list, _, err := pipeline.Settings(f)
		if err != nil {
			t.Fatal(err)
		}
		have := map[pipeline.Setting]bool{}
		for _, s := range list {
			have[s] = true
		}
		for _, s := range test.want {
			if !have[s] {
				t.Errorf("%s lacks %+v: %+v", test.file, s, list)
			}
		}
	}
}
