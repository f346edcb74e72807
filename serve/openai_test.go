package serve

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// uri returns a picture as a data URI.
func uri(photo []byte) string {
	return "data:image/jpeg;base64," + base64.StdEncoding.EncodeToString(photo)
}

// object is JSON.
type object map[string]any

// ask sends JSON, and decodes the answer, which must have the status 200.
func ask[T any](t testing.TB, url string, body any) T {
	t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	answer, text := post(t, url, "application/json", bytes.NewReader(b))
	if answer.StatusCode != http.StatusOK {
		t.Fatal(answer.Status, text)
	}
	return decode[T](t, text)
}

type featured struct {
	Images, Texts, Textualised [][]float32
}

type embedded struct {
	Object, Model string
	Data          []struct {
		Object    string
		Index     int
		Embedding json.RawMessage
	}
	Usage chatUsage
}

// rows returns the embeddings, whatever their form.
func (e embedded) rows(t testing.TB) (rows [][]float32) {
	t.Helper()
	for i, d := range e.Data {
		var row []float32
		if d.Embedding[0] == '"' {
			b, err := base64.StdEncoding.DecodeString(decode[string](t, string(d.Embedding)))
			if err != nil || len(b)%4 != 0 {
				t.Fatal(len(b), err)
			}
			for ; len(b) > 0; b = b[4:] {
				row = append(row, math.Float32frombits(binary.LittleEndian.Uint32(b)))
			}
		} else {
			row = decode[[]float32](t, string(d.Embedding))
		}
		if d.Index != i || d.Object != "embedding" {
			t.Errorf("%d: %d %s", i, d.Index, d.Object)
		}
		rows = append(rows, row)
	}
	return rows
}

func equalRows(a, b [][]float32) bool { return len(a) > 0 && slices.EqualFunc(a, b, slices.Equal) }

// TestOpenAIEmbeddings compares the embeddings of every form with /features, bit for bit.
func TestOpenAIEmbeddings(t *testing.T) {
	url, _, _ := start(t, nil)
	list, texts := photos(t)[:3], []string{"a red cup", "a blue bird on a table"}
	uris := []string{uri(list[0]), uri(list[1]), uri(list[2])}
	features := func(q object) featured { return ask[featured](t, url+"/features", q) }
	message := func(part object) []object { return []object{{"role": "user", "content": []object{part}}} }
	for name, c := range map[string]struct {
		q      object
		want   [][]float32
		tokens int
	}{
		"texts":         {object{"input": texts, "user": "me", "unknown": 1}, features(object{"texts": texts, "normalize": true}).Texts, 5 + 10},
		"base64":        {object{"input": texts, "encoding_format": "base64", "dimensions": 512}, features(object{"texts": texts, "normalize": true}).Texts, 5 + 10},
		"float, raw":    {object{"input": texts, "encoding_format": "float", "normalize": false}, features(object{"texts": texts}).Texts, 5 + 10},
		"one text":      {object{"input": texts[0], "model": "world:latest"}, features(object{"texts": texts[:1], "normalize": true}).Texts, 5},
		"long, cut":     {object{"input": strings.Repeat("cat ", 100), "truncate": true}, features(object{"texts": []string{strings.Repeat("cat ", 100)}, "normalize": true}).Texts, 32},
		"images":        {object{"input": uris, "modality": "image", "model": "world"}, features(object{"images": uris, "normalize": true}).Images, 0},
		"image":         {object{"input": uris[1], "modality": "image", "encoding_format": "base64", "normalize": false}, features(object{"images": uris[1:2]}).Images, 0},
		"image message": {object{"messages": message(object{"type": "image_url", "image_url": object{"url": uris[0]}})}, features(object{"images": uris[:1], "normalize": true}).Images, 0},
		"text message":  {object{"messages": message(object{"type": "text", "text": texts[1]})}, features(object{"texts": texts[1:], "normalize": true}).Texts, 10},
		"plain message": {object{"messages": []object{{"role": "user", "content": texts[1]}}}, features(object{"texts": texts[1:], "normalize": true}).Texts, 10},
	} {
		t.Run(name, func(t *testing.T) {
			got := ask[embedded](t, url+"/v1/embeddings", c.q)
			if !equalRows(got.rows(t), c.want) {
				t.Error("other features than those of /features")
			}
			if got.Object != "list" || got.Usage.Prompt != c.tokens || got.Usage.Total != c.tokens || !strings.HasPrefix(got.Model, "world") {
				t.Errorf("%s %s %+v, want %d tokens", got.Object, got.Model, got.Usage, c.tokens)
			}
			if raw, ok := c.q["normalize"]; !ok || raw == true {
				for _, row := range got.rows(t) {
					var sum float64
					for _, v := range row {
						sum += float64(v) * float64(v)
					}
					if math.Abs(sum-1) > 1e-6 {
						t.Errorf("the square of the length is %v", sum)
					}
				}
			}
		})
	}
}

