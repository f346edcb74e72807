package fetch

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// Every test runs with a proxy in the environment, which must not be used.
func TestMain(m *testing.M) {
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"} {
		os.Setenv(name, "http://127.0.0.1:9")
	}
	goleak.VerifyTestMain(m)
}

const address = "93.184.215.14"

// internet is what a Fetcher of a test sees: names with public addresses, and servers
// of the test at some of them.
type internet struct {
	mu      sync.Mutex
	answers map[string][][]string // the addresses of a name, lookup after lookup; the last ones stay
	servers map[string]string     // the listeners at public addresses
	dialed  []string
	looked  []string
}

func (n *internet) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.looked = append(n.looked, host)
	answers := n.answers[host]
	if len(answers) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, Server: "10.0.0.53:53", IsNotFound: true}
	}
	if len(answers) > 1 {
		n.answers[host] = answers[1:]
	}
	var addrs []netip.Addr
	for _, s := range answers[0] {
		addrs = append(addrs, netip.MustParseAddr(s))
	}
	return addrs, nil
}

func (n *internet) dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	n.mu.Lock()
	n.dialed = append(n.dialed, to.String())
	server, ok := n.servers[to.String()]
	n.mu.Unlock()
	if !ok {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	return new(net.Dialer).DialContext(ctx, "tcp", server)
}

// online returns a Fetcher for which the server answers at address, port 80, which is
// that of good.example and of all subdomains that the test names.
func online(t *testing.T, handler http.HandlerFunc) (*Fetcher, *internet, *httptest.Server) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	n := &internet{
		answers: map[string][][]string{"good.example": {{address}}, "other.example": {{address}}},
		servers: map[string]string{address + ":80": server.Listener.Addr().String()},
	}
	f := newFetcher(t, "good.example", "other.example", "*.good.example", "good.example:8443", address)
	f.lookup, f.dial = n.lookup, n.dial
	return f, n, server
}

// refused checks that a URL is not fetched, why, and that the text is fit for clients.
func refused(t *testing.T, f *Fetcher, url string, kind Kind, texts ...string) *Error {
	t.Helper()
	data, err := f.Get(t.Context(), url)
	var e *Error
	if !errors.As(err, &e) || e.Kind != kind || data != nil {
		t.Fatalf("%s: %d bytes, error %v, want kind %s", url, len(data), err, kind)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v\nwant %q in it", url, err, text)
		}
	}
	for _, private := range []string{"10.0.0.", "127.0.0.1", "SECRET", "\n"} {
		if strings.Contains(err.Error(), private) && !strings.Contains(e.URL, private) { // a redirect may name an address itself
			t.Errorf("%s: %v\nhas %q in it", url, err, private)
		}
	}
	return e
}

func TestGet(t *testing.T) {
	var got *http.Request
	f, n, _ := online(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		w.Header().Set("Content-Type", "text/html") // not looked at
		io.WriteString(w, "a picture")
	})
	data, err := f.Get(t.Context(), "HTTP://Good.example.:80/a%2Fb.png?key=1#part")
	if err != nil || string(data) != "a picture" {
		t.Fatalf("%q, %v", data, err)
	}
	if got.Host != "good.example" || got.RequestURI != "/a%2Fb.png?key=1" || got.Method != "GET" {
		t.Errorf("sent %s %s to %s", got.Method, got.RequestURI, got.Host)
	}
	if h := got.Header; h.Get("Accept-Encoding") != "identity" || h.Get("Referer") != "" || h.Get("Authorization") != "" || h.Get("Cookie") != "" || !got.Close {
		t.Errorf("sent headers %v, close %v", h, got.Close)
	}
	if len(n.looked) != 1 || len(n.dialed) != 1 || n.dialed[0] != address+":80" {
		t.Errorf("looked up %v, dialed %v", n.looked, n.dialed)
	}
	// An address as the host is not looked up.
	if data, err := f.Get(t.Context(), "http://"+address+"/"); err != nil || string(data) != "a picture" || len(n.looked) != 1 {
		t.Errorf("%q, %v; looked up %v", data, err, n.looked)
	}
	// An empty file is one; the decoder refuses it.
	f, _, _ = online(t, func(http.ResponseWriter, *http.Request) {})
	if data, err := f.Get(t.Context(), "http://good.example/"); err != nil || len(data) != 0 {
		t.Errorf("%q, %v", data, err)
	}
}

