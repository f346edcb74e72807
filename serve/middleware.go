package serve

import (
	"compress/gzip"
	"compress/zlib"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A budget is memory that requests share.
type budget struct {
	mu   sync.Mutex
	left int64
}

func (b *budget) take(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > b.left {
		return false
	}
	b.left -= n
	return true
}

func (b *budget) give(n int64) {
	b.mu.Lock()
	b.left += n
	b.mu.Unlock()
}

// recorder remembers the status of an answer.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
	// patience is the longest time in which a client must take what is written.
	patience time.Duration
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	r.deadline(time.Now().Add(r.patience))
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

// deadline sets the time until which the connection takes what is written, if it has one.
func (r *recorder) deadline(at time.Time) {
	http.NewResponseController(r.ResponseWriter).SetWriteDeadline(at)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// requestID is the form of an id that a client may choose.
var requestID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// middleware does for all routes what does not depend on the route. The log has neither
// pictures nor texts nor captions.
func (s *Server) middleware(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begin := time.Now()
		id := r.Header.Get("X-Request-Id")
		if !requestID.MatchString(id) {
			var b [8]byte
			rand.Read(b[:])
			id = hex.EncodeToString(b[:])
		}
		w.Header().Set("X-Request-Id", id)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		to := &recorder{ResponseWriter: w, patience: s.times.answer}
		to.deadline(time.Time{}) // that of the request before
		found, route := mux.Handler(r)
		s.metrics.inFlight.Inc()
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler {
					panic(p)
				}
				s.o.Log.Error("panic", "id", id, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
				if to.status == 0 {
					s.fail(to, r, asError(fmt.Errorf("panic")))
				}
			}
			s.metrics.inFlight.Dec()
			status := strconv.Itoa(to.status)
			s.metrics.requests.WithLabelValues(route, status).Inc()
			s.metrics.latency.WithLabelValues(route).Observe(time.Since(begin).Seconds())
			s.o.Log.Info("request", "id", id, "method", r.Method, "route", route, "status", to.status, "bytes", to.bytes,
				"ms", time.Since(begin).Milliseconds(), "remote", r.RemoteAddr)
		}()
		// Probes of containers ask by address.
		if kind(route) != "health" && !s.hostAllowed(r.Host) {
			s.fail(to, r, &Error{Status: http.StatusForbidden, Code: "host_not_allowed", Message: fmt.Sprintf("the Host header %.100q is not one of this server's names; --allow-host adds one", r.Host)})
			return
		}
		if s.cors(to, r) {
			return
		}
		if !s.allowed(r, route) {
			to.Header().Set("WWW-Authenticate", "Bearer")
			s.fail(to, r, &Error{Status: http.StatusUnauthorized, Code: "invalid_api_key", Message: "this server needs an API key: send it as `Authorization: Bearer KEY`"})
			return
		}
		if route == "" {
			s.fail(to, r, noRoute(to, r, found))
			return
		}
		if r.Body != nil && r.ContentLength != 0 {
			// A body is held a few times at once: as bytes, as JSON and as pictures.
			encoding := r.Header.Get("Content-Encoding")
			n := min(max(r.ContentLength, 0), s.o.MaxBody)
			if r.ContentLength < 0 || encoding != "" {
				n = s.o.MaxBody
			}
			if r.ContentLength > s.o.MaxBody {
				s.fail(to, r, asError(&http.MaxBytesError{Limit: s.o.MaxBody}))
				return
			}
			if !s.memory.take(n) {
				s.metrics.refused.Inc()
				s.fail(to, r, busy(time.Second))
				return
			}
			defer s.memory.give(n)
			r.Body = http.MaxBytesReader(to, r.Body, s.o.MaxBody)
			body, err := decompress(r.Body, encoding)
			if err != nil {
				s.fail(to, r, asError(err))
				return
			}
			if body != r.Body { // the limit is that of the decompressed body too
				r.Body = http.MaxBytesReader(to, body, s.o.MaxBody)
			}
		}
		mux.ServeHTTP(to, r)
	})
}

// noRoute returns the error of a request that has no route: the path is unknown, or its method
// is, and then the header Allow lists the others.
func noRoute(w http.ResponseWriter, r *http.Request, found http.Handler) *Error {
	probe := &discard{header: http.Header{}}
	found.ServeHTTP(probe, r)
	if probe.status == http.StatusMethodNotAllowed {
		return wrongMethod(w, r, probe.header.Get("Allow"))
	}
	switch path := r.URL.Path; {
	case strings.HasPrefix(path, "/v1/"):
		return &Error{Status: http.StatusNotFound, Code: "unknown_url",
			Message: fmt.Sprintf("no route %s %.100s; of OpenAI's API, this server has POST /v1/embeddings, POST /v1/chat/completions and GET /v1/models", r.Method, path)}
	case strings.HasPrefix(path, "/api/"):
		return &Error{Status: http.StatusNotFound, Code: "unknown_url", Message: fmt.Sprintf("this server does not have %s %.100s of Ollama's API", r.Method, path)}
	}
	return &Error{Status: http.StatusNotFound, Code: "not_found", Message: fmt.Sprintf("this server has no route %.100q; docs/serve.md and /openapi.json list them", r.URL.Path)}
}