// chatting is the answer of /v1/chat/completions.
type chatting struct {
	ID, Object, Model string
	Choices           []struct {
		Index    int
		Message  chatMessage
		Delta    struct{ Role, Content string }
		LogProbs *chatLogProbs
		Finish   string `json:"finish_reason"`
	}
	Usage *chatUsage
}

// chat returns a request about photos, with further keys.
func chat(list [][]byte, more ...any) object {
	parts := []object{{"type": "text", "text": "What is in this picture?"}}
	for _, p := range list {
		parts = append(parts, object{"type": "image_url", "image_url": object{"url": uri(p), "detail": "low"}})
	}
	q := object{"model": "world", "messages": []object{
		{"role": "system", "content": "You describe pictures."},
		{"role": "user", "content": parts},
		{"role": "assistant", "content": nil},
	}}
	for i := 0; i < len(more); i += 2 {
		q[more[i].(string)] = more[i+1]
	}
	return q
}

// captionsOf returns what /caption says of photos by the second pipeline, the model's best.
func captionsOf(t testing.TB, url string, list [][]byte, fields ...string) (out []ownCaption) {
	t.Helper()
	body, kind := form(t, list, append(fields, "model", "world:textualised")...)
	answer, text := post(t, url+"/caption", kind, body)
	if answer.StatusCode != http.StatusOK {
		t.Fatal(answer.Status, text)
	}
	for _, p := range decode[captioned](t, text).Photos {
		out = append(out, p.Captions[0])
	}
	return out
}

// sameTokens compares tokens with those of /caption, bit for bit.
func sameTokens(t testing.TB, got []logProbJSON, want []ownToken) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d tokens, want %d", len(got), len(want))
	}
	for i, w := range want {
		var b []byte
		for _, v := range got[i].Bytes {
			b = append(b, byte(v))
		}
		if got[i].Token != w.Text || got[i].LogProb != w.LogProb || string(b) != w.Text || got[i].Top == nil {
			t.Errorf("token %d: %+v, want %+v", i, got[i], w)
		}
	}
}

