// Package serve answers requests for captions and features over HTTP: a form of its own, those
// of OpenAI, Ollama and KServe, and a page.
//
// A request goes through these parts: the middleware (middleware.go) checks who may ask; a
// handler reads the request and decodes its photos (input.go); the task that it makes waits in a
// queue (queue.go) for the worker (worker.go), which alone computes with the models (model.go).
// The items of a request form batches of their own unless the server was told to join requests,
// so the bits of an answer do not depend on other requests.
package serve

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"cyclecap/data/photo"
	"cyclecap/serve/fetch"
)

// Options configures a server. DefaultOptions returns the defaults.
type Options struct {
	// Listen is the address: "127.0.0.1:8080".
	Listen string
	Models []ModelConfig

	// Queue is the number of requests that may wait for the worker, and QueueTimeout the
	// longest time that they do.
	Queue        int
	QueueTimeout time.Duration
	// BatchWindow is the time to wait for requests of the same kind, which are then computed
	// in batches of at most MaxBatch items. 0 computes each request by itself.
	BatchWindow time.Duration
	MaxBatch    int

	// MaxBody limits a request (bytes), MaxPixels a picture, MaxItems the pictures and texts
	// of a request, and MaxInFlight all bodies that are being read or worked on (bytes).
	MaxBody     int64
	MaxPixels   int
	MaxItems    int
	MaxInFlight int64

	// Keys are the secrets of which a client must send one; nil lets everyone in. Public are
	// what needs none: "health", "metrics" and "page".
	Keys []string
	// KeyFile has further keys: see ReadKeys.
	KeyFile string
	Public  []string
	// AllowHosts are values of the Host header to accept besides those of the address
	// itself. They are checked if the address is a loopback one, or if there are any.
	AllowHosts []string
	// Origins are the origins whose pages may send requests; "*" means all.
	Origins []string
	// FetchHosts are the hosts from which pictures are fetched; nil fetches none.
	FetchHosts []string
	// TLSCert and TLSKey are files in PEM form; without them the server speaks HTTP.
	TLSCert, TLSKey string

	// DrainPause is the time between reporting that the server is not ready any more and
	// refusing connections; DrainTimeout is how long requests may then still take.
	DrainPause, DrainTimeout time.Duration

	// Version is that of the program, which protocols show.
	Version string
	Log     *slog.Logger
}

// DefaultOptions returns the defaults, without models.
func DefaultOptions() Options {
	return Options{Listen: "127.0.0.1:8080", Queue: 64, QueueTimeout: 60 * time.Second, MaxBatch: 32,
		MaxBody: 32 << 20, MaxPixels: 40_000_000, MaxItems: 256, MaxInFlight: 512 << 20,
		Public: []string{"health", "page"}, DrainTimeout: 30 * time.Second, Log: slog.Default()}
}

// A Server answers requests.
type Server struct {
	o       Options
	models  models
	worker  *worker
	metrics *metrics
	decode  chan struct{} // a place for each photo that is being decoded
	// fetcher fetches pictures by URL, with a place in fetching for each.
	fetcher  *fetch.Fetcher
	fetching chan struct{}
	memory   budget
	ready    atomic.Bool // models are loaded
	drained  atomic.Bool // the server shuts down
	times    timeouts
	handler  http.Handler
	api      json.RawMessage          // /openapi.json
	keys     atomic.Pointer[[]string] // API keys; none let everyone in
	// certificate is that of new connections; nil speaks HTTP.
	certificate atomic.Pointer[tls.Certificate]
}

// timeouts bound the time that a slow client may hold a connection.
type timeouts struct{ header, body, answer, idle time.Duration }

// fetchTimeout is the longest time for a picture that is named by a URL, and fetches how many
// are fetched at once.
const (
	fetchTimeout = 15 * time.Second
	fetches      = 4
)

// New returns a server that is not ready: Run loads its models.
func New(o Options) (*Server, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	s := &Server{o: o, decode: make(chan struct{}, photo.Workers()), fetching: make(chan struct{}, fetches), memory: budget{left: o.MaxInFlight},
		times: timeouts{header: 10 * time.Second, body: 2 * time.Minute, answer: 2 * time.Minute, idle: 2 * time.Minute}}
	s.worker = &worker{queue: newQueue(o.Queue), window: o.BatchWindow, most: o.MaxBatch, patience: o.QueueTimeout, log: o.Log}
	if o.BatchWindow > 0 { // the bits depend on other requests in any case
		s.o.Models = slices.Clone(o.Models)
		for i := range s.o.Models {
			s.o.Models[i].Compute.ShortTexts = true
		}
	}
	s.metrics = newMetrics(func() float64 { return float64(s.worker.queue.length()) }, s.models.all)
	s.worker.metrics = s.metrics
	var err error
	if s.fetcher, err = fetch.New(fetch.Options{Hosts: o.FetchHosts, MaxBytes: o.MaxBody, Timeout: fetchTimeout}); err != nil {
		return nil, err
	}
	if err := errors.Join(s.readKeys(), s.readCertificate()); err != nil {
		return nil, err
	}
	api, err := json.Marshal(describe(o, len(*s.keys.Load()) > 0))
	if err != nil {
		return nil, err
	}
	s.api = api
	s.handler = s.middleware(s.routes())
	return s, nil
}

