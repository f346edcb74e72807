package serve

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	worldmodels "cyclecap/models/world"
	"cyclecap/pipeline"
)

// lines sends a request and returns the lines of the answer.
func lines(t testing.TB, url string, q object) (list []ollamaAnswer) {
	t.Helper()
	b, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	answer, text := post(t, url, "application/json", bytes.NewReader(b))
	if answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Type") != "application/x-ndjson" {
		t.Fatal(answer.Status, answer.Header, text)
	}
	for line := range strings.Lines(text) {
		list = append(list, decode[ollamaAnswer](t, line))
	}
	return list
}

func (a ollamaAnswer) said(t testing.TB) string {
	switch {
	case a.Response != nil && a.Message == nil:
		return *a.Response
	case a.Message != nil && a.Response == nil && a.Message.Role == "assistant":
		return a.Message.Content
	}
	t.Fatalf("%+v", a)
	return ""
}

// TestOllamaCaption compares the captions of /api/generate and /api/chat with those of /caption,
// bit for bit, streamed and not.
func TestOllamaCaption(t *testing.T) {
	url, _, _ := start(t, nil)
	list := photos(t)
	plain := strings.TrimPrefix(uri(list[0]), "data:image/jpeg;base64,") // as Ollama's clients send it
	for name, c := range map[string]struct {
		images  []string
		options object
		want    []ownCaption
	}{
		"base64":    {[]string{plain}, nil, captionsOf(t, url, list[:1])},
		"data URI":  {[]string{uri(list[0])}, object{"num_ctx": 4096, "repeat_penalty": 1.1, "num_predict": -1, "stop": []string{}}, captionsOf(t, url, list[:1])},
		"two":       {[]string{plain, uri(list[1])}, nil, captionsOf(t, url, list[:2])},
		"sampled":   {[]string{plain}, object{"temperature": 0.8, "top_k": 20, "top_p": 0.9, "seed": 7}, captionsOf(t, url, list[:1], "decode", "sample", "temperature", "0.8", "top_k", "20", "top_p", "0.9", "seed", "7")},
		"too short": {[]string{plain}, object{"num_predict": 4, "temperature": 0}, captionsOf(t, url, list[:1], "max_tokens", "4")},
	} {
		var text []string
		var tokens []ownToken
		reason, count := "stop", 0
		for i, w := range c.want {
			if i > 0 {
				tokens = append(tokens, ownToken{Text: "\n"})
			}
			text, tokens, count = append(text, w.Text), append(tokens, w.Tokens...), count+len(w.Tokens)
			if w.Tokens[len(w.Tokens)-1].Text != "." {
				reason = "length"
			}
		}
		for path, q := range map[string]object{
			"/api/generate": {"prompt": "Describe it.", "images": c.images},
			"/api/chat":     {"messages": []object{{"role": "system", "content": "Be short."}, {"role": "user", "content": "?", "images": c.images}}},
		} {
			t.Run(name+path, func(t *testing.T) {
				q["model"], q["options"], q["logprobs"], q["keep_alive"], q["format"], q["think"] = "world:latest", c.options, true, "5m", "", false
				streamed := lines(t, url+path, q)
				q["stream"] = false
				whole := ask[ollamaAnswer](t, url+path, q)
				if whole.said(t) != strings.Join(text, "\n") {
					t.Errorf("got %q, want %q", whole.said(t), text)
				}
				sameTokens(t, whole.LogProbs, tokens)
				var said strings.Builder
				var probs []logProbJSON
				for _, a := range streamed[:len(streamed)-1] {
					if a.Done || a.Reason != "" || a.Total != 0 {
						t.Errorf("%+v", a)
					}
					said.WriteString(a.said(t))
					probs = append(probs, a.LogProbs...)
				}
				if said.String() != strings.Join(text, "\n") || len(streamed) < 4 {
					t.Errorf("%d lines say %q, want %q", len(streamed), said.String(), text)
				}
				sameTokens(t, probs, tokens)
				for _, a := range []ollamaAnswer{whole, streamed[len(streamed)-1]} {
					if !a.Done || a.Reason != reason || a.Model != "world:latest" || time.Since(a.CreatedAt) > time.Minute || a.Count != count || a.PromptCount != 6*len(c.images) ||
						a.Total <= 0 || a.Load <= 0 || a.PromptDuration <= 0 || a.Duration <= 0 || a.Total < a.Load+a.PromptDuration+a.Duration {
						t.Errorf("%+v, want %d tokens, %s", a, count, reason)
					}
				}
			})
		}
	}
	for path, q := range map[string]object{"/api/generate": {"model": "world"}, "/api/chat": {"model": "world", "messages": []object{}}} {
		if a := ask[ollamaAnswer](t, url+path, q); !a.Done || a.Reason != "load" || a.said(t) != "" {
			t.Errorf("%s loads: %+v", path, a)
		}
	}
}

