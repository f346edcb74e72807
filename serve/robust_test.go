package serve

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	worldmodels "cyclecap/models/world"

	"go.uber.org/goleak"
)

// A running server is one on a port of its own, as the command runs it.
type running struct {
	*Server
	t      *testing.T
	url    string
	addr   string
	log    *logged
	client *http.Client
	reload chan struct{}
	cancel context.CancelFunc // as SIGTERM does
	ended  chan error         // what Run returns
}

// run runs a server until the test ends. No goroutine may be left then.
func run(t *testing.T, change func(*Options), times func(*timeouts)) *running {
	t.Helper()
	before := goleak.IgnoreCurrent()
	r := &running{t: t, log: &logged{}, reload: make(chan struct{}), ended: make(chan error, 1), client: &http.Client{Transport: &http.Transport{}}}
	o := DefaultOptions()
	o.Listen, o.Models, o.Log = "127.0.0.1:0", []ModelConfig{worldModel()}, slog.New(slog.NewJSONHandler(r.log, nil))
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if times != nil {
		times(&s.times)
	}
	r.Server = s
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	at := make(chan net.Addr, 1)
	go func() { r.ended <- s.Run(ctx, r.reload, func(a net.Addr) { at <- a }) }()
	r.addr = (<-at).String()
	r.url = "http://" + r.addr
	t.Cleanup(func() {
		r.client.CloseIdleConnections()
		if err := r.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		// A load that had begun is finished first.
		var left error
		for begin := time.Now(); time.Since(begin) < 30*time.Second; {
			if left = goleak.Find(before); left == nil {
				break
			}
		}
		if left != nil {
			t.Error(left)
		}
	})
	return r
}

// stop ends the server and returns what Run did.
func (r *running) stop() error {
	r.t.Helper()
	r.cancel()
	select {
	case err := <-r.ended:
		r.ended <- err
		return err
	case <-time.After(30 * time.Second):
		r.t.Fatal("Run does not return")
	}
	return nil
}

// until waits for a condition.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for begin := time.Now(); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > 2*time.Minute {
			t.Fatalf("%s: not after 2 minutes", what)
		}
	}
}

// waitReady waits until the models are loaded.
func (r *running) waitReady() *running {
	r.t.Helper()
	until(r.t, "ready", r.isReady)
	return r
}

// send sends a request and returns the status and the answer; 0 if there is none.
func (r *running) send(ctx context.Context, method, path, kind string, body io.Reader, headers ...string) (int, string) {
	q, err := http.NewRequestWithContext(ctx, method, r.url+path, body)
	if err != nil {
		return 0, err.Error()
	}
	q.Header.Set("Content-Type", kind)
	for i := 0; i < len(headers); i += 2 {
		q.Header.Set(headers[i], headers[i+1])
	}
	answer, err := r.client.Do(q)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err.Error()
	}
	return answer.StatusCode, string(b)
}

// raw sends bytes on a connection of its own, and returns all that comes back and how long it
// took until the server closed the connection. more, if not nil, goes on until it fails.
func (r *running) raw(text string, more func(net.Conn) error) (answer string, took time.Duration) {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Error(err)
		return "", 0
	}
	defer c.Close()
	begin := time.Now()
	c.SetDeadline(begin.Add(20 * time.Second))
	var wait sync.WaitGroup
	defer wait.Wait()
	if more != nil {
		wait.Go(func() {
			for more(c) == nil {
			}
		})
	}
	io.WriteString(c, text)
	b, err := io.ReadAll(c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		r.t.Errorf("the server keeps the connection open after %.60q", text)
	}
	return string(b), time.Since(begin)
}

// idle checks that requests have left nothing behind.
func (r *running) idle() {
	r.t.Helper()
	until(r.t, "nothing in flight", func() bool {
		r.memory.mu.Lock()
		defer r.memory.mu.Unlock()
		return r.memory.left == r.o.MaxInFlight && r.worker.queue.length() == 0 && len(r.decode) == 0
	})
}