// TestResolved: one address that is not public is enough for a refusal, and nothing
// is dialed.
func TestResolved(t *testing.T) {
	f, n, _ := online(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "secret") })
	for _, addrs := range [][]string{
		{"127.0.0.1"}, {"169.254.169.254"}, {"10.0.0.1"}, {"0.0.0.0"}, {"::1"}, {"::ffff:127.0.0.1"}, {"::ffff:" + address}, {"64:ff9b::a00:1"}, {"fe80::1%eth0"},
		{address, "10.0.0.1"}, {"10.0.0.1", address}, {address, address, address, address, address, "10.0.0.1"}, {address, "fd00::1"},
	} {
		n.answers["good.example"] = [][]string{addrs}
		e := refused(t, f, "http://good.example/a.png?SECRET", NotPublic, "http://good.example/a.png", "not on the public internet", "as a data URI")
		if public(e.Address) {
			t.Errorf("%v: the error has address %v", addrs, e.Address)
		}
	}
	if n.dialed != nil {
		t.Errorf("dialed %v", n.dialed)
	}
	n.answers["good.example"] = [][]string{{}}
	refused(t, f, "http://good.example/", NotFound, "no host of this name")
	e := refused(t, f, "http://gone.good.example/", NotFound, "no host of this name", "check the URL")
	if !strings.Contains(e.Err.Error(), "10.0.0.53") {
		t.Errorf("the log does not learn the cause: %v", e.Err)
	}
	f.lookup = func(context.Context, string) ([]netip.Addr, error) {
		return nil, &net.DNSError{Err: "server misbehaving", Server: "10.0.0.53:53", IsTemporary: true}
	}
	refused(t, f, "http://good.example/", Unavailable, "could not be looked up")
}

// TestRebinding: DNS answers that change. The address that was checked is dialed,
// whatever a second lookup would say; a second request is checked anew.
func TestRebinding(t *testing.T) {
	f, n, _ := online(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "public") })
	n.answers["good.example"] = [][]string{{address}, {"127.0.0.1"}}
	if data, err := f.Get(t.Context(), "http://good.example/"); err != nil || string(data) != "public" {
		t.Fatalf("%q, %v", data, err)
	}
	if len(n.looked) != 1 || len(n.dialed) != 1 || n.dialed[0] != address+":80" {
		t.Errorf("looked up %v, dialed %v", n.looked, n.dialed)
	}
	refused(t, f, "http://good.example/", NotPublic)
	// Between a redirect and its target.
	f, n, _ = online(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/again?SECRET", http.StatusFound) })
	n.answers["good.example"] = [][]string{{address}, {"127.0.0.1"}}
	refused(t, f, "http://good.example/?SECRET", NotPublic, "http://good.example/again (to which http://good.example/ redirects)")
	if len(n.dialed) != 1 {
		t.Errorf("dialed %v", n.dialed)
	}
}