// TestOllamaEmbed compares embeddings with /features, bit for bit.
func TestOllamaEmbed(t *testing.T) {
	url, _, _ := start(t, nil)
	texts := []string{"a red cup", strings.Repeat("a blue bird ", 20)}
	type embed struct {
		Model      string
		Embeddings [][]float32
		Total      int64 `json:"total_duration"`
		Count      int   `json:"prompt_eval_count"`
	}
	want := ask[featured](t, url+"/features", object{"texts": texts, "normalize": true}).Texts
	got := ask[embed](t, url+"/api/embed", object{"model": "world", "input": texts, "dimensions": 0, "options": object{"num_ctx": 10}})
	if !equalRows(got.Embeddings, want) || got.Total <= 0 || got.Count != 5+32 || got.Model != "world" {
		t.Errorf("%d embeddings, %d tokens, %d ns", len(got.Embeddings), got.Count, got.Total)
	}
	var sum float64
	for _, v := range got.Embeddings[0] {
		sum += float64(v) * float64(v)
	}
	if math.Abs(sum-1) > 1e-6 {
		t.Errorf("the square of the length is %v", sum)
	}
	one := ask[featured](t, url+"/features", object{"texts": texts[:1], "normalize": true}).Texts
	if got := ask[embed](t, url+"/api/embed", object{"input": texts[0]}); !equalRows(got.Embeddings, one) {
		t.Error("one text has another embedding")
	}
	raw := ask[featured](t, url+"/features", object{"texts": texts[:1]}).Texts
	if got := ask[struct{ Embedding []float32 }](t, url+"/api/embeddings", object{"model": "world", "prompt": texts[0]}); !slices.Equal(got.Embedding, raw[0]) {
		t.Error("/api/embeddings has another embedding")
	}
	// Nothing loads the model.
	for _, q := range []object{{"input": ""}, {"input": []string{}}, {}} {
		if got := ask[embed](t, url+"/api/embed", q); got.Embeddings == nil || len(got.Embeddings) != 0 {
			t.Errorf("%v: %+v", q, got)
		}
	}
	if got := ask[struct{ Embedding []float32 }](t, url+"/api/embeddings", object{}); got.Embedding == nil || len(got.Embedding) != 0 {
		t.Errorf("%+v", got)
	}
}