func trickle(c net.Conn) error {
	time.Sleep(20 * time.Millisecond)
	_, err := c.Write([]byte("a"))
	return err
}

// TestSlow checks that each way to be slow ends at its own time.
func TestSlow(t *testing.T) {
	r := run(t, nil, func(o *timeouts) {
		o.header, o.body, o.answer, o.idle = 300*time.Millisecond, 700*time.Millisecond, 500*time.Millisecond, 400*time.Millisecond
	}).waitReady()
	const host = "Host: localhost\r\n"
	for name, c := range map[string]struct {
		text   string
		more   func(net.Conn) error
		least  time.Duration
		begins string
	}{
		"headers":            {"POST /caption HTTP/1.1\r\n" + host + "X-A: ", trickle, 250 * time.Millisecond, ""},
		"nothing":            {"", nil, 250 * time.Millisecond, ""},
		"body":               {"POST /caption HTTP/1.1\r\n" + host + "Content-Type: image/jpeg\r\nContent-Length: 100000\r\n\r\n", trickle, 650 * time.Millisecond, "HTTP/1.1 400"},
		"compressed body":    {"POST /caption HTTP/1.1\r\n" + host + "Content-Encoding: gzip\r\nContent-Length: 100000\r\n\r\n", nil, 650 * time.Millisecond, "HTTP/1.1 400"},
		"chunked body":       {"POST /features HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\nfffff\r\n", trickle, 650 * time.Millisecond, "HTTP/1.1 400"},
		"idle after answers": {"GET /healthz HTTP/1.1\r\n" + host + "\r\n", nil, 350 * time.Millisecond, "HTTP/1.1 200"},
	} {
		t.Run(name, func(t *testing.T) {
			answer, took := r.raw(c.text, c.more)
			if !strings.HasPrefix(answer, c.begins) || took < c.least || took > c.least+5*time.Second {
				t.Errorf("after %v: %.300q", took, answer)
			}
		})
	}
	// A client that does not read: the answers to this fill all buffers.
	const many = 2000
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	go io.WriteString(c, strings.Repeat("GET /openapi.json HTTP/1.1\r\n"+host+"\r\n", many))
	time.Sleep(3 * time.Second)
	b, err := io.ReadAll(c)
	if n := bytes.Count(b, []byte("HTTP/1.1 200")); n == 0 || n == many || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d answers (%d bytes), then %v", n, len(b), err)
	}
	r.idle()
}