func TestRedirects(t *testing.T) {
	var to string
	var referer []string
	hops := 0
	f, n, _ := online(t, func(w http.ResponseWriter, r *http.Request) {
		referer = append(referer, r.Referer())
		if hops == 0 {
			io.WriteString(w, r.Host+r.URL.Path)
			return
		}
		hops--
		w.Header().Set("Location", to)
		w.WriteHeader([]int{301, 302, 303, 307, 308}[hops%5])
	})
	for _, c := range []struct {
		to   string
		hops int
		want string
	}{
		{"/b.png", 1, "good.example/b.png"},
		{"b.png#part", 1, "good.example/x/b.png"},
		{"//other.example/b.png", 1, "other.example/b.png"},
		{"http://other.example/b.png", 3, "other.example/b.png"},
	} {
		to, hops = c.to, c.hops
		if data, err := f.Get(t.Context(), "http://good.example/x/a.png?SECRET"); err != nil || string(data) != c.want {
			t.Errorf("%s: %q, %v, want %s", c.to, data, err, c.want)
		}
	}
	if s := strings.Join(referer, ""); s != "" {
		t.Errorf("sent referers %q", referer)
	}
	n.answers["inside.good.example"] = [][]string{{"10.0.0.5"}}
	for location, want := range map[string]Kind{
		"http://inside.good.example/":              NotPublic,
		"http://127.0.0.1/":                        NotListed,
		"http://169.254.169.254/latest/meta-data/": NotListed,
		"http://[::1]/":                            NotListed,
		"http://0.0.0.0/":                          NotListed,
		"http://evil.example/?SECRET":              NotListed,
		"http://good.example:22/":                  NotListed,
		"//evil.example":                           NotListed,
		"file:///etc/passwd":                       BadURL,
		"ftp://good.example/":                      BadURL,
		"data:image/png;base64,AAAA":               BadURL,
		"javascript:1":                             BadURL,
		"http://2130706433/":                       BadURL,
		"http://user:SECRET@good.example/":         BadURL,
		"http://good.example@127.1/":               BadURL,
		"":                                         Unavailable,
		"http://a b/":                              Unavailable,
		":":                                        Unavailable,
	} {
		n.dialed = nil
		to, hops = location, 1
		e := refused(t, f, "http://good.example/?SECRET", want)
		if want != Unavailable && e.From != "http://good.example/" {
			t.Errorf("%s: from %q", location, e.From)
		}
		if len(n.dialed) != 1 || n.dialed[0] != address+":80" {
			t.Errorf("%s: dialed %v", location, n.dialed)
		}
	}
	to, hops, n.dialed = "/again", 4, nil
	refused(t, f, "http://good.example/", Unavailable, "more than 3 redirects")
	if len(n.dialed) != 4 {
		t.Errorf("%d requests for three redirects", len(n.dialed))
	}
}

func TestStatuses(t *testing.T) {
	code := 0
	f, _, _ := online(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		if code >= 400 {
			io.WriteString(w, "SECRET page")
		}
	})
	for c, want := range map[int]Kind{
		201: Unavailable, 204: Unavailable, 206: Unavailable, 300: Unavailable, 304: Unavailable, 305: Unavailable,
		400: NotFound, 401: NotFound, 403: NotFound, 404: NotFound, 410: NotFound, 451: NotFound,
		408: Unavailable, 425: Unavailable, 429: Unavailable, 500: Unavailable, 502: Unavailable, 503: Unavailable, 599: Unavailable,
	} {
		code = c
		refused(t, f, "http://good.example/", want, fmt.Sprintf("good.example answers %d", c), "check the URL")
	}
}

