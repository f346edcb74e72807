package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cyclecap/nets/clipcap"
	"cyclecap/pipeline"
)

// soakServer is set in the process that TestSoak starts.
const soakServer = "CYCLECAP_SOAK_SERVER"

// TestSoakServer is the server of TestSoak, in a process of its own, so that its memory is the
// server's.
func TestSoakServer(t *testing.T) {
	if os.Getenv(soakServer) == "" {
		t.Skip("TestSoak runs this")
	}
	o := DefaultOptions()
	o.Listen, o.Models, o.Log, o.Public = "127.0.0.1:0", []ModelConfig{worldModel()}, slog.New(slog.NewJSONHandler(os.Stderr, nil)), []string{"health", "metrics"}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	s.times.header, s.times.body, s.times.answer, s.times.idle = 2*time.Second, 3*time.Second, 3*time.Second, 5*time.Second
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	hangUp, reload := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(hangUp, syscall.SIGHUP)
	go func() {
		for range hangUp {
			reload <- struct{}{}
		}
	}()
	if err := s.Run(ctx, reload, func(a net.Addr) { fmt.Printf("listening on %s\n", a) }); err != nil {
		t.Fatal(err)
	}
}

// soaking is the state of TestSoak.
type soaking struct {
	*testing.T
	url, addr string
	photos    [][]byte
	client    *http.Client
	// wanted are requests with the answers that they have alone.
	wanted []wantedAnswer

	mu     sync.Mutex
	counts map[string]int
	slow   chan struct{} // a place for each slow client
}

type wantedAnswer struct {
	name, path, kind string
	body, answer     []byte
}

func (s *soaking) count(what string) {
	s.mu.Lock()
	s.counts[what]++
	s.mu.Unlock()
}

// post sends a request; status 0 means that there is no answer.
func (s *soaking) post(ctx context.Context, path, kind string, body io.Reader, headers ...string) (status int, answer []byte) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+path, body)
	if err != nil {
		s.Error(err)
		return 0, nil
	}
	r.Header.Set("Content-Type", kind)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	a, err := s.client.Do(r)
	if err != nil {
		return 0, []byte(err.Error())
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	if err != nil {
		return 0, []byte(err.Error())
	}
	if a.StatusCode >= 500 {
		s.Errorf("%s: %s %.300s", path, a.Status, b)
	}
	return a.StatusCode, b
}

// good sends a request whose answer is known, byte by byte.
func (s *soaking) good(rng *rand.Rand) {
	w := s.wanted[rng.IntN(len(s.wanted))]
	status, answer := s.post(s.Context(), w.path, w.kind, bytes.NewReader(w.body))
	switch {
	case status == http.StatusTooManyRequests:
		s.count("429")
	case status != http.StatusOK || !bytes.Equal(answer, w.answer):
		s.Errorf("%s: %d %.300s, want %.300s", w.name, status, answer, w.answer)
	default:
		s.count("good: " + w.name)
	}
}