// TestOpenAIChat compares captions with those of /caption, bit for bit.
func TestOpenAIChat(t *testing.T) {
	url, _, _ := start(t, nil)
	list := photos(t)
	one := list[:1]
	beams := func(n string) []ownCaption {
		best := captionsOf(t, url, one, "decode", "beam", "beam", n)[0]
		return append([]ownCaption{best}, best.Alternatives...)
	}
	greedy := captionsOf(t, url, one)
	body, kind := form(t, one, "model", "world:direct")
	_, text := post(t, url+"/caption", kind, body)
	for name, c := range map[string]struct {
		q    object
		want []ownCaption
	}{
		"greedy":               {chat(one), greedy},
		"direct":               {chat(one, "model", "world:direct"), decode[captioned](t, text).Photos[0].Captions},
		"temperature 0":        {chat(one, "temperature", 0, "top_p", 0.5, "seed", 3), greedy},
		"what changes nothing": {chat(one, "stop", nil, "n", 1, "tools", []object{}, "tool_choice", "auto", "presence_penalty", 0, "response_format", object{"type": "text"}, "max_tokens", 100000, "user", "me"), greedy},
		"3 of 5 beams":         {chat(one, "n", 3), beams("5")[:3]},
		"7 beams":              {chat(one, "n", 7, "temperature", 0), beams("7")},
		"sampled":              {chat(one, "temperature", 0.7, "top_p", 0.9, "seed", 5), captionsOf(t, url, one, "decode", "sample", "temperature", "0.7", "top_p", "0.9", "seed", "5")},
		"negative seed":        {chat(one, "temperature", 1.5, "seed", -1), captionsOf(t, url, one, "decode", "sample", "temperature", "1.5", "seed", "18446744073709551615")},
		"2 sampled":            {chat(one, "temperature", 0.7, "seed", 5, "n", 2), captionsOf(t, url, [][]byte{list[0], list[0]}, "decode", "sample", "temperature", "0.7", "seed", "5")},
		"cut":                  {chat(one, "max_tokens", 3), captionsOf(t, url, one, "max_tokens", "3")},
		"cut, the newer key":   {chat(one, "max_tokens", 30, "max_completion_tokens", 2), captionsOf(t, url, one, "max_tokens", "2")},
	} {
		t.Run(name, func(t *testing.T) {
			c.q["logprobs"] = true
			got := ask[chatting](t, url+"/v1/chat/completions", c.q)
			if len(got.Choices) != len(c.want) || got.Object != "chat.completion" || got.Model != c.q["model"] {
				t.Fatalf("%+v, want %d choices", got, len(c.want))
			}
			tokens := 0
			for k, w := range c.want {
				choice := got.Choices[k]
				finish := "stop"
				if w.Tokens[len(w.Tokens)-1].Text != "." {
					finish = "length"
				}
				if choice.Index != k || choice.Message.Content != w.Text || choice.Message.Role != "assistant" || choice.Finish != finish {
					t.Errorf("choice %d: %+v, want %q, %s", k, choice, w.Text, finish)
				}
				sameTokens(t, choice.LogProbs.Content, w.Tokens)
				tokens += len(w.Tokens)
			}
			if u := got.Usage; u.Prompt != 6 || u.Completion != tokens || u.Total != 6+tokens {
				t.Errorf("usage %+v, want %d tokens", u, tokens)
			}
		})
	}
	// Captions of several pictures are lines.
	got := ask[chatting](t, url+"/v1/chat/completions", chat(list[:3], "n", 2, "logprobs", true))
	for k := range 2 {
		var want []string
		var tokens []ownToken
		for i, c := range captionsOf(t, url, list[:3], "decode", "beam") {
			if k > 0 {
				c = c.Alternatives[k-1]
			}
			if want = append(want, c.Text); i > 0 {
				tokens = append(tokens, ownToken{Text: "\n"})
			}
			tokens = append(tokens, c.Tokens...)
		}
		if text := got.Choices[k].Message.Content; text != strings.Join(want, "\n") {
			t.Errorf("choice %d of three pictures: %q, want %q", k, text, want)
		}
		sameTokens(t, got.Choices[k].LogProbs.Content, tokens)
	}
	if without := ask[chatting](t, url+"/v1/chat/completions", chat(one)); without.Choices[0].LogProbs != nil {
		t.Error("logprobs without having been asked for")
	}
}

// events sends a request and returns the events of the answer, without the last, "[DONE]".
func events(t testing.TB, url string, q object) (list []chatting) {
	t.Helper()
	b, _ := json.Marshal(q)
	answer, text := post(t, url+"/v1/chat/completions", "application/json", bytes.NewReader(b))
	if answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Type") != "text/event-stream" || !strings.HasPrefix(answer.Header.Get(batchHeader), "exact; requests=1") {
		t.Fatal(answer.Status, answer.Header, text)
	}
	parts := strings.Split(strings.TrimSuffix(text, "\n\n"), "\n\n")
	if parts[len(parts)-1] != "data: [DONE]" {
		t.Fatal(text)
	}
	for _, p := range parts[:len(parts)-1] {
		data, ok := strings.CutPrefix(p, "data: ")
		if !ok {
			t.Fatal(p)
		}
		list = append(list, decode[chatting](t, data))
	}
	return list
}