// TestSize: the limit holds with a Content-Length, which is refused at once, and
// without; a file of exactly the limit passes.
func TestSize(t *testing.T) {
	var sent atomic.Int64
	// The URL says what is sent: a handler may still run when the next request comes.
	url := func(size int, length bool) string { return fmt.Sprintf("http://good.example/%d/%v", size, length) }
	f, _, _ := online(t, func(w http.ResponseWriter, r *http.Request) {
		var size int
		var length bool
		fmt.Sscanf(r.URL.Path, "/%d/%t", &size, &length)
		if length {
			w.Header().Set("Content-Length", fmt.Sprint(size))
		}
		w.(http.Flusher).Flush()
		piece := make([]byte, 1<<16)
		for n := size; n > 0; n -= len(piece) {
			m, err := w.Write(piece[:min(n, len(piece))])
			sent.Add(int64(m))
			if err != nil {
				return
			}
		}
	})
	for _, length := range []bool{true, false} {
		for _, size := range []int{1<<20 - 1, 1 << 20} {
			if data, err := f.Get(t.Context(), url(size, length)); err != nil || len(data) != size {
				t.Errorf("size %d, length sent: %v: %d bytes, %v", size, length, len(data), err)
			}
		}
		for _, size := range []int{1<<20 + 1, 1 << 30} {
			sent.Store(0)
			refused(t, f, url(size, length), TooLarge, "more than 1048576 bytes, the limit of this server")
			// What was sent is in the buffers of the sockets.
			if n := sent.Load(); n > 32<<20 {
				t.Errorf("size %d, length sent: %v: the host could send %d bytes", size, length, n)
			}
		}
	}
	// The length alone is enough: the host sends nothing else, and is not waited for.
	f, n, _ := online(t, nil)
	raw(t, n, address+":80", func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n")
		io.Copy(io.Discard, c)
	})
	refused(t, f, "http://good.example/", TooLarge)
}

func TestNoSize(t *testing.T) {
	const size = 100
	f, _, _ := online(t, func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, size)) })
	f.max = 1<<63 - 1
	if data, err := f.Get(t.Context(), "http://good.example/"); err != nil || len(data) != size {
		t.Errorf("without a real limit: %d bytes, %v", len(data), err)
	}
}

func TestTruncated(t *testing.T) {
	f, _, _ := online(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000000")
		io.WriteString(w, "short")
	})
	refused(t, f, "http://good.example/", Unavailable, "closed the connection before the file was complete")
}

// TestCompressed: compression is not asked for, and what comes compressed is not
// unpacked.
func TestCompressed(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	z.Write(make([]byte, 8<<20))
	z.Close()
	encoding := "gzip"
	f, _, _ := online(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", encoding)
		w.Write(bomb.Bytes())
	})
	for _, encoding = range []string{"gzip", "br", "deflate, gzip"} {
		refused(t, f, "http://good.example/", Unavailable, "compressed, which was not asked for")
	}
	encoding = "identity"
	if data, err := f.Get(t.Context(), "http://good.example/"); err != nil || !bytes.Equal(data, bomb.Bytes()) {
		t.Errorf("%d bytes, %v, want the %d that were sent", len(data), err, bomb.Len())
	}
}

// raw serves connections with a function instead of an HTTP server. The connection is
// closed when the function returns, for which the end of the test waits.
func raw(t *testing.T, n *internet, at string, serve func(net.Conn)) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	n.servers[at] = l.Addr().String()
}

// drip sends a byte at a time until the other side hangs up.
func drip(c net.Conn, text string) {
	for i := 0; ; i++ {
		b := byte('x')
		if i < len(text) {
			b = text[i]
		}
		if _, err := c.Write([]byte{b}); err != nil {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestSlow: a host that never finishes is cut when the time is up, wherever it
// stops, and the connection with it.
func TestSlow(t *testing.T) {
	for name, c := range map[string]struct {
		url   string
		serve func(net.Conn)
	}{
		"silent":            {"http://good.example/", func(c net.Conn) { io.Copy(io.Discard, c) }},
		"dripping a header": {"http://good.example/", func(c net.Conn) { drip(c, "HTTP/1.1 200 OK\r\nX: ") }},
		"dripping a body":   {"http://good.example/", func(c net.Conn) { drip(c, "HTTP/1.1 200 OK\r\n\r\n") }},
		"endless 103":       {"http://good.example/", func(c net.Conn) { drip(c, strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 1000)) }},
		"silent before TLS": {"https://good.example:8443/", func(c net.Conn) { io.Copy(io.Discard, c) }},
		"stopping in a body": {"http://good.example/", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
			io.Copy(io.Discard, c)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			f, n, _ := online(t, nil)
			f.timeout = 150 * time.Millisecond
			raw(t, n, address+":80", c.serve)
			raw(t, n, address+":8443", c.serve)
			start := time.Now()
			refused(t, f, c.url, Unavailable, "the whole file did not arrive within 150ms")
			if d := time.Since(start); d < f.timeout || d > 5*time.Second {
				t.Errorf("it took %v", d)
			}
		}) // the end of the test waits for the servers, which wait for the hang-up
	}
	t.Run("DNS", func(t *testing.T) {
		f, _, _ := online(t, nil)
		f.timeout = 50 * time.Millisecond
		f.lookup = func(ctx context.Context, _ string) ([]netip.Addr, error) {
			<-ctx.Done()
			return nil, &net.DNSError{Err: ctx.Err().Error(), Server: "10.0.0.53:53", IsTimeout: true}
		}
		refused(t, f, "http://good.example/", Unavailable, "within 50ms")
	})
	t.Run("redirects share the time", func(t *testing.T) {
		f, _, _ := online(t, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(100 * time.Millisecond)
			http.Redirect(w, r, "/", http.StatusFound)
		})
		f.timeout = 150 * time.Millisecond
		refused(t, f, "http://good.example/", Unavailable, "within 150ms")
	})
}