// bad sends what must be refused.
func (s *soaking) bad(rng *rand.Rand) {
	photo := s.photos[rng.IntN(len(s.photos))]
	damaged := slices.Clone(photo)
	for range 20 { // it may still be a JPEG file
		damaged[rng.IntN(len(damaged))] ^= byte(1 + rng.IntN(255))
	}
	junk := make([]byte, rng.IntN(1<<16))
	for i := range junk {
		junk[i] = byte(rng.Uint32())
	}
	wrong := []struct {
		path, kind string
		body       []byte
		headers    []string
	}{
		{"/caption", "image/jpeg", photo[:rng.IntN(len(photo)-1000)], nil},
		{"/caption", "image/jpeg", junk, nil},
		{"/caption", "application/json", junk, nil},
		{"/caption", "multipart/form-data; boundary=x", append([]byte("--x\r\n"), junk...), nil},
		{"/features", "text/plain", photo, nil},
		{"/features", "application/json", []byte(`{"texts": 5}`), nil},
		{"/v2/models/world/infer", "application/octet-stream", junk, []string{kserveHeader, strconv.Itoa(rng.IntN(len(junk) + 10))}},
		{"/v2/models/world/infer", "application/json", []byte(`{"inputs":[{"name":"PIXELS","datatype":"FP32","shape":[9223372036854775807,3,64,64],"data":[1]}]}`), nil},
		{"/caption", "image/jpeg", photo, []string{"Content-Encoding", "gzip"}},
		{"/caption", "image/jpeg", photo, []string{"X-A", strings.Repeat("a", 100<<10)}},
		{"/nothing", "image/jpeg", photo, nil},
		{"/healthz", "image/jpeg", photo, nil},
	}
	w := wrong[rng.IntN(len(wrong))]
	if status, answer := s.post(s.Context(), w.path, w.kind, bytes.NewReader(w.body), w.headers...); status != 0 && status != http.StatusTooManyRequests && (status < 400 || status > 499) {
		s.Errorf("%s, %s: %d %.200s", w.path, w.kind, status, answer)
	}
	s.post(s.Context(), "/features", "image/jpeg", bytes.NewReader(damaged))
	s.count("bad")
}

// gone is a client that goes away: in its body, or while it waits.
func (s *soaking) gone(rng *rand.Rand) {
	photo := s.photos[rng.IntN(len(s.photos))]
	if rng.IntN(2) == 0 {
		ctx, cancel := context.WithTimeout(s.Context(), time.Duration(rng.IntN(100))*time.Millisecond)
		defer cancel()
		s.post(ctx, "/caption", "image/jpeg", bytes.NewReader(photo))
		s.count("gone while it waits")
		return
	}
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.Error(err)
		return
	}
	defer c.Close()
	fmt.Fprintf(c, "POST /caption HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n", len(photo))
	c.Write(photo[:rng.IntN(len(photo))])
	s.count("gone in its body")
}

// crawl is a client that is slow for as long as the server lets it, with its headers, its body or with
// reading.
func (s *soaking) crawl(rng *rand.Rand) {
	select {
	case s.slow <- struct{}{}:
	default:
		return
	}
	go func() {
		defer func() { <-s.slow }()
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			s.Error(err)
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		begin := "POST /caption HTTP/1.1\r\nHost: localhost\r\n"
		switch rng.IntN(3) {
		case 0:
			begin += "X-A: "
		case 1:
			begin += "Content-Type: image/jpeg\r\nContent-Length: 1000000\r\n\r\n"
		case 2:
			begin = strings.Repeat("GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n", 300)
			if _, err := io.WriteString(c, begin); err != nil {
				return
			}
			time.Sleep(5 * time.Second)
			io.Copy(io.Discard, c)
			s.count("reads late")
			return
		}
		if _, err := io.WriteString(c, begin); err != nil {
			return
		}
		for {
			time.Sleep(100 * time.Millisecond)
			if _, err := c.Write([]byte("a")); err != nil {
				s.count("slow, cut off")
				return
			}
		}
	}()
}

// crowd opens many connections at once, each with a request.
func (s *soaking) crowd(rng *rand.Rand, n int) {
	var wait sync.WaitGroup
	seed := rng.Uint64()
	for i := range n {
		wait.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			w := s.wanted[rng.IntN(len(s.wanted))]
			status, answer := s.post(s.Context(), w.path, w.kind, bytes.NewReader(w.body))
			if status == http.StatusOK && !bytes.Equal(answer, w.answer) || status != http.StatusOK && status != http.StatusTooManyRequests {
				s.Errorf("%s in a crowd: %d %.300s", w.name, status, answer)
			}
			s.count(fmt.Sprintf("in a crowd: %d", status))
		})
	}
	wait.Wait()
}

// gauge reads a metric.
func (s *soaking) gauge(name string) float64 {
	answer, err := s.client.Get(s.url + "/metrics")
	if err != nil {
		s.Error(err)
		return 0
	}
	defer answer.Body.Close()
	b, _ := io.ReadAll(answer.Body)
	m := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindSubmatch(b)
	if m == nil {
		s.Errorf("no %s in /metrics", name)
		return 0
	}
	v, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		s.Error(err)
	}
	return v
}