// wrongMethod is the error of a method other than those of a route, such as "GET, HEAD".
func wrongMethod(w http.ResponseWriter, r *http.Request, allow string) *Error {
	w.Header().Set("Allow", allow)
	return &Error{Status: http.StatusMethodNotAllowed, Code: "method_not_allowed", Message: fmt.Sprintf("%.20s is not a method of %.100q, which has %s", r.Method, r.URL.Path, allow)}
}

// discard is an answer of which nobody reads the body.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }

// decompress returns the reader of a body whose Content-Encoding is given.
func decompress(body io.ReadCloser, encoding string) (to io.ReadCloser, err error) {
	switch strings.ToLower(encoding) {
	case "", "identity":
		return body, nil
	case "gzip", "x-gzip":
		to, err = gzip.NewReader(body)
	case "deflate": // which HTTP calls the format of zlib
		to, err = zlib.NewReader(body)
	default:
		return nil, &Error{Status: http.StatusUnsupportedMediaType, Code: "unsupported_encoding", Message: fmt.Sprintf("Content-Encoding %.50q: must be gzip or deflate, or missing", encoding)}
	}
	if err != nil {
		return nil, readError(err)
	}
	return to, nil
}

// hostAllowed checks the Host header, so that a page of another site cannot reach a server on
// this machine by letting its own name point here (DNS rebinding).
func (s *Server) hostAllowed(host string) bool {
	listen, _, _ := net.SplitHostPort(s.o.Listen)
	ip, err := netip.ParseAddr(listen)
	loopback := listen == "localhost" || err == nil && ip.IsLoopback()
	if !loopback && len(s.o.AllowHosts) == 0 {
		return true
	}
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.ToLower(strings.TrimSuffix(strings.Trim(name, "[]"), "."))
	if ip, err := netip.ParseAddr(name); err == nil && (ip.IsLoopback() || ip.String() == listen) {
		return true
	}
	return name == "localhost" || strings.HasSuffix(name, ".localhost") || name == strings.ToLower(listen) ||
		slices.ContainsFunc(s.o.AllowHosts, func(a string) bool { return strings.EqualFold(a, name) })
}

// cors answers a preflight request, and lets pages of the listed origins read answers. It
// reports whether the request is done.
func (s *Server) cors(w http.ResponseWriter, r *http.Request) bool {
	origin := r.Header.Get("Origin")
	preflight := r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != ""
	if origin == "" {
		return false
	}
	h := w.Header()
	h.Add("Vary", "Origin")
	if slices.Contains(s.o.Origins, origin) || slices.Contains(s.o.Origins, "*") {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Expose-Headers", "X-Request-Id, X-Cyclecap-Batch, Retry-After")
		if preflight {
			h.Set("Access-Control-Allow-Methods", "GET, POST, HEAD, OPTIONS")
			// OpenAI's clients send headers whose names begin with x-stainless-.
			if want := r.Header.Get("Access-Control-Request-Headers"); want != "" {
				h.Set("Access-Control-Allow-Headers", want)
			}
			h.Set("Access-Control-Max-Age", "600")
		}
	}
	if preflight {
		w.WriteHeader(http.StatusNoContent)
	}
	return preflight
}

// allowed checks the API key. Keys are compared by hashes, in constant time.
func (s *Server) allowed(r *http.Request, route string) bool {
	if len(*s.keys.Load()) == 0 || slices.Contains(s.o.Public, kind(route)) {
		return true
	}
	key := r.Header.Get("X-Api-Key")
	if scheme, value, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		key = strings.TrimSpace(value)
	}
	have, ok := sha256.Sum256([]byte(key)), 0
	for _, k := range *s.keys.Load() {
		want := sha256.Sum256([]byte(k))
		ok |= subtle.ConstantTimeCompare(have[:], want[:])
	}
	return ok == 1
}

// kind returns which of Options.Public a route belongs to.
func kind(route string) string {
	switch _, path, _ := strings.Cut(route, " "); {
	case path == "/healthz" || path == "/readyz" || strings.HasPrefix(path, "/v2/health/"):
		return "health"
	case path == "/metrics":
		return "metrics"
	case path == "/{$}" || strings.HasPrefix(path, "/page/"):
		return "page"
	}
	return ""
}

// fail sends an error in the form of the route's protocol.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, e *Error) {
	e.retryHeader(w.Header())
	writeJSON(w, e.Status, errorBody(r.URL.Path, e)) // strings, which JSON can hold
}
