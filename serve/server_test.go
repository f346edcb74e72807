package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cyclecap/data/world"
	worldmodels "cyclecap/models/world"
	"cyclecap/nets/clipcap"
	"cyclecap/pipeline"
	"cyclecap/torch"
	"cyclecap/torch/nn"
)

// worldModel is the model in the program.
func worldModel() ModelConfig {
	return ModelConfig{Name: "world", Normalize: "auto", Batch: 16, Gap: "gap.json",
		Files:   pipeline.Files{CLIP: "clip.safetensors", Decoder: "decoder.safetensors", GPT2: "gpt2.safetensors", Generator: "generator.safetensors", FS: worldmodels.FS},
		Options: clipcap.Options{Method: clipcap.Greedy, Beam: 5, LengthPenalty: 1}}
}

// logged collects the log of a server.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// start starts a server with the world's models, and returns its address and log.
func start(t testing.TB, change func(*Options)) (url string, s *Server, log *logged) {
	t.Helper()
	log = &logged{}
	o := DefaultOptions()
	o.Models = []ModelConfig{worldModel()}
	o.Log = slog.New(slog.NewJSONHandler(log, nil))
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	s.worker.start()
	if err := s.Load(); err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(s)
	t.Cleanup(func() {
		h.Close()
		s.worker.stop()
		s.models.replace(nil)
	})
	return h.URL, s, log
}