// prepare makes the requests of good, and checks their answers against the pipeline, which the
// command runs.
func (s *soaking) prepare() {
	p, err := pipeline.Load(worldModel().Files, pipeline.Options{})
	if err != nil {
		s.Fatal(err)
	}
	defer p.Close()
	dir := s.TempDir()
	var paths []string
	for i, b := range s.photos {
		paths = append(paths, filepath.Join(dir, fmt.Sprint(i)))
		if err := os.WriteFile(paths[i], b, 0o666); err != nil {
			s.Fatal(err)
		}
	}
	add := func(name, path, kind string, body io.Reader) []byte {
		b, _ := io.ReadAll(body)
		status, answer := s.post(s.Context(), path, kind, bytes.NewReader(b))
		if status != http.StatusOK {
			s.Fatalf("%s: %d %s", name, status, answer)
		}
		s.wanted = append(s.wanted, wantedAnswer{name, path, kind, b, answer})
		return answer
	}
	for _, method := range []clipcap.Method{clipcap.Greedy, clipcap.Beam} {
		for n := 1; n <= 3; n += 2 {
			o := clipcap.Options{Method: method, Beam: 5, MaxTokens: p.Decoder.MaxTokens, Stop: p.Decoder.Stop}
			var want []pipeline.Captioned
			for b, err := range p.Photos(s.Context(), paths[:n], 16, o) {
				if err != nil {
					s.Fatal(err)
				}
				want = append(want, b.Captions...)
			}
			body, kind := form(s.T, s.photos[:n], "decode", string(method))
			answer := add(fmt.Sprintf("%d captions, %s", n, method), "/caption", kind, body)
			for i, photo := range decode[captioned](s.T, string(answer)).Photos {
				for k, list := range [][]pipeline.Caption{want[i].Direct, want[i].Textualised} {
					if c := photo.Captions[k]; c.Text != list[0].Text || c.LogProb != list[0].LogProb {
						s.Errorf("the server has %q (%v), the command %q (%v)", c.Text, c.LogProb, list[0].Text, list[0].LogProb)
					}
				}
			}
		}
	}
	var want []float32
	for f, err := range p.CLIP.Photos(s.Context(), paths, 16) {
		if err != nil {
			s.Fatal(err)
		}
		want = append(want, f.Rows...)
	}
	body, kind := form(s.T, s.photos, "text", "a red cup", "text", "a dog")
	answer := add("features", "/features", kind, body)
	if got := slices.Concat(decode[struct{ Images [][]float32 }](s.T, string(answer)).Images...); !slices.Equal(got, want) {
		s.Error("the server's features are not the command's")
	}
	body, kind = form(s.T, s.photos[:2], "text", "a red cup", "text", "a dog")
	add("similarity", "/similarity", kind, body)
	texts, err := json.Marshal([]string{"a red cup", strings.Repeat("a long text ", 50)})
	if err != nil {
		s.Fatal(err)
	}
	add("tensors", "/v2/models/world/infer", "application/json", strings.NewReader(fmt.Sprintf(`{"inputs":[{"name":"TEXT","datatype":"BYTES","shape":[2],"data":%s}],"parameters":{"binary_data_output":true}}`, texts)))
}