// TestAddresses: the addresses of a host are tried in turn, and one that does not
// answer leaves time for the others.
func TestAddresses(t *testing.T) {
	f, n, _ := online(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "here") })
	n.answers["good.example"] = [][]string{{"2606:2800::1", "8.8.8.8", address}}
	f.timeout = 2 * time.Second
	f.dial = func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
		if to.Addr().Is6() {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return n.dial(ctx, to)
	}
	if data, err := f.Get(t.Context(), "http://good.example/"); err != nil || string(data) != "here" {
		t.Errorf("%q, %v", data, err)
	}
	if s := strings.Join(n.dialed, " "); s != "8.8.8.8:80 "+address+":80" {
		t.Errorf("dialed %s", s)
	}
	n.answers["good.example"] = [][]string{{"1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4", "1.1.1.5"}}
	n.dialed = nil
	e := refused(t, f, "http://good.example/", Unavailable, "good.example: it refuses connections")
	if len(n.dialed) != maxAddresses || e.Address.String() != "1.1.1.1" {
		t.Errorf("dialed %v, error with %v", n.dialed, e.Address)
	}
}

// TestCanceled: when our client goes away, the fetch ends with its context's cause.
func TestCanceled(t *testing.T) {
	f, _, _ := online(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	gone := errors.New("the client has gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(gone) })
	start := time.Now()
	_, err := f.Get(ctx, "http://good.example/?SECRET")
	if !errors.Is(err, gone) || errors.As(err, new(*Error)) || strings.Contains(err.Error(), "SECRET") || time.Since(start) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
	short, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if _, err := f.Get(short, "http://good.example/"); !errors.Is(err, context.DeadlineExceeded) || errors.As(err, new(*Error)) {
		t.Errorf("%v", err)
	}
}

func TestTLS(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.TLS.ServerName, " ", r.Host, " ", r.Proto)
	}))
	server.EnableHTTP2 = true
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	n := &internet{
		answers: map[string][][]string{"example.com": {{address}}, "other.example": {{address}}},
		servers: map[string]string{address + ":443": server.Listener.Addr().String(), address + ":8443": server.Listener.Addr().String()},
	}
	f := newFetcher(t, "example.com", "example.com:8443", "other.example", address)
	f.lookup, f.dial = n.lookup, n.dial
	refused(t, f, "https://example.com/", Unavailable, "its TLS certificate is not valid for this host, or not signed by an authority that this machine knows")
	f.roots = x509.NewCertPool()
	f.roots.AddCert(server.Certificate())
	for url, want := range map[string]string{
		"https://example.com/":       "example.com example.com HTTP/1.1",
		"https://Example.COM.:8443/": "example.com example.com:8443 HTTP/1.1",
	} {
		if data, err := f.Get(t.Context(), url); err != nil || string(data) != want {
			t.Errorf("%s: %q, %v, want %q", url, data, err, want)
		}
	}
	refused(t, f, "https://other.example/", Unavailable, "its TLS certificate is not valid")
	refused(t, f, "https://"+address+"/", Unavailable, "its TLS certificate is not valid")
	raw(t, n, address+":443", func(c net.Conn) { io.WriteString(c, "SECRET banner\r\n") })
	refused(t, f, "https://example.com/", Unavailable, "did not agree on a TLS connection")
}