// drawn are the contents of some photos of the world.
var drawn = sync.OnceValues(func() ([][]byte, error) {
	dir, err := os.MkdirTemp("", "cyclecap-serve")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := world.WriteSample(context.Background(), dir, 5, 224, 8); err != nil {
		return nil, err
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*.jpg"))
	var list [][]byte
	for _, p := range paths {
		b, e := os.ReadFile(p)
		if e != nil {
			return nil, e
		}
		list = append(list, b)
	}
	return list, err
})

func photos(t testing.TB) [][]byte {
	t.Helper()
	list, err := drawn()
	if err != nil || len(list) == 0 {
		t.Fatal(len(list), err)
	}
	return list
}

// form returns the body of a form with photos and fields, and its Content-Type.
func form(t testing.TB, list [][]byte, fields ...string) (io.Reader, string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for i, p := range list {
		part, err := w.CreateFormFile("image", fmt.Sprintf("%d.jpg", i))
		if err != nil {
			t.Fatal(err)
		}
		part.Write(p)
	}
	for i := 0; i < len(fields); i += 2 {
		w.WriteField(fields[i], fields[i+1])
	}
	w.Close()
	return &b, w.FormDataContentType()
}

// post sends a body and returns the answer.
func post(t testing.TB, url, kind string, body io.Reader, headers ...string) (*http.Response, string) {
	t.Helper()
	return exchange(t, http.MethodPost, url, body, append([]string{"Content-Type", kind}, headers...)...)
}

// exchange sends a request with headers, names and values in turn, and returns the answer.
func exchange(t testing.TB, method, url string, body io.Reader, headers ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(b)
}

// captioned is the answer of /caption.
type captioned struct {
	Model  string
	Photos []struct {
		Name     string
		Captions []ownCaption
	}
}

func decode[T any](t testing.TB, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

// TestCaption compares answers with what the pipeline computes for the same photos, bit for
// bit: alone, together, and while others ask.
func TestCaption(t *testing.T) {
	url, _, _ := start(t, nil)
	list := photos(t)
	var paths []string
	dir := t.TempDir()
	for i, p := range list {
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(path, p, 0o666); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	for _, method := range []clipcap.Method{clipcap.Greedy, clipcap.Beam, clipcap.Sample} {
		t.Run(string(method), func(t *testing.T) {
			p, err := pipeline.Load(worldModel().Files, pipeline.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			o := clipcap.Options{Method: method, Beam: 5, MaxTokens: p.Decoder.MaxTokens, Stop: p.Decoder.Stop, Seed: 3}
			var want []pipeline.Captioned
			for b, err := range p.Photos(t.Context(), paths, 16, o) {
				if err != nil {
					t.Fatal(err)
				}
				want = append(want, b.Captions...)
			}
			var others sync.WaitGroup
			for i := range 3 {
				others.Go(func() {
					body, kind := form(t, list[i:i+2])
					post(t, url+"/caption", kind, body)
				})
			}
			body, kind := form(t, list, "decode", string(method), "seed", "3")
			answer, text := post(t, url+"/caption", kind, body)
			others.Wait()
			if answer.StatusCode != http.StatusOK || answer.Header.Get(batchHeader) != fmt.Sprintf("exact; requests=1; items=%d", len(list)) {
				t.Fatal(answer.Status, answer.Header, text)
			}
			got := decode[captioned](t, text)
			for i, w := range want {
				for k, list := range [][]pipeline.Caption{w.Direct, w.Textualised} {
					c := got.Photos[i].Captions[k]
					if c.Text != list[0].Text || c.LogProb != list[0].LogProb || len(c.Alternatives) != len(list)-1 {
						t.Errorf("photo %d, %s: got %q (%v, %d alternatives), want %q (%v, %d)", i, c.Pipeline, c.Text, c.LogProb, len(c.Alternatives), list[0].Text, list[0].LogProb, len(list)-1)
					}
					var b strings.Builder
					for j, tok := range c.Tokens {
						b.WriteString(tok.Text)
						if tok.LogProb != list[0].TokenLogProbs[j] || tok.ID != list[0].Tokens[j] {
							t.Errorf("photo %d, token %d: got %v", i, j, tok)
						}
					}
					if strings.TrimSpace(b.String()) != c.Text {
						t.Errorf("the tokens say %q, the caption %q", b.String(), c.Text)
					}
				}
			}
		})
	}
}

// TestFeatures compares features and similarities with what the pipeline computes.
func TestFeatures(t *testing.T) {
	url, _, _ := start(t, nil)
	list, texts := photos(t), []string{"a red cup", "a blue bird on a table"}
	m, err := load(worldModel())
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	var pixels [][]float32
	for _, p := range list {
		one, err := m.clip.Pixels(p, 1e7)
		if err != nil {
			t.Fatal(err)
		}
		pixels = append(pixels, one)
	}
	images, err := m.clip.EncodePixels(pixels)
	if err != nil {
		t.Fatal(err)
	}
	body, kind := form(t, list, "text", texts[0], "text", texts[1], "textualise", "true")
	answer, text := post(t, url+"/features", kind, body)
	if answer.StatusCode != http.StatusOK {
		t.Fatal(answer.Status, text)
	}
	got := decode[struct {
		Width                      int
		Images, Texts, Textualised [][]float32
	}](t, text)
	if len(got.Images) != len(list) || len(got.Texts) != 2 || len(got.Textualised) != len(list) || got.Width != m.clip.Width() {
		t.Fatal(len(got.Images), len(got.Texts), len(got.Textualised), got.Width)
	}
	for i, row := range got.Images {
		for k, v := range row {
			if v != images[i*got.Width+k] {
				t.Fatalf("feature %d of photo %d: got %v, want %v", k, i, v, images[i*got.Width+k])
			}
		}
	}
	body, kind = form(t, list[:1], "text", texts[0], "text", texts[1])
	_, text = post(t, url+"/similarity", kind, body)
	sim := decode[struct{ Cosines, Probabilities [][]float64 }](t, text)
	var cos, a, b float64
	for k, v := range got.Images[0] {
		w := float64(got.Texts[1][k])
		cos, a, b = cos+float64(v)*w, a+float64(v)*float64(v), b+w*w
	}
	if want := cos * cos / (a * b); len(sim.Cosines) != 1 || len(sim.Cosines[0]) != 2 || sim.Cosines[0][1]*sim.Cosines[0][1]-want > 1e-5 || want-sim.Cosines[0][1]*sim.Cosines[0][1] > 1e-5 {
		t.Errorf("cosines %v, want %v", sim.Cosines, want)
	}
	if p := sim.Probabilities[0]; p[0]+p[1] < 1-1e-9 || p[0]+p[1] > 1+1e-9 || (p[0] > p[1]) != (sim.Cosines[0][0] > sim.Cosines[0][1]) {
		t.Errorf("probabilities %v of cosines %v", p, sim.Cosines)
	}
}

// TestBadRequests sends what is wrong in one way each. None may be a 5xx, and each answer must
// say what is wrong.
func TestBadRequests(t *testing.T) {
	url, _, log := start(t, func(o *Options) { o.MaxBody, o.MaxItems, o.MaxPixels = 1<<20, 4, 1e6 })
	photo := photos(t)[0]
	const asJSON = "application/json"
	for name, c := range map[string]struct {
		path, kind, body string
		status           int
		says             string
	}{
		"no body":         {"/caption", asJSON, "", 400, "empty"},
		"not JSON":        {"/caption", asJSON, "{", 400, "JSON"},
		"two values":      {"/caption", asJSON, "{} {}", 400, "something after"},
		"unknown key":     {"/caption", asJSON, `{"image": []}`, 400, "image"},
		"null":            {"/caption", asJSON, " null ", 400, "null"},
		"null in a list":  {"/features", asJSON, `{"texts": ["a", null]}`, 400, "null"},
		"unused options":  {"/features", asJSON, `{"texts": ["a"], "beam": 3}`, 400, "beam"},
		"unused flag":     {"/caption", "multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"normalize\"\r\n\r\ntrue\r\n--x\r\nContent-Disposition: form-data; name=\"image\"\r\n\r\n" + string(photo) + "\r\n--x--", 400, "normalize"},
		"wrong type":      {"/caption", asJSON, `{"images": 5}`, 400, "images"},
		"no image":        {"/caption", asJSON, `{"images": []}`, 400, "no image"},
		"not base64":      {"/caption", asJSON, `{"images": ["!!"]}`, 400, "images[0]"},
		"not an image":    {"/caption", asJSON, `{"images": ["aGVsbG8="]}`, 400, "not a JPEG"},
		"no base64 URI":   {"/caption", asJSON, `{"images": ["data:image/png,abc"]}`, 400, "base64"},
		"a URL":           {"/caption", asJSON, `{"images": ["https://example.org/a.jpg"]}`, 400, "does not fetch"},
		"a file":          {"/caption", asJSON, `{"images": ["file:///etc/passwd"]}`, 400, "does not fetch"},
		"no such model":   {"/caption", asJSON, `{"model": "gpt-5", "images": ["aGVsbG8="]}`, 404, "world:direct"},
		"no such way":     {"/caption", asJSON, `{"model": "world:x", "images": ["aGVsbG8="]}`, 404, "world"},
		"beam":            {"/caption", asJSON, `{"images": ["aGVsbG8="], "beam": 1000}`, 400, "beam"},
		"max_tokens":      {"/caption", asJSON, `{"images": ["aGVsbG8="], "max_tokens": 0}`, 400, "max_tokens"},
		"method":          {"/caption", asJSON, `{"images": ["aGVsbG8="], "decode": "best"}`, 400, "best"},
		"temperature":     {"/caption", asJSON, `{"images": ["aGVsbG8="], "decode": "sample", "temperature": -1}`, 400, "temperature"},
		"texts":           {"/similarity", asJSON, `{"texts": ["a"]}`, 400, "at least one image"},
		"too many":        {"/features", asJSON, `{"texts": ["a","a","a","a","a"]}`, 413, "--max-items"},
		"too large":       {"/features", asJSON, `{"texts": ["` + strings.Repeat("a", 1<<20) + `"]}`, 413, "--max-body"},
		"kind":            {"/caption", "text/plain", "hello", 415, "Content-Type"},
		"no kind at all":  {"/caption", "multipart/form-data", "hello", 415, "Content-Type"},
		"broken form":     {"/caption", "multipart/form-data; boundary=x", "--x\r\nhello", 400, "form"},
		"cut picture":     {"/caption", "image/jpeg", string(photo[:len(photo)/2]), 400, "truncated"},
		"picture of zero": {"/caption", "image/jpeg", "", 400, "body"},
	} {
		t.Run(name, func(t *testing.T) {
			answer, text := post(t, url+c.path, c.kind, strings.NewReader(c.body))
			e := decode[struct{ Error errorJSON }](t, text).Error
			if answer.StatusCode != c.status || !strings.Contains(e.Message, c.says) || e.Code == "" {
				t.Errorf("got %d %s, want %d with %q", answer.StatusCode, text, c.status, c.says)
			}
		})
	}
	if strings.Contains(log.String(), "hello") || strings.Contains(log.String(), "aGVs") {
		t.Error("the log has contents of requests")
	}
}

// TestNotFinite has a damaged generator make an answer that JSON cannot hold.
func TestNotFinite(t *testing.T) {
	url, s, log := start(t, nil)
	generator := s.models.list[0].captioner.Generator.Model
	err := torch.Scope(func() error {
		torch.NoGrad(func() { nn.Parameters(generator)[0].Fill_(math.NaN()) })
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	body, kind := form(t, photos(t)[:1], "textualise", "true")
	answer, text := post(t, url+"/features", kind, body)
	if answer.StatusCode != http.StatusInternalServerError || !strings.Contains(text, `"code":"internal_error"`) || !strings.Contains(log.String(), "NaN") {
		t.Errorf("%s %s, log %s", answer.Status, text, log.String())
	}
}

// TestFetchHosts asks for pictures by URL where a host is listed: of another one, and of a
// private address.
func TestFetchHosts(t *testing.T) {
	url, _, _ := start(t, func(o *Options) { o.FetchHosts = []string{"images.example"} })
	for picture, status := range map[string]int{"https://other.example/a.jpg": 403, "http://127.0.0.1/a.jpg": 403, "file:///etc/passwd": 400} {
		answer, text := post(t, url+"/caption", "application/json", strings.NewReader(fmt.Sprintf(`{"images": [%q]}`, picture)))
		if answer.StatusCode != status || !strings.Contains(text, "images[0]") {
			t.Errorf("%s: %d %s", picture, answer.StatusCode, text)
		}
	}
}

// occupy keeps the worker's thread busy until release is closed.
func occupy(w *worker) (release chan<- struct{}) {
	done, busy := make(chan struct{}), make(chan struct{})
	go w.exec.Do(func() error {
		close(busy)
		<-done
		return nil
	})
	<-busy
	return done
}

// TestQueue fills the queue: what finds no place is a 429 with Retry-After, a client that goes
// away frees its place, and what waits too long is refused too.
func TestQueue(t *testing.T) {
	url, s, _ := start(t, func(o *Options) { o.Queue, o.QueueTimeout = 2, 3*time.Second })
	release := occupy(s.worker)
	photo := photos(t)[0]
	results := make(chan *http.Response, 8)
	send := func(ctx context.Context) {
		r, _ := http.NewRequestWithContext(ctx, http.MethodPost, url+"/caption", bytes.NewReader(photo))
		r.Header.Set("Content-Type", "image/jpeg")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			results <- nil
			return
		}
		answer.Body.Close()
		results <- answer
	}
	wait := func(n int) {
		t.Helper()
		for begin := time.Now(); s.worker.queue.length() != n; time.Sleep(time.Millisecond) {
			if time.Since(begin) > 10*time.Second {
				t.Fatalf("%d wait, want %d", s.worker.queue.length(), n)
			}
		}
	}
	go send(t.Context()) // with the worker
	time.Sleep(100 * time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	go send(ctx)
	wait(1)
	cancel()
	wait(0)
	if r := <-results; r != nil {
		t.Error("a client that went away has an answer")
	}
	go send(t.Context())
	go send(t.Context())
	wait(2)
	go send(t.Context())
	if r := <-results; r == nil || r.StatusCode != http.StatusTooManyRequests || r.Header.Get("Retry-After") == "" {
		t.Errorf("a full queue: %v", r)
	}
	for range 2 { // they wait too long
		if r := <-results; r == nil || r.StatusCode != http.StatusTooManyRequests {
			t.Errorf("waited too long: %v", r)
		}
	}
	close(release)
	if r := <-results; r == nil || r.StatusCode != http.StatusOK {
		t.Errorf("the first: %v", r)
	}
}

// TestShared joins requests: the features and the beam searches of a window are batches, and the
// captions of other methods join each other between tokens. The captions are those of requests
// by themselves.
func TestShared(t *testing.T) {
	alone, _, _ := start(t, nil)
	list := photos(t)
	for query, how := range map[string]string{"decode=beam": "shared; requests=4; items=4", "decode=greedy": "continuous; items=1", "decode=sample": "continuous; items=1"} {
		t.Run(query, func(t *testing.T) {
			url, _, _ := start(t, func(o *Options) { o.BatchWindow, o.MaxBatch = 10*time.Second, 4 })
			_, method, _ := strings.Cut(query, "=")
			ask := func(url string, i int) (captioned, string) {
				body, kind := form(t, list[i:i+1], "decode", method, "seed", fmt.Sprint(i))
				answer, text := post(t, url+"/caption", kind, body)
				return decode[captioned](t, text), answer.Header.Get(batchHeader)
			}
			var wait sync.WaitGroup
			for i := range 4 {
				wait.Go(func() {
					got, batched := ask(url, i)
					if batched != how {
						t.Errorf("request %d was computed as %q", i, batched)
					}
					want, _ := ask(alone, i)
					for k, c := range got.Photos[0].Captions {
						if w := want.Photos[0].Captions[k]; c.Text != w.Text || len(c.Alternatives) != len(w.Alternatives) {
							t.Errorf("photo %d, %s: %q together, %q alone", i, c.Pipeline, c.Text, w.Text)
						}
					}
				})
			}
			wait.Wait()
		})
	}
}

// TestInvariant: with packed weights, texts and captions have the same bits in any batch where the
// processor has AVX-512, and those that wait are computed together without a window. The
// features of photos by a ResNet have not, and are computed request by request.
func TestInvariant(t *testing.T) {
	if !torch.HasPanels() {
		t.Skip("this processor does not have AVX-512")
	}
	url, s, _ := start(t, func(o *Options) { o.Models[0].Compute.Pack = true })
	list := photos(t)
	for _, c := range []struct{ name, how string }{
		{"texts", "shared; requests=4; items=4"},
		{"greedy", "continuous; items=1"},
		{"sample", "continuous; items=1"},
		{"beam", "exact; requests=1; items=1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ask := func(i int) (text, batched string) {
				if c.name == "texts" {
					answer, text := post(t, url+"/v1/embeddings", "application/json", strings.NewReader(fmt.Sprintf(`{"model":"world","input":"%d red cups%s"}`, i, strings.Repeat(" on a table", i))))
					return text, answer.Header.Get(batchHeader)
				}
				body, kind := form(t, list[i:i+1], "decode", c.name, "seed", fmt.Sprint(i))
				answer, text := post(t, url+"/caption", kind, body)
				return text, answer.Header.Get(batchHeader)
			}
			release := occupy(s.worker)
			together := make([]string, 5)
			var wait sync.WaitGroup
			for i := range together {
				wait.Go(func() {
					var batched string
					if together[i], batched = ask(i); i > 0 && batched != c.how {
						t.Errorf("request %d was computed as %q", i, batched)
					}
				})
				if i == 0 { // the worker takes the first, the others wait
					time.Sleep(300 * time.Millisecond)
				}
			}
			for begin := time.Now(); s.worker.queue.length() < 4; time.Sleep(time.Millisecond) {
				if time.Since(begin) > 10*time.Second {
					t.Fatalf("%d wait", s.worker.queue.length())
				}
			}
			close(release)
			wait.Wait()
			for i, got := range together {
				if alone, _ := ask(i); got != alone {
					t.Errorf("request %d: together %s\nalone %s", i, got, alone)
				}
			}
		})
	}
}

// TestContinuous has many clients ask at random times, of whom some go away. The captions of
// the others are those of requests by themselves, and in the end nothing is left.
func TestContinuous(t *testing.T) {
	alone, _, _ := start(t, nil)
	url, s, _ := start(t, func(o *Options) { o.BatchWindow, o.MaxBatch, o.Queue = 5*time.Millisecond, 6, 100 })
	list := photos(t)
	want := make([]string, len(list))
	for i, p := range list {
		_, want[i] = post(t, alone+"/caption", "image/jpeg", bytes.NewReader(p))
	}
	rng := rand.New(rand.NewPCG(1, 1))
	var wait sync.WaitGroup
	for k := range 60 {
		i, leaves, after := k%len(list), k%5 == 0, time.Duration(rng.IntN(30))*time.Millisecond
		wait.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if leaves {
				time.AfterFunc(after, cancel)
			}
			r, _ := http.NewRequestWithContext(ctx, http.MethodPost, url+"/caption", bytes.NewReader(list[i]))
			r.Header.Set("Content-Type", "image/jpeg")
			answer, err := http.DefaultClient.Do(r)
			if err != nil {
				if !leaves {
					t.Error(err)
				}
				return
			}
			defer answer.Body.Close()
			text, err := io.ReadAll(answer.Body)
			if err != nil && !leaves {
				t.Error(err)
			}
			if err != nil || answer.StatusCode != http.StatusOK {
				if err == nil && !leaves {
					t.Error(answer.Status, string(text))
				}
				return
			}
			for way, c := range decode[captioned](t, string(text)).Photos[0].Captions {
				if w := decode[captioned](t, want[i]).Photos[0].Captions[way].Text; c.Text != w {
					t.Errorf("photo %d: %q, alone %q", i, c.Text, w)
				}
			}
		})
		time.Sleep(time.Duration(rng.IntN(10)) * time.Millisecond)
	}
	wait.Wait()
	s.worker.stop() // after all that has begun
	if len(s.worker.streams) > 0 {
		t.Errorf("%d streams are left", len(s.worker.streams))
	}
}

// TestWhoMayAsk checks Host headers, API keys and origins.
func TestWhoMayAsk(t *testing.T) {
	keys := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(keys, []byte("# ours\nsecond\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	url, _, _ := start(t, func(o *Options) {
		o.Keys, o.KeyFile, o.Origins, o.AllowHosts = []string{"first"}, keys, []string{"https://a.example"}, []string{"photos.example"}
	})
	photo := photos(t)[0]
	for _, c := range []struct {
		headers []string
		status  int
	}{
		{nil, 401},
		{[]string{"Authorization", "Bearer wrong"}, 401},
		{[]string{"Authorization", "Bearer "}, 401},
		{[]string{"Authorization", "Bearer first"}, 200},
		{[]string{"Authorization", "bearer second"}, 200},
		{[]string{"X-Api-Key", "second"}, 200},
		{[]string{"X-Api-Key", "second", "Host", "evil.example"}, 403},
		{[]string{"X-Api-Key", "second", "Host", "photos.example:80"}, 200},
		{[]string{"X-Api-Key", "second", "Host", "localhost"}, 200},
		{[]string{"X-Api-Key", "second", "Host", "[::1]:8080"}, 200},
	} {
		if answer, text := post(t, url+"/caption", "image/jpeg", bytes.NewReader(photo), c.headers...); answer.StatusCode != c.status {
			t.Errorf("%v: %d, want %d: %s", c.headers, answer.StatusCode, c.status, text)
		}
	}
	for path, status := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 401} {
		answer, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != status {
			t.Errorf("%s: %d, want %d", path, answer.StatusCode, status)
		}
	}
	for origin, allowed := range map[string]string{"https://a.example": "https://a.example", "https://b.example": ""} {
		r, _ := http.NewRequest(http.MethodOptions, url+"/v1/embeddings", nil)
		r.Header.Set("Origin", origin)
		r.Header.Set("Access-Control-Request-Method", "POST")
		r.Header.Set("Access-Control-Request-Headers", "authorization,x-stainless-lang")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if got := answer.Header.Get("Access-Control-Allow-Origin"); got != allowed {
			t.Errorf("%s: %q", origin, got)
		}
	}
}

// TestNoRoute asks for what is not there, in words of each protocol.
func TestNoRoute(t *testing.T) {
	url, _, _ := start(t, nil)
	for _, c := range []struct {
		path   string
		status int
		allow  string
	}{{"/captions", 404, ""}, {"/healthz", 405, "GET, HEAD"}, {"/../../etc/passwd", 404, ""}, {"/v2/health/live", 405, "GET, HEAD"}} {
		answer, text := post(t, url+c.path, "application/json", strings.NewReader("{}"))
		if answer.StatusCode != c.status || answer.Header.Get("Allow") != c.allow || !json.Valid([]byte(text)) {
			t.Errorf("%s: %s, Allow %q: %s", c.path, answer.Status, answer.Header.Get("Allow"), text)
		}
	}
}

// TestMetrics reads what a request leaves in /metrics and the log.
func TestMetrics(t *testing.T) {
	url, _, log := start(t, nil)
	post(t, url+"/caption", "image/jpeg", bytes.NewReader(photos(t)[0]), "X-Request-Id", "my-request-1")
	_, got := get(t, url+"/metrics")
	for _, want := range []string{`cyclecap_requests_total{route="POST /caption",status="200"} 1`, `cyclecap_stage_seconds_count{stage="decode"} 1`,
		`cyclecap_stage_seconds_count{stage="clip"} 1`, `cyclecap_stage_seconds_count{stage="mapper"} 2`, `cyclecap_stage_seconds_count{stage="caption"} 2`, "cyclecap_tokens_total", `cyclecap_model_loaded_timestamp_seconds{model="world"}`,
		"cyclecap_queue_length 0", "process_resident_memory_bytes"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	if !strings.Contains(log.String(), "my-request-1") {
		t.Error(log.String())
	}
	// The captions of both pipelines join the others in one batch; those of a beam search are two.
	url, _, _ = start(t, func(o *Options) { o.BatchWindow = time.Millisecond })
	for _, decode := range []string{"greedy", "beam"} {
		body, kind := form(t, photos(t)[:3], "decode", decode)
		post(t, url+"/caption", kind, body)
	}
	if _, got := get(t, url+"/metrics"); !strings.Contains(got, `cyclecap_stage_seconds_count{stage="mapper"} 3`) {
		t.Error(got)
	}
}