// TestOpenAIStream puts streamed answers together and compares them with those in one piece.
func TestOpenAIStream(t *testing.T) {
	url, _, _ := start(t, nil)
	list := photos(t)
	for name, q := range map[string]object{
		"greedy":         chat(list[:1]),
		"sampled":        chat(list[:1], "temperature", 1, "seed", 2),
		"beams":          chat(list[:1], "n", 3),
		"several photos": chat(list[:4]),
		"sampled twice":  chat(list[:2], "temperature", 1, "seed", 2, "n", 2),
		"cut":            chat(list[:1], "max_tokens", 4),
	} {
		t.Run(name, func(t *testing.T) {
			q["logprobs"] = true
			want := ask[chatting](t, url+"/v1/chat/completions", q)
			q["stream"], q["stream_options"] = true, object{"include_usage": true}
			got := events(t, url, q)
			last := got[len(got)-1]
			if len(last.Choices) != 0 || last.Usage == nil || *last.Usage != *want.Usage {
				t.Errorf("the last event is %+v, want the usage %+v", last, want.Usage)
			}
			for k, w := range want.Choices {
				var text, finish string
				var tokens []logProbJSON
				chunks := 0
				for i, e := range got[:len(got)-1] {
					if e.Object != "chat.completion.chunk" || e.ID != got[0].ID || e.Usage != nil || len(e.Choices) != 1 {
						t.Fatalf("event %d: %+v", i, e)
					}
					c := e.Choices[0]
					if c.Index != k {
						continue
					}
					if chunks++; (c.Delta.Role == "assistant") != (chunks == 1) || finish != "" {
						t.Errorf("event %d: role %q after finish %q", i, c.Delta.Role, finish)
					}
					text, finish = text+c.Delta.Content, c.Finish
					if c.LogProbs != nil {
						tokens = append(tokens, c.LogProbs.Content...)
					}
				}
				if text != w.Message.Content || finish != w.Finish || chunks < 5 {
					t.Errorf("choice %d: %q, %s, %d chunks; want %q, %s", k, text, finish, chunks, w.Message.Content, w.Finish)
				}
				if !slices.EqualFunc(tokens, w.LogProbs.Content, func(a, b logProbJSON) bool { return a.Token == b.Token && a.LogProb == b.LogProb }) {
					t.Errorf("choice %d: other tokens in the stream", k)
				}
			}
		})
	}
	if got := events(t, url, chat(list[:1], "stream", true)); got[len(got)-1].Usage != nil {
		t.Error("usage without having been asked for")
	}
}

// TestOpenAIStreamShared streams to several clients from one batch: each has its own caption.
func TestOpenAIStreamShared(t *testing.T) {
	url, _, _ := start(t, func(o *Options) { o.BatchWindow, o.MaxBatch = 10*time.Second, 4 })
	list := photos(t)
	var wait sync.WaitGroup
	got := make([]string, 4)
	for i := range got {
		wait.Go(func() {
			b, _ := json.Marshal(chat(list[i:i+1], "stream", i != 2)) // one does not stream
			answer, text := post(t, url+"/v1/chat/completions", "application/json", bytes.NewReader(b))
			if how := answer.Header.Get(batchHeader); how != "continuous; items=1" {
				t.Errorf("request %d was computed as %q", i, how)
			}
			for part := range strings.SplitSeq(text, "\n") {
				if data := strings.TrimPrefix(part, "data: "); strings.HasPrefix(data, "{") {
					if c := decode[chatting](t, data).Choices; len(c) > 0 {
						got[i] += c[0].Delta.Content + c[0].Message.Content
					}
				}
			}
		})
	}
	wait.Wait()
	alone, _, _ := start(t, nil)
	for i, text := range got {
		if want := captionsOf(t, alone, list[i:i+1])[0].Text; text != want {
			t.Errorf("request %d: %q, want %q", i, text, want)
		}
	}
}