// TestStrangeRequests sends what is hardly HTTP. Each gets an answer or the end of the connection, and the
// server goes on.
func TestStrangeRequests(t *testing.T) {
	r := run(t, func(o *Options) { o.MaxBody = 1 << 20 }, func(o *timeouts) { o.header, o.body, o.idle = time.Second, time.Second, time.Second }).waitReady()
	const host = "Host: localhost\r\n"
	ok := "GET /healthz HTTP/1.1\r\n" + host + "\r\n"
	for name, c := range map[string]struct {
		text string
		want []string // beginnings of the answers
	}{
		"a huge header":     {"GET /healthz HTTP/1.1\r\n" + host + "X-A: " + strings.Repeat("a", 1<<20) + "\r\n\r\n", []string{"431"}},
		"many headers":      {"GET /healthz HTTP/1.1\r\n" + host + strings.Repeat("X-A: a\r\n", 1<<16) + "\r\n", []string{"431"}},
		"a long URL":        {"GET /" + strings.Repeat("a", 1<<20) + " HTTP/1.1\r\n" + host + "\r\n", []string{"431"}},
		"garbage":           {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", []string{"400"}},
		"two, then garbage": {ok + ok + "\x00\xff\x00garbage\r\n\r\n", []string{"200", "200", "400"}},
		"HTTP/1.0":          {"GET /healthz HTTP/1.0\r\n" + host + "\r\n", []string{"200"}},
		"HTTP/1.0, no host": {"GET /openapi.json HTTP/1.0\r\n\r\n", []string{"403"}},
		"no host":           {"GET /healthz HTTP/1.1\r\n\r\n", []string{"400"}},
		"two hosts":         {"GET /healthz HTTP/1.1\r\n" + host + "Host: evil\r\n\r\n", []string{"400"}},
		"no number":         {"POST /caption HTTP/1.1\r\n" + host + "Content-Length: -5\r\n\r\n", []string{"400"}},
		"two lengths":       {"POST /caption HTTP/1.1\r\n" + host + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", []string{"400"}},
		"length and chunks": {"POST /caption HTTP/1.1\r\n" + host + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + ok, []string{"400", "200"}}, // an empty body
		"a broken chunk":    {"POST /caption HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n", []string{"400"}},
		"much too large":    {"POST /caption HTTP/1.1\r\n" + host + "Content-Length: 1000000000000\r\n\r\n", []string{"413"}},
		"a longer number":   {"POST /caption HTTP/1.1\r\n" + host + "Content-Length: 99999999999999999999\r\n\r\n", []string{"400"}},
		"CONNECT":           {"CONNECT example.org:80 HTTP/1.1\r\n" + host + "\r\n", []string{"40"}},
		"a proxy's request": {"GET http://example.org/ HTTP/1.1\r\n" + host + "\r\n", []string{"403"}},
		"a path with dots":  {"GET /../../../etc/passwd HTTP/1.1\r\n" + host + "\r\n", []string{""}},
	} {
		t.Run(name, func(t *testing.T) {
			answer, _ := r.raw(c.text, nil)
			got := strings.Split(answer, "HTTP/1.")[1:]
			for i, a := range got {
				if i >= len(c.want) || !strings.HasPrefix(a[2:], c.want[i]) || strings.Contains(a, "root:") {
					t.Errorf("answer %d of %v: %.200q", i, c.want, a)
				}
			}
			// The end of a connection with unread data is a reset, which can take the
			// last answer with it.
			if len(got) < len(c.want) && answer != "" {
				t.Errorf("%d answers, want %v: %.300q", len(got), c.want, answer)
			}
		})
	}
	if status, text := r.send(t.Context(), http.MethodPost, "/caption", "image/jpeg", bytes.NewReader(photos(t)[0])); status != http.StatusOK {
		t.Error(status, text)
	}
	r.idle()
}

// TestCrowd sends from 100 connections at once, of which half go away in the middle. Those that
// stay get the answer that one alone gets.
func TestCrowd(t *testing.T) {
	r := run(t, func(o *Options) { o.Queue = 100 }, nil).waitReady()
	photo := photos(t)[0]
	status, want := r.send(t.Context(), http.MethodPost, "/features", "image/jpeg", bytes.NewReader(photo))
	if status != http.StatusOK {
		t.Fatal(status, want)
	}
	var wait sync.WaitGroup
	var answers atomic.Int64
	for i := range 100 {
		wait.Go(func() {
			switch i % 4 {
			case 0: // goes in the middle of its body
				c, err := net.Dial("tcp", r.addr)
				if err != nil {
					t.Error(err)
					return
				}
				fmt.Fprintf(c, "POST /features HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n", len(photo))
				c.Write(photo[:len(photo)/2])
				c.Close()
			case 1: // goes while it waits
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*time.Millisecond)
				defer cancel()
				r.send(ctx, http.MethodPost, "/caption", "image/jpeg", bytes.NewReader(photo))
			default:
				status, got := r.send(t.Context(), http.MethodPost, "/features", "image/jpeg", bytes.NewReader(photo))
				if status != http.StatusOK || got != want {
					t.Errorf("%d %.200s", status, got)
				}
				answers.Add(1)
			}
		})
	}
	wait.Wait()
	if answers.Load() != 50 {
		t.Errorf("%d answers", answers.Load())
	}
	r.idle()
	if n := strings.Count(r.log.String(), `"status":5`); n > 0 {
		t.Errorf("%d answers of 5xx", n)
	}
}

// inFlight sends a request that the worker does not compute before release is closed, and
// returns where its status will come.
func (r *running) inFlight() (got <-chan int, release chan<- struct{}) {
	r.t.Helper()
	held, status := occupy(r.worker), make(chan int, 1)
	go func() {
		code, _ := r.send(r.t.Context(), http.MethodPost, "/caption", "image/jpeg", bytes.NewReader(photos(r.t)[0]))
		status <- code
	}()
	until(r.t, "the request is with the worker", func() bool { return strings.Contains(scrape(r), "cyclecap_requests_in_flight 2") })
	return status, held
}

// TestDrain ends a server while it works: it is alive and unready during the pause, the request gets its
// answer, and Run returns nil.
func TestDrain(t *testing.T) {
	r := run(t, func(o *Options) { o.DrainPause = 500 * time.Millisecond }, nil).waitReady()
	got, release := r.inFlight()
	begin := time.Now()
	r.cancel()
	until(t, "unready", func() bool { return !r.isReady() })
	for path, want := range map[string]int{"/readyz": 503, "/healthz": 200, "/v2/health/ready": 503, "/v2/health/live": 200} {
		if status, text := r.send(t.Context(), http.MethodGet, path, "", nil); status != want {
			t.Errorf("%s in the pause: %d %s", path, status, text)
		}
	}
	if took := time.Since(begin); took > 450*time.Millisecond {
		t.Skipf("this machine is too slow to ask within the pause: %v", took)
	}
	until(t, "refused", func() bool {
		c, err := net.Dial("tcp", r.addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	if took := time.Since(begin); took < 500*time.Millisecond {
		t.Errorf("connections were refused after %v", took)
	}
	select {
	case err := <-r.ended:
		t.Fatalf("Run returned %v before the request had its answer", err)
	default:
	}
	close(release)
	if status := <-got; status != http.StatusOK {
		t.Errorf("the request in flight: %d", status)
	}
	if err := r.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
}

// scrape reads /metrics.
func scrape(r *running) string {
	_, text := r.send(r.t.Context(), http.MethodGet, "/metrics", "", nil)
	return text
}

// TestDrainTimeout cuts off a request that takes too long, and still ends well.
func TestDrainTimeout(t *testing.T) {
	r := run(t, func(o *Options) { o.DrainTimeout = 100 * time.Millisecond }, nil).waitReady()
	got, release := r.inFlight()
	r.cancel()
	if status := <-got; status != 0 {
		t.Errorf("a request that was cut off has status %d", status)
	}
	close(release)
	if err := r.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
}

// TestDrainWhileLoading ends a server before its models are loaded, and while they are loaded again.
func TestDrainWhileLoading(t *testing.T) {
	if err := run(t, nil, nil).stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	r := run(t, nil, nil).waitReady()
	r.reload <- struct{}{}
	if err := r.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if r.isReady() {
		t.Error("it is ready after its end")
	}
}

// TestReload loads models again while requests run. None fails; a file that is damaged leaves the
// models as they are.
func TestReload(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, worldmodels.FS); err != nil {
		t.Fatal(err)
	}
	r := run(t, func(o *Options) {
		f := &o.Models[0].Files
		f.FS = nil
		for _, p := range []*string{&f.CLIP, &f.Decoder, &f.GPT2, &f.Generator, &o.Models[0].Gap} {
			*p = filepath.Join(dir, *p)
		}
	}, nil).waitReady()
	photo := photos(t)[0]
	status, want := r.send(t.Context(), http.MethodPost, "/caption", "image/jpeg", bytes.NewReader(photo))
	if status != http.StatusOK {
		t.Fatal(status, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	var served atomic.Int64
	for range 4 {
		wait.Go(func() {
			for ctx.Err() == nil {
				if status, text := r.send(t.Context(), http.MethodPost, "/caption", "image/jpeg", bytes.NewReader(photo)); status != http.StatusOK || text != want {
					t.Errorf("%d %.300s", status, text)
				}
				served.Add(1)
			}
		})
	}
	loads := func() int { return strings.Count(r.log.String(), `"msg":"ready"`) }
	for n := range 3 {
		r.reload <- struct{}{}
		until(t, "loaded again", func() bool { return loads() == n+2 })
	}
	// Several at once are one or two loads, one after the other.
	for range 5 {
		r.reload <- struct{}{}
	}
	until(t, "loaded again", func() bool { return loads() >= 5 })
	// A damaged file; the one that is in use must not change.
	clip := filepath.Join(dir, "clip.safetensors")
	if err := os.Rename(clip, clip+".good"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(clip, []byte("damaged"), 0o666); err != nil {
		t.Fatal(err)
	}
	// The last of the five.
	before := loads()
	for last := time.Now(); time.Since(last) < 3*time.Second; time.Sleep(50 * time.Millisecond) {
		if n := loads(); n != before {
			before, last = n, time.Now()
		}
	}
	r.reload <- struct{}{}
	until(t, "the load fails", func() bool { return strings.Contains(r.log.String(), "goes on as before") })
	if loads() != before || !r.isReady() {
		t.Error("it was loaded, or is unready")
	}
	at := served.Load()
	until(t, "more requests", func() bool { return served.Load() > at+8 })
	if err := os.Rename(clip+".good", clip); err != nil {
		t.Fatal(err)
	}
	r.reload <- struct{}{}
	until(t, "loaded again", func() bool { return loads() > before })
	cancel()
	wait.Wait()
	r.idle()
}

// writePair writes a certificate for this machine with a serial number, and its key.
func writePair(t *testing.T, cert, key string, serial int64) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	as := x509.Certificate{SerialNumber: big.NewInt(serial), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: time.Now().Add(time.Hour)}
	signed, err := x509.CreateCertificate(rand.Reader, &as, &as, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for path, b := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: signed}, key: {Type: "PRIVATE KEY", Bytes: encoded}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReloadCertificate renews the certificate of a server that runs. A pair that does not belong
// together leaves the one before, and keeps neither keys nor models from being loaded.
func TestReloadCertificate(t *testing.T) {
	dir := t.TempDir()
	cert, key, keys := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "keys.txt")
	writePair(t, cert, key, 1)
	os.WriteFile(keys, []byte("old"), 0o600)
	r := run(t, func(o *Options) { o.TLSCert, o.TLSKey, o.KeyFile = cert, key, keys }, nil).waitReady()
	serial := func() int64 {
		c, err := tls.Dial("tcp", r.addr, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	loads := func() int { return strings.Count(r.log.String(), `"msg":"ready"`) }
	reload := func() {
		before := loads()
		r.reload <- struct{}{}
		until(t, "loaded again", func() bool { return loads() > before })
	}
	if n := serial(); n != 1 {
		t.Fatalf("certificate %d", n)
	}
	writePair(t, cert, key, 2)
	if n := serial(); n != 1 {
		t.Errorf("certificate %d before SIGHUP", n)
	}
	reload()
	if n := serial(); n != 2 {
		t.Errorf("certificate %d after SIGHUP", n)
	}
	writePair(t, cert, filepath.Join(dir, "other.pem"), 3)
	os.WriteFile(keys, []byte("new"), 0o600)
	reload()
	until(t, "the log says what failed", func() bool { return strings.Contains(r.log.String(), "goes on as before") })
	if n, log := serial(), r.log.String(); n != 2 || !strings.Contains(log, "--tls-cert") || (*r.keys.Load())[0] != "new" {
		t.Errorf("certificate %d with a key that is not its own: keys %v, log %s", n, *r.keys.Load(), log)
	}
}

// TestCannotLoad ends Run with the error of the models.
func TestCannotLoad(t *testing.T) {
	before := goleak.IgnoreCurrent()
	o := DefaultOptions()
	o.Listen, o.Models, o.Log = "127.0.0.1:0", []ModelConfig{worldModel()}, slog.New(slog.DiscardHandler)
	o.Models[0].Files.CLIP = "missing.safetensors"
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context(), nil, nil); err == nil || !strings.Contains(err.Error(), "missing.safetensors") {
		t.Errorf("Run: %v", err)
	}
	goleak.VerifyNone(t, before)
}