// TestSoak sends mixed traffic to a server: good and bad requests, clients that are slow or go
// away, crowds, and SIGHUP. There may be no 5xx, answers have the bits of the command, and memory and
// goroutines do not grow. It takes 5 seconds, or CYCLECAP_SOAK, such as 20m (make soak).
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("a few seconds")
	}
	length, crowd := 5*time.Second, 50
	if text := os.Getenv("CYCLECAP_SOAK"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
		crowd = 500
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(os.Args[0], "-test.run=^TestSoakServer$", "-test.timeout=0")
	cmd.Env = append(os.Environ(), soakServer+"=1")
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	defer func() {
		if !ended {
			cmd.Process.Kill()
			cmd.Wait()
		}
	}()
	s := &soaking{T: t, photos: photos(t), counts: map[string]int{}, slow: make(chan struct{}, 30),
		client: &http.Client{Timeout: 5 * time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 4}}}
	if _, err := fmt.Fscanf(out, "listening on %s\n", &s.addr); err != nil {
		t.Fatal(err)
	}
	s.url = "http://" + s.addr
	go io.Copy(io.Discard, out)
	until(t, "ready", func() bool {
		a, err := s.client.Get(s.url + "/readyz")
		if err != nil {
			return false
		}
		a.Body.Close()
		return a.StatusCode == http.StatusOK
	})
	s.prepare()
	s.client.CloseIdleConnections()
	// A connection of its own has two goroutines.
	goroutines := s.gauge("go_goroutines")

	type sample struct{ at, resident, goroutines float64 }
	var samples []sample
	begin := time.Now()
	ctx, cancel := context.WithDeadline(t.Context(), begin.Add(length))
	defer cancel()
	var wait sync.WaitGroup
	for worker := range 6 {
		wait.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(worker)))
			for ctx.Err() == nil && !t.Failed() {
				switch n := rng.IntN(100); {
				case n < 55:
					s.good(rng)
				case n < 75:
					s.bad(rng)
				case n < 88:
					s.gone(rng)
				default:
					s.crawl(rng)
				}
			}
		})
	}
	wait.Go(func() {
		rng := rand.New(rand.NewPCG(2, 0))
		for ctx.Err() == nil && !t.Failed() {
			s.crowd(rng, crowd)
			time.Sleep(max(2*time.Second, length/60))
		}
	})
	wait.Go(func() {
		every := max(length/200, 100*time.Millisecond)
		for n := 1; ctx.Err() == nil && !t.Failed(); n++ {
			time.Sleep(every)
			if n%20 == 0 { // ten times
				cmd.Process.Signal(syscall.SIGHUP)
				s.count("reload")
			}
			samples = append(samples, sample{time.Since(begin).Seconds(), s.gauge("process_resident_memory_bytes"), s.gauge("go_goroutines")})
		}
	})
	wait.Wait()
	for range cap(s.slow) { // until they are all cut off
		s.slow <- struct{}{}
	}
	s.client.CloseIdleConnections()
	until(t, fmt.Sprintf("goroutines back to %v", goroutines), func() bool { return s.gauge("go_goroutines") <= goroutines })

	third := func(k int) float64 {
		var list []float64
		for _, v := range samples {
			if int(3*v.at/length.Seconds()) == k {
				list = append(list, v.resident)
			}
		}
		slices.Sort(list)
		if len(list) == 0 {
			t.Fatal("no samples")
		}
		return list[len(list)/2] / (1 << 20)
	}
	growth := 100 * (third(2)/third(1) - 1)
	most := slices.MaxFunc(samples, func(a, b sample) int { return int(a.resident - b.resident) })
	s.mu.Lock()
	t.Logf("%v: memory %.1f, %.1f, %.1f MiB in the thirds (medians; the last is %+.2f %%), at most %.1f; %v goroutines before and after, at most %v; %v",
		length, third(0), third(1), third(2), growth, most.resident/(1<<20), goroutines, slices.MaxFunc(samples, func(a, b sample) int { return int(a.goroutines - b.goroutines) }).goroutines, s.counts)
	s.mu.Unlock()
	if length >= 10*time.Minute && growth > 2 {
		t.Errorf("memory grows: the last third has %.2f %% more than the second", growth)
	}
	// The end.
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	ended = true
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	b, err := os.ReadFile(log.Name())
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		if bytes.Contains(line, []byte(`"status":5`)) && !bytes.Contains(line, []byte(`GET /readyz`)) { // before it was ready
			t.Errorf("the log has %s", line)
			break
		}
	}
	for _, word := range []string{"panic", "internal error", "goes on as before"} {
		if at := bytes.Index(b, []byte(word)); at >= 0 {
			t.Errorf("the log: %s", b[at:min(len(b), at+1000)])
		}
	}
}