// TestStreamEnds reads the first token of a long caption and goes away: the decoding must end
// long before the caption does. (It also shows that tokens are sent as they are chosen.)
func TestStreamEnds(t *testing.T) {
	url, s, _ := start(t, nil)
	for path, q := range map[string]object{
		"/v1/chat/completions": chat(photos(t), "stream", true, "temperature", 50, "max_tokens", 120),
		"/api/generate": {"model": "world", "prompt": "?", "images": []string{uri(photos(t)[0])},
			"options": object{"temperature": 50, "num_predict": 120}},
	} {
		b, _ := json.Marshal(q)
		ctx, cancel := context.WithCancel(t.Context())
		r, _ := http.NewRequestWithContext(ctx, http.MethodPost, url+path, bytes.NewReader(b))
		r.Header.Set("Content-Type", "application/json")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(answer.Body).ReadString('\n'); err != nil || answer.StatusCode != http.StatusOK {
			t.Fatal(answer.Status, line, err)
		}
		cancel()
		io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
		// The worker is free when it has computed this.
		if err := s.worker.exec.Do(func() error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	answer, err := http.Get(url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	if !strings.Contains(string(text), "cyclecap_tokens_total 0\n") || !strings.Contains(string(text), `cyclecap_stage_seconds_count{stage="clip"} 2`) {
		t.Error("the captions were written to their ends")
	}
}

// TestOpenAIRefused sends what cannot be answered, or not as it was asked for.
func TestOpenAIRefused(t *testing.T) {
	url, _, _ := start(t, func(o *Options) { o.MaxItems = 4 })
	const embeddings, chats = "/v1/embeddings", "/v1/chat/completions"
	photo := photos(t)[:1]
	with := func(key string, value any) string {
		b, _ := json.Marshal(chat(photo, key, value))
		return string(b)
	}
	for name, c := range map[string]struct {
		path, body string
		status     int
		says, code string
	}{
		"tokens":            {embeddings, `{"input": [1, 2]}`, 400, "check_embedding_ctx_length=False", "token_array"},
		"lists of tokens":   {embeddings, `{"input": [[ 15339, 1917], [1]]}`, 400, "check_embedding_ctx_length=False", "token_array"},
		"a number":          {embeddings, `{"input": 5}`, 400, "list of strings", "invalid_value"},
		"mixed":             {embeddings, `{"input": ["a", null]}`, 400, "list of strings", "invalid_value"},
		"no input":          {embeddings, `{"model": "world"}`, 400, "input is missing", "no_input"},
		"null":              {embeddings, `{"input": null}`, 400, "input is missing", "no_input"},
		"empty list":        {embeddings, `{"input": []}`, 400, "empty list", "no_input"},
		"too many":          {embeddings, `{"input": ["a","a","a","a","a"]}`, 413, "--max-items", "too_many_items"},
		"too long":          {embeddings, `{"input": ["a", "` + strings.Repeat("cat ", 50) + `"]}`, 400, "input[1] has 102 tokens", "context_length_exceeded"},
		"dimensions":        {embeddings, `{"input": "a", "dimensions": 256}`, 400, "embeddings of 512 numbers", "invalid_value"},
		"encoding":          {embeddings, `{"input": "a", "encoding_format": "hex"}`, 400, "float or base64", "invalid_value"},
		"modality":          {embeddings, `{"input": "a", "modality": "audio"}`, 400, "text or image", "invalid_value"},
		"picture as text":   {embeddings, `{"input": "data:image/png;base64,aGVsbG8="}`, 400, `"modality": "image"`, "invalid_value"},
		"text as picture":   {embeddings, `{"input": "a cat", "modality": "image"}`, 400, "input[0]", "invalid_image"},
		"broken picture":    {embeddings, `{"input": ["data:image/png;base64,aGVsbG8="], "modality": "image"}`, 400, "not a JPEG", "invalid_image"},
		"URL":               {embeddings, `{"input": "https://example.org/a.jpg", "modality": "image"}`, 400, "does not fetch", "url_not_allowed"},
		"two forms":         {embeddings, `{"input": "a", "messages": [{"role": "user", "content": "b"}]}`, 400, "both input and messages", "invalid_value"},
		"two texts":         {embeddings, `{"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}`, 400, "one embedding", "invalid_value"},
		"empty message":     {embeddings, `{"messages": [{"role": "user", "content": null}]}`, 400, "no text and no picture", "no_input"},
		"no such model":     {embeddings, `{"model": "text-embedding-3-small", "input": "a"}`, 404, "world", "model_not_found"},
		"no message":        {chats, `{"messages": []}`, 400, "no image", "no_image"},
		"no picture":        {chats, `{"messages": [{"role": "user", "content": "Hello"}]}`, 400, "no image", "no_image"},
		"an earlier photo":  {chats, `{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "aGVsbG8="}]}, {"role": "user", "content": "and now?"}]}`, 400, "no image", "no_image"},
		"not a picture":     {chats, `{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "aGVsbG8="}]}]}`, 400, "messages[0].content[0]", "invalid_image"},
		"no URL":            {chats, `{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}`, 400, "messages[0].content[0]", "invalid_image"},
		"sound":             {chats, `{"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}`, 400, "input_audio", "unsupported_content"},
		"content":           {chats, `{"messages": [{"role": "user", "content": 5}]}`, 400, "list of parts", "invalid_value"},
		"n":                 {chats, with("n", 65), 400, "between 1 and 64", "invalid_value"},
		"n 0":               {chats, with("n", 0), 400, "between 1 and 64", "invalid_value"},
		"max_tokens":        {chats, with("max_tokens", 0), 400, "max_tokens", "invalid_value"},
		"temperature":       {chats, with("temperature", -1), 400, "temperature", "invalid_value"},
		"top_p":             {chats, with("top_p", 1.5), 400, "top_p", "invalid_value"},
		"type":              {chats, with("temperature", "hot"), 400, "temperature", "invalid_json"},
		"stop":              {chats, with("stop", []string{"a"}), 400, "stop is not supported", "unsupported_parameter"},
		"JSON":              {chats, with("response_format", object{"type": "json_object"}), 400, "captions, not JSON", "unsupported_parameter"},
		"tool":              {chats, with("tool_choice", object{"type": "function"}), 400, "tools", "unsupported_parameter"},
		"bias":              {chats, with("logit_bias", object{"5": 1}), 400, "logit_bias", "unsupported_parameter"},
		"presence penalty":  {chats, with("presence_penalty", 0.5), 400, "presence_penalty", "unsupported_parameter"},
		"frequency penalty": {chats, with("frequency_penalty", 0.5), 400, "frequency_penalty", "unsupported_parameter"},
		"audio":             {chats, with("modalities", []string{"text", "audio"}), 400, "text only", "unsupported_parameter"},
		"top_logprobs":      {chats, with("top_logprobs", 3), 400, "no others", "unsupported_parameter"},
		"stream":            {chats, `{"stream": true, "messages": [{"role": "user", "content": "Hello"}]}`, 400, "no image", "no_image"},
		"method":            {"/v1/models", `{}`, 405, "GET, HEAD", "method_not_allowed"},
		"another route":     {"/v1/completions", `{}`, 404, "/v1/chat/completions", "unknown_url"},
	} {
		t.Run(name, func(t *testing.T) {
			answer, text := post(t, url+c.path, "application/json", strings.NewReader(c.body))
			e := decode[struct{ Error errorJSON }](t, text).Error
			if answer.StatusCode != c.status || !strings.Contains(e.Message, c.says) || e.Code != c.code || e.Type != "invalid_request_error" {
				t.Errorf("got %d %s, want %d, %s with %q", answer.StatusCode, text, c.status, c.code, c.says)
			}
		})
	}
	// A stream that has not begun is refused as any other request.
	_, s, _ := start(t, func(o *Options) { o.Queue = 1 })
	s.worker.queue.close()
	b, _ := json.Marshal(chat(photo, "stream", true))
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "http://localhost"+chats, bytes.NewReader(b)))
	if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" || decode[struct{ Error errorJSON }](t, w.Body.String()).Error.Type != "rate_limit_error" {
		t.Error(w.Code, w.Header(), w.Body)
	}
}