// TestOllamaModels reads what clients ask about a server and its models.
func TestOllamaModels(t *testing.T) {
	clip := filepath.Join(t.TempDir(), "clip.safetensors")
	if b, err := worldmodels.FS.ReadFile("clip.safetensors"); err != nil || os.WriteFile(clip, b, 0o666) != nil {
		t.Fatal(err)
	}
	url, _, _ := start(t, func(o *Options) {
		o.Models = append(o.Models, ModelConfig{Name: "features", Batch: 16, Files: pipeline.Files{CLIP: clip}, Options: worldModel().Options})
	})
	get := func(method, path string) (int, string) {
		r, _ := http.NewRequest(method, url+path, nil)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		b, _ := io.ReadAll(answer.Body)
		return answer.StatusCode, string(b)
	}
	for _, path := range []string{"/api/tags", "/api/ps"} {
		_, text := get("GET", path)
		var names []string
		for _, m := range decode[struct{ Models []ollamaModel }](t, text).Models {
			names = append(names, m.Name)
			if m.Model != m.Name || m.Size < 1e6 || len(m.Digest) != 64 || m.Details.ParameterSize == "" || time.Since(m.Modified) > time.Minute {
				t.Errorf("%+v", m)
			}
			if ps := path == "/api/ps"; ps != (m.Expires != nil && m.VRAM != nil) {
				t.Errorf("%s: %+v", path, m)
			}
			ask[object](t, url+"/api/show", object{"model": m.Name})
		}
		if got := strings.Join(names, " "); got != "world:latest world:direct world:textualised features:latest" {
			t.Errorf("%s: %s", path, got)
		}
	}
	type show struct {
		Capabilities []string
		Info         object `json:"model_info"`
		Details      ollamaDetails
	}
	world, features := ask[show](t, url+"/api/show", object{"model": "world"}), ask[show](t, url+"/api/show", object{"name": "features:latest"})
	if strings.Join(world.Capabilities, " ") != "completion vision embedding" || world.Info["clipcap.prefix_length"] != 6.0 || world.Info["clip.embedding_length"] != 512.0 || world.Details.Family != "clipcap" {
		t.Errorf("%+v", world)
	}
	if strings.Join(features.Capabilities, " ") != "embedding" || features.Details.Family != "clip" || features.Info["general.parameter_count"].(float64) >= world.Info["general.parameter_count"].(float64) {
		t.Errorf("%+v", features)
	}
	if _, text := get("GET", "/api/version"); decode[map[string]string](t, text)["version"] != ollamaVersion {
		t.Error(text)
	}
	if status, _ := get("HEAD", "/"); status != http.StatusOK {
		t.Errorf("HEAD / is %d", status)
	}
}