// TestOtherProtocols: what a service that is not HTTP sends is not shown.
func TestOtherProtocols(t *testing.T) {
	for name, text := range map[string]string{
		"SSH":               "SSH-2.0-SECRET\r\n",
		"nothing":           "",
		"a header first":    "HTTP/1.1 100 Continue\r\n\r\nSECRET\r\n\r\n",
		"a huge header":     "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("SECRET", 20000),
		"many headers":      "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: SECRET\r\n", 20000),
		"a bad length":      "HTTP/1.1 200 OK\r\nContent-Length: SECRET\r\n\r\n",
		"two lengths":       "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
		"switched":          "HTTP/1.1 101 Switching Protocols\r\nUpgrade: SECRET\r\nConnection: Upgrade\r\n\r\n",
		"a broken chunk":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nSECRET\r\n",
		"an unknown coding": "HTTP/1.1 200 OK\r\nTransfer-Encoding: SECRET\r\n\r\nx",
		"a long reason":     "HTTP/1.1 500 SECRET\r\nContent-Length: 0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			f, n, _ := online(t, nil)
			raw(t, n, address+":80", func(c net.Conn) {
				io.WriteString(c, text)
				c.(*net.TCPConn).CloseWrite()
				io.Copy(io.Discard, c)
			})
			refused(t, f, "http://good.example/", Unavailable, "good.example")
		})
	}
}

// TestEarlyHints: responses before the response are passed over, as many as fit into
// a header.
func TestEarlyHints(t *testing.T) {
	f, n, _ := online(t, nil)
	var hints atomic.Int64
	raw(t, n, address+":80", func(c net.Conn) {
		io.WriteString(c, strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n", int(hints.Load()))+"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
		io.Copy(io.Discard, c)
	})
	for _, many := range []int64{0, 1, 3} {
		hints.Store(many)
		if data, err := f.Get(t.Context(), "http://good.example/"); err != nil || string(data) != "x" {
			t.Errorf("after %d early hints: %q, %v", many, data, err)
		}
	}
	hints.Store(5000)
	refused(t, f, "http://good.example/", Unavailable, "the header of its answer is too long")
}

// TestConnections: no connection is used for two requests.
func TestConnections(t *testing.T) {
	f, n, _ := online(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "x") })
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				if data, err := f.Get(t.Context(), "http://good.example/"); err != nil || string(data) != "x" {
					t.Errorf("%q, %v", data, err)
				}
			}
		})
	}
	wg.Wait()
	if len(n.dialed) != 40 {
		t.Errorf("%d connections for 40 requests", len(n.dialed))
	}
}

// TestReal: without the hooks of the tests, nothing on this machine is reached.
func TestReal(t *testing.T) {
	f := newFetcher(t, "good.example")
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the server was reached") }))
	defer server.Close()
	n := netip.MustParseAddrPort(server.Listener.Addr().String()).Port()
	f.hosts = append(f.hosts, entry{host: "localhost", port: n}, entry{host: "127.0.0.1", port: n}) // New refuses both
	for _, host := range []string{"localhost", "LOCALHOST.", "127.0.0.1"} {
		_, err := f.Get(t.Context(), fmt.Sprintf("http://%s:%d/", host, n))
		if e := (*Error)(nil); !errors.As(err, &e) || e.Kind != NotPublic {
			t.Errorf("%s: %v, want %s", host, err, NotPublic)
		}
	}
}