// TestOpenAIModels reads the list of models, and each of it, whose names have slashes and colons.
func TestOpenAIModels(t *testing.T) {
	url, _, _ := start(t, func(o *Options) {
		second := worldModel()
		second.Name = "some/world"
		second.Files.Generator = ""
		o.Models = append(o.Models, second)
	})
	get := func(path string) (int, string) {
		answer, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		b, _ := io.ReadAll(answer.Body)
		return answer.StatusCode, string(b)
	}
	status, text := get("/v1/models")
	list := decode[struct{ Data []modelJSON }](t, text).Data
	var names []string
	for _, m := range list {
		names = append(names, m.ID)
		for _, id := range []string{m.ID, strings.ReplaceAll(m.ID, "/", "%2F")} {
			if status, text := get("/v1/models/" + id); status != http.StatusOK || decode[modelJSON](t, text) != m {
				t.Error(id, status, text)
			}
		}
	}
	if want := "world world:direct world:textualised some/world some/world:direct"; status != http.StatusOK || strings.Join(names, " ") != want {
		t.Error(status, names)
	}
	if status, text := get("/v1/models/other"); status != http.StatusNotFound || !strings.Contains(text, "model_not_found") {
		t.Error(status, text)
	}
}

// fuzzed sends bodies to routes: no answer may be a 5xx.
func fuzzed(f *testing.F, routes []string, seeds ...object) {
	_, s, _ := start(f, func(o *Options) { o.MaxItems, o.MaxPixels, o.MaxBody = 4, 1e6, 1<<20 })
	for i, q := range seeds {
		b, err := json.Marshal(q)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(i%len(routes), b)
	}
	f.Fuzz(func(t *testing.T, route int, body []byte) {
		path := routes[uint(route)%uint(len(routes))]
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "http://localhost"+path, bytes.NewReader(body)))
		if w.Code >= 500 || w.Code == http.StatusTooManyRequests {
			t.Errorf("%s: %d: %s", path, w.Code, w.Body)
		}
		if w.Code != http.StatusOK {
			if e := fmt.Sprint(decode[object](t, w.Body.String())["error"]); e == "" || e == "<nil>" {
				t.Errorf("%s: no error in %s", path, w.Body)
			}
		}
	})
}

// small is a picture of one pixel.
const small = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="

func FuzzOpenAI(f *testing.F) {
	picture := []object{{"role": "user", "content": []object{{"type": "image_url", "image_url": object{"url": small}}, {"type": "text", "text": "?"}}}}
	fuzzed(f, []string{"/v1/embeddings", "/v1/chat/completions"},
		object{"input": []string{"a", "b"}, "model": "world", "encoding_format": "base64"},
		object{"messages": picture, "stream": true, "stream_options": object{"include_usage": true}, "logprobs": true},
		object{"input": small, "modality": "image", "normalize": false, "dimensions": 512},
		object{"messages": picture, "n": 2, "temperature": 0.5, "top_p": 0.9, "seed": 1, "max_tokens": 3, "stop": nil},
		object{"messages": picture, "truncate": true},
		object{"messages": picture, "tool_choice": "auto", "response_format": object{"type": "text"}, "logit_bias": object{}, "modalities": []string{"text"}})
}