// TestOllamaRefused sends what cannot be answered, or not as it was asked for.
func TestOllamaRefused(t *testing.T) {
	url, _, _ := start(t, func(o *Options) { o.MaxItems = 4 })
	photo := uri(photos(t)[0])
	with := func(key string, value any) object {
		return object{"model": "world", "prompt": "?", "images": []string{photo}, key: value}
	}
	for name, c := range map[string]struct {
		method, path string
		q            object
		status       int
		says         string
	}{
		"no picture":        {"POST", "/api/generate", object{"prompt": "Hello"}, 400, "no image"},
		"no picture, chat":  {"POST", "/api/chat", object{"messages": []object{{"role": "user", "content": "Hello"}}}, 400, "no image"},
		"no user":           {"POST", "/api/chat", object{"messages": []object{{"role": "system", "images": []string{photo}}}}, 400, "no image"},
		"not a picture":     {"POST", "/api/generate", with("images", []string{photo, "aGVsbG8="}), 400, "images[1]"},
		"a file":            {"POST", "/api/generate", with("images", []string{"./photo.jpg"}), 400, "base64"},
		"a URL":             {"POST", "/api/generate", with("images", []string{"http://localhost/a.jpg"}), 400, "does not fetch"},
		"too many":          {"POST", "/api/generate", with("images", []string{photo, photo, photo, photo, photo}), 413, "--max-items"},
		"no such model":     {"POST", "/api/generate", with("model", "llava"), 404, "llava"},
		"JSON":              {"POST", "/api/generate", with("format", "json"), 400, "captions, not JSON"},
		"a schema":          {"POST", "/api/generate", with("format", object{"type": "object"}), 400, "captions, not JSON"},
		"tools":             {"POST", "/api/chat", object{"model": "world", "tools": []object{{}}, "messages": []object{{"role": "user"}}}, 400, "world does not support tools"},
		"thinking":          {"POST", "/api/generate", with("think", true), 400, "does not support thinking"},
		"suffix":            {"POST", "/api/generate", with("suffix", "a"), 400, "does not support insert"},
		"top_logprobs":      {"POST", "/api/generate", with("top_logprobs", 2), 400, "top_logprobs"},
		"stop":              {"POST", "/api/generate", with("options", object{"stop": []string{"a"}}), 400, "stop is not supported"},
		"temperature":       {"POST", "/api/generate", with("options", object{"temperature": -1}), 400, "temperature"},
		"top_k":             {"POST", "/api/generate", with("options", object{"top_k": -1}), 400, "top_k"},
		"type":              {"POST", "/api/generate", with("options", object{"seed": "x"}), 400, "seed"},
		"embed, no cutting": {"POST", "/api/embed", object{"input": strings.Repeat("a ", 40), "truncate": false}, 400, "42 tokens"},
		"embed, dimensions": {"POST", "/api/embed", object{"input": "a", "dimensions": 8}, 400, "512"},
		"embed, numbers":    {"POST", "/api/embed", object{"input": []int{1}}, 400, "list of strings"},
		"embed, model":      {"POST", "/api/embed", object{"input": "a", "model": "x"}, 404, "world"},
		"show":              {"POST", "/api/show", object{"model": "x"}, 404, "world"},
		"show nothing":      {"POST", "/api/show", object{}, 400, "model is required"},
		"pull":              {"POST", "/api/pull", object{"model": "llava"}, 400, "cannot add, change or remove"},
		"push":              {"POST", "/api/push", object{"model": "llava"}, 400, "cannot add, change or remove"},
		"create":            {"POST", "/api/create", object{"model": "a", "from": "world"}, 400, "cannot add, change or remove"},
		"copy":              {"POST", "/api/copy", object{"source": "world", "destination": "a"}, 400, "cannot add, change or remove"},
		"delete":            {"DELETE", "/api/delete", object{"model": "world"}, 400, "cannot add, change or remove"},
		"blobs":             {"POST", "/api/blobs/sha256:00", object{}, 400, "cannot add, change or remove"},
		"load, thinking":    {"POST", "/api/generate", object{"think": true}, 400, "does not support thinking"},
		"embed, an object":  {"POST", "/api/embed", object{"input": object{}}, 400, "list of strings"},
		"method":            {"DELETE", "/api/tags", object{}, 405, "GET, HEAD"},
		"another route":     {"POST", "/api/web_search", object{}, 404, "Ollama's API"},
	} {
		t.Run(name, func(t *testing.T) {
			b, _ := json.Marshal(c.q)
			r, _ := http.NewRequest(c.method, url+c.path, bytes.NewReader(b))
			answer, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			text, _ := io.ReadAll(answer.Body)
			if e := decode[struct{ Error string }](t, string(text)).Error; answer.StatusCode != c.status || !strings.Contains(e, c.says) {
				t.Errorf("got %d %s, want %d with %q", answer.StatusCode, text, c.status, c.says)
			}
		})
	}
}

func FuzzOllama(f *testing.F) {
	image := []string{small}
	fuzzed(f, []string{"/api/generate", "/api/chat", "/api/embed", "/api/embeddings", "/api/show"},
		object{"model": "world", "prompt": "?", "images": image, "options": object{"temperature": 0.5, "top_k": 2, "top_p": 0.5, "seed": 1, "num_predict": 3, "stop": []string{}}, "logprobs": true},
		object{"model": "world", "messages": []object{{"role": "user", "content": "?", "images": image}}, "stream": false, "format": "", "think": false, "tools": nil},
		object{"model": "world", "input": []string{"a", "b"}, "truncate": true, "dimensions": 512},
		object{"model": "world", "prompt": "a"},
		object{"model": "world:latest"})
}