// readKeys reads the API keys.
func (s *Server) readKeys() error {
	keys := s.o.Keys
	if s.o.KeyFile != "" {
		more, err := ReadKeys(s.o.KeyFile)
		if err != nil {
			return fmt.Errorf("--api-key-file: %w", err)
		}
		keys = slices.Concat(keys, more)
	}
	s.keys.Store(&keys)
	return nil
}

// readCertificate reads the certificate and its key.
func (s *Server) readCertificate() error {
	if s.o.TLSCert == "" {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(s.o.TLSCert, s.o.TLSKey)
	if err != nil {
		return fmt.Errorf("--tls-cert, --tls-key: %w", err)
	}
	s.certificate.Store(&pair)
	return nil
}

// ServeHTTP answers a request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// routes returns the handlers of all protocols.
func (s *Server) routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("GET /metrics", s.metrics.handler())
	s.ownRoutes(mux)
	s.openaiRoutes(mux)
	s.ollamaRoutes(mux)
	s.kserveRoutes(mux)
	s.handle(mux, "GET /openapi.json", func(w http.ResponseWriter, r *http.Request) error { return writeJSON(w, http.StatusOK, s.api) })
	pageRoutes(mux)
	return mux
}

func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	if !s.isReady() {
		e := notReady()
		e.retryHeader(w.Header())
		http.Error(w, "not ready", e.Status)
		return
	}
	fmt.Fprintln(w, "ready")
}

func (s *Server) isReady() bool { return s.ready.Load() && !s.drained.Load() }

// Load loads the models, or loads them again: requests go on with those before until the new
// ones are ready. If it fails, those before stay.
func (s *Server) Load() error {
	begin := time.Now()
	list, err := loadAll(s.o.Models)
	if err != nil {
		return err
	}
	s.models.replace(list)
	s.ready.Store(true)
	for _, m := range list {
		for _, n := range m.notes {
			s.o.Log.Info("note", "model", m.Name, "text", n)
		}
	}
	s.o.Log.Info("ready", "models", s.models.names(), "seconds", time.Since(begin).Seconds())
	return nil
}

// Run listens, loads the models and answers requests until ctx is done; reload has it read the
// models, the file of keys and the certificate again. It then reports that it is not ready,
// finishes the requests that it has, and returns nil. listening, if not nil, is called with the
// address.
func (s *Server) Run(ctx context.Context, reload <-chan struct{}, listening func(net.Addr)) error {
	l, err := net.Listen("tcp", s.o.Listen)
	if err != nil {
		return fmt.Errorf("--listen %s: %w", s.o.Listen, err)
	}
	h := &http.Server{Handler: s, ReadHeaderTimeout: s.times.header, ReadTimeout: s.times.body, IdleTimeout: s.times.idle,
		MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(s.o.Log.Handler(), slog.LevelDebug)}
	if s.certificate.Load() != nil {
		h.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return s.certificate.Load(), nil
		}}
		l = tls.NewListener(l, h.TLSConfig)
	}
	if listening != nil {
		listening(l.Addr())
	}
	s.worker.start()
	served := make(chan error, 1)
	go func() { served <- h.Serve(l) }()
	loaded := make(chan error, 1)
	go func() { loaded <- s.Load() }()
	loading, again, first := true, false, true
	for {
		select {
		case err := <-loaded:
			if err != nil && first {
				h.Close()
				s.worker.stop()
				return err
			}
			if err != nil {
				s.o.Log.Error("not everything was loaded again; the rest goes on as before", "error", err)
			}
			loading, first = false, false
		case <-reload:
			again = true // after the load that goes on, if there is one
		case err := <-served:
			s.worker.stop()
			s.models.end()
			return err
		case <-ctx.Done():
			return s.drain(h)
		}
		if again && !loading {
			loading, again = true, false
			// Each by itself: damaged weights must not keep a certificate until it expires.
			go func() { loaded <- errors.Join(s.readKeys(), s.readCertificate(), s.Load()) }()
		}
	}
}

// drain ends the server: unready, a pause in which balancers notice, and then the requests.
func (s *Server) drain(h *http.Server) error {
	s.drained.Store(true)
	s.o.Log.Info("draining", "queue", s.worker.queue.length())
	time.Sleep(s.o.DrainPause)
	ctx, cancel := context.WithTimeout(context.Background(), s.o.DrainTimeout)
	defer cancel()
	err := h.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		s.o.Log.Warn("requests were cut off after the time for draining", "seconds", s.o.DrainTimeout.Seconds())
		err = h.Close() // ends their contexts
	}
	s.worker.stop()
	s.models.end() // a load that goes on ends with it
	return err
}
