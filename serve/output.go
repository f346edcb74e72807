package serve

import (
	"encoding/json"
	"net/http"
	"strings"
)

// writeJSON sends a value as JSON. If JSON cannot hold it, such as a number that is not finite,
// it sends nothing and returns the error.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(b, '\n'))
	return nil
}

// errorBody returns an error in the form of the protocol to which a path belongs.
func errorBody(path string, e *Error) any {
	switch {
	case strings.HasPrefix(path, "/api/"), path == "/v2", strings.HasPrefix(path, "/v2/"): // Ollama, KServe
		return struct {
			Error string `json:"error"`
		}{e.Message}
	}
	return struct {
		Error errorJSON `json:"error"`
	}{errorJSON{e.Message, errorType(e.Status), nullable(e.Param), e.Code}}
}

// errorJSON is OpenAI's form of an error, which the server's own routes have too.
type errorJSON struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    string  `json:"code"`
}

func errorType(status int) string {
	switch {
	case status == http.StatusUnauthorized:
		return "authentication_error"
	case status == http.StatusTooManyRequests:
		return "rate_limit_error"
	case status >= 500:
		return "server_error"
	}
	return "invalid_request_error"
}

func nullable(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// handle adds a route. The error that its handler returns is sent in the form of the route's
// protocol, so a handler that has begun to write must return nil.
func (s *Server) handle(mux *http.ServeMux, route string, handler func(http.ResponseWriter, *http.Request) error) {
	mux.HandleFunc(route, func(w http.ResponseWriter, r *http.Request) {
		if err := handler(w, r); err != nil {
			s.fail(w, r, s.logged(w, err))
		}
	})
}

// compute runs a task and sets the header that says how it was computed.
func (s *Server) compute(w http.ResponseWriter, t *task) error {
	if err := s.worker.do(t); err != nil {
		return err
	}
	w.Header().Set(batchHeader, t.batched)
	return nil
}

// batchHeader says how a request was computed: "exact" by itself, "shared" or "continuous" with
// others.
const batchHeader = "X-Cyclecap-Batch"

// logged writes the cause of an internal error to the log, which alone has it.
func (s *Server) logged(w http.ResponseWriter, err error) *Error {
	e := asError(err)
	if e.Status == http.StatusInternalServerError {
		s.o.Log.Error("internal error", "id", w.Header().Get("X-Request-Id"), "error", err)
	}
	return e
}
